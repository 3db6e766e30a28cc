//! The pin directory: links and maps below a BPF file system, by which programs outlive the agent
//! and the next one takes them over.
//!
//! One agent at a time works with a directory (a lock on it, which ends with the process).

use std::ffi::CString;
use std::fs::{self, File, TryLockError};
use std::io;
use std::os::fd::AsRawFd as _;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use aya::maps::{Array, Map, MapData};
use lb_common::agent::{LAYOUT_VERSION, Settings, map_name};

use super::error::AgentError;
use crate::host::pin;

/// The link of the program that decapsulates.
pub const INGRESS: &str = "ingress";
/// The link of the program that clamps the MSS.
pub const EGRESS: &str = "egress";
/// Every map that is pinned.
pub const MAPS: [&str; 4] =
    [map_name::SETTINGS, map_name::ADDRESSES, map_name::SOURCES, map_name::COUNTERS];
/// What a map's new pin is called until it replaces the old one.
const REPLACEMENT: &str = "_new";
/// BPF_FS_MAGIC of linux/magic.h.
const BPFFS_MAGIC: libc::c_long = 0xcafe_4a11;

/// A pinned link, as the kernel describes it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PinnedLink {
    /// `xdp` or `tcx`.
    pub kind: String,
    /// The interface it is on; 0 when that is gone.
    pub interface: u32,
}

/// The directory, locked.
#[derive(Debug)]
pub struct Pins {
    directory: PathBuf,
    _lock: File,
}

fn pin_error(path: &Path, error: &impl ToString) -> AgentError {
    AgentError::Pin { path: path.to_owned(), error: error.to_string() }
}

fn c_path(path: &Path) -> io::Result<CString> {
    CString::new(path.as_os_str().as_bytes()).map_err(io::Error::other)
}

fn is_bpffs(path: &Path) -> io::Result<bool> {
    let path = c_path(path)?;
    // SAFETY: all zero is a valid statfs.
    let mut facts: libc::statfs = unsafe { std::mem::zeroed() };
    // SAFETY: a terminated string and a struct of the right size.
    let done = unsafe { libc::statfs(path.as_ptr(), &raw mut facts) };
    if done == 0 { Ok(facts.f_type == BPFFS_MAGIC) } else { Err(io::Error::last_os_error()) }
}

impl Pins {
    /// Opens the directory, makes it if need be, and locks it.
    ///
    /// # Errors
    /// It is not on a BPF file system, or another agent has it.
    pub fn open(directory: &Path) -> Result<Self, AgentError> {
        fs::create_dir_all(directory).map_err(|error| pin_error(directory, &error))?;
        Self::lock(directory)
    }

    fn lock(directory: &Path) -> Result<Self, AgentError> {
        if !is_bpffs(directory).map_err(|error| pin_error(directory, &error))? {
            return Err(AgentError::NotBpffs(directory.to_owned()));
        }
        let lock = File::open(directory).map_err(|error| pin_error(directory, &error))?;
        match lock.try_lock() {
            Ok(()) => Ok(Self { directory: directory.to_owned(), _lock: lock }),
            Err(TryLockError::WouldBlock) => Err(AgentError::PinsLocked(directory.to_owned())),
            Err(TryLockError::Error(error)) => Err(pin_error(directory, &error)),
        }
    }

    /// The directory.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Where a pin is.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// The pinned link of this name, if there is one.
    ///
    /// # Errors
    /// There is a pin, but no link.
    pub fn link(&self, name: &str) -> Result<Option<PinnedLink>, AgentError> {
        let path = self.path(name);
        let found = match pin::open(&path) {
            Ok(found) => found,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(pin_error(&path, &error)),
        };
        let info = fs::read_to_string(format!("/proc/self/fdinfo/{}", found.as_raw_fd()))
            .map_err(|error| pin_error(&path, &error))?;
        parse_link(&info).map(Some).ok_or_else(|| pin_error(&path, &"not a link of ours"))
    }

    /// The pinned settings, if there are any, of our layout.
    ///
    /// # Errors
    /// Another layout, or not the settings.
    pub fn settings(&self) -> Result<Option<Settings>, AgentError> {
        let path = self.path(map_name::SETTINGS);
        if !path.exists() {
            return Ok(None);
        }
        let map = MapData::from_pin(&path).map_err(|error| pin_error(&path, &error))?;
        let settings: Array<_, Settings> =
            Array::try_from(Map::Array(map)).map_err(|_not_ours| self.other_version(0))?;
        let settings = settings.get(&0, 0).map_err(|error| pin_error(&path, &error))?;
        if settings.version == LAYOUT_VERSION {
            Ok(Some(settings))
        } else {
            Err(self.other_version(settings.version))
        }
    }

    fn other_version(&self, found: u32) -> AgentError {
        let needed = LAYOUT_VERSION;
        AgentError::PinVersion { path: self.directory.clone(), found, needed }
    }

    /// Pins a map; one that is there already is replaced in one step.
    ///
    /// # Errors
    /// The file system refuses.
    pub fn put_map(&self, name: &str, map: &Map) -> Result<(), AgentError> {
        let path = self.path(name);
        let replacement = self.path(&format!("{name}{REPLACEMENT}"));
        remove(&replacement)?;
        map.pin(&replacement).map_err(|error| pin_error(&replacement, &error))?;
        fs::rename(&replacement, &path).map_err(|error| pin_error(&path, &error))
    }

    /// Removes a pin, if it is there.
    ///
    /// # Errors
    /// The file system refuses.
    pub fn remove(&self, name: &str) -> Result<(), AgentError> {
        remove(&self.path(name))
    }

    /// Removes every pin of the agent, links first, and the directory if that leaves it empty.
    ///
    /// # Errors
    /// The file system refuses.
    pub fn clear(&self) -> Result<(), AgentError> {
        self.remove(INGRESS)?;
        self.remove(EGRESS)?;
        for name in MAPS {
            self.remove(&format!("{name}{REPLACEMENT}"))?;
            self.remove(name)?;
        }
        match fs::remove_dir(&self.directory) {
            Ok(()) => Ok(()),
            // Somebody else's pins, or a mount point.
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::DirectoryNotEmpty | io::ErrorKind::ResourceBusy
                ) =>
            {
                Ok(())
            }
            Err(error) => Err(pin_error(&self.directory, &error)),
        }
    }
}

/// Detaches what is pinned in `directory` and removes the pins.
///
/// # Errors
/// Nothing is pinned there, an agent runs with it, or the file system refuses.
pub fn unload(directory: &Path) -> Result<(), AgentError> {
    if !directory.is_dir() {
        return Err(AgentError::NoPins(directory.to_owned()));
    }
    let pins = Pins::lock(directory)?;
    if [INGRESS, EGRESS].iter().chain(&MAPS).all(|name| !pins.path(name).exists()) {
        return Err(AgentError::NoPins(directory.to_owned()));
    }
    for name in [INGRESS, EGRESS] {
        // At once: removing the pin alone would detach some time later.
        if pins.path(name).exists() {
            let path = pins.path(name);
            pin::open(&path)
                .and_then(|link| pin::detach(&link))
                .map_err(|error| pin_error(&path, &error))?;
        }
    }
    pins.clear()
}

fn remove(path: &Path) -> Result<(), AgentError> {
    match fs::remove_file(path) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(pin_error(path, &error)),
    }
}

/// What /proc/PID/fdinfo says of a link.
fn parse_link(text: &str) -> Option<PinnedLink> {
    let field = |name: &str| {
        text.lines().find_map(|line| {
            let (key, value) = line.split_once(':')?;
            (key == name).then(|| value.trim())
        })
    };
    Some(PinnedLink {
        kind: field("link_type")?.to_owned(),
        interface: field("ifindex")?.parse().ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fdinfo_of_links() {
        let xdp = "pos:\t0\nflags:\t02000002\nmnt_id:\t17\nino:\t1\nlink_type:\txdp\nlink_id:\t3\n\
                   prog_tag:\tabc\nprog_id:\t9\nifindex:\t2\n";
        let expected = PinnedLink { kind: "xdp".to_owned(), interface: 2 };
        assert_eq!(parse_link(xdp), Some(expected));
        assert_eq!(parse_link("pos:\t0\nmap_type:\t2\n"), None);
        assert_eq!(parse_link(""), None);
    }
}

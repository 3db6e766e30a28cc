//! One `lbd` per pin path: a lock that dies with its process.
//!
//! A BPF file system holds no regular files, so the lock is a file elsewhere, named after the pin
//! path. It is taken with flock(2), which the kernel drops when the process ends, however it ends;
//! the file itself stays, because removing it would let two processes lock two files of one name.

use std::ffi::OsStr;
use std::fmt::Write as _;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

/// Where locks live unless a test says otherwise. Emptied at boot, as pins are.
pub const DIRECTORY: &str = "/run/lb";
/// Longest process id in the file, in bytes.
const MAX_PID_BYTES: u64 = 20;

/// Why the pin path is not ours.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another process has it.
    #[error(
        "another lbd{} already uses pin_path {}; stop it, or choose another pin_path",
        of_pid(*.pid),
        .pin_path.display()
    )]
    Held {
        /// The pin path both want.
        pin_path: PathBuf,
        /// The process that has it, if it has written its id already.
        pid: Option<u32>,
    },
    /// The lock file cannot be made or locked.
    #[error("cannot lock {}: {source}", .path.display())]
    Io {
        /// The lock file.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
}

fn of_pid(pid: Option<u32>) -> String {
    pid.map(|pid| format!(" (pid {pid})")).unwrap_or_default()
}

/// The right to use a pin path, held until it is dropped or the process ends.
#[derive(Debug)]
pub struct PinLock {
    _file: File,
}

impl PinLock {
    /// Takes the lock for a pin path, in a directory that is made if it is missing (see
    /// [`DIRECTORY`]). Does not wait.
    ///
    /// # Errors
    ///
    /// [`LockError::Held`] names the process that has it.
    pub fn take(directory: &Path, pin_path: &Path) -> Result<Self, LockError> {
        let pin_path = resolved(pin_path);
        let path = directory.join(format!("{}.lock", escaped(pin_path.as_os_str())));
        let io = |source| LockError::Io { path: path.clone(), source };
        std::fs::create_dir_all(directory).map_err(io)?;
        let options =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).clone();
        let mut file = options.open(&path).map_err(io)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let pid = holder(&mut file);
                return Err(LockError::Held { pin_path, pid });
            }
            Err(TryLockError::Error(source)) => return Err(io(source)),
        }
        file.set_len(0).map_err(io)?;
        file.rewind().map_err(io)?;
        writeln!(file, "{}", std::process::id()).map_err(io)?;
        Ok(Self { _file: file })
    }
}

/// The process id in a lock file.
fn holder(file: &mut File) -> Option<u32> {
    let mut text = String::new();
    file.take(MAX_PID_BYTES).read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}

/// The path without links, as far as it exists: one directory must not have two locks.
fn resolved(path: &Path) -> PathBuf {
    let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    for ancestor in path.ancestors() {
        if let (Ok(real), Ok(rest)) = (ancestor.canonicalize(), path.strip_prefix(ancestor)) {
            // Joining an empty path would add a slash.
            return if rest.as_os_str().is_empty() { real } else { real.join(rest) };
        }
    }
    path
}

/// A path as a file name, in the way of systemd-escape(1): slashes become dashes, and what is
/// neither letter, digit, underscore nor inner dot becomes `\xNN`.
fn escaped(path: &OsStr) -> String {
    let bytes = path.as_bytes();
    let bytes = bytes.strip_prefix(b"/").unwrap_or(bytes);
    let mut name = String::new();
    for (at, byte) in bytes.iter().enumerate() {
        match byte {
            b'/' => name.push('-'),
            b'.' if at > 0 => name.push('.'),
            b'_' | b'0'..=b'9' | b'A'..=b'Z' | b'a'..=b'z' => name.push(char::from(*byte)),
            // Writing to a String cannot fail.
            _ => write!(name, "\\x{byte:02x}").unwrap_or_default(),
        }
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A directory of this test's own, removed at the end.
    struct Scratch(PathBuf);

    impl Scratch {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("lb-{name}-{}", std::process::id()));
            std::fs::create_dir_all(&path).expect("a scratch directory");
            Self(path)
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            std::fs::remove_dir_all(&self.0).expect("the scratch directory removed");
        }
    }

    #[test]
    fn names() {
        for (path, want) in [
            ("/sys/fs/bpf/lb", "sys-fs-bpf-lb"),
            ("/sys/fs/bpf/lb-2", "sys-fs-bpf-lb\\x2d2"),
            ("/a b/.c", "a\\x20b-.c"),
            ("/", ""),
        ] {
            assert_eq!(escaped(OsStr::new(path)), want);
        }
    }

    #[test]
    fn the_second_one_is_told_who_is_first() {
        let scratch = Scratch::new("lock");
        let pins = scratch.0.join("pins");
        let first = PinLock::take(&scratch.0, &pins).expect("free");
        let refused = PinLock::take(&scratch.0, &scratch.0.join("./pins")).expect_err("held");
        let text = refused.to_string();
        assert!(text.contains(&format!("(pid {})", std::process::id())), "{text}");
        let _other = PinLock::take(&scratch.0, &scratch.0.join("others")).expect("another path");
        drop(first);
        let _again = PinLock::take(&scratch.0, &pins).expect("free again");
    }

    #[test]
    fn links_to_one_directory_share_a_lock() {
        let scratch = Scratch::new("lock-link");
        let pins = scratch.0.join("pins");
        std::fs::create_dir(&pins).expect("pins");
        std::os::unix::fs::symlink(&pins, scratch.0.join("link")).expect("a link");
        let _first = PinLock::take(&scratch.0, &pins).expect("free");
        let refused = PinLock::take(&scratch.0, &scratch.0.join("link"));
        assert!(matches!(refused, Err(LockError::Held { .. })));
    }

    #[test]
    fn a_directory_that_cannot_be_made() {
        let refused = PinLock::take(Path::new("/proc/lb"), Path::new("/sys/fs/bpf/lb"));
        let text = refused.expect_err("no such place").to_string();
        assert!(text.starts_with("cannot lock /proc/lb/sys-fs-bpf-lb.lock: "), "{text}");
    }
}

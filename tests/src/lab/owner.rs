//! Who owns a lab, and how one without an owner is removed.
//!
//! An owner holds the abstract unix socket of the lab's name, which the kernel lets go when the
//! owner dies, however that happens. So what a killed run left behind is told from what a running
//! one uses, without files, and without trusting process ids.

use std::collections::BTreeSet;
use std::fs;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, Once, PoisonError};

use anyhow::{Context as _, Result};

use super::namespace::{self, NAMESPACES};

/// Where the load balancers of a lab pin their programs and maps, one directory each.
pub const BPF_FILESYSTEM: &str = "/sys/fs/bpf";
/// Where lbd keeps its locks.
const LOCKS: &str = "/run/lb";
/// Where the files of FRR's daemons are, which leave root's rights behind, one directory a host.
pub const FRR_FILES: &str = "/run/frr";
/// What the names of our namespaces and pin directories begin with.
const PREFIXES: [&str; 2] = ["lbtest-", "lbdemo-"];

/// The labs of this process, for the thread that cleans up after a signal.
static OWNED: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());
static NEXT: AtomicU32 = AtomicU32::new(0);
static SIGNALS: Once = Once::new();

/// The right to a lab's name; with it goes all that bears the name.
#[derive(Debug)]
pub struct Owner {
    name: String,
    _socket: UnixListener,
}

impl Owner {
    /// Takes a new name that begins with `prefix` (`lbtest` or `lbdemo`).
    ///
    /// # Errors
    /// The name is taken, which would be a mistake of ours.
    pub fn new(prefix: &str) -> Result<Self> {
        SIGNALS.call_once(|| drop(std::thread::spawn(clean_up_on_signal)));
        // No dot: the BPF file system keeps names with dots to itself.
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("{prefix}-{}_{number}", std::process::id());
        let socket = claim(&name).with_context(|| format!("lab {name} has an owner"))?;
        OWNED.lock().unwrap_or_else(PoisonError::into_inner).insert(name.clone());
        Ok(Self { name, _socket: socket })
    }

    /// The lab's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        remove(&self.name);
        OWNED.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.name);
    }
}

fn claim(name: &str) -> std::io::Result<UnixListener> {
    UnixListener::bind_addr(&SocketAddr::from_abstract_name(format!("lb-lab/{name}"))?)
}

/// Removes the labs whose owners are dead, with their working directories below `labs`.
pub fn sweep(labs: &Path) {
    let mut names = BTreeSet::new();
    for directory in [NAMESPACES, BPF_FILESYSTEM, FRR_FILES].map(Path::new) {
        names.extend(entries(directory).filter_map(|entry| {
            let (lab, _host) = entry.rsplit_once('-')?;
            is_lab(lab).then(|| lab.to_owned())
        }));
    }
    names.extend(entries(labs).filter(|entry| is_lab(entry)));
    for name in names {
        if let Ok(_socket) = claim(&name) {
            remove(&name);
            // What cannot be removed now is found again by the next sweep.
            drop(fs::remove_dir_all(labs.join(&name)));
        }
    }
}

/// Whether this is a name that [`Owner::new`] makes; others with our prefix are not ours to touch.
fn is_lab(name: &str) -> bool {
    let Some(tag) = PREFIXES.iter().find_map(|prefix| name.strip_prefix(prefix)) else {
        return false;
    };
    let Some((pid, number)) = tag.split_once('_') else { return false };
    pid.parse::<u32>().is_ok() && number.parse::<u32>().is_ok()
}

/// Removes all that bears the lab's name; what is gone already is fine.
fn remove(lab: &str) {
    let of_lab = |entry: &String| entry.strip_prefix(lab).is_some_and(|rest| rest.starts_with('-'));
    for entry in entries(Path::new(NAMESPACES)).filter(of_lab) {
        drop(namespace::remove(&entry));
    }
    for directory in [BPF_FILESYSTEM, FRR_FILES].map(Path::new) {
        for entry in entries(directory).filter(of_lab) {
            drop(fs::remove_dir_all(directory.join(entry)));
        }
    }
    // lbd names its lock after the pin path, escaped; a lock file outlives its process.
    let locks = format!("sys-fs-bpf-{}\\x2d", lab.replace('-', "\\x2d"));
    for entry in entries(Path::new(LOCKS)).filter(|entry| entry.starts_with(&locks)) {
        drop(fs::remove_file(PathBuf::from(LOCKS).join(entry)));
    }
}

fn entries(directory: &Path) -> impl Iterator<Item = String> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().into_string().ok())
}

/// Waits for Ctrl-C, SIGTERM or SIGHUP, removes the labs of this process and ends it.
fn clean_up_on_signal() {
    use tokio::signal::unix::{SignalKind, signal};
    let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else {
        return;
    };
    runtime.block_on(async {
        let kinds = [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()];
        let [Ok(mut interrupt), Ok(mut terminate), Ok(mut hangup)] = kinds.map(signal) else {
            return;
        };
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hangup.recv() => {}
        }
        // Held to the end: nobody makes a lab while we remove them.
        let owned = OWNED.lock().unwrap_or_else(PoisonError::into_inner);
        for name in owned.iter() {
            remove(name);
        }
        // 128 + SIGINT, as a shell would say it.
        std::process::exit(130);
    });
}

#[cfg(test)]
mod tests {
    use super::{Owner, claim, is_lab};

    #[test]
    fn only_our_own_names_are_swept() {
        assert!(is_lab("lbtest-4711_0"));
        assert!(is_lab("lbdemo-1_12"));
        for other in ["lbtest-mine", "lbtest-4711", "lbtest-4711_x", "web-4711_0", "lbdemo-"] {
            assert!(!is_lab(other), "{other}");
        }
    }

    #[test]
    fn a_name_has_one_owner() {
        let owner = Owner::new("lbtest").unwrap();
        assert!(claim(owner.name()).is_err());
        let name = owner.name().to_owned();
        drop(owner);
        assert!(claim(&name).is_ok());
    }
}

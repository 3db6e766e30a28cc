//! What a run leaves behind when it is killed: namespaces with processes in them, and pins.
//!
//! Only things with the run's own prefix are touched. A lock keeps two runs of one kind apart, so
//! that what carries the prefix while the lock is held and no child runs is a leftover.

use std::fs::{self, File, TryLockError};
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::process;
use crate::report::{complain, say};

const BPFFS: &str = "/sys/fs/bpf";

/// The world of one run. Dropping it removes what is left of it.
pub(crate) struct World {
    prefix: &'static str,
    /// Held until the world is gone; the kernel releases it also when we are killed.
    _lock: File,
}

impl World {
    /// Takes the lock and removes what a killed run left behind.
    pub(crate) fn begin(prefix: &'static str) -> Result<Self> {
        let path = Path::new("/run/lock").join(format!("{prefix}lock"));
        let lock =
            File::create(&path).with_context(|| format!("cannot open {}", path.display()))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                bail!("another run with `{prefix}*` namespaces is going on on this machine");
            }
            Err(TryLockError::Error(error)) => return Err(error).context("cannot take the lock"),
        }
        let world = Self { prefix, _lock: lock };
        remove(prefix).context("cannot remove what an earlier run left behind")?;
        Ok(world)
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if let Err(error) = remove(self.prefix) {
            complain(&format!("cannot clean up: {error:#}"));
        }
    }
}

/// Removes namespaces and pins with the prefix, and ends the processes in those namespaces.
fn remove(prefix: &str) -> Result<()> {
    for name in entries(Path::new("/run/netns"), prefix)? {
        say!("  removing namespace {name}");
        let pids = output(Command::new("ip").args(["netns", "pids", &name]))?;
        let pids: Vec<&str> = pids.split_whitespace().collect();
        if !pids.is_empty() {
            // A process may end by itself between the two commands: no error.
            output(
                Command::new("/bin/sh")
                    .arg("-c")
                    .arg(format!("kill -KILL {} 2>/dev/null || true", pids.join(" "))),
            )?;
        }
        output(Command::new("ip").args(["netns", "delete", &name]))?;
    }
    for name in entries(Path::new(BPFFS), prefix)? {
        say!("  removing pins {BPFFS}/{name}");
        let path = Path::new(BPFFS).join(&name);
        let removed =
            if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
        removed.with_context(|| format!("cannot remove {}", path.display()))?;
    }
    Ok(())
}

/// Names with the prefix in a directory; a directory that is not there has none.
fn entries(directory: &Path, prefix: &str) -> Result<Vec<String>> {
    let Ok(listing) = fs::read_dir(directory) else { return Ok(Vec::new()) };
    let mut names = Vec::new();
    for entry in listing {
        let name = entry.context("cannot list a directory")?.file_name();
        names.extend(name.to_str().filter(|name| name.starts_with(prefix)).map(str::to_owned));
    }
    names.sort();
    Ok(names)
}

/// Cleaning up goes on after Ctrl-C, so it does not go through `process`.
fn output(command: &mut Command) -> Result<String> {
    let shown = process::shown(command);
    let output = command.output().with_context(|| format!("cannot run `{shown}`"))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("`{shown}` failed: {}: {}", process::ended(output.status), said.trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_prefix_is_listed() {
        let directory = std::env::temp_dir().join(format!("xtask-{}", std::process::id()));
        for name in ["lbtest-b", "lbtest-a", "lbdemo-a", "other"] {
            fs::create_dir_all(directory.join(name)).unwrap();
        }
        assert_eq!(entries(&directory, "lbtest-").unwrap(), ["lbtest-a", "lbtest-b"]);
        fs::remove_dir_all(&directory).unwrap();
        assert!(entries(&directory, "lbtest-").unwrap().is_empty());
    }
}

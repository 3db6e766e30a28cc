//! What a killed run leaves behind: namespaces with processes in them, and pins.
//!
//! The lab names everything `PREFIX-PID_NUMBER-HOST`, and the process that made `PREFIX-PID_NUMBER`
//! holds the abstract unix socket `lb-lab/PREFIX-PID_NUMBER`, which the kernel lets go when the
//! process dies, however that happens. So only what has no owner is removed here, and another run
//! on the same machine is left alone. The lab itself sweeps when it starts; this makes sure of it
//! when the lab was killed, or could not be built any more.

use std::fs;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::process;
use crate::report::{complain, say};

const NAMESPACES: &str = "/run/netns";
const BPFFS: &str = "/sys/fs/bpf";

/// Sweeps when it begins and when it ends, also after Ctrl-C.
pub(crate) struct Sweeper {
    prefix: &'static str,
}

impl Sweeper {
    /// Removes what an earlier run with this prefix (`lbtest-`, `lbdemo-`) left behind.
    pub(crate) fn begin(prefix: &'static str) -> Result<Self> {
        sweep(prefix).context("cannot remove what an earlier run left behind")?;
        Ok(Self { prefix })
    }
}

impl Drop for Sweeper {
    fn drop(&mut self) {
        if let Err(error) = sweep(self.prefix) {
            complain(&format!("cannot clean up: {error:#}"));
        }
    }
}

/// Removes the namespaces and pins of labs without an owner.
fn sweep(prefix: &str) -> Result<()> {
    for name in entries(Path::new(NAMESPACES), prefix)? {
        if let Some(_claim) = lab_of(&name).and_then(claim) {
            say!("removing the leftover namespace {name}");
            remove_namespace(&name)?;
        }
    }
    for name in entries(Path::new(BPFFS), prefix)? {
        if let Some(_claim) = lab_of(&name).and_then(claim) {
            let path = Path::new(BPFFS).join(&name);
            say!("removing the leftover pins {}", path.display());
            fs::remove_dir_all(&path)
                .with_context(|| format!("cannot remove {}", path.display()))?;
        }
    }
    Ok(())
}

/// The lab that a namespace or a directory of pins belongs to; `None` for a name of another form,
/// which is not ours to touch.
fn lab_of(name: &str) -> Option<&str> {
    let (lab, _host) = name.rsplit_once('-')?;
    let (_prefix, tag) = lab.split_once('-')?;
    let (pid, number) = tag.split_once('_')?;
    (pid.parse::<u32>().is_ok() && number.parse::<u32>().is_ok()).then_some(lab)
}

/// Takes the lab's socket, if no living process holds it.
fn claim(lab: &str) -> Option<UnixListener> {
    let address = SocketAddr::from_abstract_name(format!("lb-lab/{lab}")).ok()?;
    UnixListener::bind_addr(&address).ok()
}

/// Ends the processes in a namespace and removes it. Something may end by itself meanwhile.
fn remove_namespace(name: &str) -> Result<()> {
    let pids = output(Command::new("ip").args(["netns", "pids", name]))?;
    let pids: Vec<&str> = pids.split_whitespace().collect();
    if !pids.is_empty() {
        let kill = format!("kill -s KILL {} 2>/dev/null || true", pids.join(" "));
        output(Command::new("/bin/sh").args(["-c", &kill]))?;
    }
    output(Command::new("ip").args(["netns", "delete", name])).map(drop)
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

    #[test]
    fn only_names_that_a_lab_makes_are_ours() {
        let cases = [
            ("lbtest-4711_0-router", Some("lbtest-4711_0")),
            ("lbdemo-1_12-web3", Some("lbdemo-1_12")),
            ("lbtest-4711_0", None),
            ("lbtest-mine-router", None),
            ("lbtest-4711-router", None),
            ("lbtest-", None),
        ];
        for (name, lab) in cases {
            assert_eq!(lab_of(name), lab, "{name}");
        }
    }

    #[test]
    fn a_lab_with_an_owner_is_left_alone() {
        let lab = format!("lbtest-{}_77", std::process::id());
        let owner = claim(&lab);
        assert!(owner.is_some());
        assert!(claim(&lab).is_none());
        drop(owner);
        assert!(claim(&lab).is_some());
    }
}

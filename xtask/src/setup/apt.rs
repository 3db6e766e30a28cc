//! Debian packages, installed without starting anything.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use crate::process;
use crate::report::say;
use crate::setup::steps::{Package, is_there};

/// Debian's maintainer scripts ask this program whether a service may be started.
const POLICY: &str = "/usr/sbin/policy-rc.d";

/// The marker tells a file of a killed run from the machine's own policy.
const REFUSE_ALL: &str = "#!/bin/sh\n# cargo xtask setup: no service starts meanwhile\nexit 101\n";

const OPTIONS: [&str; 6] = [
    "--yes",
    "--no-install-recommends",
    // Another package run on this machine is waited for, not raced.
    "--option=DPkg::Lock::Timeout=300",
    "--option=Dpkg::Use-Pty=0",
    "--option=Dpkg::Options::=--force-confold",
    "--quiet",
];

/// Installs the packages; `apt-get`'s own lines pass through.
pub(crate) fn install(packages: &[&Package]) -> Result<()> {
    ensure!(is_there("apt-get"), "this is no Debian: there is no apt-get; install them by hand");
    let names: Vec<&str> = packages.iter().map(|package| package.name).collect();
    let _policy = NoServices::begin()?;
    // A fresh machine has no lists, an old one lists of packages that are gone.
    say!("  $ apt-get update");
    process::run(apt_get().args(["update", "--quiet"]))?;
    say!("  $ {}", shown(&names));
    process::run(apt_get().arg("install").args(OPTIONS).args(&names))
}

/// The command as one would type it.
pub(crate) fn shown(names: &[&str]) -> String {
    format!("apt-get install --no-install-recommends {}", names.join(" "))
}

fn apt_get() -> Command {
    let mut command = Command::new("apt-get");
    command.env("DEBIAN_FRONTEND", "noninteractive");
    command
}

/// While this lives, no package starts a service: a system nginx would take the ports of the
/// machine. A policy that the machine has already is left alone.
struct NoServices {
    ours: bool,
}

impl NoServices {
    fn begin() -> Result<Self> {
        if fs::read_to_string(POLICY).is_ok_and(|text| text == REFUSE_ALL) {
            // A killed run left it behind.
            return Ok(Self { ours: true });
        }
        let made = fs::OpenOptions::new().write(true).create_new(true).mode(0o755).open(POLICY);
        match made {
            Ok(mut file) => {
                file.write_all(REFUSE_ALL.as_bytes()).context("cannot write policy-rc.d")?;
                Ok(Self { ours: true })
            }
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
                Ok(Self { ours: false })
            }
            Err(error) => Err(error).with_context(|| format!("cannot write {POLICY}")),
        }
    }
}

impl Drop for NoServices {
    fn drop(&mut self) {
        if self.ours
            && let Err(error) = fs::remove_file(POLICY)
        {
            crate::report::complain(&format!("cannot remove {POLICY}: {error}"));
        }
    }
}

//! Attach the balancer to an interface, and take it off again.

use std::ffi::OsStr;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use crate::args::Load;
use crate::report::say;
use crate::setup::Needs;
use crate::tree::Tree;
use crate::{cargo, process, setup};

/// Where lbd pins when its configuration does not say otherwise.
const PIN_PATH: &str = "/sys/fs/bpf/lb";

/// Builds, checks the configuration, and lets lbd attach, pin and fill the tables once. Forwarding
/// needs no daemon, so none is left running.
pub(crate) fn load(tree: &Tree, options: &Load) -> Result<u8> {
    let config = std::path::absolute(&options.config).context("cannot resolve the file's path")?;
    ensure!(config.is_file(), "{} is no file", config.display());
    setup::run(tree, Needs::BUILD, true)?;
    cargo::build_release(tree)?;
    let mut check = inside(options.netns.as_deref(), tree.release("lbctl").as_os_str());
    check.args(["config", "check"]).arg(&config);
    say!("check            $ {}", process::shown(&check));
    let checked = process::status(&mut check)?;
    if !checked.success() {
        return Ok(process::code(checked));
    }
    let mut attach = inside(options.netns.as_deref(), tree.release("lbd").as_os_str());
    attach.arg("--config").arg(&config).args(["--interface", &options.interface, "--once"]);
    say!("attach           $ {}", process::shown(&attach));
    Ok(process::code(process::status(&mut attach)?))
}

/// Detaches, removes the pins, and releases the neighbours of the network namespace.
pub(crate) fn unload(tree: &Tree, pin_path: Option<&Path>, netns: Option<&str>) -> Result<u8> {
    let lbctl = tree.release("lbctl");
    if !lbctl.is_file() {
        setup::run(tree, Needs::BUILD, true)?;
        cargo::build_release(tree)?;
    }
    let mut command = inside(netns, lbctl.as_os_str());
    command.args(["unload", "--pin-path"]).arg(pin_path.unwrap_or(Path::new(PIN_PATH)));
    say!("$ {}", process::shown(&command));
    Ok(process::code(process::status(&mut command)?))
}

/// A program in a network namespace. `ip netns exec` would also mount another /sys, in which the
/// pins are not.
fn inside(netns: Option<&str>, program: &OsStr) -> Command {
    match netns {
        None => Command::new(program),
        Some(netns) => {
            let mut command = Command::new("nsenter");
            command.arg(format!("--net=/run/netns/{netns}")).arg(program);
            command
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_namespace_is_entered_without_changing_the_mounts() {
        let program = OsStr::new("/t/lbd");
        assert_eq!(process::shown(&inside(None, program)), "/t/lbd");
        let shown = process::shown(&inside(Some("blue"), program));
        assert_eq!(shown, "nsenter --net=/run/netns/blue /t/lbd");
    }
}

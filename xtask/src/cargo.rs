//! How this workspace is built, in one place.
//!
//! Every invocation selects the same packages: cargo unites features over the selected ones, so
//! that another selection would compile the dependencies once more.

use std::env;
use std::process::Command;

use anyhow::Result;

use crate::process;
use crate::report::say;
use crate::tree::Tree;

/// Everything that runs on the host. `lb-ebpf` is built by the build script of `lb-userspace`.
const HOST: [&str; 3] = ["--workspace", "--exclude", "lb-ebpf"];

/// Cargo itself, in the checkout, with the eBPF programs switched on.
pub(crate) fn cargo(tree: &Tree) -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(&tree.root).env_remove("LB_SKIP_EBPF");
    command
}

/// `cargo SUBCOMMAND` over everything that runs on the host.
pub(crate) fn on_host(tree: &Tree, subcommand: &str) -> Command {
    let mut command = cargo(tree);
    command.arg(subcommand).arg("--locked").args(HOST);
    command
}

/// Builds every binary in release; cargo's progress passes through.
pub(crate) fn build_release(tree: &Tree) -> Result<()> {
    let mut command = on_host(tree, "build");
    command.args(["--release", "--bins", "--exclude", "xtask"]);
    say!("build            $ {}", process::shown(&command).replace(&shown_cargo(), "cargo"));
    process::run(&mut command)
}

fn shown_cargo() -> String {
    env::var("CARGO").unwrap_or_default()
}

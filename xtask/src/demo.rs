//! The demo and the bench: set-up, a release build, then the binary of that name, whose exit code
//! is ours.

use std::ffi::OsString;
use std::process::Command;

use anyhow::Result;

use crate::args::Demo;
use crate::leftovers::Sweeper;
use crate::report::say;
use crate::setup::Needs;
use crate::tree::Tree;
use crate::{cargo, process, setup};

/// The demo. It has the terminal, so Ctrl-C reaches it and it ends its own world; what it cannot
/// end (it was killed) is removed after it.
pub(crate) fn demo(tree: &Tree, options: &Demo) -> Result<u8> {
    setup::run(tree, Needs::LAB, options.install)?;
    cargo::build_release(tree)?;
    let _sweeper = Sweeper::begin("lbdemo-")?;
    let mut command = Command::new(tree.release("demo"));
    command.current_dir(&tree.root);
    if options.hold {
        command.arg("--hold");
    }
    Ok(process::code(process::foreground(&mut command)?))
}

/// The bench; the arguments after `--` are its own.
pub(crate) fn bench(tree: &Tree, install: bool, arguments: &[OsString]) -> Result<u8> {
    setup::run(tree, Needs::LAB, install)?;
    cargo::build_release(tree)?;
    let _sweeper = Sweeper::begin("lbtest-")?;
    say!("bench");
    let mut command = Command::new(tree.release("bench"));
    command.current_dir(&tree.root).args(arguments);
    Ok(process::code(process::foreground(&mut command)?))
}

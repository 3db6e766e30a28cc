//! The developer's commands: set-up, demo, tests, bench, load and their like.
//!
//! Everything here is convenience around `cargo` and the project's own binaries: there is no
//! second way to compile. It depends on next to nothing, so that the first line is printed within
//! seconds on a cold machine, and on no crate of this workspace.

mod args;
mod cargo;
mod demo;
mod disasm;
mod leftovers;
mod load;
mod process;
mod report;
mod setup;
mod test;
mod tidy;
mod tree;

use std::process::ExitCode;

use anyhow::Result;

use crate::args::Task;
use crate::process::Stopped;
use crate::report::say;
use crate::tree::Tree;

fn main() -> ExitCode {
    match args::parse(lexopt::Parser::from_env()) {
        Ok(task) => finish(run(task)),
        Err(error) => {
            report::complain(&format!("{error}\n\n{}", args::USAGE));
            ExitCode::from(2)
        }
    }
}

/// Carries one task out; the code is what the task's own program ended with, or 0.
fn run(task: Task) -> Result<u8> {
    if let Task::Help(text) = task {
        say!("{text}");
        return Ok(0);
    }
    process::catch_signals()?;
    let tree = Tree::find()?;
    match task {
        Task::Help(_) => Ok(0),
        Task::Setup { install } => setup::run(&tree, setup::Needs::ALL, install).map(|()| 0),
        Task::Demo(options) => demo::demo(&tree, &options),
        Task::Bench { install, arguments } => demo::bench(&tree, install, &arguments),
        Task::Test(options) => test::run(&tree, &options),
        Task::Load(options) => load::load(&tree, &options),
        Task::Unload { pin_path, netns } => {
            load::unload(&tree, pin_path.as_deref(), netns.as_deref())
        }
        Task::Disasm { program, symbol } => disasm::run(&tree, program, symbol.as_deref()),
    }
}

fn finish(result: Result<u8>) -> ExitCode {
    match result {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            report::complain(&format!("{error:#}"));
            ExitCode::from(error.downcast_ref::<Stopped>().map_or(1, Stopped::exit_code))
        }
    }
}

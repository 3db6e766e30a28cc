//! `demo [--hold]`: plays the demo. Exit status 0 if no flow broke while its backend lived, 1 if
//! one did or the demo did not come about.

use std::io::Write as _;
use std::process::ExitCode;

use anyhow::{Result, bail};

fn main() -> ExitCode {
    match run() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            // Nowhere is left to say so if this fails too.
            drop(writeln!(std::io::stderr(), "demo: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<bool> {
    let mut hold = false;
    for argument in std::env::args().skip(1) {
        match argument.as_str() {
            "--hold" => hold = true,
            other => bail!("unknown argument `{other}`; usage: demo [--hold]"),
        }
    }
    lb_tests::demo::run(&mut std::io::stdout(), hold)
}

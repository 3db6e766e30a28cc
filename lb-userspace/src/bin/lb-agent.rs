//! `lb-agent`: see `lb_userspace::agent`. Exit status 0 stopped as asked, 1 failed, 2 wrong usage.

use std::io::IsTerminal as _;
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use clap::{CommandFactory as _, Parser as _};
use lb_userspace::agent::options::{Cli, Command, Output, RunOptions};
use lb_userspace::agent::{counters, pins, run};
use tracing_subscriber::EnvFilter;

fn main() -> ExitCode {
    let cli = Cli::parse();
    match dispatch(cli) {
        Ok(code) => code,
        Err(error) => {
            #[expect(clippy::print_stderr, reason = "the one place that tells why it failed")]
            {
                eprintln!("lb-agent: {error:#}");
            }
            ExitCode::FAILURE
        }
    }
}

fn dispatch(cli: Cli) -> Result<ExitCode> {
    match (cli.command, cli.run) {
        (Some(Command::Stats { pin_path, output }), _) => {
            let readings = counters::read_pinned(&pin_path)?;
            #[expect(clippy::print_stdout, reason = "the answer")]
            match output {
                Output::Table => print!("{}", counters::table(&readings)),
                Output::Json => println!("{}", counters::json(&readings)),
            }
        }
        (Some(Command::Unload { pin_path }), _) => pins::unload(&pin_path)?,
        (None, Some(options)) => start(&options)?,
        (None, None) => {
            Cli::command().print_help()?;
            return Ok(ExitCode::from(2));
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn start(options: &RunOptions) -> Result<()> {
    let filter = EnvFilter::try_from_env("LB_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false)
        .with_env_filter(filter)
        .init();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    runtime.block_on(run::run(options))?;
    Ok(())
}

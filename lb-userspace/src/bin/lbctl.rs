//! lbctl: looks at a load balancer and changes it. All but `unload` goes through lbd's socket.

use std::io::{self, IsTerminal as _, Write as _};
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context as _, Result, bail};
use clap::Parser as _;
use lb_common::ABI_VERSION;
use lb_userspace::cli::args::{Args, Command};
use lb_userspace::cli::{self, CliError, EXIT_FAILED, EXIT_OK, Streams};
use lb_userspace::dataplane::Dataplane;
use lb_userspace::host::lock::{DIRECTORY, PinLock};
use lb_userspace::host::netlink::{Held, release_all_but};
use lb_userspace::host::preflight::{self, PinFileSystem, Wants};

fn main() -> ExitCode {
    let args = Args::parse();
    match run(&args) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            if is_closed_pipe(&error) {
                return ExitCode::SUCCESS;
            }
            // Nobody is left to tell when stderr is gone.
            drop(writeln!(io::stderr(), "{}", causes(&error)));
            ExitCode::from(EXIT_FAILED)
        }
    }
}

fn run(args: &Args) -> Result<u8> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    if let Command::Unload { pin_path } = &args.command {
        return runtime.block_on(unload(pin_path));
    }
    let color = io::stderr().is_terminal();
    let mut streams = Streams { out: &mut io::stdout(), err: &mut io::stderr(), color };
    Ok(runtime.block_on(cli::run(args, &mut streams))?)
}

/// Takes the program off its interfaces, and removes everything that was pinned.
async fn unload(pin_path: &Path) -> Result<u8> {
    refuse_other_file_systems(pin_path).await?;
    // A running lbd would go on writing into maps that nobody reads.
    let _lock = PinLock::take(Path::new(DIRECTORY), pin_path)?;
    let removed = Dataplane::unload(pin_path)?;
    let mut out = io::stdout();
    if removed.is_empty() {
        writeln!(out, "nothing is pinned at {}", pin_path.display())?;
    }
    for name in &removed {
        writeln!(out, "removed {name}")?;
    }
    let released = release_all_but(&Held::default()).await.context("cannot release neighbours")?;
    if released > 0 {
        writeln!(out, "released {released} neighbours of this network namespace")?;
    }
    Ok(EXIT_OK)
}

/// What is removed there must be pins, and not somebody's files.
async fn refuse_other_file_systems(pin_path: &Path) -> Result<()> {
    let wants = Wants { pin_path, interfaces: &[], layout: ABI_VERSION };
    match preflight::gather(&wants).await.pin_file_system {
        PinFileSystem::Bpf => Ok(()),
        PinFileSystem::Other => {
            bail!("{} is not on a BPF file system: nothing is removed", pin_path.display())
        }
        PinFileSystem::Unknown(reason) => bail!("cannot look at {}: {reason}", pin_path.display()),
    }
}

/// An error and its causes in one line, each said once.
fn causes(error: &anyhow::Error) -> String {
    let mut text = error.to_string();
    for cause in error.chain().skip(1).map(ToString::to_string) {
        if !text.contains(&cause) {
            text = format!("{text}: {cause}");
        }
    }
    text
}

/// A reader such as `head` that has seen enough is no failure.
fn is_closed_pipe(error: &anyhow::Error) -> bool {
    matches!(
        error.downcast_ref::<CliError>(),
        Some(CliError::Write(error)) if error.kind() == io::ErrorKind::BrokenPipe
    )
}

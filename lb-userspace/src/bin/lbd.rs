//! lbd: the daemon of a load balancer. Its death changes nothing in forwarding.

use std::io::{self, IsTerminal as _, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use lb_userspace::config::{self, Loaded};
use lb_userspace::controller::start::{self, Start, StartError};
use lb_userspace::desired::{Log, LogFormat};
use tracing_subscriber::EnvFilter;

/// The configuration, or the machine, is not as it must be.
const EXIT_REFUSED: u8 = 2;
/// It ran, and could not go on, or was stopped before it forwarded.
const EXIT_FAILED: u8 = 1;

/// Balances packets to virtual addresses over backends, in the kernel; this is what tells it how.
#[derive(Debug, Parser)]
#[command(name = "lbd", version, about, max_term_width = 100)]
struct Args {
    /// The configuration.
    #[arg(long, value_name = "FILE", default_value = "/etc/lb/lb.toml")]
    config: PathBuf,
    /// Checks the configuration and this machine, says everything that is wrong, and ends.
    #[arg(long, conflicts_with = "once")]
    check: bool,
    /// Attaches the program, fills the tables, says what was done, and ends; all stays pinned.
    #[arg(long)]
    once: bool,
    /// Attaches to this interface and not to those of the configuration.
    #[arg(long, value_name = "INTERFACE", requires = "once")]
    interface: Option<String>,
}

fn main() -> ExitCode {
    let args = Args::parse();
    match run(args) {
        Ok(()) => ExitCode::SUCCESS,
        Err((code, text)) => {
            // Nobody is left to tell when stderr is gone.
            drop(writeln!(io::stderr(), "{text}"));
            ExitCode::from(code)
        }
    }
}

fn run(args: Args) -> Result<(), (u8, String)> {
    let refused = |text: String| (EXIT_REFUSED, text);
    let color = io::stderr().is_terminal();
    let mut loaded = config::load(&args.config)
        .map_err(|report| refused(report.render(color).trim_end().to_owned()))?;
    let warnings = loaded.warnings.render(color);
    if !warnings.is_empty() {
        drop(write!(io::stderr(), "{warnings}"));
    }
    if let Some(interface) = &args.interface {
        loaded.desired.dataplane.interfaces = vec![interface.clone()];
    }
    start_log(&loaded.desired.log).map_err(refused)?;
    let config = std::path::absolute(&args.config)
        .map_err(|error| refused(format!("{}: {error}", args.config.display())))?;
    // One thread: the loop is the only one that changes anything.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| (EXIT_FAILED, format!("no runtime: {error}")))?;
    let start = Start { config, loaded, once: args.once };
    let done = if args.check {
        runtime.block_on(check(&start.loaded))
    } else {
        runtime.block_on(start::run(start))
    };
    let text = done.map_err(|error| {
        let has_run = matches!(error, StartError::Run(_) | StartError::Stopped(_));
        (if has_run { EXIT_FAILED } else { EXIT_REFUSED }, format!("lbd: {error}"))
    })?;
    if !text.is_empty() {
        drop(writeln!(io::stdout(), "{text}"));
    }
    Ok(())
}

async fn check(loaded: &Loaded) -> Result<String, StartError> {
    start::check_machine(&loaded.desired).await?;
    Ok("configuration and machine are fit".to_owned())
}

/// Logs to stderr: text for people and the journal, JSON for programs. RUST_LOG wins over the
/// configuration.
fn start_log(log: &Log) -> Result<(), String> {
    let filter = EnvFilter::try_from_default_env()
        .or_else(|_unset| EnvFilter::try_new(log.level.word()))
        .map_err(|error| error.to_string())?;
    let is_journal = std::env::var_os("JOURNAL_STREAM").is_some();
    let is_terminal = io::stderr().is_terminal();
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr);
    let builder = builder.with_target(false).with_ansi(is_terminal);
    let done = match (log.format, is_journal, is_terminal) {
        (LogFormat::Json, ..) | (LogFormat::Auto, false, false) => builder.json().try_init(),
        // The journal has its own times.
        (_, true, _) => builder.without_time().try_init(),
        (LogFormat::Text, ..) | (LogFormat::Auto, ..) => builder.try_init(),
    };
    done.map_err(|error| error.to_string())
}

//! lbctl: arguments in, one question to lbd, its answer as a table or as JSON.
//!
//! `args` is the grammar, `output` the tables, `table` lays them out, `check` judges a
//! configuration without lbd. stdout is the answer, stderr is talk; the exit code says which
//! answer it was.
//!
//! Must not: reach the data plane; all it knows comes through the socket.

use std::io::{self, Write};
use std::path::Path;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;

use self::args::{Args, BackendCommand, Command, ConfigCommand, Format};
use crate::api::client::{Client, ClientError};
use crate::api::requests::{BackendAction, BackendChange, ConfigFile, ConfigText, TraceQuestion};
use crate::api::types::{Drops, Health, Outcome, Stats, Status, Trace};
use crate::config;
use crate::config::diagnostic::Report;

pub mod args;
mod bgp;
mod bgp_tables;
mod check;
pub mod output;
mod table;
#[cfg(test)]
mod tests;

/// How often `--watch` asks.
const WATCH_INTERVAL: Duration = Duration::from_secs(1);

/// The answer is "same", "ok", "done".
pub const EXIT_OK: u8 = 0;
/// The answer is "differs" or "degraded".
pub const EXIT_DIFFERS: u8 = 1;
/// There is no answer, or it is "down".
pub const EXIT_FAILED: u8 = 2;

/// Why lbctl gives no answer.
#[derive(Debug, thiserror::Error)]
pub enum CliError {
    /// lbd does not answer, or says no.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// The configuration has findings; they are the text.
    #[error("{0}")]
    Config(String),
    /// An argument cannot be understood.
    #[error("{0}")]
    Usage(String),
    /// The kernel cannot be asked for routes.
    #[error("cannot look up the paths to the backends: {0}")]
    Paths(#[from] crate::host::netlink::NetlinkError),
    /// The answer cannot be written.
    #[error("cannot write the answer: {0}")]
    Write(#[from] io::Error),
}

/// Where the answer and the talk go.
pub struct Streams<'a> {
    /// The answer.
    pub out: &'a mut dyn Write,
    /// The talk.
    pub err: &'a mut dyn Write,
    /// Whether the talk may have colours.
    pub color: bool,
}

/// Does what the arguments ask, except `unload`, which is not lbd's to do; returns the exit code.
///
/// # Errors
/// Any [`CliError`]; the exit code is then [`EXIT_FAILED`].
pub async fn run(args: &Args, streams: &mut Streams<'_>) -> Result<u8, CliError> {
    let client = Client::new(&args.socket);
    let format = args.output;
    match &args.command {
        Command::Status => {
            let status: Status = show(&client, "/v1/status", format, streams).await?;
            Ok(exit_of(status.health))
        }
        Command::Vip { command } => bgp::vip(&client, command.as_ref(), format, streams).await,
        Command::Node { command } => bgp::node(&client, *command, format, streams).await,
        Command::Bgp { command } => bgp::bgp(&client, command.as_ref(), format, streams).await,
        Command::Stats => {
            show::<Stats>(&client, "/v1/stats", format, streams).await.map(|_| EXIT_OK)
        }
        Command::Trace { source, target } => {
            let target = target.clone();
            let path = query("/v1/trace", &TraceQuestion { source: *source, target })?;
            show::<Trace>(&client, &path, format, streams).await.map(|_| EXIT_OK)
        }
        Command::Drops { watch: false } => {
            show::<Drops>(&client, "/v1/drops", format, streams).await.map(|_| EXIT_OK)
        }
        Command::Drops { watch: true } => watch_drops(&client, format, streams).await,
        Command::Diff { file } => change_config(&client, file, true, format, streams).await,
        Command::Apply { file, dry_run } => {
            change_config(&client, file, *dry_run, format, streams).await
        }
        Command::Backend { command } => change_backend(&client, command, format, streams).await,
        Command::Config { command: ConfigCommand::Check { file } } => {
            check::check(file, format, streams).await
        }
        Command::Config { command: ConfigCommand::Show { .. } } => {
            streams.out.write_all(config::reference::defaults().as_bytes())?;
            Ok(EXIT_OK)
        }
        Command::Unload { .. } => Err(CliError::Usage("unload does not go through lbd".into())),
    }
}

/// The exit code of `status`.
const fn exit_of(health: Health) -> u8 {
    match health {
        Health::Ok => EXIT_OK,
        Health::Degraded => EXIT_DIFFERS,
        Health::Down => EXIT_FAILED,
    }
}

/// Reads a document and prints it.
async fn show<T: DeserializeOwned + output::Table>(
    client: &Client,
    path: &str,
    format: Format,
    streams: &mut Streams<'_>,
) -> Result<T, CliError> {
    let answer = client.get::<T>(path).await?;
    let text = match format {
        Format::Json => answer.json + "\n",
        Format::Table => answer.value.table(false),
        Format::Wide => answer.value.table(true),
    };
    streams.out.write_all(text.as_bytes())?;
    Ok(answer.value)
}

/// Prints new samples until the reader or lbd goes away.
async fn watch_drops(
    client: &Client,
    format: Format,
    streams: &mut Streams<'_>,
) -> Result<u8, CliError> {
    let mut after = client.get::<Drops>("/v1/drops").await?.value.last;
    if format != Format::Json {
        streams.out.write_all(output::SAMPLES_HEAD.as_bytes())?;
    }
    loop {
        tokio::time::sleep(WATCH_INTERVAL).await;
        let answer = client.get::<Drops>(&format!("/v1/drops?after={after}")).await?;
        for sample in &answer.value.samples {
            let line = match format {
                Format::Json => serde_json::to_string(sample).map_err(io::Error::other)?,
                Format::Table | Format::Wide => output::sample_line(sample),
            };
            writeln!(streams.out, "{line}")?;
        }
        streams.out.flush()?;
        after = answer.value.last;
    }
}

/// `diff` and `apply`.
async fn change_config(
    client: &Client,
    file: &Path,
    dry_run: bool,
    format: Format,
    streams: &mut Streams<'_>,
) -> Result<u8, CliError> {
    // Absolute, because lbd stands in another directory.
    let file = &std::path::absolute(file)?;
    let sources = config::files::read_sources(file)
        .map_err(|report| CliError::Config(report_text(&report, streams.color)))?;
    let files = sources.into_iter();
    let files = files.map(|source| ConfigFile { path: source.path, text: source.text }).collect();
    let path = if dry_run { "/v1/plan" } else { "/v1/apply" };
    let answer = client.post::<Outcome>(path, &ConfigText { files }).await?;
    print_outcome(&answer.value, &answer.json, format, streams)?;
    let outcome = answer.value;
    if dry_run && !outcome.changes.is_empty() {
        if format != Format::Json {
            writeln!(streams.err, "apply with: lbctl apply {}", file.display())?;
        }
        return Ok(EXIT_DIFFERS);
    }
    Ok(EXIT_OK)
}

fn print_outcome(
    outcome: &Outcome,
    json: &str,
    format: Format,
    streams: &mut Streams<'_>,
) -> io::Result<()> {
    if format == Format::Json {
        return writeln!(streams.out, "{json}");
    }
    streams.err.write_all(outcome.warnings.as_bytes())?;
    streams.out.write_all(output::outcome(outcome).as_bytes())
}

async fn change_backend(
    client: &Client,
    command: &BackendCommand,
    format: Format,
    streams: &mut Streams<'_>,
) -> Result<u8, CliError> {
    let (name, action) = match command {
        BackendCommand::Drain { name } => (name, BackendAction::Drain),
        BackendCommand::Undrain { name } => (name, BackendAction::Undrain),
        BackendCommand::Weight { name, weight } => (name, BackendAction::Weight(*weight)),
    };
    let Some((pool, backend)) = name.split_once('/') else {
        let text = format!("`{name}` is no backend: write POOL/BACKEND, such as web/web1");
        return Err(CliError::Usage(text));
    };
    let change = BackendChange { pool: pool.to_owned(), backend: backend.to_owned(), action };
    let answer = client.post::<Outcome>("/v1/backend", &change).await?;
    print_outcome(&answer.value, &answer.json, format, streams)?;
    Ok(EXIT_OK)
}

/// A path with its question in the query part.
fn query(path: &str, question: &TraceQuestion) -> Result<String, CliError> {
    let mut text = format!("{path}?source=");
    escape(&mut text, &question.source.to_string());
    text.push_str("&target=");
    escape(&mut text, &question.target);
    Ok(text)
}

/// Percent-encodes all but unreserved characters (RFC 3986 section 2.3).
fn escape(text: &mut String, value: &str) {
    for byte in value.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            text.push(char::from(byte));
        } else {
            text.push_str(&format!("%{byte:02X}"));
        }
    }
}

/// The findings as a person or a program wants them.
fn report_text(report: &Report, color: bool) -> String {
    report.render(color).trim_end().to_owned()
}

/// A document of lbctl's own, as JSON.
fn json(document: &impl Serialize) -> io::Result<String> {
    serde_json::to_string(document).map(|text| text + "\n").map_err(io::Error::other)
}

//! Debug lines of the programs (aya-log), as events of lbd's own log.
//!
//! Whether they are written is fixed when a program is loaded: below level debug the verifier
//! removes them, and they cost nothing.

use aya::Ebpf;
use aya_log::EbpfLogger;
use log::{Log, Metadata, Record};

use super::Error;

/// The reader of the programs' lines.
pub(super) type DebugLines = EbpfLogger<Forward>;

/// Gives a line to `tracing`.
pub(super) struct Forward;

impl Log for Forward {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &Record<'_>) {
        tracing::debug!(target: "ebpf", line = %record.args(), "program");
    }

    fn flush(&self) {}
}

/// The level to load programs with: all, or none.
pub(super) fn level() -> u8 {
    if tracing::enabled!(target: "ebpf", tracing::Level::DEBUG) { u8::MAX } else { 0 }
}

/// Reads the lines of programs loaded with `level`; `None` when there are none.
pub(super) fn open(ebpf: &mut Ebpf, level: u8) -> Result<Option<DebugLines>, Error> {
    if level == 0 {
        return Ok(None);
    }
    EbpfLogger::init_with_logger(ebpf, Forward)
        .map(Some)
        .map_err(|error| Error::Load(format!("no debug lines: {error}")))
}

//! What the caller sees: lines on stdout, complaints on stderr, times and counts.
//!
//! Plain lines only: the output is the same on a terminal, in a file and in CI.

use std::io::Write as _;
use std::time::{Duration, Instant};

/// Prints one line on stdout. A reader that went away (`| head`) is no reason to stop half-way,
/// so a failed write is passed over.
macro_rules! say {
    ($($argument:tt)*) => { $crate::report::line(&format!($($argument)*)) };
}
pub(crate) use say;

/// One line on stdout, flushed, so that it keeps its place among the lines of child processes.
pub(crate) fn line(text: &str) {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{text}").and_then(|()| out.flush()).unwrap_or(());
}

/// One complaint on stderr.
pub(crate) fn complain(text: &str) {
    writeln!(std::io::stderr().lock(), "xtask: {text}").unwrap_or(());
}

/// A running stopwatch; only for the times shown to the caller.
pub(crate) struct Watch(Instant);

impl Watch {
    #[expect(clippy::disallowed_methods, reason = "times a build for the reader, decides nothing")]
    pub(crate) fn start() -> Self {
        Self(Instant::now())
    }

    pub(crate) fn elapsed(&self) -> Duration {
        self.0.elapsed()
    }

    /// The time since the start or the last lap, and starts the next one.
    pub(crate) fn lap(&mut self) -> Duration {
        let elapsed = self.elapsed();
        *self = Self::start();
        elapsed
    }
}

/// A duration as people say it: `0.4 s`, `41 s`, `3m10s`.
pub(crate) fn seconds(duration: Duration) -> String {
    match duration.as_secs() {
        0..10 => format!("{:.1} s", duration.as_secs_f64()),
        whole @ 10..60 => format!("{whole} s"),
        whole => format!("{}m{:02}s", whole / 60, whole % 60),
    }
}

/// How many checks passed, failed, or could not run here.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Tally {
    pub(crate) passed: usize,
    pub(crate) failed: usize,
    pub(crate) skipped: usize,
}

impl Tally {
    pub(crate) fn add(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
    }

    pub(crate) fn check(&mut self, good: bool) {
        if good {
            self.passed += 1;
        } else {
            self.failed += 1;
        }
    }
}

impl std::fmt::Display for Tally {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} passed, {} failed, {} skipped", self.passed, self.failed, self.skipped)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_well() {
        let cases = [(400, "0.4 s"), (9_940, "9.9 s"), (41_900, "41 s"), (190_000, "3m10s")];
        for (milliseconds, text) in cases {
            assert_eq!(seconds(Duration::from_millis(milliseconds)), text);
        }
    }

    #[test]
    fn the_last_line_has_the_form_ci_reads() {
        let mut tally = Tally { passed: 543, failed: 0, skipped: 1 };
        tally.check(true);
        assert_eq!(tally.to_string(), "544 passed, 0 failed, 1 skipped");
    }
}

//! Reads what Rust's test harness prints.
//!
//! Counts come from the lines of the single tests, not from the summary, so that a harness that
//! died half-way is seen: it announced more tests than it reported.

use crate::report::Tally;

/// A test that cannot run here prints a line with this beginning and its reason, and returns.
const SKIP: &str = "SKIP";

/// How one test ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Outcome {
    Passed,
    Failed,
    Ignored,
}

/// What a line means to whoever shows the run.
#[derive(PartialEq, Eq, Debug)]
pub(crate) enum Line<'a> {
    /// A test ended.
    Test { name: &'a str, outcome: Outcome },
    /// Part of what a failed test said, or of the harness's list of failures.
    Detail,
    /// Nothing worth showing when all is well.
    Noise,
}

/// The state of reading one or more harness runs, one after the other.
#[derive(Default)]
pub(crate) struct Reader {
    /// Announced by `running N tests`, not yet reported.
    outstanding: usize,
    tally: Tally,
    failed: Vec<String>,
    skipped: Vec<(String, String)>,
    section: Section,
    /// The test whose output is being read in the sections.
    speaker: Option<String>,
}

#[derive(Clone, Copy, PartialEq, Eq, Default)]
enum Section {
    #[default]
    Results,
    Successes,
    Failures,
}

impl Reader {
    /// Takes the next line.
    pub(crate) fn read<'a>(&mut self, line: &'a str) -> Line<'a> {
        if let Some(count) = announced(line) {
            self.close_run();
            self.outstanding = count;
            return Line::Noise;
        }
        if line.starts_with("test result: ") {
            self.section = Section::Results;
            self.speaker = None;
            return Line::Noise;
        }
        match line {
            "successes:" => self.section = Section::Successes,
            "failures:" => self.section = Section::Failures,
            _ => {}
        }
        match self.section {
            Section::Results => self.result(line),
            Section::Successes => {
                self.said(line);
                Line::Noise
            }
            Section::Failures => Line::Detail,
        }
    }

    /// A harness that ended before it reported all it announced has lost the rest.
    fn close_run(&mut self) {
        if self.outstanding > 0 {
            self.tally.failed += self.outstanding;
            self.failed.push(format!("# {} never reported", self.outstanding));
            self.outstanding = 0;
        }
        self.section = Section::Results;
        self.speaker = None;
    }

    fn result<'a>(&mut self, line: &'a str) -> Line<'a> {
        let Some((name, outcome)) = ended(line) else { return Line::Noise };
        self.outstanding = self.outstanding.saturating_sub(1);
        match outcome {
            Outcome::Passed => self.tally.passed += 1,
            Outcome::Failed => {
                self.tally.failed += 1;
                self.failed.push(name.to_owned());
            }
            Outcome::Ignored => {
                self.tally.skipped += 1;
                self.skipped.push((name.to_owned(), "ignored".to_owned()));
            }
        }
        Line::Test { name, outcome }
    }

    /// A line of what a passed test printed.
    fn said(&mut self, line: &str) {
        let speaker = line.strip_prefix("---- ").and_then(|line| line.strip_suffix(" stdout ----"));
        if let Some(speaker) = speaker {
            self.speaker = Some(speaker.to_owned());
        } else if let Some(reason) = line.strip_prefix(SKIP)
            // One test that says it twice has still been skipped once.
            && let Some(name) = self.speaker.take()
        {
            let reason = reason.trim_start_matches([':', ' ']).to_owned();
            self.tally.passed = self.tally.passed.saturating_sub(1);
            self.tally.skipped += 1;
            self.skipped.push((name, reason));
        }
    }

    /// The end of everything; `success` is what the process said of itself.
    pub(crate) fn finish(mut self, success: bool) -> Report {
        self.close_run();
        if !success && self.tally.failed == 0 {
            self.tally.failed += 1;
            self.failed.push("# did not build, or died".to_owned());
        }
        Report { tally: self.tally, failed: self.failed, skipped: self.skipped }
    }
}

/// What came of it.
#[derive(PartialEq, Eq, Debug, Default)]
pub(crate) struct Report {
    pub(crate) tally: Tally,
    /// Names of failed tests.
    pub(crate) failed: Vec<String>,
    /// Names and reasons of those that could not run here.
    pub(crate) skipped: Vec<(String, String)>,
}

/// `running 12 tests`
fn announced(line: &str) -> Option<usize> {
    let (count, noun) = line.strip_prefix("running ")?.split_once(' ')?;
    matches!(noun, "test" | "tests").then(|| count.parse().ok())?
}

/// `test a::b ... ok`; the outcome may carry a note (`ok (compile)`, `ignored, why`).
fn ended(line: &str) -> Option<(&str, Outcome)> {
    let (name, outcome) = line.strip_prefix("test ")?.rsplit_once(" ... ")?;
    let name = name.strip_suffix(" - should panic").unwrap_or(name);
    let word = outcome.split([' ', ',']).next()?;
    let outcome = match word {
        "ok" => Outcome::Passed,
        "FAILED" => Outcome::Failed,
        "ignored" => Outcome::Ignored,
        _ => return None,
    };
    Some((name, outcome))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(text: &str, success: bool) -> Report {
        let mut reader = Reader::default();
        for line in text.lines() {
            reader.read(line);
        }
        reader.finish(success)
    }

    #[test]
    fn single_lines_are_read() {
        let passed = |name| Line::Test { name, outcome: Outcome::Passed };
        let failed = |name| Line::Test { name, outcome: Outcome::Failed };
        let ignored = |name| Line::Test { name, outcome: Outcome::Ignored };
        let cases = [
            ("test a::b ... ok", passed("a::b")),
            ("test a::b ... FAILED", failed("a::b")),
            ("test a ... ignored", ignored("a")),
            ("test a ... ignored, no such NIC", ignored("a")),
            ("test src/lib.rs - addr (line 3) ... ok", passed("src/lib.rs - addr (line 3)")),
            (
                "test src/lib.rs - x (line 3) - compile ... ok",
                passed("src/lib.rs - x (line 3) - compile"),
            ),
            ("test a - should panic ... ok", passed("a")),
            ("test a ... ok <0.003s>", passed("a")),
            ("test a has been running for over 60 seconds", Line::Noise),
            ("test a ... bench: 5 ns/iter (+/- 0)", Line::Noise),
            ("", Line::Noise),
        ];
        for (line, expected) in cases {
            assert_eq!(Reader::default().read(line), expected, "{line}");
        }
    }

    #[test]
    fn a_good_run_with_a_skip_is_counted() {
        let text = "\nrunning 3 tests\n\
            test network::a ... ok\ntest network::b ... ok\ntest network::c ... ok\n\
            \nsuccesses:\n\n---- network::a stdout ----\nnothing to see\n\
            \n---- network::c stdout ----\nSKIP: no such NIC here\nSKIP: again\n\
            \n\nsuccesses:\n    network::a\n    network::b\n    network::c\n\
            \ntest result: ok. 3 passed; 0 failed; 0 ignored; 0 measured; 9 filtered out\n";
        let report = report(text, true);
        assert_eq!(report.tally, Tally { passed: 2, failed: 0, skipped: 1 });
        assert_eq!(report.skipped, [("network::c".to_owned(), "no such NIC here".to_owned())]);
        assert!(report.failed.is_empty());
    }

    #[test]
    fn several_harnesses_add_up_and_failures_are_named() {
        let text = "running 2 tests\ntest a ... ok\ntest b ... FAILED\n\nfailures:\n\n\
            ---- b stdout ----\nSKIP is no excuse for a failure\ntest x ... ok\n\n\
            failures:\n    b\n\ntest result: FAILED. 1 passed; 1 failed\n\n\
            running 1 test\ntest c ... ok\n\ntest result: ok. 1 passed; 0 failed\n";
        let report = report(text, false);
        assert_eq!(report.tally, Tally { passed: 2, failed: 1, skipped: 0 });
        assert_eq!(report.failed, ["b"]);
    }

    #[test]
    fn what_a_failed_test_said_is_detail() {
        let mut reader = Reader::default();
        for line in ["running 1 test", "test b ... FAILED", ""] {
            assert_ne!(reader.read(line), Line::Detail);
        }
        for line in ["failures:", "", "---- b stdout ----", "thread 'b' panicked", "    b"] {
            assert_eq!(reader.read(line), Line::Detail, "{line}");
        }
        assert_eq!(reader.read("test result: FAILED. 0 passed; 1 failed"), Line::Noise);
    }

    #[test]
    fn a_harness_that_died_has_failed() {
        let died = report("running 3 tests\ntest a ... ok\n", false);
        assert_eq!(died.tally, Tally { passed: 1, failed: 2, skipped: 0 });
        assert_eq!(died.failed, ["# 2 never reported"]);
        let next = report("running 2 tests\ntest a ... ok\nrunning 1 test\ntest b ... ok\n", true);
        assert_eq!(next.tally, Tally { passed: 2, failed: 1, skipped: 0 });
        let silent = report("", false);
        assert_eq!(silent.tally.failed, 1, "an exit code alone is a failure, too");
    }
}

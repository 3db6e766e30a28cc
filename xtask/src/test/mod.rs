//! The tests, in tiers with the quick ones first; all of them run even if an early one fails.
//!
//! The last line is `N passed, N failed, N skipped`, and the exit code is 0 only if nothing
//! failed. With `CI=true` a skipped test is a failure: CI's machines can run everything.

mod harness;
mod libtest;
mod lint;

use std::env;

use anyhow::Result;

use crate::args::{Test, Tier};
use crate::leftovers::Sweeper;
use crate::process::Stopped;
use crate::report::{Watch, complain, say, seconds};
use crate::setup::{self, Needs};
use crate::test::libtest::Report;
use crate::tree::Tree;

/// Runs the tiers asked for.
pub(crate) fn run(tree: &Tree, options: &Test) -> Result<u8> {
    let watch = Watch::start();
    let tiers: &[Tier] = options.tier.as_ref().map_or(&Tier::ALL, std::slice::from_ref);
    // Unit tests of the rooms that touch the kernel make namespaces, too.
    let lab = tiers.iter().any(|tier| *tier >= Tier::Unit);
    if tiers.iter().any(|tier| *tier > Tier::Tidy) {
        let needs = Needs { lab, lint: tiers.contains(&Tier::Lint) };
        setup::run(tree, needs, options.install)?;
    }
    let sweeper = if lab { Some(Sweeper::begin("lbtest-")?) } else { None };
    let mut total = Report::default();
    for tier in tiers {
        let report = show(tree, *tier, options.filter.as_deref())?;
        total.tally.add(report.tally);
        let tagged = report.failed.iter().map(|name| format!("{} {}", tier.name(), quoted(name)));
        total.failed.extend(tagged);
        total.skipped.extend(report.skipped);
    }
    // Before the last line: what it removes is said.
    drop(sweeper);
    say!("\ntook             {}", seconds(watch.elapsed()));
    let (lines, code) = conclusion(total, env::var_os("CI").is_some_and(|ci| ci == "true"));
    say!("{}", lines.join("\n"));
    Ok(code)
}

/// One tier with its heading and its line of counts. Only a request to stop is an error here.
fn show(tree: &Tree, tier: Tier, filter: Option<&str>) -> Result<Report> {
    let watch = Watch::start();
    let number = Tier::ALL.iter().take_while(|other| **other != tier).count() + 1;
    say!("\n{number} {}", tier.name());
    let result = match tier {
        Tier::Tidy => lint::tidy(tree),
        Tier::Lint => lint::lint(tree),
        Tier::Unit => harness::unit(tree, filter),
        Tier::Program | Tier::Network => harness::lab(tree, tier.name(), filter),
    };
    let report = match result {
        Err(error) if error.is::<Stopped>() => return Err(error),
        Err(error) => {
            complain(&format!("{error:#}"));
            let mut report = Report::default();
            report.tally.check(false);
            report.failed.push("# see above".to_owned());
            report
        }
        Ok(report) => report,
    };
    let verdict = if report.tally.failed == 0 { "ok" } else { "FAILED" };
    let took = seconds(watch.elapsed());
    say!("{number} {:<8} {verdict:<7} {:<42} {took:>8}", tier.name(), report.tally.to_string());
    Ok(report)
}

/// A name as a shell takes it; a comment stays one.
fn quoted(name: &str) -> String {
    if name.contains(' ') && !name.starts_with('#') { format!("'{name}'") } else { name.to_owned() }
}

/// What was skipped and what failed, and the last line; and the exit code.
fn conclusion(mut total: Report, is_ci: bool) -> (Vec<String>, u8) {
    let mut lines = Vec::new();
    for (name, reason) in &total.skipped {
        lines.push(format!("skipped          {name}: {reason}"));
    }
    if is_ci && !total.skipped.is_empty() {
        lines.push("CI must run every test: what was skipped has failed".to_owned());
        total.tally.failed += total.tally.skipped;
        total.tally.skipped = 0;
    }
    for name in &total.failed {
        lines.push(format!("failed           cargo xtask test {name}"));
    }
    lines.push(total.tally.to_string());
    (lines, u8::from(total.tally.failed > 0 || total.tally.passed == 0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Tally;

    #[test]
    fn what_failed_is_named_with_the_command_to_repeat_it() {
        let report = Report {
            tally: Tally { passed: 5, failed: 1, skipped: 1 },
            failed: vec!["network network::tcp::v4".to_owned()],
            skipped: vec![("program::vlan".to_owned(), "no such NIC".to_owned())],
        };
        let (lines, code) = conclusion(report, false);
        let expected = [
            "skipped          program::vlan: no such NIC",
            "failed           cargo xtask test network network::tcp::v4",
            "5 passed, 1 failed, 1 skipped",
        ];
        assert_eq!((lines.as_slice(), code), (&expected.map(str::to_owned)[..], 1));
    }

    #[test]
    fn names_are_quoted_for_a_shell() {
        let cases =
            [("a::b", "a::b"), ("a.rs - b (line 3)", "'a.rs - b (line 3)'"), ("# c d", "# c d")];
        for (name, expected) in cases {
            assert_eq!(quoted(name), expected);
        }
    }

    #[test]
    fn the_exit_code_follows_the_counts() {
        let cases = [
            (Tally { passed: 2, failed: 0, skipped: 0 }, false, 0),
            (Tally { passed: 2, failed: 1, skipped: 0 }, false, 1),
            (Tally { passed: 2, failed: 0, skipped: 1 }, false, 0),
            (Tally { passed: 2, failed: 0, skipped: 1 }, true, 1),
            (Tally::default(), false, 1),
        ];
        for (tally, is_ci, code) in cases {
            let skipped = vec![("a".to_owned(), "why".to_owned()); tally.skipped];
            let report = Report { tally, skipped, ..Report::default() };
            assert_eq!(conclusion(report, is_ci).1, code, "{tally:?} {is_ci}");
        }
    }
}

//! The tiers that are Rust tests: the packages' own, and those of the lab.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};

use crate::cargo::on_host;
use crate::process;
use crate::report::{self, Watch, seconds};
use crate::test::libtest::{Line, Outcome, Reader, Report};
use crate::tree::Tree;

/// No run of a harness, with what it compiles, takes longer, in seconds; a test that hangs is
/// killed then.
const LIMIT: u32 = 1_500;

/// What `timeout` ends with when the limit was reached.
const TIMED_OUT: i32 = 124;

/// How much of a run is shown besides what failed.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Show {
    /// Every test with its time: they are few, and run one after the other.
    Each,
    /// Only what failed.
    Failures,
}

/// Unit, property, integration and documentation tests of all packages, without the lab's.
pub(crate) fn unit(tree: &Tree, filter: Option<&str>) -> Result<Report> {
    let mut report = Report::default();
    let mut targets = vec!["--lib".to_owned(), "--bins".to_owned()];
    targets.extend(integration(&tree.root)?.iter().map(|name| format!("--test={name}")));
    for targets in [targets, vec!["--doc".to_owned()]] {
        let mut command = on_host(tree, "test");
        command.arg("--no-fail-fast").args(targets).arg("--").args(filter);
        let part = harness(&command, Show::Failures, report::line)?;
        report.tally.add(part.tally);
        report.failed.extend(part.failed);
        report.skipped.extend(part.skipped);
    }
    ensure!(report.tally != Default::default(), "no unit test has `{}`", filter.unwrap_or(""));
    Ok(report)
}

/// The names of the integration tests: the files `PACKAGE/tests/NAME.rs`. Cargo would also run the
/// lab's if it were asked for all.
fn integration(root: &Path) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for package in fs::read_dir(root).context("cannot list the checkout")? {
        let tests = package.context("cannot list the checkout")?.path().join("tests");
        let Ok(listing) = fs::read_dir(tests) else { continue };
        let files = listing.flatten().map(|entry| entry.path());
        let sources = files.filter(|path| path.extension().is_some_and(|it| it == "rs"));
        names.extend(sources.filter_map(|path| Some(path.file_stem()?.to_str()?.to_owned())));
    }
    names.sort();
    Ok(names)
}

/// The lab's tests of one module, one at a time: they share the kernel.
pub(crate) fn lab(tree: &Tree, module: &str, filter: Option<&str>) -> Result<Report> {
    // The tests run the workspace's binaries, from the directory of their own profile.
    let mut build = on_host(tree, "build");
    process::run(build.arg("--bins"))?;
    let mut list = on_host(tree, "test");
    list.args(["--test", "it", "--", "--list", "--format", "terse"]);
    let mut listing = String::new();
    let status = process::lines(&mut list, |line| {
        listing.push_str(line);
        listing.push('\n');
    })?;
    ensure!(status.success(), "the lab's tests do not build");
    let names = select(&listing, module, filter);
    if names.is_empty() {
        bail!("no test `{module}::` has `{}` in its name", filter.unwrap_or(""));
    }
    let mut command = on_host(tree, "test");
    command.args(["--test", "it", "--", "--test-threads=1", "--show-output", "--exact"]);
    harness(command.args(names), Show::Each, report::line)
}

/// The names of a module's tests in a terse listing (`program::parse::vlan: test`).
fn select<'a>(listing: &'a str, module: &str, filter: Option<&str>) -> Vec<&'a str> {
    let names = listing.lines().filter_map(|line| line.strip_suffix(": test"));
    let in_module = |name: &str| name.split("::").next() == Some(module);
    names.filter(|name| in_module(name) && name.contains(filter.unwrap_or(""))).collect()
}

/// Runs a harness, reads what it prints, and shows what is worth it.
fn harness(command: &Command, show: Show, mut print: impl FnMut(&str)) -> Result<Report> {
    let mut reader = Reader::default();
    let mut watch = Watch::start();
    let status = process::lines(&mut limited(command), |line| match reader.read(line) {
        Line::Test { name, outcome } => {
            let took = seconds(watch.lap());
            let verdict = match outcome {
                Outcome::Failed => "FAILED",
                Outcome::Passed | Outcome::Ignored if show == Show::Failures => return,
                Outcome::Passed => "ok",
                Outcome::Ignored => "ignored",
            };
            print(&format!("  {name:<66} {verdict:<7} {took:>7}"));
        }
        Line::Detail => print(&format!("    {line}")),
        // The first line of a run: what compiled before it is not the first test's time.
        Line::Noise => drop(watch.lap()),
    })?;
    if status.code() == Some(TIMED_OUT) {
        print(&format!("  killed: it took more than {LIMIT} seconds"));
    }
    Ok(reader.finish(status.success()))
}

/// The command below `timeout`, which ends the whole process group.
fn limited(command: &Command) -> Command {
    let mut limited = Command::new("timeout");
    limited.arg("--kill-after=10").arg(LIMIT.to_string());
    limited.arg(command.get_program()).args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => limited.env(name, value),
            None => limited.env_remove(name),
        };
    }
    if let Some(directory) = command.get_current_dir() {
        limited.current_dir(directory);
    }
    limited
}

#[cfg(test)]
mod tests {
    use super::*;

    const LISTING: &str = "network::failover::lb_killed: test\nnetwork::tcp::v4: test\n\
        program::tcp::v4: test\nprogram_helpers::x: test\n\n4 tests, 0 benchmarks\n";

    #[test]
    fn a_tier_is_a_module_of_the_labs_tests() {
        let cases: [(&str, Option<&str>, &[&str]); 4] = [
            ("network", None, &["network::failover::lb_killed", "network::tcp::v4"]),
            ("program", None, &["program::tcp::v4"]),
            ("network", Some("tcp"), &["network::tcp::v4"]),
            ("program", Some("failover"), &[]),
        ];
        for (module, filter, names) in cases {
            assert_eq!(select(LISTING, module, filter), names, "{module} {filter:?}");
        }
    }

    #[test]
    fn integration_tests_are_found_by_their_files() {
        let root = std::env::temp_dir().join(format!("xtask-harness-{}", std::process::id()));
        for file in ["lb-a/tests/wire.rs", "lb-b/tests/flow.rs", "lb-b/tests/data.txt", "c/d.rs"] {
            let path = root.join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "").unwrap();
        }
        assert_eq!(integration(&root).unwrap(), ["flow", "wire"]);
        fs::remove_dir_all(&root).unwrap();
    }

    #[test]
    fn the_limit_keeps_the_command_as_it_was() {
        let mut command = Command::new("cargo");
        command.args(["test", "--", "a b"]).current_dir("/").env("A", "1").env_remove("B");
        let limited = limited(&command);
        assert_eq!(process::shown(&limited), "timeout --kill-after=10 1500 cargo test -- a b");
        assert_eq!(limited.get_current_dir(), command.get_current_dir());
        assert!(limited.get_envs().eq(command.get_envs()));
    }

    #[test]
    fn a_harness_is_run_and_read() {
        let mut command = Command::new("printf");
        command.arg("running 2 tests\\ntest a ... ok\\ntest b ... FAILED\\n");
        let mut shown = Vec::new();
        let report = harness(&command, Show::Failures, |line| shown.push(line.to_owned()));
        let report = report.unwrap();
        assert_eq!((report.tally.passed, report.tally.failed), (1, 1));
        assert_eq!(report.failed, ["b"]);
        assert_eq!(shown.len(), 1, "only what failed: {shown:?}");
    }
}

//! The tiers that judge the text: tidy and formatting; the lints and the dependencies.

use std::process::Command;

use anyhow::Result;

use crate::cargo::{cargo, on_host};
use crate::report::{Watch, say, seconds};
use crate::test::Report;
use crate::tree::Tree;
use crate::{process, tidy};

/// The house rules, and rustfmt's.
pub(crate) fn tidy(tree: &Tree) -> Result<Report> {
    let mut report = Report::default();
    let findings = tidy::check(&tree.root)?;
    for finding in &findings {
        say!("  {finding}");
    }
    note(&mut report, "house rules", !findings.iter().any(tidy::Finding::is_error), None);
    let mut fmt = cargo(tree);
    // Only the names of the files: `cargo fmt` is the cure, so the differences need no reading.
    fmt.args(["fmt", "--all", "--check", "--", "--files-with-diff"]);
    check(&mut report, "rustfmt", &mut fmt)?;
    Ok(report)
}

/// clippy for both targets, and cargo-deny.
pub(crate) fn lint(tree: &Tree) -> Result<Report> {
    let mut report = Report::default();
    let mut host = on_host(tree, "clippy");
    host.args(["--all-targets", "--", "-D", "warnings"]);
    // The lints do not look into the programs, which are linted for their own target below.
    host.env("LB_SKIP_EBPF", "1");
    check(&mut report, "clippy, host", &mut host)?;

    let mut bpf = cargo(tree);
    bpf.args(["clippy", "--locked", "--package", "lb-ebpf", "--bins"]);
    bpf.args(["--target", "bpfel-unknown-none", "-Z", "build-std=core", "--target-dir"]);
    bpf.arg(tree.target.join("clippy-bpf")).args(["--", "-D", "warnings"]);
    // build-std is unstable; this lets the stable compiler do it, for this child only.
    bpf.env("RUSTC_BOOTSTRAP", "1");
    check(&mut report, "clippy, bpf", &mut bpf)?;

    let mut deny = Command::new(tree.tool("cargo-deny"));
    // Not the advisories: their database comes from another network than the crates, and it
    // changes without the tree. `cargo deny check advisories` asks for them.
    deny.current_dir(&tree.root).args(["--locked", "check", "bans", "licenses", "sources"]);
    check(&mut report, "dependencies", &mut deny)?;
    Ok(report)
}

/// Runs one check; its output passes through. Only a request to stop is an error.
fn check(report: &mut Report, name: &str, command: &mut Command) -> Result<()> {
    let watch = Watch::start();
    let good = process::status(command)?.success();
    note(report, name, good, Some(&seconds(watch.elapsed())));
    Ok(())
}

fn note(report: &mut Report, name: &str, good: bool, took: Option<&str>) {
    let verdict = if good { "ok" } else { "FAILED" };
    say!("  {name:<66} {verdict:<6} {:>8}", took.unwrap_or(""));
    report.tally.check(good);
    if !good {
        // The tier is run as a whole: what of it failed is a comment on the command.
        report.failed.push(format!("# {name}"));
    }
}

//! Set-up: everything the other commands need is present afterwards, and the second run does
//! nothing.
//!
//! Writes below `target/`, except for Debian packages, the `rust-src` component and the bpffs
//! mount; each is named before it is made.

mod apt;
mod kernel;
mod steps;

use std::fs;
use std::os::unix::fs::MetadataExt as _;

use anyhow::{Context as _, Result, bail, ensure};

use crate::process;
use crate::report::{Watch, say, seconds};
use crate::setup::steps::Step;
use crate::tree::Tree;

/// What a command needs besides the compiler.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Needs {
    /// The namespaces of the lab and the real programs in them.
    pub(crate) lab: bool,
    /// What judges the text: rustfmt, clippy, cargo-deny.
    pub(crate) lint: bool,
}

impl Needs {
    /// Only what building and loading takes.
    pub(crate) const BUILD: Self = Self { lab: false, lint: false };
    /// Building, and the lab.
    pub(crate) const LAB: Self = Self { lab: true, lint: false };
    /// Everything.
    pub(crate) const ALL: Self = Self { lab: true, lint: true };
}

/// Makes everything present, or, with `install` off, names what is missing and fails.
pub(crate) fn run(tree: &Tree, needs: Needs, install: bool) -> Result<()> {
    ensure!(is_root()?, "not root: namespaces, eBPF and packages need it");
    say!("set-up");
    kernel::check(needs.lab)?;
    let mut missing = Vec::new();
    for step in steps::all(needs) {
        if step.is_present(tree)? {
            row(step.name(), "present");
        } else {
            if install {
                row(step.name(), &format!("missing: {}", step.why()));
            }
            missing.push(step);
        }
    }
    process::check_stopped()?;
    if missing.is_empty() {
        return Ok(());
    }
    if !install {
        bail!("{}", refusal(tree, &missing));
    }
    let mut packages = Vec::new();
    for step in &missing {
        if let Step::Package(package) = step {
            packages.push(*package);
        }
    }
    if !packages.is_empty() {
        timed("Debian packages", || apt::install(&packages))?;
    }
    for step in &missing {
        if !matches!(step, Step::Package(_)) {
            timed(step.name(), || step.install(tree))?;
        }
        ensure!(step.is_present(tree)?, "{} is still missing after its installation", step.name());
    }
    Ok(())
}

/// One line for a step that needs no more than a line.
fn row(name: &str, state: &str) {
    say!("  {name:<18} {state}");
}

fn timed(name: &str, install: impl FnOnce() -> Result<()>) -> Result<()> {
    let watch = Watch::start();
    install().with_context(|| format!("cannot install {name}"))?;
    row(name, &format!("done in {}", seconds(watch.elapsed())));
    Ok(())
}

/// The one message of `--no-install`.
fn refusal(tree: &Tree, missing: &[Step]) -> String {
    let mut text = String::from("missing:");
    for step in missing {
        text.push_str(&format!("\n  {:<18} {}", step.name(), step.why()));
    }
    text.push_str("\n`cargo xtask setup` runs:");
    let packages: Vec<&str> = missing.iter().filter_map(Step::package).collect();
    if !packages.is_empty() {
        text.push_str(&format!("\n  {}", apt::shown(&packages)));
    }
    for step in missing.iter().filter(|step| step.package().is_none()) {
        text.push_str(&format!("\n  {}", step.shown(tree)));
    }
    text
}

/// The owner of a process's directory in /proc is its effective user.
fn is_root() -> Result<bool> {
    Ok(fs::metadata("/proc/self").context("cannot read /proc/self")?.uid() == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_refusal_names_everything_and_the_commands() {
        let tree = Tree { root: "/checkout".into(), target: "/checkout/target".into() };
        let steps = steps::all(Needs::ALL);
        let text = refusal(&tree, &steps);
        for step in &steps {
            assert!(text.contains(step.name()), "{} is not named in {text}", step.name());
            assert!(text.contains(step.why()), "{} gives no reason in {text}", step.name());
        }
        assert_eq!(text.matches("apt-get install").count(), 1, "one command for all packages");
        for command in ["rustup component add", "cargo install bpf-linker", "mount -t bpf"] {
            assert!(text.contains(command), "{command} is not in {text}");
        }
    }

    #[test]
    fn a_build_needs_no_lab_and_no_lints() {
        let names: Vec<_> = steps::all(Needs::BUILD).iter().map(Step::name).collect();
        assert!(names.contains(&"bpf-linker") && names.contains(&"llvm-22-dev"), "{names:?}");
        assert!(!names.contains(&"nginx") && !names.contains(&"cargo-deny"), "{names:?}");
    }
}

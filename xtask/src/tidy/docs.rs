//! Rules that tie the prose to the code: a path, and a test, that a document names exists.

use std::collections::BTreeSet;

use super::{File, Finding};

/// The documents that describe the code.
const DOCUMENTS: [&str; 2] = ["README.md", "ARCHITECTURE.md"];

/// Where the lab's tests are; a document names them as the harness does (`network::tcp::v4`).
const LAB: &str = "tests/it/";

pub(super) fn check(files: &[File]) -> Vec<Finding> {
    let known = known_paths(files);
    let mut findings = Vec::new();
    for file in files.iter().filter(|file| DOCUMENTS.contains(&file.path.as_str())) {
        for (number, line) in file.lines() {
            // Between backticks: every second piece.
            for word in line.split('`').skip(1).step_by(2) {
                if is_source(word) && !known.contains(word.trim_end_matches('/')) {
                    findings.push(Finding::error(file, number, format!("there is no `{word}`")));
                }
                if is_test(word) && !has_test(files, word) {
                    findings.push(Finding::error(file, number, format!("no test is `{word}`")));
                }
            }
        }
    }
    findings
}

/// Every file and directory.
fn known_paths(files: &[File]) -> BTreeSet<&str> {
    let mut known = BTreeSet::new();
    for file in files {
        let mut path = file.path.as_str();
        known.insert(path);
        while let Some((directory, _)) = path.rsplit_once('/') {
            known.insert(directory);
            path = directory;
        }
    }
    known
}

/// Looks like a path of this checkout's source: in one of its crates, and not a pattern.
fn is_source(word: &str) -> bool {
    let crates = ["lb-common/", "lb-ebpf/", "lb-userspace/", "tests/", "xtask/"];
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "/._-".contains(c);
    let is_text = word.ends_with('/') || word.ends_with(".rs") || word.ends_with("Cargo.toml");
    crates.iter().any(|it| word.starts_with(it)) && word.chars().all(is_plain) && is_text
}

fn is_test(word: &str) -> bool {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "_:".contains(c);
    let modules = ["program::", "network::"];
    modules.iter().any(|it| word.starts_with(it)) && word.chars().all(is_plain)
}

/// The function stands in a file of the test's first module.
fn has_test(files: &[File], word: &str) -> bool {
    let (Some((module, _)), Some((_, name))) = (word.split_once("::"), word.rsplit_once("::"))
    else {
        return false;
    };
    let function = format!("fn {name}(");
    let room = format!("{LAB}{module}");
    files.iter().any(|file| file.path.starts_with(&room) && file.text.contains(&function))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn findings(prose: &str) -> Vec<String> {
        let files = [
            File::new("README.md", prose),
            File::new("lb-common/src/addr.rs", "//! Addresses.\n"),
            File::new("tests/it/network/failover.rs", "#[test]\nfn lb_killed() {}\n"),
        ];
        check(&files).iter().map(Finding::to_string).collect()
    }

    #[test]
    fn a_path_in_a_document_exists() {
        assert!(findings("See `lb-common/src/addr.rs` and `lb-common/src/`.").is_empty());
        assert_eq!(
            findings("a\nSee `lb-common/src/gone.rs`."),
            ["README.md:2: error: there is no `lb-common/src/gone.rs`"]
        );
        assert_eq!(findings("`lb-userspace/`").len(), 1);
        assert!(
            findings("`target/demo/`, `lb-userspace/src/{a,b}.rs`, lb-common/src/x.rs").is_empty()
        );
    }

    #[test]
    fn a_test_in_a_document_exists() {
        assert!(findings("Kept by `network::failover::lb_killed`.").is_empty());
        let found = findings("Kept by `network::failover::lb_gone`.");
        assert_eq!(found, ["README.md:1: error: no test is `network::failover::lb_gone`"]);
        assert_eq!(findings("`program::failover::lb_killed`").len(), 1, "another module");
        assert!(findings("`cargo xtask test network`").is_empty());
    }
}

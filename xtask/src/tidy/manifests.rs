//! Rules about `Cargo.toml`: versions stand in the workspace's, lints come from it.

use super::{File, Finding};

pub(super) fn check(file: &File) -> Vec<Finding> {
    let is_member = file.path.ends_with("/Cargo.toml");
    if !is_member {
        return Vec::new();
    }
    let mut findings = versions(file);
    if file.path != "xtask/Cargo.toml" {
        return finish(file, findings);
    }
    // xtask compiles first, and alone.
    for (number, line) in dependencies(file) {
        if name(line).starts_with("lb-") {
            findings.push(Finding::error(
                file,
                number,
                "xtask depends on no crate of the workspace",
            ));
        }
    }
    finish(file, findings)
}

fn finish(file: &File, mut findings: Vec<Finding>) -> Vec<Finding> {
    let lints = "[lints]\nworkspace = true";
    if !file.text.contains(lints) {
        findings.push(Finding::error(file, 0, "the workspace's lints are missing: `[lints]`"));
    }
    findings
}

/// A dependency names no version and no source of its own.
fn versions(file: &File) -> Vec<Finding> {
    let own = dependencies(file).into_iter().filter(|(_, line)| !line.contains("workspace = true"));
    own.map(|(number, line)| {
        let message =
            format!("`{}`: its version belongs into the workspace's Cargo.toml", name(line));
        Finding::error(file, number, message)
    })
    .collect()
}

/// The lines in the sections of dependencies that begin one.
fn dependencies(file: &File) -> Vec<(usize, &str)> {
    let mut inside = false;
    let mut lines = Vec::new();
    for (number, line) in file.lines() {
        let line = line.trim();
        if line.starts_with('[') {
            inside = line.trim_end_matches(']').ends_with("dependencies");
        } else if inside && !line.is_empty() && !line.starts_with('#') && line.contains('=') {
            lines.push((number, line));
        }
    }
    lines
}

fn name(line: &str) -> &str {
    line.split(['.', '=', ' ']).next().unwrap_or("")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn findings(path: &str, dependencies: &str) -> Vec<String> {
        let text = format!(
            "[package]\nname = \"a\"\nversion.workspace = true\n\n{dependencies}\n\n\
             [lints]\nworkspace = true\n"
        );
        check(&File::new(path, text)).iter().map(Finding::to_string).collect()
    }

    #[test]
    fn versions_stand_in_one_place() {
        let good = "[dependencies]\n# why\naya.workspace = true\n\
                    tokio = { workspace = true, features = [\"rt\"] }\n";
        assert!(findings("a/Cargo.toml", good).is_empty());
        for bad in ["aya = \"0.14\"", "aya = { version = \"0.14\" }", "b = { path = \"../b\" }"] {
            for section in ["dependencies", "dev-dependencies", "build-dependencies"] {
                let found = findings("a/Cargo.toml", &format!("[{section}]\n{bad}"));
                assert_eq!(found.len(), 1, "{section}: {bad}");
                assert!(found[0].contains("a/Cargo.toml:6: error: `"), "{found:?}");
            }
        }
        let root = File::new("Cargo.toml", "[dependencies]\na = \"1\"");
        assert!(check(&root).is_empty(), "the workspace's own manifest is that place");
    }

    #[test]
    fn the_lints_are_the_workspaces() {
        let file = File::new("a/Cargo.toml", "[package]\n");
        assert_eq!(check(&file).len(), 1);
    }

    #[test]
    fn xtask_stands_alone() {
        let text = "[dependencies]\nlb-common.workspace = true";
        assert_eq!(findings("xtask/Cargo.toml", text).len(), 1);
        assert!(findings("tests/Cargo.toml", text).is_empty());
    }
}

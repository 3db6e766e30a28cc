//! The house rules that no compiler checks. They are also a `#[test]`, so plain `cargo test`
//! keeps them.

mod docs;
mod manifests;
mod rooms;
mod source;
mod text;

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};

/// One place where a rule is broken.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Finding {
    /// Relative to the checkout.
    path: String,
    /// Counted from 1; 0 for the whole file.
    line: usize,
    /// What is wrong and what to do.
    message: String,
    severity: Severity,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Severity {
    Error,
    Warning,
}

impl Finding {
    fn error(file: &File, line: usize, message: impl Into<String>) -> Self {
        let (path, message) = (file.path.clone(), message.into());
        Self { path, line, message, severity: Severity::Error }
    }

    fn warning(file: &File, line: usize, message: impl Into<String>) -> Self {
        Self { severity: Severity::Warning, ..Self::error(file, line, message) }
    }

    /// A warning is shown and fails nothing.
    pub(crate) fn is_error(&self) -> bool {
        self.severity == Severity::Error
    }
}

impl std::fmt::Display for Finding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let kind = if self.is_error() { "error" } else { "warning" };
        match self.line {
            0 => write!(f, "{}: {kind}: {}", self.path, self.message),
            line => write!(f, "{}:{line}: {kind}: {}", self.path, self.message),
        }
    }
}

/// A text file of the checkout.
#[derive(Debug)]
struct File {
    /// Relative to the checkout, with `/`.
    path: String,
    text: String,
    /// A module that only unit tests are in, by the declaration of its parent.
    is_test: bool,
}

impl File {
    fn new(path: impl Into<String>, text: impl Into<String>) -> Self {
        Self { path: path.into(), text: text.into(), is_test: false }
    }

    fn has_extension(&self, extension: &str) -> bool {
        self.path.rsplit_once('.').is_some_and(|(_, it)| it == extension)
    }

    fn is_rust(&self) -> bool {
        self.has_extension("rs")
    }

    /// The paths, without `.rs`, of the modules this file declares for tests only.
    fn test_modules(&self) -> Vec<String> {
        if !self.is_rust() {
            return Vec::new();
        }
        let inside = match self.path.rsplit_once('/') {
            Some((directory, "mod.rs" | "lib.rs" | "main.rs")) => directory,
            _ => self.path.trim_end_matches(".rs"),
        };
        let names = source::test_modules(&self.text);
        names.into_iter().map(|name| format!("{inside}/{name}")).collect()
    }

    /// The lines with their numbers, from 1.
    fn lines(&self) -> impl Iterator<Item = (usize, &str)> {
        self.text.lines().enumerate().map(|(index, line)| (index + 1, line))
    }
}

/// Checks everything below `root`; findings are in the order of the files.
pub(crate) fn check(root: &Path) -> Result<Vec<Finding>> {
    let mut files = Vec::new();
    collect(root, root, &mut files)?;
    files.sort_by(|a, b| a.path.cmp(&b.path));
    mark_tests(&mut files);
    let mut findings = Vec::new();
    for file in &files {
        findings.extend(text::check(file));
        findings.extend(rooms::check(file));
        findings.extend(manifests::check(file));
    }
    findings.extend(docs::check(&files));
    findings.sort();
    Ok(findings)
}

/// Finds the files that are declared as `#[cfg(test)] mod name;`.
fn mark_tests(files: &mut [File]) {
    let declared: Vec<String> = files.iter().flat_map(File::test_modules).collect();
    for file in files {
        let module = file.path.trim_end_matches(".rs");
        let is_below = |test: &String| {
            module
                .strip_prefix(test.as_str())
                .is_some_and(|it| it.is_empty() || it.starts_with('/'))
        };
        file.is_test = declared.iter().any(is_below);
    }
}

/// The extensions that are checked; everything else is data.
const TEXT: [&str; 4] = ["rs", "toml", "md", "sh"];

/// Reads the text files below a directory. What is built, and what is hidden, is no source.
fn collect(root: &Path, directory: &Path, files: &mut Vec<File>) -> Result<()> {
    let listing =
        fs::read_dir(directory).with_context(|| format!("cannot list {}", directory.display()))?;
    for entry in listing {
        let path = entry.context("cannot list a directory")?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if name == "target" || name.starts_with('.') {
            continue;
        }
        if path.is_dir() {
            collect(root, &path, files)?;
        } else if path.extension().is_some_and(|it| TEXT.iter().any(|text| it == *text)) {
            let text = fs::read_to_string(&path)
                .with_context(|| format!("cannot read {}", path.display()))?;
            let path = path.strip_prefix(root).unwrap_or(&path).to_string_lossy().into_owned();
            files.push(File::new(path, text));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::Tree;

    #[test]
    fn the_tree_is_tidy() {
        let findings = check(&Tree::find().unwrap().root).unwrap();
        let errors: Vec<String> =
            findings.iter().filter(|it| it.is_error()).map(Finding::to_string).collect();
        assert!(errors.is_empty(), "\n{}\n", errors.join("\n"));
    }

    #[test]
    fn modules_declared_for_tests_are_marked() {
        let mut files = [
            File::new("a/src/room/mod.rs", "#[cfg(test)]\nmod tests;\nmod part;\n"),
            File::new("a/src/room/part.rs", "#[cfg(test)]\nmod cases;\n"),
            File::new("a/src/room/part/cases.rs", ""),
            File::new("a/src/room/tests.rs", ""),
            File::new("a/src/room/tests/deep.rs", ""),
            File::new("a/src/tests.rs", ""),
        ];
        mark_tests(&mut files);
        let marked: Vec<bool> = files.iter().map(|file| file.is_test).collect();
        assert_eq!(marked, [false, false, true, true, true, false]);
    }

    #[test]
    fn findings_read_like_a_compilers() {
        let file = File::new("a/b.rs", "");
        let error = Finding::error(&file, 3, "too wide");
        assert_eq!(error.to_string(), "a/b.rs:3: error: too wide");
        let warning = Finding::warning(&file, 0, "long");
        assert_eq!(warning.to_string(), "a/b.rs: warning: long");
        assert!(error.is_error() && !warning.is_error());
    }
}

//! What is wrong with a configuration, and how it is told.
//!
//! Every check of the room ends here: a [`Finding`] has a stable id, a place in a file and a way
//! out, and a [`Report`] shows all of them at once. Pure: text in, text out; nothing is printed.

use std::ops::Range;
use std::path::{Path, PathBuf};

use annotate_snippets::{AnnotationKind, Group, Level, Renderer, Snippet};
use serde::Serialize;

pub use super::ids::Id;

/// Findings that are rendered; more are only counted, because nobody reads them.
const MAX_RENDERED: usize = 100;

/// One file of a configuration, as it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// Its path as shown to the operator.
    pub path: PathBuf,
    /// Its text.
    pub text: String,
}

/// A place in a configuration: bytes of one of its files.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct At {
    /// The index of the file in the report's sources.
    pub(super) file: usize,
    /// The first byte.
    pub(super) start: usize,
    /// The byte after the last one.
    pub(super) end: usize,
}

impl At {
    pub(super) const fn new(file: usize, span: &Range<usize>) -> Self {
        Self { file, start: span.start, end: span.end }
    }
}

/// How much a finding weighs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// The configuration is refused.
    Error,
    /// It is taken, but it may not do what was meant.
    Warning,
}

impl Severity {
    /// `error` or `warning`.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warning => "warning",
        }
    }
}

/// A place with a word about it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Mark {
    at: At,
    label: String,
}

/// One thing that is wrong or doubtful.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    id: Id,
    title: String,
    primary: Option<Mark>,
    secondary: Vec<Mark>,
    help: Vec<String>,
}

impl Finding {
    /// A finding that has no place in a file, such as a file that cannot be read.
    pub(super) fn general(id: Id, title: impl Into<String>) -> Self {
        Self { id, title: title.into(), primary: None, secondary: Vec::new(), help: Vec::new() }
    }

    /// A finding at `at`, with a word under the caret (may be empty).
    pub(super) fn new(id: Id, title: impl Into<String>, at: At, label: impl Into<String>) -> Self {
        let primary = Some(Mark { at, label: label.into() });
        Self { primary, ..Self::general(id, title) }
    }

    /// Adds a second place that explains the first.
    pub(super) fn beside(mut self, at: At, label: impl Into<String>) -> Self {
        self.secondary.push(Mark { at, label: label.into() });
        self
    }

    /// Adds a way out.
    pub(super) fn help(mut self, text: impl Into<String>) -> Self {
        self.help.push(text.into());
        self
    }

    /// Adds "did you mean" if one of `known` is close to `found`, else all of them.
    pub(super) fn suggest_or_list(self, found: &str, known: &[&str]) -> Self {
        match closest(found, known.iter().copied()) {
            Some(word) => self.help(format!("did you mean `{word}`?")),
            None => self.help(format!("known here: {}", known.join(", "))),
        }
    }

    /// Its id.
    #[must_use]
    pub const fn id(&self) -> Id {
        self.id
    }

    /// What is wrong, in one line.
    #[must_use]
    pub fn title(&self) -> &str {
        &self.title
    }

    /// The ways out; often one, sometimes none.
    #[must_use]
    pub fn helps(&self) -> &[String] {
        &self.help
    }
}

/// One finding as plain data.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct View<'r> {
    /// Its id, such as `unknown-pool`.
    pub id: &'static str,
    /// `error` or `warning`.
    pub severity: &'static str,
    /// What is wrong, in one line.
    pub title: &'r str,
    /// The file it is in, if it is in one.
    pub file: Option<&'r Path>,
    /// The line, from 1.
    pub line: Option<usize>,
    /// The column in characters, from 1.
    pub column: Option<usize>,
    /// The ways out.
    pub help: &'r [String],
}

/// All findings of one configuration, with the text they point into.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    sources: Vec<Source>,
    findings: Vec<Finding>,
}

impl Report {
    pub(super) fn new(sources: Vec<Source>, mut findings: Vec<Finding>) -> Self {
        // Errors first, then by place: the order in which they are best mended.
        findings.sort_by_key(|finding| {
            (finding.id.severity(), finding.primary.as_ref().map(|mark| mark.at), finding.id)
        });
        Self { sources, findings }
    }

    /// The findings: errors first, each kind in the order of the files.
    #[must_use]
    pub fn findings(&self) -> &[Finding] {
        &self.findings
    }

    /// True if the configuration is refused.
    #[must_use]
    pub fn has_errors(&self) -> bool {
        self.count(Severity::Error) > 0
    }

    /// True if nothing was found.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.findings.is_empty()
    }

    fn count(&self, severity: Severity) -> usize {
        self.findings.iter().filter(|finding| finding.id.severity() == severity).count()
    }

    /// Where a finding is: the file, and line and column from 1 (in characters).
    #[must_use]
    pub fn place(&self, finding: &Finding) -> Option<(&Source, usize, usize)> {
        let at = finding.primary.as_ref()?.at;
        let source = self.sources.get(at.file)?;
        let before = source.text.get(..at.start)?;
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        let line = before.matches('\n').count() + 1;
        let column = before.get(line_start..).map_or(0, |text| text.chars().count()) + 1;
        Some((source, line, column))
    }

    /// The findings as plain data, for `-o json`.
    #[must_use]
    pub fn views(&self) -> Vec<View<'_>> {
        let view = |finding| {
            let place = self.place(finding);
            View {
                id: finding.id.word(),
                severity: finding.id.severity().word(),
                title: &finding.title,
                file: place.map(|(source, ..)| source.path.as_path()),
                line: place.map(|(_, line, _)| line),
                column: place.map(|(.., column)| column),
                help: &finding.help,
            }
        };
        self.findings.iter().map(view).collect()
    }

    /// The findings as text for a person, one paragraph each; empty if there are none.
    ///
    /// `color` adds terminal colours. Only the first hundred findings are shown.
    #[must_use]
    pub fn render(&self, color: bool) -> String {
        let renderer = if color { Renderer::styled() } else { Renderer::plain() };
        let mut text = String::new();
        for finding in self.findings.iter().take(MAX_RENDERED) {
            text.push_str(&renderer.render(&[self.group(finding)]));
            text.push_str("\n\n");
        }
        if let Some(more) = self.findings.len().checked_sub(MAX_RENDERED).filter(|more| *more > 0) {
            text.push_str(&format!("and {more} more findings\n\n"));
        }
        if !self.findings.is_empty() {
            text.push_str(&self.summary());
            text.push('\n');
        }
        text
    }

    /// How many there are, such as `2 errors, 1 warning`.
    #[must_use]
    pub fn summary(&self) -> String {
        let count = |severity| match self.count(severity) {
            1 => format!("1 {}", severity.word()),
            count => format!("{count} {}s", severity.word()),
        };
        format!("{}, {}", count(Severity::Error), count(Severity::Warning))
    }

    fn group<'a>(&'a self, finding: &'a Finding) -> Group<'a> {
        let level = match finding.id.severity() {
            Severity::Error => Level::ERROR,
            Severity::Warning => Level::WARNING,
        };
        let title = level.primary_title(finding.title.as_str()).id(finding.id.word());
        let mut group = Group::with_title(title).elements(self.snippets(finding));
        for help in &finding.help {
            group = group.element(Level::HELP.message(help.as_str()));
        }
        group
    }

    /// One snippet per file that the finding points into, the primary place's file first.
    fn snippets<'a>(
        &'a self,
        finding: &'a Finding,
    ) -> Vec<Snippet<'a, annotate_snippets::Annotation<'a>>> {
        let marks: Vec<(AnnotationKind, &Mark)> = (finding.primary.iter())
            .map(|mark| (AnnotationKind::Primary, mark))
            .chain(finding.secondary.iter().map(|mark| (AnnotationKind::Context, mark)))
            .collect();
        let mut files: Vec<usize> = Vec::new();
        for (_, mark) in &marks {
            if !files.contains(&mark.at.file) {
                files.push(mark.at.file);
            }
        }
        let mut snippets = Vec::new();
        for file in files {
            let Some(source) = self.sources.get(file) else { continue };
            let here = marks.iter().filter(|(_, mark)| mark.at.file == file);
            let (window, line) = window(&source.text, here.clone().map(|(_, mark)| mark.at));
            let annotations = here.map(|(kind, mark)| {
                let span = mark.at.start - window.start..mark.at.end - window.start;
                let label = Some(mark.label.as_str()).filter(|label| !label.is_empty());
                kind.span(span).label(label)
            });
            let text = source.text.get(window.clone()).unwrap_or_default();
            let path = source.path.to_string_lossy();
            snippets
                .push(Snippet::source(text).path(path).line_start(line).annotations(annotations));
        }
        snippets
    }
}

/// The whole lines that hold all of `places`, and the number of the first. A renderer that is
/// given only these stays quick on a file of a hundred thousand lines.
fn window(text: &str, places: impl Iterator<Item = At> + Clone) -> (Range<usize>, usize) {
    let start = places.clone().map(|at| at.start).min().unwrap_or(0);
    let end = places.map(|at| at.end).max().unwrap_or(0);
    let before = text.get(..start).unwrap_or_default();
    let start = before.rfind('\n').map_or(0, |newline| newline + 1);
    let rest = text.get(end..).unwrap_or_default();
    let end = rest.find('\n').map_or(text.len(), |newline| end + newline);
    // The other half of a line end shows as a letter when it is the last one.
    let end = if text[..end].ends_with('\r') { end - 1 } else { end };
    (start..end, before.matches('\n').count() + 1)
}

/// The word of `known` that `found` was probably meant to be.
pub(crate) fn closest<'a>(
    found: &str,
    known: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    // A third of the letters may be wrong; beyond that a guess confuses more than it helps.
    let near = (found.chars().count() / 3).max(1);
    let folded = found.to_lowercase().replace('-', "_");
    (known.into_iter())
        .map(|word| (edits(&folded, &word.to_lowercase().replace('-', "_")), word))
        .filter(|(distance, _)| *distance <= near)
        .min()
        .map(|(_, word)| word)
}

/// The number of letters to insert, remove, replace or swap with their neighbour to get from one
/// text to the other (optimal string alignment).
fn edits(from: &str, to: &str) -> usize {
    let from: Vec<char> = from.chars().collect();
    let to: Vec<char> = to.chars().collect();
    let mut before: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=to.len()).collect();
    for (i, a) in from.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, b) in to.iter().enumerate() {
            let replaced = last[j] + usize::from(a != b);
            let mut best = replaced.min(last[j + 1] + 1).min(row[j] + 1);
            if i > 0 && j > 0 && *a == to[j - 1] && from[i - 1] == *b {
                best = best.min(before[j - 1] + 1);
            }
            row.push(best);
        }
        before = std::mem::replace(&mut last, row);
    }
    last[to.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_close_word_is_suggested() {
        let known = ["web", "dns", "tcp_half_open", "maglev_size"];
        let cases = [
            ("wbe", Some("web")),
            ("Web", Some("web")),
            ("maglevsize", Some("maglev_size")),
            ("tcp-half-open", Some("tcp_half_open")),
            ("mail", None),
            ("", None),
        ];
        for (found, expected) in cases {
            assert_eq!(closest(found, known), expected, "{found}");
        }
    }

    #[test]
    fn ids_are_words_and_differ() {
        let mut words: Vec<&str> = Id::ALL.iter().map(|id| id.word()).collect();
        assert!(words.iter().all(|w| w.chars().all(|c| c.is_ascii_lowercase() || c == '-')));
        words.sort_unstable();
        words.dedup();
        assert_eq!(words.len(), Id::ALL.len());
    }

    #[test]
    fn a_flood_of_findings_is_cut() {
        let finding = Finding::general(Id::Syntax, "no");
        let report = Report::new(Vec::new(), vec![finding; MAX_RENDERED + 7]);
        assert!(report.render(false).ends_with("and 7 more findings\n\n107 errors, 0 warnings\n"));
    }
}

//! What the acts have counted: as a table for people, as JSON for programs.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};
use serde::Serialize;

/// One act's counts.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Act {
    pub(super) name: String,
    /// Flows that were answered.
    pub(super) flows: u64,
    /// Flows that went on through another load balancer.
    pub(super) moved: u64,
    /// Flows that ended because their backend died.
    pub(super) ended_with_backend: u64,
    /// Flows that ended though their backend lived.
    pub(super) broken: u64,
}

/// All acts'.
#[derive(Debug, Clone, Default, Serialize)]
pub(super) struct Report {
    pub(super) acts: Vec<Act>,
    pub(super) broken_total: u64,
}

impl Report {
    pub(super) fn push(&mut self, act: Act) {
        self.broken_total += act.broken;
        self.acts.push(act);
    }

    pub(super) fn write(&self, path: &Path) -> Result<()> {
        let mut text = serde_json::to_string_pretty(self)?;
        text.push('\n');
        fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
    }
}

pub(super) fn heading() -> String {
    columns("", "act", "flows", "moved", "ended with backend", "broken", "")
}

pub(super) fn row(number: usize, act: &Act, comment: &str) -> String {
    let Act { name, flows, moved, ended_with_backend, broken } = act;
    let [number, flows, moved] = [number.to_string(), flows.to_string(), moved.to_string()];
    let [ended, broken] = [ended_with_backend.to_string(), broken.to_string()];
    columns(&number, name, &flows, &moved, &ended, &broken, comment)
}

pub(super) fn total(report: &Report) -> String {
    let sum = |of: fn(&Act) -> u64| report.acts.iter().map(of).sum::<u64>().to_string();
    let moved = sum(|act| act.moved);
    let ended = sum(|act| act.ended_with_backend);
    let broken = report.broken_total.to_string();
    columns("", "total", "", &moved, &ended, &broken, "")
}

fn columns(
    number: &str,
    name: &str,
    flows: &str,
    moved: &str,
    ended: &str,
    broken: &str,
    comment: &str,
) -> String {
    let line =
        format!("{number:>2}  {name:<32}{flows:>7}{moved:>8}{ended:>21}{broken:>9}   {comment}");
    line.trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::{Act, Report, heading, row, total};

    fn act(broken: u64) -> Act {
        Act { name: "calm".into(), flows: 700, moved: 0, ended_with_backend: 0, broken }
    }

    #[test]
    fn the_json_has_exactly_the_agreed_fields() {
        let mut report = Report::default();
        report.push(act(0));
        let text = serde_json::to_string(&report).unwrap();
        let expected = concat!(
            r#"{"acts":[{"name":"calm","flows":700,"moved":0,"ended_with_backend":0,"broken":0}],"#,
            r#""broken_total":0}"#
        );
        assert_eq!(text, expected);
    }

    #[test]
    fn the_total_is_the_sum_and_columns_line_up() {
        let mut report = Report::default();
        report.push(act(2));
        report.push(act(3));
        assert_eq!(report.broken_total, 5);
        let ends = |line: &str, word: &str| line.find(word).map(|at| at + word.len());
        let column = ends(&heading(), "broken");
        assert_eq!(ends(&total(&report), "5"), column);
        assert_eq!(row(1, &act(7), "a comment").rfind('7').map(|at| at + 1), column);
    }
}

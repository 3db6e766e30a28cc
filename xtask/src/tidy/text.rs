//! Rules about a file's shape: size, width, header, words that mark unfinished work.

use super::source::{code, without_tests};
use super::{File, Finding};

/// A file of more lines should be split.
const LINES_WARN: usize = 600;
/// A file of more lines must be split.
const LINES_FAIL: usize = 800;
/// Columns of a line.
const COLUMNS: usize = 100;

/// What no source contains, and why. Put together from halves, so that this file may exist.
const WORDS: [(&str, &str); 6] = [
    (concat!("TO", "DO"), "finish it or leave it out"),
    (concat!("FIX", "ME"), "mend it or leave it out"),
    (concat!("to", "do!("), "finish it or leave it out"),
    (concat!("unimpl", "emented!("), "finish it or leave it out"),
    (concat!("#[ig", "nore"), "a test that cannot run here says so and returns"),
    (concat!("#[should_", "panic"), "assert on the error instead"),
];

/// What only the outermost crates may do: kept in rooms that are small and read often.
const UNSAFE_ROOMS: [&str; 6] = [
    "lb-common/src/",
    "lb-ebpf/src/",
    "lb-userspace/src/dataplane/",
    "lb-userspace/src/host/",
    "lb-userspace/src/agent/",
    "tests/",
];

pub(super) fn check(file: &File) -> Vec<Finding> {
    let mut findings = Vec::new();
    if !file.is_rust() && !file.has_extension("sh") && !file.has_extension("toml") {
        return whitespace(file);
    }
    findings.extend(size(file));
    findings.extend(words(file));
    findings.extend(whitespace(file));
    if file.is_rust() {
        findings.extend(header(file));
        findings.extend(width(file));
        findings.extend(unsafe_rooms(file));
    }
    findings
}

fn size(file: &File) -> Option<Finding> {
    let lines = file.text.lines().count();
    if lines > LINES_FAIL {
        Some(Finding::error(file, 0, format!("{lines} lines, more than {LINES_FAIL}")))
    } else if lines > LINES_WARN {
        Some(Finding::warning(file, 0, format!("{lines} lines; split it above {LINES_WARN}")))
    } else {
        None
    }
}

fn width(file: &File) -> Vec<Finding> {
    let columns = file.lines().map(|(number, line)| (number, line.chars().count()));
    let wide = columns.filter(|(_, columns)| *columns > COLUMNS);
    wide.map(|(number, columns)| {
        Finding::error(file, number, format!("{columns} columns, more than {COLUMNS}"))
    })
    .collect()
}

fn words(file: &File) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (number, line) in file.lines() {
        for (word, why) in WORDS {
            if line.contains(word) {
                findings.push(Finding::error(file, number, format!("`{word}`: {why}")));
            }
        }
    }
    findings
}

fn whitespace(file: &File) -> Vec<Finding> {
    let bad = file.lines().filter(|(_, line)| line.ends_with([' ', '\t', '\r']));
    bad.map(|(number, _)| Finding::error(file, number, "white space at the end of the line"))
        .collect()
}

fn header(file: &File) -> Option<Finding> {
    let first = file.text.lines().next().unwrap_or("");
    let good = first.starts_with("//! ") && first.len() > "//! ".len();
    (!good).then(|| {
        let message = "starts without `//!`: say what it is, where it stands, what it must not do";
        Finding::error(file, 1, message)
    })
}

fn unsafe_rooms(file: &File) -> Vec<Finding> {
    if file.is_test || UNSAFE_ROOMS.iter().any(|room| file.path.starts_with(room)) {
        return Vec::new();
    }
    let code = code(&file.text);
    let words = |line: &str| -> bool {
        line.split(|c: char| !c.is_alphanumeric() && c != '_').any(|word| word == "unsafe")
    };
    let bad = without_tests(&code).lines().enumerate().filter(|(_, line)| words(line));
    bad.map(|(index, _)| {
        let message = format!("unsafe code outside {}", UNSAFE_ROOMS.join(", "));
        Finding::error(file, index + 1, message)
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn findings(path: &str, text: &str) -> Vec<String> {
        check(&File::new(path, text)).iter().map(Finding::to_string).collect()
    }

    fn rust(body: &str) -> Vec<String> {
        findings("lb-userspace/src/a.rs", &format!("//! A room.\n{body}\n"))
    }

    #[test]
    fn a_file_is_at_most_800_lines_long() {
        let of = |lines: usize| findings("a.sh", &"x\n".repeat(lines));
        assert!(of(600).is_empty());
        assert_eq!(of(601), ["a.sh: warning: 601 lines; split it above 600"]);
        assert_eq!(of(800).len(), 1);
        assert_eq!(of(801), ["a.sh: error: 801 lines, more than 800"]);
    }

    #[test]
    fn a_line_is_at_most_100_columns_wide() {
        assert!(rust(&"\u{e9}".repeat(100)).is_empty(), "columns, not bytes");
        let wide = rust(&"x".repeat(101));
        assert_eq!(wide, ["lb-userspace/src/a.rs:2: error: 101 columns, more than 100"]);
        assert!(findings("README.md", &format!("{}\n", "x".repeat(200))).is_empty());
    }

    #[test]
    fn unfinished_work_is_named() {
        for (word, _) in WORDS {
            let found = rust(&format!("fn a() {{}} // {word}"));
            assert_eq!(found.len(), 1, "{word}: {found:?}");
            assert!(found[0].contains(":2: error: `"), "{found:?}");
        }
        assert!(rust("fn todo() {} // a methodology, ignored").is_empty());
    }

    #[test]
    fn every_room_has_a_header() {
        assert!(findings("a.rs", "//! What it is.\n").is_empty());
        for text in ["fn a() {}\n", "\n//! Late.\n", "//!\n", "// No doc.\n", ""] {
            assert_eq!(findings("a.rs", text).len(), 1, "{text:?}");
        }
        assert!(findings("a.toml", "[package]\n").is_empty());
    }

    #[test]
    fn white_space_at_the_end_is_an_error_in_prose_too() {
        assert_eq!(findings("README.md", "a \n").len(), 1);
        assert_eq!(findings("README.md", "a\r\nb\n"), Vec::<String>::new(), "lines() eats it");
        assert!(findings("README.md", "a\n\nb\n").is_empty());
    }

    #[test]
    fn unsafe_stays_in_its_rooms() {
        let text = "//! A room.\nfn a() { unsafe { b() } }\n";
        assert_eq!(findings("lb-userspace/src/plan.rs", text).len(), 1);
        assert!(findings("lb-userspace/src/dataplane/flows.rs", text).is_empty());
        assert!(
            rust("// unsafe in a comment\nconst A: &str = \"unsafe\"; fn unsafe_room() {}")
                .is_empty()
        );
    }
}

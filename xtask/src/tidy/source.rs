//! Enough of Rust's grammar to read the paths that a file names: comments, strings, `use` trees.
//!
//! Not a parser: what it cannot see (macros that build paths) it does not report.

/// The text with comments and the contents of string literals blanked; lines stay where they were.
pub(super) fn code(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    let mut previous = ' ';
    while let Some(first) = rest.chars().next() {
        let length = match first {
            '/' if rest.starts_with("//") => rest.find('\n').unwrap_or(rest.len()),
            '/' if rest.starts_with("/*") => block_comment(rest),
            '"' => string(rest),
            'r' if !is_word(previous) => raw_string(rest).unwrap_or(0),
            '\'' => character(rest).unwrap_or(0),
            _ => 0,
        };
        if length == 0 {
            out.push(first);
            previous = first;
            rest = rest.get(first.len_utf8()..).unwrap_or("");
        } else {
            let (blank, after) = rest.split_at(length);
            out.extend(blank.chars().map(|c| if c == '\n' { c } else { ' ' }));
            previous = ' ';
            rest = after;
        }
    }
    out
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// The length of a block comment; they nest.
fn block_comment(text: &str) -> usize {
    let mut depth = 0_usize;
    let bytes = text.as_bytes();
    let mut at = 0;
    while let Some(pair) = bytes.get(at..at + 2) {
        match pair {
            b"/*" => (depth, at) = (depth + 1, at + 2),
            b"*/" => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
        if depth == 0 {
            return at;
        }
    }
    text.len()
}

/// The length of a string literal, quotes included.
fn string(text: &str) -> usize {
    let mut escaped = false;
    for (at, byte) in text.bytes().enumerate().skip(1) {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => return at + 1,
            _ => {}
        }
    }
    text.len()
}

/// The length of `r"..."` or `r#"..."#`.
fn raw_string(text: &str) -> Option<usize> {
    let after = text.strip_prefix('r')?;
    let hashes = after.bytes().take_while(|byte| *byte == b'#').count();
    let body = after.get(hashes..)?.strip_prefix('"')?;
    let end = format!("\"{}", "#".repeat(hashes));
    let begin = 1 + hashes + 1;
    Some(body.find(&end).map_or(text.len(), |at| begin + at + end.len()))
}

/// The length of a character literal; a lifetime is none.
fn character(text: &str) -> Option<usize> {
    let mut chars = text.char_indices().skip(1);
    let (_, first) = chars.next()?;
    if first == '\\' {
        return chars.skip(1).find(|(_, c)| *c == '\'').map(|(at, _)| at + 1);
    }
    let (at, quote) = chars.next()?;
    (quote == '\'').then_some(at + 1)
}

/// The part of blanked code before its unit tests, which may do what their room may not.
pub(super) fn without_tests(code: &str) -> &str {
    let mut from = 0;
    while let Some(found) = code.get(from..).and_then(|rest| rest.find("#[cfg(test)]")) {
        let at = from + found;
        let after = at + "#[cfg(test)]".len();
        let next = code.get(after..).unwrap_or("").trim_start();
        if next.starts_with("mod ") {
            return code.split_at(at).0;
        }
        from = after;
    }
    code
}

/// The names declared as `#[cfg(test)] mod name;`.
pub(super) fn test_modules(text: &str) -> Vec<String> {
    let code = code(text);
    let after = code.split("#[cfg(test)]").skip(1);
    let declared = after.filter_map(|it| it.trim_start().strip_prefix("mod ")?.split_once(';'));
    // A block would have braces before the next semicolon.
    let names = declared.map(|(name, _)| name.trim().to_owned());
    names.filter(|name| name.chars().all(is_word)).collect()
}

/// A path that blanked code names, as its segments, and its line, counted from 1.
#[derive(PartialEq, Eq, Debug)]
pub(super) struct Named {
    pub(super) segments: Vec<String>,
    pub(super) line: usize,
}

/// Every path of two or more segments, and every path that a `use` brings in.
pub(super) fn paths(code: &str) -> Vec<Named> {
    let mut reader = Reader { tokens: tokens(code), at: 0, paths: Vec::new() };
    while let Some(token) = reader.peek() {
        match token {
            "use" => {
                reader.at += 1;
                reader.tree(&[]);
            }
            word if word.starts_with(is_word) => reader.inline(),
            _ => reader.at += 1,
        }
    }
    reader.paths
}

/// Words, `::`, and single signs, each with its line.
fn tokens(code: &str) -> Vec<(&str, usize)> {
    let mut tokens = Vec::new();
    for (index, line) in code.lines().enumerate() {
        let mut rest = line.trim_start();
        while let Some(first) = rest.chars().next() {
            let length = if is_word(first) {
                rest.find(|c| !is_word(c)).unwrap_or(rest.len())
            } else if rest.starts_with("::") {
                2
            } else {
                first.len_utf8()
            };
            let (token, after) = rest.split_at(length);
            tokens.push((token, index + 1));
            rest = after.trim_start();
        }
    }
    tokens
}

struct Reader<'a> {
    tokens: Vec<(&'a str, usize)>,
    at: usize,
    paths: Vec<Named>,
}

impl<'a> Reader<'a> {
    fn peek(&self) -> Option<&'a str> {
        self.tokens.get(self.at).map(|(token, _)| *token)
    }

    fn line(&self) -> usize {
        self.tokens.get(self.at).map_or(0, |(_, line)| *line)
    }

    /// A path in the code: `a::b::c`. A single word is no path.
    fn inline(&mut self) {
        let line = self.line();
        let mut segments = Vec::new();
        while let Some(word) = self.peek().filter(|token| token.starts_with(is_word)) {
            segments.push(word.to_owned());
            self.at += 1;
            if self.peek() != Some("::") {
                break;
            }
            self.at += 1;
        }
        if segments.len() > 1 {
            self.paths.push(Named { segments, line });
        }
    }

    /// A `use` tree below a prefix, up to the `,`, `}` or `;` that ends it.
    fn tree(&mut self, prefix: &[String]) {
        let line = self.line();
        let mut segments = prefix.to_vec();
        while let Some(token) = self.peek() {
            match token {
                "," | "}" | ";" => break,
                "{" => {
                    self.at += 1;
                    self.branches(&segments);
                    return;
                }
                "as" => self.at += 2,
                word => {
                    if word.starts_with(is_word) {
                        segments.push(word.to_owned());
                    }
                    self.at += 1;
                }
            }
        }
        if segments.last().is_some_and(|last| last == "self") {
            segments.pop();
        }
        self.paths.push(Named { segments, line });
    }

    /// The trees between braces, and the closing brace.
    fn branches(&mut self, prefix: &[String]) {
        while let Some(token) = self.peek() {
            match token {
                "}" => {
                    self.at += 1;
                    return;
                }
                "," => self.at += 1,
                ";" => return,
                _ => self.tree(prefix),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(text: &str) -> Vec<String> {
        paths(&code(text)).iter().map(|path| path.segments.join("::")).collect()
    }

    #[test]
    fn comments_and_strings_are_blanked() {
        let cases = [
            ("a // b\nc", "a     \nc"),
            ("a /* b /* c */ d */ e", "a                   e"),
            ("f(\"a \\\" b\") g", "f(        ) g"),
            ("f(r#\"a \" b\"#) g", "f(          ) g"),
            ("for x in 'a'..='\\'' {}", "for x in    ..=     {}"),
            ("fn a<'b>(c: &'b str) {}", "fn a<'b>(c: &'b str) {}"),
            ("\"a\nb\"", "  \n  "),
            ("var\"a\"", "var   "),
        ];
        for (text, blanked) in cases {
            assert_eq!(code(text), blanked, "{text}");
        }
    }

    #[test]
    fn paths_are_found_in_use_trees_and_in_code() {
        let cases: [(&str, &[&str]); 7] = [
            ("use tokio::net::TcpStream;", &["tokio::net::TcpStream"]),
            (
                "use crate::{plan, health::{self, probe::Probe as P}};",
                &["crate::plan", "crate::health", "crate::health::probe::Probe"],
            ),
            ("use std::fs::*; let a = b;", &["std::fs"]),
            (
                "fn a() -> std::io::Result<()> { tokio::spawn(b) }",
                &["std::io::Result", "tokio::spawn"],
            ),
            ("// use tokio::net;\nlet a = \"std::fs::read\";", &[]),
            ("pub(crate) use anyhow;", &["anyhow"]),
            ("use ::aya::Ebpf;", &["aya::Ebpf"]),
        ];
        for (text, expected) in cases {
            assert_eq!(named(text), expected, "{text}");
        }
    }

    #[test]
    fn lines_are_those_of_the_file() {
        let found = paths(&code("// one\nuse a::{\n    b,\n    c,\n};\n"));
        assert_eq!(found.iter().map(|path| path.line).collect::<Vec<_>>(), [3, 4]);
    }

    #[test]
    fn modules_of_tests_are_found() {
        let text = "mod a;\n#[cfg(test)]\nmod b;\n#[cfg(test)]\nmod c { d; }\n\
            // #[cfg(test)] mod e;";
        assert_eq!(test_modules(text), ["b"]);
    }

    #[test]
    fn unit_tests_are_left_out() {
        assert_eq!(without_tests("a\n#[cfg(test)]\nmod tests { b }\n"), "a\n");
        let text = "#[cfg(test)]\nuse b;\nc\n";
        assert_eq!(without_tests(text), text);
        assert_eq!(
            without_tests("#[cfg(test)]\nuse b;\n#[cfg(test)]\nmod t;"),
            "#[cfg(test)]\nuse b;\n"
        );
    }
}

//! The configuration's reference, rendered from the schema: for `docs/config.md` and for
//! `lbctl config show --defaults`.
//!
//! Pure text. It says nothing that the reader does not obey, because both read the same tables.

use std::fmt::Write as _;

use super::diagnostic::{Id, Severity};
use super::schema::{Kind, Need, SECTIONS, Section};
use super::values::{grouped, literal};
use crate::desired::format_duration;
use crate::primes;

/// The complete, commented example that is installed as `/etc/lb/lb.toml`.
#[must_use]
pub const fn example() -> &'static str {
    include_str!("../../dist/lb.toml")
}

/// Every key with its default, as a file that could be filled in: keys that have no default are
/// comments.
#[must_use]
pub fn defaults() -> String {
    let mut text = String::from("# Every key and its default. A key behind `#` has none.\n");
    for section in SECTIONS {
        let inline = section.header.contains("{ .. }");
        let header = match section.header {
            "" => String::new(),
            header if inline => format!("# {header}"),
            header => header.to_owned(),
        };
        // Pools, VIPs and checks have names of their own and exist only if they are written.
        let commented = inline || header.contains("[[") || header.contains("NAME");
        let header = if commented && !inline { format!("# {header}") } else { header };
        let _ = write!(text, "\n{header}\n");
        for key in section.keys {
            let line = match key.need {
                Need::Default(value) if !commented => format!("{} = {value}", key.name),
                Need::Default(value) => format!("# {} = {value}", key.name),
                Need::Required if key.name == "version" => "version = 1".to_owned(),
                Need::Required => format!("# {} =", key.name),
                Need::Optional(absent) => format!("# {} =   # not set: {absent}", key.name),
            };
            let _ = writeln!(text, "{line}");
        }
    }
    text
}

/// The reference as Markdown.
#[must_use]
pub fn markdown() -> String {
    let mut text = String::from(
        "# Configuration\n\n\
         lbd reads one TOML file, `/etc/lb/lb.toml` by default, and after it `lb.toml.d/*.toml` \
         beside it, by name, which may hold `[[pool]]` and `[[vip]]` only. A configuration is \
         taken whole or refused whole: `lbctl config check FILE` shows every finding at once. \
         Unknown keys are errors. Durations are a whole number with a unit: `ms`, `s`, `m`, \
         `h`. A complete example is [lb.toml](../lb-userspace/dist/lb.toml).\n\n\
         This page is rendered from the tables the reader itself uses, and a test compares \
         them.\n",
    );
    for section in SECTIONS {
        render_section(&mut text, section);
    }
    text.push_str("\n## Table sizes\n\n`maglev_size` is one of these primes: ");
    text.push_str(&primes::PRIMES.map(grouped).join(" · "));
    text.push_str(
        ".\n\nA share of the table is a whole number of slots, so a backend gets what its \
         weight says to within one slot. `maglev-too-small` warns when the smallest share is \
         below 100 slots, where one slot is more than 1 %, and names the size to choose.\n",
    );
    for (severity, title) in [(Severity::Error, "Errors"), (Severity::Warning, "Warnings")] {
        let _ = write!(text, "\n## {title}\n\n| id | meaning |\n| --- | --- |\n");
        for id in Id::ALL.iter().filter(|id| id.severity() == severity) {
            let _ = writeln!(text, "| `{}` | {} |", id.word(), id.meaning());
        }
    }
    text
}

fn render_section(text: &mut String, section: &Section) {
    let title = match section.header {
        "" => "Top of the file".to_owned(),
        header => format!("`{header}`"),
    };
    let _ = write!(text, "\n## {title}\n\n{}\n\n", section.doc);
    text.push_str("| key | value | default | meaning |\n| --- | --- | --- | --- |\n");
    for key in section.keys {
        let default = match key.need {
            Need::Required => "required".to_owned(),
            Need::Optional(absent) => absent.to_owned(),
            Need::Default(value) => format!("`{value}`"),
        };
        let kind = describe(key.kind);
        let _ = writeln!(text, "| `{}` | {kind} | {default} | {} |", key.name, key.doc);
    }
}

fn describe(kind: Kind) -> String {
    let millis = |ms| format_duration(std::time::Duration::from_millis(ms));
    match kind {
        Kind::Text => "text".to_owned(),
        Kind::Name => "name: letters, digits, `.`, `_`, `-`".to_owned(),
        Kind::Integer { min, max } if min == max => format!("{min}"),
        Kind::Integer { min, max } => format!("{} to {}", literal(min), literal(max)),
        Kind::Duration { min_ms, max_ms } => {
            format!("duration, {} to {}", millis(min_ms), millis(max_ms))
        }
        Kind::Word(words) => {
            words.iter().map(|word| format!("`\"{word}\"`")).collect::<Vec<_>>().join(", ")
        }
        Kind::Address => "IPv4 or IPv6 address".to_owned(),
        Kind::Address4 => "IPv4 address".to_owned(),
        Kind::Address6 => "IPv6 address".to_owned(),
        Kind::Prefix4 { min, max } => format!("IPv4 prefix, /{min} to /{max}"),
        Kind::Prefix6 { min, max } => format!("IPv6 prefix, /{min} to /{max}"),
        Kind::Socket => "address and port".to_owned(),
        Kind::Path => "absolute path".to_owned(),
        Kind::Interfaces => "list of interface names".to_owned(),
        Kind::Ports => "list of ports, or `\"any\"`".to_owned(),
        Kind::Tables(section) | Kind::Table(section) => format!("see `{}`", section.header),
    }
}

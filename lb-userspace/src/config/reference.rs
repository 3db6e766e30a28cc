//! The configuration's reference, rendered from the schema: for `docs/config.md` and for
//! `lbctl config show --defaults`.
//!
//! Pure text. It says nothing that the reader does not obey, because both read the same tables.

use super::diagnostic::{Id, Severity};
use super::schema::{Need, SECTIONS, Section};
use super::values::grouped;
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
    let mut text = String::from(
        "# Every key and its default. Behind `#` is what has none, and what exists only if it is\n\
         # written: checks, pools, VIPs and BGP.\n",
    );
    for section in SECTIONS {
        if section.keys.is_empty() {
            continue;
        }
        let inline = section.header.contains("{ .. }") || !section.header.contains('[');
        let header = match section.header {
            "" => String::new(),
            header if inline => format!("# {header}"),
            header => header.to_owned(),
        };
        // Pools, VIPs and checks have names of their own and exist only if they are written.
        let commented = inline
            || header.contains("[[")
            || header.contains("NAME")
            || header.starts_with("[bgp");
        let header = if commented && !inline { format!("# {header}") } else { header };
        text.push_str(&format!("\n{header}\n"));
        for key in section.keys {
            let line = match key.need {
                Need::Default(value) if !commented => format!("{} = {value}", key.name),
                Need::Default(value) => format!("# {} = {value}", key.name),
                Need::Required if key.name == "version" => "version = 1".to_owned(),
                Need::Required => format!("# {} =", key.name),
                Need::Optional(absent) => format!("# {} =   # not set: {absent}", key.name),
            };
            text.push_str(&format!("{line}\n"));
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
         `h`. Names have 1 to 63 letters, digits, `.`, `_` and `-`. A complete \
         example is [lb.toml](../lb-userspace/dist/lb.toml).\n\n\
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
         weight says to within one slot. `maglev-too-small` warns when that leaves a share more \
         than 1 % off, and names the smallest size at which none is.\n",
    );
    for (severity, title) in [(Severity::Error, "Errors"), (Severity::Warning, "Warnings")] {
        text.push_str(&format!("\n## {title}\n\n| id | meaning |\n| --- | --- |\n"));
        for id in Id::ALL.iter().filter(|id| id.severity() == severity) {
            text.push_str(&format!("| `{}` | {} |\n", id.word(), id.meaning()));
        }
    }
    text
}

fn render_section(text: &mut String, section: &Section) {
    let title = match section.header {
        "" => "Top of the file".to_owned(),
        header if header.contains('[') => format!("`{header}`"),
        header => header.to_owned(),
    };
    text.push_str(&format!("\n## {title}\n\n{}\n", section.doc));
    if !section.shared.is_empty() {
        text.push_str("\nIt may also have [attributes](#attributes).\n");
    }
    if section.keys.is_empty() {
        return;
    }
    text.push('\n');
    text.push_str("| key | value | default | meaning |\n| --- | --- | --- | --- |\n");
    for key in section.keys {
        let default = match key.need {
            Need::Required => "required".to_owned(),
            Need::Optional(absent) => absent.to_owned(),
            Need::Default(value) => format!("`{value}`"),
        };
        let kind = key.kind.describe();
        text.push_str(&format!("| `{}` | {kind} | {default} | {} |\n", key.name, key.doc));
    }
}

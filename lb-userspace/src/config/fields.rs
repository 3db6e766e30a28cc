//! One table of the file while it is read: keys, defaults and what is wrong with them.
//!
//! The tool that `raw` reads with. It knows the schema's tables and makes findings, but it knows
//! no key by name except those at the top of the file.

use std::sync::LazyLock;

use toml::de::{DeTable, DeValue};

use super::diagnostic::{At, Finding, Id};
use super::schema::{Key, Need, SECTIONS, Section};
use super::values::Wrong;

/// A value and its place.
#[derive(Clone, Debug)]
pub(super) struct Item<T> {
    pub(super) value: T,
    /// Where it is written, or the header of its table if it is the default.
    pub(super) at: At,
    /// False for a default.
    pub(super) given: bool,
}

/// A field that may be missing, or wrong and reported.
pub(super) type Field<T> = Option<Item<T>>;

/// The names of the tables at the top of the file.
const TOP_LEVEL: [&str; 10] =
    ["api", "bgp", "dataplane", "defaults", "health", "log", "metrics", "node", "pool", "vip"];

/// One table while it is read.
pub(super) struct Fields<'f, 't> {
    pub(super) section: &'static Section,
    pub(super) table: &'t DeTable<'t>,
    /// Its header, for what is missing in it.
    pub(super) at: At,
    /// What it is called in a finding, such as "pool `web`"; nothing at the top of the file.
    pub(super) what: String,
    pub(super) findings: &'f mut Vec<Finding>,
}

impl<'t> Fields<'_, 't> {
    pub(super) fn at(&self, span: std::ops::Range<usize>) -> At {
        At::new(self.at.file, &span)
    }

    /// How a key of this table is called in a finding.
    fn called(&self, name: &str) -> String {
        match self.what.as_str() {
            "" => format!("`{name}`"),
            what => format!("`{name}` of {what}"),
        }
    }

    /// Reports what is wrong with the value of a key.
    pub(super) fn wrong(&mut self, name: &str, at: At, wrong: Wrong) {
        let called = self.called(name);
        self.wrong_about(&called, at, wrong);
    }

    /// Reports what is wrong with something.
    pub(super) fn wrong_about(&mut self, subject: &str, at: At, wrong: Wrong) {
        let title = format!("{subject} {}", wrong.title);
        let finding = Finding::new(wrong.id, title, at, wrong.label);
        self.findings.push(match wrong.help {
            Some(help) => finding.help(help),
            None => finding,
        });
    }

    /// The value of a key, else its default. A wrong value is reported and the default stands in,
    /// so that one mistake makes one finding.
    pub(super) fn get<T>(
        &mut self,
        name: &'static str,
        convert: impl Fn(&DeValue<'_>, &Key) -> Result<T, Wrong>,
    ) -> Field<T> {
        let key = self.section.key(name)?;
        match self.table.get(name) {
            Some(value) => {
                let at = self.at(value.span());
                match convert(value.get_ref(), key) {
                    Ok(value) => return Some(Item { value, at, given: true }),
                    Err(wrong) => self.wrong(name, at, wrong),
                }
            }
            None if matches!(key.need, Need::Required) => self.missing(key),
            None => {}
        }
        let Need::Default(literal) = key.need else { return None };
        let value = DeValue::parse(literal).ok()?;
        let value = convert(value.get_ref(), key).ok()?;
        Some(Item { value, at: self.at, given: false })
    }

    /// The value of a key that takes more than one conversion; a missing one is reported if it
    /// must be there.
    pub(super) fn value(&mut self, name: &'static str) -> Option<(&'t DeValue<'t>, At)> {
        if let Some(value) = self.table.get(name) {
            return Some((value.get_ref(), self.at(value.span())));
        }
        let key = self.section.key(name)?;
        if matches!(key.need, Need::Required) {
            self.missing(key);
        }
        None
    }

    /// The entries of a list, without those that are wrong; `None` if it is not written.
    pub(super) fn list<T>(
        &mut self,
        name: &'static str,
        convert: impl Fn(&DeValue<'_>, &Key) -> Result<T, Wrong>,
    ) -> Option<Vec<Item<T>>> {
        let (value, at) = self.value(name)?;
        let key = self.section.key(name)?;
        let Some(list) = value.as_array() else {
            let expected = format!("a {}", key.kind.describe());
            self.wrong(name, at, Wrong::wrong_type(&expected, value));
            return None;
        };
        let mut items = Vec::new();
        for value in list {
            let at = self.at(value.span());
            match convert(value.get_ref(), key) {
                Ok(value) => items.push(Item { value, at, given: true }),
                Err(wrong) => {
                    let subject = format!("an entry of {}", self.called(name));
                    self.wrong_about(&subject, at, wrong);
                }
            }
        }
        Some(items)
    }

    fn missing(&mut self, key: &Key) {
        let title = format!("{} is not set", self.called(key.name));
        let finding = Finding::new(Id::MissingKey, title, self.at, "");
        let help = format!("{} ({})", key.doc.trim_end_matches('.'), key.kind.describe());
        self.findings.push(finding.help(help));
    }

    /// Reports keys that the section does not have.
    fn known_keys(&mut self) {
        let known: Vec<&str> = self.section.every_key().map(|key| key.name).collect();
        for key in self.table.keys() {
            let name = key.get_ref().as_ref();
            if !known.contains(&name) {
                let title = format!("{} has no key `{name}`", self.what);
                let finding = Finding::new(Id::UnknownKey, title, self.at(key.span()), "");
                let finding = finding.suggest_or_list(name, &known);
                self.findings.push(match only_section_with(name) {
                    Some(section) => finding.help(format!("`{name}` is a key of `{section}`")),
                    None => finding,
                });
            }
        }
    }

    /// Reports what must not stand at the top of the file.
    pub(super) fn top_level(&mut self, fragment: bool) {
        for key in self.table.keys() {
            let name = key.get_ref().as_ref();
            let at = self.at(key.span());
            if !TOP_LEVEL.contains(&name) && name != "version" {
                let title = format!("there is no table or key `{name}`");
                let finding = Finding::new(Id::UnknownKey, title, at, "");
                self.findings.push(finding.suggest_or_list(name, &TOP_LEVEL));
            } else if fragment && !matches!(name, "pool" | "vip") {
                let title = format!("`{name}` belongs into the main file");
                let finding = Finding::new(Id::NotInFragment, title, at, "");
                self.findings.push(finding.help("here only `[[pool]]` and `[[vip]]` may stand"));
            }
        }
    }

    pub(super) fn version(&mut self) {
        let Some(value) = self.table.get("version") else {
            let title = "`version` is not set";
            let finding = Finding::new(Id::MissingKey, title, self.at, "");
            return self.findings.push(finding.help("begin the file with `version = 1`"));
        };
        let number = value.get_ref().as_integer();
        if number.is_none_or(|number| number.as_str() != "1") {
            let title = "this version of the format is not known";
            let at = self.at(value.span());
            self.findings.push(Finding::new(Id::UnsupportedVersion, title, at, "must be 1"));
        }
    }

    /// A reader for a table inside this one.
    pub(super) fn child<'s>(
        &'s mut self,
        section: &'static Section,
        table: &'t DeTable<'t>,
        at: At,
        what: String,
    ) -> Fields<'s, 't> {
        let mut fields = Fields { section, table, at, what, findings: self.findings };
        fields.known_keys();
        fields
    }

    /// The table of that name; `None` if there is none, or after a finding if it is no table.
    pub(super) fn table(&mut self, name: &'static str) -> Option<(&'t DeTable<'t>, At)> {
        let value = self.table.get(name)?;
        let at = self.at(value.span());
        let table = value.get_ref().as_table();
        if table.is_none() {
            self.wrong(name, at, Wrong::wrong_type("a table", value.get_ref()));
        }
        table.map(|table| (table, at))
    }

    /// A reader for a table at the top that must be there.
    pub(super) fn required(
        &mut self,
        name: &'static str,
        section: &'static Section,
    ) -> Option<Fields<'_, 't>> {
        if !self.table.contains_key(name) {
            let title = format!("the table `[{name}]` is missing");
            let required = section.keys.iter().filter(|key| matches!(key.need, Need::Required));
            let required = required.map(|key| format!("`{}`", key.name)).collect::<Vec<_>>();
            let help = format!("it must at least set {}", required.join(" and "));
            self.findings.push(Finding::new(Id::MissingKey, title, self.at, "").help(help));
        }
        let (table, at) = self.table(name)?;
        Some(self.child(section, table, at, format!("`[{name}]`")))
    }

    /// A reader for a table at the top; one that is not there has every default.
    pub(super) fn optional(
        &mut self,
        name: &'static str,
        section: &'static Section,
    ) -> Option<Fields<'_, 't>> {
        let (table, at) = match self.table.contains_key(name) {
            true => self.table(name)?,
            false => (empty(), self.at),
        };
        Some(self.child(section, table, at, format!("`[{name}]`")))
    }

    /// Reads each table of a list of tables. False if some could not be read.
    pub(super) fn tables(
        &mut self,
        name: &'static str,
        section: &'static Section,
        mut read: impl FnMut(Fields<'_, 't>),
    ) -> bool {
        let Some(value) = self.table.get(name) else { return true };
        let Some(list) = value.get_ref().as_array() else {
            let at = self.at(value.span());
            self.wrong(name, at, Wrong::wrong_type("a list of tables", value.get_ref()));
            return false;
        };
        let mut whole = true;
        for value in list {
            let at = self.at(value.span());
            let Some(table) = value.get_ref().as_table() else {
                self.wrong(name, at, Wrong::wrong_type("a list of tables", value.get_ref()));
                whole = false;
                continue;
            };
            let (thing, key) = match name {
                "backends" => ("backend", "name"),
                "vip" => ("VIP", "name"),
                "shedding" => ("level of shedding", "name"),
                "prefix" => ("prefix", "prefix"),
                other => (other, "name"),
            };
            let called = table.get(key).and_then(|value| value.get_ref().as_str());
            let what = match called {
                Some(called) => format!("{thing} `{called}`"),
                None => format!("this {thing}"),
            };
            read(self.child(section, table, at, what));
        }
        whole
    }
}

/// The one section that has a key of this name; `None` if there is none, or more than one.
fn only_section_with(name: &str) -> Option<&'static str> {
    let mut sections = SECTIONS.iter().filter(|section| section.key(name).is_some());
    let first = sections.next()?;
    sections.next().is_none().then_some(first.header)
}

/// A table without keys, for sections that are not in the file.
pub(super) fn empty() -> &'static DeTable<'static> {
    static EMPTY: LazyLock<DeTable<'static>> = LazyLock::new(DeTable::new);
    &EMPTY
}

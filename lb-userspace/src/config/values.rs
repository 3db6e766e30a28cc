//! From TOML values to typed ones, one function for each kind of key.
//!
//! The leaves of the reader: they know what a key may hold ([`Key`]) and say what is wrong with a
//! value, but neither where it stands nor what the others are.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use toml::de::DeValue;

use super::diagnostic::{Id, closest};
use super::schema::{Key, Kind};
use crate::desired::{Prefix4, Prefix6, format_duration, limits, parse_duration};
use crate::primes;

/// What is wrong with a value: completes the sentence "`key` ...".
#[derive(Debug)]
pub(super) struct Wrong {
    pub(super) id: Id,
    pub(super) title: String,
    pub(super) label: String,
    pub(super) help: Option<String>,
}

impl Wrong {
    pub(super) fn new(id: Id, title: impl Into<String>, label: impl Into<String>) -> Self {
        Self { id, title: title.into(), label: label.into(), help: None }
    }

    pub(super) fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    pub(super) fn wrong_type(expected: &str, value: &DeValue<'_>) -> Self {
        let found = match value {
            DeValue::String(_) => "a text",
            DeValue::Integer(_) => "a whole number",
            DeValue::Float(_) => "a number with a fraction",
            DeValue::Boolean(_) => "a boolean",
            DeValue::Datetime(_) => "a date",
            DeValue::Array(_) => "a list",
            DeValue::Table(_) => "a table",
        };
        Self::new(Id::WrongType, format!("must be {expected}"), format!("this is {found}"))
    }
}

pub(super) fn text(value: &DeValue<'_>, _: &Key) -> Result<String, Wrong> {
    match value.as_str() {
        Some("") => Err(Wrong::new(Id::BadName, "is empty", "")),
        Some(text) => Ok(text.to_owned()),
        None => Err(Wrong::wrong_type("a text", value)),
    }
}

pub(super) fn name(value: &DeValue<'_>, key: &Key) -> Result<String, Wrong> {
    let text = text(value, key)?;
    check_name(&text)?;
    Ok(text)
}

/// Names stand in `POOL/BACKEND`, in paths of the API and in labels of metrics.
pub(super) fn check_name(text: &str) -> Result<(), Wrong> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    if let Some(other) = text.chars().find(|c| !allowed(*c)) {
        let title = format!("has {other:?}, which a name must not have");
        let help = "use letters, digits, `.`, `_` and `-`";
        return Err(Wrong::new(Id::BadName, title, "").help(help));
    }
    if text.is_empty() || text.len() > limits::MAX_NAME {
        let title = format!("must have 1 to {} characters", limits::MAX_NAME);
        return Err(Wrong::new(Id::BadName, title, format!("this has {}", text.len())));
    }
    Ok(())
}

/// A TOML integer of 64 bits.
pub(super) fn whole_number(value: &DeValue<'_>) -> Option<i64> {
    let number = value.as_integer()?;
    i64::from_str_radix(number.as_str(), number.radix()).ok()
}

pub(super) fn integer<T: TryFrom<i64>>(value: &DeValue<'_>, key: &Key) -> Result<T, Wrong> {
    let (Kind::Integer { min, max }, true) = (key.kind, value.is_integer()) else {
        return Err(Wrong::wrong_type("a whole number", value));
    };
    let read = whole_number(value).filter(|number| (min..=max).contains(number));
    read.and_then(|number| T::try_from(number).ok()).ok_or_else(|| {
        let title = format!("must be from {} to {}", grouped(min), grouped(max));
        Wrong::new(Id::OutOfRange, title, "")
    })
}

/// A table's size; that it is on the list is checked later, with a better word about it.
pub(super) fn size(value: &DeValue<'_>, _: &Key) -> Result<u32, Wrong> {
    if !value.is_integer() {
        return Err(Wrong::wrong_type("a whole number", value));
    }
    whole_number(value).and_then(|number| u32::try_from(number).ok()).ok_or_else(|| {
        let [smallest, .., largest] = primes::PRIMES.map(grouped);
        Wrong::new(Id::OutOfRange, format!("must be from {smallest} to {largest}"), "")
    })
}

/// A number with its digits in threes, as people read it.
pub(super) fn grouped(number: impl ToString) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A number with its digits in threes, as the file may write it.
pub(super) fn literal(number: impl ToString) -> String {
    grouped(number).replace(',', "_")
}

pub(super) fn duration(value: &DeValue<'_>, key: &Key) -> Result<Duration, Wrong> {
    let help = "write a whole number and its unit, such as \"500ms\", \"2s\", \"10m\" or \"1h\"";
    let Some(text) = value.as_str() else {
        let id = if value.is_integer() { Id::BadDuration } else { Id::WrongType };
        let wrong = Wrong::wrong_type("a duration with a unit", value);
        return Err(Wrong { id, ..wrong.help(help) });
    };
    let Ok(read) = parse_duration(text) else {
        let title = "is not a duration with a unit";
        return Err(Wrong::new(Id::BadDuration, title, "").help(help));
    };
    let Kind::Duration { min_ms, max_ms } = key.kind else {
        return Err(Wrong::wrong_type("a duration with a unit", value));
    };
    let (min, max) = (Duration::from_millis(min_ms), Duration::from_millis(max_ms));
    if !(min..=max).contains(&read) {
        let title = format!("must be from {} to {}", format_duration(min), format_duration(max));
        return Err(Wrong::new(Id::OutOfRange, title, ""));
    }
    Ok(read)
}

/// `"a", "b" or "c"`.
pub(super) fn or_list(words: &[&str]) -> String {
    let quoted: Vec<String> = words.iter().map(|word| format!("\"{word}\"")).collect();
    match quoted.split_last() {
        Some((last, rest)) if !rest.is_empty() => format!("{} or {last}", rest.join(", ")),
        _ => quoted.concat(),
    }
}

pub(super) fn word<T: FromStr>(value: &DeValue<'_>, key: &Key) -> Result<T, Wrong> {
    let words = if let Kind::Word(words) = key.kind { words } else { &[] };
    let Some(text) = value.as_str() else {
        return Err(Wrong::wrong_type(&or_list(words), value));
    };
    let known = words.contains(&text).then(|| text.parse().ok()).flatten();
    known.ok_or_else(|| {
        let wrong = Wrong::new(Id::UnknownWord, format!("must be {}", or_list(words)), "");
        match closest(text, words.iter().copied()) {
            Some(word) => wrong.help(format!("did you mean \"{word}\"?")),
            None => wrong,
        }
    })
}

/// A value that is written as a text and read by its own parser.
pub(super) trait Written: FromStr {
    /// What the finding is called when the text is none.
    const ID: Id;
    /// What it must be.
    const EXPECTED: &'static str;
}

impl Written for Ipv4Addr {
    const ID: Id = Id::BadAddress;
    const EXPECTED: &'static str = "an IPv4 address such as \"192.0.2.11\"";
}

impl Written for Ipv6Addr {
    const ID: Id = Id::BadAddress;
    const EXPECTED: &'static str = "an IPv6 address such as \"2001:db8::11\"";
}

impl Written for IpAddr {
    const ID: Id = Id::BadAddress;
    const EXPECTED: &'static str = "an IP address such as \"192.0.2.11\" or \"2001:db8::11\"";
}

impl Written for SocketAddr {
    const ID: Id = Id::BadAddress;
    const EXPECTED: &'static str = "an address and a port such as \"127.0.0.1:9477\"";
}

impl Written for Prefix4 {
    const ID: Id = Id::BadPrefix;
    const EXPECTED: &'static str = "an IPv4 prefix such as \"198.18.0.0/16\"";
}

impl Written for Prefix6 {
    const ID: Id = Id::BadPrefix;
    const EXPECTED: &'static str = "an IPv6 prefix such as \"2001:db8::/64\"";
}

pub(super) fn parsed<T: Written>(value: &DeValue<'_>, _: &Key) -> Result<T, Wrong> {
    let Some(text) = value.as_str() else {
        return Err(Wrong::wrong_type(T::EXPECTED, value));
    };
    text.parse().ok().ok_or_else(|| Wrong::new(T::ID, format!("must be {}", T::EXPECTED), ""))
}

pub(super) fn path(value: &DeValue<'_>, _: &Key) -> Result<PathBuf, Wrong> {
    let Some(text) = value.as_str() else {
        return Err(Wrong::wrong_type("an absolute path", value));
    };
    let path = PathBuf::from(text);
    if !path.is_absolute() || text.contains('\0') {
        return Err(Wrong::new(Id::BadPath, "must be an absolute path", ""));
    }
    Ok(path)
}

/// What the kernel takes as an interface's name (dev_valid_name).
pub(super) fn interface(text: &str) -> Result<(), Wrong> {
    let title = if text.is_empty() || text.len() > limits::MAX_INTERFACE_NAME {
        format!("has a name that is not 1 to {} bytes long", limits::MAX_INTERFACE_NAME)
    } else if matches!(text, "." | "..")
        || text.chars().any(|c| c.is_whitespace() || c.is_control() || "/:".contains(c))
    {
        "has a name that no interface can have".to_owned()
    } else {
        return Ok(());
    };
    Err(Wrong::new(Id::BadInterface, title, ""))
}

//! From TOML values to typed ones, one function for each kind of key.
//!
//! The leaves of the reader: they know what a key may hold ([`Key`]) and say what is wrong with a
//! value, but neither where it stands nor what the others are.

use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use toml::de::DeValue;

use super::diagnostic::{Id, closest};
use super::schema::{Key, Kind};
use crate::desired::{format_duration, limits, parse_duration};

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
            DeValue::Boolean(_) => "true or false",
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

pub(super) fn integer<T: TryFrom<i64>>(value: &DeValue<'_>, key: &Key) -> Result<T, Wrong> {
    let Some(number) = value.as_integer() else {
        return Err(Wrong::wrong_type("a whole number", value));
    };
    let Kind::Integer { min, max } = key.kind else {
        return Err(Wrong::wrong_type("of another kind", value));
    };
    let read = i64::from_str_radix(number.as_str(), number.radix()).ok();
    let read = read.filter(|number| (min..=max).contains(number));
    read.and_then(|number| T::try_from(number).ok()).ok_or_else(|| {
        let title = format!("must be from {} to {}", grouped(min), grouped(max));
        Wrong::new(Id::OutOfRange, title, "")
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
        return Err(Wrong::wrong_type("of another kind", value));
    };
    let (min, max) = (Duration::from_millis(min_ms), Duration::from_millis(max_ms));
    if !(min..=max).contains(&read) {
        let title = format!("must be from {} to {}", format_duration(min), format_duration(max));
        return Err(Wrong::new(Id::OutOfRange, title, ""));
    }
    Ok(read)
}

pub(super) fn word<T: FromStr>(value: &DeValue<'_>, key: &Key) -> Result<T, Wrong> {
    let Kind::Word(words) = key.kind else {
        return Err(Wrong::wrong_type("of another kind", value));
    };
    let list = words.iter().map(|word| format!("\"{word}\"")).collect::<Vec<_>>().join(" or ");
    let Some(text) = value.as_str() else {
        return Err(Wrong::wrong_type(&list, value));
    };
    let known = words.contains(&text).then(|| text.parse().ok()).flatten();
    known.ok_or_else(|| {
        let wrong = Wrong::new(Id::UnknownWord, format!("must be {list}"), "");
        match closest(text, words.iter().copied()) {
            Some(word) => wrong.help(format!("did you mean \"{word}\"?")),
            None => wrong,
        }
    })
}

/// Anything that is written as a text and read by its own parser.
pub(super) fn parsed<T: FromStr>(value: &DeValue<'_>, key: &Key) -> Result<T, Wrong> {
    let (id, expected) = match key.kind {
        Kind::Address4 => (Id::BadAddress, "an IPv4 address such as \"192.0.2.11\""),
        Kind::Address6 => (Id::BadAddress, "an IPv6 address such as \"2001:db8::11\""),
        Kind::Prefix4 { .. } => (Id::BadPrefix, "an IPv4 prefix such as \"198.18.0.0/16\""),
        Kind::Prefix6 { .. } => (Id::BadPrefix, "an IPv6 prefix such as \"2001:db8::/64\""),
        Kind::Socket => (Id::BadAddress, "an address and a port such as \"127.0.0.1:9477\""),
        _ => (Id::BadAddress, "an IP address such as \"192.0.2.11\" or \"2001:db8::11\""),
    };
    let Some(text) = value.as_str() else {
        return Err(Wrong::wrong_type(expected, value));
    };
    text.parse().ok().ok_or_else(|| Wrong::new(id, format!("must be {expected}"), ""))
}

pub(super) fn path(value: &DeValue<'_>, key: &Key) -> Result<PathBuf, Wrong> {
    let path = PathBuf::from(text(value, key)?);
    if !path.is_absolute() || path.to_string_lossy().contains('\0') {
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

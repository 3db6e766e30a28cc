//! Values that have a text form of their own: prefixes and durations.
//!
//! A part of `desired`: what is written here is read back the same, in the file and in JSON.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Declares a prefix over one family's addresses; as text `ADDRESS/LENGTH`.
macro_rules! prefix {
    ($(#[$doc:meta])* $name:ident, $address:ty, $integer:ty) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name {
            /// The first address of the prefix.
            pub address: $address,
            /// Its length in bits.
            pub length: u8,
        }

        impl $name {
            /// The same prefix with every bit beyond its length cleared.
            #[must_use]
            pub fn masked(self) -> Self {
                let host = <$integer>::MAX.checked_shr(u32::from(self.length)).unwrap_or(0);
                Self { address: <$address>::from(<$integer>::from(self.address) & !host), ..self }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}/{}", self.address, self.length)
            }
        }

        impl FromStr for $name {
            type Err = ParseError;

            fn from_str(text: &str) -> Result<Self, ParseError> {
                let parts = text.split_once('/');
                let parsed = parts.map(|(address, length)| (address.parse(), length.parse()));
                match parsed {
                    Some((Ok(address), Ok(length))) if u32::from(length) <= <$integer>::BITS => {
                        Ok(Self { address, length })
                    }
                    _ => Err(ParseError::new("a prefix, ADDRESS/LENGTH", text)),
                }
            }
        }

        impl From<$name> for String {
            fn from(prefix: $name) -> Self {
                prefix.to_string()
            }
        }

        impl TryFrom<String> for $name {
            type Error = ParseError;

            fn try_from(text: String) -> Result<Self, ParseError> {
                text.parse()
            }
        }
    };
}

prefix! {
    /// An IPv4 prefix.
    Prefix4, Ipv4Addr, u32
}

prefix! {
    /// An IPv6 prefix.
    Prefix6, Ipv6Addr, u128
}

/// A text that is none of what was expected.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected {expected}, found `{found}`")]
pub struct ParseError {
    expected: &'static str,
    found: String,
}

impl ParseError {
    pub(crate) fn new(expected: &'static str, found: &str) -> Self {
        Self { expected, found: found.to_owned() }
    }
}

/// A duration as the file writes it: a whole number and a unit, `ms`, `s`, `m` or `h`.
///
/// # Errors
/// When there is no unit, another unit, no whole number, or more than 64 bits of milliseconds.
pub fn parse_duration(text: &str) -> Result<Duration, ParseError> {
    let wrong = || ParseError::new("a number with a unit (ms, s, m, h)", text);
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, unit) = text.split_at_checked(digits).ok_or_else(wrong)?;
    let scale = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return Err(wrong()),
    };
    let number: Option<u64> = number.parse().ok();
    number.and_then(|number| number.checked_mul(scale)).map(Duration::from_millis).ok_or_else(wrong)
}

/// The shortest text that [`parse_duration`] reads back; parts below a millisecond are cut off.
#[must_use]
pub fn format_duration(duration: Duration) -> String {
    let millis = duration.as_millis();
    match millis {
        0 => "0s".to_owned(),
        _ if millis.is_multiple_of(3_600_000) => format!("{}h", millis / 3_600_000),
        _ if millis.is_multiple_of(60_000) => format!("{}m", millis / 60_000),
        _ if millis.is_multiple_of(1_000) => format!("{}s", millis / 1_000),
        _ => format!("{millis}ms"),
    }
}

/// Durations in JSON as the file writes them.
pub(crate) mod duration_text {
    use std::time::Duration;

    use serde::de::Error as _;
    use serde::{Deserialize as _, Deserializer, Serializer};

    pub(crate) fn serialize<S: Serializer>(value: &Duration, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&super::format_duration(*value))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
        super::parse_duration(&String::deserialize(from)?).map_err(D::Error::custom)
    }
}

/// The same for a duration that may be missing.
pub(super) mod optional_duration_text {
    use std::time::Duration;

    use serde::de::Error as _;
    use serde::{Deserialize as _, Deserializer, Serialize as _, Serializer};

    pub(in super::super) fn serialize<S: Serializer>(
        value: &Option<Duration>,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        value.map(super::format_duration).serialize(to)
    }

    pub(in super::super) fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<Option<Duration>, D::Error> {
        let text = Option::<String>::deserialize(from)?;
        text.map(|text| super::parse_duration(&text).map_err(D::Error::custom)).transpose()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_need_a_unit() {
        let cases = [
            ("0s", Some(0)),
            ("500ms", Some(500)),
            ("90s", Some(90_000)),
            ("2m", Some(120_000)),
            ("1h", Some(3_600_000)),
            ("10", None),
            ("1.5s", None),
            ("-1s", None),
            ("1 s", None),
            ("1d", None),
            ("s", None),
            ("", None),
            ("18446744073709551615h", None),
        ];
        for (text, millis) in cases {
            let read = parse_duration(text).ok();
            assert_eq!(read, millis.map(Duration::from_millis), "{text}");
        }
        for text in ["0s", "1ms", "1500ms", "2s", "90s", "2m", "1h", "36h"] {
            assert_eq!(parse_duration(text).map(format_duration).as_deref(), Ok(text));
        }
    }

    #[test]
    fn prefixes_are_read_and_masked() {
        let prefix: Prefix4 = "198.18.7.9/16".parse().unwrap();
        assert_eq!(prefix.masked().to_string(), "198.18.0.0/16");
        let all: Prefix4 = "1.2.3.4/0".parse().unwrap();
        assert_eq!(all.masked().to_string(), "0.0.0.0/0");
        let one: Prefix6 = "2001:db8::1/128".parse().unwrap();
        assert_eq!(one.masked(), one);
        for wrong in ["198.18.0.0", "198.18.0.0/33", "2001:db8::/32", "198.18.0.0/", "/16"] {
            assert!(wrong.parse::<Prefix4>().is_err(), "{wrong}");
        }
    }
}

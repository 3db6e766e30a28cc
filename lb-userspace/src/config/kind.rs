//! What a key's value may be, and how that is said.
//!
//! A part of the schema. How a value is read is in `values`.

use std::time::Duration;

use super::values::{literal, or_list};
use crate::desired::format_duration;

/// What a key's value may be.
#[derive(Clone, Copy, Debug)]
pub(super) enum Kind {
    /// Any text.
    Text,
    /// A name: letters, digits, `.`, `_`, `-`.
    Name,
    /// A whole number.
    Integer { min: i64, max: i64 },
    /// A table's size: one of [`primes::PRIMES`].
    Prime,
    /// A duration, in milliseconds.
    Duration { min_ms: u64, max_ms: u64 },
    /// One of a few words.
    Word(&'static [&'static str]),
    /// An IP address.
    Address,
    /// An IPv4 address.
    Address4,
    /// An IPv6 address.
    Address6,
    /// An IPv4 prefix.
    Prefix4 { min: u8, max: u8 },
    /// An IPv6 prefix.
    Prefix6 { min: u8, max: u8 },
    /// An address and a TCP port.
    Socket,
    /// An absolute path.
    Path,
    /// A list of interface names.
    Interfaces,
    /// A list of ports, or `any`.
    Ports,
    /// A boolean.
    Boolean,
    /// An AS number that a peer can have.
    Asn,
    /// A prefix of either family.
    Prefix,
    /// `off`, or a duration.
    Off { min_ms: u64, max_ms: u64 },
    /// A list of this.
    List(&'static str),
    /// A list of tables.
    Tables,
    /// A table.
    Table,
}

impl Kind {
    /// What it may be, in words.
    pub(super) fn describe(self) -> String {
        let millis = |ms| format_duration(Duration::from_millis(ms));
        match self {
            Self::Text => "text".to_owned(),
            Self::Name => "name".to_owned(),
            Self::Integer { min, max } if min == max => format!("{min}"),
            Self::Integer { min, max } => format!("{} to {}", literal(min), literal(max)),
            Self::Prime => "a prime from the list".to_owned(),
            Self::Duration { min_ms, max_ms } => {
                format!("duration, {} to {}", millis(min_ms), millis(max_ms))
            }
            Self::Word(words) => or_list(words),
            Self::Address => "IPv4 or IPv6 address".to_owned(),
            Self::Address4 => "IPv4 address".to_owned(),
            Self::Address6 => "IPv6 address".to_owned(),
            Self::Prefix4 { min, max } => format!("IPv4 prefix, /{min} to /{max}"),
            Self::Prefix6 { min, max } => format!("IPv6 prefix, /{min} to /{max}"),
            Self::Socket => "address and port".to_owned(),
            Self::Path => "absolute path".to_owned(),
            Self::Interfaces => "list of interface names".to_owned(),
            Self::Ports => "list of ports, or \"any\"".to_owned(),
            Self::Boolean => "true or false".to_owned(),
            Self::Asn => "AS number".to_owned(),
            Self::Prefix => "IPv4 or IPv6 prefix".to_owned(),
            Self::Off { min_ms, max_ms } => {
                format!("\"off\", or duration, {} to {}", millis(min_ms), millis(max_ms))
            }
            Self::List(things) => format!("list of {things}"),
            Self::Tables => "list of tables".to_owned(),
            Self::Table => "table".to_owned(),
        }
    }
}

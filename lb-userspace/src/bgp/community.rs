//! Communities in the form operators write them, and their numbers.
//!
//! Pure. The text forms are those of the RFCs and of routers' command lines; what is read here is
//! written back the same.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::desired::ParseError;

/// A community (RFC 1997): `65010:100`, or a well-known name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Community(pub u32);

impl Community {
    /// GRACEFUL_SHUTDOWN (RFC 8326): the routes are about to go.
    pub const GRACEFUL_SHUTDOWN: Self = Self(0xffff_0000);
    /// BLACKHOLE (RFC 7999).
    pub const BLACKHOLE: Self = Self(0xffff_029a);
    /// NO_EXPORT (RFC 1997).
    pub const NO_EXPORT: Self = Self(0xffff_ff01);
    /// NO_ADVERTISE (RFC 1997).
    pub const NO_ADVERTISE: Self = Self(0xffff_ff02);
    /// NO_EXPORT_SUBCONFED (RFC 1997).
    pub const NO_EXPORT_SUBCONFED: Self = Self(0xffff_ff03);

    /// The names of the IANA registry, as routers write them.
    const NAMES: [(&'static str, Self); 5] = [
        ("graceful-shutdown", Self::GRACEFUL_SHUTDOWN),
        ("blackhole", Self::BLACKHOLE),
        ("no-export", Self::NO_EXPORT),
        ("no-advertise", Self::NO_ADVERTISE),
        ("no-export-subconfed", Self::NO_EXPORT_SUBCONFED),
    ];
}

impl fmt::Display for Community {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = Self::NAMES.iter().find(|(_, community)| community == self);
        match name {
            Some((name, _)) => f.write_str(name),
            None => write!(f, "{}:{}", self.0 >> 16, self.0 & 0xffff),
        }
    }
}

impl FromStr for Community {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let named = Self::NAMES.iter().find(|(name, _)| *name == text);
        let numbers = numbers::<2>(text).filter(|them| them.iter().all(|it| *it <= 0xffff));
        match (named, numbers) {
            (Some((_, community)), _) => Ok(*community),
            (None, Some([high, low])) => Ok(Self(high << 16 | low)),
            (None, None) => Err(ParseError::new(
                "a community such as \"65010:100\", each part at most 65,535, or \"no-export\"",
                text,
            )),
        }
    }
}

/// A large community (RFC 8092): `65010:1:2`, each part 32 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct LargeCommunity {
    /// The AS that gives the rest its meaning.
    pub global: u32,
    /// The first part of the meaning.
    pub data1: u32,
    /// The second part of the meaning.
    pub data2: u32,
}

impl fmt::Display for LargeCommunity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.global, self.data1, self.data2)
    }
}

impl FromStr for LargeCommunity {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        match numbers::<3>(text) {
            Some([global, data1, data2]) => Ok(Self { global, data1, data2 }),
            None => Err(ParseError::new("a large community such as \"65010:1:2\"", text)),
        }
    }
}

/// An extended community (RFC 4360, RFC 5668): `rt:65010:100` (route target), `soo:65010:100`
/// (route origin), or its eight bytes in network order, `0x0002fdf200000064`.
///
/// With an AS number of 16 bits the second number has 32 bits, else 16.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ExtendedCommunity(pub [u8; 8]);

/// Types of extended communities: two-octet and four-octet AS specific, transitive.
const TWO_OCTET_AS: u8 = 0x00;
const FOUR_OCTET_AS: u8 = 0x02;
/// Subtypes, with the names they have here.
const SUBTYPES: [(&str, u8); 2] = [("rt", 0x02), ("soo", 0x03)];

impl ExtendedCommunity {
    fn of_as(subtype: u8, number: u32, local: u32) -> Option<Self> {
        let [n0, n1, n2, n3] = number.to_be_bytes();
        let [l0, l1, l2, l3] = local.to_be_bytes();
        match (u16::try_from(number), u16::try_from(local)) {
            (Ok(_), _) => Some(Self([TWO_OCTET_AS, subtype, n2, n3, l0, l1, l2, l3])),
            (Err(_), Ok(_)) => Some(Self([FOUR_OCTET_AS, subtype, n0, n1, n2, n3, l2, l3])),
            (Err(_), Err(_)) => None,
        }
    }
}

impl fmt::Display for ExtendedCommunity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [kind, subtype, a, b, c, d, e, g] = self.0;
        let name = SUBTYPES.iter().find(|(_, it)| *it == subtype).map(|(name, _)| name);
        let two = (u32::from(u16::from_be_bytes([a, b])), u32::from_be_bytes([c, d, e, g]));
        let four = (u32::from_be_bytes([a, b, c, d]), u32::from(u16::from_be_bytes([e, g])));
        match (name, kind) {
            (Some(name), TWO_OCTET_AS) => write!(f, "{name}:{}:{}", two.0, two.1),
            // Such an AS number would be read as one of 16 bits: shown as bytes instead.
            (Some(name), FOUR_OCTET_AS) if four.0 > 0xffff => {
                write!(f, "{name}:{}:{}", four.0, four.1)
            }
            _ => write!(f, "0x{:016x}", u64::from_be_bytes(self.0)),
        }
    }
}

impl FromStr for ExtendedCommunity {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let bytes = text.strip_prefix("0x").filter(|hex| hex.len() == 16);
        let bytes = bytes.filter(|hex| hex.bytes().all(|it| it.is_ascii_hexdigit()));
        let bytes = bytes.and_then(|hex| u64::from_str_radix(hex, 16).ok());
        let named = || {
            let (name, rest) = text.split_once(':')?;
            let (_, subtype) = SUBTYPES.iter().find(|(it, _)| *it == name)?;
            let [number, local] = numbers::<2>(rest)?;
            Self::of_as(*subtype, number, local)
        };
        bytes.map(|bytes| Self(bytes.to_be_bytes())).or_else(named).ok_or_else(|| {
            ParseError::new(
                "an extended community such as \"rt:65010:100\", \"soo:65010:100\" or \
                 \"0x0002fdf200000064\"",
                text,
            )
        })
    }
}

/// `N` decimal numbers with colons between.
fn numbers<const N: usize>(text: &str) -> Option<[u32; N]> {
    let mut parts = text.split(':');
    let mut numbers = [0; N];
    for number in &mut numbers {
        let part = parts.next().filter(|part| part.bytes().all(|it| it.is_ascii_digit()))?;
        *number = part.parse().ok()?;
    }
    parts.next().is_none().then_some(numbers)
}

/// The text form is the one in JSON too.
macro_rules! as_text {
    ($($name:ident),+) => {$(
        impl From<$name> for String {
            fn from(community: $name) -> Self {
                community.to_string()
            }
        }

        impl TryFrom<String> for $name {
            type Error = ParseError;

            fn try_from(text: String) -> Result<Self, ParseError> {
                text.parse()
            }
        }
    )+};
}

as_text!(Community, LargeCommunity, ExtendedCommunity);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn communities_are_read_and_written() {
        for (text, number) in [
            ("65010:100", 0xfdf2_0064),
            ("0:0", 0),
            ("no-export", 0xffff_ff01),
            ("graceful-shutdown", 0xffff_0000),
        ] {
            assert_eq!(text.parse(), Ok(Community(number)), "{text}");
            assert_eq!(Community(number).to_string(), text);
        }
        assert_eq!("65535:0".parse(), Ok(Community::GRACEFUL_SHUTDOWN));
        for text in ["", "1", "65536:1", "1:65536", "1:2:3", "a:b", "+1:2", "1: 2", "no_export"] {
            assert!(text.parse::<Community>().is_err(), "{text}");
        }
    }

    #[test]
    fn large_communities_are_read_and_written() {
        let text = "4200000001:7:4294967295";
        let community: LargeCommunity = text.parse().unwrap();
        assert_eq!((community.global, community.data2), (4_200_000_001, u32::MAX));
        assert_eq!(community.to_string(), text);
        for text in ["1:2", "1:2:3:4", "4294967296:1:1"] {
            assert!(text.parse::<LargeCommunity>().is_err(), "{text}");
        }
    }

    #[test]
    fn extended_communities_are_read_and_written() {
        for (text, bytes) in [
            ("rt:65010:100", [0, 2, 0xfd, 0xf2, 0, 0, 0, 100]),
            ("soo:1:70000", [0, 3, 0, 1, 0, 1, 0x11, 0x70]),
            ("rt:4200000001:7", [2, 2, 0xfa, 0x56, 0xea, 0x01, 0, 7]),
            ("0x4304000000000001", [0x43, 4, 0, 0, 0, 0, 0, 1]),
            // An AS number below 65,536 in the wide form.
            ("0x0202000000010007", [2, 2, 0, 0, 0, 1, 0, 7]),
        ] {
            assert_eq!(text.parse(), Ok(ExtendedCommunity(bytes)), "{text}");
            assert_eq!(ExtendedCommunity(bytes).to_string(), text);
        }
        for text in ["rt:4200000001:70000", "rt:1", "xx:1:2", "0x12", "0x+002fdf200000064"] {
            assert!(text.parse::<ExtendedCommunity>().is_err(), "{text}");
        }
    }
}

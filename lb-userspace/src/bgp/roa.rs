//! Route origin validation (RFC 6811) against validated ROA payloads out of a JSON file.
//!
//! The file is what Routinator (`"asn": "AS64496"`) and rpki-client (`"asn": 64496`) export;
//! whoever runs one of them keeps it new. It is asked before a prefix is announced: a route that
//! others would drop as Invalid is better not sent.
//!
//! Must not: fetch or verify anything; what the file says is believed.

use std::fmt;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;

use ipnet::IpNet;
use serde::{Deserialize, Deserializer};

/// The largest file that is read: the whole Internet's takes about 80 MiB.
pub const MAX_VRP_FILE_BYTES: u64 = 256 << 20;

/// The most payloads that are kept; the whole Internet has fewer than a million.
pub const MAX_VRPS: usize = 4_000_000;

/// A validated ROA payload: this AS may originate the prefix, and parts of it up to a length.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Vrp {
    /// The prefix, without host bits.
    pub prefix: IpNet,
    /// The longest prefix length it allows, in bits.
    pub max_length: u8,
    /// The origin it allows; AS 0 allows none (RFC 6483 section 4).
    pub asn: u32,
}

impl fmt::Display for Vrp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} to /{} by AS {}", self.prefix, self.max_length, self.asn)
    }
}

/// The validation state of a route (RFC 6811 section 2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Validity {
    /// A payload covers the prefix, allows its length and names its origin.
    Valid,
    /// Payloads cover the prefix, and none of them allows this length and origin.
    Invalid,
    /// No payload covers the prefix.
    NotFound,
}

/// The answer to [`Vrps::validate`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Validation {
    /// The state.
    pub validity: Validity,
    /// The payloads that cover the prefix, shortest first: the reason.
    pub covering: Vec<Vrp>,
}

/// Why there are no payloads.
#[derive(Debug, thiserror::Error)]
pub enum VrpError {
    /// The file cannot be opened or read.
    #[error("{0}")]
    Unreadable(#[from] io::Error),
    /// It is larger than [`MAX_VRP_FILE_BYTES`].
    #[error("it is larger than {} MiB", MAX_VRP_FILE_BYTES >> 20)]
    TooLarge,
    /// It has more payloads than [`MAX_VRPS`]; how many.
    #[error("it has {0} payloads, and {MAX_VRPS} are the most")]
    TooMany(usize),
    /// It is not JSON with a list `roas` of `asn`, `prefix` and `maxLength`.
    #[error("it is no VRP JSON: {0}")]
    Format(#[from] serde_json::Error),
    /// A payload's prefix has host bits, or its length range is none.
    #[error("it has a payload that means nothing: {0}")]
    Meaningless(Vrp),
}

/// All payloads of a file, to look prefixes up in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Vrps {
    /// Sorted, each once.
    list: Vec<Vrp>,
}

/// The file, of which only the payloads are read.
#[derive(Deserialize)]
struct Export {
    roas: Vec<Entry>,
}

#[derive(Deserialize)]
struct Entry {
    #[serde(deserialize_with = "asn")]
    asn: u32,
    prefix: IpNet,
    #[serde(rename = "maxLength")]
    max_length: Option<u8>,
}

/// A number, or a text such as `AS64496`.
fn asn<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u32, D::Error> {
    struct Asn;

    impl serde::de::Visitor<'_> for Asn {
        type Value = u32;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an AS number such as 64496 or \"AS64496\"")
        }

        fn visit_u64<E: serde::de::Error>(self, number: u64) -> Result<u32, E> {
            let wrong = |_| E::invalid_value(serde::de::Unexpected::Unsigned(number), &self);
            u32::try_from(number).map_err(wrong)
        }

        fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<u32, E> {
            let digits = text.strip_prefix("AS").unwrap_or(text);
            let wrong = |_| E::invalid_value(serde::de::Unexpected::Str(text), &self);
            digits.parse().map_err(wrong)
        }
    }

    deserializer.deserialize_any(Asn)
}

impl Vrps {
    /// Reads the payloads out of a file.
    ///
    /// # Errors
    /// See [`VrpError`]; a file with one wrong payload is refused whole.
    pub fn read(path: &Path) -> Result<Self, VrpError> {
        let mut json = Vec::new();
        let read = File::open(path)?.take(MAX_VRP_FILE_BYTES + 1).read_to_end(&mut json)?;
        if u64::try_from(read).is_ok_and(|read| read > MAX_VRP_FILE_BYTES) {
            return Err(VrpError::TooLarge);
        }
        Self::parse(&json)
    }

    /// Reads the payloads out of JSON.
    ///
    /// # Errors
    /// As [`Vrps::read`], without those of the file.
    pub fn parse(json: &[u8]) -> Result<Self, VrpError> {
        let export: Export = serde_json::from_slice(json)?;
        if export.roas.len() > MAX_VRPS {
            return Err(VrpError::TooMany(export.roas.len()));
        }
        let mut list = Vec::with_capacity(export.roas.len());
        for Entry { asn, prefix, max_length } in export.roas {
            let max_length = max_length.unwrap_or(prefix.prefix_len());
            let vrp = Vrp { prefix, max_length, asn };
            let lengths = prefix.prefix_len()..=prefix.max_prefix_len();
            if prefix != prefix.trunc() || !lengths.contains(&max_length) {
                return Err(VrpError::Meaningless(vrp));
            }
            list.push(vrp);
        }
        list.sort_unstable();
        list.dedup();
        Ok(Self { list })
    }

    /// How many payloads there are.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.list.len()
    }

    /// Whether there is none: every route is [`Validity::NotFound`] then.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// The state of a route to `prefix` that `origin` originates (RFC 6811 section 2).
    #[must_use]
    pub fn validate(&self, prefix: IpNet, origin: u32) -> Validation {
        let mut covering = Vec::new();
        for length in 0..=prefix.prefix_len() {
            let Ok(shorter) = IpNet::new(prefix.addr(), length) else { continue };
            let shorter = shorter.trunc();
            let start = self.list.partition_point(|vrp| vrp.prefix < shorter);
            let from = self.list.get(start..).unwrap_or_default();
            covering.extend(from.iter().take_while(|vrp| vrp.prefix == shorter));
        }
        // A route's origin is never 0, but a wrong question must not make AS 0 allow anything.
        let allows =
            |vrp: &Vrp| vrp.asn == origin && origin != 0 && prefix.prefix_len() <= vrp.max_length;
        let validity = match covering.iter().any(allows) {
            true => Validity::Valid,
            false if covering.is_empty() => Validity::NotFound,
            false => Validity::Invalid,
        };
        Validation { validity, covering }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const ROUTINATOR: &[u8] = br#"{
        "metadata": { "generated": 1, "generatedTime": "1970-01-01T00:00:01Z" },
        "roas": [
            { "asn": "AS64496", "prefix": "203.0.113.0/24", "maxLength": 24, "ta": "ripe" },
            { "asn": "AS64497", "prefix": "203.0.0.0/16", "maxLength": 20, "ta": "ripe" },
            { "asn": "AS64496", "prefix": "2001:db8::/32", "maxLength": 48, "ta": "arin" },
            { "asn": "AS0", "prefix": "198.51.100.0/24", "maxLength": 32, "ta": "arin" }
        ]
    }"#;

    fn validity(prefix: &str, origin: u32) -> (Validity, usize) {
        let found = Vrps::parse(ROUTINATOR).unwrap().validate(prefix.parse().unwrap(), origin);
        (found.validity, found.covering.len())
    }

    #[test]
    fn a_route_is_judged_by_every_payload_that_covers_it() {
        use Validity::{Invalid, NotFound, Valid};
        assert_eq!(validity("203.0.113.0/24", 64_496), (Valid, 2));
        assert_eq!(validity("203.0.113.0/24", 64_497), (Invalid, 2), "longer than its maxLength");
        assert_eq!(validity("203.0.113.0/25", 64_496), (Invalid, 2), "longer than its maxLength");
        assert_eq!(validity("203.0.16.0/20", 64_497), (Valid, 1));
        assert_eq!(validity("203.0.0.0/15", 64_497), (NotFound, 0), "not covered as a whole");
        assert_eq!(validity("192.0.2.0/24", 64_496), (NotFound, 0));
        assert_eq!(validity("2001:db8:53::/48", 64_496), (Valid, 1));
        assert_eq!(validity("2001:db8:53::/49", 64_496), (Invalid, 1));
        assert_eq!(validity("::/0", 64_496), (NotFound, 0));
        assert_eq!(validity("198.51.100.0/24", 64_496), (Invalid, 1), "AS 0 allows nobody");
        assert_eq!(validity("198.51.100.0/24", 0), (Invalid, 1));
    }

    #[test]
    fn both_exports_are_read() {
        let openbsd = br#"{ "roas": [
            { "asn": 64496, "prefix": "203.0.113.0/24", "maxLength": 24, "ta": "x", "expires": 1 },
            { "asn": 64496, "prefix": "203.0.113.0/24", "maxLength": 24, "ta": "y", "expires": 1 }
        ], "vaps": [] }"#;
        let vrps = Vrps::parse(openbsd).unwrap();
        assert_eq!(vrps.len(), 1);
        assert_eq!(vrps.list[0].to_string(), "203.0.113.0/24 to /24 by AS 64496");
    }

    #[test]
    fn a_file_that_is_none_says_why() {
        let one = |asn: &str, prefix: &str, length: &str| {
            let text =
                format!(r#"{{"roas":[{{"asn":{asn},"prefix":"{prefix}","maxLength":{length}}}]}}"#);
            Vrps::parse(text.as_bytes()).map(|vrps| vrps.len()).map_err(|e| e.to_string())
        };
        assert_eq!(one("1", "192.0.2.0/24", "32"), Ok(1));
        for (asn, prefix, length, why) in [
            ("\"AS-1\"", "192.0.2.0/24", "24", "AS number"),
            ("4294967296", "192.0.2.0/24", "24", "AS number"),
            ("1", "192.0.2.1/24", "24", "means nothing: 192.0.2.1/24"),
            ("1", "192.0.2.0/24", "23", "means nothing"),
            ("1", "192.0.2.0/24", "33", "means nothing"),
            ("1", "192.0.2.0", "24", "no VRP JSON"),
        ] {
            let error = one(asn, prefix, length).unwrap_err();
            assert!(error.contains(why), "{error}");
        }
        for text in ["", "[]", "{}", "{\"roas\": 1}"] {
            assert!(matches!(Vrps::parse(text.as_bytes()), Err(VrpError::Format(_))), "{text}");
        }
        let missing = Vrps::read(Path::new("/nonexistent/vrps.json"));
        assert!(matches!(missing, Err(VrpError::Unreadable(_))));
    }

    #[test]
    fn a_file_without_end_is_cut() {
        assert!(matches!(Vrps::read(Path::new("/dev/zero")), Err(VrpError::TooLarge)));
    }

    proptest! {
        #![proptest_config(ProptestConfig {
            failure_persistence: None,
            ..ProptestConfig::default()
        })]

        #[test]
        fn the_search_finds_what_a_look_at_each_finds(
            payloads in prop::collection::vec((0..4_u32, 0..=8_u8, 0..=3_u8, 1..3_u32), 0..20),
            (bits, length, origin) in (0..256_u32, 0..=10_u8, 1..3_u32),
        ) {
            let net = |bits: u32, length: u8| {
                IpNet::new(std::net::Ipv4Addr::from(bits << 24).into(), length).unwrap().trunc()
            };
            let mut list: Vec<Vrp> = Vec::new();
            for (bits, length, more, asn) in payloads {
                list.push(Vrp { prefix: net(bits << 6, length), max_length: length + more, asn });
            }
            list.sort_unstable();
            list.dedup();
            let vrps = Vrps { list };
            let prefix = net(bits, length);
            let covering: Vec<Vrp> =
                vrps.list.iter().filter(|vrp| vrp.prefix.contains(&prefix)).copied().collect();
            let allowed = covering.iter().any(|v| v.asn == origin && v.max_length >= length);
            let found = vrps.validate(prefix, origin);
            prop_assert_eq!(found.validity == Validity::Valid, allowed);
            prop_assert_eq!(found.validity == Validity::NotFound, covering.is_empty());
            let mut sorted = found.covering;
            sorted.sort_unstable();
            prop_assert_eq!(sorted, covering);
        }
    }
}

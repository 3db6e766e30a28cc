//! From TOML values to BGP's, one function for each kind of key.
//!
//! Leaves of the reader like `config::values`, see there.

use std::time::Duration;

use ipnet::IpNet;
use toml::de::DeValue;

use super::super::diagnostic::Id;
use super::super::schema::{Key, Kind};
use super::super::values::{Written, Wrong, duration, whole_number};
use crate::bgp::asn::{AS_TRANS, is_reserved};
use crate::bgp::community::{Community, ExtendedCommunity, LargeCommunity};
use crate::desired::Family;

impl Written for IpNet {
    const ID: Id = Id::BadPrefix;
    const EXPECTED: &'static str = "a prefix such as \"203.0.113.0/24\" or \"2001:db8:53::/48\"";
}

impl Written for Community {
    const ID: Id = Id::BadCommunity;
    const EXPECTED: &'static str =
        "a community such as \"65010:100\", each part at most 65,535, or \"no-export\"";
}

impl Written for LargeCommunity {
    const ID: Id = Id::BadCommunity;
    const EXPECTED: &'static str = "a large community such as \"65010:1:2\"";
}

impl Written for ExtendedCommunity {
    const ID: Id = Id::BadCommunity;
    const EXPECTED: &'static str = "an extended community such as \"rt:65010:100\", \
                                    \"soo:65010:100\" or \"0x0002fdf200000064\"";
}

pub(super) fn boolean(value: &DeValue<'_>, _: &Key) -> Result<bool, Wrong> {
    value.as_bool().ok_or_else(|| Wrong::wrong_type("true or false", value))
}

/// An AS number that somebody can have.
pub(super) fn asn(value: &DeValue<'_>, _: &Key) -> Result<u32, Wrong> {
    if !value.is_integer() {
        return Err(Wrong::wrong_type("an AS number", value));
    }
    let number = whole_number(value).and_then(|number| u32::try_from(number).ok());
    let label = match number {
        Some(number) if !is_reserved(number) => return Ok(number),
        Some(0) => "AS 0 is nobody (RFC 7607)",
        Some(AS_TRANS) => "AS_TRANS stands for others (RFC 6793)",
        Some(_) => "reserved (RFC 7300)",
        None => "",
    };
    Err(Wrong::new(Id::BadAsn, "must be an AS number, from 1 to 4,294,967,294", label))
}

/// A duration of whole seconds, as messages carry it.
pub(super) fn seconds(value: &DeValue<'_>, key: &Key) -> Result<Duration, Wrong> {
    let read = duration(value, key)?;
    match read.subsec_nanos() {
        0 => Ok(read),
        _ => Err(Wrong::new(Id::BadDuration, "must be whole seconds", "BGP counts seconds")),
    }
}

/// Whole seconds, or `off`.
pub(super) fn seconds_or_off(value: &DeValue<'_>, key: &Key) -> Result<Option<Duration>, Wrong> {
    let Kind::Off { min_ms, max_ms } = key.kind else {
        return Err(Wrong::wrong_type("\"off\" or a duration", value));
    };
    match value.as_str() {
        Some("off") => Ok(None),
        _ => {
            let key = Key { kind: Kind::Duration { min_ms, max_ms }, ..*key };
            let wrong = |wrong: Wrong| match wrong.id == Id::BadDuration {
                true => wrong.help("write whole seconds such as \"120s\" or \"2m\", or \"off\""),
                false => wrong,
            };
            seconds(value, &key).map(Some).map_err(wrong)
        }
    }
}

pub(super) fn family(value: &DeValue<'_>, _: &Key) -> Result<Family, Wrong> {
    match value.as_str() {
        Some("ipv4") => Ok(Family::V4),
        Some("ipv6") => Ok(Family::V6),
        Some(_) => Err(Wrong::new(Id::UnknownWord, "must hold \"ipv4\", \"ipv6\" or both", "")),
        None => Err(Wrong::wrong_type("a list of texts", value)),
    }
}

//! Path attributes, to and from the codec's form.
//!
//! A part of `wire`.

use netgauze_bgp_pkt::community::{
    Community as WireCommunity, ExtendedCommunity as WireExtended, LargeCommunity as WireLarge,
    UnknownExtendedCommunity,
};
use netgauze_bgp_pkt::path_attribute::{
    As2PathSegment, As4Path, As4PathSegment, AsPath, AsPathSegmentType, Communities,
    ExtendedCommunities, LargeCommunities, LocalPreference, MultiExitDiscriminator, Origin,
    PathAttribute, PathAttributeValue,
};
use netgauze_bgp_pkt::wire::deserializer::BgpParsingContext;
use netgauze_bgp_pkt::wire::deserializer::path_attribute::PathAttributeParsingError;
use netgauze_parse_utils::reader::SliceReader;
use netgauze_parse_utils::traits::ParseFromWithOneInput as _;

use super::Dialect;
use super::open::AS_TRANS;
use crate::bgp::route::Attributes;

/// AS numbers of one segment, at most: its count has 8 bits.
const MAX_SEGMENT: usize = 255;
/// Longest value without the extended length flag.
const MAX_SHORT: usize = 255;
/// LOCAL_PREF when nothing else is wanted: what routers take as the middle.
const LOCAL_PREFERENCE: u32 = 100;

/// Flags of an attribute.
pub(super) mod flag {
    pub(in super::super) const OPTIONAL: u8 = 0x80;
    pub(in super::super) const TRANSITIVE: u8 = 0x40;
    pub(in super::super) const EXTENDED_LENGTH: u8 = 0x10;
}

/// An attribute with the flags that its type has; never `None`, since the codec refuses flags only
/// and these are those it asks for. `long`: the value has more than 255 bytes, or may have.
pub(super) fn attribute(value: PathAttributeValue, long: bool) -> Option<PathAttribute> {
    let optional = value.can_be_optional().unwrap_or(true);
    let transitive = value.can_be_transitive().unwrap_or(true);
    PathAttribute::from(optional, transitive, false, long, value).ok()
}

/// The attributes but the next hop, in the order of their types.
pub(super) fn encode(attributes: &Attributes, dialect: Dialect) -> Vec<PathAttribute> {
    let mut list = Vec::new();
    let mut push = |value, length: usize| list.extend(attribute(value, length > MAX_SHORT));
    let path = &attributes.as_path;
    push(PathAttributeValue::Origin(Origin::IGP), 1);
    push(PathAttributeValue::AsPath(as_path(path, dialect)), path.len() * 4 + 8);
    if let Some(med) = attributes.med {
        push(PathAttributeValue::MultiExitDiscriminator(MultiExitDiscriminator::new(med)), 4);
    }
    if dialect.internal {
        let preference = attributes.local_preference.unwrap_or(LOCAL_PREFERENCE);
        push(PathAttributeValue::LocalPreference(LocalPreference::new(preference)), 4);
    }
    if !attributes.communities.is_empty() {
        let all: Vec<_> =
            attributes.communities.iter().map(|it| WireCommunity::new(it.0)).collect();
        let length = all.len() * 4;
        push(PathAttributeValue::Communities(Communities::new(all)), length);
    }
    if !attributes.extended_communities.is_empty() {
        let all = attributes.extended_communities.iter().map(|it| {
            let [kind, subtype, value @ ..] = it.0;
            WireExtended::Unknown(UnknownExtendedCommunity::new(kind, subtype, value))
        });
        let all: Vec<_> = all.collect();
        let length = all.len() * 8;
        push(PathAttributeValue::ExtendedCommunities(ExtendedCommunities::new(all)), length);
    }
    // RFC 6793 section 4.2.2: beside a path of 16 bits, what does not fit it.
    if !dialect.four_octet_as && path.iter().any(|asn| u16::try_from(*asn).is_err()) {
        let segments = segments(path);
        push(PathAttributeValue::As4Path(As4Path::new(segments)), path.len() * 4 + 8);
    }
    if !attributes.large_communities.is_empty() {
        let all = attributes.large_communities.iter();
        let all: Vec<_> = all.map(|it| WireLarge::new(it.global, it.data1, it.data2)).collect();
        let length = all.len() * 12;
        push(PathAttributeValue::LargeCommunities(LargeCommunities::new(all)), length);
    }
    list
}

fn segments(path: &[u32]) -> Vec<As4PathSegment> {
    let segments = path.chunks(MAX_SEGMENT);
    segments.map(|it| As4PathSegment::new(AsPathSegmentType::AsSequence, it)).collect()
}

fn as_path(path: &[u32], dialect: Dialect) -> AsPath {
    if dialect.four_octet_as {
        return AsPath::as4_path_segments(segments(path));
    }
    let short: Vec<_> = path.iter().map(|it| u16::try_from(*it).unwrap_or(AS_TRANS)).collect();
    let segments = short.chunks(MAX_SEGMENT);
    let segments = segments.map(|it| As2PathSegment::new(AsPathSegmentType::AsSequence, it));
    AsPath::as2_path_segments(segments.collect::<Vec<_>>())
}

/// Reads one attribute.
///
/// # Errors
/// When its value is malformed.
pub(super) fn decode(
    code: u8,
    value: &[u8],
    four_octet_as: bool,
) -> Result<PathAttributeValue, PathAttributeParsingError> {
    // The flags were judged before: here the codec gets those that it wants.
    let flags = expected_flags(code).unwrap_or(flag::OPTIONAL);
    let length = u16::try_from(value.len()).unwrap_or(u16::MAX).to_be_bytes();
    let mut bytes = vec![flags | flag::EXTENDED_LENGTH, code];
    bytes.extend(length);
    bytes.extend(value);
    let mut context = BgpParsingContext::default();
    context.set_asn4(four_octet_as);
    let read = PathAttribute::parse(&mut SliceReader::new(&bytes), &mut context)?;
    Ok(read.value().clone())
}

/// The optional and transitive flags of the types that are known.
pub(super) const fn expected_flags(code: u8) -> Option<u8> {
    match code {
        1 | 2 | 3 | 5 | 6 => Some(flag::TRANSITIVE),
        4 | 9 | 10 | 14 | 15 => Some(flag::OPTIONAL),
        7 | 8 | 16 | 17 | 18 | 32 => Some(flag::OPTIONAL | flag::TRANSITIVE),
        _ => None,
    }
}

/// All AS numbers of a path, members of sets included.
pub(super) fn flat(path: &AsPath) -> Vec<u32> {
    match path {
        AsPath::As2PathSegments(segments) => {
            let numbers = segments.iter().flat_map(|it| it.as_numbers().iter());
            numbers.map(|it| u32::from(*it)).collect()
        }
        AsPath::As4PathSegments(segments) => {
            segments.iter().flat_map(|it| it.as_numbers().iter()).copied().collect()
        }
    }
}

//! UPDATEs that we receive, with the error classes of RFC 7606.
//!
//! A part of `wire`. Only what makes the routes of a message unreadable ends the session; else
//! they count as withdrawn, or one attribute as not there.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use netgauze_bgp_pkt::path_attribute::PathAttributeValue as Value;
use netgauze_parse_utils::error::ParseError;
use netgauze_parse_utils::reader::SliceReader;
use netgauze_parse_utils::traits::ParseFrom as _;

use super::attributes::{decode, expected_flags, flag, flat};
use super::notification::code;
use super::{Dialect, Family, Flaw};
use crate::bgp::community::{Community, ExtendedCommunity, LargeCommunity};
use crate::bgp::route::Attributes;

const ORIGIN: u8 = 1;
const AS_PATH: u8 = 2;
const NEXT_HOP: u8 = 3;
const LOCAL_PREF: u8 = 5;
const COMMUNITIES: u8 = 8;
const ORIGINATOR_ID: u8 = 9;
const CLUSTER_LIST: u8 = 10;
const MP_REACH_NLRI: u8 = 14;
const MP_UNREACH_NLRI: u8 = 15;
const EXTENDED_COMMUNITIES: u8 = 16;
const AS4_PATH: u8 = 17;
const LARGE_COMMUNITIES: u8 = 32;

/// An UPDATE.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Update {
    /// Prefixes that the peer no longer has, or announced in a way that counts as that.
    pub withdrawn: Vec<IpNet>,
    /// Prefixes that the peer announces with `route`, and their next hop.
    pub announced: Vec<(IpNet, Option<IpAddr>)>,
    /// The attributes of `announced`, without the next hops: AS_PATH with the members of AS_SETs,
    /// and AS4_PATH merged in (RFC 6793).
    pub route: Attributes,
    /// It is the end of the family's initial routes (RFC 4724).
    pub end_of_rib: Option<Family>,
    /// What was wrong with it and tolerated.
    pub tolerated: Vec<String>,
}

/// An attribute as it stands in the message.
struct Raw<'a> {
    flags: u8,
    code: u8,
    value: &'a [u8],
}

/// What is gathered on the way through the attributes.
#[derive(Default)]
struct Gathered {
    update: Update,
    seen: BTreeSet<u8>,
    /// The routes count as withdrawn.
    withdraw: bool,
    as4_path: Vec<u32>,
    next_hop: Option<IpAddr>,
    unreach: Option<Family>,
}

impl Update {
    /// Reads a body.
    ///
    /// # Errors
    /// When the routes cannot be told.
    pub(super) fn decode(body: &[u8], dialect: Dialect) -> Result<Self, Flaw> {
        let cut = |_: ParseError| malformed("an UPDATE whose lengths contradict each other");
        let Parts { withdrawn, attributes, nlri } = Parts::of(body).map_err(cut)?;
        let mut all = Gathered::default();
        let withdrawn = prefixes(Family::Ipv4, withdrawn)?;
        let announced = prefixes(Family::Ipv4, nlri)?;
        let empty = withdrawn.is_empty() && announced.is_empty();
        let mut reader = SliceReader::new(attributes);
        while !reader.is_empty() {
            match raw(&mut reader) {
                Ok(raw) => all.take(&raw, dialect)?,
                Err(_cut) => {
                    // RFC 7606 section 4: the routes' place is still known.
                    all.tolerate("the path attributes are cut off", true);
                    break;
                }
            }
        }
        if empty && all.update.announced.is_empty() && all.update.withdrawn.is_empty() {
            let only_unreach = all.seen.len() == 1;
            all.update.end_of_rib = match all.unreach {
                None if attributes.is_empty() => Some(Family::Ipv4),
                Some(family) if only_unreach => Some(family),
                _ => None,
            };
        }
        all.update.withdrawn.extend(withdrawn);
        let next_hop = all.next_hop;
        all.require(NEXT_HOP, !announced.is_empty());
        all.update.announced.extend(announced.into_iter().map(|prefix| (prefix, next_hop)));
        Ok(all.finish())
    }
}

impl Gathered {
    fn tolerate(&mut self, text: impl Into<String>, withdraw: bool) {
        self.withdraw |= withdraw;
        self.update.tolerated.push(text.into());
    }

    /// Takes an attribute.
    fn take(&mut self, raw: &Raw<'_>, dialect: Dialect) -> Result<(), Flaw> {
        let multiprotocol = matches!(raw.code, MP_REACH_NLRI | MP_UNREACH_NLRI);
        if !self.seen.insert(raw.code) {
            if multiprotocol {
                return Err(malformed("an UPDATE with two lists of routes of one type"));
            }
            self.tolerate(format!("path attribute {} twice", raw.code), false);
            return Ok(());
        }
        let flags = raw.flags & (flag::OPTIONAL | flag::TRANSITIVE);
        match expected_flags(raw.code) {
            Some(expected) if expected != flags => {
                self.tolerate(format!("the flags of path attribute {}", raw.code), true);
            }
            Some(_) => {}
            None if flags & flag::OPTIONAL == 0 => {
                let text = format!("the unknown well-known path attribute {}", raw.code);
                return Err(Flaw::new(code::UNRECOGNIZED_WELL_KNOWN, &raw.bytes(), text));
            }
            None => return Ok(()),
        }
        match raw.code {
            MP_REACH_NLRI => self.reach(raw, dialect),
            MP_UNREACH_NLRI => self.unreach(raw, dialect),
            _ => {
                self.value(raw, dialect);
                Ok(())
            }
        }
    }

    /// Takes an attribute other than the two with routes.
    fn value(&mut self, raw: &Raw<'_>, dialect: Dialect) {
        // From another AS these mean nothing (RFC 7606 section 7).
        let foreign = matches!(raw.code, LOCAL_PREF | ORIGINATOR_ID | CLUSTER_LIST);
        if foreign && !dialect.internal {
            return;
        }
        let listed = matches!(raw.code, COMMUNITIES | EXTENDED_COMMUNITIES | LARGE_COMMUNITIES);
        if raw.code == EXTENDED_COMMUNITIES && !raw.value.is_empty() {
            let (all, rest) = raw.value.as_chunks::<8>();
            if rest.is_empty() {
                let all = all.iter().map(|it| ExtendedCommunity(*it));
                self.update.route.extended_communities.extend(all);
                return;
            }
        }
        let value = decode(raw.code, raw.value, dialect.four_octet_as);
        match value {
            Ok(value) if !(listed && raw.value.is_empty()) => self.store(value, dialect),
            _ => {
                // RFC 7606 section 7: an aggregator, or a path beside the path, is dispensable.
                let withdraw = !matches!(raw.code, 6 | 7 | AS4_PATH | 18);
                self.tolerate(format!("path attribute {} is malformed", raw.code), withdraw);
            }
        }
    }

    fn store(&mut self, value: Value, dialect: Dialect) {
        let route = &mut self.update.route;
        #[expect(clippy::wildcard_enum_match_arm, reason = "the codec knows types we do not need")]
        match value {
            Value::AsPath(path) => route.as_path = flat(&path),
            Value::As4Path(path) if !dialect.four_octet_as => {
                let numbers = path.segments().iter().flat_map(|it| it.as_numbers().iter());
                self.as4_path = numbers.copied().collect();
            }
            Value::NextHop(next_hop) => self.next_hop = Some(next_hop.next_hop().into()),
            Value::MultiExitDiscriminator(med) => route.med = Some(med.metric()),
            Value::LocalPreference(it) => route.local_preference = Some(it.metric()),
            Value::Communities(all) => {
                route.communities.extend(all.communities().iter().map(|it| Community(it.value())));
            }
            Value::LargeCommunities(all) => {
                let all = all.communities().iter().map(|it| LargeCommunity {
                    global: it.global_admin(),
                    data1: it.local_data1(),
                    data2: it.local_data2(),
                });
                route.large_communities.extend(all);
            }
            _ => {}
        }
    }

    /// Takes MP_REACH_NLRI (RFC 4760 section 3).
    fn reach(&mut self, raw: &Raw<'_>, dialect: Dialect) -> Result<(), Flaw> {
        let cut = |_: ParseError| raw.wrong("MP_REACH_NLRI is cut off");
        let mut reader = SliceReader::new(raw.value);
        let Some(family) = family(&mut reader, dialect).map_err(cut)? else {
            return Ok(());
        };
        let length = usize::from(reader.read_u8().map_err(cut)?);
        let next_hop = reader.read_bytes(length).map_err(cut)?;
        reader.read_u8().map_err(cut)?;
        let allowed = family == Family::Ipv6 || dialect.extended_next_hop;
        let next_hop: IpAddr = match (next_hop, next_hop.first_chunk::<16>()) {
            (&[a, b, c, d], _) if family == Family::Ipv4 => Ipv4Addr::new(a, b, c, d).into(),
            // A link-local address may follow.
            (all, Some(global)) if allowed && matches!(all.len(), 16 | 32) => {
                Ipv6Addr::from(*global).into()
            }
            _ => return Err(raw.wrong("a next hop of a wrong length")),
        };
        let announced = prefixes(family, reader.as_slice())?;
        let announced = announced.into_iter().map(|prefix| (prefix, Some(next_hop)));
        self.update.announced.extend(announced);
        Ok(())
    }

    /// Takes MP_UNREACH_NLRI (RFC 4760 section 4).
    fn unreach(&mut self, raw: &Raw<'_>, dialect: Dialect) -> Result<(), Flaw> {
        let cut = |_: ParseError| raw.wrong("MP_UNREACH_NLRI is cut off");
        let mut reader = SliceReader::new(raw.value);
        if let Some(family) = family(&mut reader, dialect).map_err(cut)? {
            self.update.withdrawn.extend(prefixes(family, reader.as_slice())?);
            self.unreach = Some(family);
        }
        Ok(())
    }

    /// Counts the routes as withdrawn when an attribute they need is missing.
    fn require(&mut self, code: u8, needed: bool) {
        if needed && !self.seen.contains(&code) {
            self.tolerate(format!("path attribute {code} is missing"), true);
        }
    }

    fn finish(mut self) -> Update {
        let announces = !self.update.announced.is_empty();
        self.require(ORIGIN, announces);
        self.require(AS_PATH, announces);
        let mut update = self.update;
        if self.withdraw {
            update.withdrawn.extend(update.announced.drain(..).map(|(prefix, _)| prefix));
        }
        // RFC 6793 section 4.2.3: the tail of the path has its 32 bits beside it.
        let path = &mut update.route.as_path;
        if let Some(head) = path.len().checked_sub(self.as4_path.len()) {
            path.truncate(head);
            path.extend(self.as4_path);
        }
        update
    }
}

impl Raw<'_> {
    /// Its bytes, for the data of a NOTIFICATION.
    fn bytes(&self) -> Vec<u8> {
        let mut bytes = vec![self.flags | flag::EXTENDED_LENGTH, self.code];
        bytes.extend(u16::try_from(self.value.len()).unwrap_or(u16::MAX).to_be_bytes());
        bytes.extend(self.value);
        bytes
    }

    fn wrong(&self, text: &str) -> Flaw {
        Flaw::new(code::OPTIONAL_ATTRIBUTE, &self.bytes(), text)
    }
}

fn malformed(text: &str) -> Flaw {
    Flaw::new(code::MALFORMED_ATTRIBUTES, &[], text)
}

/// The three parts of an UPDATE.
struct Parts<'a> {
    withdrawn: &'a [u8],
    attributes: &'a [u8],
    nlri: &'a [u8],
}

impl<'a> Parts<'a> {
    fn of(body: &'a [u8]) -> Result<Self, ParseError> {
        let mut reader = SliceReader::new(body);
        let length = reader.read_u16_be()?;
        let withdrawn = reader.read_bytes(usize::from(length))?;
        let length = reader.read_u16_be()?;
        let attributes = reader.read_bytes(usize::from(length))?;
        Ok(Self { withdrawn, attributes, nlri: reader.as_slice() })
    }
}

/// The next path attribute.
fn raw<'a>(reader: &mut SliceReader<'a>) -> Result<Raw<'a>, ParseError> {
    let flags = reader.read_u8()?;
    let code = reader.read_u8()?;
    let length = if flags & flag::EXTENDED_LENGTH == 0 {
        usize::from(reader.read_u8()?)
    } else {
        usize::from(reader.read_u16_be()?)
    };
    Ok(Raw { flags, code, value: reader.read_bytes(length)? })
}

/// The family at the beginning of an attribute with routes; `None`: not one that was negotiated.
fn family(reader: &mut SliceReader<'_>, dialect: Dialect) -> Result<Option<Family>, ParseError> {
    let afi = reader.read_u16_be()?;
    let safi = reader.read_u8()?;
    Ok(Family::from_numbers(afi, safi).filter(|family| dialect.has(*family)))
}

/// A list of prefixes; host bits do not count.
fn prefixes(family: Family, bytes: &[u8]) -> Result<Vec<IpNet>, Flaw> {
    let mut reader = SliceReader::new(bytes);
    let mut all = Vec::new();
    while !reader.is_empty() {
        let prefix = match family {
            Family::Ipv4 => Ipv4Net::parse(&mut reader).ok().map(IpNet::V4),
            Family::Ipv6 => Ipv6Net::parse(&mut reader).ok().map(IpNet::V6),
        };
        let prefix =
            prefix.ok_or_else(|| Flaw::new(code::INVALID_NETWORK, &[], "a prefix that is none"))?;
        all.push(prefix.trunc());
    }
    Ok(all)
}

//! OPEN and its capabilities (RFC 4271 section 4.2, RFC 5492, RFC 9072).
//!
//! A part of `wire`. Capabilities that are not known, or malformed, count as not there; a family
//! that is not known inside a capability does not spoil the others.

use std::net::Ipv4Addr;

use netgauze_bgp_pkt::BgpMessage;
use netgauze_bgp_pkt::capabilities::{
    BgpCapability, ExtendedNextHopEncoding, ExtendedNextHopEncodingCapability,
    FourOctetAsCapability, GracefulRestartAddressFamily, GracefulRestartCapability,
    MultiProtocolExtensionsCapability,
};
use netgauze_bgp_pkt::open::{BgpOpenMessage, BgpOpenMessageParameter};
use netgauze_iana::address_family::{AddressFamily, AddressType};
use netgauze_parse_utils::WritablePdu as _;
use netgauze_parse_utils::error::ParseError;
use netgauze_parse_utils::reader::SliceReader;

use super::notification::code;
use super::{Family, Flaw};

/// Stands for an AS number that has no 16 bits (RFC 6793).
pub const AS_TRANS: u16 = 23_456;
/// The version of BGP.
const VERSION: u8 = 4;
/// The optional parameter that carries capabilities.
const CAPABILITIES: u8 = 2;
/// Both length and type of the first parameter when lengths have 16 bits (RFC 9072).
const EXTENDED: u8 = 255;
/// Restart times have 12 bits.
const MAX_RESTART: u16 = 0x0fff;

/// An OPEN.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Open {
    /// The sender's AS number, out of the capability if there is one.
    pub asn: u32,
    /// Proposed hold time, seconds; 0: no keepalives.
    pub hold_time: u16,
    /// BGP identifier.
    pub router_id: Ipv4Addr,
    /// Families, of the two that are known; a peer without the capability takes IPv4.
    pub families: Vec<Family>,
    /// AS numbers have 32 bits (RFC 6793).
    pub four_octet_as: bool,
    /// Takes IPv4 prefixes with an IPv6 next hop (RFC 8950).
    pub extended_next_hop: bool,
    /// Route refresh (RFC 2918).
    pub route_refresh: bool,
    /// Enhanced route refresh (RFC 7313).
    pub enhanced_route_refresh: bool,
    /// Graceful restart (RFC 4724).
    pub graceful_restart: Option<GracefulRestart>,
}

/// The graceful restart capability.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GracefulRestart {
    /// R: the sender has restarted.
    pub restarted: bool,
    /// N: NOTIFICATIONs are survived as well (RFC 8538).
    pub notification: bool,
    /// Seconds, at most 4,095.
    pub time: u16,
    /// Families whose routes are kept, each with F: forwarding went on.
    pub families: Vec<(Family, bool)>,
}

const fn address_type(family: Family) -> AddressType {
    match family {
        Family::Ipv4 => AddressType::Ipv4Unicast,
        Family::Ipv6 => AddressType::Ipv6Unicast,
    }
}

impl Open {
    /// The message.
    #[must_use]
    pub fn bytes(&self) -> Vec<u8> {
        let asn = u16::try_from(self.asn).unwrap_or(AS_TRANS);
        let parameters = vec![BgpOpenMessageParameter::Capabilities(self.capabilities().into())];
        let open = BgpOpenMessage::new(asn, self.hold_time, self.router_id, parameters);
        let message = BgpMessage::Open(open);
        let mut bytes = Vec::with_capacity(message.len());
        // Writing to memory cannot fail, and the capabilities have fixed, short lengths.
        let written = message.write(&mut bytes);
        debug_assert!(written.is_ok());
        bytes
    }

    fn capabilities(&self) -> Vec<BgpCapability> {
        let families = self.families.iter().map(|family| {
            let family = MultiProtocolExtensionsCapability::new(address_type(*family));
            BgpCapability::MultiProtocolExtensions(family)
        });
        let mut all: Vec<_> = families.collect();
        if self.route_refresh {
            all.push(BgpCapability::RouteRefresh);
        }
        if self.extended_next_hop {
            let encoding =
                ExtendedNextHopEncoding::new(AddressType::Ipv4Unicast, AddressFamily::IPv6);
            let capability = ExtendedNextHopEncodingCapability::new(vec![encoding]);
            all.push(BgpCapability::ExtendedNextHopEncoding(capability));
        }
        if let Some(restart) = &self.graceful_restart {
            let families = restart.families.iter().map(|(family, kept)| {
                GracefulRestartAddressFamily::new(*kept, address_type(*family))
            });
            all.push(BgpCapability::GracefulRestartCapability(GracefulRestartCapability::new(
                restart.restarted,
                restart.notification,
                restart.time.min(MAX_RESTART),
                families.collect::<Vec<_>>(),
            )));
        }
        if self.four_octet_as {
            all.push(BgpCapability::FourOctetAs(FourOctetAsCapability::new(self.asn)));
        }
        if self.enhanced_route_refresh {
            all.push(BgpCapability::EnhancedRouteRefresh);
        }
        all
    }

    /// Reads a body.
    pub(super) fn decode(body: &[u8]) -> Result<Self, Flaw> {
        let mut reader = SliceReader::new(body);
        let cut = |_: ParseError| Flaw::new(code::OPEN_MALFORMED, &[], "an OPEN is cut off");
        let version = reader.read_u8().map_err(cut)?;
        if version != VERSION {
            let text = format!("BGP version {version}");
            return Err(Flaw::new(code::UNSUPPORTED_VERSION, &[0, VERSION], text));
        }
        let asn = u32::from(reader.read_u16_be().map_err(cut)?);
        let hold_time = reader.read_u16_be().map_err(cut)?;
        if matches!(hold_time, 1 | 2) {
            let text = format!("a hold time of {hold_time} s");
            return Err(Flaw::new(code::UNACCEPTABLE_HOLD_TIME, &hold_time.to_be_bytes(), text));
        }
        let router_id = Ipv4Addr::from(reader.read_u32_be().map_err(cut)?);
        let mut open = Self {
            asn,
            hold_time,
            router_id,
            families: Vec::new(),
            four_octet_as: false,
            extended_next_hop: false,
            route_refresh: false,
            enhanced_route_refresh: false,
            graceful_restart: None,
        };
        let multiprotocol = open.parameters(reader)?;
        if !multiprotocol {
            open.families.push(Family::Ipv4);
        }
        Ok(open)
    }

    /// Reads the optional parameters; whether any multiprotocol capability was among them.
    fn parameters(&mut self, mut reader: SliceReader<'_>) -> Result<bool, Flaw> {
        let cut = |_: ParseError| Flaw::new(code::OPEN_MALFORMED, &[], "an OPEN is cut off");
        let mut length = usize::from(reader.read_u8().map_err(cut)?);
        let extended = length == usize::from(EXTENDED)
            && reader.peek_u8().is_ok_and(|first| first == EXTENDED);
        if extended {
            reader.read_u8().map_err(cut)?;
            length = usize::from(reader.read_u16_be().map_err(cut)?);
        }
        let mut parameters = reader.take_slice(length).map_err(cut)?;
        if !reader.is_empty() {
            return Err(Flaw::new(code::OPEN_MALFORMED, &[], "bytes after an OPEN"));
        }
        let mut multiprotocol = false;
        while !parameters.is_empty() {
            let kind = parameters.read_u8().map_err(cut)?;
            let length = if extended {
                usize::from(parameters.read_u16_be().map_err(cut)?)
            } else {
                usize::from(parameters.read_u8().map_err(cut)?)
            };
            let mut value = parameters.take_slice(length).map_err(cut)?;
            if kind != CAPABILITIES {
                let text = format!("the unknown optional parameter {kind} in an OPEN");
                return Err(Flaw::new(code::UNSUPPORTED_PARAMETER, &[], text));
            }
            while !value.is_empty() {
                let capability = value.read_u8().map_err(cut)?;
                let length = usize::from(value.read_u8().map_err(cut)?);
                let bytes = value.read_bytes(length).map_err(cut)?;
                multiprotocol |= capability == 1;
                self.capability(capability, bytes);
            }
        }
        Ok(multiprotocol)
    }

    fn capability(&mut self, number: u8, value: &[u8]) {
        match (number, value) {
            (1, &[high, low, _, safi]) => {
                let family = Family::from_numbers(u16::from_be_bytes([high, low]), safi);
                let new = family.filter(|family| !self.families.contains(family));
                self.families.extend(new);
            }
            (2, []) => self.route_refresh = true,
            (5, _) => {
                let (encodings, _) = value.as_chunks::<6>();
                self.extended_next_hop |= encodings.contains(&[0, 1, 0, 1, 0, 2]);
            }
            (64, &[high, low, ref families @ ..]) => {
                let (families, _) = families.as_chunks::<4>();
                let families = families.iter().filter_map(|&[high, low, safi, flags]| {
                    let family = Family::from_numbers(u16::from_be_bytes([high, low]), safi);
                    family.map(|family| (family, flags & 0x80 != 0))
                });
                self.graceful_restart = Some(GracefulRestart {
                    restarted: high & 0x80 != 0,
                    notification: high & 0x40 != 0,
                    time: u16::from_be_bytes([high, low]) & MAX_RESTART,
                    families: families.collect(),
                });
            }
            (65, &[a, b, c, d]) => {
                self.four_octet_as = true;
                self.asn = u32::from_be_bytes([a, b, c, d]);
            }
            (70, []) => self.enhanced_route_refresh = true,
            _ => {}
        }
    }
}

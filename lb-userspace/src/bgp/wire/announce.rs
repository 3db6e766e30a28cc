//! UPDATEs that we send: routes of one set of attributes and one family, as many as fit.
//!
//! A part of `wire`.

use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use netgauze_bgp_pkt::BgpMessage;
use netgauze_bgp_pkt::nlri::{Ipv4Unicast, Ipv4UnicastAddress, Ipv6Unicast, Ipv6UnicastAddress};
use netgauze_bgp_pkt::path_attribute::{
    MpReach, MpUnreach, NextHop, PathAttribute, PathAttributeValue,
};
use netgauze_bgp_pkt::update::BgpUpdateMessage;
use netgauze_parse_utils::WritablePdu as _;

use super::attributes::{attribute, encode};
use super::{Dialect, Family, HEADER, MAX_MESSAGE};
use crate::bgp::route::Attributes;

/// Bytes of an UPDATE without routes and attributes: the header and two lengths.
const EMPTY: usize = HEADER + 4;
/// Bytes of MP_REACH_NLRI without routes: attribute header with 16 bits of length, AFI, SAFI, the
/// next hop with its length, one reserved.
const MP_REACH: usize = 4 + 3 + 17 + 1;
/// Bytes of MP_UNREACH_NLRI without routes.
const MP_UNREACH: usize = 4 + 3;

/// Why a route cannot be told to a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unsendable {
    /// The family was not negotiated.
    #[error("the peer does not take this address family")]
    Family,
    /// The prefix is no unicast prefix.
    #[error("not a unicast prefix")]
    Prefix,
    /// There is no next hop of a family that the peer takes.
    #[error("no next hop that the peer takes for this address family")]
    NextHop,
    /// A path to another AS begins with our own.
    #[error("the path does not begin with our AS number")]
    Path,
    /// The attributes alone fill a message.
    #[error("its attributes do not fit a message")]
    Size,
}

/// The next hop that a route has in a session with the local address `local`.
///
/// # Errors
/// [`Unsendable::NextHop`] when that is not of a family the peer takes.
pub fn next_hop(
    family: Family,
    attributes: &Attributes,
    local: IpAddr,
    dialect: Dialect,
) -> Result<IpAddr, Unsendable> {
    let next_hop = attributes.next_hop.unwrap_or(local).to_canonical();
    match (family, next_hop) {
        (Family::Ipv4, IpAddr::V4(_)) | (Family::Ipv6, IpAddr::V6(_)) => Ok(next_hop),
        (Family::Ipv4, IpAddr::V6(_)) if dialect.extended_next_hop => Ok(next_hop),
        (Family::Ipv4, IpAddr::V6(_)) | (Family::Ipv6, IpAddr::V4(_)) => Err(Unsendable::NextHop),
    }
}

/// An UPDATE that announces the first of `prefixes`, all of one family, and how many they are.
///
/// # Errors
/// When not even the first one can be announced.
pub fn announcement(
    attributes: &Attributes,
    prefixes: &[IpNet],
    next_hop: IpAddr,
    dialect: Dialect,
) -> Result<(Vec<u8>, usize), Unsendable> {
    let mut list = encode(attributes, dialect);
    if let IpAddr::V4(next_hop) = next_hop {
        let value = PathAttributeValue::NextHop(NextHop::new(next_hop));
        // After ORIGIN and AS_PATH, in the order of the types.
        list.splice(2..2, attribute(value, false));
    }
    let length: usize = list.iter().map(PathAttribute::len).sum();
    let fixed = EMPTY + length + if next_hop.is_ipv6() { MP_REACH } else { 0 };
    let taken = fitting(prefixes, fixed);
    let (now, _) = prefixes.split_at(taken);
    let first = now.first().ok_or(Unsendable::Size)?;
    let update = match (Family::of(first), next_hop) {
        (_, IpAddr::V4(_)) => BgpUpdateMessage::new(vec![], list, nlri4(now)?),
        (Family::Ipv4, IpAddr::V6(_)) => {
            let nlri = nlri4(now)?.into();
            let reach = MpReach::Ipv4Unicast { next_hop, next_hop_local: None, nlri };
            list.splice(0..0, attribute(PathAttributeValue::MpReach(reach), true));
            BgpUpdateMessage::new(vec![], list, vec![])
        }
        (Family::Ipv6, IpAddr::V6(next_hop_global)) => {
            let nlri = nlri6(now)?.into();
            let reach = MpReach::Ipv6Unicast { next_hop_global, next_hop_local: None, nlri };
            list.splice(0..0, attribute(PathAttributeValue::MpReach(reach), true));
            BgpUpdateMessage::new(vec![], list, vec![])
        }
    };
    Ok((write(update)?, taken))
}

/// An UPDATE that withdraws the first of `prefixes`, all of one family, and how many they are.
///
/// # Errors
/// When one of them is no unicast prefix; such a route was never announced.
pub fn withdrawal(prefixes: &[IpNet]) -> Result<(Vec<u8>, usize), Unsendable> {
    let six = prefixes.first().is_some_and(|first| Family::of(first) == Family::Ipv6);
    let taken = fitting(prefixes, EMPTY + if six { MP_UNREACH } else { 0 });
    let (now, _) = prefixes.split_at(taken);
    let update = if six {
        let unreach = MpUnreach::Ipv6Unicast { nlri: nlri6(now)?.into() };
        let list: Vec<_> =
            attribute(PathAttributeValue::MpUnreach(unreach), true).into_iter().collect();
        BgpUpdateMessage::new(vec![], list, vec![])
    } else {
        BgpUpdateMessage::new(nlri4(now)?, vec![], vec![])
    };
    Ok((write(update)?, taken))
}

/// End-of-RIB (RFC 4724 section 2).
#[must_use]
pub fn end_of_rib(family: Family) -> Vec<u8> {
    let list = match family {
        Family::Ipv4 => vec![],
        Family::Ipv6 => {
            let unreach = MpUnreach::Ipv6Unicast { nlri: [].into() };
            attribute(PathAttributeValue::MpUnreach(unreach), false).into_iter().collect()
        }
    };
    write(BgpUpdateMessage::new(vec![], list, vec![])).unwrap_or_default()
}

/// Whether a prefix can be announced as unicast.
#[must_use]
pub fn is_unicast(prefix: &IpNet) -> bool {
    match prefix {
        IpNet::V4(net) => Ipv4Unicast::from_net(*net).is_ok(),
        IpNet::V6(net) => Ipv6Unicast::from_net(*net).is_ok(),
    }
}

/// How many prefixes fit a message of which `fixed` bytes are taken.
fn fitting(prefixes: &[IpNet], fixed: usize) -> usize {
    let mut length = fixed;
    let fits = |prefix: &&IpNet| {
        length += 1 + usize::from(prefix.prefix_len()).div_ceil(8);
        length <= MAX_MESSAGE
    };
    prefixes.iter().take_while(fits).count()
}

fn nlri4(prefixes: &[IpNet]) -> Result<Vec<Ipv4UnicastAddress>, Unsendable> {
    let address = |prefix: &IpNet| {
        let net = match prefix {
            IpNet::V4(net) => Ipv4Unicast::from_net(Ipv4Net::trunc(net)).ok(),
            IpNet::V6(_) => None,
        };
        net.map(Ipv4UnicastAddress::new_no_path_id).ok_or(Unsendable::Prefix)
    };
    prefixes.iter().map(address).collect()
}

fn nlri6(prefixes: &[IpNet]) -> Result<Vec<Ipv6UnicastAddress>, Unsendable> {
    let address = |prefix: &IpNet| {
        let net = match prefix {
            IpNet::V6(net) => Ipv6Unicast::from_net(Ipv6Net::trunc(net)).ok(),
            IpNet::V4(_) => None,
        };
        net.map(|net| Ipv6UnicastAddress::new(None, net)).ok_or(Unsendable::Prefix)
    };
    prefixes.iter().map(address).collect()
}

/// The codec writes lengths as they come, cut to 16 bits: what is longer than a message may be
/// must not reach it.
fn write(update: BgpUpdateMessage) -> Result<Vec<u8>, Unsendable> {
    let message = BgpMessage::Update(update);
    let mut bytes = Vec::with_capacity(message.len());
    if message.len() > MAX_MESSAGE || message.write(&mut bytes).is_err() {
        return Err(Unsendable::Size);
    }
    Ok(bytes)
}

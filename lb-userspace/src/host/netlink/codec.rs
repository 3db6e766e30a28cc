//! Our questions as netlink messages, and netlink messages as the events of `resolution`.
//!
//! Pure: no socket, no clock. The only file that knows the attribute types of rtnetlink.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use rtnetlink::packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_REPLACE, NLM_F_REQUEST, NetlinkMessage,
};
use rtnetlink::packet_route::link::{LinkAttribute, LinkFlags, LinkMessage};
use rtnetlink::packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourExtFlags, NeighbourFlags, NeighbourMessage,
    NeighbourState,
};
use rtnetlink::packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteMessage, RouteMetric, RouteNextHop,
    RouteNextHopFlags, RouteProtocol, RouteType, RouteVia,
};
use rtnetlink::packet_route::{AddressFamily, RouteNetlinkMessage};

use super::neighbours::{Key, Seen, Sighting};
use super::resolution::{Hop, Lookup, Prefix};
use super::{Link, MAX_HOPS, NEIGHBOUR_PROTOCOL, Unresolved};

pub(super) type Message = NetlinkMessage<RouteNetlinkMessage>;

/// What a notification means to the resolver.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Notice {
    /// A link appeared or changed.
    Link(Link),
    /// The link with this index is gone.
    LinkGone(u32),
    /// A neighbour entry appeared or changed.
    Neighbour(Key, Sighting),
    /// A neighbour entry is gone.
    NeighbourGone(Key),
    /// Routes to this prefix changed.
    Route(Prefix),
    /// Any route may have changed (rules, addresses).
    Everything,
}

fn message(inner: RouteNetlinkMessage, flags: u16) -> Message {
    let mut message = NetlinkMessage::from(inner);
    message.header.flags = NLM_F_REQUEST | flags;
    message
}

fn family(address: IpAddr) -> AddressFamily {
    if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 }
}

/// Asks for the route to an address: the kernel's choice with what it learned about the path, or
/// the matching entry of its table with all next hops.
pub(super) fn route_query(destination: IpAddr, lookup: Lookup) -> Message {
    let mut route = RouteMessage::default();
    route.header.address_family = family(destination);
    route.header.destination_prefix_length = if destination.is_ipv4() { 32 } else { 128 };
    if lookup == Lookup::Alternatives {
        route.header.flags = RouteFlags::FibMatch;
    }
    route.attributes.push(RouteAttribute::Destination(destination.into()));
    message(RouteNetlinkMessage::GetRoute(route), 0)
}

fn neighbour(key: &Key) -> NeighbourMessage {
    let mut neighbour = NeighbourMessage::default();
    neighbour.header.family = family(key.address);
    neighbour.header.ifindex = key.interface;
    neighbour.attributes.push(NeighbourAttribute::Destination(key.address.into()));
    neighbour
}

/// Asks for one neighbour entry.
pub(super) fn neighbour_query(key: &Key) -> Message {
    message(RouteNetlinkMessage::GetNeighbour(neighbour(key)), 0)
}

/// Makes or takes over an entry that the kernel itself keeps resolved.
///
/// NTF_EXT_LEARNED exempts it from the garbage collector and its thresholds, which a table of
/// many backends would hit otherwise.
pub(super) fn neighbour_hold(key: &Key) -> Message {
    let mut entry = neighbour(key);
    entry.header.flags = NeighbourFlags::ExtLearned;
    entry.attributes.push(NeighbourAttribute::ExtFlags(NeighbourExtFlags::Managed));
    put(entry)
}

/// Makes or takes over an entry and lets the kernel resolve it once.
pub(super) fn neighbour_probe(key: &Key) -> Message {
    let mut entry = neighbour(key);
    entry.header.flags = NeighbourFlags::ExtLearned | NeighbourFlags::Use;
    put(entry)
}

/// Fixes the MAC address of an entry.
pub(super) fn neighbour_pin(key: &Key, mac: [u8; 6]) -> Message {
    let mut entry = neighbour(key);
    entry.header.state = NeighbourState::Permanent;
    entry.attributes.push(NeighbourAttribute::LinkLayerAddress(mac.to_vec()));
    put(entry)
}

fn put(mut entry: NeighbourMessage) -> Message {
    let protocol = RouteProtocol::from(NEIGHBOUR_PROTOCOL);
    entry.attributes.push(NeighbourAttribute::Protocol(protocol));
    message(RouteNetlinkMessage::NewNeighbour(entry), NLM_F_ACK | NLM_F_CREATE | NLM_F_REPLACE)
}

/// Removes an entry.
pub(super) fn neighbour_release(key: &Key) -> Message {
    message(RouteNetlinkMessage::DelNeighbour(neighbour(key)), NLM_F_ACK)
}

/// Asks for all links.
pub(super) fn link_dump() -> Message {
    message(RouteNetlinkMessage::GetLink(LinkMessage::default()), NLM_F_DUMP)
}

/// Asks for all neighbour entries of IPv4 and IPv6.
pub(super) fn neighbour_dump() -> Message {
    message(RouteNetlinkMessage::GetNeighbour(NeighbourMessage::default()), NLM_F_DUMP)
}

/// The meaning of a notification or of one message of a dump; `None` if it means nothing to us.
pub(super) fn notice(message: &RouteNetlinkMessage) -> Option<Notice> {
    use RouteNetlinkMessage as M;
    // The message types are an open set of which only these matter.
    #[expect(clippy::wildcard_enum_match_arm, reason = "an open set of another crate")]
    match message {
        // Bridge ports are announced a second time under their bridge's family, without the
        // flags and the MTU of the link itself.
        M::NewLink(link) | M::DelLink(link)
            if link.header.interface_family == AddressFamily::Bridge =>
        {
            None
        }
        M::NewLink(message) => link(message).map(Notice::Link),
        M::DelLink(link) => Some(Notice::LinkGone(link.header.index)),
        M::NewNeighbour(message) => {
            sighting(message).map(|(key, sighting)| Notice::Neighbour(key, sighting))
        }
        M::DelNeighbour(message) => sighting(message).map(|(key, _)| Notice::NeighbourGone(key)),
        M::NewRoute(route) | M::DelRoute(route) => changed_route(route),
        M::NewAddress(_) | M::DelAddress(_) | M::NewRule(_) | M::DelRule(_) => {
            Some(Notice::Everything)
        }
        _ => None,
    }
}

fn link(message: &LinkMessage) -> Option<Link> {
    let mut name = None;
    let mut mtu = 0;
    let mut mac = None;
    for attribute in &message.attributes {
        if let LinkAttribute::IfName(value) = attribute {
            name = Some(Arc::from(value.as_str()));
        } else if let LinkAttribute::Mtu(value) = attribute {
            mtu = *value;
        } else if let LinkAttribute::Address(value) = attribute {
            mac = <[u8; 6]>::try_from(value.as_slice()).ok();
        }
    }
    // IFF_RUNNING is the operational state: a carrier, and not dormant.
    let up = message.header.flags.contains(LinkFlags::Up | LinkFlags::Running);
    let mac = mac.filter(|mac| *mac != [0; 6]);
    Some(Link { index: message.header.index, name: name?, up, mtu, mac })
}

/// The entry a neighbour message is about; `None` for proxies, forwarding databases and others.
pub(super) fn sighting(message: &NeighbourMessage) -> Option<(Key, Sighting)> {
    if message.header.flags.contains(NeighbourFlags::Proxy) {
        return None;
    }
    let mut address = None;
    let mut mac = None;
    let (mut managed, mut ours) = (false, false);
    for attribute in &message.attributes {
        if let NeighbourAttribute::Destination(value) = attribute {
            address = neighbour_address(value);
        } else if let NeighbourAttribute::LinkLayerAddress(value) = attribute {
            mac = <[u8; 6]>::try_from(value.as_slice()).ok();
        } else if let NeighbourAttribute::ExtFlags(flags) = attribute {
            managed = flags.contains(NeighbourExtFlags::Managed);
        } else if let NeighbourAttribute::Protocol(protocol) = attribute {
            ours = u8::from(*protocol) == NEIGHBOUR_PROTOCOL;
        }
    }
    let state = message.header.state;
    let key = Key { interface: message.header.ifindex, address: address? };
    let permanent = state == NeighbourState::Permanent;
    Some((key, Sighting { seen: seen(state, mac), permanent, managed, ours }))
}

fn seen(state: NeighbourState, mac: Option<[u8; 6]>) -> Seen {
    match (state, mac.filter(|mac| *mac != [0; 6])) {
        (NeighbourState::Failed, _) => Seen::Failed,
        // None is the moment between two states of an entry whose kind is being changed.
        (NeighbourState::Incomplete | NeighbourState::None, _) | (_, None) => Seen::Trying,
        (_, Some(mac)) => Seen::Valid(mac),
    }
}

fn neighbour_address(address: &NeighbourAddress) -> Option<IpAddr> {
    if let NeighbourAddress::Inet(v4) = address {
        Some(IpAddr::V4(*v4))
    } else if let NeighbourAddress::Inet6(v6) = address {
        Some(IpAddr::V6(*v6))
    } else {
        None
    }
}

fn changed_route(route: &RouteMessage) -> Option<Notice> {
    let unspecified = if route.header.address_family == AddressFamily::Inet {
        IpAddr::V4(Ipv4Addr::UNSPECIFIED)
    } else if route.header.address_family == AddressFamily::Inet6 {
        IpAddr::V6(Ipv6Addr::UNSPECIFIED)
    } else {
        return None;
    };
    let address = route.attributes.iter().find_map(|attribute| {
        if let RouteAttribute::Destination(address) = attribute {
            route_address(address)
        } else {
            None
        }
    });
    let length = route.header.destination_prefix_length;
    Some(Notice::Route(Prefix { address: address.unwrap_or(unspecified), length }))
}

fn route_address(address: &RouteAddress) -> Option<IpAddr> {
    if let RouteAddress::Inet(v4) = address {
        Some(IpAddr::V4(*v4))
    } else if let RouteAddress::Inet6(v6) = address {
        Some(IpAddr::V6(*v6))
    } else {
        None
    }
}

/// The next hops that a route answer names, at most [`MAX_HOPS`], never an empty list.
pub(super) fn hops(message: &RouteNetlinkMessage) -> Result<Vec<Hop>, Unresolved> {
    let RouteNetlinkMessage::NewRoute(route) = message else {
        return Err(Unresolved::NoRoute);
    };
    let kind = route.header.kind;
    if matches!(kind, RouteType::Unreachable | RouteType::BlackHole | RouteType::Prohibit) {
        return Err(Unresolved::Unreachable);
    }
    if kind != RouteType::Unicast {
        return Err(Unresolved::NotRemote);
    }
    let mtu = route.attributes.iter().find_map(metric_mtu);
    let mut hops = Vec::new();
    for attribute in &route.attributes {
        if let RouteAttribute::MultiPath(paths) = attribute {
            hops.extend(paths.iter().filter_map(|path| path_hop(path, mtu)).take(MAX_HOPS));
        }
    }
    if hops.is_empty() {
        let interface = route.attributes.iter().find_map(|attribute| {
            if let RouteAttribute::Oif(index) = attribute { Some(*index) } else { None }
        });
        let interface = interface.ok_or(Unresolved::NoRoute)?;
        hops.push(Hop { interface, gateway: gateway(&route.attributes), mtu });
    }
    Ok(hops)
}

fn path_hop(path: &RouteNextHop, mtu: Option<u32>) -> Option<Hop> {
    if path.flags.intersects(RouteNextHopFlags::Dead | RouteNextHopFlags::Linkdown) {
        return None;
    }
    Some(Hop { interface: path.interface_index, gateway: gateway(&path.attributes), mtu })
}

/// RTA_GATEWAY, or RTA_VIA for a gateway of the other family (IPv4 by way of IPv6).
fn gateway(attributes: &[RouteAttribute]) -> Option<IpAddr> {
    attributes.iter().find_map(|attribute| {
        if let RouteAttribute::Gateway(address) = attribute {
            route_address(address)
        } else if let RouteAttribute::Via(RouteVia::Inet6(v6)) = attribute {
            Some(IpAddr::V6(*v6))
        } else if let RouteAttribute::Via(RouteVia::Inet(v4)) = attribute {
            Some(IpAddr::V4(*v4))
        } else {
            None
        }
    })
}

fn metric_mtu(attribute: &RouteAttribute) -> Option<u32> {
    let RouteAttribute::Metrics(metrics) = attribute else { return None };
    metrics.iter().find_map(|metric| {
        if let RouteMetric::Mtu(mtu) = metric { Some(*mtu).filter(|mtu| *mtu > 0) } else { None }
    })
}

/// What it means that the kernel answered a route query with this errno.
pub(super) const fn refused_route(errno: i32) -> Unresolved {
    match errno {
        // What the three kinds of refusing routes answer: unreachable, prohibit, blackhole.
        libc::EHOSTUNREACH | libc::EACCES | libc::EINVAL => Unresolved::Unreachable,
        _ => Unresolved::NoRoute,
    }
}

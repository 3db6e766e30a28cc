//! Wrapping a packet: outer headers for IPIP and GUE, IPv4 and IPv6 in every mix.
//!
//! Outer fields: DSCP and ECN copied (RFC 6040 normal mode), TTL 64, DF set and id 0 (RFC 6864:
//! an atomic datagram; what does not fit was answered with an ICMP error before). The inner
//! packet is not changed: its TTL is the client's business, for us it has arrived at its VIP.
//!
//! Entropy, so that the backend's NIC spreads load over its queues: GUE's UDP source port, IPIP's
//! outer source address, and the flow label of an outer IPv6 header (RFC 6438).

use crate::addr::Address;
use crate::backend::{Backend, BackendId, Link, Outer};
use crate::checksum;
use crate::control::Settings;
use crate::decide::Decision;
use crate::headers::{
    ETHERTYPE_IPV4, ETHERTYPE_IPV6, Ethernet, Gue, Ipv4, Ipv6, Udp, Wire, protocol,
};
use crate::packet::Packet;
use crate::parse::Flow;
use crate::tables::Tables;

/// TTL and hop limit of outer headers (RFC 1700 default).
pub const OUTER_TTL: u8 = 64;
/// Version of the private data.
pub const PRIVATE_VERSION: u8 = 1;
/// Candidates in the private data.
pub const CANDIDATES: usize = 3;

/// GUE private data with addresses of `A` bytes. It follows the four bytes of the GUE header as
/// surplus of its length, where a receiver that does not know it (Linux fou) skips it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(C)]
pub struct Private<const A: usize> {
    /// Upper four bits [`PRIVATE_VERSION`], lower four the hop: 0 from the LB, then counted up by
    /// each agent that passes the packet on.
    pub version_hop: u8,
    /// How many of `candidates` are set.
    pub count: u8,
    /// Lower 16 bits of the generation, network order.
    pub generation: [u8; 2],
    /// Lower half of the flow hash, little-endian: proves knowledge of the cluster secret.
    pub cookie: [u8; 4],
    /// The LB's own address, for owner hints.
    pub balancer: [u8; A],
    /// The slot's former owners, the window's base first: who to ask when the receiver does not
    /// know the flow. Of the receiver's address family only.
    pub candidates: [[u8; A]; CANDIDATES],
}

macro_rules! frames {
    ($($(#[$doc:meta])* $name:ident $size:literal { $($field:ident: $type:ty,)* })*) => {
        $(
            $(#[$doc])*
            #[derive(Clone, Copy, PartialEq, Eq, Debug)]
            #[repr(C)]
            pub struct $name { $(#[doc = "In wire order."] pub $field: $type,)* }
            const _: () = assert!(size_of::<$name>() == $size && align_of::<$name>() == 1);
            // SAFETY: made of Wire types only, no padding (asserted above).
            unsafe impl Wire for $name {}
        )*
    };
}

frames! {
    /// IP in IPv4.
    IpipV4 34 { ethernet: Ethernet, ip: Ipv4, }
    /// IP in IPv6.
    IpipV6 54 { ethernet: Ethernet, ip: Ipv6, }
    /// IP in GUE in IPv4.
    GueV4 70 { ethernet: Ethernet, ip: Ipv4, udp: Udp, gue: Gue, private: Private<4>, }
    /// IP in GUE in IPv6.
    GueV6 138 { ethernet: Ethernet, ip: Ipv6, udp: Udp, gue: Gue, private: Private<16>, }
}
const _: () = assert!(Outer::IpipV4.overhead() as usize + 14 == size_of::<IpipV4>());
const _: () = assert!(Outer::IpipV6.overhead() as usize + 14 == size_of::<IpipV6>());
const _: () = assert!(Outer::GueV4.overhead() as usize + 14 == size_of::<GueV4>());
const _: () = assert!(Outer::GueV6.overhead() as usize + 14 == size_of::<GueV6>());

/// The constant part of a backend's outer IPv4 header checksum, for [`Backend::checksum`]:
/// everything but ToS, length, protocol and the entropy of an IPIP source.
#[must_use]
pub fn checksum_base(destination: Address, source: [u8; 4]) -> u32 {
    let words = [[0x45, 0], [0x40, 0], [OUTER_TTL, 0]];
    let fixed: u32 = words.iter().map(|word| u32::from(u16::from_ne_bytes(*word))).sum();
    let addresses = [u32::from_ne_bytes(destination.v4()), u32::from_ne_bytes(source)];
    fixed + addresses.iter().map(|word| checksum::halves(*word)).sum::<u32>()
}

/// Writes the outer headers of `backend` in front of the packet; false when there is no room.
/// VLAN tags of the arriving frame are dropped.
#[inline(always)]
pub fn encapsulate<P: Packet, T: Tables>(
    packet: &mut P,
    tables: &T,
    settings: &Settings,
    flow: &Flow,
    decision: &Decision,
    backend: &Backend,
    (outer, link): (Outer, Link),
) -> bool {
    // The old Ethernet header and tags lie in front of the inner packet: 14 bytes are reused.
    let reuse = i32::from(flow.inner.offset) - 14;
    if !packet.grow_front(i32::from(outer.overhead()) - reuse) {
        return false;
    }
    match outer {
        Outer::IpipV4 => ipip_v4(packet, settings, flow, backend, link),
        Outer::IpipV6 => ipip_v6(packet, settings, flow, backend, link),
        Outer::GueV4 => gue_v4(packet, tables, settings, flow, decision, backend, link),
        Outer::GueV6 => gue_v6(packet, tables, settings, flow, decision, backend, link),
    }
}

#[inline(always)]
fn ethernet(link: Link, kind: [u8; 2]) -> Ethernet {
    Ethernet { destination: link.destination, source: link.source, kind }
}

#[inline(always)]
const fn payload_protocol(flow: &Flow) -> u8 {
    if flow.inner.v6 { protocol::IPV6 } else { protocol::IPV4 }
}

#[inline(always)]
fn outer_v4(
    flow: &Flow,
    backend: &Backend,
    overhead: u16,
    proto: u8,
    source: u32,
    entropy: u32,
) -> Ipv4 {
    let total_length = flow.inner.length.wrapping_add(overhead).to_be_bytes();
    let sum = backend.checksum
        + ((flow.inner.tos as u32) << 8)
        + u16::from_ne_bytes(total_length) as u32
        + ((proto as u32) << 8)
        + entropy;
    Ipv4 {
        version_ihl: 0x45,
        tos: flow.inner.tos,
        total_length,
        id: [0, 0],
        fragment: [0x40, 0],
        ttl: OUTER_TTL,
        protocol: proto,
        checksum: checksum::finish(sum),
        source: source.to_ne_bytes(),
        destination: backend.destination.v4(),
    }
}

#[inline(always)]
fn outer_v6(flow: &Flow, backend: &Backend, payload: u16, proto: u8, source: [u8; 16]) -> Ipv6 {
    // 20 bits of flow label from the hash.
    let [label_high, label_middle, label_low, _] = (flow.hash as u32).to_ne_bytes();
    Ipv6 {
        first: [
            0x60 | flow.inner.tos >> 4,
            flow.inner.tos << 4 | label_high & 0xf,
            label_middle,
            label_low,
        ],
        payload_length: flow.inner.length.wrapping_add(payload).to_be_bytes(),
        next_header: proto,
        hop_limit: OUTER_TTL,
        source,
        destination: backend.destination.0,
    }
}

#[inline(always)]
fn udp(settings: &Settings, flow: &Flow, length: u16) -> Udp {
    // A port of the dynamic range (RFC 6335), 14 bits of the hash.
    let port = 0xc000 | (flow.hash >> 16) as u16 & 0x3fff;
    let [source_high, source_low] = port.to_be_bytes();
    let [gue_high, gue_low] = settings.gue_port;
    Udp {
        ports: [source_high, source_low, gue_high, gue_low],
        length: flow.inner.length.wrapping_add(length).to_be_bytes(),
        // None: RFC 768 for IPv4, RFC 6935 and RFC 6936 for a tunnel over IPv6; the inner
        // packet's own checksum covers the payload.
        checksum: [0, 0],
    }
}

#[inline(always)]
const fn gue(flow: &Flow, private: usize) -> Gue {
    Gue { length: (private / 4) as u8, protocol: payload_protocol(flow), flags: [0, 0] }
}

#[inline(always)]
fn ipip_v4<P: Packet>(
    packet: &mut P,
    settings: &Settings,
    flow: &Flow,
    backend: &Backend,
    link: Link,
) -> bool {
    let Some(frame) = packet.get_mut::<IpipV4>(0) else { return false };
    // The lower 16 bits in network order are the upper half of a little-endian word.
    let entropy = flow.hash as u32 & 0xffff;
    let source = u32::from_ne_bytes(settings.ipip_prefix_v4) | entropy << 16;
    frame.ethernet = ethernet(link, ETHERTYPE_IPV4);
    frame.ip = outer_v4(flow, backend, 20, payload_protocol(flow), source, entropy);
    true
}

#[inline(always)]
fn ipip_v6<P: Packet>(
    packet: &mut P,
    settings: &Settings,
    flow: &Flow,
    backend: &Backend,
    link: Link,
) -> bool {
    let Some(frame) = packet.get_mut::<IpipV6>(0) else { return false };
    let [a, b, c, d, e, f, g, h] = settings.ipip_prefix_v6;
    let [i, j, k, l, ..] = flow.hash.to_ne_bytes();
    let source = [a, b, c, d, e, f, g, h, 0, 0, 0, 0, i, j, k, l];
    frame.ethernet = ethernet(link, ETHERTYPE_IPV6);
    frame.ip = outer_v6(flow, backend, 0, payload_protocol(flow), source);
    true
}

#[inline(always)]
fn gue_v4<P: Packet, T: Tables>(
    packet: &mut P,
    tables: &T,
    settings: &Settings,
    flow: &Flow,
    decision: &Decision,
    backend: &Backend,
    link: Link,
) -> bool {
    let Some(frame) = packet.get_mut::<GueV4>(0) else { return false };
    let source = settings.source_v4;
    frame.ethernet = ethernet(link, ETHERTYPE_IPV4);
    frame.ip = outer_v4(flow, backend, 56, protocol::UDP, u32::from_ne_bytes(source), 0);
    frame.udp = udp(settings, flow, 36);
    frame.gue = gue(flow, size_of::<Private<4>>());
    let mut found = Candidates { count: 0, addresses: [[0; 4]; CANDIDATES] };
    if decision.history.base.0 != 0 || decision.history.last[0].0 != 0 {
        candidates(tables, decision, &mut found, |address| {
            if address.is_v4() { Some(address.v4()) } else { None }
        });
    }
    frame.private = private(flow, decision, source, found);
    true
}

#[inline(always)]
fn gue_v6<P: Packet, T: Tables>(
    packet: &mut P,
    tables: &T,
    settings: &Settings,
    flow: &Flow,
    decision: &Decision,
    backend: &Backend,
    link: Link,
) -> bool {
    let Some(frame) = packet.get_mut::<GueV6>(0) else { return false };
    let source = settings.source_v6.0;
    frame.ethernet = ethernet(link, ETHERTYPE_IPV6);
    frame.ip = outer_v6(flow, backend, 84, protocol::UDP, source);
    frame.udp = udp(settings, flow, 84);
    frame.gue = gue(flow, size_of::<Private<16>>());
    let mut found = Candidates { count: 0, addresses: [[0; 16]; CANDIDATES] };
    if decision.history.base.0 != 0 || decision.history.last[0].0 != 0 {
        candidates(tables, decision, &mut found, |address| {
            if address.is_v4() { None } else { Some(address.0) }
        });
    }
    frame.private = private(flow, decision, source, found);
    true
}

struct Candidates<const A: usize> {
    count: u8,
    addresses: [[u8; A]; CANDIDATES],
}

/// Base first, then the latest owners; without the one the packet goes to, none twice.
#[inline(always)]
fn candidates<const A: usize, T: Tables>(
    tables: &T,
    decision: &Decision,
    found: &mut Candidates<A>,
    family: impl Fn(Address) -> Option<[u8; A]>,
) {
    let history = decision.history;
    let [first, second, third] = history.last;
    let list = [
        history.base,
        if first == history.base { BackendId(0) } else { first },
        if second == history.base { BackendId(0) } else { second },
        if third == history.base { BackendId(0) } else { third },
    ];
    let mut place = 0;
    let mut next = 0;
    while next < list.len() {
        let id = list[next];
        next += 1;
        if id.0 == 0 || id == decision.owner || place >= CANDIDATES {
            continue;
        }
        let Some(backend) = tables.backend(id) else { continue };
        let Some(address) = family(backend.destination) else { continue };
        found.addresses[place] = address;
        place += 1;
    }
    found.count = place as u8;
}

#[inline(always)]
fn private<const A: usize>(
    flow: &Flow,
    decision: &Decision,
    balancer: [u8; A],
    found: Candidates<A>,
) -> Private<A> {
    Private {
        version_hop: PRIVATE_VERSION << 4,
        count: found.count,
        generation: (decision.generation as u16).to_be_bytes(),
        cookie: (flow.hash as u32).to_le_bytes(),
        balancer,
        candidates: found.addresses,
    }
}

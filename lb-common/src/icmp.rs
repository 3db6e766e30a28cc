//! ICMP that we send ourselves: echo replies for VIPs, and the errors that make path MTU
//! discovery work through the encapsulation.

use crate::checksum;
use crate::encap::OUTER_TTL;
use crate::headers::{Be16, Be32, Ethernet, Icmp, Ipv4, Ipv6, Vlan, Words, protocol, wire};
use crate::packet::Packet;
use crate::parse::Inner;

/// Bytes of the offending IPv4 packet that an error quotes: RFC 1812 section 4.3.2.3 wants as
/// much as fits 576 bytes.
pub const QUOTE_V4: usize = 576 - size_of::<Ipv4>() - size_of::<Icmp>();
/// Bytes of the offending IPv6 packet that an error quotes: RFC 4443 section 3.2 wants as much as
/// fits the minimum MTU of 1280 bytes.
pub const QUOTE_V6: usize = 1280 - size_of::<Ipv6>() - size_of::<Icmp>();

wire! {
    /// What stands between the link-layer header and the quoted packet.
    ErrorV4 28 {
        /// From the VIP.
        ip: Ipv4,
        /// The error.
        icmp: Icmp,
    }
    /// What stands between the link-layer header and the quoted packet.
    ErrorV6 48 {
        /// From the VIP.
        ip: Ipv6,
        /// The error.
        icmp: Icmp,
    }
}

/// Bytes of two VLAN tags.
const TAGS: usize = 2 * size_of::<Vlan>();

/// A 16-bit word made of two bytes, as it lies in a packet.
#[inline(always)]
const fn pair(first: u8, second: u8) -> u16 {
    u16::from_ne_bytes([first, second])
}

/// Turns an echo request into its reply, in place. False when the packet is shorter than said.
#[inline(always)]
pub fn echo<P: Packet>(packet: &mut P, inner: &Inner, at: usize) -> bool {
    let offset = inner.offset as usize;
    if inner.v6 {
        let Some(ip) = packet.get_mut::<Ipv6>(offset) else { return false };
        (ip.source, ip.destination) = (ip.destination, ip.source);
        ip.hop_limit = OUTER_TTL;
    } else {
        let Some(ip) = packet.get_mut::<Ipv4>(offset) else { return false };
        (ip.source, ip.destination) = (ip.destination, ip.source);
        let old = pair(ip.ttl, ip.protocol);
        ip.ttl = OUTER_TTL;
        ip.checksum = checksum::update(ip.checksum, old, pair(OUTER_TTL, ip.protocol));
    }
    let Some(icmp) = packet.get_mut::<Icmp>(at) else { return false };
    let old = pair(icmp.kind, icmp.code);
    icmp.kind = if inner.v6 { 129 } else { 0 };
    // Of a reply that is all zeros the sum is 0 and not 0xffff, and an update cannot tell them
    // apart; for every other reply the two are the same (RFC 1624 section 3).
    icmp.checksum = match checksum::update(icmp.checksum, old, pair(icmp.kind, icmp.code)) {
        0 => 0xffff,
        checksum => checksum,
    };
    let Some(ethernet) = packet.get_mut::<Ethernet>(0) else { return false };
    *ethernet = ethernet.swapped(ethernet.kind);
    true
}

/// One's complement sum of `N` words at `offset`, folded.
#[inline(always)]
fn sum<const N: usize, P: Packet>(packet: &P, offset: usize) -> Option<u16> {
    let words = packet.get::<Words<N>>(offset)?;
    let mut total = 0;
    let mut word = 0;
    while word < N {
        total += u32::from_ne_bytes(words.0[word]) as u64;
        word += 1;
    }
    Some(fold64(total))
}

#[inline(always)]
const fn fold64(sum: u64) -> u16 {
    let [low, high] = [sum as u32, (sum >> 32) as u32];
    checksum::fold(checksum::halves(low) + checksum::halves(high))
}

/// Turns a packet that is too big into the error that says so, addressed to its sender: RFC 1191
/// "fragmentation needed", RFC 4443 "packet too big", with the largest inner packet that fits.
/// False (and the frame is then only good for dropping) when it is too short to be one.
#[inline(always)]
pub fn too_big<P: Packet>(packet: &mut P, inner: &Inner, mtu: u16) -> bool {
    if inner.v6 {
        too_big_v6(packet, inner.offset as usize, mtu)
    } else {
        too_big_v4(packet, inner.offset as usize, mtu)
    }
}

/// The Ethernet header, and what is behind it: tags, as far as there are any.
type Link = (Ethernet, [u8; TAGS]);

/// Read before anything that lies farther behind: once that is known to be there, the compiler
/// leaves out the check that the verifier wants to see here.
#[inline(always)]
fn link<P: Packet>(packet: &P) -> Option<Link> {
    let ethernet = *packet.get::<Ethernet>(0)?;
    Some((ethernet, *packet.get::<[u8; TAGS]>(size_of::<Ethernet>())?))
}

/// Makes room of `front` bytes behind the link-layer header, which now leads back to where the
/// packet came from: with the same VLAN tags, as those say to which network.
#[inline(always)]
fn turn<P: Packet>(packet: &mut P, (ethernet, tags): Link, front: usize) -> bool {
    if !packet.grow_front(front as i32) {
        return false;
    }
    let Some(place) = packet.get_mut::<Ethernet>(0) else { return false };
    *place = ethernet.swapped(ethernet.kind);
    // What of this is no tag the IP header overwrites.
    let Some(place) = packet.get_mut::<[u8; TAGS]>(size_of::<Ethernet>()) else { return false };
    *place = tags;
    true
}

#[inline(always)]
fn too_big_v4<P: Packet>(packet: &mut P, offset: usize, mtu: u16) -> bool {
    let Some(link) = link(packet) else { return false };
    let Some(old) = packet.get::<Ipv4>(offset) else { return false };
    let (source, destination) = (old.destination, old.source);
    let Some(quote) = sum::<{ QUOTE_V4 / 4 }, P>(packet, offset) else { return false };
    let front = size_of::<ErrorV4>();
    if !turn(packet, link, front) || !packet.truncate(offset + front + QUOTE_V4) {
        return false;
    }
    let Some(error) = packet.get_mut::<ErrorV4>(offset) else { return false };
    let total_length = Be16::new(576);
    let header = pair(0x45, 0) as u32
        + total_length.0 as u32
        + pair(OUTER_TTL, protocol::ICMP) as u32
        + checksum::halves(source)
        + checksum::halves(destination);
    error.ip = Ipv4 {
        version_ihl: 0x45,
        tos: 0,
        total_length,
        id: Be16(0),
        fragment: Be16(0),
        ttl: OUTER_TTL,
        protocol: protocol::ICMP,
        checksum: checksum::finish(header),
        source,
        destination,
    };
    let checksum = checksum::finish(quote as u32 + pair(3, 4) as u32 + mtu.to_be() as u32);
    error.icmp = Icmp { kind: 3, code: 4, checksum, rest: Be32::new(mtu as u32) };
    true
}

#[inline(always)]
fn too_big_v6<P: Packet>(packet: &mut P, offset: usize, mtu: u16) -> bool {
    let Some(link) = link(packet) else { return false };
    let Some(old) = packet.get::<Ipv6>(offset) else { return false };
    let (source, destination) = (old.destination, old.source);
    let Some(quote) = sum::<{ QUOTE_V6 / 4 }, P>(packet, offset) else { return false };
    let front = size_of::<ErrorV6>();
    if !turn(packet, link, front) || !packet.truncate(offset + front + QUOTE_V6) {
        return false;
    }
    let Some(error) = packet.get_mut::<ErrorV6>(offset) else { return false };
    let payload_length = Be16::new((size_of::<Icmp>() + QUOTE_V6) as u16);
    error.ip = Ipv6 {
        first: Be32::new(6 << 28),
        payload_length,
        next_header: protocol::ICMPV6,
        hop_limit: OUTER_TTL,
        source,
        destination,
    };
    // RFC 8200 section 8.1: the pseudo header is part of the sum.
    let [a, b] = source;
    let [c, d] = destination;
    let addresses = [fold64(a), fold64(b), fold64(c), fold64(d)];
    let sum = quote as u32
        + addresses[0] as u32
        + addresses[1] as u32
        + addresses[2] as u32
        + addresses[3] as u32
        + payload_length.0 as u32
        + pair(0, protocol::ICMPV6) as u32
        + pair(2, 0) as u32
        + mtu.to_be() as u32;
    let checksum = checksum::finish(sum);
    error.icmp = Icmp { kind: 2, code: 0, checksum, rest: Be32::new(mtu as u32) };
    true
}

//! ICMP that we send ourselves: echo replies for VIPs, and the errors that make path MTU
//! discovery work through the encapsulation.

use crate::checksum;
use crate::headers::{ETHERTYPE_IPV4, ETHERTYPE_IPV6, Ethernet, Icmp, Ipv4, Ipv6, Wire, protocol};
use crate::packet::Packet;
use crate::parse::Inner;

/// Bytes of the offending IPv4 packet that an error quotes: RFC 1812 section 4.3.2.3 wants as
/// much as fits 576 bytes.
pub const QUOTE_V4: usize = 576 - size_of::<Ipv4>() - size_of::<Icmp>();
/// Bytes of the offending IPv6 packet that an error quotes: RFC 4443 section 3.2 wants as much as
/// fits the minimum MTU of 1280 bytes.
pub const QUOTE_V6: usize = 1280 - size_of::<Ipv6>() - size_of::<Icmp>();

#[derive(Clone, Copy)]
#[repr(C)]
struct ErrorV4 {
    ethernet: Ethernet,
    ip: Ipv4,
    icmp: Icmp,
}
// SAFETY: made of Wire types only; alignment 1, so no padding.
unsafe impl Wire for ErrorV4 {}

#[derive(Clone, Copy)]
#[repr(C)]
struct ErrorV6 {
    ethernet: Ethernet,
    ip: Ipv6,
    icmp: Icmp,
}
// SAFETY: made of Wire types only; alignment 1, so no padding.
unsafe impl Wire for ErrorV6 {}

/// Turns an echo request into its reply, in place. False when the packet is shorter than said.
#[inline(always)]
pub fn echo<P: Packet>(packet: &mut P, inner: &Inner, at: usize) -> bool {
    let offset = inner.offset as usize;
    if inner.v6 {
        let Some(ip) = packet.get_mut::<Ipv6>(offset) else { return false };
        let source = ip.source;
        ip.source = ip.destination;
        ip.destination = source;
        ip.hop_limit = crate::encap::OUTER_TTL;
    } else {
        let Some(ip) = packet.get_mut::<Ipv4>(offset) else { return false };
        let source = ip.source;
        ip.source = ip.destination;
        ip.destination = source;
        let old = [ip.ttl, ip.protocol];
        ip.ttl = crate::encap::OUTER_TTL;
        ip.checksum = checksum::update(ip.checksum, old, [ip.ttl, ip.protocol]);
    }
    let Some(icmp) = packet.get_mut::<Icmp>(at) else { return false };
    let old = [icmp.kind, icmp.code];
    icmp.kind = if inner.v6 { 129 } else { 0 };
    icmp.checksum = checksum::update(icmp.checksum, old, [icmp.kind, icmp.code]);
    let Some(ethernet) = packet.get_mut::<Ethernet>(0) else { return false };
    let source = ethernet.source;
    ethernet.source = ethernet.destination;
    ethernet.destination = source;
    true
}

/// One's complement sum of `N` bytes at `offset`; `N` a multiple of 4.
#[inline(always)]
fn sum<const N: usize, P: Packet>(packet: &P, offset: usize) -> Option<u32> {
    let bytes = packet.get::<[[u8; 4]; N]>(offset)?;
    let mut total = 0u64;
    let mut word = 0;
    while word < N {
        total += u32::from_ne_bytes(bytes[word]) as u64;
        word += 1;
    }
    Some(checksum::halves(total as u32) + checksum::halves((total >> 32) as u32))
}

/// Turns a packet that is too big into the error that says so, addressed to its sender: RFC 1191
/// "fragmentation needed", RFC 4443 "packet too big", with the largest inner packet that fits.
/// False (and the frame is then only good for dropping) when it is too short to be one.
#[inline(always)]
pub fn too_big<P: Packet>(packet: &mut P, inner: &Inner, mtu: u16) -> bool {
    if inner.v6 { too_big_v6(packet, inner, mtu) } else { too_big_v4(packet, inner, mtu) }
}

#[inline(always)]
fn too_big_v4<P: Packet>(packet: &mut P, inner: &Inner, mtu: u16) -> bool {
    let offset = inner.offset as usize;
    let Some(&Ethernet { destination, source, .. }) = packet.get::<Ethernet>(0) else {
        return false;
    };
    let Some(&old) = packet.get::<Ipv4>(offset) else { return false };
    let Some(quote) = sum::<{ QUOTE_V4 / 4 }, P>(packet, offset) else { return false };
    let front = (size_of::<ErrorV4>() - offset) as i32;
    if !packet.grow_front(front) || !packet.truncate(size_of::<ErrorV4>() + QUOTE_V4) {
        return false;
    }
    let Some(error) = packet.get_mut::<ErrorV4>(0) else { return false };
    error.ethernet = Ethernet { destination: source, source: destination, kind: ETHERTYPE_IPV4 };
    let total_length = (576u16).to_be_bytes();
    let addresses = checksum::halves(u32::from_ne_bytes(old.source))
        + checksum::halves(u32::from_ne_bytes(old.destination));
    let fixed = u16::from_ne_bytes([0x45, 0]) as u32
        + u16::from_ne_bytes(total_length) as u32
        + u16::from_ne_bytes([crate::encap::OUTER_TTL, protocol::ICMP]) as u32;
    error.ip = Ipv4 {
        version_ihl: 0x45,
        tos: 0,
        total_length,
        id: [0, 0],
        fragment: [0, 0],
        ttl: crate::encap::OUTER_TTL,
        protocol: protocol::ICMP,
        checksum: checksum::finish(fixed + addresses),
        source: old.destination,
        destination: old.source,
    };
    let [high, low] = mtu.to_be_bytes();
    let sum = u16::from_ne_bytes([3, 4]) as u32 + u16::from_ne_bytes([high, low]) as u32;
    error.icmp =
        Icmp { kind: 3, code: 4, checksum: checksum::finish(quote + sum), rest: [0, 0, high, low] };
    true
}

#[inline(always)]
fn too_big_v6<P: Packet>(packet: &mut P, inner: &Inner, mtu: u16) -> bool {
    let offset = inner.offset as usize;
    let Some(&Ethernet { destination, source, .. }) = packet.get::<Ethernet>(0) else {
        return false;
    };
    let Some(&old) = packet.get::<Ipv6>(offset) else { return false };
    let Some(quote) = sum::<{ QUOTE_V6 / 4 }, P>(packet, offset) else { return false };
    let front = (size_of::<ErrorV6>() - offset) as i32;
    if !packet.grow_front(front) || !packet.truncate(size_of::<ErrorV6>() + QUOTE_V6) {
        return false;
    }
    let Some(error) = packet.get_mut::<ErrorV6>(0) else { return false };
    error.ethernet = Ethernet { destination: source, source: destination, kind: ETHERTYPE_IPV6 };
    let payload_length = ((size_of::<Icmp>() + QUOTE_V6) as u16).to_be_bytes();
    error.ip = Ipv6 {
        first: [0x60, 0, 0, 0],
        payload_length,
        next_header: protocol::ICMPV6,
        hop_limit: crate::encap::OUTER_TTL,
        source: old.destination,
        destination: old.source,
    };
    // RFC 8200 section 8.1: the pseudo header is part of the sum.
    let mut addresses = 0;
    let mut word = 0;
    while word < 4 {
        let [a, b, c, d] = word_of(&old.source, word);
        addresses += checksum::halves(u32::from_ne_bytes([a, b, c, d]));
        let [a, b, c, d] = word_of(&old.destination, word);
        addresses += checksum::halves(u32::from_ne_bytes([a, b, c, d]));
        word += 1;
    }
    let [high, low] = mtu.to_be_bytes();
    let fixed = u16::from_ne_bytes(payload_length) as u32
        + u16::from_ne_bytes([0, protocol::ICMPV6]) as u32
        + u16::from_ne_bytes([2, 0]) as u32
        + u16::from_ne_bytes([high, low]) as u32;
    error.icmp = Icmp {
        kind: 2,
        code: 0,
        checksum: checksum::finish(checksum::fold(quote) as u32 + addresses + fixed),
        rest: [0, 0, high, low],
    };
    true
}

/// The four bytes of an address's 32-bit word.
#[inline(always)]
fn word_of(address: &[u8; 16], word: usize) -> [u8; 4] {
    let at = (word & 3) * 4;
    [address[at], address[at + 1], address[at + 2], address[at + 3]]
}

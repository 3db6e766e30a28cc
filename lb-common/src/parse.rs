//! From a frame to a flow of a VIP: Ethernet, up to two VLAN tags, IPv4 with options, IPv6 with
//! extension headers, TCP, UDP, and the packet quoted inside an ICMP error.
//!
//! The address decides first: what is not for a VIP is never looked at any further.

use crate::addr::{is_v4, v4_words};
use crate::control::Control;
use crate::hash;
use crate::headers::{
    ETHERTYPE_IPV4, ETHERTYPE_IPV6, ETHERTYPE_SERVICE_VLAN, ETHERTYPE_VLAN, Ethernet, Extension,
    Icmp, Ipv4, Ipv6, Tcp, Udp, Vlan, Wire, protocol, tcp_flag,
};
use crate::packet::Packet;
use crate::verdict::Outcome;
use crate::vip::{AddressEntry, VipEntry, VipIndex, port_key};

/// IPv6 extension headers walked; more is [`Outcome::Malformed`].
pub const MAX_EXTENSIONS: usize = 6;

/// What a packet means for its flow.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Segment {
    /// SYN without ACK.
    Open,
    /// Any later TCP segment.
    Later,
    /// FIN or RST.
    End,
    /// UDP.
    Datagram,
    /// Quoted by an ICMP error: asks for the owner, changes nothing.
    Quoted,
}

/// Where the IP packet lies and what its outer headers copy.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Inner {
    /// Offset of the IP header in the frame.
    pub offset: u16,
    /// IPv6, not IPv4.
    pub v6: bool,
    /// DSCP and ECN.
    pub tos: u8,
    /// Length of the IP packet, bytes.
    pub length: u16,
}

/// A packet of a VIP's flow.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Flow {
    /// The packet.
    pub inner: Inner,
    /// Its VIP.
    pub vip: VipEntry,
    /// The flow hash.
    pub hash: u64,
    /// What the packet means for the flow.
    pub segment: Segment,
}

/// What a frame is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Parsed {
    /// Of a VIP's flow.
    Flow(Flow),
    /// An echo request for a VIP address; the ICMP header's offset.
    Echo(Inner, u16),
    /// Decided already.
    Done(Outcome),
}

/// Reads a frame.
#[inline(always)]
pub fn parse<P: Packet>(packet: &P, control: &Control) -> Parsed {
    let Some(ethernet) = packet.get::<Ethernet>(0) else { return Parsed::Done(Outcome::NotVip) };
    let mut kind = ethernet.kind;
    let mut offset = size_of::<Ethernet>();
    let mut tags = 0;
    while tags < 2 && (kind == ETHERTYPE_VLAN || kind == ETHERTYPE_SERVICE_VLAN) {
        let Some(vlan) = packet.get::<Vlan>(offset) else { return Parsed::Done(Outcome::NotVip) };
        kind = vlan.kind;
        offset += size_of::<Vlan>();
        tags += 1;
    }
    if kind == ETHERTYPE_IPV4 {
        v4(packet, control, offset)
    } else if kind == ETHERTYPE_IPV6 {
        v6(packet, control, offset)
    } else {
        Parsed::Done(Outcome::NotVip)
    }
}

/// The live index's answer for a VIP address.
struct Here<'a> {
    index: &'a VipIndex,
    multiplier: u64,
    address: &'a AddressEntry,
}

#[inline(always)]
fn here(control: &Control, words: [u64; 2]) -> Option<Here<'_>> {
    let root = control.vip_root;
    let index = &control.vips[root.index()];
    let address = index.address(words, root.multiplier())?;
    Some(Here { index, multiplier: root.multiplier(), address })
}

impl Here<'_> {
    #[inline(always)]
    fn vip(&self, port: u16, protocol: u8) -> Option<VipEntry> {
        self.index.vip(self.address, port_key(port, protocol), self.multiplier).copied()
    }
}

/// A header at `at` that ends before the packet does: what is behind `end` is Ethernet's padding.
#[inline(always)]
fn header<T: Wire, P: Packet>(packet: &P, at: usize, end: usize) -> Option<&T> {
    // In this order: behind the other check the compiler knows that this one holds, too, and
    // leaves it out, which the verifier does not know.
    let found = packet.get::<T>(at)?;
    if at + size_of::<T>() > end {
        return None;
    }
    Some(found)
}

/// Ports (source in the low half, as they lie in the packet) and meaning of a TCP or UDP header.
#[inline(always)]
fn ports<P: Packet>(
    packet: &P,
    at: usize,
    end: usize,
    proto: u8,
) -> Result<(u32, Segment), Outcome> {
    if proto == protocol::TCP {
        let tcp = header::<Tcp, P>(packet, at, end).ok_or(Outcome::Malformed)?;
        let segment = if tcp.flags & (tcp_flag::FIN | tcp_flag::RST) != 0 {
            Segment::End
        } else if tcp.flags & (tcp_flag::SYN | tcp_flag::ACK) == tcp_flag::SYN {
            Segment::Open
        } else {
            Segment::Later
        };
        Ok((tcp.ports, segment))
    } else if proto == protocol::UDP {
        let udp = header::<Udp, P>(packet, at, end).ok_or(Outcome::Malformed)?;
        Ok((udp.ports, Segment::Datagram))
    } else {
        Err(Outcome::Protocol)
    }
}

#[inline(always)]
fn v4<P: Packet>(packet: &P, control: &Control, offset: usize) -> Parsed {
    let Some(ip) = packet.get::<Ipv4>(offset) else { return Parsed::Done(Outcome::NotVip) };
    let Some(here) = here(control, v4_words(ip.destination)) else {
        return Parsed::Done(Outcome::NotVip);
    };
    let length = ip.total_length.get();
    let header = (ip.version_ihl & 0xf) as usize * 4;
    if ip.version_ihl >> 4 != 4
        || header < size_of::<Ipv4>()
        || (length as usize) < header
        || offset + length as usize > packet.length()
    {
        return Parsed::Done(Outcome::Malformed);
    }
    // More fragments, or an offset: not the whole packet.
    if ip.fragment.get() & 0x3fff != 0 {
        return Parsed::Done(Outcome::Fragment);
    }
    let inner = Inner { offset: offset as u16, v6: false, tos: ip.tos, length };
    let at = offset + header;
    if ip.protocol == protocol::ICMP {
        return icmp_v4(packet, control, &here, inner, at);
    }
    let end = offset + length as usize;
    let (ports, segment) = match ports(packet, at, end, ip.protocol) {
        Ok(found) => found,
        Err(outcome) => return Parsed::Done(outcome),
    };
    let Some(vip) = here.vip((ports >> 16) as u16, ip.protocol) else {
        return Parsed::Done(Outcome::NoPort);
    };
    let (source, destination) = (ip.source, ip.destination);
    let hash = hash::flow_v4(&control.settings.key, source, destination, ports, ip.protocol);
    Parsed::Flow(Flow { inner, vip, hash, segment })
}

/// Protocol and offset behind the extension headers.
#[inline(always)]
fn extensions<P: Packet>(packet: &P, first: u8, at: usize) -> Result<(u8, usize), Outcome> {
    let mut next = first;
    let mut at = at;
    let mut walked = 0;
    while walked <= MAX_EXTENSIONS {
        match next {
            protocol::HOP_BY_HOP | protocol::ROUTING | protocol::DESTINATION_OPTIONS => {
                let extension = packet.get::<Extension>(at).ok_or(Outcome::Malformed)?;
                next = extension.next_header;
                at += 8 + extension.length as usize * 8;
            }
            protocol::FRAGMENT => {
                let extension = packet.get::<Extension>(at).ok_or(Outcome::Malformed)?;
                // RFC 6946: offset 0 and no more fragments is the whole packet.
                if extension.fragment.get() & 0xfff9 != 0 {
                    return Err(Outcome::Fragment);
                }
                next = extension.next_header;
                at += 8;
            }
            _ => return Ok((next, at)),
        }
        walked += 1;
    }
    Err(Outcome::Malformed)
}

#[inline(always)]
fn v6<P: Packet>(packet: &P, control: &Control, offset: usize) -> Parsed {
    let Some(ip) = packet.get::<Ipv6>(offset) else { return Parsed::Done(Outcome::NotVip) };
    let Some(here) = here(control, ip.destination) else {
        return Parsed::Done(Outcome::NotVip);
    };
    // The index keeps IPv4 addresses v4-mapped; on the wire such a one is nobody's.
    if is_v4(ip.destination) {
        return Parsed::Done(Outcome::NotVip);
    }
    let length = ip.payload_length.get() as usize + size_of::<Ipv6>();
    let first = ip.first.get();
    if first >> 28 != 6 || length > 0xffff || offset + length > packet.length() {
        return Parsed::Done(Outcome::Malformed);
    }
    let tos = (first >> 20) as u8;
    let inner = Inner { offset: offset as u16, v6: true, tos, length: length as u16 };
    let (proto, at) = match extensions(packet, ip.next_header, offset + size_of::<Ipv6>()) {
        Ok(found) => found,
        Err(outcome) => return Parsed::Done(outcome),
    };
    if proto == protocol::ICMPV6 {
        return icmp_v6(packet, control, &here, inner, at);
    }
    let (ports, segment) = match ports(packet, at, offset + length, proto) {
        Ok(found) => found,
        Err(outcome) => return Parsed::Done(outcome),
    };
    let Some(vip) = here.vip((ports >> 16) as u16, proto) else {
        return Parsed::Done(Outcome::NoPort);
    };
    let (source, destination) = (ip.source, ip.destination);
    let hash = hash::flow_v6(&control.settings.key, source, destination, ports, proto);
    Parsed::Flow(Flow { inner, vip, hash, segment })
}

/// The quoted packet went from the VIP to the client: its flow is the reverse.
#[inline(always)]
fn quoted_ports<P: Packet>(packet: &P, at: usize, end: usize) -> Option<u32> {
    // RFC 792 promises eight bytes of the quoted transport header: as much as UDP has.
    Some(header::<Udp, P>(packet, at, end)?.ports.rotate_left(16))
}

#[inline(always)]
fn icmp_v4<P: Packet>(
    packet: &P,
    control: &Control,
    here: &Here<'_>,
    inner: Inner,
    at: usize,
) -> Parsed {
    let end = inner.offset as usize + inner.length as usize;
    let Some(icmp) = header::<Icmp, P>(packet, at, end) else {
        return Parsed::Done(Outcome::Malformed);
    };
    match (icmp.kind, icmp.code) {
        (8, 0) => return Parsed::Echo(inner, at as u16),
        // Destination unreachable, time exceeded, parameter problem.
        (3 | 11 | 12, _) => {}
        _ => return Parsed::Done(Outcome::Protocol),
    }
    let quote = at + size_of::<Icmp>();
    let Some(ip) = header::<Ipv4, P>(packet, quote, end) else {
        return Parsed::Done(Outcome::Malformed);
    };
    let length = (ip.version_ihl & 0xf) as usize * 4;
    if length < size_of::<Ipv4>() {
        return Parsed::Done(Outcome::Malformed);
    }
    let first = ip.fragment.get() & 0x1fff == 0;
    if v4_words(ip.source) != here.address.address || !first {
        return Parsed::Done(Outcome::IcmpUnmatched);
    }
    let Some(ports) = quoted_ports(packet, quote + length, end) else {
        return Parsed::Done(Outcome::Malformed);
    };
    let Some(vip) = here.vip((ports >> 16) as u16, ip.protocol) else {
        return Parsed::Done(Outcome::IcmpUnmatched);
    };
    let (source, destination) = (ip.destination, ip.source);
    let hash = hash::flow_v4(&control.settings.key, source, destination, ports, ip.protocol);
    Parsed::Flow(Flow { inner, vip, hash, segment: Segment::Quoted })
}

#[inline(always)]
fn icmp_v6<P: Packet>(
    packet: &P,
    control: &Control,
    here: &Here<'_>,
    inner: Inner,
    at: usize,
) -> Parsed {
    let end = inner.offset as usize + inner.length as usize;
    let Some(icmp) = header::<Icmp, P>(packet, at, end) else {
        return Parsed::Done(Outcome::Malformed);
    };
    match (icmp.kind, icmp.code) {
        (128, 0) => return Parsed::Echo(inner, at as u16),
        // Destination unreachable, packet too big, time exceeded, parameter problem.
        (1..=4, _) => {}
        // Router and neighbour discovery, redirect (RFC 4861).
        (133..=137, _) => return Parsed::Done(Outcome::Host),
        _ => return Parsed::Done(Outcome::Protocol),
    }
    let quote = at + size_of::<Icmp>();
    let Some(ip) = header::<Ipv6, P>(packet, quote, end) else {
        return Parsed::Done(Outcome::Malformed);
    };
    if { ip.source } != here.address.address {
        return Parsed::Done(Outcome::IcmpUnmatched);
    }
    let (proto, at) = match extensions(packet, ip.next_header, quote + size_of::<Ipv6>()) {
        Ok(found) => found,
        Err(_) => return Parsed::Done(Outcome::IcmpUnmatched),
    };
    let Some(ports) = quoted_ports(packet, at, end) else {
        return Parsed::Done(Outcome::Malformed);
    };
    let Some(vip) = here.vip((ports >> 16) as u16, proto) else {
        return Parsed::Done(Outcome::IcmpUnmatched);
    };
    let (source, destination) = (ip.destination, ip.source);
    let hash = hash::flow_v6(&control.settings.key, source, destination, ports, proto);
    Parsed::Flow(Flow { inner, vip, hash, segment: Segment::Quoted })
}

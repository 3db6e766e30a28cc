//! What a backend's agent does with a frame: the decision to decapsulate, and the MSS clamp.
//!
//! It stands at the receiving end of [`crate::encap`]: kernel programs and host tests run the
//! same code over [`Packet`]. It must not know how a frame is cut in a socket buffer; that is the
//! program's business.
//!
//! A frame is decapsulated when its outer destination is an address of this host, it is IPIP
//! (RFC 2003, RFC 2473, RFC 4213) or GUE variant 0 (draft-ietf-intarea-gue-09), and its inner
//! destination is a VIP. Whatever is not for a VIP passes untouched, so that a tunnel device of
//! the kernel can still have it.

use crate::addr::{Address, v4_words};
use crate::backend::Outer;
use crate::checksum;
use crate::headers::{
    Be16, ETHERTYPE_IPV4, ETHERTYPE_IPV6, ETHERTYPE_SERVICE_VLAN, ETHERTYPE_VLAN, Ethernet,
    Extension, Gue, Ipv4, Ipv6, Udp, Vlan, Words, protocol,
};
use crate::packet::Packet;
use crate::verdict::{Action, outcomes};

mod mss;

pub use mss::{Clamp, MAX_OPTIONS, Mss, clamp};

/// Layout of the agent's maps; pins of another version are never reused.
pub const LAYOUT_VERSION: u32 = 1;
/// Room for addresses: VIPs and the host's own.
pub const MAX_ADDRESSES: u32 = 8192;
/// Room for prefixes that tunnels may come from.
pub const MAX_SOURCES: u32 = 1024;
/// Bytes from the start of a frame within which every header that is read or written lies:
/// Ethernet, two tags, IPv6, one options header of usual size, UDP, GUE with the longest private
/// data, the inner header.
pub const HEADERS: u32 = 256;

/// Names of the maps, as in the object file and below the pin path.
pub mod map_name {
    /// One [`Settings`](super::Settings).
    pub const SETTINGS: &str = "AGENT_SETTINGS";
    /// [`address_flag`](super::address_flag)s by [`Address`](crate::addr::Address).
    pub const ADDRESSES: &str = "AGENT_ADDRESSES";
    /// Prefixes (128 bits, IPv4 v4-mapped) that tunnels may come from.
    pub const SOURCES: &str = "AGENT_SOURCES";
    /// Per-CPU [`Counter`](crate::verdict::Counter)s by [`Outcome`](super::Outcome).
    pub const COUNTERS: &str = "AGENT_COUNTERS";
}

/// What an address is to this host.
pub mod address_flag {
    /// An inner destination to decapsulate for.
    pub const VIP: u32 = 1;
    /// An outer destination to accept tunnels at.
    pub const LOCAL: u32 = 2;
}

/// What holds for every packet; 16 bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[repr(C, align(8))]
pub struct Settings {
    /// [`LAYOUT_VERSION`].
    pub version: u32,
    /// How the loader attached the programs; only the loader reads it.
    pub mode: u16,
    /// UDP port of GUE, network order.
    pub gue_port: [u8; 2],
    /// 1: tunnels only from the prefixes of [`map_name::SOURCES`]; 0: from anywhere.
    pub restrict_sources: u16,
    /// Largest MSS of a VIP's SYN over IPv4, bytes, native order; 0 = leave.
    pub mss_v4: u16,
    /// Largest MSS of a VIP's SYN over IPv6, bytes, native order; 0 = leave.
    pub mss_v6: u16,
    /// Zero.
    pub pad: u16,
}
const _: () = assert!(size_of::<Settings>() == 16);

/// The agent's maps, or their likeness in a test.
pub trait AgentTables {
    /// The settings; `None` passes every packet.
    fn settings(&self) -> Option<&Settings>;
    /// The [`address_flag`]s of an address, 0 for a stranger.
    fn flags(&self, address: &Address) -> u32;
    /// True when a prefix of the list covers this outer source.
    fn source_listed(&self, address: &Address) -> bool;
}

outcomes! {
    /// No tunnel of ours.
    Passed "passed" Pass "no tunnel to this host, untouched";
    /// IPIP over IPv4.
    IpipV4 "ipip_v4" Pass "decapsulated: IPIP over IPv4";
    /// IPIP over IPv6.
    IpipV6 "ipip_v6" Pass "decapsulated: IPIP over IPv6";
    /// GUE over IPv4.
    GueV4 "gue_v4" Pass "decapsulated: GUE over IPv4";
    /// GUE over IPv6.
    GueV6 "gue_v6" Pass "decapsulated: GUE over IPv6";
    /// The inner destination is no VIP.
    NotVip "not_vip" Pass "a tunnel to this host, but not for a VIP, untouched";
    /// GUE that we do not speak.
    Unsupported "unsupported" Pass "GUE control message, variant, field or payload, untouched";
    /// An outer fragment.
    Fragment "fragment" Pass "a fragment of a tunnel packet, untouched: raise the path's MTU";
    /// From outside the configured prefixes.
    Source "source" Drop "a tunnel for a VIP from a source that is not allowed";
    /// Lengths or checksum of the outer or inner header lie.
    Malformed "malformed" Drop "a tunnel to this host whose headers lie about their length";
    /// RFC 6040 section 4.2.
    EcnDrop "ecn_drop" Drop "congestion marked outside, but the flow inside does not speak ECN";
    /// The kernel did not cut the headers.
    Refused "refused" Drop "the kernel refused to cut the outer headers off";
    /// A SYN of a VIP with a lowered MSS.
    MssClamped "mss_clamped" Pass "a SYN or SYN-ACK of a VIP whose MSS was lowered";
    /// A SYN of a VIP left as it was.
    MssKept "mss_kept" Pass "a SYN or SYN-ACK of a VIP whose MSS was small enough or absent";
}

/// How many outcomes there are.
pub const OUTCOMES: u32 = 14;
const _: () = assert!(Outcome::ALL.len() == OUTCOMES as usize);

impl Outcome {
    /// The outcome of a decapsulated packet.
    #[inline(always)]
    #[must_use]
    pub const fn decapsulated(outer: Outer) -> Self {
        match outer {
            Outer::IpipV4 => Self::IpipV4,
            Outer::IpipV6 => Self::IpipV6,
            Outer::GueV4 => Self::GueV4,
            Outer::GueV6 => Self::GueV6,
        }
    }
}

/// A tunnel packet for a VIP, and how to cut it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Tunnel {
    /// The outer headers.
    pub outer: Outer,
    /// VLAN tags in the frame, 0..=2.
    pub tags: u8,
    /// Offset of the inner IP header in the frame.
    pub at: u16,
    /// The inner packet is IPv6, not IPv4.
    pub inner_v6: bool,
    /// ECN bits of the inner packet as it came.
    pub inner_ecn: u8,
    /// ECN bits of the inner packet once decapsulated (RFC 6040).
    pub ecn: u8,
}

impl Tunnel {
    /// Offset of the outer IP header: what is in front of it stays.
    #[inline(always)]
    #[must_use]
    pub const fn link_length(&self) -> usize {
        size_of::<Ethernet>() + self.tags as usize * size_of::<Vlan>()
    }

    /// Bytes to cut behind the link-layer header.
    #[inline(always)]
    #[must_use]
    pub const fn cut(&self) -> usize {
        (self.at as usize).wrapping_sub(self.link_length())
    }

    /// The inner packet's ECN bits change.
    #[inline(always)]
    #[must_use]
    pub const fn remarked(&self) -> bool {
        self.ecn != self.inner_ecn
    }

    /// EtherType of the inner packet.
    #[inline(always)]
    #[must_use]
    pub const fn kind(&self) -> Be16 {
        if self.inner_v6 { ETHERTYPE_IPV6 } else { ETHERTYPE_IPV4 }
    }
}

/// Where the IP header lies.
#[derive(Clone, Copy)]
struct Link {
    at: usize,
    tags: u8,
    v6: bool,
}

#[inline(always)]
fn link<P: Packet>(packet: &P) -> Option<Link> {
    let mut kind = packet.get::<Ethernet>(0)?.kind;
    let mut at = size_of::<Ethernet>();
    let mut tags = 0;
    while tags < 2 && (kind == ETHERTYPE_VLAN || kind == ETHERTYPE_SERVICE_VLAN) {
        kind = packet.get::<Vlan>(at)?.kind;
        at += size_of::<Vlan>();
        tags += 1;
    }
    match kind {
        ETHERTYPE_IPV4 => Some(Link { at, tags, v6: false }),
        ETHERTYPE_IPV6 => Some(Link { at, tags, v6: true }),
        _ => None,
    }
}

/// Which part of a datagram a packet is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    Whole,
    First,
    Later,
}

impl Part {
    #[inline(always)]
    const fn new(offset: bool, more: bool) -> Self {
        match (offset, more) {
            (true, _) => Self::Later,
            (false, true) => Self::First,
            (false, false) => Self::Whole,
        }
    }
}

/// An outer IP header.
#[derive(Clone, Copy)]
struct OuterIp {
    source: Address,
    destination: Address,
    protocol: u8,
    /// Where its payload begins.
    at: usize,
    /// Where its payload ends.
    end: usize,
    ecn: u8,
    part: Part,
    /// Version, lengths and checksum hold.
    sound: bool,
}

/// Protocols that may be a tunnel of ours.
#[inline(always)]
const fn may_be_tunnel(proto: u8) -> bool {
    matches!(proto, protocol::IPV4 | protocol::IPV6 | protocol::UDP)
}

/// Does an IPv4 header's checksum hold (RFC 1071)?
#[inline(always)]
fn header_sum_holds(words: &Words<5>) -> bool {
    let [a, b, c, d, e] = words.0;
    let mut sum = 0;
    for word in [a, b, c, d, e] {
        sum += checksum::halves(u32::from_ne_bytes(word));
    }
    checksum::fold(sum) == 0xffff
}

#[inline(always)]
fn outer_v4<P: Packet>(packet: &P, offset: usize, frame_length: usize) -> Option<OuterIp> {
    let ip = packet.get::<Ipv4>(offset)?;
    // No sender of tunnels writes options: a header with some passes.
    if !may_be_tunnel(ip.protocol) || ip.version_ihl != 0x45 {
        return None;
    }
    let length = ip.total_length.get() as usize;
    let fragment = ip.fragment.get();
    let sound = length >= size_of::<Ipv4>()
        && offset + length <= frame_length
        // RFC 1122 section 3.2.1.2: verify the header checksum of every datagram. Nobody else
        // does once the header is gone.
        && header_sum_holds(packet.get::<Words<5>>(offset)?);
    Some(OuterIp {
        source: Address::from_words(v4_words(ip.source)),
        destination: Address::from_words(v4_words(ip.destination)),
        protocol: ip.protocol,
        at: offset + size_of::<Ipv4>(),
        end: offset + length,
        ecn: ip.tos & 3,
        part: Part::new(fragment & 0x1fff != 0, fragment & 0x2000 != 0),
        sound,
    })
}

#[inline(always)]
fn outer_v6<P: Packet>(packet: &P, offset: usize, frame_length: usize) -> Option<OuterIp> {
    let ip = packet.get::<Ipv6>(offset)?;
    let mut next = ip.next_header;
    let mut at = offset + size_of::<Ipv6>();
    let end = at + ip.payload_length.get() as usize;
    let mut part = Part::Whole;
    // Linux senders put the encapsulation limit there (RFC 2473 section 5.1).
    if next == protocol::DESTINATION_OPTIONS {
        let options = packet.get::<Extension>(at)?;
        next = options.next_header;
        at += 8 + options.length as usize * 8;
    }
    if next == protocol::FRAGMENT {
        let extension = packet.get::<Extension>(at)?;
        let fragment = extension.fragment.get();
        next = extension.next_header;
        at += 8;
        // RFC 6946: an atomic fragment is a whole packet.
        part = Part::new(fragment & 0xfff8 != 0, fragment & 1 != 0);
    }
    if !may_be_tunnel(next) {
        return None;
    }
    Some(OuterIp {
        source: Address::from_words(ip.source),
        destination: Address::from_words(ip.destination),
        protocol: next,
        at,
        end,
        ecn: (ip.first.get() >> 20) as u8 & 3,
        part,
        sound: ip.first.get() >> 28 == 6 && at <= end && end <= frame_length,
    })
}

/// What a tunnel packet carries.
#[derive(Clone, Copy)]
struct Payload {
    protocol: u8,
    at: usize,
    end: usize,
}

/// Behind UDP and GUE. The private data, ours ([`crate::encap::PrivateV4`]) or another's, is
/// skipped by the header's length.
#[inline(always)]
fn gue<P: Packet>(packet: &P, outer: &OuterIp) -> Result<Payload, Outcome> {
    let udp = packet.get::<Udp>(outer.at).ok_or(Outcome::Malformed)?;
    let end = outer.at + udp.length.get() as usize;
    let header = outer.at + size_of::<Udp>();
    let gue = packet.get::<Gue>(header).ok_or(Outcome::Malformed)?;
    // Two bits of variant, one of "control message"; an optional field (flags) may change what
    // the payload means, so it is not skipped blindly.
    if gue.length >> 5 != 0 || gue.flags.get() != 0 {
        return Err(Outcome::Unsupported);
    }
    let at = header + size_of::<Gue>() + (gue.length & 0x1f) as usize * 4;
    if at > end || end > outer.end {
        return Err(Outcome::Malformed);
    }
    Ok(Payload { protocol: gue.protocol, at, end })
}

/// The inner packet's destination and its ECN bits, its lengths checked.
#[inline(always)]
fn inner<P: Packet>(packet: &P, payload: &Payload) -> Result<(Address, u8), Outcome> {
    let room = payload.end - payload.at;
    if payload.protocol == protocol::IPV4 {
        let ip = packet.get::<Ipv4>(payload.at).ok_or(Outcome::Malformed)?;
        let header = (ip.version_ihl & 0xf) as usize * 4;
        let length = ip.total_length.get() as usize;
        let sound = ip.version_ihl >> 4 == 4
            && header >= size_of::<Ipv4>()
            && length >= header
            && length <= room;
        if !sound {
            return Err(Outcome::Malformed);
        }
        Ok((Address::from_words(v4_words(ip.destination)), ip.tos & 3))
    } else if payload.protocol == protocol::IPV6 {
        let ip = packet.get::<Ipv6>(payload.at).ok_or(Outcome::Malformed)?;
        let length = size_of::<Ipv6>() + ip.payload_length.get() as usize;
        if ip.first.get() >> 28 != 6 || length > room {
            return Err(Outcome::Malformed);
        }
        Ok((Address::from_words(ip.destination), (ip.first.get() >> 20) as u8 & 3))
    } else {
        Err(Outcome::Unsupported)
    }
}

/// RFC 6040 section 4.2, figure 4: the ECN bits of the decapsulated packet; `None` = drop.
#[inline(always)]
#[must_use]
pub const fn ecn(inner: u8, outer: u8) -> Option<u8> {
    match (inner & 3, outer & 3) {
        // "If the inner ECN field is Not-ECT [...] and the outer is CE, the decapsulator MUST
        // drop the packet."
        (0, 3) => None,
        // An outer ECT(1) over an inner ECT(0) comes through, as does CE over both.
        (2, 1) => Some(1),
        (1 | 2, 3) => Some(3),
        (inner, _) => Some(inner),
    }
}

/// What to do with a frame of `frame_length` bytes (which may be more than `packet` shows: the
/// rest lies in other buffers).
///
/// # Errors
/// The outcome of a frame that is not to be decapsulated.
#[inline(always)]
pub fn decide<P: Packet, T: AgentTables>(
    packet: &P,
    frame_length: usize,
    tables: &T,
) -> Result<Tunnel, Outcome> {
    let settings = tables.settings().ok_or(Outcome::Passed)?;
    let link = link(packet).ok_or(Outcome::Passed)?;
    let found = if link.v6 {
        outer_v6(packet, link.at, frame_length)
    } else {
        outer_v4(packet, link.at, frame_length)
    };
    let outer = found.ok_or(Outcome::Passed)?;
    let udp = outer.protocol == protocol::UDP;
    if udp {
        // Only a packet with a port of its own can be told from other UDP.
        let header = packet.get::<Udp>(outer.at).ok_or(Outcome::Passed)?;
        let port = (header.ports >> 16) as u16;
        if outer.part == Part::Later || port != u16::from_ne_bytes(settings.gue_port) {
            return Err(Outcome::Passed);
        }
    }
    if tables.flags(&outer.destination) & address_flag::LOCAL == 0 {
        return Err(Outcome::Passed);
    }
    if outer.part != Part::Whole {
        return Err(Outcome::Fragment);
    }
    if !outer.sound {
        return Err(Outcome::Malformed);
    }
    let payload = if udp {
        gue(packet, &outer)?
    } else {
        Payload { protocol: outer.protocol, at: outer.at, end: outer.end }
    };
    let (destination, inner_ecn) = inner(packet, &payload)?;
    if tables.flags(&destination) & address_flag::VIP == 0 {
        return Err(Outcome::NotVip);
    }
    if settings.restrict_sources != 0 && !tables.source_listed(&outer.source) {
        return Err(Outcome::Source);
    }
    let ecn = ecn(inner_ecn, outer.ecn).ok_or(Outcome::EcnDrop)?;
    let kind = match (udp, link.v6) {
        (false, false) => Outer::IpipV4,
        (false, true) => Outer::IpipV6,
        (true, false) => Outer::GueV4,
        (true, true) => Outer::GueV6,
    };
    Ok(Tunnel {
        outer: kind,
        tags: link.tags,
        at: payload.at as u16,
        inner_v6: payload.protocol == protocol::IPV6,
        inner_ecn,
        ecn,
    })
}

/// Writes the inner packet's ECN bits, when they change; false when it is out of reach.
#[inline(always)]
pub fn remark<P: Packet>(packet: &mut P, tunnel: &Tunnel) -> bool {
    if !tunnel.remarked() {
        return true;
    }
    let at = tunnel.at as usize;
    if tunnel.inner_v6 {
        let Some(first) = packet.get_mut::<[u8; 4]>(at) else { return false };
        first[1] = first[1] & 0xcf | tunnel.ecn << 4;
    } else {
        let Some(ip) = packet.get_mut::<Ipv4>(at) else { return false };
        let tos = ip.tos & 0xfc | tunnel.ecn;
        let word = |tos| u16::from_ne_bytes([ip.version_ihl, tos]);
        ip.checksum = checksum::update(ip.checksum, word(ip.tos), word(tos));
        ip.tos = tos;
    }
    true
}

/// Moves the Ethernet header and tags to the inner packet and cuts what is in front.
#[inline(always)]
fn unwrap<P: Packet>(packet: &mut P, tunnel: &Tunnel) -> bool {
    let cut = tunnel.cut();
    let kind = tunnel.kind();
    let Some(&ethernet) = packet.get::<Ethernet>(0) else { return false };
    let mut tags = [Vlan { control: Be16(0), kind: Be16(0) }; 2];
    if tunnel.tags > 0 {
        let Some(&tag) = packet.get::<Vlan>(14) else { return false };
        tags[0] = tag;
    }
    if tunnel.tags > 1 {
        let Some(&tag) = packet.get::<Vlan>(18) else { return false };
        tags[1] = tag;
    }
    if !packet.grow_front(-(cut as i32)) {
        return false;
    }
    let Some(place) = packet.get_mut::<Ethernet>(0) else { return false };
    *place = ethernet;
    if tunnel.tags == 0 {
        place.kind = kind;
    }
    if tunnel.tags > 0 {
        let Some(place) = packet.get_mut::<Vlan>(14) else { return false };
        let [tag, _] = tags;
        *place =
            Vlan { control: tag.control, kind: if tunnel.tags == 1 { kind } else { tag.kind } };
    }
    if tunnel.tags > 1 {
        let Some(place) = packet.get_mut::<Vlan>(18) else { return false };
        let [_, tag] = tags;
        *place = Vlan { control: tag.control, kind };
    }
    true
}

/// Decides and does it: what is left in `packet` goes to the host's stack, unless the outcome's
/// [`Outcome::action`] is to drop it. For packets whose front can be moved (XDP, host buffers).
#[inline(always)]
pub fn decapsulate<P: Packet, T: AgentTables>(
    packet: &mut P,
    frame_length: usize,
    tables: &T,
) -> Outcome {
    let tunnel = match decide(packet, frame_length, tables) {
        Ok(tunnel) => tunnel,
        Err(outcome) => return outcome,
    };
    if remark(packet, &tunnel) && unwrap(packet, &tunnel) {
        Outcome::decapsulated(tunnel.outer)
    } else {
        Outcome::Refused
    }
}

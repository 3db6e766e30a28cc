//! Wrapping a packet: outer headers for IPIP and GUE, IPv4 and IPv6 in every mix.
//!
//! Outer fields: DSCP and ECN copied (RFC 6040 normal mode), TTL 64, DF set and id 0 (RFC 6864:
//! an atomic datagram; what does not fit was answered with an ICMP error before). The inner
//! packet is not changed: its TTL is the client's business, for us it has arrived at its VIP.
//!
//! Entropy, so that the backend's NIC spreads load over its queues: GUE's UDP source port, IPIP's
//! outer source address, and the flow label of an outer IPv6 header (RFC 6438).

use crate::addr::{Address, is_v4, v4_of};
use crate::backend::{Backend, Link, Outer};
use crate::checksum;
use crate::control::Settings;
use crate::decide::Decision;
use crate::headers::{
    Be16, Be32, ETHERTYPE_IPV4, ETHERTYPE_IPV6, Ethernet, Gue, Ipv4, Ipv6, Udp, protocol, wire,
};
use crate::packet::Packet;
use crate::parse::Flow;
use crate::table::History;
use crate::tables::Tables;

/// TTL and hop limit of outer headers (RFC 1700 default).
pub const OUTER_TTL: u8 = 64;
/// Version of the private data.
pub const PRIVATE_VERSION: u8 = 1;
/// Candidates in the private data.
pub const CANDIDATES: usize = 3;

wire! {
    /// GUE private data with IPv4 addresses. It follows the four bytes of the GUE header as
    /// surplus of its length, where a receiver that does not know it (Linux fou) skips it.
    PrivateV4 24 {
        /// Upper four bits [`PRIVATE_VERSION`], lower four the hop: 0 from the LB, counted up by
        /// each agent that passes the packet on.
        version_hop: u8,
        /// How many of `candidates` are set.
        count: u8,
        /// Lower 16 bits of the generation.
        generation: Be16,
        /// Lower half of the flow hash, little-endian: proves knowledge of the cluster secret.
        cookie: u32,
        /// The LB's own address, for owner hints.
        balancer: u32,
        /// The slot's owners, the window's base first, then its current backend, then the latest
        /// former ones: who to ask when the receiver does not know the flow. Of the receiver's
        /// address family only.
        candidates: [u32; CANDIDATES],
    }
    /// GUE private data with IPv6 addresses; fields as in [`PrivateV4`].
    PrivateV6 72 {
        /// Version and hop.
        version_hop: u8,
        /// Candidates that are set.
        count: u8,
        /// Generation.
        generation: Be16,
        /// Cookie.
        cookie: u32,
        /// The LB's own address.
        balancer: [u64; 2],
        /// The slot's former owners.
        candidates: [[u64; 2]; CANDIDATES],
    }
    /// IP in IPv4.
    IpipV4 34 {
        /// Towards the next hop.
        ethernet: Ethernet,
        /// Outer header.
        ip: Ipv4,
    }
    /// IP in IPv6.
    IpipV6 54 {
        /// Towards the next hop.
        ethernet: Ethernet,
        /// Outer header.
        ip: Ipv6,
    }
    /// IP in GUE in IPv4.
    GueV4 70 {
        /// Towards the next hop.
        ethernet: Ethernet,
        /// Outer header.
        ip: Ipv4,
        /// Outer UDP.
        udp: Udp,
        /// GUE.
        gue: Gue,
        /// Private data.
        private: PrivateV4,
    }
    /// IP in GUE in IPv6.
    GueV6 138 {
        /// Towards the next hop.
        ethernet: Ethernet,
        /// Outer header.
        ip: Ipv6,
        /// Outer UDP.
        udp: Udp,
        /// GUE.
        gue: Gue,
        /// Private data.
        private: PrivateV6,
    }
}
const _: () = assert!(Outer::IpipV4.overhead() as usize + 14 == size_of::<IpipV4>());
const _: () = assert!(Outer::IpipV6.overhead() as usize + 14 == size_of::<IpipV6>());
const _: () = assert!(Outer::GueV4.overhead() as usize + 14 == size_of::<GueV4>());
const _: () = assert!(Outer::GueV6.overhead() as usize + 14 == size_of::<GueV6>());

/// The constant part of a backend's outer IPv4 header checksum, for [`Backend::checksum`]:
/// everything but ToS, length, protocol and the entropy of an IPIP source.
#[must_use]
pub fn checksum_base(destination: Address, source: u32) -> u32 {
    let words = [[0x45, 0], [0x40, 0], [OUTER_TTL, 0]];
    let fixed: u32 = words.iter().map(|word| u32::from(u16::from_ne_bytes(*word))).sum();
    fixed + checksum::halves(u32::from_ne_bytes(destination.v4())) + checksum::halves(source)
}

/// All that an outer header is made of.
struct Wrap<'a> {
    settings: &'a Settings,
    flow: &'a Flow,
    decision: &'a Decision,
    backend: &'a Backend,
    link: Link,
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
    let reuse = flow.inner.offset as i32 - size_of::<Ethernet>() as i32;
    let wrap = Wrap { settings, flow, decision, backend, link };
    match outer {
        Outer::IpipV4 => packet.grow_front(20 - reuse) && wrap.ipip_v4(packet),
        Outer::IpipV6 => packet.grow_front(40 - reuse) && wrap.ipip_v6(packet),
        Outer::GueV4 => packet.grow_front(56 - reuse) && wrap.gue_v4(packet, tables),
        Outer::GueV6 => packet.grow_front(124 - reuse) && wrap.gue_v6(packet, tables),
    }
}

impl Wrap<'_> {
    #[inline(always)]
    fn ethernet(&self, kind: Be16) -> Ethernet {
        let Link { addresses_low, addresses_high, .. } = self.link;
        Ethernet { addresses_low, addresses_high, kind }
    }

    #[inline(always)]
    fn payload_protocol(&self) -> u8 {
        if self.flow.inner.v6 { protocol::IPV6 } else { protocol::IPV4 }
    }

    /// The length field of a header that counts `overhead` bytes and the inner packet.
    #[inline(always)]
    fn length(&self, overhead: u16) -> Be16 {
        Be16::new(self.flow.inner.length.wrapping_add(overhead))
    }

    #[inline(always)]
    fn outer_v4(&self, overhead: u16, proto: u8, source: u32, entropy: u32) -> Ipv4 {
        let total_length = self.length(overhead);
        let sum = self.backend.checksum
            + u16::from_ne_bytes([0, self.flow.inner.tos]) as u32
            + total_length.0 as u32
            + u16::from_ne_bytes([0, proto]) as u32
            + entropy;
        Ipv4 {
            version_ihl: 0x45,
            tos: self.flow.inner.tos,
            total_length,
            id: Be16(0),
            fragment: Be16::new(0x4000),
            ttl: OUTER_TTL,
            protocol: proto,
            checksum: checksum::finish(sum),
            source,
            destination: v4_of(self.backend.destination),
        }
    }

    #[inline(always)]
    fn outer_v6(&self, overhead: u16, proto: u8, source: [u64; 2]) -> Ipv6 {
        // 20 bits of flow label from the hash.
        let label = self.flow.hash as u32 & 0xf_ffff;
        Ipv6 {
            first: Be32::new(6 << 28 | (self.flow.inner.tos as u32) << 20 | label),
            payload_length: self.length(overhead),
            next_header: proto,
            hop_limit: OUTER_TTL,
            source,
            destination: self.backend.destination,
        }
    }

    #[inline(always)]
    fn udp(&self, overhead: u16) -> Udp {
        // A port of the dynamic range (RFC 6335), 14 bits of the hash.
        let port = Be16::new(0xc000 | (self.flow.hash >> 16) as u16 & 0x3fff);
        Udp {
            ports: port.0 as u32 | (self.settings.gue_port as u32) << 16,
            length: self.length(overhead),
            // None: RFC 768 for IPv4, RFC 6935 and RFC 6936 for a tunnel over IPv6; the inner
            // packet's own checksum covers the payload.
            checksum: 0,
        }
    }

    #[inline(always)]
    fn gue(&self, private: usize) -> Gue {
        Gue { length: (private / 4) as u8, protocol: self.payload_protocol(), flags: Be16(0) }
    }

    #[inline(always)]
    fn ipip_v4<P: Packet>(&self, packet: &mut P) -> bool {
        let Some(frame) = packet.get_mut::<IpipV4>(0) else { return false };
        // The last 16 bits of the address are the upper half of the word.
        let entropy = self.flow.hash as u32 & 0xffff;
        let source = self.settings.ipip_prefix_v4 | entropy << 16;
        frame.ethernet = self.ethernet(ETHERTYPE_IPV4);
        frame.ip = self.outer_v4(20, self.payload_protocol(), source, entropy);
        true
    }

    #[inline(always)]
    fn ipip_v6<P: Packet>(&self, packet: &mut P) -> bool {
        let Some(frame) = packet.get_mut::<IpipV6>(0) else { return false };
        // The last 32 bits of the address.
        let source = [self.settings.ipip_prefix_v6, self.flow.hash << 32];
        frame.ethernet = self.ethernet(ETHERTYPE_IPV6);
        frame.ip = self.outer_v6(0, self.payload_protocol(), source);
        true
    }

    #[inline(always)]
    fn gue_v4<P: Packet, T: Tables>(&self, packet: &mut P, tables: &T) -> bool {
        let Some(frame) = packet.get_mut::<GueV4>(0) else { return false };
        let source = self.settings.source_v4;
        frame.ethernet = self.ethernet(ETHERTYPE_IPV4);
        frame.ip = self.outer_v4(56, protocol::UDP, source, 0);
        frame.udp = self.udp(36);
        frame.gue = self.gue(size_of::<PrivateV4>());
        let mut list = [0; CANDIDATES];
        let count = self.candidates(tables, &mut list, |address| match is_v4(address) {
            true => Some(v4_of(address)),
            false => None,
        });
        frame.private = PrivateV4 {
            version_hop: PRIVATE_VERSION << 4,
            count,
            generation: Be16::new(self.decision.generation as u16),
            cookie: (self.flow.hash as u32).to_le(),
            balancer: source,
            candidates: list,
        };
        true
    }

    #[inline(always)]
    fn gue_v6<P: Packet, T: Tables>(&self, packet: &mut P, tables: &T) -> bool {
        let Some(frame) = packet.get_mut::<GueV6>(0) else { return false };
        let source = self.settings.source_v6;
        frame.ethernet = self.ethernet(ETHERTYPE_IPV6);
        frame.ip = self.outer_v6(84, protocol::UDP, source);
        frame.udp = self.udp(84);
        frame.gue = self.gue(size_of::<PrivateV6>());
        let mut list = [[0; 2]; CANDIDATES];
        let count = self.candidates(tables, &mut list, |address| match is_v4(address) {
            true => None,
            false => Some(address),
        });
        frame.private = PrivateV6 {
            version_hop: PRIVATE_VERSION << 4,
            count,
            generation: Be16::new(self.decision.generation as u16),
            cookie: (self.flow.hash as u32).to_le(),
            balancer: source,
            candidates: list,
        };
        true
    }

    /// Base first, then the slot's current backend (of which a flow may be that began elsewhere
    /// after the change), then the latest former owners; without the one the packet goes to, none
    /// twice.
    #[inline(always)]
    fn candidates<A: Copy, T: Tables>(
        &self,
        tables: &T,
        list: &mut [A; CANDIDATES],
        family: impl Fn([u64; 2]) -> Option<A>,
    ) -> u8 {
        let Decision { owner, current, history: History { base, last }, .. } = *self.decision;
        if base.0 == 0 && last[0].0 == 0 {
            return 0;
        }
        let ids = [base, current, last[0], last[1], last[2]];
        let mut place = 0;
        let mut next = 0;
        while next < ids.len() {
            let id = ids[next];
            let again = next != 0 && id.0 == base.0 || next > 1 && id.0 == current.0;
            next += 1;
            if id.0 == 0 || id.0 == owner.0 || again || place >= CANDIDATES {
                continue;
            }
            let Some(backend) = tables.backend(id) else { continue };
            let Some(address) = family(backend.destination) else { continue };
            list[place] = address;
            place += 1;
        }
        place as u8
    }
}

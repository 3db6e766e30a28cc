//! What must leave, built from the RFCs and the documented layout of the private data.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use lb_tests::packet::{
    BALANCER_MAC, IPV4, IPV6, Ip, Packet, ROUTER_MAC, UDP, ethernet, udp_without_checksum,
};
use siphasher::sip::SipHasher13;

use super::world::{GENERATION, IPIP_V4, IPIP_V6, SECRET, SOURCE_V4, SOURCE_V6, destination, mac};

/// The 5-tuple that is hashed.
#[derive(Clone, Copy)]
pub(super) struct Tuple {
    pub(super) source: IpAddr,
    pub(super) destination: IpAddr,
    pub(super) ports: (u16, u16),
    pub(super) protocol: u8,
}

impl Tuple {
    /// The flow hash, by the reference implementation.
    pub(super) fn hash(&self) -> u64 {
        let mut message = Vec::new();
        for address in [self.source, self.destination] {
            match address {
                IpAddr::V4(address) => message.extend(address.octets()),
                IpAddr::V6(address) => message.extend(address.octets()),
            }
        }
        message.extend(self.ports.0.to_be_bytes());
        message.extend(self.ports.1.to_be_bytes());
        message.push(self.protocol);
        SipHasher13::new_with_key(&SECRET).hash(&message)
    }
}

/// The frame that carries `inner` to a backend. `candidates` are ids of the outer family, and only
/// GUE has them.
pub(super) fn wrapped(inner: &Packet, tuple: Tuple, id: u16, candidates: &[u16]) -> Vec<u8> {
    let hash = tuple.hash();
    let tos = match inner.bytes() {
        [first, second, ..] if first >> 4 == 6 => first << 4 | second >> 4,
        [_, second, ..] => *second,
        _ => panic!("no packet"),
    };
    let kind = if inner.kind() == 0x86dd { IPV6 } else { IPV4 };
    let gue = super::world::backend(id).encap == lb_userspace::desired::Encap::Gue;
    // TTL 64, DF and id 0 for IPv4, a flow label of 20 bits of the hash for IPv6.
    let outer = |source: IpAddr| {
        let label = u32::try_from(hash & 0xf_ffff).unwrap();
        Ip::new(source, destination(id)).tos(tos).ttl(64).fragment(0x4000).label(label)
    };
    let packet = match (gue, destination(id)) {
        (false, IpAddr::V4(_)) => {
            let [a, b, ..] = IPIP_V4.octets();
            let [c, d, ..] = hash.to_le_bytes();
            outer(Ipv4Addr::new(a, b, c, d).into()).raw(kind, inner.bytes())
        }
        (false, IpAddr::V6(_)) => {
            let mut source = IPIP_V6.octets();
            source[12..].copy_from_slice(&hash.to_le_bytes()[..4]);
            outer(Ipv6Addr::from(source).into()).raw(kind, inner.bytes())
        }
        (true, IpAddr::V4(_)) => {
            outer(SOURCE_V4.into()).raw(UDP, &gue_datagram(hash, inner, kind, false, candidates))
        }
        (true, IpAddr::V6(_)) => {
            outer(SOURCE_V6.into()).raw(UDP, &gue_datagram(hash, inner, kind, true, candidates))
        }
    };
    packet.frame_between(BALANCER_MAC, mac(id))
}

fn gue_datagram(hash: u64, inner: &Packet, kind: u8, v6: bool, candidates: &[u16]) -> Vec<u8> {
    let address = |address: IpAddr| match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    };
    let balancer = if v6 { address(SOURCE_V6.into()) } else { address(SOURCE_V4.into()) };
    // Version 1 and hop 0, how many candidates.
    let mut private = vec![0x10, u8::try_from(candidates.len()).unwrap()];
    private.extend(u16::try_from(GENERATION & 0xffff).unwrap().to_be_bytes());
    private.extend(&hash.to_le_bytes()[..4]);
    private.extend(&balancer);
    for place in 0..3 {
        match candidates.get(place) {
            Some(id) => private.extend(address(destination(*id))),
            None => private.extend(vec![0; balancer.len()]),
        }
    }
    let words = u8::try_from(private.len() / 4).unwrap();
    let payload = [&[words, kind, 0, 0][..], &private, inner.bytes()].concat();
    let port = 0xc000 | u16::try_from(hash >> 16 & 0x3fff).unwrap();
    udp_without_checksum(port, 6080, &payload)
}

/// The reply to an echo request, in the frame it came in.
pub(super) fn echo_reply(request: &Ip, rest: [u8; 4], payload: &[u8], v6: bool) -> Vec<u8> {
    let kind = if v6 { 129 } else { 0 };
    let mut packet = request.clone().ttl(64).icmp(kind, 0, rest, payload);
    let at = packet.bytes().len() - payload.len() - 6;
    if packet.bytes()[at..at + 2] == [0, 0] {
        // The other way to write the same number, as an update has to for a reply of zeros.
        packet.0[at..at + 2].fill(0xff);
    }
    ethernet(BALANCER_MAC, ROUTER_MAC, packet.kind(), packet.bytes())
}

/// The error that a packet too big is answered with, behind the same VLAN tags.
pub(super) fn too_big(
    offending: &Packet,
    (client, vip): (IpAddr, IpAddr),
    mtu: u16,
    tags: &[(u16, u16)],
) -> Vec<u8> {
    let [high, low] = mtu.to_be_bytes();
    let error = Ip::new(vip, client).ttl(64).fragment(0);
    let error = match vip {
        IpAddr::V4(_) => error.icmp(3, 4, [0, 0, high, low], &offending.bytes()[..576 - 28]),
        IpAddr::V6(_) => error.icmp(2, 0, [0, 0, high, low], &offending.bytes()[..1280 - 48]),
    };
    let mut frame = error.tagged(tags);
    frame[..6].copy_from_slice(&ROUTER_MAC);
    frame[6..12].copy_from_slice(&BALANCER_MAC);
    frame
}

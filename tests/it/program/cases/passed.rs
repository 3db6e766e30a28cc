//! What is not for a VIP passes untouched, whatever it is.

use std::net::{Ipv4Addr, Ipv6Addr};

use lb_common::verdict::Outcome;
use lb_tests::packet::{
    ACK, BALANCER_MAC, Ip, Packet, ROUTER_MAC, TCP, UDP, ethernet, udp_without_checksum,
};

use super::super::world::{CLIENT_V4, CLIENT_V6, GUE4, vip_v4, vip_v6};
use super::{Case, PORT, to};

const HOST_V4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const HOST_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);

fn v4() -> Ip {
    Ip::new(CLIENT_V4, HOST_V4)
}

fn v6() -> Ip {
    Ip::new(CLIENT_V6, HOST_V6)
}

pub(super) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    let mut case = |name: &str, frame| cases.push(Case::passed(name, frame, Outcome::NotVip));
    let tcp = v4().tcp(PORT, 80, ACK, b"page");
    case("v4 tcp to the host", tcp.frame());
    case("v6 tcp to the host", v6().tcp(PORT, 80, ACK, b"page").frame());
    case("v4 udp to the host", v4().udp(PORT, 53, b"name").frame());
    case("tagged, to the host", tcp.tagged(&[(0x8100, 5)]));
    case("tagged twice, to the host", tcp.tagged(&[(0x88a8, 5), (0x8100, 6)]));
    case("v4 first fragment to the host", v4().fragment(0x2000).tcp(PORT, 80, ACK, b"x").frame());
    case("v4 later fragment to the host", v4().fragment(0x0010).raw(TCP, &[7; 32]).frame());
    case("v6 fragment to the host", v6().fragment_v6(64, false).raw(TCP, &[7; 32]).frame());
    case("v4 options to the host", v4().options(&[1; 40]).udp(1, 2, b"").frame());
    case("v6 extensions to the host", v6().extension(0, &[0; 6]).raw(59, b"").frame());
    case("v4 echo to the host", v4().icmp(8, 0, [0; 4], b"").frame());
    case("v6 neighbour discovery of the host", v6().icmp(135, 0, [0; 4], &[0; 16]).frame());
    case("an unknown protocol to the host", v4().raw(89, &[1; 20]).frame());
    case("a protocol without ports to the host", v6().raw(50, &[1; 20]).frame());
    let gue = udp_without_checksum(
        1,
        6080,
        &[&[0, 4, 0, 0], to(GUE4, false).tcp(1, 80, ACK, b"").bytes()].concat(),
    );
    case("a tunnel to the host that carries a VIP's packet", v4().raw(UDP, &gue).frame());
    case("from a VIP", Ip::new(vip_v4(1), CLIENT_V4).tcp(80, PORT, ACK, b"").frame());
    case("from a v6 VIP", Ip::new(vip_v6(1), CLIENT_V6).tcp(80, PORT, ACK, b"").frame());
    let arp = [&[0, 1, 8, 0, 6, 4, 0, 1][..], &[0; 20]].concat();
    case("arp", ethernet(ROUTER_MAC, [0xff; 6], 0x0806, &arp));
    case("an empty frame", ethernet(ROUTER_MAC, BALANCER_MAC, 0x0800, &[]));
    case("a cut v4 header", to(1, false).tcp(1, 80, ACK, b"").frame()[..14 + 19].to_vec());
    case("a cut v6 header", to(1, true).tcp(1, 80, ACK, b"").frame()[..14 + 39].to_vec());
    case("a cut tag", tcp.tagged(&[(0x8100, 5)])[..16].to_vec());
    case("three tags", to(1, false).udp(1, 53, b"").tagged(&[(0x8100, 1); 3]));
    // 203.0.113.1 is a VIP; its v4-mapped form is an address of IPv6 that is nobody's.
    let mapped = vip_v4(1).to_ipv6_mapped();
    case("v6 to a v4-mapped VIP", Ip::new(CLIENT_V6, mapped).tcp(PORT, 80, ACK, b"").frame());
    case(
        "v6 echo to a v4-mapped VIP",
        Ip::new(CLIENT_V6, mapped).icmp(128, 0, [1; 4], b"").frame(),
    );
    let padded = [&tcp.frame()[..], &[0; 6]].concat();
    case("padded, to the host", padded);
    cases.extend(discovery());
    cases
}

/// Neighbour discovery for a VIP address is the host's.
fn discovery() -> Vec<Case> {
    (133..=137)
        .map(|kind| {
            let packet: Packet = to(1, true).ttl(255).icmp(kind, 0, [0; 4], &[0; 16]);
            Case::passed(&format!("v6 discovery {kind} of a VIP"), packet.frame(), Outcome::Host)
        })
        .collect()
}

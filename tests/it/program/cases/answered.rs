//! What is answered in place: echo requests, and packets that are too big for the path.

use lb_common::verdict::Outcome;
use lb_tests::packet::{ACK, FIN, Ip, Packet, SYN, UDP};

use super::super::wanted::{echo_reply, too_big};
use super::super::world::{GUE4, GUE6, IPIP4, IPIP6, NARROW, number};
use super::{Case, PORT, Wanted, ends, packet, tcp_vip, to};

pub(super) fn cases() -> Vec<Case> {
    let mut cases = echoes();
    cases.extend(bigs());
    cases
}

fn echoes() -> Vec<Case> {
    let mut cases = Vec::new();
    for v6 in [false, true] {
        let family = if v6 { "v6" } else { "v4" };
        let kind = if v6 { 128 } else { 8 };
        let mut case = |what: &str, ip: &Ip, rest: [u8; 4], payload: &[u8]| {
            let request = ip.clone().icmp(kind, 0, rest, payload);
            let reply = echo_reply(&ip.back(), rest, payload, v6);
            cases.push(Case {
                name: format!("{family} echo {what}"),
                frame: request.frame(),
                outcome: Outcome::Echo,
                vip: 0,
                backend: 0,
                wanted: Wanted::Tx(reply),
            });
        };
        let ip = to(IPIP4, v6);
        case("", &ip, [0x12, 0x34, 0, 1], b"abcdefgh");
        case("of one byte", &ip, [0x12, 0x34, 0, 1], b"a");
        case("of nothing", &ip, [0x12, 0x34, 0, 1], b"");
        case("of zeros only", &ip, [0; 4], &[]);
        case("of more zeros", &ip, [0; 4], &[0; 56]);
        // Sums around the wrap of one's complement arithmetic.
        for id in [0xf7fe_u16, 0xf7ff, 0xf800, 0xfffe, 0xffff, 0x7eff, 0x7f00, 0x7fff] {
            let [high, low] = id.to_be_bytes();
            case(&format!("with id {id:#x}"), &ip, [high, low, 0, 0], b"");
            case(&format!("with id and sequence {id:#x}"), &ip, [high, low, 0xff, 0xff], b"");
        }
        case("with its last hop", &ip.clone().ttl(1), [1, 2, 3, 4], b"x");
        case("with hop limit 255", &ip.clone().ttl(255), [1, 2, 3, 4], b"x");
        case("with a class", &ip.clone().tos(0xfc), [1, 2, 3, 4], b"x");
        case("of 1400 bytes", &ip, [1, 2, 3, 4], &[0xab; 1400]);
    }
    cases
}

/// The inner MTU of pools whose path has 1500 bytes, or 1400.
const MTUS: [(u16, u16, &str); 5] = [
    (IPIP4, 1480, "ipip4"),
    (IPIP6, 1460, "ipip6"),
    (GUE4, 1444, "gue4"),
    (GUE6, 1376, "gue6"),
    (NARROW, 1380, "a narrow path"),
];

fn bigs() -> Vec<Case> {
    let mut cases = Vec::new();
    for (pool, mtu, path) in MTUS {
        for v6 in [false, true] {
            let family = if v6 { "v6" } else { "v4" };
            let header = if v6 { 60 } else { 40 };
            for surplus in [1, 2, 77] {
                let size = usize::from(mtu) + surplus;
                let inner = to(pool, v6).tcp(PORT, 80, ACK, &vec![0x77; size - header]);
                cases.push(Case {
                    name: format!("{family} too big for {path} by {surplus}"),
                    frame: inner.frame(),
                    outcome: Outcome::TooBig,
                    vip: tcp_vip(pool, v6),
                    backend: 0,
                    wanted: Wanted::Tx(too_big(&inner, ends(pool, v6), mtu, &[])),
                });
            }
        }
    }
    cases.extend(other_bigs());
    cases
}

fn other_bigs() -> Vec<Case> {
    let mut cases = Vec::new();
    for v6 in [false, true] {
        let mut case = |name: &str, inner: &Packet, tags: &[(u16, u16)], vip| {
            cases.push(Case {
                name: name.to_owned(),
                frame: inner.tagged(tags),
                outcome: Outcome::TooBig,
                vip,
                backend: 0,
                wanted: Wanted::Tx(too_big(inner, ends(GUE4, v6), 1444, tags)),
            });
        };
        let udp = packet(&to(GUE4, v6), UDP, &[1; 1440]);
        case("a datagram too big", &udp, &[], number(GUE4, v6, UDP));
        let ones = to(GUE4, v6).tcp(PORT, 80, SYN | FIN, &[0xff; 1440]);
        case("ones, too big", &ones, &[], tcp_vip(GUE4, v6));
        // The answer goes into the network that its cause came from.
        let vip = tcp_vip(GUE4, v6);
        case("tagged, too big", &ones, &[(0x8100, 0x6005)], vip);
        case("tagged twice, too big", &ones, &[(0x88a8, 5), (0x8100, 6)], vip);
    }
    cases
}

//! What reaches a backend, and how it is wrapped: every mix of families, tags, options, edges.

use std::net::Ipv4Addr;

use lb_tests::packet::{ACK, FIN, Ip, SYN, TCP, UDP};

use super::super::wanted::{Tuple, wrapped};
use super::super::world::{
    ALWAYS, ALWAYS_NUMBER, ANY, ANY_443, ANY_TCP, ANY_UDP, CLIENT_V4, GUE4, GUE6, HISTORY4,
    HISTORY6, IPIP4, IPIP6, NARROW, ONLY_UDP, ONLY_UDP_NUMBER, REDIRECT, STATELESS,
    STATELESS_NUMBER, number,
};
use super::{Case, PORT, packet, tcp_vip, to, tuple};

/// Bytes in front of the inner packet in the path MTU of each pool.
const OVERHEAD: [(u16, usize, &str); 4] =
    [(IPIP4, 20, "ipip4"), (IPIP6, 40, "ipip6"), (GUE4, 56, "gue4"), (GUE6, 124, "gue6")];

pub(super) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for (pool, overhead, outer) in OVERHEAD {
        for (v6, protocol) in [(false, TCP), (false, UDP), (true, TCP), (true, UDP)] {
            let name = format!(
                "{} {} in {outer}",
                if v6 { "v6" } else { "v4" },
                if protocol == UDP { "udp" } else { "tcp" }
            );
            let ids = (number(pool, v6, protocol), pool);
            let mut case = |what: &str, frame: Vec<u8>, inner| {
                let out = wrapped(inner, tuple(pool, v6, protocol), pool, &[]);
                cases.push(Case::sent(&format!("{name}{what}"), frame, ids, out));
            };
            let inner = packet(&to(pool, v6), protocol, b"some bytes of a page");
            case("", inner.frame(), &inner);
            case(", tagged", inner.tagged(&[(0x8100, 0x2005)]), &inner);
            case(", tagged twice", inner.tagged(&[(0x88a8, 5), (0x8100, 6)]), &inner);
            let marked = packet(&to(pool, v6).tos(0xb9).ttl(1), protocol, b"odd");
            case(", with class, congestion mark and the last hop", marked.frame(), &marked);
            let header = if v6 { 40 } else { 20 } + if protocol == UDP { 8 } else { 20 };
            let full = packet(&to(pool, v6), protocol, &vec![0x5a; 1500 - overhead - header]);
            case(", as large as the path", full.frame(), &full);
        }
    }
    cases.extend(shapes());
    cases
}

/// Headers that are longer than usual.
fn shapes() -> Vec<Case> {
    let mut cases = Vec::new();
    let mut case = |name: &str, v6, ip: &Ip, protocol| {
        let inner = packet(ip, protocol, b"payload");
        let out = wrapped(&inner, tuple(GUE4, v6, protocol), GUE4, &[]);
        let ids = (number(GUE4, v6, protocol), GUE4);
        cases.push(Case::sent(name, inner.frame(), ids, out));
    };
    let (v4, v6) = (to(GUE4, false), to(GUE4, true));
    case("v4 tcp with one option", false, &v4.clone().options(&[1, 1, 1, 0]), TCP);
    case("v4 tcp with 40 bytes of options", false, &v4.clone().options(&[1; 40]), TCP);
    case("v4 udp with options", false, &v4.clone().options(&[1; 8]), UDP);
    case("v4 tcp that may be fragmented", false, &v4.clone().fragment(0).id(7), TCP);
    case("v4 tcp with the reserved flag", false, &v4.fragment(0x8000), TCP);
    case("v6 tcp behind hop-by-hop options", true, &v6.clone().extension(0, &[0; 6]), TCP);
    case("v6 udp behind a routing header", true, &v6.clone().extension(43, &[0; 22]), UDP);
    case("v6 tcp behind destination options", true, &v6.clone().extension(60, &[0; 262]), TCP);
    case("v6 tcp in an atomic fragment", true, &v6.clone().fragment_v6(0, false), TCP);
    let three = v6.clone().extension(0, &[0; 6]).extension(43, &[0; 6]).extension(60, &[0; 14]);
    case("v6 udp behind three headers", true, &three, UDP);
    let mut six = v6.clone();
    for _ in 0..6 {
        six = six.extension(60, &[0; 6]);
    }
    case("v6 tcp behind six headers", true, &six, TCP);
    case("v6 tcp with a flow label", true, &v6.label(0xfffff), TCP);
    let inner = packet(&to(IPIP4, false), UDP, b"");
    let out = wrapped(&inner, tuple(IPIP4, false, UDP), IPIP4, &[]);
    let pad = [0xee; 18];
    let frame = [&inner.frame()[..], &pad].concat();
    let ids = (number(IPIP4, false, UDP), IPIP4);
    // The padding is no part of the packet: no length counts it.
    cases.push(Case::sent("v4 udp with padding", frame, ids, [&out[..], &pad].concat()));
    let inner = to(IPIP4, false).tcp(PORT, 80, ACK, b"");
    let mut frame = inner.frame();
    frame[0] |= 1;
    let out = wrapped(&inner, tuple(IPIP4, false, TCP), IPIP4, &[]);
    let ids = (tcp_vip(IPIP4, false), IPIP4);
    cases.push(Case::sent("v4 tcp in a multicast frame", frame, ids, out));
    cases
}

/// Which backend, and what is said of the others.
pub(super) fn choices() -> Vec<Case> {
    let mut cases = Vec::new();
    for v6 in [false, true] {
        let family = if v6 { "v6" } else { "v4" };
        let ends = |protocol| tuple(REDIRECT, v6, protocol);
        let inner = packet(&to(REDIRECT, v6), TCP, b"x");
        let out = wrapped(&inner, ends(TCP), REDIRECT, &[]);
        let ids = (tcp_vip(REDIRECT, v6), REDIRECT);
        cases.push(Case::sent(
            &format!("{family} out of another interface"),
            inner.frame(),
            ids,
            out,
        ));
        let inner = packet(&to(HISTORY6, v6), TCP, b"x");
        let out = wrapped(&inner, tuple(HISTORY6, v6, TCP), 11, &[12, 13]);
        let ids = (tcp_vip(HISTORY6, v6), 11);
        cases.push(Case::sent(&format!("{family} with candidates of v6"), inner.frame(), ids, out));
        let inner = packet(&to(NARROW, v6), TCP, &vec![0; 1380 - if v6 { 60 } else { 40 }]);
        let out = wrapped(&inner, tuple(NARROW, v6, TCP), 14, &[]);
        let ids = (tcp_vip(NARROW, v6), 14);
        cases.push(Case::sent(
            &format!("{family} as large as a narrow path"),
            inner.frame(),
            ids,
            out,
        ));
    }
    cases.extend(tracked());
    cases.extend(any_port());
    cases
}

/// A contested slot: its backend is 7, its base 8.
fn tracked() -> Vec<Case> {
    let mut cases = Vec::new();
    let mut case = |name: &str, v6: bool, source: u16, flags: u8, owner: u16, others: &[u16]| {
        let inner = to(HISTORY4, v6).tcp(source, 80, flags, b"");
        let tuple = Tuple { ports: (source, 80), ..tuple(HISTORY4, v6, TCP) };
        let out = wrapped(&inner, tuple, owner, others);
        let ids = (tcp_vip(HISTORY4, v6), owner);
        cases.push(Case::sent(name, inner.frame(), ids, out));
    };
    for v6 in [false, true] {
        case("contested: a new flow", v6, 1_000, SYN, 7, &[8, 9, 10]);
        case("contested: it stays", v6, 1_000, ACK, 7, &[8, 9, 10]);
        case("contested: a flow from before", v6, 2_000, ACK, 8, &[7, 9, 10]);
        case("contested: it stays, too", v6, 2_000, ACK, 8, &[7, 9, 10]);
        case("contested: a late SYN of it re-owns nothing", v6, 2_000, SYN, 8, &[7, 9, 10]);
        case("contested: the end of a flow from before", v6, 2_000, FIN | ACK, 8, &[7, 9, 10]);
        case("contested: its ports again", v6, 2_000, SYN, 7, &[8, 9, 10]);
        case("contested: a stray end", v6, 3_000, FIN | ACK, 8, &[7, 9, 10]);
        case("contested: a SYN after it", v6, 3_000, SYN, 7, &[8, 9, 10]);
        case("contested: SYN and ACK of a client", v6, 4_000, SYN | ACK, 8, &[7, 9, 10]);
    }
    let inner = to(HISTORY4, false).udp(5_000, 53, b"");
    let tuple = Tuple { ports: (5_000, 53), ..tuple(HISTORY4, false, UDP) };
    let out = wrapped(&inner, tuple, 7, &[8, 9, 10]);
    let ids = (number(HISTORY4, false, UDP), 7);
    cases.push(Case::sent("contested: a datagram", inner.frame(), ids, out));
    cases
}

fn any_port() -> Vec<Case> {
    let mut cases = Vec::new();
    let mut case =
        |name: &str, vip: Ipv4Addr, (protocol, port), ids: (u16, u16), others: &[u16]| {
            let ip = Ip::new(CLIENT_V4, vip);
            let inner = match protocol {
                TCP => ip.tcp(PORT, port, SYN, b""),
                _ => ip.udp(PORT, port, b""),
            };
            let (source, destination) = (CLIENT_V4.into(), vip.into());
            let tuple = Tuple { source, destination, ports: (PORT, port), protocol };
            let out = wrapped(&inner, tuple, ids.1, others);
            cases.push(Case::sent(name, inner.frame(), ids, out));
        };
    for port in [0, 1, 442, 444, u16::MAX] {
        case(&format!("any tcp port: {port}"), ANY, (TCP, port), (ANY_TCP, IPIP4), &[]);
        case(&format!("any udp port: {port}"), ANY, (UDP, port), (ANY_UDP, IPIP6), &[]);
        let only = (ONLY_UDP_NUMBER, IPIP4);
        case(&format!("any udp port and no tcp: {port}"), ONLY_UDP, (UDP, port), only, &[]);
    }
    case("an exact port before any", ANY, (TCP, 443), (ANY_443, GUE4), &[]);
    case("udp on the exact tcp port", ANY, (UDP, 443), (ANY_UDP, IPIP6), &[]);
    case("tracked always", ALWAYS, (TCP, 80), (ALWAYS_NUMBER, GUE4), &[]);
    let stateless = (STATELESS_NUMBER, 7);
    case("never tracked in a contested slot", STATELESS, (UDP, 53), stateless, &[8, 9, 10]);
    cases
}

//! ICMP errors that quote a flow of a VIP reach the flow's owner; all others are dropped.

use lb_common::verdict::Outcome;
use lb_tests::packet::{ACK, Ip, Packet, SYN, TCP, UDP};

use super::super::wanted::{Tuple, wrapped};
use super::super::world::{
    ANY, CLIENT_V4, CLIENT_V6, GUE4, HISTORY4, IPIP4, NARROW, ONLY_UDP, number, vip_v4, vip_v6,
};
use super::{Case, PORT, tcp_vip, to, tuple};

/// What a backend sent to the client.
fn sent(pool: u16, v6: bool) -> Ip {
    if v6 { Ip::new(vip_v6(pool), CLIENT_V6) } else { Ip::new(vip_v4(pool), CLIENT_V4) }
}

/// A router on the way, which is not the client.
fn router(pool: u16, v6: bool) -> Ip {
    if v6 {
        let router = "2001:db8:99::1".parse::<std::net::Ipv6Addr>().unwrap();
        Ip::new(router, vip_v6(pool))
    } else {
        Ip::new(std::net::Ipv4Addr::new(192, 0, 2, 99), vip_v4(pool))
    }
}

pub(super) fn cases() -> Vec<Case> {
    let mut cases = owners();
    cases.extend(contested());
    cases.extend(unmatched());
    cases
}

/// The kinds and codes of the errors that are served.
const KINDS_V4: [(u8, u8, &str); 6] = [
    (3, 0, "net unreachable"),
    (3, 3, "port unreachable"),
    (3, 4, "fragmentation needed"),
    (11, 0, "time exceeded"),
    (11, 1, "reassembly time exceeded"),
    (12, 0, "parameter problem"),
];
const KINDS_V6: [(u8, u8, &str); 5] = [
    (1, 4, "port unreachable"),
    (2, 0, "packet too big"),
    (3, 0, "time exceeded"),
    (4, 0, "parameter problem"),
    (4, 1, "unknown next header"),
];

fn owners() -> Vec<Case> {
    let mut cases = Vec::new();
    for v6 in [false, true] {
        let header = if v6 { 40 } else { 20 };
        let kinds: &[_] = if v6 { &KINDS_V6 } else { &KINDS_V4 };
        let quotes = [
            (TCP, sent(GUE4, v6).tcp(80, PORT, ACK, &[9; 1200])),
            (UDP, sent(GUE4, v6).udp(53, PORT, &[9; 900])),
        ];
        for (protocol, quoted) in quotes {
            let ids = (number(GUE4, v6, protocol), GUE4);
            let mut case = |what: &str, error: Packet| {
                let out = wrapped(&error, tuple(GUE4, v6, protocol), GUE4, &[]);
                let name = format!("error of protocol {protocol}, {what}");
                cases.push(Case::sent(&name, error.frame(), ids, out));
            };
            for (kind, code, what) in kinds {
                case(what, router(GUE4, v6).error(*kind, *code, &quoted.bytes()[..header + 8]));
            }
            let (kind, code, _) = kinds[2];
            case("with a long quote", router(GUE4, v6).error(kind, code, &quoted.bytes()[..540]));
            let marked = router(GUE4, v6).tos(0xc0);
            case("with a class", marked.error(kind, code, &quoted.bytes()[..header + 8]));
        }
    }
    let quoted = sent(GUE4, false).options(&[1; 12]).tcp(80, PORT, ACK, b"");
    let error = router(GUE4, false).options(&[1; 4]).error(3, 1, &quoted.bytes()[..32 + 8]);
    let out = wrapped(&error, tuple(GUE4, false, TCP), GUE4, &[]);
    let ids = (tcp_vip(GUE4, false), GUE4);
    cases.push(Case::sent("error and quote with options", error.frame(), ids, out));
    let quoted = sent(GUE4, true).extension(60, &[0; 6]).tcp(80, PORT, ACK, b"");
    let error = router(GUE4, true).extension(0, &[0; 6]).error(2, 0, &quoted.bytes()[..48 + 8]);
    let out = wrapped(&error, tuple(GUE4, true, TCP), GUE4, &[]);
    let ids = (tcp_vip(GUE4, true), GUE4);
    cases.push(Case::sent("error and quote with extensions", error.frame(), ids, out));
    cases
}

/// An error asks for the owner and changes nothing.
fn contested() -> Vec<Case> {
    let mut cases = Vec::new();
    for v6 in [false, true] {
        let source = 6_000;
        let ids = |owner| (tcp_vip(HISTORY4, v6), owner);
        let ends = Tuple { ports: (source, 80), ..tuple(HISTORY4, v6, TCP) };
        let kind = if v6 { 2 } else { 3 };
        let quoted = sent(HISTORY4, v6).tcp(80, source, ACK, b"");
        let error = router(HISTORY4, v6).error(kind, 0, quoted.bytes());
        let open = to(HISTORY4, v6).tcp(source, 80, SYN, b"");
        let first = wrapped(&error, ends, 8, &[7, 9, 10]);
        cases.push(Case::sent("error of an unknown flow", error.frame(), ids(8), first));
        let out = wrapped(&open, ends, 7, &[8, 9, 10]);
        cases.push(Case::sent("it entered nothing", open.frame(), ids(7), out));
        let then = wrapped(&error, ends, 7, &[8, 9, 10]);
        cases.push(Case::sent("error of a known flow", error.frame(), ids(7), then));
    }
    cases
}

fn unmatched() -> Vec<Case> {
    let mut cases = Vec::new();
    for v6 in [false, true] {
        let (kind, header) = if v6 { (1, 40) } else { (3, 20) };
        let family = if v6 { "v6" } else { "v4" };
        let error = |quote: &[u8]| router(IPIP4, v6).error(kind, 1, quote).frame();
        let mut case = |what: &str, frame, outcome| {
            cases.push(Case::dropped(&format!("{family} error, {what}"), frame, outcome, 0));
        };
        let unmatched = Outcome::IcmpUnmatched;
        let stranger =
            if v6 { Ip::new(CLIENT_V6, CLIENT_V6) } else { Ip::new(CLIENT_V4, CLIENT_V4) };
        case("quoting a stranger", error(stranger.tcp(80, PORT, ACK, b"").bytes()), unmatched);
        let other_vip = sent(GUE4, v6).tcp(80, PORT, ACK, b"");
        case("quoting another VIP", error(other_vip.bytes()), unmatched);
        let port = sent(IPIP4, v6).tcp(81, PORT, ACK, b"");
        case("quoting no VIP's port", error(port.bytes()), unmatched);
        let reply = sent(IPIP4, v6).icmp(if v6 { 129 } else { 0 }, 0, [0, 80, 0, 53], b"");
        case("quoting an echo reply", error(reply.bytes()), unmatched);
        let whole = sent(IPIP4, v6).tcp(80, PORT, ACK, b"");
        case("quoting too little", error(&whole.bytes()[..header + 7]), Outcome::Malformed);
        case("quoting half a header", error(&whole.bytes()[..header - 1]), Outcome::Malformed);
        let to_vip =
            if v6 { Ip::new(CLIENT_V6, vip_v6(IPIP4)) } else { Ip::new(CLIENT_V4, vip_v4(IPIP4)) };
        case(
            "quoting what went to the VIP",
            error(to_vip.tcp(PORT, 80, ACK, b"").bytes()),
            unmatched,
        );
        let later =
            if v6 { sent(IPIP4, v6).fragment_v6(64, false) } else { sent(IPIP4, v6).fragment(8) };
        case("quoting a later fragment", error(later.raw(TCP, &[0; 16]).bytes()), unmatched);
    }
    let short = sent(IPIP4, false).tcp(80, PORT, ACK, b"").bytes().to_vec();
    let mut changed = short.clone();
    changed[0] = 0x44;
    let frame = router(IPIP4, false).error(3, 1, &changed).frame();
    cases.push(Case::dropped("v4 error, quoting a bad length", frame, Outcome::Malformed, 0));
    // An echo reply of an address of any udp port is no datagram.
    let any = |vip| Ip::new(std::net::Ipv4Addr::new(192, 0, 2, 99), vip);
    for vip in [ANY, ONLY_UDP] {
        let reply = Ip::new(vip, CLIENT_V4).icmp(0, 0, [1, 2, 3, 4], b"");
        let frame = any(vip).error(3, 1, reply.bytes()).frame();
        let name = "error, quoting an echo reply of an address of any port";
        cases.push(Case::dropped(name, frame, Outcome::IcmpUnmatched, 0));
    }
    // RFC 4443 section 2.4 (e): an error that is too big is answered with none.
    let quote = sent(NARROW, false).tcp(80, PORT, ACK, &[0; 1400]);
    let error = router(NARROW, false).error(3, 1, quote.bytes());
    let vip = tcp_vip(NARROW, false);
    cases.push(Case::dropped("an error too big", error.frame(), Outcome::TooBig, vip));
    cases
}

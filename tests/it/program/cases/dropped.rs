//! What is for a VIP and cannot be balanced is dropped, each for its reason.

use lb_common::verdict::Outcome;
use lb_tests::packet::{ACK, ICMP, Ip, SYN, TCP, UDP};

use super::super::world::{CLIENT_V4, EMPTY, IPIP4, NO_TABLE, ONLY_UDP, UNRESOLVED, number};
use super::{Case, PORT, packet, tcp_vip, to};

pub(super) fn cases() -> Vec<Case> {
    let mut cases = malformed();
    cases.extend(fragments());
    cases.extend(strangers());
    for v6 in [false, true] {
        let family = if v6 { "v6" } else { "v4" };
        for (pool, outcome, what) in [
            (EMPTY, Outcome::NoBackend, "a pool without backends"),
            (NO_TABLE, Outcome::NoBackend, "a pool without a table"),
            (UNRESOLVED, Outcome::Unresolved, "an unresolved next hop"),
        ] {
            let frame = packet(&to(pool, v6), TCP, b"x").frame();
            let name = format!("{family} tcp to {what}");
            cases.push(Case::dropped(&name, frame, outcome, tcp_vip(pool, v6)));
            let frame = packet(&to(pool, v6), UDP, b"x").frame();
            let name = format!("{family} udp to {what}");
            cases.push(Case::dropped(&name, frame, outcome, number(pool, v6, UDP)));
        }
    }
    cases
}

/// Shorter than their headers say.
fn malformed() -> Vec<Case> {
    let mut cases = Vec::new();
    let mut case =
        |name: &str, frame| cases.push(Case::dropped(name, frame, Outcome::Malformed, 0));
    let (v4, v6) =
        (packet(&to(IPIP4, false), TCP, b"page"), packet(&to(IPIP4, true), TCP, b"page"));
    let (v4, v6) = (v4.frame(), v6.frame());
    let changed = |frame: &[u8], at: usize, byte: u8| {
        let mut frame = frame.to_vec();
        frame[at] = byte;
        frame
    };
    case("v4 longer than its frame", v4[..v4.len() - 1].to_vec());
    case("v6 longer than its frame", v6[..v6.len() - 1].to_vec());
    case("v4 header shorter than one", changed(&v4, 14, 0x44));
    case("v4 header longer than the packet", changed(&v4, 14, 0x4f));
    case("v4 total length shorter than its header", changed(&v4, 17, 19));
    case("v4 with the version of v6", changed(&v4, 14, 0x65));
    case("v6 with the version of v4", changed(&v6, 14, 0x40));
    let short = to(IPIP4, false).raw(TCP, &[0x9c, 0x41, 0, 80]);
    case("v4 tcp header cut", short.frame());
    case("v4 tcp header behind the packet", [&short.frame()[..], &[0; 32]].concat());
    let short = to(IPIP4, false).raw(UDP, &[0x9c, 0x41, 0, 53]);
    case("v4 udp header cut", short.frame());
    case("v4 udp header behind the packet", [&short.frame()[..], &[0; 32]].concat());
    let short = to(IPIP4, true).raw(TCP, &[0x9c, 0x41, 0, 80]);
    case("v6 tcp header cut", short.frame());
    case("v6 tcp header behind the packet", [&short.frame()[..], &[0; 32]].concat());
    case("v4 icmp header cut", to(IPIP4, false).raw(ICMP, &[8, 0, 0]).frame());
    case(
        "v6 extension cut",
        to(IPIP4, true).extension(0, &[0; 6]).raw(TCP, &[]).frame()[..14 + 44].to_vec(),
    );
    let long = to(IPIP4, true).extension(60, &[0; 14]).raw(TCP, &[]);
    case("v6 extension longer than the packet", long.frame());
    let mut many = to(IPIP4, true);
    for _ in 0..7 {
        many = many.extension(60, &[0; 6]);
    }
    case("v6 with seven extension headers", many.tcp(PORT, 80, ACK, b"").frame());
    let far = to(IPIP4, true).extension(60, &[0; 6 + 8 * 60]);
    case("v6 with headers farther than 511 bytes", far.tcp(PORT, 80, ACK, b"").frame());
    cases
}

fn fragments() -> Vec<Case> {
    let (v4, v6) = (to(IPIP4, false), to(IPIP4, true));
    let mut cases = Vec::new();
    let mut case = |name: &str, frame| cases.push(Case::dropped(name, frame, Outcome::Fragment, 0));
    case("v4 first fragment", v4.clone().fragment(0x2000).tcp(PORT, 80, ACK, b"data").frame());
    case("v4 fragment in the middle", v4.clone().fragment(0x2010).raw(TCP, &[7; 64]).frame());
    case("v4 last fragment", v4.clone().fragment(0x0010).raw(TCP, &[7; 3]).frame());
    case("v4 last fragment of an echo", v4.fragment(0x0001).raw(ICMP, &[7; 3]).frame());
    case("v6 first fragment", v6.clone().fragment_v6(0, true).tcp(PORT, 80, ACK, b"x").frame());
    case("v6 last fragment", v6.clone().fragment_v6(64, false).raw(TCP, &[7; 3]).frame());
    let behind = v6.extension(60, &[0; 6]).fragment_v6(8, true);
    case("v6 fragment behind options", behind.raw(UDP, &[7; 16]).frame());
    cases
}

/// A VIP address, but nothing that is served there.
fn strangers() -> Vec<Case> {
    let (v4, v6) = (to(IPIP4, false), to(IPIP4, true));
    let mut cases = Vec::new();
    let mut port = |name: &str, frame| cases.push(Case::dropped(name, frame, Outcome::NoPort, 0));
    port("v4 tcp to another port", v4.tcp(PORT, 81, SYN, b"").frame());
    port("v4 udp to the tcp port", v4.udp(PORT, 80, b"").frame());
    port("v4 tcp to the udp port", v4.tcp(PORT, 53, SYN, b"").frame());
    port("v6 tcp to another port", v6.tcp(PORT, 81, SYN, b"").frame());
    port("v6 udp to another port", v6.udp(PORT, 54, b"").frame());
    let only_udp = Ip::new(CLIENT_V4, ONLY_UDP);
    port("tcp to an address of any udp port", only_udp.tcp(PORT, 80, SYN, b"").frame());
    let mut other = |name: &str, frame| {
        cases.push(Case::dropped(name, frame, Outcome::Protocol, 0));
    };
    other("v4 esp", v4.raw(50, &[1; 24]).frame());
    other("v4 icmpv6", v4.raw(58, &[128, 0, 0, 0, 0, 0, 0, 0]).frame());
    other("v4 sctp", v4.raw(132, &[1; 24]).frame());
    other("v4 ipip to a VIP", v4.raw(4, v4.tcp(1, 80, ACK, b"").bytes()).frame());
    other("v6 no next header", v6.raw(59, &[]).frame());
    other("v6 esp", v6.raw(50, &[1; 24]).frame());
    other("v6 icmp", v6.raw(ICMP, &[8, 0, 0xf7, 0xff, 0, 0, 0, 0]).frame());
    for (kind, what) in [(0, "echo reply"), (5, "redirect"), (9, "router"), (13, "timestamp")] {
        other(&format!("v4 {what}"), v4.icmp(kind, 0, [0; 4], &[0; 8]).frame());
    }
    other("v4 echo request of a code", v4.icmp(8, 1, [0; 4], b"").frame());
    for (kind, what) in [(129, "echo reply"), (130, "listener query"), (139, "node information")] {
        other(&format!("v6 {what}"), v6.icmp(kind, 0, [0; 4], &[0; 16]).frame());
    }
    other("sctp to an address of any udp port", only_udp.raw(132, &[1; 24]).frame());
    cases
}

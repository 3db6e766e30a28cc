//! The table: a frame, its outcome, and what is left of it.

use std::net::Ipv4Addr;

use lb_common::agent::Outcome;

use super::build::*;

/// VLAN tags: EtherType and id.
const TAGS: [&[(u16, u16)]; 3] = [&[], &[(0x8100, 0x0064)], &[(0x88a8, 0x2064), (0x8100, 0x0065)]];
/// Lengths of private data: none, ours over IPv4 and IPv6, the longest.
const PRIVATE: [usize; 4] = [0, 24, 72, 124];
const UDP: u8 = 17;

/// One frame.
pub(crate) struct Case {
    pub(crate) name: String,
    pub(crate) frame: Vec<u8>,
    pub(crate) outcome: Outcome,
    /// The frame afterwards; `None` when it is dropped.
    pub(crate) left: Option<Vec<u8>>,
}

fn decapsulated(
    name: String,
    tags: &[(u16, u16)],
    outer: &[u8],
    inner: &[u8],
    outcome: Outcome,
) -> Case {
    Case { name, frame: frame(tags, outer), outcome, left: Some(frame(tags, inner)) }
}

fn passed(name: &str, outcome: Outcome, packet: &[u8]) -> Case {
    let frame = frame(&[], packet);
    Case { name: name.to_owned(), left: Some(frame.clone()), frame, outcome }
}

fn dropped(name: &str, outcome: Outcome, packet: &[u8]) -> Case {
    Case { name: name.to_owned(), frame: frame(&[], packet), outcome, left: None }
}

/// IPIP and GUE with every length of private data, every mix of families, up to two tags.
fn tunnels() -> Vec<Case> {
    let mut cases = Vec::new();
    for (outer_v6, inner_v6) in [(false, false), (false, true), (true, false), (true, true)] {
        let inner = request(inner_v6, 0);
        let (ipip, gue_kind) = if outer_v6 {
            (Outcome::IpipV6, Outcome::GueV6)
        } else {
            (Outcome::IpipV4, Outcome::GueV4)
        };
        for tags in TAGS {
            let name =
                |kind: &str| format!("{kind} v6:{inner_v6} in v6:{outer_v6}, {} tags", tags.len());
            let packet = outer(outer_v6, number(&inner), 0, &inner);
            cases.push(decapsulated(name("ipip"), tags, &packet, &inner, ipip));
            for length in PRIVATE {
                let packet = outer(outer_v6, UDP, 0, &gue(&vec![0xa5; length], &inner));
                let name = name(&format!("gue with {length} bytes"));
                cases.push(decapsulated(name, tags, &packet, &inner, gue_kind));
            }
        }
    }
    cases
}

/// RFC 6040 figure 4, every cell, over both families.
fn ecn() -> Vec<Case> {
    let mut cases = Vec::new();
    let table: [[Option<u8>; 4]; 4] = [
        // Outer:   Not-ECT  ECT(1)   ECT(0)   CE
        [Some(0), Some(0), Some(0), None],
        [Some(1), Some(1), Some(1), Some(3)],
        [Some(2), Some(1), Some(2), Some(3)],
        [Some(3), Some(3), Some(3), Some(3)],
    ];
    for inner_v6 in [false, true] {
        for (inside, row) in (0_u8..).zip(table) {
            for (outside, result) in (0_u8..).zip(row) {
                let inner = request(inner_v6, 0xb8 | inside);
                let packet = outer(false, number(&inner), 0x28 | outside, &inner);
                let name = format!("ecn v6:{inner_v6}, {inside} inside, {outside} outside");
                cases.push(match result {
                    Some(bits) => {
                        let left = request(inner_v6, 0xb8 | bits);
                        decapsulated(name, &[], &packet, &left, Outcome::IpipV4)
                    }
                    None => dropped(&name, Outcome::EcnDrop, &packet),
                });
            }
        }
    }
    cases
}

fn untouched() -> Vec<Case> {
    let inner = request(false, 0);
    let gue0 = gue(&[], &inner);
    let with = |at: usize, value: u8| {
        let mut bytes = gue0.clone();
        bytes[at] = value;
        outer(false, UDP, 0, &bytes)
    };
    let elsewhere = ipv4(BALANCER4, Ipv4Addr::new(10, 9, 0, 3), 4, 0, &inner);
    let to_vip = ipv4(BALANCER4, VIP4, 4, 0, &inner);
    let stranger = ipv4(CLIENT4, Ipv4Addr::new(203, 0, 113, 11), UDP, 0, b"12345678");
    let mut options = outer(false, 4, 0, &inner);
    options[0] = 0x46;
    vec![
        passed("plain packet for a VIP", Outcome::Passed, &inner),
        passed("plain packet for the host", Outcome::Passed, &outer(false, 6, 0, &[0; 20])),
        passed("another port", Outcome::Passed, &with(3, 0xc1)),
        passed("UDP header cut", Outcome::Passed, &outer(false, UDP, 0, &[0; 4])),
        passed("ipip to another host", Outcome::Passed, &elsewhere),
        passed("ipip to the VIP itself", Outcome::Passed, &to_vip),
        passed("outer options", Outcome::Passed, &options),
        passed("inner is no VIP", Outcome::NotVip, &outer(false, 4, 0, &stranger)),
        passed("inner is no VIP, gue", Outcome::NotVip, &outer(true, UDP, 0, &gue(&[], &stranger))),
        passed("gue variant 1", Outcome::Unsupported, &with(8, 0x40)),
        passed("gue control message", Outcome::Unsupported, &with(8, 0x20)),
        passed("gue flags", Outcome::Unsupported, &with(10, 0x80)),
        passed("gue payload is no IP", Outcome::Unsupported, &with(9, 59)),
    ]
}

/// With flags and offset in the IPv4 header, its checksum made right.
fn fragment_v4(protocol: u8, fragment: u16, payload: &[u8]) -> Vec<u8> {
    let mut packet = outer(false, protocol, 0, payload);
    packet[6..8].copy_from_slice(&fragment.to_be_bytes());
    packet[10..12].fill(0);
    let sum = checksum(&packet[..20]);
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
    packet
}

/// Behind an IPv6 fragment header.
fn fragment_v6(protocol: u8, fragment: u16, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![protocol, 0];
    bytes.extend(fragment.to_be_bytes());
    bytes.extend([0, 0, 0, 9]);
    bytes.extend(payload);
    outer(true, 44, 0, &bytes)
}

fn fragments() -> Vec<Case> {
    let inner = request(false, 0);
    let udp = gue(&[], &inner);
    let atomic = fragment_v6(4, 0, &inner);
    vec![
        passed("first of ipip", Outcome::Fragment, &fragment_v4(4, 0x2000, &inner)),
        passed("later of ipip", Outcome::Fragment, &fragment_v4(4, 0x0010, &inner)),
        passed("first of gue", Outcome::Fragment, &fragment_v4(UDP, 0x2000, &udp)),
        passed("later of some UDP", Outcome::Passed, &fragment_v4(UDP, 0x0010, &udp)),
        passed("first of ipip, v6", Outcome::Fragment, &fragment_v6(4, 1, &inner)),
        passed("later of ipip, v6", Outcome::Fragment, &fragment_v6(4, 8, &inner)),
        passed("later of some UDP, v6", Outcome::Passed, &fragment_v6(UDP, 8, &udp)),
        decapsulated("atomic, v6".to_owned(), &[], &atomic, &inner, Outcome::IpipV6),
    ]
}

fn lies() -> Vec<Case> {
    let cut = |packet: Vec<u8>, bytes: usize| packet[..packet.len() - bytes].to_vec();
    let at = |mut packet: Vec<u8>, at: usize, value: u8| {
        packet[at] = value;
        packet
    };
    let inner4 = request(false, 0);
    let inner6 = request(true, 0);
    let gue4 = outer(false, UDP, 0, &gue(&[0; 24], &inner4));
    let long = |inner: &[u8]| outer(false, number(inner), 0, &inner[..inner.len() - 1]);
    let short_gue = outer(true, UDP, 0, &gue(&[], &inner4)[..10]);
    let bad = Outcome::Malformed;
    vec![
        dropped("outer longer than the frame", bad, &cut(outer(false, 4, 0, &inner4), 1)),
        dropped("outer longer than the frame, v6", bad, &cut(outer(true, 41, 0, &inner6), 1)),
        dropped("outer checksum", bad, &at(outer(false, 4, 0, &inner4), 8, 9)),
        dropped("outer shorter than its header", bad, &at(outer(false, 4, 0, &inner4), 3, 19)),
        dropped("outer version", bad, &at(outer(true, 4, 0, &inner4), 0, 0x50)),
        dropped("inner v4 longer than the outer", bad, &long(&inner4)),
        dropped("inner v6 longer than the outer", bad, &long(&inner6)),
        dropped("inner version", bad, &outer(false, 4, 0, &inner6)),
        dropped("inner header length", bad, &outer(false, 4, 0, &at(inner4.clone(), 0, 0x44))),
        dropped("inner shorter than its header", bad, &outer(false, 4, 0, &at(inner4, 3, 8))),
        dropped("no inner", bad, &outer(false, 4, 0, &[0x45; 8])),
        dropped("gue header cut", bad, &short_gue),
        dropped("gue length beyond udp", bad, &at(gue4.clone(), 25, 20)),
        dropped("udp length beyond ip", bad, &at(gue4, 24, 1)),
    ]
}

/// Linux' tunnel encapsulation limit, between outer IPv6 and the packet.
fn options_v6() -> Case {
    let inner = request(true, 0);
    let mut bytes = vec![41, 0, 4, 1, 4, 1, 1, 0];
    bytes.extend(&inner);
    let packet = outer(true, 60, 0, &bytes);
    decapsulated("encapsulation limit".to_owned(), &[], &packet, &inner, Outcome::IpipV6)
}

/// Padding behind the packet stays where it is.
fn padding() -> Case {
    let inner = request(false, 0);
    let pad = |packet: &[u8]| {
        let mut frame = frame(&[], packet);
        frame.extend([0; 9]);
        frame
    };
    let packet = outer(false, 4, 0, &inner);
    let left = Some(pad(&inner));
    Case { name: "padded".to_owned(), frame: pad(&packet), outcome: Outcome::IpipV4, left }
}

/// Every case.
pub(crate) fn all() -> Vec<Case> {
    let mut cases = vec![options_v6(), padding()];
    cases.extend(tunnels());
    cases.extend(ecn());
    cases.extend(untouched());
    cases.extend(fragments());
    cases.extend(lies());
    cases
}

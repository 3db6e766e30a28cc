//! What we write, another parser reads the same; what others write wrong, ends no session that
//! RFC 7606 keeps.

use std::net::IpAddr;

use bgpkit_parser::models::{AsnLength, AttrType, BgpMessage, MetaCommunity, NextHopAddress};
use bgpkit_parser::parser::bgp::parse_bgp_message;
use ipnet::IpNet;

use super::*;
use crate::bgp::community::{Community, ExtendedCommunity, LargeCommunity};
use crate::bgp::route::Attributes;

const OURS: u32 = 4_200_000_001;

fn dialect() -> Dialect {
    Dialect {
        internal: false,
        four_octet_as: true,
        extended_next_hop: true,
        ipv4: true,
        ipv6: true,
    }
}

fn attributes(path: usize, communities: u32) -> Attributes {
    Attributes {
        as_path: vec![OURS; path],
        next_hop: None,
        med: Some(70),
        local_preference: Some(200),
        communities: (0..communities).map(Community).collect(),
        large_communities: (0..communities)
            .map(|it| LargeCommunity { global: OURS, data1: it, data2: u32::MAX })
            .collect(),
        extended_communities: (0..communities)
            .map(|it| ExtendedCommunity((u64::from(it) | 0x0002_fdf2_0000_0000).to_be_bytes()))
            .collect(),
    }
}

fn prefixes(family: Family, many: u32) -> Vec<IpNet> {
    let prefix = |it: u32| match family {
        Family::Ipv4 => format!("10.{}.{}.0/{}", it / 256, it % 256, 24 + it % 9),
        Family::Ipv6 => format!("2001:db8:{it:x}::/{}", 48 + it % 81),
    };
    (0..many).map(|it| prefix(it).parse().unwrap()).collect()
}

/// All messages that announce or withdraw these.
fn all(
    mut rest: &[IpNet],
    write: impl Fn(&[IpNet]) -> Result<(Vec<u8>, usize), Unsendable>,
) -> Vec<Vec<u8>> {
    let mut messages = Vec::new();
    while !rest.is_empty() {
        let (bytes, taken) = write(rest).unwrap();
        assert!(taken > 0 && bytes.len() <= MAX_MESSAGE);
        messages.push(bytes);
        rest = rest.split_at(taken).1;
    }
    messages
}

fn theirs(bytes: &[u8], length: AsnLength) -> BgpMessage {
    let mut bytes = bytes::Bytes::copy_from_slice(bytes);
    let message = parse_bgp_message(&mut bytes, false, &length).unwrap();
    assert!(bytes.is_empty());
    message
}

fn ours(bytes: &[u8], dialect: Dialect) -> Result<Message, Flaw> {
    let mut rest = bytes;
    let frame = Framer::default().take(&mut rest)?.expect("a whole message");
    assert!(rest.is_empty());
    decode(&frame, dialect)
}

fn update(bytes: &[u8], dialect: Dialect) -> Result<Update, Flaw> {
    let Message::Update(update) = ours(bytes, dialect)? else {
        panic!("no UPDATE");
    };
    Ok(update)
}

#[test]
fn announcements_are_read_by_another_parser_as_they_were_meant() {
    for (family, next_hop) in
        [(Family::Ipv4, "192.0.2.1"), (Family::Ipv6, "2001:db8::1"), (Family::Ipv4, "2001:db8::1")]
    {
        for (path, communities, internal) in
            [(1, 0, false), (16, 64, false), (81, 3, false), (300, 1, false), (0, 2, true)]
        {
            let dialect = Dialect { internal, ..dialect() };
            let (wanted, next_hop) = (prefixes(family, 2_000), next_hop.parse().unwrap());
            let attributes = attributes(path, communities);
            let write = |rest: &[IpNet]| announcement(&attributes, rest, next_hop, dialect);
            let mut read = Vec::new();
            for bytes in all(&wanted, write) {
                read.extend(compare(&bytes, &attributes, next_hop, dialect));
            }
            assert_eq!(read, wanted);
        }
    }
}

/// Both parsers find these attributes; the prefixes that both find.
fn compare(bytes: &[u8], wanted: &Attributes, hop: IpAddr, dialect: Dialect) -> Vec<IpNet> {
    let BgpMessage::Update(update) = theirs(bytes, AsnLength::Bits32) else {
        panic!("no UPDATE");
    };
    let list = &update.attributes;
    let path = list.as_path().map(|it| it.to_u32_vec_opt(false).unwrap_or_default());
    assert_eq!(path, Some(wanted.as_path.clone()));
    assert_eq!(list.multi_exit_discriminator(), wanted.med);
    assert_eq!(list.local_preference(), wanted.local_preference.filter(|_| dialect.internal));
    let (mut plain, mut large, mut extended) = (0, 0, 0);
    for community in list.iter_communities() {
        match community {
            MetaCommunity::Plain(_) => plain += 1,
            MetaCommunity::Large(_) => large += 1,
            MetaCommunity::Extended(_) => extended += 1,
            MetaCommunity::Ipv6Extended(_) => panic!("nobody asked for these"),
        }
    }
    assert_eq!(
        (plain, large, extended),
        (
            wanted.communities.len(),
            wanted.large_communities.len(),
            wanted.extended_communities.len()
        )
    );
    let found: Vec<IpNet> = match list.get_reachable_nlri() {
        Some(nlri) => {
            assert_eq!(nlri.next_hop, Some(NextHopAddress::from(hop)));
            nlri.prefixes.iter().map(|it| it.prefix).collect()
        }
        None => {
            assert_eq!(list.next_hop(), Some(hop));
            update.announced_prefixes.iter().map(|it| it.prefix).collect()
        }
    };
    let ours = self::update(bytes, dialect).unwrap();
    assert!(ours.tolerated.is_empty() && ours.withdrawn.is_empty(), "{:?}", ours.tolerated);
    assert_eq!(ours.route.as_path, wanted.as_path);
    assert_eq!(ours.route.communities, wanted.communities);
    assert_eq!(ours.route.large_communities, wanted.large_communities);
    assert_eq!(ours.route.extended_communities, wanted.extended_communities);
    assert!(ours.announced.iter().all(|(_, next_hop)| *next_hop == Some(hop)));
    assert!(ours.announced.iter().map(|(it, _)| *it).eq(found.iter().copied()));
    found
}

#[test]
fn withdrawals_are_read_by_another_parser_as_they_were_meant() {
    for family in Family::ALL {
        let wanted = prefixes(family, 2_000);
        let mut found = Vec::new();
        for bytes in all(&wanted, withdrawal) {
            let BgpMessage::Update(update) = theirs(&bytes, AsnLength::Bits32) else {
                panic!("no UPDATE");
            };
            let nlri = update.attributes.get_unreachable_nlri();
            let nlri = nlri.map(|it| it.prefixes.clone()).unwrap_or(update.withdrawn_prefixes);
            let theirs: Vec<_> = nlri.iter().map(|it| it.prefix).collect();
            assert_eq!(self::update(&bytes, dialect()).unwrap().withdrawn, theirs);
            found.extend(theirs);
        }
        assert_eq!(found, wanted);
        let end = update(&end_of_rib(family), dialect()).unwrap();
        assert_eq!(end, Update { end_of_rib: Some(family), ..Update::default() });
    }
}

#[test]
fn a_peer_without_32_bit_as_numbers_gets_the_path_beside_the_path() {
    let old = Dialect { four_octet_as: false, ..dialect() };
    let mut attributes = attributes(2, 0);
    attributes.as_path.push(65_010);
    let hop = "192.0.2.1".parse().unwrap();
    let (bytes, _) = announcement(&attributes, &prefixes(Family::Ipv4, 1), hop, old).unwrap();
    let BgpMessage::Update(theirs) = theirs(&bytes, AsnLength::Bits16) else {
        panic!("no UPDATE");
    };
    let path = theirs.attributes.as_path().and_then(|it| it.to_u32_vec_opt(false));
    assert_eq!(path, Some(vec![23_456, 23_456, 65_010]));
    assert!(theirs.attributes.has_attr(AttrType::AS4_PATH));
    assert_eq!(update(&bytes, old).unwrap().route.as_path, attributes.as_path);
}

#[test]
fn an_open_is_read_as_it_was_written() {
    let families = vec![(Family::Ipv4, true), (Family::Ipv6, false)];
    let restart = GracefulRestart { restarted: true, notification: true, time: 4_095, families };
    let open = Open {
        asn: OURS,
        hold_time: 9,
        router_id: [192, 0, 2, 1].into(),
        families: vec![Family::Ipv4, Family::Ipv6],
        four_octet_as: true,
        extended_next_hop: true,
        route_refresh: true,
        enhanced_route_refresh: true,
        graceful_restart: Some(restart),
    };
    assert_eq!(ours(&open.bytes(), dialect()), Ok(Message::Open(open.clone())));
    let BgpMessage::Open(theirs) = theirs(&open.bytes(), AsnLength::Bits32) else {
        panic!("no OPEN");
    };
    assert_eq!((theirs.asn.to_u32(), theirs.hold_time), (u32::from(AS_TRANS), 9));
    // A peer of before RFC 4760 takes IPv4.
    let old = Frame { kind: Kind::Open, body: vec![4, 0xfd, 0xf2, 0, 90, 192, 0, 2, 2, 0] };
    let Ok(Message::Open(old)) = ours(&old.bytes(), dialect()) else {
        panic!("an OPEN without capabilities");
    };
    assert_eq!((old.asn, old.families), (65_010, vec![Family::Ipv4]));
}

/// An UPDATE of these attributes, flags and type and value, for 10.0.0.0/8.
fn crafted(list: &[(u8, u8, &[u8])]) -> Vec<u8> {
    let mut attributes = Vec::new();
    for (flags, code, value) in list {
        attributes.extend([*flags, *code, u8::try_from(value.len()).unwrap()]);
        attributes.extend(*value);
    }
    let mut body = vec![0, 0];
    body.extend(u16::try_from(attributes.len()).unwrap().to_be_bytes());
    body.extend(attributes);
    body.extend([8, 10]);
    Frame { kind: Kind::Update, body }.bytes()
}

const ORIGIN: (u8, u8, &[u8]) = (0x40, 1, &[0]);
const PATH: (u8, u8, &[u8]) = (0x40, 2, &[2, 1, 0, 0, 0xfd, 0xf2]);
const HOP: (u8, u8, &[u8]) = (0x40, 3, &[192, 0, 2, 2]);

#[test]
fn malformed_attributes_withdraw_the_route_or_go_unread() {
    let cases: [(&str, &[_], bool); 14] = [
        ("fine", &[ORIGIN, PATH, HOP], false),
        ("no origin", &[PATH, HOP], true),
        ("no path", &[ORIGIN, HOP], true),
        ("no next hop", &[ORIGIN, PATH], true),
        ("origin 9", &[(0x40, 1, &[9]), PATH, HOP], true),
        ("path with an empty segment", &[ORIGIN, (0x40, 2, &[2, 0]), HOP], true),
        ("path that is cut", &[ORIGIN, (0x40, 2, &[2, 9, 0]), HOP], true),
        ("next hop of 3 bytes", &[ORIGIN, PATH, (0x40, 3, &[1, 2, 3])], true),
        ("flags of the MED", &[ORIGIN, PATH, HOP, (0x40, 4, &[0, 0, 0, 1])], true),
        ("communities of 3 bytes", &[ORIGIN, PATH, HOP, (0xc0, 8, &[1, 2, 3])], true),
        ("large communities, empty", &[ORIGIN, PATH, HOP, (0xc0, 32, &[])], true),
        ("aggregator of 1 byte", &[ORIGIN, PATH, HOP, (0xc0, 7, &[1])], false),
        ("LOCAL_PREF of another AS", &[ORIGIN, PATH, HOP, (0x40, 5, &[1])], false),
        ("unknown, optional", &[ORIGIN, PATH, HOP, (0xc0, 99, &[1])], false),
    ];
    for (name, list, withdraws) in cases {
        let update = update(&crafted(list), dialect()).unwrap();
        let prefix = "10.0.0.0/8".parse().unwrap();
        assert_eq!(update.withdrawn, if withdraws { vec![prefix] } else { vec![] }, "{name}");
        assert_eq!(update.announced.len(), usize::from(!withdraws), "{name}");
        assert!(!withdraws || !update.tolerated.is_empty(), "{name}");
    }
}

#[test]
fn unreadable_routes_end_the_session() {
    let reach: &[u8] = &[0, 2, 1, 3, 1, 2, 3, 0];
    let mut bad_prefix = crafted(&[ORIGIN, PATH, HOP]);
    let at = bad_prefix.len() - 2;
    bad_prefix[at] = 33;
    let mut bad_length = crafted(&[ORIGIN, PATH, HOP]);
    bad_length[22] = 0xff;
    for (name, bytes, code) in [
        ("prefix of 33 bits", bad_prefix, code::INVALID_NETWORK),
        ("lengths", bad_length, code::MALFORMED_ATTRIBUTES),
        ("next hop", crafted(&[ORIGIN, PATH, HOP, (0x80, 14, reach)]), code::OPTIONAL_ATTRIBUTE),
        ("unknown, well-known", crafted(&[(0x40, 99, &[1])]), code::UNRECOGNIZED_WELL_KNOWN),
    ] {
        let flaw = update(&bytes, dialect()).expect_err(name);
        assert_eq!((flaw.notification.code, flaw.notification.subcode), code, "{name}");
    }
}

#[test]
fn any_notification_is_understood() {
    let text = Notification::cease(2, "maintenance\n4711");
    let Ok(Message::Notification(read)) = ours(&text.bytes(), dialect()) else {
        panic!("no NOTIFICATION");
    };
    assert_eq!(read.to_string(), "Cease, Administrative Shutdown: \"maintenance 4711\"");
    assert_eq!(
        text.hard().to_string(),
        "Cease, Hard Reset: Cease, Administrative Shutdown: \"maintenance 4711\""
    );
    for (code, shown) in [((6, 0), "Cease"), ((6, 77), "Cease, subcode 77"), ((99, 1), "code 99")] {
        let bytes = Notification::new(code, &[0xff; 9_000]).bytes();
        assert_eq!(bytes.len(), MAX_MESSAGE);
        let Ok(Message::Notification(read)) = ours(&bytes, dialect()) else {
            panic!("no NOTIFICATION");
        };
        assert!(read.to_string().starts_with(shown), "{read}");
    }
}

#[test]
fn wrong_headers_are_refused_before_the_rest_comes() {
    for (change, code) in [
        ((3, 0), code::NOT_SYNCHRONIZED),
        ((16, 0xff), code::BAD_MESSAGE_LENGTH),
        ((17, 20), code::BAD_MESSAGE_LENGTH),
        ((18, 9), code::BAD_MESSAGE_TYPE),
    ] {
        let mut bytes = keepalive();
        bytes[change.0] = change.1;
        let flaw = Framer::default().take(&mut bytes.as_slice()).expect_err("a wrong header");
        assert_eq!((flaw.notification.code, flaw.notification.subcode), code);
    }
}

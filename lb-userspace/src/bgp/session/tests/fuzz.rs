//! Mutated messages, in random pieces: nothing panics, and what ends a session is said.

use std::sync::Arc;

use super::world::{Chance, Desk, SECOND, attributes, messages, settings};
use crate::bgp::community::{Community, ExtendedCommunity, LargeCommunity};
use crate::bgp::session::{Output, SessionSettings, Side, State};
use crate::bgp::wire::{
    Dialect, Family, GracefulRestart, MAX_MESSAGE, Message, Notification, Open, RefreshKind,
    RouteRefresh, announcement, end_of_rib, keepalive, withdrawal,
};

/// Sessions that are attacked; a second or two.
const ROUNDS: u64 = 4_000;

fn dialect(chance: &mut Chance) -> Dialect {
    Dialect {
        internal: chance.one_in(2),
        four_octet_as: !chance.one_in(4),
        extended_next_hop: chance.one_in(2),
        ipv4: true,
        ipv6: true,
    }
}

/// Valid messages that a peer may send when the session is up.
fn valid(dialect: Dialect) -> Vec<Vec<u8>> {
    let mut attributes = attributes(&[65_002, 4_200_000_001]);
    attributes.med = Some(7);
    attributes.communities.extend([Community(1), Community::NO_EXPORT]);
    let large = LargeCommunity { global: 4_200_000_001, data1: 1, data2: 2 };
    attributes.large_communities.insert(large);
    attributes.extended_communities.insert(ExtendedCommunity([0, 2, 0, 1, 0, 0, 0, 1]));
    let four: Vec<_> = (0..20_u8).map(|it| format!("10.0.{it}.0/24").parse().unwrap()).collect();
    let six: Vec<_> = (0..20_u8).map(|it| format!("2001:db8:{it}::/48").parse().unwrap()).collect();
    let announce = |prefixes, next_hop: &str| {
        announcement(&attributes, prefixes, next_hop.parse().unwrap(), dialect).unwrap().0
    };
    vec![
        announce(&four, "192.0.2.2"),
        announce(&six, "2001:db8::2"),
        announce(&four, "2001:db8::2"),
        withdrawal(&four).unwrap().0,
        withdrawal(&six).unwrap().0,
        end_of_rib(Family::Ipv6),
        keepalive(),
        RouteRefresh { family: Family::Ipv4, kind: RefreshKind::Request }.bytes(),
        RouteRefresh { family: Family::Ipv6, kind: RefreshKind::Begin }.bytes(),
        RouteRefresh { family: Family::Ipv6, kind: RefreshKind::End }.bytes(),
        Notification::cease(2, "good bye").bytes(),
    ]
}

fn open(dialect: Dialect) -> Open {
    let families = vec![(Family::Ipv4, true), (Family::Ipv6, false)];
    let restart = GracefulRestart { restarted: false, notification: true, time: 9, families };
    Open {
        asn: if dialect.internal { 65_001 } else { 65_002 },
        hold_time: 9,
        router_id: [192, 0, 2, 2].into(),
        families: Family::ALL.to_vec(),
        four_octet_as: dialect.four_octet_as,
        extended_next_hop: dialect.extended_next_hop,
        route_refresh: true,
        enhanced_route_refresh: true,
        graceful_restart: Some(restart),
    }
}

/// Changes a message; the header's length often follows, so that the inside is reached.
fn mutate(bytes: &mut Vec<u8>, chance: &mut Chance) {
    for _ in 0..=chance.below(3) {
        let at = if chance.one_in(8) { chance.below(19) } else { 19 + chance.below(bytes.len()) };
        let at = at.min(bytes.len() - 1);
        match chance.below(6) {
            0 => bytes[at] ^= 1 << chance.below(8),
            1 => bytes[at] = u8::try_from(chance.below(256)).unwrap(),
            2 => bytes[at] = [0, 1, 0x7f, 0x80, 0xff][chance.below(5)],
            3 => bytes.truncate(at.max(19)),
            4 => {
                let piece = bytes[at..].to_vec();
                bytes.extend(piece);
            }
            _ => bytes.insert(at, u8::try_from(chance.below(256)).unwrap()),
        }
    }
    if !chance.one_in(6) {
        let length = u16::try_from(bytes.len().min(MAX_MESSAGE)).unwrap().to_be_bytes();
        bytes.splice(16..18, length);
    }
}

fn attack(seed: u64) {
    let mut chance = Chance(seed);
    let dialect = dialect(&mut chance);
    let remote_as = if dialect.internal { 65_001 } else { 65_002 };
    let mut settings = settings(65_001, 1, remote_as);
    settings.peer.monitor = true;
    settings.peer.max_prefixes = 50;
    settings.peer.extended_next_hop = dialect.extended_next_hop;
    let mut desk = Desk::new(SessionSettings { graceful_restart: Some(SECOND), ..settings });
    desk.input(crate::bgp::session::Input::Start);
    let path: &[u32] = if dialect.internal { &[] } else { &[65_001] };
    let wanted = Arc::new(attributes(path));
    let wanted = [("198.51.100.0/24".parse().unwrap(), wanted)].into();
    desk.want(wanted, true, 1);
    desk.connect(Side::Active);
    let mut stream = open(dialect).bytes();
    if chance.one_in(4) {
        mutate(&mut stream, &mut chance);
    }
    stream.extend(keepalive());
    let valid = valid(dialect);
    for _ in 0..chance.below(6) {
        let mut message = valid[chance.below(valid.len())].clone();
        if !chance.one_in(4) {
            mutate(&mut message, &mut chance);
        }
        stream.extend(message);
    }
    let mut rest = stream.as_slice();
    while !rest.is_empty() {
        let (now, later) = rest.split_at(1 + chance.below(rest.len()));
        desk.receive(Side::Active, now);
        rest = later;
    }
    judge(&mut desk, dialect);
}

/// What came out is well formed and little; a session that we ended, we ended with a NOTIFICATION.
fn judge(desk: &mut Desk, dialect: Dialect) {
    let bytes: Vec<u8> = desk
        .out
        .iter()
        .filter_map(
            |it| if let Output::Send { bytes, .. } = it { Some(bytes.clone()) } else { None },
        )
        .flatten()
        .collect();
    assert!(bytes.len() < 16_384, "{} bytes", bytes.len());
    let sent = messages(&bytes, dialect);
    let ended = desk.closed(Side::Active);
    let notified = matches!(sent.last(), Some(Message::Notification(_)));
    let report = desk.session.report();
    let error = report.last_error.map(|it| it.text).unwrap_or_default();
    let by_peer = error.starts_with("received NOTIFICATION");
    assert_eq!(ended, report.state < State::OpenSent, "{error}");
    assert_eq!(ended && !by_peer, notified, "{error}");
    assert!(report.prefixes_received <= 50 && error.len() < 2_000);
}

#[test]
fn mutated_messages_break_nothing() {
    for seed in 0..ROUNDS {
        let run = std::panic::catch_unwind(|| attack(seed));
        assert!(run.is_ok(), "seed {seed}");
    }
}

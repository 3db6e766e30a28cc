//! One thing at a time: what the peer sees, and what is reported.

use std::sync::Arc;
use std::time::Duration;

use super::world::{Desk, SECOND, rib, settings};
use crate::bgp::session::{
    Cause, Cease, Close, Input, Output, SessionEvent, SessionSettings, Side, State,
};
use crate::bgp::wire::{
    Dialect, Family, GracefulRestart, Message, Notification, Open, RefreshKind, RouteRefresh,
    Unsendable, keepalive,
};

const DIALECT: Dialect = Dialect {
    internal: false,
    four_octet_as: true,
    extended_next_hop: false,
    ipv4: true,
    ipv6: true,
};
const PREFIX: &str = "198.51.100.0/24";

/// The peer's OPEN.
fn open() -> Open {
    Open {
        asn: 65_002,
        hold_time: 90,
        router_id: [192, 0, 2, 2].into(),
        families: vec![Family::Ipv4, Family::Ipv6],
        four_octet_as: true,
        extended_next_hop: false,
        route_refresh: true,
        enhanced_route_refresh: true,
        graceful_restart: None,
    }
}

fn restarting(restarted: bool) -> Open {
    let families = vec![(Family::Ipv4, true), (Family::Ipv6, true)];
    let restart = GracefulRestart { restarted, notification: true, time: 120, families };
    Open { graceful_restart: Some(restart), ..open() }
}

fn us() -> SessionSettings {
    settings(65_001, 1, 65_002)
}

fn established(settings: SessionSettings, open: &Open) -> Desk {
    let mut desk = Desk::new(settings);
    desk.input(Input::Start);
    assert!(desk.out.contains(&Output::Connect));
    desk.connect(Side::Active);
    desk.receive(Side::Active, &open.bytes());
    desk.receive(Side::Active, &keepalive());
    assert_eq!(desk.session.report().state, State::Established);
    desk.sent(Side::Active, DIALECT);
    desk
}

/// The NOTIFICATION that ended a side.
fn end(desk: &mut Desk, side: Side) -> Notification {
    let sent = desk.sent(side, DIALECT);
    assert!(desk.closed(side));
    match sent.last() {
        Some(Message::Notification(notification)) => notification.clone(),
        other => panic!("{other:?}"),
    }
}

fn announced(sent: &[Message]) -> Vec<String> {
    let updates = sent.iter().filter_map(|it| match it {
        Message::Update(update) => Some(update.announced.iter().map(|(it, _)| it.to_string())),
        Message::Open(_)
        | Message::Notification(_)
        | Message::Keepalive
        | Message::RouteRefresh(_) => None,
    });
    updates.flatten().collect()
}

#[test]
fn nothing_but_keepalives_goes_out_before_the_gate_opens() {
    let settings = SessionSettings { graceful_restart: Some(60 * SECOND), ..us() };
    let mut desk = established(settings, &restarting(false));
    desk.want(rib(&[65_001], &[PREFIX]), false, 1);
    for _ in 0..20 {
        desk.wait(3 * SECOND);
        desk.receive(Side::Active, &keepalive());
        let sent = desk.sent(Side::Active, DIALECT);
        assert!(sent.iter().all(|it| *it == Message::Keepalive) && !sent.is_empty());
    }
    desk.want(rib(&[65_001], &[PREFIX]), true, 2);
    let sent = desk.sent(Side::Active, DIALECT);
    assert_eq!(announced(&sent), [PREFIX]);
    let ends = sent.iter().filter_map(|it| match it {
        Message::Update(update) => update.end_of_rib,
        Message::Open(_)
        | Message::Notification(_)
        | Message::Keepalive
        | Message::RouteRefresh(_) => None,
    });
    assert_eq!(ends.collect::<Vec<_>>(), [Family::Ipv4, Family::Ipv6]);
    assert!(
        sent.iter().position(|it| matches!(it, Message::Update(u) if u.end_of_rib.is_some()))
            > Some(0)
    );
}

#[test]
fn only_the_difference_is_sent_and_withdrawals_first() {
    let mut desk = established(us(), &open());
    desk.want(rib(&[65_001], &["198.51.100.0/24", "203.0.113.0/24"]), true, 1);
    desk.sent(Side::Active, DIALECT);
    desk.want(rib(&[65_001], &["198.51.100.0/24", "192.0.2.0/24"]), true, 2);
    let sent = desk.sent(Side::Active, DIALECT);
    let [Message::Update(first), Message::Update(second)] = sent.as_slice() else {
        panic!("{sent:?}");
    };
    assert_eq!(first.withdrawn, ["203.0.113.0/24".parse().unwrap()]);
    assert_eq!(announced(&sent), ["192.0.2.0/24"]);
    assert!(second.withdrawn.is_empty());
    desk.want(rib(&[65_001], &["198.51.100.0/24", "192.0.2.0/24"]), true, 3);
    assert!(desk.sent(Side::Active, DIALECT).is_empty());
    assert!(desk.session.report().settled);
}

#[test]
fn the_time_of_a_decision_ends_with_its_last_byte() {
    let mut desk = established(us(), &open());
    desk.want(rib(&[65_001], &[]), true, 1);
    desk.want(rib(&[65_001], &[PREFIX]), true, 2);
    assert_eq!(desk.session.report().decisions.count, 0);
    desk.now += Duration::from_millis(30);
    desk.sent(Side::Active, DIALECT);
    let report = desk.session.report();
    assert_eq!((report.decisions.last_id, report.decisions.last_us), (2, 30_000));
    // One that changes nothing has no last byte.
    desk.want(rib(&[65_001], &[PREFIX]), true, 3);
    desk.sent(Side::Active, DIALECT);
    assert_eq!(desk.session.report().decisions.count, 1);
}

#[test]
fn a_peer_that_reads_nothing_gets_no_more_than_the_limit_and_is_dropped() {
    let mut desk = established(us(), &open());
    let prefixes: Vec<_> =
        (0..200_u32).flat_map(|a| (0..200_u32).map(move |b| format!("10.{a}.{b}.0/24"))).collect();
    let prefixes: Vec<_> = prefixes.iter().map(String::as_str).collect();
    desk.want(rib(&[65_001], &prefixes), true, 1);
    let unsent: usize = desk
        .out
        .iter()
        .map(|it| if let Output::Send { bytes, .. } = it { bytes.len() } else { 0 })
        .sum();
    assert!((60_000..=70_000).contains(&unsent), "{unsent}");
    for _ in 0..10 {
        desk.wait(2 * SECOND);
        desk.receive(Side::Active, &keepalive());
    }
    assert_eq!(desk.session.report().counters.flaps.get(&Cause::SendHoldTimer), Some(&1));
}

#[test]
fn a_silent_peer_is_dropped_after_the_hold_time_and_called_again() {
    let mut desk = established(us(), &open());
    desk.wait(8 * SECOND);
    assert_eq!(desk.session.report().state, State::Established);
    desk.wait(2 * SECOND);
    assert_eq!(end(&mut desk, Side::Active).code, 4);
    desk.out.clear();
    desk.wait(2 * SECOND);
    assert!(desk.out.contains(&Output::Connect));
    // It does not answer: longer and longer pauses, no longer than 30 s.
    let mut attempts = 0;
    for _ in 0..300 {
        desk.input(Input::ConnectFailed { reason: "refused" });
        desk.out.clear();
        desk.wait(SECOND);
        attempts += usize::from(desk.out.contains(&Output::Connect));
    }
    assert!((10..=18).contains(&attempts), "{attempts}");
}

#[test]
fn the_peer_that_is_configured_and_no_other() {
    for (open, code) in [
        (Open { asn: 65_003, ..open() }, (2, 2)),
        (Open { router_id: [0, 0, 0, 0].into(), ..open() }, (2, 3)),
        (Open { hold_time: 2, ..open() }, (2, 6)),
    ] {
        let mut desk = Desk::new(us());
        desk.input(Input::Start);
        desk.connect(Side::Active);
        desk.receive(Side::Active, &open.bytes());
        let notification = end(&mut desk, Side::Active);
        assert_eq!((notification.code, notification.subcode), code);
        assert!(desk.session.report().last_error.is_some());
    }
}

#[test]
fn of_two_connections_the_one_of_the_greater_identifier_stays() {
    for (id, stays) in [(1, Side::Passive), (9, Side::Active)] {
        let mut desk = Desk::new(settings(65_001, id, 65_002));
        desk.input(Input::Start);
        for side in [Side::Active, Side::Passive] {
            desk.connect(side);
        }
        for side in [Side::Active, Side::Passive] {
            desk.receive(side, &open().bytes());
        }
        let goes = if stays == Side::Active { Side::Passive } else { Side::Active };
        let notification = end(&mut desk, goes);
        assert_eq!((notification.code, notification.subcode), (6, 7), "identifier {id}");
        desk.receive(stays, &keepalive());
        assert_eq!(desk.session.report().state, State::Established);
    }
}

#[test]
fn a_connection_on_which_the_peer_says_nothing_does_not_keep_us_from_connecting() {
    let mut desk = Desk::new(us());
    desk.input(Input::Start);
    desk.input(Input::ConnectFailed { reason: "refused" });
    desk.connect(Side::Passive);
    desk.out.clear();
    desk.wait(5 * SECOND);
    assert!(desk.out.contains(&Output::Connect));
    desk.receive(Side::Passive, &open().bytes());
    desk.receive(Side::Passive, &keepalive());
    assert!(desk.closed(Side::Active), "the attempt is given up");
    assert_eq!(desk.session.report().state, State::Established);
}

#[test]
fn a_second_connection_replaces_a_session_only_of_a_peer_that_restarted() {
    for (first, second, replaced) in [
        (open(), open(), false),
        (restarting(false), restarting(false), false),
        (restarting(false), restarting(true), true),
    ] {
        let mut desk = established(us(), &first);
        desk.connect(Side::Passive);
        desk.receive(Side::Passive, &second.bytes());
        assert_eq!(desk.closed(Side::Active), replaced);
        assert_eq!(desk.closed(Side::Passive), !replaced);
    }
}

#[test]
fn the_shutdown_text_reaches_the_peer_and_is_final_for_graceful_restart() {
    let close = Close { cease: Cease::AdministrativeShutdown, text: "drained, \u{e9}".repeat(40) };
    let mut desk = established(us(), &open());
    desk.input(Input::Stop(&close));
    let notification = end(&mut desk, Side::Active);
    assert_eq!((notification.code, notification.subcode), (6, 2));
    assert!(notification.to_string().contains("drained, \u{e9}"), "{notification}");
    assert!(notification.data.len() <= 256 && desk.session.deadline().is_none());

    let settings = SessionSettings { graceful_restart: Some(60 * SECOND), ..us() };
    let mut desk = established(settings, &restarting(false));
    desk.input(Input::Stop(&close));
    let notification = end(&mut desk, Side::Active);
    assert_eq!((notification.code, notification.subcode), (6, 9));
    assert_eq!(notification.data.get(..2), Some([6, 2].as_slice()));
}

#[test]
fn a_route_refresh_sends_the_family_once_more_between_marks() {
    let mut desk = established(us(), &open());
    desk.want(rib(&[65_001], &[PREFIX]), true, 1);
    desk.sent(Side::Active, DIALECT);
    let mark = |kind| RouteRefresh { family: Family::Ipv4, kind };
    desk.receive(Side::Active, &mark(RefreshKind::Request).bytes());
    let sent = desk.sent(Side::Active, DIALECT);
    assert_eq!(sent.first(), Some(&Message::RouteRefresh(Some(mark(RefreshKind::Begin)))));
    assert_eq!(sent.last(), Some(&Message::RouteRefresh(Some(mark(RefreshKind::End)))));
    assert_eq!(announced(&sent), [PREFIX]);
}

#[test]
fn bfd_takes_the_session_down_only_when_it_was_up() {
    let mut desk = established(us(), &open());
    desk.input(Input::Bfd(false));
    assert_eq!(desk.session.report().state, State::Established);
    desk.input(Input::Bfd(true));
    desk.input(Input::Bfd(false));
    let notification = end(&mut desk, Side::Active);
    assert_eq!((notification.code, notification.subcode), (6, 10));
    assert_eq!(desk.session.report().counters.flaps.get(&Cause::Bfd), Some(&1));
}

#[test]
fn too_many_prefixes_besides_our_own_end_the_session() {
    let mut settings = us();
    settings.peer.max_prefixes = 2;
    let mut desk = established(settings, &open());
    let own = |prefixes: &[&str]| Input::Own {
        prefixes: Arc::new(prefixes.iter().map(|it| it.parse().unwrap()).collect()),
    };
    desk.input(own(&["10.0.0.0/24"]));
    let mut theirs = established(
        self::settings(65_002, 2, 65_001),
        &Open { asn: 65_001, router_id: [192, 0, 2, 1].into(), ..open() },
    );
    theirs.want(rib(&[65_002], &["10.0.0.0/24", "10.0.1.0/24", "10.0.2.0/24"]), true, 1);
    for it in std::mem::take(&mut theirs.out) {
        if let Output::Send { bytes, .. } = it {
            desk.receive(Side::Active, &bytes);
        }
    }
    assert_eq!(desk.session.report().state, State::Established);
    assert_eq!(desk.session.report().prefixes_received, 3);
    // The first is not ours any more; the next UPDATE counts all three.
    desk.input(own(&[]));
    let again = rib(&[65_002, 65_002], &["10.0.0.0/24", "10.0.1.0/24", "10.0.2.0/24"]);
    theirs.want(again, true, 2);
    for it in std::mem::take(&mut theirs.out) {
        if let Output::Send { bytes, .. } = it {
            desk.receive(Side::Active, &bytes);
        }
    }
    let notification = end(&mut desk, Side::Active);
    assert_eq!((notification.code, notification.subcode), (6, 1));
    assert_eq!(notification.data, [0, 1, 1, 0, 0, 0, 2]);
}

#[test]
fn what_cannot_be_told_is_named_and_the_rest_goes_out() {
    let mut desk = established(us(), &open());
    let mut wanted = rib(&[65_001], &[PREFIX, "2001:db8::/48", "224.0.0.0/24"]);
    wanted.extend(rib(&[65_009, 65_001], &["203.0.113.0/24"]));
    desk.want(wanted, true, 1);
    let sent = desk.sent(Side::Active, DIALECT);
    assert_eq!(announced(&sent), [PREFIX]);
    let events = desk.events();
    for (prefix, reason) in [
        ("2001:db8::/48", Unsendable::NextHop),
        ("224.0.0.0/24", Unsendable::Prefix),
        ("203.0.113.0/24", Unsendable::Path),
    ] {
        let prefix = prefix.parse().unwrap();
        assert!(events.contains(&SessionEvent::Unsendable { prefix, reason }), "{prefix}");
        assert!(desk.session.report().unsendable.contains_key(&prefix));
    }
}

#[test]
fn over_ipv6_both_families_go_out_with_our_address_if_the_peer_takes_that() {
    for extended in [false, true] {
        let mut us = us();
        us.peer.extended_next_hop = true;
        let open = Open { extended_next_hop: extended, ..open() };
        let mut desk = Desk::new(us);
        desk.input(Input::Start);
        let [local, remote] = ["2001:db8:7::1", "2001:db8:7::2"].map(|it| it.parse().unwrap());
        desk.input(Input::Connected { side: Side::Active, local, remote });
        desk.receive(Side::Active, &open.bytes());
        desk.receive(Side::Active, &keepalive());
        desk.want(rib(&[65_001], &[PREFIX, "2001:db8::/48"]), true, 1);
        let sent = desk.sent(Side::Active, Dialect { extended_next_hop: extended, ..DIALECT });
        let all: &[&str] = &[PREFIX, "2001:db8::/48"];
        assert_eq!(announced(&sent), all[usize::from(!extended)..]);
        for it in sent {
            if let Message::Update(update) = it {
                assert!(update.announced.iter().all(|(_, next_hop)| *next_hop == Some(local)));
            }
        }
    }
}

#[test]
fn inside_an_as_the_path_is_empty_and_the_preference_is_there() {
    let open = Open { asn: 65_001, ..open() };
    let mut desk = established(settings(65_001, 1, 65_001), &open);
    desk.want(rib(&[], &[PREFIX]), true, 1);
    let sent = desk.sent(Side::Active, Dialect { internal: true, ..DIALECT });
    let [Message::Update(update)] = sent.as_slice() else {
        panic!("{sent:?}");
    };
    assert_eq!(update.route.local_preference, Some(100));
    assert!(update.route.as_path.is_empty() && update.tolerated.is_empty());
}

//! The pure halves of the resolver, as tables.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use crate::host::netlink::codec;
use crate::host::netlink::neighbours::{Key, Neighbours, Seen, Sighting, State, Step};
use crate::host::netlink::resolution::{Hop, Lookup, Prefix, Resolution};
use crate::host::netlink::{
    FULL_PASS_INTERVAL, HOLD_RETRY, LOOKUP_DEBOUNCE, Link, MAX_DESTINATIONS, MAX_HOPS,
    NeighbourMode, NetlinkError, NextHop, PERMANENT_REFRESH, RELEASE_DELAY, REPORT_LATEST,
    REPORT_QUIET, Unresolved,
};

const T0: Duration = Duration::from_secs(1_000);
const NEAR: [u8; 6] = [2, 0, 0, 0, 0, 1];
const FAR: [u8; 6] = [2, 0, 0, 0, 0, 2];

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

fn key(address: &str) -> Key {
    Key { interface: 7, address: ip(address) }
}

fn link(up: bool, mtu: u32, mac: Option<[u8; 6]>) -> Link {
    Link { index: 7, name: "eth0".into(), up, mtu, mac }
}

fn hop(gateway: Option<&str>, mtu: Option<u32>) -> Hop {
    Hop { interface: 7, gateway: gateway.map(ip), mtu }
}

/// An entry of ours that the kernel manages.
fn managed(seen: Seen) -> Sighting {
    Sighting { seen, permanent: false, managed: true, ours: true }
}

/// A resolution that follows these destinations, with eth0 up and every lookup handed out.
fn following(destinations: &[&str]) -> Resolution {
    let mut resolution = Resolution::new(NeighbourMode::Managed);
    resolution.link(link(true, 1_500, Some(NEAR)), T0);
    let wanted = destinations.iter().copied().map(ip).collect();
    resolution.set_destinations(&wanted, T0).expect("accepted");
    resolution.take_lookups(T0, usize::MAX);
    resolution.take_lookups(T0 + LOOKUP_DEBOUNCE, usize::MAX);
    resolution
}

fn result(resolution: &mut Resolution, destination: &str) -> Result<NextHop, Unresolved> {
    resolution.report();
    resolution.table()[&ip(destination)].clone()
}

#[test]
fn a_prefix_is_a_range() {
    for (address, length, first, last) in [
        ("0.0.0.0", 0, "0.0.0.0", "255.255.255.255"),
        ("10.1.2.3", 32, "10.1.2.3", "10.1.2.3"),
        ("10.1.2.3", 99, "10.1.2.3", "10.1.2.3"),
        ("10.1.2.3", 31, "10.1.2.2", "10.1.2.3"),
        ("10.1.2.3", 8, "10.0.0.0", "10.255.255.255"),
        ("::", 0, "::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"),
        ("2001:db8::5", 128, "2001:db8::5", "2001:db8::5"),
        ("2001:db8::5", 126, "2001:db8::4", "2001:db8::7"),
    ] {
        let range = Prefix { address: ip(address), length }.range();
        assert_eq!((*range.start(), *range.end()), (ip(first), ip(last)), "{address}/{length}");
    }
}

#[test]
fn refusals_of_routes() {
    for (errno, code) in [
        (libc::ENETUNREACH, "no_route"),
        (libc::EHOSTUNREACH, "unreachable"),
        (libc::EACCES, "unreachable"),
        (libc::EINVAL, "unreachable"),
        (libc::ENODEV, "no_route"),
    ] {
        assert_eq!(codec::refused_route(errno).code(), code, "{errno}");
    }
}

#[test]
fn next_hops_of_one_destination() {
    let up = || link(true, 1_500, Some(NEAR));
    let valid = Some(Seen::Valid(FAR));
    let (on_link, routed) = (hop(None, None), hop(Some("10.0.0.1"), Some(1_400)));
    let jumbo = hop(None, Some(9_000));
    for (link, answer, seen, want) in [
        (up(), Ok(on_link), valid, Ok(1_500)),
        (up(), Ok(jumbo), valid, Ok(1_500)),
        (up(), Ok(routed), valid, Ok(1_400)),
        (link(true, 0, Some(NEAR)), Ok(on_link), valid, Ok(u16::MAX)),
        (link(true, 65_536, Some(NEAR)), Ok(on_link), valid, Ok(u16::MAX)),
        (up(), Ok(on_link), None, Err("resolving")),
        (up(), Ok(on_link), Some(Seen::Trying), Err("resolving")),
        (up(), Ok(on_link), Some(Seen::Failed), Err("neighbour_failed")),
        (link(false, 1_500, Some(NEAR)), Ok(on_link), valid, Err("interface_down")),
        (link(true, 1_500, None), Ok(on_link), valid, Err("not_ethernet")),
        (up(), Ok(Hop { interface: 8, ..on_link }), valid, Err("interface_down")),
        (up(), Err(Unresolved::NoRoute), valid, Err("no_route")),
        (up(), Err(Unresolved::NotRemote), valid, Err("not_remote")),
    ] {
        let mut resolution = following(&["10.0.0.9"]);
        resolution.link(link.clone(), T0);
        let case = format!("{link:?} {answer:?} {seen:?}");
        let neighbour = answer.as_ref().ok().and_then(|hop| hop.gateway);
        resolution.looked_up(ip("10.0.0.9"), Lookup::Choice, answer.map(|hop| vec![hop]), T0);
        if let Some(seen) = seen {
            let address = neighbour.unwrap_or(ip("10.0.0.9"));
            resolution.neighbour(&Key { interface: 7, address }, managed(seen), T0);
        }
        let got = result(&mut resolution, "10.0.0.9");
        assert_eq!(got.as_ref().map(|hop| hop.mtu).map_err(Unresolved::code), want, "{case}");
        if let Ok(hop) = got {
            assert_eq!((hop.source_mac, hop.destination_mac, hop.interface_index), (NEAR, FAR, 7));
        }
    }
}

#[test]
fn a_mac_stands_until_the_neighbour_has_failed() {
    let mut resolution = following(&["10.0.0.9"]);
    resolution.looked_up(ip("10.0.0.9"), Lookup::Choice, Ok(vec![hop(None, None)]), T0);
    for (seen, want) in [
        (Some(Seen::Trying), "resolving"),
        (Some(Seen::Valid(FAR)), "ok"),
        (Some(Seen::Trying), "ok"),
        (None, "ok"),
        (Some(Seen::Trying), "ok"),
        (Some(Seen::Failed), "neighbour_failed"),
        (Some(Seen::Trying), "neighbour_failed"),
        (None, "neighbour_failed"),
        (Some(Seen::Valid(NEAR)), "ok"),
    ] {
        match seen {
            Some(seen) => resolution.neighbour(&key("10.0.0.9"), managed(seen), T0),
            None => resolution.neighbour_gone(&key("10.0.0.9"), T0),
        }
        let got = result(&mut resolution, "10.0.0.9");
        assert_eq!(got.as_ref().map_or_else(Unresolved::code, |_| "ok"), want, "{seen:?}");
    }
}

#[test]
fn only_what_a_route_covers_is_asked_again() {
    let destinations = ["10.0.0.9", "10.0.1.9", "10.0.1.10", "fd00::9"];
    for (address, length, want) in [
        ("0.0.0.0", 0, vec!["10.0.0.9", "10.0.1.9", "10.0.1.10"]),
        ("10.0.1.0", 24, vec!["10.0.1.9", "10.0.1.10"]),
        ("10.0.1.10", 32, vec!["10.0.1.10"]),
        ("10.0.2.0", 24, vec![]),
        ("::", 0, vec!["fd00::9"]),
    ] {
        let mut resolution = following(&destinations);
        resolution.route(Prefix { address: ip(address), length }, T0);
        assert!(resolution.take_lookups(T0, 100).is_empty(), "it waits for the burst to end");
        let got = resolution.take_lookups(T0 + LOOKUP_DEBOUNCE, 100);
        let want: Vec<_> = want.into_iter().map(|d| (ip(d), Lookup::Choice)).collect();
        assert_eq!(got, want, "{address}/{length}");
    }
}

#[test]
fn a_neighbour_that_changes_asks_for_no_route() {
    let mut resolution = following(&["10.0.0.9", "10.0.1.9"]);
    for destination in ["10.0.0.9", "10.0.1.9"] {
        let routed = Ok(vec![hop(Some("10.0.0.1"), None)]);
        resolution.looked_up(ip(destination), Lookup::Choice, routed, T0);
    }
    resolution.neighbour(&key("10.0.0.1"), managed(Seen::Valid(FAR)), T0);
    resolution.neighbour(&key("10.0.0.1"), managed(Seen::Valid(NEAR)), T0);
    for destination in ["10.0.0.9", "10.0.1.9"] {
        assert_eq!(result(&mut resolution, destination).expect("resolved").destination_mac, NEAR);
    }
    assert!(resolution.take_lookups(T0 + LOOKUP_DEBOUNCE, 100).is_empty());
}

#[test]
fn full_passes_are_paced() {
    let mut resolution = following(&["10.0.0.9"]);
    let mut at = T0 + LOOKUP_DEBOUNCE;
    let mut passes = 0;
    while at < T0 + 5 * FULL_PASS_INTERVAL {
        resolution.everything(at);
        at += Duration::from_millis(10);
        passes += resolution.take_lookups(at, 100).len();
    }
    assert_eq!(passes, 4);
}

#[test]
fn alternatives_of_a_dead_next_hop() {
    let (dead, alive) = (hop(Some("10.0.0.1"), None), hop(Some("10.0.0.2"), None));
    let destination = ip("172.16.0.1");
    let mut resolution = following(&["172.16.0.1"]);
    resolution.looked_up(destination, Lookup::Choice, Ok(vec![dead]), T0);
    assert!(resolution.take_lookups(T0, 9).is_empty(), "no alternatives without need");
    resolution.neighbour(&key("10.0.0.1"), managed(Seen::Failed), T0);
    assert_eq!(resolution.take_lookups(T0, 9), [(destination, Lookup::Alternatives)]);
    resolution.looked_up(destination, Lookup::Alternatives, Ok(vec![dead, alive]), T0);
    resolution.neighbour(&key("10.0.0.2"), managed(Seen::Valid(FAR)), T0);
    assert_eq!(result(&mut resolution, "172.16.0.1").expect("passed over").destination_mac, FAR);

    // The kernel goes on choosing the dead one; that must not take the living one away.
    resolution.looked_up(destination, Lookup::Choice, Ok(vec![dead]), T0);
    assert!(result(&mut resolution, "172.16.0.1").is_ok());
    assert_eq!(resolution.take_lookups(T0, 9), [(destination, Lookup::Alternatives)]);
    let many = (1..=255).map(|n| hop(Some(&format!("10.0.1.{n}")), None)).collect();
    resolution.looked_up(destination, Lookup::Alternatives, Ok(many), T0);
    let steps = resolution.take_steps(T0 + RELEASE_DELAY, 1_000);
    assert!(steps.len() <= MAX_HOPS + 1, "{} steps", steps.len());

    // The kernel's own choice comes back into use as soon as it answers.
    resolution.neighbour(&key("10.0.0.1"), managed(Seen::Valid(NEAR)), T0);
    assert_eq!(result(&mut resolution, "172.16.0.1").expect("back").destination_mac, NEAR);
}

#[test]
fn reports_wait_for_quiet_but_not_for_ever() {
    let mut resolution = following(&["10.0.0.9", "10.0.0.8"]);
    let late = T0 + Duration::from_millis(100);
    assert_eq!(resolution.report_due(), Some(T0 + REPORT_LATEST), "routes are being asked for");
    for destination in ["10.0.0.9", "10.0.0.8"] {
        resolution.looked_up(ip(destination), Lookup::Choice, Ok(vec![hop(None, None)]), T0);
    }
    resolution.neighbour(&key("10.0.0.9"), managed(Seen::Valid(FAR)), late);
    assert_eq!(resolution.report_due(), Some(T0 + REPORT_LATEST), "one neighbour is missing");
    resolution.neighbour(&key("10.0.0.8"), managed(Seen::Valid(FAR)), late);
    assert_eq!(resolution.report_due(), Some(late + REPORT_QUIET));
    assert_eq!(resolution.report().expect("a change").len(), 2);
    assert_eq!(resolution.report_due(), None);

    // There and back again within one report is no change.
    resolution.neighbour(&key("10.0.0.9"), managed(Seen::Valid(NEAR)), late);
    resolution.neighbour(&key("10.0.0.9"), managed(Seen::Valid(FAR)), late);
    assert!(resolution.report_due().is_some());
    assert_eq!(resolution.report(), None);
}

#[test]
fn destinations_come_and_go_within_their_limit() {
    let mut resolution = following(&["10.0.0.9"]);
    let all = |count: usize| -> BTreeSet<IpAddr> {
        (0..count).map(|n| IpAddr::V4(u32::try_from(n).expect("small").into())).collect()
    };
    let too_many = resolution.set_destinations(&all(MAX_DESTINATIONS + 1), T0);
    assert!(matches!(too_many, Err(NetlinkError::TooManyDestinations(_))));
    assert_eq!(resolution.table().len(), 1, "nothing changed");
    resolution.set_destinations(&all(MAX_DESTINATIONS), T0).expect("accepted");
    assert_eq!(resolution.table().len(), MAX_DESTINATIONS);
    resolution.set_destinations(&BTreeSet::new(), T0).expect("accepted");
    assert!(resolution.table().is_empty());
    assert!(resolution.take_lookups(T0 + LOOKUP_DEBOUNCE, 100).is_empty());
    // Nobody waits for destinations that are gone.
    assert_eq!(resolution.report_due(), Some(T0 + REPORT_QUIET));
}

/// What follows from a sighting of a neighbour that is needed.
#[test]
fn steps_that_follow_from_a_sighting() {
    use NeighbourMode::{Managed, Permanent};
    let valid = Seen::Valid(FAR);
    // mode, seen, permanent, managed, ours; the step and its delay
    for (mode, seen, permanent, managed, ours, want) in [
        (Managed, valid, false, true, true, None),
        (Managed, Seen::Failed, false, true, true, None),
        (Managed, valid, false, false, false, Some((Step::Hold, Duration::ZERO))),
        (Managed, valid, false, false, true, Some((Step::Hold, Duration::ZERO))),
        (Managed, valid, true, false, true, Some((Step::Hold, Duration::ZERO))),
        (Managed, valid, true, false, false, None),
        (Managed, valid, false, true, false, None),
        (Permanent, valid, false, false, false, Some((Step::Probe, Duration::ZERO))),
        (Permanent, Seen::Trying, false, false, true, None),
        (Permanent, valid, false, false, true, Some((Step::Pin(FAR), Duration::ZERO))),
        (Permanent, valid, true, false, true, Some((Step::Probe, PERMANENT_REFRESH))),
        (Permanent, Seen::Failed, false, false, true, Some((Step::Probe, Duration::ZERO))),
        (Permanent, valid, true, false, false, None),
    ] {
        let mut neighbours = Neighbours::new(mode);
        neighbours.set_interface(7, true, T0);
        assert!(neighbours.add_user(key("10.0.0.9"), ip("10.0.0.9"), T0));
        assert_eq!(neighbours.take_due(T0, 9), [(key("10.0.0.9"), Step::Query)]);
        let sighting = Sighting { seen, permanent, managed, ours };
        neighbours.sighted(&key("10.0.0.9"), sighting, T0);
        let due = neighbours.next_due();
        let steps = neighbours.take_due(T0 + Duration::from_secs(3_600), 9);
        let got = steps.first().map(|(_, step)| (*step, due.expect("planned") - T0));
        assert_eq!(got, want, "{mode:?} {sighting:?}");
    }
}

#[test]
fn entries_are_released_when_nobody_has_needed_them_for_a_while() {
    let (mut neighbours, key) = (Neighbours::new(NeighbourMode::Managed), key("10.0.0.1"));
    let user = ip("172.16.0.1");
    neighbours.set_interface(7, true, T0);
    neighbours.add_user(key, user, T0);
    neighbours.sighted(&key, managed(Seen::Valid(FAR)), T0);
    neighbours.remove_user(&key, user, T0);
    assert_eq!(neighbours.next_due(), Some(T0 + RELEASE_DELAY));
    neighbours.add_user(key, user, T0);
    assert_eq!(neighbours.take_due(T0 + RELEASE_DELAY, 9), [(key, Step::Query)], "needed again");
    neighbours.remove_user(&key, user, T0);
    assert_eq!(neighbours.take_due(T0 + RELEASE_DELAY, 9), [(key, Step::Release)]);
    neighbours.gone(&key, T0);
    assert_eq!(neighbours.next_due(), None);

    // One that an earlier lbd left is kept if it is needed, and is ours to release if not.
    neighbours.adopt(key, T0);
    assert_eq!(neighbours.take_due(T0 + RELEASE_DELAY, 9), [(key, Step::Release)]);

    // What is not ours is never released.
    neighbours.gone(&key, T0);
    neighbours.add_user(key, user, T0);
    let foreign = Sighting { ours: false, permanent: true, ..managed(Seen::Valid(FAR)) };
    neighbours.sighted(&key, foreign, T0);
    neighbours.remove_user(&key, user, T0);
    assert_eq!(neighbours.next_due(), None);
}

#[test]
fn refusals_of_entries() {
    let (mut neighbours, key) = (Neighbours::new(NeighbourMode::Managed), key("10.0.0.1"));
    neighbours.set_interface(7, true, T0);
    neighbours.add_user(key, ip("10.0.0.1"), T0);
    neighbours.take_due(T0, 9);
    assert!(neighbours.refused(&key, Step::Hold, libc::ENOBUFS, T0));
    assert_eq!(neighbours.state(&key), State::TableFull);
    assert_eq!(neighbours.take_due(T0 + HOLD_RETRY, 9), [(key, Step::Hold)]);
    neighbours.refused(&key, Step::Hold, libc::EINVAL, T0 + HOLD_RETRY);
    assert_eq!(neighbours.mode(), NeighbourMode::Permanent);
    assert_eq!(neighbours.take_due(T0 + HOLD_RETRY, 9), [(key, Step::Query)]);

    // On an interface that is down nothing is tried until it comes up.
    neighbours.set_interface(7, false, T0);
    neighbours.gone(&key, T0 + HOLD_RETRY);
    assert_eq!(neighbours.take_due(T0 + 9 * HOLD_RETRY, 9), []);
    neighbours.set_interface(7, true, T0 + 9 * HOLD_RETRY);
    assert_eq!(neighbours.take_due(T0 + 9 * HOLD_RETRY, 9), [(key, Step::Query)]);
}

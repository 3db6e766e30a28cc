//! The machine driven by hand: a queue of results instead of sockets.

use std::net::Ipv4Addr;

use proptest::prelude::*;

use super::super::{Failure, Thresholds, Verdict};
use super::*;

const INTERVAL: Duration = Duration::from_secs(2);

fn target(last: u8) -> Target {
    let backend = IpAddr::from([10, 1, 0, last]);
    Target {
        backend,
        address: SocketAddr::new(backend, 80),
        mark: None,
        source: None,
        interval: INTERVAL,
        timeout: Duration::from_secs(1),
        thresholds: Thresholds { rise: 2, fall: 3 },
    }
}

fn key(name: &str) -> BackendKey {
    BackendKey::new("web", name)
}

fn one(name: &str, target: Target) -> BTreeMap<BackendKey, Target> {
    BTreeMap::from([(key(name), target)])
}

/// Lets `machine` run up to `until`, every probe answered `delay` later by `answer`.
fn drive(
    machine: &mut Machine,
    now: &mut Duration,
    until: Duration,
    delay: Duration,
    mut answer: impl FnMut(&Probe) -> Observation,
) -> Vec<HealthEvent> {
    let mut events = Vec::new();
    while let Some(at) = machine.next_deadline().filter(|at| *at <= until) {
        *now = at.max(*now);
        while let Some(probe) = machine.probe_due(*now) {
            let observation = answer(&probe);
            events.extend(machine.observed(probe.ticket, observation, *now + delay));
        }
    }
    *now = until;
    events
}

#[test]
fn a_new_backend_comes_up_after_rise_probes_and_goes_down_after_fall() {
    let mut now = Duration::from_secs(1000);
    let mut machine = Machine::start(1, BTreeMap::new());
    machine.set_targets(one("web1", target(1)), now);
    let begin = now;
    let ms = Duration::from_millis(1);
    let events = drive(&mut machine, &mut now, begin + INTERVAL * 3, ms, |_| Observation::Passed);
    let [up] = events.as_slice() else { panic!("one event, not {events:?}") };
    assert!(up.up && up.at <= begin + INTERVAL * 2, "{up:?}");
    assert_eq!(up.reason, "tcp 10.1.0.1:80: connected, 2 in a row");

    let begin = now;
    let refused = |_: &Probe| Observation::Failed(Failure::Refused);
    let events = drive(&mut machine, &mut now, begin + INTERVAL * 5, ms, refused);
    let [down] = events.as_slice() else { panic!("one event, not {events:?}") };
    assert!(!down.up && down.at <= begin + INTERVAL * 3 + ms, "{down:?}");
    assert_eq!(down.reason, "tcp 10.1.0.1:80: connection refused, 3 in a row");
    let report = machine.report();
    let health = &report.backends[&key("web1")];
    assert_eq!((health.verdict, health.since), (Verdict::Down, down.at));
    assert_eq!(health.last_error.as_ref().unwrap().0, "connection refused");
}

#[test]
fn the_first_failure_of_an_unknown_backend_is_said_at_once() {
    let mut now = Duration::ZERO;
    let mut machine = Machine::start(1, BTreeMap::new());
    machine.set_targets(one("web1", target(1)), now);
    let timeout = Observation::Failed(Failure::Timeout(Duration::from_secs(1)));
    let answer = |_: &Probe| timeout.clone();
    let events = drive(&mut machine, &mut now, INTERVAL, Duration::from_secs(1), answer);
    assert_eq!(events.len(), 1);
    assert_eq!(events[0].reason, "tcp 10.1.0.1:80: no answer within 1s at the first probe");
}

#[test]
fn a_remembered_verdict_is_the_start_and_only_for_the_first_set() {
    let mut machine = Machine::start(1, BTreeMap::from([(key("web1"), true), (key("x"), true)]));
    machine.set_targets(one("web1", target(1)), Duration::ZERO);
    assert_eq!(machine.report().backends[&key("web1")].verdict, Verdict::Up);
    machine.set_targets(one("x", target(2)), Duration::ZERO);
    assert_eq!(machine.report().backends[&key("x")].verdict, Verdict::Unknown);
}

#[test]
fn a_changed_target_keeps_the_verdict_unless_the_backend_is_another() {
    let up = BTreeMap::from([(key("web1"), true)]);
    let through_tunnel = Target {
        address: "192.0.2.80:80".parse().unwrap(),
        mark: Some(7),
        interval: INTERVAL * 2,
        ..target(1)
    };
    for (changed, expected) in
        [(target(1), Verdict::Up), (through_tunnel, Verdict::Up), (target(2), Verdict::Unknown)]
    {
        let mut machine = Machine::start(1, up.clone());
        machine.set_targets(one("web1", target(1)), Duration::ZERO);
        machine.set_targets(one("web1", changed.clone()), Duration::ZERO);
        assert_eq!(machine.report().backends[&key("web1")].verdict, expected, "{changed:?}");
    }
}

#[test]
fn a_stale_result_counts_for_nobody() {
    let now = Duration::from_secs(10);
    let once = Target { thresholds: Thresholds { rise: 1, fall: 1 }, ..target(1) };
    let other = Target { timeout: Duration::from_millis(1), ..once.clone() };
    let mut machine = Machine::start(1, BTreeMap::new());
    machine.set_targets(one("web1", once.clone()), now);
    let probe = machine.probe_due(now + INTERVAL).unwrap();
    machine.set_targets(one("web1", other), now + INTERVAL);
    assert_eq!(machine.observed(probe.ticket, Observation::Passed, now + INTERVAL), None);

    let probe = machine.probe_due(now + INTERVAL * 3).unwrap();
    machine.set_targets(BTreeMap::new(), now + INTERVAL * 3);
    machine.set_targets(one("web1", once), now + INTERVAL * 3);
    assert_eq!(machine.observed(probe.ticket, Observation::Passed, now + INTERVAL * 3), None);
    assert_eq!(machine.report().backends[&key("web1")].verdict, Verdict::Unknown);
}

#[test]
fn an_answer_is_taken_once() {
    let once = Target { thresholds: Thresholds { rise: 2, fall: 1 }, ..target(1) };
    let mut machine = Machine::start(1, BTreeMap::new());
    machine.set_targets(one("web1", once), Duration::ZERO);
    let probe = machine.probe_due(INTERVAL).unwrap();
    assert_eq!(machine.probe_due(INTERVAL * 9), None, "one probe at a time");
    machine.observed(probe.ticket, Observation::Passed, INTERVAL);
    assert_eq!(machine.observed(probe.ticket, Observation::Passed, INTERVAL), None);
    assert_eq!(machine.report().backends[&key("web1")].streak, 1);
}

#[test]
fn a_late_driver_serves_the_longest_waiting_first_and_counts() {
    let mut machine = Machine::start(3, BTreeMap::new());
    let targets = (0..100_u8).map(|i| (key(&format!("b{i}")), target(i))).collect();
    machine.set_targets(targets, Duration::ZERO);
    let mut last = Duration::ZERO;
    for _ in 0..100 {
        let due = machine.next_deadline().unwrap();
        assert!(due >= last);
        last = due;
        assert!(machine.probe_due(INTERVAL * 4).is_some());
    }
    let report = machine.report();
    assert_eq!((report.probes, report.late, report.in_flight), (100, 100, 100));
    assert_eq!(machine.next_deadline(), None);
}

#[test]
fn very_many_backends_spread_over_the_interval() {
    const BACKENDS: u32 = 30_000;
    const PARTS: usize = 100;
    let mut machine = Machine::start(7, BTreeMap::new());
    let targets = (0..BACKENDS)
        .map(|i| {
            let backend = IpAddr::from(Ipv4Addr::from(0x0a00_0000 + i));
            let address = SocketAddr::new(backend, 80);
            (key(&i.to_string()), Target { backend, address, ..target(0) })
        })
        .collect();
    let mut now = Duration::from_millis(123_456);
    machine.set_targets(targets, now);
    let begin = now;
    let passed = |_: &Probe| Observation::Passed;
    for round in 0..4_u32 {
        let from = begin + INTERVAL * round;
        let mut parts = [0_u32; PARTS];
        for part in 0..100_u32 {
            let before = machine.probes;
            let until = from + INTERVAL * (part + 1) / 100;
            drive(&mut machine, &mut now, until, Duration::from_millis(1), passed);
            parts[part as usize] = u32::try_from(machine.probes - before).unwrap();
        }
        // 300 on average; the round in which the backends fall into step is less even.
        let most = if round == 1 { 700 } else { 400 };
        assert!(parts.iter().all(|count| *count < most), "round {round}: {parts:?}");
        if round > 1 {
            assert_eq!(parts.iter().sum::<u32>(), BACKENDS);
        }
    }
}

#[test]
fn two_load_balancers_probe_at_different_times() {
    let first = phase(1, &key("web1"), &target(1));
    assert_ne!(first, phase(2, &key("web1"), &target(1)));
    assert_eq!(first, phase(1, &key("web1"), &target(1)));
}

proptest! {
    #[test]
    fn the_next_probe_is_in_phase_and_soon(
        phase in 0_u64..10_000,
        step in 1_u64..10_000,
        earliest in 0_u64..1_000_000,
    ) {
        let ms = Duration::from_millis;
        let next = next_in_phase(ms(phase), ms(step), ms(earliest));
        prop_assert!(next >= ms(earliest) && next < ms(earliest + step));
        prop_assert_eq!(next.as_millis() % u128::from(step), u128::from(phase % step));
    }

    /// Whatever the probes take: no backend is probed twice at once, none faster than twice an
    /// interval, and none is left out for longer than an interval and a half after its answer.
    #[test]
    fn every_backend_is_probed_steadily(
        delays in prop::collection::vec(0_u64..5_000, 1..30),
        interval_ms in 10_u64..4_000,
        backends in 1_u8..8,
    ) {
        let interval = Duration::from_millis(interval_ms);
        let targets = (0..backends)
            .map(|i| (key(&format!("b{i}")), Target { interval, ..target(i) }))
            .collect();
        let mut machine = Machine::start(5, BTreeMap::new());
        machine.set_targets(targets, Duration::ZERO);
        let mut under_way: BTreeMap<(Duration, Ticket), u64> = BTreeMap::new();
        let mut last: BTreeMap<u64, (Duration, Duration)> = BTreeMap::new();
        for round in 0..200_usize {
            let answer_at = under_way.keys().next().map(|(at, _)| *at);
            let probe_at = machine.next_deadline();
            let now = match (answer_at, probe_at) {
                (Some(answer), Some(probe)) => answer.min(probe),
                (Some(only), None) | (None, Some(only)) => only,
                (None, None) => break,
            };
            if answer_at == Some(now) {
                let ((_, ticket), _) = under_way.pop_first().unwrap();
                machine.observed(ticket, Observation::Passed, now);
                continue;
            }
            let probe = machine.probe_due(now).unwrap();
            let serial = probe.ticket.serial;
            let end = now + Duration::from_millis(delays[round % delays.len()]);
            prop_assert!(!under_way.values().any(|other| *other == serial));
            if let Some((begun, ended)) = last.insert(serial, (now, end)) {
                prop_assert!(now >= begun + interval / 2);
                prop_assert!(now <= ended.max(begun + interval / 2) + interval);
            }
            under_way.insert((end, probe.ticket), serial);
        }
    }
}

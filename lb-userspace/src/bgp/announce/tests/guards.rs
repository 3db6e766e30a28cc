//! What keeps announcements from being lost all at once, and from flapping.

use super::*;

const P: &str = "198.51.100.0/24";
const VIPS: [&str; 1] = ["198.51.100.1"];

/// So many host routes, which leave as soon as they cannot be served.
fn hosts(count: u8) -> Bench {
    let vips: Vec<String> = (1..=count).map(|it| format!("203.0.113.{it}")).collect();
    let mut desired = desired(&[], &vips.iter().map(String::as_str).collect::<Vec<&str>>());
    desired.bgp.as_mut().unwrap().host_routes.last_announcer = LastAnnouncer::Withdraw;
    Bench::new(desired)
}

fn lose_all(bench: &mut Bench) {
    bench.facts.vips.iter_mut().for_each(|vip| vip.up = 0);
    bench.settle();
}

#[test]
fn the_last_announcer_stays_with_an_alarm() {
    for seen in [Seen::Nobody, Seen::Unknown] {
        let mut bench = Bench::new(desired(&[P], &VIPS));
        bench.see(P, seen);
        bench.set_up("vip1", 0);
        bench.pass(600_000);
        assert_eq!(bench.to("edge1"), [P]);
        let alarms = bench.announcer.alarms();
        assert!(matches!(&alarms[..], [one] if one.contains("0 backends up")), "{alarms:?}");

        // Another one appears: now it may go.
        bench.see(P, others());
        bench.settle();
        bench.pass(500);
        assert!(bench.to("edge1").is_empty());
        assert!(bench.announcer.alarms().is_empty());
    }
}

#[test]
fn the_last_announcer_goes_if_asked_to() {
    let mut desired = desired(&[P], &VIPS);
    let settings = desired.bgp.as_mut().unwrap().prefixes.get_mut(&net(P)).unwrap();
    settings.last_announcer = LastAnnouncer::Withdraw;
    let mut bench = Bench::new(desired);
    bench.see(P, Seen::Nobody);
    bench.set_up("vip1", 1);
    bench.settle();
    assert!(bench.to("edge1").is_empty(), "at once");
}

/// One that has left because others announce what it cannot serve any more.
fn gone() -> Bench {
    let mut bench = Bench::new(desired(&[P], &VIPS));
    bench.see(P, others());
    bench.set_up("vip1", 0);
    bench.settle();
    bench.pass(500);
    assert!(bench.to("edge1").is_empty());
    bench
}

#[test]
fn who_can_be_served_again_backs_off_only_while_others_announce() {
    for (seen, waits) in [(others(), true), (Seen::Nobody, false)] {
        let mut bench = gone();
        bench.see(P, seen);
        bench.set_up("vip1", 4);
        bench.settle();
        assert_eq!(bench.to("edge1").is_empty(), waits);
    }
}

#[test]
fn who_left_with_the_others_comes_back_alone_and_only_soon() {
    let leave = |after: u64| {
        let mut bench = gone();
        bench.pass(after);
        bench.see(P, Seen::Nobody);
        bench.settle();
        bench
    };
    // They left, too, at the same time.
    let mut bench = leave(100);
    bench.pass(999);
    assert!(bench.to("edge1").is_empty(), "the monitor may be late");
    bench.pass(501);
    assert_eq!(bench.to("edge1"), [P]);
    let alarms = bench.announcer.alarms();
    assert!(matches!(&alarms[..], [one] if one.contains("nobody else announces")), "{alarms:?}");
    // Health brings it back as it was, without a back-off for what was no way back.
    bench.set_up("vip1", 4);
    bench.settle();
    assert!(bench.announcer.alarms().is_empty());

    // Another one had it in the meantime.
    let mut bench = leave(100);
    bench.pass(500);
    bench.see(P, others());
    bench.pass(100_000);
    assert!(bench.to("edge1").is_empty());

    // It was another's own doing that it left later, or the operator's.
    let mut bench = leave(10_000);
    bench.pass(100_000);
    assert!(bench.to("edge1").is_empty());
    let mut bench = leave(100);
    bench.facts.node_drained = true;
    bench.settle();
    bench.facts.node_drained = false;
    bench.settle();
    bench.pass(100_000);
    assert!(bench.to("edge1").is_empty());
}

#[test]
fn evidence_must_last_before_a_prefix_goes() {
    let mut bench = Bench::new(desired(&[P], &VIPS));
    let jitter = super::super::guard::jitter("lb1", &net(P), 0);
    let jitter = u64::try_from(jitter.as_millis()).unwrap();
    assert!((2..500).contains(&jitter), "{jitter}");
    let waits = |bench: &mut Bench, interrupt: fn(&mut Bench)| {
        bench.see(P, others());
        bench.set_up("vip1", 0);
        bench.settle();
        bench.pass(jitter - 1);
        assert_eq!(bench.to("edge1"), [P]);
        assert!(bench.show().contains("leaving"), "{}", bench.show());
        interrupt(bench);
        bench.settle();
        bench.pass(jitter);
        assert_eq!(bench.to("edge1"), [P]);
    };
    waits(&mut bench, |bench| bench.see(P, Seen::Nobody));
    waits(&mut bench, |bench| bench.set_up("vip1", 4));
    waits(&mut bench, |bench| bench.facts.verdicts = Err("the prober starts".to_owned()));
    bench.facts.verdicts = Ok(());
    waits(&mut bench, |bench| bench.see(P, Seen::Unknown));
    bench.see(P, others());
    bench.settle();
    bench.pass(jitter);
    assert!(bench.to("edge1").is_empty());
}

#[test]
fn the_breaker_stops_a_burst_until_somebody_looks() {
    let mut bench = hosts(20);
    lose_all(&mut bench);
    assert_eq!(bench.to("edge1").len(), 4);
    bench.pass(3_600_000);
    assert_eq!(bench.to("edge1").len(), 4, "time does not close it");
    let alarms = bench.announcer.alarms();
    assert!(alarms.last().unwrap().contains("holds 4 prefixes"), "{alarms:?}");

    bench.restart();
    assert_eq!(bench.to("edge1").len(), 4, "nor does a restart");
    let done = bench.order(Order::ResumeBreaker).unwrap();
    assert!(done.text.contains("4 prefixes"), "{}", done.text);
    assert!(bench.to("edge1").is_empty());
    assert!(bench.announcer.alarms().is_empty());
    assert!(bench.order(Order::ResumeBreaker).is_err());
}

#[test]
fn the_breaker_counts_prefixes_within_its_window() {
    let mut bench = hosts(32);
    for vip in 1..=16 {
        bench.set_up(&format!("vip{vip}"), 0);
    }
    bench.settle();
    assert_eq!(bench.to("edge1").len(), 16);
    bench.pass(60_000);
    for vip in 17..=32 {
        bench.set_up(&format!("vip{vip}"), 0);
    }
    bench.settle();
    assert!(bench.to("edge1").is_empty());
    assert!(bench.announcer.alarms().is_empty());
}

#[test]
fn force_passes_the_breaker() {
    let mut bench = hosts(20);
    bench.facts.node_drained = true;
    bench.settle();
    bench.pass(2_000);
    assert!(bench.to("edge1").is_empty());
}

#[test]
fn a_configuration_without_prefixes_takes_none_away() {
    let full = desired(&[P, "203.0.113.0/24"], &VIPS);
    let empty = desired(&[], &[]);
    let mut without = empty.clone();
    without.bgp = None;
    for next in [empty, without] {
        let mut bench = Bench::new(full.clone());
        let none = next.bgp.is_none();
        bench.desired = next;
        bench.facts = facts(&bench.desired);
        bench.configure();
        bench.configure();
        bench.pass(3_600_000);
        assert_eq!(bench.to("edge1"), [P, "203.0.113.0/24"]);
        let alarms = bench.announcer.alarms();
        assert!(alarms.last().unwrap().contains("lbctl bgp resume"), "{alarms:?}");
        bench.restart();
        assert_eq!(bench.to("edge1"), [P, "203.0.113.0/24"]);
        assert!(bench.announcer.bgp().is_some(), "the speaker needs to know how");

        bench.order(Order::ResumeBreaker).unwrap();
        bench.pass(2_000);
        let routes = &bench.last.as_ref().unwrap().routes;
        assert!(routes.values().all(|rib| rib.is_empty()));
        assert_eq!(bench.announcer.bgp().is_none(), none);
        assert!(bench.announcer.alarms().is_empty());
    }
}

#[test]
fn prefixes_that_come_back_into_the_configuration_are_as_before() {
    let full = desired(&[P], &VIPS);
    let mut bench = Bench::new(full.clone());
    bench.desired = desired(&["203.0.113.0/24"], &[]);
    bench.configure();
    assert_eq!(bench.to("edge1"), [P, "203.0.113.0/24"], "all that was announced would go");
    bench.configure();
    assert_eq!(bench.to("edge1"), [P, "203.0.113.0/24"], "the second time too");
    bench.desired = full;
    bench.configure();
    bench.pass(2_000);
    assert_eq!(bench.to("edge1"), [P]);
    assert!(bench.announcer.alarms().is_empty());
}

#[test]
fn a_few_prefixes_that_are_removed_are_lowered_first() {
    let host = "198.51.100.1/32";
    let full = desired(&[P, "203.0.113.0/24"], &VIPS);
    let mut bench = Bench::new(full.clone());
    bench.desired = desired(&["203.0.113.0/24"], &VIPS);
    bench.facts = facts(&bench.desired);
    bench.configure();
    bench.configure();
    // Its VIP lives on, as a host route, and has its packets until nobody sends them that way.
    assert_eq!(bench.to("edge1"), [P, host, "203.0.113.0/24"]);
    let shown = bench.show();
    assert!(shown.contains(&format!("{P} to edge1: lowered, it is not configured")), "{shown}");
    assert!(bench.announcer.alarms().is_empty());
    // A restart does not forget it.
    bench.pass(1_000);
    bench.restart();
    bench.pass(999);
    assert_eq!(bench.to("edge1"), [P, host, "203.0.113.0/24"]);
    bench.pass(1);
    assert_eq!(bench.to("edge1"), [host, "203.0.113.0/24"]);
    assert!(!bench.show().contains(P), "{}", bench.show());

    // And what comes back on its way out is as before.
    bench.desired = full;
    bench.configure();
    bench.pass(2_000);
    bench.desired = desired(&["203.0.113.0/24"], &VIPS);
    bench.configure();
    bench.desired = desired(&[P, "203.0.113.0/24"], &VIPS);
    bench.configure();
    bench.pass(10_000);
    assert_eq!(bench.to("edge1"), [P, "203.0.113.0/24"]);
    assert!(!bench.show().contains("COMMUNITIES"), "{}", bench.show());
}

#[test]
fn a_removed_vip_takes_its_host_route_along_at_once() {
    let mut bench = Bench::new(desired(&[P], &["203.0.113.1"]));
    bench.desired = desired(&[P], &[]);
    bench.facts = facts(&bench.desired);
    bench.configure();
    assert_eq!(bench.to("edge1"), [P], "its packets are dropped already");
}

#[test]
fn back_off_doubles_and_is_forgotten() {
    let mut bench = hosts(1);
    let mut flap = |announced_for: u64| {
        bench.pass(announced_for);
        bench.set_up("vip1", 0);
        bench.settle();
        assert!(bench.to("edge1").is_empty());
        bench.set_up("vip1", 4);
        let start = bench.now;
        bench.settle();
        while bench.to("edge1").is_empty() {
            bench.now = bench.announcer.deadline().unwrap().as_millis().try_into().unwrap();
            bench.settle();
        }
        (bench.now - start) / 1_000
    };
    let waits: Vec<u64> = (0..7).map(|_| flap(1_000)).collect();
    assert_eq!(waits, [30, 60, 120, 240, 480, 900, 900]);
    assert_eq!(flap(899_999), 900);
    assert_eq!(flap(900_000), 30);
}

#[test]
fn back_off_outlives_a_restart_with_or_without_its_routes() {
    for graceful in [true, false] {
        let mut bench = hosts(1);
        if !graceful {
            bench.desired.bgp.as_mut().unwrap().graceful_restart = None;
            bench.configure();
        }
        bench.set_up("vip1", 0);
        bench.settle();
        bench.restart();
        bench.set_up("vip1", 4);
        bench.pass(29_999);
        assert!(bench.to("edge1").is_empty());
        assert!(bench.show().contains("backs off"), "{}", bench.show());
        bench.pass(1);
        assert_eq!(bench.to("edge1").len(), 1);
    }
}

#[test]
fn without_graceful_restart_a_restart_keeps_nothing_that_cannot_be_served() {
    for graceful in [true, false] {
        let mut desired = desired(&[P], &VIPS);
        desired.bgp.as_mut().unwrap().graceful_restart = graceful.then(|| ms(120_000));
        let mut bench = Bench::new(desired);
        bench.set_up("vip1", 0);
        bench.settle();
        assert_eq!(bench.to("edge1"), [P], "the last announcer");
        bench.restart();
        assert_eq!(!bench.to("edge1").is_empty(), graceful);
    }
}

#[test]
fn changes_of_attributes_keep_their_distance_and_orders_do_not() {
    let mut bench = Bench::new(desired(&[P], &VIPS));
    let med = |bench: &mut Bench, med| {
        bench.desired.bgp.as_mut().unwrap().attributes.med = Some(med);
        bench.configure();
    };
    let at = |bench: &Bench| {
        bench.last.as_ref().unwrap().routes.get("edge1").unwrap().get(&net(P)).unwrap().med
    };
    bench.pass(999);
    med(&mut bench, 1);
    med(&mut bench, 2);
    assert_eq!(at(&bench), None);
    assert!(bench.show().contains("wait for the interval"), "{}", bench.show());
    bench.pass(1);
    assert_eq!(at(&bench), Some(2), "the newest, when the interval is over");
    let steer = Steer { med: Some(7), ..steer(P) };
    let id = bench.steer(steer).unwrap().id.unwrap();
    assert_eq!(at(&bench), Some(7));
    bench.order(Order::Unsteer { id }).unwrap();
    assert_eq!(at(&bench), Some(2));
    // A withdrawal and a new announcement do not wait either.
    bench.facts.node_drained = true;
    bench.settle();
    bench.pass(2_000);
    assert_eq!(bench.to("edge1").len(), 0);
    bench.facts.node_drained = false;
    bench.settle();
    assert_eq!(at(&bench), Some(2));
}

#[test]
fn what_rpki_forbids_is_not_announced_and_what_is_out_stays() {
    let mut bench = Bench::new(desired(&[P], &VIPS));
    let invalid: super::super::Roas = std::sync::Arc::new(|prefix, origin| {
        assert_eq!(origin, OWN);
        match *prefix == net(P) {
            true => super::super::Validity::Invalid,
            false => super::super::Validity::NotFound,
        }
    });
    bench.announcer.set_roas(Some(std::sync::Arc::clone(&invalid)));
    bench.pass(1_000);
    assert_eq!(bench.to("edge1"), [P]);
    assert!(bench.announcer.alarms()[0].contains("RPKI: Invalid"));

    bench.desired = desired(&[P, "203.0.113.0/24"], &VIPS);
    bench.announcer = Announcer::new(&bench.desired, None, ms(bench.now));
    bench.announcer.set_roas(Some(invalid));
    bench.settle();
    assert!(bench.last.as_ref().unwrap().ready);
    assert_eq!(bench.to("edge1"), ["203.0.113.0/24"]);
    let shown = bench.show();
    assert!(shown.contains("withheld, no ROA allows"), "{shown}");
    assert!(shown.contains("announced, it can be served; no ROA covers it"), "{shown}");
}

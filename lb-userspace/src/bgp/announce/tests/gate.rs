//! When a prefix is announced, and when it goes.

use super::super::{Phase, STARTING};
use super::*;

const P: &str = "198.51.100.0/24";
const VIPS: [&str; 2] = ["198.51.100.1", "198.51.100.2"];

#[test]
fn nothing_goes_out_before_everything_is_known() {
    let desired = desired(&[P], &VIPS);
    let mut bench = Bench::new(desired);
    bench.facts.verdicts = Err("2 backends have no verdict yet".to_owned());
    bench.announcer = Announcer::new(&bench.desired, None, ms(bench.now));
    bench.settle();
    assert!(!bench.last.as_ref().unwrap().ready);
    assert!(bench.to("edge1").is_empty());
    assert!(bench.show().contains("withheld, 2 backends have no verdict yet"), "{}", bench.show());

    bench.facts.verdicts = Ok(());
    bench.facts.vips[1].probe = Some(Err("no answer".to_owned()));
    bench.settle();
    assert!(!bench.last.as_ref().unwrap().ready, "the first probe may be late");

    bench.facts.vips[1].probe = Some(Ok(()));
    bench.settle();
    assert!(bench.last.as_ref().unwrap().ready);
    assert_eq!(bench.to("edge1"), [P]);
    assert_eq!(bench.to("edge2"), [P]);
}

#[test]
fn what_does_not_work_soon_after_the_start_is_withheld_and_the_rest_goes_out() {
    let mut bench = Bench::new(desired(&[P], &["198.51.100.1", "203.0.113.1"]));
    bench.announcer = Announcer::new(&bench.desired, None, ms(bench.now));
    bench.facts.vips[1].probe = Some(Err("no answer".to_owned()));
    bench.settle();
    assert!(!bench.last.as_ref().unwrap().ready);
    bench.pass(u64::try_from(STARTING.as_millis()).unwrap());
    assert!(bench.last.as_ref().unwrap().ready);
    assert_eq!(bench.to("edge1"), [P]);
    // What comes late, comes without back-off.
    bench.facts.vips[1].probe = Some(Ok(()));
    bench.settle();
    assert_eq!(bench.to("edge1"), [P, "203.0.113.1/32"]);
}

#[test]
fn each_condition_withdraws_when_others_announce() {
    type Break = (&'static str, fn(&mut Facts));
    let breaks: [Break; 4] = [
        ("attached", |facts| facts.attached = Err("eth0 has no program".to_owned())),
        ("tables", |facts| facts.tables = Err("pool web has no table".to_owned())),
        ("probe", |facts| facts.vips[0].probe = Some(Err("no answer".to_owned()))),
        ("capacity", |facts| facts.vips[0].up = 1),
    ];
    for (what, breaks) in breaks {
        let mut bench = Bench::new(desired(&[P], &VIPS));
        bench.pass(20_000);
        bench.see(P, others());
        breaks(&mut bench.facts);
        bench.settle();
        bench.pass(500);
        assert!(bench.to("edge1").is_empty(), "{what}");
    }
}

#[test]
fn a_vip_comes_back_at_its_own_mark() {
    let mut desired = desired(&[], &["198.51.100.1"]);
    let bgp = desired.bgp.as_mut().unwrap();
    bgp.host_routes.last_announcer = LastAnnouncer::Withdraw;
    bgp.guards.backoff = Duration::ZERO;
    let mut bench = Bench::new(desired);
    let mut out = |up| {
        bench.set_up("vip1", up);
        bench.settle();
        !bench.to("edge1").is_empty()
    };
    // It is announced with 2, and comes back with 3.
    assert!(out(2));
    assert!(!out(1));
    assert!(!out(2));
    assert!(out(3));
    assert!(out(2));
}

#[test]
fn verdicts_that_are_not_known_change_nothing() {
    let mut bench = Bench::new(desired(&[P], &VIPS));
    bench.see(P, others());
    bench.facts.verdicts = Err("the prober starts".to_owned());
    bench.set_up("vip1", 0);
    bench.pass(60_000);
    assert_eq!(bench.to("edge1"), [P]);
    // Nor does a VIP that is new and not probed yet.
    bench.facts.verdicts = Ok(());
    bench.set_up("vip1", 4);
    bench.facts.vips[1].probe = None;
    bench.pass(60_000);
    assert_eq!(bench.to("edge1"), [P]);
    // Nor one that nobody told about.
    bench.facts.verdicts = Ok(());
    bench.facts.vips.clear();
    bench.pass(60_000);
    assert_eq!(bench.to("edge1"), [P]);
}

#[test]
fn drains_lower_then_withdraw_and_come_back_at_once() {
    for node in [true, false] {
        let mut bench = Bench::new(desired(&[P], &VIPS));
        // Force: nobody else is there, and it goes all the same.
        bench.see(P, Seen::Nobody);
        bench.facts.node_drained = node;
        bench.facts.vips[1].drained = !node;
        assert!(bench.settle());
        let lowered = bench.show();
        assert!(lowered.contains("COMMUNITIES graceful-shutdown - lower"), "{lowered}");
        assert_eq!(bench.announcer.deadline(), Some(ms(bench.now + 2_000)));
        bench.pass(1_999);
        assert_eq!(bench.to("edge1"), [P]);
        bench.pass(1);
        assert!(bench.to("edge1").is_empty());
        assert!(bench.announcer.alarms().is_empty());

        bench.facts.node_drained = false;
        bench.facts.vips[1].drained = false;
        bench.settle();
        assert_eq!(bench.to("edge1"), [P]);
        assert!(!bench.show().contains("COMMUNITIES"), "{}", bench.show());
    }
}

#[test]
fn shutting_down_lowers_then_withdraws() {
    let mut bench = Bench::new(desired(&[P], &VIPS));
    assert_eq!(bench.announcer.phase(), Phase::Running);
    bench.announcer.shut_down(ms(bench.now));
    let end = ms(bench.now + 2_000);
    assert_eq!(bench.announcer.phase(), Phase::Lowering(end));
    bench.settle();
    assert_eq!(bench.announcer.phase(), Phase::Lowering(end));
    assert_eq!(bench.to("edge1"), [P]);
    bench.pass(5_000);
    assert_eq!(bench.announcer.phase(), Phase::Withdrawn(end));
    assert!(bench.to("edge1").is_empty());
    // The next one begins anew.
    bench.restart();
    assert_eq!(bench.to("edge1"), [P]);
}

#[test]
fn routes_stay_for_graceful_restart_if_asked() {
    let mut desired = desired(&[P], &VIPS);
    desired.bgp.as_mut().unwrap().on_shutdown = OnShutdown::Keep;
    let mut bench = Bench::new(desired);
    bench.announcer.shut_down(ms(bench.now));
    bench.pass(60_000);
    assert_eq!(bench.announcer.phase(), Phase::Kept);
    assert_eq!(bench.to("edge1"), [P]);
}

#[test]
fn a_covering_prefix_stays_while_something_inside_is_served() {
    let mut desired = desired(&["198.51.0.0/16", P], &["198.51.100.1", "198.51.101.1"]);
    let bgp = desired.bgp.as_mut().unwrap();
    for settings in bgp.prefixes.values_mut() {
        settings.last_announcer = LastAnnouncer::Withdraw;
    }
    bgp.prefixes.insert(net("198.51.101.0/24"), sample::prefix(LastAnnouncer::Withdraw));
    let mut bench = Bench::new(desired);
    assert_eq!(bench.to("edge1"), ["198.51.0.0/16", P, "198.51.101.0/24"]);
    bench.set_up("vip1", 0);
    bench.settle();
    assert_eq!(bench.to("edge1"), ["198.51.0.0/16", "198.51.101.0/24"]);
    bench.set_up("vip2", 0);
    bench.settle();
    assert!(bench.to("edge1").is_empty());
}

#[test]
fn vips_in_no_prefix_are_host_routes() {
    let bench = Bench::new(desired(&[P], &["198.51.100.1", "203.0.113.9", "2001:db8::1"]));
    assert_eq!(bench.to("edge1"), [P, "203.0.113.9/32", "2001:db8::1/128"]);
}

//! The lab proves itself: without a load balancer, what it counts must be what was done to it.

use std::collections::BTreeSet;
use std::time::Duration;

use lb_tests::flows::ledger::Kind;
use lb_tests::flows::{Flows, Mix, paths};
use lb_tests::lab::addresses::{Family, balancer, web};
use lb_tests::lab::{Lab, Plan, probe, wait};

const MIX: Mix = Mix { tcp: 40, short_per_second: 10, udp: 20 };

/// Two plain routers in the place of the load balancers; both send all to one backend.
fn plain_routers(lab: &Lab, to: u8) {
    for balancer in lab.balancers.values() {
        let host = balancer.namespace();
        host.set(&[("ipv4/ip_forward", "1"), ("ipv6/conf/all/forwarding", "1")]).unwrap();
        for vip in lab.vips() {
            let family = if vip.is_ipv4() { Family::V4 } else { Family::V6 };
            host.ip(&format!("route replace {vip} via {}", web(family, to))).unwrap();
        }
    }
}

fn lab_of_plain_routers() -> Lab {
    let mut lab = Lab::new(Plan { webs: 2, ..Plan::default() }).unwrap();
    for web in lab.webs.values_mut() {
        web.start(None).unwrap();
    }
    plain_routers(&lab, 1);
    lab.route_to_balancers(&[1, 2]).unwrap();
    lab
}

fn lab_of_one_web() -> Lab {
    let mut lab = Lab::new(Plan { webs: 1, balancers: 0, ..Plan::default() }).unwrap();
    lab.web(1).unwrap().start(None).unwrap();
    lab.route_to_web(1).unwrap();
    lab
}

#[test]
fn the_probes_reach_a_backend_also_with_small_packets_only() {
    let lab = lab_of_one_web();
    for mtu in [1_500, 1_300] {
        // The second time only the router's ICMP says that packets do not fit.
        lab.router.ip(&format!("link set dev client mtu {mtu}")).unwrap();
        for vip in lab.vips() {
            let answer = probe::get(&lab.client, vip, "/big").unwrap();
            assert_eq!((&*answer.backend, answer.body_bytes), ("web1", 1_000_000));
            assert_eq!(probe::upload(&lab.client, vip, 300_000).unwrap().backend, "web1");
            assert_eq!(probe::echo(&lab.client, vip, "some text").unwrap(), "web1");
            assert!(probe::ping(&lab.client, vip, b"hello").unwrap());
            // The kernel of the backend refuses, which is not what swallowing means.
            assert!(!probe::is_swallowed(&lab.client, vip, 81).unwrap());
        }
    }
}

#[test]
fn a_backend_that_dies_ends_its_flows_and_answers_again_when_it_is_back() {
    let mut lab = lab_of_one_web();
    let flows = Flows::start(&lab, MIX).unwrap();
    flows.ledger().begin();
    lab.web(1).unwrap().kill().unwrap();
    flows.settle().unwrap();
    let tally = flows.ledger().tally(&BTreeSet::from(["web1".to_owned()]));
    assert!(tally.ended_with_backend >= 60 && tally.broken == 0, "{tally:?}");
    lab.revive_web(1).unwrap();
    wait::until("all flows are back", Duration::from_secs(20), || {
        Ok(flows.ledger().alive().count() >= flows.long_lived())
    })
    .unwrap();
}

#[test]
fn flows_to_one_backend_live_and_are_all_counted() {
    let lab = lab_of_one_web();
    let flows = Flows::start(&lab, MIX).unwrap();
    flows.settle().unwrap();
    let ledger = flows.ledger();
    let count = |kind| ledger.alive().filter(|(_, flow)| flow.kind == kind).count();
    assert_eq!((count(Kind::Tcp), count(Kind::Udp)), (40, 20));
    assert!(ledger.flows().all(|flow| flow.backend == "web1"));
    let tally = ledger.tally(&BTreeSet::new());
    assert_eq!((tally.broken, tally.unanswered), (0, 0), "{:?}", tally.reasons);
}

#[test]
fn a_router_taken_away_moves_its_flows_and_breaks_none() {
    let mut lab = lab_of_plain_routers();
    let flows = Flows::start(&lab, MIX).unwrap();
    let before = paths::of_flows(&lab, &flows).unwrap();
    let first = balancer(Family::V4, 1).to_string();
    let first6 = balancer(Family::V6, 1).to_string();
    let on_first = before.values().filter(|via| **via == first || **via == first6).count();
    assert!(on_first > 10 && on_first < before.len() - 10, "{on_first} of {}", before.len());

    flows.ledger().begin();
    lab.route_to_balancers(&[2]).unwrap();
    lab.remove_balancer(1).unwrap();
    flows.settle().unwrap();
    let after = paths::of_flows(&lab, &flows).unwrap();
    let tally = flows.ledger().tally(&BTreeSet::new());
    assert_eq!((tally.broken, tally.unanswered), (0, 0), "{:?}", tally.reasons);
    let moved = usize::try_from(paths::moved(&before, &[after])).unwrap();
    // Short flows of before have ended meanwhile.
    assert!(moved > 10 && moved <= on_first, "{moved} of {on_first}");
}

#[test]
fn what_the_router_says_of_a_path_is_where_packets_go() {
    let lab = lab_of_plain_routers();
    let mix = Mix { tcp: 1, short_per_second: 0, udp: 0 };
    let flows = Flows::start(&lab, mix).unwrap();
    let paths = paths::of_flows(&lab, &flows).unwrap();
    let via = paths.values().next().unwrap();
    let received = |number: u8| lab.balancers[&number].namespace().received("eth0").unwrap();
    let on_second = *via == balancer(Family::V4, 2).to_string();
    let (its, other) = if on_second { (2, 1) } else { (1, 2) };
    let before = [received(its), received(other)];
    for _ in 0..10 {
        flows.settle().unwrap();
    }
    let more = [received(its) - before[0], received(other) - before[1]];
    // Each round is a request and an acknowledgement; the switch floods what hosts say of groups.
    assert!(more[0] >= more[1] + 10, "{more:?} {paths:?}");
}

#[test]
fn a_stranger_and_a_dead_backend_are_told_apart() {
    let lab = lab_of_plain_routers();
    let flows = Flows::start(&lab, MIX).unwrap();
    flows.ledger().begin();
    // Every connection now reaches a backend that does not know it.
    plain_routers(&lab, 2);
    flows.settle().unwrap();
    let nobody = flows.ledger().tally(&BTreeSet::new());
    assert!(nobody.broken >= 60, "{nobody:?}");
    let dead = BTreeSet::from(["web1".to_owned()]);
    let tally = flows.ledger().tally(&dead);
    assert!(tally.ended_with_backend >= 60 && tally.broken == 0, "{tally:?}");
}

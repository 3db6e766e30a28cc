//! Things die: a load balancer, a backend, lbd; neighbours change.

use lb_tests::flows::{Flows, Mix, paths};
use lb_tests::lab::config::Pool;
use lb_tests::lab::{Lab, Plan, wait};

use super::{CHANGE_DEADLINE, assert_all_live, is_quiet, small, tally, until};

#[test]
fn a_balancer_taken_away_and_brought_back_breaks_no_flow() {
    let plan = Plan { webs: 3, pools: vec![Pool::web(3)], ..Plan::default() };
    let mut lab = Lab::running(plan).unwrap();
    until(&mut lab, "no slot is contested", is_quiet);
    let flows = Flows::start(&lab, Mix::SMALL).unwrap();
    let before = paths::of_flows(&lab, &flows).unwrap();
    flows.ledger().begin();
    lab.route_to_balancers(&[2]).unwrap();
    flows.settle().unwrap();
    lab.remove_balancer(1).unwrap();
    assert_all_live(&flows);
    let without = paths::of_flows(&lab, &flows).unwrap();
    assert!(paths::moved(&before, std::slice::from_ref(&without)) > 10);

    lab.add_balancer(1).unwrap();
    let pools = lab.plan.pools.clone();
    let first = lab.balancer(1).unwrap();
    first.configure(&pools).unwrap();
    first.start().unwrap();
    until(&mut lab, "no slot is contested", is_quiet);
    lab.route_to_balancers(&[1, 2]).unwrap();
    assert_all_live(&flows);
    let again = paths::of_flows(&lab, &flows).unwrap();
    assert!(paths::moved(&without, &[again]) > 10);
}

#[test]
fn a_dead_backend_takes_only_its_own_flows_and_gets_new_ones_when_it_returns() {
    let mut lab = Lab::running(small(Pool::web(3))).unwrap();
    let flows = Flows::start(&lab, Mix::SMALL).unwrap();
    flows.ledger().begin();
    lab.web(2).unwrap().kill().unwrap();
    until(&mut lab, "web2 is down", |status| status.backend("web2") == Some("down"));
    wait::until("the flows of web2 have ended", CHANGE_DEADLINE, || {
        Ok(!flows.ledger().alive().any(|(_, flow)| flow.backend == "web2"))
    })
    .unwrap();
    let dead = tally(&flows, &["web2"]);
    assert!(dead.ended_with_backend > 0 && dead.broken == 0, "{dead:?}");

    flows.ledger().begin();
    lab.revive_web(2).unwrap();
    until(&mut lab, "web2 is up", |status| status.backend("web2") == Some("up"));
    wait::until("a new flow on web2", CHANGE_DEADLINE, || {
        Ok(flows.ledger().flows().any(|flow| flow.backend == "web2"))
    })
    .unwrap();
    // Connections that were begun before the death was known may still be waiting.
    let back = tally(&flows, &[]);
    assert_eq!((back.ended_with_backend, back.broken), (0, 0), "{:?}", back.reasons);
}

#[test]
fn killing_and_restarting_lbd_breaks_no_flow() {
    let mut lab = Lab::running(small(Pool::web(2))).unwrap();
    let flows = Flows::start(&lab, Mix::SMALL).unwrap();
    flows.ledger().begin();
    lab.balancer(1).unwrap().kill_lbd().unwrap();
    flows.settle().unwrap();
    assert_all_live(&flows);
    lab.balancer(1).unwrap().start().unwrap();
    assert_all_live(&flows);
}

#[test]
fn lbd_killed_in_the_middle_of_a_change_goes_on_with_it() {
    let mut lab = Lab::running(small(Pool::web(3))).unwrap();
    let flows = Flows::start(&lab, Mix::SMALL).unwrap();
    flows.ledger().begin();
    for state in ["preparing", "window"] {
        let change = if state == "preparing" { "drain" } else { "undrain" };
        let balancer = lab.balancer(1).unwrap();
        balancer.lbctl(&["backend", change, "web/web1"]).unwrap();
        until(&mut lab, state, |status| status.pools[0].state == state);
        lab.balancer(1).unwrap().kill_lbd().unwrap();
        flows.settle().unwrap();
        // Ready means steady: the change has come to its end.
        lab.balancer(1).unwrap().start().unwrap();
        let expected = if change == "drain" { "drain" } else { "up" };
        let status = lab.balancer(1).unwrap().status().unwrap();
        assert_eq!(status.backend("web1"), Some(expected), "{status:?}");
        assert_all_live(&flows);
    }
}

#[test]
fn a_neighbours_new_address_is_followed() {
    let mut lab = Lab::running(small(Pool::web(2))).unwrap();
    let flows = Flows::start(&lab, Mix::SMALL).unwrap();
    flows.ledger().begin();
    for number in [1, 2] {
        let host = lab.web(number).unwrap().namespace().clone();
        host.ip(&format!("link set dev eth0 address 02:00:00:00:01:{number:02}")).unwrap();
        assert_all_live(&flows);
    }
}

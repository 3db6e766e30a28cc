//! Planned changes break nothing: drain, weight, another backend, another table for all.

use lb_tests::flows::ledger::Kind;
use lb_tests::flows::{Flows, Mix};
use lb_tests::lab::Lab;
use lb_tests::lab::config::Pool;
use tokio::time::Instant;

use super::{assert_all_live, small, until};

/// Makes a change while flows go, and returns when it is active and its window has closed.
fn change(lab: &mut Lab, flows: &Flows, make: impl FnOnce(&mut Lab)) {
    flows.ledger().begin();
    let generation = lab.balancers[&1].status().unwrap().pools[0].generation;
    make(lab);
    until(lab, "the new table is active", |status| {
        let pool = &status.pools[0];
        pool.generation > generation && pool.state != "preparing"
    });
    assert_all_live(flows);
    until(lab, "the change is over", |status| status.is_steady());
    assert_all_live(flows);
}

/// Connections on a backend that began after `since`.
fn new_on(flows: &Flows, backend: &str, since: Instant) -> usize {
    let ledger = flows.ledger();
    let is_new = |flow: &&_| is_new_on(flow, backend, since);
    ledger.flows().filter(is_new).count()
}

fn is_new_on(flow: &lb_tests::flows::ledger::Flow, backend: &str, since: Instant) -> bool {
    flow.kind != Kind::Udp && flow.backend == backend && flow.opened_at > since
}

#[test]
fn a_drained_backend_keeps_its_flows_and_gets_no_new_ones() {
    let mut lab = Lab::running(small(Pool::web(3))).unwrap();
    let flows = Flows::start(&lab, Mix::SMALL).unwrap();
    let on_web2 =
        |flows: &Flows| flows.ledger().alive().filter(|(_, flow)| flow.backend == "web2").count();
    let kept = on_web2(&flows);
    change(&mut lab, &flows, |lab| {
        lab.balancer(1).unwrap().lbctl(&["backend", "drain", "web/web2"]).unwrap();
    });
    let since = Instant::now();
    flows.settle().unwrap();
    flows.settle().unwrap();
    assert_eq!(new_on(&flows, "web2", since), 0);
    // Short ones have ended; the long ones are all there.
    assert!(on_web2(&flows) >= kept / 2, "{} of {kept}", on_web2(&flows));
    change(&mut lab, &flows, |lab| {
        lab.balancer(1).unwrap().lbctl(&["backend", "undrain", "web/web2"]).unwrap();
    });
}

#[test]
fn weights_and_new_backends_break_no_flow() {
    let plan = lb_tests::lab::Plan { pools: vec![Pool::web(2)], ..small(Pool::web(3)) };
    let mut lab = Lab::running(plan).unwrap();
    let flows = Flows::start(&lab, Mix::SMALL).unwrap();
    change(&mut lab, &flows, |lab| {
        lab.balancer(1).unwrap().apply(&[Pool::web(3)]).unwrap();
    });
    let since = Instant::now();
    super::wait::until("web3 gets connections", super::CHANGE_DEADLINE, || {
        Ok(new_on(&flows, "web3", since) > 0)
    })
    .unwrap();
    change(&mut lab, &flows, |lab| {
        lab.balancer(1).unwrap().lbctl(&["backend", "weight", "web/web1", "400"]).unwrap();
    });
    // And back: slots that return to their former owners.
    change(&mut lab, &flows, |lab| {
        lab.balancer(1).unwrap().lbctl(&["backend", "weight", "web/web1", "100"]).unwrap();
    });
}

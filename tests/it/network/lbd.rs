//! lbd as a program: started twice, stopped, unloaded.

use std::path::Path;

use lb_tests::flows::{Flows, Mix};
use lb_tests::lab::config::Pool;
use lb_tests::lab::{Lab, command, programs};

use super::{assert_all_live, small};

#[test]
fn a_second_lbd_on_the_same_pins_is_refused() {
    let lab = Lab::running(small(Pool::web(1))).unwrap();
    let flows = Flows::start(&lab, Mix::SMALL).unwrap();
    let error = command::run(&mut lab.balancers[&1].lbd_command().unwrap()).unwrap_err();
    let text = format!("{error:#}");
    let pins = lab.balancers[&1].pins();
    assert!(text.contains(&*pins.to_string_lossy()), "no word of the pins: {text}");
    // The first one has not noticed.
    assert_eq!(lab.balancers[&1].status().unwrap().health, "ok");
    assert_all_live(&flows);
}

#[test]
fn lbd_stopped_leaves_packets_flowing_until_it_is_unloaded() {
    let mut lab = Lab::running(small(Pool::web(2))).unwrap();
    let flows = Flows::start(&lab, Mix::SMALL).unwrap();
    flows.ledger().begin();
    lab.balancer(1).unwrap().stop_lbd().unwrap();
    assert_all_live(&flows);
    drop(flows);

    let pins = lab.balancers[&1].pins();
    let host = lab.balancers[&1].namespace().clone();
    assert!(host.ip("link show dev eth0").unwrap().contains("xdp"));
    let mut unload = host.command(programs::find("lbctl").unwrap());
    command::run(unload.args(["unload", "--pin-path"]).arg(&pins)).unwrap();
    assert!(!host.ip("link show dev eth0").unwrap().contains("xdp"));
    assert!(!Path::new(&pins).exists(), "{} is still there", pins.display());
    // Nothing is left that would be in the way of a new one.
    lab.balancer(1).unwrap().start().unwrap();
    assert_all_live(&Flows::start(&lab, Mix::SMALL).unwrap());
}

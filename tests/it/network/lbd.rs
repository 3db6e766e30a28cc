//! lbd as a program: started twice, stopped, unloaded.

use std::fs;
use std::path::Path;

use lb_tests::flows::ledger::Kind;
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

/// Starts lbd, which must end with an error that has all these words, and leave nothing behind.
fn assert_refused(lab: &Lab, command: &mut std::process::Command, words: &[&str]) {
    let error = command::run(command).unwrap_err();
    let text = format!("{error:#}");
    for word in words {
        assert!(text.contains(word), "no word of `{word}`: {text}");
    }
    let balancer = &lab.balancers[&1];
    let link = balancer.namespace().ip("link show dev eth0").unwrap();
    assert!(!link.contains("xdp"), "{link}");
    let pins: Vec<_> = fs::read_dir(balancer.pins()).into_iter().flatten().flatten().collect();
    assert!(pins.is_empty(), "{pins:?}");
}

#[test]
fn an_interface_that_is_not_there_is_an_error() {
    let lab = Lab::new(small(Pool::web(1))).unwrap();
    let balancer = &lab.balancers[&1];
    balancer.configure(&lab.plan.pools).unwrap();
    let text = fs::read_to_string(balancer.configuration()).unwrap();
    fs::write(balancer.configuration(), text.replace("\"eth0\"", "\"eth9\"")).unwrap();
    assert_refused(&lab, &mut balancer.lbd_command().unwrap(), &["eth9"]);
}

#[test]
fn a_missing_capability_is_an_error() {
    let lab = Lab::new(small(Pool::web(1))).unwrap();
    let balancer = &lab.balancers[&1];
    balancer.configure(&lab.plan.pools).unwrap();
    let mut lbd = balancer.namespace().command("setpriv");
    lbd.args(["--bounding-set", "-bpf,-sys_admin"]);
    lbd.arg(programs::find("lbd").unwrap()).arg("--config").arg(balancer.configuration());
    assert_refused(&lab, &mut lbd, &["CAP_BPF"]);
}

#[test]
fn a_bad_configuration_is_refused_whole_and_the_old_one_stays() {
    let lab = Lab::running(small(Pool::web(2))).unwrap();
    let flows = Flows::start(&lab, Mix::SMALL).unwrap();
    let balancer = &lab.balancers[&1];
    let generation = balancer.status().unwrap().pools[0].generation;
    let mut pool = Pool::web(2);
    pool.backends[0].weight = 300;
    // One address twice: the weight, though good, must not come about either.
    pool.backends.push(pool.backends[1]);
    let error = balancer.apply(&[pool]).unwrap_err();
    assert!(format!("{error:#}").contains("web2"), "{error:#}");
    assert_eq!(balancer.status().unwrap().pools[0].generation, generation);
    assert_all_live(&flows);
}

#[test]
fn trace_names_the_backend_that_answers() {
    let lab = Lab::running(small(Pool::web(3))).unwrap();
    let flows = Flows::start(&lab, Mix { short_per_second: 0, ..Mix::SMALL }).unwrap();
    let alive: Vec<_> = flows.ledger().alive().map(|(_, flow)| flow.clone()).collect();
    for flow in alive {
        let protocol = if flow.kind == Kind::Udp { "udp" } else { "tcp" };
        let family = if flow.key.vip.is_ipv4() { 4 } else { 6 };
        let vip = format!("web-{protocol}{family}");
        let client = flow.key.client.to_string();
        let answer = lab.balancers[&1].lbctl(&["trace", &client, &vip]).unwrap();
        assert!(answer.contains(&flow.backend), "{flow:?}: {answer}");
    }
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

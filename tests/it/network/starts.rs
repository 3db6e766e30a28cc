//! Starting lbd, over and over: after a kill, with another file, in another's way, and what is left
//! when it is unloaded.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use aya::programs::{SchedClassifier, TcAttachType};
use lb_tests::flows::{Flows, Mix};
use lb_tests::lab::balancer::Balancer;
use lb_tests::lab::config::Pool;
use lb_tests::lab::namespace::Namespace;
use lb_tests::lab::{Lab, command, programs, wait};

use super::{CHANGE_DEADLINE, assert_all_live, edit, refusal, small};

/// Entries of the neighbour table that lbd has made, as `ip` prints them.
fn neighbours(host: &Namespace) -> Vec<String> {
    let text = host.ip("neighbour show").unwrap();
    text.lines().filter(|line| line.contains(" proto 76")).map(str::to_owned).collect()
}

fn has_xdp(host: &Namespace, interface: &str) -> bool {
    host.ip(&format!("link show dev {interface}")).unwrap().contains("xdp")
}

/// Programs on the way out of an interface.
fn on_egress(host: &Namespace, interface: &str) -> usize {
    let (_, programs) =
        host.inside(|| Ok(SchedClassifier::query_tcx(interface, TcAttachType::Egress)?)).unwrap();
    programs.len()
}

fn unload(host: &Namespace, pins: &Path) -> String {
    let mut unload = host.command(programs::find("lbctl").unwrap());
    command::run(unload.args(["unload", "--pin-path"]).arg(pins)).unwrap()
}

/// The configuration of lb1, written down before lbd starts.
fn configured(pools: Vec<Pool>) -> Lab {
    let lab = Lab::new(small(pools.into_iter().next().unwrap())).unwrap();
    lab.balancers[&1].configure(&lab.plan.pools).unwrap();
    lab
}

/// Fills and attaches, without a daemon that stays.
fn once(balancer: &Balancer) -> String {
    command::run(balancer.lbd_command().unwrap().arg("--once")).unwrap()
}

#[test]
fn unload_leaves_nothing() {
    let mut lab = Lab::running(small(Pool::web(2))).unwrap();
    let host = lab.balancers[&1].namespace().clone();
    let pins = lab.balancers[&1].pins();
    assert!(!neighbours(&host).is_empty());
    // While lbd runs it is not for others to take away what it stands on.
    let mut early = host.command(programs::find("lbctl").unwrap());
    let error = refusal(early.args(["unload", "--pin-path"]).arg(&pins));
    assert!(error.contains("another lbd (pid "), "{error}");

    lab.balancer(1).unwrap().kill_lbd().unwrap();
    // Probes end with the one who makes them; packets do not.
    assert_eq!(on_egress(&host, "eth0"), 0);
    assert!(has_xdp(&host, "eth0"));
    unload(&host, &pins);
    assert!(!has_xdp(&host, "eth0"));
    assert!(!pins.exists());
    assert_eq!(neighbours(&host), Vec::<String>::new());
    let disciplines = command::run(host.command("tc").args(["qdisc", "show"])).unwrap();
    assert!(!disciplines.contains("clsact"), "{disciplines}");
    assert!(unload(&host, &pins).starts_with("nothing is pinned"));
}

#[test]
fn unload_touches_nothing_that_is_not_ours() {
    let lab = configured(vec![Pool::web(1)]);
    let balancer = &lab.balancers[&1];
    once(balancer);
    let others = balancer.pins().join("others");
    fs::create_dir(&others).unwrap();
    let mut command = balancer.namespace().command(programs::find("lbctl").unwrap());
    let error = refusal(command.args(["unload", "--pin-path"]).arg(balancer.pins()));
    assert!(error.contains(&*others.to_string_lossy()), "{error}");
    assert!(has_xdp(balancer.namespace(), "eth0"));
    // lbd does not share a directory either.
    let error = refusal(&mut balancer.lbd_command().unwrap());
    assert!(error.contains(&*others.to_string_lossy()), "{error}");
    fs::remove_dir(&others).unwrap();
    unload(balancer.namespace(), &balancer.pins());
}

#[test]
fn pins_of_another_layout_are_never_reused() {
    let lab = configured(vec![Pool::web(1)]);
    let balancer = &lab.balancers[&1];
    let other = balancer.pins().join("v999");
    fs::create_dir_all(&other).unwrap();
    let error = refusal(&mut balancer.lbd_command().unwrap());
    assert!(error.contains("other-layout") && error.contains("lbctl unload"), "{error}");
    assert!(!has_xdp(balancer.namespace(), "eth0"));
    unload(balancer.namespace(), &balancer.pins());
    once(balancer);
    assert!(has_xdp(balancer.namespace(), "eth0"));
}

#[test]
fn a_changed_limit_is_refused_while_the_data_plane_lives() {
    let mut lab = Lab::running(small(Pool::web(1))).unwrap();
    let flows = Flows::start(&lab, Mix::SMALL).unwrap();
    let file = lab.balancers[&1].configuration();
    let before = fs::read_to_string(&file).unwrap();
    edit(&lab, "flow_table_size = 65_536", "flow_table_size = 131_072\nmax_backends = 100");
    let words = ["flow_table_size", "max_backends", "lbctl unload"];
    for arguments in [["apply", "FILE"], ["diff", "FILE"]] {
        let arguments = arguments.map(|it| if it == "FILE" { file.to_str().unwrap() } else { it });
        let answer = lab.balancers[&1].ask(&arguments).unwrap();
        let error = String::from_utf8_lossy(&answer.stderr).into_owned();
        assert_eq!(answer.status.code(), Some(2), "{error}");
        assert!(words.iter().all(|word| error.contains(word)), "{error}");
    }
    lab.balancer(1).unwrap().stop_lbd().unwrap();
    let error = refusal(&mut lab.balancers[&1].lbd_command().unwrap());
    assert!(words.iter().all(|word| error.contains(word)), "{error}");
    assert_all_live(&flows);
    fs::write(&file, before).unwrap();
    lab.balancer(1).unwrap().start().unwrap();
    assert_all_live(&flows);
}

/// A second lbd with pins and a socket of its own, but on the same interface.
fn rival(lab: &Lab) -> Command {
    let balancer = &lab.balancers[&1];
    let text = fs::read_to_string(balancer.configuration()).unwrap();
    let (pins, socket) = (balancer.pins(), balancer.socket());
    let text = text
        .replace(&*pins.to_string_lossy(), &format!("{}-rival", pins.display()))
        .replace(&*socket.to_string_lossy(), &format!("{}2", socket.display()));
    let path = balancer.configuration().with_file_name("rival.toml");
    fs::write(&path, text).unwrap();
    let mut lbd = balancer.namespace().command(programs::find("lbd").unwrap());
    lbd.arg("--config").arg(path);
    lbd
}

#[test]
fn a_start_that_fails_leaves_nothing_and_disturbs_nobody() {
    let lab = Lab::running(small(Pool::web(2))).unwrap();
    let flows = Flows::start(&lab, Mix::SMALL).unwrap();
    let balancer = &lab.balancers[&1];
    let host = balancer.namespace();
    let count = neighbours(host).len();
    let mut monitor = Command::new("ip");
    monitor.args(["-netns", host.name(), "monitor", "neigh"]).stdout(Stdio::piped());
    let mut monitor = monitor.spawn().unwrap();
    let error = refusal(&mut rival(&lab));
    monitor.kill().unwrap();
    let seen = monitor.wait_with_output().unwrap();
    let seen = String::from_utf8_lossy(&seen.stdout).into_owned();
    assert!(error.contains("another XDP program is attached"), "{error}");
    assert!(!seen.contains("Deleted"), "{seen}");
    assert_eq!(neighbours(host).len(), count);
    let rest = format!("{}-rival", balancer.pins().display());
    assert!(!Path::new(&rest).exists(), "{rest}");
    assert!(!Path::new(&format!("{}2", balancer.socket().display())).exists());
    assert_eq!(balancer.status().unwrap().health, "ok");
    assert_all_live(&flows);
}

#[test]
fn a_start_killed_anywhere_is_repaired_by_the_next() {
    let mut lab = configured(vec![Pool::web(1)]);
    let agent = lab.agent().unwrap();
    lab.web(1).unwrap().start(Some(agent)).unwrap();
    for pins_when_killed in [1, 4, 8, 10] {
        let balancer = &lab.balancers[&1];
        let mut lbd = balancer.lbd_command().unwrap();
        let mut lbd = lbd.stderr(Stdio::null()).stdout(Stdio::null()).spawn().unwrap();
        wait::until("it has pinned some", CHANGE_DEADLINE, || {
            let versions = fs::read_dir(balancer.pins()).into_iter().flatten().flatten();
            let pins = versions.flat_map(|it| fs::read_dir(it.path()).into_iter().flatten());
            Ok(pins.count() >= pins_when_killed)
        })
        .unwrap();
        lbd.kill().unwrap();
        lbd.wait().unwrap();
        assert!(balancer.pins().exists());
        // Whatever is there, it must be of use, or go.
        lab.balancer(1).unwrap().start().unwrap();
        lab.balancer(1).unwrap().kill_lbd().unwrap();
        unload(lab.balancers[&1].namespace(), &lab.balancers[&1].pins());
    }
}

#[test]
fn modes_and_interfaces_follow_the_file() {
    let lab = configured(vec![Pool::web(1)]);
    let balancer = &lab.balancers[&1];
    let host = balancer.namespace();
    host.ip("link add eth1 type veth peer name eth2\nlink set eth1 up\nlink set eth2 up").unwrap();
    assert!(once(balancer).contains("attached   eth0, native XDP"));
    edit(&lab, "[dataplane]", "[dataplane]\nxdp_mode = \"generic\"");
    assert!(once(balancer).contains("attached   eth0, generic XDP"));
    assert!(host.ip("link show dev eth0").unwrap().contains("xdpgeneric"));
    edit(&lab, "\"generic\"", "\"native\"");
    edit(&lab, "[\"eth0\"]", "[\"eth0\", \"eth1\"]");
    let said = once(balancer);
    assert!(said.contains("attached   eth0, native XDP"), "{said}");
    assert!(said.contains("attached   eth1, native XDP"), "{said}");
    assert!(has_xdp(host, "eth1"));
    edit(&lab, "[\"eth0\", \"eth1\"]", "[\"eth0\"]");
    assert!(once(balancer).contains("detached   eth1"));
    assert!(has_xdp(host, "eth0") && !has_xdp(host, "eth1"));
    unload(host, &balancer.pins());
    assert!(!has_xdp(host, "eth0"));
}

#[test]
fn an_interface_made_anew_gets_the_program_again() {
    let lab = configured(vec![Pool::web(1)]);
    let mut lab = lab;
    let agent = lab.agent().unwrap();
    lab.web(1).unwrap().start(Some(agent)).unwrap();
    let host = lab.balancers[&1].namespace().clone();
    host.ip("link add eth1 type veth peer name eth2\nlink set eth1 up\nlink set eth2 up").unwrap();
    edit(&lab, "[\"eth0\"]", "[\"eth0\", \"eth1\"]");
    lab.balancer(1).unwrap().start().unwrap();
    assert!(has_xdp(&host, "eth1"));
    host.ip("link delete dev eth1").unwrap();
    super::until(&mut lab, "it is missed", |status| {
        status.health == "degraded" && status.reasons.iter().any(|it| it.contains("eth1 is gone"))
    });
    host.ip("link add eth1 type veth peer name eth2\nlink set eth1 up\nlink set eth2 up").unwrap();
    super::until(&mut lab, "it is back", |status| status.health == "ok");
    assert!(has_xdp(&host, "eth1"));
    // The pin of the one that is gone is not in the way of a restart either.
    host.ip("link delete dev eth1").unwrap();
    lab.balancer(1).unwrap().kill_lbd().unwrap();
    host.ip("link add eth1 type veth peer name eth2\nlink set eth1 up\nlink set eth2 up").unwrap();
    lab.balancer(1).unwrap().start().unwrap();
    assert!(has_xdp(&host, "eth1"));
}

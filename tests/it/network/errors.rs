//! What an operator sees when something is wrong: on the machine, in the file, at the backends.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt as _;

use lb_tests::flows::{Flows, Mix};
use lb_tests::lab::addresses::Family;
use lb_tests::lab::config::{Backend, Pool};
use lb_tests::lab::{Lab, command, probe, programs, wait};
use lb_tests::openmetrics::{self, Family as Metrics};

use super::{CHANGE_DEADLINE, assert_all_live, edit, is_quiet, refusal, small, until};

/// Where lbd serves its metrics in these tests; every namespace has its own loopback.
const METRICS: &str = "127.0.0.1:9477";

#[test]
fn what_the_machine_lacks_is_named() {
    let lab = Lab::new(small(Pool::web(1))).unwrap();
    let balancer = &lab.balancers[&1];
    balancer.configure(&lab.plan.pools).unwrap();
    let lbd = programs::find("lbd").unwrap();
    let config = balancer.configuration();
    // Without a BPF file system, in mounts of its own.
    let script = "umount -l /sys/fs/bpf && exec \"$0\" --config \"$1\"";
    let mut bare = balancer.namespace().command("unshare");
    bare.args(["--mount", "sh", "-c", script]).arg(&lbd).arg(&config);
    let error = refusal(&mut bare);
    assert!(error.contains("no-bpffs") && error.contains("mount -t bpf bpf"), "{error}");
    // Without the capabilities: all that are missing, and nothing half done.
    let mut weak = balancer.namespace().command("setpriv");
    weak.args(["--bounding-set", "-bpf,-net_admin,-perfmon,-sys_admin"]);
    let error = refusal(weak.arg(&lbd).arg("--config").arg(&config));
    assert!(error.contains("CAP_BPF, CAP_NET_ADMIN, CAP_PERFMON"), "{error}");
    assert!(!balancer.pins().exists());
    // The check of the machine alone says the same.
    edit(&lab, "[\"eth0\"]", "[\"lo\"]");
    let error = refusal(balancer.lbd_command().unwrap().arg("--check"));
    assert!(error.contains("lo is not an Ethernet interface"), "{error}");
}

#[test]
fn a_secret_that_others_know_or_that_is_none_is_refused() {
    let lab = Lab::new(small(Pool::web(1))).unwrap();
    let balancer = &lab.balancers[&1];
    balancer.configure(&lab.plan.pools).unwrap();
    let secret = lab.directory().join("secret");
    let mode = |mode| fs::set_permissions(&secret, fs::Permissions::from_mode(mode)).unwrap();
    mode(0o644);
    let error = refusal(&mut balancer.lbd_command().unwrap());
    assert!(error.contains("secret-permissions") && error.contains("chmod"), "{error}");
    mode(0o600);
    fs::write(&secret, "not hexadecimal").unwrap();
    let error = refusal(&mut balancer.lbd_command().unwrap());
    assert!(error.contains("secret-format"), "{error}");
    assert!(!error.contains("not hexadecimal"), "the secret is shown: {error}");
    fs::remove_file(&secret).unwrap();
    let error = refusal(&mut balancer.lbd_command().unwrap());
    assert!(error.contains("secret-unreadable"), "{error}");
}

#[test]
fn another_secret_is_refused_while_the_data_plane_lives() {
    let mut lab = Lab::running(small(Pool::web(1))).unwrap();
    let flows = Flows::start(&lab, Mix::SMALL).unwrap();
    fs::write(lab.directory().join("secret"), "f".repeat(32)).unwrap();
    let file = lab.balancers[&1].configuration();
    let answer = lab.balancers[&1].ask(&["apply", &file.to_string_lossy()]).unwrap();
    assert_eq!(answer.status.code(), Some(2));
    lab.balancer(1).unwrap().stop_lbd().unwrap();
    let error = refusal(&mut lab.balancers[&1].lbd_command().unwrap());
    assert!(error.contains("secret") && error.contains("lbctl unload"), "{error}");
    assert_all_live(&flows);
}

#[test]
fn a_signal_reloads_the_file_or_keeps_the_old_one() {
    let mut lab = Lab::running(small(Pool::web(2))).unwrap();
    let flows = Flows::start(&lab, Mix::SMALL).unwrap();
    let generation = lab.balancers[&1].status().unwrap().generation;
    edit(&lab, "pool = \"web\"", "pool = \"wbe\"");
    lab.balancers[&1].reload_lbd().unwrap();
    wait::until("the refusal is in the log", CHANGE_DEADLINE, || {
        let log = fs::read_to_string(lab.balancers[&1].log())?;
        Ok(log.contains("unknown-pool") && log.contains("the old one stays"))
    })
    .unwrap();
    assert_eq!(lab.balancers[&1].status().unwrap().generation, generation);
    edit(&lab, "pool = \"wbe\"", "pool = \"web\"");
    edit(&lab, "weight = 100", "weight = 50");
    edit(&lab, "weight = 50", "weight = 100");
    edit(&lab, "name = \"web1\", address = \"192.0.2.21\", weight = 100", WEB1_LIGHT);
    lab.balancers[&1].reload_lbd().unwrap();
    until(&mut lab, "the new file is in force", |status| {
        status.generation == generation + 1 && status.is_steady()
    });
    assert_all_live(&flows);
}

const WEB1_LIGHT: &str = "name = \"web1\", address = \"192.0.2.21\", weight = 50";

/// What lbctl answers, and with which exit status.
fn assert_answer(lab: &Lab, arguments: &[&str], code: i32, words: &[&str]) {
    let answer = lab.balancers[&1].ask(arguments).unwrap();
    let text = [answer.stdout, answer.stderr].concat();
    let text = String::from_utf8_lossy(&text);
    assert_eq!(answer.status.code(), Some(code), "{arguments:?}: {text}");
    for word in words {
        assert!(text.contains(word), "{arguments:?}: no word of `{word}`: {text}");
    }
}

#[test]
fn lbctl_says_what_was_wrong_with_the_question() {
    let lab = Lab::running(small(Pool::web(2))).unwrap();
    let file = lab.balancers[&1].configuration();
    let file = file.to_str().unwrap();
    for (arguments, code, words) in [
        (&["status"][..], 0, &["ok"][..]),
        (&["diff", file], 0, &["no change"]),
        (&["apply", "--dry-run", file], 0, &["no change"]),
        (&["diff", "/nonexistent"], 2, &["/nonexistent"]),
        (&["config", "check", "/nonexistent"], 2, &["/nonexistent"]),
        (&["backend", "drain", "web1"], 2, &["POOL/BACKEND"]),
        (&["backend", "drain", "wbe/web1"], 2, &["did you mean `web`?"]),
        (&["backend", "drain", "web/wbe1"], 2, &["did you mean `web1`?"]),
        (&["backend", "weight", "web/web1", "65536"], 2, &["0..=65535"]),
        (&["trace", "198.51.100.7", "web"], 2, &["socket address"]),
        (&["trace", "198.51.100.7:1", "wbe"], 2, &["did you mean"]),
        (&["trace", "198.51.100.7:1", "web-tcp6"], 2, &["IPv4 client", "IPv6 VIPs"]),
        (&["trace", "198.51.100.7:1", "web"], 0, &["web-tcp4", "web-udp4"]),
        (&["unload", "--pin-path", "/tmp"], 2, &["BPF file system"]),
        (&["unload", "--pin-path", "pins"], 2, &["absolute"]),
    ] {
        assert_answer(&lab, arguments, code, words);
    }
    // The last one that takes new flows cannot be drained away.
    assert_answer(
        &lab,
        &["backend", "drain", "web/web1"],
        0,
        &["undo with: lbctl backend undrain"],
    );
    assert_answer(&lab, &["backend", "drain", "web/web2"], 2, &["last backend"]);
    // The file and the word of the operator differ, but not the file and the file.
    assert_answer(&lab, &["diff", file], 0, &["no change", "override of web/web1 stays"]);
    edit(&lab, "window = \"5s\"", "window = \"6s\"");
    assert_answer(&lab, &["diff", file], 1, &["window 5s -> 6s"]);
    assert_answer(&lab, &["apply", "--dry-run", file], 1, &["window 5s -> 6s"]);
    assert_answer(&lab, &["apply", file], 0, &["window 5s -> 6s", "applied"]);
    assert_answer(&lab, &["diff", file], 0, &["no change"]);
}

#[test]
fn lbctl_says_why_it_cannot_ask() {
    let mut lab = Lab::running(small(Pool::web(1))).unwrap();
    let lbctl = programs::find("lbctl").unwrap();
    let socket = lab.balancers[&1].socket();
    // Nobody but root: no group is configured. The program itself may lie where others cannot go.
    let mut weak = std::process::Command::new("setpriv");
    weak.args(["--bounding-set", "-all", "--inh-caps", "-all"]);
    weak.args(["--reuid", "65534", "--regid", "65534", "--clear-groups"]);
    let error = refusal(weak.arg(lbctl).arg("--socket").arg(&socket).arg("status"));
    assert!(error.contains("ermission"), "{error}");
    lab.balancer(1).unwrap().kill_lbd().unwrap();
    assert_answer(&lab, &["status"], 2, &["nobody answers", "data plane goes on"]);
    lab.balancer(1).unwrap().start().unwrap();
    lab.balancer(1).unwrap().stop_lbd().unwrap();
    assert_answer(&lab, &["status"], 2, &["there is no socket", "is lbd running?"]);
}

#[test]
fn when_all_backends_are_down_all_are_used_and_that_is_an_alarm() {
    let mut lab = Lab::new(small(Pool::web(2))).unwrap();
    let agent = lab.agent().unwrap();
    for web in lab.webs.values_mut() {
        web.start(Some(agent.clone())).unwrap();
    }
    lab.balancers[&1].configure(&lab.plan.pools).unwrap();
    // Nothing answers the probes; the backends are well.
    edit(&lab, "port = 80\n", "port = 81\n");
    edit(&lab, "[log]", &format!("[metrics]\nlisten = \"{METRICS}\"\n\n[log]"));
    let mut lbd = lab.balancers[&1].lbd_command().unwrap();
    let log = lab.balancers[&1].log();
    let _lbd = command::Process::start("lbd", &mut lbd, &log).unwrap();
    lab.route_to_balancers(&[1]).unwrap();
    wait::until("the alarm", CHANGE_DEADLINE, || {
        let status = lab.balancers[&1].status();
        Ok(status.is_ok_and(|it| it.reasons.iter().any(|it| it.contains("all are used"))))
    })
    .unwrap();
    assert_answer(&lab, &["status"], 1, &["degraded", "all backends are down"]);
    for vip in lab.vips() {
        probe::get(&lab.client, vip, "/").unwrap();
    }
    let metrics = scrape(&lab);
    assert_eq!(value(&metrics, "lb_pool_all_down", &[("pool", "web")]), 1.0);
    assert_eq!(value(&metrics, "lb_health", &[("state", "degraded")]), 1.0);
}

#[test]
fn a_backend_without_a_way_is_named() {
    let mut lab = Lab::running(small(Pool::web(1))).unwrap();
    let vip = lab.vips()[0];
    // Nobody has these addresses; without a check they count as up.
    edit(&lab, "health = \"connect\"\n", "");
    let silent = "backends = [\n  { name = \"silent\", address = \"192.0.2.99\" },\n";
    edit(&lab, "backends = [\n", silent);
    edit(&lab, "name = \"web1\"", "state = \"drain\", name = \"web1\"");
    let file = lab.balancers[&1].configuration();
    assert_answer(&lab, &["apply", &file.to_string_lossy()], 0, &["silent"]);
    until(&mut lab, "the silent one has the slots", |status| {
        status.reasons.iter().any(|it| it.contains("192.0.2.99 does not answer"))
            && is_quiet(status)
    });
    let before = lab.balancers[&1].outcome("unresolved").unwrap();
    assert!(probe::is_swallowed(&lab.client, vip, 80).unwrap());
    assert!(lab.balancers[&1].outcome("unresolved").unwrap() > before);
    assert_answer(&lab, &["drops"], 0, &["unresolved", "no resolved next hop"]);
    // Probes and all are over: nothing else is remembered of the slot.
    let words = ["drop: unresolved", "192.0.2.99 does not answer"];
    assert_answer(&lab, &["trace", "198.51.100.7:1", "web-tcp4"], 0, &words);
}

#[test]
fn a_pool_that_nobody_serves_says_so() {
    let mut empty = Pool::web(1);
    empty.backends = vec![Backend { web: 1, family: Family::V4, weight: 100, drained: true }];
    let lab = Lab::new(small(empty)).unwrap();
    lab.balancers[&1].configure(&lab.plan.pools).unwrap();
    edit(&lab, "health = \"connect\"\n", "");
    let mut lbd = lab.balancers[&1].lbd_command().unwrap();
    let _lbd = command::Process::start("lbd", &mut lbd, &lab.balancers[&1].log()).unwrap();
    lab.route_to_balancers(&[1]).unwrap();
    wait::until("lbd answers", CHANGE_DEADLINE, || Ok(lab.balancers[&1].status().is_ok())).unwrap();
    assert_answer(&lab, &["status"], 1, &["degraded", "no backend takes new flows"]);
    for vip in lab.vips() {
        assert!(probe::is_swallowed(&lab.client, vip, 80).unwrap());
    }
    assert_answer(&lab, &["-o", "json", "drops"], 0, &["no_backend"]);
    assert!(lab.balancers[&1].outcome("no_backend").unwrap() > 0);
    assert_answer(&lab, &["trace", "198.51.100.7:1", "web-tcp4"], 0, &["drop: no_backend"]);
}

/// What lbd serves at [`METRICS`].
fn scrape(lab: &Lab) -> BTreeMap<String, Metrics> {
    let answer = lab.balancers[&1].namespace().inside(|| {
        let mut stream = TcpStream::connect(METRICS)?;
        stream.write_all(b"GET /metrics HTTP/1.0\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    });
    let answer = answer.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.contains("application/openmetrics-text; version=1.0.0"), "{head}");
    openmetrics::parse(body).unwrap()
}

fn value(metrics: &BTreeMap<String, Metrics>, name: &str, labels: &[(&str, &str)]) -> f64 {
    let labels =
        labels.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let family = metrics.get(name).unwrap_or_else(|| panic!("no {name}"));
    *family.samples.get(&labels).unwrap_or_else(|| panic!("no {labels:?} in {family:?}"))
}

#[test]
fn what_the_driver_does_not_send_is_counted_apart() {
    let mut lab = Lab::running(small(Pool::web(1))).unwrap();
    let vip = lab.vips()[0];
    assert_answer(&lab, &["-o", "json", "stats"], 0, &[r#""transmit_errors":{"eth0":0}"#]);
    lab.clog("lb1");
    let before = lab.balancers[&1].outcome("tx").unwrap();
    assert!(probe::is_swallowed(&lab.client, vip, 80).unwrap());
    // For the program it was sent.
    assert!(lab.balancers[&1].outcome("tx").unwrap() > before);
    wait::until("lbd has asked the driver", CHANGE_DEADLINE, || {
        let stats = lab.balancers[&1].lbctl(&["-o", "json", "stats"])?;
        let stats: serde_json::Value = serde_json::from_str(&stats)?;
        Ok(stats["transmit_errors"]["eth0"].as_u64().is_some_and(|count| count > 0))
    })
    .unwrap();
    assert_answer(&lab, &["stats"], 0, &["NOT SENT"]);
}

#[test]
fn metrics_are_what_they_are_called_and_count() {
    let mut lab = Lab::running(small(Pool::web(2))).unwrap();
    lab.balancer(1).unwrap().stop_lbd().unwrap();
    edit(&lab, "[log]", &format!("[metrics]\nlisten = \"{METRICS}\"\n\n[log]"));
    lab.balancer(1).unwrap().start().unwrap();
    let before = scrape(&lab);
    let flows = Flows::start(&lab, Mix::SMALL).unwrap();
    assert_all_live(&flows);
    assert!(probe::is_swallowed(&lab.client, lab.vips()[0], 81).unwrap());
    // Whole only while nothing is on its way.
    drop(flows);
    let after = scrape(&lab);
    assert!(before.keys().eq(after.keys()), "series come and go");
    for (name, family) in &after {
        assert!(name.starts_with("lb_") && !family.help.is_empty(), "{name}");
        for (labels, value) in family.samples.iter().filter(|_| family.kind == "counter") {
            let earlier = before[name].samples.get(labels).copied().unwrap_or_default();
            assert!(*value >= earlier, "{name} {labels:?}: {earlier} -> {value}");
            assert!(labels.values().all(|it| !it.starts_with("198.51.100.")), "a client's address");
        }
    }
    let vip = format!("{}:80/tcp", lab.vips()[0]);
    assert!(value(&after, "lb_packets", &[("vip", &vip), ("verdict", "tx")]) > 10.0);
    assert!(value(&after, "lb_bytes", &[("vip", &vip)]) > 1000.0);
    assert!(value(&after, "lb_drops", &[("reason", "no_port")]) > 0.0);
    assert_eq!(value(&after, "lb_xdp_up", &[("interface", "eth0"), ("mode", "native")]), 1.0);
    let slots = &after["lb_maglev_slots"].samples;
    assert_eq!(slots.values().sum::<f64>(), 65_537.0);
    let sent: f64 = after["lb_packets"]
        .samples
        .iter()
        .filter(|(labels, _)| ["tx", "redirect"].contains(&&*labels["verdict"]))
        .map(|(_, value)| value)
        .sum();
    let received = after["lb_backend_packets"].samples.values().sum::<f64>();
    assert_eq!(sent, received, "what was sent went to backends");
}

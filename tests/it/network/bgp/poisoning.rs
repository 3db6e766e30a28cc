//! The guards of poisoning, one at a time: an order that is carried out, and the same order with
//! one thing wrong, which is refused in words of its own and changes nothing at the router.

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;

use lb_tests::lab::bgp::{self, OWN_AS};
use lb_tests::lab::config::Pool;
use lb_tests::lab::router::{Bird, Router as _};
use lb_tests::lab::{Lab, Plan};

use super::super::small;
use super::{told, unsteer, until_routes};

/// The prefix that is poisoned, and what covers it.
const PREFIX: &str = "203.0.112.0/23";
const COVERING: &str = "203.0.112.0/22";
/// Three that nobody has and that may be poisoned.
const TARGETS: [&str; 3] = ["1000000", "1000001", "1000002"];
/// One of the largest networks.
const TIER_1: &str = "3356";
/// Own ASNs of the path with three prepended, for two targets just enough.
const BASELINE: [u32; 4] = [OWN_AS; 4];

/// The load balancer's part, in which every guard is satisfied for two targets.
fn configuration() -> String {
    let peer = "poison_allowed = [1000000, 1000001, 1000002]\nprepend = 3\n";
    let prefixes = [PREFIX, COVERING].map(|it| format!("[[bgp.prefix]]\nprefix = \"{it}\"\n"));
    let guards = "[bgp.guards]\ninterval = \"0s\"\n";
    bgp::speaker("") + &bgp::both_sessions(1, peer) + guards + &prefixes.concat()
}

/// A load balancer and BIRD.
struct Bench {
    bird: Bird,
    lab: Lab,
}

impl Bench {
    fn start() -> Self {
        let mut lab = Lab::new(Plan { bgp: configuration(), ..small(Pool::web(1)) }).unwrap();
        let host = lab.add_router(1).unwrap();
        let bird = Bird::start(lab.directory(), &host, &bgp::bird(&[1], "", "")).unwrap();
        lab.start().unwrap();
        Self { bird, lab }
    }

    #[track_caller]
    fn until_path(&self, what: &str, path: &[u32]) {
        until_routes(
            &self.lab,
            &self.bird,
            PREFIX,
            what,
            |routes| matches!(routes, [route] if route.as_path == path),
        );
    }

    /// Makes this the configuration, and waits until the path is as it makes it.
    #[track_caller]
    fn configure(&mut self, text: String, path: &[u32]) {
        let pools = self.lab.plan.pools.clone();
        let balancer = self.lab.balancer(1).unwrap();
        balancer.bgp = text;
        balancer.apply(&pools).unwrap();
        self.until_path("as configured", path);
    }

    /// Orders, which is refused with exactly this sentence; the path stays as it is.
    #[track_caller]
    fn refused(&self, words: &[&str], why: &str) {
        let before = self.bird.best(PREFIX).unwrap();
        let asked = self.lab.balancers[&1].ask(&[&["bgp", "steer", PREFIX], words].concat());
        let asked = asked.unwrap();
        let said = String::from_utf8_lossy(&asked.stderr).into_owned();
        assert!(!asked.status.success(), "{words:?} is carried out: {}", told(&self.lab));
        assert!(said.contains(why), "{words:?}: not `{why}` but {said}");
        let orders = self.lab.balancers[&1].lbctl(&["-o", "json", "bgp", "routes"]).unwrap();
        let orders: serde_json::Value = serde_json::from_str(&orders).unwrap();
        assert!(orders["orders"].as_array().unwrap().is_empty(), "{words:?}: {orders}");
        assert_eq!(self.bird.best(PREFIX).unwrap(), before, "{words:?}");
    }

    /// Orders, which is carried out, and ends the order again.
    #[track_caller]
    fn carried_out(&self, words: &[&str], path: &[u32]) {
        let before = self.bird.best(PREFIX).unwrap().unwrap().as_path;
        self.lab.balancers[&1].lbctl(&[&["bgp", "steer", PREFIX], words].concat()).unwrap();
        self.until_path(&format!("{words:?}"), path);
        unsteer(&self.lab);
        self.until_path("as before", &before);
    }

    /// The answer to an order that comes past lbctl.
    fn post(&self, body: &str) -> String {
        let mut stream = UnixStream::connect(self.lab.balancers[&1].socket()).unwrap();
        let head = "POST /v1/bgp HTTP/1.1\r\nhost: lbd\r\nconnection: close\r\n\
                    content-type: application/json\r\n";
        write!(stream, "{head}content-length: {}\r\n\r\n{body}", body.len()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }
}

/// An order to poison with these, for a minute.
fn poison<'a>(targets: &[&'a str]) -> Vec<&'a str> {
    let poison = targets.iter().flat_map(|target| ["--poison", *target]);
    ["--for", "1m"].into_iter().chain(poison).collect()
}

#[test]
fn each_guard_refuses_alone() {
    let mut bench = Bench::start();
    bench.until_path("it is announced", &BASELINE);
    let [one, two, _] = TARGETS;
    // The origin, and the first AS, which the router asks for, are ours whatever is ordered.
    let [first, second] = [1_000_000, 1_000_001];
    bench.carried_out(&poison(&[one]), &[OWN_AS, OWN_AS, first, OWN_AS]);
    bench.carried_out(&poison(&[one, two]), &[OWN_AS, first, second, OWN_AS]);

    bench
        .refused(&poison(&TARGETS), "at most 2 ASNs may poison a path, and to bird4 it would be 3");
    let may_not = |asn: &str, why: &str| format!("AS {asn} may not poison a path: {why}");
    for (target, why) in [
        (&*OWN_AS.to_string(), "it is the local AS"),
        ("65010", "peer bird4 is in it, withdraw from that instead"),
        (TIER_1, "it is a transit-free network, whose number others filter in our paths"),
        ("1000003", "poison_allowed of peer bird4 does not list it"),
    ] {
        bench.refused(&poison(&[target]), &may_not(target, why));
        // Nor beside one that may.
        bench.refused(&poison(&[one, target]), &may_not(target, why));
    }
    length(&bench);
    origin(&bench);
    expiry(&bench);
    baseline_and_sentinel(&mut bench);
}

/// 16 ASNs are as long as a path gets.
fn length(bench: &Bench) {
    let [target, ..] = TARGETS;
    let prepended = |count| [&["--prepend", count][..], &poison(&[target])].concat();
    let mut longest = [OWN_AS; 16];
    longest[14] = 1_000_000;
    bench.carried_out(&prepended("12"), &longest);
    let why = "the path to bird4 would be 17 ASNs long, and at most 16 are sent";
    bench.refused(&prepended("13"), why);
}

/// There is no order for another origin.
fn origin(bench: &Bench) {
    let [target, ..] = TARGETS;
    let order = |more: &str| {
        let steer = format!(r#""target": "{PREFIX}", "for": "1m", "poison": [{target}]{more}"#);
        bench.post(&format!(r#"{{"steer": {{{steer}}}}}"#))
    };
    let answer = order(r#", "origin": 64500"#);
    assert!(!answer.starts_with("HTTP/1.1 200") && answer.contains("origin"), "{answer}");
    bench.until_path("as before", &BASELINE);
    // Without that it is an order.
    let answer = order("");
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    bench.until_path("poisoned", &[OWN_AS, OWN_AS, 1_000_000, OWN_AS]);
    unsteer(&bench.lab);
    bench.until_path("as before", &BASELINE);
}

/// Every order says when it ends, within a day.
fn expiry(bench: &Bench) {
    let [target, ..] = TARGETS;
    bench.refused(&["--poison", target], "--for <DURATION>");
    for time in ["25h", "1441m", "0s"] {
        let why = format!("an order holds for 1s to 24h, not {time}");
        bench.refused(&["--poison", target, "--for", time], &why);
    }
    let endless = format!(r#"{{"steer": {{"target": "{PREFIX}", "poison": [{target}]}}}}"#);
    let answer = bench.post(&endless);
    let refused = !answer.starts_with("HTTP/1.1 200") && answer.contains("missing field `for`");
    assert!(refused, "{answer}");
    bench.until_path("as before", &BASELINE);
    // The end is kept.
    bench.lab.balancers[&1]
        .lbctl(&["bgp", "steer", PREFIX, "--poison", target, "--for", "2s"])
        .unwrap();
    bench.until_path("poisoned", &[OWN_AS, OWN_AS, 1_000_000, OWN_AS]);
    bench.until_path("it undoes itself", &BASELINE);
}

/// What the configuration has to say for it: paths that are long enough, and a covering prefix.
fn baseline_and_sentinel(bench: &mut Bench) {
    let [one, two, _] = TARGETS;
    let with =
        |prepend: u8| configuration().replace("prepend = 3", &format!("prepend = {prepend}"));
    let short = |least: u8| {
        format!(
            "the path to bird4 must already be {least} own ASNs long, so that poisoning does not \
             make it longer for everybody: set prepend = {} or more in the configuration",
            least - 1
        )
    };
    bench.configure(with(2), &[OWN_AS; 3]);
    bench.refused(&poison(&[one, two]), &short(4));
    bench.carried_out(&poison(&[one]), &[OWN_AS, 1_000_000, OWN_AS]);
    bench.configure(with(1), &[OWN_AS; 2]);
    bench.refused(&poison(&[one]), &short(3));
    bench.configure(with(0), &[OWN_AS]);
    bench.refused(&poison(&[one]), &short(3));
    // Prepending by the order is what would move everybody.
    bench.refused(&[&["--prepend", "3"][..], &poison(&[one])].concat(), &short(3));

    let covering = format!("[[bgp.prefix]]\nprefix = \"{COVERING}\"\n");
    bench.configure(configuration().replace(&covering, ""), &BASELINE);
    bench.refused(
        &poison(&[one]),
        "no covering prefix is announced unpoisoned to bird4, and nobody else is seen to announce \
         this one: the poisoned AS could be left without any route",
    );
    bench.configure(configuration(), &BASELINE);
    bench.carried_out(&poison(&[one]), &[OWN_AS, OWN_AS, 1_000_000, OWN_AS]);
}

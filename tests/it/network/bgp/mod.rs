//! BGP: what the load balancers announce, as real routers print it.

mod attributes;
mod bfd;
mod flood;
mod guards;
mod leaving;
mod multihop;
mod near;
mod poisoning;
mod reload;
mod restart;
mod routers;
mod scale;
mod secured;
mod sessions;
mod shedding;
mod steering;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use lb_tests::lab::addresses::{Family, balancer, vip};
use lb_tests::lab::bgp::{self, OWN_AS, PEER_NAMES, Routers};
use lb_tests::lab::config::Pool;
use lb_tests::lab::router::{Peer, Route, Router};
use lb_tests::lab::{Lab, Plan, wait};
use serde_json::Value;

/// Longest wait for a session or a route: hold time, and a few attempts to connect.
const DEADLINE: Duration = Duration::from_secs(40);
/// Peers may connect to us, too.
const LISTEN: &str = "listen = [\"0.0.0.0:179\", \"[::]:179\"]\n";
/// The host routes of the first pool.
const VIPS: [&str; 2] = ["203.0.113.10/32", "2001:db8:53::10/128"];

/// One load balancer, one backend, and the three routers; lbd is ready, sessions may not be.
struct World {
    routers: Routers,
    lab: Lab,
}

impl World {
    /// With these lines in `[bgp]` and in each peer.
    fn new(speaker: &str, peer: &str) -> Self {
        let speaker = bgp::speaker(&format!("{LISTEN}{speaker}"));
        let text = speaker + &bgp::all_sessions(peer);
        let (bird, frr) = (bgp::bird(&[1], "", ""), bgp::frr(&[1], &[]));
        Self::with(Plan { bgp: text, ..super::small(Pool::web(1)) }, &bird, &frr)
    }

    fn with(plan: Plan, bird: &str, frr: &str) -> Self {
        let mut lab = Lab::new(plan).unwrap();
        let routers = Routers::start(&mut lab, bird, frr, &bgp::gobgp(&[1])).unwrap();
        lab.start().unwrap();
        Self { routers, lab }
    }

    /// All three.
    fn all(&self) -> [&dyn Router; 3] {
        [&self.routers.bird, &self.routers.frr, &self.routers.gobgp]
    }

    /// Waits until every router has both routes of the first pool.
    #[track_caller]
    fn until_announced(&self) {
        for router in self.all() {
            for prefix in VIPS {
                until_routes(&self.lab, router, prefix, "it is announced", |it| it.len() == 1);
            }
        }
    }
}

/// The route of a VIP of the first pool at a router, with nothing but what every route has.
fn plain(router: &dyn Router, family: Family) -> Route {
    let lb1 = balancer(family, 1);
    let digit = if family == Family::V4 { 4 } else { 6 };
    let is_bird = router.name().contains("bird");
    Route {
        from: if is_bird { format!("lb1v{digit}") } else { lb1.to_string() },
        best: true,
        as_path: vec![OWN_AS],
        next_hop: Some(lb1),
        // BIRD's default, which did not come from the neighbour.
        local_preference: is_bird.then_some(100),
        ..Route::default()
    }
}

/// The host route of VIP `number`.
fn host_route(family: Family, number: u8) -> String {
    let length = if family == Family::V4 { 32 } else { 128 };
    format!("{}/{length}", vip(family, number))
}

/// Waits until a router's paths to a prefix meet a condition.
#[track_caller]
fn until_routes(
    lab: &Lab,
    router: &dyn Router,
    prefix: &str,
    what: &str,
    met: impl Fn(&[Route]) -> bool,
) {
    let mut last = Vec::new();
    let result = wait::until(what, DEADLINE, || {
        last = router.routes(prefix)?;
        Ok(met(&last))
    });
    if let Err(error) = result {
        panic!("{}: {prefix}: {error:#}: {last:#?}\n{}", router.name(), told(lab));
    }
}

/// Waits until a router's sessions meet a condition.
#[track_caller]
fn until_peers(
    lab: &Lab,
    router: &dyn Router,
    what: &str,
    met: impl Fn(&BTreeMap<IpAddr, Peer>) -> bool,
) {
    let mut last = BTreeMap::new();
    let result = wait::until(what, DEADLINE, || {
        last = router.peers()?;
        Ok(met(&last))
    });
    if let Err(error) = result {
        panic!("{}: {error:#}: {last:#?}\n{}", router.name(), told(lab));
    }
}

/// What every load balancer says of BGP, for a message.
fn told(lab: &Lab) -> String {
    let mut text = String::new();
    for balancer in lab.balancers.values() {
        for arguments in [&["bgp"][..], &["bgp", "routes"]] {
            let said = balancer.ask(arguments);
            let said = said.map(|it| [it.stdout, it.stderr].concat()).unwrap_or_default();
            text.push_str(&String::from_utf8_lossy(&said));
        }
        let log = std::fs::read_to_string(balancer.log()).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        text.push_str(&lines[lines.len().saturating_sub(25)..].join("\n"));
    }
    text
}

/// What `lbctl -o json bgp` says of a peer.
fn peer(lab: &Lab, number: u8, name: &str) -> Value {
    let answer = lab.balancers[&number].lbctl(&["-o", "json", "bgp"]).unwrap();
    let answer: Value = serde_json::from_str(&answer).unwrap();
    let peers = answer["peers"].as_array().unwrap();
    let found = peers.iter().find(|peer| peer["name"] == name);
    found.unwrap_or_else(|| panic!("no {name} in {answer}"))["session"].clone()
}

/// Waits until what lbd says of a peer meets a condition.
#[track_caller]
fn until_peer(lab: &Lab, name: &str, what: &str, met: impl Fn(&Value) -> bool) {
    let mut last = Value::Null;
    let result = wait::until(what, DEADLINE, || {
        last = peer(lab, 1, name);
        Ok(met(&last))
    });
    assert!(result.is_ok(), "{name}: {result:?}: {last:#}\n{}", told(lab));
}

/// Waits until what lbd says of each of its sessions, two with each router, meets a condition.
#[track_caller]
fn until_each(lab: &Lab, what: &str, met: impl Fn(&Value) -> bool) {
    for name in PEER_NAMES {
        for digit in [4, 6] {
            until_peer(lab, &format!("{name}{digit}"), what, &met);
        }
    }
}

/// The alarms of a load balancer, in one text.
fn alarms(lab: &Lab, number: u8) -> String {
    let answer = lab.balancers[&number].lbctl(&["-o", "json", "bgp"]).unwrap();
    let answer: Value = serde_json::from_str(&answer).unwrap();
    answer["alarms"].to_string()
}

/// Steers with these words for ten minutes.
#[track_caller]
fn steer(lab: &Lab, number: u8, words: &[&str]) {
    let arguments = [&["bgp", "steer"], words, &["--for", "10m"]].concat();
    lab.balancers[&number].lbctl(&arguments).unwrap();
}

/// Ends all steering.
fn unsteer(lab: &Lab) {
    for balancer in lab.balancers.values() {
        let answer = balancer.lbctl(&["-o", "json", "bgp", "routes"]).unwrap();
        let answer: Value = serde_json::from_str(&answer).unwrap();
        for order in answer["orders"].as_array().unwrap() {
            balancer.lbctl(&["bgp", "unsteer", &order["id"].to_string()]).unwrap();
        }
    }
}

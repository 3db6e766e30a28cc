//! What is announced follows from what can be served, from drains and from orders, also over a
//! restart.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::{World, files, text};
use crate::api::requests::{DrainChange, RoutesQuestion};
use crate::api::types::{BgpRoutes, Outcome};
use crate::api::{Failure, Request, Response};
use crate::bgp::announce::{Order, Phase, RouteState, Steer};
use crate::bgp::session::{PeerReport, State};
use crate::bgp::speaker::{Orders, SpeakerReport};
use crate::host::clock::boot_time;

const BACKENDS: [(&str, u16); 2] = [("b1", 100), ("b2", 100)];

fn with_bgp(last_announcer: &str) -> String {
    let bgp = format!(
        r#"
[bgp]
local_as = 65001
[bgp.host_routes]
last_announcer = "{last_announcer}"
[[bgp.peer]]
name = "edge1"
address = "192.0.2.254"
remote_as = 65000
"#
    );
    text(&BACKENDS).replace("window = \"10s\"", "window = \"10s\"\nmin_up = 2") + &bgp
}

impl World {
    fn announcing(last_announcer: &str) -> Self {
        let mut world = Self::new(&with_bgp(last_announcer));
        for (name, _) in BACKENDS {
            world.verdict(name, true);
        }
        world.settle();
        world
    }

    fn orders(&self) -> Orders {
        self.controller.speaker_orders().expect("a decision")
    }

    /// The AS path that the peer is to have; none: no route.
    fn path(&self) -> Option<Vec<u32>> {
        let orders = self.orders();
        let prefix = "203.0.113.10/32".parse().unwrap();
        orders.routes["edge1"].get(&prefix).map(|route| route.as_path.clone())
    }

    fn drain(&mut self, vip: Option<&str>, drain: bool) -> Result<Outcome, Failure> {
        self.outcome(Request::Drain(DrainChange { vip: vip.map(str::to_owned), drain }))
    }

    fn order(&mut self, order: Order) -> Result<Outcome, Failure> {
        self.outcome(Request::Bgp(Box::new(order)))
    }

    fn outcome(&mut self, request: Request) -> Result<Outcome, Failure> {
        match self.ask(request) {
            Ok(Response::Outcome(outcome)) => Ok(outcome),
            Ok(other) => panic!("{other:?}"),
            Err(failure) => Err(failure),
        }
    }

    fn routes(&mut self) -> BgpRoutes {
        match self.ask(Request::BgpRoutes(RoutesQuestion::default())) {
            Ok(Response::BgpRoutes(routes)) => routes,
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn nothing_is_announced_before_the_first_verdicts() {
    let mut world = World::new(&with_bgp("keep"));
    world.settle();
    assert!(world.controller.speaker_orders().is_none_or(|orders| !orders.ready));
    for (name, _) in BACKENDS {
        world.verdict(name, true);
    }
    world.settle();
    assert!(world.orders().ready);
    assert_eq!(world.path(), Some(vec![65001]));
}

#[test]
fn too_few_backends_withdraw_and_enough_bring_it_back() {
    let mut world = World::announcing("withdraw");
    world.verdict("b2", false);
    world.settle();
    assert_eq!(world.path(), None);
    let routes = world.routes();
    assert_eq!(routes.routes[0].state, RouteState::Withdrawn);
    assert!(routes.routes[0].why.contains("web"), "{}", routes.routes[0].why);
    world.verdict("b2", true);
    world.settle();
    assert_eq!(world.path(), None, "it comes back after the back-off");
    world.idle(31);
    assert_eq!(world.path(), Some(vec![65001]));
}

#[test]
fn the_last_announcer_keeps_with_an_alarm() {
    let mut world = World::announcing("keep");
    world.verdict("b1", false);
    world.verdict("b2", false);
    world.idle(5);
    assert_eq!(world.path(), Some(vec![65001]));
    assert_eq!(world.routes().routes[0].state, RouteState::Kept);
    let status = world.status();
    let reasons = status.reasons.join("\n");
    assert!(reasons.contains("203.0.113.10/32"), "{reasons}");
}

#[test]
fn a_drain_lowers_and_then_withdraws_and_survives_a_restart() {
    let mut world = World::announcing("keep");
    let outcome = world.drain(None, true).unwrap();
    assert_eq!(outcome.undo.as_deref(), Some("lbctl node undrain"));
    assert!(world.path().is_some(), "lower preference first");
    assert_eq!(world.routes().routes[0].state, RouteState::Lowered);
    world.idle(3);
    assert_eq!(world.path(), None);
    let mut world = world.restarted(&with_bgp("keep")).unwrap();
    world.idle(1);
    assert_eq!(world.path(), None);
    world.drain(None, false).unwrap();
    assert_eq!(world.path(), Some(vec![65001]));
    let refused = world.drain(Some("wwv"), true).unwrap_err();
    assert!(refused.message.contains("did you mean `www`?"), "{refused}");
    world.drain(Some("www"), true).unwrap();
    world.idle(3);
    assert_eq!(world.path(), None);
}

#[test]
fn a_steering_ends_by_itself_also_after_a_restart() {
    let mut world = World::announcing("keep");
    let steer = Steer {
        target: "www".to_owned(),
        lasts: Duration::from_secs(60),
        prepend: 2,
        ..Steer::default()
    };
    let outcome = world.order(Order::Steer(steer)).unwrap();
    assert!(outcome.undo.is_some());
    assert_eq!(world.path(), Some(vec![65001; 3]));
    let mut world = world.restarted(&with_bgp("keep")).unwrap();
    world.idle(30);
    assert_eq!(world.path(), Some(vec![65001; 3]));
    assert_eq!(world.routes().orders.len(), 1);
    world.idle(31);
    assert_eq!(world.path(), Some(vec![65001]));
    assert!(world.routes().orders.is_empty());
}

#[test]
fn leaving_lowers_then_withdraws() {
    let mut world = World::announcing("keep");
    world.controller.shut_down_bgp(world.now);
    assert!(matches!(world.controller.bgp_phase(), Phase::Lowering(_)));
    assert!(world.path().is_some());
    world.idle(3);
    assert!(matches!(world.controller.bgp_phase(), Phase::Withdrawn(_)));
    assert_eq!(world.path(), None);
}

#[test]
fn a_route_that_a_peer_cannot_be_told_of_is_an_alarm() {
    let mut world = World::announcing("keep");
    let mut session = PeerReport { state: State::Established, ..PeerReport::default() };
    let mut hear = |world: &mut World, unsendable: &[&str]| {
        let why = "no next hop that the peer takes for this address family";
        let of = |it: &&str| (it.parse().unwrap(), why.to_owned());
        session.unsendable = unsendable.iter().map(of).collect();
        let peers = [("edge1".to_owned(), Arc::new(session.clone()))].into();
        let report = SpeakerReport { peers, ..SpeakerReport::default() };
        world.controller.on_speaker(Arc::new(report));
    };
    hear(&mut world, &["203.0.113.10/32", "203.0.113.11/32"]);
    let reasons = world.status().reasons.join("\n");
    let alarm = "BGP peer edge1 cannot be told of 203.0.113.10/32, and 1 more prefixes neither: \
                 no next hop";
    assert!(reasons.contains(alarm), "{reasons}");
    assert!(world.routes().routes[0].why.contains("no next hop"));
    hear(&mut world, &[]);
    assert!(world.status().reasons.is_empty());
}

/// A directory for files that only their owner may read.
struct Directory(PathBuf);

impl Directory {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("lb-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.0.join(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        path
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).ok();
    }
}

#[test]
fn another_password_is_a_change_and_not_shown() {
    let directory = Directory::new("passwords");
    let secret = directory.write("secret", "0102030405060708090a0b0c0d0e0f10\n");
    let key = directory.write("key", "old s3cret\n");
    let text = format!("{}password_file = {key:?}\n", with_bgp("keep"));
    let text = text.replace("\"/secret\"", &format!("{secret:?}"));
    let mut world = World::new(&text);
    for (name, _) in BACKENDS {
        world.verdict(name, true);
    }
    world.settle();
    assert!(world.outcome(Request::Plan(files(&text))).unwrap().changes.is_empty());
    directory.write("key", "new s3cret\n");
    for request in [Request::Plan(files(&text)), Request::Apply(files(&text))] {
        let outcome = world.outcome(request).unwrap();
        assert!(!format!("{outcome:?}").contains("s3cret"));
        let lines = outcome.changes.iter().map(|it| format!("{} {}", it.subject, it.text));
        let expected = "bgp peer edge1 password changed: its session is reset";
        assert_eq!(lines.collect::<Vec<_>>(), [expected]);
    }
    assert_eq!(world.orders().passwords["edge1"].bytes(), b"new s3cret");
    assert!(world.outcome(Request::Plan(files(&text))).unwrap().changes.is_empty());
}

#[test]
fn roa_payloads_are_taken_as_their_file_changes() {
    /// How long a small file may take to be read.
    const PATIENCE: Duration = Duration::from_secs(20);
    let directory = Directory::new("payloads");
    let payloads = |asn: u32| {
        format!(
            r#"{{ "roas": [{{ "asn": {asn}, "prefix": "203.0.113.0/24", "maxLength": 32 }}] }}"#
        )
    };
    let path = directory.write("vrps.json", &payloads(65001));
    let text = with_bgp("keep").replace("local_as", &format!("vrp_file = {path:?}\nlocal_as"));
    let mut world = World::new(&text);
    for (name, _) in BACKENDS {
        world.verdict(name, true);
    }
    world.settle();
    let mut until = |what: Option<&str>| {
        let start = boot_time();
        loop {
            world.idle(1);
            let reasons = world.status().reasons.join("\n");
            if what.map_or(reasons.is_empty(), |what| reasons.contains(what)) {
                return assert_eq!(world.path(), Some(vec![65001]), "what is out stays");
            }
            assert!(boot_time() < start + PATIENCE, "{what:?}: {reasons}");
        }
    };
    until(None);
    directory.write("vrps.json", &payloads(65002));
    until(Some("RPKI: Invalid"));
    directory.write("vrps.json", "not written to the end");
    until(Some("cannot be used"));
    until(Some("RPKI: Invalid"));
    directory.write("vrps.json", &payloads(65001));
    until(None);
}

#[test]
fn without_bgp_there_is_one_answer() {
    let mut world = World::started(&BACKENDS);
    for request in [
        Request::BgpPeers,
        Request::BgpRoutes(RoutesQuestion::default()),
        Request::Drain(DrainChange { vip: None, drain: true }),
    ] {
        let refused = world.ask(request).unwrap_err();
        assert!(refused.message.contains("[bgp]"), "{refused}");
    }
}

#[test]
fn new_pools_and_ports_by_reload_withdraw_nothing() {
    let mut world = World::announcing("withdraw");
    let more = r#"
[[pool]]
name = "more"
health = "tcp"
backends = [{ name = "b3", address = "10.0.0.3" }]
[[vip]]
name = "more"
address = "203.0.113.11"
protocol = "tcp"
ports = [80]
pool = "more"
"#;
    world.reload(&(with_bgp("withdraw").replace("ports = [80]", "ports = [80, 443]") + more));
    for _ in 0..10 {
        assert_eq!(world.path(), Some(vec![65001]), "at {:?}", world.now.boot);
        world.idle(2);
    }
    let new = "203.0.113.11/32".parse().unwrap();
    assert!(!world.orders().routes["edge1"].contains_key(&new), "its backend is not up");
}

#[test]
fn a_file_without_bgp_keeps_what_is_announced() {
    let mut world = World::announcing("withdraw");
    world.reload(&text(&BACKENDS).replace("window = \"10s\"", "window = \"10s\"\nmin_up = 2"));
    world.idle(2);
    assert_eq!(world.path(), Some(vec![65001]));
    let reasons = world.status().reasons.join("\n");
    assert!(reasons.contains("203.0.113.10/32"), "{reasons}");
    world.order(Order::ResumeBreaker).unwrap();
    assert_eq!(world.routes().routes[0].state, RouteState::Lowered);
    world.idle(3);
    assert!(world.controller.speaker_orders().is_none(), "the operator says so");
}

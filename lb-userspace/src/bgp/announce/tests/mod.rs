//! What this room promises, with fake time: a bench to build it on, and the tests by subject.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;

use super::order::limits;
use super::{Announcement, Announcer, Facts, Order, Seen, Steer, VipFacts};
use crate::desired::bgp::{AttributeSettings, Bgp, Peer, sample};
use crate::desired::{
    Api, Dataplane, Desired, Encap, FlowTimeouts, LastAnnouncer, Log, LogFormat, LogLevel, Node,
    OnShutdown, Port, Prefix4, Prefix6, Protocol, Tracking, Vip, VipKey, VipTimeouts, XdpMode,
};

mod gate;
mod guards;
mod policy;
mod properties;
mod steering;

pub(super) const OWN: u32 = 64_500;

pub(super) fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

pub(super) fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

pub(super) fn key(address: &str) -> VipKey {
    VipKey { address: address.parse().unwrap(), protocol: Protocol::Tcp, port: Port::Exact(443) }
}

pub(super) fn peer(name: &str, remote_as: u32) -> Peer {
    Peer { name: name.to_owned(), remote_as, ..sample::peer() }
}

fn bgp(prefixes: &[&str]) -> Bgp {
    let keep = |text: &&str| (net(text), sample::prefix(LastAnnouncer::Keep));
    Bgp {
        local_as: OWN,
        graceful_restart: Some(Duration::from_secs(120)),
        peers: [peer("edge1", 64_496), peer("edge2", 64_497)]
            .map(|peer| (peer.name.clone(), peer))
            .into(),
        prefixes: prefixes.iter().map(keep).collect(),
        ..sample::bgp()
    }
}

/// A configuration with these prefixes, and a VIP for each of these addresses, `vip1` first.
pub(super) fn desired(prefixes: &[&str], vips: &[&str]) -> Desired {
    let vip = |(number, address): (usize, &&str)| Vip {
        name: format!("vip{}", number + 1),
        key: key(address),
        pool: "web".to_owned(),
        tracking: Tracking::Contested,
        flow_timeouts: VipTimeouts { udp: Duration::from_secs(30) },
    };
    let vips = vips.iter().enumerate().map(vip).map(|vip| (vip.key, vip)).collect();
    let second = Duration::from_secs(1);
    Desired {
        node: Node {
            name: "lb1".to_owned(),
            pop: "fra1".to_owned(),
            address: Some("192.0.2.10".parse().unwrap()),
            address6: None,
            secret_file: PathBuf::new(),
        },
        dataplane: Dataplane {
            interfaces: vec!["eth0".to_owned()],
            xdp_mode: XdpMode::Generic,
            encap: Encap::Gue,
            gue_port: 6_080,
            ipip_source: Prefix4 { address: "10.0.0.0".parse().unwrap(), length: 8 },
            ipip_source6: Prefix6 { address: "fd00::".parse().unwrap(), length: 64 },
            flow_table_size: 1_024,
            maglev_size: 251,
            max_vips: 8,
            max_pools: 8,
            max_backends: 8,
            max_slots: 502,
            pin_path: PathBuf::new(),
        },
        flow_timeouts: FlowTimeouts {
            tcp_half_open: second,
            tcp_established: second,
            tcp_closing: second,
            udp: second,
        },
        pools: BTreeMap::new(),
        vips,
        bgp: Some(bgp(prefixes)),
        api: Api { socket: PathBuf::new(), group: None },
        metrics: None,
        log: Log { level: LogLevel::Info, format: LogFormat::Text },
    }
}

/// Everything works, and no monitor says anything.
pub(super) fn facts(desired: &Desired) -> Facts {
    let vip = |vip: &Vip| VipFacts {
        name: vip.name.clone(),
        key: vip.key,
        pool: vip.pool.clone(),
        up: 4,
        min_up: 2,
        min_up_return: 3,
        probe: Some(Ok(())),
        drained: false,
    };
    Facts {
        attached: Ok(()),
        tables: Ok(()),
        verdicts: Ok(()),
        vips: desired.vips.values().map(vip).collect(),
        node_drained: false,
        seen: BTreeMap::new(),
    }
}

pub(super) fn others() -> Seen {
    Seen::Others { peer: "edge1".to_owned() }
}

/// An announcer with its facts and clock, in milliseconds since boot.
pub(super) struct Bench {
    pub(super) desired: Desired,
    pub(super) facts: Facts,
    pub(super) announcer: Announcer,
    pub(super) now: u64,
    pub(super) last: Option<Announcement>,
}

impl Bench {
    /// Starts, a minute after boot, and decides once.
    pub(super) fn new(desired: Desired) -> Self {
        let facts = facts(&desired);
        let announcer = Announcer::new(&desired, None, ms(60_000));
        let mut bench = Self { desired, facts, announcer, now: 60_000, last: None };
        bench.settle();
        bench
    }

    /// Decides; whether anything changed.
    pub(super) fn settle(&mut self) -> bool {
        let announcement = self.announcer.settle(&self.facts, ms(self.now));
        let changed = announcement.is_some();
        self.last = announcement.or(self.last.take());
        let again = self.announcer.settle(&self.facts, ms(self.now));
        assert_eq!(again, None, "the same facts at the same time change nothing");
        let due = self.announcer.deadline();
        assert!(due.is_none_or(|due| due > ms(self.now)), "{due:?} is past at {}", self.now);
        changed
    }

    /// Lets time pass, deciding when asked to.
    pub(super) fn pass(&mut self, millis: u64) {
        let end = self.now + millis;
        loop {
            let due = self.announcer.deadline().map(|due| due.as_millis().try_into().unwrap());
            match due.filter(|due| *due <= end) {
                Some(due) => self.now = due,
                None => break,
            }
            self.settle();
        }
        self.now = end;
        self.settle();
    }

    pub(super) fn set_up(&mut self, vip: &str, up: u32) {
        for it in self.facts.vips.iter_mut().filter(|it| it.name == vip) {
            it.up = up;
        }
    }

    pub(super) fn see(&mut self, prefix: &str, seen: Seen) {
        self.facts.seen.insert(net(prefix), seen);
    }

    /// The prefixes that a peer is to have.
    pub(super) fn to(&self, peer: &str) -> Vec<String> {
        let routes = &self.last.as_ref().unwrap().routes;
        routes.get(peer).unwrap().keys().map(ToString::to_string).collect()
    }

    /// The path of a route, or `None`.
    pub(super) fn path(&self, peer: &str, prefix: &str) -> Option<Vec<u32>> {
        let routes = &self.last.as_ref().unwrap().routes;
        Some(routes.get(peer)?.get(&net(prefix))?.as_path.clone())
    }

    /// Orders and decides.
    pub(super) fn order(&mut self, order: Order) -> Result<super::Done, String> {
        let done = self.announcer.order(order, ms(self.now));
        self.settle();
        done
    }

    pub(super) fn steer(&mut self, steer: Steer) -> Result<super::Done, String> {
        self.order(Order::Steer(steer))
    }

    /// Ends, and starts again with what was saved, through its text form.
    pub(super) fn restart(&mut self) {
        let saved = serde_json::to_string(&self.announcer.saved()).unwrap();
        let saved = serde_json::from_str(&saved).unwrap();
        self.announcer = Announcer::new(&self.desired, Some(saved), ms(self.now));
        self.settle();
    }

    pub(super) fn configure(&mut self) {
        self.announcer.configure(&self.desired, ms(self.now));
        self.settle();
    }

    /// All routes with their reasons, a block for each.
    pub(super) fn show(&self) -> String {
        let mut text = String::new();
        for route in self.announcer.routes() {
            let state = serde_json::to_value(route.state).unwrap();
            let state = state.as_str().unwrap();
            writeln!(text, "{} to {}: {state}, {}", route.prefix, route.peer, route.why).unwrap();
            for it in route.attributes {
                writeln!(text, "  {} {} - {}", it.name, it.value, it.why).unwrap();
            }
        }
        text
    }
}

/// An order for half an hour.
pub(super) fn steer(target: &str) -> Steer {
    Steer { target: target.to_owned(), lasts: Duration::from_secs(1_800), ..Steer::default() }
}

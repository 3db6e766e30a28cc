//! The controller over plain memory: events in, packets through, answers out.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::time::Duration;

use lb_common::packet::Buffer;
use lb_common::verdict::Outcome as Fate;
use tokio::sync::oneshot;

use super::{Controller, ControllerError, Event, Moment, Options};
use crate::api::requests::{BackendAction, BackendChange, ConfigFile, ConfigText};
use crate::api::types::{Outcome, PoolStatus, Status};
use crate::api::{Call, Failure, Request, Response};
use crate::config::diagnostic::Source;
use crate::config::{self, Loaded};
use crate::dataplane::{Dataplane, Sizes};
use crate::desired::{Secret, XdpMode};
use crate::health::{BackendKey, HealthEvent};
use crate::host::netlink::{HostEvent, Link, NextHop};

mod announcing;
mod changes;
mod moved_vips;
mod operator;
mod restart;

const HERTZ: u32 = 256;
const SYN: u8 = 0x02;
const ACK: u8 = 0x10;
const VIP: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 10);

/// What the configurations of all tests begin with.
const HEAD: &str = r#"version = 1
[node]
name = "lb1"
address = "192.0.2.1"
secret_file = "/secret"
[dataplane]
interfaces = ["eth0"]
maglev_size = 1_021
max_slots = 8_168
max_backends = 8
max_vips = 8
max_pools = 4
flow_table_size = 4_096
[defaults.flow_timeout]
tcp_half_open = "5s"
tcp_established = "30s"
"#;

/// A configuration with one pool of these backends (name, weight); address 10.0.0.N for `bN`.
fn text(backends: &[(&str, u16)]) -> String {
    let mut lines = String::new();
    for (name, weight) in backends {
        let number = name.trim_start_matches('b');
        lines += &format!(
            "  {{ name = \"{name}\", address = \"10.0.0.{number}\", weight = {weight} }},\n"
        );
    }
    format!(
        r#"{HEAD}[health.tcp]
kind = "tcp"
interval = "1s"
timeout = "1s"
rise = 2
fall = 3
[[pool]]
name = "web"
health = "tcp"
window = "10s"
backends = [
{lines}]
[[vip]]
name = "www"
address = "203.0.113.10"
protocol = "tcp"
ports = [80]
pool = "web"
"#
    )
}

fn files(text: &str) -> ConfigText {
    ConfigText { files: vec![ConfigFile { path: "/lb.toml".into(), text: text.to_owned() }] }
}

fn secret(first: u8) -> Secret {
    Secret::new(std::array::from_fn(|at| first.wrapping_add(u8::try_from(at).unwrap())))
}

fn load(text: &str) -> Loaded {
    let source = Source { path: "/lb.toml".into(), text: text.to_owned() };
    let readers = config::Readers { secret: &|_| Ok(secret(1)), ..config::Readers::DISK };
    config::check(vec![source], &readers).unwrap_or_else(|report| {
        panic!("{}", report.render(false));
    })
}

/// A controller, its clock, and the flows that were opened.
struct World {
    controller: Controller,
    now: Moment,
    flows: BTreeMap<u16, String>,
    /// A client that nobody has seen yet.
    newcomer: Cell<u16>,
}

impl World {
    /// Nothing has happened yet.
    fn new(text: &str) -> Self {
        let loaded = load(text);
        let settings = &loaded.desired.dataplane;
        let sizes = Sizes::with_room(
            settings.max_slots.into(),
            settings.max_backends,
            settings.max_vips,
            settings.flow_table_size,
        );
        let now = Moment { boot: Duration::from_secs(100), wall: Duration::from_secs(1) };
        let controller = Self::controller(Dataplane::in_memory(&sizes), loaded, now).unwrap();
        Self { controller, now, flows: BTreeMap::new(), newcomer: Cell::new(20_000) }
    }

    fn controller(
        dataplane: Dataplane,
        loaded: Loaded,
        now: Moment,
    ) -> Result<Controller, ControllerError> {
        let config = PathBuf::from("/lb.toml");
        let mut new = Controller::new(
            dataplane,
            loaded,
            Options { config, probes: true, tunnel: true, hertz: HERTZ },
            now,
        )?;
        let link = Link { index: 2, name: "eth0".into(), up: true, mtu: 1500, mac: Some([2; 6]) };
        new.handle(Event::Host(HostEvent::LinkUp(link)), now);
        new.attach("eth0", XdpMode::Auto)?;
        Ok(new)
    }

    /// All backends of these names are up, and their next hops known.
    fn started(backends: &[(&str, u16)]) -> Self {
        let mut world = Self::new(&text(backends));
        for (name, _) in backends {
            world.verdict(name, true);
        }
        world.settle();
        world
    }

    /// As after `kill -9`: only the data plane is left.
    fn restarted(self, text: &str) -> Result<Self, ControllerError> {
        let controller = Self::controller(self.controller.dataplane, load(text), self.now)?;
        let mut world = Self { controller, ..self };
        world.settle();
        Ok(world)
    }

    fn settle(&mut self) {
        let jiffies = u64::try_from(self.now.boot.as_millis()).unwrap() * u64::from(HERTZ) / 1000;
        self.controller.dataplane.set_jiffies(jiffies);
        self.controller.settle(self.now);
        if let Some(destinations) = self.controller.take_wanted().destinations {
            let way = |to: IpAddr| {
                let next_hop = NextHop {
                    interface_index: 2,
                    source_mac: [2; 6],
                    destination_mac: [4; 6],
                    mtu: 1600,
                };
                (to, Ok(next_hop))
            };
            let next_hops = destinations.into_iter().map(way).collect();
            self.controller.handle(Event::Host(HostEvent::NextHops(next_hops)), self.now);
            self.controller.settle(self.now);
        }
    }

    /// Lets seconds pass; every open flow sends a packet in each.
    fn pass(&mut self, seconds: u64) {
        for _ in 0..seconds {
            self.idle(1);
            self.check_flows();
        }
    }

    /// Lets seconds pass in which nobody sends.
    fn idle(&mut self, seconds: u64) {
        for _ in 0..seconds * 4 {
            self.now.boot += Duration::from_millis(250);
            self.now.wall += Duration::from_millis(250);
            self.settle();
        }
    }

    fn verdict(&mut self, backend: &str, up: bool) {
        let event = HealthEvent {
            backend: BackendKey::new("web", backend),
            up,
            reason: "as told".to_owned(),
            at: self.now.boot,
        };
        self.controller.handle(Event::Health(event), self.now);
    }

    fn ask(&mut self, request: Request) -> Result<Response, Failure> {
        let (reply, mut answer) = oneshot::channel();
        self.controller.handle(Event::Call(Call { request, reply }), self.now);
        let answer = answer.try_recv().expect("calls are answered at once");
        self.settle();
        answer
    }

    fn status(&mut self) -> Status {
        match self.ask(Request::Status) {
            Ok(Response::Status(status)) => status,
            other => panic!("{other:?}"),
        }
    }

    fn pool(&mut self) -> PoolStatus {
        self.status().pools.into_iter().find(|pool| pool.name == "web").unwrap()
    }

    fn change(&mut self, backend: &str, action: BackendAction) -> Result<Outcome, Failure> {
        let (pool, backend) = ("web".to_owned(), backend.to_owned());
        match self.ask(Request::Backend(BackendChange { pool, backend, action })) {
            Ok(Response::Outcome(outcome)) => Ok(outcome),
            Ok(other) => panic!("{other:?}"),
            Err(failure) => Err(failure),
        }
    }

    /// Applies by the way of SIGHUP, since the secret's file is not there.
    fn reload(&mut self, text: &str) {
        self.controller.handle(Event::Reload(Ok(Box::new(load(text)))), self.now);
        self.settle();
    }

    /// Sends one segment of a client's flow; the backend it goes to.
    fn send(&self, client: u16, flags: u8) -> String {
        let mut packet: Buffer<1024> = Buffer::new(&segment(client, flags)).unwrap();
        let verdict = self.controller.dataplane.process(&mut packet, 2);
        if verdict.outcome != Fate::Tx {
            return verdict.outcome.name().to_owned();
        }
        let record = self.controller.numbers.backends.get(&verdict.backend.0);
        record.map_or_else(|| "a backend without record".to_owned(), |it| it.name.clone())
    }

    /// Opens flows; each is established when this returns.
    fn open(&mut self, clients: std::ops::Range<u16>) {
        for client in clients {
            let backend = self.send(client, SYN);
            assert_eq!(self.send(client, ACK), backend, "client {client}");
            self.flows.insert(client, backend);
        }
    }

    /// Each open flow sends a packet, which must go to the flow's own backend.
    fn check_flows(&self) {
        for (client, backend) in &self.flows {
            assert_eq!(&self.send(*client, ACK), backend, "client {client} at {:?}", self.now.boot);
        }
    }

    fn flows_of(&self, backend: &str) -> usize {
        self.flows.values().filter(|it| *it == backend).count()
    }

    /// Where new clients go.
    fn newcomers(&self) -> BTreeMap<String, usize> {
        let mut count = BTreeMap::new();
        let first = self.newcomer.get();
        self.newcomer.set(first + 400);
        for client in first..first + 400 {
            *count.entry(self.send(client, SYN)).or_default() += 1;
        }
        count
    }
}

/// Ethernet, IPv4, TCP, no payload.
fn segment(client: u16, flags: u8) -> [u8; 54] {
    let mut frame = [0; 54];
    frame[12..14].copy_from_slice(&[8, 0]);
    frame[14] = 0x45;
    frame[16..18].copy_from_slice(&40_u16.to_be_bytes());
    frame[22] = 64;
    frame[23] = 6;
    let [high, low] = client.to_be_bytes();
    frame[26..30].copy_from_slice(&[198, 51, high, low]);
    frame[30..34].copy_from_slice(&VIP.octets());
    frame[34..36].copy_from_slice(&40_000_u16.to_be_bytes());
    frame[36..38].copy_from_slice(&80_u16.to_be_bytes());
    frame[46] = 0x50;
    frame[47] = flags;
    frame
}

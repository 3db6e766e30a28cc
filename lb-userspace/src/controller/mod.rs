//! The controller: everything that happens comes in as an [`Event`], everything that follows goes
//! out to the data plane, the prober and the resolver.
//!
//! ```text
//! prober, resolver, API, signals -> Event -> handle -> settle -> journal, backends, tables, VIPs
//! ```
//!
//! [`Controller`] is the state and what follows from it, without sockets or clocks: `now` is an
//! argument, so tests drive it over plain memory. `run` is the loop around it, `start` brings all
//! up in order. Within: `pools` (tables), `operator` (configurations and overrides), `effects`
//! (the data plane), `flows` (walks over the flow table), `counters`, `status` and `trace`
//! (answers).
//!
//! Must not: parse, draw tables, or speak a protocol.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use lb_common::backend::BackendId;
use lb_common::probe::mark_of;

use crate::api::{Call, Failure, Request, Response};
use crate::bgp::announce::{Roas, Saved};
use crate::bgp::roa::Vrps;
use crate::bgp::session::Decision;
use crate::bgp::speaker::{Orders, SpeakerReport};
use crate::config::diagnostic::Report;
use crate::config::{Loaded, Password};
use crate::dataplane::{Attached, Dataplane, Error as DataplaneError};
use crate::desired::{Desired, Secret, XdpMode};
use crate::health::{BackendKey, HealthEvent, HealthReport, Target, Thresholds};
use crate::host::netlink::{HostEvent, Link, NextHop, Unresolved};
use crate::state::{Drains, Journal, JournalError, NoNumber, Numbers, Override, Room};

use self::announcing::Announcing;
use self::counters::{Rates, Samples};
use self::effects::Outlet;
use self::flows::Census;
use self::pools::PoolState;

mod announcing;
mod counters;
mod effects;
pub mod flows;
mod operator;
mod pools;
pub mod run;
mod speaking;
pub mod start;
mod status;
#[cfg(test)]
mod tests;
mod trace;

/// Expired entries are removed this often; a second of theirs costs nothing but their place.
const AGE_INTERVAL: Duration = Duration::from_secs(4);
/// Samples of drops are read, and nothing is overlooked for longer than this.
pub const TICK: Duration = Duration::from_secs(1);

/// One moment on the two clocks that are used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Moment {
    /// Since boot: for all that is counted from.
    pub boot: Duration,
    /// Since 1970, for people.
    pub wall: Duration,
}

/// Everything that can happen to a load balancer.
#[derive(Debug)]
pub enum Event {
    /// A backend's verdict has changed.
    Health(HealthEvent),
    /// The prober's state, for the answers.
    Report(HealthReport),
    /// Packets that drivers did not send, by interface.
    TransmitErrors(BTreeMap<String, u64>),
    /// Routes, neighbours or interfaces have changed.
    Host(HostEvent),
    /// Somebody asks or orders.
    Call(Call),
    /// Sessions with BGP peers.
    Speaker(Arc<SpeakerReport>),
    /// The configuration was read again.
    Reload(Result<Box<Loaded>, Report>),
    /// Time has passed.
    Tick,
}

/// What the prober and the resolver have to be told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// Whom to probe; none if that has not changed.
    pub targets: Option<BTreeMap<BackendKey, Target>>,
    /// Whither to find the way; none if that has not changed.
    pub destinations: Option<BTreeSet<IpAddr>>,
    /// The VIPs that are probed through the tunnel; none if that has not changed.
    pub tunnelled: Option<BTreeSet<IpAddr>>,
    /// The speaker has to be told: peers or routes have changed.
    pub speaker: bool,
}

/// How the controller behaves, apart from the configuration.
#[derive(Clone, Debug)]
pub struct Options {
    /// The file lbd starts with, for notes.
    pub config: PathBuf,
    /// False: every backend counts as up, because nobody stays to probe.
    pub probes: bool,
    /// Probes can go through the tunnel.
    pub tunnel: bool,
    /// The kernel's jiffies in a second.
    pub hertz: u32,
}

/// Why there is no controller.
#[derive(Debug, thiserror::Error)]
pub enum ControllerError {
    /// The journal cannot be used.
    #[error(
        "the state of an earlier lbd in {path} cannot be used: {reason}; \
         run `lbctl unload --pin-path {path}`, which stops forwarding, and start again"
    )]
    Journal {
        /// The pin path.
        path: PathBuf,
        /// Why.
        reason: JournalError,
    },
    /// The secret is another one.
    #[error(
        "the cluster secret is not the one the data plane in {path} works with: every flow would \
         move; bring the old secret back, or run `lbctl unload --pin-path {path}` first"
    )]
    Secret {
        /// The pin path.
        path: PathBuf,
    },
    /// The configuration asks for what cannot be.
    #[error("{0}")]
    Impossible(String),
    /// There are not enough numbers.
    #[error(transparent)]
    Number(#[from] NoNumber),
    /// The data plane refuses.
    #[error(transparent)]
    Dataplane(#[from] DataplaneError),
}

/// What is known of an interface.
#[derive(Clone, Debug, PartialEq, Eq)]
enum LinkState {
    Up(Link),
    Down,
    Gone,
}

/// An interface with the program, and the index it had then.
#[derive(Clone, Debug)]
struct Port {
    attached: Attached,
    index: Option<u32>,
}

/// The state of one load balancer.
pub struct Controller {
    dataplane: Dataplane,
    desired: Desired,
    secret: Secret,
    /// Of BGP peers, by name.
    passwords: BTreeMap<String, Password>,
    /// What routes may be originated, if that is known.
    roas: Option<Roas>,
    options: Options,
    room: Room,
    generation: u64,
    applied: String,
    numbers: Numbers,
    overrides: BTreeMap<String, Override>,
    drains: Drains,
    /// What the announcer saved last, for the journal and for the next one.
    announced: Option<Saved>,
    announcing: Option<Announcing>,
    verdicts: BTreeMap<BackendKey, bool>,
    pools: BTreeMap<String, PoolState>,
    /// The last way that was known to each destination: an old one loses no more packets than none.
    hops: BTreeMap<IpAddr, NextHop>,
    /// Why there is no way now.
    unresolved: BTreeMap<IpAddr, Unresolved>,
    /// Whether the resolver has answered for all destinations.
    resolved: bool,
    links: BTreeMap<String, LinkState>,
    ports: Vec<Port>,
    outlet: Outlet,
    health: HealthReport,
    census: Census,
    samples: Samples,
    transmit_errors: BTreeMap<String, u64>,
    rates: Rates,
    stats: crate::api::types::DaemonStats,
    started: Duration,
    age_due: Duration,
    records_due: Duration,
    wanted: Wanted,
}

impl Controller {
    /// Continues where the journal in the data plane ends, or begins anew if there is none.
    /// Nothing is written before [`Controller::settle`].
    ///
    /// # Errors
    /// Any [`ControllerError`]; the data plane is as it was.
    pub fn new(
        dataplane: Dataplane,
        loaded: Loaded,
        options: Options,
        now: Moment,
    ) -> Result<Self, ControllerError> {
        let Loaded { desired, secret, passwords, vrps, .. } = loaded;
        let impossible = crate::plan::impossible(&desired);
        if !impossible.is_empty() {
            return Err(ControllerError::Impossible(impossible.join("\n")));
        }
        let path = desired.dataplane.pin_path.clone();
        let journal = dataplane.journal().map(|bytes| Journal::decode(&bytes)).transpose();
        let journal =
            journal.map_err(|reason| ControllerError::Journal { path: path.clone(), reason })?;
        let room = room(&dataplane);
        let mut new = Self {
            dataplane,
            desired,
            secret,
            passwords,
            roas: vrps.map(roas),
            options,
            room,
            generation: 0,
            applied: String::new(),
            numbers: Numbers::default(),
            overrides: BTreeMap::new(),
            drains: Drains::default(),
            announced: None,
            announcing: None,
            verdicts: BTreeMap::new(),
            pools: BTreeMap::new(),
            hops: BTreeMap::new(),
            unresolved: BTreeMap::new(),
            resolved: false,
            links: BTreeMap::new(),
            ports: Vec::new(),
            outlet: Outlet::default(),
            health: HealthReport::default(),
            census: Census::default(),
            samples: Samples::default(),
            transmit_errors: BTreeMap::new(),
            rates: Rates::default(),
            stats: crate::api::types::DaemonStats::default(),
            started: now.boot,
            age_due: now.boot + AGE_INTERVAL,
            records_due: now.boot,
            wanted: Wanted::default(),
        };
        let mut is_same = false;
        if let Some(journal) = journal {
            is_same = journal.config_digest == effects::config_digest(&new.desired);
            new.continue_from(journal, &path)?;
        }
        if !is_same {
            new.generation += 1;
            new.applied = crate::host::clock::rfc3339(now.wall);
        }
        new.numbers.assign(&new.desired, new.room)?;
        new.adopt(now);
        Ok(new)
    }

    fn continue_from(&mut self, journal: Journal, path: &Path) -> Result<(), ControllerError> {
        if journal.secret_digest != effects::digest(&self.secret) {
            return Err(ControllerError::Secret { path: path.to_owned() });
        }
        self.generation = journal.generation;
        self.applied = journal.applied;
        self.numbers = journal.numbers;
        self.overrides = journal.overrides;
        self.drains = journal.drains;
        self.announced = journal.announced;
        self.verdicts = journal.verdicts.iter().filter_map(split_verdict).collect();
        self.outlet.inherited = self.numbers.backends.keys().copied().collect();
        for (name, state) in &journal.trackers {
            let Some(number) = self.numbers.pools.get(name) else { continue };
            let pool = PoolState::restored(*number, state).map_err(|reason| {
                let reason = JournalError::Table(name.clone(), reason);
                ControllerError::Journal { path: path.to_owned(), reason }
            })?;
            self.pools.insert(name.clone(), pool);
        }
        self.inherit_vips(&journal.served);
        Ok(())
    }

    /// Takes in one event. What follows from it is done by [`Controller::settle`], once for all
    /// events that came together; only orders are settled at once, since they are answered.
    pub fn handle(&mut self, event: Event, now: Moment) {
        match event {
            Event::Health(event) => self.on_verdict(&event, now),
            Event::Report(report) => self.health = report,
            Event::TransmitErrors(errors) => self.transmit_errors = errors,
            Event::Host(event) => self.on_host(event),
            Event::Speaker(report) => self.on_speaker(report),
            Event::Call(call) => {
                let answer = self.answer(call.request, now);
                // One who no longer waits for the answer does not need it.
                drop(call.reply.send(answer));
            }
            Event::Reload(Ok(loaded)) => self.on_reload(*loaded, now),
            Event::Reload(Err(report)) => {
                operator::log_findings(&report);
                tracing::error!("the configuration is refused; the old one stays");
            }
            Event::Tick => {}
        }
    }

    /// Does what is due and tells the data plane what has changed.
    pub fn settle(&mut self, now: Moment) {
        self.start_pools(now);
        self.tick_pools(now);
        self.commit(now);
        self.settle_bgp(now);
        if self.outlet.journal_dirty {
            self.keep_journal();
        }
        if self.records_due <= now.boot {
            self.records_due = now.boot + TICK;
            self.dataplane.enter_records();
        }
        self.scan_if_due(now);
        if self.age_due <= now.boot {
            self.age_due = now.boot + AGE_INTERVAL;
            self.stats.flows_aged += self.dataplane.age() as u64;
        }
        self.samples.read(&mut self.dataplane, &self.numbers, now, &mut self.stats);
        self.rates.sample(&self.dataplane, now);
    }

    /// When [`Controller::settle`] has something to do by itself, at the latest.
    #[must_use]
    pub fn deadline(&self, now: Moment) -> Duration {
        let pools = self.pools.values().filter_map(PoolState::deadline);
        let all = pools.chain(self.bgp_deadline()).min();
        all.unwrap_or(Duration::MAX).min(now.boot + TICK)
    }

    /// Takes what the prober and the resolver have to be told.
    pub fn take_wanted(&mut self) -> Wanted {
        std::mem::take(&mut self.wanted)
    }

    /// The configuration in force.
    #[must_use]
    pub const fn desired(&self) -> &Desired {
        &self.desired
    }

    /// What earlier probes found, for the prober to begin with.
    #[must_use]
    pub fn remembered(&self) -> BTreeMap<BackendKey, bool> {
        self.verdicts.clone()
    }

    /// Whether every pool has a table, so that forwarding can begin.
    #[must_use]
    pub fn is_started(&self) -> bool {
        self.pools.values().all(|pool| pool.tracker.is_some() || pool.leaving)
    }

    /// Whether the way to every backend is known, or known not to be.
    #[must_use]
    pub fn is_resolved(&self) -> bool {
        self.resolved
            && self
                .unresolved
                .values()
                .all(|why| !matches!(why, Unresolved::Pending | Unresolved::Resolving(_)))
    }

    /// Writes resolved and unresolved ways from now on, also for backends of an earlier lbd whose
    /// way is not known yet.
    pub fn stop_waiting_for_next_hops(&mut self) {
        self.resolved = true;
        self.outlet.backends_dirty = true;
    }

    /// The peers, their passwords and the routes that each is to have; none without BGP.
    #[must_use]
    pub fn speaker_orders(&self) -> Option<Orders> {
        let (bgp, announcement) = self.announcement()?;
        Some(Orders {
            bgp: bgp.clone(),
            passwords: self.passwords.clone(),
            routes: announcement.routes.clone(),
            own: Arc::new(self.own_prefixes()),
            ready: announcement.ready,
            decision: Decision { id: announcement.id, at: announcement.at },
        })
    }

    /// What the data plane refuses now, if anything.
    #[must_use]
    pub fn refusal(&self) -> Option<String> {
        self.outlet.failing.clone()
    }

    /// Attaches the program to an interface.
    ///
    /// # Errors
    /// [`DataplaneError::Attach`].
    pub fn attach(&mut self, interface: &str, mode: XdpMode) -> Result<Attached, DataplaneError> {
        let attached = self.dataplane.attach(interface, mode)?;
        let index = match self.links.get(interface) {
            Some(LinkState::Up(link)) => Some(link.index),
            _ => None,
        };
        self.ports.retain(|port| port.attached.interface != interface);
        self.ports.push(Port { attached: attached.clone(), index });
        if !attached.native && mode == XdpMode::Auto {
            tracing::warn!(interface, "no native XDP here: generic mode costs most of the speed");
        }
        Ok(attached)
    }

    /// The interfaces by which next hops are reached.
    #[must_use]
    pub fn outgoing(&self) -> BTreeSet<u32> {
        self.hops.values().map(|hop| hop.interface_index).collect()
    }

    /// Detaches the program from interfaces that an earlier configuration had; their names.
    ///
    /// # Errors
    /// [`DataplaneError::Pin`].
    pub fn detach_others(&self) -> Result<Vec<String>, DataplaneError> {
        let detached = self.dataplane.detach_others(&self.desired.dataplane.interfaces)?;
        for interface in &detached {
            tracing::warn!(interface, "detached from an interface that is not configured any more");
        }
        Ok(detached)
    }

    /// Answers a question, or obeys an order.
    fn answer(&mut self, request: Request, now: Moment) -> Result<Response, Failure> {
        match request {
            Request::Status => Ok(self.status(now)?.into()),
            Request::Vips => Ok(self.vips(now)?.into()),
            Request::Stats => Ok(self.statistics(now)?.into()),
            Request::Metrics => Ok(self.snapshot(now)?.into()),
            Request::Drops { after } => Ok(self.drops(after)?.into()),
            Request::Trace(question) => Ok(self.trace(&question)?.into()),
            Request::Plan(text) => Ok(self.plan(&text)?.into()),
            Request::Apply(text) => Ok(self.apply_text(&text, now)?.into()),
            Request::Backend(change) => Ok(self.change_backend(&change, now)?.into()),
            Request::Drain(change) => Ok(self.drain(&change, now)?.into()),
            Request::BgpPeers => Ok(self.bgp_peers(now)?.into()),
            Request::BgpRoutes(question) => Ok(self.bgp_routes(&question, now)?.into()),
            Request::Bgp(order) => Ok(self.order_bgp(*order, now)?.into()),
        }
    }

    fn on_host(&mut self, event: HostEvent) {
        match event {
            HostEvent::NextHops(next_hops) => {
                self.unresolved.clear();
                for (destination, next_hop) in next_hops {
                    match next_hop {
                        Ok(next_hop) => {
                            self.hops.insert(destination, next_hop);
                        }
                        Err(why) => {
                            self.unresolved.insert(destination, why);
                        }
                    }
                }
                self.resolved = true;
                self.outlet.backends_dirty = true;
            }
            HostEvent::LinkUp(link) => self.on_link_up(link),
            HostEvent::LinkDown(name) => {
                tracing::warn!(interface = %name, "interface is down");
                self.links.insert(name.to_string(), LinkState::Down);
            }
            HostEvent::LinkGone(name) => {
                tracing::error!(interface = %name, "interface is gone");
                self.links.insert(name.to_string(), LinkState::Gone);
            }
            HostEvent::NeighbourMode(mode) => tracing::info!(?mode, "how neighbours are kept"),
        }
    }

    /// An interface that was made anew has lost the program.
    fn on_link_up(&mut self, link: Link) {
        let (name, index) = (link.name.to_string(), link.index);
        tracing::info!(interface = name, mtu = link.mtu, "interface is up");
        self.links.insert(name.clone(), LinkState::Up(link));
        let Some(port) = self.ports.iter_mut().find(|port| port.attached.interface == name) else {
            return;
        };
        let before = port.index.replace(index);
        if before.is_some_and(|before| before != index) {
            match self.attach(&name, self.desired.dataplane.xdp_mode) {
                Ok(_) => tracing::info!(interface = name, "interface came back; attached again"),
                Err(error) => {
                    self.stats.failures += 1;
                    tracing::error!(interface = name, reason = %error, "cannot attach again");
                }
            }
        }
    }

    /// Asks for new targets and destinations after a change of the configuration.
    fn want(&mut self) {
        let mut targets = BTreeMap::new();
        let mut tunnelled = BTreeSet::new();
        for pool in self.desired.pools.values() {
            let Some(check) = pool.health.as_ref().filter(|_| self.options.probes) else {
                continue;
            };
            let vip = check.via.vip();
            tunnelled.extend(vip);
            for backend in pool.backends.values() {
                let id = self.numbers.of_pool(&pool.name).get(&backend.name);
                let mark = id.filter(|_| vip.is_some()).map(|id| mark_of(BackendId(*id)));
                let target = Target {
                    backend: backend.address,
                    address: SocketAddr::new(vip.unwrap_or(backend.address), check.port),
                    mark,
                    source: vip.and_then(|vip| self.desired.node.outer_source(vip)),
                    interval: check.interval,
                    timeout: check.timeout,
                    thresholds: Thresholds { rise: check.rise, fall: check.fall },
                };
                targets.insert(BackendKey::new(&pool.name, &backend.name), target);
            }
        }
        self.wanted.targets = Some(targets);
        self.wanted.tunnelled = Some(tunnelled);
        self.want_destinations();
    }

    /// The same for destinations alone: retired backends need their way while their flows live.
    fn want_destinations(&mut self) {
        let destinations = self.numbers.backends.values().map(|record| record.address).collect();
        self.wanted.destinations = Some(destinations);
    }
}

/// What may be originated, as the announcer asks it.
fn roas(vrps: Arc<Vrps>) -> Roas {
    Arc::new(move |prefix, origin| vrps.validate(*prefix, origin).validity)
}

/// The numbers a data plane has room for.
fn room(dataplane: &Dataplane) -> Room {
    let sizes = dataplane.sizes();
    let largest = |count: u32, limit: u16| {
        u16::try_from(count.saturating_sub(1)).unwrap_or(u16::MAX).min(limit)
    };
    Room {
        pools: u16::try_from(lb_common::MAX_POOLS).unwrap_or(u16::MAX),
        backends: largest(sizes.backends, lb_common::MAX_BACKEND_ID),
        vips: largest(sizes.vips, u16::try_from(lb_common::MAX_VIPS - 1).unwrap_or(u16::MAX)),
    }
}

fn split_verdict((name, up): (&String, &bool)) -> Option<(BackendKey, bool)> {
    let (pool, backend) = name.split_once('/')?;
    Some((BackendKey::new(pool, backend), *up))
}

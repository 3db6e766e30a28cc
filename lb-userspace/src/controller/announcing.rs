//! What this load balancer announces: the facts for the announcer, and its decisions on their way
//! to the speaker.
//!
//! The controller knows what can be served: the program is attached, tables are in force, backends
//! are up, a packet through our own program comes out wrapped for one of them. [`Announcer`]
//! decides; the speaker's thread, which lives beside the controller's loop, tells the peers.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;

use super::{Controller, LinkState, Moment};

use crate::api::Failure;
use crate::api::requests::DrainChange;
use crate::api::types::{Outcome, PlanLine};
use crate::bgp::announce::{Announcement, Announcer, Facts, Order, Phase, Seen, VipFacts};
use crate::bgp::roa::Vrps;
use crate::bgp::roa_file::Watch;
use crate::bgp::session::{PeerReport, State};
use crate::bgp::speaker::SpeakerReport;
use crate::desired::bgp::Bgp;
use crate::desired::{BackendState, Pool, Vip, VipKey};
use crate::plan;

mod answers;

/// Every VIP is probed through our own program this often.
const PROBE_INTERVAL: Duration = Duration::from_secs(1);
/// A probe that fails is tried with so many flows, each in a slot of its own: one backend that
/// cannot be reached is not the whole path.
const PROBE_FLOWS: u16 = 8;

/// Announcing, while the configuration has BGP.
pub(super) struct Announcing {
    announcer: Announcer,
    /// The newest decision.
    announcement: Option<Announcement>,
    /// What the speaker last said.
    report: Arc<SpeakerReport>,
    /// What came out of our own program, for each VIP.
    probes: BTreeMap<VipKey, Result<(), String>>,
    probe_due: Duration,
    /// Chooses the flows of the next probe.
    turn: u16,
    /// The file of ROA payloads, if one is configured.
    payloads: Option<Watch>,
}

impl Controller {
    /// Begins to announce, goes on with another configuration, or ends.
    pub(super) fn adopt_bgp(&mut self, now: Moment) {
        // One that fills the data plane and goes announces nothing.
        let wanted = self.desired.bgp.as_ref().filter(|_| self.options.probes);
        match (&mut self.announcing, wanted) {
            // Also without BGP: it does not let all routes go because of a file.
            (Some(announcing), _) => announcing.announcer.configure(&self.desired, now.boot),
            // Without BGP in the file an earlier lbd's routes may be kept all the same.
            (None, wanted) if wanted.is_some() || self.announced.is_some() => {
                let announcer = Announcer::new(&self.desired, self.announced.take(), now.boot);
                self.announcing = Some(Announcing {
                    announcer,
                    announcement: None,
                    report: Arc::default(),
                    probes: BTreeMap::new(),
                    probe_due: now.boot,
                    turn: 0,
                    payloads: None,
                });
            }
            (None, _) => {}
        }
        if let Some(announcing) = &mut self.announcing {
            announcing.announcer.set_roas(self.roas.clone());
        }
        let names: BTreeSet<&str> =
            self.desired.vips.values().map(|vip| vip.name.as_str()).collect();
        self.drains.vips.retain(|name| names.contains(name.as_str()));
        self.wanted.speaker = true;
    }

    /// The speaker says something new.
    pub(super) fn on_speaker(&mut self, report: Arc<SpeakerReport>) {
        if let Some(announcing) = &mut self.announcing {
            announcing.report = report;
        }
    }

    /// Decides anew what is announced.
    pub(super) fn settle_bgp(&mut self, now: Moment) {
        let Some(mut announcing) = self.announcing.take() else { return };
        // One that leaves watches for packets that still come; its own are none of them.
        let is_staying = announcing.announcer.phase() == Phase::Running;
        if announcing.probe_due <= now.boot && is_staying {
            announcing.probe_due = now.boot + PROBE_INTERVAL;
            announcing.turn = announcing.turn.wrapping_add(PROBE_FLOWS);
            announcing.probes = self.probe_vips(announcing.turn);
        }
        let path = self.desired.bgp.as_ref().and_then(|bgp| bgp.vrp_file.as_deref());
        if let Some(vrps) = announcing.new_payloads(path, now.boot) {
            self.roas = Some(super::roas(Arc::new(vrps)));
            announcing.announcer.set_roas(self.roas.clone());
        }
        let facts = self.facts(&announcing);
        if let Some(announcement) = announcing.announcer.settle(&facts, now.boot) {
            announcing.announcement = Some(announcement);
            self.wanted.speaker = true;
        }
        // Also when only a guard has changed its mind.
        let saved = Some(announcing.announcer.saved());
        if self.announced != saved {
            self.announced = saved;
            self.outlet.journal_dirty = true;
        }
        let is_over = announcing.announcer.bgp().is_none();
        if is_over {
            self.announced = None;
        }
        self.announcing = Some(announcing).filter(|_| !is_over);
    }

    /// When something is due without an event.
    pub(super) fn bgp_deadline(&self) -> Option<Duration> {
        let announcing = self.announcing.as_ref()?;
        let is_staying = announcing.announcer.phase() == Phase::Running;
        let probe = Some(announcing.probe_due).filter(|_| is_staying);
        announcing.announcer.deadline().into_iter().chain(probe).min()
    }

    /// The newest decision, for the speaker.
    pub(super) fn announcement(&self) -> Option<(&Bgp, &Announcement)> {
        let announcing = self.announcing.as_ref()?;
        Some((announcing.announcer.bgp()?, announcing.announcement.as_ref()?))
    }

    fn facts(&self, announcing: &Announcing) -> Facts {
        let bgp = announcing.announcer.bgp();
        let peers = announcing.report.peers.iter();
        let monitors = peers.filter(|(name, _)| {
            bgp.and_then(|bgp| bgp.peers.get(*name)).is_some_and(|peer| peer.monitor)
        });
        let own: BTreeSet<IpAddr> = self.own_addresses(announcing);
        Facts {
            attached: self.attached(),
            tables: self.tables_in_force(),
            verdicts: self.first_verdicts(),
            vips: self.desired.vips.values().map(|vip| self.vip_facts(vip, announcing)).collect(),
            node_drained: self.drains.node,
            seen: seen(&self.own_prefixes(), &monitors.collect(), &own),
        }
    }

    /// What is ours to announce: the listed prefixes, and the VIPs' own.
    pub(super) fn own_prefixes(&self) -> BTreeSet<IpNet> {
        let announcing = self.announcing.as_ref();
        let bgp = self.desired.bgp.as_ref();
        let bgp = bgp.or_else(|| announcing.and_then(|it| it.announcer.bgp()));
        let listed = bgp.iter().flat_map(|bgp| bgp.prefixes.keys().copied());
        listed.chain(self.desired.vips.keys().map(|key| IpNet::from(key.address))).collect()
    }

    /// Where routes that we sent ourselves lead to.
    fn own_addresses(&self, announcing: &Announcing) -> BTreeSet<IpAddr> {
        let node = &self.desired.node;
        let node = node.address.map(IpAddr::V4).into_iter().chain(node.address6.map(IpAddr::V6));
        let sessions = announcing.report.peers.values();
        let sessions = sessions.filter_map(|peer| peer.addresses.map(|it| it.local));
        let sent = announcing.announcement.iter().flat_map(|it| it.routes.values());
        let sent = sent.flat_map(|rib| rib.values().filter_map(|route| route.next_hop));
        node.chain(sessions).chain(sent).collect()
    }

    fn attached(&self) -> Result<(), String> {
        let wanted = &self.desired.dataplane.interfaces;
        for name in wanted {
            let is_attached = self.ports.iter().any(|port| port.attached.interface == *name);
            if !is_attached {
                return Err(format!("the program is not attached to {name}"));
            }
        }
        let is_up = |name: &String| {
            !matches!(self.links.get(name), Some(LinkState::Down | LinkState::Gone))
        };
        if wanted.iter().any(is_up) {
            return Ok(());
        }
        Err(format!("no interface is up: {}", wanted.join(", ")))
    }

    fn tables_in_force(&self) -> Result<(), String> {
        // A pool whose backends are not known yet waits for them, not for its table.
        let pools = self.pools.iter().filter(|(_, pool)| !pool.leaving && pool.tracker.is_some());
        let mut missing = pools.filter(|(_, pool)| pool.published.is_none());
        match missing.next() {
            Some((name, _)) => Err(format!("pool {name} has no table in force yet")),
            None => Ok(()),
        }
    }

    fn first_verdicts(&self) -> Result<(), String> {
        let pools = self.pools.iter().filter(|(_, pool)| !pool.leaving);
        let mut waiting = pools.filter(|(_, pool)| pool.tracker.is_none());
        match waiting.next() {
            Some((name, _)) => Err(format!("pool {name} waits for the first health checks")),
            None => Ok(()),
        }
    }

    fn vip_facts(&self, vip: &Vip, announcing: &Announcing) -> VipFacts {
        let pool = self.desired.pools.get(&vip.pool);
        VipFacts {
            name: vip.name.clone(),
            key: vip.key,
            pool: vip.pool.clone(),
            up: pool.map_or(0, |pool| self.up_for_new_flows(pool)),
            min_up: pool.map_or(1, |pool| pool.min_up),
            min_up_return: pool.map_or(1, |pool| pool.min_up_return),
            probe: announcing.probes.get(&vip.key).cloned(),
            drained: self.drains.vips.contains(&vip.name),
        }
    }

    fn up_for_new_flows(&self, pool: &Pool) -> u32 {
        let takes_new = |name: &str| {
            let by_operator = self.overrides.get(&plan::full_name(&pool.name, name));
            let backend = pool.backends.get(name);
            backend.is_some_and(|backend| {
                let (state, weight) = plan::effective(backend, by_operator);
                state == BackendState::Up && weight > 0
            })
        };
        let names = pool.backends.keys();
        let up = names.filter(|name| self.verdict(pool, name) == Some(true) && takes_new(name));
        u32::try_from(up.count()).unwrap_or(u32::MAX)
    }

    fn probe_vips(&self, turn: u16) -> BTreeMap<VipKey, Result<(), String>> {
        let vips = self.desired.vips.values();
        vips.map(|vip| (vip.key, self.probe_vip(vip, turn))).collect()
    }

    /// A packet through our own program must come out wrapped for a backend of the VIP's pool.
    fn probe_vip(&self, vip: &Vip, turn: u16) -> Result<(), String> {
        let mut failed = String::new();
        for flow in 0..PROBE_FLOWS {
            match self.dataplane.probe_vip(&vip.key, turn.wrapping_add(flow)) {
                Ok(None) => return Ok(()),
                Ok(Some(address)) if self.is_backend_of(&vip.pool, address) => return Ok(()),
                Ok(Some(address)) => {
                    failed = format!("it went to {address}, no backend of the pool")
                }
                Err(error) => failed = error.to_string(),
            }
        }
        Err(failed)
    }

    fn is_backend_of(&self, pool: &str, address: IpAddr) -> bool {
        let mut records = self.numbers.backends.values();
        records.any(|record| record.pool == pool && record.address == address)
    }

    /// Withdraws a VIP's prefix or all, or takes that back.
    pub(super) fn drain(&mut self, change: &DrainChange, now: Moment) -> Result<Outcome, Failure> {
        if self.announcing.is_none() {
            return Err(Failure::refused(NO_BGP));
        }
        let (subject, command) = match &change.vip {
            None => ("node".to_owned(), "node".to_owned()),
            Some(name) => (format!("vip {name}"), format!("vip {name}")),
        };
        let changed = match &change.vip {
            None => std::mem::replace(&mut self.drains.node, change.drain) != change.drain,
            Some(name) => {
                let names = self.desired.vips.values().map(|vip| vip.name.as_str());
                let known: BTreeSet<&str> = names.collect();
                if !known.contains(name.as_str()) {
                    let known: Vec<&str> = known.into_iter().collect();
                    return Err(super::operator::unknown("VIP called", name, &known));
                }
                match change.drain {
                    true => self.drains.vips.insert(name.clone()),
                    false => self.drains.vips.remove(name),
                }
            }
        };
        let mut outcome = Outcome::applied();
        if changed {
            tracing::info!(subject, drain = change.drain, "announcements");
            let (text, undo) = match change.drain {
                true => ("drains: its routes go, lower preference first", "undrain"),
                false => ("is announced again as far as it can be served", "drain"),
            };
            outcome.changes.push(PlanLine::new('~', subject, text));
            let mut words = command.split(' ');
            let noun = words.next().unwrap_or_default();
            let name = words.next().map_or_else(String::new, |name| format!(" {name}"));
            outcome.undo = Some(format!("lbctl {noun} {undo}{name}"));
            self.outlet.journal_dirty = true;
            self.settle(now);
        }
        Ok(outcome)
    }

    /// Steers, sheds, or takes such back.
    pub(super) fn order_bgp(&mut self, order: Order, now: Moment) -> Result<Outcome, Failure> {
        let announcing = self.announcing.as_mut().ok_or_else(|| Failure::refused(NO_BGP))?;
        let done_so = announcing.announcer.order(order, now.boot).map_err(Failure::refused)?;
        tracing::info!(id = done_so.id, text = done_so.text, "announcements, by order");
        self.announced = Some(announcing.announcer.saved());
        self.outlet.journal_dirty = true;
        self.settle(now);
        let mut outcome = Outcome::applied();
        let subject = done_so.id.map_or_else(|| "bgp".to_owned(), |id| format!("steer {id}"));
        outcome.changes.push(PlanLine::new('~', subject, done_so.text));
        outcome.notes = done_so.warnings;
        outcome.undo = done_so.undo;
        Ok(outcome)
    }

    /// Leaves: lower preference, then withdrawn; or the routes stay, as the file says.
    pub(super) fn shut_down_bgp(&mut self, now: Moment) {
        if let Some(announcing) = &mut self.announcing {
            announcing.announcer.shut_down(now.boot);
        }
        self.settle_bgp(now);
    }

    /// How far leaving is.
    pub(super) fn bgp_phase(&self) -> Phase {
        self.announcing.as_ref().map_or(Phase::Running, |it| it.announcer.phase())
    }

    /// Whether lbd is about to end.
    pub(super) fn is_leaving(&self) -> bool {
        self.bgp_phase() != Phase::Running
    }

    /// What may be originated, read again.
    pub(super) fn take_roas(&mut self, vrps: Option<Arc<Vrps>>) {
        self.roas = vrps.map(super::roas);
        if let Some(announcing) = &mut self.announcing {
            announcing.announcer.set_roas(self.roas.clone());
            announcing.payloads = None;
        }
    }

    /// Whether every peer that is up has been told everything.
    pub(super) fn is_told(&self) -> bool {
        let peers = self.announcing.iter().flat_map(|it| it.report.peers.values());
        let mut up = peers.filter(|peer| peer.state == State::Established);
        up.all(|peer| peer.settled && peer.sent.is_empty())
    }

    /// Packets for VIPs so far.
    pub(super) fn packets_for_vips(&self) -> u64 {
        let counters = self.dataplane.vip_counters().unwrap_or_default();
        // Number 0 counts packets of no VIP.
        let vips = counters.iter().skip(1).flat_map(|vip| &vip.outcomes);
        vips.map(|count| count.packets).sum()
    }
}

impl Announcing {
    /// What is new in the file of ROA payloads; the turns of the probes are often enough for it.
    fn new_payloads(&mut self, path: Option<&Path>, now: Duration) -> Option<Vrps> {
        let path = path?;
        let watch = self.payloads.take().filter(|watch| watch.path() == path);
        let watch = watch.unwrap_or_else(|| Watch::new(path.to_owned(), now));
        self.payloads.insert(watch).turn(now)
    }
}

/// Why there is no answer about BGP.
const NO_BGP: &str = "BGP is not configured: there is no [bgp] in the configuration";

/// Who else announces our prefixes. A route of another load balancer has its own next hop; one
/// that leads to the monitor itself, or to us, proves nothing, since the peer may show us our own.
fn seen(
    prefixes: &BTreeSet<IpNet>,
    monitors: &BTreeMap<&String, &Arc<PeerReport>>,
    own: &BTreeSet<IpAddr>,
) -> BTreeMap<IpNet, Seen> {
    let all_answer = monitors.values().all(|peer| peer.state == State::Established);
    let of = |prefix: &IpNet| {
        for (name, peer) in monitors.iter().filter(|(_, it)| it.state == State::Established) {
            let hop = peer.received.get(prefix).and_then(|route| route.next_hop);
            let remote = peer.addresses.map(|addresses| addresses.remote);
            if hop.is_some_and(|hop| !own.contains(&hop) && Some(hop) != remote) {
                return Seen::Others { peer: (*name).clone() };
            }
        }
        if monitors.is_empty() || !all_answer { Seen::Unknown } else { Seen::Nobody }
    };
    prefixes.iter().map(|prefix| (*prefix, of(prefix))).collect()
}

//! The announcer: all prefixes, the orders that hold, and what each peer is to have of them.
//!
//! Pure; the only state of this room. The other files judge, this one remembers.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::check::{self, Check};
use super::facts::{Facts, Seen};
use super::gate::Index;
use super::guard::Breaker;
use super::order::{Done, Order, OrderReport, Steer};
use super::outbox::{Group, Outbox};
use super::policy::{Offer, View, Wanted, carries};
use super::report::{Announcement, Phase, RouteReport};
use super::scope;
use super::steer::{Book, words};
use super::track::{Context, Record, Standing, Track};
use super::{Roas, describe};
use crate::desired::bgp::Bgp;
use crate::desired::{Desired, OnShutdown, format_duration};

/// So long after the start, what fails may just not work yet, and is waited for. Longer than the
/// controller waits for first verdicts, and short against the restart time that peers give us.
pub const STARTING: Duration = Duration::from_secs(20);

/// What a restart must not forget. Only good until the next boot: its times are since boot.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Saved {
    bgp: Option<Bgp>,
    records: BTreeMap<IpNet, Record>,
    book: Book,
    breaker: Breaker,
}

/// Decides which routes each peer is to have.
pub struct Announcer {
    pub(super) bgp: Option<Bgp>,
    /// The configuration has BGP; else `bgp` is what it had, for prefixes that are kept.
    configured: bool,
    node: String,
    /// The prefixes of each VIP by its name.
    vips: BTreeMap<String, BTreeSet<IpNet>>,
    pub(super) tracks: BTreeMap<IpNet, Track>,
    pub(super) book: Book,
    pub(super) breaker: Breaker,
    pub(super) seen: BTreeMap<IpNet, Seen>,
    pub(super) roas: Option<Roas>,
    started: Duration,
    /// When it decided last.
    settled: Duration,
    shutdown: Option<Duration>,
    ready: bool,
    pub(super) outbox: Outbox,
    /// How each prefix was offered when its routes were made.
    offered: BTreeMap<IpNet, Offer>,
    /// Every route is to be made anew.
    stale: bool,
    /// The operator ordered something since the last decision.
    ordered: bool,
    /// The decisions that were told, and whether the last one was ready.
    told: u64,
    told_ready: Option<bool>,
}

impl Announcer {
    /// Starts with `desired`, and with what a predecessor [`saved`](Self::saved) since this boot.
    /// Nothing is ready before a [`settle`](Self::settle) that knows enough.
    ///
    /// With graceful restart the predecessor's routes are taken for still announced; without it
    /// they fell with its sessions, and only back-off and orders are remembered.
    #[must_use]
    pub fn new(desired: &Desired, saved: Option<Saved>, now: Duration) -> Self {
        let Saved { bgp, records, book, breaker } = saved.unwrap_or_default();
        let lives_on = bgp.as_ref().is_some_and(|bgp| bgp.graceful_restart.is_some());
        let records = records.into_iter().filter(|(_, record)| lives_on || !record.removed);
        let tracks = records.map(|(prefix, mut record)| {
            if !lives_on {
                record.standing = Standing::Undecided;
            }
            (prefix, Track::restored(prefix, record))
        });
        let mut announcer = Self {
            bgp,
            configured: true,
            node: String::new(),
            vips: BTreeMap::new(),
            tracks: tracks.collect(),
            book,
            breaker,
            seen: BTreeMap::new(),
            roas: None,
            started: now,
            settled: now,
            shutdown: None,
            ready: false,
            outbox: Outbox::default(),
            offered: BTreeMap::new(),
            stale: true,
            ordered: false,
            told: 0,
            told_ready: None,
        };
        announcer.configure(desired, now);
        announcer
    }

    /// The ROAs that routes are checked against; `None`: no check. Routes that are out stay.
    pub fn set_roas(&mut self, roas: Option<Roas>) {
        self.roas = roas;
    }

    /// The settings that hold, for the speaker: those of the configuration, or, if that has no BGP
    /// any more, those that the prefixes need that are kept; `None`: no BGP.
    #[must_use]
    pub const fn bgp(&self) -> Option<&Bgp> {
        self.bgp.as_ref()
    }

    /// Takes another configuration. Prefixes that it takes away are lowered, then withdrawn; one
    /// without any configured VIP left goes at once, since its packets are dropped already. One
    /// that takes away all that are announced, or more than `breaker_max`, takes none of them away
    /// until [`Order::ResumeBreaker`]; see [`alarms`](Self::alarms). To remove them without, drain
    /// the node first.
    pub fn configure(&mut self, desired: &Desired, now: Duration) {
        let wanted = scope::prefixes(desired);
        let out = self.tracks.values();
        let out = out.filter(|it| it.record.standing.is_out() && !it.record.released);
        let gone = out.clone().filter(|it| !wanted.contains_key(&it.prefix)).count();
        let guards = desired.bgp.as_ref().or(self.bgp.as_ref()).map(|bgp| &bgp.guards);
        let max = guards.map_or(0, |guards| guards.breaker_max);
        let kept = gone == out.count() || gone > usize::try_from(max).unwrap_or(usize::MAX);
        self.tracks.retain(|prefix, track| {
            let is_wanted = wanted.contains_key(prefix);
            if is_wanted {
                (track.record.removed, track.record.released) = (false, false);
            } else {
                track.remove(kept);
            }
            is_wanted || track.record.standing.is_out()
        });
        self.breaker.keep_only(|prefix| self.tracks.contains_key(prefix));
        self.vips = by_name(desired, &wanted);
        for (prefix, (settings, scope)) in wanted {
            let new = || Track::new(prefix, settings.clone(), now);
            let track = self.tracks.entry(prefix).or_insert_with(new);
            (track.record.settings, track.scope) = (settings, scope);
        }
        desired.node.name.clone_into(&mut self.node);
        self.configured = desired.bgp.is_some();
        if self.configured || self.tracks.is_empty() {
            self.bgp.clone_from(&desired.bgp);
        }
        self.stale = true;
    }

    /// Carries out an order.
    ///
    /// # Errors
    /// It is refused; one sentence says why, and nothing has changed.
    pub fn order(&mut self, order: Order, now: Duration) -> Result<Done, String> {
        let Some(bgp) = &self.bgp else { return Err("there is no [bgp] configured".to_owned()) };
        if self.book.expire(now) {
            (self.stale, self.ordered) = (true, true);
        }
        let done = match order {
            Order::Steer(steer) => self.steer(&steer, now)?,
            Order::Unsteer { id } if self.book.end(id) => {
                let text = format!("order {id} has ended");
                Done { id: None, text, undo: None, warnings: Vec::new() }
            }
            Order::Unsteer { id } => return Err(format!("no order {id} holds")),
            Order::Shed { level, lasts } => {
                let levels = bgp.shedding.len();
                if usize::try_from(level).map_or(true, |level| level > levels) {
                    return Err(format!("there is no level {level}: {levels} are configured"));
                }
                if level > 0 {
                    check::lasts(lasts)?;
                }
                let id = self.book.shed(level, lasts, now);
                let text = match level {
                    0 => "nothing is shed".to_owned(),
                    _ => format!("level {level} is shed for {}", format_duration(lasts)),
                };
                let undo = id.map(|id| format!("lbctl bgp unsteer {id}"));
                Done { id, text, undo, warnings: Vec::new() }
            }
            Order::ResumeBreaker => self.resume()?,
        };
        self.stale = true;
        self.ordered = true;
        Ok(done)
    }

    fn steer(&mut self, steer: &Steer, now: Duration) -> Result<Done, String> {
        let Some(view) = self.view() else { return Err("there is no [bgp] configured".to_owned()) };
        let check = Check { view, vips: &self.vips, roas: self.roas.as_ref() };
        let checked = check.steer(steer, now)?;
        self.book = checked.book;
        Ok(Done {
            id: Some(checked.id),
            text: words(steer, &checked.prefixes),
            undo: Some(format!("lbctl bgp unsteer {}", checked.id)),
            warnings: checked.warnings,
        })
    }

    fn resume(&mut self) -> Result<Done, String> {
        let tripped = self.breaker.is_tripped();
        let mut removed = 0;
        for track in self.tracks.values_mut().filter(|track| track.is_held()) {
            track.record.released = true;
            removed += 1;
        }
        let held = self.breaker.resume();
        if !tripped && removed == 0 {
            return Err("nothing is held: the breaker is closed".to_owned());
        }
        let text = format!("the breaker is closed; {} prefixes are let go", held + removed);
        Ok(Done { id: None, text, undo: None, warnings: Vec::new() })
    }

    /// Decides anew; `None` if every peer is to have what the last decision said.
    ///
    /// Call it when facts change, after [`order`](Self::order), [`configure`](Self::configure) and
    /// [`shut_down`](Self::shut_down), and at [`deadline`](Self::deadline).
    pub fn settle(&mut self, facts: &Facts, now: Duration) -> Option<Announcement> {
        if self.book.expire(now) {
            (self.stale, self.ordered) = (true, true);
        }
        self.seen.clone_from(&facts.seen);
        self.settled = now;
        self.step(facts, now);
        self.tracks.retain(|_, track| !track.record.removed || track.record.standing.is_out());
        if !self.configured && self.tracks.is_empty() {
            self.bgp = None;
        }
        self.ready |= self.tracks.values().all(|track| track.decided);
        let changed = self.make_routes(now);
        if !changed && self.told_ready == Some(self.ready) {
            return None;
        }
        self.told_ready = Some(self.ready);
        self.told += 1;
        let routes = self.outbox.ribs().clone();
        Some(Announcement { id: self.told, at: now, routes, ready: self.ready })
    }

    fn step(&mut self, facts: &Facts, now: Duration) {
        let Some(bgp) = &self.bgp else { return };
        let roas = |prefix: &IpNet| self.roas.as_ref().map(|roas| roas(prefix, bgp.local_as));
        let context = Context {
            index: Index::new(facts),
            guards: &bgp.guards,
            lower: bgp.lower.time,
            node: &self.node,
            now,
            shutdown: self.shutdown.is_some() && bgp.on_shutdown == OnShutdown::Withdraw,
            starting: now < self.started + STARTING,
            roas: &roas,
        };
        for (prefix, track) in &mut self.tracks {
            let seen = self.seen.get(prefix).unwrap_or(&Seen::Unknown);
            track.step(&context, &mut self.breaker, seen);
        }
    }

    /// Makes the routes of prefixes that may have others now.
    fn make_routes(&mut self, now: Duration) -> bool {
        let peers = self.bgp.iter().flat_map(|bgp| bgp.peers.keys().map(String::as_str));
        let mut changed = self.outbox.set_peers(&peers.collect());
        // What another prefix or the evidence does can stop a poison.
        let all = self.stale || self.book.poisons();
        let offer = |prefix: &IpNet| self.tracks.get(prefix).map_or(Offer::No, offer_of);
        let known = self.tracks.keys().chain(self.outbox.prefixes());
        let dirty = known.filter(|prefix| {
            let same = self.offered.get(*prefix) == Some(&offer(prefix));
            all || !same || self.outbox.is_waiting(prefix)
        });
        let dirty: BTreeSet<IpNet> = dirty.copied().collect();
        let view = self.view();
        let groups = dirty.into_iter().map(|prefix| {
            // Nor does a path stay poisoned that must not be.
            let at_once = self.ordered
                || self.offered.get(&prefix) != Some(&offer(&prefix))
                || self.book.poisons_any(&prefix);
            let group = view.as_ref().map_or_else(Group::new, |view| group(view, &prefix));
            (prefix, (group, at_once))
        });
        let groups: BTreeMap<IpNet, (Group, bool)> = groups.collect();
        let interval = self.bgp.as_ref().map_or(Duration::ZERO, |bgp| bgp.guards.interval);
        changed |= self.outbox.take(groups, interval, now);
        self.offered = self.tracks.iter().map(|(prefix, it)| (*prefix, offer_of(it))).collect();
        (self.stale, self.ordered) = (false, false);
        changed
    }

    pub(super) fn view(&self) -> Option<View<'_>> {
        let offers = self.tracks.values();
        let offers = offers.map(|it| (it.prefix, (offer_of(it), &it.record.settings))).collect();
        let bgp = self.bgp.as_ref()?;
        Some(View { bgp, offers, book: &self.book, seen: &self.seen })
    }

    /// When the next decision is due without any new fact, since boot.
    #[must_use]
    pub fn deadline(&self) -> Option<Duration> {
        let tracks = self.tracks.values();
        let undecided = tracks.clone().any(|track| !track.decided);
        let start = self.started + STARTING;
        let start = (undecided && self.settled < start).then_some(start);
        let others = [self.book.deadline(), self.outbox.deadline(), start];
        tracks.filter_map(|track| track.due).chain(others.into_iter().flatten()).min()
    }

    /// Every prefix to every peer that carries its family, with the reason for each attribute, as
    /// of the last decision.
    #[must_use]
    pub fn routes(&self) -> Vec<RouteReport> {
        describe::routes(self)
    }

    /// The orders that hold.
    #[must_use]
    pub fn orders(&self) -> Vec<OrderReport> {
        self.book.report()
    }

    /// What the operator must look at, one sentence each.
    #[must_use]
    pub fn alarms(&self) -> Vec<String> {
        describe::alarms(self)
    }

    /// What a successor needs to go on from here. Changes only when something is decided.
    #[must_use]
    pub fn saved(&self) -> Saved {
        let records = self.tracks.iter().map(|(prefix, it)| (*prefix, it.record.clone()));
        Saved {
            bgp: self.bgp.clone(),
            records: records.collect(),
            book: self.book.clone(),
            breaker: self.breaker.clone(),
        }
    }

    /// Leaves: routes are lowered, then withdrawn; or all stay, as `on_shutdown` says.
    pub fn shut_down(&mut self, now: Duration) {
        self.shutdown.get_or_insert(now);
    }

    /// How far [`shut_down`](Self::shut_down) is.
    #[must_use]
    pub fn phase(&self) -> Phase {
        let Some(ordered) = self.shutdown else { return Phase::Running };
        let Some(bgp) = &self.bgp else { return Phase::Withdrawn(ordered) };
        if bgp.on_shutdown == OnShutdown::Keep {
            return Phase::Kept;
        }
        let until = self.tracks.values().filter_map(|track| match track.record.standing {
            Standing::Lowering(until) => Some(until),
            Standing::Announced => Some(ordered + bgp.lower.time),
            Standing::Undecided | Standing::Withdrawn | Standing::Withheld => None,
        });
        let last = self.tracks.values().map(|track| track.record.since).max();
        match until.max() {
            Some(until) => Phase::Lowering(until),
            None => Phase::Withdrawn(last.map_or(ordered, |last| last.max(ordered))),
        }
    }
}

/// How a prefix that stands there may be announced.
fn offer_of(track: &Track) -> Offer {
    match track.record.standing {
        _ if !track.decided => Offer::No,
        Standing::Announced => Offer::Plain,
        Standing::Lowering(_) => Offer::Lowered,
        Standing::Undecided | Standing::Withdrawn | Standing::Withheld => Offer::No,
    }
}

/// The prefixes of each VIP by its name.
fn by_name(
    desired: &Desired,
    wanted: &BTreeMap<IpNet, (crate::desired::bgp::PrefixSettings, scope::Scope)>,
) -> BTreeMap<String, BTreeSet<IpNet>> {
    let mut names: BTreeMap<String, BTreeSet<IpNet>> = BTreeMap::new();
    for (prefix, (_, scope)) in wanted {
        for vip in scope.own.iter().filter_map(|key| desired.vips.get(key)) {
            names.entry(vip.name.clone()).or_default().insert(*prefix);
        }
    }
    names
}

/// The routes that a prefix leads to.
fn group(view: &View<'_>, prefix: &IpNet) -> Group {
    let mut group = Group::new();
    for peer in view.bgp.peers.values().filter(|peer| carries(peer, prefix)) {
        let Wanted::Route { attributes, more_specifics, .. } = view.wanted(prefix, peer) else {
            continue;
        };
        let (name, attributes): (Arc<str>, _) = (peer.name.as_str().into(), Arc::new(attributes));
        for net in std::iter::once(prefix).chain(more_specifics.keys()) {
            group.insert((Arc::clone(&name), *net), Arc::clone(&attributes));
        }
    }
    group
}

//! The pools' tables: who is in them, and the steps of their trackers.

use std::collections::BTreeMap;
use std::time::Duration;

use super::{Controller, Moment};
use crate::desired::{Health as Check, Pool};
use crate::health::{BackendKey, HealthEvent};
use crate::maglev::Member;
use crate::plan;
use crate::tracking::{Change, ChangeKind, PoolTracker, Purge, RestoreError, State};

/// A new pool waits at most this long for its backends' first verdicts; then those without one
/// count as down.
const FIRST_VERDICTS_MAX: Duration = Duration::from_secs(15);

/// What a pool's table looks like, kept from its last rendering.
#[derive(Clone, Debug, Default)]
pub(super) struct View {
    /// Slots by owner's id.
    pub(super) owned: BTreeMap<u16, u32>,
    pub(super) contested: u32,
    pub(super) all_down: bool,
}

/// A pool at work.
#[derive(Debug)]
pub(super) struct PoolState {
    pub(super) number: u16,
    /// None until the first verdicts are in.
    pub(super) tracker: Option<PoolTracker>,
    /// Until then the table waits for backends of which nothing is known yet: a new pool's first
    /// table, and a change that brings new backends. So it is one change, and none of them takes
    /// all flows only because its probes were the quickest.
    wait_until: Duration,
    /// The table that is in force.
    pub(super) published: Option<u64>,
    pub(super) view: View,
    /// An empty table stands in for the one that is waited for.
    pub(super) is_empty: bool,
    /// It is not configured any more, and goes when no VIP leads to it.
    pub(super) leaving: bool,
    /// Entries that go once the table is in force.
    pub(super) purges: Vec<Purge>,
    /// A change waits for `wait_until`.
    waits: bool,
    /// When there is something to do without an event.
    deadline: Option<Duration>,
}

impl PoolState {
    fn new(number: u16, wait_until: Duration) -> Self {
        Self {
            number,
            tracker: None,
            wait_until,
            published: None,
            view: View::default(),
            is_empty: false,
            leaving: false,
            purges: Vec::new(),
            waits: false,
            deadline: Some(wait_until),
        }
    }

    /// As it was before a restart. Its table is published again: the same bytes, which does no
    /// harm, and brings a change that was cut off to its end.
    pub(super) fn restored(number: u16, state: &State) -> Result<Self, RestoreError> {
        let tracker = PoolTracker::restore(state)?;
        let deadline = tracker.next_deadline();
        Ok(Self { tracker: Some(tracker), deadline, ..Self::new(number, Duration::ZERO) })
    }

    pub(super) const fn deadline(&self) -> Option<Duration> {
        self.deadline
    }

    pub(super) fn is_published(&self) -> bool {
        let revision = self.tracker.as_ref().map(PoolTracker::revision);
        revision.is_some() && self.published == revision
    }

    /// To be called after anything that may have moved the tracker's deadline.
    pub(super) fn rewind(&mut self) {
        let tracker = self.tracker.as_ref().and_then(PoolTracker::next_deadline);
        let waits = self.waits || (self.tracker.is_none() && !self.leaving);
        let wait = Some(self.wait_until).filter(|_| waits);
        self.deadline = tracker.into_iter().chain(wait).min();
    }
}

impl Controller {
    /// Fits the pools to a configuration that has just come into force.
    pub(super) fn adopt(&mut self, now: Moment) {
        let known: Vec<BackendKey> = self.verdicts.keys().cloned().collect();
        for key in known {
            let pool = self.desired.pools.get(&key.pool);
            if !pool.is_some_and(|pool| pool.backends.contains_key(&key.backend)) {
                self.verdicts.remove(&key);
            }
        }
        if !self.options.probes {
            self.numbers.backends.values_mut().for_each(|record| record.member = !record.retired);
        }
        // Numbers of pools that an earlier lbd had not taken away yet.
        for (name, number) in &self.numbers.pools {
            let new = || PoolState::new(*number, now.boot);
            self.pools.entry(name.clone()).or_insert_with(new);
        }
        for (name, pool) in &mut self.pools {
            pool.leaving = !self.desired.pools.contains_key(name);
            pool.rewind();
        }
        let names: Vec<String> = self.desired.pools.keys().cloned().collect();
        for name in names {
            self.adopt_pool(&name, now);
        }
        self.outlet.everything_dirty();
        self.want();
        self.adopt_bgp(now);
    }

    fn adopt_pool(&mut self, name: &str, now: Moment) {
        let Some(desired) = self.desired.pools.get(name) else { return };
        let settings = plan::tracking_settings(&self.desired, desired);
        let Some(pool) = self.pools.get_mut(name) else { return };
        let wait = desired.health.as_ref().map_or(Duration::ZERO, first_verdicts);
        pool.wait_until = now.boot + wait;
        let adjusted = pool.tracker.as_mut().and_then(|tracker| tracker.reconfigure(settings));
        self.note_changes(name, adjusted.as_slice());
        self.reconcile(name, now);
    }

    /// Brings a pool's tracker to the members and verdicts that hold now.
    pub(super) fn reconcile(&mut self, name: &str, now: Moment) {
        self.admit(name);
        let Some(desired) = self.desired.pools.get(name) else { return };
        let members = plan::members(desired, &self.numbers, &self.overrides);
        let verdicts = self.verdicts_of(desired);
        let is_known = verdicts.len() == desired.backends.len();
        let Some(pool) = self.pools.get_mut(name) else { return };
        let Some(tracker) = &mut pool.tracker else { return pool.rewind() };
        // While all that should take flows are yet unproven, the old table is better than none.
        let is_served = |members: &[Member]| members.iter().any(|member| member.weight > 0);
        let is_outage = !is_served(&members)
            && is_served(&plan::members_once_up(desired, &self.numbers, &self.overrides))
            && is_served(tracker.current().members());
        pool.waits = !is_known && now.boot < pool.wait_until;
        let mut changes = Vec::new();
        if !pool.waits && !is_outage {
            changes = tracker.propose(&members, now.boot);
        }
        for member in &members {
            match (verdicts.get(&member.id), tracker.current().is_dead(member.id)) {
                (Some(true), true) => changes.extend(tracker.backend_up(member.id, now.boot)),
                (Some(false), false) => {
                    let down = tracker.backend_down(member.id, now.boot);
                    changes.extend(down.changes);
                    pool.purges.push(down.purge);
                }
                _ => {}
            }
        }
        pool.rewind();
        self.note_changes(name, &changes);
    }

    /// Backends that are up become members; they stay it.
    fn admit(&mut self, name: &str) {
        let Some(desired) = self.desired.pools.get(name) else { return };
        let verdicts = self.verdicts_of(desired);
        for (id, up) in verdicts {
            if let Some(record) = self.numbers.backends.get_mut(&id).filter(|it| up && !it.member) {
                record.member = true;
                self.outlet.journal_dirty = true;
            }
        }
    }

    /// What is known of a pool's backends, by id: nobody is down who is not probed.
    pub(super) fn verdicts_of(&self, pool: &Pool) -> BTreeMap<u16, bool> {
        let ids = self.numbers.of_pool(&pool.name);
        let of_backend =
            |name: &String| Some((*ids.get(name.as_str())?, self.verdict(pool, name)?));
        pool.backends.keys().filter_map(of_backend).collect()
    }

    pub(super) fn verdict(&self, pool: &Pool, backend: &str) -> Option<bool> {
        if pool.health.is_none() || !self.options.probes {
            return Some(true);
        }
        self.verdicts.get(&BackendKey::new(&pool.name, backend)).copied()
    }

    /// Makes the tables of new pools whose backends are known, or have had their time.
    pub(super) fn start_pools(&mut self, now: Moment) {
        let waiting: Vec<String> = self
            .pools
            .iter()
            .filter(|(_, pool)| pool.tracker.is_none() && !pool.leaving)
            .map(|(name, _)| name.clone())
            .collect();
        for name in waiting {
            let Some(desired) = self.desired.pools.get(&name).cloned() else { continue };
            let verdicts = self.verdicts_of(&desired);
            let Some(pool) = self.pools.get_mut(&name) else { continue };
            if verdicts.len() < desired.backends.len() && now.boot < pool.wait_until {
                continue;
            }
            // The first table has all of them, so that those who are late move no slot twice.
            let ids: Vec<u16> = self.numbers.of_pool(&name).values().copied().collect();
            for id in &ids {
                if let Some(record) = self.numbers.backends.get_mut(id) {
                    record.member = true;
                }
            }
            let dead: Vec<u16> =
                ids.into_iter().filter(|id| verdicts.get(id) != Some(&true)).collect();
            let members = plan::members(&desired, &self.numbers, &self.overrides);
            let settings = plan::tracking_settings(&self.desired, &desired);
            let tracker = PoolTracker::new(desired.maglev_size, &members, &dead, settings);
            pool.tracker = Some(tracker);
            pool.rewind();
            self.outlet.vips_dirty = true;
            self.outlet.journal_dirty = true;
            let (backends, down) = (members.len(), dead.len());
            tracing::info!(pool = name, backends, down, slots = desired.maglev_size, "pool begins");
        }
    }

    /// Lets the trackers do what is due.
    pub(super) fn tick_pools(&mut self, now: Moment) {
        let due: Vec<String> = self
            .pools
            .iter()
            .filter(|(_, pool)| pool.deadline.is_some_and(|due| due <= now.boot))
            .map(|(name, _)| name.clone())
            .collect();
        for name in due {
            let Some(pool) = self.pools.get_mut(&name) else { continue };
            let Some(tracker) = &mut pool.tracker else { continue };
            let changes = tracker.tick(now.boot, None);
            let is_overdue = pool.waits && pool.wait_until <= now.boot;
            pool.rewind();
            self.note_changes(&name, &changes);
            if is_overdue {
                self.reconcile(&name, now);
            }
        }
    }

    /// A probed backend has come up or gone down.
    pub(super) fn on_verdict(&mut self, event: &HealthEvent, now: Moment) {
        let BackendKey { pool: name, backend } = &event.backend;
        let Some(desired) = self.desired.pools.get(name) else { return };
        // Unhealthy news of a backend that was removed meanwhile.
        if !desired.backends.contains_key(backend) || desired.health.is_none() {
            return;
        }
        let reason = event.reason.as_str();
        if event.up {
            tracing::info!(pool = name, backend, reason, "backend is up");
        } else {
            tracing::warn!(pool = name, backend, reason, "backend is down");
        }
        self.verdicts.insert(event.backend.clone(), event.up);
        self.outlet.journal_dirty = true;
        let id = self.numbers.of_pool(name).get(backend.as_str()).copied();
        let Some(id) = id else { return };
        let is_new = self.numbers.backends.get(&id).is_some_and(|record| !record.member);
        if is_new || self.pools.get(name).is_some_and(|pool| pool.waits) {
            self.reconcile(name, now);
        }
        if is_new {
            return;
        }
        let Some(pool) = self.pools.get_mut(name) else { return };
        let Some(tracker) = &mut pool.tracker else { return };
        let changes = if event.up {
            tracker.backend_up(id, now.boot)
        } else {
            let down = tracker.backend_down(id, now.boot);
            pool.purges.push(down.purge);
            down.changes
        };
        pool.rewind();
        self.note_changes(name, &changes);
    }

    /// Logs and counts what a tracker did.
    pub(super) fn note_changes(&mut self, pool: &str, changes: &[Change]) {
        for change in changes {
            let Change { kind, slots, forced } = *change;
            match kind {
                ChangeKind::Released | ChangeKind::HistoryExpired | ChangeKind::Adjusted => {
                    tracing::debug!(pool, ?kind, slots, "table changes");
                }
                ChangeKind::Activated | ChangeKind::Down | ChangeKind::Up => {
                    self.stats.slots_moved += u64::from(slots);
                    tracing::info!(pool, ?kind, slots, forced, "table changes");
                }
                ChangeKind::Prepared
                | ChangeKind::Cancelled
                | ChangeKind::WindowsClosed
                | ChangeKind::Forgotten => tracing::info!(pool, ?kind, slots, "table changes"),
            }
            self.stats.slots_forced += u64::from(forced);
        }
    }
}

/// How long it takes at most until the probes have said something of every backend.
fn first_verdicts(check: &Check) -> Duration {
    let probes = check.rise.max(check.fall);
    (check.interval.saturating_mul(probes) + check.timeout).min(FIRST_VERDICTS_MAX)
}

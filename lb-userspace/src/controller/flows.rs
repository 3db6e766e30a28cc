//! Walks over the flow table: which contested slots may turn stateless, which ids are free again,
//! and how many flows each backend has.

use std::collections::BTreeMap;
use std::time::Duration;

use lb_common::MAX_BACKEND_ID;
use lb_common::flow::State;
use lb_common::table::slot_of;

use super::{Controller, Moment};
use crate::api::types::FlowStatus;
use crate::dataplane::{Dataplane, FlowRecord};
use crate::tracking::{PoolTracker, Purge, Scan};

/// Slots that wait are looked after this often: a walk over eight million entries takes 30 ms.
const SCAN_INTERVAL: Duration = Duration::from_secs(2);
/// Ids of removed backends are looked after this often; nobody waits for them.
const RETIRE_INTERVAL: Duration = Duration::from_secs(20);
/// Answers may be this old.
const CENSUS_AGE_MAX: Duration = Duration::from_secs(1);

/// Notes a flow of a pool in the pool's scan.
pub fn note(scan: &mut Scan, flow: &FlowRecord, slots: u32) {
    // Also one that closes: it still has packets on their way.
    scan.note(slot_of(flow.tag, slots), flow.owner.0, flow.state.is_confirmed());
}

/// Removes the flows that have to go, once a pool's table is in force: those that `purges` take,
/// and with `released` those of all dead backends whose flows are released; how many.
pub fn purge(
    dataplane: &Dataplane,
    tracker: &PoolTracker,
    purges: &[Purge],
    released: bool,
) -> usize {
    let released = released && tracker.current().dead().any(|id| tracker.is_released(id));
    if purges.is_empty() && !released {
        return 0;
    }
    dataplane.remove_flows(|flow| {
        let (slot, owner) = (slot_of(flow.tag, tracker.slots()), flow.owner.0);
        let confirmed = flow.state.is_confirmed();
        purges.iter().any(|purge| purge.takes(slot, owner, confirmed))
            || (released && tracker.is_released(owner))
    })
}

/// What the last walk counted.
#[derive(Debug, Default)]
pub(super) struct Census {
    at: Option<Duration>,
    retired_at: Duration,
    by_owner: Vec<u32>,
    /// Unconfirmed, confirmed, closing.
    states: [u64; 3],
}

impl Census {
    pub(super) fn flows_of(&self, id: u16) -> u32 {
        self.by_owner.get(usize::from(id)).copied().unwrap_or(0)
    }
}

impl Controller {
    pub(super) fn scan_if_due(&mut self, now: Moment) {
        let age = self.census.at.map(|at| now.boot.saturating_sub(at));
        let is_due = age.is_none_or(|age| age >= SCAN_INTERVAL);
        let retires = self.retires(now);
        let waits = self.pools.values().any(|pool| {
            pool.is_published() && pool.tracker.as_ref().is_some_and(PoolTracker::needs_scan)
        });
        if is_due && (waits || retires) {
            self.scan(now);
            self.commit(now);
        }
    }

    fn retires(&self, now: Moment) -> bool {
        let is_due = now.boot >= self.census.retired_at + RETIRE_INTERVAL;
        is_due && self.numbers.backends.values().any(|record| record.retired)
    }

    /// The numbers of the flow table, at most a second old.
    pub(super) fn flow_status(&mut self, now: Moment) -> FlowStatus {
        if self.census.at.is_none_or(|at| now.boot.saturating_sub(at) > CENSUS_AGE_MAX) {
            self.scan(now);
            self.commit(now);
        }
        let [unconfirmed, confirmed, closing] = self.census.states;
        let capacity = u64::from(self.desired.dataplane.flow_table_size);
        FlowStatus { capacity, unconfirmed, confirmed, closing }
    }

    /// One walk for all who wait for one.
    pub(super) fn scan(&mut self, now: Moment) {
        let retires = self.retires(now);
        self.dataplane.enter_records();
        let mut scans = self.begin_scans(retires);
        self.walk(&mut scans, now);
        self.stats.flow_scans += 1;
        if retires {
            self.census.retired_at = now.boot;
            self.release_ids(&scans);
        }
        for (name, scan) in scans {
            let Some(pool) = self.pools.get_mut(&name) else { continue };
            let Some(tracker) = &mut pool.tracker else { continue };
            let changes = tracker.tick(now.boot, Some(&scan));
            pool.rewind();
            self.note_changes(&name, &changes);
        }
    }

    /// The scans of those pools that need one; only under a table that is in force.
    fn begin_scans(&self, retires: bool) -> BTreeMap<String, Scan> {
        let backends = self.numbers.backends.values();
        let retiring = |name: &str| backends.clone().any(|it| it.retired && it.pool == name);
        let pools = self.pools.iter().filter(|(_, pool)| pool.is_published());
        pools
            .filter_map(|(name, pool)| {
                let tracker = pool.tracker.as_ref()?;
                let is_needed = tracker.needs_scan() || (retires && retiring(name));
                is_needed.then(|| (name.clone(), tracker.begin_scan()))
            })
            .collect()
    }

    fn walk(&mut self, scans: &mut BTreeMap<String, Scan>, now: Moment) {
        let mut by_owner = vec![0_u32; usize::from(MAX_BACKEND_ID) + 1];
        let mut states = [0_u64; 3];
        // Which scan an owner's flows belong to, and the slots of its table.
        let mut of_owner: Vec<Option<(usize, u32)>> = vec![None; by_owner.len()];
        for (id, record) in &self.numbers.backends {
            let index = scans.keys().position(|name| *name == record.pool);
            let tracker = self.pools.get(&record.pool).and_then(|pool| pool.tracker.as_ref());
            if let (Some(index), Some(tracker), Some(place)) =
                (index, tracker, of_owner.get_mut(usize::from(*id)))
            {
                *place = Some((index, tracker.slots()));
            }
        }
        let mut open: Vec<&mut Scan> = scans.values_mut().collect();
        for flow in self.dataplane.flows() {
            let owner = usize::from(flow.owner.0);
            let state = match flow.state {
                State::Unconfirmed => 0,
                State::Confirmed => 1,
                State::Ended | State::Closing => 2,
            };
            states[state] += 1;
            if let Some(count) = by_owner.get_mut(owner) {
                *count += 1;
            }
            let Some(Some((index, slots))) = of_owner.get(owner) else { continue };
            if let Some(scan) = open.get_mut(*index) {
                note(scan, &flow, *slots);
            }
        }
        self.census = Census { at: Some(now.boot), by_owner, states, ..self.census };
    }

    /// Frees the ids of removed backends that nothing refers to any more.
    fn release_ids(&mut self, scans: &BTreeMap<String, Scan>) {
        let mut kept = std::collections::BTreeSet::new();
        for (name, pool) in &self.pools {
            match (&pool.tracker, scans.get(name)) {
                (Some(tracker), Some(scan)) => kept.extend(tracker.owners_in_use(scan)),
                // Its table or its flows are not known now.
                _ => kept.extend(
                    self.numbers
                        .backends
                        .iter()
                        .filter_map(|(id, record)| (record.pool == *name).then_some(*id)),
                ),
            }
        }
        let free: Vec<u16> = self
            .numbers
            .backends
            .iter()
            .filter(|(id, record)| {
                record.retired && !kept.contains(id) && self.census.flows_of(**id) == 0
            })
            .map(|(id, _)| *id)
            .collect();
        for id in free {
            if let Some(record) = self.numbers.backends.get(&id) {
                let (pool, backend) = (&record.pool, &record.name);
                tracing::info!(pool, backend, "the last flow of a removed backend has ended");
            }
            self.numbers.release(id);
            self.outlet.journal_dirty = true;
            self.outlet.backends_dirty = true;
            self.want_destinations();
        }
    }
}

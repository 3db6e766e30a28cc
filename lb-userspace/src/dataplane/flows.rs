//! The flow table from user space: plain memory reads, 8 bytes an entry.

use std::sync::atomic::{AtomicU64, Ordering};

use lb_common::backend::BackendId;
use lb_common::flow::{self, Bucket, Entry, State, WAYS};

use super::memory::Region;

/// A live flow.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FlowRecord {
    /// Upper half of its hash; [`lb_common::table::slot_of`] makes its slot of it.
    pub tag: u32,
    /// The backend it belongs to.
    pub owner: BackendId,
    /// What is known of it.
    pub state: State,
    /// Ticks until it is forgotten.
    pub remaining_ticks: u16,
}

/// A bucket in mapped or plain memory.
pub(super) struct HostBucket<'a>(pub(super) &'a [AtomicU64; WAYS]);

impl Bucket for HostBucket<'_> {
    fn load(&self, way: usize) -> Entry {
        Entry(self.0.get(way).map_or(0, |entry| entry.load(Ordering::Acquire)))
    }

    fn exchange(&self, way: usize, old: Entry, new: Entry) -> bool {
        self.0.get(way).is_some_and(|entry| {
            entry.compare_exchange(old.0, new.0, Ordering::AcqRel, Ordering::Acquire).is_ok()
        })
    }
}

/// All live flows.
pub(super) fn scan(
    flows: &Region<[AtomicU64; WAYS]>,
    now: u16,
) -> impl Iterator<Item = FlowRecord> + '_ {
    let buckets = (0..flows.count()).filter_map(|index| flows.get(index));
    buckets.flatten().filter_map(move |entry| record(Entry(entry.load(Ordering::Relaxed)), now))
}

/// A live entry in words.
fn record(entry: Entry, now: u16) -> Option<FlowRecord> {
    let remaining_ticks = entry.remaining(now);
    (entry.0 != 0 && remaining_ticks != 0).then(|| FlowRecord {
        tag: entry.tag(),
        owner: entry.owner(),
        state: entry.state(),
        remaining_ticks,
    })
}

/// Empties entries past their deadline; how many.
///
/// A lookup asks a flow's other bucket only when its own has no empty entry, so a full bucket is
/// left full while a live flow may lie in the other bucket because of it. Which flows those are an
/// entry does not say; any live flow whose other bucket it is counts.
pub(super) fn age(flows: &Region<[AtomicU64; WAYS]>, now: u16) -> usize {
    let mask = u32::try_from(flows.count().saturating_sub(1)).unwrap_or(u32::MAX);
    let mut wanted = vec![false; flows.count()];
    for index in 0..flows.count() {
        let Some(bucket) = flows.get(index) else { continue };
        for entry in bucket {
            let entry = Entry(entry.load(Ordering::Relaxed));
            if entry.0 != 0 && entry.remaining(now) != 0 {
                let here = u32::try_from(index).unwrap_or_default();
                let other = flow::alternate(here, entry.tag(), mask) as usize;
                if let Some(wanted) = wanted.get_mut(other) {
                    *wanted = true;
                }
            }
        }
    }
    let mut emptied = 0;
    for (index, wanted) in wanted.into_iter().enumerate() {
        let Some(bucket) = flows.get(index) else { continue };
        let full = bucket.iter().all(|entry| entry.load(Ordering::Relaxed) != 0);
        if !(full && wanted) {
            emptied += empty(bucket, |entry| entry.remaining(now) == 0);
        }
    }
    emptied
}

/// Forgets live flows; how many.
pub(super) fn remove(
    flows: &Region<[AtomicU64; WAYS]>,
    now: u16,
    goes: impl Fn(&FlowRecord) -> bool,
) -> usize {
    let buckets = (0..flows.count()).filter_map(|index| flows.get(index));
    // Not emptied but put past its deadline: see `age`.
    let past = |entry: Entry| entry.touched(entry.state(), now);
    buckets
        .flatten()
        .filter(|place| {
            let entry = Entry(place.load(Ordering::Acquire));
            record(entry, now).is_some_and(|flow| goes(&flow))
                && place
                    .compare_exchange(entry.0, past(entry).0, Ordering::AcqRel, Ordering::Acquire)
                    .is_ok()
        })
        .count()
}

fn empty(bucket: &[AtomicU64; WAYS], goes: impl Fn(Entry) -> bool) -> usize {
    bucket
        .iter()
        .filter(|place| {
            let entry = Entry(place.load(Ordering::Acquire));
            entry.0 != 0
                && goes(entry)
                && place.compare_exchange(entry.0, 0, Ordering::AcqRel, Ordering::Acquire).is_ok()
        })
        .count()
}

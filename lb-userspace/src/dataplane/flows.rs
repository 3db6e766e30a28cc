//! The flow table from user space: plain memory reads, 8 bytes an entry.

use std::collections::BTreeSet;
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
    (!entry.is_empty() && remaining_ticks != 0).then(|| FlowRecord {
        tag: entry.tag(),
        owner: entry.owner(),
        state: entry.state(),
        remaining_ticks,
    })
}

/// Empties entries past their deadline, and takes the mark off buckets from which no live flow can
/// have gone to its other bucket; how many were emptied.
///
/// Which bucket a flow comes from an entry does not say: either of its two. A mark goes when no
/// live flow has that bucket as its other one. A flow that goes there meanwhile finds this bucket
/// without a free place, and an entry made during this pass outlives it (only we empty entries,
/// and by the time at which the pass began): a bucket with a free place before and after the pass
/// had one all the time.
pub(super) fn age(flows: &Region<[AtomicU64; WAYS]>, now: u16) -> usize {
    let mask = u32::try_from(flows.count().saturating_sub(1)).unwrap_or(u32::MAX);
    let mut emptied = 0;
    let mut marked = BTreeSet::new();
    for index in 0..flows.count() {
        let Some(bucket) = flows.get(index) else { continue };
        emptied += empty_past(bucket, now);
        let bucket = HostBucket(bucket);
        if bucket.load(0).overflowed() && flow::room(&bucket, 0, now, flow::SPARE_NONE).is_free() {
            marked.insert(u32::try_from(index).unwrap_or_default());
        }
    }
    if marked.is_empty() {
        return emptied;
    }
    for index in 0..flows.count() {
        let here = u32::try_from(index).unwrap_or_default();
        for entry in flows.get(index).into_iter().flatten() {
            let entry = Entry(entry.load(Ordering::Acquire));
            if !entry.is_empty() {
                marked.remove(&flow::alternate(here, entry.tag(), mask));
            }
        }
    }
    for bucket in marked.into_iter().filter_map(|index| flows.get(index as usize)) {
        let bucket = HostBucket(bucket);
        let first = bucket.load(0);
        if flow::room(&bucket, 0, now, flow::SPARE_NONE).is_free() {
            // Lost to a packet: the next pass does it.
            let _lost = bucket.exchange(0, first, first.replacing(Entry(0)));
        }
    }
    emptied
}

/// Empties what is past its deadline; marks stay.
fn empty_past(bucket: &[AtomicU64; WAYS], now: u16) -> usize {
    bucket
        .iter()
        .filter(|place| {
            let entry = Entry(place.load(Ordering::Acquire));
            let empty = Entry(0).replacing(entry);
            !entry.is_empty()
                && entry.remaining(now) == 0
                && place
                    .compare_exchange(entry.0, empty.0, Ordering::AcqRel, Ordering::Acquire)
                    .is_ok()
        })
        .count()
}

/// Empties the live entries that `goes` names; how many.
pub(super) fn remove(
    flows: &Region<[AtomicU64; WAYS]>,
    now: u16,
    goes: impl Fn(&FlowRecord) -> bool,
) -> usize {
    let buckets = (0..flows.count()).filter_map(|index| flows.get(index));
    buckets
        .flatten()
        .filter(|place| {
            let entry = Entry(place.load(Ordering::Acquire));
            let empty = Entry(0).replacing(entry);
            record(entry, now).is_some_and(|flow| goes(&flow))
                && place
                    .compare_exchange(entry.0, empty.0, Ordering::AcqRel, Ordering::Acquire)
                    .is_ok()
        })
        .count()
}

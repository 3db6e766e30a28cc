//! Records of always tracked flows that wait for the flow table, entered from user space.
//!
//! A program enters a CPU's records once [`lb_common::record::WAITING`] of them wait. A CPU without
//! packets would keep its last ones; so once a second, before a table changes, and before a walk
//! over the flow table they are entered from here.

use std::sync::atomic::{AtomicU64, Ordering};

use lb_common::record::{EVENTS, EVENTS_MAX, Record, WAITING, WORDS, Waiting, hash_word};
use lb_common::tables::Tables as _;
use lb_common::verdict::{FlowCounters, FlowEvent};

use super::Dataplane;
use super::host_tables::HostTables;

/// One CPU's records in mapped or plain memory.
struct HostWaiting<'a>(&'a [AtomicU64; WORDS]);

impl Waiting for HostWaiting<'_> {
    fn load(&self, index: usize) -> u64 {
        self.0.get(index).map_or(0, |word| word.load(Ordering::Acquire))
    }

    fn store(&self, index: usize, word: u64) {
        if let Some(place) = self.0.get(index) {
            place.store(word, Ordering::Release);
        }
    }
}

impl HostWaiting<'_> {
    /// Takes a record that was read away, unless its CPU has written another one there.
    fn take(&self, place: usize, record: Record) {
        if let Some(word) = self.0.get(hash_word(place) + 1) {
            let (_, seen) = record.words();
            let _newer = word.compare_exchange(seen, 0, Ordering::AcqRel, Ordering::Acquire);
        }
    }
}

impl Dataplane {
    /// Enters all records that wait.
    pub fn enter_records(&self) {
        let tables = self.tables(0);
        for cpu in 0..self.memory.records.count() {
            let Some(words) = self.memory.records.get(cpu) else { continue };
            let waiting = HostWaiting(words);
            for place in 0..waiting.count() {
                let record = waiting.record(place);
                if !record.is_void() {
                    tables.enter(record);
                    waiting.take(place, record);
                }
            }
        }
    }

    /// Counts an event of a record that we entered: the programs' counters are not ours to write.
    pub(super) fn count_event(&self, event: FlowEvent) {
        let first = self.memory.records.get(0);
        if let Some(count) = first.and_then(|words| words.get(EVENTS + event as usize)) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Adds what [`Dataplane::count_event`] counted.
    pub(super) fn add_events(&self, counters: &mut FlowCounters) {
        let Some(words) = self.memory.records.get(0) else { return };
        for (sum, word) in
            counters.events.iter_mut().zip(words.iter().skip(EVENTS).take(EVENTS_MAX))
        {
            *sum += word.load(Ordering::Relaxed);
        }
    }

    /// What a program does with a record. Only plain memory has a CPU of its own.
    pub(super) fn record(&self, tables: &HostTables<'_>, record: Record) {
        let own = self.memory.records.get(0).filter(|_| self.kernel.is_none());
        let Some(waiting) = own.map(HostWaiting) else { return tables.enter(record) };
        if waiting.push(record) {
            (0..WAITING).for_each(|place| tables.enter(waiting.record(place)));
        }
    }
}

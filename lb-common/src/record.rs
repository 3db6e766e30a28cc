//! What an always tracked flow leaves for the flow table while its slot is not contested.
//!
//! There every live flow's owner is the slot's backend, so a packet needs no answer from the flow
//! table, only to be remembered. The flow's bucket is most often not in the CPU's cache, and
//! waiting for it costs more than all the rest. So packets leave records, and each sixteenth packet
//! enters sixteen of them: their cache lines come at the same time.
//! ARCHITECTURE.md, "Records", says why no flow is lost by that.

use crate::MAX_POOLS;
use crate::backend::BackendId;
use crate::control::Control;
use crate::decide::Question;
use crate::parse::Segment;
use crate::table::{SLOTS_PER_HISTORY_ROW, Slot, slot_of};
use crate::tables::Tables;
use crate::{SLOTS_PER_ROW, flow};

/// Records that wait on one CPU; a power of two. As many loads as a CPU has on their way at once.
pub const WAITING: usize = 16;

/// One packet of a flow, 16 bytes; all zero is none.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[repr(C)]
pub struct Record {
    /// The flow hash.
    pub hash: u64,
    /// Bits 0..15 the owner, 16..24 the pool, 24..38 the idle timeout of UDP in ticks, 38..40 the
    /// segment, 40..64 a check of the hash: user space may read a record while it is written.
    word: u64,
}

/// CPUs that have room for records; others enter each packet at once.
pub const MAX_CPUS: u32 = 512;

/// Words of one CPU's element of [`crate::map_name::RECORDS`], five cache lines: how many records
/// wait, [`EVENTS`], then the records.
pub const WORDS: usize = 8 + 2 * WAITING;

/// The first of the words in which user space counts each [`crate::verdict::FlowEvent`] of the
/// records that it enters; in the first element only.
pub const EVENTS: usize = 1;
/// How many words.
pub const EVENTS_MAX: usize = 7;
const _: () = assert!(crate::verdict::FlowEvent::ALL.len() <= EVENTS_MAX);

/// The word in which a record's hash is, at a place below [`WAITING`]; its other word follows.
#[inline(always)]
#[must_use]
pub const fn hash_word(place: usize) -> usize {
    WORDS - 2 * WAITING + 2 * place
}

/// One CPU's element.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub struct Element(pub [u64; WORDS]);

/// One CPU's records. That CPU's program alone adds some, and user space takes some away: so each
/// word is read and written whole.
pub trait Waiting {
    /// A word now; `index` < [`WORDS`].
    fn load(&self, index: usize) -> u64;
    /// Writes a word.
    fn store(&self, index: usize, word: u64);

    /// How many wait.
    #[inline(always)]
    fn count(&self) -> usize {
        self.load(0) as usize & (WAITING - 1)
    }

    /// The record at a place below [`WAITING`].
    #[inline(always)]
    fn record(&self, place: usize) -> Record {
        let at = hash_word(place);
        Record { hash: self.load(at), word: self.load(at + 1) }
    }

    /// Leaves a record. True when all that there is room for wait: now they are the caller's, to be
    /// entered before it leaves another.
    #[inline(always)]
    fn push(&self, record: Record) -> bool {
        let place = self.count();
        let at = hash_word(place);
        self.store(at, record.hash);
        self.store(at + 1, record.word);
        let count = (place + 1) & (WAITING - 1);
        self.store(0, count as u64);
        count == 0
    }
}

impl Record {
    /// Of a packet that went to `owner`. `pool` < [`MAX_POOLS`]; `udp_idle` in ticks, at most
    /// [`flow::DEADLINE`]. [`Segment::Quoted`] leaves nothing in the flow table: no record.
    #[inline(always)]
    #[must_use]
    pub const fn new(
        hash: u64,
        owner: BackendId,
        pool: u16,
        udp_idle: u16,
        segment: Segment,
    ) -> Self {
        let word = (owner.0 & 0x7fff) as u64
            | (pool as u64 & 0xff) << 16
            | ((udp_idle & flow::DEADLINE) as u64) << 24
            | (segment as u64 & 3) << 38
            | check(hash) << 40;
        Self { hash, word }
    }

    /// The two words, and back: how the kernel hands a record to a function.
    #[inline(always)]
    #[must_use]
    pub const fn words(self) -> (u64, u64) {
        (self.hash, self.word)
    }

    /// Nothing to enter, or a part of it is another record's.
    #[inline(always)]
    #[must_use]
    pub const fn is_void(self) -> bool {
        self.word & 0x7fff == 0 || self.word >> 40 != check(self.hash)
    }

    /// The inverse of [`Record::words`].
    #[inline(always)]
    #[must_use]
    pub const fn from_words(hash: u64, word: u64) -> Self {
        Self { hash, word }
    }

    /// What the flow table is to be asked, and so told. `None` when there is nothing to tell: no
    /// record, a torn one, or one whose owner is neither its slot's backend now nor its base.
    #[inline(always)]
    pub fn question<T: Tables>(self, tables: &T, control: &Control) -> Option<Question> {
        if self.is_void() {
            return None;
        }
        let owner = BackendId(self.word as u16 & 0x7fff);
        let pool = &control.pools[(self.word >> 16) as usize & (MAX_POOLS - 1)];
        let table = &pool.tables[(pool.live & 1) as usize];
        let slot = slot_of((self.hash >> 32) as u32, table.slots);
        let row = tables.slots(table.first_row + slot / SLOTS_PER_ROW)?;
        let entry = row[(slot % SLOTS_PER_ROW) as usize];
        if entry.backend().0 != owner.0 {
            // A death is not prepared. A handshake with the dead one shall begin anew.
            let first = table.first_row * (SLOTS_PER_ROW / SLOTS_PER_HISTORY_ROW);
            let row = tables.history(first + slot / SLOTS_PER_HISTORY_ROW)?;
            let base = row[(slot % SLOTS_PER_HISTORY_ROW) as usize].base;
            if base.0 != owner.0 || (self.word >> 38) & 3 == Segment::Open as u64 {
                return None;
            }
        }
        let slot = Slot::new(owner, true);
        let udp_idle = (self.word >> 24) as u16 & flow::DEADLINE;
        let segment = match (self.word >> 38) & 3 {
            0 => Segment::Open,
            1 => Segment::Later,
            2 => Segment::End,
            _ => Segment::Datagram,
        };
        Some(Question { hash: self.hash, slot, base: BackendId(0), udp_idle, segment })
    }
}

/// 24 bits that a record of another flow has by chance once in 16 million.
#[inline(always)]
const fn check(hash: u64) -> u64 {
    (hash ^ hash >> 24 ^ hash >> 48) & 0xff_ffff
}

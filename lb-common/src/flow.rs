//! The flow table: buckets of eight 8-byte entries, one cache line each, changed only by
//! compare-and-exchange, so that two CPUs and user space never lose each other's work.
//!
//! An entry is: bits 32..64 the tag (upper half of the flow hash), 17..32 the owner, 15..17 the
//! state, 0..15 the deadline in ticks. Owner 0 does not exist, so 0 is an empty entry. Together
//! with its bucket an entry gives 32 + log2(buckets) bits of the flow hash, and its slot in any
//! table, which is all that a scan from user space needs.
//!
//! A flow lives in the bucket of its hash or, when that is full of flows that may not be pushed
//! out, in one other. The other is only read when the first has no empty entry; whoever empties
//! entries of full buckets must mind that (see [`alternate`]).

use crate::backend::BackendId;

/// Entries in a bucket.
pub const WAYS: usize = 8;

/// How often an insertion starts anew when another CPU changed the entry it had chosen. Each
/// loss means that somebody else succeeded; after this the packet goes on without an entry.
pub const ATTEMPTS: usize = 3;

/// What is known of a flow.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum State {
    /// One packet was seen: may be pushed out, holds no slot.
    Unconfirmed = 0,
    /// A second packet was seen.
    Confirmed = 1,
    /// FIN or RST was seen: a SYN may open it anew.
    Closing = 2,
}

/// One entry; see the module for its bits.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[repr(transparent)]
pub struct Entry(pub u64);

impl Entry {
    /// From its parts; `deadline` from [`deadline`].
    #[inline(always)]
    #[must_use]
    pub const fn new(tag: u32, owner: BackendId, state: State, deadline: u16) -> Self {
        Self(
            (tag as u64) << 32
                | ((owner.0 & 0x7fff) as u64) << 17
                | (state as u64) << 15
                | (deadline & 0x7fff) as u64,
        )
    }

    /// Upper half of the flow hash.
    #[inline(always)]
    #[must_use]
    pub const fn tag(self) -> u32 {
        (self.0 >> 32) as u32
    }

    /// The backend the flow belongs to.
    #[inline(always)]
    #[must_use]
    pub const fn owner(self) -> BackendId {
        BackendId((self.0 >> 17) as u16 & 0x7fff)
    }

    /// What is known of the flow.
    #[inline(always)]
    #[must_use]
    pub const fn state(self) -> State {
        match (self.0 >> 15) & 3 {
            0 => State::Unconfirmed,
            1 => State::Confirmed,
            _ => State::Closing,
        }
    }

    /// Ticks left until it is forgotten; 0 once it is.
    #[inline(always)]
    #[must_use]
    pub const fn remaining(self, now: u16) -> u16 {
        let left = (self.0 as u16).wrapping_sub(now) & 0x7fff;
        if left > 0x3fff { 0 } else { left }
    }

    /// Same tag and owner, other state and deadline.
    #[inline(always)]
    #[must_use]
    pub const fn touched(self, state: State, deadline: u16) -> Self {
        Self(self.0 & !0x1_ffff | (state as u64) << 15 | (deadline & 0x7fff) as u64)
    }
}

/// The current tick, 15 bits.
#[inline(always)]
#[must_use]
pub const fn tick(jiffies: u64, shift: u32) -> u16 {
    (jiffies >> (shift & 31)) as u16 & 0x7fff
}

/// The deadline of a flow touched now: never early, at most one tick late.
#[inline(always)]
#[must_use]
pub const fn deadline(now: u16, idle: u16) -> u16 {
    now.wrapping_add(idle).wrapping_add(1) & 0x7fff
}

/// The bucket of a flow.
#[inline(always)]
#[must_use]
pub const fn bucket_of(hash: u64, mask: u32) -> u32 {
    hash as u32 & mask
}

/// The one other bucket of a flow: its own inverse, and never the same while `mask` is not 0.
#[inline(always)]
#[must_use]
pub const fn alternate(bucket: u32, tag: u32, mask: u32) -> u32 {
    (bucket ^ (tag.wrapping_mul(0x5bd1_e995) >> 7 | 1)) & mask
}

/// Eight entries that others may change at any time.
pub trait Bucket {
    /// An entry now; `way` < [`WAYS`].
    fn load(&self, way: usize) -> Entry;
    /// Replaces `old` by `new`; false when it was no longer `old`.
    fn exchange(&self, way: usize, old: Entry, new: Entry) -> bool;
}

/// Where a tag was found.
#[derive(Clone, Copy, Debug)]
pub struct Found {
    /// Its place in the bucket.
    pub way: usize,
    /// The entry.
    pub entry: Entry,
}

/// The entry of a tag (an entry past its deadline counts as absent), and whether the bucket has
/// no empty entry, so that the alternate must be asked too.
#[inline(always)]
pub fn find<B: Bucket>(bucket: &B, tag: u32, now: u16) -> (Option<Found>, bool) {
    let mut full = true;
    let mut way = 0;
    while way < WAYS {
        let entry = bucket.load(way);
        if entry.tag() == tag && entry.0 as u32 != 0 {
            if entry.remaining(now) == 0 {
                return (None, full);
            }
            return (Some(Found { way, entry }), full);
        }
        if entry.0 == 0 {
            full = false;
        }
        way += 1;
    }
    (None, full)
}

/// The entry that a new one may replace: an empty one, then one past its deadline (the flow's own
/// old one included), then the unconfirmed one that is nearest to it. Never a live confirmed one.
#[inline(always)]
pub fn room<B: Bucket>(bucket: &B, tag: u32, now: u16) -> Option<Found> {
    const NONE: u32 = u32::MAX;
    let mut best = NONE;
    let mut place = Found { way: 0, entry: Entry(0) };
    let mut way = 0;
    while way < WAYS {
        let entry = bucket.load(way);
        let remaining = entry.remaining(now) as u32;
        let score = if entry.tag() == tag && entry.0 != 0 {
            0
        } else if entry.0 == 0 {
            1
        } else if remaining == 0 {
            2
        } else if matches!(entry.state(), State::Unconfirmed) {
            3 + remaining
        } else {
            NONE
        };
        if score < best {
            best = score;
            place = Found { way, entry };
        }
        way += 1;
    }
    if best == NONE { None } else { Some(place) }
}

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

/// All ones when `x` is negative, else 0. Written for the kernel in assembly, because the
/// compiler would turn the arithmetic around it back into branches, which a random bucket
/// mispredicts and the verifier multiplies.
#[inline(always)]
fn negative(x: u64) -> u64 {
    #[cfg(target_arch = "bpf")]
    {
        let mut x = x;
        // SAFETY: one arithmetic shift of one register.
        unsafe { core::arch::asm!("{0} s>>= 63", inout(reg) x, options(pure, nomem, nostack)) };
        x
    }
    #[cfg(not(target_arch = "bpf"))]
    {
        (x as i64 >> 63) as u64
    }
}

/// 1 when `x` is negative, else 0. Bits are made by this and never by masking [`negative`] with a
/// constant, at which newer verifiers go both ways.
#[inline(always)]
fn negative_bit(x: u64) -> u64 {
    #[cfg(target_arch = "bpf")]
    {
        let mut x = x;
        // SAFETY: one logical shift of one register.
        unsafe { core::arch::asm!("{0} >>= 63", inout(reg) x, options(pure, nomem, nostack)) };
        x
    }
    #[cfg(not(target_arch = "bpf"))]
    {
        x >> 63
    }
}

/// `new` where the mask is set, else `old`.
#[inline(always)]
const fn select(mask: u64, new: u64, old: u64) -> u64 {
    old ^ ((old ^ new) & mask)
}

/// The entry of a tag (an entry past its deadline counts as absent), and whether the bucket has
/// no empty entry, so that the alternate must be asked too.
#[inline(always)]
pub fn find<B: Bucket>(bucket: &B, tag: u32, now: u16) -> (Option<Found>, bool) {
    let (mut entry, mut place, mut empty) = (0, 0, 0);
    let mut way = 0;
    while way < WAYS {
        let here = bucket.load(way).0;
        let same = negative(((here >> 32) ^ tag as u64).wrapping_sub(1));
        entry = select(same, here, entry);
        place = select(same, way as u64, place);
        empty |= negative((here & 0xffff_ffff).wrapping_sub(1));
        way += 1;
    }
    let entry = Entry(entry);
    let full = empty == 0;
    // An empty entry looks like tag 0.
    if entry.0 as u32 == 0 || entry.remaining(now) == 0 {
        return (None, full);
    }
    (Some(Found { way: place as usize & (WAYS - 1), entry }), full)
}

/// The entry that a new one may replace: the flow's own old one, then an empty one, then one past
/// its deadline, then the unconfirmed one that is nearest to it. Never a live confirmed one of
/// another flow.
#[inline(always)]
pub fn room<B: Bucket>(bucket: &B, tag: u32, now: u16) -> Option<Found> {
    // Class (0 own, 1 empty, 2 past, 3 unconfirmed, 7 taken), then ticks left, then the way.
    const CLASS: u32 = 20;
    let (mut best, mut entry) = (7u64 << CLASS, 0);
    let mut way = 0;
    while way < WAYS {
        let here = bucket.load(way).0;
        let used = !negative((here & 0xffff_ffff).wrapping_sub(1));
        let same = used & negative(((here >> 32) ^ tag as u64).wrapping_sub(1));
        let left = here.wrapping_sub(now as u64 + 1) & 0x7fff;
        let alive = used & negative(left.wrapping_sub(0x3fff));
        let taken = negative_bit(((here >> 15) & 3).wrapping_neg());
        let in_use = negative_bit((here & 0xffff_ffff).wrapping_neg());
        let class = !same & (1 + in_use + (alive & (1 + (taken << 2))));
        let score = class << CLASS | left << 4 | way as u64;
        let better = negative(score.wrapping_sub(best));
        best = select(better, score, best);
        entry = select(better, here, entry);
        way += 1;
    }
    if best >> CLASS == 7 {
        return None;
    }
    Some(Found { way: best as usize & (WAYS - 1), entry: Entry(entry) })
}

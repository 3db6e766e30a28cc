//! The flow table: buckets of eight 8-byte entries, one cache line each, changed only by
//! compare-and-exchange, so that two CPUs and user space never lose each other's work.
//!
//! An entry is: bits 32..64 the tag (upper half of the flow hash), 17..32 the owner, 15..17 the
//! state, 14 a mark of the bucket, 0..14 the deadline in ticks. Owner 0 does not exist: it means
//! an empty entry. Together with its bucket an entry gives 32 + log2(buckets) bits of the flow
//! hash, and its slot in any table, which is all that a scan from user space needs.
//!
//! A flow lives in the bucket of its hash or, when that is full of flows that may not be pushed
//! out, in one other. The mark, in the bucket's first entry only, says that this has happened: a
//! lookup reads a second cache line only then, so a flood never makes it do so.

use crate::backend::BackendId;

/// Entries in a bucket.
pub const WAYS: usize = 8;

/// How often an insertion starts anew when another CPU changed the entry it had chosen. Each
/// loss means that somebody else succeeded; after this the packet goes on without an entry.
pub const ATTEMPTS: usize = 8;

/// A handshake is new for so many ticks.
pub const SPARED: u16 = 3;
/// As `spared` of [`room`]: no flow has so many ticks left.
pub const SPARE_NONE: u16 = DEADLINE / 2 + 1;

/// The bits of a deadline; the future is half of them.
pub const DEADLINE: u16 = 0x3fff;
/// The mark of a bucket from which a flow went to its other bucket.
const OVERFLOWED: u64 = 1 << 14;

/// What is known of a flow.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum State {
    /// One packet was seen: may be pushed out, holds no slot for long.
    Unconfirmed = 0,
    /// A second packet was seen.
    Confirmed = 1,
    /// One packet was seen, FIN or RST.
    Ended = 2,
    /// At least two packets were seen, FIN or RST among them.
    Closing = 3,
}

impl State {
    /// Were two packets seen?
    #[inline(always)]
    #[must_use]
    pub const fn is_confirmed(self) -> bool {
        self as u8 & 1 != 0
    }

    /// Was FIN or RST seen? Then a SYN may open it anew.
    #[inline(always)]
    #[must_use]
    pub const fn is_closing(self) -> bool {
        self as u8 & 2 != 0
    }
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
                | (deadline & DEADLINE) as u64,
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
            2 => State::Ended,
            _ => State::Closing,
        }
    }

    /// Ticks left until it is forgotten; 0 once it is.
    #[inline(always)]
    #[must_use]
    pub const fn remaining(self, now: u16) -> u16 {
        let left = (self.0 as u16).wrapping_sub(now) & DEADLINE;
        if left > DEADLINE / 2 { 0 } else { left }
    }

    /// Same tag and owner, other state and deadline.
    #[inline(always)]
    #[must_use]
    pub const fn touched(self, state: State, deadline: u16) -> Self {
        let kept = self.0 & !(3 << 15 | DEADLINE as u64);
        Self(kept | (state as u64) << 15 | (deadline & DEADLINE) as u64)
    }

    /// No flow.
    #[inline(always)]
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.owner().0 == 0
    }

    /// The mark of the bucket.
    #[inline(always)]
    #[must_use]
    pub const fn overflowed(self) -> bool {
        self.0 & OVERFLOWED != 0
    }

    /// This entry in the place of another, whose mark stays.
    #[inline(always)]
    #[must_use]
    pub const fn replacing(self, old: Self) -> Self {
        Self(self.0 & !OVERFLOWED | old.0 & OVERFLOWED)
    }

    /// The same with the mark set.
    #[inline(always)]
    #[must_use]
    pub const fn marked(self) -> Self {
        Self(self.0 | OVERFLOWED)
    }
}

/// The current tick, 14 bits.
#[inline(always)]
#[must_use]
pub const fn tick(jiffies: u64, shift: u32) -> u16 {
    (jiffies >> (shift & 31)) as u16 & DEADLINE
}

/// The deadline of a flow touched now: never early, at most one tick late.
#[inline(always)]
#[must_use]
pub const fn deadline(now: u16, idle: u16) -> u16 {
    now.wrapping_add(idle).wrapping_add(1) & DEADLINE
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
        (x.cast_signed() >> 63).cast_unsigned()
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

/// The entry of a tag (one past its deadline counts as absent), and whether the other bucket must
/// be asked too.
#[inline(always)]
pub fn find<B: Bucket>(bucket: &B, tag: u32, now: u16) -> (Option<Found>, bool) {
    let first = bucket.load(0);
    let (mut entry, mut place) = (0, 0);
    let mut way = 0;
    while way < WAYS {
        let here = if way == 0 { first.0 } else { bucket.load(way).0 };
        let same = negative(((here >> 32) ^ tag as u64).wrapping_sub(1));
        entry = select(same, here, entry);
        place = select(same, way as u64, place);
        way += 1;
    }
    let entry = Entry(entry);
    // An empty entry looks like tag 0.
    if entry.is_empty() || entry.remaining(now) == 0 {
        return (None, first.overflowed());
    }
    (Some(Found { way: place as usize & (WAYS - 1), entry }), false)
}

/// How dear a place is; the cheaper goes first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
#[repr(u64)]
pub enum Class {
    /// The flow's own old entry.
    Own = 0,
    /// No entry.
    Empty = 1,
    /// An entry past its deadline.
    Past = 2,
    /// Another flow of which one packet was seen.
    Unconfirmed = 3,
    /// Another confirmed flow: never replaced.
    Taken = 7,
}

/// A place for a new entry, and how dear it is.
#[derive(Clone, Copy, Debug)]
pub struct Room {
    /// Class, then whether it comes last, then ticks left, then the way.
    score: u64,
    /// What is there now.
    pub entry: Entry,
}

impl Room {
    /// Bits of a score below its class.
    const CLASS: u32 = 20;
    /// The bit of a score that is set when the entry comes last in its class.
    const LAST: u32 = 18;

    /// Its place in the bucket.
    #[inline(always)]
    #[must_use]
    pub const fn way(self) -> usize {
        self.score as usize & (WAYS - 1)
    }

    /// No flow loses its entry.
    #[inline(always)]
    #[must_use]
    pub const fn is_free(self) -> bool {
        self.score < (Class::Unconfirmed as u64) << Self::CLASS
    }

    /// A confirmed flow would lose its entry.
    #[inline(always)]
    #[must_use]
    pub const fn is_taken(self) -> bool {
        self.score >> Self::CLASS == Class::Taken as u64
    }
}

/// The cheapest place of a bucket; of unconfirmed flows the one that is nearest to its deadline,
/// but those with `spared` ticks left or up to [`SPARED`] more come last.
#[inline(always)]
pub fn room<B: Bucket>(bucket: &B, tag: u32, now: u16, spared: u16) -> Room {
    let (mut best, mut entry) = ((Class::Taken as u64) << Room::CLASS, 0);
    let mut way = 0;
    while way < WAYS {
        let here = bucket.load(way).0;
        let owner = here << 32 >> 49;
        let used = negative(owner.wrapping_neg());
        let same = used & negative(((here >> 32) ^ tag as u64).wrapping_sub(1));
        let left = here.wrapping_sub(now as u64 + 1) & DEADLINE as u64;
        let alive = used & negative(left.wrapping_sub(DEADLINE as u64 / 2));
        // As `State::is_confirmed`.
        let taken = here >> 15 & 1;
        let in_use = negative_bit(owner.wrapping_neg());
        // Own 0, empty 1, past 2, unconfirmed 3, taken 7: as `Class`.
        let class = !same & (1 + in_use + (alive & (1 + (taken << 2))));
        let since = left.wrapping_sub(spared as u64) & DEADLINE as u64;
        let last = negative_bit(since.wrapping_sub(SPARED as u64));
        let score = class << Room::CLASS | last << Room::LAST | left << 4 | way as u64;
        let better = negative(score.wrapping_sub(best));
        best = select(better, score, best);
        entry = select(better, here, entry);
        way += 1;
    }
    Room { score: best, entry: Entry(entry) }
}

//! Which backend owns a flow? The slot's, and no state is touched, unless the slot is contested:
//! then the flow table knows, and what it does not know follows the tracking rules
//! (ARCHITECTURE.md, "Just enough tracking").

use crate::backend::BackendId;
use crate::control::{Control, Idle};
use crate::flow::{self, ATTEMPTS, Bucket, Entry, State};
use crate::parse::{Flow, Segment};
use crate::record::Record;
use crate::table::{History, SLOTS_PER_HISTORY_ROW, Slot, slot_of};
use crate::tables::Tables;
use crate::verdict::FlowEvent;
use crate::vip::VipEntry;
use crate::{MAX_POOLS, SLOTS_PER_ROW};

/// How the owner was found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Path {
    /// The slot is not contested; an always tracked flow is recorded.
    Stateless,
    /// The flow has an entry.
    Entry,
    /// A new flow: the slot's backend.
    New,
    /// A flow without an entry that is older than the window: the window's oldest owner.
    Base,
    /// A flow without an entry, and no window is open: the slot's backend.
    Miss,
}

/// The owner, and all that its encapsulation and `lbctl trace` want to know.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Decision {
    /// The backend; id 0 when the pool has none.
    pub owner: BackendId,
    /// How it was found.
    pub path: Path,
    /// The slot's number.
    pub slot: u32,
    /// The slot's current backend.
    pub current: BackendId,
    /// The table's generation.
    pub generation: u32,
    /// The slot's history; empty when the table has none.
    pub history: History,
}

/// The owner of a flow; id 0 when the pool has no table or no backend. `None` when the table's
/// rows are not there.
#[inline(always)]
pub fn decide<T: Tables>(tables: &T, control: &Control, flow: &Flow) -> Option<Decision> {
    let pool = &control.pools[flow.vip.pool as usize & (MAX_POOLS - 1)];
    let table = &pool.tables[(pool.live & 1) as usize];
    let slot = slot_of((flow.hash >> 32) as u32, table.slots);
    let row = tables.slots(table.first_row + slot / SLOTS_PER_ROW)?;
    let entry = row[(slot % SLOTS_PER_ROW) as usize];
    let mut history = History::default();
    if table.has_history != 0 {
        let first = table.first_row * (SLOTS_PER_ROW / SLOTS_PER_HISTORY_ROW);
        let row = tables.history(first + slot / SLOTS_PER_HISTORY_ROW)?;
        history = row[(slot % SLOTS_PER_HISTORY_ROW) as usize];
    }
    let flags = flow.vip.flags;
    let asks = entry.contested() || flags & VipEntry::ASKS != 0;
    let (owner, path) = if asks && flags & VipEntry::STATELESS == 0 {
        let question = Question {
            hash: flow.hash,
            slot: entry,
            base: history.base,
            udp_idle: flow.vip.udp_idle,
            segment: flow.segment,
        };
        tables.tracked(question)
    } else {
        if flags & VipEntry::ALWAYS != 0 && flow.segment as u8 != Segment::Quoted as u8 {
            let vip = &flow.vip;
            let owner = entry.backend();
            tables.record(Record::new(flow.hash, owner, vip.pool, vip.udp_idle, flow.segment));
        }
        (entry.backend(), Path::Stateless)
    };
    let (current, generation) = (entry.backend(), table.generation);
    Some(Decision { owner, path, slot, current, generation, history })
}

/// What a contested slot asks the flow table.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Question {
    /// The flow hash.
    pub hash: u64,
    /// The flow's slot.
    pub slot: Slot,
    /// The slot's base; 0 when no window is open.
    pub base: BackendId,
    /// Idle timeout of the VIP's UDP flows, ticks.
    pub udp_idle: u16,
    /// What the packet means.
    pub segment: Segment,
}

impl Question {
    /// All but the hash in one word, so that the kernel can verify [`tracked`] once, as a
    /// function of two scalars.
    #[inline(always)]
    #[must_use]
    pub const fn pack(self) -> u64 {
        self.slot.0 as u64
            | (self.base.0 as u64) << 16
            | (self.udp_idle as u64) << 32
            | (self.segment as u64) << 48
    }

    /// The inverse of [`Question::pack`].
    #[inline(always)]
    #[must_use]
    pub const fn unpack(hash: u64, word: u64) -> Self {
        let segment = match word >> 48 {
            0 => Segment::Open,
            1 => Segment::Later,
            2 => Segment::End,
            3 => Segment::Datagram,
            _ => Segment::Quoted,
        };
        Self {
            hash,
            slot: Slot(word as u16),
            base: BackendId((word >> 16) as u16),
            udp_idle: (word >> 32) as u16,
            segment,
        }
    }
}

impl Path {
    /// The inverse of `path as u32`.
    #[inline(always)]
    #[must_use]
    pub const fn unpack(word: u32) -> Self {
        match word {
            0 => Self::Stateless,
            1 => Self::Entry,
            2 => Self::New,
            3 => Self::Base,
            _ => Self::Miss,
        }
    }
}

/// Asks the flow table, and enters what it learns.
#[inline(always)]
pub fn tracked<T: Tables>(tables: &T, control: &Control, ask: Question) -> (BackendId, Path) {
    let settings = &control.settings;
    let now = flow::tick(tables.jiffies(), settings.tick_shift);
    let tag = (ask.hash >> 32) as u32;
    let index = flow::bucket_of(ask.hash, settings.bucket_mask);
    let Some(mut holder) = tables.bucket(index) else { return (ask.slot.backend(), Path::Miss) };
    let (mut found, overflowed) = flow::find(&holder, tag, now);
    if found.is_none() && overflowed {
        let other = flow::alternate(index, tag, settings.bucket_mask);
        let Some(bucket) = tables.bucket(other) else { return (ask.slot.backend(), Path::Miss) };
        (found, _) = flow::find(&bucket, tag, now);
        holder = bucket;
    }
    if let Some(found) = found {
        // A SYN re-owns nothing that lives, and confirms nothing: it may be late or spoofed.
        let reopens = ask.segment == Segment::Open && found.entry.state().is_closing();
        if !reopens {
            touch(settings.idle, ask, &holder, found, now);
            tables.count(FlowEvent::Hit);
            return (found.entry.owner(), Path::Entry);
        }
    }
    let (owner, path) = match ask.segment {
        Segment::Open | Segment::Datagram => (ask.slot.backend(), Path::New),
        _ if ask.base.0 != 0 => (ask.base, Path::Base),
        Segment::Later | Segment::End | Segment::Quoted => (ask.slot.backend(), Path::Miss),
    };
    tables.count(match path {
        Path::Base => FlowEvent::Base,
        Path::Miss => FlowEvent::Miss,
        Path::New | Path::Stateless | Path::Entry => FlowEvent::New,
    });
    let (state, idle) = match ask.segment {
        Segment::Open => (State::Unconfirmed, settings.idle.half_open),
        Segment::Datagram => (State::Unconfirmed, ask.udp_idle),
        // Perhaps the flow's only packet in this window, and half-closed flows go on.
        Segment::End if ask.base.0 != 0 => (State::Ended, settings.idle.closing),
        Segment::Quoted | Segment::End => return (owner, path),
        Segment::Later => (State::Unconfirmed, settings.idle.established),
    };
    if owner.0 != 0 {
        let entry = Entry::new(tag, owner, state, flow::deadline(now, idle));
        // Handshakes have the shortest time left. A flood of SYNs shall push them out, and not what
        // has longer to wait for its second packet; but a flood in mid-flow shall not push out new
        // ones.
        let spared = match ask.segment {
            Segment::Open => flow::SPARE_NONE,
            Segment::Later | Segment::End | Segment::Datagram | Segment::Quoted => {
                (settings.idle.half_open + 2).saturating_sub(flow::SPARED)
            }
        };
        let place = Place { index, mask: settings.bucket_mask, now, spared };
        let entered = enter(tables, place, entry);
        if !entered {
            tables.count(FlowEvent::Refused);
        }
        if !entered && ask.segment == Segment::Open && ask.base.0 != 0 {
            // There the flow's next packet will go.
            return (ask.base, Path::Base);
        }
    }
    (owner, path)
}

/// Writes what a packet says of a flow that has an entry; at most one store a tick and flow.
#[inline(always)]
fn touch<B: Bucket>(idle: Idle, ask: Question, bucket: &B, found: flow::Found, now: u16) {
    let new = match (ask.segment, found.entry.state()) {
        (Segment::Quoted, _) => return,
        // A new flow in the place of an old one needs its entry until its next packet.
        (Segment::Open, state) => {
            if found.entry.remaining(now) > idle.half_open {
                return;
            }
            found.entry.touched(state, flow::deadline(now, idle.half_open))
        }
        (Segment::End, _) | (_, State::Closing | State::Ended) => {
            found.entry.touched(State::Closing, flow::deadline(now, idle.closing))
        }
        (Segment::Datagram, _) => {
            found.entry.touched(State::Confirmed, flow::deadline(now, ask.udp_idle))
        }
        _ => found.entry.touched(State::Confirmed, flow::deadline(now, idle.established)),
    };
    if new != found.entry {
        // Lost to another CPU: it wrote as much of this flow as we would have.
        let _lost = bucket.exchange(found.way, found.entry, new);
    }
}

/// Where a flow may be entered.
#[derive(Clone, Copy)]
struct Place {
    index: u32,
    mask: u32,
    now: u16,
    /// See [`flow::room`].
    spared: u16,
}

/// Enters a flow: in its bucket if nobody loses an entry there, else in the other one likewise,
/// else in the place of an unconfirmed flow, else not at all (false). A flood finds
/// every bucket full; past the budget for second looks it pushes out its own kind without one.
#[inline(always)]
fn enter<T: Tables>(tables: &T, place: Place, entry: Entry) -> bool {
    let Place { index, mask, now, spared } = place;
    let mut attempt = 0;
    while attempt < ATTEMPTS {
        attempt += 1;
        let Some(bucket) = tables.bucket(index) else { return false };
        let room = flow::room(&bucket, entry.tag(), now, spared);
        if room.is_taken() || (!room.is_free() && tables.may_look_again(now)) {
            let other = flow::alternate(index, entry.tag(), mask);
            let Some(other) = tables.bucket(other) else { return false };
            let there = flow::room(&other, entry.tag(), now, spared);
            if there.is_free() || (room.is_taken() && !there.is_taken()) {
                // The mark first: a lookup must never miss what lies in the other bucket.
                let first = bucket.load(0);
                if (first.overflowed() || bucket.exchange(0, first, first.marked()))
                    && other.exchange(there.way(), there.entry, entry.replacing(there.entry))
                {
                    count_loss(tables, there);
                    return true;
                }
                continue;
            }
        }
        if room.is_taken() {
            return false;
        }
        if bucket.exchange(room.way(), room.entry, entry.replacing(room.entry)) {
            count_loss(tables, room);
            return true;
        }
    }
    false
}

#[inline(always)]
fn count_loss<T: Tables>(tables: &T, room: flow::Room) {
    if !room.is_free() {
        tables.count(FlowEvent::Evicted);
    }
}

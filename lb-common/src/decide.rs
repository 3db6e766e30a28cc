//! Which backend owns a flow? The slot's, and no state is touched, unless the slot is contested:
//! then the flow table knows, and what it does not know follows the tracking rules
//! (ARCHITECTURE.md, "Just enough tracking").

use crate::backend::BackendId;
use crate::control::Control;
use crate::flow::{self, ATTEMPTS, Bucket, Entry, State};
use crate::parse::{Flow, Segment};
use crate::table::{History, SLOTS_PER_HISTORY_ROW, Slot, slot_of};
use crate::tables::Tables;
use crate::vip::VipEntry;
use crate::{MAX_POOLS, SLOTS_PER_ROW};

/// How the owner was found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Path {
    /// The slot is not contested.
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
    /// The table's generation.
    pub generation: u32,
    /// The slot's history; empty when the table has none.
    pub history: History,
}

/// The owner of a flow. `None` when the pool has no table.
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
    let contested = (entry.contested() && flow.vip.flags & VipEntry::STATELESS == 0)
        || flow.vip.flags & VipEntry::ALWAYS != 0;
    let (owner, path) = if contested {
        tracked(tables, control, flow, entry, history.base)
    } else {
        (entry.backend(), Path::Stateless)
    };
    Some(Decision { owner, path, slot, generation: table.generation, history })
}

/// Asks the flow table, and enters what it learns.
#[inline(always)]
fn tracked<T: Tables>(
    tables: &T,
    control: &Control,
    flow: &Flow,
    slot: Slot,
    base: BackendId,
) -> (BackendId, Path) {
    let settings = &control.settings;
    let now = flow::tick(tables.jiffies(), settings.tick_shift);
    let tag = (flow.hash >> 32) as u32;
    let index = flow::bucket_of(flow.hash, settings.bucket_mask);
    let Some(bucket) = tables.bucket(index) else { return (slot.backend(), Path::Miss) };
    let (mut found, full) = flow::find(&bucket, tag, now);
    let mut holder = bucket;
    if found.is_none() && full {
        let other = flow::alternate(index, tag, settings.bucket_mask);
        let Some(bucket) = tables.bucket(other) else { return (slot.backend(), Path::Miss) };
        (found, _) = flow::find(&bucket, tag, now);
        holder = bucket;
    }
    if let Some(found) = found {
        // A SYN re-owns nothing that lives, and confirms nothing: it may be late or spoofed.
        let reopens =
            flow.segment == Segment::Open && matches!(found.entry.state(), State::Closing);
        if !reopens {
            touch(settings_idle(control, flow), &holder, found, flow.segment, now);
            return (found.entry.owner(), Path::Entry);
        }
    }
    let (owner, path) = match flow.segment {
        Segment::Open | Segment::Datagram => (slot.backend(), Path::New),
        _ if base.0 != 0 => (base, Path::Base),
        _ => (slot.backend(), Path::Miss),
    };
    if owner.0 != 0 && !matches!(flow.segment, Segment::Quoted | Segment::End) {
        let idle = match flow.segment {
            Segment::Open => settings.idle.half_open,
            Segment::Datagram => flow.vip.udp_idle,
            _ => settings.idle.established,
        };
        let entry = Entry::new(tag, owner, State::Unconfirmed, flow::deadline(now, idle));
        enter(tables, index, settings.bucket_mask, entry, now);
    }
    (owner, path)
}

/// The idle timeouts that hold for a flow: confirmed, closing.
#[inline(always)]
fn settings_idle(control: &Control, flow: &Flow) -> (u16, u16) {
    let idle = control.settings.idle;
    let confirmed =
        if flow.segment == Segment::Datagram { flow.vip.udp_idle } else { idle.established };
    (confirmed, idle.closing)
}

/// Writes what a packet says of a flow that has an entry; at most one store a tick and flow.
#[inline(always)]
fn touch<B: Bucket>(
    (confirmed, closing): (u16, u16),
    bucket: &B,
    found: flow::Found,
    segment: Segment,
    now: u16,
) {
    let new = match (segment, found.entry.state()) {
        (Segment::Open | Segment::Quoted, _) => return,
        (Segment::End, _) | (_, State::Closing) => {
            found.entry.touched(State::Closing, flow::deadline(now, closing))
        }
        _ => found.entry.touched(State::Confirmed, flow::deadline(now, confirmed)),
    };
    if new != found.entry {
        // Lost to another CPU: it wrote as much of this flow as we would have.
        let _lost = bucket.exchange(found.way, found.entry, new);
    }
}

/// Enters a flow, in its bucket or the other one, if there is room for an unconfirmed one.
#[inline(always)]
fn enter<T: Tables>(tables: &T, index: u32, mask: u32, entry: Entry, now: u16) {
    let mut attempt = 0;
    let mut index = index;
    while attempt < ATTEMPTS {
        let Some(bucket) = tables.bucket(index) else { return };
        match flow::room(&bucket, entry.tag(), now) {
            Some(place) => {
                if bucket.exchange(place.way, place.entry, entry) {
                    return;
                }
            }
            None => index = flow::alternate(index, entry.tag(), mask),
        }
        attempt += 1;
    }
}

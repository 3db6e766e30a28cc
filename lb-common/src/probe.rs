//! What a health probe and the program that tunnels it agree on.
//!
//! A probe to a VIP goes through the tunnel to one backend. Its socket carries a mark that names
//! the backend; the program on the egress side recognises it, wraps the packet as the data plane
//! would, and counts it, so that the prober knows its packets took this way and no other.

use crate::MAX_POOLS;
use crate::backend::{Backend, BackendId, State};
use crate::control::Control;
use crate::decide::{Decision, Path};
use crate::encap;
use crate::flow::{Bucket, Entry};
use crate::packet::Packet;
use crate::parse::{Parsed, parse};
use crate::table::{History, HistoryRow, SlotRow};
use crate::tables::Tables;

/// The upper 17 bits of a probe's mark (SO_MARK); the lower 15 are the backend's id.
pub const MARK: u32 = 0x1b00_0000;
/// The bits of [`MARK`].
const MARK_MASK: u32 = 0xffff_8000;

/// Index into [`Sent`]: packets wrapped and sent on.
pub const SENT: usize = 0;
/// Index into [`Sent`]: packets dropped because the backend's next hop is not resolved.
pub const UNRESOLVED: usize = 1;
/// What became of the marked packets of one backend, in packets.
pub type Sent = [u64; 2];

/// The mark of probes to `backend`, which must not be 0.
#[inline(always)]
#[must_use]
pub const fn mark_of(backend: BackendId) -> u32 {
    MARK | backend.0 as u32 & !MARK_MASK
}

/// The backend that a packet's mark names; `None` when it is not a probe's.
#[inline(always)]
#[must_use]
pub const fn backend_of(mark: u32) -> Option<BackendId> {
    let id = (mark & !MARK_MASK) as u16;
    if mark & MARK_MASK == MARK && id != 0 { Some(BackendId(id)) } else { None }
}

/// What became of a marked packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Wrapped {
    /// It now holds the outer headers; the interface it leaves by.
    For(u32),
    /// The backend's next hop is not resolved, or the packet does not fit its path.
    Unresolved,
    /// Not a packet of a VIP's flow, or no room for the headers.
    Refused,
}

/// Wraps a probe's packet for its backend as the data plane wraps a client's. Without candidates:
/// no other backend may answer for this one.
#[inline(always)]
pub fn wrap<P: Packet>(
    packet: &mut P,
    control: &Control,
    backend: &Backend,
    id: BackendId,
) -> Wrapped {
    let Parsed::Flow(flow) = parse(packet, control) else { return Wrapped::Refused };
    let state = State::unpack(backend.state);
    if flow.inner.length > state.inner_mtu {
        return Wrapped::Unresolved;
    }
    let pool = &control.pools[flow.vip.pool as usize & (MAX_POOLS - 1)];
    let decision = Decision {
        owner: id,
        path: Path::Stateless,
        slot: 0,
        current: id,
        generation: pool.tables[(pool.live & 1) as usize].generation,
        history: History::default(),
    };
    let link = backend.links[(state.link & 1) as usize];
    let to = (state.outer, link);
    if encap::encapsulate(packet, &NoTables, &control.settings, &flow, &decision, backend, to) {
        Wrapped::For(link.interface)
    } else {
        Wrapped::Refused
    }
}

/// What the encapsulation of a packet without candidates needs of the tables: nothing.
struct NoTables;

/// A bucket that is never there.
enum NoBucket {}

impl Bucket for NoBucket {
    fn load(&self, _way: usize) -> Entry {
        match *self {}
    }

    fn exchange(&self, _way: usize, _old: Entry, _new: Entry) -> bool {
        match *self {}
    }
}

impl Tables for NoTables {
    type Bucket<'a> = NoBucket;

    fn control(&self) -> Option<&Control> {
        None
    }

    fn slots(&self, _row: u32) -> Option<&SlotRow> {
        None
    }

    fn history(&self, _row: u32) -> Option<&HistoryRow> {
        None
    }

    #[inline(always)]
    fn backend(&self, _id: BackendId) -> Option<&Backend> {
        None
    }

    fn bucket(&self, _index: u32) -> Option<NoBucket> {
        None
    }

    fn jiffies(&self) -> u64 {
        0
    }

    fn may_look_again(&self, _tick: u16) -> bool {
        false
    }

    #[inline(always)]
    fn ingress(&self) -> u32 {
        0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_name_backends_and_nothing_else() {
        for id in [1, 2, 0x7fff] {
            assert_eq!(backend_of(mark_of(BackendId(id))), Some(BackendId(id)));
        }
        for mark in [0, 1, MARK, MARK | 0x8001, 0x1b00_0000 << 1, u32::MAX] {
            assert_eq!(backend_of(mark), None, "{mark:#x}");
        }
    }
}

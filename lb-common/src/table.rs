//! The reading half of Maglev: slots, their history, and which table of a pool is live.

use crate::backend::BackendId;

/// One slot of a lookup table: bit 15 contested, bits 0..15 the backend id.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[repr(transparent)]
pub struct Slot(pub u16);

impl Slot {
    /// The contested bit.
    pub const CONTESTED: u16 = 0x8000;

    /// From its parts.
    #[must_use]
    pub const fn new(backend: BackendId, contested: bool) -> Self {
        Self(backend.0 & 0x7fff | if contested { Self::CONTESTED } else { 0 })
    }

    /// The slot's current backend.
    #[inline(always)]
    #[must_use]
    pub const fn backend(self) -> BackendId {
        BackendId(self.0 & 0x7fff)
    }

    /// Must the flow table be asked?
    #[inline(always)]
    #[must_use]
    pub const fn contested(self) -> bool {
        self.0 & Self::CONTESTED != 0
    }
}

/// What a slot remembers, 8 bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[repr(C, align(8))]
pub struct History {
    /// The owner of a flow that has no entry, while the slot's window is open; else 0.
    pub base: BackendId,
    /// Up to three distinct former owners, the latest first; 0 ends the list.
    pub last: [BackendId; 3],
}

/// Histories in one row of the history map (64 bytes).
pub const SLOTS_PER_HISTORY_ROW: u32 = 8;

/// One row of [`crate::map_name::SLOTS`].
pub type SlotRow = [Slot; 32];
/// One row of [`crate::map_name::HISTORY`].
pub type HistoryRow = [History; 8];
const _: () = assert!(size_of::<SlotRow>() == 64 && size_of::<HistoryRow>() == 64);

/// Where one generation of a pool's table lies; 16 bytes. Never changed while it is live.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[repr(C)]
pub struct Table {
    /// First row in the slot map.
    pub first_row: u32,
    /// Slots; 0 = no table yet.
    pub slots: u32,
    /// The generation, for the encapsulation and the operator.
    pub generation: u32,
    /// 1 when any slot has a history.
    pub has_history: u32,
}

/// A pool; 64 bytes. `live` is the one pointer that a new table swaps.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[repr(C, align(64))]
pub struct Pool {
    /// Two tables: `live & 1` names the one in use.
    pub tables: [Table; 2],
    /// Which table is live.
    pub live: u32,
    /// Zero.
    pub pad: [u32; 7],
}
const _: () = assert!(size_of::<Pool>() == 64);

/// The slot of a flow: the upper half of its hash, scaled to the table ("fast range", Lemire
/// 2019). That half is also the flow entry's tag, so a scan of the flow table knows the slot.
#[inline(always)]
#[must_use]
pub const fn slot_of(tag: u32, slots: u32) -> u32 {
    ((tag as u64 * slots as u64) >> 32) as u32
}

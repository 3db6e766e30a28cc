//! What a walk over the flow table finds out for one pool.

use super::CONTESTED;

/// Live entries of a pool by slot and owner, taken under one table.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Scan {
    revision: u64,
    /// The effective owners of that table.
    current: Vec<u16>,
    /// One bit for each slot that has a live entry with another owner.
    exceptions: Vec<u64>,
    /// Live entries by owner id, which has 15 bits.
    entries: Vec<u32>,
}

impl Scan {
    pub(super) fn new(current: Vec<u16>, revision: u64) -> Self {
        let exceptions = vec![0; current.len().div_ceil(64)];
        Self { revision, current, exceptions, entries: vec![0; usize::from(CONTESTED)] }
    }

    /// Notes one live entry of the pool. `holds` is false for an entry that must not keep its slot
    /// contested: one that a single packet made, where a flood of such packets is to be feared.
    pub fn note(&mut self, slot: u32, owner: u16, holds: bool) {
        let slot = slot as usize;
        if let Some(count) = self.entries.get_mut(usize::from(owner)) {
            *count += 1;
        }
        if holds && self.current.get(slot).is_some_and(|&current| current != owner) {
            self.exceptions[slot / 64] |= 1 << (slot % 64);
        }
    }

    /// How many live entries a backend has ("flows left" of a draining one, as far as tracked).
    #[must_use]
    pub fn entries(&self, owner: u16) -> u32 {
        self.entries.get(usize::from(owner)).copied().unwrap_or(0)
    }

    /// How many slots have an exception.
    #[must_use]
    pub fn exception_slots(&self) -> u32 {
        self.exceptions.iter().map(|word| word.count_ones()).sum()
    }

    pub(super) const fn revision(&self) -> u64 {
        self.revision
    }

    pub(super) fn has_exception(&self, slot: u32) -> bool {
        let word = self.exceptions.get(slot as usize / 64).copied().unwrap_or(0);
        word >> (slot % 64) & 1 == 1
    }

    pub(super) fn owners(&self) -> impl Iterator<Item = u16> {
        (0u16..).zip(&self.entries).filter(|(_, count)| **count > 0).map(|(owner, _)| owner)
    }
}

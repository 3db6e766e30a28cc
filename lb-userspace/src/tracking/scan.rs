//! What a walk over the flow table finds out for one pool.

use super::CONTESTED;

/// Live entries of a pool by slot and owner, taken under one table.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Scan {
    revision: u64,
    /// The effective owners of that table.
    current: Vec<u16>,
    /// One bit for each slot that has a live entry with another owner, of a flow of which at least
    /// two packets were seen.
    confirmed: Vec<u64>,
    /// The same for flows of which one packet was seen.
    unconfirmed: Vec<u64>,
    /// Live entries by owner id, which has 15 bits.
    entries: Vec<u32>,
}

impl Scan {
    pub(super) fn new(current: Vec<u16>, revision: u64) -> Self {
        let confirmed = vec![0; current.len().div_ceil(64)];
        let unconfirmed = confirmed.clone();
        let entries = vec![0; usize::from(CONTESTED)];
        Self { revision, current, confirmed, unconfirmed, entries }
    }

    /// Notes one live entry of the pool. `confirmed` is false for one that a single packet made: it
    /// keeps its slot contested, but not for long, else a flood of such packets would for good.
    pub fn note(&mut self, slot: u32, owner: u16, confirmed: bool) {
        let slot = slot as usize;
        if let Some(count) = self.entries.get_mut(usize::from(owner)) {
            *count += 1;
        }
        if self.current.get(slot).is_some_and(|&current| current != owner) {
            let exceptions = if confirmed { &mut self.confirmed } else { &mut self.unconfirmed };
            exceptions[slot / 64] |= 1 << (slot % 64);
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
        let words = self.confirmed.iter().zip(&self.unconfirmed);
        words.map(|(confirmed, unconfirmed)| (confirmed | unconfirmed).count_ones()).sum()
    }

    pub(super) const fn revision(&self) -> u64 {
        self.revision
    }

    /// Whether an entry of a slot has another owner: a confirmed one, or `with_unconfirmed` any.
    pub(super) fn has_exception(&self, slot: u32, with_unconfirmed: bool) -> bool {
        let is_set = |words: &[u64]| {
            words.get(slot as usize / 64).is_some_and(|word| word >> (slot % 64) & 1 == 1)
        };
        is_set(&self.confirmed) || (with_unconfirmed && is_set(&self.unconfirmed))
    }

    pub(super) fn owners(&self) -> impl Iterator<Item = u16> {
        (0u16..).zip(&self.entries).filter(|(_, count)| **count > 0).map(|(owner, _)| owner)
    }
}

//! A planned change on its way into force.

use super::roster::{Roster, Table};
use super::{Settings, millis};

/// A change that is being prepared.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct Pending {
    /// Who will be in force.
    pub(super) roster: Roster,
    pub(super) table: Table,
    /// The effective owners then; slots where they differ from the present ones are contested.
    pub(super) owners: Vec<u16>,
    /// When the preparation began.
    pub(super) since_ms: u64,
    /// Goes ahead even if a slot needs a fourth former owner.
    pub(super) force: bool,
}

impl Pending {
    pub(super) fn new(roster: Roster, slots: u32, since_ms: u64) -> Self {
        let table = Table::new(&roster, slots);
        let owners = table.owners(&roster);
        Self { roster, table, owners, since_ms, force: false }
    }

    /// When the preparation is long enough.
    pub(super) fn due_ms(&self, settings: &Settings) -> u64 {
        self.since_ms + millis(settings.prepare)
    }

    /// How many slots will change.
    pub(super) fn marked(&self, owners: &[u16]) -> u32 {
        let marked = self.owners.iter().zip(owners).filter(|(new, old)| new != old).count();
        u32::try_from(marked).unwrap_or(u32::MAX)
    }
}

//! Who is in a pool and who of them is dead, and the effective owners that follow from it.
//!
//! The dead bits lie over the table: a death moves the slots of the dead one and no other.

use std::collections::BTreeSet;

use crate::maglev::{self, Member, NO_BACKEND, Preferences};

/// Members of a pool, and which of them are dead.
#[derive(Clone, PartialEq, Eq, Debug, serde::Serialize, serde::Deserialize)]
pub struct Roster {
    /// By id, so that equal sets are equal.
    members: Vec<Member>,
    /// Ids of members only.
    dead: BTreeSet<u16>,
}

impl Roster {
    pub(super) fn new(members: &[Member], dead: &[u16]) -> Self {
        let mut members = members.to_vec();
        members.sort_unstable_by_key(|member| member.id);
        let mut roster = Self { members, dead: BTreeSet::new() };
        for &id in dead {
            roster.set_dead(id);
        }
        roster
    }

    /// The members, by id.
    #[must_use]
    pub fn members(&self) -> &[Member] {
        &self.members
    }

    /// The ids of the dead members.
    pub fn dead(&self) -> impl Iterator<Item = u16> {
        self.dead.iter().copied()
    }

    /// Whether `id` is a dead member.
    #[must_use]
    pub fn is_dead(&self, id: u16) -> bool {
        self.dead.contains(&id)
    }

    /// Whether there are members with a weight, and all of them are dead.
    #[must_use]
    pub fn all_down(&self) -> bool {
        let mut serving = self.members.iter().filter(|member| member.weight > 0).peekable();
        serving.peek().is_some() && serving.all(|member| self.is_dead(member.id))
    }

    /// Marks a member dead; true if that is news.
    pub(super) fn set_dead(&mut self, id: u16) -> bool {
        let is_member = self.members.binary_search_by_key(&id, |member| member.id).is_ok();
        is_member && self.dead.insert(id)
    }

    /// Marks a member alive; true if that is news.
    pub(super) fn set_alive(&mut self, id: u16) -> bool {
        self.dead.remove(&id)
    }
}

/// The table of a set of members, all alive. A function of the set.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct Table {
    planned: Vec<u16>,
    preferences: Preferences,
}

impl Table {
    pub(super) fn new(roster: &Roster, slots: u32) -> Self {
        Self {
            planned: maglev::build(&roster.members, slots),
            preferences: Preferences::new(&roster.members, slots),
        }
    }

    /// The effective owners: with the dead bits of `roster`, whose members must be this table's.
    pub(super) fn owners(&self, roster: &Roster) -> Vec<u16> {
        let mut owners = self.planned.clone();
        if roster.dead.is_empty() || roster.all_down() {
            return owners;
        }
        let mut alive = vec![true; usize::from(u16::MAX) + 1];
        for &id in &roster.dead {
            alive[usize::from(id)] = false;
        }
        for (slot, owner) in (0u32..).zip(&mut owners) {
            if *owner != NO_BACKEND && !alive[usize::from(*owner)] {
                *owner = self.preferences.first(slot, |id| alive[usize::from(id)]);
            }
        }
        owners
    }
}

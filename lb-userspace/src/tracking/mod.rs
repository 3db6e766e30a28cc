//! Just enough tracking: what happens to the slots of one pool when its backends change.
//!
//! Pure: between `desired` and `health` (who is in the pool, who is dead) and the data plane (the
//! table it reads). Every public method that depends on time takes `now`; what it may not do is
//! read a clock, a map or a file. The state survives a restart as a [`State`].
//!
//! # Rules
//!
//! A slot has an effective owner, *now*: the table's choice, or if that one is dead the first
//! living one in the slot's order of preference ([`crate::maglev::Preferences`]).
//!
//! 1. A planned change (members, weights, a backend's return) is *prepared*: slots that will change
//!    are contested from then on. Once [`Settings::prepare`] has passed it is *activated*: of each
//!    changed slot without an open window the old owner becomes the *base*, and the window is open
//!    until `window` + [`GRACE`] later. A slot whose window is open keeps base and end.
//! 2. The data plane answers a miss (a packet in mid-flow without an entry) in a contested slot
//!    with the base if there is one, else with *now*, and enters it.
//! 3. When the window has closed the base goes (a new table), and later, once a [`Scan`] of the
//!    flow table *under that table* finds no live entry with another owner than *now*, the slot is
//!    stateless again. In between no packet can make such an entry any more, which is why the two
//!    steps are apart. An entry that one packet made counts for one window longer, in which a flow
//!    that lives confirms it (as long as it may live, where flows are always tracked); then it does
//!    not, else a flood of packets would hold the slot.
//! 4. A slot remembers up to three former owners, newest first, for the backends' agents to ask. It
//!    remembers them for [`Settings::history`] after the end of the window; while the window is
//!    open none is forgotten. A planned change that would need a fourth in more than one slot of a
//!    thousand waits until windows close (each does, after `window` + [`GRACE`]), unless
//!    [`PoolTracker::force`] lets it through. Slots that lose a former owner are counted; only
//!    their agents' second chance is poorer, the flow table and the base keep their flows.
//! 5. A death is no generation and is never prepared. What becomes of the dead one's flows is
//!    [`OnDown`]: with `Keep` (the verdict may be wrong) the death is a change like any other: the
//!    dead backend is the base if no window is open, misses go to it until the window closes, its
//!    entries stay for as long as they live. Only where the death opens the window its unconfirmed
//!    ones go, so that a client's repeated SYN finds another backend; if the dead one did answer,
//!    the client's next packet is a miss and returns to it. Elsewhere an unconfirmed entry may be
//!    the only trace of an old flow, and a handshake with a dead backend has to time out. With
//!    `Release` it opens no window, a window with it as base closes, it leaves every slot's history
//!    and user space purges all of its entries ([`Purge`]).
//! 6. A return is planned: were it not prepared, a handshake could straddle it. So is whatever is
//!    proposed while something is in preparation: it comes next.
//! 7. When every backend with a weight is dead, the verdicts are taken for wrong: all are used as
//!    if none was dead, and their flows are kept whatever [`OnDown`] says. The first one to return
//!    takes everything at once, without preparation.
//! 8. A drained backend is a member of weight 0; a removed one is no member. Both keep their flows
//!    through windows and entries. The id of a removed one is taken for as long as
//!    [`PoolTracker::owners_in_use`] has it.
//!
//! 9. Where flows are always tracked the same slots are contested as elsewhere: in the others every
//!    live flow's owner is *now*, so its packets are only recorded. That holds from the start of a
//!    pool only if an earlier one of its name left nothing, so until a first scan all its slots
//!    are contested.
//!
//! A flow that sends a packet at least every `min(window, idle timeout)` keeps its backend through
//! all of this; `tests/simulation` attacks that promise.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::maglev::{Member, NO_BACKEND};

mod journal;
mod pending;
mod roster;
mod row;
mod scan;
mod steps;
mod types;

pub use journal::{RestoreError, State};
pub use roster::Roster;
pub use scan::Scan;
pub use types::{Change, ChangeKind, Down, Moved, OnDown, Phase, Purge, Rendered, Settings};

use pending::Pending;
use roster::Table;
use row::Row;

/// The bit of a rendered slot that says: contested, look into the flow table.
pub const CONTESTED: u16 = 1 << 15;

/// A planned change waits if more slots than this part of all would need a fourth former owner.
/// Some slots change hands at nearly every change; they alone must not hold up all others.
const SHORT_SLOTS_PART: usize = 1_000;

/// How long a window stays open beyond its end: more than the lag of a sync message, its resend
/// and the difference between two clocks.
pub const GRACE: Duration = Duration::from_secs(5);

/// The slots of one pool, and their past.
#[derive(Clone, PartialEq, Debug)]
pub struct PoolTracker {
    slots: u32,
    settings: Settings,
    /// Who is in force.
    current: Roster,
    table: Table,
    /// The effective owners; a function of `current`.
    owners: Vec<u16>,
    /// Who shall be in force. Equal to `current` when there is nothing to do.
    wanted: Roster,
    pending: Option<Pending>,
    /// Slots with a past; the others never changed, or long ago.
    rows: BTreeMap<u32, Row>,
    generation: u32,
    revision: u64,
    forced_slots: u64,
    /// The flow table may have flows of an earlier pool of this name with other owners.
    unscanned: bool,
}

impl PoolTracker {
    /// A pool without a past. `slots` must be prime (config checks it); `dead` are members that
    /// are down from the start. The members' order does not matter.
    #[must_use]
    pub fn new(slots: u32, members: &[Member], dead: &[u16], settings: Settings) -> Self {
        let current = Roster::new(members, dead);
        let table = Table::new(&current, slots);
        let owners = table.owners(&current);
        Self {
            slots,
            settings,
            wanted: current.clone(),
            current,
            table,
            owners,
            pending: None,
            rows: BTreeMap::new(),
            generation: 1,
            revision: 1,
            forced_slots: 0,
            unscanned: !settings.always.is_zero(),
        }
    }

    /// Wants these members, and begins to prepare the change if nothing else is in preparation
    /// (then it comes next, by [`PoolTracker::tick`]). Members that are new are taken for alive.
    pub fn propose(&mut self, members: &[Member], now: Duration) -> Vec<Change> {
        let dead: Vec<u16> = self.wanted.dead().collect();
        self.wanted = Roster::new(members, &dead);
        self.begin(millis(now)).into_iter().collect()
    }

    /// Lets the change in preparation through at its time even if slots need a fourth former owner.
    pub const fn force(&mut self) {
        if let Some(pending) = &mut self.pending {
            pending.force = true;
        }
    }

    /// Does what is due: releases slots by the scan, closes windows, activates, begins what is
    /// wanted next, forgets. The table has to be published anew if anything is returned.
    ///
    /// A scan counts only if it was begun under the table last rendered; others are ignored.
    pub fn tick(&mut self, now: Duration, scan: Option<&Scan>) -> Vec<Change> {
        let now_ms = millis(now);
        let mut changes = Vec::new();
        if let Some(scan) = scan.filter(|scan| scan.revision() == self.revision) {
            changes.extend(self.release(scan, now_ms));
        }
        changes.extend(self.close_windows(now_ms));
        if let Some(change) = self.activate_if_due(now_ms) {
            changes.push(change);
            changes.extend(self.forget_released());
        }
        changes.extend(self.begin(now_ms));
        changes.extend(self.expire_history(now_ms));
        changes
    }

    /// When [`PoolTracker::tick`] has something to do next; `None` if never. Scans are apart:
    /// [`PoolTracker::needs_scan`].
    #[must_use]
    pub fn next_deadline(&self) -> Option<Duration> {
        let activation = self.pending.as_ref().map(|p| p.due_ms(&self.settings));
        // A change that waits, waits for a window; its own time has passed then.
        let activation = activation.filter(|_| !self.is_blocked());
        let rows = self.rows.values().filter_map(|row| row.deadline_ms(&self.settings));
        rows.chain(activation).min().map(Duration::from_millis)
    }

    /// Whether slots wait for a scan of the flow table to turn stateless.
    #[must_use]
    pub fn needs_scan(&self) -> bool {
        self.unscanned || self.rows.values().any(|row| row.held && row.base == NO_BACKEND)
    }

    /// A scan of the flow table to be filled and handed to [`PoolTracker::tick`]. To be begun only
    /// when the table last rendered is live and the one before is not in use any more.
    #[must_use]
    pub fn begin_scan(&self) -> Scan {
        Scan::new(self.owners.clone(), self.revision)
    }

    /// Takes a backend for dead, at once. The table has to be published if there are changes, and
    /// once it is live, the entries that the purge takes have to go.
    pub fn backend_down(&mut self, id: u16, now: Duration) -> Down {
        let now_ms = millis(now);
        self.wanted.set_dead(id);
        let mut purge = Purge::new(id, self.slots);
        let mut changes = Vec::new();
        if self.current.set_dead(id) {
            self.mark_new_windows(&mut purge);
            changes.push(self.apply(ChangeKind::Down, now_ms));
        }
        purge.all = self.settings.on_down == OnDown::Release && !self.current.all_down();
        if purge.all {
            changes.extend(self.forget(&[id]));
        }
        let is_news = !changes.is_empty();
        changes.extend(self.revise_pending(now_ms, is_news, |roster| roster.set_dead(id)));
        changes.extend(self.begin(now_ms));
        Down { changes, purge }
    }

    /// Takes a backend for alive again, after preparation (at once if all are down).
    pub fn backend_up(&mut self, id: u16, now: Duration) -> Vec<Change> {
        let now_ms = millis(now);
        self.wanted.set_alive(id);
        let mut changes = Vec::new();
        if self.current.all_down() && self.current.set_alive(id) {
            changes.push(self.apply(ChangeKind::Up, now_ms));
            changes.extend(self.forget_released());
            changes.extend(self.revise_pending(now_ms, true, |roster| roster.set_alive(id)));
        }
        changes.extend(self.begin(now_ms));
        changes
    }

    /// Whether all entries of this owner have to go, whenever they are met: it is dead, and
    /// [`OnDown::Release`] holds. To be asked after a restart, and when [`Rendered::all_down`]
    /// ends, which was a reprieve for all.
    #[must_use]
    pub fn is_released(&self, owner: u16) -> bool {
        self.settings.on_down == OnDown::Release
            && self.current.is_dead(owner)
            && !self.current.all_down()
    }

    /// Changes the settings. Open windows keep their end.
    pub fn reconfigure(&mut self, settings: Settings) -> Option<Change> {
        if settings == self.settings {
            return None;
        }
        // With a shorter timeout slots may have been released in spite of flows that still live.
        self.unscanned |= settings.always > self.settings.always;
        self.settings = settings;
        Some(self.changed(Change::new(ChangeKind::Adjusted, 0)))
    }

    /// The flow table was lost: flows have to be seen once more, so open windows last at least a
    /// whole one from now.
    pub fn flow_table_lost(&mut self, now: Duration) {
        let until_ms = millis(now) + millis(self.settings.window);
        for row in self.rows.values_mut().filter(|row| row.base != NO_BACKEND) {
            row.until_ms = row.until_ms.max(until_ms);
        }
    }

    /// The table to publish. The same as long as nothing changes.
    #[must_use]
    pub fn render(&self) -> Rendered {
        let mut slots = self.owners.clone();
        if self.unscanned {
            slots.iter_mut().for_each(|slot| *slot |= CONTESTED);
        } else if let Some(pending) = &self.pending {
            for (slot, owner) in slots.iter_mut().zip(&pending.owners) {
                *slot |= if slot == owner { 0 } else { CONTESTED };
            }
        }
        let mut history = vec![[NO_BACKEND; 4]; slots.len()];
        for (&slot, row) in &self.rows {
            let [last1, last2, last3] = row.last;
            history[slot as usize] = [row.base, last1, last2, last3];
            slots[slot as usize] |= if row.is_contested() { CONTESTED } else { 0 };
        }
        Rendered {
            slots,
            history,
            has_history: !self.rows.is_empty(),
            generation: self.generation,
            revision: self.revision,
            all_down: self.current.all_down(),
        }
    }

    /// What these members would move, were they in force now.
    #[must_use]
    pub fn moved_slots(&self, members: &[Member]) -> Moved {
        let dead: Vec<u16> = self.wanted.dead().collect();
        let roster = Roster::new(members, &dead);
        let owners = Table::new(&roster, self.slots).owners(&roster);
        let mut moved = Moved::default();
        for (slot, (&old, &new)) in (0u32..).zip(self.owners.iter().zip(&owners)) {
            if old != new {
                moved.slots += 1;
                *moved.lost.entry(old).or_default() += 1;
                *moved.gained.entry(new).or_default() += 1;
                let blocked = self.rows.get(&slot).is_some_and(|row| row.needs_fourth(old, new));
                moved.blocked += u32::from(blocked);
            }
        }
        moved
    }

    /// How many slots are contested.
    #[must_use]
    pub fn contested_slots(&self) -> u32 {
        let contested = self.render().slots.iter().filter(|slot| **slot & CONTESTED != 0).count();
        u32::try_from(contested).unwrap_or(u32::MAX)
    }

    /// Ids that must not be given to another backend: members, owners of slots or former ones, and
    /// owners of entries, of which the caller has to make a complete scan.
    #[must_use]
    pub fn owners_in_use(&self, scan: &Scan) -> BTreeSet<u16> {
        let mut ids: BTreeSet<u16> = scan.owners().collect();
        ids.extend(&self.owners);
        let rosters =
            [Some(&self.current), Some(&self.wanted), self.pending.as_ref().map(|p| &p.roster)];
        ids.extend(rosters.into_iter().flatten().flat_map(|r| r.members().iter().map(|m| m.id)));
        ids.extend(self.rows.values().flat_map(|row| row.last.into_iter().chain([row.base])));
        ids.remove(&NO_BACKEND);
        ids
    }

    /// What the pool is doing.
    #[must_use]
    pub fn phase(&self, now: Duration) -> Phase {
        match &self.pending {
            Some(pending) if pending.due_ms(&self.settings) <= millis(now) && self.is_blocked() => {
                Phase::Waiting
            }
            Some(_) => Phase::Preparing,
            None if self.rows.values().any(|row| row.base != NO_BACKEND) => Phase::Window,
            None => Phase::Steady,
        }
    }

    /// The effective owner of a slot, 0 for none (also for a slot that does not exist).
    #[must_use]
    pub fn owner(&self, slot: u32) -> u16 {
        self.owners.get(slot as usize).copied().unwrap_or(NO_BACKEND)
    }

    /// Who is in force, and who of them is dead.
    #[must_use]
    pub const fn current(&self) -> &Roster {
        &self.current
    }

    /// How many slots the pool has.
    #[must_use]
    pub const fn slots(&self) -> u32 {
        self.slots
    }

    /// The settings.
    #[must_use]
    pub const fn settings(&self) -> &Settings {
        &self.settings
    }

    /// The number of the generation.
    #[must_use]
    pub const fn generation(&self) -> u32 {
        self.generation
    }

    /// How many slots may need a fourth former owner without making a change wait.
    fn short_slots_max(&self) -> usize {
        self.owners.len() / SHORT_SLOTS_PART
    }

    /// The number of the table, which every change counts up.
    #[must_use]
    pub const fn revision(&self) -> u64 {
        self.revision
    }

    /// Slots, over all time, that lost a former owner inside its window.
    #[must_use]
    pub const fn forced_slots(&self) -> u64 {
        self.forced_slots
    }
}

/// Whole milliseconds; the tracker's resolution.
fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;

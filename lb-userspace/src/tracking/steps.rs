//! The steps of which the tracker's public methods are made. Each returns a [`Change`] if there is
//! a new table to publish.

use super::pending::Pending;
use super::roster::Roster;
use super::row::{Row, Step};
use super::{Change, ChangeKind, OnDown, PoolTracker, Purge, Scan, millis};
use crate::maglev::NO_BACKEND;

impl PoolTracker {
    /// Counts the table up, and the slots that were forced.
    pub(super) fn changed(&mut self, change: Change) -> Change {
        self.revision += 1;
        self.forced_slots += u64::from(change.forced);
        change
    }

    /// Makes the effective owners those of the current roster, and notes the past of each slot
    /// that changes.
    pub(super) fn apply(&mut self, kind: ChangeKind, now_ms: u64) -> Change {
        let owners = self.table.owners(&self.current);
        let until_ms = now_ms + millis(self.settings.window);
        let mut change = Change::new(kind, 0);
        for (slot, (&old, &new)) in (0u32..).zip(self.owners.iter().zip(&owners)) {
            if old == new {
                continue;
            }
            change.slots += 1;
            let keep_old = self.keeps(old);
            let row = self.rows.entry(slot).or_default();
            change.forced += u32::from(row.step(Step { old, new, until_ms, keep_old }));
        }
        self.owners = owners;
        self.changed(change)
    }

    /// Whether the flows of a slot's old owner are to be kept.
    fn keeps(&self, old: u16) -> bool {
        let is_dead = self.current.is_dead(old) && !self.current.all_down();
        old != NO_BACKEND && (self.settings.on_down == OnDown::Keep || !is_dead)
    }

    /// Marks the slots whose window the death is about to open: there the dying backend becomes the
    /// base, so a purged flow that is not a handshake is entered again by its next packet.
    pub(super) fn mark_new_windows(&self, purge: &mut Purge) {
        let id = purge.owner();
        for (slot, _) in (0u32..).zip(&self.owners).filter(|(_, owner)| **owner == id) {
            if self.rows.get(&slot).is_none_or(|row| row.base == NO_BACKEND) {
                purge.mark(slot);
            }
        }
    }

    /// Takes dead backends out of every slot's past.
    pub(super) fn forget(&mut self, dead: &[u16]) -> Option<Change> {
        let mut count = 0;
        for row in self.rows.values_mut() {
            for &id in dead {
                count += u32::from(row.forget(id));
            }
        }
        (count > 0).then(|| self.changed(Change::new(ChangeKind::Forgotten, count)))
    }

    /// Takes the released dead out of every slot's past, which [`Rendered::all_down`] has kept.
    ///
    /// [`Rendered::all_down`]: super::Rendered::all_down
    pub(super) fn forget_released(&mut self) -> Option<Change> {
        let dead: Vec<u16> = self.current.dead().filter(|&id| self.is_released(id)).collect();
        self.forget(&dead)
    }

    /// Begins to prepare what is wanted, or cancels the preparation of what is in force already.
    pub(super) fn begin(&mut self, now_ms: u64) -> Option<Change> {
        if self.pending.is_some() {
            if self.wanted != self.current {
                return None;
            }
            self.pending = None;
            return Some(self.changed(Change::new(ChangeKind::Cancelled, 0)));
        }
        if self.wanted == self.current {
            return None;
        }
        let pending = Pending::new(self.wanted.clone(), self.slots, now_ms);
        let slots = pending.marked(&self.owners);
        self.pending = Some(pending);
        Some(self.changed(Change::new(ChangeKind::Prepared, slots)))
    }

    /// Follows a death or a return in the change that is being prepared, `is_news` if the owners in
    /// force changed. Other slots will change now and need their time of preparation, so it begins
    /// again for all.
    pub(super) fn revise_pending(
        &mut self,
        now_ms: u64,
        is_news: bool,
        edit: impl Fn(&mut Roster) -> bool,
    ) -> Option<Change> {
        let pending = self.pending.as_mut()?;
        let is_edited = edit(&mut pending.roster);
        if is_edited {
            pending.owners = pending.table.owners(&pending.roster);
        }
        if !is_edited && !is_news {
            return None;
        }
        if pending.roster == self.current {
            self.pending = None;
            return Some(self.changed(Change::new(ChangeKind::Cancelled, 0)));
        }
        pending.since_ms = now_ms;
        let slots = pending.marked(&self.owners);
        Some(self.changed(Change::new(ChangeKind::Prepared, slots)))
    }

    /// Whether the change in preparation would need a fourth former owner in too many slots.
    pub(super) fn is_blocked(&self) -> bool {
        let Some(pending) = self.pending.as_ref().filter(|pending| !pending.force) else {
            return false;
        };
        let short = self.rows.iter().filter(|&(&slot, row)| {
            let (old, new) = (self.owners[slot as usize], pending.owners[slot as usize]);
            old != new && row.needs_fourth(old, new)
        });
        short.count() > self.short_slots_max()
    }

    pub(super) fn activate_if_due(&mut self, now_ms: u64) -> Option<Change> {
        if self.pending.as_ref()?.due_ms(&self.settings) > now_ms || self.is_blocked() {
            return None;
        }
        let pending = self.pending.take()?;
        if pending.roster.members() != self.current.members() {
            self.generation += 1;
        }
        self.current = pending.roster;
        self.table = pending.table;
        Some(self.apply(ChangeKind::Activated, now_ms))
    }

    pub(super) fn close_windows(&mut self, now_ms: u64) -> Option<Change> {
        let mut closed = 0;
        for row in self.rows.values_mut() {
            closed += u32::from(row.close(now_ms));
        }
        (closed > 0).then(|| self.changed(Change::new(ChangeKind::WindowsClosed, closed)))
    }

    pub(super) fn release(&mut self, scan: &Scan, now_ms: u64) -> Option<Change> {
        let mut released = 0;
        if std::mem::take(&mut self.unscanned) {
            for slot in (0..self.slots).filter(|&slot| scan.has_exception(slot, true)) {
                self.rows.entry(slot).or_insert_with(|| Row::held_since(now_ms)).held = true;
            }
            released = self.slots;
        }
        for (&slot, row) in &mut self.rows {
            let with_unconfirmed = now_ms < row.confirmed_ms(&self.settings);
            let has_exception = || scan.has_exception(slot, with_unconfirmed);
            if row.held && row.base == NO_BACKEND && !has_exception() {
                row.held = false;
                released += 1;
            }
        }
        (released > 0).then(|| self.changed(Change::new(ChangeKind::Released, released)))
    }

    pub(super) fn expire_history(&mut self, now_ms: u64) -> Option<Change> {
        let before = self.rows.len();
        let settings = self.settings;
        self.rows.retain(|_, row| !row.is_expired(now_ms, &settings));
        let expired = u32::try_from(before - self.rows.len()).unwrap_or(u32::MAX);
        (expired > 0).then(|| self.changed(Change::new(ChangeKind::HistoryExpired, expired)))
    }
}

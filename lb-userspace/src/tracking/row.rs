//! The past of one slot.

use super::{GRACE, Settings, millis};
use crate::maglev::NO_BACKEND;

/// How many former owners a slot remembers.
const LAST_MAX: usize = 3;

/// What is known of a slot beyond its owner.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Row {
    /// Answers misses while the window is open; [`NO_BACKEND`]: no window.
    pub(super) base: u16,
    /// Former owners other than the present one, newest first, then [`NO_BACKEND`].
    pub(super) last: [u16; LAST_MAX],
    /// The end of the window, also after it; the time of the change if there was none.
    pub(super) until_ms: u64,
    /// There may be live entries with another owner than the present one.
    pub(super) held: bool,
}

/// A slot's change of owner.
#[derive(Clone, Copy)]
pub(super) struct Step {
    pub(super) old: u16,
    pub(super) new: u16,
    /// The end of the window that this opens, if none is open.
    pub(super) until_ms: u64,
    /// The old owner's flows are to be kept.
    pub(super) keep_old: bool,
}

impl Row {
    pub(super) const fn is_contested(&self) -> bool {
        self.base != NO_BACKEND || self.held
    }

    /// Whether this change would push a former owner out inside its window.
    pub(super) fn needs_fourth(&self, old: u16, new: u16) -> bool {
        let others = self.last.iter().filter(|&&id| id != NO_BACKEND && id != new && id != old);
        self.base != NO_BACKEND && old != NO_BACKEND && others.count() == LAST_MAX
    }

    /// Notes a change; true if it pushed a former owner out inside its window.
    pub(super) fn step(&mut self, step: Step) -> bool {
        let was_open = self.base != NO_BACKEND;
        if !was_open {
            self.until_ms = step.until_ms;
            self.base = if step.keep_old { step.old } else { NO_BACKEND };
        }
        self.held |= self.base != NO_BACKEND;
        let added = if step.keep_old { step.old } else { NO_BACKEND };
        let others = self.last.into_iter().filter(|&id| id != step.old && id != step.new);
        let mut list: Vec<u16> =
            [added].into_iter().chain(others).filter(|&id| id != NO_BACKEND).collect();
        let overflow = list.len() > LAST_MAX;
        if overflow {
            // The oldest goes, but never the base.
            let oldest = list.iter().rposition(|&id| id != self.base).unwrap_or(LAST_MAX);
            list.remove(oldest);
        }
        self.set_last(list);
        overflow && was_open
    }

    fn set_last(&mut self, list: impl IntoIterator<Item = u16>) {
        self.last = [NO_BACKEND; LAST_MAX];
        for (place, id) in self.last.iter_mut().zip(list) {
            *place = id;
        }
    }

    /// The past of a slot of which only its exceptions are known.
    pub(super) fn held_since(now_ms: u64) -> Self {
        Self { until_ms: now_ms, held: true, ..Self::default() }
    }

    /// Takes a backend out; a window with it as base closes. True if it was there.
    pub(super) fn forget(&mut self, id: u16) -> bool {
        let was_there = self.base == id || self.last.contains(&id);
        if self.base == id {
            self.base = NO_BACKEND;
        }
        let rest = self.last.into_iter().filter(|&other| other != id && other != NO_BACKEND);
        self.set_last(rest.collect::<Vec<u16>>());
        was_there
    }

    /// When the window closes.
    fn close_ms(&self) -> u64 {
        self.until_ms.saturating_add(millis(GRACE))
    }

    /// Closes the window if it is time; true if it did.
    pub(super) fn close(&mut self, now_ms: u64) -> bool {
        let is_due = self.base != NO_BACKEND && self.close_ms() <= now_ms;
        if is_due {
            self.base = NO_BACKEND;
        }
        is_due
    }

    /// When each flow has sent a second packet after the one that entered it, at the latest when
    /// the window closed, if it lives: a flow's silence is as long as a window at most, or as its
    /// idle timeout where flows are always tracked.
    pub(super) fn confirmed_ms(&self, settings: &Settings) -> u64 {
        let silence = settings.window.max(settings.always);
        self.close_ms().saturating_add(millis(silence)).saturating_add(millis(GRACE))
    }

    /// When the former owners are forgotten, unless the slot is still contested.
    fn expiry_ms(&self, settings: &Settings) -> u64 {
        self.until_ms.saturating_add(millis(settings.history))
    }

    pub(super) fn is_expired(&self, now_ms: u64, settings: &Settings) -> bool {
        !self.is_contested() && self.expiry_ms(settings) <= now_ms
    }

    /// When time will change this row; never while only entries hold it.
    pub(super) fn deadline_ms(&self, settings: &Settings) -> Option<u64> {
        match (self.base, self.held) {
            (NO_BACKEND, true) => None,
            (NO_BACKEND, false) => Some(self.expiry_ms(settings)),
            _ => Some(self.close_ms()),
        }
    }
}

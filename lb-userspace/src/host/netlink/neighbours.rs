//! Which neighbour entries we need, what the kernel knows of them, and what to ask it next.
//!
//! Pure: events and the time come in, [`Step`]s come out. Every step that was handed out is
//! answered by [`Neighbours::sighted`], [`Neighbours::gone`] or [`Neighbours::refused`]; a step
//! whose answer was lost comes again with [`Neighbours::query_all`].

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use super::{HOLD_RETRY, MAX_NEIGHBOURS, NeighbourMode, PERMANENT_REFRESH, RELEASE_DELAY};

/// One neighbour: its address on an interface.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct Key {
    pub(super) interface: u32,
    pub(super) address: IpAddr,
}

/// How far the kernel is with an entry.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Seen {
    /// It has a MAC address that may be used.
    Valid([u8; 6]),
    /// It is asking.
    Trying,
    /// It asked and got no answer.
    Failed,
}

/// An entry as the kernel has it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Sighting {
    pub(super) seen: Seen,
    /// NUD_PERMANENT: the kernel does not change it by itself.
    pub(super) permanent: bool,
    /// NTF_EXT_MANAGED: the kernel keeps it resolved by itself.
    pub(super) managed: bool,
    /// It carries our mark.
    pub(super) ours: bool,
}

/// What is known of a neighbour, with the last MAC address until the kernel has given it up.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum State {
    Resolving,
    Valid([u8; 6]),
    Failed,
    TableFull,
}

/// Something to do about one neighbour.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Step {
    /// Look at the entry.
    Query,
    /// Make it managed and ours, then look at it.
    Hold,
    /// Make it ours, let the kernel resolve it, then look at it.
    Probe,
    /// Make it permanent with this MAC address, then look at it.
    Pin([u8; 6]),
    /// Remove it.
    Release,
}

#[derive(Debug)]
struct Entry {
    users: BTreeSet<IpAddr>,
    state: State,
    /// It exists in the kernel and we made it (now, or an earlier `lbd`).
    ours: bool,
    last_attempt: Option<Duration>,
    /// The one step that is planned, and when; also the key of `Neighbours::schedule`.
    planned: Option<(Duration, Step)>,
}

/// All neighbours that matter.
#[derive(Debug)]
pub(super) struct Neighbours {
    mode: NeighbourMode,
    entries: BTreeMap<Key, Entry>,
    schedule: BTreeSet<(Duration, Key)>,
    /// The interfaces that are up; on others asking is useless.
    up: BTreeSet<u32>,
}

impl Neighbours {
    pub(super) fn new(mode: NeighbourMode) -> Self {
        Self { mode, entries: BTreeMap::new(), schedule: BTreeSet::new(), up: BTreeSet::new() }
    }

    pub(super) fn mode(&self) -> NeighbourMode {
        self.mode
    }

    pub(super) fn state(&self, key: &Key) -> State {
        self.entries.get(key).map_or(State::Resolving, |entry| entry.state)
    }

    pub(super) fn users(&self, key: &Key) -> Vec<IpAddr> {
        self.entries.get(key).map(|entry| entry.users.iter().copied().collect()).unwrap_or_default()
    }

    /// A destination's packets go to this neighbour from now on. False if there is no room.
    pub(super) fn add_user(&mut self, key: Key, user: IpAddr, now: Duration) -> bool {
        if !self.entries.contains_key(&key) && self.entries.len() >= MAX_NEIGHBOURS {
            return false;
        }
        let entry = self.entries.entry(key).or_insert_with(Entry::new);
        let first = entry.users.is_empty();
        entry.users.insert(user);
        if first {
            self.plan(key, now, Step::Query);
        }
        true
    }

    /// A destination's packets go to this neighbour no longer.
    pub(super) fn remove_user(&mut self, key: &Key, user: IpAddr, now: Duration) {
        let Some(entry) = self.entries.get_mut(key) else { return };
        entry.users.remove(&user);
        if !entry.users.is_empty() {
            return;
        }
        if entry.ours {
            self.plan(*key, now + RELEASE_DELAY, Step::Release);
        } else {
            self.forget(key);
        }
    }

    /// An entry with our mark was found at the start: it is kept if it turns out to be needed.
    pub(super) fn adopt(&mut self, key: Key, now: Duration) {
        if self.entries.len() >= MAX_NEIGHBOURS {
            return;
        }
        let entry = self.entries.entry(key).or_insert_with(Entry::new);
        entry.ours = true;
        if entry.users.is_empty() {
            self.plan(key, now + RELEASE_DELAY, Step::Release);
        }
    }

    /// The kernel has this entry. True if the state changed.
    pub(super) fn sighted(&mut self, key: &Key, sighting: Sighting, now: Duration) -> bool {
        let Some(entry) = self.entries.get_mut(key) else { return false };
        let before = entry.state;
        entry.state = match (sighting.seen, before) {
            (Seen::Valid(mac), _) => State::Valid(mac),
            (Seen::Failed, _) => State::Failed,
            // While it asks, the last answer stands.
            (Seen::Trying, State::Valid(_) | State::Failed) => before,
            (Seen::Trying, State::Resolving | State::TableFull) => State::Resolving,
        };
        entry.ours = sighting.ours;
        let changed = before != entry.state;
        if !entry.users.is_empty() {
            self.plan_for(*key, sighting, now);
        } else if !sighting.ours {
            self.forget(key);
        }
        changed
    }

    fn plan_for(&mut self, key: Key, sighting: Sighting, now: Duration) {
        let Some(entry) = self.entries.get(&key) else { return };
        // Somebody else's permanent entry, or one that somebody else has the kernel manage, needs
        // nothing from us and must not be changed.
        let foreign = !sighting.ours && (sighting.permanent || sighting.managed);
        let retry = entry.last_attempt.map_or(now, |last| (last + HOLD_RETRY).max(now));
        match (self.mode, sighting.seen) {
            _ if foreign => self.unplan(&key),
            (NeighbourMode::Managed, _) if sighting.managed => self.unplan(&key),
            (NeighbourMode::Managed, _) => self.plan(key, retry, Step::Hold),
            (NeighbourMode::Permanent, _) if sighting.permanent => {
                self.plan(key, now + PERMANENT_REFRESH, Step::Probe);
            }
            (NeighbourMode::Permanent, Seen::Valid(mac)) if sighting.ours => {
                self.plan(key, now, Step::Pin(mac));
            }
            // The kernel is asking for us and tells the end of it.
            (NeighbourMode::Permanent, Seen::Trying) if sighting.ours => self.unplan(&key),
            (NeighbourMode::Permanent, _) => self.plan(key, retry, Step::Probe),
        }
    }

    /// The kernel has no such entry (any more). Its last MAC address stands until the new entry
    /// answers or fails.
    pub(super) fn gone(&mut self, key: &Key, now: Duration) {
        let Some(entry) = self.entries.get_mut(key) else { return };
        entry.ours = false;
        let retry = entry.last_attempt.map_or(now, |last| (last + HOLD_RETRY).max(now));
        if entry.users.is_empty() {
            self.forget(key);
        } else {
            let step = self.acquire();
            self.plan(*key, retry, step);
        }
    }

    /// The kernel refused to make the entry. True if the state changed.
    pub(super) fn refused(&mut self, key: &Key, step: Step, errno: i32, now: Duration) -> bool {
        if step == Step::Hold && matches!(errno, libc::EINVAL | libc::EOPNOTSUPP) {
            self.give_up_managed(now);
            return false;
        }
        let Some(entry) = self.entries.get_mut(key) else { return false };
        let before = entry.state;
        if errno == libc::ENOBUFS && before == State::Resolving {
            entry.state = State::TableFull;
        }
        let changed = entry.state != before;
        let again = self.acquire();
        self.plan(*key, now + HOLD_RETRY, again);
        changed
    }

    /// The kernel took a managed entry and does not show it as managed.
    pub(super) fn give_up_managed(&mut self, now: Duration) {
        if self.mode == NeighbourMode::Managed {
            self.mode = NeighbourMode::Permanent;
            self.query_all(now);
        }
    }

    /// Looks at every needed entry again: notifications were lost, or time has passed.
    pub(super) fn query_all(&mut self, now: Duration) {
        let needed = |entry: &Entry| !entry.users.is_empty();
        let keys: Vec<Key> =
            self.entries.iter().filter(|(_, entry)| needed(entry)).map(|(key, _)| *key).collect();
        for key in keys {
            self.plan(key, now, Step::Query);
        }
    }

    /// An interface came up or went down. Neighbours on it are asked for only while it is up.
    pub(super) fn set_interface(&mut self, interface: u32, up: bool, now: Duration) {
        if !up {
            self.up.remove(&interface);
        } else if self.up.insert(interface) {
            let keys: Vec<Key> = self
                .entries
                .iter()
                .filter(|(key, entry)| key.interface == interface && !entry.users.is_empty())
                .map(|(key, _)| *key)
                .collect();
            for key in keys {
                self.plan(key, now, Step::Query);
            }
        }
    }

    /// Takes at most `max` steps that are due.
    pub(super) fn take_due(&mut self, now: Duration, max: usize) -> Vec<(Key, Step)> {
        let mut steps = Vec::new();
        while steps.len() < max {
            let Some((due, key)) = self.schedule.first().copied() else { break };
            if due > now {
                break;
            }
            let step = self.entries.get(&key).and_then(|entry| entry.planned);
            self.unplan(&key);
            let (Some((_, step)), Some(entry)) = (step, self.entries.get_mut(&key)) else {
                continue;
            };
            if matches!(step, Step::Hold | Step::Probe | Step::Pin(_)) {
                if !self.up.contains(&key.interface) {
                    continue;
                }
                entry.last_attempt = Some(now);
            }
            steps.push((key, step));
        }
        steps
    }

    /// When the next step is due.
    pub(super) fn next_due(&self) -> Option<Duration> {
        self.schedule.first().map(|(due, _)| *due)
    }

    fn acquire(&self) -> Step {
        match self.mode {
            NeighbourMode::Managed => Step::Hold,
            NeighbourMode::Permanent => Step::Probe,
        }
    }

    fn plan(&mut self, key: Key, due: Duration, step: Step) {
        self.unplan(&key);
        if let Some(entry) = self.entries.get_mut(&key) {
            entry.planned = Some((due, step));
            self.schedule.insert((due, key));
        }
    }

    fn unplan(&mut self, key: &Key) {
        if let Some(entry) = self.entries.get_mut(key)
            && let Some((due, _)) = entry.planned.take()
        {
            self.schedule.remove(&(due, *key));
        }
    }

    fn forget(&mut self, key: &Key) {
        self.unplan(key);
        self.entries.remove(key);
    }
}

impl Entry {
    fn new() -> Self {
        Self {
            users: BTreeSet::new(),
            state: State::Resolving,
            ours: false,
            last_attempt: None,
            planned: None,
        }
    }
}

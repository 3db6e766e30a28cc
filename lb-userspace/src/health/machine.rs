//! Which backend is probed when, and what all the probes add up to.
//!
//! Pure: no sockets, no clock. The driver asks [`Machine::next_deadline`], takes what is
//! [`Machine::probe_due`], and hands every result to [`Machine::observed`]. Each backend has a
//! fixed phase within its interval, drawn from its name and this LB's seed, so that tens of
//! thousands of probes spread evenly, and several LBs do not probe one backend in step.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::Hasher as _;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use siphasher::sip::SipHasher13;

use super::rise_fall::{Change, RiseFall};
use super::{
    BackendHealth, BackendKey, HealthEvent, HealthReport, INTERVAL_MAX, INTERVAL_MIN, Observation,
    Target,
};

/// First probes of new backends are spread over this much time per backend, so that a few are
/// probed at once and very many as evenly as later; never over more than their interval.
const FIRST_SPREAD: Duration = Duration::from_millis(1);

/// Names one probe under way. A result for a backend that is gone, or whose target has changed
/// since, is told by it and ignored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket {
    serial: u64,
    epoch: u64,
}

/// A probe to make now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Probe {
    /// To be handed back with the result.
    pub ticket: Ticket,
    /// Where to connect to.
    pub address: SocketAddr,
    /// The socket's mark; none is direct.
    pub mark: Option<u32>,
    /// The socket's own address, if one is asked for.
    pub source: Option<IpAddr>,
    /// How long to wait for the answer.
    pub timeout: Duration,
}

/// All probed backends.
#[derive(Debug)]
pub struct Machine {
    seed: u64,
    remembered: BTreeMap<BackendKey, bool>,
    serials: BTreeMap<BackendKey, u64>,
    entries: BTreeMap<u64, Entry>,
    /// When each backend that has no probe under way is to be probed next.
    due: BTreeSet<(Duration, u64)>,
    next_serial: u64,
    probes: u64,
    late: u64,
}

#[derive(Debug)]
struct Entry {
    key: BackendKey,
    target: Target,
    /// Offset of the probes within the interval.
    phase: Duration,
    state: RiseFall,
    epoch: u64,
    next: Duration,
    /// When the probe under way began.
    started: Option<Duration>,
    took: Option<Duration>,
}

impl Machine {
    /// Starts without targets. `seed` differs between LBs; `remembered` are the verdicts of an
    /// earlier run, used for the backends of the first [`Machine::set_targets`] only.
    #[must_use]
    pub fn start(seed: u64, remembered: BTreeMap<BackendKey, bool>) -> Self {
        Self {
            seed,
            remembered,
            serials: BTreeMap::new(),
            entries: BTreeMap::new(),
            due: BTreeSet::new(),
            next_serial: 0,
            probes: 0,
            late: 0,
        }
    }

    /// Replaces the set of backends to probe. A backend that stays keeps its verdict, unless its
    /// own address has changed; one whose way of probing has changed starts a new row.
    pub fn set_targets(&mut self, targets: BTreeMap<BackendKey, Target>, now: Duration) {
        let gone: Vec<u64> = self
            .serials
            .iter()
            .filter(|(key, _)| !targets.contains_key(key))
            .map(|(_, serial)| *serial)
            .collect();
        for serial in gone {
            self.remove(serial);
        }
        let added = targets.keys().filter(|key| !self.serials.contains_key(key)).count();
        let spread = FIRST_SPREAD.saturating_mul(u32::try_from(added).unwrap_or(u32::MAX));
        for (key, target) in targets {
            match self.serials.get(&key) {
                Some(serial) => self.update(*serial, target, now),
                None => self.add(key, target, spread, now),
            }
        }
        self.remembered.clear();
    }

    /// When [`Machine::probe_due`] has something next, since boot; none without idle backends.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Duration> {
        self.due.first().map(|(at, _)| *at)
    }

    /// The backend that has waited longest for its probe, if one is due; it is then under way
    /// and must be answered by [`Machine::observed`].
    pub fn probe_due(&mut self, now: Duration) -> Option<Probe> {
        let (at, serial) = *self.due.first()?;
        if at > now {
            return None;
        }
        self.due.pop_first();
        let entry = self.entries.get_mut(&serial)?;
        entry.started = Some(now);
        self.probes = self.probes.saturating_add(1);
        if now - at > interval(&entry.target) {
            self.late = self.late.saturating_add(1);
        }
        Some(Probe {
            ticket: Ticket { serial, epoch: entry.epoch },
            address: entry.target.address,
            mark: entry.target.mark,
            source: entry.target.source,
            timeout: entry.target.timeout,
        })
    }

    /// Takes in a probe's result that came at `now`; says whether the verdict has changed.
    pub fn observed(
        &mut self,
        ticket: Ticket,
        observation: Observation,
        now: Duration,
    ) -> Option<HealthEvent> {
        let entry = self.entries.get_mut(&ticket.serial)?;
        if entry.epoch != ticket.epoch {
            return None;
        }
        let started = entry.started.take()?;
        entry.next = entry.slot_after(started, now);
        self.due.insert((entry.next, ticket.serial));
        if !matches!(observation, Observation::Uncounted(_)) {
            entry.took = Some(now.saturating_sub(started));
        }
        let change = entry.state.observe(observation, entry.target.thresholds, now)?;
        Some(entry.event(change, now))
    }

    /// Every backend's state, and the counters.
    #[must_use]
    pub fn report(&self) -> HealthReport {
        HealthReport {
            backends: self
                .entries
                .values()
                .map(|entry| (entry.key.clone(), entry.health()))
                .collect(),
            probes: self.probes,
            late: self.late,
            in_flight: self.entries.values().filter(|entry| entry.started.is_some()).count(),
        }
    }

    fn add(&mut self, key: BackendKey, target: Target, spread: Duration, now: Duration) {
        let phase = phase(self.seed, &key, &target);
        let interval = interval(&target);
        let spread = spread.min(interval);
        // The same place within the spread as within the interval.
        let next = now + scale(phase, spread, interval);
        let state = RiseFall::start(self.remembered.get(&key).copied(), now);
        let serial = self.next_serial;
        self.next_serial += 1;
        self.serials.insert(key.clone(), serial);
        let entry = Entry { key, target, phase, state, epoch: 0, next, started: None, took: None };
        self.entries.insert(serial, entry);
        self.due.insert((next, serial));
    }

    fn update(&mut self, serial: u64, target: Target, now: Duration) {
        let Some(entry) = self.entries.get_mut(&serial) else { return };
        if entry.target == target {
            return;
        }
        self.due.remove(&(entry.next, serial));
        if entry.target.backend == target.backend {
            entry.state.forget_streak();
        } else {
            entry.state = RiseFall::start(None, now);
            entry.took = None;
        }
        entry.phase = phase(self.seed, &entry.key, &target);
        entry.target = target;
        // A probe under way was made the old way: its result no longer counts.
        entry.epoch += 1;
        let last = entry.started.take().unwrap_or(now);
        entry.next = entry.slot_after(last, now);
        self.due.insert((entry.next, serial));
    }

    fn remove(&mut self, serial: u64) {
        if let Some(entry) = self.entries.remove(&serial) {
            self.due.remove(&(entry.next, serial));
            self.serials.remove(&entry.key);
        }
    }
}

impl Entry {
    /// The next time in this backend's phase: half an interval after the last probe's start at
    /// the earliest, so that the first probes fall into step without crowding, and not past.
    fn slot_after(&self, started: Duration, now: Duration) -> Duration {
        let interval = interval(&self.target);
        next_in_phase(self.phase, interval, (started + interval / 2).max(now))
    }

    fn event(&self, change: Change, now: Duration) -> HealthEvent {
        let thresholds = self.target.thresholds;
        let (what, needed) = match change.failure {
            Some(failure) => (failure.to_string(), thresholds.fall),
            None => ("connected".to_owned(), thresholds.rise),
        };
        let row = change.row;
        let reason = if row >= needed {
            format!("tcp {}: {what}, {row} in a row", self.target.address)
        } else {
            // The first failure of a backend of which nothing was known.
            format!("tcp {}: {what} at the first probe", self.target.address)
        };
        HealthEvent { backend: self.key.clone(), up: change.up, reason, at: now }
    }

    fn health(&self) -> BackendHealth {
        BackendHealth {
            verdict: self.state.verdict(),
            since: self.state.since(),
            address: self.target.address,
            tunnelled: self.target.mark.is_some(),
            last_error: self.state.last_failure().map(|(why, at)| (why.to_string(), at)),
            streak: self.state.streak(),
            changes: self.state.changes(),
            uncounted: self.state.uncounted().cloned(),
            took: self.took,
        }
    }
}

fn interval(target: &Target) -> Duration {
    target.interval.clamp(INTERVAL_MIN, INTERVAL_MAX)
}

/// Where in its interval a backend is probed: below the interval, fixed by seed and names.
fn phase(seed: u64, key: &BackendKey, target: &Target) -> Duration {
    let mut hasher = SipHasher13::new_with_keys(seed, 0);
    hasher.write(key.pool.as_bytes());
    // A byte no name contains, so that ("a", "bc") and ("ab", "c") differ.
    hasher.write_u8(0xff);
    hasher.write(key.backend.as_bytes());
    Duration::from_nanos(hasher.finish() % nanoseconds(interval(target)))
}

/// The smallest time that is `phase` within `interval` and not before `earliest`.
fn next_in_phase(phase: Duration, interval: Duration, earliest: Duration) -> Duration {
    let (phase, step) = (nanoseconds(phase), nanoseconds(interval));
    let earliest = nanoseconds(earliest);
    let missing = (phase % step + step - earliest % step) % step;
    Duration::from_nanos(earliest.saturating_add(missing))
}

/// `value * numerator / denominator`, for `numerator <= denominator`.
fn scale(value: Duration, numerator: Duration, denominator: Duration) -> Duration {
    let product = u128::from(nanoseconds(value)) * u128::from(nanoseconds(numerator));
    let quotient = product / u128::from(nanoseconds(denominator).max(1));
    Duration::from_nanos(u64::try_from(quotient).unwrap_or(u64::MAX))
}

/// Nanoseconds; more than 584 years count as that.
fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;

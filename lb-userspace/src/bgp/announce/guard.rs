//! The guards: what keeps announcements from being lost all at once, and from flapping.
//!
//! Pure. They only ever keep a route that health would withdraw, or hold back one that it would
//! bring again; the operator's force passes them.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use siphasher::sip::SipHasher13;

use super::facts::Seen;
use crate::desired::LastAnnouncer;
use crate::desired::bgp::Guards;

/// Two load balancers that lose the same prefix leave at different times, so that the later one
/// sees the first one gone and stays. Much longer than a withdrawal takes to come back over a
/// monitor; two whose times are closer than that both go, and [`Return`] brings one back.
pub(super) const JITTER: Duration = Duration::from_millis(500);
/// The time doubles with each return, so that two that left together do not do so for ever, at
/// most so often: 4 s.
const MAX_DOUBLINGS: u32 = 3;
/// Nobody must have had the prefix for so long before the one that left comes back: longer than a
/// withdrawal or an announcement takes over a monitor.
const RETURN_WAIT: Duration = Duration::from_secs(1);
/// After so long it does not come back any more because nobody has it: then that is no consequence
/// of its own leaving. Longer than [`RETURN_WAIT`] and the longest jitter together.
const RETURN_WINDOW: Duration = Duration::from_secs(10);

/// The way back of a prefix that left since others were seen to have it, and it was the last one
/// all the same: they left at the same time. Pure; forgotten when it can be served, or by force.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Return {
    /// When it left.
    left: Option<Duration>,
    /// Nobody has been seen to have it since then.
    alone: Option<Duration>,
    /// How often it came back.
    rounds: u32,
}

impl Return {
    /// It leaves, and is to stay if it is the last one.
    pub(super) const fn leave(&mut self, now: Duration) {
        (self.left, self.alone) = (Some(now), None);
    }

    /// How often it came back, for [`jitter`].
    pub(super) const fn rounds(&self) -> u32 {
        self.rounds
    }

    /// The evidence is not to be relied on.
    pub(super) const fn doubt(&mut self) {
        self.alone = None;
    }

    /// What a prefix does that has left: comes back now, or then if nothing changes, or not.
    pub(super) fn judge(&mut self, seen: &Seen, jitter: Duration, now: Duration) -> Back {
        self.left = self.left.filter(|left| now < *left + RETURN_WINDOW);
        let is_alone = self.left.is_some() && *seen == Seen::Nobody;
        if !is_alone {
            self.alone = None;
            return Back::Never;
        }
        let then = *self.alone.get_or_insert(now) + RETURN_WAIT + jitter;
        if now < then {
            return Back::At(then);
        }
        *self = Self { left: None, alone: None, rounds: self.rounds.saturating_add(1) };
        Back::Now
    }
}

/// Whether a prefix that has left comes back without being able to be served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Back {
    /// It does.
    Now,
    /// It does then, if nobody has it until then.
    At(Duration),
    /// It does not, as things are.
    Never,
}

/// What the last announcer may do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Leave {
    /// Go.
    Now,
    /// Go then, if the evidence still says so.
    At(Duration),
    /// Stay, for this reason.
    Keep(&'static str),
}

/// Whether a prefix may go because of health. `since`: how long the evidence has allowed it.
pub(super) fn last_announcer(
    setting: LastAnnouncer,
    seen: &Seen,
    since: Duration,
    jitter: Duration,
    now: Duration,
) -> Leave {
    match (setting, seen) {
        (LastAnnouncer::Withdraw, _) => Leave::Now,
        (LastAnnouncer::Keep, Seen::Others { .. }) if now >= since + jitter => Leave::Now,
        (LastAnnouncer::Keep, Seen::Others { .. }) => Leave::At(since + jitter),
        (LastAnnouncer::Keep, Seen::Nobody) => {
            Leave::Keep("nobody else announces it (last_announcer = \"keep\")")
        }
        (LastAnnouncer::Keep, Seen::Unknown) => {
            Leave::Keep("nobody else is known to announce it (last_announcer = \"keep\")")
        }
    }
}

/// When a node leaves a prefix, or comes back to it: within [`JITTER`] the first time, later within
/// more. By their names, so not always the same first.
pub(super) fn jitter(node: &str, prefix: &IpNet, rounds: u32) -> Duration {
    let hash = SipHasher13::new().hash(format!("{node} {prefix} {rounds}").as_bytes());
    let most = JITTER * (1 << rounds.min(MAX_DOUBLINGS));
    let millis = hash % (most.as_secs() * 1_000 + u64::from(most.subsec_millis()));
    Duration::from_millis(millis)
}

/// How long a prefix stays away after its `strikes`th withdrawal in a row.
pub(super) fn back_off(guards: &Guards, strikes: u32) -> Duration {
    let factor = 1_u32.checked_shl(strikes.saturating_sub(1)).unwrap_or(u32::MAX);
    guards.backoff.saturating_mul(factor).min(guards.backoff_max)
}

/// The breaker: health may withdraw a few prefixes at a time, then somebody must look.
///
/// It counts prefixes, not withdrawals: one that flaps is the back-off's. Bounded by the prefixes
/// there are.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Breaker {
    /// When health withdrew what, within the window.
    withdrawn: BTreeMap<IpNet, Duration>,
    /// Open since then: nothing more goes.
    tripped: Option<Duration>,
    /// What would have gone.
    held: BTreeSet<IpNet>,
    /// What the operator let go.
    let_go: BTreeSet<IpNet>,
}

impl Breaker {
    /// Whether health may withdraw this prefix now; counts it if so.
    pub(super) fn allows(&mut self, prefix: IpNet, guards: &Guards, now: Duration) -> bool {
        if self.let_go.remove(&prefix) {
            return true;
        }
        self.withdrawn.retain(|_, at| now < *at + guards.breaker_window);
        let more = usize::from(!self.withdrawn.contains_key(&prefix));
        let max = usize::try_from(guards.breaker_max).unwrap_or(usize::MAX);
        if self.tripped.is_some() || self.withdrawn.len() + more > max {
            self.tripped.get_or_insert(now);
            self.held.insert(prefix);
            return false;
        }
        self.withdrawn.insert(prefix, now);
        true
    }

    /// The prefix has no reason to go any more.
    pub(super) fn forget(&mut self, prefix: &IpNet) {
        self.held.remove(prefix);
        self.let_go.remove(prefix);
    }

    /// Forgets prefixes that there are no more.
    pub(super) fn keep_only(&mut self, exists: impl Fn(&IpNet) -> bool) {
        self.withdrawn.retain(|prefix, _| exists(prefix));
        self.held.retain(&exists);
        self.let_go.retain(&exists);
    }

    /// Closes it, and lets go what it held; says how many.
    pub(super) fn resume(&mut self) -> usize {
        let held = self.held.len();
        self.let_go.append(&mut self.held);
        self.withdrawn.clear();
        self.tripped = None;
        held
    }

    /// It is open.
    pub(super) const fn is_tripped(&self) -> bool {
        self.tripped.is_some()
    }

    /// How many prefixes it holds.
    pub(super) fn held(&self) -> usize {
        self.held.len()
    }
}

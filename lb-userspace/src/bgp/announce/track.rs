//! Where one prefix stands, and how it gets from one standing to the next.
//!
//! Pure. Health passes the guards on its way out; the operator's force is lowered first, then goes.

use std::collections::BTreeSet;
use std::time::Duration;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::Validity;
use super::facts::Seen;
use super::gate::{Health, Index};
use super::guard::{self, Back, Breaker, Leave, Return};
use super::scope::Scope;
use crate::desired::bgp::{Guards, PrefixSettings};
use crate::desired::{LastAnnouncer, VipKey};

/// Where a prefix stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Standing {
    /// Never decided.
    Undecided,
    /// Announced.
    Announced,
    /// Announced with lowered preference, withdrawn at this time.
    Lowering(Duration),
    /// Not announced, and was before.
    Withdrawn,
    /// Not announced, and was not before.
    Withheld,
}

impl Standing {
    /// Peers have it.
    pub(super) const fn is_out(self) -> bool {
        matches!(self, Self::Announced | Self::Lowering(_))
    }
}

/// What a restart must not forget of a prefix.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Record {
    pub(super) settings: PrefixSettings,
    pub(super) standing: Standing,
    /// When it got there.
    pub(super) since: Duration,
    /// Not configured any more.
    pub(super) removed: bool,
    /// And it may go; else it is kept.
    #[serde(default)]
    pub(super) released: bool,
    /// VIPs below `min_up` and not yet back at `min_up_return`.
    low: BTreeSet<VipKey>,
    /// Withdrawals because of health that are not forgotten.
    strikes: u32,
    /// It does not come back sooner.
    not_before: Option<Duration>,
    /// Health has wanted it gone, and others were seen, since then.
    leaving: Option<Duration>,
    /// Whether it comes back, should it have been the last one.
    #[serde(default)]
    back: Return,
}

/// What all prefixes are judged with.
pub(super) struct Context<'a> {
    pub(super) index: Index<'a>,
    pub(super) guards: &'a Guards,
    pub(super) lower: Duration,
    pub(super) node: &'a str,
    pub(super) now: Duration,
    /// lbd shuts down and takes the routes along.
    pub(super) shutdown: bool,
    /// So shortly after the start that what fails may just not work yet.
    pub(super) starting: bool,
    /// What RPKI says of a prefix; `None` if nobody asks it.
    pub(super) roas: &'a dyn Fn(&IpNet) -> Option<Validity>,
}

/// A prefix.
#[derive(Debug)]
pub(super) struct Track {
    pub(super) prefix: IpNet,
    pub(super) record: Record,
    pub(super) scope: Scope,
    /// Decided since the start: what stands was not only remembered.
    pub(super) decided: bool,
    /// Why it stands there.
    pub(super) why: String,
    /// The guard that keeps it, if health would withdraw it.
    pub(super) kept: Option<&'static str>,
    /// When it is to be judged again even if no fact changes.
    pub(super) due: Option<Duration>,
}

impl Track {
    pub(super) fn new(prefix: IpNet, settings: PrefixSettings, now: Duration) -> Self {
        let record = Record {
            settings,
            standing: Standing::Undecided,
            since: now,
            removed: false,
            released: false,
            low: BTreeSet::new(),
            strikes: 0,
            not_before: None,
            leaving: None,
            back: Return::default(),
        };
        Self::restored(prefix, record)
    }

    pub(super) fn restored(prefix: IpNet, record: Record) -> Self {
        let (scope, why) = (Scope::default(), "not decided yet".to_owned());
        Self { prefix, record, scope, decided: false, why, kept: None, due: None }
    }

    /// Goes to where the facts lead.
    pub(super) fn step(&mut self, context: &Context<'_>, breaker: &mut Breaker, seen: &Seen) {
        self.due = None;
        self.kept = self.kept.filter(|guard| *guard != REMOVED);
        let gone = self.record.removed && self.record.released;
        let force = match context.shutdown {
            true => Some("lbd shuts down".to_owned()),
            false if gone => Some("it is not configured any more".to_owned()),
            false => context.index.force(&self.scope),
        };
        // What is not configured any more has no VIPs to judge.
        let health = match self.record.removed {
            true => Health::Unknown(String::new()),
            false => context.index.judge(
                &self.scope,
                &mut self.record.low,
                context.starting && !self.decided,
            ),
        };
        if let Some(why) = force {
            return self.forced(why, context, breaker);
        }
        if matches!(self.record.standing, Standing::Lowering(_)) {
            self.stand(Standing::Announced, "", context.now);
        }
        match health {
            _ if self.is_held() => {
                self.decided = true;
                self.kept = Some(REMOVED);
            }
            // Nothing changes, but what is about to leave does not on old evidence.
            Health::Unknown(_) if self.decided => {
                self.record.leaving = None;
                self.record.back.doubt();
            }
            Health::Unknown(why) => self.why = why,
            Health::Able => self.able(context, breaker, seen),
            Health::Unable(why) => self.unable(why, context, breaker, seen),
        }
    }

    /// It is not configured any more, and kept until somebody looks.
    pub(super) const fn is_held(&self) -> bool {
        self.record.removed && !self.record.released
    }

    /// The configuration has it no more; `kept`: nor may it go yet.
    pub(super) const fn remove(&mut self, kept: bool) {
        // What goes already or is kept already goes on so.
        if !self.record.removed {
            (self.record.removed, self.record.released) = (true, !kept);
        }
    }

    /// The operator wants it gone.
    fn forced(&mut self, why: String, context: &Context<'_>, breaker: &mut Breaker) {
        self.decided = true;
        self.kept = None;
        self.record.leaving = None;
        self.record.back = Return::default();
        breaker.forget(&self.prefix);
        match self.record.standing {
            Standing::Withdrawn | Standing::Withheld => self.why = why,
            Standing::Undecided => self.stand(Standing::Withheld, why, context.now),
            Standing::Announced => {
                // Nobody waits for others while packets for it are dropped.
                let served = !self.record.removed || context.index.serves(&self.scope);
                let time = if served { context.lower } else { Duration::ZERO };
                self.lower(context.now + time, why, context.now);
            }
            Standing::Lowering(until) => self.lower(until, why, context.now),
        }
    }

    /// Is lowered until then, and withdrawn from then on.
    fn lower(&mut self, until: Duration, why: String, now: Duration) {
        if until <= now {
            return self.stand(Standing::Withdrawn, why, now);
        }
        self.stand(Standing::Lowering(until), why, now);
        self.due = Some(until);
    }

    /// It can be served.
    fn able(&mut self, context: &Context<'_>, breaker: &mut Breaker, seen: &Seen) {
        self.decided = true;
        self.kept = None;
        self.record.leaving = None;
        self.record.back = Return::default();
        breaker.forget(&self.prefix);
        if self.record.standing.is_out() {
            self.why.clear();
            return;
        }
        let never = matches!(self.record.standing, Standing::Undecided | Standing::Withheld);
        let away = if never { Standing::Withheld } else { Standing::Withdrawn };
        // Flapping is better than nobody.
        let is_last = self.record.settings.last_announcer == LastAnnouncer::Keep
            && matches!(seen, Seen::Nobody);
        let wait = self.record.not_before.filter(|then| *then > context.now && !is_last);
        if (context.roas)(&self.prefix) == Some(Validity::Invalid) {
            self.stand(away, INVALID, context.now);
        } else if wait.is_some() {
            let strikes = self.record.strikes;
            let why = format!("can be served again, and backs off after {strikes} withdrawals");
            self.stand(away, why, context.now);
            self.due = wait;
        } else {
            self.stand(Standing::Announced, "", context.now);
        }
    }

    /// It cannot be served.
    fn unable(&mut self, why: String, context: &Context<'_>, breaker: &mut Breaker, seen: &Seen) {
        let now = context.now;
        self.decided = true;
        self.kept = None;
        let jitter = guard::jitter(context.node, &self.prefix, self.record.back.rounds());
        if self.record.standing == Standing::Withdrawn && self.comes_back(context, jitter, seen) {
            self.stand(Standing::Announced, "", now);
        }
        match self.record.standing {
            Standing::Undecided => return self.stand(Standing::Withheld, why, now),
            Standing::Withdrawn | Standing::Withheld => {
                self.why = why;
                return;
            }
            Standing::Announced | Standing::Lowering(_) => self.why.clone_from(&why),
        }
        let since = match seen {
            Seen::Others { .. } => *self.record.leaving.get_or_insert(now),
            Seen::Nobody | Seen::Unknown => {
                self.record.leaving = None;
                now
            }
        };
        let setting = self.record.settings.last_announcer;
        match guard::last_announcer(setting, seen, since, jitter, now) {
            Leave::Keep(guard) => self.kept = Some(guard),
            Leave::At(then) => self.due = Some(then),
            Leave::Now if breaker.allows(self.prefix, context.guards, now) => {
                self.struck(context.guards, now);
                if setting == LastAnnouncer::Keep {
                    self.record.back.leave(now);
                }
                self.stand(Standing::Withdrawn, why, now);
            }
            Leave::Now => self.kept = Some(BREAKER),
        }
    }

    /// Others were seen to have it when it left, and now nobody has: they left at the same time.
    fn comes_back(&mut self, context: &Context<'_>, jitter: Duration, seen: &Seen) -> bool {
        if self.record.settings.last_announcer == LastAnnouncer::Withdraw {
            return false;
        }
        match self.record.back.judge(seen, jitter, context.now) {
            Back::Now => (context.roas)(&self.prefix) != Some(Validity::Invalid),
            Back::At(then) => {
                self.due = Some(then);
                false
            }
            Back::Never => false,
        }
    }

    /// Counts a withdrawal because of health; one after a return is the same one once more.
    fn struck(&mut self, guards: &Guards, now: Duration) {
        let record = &mut self.record;
        if record.back.rounds() > 0 {
            record.leaving = None;
            return;
        }
        if now.saturating_sub(record.since) >= guards.backoff_max {
            record.strikes = 0;
        }
        record.strikes = record.strikes.saturating_add(1);
        record.not_before = Some(now + guard::back_off(guards, record.strikes));
        record.leaving = None;
    }

    fn stand(&mut self, standing: Standing, why: impl Into<String>, now: Duration) {
        if self.record.standing != standing {
            self.record.standing = standing;
            self.record.since = now;
        }
        self.why = why.into();
    }
}

/// Why a prefix is not announced that RPKI forbids.
pub(super) const INVALID: &str = "no ROA allows the local AS to announce it (RPKI: Invalid)";
/// Why the breaker keeps a prefix.
const BREAKER: &str = "the breaker is open: too many prefixes lost at once";
/// Why a prefix is kept that is not configured any more.
const REMOVED: &str = "the configuration takes away too many prefixes at once";

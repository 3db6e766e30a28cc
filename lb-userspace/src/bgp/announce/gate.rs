//! The gate: whether a prefix can be served here.
//!
//! Pure but for the memory of hysteresis, which VIPs are short of backends, that the caller keeps.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use super::facts::{Facts, VipFacts};
use super::scope::Scope;
use crate::desired::VipKey;

/// What the facts say of a prefix.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Health {
    /// Not enough is known: no reason to change anything.
    Unknown(String),
    /// It can be served.
    Able,
    /// It cannot.
    Unable(String),
}

/// Facts with their VIPs by key.
pub(super) struct Index<'a> {
    facts: &'a Facts,
    vips: BTreeMap<VipKey, &'a VipFacts>,
}

impl<'a> Index<'a> {
    pub(super) fn new(facts: &'a Facts) -> Self {
        Self { facts, vips: facts.vips.iter().map(|vip| (vip.key, vip)).collect() }
    }

    /// Why the operator wants the prefix gone from here.
    ///
    /// One drained VIP takes its whole prefix along: there is no other way to move its clients.
    /// A covering prefix goes when nothing inside it is left.
    pub(super) fn force(&self, scope: &Scope) -> Option<String> {
        if self.facts.node_drained {
            return Some("the node is drained".to_owned());
        }
        let drained = |key: &VipKey| self.vips.get(key).filter(|vip| vip.drained);
        let own = scope.own.iter().find_map(drained);
        let all = !scope.inner.is_empty() && scope.inner.iter().all(|key| drained(key).is_some());
        match own {
            Some(vip) => Some(format!("VIP {} is drained", vip.name)),
            None if scope.own.is_empty() && all => Some("all its VIPs are drained".to_owned()),
            None => None,
        }
    }

    /// Whether packets for the prefix may still be forwarded: not all of its VIPs are gone from the
    /// configuration.
    pub(super) fn serves(&self, scope: &Scope) -> bool {
        let mut vips = scope.own.iter().chain(&scope.inner).peekable();
        vips.peek().is_none() || vips.any(|key| self.vips.contains_key(key))
    }

    /// Whether the prefix can be served. `low` remembers its VIPs that fell below `min_up` and are
    /// not back at `min_up_return`. While `starting`, what does not work may just not work yet.
    pub(super) fn judge(
        &self,
        scope: &Scope,
        low: &mut BTreeSet<VipKey>,
        starting: bool,
    ) -> Health {
        let broken = |why: String| match starting {
            true => Health::Unknown(why),
            false => Health::Unable(why),
        };
        if let Err(why) = self.facts.attached.as_ref().and(self.facts.tables.as_ref()) {
            return broken(why.clone());
        }
        if let Err(why) = &self.facts.verdicts {
            return Health::Unknown(why.clone());
        }
        let covering = scope.own.is_empty();
        let vips = if covering { &scope.inner } else { &scope.own };
        low.retain(|key| vips.contains(key));
        // All are judged, so that `low` does not depend on their order.
        let each: Vec<Health> = vips.iter().map(|key| self.vip(*key, low, broken)).collect();
        let is_bad = |health: &&Health| matches!(health, Health::Unable(_));
        let is_open = |health: &&Health| matches!(health, Health::Unknown(_));
        let served = each.is_empty() || each.contains(&Health::Able);
        let (bad, open) = (each.iter().find(is_bad), each.iter().find(is_open));
        match (covering, bad, open) {
            (true, _, _) if served => Health::Able,
            (true, _, Some(open)) => open.clone(),
            (true, Some(_), None) => Health::Unable("none of its VIPs can be served".to_owned()),
            (false, Some(health), _) | (false, None, Some(health)) => health.clone(),
            (_, None, None) => Health::Able,
        }
    }

    fn vip(
        &self,
        key: VipKey,
        low: &mut BTreeSet<VipKey>,
        broken: impl Fn(String) -> Health,
    ) -> Health {
        let Some(vip) = self.vips.get(&key) else {
            return Health::Unknown(format!("nothing is known of {key}"));
        };
        let needed = match low.contains(&key) {
            true => vip.min_up_return.max(vip.min_up),
            false => vip.min_up,
        };
        if vip.up < needed {
            low.insert(key);
            return Health::Unable(Short { vip, needed }.to_string());
        }
        low.remove(&key);
        match &vip.probe {
            Some(Ok(())) => Health::Able,
            None => Health::Unknown(format!("VIP {} ({key}) is not probed yet", vip.name)),
            Some(Err(why)) => {
                broken(format!("the probe to VIP {} ({key}) failed: {why}", vip.name))
            }
        }
    }
}

/// A VIP that is short of backends, in words.
struct Short<'a> {
    vip: &'a VipFacts,
    needed: u32,
}

impl fmt::Display for Short<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let VipFacts { name, key, pool, up, .. } = self.vip;
        write!(f, "VIP {name} ({key}) has {up} backends up in pool {pool}, {} needed", self.needed)
    }
}

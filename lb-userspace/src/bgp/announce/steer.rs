//! Orders that hold for a time: steering and shedding.
//!
//! Pure. Nothing here holds for ever: every order has an end, and what it did ends with it, since
//! routes are always made anew from the configuration and the orders that hold.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::order::{OrderReport, Steer, limits};
use crate::bgp::community::Community;
use crate::desired::bgp::{AttributeSettings, Peer};
use crate::desired::format_duration;

/// An order of steering that holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Active {
    pub(super) id: u64,
    until: Duration,
    /// What its target was when it was ordered.
    prefixes: BTreeSet<IpNet>,
    pub(super) steer: Steer,
}

impl Active {
    fn is_for(&self, prefix: &IpNet, peer: &str) -> bool {
        let peers = &self.steer.peers;
        self.prefixes.contains(prefix) && (peers.is_empty() || peers.contains(peer))
    }

    /// Its name as a layer.
    pub(super) fn name(&self) -> String {
        format!("steer {}", self.id)
    }

    /// What it adds to a route.
    pub(super) fn settings(&self, peer: &Peer, local_as: u32) -> AttributeSettings {
        let Steer { prepend, med, local_preference, graceful_shutdown, .. } = self.steer;
        let mut settings = AttributeSettings {
            communities: self.steer.communities.clone(),
            large_communities: self.steer.large_communities.clone(),
            prepend,
            med,
            local_preference,
            ..AttributeSettings::default()
        };
        if graceful_shutdown {
            lower(&mut settings, peer, local_as);
        }
        settings
    }

    /// The more-specifics that it adds inside `prefix`, and not inside a longer one of its own.
    pub(super) fn more_specifics<'a>(
        &'a self,
        prefix: &'a IpNet,
    ) -> impl Iterator<Item = &'a IpNet> {
        self.steer.more_specifics.iter().filter(move |it| self.parent(it) == Some(prefix))
    }

    fn parent(&self, more_specific: &IpNet) -> Option<&IpNet> {
        let around = self.prefixes.iter().filter(|prefix| prefix.contains(more_specific));
        around.max_by_key(|prefix| prefix.prefix_len())
    }

    fn text(&self) -> String {
        format!("{}: {}", self.name(), words(&self.steer, &self.prefixes))
    }
}

/// GRACEFUL_SHUTDOWN; to iBGP also LOCAL_PREF 0, which the community asks for (RFC 8326 section
/// 4.2), since routers do it only with a filter of their own.
pub(super) fn lower(settings: &mut AttributeSettings, peer: &Peer, local_as: u32) {
    settings.communities.insert(Community::GRACEFUL_SHUTDOWN);
    if peer.is_internal(local_as) {
        settings.local_preference = Some(0);
    }
}

/// Shedding that holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Shedding {
    id: u64,
    pub(super) level: u32,
    until: Duration,
}

/// The orders that hold.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Book {
    last: u64,
    steers: BTreeMap<u64, Active>,
    shedding: Option<Shedding>,
}

impl Book {
    /// Orders of steering that are for this route, oldest first.
    pub(super) fn steers<'a>(
        &'a self,
        prefix: &'a IpNet,
        peer: &'a str,
    ) -> impl Iterator<Item = &'a Active> {
        self.steers.values().filter(move |it| it.is_for(prefix, peer))
    }

    /// The level of shedding; 0 is none.
    pub(super) fn level(&self) -> u32 {
        self.shedding.map_or(0, |shedding| shedding.level)
    }

    /// What all its orders poison this route with.
    pub(super) fn poison(&self, prefix: &IpNet, peer: &str) -> BTreeSet<u32> {
        self.steers(prefix, peer).flat_map(|it| it.steer.poison.iter().copied()).collect()
    }

    /// Some order poisons this prefix, for some peer.
    pub(super) fn poisons_any(&self, prefix: &IpNet) -> bool {
        let mut steers = self.steers.values();
        steers.any(|it| it.prefixes.contains(prefix) && !it.steer.poison.is_empty())
    }

    /// Some order poisons something.
    pub(super) fn poisons(&self) -> bool {
        self.steers.values().any(|it| !it.steer.poison.is_empty())
    }

    /// The order that announces this more-specific, inside another prefix than one of these.
    pub(super) fn rival(&self, more_specific: &IpNet, prefixes: &BTreeSet<IpNet>) -> Option<u64> {
        let mut steers = self.steers.values().filter(|it| {
            it.steer.more_specifics.contains(more_specific) && it.prefixes != *prefixes
        });
        steers.next().map(|it| it.id)
    }

    /// Takes an order; the caller has checked it.
    pub(super) fn steer(&mut self, steer: Steer, prefixes: BTreeSet<IpNet>, now: Duration) -> u64 {
        self.last += 1;
        let active = Active { id: self.last, until: now + steer.lasts, prefixes, steer };
        self.steers.insert(self.last, active);
        self.last
    }

    /// Sheds at a level, instead of the one before; 0 ends it.
    pub(super) fn shed(&mut self, level: u32, lasts: Duration, now: Duration) -> Option<u64> {
        self.shedding = None;
        if level == 0 {
            return None;
        }
        self.last += 1;
        self.shedding = Some(Shedding { id: self.last, level, until: now + lasts });
        Some(self.last)
    }

    /// Ends an order; `false` if none has this number.
    pub(super) fn end(&mut self, id: u64) -> bool {
        let shed = self.shedding.take_if(|shedding| shedding.id == id);
        self.steers.remove(&id).is_some() || shed.is_some()
    }

    /// Ends what is over; says whether anything was.
    pub(super) fn expire(&mut self, now: Duration) -> bool {
        let before = self.steers.len();
        self.steers.retain(|_, it| now < it.until);
        let shed = self.shedding.take_if(|shedding| shedding.until <= now);
        self.steers.len() < before || shed.is_some()
    }

    /// When the next order is over.
    pub(super) fn deadline(&self) -> Option<Duration> {
        let steers = self.steers.values().map(|it| it.until);
        steers.chain(self.shedding.map(|it| it.until)).min()
    }

    /// Whether there is room for another order.
    pub(super) fn has_room(&self) -> bool {
        self.steers.len() < limits::MAX_STEERS
    }

    /// All orders, by number.
    pub(super) fn report(&self) -> Vec<OrderReport> {
        let steers = self.steers.values();
        let steers = steers.map(|it| OrderReport { id: it.id, text: it.text(), until: it.until });
        let shed = self.shedding.map(|Shedding { id, level, until }| OrderReport {
            id,
            text: format!("shed {id}: level {level}"),
            until,
        });
        let mut orders: Vec<OrderReport> = steers.chain(shed).collect();
        orders.sort_by_key(|order| order.id);
        orders
    }
}

/// What an order of steering does, in words.
pub(super) fn words(steer: &Steer, prefixes: &BTreeSet<IpNet>) -> String {
    let mut what = Vec::new();
    let mut say = |is: bool, words: String| {
        if is {
            what.push(words);
        }
    };
    say(steer.withdraw, "withdraw".to_owned());
    say(steer.prepend > 0, format!("prepend {}", steer.prepend));
    say(steer.med.is_some(), format!("MED {}", steer.med.unwrap_or(0)));
    let local = steer.local_preference;
    say(local.is_some(), format!("local preference {}", local.unwrap_or(0)));
    say(steer.graceful_shutdown, "graceful shutdown".to_owned());
    let all = &steer.communities;
    say(!all.is_empty(), format!("communities {}", list(all)));
    let all = &steer.large_communities;
    say(!all.is_empty(), format!("large communities {}", list(all)));
    say(!steer.more_specifics.is_empty(), format!("also {}", list(&steer.more_specifics)));
    say(!steer.poison.is_empty(), format!("poison {}", list(&steer.poison)));
    let peers = if steer.peers.is_empty() { "all peers".to_owned() } else { list(&steer.peers) };
    let lasts = format_duration(steer.lasts);
    format!("{} to {peers} for {lasts}: {}", list(prefixes), what.join(", "))
}

/// With blanks between.
pub(super) fn list<T: ToString>(all: impl IntoIterator<Item = T>) -> String {
    all.into_iter().map(|it| it.to_string()).collect::<Vec<String>>().join(" ")
}

//! What the peer announces: counted, and of a monitor kept, if it is about our own prefixes.
//!
//! A part of `session`.

use std::collections::BTreeSet;
use std::sync::Arc;

use ipnet::IpNet;

use crate::bgp::route::{Attributes, Rib};
use crate::bgp::wire::{Family, Update};

/// The peer's routes.
#[derive(Debug, Default)]
pub(super) struct Inbound {
    /// Of every route the prefix: at most as many as the peer may announce, and our own.
    heard: BTreeSet<IpNet>,
    /// How many of them are not ours: a router that sends our routes back does not announce too
    /// much by that.
    foreign: usize,
    /// Routes of our own prefixes.
    pub(super) kept: Rib,
    /// During an enhanced refresh: what was not announced again yet.
    stale: BTreeSet<IpNet>,
}

impl Inbound {
    /// Takes an UPDATE; routes of our `own` prefixes are kept if the peer is a monitor.
    ///
    /// # Errors
    /// The family in which the peer announced more than `max` prefixes in all, besides our own.
    pub(super) fn take(
        &mut self,
        update: Update,
        own: &BTreeSet<IpNet>,
        monitor: bool,
        max: usize,
    ) -> Result<(), Family> {
        for prefix in &update.withdrawn {
            self.remove(prefix, own);
        }
        let mut route = update.route;
        let mut shared: Option<Arc<Attributes>> = None;
        for (prefix, next_hop) in update.announced {
            self.stale.remove(&prefix);
            let is_own = own.contains(&prefix);
            self.foreign += usize::from(self.heard.insert(prefix) && !is_own);
            if self.foreign > max {
                return Err(Family::of(&prefix));
            }
            if monitor && is_own {
                let same = shared.filter(|it| it.next_hop == next_hop);
                let kept = same.unwrap_or_else(|| {
                    route.next_hop = next_hop;
                    Arc::new(route.clone())
                });
                self.kept.insert(prefix, Arc::clone(&kept));
                shared = Some(kept);
            }
        }
        Ok(())
    }

    fn remove(&mut self, prefix: &IpNet, own: &BTreeSet<IpNet>) {
        let was_foreign = self.heard.remove(prefix) && !own.contains(prefix);
        self.foreign -= usize::from(was_foreign);
        self.kept.remove(prefix);
        self.stale.remove(prefix);
    }

    /// Only these are ours now.
    pub(super) fn keep_only(&mut self, own: &BTreeSet<IpNet>) {
        self.kept.retain(|prefix, _| own.contains(prefix));
        self.foreign = self.heard.iter().filter(|prefix| !own.contains(prefix)).count();
    }

    /// The peer begins to announce everything of a family once more.
    pub(super) fn refresh_begins(&mut self, family: Family) {
        let all = self.heard.iter().filter(|prefix| Family::of(prefix) == family);
        self.stale.extend(all.copied());
    }

    /// It has done so: the rest is gone.
    pub(super) fn refresh_ends(&mut self, family: Family, own: &BTreeSet<IpNet>) {
        let gone = self.stale.iter().filter(|prefix| Family::of(prefix) == family);
        for prefix in gone.copied().collect::<Vec<_>>() {
            self.remove(&prefix, own);
        }
    }

    /// How many prefixes it announces.
    pub(super) fn len(&self) -> usize {
        self.heard.len()
    }
}

//! What each peer is to have: the last decision, changed as seldom as the guards ask.
//!
//! Pure. A first announcement and a withdrawal go at once, and so does what the operator orders;
//! another change of attributes waits until the one before is `interval` old.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;

use crate::bgp::route::{Attributes, Rib};

/// The routes that a prefix leads to, its more-specifics among them, by peer.
pub(super) type Group = BTreeMap<(Arc<str>, IpNet), Arc<Attributes>>;

/// A route that a peer is to have.
#[derive(Debug)]
struct Out {
    attributes: Arc<Attributes>,
    /// When these attributes were decided.
    changed: Duration,
}

/// All routes of all peers.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    groups: BTreeMap<IpNet, BTreeMap<(Arc<str>, IpNet), Out>>,
    ribs: BTreeMap<String, Arc<Rib>>,
    /// Prefixes with a change that waits, and until when.
    waiting: BTreeMap<IpNet, Duration>,
}

impl Outbox {
    /// Every peer's routes.
    pub(super) const fn ribs(&self) -> &BTreeMap<String, Arc<Rib>> {
        &self.ribs
    }

    /// A change of this prefix's attributes waits.
    pub(super) fn is_waiting(&self, prefix: &IpNet) -> bool {
        self.waiting.contains_key(prefix)
    }

    /// When the next waiting change may go.
    pub(super) fn deadline(&self) -> Option<Duration> {
        self.waiting.values().min().copied()
    }

    /// There are exactly these peers now; says whether there were others.
    pub(super) fn set_peers(&mut self, peers: &BTreeSet<&str>) -> bool {
        let before = self.ribs.len();
        self.ribs.retain(|name, _| peers.contains(name.as_str()));
        let gone = self.ribs.len() < before;
        let mut new = false;
        for peer in peers {
            if !self.ribs.contains_key(*peer) {
                self.ribs.insert((*peer).to_owned(), Arc::default());
                new = true;
            }
        }
        for group in self.groups.values_mut() {
            group.retain(|(peer, _), _| peers.contains(peer.as_ref()));
        }
        gone || new
    }

    /// Prefixes that have routes.
    pub(super) fn prefixes(&self) -> impl Iterator<Item = &IpNet> {
        self.groups.keys()
    }

    /// Takes what some prefixes lead to now; those with `true` change at once. Says whether any
    /// peer is to have something else than before.
    pub(super) fn take(
        &mut self,
        groups: BTreeMap<IpNet, (Group, bool)>,
        interval: Duration,
        now: Duration,
    ) -> bool {
        let mut changed = false;
        // All that goes, goes first: a more-specific of one prefix may be another one from now on.
        for (prefix, (wanted, _)) in &groups {
            changed |= self.drop_unwanted(prefix, wanted);
        }
        for (prefix, (wanted, at_once)) in groups {
            self.waiting.remove(&prefix);
            let group = self.groups.entry(prefix).or_default();
            for (key, attributes) in wanted {
                let (peer, net) = key.clone();
                match group.entry(key) {
                    Entry::Occupied(out) if out.get().attributes == attributes => continue,
                    Entry::Occupied(out) if !at_once && now < out.get().changed + interval => {
                        let then = out.get().changed + interval;
                        let due = self.waiting.entry(prefix).or_insert(then);
                        *due = then.min(*due);
                        continue;
                    }
                    Entry::Occupied(mut out) => {
                        out.insert(Out { attributes: Arc::clone(&attributes), changed: now });
                    }
                    Entry::Vacant(place) => {
                        place.insert(Out { attributes: Arc::clone(&attributes), changed: now });
                    }
                }
                if let Some(rib) = self.ribs.get_mut(peer.as_ref()) {
                    Arc::make_mut(rib).insert(net, attributes);
                    changed = true;
                }
            }
            if group.is_empty() {
                self.groups.remove(&prefix);
            }
        }
        changed
    }

    fn drop_unwanted(&mut self, prefix: &IpNet, wanted: &Group) -> bool {
        let Some(group) = self.groups.get_mut(prefix) else { return false };
        let gone = group.keys().filter(|key| !wanted.contains_key(*key));
        let gone: Vec<(Arc<str>, IpNet)> = gone.cloned().collect();
        for key in &gone {
            group.remove(key);
            if let Some(rib) = self.ribs.get_mut(key.0.as_ref()) {
                Arc::make_mut(rib).remove(&key.1);
            }
        }
        !gone.is_empty()
    }
}

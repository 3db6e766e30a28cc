//! What the peer has from us, and the shortest way to what it is to have.
//!
//! A part of `session`. Level driven: it compares two tables, and does not remember changes.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

use super::report::Counters;
use crate::bgp::route::{Attributes, Rib};
use crate::bgp::wire::{
    Dialect, Family, RefreshKind, RouteRefresh, Unsendable, announcement, end_of_rib, is_unicast,
    next_hop, withdrawal,
};

/// The routes that a peer has.
#[derive(Debug, Default)]
pub(super) struct Outbound {
    pub(super) sent: Rib,
    /// Wanted routes that cannot be told, and why.
    pub(super) unsendable: BTreeMap<IpNet, Unsendable>,
    /// The peer has had all routes once.
    pub(super) complete: bool,
    /// To be announced once more although the peer has them.
    again: BTreeSet<IpNet>,
    refreshing: BTreeMap<Family, Refresh>,
}

/// An answer to a route refresh.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Refresh {
    /// It has not begun yet.
    Asked,
    /// On the way.
    Running,
    /// On the way, and asked for once more.
    AskedAgain,
}

/// What is known about the peer and the way to it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Channel {
    pub(super) local_as: u32,
    pub(super) local: IpAddr,
    pub(super) dialect: Dialect,
    /// Mark beginning and end of a refresh (RFC 7313).
    pub(super) enhanced: bool,
    /// Mark the end of the first routes (RFC 4724).
    pub(super) end_of_rib: bool,
}

/// Messages to be sent.
#[derive(Debug, Default)]
pub(super) struct Batch {
    pub(super) bytes: Vec<u8>,
    pub(super) messages: u64,
    /// Nothing is left to be said.
    pub(super) done: bool,
}

impl Batch {
    fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
        self.messages += 1;
    }
}

/// Routes with the same attributes, of one family.
type Groups<'a> = BTreeMap<(Family, IpAddr, &'a Arc<Attributes>), Vec<IpNet>>;

/// Wanted routes with their next hops.
type Sendable<'a> = BTreeMap<IpNet, (&'a Arc<Attributes>, IpAddr)>;

impl Outbound {
    /// The peer asks for a family once more.
    pub(super) fn refresh(&mut self, family: Family) {
        if !self.complete {
            // What was sent already goes out again among the first routes.
            self.ask_again(family);
            return;
        }
        let next = match self.refreshing.get(&family) {
            None | Some(Refresh::Asked) => Refresh::Asked,
            Some(Refresh::Running | Refresh::AskedAgain) => Refresh::AskedAgain,
        };
        self.refreshing.insert(family, next);
    }

    fn ask_again(&mut self, family: Family) {
        let all = self.sent.keys().filter(|prefix| Family::of(prefix) == family);
        self.again.extend(all.copied());
    }

    /// Messages that bring the peer nearer to `wanted`, no more than `room` bytes and one message.
    pub(super) fn write(
        &mut self,
        wanted: &Rib,
        channel: &Channel,
        room: usize,
        counters: &mut Counters,
    ) -> Batch {
        let mut batch = Batch::default();
        self.begin_refreshes(channel, &mut batch);
        let wanted = self.sendable(wanted, channel);
        let withdrawn = self.withdraw(&wanted, room, &mut batch, counters);
        batch.done = withdrawn && self.announce(&wanted, channel, room, &mut batch, counters);
        if batch.done {
            self.end_refreshes(channel, &mut batch);
            if !self.complete {
                self.complete = true;
                let families = Family::ALL.into_iter();
                for family in families.filter(|it| channel.end_of_rib && channel.dialect.has(*it)) {
                    batch.push(&end_of_rib(family));
                }
            }
        }
        batch
    }

    /// The wanted routes that can be told, and their next hops.
    fn sendable<'a>(&mut self, wanted: &'a Rib, channel: &Channel) -> Sendable<'a> {
        self.unsendable.clear();
        let mut known: BTreeMap<(Family, &Attributes), Result<IpAddr, Unsendable>> =
            BTreeMap::new();
        let mut all = BTreeMap::new();
        for (prefix, attributes) in wanted {
            let key = (Family::of(prefix), &**attributes);
            let judged = known.entry(key).or_insert_with(|| judge(prefix, attributes, channel));
            match judged {
                _ if !is_unicast(prefix) => {
                    self.unsendable.insert(*prefix, Unsendable::Prefix);
                }
                Ok(next_hop) => {
                    all.insert(*prefix, (attributes, *next_hop));
                }
                Err(reason) => {
                    self.unsendable.insert(*prefix, *reason);
                }
            }
        }
        all
    }

    /// Withdraws what is no longer wanted; whether that was all of it.
    fn withdraw(
        &mut self,
        wanted: &Sendable<'_>,
        room: usize,
        batch: &mut Batch,
        counters: &mut Counters,
    ) -> bool {
        for family in Family::ALL {
            let gone = self.sent.keys().filter(|it| Family::of(it) == family);
            let gone: Vec<_> = gone.filter(|it| !wanted.contains_key(it)).copied().collect();
            let mut rest = gone.as_slice();
            while !rest.is_empty() {
                if batch.bytes.len() >= room {
                    return false;
                }
                let Ok((bytes, taken)) = withdrawal(rest) else {
                    break;
                };
                let (now, later) = rest.split_at(taken);
                for prefix in now {
                    self.sent.remove(prefix);
                    self.again.remove(prefix);
                }
                batch.push(&bytes);
                counters.withdrawn += count(now);
                counters.updates_out += 1;
                rest = later;
            }
        }
        true
    }

    /// Announces what is new, different, or asked for again; whether that was all of it.
    fn announce(
        &mut self,
        wanted: &Sendable<'_>,
        channel: &Channel,
        room: usize,
        batch: &mut Batch,
        counters: &mut Counters,
    ) -> bool {
        let mut groups: Groups<'_> = BTreeMap::new();
        for (prefix, (attributes, next_hop)) in wanted {
            let sent = self.sent.get(prefix);
            let same = sent.is_some_and(|it| Arc::ptr_eq(it, attributes) || it == *attributes);
            if !same || self.again.contains(prefix) {
                let group = (Family::of(prefix), *next_hop, *attributes);
                groups.entry(group).or_default().push(*prefix);
            }
        }
        for ((_, next_hop, attributes), prefixes) in groups {
            let mut rest = prefixes.as_slice();
            while !rest.is_empty() {
                if batch.bytes.len() >= room {
                    return false;
                }
                let Ok((bytes, taken)) = announcement(attributes, rest, next_hop, channel.dialect)
                else {
                    break;
                };
                let (now, later) = rest.split_at(taken);
                for prefix in now {
                    self.sent.insert(*prefix, Arc::clone(attributes));
                    self.again.remove(prefix);
                }
                batch.push(&bytes);
                counters.announced += count(now);
                counters.updates_out += 1;
                rest = later;
            }
        }
        true
    }

    fn begin_refreshes(&mut self, channel: &Channel, batch: &mut Batch) {
        for family in Family::ALL {
            if self.refreshing.get(&family) == Some(&Refresh::Asked) {
                self.refreshing.insert(family, Refresh::Running);
                self.ask_again(family);
                if channel.enhanced {
                    batch.push(&RouteRefresh { family, kind: RefreshKind::Begin }.bytes());
                }
            }
        }
    }

    /// Everything is said: the refreshes are over, and those asked for meanwhile begin.
    fn end_refreshes(&mut self, channel: &Channel, batch: &mut Batch) {
        self.again.clear();
        for (family, refresh) in std::mem::take(&mut self.refreshing) {
            if channel.enhanced {
                batch.push(&RouteRefresh { family, kind: RefreshKind::End }.bytes());
            }
            if refresh == Refresh::AskedAgain {
                self.refreshing.insert(family, Refresh::Asked);
                batch.done = false;
            }
        }
    }
}

/// Whether routes with these attributes can be told, and with which next hop.
fn judge(prefix: &IpNet, attributes: &Attributes, channel: &Channel) -> Result<IpAddr, Unsendable> {
    let family = Family::of(prefix);
    let dialect = channel.dialect;
    if !dialect.has(family) {
        return Err(Unsendable::Family);
    }
    if !dialect.internal && attributes.as_path.first() != Some(&channel.local_as) {
        return Err(Unsendable::Path);
    }
    let next_hop = next_hop(family, attributes, channel.local, dialect)?;
    // One that is no unicast prefix says nothing about the attributes.
    match announcement(attributes, std::slice::from_ref(prefix), next_hop, dialect) {
        Ok(_) | Err(Unsendable::Prefix) => Ok(next_hop),
        Err(reason) => Err(reason),
    }
}

fn count(prefixes: &[IpNet]) -> u64 {
    u64::try_from(prefixes.len()).unwrap_or(0)
}

//! The state of the resolver: links, routes asked for and neighbours, and the next hops that
//! follow from them.
//!
//! Pure: answers, notices and the time come in; lookups and neighbour steps to be carried out and
//! the table of next hops come out. A neighbour that changes touches only the destinations behind
//! it and no route; a route that changes touches only the destinations it covers.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use super::neighbours::{Key, Neighbours, Sighting, State, Step};
use super::{
    FULL_PASS_INTERVAL, LOOKUP_DEBOUNCE, Link, MAX_DESTINATIONS, MAX_HOPS, MAX_LINKS,
    NeighbourMode, NetlinkError, NextHop, NextHops, Path, REPORT_LATEST, REPORT_QUIET, Unresolved,
};

/// Which route answer is wanted.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Lookup {
    /// The one next hop that the kernel would use, with the path MTU it learned.
    Choice,
    /// All next hops of the route, for when the neighbour of the chosen one is dead.
    Alternatives,
}

/// One next hop of a route.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Hop {
    pub(super) interface: u32,
    /// `None`: the destination itself is on the link.
    pub(super) gateway: Option<IpAddr>,
    /// The route's own MTU in bytes, if it has one.
    pub(super) mtu: Option<u32>,
}

impl Hop {
    fn neighbour(&self, destination: IpAddr) -> Key {
        Key { interface: self.interface, address: self.gateway.unwrap_or(destination) }
    }
}

/// The destinations of a route.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Prefix {
    pub(super) address: IpAddr,
    /// In bits; longer than the address means the address itself.
    pub(super) length: u8,
}

impl Prefix {
    /// The first and the last address.
    pub(super) fn range(&self) -> RangeInclusive<IpAddr> {
        match self.address {
            IpAddr::V4(v4) => {
                let host = u32::MAX.checked_shr(u32::from(self.length)).unwrap_or(0);
                let first = v4.to_bits() & !host;
                IpAddr::V4(first.into())..=IpAddr::V4((first | host).into())
            }
            IpAddr::V6(v6) => {
                let host = u128::MAX.checked_shr(u32::from(self.length)).unwrap_or(0);
                let first = v6.to_bits() & !host;
                IpAddr::V6(first.into())..=IpAddr::V6((first | host).into())
            }
        }
    }
}

#[derive(Debug)]
struct Destination {
    /// The kernel's choice, then its alternatives once they were asked for; or why there are none.
    hops: Result<Vec<Hop>, Unresolved>,
    alternatives_known: bool,
}

impl Destination {
    fn uses(&self, interface: u32) -> bool {
        self.hops.iter().flatten().any(|hop| hop.interface == interface)
    }
}

/// See the file's header.
#[derive(Debug)]
pub(super) struct Resolution {
    links: BTreeMap<u32, Link>,
    destinations: BTreeMap<IpAddr, Destination>,
    neighbours: Neighbours,
    lookups: BTreeSet<(IpAddr, Lookup)>,
    lookups_due: Duration,
    /// When all destinations are to be looked up again, and when that was done last.
    full_pass_due: Option<Duration>,
    full_pass_done: Option<Duration>,
    next_hops: NextHops,
    reported: NextHops,
    /// How many next hops wait for a first answer: of a route, or of a neighbour.
    waiting: usize,
    changed: Option<Change>,
}

/// A change that was not reported yet.
#[derive(Clone, Copy, Debug)]
struct Change {
    first: Duration,
    last: Duration,
}

impl Resolution {
    pub(super) fn new(mode: NeighbourMode) -> Self {
        Self {
            links: BTreeMap::new(),
            destinations: BTreeMap::new(),
            neighbours: Neighbours::new(mode),
            lookups: BTreeSet::new(),
            lookups_due: Duration::ZERO,
            full_pass_due: None,
            full_pass_done: None,
            next_hops: NextHops::new(),
            reported: NextHops::new(),
            waiting: 0,
            changed: None,
        }
    }

    pub(super) fn mode(&self) -> NeighbourMode {
        self.neighbours.mode()
    }

    pub(super) fn link_named(&self, name: &str) -> Option<&Link> {
        self.links.values().find(|link| &*link.name == name)
    }

    /// From now on exactly these destinations are followed.
    ///
    /// # Errors
    ///
    /// [`NetlinkError::TooManyDestinations`]; nothing is changed then.
    pub(super) fn set_destinations(
        &mut self,
        wanted: &BTreeSet<IpAddr>,
        now: Duration,
    ) -> Result<(), NetlinkError> {
        if wanted.len() > MAX_DESTINATIONS {
            return Err(NetlinkError::TooManyDestinations(wanted.len()));
        }
        let gone: Vec<IpAddr> =
            self.destinations.keys().filter(|known| !wanted.contains(known)).copied().collect();
        for destination in gone {
            self.forget(destination, now);
        }
        for destination in wanted {
            if self.destinations.contains_key(destination) {
                continue;
            }
            let unknown = Destination { hops: Err(Unresolved::Pending), alternatives_known: false };
            self.destinations.insert(*destination, unknown);
            self.ask(*destination, Lookup::Choice, now);
            self.evaluate(*destination, now);
        }
        Ok(())
    }

    fn forget(&mut self, destination: IpAddr, now: Duration) {
        if let Some(Destination { hops: Ok(hops), .. }) = self.destinations.remove(&destination) {
            for hop in hops {
                self.neighbours.remove_user(&hop.neighbour(destination), destination, now);
            }
        }
        self.lookups.remove(&(destination, Lookup::Choice));
        self.lookups.remove(&(destination, Lookup::Alternatives));
        let before = self.next_hops.remove(&destination);
        self.waiting -= usize::from(before.as_ref().is_some_and(is_waiting));
        self.note_change(now);
    }

    /// A link appeared or changed.
    pub(super) fn link(&mut self, link: Link, now: Duration) {
        let before = self.links.get(&link.index);
        if before == Some(&link) || (self.links.len() >= MAX_LINKS && before.is_none()) {
            return;
        }
        let index = link.index;
        self.neighbours.set_interface(index, link.up, now);
        self.links.insert(index, link);
        self.link_changed(index, now);
    }

    /// A link is gone.
    pub(super) fn link_gone(&mut self, index: u32, now: Duration) {
        if self.links.remove(&index).is_some() {
            self.neighbours.set_interface(index, false, now);
            self.link_changed(index, now);
        }
    }

    /// The destinations behind the link are worked out and asked for again. Any other may have a
    /// next hop there that comes into use now (of a multipath route, which the kernel does not
    /// announce then); that is for the next full pass.
    fn link_changed(&mut self, index: u32, now: Duration) {
        let behind: Vec<IpAddr> = self
            .destinations
            .iter()
            .filter(|(_, destination)| destination.uses(index))
            .map(|(address, _)| *address)
            .collect();
        for address in behind {
            self.ask(address, Lookup::Choice, now + LOOKUP_DEBOUNCE);
            self.evaluate(address, now);
        }
        self.everything(now);
    }

    /// These are all links there are.
    pub(super) fn all_links(&mut self, links: Vec<Link>, now: Duration) {
        let present: BTreeSet<u32> = links.iter().map(|link| link.index).collect();
        let gone: Vec<u32> =
            self.links.keys().filter(|index| !present.contains(index)).copied().collect();
        for index in gone {
            self.link_gone(index, now);
        }
        for link in links {
            self.link(link, now);
        }
    }

    /// Routes to a prefix changed: the destinations it covers are asked for again, a little later.
    pub(super) fn route(&mut self, prefix: Prefix, now: Duration) {
        let covered: Vec<IpAddr> =
            self.destinations.range(prefix.range()).map(|(address, _)| *address).collect();
        for destination in covered {
            self.ask(destination, Lookup::Choice, now + LOOKUP_DEBOUNCE);
        }
    }

    /// Anything may have changed: all routes are asked for again, a little later and not too
    /// often, because events that mean this come in long bursts (containers that start).
    pub(super) fn everything(&mut self, now: Duration) {
        let soon = now + LOOKUP_DEBOUNCE;
        let due = self.full_pass_done.map_or(soon, |done| soon.max(done + FULL_PASS_INTERVAL));
        self.full_pass_due = Some(self.full_pass_due.map_or(due, |before| before.min(due)));
    }

    /// Routes and neighbours are asked for again: notifications were lost, or time has passed.
    pub(super) fn refresh(&mut self, now: Duration) {
        self.everything(now);
        self.neighbours.query_all(now);
    }

    /// The first event of a burst sets the time; a burst that goes on does not move it.
    fn ask(&mut self, destination: IpAddr, lookup: Lookup, due: Duration) {
        self.lookups_due = if self.lookups.is_empty() { due } else { self.lookups_due.min(due) };
        self.lookups.insert((destination, lookup));
    }

    /// Takes at most `max` lookups that are due. Each must be answered with [`Self::looked_up`].
    pub(super) fn take_lookups(&mut self, now: Duration, max: usize) -> Vec<(IpAddr, Lookup)> {
        if self.full_pass_due.is_some_and(|due| due <= now) {
            self.full_pass_due = None;
            self.full_pass_done = Some(now);
            let all: Vec<IpAddr> = self.destinations.keys().copied().collect();
            for destination in all {
                self.ask(destination, Lookup::Choice, now);
            }
        }
        if now < self.lookups_due {
            return Vec::new();
        }
        let taken: Vec<_> = self.lookups.iter().take(max).copied().collect();
        for lookup in &taken {
            self.lookups.remove(lookup);
        }
        taken
    }

    /// Takes at most `max` neighbour steps that are due.
    pub(super) fn take_steps(&mut self, now: Duration, max: usize) -> Vec<(Key, Step)> {
        self.neighbours.take_due(now, max)
    }

    /// When there is something to take next.
    pub(super) fn next_due(&self) -> Option<Duration> {
        let lookups = (!self.lookups.is_empty()).then_some(self.lookups_due);
        lookups.into_iter().chain(self.neighbours.next_due()).chain(self.full_pass_due).min()
    }

    /// The kernel's answer to a lookup.
    pub(super) fn looked_up(
        &mut self,
        address: IpAddr,
        lookup: Lookup,
        answer: Result<Vec<Hop>, Unresolved>,
        now: Duration,
    ) {
        let Some(destination) = self.destinations.get_mut(&address) else { return };
        let before = std::mem::replace(&mut destination.hops, Err(Unresolved::Pending));
        let (hops, known) = match lookup {
            Lookup::Alternatives => (with_alternatives(before.clone(), answer), true),
            Lookup::Choice => choose(&before, answer, destination.alternatives_known),
        };
        destination.alternatives_known = known;
        destination.hops = hops.clone();
        if known && lookup == Lookup::Choice {
            self.ask(address, Lookup::Alternatives, now);
        }
        self.move_users(address, &before, &hops, now);
        self.evaluate(address, now);
    }

    /// New users first: a neighbour that stays in use must not be dropped in between.
    fn move_users(
        &mut self,
        address: IpAddr,
        before: &Result<Vec<Hop>, Unresolved>,
        after: &Result<Vec<Hop>, Unresolved>,
        now: Duration,
    ) {
        let keys = |hops: &Result<Vec<Hop>, Unresolved>| -> BTreeSet<Key> {
            hops.iter().flatten().map(|hop| hop.neighbour(address)).collect()
        };
        let (before, after) = (keys(before), keys(after));
        for key in after.difference(&before) {
            if !self.neighbours.add_user(*key, address, now) {
                tracing::warn!(neighbour = %key.address, "no room to follow this neighbour");
            }
        }
        for key in before.difference(&after) {
            self.neighbours.remove_user(key, address, now);
        }
    }

    /// An entry with our mark was found at the start.
    pub(super) fn adopt(&mut self, key: Key, now: Duration) {
        self.neighbours.adopt(key, now);
    }

    /// The kernel has this neighbour entry.
    pub(super) fn neighbour(&mut self, key: &Key, sighting: Sighting, now: Duration) {
        if self.neighbours.sighted(key, sighting, now) {
            self.evaluate_users(key, now);
        }
    }

    /// The kernel has no such neighbour entry (any more).
    pub(super) fn neighbour_gone(&mut self, key: &Key, now: Duration) {
        self.neighbours.gone(key, now);
    }

    /// The kernel refused a neighbour step.
    pub(super) fn neighbour_refused(&mut self, key: &Key, step: Step, errno: i32, now: Duration) {
        if self.neighbours.refused(key, step, errno, now) {
            self.evaluate_users(key, now);
        }
    }

    /// The kernel takes managed entries and does not show them as such: it does not know the flag.
    pub(super) fn give_up_managed(&mut self, now: Duration) {
        self.neighbours.give_up_managed(now);
    }

    fn evaluate_users(&mut self, key: &Key, now: Duration) {
        for destination in self.neighbours.users(key) {
            self.evaluate(destination, now);
        }
    }

    /// Works out a destination's next hop and notes whether it changed.
    fn evaluate(&mut self, address: IpAddr, now: Duration) {
        let Some(destination) = self.destinations.get(&address) else { return };
        let result = match &destination.hops {
            Err(reason) => Err(reason.clone()),
            Ok(hops) => self.first_usable(address, hops),
        };
        if result.is_err() && destination.hops.is_ok() && !destination.alternatives_known {
            let dead = |reason: &Unresolved| {
                matches!(reason, Unresolved::NeighbourFailed(_) | Unresolved::InterfaceDown(_))
            };
            if result.as_ref().is_err_and(dead) {
                self.ask(address, Lookup::Alternatives, now);
            }
        }
        if self.next_hops.get(&address) == Some(&result) {
            return;
        }
        self.waiting += usize::from(is_waiting(&result));
        let before = self.next_hops.insert(address, result);
        self.waiting -= usize::from(before.as_ref().is_some_and(is_waiting));
        self.note_change(now);
    }

    /// The first hop that can be used, or else why the kernel's own choice cannot.
    fn first_usable(&self, destination: IpAddr, hops: &[Hop]) -> Result<NextHop, Unresolved> {
        let mut first_reason = None;
        for hop in hops {
            match self.try_hop(destination, hop) {
                Ok(next_hop) => return Ok(next_hop),
                Err(reason) => first_reason = first_reason.or(Some(reason)),
            }
        }
        Err(first_reason.unwrap_or(Unresolved::NoRoute))
    }

    fn try_hop(&self, destination: IpAddr, hop: &Hop) -> Result<NextHop, Unresolved> {
        let link = self.usable_link(hop)?;
        let source_mac = link.mac.ok_or_else(|| Unresolved::NotEthernet(Arc::clone(&link.name)))?;
        let key = hop.neighbour(destination);
        let destination_mac = match self.neighbours.state(&key) {
            State::Valid(mac) => mac,
            State::Resolving => return Err(Unresolved::Resolving(key.address)),
            State::Failed => return Err(Unresolved::NeighbourFailed(key.address)),
            State::TableFull => return Err(Unresolved::NeighbourTableFull),
        };
        let mtu = path_mtu(link, hop);
        Ok(NextHop { interface_index: link.index, source_mac, destination_mac, mtu })
    }

    fn usable_link(&self, hop: &Hop) -> Result<&Link, Unresolved> {
        let Some(link) = self.links.get(&hop.interface) else {
            return Err(Unresolved::InterfaceDown(format!("number {}", hop.interface).into()));
        };
        if link.up { Ok(link) } else { Err(Unresolved::InterfaceDown(Arc::clone(&link.name))) }
    }

    /// The way to each destination, whatever its neighbours do.
    pub(super) fn paths(&self) -> BTreeMap<IpAddr, Result<Path, Unresolved>> {
        let path = |hops: &Vec<Hop>| {
            let hop = hops.first().ok_or(Unresolved::NoRoute)?;
            let link = self.usable_link(hop)?;
            let interface = Arc::clone(&link.name);
            Ok(Path { interface, gateway: hop.gateway, mtu: path_mtu(link, hop) })
        };
        self.destinations
            .iter()
            .map(|(address, destination)| {
                (*address, destination.hops.as_ref().map_err(Clone::clone).and_then(path))
            })
            .collect()
    }

    /// The table as it stands.
    #[cfg(test)]
    pub(super) fn table(&self) -> &NextHops {
        &self.next_hops
    }

    fn note_change(&mut self, now: Duration) {
        let first = self.changed.map_or(now, |change| change.first);
        self.changed = Some(Change { first, last: now });
    }

    /// When the changes so far are to be reported: when it has become quiet and nothing is waited
    /// for any more, but not much later than the first of them. `None` without a change.
    pub(super) fn report_due(&self) -> Option<Duration> {
        let change = self.changed?;
        let latest = change.first + REPORT_LATEST;
        let busy = self.waiting > 0 || !self.lookups.is_empty();
        Some(if busy { latest } else { latest.min(change.last + REPORT_QUIET) })
    }

    /// The table to report, if it is not the one that was reported last.
    pub(super) fn report(&mut self) -> Option<NextHops> {
        self.changed = None;
        if self.reported == self.next_hops {
            return None;
        }
        self.reported.clone_from(&self.next_hops);
        Some(self.next_hops.clone())
    }
}

/// The smaller one of the link's and the route's MTU. An MTU of 0 on a link means no limit.
fn path_mtu(link: &Link, hop: &Hop) -> u16 {
    let link_mtu = if link.mtu == 0 { u32::MAX } else { link.mtu };
    let mtu = hop.mtu.map_or(link_mtu, |mtu| mtu.min(link_mtu));
    u16::try_from(mtu).unwrap_or(u16::MAX)
}

const fn is_waiting(result: &Result<NextHop, Unresolved>) -> bool {
    matches!(result, Err(Unresolved::Pending | Unresolved::Resolving(_)))
}

/// The kernel's new choice in front. Alternatives of an unchanged choice stay until they are asked
/// for anew, so that a periodic lookup does not take away the hop that is in use.
fn choose(
    before: &Result<Vec<Hop>, Unresolved>,
    answer: Result<Vec<Hop>, Unresolved>,
    known: bool,
) -> (Result<Vec<Hop>, Unresolved>, bool) {
    let (Ok(before), Ok(after)) = (before, &answer) else { return (answer, false) };
    match (before.split_first(), after.first()) {
        (Some((old, alternatives)), Some(new)) if known && old == new => {
            (Ok([&[*new], alternatives].concat()), true)
        }
        _ => (answer, false),
    }
}

fn with_alternatives(
    before: Result<Vec<Hop>, Unresolved>,
    answer: Result<Vec<Hop>, Unresolved>,
) -> Result<Vec<Hop>, Unresolved> {
    let mut hops = before?;
    hops.truncate(1);
    for hop in answer.unwrap_or_default() {
        let same = |known: &Hop| known.interface == hop.interface && known.gateway == hop.gateway;
        if hops.len() < MAX_HOPS && !hops.iter().any(same) {
            hops.push(hop);
        }
    }
    Ok(hops)
}

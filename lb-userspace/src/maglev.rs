//! The lookup table of a pool: which backend each slot belongs to.
//!
//! A pure room between `desired` (who is in the pool, with what weight) and `tracking` (what
//! happens when that changes). It reads no clock, no file and no map, and knows nothing of health
//! except the predicate handed to [`Preferences::first`].
//!
//! # The algorithm
//!
//! As in Maglev (Eisenbud et al., NSDI 2016, section 3.4) every backend ranks all slots by an
//! arithmetic progression modulo a prime, and backends take turns in claiming slots. Two things
//! differ:
//!
//! * **A turn that finds its slot taken is lost**, not repeated further down the ranking. A slot
//!   therefore belongs to the backend that ranks it highest among those still short of slots,
//!   which hardly depends on the others; with repeated turns every change shifts all later turns.
//!   Measured with 65,537 slots and 100 backends, one of them removed: 0.30 % of the slots move
//!   beyond the minimum, with repeated turns 0.57 %.
//! * **Each backend has a quota** (largest remainder, ties by key) and stops when it is reached,
//!   so a share is off its ideal by less than one slot whatever the weights are.
//!
//! Turns follow the weights as in a race with exponential times: at virtual time `t` a backend of
//! weight `w` has tried all but `exp(-t * w)` of the slots. Then a slot's winner among any subset
//! of the members has probabilities in proportion to the weights, quotas hardly have to correct,
//! and who takes a slot over when its owner is dead ([`Preferences`]) is mostly (89-99 %) whom the
//! table without the dead one gives it to: removing a dead backend moves little once more.
//!
//! Members are ordered by key, and of floating point only the operations occur that IEEE 754
//! rounds alike on every machine, so the table is a function of the member *set*, equal on every
//! LB.

use std::collections::BTreeMap;
use std::hash::Hasher as _;

use siphasher::sip::SipHasher13;

use crate::primes::PRIMES;

/// The largest weight of a member.
pub const WEIGHT_MAX: u32 = 65_535;

/// The owner of a slot that has none.
pub const NO_BACKEND: u16 = 0;

/// A share farther from its ideal than this, in parts per thousand of the ideal, means that the
/// table has too few slots for the weights.
pub const SHARE_TOLERANCE_PER_MILLE: u32 = 10;

/// Key of the hash over a backend's identity: the text "lb maglev member" as two little-endian
/// words. Public and fixed, because every LB must rank alike; who may choose a backend's
/// address is trusted anyway.
const IDENTITY_KEY: (u64, u64) =
    (u64::from_le_bytes(*b"lb magle"), u64::from_le_bytes(*b"v member"));

/// The largest part of its untried slots that a walker tries in one round; matters only to tables
/// with few slots for each member.
const STEP_MAX: f64 = 0.5;

/// Turns of a walker in a round, on average when all begin, where weights differ. Fewer move a
/// little less (0.27 instead of 0.32 % beyond the minimum), but the branches at their ends take
/// twice the time.
const ROUND_TURNS: f64 = 4.0;

/// From this many (free slot, hungry backend) pairs on, sorting them beats further rounds.
const TAIL_PAIRS_MAX: usize = 4_096;

/// One backend as the table sees it.
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, serde::Serialize, serde::Deserialize,
)]
#[serde(from = "(u64, u16, u32)", into = "(u64, u16, u32)")]
pub struct Member {
    /// Hash of the stable identity, from [`identity_key`].
    pub key: u64,
    /// Backend id, 1..=32,767. Only copied into the table; it never decides who gets a slot.
    pub id: u16,
    /// Share relative to the other members, 0..=[`WEIGHT_MAX`]; 0 gets no slot.
    pub weight: u32,
}

/// As `[key, id, weight]` in the journal, which holds thousands.
impl From<(u64, u16, u32)> for Member {
    fn from((key, id, weight): (u64, u16, u32)) -> Self {
        Self { key, id, weight }
    }
}

impl From<Member> for (u64, u16, u32) {
    fn from(member: Member) -> Self {
        (member.key, member.id, member.weight)
    }
}

/// The key of a backend, from its identity (the text of its address, without a port).
#[must_use]
pub fn identity_key(identity: &str) -> u64 {
    let mut hasher = SipHasher13::new_with_keys(IDENTITY_KEY.0, IDENTITY_KEY.1);
    hasher.write(identity.as_bytes());
    hasher.finish()
}

/// Where a member's ranking of the slots starts, and how far it steps.
///
/// The slot of rank `r` is `(offset + r * skip) mod slots`; `slots` must be prime, so that every
/// step from 1 on visits all slots.
fn permutation(key: u64, slots: u32) -> (u32, u32) {
    let scale = |half: u64, range: u32| as_u32((half * u64::from(range)) >> 32);
    (scale(key >> 32, slots), scale(key & 0xffff_ffff, slots - 1) + 1)
}

/// The low 32 bits; every caller's value fits.
#[expect(clippy::cast_possible_truncation, reason = "callers pass values below 2^32")]
fn as_u32(value: u64) -> u32 {
    debug_assert!(u32::try_from(value).is_ok());
    value as u32
}

/// The members that can own a slot, in the one order that every LB agrees on.
fn serving(members: &[Member]) -> Vec<Member> {
    let mut serving: Vec<Member> = members.iter().copied().filter(|m| m.weight > 0).collect();
    serving.sort_unstable_by_key(|m| (m.key, m.id));
    serving
}

/// How many slots each weight gets, in the order given: `floor(ideal)` plus one for those with the
/// largest remainders (earlier ones first where equal), so that all slots are given away.
///
/// All zero if no weight is positive.
#[must_use]
pub fn quotas(weights: &[u32], slots: u32) -> Vec<u32> {
    let total: u64 = weights.iter().map(|&weight| u64::from(weight)).sum();
    if total == 0 {
        return vec![0; weights.len()];
    }
    let product = |weight: u32| u64::from(weight) * u64::from(slots);
    let mut quotas: Vec<u32> = weights.iter().map(|&w| as_u32(product(w) / total)).collect();
    let given: u64 = quotas.iter().map(|&quota| u64::from(quota)).sum();
    let left = usize::try_from(u64::from(slots) - given).unwrap_or(usize::MAX);
    let mut by_remainder: Vec<(u64, usize)> =
        weights.iter().enumerate().map(|(i, &w)| (total - product(w) % total, i)).collect();
    by_remainder.sort_unstable();
    for &(_, index) in by_remainder.iter().take(left) {
        quotas[index] += 1;
    }
    quotas
}

/// A member on its walk through its ranking. Small: the walk is bound by the first cache.
#[derive(Clone, Copy)]
struct Walker {
    /// The slot it tries next.
    slot: u32,
    skip: u32,
    /// How many slots it may still take; 0 ends its walk.
    quota: u32,
    id: u16,
    /// Index into the ordered members.
    member: u16,
}

/// How fast a walker goes, where weights differ.
#[derive(Clone, Copy)]
struct Pace {
    weight: u32,
    /// How many slots it has tried.
    tried: u32,
    /// How many slots it will not have tried by now, the time of the round; fractions count.
    left: f64,
}

/// The table under construction.
struct Builder {
    slots: u32,
    /// Owner of each slot, and one more that takes the writes of lost turns.
    owners: Vec<u16>,
    /// 1 for a slot that is taken. A byte map: its store does not wait for its load.
    taken: Vec<u8>,
    free: u32,
    walkers: Vec<Walker>,
    /// Of each walker.
    paces: Vec<Pace>,
}

/// Builds the table: the owner of each of `slots` slots, all [`NO_BACKEND`] if no member has a
/// weight.
///
/// `slots` must be prime (one of [`PRIMES`]); the members' order does not matter. 65,537 slots
/// take 0.5 to 1.2 ms for 10 to 1,000 members, about twice that if their weights differ.
#[must_use]
pub fn build(members: &[Member], slots: u32) -> Vec<u16> {
    let members = serving(members);
    let size = slots as usize;
    if members.is_empty() || slots < 2 {
        return vec![NO_BACKEND; size];
    }
    let weights: Vec<u32> = members.iter().map(|member| member.weight).collect();
    let quotas = quotas(&weights, slots);
    let (walkers, paces) = (0u16..)
        .zip(members.iter().zip(quotas))
        .filter(|(_, (_, quota))| *quota > 0)
        .map(|(index, (member, quota))| {
            let (slot, skip) = permutation(member.key, slots);
            let walker = Walker { slot, skip, quota, id: member.id, member: index };
            (walker, Pace { weight: member.weight, tried: 0, left: f64::from(slots) })
        })
        .unzip();
    let (owners, taken) = (vec![NO_BACKEND; size + 1], vec![0; size]);
    let mut builder = Builder { slots, owners, taken, free: slots, walkers, paces };
    while builder.is_crowded() {
        if builder.paces.iter().all(|pace| pace.weight == builder.paces[0].weight) {
            builder.even_rounds();
        } else {
            builder.rounds();
        }
        builder.drop_sated();
    }
    builder.tail(&members);
    builder.owners.truncate(size);
    builder.owners
}

impl Builder {
    /// Whether rounds are still cheaper than sorting.
    fn is_crowded(&self) -> bool {
        self.free as usize * self.walkers.len() > TAIL_PAIRS_MAX
    }

    fn drop_sated(&mut self) {
        let walkers = &self.walkers;
        let mut hungry = walkers.iter().map(|walker| walker.quota > 0);
        self.paces.retain(|_| hungry.next().unwrap_or(false));
        self.walkers.retain(|walker| walker.quota > 0);
    }

    /// Lets everyone take turns until somebody's quota is reached or few pairs are left. Ends,
    /// because a walker that has tried all slots has met every free one.
    fn rounds(&mut self) {
        let slots = self.slots;
        let weights: f64 = self.paces.iter().map(|pace| f64::from(pace.weight)).sum();
        let round = ROUND_TURNS * self.walkers.len() as f64 / (f64::from(slots) * weights);
        let mut someone_sated = false;
        while !someone_sated && self.is_crowded() {
            let mut count = 0;
            for (walker, pace) in self.walkers.iter_mut().zip(&mut self.paces) {
                // exp(-round * weight), by Euler's step.
                pace.left *= 1.0 - (round * f64::from(pace.weight)).min(STEP_MAX);
                #[expect(
                    clippy::cast_possible_truncation,
                    clippy::cast_sign_loss,
                    reason = "0..=slots"
                )]
                let reach = slots - pace.left as u32;
                while pace.tried < reach && walker.quota > 0 {
                    count += turn(walker, slots, &mut self.taken, &mut self.owners);
                    pace.tried += 1;
                }
                someone_sated |= walker.quota == 0;
            }
            self.free -= count;
        }
    }

    /// The same where all weights are equal, now and therefore for all rounds to come: everyone has
    /// one turn in each.
    fn even_rounds(&mut self) {
        let mut someone_sated = false;
        while !someone_sated && self.is_crowded() {
            let mut count = 0;
            for walker in &mut self.walkers {
                count += turn(walker, self.slots, &mut self.taken, &mut self.owners);
                someone_sated |= walker.quota == 0;
            }
            self.free -= count;
        }
    }

    /// Gives away the last free slots: all pairs of free slot and hungry member in the order in
    /// which further rounds would meet them.
    fn tail(&mut self, members: &[Member]) {
        let free: Vec<u32> =
            (0..self.slots).zip(&self.taken).filter(|(_, t)| **t == 0).map(|(s, _)| s).collect();
        let mut pairs = Vec::with_capacity(free.len() * self.walkers.len());
        for ((index, walker), pace) in (0u16..).zip(&self.walkers).zip(&self.paces) {
            let ranking = Ranking::new(members[usize::from(walker.member)].key, self.slots);
            for &slot in &free {
                // Positive floats compare as their bits do.
                let time = race_time(ranking.rank(slot, self.slots), self.slots, pace.weight);
                pairs.push((time.to_bits(), index, slot));
            }
        }
        pairs.sort_unstable();
        for (_, index, slot) in pairs {
            let walker = &mut self.walkers[usize::from(index)];
            if self.taken[slot as usize] == 0 && walker.quota > 0 {
                self.taken[slot as usize] = 1;
                self.owners[slot as usize] = walker.id;
                walker.quota -= 1;
            }
        }
    }
}

/// Lets a walker (with a quota left) try its next slot; 1 if it took it. Free of branches on the
/// outcome, which nobody can predict.
#[inline(always)]
fn turn(walker: &mut Walker, slots: u32, taken: &mut [u8], owners: &mut [u16]) -> u32 {
    let slot = walker.slot;
    let occupied = &mut taken[slot as usize];
    let is_free = *occupied == 0;
    *occupied = 1;
    owners[if is_free { slot } else { slots } as usize] = walker.id;
    walker.quota -= u32::from(is_free);
    let next = slot + walker.skip;
    walker.slot = if next >= slots { next - slots } else { next };
    u32::from(is_free)
}

/// When a member of `weight` reaches the slot of `rank` in the race, lower is sooner:
/// `-ln(1 - u) / weight` for the relative rank `u`, the logarithm by its (2,1) Pade approximant.
#[inline(always)]
fn race_time(rank: u32, slots: u32, weight: u32) -> f64 {
    let u = (f64::from(rank) + 0.5) / f64::from(slots);
    u * (6.0 - u) / ((6.0 - 4.0 * u) * f64::from(weight))
}

/// A member's ranking, read backwards: from slot to rank.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Ranking {
    offset: u32,
    /// The inverse of the skip modulo the number of slots.
    inverse: u32,
    /// `floor(inverse * 2^32 / slots)`: makes [`Ranking::rank`] free of division.
    ratio: u64,
}

impl Ranking {
    fn new(key: u64, slots: u32) -> Self {
        let (offset, skip) = permutation(key, slots);
        let inverse = inverse_modulo(skip, slots);
        Self { offset, inverse, ratio: (u64::from(inverse) << 32) / u64::from(slots) }
    }

    /// The rank of `slot`, 0..slots; 0 is the most wanted. Shoup's multiplication: the estimated
    /// quotient is at most one too small.
    #[inline(always)]
    fn rank(self, slot: u32, slots: u32) -> u32 {
        let distance =
            if slot >= self.offset { slot - self.offset } else { slot + slots - self.offset };
        let quotient = (u64::from(distance) * self.ratio) >> 32;
        let rest = u64::from(distance) * u64::from(self.inverse) - quotient * u64::from(slots);
        as_u32(if rest >= u64::from(slots) { rest - u64::from(slots) } else { rest })
    }
}

/// The inverse of `value` (1..prime) modulo `prime`, by the extended Euclidean algorithm.
fn inverse_modulo(value: u32, prime: u32) -> u32 {
    let (mut rest, mut divisor) = (i64::from(prime), i64::from(value));
    let (mut before, mut factor) = (0i64, 1i64);
    while divisor != 0 {
        let quotient = rest / divisor;
        (rest, divisor) = (divisor, rest - quotient * divisor);
        (before, factor) = (factor, before - quotient * factor);
    }
    u32::try_from(before.rem_euclid(i64::from(prime))).unwrap_or(1)
}

/// Every slot's order of preference among the members: who takes over when its owner is dead.
///
/// Slots of live backends never move, and a dead backend's slots spread over the others by weight.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Preferences {
    slots: u32,
    members: Vec<(Member, Ranking)>,
}

impl Preferences {
    /// The preferences in a pool's table of `slots` slots (prime). Members' order does not matter.
    #[must_use]
    pub fn new(members: &[Member], slots: u32) -> Self {
        let members =
            serving(members).into_iter().map(|m| (m, Ranking::new(m.key, slots))).collect();
        Self { slots, members }
    }

    /// The first choice of `slot` among the members that are `alive`, or [`NO_BACKEND`].
    pub fn first(&self, slot: u32, alive: impl Fn(u16) -> bool) -> u16 {
        let mut best = (f64::INFINITY, NO_BACKEND);
        for (member, ranking) in self.members.iter().filter(|(member, _)| alive(member.id)) {
            let time = race_time(ranking.rank(slot, self.slots), self.slots, member.weight);
            if time < best.0 {
                best = (time, member.id);
            }
        }
        best.1
    }

    /// All members by the preference of `slot`, the first choice first.
    #[must_use]
    pub fn chain(&self, slot: u32) -> Vec<u16> {
        let mut chain: Vec<(f64, u16)> = self
            .members
            .iter()
            .map(|(m, r)| (race_time(r.rank(slot, self.slots), self.slots, m.weight), m.id))
            .collect();
        // Stable, so that equals keep the members' order as in `first`.
        chain.sort_by(|a, b| a.0.total_cmp(&b.0));
        chain.into_iter().map(|(_, id)| id).collect()
    }
}

/// How far the worst share of a table is from its ideal.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub struct ShareError {
    /// The largest distance from an ideal, in slots.
    pub slots_max: f64,
    /// The largest distance from an ideal, as a fraction of that ideal.
    pub relative_max: f64,
}

/// Compares a table with the weights of its members. Members of weight 0 count as soon as they
/// own a slot, then with a relative error of infinity.
#[must_use]
pub fn share_error(table: &[u16], members: &[Member]) -> ShareError {
    let mut counts: BTreeMap<u16, u32> = BTreeMap::new();
    for &owner in table {
        *counts.entry(owner).or_default() += 1;
    }
    let count = |member: &Member| counts.get(&member.id).copied().unwrap_or(0);
    let shares: Vec<(u32, u32)> = members.iter().map(|m| (m.weight, count(m))).collect();
    error_of(&shares, table.len() as u64)
}

fn error_of(shares: &[(u32, u32)], slots: u64) -> ShareError {
    let total: u64 = shares.iter().map(|&(weight, _)| u64::from(weight)).sum();
    let mut error = ShareError::default();
    for &(weight, count) in shares.iter().filter(|share| **share != (0, 0)) {
        #[expect(clippy::cast_precision_loss, reason = "below 2^53")]
        let ideal = (u64::from(weight) * slots) as f64 / total.max(1) as f64;
        let distance = (f64::from(count) - ideal).abs();
        error.slots_max = error.slots_max.max(distance);
        error.relative_max = error.relative_max.max(distance / ideal);
    }
    error
}

/// Whether `slots` slots are enough to give every weight its share within
/// [`SHARE_TOLERANCE_PER_MILLE`].
#[must_use]
pub fn is_sufficient(weights: &[u32], slots: u32) -> bool {
    let shares: Vec<(u32, u32)> = weights.iter().copied().zip(quotas(weights, slots)).collect();
    let error = error_of(&shares, u64::from(slots));
    error.relative_max * 1000.0 <= f64::from(SHARE_TOLERANCE_PER_MILLE)
}

/// The smallest of [`PRIMES`] that [`is_sufficient`] for the weights; `None` if not even the
/// largest is.
#[must_use]
pub fn smallest_sufficient_prime(weights: &[u32]) -> Option<u32> {
    PRIMES.into_iter().find(|&slots| is_sufficient(weights, slots))
}

#[cfg(test)]
mod tests;

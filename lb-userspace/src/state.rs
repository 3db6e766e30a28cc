//! What lbd must not forget: numbers, overrides and verdicts, kept in a journal beside the tables.
//!
//! Pure. The numbers of pools, backends and VIPs are what the data plane knows them by, so they
//! are given once and stay over reloads and restarts. A backend's number is free again only when
//! no entry of the flow table, no slot and no slot's past has it; the caller finds that out.
//!
//! Must not: decide what changes; that is the plan's.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::bgp::announce::Saved;
use crate::desired::{BackendState, Desired, Encap, VipKey};
use crate::tracking;

/// The journal's layout; another one is not read.
pub const JOURNAL_VERSION: u32 = 2;

/// A backend that has a number.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Its pool's name.
    pub pool: String,
    /// Its name in the pool.
    pub name: String,
    /// Its address. A backend that gets another address is another backend.
    pub address: IpAddr,
    /// How packets travel to it.
    pub encap: Encap,
    /// It is in its pool's table, or was and is still configured: it has once been up.
    pub member: bool,
    /// It is not configured any more; its flows are.
    pub retired: bool,
}

/// What the operator changed apart from the file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Override {
    /// Drained or not, whatever the file says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<BackendState>,
    /// This weight, whatever the file says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weight: Option<u16>,
}

impl Override {
    /// Whether it changes nothing.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.state.is_none() && self.weight.is_none()
    }

    /// In words, such as `drain, weight 50`.
    #[must_use]
    pub fn words(&self) -> String {
        let state = self.state.map(|state| state.word().to_owned());
        let weight = self.weight.map(|weight| format!("weight {weight}"));
        state.into_iter().chain(weight).collect::<Vec<String>>().join(", ")
    }
}

/// What the operator drained, so that it is not announced.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Drains {
    /// The whole load balancer.
    pub node: bool,
    /// VIPs by name.
    pub vips: BTreeSet<String>,
}

/// The largest numbers that the data plane has room for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    /// Pools; their numbers begin at 0.
    pub pools: u16,
    /// The largest backend id; they begin at 1.
    pub backends: u16,
    /// The largest VIP number; they begin at 1.
    pub vips: u16,
}

/// There is no number left.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoNumber {
    /// Of pools.
    #[error("no room for another pool: raise dataplane.max_pools")]
    Pool,
    /// Of backends.
    #[error(
        "no backend id is free: ids of removed backends are free again when their last flow has \
         ended; raise dataplane.max_backends"
    )]
    Backend,
    /// Of VIPs.
    #[error("no room for another VIP (address, protocol, port): raise dataplane.max_vips")]
    Vip,
}

/// All numbers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Numbers {
    /// Of pools, by name.
    pub pools: BTreeMap<String, u16>,
    /// Backends by id.
    pub backends: BTreeMap<u16, Record>,
    /// Of VIPs.
    pub vips: BTreeMap<VipKey, u16>,
    /// The number given last; the search for a free one begins behind it, so that a number rests
    /// as long as possible before it comes back.
    last_backend: u16,
    last_vip: u16,
    /// The ids of configured backends by pool and name; follows from `backends`.
    #[serde(skip)]
    index: BTreeMap<String, BTreeMap<String, u16>>,
}

impl Numbers {
    /// The ids of a pool's configured backends, by name.
    #[must_use]
    pub fn of_pool(&self, pool: &str) -> &BTreeMap<String, u16> {
        static NONE: BTreeMap<String, u16> = BTreeMap::new();
        self.index.get(pool).unwrap_or(&NONE)
    }

    fn reindex(&mut self) {
        self.index.clear();
        for (id, record) in self.backends.iter().filter(|(_, record)| !record.retired) {
            let pool = self.index.entry(record.pool.clone()).or_default();
            pool.insert(record.name.clone(), *id);
        }
    }

    /// Gives numbers to what is new in `desired`, and retires backends that are gone. Numbers of
    /// pools and VIPs that are gone stay until [`Numbers::forget_pool`].
    ///
    /// # Errors
    /// There is no number left; then half of it is done, so use a copy.
    pub fn assign(&mut self, desired: &Desired, room: Room) -> Result<(), NoNumber> {
        for name in desired.pools.keys() {
            if !self.pools.contains_key(name) {
                let used: Vec<u16> = self.pools.values().copied().collect();
                let free = (0..room.pools).find(|number| !used.contains(number));
                self.pools.insert(name.clone(), free.ok_or(NoNumber::Pool)?);
            }
        }
        for key in desired.vips.keys() {
            if !self.vips.contains_key(key) {
                let used: BTreeSet<u16> = self.vips.values().copied().collect();
                let free = next_free(self.last_vip, room.vips, |number| used.contains(&number));
                self.last_vip = free.ok_or(NoNumber::Vip)?;
                self.vips.insert(*key, self.last_vip);
            }
        }
        self.assign_backends(desired, room)
    }

    fn assign_backends(&mut self, desired: &Desired, room: Room) -> Result<(), NoNumber> {
        let mut known: BTreeMap<(String, String, IpAddr), u16> = BTreeMap::new();
        for (id, record) in &mut self.backends {
            record.retired = true;
            let key = (record.pool.clone(), record.name.clone(), record.address);
            known.insert(key, *id);
        }
        for pool in desired.pools.values() {
            for backend in pool.backends.values() {
                let key = (pool.name.clone(), backend.name.clone(), backend.address);
                if let Some(record) = known.get(&key).and_then(|id| self.backends.get_mut(id)) {
                    record.retired = false;
                    record.encap = pool.encap;
                    continue;
                }
                let used = |id| self.backends.contains_key(&id);
                let free = next_free(self.last_backend, room.backends, used);
                self.last_backend = free.ok_or(NoNumber::Backend)?;
                let record = Record {
                    pool: pool.name.clone(),
                    name: backend.name.clone(),
                    address: backend.address,
                    encap: pool.encap,
                    member: pool.health.is_none(),
                    retired: false,
                };
                self.backends.insert(self.last_backend, record);
            }
        }
        // One that comes back proves itself anew, unless nobody asks for proof.
        for record in self.backends.values_mut() {
            let pool = desired.pools.get(&record.pool);
            let is_trusted = !record.retired && pool.is_some_and(|pool| pool.health.is_none());
            record.member = is_trusted || (record.member && !record.retired);
        }
        self.reindex();
        Ok(())
    }

    /// Frees a retired backend's id.
    pub fn release(&mut self, id: u16) {
        debug_assert!(self.backends.get(&id).is_none_or(|record| record.retired));
        self.backends.remove(&id);
    }

    /// Frees the numbers of VIPs that are not wanted any more. Called when the data plane has
    /// forgotten them.
    pub fn forget_vips(&mut self, desired: &Desired) {
        self.vips.retain(|key, _| desired.vips.contains_key(key));
    }

    /// Frees a pool's number, likewise.
    pub fn forget_pool(&mut self, pool: &str) {
        self.pools.remove(pool);
    }
}

/// The next number behind `last`, in a circle from 1 to `max`.
fn next_free(last: u16, max: u16, used: impl Fn(u16) -> bool) -> Option<u16> {
    let after = last.saturating_add(1)..=max;
    let before = 1..=last.min(max);
    after.chain(before).find(|number| !used(*number))
}

/// Everything lbd continues with after a restart.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Journal {
    /// [`JOURNAL_VERSION`].
    pub version: u32,
    /// Configurations taken so far.
    pub generation: u64,
    /// When the last one was taken, RFC 3339.
    pub applied: String,
    /// A digest of that configuration, to notice that another one begins.
    pub config_digest: u64,
    /// A digest of the cluster secret: with another one every flow would have another slot.
    pub secret_digest: u64,
    /// The numbers.
    pub numbers: Numbers,
    /// What the operator changed, by `POOL/BACKEND`.
    pub overrides: BTreeMap<String, Override>,
    /// What the operator drained.
    #[serde(default)]
    pub drains: Drains,
    /// What the announcer continues with.
    #[serde(default)]
    pub announced: Option<Saved>,
    /// What the probes found, by `POOL/BACKEND`; true is up.
    pub verdicts: BTreeMap<String, bool>,
    /// The VIPs in force.
    pub served: BTreeMap<VipKey, Served>,
    /// The pools' tables and their past.
    pub trackers: BTreeMap<String, tracking::State>,
}

/// A VIP in force.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Served {
    /// The number of the pool it leads to.
    pub pool: u16,
    /// Some of its flows may have owners of another pool.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub asks: bool,
}

/// Why a journal cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// It is not what was written.
    #[error("it is damaged: {0}")]
    Damaged(#[from] serde_json::Error),
    /// A table in it is not what was written.
    #[error("the table of pool `{0}` is damaged: {1}")]
    Table(String, tracking::RestoreError),
    /// It was written by another version of lbd.
    #[error("it has layout {0}, this lbd reads {JOURNAL_VERSION}")]
    Version(u32),
}

impl Journal {
    /// As bytes for the data plane to keep.
    ///
    /// # Errors
    /// None in practice: all of it is plain data.
    pub fn encode(&self) -> Result<Vec<u8>, JournalError> {
        Ok(serde_json::to_vec(self)?)
    }

    /// Out of such bytes.
    ///
    /// # Errors
    /// It is damaged, or of another version.
    pub fn decode(bytes: &[u8]) -> Result<Self, JournalError> {
        #[derive(Deserialize)]
        struct Head {
            version: u32,
        }
        let Head { version } = serde_json::from_slice(bytes)?;
        if version != JOURNAL_VERSION {
            return Err(JournalError::Version(version));
        }
        let mut journal: Self = serde_json::from_slice(bytes)?;
        journal.numbers.reindex();
        Ok(journal)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_rest_before_they_come_back() {
        for (last, max, used, want) in [
            (0, 3, &[][..], Some(1)),
            (1, 3, &[1], Some(2)),
            (3, 3, &[3], Some(1)),
            (3, 3, &[1, 2, 3], None),
            (2, 3, &[2, 3], Some(1)),
            (7, 3, &[1], Some(2)),
        ] {
            assert_eq!(
                next_free(last, max, |id| used.contains(&id)),
                want,
                "{last} {max} {used:?}"
            );
        }
    }

    #[test]
    fn overrides_in_words() {
        let drained = Override { state: Some(BackendState::Drain), weight: Some(5) };
        assert_eq!(drained.words(), "drain, weight 5");
        assert!(Override::default().is_empty() && !drained.is_empty());
    }

    #[test]
    fn journals_of_other_versions_are_not_read() {
        let error = Journal::decode(br#"{"version":7}"#).expect_err("another version");
        assert!(matches!(error, JournalError::Version(7)));
        assert!(matches!(Journal::decode(b"{"), Err(JournalError::Damaged(_))));
    }
}

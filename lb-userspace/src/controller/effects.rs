//! What the data plane is told, in the order in which each step is right without the next:
//! intent, settings, backends, tables, VIPs; then what nobody refers to any more goes.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::Hasher as _;

use lb_common::backend::{BackendId, Link};
use siphasher::sip::SipHasher13;

use super::pools::View;
use super::{Controller, Moment, flows};
use crate::dataplane::{BackendSpec, Error, SettingsSpec, VipSpec, VipTracking};
use crate::desired::{Desired, Port, Protocol, Secret, Tracking, Vip, VipKey};
use crate::host::clock;
use crate::state::{JOURNAL_VERSION, Journal, Record, Served};
use crate::tracking::{CONTESTED, PoolTracker, Rendered};

/// IP protocol numbers (RFC 9293, RFC 768).
const TCP: u8 = 6;
const UDP: u8 = 17;
/// Keys of the digest of the secret; any constants will do.
const DIGEST_KEYS: (u64, u64) = (0x6c62_642d_7365_6372, 0x6574_2d64_6967_6573);

/// What was written, and what is to be.
#[derive(Debug, Default)]
pub(super) struct Outlet {
    pub(super) journal_dirty: bool,
    pub(super) settings_dirty: bool,
    pub(super) backends_dirty: bool,
    pub(super) vips_dirty: bool,
    /// The backends as they were written.
    backends: BTreeMap<u16, BackendSpec>,
    /// Backends of an earlier lbd: what it wrote of them stays until their way is known.
    pub(super) inherited: BTreeSet<u16>,
    /// The VIPs as they were written, by an earlier lbd or this one.
    vips: BTreeMap<VipKey, VipSpec>,
    /// This lbd has written them.
    vips_written: bool,
    /// What fails, so that it is logged once.
    pub(super) failing: Option<String>,
    /// Why the journal is not kept, likewise.
    pub(super) journal_failing: Option<String>,
}

impl Outlet {
    pub(super) const fn everything_dirty(&mut self) {
        self.journal_dirty = true;
        self.settings_dirty = true;
        self.backends_dirty = true;
        self.vips_dirty = true;
    }
}

const fn served(spec: &VipSpec) -> Served {
    Served { pool: spec.pool, asks: spec.asks }
}

/// A digest of the secret, from which it cannot be found.
pub(super) fn digest(secret: &Secret) -> u64 {
    let mut hasher = SipHasher13::new_with_keys(DIGEST_KEYS.0, DIGEST_KEYS.1);
    hasher.write(secret.bytes());
    hasher.finish()
}

/// A digest of a configuration, to tell it from another one.
pub(super) fn config_digest(desired: &Desired) -> u64 {
    let mut hasher = SipHasher13::new_with_keys(DIGEST_KEYS.0, DIGEST_KEYS.1);
    // Plain data is always written; were it not, each start would count as a new configuration.
    hasher.write(&serde_json::to_vec(desired).unwrap_or_default());
    hasher.finish()
}

impl Controller {
    /// Tells the data plane what has changed. What fails is tried again next time.
    pub(super) fn commit(&mut self, now: Moment) {
        let failing = self.try_commit(now).err().map(|error| error.to_string());
        if failing != self.outlet.failing {
            match &failing {
                Some(reason) => {
                    self.stats.failures += 1;
                    tracing::error!(reason, "the data plane refuses a change; it is tried again");
                }
                None => tracing::info!("the data plane takes changes again"),
            }
            self.outlet.failing = failing;
        }
    }

    fn try_commit(&mut self, now: Moment) -> Result<(), Error> {
        let due: Vec<String> = self
            .pools
            .iter()
            .filter(|(_, pool)| pool.tracker.is_some() && !pool.is_published())
            .map(|(name, _)| name.clone())
            .collect();
        if self.outlet.journal_dirty || !due.is_empty() {
            self.keep_journal();
        }
        if self.outlet.settings_dirty {
            self.write_settings();
        }
        if self.outlet.backends_dirty {
            self.write_backends()?;
        }
        for name in due {
            self.publish_pool(&name)?;
        }
        if self.outlet.vips_dirty {
            self.publish_vips()?;
        }
        self.remove_pools(now)
    }

    /// Keeps the intent before anything is done, so that a restart ends what was begun.
    pub(super) fn keep_journal(&mut self) {
        let trackers = self.pools.iter().filter(|(_, pool)| !pool.leaving);
        let trackers = trackers.filter_map(|(name, pool)| {
            Some((name.clone(), pool.tracker.as_ref().map(PoolTracker::state)?))
        });
        let verdicts = self.verdicts.iter().map(|(key, up)| (key.to_string(), *up));
        let journal = Journal {
            version: JOURNAL_VERSION,
            generation: self.generation,
            applied: self.applied.clone(),
            config_digest: config_digest(&self.desired),
            secret_digest: digest(&self.secret),
            numbers: self.numbers.clone(),
            overrides: self.overrides.clone(),
            drains: self.drains.clone(),
            announced: self.announced.clone(),
            verdicts: verdicts.collect(),
            served: self.outlet.vips.iter().map(|(key, spec)| (*key, served(spec))).collect(),
            trackers: trackers.collect(),
        };
        let kept = journal.encode().map_err(|error| error.to_string());
        let kept = kept.and_then(|it| self.dataplane.set_journal(&it).map_err(|e| e.to_string()));
        self.outlet.journal_dirty = kept.is_err();
        let failing = kept.err();
        if failing != self.outlet.journal_failing {
            // Forwarding goes on, because a death must not wait for a full journal.
            if let Some(reason) = &failing {
                self.stats.failures += 1;
                tracing::error!(reason, "lbd's own state is not kept: a restart would be wrong");
            }
            self.outlet.journal_failing = failing;
        }
    }

    fn write_settings(&mut self) {
        let (node, dataplane) = (&self.desired.node, &self.desired.dataplane);
        let timeouts = &self.desired.flow_timeouts;
        self.dataplane.set_settings(&SettingsSpec {
            secret: *self.secret.bytes(),
            source_v4: node.address,
            source_v6: node.address6,
            ipip_source_v4: dataplane.ipip_source.address,
            ipip_source_v6: dataplane.ipip_source6.address,
            gue_port: dataplane.gue_port,
            half_open: timeouts.tcp_half_open,
            established: timeouts.tcp_established,
            closing: timeouts.tcp_closing,
            hertz: self.options.hertz,
        });
        self.outlet.settings_dirty = false;
        // Their checksums have the sources in them.
        self.outlet.backends.clear();
        self.outlet.backends_dirty = true;
    }

    fn write_backends(&mut self) -> Result<(), Error> {
        let mut changed = BTreeMap::new();
        for (id, record) in &self.numbers.backends {
            let spec = self.backend_spec(record);
            let is_kept = spec.link.is_none() && self.outlet.inherited.contains(id);
            let is_early = spec.link.is_none() && !self.resolved;
            if !is_kept && !is_early && self.outlet.backends.get(id) != Some(&spec) {
                changed.insert(*id, spec);
            }
        }
        if !changed.is_empty() {
            let specs = changed.iter().map(|(id, spec)| (BackendId(*id), *spec)).collect();
            self.dataplane.set_backends(&specs)?;
        }
        for (id, spec) in changed {
            self.outlet.inherited.remove(&id);
            self.outlet.backends.insert(id, spec);
        }
        let backends = &self.numbers.backends;
        self.outlet.backends.retain(|id, _| backends.contains_key(id));
        self.outlet.backends_dirty = false;
        Ok(())
    }

    fn backend_spec(&self, record: &Record) -> BackendSpec {
        let hop = self.hops.get(&record.address);
        let link =
            hop.map(|hop| Link::new(hop.destination_mac, hop.source_mac, hop.interface_index));
        BackendSpec {
            destination: record.address,
            encap: record.encap,
            link,
            path_mtu: hop.map_or(0, |hop| hop.mtu),
        }
    }

    fn publish_pool(&mut self, name: &str) -> Result<(), Error> {
        let Some(pool) = self.pools.get_mut(name) else { return Ok(()) };
        let Some(tracker) = &pool.tracker else { return Ok(()) };
        let rendered = tracker.render();
        let Rendered { slots, history, generation, revision, .. } = &rendered;
        self.dataplane.publish_table(pool.number, slots, history, *generation)?;
        let is_first = pool.published.replace(*revision).is_none();
        self.stats.tables_published += 1;
        let was_all_down = pool.view.all_down;
        pool.view = view(&rendered);
        match (was_all_down, rendered.all_down) {
            (false, true) => {
                tracing::error!(pool = name, "all backends are down: all are used");
            }
            (true, false) => tracing::info!(pool = name, "not all backends are down any more"),
            _ => {}
        }
        // What an earlier lbd had no time for, or what was kept because all were down.
        let released = is_first || (was_all_down && !rendered.all_down);
        flows::purge(&self.dataplane, tracker, &std::mem::take(&mut pool.purges), released);
        Ok(())
    }

    /// A VIP whose new pool has no table yet keeps the old one. One that had none leads to an
    /// empty table, which drops as `no_backend`: probes through the tunnel need the VIP.
    fn publish_vips(&mut self) -> Result<(), Error> {
        let mut specs = BTreeMap::new();
        for vip in self.desired.vips.values() {
            let (Some(pool), Some(number)) =
                (self.pools.get_mut(&vip.pool), self.numbers.vips.get(&vip.key))
            else {
                continue;
            };
            let before = self.outlet.vips.get(&vip.key);
            let is_begun = pool.published.is_some();
            if let Some(before) = before.filter(|it| !is_begun && it.pool != pool.number) {
                specs.insert(vip.key, *before);
                continue;
            }
            if !is_begun && !pool.is_empty {
                self.dataplane.publish_table(pool.number, &[CONTESTED], &[[0; 4]], 0)?;
                pool.is_empty = true;
            }
            let asks = before.is_none_or(|it| it.asks || it.pool != pool.number);
            specs.insert(vip.key, vip_spec(vip, *number, pool.number, asks));
        }
        self.ask_where_flows_may_be_anothers(&mut specs);
        if self.outlet.vips != specs || !self.outlet.vips_written {
            let list: Vec<VipSpec> = specs.values().copied().collect();
            self.dataplane.publish_vips(&list)?;
        }
        self.outlet.vips = specs;
        self.outlet.vips_written = true;
        self.outlet.vips_dirty = false;
        self.outlet.journal_dirty = true;
        self.numbers.forget_vips(&self.desired);
        Ok(())
    }

    /// A VIP that is new, comes from another pool or is tracked in another way may have flows whose
    /// owners its pool's tracker does not know; so may those of its address and protocol that had
    /// some of its ports, or get them. Only over an empty flow table nobody has any.
    fn ask_where_flows_may_be_anothers(&self, specs: &mut BTreeMap<VipKey, VipSpec>) {
        let place = |key: &VipKey| (key.address, key.protocol);
        let before = &self.outlet.vips;
        let come_or_gone: BTreeSet<_> = specs
            .keys()
            .filter(|key| !before.contains_key(key))
            .chain(before.keys().filter(|key| !specs.contains_key(key)))
            .map(place)
            .collect();
        for (key, spec) in &mut *specs {
            let is_changed = before.get(key).is_none_or(|it| it.tracking != spec.tracking);
            spec.asks |= is_changed || come_or_gone.contains(&place(key));
        }
        self.dataplane.enter_records();
        let is_new = |(key, spec): (&VipKey, &VipSpec)| {
            spec.asks && before.get(key).is_none_or(|it| !it.asks)
        };
        if specs.iter().any(is_new) && self.dataplane.flows().next().is_none() {
            specs.values_mut().for_each(|spec| spec.asks = false);
        }
    }

    /// What an earlier lbd had in force, as far as it is still configured.
    pub(super) fn inherit_vips(&mut self, served: &BTreeMap<VipKey, Served>) {
        for (key, Served { pool, asks }) in served {
            let (vip, number) = (self.desired.vips.get(key), self.numbers.vips.get(key));
            if let (Some(vip), Some(number)) = (vip, number) {
                self.outlet.vips.insert(*key, vip_spec(vip, *number, *pool, *asks));
            }
        }
    }

    /// Takes pools away that no VIP leads to any more.
    fn remove_pools(&mut self, now: Moment) -> Result<(), Error> {
        let used: BTreeSet<u16> = self.outlet.vips.values().map(|spec| spec.pool).collect();
        let gone: Vec<String> = self
            .pools
            .iter()
            .filter(|(_, pool)| pool.leaving && !used.contains(&pool.number))
            .map(|(name, _)| name.clone())
            .collect();
        for name in gone {
            let Some(pool) = self.pools.get(&name) else { continue };
            self.dataplane.remove_pool(pool.number)?;
            self.pools.remove(&name);
            self.numbers.forget_pool(&name);
            self.outlet.journal_dirty = true;
            tracing::info!(pool = name, at = %clock::rfc3339(now.wall), "pool is gone");
        }
        Ok(())
    }

    /// Whether a VIP is in force.
    pub(super) fn is_served(&self, key: &VipKey) -> bool {
        let spec = self.outlet.vips.get(key);
        spec.is_some_and(|spec| {
            self.pools.values().any(|it| it.number == spec.pool && it.published.is_some())
        })
    }
}

fn view(rendered: &Rendered) -> View {
    let mut view = View { all_down: rendered.all_down, ..View::default() };
    let mut owned = vec![0_u32; usize::from(CONTESTED)];
    for slot in &rendered.slots {
        view.contested += u32::from(slot & CONTESTED != 0);
        if let Some(count) = owned.get_mut(usize::from(slot & !CONTESTED)) {
            *count += 1;
        }
    }
    let owned = (0..CONTESTED).zip(owned).filter(|(_, count)| *count > 0);
    view.owned = owned.collect();
    view
}

fn vip_spec(vip: &Vip, number: u16, pool: u16, asks: bool) -> VipSpec {
    let protocol = match vip.key.protocol {
        Protocol::Tcp => TCP,
        Protocol::Udp => UDP,
    };
    let port = match vip.key.port {
        Port::Any => None,
        Port::Exact(port) => Some(port),
    };
    let tracking = match vip.tracking {
        Tracking::Stateless => VipTracking::Stateless,
        Tracking::Contested => VipTracking::Slot,
        Tracking::Always => VipTracking::Always,
    };
    let udp_idle = vip.flow_timeouts.udp;
    let address = vip.key.address;
    VipSpec { number, address, protocol, port, pool, tracking, asks, udp_idle }
}

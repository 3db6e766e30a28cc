//! From checked fields to the desired state: defaults inherited, ports spread out, names joined.
//!
//! The last step of the room. It runs only when nothing was found to refuse, and it is the one
//! place where a field's meaning depends on another's.

use std::collections::BTreeMap;

use super::bgp;
use super::fields::Field;
use super::probes::Probes;
use super::raw::{self, Raw};
use crate::desired::{
    Api, Backend, Dataplane, Desired, Family, FlowTimeouts, Health, Log, Metrics, Node, Pool, Port,
    Protocol, Tracking, Via, ViaWord, Vip, VipKey, VipTimeouts, limits,
};

/// A field's value; `None` only if a finding says why.
pub(super) fn value<T: Clone>(field: &Field<T>) -> Option<T> {
    field.as_ref().map(|item| item.value.clone())
}

/// The desired state; `None` only if a finding says why.
pub(super) fn resolve(raw: &Raw) -> Option<Desired> {
    let flow_timeouts = default_timeouts(raw.flow_timeouts.as_ref()?)?;
    let dataplane = raw.dataplane.as_ref()?;
    let probes = Probes::new(raw);
    let mut pools = BTreeMap::new();
    for pool in &raw.pools {
        let pool = resolve_pool(raw, dataplane, pool, &probes)?;
        pools.insert(pool.name.clone(), pool);
    }
    let mut vips = BTreeMap::new();
    for block in &raw.vips {
        for port in &block.ports {
            let vip = resolve_vip(block, port.value, &pools, flow_timeouts)?;
            vips.insert(vip.key, vip);
        }
    }
    let (api, log) = (raw.api.as_ref()?, raw.log.as_ref()?);
    Some(Desired {
        node: resolve_node(raw.node.as_ref()?)?,
        dataplane: resolve_dataplane(dataplane, &pools)?,
        flow_timeouts,
        pools,
        vips,
        bgp: match &raw.bgp {
            Some(bgp) => Some(bgp::resolve::resolve(bgp, raw)?),
            None => None,
        },
        api: Api { socket: value(&api.socket)?, group: value(&api.group) },
        metrics: match &raw.metrics {
            Some(listen) => Some(Metrics { listen: value(listen)? }),
            None => None,
        },
        log: Log { level: value(&log.level)?, format: value(&log.format)? },
    })
}

fn default_timeouts(timeouts: &raw::Timeouts) -> Option<FlowTimeouts> {
    Some(FlowTimeouts {
        tcp_half_open: value(&timeouts.tcp_half_open)?,
        tcp_established: value(&timeouts.tcp_established)?,
        tcp_closing: value(&timeouts.tcp_closing)?,
        udp: value(&timeouts.udp)?,
    })
}

fn resolve_node(node: &raw::Node) -> Option<Node> {
    Some(Node {
        name: value(&node.name)?,
        pop: value(&node.pop)?,
        address: value(&node.address),
        address6: value(&node.address6),
        secret_file: value(&node.secret_file)?,
    })
}

fn resolve_dataplane(
    dataplane: &raw::Dataplane,
    pools: &BTreeMap<String, Pool>,
) -> Option<Dataplane> {
    let interfaces = dataplane.interfaces.as_ref()?;
    Some(Dataplane {
        interfaces: interfaces.value.iter().map(|name| name.value.clone()).collect(),
        xdp_mode: value(&dataplane.xdp_mode)?,
        encap: value(&dataplane.encap)?,
        gue_port: value(&dataplane.gue_port)?,
        ipip_source: value(&dataplane.ipip_source)?,
        ipip_source6: value(&dataplane.ipip_source6)?,
        flow_table_size: value(&dataplane.flow_table_size)?,
        maglev_size: value(&dataplane.maglev_size)?,
        max_vips: value(&dataplane.max_vips)?,
        max_pools: value(&dataplane.max_pools)?,
        max_backends: value(&dataplane.max_backends)?,
        max_slots: value(&dataplane.max_slots).unwrap_or_else(|| derived_slots(pools)),
        pin_path: value(&dataplane.pin_path)?,
    })
}

/// Room for the pools, in steps of a power of two, so that it rarely changes with them.
fn derived_slots(pools: &BTreeMap<String, Pool>) -> u32 {
    let slots: u64 = pools.values().map(|pool| u64::from(pool.maglev_size)).sum();
    let needed = (slots * u64::from(limits::TABLES_PER_POOL)).next_power_of_two();
    let needed = u32::try_from(needed).unwrap_or(limits::MAX_SLOTS);
    needed.clamp(limits::DEFAULT_SLOTS, limits::MAX_SLOTS)
}

fn resolve_pool(
    raw: &Raw,
    dataplane: &raw::Dataplane,
    pool: &raw::Pool,
    probes: &Probes<'_>,
) -> Option<Pool> {
    let name = value(&pool.name)?;
    let mut backends = BTreeMap::new();
    for backend in &pool.backends.as_ref()?.value {
        let backend = Backend {
            name: value(&backend.name)?,
            address: value(&backend.address)?,
            weight: value(&backend.weight)?,
            state: value(&backend.state)?,
        };
        backends.insert(backend.name.clone(), backend);
    }
    Some(Pool {
        health: match &pool.health {
            Some(health) => Some(resolve_health(raw, &health.value, &name, probes)?),
            None => None,
        },
        encap: value(&pool.encap).or(value(&dataplane.encap))?,
        maglev_size: value(&pool.maglev_size).or(value(&dataplane.maglev_size))?,
        min_up: value(&pool.min_up)?,
        min_up_return: value(&pool.min_up_return).or(value(&pool.min_up))?,
        on_down: value(&pool.on_down)?,
        tracking: value(&pool.tracking)?,
        window: value(&pool.window)?,
        prepare: value(&pool.prepare)?,
        backends,
        name,
    })
}

fn resolve_health(raw: &Raw, name: &str, pool: &str, probes: &Probes<'_>) -> Option<Health> {
    let health = raw.healths.iter().find(|health| health.name.value == name)?;
    let port = value(&health.port).or(probes.port(pool))?;
    let families = &raw.node.as_ref()?.families;
    let vip = probes.vips(pool, port).find(|vip| families.contains(&Family::of(*vip)));
    let via = match (value(&health.via), vip) {
        (None | Some(ViaWord::Tunnel), Some(vip)) => Via::Tunnel(vip),
        (None, None) | (Some(ViaWord::Direct), _) => Via::Direct,
        (Some(ViaWord::Tunnel), None) => return None,
    };
    Some(Health {
        name: name.to_owned(),
        kind: value(&health.kind)?,
        port,
        via,
        interval: value(&health.interval)?,
        timeout: value(&health.timeout)?,
        rise: value(&health.rise)?,
        fall: value(&health.fall)?,
    })
}

fn resolve_vip(
    block: &raw::Vip,
    port: Port,
    pools: &BTreeMap<String, Pool>,
    defaults: FlowTimeouts,
) -> Option<Vip> {
    let protocol = value(&block.protocol)?;
    let pool = value(&block.pool)?;
    let tracking = match protocol {
        Protocol::Tcp => pools.get(&pool)?.tracking,
        Protocol::Udp => value(&block.tracking).unwrap_or(Tracking::Always),
    };
    Some(Vip {
        name: value(&block.name)?,
        key: VipKey { address: value(&block.address)?, protocol, port },
        pool,
        tracking,
        flow_timeouts: VipTimeouts { udp: value(&block.udp_timeout).unwrap_or(defaults.udp) },
    })
}

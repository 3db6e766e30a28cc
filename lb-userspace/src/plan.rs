//! From one configuration to the next: what may not change, and what changes, in words.
//!
//! Pure, and the same for `diff` and `apply`: what is shown is what is done.
//!
//! Must not: change anything.

use std::collections::BTreeMap;

use lb_common::{MAX_POOLS, MAX_VIPS};

use crate::desired::{Backend, BackendState, Desired, Pool, Protocol, Tracking, Vip, VipKey};
use crate::maglev::{Member, identity_key};
use crate::state::{Numbers, Override};
use crate::tracking::{self, Moved};

mod bgp;

/// One thing that changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// `+` comes, `-` goes, `~` changes.
    pub sign: char,
    /// What it is, such as `pool web`.
    pub subject: String,
    /// What happens to it.
    pub text: String,
}

impl Line {
    /// A line.
    #[must_use]
    pub fn new(sign: char, subject: impl Into<String>, text: impl Into<String>) -> Self {
        Self { sign, subject: subject.into(), text: text.into() }
    }
}

/// The state and weight of a backend that hold, the operator's word before the file's.
#[must_use]
pub fn effective(backend: &Backend, by_operator: Option<&Override>) -> (BackendState, u16) {
    let by_operator = by_operator.copied().unwrap_or_default();
    (by_operator.state.unwrap_or(backend.state), by_operator.weight.unwrap_or(backend.weight))
}

/// The members of a pool: its backends that have once been up, with the weights that hold.
#[must_use]
pub fn members(
    pool: &Pool,
    numbers: &Numbers,
    overrides: &BTreeMap<String, Override>,
) -> Vec<Member> {
    let mut members = members_once_up(pool, numbers, overrides);
    members.retain(|it| numbers.backends.get(&it.id).is_some_and(|record| record.member));
    members
}

/// The members it would have if all of its backends had been up.
#[must_use]
pub fn members_once_up(
    pool: &Pool,
    numbers: &Numbers,
    overrides: &BTreeMap<String, Override>,
) -> Vec<Member> {
    let ids = numbers.of_pool(&pool.name);
    let of_backend = |backend: &Backend| {
        let id = *ids.get(&backend.name)?;
        let by_operator = overrides.get(&full_name(&pool.name, &backend.name));
        let (state, weight) = effective(backend, by_operator);
        let weight = if state == BackendState::Drain { 0 } else { u32::from(weight) };
        Some(Member { key: identity_key(&backend.address.to_string()), id, weight })
    };
    pool.backends.values().filter_map(of_backend).collect()
}

/// `POOL/BACKEND`.
#[must_use]
pub fn full_name(pool: &str, backend: &str) -> String {
    format!("{pool}/{backend}")
}

/// The tracker's settings of a pool.
#[must_use]
pub fn tracking_settings(desired: &Desired, pool: &Pool) -> tracking::Settings {
    let vips = || desired.vips.values().filter(|vip| vip.pool == pool.name);
    let udp = vips().map(|vip| vip.flow_timeouts.udp).max().unwrap_or_default();
    let idle = |vip: &Vip| match vip.key.protocol {
        Protocol::Tcp => desired.flow_timeouts.tcp_established,
        Protocol::Udp => vip.flow_timeouts.udp,
    };
    let always = vips().filter(|vip| vip.tracking == Tracking::Always).map(idle).max();
    tracking::Settings {
        always: always.unwrap_or_default(),
        on_down: match pool.on_down {
            crate::desired::OnDown::Keep => tracking::OnDown::Keep,
            crate::desired::OnDown::Release => tracking::OnDown::Release,
        },
        window: pool.window,
        prepare: pool.prepare,
        history: desired.flow_timeouts.tcp_established.max(udp),
    }
}

/// What this build cannot do at all, whatever runs.
#[must_use]
pub fn impossible(desired: &Desired) -> Vec<String> {
    let limits = [
        ("max_pools", u64::from(desired.dataplane.max_pools), MAX_POOLS as u64),
        ("max_vips", u64::from(desired.dataplane.max_vips), MAX_VIPS as u64 - 1),
    ];
    let above = limits.into_iter().filter(|(_, wanted, limit)| wanted > limit);
    above
        .map(|(key, wanted, limit)| {
            format!("dataplane.{key} = {wanted} is more than this version has room for: {limit}")
        })
        .collect()
}

/// What cannot change while the data plane lives, one sentence each; empty if all can.
#[must_use]
pub fn refusals(old: &Desired, new: &Desired) -> Vec<String> {
    let mut found = impossible(new);
    let (before, after) = (&old.dataplane, &new.dataplane);
    if before.pin_path != after.pin_path {
        found.push("dataplane.pin_path cannot change while lbd runs: restart it".to_owned());
    }
    for (key, before, after) in [
        ("flow_table_size", before.flow_table_size, after.flow_table_size),
        ("max_vips", before.max_vips, after.max_vips),
        ("max_pools", before.max_pools, after.max_pools),
        ("max_backends", before.max_backends, after.max_backends),
        ("max_slots", before.max_slots, after.max_slots),
    ] {
        if before != after {
            found.push(resized(key, before, after, &after_path(new)));
        }
    }
    if before.interfaces != after.interfaces {
        found.push(
            "dataplane.interfaces cannot change while lbd runs: restart it, which attaches the \
             new ones and detaches the others"
                .to_owned(),
        );
    }
    for (name, pool) in &new.pools {
        if let Some(before) = old.pools.get(name).filter(|it| it.maglev_size != pool.maglev_size) {
            found.push(format!(
                "pool `{name}`: maglev_size cannot change from {} to {}, because every flow would \
                 move; make a new pool of that size and lead new VIPs to it",
                before.maglev_size, pool.maglev_size
            ));
        }
    }
    found
}

/// Whether a pool's backends are probed through the tunnel.
#[must_use]
pub fn wants_tunnel(desired: &Desired) -> bool {
    let mut checks = desired.pools.values().filter_map(|pool| pool.health.as_ref());
    checks.any(|check| check.via != crate::desired::Via::Direct)
}

fn after_path(desired: &Desired) -> String {
    desired.dataplane.pin_path.display().to_string()
}

/// The sentence for a size that the maps were made with.
#[must_use]
pub fn resized(key: &str, before: u32, after: u32, pin_path: &str) -> String {
    format!(
        "dataplane.{key} cannot change from {before} to {after} while the data plane lives: stop \
         lbd and run `lbctl unload --pin-path {pin_path}` first, which stops forwarding until lbd \
         is started again"
    )
}

/// What changes, in the order in which it is shown. `moved` are the slots that pools of both
/// configurations move.
#[must_use]
pub fn changes(old: &Desired, new: &Desired, moved: &BTreeMap<String, Moved>) -> Vec<Line> {
    let mut lines = Vec::new();
    node(old, new, &mut lines);
    for (name, pool) in &new.pools {
        match old.pools.get(name) {
            Some(before) => pool_changes(before, pool, moved.get(name), &mut lines),
            None => {
                let slots = grouped(pool.maglev_size.into());
                let text = format!("{} backends, {slots} slots", pool.backends.len());
                lines.push(Line::new('+', format!("pool {name}"), text));
            }
        }
    }
    for name in old.pools.keys().filter(|name| !new.pools.contains_key(*name)) {
        lines.push(Line::new('-', format!("pool {name}"), "removed"));
    }
    vips(&old.vips, &new.vips, &mut lines);
    bgp::changes(old, new, &mut lines);
    lines
}

fn node(old: &Desired, new: &Desired, lines: &mut Vec<Line>) {
    if old.node != new.node {
        lines.push(Line::new('~', "node", "name, PoP or addresses"));
    }
    if old.flow_timeouts != new.flow_timeouts {
        lines.push(Line::new('~', "flow timeouts", "new ones hold from each flow's next packet"));
    }
    let (before, after) = (&old.dataplane, &new.dataplane);
    let sources = |it: &crate::desired::Dataplane| (it.gue_port, it.ipip_source, it.ipip_source6);
    if sources(before) != sources(after) {
        lines.push(Line::new('~', "dataplane", "GUE port or sources of tunnels"));
    }
    if before.xdp_mode != after.xdp_mode {
        let text =
            format!("xdp_mode {} -> {}, from the next start", before.xdp_mode, after.xdp_mode);
        lines.push(Line::new('~', "dataplane", text));
    }
    if old.api != new.api || old.metrics != new.metrics || old.log != new.log {
        lines.push(Line::new('~', "lbd", "api, metrics or log, from the next start"));
    }
}

fn pool_changes(old: &Pool, new: &Pool, moved: Option<&Moved>, lines: &mut Vec<Line>) {
    let subject = format!("pool {}", new.name);
    let before = lines.len();
    for (name, backend) in &new.backends {
        match old.backends.get(name) {
            None => {
                let proof = if new.health.is_some() { ", once it is up" } else { "" };
                let text = format!(
                    "backend {name} {} added with weight {}{proof}",
                    backend.address, backend.weight
                );
                lines.push(Line::new('+', subject.clone(), text));
            }
            Some(before) if before != backend => {
                let text = format!("backend {name}: {}", backend_change(before, backend));
                lines.push(Line::new('~', subject.clone(), text));
            }
            Some(_) => {}
        }
    }
    for (name, backend) in old.backends.iter().filter(|(it, _)| !new.backends.contains_key(*it)) {
        let text =
            format!("backend {name} {} removed; its flows stay until they end", backend.address);
        lines.push(Line::new('-', subject.clone(), text));
    }
    let settings = |pool: &Pool| Pool { backends: BTreeMap::new(), ..pool.clone() };
    if settings(old) != settings(new) {
        lines.push(Line::new('~', subject.clone(), setting_changes(old, new)));
    }
    if let Some(moved) = moved.filter(|moved| lines.len() > before && moved.slots > 0) {
        lines.push(Line::new('~', subject, moved_text(moved, new.maglev_size)));
    }
}

fn backend_change(old: &Backend, new: &Backend) -> String {
    let mut parts = Vec::new();
    if old.address != new.address {
        parts.push(format!("address {} -> {}: another backend", old.address, new.address));
    }
    if old.weight != new.weight {
        parts.push(format!("weight {} -> {}", old.weight, new.weight));
    }
    if old.state != new.state {
        parts.push(format!("state {} -> {}", old.state, new.state));
    }
    parts.join(", ")
}

fn setting_changes(old: &Pool, new: &Pool) -> String {
    let mut parts = Vec::new();
    let mut compare = |name: &str, before: String, after: String| {
        if before != after {
            parts.push(format!("{name} {before} -> {after}"));
        }
    };
    let duration = crate::desired::format_duration;
    compare("encap", old.encap.to_string(), new.encap.to_string());
    compare("min_up", old.min_up.to_string(), new.min_up.to_string());
    compare("min_up_return", old.min_up_return.to_string(), new.min_up_return.to_string());
    compare("on_down", old.on_down.to_string(), new.on_down.to_string());
    compare("tracking", old.tracking.to_string(), new.tracking.to_string());
    compare("window", duration(old.window), duration(new.window));
    compare("prepare", duration(old.prepare), duration(new.prepare));
    if old.health != new.health {
        parts.push("health check".to_owned());
    }
    parts.join(", ")
}

/// How many slots move; flows keep their backends through it.
#[must_use]
pub fn moved_text(moved: &Moved, slots: u32) -> String {
    let share = f64::from(moved.slots) * 100.0 / f64::from(slots.max(1));
    let waits = if moved.blocked > 0 {
        format!("; waits for windows: {} of them changed too often lately", moved.blocked)
    } else {
        String::new()
    };
    let (moving, slots) = (grouped(moved.slots.into()), grouped(slots.into()));
    format!("{moving} of {slots} slots move ({share:.1}%); flows keep their backend{waits}")
}

/// A count with its thousands apart: `65,537`.
#[must_use]
pub fn grouped(count: u64) -> String {
    let digits = count.to_string();
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

fn vips(old: &BTreeMap<VipKey, Vip>, new: &BTreeMap<VipKey, Vip>, lines: &mut Vec<Line>) {
    for (key, vip) in new {
        let subject = format!("vip {}", vip.name);
        match old.get(key) {
            None => {
                let text = format!("{key} to pool {}", vip.pool);
                lines.push(Line::new('+', subject, text));
            }
            Some(before) if before.pool != vip.pool => {
                let text = format!(
                    "{key}: pool {} -> {}: its flows move to other backends",
                    before.pool, vip.pool
                );
                lines.push(Line::new('~', subject, text));
            }
            Some(before) if before != vip => {
                let text = format!("{key}: name, tracking or flow timeouts");
                lines.push(Line::new('~', subject, text));
            }
            Some(_) => {}
        }
    }
    for (key, vip) in old.iter().filter(|(key, _)| !new.contains_key(*key)) {
        let text = format!("{key} removed");
        lines.push(Line::new('-', format!("vip {}", vip.name), text));
    }
}

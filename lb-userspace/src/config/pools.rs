//! The part of `validate` that looks at pools and their backends.
//!
//! Pure like the rest of it. What it must guard most is arithmetic: a table that is too small for
//! its weights shares the load otherwise than the file says.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use super::diagnostic::{At, Finding, Id};
use super::fields::Item;
use super::probes::{Probes, check_probe};
use super::raw::{Backend, Pool, Raw};
use super::validate::{Names, OwnAddresses, check_size, check_unique, check_usable};
use super::values::{grouped, literal};
use crate::desired::{BackendState, Family, format_duration};
use crate::{maglev, primes};

/// How far a share may be from what its weight says.
const TOLERANCE_PERCENT: u32 = maglev::SHARE_TOLERANCE_PER_MILLE / 10;

/// A handshake must not straddle a change: its SYN is sent again after 1 s and after 3 s in all
/// (RFC 6298, section 2), and may meet another load balancer each time.
const MIN_PREPARE: Duration = Duration::from_secs(3);

/// A shorter window leaves pauses in flows to the second chance alone.
const SHORT_WINDOW: Duration = Duration::from_secs(60);

pub(super) fn check_pools(
    raw: &Raw,
    known: &Names<'_>,
    own: &OwnAddresses,
    findings: &mut Vec<Finding>,
) {
    let probes = Probes::new(raw);
    let mut names: BTreeMap<&str, At> = BTreeMap::new();
    for pool in &raw.pools {
        if let Some(name) = &pool.name {
            check_unique("two pools", name, &mut names, findings);
        }
        let name = pool.name.as_ref().map_or("this pool", |name| name.value.as_str());
        if let Some(own) = pool.name.as_ref().filter(|own| known.pool_is_unused(&own.value)) {
            let title = format!("no VIP uses pool `{name}`");
            findings.push(Finding::new(Id::UnusedPool, title, own.at, ""));
        }
        check_probe(raw, pool, name, known, &probes, findings);
        check_times(pool, name, findings);
        check_return(pool, name, findings);
        if let Some(size) = &pool.maglev_size {
            check_size(size, &format!("of pool `{name}`"), findings);
        }
        let Some(backends) = &pool.backends else { continue };
        check_backends(raw, &backends.value, name, own, findings);
        check_shares(raw, pool, backends, name, findings);
    }
}

fn check_times(pool: &Pool, name: &str, findings: &mut Vec<Finding>) {
    if let Some(prepare) = pool.prepare.as_ref().filter(|prepare| prepare.value < MIN_PREPARE) {
        let title = format!("`prepare` of pool `{name}` is too short");
        let least = format_duration(MIN_PREPARE);
        let finding = Finding::new(Id::PrepareTooShort, title, prepare.at, "")
            .help(format!("at least {least}, so that no handshake straddles a change"));
        findings.push(finding);
    }
    if let Some(window) = pool.window.as_ref().filter(|window| window.value < SHORT_WINDOW) {
        let title = format!("`window` of pool `{name}` is short");
        let finding = Finding::new(Id::WindowShort, title, window.at, "").help(format!(
            "flows that pause for longer keep their backend only if it runs the agent and `encap` \
             is \"gue\"; {} or more is safer",
            format_duration(SHORT_WINDOW)
        ));
        findings.push(finding);
    }
}

fn check_return(pool: &Pool, name: &str, findings: &mut Vec<Finding>) {
    let (Some(min_up), Some(back)) = (&pool.min_up, &pool.min_up_return) else { return };
    if back.value < min_up.value {
        let title = format!("`min_up_return` of pool `{name}` is below its `min_up`");
        let finding = Finding::new(Id::MinUpReturn, title, back.at, "");
        let finding = match min_up.given {
            true => finding.beside(min_up.at, "its VIPs go with fewer"),
            false => finding,
        };
        findings.push(finding.help("its VIPs would go and come back at once: at least `min_up`"));
    }
}

fn check_backends(
    raw: &Raw,
    backends: &[Backend],
    pool: &str,
    own: &OwnAddresses,
    findings: &mut Vec<Finding>,
) {
    let mut names: BTreeMap<&str, At> = BTreeMap::new();
    let mut addresses: BTreeMap<IpAddr, (At, &str)> = BTreeMap::new();
    for backend in backends {
        let name = backend.name.as_ref().map_or("this backend", |name| name.value.as_str());
        if let Some(name) = &backend.name {
            check_unique(&format!("two backends of pool `{pool}`"), name, &mut names, findings);
        }
        let Some(address) = &backend.address else { continue };
        check_address(raw, address, &format!("backend `{pool}/{name}`"), own, findings);
        let Some((first, other)) = addresses.get(&address.value) else {
            addresses.insert(address.value, (address.at, name));
            continue;
        };
        let title = format!("two backends of pool `{pool}` share one address");
        let label = format!("same address as `{other}`");
        let finding = Finding::new(Id::DuplicateBackend, title, address.at, label)
            .beside(*first, "first used here")
            .help("give each backend its own address; use `weight` to send more to one");
        findings.push(finding);
    }
}

fn check_address(
    raw: &Raw,
    address: &Item<IpAddr>,
    whose: &str,
    own: &OwnAddresses,
    findings: &mut Vec<Finding>,
) {
    check_usable(address.value, address.at, whose, findings);
    if let Some(node) = own.node.get(&address.value) {
        let title = format!("{whose} has the node's own address");
        let finding = Finding::new(Id::AddressIsNode, title, address.at, "")
            .beside(*node, "the node's address")
            .help("a load balancer cannot be its own backend");
        findings.push(finding);
    }
    if let Some(vip) = own.vips.get(&address.value) {
        let title = format!("{whose} has the address of a VIP");
        let finding = Finding::new(Id::BackendIsVip, title, address.at, "")
            .beside(*vip, "the VIP")
            .help("the tunnel would lead back to the load balancer: use the machine's own address");
        findings.push(finding);
    }
    let Some(node) = &raw.node else { return };
    let family = Family::of(address.value);
    let key = match family {
        Family::V4 => "address",
        Family::V6 => "address6",
    };
    // A node without any address has its own finding.
    let missing = !node.families.is_empty() && !node.families.contains(&family);
    if missing {
        let title = format!("no tunnel can lead to {whose}: the node has no {family} address");
        let finding = Finding::new(Id::NoOuterAddress, title, address.at, format!("is {family}"));
        findings.push(finding.help(format!("set `{key}` in `[node]`")));
    }
}

/// What each backend gets of the table, and whether that is what the weights say.
fn check_shares(
    raw: &Raw,
    pool: &Pool,
    backends: &Item<Vec<Backend>>,
    name: &str,
    findings: &mut Vec<Finding>,
) {
    if backends.value.is_empty() {
        let title = format!("pool `{name}` has no backends");
        let finding = Finding::new(Id::EmptyPool, title, backends.at, "");
        return findings.push(finding.help("its VIPs drop every packet as `no_backend`"));
    }
    let count = backends.value.len();
    for (key, min) in [("min_up", &pool.min_up), ("min_up_return", &pool.min_up_return)] {
        let above = |min: &&Item<u32>| usize::try_from(min.value).is_ok_and(|min| min > count);
        if let Some(min) = min.as_ref().filter(above) {
            let title = format!("pool `{name}` has fewer backends than its `{key}`");
            let label = format!("backends: {count}");
            findings.push(Finding::new(Id::MinUpUnreachable, title, min.at, label));
        }
    }
    let takes_flows = |backend: &Backend| {
        let up = backend.state.as_ref().is_none_or(|state| state.value == BackendState::Up);
        up && backend.weight.as_ref().is_none_or(|weight| weight.value > 0)
    };
    if !backends.value.iter().any(takes_flows) {
        let title = format!("no backend of pool `{name}` takes new flows");
        let at = pool.name.as_ref().map_or(pool.at, |name| name.at);
        let finding = Finding::new(Id::NoShare, title, at, "all drain or have weight 0");
        findings.push(finding.help("its VIPs drop what would be a new flow as `no_backend`"));
    }
    let size = pool.maglev_size.as_ref();
    let size = size.or(raw.dataplane.as_ref().and_then(|dataplane| dataplane.maglev_size.as_ref()));
    if let Some(size) = size.filter(|size| primes::is_allowed(size.value)) {
        check_rounding(size, &backends.value, name, findings);
    }
}

/// Warns if rounding to whole slots shows in a share. Drained backends count, for they may come
/// back.
fn check_rounding(size: &Item<u32>, backends: &[Backend], pool: &str, findings: &mut Vec<Finding>) {
    let weight = |backend: &Backend| backend.weight.as_ref().map_or(0, |w| u32::from(w.value));
    let weights: Vec<u32> = backends.iter().map(weight).collect();
    if maglev::is_sufficient(&weights, size.value) {
        return;
    }
    let total: u64 = weights.iter().map(|weight| u64::from(*weight)).sum();
    let shares = backends.iter().zip(&weights).zip(maglev::quotas(&weights, size.value));
    let off = |weight: u32, slots: u32| {
        let ideal = f64::from(weight) * f64::from(size.value) / total as f64;
        (f64::from(slots) / ideal - 1.0) * 100.0
    };
    let shares = shares.filter(|((_, weight), _)| **weight > 0);
    let shares = shares.map(|((backend, weight), slots)| (backend, slots, off(*weight, slots)));
    let worst = shares.max_by(|(.., a), (.., b)| a.abs().total_cmp(&b.abs()));
    let Some((worst, slots, off)) = worst else { return };
    let title = format!("pool `{pool}` has too few slots for its weights");
    let name = worst.name.as_ref().map_or("this", |name| name.value.as_str());
    let of = grouped(size.value);
    let than = if off > 0.0 { "more" } else { "less" };
    let label = match slots {
        0 => format!("`{name}` would get none of {of} slots"),
        _ => format!(
            "`{name}` would get {} of {of} slots, {:.1} % {than} than its weight says",
            grouped(slots),
            off.abs()
        ),
    };
    let at = worst.weight.as_ref().filter(|weight| weight.given).map(|weight| weight.at);
    let finding = Finding::new(Id::MaglevTooSmall, title, at.unwrap_or(worst.at), label);
    let finding = match size.given {
        true => finding.beside(size.at, "`maglev_size`"),
        false => finding,
    };
    findings.push(match maglev::smallest_sufficient_prime(&weights) {
        Some(prime) => finding.help(format!(
            "set `maglev_size = {}`: then each share is within {TOLERANCE_PERCENT} % of its weight",
            literal(prime)
        )),
        None => finding.help("no size is large enough; use weights closer to each other"),
    });
}

//! What BGP's layers of attributes add up to: the length of paths and the number of communities.
//!
//! A part of `config::validate`, see there.

use super::super::diagnostic::{At, Finding, Id};
use super::checks::{peer_name, prefix_name, too_many};
use super::raw::{Attributes, Bgp, Peer};
use crate::desired::bgp::limits;

/// What layers add to a route.
#[derive(Clone, Copy, Default)]
struct Sum {
    prepend: usize,
    communities: usize,
    large: usize,
    extended: usize,
}

impl Sum {
    fn of(layer: &Attributes) -> Self {
        Self {
            prepend: layer.prepend.as_ref().map_or(0, |it| usize::from(it.value)),
            communities: layer.communities.len(),
            large: layer.large_communities.len(),
            extended: layer.extended_communities.len(),
        }
    }

    fn each(self, other: Self, join: fn(usize, usize) -> usize) -> Self {
        Self {
            prepend: join(self.prepend, other.prepend),
            communities: join(self.communities, other.communities),
            large: join(self.large, other.large),
            extended: join(self.extended, other.extended),
        }
    }

    fn and(self, other: Self) -> Self {
        self.each(other, |a, b| a + b)
    }

    fn max(self, other: Self) -> Self {
        self.each(other, usize::max)
    }
}

/// What holds for every route at its worst: `[bgp]`, the largest level of shedding, and lowered
/// preference.
fn common(bgp: &Bgp) -> Sum {
    let shed = bgp.shedding.iter().map(Sum::of).fold(Sum::default(), Sum::max);
    let graceful = bgp.lower.graceful_shutdown.as_ref().is_some_and(|it| it.value);
    let lower = Sum {
        prepend: bgp.lower.prepend.as_ref().map_or(0, |it| usize::from(it.value)),
        communities: bgp.lower.communities.len() + usize::from(graceful),
        ..Sum::default()
    };
    Sum::of(&bgp.attributes).and(shed).and(lower)
}

/// Reports routes with a longer path or more communities than may be sent: once for each peer,
/// prefix, or peer of a prefix, that is first to pass a limit.
pub(super) fn check_sums(bgp: &Bgp, findings: &mut Vec<Finding>) {
    let common = common(bgp);
    let mut worst = Sum::default();
    for peer in &bgp.peers {
        let sum = Sum::of(&peer.attributes);
        let route = common.and(sum).and(Sum::of(&bgp.host_routes.attributes));
        let what = format!("routes to peer `{}`", peer_name(peer));
        if report(as_sent(bgp, peer, route), &what, peer.at, findings) {
            return;
        }
        worst = worst.max(as_sent(bgp, peer, sum));
    }
    // Where all peers are in our own AS there is no path.
    let external = bgp.peers.iter().any(|peer| !is_internal(bgp, peer));
    for prefix in &bgp.prefixes {
        let sum = common.and(Sum::of(&prefix.attributes));
        let what = prefix_name(prefix);
        let mut route = sum.and(worst);
        route.prepend = if external { route.prepend } else { 0 };
        if report(route, &what, prefix.at, findings) {
            continue;
        }
        for (name, layer) in &prefix.peers {
            let named = |it: &&Peer| it.name.as_ref().is_some_and(|own| own.value == name.value);
            let Some(peer) = bgp.peers.iter().find(named) else { continue };
            let route = sum.and(Sum::of(&peer.attributes)).and(Sum::of(layer));
            let what = format!("{what} to peer `{}`", name.value);
            report(as_sent(bgp, peer, route), &what, name.at, findings);
        }
    }
}

fn is_internal(bgp: &Bgp, peer: &Peer) -> bool {
    let numbers = (bgp.local_as.as_ref(), peer.remote_as.as_ref());
    matches!(numbers, (Some(ours), Some(theirs)) if ours.value == theirs.value)
}

/// Paths within the AS are empty.
fn as_sent(bgp: &Bgp, peer: &Peer, route: Sum) -> Sum {
    if is_internal(bgp, peer) { Sum { prepend: 0, ..route } } else { route }
}

/// Whether something was reported.
fn report(sum: Sum, what: &str, at: At, findings: &mut Vec<Finding>) -> bool {
    let before = findings.len();
    let length = sum.prepend + 1;
    if length > limits::MAX_AS_PATH {
        let title = format!("prepending of {what} adds up to a path that others drop");
        let label = format!("{length} ASNs at worst");
        let finding = Finding::new(Id::PathTooLong, title, at, label);
        let help = format!(
            "at most {}, with `[bgp]`, prefix, peer, shedding and `[bgp.lower]` together",
            limits::MAX_AS_PATH
        );
        findings.push(finding.help(help));
    }
    too_many(sum.communities, &format!("communities of {what}"), at, findings);
    too_many(sum.large, &format!("large communities of {what}"), at, findings);
    too_many(sum.extended, &format!("extended communities of {what}"), at, findings);
    findings.len() > before
}

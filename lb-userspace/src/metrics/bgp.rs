//! The series about BGP: sessions, routes, and the time from a decision to its last byte.
//!
//! A part of `metrics`.

use std::fmt;

use prometheus_client::encoding::{DescriptorEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;

use super::{Series, counter, counters, flag, gauge, gauges, level};
use crate::api::bgp::{BgpPeer, BgpPeers, BgpRoutes};
use crate::bgp::session::{Cause, DecisionTimes, State};

pub(super) fn encode(
    peers: &BgpPeers,
    routes: &BgpRoutes,
    out: &mut DescriptorEncoder<'_>,
) -> fmt::Result {
    let help = "What the operator should look at";
    gauge(out, "lb_bgp_alarms", help, level(peers.alarms.len() as u64))?;
    let help = "Connections that were closed because they are no peer's";
    counter(out, "lb_bgp_connections_refused", help, peers.refused)?;
    sessions(&peers.peers, out)?;
    self::routes(&peers.peers, routes, out)?;
    decisions(&peers.peers, out)
}

fn each<V>(
    peers: &[BgpPeer],
    value: impl Fn(&BgpPeer) -> V,
) -> Series<[(&'static str, &str); 1], V> {
    peers.iter().map(|peer| ([("peer", peer.name.as_str())], value(peer))).collect()
}

fn sessions(peers: &[BgpPeer], out: &mut DescriptorEncoder<'_>) -> fmt::Result {
    let up = each(peers, |peer| flag(peer.session.state == State::Established));
    gauges(out, "lb_bgp_peer_up", "1 while the session is established", up)?;
    let sessions = each(peers, |peer| peer.session.counters.established);
    counters(out, "lb_bgp_sessions", "How often the session was established", sessions)?;
    let mut flaps = Vec::new();
    for peer in peers {
        for cause in Cause::ALL {
            let count = peer.session.counters.flaps.get(&cause).copied().unwrap_or_default();
            flaps.push(([("peer", peer.name.as_str()), ("cause", cause.as_str())], count));
        }
    }
    counters(out, "lb_bgp_session_flaps", "How often an established session fell", flaps)?;
    let mut updates = Vec::new();
    for peer in peers {
        let of = &peer.session.counters;
        for (direction, count) in [("in", of.updates_in), ("out", of.updates_out)] {
            updates.push(([("peer", peer.name.as_str()), ("direction", direction)], count));
        }
    }
    counters(out, "lb_bgp_updates", "UPDATE messages", updates)?;
    let with_bfd = peers.iter().filter_map(|peer| Some((peer, peer.session.bfd.as_ref()?)));
    let with_bfd: Vec<_> = with_bfd.collect();
    let up = with_bfd
        .iter()
        .map(|(peer, bfd)| ([("peer", peer.name.as_str())], flag(bfd.state == "Up")));
    gauges(out, "lb_bgp_bfd_up", "1 while BFD says that the path to the peer is up", up.collect())?;
    let losses = with_bfd.iter().map(|(peer, bfd)| ([("peer", peer.name.as_str())], bfd.losses));
    counters(out, "lb_bgp_bfd_losses", "How often BFD lost the path", losses.collect())
}

fn routes(peers: &[BgpPeer], routes: &BgpRoutes, out: &mut DescriptorEncoder<'_>) -> fmt::Result {
    let mut counts = Vec::new();
    for peer in peers {
        let (wanted, sent) = (peer.wanted as u64, peer.session.sent.len() as u64);
        let received = peer.session.prefixes_received;
        let unsendable = peer.session.unsendable.len() as u64;
        let kinds = [
            ("wanted", wanted),
            ("sent", sent),
            ("unsendable", unsendable),
            ("received", received),
        ];
        for (kind, count) in kinds {
            counts.push(([("peer", peer.name.as_str()), ("kind", kind)], level(count)));
        }
    }
    gauges(out, "lb_bgp_routes", "Routes by peer", counts)?;
    let announced = routes.routes.iter().map(|route| {
        let labels = [("peer", route.peer.clone()), ("prefix", route.prefix.to_string())];
        (labels, flag(route.sent))
    });
    let help = "1 while the peer has the route from us as it is wanted";
    gauges(out, "lb_bgp_route_announced", help, announced.collect())
}

fn decisions(peers: &[BgpPeer], out: &mut DescriptorEncoder<'_>) -> fmt::Result {
    let help = "From a decision to the last byte of it to the peer";
    let kind = MetricType::Histogram;
    let mut family = out.encode_descriptor("lb_bgp_decision_seconds", help, None, kind)?;
    for peer in peers {
        let times = &peer.session.decisions;
        let bounds =
            DecisionTimes::BOUNDS_MS.iter().map(|ms| level(*ms) / 1e3).chain([f64::INFINITY]);
        let buckets: Vec<(f64, u64)> = bounds.zip(times.buckets).collect();
        let labels = [("peer", peer.name.as_str())];
        let mut encoder = family.encode_family(&labels)?;
        let sum = level(times.sum_us) / 1e6;
        encoder.encode_histogram::<NoLabelSet>(sum, times.count, &buckets, None)?;
    }
    Ok(())
}

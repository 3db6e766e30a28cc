//! What is said of BGP: alarms, peers, and routes with their reasons.
//!
//! A part of `announcing`; only looks.

use std::time::Duration;

use ipnet::IpNet;

use super::{Announcing, NO_BGP};
use crate::api::bgp::{BgpOrder, BgpPeer, BgpPeers, BgpRoute, BgpRoutes};
use crate::api::requests::RoutesQuestion;
use crate::api::{API_VERSION, Failure};
use crate::bgp::roa_file::Watch;
use crate::bgp::session::{PeerReport, State};
use crate::config::Loaded;
use crate::controller::{Controller, Moment};
use crate::plan::Line;

impl Controller {
    /// Peers whose password is another one, which the configuration does not show: it only names
    /// the files. A password that comes or goes is there.
    pub(in crate::controller) fn password_changes(&self, loaded: &Loaded) -> Vec<Line> {
        let peers = loaded.desired.bgp.iter().flat_map(|bgp| bgp.peers.keys());
        let is_other =
            |name: &&String| match (self.passwords.get(*name), loaded.passwords.get(*name)) {
                (Some(old), Some(new)) => old != new,
                _ => false,
            };
        let changed = peers.filter(is_other).map(|name| {
            let text = "password changed: its session is reset";
            Line::new('~', format!("bgp peer {name}"), text)
        });
        changed.collect()
    }

    /// What an operator must look at.
    pub(in crate::controller) fn bgp_alarms(&self) -> Vec<String> {
        let Some(announcing) = &self.announcing else { return Vec::new() };
        let mut alarms = announcing.announcer.alarms();
        alarms.extend(announcing.payloads.as_ref().and_then(Watch::alarm));
        let is_dry = announcing.announcer.bgp().is_some_and(|bgp| bgp.dry_run);
        for (name, peer) in announcing.report.peers.iter().filter(|_| !is_dry) {
            if peer.state != State::Established {
                let why = peer.last_error.as_ref().map(|error| format!(": {}", error.text));
                alarms.push(format!(
                    "BGP peer {name} is {}{}",
                    peer.state,
                    why.unwrap_or_default()
                ));
            }
            alarms.extend(cannot_be_told(name, peer));
        }
        for (address, error) in &announcing.report.listeners {
            let error = error.as_ref().map(|error| format!("no listening on {address}: {error}"));
            alarms.extend(error);
        }
        if self.drains.node {
            alarms.push("this load balancer is drained: `lbctl node undrain`".to_owned());
        }
        alarms
    }

    pub(in crate::controller) fn bgp_peers(&self, now: Moment) -> Result<BgpPeers, Failure> {
        self.peers_answer(now).ok_or_else(|| Failure::refused(NO_BGP))
    }

    pub(in crate::controller) fn peers_answer(&self, now: Moment) -> Option<BgpPeers> {
        let announcing = self.announcing.as_ref()?;
        let bgp = announcing.announcer.bgp()?;
        let announcement = announcing.announcement.as_ref();
        let peers = bgp.peers.values().map(|peer| BgpPeer {
            name: peer.name.clone(),
            address: peer.address,
            remote_as: peer.remote_as,
            wanted: announcement
                .and_then(|it| it.routes.get(&peer.name))
                .map_or(0, |routes| routes.len()),
            session: announcing.report.peers.get(&peer.name).cloned().unwrap_or_default(),
        });
        Some(BgpPeers {
            version: API_VERSION,
            local_as: bgp.local_as,
            dry_run: bgp.dry_run,
            now_ms: millis(now.boot),
            alarms: self.bgp_alarms(),
            refused: announcing.report.refused,
            peers: peers.collect(),
        })
    }

    pub(in crate::controller) fn bgp_routes(
        &self,
        question: &RoutesQuestion,
        now: Moment,
    ) -> Result<BgpRoutes, Failure> {
        let bgp = self.announcing.as_ref().and_then(|it| it.announcer.bgp());
        let peers = bgp.iter().flat_map(|bgp| bgp.peers.keys());
        let known: Vec<&str> = peers.map(String::as_str).collect();
        if let Some(peer) = question.peer.as_deref().filter(|peer| !known.contains(peer)) {
            return Err(crate::controller::operator::unknown("BGP peer called", peer, &known));
        }
        self.routes_answer(question, now).ok_or_else(|| Failure::refused(NO_BGP))
    }

    pub(in crate::controller) fn routes_answer(
        &self,
        question: &RoutesQuestion,
        now: Moment,
    ) -> Option<BgpRoutes> {
        let announcing = self.announcing.as_ref()?;
        let is_asked = |prefix: &IpNet, peer: &str| {
            question.prefix.is_none_or(|asked| asked == *prefix)
                && question.peer.as_deref().is_none_or(|asked| asked == peer)
        };
        let routes = announcing.announcer.routes().into_iter();
        let routes = routes.filter(|route| is_asked(&route.prefix, &route.peer));
        let routes = routes.map(|route| BgpRoute {
            sent: announcing.is_sent(&route.peer, &route.prefix),
            why: announcing.unsendable(&route.peer, &route.prefix).map_or_else(
                || route.why.clone(),
                |why| format!("{}; the peer cannot be told: {why}", route.why),
            ),
            prefix: route.prefix,
            peer: route.peer,
            state: route.state,
            for_ms: route.since.map(|since| millis(now.boot.saturating_sub(since))),
            attributes: route.attributes,
        });
        let orders = announcing.announcer.orders().into_iter().map(|order| BgpOrder {
            id: order.id,
            text: order.text,
            remaining_ms: millis(order.until.saturating_sub(now.boot)),
        });
        Some(BgpRoutes {
            version: API_VERSION,
            alarms: announcing.announcer.alarms(),
            orders: orders.collect(),
            routes: routes.collect(),
        })
    }
}

impl Announcing {
    /// Whether the peer has the route as it is wanted.
    fn is_sent(&self, peer: &str, prefix: &IpNet) -> bool {
        let wanted = self.announcement.as_ref().and_then(|it| it.routes.get(peer)?.get(prefix));
        let sent = self.report.peers.get(peer).and_then(|peer| peer.sent.get(prefix));
        wanted.is_some() && wanted == sent
    }

    /// Why the peer cannot be told of a route.
    fn unsendable(&self, peer: &str, prefix: &IpNet) -> Option<&str> {
        self.report.peers.get(peer)?.unsendable.get(prefix).map(String::as_str)
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// The alarm for a peer that is to have routes which its session cannot carry.
fn cannot_be_told(name: &str, peer: &PeerReport) -> Option<String> {
    let (prefix, why) = peer.unsendable.first_key_value()?;
    let more = match peer.unsendable.len() - 1 {
        0 => String::new(),
        more => format!(", and {more} more prefixes neither"),
    };
    Some(format!("BGP peer {name} cannot be told of {prefix}{more}: {why}"))
}

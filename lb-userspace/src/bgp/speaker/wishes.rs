//! What one peer's task is to do, made out of the orders for all.
//!
//! A part of `speaker`. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;

use ipnet::IpNet;

use super::listener::Guards;
use super::{Options, Orders};
use crate::bgp::bfd;
use crate::bgp::gtsm::min_ttl;
use crate::bgp::route::Rib;
use crate::bgp::session::{Close, Decision, SessionSettings};
use crate::bgp::socket::Link;
use crate::config::Password;
use crate::desired::bgp::{AttributeSettings, Peer};

/// What a peer's session is made of; a change resets it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Settings {
    pub(super) session: SessionSettings,
    pub(super) password: Option<Password>,
    /// Everything is shown, nobody is connected to.
    pub(super) dry_run: bool,
}

impl Settings {
    /// Why there is to be no session.
    pub(super) fn idle(&self) -> Option<&'static str> {
        // Without its key the session would be open to everybody.
        let lacks_key = self.session.peer.has_password && self.password.is_none();
        let dry_run = self.dry_run.then_some("dry run");
        dry_run.or_else(|| lacks_key.then_some("its password is missing"))
    }

    pub(super) fn link(&self) -> Link<'_> {
        let peer = &self.session.peer;
        Link {
            remote: SocketAddr::new(peer.address, peer.port),
            local: peer.local_address,
            hops: peer.hops,
            ttl_security: peer.ttl_security,
            timeout: peer.hold_time,
            key: self.password.as_ref().map(Password::bytes),
        }
    }
}

/// What a peer's task is to do.
#[derive(Clone, Debug)]
pub(super) enum Wish {
    /// Keep a session.
    Run {
        settings: Arc<Settings>,
        rib: Arc<Rib>,
        own: Arc<BTreeSet<IpNet>>,
        ready: bool,
        decision: Decision,
    },
    /// End; `None`: without a NOTIFICATION.
    End(Option<Close>),
}

/// The wish for each peer, by name. A task that exists gets its settings compared with the new
/// ones; the flags of a restart hold for the first session only and are no difference.
pub(super) fn wishes(orders: &Orders, options: &Options) -> BTreeMap<String, Wish> {
    let none = Arc::new(Rib::new());
    let wish = |(name, peer): (&String, &Peer)| {
        let session = SessionSettings {
            local_as: orders.bgp.local_as,
            router_id: orders.bgp.router_id,
            peer: essence(peer),
            graceful_restart: orders.bgp.graceful_restart,
            restarted: false,
            forwarding_kept: true,
            seed: seed(options.seed, name),
        };
        let password = orders.passwords.get(name).filter(|_| peer.has_password).cloned();
        let settings = Settings { session, password, dry_run: orders.bgp.dry_run };
        let wish = Wish::Run {
            settings: Arc::new(settings),
            rib: Arc::clone(orders.routes.get(name).unwrap_or(&none)),
            own: Arc::clone(&orders.own),
            ready: orders.ready,
            decision: orders.decision,
        };
        (name.clone(), wish)
    };
    orders.bgp.peers.iter().map(wish).collect()
}

/// A peer without what changes its routes or its BFD, but not its session.
fn essence(peer: &Peer) -> Peer {
    Peer {
        attributes: AttributeSettings::default(),
        poison_allowed: BTreeSet::new(),
        bfd: None,
        ..peer.clone()
    }
}

/// Peers of one speaker are not in step either (FNV-1a).
fn seed(seed: u64, name: &str) -> u64 {
    let step = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
    name.bytes().fold(seed ^ 0xcbf2_9ce4_8422_2325, step)
}

/// Whose path BFD watches.
pub(super) fn watched(orders: &Orders, options: &Options) -> bfd::Peers {
    let peers = orders.bgp.peers.iter().filter(|_| !orders.bgp.dry_run);
    let watched = peers.filter_map(|(name, peer)| {
        let multihop = peer.hops > 1;
        let secure = peer.ttl_security || !multihop;
        // On one hop it is the largest (RFC 5881 section 5).
        let min_ttl = if secure { min_ttl(peer.hops) } else { 0 };
        let port = options.bfd_peer_ports.of(multihop);
        let (address, local) = (peer.address, peer.local_address);
        let settings = peer.bfd?;
        Some((name.clone(), bfd::Peer { address, port, local, min_ttl, multihop, settings }))
    });
    watched.collect()
}

/// What listeners ask of those who connect.
pub(super) fn guards(orders: &Orders) -> Guards {
    let peers = orders.bgp.peers.iter();
    let key = |(name, peer): (&String, &Peer)| {
        let key = orders.passwords.get(name).filter(|_| peer.has_password)?;
        Some((peer.address, key.clone()))
    };
    let secure = orders.bgp.peers.values().filter(|peer| peer.ttl_security);
    Guards {
        keys: peers.filter_map(key).collect(),
        min_ttls: secure.map(|peer| (peer.address, min_ttl(peer.hops))).collect(),
    }
}

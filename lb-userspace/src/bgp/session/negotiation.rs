//! Our OPEN, and what it makes of the peer's.
//!
//! A part of `session`.

use std::time::Duration;

use super::contract::SessionSettings;
use super::report::Negotiated;
use crate::bgp::wire::{Dialect, Family, Flaw, GracefulRestart, Notification, Open, code};

/// Keepalives in a hold time (RFC 4271 section 10).
const KEEPALIVES: u32 = 3;

/// Families that we have for the peer.
fn families(settings: &SessionSettings) -> Vec<Family> {
    let peer = &settings.peer;
    let wanted = [(Family::Ipv4, peer.ipv4), (Family::Ipv6, peer.ipv6)];
    wanted.into_iter().filter_map(|(family, wanted)| wanted.then_some(family)).collect()
}

/// The OPEN that we send.
pub(super) fn open(settings: &SessionSettings) -> Open {
    let families = families(settings);
    let graceful_restart = settings.graceful_restart.map(|time| GracefulRestart {
        restarted: settings.restarted,
        notification: true,
        time: u16::try_from(time.as_secs()).unwrap_or(u16::MAX),
        families: families.iter().map(|family| (*family, settings.forwarding_kept)).collect(),
    });
    Open {
        asn: settings.local_as,
        hold_time: u16::try_from(settings.peer.hold_time.as_secs()).unwrap_or(u16::MAX),
        router_id: settings.router_id,
        families,
        four_octet_as: true,
        extended_next_hop: settings.peer.extended_next_hop,
        route_refresh: true,
        enhanced_route_refresh: true,
        graceful_restart,
    }
}

/// Judges the peer's OPEN (RFC 4271 section 6.2, RFC 6286 section 2.2).
///
/// # Errors
/// When it is not the peer that is configured.
pub(super) fn check(settings: &SessionSettings, open: &Open) -> Result<(), Flaw> {
    let remote_as = settings.peer.remote_as;
    if open.asn != remote_as {
        let text = format!("the peer says AS {}, configured is AS {remote_as}", open.asn);
        return Err(Flaw { notification: Notification::new(code::BAD_PEER_AS, &[]), text });
    }
    let internal = settings.peer.is_internal(settings.local_as);
    let ours = internal && open.router_id == settings.router_id;
    if open.router_id.is_unspecified() || ours {
        let text = format!("the peer's BGP identifier is {}", open.router_id);
        return Err(Flaw { notification: Notification::new(code::BAD_IDENTIFIER, &[]), text });
    }
    Ok(())
}

/// What both can.
pub(super) fn negotiate(settings: &SessionSettings, open: &Open) -> (Negotiated, Dialect) {
    let has = |family| families(settings).contains(&family) && open.families.contains(&family);
    let ours = u16::try_from(settings.peer.hold_time.as_secs()).unwrap_or(u16::MAX);
    let hold_time_s = ours.min(open.hold_time);
    let keepalive = Duration::from_secs(hold_time_s.into()) / KEEPALIVES;
    let restart = open.graceful_restart.as_ref();
    let ours = settings.graceful_restart.is_some();
    let negotiated = Negotiated {
        hold_time_s,
        keepalive_ms: u64::try_from(keepalive.as_millis()).unwrap_or(u64::MAX),
        ipv4: has(Family::Ipv4),
        ipv6: has(Family::Ipv6),
        four_octet_as: open.four_octet_as,
        extended_next_hop: settings.peer.extended_next_hop && open.extended_next_hop,
        route_refresh: open.route_refresh,
        enhanced_route_refresh: open.enhanced_route_refresh,
        graceful_restart: ours && restart.is_some(),
        peer_restart_time_s: restart.map_or(0, |it| it.time),
        graceful_notification: ours && restart.is_some_and(|it| it.notification),
    };
    let dialect = Dialect {
        internal: settings.peer.is_internal(settings.local_as),
        four_octet_as: negotiated.four_octet_as,
        extended_next_hop: negotiated.extended_next_hop,
        ipv4: negotiated.ipv4,
        ipv6: negotiated.ipv6,
    };
    (negotiated, dialect)
}

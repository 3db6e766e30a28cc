//! What the operator is shown: every route with its reasons, and alarms.
//!
//! Pure; looks at the announcer and changes nothing.

use std::collections::BTreeMap;

use super::Validity;
use super::announcer::Announcer;
use super::policy::{View, Wanted, carries};
use super::report::{RouteReport, RouteState};
use super::track::{INVALID, Standing, Track};
use crate::desired::bgp::Peer;

/// Alarms of one kind that are told one by one.
const MAX_ALARMS: usize = 16;

/// All routes.
pub(super) fn routes(announcer: &Announcer) -> Vec<RouteReport> {
    let Some(view) = announcer.view() else { return Vec::new() };
    let mut routes = Vec::new();
    for track in announcer.tracks.values() {
        for peer in view.bgp.peers.values().filter(|peer| carries(peer, &track.prefix)) {
            let waits = announcer.outbox.is_waiting(&track.prefix);
            route(&view, track, peer, waits, &mut routes);
        }
        let validity = announcer.roas.as_ref().map(|it| it(&track.prefix, view.bgp.local_as));
        if validity == Some(Validity::NotFound) {
            let reports = routes.iter_mut().rev().take_while(|it| it.prefix == track.prefix);
            reports.for_each(|report| report.why.push_str("; no ROA covers it"));
        }
    }
    routes
}

/// What one peer has of one prefix.
fn route(view: &View<'_>, track: &Track, peer: &Peer, waits: bool, routes: &mut Vec<RouteReport>) {
    let prefix = track.prefix;
    let (state, mut why) = match (track.record.standing, track.kept) {
        _ if !track.decided => (RouteState::Withheld, track.why.clone()),
        (Standing::Announced, None) if track.why.is_empty() => {
            (RouteState::Announced, "it can be served".to_owned())
        }
        (Standing::Announced, None) => (RouteState::Kept, format!("{}, leaving", track.why)),
        (Standing::Announced, Some(_)) => (RouteState::Kept, kept(track)),
        (Standing::Lowering(_), _) => (RouteState::Lowered, track.why.clone()),
        (Standing::Withdrawn, _) => (RouteState::Withdrawn, track.why.clone()),
        (Standing::Undecided | Standing::Withheld, _) => (RouteState::Withheld, track.why.clone()),
    };
    let since = track.decided.then_some(track.record.since);
    let mut report = RouteReport {
        prefix,
        peer: peer.name.clone(),
        state,
        why: String::new(),
        since,
        attributes: Vec::new(),
    };
    if !matches!(state, RouteState::Announced | RouteState::Kept | RouteState::Lowered) {
        report.why = why;
        return routes.push(report);
    }
    if waits {
        why.push_str("; new attributes wait for the interval between changes");
    }
    match view.wanted(&prefix, peer) {
        Wanted::Nothing(why) => {
            (report.state, report.why) = (RouteState::Withdrawn, why);
            routes.push(report);
        }
        Wanted::Route { reasons, more_specifics, .. } => {
            (report.why, report.attributes) = (why, reasons);
            let inside = more_specifics.into_iter().map(|(net, steer)| RouteReport {
                prefix: net,
                why: format!("{steer}: more specific than {prefix}"),
                ..report.clone()
            });
            let inside: Vec<RouteReport> = inside.collect();
            routes.push(report);
            routes.extend(inside);
        }
    }
}

/// Why a prefix is kept, in words.
fn kept(track: &Track) -> String {
    match (track.why.as_str(), track.kept) {
        (why, Some(guard)) if track.is_held() || why.is_empty() => guard.to_owned(),
        (why, Some(guard)) => format!("{why}; kept, since {guard}"),
        (why, None) => why.to_owned(),
    }
}

/// Prefixes that RPKI forbids, announced or not.
fn rpki(announcer: &Announcer) -> Vec<String> {
    let (Some(roas), Some(bgp)) = (&announcer.roas, &announcer.bgp) else { return Vec::new() };
    let invalid = |it: &&Track| roas(&it.prefix, bgp.local_as) == Validity::Invalid;
    let words = |track: &Track| match track.record.standing.is_out() {
        true => format!("{} is announced, and {INVALID}", track.prefix),
        false => format!("{} is not announced: {INVALID}", track.prefix),
    };
    announcer.tracks.values().filter(invalid).take(MAX_ALARMS).map(words).collect()
}

/// All alarms.
pub(super) fn alarms(announcer: &Announcer) -> Vec<String> {
    let mut alarms = Vec::new();
    let mut by_guard: BTreeMap<&str, Vec<&Track>> = BTreeMap::new();
    for track in announcer.tracks.values() {
        if let Some(guard) = track.kept {
            by_guard.entry(guard).or_default().push(track);
        }
    }
    for (guard, tracks) in by_guard {
        let all = tracks.iter().take(MAX_ALARMS);
        alarms.extend(all.map(|it| format!("{} stays announced: {}", it.prefix, kept(it))));
        if let Some(more) = tracks.len().checked_sub(MAX_ALARMS).filter(|more| *more > 0) {
            alarms.push(format!("{more} more prefixes stay announced: {guard}"));
        }
    }
    alarms.extend(rpki(announcer));
    if announcer.breaker.is_tripped() {
        let held = announcer.breaker.held();
        alarms.push(format!(
            "the breaker is open and holds {held} prefixes: `lbctl bgp resume` lets them go"
        ));
    }
    let removed = announcer.tracks.values().filter(|track| track.is_held()).count();
    if removed > 0 {
        alarms.push(format!(
            "{removed} announced prefixes are not configured any more: `lbctl bgp resume` \
             withdraws them"
        ));
    }
    alarms
}

//! The tables of `lbctl bgp`: peers, and routes with the reason for each attribute.
//!
//! A part of `output`.

use super::output::Table;
use super::table::{Columns, age};
use crate::api::bgp::{BgpPeer, BgpPeers, BgpRoute, BgpRoutes};
use crate::bgp::announce::RouteState;
use crate::bgp::session::State;

impl Table for BgpPeers {
    fn table(&self, wide: bool) -> String {
        let dry_run = if self.dry_run { "  dry run: nobody is told" } else { "" };
        let mut text = format!("AS {}{dry_run}\n{}\n", self.local_as, alarms(&self.alarms));
        let mut head =
            vec!["PEER", "ADDRESS", ">AS", "STATE", ">FOR", ">WANTED", ">SENT", ">IN", "BFD"];
        if wide {
            head.extend([">HOLD", ">UPDATES", ">FLAPS"]);
        }
        head.push("LAST ERROR");
        let mut columns = Columns::new(&head);
        for peer in &self.peers {
            columns.add(peer_row(peer, self.now_ms, wide));
        }
        text.push_str(&columns.render());
        text
    }
}

fn alarms(alarms: &[String]) -> String {
    alarms.iter().map(|alarm| format!("! {alarm}\n")).collect()
}

fn peer_row(peer: &BgpPeer, now_ms: u64, wide: bool) -> Vec<String> {
    let session = &peer.session;
    let mut cells = vec![
        peer.name.clone(),
        peer.address.to_string(),
        peer.remote_as.to_string(),
        session.state.to_string(),
        age(now_ms.saturating_sub(session.since_ms)),
        peer.wanted.to_string(),
        session.sent.len().to_string(),
        session.prefixes_received.to_string(),
        session.bfd.as_ref().map_or_else(|| "-".to_owned(), |bfd| bfd.state.clone()),
    ];
    if wide {
        let negotiated = session.negotiated.as_ref();
        cells.push(negotiated.map_or_else(String::new, |it| format!("{}s", it.hold_time_s)));
        cells.push(session.counters.updates_out.to_string());
        cells.push(session.counters.flaps.values().sum::<u64>().to_string());
    }
    let error = session.last_error.as_ref().map_or_else(String::new, |error| {
        format!("{} ({} ago)", error.text, age(now_ms.saturating_sub(error.at_ms)))
    });
    // What happened before the session came up explains nothing any more, but is worth a look.
    cells.push(if session.state == State::Established && !wide { String::new() } else { error });
    cells
}

impl Table for BgpRoutes {
    fn table(&self, _wide: bool) -> String {
        let mut text = alarms(&self.alarms);
        for order in &self.orders {
            let left = age(order.remaining_ms);
            text.push_str(&format!("{}; ends in {left}\n", order.text));
        }
        if !text.is_empty() {
            text.push('\n');
        }
        let mut columns = Columns::new(&["PREFIX", "PEER", "STATE", ">FOR", "SENT", "WHY"]);
        for route in &self.routes {
            columns.add(route_row(route));
            for attribute in &route.attributes {
                let what = format!("{} {}", attribute.name, attribute.value);
                let row = ["", "", &format!("  {what}"), "", "", &attribute.why];
                columns.row(row.map(str::to_owned));
            }
        }
        text.push_str(&columns.render());
        text
    }
}

fn route_row(route: &BgpRoute) -> Vec<String> {
    let state = match route.state {
        RouteState::Announced => "announced",
        RouteState::Kept => "kept",
        RouteState::Lowered => "lowered",
        RouteState::Withheld => "withheld",
        RouteState::Withdrawn => "withdrawn",
    };
    vec![
        route.prefix.to_string(),
        route.peer.clone(),
        state.to_owned(),
        route.for_ms.map_or_else(|| "-".to_owned(), age),
        if route.sent { "yes" } else { "no" }.to_owned(),
        route.why.clone(),
    ]
}

//! What changes in BGP from one configuration to the next, in words.
//!
//! A part of `plan`: pure, and the same for `diff` and `apply`.
//!
//! Must not: say what is announced at the moment; that depends on what can be served.

use std::collections::BTreeSet;
use std::fmt::Display;
use std::net::IpAddr;

use super::Line;
use crate::desired::bgp::{AttributeSettings, Bgp, Peer, PrefixSettings};
use crate::desired::{Desired, format_duration};

/// Adds the lines about BGP.
pub(super) fn changes(old: &Desired, new: &Desired, lines: &mut Vec<Line>) {
    match (&old.bgp, &new.bgp) {
        (None, None) => {}
        (None, Some(bgp)) => {
            let counts = (bgp.peers.len(), bgp.prefixes.len());
            let text = format!("AS {}, peers: {}, prefixes: {}", bgp.local_as, counts.0, counts.1);
            lines.push(Line::new('+', "bgp", text));
            peers(None, bgp, lines);
            prefixes(None, bgp, new, lines);
        }
        (Some(_), None) => {
            let text = "removed: every route is withdrawn and every session closed";
            lines.push(Line::new('-', "bgp", text));
        }
        (Some(before), Some(bgp)) => {
            speaker(before, bgp, lines);
            peers(Some(before), bgp, lines);
            prefixes(Some(before), bgp, new, lines);
            layer("bgp host routes", &before.host_routes, &bgp.host_routes, lines);
        }
    }
}

/// Collects `KEY OLD -> NEW`.
#[derive(Default)]
struct Parts(Vec<String>);

impl Parts {
    fn compare(&mut self, key: &str, old: impl Display, new: impl Display) {
        let (old, new) = (old.to_string(), new.to_string());
        if old != new {
            self.0.push(format!("{key} {old} -> {new}"));
        }
    }

    fn option<T: Display>(&mut self, key: &str, old: Option<T>, new: Option<T>) {
        let text = |it: Option<T>| it.map_or("none".to_owned(), |it| it.to_string());
        self.compare(key, text(old), text(new));
    }

    /// What came and what went of a set.
    fn set<T: Ord + Display>(&mut self, key: &str, old: &BTreeSet<T>, new: &BTreeSet<T>) {
        let came = new.difference(old).map(|it| format!(" +{it}"));
        let gone = old.difference(new).map(|it| format!(" -{it}"));
        let changes: String = came.chain(gone).collect();
        if !changes.is_empty() {
            self.0.push(format!("{key}{changes}"));
        }
    }

    fn flag(&mut self, key: &str, changed: bool) {
        if changed {
            self.0.push(key.to_owned());
        }
    }

    fn attributes(&mut self, old: &AttributeSettings, new: &AttributeSettings) {
        self.set("communities", &old.communities, &new.communities);
        self.set("large_communities", &old.large_communities, &new.large_communities);
        self.set("extended_communities", &old.extended_communities, &new.extended_communities);
        self.compare("prepend", old.prepend, new.prepend);
        self.option("med", old.med, new.med);
        self.option("local_preference", old.local_preference, new.local_preference);
        self.option("next_hop4", old.next_hop4, new.next_hop4);
        self.option("next_hop6", old.next_hop6, new.next_hop6);
    }

    /// A line, if anything changed; `effect` is what follows from it.
    fn line(self, subject: &str, effect: &str, lines: &mut Vec<Line>) {
        if !self.0.is_empty() {
            lines.push(Line::new('~', subject, format!("{}{effect}", self.0.join(", "))));
        }
    }
}

fn speaker(old: &Bgp, new: &Bgp, lines: &mut Vec<Line>) {
    let restart = |bgp: &Bgp| bgp.graceful_restart.map_or("off".to_owned(), format_duration);
    let mut parts = Parts::default();
    parts.compare("local_as", old.local_as, new.local_as);
    parts.compare("router_id", old.router_id, new.router_id);
    parts.compare("graceful_restart", restart(old), restart(new));
    parts.line("bgp", ": every session is reset", lines);
    let mut parts = Parts::default();
    parts.compare("dry_run", old.dry_run, new.dry_run);
    let effect = match new.dry_run {
        true => ": every session is closed, and its routes with it",
        false => ": the sessions begin",
    };
    parts.line("bgp", effect, lines);
    let listen = |bgp: &Bgp| bgp.listen.iter().copied().collect::<BTreeSet<_>>();
    let mut parts = Parts::default();
    parts.set("listen", &listen(old), &listen(new));
    parts.compare("on_shutdown", old.on_shutdown, new.on_shutdown);
    parts.compare("linger", format_duration(old.linger), format_duration(new.linger));
    parts.flag("lower", old.lower != new.lower);
    parts.flag("guards", old.guards != new.guards);
    parts.flag("shedding", old.shedding != new.shedding);
    parts.flag("vrp_file", old.vrp_file != new.vrp_file);
    parts.line("bgp", "", lines);
    let mut parts = Parts::default();
    parts.attributes(&old.attributes, &new.attributes);
    parts.line("bgp", ", of every route", lines);
}

fn peers(old: Option<&Bgp>, new: &Bgp, lines: &mut Vec<Line>) {
    for (name, peer) in &new.peers {
        let subject = format!("bgp peer {name}");
        match old.and_then(|old| old.peers.get(name)) {
            None => {
                let inner = if peer.is_internal(new.local_as) { ", iBGP" } else { "" };
                let text = format!("{} AS {}{inner}", peer.address, peer.remote_as);
                lines.push(Line::new('+', subject, text));
            }
            Some(before) => {
                session_changes(before, peer).line(&subject, ": its session is reset", lines);
                let mut parts = Parts::default();
                parts.attributes(&before.attributes, &peer.attributes);
                parts.set("poison_allowed", &before.poison_allowed, &peer.poison_allowed);
                parts.line(&subject, "", lines);
            }
        }
    }
    let gone = old.into_iter().flat_map(|old| old.peers.keys());
    for name in gone.filter(|name| !new.peers.contains_key(*name)) {
        let text = "removed: its session is closed, and its routes go with it";
        lines.push(Line::new('-', format!("bgp peer {name}"), text));
    }
}

/// What a running session cannot take.
fn session_changes(old: &Peer, new: &Peer) -> Parts {
    let families = |peer: &Peer| match (peer.ipv4, peer.ipv6) {
        (true, true) => "ipv4+ipv6",
        (true, false) => "ipv4",
        (false, true) => "ipv6",
        (false, false) => "none",
    };
    let bfd = |peer: &Peer| {
        peer.bfd.map(|bfd| format!("{} x {}", format_duration(bfd.interval), bfd.multiplier))
    };
    let mut parts = Parts::default();
    parts.compare("address", old.address, new.address);
    parts.compare("port", old.port, new.port);
    parts.compare("remote_as", old.remote_as, new.remote_as);
    parts.option("local_address", old.local_address, new.local_address);
    parts.compare("passive", old.passive, new.passive);
    parts.compare("hops", old.hops, new.hops);
    parts.compare("ttl_security", old.ttl_security, new.ttl_security);
    parts.flag("password added", !old.has_password && new.has_password);
    parts.flag("password removed", old.has_password && !new.has_password);
    parts.compare("hold_time", format_duration(old.hold_time), format_duration(new.hold_time));
    parts.compare("families", families(old), families(new));
    parts.compare("extended_next_hop", old.extended_next_hop, new.extended_next_hop);
    parts.option("bfd", bfd(old), bfd(new));
    parts.compare("monitor", old.monitor, new.monitor);
    parts.compare("max_prefixes", old.max_prefixes, new.max_prefixes);
    parts
}

fn prefixes(old: Option<&Bgp>, new: &Bgp, desired: &Desired, lines: &mut Vec<Line>) {
    for (prefix, settings) in &new.prefixes {
        let subject = format!("bgp prefix {prefix}");
        match old.and_then(|old| old.prefixes.get(prefix)) {
            Some(before) => layer(&subject, before, settings, lines),
            None => {
                let inside = |address: &IpAddr| prefix.contains(address);
                let vips: BTreeSet<IpAddr> = addresses(desired).filter(inside).collect();
                let text = format!("announced, VIP addresses in it: {}", vips.len());
                lines.push(Line::new('+', subject, text));
            }
        }
    }
    let gone = old.into_iter().flat_map(|old| old.prefixes.keys());
    for prefix in gone.filter(|prefix| !new.prefixes.contains_key(*prefix)) {
        let alone = |address: &IpAddr| {
            prefix.contains(address) && !new.prefixes.keys().any(|it| it.contains(address))
        };
        let hosts: BTreeSet<IpAddr> = addresses(desired).filter(alone).collect();
        let text = match hosts.len() {
            0 => "removed and withdrawn".to_owned(),
            count => {
                format!("removed and withdrawn; VIP addresses that become host routes: {count}")
            }
        };
        lines.push(Line::new('-', format!("bgp prefix {prefix}"), text));
    }
}

fn addresses(desired: &Desired) -> impl Iterator<Item = IpAddr> {
    desired.vips.keys().map(|key| key.address)
}

fn layer(subject: &str, old: &PrefixSettings, new: &PrefixSettings, lines: &mut Vec<Line>) {
    let mut parts = Parts::default();
    parts.compare("last_announcer", old.last_announcer, new.last_announcer);
    parts.attributes(&old.attributes, &new.attributes);
    parts.line(subject, "", lines);
    let none = AttributeSettings::default();
    let names: BTreeSet<&String> = old.peers.keys().chain(new.peers.keys()).collect();
    for name in names {
        let of = |settings: &PrefixSettings| settings.peers.get(name).unwrap_or(&none).clone();
        let mut parts = Parts::default();
        parts.attributes(&of(old), &of(new));
        parts.line(&format!("{subject} to {name}"), "", lines);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::config::{self, Readers, diagnostic::Source};
    use crate::desired::Secret;

    const HEAD: &str = "version = 1\n[node]\nname = \"lb1\"\naddress = \"192.0.2.11\"\n\
        secret_file = \"/etc/lb/secret\"\n[dataplane]\ninterfaces = [\"eth0\"]\n\
        [[pool]]\nname = \"web\"\nbackends = [{ name = \"a\", address = \"198.51.100.1\" }]\n\
        [[vip]]\nname = \"www\"\naddress = \"203.0.113.10\"\nprotocol = \"tcp\"\nports = [80]\n\
        pool = \"web\"\n";

    const BGP: &str = "[bgp]\nlocal_as = 64496\n[[bgp.peer]]\nname = \"edge1\"\n\
        address = \"192.0.2.1\"\nremote_as = 64500\n[[bgp.prefix]]\nprefix = \"203.0.113.0/24\"\n\
        communities = [\"64496:1\"]\n";

    fn desired(bgp: &str) -> Desired {
        let source = Source { path: "lb.toml".into(), text: format!("{HEAD}{bgp}") };
        let readers = Readers { secret: &|_| Ok(Secret::new([1; 16])), ..Readers::DISK };
        let loaded = config::check(vec![source], &readers);
        loaded.unwrap_or_else(|report| panic!("{}", report.render(false))).desired
    }

    fn between(old: &str, new: &str) -> Vec<String> {
        let (old, new) = (desired(old), desired(new));
        let lines = super::super::changes(&old, &new, &BTreeMap::new());
        lines.iter().map(|line| format!("{} {}: {}", line.sign, line.subject, line.text)).collect()
    }

    #[test]
    fn bgp_that_comes_or_goes_is_told_as_a_whole() {
        assert_eq!(
            between("", BGP),
            [
                "+ bgp: AS 64496, peers: 1, prefixes: 1",
                "+ bgp peer edge1: 192.0.2.1 AS 64500",
                "+ bgp prefix 203.0.113.0/24: announced, VIP addresses in it: 1",
            ]
        );
        assert_eq!(
            between(BGP, ""),
            ["- bgp: removed: every route is withdrawn and every session closed"]
        );
        assert_eq!(between(BGP, BGP), Vec::<String>::new());
    }

    #[test]
    fn a_change_says_whether_sessions_are_reset() {
        let new = BGP
            .replace("local_as = 64496", "local_as = 64496\ngraceful_restart = \"2m\"\nprepend = 1")
            .replace("remote_as = 64500", "remote_as = 64501\nhold_time = \"30s\"\nmed = 5");
        assert_eq!(
            between(BGP, &new),
            [
                "~ bgp: graceful_restart off -> 2m: every session is reset",
                "~ bgp: prepend 0 -> 1, of every route",
                "~ bgp peer edge1: remote_as 64500 -> 64501, hold_time 9s -> 30s: its session is \
                 reset",
                "~ bgp peer edge1: med none -> 5",
            ]
        );
        let dry = BGP.replace("local_as = 64496", "local_as = 64496\ndry_run = true");
        assert_eq!(
            between(BGP, &dry),
            ["~ bgp: dry_run false -> true: every session is closed, and its routes with it"]
        );
    }

    #[test]
    fn prefixes_and_peers_that_come_and_go_are_named() {
        let new = BGP
            .replace("edge1", "edge2")
            .replace("64496:1", "64496:2")
            .replace("203.0.113.0/24\"", "203.0.113.0/24\"\npeers = { edge2 = { prepend = 3 } }");
        assert_eq!(
            between(BGP, &new),
            [
                "+ bgp peer edge2: 192.0.2.1 AS 64500",
                "- bgp peer edge1: removed: its session is closed, and its routes go with it",
                "~ bgp prefix 203.0.113.0/24: communities +64496:2 -64496:1",
                "~ bgp prefix 203.0.113.0/24 to edge2: prepend 0 -> 3",
            ]
        );
        let without = BGP.split("[[bgp.prefix]]").next().unwrap_or_default();
        assert_eq!(
            between(BGP, without),
            ["- bgp prefix 203.0.113.0/24: removed and withdrawn; VIP addresses that become \
                 host routes: 1",]
        );
    }
}

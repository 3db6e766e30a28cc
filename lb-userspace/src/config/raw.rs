//! Reads the files into typed fields, each with the place it came from.
//!
//! The first half of the room: here a value is judged alone. What fields must be to each other is
//! `validate`'s part, and what they mean together is `resolve`'s. A field that is missing or wrong
//! is `None`, and then a finding says so.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use toml::de::{DeTable, DeValue};

use super::bgp;
use super::diagnostic::{At, Finding, Id};
use super::fields::{Field, Fields, Item, empty};
use super::schema::{self, Key};
use super::values::{self, Wrong};
use crate::desired::{
    BackendState, Encap, Family, HealthKind, LogFormat, LogLevel, OnDown, Port, Prefix4, Prefix6,
    Protocol, Tracking, ViaWord, XdpMode,
};

/// Everything that was read.
#[derive(Debug, Default)]
pub(super) struct Raw {
    pub(super) node: Option<Node>,
    pub(super) dataplane: Option<Dataplane>,
    pub(super) flow_timeouts: Option<Timeouts>,
    pub(super) healths: Vec<Health>,
    pub(super) pools: Vec<Pool>,
    pub(super) vips: Vec<Vip>,
    pub(super) bgp: Option<bgp::raw::Bgp>,
    pub(super) api: Option<Api>,
    pub(super) metrics: Option<Field<SocketAddr>>,
    pub(super) log: Option<Log>,
}

#[derive(Debug)]
pub(super) struct Node {
    pub(super) at: At,
    pub(super) name: Field<String>,
    pub(super) pop: Field<String>,
    pub(super) address: Field<Ipv4Addr>,
    pub(super) address6: Field<Ipv6Addr>,
    /// The families of the addresses that are written, right or wrong.
    pub(super) families: Vec<Family>,
    pub(super) secret_file: Field<PathBuf>,
}

#[derive(Debug)]
pub(super) struct Dataplane {
    pub(super) interfaces: Field<Vec<Item<String>>>,
    pub(super) xdp_mode: Field<XdpMode>,
    pub(super) encap: Field<Encap>,
    pub(super) gue_port: Field<u16>,
    pub(super) ipip_source: Field<Prefix4>,
    pub(super) ipip_source6: Field<Prefix6>,
    pub(super) flow_table_size: Field<u32>,
    pub(super) maglev_size: Field<u32>,
    pub(super) max_vips: Field<u32>,
    pub(super) max_pools: Field<u32>,
    pub(super) max_backends: Field<u32>,
    pub(super) max_slots: Field<u32>,
    pub(super) pin_path: Field<PathBuf>,
}

#[derive(Debug)]
pub(super) struct Timeouts {
    pub(super) tcp_half_open: Field<Duration>,
    pub(super) tcp_established: Field<Duration>,
    pub(super) tcp_closing: Field<Duration>,
    pub(super) udp: Field<Duration>,
}

#[derive(Debug)]
pub(super) struct Health {
    pub(super) name: Item<String>,
    pub(super) kind: Field<HealthKind>,
    pub(super) port: Field<u16>,
    pub(super) via: Field<ViaWord>,
    pub(super) interval: Field<Duration>,
    pub(super) timeout: Field<Duration>,
    pub(super) rise: Field<u32>,
    pub(super) fall: Field<u32>,
}

#[derive(Debug)]
pub(super) struct Pool {
    pub(super) at: At,
    pub(super) name: Field<String>,
    pub(super) health: Field<String>,
    pub(super) encap: Field<Encap>,
    pub(super) maglev_size: Field<u32>,
    pub(super) min_up: Field<u32>,
    pub(super) min_up_return: Field<u32>,
    pub(super) on_down: Field<OnDown>,
    pub(super) tracking: Field<Tracking>,
    pub(super) window: Field<Duration>,
    pub(super) prepare: Field<Duration>,
    pub(super) backends: Field<Vec<Backend>>,
}

#[derive(Debug)]
pub(super) struct Backend {
    pub(super) at: At,
    pub(super) name: Field<String>,
    pub(super) address: Field<IpAddr>,
    pub(super) weight: Field<u16>,
    pub(super) state: Field<BackendState>,
}

#[derive(Debug)]
pub(super) struct Vip {
    pub(super) name: Field<String>,
    pub(super) address: Field<IpAddr>,
    pub(super) protocol: Field<Protocol>,
    pub(super) ports: Vec<Item<Port>>,
    pub(super) pool: Field<String>,
    pub(super) tracking: Field<Tracking>,
    /// UDP's, out of its `flow_timeout`.
    pub(super) udp_timeout: Field<Duration>,
}

#[derive(Debug)]
pub(super) struct Api {
    pub(super) socket: Field<PathBuf>,
    pub(super) group: Field<String>,
}

#[derive(Debug)]
pub(super) struct Log {
    pub(super) level: Field<LogLevel>,
    pub(super) format: Field<LogFormat>,
}

/// Reads one file; a fragment has only pools and VIPs. Returns the errors of its syntax, and then
/// has read nothing.
pub(super) fn read(
    file: usize,
    text: &str,
    fragment: bool,
    raw: &mut Raw,
    findings: &mut Vec<Finding>,
) -> Vec<Finding> {
    let (document, errors) = DeTable::parse_recoverable(text);
    if !errors.is_empty() {
        return syntax(file, text, &errors);
    }
    let table = document.get_ref();
    let at = At { file, start: 0, end: 0 };
    let mut root = Fields { section: &schema::ROOT, table, at, what: String::new(), findings };
    root.top_level(fragment);
    if !fragment {
        root.version();
        raw.node = root.required("node", &schema::NODE).map(node);
        raw.dataplane = root.required("dataplane", &schema::DATAPLANE).map(dataplane);
        raw.flow_timeouts = Some(default_timeouts(&mut root));
        raw.healths = healths(&mut root);
        if table.contains_key("bgp") {
            raw.bgp = root.optional("bgp", &bgp::schema::BGP).map(bgp::raw::bgp);
        }
        raw.api = root.optional("api", &schema::API).map(api);
        raw.log = root.optional("log", &schema::LOG).map(log);
        if table.contains_key("metrics") {
            let fields = root.optional("metrics", &schema::METRICS);
            raw.metrics = fields.map(|mut fields| fields.get("listen", values::parsed));
        }
    }
    root.tables("pool", &schema::POOL, |fields| raw.pools.push(pool(fields)));
    root.tables("vip", &schema::VIP, |fields| raw.vips.push(vip(fields)));
    Vec::new()
}

/// The first error of each line: the parser goes on behind an error, but not always wisely.
fn syntax(file: usize, text: &str, errors: &[toml::de::Error]) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut lines = Vec::new();
    for error in errors {
        let span = error.span().unwrap_or(text.len()..text.len());
        let line = text.get(..span.start).map_or(0, |before| before.matches('\n').count());
        if !lines.contains(&line) {
            lines.push(line);
            findings.push(Finding::new(Id::Syntax, error.message(), At::new(file, &span), ""));
        }
    }
    findings
}

fn default_timeouts(root: &mut Fields<'_, '_>) -> Timeouts {
    let (table, at) = root.table("defaults").unwrap_or((empty(), root.at));
    let defaults = root.child(&schema::DEFAULTS, table, at, "`[defaults]`".to_owned());
    let mut defaults = defaults;
    let (table, at) = defaults.table("flow_timeout").unwrap_or((empty(), at));
    let what = "`[defaults.flow_timeout]`".to_owned();
    timeouts(defaults.child(&schema::FLOW_TIMEOUT, table, at, what))
}

fn healths(root: &mut Fields<'_, '_>) -> Vec<Health> {
    let mut healths = Vec::new();
    let Some((checks, _)) = root.table("health") else { return healths };
    for (key, value) in checks {
        let name = key.get_ref().to_string();
        let at = root.at(key.span());
        let what = format!("health check `{name}`");
        if let Err(wrong) = values::check_name(&name) {
            root.wrong_about(&what, at, wrong);
        }
        let Some(table) = value.get_ref().as_table() else {
            root.wrong_about(&what, at, Wrong::wrong_type("a table", value.get_ref()));
            continue;
        };
        let name = Item { value: name, at, given: true };
        healths.push(health(name, root.child(&schema::HEALTH, table, at, what)));
    }
    healths
}

fn node(mut fields: Fields<'_, '_>) -> Node {
    let families = [("address", Family::V4), ("address6", Family::V6)].into_iter();
    let written = families.filter(|(key, _)| fields.table.contains_key(*key));
    Node {
        families: written.map(|(_, family)| family).collect(),
        at: fields.at,
        name: fields.get("name", values::name),
        pop: fields.get("pop", values::name),
        address: fields.get("address", values::parsed),
        address6: fields.get("address6", values::parsed),
        secret_file: fields.get("secret_file", values::path),
    }
}

fn dataplane(mut fields: Fields<'_, '_>) -> Dataplane {
    Dataplane {
        interfaces: interfaces(&mut fields),
        xdp_mode: fields.get("xdp_mode", values::word),
        encap: fields.get("encap", values::word),
        gue_port: fields.get("gue_port", values::integer),
        ipip_source: fields.get("ipip_source", values::parsed),
        ipip_source6: fields.get("ipip_source6", values::parsed),
        flow_table_size: fields.get("flow_table_size", values::integer),
        maglev_size: fields.get("maglev_size", values::size),
        max_vips: fields.get("max_vips", values::integer),
        max_pools: fields.get("max_pools", values::integer),
        max_backends: fields.get("max_backends", values::integer),
        max_slots: fields.get("max_slots", values::integer),
        pin_path: fields.get("pin_path", values::path),
    }
}

fn timeouts(mut fields: Fields<'_, '_>) -> Timeouts {
    Timeouts {
        tcp_half_open: fields.get("tcp_half_open", values::duration),
        tcp_established: fields.get("tcp_established", values::duration),
        tcp_closing: fields.get("tcp_closing", values::duration),
        udp: fields.get("udp", values::duration),
    }
}

fn health(name: Item<String>, mut fields: Fields<'_, '_>) -> Health {
    let kind = |value: &DeValue<'_>, key: &Key| match value.as_str() {
        Some(text) if schema::UNSUPPORTED_HEALTH.contains(&text) => {
            let title = "asks for a kind of probe that lbd does not have";
            let wrong = Wrong::new(Id::UnsupportedHealth, title, "only \"tcp\" for now");
            Err(wrong.help("\"tcp\" opens a connection to `port`"))
        }
        _ => values::word(value, key),
    };
    Health {
        name,
        kind: fields.get("kind", kind),
        port: fields.get("port", values::integer),
        via: fields.get("via", values::word),
        interval: fields.get("interval", values::duration),
        timeout: fields.get("timeout", values::duration),
        rise: fields.get("rise", values::integer),
        fall: fields.get("fall", values::integer),
    }
}

fn pool(mut fields: Fields<'_, '_>) -> Pool {
    Pool {
        at: fields.at,
        name: fields.get("name", values::name),
        health: fields.get("health", values::text),
        encap: fields.get("encap", values::word),
        maglev_size: fields.get("maglev_size", values::size),
        min_up: fields.get("min_up", values::integer),
        min_up_return: fields.get("min_up_return", values::integer),
        on_down: fields.get("on_down", values::word),
        tracking: fields.get("tracking", values::word),
        window: fields.get("window", values::duration),
        prepare: fields.get("prepare", values::duration),
        backends: backends(&mut fields),
    }
}

fn backends(fields: &mut Fields<'_, '_>) -> Field<Vec<Backend>> {
    let (_, at) = fields.value("backends")?;
    let mut backends = Vec::new();
    let whole = fields.tables("backends", &schema::BACKEND, |mut fields| {
        backends.push(Backend {
            at: fields.at,
            name: fields.get("name", values::name),
            address: fields.get("address", values::parsed),
            weight: fields.get("weight", values::integer),
            state: fields.get("state", values::word),
        });
    });
    whole.then_some(Item { value: backends, at, given: true })
}

fn vip(mut fields: Fields<'_, '_>) -> Vip {
    Vip {
        name: fields.get("name", values::name),
        address: fields.get("address", values::parsed),
        protocol: fields.get("protocol", values::word),
        ports: ports(&mut fields),
        pool: fields.get("pool", values::text),
        tracking: fields.get("tracking", values::word),
        udp_timeout: udp_timeout(&mut fields),
    }
}

fn udp_timeout(fields: &mut Fields<'_, '_>) -> Field<Duration> {
    let what = format!("`flow_timeout` of {}", fields.what);
    let (table, at) = fields.table("flow_timeout")?;
    fields.child(&schema::VIP_TIMEOUT, table, at, what).get("udp", values::duration)
}

fn ports(fields: &mut Fields<'_, '_>) -> Vec<Item<Port>> {
    let Some((value, at)) = fields.value("ports") else { return Vec::new() };
    let bad = |title| Wrong::new(Id::BadPort, title, "");
    if value.as_str() == Some("any") {
        return vec![Item { value: Port::Any, at, given: true }];
    }
    let Some(list) = value.as_array() else {
        let expected = "a list of ports such as [80, 443], or \"any\"";
        fields.wrong("ports", at, Wrong::wrong_type(expected, value));
        return Vec::new();
    };
    if list.is_empty() {
        fields.wrong("ports", at, bad("is an empty list"));
    }
    let mut ports = Vec::new();
    for value in list {
        let at = fields.at(value.span());
        let number = values::whole_number(value.get_ref());
        match number.and_then(|number| u16::try_from(number).ok()).filter(|port| *port > 0) {
            Some(port) => ports.push(Item { value: Port::Exact(port), at, given: true }),
            None => fields.wrong("ports", at, bad("must hold numbers from 1 to 65,535")),
        }
    }
    ports
}

fn interfaces(fields: &mut Fields<'_, '_>) -> Field<Vec<Item<String>>> {
    let (value, at) = fields.value("interfaces")?;
    let Some(list) = value.as_array() else {
        fields.wrong("interfaces", at, Wrong::wrong_type("a list such as [\"eth0\"]", value));
        return None;
    };
    if list.is_empty() {
        let wrong = Wrong::new(Id::BadInterface, "names no interface", "at least one is needed");
        fields.wrong("interfaces", at, wrong);
    }
    let mut names = Vec::new();
    for value in list {
        let at = fields.at(value.span());
        let Some(text) = value.get_ref().as_str() else {
            fields.wrong("interfaces", at, Wrong::wrong_type("a list of texts", value.get_ref()));
            continue;
        };
        match values::interface(text) {
            Ok(()) => names.push(Item { value: text.to_owned(), at, given: true }),
            Err(wrong) => fields.wrong("interfaces", at, wrong),
        }
    }
    Some(Item { value: names, at, given: true })
}

fn api(mut fields: Fields<'_, '_>) -> Api {
    Api { socket: fields.get("socket", values::path), group: fields.get("group", values::text) }
}

fn log(mut fields: Fields<'_, '_>) -> Log {
    Log { level: fields.get("level", values::word), format: fields.get("format", values::word) }
}

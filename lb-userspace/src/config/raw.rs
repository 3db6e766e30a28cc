//! Reads the files into typed fields, each with the place it came from.
//!
//! The first half of the room: here a value is judged alone. What fields must be to each other is
//! `validate`'s part, and what they mean together is `resolve`'s. A field that is missing or wrong
//! is `None`, and then a finding says so.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use toml::de::{DeTable, DeValue};

use super::diagnostic::{At, Finding, Id};
use super::schema::{self, Key, Need, Section};
use super::values::{self, Wrong};
use crate::desired::{
    BackendState, Encap, HealthKind, LogFormat, LogLevel, OnDown, Port, Prefix4, Prefix6, Protocol,
    Tracking, XdpMode,
};

/// A value and its place.
#[derive(Clone, Debug)]
pub(super) struct Item<T> {
    pub(super) value: T,
    /// Where it is written, or the header of its table if it is the default.
    pub(super) at: At,
    /// False for a default.
    pub(super) given: bool,
}

/// A field that may be missing, or wrong and reported.
pub(super) type Field<T> = Option<Item<T>>;

/// Everything that was read.
#[derive(Debug, Default)]
pub(super) struct Raw {
    pub(super) node: Option<Node>,
    pub(super) dataplane: Option<Dataplane>,
    pub(super) flow_timeouts: Option<Timeouts>,
    pub(super) healths: Vec<Health>,
    pub(super) pools: Vec<Pool>,
    pub(super) vips: Vec<Vip>,
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

#[derive(Debug, Default)]
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
    pub(super) timeouts: Timeouts,
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
        let finding = |error: &toml::de::Error| {
            let span = error.span().unwrap_or(text.len()..text.len());
            Finding::new(Id::Syntax, "the file is not TOML", At::new(file, &span), error.message())
        };
        return errors.iter().map(finding).collect();
    }
    let table = document.get_ref();
    let at = At { file, start: 0, end: 0 };
    let mut root = Fields { section: &schema::ROOT, table, at, what: String::new(), findings };
    root.top_level(fragment);
    if !fragment {
        root.version();
        raw.node = root.required("node", &schema::NODE).map(node);
        raw.dataplane = root.required("dataplane", &schema::DATAPLANE).map(dataplane);
        raw.flow_timeouts = Some(root.default_timeouts());
        raw.healths = root.healths();
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

/// The names of the tables at the top of the file.
const TOP_LEVEL: [&str; 9] =
    ["api", "dataplane", "defaults", "health", "log", "metrics", "node", "pool", "vip"];

/// One table while it is read.
struct Fields<'f, 't> {
    section: &'static Section,
    table: &'t DeTable<'t>,
    /// Its header, for what is missing in it.
    at: At,
    /// What it is called in a finding: ` of pool \`web\``.
    what: String,
    findings: &'f mut Vec<Finding>,
}

impl<'t> Fields<'_, 't> {
    fn at(&self, span: std::ops::Range<usize>) -> At {
        At::new(self.at.file, &span)
    }

    fn wrong(&mut self, name: &str, at: At, wrong: Wrong) {
        let title = format!("`{name}`{} {}", self.what, wrong.title);
        let finding = Finding::new(wrong.id, title, at, wrong.label);
        self.findings.push(match wrong.help {
            Some(help) => finding.help(help),
            None => finding,
        });
    }

    /// The value of a key, else its default. A wrong value is reported and the default stands in,
    /// so that one mistake makes one finding.
    fn get<T>(
        &mut self,
        name: &'static str,
        convert: impl Fn(&DeValue<'_>, &Key) -> Result<T, Wrong>,
    ) -> Field<T> {
        let key = self.section.key(name)?;
        match self.table.get(name) {
            Some(value) => {
                let at = self.at(value.span());
                match convert(value.get_ref(), key) {
                    Ok(value) => return Some(Item { value, at, given: true }),
                    Err(wrong) => self.wrong(name, at, wrong),
                }
            }
            None if matches!(key.need, Need::Required) => self.missing(key),
            None => {}
        }
        let Need::Default(literal) = key.need else { return None };
        let value = DeValue::parse(literal).ok()?;
        let value = convert(value.get_ref(), key).ok()?;
        Some(Item { value, at: self.at, given: false })
    }

    fn missing(&mut self, key: &Key) {
        let title = format!("`{}`{} is not set", key.name, self.what);
        self.findings.push(Finding::new(Id::MissingKey, title, self.at, "").help(key.doc));
    }

    /// Reports keys that the section does not have.
    fn known_keys(&mut self) {
        let known = || self.section.keys.iter().map(|key| key.name);
        for key in self.table.keys() {
            if self.section.key(key.get_ref()).is_none() {
                let list = known().collect::<Vec<_>>().join(", ");
                let finding = Finding::new(
                    Id::UnknownKey,
                    format!("there is no key `{}`{}", key.get_ref(), self.what),
                    self.at(key.span()),
                    "",
                );
                let closest = super::diagnostic::closest(key.get_ref(), known());
                self.findings.push(match closest {
                    Some(word) => finding.help(format!("did you mean `{word}`?")),
                    None => finding.help(format!("known here: {list}")),
                });
            }
        }
    }

    /// Reports what must not stand at the top of the file.
    fn top_level(&mut self, fragment: bool) {
        for key in self.table.keys() {
            let name = key.get_ref().as_ref();
            let at = self.at(key.span());
            if !TOP_LEVEL.contains(&name) && name != "version" {
                let title = format!("there is no table or key `{name}`");
                let finding = Finding::new(Id::UnknownKey, title, at, "");
                self.findings.push(finding.suggest(name, &TOP_LEVEL));
            } else if fragment && !matches!(name, "pool" | "vip") {
                let title = format!("`{name}` belongs into the main file");
                let finding = Finding::new(Id::NotInFragment, title, at, "");
                self.findings.push(finding.help("here only `[[pool]]` and `[[vip]]` may stand"));
            }
        }
    }

    fn version(&mut self) {
        let Some(value) = self.table.get("version") else {
            let title = "`version` is not set";
            let finding = Finding::new(Id::MissingKey, title, self.at, "");
            return self.findings.push(finding.help("begin the file with `version = 1`"));
        };
        let number = value.get_ref().as_integer();
        if number.is_none_or(|number| number.as_str() != "1") {
            let title = "this version of the format is not known";
            let at = self.at(value.span());
            self.findings.push(Finding::new(Id::UnsupportedVersion, title, at, "must be 1"));
        }
    }

    fn child<'s>(
        &'s mut self,
        section: &'static Section,
        table: &'t DeTable<'t>,
        at: At,
        what: String,
    ) -> Fields<'s, 't> {
        let mut fields = Fields { section, table, at, what, findings: self.findings };
        fields.known_keys();
        fields
    }

    /// The table of that name, or `None` after a finding.
    fn table(&mut self, name: &'static str) -> Option<(&'t DeTable<'t>, At)> {
        let value = self.table.get(name)?;
        let at = self.at(value.span());
        let table = value.get_ref().as_table();
        if table.is_none() {
            self.wrong(name, at, Wrong::wrong_type("a table", value.get_ref()));
        }
        table.map(|table| (table, at))
    }

    fn required(
        &mut self,
        name: &'static str,
        section: &'static Section,
    ) -> Option<Fields<'_, 't>> {
        if !self.table.contains_key(name) {
            let title = format!("the table `[{name}]` is missing");
            let required = section.keys.iter().filter(|key| matches!(key.need, Need::Required));
            let required = required.map(|key| format!("`{}`", key.name)).collect::<Vec<_>>();
            let help = format!("it must at least set {}", required.join(" and "));
            self.findings.push(Finding::new(Id::MissingKey, title, self.at, "").help(help));
        }
        let (table, at) = self.table(name)?;
        Some(self.child(section, table, at, format!(" of `[{name}]`")))
    }

    fn optional(
        &mut self,
        name: &'static str,
        section: &'static Section,
    ) -> Option<Fields<'_, 't>> {
        let (table, at) = match self.table.contains_key(name) {
            true => self.table(name)?,
            false => (empty(), self.at),
        };
        Some(self.child(section, table, at, format!(" of `[{name}]`")))
    }

    fn default_timeouts(&mut self) -> Timeouts {
        let mut at = self.at;
        let mut table = empty();
        if let Some((defaults, defaults_at)) = self.table("defaults") {
            for key in defaults.keys().filter(|key| key.get_ref() != "flow_timeout") {
                let title = format!("there is no table `[defaults.{}]`", key.get_ref());
                let finding = Finding::new(Id::UnknownKey, title, self.at(key.span()), "");
                self.findings.push(finding.help("known here: flow_timeout"));
            }
            at = defaults_at;
            table = defaults;
        }
        let what = " of `[defaults]`".to_owned();
        let section = self.section;
        let mut outer = Fields { section, table, at, what, findings: self.findings };
        let (table, at) = match outer.table.contains_key("flow_timeout") {
            true => outer.table("flow_timeout").unwrap_or((empty(), at)),
            false => (empty(), at),
        };
        let what = " of `[defaults.flow_timeout]`".to_owned();
        timeouts(outer.child(&schema::FLOW_TIMEOUT, table, at, what))
    }

    fn healths(&mut self) -> Vec<Health> {
        let mut healths = Vec::new();
        let Some((checks, _)) = self.table("health") else { return healths };
        for (key, value) in checks {
            let name = key.get_ref().to_string();
            let at = self.at(key.span());
            if let Err(wrong) = values::check_name(&name) {
                self.wrong(&name, at, wrong);
            }
            let Some(table) = value.get_ref().as_table() else {
                self.wrong(&name, at, Wrong::wrong_type("a table", value.get_ref()));
                continue;
            };
            let what = format!(" of health check `{name}`");
            let name = Item { value: name, at, given: true };
            healths.push(health(name, self.child(&schema::HEALTH, table, at, what)));
        }
        healths
    }

    /// Reads each table of a list of tables.
    fn tables(
        &mut self,
        name: &'static str,
        section: &'static Section,
        mut read: impl FnMut(Fields<'_, 't>),
    ) {
        let Some(value) = self.table.get(name) else { return };
        let Some(list) = value.get_ref().as_array() else {
            let at = self.at(value.span());
            return self.wrong(name, at, Wrong::wrong_type("a list of tables", value.get_ref()));
        };
        for value in list {
            let at = self.at(value.span());
            let Some(table) = value.get_ref().as_table() else {
                self.wrong(name, at, Wrong::wrong_type("a list of tables", value.get_ref()));
                continue;
            };
            let thing = if name == "backends" { "backend" } else { name };
            let called = table.get("name").and_then(|value| value.get_ref().as_str());
            let what = match called {
                Some(called) => format!(" of {thing} `{called}`"),
                None => format!(" of this {thing}"),
            };
            read(self.child(section, table, at, what));
        }
    }
}

/// A table without keys, for sections that are not in the file.
fn empty() -> &'static DeTable<'static> {
    static EMPTY: std::sync::LazyLock<DeTable<'static>> = std::sync::LazyLock::new(DeTable::new);
    &EMPTY
}

fn node(mut fields: Fields<'_, '_>) -> Node {
    Node {
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
        maglev_size: fields.get("maglev_size", values::integer),
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
        maglev_size: fields.get("maglev_size", values::integer),
        min_up: fields.get("min_up", values::integer),
        on_down: fields.get("on_down", values::word),
        tracking: fields.get("tracking", values::word),
        window: fields.get("window", values::duration),
        prepare: fields.get("prepare", values::duration),
        backends: backends(&mut fields),
    }
}

fn backends(fields: &mut Fields<'_, '_>) -> Field<Vec<Backend>> {
    let list = fields.get("backends", |value, _| match value {
        DeValue::Array(_) => Ok(()),
        _ => Err(Wrong::wrong_type("a list of tables", value)),
    })?;
    let mut backends = Vec::new();
    fields.tables("backends", &schema::BACKEND, |mut fields| {
        backends.push(Backend {
            at: fields.at,
            name: fields.get("name", values::name),
            address: fields.get("address", values::parsed),
            weight: fields.get("weight", values::integer),
            state: fields.get("state", values::word),
        });
    });
    Some(Item { value: backends, at: list.at, given: true })
}

fn vip(mut fields: Fields<'_, '_>) -> Vip {
    Vip {
        name: fields.get("name", values::name),
        address: fields.get("address", values::parsed),
        protocol: fields.get("protocol", values::word),
        ports: ports(&mut fields),
        pool: fields.get("pool", values::text),
        tracking: fields.get("tracking", values::word),
        timeouts: vip_timeouts(&mut fields),
    }
}

fn vip_timeouts(fields: &mut Fields<'_, '_>) -> Timeouts {
    let what = format!(" in `flow_timeout`{}", fields.what);
    match fields.table("flow_timeout") {
        Some((table, at)) => timeouts(fields.child(&schema::VIP_TIMEOUT, table, at, what)),
        None => Timeouts::default(),
    }
}

fn ports(fields: &mut Fields<'_, '_>) -> Vec<Item<Port>> {
    let Some(value) = fields.table.get("ports") else {
        let _: Field<()> = fields.get("ports", |_, _| Ok(()));
        return Vec::new();
    };
    let at = fields.at(value.span());
    let bad = |title| Wrong::new(Id::BadPort, title, "");
    let list = match value.get_ref() {
        DeValue::String(text) if text == "any" => {
            return vec![Item { value: Port::Any, at, given: true }];
        }
        DeValue::Array(list) if !list.is_empty() => list,
        DeValue::Array(_) => {
            fields.wrong("ports", at, bad("is an empty list"));
            return Vec::new();
        }
        other => {
            let expected = "a list of ports such as [80, 443], or \"any\"";
            fields.wrong("ports", at, Wrong::wrong_type(expected, other));
            return Vec::new();
        }
    };
    let mut ports = Vec::new();
    for value in list {
        let at = fields.at(value.span());
        let number = value.get_ref().as_integer();
        let number = number.and_then(|n| i64::from_str_radix(n.as_str(), n.radix()).ok());
        match number.and_then(|number| u16::try_from(number).ok()).filter(|port| *port > 0) {
            Some(port) => ports.push(Item { value: Port::Exact(port), at, given: true }),
            None => fields.wrong("ports", at, bad("must hold numbers from 1 to 65,535")),
        }
    }
    ports
}

fn interfaces(fields: &mut Fields<'_, '_>) -> Field<Vec<Item<String>>> {
    let Some(value) = fields.table.get("interfaces") else {
        return fields.get("interfaces", |_, _| Ok(Vec::new()));
    };
    let at = fields.at(value.span());
    let Some(list) = value.get_ref().as_array() else {
        let wrong = Wrong::wrong_type("a list such as [\"eth0\"]", value.get_ref());
        fields.wrong("interfaces", at, wrong);
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

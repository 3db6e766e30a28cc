//! The keys of the configuration: names, kinds, defaults and one sentence each.
//!
//! The one place that knows them. The reader takes defaults and ranges from here, and the
//! reference and `config show --defaults` are rendered from here, so that none can be wrong alone.

use super::bgp::schema as bgp;
pub(super) use super::kind::Kind;
use crate::desired::{
    BackendState, Encap, LogFormat, LogLevel, OnDown, Protocol, ViaWord, XdpMode, limits,
};

/// What holds when a key is not set.
#[derive(Clone, Copy, Debug)]
pub(super) enum Need {
    /// It must be set.
    Required,
    /// It may be missing; the text says what that means.
    Optional(&'static str),
    /// This value, as the file would write it.
    Default(&'static str),
}

/// One key.
#[derive(Clone, Copy, Debug)]
pub(super) struct Key {
    pub(super) name: &'static str,
    pub(super) kind: Kind,
    pub(super) need: Need,
    pub(super) doc: &'static str,
}

/// One table of the file.
#[derive(Clone, Copy, Debug)]
pub(super) struct Section {
    /// Its header, such as `[[pool]]`.
    pub(super) header: &'static str,
    pub(super) doc: &'static str,
    pub(super) keys: &'static [Key],
    /// Keys that several sections share; the reference shows them once.
    pub(super) shared: &'static [Key],
    /// Tables inside it that have sections of their own.
    pub(super) tables: &'static [Key],
}

impl Section {
    /// A section that has nothing but its own keys.
    pub(super) const PLAIN: Self =
        Self { header: "", doc: "", keys: &[], shared: &[], tables: &[] };

    pub(super) fn key(&self, name: &str) -> Option<&'static Key> {
        self.every_key().find(|key| key.name == name)
    }

    /// Its own keys, the shared ones and the tables.
    pub(super) fn every_key(&self) -> impl Iterator<Item = &'static Key> + use<> {
        self.keys.iter().chain(self.shared).chain(self.tables)
    }
}

pub(super) const fn key(name: &'static str, kind: Kind, need: Need, doc: &'static str) -> Key {
    Key { name, kind, need, doc }
}

pub(super) const fn count(max: u32) -> Kind {
    Kind::Integer { min: 1, max: max as i64 }
}

pub(super) const SECOND_MS: u64 = 1_000;
pub(super) const HOUR_MS: u64 = 3_600 * SECOND_MS;
pub(super) const PORT: Kind = count(65_535);
const ENCAP: Kind = Kind::Word(Encap::WORDS);
/// Ages in the flow table count seconds, so nothing shorter can be told apart.
const IDLE: Kind =
    Kind::Duration { min_ms: SECOND_MS, max_ms: limits::MAX_IDLE.as_secs() * SECOND_MS };

use Need::{Default, Optional, Required};

pub(super) static ROOT: Section = Section {
    header: "",
    doc: "The top of the file.",
    keys: &[key("version", Kind::Integer { min: 1, max: 1 }, Required, "The format; always 1.")],
    ..Section::PLAIN
};

pub(super) static NODE: Section = Section {
    header: "[node]",
    doc: "Who this load balancer is. One of the two addresses must be set.",
    keys: &[
        key("name", Kind::Name, Required, "Its name, unique in the PoP."),
        key("pop", Kind::Name, Default("\"local\""), "The PoP it stands in."),
        key(
            "address",
            Kind::Address4,
            Optional("no IPv4 backends"),
            "IPv4 outer source of tunnels.",
        ),
        key(
            "address6",
            Kind::Address6,
            Optional("no IPv6 backends"),
            "IPv6 outer source of tunnels.",
        ),
        key(
            "secret_file",
            Kind::Path,
            Required,
            "The file with the cluster secret: 32 hex digits, the same on every load balancer; \
             only its owner may read it.",
        ),
    ],
    ..Section::PLAIN
};

pub(super) static DATAPLANE: Section = Section {
    header: "[dataplane]",
    doc: "What the programs and maps are created with.",
    keys: &[
        key("interfaces", Kind::Interfaces, Required, "Where packets for the VIPs arrive."),
        key(
            "xdp_mode",
            Kind::Word(XdpMode::WORDS),
            Default("\"auto\""),
            "How the program is attached; auto: native, else generic with a warning.",
        ),
        key("encap", ENCAP, Default("\"gue\""), "The encap of pools that name none."),
        key("gue_port", PORT, Default("6080"), "UDP destination port of GUE."),
        key(
            "ipip_source",
            Kind::Prefix4 { min: 8, max: 16 },
            Default("\"198.18.0.0/16\""),
            "IPIP to IPv4 backends takes its outer source from here, by flow, so that a backend \
             spreads its load over its queues.",
        ),
        key(
            "ipip_source6",
            Kind::Prefix6 { min: 16, max: 64 },
            Default("\"100::/64\""),
            "The same for IPv6 backends; the default is the discard-only prefix (RFC 6666).",
        ),
        key(
            "flow_table_size",
            Kind::Integer { min: limits::MIN_FLOWS as i64, max: limits::MAX_FLOWS as i64 },
            Default("1_048_576"),
            "Flows there is room for.",
        ),
        key("maglev_size", Kind::Prime, Default("65_537"), "Slots of pools that name no size."),
        key("max_vips", count(limits::MAX_VIPS), Default("1_024"), "VIPs there is room for."),
        key("max_pools", count(limits::MAX_POOLS), Default("256"), "Pools there is room for."),
        key(
            "max_backends",
            count(limits::MAX_BACKENDS),
            Default("30_000"),
            "Backends over all pools there is room for.",
        ),
        key(
            "max_slots",
            Kind::Integer { min: 2 * 251, max: limits::MAX_SLOTS as i64 },
            Optional("2,097,184, or what the pools need, rounded up to a power of two"),
            "Slots of all pools there is room for; each pool takes twice its size. Set it if \
             pools will be added while lbd runs.",
        ),
        key(
            "pin_path",
            Kind::Path,
            Default("\"/sys/fs/bpf/lb\""),
            "Programs, links and maps stay here while lbd restarts.",
        ),
    ],
    ..Section::PLAIN
};

pub(super) static DEFAULTS: Section = Section {
    header: "[defaults]",
    doc: "Defaults that VIPs can override.",
    keys: &[key("flow_timeout", Kind::Table, Optional("its defaults"), "Idle timeouts.")],
    ..Section::PLAIN
};

pub(super) static FLOW_TIMEOUT: Section = Section {
    header: "[defaults.flow_timeout]",
    doc: "How long a flow without a packet is remembered. A UDP VIP can have its own.",
    keys: &[
        key("tcp_half_open", IDLE, Default("\"10s\""), "TCP, before the handshake is complete."),
        key("tcp_established", IDLE, Default("\"10m\""), "TCP, established."),
        key("tcp_closing", IDLE, Default("\"30s\""), "TCP, after a FIN or RST."),
        key("udp", IDLE, Default("\"30s\""), "UDP."),
    ],
    ..Section::PLAIN
};

pub(super) static VIP_TIMEOUT: Section = Section {
    header: "flow_timeout = { .. } of [[vip]]",
    doc: "Idle timeouts of one VIP. Those of TCP are the same for all VIPs: \
          `[defaults.flow_timeout]`.",
    keys: &[key("udp", IDLE, Optional("as in `[defaults.flow_timeout]`"), "UDP only.")],
    ..Section::PLAIN
};

/// Kinds of probes that are known by name and not supported.
pub(super) const UNSUPPORTED_HEALTH: [&str; 4] = ["http", "https", "udp", "icmp"];

pub(super) static HEALTH: Section = Section {
    header: "[health.NAME]",
    doc: "A health check, named once and used by pools. With `via = \"tunnel\"` a probe goes to \
          the pool's VIP the way a client's packet goes, and proves all of it: encapsulation, \
          next hop, path, agent, the VIP on the backend, the listener, and the way back. With \
          `via = \"direct\"` it goes to the backend's own address: it proves that something \
          listens there, and nothing of the tunnel.",
    keys: &[
        key("kind", Kind::Word(&["tcp"]), Required, "What a probe does: tcp opens a connection."),
        key(
            "port",
            PORT,
            Optional("the lowest port of the pool's VIPs, TCP before UDP"),
            "The port probed.",
        ),
        key(
            "via",
            Kind::Word(ViaWord::WORDS),
            Optional(
                "tunnel if the pool has a TCP VIP with this port, of a family the node has an \
                 address of, else direct",
            ),
            "The way of a probe; tunnel: to such a VIP, from the node's address; direct: to the \
             backend's address.",
        ),
        key(
            "interval",
            Kind::Duration { min_ms: 100, max_ms: HOUR_MS },
            Default("\"2s\""),
            "From one probe's start to the next.",
        ),
        key(
            "timeout",
            Kind::Duration { min_ms: 10, max_ms: HOUR_MS },
            Default("\"1s\""),
            "A probe without an answer for so long has failed; at most `interval`.",
        ),
        key("rise", count(100), Default("2"), "Probes in a row that bring a backend up."),
        key("fall", count(100), Default("3"), "Probes in a row that take it down."),
    ],
    ..Section::PLAIN
};

pub(super) static POOL: Section = Section {
    header: "[[pool]]",
    doc: "A named set of backends with one lookup table.",
    keys: &[
        key("name", Kind::Name, Required, "Its name, unique among pools."),
        key("health", Kind::Name, Optional("backends count as up"), "Its health check."),
        key("encap", ENCAP, Optional("`dataplane.encap`"), "How packets travel to its backends."),
        key(
            "maglev_size",
            Kind::Prime,
            Optional("`dataplane.maglev_size`"),
            "Slots of its lookup table.",
        ),
        key(
            "min_up",
            count(limits::MAX_BACKENDS),
            Default("1"),
            "With fewer backends up it is degraded, and its VIPs are withdrawn.",
        ),
        key(
            "min_up_return",
            count(limits::MAX_BACKENDS),
            Optional("`min_up`"),
            "With as many backends up again its VIPs are announced again; at least `min_up`.",
        ),
        key(
            "on_down",
            Kind::Word(OnDown::WORDS),
            Default("\"keep\""),
            "Flows of a dead backend: keep sends them to it (it may live), release to the next.",
        ),
        key(
            "tracking",
            Kind::Word(&["contested", "always"]),
            Default("\"contested\""),
            "Remember the flows whose slot is changing, or all of them.",
        ),
        key(
            "window",
            Kind::Duration { min_ms: SECOND_MS, max_ms: 24 * HOUR_MS },
            Default("\"120s\""),
            "How long a slot stays contested after a change.",
        ),
        key(
            "prepare",
            Kind::Duration { min_ms: 0, max_ms: HOUR_MS },
            Default("\"3s\""),
            "How long before a change its slots are marked; at least 3s.",
        ),
        key("backends", Kind::Tables, Required, "Its backends; may be empty."),
    ],
    ..Section::PLAIN
};

pub(super) static BACKEND: Section = Section {
    header: "backends = [{ .. }] of [[pool]]",
    doc: "One backend.",
    keys: &[
        key("name", Kind::Name, Required, "Its name, unique in the pool."),
        key("address", Kind::Address, Required, "Where the tunnel to it ends."),
        key(
            "weight",
            Kind::Integer { min: 0, max: 65_535 },
            Default("100"),
            "Its share of the slots, relative to the others'; 0 gets none.",
        ),
        key(
            "state",
            Kind::Word(BackendState::WORDS),
            Default("\"up\""),
            "drain: no new flows, those it has stay.",
        ),
    ],
    ..Section::PLAIN
};

pub(super) static VIP: Section = Section {
    header: "[[vip]]",
    doc: "What clients reach. With several ports it makes one VIP for each.",
    keys: &[
        key("name", Kind::Name, Required, "Its name, unique among VIPs."),
        key("address", Kind::Address, Required, "The address clients send to."),
        key("protocol", Kind::Word(Protocol::WORDS), Required, "What it carries."),
        key(
            "ports",
            Kind::Ports,
            Required,
            "Each makes a VIP; any: one for every port that has none of its own.",
        ),
        key("pool", Kind::Name, Required, "The pool that serves it."),
        key(
            "tracking",
            Kind::Word(&["always", "stateless"]),
            Optional("UDP: always; TCP: its pool's"),
            "UDP only: remember every flow, or none.",
        ),
        key(
            "flow_timeout",
            Kind::Table,
            Optional("as in `[defaults.flow_timeout]`"),
            "UDP only: idle timeouts of its own.",
        ),
    ],
    ..Section::PLAIN
};

pub(super) static API: Section = Section {
    header: "[api]",
    doc: "The socket lbctl talks to.",
    keys: &[
        key("socket", Kind::Path, Default("\"/run/lb/lbd.sock\""), "Its path."),
        key("group", Kind::Text, Optional("only the user of lbd"), "The group that may use it."),
    ],
    ..Section::PLAIN
};

pub(super) static METRICS: Section = Section {
    header: "[metrics]",
    doc: "Where metrics are served. Without this table: nowhere.",
    keys: &[key("listen", Kind::Socket, Default("\"127.0.0.1:9477\""), "Address and TCP port.")],
    ..Section::PLAIN
};

pub(super) static LOG: Section = Section {
    header: "[log]",
    doc: "What is logged, and how.",
    keys: &[
        key(
            "level",
            Kind::Word(LogLevel::WORDS),
            Default("\"info\""),
            "The least important level that is written.",
        ),
        key(
            "format",
            Kind::Word(LogFormat::WORDS),
            Default("\"auto\""),
            "auto: text on a terminal and under systemd, json otherwise.",
        ),
    ],
    ..Section::PLAIN
};

/// Every section, in the order of the reference.
pub(super) static SECTIONS: [&Section; 22] = [
    &ROOT,
    &NODE,
    &DATAPLANE,
    &FLOW_TIMEOUT,
    &HEALTH,
    &POOL,
    &BACKEND,
    &VIP,
    &VIP_TIMEOUT,
    &bgp::BGP,
    &bgp::ATTRIBUTES,
    &bgp::PEER,
    &bgp::BFD,
    &bgp::PREFIX,
    &bgp::PREFIX_PEER,
    &bgp::HOST_ROUTES,
    &bgp::SHEDDING,
    &bgp::LOWER,
    &bgp::GUARDS,
    &API,
    &METRICS,
    &LOG,
];

//! The keys of BGP: names, kinds, defaults and one sentence each.
//!
//! A part of the schema, see there.

use std::time::Duration;

use super::super::schema::{HOUR_MS, Key, Kind, Need, PORT, SECOND_MS, Section, count, key};
use crate::desired::bgp::limits;
use crate::desired::{LastAnnouncer, OnShutdown};

use Need::{Default, Optional, Required};

const fn ms(duration: Duration) -> u64 {
    duration.as_secs() * SECOND_MS
}

const fn duration(min_ms: u64, max_ms: u64) -> Kind {
    Kind::Duration { min_ms, max_ms }
}

const NUMBER: Kind = Kind::Integer { min: 0, max: u32::MAX as i64 };
const PREPEND: Kind = Kind::Integer { min: 0, max: limits::MAX_PREPEND as i64 };
const COMMUNITIES: Kind = Kind::List("communities");

/// The attributes that a layer may add to a route.
static ATTRIBUTE_KEYS: [Key; 8] = [
    key(
        "communities",
        COMMUNITIES,
        Default("[]"),
        "Communities (RFC 1997) such as `\"65010:100\"`, or `no-export`, `no-advertise`, \
         `no-export-subconfed`, `graceful-shutdown`, `blackhole`.",
    ),
    key(
        "large_communities",
        Kind::List("large communities"),
        Default("[]"),
        "Large communities (RFC 8092) such as `\"65010:1:2\"`.",
    ),
    key(
        "extended_communities",
        Kind::List("extended communities"),
        Default("[]"),
        "Extended communities (RFC 4360): `\"rt:65010:100\"` (route target), `\"soo:65010:100\"` \
         (route origin) or eight bytes, `\"0x0002fdf200000064\"`.",
    ),
    key("prepend", PREPEND, Default("0"), "Own AS numbers in front of the one always there."),
    key("med", NUMBER, Optional("no MULTI_EXIT_DISC"), "MULTI_EXIT_DISC, to every peer."),
    key(
        "local_preference",
        NUMBER,
        Optional("100"),
        "LOCAL_PREF, to peers in our own AS; others are not told.",
    ),
    key(
        "next_hop4",
        Kind::Address,
        Optional("our end of the session"),
        "Next hop of IPv4 prefixes; an IPv6 one needs `extended_next_hop`.",
    ),
    key(
        "next_hop6",
        Kind::Address6,
        Optional("our end of the session"),
        "Next hop of IPv6 prefixes.",
    ),
];

const LAST_ANNOUNCER: Key = key(
    "last_announcer",
    Kind::Word(LastAnnouncer::WORDS),
    Default("\"keep\""),
    "When its VIPs lose their backends and nobody else is seen to announce it: keep it, with an \
     alarm, or withdraw it.",
);

pub(in crate::config) static BGP: Section = Section {
    header: "[bgp]",
    doc: "BGP: the speaker. Without this table lbd speaks no BGP. The VIPs inside a \
          `[[bgp.prefix]]` are announced by it, when all of them can be served; every other VIP \
          by a route of its own, `/32` or `/128`.",
    keys: &[
        key("local_as", Kind::Asn, Required, "Our AS number."),
        key(
            "router_id",
            Kind::Address4,
            Optional("`address` of `[node]`"),
            "The BGP identifier, unique in the AS; a node without an IPv4 address needs it.",
        ),
        key(
            "listen",
            Kind::List("addresses and ports"),
            Default("[]"),
            "Where peers may connect to, such as `\"0.0.0.0:179\"` and `\"[::]:179\"`; none: we \
             connect.",
        ),
        key(
            "dry_run",
            Kind::Boolean,
            Default("false"),
            "Decide and show everything, and connect to nobody; set by a reload it closes every \
             session.",
        ),
        key(
            "graceful_restart",
            Kind::Off { min_ms: SECOND_MS, max_ms: ms(limits::MAX_RESTART_TIME) },
            Default("\"off\""),
            "How long peers keep our routes while lbd is away (RFC 4724), in whole seconds.",
        ),
        key(
            "on_shutdown",
            Kind::Word(OnShutdown::WORDS),
            Default("\"withdraw\""),
            "What SIGTERM does to the routes: lower and withdraw them, or keep them for the next \
             lbd, which needs `graceful_restart`.",
        ),
        key(
            "linger",
            duration(0, 10 * 60 * SECOND_MS),
            Default("\"30s\""),
            "After a withdrawal at shutdown, forward at most this long for packets that still \
             come.",
        ),
        key(
            "vrp_file",
            Kind::Path,
            Optional("no origin validation"),
            "Validated ROA payloads, JSON as Routinator or rpki-client write it, at most 256 MiB. \
             A prefix or host route that is Invalid (RFC 6811) is refused. A new file is taken \
             within seconds; of one that cannot be used there is an alarm, and the old one holds.",
        ),
    ],
    shared: &ATTRIBUTE_KEYS,
    tables: &[
        key("peer", Kind::Tables, Optional("no peers"), "Peers."),
        key("prefix", Kind::Tables, Optional("none"), "Prefixes."),
        key("host_routes", Kind::Table, Optional("its defaults"), "Host routes."),
        key("shedding", Kind::Tables, Optional("no levels"), "Levels of shedding."),
        key("lower", Kind::Table, Optional("its defaults"), "Lowered preference."),
        key("guards", Kind::Table, Optional("its defaults"), "Guards."),
    ],
};

pub(in crate::config) static ATTRIBUTES: Section = Section {
    header: "Attributes",
    doc: "Attributes of routes. They may stand in `[bgp]`, `[bgp.host_routes]`, \
          `[[bgp.shedding]]`, `[[bgp.prefix]]` and `[[bgp.peer]]`, and in `peers` of a prefix. \
          Communities and prepending add up, to at most 64 communities of a kind and 16 ASNs in a \
          path; of the rest the last holds, in the order `[bgp]`, prefix, peer, `peers` of the \
          prefix, shedding, steering, `[bgp.lower]`.",
    keys: &ATTRIBUTE_KEYS,
    ..Section::PLAIN
};

pub(in crate::config) static PEER: Section = Section {
    header: "[[bgp.peer]]",
    doc: "A router that routes are announced to.",
    keys: &[
        key("name", Kind::Name, Required, "Its name, unique among peers."),
        key("address", Kind::Address, Required, "Its address, unique among peers."),
        key("port", PORT, Default("179"), "The TCP port we connect to."),
        key("remote_as", Kind::Asn, Required, "Its AS number; with ours it is iBGP."),
        key(
            "local_address",
            Kind::Address,
            Optional("what the route to it chooses"),
            "Our end of the session.",
        ),
        key("passive", Kind::Boolean, Default("false"), "Wait for it to connect to `listen`."),
        key("hops", count(255), Default("1"), "Hops to it; more than 1 is multihop."),
        key(
            "ttl_security",
            Kind::Boolean,
            Default("false"),
            "Accept only packets whose TTL proves at most `hops` hops (GTSM, RFC 5082); it must \
             be set at the peer too.",
        ),
        key(
            "password_file",
            Kind::Path,
            Optional("no TCP MD5"),
            "The file with the session's TCP MD5 key (RFC 2385), 1 to 80 bytes; only its owner \
             may read it.",
        ),
        key(
            "hold_time",
            duration(ms(limits::MIN_HOLD_TIME), ms(limits::MAX_HOLD_TIME)),
            Default("\"9s\""),
            "The hold time we propose, in whole seconds; the shorter of both holds.",
        ),
        key(
            "families",
            Kind::List("\"ipv4\" and \"ipv6\""),
            Optional("those that have a next hop there"),
            "The families announced to it. The peer's own has our end of the session as next \
             hop; the other needs `next_hop4`, `next_hop6` or `extended_next_hop`.",
        ),
        key(
            "extended_next_hop",
            Kind::Boolean,
            Default("false"),
            "Announce IPv4 prefixes with an IPv6 next hop over an IPv6 session (RFC 8950).",
        ),
        key("bfd", Kind::Table, Optional("no BFD"), "Notice sooner that it is gone."),
        key(
            "monitor",
            Kind::Boolean,
            Default("false"),
            "Keep what it sends of our own prefixes, as evidence that others announce them.",
        ),
        key(
            "max_prefixes",
            count(10_000_000),
            Default("1_000"),
            "More prefixes than this from it, besides our own, end the session.",
        ),
        key(
            "poison_allowed",
            Kind::List("AS numbers"),
            Default("[]"),
            "ASNs that `lbctl bgp steer --poison` may put into paths to it; none: never.",
        ),
    ],
    shared: &ATTRIBUTE_KEYS,
    ..Section::PLAIN
};

pub(in crate::config) static BFD: Section = Section {
    header: "bfd = { .. } of [[bgp.peer]]",
    doc: "Bidirectional forwarding detection (RFC 5880, RFC 5881). It must be on at the peer too.",
    keys: &[
        key(
            "interval",
            duration(10, 10 * SECOND_MS),
            Default("\"300ms\""),
            "The shortest interval in which we send and receive.",
        ),
        key(
            "multiplier",
            Kind::Integer { min: 2, max: 50 },
            Default("3"),
            "As many intervals without a packet end the session.",
        ),
    ],
    ..Section::PLAIN
};

pub(in crate::config) static PREFIX: Section = Section {
    header: "[[bgp.prefix]]",
    doc: "A prefix that is announced as a whole, for the VIPs inside it.",
    keys: &[
        key("prefix", Kind::Prefix, Required, "The prefix; it holds at least one VIP."),
        LAST_ANNOUNCER,
        key(
            "peers",
            Kind::Table,
            Optional("as to every peer"),
            "Attributes for single peers, `peers = { NAME = { .. } }`.",
        ),
    ],
    shared: &ATTRIBUTE_KEYS,
    ..Section::PLAIN
};

pub(in crate::config) static PREFIX_PEER: Section = Section {
    header: "peers = { NAME = { .. } } of [[bgp.prefix]]",
    doc: "Attributes of this prefix for one peer.",
    keys: &[],
    shared: &ATTRIBUTE_KEYS,
    ..Section::PLAIN
};

pub(in crate::config) static HOST_ROUTES: Section = Section {
    header: "[bgp.host_routes]",
    doc: "What holds for VIPs that are in no `[[bgp.prefix]]`.",
    keys: &[LAST_ANNOUNCER],
    shared: &ATTRIBUTE_KEYS,
    ..Section::PLAIN
};

pub(in crate::config) static SHEDDING: Section = Section {
    header: "[[bgp.shedding]]",
    doc: "What `lbctl bgp shed LEVEL` adds to every route: level 1 first, at most 8.",
    keys: &[],
    shared: &ATTRIBUTE_KEYS,
    ..Section::PLAIN
};

pub(in crate::config) static LOWER: Section = Section {
    header: "[bgp.lower]",
    doc: "Lowered preference: how peers learn that a route is about to be withdrawn, by a drain, \
          at shutdown, or since the configuration has it no more.",
    keys: &[
        key(
            "time",
            duration(0, 10 * 60 * SECOND_MS),
            Default("\"2s\""),
            "How long routes stay lowered before they are withdrawn.",
        ),
        key(
            "graceful_shutdown",
            Kind::Boolean,
            Default("true"),
            "Send the community 65535:0 (RFC 8326).",
        ),
        key("communities", COMMUNITIES, Default("[]"), "The operator's own, in addition."),
        key("prepend", PREPEND, Default("0"), "Own AS numbers in front, in addition."),
    ],
    ..Section::PLAIN
};

pub(in crate::config) static GUARDS: Section = Section {
    header: "[bgp.guards]",
    doc: "What keeps announcements from being lost, or flapping, all at once.",
    keys: &[
        key(
            "breaker_max",
            count(100_000),
            Default("16"),
            "Prefixes that health may withdraw within `breaker_window`; more wait, with an alarm, \
             for `lbctl bgp resume`.",
        ),
        key(
            "breaker_window",
            duration(SECOND_MS, 24 * HOUR_MS),
            Default("\"1m\""),
            "See `breaker_max`.",
        ),
        key(
            "interval",
            duration(0, HOUR_MS),
            Default("\"1s\""),
            "Changes of a route's attributes are at least this far apart.",
        ),
        key(
            "backoff",
            duration(0, HOUR_MS),
            Default("\"30s\""),
            "After a withdrawal because of health, a prefix comes back no sooner; doubles with \
             each further one.",
        ),
        key(
            "backoff_max",
            duration(0, 24 * HOUR_MS),
            Default("\"15m\""),
            "The longest back-off; a prefix that stays announced as long is as good as new.",
        ),
    ],
    ..Section::PLAIN
};

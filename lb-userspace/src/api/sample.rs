//! Answers for tests of those who show them.

use std::collections::BTreeMap;
use std::sync::Arc;

use lb_common::verdict::FlowEvent;

use super::API_VERSION;
use super::bgp::{BgpOrder, BgpPeer, BgpPeers, BgpRoute, BgpRoutes};
use super::types::{
    Attachment, BackendStatus, Count, DaemonStats, DropReason, DroppedPacket, Drops, FlowStatus,
    Health, Outcome, PlanLine, PoolStatus, Snapshot, Stats, Status, Trace, TracedFlow, VipStatus,
    Vips,
};
use crate::bgp::announce::{AttributeReport, RouteState};
use crate::bgp::route::{Attributes, Rib};
use crate::bgp::session::{BfdReport, Cause, Counters, LastError, PeerReport, State};

fn backend(name: &str, state: &str, weight: u16, slots: u32) -> BackendStatus {
    let number = name.trim_start_matches("web");
    BackendStatus {
        name: name.to_owned(),
        address: format!("10.1.0.{number}"),
        state: state.to_owned(),
        weight,
        slots,
        share: f64::from(slots) / 65_537.0,
        flows: 4_300,
        packets: 1_234_567,
        bytes: 98_765_432,
        packets_per_second: 13_700.0,
        bits_per_second: 126_000_000.0,
        note: None,
        r#override: None,
    }
}

pub(crate) fn pool() -> PoolStatus {
    let mut drained = backend("web3", "drain", 50, 0);
    drained.r#override = Some("drain".to_owned());
    let mut down = backend("web4", "down", 100, 21_846);
    down.note = Some("connection refused".to_owned());
    PoolStatus {
        name: "web".to_owned(),
        generation: 3,
        state: "window".to_owned(),
        health: Health::Ok,
        slots: 65_537,
        contested_slots: 16_384,
        up: 1,
        all_down: false,
        backends: vec![backend("web1", "up", 100, 43_691), drained, down],
    }
}

fn vip(name: &str, key: &str) -> VipStatus {
    VipStatus {
        name: name.to_owned(),
        vip: key.to_owned(),
        pool: "web".to_owned(),
        state: "up".to_owned(),
        packets: 3_000_000,
        bytes: 400_000_000,
        drops: 12,
        packets_per_second: 41_200.0,
        bits_per_second: 380_000_000.0,
    }
}

pub(crate) fn vips() -> Vips {
    let vips = vec![vip("www", "203.0.113.10:443/tcp"), vip("www6", "[2001:db8::10]:443/tcp")];
    Vips { version: API_VERSION, vips, pools: vec![pool()] }
}

const fn flows() -> FlowStatus {
    FlowStatus { capacity: 1_048_576, unconfirmed: 12, confirmed: 54_300, closing: 100 }
}

pub(crate) fn status() -> Status {
    let Vips { vips, pools, .. } = vips();
    Status {
        version: API_VERSION,
        health: Health::Degraded,
        reasons: vec!["pool web: 1 up, fewer than min_up 2".to_owned()],
        node: "fra1-lb1".to_owned(),
        generation: 7,
        applied: "2026-11-24T12:04:31.000Z".to_owned(),
        uptime_ms: 11_520_000,
        xdp: Attachment {
            interface: "eth0".to_owned(),
            mode: "native".to_owned(),
            state: "up".to_owned(),
        },
        xdp_more: Vec::new(),
        pools,
        vips,
        flows: flows(),
    }
}

pub(crate) fn stats() -> Stats {
    let outcomes = BTreeMap::from([
        ("tx".to_owned(), Count { packets: 3_000_000, bytes: 400_000_000 }),
        ("no_port".to_owned(), Count { packets: 12, bytes: 720 }),
    ]);
    Stats {
        version: API_VERSION,
        vips: BTreeMap::from([("203.0.113.10:443/tcp".to_owned(), outcomes.clone())]),
        outcomes,
        flows: flows(),
        flow_events: FlowEvent::ALL.iter().map(|event| (event.name().to_owned(), 7)).collect(),
        transmit_errors: BTreeMap::from([("eth0".to_owned(), 2)]),
        daemon: DaemonStats { tables_published: 9, slots_moved: 16_384, ..Default::default() },
    }
}

pub(crate) fn snapshot() -> Snapshot {
    let probe_seconds = vec![("web".to_owned(), "web1".to_owned(), 0.0015)];
    let (bgp, bgp_routes) = (Some(bgp_peers()), Some(bgp_routes()));
    Snapshot { status: status(), stats: stats(), probe_seconds, bgp, bgp_routes }
}

pub(crate) fn bgp_peers() -> BgpPeers {
    let path = vec![64_512, 64_512];
    let attributes = Attributes { as_path: path, ..Attributes::default() };
    let established = PeerReport {
        state: State::Established,
        since_ms: 1_000,
        sent: Rib::from([("203.0.113.0/24".parse().unwrap(), Arc::new(attributes))]),
        counters: Counters {
            established: 2,
            flaps: BTreeMap::from([(Cause::HoldTimer, 1)]),
            updates_out: 5,
            ..Counters::default()
        },
        bfd: Some(BfdReport {
            state: "Up".to_owned(),
            since_ms: 1_000,
            detection_time_us: 900_000,
            diagnostic: "No Diagnostic".to_owned(),
            losses: 1,
        }),
        ..PeerReport::default()
    };
    let refused = LastError { at_ms: 60_000, text: "connection refused".to_owned() };
    let down = PeerReport { last_error: Some(refused), ..PeerReport::default() };
    let peer = |name: &str, address: [u8; 4], session: PeerReport| BgpPeer {
        name: name.to_owned(),
        address: address.into(),
        remote_as: 64_500,
        wanted: 1,
        session: Arc::new(session),
    };
    BgpPeers {
        version: API_VERSION,
        local_as: 64_512,
        dry_run: false,
        now_ms: 61_000,
        alarms: vec!["BGP peer edge2 is Idle: connection refused".to_owned()],
        refused: 3,
        peers: vec![
            peer("edge1", [192, 0, 2, 1], established),
            peer("edge2", [192, 0, 2, 2], down),
        ],
    }
}

pub(crate) fn bgp_routes() -> BgpRoutes {
    let attribute = AttributeReport {
        name: "AS_PATH".to_owned(),
        value: "64512 64512".to_owned(),
        why: "steer 3".to_owned(),
    };
    BgpRoutes {
        version: API_VERSION,
        alarms: Vec::new(),
        orders: vec![BgpOrder {
            id: 3,
            text: "steer 3: 203.0.113.0/24: prepend 1".to_owned(),
            remaining_ms: 1_800_000,
        }],
        routes: vec![BgpRoute {
            prefix: "203.0.113.0/24".parse().unwrap(),
            peer: "edge1".to_owned(),
            state: RouteState::Announced,
            why: String::new(),
            for_ms: Some(60_000),
            sent: true,
            attributes: vec![attribute],
        }],
    }
}

pub(crate) fn trace() -> Trace {
    Trace {
        version: API_VERSION,
        source: "198.51.100.7:40001".to_owned(),
        flows: vec![TracedFlow {
            name: "www".to_owned(),
            vip: "203.0.113.10:443/tcp".to_owned(),
            destination: "203.0.113.10:443".to_owned(),
            pool: "web".to_owned(),
            hash: "9c41e07a00000001".to_owned(),
            slot: 41_207,
            slots: 65_537,
            generation: 3,
            contested: true,
            path: "entry".to_owned(),
            why: "its entry in the flow table".to_owned(),
            backend: Some("web1".to_owned()),
            address: Some("10.1.0.1".to_owned()),
            encap: Some("gue".to_owned()),
            path_mtu: Some(9000),
            next_hop: "02:00:00:00:00:01 by eth0".to_owned(),
            verdict: "tx".to_owned(),
        }],
    }
}

pub(crate) fn drops() -> Drops {
    let reason = |reason: &str, packets| DropReason {
        reason: reason.to_owned(),
        packets,
        help: format!("what {reason} means"),
    };
    let sample = DroppedPacket {
        number: 5,
        time: "2026-11-24T12:07:40.000Z".to_owned(),
        reason: "no_port".to_owned(),
        vip: None,
        source: "198.51.100.7:40001".to_owned(),
        destination: "203.0.113.10:22".to_owned(),
        protocol: 6,
        length: 74,
    };
    let reasons = vec![reason("malformed", 0), reason("no_port", 12)];
    Drops { version: API_VERSION, reasons, samples: vec![sample], last: 5 }
}

pub(crate) fn outcome() -> Outcome {
    Outcome {
        version: API_VERSION,
        applied: true,
        changes: vec![
            PlanLine::new('~', "backend web/web3", "drains: no new flows, its flows stay"),
            PlanLine::new('~', "pool web", "16,384 of 65,537 slots move (25.0%)"),
        ],
        notes: vec!["override of web/web1 stays: weight 50".to_owned()],
        warnings: String::new(),
        undo: Some("lbctl backend undrain web/web3".to_owned()),
    }
}

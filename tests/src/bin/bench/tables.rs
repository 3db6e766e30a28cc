//! User space's work: building a lookup table, and the flow table through plain memory.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use lb_common::backend::BackendId;
use lb_common::decide::Question;
use lb_common::parse::Segment;
use lb_common::table::Slot;
use lb_common::tables::Tables as _;
use lb_userspace::dataplane::{Dataplane, SettingsSpec, Sizes};
use lb_userspace::maglev::{self, Member};
use serde_json::{Value, json};

use crate::{cpu_time, median};

/// Builds of each table; the median counts.
const BUILDS: usize = 21;
/// Slots of the tables.
const SLOTS: u32 = 65_537;
/// Flows entered and scanned.
const FLOWS: u32 = 1 << 20;

fn members(count: u16) -> Vec<Member> {
    (1..=count)
        .map(|id| Member {
            key: maglev::identity_key(&format!("192.0.{}.{}", id / 256, id % 256)),
            id,
            weight: 100,
        })
        .collect()
}

/// Build time, moves beyond the minimum when one goes, and the worst share.
pub(crate) fn maglev() -> Value {
    let mut report = serde_json::Map::new();
    for count in [100, 1000] {
        let members = members(count);
        let mut times: Vec<f64> = (0..BUILDS)
            .map(|_| {
                let before = cpu_time();
                std::hint::black_box(maglev::build(std::hint::black_box(&members), SLOTS));
                (cpu_time() - before).as_secs_f64() * 1e3
            })
            .collect();
        let build_ms = median(&mut times);
        let table = maglev::build(&members, SLOTS);
        let share = maglev::share_error(&table, &members);
        let gone = members.len() / 2;
        let rest: Vec<_> =
            members.iter().enumerate().filter(|m| m.0 != gone).map(|m| *m.1).collect();
        let after = maglev::build(&rest, SLOTS);
        let lost = members.get(gone).map_or(0, |member| member.id);
        let beyond =
            table.iter().zip(&after).filter(|(old, new)| **old != lost && old != new).count();
        let percent = beyond as f64 * 100.0 / f64::from(SLOTS);
        println!(
            "maglev {SLOTS} slots, {count:4} backends: build {build_ms:.2} ms, \
             one goes: {percent:.2} % of the slots move beyond the minimum, \
             worst share {:.2} slots off ({:.3} %)",
            share.slots_max,
            share.relative_max * 100.0
        );
        report.insert(
            count.to_string(),
            json!({
                "build_ms": build_ms,
                "moved_beyond_minimum_percent": percent,
                "share_error_slots": share.slots_max,
                "share_error_percent": share.relative_max * 100.0,
            }),
        );
    }
    Value::Object(report)
}

/// Rates of entering and scanning flows in plain memory, as lbd does through the mapping.
pub(crate) fn flow_table() -> Value {
    let sizes = Sizes::with_room(1024, 16, 4, FLOWS);
    let mut dataplane = Dataplane::in_memory(&sizes);
    dataplane.set_settings(&SettingsSpec {
        secret: [0; 16],
        source_v4: Some(Ipv4Addr::LOCALHOST),
        source_v6: None,
        ipip_source_v4: Ipv4Addr::UNSPECIFIED,
        ipip_source_v6: Ipv6Addr::UNSPECIFIED,
        gue_port: 6080,
        half_open: Duration::from_secs(10),
        established: Duration::from_secs(600),
        closing: Duration::from_secs(30),
        hertz: 250,
    });
    let tables = dataplane.tables(1);
    let slot = Slot::new(BackendId(1), true);
    let mut hash = 1u64;
    let before = cpu_time();
    for _ in 0..FLOWS {
        // Weyl sequence, mixed (splitmix64): as a flow hash is spread.
        hash = hash.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (hash ^ hash >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let ask = Question {
            hash: mixed ^ mixed >> 27,
            slot,
            base: BackendId(0),
            udp_idle: 30,
            segment: Segment::Open,
        };
        std::hint::black_box(tables.tracked(ask));
    }
    let enter_ns = (cpu_time() - before).as_nanos() as f64 / f64::from(FLOWS);
    let before = cpu_time();
    let live = dataplane.flows().count();
    let scan = cpu_time() - before;
    let scan_ns = scan.as_nanos() as f64 / dataplane.flow_entries() as f64;
    println!(
        "flow table, {} entries: enter {enter_ns:.0} ns a flow, scan {scan_ns:.2} ns an entry, \
         {live} of {FLOWS} held",
        dataplane.flow_entries()
    );
    json!({ "enter_ns": enter_ns, "scan_ns_per_entry": scan_ns, "entered": FLOWS, "held": live })
}

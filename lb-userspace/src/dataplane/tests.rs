//! The data plane over plain memory: what it publishes, the flow table, also under races.

mod flows;
mod journal;
mod races;
mod tables;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use lb_common::backend::{BackendId, Link};
use lb_common::control::Control;
use lb_common::decide::{Path, Question};
use lb_common::parse::Segment;
use lb_common::table::Slot;
use lb_common::tables::Tables as _;

use super::{BackendSpec, Dataplane, RECORDS_LAG, SettingsSpec, Sizes};
use crate::desired::Encap;

/// SplitMix64: the same numbers from the same seed, everywhere.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let x = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ (x >> 31)
    }

    fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }
}

/// Jiffies in a second of these tests, and in a tick.
const HERTZ: u32 = 256;

fn settings() -> SettingsSpec {
    SettingsSpec {
        secret: [7; 16],
        source_v4: Some(Ipv4Addr::new(192, 0, 2, 1)),
        source_v6: None,
        ipip_source_v4: Ipv4Addr::new(198, 18, 0, 0),
        ipip_source_v6: "2001:db8::".parse().unwrap(),
        gue_port: 6080,
        half_open: Duration::from_secs(10),
        // 600 ticks with what a record may wait.
        established: Duration::from_secs(600) - RECORDS_LAG,
        closing: Duration::from_secs(30),
        hertz: HERTZ,
    }
}

/// In memory, with room for that many flows.
fn with_flows(flows: u32) -> Dataplane {
    let mut dataplane = Dataplane::in_memory(&Sizes::with_room(1_000, 100, 100, flows));
    dataplane.set_settings(&settings());
    dataplane
}

fn at(dataplane: &mut Dataplane, tick: u64) {
    dataplane.set_jiffies(tick * u64::from(HERTZ));
}

/// A packet of a flow in a contested slot of backend `now`, whose window's oldest owner is `base`.
fn ask(hash: u64, segment: Segment, now: u16, base: u16) -> Question {
    let slot = Slot::new(BackendId(now), true);
    Question { hash, slot, base: BackendId(base), udp_idle: 30, segment }
}

fn tracked(dataplane: &Dataplane, ask: Question) -> (u16, Path) {
    let (owner, path) = dataplane.tables(1).tracked(ask);
    (owner.0, path)
}

/// What the programs read.
fn control(dataplane: &Dataplane) -> &Control {
    dataplane.memory.control.get(0).unwrap()
}

fn backend(last: u8) -> BackendSpec {
    BackendSpec {
        destination: IpAddr::V4(Ipv4Addr::new(10, 0, 0, last)),
        encap: Encap::Ipip,
        link: Some(Link::new([2, 0, 0, 0, 0, last], [2, 0, 0, 0, 1, 0], 1)),
        path_mtu: 1500,
    }
}

#[test]
fn ticks_are_about_a_second_and_never_too_few() {
    for hertz in [100, 250, 256, 300, 1000, 1024] {
        let shift = super::tick_shift(hertz);
        let tick = f64::from(1_u32 << shift) / f64::from(hertz);
        assert!((0.66..1.5).contains(&tick), "{hertz}: {tick}");
        for millis in [0, 1, 999, 1_000, 1_001, 59_999, 600_000, 7_200_000, u64::MAX] {
            let ticks = Dataplane::ticks(hertz, Duration::from_millis(millis));
            let seconds = f64::from(ticks) * tick;
            let wanted = millis as f64 / 1000.0;
            if ticks < lb_common::control::Idle::MAX - 1 {
                assert!(seconds >= wanted && seconds < wanted + tick, "{hertz} {millis}: {ticks}");
            } else {
                // Longer than a deadline can tell: said by `config check`, cut here.
                assert!(seconds > 5_000.0, "{hertz} {millis}");
            }
        }
    }
}

#[test]
fn a_change_of_link_is_one_word_and_keeps_the_rest() {
    let mut dataplane = with_flows(8);
    let id = BackendId(3);
    dataplane.set_backends(&BTreeMap::from([(id, backend(3))])).unwrap();
    let before = *dataplane.memory.backends.get(3).unwrap();
    let changed = BackendSpec { link: Some(Link::new([9; 6], [8; 6], 2)), ..backend(3) };
    dataplane.set_backends(&BTreeMap::from([(id, changed)])).unwrap();
    let after = *dataplane.memory.backends.get(3).unwrap();
    let state = |word| lb_common::backend::State::unpack(word);
    let (old, new) = (state(before.state), state(after.state));
    assert_eq!((old.inner_mtu, new.inner_mtu), (1480, 1480));
    assert_ne!(old.link, new.link);
    // What a program that read the old word still uses.
    let place = usize::from(old.link);
    assert_eq!(before.links[place], after.links[place]);
    assert_eq!((before.destination, before.checksum), (after.destination, after.checksum));
    let gone = BackendSpec { link: None, ..backend(3) };
    dataplane.set_backends(&BTreeMap::from([(id, gone)])).unwrap();
    assert_eq!(state(dataplane.memory.backends.get(3).unwrap().state).inner_mtu, 0);
}

#[test]
fn a_path_smaller_than_its_headers_is_unresolved() {
    let mut dataplane = with_flows(8);
    let spec = BackendSpec { path_mtu: 20, ..backend(3) };
    dataplane.set_backends(&BTreeMap::from([(BackendId(3), spec)])).unwrap();
    let state = dataplane.memory.backends.get(3).unwrap().state;
    assert_eq!(lb_common::backend::State::unpack(state).inner_mtu, 0);
}

#[test]
fn a_trace_changes_nothing() {
    let mut dataplane = with_flows(8);
    let slots = vec![0x8001; 7];
    dataplane.publish_table(1, &slots, &[[2, 0, 0, 0]; 7], 5).unwrap();
    dataplane.publish_vips(&[tables::vip(1, "203.0.113.1", Some(80), 1)]).unwrap();
    let trace = dataplane
        .trace("198.51.100.7:40001".parse().unwrap(), "203.0.113.1:80".parse().unwrap(), 6)
        .unwrap();
    assert_eq!((trace.vip, trace.owner, trace.path), (1, BackendId(2), Path::Base));
    assert_eq!((trace.slots, trace.generation), (7, 5));
    assert_eq!(dataplane.flows().count(), 0);
    // Once it is known, the trace says so, and does not touch it.
    let segment = Segment::Open;
    assert_eq!(tracked(&dataplane, ask(trace.hash, segment, 1, 2)), (1, Path::New));
    let flows: Vec<_> = dataplane.flows().collect();
    let again = dataplane
        .trace("198.51.100.7:40001".parse().unwrap(), "203.0.113.1:80".parse().unwrap(), 6)
        .unwrap();
    assert_eq!((again.owner, again.path), (BackendId(1), Path::Entry));
    assert_eq!(dataplane.flows().collect::<Vec<_>>(), flows);
}

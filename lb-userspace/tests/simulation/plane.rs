//! The data plane in plain memory, and the tracker over it, as the controller drives it: journal
//! first, then the table, then what has to go.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use lb_common::decide::{Path, decide};
use lb_common::flow::State as FlowState;
use lb_common::parse::{Flow, Inner, Segment};
use lb_common::table::slot_of;
use lb_common::tables::Tables as _;
use lb_common::vip::VipEntry;
use lb_userspace::controller::flows::{note, purge};
use lb_userspace::dataplane::{Dataplane, FlowRecord, RECORDS_LAG, SettingsSpec, Sizes};
use lb_userspace::maglev::{Member, identity_key};
use lb_userspace::tracking::{
    CONTESTED, Change, ChangeKind, PoolTracker, Purge, Rendered, Scan, Settings, State,
};

use crate::scenario::{Fault, Outcome, Scenario};

pub(crate) const SLOTS: u32 = 1_021;
const POOL: u16 = 1;
const HERTZ: u32 = 250;
const MS_PER_JIFFY: u64 = 4;
/// Five minutes before the tick wraps.
const FIRST_JIFFY: u64 = (1 << (14 + 8)) - 5 * 60 * HERTZ as u64;

/// As the controller.
const RECORDS_EVERY_MS: u64 = 1_000;

/// Where the daemon dies.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Crash {
    /// Between two events.
    Idle,
    /// It had decided, and kept nothing.
    BeforeJournal,
    /// It had kept its intent, and done nothing.
    BeforeTable,
    /// The table was in force, and what had to go had not gone.
    BeforePurge,
}

pub(crate) struct Plane {
    dataplane: Dataplane,
    pub(crate) tracker: PoolTracker,
    always: bool,
    fault: Fault,
    pub(crate) rendered: Rendered,
    purges: Vec<Purge>,
    scan: Option<Scan>,
    udp_ticks: u16,
    /// What the next publication runs into.
    pub(crate) crash: Option<Crash>,
    now_ms: u64,
    records_due_ms: u64,
}

pub(crate) fn members(weights: &BTreeMap<u16, u32>) -> Vec<Member> {
    let key = |id| identity_key(&format!("198.51.100.{id}"));
    weights.iter().map(|(&id, &weight)| Member { key: key(id), id, weight }).collect()
}

fn settings(scenario: &Scenario) -> Settings {
    let fault = scenario.fault;
    let longest_ms = scenario.established_ms.max(scenario.udp_ms);
    let always_ms = if scenario.always { longest_ms } else { scenario.udp_ms };
    let window_ms = if fault == Fault::ShortWindow { 10_000 } else { scenario.window_ms };
    Settings {
        always: Duration::from_millis(always_ms),
        on_down: scenario.on_down,
        window: Duration::from_millis(window_ms),
        prepare: Duration::from_secs(if fault == Fault::NoPrepare { 0 } else { 3 }),
        history: Duration::from_millis(scenario.established_ms),
    }
}

fn dataplane(scenario: &Scenario) -> Dataplane {
    let sizes = Sizes::with_room(2 * u64::from(SLOTS), u32::from(scenario.backends), 1, 8);
    let mut dataplane = Dataplane::in_memory(&Sizes { flow_buckets: scenario.buckets, ..sizes });
    let established_ms =
        if scenario.fault == Fault::ShortIdle { 20_000 } else { scenario.established_ms };
    dataplane.set_settings(&SettingsSpec {
        secret: [0; 16],
        source_v4: None,
        source_v6: None,
        ipip_source_v4: Ipv4Addr::UNSPECIFIED,
        ipip_source_v6: Ipv6Addr::UNSPECIFIED,
        gue_port: 6080,
        half_open: Duration::from_millis(scenario.half_open_ms),
        established: Duration::from_millis(established_ms),
        closing: Duration::from_millis(scenario.closing_ms),
        hertz: HERTZ,
    });
    dataplane
}

impl Plane {
    pub(crate) fn new(scenario: &Scenario, weights: &BTreeMap<u16, u32>) -> Self {
        let tracker = PoolTracker::new(SLOTS, &members(weights), &[], settings(scenario));
        let tick_ms = MS_PER_JIFFY << 8;
        let lag_ms = u64::try_from(RECORDS_LAG.as_millis()).unwrap();
        let mut plane = Self {
            dataplane: dataplane(scenario),
            rendered: tracker.render(),
            tracker,
            always: scenario.always,
            fault: scenario.fault,
            purges: Vec::new(),
            scan: None,
            udp_ticks: u16::try_from((scenario.udp_ms + lag_ms).div_ceil(tick_ms)).unwrap(),
            crash: None,
            now_ms: 0,
            records_due_ms: 0,
        };
        plane.keep_journal();
        plane.publish_table();
        plane
    }

    pub(crate) fn set_time(&mut self, now_ms: u64) {
        self.now_ms = now_ms;
        self.dataplane.set_jiffies(FIRST_JIFFY + now_ms / MS_PER_JIFFY);
        if self.records_due_ms <= now_ms {
            self.records_due_ms = now_ms + RECORDS_EVERY_MS;
            self.dataplane.enter_records();
        }
    }

    pub(crate) const fn now(&self) -> Duration {
        Duration::from_millis(self.now_ms)
    }

    /// Which backend gets a packet, and how it was found.
    pub(crate) fn forward(&self, hash: u64, segment: Segment) -> (u16, Path) {
        let ask = |segment| {
            let always = self.always || segment == Segment::Datagram;
            let flags = if always { VipEntry::ALWAYS } else { 0 };
            let udp_idle = self.udp_ticks;
            let vip = VipEntry { vip: 1, pool: POOL, flags, udp_idle, ..VipEntry::default() };
            let inner = Inner { offset: 14, v6: false, tos: 0, length: 60 };
            let tables = self.dataplane.tables(0);
            let flow = Flow { inner, vip, hash, segment };
            let decision = decide(&tables, tables.control().unwrap(), &flow).unwrap();
            (decision.owner.0, decision.path)
        };
        match (self.fault, segment) {
            (Fault::SynNotEntered, Segment::Open) => match ask(Segment::Quoted) {
                (_, Path::Base | Path::Miss) => (self.owner(hash), Path::New),
                found => found,
            },
            (Fault::SynReowns, Segment::Open) => {
                // What ends makes room for what begins.
                ask(Segment::End);
                ask(segment)
            }
            (Fault::MissNotEntered, Segment::Later) => match ask(Segment::Quoted) {
                (_, Path::Entry) => ask(segment),
                missed => missed,
            },
            _ => ask(segment),
        }
    }

    /// The owner of a flow's slot.
    fn owner(&self, hash: u64) -> u16 {
        let slot = slot_of((hash >> 32) as u32, SLOTS);
        self.rendered.slots[slot as usize] & !CONTESTED
    }

    /// Keeps the state, and tells the data plane what changed. `None`: the daemon died of it, and
    /// has begun anew; what it had not kept has to be told again.
    pub(crate) fn commit(&mut self, changes: &[Change], outcome: &mut Outcome) -> Option<()> {
        let count = |kind| u32::from(changes.iter().any(|change| change.kind == kind));
        outcome.activations += count(ChangeKind::Activated);
        outcome.releases += count(ChangeKind::Released);
        if self.dies(Crash::BeforeJournal, changes, outcome) {
            return None;
        }
        self.keep_journal();
        if changes.is_empty() {
            return Some(());
        }
        if self.dies(Crash::BeforeTable, changes, outcome) {
            return None;
        }
        let was_all_down = self.rendered.all_down;
        self.publish_table();
        outcome.all_down += u32::from(self.rendered.all_down);
        if self.dies(Crash::BeforePurge, changes, outcome) {
            return None;
        }
        let released = was_all_down && !self.rendered.all_down;
        let purges = std::mem::take(&mut self.purges);
        purge(&self.dataplane, &self.tracker, &purges, released);
        Some(())
    }

    pub(crate) fn will_purge(&mut self, purge: Purge) {
        self.purges.push(purge);
    }

    fn dies(&mut self, at: Crash, changes: &[Change], outcome: &mut Outcome) -> bool {
        if changes.is_empty() || self.crash != Some(at) {
            return false;
        }
        self.restart(outcome);
        true
    }

    /// The daemon dies and begins again from its journal; table and flows stay.
    pub(crate) fn restart(&mut self, outcome: &mut Outcome) {
        self.crash = None;
        outcome.crashes += 1;
        let state: State = serde_json::from_slice(&self.dataplane.journal().unwrap()).unwrap();
        self.tracker = PoolTracker::restore(&state).unwrap();
        if self.fault == Fault::RestartForgets {
            let dead: Vec<u16> = self.tracker.current().dead().collect();
            let members = self.tracker.current().members();
            let settings = *self.tracker.settings();
            self.tracker = PoolTracker::new(SLOTS, members, &dead, settings);
        }
        (self.purges, self.scan) = (Vec::new(), None);
        self.publish_table();
        purge(&self.dataplane, &self.tracker, &[], true);
    }

    fn keep_journal(&mut self) {
        let bytes = serde_json::to_vec(&self.tracker.state()).unwrap();
        self.dataplane.set_journal(&bytes).unwrap();
    }

    fn publish_table(&mut self) {
        let mut rendered = self.tracker.render();
        for (slot, row) in rendered.slots.iter_mut().zip(&mut rendered.history) {
            if self.fault == Fault::NoExceptions && row[0] == 0 {
                *slot &= !CONTESTED;
            }
            if self.fault == Fault::NewestBase && row[0] != 0 && row[1] != 0 {
                row[0] = row[1];
            }
            if self.fault == Fault::NoBase {
                row[0] = 0;
            }
        }
        let Rendered { slots, history, generation, .. } = &rendered;
        self.dataplane.publish_table(POOL, slots, history, *generation).unwrap();
        self.rendered = rendered;
    }

    /// Begins a scan, and walks over half of the flow table.
    pub(crate) fn begin_scan(&mut self, outcome: &mut Outcome) {
        let contested = self.rendered.slots.iter().filter(|slot| **slot & CONTESTED != 0).count();
        outcome.contested_slots.0 += contested as u64;
        outcome.contested_slots.1 += 1;
        self.dataplane.enter_records();
        let mut scan = self.tracker.begin_scan();
        self.walk(&mut scan, 0);
        self.scan = Some(scan);
    }

    /// Walks over the other half; what the tracker makes of it.
    pub(crate) fn end_scan(&mut self) -> Vec<Change> {
        let Some(mut scan) = self.scan.take() else { return Vec::new() };
        if self.fault != Fault::HalfScan {
            self.walk(&mut scan, 1);
        }
        self.dataplane.age();
        self.tracker.tick(self.now(), Some(&scan))
    }

    fn walk(&self, scan: &mut Scan, half: u32) {
        let is_seen = |flow: &FlowRecord| {
            let unseen = self.fault == Fault::ConfirmedOnly && !flow.state.is_confirmed();
            flow.tag % 2 == half && !unseen
        };
        for flow in self.dataplane.flows().filter(is_seen) {
            note(scan, &flow, SLOTS);
        }
    }

    /// Confirmed flows that the next packet would move.
    pub(crate) fn untracked(&self) -> u32 {
        let is_lost = |flow: &FlowRecord| {
            let word = self.rendered.slots[slot_of(flow.tag, SLOTS) as usize];
            word & CONTESTED == 0 && word != flow.owner.0 && flow.state == FlowState::Confirmed
        };
        u32::try_from(self.dataplane.flows().filter(is_lost).count()).unwrap()
    }
}

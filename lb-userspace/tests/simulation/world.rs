//! The loop: events in virtual time, changes, deaths, verdicts and crashes.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

use lb_userspace::tracking::{Change, OnDown};

use crate::clients::{Flow, Phase, VOLLEY_MS};
use crate::plane::{Crash, Plane, members};
use crate::scenario::{Outcome, Random, Scenario};

const RUN_MS: u64 = 600_000;
const SCAN_EVERY_MS: u64 = 2_000;
const SCAN_TAKES_MS: u64 = 300;
const EVENTS_MAX: u32 = 2_000_000;
/// A daemon that died begins again, is told all, and goes on; not more often than this at a time.
const RETRIES_MAX: usize = 2;

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Event {
    Born,
    Packet(u32),
    RepeatedSyn(u32),
    Reuse(u64),
    Volley,
    Change,
    Death,
    Verdict(u16, bool),
    Return(u16),
    Tick,
    ScanBegins,
    ScanEnds,
    Restart,
}

pub(crate) struct World {
    pub(crate) scenario: Scenario,
    pub(crate) random: Random,
    pub(crate) now_ms: u64,
    events: BinaryHeap<Reverse<(u64, u64, Event)>>,
    sequence: u64,
    pub(crate) plane: Plane,
    /// When the tracker wants to be woken.
    tick_ms: u64,
    weights: BTreeMap<u16, u32>,
    /// What the probes say.
    verdicts: BTreeMap<u16, bool>,
    /// How often each backend has died or returned; odd while it is dead.
    deaths: BTreeMap<u16, u32>,
    pub(crate) flows: BTreeMap<u32, Flow>,
    pub(crate) outcome: Outcome,
    pub(crate) verbose: bool,
}

impl World {
    pub(crate) fn new(scenario: Scenario, seed: u64) -> Self {
        let weights = (1..=scenario.backends).map(|id| (id, 100)).collect();
        let mut world = Self {
            scenario,
            random: Random(seed),
            now_ms: 1_000,
            events: BinaryHeap::new(),
            sequence: 0,
            plane: Plane::new(&scenario, &weights),
            tick_ms: u64::MAX,
            weights,
            verdicts: BTreeMap::new(),
            deaths: BTreeMap::new(),
            flows: BTreeMap::new(),
            outcome: Outcome::default(),
            verbose: std::env::var_os("LB_SIMULATION_VERBOSE").is_some(),
        };
        world.after(0, Event::Born);
        world.after(VOLLEY_MS, Event::Volley);
        world.after(scenario.change_every_ms, Event::Change);
        world.after(scenario.death_every_ms, Event::Death);
        world.after(SCAN_EVERY_MS, Event::ScanBegins);
        world.after(scenario.restart_every_ms, Event::Restart);
        world
    }

    pub(crate) fn after(&mut self, delay_ms: u64, event: Event) {
        self.sequence += 1;
        self.events.push(Reverse((self.now_ms + delay_ms, self.sequence, event)));
    }

    pub(crate) fn run(mut self) -> Outcome {
        for _ in 0..EVENTS_MAX {
            let Some(Reverse((at_ms, _, event))) = self.events.pop() else { break };
            if at_ms > RUN_MS {
                break;
            }
            self.now_ms = at_ms;
            self.plane.set_time(at_ms);
            self.on(event);
        }
        assert!(self.now_ms > RUN_MS * 9 / 10, "ran out of events");
        self.outcome.forced = self.plane.tracker.forced_slots();
        self.outcome
    }

    fn on(&mut self, event: Event) {
        match event {
            Event::Born => self.born(),
            Event::Packet(id) => self.packet(id),
            Event::RepeatedSyn(id) => self.repeats(id),
            Event::Reuse(hash) => self.reuse(hash),
            Event::Volley => self.volley(),
            Event::Change => self.change(),
            Event::Death => self.death(),
            Event::Verdict(id, is_up) => self.verdict(id, is_up),
            Event::Return(id) => {
                *self.deaths.entry(id).or_default() += 1;
                let delay_ms = 500 + self.random.below(3_000);
                self.after(delay_ms, Event::Verdict(id, true));
            }
            Event::Tick => {
                if self.tick_ms <= self.now_ms {
                    self.tick_ms = u64::MAX;
                    self.tick();
                }
            }
            Event::ScanBegins => {
                self.plane.begin_scan(&mut self.outcome);
                self.after(SCAN_TAKES_MS, Event::ScanEnds);
            }
            Event::ScanEnds => {
                self.after(SCAN_EVERY_MS, Event::ScanBegins);
                let changes = self.plane.end_scan();
                self.commit(&changes);
                if self.scenario.tag_bits == 32 {
                    self.outcome.untracked += self.plane.untracked();
                }
            }
            Event::Restart => self.restart(),
        }
    }

    /// How often a backend has died or returned.
    pub(crate) fn lives(&self, id: u16) -> u32 {
        self.deaths.get(&id).copied().unwrap_or(0)
    }

    fn tick(&mut self) {
        let changes = self.plane.tracker.tick(self.plane.now(), None);
        self.commit(&changes);
    }

    fn commit(&mut self, changes: &[Change]) {
        let was_all_down = self.plane.rendered.all_down;
        let mut done = self.plane.commit(changes, &mut self.outcome);
        for _ in 0..RETRIES_MAX {
            if done.is_none() {
                let changes = self.tell_all();
                done = self.plane.commit(&changes, &mut self.outcome);
            }
        }
        assert!(done.is_some(), "died again and again");
        if was_all_down && !self.plane.rendered.all_down {
            // Used while all were down, then dead again by a verdict not yet taken back.
            let tracker = &self.plane.tracker;
            self.flows.retain(|_, flow| !tracker.is_released(flow.backend));
        }
        if let Some(deadline) = self.plane.tracker.next_deadline() {
            let at_ms = u64::try_from(deadline.as_millis()).unwrap().max(self.now_ms);
            if at_ms < self.tick_ms {
                self.tick_ms = at_ms;
                self.after(at_ms - self.now_ms, Event::Tick);
            }
        }
    }

    /// A daemon that begins is told the configuration and the verdicts, as by the controller.
    fn tell_all(&mut self) -> Vec<Change> {
        let now = self.plane.now();
        let plane = &mut self.plane;
        let mut changes = plane.tracker.tick(now, None);
        changes.extend(plane.tracker.propose(&members(&self.weights), now));
        for id in self.weights.keys() {
            let is_up = self.verdicts.get(id).copied().unwrap_or(true);
            match (is_up, plane.tracker.current().is_dead(*id)) {
                (true, true) => changes.extend(plane.tracker.backend_up(*id, now)),
                (false, false) => {
                    let down = plane.tracker.backend_down(*id, now);
                    changes.extend(down.changes);
                    plane.will_purge(down.purge);
                }
                _ => {}
            }
        }
        changes
    }

    /// Add, remove, drain, undrain, reweight, or several of these in a burst.
    fn change(&mut self) {
        self.after(self.scenario.change_every_ms, Event::Change);
        let burst = if self.random.chance(20) { 4 } else { 1 };
        for _ in 0..burst {
            let id = self.random.backend(self.scenario.backends);
            match self.random.below(5) {
                0 => _ = self.weights.remove(&id),
                1 => _ = self.weights.insert(id, 0),
                2 => _ = self.weights.insert(id, 50),
                _ => _ = self.weights.insert(id, 100),
            }
            let changes = self.tell_all();
            self.commit(&changes);
        }
        if self.scenario.force {
            self.plane.tracker.force();
        }
    }

    /// A real death; or, if flows of the dead are kept, sometimes a wrong verdict.
    fn death(&mut self) {
        self.after(self.scenario.death_every_ms, Event::Death);
        let id = self.random.backend(self.scenario.backends);
        if self.lives(id) % 2 == 1 {
            return;
        }
        let back_ms = 4_000 + self.random.below(90_000);
        let noticed_ms = self.random.below(4_000);
        self.after(noticed_ms, Event::Verdict(id, false));
        if self.scenario.on_down == OnDown::Keep && self.random.chance(50) {
            self.after(back_ms, Event::Verdict(id, true));
        } else {
            *self.deaths.entry(id).or_default() += 1;
            self.after(back_ms, Event::Return(id));
        }
    }

    fn verdict(&mut self, id: u16, is_up: bool) {
        self.verdicts.insert(id, is_up);
        let was_all_down = self.plane.rendered.all_down;
        let now = self.plane.now();
        let changes = if is_up {
            self.plane.tracker.backend_up(id, now)
        } else {
            let down = self.plane.tracker.backend_down(id, now);
            self.plane.will_purge(down.purge);
            down.changes
        };
        self.commit(&changes);
        let all_changed = was_all_down != self.plane.rendered.all_down;
        // A wrong verdict may cost a handshake in flight, and nothing else.
        let straddles = |flow: &Flow| flow.phase == Phase::Opening || flow.repeats;
        self.flows.retain(|_, flow| {
            !(straddles(flow) && (all_changed || (!is_up && flow.backend == id)))
        });
    }

    /// The daemon dies now, or in the middle of its next step.
    fn restart(&mut self) {
        self.after(self.scenario.restart_every_ms, Event::Restart);
        let crashes = [Crash::Idle, Crash::BeforeJournal, Crash::BeforeTable, Crash::BeforePurge];
        let crash = crashes[usize::try_from(self.random.below(4)).unwrap()];
        if crash == Crash::Idle {
            self.plane.restart(&mut self.outcome);
            let changes = self.tell_all();
            self.commit(&changes);
        } else {
            self.plane.crash = Some(crash);
        }
    }
}

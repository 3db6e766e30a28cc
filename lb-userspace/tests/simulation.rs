//! Flows against the tracker, in virtual time.
//!
//! One LB, one pool, a flow table and a few thousand flows; changes, deaths, wrong verdicts,
//! returns and restarts of the daemon come from a seed. The promise under attack: a flow that sends
//! a packet at least every `min(window, idle timeout)` keeps its backend for as long as that lives.
//! The data plane here is the rule in its shortest form, without a packet. Controls with one fault
//! each must break flows, else the simulation would prove nothing.

#[cfg(test)]
mod simulation {
    use std::cmp::Reverse;
    use std::collections::{BTreeMap, BinaryHeap};
    use std::time::Duration;

    use lb_userspace::maglev::{Member, identity_key};
    use lb_userspace::tracking::{
        CONTESTED, Change, OnDown, PoolTracker, Rendered, Scan, Settings, State, Tracking,
    };

    const SLOTS: u32 = 1_021;
    /// An entry's idle timeout.
    const IDLE_MS: u64 = 90_000;
    /// No flow is silent for longer: less than window and idle timeout.
    const SILENCE_MAX_MS: u64 = 59_000;
    const WINDOW_MS: u64 = 60_000;
    /// A repeated SYN comes at most this much after the first: less than the preparation.
    const REPEAT_MAX_MS: u64 = 2_900;
    const RUN_MS: u64 = 600_000;
    const SCAN_EVERY_MS: u64 = 4_000;
    const SCAN_TAKES_MS: u64 = 300;
    const EVENTS_MAX: u32 = 2_000_000;

    /// What is done wrong on purpose.
    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    enum Fault {
        None,
        /// Changes are in force at once.
        NoPrepare,
        /// The window is shorter than a flow's silence.
        ShortWindow,
        /// The base is the owner before the last change, not the one before the window.
        NewestBase,
        /// A slot turns stateless when its window closes, whatever entries it has.
        NoExceptions,
        /// The scan sees only half of the flow table.
        HalfScan,
        /// SYNs in contested slots are not entered.
        SynNotEntered,
        /// A SYN goes to the slot's owner though there is an entry.
        SynReowns,
        /// A miss is answered but not entered.
        MissNotEntered,
    }

    #[derive(Clone, Copy, Debug)]
    struct Scenario {
        backends: u16,
        change_every_ms: u64,
        death_every_ms: u64,
        on_down: OnDown,
        tracking: Tracking,
        force: bool,
        fault: Fault,
    }

    const CALM: Scenario = Scenario {
        backends: 20,
        change_every_ms: 30_000,
        death_every_ms: 70_000,
        on_down: OnDown::Keep,
        tracking: Tracking::Contested,
        force: false,
        fault: Fault::None,
    };

    #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
    enum Event {
        Born,
        Packet(u32),
        RepeatedSyn(u32),
        Change,
        Death,
        Verdict(u16, bool),
        Return(u16),
        Tick,
        ScanBegins,
        ScanEnds,
        Restart,
    }

    #[derive(Clone, Copy, Debug)]
    struct Flow {
        slot: u32,
        backend: u16,
        /// How often the backend had died when the flow began.
        life: u32,
        ends_ms: u64,
        silence_ms: u64,
        says_goodbye: bool,
        /// The first packet after the SYN has come.
        established: bool,
        /// A repeated SYN is on its way.
        repeats: bool,
    }

    #[derive(Clone, Copy, Debug)]
    struct Entry {
        slot: u32,
        owner: u16,
        confirmed: bool,
        touched_ms: u64,
    }

    #[derive(Default, Debug)]
    struct Outcome {
        flows: u32,
        packets: u32,
        broken: u32,
        ended_with_backend: u32,
        activations: u32,
        releases: u32,
        all_down: u32,
        forced: u64,
        /// Entries with another owner in slots that had turned stateless.
        untracked: u32,
        contested_packets: u32,
    }

    struct Random(u64);

    impl Random {
        /// SplitMix64.
        fn next(&mut self) -> u64 {
            self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut word = self.0;
            word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            word ^ (word >> 31)
        }

        fn below(&mut self, bound: u64) -> u64 {
            self.next() % bound
        }

        fn backend(&mut self, count: u16) -> u16 {
            u16::try_from(self.below(u64::from(count))).unwrap() + 1
        }

        fn chance(&mut self, percent: u64) -> bool {
            self.below(100) < percent
        }
    }

    struct World {
        scenario: Scenario,
        random: Random,
        now_ms: u64,
        events: BinaryHeap<Reverse<(u64, u64, Event)>>,
        sequence: u64,
        tracker: PoolTracker,
        live: Rendered,
        weights: BTreeMap<u16, u32>,
        /// How often each backend has died; odd while it is dead.
        deaths: BTreeMap<u16, u32>,
        flows: BTreeMap<u32, Flow>,
        entries: BTreeMap<u32, Entry>,
        scan: Option<Scan>,
        outcome: Outcome,
    }

    fn members(weights: &BTreeMap<u16, u32>) -> Vec<Member> {
        let key = |id| identity_key(&format!("198.51.100.{id}"));
        weights.iter().map(|(&id, &weight)| Member { key: key(id), id, weight }).collect()
    }

    impl World {
        fn new(scenario: Scenario, seed: u64) -> Self {
            let fault = scenario.fault;
            let settings = Settings {
                tracking: scenario.tracking,
                on_down: scenario.on_down,
                window: Duration::from_millis(if fault == Fault::ShortWindow {
                    10_000
                } else {
                    WINDOW_MS
                }),
                prepare: Duration::from_secs(if fault == Fault::NoPrepare { 0 } else { 3 }),
                history: Duration::from_millis(IDLE_MS),
            };
            let weights = (1..=scenario.backends).map(|id| (id, 100)).collect();
            let tracker = PoolTracker::new(SLOTS, &members(&weights), &[], settings);
            let mut world = Self {
                scenario,
                random: Random(seed),
                now_ms: 1_000,
                events: BinaryHeap::new(),
                sequence: 0,
                live: tracker.render(),
                tracker,
                weights,
                deaths: BTreeMap::new(),
                flows: BTreeMap::new(),
                entries: BTreeMap::new(),
                scan: None,
                outcome: Outcome::default(),
            };
            world.after(0, Event::Born);
            world.after(scenario.change_every_ms, Event::Change);
            world.after(scenario.death_every_ms, Event::Death);
            world.after(SCAN_EVERY_MS, Event::ScanBegins);
            world.after(50_000, Event::Restart);
            world
        }

        fn after(&mut self, delay_ms: u64, event: Event) {
            self.sequence += 1;
            self.events.push(Reverse((self.now_ms + delay_ms, self.sequence, event)));
        }

        fn now(&self) -> Duration {
            Duration::from_millis(self.now_ms)
        }

        fn run(mut self) -> Outcome {
            for _ in 0..EVENTS_MAX {
                let Some(Reverse((at_ms, _, event))) = self.events.pop() else { break };
                if at_ms > RUN_MS {
                    break;
                }
                self.now_ms = at_ms;
                self.on(event);
            }
            assert!(self.now_ms > RUN_MS * 9 / 10, "ran out of events");
            self.outcome.forced = self.tracker.forced_slots();
            self.outcome
        }

        fn on(&mut self, event: Event) {
            match event {
                Event::Born => self.born(),
                Event::Packet(flow) => self.packet(flow),
                Event::RepeatedSyn(id) => {
                    if let Some(mut flow) = self.flows.get(&id).copied() {
                        self.forward(id, flow.slot, true);
                        flow.repeats = false;
                        self.flows.insert(id, flow);
                    }
                }
                Event::Change => self.change(),
                Event::Death => self.death(),
                Event::Verdict(id, is_up) => self.verdict(id, is_up),
                Event::Return(id) => {
                    *self.deaths.entry(id).or_default() += 1;
                    let delay_ms = 500 + self.random.below(3_000);
                    self.after(delay_ms, Event::Verdict(id, true));
                }
                Event::Tick => {
                    let changes = self.tracker.tick(self.now(), None);
                    self.publish(&changes);
                }
                Event::ScanBegins => {
                    let scan = self.tracker.begin_scan();
                    self.scan = Some(self.noted(scan, 0));
                    self.after(SCAN_TAKES_MS, Event::ScanEnds);
                }
                Event::ScanEnds => self.scan_ends(),
                Event::Restart => self.restart(),
            }
        }

        /// The data plane's rule: which backend gets the packet.
        fn forward(&mut self, id: u32, slot: u32, syn: bool) -> u16 {
            let fault = self.scenario.fault;
            let word = self.live.slots[slot as usize];
            let owner = word & !CONTESTED;
            if word & CONTESTED == 0 {
                return owner;
            }
            self.outcome.contested_packets += 1;
            let idle_since_ms = self.now_ms.saturating_sub(IDLE_MS);
            let reowns = syn && fault == Fault::SynReowns;
            let entry = self.entries.get_mut(&id).filter(|e| e.touched_ms >= idle_since_ms);
            if let Some(entry) = entry.filter(|_| !reowns) {
                entry.touched_ms = self.now_ms;
                entry.confirmed |= !syn;
                return entry.owner;
            }
            let [mut base, last, ..] = self.live.history[slot as usize];
            if fault == Fault::NewestBase && base != 0 && last != 0 {
                base = last;
            }
            let owner = if !syn && base != 0 { base } else { owner };
            if owner == 0 {
                return 0;
            }
            let forgets = if syn { Fault::SynNotEntered } else { Fault::MissNotEntered };
            if fault != forgets {
                let entry = Entry { slot, owner, confirmed: false, touched_ms: self.now_ms };
                self.entries.insert(id, entry);
            }
            owner
        }

        fn lives(&self, id: u16) -> u32 {
            self.deaths.get(&id).copied().unwrap_or(0)
        }

        fn born(&mut self) {
            let delay_ms = self.random.below(200);
            self.after(delay_ms, Event::Born);
            self.outcome.flows += 1;
            let id = self.outcome.flows;
            let slot = u32::try_from(self.random.below(u64::from(SLOTS))).unwrap();
            let backend = self.forward(id, slot, true);
            let life = self.lives(backend);
            if backend == 0 || life % 2 == 1 {
                return;
            }
            let talkative = self.random.chance(50);
            let flow = Flow {
                slot,
                backend,
                life,
                ends_ms: self.now_ms + self.random.below(300_000),
                silence_ms: if talkative { 5_000 } else { SILENCE_MAX_MS },
                says_goodbye: self.random.chance(50),
                established: false,
                // Rare in nature; a control needs them often.
                repeats: self.random.chance(if self.scenario.fault == Fault::None {
                    20
                } else {
                    80
                }),
            };
            self.flows.insert(id, flow);
            if flow.repeats {
                let delay_ms = self.random.below(REPEAT_MAX_MS);
                self.after(delay_ms, Event::RepeatedSyn(id));
            }
            let delay_ms = 1 + self.random.below(200);
            self.after(delay_ms, Event::Packet(id));
        }

        fn packet(&mut self, id: u32) {
            let Some(mut flow) = self.flows.get(&id).copied() else { return };
            if self.lives(flow.backend) != flow.life {
                self.outcome.ended_with_backend += 1;
                self.flows.remove(&id);
                return;
            }
            self.outcome.packets += 1;
            flow.established = true;
            let backend = self.forward(id, flow.slot, false);
            if backend != flow.backend {
                self.outcome.broken += 1;
                self.flows.remove(&id);
            } else if self.now_ms >= flow.ends_ms {
                if flow.says_goodbye {
                    self.entries.remove(&id);
                }
                self.flows.remove(&id);
            } else {
                self.flows.insert(id, flow);
                // Half of the silences are as long as they may be.
                let whole = self.random.chance(50);
                let silence_ms =
                    if whole { flow.silence_ms } else { 1 + self.random.below(flow.silence_ms) };
                self.after(silence_ms, Event::Packet(id));
            }
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
                let changes = self.tracker.propose(&members(&self.weights), self.now());
                self.publish(&changes);
            }
            if self.scenario.force {
                self.tracker.force();
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
            let was_all_down = self.live.all_down;
            let now = self.now();
            let (changes, purge) = if is_up {
                (self.tracker.backend_up(id, now), None)
            } else {
                let down = self.tracker.backend_down(id, now);
                (down.changes, Some(down.purge))
            };
            let unprepared = !is_up || was_all_down;
            if unprepared {
                // A wrong verdict may cost a handshake in flight, and nothing else.
                self.flows.retain(|_, flow| flow.established && !flow.repeats);
            }
            self.publish(&changes);
            if let Some(purge) = purge {
                self.entries.retain(|_, e| !purge.takes(e.slot, e.owner, e.confirmed));
            }
            self.outcome.untracked += self.untracked();
        }

        fn publish(&mut self, changes: &[Change]) {
            use lb_userspace::tracking::ChangeKind;
            let count = |kind| u32::from(changes.iter().any(|change| change.kind == kind));
            self.outcome.activations += count(ChangeKind::Activated);
            self.outcome.releases += count(ChangeKind::Released);
            if !changes.is_empty() {
                let was_all_down = self.live.all_down;
                self.live = self.tracker.render();
                if was_all_down && !self.live.all_down {
                    let tracker = &self.tracker;
                    self.entries.retain(|_, entry| !tracker.is_released(entry.owner));
                    // Used while all were down, then dead again by a verdict not yet taken back.
                    self.flows.retain(|_, flow| !tracker.is_released(flow.backend));
                }
                self.outcome.all_down += u32::from(self.live.all_down);
                if self.scenario.fault == Fault::NoExceptions {
                    self.drop_exceptions();
                }
            }
            if let Some(deadline) = self.tracker.next_deadline() {
                let at_ms = u64::try_from(deadline.as_millis()).unwrap();
                self.after(at_ms.saturating_sub(self.now_ms), Event::Tick);
            }
        }

        fn drop_exceptions(&mut self) {
            for (slot, row) in self.live.slots.iter_mut().zip(&self.live.history) {
                if row[0] == 0 {
                    *slot &= !CONTESTED;
                }
            }
        }

        fn untracked(&self) -> u32 {
            let since_ms = self.now_ms.saturating_sub(IDLE_MS);
            let lost = |entry: &&Entry| {
                let word = self.live.slots[entry.slot as usize];
                word & CONTESTED == 0 && word != entry.owner && entry.touched_ms >= since_ms
            };
            u32::try_from(self.entries.values().filter(lost).count()).unwrap()
        }

        /// Notes one half of the flow table.
        fn noted(&self, mut scan: Scan, half: u32) -> Scan {
            let since_ms = self.now_ms.saturating_sub(IDLE_MS);
            let live = self.entries.iter().filter(|(_, entry)| entry.touched_ms >= since_ms);
            for (_, entry) in live.filter(|(id, _)| *id % 2 == half) {
                scan.note(entry.slot, entry.owner, true);
            }
            scan
        }

        fn scan_ends(&mut self) {
            self.after(SCAN_EVERY_MS, Event::ScanBegins);
            let since_ms = self.now_ms.saturating_sub(IDLE_MS);
            let Some(mut scan) = self.scan.take() else { return };
            if self.scenario.fault != Fault::HalfScan {
                scan = self.noted(scan, 1);
            }
            let changes = self.tracker.tick(self.now(), Some(&scan));
            self.publish(&changes);
            self.outcome.untracked += self.untracked();
            self.entries.retain(|_, entry| entry.touched_ms >= since_ms);
        }

        /// The daemon dies and begins again from its journal; table and entries stay.
        fn restart(&mut self) {
            self.after(50_000, Event::Restart);
            let json = serde_json::to_string(&self.tracker.state()).unwrap();
            let state: State = serde_json::from_str(&json).unwrap();
            self.tracker = PoolTracker::restore(&state).unwrap();
            assert_eq!(self.tracker.render().slots.len(), self.live.slots.len());
        }
    }

    /// Runs some seeds and adds up.
    fn run(scenario: Scenario, seeds: std::ops::Range<u64>) -> Vec<Outcome> {
        seeds.map(|seed| World::new(scenario, seed).run()).collect()
    }

    fn check(scenario: Scenario, seeds: std::ops::Range<u64>) -> Vec<Outcome> {
        let outcomes = run(scenario, seeds);
        for (seed, outcome) in outcomes.iter().enumerate() {
            println!("{seed}: {outcome:?}");
        }
        for (seed, outcome) in outcomes.iter().enumerate() {
            assert_eq!(outcome.broken, 0, "{scenario:?}, seed {seed}: {outcome:?}");
            assert_eq!(outcome.untracked, 0, "{scenario:?}, seed {seed}: {outcome:?}");
            assert!(outcome.flows > 5_000 && outcome.packets > 10_000, "{outcome:?}");
        }
        outcomes
    }

    #[test]
    fn no_flow_moves_while_its_backend_lives() {
        let outcomes = check(CALM, 0..4);
        assert!(outcomes.iter().all(|o| o.activations > 10 && o.releases > 3));
        assert!(outcomes.iter().all(|o| o.ended_with_backend > 0));
        // Just enough: most packets find a stateless slot.
        assert!(outcomes.iter().all(|o| o.contested_packets < o.packets));
    }

    #[test]
    fn no_flow_moves_when_the_dead_are_released() {
        check(Scenario { on_down: OnDown::Release, ..CALM }, 0..4);
    }

    #[test]
    fn no_flow_moves_in_a_pool_that_is_always_tracked() {
        check(Scenario { tracking: Tracking::Always, ..CALM }, 0..2);
    }

    #[test]
    fn no_flow_moves_in_a_storm_of_changes() {
        let storm = Scenario { change_every_ms: 4_000, death_every_ms: 9_000, ..CALM };
        check(storm, 0..1);
        let outcomes = check(Scenario { force: true, ..storm }, 1..2);
        assert!(outcomes.iter().all(|o| o.forced > 0));
    }

    #[test]
    fn no_flow_moves_when_all_are_down_at_times() {
        let few = Scenario { backends: 3, death_every_ms: 20_000, ..CALM };
        for on_down in [OnDown::Keep, OnDown::Release] {
            let outcomes = check(Scenario { on_down, ..few }, 0..3);
            assert!(outcomes.iter().map(|o| o.all_down).sum::<u32>() > 0);
        }
    }

    #[test]
    fn every_fault_breaks_flows() {
        for fault in [
            Fault::NoPrepare,
            Fault::ShortWindow,
            Fault::NewestBase,
            Fault::NoExceptions,
            Fault::HalfScan,
            Fault::SynNotEntered,
            Fault::SynReowns,
            Fault::MissNotEntered,
        ] {
            let change_every_ms = if fault == Fault::NoPrepare { 4_000 } else { 12_000 };
            let scenario = Scenario { fault, change_every_ms, ..CALM };
            let broken: u32 = run(scenario, 0..2).iter().map(|outcome| outcome.broken).sum();
            println!("{fault:?}: {broken} broken");
            assert!(broken > 0, "{fault:?} breaks nothing, so the simulation sees nothing");
        }
    }
}

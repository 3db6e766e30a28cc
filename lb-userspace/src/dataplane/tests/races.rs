//! The flow table under races: several CPUs, a flood and the ager over the same memory.

use std::cell::Cell;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use lb_common::backend::{Backend, BackendId};
use lb_common::control::Control;
use lb_common::decide::{Path, Question};
use lb_common::flow::{Bucket, Entry};
use lb_common::parse::Segment;
use lb_common::table::{HistoryRow, SlotRow};
use lb_common::tables::Tables;

use super::super::flows::{self, HostBucket};
use super::super::memory::Memory;
use super::{Dataplane, Random, SettingsSpec, ask, control, settings, with_flows};

/// The flow table as the programs of all CPUs share it.
struct Shared<'a> {
    memory: &'a Memory,
    jiffies: &'a AtomicU64,
}

// SAFETY: the flow table's words are atomics, and nothing else is written while threads run.
unsafe impl Sync for Shared<'_> {}

/// A bucket whose CPU sometimes hesitates between choosing a place and taking it, so that others
/// come in between far more often than on real CPUs.
struct Hesitant<'a>(HostBucket<'a>);

thread_local! {
    static CHANCE: Cell<u64> = const { Cell::new(0) };
}

impl Bucket for Hesitant<'_> {
    fn load(&self, way: usize) -> Entry {
        self.0.load(way)
    }

    fn exchange(&self, way: usize, old: Entry, new: Entry) -> bool {
        CHANCE.set(CHANCE.get() + old.0 % 7 + 1);
        if CHANCE.get().is_multiple_of(8) {
            std::thread::yield_now();
        }
        self.0.exchange(way, old, new)
    }
}

impl Tables for Shared<'_> {
    type Bucket<'b>
        = Hesitant<'b>
    where
        Self: 'b;

    fn control(&self) -> Option<&Control> {
        self.memory.control.get(0)
    }

    fn slots(&self, _row: u32) -> Option<&SlotRow> {
        None
    }

    fn history(&self, _row: u32) -> Option<&HistoryRow> {
        None
    }

    fn backend(&self, _id: BackendId) -> Option<&Backend> {
        None
    }

    fn bucket(&self, index: u32) -> Option<Hesitant<'_>> {
        self.memory.flows.get(index as usize).map(|bucket| Hesitant(HostBucket(bucket)))
    }

    fn jiffies(&self) -> u64 {
        self.jiffies.load(Ordering::Relaxed)
    }

    fn may_look_again(&self, _tick: u16) -> bool {
        true
    }

    fn ingress(&self) -> u32 {
        0
    }
}

impl Shared<'_> {
    fn go(&self, ask: Question) -> (u16, Path) {
        let (owner, path) = self.tracked(ask);
        (owner.0, path)
    }

    fn tick(&self) -> u16 {
        let shift = self.control().unwrap().settings.tick_shift;
        lb_common::flow::tick(self.jiffies(), shift)
    }
}

/// Flows of one CPU; no other handles them, as a NIC's queues see to.
const FLOWS: usize = 100;
/// CPUs that handle flows.
const CPUS: usize = 3;
/// Packets of one CPU.
const PACKETS: usize = 400_000;
/// One packet in so many is a flow's last one.
const LIFE: u64 = 60;
/// Answers from an entry after which a flow is confirmed: the first may lose its store to the
/// bucket's mark.
const SURE: u32 = 3;
/// Strangers that come with each tick.
const FLOOD: usize = 60;

/// A flow, and what its packets were answered.
struct Flow {
    hash: u64,
    owner: u16,
    answers: u32,
}

/// Sends packets of its flows, some of which end and make way for others; a confirmed one never
/// loses its owner. How many were confirmed, and how many of them are live at the end.
fn cpu(shared: &Shared<'_>, seed: u64) -> (usize, usize) {
    let mut random = Random(seed);
    let mut flows: Vec<_> =
        (0..FLOWS).map(|_| Flow { hash: random.next(), owner: 0, answers: 0 }).collect();
    let mut confirmed = 0;
    for _ in 0..PACKETS {
        let at = usize::try_from(random.below(FLOWS as u64)).unwrap();
        let flow = &mut flows[at];
        let now = u16::try_from(1 + random.below(1_000)).unwrap();
        let last = flow.answers > SURE && random.below(LIFE) == 0;
        let segment = match flow.answers {
            0 => Segment::Open,
            _ if last => Segment::End,
            _ => Segment::Later,
        };
        let (owner, path) = shared.go(ask(flow.hash, segment, now, 2_000));
        let sure = flow.answers > SURE;
        if path == Path::Entry && owner == flow.owner {
            flow.answers += 1;
            confirmed += usize::from(flow.answers == SURE + 1);
        } else {
            assert!(!sure, "{:x} of {} went to {owner}: {path:?}", flow.hash, flow.owner);
            *flow = Flow { hash: flow.hash, owner, answers: u32::from(path != Path::Base) };
        }
        if last {
            *flow = Flow { hash: random.next(), owner: 0, answers: 0 };
        }
    }
    (confirmed, flows.iter().filter(|flow| flow.answers > SURE).count())
}

/// Time passes, strangers come, and lbd forgets what is past.
fn ager(shared: &Shared<'_>, stop: &AtomicBool) -> (u64, usize) {
    let (mut passes, mut emptied) = (0, 0);
    let mut random = Random(99);
    while !stop.load(Ordering::Relaxed) {
        passes += 1;
        // Far fewer ticks than an established flow may be idle for.
        if passes % 64 == 0 {
            shared.jiffies.fetch_add(u64::from(super::HERTZ), Ordering::Relaxed);
            for _ in 0..FLOOD {
                shared.go(ask(random.next(), Segment::Open, 3_000, 0));
            }
        }
        emptied += flows::age(&shared.memory.flows, shared.tick());
    }
    (passes, emptied)
}

/// In memory, with timeouts of a tick for what is not established.
fn hurried(flows: u32) -> Dataplane {
    let mut dataplane = with_flows(flows);
    let second = Duration::from_secs(1);
    let established = Duration::from_secs(8_000);
    let settings = SettingsSpec { half_open: second, closing: second, established, ..settings() };
    dataplane.set_settings(&settings);
    dataplane
}

#[test]
fn no_confirmed_flow_loses_its_owner() {
    // Half as large as it should be: buckets fill up, and flows go to their other ones.
    let dataplane = hurried(150);
    let jiffies = AtomicU64::new(0);
    let shared = Shared { memory: &dataplane.memory, jiffies: &jiffies };
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let cpus: Vec<_> = (0..CPUS as u64)
            .map(|seed| {
                let shared = &shared;
                scope.spawn(move || cpu(shared, seed << 50))
            })
            .collect();
        let ager = scope.spawn(|| ager(&shared, &stop));
        let ended: Vec<_> = cpus.into_iter().map(|cpu| cpu.join()).collect();
        stop.store(true, Ordering::Relaxed);
        let (passes, emptied) = ager.join().unwrap();
        let ended: Vec<_> = ended.into_iter().map(Result::unwrap).collect();
        let confirmed: usize = ended.iter().map(|cpu| cpu.0).sum();
        println!("{confirmed} flows confirmed; {passes} passes of the ager emptied {emptied}");
        let live: usize = ended.iter().map(|cpu| cpu.1).sum();
        // How many are live at this moment depends on how the CPUs took turns.
        assert!(confirmed > 1_000 && live > 0, "{confirmed} {live}");
    });
}

/// Flows of one CPU in one round.
const FEW: usize = 3;
/// Rounds in which all CPUs enter flows into four buckets at the same time.
const ROUNDS: usize = 20_000;

#[test]
fn no_insertion_is_lost_when_all_happen_at_once() {
    let dataplane = with_flows(8);
    assert_eq!(control(&dataplane).settings.bucket_mask, 3);
    let jiffies = AtomicU64::new(0);
    let shared = Shared { memory: &dataplane.memory, jiffies: &jiffies };
    let barrier = Barrier::new(2);
    let cpu = |owner: u16| {
        let mut random = Random(u64::from(owner) << 50);
        let mut lost = 0;
        for _ in 0..ROUNDS {
            let hashes = [(); FEW].map(|()| random.next());
            barrier.wait();
            for hash in hashes {
                shared.go(ask(hash, Segment::Open, owner, 0));
            }
            barrier.wait();
            let found =
                |hash: &&u64| shared.go(ask(**hash, Segment::Quoted, 9, 0)) == (owner, Path::Entry);
            lost += FEW - hashes.iter().filter(found).count();
            barrier.wait();
            flows::remove(&shared.memory.flows, 0, |flow| flow.owner.0 == owner);
        }
        lost
    };
    std::thread::scope(|scope| {
        let cpu = &cpu;
        let cpus = [1, 2].map(|owner| scope.spawn(move || cpu(owner)));
        assert_eq!(cpus.map(|cpu| cpu.join().unwrap()), [0, 0]);
    });
}

#[test]
fn no_insertion_is_lost_while_there_is_room() {
    let dataplane = with_flows(4_000);
    let jiffies = AtomicU64::new(0);
    let shared = Shared { memory: &dataplane.memory, jiffies: &jiffies };
    let stop = AtomicBool::new(false);
    let hashes = |seed: u64| {
        let mut random = Random(seed << 40);
        (0..1_000).map(move |_| random.next())
    };
    std::thread::scope(|scope| {
        let ager = scope.spawn(|| ager(&shared, &stop));
        let cpus: Vec<_> = (1..=4)
            .map(|seed| {
                let shared = &shared;
                scope.spawn(move || {
                    for hash in hashes(seed) {
                        let owner = u16::try_from(seed).unwrap();
                        assert_eq!(shared.go(ask(hash, Segment::Later, 9, owner)).1, Path::Base);
                        assert_eq!(
                            shared.go(ask(hash, Segment::Later, 8, 7)),
                            (owner, Path::Entry)
                        );
                    }
                })
            })
            .collect();
        let ended: Vec<_> = cpus.into_iter().map(|cpu| cpu.join()).collect();
        stop.store(true, Ordering::Relaxed);
        ager.join().unwrap();
        ended.into_iter().for_each(|end| end.unwrap());
    });
    for seed in 1..=4 {
        for hash in hashes(seed) {
            let owner = u16::try_from(seed).unwrap();
            assert_eq!(shared.go(ask(hash, Segment::Quoted, 8, 7)), (owner, Path::Entry));
        }
    }
}

#[test]
fn two_cpus_with_the_same_new_flow_agree() {
    let dataplane = with_flows(4_000);
    let jiffies = AtomicU64::new(0);
    let shared = Shared { memory: &dataplane.memory, jiffies: &jiffies };
    let barrier = Barrier::new(2);
    let rounds = 3_000;
    // The table changes in between: each CPU would choose another backend.
    let cpu = |now: u16| {
        let mut random = Random(5);
        let mut owners = Vec::new();
        for _ in 0..rounds {
            let hash = random.next();
            barrier.wait();
            shared.go(ask(hash, Segment::Open, now, 0));
            barrier.wait();
            let (first, path) = shared.go(ask(hash, Segment::Later, now, 0));
            assert_eq!(path, Path::Entry);
            owners.push(first);
            assert_eq!(shared.go(ask(hash, Segment::Later, now, 0)), (first, Path::Entry));
        }
        owners
    };
    std::thread::scope(|scope| {
        let (one, two) = (scope.spawn(|| cpu(1)), scope.spawn(|| cpu(2)));
        let (one, two) = (one.join().unwrap(), two.join().unwrap());
        let differ: Vec<_> =
            one.iter().zip(&two).enumerate().filter(|(_, (a, b))| a != b).collect();
        assert!(differ.is_empty(), "{differ:?}");
    });
    assert_eq!(control(&dataplane).settings.bucket_mask.count_ones(), 11);
}

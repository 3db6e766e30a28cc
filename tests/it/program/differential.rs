//! The kernel's program and the host's decision, side by side: the same random frames and the same
//! changes of the tables, then the same frames out, outcomes, and flow entries.

use std::collections::BTreeMap;

use lb_common::backend::BackendId;
use lb_common::verdict::{Action, Outcome};
use lb_tests::packet::{check, hex, pcap};
use lb_userspace::dataplane::{BackendSpec, Dataplane};

use super::cases::Wanted;
use super::counters::Counted;
use super::fixtures::{in_kernel, on_host};
use super::random::{Random, frame};
use super::world::{
    FROZEN, GENERATION, MIXED, backend, host, kernel, settings, stay_on_one_cpu, table, tick,
};

/// Frames in one run.
const FRAMES: usize = 10_000;
/// Frames between two changes; fewer than any budget of a tick.
const BETWEEN: usize = 500;
/// Runs begun anew because the kernel's tick passed; each takes seconds, a tick takes hours.
const ATTEMPTS: usize = 3;
/// Overridden by `LB_SEED`.
const SEED: u64 = 4711;

/// A tick passed in between: the two may differ.
struct TickPassed;

/// The two under comparison.
struct Pair {
    kernel: Dataplane,
    host: Dataplane,
}

impl Pair {
    /// Both at the kernel's time; `halvings` of the longest tick make now another tick.
    fn set_time(&mut self, halvings: u32) -> u32 {
        let hertz = FROZEN << 2 >> halvings;
        self.kernel.set_settings(&settings(hertz));
        self.host.set_settings(&settings(hertz));
        let now = tick(&mut self.kernel);
        self.host.set_jiffies(u64::from(now) << hertz.ilog2());
        now
    }

    /// Something that an operator, a neighbour or lbd changes.
    fn change(&mut self, random: &mut Random) {
        match random.below(5) {
            0 => {
                let by = random.below(16);
                let (mut slots, mut history) = table(MIXED).unwrap();
                slots.rotate_left(by);
                history.rotate_left(random.below(16));
                for dataplane in [&mut self.kernel, &mut self.host] {
                    dataplane.publish_table(MIXED, &slots, &history, GENERATION).unwrap();
                }
            }
            1 => assert_eq!(self.kernel.age(), self.host.age()),
            2 => {
                let owner = BackendId(20 + u16::try_from(random.below(16)).unwrap());
                assert_eq!(self.kernel.remove_owner(owner), self.host.remove_owner(owner));
            }
            3 => {
                let id = 20 + u16::try_from(random.below(16)).unwrap();
                let spec = backend(20 + u16::try_from(random.below(16)).unwrap());
                self.set_backend(id, spec);
            }
            _ => {
                let id = 20 + u16::try_from(random.below(16)).unwrap();
                self.set_backend(id, BackendSpec { link: None, ..backend(id) });
            }
        }
    }

    fn set_backend(&mut self, id: u16, spec: BackendSpec) {
        let backends = BTreeMap::from([(BackendId(id), spec)]);
        for dataplane in [&mut self.kernel, &mut self.host] {
            dataplane.set_backends(&backends).unwrap();
        }
    }

    /// What waits on the CPU of each.
    fn enter_records(&self) {
        for dataplane in [&self.kernel, &self.host] {
            dataplane.enter_records();
        }
    }

    fn same_flows(&self) -> usize {
        self.enter_records();
        let [kernel, host] = [&self.kernel, &self.host].map(|d| d.flows().collect::<Vec<_>>());
        assert_eq!(kernel, host);
        host.len()
    }
}

/// Says all about a frame at which the two differ.
fn complain(seed: u64, number: usize, frame: &[u8], kernel: &Wanted, host: &Wanted) -> String {
    let bytes = |wanted: &Wanted| match wanted {
        Wanted::Tx(bytes) | Wanted::Redirect(bytes) => bytes.clone(),
        Wanted::Pass | Wanted::Drop => Vec::new(),
    };
    let file = pcap::write(
        &format!("differential-{seed}-{number}"),
        &[frame, &bytes(kernel), &bytes(host)],
    );
    format!(
        "LB_SEED={seed}, frame {number} ({file:?} has in, kernel, host):\n  {}\n\
         kernel {kernel:?}\n  {}\nhost {host:?}\n  {}",
        hex(frame),
        hex(&bytes(kernel)),
        hex(&bytes(host)),
    )
}

fn run(seed: u64, kernel: Dataplane) -> Result<(), TickPassed> {
    let mut pair = Pair { kernel, host: host() };
    let mut random = Random::new(seed);
    let mut wanted = Counted::default();
    let (mut most_flows, mut sound) = (0, 0);
    let mut halvings = 0;
    for number in 0..FRAMES {
        if number.is_multiple_of(BETWEEN) {
            pair.enter_records();
            for _ in 0..3 {
                pair.change(&mut random);
            }
            halvings = (halvings + 1 + u32::try_from(random.below(3)).unwrap()) % 5;
            pair.set_time(halvings);
        }
        let frame = frame(&mut random);
        let in_kernel = in_kernel(&pair.kernel, &frame);
        let (verdict, on_host) = on_host(&pair.host, &frame);
        if in_kernel != on_host {
            let now = pair.host.flows().count();
            assert_eq!(now, pair.kernel.flows().count(), "seed {seed}, frame {number}");
            panic!("{}", complain(seed, number, &frame, &in_kernel, &on_host));
        }
        let sent =
            matches!(verdict.outcome.action(), Action::Redirect) || verdict.outcome == Outcome::Tx;
        let owner = if sent { verdict.backend.0 } else { 0 };
        wanted = wanted.plus(verdict.vip, verdict.outcome, owner, frame.len());
        // What came whole leaves whole.
        if let (Ok(_), Wanted::Tx(out) | Wanted::Redirect(out)) = (check::frame(&frame), &on_host) {
            let fault = check::frame(out).err();
            assert_eq!(fault, None, "{}", complain(seed, number, &frame, &in_kernel, &on_host));
            sound += 1;
        }
        if number % BETWEEN == BETWEEN - 1 {
            let before = tick(&mut pair.kernel);
            if pair.set_time(halvings) != before {
                return Err(TickPassed);
            }
            most_flows = most_flows.max(pair.same_flows());
        }
    }
    let counted = Counted::read(&pair.kernel);
    assert_eq!(counted, wanted, "{}", counted.since(&wanted));
    let outcomes = counted.outcomes();
    println!("seed {seed}: {sound} sent on whole, up to {most_flows} flows at once, {outcomes:?}");
    assert_eq!(outcomes.len(), Outcome::ALL.len() - 1, "all but no_headroom: {outcomes:?}");
    // Random frames that never meet the interesting parts compare nothing.
    assert!(sound > FRAMES / 8 && most_flows > 100, "{sound} {most_flows}");
    Ok(())
}

#[test]
fn kernel_and_host_do_the_same() {
    stay_on_one_cpu();
    let seed = std::env::var("LB_SEED").map_or(SEED, |seed| seed.parse().unwrap());
    for _ in 0..ATTEMPTS {
        let Some(kernel) = kernel() else { return };
        if run(seed, kernel).is_ok() {
            return;
        }
    }
    panic!("a tick of hours passed in each of {ATTEMPTS} runs");
}

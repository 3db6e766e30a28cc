//! Two machines against each other over a simulated path, and one against made-up packets.

use proptest::prelude::*;

use super::*;

const MS: Duration = Duration::from_millis(1);
const SETTINGS: Bfd = Bfd { interval: Duration::from_millis(50), multiplier: 3 };

/// Two machines and the packets between them.
struct Path {
    now: Duration,
    ends: [Machine; 2],
    flying: Vec<(Duration, usize, Packet)>,
    delay: Duration,
    sent: [Vec<Duration>; 2],
}

impl Path {
    fn new(settings: [Bfd; 2], seed: u64) -> Self {
        let now = Duration::from_secs(100);
        let [a, b] = settings;
        let ends = [Machine::new(a, 11, seed, now), Machine::new(b, 22, seed ^ 1, now)];
        Self { now, ends, flying: Vec::new(), delay: 5 * MS, sent: [Vec::new(), Vec::new()] }
    }

    /// Runs for `time`; `lost(sender)` says for each packet whether it is lost.
    fn run(&mut self, time: Duration, mut lost: impl FnMut(usize) -> bool) {
        let end = self.now + time;
        while self.now < end {
            let arrived = self.flying.extract_if(.., |(at, ..)| *at <= self.now);
            let mut out: Vec<(usize, Packet)> = Vec::new();
            for (_, to, packet) in arrived {
                let packet = Packet::decode(&packet.encode()).unwrap();
                out.extend(self.ends[to].receive(&packet, self.now).map(|answer| (to, answer)));
            }
            for from in 0..2 {
                if let Some(packet) = self.ends[from].tick(self.now) {
                    self.sent[from].push(self.now);
                    out.push((from, packet));
                }
            }
            for (from, packet) in out {
                if !lost(from) {
                    self.flying.push((self.now + self.delay, 1 - from, packet));
                }
            }
            self.now += MS;
        }
    }

    fn states(&self) -> [State; 2] {
        [self.ends[0].state(), self.ends[1].state()]
    }

    fn up(settings: [Bfd; 2]) -> Self {
        let mut path = Self::new(settings, 7);
        path.run(5_000 * MS, |_| false);
        assert_eq!(path.states(), [State::Up, State::Up]);
        path
    }
}

#[test]
fn it_comes_up_within_two_slow_intervals_and_then_runs_fast() {
    let mut path = Path::new([SETTINGS; 2], 3);
    path.run(2_100 * MS, |_| false);
    assert_eq!(path.states(), [State::Up, State::Up]);
    path.sent[0].clear();
    path.run(10_000 * MS, |_| false);
    assert_eq!(path.states(), [State::Up, State::Up]);
    // 37.5 to 50 ms apart: 200 to 267 packets, and the millisecond of the simulation.
    let gaps: Vec<Duration> = path.sent[0].windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert!(gaps.iter().all(|gap| (37 * MS..=51 * MS).contains(gap)), "{gaps:?}");
    assert_eq!(path.ends[0].report().detection_time_us, 150_000);
    assert_eq!(path.ends[0].losses(), 0);
}

#[test]
fn silence_is_noticed_in_the_detection_time() {
    let mut path = Path::up([SETTINGS; 2]);
    // The last packet came up to 50 ms before.
    path.run(98 * MS, |from| from == 1);
    assert_eq!(path.ends[0].state(), State::Up, "150 ms after the last packet, not earlier");
    path.run(60 * MS, |from| from == 1);
    assert_eq!(path.ends[0].state(), State::Down);
    let report = path.ends[0].report();
    assert_eq!((report.losses, report.diagnostic.as_str()), (1, "Control Detection Time Expired"));
    // The other one still hears us, and is told.
    path.run(10 * MS, |from| from == 1);
    let other = path.ends[1].report();
    assert_eq!((other.state.as_str(), other.losses), ("Down", 1));
    assert_eq!(other.diagnostic, "Neighbor Signaled Session Down");
    path.run(4_000 * MS, |_| false);
    assert_eq!(path.states(), [State::Up, State::Up]);
}

#[test]
fn down_it_sends_once_a_second() {
    let mut path = Path::new([SETTINGS; 2], 5);
    path.run(20_000 * MS, |_| true);
    let sent = path.sent[0].len();
    assert!((20..=28).contains(&sent), "{sent}");
}

#[test]
fn two_lost_packets_are_not_a_loss() {
    let mut path = Path::up([SETTINGS; 2]);
    let mut number = 0;
    path.run(10_000 * MS, |from| {
        number += usize::from(from == 0);
        from == 0 && number % 3 != 0
    });
    assert_eq!((path.states(), path.ends[1].losses()), ([State::Up, State::Up], 0));
}

#[test]
fn the_slower_one_sets_the_pace() {
    let slow = Bfd { interval: 300 * MS, multiplier: 5 };
    let mut path = Path::up([SETTINGS, slow]);
    path.sent[0].clear();
    path.run(6_000 * MS, |_| false);
    assert!((19..=28).contains(&path.sent[0].len()), "{}", path.sent[0].len());
    assert_eq!(path.ends[0].report().detection_time_us, 1_500_000);
    assert_eq!(path.ends[1].report().detection_time_us, 900_000);
}

#[test]
fn other_settings_do_not_lose_the_session() {
    let mut path = Path::up([SETTINGS; 2]);
    for (interval, multiplier) in [(400, 3), (20, 4), (1_500, 2), (50, 3)] {
        path.ends[0].configure(Bfd { interval: interval * MS, multiplier });
        path.run(8_000 * MS, |_| false);
        let losses = path.ends.each_ref().map(Machine::losses);
        assert_eq!((path.states(), losses), ([State::Up, State::Up], [0, 0]), "{interval}");
        let want = u64::from(multiplier) * 1_000 * u64::from(interval.max(50));
        assert_eq!(path.ends[1].report().detection_time_us, want);
    }
}

#[test]
fn slower_settings_wait_for_the_other_ones_word() {
    let mut path = Path::up([SETTINGS; 2]);
    path.ends[0].configure(Bfd { interval: 1_000 * MS, multiplier: 3 });
    path.sent[0].clear();
    // No answer arrives: the old pace must go on, the other one still counts on it.
    path.run(140 * MS, |from| from == 1);
    assert!(path.sent[0].len() >= 3, "{:?}", path.sent[0]);
}

#[test]
fn the_operators_end_is_not_a_loss() {
    let mut path = Path::up([SETTINGS; 2]);
    let now = path.now;
    let goodbye = path.ends[0].shut_down(now);
    assert_eq!((goodbye.state, goodbye.diagnostic), (State::AdminDown, Diagnostic::ADMIN_DOWN));
    assert_eq!(path.ends[1].receive(&goodbye, now), None);
    assert_eq!((path.ends[1].state(), path.ends[1].losses()), (State::Down, 0));
    // Nor does it come up again.
    let hello = Packet { state: State::Down, poll: true, ..goodbye };
    assert_eq!(path.ends[0].receive(&hello, now), None);
    assert_eq!(path.ends[0].state(), State::AdminDown);
}

#[test]
fn a_poll_is_answered_at_once() {
    let mut path = Path::up([SETTINGS; 2]);
    let poll = Packet { mine: 22, yours: 11, poll: true, ..path.ends[1].packet() };
    let answer = path.ends[0].receive(&poll, path.now).unwrap();
    assert!(answer.last && !answer.poll && answer.yours == 22);
    // One for somebody else is not.
    assert_eq!(path.ends[0].receive(&Packet { yours: 12, ..poll }, path.now), None);
}

#[test]
fn who_wants_nothing_gets_nothing() {
    let mut path = Path::up([SETTINGS; 2]);
    let now = path.now;
    let quiet = Packet { required_rx: Duration::ZERO, yours: 11, ..path.ends[1].packet() };
    path.ends[0].receive(&quiet, now);
    assert_eq!(path.ends[0].tick(now + 149 * MS), None);
    // In demand mode neither, while both are up.
    let demand = Packet { demand: true, yours: 11, ..path.ends[1].packet() };
    path.ends[0].receive(&demand, now);
    assert_eq!(path.ends[0].tick(now + 149 * MS), None);
    // But it still falls when the other one is silent.
    let fallen = path.ends[0].tick(now + 200 * MS).unwrap();
    assert_eq!(fallen.state, State::Down);
}

prop_compose! {
    fn packets()(
        state in 0..4_u8, poll: bool, last: bool, demand: bool, multiplier in 1..=255_u8,
        mine in 1..4_u32, ours: bool, tx: u32, rx: u32, pause in 0..2_000_u64,
    ) -> (Packet, u64) {
        let state = [State::AdminDown, State::Down, State::Init, State::Up][usize::from(state)];
        let packet = Packet {
            state, diagnostic: Diagnostic::NONE, poll, last: last && !poll, demand, multiplier,
            mine, yours: if ours { 11 } else { 0 },
            desired_tx: Duration::from_micros(tx.into()),
            required_rx: Duration::from_micros(rx.into()),
        };
        (packet, pause)
    }
}

proptest! {
    /// Whatever a neighbour sends: no more than our own pace and one answer per poll, timers that
    /// do not stand still, and a packet that can be read.
    #[test]
    fn strange_neighbours_are_survived(packets in prop::collection::vec(packets(), 1..200)) {
        let mut now = Duration::from_secs(50);
        let mut machine = Machine::new(SETTINGS, 11, 1, now);
        for (packet, pause) in packets {
            now += Duration::from_millis(pause);
            let answer = machine.receive(&packet, now);
            prop_assert_eq!(answer.is_some(), packet.poll);
            for sent in machine.tick(now).into_iter().chain(answer) {
                prop_assert_eq!(Packet::decode(&sent.encode()), Ok(sent));
            }
            prop_assert_eq!(machine.tick(now), None);
            prop_assert!(machine.deadline().is_none_or(|deadline| deadline > now));
        }
    }

    /// With any pattern of at most 60 % loss the two are up again soon after the loss ends.
    #[test]
    fn loss_ends_and_it_comes_back(seed: u64, keep in 4..9_u64) {
        let mut path = Path::new([SETTINGS; 2], seed);
        let mut random = seed | 1;
        path.run(10_000 * MS, |_| {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            random % 10 >= keep
        });
        path.run(4_000 * MS, |_| false);
        prop_assert_eq!(path.states(), [State::Up, State::Up]);
    }
}

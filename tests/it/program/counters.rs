//! What is counted, sampled and limited.

use std::collections::BTreeMap;

use aya::programs::{TestRun as _, TestRunOptions, Xdp};
use lb_common::verdict::{Action, FlowEvent, Outcome};
use lb_tests::packet::{ACK, Ip, SYN, TCP, UDP};
use lb_userspace::dataplane::Dataplane;
use lb_userspace::dataplane::object::PROGRAM;

use super::cases::Wanted;
use super::fixtures::in_kernel;
use super::world::{
    ALWAYS, CLIENT_V4, CLIENT_V6, EMPTY, FROZEN, GUE6, HISTORY4, IPIP4, NARROW, kernel, number,
    settings, stay_on_one_cpu, tick, vip_v4, vip_v6,
};

/// All counters that are not zero: by VIP and outcome, and by backend; packets and bytes.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Counted {
    vips: BTreeMap<(u16, &'static str), (u64, u64)>,
    backends: BTreeMap<u16, (u64, u64)>,
}

impl Counted {
    pub(super) fn read(dataplane: &Dataplane) -> Self {
        let mut counted = Self::default();
        for (vip, counters) in (0..).zip(dataplane.vip_counters().unwrap()) {
            for (place, counter) in counters.outcomes.iter().enumerate() {
                if counter.packets != 0 || counter.bytes != 0 {
                    let name = Outcome::ALL.get(place).map_or("none", |outcome| outcome.name());
                    counted.vips.insert((vip, name), (counter.packets, counter.bytes));
                }
            }
        }
        for (id, counter) in (0..).zip(dataplane.backend_counters().unwrap()) {
            if counter.packets != 0 || counter.bytes != 0 {
                counted.backends.insert(id, (counter.packets, counter.bytes));
            }
        }
        counted
    }

    /// With one more packet.
    pub(super) fn plus(&self, vip: u16, outcome: Outcome, backend: u16, bytes: usize) -> Self {
        let mut counted = self.clone();
        let add = |counter: &mut (u64, u64)| {
            counter.0 += 1;
            counter.1 += bytes as u64;
        };
        add(counted.vips.entry((vip, outcome.name())).or_default());
        if backend != 0 {
            add(counted.backends.entry(backend).or_default());
        }
        counted
    }

    /// What was counted since, in words.
    pub(super) fn since(&self, before: &Self) -> String {
        let vips = self.vips.iter().filter(|(key, value)| before.vips.get(key) != Some(value));
        let backends =
            self.backends.iter().filter(|(key, value)| before.backends.get(key) != Some(value));
        format!("{:?} {:?}", vips.collect::<Vec<_>>(), backends.collect::<Vec<_>>())
    }

    /// Packets by outcome.
    pub(super) fn outcomes(&self) -> BTreeMap<&'static str, u64> {
        let mut outcomes = BTreeMap::new();
        for ((_, name), (packets, _)) in &self.vips {
            *outcomes.entry(*name).or_default() += packets;
        }
        outcomes
    }

    /// Packets and bytes of all outcomes that end so.
    fn sum(&self, of: impl Fn(Action) -> bool) -> (u64, u64) {
        let action = |name: &str| {
            Outcome::ALL.iter().find(|outcome| outcome.name() == name).unwrap().action()
        };
        let counted = self.vips.iter().filter(|(key, _)| of(action(key.1)));
        counted.fold((0, 0), |sum, (_, value)| (sum.0 + value.0, sum.1 + value.1))
    }
}

#[test]
fn packets_in_are_the_sum_of_the_outcomes() {
    let Some(kernel) = kernel() else { return };
    let mut random = super::random::Random::new(1);
    let (mut packets, mut bytes) = (0, 0);
    let mut actions: BTreeMap<&str, u64> = BTreeMap::new();
    for _ in 0..3_000 {
        let frame = super::random::frame(&mut random);
        packets += 1;
        bytes += frame.len() as u64;
        let name = match in_kernel(&kernel, &frame) {
            Wanted::Pass => "pass",
            Wanted::Drop => "drop",
            Wanted::Tx(_) => "tx",
            Wanted::Redirect(_) => "redirect",
        };
        *actions.entry(name).or_default() += 1;
    }
    let counted = Counted::read(&kernel);
    assert_eq!(counted.sum(|_| true), (packets, bytes));
    assert_eq!(Some(&counted.sum(|action| action == Action::Pass).0), actions.get("pass"));
    assert_eq!(Some(&counted.sum(|action| action == Action::Redirect).0), actions.get("redirect"));
    // A drop that is answered leaves the program as a transmission.
    let (tx, drop) = (counted.sum(|a| a == Action::Tx).0, counted.sum(|a| a == Action::Drop).0);
    assert_eq!(tx + drop, actions["tx"] + actions["drop"]);
    let sent: u64 = counted.backends.values().map(|counter| counter.0).sum();
    let wrapped = |(_, name): &(u16, &str)| matches!(*name, "tx" | "redirect");
    let outcomes: u64 =
        counted.vips.iter().filter(|(key, _)| wrapped(key)).map(|(_, value)| value.0).sum();
    assert_eq!(sent, outcomes);
}

#[test]
fn what_the_flow_table_answers_is_counted() {
    let Some(kernel) = kernel() else { return };
    let read = |kernel: &Dataplane| {
        let counted = kernel.flow_counters().unwrap().events;
        FlowEvent::ALL.iter().map(|event| counted[*event as usize]).collect::<Vec<_>>()
    };
    let run = |vip, port, flags| {
        in_kernel(&kernel, &Ip::new(CLIENT_V4, vip).tcp(port, 80, flags, b"").frame());
    };
    let (contested, always, stateless) = (vip_v4(HISTORY4), ALWAYS, vip_v4(GUE6));
    run(stateless, 1, SYN);
    run(stateless, 1, ACK);
    assert_eq!(read(&kernel), [0; 6]);
    run(contested, 1, SYN);
    run(contested, 1, ACK);
    run(contested, 1, ACK);
    run(contested, 2, ACK);
    run(always, 3, ACK);
    // It is only recorded, until somebody enters it, once.
    assert_eq!(read(&kernel), [2, 1, 1, 0, 0, 0]);
    kernel.enter_records();
    kernel.enter_records();
    // Hits, new ones, older than the window, without a window; nothing lost its place.
    assert_eq!(read(&kernel), [2, 1, 1, 1, 0, 0]);
    for port in 1_000..9_000 {
        run(contested, port, SYN);
    }
    let [hits, new, base, miss, evicted, refused] = read(&kernel).try_into().unwrap();
    assert_eq!((hits, new, base, miss, refused), (2, 8_001, 1, 1, 0));
    // Those that are left had a place, and so had the three from before.
    assert_eq!(kernel.flows().count() as u64, 8_000 + 3 - evicted);
}

#[test]
fn a_driver_without_room_is_counted() {
    let Some(mut kernel) = kernel() else { return };
    let frame = Ip::new(CLIENT_V4, vip_v4(GUE6)).tcp(40_001, 80, ACK, b"").frame();
    // Metadata in front of the frame takes of the headroom: 256 bytes less the kernel's own 40.
    let room = |metadata: u32| {
        let mut data = vec![0; metadata as usize];
        data.extend(&frame);
        let end = u32::try_from(data.len()).unwrap();
        (data, [metadata, end, 0, 0, 0, 0].map(u32::to_ne_bytes).concat())
    };
    let mut run = |metadata: u32| {
        let (data, mut context) = room(metadata);
        // data, data_end, data_meta, ingress_ifindex, rx_queue_index, egress_ifindex.
        context[8..12].copy_from_slice(&0_u32.to_ne_bytes());
        let program = kernel.ebpf_mut().unwrap().program(PROGRAM).unwrap();
        let program: &Xdp = program.try_into().unwrap();
        let options = TestRunOptions {
            data_in: Some(&data),
            ctx_in: Some(&context),
            ..TestRunOptions::new()
        };
        program.test_run(options).map(|result| result.return_value)
    };
    match [run(0), run(120)] {
        [Ok(with), Ok(without)] => assert_eq!((with, without), (3, 1)),
        found => {
            println!("SKIP: this kernel takes no metadata of 120 bytes: {found:?}");
            return;
        }
    }
    let counted = Counted::read(&kernel);
    let vip = number(GUE6, false, TCP);
    assert_eq!(counted.vips.get(&(vip, "no_headroom")), Some(&(1, frame.len() as u64)));
}

#[test]
fn drops_are_sampled_within_their_budget() {
    let Some(mut kernel) = kernel() else { return };
    stay_on_one_cpu();
    let empty = Ip::new(CLIENT_V6, vip_v6(EMPTY)).udp(0x1234, 53, b"x");
    let port = Ip::new(CLIENT_V4, vip_v4(IPIP4)).tcp(0x1234, 81, SYN, b"");
    for frame in [empty.tagged(&[(0x8100, 1)]), port.frame()] {
        assert_eq!(in_kernel(&kernel, &frame), Wanted::Drop);
    }
    let first = kernel.next_drop().unwrap();
    assert_eq!(first.outcome, Outcome::NoBackend as u32);
    assert_eq!(first.vip, u32::from(number(EMPTY, true, UDP)));
    assert_eq!((first.source, first.destination), (CLIENT_V6.octets(), vip_v6(EMPTY).octets()));
    assert_eq!((first.source_port, first.destination_port), ([0x12, 0x34], [0, 53]));
    assert_eq!((first.length, first.protocol), (14 + 4 + 40 + 8 + 1, UDP));
    let second = kernel.next_drop().unwrap();
    assert_eq!((second.outcome, second.vip), (Outcome::NoPort as u32, 0));
    assert_eq!(second.source, CLIENT_V4.to_ipv6_mapped().octets());
    assert_eq!((second.protocol, second.destination_port), (TCP, [0, 81]));
    assert!(kernel.next_drop().is_none());
    // 100 in a tick, of which two are used; the tick lasts for hours.
    for _ in 0..300 {
        in_kernel(&kernel, &port.frame());
    }
    let sampled = std::iter::from_fn(|| kernel.next_drop()).count();
    assert_eq!(sampled, 98);
}

#[test]
fn answers_to_packets_too_big_have_a_budget() {
    let Some(mut kernel) = kernel() else { return };
    stay_on_one_cpu();
    let frame = Ip::new(CLIENT_V4, vip_v4(NARROW)).udp(1, 53, &[0; 1400]).frame();
    let run = |kernel: &Dataplane| {
        (0..1_500).filter(|_| matches!(in_kernel(kernel, &frame), Wanted::Tx(_))).count()
    };
    assert_eq!(run(&kernel), 1_000);
    assert_eq!(run(&kernel), 0);
    // Another tick: there is a new budget.
    let before = tick(&mut kernel);
    for hertz in [FROZEN << 1, FROZEN >> 1, FROZEN >> 2, FROZEN >> 3] {
        kernel.set_settings(&settings(hertz));
        if tick(&mut kernel) != before {
            break;
        }
    }
    assert_ne!(tick(&mut kernel), before);
    assert_eq!(run(&kernel), 1_000);
    let counted = Counted::read(&kernel);
    let vip = number(NARROW, false, UDP);
    // Answered or not, each is a drop.
    assert_eq!(counted.vips.get(&(vip, "too_big")).map(|counter| counter.0), Some(4_500));
}

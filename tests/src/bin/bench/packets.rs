//! What a packet costs, as ratios to a floor measured in the same run.
//!
//! How not to be fooled: thread CPU time around BPF_PROG_TEST_RUN (its own `duration` has a
//! resolution of a nanosecond, and wall time has the kernel's grace periods in it); the frame is
//! restored between runs by the wrapper, in the floors too; cases take turns in each round; the
//! medians of the rounds count. A CPU of its own and SCHED_FIFO keep neighbours out as far as
//! they can be.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use aya::maps::Array;
use aya::programs::{TestRun as _, TestRunOptions, Xdp};
use lb_common::backend::{BackendId, Link};
use lb_common::headers::protocol;
use lb_common::table::Slot;
use lb_userspace::dataplane::object::BENCH;
use lb_userspace::dataplane::{BackendSpec, Dataplane, SettingsSpec, Sizes, VipSpec, VipTracking};
use lb_userspace::desired::Encap;
use serde_json::{Map, Value, json};

use crate::{cpu_time, median};

/// Rounds; every case runs once in each.
const ROUNDS: usize = 15;
/// Packets a case handles in one round.
const PACKETS: u32 = 1_000_000;
/// Flows of the `_1m` cases.
const MANY: u64 = 1 << 20;
/// Flows there is room for in the flow table.
const ROOM: u32 = 1 << 20;
/// Pools.
const POOLS: u16 = 4;
/// Backends of a pool.
const BACKENDS: u16 = 100;
/// Slots of a pool.
const SLOTS: u32 = 65_537;

const TCP_ACK: u8 = 0x10;
const TCP_SYN: u8 = 0x02;

/// One thing that is measured.
struct Case {
    id: &'static str,
    program: &'static str,
    frame: Vec<u8>,
    flows: Flows,
    undo: u64,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Flows {
    One,
    Many,
    /// Every packet another one.
    Flood,
}

fn frame_v4(destination: [u8; 4], flags: u8) -> Vec<u8> {
    let mut frame = vec![0; 64];
    frame[..14].copy_from_slice(&[2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0]);
    frame[14..34]
        .copy_from_slice(&[0x45, 0, 0, 50, 0, 0, 0x40, 0, 64, 6, 0, 0, 198, 18, 0, 1, 0, 0, 0, 0]);
    frame[30..34].copy_from_slice(&destination);
    frame[34..38].copy_from_slice(&[0x10, 0, 0, 80]);
    frame[46..48].copy_from_slice(&[0x50, flags]);
    frame
}

fn frame_v6(destination: Ipv6Addr, flags: u8) -> Vec<u8> {
    let mut frame = vec![0; 84];
    frame[..14].copy_from_slice(&[2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 0x86, 0xdd]);
    frame[14..22].copy_from_slice(&[0x60, 0, 0, 0, 0, 30, 6, 64]);
    frame[22..26].copy_from_slice(&[0x20, 1, 0xd, 0xb8]);
    frame[38..54].copy_from_slice(&destination.octets());
    frame[54..58].copy_from_slice(&[0x10, 0, 0, 80]);
    frame[66..68].copy_from_slice(&[0x50, flags]);
    frame
}

const VIP6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0x53, 0, 0, 0, 0, 1);

fn vip(number: u16, address: IpAddr, pool: u16, tracking: VipTracking) -> VipSpec {
    let udp_idle = Duration::from_secs(30);
    let (protocol, port, asks) = (protocol::TCP, Some(80), false);
    VipSpec { number, address, protocol, port, pool, tracking, asks, udp_idle }
}

/// Pools 0: IPIP over IPv4, 1: GUE over IPv4, 2: IPIP over IPv6, 3: as 0, all slots contested. VIPs
/// .1 stateless and .2 always tracked on pool 0, .3 to .5 on pools 1 to 3, one of IPv6 on pool 0.
fn fill(dataplane: &mut Dataplane) -> Result<()> {
    dataplane.set_settings(&SettingsSpec {
        secret: *b"a bench's secret",
        source_v4: Some(Ipv4Addr::new(192, 0, 2, 1)),
        source_v6: Some(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1)),
        ipip_source_v4: Ipv4Addr::new(198, 19, 0, 0),
        ipip_source_v6: Ipv6Addr::new(0x2001, 0xdb8, 0, 1, 0, 0, 0, 0),
        gue_port: 6080,
        half_open: Duration::from_secs(10),
        established: Duration::from_secs(3600),
        closing: Duration::from_secs(30),
        hertz: 250,
    });
    let mut backends = BTreeMap::new();
    for pool in 0..POOLS {
        let first = 1 + pool * BACKENDS;
        for id in first..first + BACKENDS {
            let [high, low] = id.to_be_bytes();
            let destination = match pool {
                2 => IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, id)),
                _ => IpAddr::V4(Ipv4Addr::new(192, 0, high + 2, low)),
            };
            // The kernel runs tests as if from the loopback device, interface 1.
            let link = Some(Link::new([2, 0, 0, 1, high, low], [2, 0, 0, 0, 0, 1], 1));
            let encap = if pool == 1 { Encap::Gue } else { Encap::Ipip };
            let spec = BackendSpec { destination, encap, link, path_mtu: 9000 };
            backends.insert(BackendId(id), spec);
        }
        let slots: Vec<u16> = (0..SLOTS)
            .map(|slot| first + u16::try_from(slot % u32::from(BACKENDS)).unwrap_or_default())
            .map(|owner| Slot::new(BackendId(owner), pool == 3).0)
            .collect();
        dataplane.publish_table(pool, &slots, &vec![[0; 4]; SLOTS as usize], 1)?;
    }
    dataplane.set_backends(&backends)?;
    let address = |last| IpAddr::V4(Ipv4Addr::new(203, 0, 113, last));
    dataplane.publish_vips(&[
        vip(1, address(1), 0, VipTracking::Slot),
        vip(2, address(2), 0, VipTracking::Always),
        vip(3, address(3), 1, VipTracking::Slot),
        vip(4, address(4), 2, VipTracking::Slot),
        vip(5, address(5), 3, VipTracking::Slot),
        vip(6, IpAddr::V6(VIP6), 0, VipTracking::Slot),
    ])?;
    Ok(())
}

fn cases() -> Vec<Case> {
    let v4 = |last, flags| frame_v4([203, 0, 113, last], flags);
    let lb = "lb_wrapped";
    let case = |id, program, frame, flows, undo| Case { id, program, frame, flows, undo };
    vec![
        case("floor_pass", "floor_pass", v4(9, TCP_ACK), Flows::One, 0),
        case("floor_encap", "floor_encap", v4(9, TCP_ACK), Flows::One, 20),
        case("not_vip", lb, v4(9, TCP_ACK), Flows::One, 0),
        case("v4_tcp_stateless", lb, v4(1, TCP_ACK), Flows::One, 20),
        case("v4_tcp_stateless_1m", lb, v4(1, TCP_ACK), Flows::Many, 20),
        case("v6_tcp_stateless", lb, frame_v6(VIP6, TCP_ACK), Flows::One, 20),
        case("v4_gue_stateless", lb, v4(3, TCP_ACK), Flows::One, 56),
        case("v4_in_v6", lb, v4(4, TCP_ACK), Flows::One, 40),
        case("v4_tcp_tracked", lb, v4(2, TCP_ACK), Flows::One, 20),
        case("v4_tcp_tracked_1m", lb, v4(2, TCP_ACK), Flows::Many, 20),
        case("v4_tcp_contested_1m", lb, v4(5, TCP_ACK), Flows::Many, 20),
        case("v4_syn_flood_stateless", lb, v4(1, TCP_SYN), Flows::Flood, 20),
        case("v4_syn_flood_tracked", lb, v4(2, TCP_SYN), Flows::Flood, 20),
        case("v4_syn_flood_contested", lb, v4(5, TCP_SYN), Flows::Flood, 20),
    ]
}

/// The last CPU, and real time; what cannot be had is said and done without.
pub(crate) fn quiet() {
    // SAFETY: cpu_set_t is a bit set; zero is valid.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    // SAFETY: the CPU's number is below CPU_SETSIZE.
    unsafe { libc::CPU_SET(cpus - 1, &mut set) };
    // SAFETY: `set` is valid and has the size given.
    if unsafe { libc::sched_setaffinity(0, size_of_val(&set), &set) } != 0 {
        eprintln!("bench: cannot pin to one CPU; figures will be noisier");
    }
    let parameter = libc::sched_param { sched_priority: 50 };
    // SAFETY: `parameter` is valid.
    if unsafe { libc::sched_setscheduler(0, libc::SCHED_FIFO, &parameter) } != 0 {
        eprintln!("bench: no SCHED_FIFO; figures will be noisier");
    }
}

/// Runs a case; nanoseconds a packet.
fn run(dataplane: &mut Dataplane, case: &Case, next: u64, packets: u32) -> Result<f64> {
    let ebpf = dataplane.ebpf_mut().context("no kernel")?;
    let mask = match case.flows {
        Flows::One => 0,
        Flows::Many => MANY - 1,
        Flows::Flood => u64::from(u32::MAX),
    };
    let v6 = u64::from(case.frame.get(12) == Some(&0x86));
    let mut state: Array<_, [u64; 4]> =
        ebpf.map_mut("LB_BENCH").context("no LB_BENCH")?.try_into()?;
    state.set(0, [next, mask, case.undo, v6], 0)?;
    let program: &Xdp = ebpf.program(case.program).context("no program")?.try_into()?;
    let options =
        TestRunOptions { data_in: Some(&case.frame), repeat: packets, ..TestRunOptions::new() };
    let before = cpu_time();
    let result = program.test_run(options)?;
    let spent = cpu_time() - before;
    let expected = if case.undo == 0 { 2 } else { 3 };
    if result.return_value != expected {
        bail!("{}: the program returned {}, not {expected}", case.id, result.return_value);
    }
    Ok(spent.as_nanos() as f64 / f64::from(packets))
}

/// Runs all cases; prints them, and returns the report.
pub(crate) fn measure() -> Result<Map<String, Value>> {
    let backends = u32::from(POOLS * BACKENDS);
    let sizes = Sizes::with_room(2 * u64::from(POOLS) * u64::from(SLOTS), backends, 16, ROOM);
    let mut dataplane = Dataplane::unpinned(BENCH, &sizes)?;
    let ebpf = dataplane.ebpf_mut().context("no kernel")?;
    for name in ["floor_pass", "floor_encap", "lb_wrapped"] {
        let program: &mut Xdp = ebpf.program_mut(name).context("no program")?.try_into()?;
        program.load()?;
    }
    fill(&mut dataplane)?;
    let cases = cases();
    let mut figures: Vec<Vec<f64>> = cases.iter().map(|_| Vec::new()).collect();
    let mut flood = 0;
    for round in 0..=ROUNDS {
        for (case, figures) in cases.iter().zip(&mut figures) {
            // Round 0 enters all flows and confirms them.
            let packets = if round == 0 { 2 * PACKETS + 200_000 } else { PACKETS };
            let next = if case.flows == Flows::Flood { flood } else { 0 };
            flood += u64::from(packets);
            let spent = run(&mut dataplane, case, next, packets)?;
            if round > 0 {
                figures.push(spent);
            }
        }
    }
    let medians: Vec<f64> = figures.iter_mut().map(|figures| median(figures)).collect();
    let [floor_pass, floor_encap, nets @ ..] = medians.as_slice() else { bail!("no floors") };
    let unit = floor_encap - floor_pass;
    let entries = dataplane.flow_entries();
    println!("flow table of {entries} entries ({} MiB)", (entries * 8) >> 20);
    println!("floor_pass {floor_pass:.1} ns, floor_encap {floor_encap:.1} ns ({unit:.1} net)");
    let mut report = Map::new();
    for (case, total) in cases.iter().skip(2).zip(nets) {
        let net = total - floor_pass;
        println!("{:24} {net:7.1} ns  {:5.2}", case.id, net / unit);
        report.insert(case.id.to_owned(), json!({ "net_ns": net, "ratio": net / unit }));
    }
    let mut whole = Map::new();
    whole.insert("floor_pass_ns".to_owned(), json!(floor_pass));
    whole.insert("floor_encap_ns".to_owned(), json!(floor_encap));
    whole.insert("cases".to_owned(), Value::Object(report));
    whole.insert("flow_table_entries".to_owned(), json!(entries));
    Ok(whole)
}

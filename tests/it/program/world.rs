//! The tables that the frames of these tests meet: pools, VIPs, backends; the same in the
//! kernel's maps and in plain memory.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use aya::programs::{TestRun as _, TestRunOptions, Xdp};
use lb_common::backend::{BackendId, Link};
use lb_tests::packet::{BALANCER_MAC, TCP, UDP};
use lb_userspace::dataplane::object::{BALANCER, CLOCK};
use lb_userspace::dataplane::{BackendSpec, Dataplane, SettingsSpec, Sizes, VipSpec, VipTracking};
use lb_userspace::desired::Encap;

/// The cluster secret.
pub(super) const SECRET: [u8; 16] = *b"a tests' secret!";
/// The load balancer's own addresses.
pub(super) const SOURCE_V4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
pub(super) const SOURCE_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);
/// Where IPIP comes from, but for its entropy.
pub(super) const IPIP_V4: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 0);
pub(super) const IPIP_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0xffff, 0xabcd, 0, 0, 0, 0);
/// Clients.
pub(super) const CLIENT_V4: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 7);
pub(super) const CLIENT_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0xc, 0, 0, 0, 0, 7);

/// A tick of 2^24 jiffies is more than four hours: no test sees one pass.
pub(super) const FROZEN: u32 = 1 << 24;
/// The interface that the kernel runs tests on: the loopback device.
pub(super) const LOOPBACK: u32 = 1;
/// Another one, that only redirects name.
pub(super) const OTHER: u32 = 7;

/// Slots of every pool.
const SLOTS: u16 = 251;
/// VIP numbers there is room for.
const VIPS: u32 = 127;
/// The largest backend id.
const BACKENDS: u32 = 40;
/// Flows there is room for: few, so that random packets fill buckets.
const FLOWS: u32 = 100;

/// IPIP over IPv4.
pub(super) const IPIP4: u16 = 1;
/// IPIP over IPv6.
pub(super) const IPIP6: u16 = 2;
/// GUE over IPv4.
pub(super) const GUE4: u16 = 3;
/// GUE over IPv6.
pub(super) const GUE6: u16 = 4;
/// Its backend's next hop is not resolved.
pub(super) const UNRESOLVED: u16 = 5;
/// Its backend is behind [`OTHER`].
pub(super) const REDIRECT: u16 = 6;
/// GUE over IPv4, contested, with a history.
pub(super) const HISTORY4: u16 = 7;
/// GUE over IPv6, not contested any more, with a history.
pub(super) const HISTORY6: u16 = 8;
/// A table without backends.
pub(super) const EMPTY: u16 = 9;
/// No table.
pub(super) const NO_TABLE: u16 = 10;
/// IPIP over IPv4 with a path MTU of 1400.
pub(super) const NARROW: u16 = 11;
/// Every kind of slot and backend.
pub(super) const MIXED: u16 = 12;
/// The last pool.
pub(super) const POOLS: u16 = 12;

/// The IPv4 address of a pool's VIPs: TCP port 80, UDP port 53.
pub(super) fn vip_v4(pool: u16) -> Ipv4Addr {
    Ipv4Addr::new(203, 0, 113, u8::try_from(pool).unwrap())
}

/// The IPv6 address of a pool's VIPs: TCP port 80, UDP port 53.
pub(super) fn vip_v6(pool: u16) -> Ipv6Addr {
    Ipv6Addr::new(0x2001, 0xdb8, 0x53, 0, 0, 0, 0, pool)
}

/// The number of a pool's VIP.
pub(super) fn number(pool: u16, v6: bool, protocol: u8) -> u16 {
    4 * (pool - 1) + 1 + 2 * u16::from(v6) + u16::from(protocol == UDP)
}

/// VIPs of any port: TCP but for 443, UDP.
pub(super) const ANY: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 200);
pub(super) const ANY_TCP: u16 = 101;
pub(super) const ANY_443: u16 = 102;
pub(super) const ANY_UDP: u16 = 103;
/// Any UDP port and nothing else.
pub(super) const ONLY_UDP: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 201);
pub(super) const ONLY_UDP_NUMBER: u16 = 104;
/// TCP 80, tracked always, on the pool [`GUE4`].
pub(super) const ALWAYS: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 202);
pub(super) const ALWAYS_NUMBER: u16 = 105;
/// UDP 53, never tracked, on the pool [`HISTORY4`].
pub(super) const STATELESS: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 203);
pub(super) const STATELESS_NUMBER: u16 = 106;

/// A backend's outer destination.
pub(super) fn destination(id: u16) -> IpAddr {
    match id {
        2 | 4 | 11..=13 | 30..=35 => IpAddr::V6(Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, id)),
        _ => IpAddr::V4(Ipv4Addr::new(10, 0, 0, u8::try_from(id).unwrap())),
    }
}

/// The MAC of a backend's next hop.
pub(super) fn mac(id: u16) -> [u8; 6] {
    let [high, low] = id.to_be_bytes();
    [2, 0xcc, 0, 0, high, low]
}

/// The generation of every table.
pub(super) const GENERATION: u32 = 0x0001_2345;

/// Settings with a tick of about this many jiffies.
pub(super) fn settings(hertz: u32) -> SettingsSpec {
    SettingsSpec {
        secret: SECRET,
        source_v4: Some(SOURCE_V4),
        source_v6: Some(SOURCE_V6),
        ipip_source_v4: IPIP_V4,
        ipip_source_v6: IPIP_V6,
        gue_port: 6080,
        half_open: Duration::from_secs(10),
        established: Duration::from_secs(600),
        closing: Duration::from_secs(30),
        hertz,
    }
}

/// A backend; `id` says all.
pub(super) fn backend(id: u16) -> BackendSpec {
    let encap = match id {
        1 | 2 | 5 | 14 | 20..=24 | 30..=32 => Encap::Ipip,
        _ => Encap::Gue,
    };
    let interface = if matches!(id, 6 | 21 | 31) { OTHER } else { LOOPBACK };
    let link = Link::new(mac(id), BALANCER_MAC, interface);
    let path_mtu = if matches!(id, 14 | 22) { 1400 } else { 1500 };
    let link = (!matches!(id, 5 | 23)).then_some(link);
    BackendSpec { destination: destination(id), encap, link, path_mtu }
}

/// The slots of a pool, and their histories.
pub(super) fn table(pool: u16) -> Option<(Vec<u16>, Vec<[u16; 4]>)> {
    const CONTESTED: u16 = 0x8000;
    let all = |slot: u16, history| Some((vec![slot; SLOTS.into()], vec![history; SLOTS.into()]));
    match pool {
        HISTORY4 => all(7 | CONTESTED, [8, 9, 8, 10]),
        HISTORY6 => all(11, [0, 12, 3, 13]),
        EMPTY => all(0, [0; 4]),
        NO_TABLE => None,
        NARROW => all(14, [0; 4]),
        MIXED => Some((0..SLOTS).map(mixed).unzip()),
        _ => all(pool, [0; 4]),
    }
}

/// One of the slots of [`MIXED`].
fn mixed(slot: u16) -> (u16, [u16; 4]) {
    let id = |at: u16| 20 + at % 16;
    let owner = if slot.is_multiple_of(17) { 0 } else { id(slot) };
    let contested = u16::from(!slot.is_multiple_of(3)) << 15;
    let history = match slot % 5 {
        0 => [0; 4],
        1 => [id(slot + 1), 0, 0, 0],
        2 => [id(slot + 2), id(slot + 3), id(slot + 2), id(slot + 4)],
        3 => [0, id(slot + 5), id(slot), 0],
        _ => [id(slot), id(slot + 7), id(slot + 8), id(slot + 9)],
    };
    (owner | contested, history)
}

fn vip(number: u16, address: impl Into<IpAddr>, (protocol, port): (u8, Option<u16>)) -> VipSpec {
    VipSpec {
        number,
        address: address.into(),
        protocol,
        port,
        pool: 1 + (number - 1) / 4,
        tracking: VipTracking::Slot,
        asks: false,
        udp_idle: Duration::from_secs(30),
    }
}

fn vips() -> Vec<VipSpec> {
    let mut vips = Vec::new();
    for pool in 1..=POOLS {
        for what in [(TCP, Some(80)), (UDP, Some(53))] {
            vips.push(vip(number(pool, false, what.0), vip_v4(pool), what));
            vips.push(vip(number(pool, true, what.0), vip_v6(pool), what));
        }
    }
    let on = |pool, vip: VipSpec| VipSpec { pool, ..vip };
    vips.push(on(IPIP4, vip(ANY_TCP, ANY, (TCP, None))));
    vips.push(on(GUE4, vip(ANY_443, ANY, (TCP, Some(443)))));
    vips.push(on(IPIP6, vip(ANY_UDP, ANY, (UDP, None))));
    vips.push(on(IPIP4, vip(ONLY_UDP_NUMBER, ONLY_UDP, (UDP, None))));
    let always = on(GUE4, vip(ALWAYS_NUMBER, ALWAYS, (TCP, Some(80))));
    vips.push(VipSpec { tracking: VipTracking::Always, ..always });
    let stateless = on(HISTORY4, vip(STATELESS_NUMBER, STATELESS, (UDP, Some(53))));
    vips.push(VipSpec { tracking: VipTracking::Stateless, ..stateless });
    vips
}

/// How large the tables are.
pub(super) fn sizes() -> Sizes {
    let slots = 2 * u64::from(SLOTS) * u64::from(POOLS);
    Sizes::with_room(slots, BACKENDS, VIPS, FLOWS)
}

/// Fills the tables.
pub(super) fn fill(dataplane: &mut Dataplane) {
    dataplane.set_settings(&settings(FROZEN));
    let ids = (1..=14).chain(20..36);
    let backends: BTreeMap<_, _> = ids.map(|id| (BackendId(id), backend(id))).collect();
    dataplane.set_backends(&backends).unwrap();
    for pool in 1..=POOLS {
        if let Some((slots, history)) = table(pool) {
            dataplane.publish_table(pool, &slots, &history, GENERATION).unwrap();
        }
    }
    dataplane.publish_vips(&vips()).unwrap();
}

/// The program in the kernel, its tables filled. `None`, said aloud, when that is not permitted.
pub(super) fn kernel() -> Option<Dataplane> {
    // SAFETY: no arguments, no effects.
    if unsafe { libc::geteuid() } != 0 {
        println!("SKIP: only root may load programs");
        return None;
    }
    let mut dataplane = Dataplane::unpinned(BALANCER, &sizes()).unwrap();
    fill(&mut dataplane);
    Some(dataplane)
}

/// The same tables in plain memory.
pub(super) fn host() -> Dataplane {
    let mut dataplane = Dataplane::in_memory(&sizes());
    fill(&mut dataplane);
    dataplane
}

/// The kernel's tick.
pub(super) fn tick(dataplane: &mut Dataplane) -> u32 {
    let program: &Xdp = dataplane.ebpf_mut().unwrap().program(CLOCK).unwrap().try_into().unwrap();
    let options = TestRunOptions { data_in: Some(&[0; 64]), ..TestRunOptions::new() };
    program.test_run(options).unwrap().return_value
}

/// Stays on one CPU: budgets are counted for each.
pub(super) fn stay_on_one_cpu() {
    // SAFETY: cpu_set_t is a bit set; zero is valid.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    // SAFETY: the CPU's number is below CPU_SETSIZE.
    unsafe { libc::CPU_SET(0, &mut set) };
    // SAFETY: `set` is valid and has the size given.
    let result = unsafe { libc::sched_setaffinity(0, size_of_val(&set), &set) };
    assert_eq!(result, 0, "cannot stay on CPU 0");
}

//! Properties of the room: what is desired can be written and is read back the same, and no text
//! makes it stumble.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::Range;
use std::path::PathBuf;
use std::time::Duration;

use proptest::prelude::*;
use proptest::sample::{Index, select};

use super::tests::{load_text, with_bgp};
use super::{Loaded, bgp, reference};
use crate::desired::{
    Api, Backend, BackendState, Dataplane, Desired, Encap, FlowTimeouts, Health, HealthKind, Log,
    LogFormat, LogLevel, Metrics, Node, OnDown, Pool, Port, Prefix4, Prefix6, Protocol, Tracking,
    Via, Vip, VipKey, VipTimeouts, XdpMode, format_duration, limits,
};
use crate::primes;

fn duration(seconds: Range<u64>) -> impl Strategy<Value = Duration> {
    (seconds, select(vec![0, 1, 500])).prop_map(|(s, ms)| Duration::from_millis(s * 1_000 + ms))
}

fn timeouts() -> impl Strategy<Value = FlowTimeouts> {
    (duration(1..100), duration(1..7_200), duration(1..100), duration(1..7_200)).prop_map(
        |(tcp_half_open, tcp_established, tcp_closing, udp)| FlowTimeouts {
            tcp_half_open,
            tcp_established,
            tcp_closing,
            udp,
        },
    )
}

/// Ports of VIPs and probes, often the same.
fn port() -> impl Strategy<Value = u16> {
    prop_oneof![Just(80), 1..=u16::MAX]
}

fn health() -> impl Strategy<Value = Health> {
    (port(), duration(2..60), duration(1..2), 1..=100_u32, 1..=100_u32).prop_map(
        |(port, interval, timeout, rise, fall)| Health {
            // One check for each pool; the name follows from the pool's.
            name: String::new(),
            kind: HealthKind::Tcp,
            port,
            via: Via::Direct,
            interval,
            timeout,
            rise,
            fall,
        },
    )
}

fn backend() -> impl Strategy<Value = (bool, u16, BackendState)> {
    (any::<bool>(), any::<u16>(), select(vec![BackendState::Up, BackendState::Drain]))
}

/// Addresses that no VIP and no node has.
fn backends(list: Vec<(bool, u16, BackendState)>) -> BTreeMap<String, Backend> {
    let backend = |(index, (v6, weight, state))| {
        let number = u16::try_from(index).unwrap() + 1;
        let [high, low] = number.to_be_bytes();
        let address = match v6 {
            true => IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, number)),
            false => IpAddr::V4(Ipv4Addr::new(198, 19, high, low)),
        };
        let name = format!("b{number}");
        (name.clone(), Backend { name, address, weight, state })
    };
    list.into_iter().enumerate().map(backend).collect()
}

fn pool() -> impl Strategy<Value = Pool> {
    let modes = (
        select(vec![Encap::Gue, Encap::Ipip]),
        select(primes::PRIMES.split_at(9).0),
        select(vec![OnDown::Keep, OnDown::Release]),
        select(vec![Tracking::Contested, Tracking::Always]),
    );
    let numbers = ((1..=10_u32, 0..3_u32), duration(1..86_000), duration(3..60));
    let backends_of = prop::collection::vec(backend(), 0..6).prop_map(backends);
    (prop::option::of(health()), modes, numbers, backends_of).prop_map(
        |(health, (encap, maglev_size, on_down, tracking), numbers, backends)| {
            let ((min_up, more), window, prepare) = numbers;
            Pool {
                name: String::new(),
                health,
                encap,
                maglev_size,
                min_up,
                min_up_return: min_up + more,
                on_down,
                tracking,
                window,
                prepare,
                backends,
            }
        },
    )
}

fn pools() -> impl Strategy<Value = BTreeMap<String, Pool>> {
    prop::collection::vec(pool(), 0..5).prop_map(|pools| {
        let named = pools.into_iter().enumerate().map(|(index, mut pool)| {
            pool.name = format!("pool{index}");
            if let Some(health) = &mut pool.health {
                health.name = format!("check{index}");
            }
            (pool.name.clone(), pool)
        });
        named.collect()
    })
}

type VipSeed = (u8, bool, Option<u16>, bool, Index, bool, Duration);

fn vip_seed() -> impl Strategy<Value = VipSeed> {
    let port = prop::option::of(port());
    (1..9_u8, any::<bool>(), port, any::<bool>(), any::<Index>(), any::<bool>(), duration(1..7_200))
}

fn vips(
    seeds: Vec<VipSeed>,
    pools: &BTreeMap<String, Pool>,
    defaults: FlowTimeouts,
) -> BTreeMap<VipKey, Vip> {
    let mut vips = BTreeMap::new();
    let names: Vec<&Pool> = pools.values().collect();
    for (index, (number, v6, port, tcp, pool, stateless, udp)) in seeds.into_iter().enumerate() {
        if names.is_empty() {
            break;
        }
        let pool = pool.get(&names);
        let address = match v6 {
            true => IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0x53, 0, 0, 0, 0, number.into())),
            false => IpAddr::V4(Ipv4Addr::new(203, 0, 113, number)),
        };
        let protocol = if tcp { Protocol::Tcp } else { Protocol::Udp };
        let (tracking, udp) = match protocol {
            Protocol::Tcp => (pool.tracking, defaults.udp),
            Protocol::Udp if stateless => (Tracking::Stateless, udp),
            Protocol::Udp => (Tracking::Always, udp),
        };
        let flow_timeouts = VipTimeouts { udp };
        let key = VipKey { address, protocol, port: port.map_or(Port::Any, Port::Exact) };
        let (name, pool) = (format!("vip{index}"), pool.name.clone());
        vips.insert(key, Vip { name, key, pool, tracking, flow_timeouts });
    }
    vips
}

/// The same pools, those whose number has its bit set probed through the tunnel if they can be.
fn tunnelled(
    mut pools: BTreeMap<String, Pool>,
    vips: &BTreeMap<VipKey, Vip>,
    chosen: u8,
) -> BTreeMap<String, Pool> {
    for (index, pool) in pools.values_mut().enumerate().filter(|(i, _)| chosen >> i & 1 == 1) {
        let Some(health) = &mut pool.health else { continue };
        let exact = |key: &VipKey| VipKey { port: Port::Exact(health.port), ..*key };
        let reached = |key: &VipKey| {
            let any = key.port == Port::Any && !vips.contains_key(&exact(key));
            key.protocol == Protocol::Tcp && (any || *key == exact(key))
        };
        let name = format!("pool{index}");
        let own = vips.values().filter(|vip| vip.pool == name).map(|vip| &vip.key);
        if let Some(key) = own.filter(|key| reached(key)).min_by_key(|key| key.address) {
            health.via = Via::Tunnel(key.address);
        }
    }
    pools
}

fn dataplane() -> impl Strategy<Value = Dataplane> {
    let modes = (
        select(vec![XdpMode::Auto, XdpMode::Native, XdpMode::Generic]),
        select(vec![Encap::Gue, Encap::Ipip]),
        select(primes::PRIMES.to_vec()),
    );
    let sizes = (limits::MIN_FLOWS..=limits::MAX_FLOWS, 8..=16_u8, 16..=64_u8, 1..=u16::MAX);
    (modes, sizes, any::<(u32, u128)>()).prop_map(
        |((xdp_mode, encap, maglev_size), (flows, length4, length6, gue_port), (v4, v6))| {
            Dataplane {
                interfaces: vec!["eth0".to_owned(), "eth1.100".to_owned()],
                xdp_mode,
                encap,
                gue_port,
                ipip_source: Prefix4 { address: (v4 >> 8 | 198 << 24).into(), length: length4 }
                    .masked(),
                ipip_source6: Prefix6 {
                    address: (v6 >> 16 | 0x2001 << 112).into(),
                    length: length6,
                }
                .masked(),
                flow_table_size: flows,
                maglev_size,
                max_vips: 64,
                max_pools: 5,
                max_backends: 30,
                max_slots: 2_000_000,
                pin_path: PathBuf::from("/sys/fs/bpf/a \"b\" \\c"),
            }
        },
    )
}

fn desired() -> impl Strategy<Value = Desired> {
    let rest =
        (dataplane(), timeouts(), prop::option::of(1..=u16::MAX), any::<bool>(), any::<u8>());
    let without_bgp = (pools(), prop::collection::vec(vip_seed(), 0..12), rest).prop_map(
        |(pools, seeds, (dataplane, flow_timeouts, metrics, group, chosen))| {
            let vips = vips(seeds, &pools, flow_timeouts);
            let pools = tunnelled(pools, &vips, chosen);
            Desired {
                node: Node {
                    name: "lb-1".to_owned(),
                    pop: "fra1".to_owned(),
                    address: Some(Ipv4Addr::new(192, 0, 2, 11)),
                    address6: Some(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x11)),
                    secret_file: PathBuf::from("/etc/lb/secret"),
                },
                dataplane,
                flow_timeouts,
                vips,
                pools,
                bgp: None,
                api: Api {
                    socket: PathBuf::from("/run/lb/lbd.sock"),
                    group: group.then(|| "lb".to_owned()),
                },
                metrics: metrics.map(|port| Metrics { listen: ([127, 0, 0, 1], port).into() }),
                log: Log { level: LogLevel::Debug, format: LogFormat::Json },
            }
        },
    );
    without_bgp.prop_flat_map(|desired| {
        let addresses = desired.vips.keys().map(|key| key.address).collect();
        prop::option::of(bgp::properties::bgp(addresses))
            .prop_map(move |bgp| Desired { bgp, ..desired.clone() })
    })
}

/// Writes every key that the file has, none by default.
fn to_toml(desired: &Desired) -> String {
    let d = &desired.dataplane;
    let t = |timeout: Duration| format!("\"{}\"", format_duration(timeout));
    let node = &desired.node;
    let mut lines = vec![
        "version = 1".to_owned(),
        "[node]".to_owned(),
        format!("name = {:?}", node.name),
        format!("pop = {:?}", node.pop),
        format!("address = \"{}\"", node.address.unwrap()),
        format!("address6 = \"{}\"", node.address6.unwrap()),
        format!("secret_file = {:?}", node.secret_file),
        "[dataplane]".to_owned(),
        format!("interfaces = {:?}", d.interfaces),
        format!("xdp_mode = \"{}\"\nencap = \"{}\"", d.xdp_mode, d.encap),
        format!("gue_port = {}", d.gue_port),
        format!("ipip_source = \"{}\"\nipip_source6 = \"{}\"", d.ipip_source, d.ipip_source6),
        format!("flow_table_size = {}\nmaglev_size = {}", d.flow_table_size, d.maglev_size),
        format!("max_vips = {}\nmax_pools = {}", d.max_vips, d.max_pools),
        format!("max_backends = {}\nmax_slots = {}", d.max_backends, d.max_slots),
        format!("pin_path = {:?}", d.pin_path),
        "[defaults.flow_timeout]".to_owned(),
        format!("tcp_half_open = {}", t(desired.flow_timeouts.tcp_half_open)),
        format!("tcp_established = {}", t(desired.flow_timeouts.tcp_established)),
        format!("tcp_closing = {}", t(desired.flow_timeouts.tcp_closing)),
        format!("udp = {}", t(desired.flow_timeouts.udp)),
        format!("[api]\nsocket = {:?}", desired.api.socket),
    ];
    lines.extend(desired.api.group.iter().map(|group| format!("group = {group:?}")));
    lines.extend(desired.metrics.map(|m| format!("[metrics]\nlisten = \"{}\"", m.listen)));
    lines.push(format!("[log]\nlevel = \"{}\"", desired.log.level));
    lines.push(format!("format = \"{}\"", desired.log.format));
    lines.extend(desired.bgp.as_ref().map(bgp::properties::to_toml));
    lines.extend(desired.pools.values().map(pool_toml));
    lines.extend(desired.vips.values().map(vip_toml));
    lines.join("\n") + "\n"
}

fn pool_toml(pool: &Pool) -> String {
    let t = format_duration;
    let mut text = String::new();
    if let Some(health) = &pool.health {
        text += &format!("[health.{}]\nkind = \"tcp\"\nport = {}\n", health.name, health.port);
        let via = if health.via == Via::Direct { "direct" } else { "tunnel" };
        text += &format!("via = \"{via}\"\ninterval = \"{}\"\n", t(health.interval));
        text += &format!("timeout = \"{}\"\n", t(health.timeout));
        text += &format!("rise = {}\nfall = {}\n", health.rise, health.fall);
    }
    text += &format!("[[pool]]\nname = {:?}\n", pool.name);
    if let Some(health) = &pool.health {
        text += &format!("health = {:?}\n", health.name);
    }
    text += &format!("encap = \"{}\"\nmaglev_size = {}\n", pool.encap, pool.maglev_size);
    text += &format!("min_up_return = {}\n", pool.min_up_return);
    text += &format!("min_up = {}\non_down = \"{}\"\n", pool.min_up, pool.on_down);
    text += &format!("tracking = \"{}\"\n", pool.tracking);
    text += &format!("window = \"{}\"\nprepare = \"{}\"\n", t(pool.window), t(pool.prepare));
    text += "backends = [\n";
    for backend in pool.backends.values() {
        text += &format!("  {{ name = {:?}, address = \"{}\", ", backend.name, backend.address);
        text += &format!("weight = {}, state = \"{}\" }},\n", backend.weight, backend.state);
    }
    text + "]"
}

fn vip_toml(vip: &Vip) -> String {
    let VipKey { address, protocol, port } = vip.key;
    let mut text = format!("[[vip]]\nname = {:?}\naddress = \"{address}\"\n", vip.name);
    text += &match port {
        Port::Any => "ports = \"any\"\n".to_owned(),
        Port::Exact(port) => format!("ports = [{port}]\n"),
    };
    text += &format!("protocol = \"{protocol}\"\npool = {:?}\n", vip.pool);
    if protocol == Protocol::Udp {
        let timeout = format_duration(vip.flow_timeouts.udp);
        text += &format!("tracking = \"{}\"\n", vip.tracking);
        text += &format!("flow_timeout = {{ udp = \"{timeout}\" }}\n");
    }
    text
}

proptest! {
    #![proptest_config(ProptestConfig {
        failure_persistence: None,
        ..ProptestConfig::with_cases(128)
    })]

    #[test]
    fn what_is_desired_reads_back_from_toml_and_json(desired in desired()) {
        let text = to_toml(&desired);
        let loaded: Loaded = load_text(&text)
            .map_err(|report| TestCaseError::fail(format!("{}\n{text}", report.render(false))))?;
        prop_assert_eq!(&loaded.desired, &desired);
        let fail = |error: serde_json::Error| TestCaseError::fail(error.to_string());
        let json = serde_json::to_string(&desired).map_err(fail)?;
        let read: Desired = serde_json::from_str(&json).map_err(fail)?;
        prop_assert_eq!(read, desired);
    }

    #[test]
    fn a_damaged_file_makes_a_report_and_nothing_worse(
        cuts in prop::collection::vec((any::<Index>(), 0..40_usize, "[\\PC\n]{0,6}"), 1..5)
    ) {
        let mut text = with_bgp(reference::example());
        for (start, length, inserted) in cuts {
            let floor = |mut at: usize| {
                while !text.is_char_boundary(at) {
                    at -= 1;
                }
                at
            };
            let start = floor(start.index(text.len() + 1));
            let end = floor((start + length).min(text.len())).max(start);
            text.replace_range(start..end, &inserted);
        }
        let report = match load_text(&text) {
            Ok(loaded) => loaded.warnings,
            Err(report) => {
                prop_assert!(report.has_errors());
                report
            }
        };
        prop_assert_eq!(report.is_empty(), report.render(true).is_empty());
        prop_assert_eq!(report.views().len(), report.findings().len());
    }
}

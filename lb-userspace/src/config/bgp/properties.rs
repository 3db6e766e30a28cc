//! BGP settings of every kind for the properties of the room, and the text they are written as.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;
use proptest::prelude::*;
use proptest::sample::{Index, select};

use crate::bgp::community::{Community, ExtendedCommunity, LargeCommunity};
use crate::desired::bgp::{
    AttributeSettings, Bfd, Bgp, Guards, Lower, Peer, PrefixSettings, limits,
};
use crate::desired::{LastAnnouncer, OnShutdown, format_duration};

const LOCAL_AS: u32 = 64_496;

fn seconds(range: std::ops::RangeInclusive<u64>) -> impl Strategy<Value = Duration> {
    range.prop_map(Duration::from_secs)
}

/// Few enough that six layers together stay below every limit.
fn attributes() -> impl Strategy<Value = AttributeSettings> {
    let communities = (
        prop::collection::btree_set(any::<u32>().prop_map(Community), 0..3),
        prop::collection::btree_set(
            any::<(u32, u32, u32)>().prop_map(|(global, data1, data2)| LargeCommunity {
                global,
                data1,
                data2,
            }),
            0..3,
        ),
        prop::collection::btree_set(any::<[u8; 8]>().prop_map(ExtendedCommunity), 0..3),
    );
    let numbers = (0..=2_u8, prop::option::of(any::<u32>()), prop::option::of(any::<u32>()));
    let next_hops = (prop::option::of(1..100_u8), prop::option::of(1..100_u16));
    (communities, numbers, next_hops).prop_map(
        |((communities, large_communities, extended_communities), numbers, (v4, v6))| {
            let (prepend, med, local_preference) = numbers;
            AttributeSettings {
                communities,
                large_communities,
                extended_communities,
                prepend,
                med,
                local_preference,
                next_hop4: v4.map(|low| Ipv4Addr::new(192, 0, 2, low).into()),
                next_hop6: v6.map(|low| Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, low).into()),
            }
        },
    )
}

fn peer() -> impl Strategy<Value = Peer> {
    let bfd = (10..=10_000_u64, 2..=50_u8)
        .prop_map(|(ms, multiplier)| Bfd { interval: Duration::from_millis(ms), multiplier });
    let session = (1..=u16::MAX, select(vec![64_500, 64_501, LOCAL_AS]), 1..=254_u8);
    let flags = any::<[bool; 8]>();
    let numbers = (seconds(3..=65_535), 1..=10_000_000_u32);
    let poison = prop::collection::btree_set(64_502..=64_511_u32, 0..3);
    (session, flags, numbers, prop::option::of(bfd), attributes(), poison).prop_map(
        |(
            (port, remote_as, hops),
            flags,
            (hold_time, max_prefixes),
            bfd,
            mut attributes,
            poison,
        )| {
            let [v6, local, passive, ttl_security, has_password, monitor, other, extended] = flags;
            // The session's family first; its address follows from the peer's number.
            let address: IpAddr =
                if v6 { Ipv6Addr::LOCALHOST.into() } else { Ipv4Addr::LOCALHOST.into() };
            if other && v6 && !extended {
                attributes.next_hop4 = Some(Ipv4Addr::new(192, 0, 2, 200).into());
            } else if other && !v6 {
                attributes.next_hop6 = Some(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 9).into());
            } else if extended && v6 {
                attributes.next_hop4 = attributes.next_hop6;
            }
            Peer {
                name: String::new(),
                address,
                port,
                remote_as,
                local_address: local.then_some(address),
                passive,
                hops: if bfd.is_some() { 1 } else { hops },
                ttl_security,
                has_password,
                hold_time,
                ipv4: !v6 || other,
                ipv6: v6 || other,
                extended_next_hop: extended && v6,
                bfd,
                attributes,
                monitor,
                max_prefixes,
                poison_allowed: if remote_as == LOCAL_AS { BTreeSet::new() } else { poison },
            }
        },
    )
}

fn peers() -> impl Strategy<Value = BTreeMap<String, Peer>> {
    prop::collection::vec(peer(), 1..5).prop_map(|peers| {
        let named = (200..).zip(peers).map(|(number, mut peer)| {
            peer.name = format!("edge{number}");
            peer.address = match peer.address {
                IpAddr::V4(_) => Ipv4Addr::new(192, 0, 2, number).into(),
                IpAddr::V6(_) => Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, number.into()).into(),
            };
            let ours = |it| match it {
                IpAddr::V4(_) => IpAddr::from([192, 0, 2, 11]),
                IpAddr::V6(_) => Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x11).into(),
            };
            peer.local_address = peer.local_address.map(ours);
            (peer.name.clone(), peer)
        });
        named.collect()
    })
}

fn guards() -> impl Strategy<Value = Guards> {
    (1..=100_000_u32, seconds(1..=86_400), seconds(0..=3_600), seconds(0..=900)).prop_map(
        |(breaker_max, breaker_window, interval, backoff)| Guards {
            breaker_max,
            breaker_window,
            interval,
            backoff,
            backoff_max: backoff * 2,
        },
    )
}

fn lower() -> impl Strategy<Value = Lower> {
    let communities = prop::collection::btree_set(any::<u32>().prop_map(Community), 0..3);
    (seconds(0..=600), any::<bool>(), communities, 0..=2_u8).prop_map(
        |(time, graceful_shutdown, communities, prepend)| Lower {
            time,
            graceful_shutdown,
            communities,
            prepend,
        },
    )
}

type PrefixSeed = (Index, u8, bool, AttributeSettings, Option<(Index, AttributeSettings)>);

fn prefix() -> impl Strategy<Value = PrefixSeed> {
    let of_peer = prop::option::of((any::<Index>(), attributes()));
    (any::<Index>(), 9..=128_u8, any::<bool>(), attributes(), of_peer)
}

fn last_announcer(keep: bool) -> LastAnnouncer {
    if keep { LastAnnouncer::Keep } else { LastAnnouncer::Withdraw }
}

/// Prefixes around VIPs.
fn prefixes(
    seeds: Vec<PrefixSeed>,
    vips: &[IpAddr],
    peers: &BTreeMap<String, Peer>,
) -> BTreeMap<IpNet, PrefixSettings> {
    let names: Vec<&String> = peers.keys().collect();
    let mut prefixes = BTreeMap::new();
    for (vip, length, keep, attributes, of_peer) in seeds {
        if vips.is_empty() {
            break;
        }
        let vip = *vip.get(vips);
        let length = if vip.is_ipv4() { length % 24 + 9 } else { length };
        let prefix = IpNet::new(vip, length).unwrap().trunc();
        let of_peer = of_peer.map(|(name, layer)| ((*name.get(&names)).clone(), layer));
        let settings = PrefixSettings {
            last_announcer: last_announcer(keep),
            attributes,
            peers: of_peer.into_iter().collect(),
        };
        prefixes.insert(prefix, settings);
    }
    prefixes
}

/// BGP settings for a node with these VIP addresses, 192.0.2.11 and 2001:db8::11.
pub(in crate::config) fn bgp(vips: Vec<IpAddr>) -> impl Strategy<Value = Bgp> {
    let restart = prop::option::of(seconds(1..=limits::MAX_RESTART_TIME.as_secs()));
    let speaker = (any::<bool>(), restart, any::<bool>(), seconds(0..=600), any::<bool>());
    let layers = (attributes(), attributes(), prop::collection::vec(attributes(), 0..4));
    let seeds = prop::collection::vec(prefix(), 0..4);
    (speaker, layers, lower(), guards(), peers(), seeds, any::<bool>()).prop_map(
        move |(speaker, (attributes, hosts, shedding), lower, guards, peers, seeds, keep)| {
            let (dry_run, graceful_restart, on_shutdown, linger, vrps) = speaker;
            let keeps = on_shutdown && graceful_restart.is_some();
            Bgp {
                local_as: LOCAL_AS,
                router_id: Ipv4Addr::new(192, 0, 2, 99),
                listen: vec![([0, 0, 0, 0], 179).into(), ([0_u16; 8], 179).into()],
                dry_run,
                graceful_restart,
                on_shutdown: if keeps { OnShutdown::Keep } else { OnShutdown::Withdraw },
                lower,
                linger,
                attributes,
                shedding,
                guards,
                // Where the payloads of the tests make nothing Invalid.
                vrp_file: vrps.then(|| PathBuf::from("/vrps/none")),
                prefixes: prefixes(seeds, &vips, &peers),
                peers,
                host_routes: PrefixSettings {
                    last_announcer: last_announcer(keep),
                    attributes: hosts,
                    peers: BTreeMap::new(),
                },
            }
        },
    )
}

/// The keys of a layer, one a line.
fn layer(attributes: &AttributeSettings) -> Vec<String> {
    fn list<T: ToString>(items: &BTreeSet<T>) -> Vec<String> {
        items.iter().map(ToString::to_string).collect()
    }
    let mut lines = vec![
        format!("communities = {:?}", list(&attributes.communities)),
        format!("large_communities = {:?}", list(&attributes.large_communities)),
        format!("extended_communities = {:?}", list(&attributes.extended_communities)),
        format!("prepend = {}", attributes.prepend),
    ];
    lines.extend(attributes.med.map(|it| format!("med = {it}")));
    lines.extend(attributes.local_preference.map(|it| format!("local_preference = {it}")));
    lines.extend(attributes.next_hop4.map(|it| format!("next_hop4 = \"{it}\"")));
    lines.extend(attributes.next_hop6.map(|it| format!("next_hop6 = \"{it}\"")));
    lines
}

/// Writes every key, none by default.
pub(in crate::config) fn to_toml(bgp: &Bgp) -> String {
    let t = |duration: Duration| format!("\"{}\"", format_duration(duration));
    let listen: Vec<String> = bgp.listen.iter().map(ToString::to_string).collect();
    let communities: Vec<String> = bgp.lower.communities.iter().map(ToString::to_string).collect();
    let guards = &bgp.guards;
    let mut lines = vec![
        format!("[bgp]\nlocal_as = {}\nrouter_id = \"{}\"", bgp.local_as, bgp.router_id),
        format!("listen = {listen:?}\ndry_run = {}", bgp.dry_run),
        format!("graceful_restart = {}", bgp.graceful_restart.map_or("\"off\"".to_owned(), t)),
        format!("on_shutdown = \"{}\"\nlinger = {}", bgp.on_shutdown, t(bgp.linger)),
    ];
    lines.extend(bgp.vrp_file.iter().map(|path| format!("vrp_file = {path:?}")));
    lines.extend(layer(&bgp.attributes));
    lines.extend([
        format!("[bgp.lower]\ntime = {}", t(bgp.lower.time)),
        format!("graceful_shutdown = {}", bgp.lower.graceful_shutdown),
        format!("communities = {communities:?}\nprepend = {}", bgp.lower.prepend),
        format!("[bgp.guards]\nbreaker_max = {}", guards.breaker_max),
        format!("breaker_window = {}", t(guards.breaker_window)),
        format!("interval = {}\nbackoff = {}", t(guards.interval), t(guards.backoff)),
        format!("backoff_max = {}", t(guards.backoff_max)),
        format!("[bgp.host_routes]\nlast_announcer = \"{}\"", bgp.host_routes.last_announcer),
    ]);
    lines.extend(layer(&bgp.host_routes.attributes));
    for level in &bgp.shedding {
        lines.push("[[bgp.shedding]]".to_owned());
        lines.extend(layer(level));
    }
    for peer in bgp.peers.values() {
        lines.extend(peer_toml(peer));
    }
    for (prefix, settings) in &bgp.prefixes {
        lines.push(format!("[[bgp.prefix]]\nprefix = \"{prefix}\""));
        lines.push(format!("last_announcer = \"{}\"", settings.last_announcer));
        lines.extend(layer(&settings.attributes));
        let peers = settings.peers.iter();
        let peers = peers.map(|(name, it)| format!("{name} = {{ {} }}", layer(it).join(", ")));
        lines.push(format!("peers = {{ {} }}", peers.collect::<Vec<_>>().join(", ")));
    }
    lines.join("\n")
}

fn peer_toml(peer: &Peer) -> Vec<String> {
    let t = |duration: Duration| format!("\"{}\"", format_duration(duration));
    let families = [(peer.ipv4, "ipv4"), (peer.ipv6, "ipv6")].into_iter();
    let families: Vec<&str> = families.filter(|(on, _)| *on).map(|(_, family)| family).collect();
    let mut lines = vec![
        format!("[[bgp.peer]]\nname = {:?}\naddress = \"{}\"", peer.name, peer.address),
        format!("port = {}\nremote_as = {}", peer.port, peer.remote_as),
        format!("passive = {}\nhops = {}", peer.passive, peer.hops),
        format!("ttl_security = {}\nhold_time = {}", peer.ttl_security, t(peer.hold_time)),
        format!("families = {families:?}\nextended_next_hop = {}", peer.extended_next_hop),
        format!("monitor = {}\nmax_prefixes = {}", peer.monitor, peer.max_prefixes),
        format!("poison_allowed = {:?}", peer.poison_allowed.iter().collect::<Vec<_>>()),
    ];
    if peer.has_password {
        lines.push("password_file = \"/password/edge\"".to_owned());
    }
    lines.extend(peer.local_address.map(|it| format!("local_address = \"{it}\"")));
    lines.extend(peer.bfd.map(|bfd| {
        let interval = t(bfd.interval);
        format!("bfd = {{ interval = {interval}, multiplier = {} }}", bfd.multiplier)
    }));
    lines.extend(layer(&peer.attributes));
    lines
}

//! The resolver against the kernel it runs on, in network namespaces.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use rtnetlink::packet_core::{NLM_F_ACK, NLM_F_REQUEST, NetlinkMessage};
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::packet_route::link::LinkAttribute;
use rtnetlink::packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourExtFlags, NeighbourMessage, NeighbourState,
};
use rtnetlink::packet_route::route::{RouteAttribute, RouteMetric, RouteType};
use rtnetlink::{LinkUnspec, RouteMessageBuilder, RouteNextHopBuilder};

use super::lab::{self, FAR_MAC, Lab, NEAR_MAC, Watched};
use crate::host::netlink::codec;
use crate::host::netlink::neighbours::Key;
use crate::host::netlink::{
    Held, HostEvent, NEIGHBOUR_PROTOCOL, NeighbourMode, links, path_mtus, release_all_but,
};

const OTHER_MAC: [u8; 6] = [2, 0, 0, 0, 0, 0x77];

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

fn route(destination: &str, length: u8) -> RouteMessageBuilder<IpAddr> {
    RouteMessageBuilder::<IpAddr>::new()
        .destination_prefix(ip(destination), length)
        .expect("a prefix")
}

fn via(destination: &str, length: u8, gateway: &str) -> RouteMessageBuilder<IpAddr> {
    route(destination, length).gateway(ip(gateway)).expect("a gateway")
}

async fn add(lab: &Lab, route: RouteMessageBuilder<IpAddr>) {
    lab.near.route().add(route.build()).replace().execute().await.expect("a route added");
}

async fn delete(lab: &Lab, route: RouteMessageBuilder<IpAddr>) {
    lab.near.route().del(route.build()).execute().await.expect("a route removed");
}

fn ours(entry: &NeighbourMessage) -> bool {
    entry.attributes.iter().any(|attribute| {
        matches!(attribute, NeighbourAttribute::Protocol(protocol)
            if u8::from(*protocol) == NEIGHBOUR_PROTOCOL)
    })
}

fn managed(entry: &NeighbourMessage) -> bool {
    entry.attributes.contains(&NeighbourAttribute::ExtFlags(NeighbourExtFlags::Managed))
}

fn is_for(entry: &NeighbourMessage, address: &str) -> bool {
    entry.attributes.contains(&NeighbourAttribute::Destination(NeighbourAddress::from(ip(address))))
}

#[test]
fn on_link_backends_resolve_and_are_held() {
    lab::run(|lab| async move {
        let mut watched = Watched::start(
            NeighbourMode::Managed,
            &["10.9.0.2", "fd09::2", "10.9.0.1", "192.0.2.1"],
        );
        watched.until_mac("10.9.0.2", FAR_MAC).await;
        watched.until_mac("fd09::2", FAR_MAC).await;
        watched.until_code("10.9.0.1", "not_remote").await;
        watched.until_code("192.0.2.1", "no_route").await;
        assert_eq!(watched.mode, Some(NeighbourMode::Managed));
        let hop = watched.latest[&ip("10.9.0.2")].clone().expect("resolved");
        assert_eq!(hop.source_mac, NEAR_MAC);
        assert_eq!(hop.interface_index, lab.near_index().await);
        assert_eq!(hop.mtu, 1_500);
        let entries = lab.near_neighbours().await;
        for address in ["10.9.0.2", "fd09::2"] {
            let entry = entries.iter().find(|entry| is_for(entry, address)).expect("an entry");
            assert!(ours(entry) && managed(entry), "{entry:?}");
        }

        // The resolver's end leaves the entries; a later one takes them over; unloading does not.
        drop(watched);
        assert_eq!(release_all_but(&Held::default()).await.expect("released"), 2);
        assert!(!lab.near_neighbours().await.iter().any(ours));
        assert_eq!(release_all_but(&Held::default()).await.expect("released"), 0);
    });
}

#[test]
fn a_later_resolver_takes_the_entries_over_as_they_are() {
    lab::run(|lab| async move {
        let mut first = Watched::start(NeighbourMode::Managed, &["10.9.0.2", "fd09::2"]);
        first.until_mac("10.9.0.2", FAR_MAC).await;
        first.until_mac("fd09::2", FAR_MAC).await;
        drop(first);
        assert_eq!(lab.near_neighbours().await.iter().filter(|entry| ours(entry)).count(), 2);
        let mut second = Watched::start(NeighbourMode::Managed, &["10.9.0.2", "fd09::2"]);
        second.until_mac("10.9.0.2", FAR_MAC).await;
        second.until_mac("fd09::2", FAR_MAC).await;
        assert_eq!(second.resolver.counters().neighbour_changes.load(Relaxed), 0);
    });
}

#[test]
fn a_new_mac_is_followed() {
    lab::run(|lab| async move {
        lab.far_setting("ipv4/conf/far0/arp_notify", "1");
        let mut watched = Watched::start(NeighbourMode::Managed, &["10.9.0.2"]);
        watched.until_mac("10.9.0.2", FAR_MAC).await;
        // Within a second the kernel would take the announcement for a forgery of the first answer.
        Lab::near_setting("ipv4/neigh/near0/locktime", "0");
        lab.set_mac(OTHER_MAC).await;
        watched.until_mac("10.9.0.2", OTHER_MAC).await;
    });
}

#[test]
fn a_silent_new_mac_is_found_by_the_kernel_alone() {
    lab::run(|lab| async move {
        for family in ["ipv4", "ipv6"] {
            Lab::near_setting(&format!("{family}/neigh/near0/base_reachable_time_ms"), "200");
            Lab::near_setting(&format!("{family}/neigh/near0/delay_first_probe_time"), "1");
            Lab::near_setting(&format!("{family}/neigh/near0/retrans_time_ms"), "50");
        }
        let mut watched = Watched::start(NeighbourMode::Managed, &["10.9.0.2", "fd09::2"]);
        watched.until_mac("10.9.0.2", FAR_MAC).await;
        watched.until_mac("fd09::2", FAR_MAC).await;
        // No resolver, no traffic: only the kernel's own probing can notice.
        drop(watched);
        lab.set_mac(OTHER_MAC).await;
        let mac = NeighbourAttribute::LinkLayerAddress(OTHER_MAC.to_vec());
        let deadline = crate::host::clock::boot_time() + Duration::from_secs(30);
        loop {
            let entries = lab.near_neighbours().await;
            let new = |address| {
                entries
                    .iter()
                    .any(|e| is_for(e, address) && managed(e) && e.attributes.contains(&mac))
            };
            if new("10.9.0.2") && new("fd09::2") {
                break;
            }
            assert!(crate::host::clock::boot_time() < deadline, "not noticed: {entries:?}");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    });
}

#[test]
fn routes_are_followed() {
    lab::run(|lab| async move {
        lab.far_address("10.9.0.3", 24).await;
        let destinations = ["172.16.0.1", "172.16.0.2", "fd16::1"];
        let mut watched = Watched::start(NeighbourMode::Managed, &destinations);
        watched.until_code("172.16.0.1", "no_route").await;
        watched.until_code("fd16::1", "no_route").await;

        add(&lab, via("172.16.0.0", 24, "10.9.0.2")).await;
        add(&lab, via("fd16::", 64, "fd09::2")).await;
        watched.until_mac("172.16.0.1", FAR_MAC).await;
        watched.until_mac("172.16.0.2", FAR_MAC).await;
        watched.until_mac("fd16::1", FAR_MAC).await;

        let mut refusing = route("172.16.0.1", 32);
        refusing.get_mut().header.kind = RouteType::Unreachable;
        add(&lab, refusing).await;
        watched.until_code("172.16.0.1", "unreachable").await;
        assert!(watched.latest[&ip("172.16.0.2")].is_ok());

        let mut hole = route("fd16::1", 128);
        hole.get_mut().header.kind = RouteType::BlackHole;
        add(&lab, hole).await;
        watched.until_code("fd16::1", "unreachable").await;

        delete(&lab, via("172.16.0.0", 24, "10.9.0.2")).await;
        watched.until_code("172.16.0.2", "no_route").await;
    });
}

#[test]
fn ipv4_by_way_of_an_ipv6_gateway() {
    lab::run(|lab| async move {
        let mut route = route("172.16.0.0", 24);
        let via = RouteAttribute::Via(ip("fd09::2").into());
        route.get_mut().attributes.push(via);
        let route = route.output_interface(lab.near_index().await);
        add(&lab, route).await;
        let mut watched = Watched::start(NeighbourMode::Managed, &["172.16.0.1"]);
        watched.until_mac("172.16.0.1", FAR_MAC).await;
    });
}

#[test]
fn the_mtu_is_the_smaller_one_of_route_and_link() {
    lab::run(|lab| async move {
        let mut narrow = via("172.16.0.0", 24, "10.9.0.2");
        narrow.get_mut().attributes.push(RouteAttribute::Metrics(vec![RouteMetric::Mtu(1_400)]));
        add(&lab, narrow).await;
        let mut watched = Watched::start(NeighbourMode::Managed, &["172.16.0.1", "10.9.0.2"]);
        watched.until_mac("172.16.0.1", FAR_MAC).await;
        watched.until_mac("10.9.0.2", FAR_MAC).await;
        assert_eq!((watched.mtu("172.16.0.1"), watched.mtu("10.9.0.2")), (1_400, 1_500));

        lab::set_mtu(&lab.near, "near0", 1_350).await;
        watched.until("the new MTU", |watched| watched.mtu("10.9.0.2") == 1_350).await;
        watched.until("the new MTU", |watched| watched.mtu("172.16.0.1") == 1_350).await;

        let paths = path_mtus(&BTreeSet::from([ip("172.16.0.1"), ip("192.0.2.1")])).await;
        let paths = paths.expect("looked up");
        let path = paths[&ip("172.16.0.1")].clone().expect("a path");
        assert_eq!(
            (&*path.interface, path.gateway, path.mtu),
            ("near0", Some(ip("10.9.0.2")), 1_350)
        );
        assert!(paths[&ip("192.0.2.1")].is_err());
    });
}

#[test]
fn a_dead_gateway_of_several_is_passed_over() {
    lab::run(|lab| async move {
        Lab::near_setting("ipv4/neigh/near0/retrans_time_ms", "50");
        let near = lab.near_index().await;
        let hop = |gateway: &str| {
            let hop = RouteNextHopBuilder::new_ipv4().interface(near);
            hop.via(ip(gateway)).expect("a gateway").build()
        };
        // Nobody has 10.9.0.9.
        add(&lab, route("172.16.0.0", 24).multipath(vec![hop("10.9.0.9"), hop("10.9.0.2")])).await;
        let backends: Vec<String> = (1..=16).map(|host| format!("172.16.0.{host}")).collect();
        let backends: Vec<&str> = backends.iter().map(String::as_str).collect();
        let mut watched = Watched::start(NeighbourMode::Managed, &backends);
        for backend in backends {
            watched.until_mac(backend, FAR_MAC).await;
        }
    });
}

#[test]
fn links_that_go_down_and_up() {
    lab::run(|lab| async move {
        let mut watched = Watched::start(NeighbourMode::Managed, &["10.9.0.2"]);
        watched.resolver.watch_interfaces(&["near0".into(), "absent0".into()]);
        watched.until_mac("10.9.0.2", FAR_MAC).await;
        let gone = |watched: &Watched, name: &str| {
            watched.links.iter().any(|e| matches!(e, HostEvent::LinkGone(n) if **n == *name))
        };
        watched.until("absent0 gone", |watched| gone(watched, "absent0")).await;
        watched
            .until("near0 up", |watched| {
                watched
                    .links
                    .iter()
                    .any(|e| matches!(e, HostEvent::LinkUp(l) if &*l.name == "near0"))
            })
            .await;
        lab.near_up(false).await;
        watched.until("down", |watched| watched.latest[&ip("10.9.0.2")].is_err()).await;
        lab.near_up(true).await;
        // The kernel dropped the entry along with the carrier; it is held again.
        watched.until_mac("10.9.0.2", FAR_MAC).await;
        let near = lab.near_index().await;
        lab.near.link().del(near).execute().await.expect("near0 removed");
        watched.until("near0 gone", |watched| gone(watched, "near0")).await;
        assert!(!links().await.expect("links").contains_key("near0"));
    });
}

#[test]
fn somebody_elses_permanent_entry_is_left_alone() {
    lab::run(|lab| async move {
        let near = lab.near_index().await;
        let add = lab.near.neighbours().add(near, ip("10.9.0.5")).link_layer_address(&OTHER_MAC);
        add.execute().await.expect("a permanent entry");
        let mut watched = Watched::start(NeighbourMode::Managed, &["10.9.0.5", "10.9.0.2"]);
        watched.until_mac("10.9.0.5", OTHER_MAC).await;
        watched.until_mac("10.9.0.2", FAR_MAC).await;
        let entries = lab.near_neighbours().await;
        let entry = entries.iter().find(|entry| is_for(entry, "10.9.0.5")).expect("the entry");
        assert!(entry.header.state == NeighbourState::Permanent && !managed(entry) && !ours(entry));
    });
}

#[test]
fn without_managed_entries_they_are_pinned() {
    lab::run(|lab| async move {
        let mut watched = Watched::start(NeighbourMode::Permanent, &["10.9.0.2"]);
        watched.until_mac("10.9.0.2", FAR_MAC).await;
        assert_eq!(watched.mode, Some(NeighbourMode::Permanent));
        let deadline = crate::host::clock::boot_time() + Duration::from_secs(10);
        loop {
            let entries = lab.near_neighbours().await;
            let entry = entries.iter().find(|entry| is_for(entry, "10.9.0.2")).expect("an entry");
            if entry.header.state == NeighbourState::Permanent && ours(entry) {
                break;
            }
            assert!(crate::host::clock::boot_time() < deadline, "not pinned: {entry:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
}

#[test]
fn lost_notifications_are_made_up_for() {
    lab::run(|lab| async move {
        let mut watched = Watched::start(NeighbourMode::Managed, &["10.9.0.2"]);
        watched.until_mac("10.9.0.2", FAR_MAC).await;
        // The resolver cannot run while this thread floods its buffer, so that the change after
        // the flood is certainly lost.
        let near = lab.near_index().await;
        let flood = (0..100_000_u32).map(|n| {
            let address = IpAddr::V4((0x0b00_0000 | n & 0xfff).into());
            codec::neighbour_pin(&Key { interface: near, address }, mac_of(n))
        });
        lab::ask_all(flood);
        let mut change = LinkUnspec::new_with_index(near).build();
        change.attributes.push(LinkAttribute::Mtu(1_360));
        let mut change = NetlinkMessage::from(RouteNetlinkMessage::SetLink(change));
        change.header.flags = NLM_F_REQUEST | NLM_F_ACK;
        lab::ask_all(std::iter::once(change));
        watched.until("the lost change", |watched| watched.mtu("10.9.0.2") == 1_360).await;
        let overruns = &watched.resolver.counters().overruns;
        assert!(overruns.load(Relaxed) > 0, "{:?}", watched.resolver.counters());
    });
}

#[test]
fn thirty_thousand_backends_on_the_link() {
    lab::run(|lab| async move {
        lab.far_owns(route("172.16.0.0", 12)).await;
        let on_link = route("172.16.0.0", 12).output_interface(lab.near_index().await);
        add(&lab, on_link).await;
        let backends = backends(30_000);
        let backends: Vec<&str> = backends.iter().map(String::as_str).collect();
        let start = crate::host::clock::boot_time();
        let mut watched = Watched::start(NeighbourMode::Managed, &backends);
        let complete = |watched: &Watched| {
            watched.latest.len() == 30_000 && watched.latest.values().all(Result::is_ok)
        };
        watched.until("all", complete).await;
        println!("30,000 neighbours in {:?}", crate::host::clock::boot_time() - start);
        println!("{:?}", watched.resolver.counters());
        let held = lab.near_neighbours().await.iter().filter(|e| ours(e) && managed(e)).count();
        assert_eq!(held, 30_000);
        drop(watched);
        let start = crate::host::clock::boot_time();
        assert_eq!(release_all_but(&Held::default()).await.expect("released"), 30_000);
        println!("released in {:?}", crate::host::clock::boot_time() - start);
    });
}

fn mac_of(n: u32) -> [u8; 6] {
    let [a, b, c, d] = n.to_be_bytes();
    [2, 1, a, b, c, d]
}

fn backends(count: u32) -> Vec<String> {
    (0..count).map(|n| format!("172.{}.{}.{}", 16 + (n >> 16), (n >> 8) & 255, n & 255)).collect()
}

#[test]
fn thirty_thousand_backends_behind_one_gateway() {
    lab::run(|lab| async move {
        add(&lab, via("172.16.0.0", 12, "10.9.0.2")).await;
        let backends = backends(30_000);
        let backends: Vec<&str> = backends.iter().map(String::as_str).collect();
        let start = crate::host::clock::boot_time();
        let mut watched = Watched::start(NeighbourMode::Managed, &backends);
        let complete = |watched: &Watched| {
            watched.latest.len() == 30_000 && watched.latest.values().all(Result::is_ok)
        };
        watched.until("all", complete).await;
        println!("30,000 next hops in {:?}", crate::host::clock::boot_time() - start);

        // One neighbour event must reach all of them without a single question about a route.
        let asked = watched.resolver.counters().lookups.load(Relaxed);
        lab.far_setting("ipv4/conf/far0/arp_notify", "1");
        Lab::near_setting("ipv4/neigh/near0/locktime", "0");
        lab.set_mac(OTHER_MAC).await;
        let start = crate::host::clock::boot_time();
        watched
            .until("the new MAC everywhere", |watched| {
                watched.latest.values().flatten().all(|hop| hop.destination_mac == OTHER_MAC)
            })
            .await;
        println!("a new MAC for 30,000 in {:?}", crate::host::clock::boot_time() - start);
        assert_eq!(watched.resolver.counters().lookups.load(Relaxed), asked);
    });
}

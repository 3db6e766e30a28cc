//! Tables of slots and of VIPs, published over and over.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use lb_common::backend::BackendId;
use lb_common::headers::protocol::{TCP, UDP};
use lb_common::{MAX_POOLS, MAX_VIPS};
use proptest::prelude::*;

use super::super::{Dataplane, Error, Sizes, VipSpec, VipTracking};
use super::{Random, control, settings, with_flows};

pub(super) fn vip(number: u16, address: &str, port: Option<u16>, pool: u16) -> VipSpec {
    VipSpec {
        number,
        address: address.parse().unwrap(),
        protocol: TCP,
        port,
        pool,
        tracking: VipTracking::Slot,
        asks: false,
        udp_idle: Duration::from_secs(30),
    }
}

/// The live table of a pool: slots, histories' bases, generation.
fn live(dataplane: &Dataplane, pool: u16) -> (Vec<u16>, Vec<u16>, u32) {
    let pool = &control(dataplane).pools[usize::from(pool)];
    let table = pool.tables[(pool.live & 1) as usize];
    let slots = (0..table.slots).map(|slot| {
        let row = dataplane.memory.slots.get((table.first_row + slot / 32) as usize).unwrap();
        row[(slot % 32) as usize].0
    });
    let bases = (0..table.slots).map(|slot| {
        let row = dataplane.memory.history.get((table.first_row * 4 + slot / 8) as usize).unwrap();
        row[(slot % 8) as usize].base.0
    });
    (slots.collect(), bases.collect(), table.generation)
}

#[test]
fn tables_of_many_sizes_never_touch_each_other() {
    let sizes = Sizes::with_room(4_000, 100, 10, 8);
    let mut dataplane = Dataplane::in_memory(&sizes);
    let mut random = Random(1);
    let mut wanted: BTreeMap<u16, (Vec<u16>, Vec<u16>, u32)> = BTreeMap::new();
    for generation in 0..2_000 {
        let pool = u16::try_from(random.below(8)).unwrap();
        if random.below(8) == 0 {
            dataplane.remove_pool(pool).unwrap();
            wanted.remove(&pool);
        } else {
            let count = usize::try_from(1 + random.below(240)).unwrap();
            let slots: Vec<u16> = (0..count).map(|_| random_u16(&mut random)).collect();
            let history: Vec<[u16; 4]> =
                (0..count).map(|_| [random_u16(&mut random) & 0x7fff, 1, 2, 3]).collect();
            dataplane.publish_table(pool, &slots, &history, generation).unwrap();
            let bases = history.iter().map(|history| history[0]).collect();
            wanted.insert(pool, (slots, bases, generation));
        }
        for (pool, wanted) in &wanted {
            assert_eq!(&live(&dataplane, *pool), wanted, "pool {pool}");
        }
        for pool in (0..8).filter(|pool| !wanted.contains_key(pool)) {
            assert_eq!(live(&dataplane, pool).0, Vec::<u16>::new());
        }
    }
}

#[test]
fn every_pool_has_room_twice() {
    let sizes = Sizes::with_room(2 * 256 * 251, 100, 10, 8);
    let mut dataplane = Dataplane::in_memory(&sizes);
    for generation in 0..3 {
        for pool in 0..u16::try_from(MAX_POOLS).unwrap() {
            let slots = vec![pool; 251];
            dataplane.publish_table(pool, &slots, &[[0; 4]; 251], generation).unwrap();
        }
    }
    for pool in 0..u16::try_from(MAX_POOLS).unwrap() {
        assert_eq!(live(&dataplane, pool).0, vec![pool; 251]);
    }
}

#[test]
fn a_table_that_does_not_fit_changes_nothing() {
    let mut dataplane = Dataplane::in_memory(&Sizes::with_room(100, 10, 10, 8));
    dataplane.publish_table(1, &[7; 50], &[[0; 4]; 50], 1).unwrap();
    let large = vec![8; 100_000];
    let history = vec![[0; 4]; 100_000];
    let result = dataplane.publish_table(1, &large, &history, 2);
    assert!(matches!(result, Err(Error::NoRoom { slots: 100_000 })), "{result:?}");
    let result = dataplane.publish_table(256, &[7], &[[0; 4]], 2);
    assert!(matches!(result, Err(Error::NoPool { pool: 256 })), "{result:?}");
    assert_eq!(live(&dataplane, 1), (vec![7; 50], vec![0; 50], 1));
}

#[test]
fn a_table_without_history_reads_none() {
    let mut dataplane = with_flows(8);
    dataplane.publish_table(1, &[0x8001; 40], &[[9, 0, 0, 0]; 40], 1).unwrap();
    dataplane.publish_table(1, &[0x8001; 40], &[[0; 4]; 40], 2).unwrap();
    dataplane.publish_vips(&[vip(1, "203.0.113.1", Some(80), 1)]).unwrap();
    let trace =
        dataplane.trace("198.51.100.7:1".parse().unwrap(), "203.0.113.1:80".parse().unwrap(), TCP);
    assert_eq!(trace.unwrap().owner, BackendId(1));
}

/// Who answers, by the definition: an exact port before any.
fn model(vips: &[VipSpec], address: IpAddr, protocol: u8, port: u16) -> Option<u16> {
    let here = || vips.iter().filter(|v| v.address == address && v.protocol == protocol);
    let exact = here().find(|vip| vip.port == Some(port));
    exact.or_else(|| here().find(|vip| vip.port.is_none())).map(|vip| vip.number)
}

fn found(dataplane: &Dataplane, address: IpAddr, protocol: u8, port: u16) -> Option<u16> {
    let client: SocketAddr = match address {
        IpAddr::V4(_) => "198.51.100.7:1".parse().unwrap(),
        IpAddr::V6(_) => "[2001:db8::7]:1".parse().unwrap(),
    };
    dataplane.trace(client, SocketAddr::new(address, port), protocol).map(|trace| trace.vip)
}

fn specs() -> impl Strategy<Value = Vec<VipSpec>> {
    let one = (any::<bool>(), 0..6_u8, any::<bool>(), prop::option::of(0..6_u16));
    prop::collection::btree_set(one, 0..80).prop_map(|set| {
        let vips = (1..).zip(set).map(|(number, (v6, last, udp, port))| {
            let address =
                if v6 { format!("2001:db8::{last:x}") } else { format!("203.0.113.{last}") };
            let protocol = if udp { UDP } else { TCP };
            VipSpec { protocol, ..vip(number, &address, port, 1) }
        });
        vips.collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn a_vip_is_found_by_the_definition(first in specs(), second in specs()) {
        let mut dataplane = with_flows(8);
        dataplane.publish_table(1, &[1; 7], &[[0; 4]; 7], 1).unwrap();
        for vips in [first, second] {
            dataplane.publish_vips(&vips).unwrap();
            for v6 in [false, true] {
                for last in 0..7 {
                    let address: IpAddr = if v6 {
                        format!("2001:db8::{last:x}").parse().unwrap()
                    } else {
                        format!("203.0.113.{last}").parse().unwrap()
                    };
                    let ports = |protocol| (0..7).map(move |port| (protocol, port));
                    for (protocol, port) in [TCP, UDP, 132, 1].into_iter().flat_map(ports) {
                        let wanted = model(&vips, address, protocol, port);
                        prop_assert_eq!(found(&dataplane, address, protocol, port), wanted);
                    }
                }
            }
        }
    }
}

/// `count` VIPs, `ports` on each address, the last of each any port.
fn spread(count: u16, ports: u16, v6: bool) -> Vec<VipSpec> {
    (1..=count)
        .map(|number| {
            let (address, port) = ((number - 1) / ports, (number - 1) % ports);
            let [high, low] = address.to_be_bytes();
            let text =
                if v6 { format!("2001:db8:{address:x}::1") } else { format!("203.{high}.{low}.1") };
            let any = ports > 2 && port == ports - 1;
            let spec = vip(number, &text, (!any).then_some(1_000 + 7 * port), 1);
            let protocol = if port % 3 == 2 { UDP } else { TCP };
            VipSpec { protocol, ..spec }
        })
        .collect()
}

#[test]
fn as_many_vips_as_there_are_numbers_in_any_shape() {
    let max = u16::try_from(MAX_VIPS - 1).unwrap();
    let mut dataplane = Dataplane::in_memory(&Sizes::with_room(1_000, 10, max.into(), 8));
    dataplane.set_settings(&settings());
    dataplane.publish_table(1, &[1; 7], &[[0; 4]; 7], 1).unwrap();
    for ports in [1, 2, 3, 5, 9, 17, 33, 65, 129, 257, 513, 1_025, 2_049, max] {
        for v6 in [false, true] {
            let vips = spread(max, ports, v6);
            dataplane.publish_vips(&vips).unwrap_or_else(|error| panic!("{ports} {v6}: {error}"));
            for vip in &vips {
                let port = vip.port.unwrap_or(9);
                let found = found(&dataplane, vip.address, vip.protocol, port);
                assert_eq!(found, Some(vip.number), "{ports} {vip:?}");
            }
        }
    }
    // Growing one by one, each set is whole.
    for count in [1, 10, 100, 1_000, max] {
        dataplane.publish_vips(&spread(count, 5, false)).unwrap();
    }
}

fn random_u16(random: &mut Random) -> u16 {
    u16::try_from(random.next() & 0xffff).unwrap()
}

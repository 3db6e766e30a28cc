//! Sessions: exact routes on all three routers, peers that die, freeze, are somebody else, or
//! announce too much.

use anyhow::Result;
use lb_tests::lab::addresses::{Family, balancer};
use lb_tests::lab::bgp::{self, Routers};
use lb_tests::lab::router::Router;
use lb_tests::lab::wait;

use super::{DEADLINE, VIPS, World, plain, until_each, until_routes};

/// An AS that nobody here should be in.
const WRONG_AS: u32 = 65_011;
/// More prefixes than one, per family.
const NETWORKS: [[&str; 2]; 2] =
    [["198.18.7.0/24", "198.18.8.0/24"], ["2001:db8:f07::/48", "2001:db8:f08::/48"]];

/// Waits until every router has exactly the routes that it should have.
#[track_caller]
fn until_exact(world: &World) {
    for router in world.all() {
        for (family, prefix) in Family::BOTH.into_iter().zip(VIPS) {
            let expected = [plain(router, family)];
            until_routes(&world.lab, router, prefix, "it is exact", |it| it == expected);
        }
    }
}

#[test]
fn who_comes_back_gets_its_routes_and_who_is_somebody_else_gets_none() {
    let mut world = World::new("", "");
    until_exact(&world);
    for router in world.routers.all_mut() {
        router.kill().unwrap();
    }
    until_each(&world.lab, "it is missed", |it| it["state"] != "Established");

    // They come back in another AS: never a session, and both say why.
    let right = [bgp::bird(&[1], "", ""), bgp::frr(&[1], &[]), bgp::gobgp(&[1])];
    let own_as = ["local as 65010", "router bgp 65020", "\nas = 4200000099"];
    for (index, router) in world.routers.all_mut().into_iter().enumerate() {
        let (before, _) = own_as[index].rsplit_once(' ').unwrap();
        let wrong = right[index].replace(own_as[index], &format!("{before} {WRONG_AS}"));
        router.write(&wrong).unwrap();
        router.start_again().unwrap();
    }
    until_each(&world.lab, "the wrong AS is named", |it| {
        assert_eq!(it["counters"]["established"], 1, "a session with the wrong AS");
        it["last_error"]["text"].to_string().contains(&WRONG_AS.to_string())
    });
    for router in world.all() {
        wait::until(&format!("{} says why itself", router.name()), DEADLINE, || {
            refused(&world.routers, router)
        })
        .unwrap();
        assert!(router.peers().unwrap().values().all(|peer| !peer.established));
        assert_eq!(VIPS.map(|prefix| router.routes(prefix).unwrap()), [[], []]);
    }

    // They come back as what they should be, and get all without help.
    for (router, right) in world.routers.all_mut().into_iter().zip(&right) {
        router.kill().unwrap();
        router.write(right).unwrap();
        router.start_again().unwrap();
    }
    until_exact(&world);
}

/// Whether a router says that its AS was refused, over both families.
fn refused(routers: &Routers, router: &dyn Router) -> Result<bool> {
    if router.name() == routers.gobgp.name() {
        // GoBGP 3.10 logs no NOTIFICATION from before Established, it only counts it.
        let peers = router.peers()?;
        return Ok(peers.values().all(|it| !it.info.ends_with("NOTIFICATIONs 0")));
    }
    let log = router.log()?;
    Ok(Family::BOTH.into_iter().zip([4, 6]).all(|(family, digit)| {
        let bird = format!("lb1v{digit}: Received: Bad peer AS");
        let frr = format!("{} 2/2 (OPEN Message Error/Bad Peer AS)", balancer(family, 1));
        log.contains(&bird) || log.contains(&frr)
    }))
}

#[test]
fn who_is_silent_is_missed_after_the_hold_time() {
    let world = World::new("", "hold_time = \"3s\"\n");
    world.until_announced();
    for router in world.all() {
        router.freeze().unwrap();
    }
    until_each(&world.lab, "the silence is noticed", |it| {
        it["counters"]["flaps"]["hold_timer"] != 0 && it["state"] != "Established"
    });
    for router in world.all() {
        router.resume().unwrap();
    }
    until_each(&world.lab, "it is back", |it| it["state"] == "Established");
    until_exact(&world);
}

#[test]
fn who_announces_too_much_has_no_session_until_it_does_not() {
    let world = World::new("", "max_prefixes = 1\n");
    world.until_announced();
    // Besides our own route that FRR sends back.
    announce(&world.routers, true);
    until_each(&world.lab, "that is too much", |it| {
        it["counters"]["flaps"]["maximum_prefixes"] != 0 && it["state"] != "Established"
    });
    announce(&world.routers, false);
    until_each(&world.lab, "it is back", |it| it["state"] == "Established");
    until_exact(&world);
}

/// Has every router announce networks of its own, or not any more.
fn announce(routers: &Routers, really: bool) {
    let mut bird = bgp::bird(&[1], "", "export where source = RTS_STATIC;");
    let mut frr = ["configure terminal", "router bgp 65020", "no bgp network import-check"]
        .map(str::to_owned)
        .to_vec();
    let (no, verb) = if really { ("", "add") } else { ("no ", "del") };
    for (networks, family) in NETWORKS.into_iter().zip(["ipv4", "ipv6"]) {
        frr.push(format!("address-family {family} unicast"));
        for network in networks {
            if really {
                bird += &format!("protocol static {{ {family}; route {network} blackhole; }}\n");
            }
            frr.push(format!("{no}network {network}"));
            routers.gobgp.ask(&["global", "rib", verb, network, "-a", family]).unwrap();
        }
        frr.push("exit-address-family".to_owned());
    }
    let frr: Vec<&str> = frr.iter().map(String::as_str).collect();
    routers.frr.ask(&frr).unwrap();
    routers.bird.reconfigure(&bird).unwrap();
}

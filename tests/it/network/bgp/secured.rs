//! Secured sessions: TCP MD5 keys and GTSM, by whichever side connects.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use lb_tests::lab::addresses::{Family, balancer};
use lb_tests::lab::bgp::{self, Routers};
use lb_tests::lab::config::Pool;
use lb_tests::lab::router::{Route, Router as _};
use lb_tests::lab::{Lab, Plan, wait};

use super::super::small;
use super::{DEADLINE, LISTEN, VIPS, World, peer, told, until_peer, until_routes};

/// Packets that are dropped before an attempt counts as refused; both families try.
const ATTEMPTS: u64 = 4;

#[test]
fn keys_and_ttl_are_asked_for_whoever_connects() {
    let mut lab = Lab::new(Plan { ..small(Pool::web(1)) }).unwrap();
    let key = lab.directory().join("key");
    fs::write(&key, "s3cret\n").unwrap();
    fs::set_permissions(&key, fs::Permissions::from_mode(0o400)).unwrap();
    let key = format!("password_file = \"{}\"\n", key.display());
    // BIRD connects to us, we connect to FRR; GoBGP has no key, beside them.
    let bird = format!("{key}passive = true\nttl_security = true\n");
    let frr = format!("{key}ttl_security = true\n");
    let sessions = [bgp::both_sessions(1, &bird), bgp::both_sessions(2, &frr)].concat();
    lab.balancer(1).unwrap().bgp = bgp::speaker(LISTEN) + &sessions + &bgp::both_sessions(3, "");
    let bird = bgp::bird(&[1], "password \"s3cret\"; ttl security on;", "");
    let frr = bgp::frr(&[1], &["passive", "ttl-security hops 1", "password s3cret"]);
    let routers = Routers::start(&mut lab, &bird, &frr, &bgp::gobgp(&[1])).unwrap();
    lab.start().unwrap();
    let world = World { routers, lab };
    let (lab, routers) = (&world.lab, &world.routers);
    world.until_announced();
    let set_key = |key: &str| {
        for family in Family::BOTH {
            let change = format!("neighbor {} password {key}", balancer(family, 1));
            routers.frr.ask(&["configure terminal", "router bgp 65020", &change]).unwrap();
        }
    };
    // The wrong key is no connection at all, and lbd has tried.
    set_key("wrong");
    let tried = peer(lab, 1, "frr4")["last_error"]["at_ms"].clone();
    until_peer(lab, "frr4", "it is tried", |it| {
        it["state"] != "Established" && it["last_error"]["at_ms"] != tried
    });
    until_routes(lab, &routers.frr, VIPS[0], "no connection, no route", <[Route]>::is_empty);
    assert!(routers.frr.peers().unwrap().values().all(|peer| !peer.established));
    set_key("s3cret");
    world.until_announced();
    strangers_get_nothing(&world);
}

/// Who connects to us without what is asked for: packets are dropped, there is no session.
fn strangers_get_nothing(world: &World) {
    let (lab, bird) = (&world.lab, &world.routers.bird);
    let strangers = [
        ("password \"wrong\"; ttl security on;", "TcpExtTCPMD5Failure"),
        ("ttl security on;", "TcpExtTCPMD5NotFound"),
    ];
    for (session, counter) in strangers {
        let dropped = || lab.balancers[&1].namespace().counter(counter).unwrap();
        bird.reconfigure(&bgp::bird(&[1], session, "")).unwrap();
        for name in ["bird4", "bird6"] {
            until_peer(lab, name, "its session is over", |it| it["state"] != "Established");
        }
        let established = |name: &str| peer(lab, 1, name)["counters"]["established"].clone();
        let (before, sessions) = (dropped(), ["bird4", "bird6"].map(established));
        wait::until("it has tried, often", DEADLINE, || Ok(dropped() >= before + ATTEMPTS))
            .unwrap_or_else(|error| panic!("{session}: {counter}: {error:#}: {}", told(lab)));
        assert_eq!(["bird4", "bird6"].map(established), sessions, "{session}");
        // BIRD hears our OPEN, and may take that for a session; it has nothing of it.
        for prefix in VIPS {
            assert!(bird.routes(prefix).unwrap().is_empty(), "{session}: {prefix}");
        }
    }
    bird.reconfigure(&bgp::bird(&[1], "password \"s3cret\"; ttl security on;", "")).unwrap();
    world.until_announced();
}

//! Secured sessions: TCP MD5 keys and GTSM, by whichever side connects.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use lb_tests::lab::bgp::{self, Routers};
use lb_tests::lab::config::Pool;
use lb_tests::lab::router::Router as _;
use lb_tests::lab::{Lab, Plan, wait};
use serde_json::Value;

use super::super::small;
use super::{DEADLINE, LISTEN, VIPS, World, peer, told, until_peer};

/// Packets that are dropped before an attempt counts as refused; both families try.
const ATTEMPTS: u64 = 4;

/// FRR and GoBGP, which we connect to: with this key, and whether they secure their TTL.
fn listeners(key: &str, ttl_security: bool) -> [String; 2] {
    let password = format!("password {key}");
    let mut frr = vec!["passive", &password];
    let mut sections = "";
    if ttl_security {
        frr.push("ttl-security hops 1");
        sections = "[neighbors.ttl-security.config]\nenabled = true\nttl-min = 255\n";
    }
    let config = format!("auth-password = \"{key}\"");
    [bgp::frr(&[1], &frr), bgp::gobgp_with(&[1], &config, sections)]
}

#[test]
fn keys_and_ttl_are_asked_for_whoever_connects() {
    let mut lab = Lab::new(Plan { ..small(Pool::web(1)) }).unwrap();
    let key = lab.directory().join("key");
    fs::write(&key, "s3cret\n").unwrap();
    fs::set_permissions(&key, fs::Permissions::from_mode(0o400)).unwrap();
    let secured = format!("password_file = \"{}\"\nttl_security = true\n", key.display());
    // BIRD connects to us, we connect to the others.
    let bird = format!("{secured}passive = true\n");
    let sessions = [(1, &bird), (2, &secured), (3, &secured)];
    let sessions = sessions.map(|(number, lines)| bgp::both_sessions(number, lines));
    lab.balancer(1).unwrap().bgp = bgp::speaker(LISTEN) + &sessions.concat();
    let bird = bgp::bird(&[1], "password \"s3cret\"; ttl security on;", "");
    let [frr, gobgp] = listeners("s3cret", true);
    let routers = Routers::start(&mut lab, &bird, &frr, &gobgp).unwrap();
    lab.start().unwrap();
    let mut world = World { routers, lab };
    world.until_announced();
    strangers_get_nothing(&world);
    strangers_are_not_connected_to(&mut world);
}

/// Whom we connect to without their having what is asked for: there is no session.
fn strangers_are_not_connected_to(world: &mut World) {
    let dropped = |world: &World, counter: &str| {
        let [_, frr, gobgp] = world.routers.all().map(|router| router.namespace());
        [frr, gobgp, world.lab.balancers[&1].namespace()].map(|it| it.counter(counter).unwrap())
    };
    for (key, ttl_security) in [("wrong", true), ("s3cret", true), ("s3cret", false)] {
        let [_, routers @ ..] = world.routers.all_mut();
        for (router, text) in routers.into_iter().zip(listeners(key, ttl_security)) {
            router.kill().unwrap();
            router.write(&text).unwrap();
            router.start_again().unwrap();
        }
        // They drop what we sign with another key, we drop answers from farther away than allowed.
        let (counter, who) = match (key, ttl_security) {
            ("wrong", _) => ("TcpExtTCPMD5Failure", [true, true, false]),
            (_, false) => ("TcpExtTCPMinTTLDrop", [false, false, true]),
            (_, true) => {
                world.until_announced();
                continue;
            }
        };
        let world = &*world;
        let names = ["frr4", "frr6", "gobgp4", "gobgp6"];
        let sessions = || names.map(|name| established(&world.lab, name));
        let (before, had) = (dropped(world, counter), sessions());
        let enough = |(now, before): (u64, u64)| now >= before + ATTEMPTS;
        wait::until("we have tried, often", DEADLINE, || {
            let counts = dropped(world, counter).into_iter().zip(before).map(enough);
            Ok(counts.zip(who).all(|(enough, needed)| enough || !needed))
        })
        .unwrap_or_else(|error| panic!("{counter}: {error:#}: {}", told(&world.lab)));
        assert_eq!(sessions(), had, "{counter}");
        for router in &world.all()[1..] {
            let none = router.peers().unwrap().values().all(|peer| !peer.established);
            let routes = VIPS.map(|prefix| router.routes(prefix).unwrap());
            assert!(none && routes == [[], []], "{counter}: {}: {routes:?}", router.name());
        }
    }
}

/// How often a session was Established.
fn established(lab: &Lab, name: &str) -> Value {
    peer(lab, 1, name)["counters"]["established"].clone()
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
        let established = || ["bird4", "bird6"].map(|name| established(lab, name));
        let (before, sessions) = (dropped(), established());
        wait::until("it has tried, often", DEADLINE, || Ok(dropped() >= before + ATTEMPTS))
            .unwrap_or_else(|error| panic!("{session}: {counter}: {error:#}: {}", told(lab)));
        assert_eq!(established(), sessions, "{session}");
        // BIRD hears our OPEN, and may take that for a session; it has nothing of it.
        for prefix in VIPS {
            assert!(bird.routes(prefix).unwrap().is_empty(), "{session}: {prefix}");
        }
    }
    bird.reconfigure(&bgp::bird(&[1], "password \"s3cret\"; ttl security on;", "")).unwrap();
    world.until_announced();
}

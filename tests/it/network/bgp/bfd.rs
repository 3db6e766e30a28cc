//! BFD: both sides notice a silent neighbour long before the hold time.

use std::time::Duration;

use lb_tests::lab::Plan;
use lb_tests::lab::addresses::{Family, balancer};
use lb_tests::lab::bgp;
use lb_tests::lab::config::Pool;
use lb_tests::lab::router::Router;
use tokio::time::Instant;

use super::super::small;
use super::{LISTEN, VIPS, World, peer, until_peer};

/// 50 ms × 3, and what a busy machine of two processors adds; the hold time is 9 s.
const NOTICED: Duration = Duration::from_secs(2);

#[test]
fn silence_is_noticed_by_both_sides_at_once() {
    let bfd = "bfd = { interval = \"50ms\", multiplier = 3 }\n";
    let text = [
        bgp::speaker(LISTEN),
        bgp::both_sessions(1, bfd),
        bgp::both_sessions(2, bfd),
        bgp::both_sessions(3, ""),
    ];
    let protocol =
        "protocol bfd { interface \"*\" { interval 50 ms; multiplier 3; }; }\n".to_owned();
    let bird = protocol + &bgp::bird(&[1], "bfd on;", "");
    let frr = bgp::frr(&[1], &["bfd 3 50 50"]);
    let plan = Plan { bgp: text.concat(), ..small(Pool::web(1)) };
    let world = World::with(plan, &bird, &frr);
    world.until_announced();
    let lab = &world.lab;
    for name in ["bird4", "bird6", "frr4", "frr6"] {
        until_peer(lab, name, "BFD is up", |it| it["bfd"]["state"] == "Up");
    }
    let routers: [(&dyn Router, [&str; 2]); 2] =
        [(&world.routers.bird, ["bird4", "bird6"]), (&world.routers.frr, ["frr4", "frr6"])];
    for (router, names) in routers {
        // They fall silent.
        let start = Instant::now();
        router.freeze().unwrap();
        for name in names {
            until_peer(lab, name, "its silence is noticed", |it| it["state"] != "Established");
            let took = start.elapsed();
            assert!(took < NOTICED, "{name}: {took:?}");
        }
        router.resume().unwrap();
        for name in names {
            assert_eq!(peer(lab, 1, name)["counters"]["flaps"]["bfd"], 1, "{name}");
        }
    }
    // GoBGP 3.10 has no BFD, and its sessions nothing to do with that of the others.
    for name in ["gobgp4", "gobgp6"] {
        let said = peer(lab, 1, name);
        assert_eq!(said["counters"]["established"], 1, "{name}: {said}");
    }
    world.until_announced();
    for name in routers.into_iter().flat_map(|(_, names)| names) {
        until_peer(lab, name, "BFD is up again", |it| it["bfd"]["state"] == "Up");
    }
    // We fall silent.
    let start = Instant::now();
    lab.balancers[&1].freeze_lbd().unwrap();
    for (router, names) in routers {
        until_routes_gone(router);
        let took = start.elapsed();
        assert!(took < NOTICED, "{names:?}: {took:?}");
    }
    noticed_by_bfd(&world);
    lab.balancers[&1].resume_lbd().unwrap();
    world.until_announced();
}

/// The routers say themselves why they have just lost their sessions.
fn noticed_by_bfd(world: &World) {
    for (family, session) in Family::BOTH.into_iter().zip(["lb1v4", "lb1v6"]) {
        let question = format!("show protocols all {session}");
        let said = world.routers.bird.ask(&question).unwrap().join("\n");
        assert!(said.contains("BFD session down"), "{said}");
        let question = format!("show bgp neighbors {}", balancer(family, 1));
        let said = world.routers.frr.ask(&[&question]).unwrap();
        assert!(said.contains("Cease/BFD Down"), "{said}");
    }
}

/// Without a word to lbd, which is frozen.
fn until_routes_gone(router: &dyn Router) {
    super::wait::until("the routes are gone", super::DEADLINE, || {
        Ok(router.routes(VIPS[0])?.is_empty() && router.routes(VIPS[1])?.is_empty())
    })
    .unwrap();
}

//! Sessions: exact routes on all three routers, peers that die, freeze, or are somebody else.

use lb_tests::lab::addresses::{Family, balancer};
use lb_tests::lab::bgp::{self, PEER_AS};
use lb_tests::lab::router::{Frr, Router as _};

use super::{VIPS, World, plain, until_peer, until_peers, until_routes};

#[test]
fn routes_are_exact_and_sessions_survive_what_their_peers_do() {
    let mut world = World::new("", "max_prefixes = 1\n");
    world.until_announced();
    for router in world.all() {
        for (family, prefix) in Family::BOTH.into_iter().zip(VIPS) {
            assert_eq!(router.routes(prefix).unwrap(), [plain(router, family)], "{prefix}");
        }
    }
    // One is silent for longer than the hold time of 9 s.
    world.routers.gobgp.freeze().unwrap();

    // One is killed and comes back: its routes are sent again, without help.
    world.routers.bird.kill().unwrap();
    until_peer(&world.lab, "bird4", "it is missed", |it| it["state"] != "Established");
    world.routers.bird.start_again().unwrap();
    for prefix in VIPS {
        until_routes(&world.lab, &world.routers.bird, prefix, "it is sent again", |it| {
            it.len() == 1
        });
    }

    // One is in another AS than it should be: never a session, and both say why.
    let right = bgp::bird(&[1], "", "");
    let wrong = right.replace(&format!("local as {}", PEER_AS[0]), "local as 65011");
    world.routers.bird.reconfigure(&wrong).unwrap();
    until_peer(&world.lab, "bird4", "the wrong AS is named", |it| {
        it["last_error"]["text"].to_string().contains("65011")
    });
    assert!(world.routers.bird.log().unwrap().contains("Bad peer AS"));
    assert!(world.routers.bird.routes(VIPS[0]).unwrap().is_empty());
    world.routers.bird.reconfigure(&right).unwrap();
    until_routes(&world.lab, &world.routers.bird, VIPS[0], "it is right again", |it| it.len() == 1);

    until_peer(&world.lab, "gobgp4", "the silence is noticed", |it| {
        it["counters"]["flaps"]["hold_timer"] == 1
    });
    world.routers.gobgp.resume().unwrap();
    let lb1 = balancer(Family::V4, 1);
    until_peers(&world.lab, &world.routers.gobgp, "it is back", |it| it[&lb1].established);
    world.until_announced();

    // Meanwhile nothing happened to the third.
    let counters = super::peer(&world.lab, 1, "frr4")["counters"].clone();
    assert_eq!((&counters["established"], &counters["announced"]), (&1.into(), &1.into()));

    // It announces more than it may, besides our own route that it sends back: down until it does
    // not.
    let networks = ["198.18.7.0/24", "198.18.8.0/24"];
    announce(&world.routers.frr, "network", &networks);
    until_peer(&world.lab, "frr4", "that is too much", |it| {
        it["counters"]["flaps"]["maximum_prefixes"] == 1 && it["state"] != "Established"
    });
    announce(&world.routers.frr, "no network", &networks);
    world.until_announced();
}

/// Has FRR announce networks of its own, or not any more.
fn announce(frr: &Frr, command: &str, networks: &[&str]) {
    let mut commands = vec!["configure terminal".to_owned(), "router bgp 65020".to_owned()];
    commands.push("no bgp network import-check".to_owned());
    commands.extend(networks.iter().map(|network| format!("{command} {network}")));
    let commands: Vec<&str> = commands.iter().map(String::as_str).collect();
    frr.ask(&commands).unwrap();
}

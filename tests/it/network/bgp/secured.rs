//! Secured sessions: TCP MD5 keys and GTSM, by whichever side connects.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use lb_tests::lab::addresses::{Family, balancer};
use lb_tests::lab::bgp::{self, Routers};
use lb_tests::lab::config::Pool;
use lb_tests::lab::router::{Route, Router as _};
use lb_tests::lab::{Lab, Plan};

use super::super::small;
use super::{LISTEN, VIPS, World, peer, until_peer, until_routes};

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
}

//! Another file for a running lbd: what it adds withdraws nothing, and neither does a file that has
//! lost its part about BGP.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use anyhow::ensure;
use lb_tests::lab::addresses::{Family, HTTP_PORT};
use lb_tests::lab::bgp;
use lb_tests::lab::config::Pool;
use lb_tests::lab::router::{Bird, Route, Router as _};
use lb_tests::lab::{Lab, Plan, wait};

use super::super::small;
use super::{VIPS, alarms, host_route, peer, told, until_routes};

/// What health withdraws goes; nothing here is to be withdrawn.
const MAY_GO: &str = "[bgp.host_routes]\nlast_announcer = \"withdraw\"\n";
/// New backends, new probes, and whatever would follow from them.
const WHILE: Duration = Duration::from_secs(2);

/// BIRD has the routes of the first pool, and has never lost one.
#[track_caller]
fn nothing_is_withdrawn(lab: &Lab, bird: &Bird) {
    let result = wait::observe(WHILE, || {
        for prefix in VIPS {
            ensure!(bird.routes(prefix)?.len() == 1, "{prefix} is gone");
        }
        Ok(())
    });
    result.unwrap_or_else(|error| panic!("{error:#}: {}", told(lab)));
    for name in ["bird4", "bird6"] {
        let counters = &peer(lab, 1, name)["counters"];
        assert_eq!((&counters["withdrawn"], &counters["established"]), (&0.into(), &1.into()));
    }
}

#[test]
fn what_is_added_withdraws_nothing_and_a_file_without_bgp_keeps_all() {
    let pools = vec![Pool::web(1), Pool { name: "more".to_owned(), vip: 1, ..Pool::web(1) }];
    let mut lab = Lab::new(Plan { pools: pools.clone(), ..small(Pool::web(1)) }).unwrap();
    // The backend serves both from the beginning.
    lab.plan.pools.truncate(1);
    let key = lab.directory().join("key");
    fs::write(&key, "s3cret\n").unwrap();
    fs::set_permissions(&key, fs::Permissions::from_mode(0o400)).unwrap();
    let key = format!("password_file = \"{}\"\n", key.display());
    lab.balancer(1).unwrap().bgp = bgp::speaker("") + &bgp::both_sessions(1, &key) + MAY_GO;
    let host = lab.add_router(1).unwrap();
    let session = "password \"s3cret\";";
    let mut bird = Bird::start(lab.directory(), &host, &bgp::bird(&[1], session, "")).unwrap();
    lab.start().unwrap();
    for prefix in VIPS {
        until_routes(&lab, &bird, prefix, "it is announced", |it| it.len() == 1);
    }

    // A pool with VIPs of its own.
    lab.balancers[&1].apply(&pools).unwrap();
    nothing_is_withdrawn(&lab, &bird);
    for family in Family::BOTH {
        let new = host_route(family, 1);
        until_routes(&lab, &bird, &new, "the new one is announced", |it| it.len() == 1);
    }
    // Another port for a VIP.
    let path = lab.balancers[&1].configuration();
    let ports = format!("ports = [{HTTP_PORT}");
    let text = fs::read_to_string(&path).unwrap();
    fs::write(&path, text.replace(&ports, &format!("{ports}, 8443"))).unwrap();
    lab.balancers[&1].lbctl(&["apply", &path.to_string_lossy()]).unwrap();
    nothing_is_withdrawn(&lab, &bird);

    // A file that was written without its part about BGP.
    lab.balancer(1).unwrap().bgp.clear();
    lab.balancers[&1].apply(&pools).unwrap();
    nothing_is_withdrawn(&lab, &bird);
    let said = alarms(&lab, 1);
    assert!(said.contains(VIPS[0]), "nobody is told what is kept: {said}");
    // Its sessions, too, are what they were: with their keys.
    bird.kill().unwrap();
    bird.start_again().unwrap();
    for prefix in VIPS {
        until_routes(&lab, &bird, prefix, "it is sent again", |it| it.len() == 1);
    }
    lab.balancers[&1].lbctl(&["bgp", "resume"]).unwrap();
    for prefix in VIPS {
        until_routes(&lab, &bird, prefix, "the operator lets it go", <[Route]>::is_empty);
    }
}

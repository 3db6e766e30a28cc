//! The gate and the guards: what health may withdraw, and what it may not.

use std::time::Duration;

use anyhow::ensure;
use lb_tests::lab::addresses::Family;
use lb_tests::lab::bgp;
use lb_tests::lab::config::Pool;
use lb_tests::lab::router::{Bird, Router as _};
use lb_tests::lab::{Lab, Plan, wait};

use super::super::small;
use super::{DEADLINE, VIPS, alarms, host_route, told, until_routes};

/// Short, so that what comes back does so at once; the IPv6 VIPs may go altogether.
const GUARDS: &str = r#"
[bgp.guards]
interval = "0s"
backoff = "1s"

[[bgp.prefix]]
prefix = "2001:db8:53::/48"
last_announcer = "withdraw"
"#;

/// BIRD alone, which sends a load balancer what it has from the other one.
fn bird(lab: &mut Lab, balancers: &[u8]) -> Bird {
    let host = lab.add_router(1).unwrap();
    // Of two routes the second one, where the first is the receiver's own.
    let channel = "secondary; export where source = RTS_BGP;";
    let tables = "ipv4 table master4 sorted;\nipv6 table master6 sorted;\n";
    let text = tables.to_owned() + &bgp::bird(balancers, "", channel);
    Bird::start(lab.directory(), &host, &text).unwrap()
}

#[test]
fn the_last_one_stays_and_the_others_go() {
    let peers = bgp::both_sessions(1, "monitor = true\n");
    let text = bgp::speaker("") + &peers + GUARDS;
    let pool = Pool { min_up: Some(2), ..Pool::web(2) };
    let plan = Plan { balancers: 2, bgp: text, ..small(pool) };
    let mut lab = Lab::new(plan).unwrap();
    let bird = bird(&mut lab, &[1, 2]);
    lab.start().unwrap();
    let six = "2001:db8:53::/48";
    for prefix in [VIPS[0], six] {
        until_routes(&lab, &bird, prefix, "both announce it", |it| it.len() == 2);
    }
    for number in [1, 2] {
        wait::until("each sees the other's", DEADLINE, || {
            Ok(super::peer(&lab, number, "bird4")["received"].to_string().contains(VIPS[0]))
        })
        .unwrap_or_else(|error| panic!("lb{number}: {error:#}: {}", told(&lab)));
    }
    // One of two backends is too few.
    lab.web(1).unwrap().kill().unwrap();
    until_routes(&lab, &bird, six, "all go, as they may", |it| it.is_empty());
    until_routes(&lab, &bird, VIPS[0], "one goes, one stays", |it| it.len() == 1);
    let all = alarms(&lab, 1) + &alarms(&lab, 2);
    assert!(all.contains(VIPS[0]), "no alarm names what is kept: {all}");
    lab.revive_web(1).unwrap();
    for prefix in [VIPS[0], six] {
        until_routes(&lab, &bird, prefix, "both are back", |it| it.len() == 2);
    }
    // The operator's will is another thing: also the last one goes.
    for number in [1, 2] {
        lab.balancers[&number].lbctl(&["node", "drain"]).unwrap();
    }
    until_routes(&lab, &bird, VIPS[0], "drained", |it| it.is_empty());
    lab.balancers[&2].lbctl(&["node", "undrain"]).unwrap();
    until_routes(&lab, &bird, VIPS[0], "one is back", |it| it.len() == 1);
}

#[test]
fn the_breaker_and_an_empty_configuration_keep_what_is_announced() {
    let may_go = "[bgp.host_routes]\nlast_announcer = \"withdraw\"\n\
                  [bgp.guards]\nbreaker_max = 2\nbackoff = \"1s\"\n";
    let peers = bgp::both_sessions(1, "");
    let dry = bgp::speaker("dry_run = true\n") + &peers + may_go;
    let pools = vec![Pool::web(1), Pool { name: "more".to_owned(), vip: 1, ..Pool::web(1) }];
    let plan = Plan { bgp: dry, pools: pools.clone(), ..small(Pool::web(1)) };
    let mut lab = Lab::new(plan).unwrap();
    let bird = bird(&mut lab, &[1]);
    lab.start().unwrap();
    let count = |bird: &Bird| {
        let all = Family::BOTH.map(|family| [0, 1].map(|number| host_route(family, number)));
        let all = all.iter().flatten().map(|prefix| bird.routes(prefix).unwrap().len());
        all.sum::<usize>()
    };
    // A dry run decides and shows, and nobody is told.
    let said = lab.balancers[&1].lbctl(&["bgp", "routes"]).unwrap();
    assert!(said.contains(VIPS[0]), "{said}");
    assert!(bird.peers().unwrap().values().all(|peer| !peer.established));
    let first = lab.balancer(1).unwrap();
    first.bgp = bgp::speaker("") + &peers + may_go;
    first.apply(&pools).unwrap();
    let until = |lab: &Lab, count_is: usize, what: &str| {
        wait::until(what, DEADLINE, || Ok(count(&bird) == count_is))
            .unwrap_or_else(|error| panic!("{error:#}: {} {}", count(&bird), told(lab)));
    };
    until(&lab, 4, "all are announced");
    // Four would go, two may.
    lab.webs.get_mut(&1).unwrap().kill().unwrap();
    until(&lab, 2, "two go");
    wait::until("somebody is told", DEADLINE, || Ok(alarms(&lab, 1).contains("breaker")))
        .unwrap_or_else(|error| panic!("{error:#}: {}", told(&lab)));
    assert_eq!(count(&bird), 2);
    lab.balancers[&1].lbctl(&["bgp", "resume"]).unwrap();
    until(&lab, 0, "the others go, as the operator says so");
    lab.revive_web(1).unwrap();
    until(&lab, 4, "all are back");
    // Half of the VIPs are missing from the file, then all of them: nothing of it is a withdrawal.
    for pools in [&pools[..1], &[]] {
        lab.balancers[&1].apply(pools).unwrap();
        wait::observe(Duration::from_secs(1), || {
            ensure!(count(&bird) == 4, "{}", told(&lab));
            Ok(())
        })
        .unwrap();
    }
    let alarms = alarms(&lab, 1);
    assert!(alarms.contains(VIPS[0]), "nobody is told: {alarms}");
}

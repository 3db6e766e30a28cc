//! Shedding: what a level adds to every route, as a router sees it, and that it ends.

use lb_tests::lab::addresses::Family;
use lb_tests::lab::bgp::{self, OWN_AS, PEER_AS};
use lb_tests::lab::config::Pool;
use lb_tests::lab::router::{Bird, Route};
use lb_tests::lab::{Lab, Plan};

use super::super::small;
use super::{VIPS, plain, until_routes};

/// Level 1, and level 2, which has nothing of it.
const LEVELS: &str = r#"
[bgp.guards]
interval = "0s"

[[bgp.shedding]]
prepend = 1
communities = ["65010:101"]

[[bgp.shedding]]
prepend = 3
med = 50
large_communities = ["65010:2:0"]
extended_communities = ["rt:65010:2"]
"#;

/// The routes of both families are exactly these.
#[track_caller]
fn until(lab: &Lab, bird: &Bird, what: &str, change: impl Fn(Route) -> Route) {
    for (family, prefix) in Family::BOTH.into_iter().zip(VIPS) {
        let wanted = change(plain(bird, family));
        until_routes(lab, bird, prefix, what, |it| it == std::slice::from_ref(&wanted));
    }
}

fn first_level(route: Route) -> Route {
    let communities = [format!("{}:101", PEER_AS[0])].into();
    Route { as_path: vec![OWN_AS; 2], communities, ..route }
}

fn second_level(route: Route) -> Route {
    Route {
        as_path: vec![OWN_AS; 4],
        med: Some(50),
        large_communities: ["65010:2:0".to_owned()].into(),
        extended_communities: ["rt:65010:2".to_owned()].into(),
        ..route
    }
}

#[test]
fn a_level_is_in_every_route_and_undoes_itself() {
    let text = bgp::speaker("") + &bgp::both_sessions(1, "") + LEVELS;
    let mut lab = Lab::new(Plan { bgp: text, ..small(Pool::web(1)) }).unwrap();
    let host = lab.add_router(1).unwrap();
    let bird = Bird::start(lab.directory(), &host, &bgp::bird(&[1], "", "")).unwrap();
    lab.start().unwrap();
    until(&lab, &bird, "nothing is shed", |it| it);
    let shed = |words: &[&str]| lab.balancers[&1].ask(&[&["bgp", "shed"], words].concat()).unwrap();
    assert!(shed(&["1", "--for", "10m"]).status.success());
    until(&lab, &bird, "level 1", first_level);
    assert!(shed(&["2", "--for", "3s"]).status.success());
    until(&lab, &bird, "level 2 instead", second_level);
    until(&lab, &bird, "it undoes itself, level 1 with it", |it| it);
    // By the operator, too.
    assert!(shed(&["2", "--for", "10m"]).status.success());
    until(&lab, &bird, "level 2 again", second_level);
    assert!(shed(&["0"]).status.success());
    until(&lab, &bird, "nothing is shed any more", |it| it);
    // Without an end there is no shedding, nor with a level that there is not.
    for (words, why) in [(&["1"][..], "--for"), (&["3", "--for", "1m"], "no level 3")] {
        let refused = shed(words);
        let said = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert!(!refused.status.success() && said.contains(why), "{words:?}: {said}");
    }
}

//! Connection collision (RFC 4271 section 6.8): both sides connect, and both connections come about
//! before anything is said on either. Of the two, that of the higher BGP identifier stays.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use lb_tests::lab::addresses::{Family, balancer};
use lb_tests::lab::bgp::{self, OWN_AS, PEER_AS, PEER_NAMES, peer_address};
use lb_tests::lab::config::Pool;
use lb_tests::lab::router::{Bird, Frr, Router};
use lb_tests::lab::{Lab, command, wait};

use super::super::small;
use super::{DEADLINE, LISTEN, VIPS, told, until_peer, until_routes};

/// The port of BGP.
const BGP_PORT: u16 = 179;
/// FRR's identifier, lower than the load balancer's; BIRD's is higher.
const LOWER: &str = "192.0.2.3";
/// Longer than the hold time of 3 s.
const STAYS: Duration = Duration::from_secs(4);

/// Who has connected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Side {
    Ours,
    Theirs,
}

/// The load balancer's open connections of BGP, by the peer's address.
fn connections(lab: &Lab) -> Result<BTreeMap<IpAddr, Vec<Side>>> {
    let mut ss = lab.balancers[&1].namespace().command("ss");
    let answer = command::run(ss.args(["-Htn4", "state", "established"]))?;
    let mut found: BTreeMap<_, Vec<Side>> = BTreeMap::new();
    for line in answer.lines() {
        let mut ends = line.split_whitespace().skip(2).map(str::parse::<SocketAddr>);
        let ends = ends.next().zip(ends.next()).with_context(|| line.to_owned())?;
        let (local, remote) = (ends.0?, ends.1?);
        let side = match (local.port(), remote.port()) {
            (BGP_PORT, _) => Side::Theirs,
            (_, BGP_PORT) => Side::Ours,
            _ => continue,
        };
        found.entry(remote.ip()).or_default().push(side);
    }
    found.values_mut().for_each(|sides| sides.sort_unstable());
    Ok(found)
}

/// Waits until a peer has exactly these connections.
#[track_caller]
fn until_connections(lab: &Lab, what: &str, wanted: [(IpAddr, &[Side]); 2]) {
    let wanted: BTreeMap<_, _> =
        wanted.into_iter().map(|(it, sides)| (it, sides.to_vec())).collect();
    let mut last = BTreeMap::new();
    let result = wait::until(what, DEADLINE, || {
        last = connections(lab)?;
        Ok(last == wanted)
    });
    if let Err(error) = result {
        panic!("{error:#}: {last:?}\n{}", told(lab));
    }
}

#[test]
fn of_two_connections_exactly_one_is_kept_and_stays() {
    let hosts = [1, 2].map(|number| peer_address(Family::V4, number));
    let mut text = bgp::speaker(LISTEN);
    for index in [0, 1] {
        let lines = "hold_time = \"3s\"\nfamilies = [\"ipv4\"]\n";
        text.push_str(&bgp::peer(PEER_NAMES[index], hosts[index], PEER_AS[index], lines));
    }
    let mut lab = Lab::new(small(Pool::web(1))).unwrap();
    let spaces = [lab.add_router(1).unwrap(), lab.add_router(2).unwrap()];
    let lb1 = balancer(Family::V4, 1);
    let session = bgp::bird_session("lb1", PEER_AS[0], (lb1, OWN_AS), "", "");
    let bird = bgp::bird_head(hosts[0]) + &session;
    let bird = Bird::start(lab.directory(), &spaces[0], &bird).unwrap();
    let identifier = format!("router-id {}", hosts[1]);
    let frr = bgp::frr(&[1], &[]).replace(&identifier, &format!("router-id {LOWER}"));
    let frr = Frr::start(&spaces[1], &frr).unwrap();
    // It says that all is well, which it would not without its sessions.
    lab.start().unwrap();
    for host in ["peer1", "peer2"] {
        lab.mute(host).unwrap();
    }
    let first = lab.balancer(1).unwrap();
    first.bgp = text;
    first.apply(&[Pool::web(1)]).unwrap();
    let both = &[Side::Ours, Side::Theirs][..];
    until_connections(&lab, "both have connected", hosts.map(|it| (it, both)));
    for host in ["peer1", "peer2"] {
        lab.unmute(host).unwrap();
    }
    let kept = [(hosts[0], &[Side::Theirs][..]), (hosts[1], &[Side::Ours][..])];
    for router in [&bird as &dyn Router, &frr] {
        until_routes(&lab, router, VIPS[0], "one is in use", |it| it.len() == 1);
    }
    until_connections(&lab, "the one of the higher identifier", kept);
    // And that is how it stays.
    let since = |router: &dyn Router| router.peers().map(|peers| peers[&lb1].since.clone());
    let began = [since(&bird).unwrap(), since(&frr).unwrap()];
    wait::observe(STAYS, || {
        let sides = connections(&lab)?;
        ensure!(sides.values().all(|sides| sides.len() == 1), "again two: {sides:?}");
        Ok(())
    })
    .unwrap();
    assert_eq!([since(&bird).unwrap(), since(&frr).unwrap()], began, "another session");
    until_connections(&lab, "still the same", kept);
    for name in &PEER_NAMES[..2] {
        until_peer(&lab, name, "it came up once", |it| {
            let counters = &it["counters"];
            let flaps = counters["flaps"].as_object().is_none_or(serde_json::Map::is_empty);
            it["state"] == "Established" && counters["established"] == 1 && flaps
        });
    }
}

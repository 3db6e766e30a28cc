//! lbd is told to end a second time while it still takes its leave.

use std::net::UdpSocket;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::ensure;
use lb_tests::lab::addresses::{ECHO_PORT, Family, balancer, vip};
use lb_tests::lab::bgp;
use lb_tests::lab::config::Pool;
use lb_tests::lab::router::{Bird, Router as _};
use lb_tests::lab::{Lab, Plan, kernel, wait};
use tokio::time::Instant;

use super::super::small;
use super::{VIPS, told, until_routes};

/// Between two datagrams: packets never stop coming.
const PAUSE: Duration = Duration::from_millis(20);
/// Twice the time without packets after which lbd would go by itself.
const LINGERS: Duration = Duration::from_secs(2);
/// At once, on a busy machine.
const AT_ONCE: Duration = Duration::from_secs(2);
/// What BIRD logs of a Cease of the operator.
const CEASE: &str = "Administrative shutdown: \"";

/// Sends datagrams to the first VIP until told to stop.
fn keep_coming(lab: &Lab, stop: &AtomicBool) {
    kernel::enter_network_namespace(&lab.client.path()).unwrap();
    let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
    socket.connect((vip(Family::V4, 0), ECHO_PORT)).unwrap();
    while !stop.load(Ordering::Relaxed) {
        // One that is refused is none that matters here.
        drop(socket.send(b"still here"));
        std::thread::park_timeout(PAUSE);
    }
}

/// lbd has been told to end, and is: at once, with a Cease of each session.
#[track_caller]
fn ends_at_once(lab: &mut Lab, bird: &Bird, ceases: usize) {
    let count = || bird.log().unwrap().matches(CEASE).count();
    assert_eq!(count(), ceases, "it has gone too soon: {}", told(lab));
    let start = Instant::now();
    lab.balancer(1).unwrap().stop_lbd().unwrap();
    let took = start.elapsed();
    assert!(took < AT_ONCE, "it took {took:?}: {}", told(lab));
    wait::until("both sessions are ceased", super::DEADLINE, || Ok(count() == ceases + 2))
        .unwrap_or_else(|error| panic!("{error:#}: {}", bird.log().unwrap()));
    for prefix in VIPS {
        until_routes(lab, bird, prefix, "its routes are gone", <[_]>::is_empty);
    }
}

#[test]
fn a_second_signal_ends_it_at_once_with_a_cease() {
    let lines = |lower: &str| format!("linger = \"5m\"\n[bgp.lower]\ntime = \"{lower}\"\n");
    let text = |lower: &str| bgp::speaker(&lines(lower)) + &bgp::both_sessions(1, "");
    let mut lab = Lab::new(Plan { bgp: text("0s"), ..small(Pool::web(1)) }).unwrap();
    let host = lab.add_router(1).unwrap();
    let bird = Bird::start(lab.directory(), &host, &bgp::bird(&[1], "", "")).unwrap();
    lab.start().unwrap();
    lab.route_to_balancers(&[1]).unwrap();
    until_routes(&lab, &bird, VIPS[0], "it is announced", |it| it.len() == 1);
    until_routes(&lab, &bird, VIPS[1], "it is announced", |it| it.len() == 1);

    // While it lingers: its routes are gone, and somebody still comes.
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| keep_coming(&lab, &stop));
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            lab.balancers[&1].ask_lbd_to_end().unwrap();
            until_routes(&lab, &bird, VIPS[0], "it is withdrawn", <[_]>::is_empty);
            wait::observe(LINGERS, || {
                let up = bird.peers()?[&balancer(Family::V4, 1)].established;
                ensure!(up, "it went by itself: {}", told(&lab));
                Ok(())
            })
            .unwrap();
        }));
        stop.store(true, Ordering::Relaxed);
        result.unwrap();
    });
    ends_at_once(&mut lab, &bird, 0);

    // While its routes are lowered and still there.
    let balancer = lab.balancer(1).unwrap();
    balancer.bgp = text("5m");
    balancer.configure(&[Pool::web(1)]).unwrap();
    balancer.start().unwrap();
    for prefix in VIPS {
        until_routes(&lab, &bird, prefix, "it is announced again", |it| it.len() == 1);
    }
    lab.balancers[&1].ask_lbd_to_end().unwrap();
    for prefix in VIPS {
        until_routes(&lab, &bird, prefix, "it is lowered", |routes| {
            routes.iter().any(|route| route.communities.contains("65535:0"))
        });
    }
    ends_at_once(&mut lab, &bird, 2);
}

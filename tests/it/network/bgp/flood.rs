//! BGP goes on while the load balancer is flooded.

use std::net::UdpSocket;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use lb_tests::lab::addresses::{ECHO_PORT, Family, balancer, vip};
use lb_tests::lab::router::Router as _;
use lb_tests::lab::{Lab, kernel, wait};

use super::World;

/// Three times the hold time.
const FLOOD: Duration = Duration::from_secs(9);
/// Threads that send as fast as they can, more than most machines have processors for.
const THREADS: u32 = 4;
/// Packets a second that are a flood for processors that also carry the lab.
const LEAST: u64 = 20_000;

/// Sends datagrams to the first VIP until told to stop; counts them.
fn send(lab: &Lab, stop: &AtomicBool, sent: &AtomicU64) {
    kernel::enter_network_namespace(&lab.client.path()).unwrap();
    let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
    socket.connect((vip(Family::V4, 0), ECHO_PORT)).unwrap();
    while !stop.load(Ordering::Relaxed) {
        // A queue that is full is as full as it can be.
        if socket.send(b"a flood of these").is_ok() {
            sent.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// What is left of BIRD's hold timers, the least of both sessions, in seconds.
fn hold_timer(world: &World) -> f64 {
    let lines = world.routers.bird.ask("show protocols all").unwrap();
    let timers = lines.iter().filter_map(|line| line.trim().strip_prefix("Hold timer:"));
    let left = timers.filter_map(|it| it.trim().split('/').next()?.parse::<f64>().ok());
    left.fold(f64::INFINITY, f64::min)
}

#[test]
fn keepalives_are_on_time_while_packets_flood_in() {
    let world = World::new("", "hold_time = \"3s\"\n");
    world.until_announced();
    world.lab.route_to_balancers(&[1]).unwrap();
    let lb1 = balancer(Family::V4, 1);
    let since = world.routers.bird.peers().unwrap()[&lb1].since.clone();
    let (stop, sent) = (AtomicBool::new(false), AtomicU64::new(0));
    let mut least = f64::INFINITY;
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| send(&world.lab, &stop, &sent));
        }
        wait::observe(FLOOD, || {
            least = least.min(hold_timer(&world));
            Ok(())
        })
        .unwrap();
        stop.store(true, Ordering::Relaxed);
    });
    let rate = sent.into_inner() / FLOOD.as_secs();
    assert!(rate > LEAST, "{rate} packets a second are no flood");
    // One comes each second, so of three seconds two are left. BIRD has no right of way here, and
    // may itself be late; no two in a row are missing.
    assert!(least > 1.0, "a keepalive came late: {least} s of 3 s were left");
    assert_eq!(world.routers.bird.peers().unwrap()[&lb1].since, since, "another session");
}

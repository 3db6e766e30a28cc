//! BGP: from a decision to the route ([`decisions`]), and what the death of a load balancer costs.
//!
//! That is in the lab: two load balancers behind a switch, BIRD on the router, its routes in the
//! router's kernel. A death is that of the host: lbd and the program are gone and it says nothing
//! more, while all links stay up.

use std::collections::{BTreeSet, VecDeque};
use std::net::UdpSocket;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use lb_tests::lab::addresses::{self, ECHO_PORT, Family};
use lb_tests::lab::bgp;
use lb_tests::lab::config::Pool;
use lb_tests::lab::{Lab, Plan, wait};
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::decisions;

/// Between two datagrams.
const STEP: Duration = Duration::from_millis(1);
/// Deaths with BFD; the worst counts. The hold time is waited for once.
const DEATHS: u32 = 3;
/// Sockets that take turns, so that about half of the datagrams goes to each load balancer.
const SOCKETS: u32 = 32;
/// An answer that is later than this is none.
const LATE: Duration = Duration::from_secs(1);
const DEADLINE: Duration = Duration::from_secs(60);

/// BIRD's half of BFD.
const BFD: &str = "protocol bfd { interface \"br0\" { interval 50 ms; multiplier 3; }; }\n";

/// The figures, as they are in the report.
pub(crate) fn measure() -> Result<Value> {
    let decisions = decisions::measure()?;
    let mut lab = lab("bfd = { interval = \"50ms\", multiplier = 3 }\n")?;
    let mut bfd = f64::NEG_INFINITY;
    for _ in 0..DEATHS {
        let loss = death(&mut lab, true)?;
        println!("BGP: a load balancer dies, BFD 50 ms x 3: packets lost for {loss:.0} ms");
        bfd = bfd.max(loss);
    }
    lab.plan.bgp = bgp::speaker("") + &bgp::uplink_sessions("");
    for balancer in lab.balancers.values_mut() {
        balancer.bgp.clone_from(&lab.plan.bgp);
        balancer.apply(&lab.plan.pools)?;
    }
    let hold = death(&mut lab, false)?;
    println!("BGP: a load balancer dies, hold time 9 s: packets lost for {hold:.0} ms");
    Ok(json!({
        "decision_to_route_ms": decisions,
        "loss_ms": { "bfd": bfd, "hold": hold },
    }))
}

/// Two load balancers and a backend, routes by BGP.
fn lab(peer: &str) -> Result<Lab> {
    let bgp = bgp::speaker("") + &bgp::uplink_sessions(peer);
    let pools = vec![Pool::web(1)];
    let mut lab = Lab::new(Plan { webs: 1, balancers: 2, pools, bgp, ..Plan::default() })?;
    lab.learn_routes(BFD, "bfd on;")?;
    lab.start()?;
    lab.until_routed(&lab.vips(), &[1, 2], DEADLINE)?;
    Ok(lab)
}

/// lb1 dies and comes back; ms from its death to the last packet that was lost.
fn death(lab: &mut Lab, with_bfd: bool) -> Result<f64> {
    let vips = lab.vips();
    lab.until_routed(&vips, &[1, 2], DEADLINE)?;
    let up = if with_bfd { 4 } else { 0 };
    wait::until("BFD is as it should be", DEADLINE, || {
        let bird = lab.uplink.as_ref().context("the lab has no BIRD")?;
        let lines = bird.ask("show bfd sessions")?;
        Ok(lines.iter().filter(|line| line.contains(" Up ")).count() == up)
    })?;
    let (client, stop) = (lab.client.clone(), AtomicBool::new(false));
    let (died, lost) = std::thread::scope(|scope| {
        let probe = scope.spawn(|| client.inside(|| lost(&stop)));
        let result = die(lab);
        stop.store(true, Ordering::Relaxed);
        let lost = probe.join().map_err(|_panic| anyhow::anyhow!("the probe panicked"))?;
        anyhow::Ok((result?, lost?))
    })?;
    let (first, last) = (lost.first().copied(), lost.last().copied());
    let (first, last) = first.zip(last).context("nothing was lost when a load balancer died")?;
    ensure!(first >= died, "packets were lost before the death");
    lab.remove_balancer(1)?;
    lab.add_balancer(1)?;
    let pools = lab.plan.pools.clone();
    let balancer = lab.balancer(1)?;
    balancer.configure(&pools)?;
    balancer.start()?;
    Ok((last - died).as_secs_f64() * 1e3)
}

/// The death itself; returns when the routes are gone, and a while more.
fn die(lab: &mut Lab) -> Result<Instant> {
    wait::observe(LATE, || Ok(()))?;
    let died = Instant::now();
    lab.balancer(1)?.fall_silent()?;
    lab.until_routed(&lab.vips(), &[2], DEADLINE)?;
    wait::observe(LATE, || Ok(()))?;
    Ok(died)
}

/// Sends a datagram each millisecond to the first VIP until told to stop; when those were sent
/// that were not answered.
fn lost(stop: &AtomicBool) -> Result<BTreeSet<Instant>> {
    let vip = addresses::vip(Family::V4, 0);
    let mut sockets = VecDeque::new();
    for number in 0..SOCKETS {
        let socket = UdpSocket::bind((addresses::client(Family::V4, number), 0))?;
        socket.connect((vip, ECHO_PORT))?;
        socket.set_nonblocking(true)?;
        sockets.push_back(socket);
    }
    let mut sent = Vec::new();
    let mut answered = BTreeSet::new();
    let mut stopped = None;
    let mut buffer = [0; 64];
    while stopped.is_none_or(|at: Instant| at.elapsed() < LATE) {
        if stopped.is_none() && stop.load(Ordering::Relaxed) {
            stopped = Some(Instant::now());
        }
        sockets.rotate_left(1);
        if let (Some(socket), None) = (sockets.front(), stopped) {
            // Refused for want of a route is lost, too.
            drop(socket.send(sent.len().to_string().as_bytes()));
            sent.push(Instant::now());
        }
        for socket in &sockets {
            while let Ok(length) = socket.recv(&mut buffer) {
                let text = String::from_utf8_lossy(&buffer[..length]);
                let number = text.rsplit(' ').next().and_then(|it| it.parse::<usize>().ok());
                answered.extend(number);
            }
        }
        std::thread::park_timeout(STEP);
    }
    let unanswered = sent.iter().enumerate().filter(|(number, _)| !answered.contains(number));
    Ok(unanswered.map(|(_, at)| *at).collect())
}

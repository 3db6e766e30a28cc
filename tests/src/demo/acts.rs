//! The acts: what is done to the world, and the condition by which it is done.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Result, ensure};
use tokio::time::Instant;

use super::announcements::{self, SIDE_WEB};
use super::{CHANGE_DEADLINE, Outcome, Status, World};
use crate::flows::ledger::Kind;
use crate::lab::addresses::Family;
use crate::lab::config::Backend;
use crate::lab::wait;

/// Nothing happens for so long.
const CALM: Duration = Duration::from_secs(10);
/// The dead lbd is missed by nobody for so long.
const WITHOUT_LBD: Duration = Duration::from_secs(4);
/// A handshake that began before a change may end after it.
const HANDSHAKE: Duration = Duration::from_secs(1);

pub(super) fn calm(world: &mut World<'_>) -> Result<Outcome> {
    world.observe(CALM)?;
    Ok(Outcome::new(""))
}

pub(super) fn take_balancer(world: &mut World<'_>) -> Result<Outcome> {
    world.no_slot_contested()?;
    world.lab.balancer(1)?.lbctl(&["node", "drain"])?;
    world.until_routed(&[2])?;
    world.flows.settle()?;
    world.lab.remove_balancer(1)?;
    Ok(Outcome::new("node drained, then its host gone"))
}

pub(super) fn return_balancer(world: &mut World<'_>) -> Result<Outcome> {
    world.add_first_balancer(announcements::with_bfd())?;
    Ok(Outcome::new("two equal paths again"))
}

pub(super) fn drain(world: &mut World<'_>) -> Result<Outcome> {
    world.change(|world| {
        for balancer in world.lab.balancers.values() {
            balancer.lbctl(&["backend", "drain", "web/web3"])?;
        }
        Ok(())
    })?;
    let since = Instant::now() + HANDSHAKE;
    world.observe(2 * HANDSHAKE)?;
    let (kept, new) = {
        let ledger = world.flows.ledger();
        let kept = ledger.alive().filter(|(_, flow)| flow.backend == "web3").count();
        // Datagrams have no beginning that shows: in the window a new port may still go there.
        let new = |flow: &&_| is_new_connection(flow, "web3", since);
        (kept, ledger.flows().filter(new).count())
    };
    ensure!(new == 0, "web3 is drained, but has got {new} new connections");
    Ok(Outcome::new(format!("web3 keeps {kept} flows, gets no new connections")))
}

fn is_new_connection(flow: &crate::flows::ledger::Flow, backend: &str, since: Instant) -> bool {
    flow.kind != Kind::Udp && flow.backend == backend && flow.opened_at > since
}

pub(super) fn add(world: &mut World<'_>) -> Result<Outcome> {
    // The file says what the operator did by hand before, so that applying it undoes nothing.
    if let Some(pool) = world.pools.first_mut() {
        for backend in &mut pool.backends {
            backend.drained = backend.web == 3;
        }
        let web4 = Backend { web: 4, family: Family::V6, weight: 100, drained: false };
        pool.backends.push(web4);
    }
    world.apply()?;
    world.new_flow_on("web4")?;
    Ok(Outcome::new("new flows reach web4"))
}

pub(super) fn weigh(world: &mut World<'_>) -> Result<Outcome> {
    for backend in world.pools.iter_mut().flat_map(|pool| &mut pool.backends) {
        if backend.web == 1 {
            backend.weight = 300;
        }
    }
    world.apply()?;
    let since = Instant::now() + HANDSHAKE;
    world.observe(4 * HANDSHAKE)?;
    let ledger = world.flows.ledger();
    let new: Vec<_> = ledger
        .flows()
        .filter(|flow| flow.kind != Kind::Udp && flow.opened_at > since)
        .filter(|flow| flow.backend != SIDE_WEB)
        .map(|flow| flow.backend == "web1")
        .collect();
    let share = 100 * new.iter().filter(|is_first| **is_first).count() / new.len().max(1);
    Ok(Outcome::new(format!("web1 gets {share}% of new connections (3 of 5 by weight)")))
}

pub(super) fn kill_lbd(world: &mut World<'_>) -> Result<Outcome> {
    let start = Instant::now();
    world.lab.balancer(1)?.kill_lbd()?;
    world.flows.settle()?;
    world.observe(WITHOUT_LBD)?;
    let seconds = start.elapsed().as_secs_f32();
    // Graceful restart: without a session its routes are still there.
    world.until_routed(&[1, 2])?;
    world.lab.balancer(1)?.start()?;
    world.until_routed(&[1, 2])?;
    Ok(Outcome::new(format!("{seconds:.1} s without lbd, routes stayed, packets went on")))
}

pub(super) fn kill_web(world: &mut World<'_>) -> Result<Outcome> {
    world.steady()?;
    let start = Instant::now();
    world.lab.web(2)?.kill()?;
    world.until("web2 is down for every load balancer", |status| {
        status.backend("web2") == Some("down")
    })?;
    let seconds = start.elapsed().as_secs_f32();
    let flows = &world.flows;
    wait::until("the flows of web2 have ended", CHANGE_DEADLINE, || {
        Ok(!flows.ledger().alive().any(|(_, flow)| flow.backend == "web2"))
    })?;
    world.lab.revive_web(2)?;
    world.until("web2 is up for every load balancer", |status| {
        status.backend("web2") == Some("up")
    })?;
    world.new_flow_on("web2")?;
    Ok(Outcome {
        dead: BTreeSet::from(["web2".to_owned()]),
        comment: format!("down after {seconds:.1} s; back, and gets new flows"),
    })
}

/// How many tables the pool has had that the acts change.
fn generation(status: &Status) -> u64 {
    let pools = status.pools.iter().filter(|pool| pool.name == "web");
    pools.map(|pool| pool.generation).max().unwrap_or(0)
}

impl World<'_> {
    /// Losing a load balancer is covered only then.
    pub(super) fn no_slot_contested(&mut self) -> Result<()> {
        self.until("no slot is contested", |status| {
            status.is_steady() && status.contested_slots() == 0
        })
    }

    fn steady(&mut self) -> Result<()> {
        self.until("no planned change is on its way", Status::is_steady)
    }

    /// Writes the pools into the configuration of every load balancer and applies it.
    fn apply(&mut self) -> Result<()> {
        self.change(|world| {
            for balancer in world.lab.balancers.values() {
                balancer.apply(&world.pools)?;
            }
            Ok(())
        })
    }

    /// Makes a planned change on every load balancer; returns when its table is active.
    fn change(&mut self, make: impl FnOnce(&mut Self) -> Result<()>) -> Result<()> {
        self.steady()?;
        let mut before = u64::MAX;
        for balancer in self.lab.balancers.values() {
            before = before.min(generation(&balancer.status()?));
        }
        make(self)?;
        self.until("the new table is active", |status| {
            let prepared = status.pools.iter().all(|pool| pool.state != "preparing");
            generation(status) > before && prepared
        })
    }

    /// Waits for a flow that began after this call and is on this backend.
    pub(super) fn new_flow_on(&self, backend: &str) -> Result<()> {
        let since = Instant::now();
        wait::until(&format!("a new flow on {backend}"), CHANGE_DEADLINE, || {
            let ledger = self.flows.ledger();
            let found =
                ledger.flows().any(|flow| flow.backend == backend && flow.opened_at > since);
            Ok(found)
        })
    }
}

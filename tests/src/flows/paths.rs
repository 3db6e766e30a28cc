//! Which load balancer a flow goes to: what the router's own routing says of its addresses and
//! ports (the multipath hash is the kernel's, so nobody else can say).

use std::collections::BTreeMap;
use std::fmt::Write as _;

use anyhow::{Context as _, Result, ensure};

use super::Flows;
use super::ledger::{FlowId, Key, Kind};
use crate::lab::Lab;

/// The next hop of every flow that was alive.
pub type Paths = BTreeMap<FlowId, String>;

/// Asks the router for the next hop of every flow that is alive.
///
/// # Errors
/// The router has no route for one of them.
pub fn of_flows(lab: &Lab, flows: &Flows) -> Result<Paths> {
    let keys: Vec<(FlowId, Key, Kind)> =
        flows.ledger().alive().map(|(id, flow)| (id, flow.key, flow.kind)).collect();
    let mut lines = String::new();
    for (_, Key { client, vip }, kind) in &keys {
        // By number: a bare Debian has no list of protocol names.
        let protocol = match kind {
            Kind::Tcp | Kind::Short => libc::IPPROTO_TCP,
            Kind::Udp => libc::IPPROTO_UDP,
        };
        // Writing to a string cannot fail.
        let _infallible = writeln!(
            lines,
            "route get to {} from {} iif client ipproto {protocol} sport {} dport {}",
            vip.ip(),
            client.ip(),
            client.port(),
            vip.port(),
        );
    }
    let answers = lab.router.ip(&lines)?;
    let mut paths = Paths::new();
    let mut answers = answers.lines();
    for (id, key, _) in keys {
        let answer = answers.next().context("the router has answered too few times")?;
        let via = answer.split_once(" via ").and_then(|(_, rest)| rest.split(' ').next());
        let via = via.with_context(|| format!("no next hop for {key:?}: {answer}"))?;
        paths.insert(id, via.to_owned());
    }
    ensure!(answers.next().is_none(), "the router has answered too often");
    Ok(paths)
}

/// How many flows had another next hop at one of these times.
#[must_use]
pub fn moved(before: &Paths, later: &[Paths]) -> u64 {
    let elsewhere = |id: &FlowId, via: &String| {
        later.iter().any(|paths| paths.get(id).is_some_and(|now| now != via))
    };
    let moved = before.iter().filter(|(id, via)| elsewhere(id, via));
    u64::try_from(moved.count()).unwrap_or(u64::MAX)
}

//! Flows against the tracking rules, in virtual time, over the code of production.
//!
//! One load balancer and one pool: changes, deaths, wrong verdicts, returns, attackers, and
//! crashes of the daemon come from a seed. The promise under attack: a flow that sends a packet at
//! least every `min(window, idle timeout)` keeps its backend for as long as that lives.
//!
//! Below: `scenario` (what may happen), `clients` (flows, and who pretends to be one), `plane` (the
//! data plane in plain memory, and the tracker as the controller drives it), `world` (the loop).
//! Controls with one fault each must break flows, else the simulation would prove nothing.
//!
//! `LB_SIMULATION_SEEDS=50 cargo test --release -p lb-userspace --test simulation` runs fifty times
//! the seeds; what is printed of a failure names its seed.

#[cfg(test)]
mod clients;
#[cfg(test)]
mod plane;
#[cfg(test)]
mod scenario;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod world;

//! The lab: a small network in namespaces, real flows through it, and what became of each.
//!
//! The network tests and the demo both stand on it. It knows the load balancer only from outside:
//! the programs `lbd`, `lbctl` and `lb-agent`, their arguments and their JSON.

pub mod demo;
pub mod flows;
pub mod lab;
pub mod openmetrics;
pub mod packet;

//! The control plane of the load balancer; the binaries `lbd`, `lbctl` and `lb-agent` are thin.

pub mod agent;
pub mod api;
pub mod bgp;
pub mod cli;
pub mod config;
pub mod controller;
pub mod dataplane;
pub mod desired;
pub mod health;
pub mod host;
pub mod maglev;
pub mod metrics;
pub mod plan;
pub mod primes;
pub mod shutdown;
pub mod state;
pub mod tracking;

//! The control plane of the load balancer; the binaries `lbd`, `lbctl` and `lb-agent` are thin.

pub mod dataplane;
pub mod config;
pub mod dataplane;
pub mod desired;
pub mod primes;
pub mod host;
pub mod health;
pub mod maglev;
pub mod tracking;
pub mod api;
pub mod cli;

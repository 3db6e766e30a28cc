//! The control plane of the load balancer; the binaries `lbd`, `lbctl` and `lb-agent` are thin.

pub mod agent;

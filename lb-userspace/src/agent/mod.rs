//! The agent of a backend: loads the programs of `lb-ebpf/src/agent.rs`, attaches them to one
//! interface of the namespace it was started in, and keeps their list of addresses true.
//!
//! ```text
//! options -> plan -> kernel (load, attach, pin) -> run (addresses, signals) -> detach | leave
//! ```
//!
//! It changes nothing else: no address, route, setting or device. What it finds wrong there it
//! says once, at the start ([`checks`]).

mod attach;
mod capabilities;
pub mod checks;
pub mod counters;
pub mod error;
pub mod kernel;
pub mod netlink;
pub mod options;
pub mod pins;
pub mod plan;
pub mod run;

pub use error::AgentError;

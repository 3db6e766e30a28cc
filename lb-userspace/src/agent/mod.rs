//! The agent of a backend: loads the programs of `lb-ebpf/src/agent.rs`, attaches them to one
//! interface of the namespace it was started in, and keeps their list of addresses true.
//!
//! ```text
//! options -> plan -> kernel (load, attach, pin) -> run (addresses, signals) -> detach | leave
//! ```
//!
//! It changes nothing else: no address, route, setting or device. What it finds wrong there it
//! says once, at the start ([`checks`]).
//!
//! # Kernels
//! The floor is Linux 6.1. Before 6.3 the tc mode cannot unwrap a packet of another family than
//! its tunnel's (the helper lacks the flags): such packets are counted `refused`; XDP can. Before
//! 6.6 there are no tcx links: tc programs then are filters of a clsact qdisc, which stays behind
//! empty, `--pin-path` is refused, and in tc mode a second agent is not noticed. The tc mode sees
//! tags that the kernel already took off, but leaves a frame with a tag in its data to the VLAN
//! device.
//!
//! # Checksums and large packets
//! Native XDP takes a packet without what the kernel knew about it. A packet whose inner checksum
//! is still to be made by a device (a sender on the same machine, behind veth) loses that note and
//! is dropped by TCP: switch transmit checksums off where such packets begin
//! (`ethtool -K DEVICE tx off` at the client, in front of the load balancer). Packets off a real
//! wire, and the generic and tc modes, are not concerned. Outer UDP checksums are not verified:
//! the load balancer sends none, and the inner packet has its own. LRO does not merge tunnels, and
//! the kernel switches it off under XDP; GRO may merge them before tc, which the tc program takes.
//!
//! # MSS
//! Largest segment = tunnel MTU - outer headers - inner IP and TCP header. The outer headers
//! counted are GUE's, over IPv6 when the interface has a routable IPv6 address (124 bytes), else
//! over IPv4 (56). Only answers that leave by this interface are clamped.

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

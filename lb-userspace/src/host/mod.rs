//! The machine `lbd` runs on: its clocks, routes and neighbours, service manager and limits.
//!
//! An IO room: it may open sockets and files and read clocks, and hands what it learns to the
//! controller as values. It must not know pools, tables or plans. [`clock`] is the only place of
//! the workspace that reads a clock.

pub mod clock;
pub mod driver;
pub mod lock;
pub mod membarrier;
pub mod mtu;
pub mod netlink;
pub mod pin;
pub mod preflight;
pub mod priority;
pub mod sockets;
pub mod systemd;

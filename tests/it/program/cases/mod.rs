//! The table of frames: what the load balancer does, one line for each thing it does.

mod answered;
mod dropped;
mod errors;
mod forwarded;
mod passed;

use std::net::IpAddr;

use lb_common::verdict::Outcome;
use lb_tests::packet::{ACK, Ip, Packet, TCP, UDP};

use super::wanted::Tuple;
use super::world::{CLIENT_V4, CLIENT_V6, number, vip_v4, vip_v6};

/// The client's port in every case.
pub(super) const PORT: u16 = 40_001;

/// What must become of a frame.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Wanted {
    /// Given to the host as it came.
    Pass,
    /// Gone.
    Drop,
    /// Sent back out of the interface it came in by, like this.
    Tx(Vec<u8>),
    /// Sent out of another one, like this.
    Redirect(Vec<u8>),
}

/// One line of the table.
pub(super) struct Case {
    pub(super) name: String,
    pub(super) frame: Vec<u8>,
    pub(super) outcome: Outcome,
    /// The VIP it is counted under.
    pub(super) vip: u16,
    /// The backend it is counted under; 0 = none.
    pub(super) backend: u16,
    pub(super) wanted: Wanted,
}

impl Case {
    fn dropped(name: &str, frame: Vec<u8>, outcome: Outcome, vip: u16) -> Self {
        Self { name: name.to_owned(), frame, outcome, vip, backend: 0, wanted: Wanted::Drop }
    }

    fn passed(name: &str, frame: Vec<u8>, outcome: Outcome) -> Self {
        Self { name: name.to_owned(), frame, outcome, vip: 0, backend: 0, wanted: Wanted::Pass }
    }

    fn sent(name: &str, frame: Vec<u8>, (vip, backend): (u16, u16), out: Vec<u8>) -> Self {
        let (outcome, wanted) = match backend {
            6 => (Outcome::Redirect, Wanted::Redirect(out)),
            _ => (Outcome::Tx, Wanted::Tx(out)),
        };
        Self { name: name.to_owned(), frame, outcome, vip, backend, wanted }
    }
}

/// All cases. They run in this order over the same tables.
pub(super) fn all() -> Vec<Case> {
    let mut cases = passed::cases();
    cases.extend(dropped::cases());
    cases.extend(forwarded::cases());
    cases.extend(forwarded::choices());
    cases.extend(answered::cases());
    cases.extend(errors::cases());
    cases
}

/// Client and VIP of a pool.
fn ends(pool: u16, v6: bool) -> (IpAddr, IpAddr) {
    if v6 {
        (CLIENT_V6.into(), vip_v6(pool).into())
    } else {
        (CLIENT_V4.into(), vip_v4(pool).into())
    }
}

/// A client's header to a pool's VIP.
fn to(pool: u16, v6: bool) -> Ip {
    let (client, vip) = ends(pool, v6);
    Ip::new(client, vip)
}

/// A pool's flow from [`PORT`]: TCP to 80, UDP to 53.
fn tuple(pool: u16, v6: bool, protocol: u8) -> Tuple {
    let (source, destination) = ends(pool, v6);
    let port = if protocol == UDP { 53 } else { 80 };
    Tuple { source, destination, ports: (PORT, port), protocol }
}

/// A packet of that flow.
fn packet(ip: &Ip, protocol: u8, payload: &[u8]) -> Packet {
    match protocol {
        UDP => ip.udp(PORT, 53, payload),
        _ => ip.tcp(PORT, 80, ACK, payload),
    }
}

/// The number of a pool's TCP VIP.
fn tcp_vip(pool: u16, v6: bool) -> u16 {
    number(pool, v6, TCP)
}

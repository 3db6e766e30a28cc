//! BGP in the lab: the load balancers' part of the configuration, and three routers beside them.
//!
//! ```text
//! lb1 .11 AS 4200000001 -+- peer1 .31 BIRD   AS 65010
//! lb2 .12               -+- peer2 .32 FRR    AS 65020
//!                        +- peer3 .33 GoBGP  AS 4200000099       (one switch, v4 and v6)
//! ```

use std::fmt::Write as _;
use std::net::IpAddr;

use anyhow::Result;

use super::Lab;
use super::addresses::{self, Family};
use super::router::{Bird, Frr, Gobgp, Router};

/// The load balancers' AS: one that 16 bits do not hold.
pub const OWN_AS: u32 = 4_200_000_001;
/// AS of BIRD, FRR and GoBGP.
pub const PEER_AS: [u32; 3] = [65_010, 65_020, 4_200_000_099];
/// What the load balancers call them.
pub const PEER_NAMES: [&str; 3] = ["bird", "frr", "gobgp"];
/// Their hosts are numbered from here.
pub const FIRST_PEER: u8 = 30;

/// Address of peer `number` (1 BIRD, 2 FRR, 3 GoBGP).
#[must_use]
pub fn peer_address(family: Family, number: u8) -> IpAddr {
    addresses::lan(family, FIRST_PEER + number)
}

/// `[bgp]` of a load balancer, with these lines in addition.
#[must_use]
pub fn speaker(lines: &str) -> String {
    format!("\n[bgp]\nlocal_as = {OWN_AS}\n{lines}\n")
}

/// A `[[bgp.peer]]`, with these lines in addition.
#[must_use]
pub fn peer(name: &str, address: IpAddr, remote_as: u32, lines: &str) -> String {
    let head = "\n[[bgp.peer]]\n";
    format!("{head}name = \"{name}\"\naddress = \"{address}\"\nremote_as = {remote_as}\n{lines}\n")
}

/// Two sessions to peer `number`, `bird4` over IPv4 with IPv4 prefixes and `bird6` likewise, with
/// these lines in addition.
#[must_use]
pub fn both_sessions(number: u8, lines: &str) -> String {
    let index = usize::from(number - 1);
    let mut text = String::new();
    for (family, digit) in Family::BOTH.into_iter().zip([4, 6]) {
        let name = format!("{}{digit}", PEER_NAMES[index]);
        let lines = format!("families = [\"ipv{digit}\"]\n{lines}");
        text.push_str(&peer(&name, peer_address(family, number), PEER_AS[index], &lines));
    }
    text
}

/// Two sessions to each of the three.
#[must_use]
pub fn all_sessions(lines: &str) -> String {
    [1, 2, 3].map(|number| both_sessions(number, lines)).concat()
}

/// What every configuration of BIRD begins with.
#[must_use]
pub fn bird_head(router_id: IpAddr) -> String {
    format!("router id {router_id};\nprotocol device {{}}\nprotocol direct {{ ipv4; ipv6; }}\n")
}

/// A BGP session of BIRD. `session` are lines of the session, `channel` of its one channel.
#[must_use]
pub fn bird_session(
    name: &str,
    own_as: u32,
    neighbor: (IpAddr, u32),
    session: &str,
    channel: &str,
) -> String {
    let (address, remote_as) = neighbor;
    let family = if address.is_ipv4() { "ipv4" } else { "ipv6" };
    format!(
        "protocol bgp {name} {{\n  local as {own_as};\n  neighbor {address} as {remote_as};\n  \
         hold time 9; connect delay time 0; connect retry time 1; error wait time 1, 2;\n  \
         {session}\n  {family} {{ import all; export none; {channel} }};\n}}\n"
    )
}

/// BIRD as peer 1 of these load balancers, `lb1v4`, `lb1v6`, ...
#[must_use]
pub fn bird(balancers: &[u8], session: &str, channel: &str) -> String {
    let mut text = bird_head(peer_address(Family::V4, 1));
    for number in balancers {
        for (family, digit) in Family::BOTH.into_iter().zip([4, 6]) {
            let neighbor = (addresses::balancer(family, *number), OWN_AS);
            let name = format!("lb{number}v{digit}");
            text.push_str(&bird_session(&name, PEER_AS[0], neighbor, session, channel));
        }
    }
    text
}

/// What the load balancers call the router of the lab.
pub const UPLINK: &str = "uplink";

/// Two sessions to the router of the lab, `uplink4` and `uplink6`, with these lines in addition.
#[must_use]
pub fn uplink_sessions(lines: &str) -> String {
    let sessions = Family::BOTH.into_iter().zip([4, 6]).map(|(family, digit)| {
        let address = addresses::lan(family, addresses::ROUTER_HOST);
        let lines = format!("families = [\"ipv{digit}\"]\n{lines}");
        peer(&format!("{UPLINK}{digit}"), address, PEER_AS[0], &lines)
    });
    sessions.collect()
}

/// BIRD on the router of the lab: what these load balancers announce goes to the kernel, equal
/// routes as one with several next hops.
#[must_use]
pub fn uplink(balancers: &[u8], bfd: &str, session: &str) -> String {
    let mut text = bird_head(addresses::lan(Family::V4, addresses::ROUTER_HOST));
    for digit in [4, 6] {
        // Writing to a string cannot fail.
        let _infallible = writeln!(
            text,
            "protocol kernel kernel{digit} {{ merge paths on; scan time 60; \
             ipv{digit} {{ import none; export where source = RTS_BGP; }}; }}"
        );
    }
    text.push_str(bfd);
    for number in balancers {
        for (family, digit) in Family::BOTH.into_iter().zip([4, 6]) {
            let neighbor = (addresses::balancer(family, *number), OWN_AS);
            let name = format!("lb{number}v{digit}");
            text.push_str(&bird_session(&name, PEER_AS[0], neighbor, session, ""));
        }
    }
    text
}

/// bgpd of FRR as peer 2 of these load balancers. `neighbor` are lines for each of them, without
/// `neighbor ADDRESS`.
#[must_use]
pub fn frr(balancers: &[u8], neighbor: &[&str]) -> String {
    let mut text = format!(
        "router bgp {}\n bgp router-id {}\n no bgp ebgp-requires-policy\n timers bgp 3 9\n \
         bgp log-neighbor-changes\n",
        PEER_AS[1],
        peer_address(Family::V4, 2)
    );
    let mut activate = String::new();
    for number in balancers {
        let [v4, v6] = Family::BOTH.map(|family| addresses::balancer(family, *number));
        for address in [v4, v6] {
            let remote = format!("remote-as {OWN_AS}");
            let all = [&*remote, "timers connect 1", "advertisement-interval 0"];
            for line in all.iter().chain(neighbor) {
                // Writing to a string cannot fail.
                let _infallible = writeln!(text, " neighbor {address} {line}");
            }
        }
        let _infallible = writeln!(text, " no neighbor {v6} activate");
        let _infallible = writeln!(activate, "  neighbor {v6} activate");
    }
    format!("{text} address-family ipv6 unicast\n{activate} exit-address-family\n")
}

/// GoBGP as peer 3 of these load balancers; it waits for them to connect.
#[must_use]
pub fn gobgp(balancers: &[u8]) -> String {
    gobgp_with(balancers, "", "")
}

/// [`gobgp`] with these lines in `[neighbors.config]` of each load balancer, and these sections in
/// its `[[neighbors]]`.
#[must_use]
pub fn gobgp_with(balancers: &[u8], config: &str, sections: &str) -> String {
    let mut text = format!(
        "[global.config]\nas = {}\nrouter-id = \"{}\"\n",
        PEER_AS[2],
        peer_address(Family::V4, 3)
    );
    for number in balancers {
        for (family, digit) in Family::BOTH.into_iter().zip([4, 6]) {
            let address = addresses::balancer(family, *number);
            // Writing to a string cannot fail.
            let _infallible = write!(
                text,
                r#"[[neighbors]]
[neighbors.config]
neighbor-address = "{address}"
peer-as = {OWN_AS}
{config}
{sections}
[neighbors.timers.config]
hold-time = 9
keepalive-interval = 3
connect-retry = 1
idle-hold-time-after-reset = 1
[neighbors.transport.config]
passive-mode = true
[neighbors.graceful-restart.config]
enabled = true
helper-only = true
[[neighbors.afi-safis]]
[neighbors.afi-safis.config]
afi-safi-name = "ipv{digit}-unicast"
[neighbors.afi-safis.mp-graceful-restart.config]
enabled = true
"#
            );
        }
    }
    text
}

/// The three routers, all of them running.
#[derive(Debug)]
pub struct Routers {
    /// Peer 1.
    pub bird: Bird,
    /// Peer 2.
    pub frr: Frr,
    /// Peer 3.
    pub gobgp: Gobgp,
}

impl Routers {
    /// Makes the hosts and starts the routers with these configurations.
    ///
    /// # Errors
    /// One of them does not start.
    pub fn start(lab: &mut Lab, bird: &str, frr: &str, gobgp: &str) -> Result<Self> {
        let hosts = [lab.add_router(1)?, lab.add_router(2)?, lab.add_router(3)?];
        Ok(Self {
            bird: Bird::start(lab.directory(), &hosts[0], bird)?,
            frr: Frr::start(&hosts[1], frr)?,
            gobgp: Gobgp::start(lab.directory(), &hosts[2], gobgp)?,
        })
    }

    /// All three, by their numbers.
    #[must_use]
    pub fn all(&self) -> [&(dyn Router + Sync); 3] {
        [&self.bird, &self.frr, &self.gobgp]
    }

    /// All three, by their numbers.
    #[must_use]
    pub fn all_mut(&mut self) -> [&mut dyn Router; 3] {
        [&mut self.bird, &mut self.frr, &mut self.gobgp]
    }
}

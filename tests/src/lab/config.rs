//! The load balancers' configuration file, as the lab writes it.

use std::fmt::Write as _;
use std::net::IpAddr;
use std::path::Path;

use super::addresses::{self, ECHO_PORT, Family, HTTP_PORT};

/// How packets are wrapped on the way to the backends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encap {
    /// GUE, the default.
    Gue,
    /// IP in IP.
    Ipip,
}

/// One backend of a pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backend {
    /// The host: 1 for `web1`.
    pub web: u8,
    /// The family of the outer header.
    pub family: Family,
    /// Its share of new flows, against the others'.
    pub weight: u16,
    /// Whether it gets no new flows.
    pub drained: bool,
}

/// One pool, with VIPs of both families, TCP and UDP.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pool {
    /// Its name; that of its VIPs begins with it.
    pub name: String,
    /// The number of its VIP addresses (see [`addresses::vip`]).
    pub vip: u8,
    /// How its packets are wrapped.
    pub encap: Encap,
    /// Its backends, in any order.
    pub backends: Vec<Backend>,
    /// With fewer backends up its VIPs are not announced; else lbd's default holds.
    pub min_up: Option<u32>,
}

impl Pool {
    /// Pool `web` on VIP 0, GUE, with backends `web1..=webN`. The even ones are reached over IPv6.
    #[must_use]
    pub fn web(backends: u8) -> Self {
        let backend = |web| {
            let family = if web % 2 == 0 { Family::V6 } else { Family::V4 };
            Backend { web, family, weight: 100, drained: false }
        };
        let backends = (1..=backends).map(backend).collect();
        Self { name: "web".to_owned(), vip: 0, encap: Encap::Gue, backends, min_up: None }
    }

    /// Its VIP addresses.
    #[must_use]
    pub fn vips(&self) -> [IpAddr; 2] {
        Family::BOTH.map(|family| addresses::vip(family, self.vip))
    }
}

/// What differs between the load balancers of a lab.
#[derive(Debug, Clone, Copy)]
pub struct Node<'a> {
    /// 1 for `lb1`.
    pub number: u8,
    /// The cluster secret.
    pub secret: &'a Path,
    /// Where it pins.
    pub pins: &'a Path,
    /// Where lbd listens for lbctl.
    pub socket: &'a Path,
    /// Its part about BGP, as it is in the file (see [`bgp`](super::bgp)); empty: no BGP.
    pub bgp: &'a str,
}

/// Writes the configuration of one load balancer. All times are short: idle flows are forgotten
/// after seconds, so that a planned change is over after seconds too.
#[must_use]
pub fn render(node: &Node<'_>, pools: &[Pool]) -> String {
    let mut text = head(node);
    text.push_str(node.bgp);
    for pool in pools {
        render_pool(&mut text, pool);
    }
    text
}

fn head(node: &Node<'_>) -> String {
    let Node { number, secret, pins, socket, .. } = *node;
    let address = addresses::balancer(Family::V4, number);
    let address6 = addresses::balancer(Family::V6, number);
    format!(
        r#"version = 1

[node]
name = "lb{number}"
pop = "lab"
address = "{address}"
address6 = "{address6}"
secret_file = "{secret}"

[dataplane]
interfaces = ["eth0"]
ipip_source = "198.18.0.0/16"
ipip_source6 = "2001:db8:f::/64"
flow_table_size = 65_536
max_vips = 2_100
pin_path = "{pins}"

[defaults.flow_timeout]
tcp_half_open = "5s"
tcp_established = "15s"
tcp_closing = "3s"
udp = "10s"

[health.connect]
kind = "tcp"
port = {HTTP_PORT}
interval = "500ms"
timeout = "400ms"
rise = 2
fall = 3

[api]
socket = "{socket}"

[log]
level = "info"
"#,
        secret = secret.display(),
        pins = pins.display(),
        socket = socket.display(),
    )
}

fn render_pool(text: &mut String, pool: &Pool) {
    let Pool { name, encap, min_up, .. } = pool;
    let min_up = min_up.map(|it| format!("min_up = {it}\n")).unwrap_or_default();
    let encap = match encap {
        Encap::Gue => "gue",
        Encap::Ipip => "ipip",
    };
    let mut lines = String::new();
    for Backend { web, family, weight, drained } in &pool.backends {
        let address = addresses::web(*family, *web);
        let state = if *drained { ", state = \"drain\"" } else { "" };
        // Writing to a string cannot fail.
        let _infallible = writeln!(
            lines,
            "  {{ name = \"web{web}\", address = \"{address}\", weight = {weight}{state} }},"
        );
    }
    let _infallible = write!(
        text,
        r#"
[[pool]]
name = "{name}"
health = "connect"
encap = "{encap}"
window = "5s"
prepare = "3s"
{min_up}backends = [
{lines}]
"#
    );
    for address in pool.vips() {
        let family = if address.is_ipv4() { "4" } else { "6" };
        for (protocol, port) in [("tcp", HTTP_PORT), ("udp", ECHO_PORT)] {
            let _infallible = write!(
                text,
                r#"
[[vip]]
name = "{name}-{protocol}{family}"
address = "{address}"
protocol = "{protocol}"
ports = [{port}]
pool = "{name}"
"#
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::{Node, Pool, render};

    #[test]
    fn every_backend_and_vip_is_there() {
        let path = Path::new("/x");
        let node = Node { number: 1, secret: path, pins: path, socket: path, bgp: "" };
        let text = render(&node, &[Pool::web(2)]);
        assert_eq!(text.matches("[[vip]]").count(), 4);
        assert!(text.contains(r#"{ name = "web2", address = "2001:db8:1::22", weight = 100 }"#));
    }
}

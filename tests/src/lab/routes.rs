//! The way to the VIPs: routes that the lab sets by hand, or that its router learns by BGP.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::net::IpAddr;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use super::addresses::{self, Family};
use super::{Lab, bgp, command, router, wait};

impl Lab {
    /// Has the router learn its routes by BGP, from BIRD: equal ones become one with several next
    /// hops. `bfd` is BIRD's protocol for it, empty: none; `session` are lines of each session.
    ///
    /// # Errors
    /// BIRD does not start.
    pub fn learn_routes(&mut self, bfd: &str, session: &str) -> Result<()> {
        let numbers: Vec<u8> = self.balancers.keys().copied().collect();
        let text = bgp::uplink(&numbers, bfd, session);
        self.uplink = Some(router::Bird::start(&self.directory, &self.router, &text)?);
        Ok(())
    }

    /// Where the router's kernel sends packets for a VIP; empty: it has no route.
    ///
    /// # Errors
    /// `ip` does not say.
    pub fn next_hops(&self, vip: IpAddr) -> Result<BTreeSet<IpAddr>> {
        let mut ip = Command::new("ip");
        let family = if vip.is_ipv4() { "-4" } else { "-6" };
        ip.args([family, "-json", "-netns", self.router.name(), "route", "show"]);
        let answer = command::run(ip.arg(vip.to_string()))?;
        let routes: Vec<KernelRoute> =
            serde_json::from_str(&answer).with_context(|| answer.clone())?;
        let hops = routes.into_iter().flat_map(|it| {
            it.gateway.into_iter().chain(it.nexthops.into_iter().map(|hop| hop.gateway))
        });
        Ok(hops.collect())
    }

    /// Waits until the router sends packets for each of these VIPs to exactly these load balancers.
    ///
    /// # Errors
    /// It does not within `deadline`.
    pub fn until_routed(&self, vips: &[IpAddr], numbers: &[u8], deadline: Duration) -> Result<()> {
        let mut last = Vec::new();
        let what = format!("{vips:?} lead to load balancers {numbers:?}");
        let result = wait::until(&what, deadline, || {
            last.clear();
            for vip in vips {
                let family = if vip.is_ipv4() { Family::V4 } else { Family::V6 };
                let hops = self.next_hops(*vip)?;
                let wanted = numbers.iter().map(|number| addresses::balancer(family, *number));
                if hops != wanted.collect() {
                    last.push((*vip, hops));
                }
            }
            Ok(last.is_empty())
        });
        result.with_context(|| format!("they lead to {last:?}"))
    }

    /// Routes every VIP over these load balancers, equally (ECMP).
    ///
    /// # Errors
    /// The router refuses; none at all is refused too.
    pub fn route_to_balancers(&self, numbers: &[u8]) -> Result<()> {
        let hosts: Vec<u8> = numbers.iter().map(|number| 10 + number).collect();
        self.route_to(&hosts)
    }

    /// Routes every VIP straight to one backend: the lab without a load balancer.
    ///
    /// # Errors
    /// The router refuses.
    pub fn route_to_web(&self, number: u8) -> Result<()> {
        self.route_to(&[20 + number])
    }

    fn route_to(&self, hosts: &[u8]) -> Result<()> {
        ensure!(!hosts.is_empty(), "a VIP needs a next hop");
        let mut lines = String::new();
        for vip in self.vips() {
            let (family, length) = match vip {
                IpAddr::V4(_) => (Family::V4, 32),
                IpAddr::V6(_) => (Family::V6, 128),
            };
            // Writing to a string cannot fail.
            let _infallible = write!(lines, "route replace {vip}/{length}");
            for host in hosts {
                let via = addresses::lan(family, *host);
                let _infallible = write!(lines, " nexthop via {via} dev br0");
            }
            lines.push('\n');
        }
        self.router.ip(&lines)?;
        Ok(())
    }
}

/// A route as `ip -json` shows it.
#[derive(serde::Deserialize)]
struct KernelRoute {
    gateway: Option<IpAddr>,
    #[serde(default)]
    nexthops: Vec<NextHop>,
}

#[derive(serde::Deserialize)]
struct NextHop {
    gateway: IpAddr,
}

//! From the command line and what the namespace looks like to what the maps must hold. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use lb_common::addr::Address;
use lb_common::agent::{LAYOUT_VERSION, MAX_ADDRESSES, MAX_SOURCES, Settings, address_flag};
use lb_common::backend::Outer;

use super::error::AgentError;
use super::netlink::{Host, Interface};
use super::options::{Prefix, RunOptions};

/// IPv4 and TCP header without options, bytes.
const HEADERS_V4: u32 = 40;
/// IPv6 and TCP header without options, bytes.
const HEADERS_V6: u32 = 60;
/// The least MSS that is ever written: what every host must take (RFC 9293 section 3.7.1).
const LEAST_MSS: u32 = 216;

/// A prefix as the map of sources keys it: bits of 128 (IPv4 is v4-mapped) and the address.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct SourceKey {
    /// Prefix length, 0..=128.
    pub bits: u32,
    /// Network order.
    pub address: [u8; 16],
}

impl From<Prefix> for SourceKey {
    fn from(prefix: Prefix) -> Self {
        let shift = if prefix.address.is_ipv4() { 96 } else { 0 };
        let Address(address) = prefix.address.into();
        Self { bits: u32::from(prefix.length) + shift, address }
    }
}

/// What the maps must hold, and how it came to be.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Plan {
    /// The settings, but for the mode.
    pub settings: Settings,
    /// Flags by address.
    pub addresses: BTreeMap<Address, u32>,
    /// Prefixes tunnels may come from; all, when empty.
    pub sources: BTreeSet<SourceKey>,
    /// Largest outer packet, bytes.
    pub tunnel_mtu: u32,
    /// Bytes of the largest outer headers that may come.
    pub overhead: u16,
}

/// True for an address that a tunnel or a client can be sent to.
fn is_unicast(address: IpAddr) -> bool {
    let host = match address {
        IpAddr::V4(v4) => v4.is_broadcast(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    };
    !(host || address.is_unspecified() || address.is_loopback() || address.is_multicast())
}

/// The flags of VIPs and of every address of the host that a tunnel can be sent to.
///
/// # Errors
/// A VIP that is none, or more addresses than there is room for.
pub fn addresses(vips: &[IpAddr], host: &Host) -> Result<BTreeMap<Address, u32>, AgentError> {
    let mut flags = BTreeMap::new();
    for vip in vips {
        if !is_unicast(*vip) {
            return Err(AgentError::NotAVip(*vip));
        }
        flags.insert(Address::from(*vip), address_flag::VIP);
    }
    for (_, local) in &host.addresses {
        // A VIP is no end of a tunnel: nothing is unwrapped twice.
        if is_unicast(*local) {
            flags.entry(Address::from(*local)).or_insert(address_flag::LOCAL);
        }
    }
    let limit = MAX_ADDRESSES;
    if flags.len() > limit as usize {
        return Err(AgentError::TooMany { what: "addresses", count: flags.len(), limit });
    }
    Ok(flags)
}

/// The largest outer headers: GUE, over IPv6 when the interface has an IPv6 address that a tunnel
/// can be sent to.
fn overhead(interface: &Interface, host: &Host) -> u16 {
    let v6 = host.addresses.iter().any(|(index, address)| {
        *index == interface.index && address.is_ipv6() && is_unicast(*address)
    });
    if v6 { Outer::GueV6.overhead() } else { Outer::GueV4.overhead() }
}

/// Makes the plan.
///
/// # Errors
/// A VIP, a count or an MTU that cannot work.
pub fn plan(options: &RunOptions, interface: &Interface, host: &Host) -> Result<Plan, AgentError> {
    let addresses = addresses(&options.vips, host)?;
    let sources: BTreeSet<SourceKey> = options.sources.iter().map(|p| (*p).into()).collect();
    if sources.len() > MAX_SOURCES as usize {
        let what = "prefixes";
        return Err(AgentError::TooMany { what, count: sources.len(), limit: MAX_SOURCES });
    }
    let tunnel_mtu = options.tunnel_mtu.map_or(interface.mtu, u32::from);
    let overhead = overhead(interface, host);
    let outside = u32::from(overhead);
    let mss = |headers: u32| -> Result<u16, AgentError> {
        let least = outside + headers + LEAST_MSS;
        // A loopback-like MTU of 65,536 is more than an IP packet holds.
        let mtu = tunnel_mtu.min(u32::from(u16::MAX));
        if mtu < least {
            return Err(AgentError::TunnelMtu { mtu: tunnel_mtu, least });
        }
        Ok(u16::try_from(mtu - outside - headers).unwrap_or(u16::MAX))
    };
    let settings = Settings {
        version: LAYOUT_VERSION,
        mode: 0,
        gue_port: options.gue_port.to_be_bytes(),
        restrict_sources: u16::from(!sources.is_empty()),
        mss_v4: mss(HEADERS_V4)?,
        mss_v6: mss(HEADERS_V6)?,
        pad: 0,
    };
    Ok(Plan { settings, addresses, sources, tunnel_mtu, overhead })
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::agent::options::Cli;

    fn planned(words: &str, mtu: u32, addresses: &[&str]) -> Result<Plan, AgentError> {
        let line = format!("lb-agent --interface e0 {words}");
        let options = Cli::try_parse_from(line.split_whitespace()).unwrap().run.unwrap();
        let (name, index) = ("e0".to_owned(), 2);
        let interface = Interface { name, index, mtu, ethernet: true, xdp_program: None };
        let addresses = addresses.iter().map(|text| (index, text.parse().unwrap())).collect();
        plan(&options, &interface, &Host { addresses })
    }

    #[test]
    fn mss_is_what_the_tunnel_leaves() {
        let v4 = ["10.0.0.1", "fe80::1"].as_slice();
        let v6 = ["10.0.0.1", "2001:db8::1"].as_slice();
        for (words, mtu, addresses, mss_v4, mss_v6) in [
            ("--vip 203.0.113.10", 1500, v4, 1404, 1384),
            ("--vip 203.0.113.10", 1500, v6, 1336, 1316),
            ("--vip 203.0.113.10 --tunnel-mtu 9000", 1500, v4, 8904, 8884),
            ("--vip 203.0.113.10", 65_536, v4, 65_439, 65_419),
            ("--vip 203.0.113.10 --tunnel-mtu 576", 1500, v6, 412, 392),
        ] {
            let settings = planned(words, mtu, addresses).unwrap().settings;
            assert_eq!((settings.mss_v4, settings.mss_v6), (mss_v4, mss_v6), "{words} {mtu}");
        }
        assert!(matches!(
            planned("--vip 203.0.113.10", 300, v4),
            Err(AgentError::TunnelMtu { mtu: 300, least: 312 | 332 })
        ));
    }

    #[test]
    fn vips_are_no_ends_of_tunnels() {
        let addresses = ["10.0.0.1", "127.0.0.1", "203.0.113.10", "fe80::1"];
        let plan = planned("--vip 203.0.113.10 --vip 2001:db8::10", 1500, &addresses).unwrap();
        let flags = |text: &str| {
            let address: IpAddr = text.parse().unwrap();
            plan.addresses.get(&Address::from(address)).copied()
        };
        assert_eq!(flags("10.0.0.1"), Some(address_flag::LOCAL));
        assert_eq!(flags("203.0.113.10"), Some(address_flag::VIP));
        assert_eq!(flags("2001:db8::10"), Some(address_flag::VIP));
        assert_eq!(flags("127.0.0.1"), None);
        assert_eq!(flags("fe80::1"), None);
        for vip in ["127.0.0.1", "0.0.0.0", "224.0.0.1", "255.255.255.255", "ff02::1", "fe80::1"] {
            let refused = planned(&format!("--vip {vip}"), 1500, &addresses);
            assert!(matches!(refused, Err(AgentError::NotAVip(_))), "{vip}");
        }
    }

    #[test]
    fn sources_are_v4_mapped() {
        let words = "--vip 203.0.113.10 --from 10.0.0.0/8 --from 2001:db8::/32";
        let plan = planned(words, 1500, &["10.0.0.1"]).unwrap();
        let bits: Vec<_> = plan.sources.iter().map(|source| source.bits).collect();
        assert_eq!(bits, [32, 104]);
        assert_eq!(plan.settings.restrict_sources, 1);
        let open = planned("--vip 203.0.113.10", 1500, &["10.0.0.1"]).unwrap();
        assert_eq!(open.settings.restrict_sources, 0);
    }
}

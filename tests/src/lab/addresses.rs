//! Who has which address in the lab; all are from the ranges kept for documentation and tests.
//!
//! ```text
//! client 198.51.100.0/24, 2001:db8:c::/64        (any of them is a source)
//!   |    192.0.2.128/30, 2001:db8:2::/64
//! router
//!   |    192.0.2.0/25, 2001:db8:1::/64           (one switch)
//!   +--- lb1 .11  lb2 .12  web1 .21  web2 .22 ... peer1 .31 ...
//! ```

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The router on the network of load balancers and backends.
pub const ROUTER_HOST: u8 = 1;
/// TCP port of nginx on every VIP and backend.
pub const HTTP_PORT: u16 = 80;
/// UDP port of the echo service on every VIP.
pub const ECHO_PORT: u16 = 7;
/// How many source addresses of each family the client has.
pub const CLIENT_ADDRESSES: u32 = 250;

/// IPv4 or IPv6.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// Both, for loops.
    pub const BOTH: [Self; 2] = [Self::V4, Self::V6];
}

/// A host on the network of load balancers and backends.
#[must_use]
pub fn lan(family: Family, host: u8) -> IpAddr {
    match family {
        Family::V4 => Ipv4Addr::new(192, 0, 2, host).into(),
        Family::V6 => Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, hex_digits(host)).into(),
    }
}

/// Load balancer `number` (1..=9).
#[must_use]
pub fn balancer(family: Family, number: u8) -> IpAddr {
    lan(family, 10 + number)
}

/// Backend `number` (1..=9).
#[must_use]
pub fn web(family: Family, number: u8) -> IpAddr {
    lan(family, 20 + number)
}

/// VIP address `number` (0..=89).
#[must_use]
pub fn vip(family: Family, number: u8) -> IpAddr {
    match family {
        Family::V4 => Ipv4Addr::new(203, 0, 113, 10 + number).into(),
        Family::V6 => {
            Ipv6Addr::new(0x2001, 0xdb8, 0x53, 0, 0, 0, 0, hex_digits(10 + number)).into()
        }
    }
}

/// Source address `number` of the client; numbers from [`CLIENT_ADDRESSES`] on begin again.
#[must_use]
pub fn client(family: Family, number: u32) -> IpAddr {
    let host = u8::try_from(number % CLIENT_ADDRESSES).unwrap_or(0) + 2;
    match family {
        Family::V4 => Ipv4Addr::new(198, 51, 100, host).into(),
        Family::V6 => Ipv6Addr::new(0x2001, 0xdb8, 0xc, 0, 0, 0, 0, u16::from(host)).into(),
    }
}

/// 21 becomes 0x21, so that both families read alike.
fn hex_digits(decimal: u8) -> u16 {
    let decimal = u16::from(decimal);
    decimal / 100 * 256 + decimal / 10 % 10 * 16 + decimal % 10
}

#[cfg(test)]
mod tests {
    use super::{Family, client, lan, vip};

    #[test]
    fn both_families_read_alike() {
        assert_eq!(lan(Family::V4, 21).to_string(), "192.0.2.21");
        assert_eq!(lan(Family::V6, 21).to_string(), "2001:db8:1::21");
        assert_eq!(vip(Family::V6, 0).to_string(), "2001:db8:53::10");
        assert_eq!(client(Family::V4, 250).to_string(), "198.51.100.2");
    }
}

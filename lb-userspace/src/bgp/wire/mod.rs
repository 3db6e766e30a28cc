//! BGP messages as bytes: framing, encoding, and decoding with the error classes of RFC 7606.
//!
//! Encoding and the path attributes are netgauze-bgp-pkt's. Around it, where that codec leaves the
//! care to its caller: messages of at most 4,096 bytes, the extended length flag, segments of at
//! most 255 AS numbers, paths for peers without 32-bit AS numbers. Decoding hands it one path
//! attribute at a time, so that an error in one does not end the others, nor the session. OPEN,
//! NOTIFICATION and ROUTE-REFRESH are read here, because unknown codes in them are no error.
//!
//! Must not: know sessions, or be bypassed; nobody else uses that codec.

mod announce;
mod attributes;
mod frame;
mod notification;
mod open;
mod refresh;
#[cfg(test)]
mod tests;
mod update;

use ipnet::IpNet;

pub use announce::{Unsendable, announcement, end_of_rib, is_unicast, next_hop, withdrawal};
pub use frame::{Frame, Framer, HEADER, Kind, MAX_MESSAGE, keepalive};
pub use notification::{Notification, code};
pub use open::{AS_TRANS, GracefulRestart, Open};
pub use refresh::{RefreshKind, RouteRefresh};
pub use update::Update;

/// The two address families that are announced, each with SAFI 1, unicast.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Family {
    /// AFI 1.
    Ipv4,
    /// AFI 2.
    Ipv6,
}

/// SAFI of unicast.
const UNICAST: u8 = 1;

impl Family {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Ipv4, Self::Ipv6];

    /// That of a prefix.
    #[must_use]
    pub const fn of(prefix: &IpNet) -> Self {
        match prefix {
            IpNet::V4(_) => Self::Ipv4,
            IpNet::V6(_) => Self::Ipv6,
        }
    }

    /// The address family identifier.
    #[must_use]
    pub const fn afi(self) -> u16 {
        match self {
            Self::Ipv4 => 1,
            Self::Ipv6 => 2,
        }
    }

    /// The family of an AFI and SAFI, if it is one of the two.
    #[must_use]
    pub const fn from_numbers(afi: u16, safi: u8) -> Option<Self> {
        match (afi, safi) {
            (1, UNICAST) => Some(Self::Ipv4),
            (2, UNICAST) => Some(Self::Ipv6),
            _ => None,
        }
    }
}

/// What of the messages depends on the OPENs of both.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Dialect {
    /// The peer is in our AS.
    pub internal: bool,
    /// AS numbers have 32 bits (RFC 6793).
    pub four_octet_as: bool,
    /// IPv4 prefixes may have an IPv6 next hop (RFC 8950).
    pub extended_next_hop: bool,
    /// Both take IPv4 unicast.
    pub ipv4: bool,
    /// Both take IPv6 unicast.
    pub ipv6: bool,
}

impl Dialect {
    /// Whether both take the family.
    #[must_use]
    pub const fn has(&self, family: Family) -> bool {
        match family {
            Family::Ipv4 => self.ipv4,
            Family::Ipv6 => self.ipv6,
        }
    }
}

/// A message from the peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// OPEN.
    Open(Open),
    /// UPDATE.
    Update(Update),
    /// NOTIFICATION.
    Notification(Notification),
    /// KEEPALIVE.
    Keepalive,
    /// ROUTE-REFRESH; `None`: of a family or kind that we do not know, to be ignored.
    RouteRefresh(Option<RouteRefresh>),
}

/// A message that ends the session.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub struct Flaw {
    /// What the peer is told.
    pub notification: Notification,
    /// What our operator is told.
    pub text: String,
}

impl Flaw {
    fn new(code: (u8, u8), data: &[u8], text: impl Into<String>) -> Self {
        Self { notification: Notification::new(code, data), text: text.into() }
    }
}

/// Reads a message.
///
/// # Errors
/// When it is so wrong that RFC 4271 or RFC 7606 ends the session.
pub fn decode(frame: &Frame, dialect: Dialect) -> Result<Message, Flaw> {
    match frame.kind {
        Kind::Open => Open::decode(&frame.body).map(Message::Open),
        Kind::Update => Update::decode(&frame.body, dialect).map(Message::Update),
        Kind::Notification => Ok(Message::Notification(Notification::decode(&frame.body))),
        Kind::Keepalive => Ok(Message::Keepalive),
        Kind::RouteRefresh => RouteRefresh::decode(&frame.body).map(Message::RouteRefresh),
    }
}

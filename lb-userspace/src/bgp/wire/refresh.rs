//! ROUTE-REFRESH (RFC 2918, RFC 7313).
//!
//! A part of `wire`.

use super::frame::{Frame, HEADER, Kind};
use super::notification::code;
use super::{Family, Flaw, UNICAST};

/// What a ROUTE-REFRESH says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum RefreshKind {
    /// Send all routes once more.
    Request = 0,
    /// Beginning of them (BoRR).
    Begin = 1,
    /// End of them (EoRR): what was not among them is gone.
    End = 2,
}

/// A ROUTE-REFRESH.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RouteRefresh {
    /// Of which family.
    pub family: Family,
    /// What it says.
    pub kind: RefreshKind,
}

impl RouteRefresh {
    /// The message.
    #[must_use]
    pub fn bytes(self) -> Vec<u8> {
        let [high, low] = self.family.afi().to_be_bytes();
        let body = vec![high, low, self.kind as u8, UNICAST];
        Frame { kind: Kind::RouteRefresh, body }.bytes()
    }

    /// Reads a body; `None`: a family or kind that is not known.
    pub(super) fn decode(body: &[u8]) -> Result<Option<Self>, Flaw> {
        let &[high, low, kind, safi, ref rest @ ..] = body else {
            return Err(Self::wrong(body));
        };
        let kind = match kind {
            0 => RefreshKind::Request,
            1 => RefreshKind::Begin,
            2 => RefreshKind::End,
            _ => return Ok(None),
        };
        if !rest.is_empty() {
            return Err(Self::wrong(body));
        }
        let family = Family::from_numbers(u16::from_be_bytes([high, low]), safi);
        Ok(family.map(|family| Self { family, kind }))
    }

    fn wrong(body: &[u8]) -> Flaw {
        let text = format!("a ROUTE-REFRESH with {} bytes", HEADER + body.len());
        let whole = Frame { kind: Kind::RouteRefresh, body: body.to_vec() }.bytes();
        Flaw::new(code::REFRESH_LENGTH, &whole, text)
    }
}

//! Messages out of a stream of bytes (RFC 4271 section 4.1).
//!
//! A part of `wire`.

use super::Flaw;
use super::notification::code;

/// Bytes of the header: marker, length, type.
pub const HEADER: usize = 19;
/// Bytes of the longest message.
pub const MAX_MESSAGE: usize = 4_096;
/// Bytes of the marker, each 0xff.
const MARKER: usize = 16;

/// The types of messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// OPEN.
    Open = 1,
    /// UPDATE.
    Update = 2,
    /// NOTIFICATION.
    Notification = 3,
    /// KEEPALIVE.
    Keepalive = 4,
    /// ROUTE-REFRESH (RFC 2918).
    RouteRefresh = 5,
}

impl Kind {
    const fn from_number(number: u8) -> Option<Self> {
        match number {
            1 => Some(Self::Open),
            2 => Some(Self::Update),
            3 => Some(Self::Notification),
            4 => Some(Self::Keepalive),
            5 => Some(Self::RouteRefresh),
            _ => None,
        }
    }

    /// Shortest and longest message of the type.
    const fn lengths(self) -> (usize, usize) {
        match self {
            Self::Open => (29, MAX_MESSAGE),
            Self::Update => (23, MAX_MESSAGE),
            Self::Notification => (21, MAX_MESSAGE),
            Self::Keepalive => (HEADER, HEADER),
            // Its own length errors have a NOTIFICATION of their own (RFC 7313 section 5).
            Self::RouteRefresh => (HEADER, MAX_MESSAGE),
        }
    }
}

/// A message, whole, undecoded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Its type.
    pub kind: Kind,
    /// What follows the header.
    pub body: Vec<u8>,
}

impl Frame {
    /// Its bytes.
    #[must_use]
    pub fn bytes(&self) -> Vec<u8> {
        let length = u16::try_from(HEADER + self.body.len()).unwrap_or(u16::MAX);
        let mut bytes = vec![0xff; MARKER];
        bytes.extend(length.to_be_bytes());
        bytes.push(self.kind as u8);
        bytes.extend(&self.body);
        bytes
    }
}

/// A KEEPALIVE.
#[must_use]
pub fn keepalive() -> Vec<u8> {
    Frame { kind: Kind::Keepalive, body: Vec::new() }.bytes()
}

/// Cuts a stream into messages; keeps at most one unfinished message.
#[derive(Debug, Default)]
pub struct Framer {
    /// The beginning of a message, less than [`MAX_MESSAGE`].
    begun: Vec<u8>,
}

impl Framer {
    /// Takes at most one message from the front of `bytes`; `None`: they are used up.
    ///
    /// # Errors
    /// When the header is wrong (RFC 4271 section 6.1); the stream is then of no more use.
    pub fn take(&mut self, bytes: &mut &[u8]) -> Result<Option<Frame>, Flaw> {
        if !self.fill(HEADER, bytes) {
            return Ok(None);
        }
        let (kind, length) = header(&self.begun)?;
        if !self.fill(length, bytes) {
            return Ok(None);
        }
        let body = self.begun.split_off(HEADER);
        self.begun.clear();
        Ok(Some(Frame { kind, body }))
    }

    /// Moves bytes until `length` are there; whether they are.
    fn fill(&mut self, length: usize, bytes: &mut &[u8]) -> bool {
        let missing = length.saturating_sub(self.begun.len());
        let (now, later) = bytes.split_at(missing.min(bytes.len()));
        self.begun.extend_from_slice(now);
        *bytes = later;
        self.begun.len() >= length
    }
}

/// Type and whole length of a message that begins with `bytes`.
fn header(bytes: &[u8]) -> Result<(Kind, usize), Flaw> {
    let (marker, rest) = bytes.split_at_checked(MARKER).unwrap_or((bytes, &[]));
    let &[high, low, number, ..] = rest else {
        return Err(Flaw::new(code::BAD_MESSAGE_LENGTH, &[], "a header is cut off"));
    };
    if marker.iter().any(|byte| *byte != 0xff) {
        return Err(Flaw::new(code::NOT_SYNCHRONIZED, &[], "a marker is not all ones"));
    }
    let Some(kind) = Kind::from_number(number) else {
        let text = format!("a message of the unknown type {number}");
        return Err(Flaw::new(code::BAD_MESSAGE_TYPE, &[number], text));
    };
    let length = usize::from(u16::from_be_bytes([high, low]));
    let (shortest, longest) = kind.lengths();
    if length < shortest || length > longest {
        let text = format!("a message of type {number} with {length} bytes");
        return Err(Flaw::new(code::BAD_MESSAGE_LENGTH, &[high, low], text));
    }
    Ok((kind, length))
}

//! NOTIFICATION: the last message of a session, and the names of its codes.
//!
//! A part of `wire`. Every code and subcode is accepted; routers send some that no registry knows.

use std::fmt;

use super::frame::{Frame, HEADER, Kind, MAX_MESSAGE};

/// Bytes before the data.
const FIXED: usize = HEADER + 2;
/// Bytes of a shutdown communication, at most (RFC 9003 section 2).
const MAX_TEXT: usize = 255;
/// Bytes of a text from the peer that are shown.
const MAX_SHOWN: usize = MAX_TEXT;
/// Cease.
const CEASE: u8 = 6;
/// Cease: Administrative Shutdown and Administrative Reset, the two with a text.
const WITH_TEXT: [u8; 2] = [2, 4];
/// Cease: Hard Reset (RFC 8538), which carries another NOTIFICATION.
const HARD_RESET: u8 = 9;

/// Codes with their subcodes.
pub mod code {
    /// Connection Not Synchronized.
    pub const NOT_SYNCHRONIZED: (u8, u8) = (1, 1);
    /// Bad Message Length.
    pub const BAD_MESSAGE_LENGTH: (u8, u8) = (1, 2);
    /// Bad Message Type.
    pub const BAD_MESSAGE_TYPE: (u8, u8) = (1, 3);
    /// OPEN Message Error, unspecific: malformed.
    pub const OPEN_MALFORMED: (u8, u8) = (2, 0);
    /// Unsupported Version Number.
    pub const UNSUPPORTED_VERSION: (u8, u8) = (2, 1);
    /// Bad Peer AS.
    pub const BAD_PEER_AS: (u8, u8) = (2, 2);
    /// Bad BGP Identifier.
    pub const BAD_IDENTIFIER: (u8, u8) = (2, 3);
    /// Unsupported Optional Parameter.
    pub const UNSUPPORTED_PARAMETER: (u8, u8) = (2, 4);
    /// Unacceptable Hold Time.
    pub const UNACCEPTABLE_HOLD_TIME: (u8, u8) = (2, 6);
    /// Malformed Attribute List.
    pub const MALFORMED_ATTRIBUTES: (u8, u8) = (3, 1);
    /// Unrecognized Well-known Attribute.
    pub const UNRECOGNIZED_WELL_KNOWN: (u8, u8) = (3, 2);
    /// Optional Attribute Error.
    pub const OPTIONAL_ATTRIBUTE: (u8, u8) = (3, 9);
    /// Invalid Network Field.
    pub const INVALID_NETWORK: (u8, u8) = (3, 10);
    /// Hold Timer Expired.
    pub const HOLD_TIMER_EXPIRED: (u8, u8) = (4, 0);
    /// An unexpected message in OpenSent (RFC 6608).
    pub const UNEXPECTED_IN_OPEN_SENT: (u8, u8) = (5, 1);
    /// An unexpected message in OpenConfirm (RFC 6608).
    pub const UNEXPECTED_IN_OPEN_CONFIRM: (u8, u8) = (5, 2);
    /// An unexpected message in Established (RFC 6608).
    pub const UNEXPECTED_IN_ESTABLISHED: (u8, u8) = (5, 3);
    /// ROUTE-REFRESH with an invalid length (RFC 7313).
    pub const REFRESH_LENGTH: (u8, u8) = (7, 1);
    /// Send Hold Timer Expired (RFC 9687).
    pub const SEND_HOLD_TIMER_EXPIRED: (u8, u8) = (8, 0);
}

/// Names of codes (IANA, BGP Error (Notification) Codes), the first is code 1.
const CODES: [&str; 8] = [
    "Message Header Error",
    "OPEN Message Error",
    "UPDATE Message Error",
    "Hold Timer Expired",
    "Finite State Machine Error",
    "Cease",
    "ROUTE-REFRESH Message Error",
    "Send Hold Timer Expired",
];

/// Names of subcodes.
const SUBCODES: [(u8, u8, &str); 35] = [
    (1, 1, "Connection Not Synchronized"),
    (1, 2, "Bad Message Length"),
    (1, 3, "Bad Message Type"),
    (2, 1, "Unsupported Version Number"),
    (2, 2, "Bad Peer AS"),
    (2, 3, "Bad BGP Identifier"),
    (2, 4, "Unsupported Optional Parameter"),
    (2, 6, "Unacceptable Hold Time"),
    (2, 7, "Unsupported Capability"),
    (2, 11, "Role Mismatch"),
    (3, 1, "Malformed Attribute List"),
    (3, 2, "Unrecognized Well-known Attribute"),
    (3, 3, "Missing Well-known Attribute"),
    (3, 4, "Attribute Flags Error"),
    (3, 5, "Attribute Length Error"),
    (3, 6, "Invalid ORIGIN Attribute"),
    (3, 8, "Invalid NEXT_HOP Attribute"),
    (3, 9, "Optional Attribute Error"),
    (3, 10, "Invalid Network Field"),
    (3, 11, "Malformed AS_PATH"),
    (5, 1, "Receive Unexpected Message in OpenSent State"),
    (5, 2, "Receive Unexpected Message in OpenConfirm State"),
    (5, 3, "Receive Unexpected Message in Established State"),
    (6, 1, "Maximum Number of Prefixes Reached"),
    (6, 2, "Administrative Shutdown"),
    (6, 3, "Peer De-configured"),
    (6, 4, "Administrative Reset"),
    (6, 5, "Connection Rejected"),
    (6, 6, "Other Configuration Change"),
    (6, 7, "Connection Collision Resolution"),
    (6, 8, "Out of Resources"),
    (6, 9, "Hard Reset"),
    (6, 10, "BFD Down"),
    (7, 1, "Invalid Message Length"),
    (7, 2, "Malformed Message Subtype"),
];

/// A NOTIFICATION.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notification {
    /// Error code.
    pub code: u8,
    /// Error subcode.
    pub subcode: u8,
    /// What it means depends on both.
    pub data: Vec<u8>,
}

impl Notification {
    /// Of a code with its subcode; data that does not fit the message is cut off.
    #[must_use]
    pub fn new((code, subcode): (u8, u8), data: &[u8]) -> Self {
        let data = data.get(..MAX_MESSAGE - FIXED).unwrap_or(data);
        Self { code, subcode, data: data.to_vec() }
    }

    /// Cease; `text` goes with the subcodes that may carry one, cut to 255 bytes (RFC 9003).
    #[must_use]
    pub fn cease(subcode: u8, text: &str) -> Self {
        let mut data = Vec::new();
        if WITH_TEXT.contains(&subcode) {
            let end = (0..=MAX_TEXT.min(text.len())).rev().find(|at| text.is_char_boundary(*at));
            let (text, _) = text.split_at(end.unwrap_or(0));
            data.extend(u8::try_from(text.len()));
            data.extend(text.bytes());
        }
        Self { code: CEASE, subcode, data }
    }

    /// The same, not to be survived by graceful restart (RFC 8538 section 3.1).
    #[must_use]
    pub fn hard(&self) -> Self {
        let mut data = vec![self.code, self.subcode];
        data.extend(&self.data);
        Self::new((CEASE, HARD_RESET), &data)
    }

    /// The message.
    #[must_use]
    pub fn bytes(&self) -> Vec<u8> {
        let mut body = vec![self.code, self.subcode];
        body.extend(&self.data);
        body.truncate(MAX_MESSAGE - HEADER);
        Frame { kind: Kind::Notification, body }.bytes()
    }

    /// Reads a body, of at least two bytes.
    pub(super) fn decode(body: &[u8]) -> Self {
        match body {
            [code, subcode, data @ ..] => Self::new((*code, *subcode), data),
            _ => Self::new((0, 0), &[]),
        }
    }

    /// The NOTIFICATION in a hard reset.
    fn inner(&self) -> Option<Self> {
        match (self.code, self.subcode, self.data.as_slice()) {
            (CEASE, HARD_RESET, [code, subcode, data @ ..]) => {
                Some(Self::new((*code, *subcode), data))
            }
            _ => None,
        }
    }

    /// The peer's operator's words, made fit for a log line.
    fn text(&self) -> Option<String> {
        let (length, text) = self.data.split_first()?;
        let known = self.code == CEASE && WITH_TEXT.contains(&self.subcode);
        let text = text.get(..usize::from(*length).min(MAX_SHOWN)).filter(|_| known)?;
        let text = String::from_utf8_lossy(text);
        let shown: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        (!shown.trim().is_empty()).then(|| shown.trim().to_owned())
    }
}

impl fmt::Display for Notification {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let code = usize::from(self.code).checked_sub(1).and_then(|at| CODES.get(at));
        match code {
            Some(name) => f.write_str(name)?,
            None => write!(f, "code {}", self.code)?,
        }
        let it = SUBCODES.iter().find(|(code, sub, _)| (*code, *sub) == (self.code, self.subcode));
        match it {
            Some((_, _, name)) => write!(f, ", {name}")?,
            None if self.subcode == 0 => {}
            None => write!(f, ", subcode {}", self.subcode)?,
        }
        if let Some(text) = self.text() {
            write!(f, ": \"{text}\"")?;
        }
        // A hard reset inside a hard reset has no meaning: one level is shown.
        match self.inner() {
            Some(inner) if inner.inner().is_none() => write!(f, ": {inner}"),
            _ => Ok(()),
        }
    }
}

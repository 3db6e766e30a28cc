//! The BFD control packet (RFC 5880 section 4.1).
//!
//! A part of `bfd`. Pure; the checks of section 6.8.6 that need no session are made here.
//!
//! Must not: accept authenticated packets; we have no keys.

use std::time::Duration;

/// Bytes of a control packet without an authentication section.
pub const LENGTH: usize = 24;

const VERSION: u8 = 1;

/// The bits of the second byte, below the state.
const POLL: u8 = 0x20;
const FINAL: u8 = 0x10;
const AUTHENTICATION: u8 = 0x04;
const DEMAND: u8 = 0x02;
const MULTIPOINT: u8 = 0x01;

/// A session's state (RFC 5880 section 4.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum State {
    /// Switched off by its operator; says nothing about the path.
    AdminDown = 0,
    /// Nothing is heard.
    #[default]
    Down = 1,
    /// The other one is heard, and does not know that yet.
    Init = 2,
    /// Both hear each other.
    Up = 3,
}

impl State {
    const fn from_bits(bits: u8) -> Self {
        match bits & 3 {
            0 => Self::AdminDown,
            1 => Self::Down,
            2 => Self::Init,
            _ => Self::Up,
        }
    }

    /// The RFC's name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::AdminDown => "AdminDown",
            Self::Down => "Down",
            Self::Init => "Init",
            Self::Up => "Up",
        }
    }
}

/// Why a session last changed its state; the numbers of RFC 5880 section 4.1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Diagnostic(pub u8);

impl Diagnostic {
    /// No Diagnostic.
    pub const NONE: Self = Self(0);
    /// Control Detection Time Expired.
    pub const EXPIRED: Self = Self(1);
    /// Neighbor Signaled Session Down.
    pub const SIGNALED: Self = Self(3);
    /// Administratively Down.
    pub const ADMIN_DOWN: Self = Self(7);

    /// The RFC's words.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self.0 {
            0 => "No Diagnostic",
            1 => "Control Detection Time Expired",
            2 => "Echo Function Failed",
            3 => "Neighbor Signaled Session Down",
            4 => "Forwarding Plane Reset",
            5 => "Path Down",
            6 => "Concatenated Path Down",
            7 => "Administratively Down",
            8 => "Reverse Concatenated Path Down",
            _ => "Reserved",
        }
    }
}

/// A control packet. The C bit is never set: this session dies with its process, the forwarding
/// does not. Nor are A, D and M.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet {
    /// The sender's state.
    pub state: State,
    /// Why it last changed.
    pub diagnostic: Diagnostic,
    /// The sender wants an answer with `last`.
    pub poll: bool,
    /// The answer to `poll`: the F bit.
    pub last: bool,
    /// The sender is in demand mode.
    pub demand: bool,
    /// Packets missing in a row that are a loss; not 0.
    pub multiplier: u8,
    /// The sender's discriminator; not 0.
    pub mine: u32,
    /// The receiver's, as far as the sender knows it, else 0.
    pub yours: u32,
    /// Desired Min TX Interval.
    pub desired_tx: Duration,
    /// Required Min RX Interval; 0: send me nothing.
    pub required_rx: Duration,
}

/// What is wrong with a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PacketError {
    /// Fewer bytes than it needs or says.
    #[error("too short")]
    Short,
    /// Another version of BFD.
    #[error("another version")]
    Version,
    /// It asks for authentication.
    #[error("authenticated")]
    Authenticated,
    /// The M bit, which must be 0.
    #[error("multipoint")]
    Multipoint,
    /// Poll and final at once.
    #[error("poll and final at once")]
    PollFinal,
    /// The multiplier is 0.
    #[error("a multiplier of 0")]
    Multiplier,
    /// The sender's discriminator is 0.
    #[error("a discriminator of 0")]
    Discriminator,
    /// The receiver's discriminator is 0 in a state in which the sender must know it.
    #[error("no discriminator of ours in state Init or Up")]
    Unknown,
}

impl Packet {
    /// Reads a UDP payload. What stands behind the packet is not looked at.
    ///
    /// # Errors
    /// The packet must be discarded by RFC 5880 section 6.8.6, or breaks section 4.1.
    pub fn decode(bytes: &[u8]) -> Result<Self, PacketError> {
        let fixed: &[u8; LENGTH] = bytes.first_chunk().ok_or(PacketError::Short)?;
        let [first, flags, multiplier, length, rest @ ..] = fixed;
        if first >> 5 != VERSION {
            return Err(PacketError::Version);
        }
        // With an authentication section it would be 26 or more, and of no use to us either.
        if usize::from(*length) < LENGTH || usize::from(*length) > bytes.len() {
            return Err(PacketError::Short);
        }
        if flags & AUTHENTICATION != 0 {
            return Err(PacketError::Authenticated);
        }
        if flags & MULTIPOINT != 0 {
            return Err(PacketError::Multipoint);
        }
        if flags & POLL != 0 && flags & FINAL != 0 {
            return Err(PacketError::PollFinal);
        }
        if *multiplier == 0 {
            return Err(PacketError::Multiplier);
        }
        let mut words = rest.as_chunks().0.iter().map(|word: &[u8; 4]| u32::from_be_bytes(*word));
        let mut word = || words.next().ok_or(PacketError::Short);
        let (mine, yours, desired_tx, required_rx) = (word()?, word()?, word()?, word()?);
        let state = State::from_bits(flags >> 6);
        if mine == 0 {
            return Err(PacketError::Discriminator);
        }
        if yours == 0 && state > State::Down {
            return Err(PacketError::Unknown);
        }
        Ok(Self {
            state,
            diagnostic: Diagnostic(first & 0x1f),
            poll: flags & POLL != 0,
            last: flags & FINAL != 0,
            demand: flags & DEMAND != 0,
            multiplier: *multiplier,
            mine,
            yours,
            desired_tx: Duration::from_micros(desired_tx.into()),
            required_rx: Duration::from_micros(required_rx.into()),
        })
    }

    /// The UDP payload. Intervals beyond 32 bits of microseconds are cut to that.
    #[must_use]
    pub fn encode(&self) -> [u8; LENGTH] {
        let flag = |set: bool, bit: u8| if set { bit } else { 0 };
        let flags = (self.state as u8) << 6
            | flag(self.poll, POLL)
            | flag(self.last, FINAL)
            | flag(self.demand, DEMAND);
        let micros = |time: Duration| u32::try_from(time.as_micros()).unwrap_or(u32::MAX);
        let words = [self.mine, self.yours, micros(self.desired_tx), micros(self.required_rx), 0];
        let mut bytes = [0; LENGTH];
        let head = [VERSION << 5 | self.diagnostic.0 & 0x1f, flags, self.multiplier, 24];
        let fields = head.into_iter().chain(words.into_iter().flat_map(u32::to_be_bytes));
        for (byte, field) in bytes.iter_mut().zip(fields) {
            *byte = field;
        }
        bytes
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const GOOD: [u8; 24] =
        [0x20, 0xc0, 3, 24, 0, 0, 0, 7, 0, 0, 0, 9, 0, 4, 0x93, 0xe0, 0, 0, 0xc3, 0x50, 0, 0, 0, 0];

    fn with(at: usize, value: u8) -> [u8; 24] {
        let mut bytes = GOOD;
        bytes[at] = value;
        bytes
    }

    #[test]
    fn a_packet_on_the_wire() {
        let packet = Packet::decode(&GOOD).unwrap();
        let want = Packet {
            state: State::Up,
            diagnostic: Diagnostic::NONE,
            poll: false,
            last: false,
            demand: false,
            multiplier: 3,
            mine: 7,
            yours: 9,
            desired_tx: Duration::from_millis(300),
            required_rx: Duration::from_millis(50),
        };
        assert_eq!(packet, want);
        assert_eq!(packet.encode(), GOOD);
        let longer: Vec<u8> = GOOD.into_iter().chain([0; 8]).collect();
        assert_eq!(Packet::decode(&longer), Ok(packet));
    }

    #[test]
    fn what_must_be_discarded_is() {
        for (bytes, error) in [
            (with(0, 0x00), PacketError::Version),
            (with(0, 0x40), PacketError::Version),
            (with(1, 0xc4), PacketError::Authenticated),
            (with(1, 0xc1), PacketError::Multipoint),
            (with(1, 0xf0), PacketError::PollFinal),
            (with(2, 0), PacketError::Multiplier),
            (with(3, 23), PacketError::Short),
            (with(3, 25), PacketError::Short),
            (with(7, 0), PacketError::Discriminator),
            (with(11, 0), PacketError::Unknown),
        ] {
            assert_eq!(Packet::decode(&bytes), Err(error), "{bytes:02x?}");
        }
        assert_eq!(Packet::decode(&GOOD[..23]), Err(PacketError::Short));
        // Without our discriminator it may only be down.
        let mut first = with(11, 0);
        first[1] = 0x40;
        assert_eq!(Packet::decode(&first).map(|packet| packet.state), Ok(State::Down));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            if let Ok(packet) = Packet::decode(&bytes) {
                prop_assert_eq!(Packet::decode(&packet.encode()), Ok(packet));
            }
        }

        #[test]
        fn a_damaged_packet_is_read_or_refused(
            flips in prop::collection::vec((0..24_usize, any::<u8>()), 1..4),
        ) {
            let mut bytes = GOOD;
            for (at, value) in flips {
                bytes[at] = value;
            }
            if let Ok(packet) = Packet::decode(&bytes) {
                prop_assert!(packet.mine != 0 && packet.multiplier != 0);
                prop_assert_eq!(Packet::decode(&packet.encode()), Ok(packet));
            }
        }
    }
}

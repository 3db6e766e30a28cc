//! What can become of a packet: the names for metrics, CLI and counters at once.

/// What the program tells the kernel to do with the frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Action {
    /// To the host's own stack, untouched.
    Pass,
    /// Gone, with a reason.
    Drop,
    /// Out of the interface it came in by.
    Tx,
    /// Out of another interface.
    Redirect,
}

/// An enum of outcomes: variant, name, action, one sentence of help.
macro_rules! outcomes {
    ($($(#[$doc:meta])* $variant:ident $name:literal $action:ident $help:literal;)*) => {
        /// The one outcome of a packet. Its number is its place among the counters.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
        #[repr(u32)]
        pub enum Outcome {
            $($(#[$doc])* $variant,)*
        }

        impl Outcome {
            /// Every outcome, in the order of the counters.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The name in metrics and the CLI.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// One sentence for an operator.
            #[must_use]
            pub const fn help(self) -> &'static str {
                match self { $(Self::$variant => $help,)* }
            }

            /// The class it is counted in: packets in = pass + tx + redirect + drops.
            #[inline(always)]
            #[must_use]
            pub const fn action(self) -> Action {
                match self { $(Self::$variant => $crate::verdict::Action::$action,)* }
            }
        }
    };
}
pub(crate) use outcomes;

outcomes! {
    /// Not for a VIP.
    NotVip "not_vip" Pass "not for a VIP, given to the host untouched";
    /// For a VIP address, but the host's business.
    Host "host" Pass "neighbour discovery for a VIP address, given to the host";
    /// Encapsulated and sent out of the ingress interface.
    Tx "tx" Tx "encapsulated, sent out of the interface it came in by";
    /// Encapsulated and sent out of another interface.
    Redirect "redirect" Redirect "encapsulated, sent out of another interface";
    /// An echo request for a VIP, answered.
    Echo "echo" Tx "echo request for a VIP, answered";
    /// Shorter than its headers say.
    Malformed "malformed" Drop "for a VIP, but shorter than its headers say";
    /// A fragment.
    Fragment "fragment" Drop "a fragment for a VIP: it has no ports to balance by";
    /// No VIP on this port.
    NoPort "no_port" Drop "a VIP address, but no VIP on this protocol and port";
    /// Not TCP, UDP or a known ICMP message.
    Protocol "protocol" Drop "a VIP address, but neither TCP, UDP nor an ICMP message we serve";
    /// The pool has no backend.
    NoBackend "no_backend" Drop "the VIP's pool has no backend";
    /// The backend's next hop is not known.
    Unresolved "unresolved" Drop "the backend has no resolved next hop";
    /// Larger than the path to the backend allows.
    TooBig "too_big" Drop "too big once encapsulated; answered with an ICMP error within the limit";
    /// The driver left no room in front of the frame.
    NoHeadroom "no_headroom" Drop "the driver left no room in front of the frame";
    /// An ICMP error that quotes no flow of a VIP.
    IcmpUnmatched "icmp_unmatched" Drop "an ICMP error that quotes no flow of a VIP";
}

/// How many outcomes there are.
pub const OUTCOMES: usize = 14;
const _: () = assert!(Outcome::ALL.len() == OUTCOMES);

/// Packets and bytes (frame length on arrival, Ethernet header included, no FCS). Never reset.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[repr(C)]
pub struct Counter {
    /// Packets.
    pub packets: u64,
    /// Bytes.
    pub bytes: u64,
}

/// One VIP's outcomes on one CPU, indexed by [`Outcome`]; 256 bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[repr(C)]
pub struct VipCounters {
    /// By outcome.
    pub outcomes: [Counter; 16],
}
const _: () = assert!(OUTCOMES <= 16 && size_of::<VipCounters>() == 256);

macro_rules! flow_events {
    ($($(#[$doc:meta])* $variant:ident $name:literal;)*) => {
        /// What the flow table answered, or what entering a flow cost. Its number is its place in
        /// [`FlowCounters`].
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
        #[repr(u32)]
        pub enum FlowEvent {
            $($(#[$doc])* $variant,)*
        }

        impl FlowEvent {
            /// Every event, in the order of the counters.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The name in metrics and the CLI.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }
        }
    };
}

flow_events! {
    /// The flow has an entry.
    Hit "hit";
    /// A new flow.
    New "new";
    /// A flow without an entry, older than the window: to the slot's base.
    Base "base";
    /// A flow without an entry, and no window is open.
    Miss "miss";
    /// An unconfirmed flow lost its entry to a new one.
    Evicted "evicted";
    /// A flow found no place.
    Refused "refused";
}

/// One CPU's flow events, indexed by [`FlowEvent`]; 64 bytes. Never reset.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[repr(C)]
pub struct FlowCounters {
    /// By event.
    pub events: [u64; 8],
}
const _: () = assert!(FlowEvent::ALL.len() <= 8 && size_of::<FlowCounters>() == 64);

/// A dropped packet, sampled into the ring buffer; 48 bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[repr(C)]
pub struct DropSample {
    /// The reason: an [`Outcome`]'s number.
    pub outcome: u32,
    /// The VIP's index, 0 when none matched.
    pub vip: u32,
    /// Source address, network order, v4-mapped.
    pub source: [u8; 16],
    /// Destination address, network order, v4-mapped.
    pub destination: [u8; 16],
    /// Source port, network order; 0 when not parsed.
    pub source_port: [u8; 2],
    /// Destination port, network order; 0 when not parsed.
    pub destination_port: [u8; 2],
    /// Frame length in bytes.
    pub length: u16,
    /// IP protocol number.
    pub protocol: u8,
    /// Zero.
    pub pad: u8,
}
const _: () = assert!(size_of::<DropSample>() == 48);

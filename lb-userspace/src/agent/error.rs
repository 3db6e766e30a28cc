//! What can stop the agent: one message each, with the way out where there is one.

use std::io;
use std::path::PathBuf;

use aya::EbpfError;
use aya::maps::MapError;
use aya::programs::ProgramError;

/// Why the agent does not run.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// No such interface in this namespace.
    #[error("interface `{0}` does not exist in this network namespace")]
    NoInterface(String),
    /// The interface went away while the agent ran.
    #[error("interface `{0}` is gone; start the agent again once it is back")]
    InterfaceGone(String),
    /// Frames without an Ethernet header.
    #[error("interface `{0}` is not an Ethernet interface; the agent reads Ethernet frames")]
    NotEthernet(String),
    /// A VIP that cannot be one.
    #[error("`{0}` cannot be a VIP: it is not a unicast address of a network")]
    NotAVip(std::net::IpAddr),
    /// More than a map has room for.
    #[error("{count} {what} given, room is for {limit}")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// How many.
        count: usize,
        /// How many at most.
        limit: u32,
    },
    /// The tunnel leaves no room for a TCP segment.
    #[error("a tunnel MTU of {mtu} leaves no room for a segment; use at least {least}")]
    TunnelMtu {
        /// As given or found.
        mtu: u32,
        /// The least that works.
        least: u32,
    },
    /// Not privileged enough.
    #[error("missing capabilities: {0}; run as root or grant them to the agent")]
    Capabilities(String),
    /// Another program holds the interface.
    #[error(
        "`{interface}` already has {program} attached ({place}); only one can be there, \
         stop the other one first"
    )]
    Busy {
        /// Where.
        interface: String,
        /// Which program, as the kernel names it.
        program: String,
        /// XDP, tc ingress or tc egress.
        place: &'static str,
    },
    /// The wanted mode does not work here.
    #[error("cannot attach to `{interface}` as {mode}: {reason}")]
    Attach {
        /// Where.
        interface: String,
        /// How.
        mode: &'static str,
        /// Why not.
        reason: String,
    },
    /// Another agent works with these pins.
    #[error("another lb-agent is running with the pin path {0}")]
    PinsLocked(PathBuf),
    /// Not a place for pins.
    #[error("{0} is not on a BPF file system; mount one with `mount -t bpf bpf /sys/fs/bpf`")]
    NotBpffs(PathBuf),
    /// Pins of a program of another shape.
    #[error(
        "pins in {path} are of layout version {found}, this lb-agent needs {needed}; \
         remove them with `lb-agent unload --pin-path {path}`"
    )]
    PinVersion {
        /// The directory.
        path: PathBuf,
        /// Theirs.
        found: u32,
        /// Ours.
        needed: u32,
    },
    /// Pins of another interface or mode.
    #[error(
        "pins in {path} belong to {found}, not to {wanted}; \
         remove them with `lb-agent unload --pin-path {path}`"
    )]
    PinMismatch {
        /// The directory.
        path: PathBuf,
        /// What they are.
        found: String,
        /// What was asked for.
        wanted: String,
    },
    /// No pins where some should be.
    #[error("no agent is pinned in {0}")]
    NoPins(PathBuf),
    /// The kernel lacks what pinning needs.
    #[error("--pin-path needs tcx links, which this kernel lacks (Linux 6.6)")]
    PinsNeedTcx,
    /// The pin directory.
    #[error("{path}: {error}")]
    Pin {
        /// Which file or directory.
        path: PathBuf,
        /// What the kernel said.
        error: String,
    },
    /// Built without its programs.
    #[error("this lb-agent was built without its eBPF programs (LB_SKIP_EBPF)")]
    NoPrograms,
    /// The object file.
    #[error("cannot load the agent's object")]
    Object(#[from] EbpfError),
    /// A program was refused.
    #[error("the kernel refused the program `{name}`: {reason}")]
    Program {
        /// Which.
        name: &'static str,
        /// The first and last lines of what it said.
        reason: String,
    },
    /// Working with a loaded program.
    #[error("program `{name}`")]
    ProgramUse {
        /// Which.
        name: &'static str,
        /// What went wrong.
        source: Box<ProgramError>,
    },
    /// A map.
    #[error("map `{name}`")]
    Map {
        /// Which.
        name: &'static str,
        /// What went wrong.
        source: MapError,
    },
    /// Asking the kernel about interfaces and addresses.
    #[error("cannot ask the kernel for {what}: {error}")]
    Netlink {
        /// For what.
        what: &'static str,
        /// What it said.
        error: String,
    },
    /// Signals.
    #[error("cannot wait for signals")]
    Signals(#[source] io::Error),
}

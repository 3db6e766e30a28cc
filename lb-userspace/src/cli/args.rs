//! The grammar of lbctl.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, Subcommand, ValueEnum};
use ipnet::IpNet;

use crate::bgp::community::{Community, LargeCommunity};
use crate::desired::parse_duration;

/// Where lbd listens unless its configuration says otherwise.
pub const DEFAULT_SOCKET: &str = "/run/lb/lbd.sock";

/// Looks at a load balancer and changes it, through the socket of lbd.
#[derive(Debug, Parser)]
#[command(name = "lbctl", version, about, max_term_width = 100)]
pub struct Args {
    /// Where lbd listens.
    #[arg(long, global = true, value_name = "PATH", default_value = DEFAULT_SOCKET)]
    pub socket: PathBuf,
    /// How the answer is printed.
    #[arg(short, long, global = true, value_enum, value_name = "FORMAT", default_value = "table")]
    pub output: Format,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// How the answer is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Columns.
    Table,
    /// More columns.
    Wide,
    /// The document of the API.
    Json,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Is everything well? Exit code 0 ok, 1 degraded, 2 down.
    Status,
    /// VIPs with their pools, backends and rates; or drains one.
    Vip {
        /// What to do; without it they are shown.
        #[command(subcommand)]
        command: Option<VipCommand>,
    },
    /// All counters.
    Stats,
    /// Where would this flow go, and why?
    Trace {
        /// The client, ADDRESS:PORT or `[ADDRESS]:PORT`.
        #[arg(value_name = "SRC:PORT")]
        source: SocketAddr,
        /// A VIP's name, ADDRESS:PORT/PROTOCOL, or a pool; NAME:PORT chooses a port.
        #[arg(value_name = "VIP-OR-POOL")]
        target: String,
    },
    /// What was dropped, and why.
    Drops {
        /// Prints samples of dropped packets as they come.
        #[arg(long)]
        watch: bool,
    },
    /// What would this configuration change? Exit code 0 nothing, 1 something, 2 it is refused.
    Diff {
        /// The configuration.
        file: PathBuf,
    },
    /// Makes this the configuration of lbd, until it starts anew.
    Apply {
        /// The configuration.
        file: PathBuf,
        /// Only says what would change, as `diff`.
        #[arg(long)]
        dry_run: bool,
    },
    /// Checks and shows configurations; needs no lbd.
    Config {
        /// What to do with it.
        #[command(subcommand)]
        command: ConfigCommand,
    },
    /// Drains and weighs backends, apart from the file.
    Backend {
        /// What to do with it.
        #[command(subcommand)]
        command: BackendCommand,
    },
    /// Drains this load balancer: withdraws its routes, lower preference first.
    Node {
        /// What to do with it.
        #[command(subcommand)]
        command: NodeCommand,
    },
    /// BGP peers; or routes and what steers them.
    Bgp {
        /// What to do; without it the peers are shown.
        #[command(subcommand)]
        command: Option<BgpCommand>,
    },
    /// Takes the data plane off its interfaces and removes it: packets are not forwarded any more.
    Unload {
        /// The directory that `dataplane.pin_path` names.
        #[arg(long, value_name = "DIRECTORY")]
        pin_path: PathBuf,
    },
}

/// What to do with a configuration.
#[derive(Debug, Subcommand)]
pub enum ConfigCommand {
    /// Shows everything that is wrong or doubtful. Exit code 0 nothing wrong, 2 refused.
    Check {
        /// The configuration.
        file: PathBuf,
    },
    /// Shows every key.
    Show {
        /// With its default; there is nothing else to show.
        #[arg(long, required = true)]
        defaults: bool,
    },
}

/// What to do with a backend.
#[derive(Debug, Subcommand)]
pub enum BackendCommand {
    /// Gives it no new flows; those it has stay.
    Drain {
        /// POOL/BACKEND
        #[arg(value_name = "POOL/BACKEND")]
        name: String,
    },
    /// Gives it new flows again.
    Undrain {
        /// POOL/BACKEND
        #[arg(value_name = "POOL/BACKEND")]
        name: String,
    },
    /// Gives it another share, relative to the other weights of its pool.
    Weight {
        /// POOL/BACKEND
        #[arg(value_name = "POOL/BACKEND")]
        name: String,
        /// 0 to 65,535; 100 is the usual one.
        weight: u16,
    },
}

/// What to do with a VIP.
#[derive(Debug, Subcommand)]
pub enum VipCommand {
    /// Withdraws its prefix, lower preference first; packets that still come are forwarded.
    Drain {
        /// The VIP's name.
        name: String,
    },
    /// Announces it again.
    Undrain {
        /// The VIP's name.
        name: String,
    },
}

/// What to do with this load balancer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Subcommand)]
pub enum NodeCommand {
    /// Withdraws all its prefixes, lower preference first; packets that still come are forwarded.
    Drain,
    /// Announces them again.
    Undrain,
}

/// What to do with announcements.
#[derive(Debug, Subcommand)]
pub enum BgpCommand {
    /// The routes of each peer, with the reason for each attribute.
    Routes {
        /// Only this prefix.
        prefix: Option<IpNet>,
        /// Only this peer's.
        #[arg(long)]
        peer: Option<String>,
    },
    /// Steers a prefix for a time; undoes itself.
    Steer(Box<Steer>),
    /// Ends a steering, or shedding, before its time.
    Unsteer {
        /// Its number.
        id: u64,
    },
    /// Sheds load from every prefix, by a level of `[[bgp.shedding]]`; undoes itself.
    Shed {
        /// The level; 0 ends shedding.
        level: u32,
        /// For how long, such as 30m; not needed to end it.
        #[arg(
            long = "for",
            value_name = "DURATION",
            value_parser = parse_duration,
        )]
        duration: Option<Duration>,
    },
    /// Lets withdrawals pass that the circuit breaker holds back, and those of prefixes that the
    /// configuration does not have any more; arms the breaker anew.
    Resume,
}

/// A steering; at least one of what it changes must be given.
#[derive(Debug, clap::Args)]
pub struct Steer {
    /// A prefix that is announced, or a VIP's name.
    #[arg(value_name = "PREFIX-OR-VIP")]
    pub target: String,
    /// For how long, such as 30m; at most 24h.
    #[arg(long = "for", value_name = "DURATION", value_parser = parse_duration)]
    pub duration: Duration,
    /// Only for this peer; may be given several times. Else for all.
    #[arg(long = "peer", value_name = "PEER")]
    pub peers: Vec<String>,
    /// Own AS numbers in front, in addition.
    #[arg(long, value_name = "COUNT", default_value_t = 0)]
    pub prepend: u8,
    /// MULTI_EXIT_DISC instead of the configured one.
    #[arg(long)]
    pub med: Option<u32>,
    /// LOCAL_PREF instead of the configured one; iBGP only.
    #[arg(long)]
    pub local_preference: Option<u32>,
    /// A community in addition, such as 65010:100 or no-export.
    #[arg(long = "community", value_name = "COMMUNITY")]
    pub communities: Vec<Community>,
    /// A large community in addition, such as 65010:1:2.
    #[arg(long = "large-community", value_name = "COMMUNITY")]
    pub large_communities: Vec<LargeCommunity>,
    /// Withdraw the route.
    #[arg(long)]
    pub withdraw: bool,
    /// Announce this part of the prefix besides it, to attract.
    #[arg(long = "more-specific", value_name = "PREFIX")]
    pub more_specifics: Vec<IpNet>,
    /// Send GRACEFUL_SHUTDOWN (RFC 8326).
    #[arg(long)]
    pub graceful_shutdown: bool,
    /// Put this ASN into the path, so that it refuses the route. Only as the peer's
    /// `poison_allowed` permits.
    #[arg(long = "poison", value_name = "ASN")]
    pub poison: Vec<u32>,
}

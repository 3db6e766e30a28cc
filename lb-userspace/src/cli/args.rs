//! The grammar of lbctl.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Parser, Subcommand, ValueEnum};

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
    /// VIPs with their pools, backends and rates.
    Vip,
    /// All counters.
    Stats,
    /// Where would this flow go, and why?
    Trace {
        /// The client, ADDRESS:PORT or [ADDRESS]:PORT.
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

//! What can go wrong with the data plane.

use std::io;
use std::path::PathBuf;

use crate::host::membarrier::GracePeriodError;

/// One variant for each thing the caller can do about it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The configuration asks for more slots than `max_slots` has room for.
    #[error(
        "no room for a table of {slots} slots: \
         raise dataplane.max_slots (twice the slots of all pools)"
    )]
    NoRoom {
        /// The table's size.
        slots: usize,
    },
    /// A pool number out of range.
    #[error("there is no pool number {pool}")]
    NoPool {
        /// The number.
        pool: u16,
    },
    /// More VIPs than the index holds.
    #[error("no room for {vips} VIPs (address, protocol, port): at most 4,095")]
    TooManyVips {
        /// How many.
        vips: usize,
    },
    /// The journal is too small.
    #[error(
        "lbd's own state takes {bytes} bytes, more than its journal: raise dataplane.max_backends"
    )]
    JournalFull {
        /// Its size.
        bytes: usize,
    },
    /// Pins of another layout.
    #[error(
        "{path} holds pins of layout version {found}, this lbd has {ours}; they are never reused: \
         stop the lbd that made them, run `lbctl unload --pin-path {path}`, start again"
    )]
    OtherVersion {
        /// The pin path.
        path: PathBuf,
        /// The version found.
        found: String,
        /// This build's version.
        ours: u32,
    },
    /// Something that no lbd made.
    #[error(
        "{found} is no pin of lbd, and {path} must hold nothing else: choose another pin_path, \
         such as {path}/lb"
    )]
    Foreign {
        /// The pin path.
        path: PathBuf,
        /// What was found.
        found: PathBuf,
    },
    /// A map below the pin path is missing or of another shape.
    #[error(
        "{path} is not a whole set of pins ({reason}): \
         run `lbctl unload --pin-path {path}`, start again"
    )]
    Broken {
        /// The pin path.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// A packet for a VIP does not come out of our own program as it must.
    #[error("a probe of {vip} through the own program failed: {reason}")]
    Probe {
        /// The VIP.
        vip: String,
        /// What came out.
        reason: String,
    },
    /// The file system said no.
    #[error("cannot {action} {path}: {source}")]
    Pin {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The kernel refused the programs or a map.
    #[error("the kernel refuses the eBPF object: {0}")]
    Load(String),
    /// Attaching failed.
    #[error("cannot attach to {interface}: {reason}")]
    Attach {
        /// The interface.
        interface: String,
        /// Why, and what to do.
        reason: String,
    },
    /// A map could not be read.
    #[error("cannot read {map}: {reason}")]
    Read {
        /// The map.
        map: &'static str,
        /// Why.
        reason: String,
    },
    /// No grace periods.
    #[error("{0}")]
    Grace(#[source] GracePeriodError),
}

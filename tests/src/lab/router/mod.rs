//! Real routers, each in a namespace with files of its own, and what they say of their routes.
//!
//! ```text
//! BIRD    control socket, text        -+
//! FRR     vtysh, JSON                  +-> Route, Peer: the same words for all three
//! GoBGP   gobgp, JSON                 -+
//! ```
//!
//! Must not: know the load balancer; a router knows only its neighbours.

mod bird;
mod frr;
mod gobgp;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Context as _, Result};

pub use bird::Bird;
pub use frr::Frr;
pub use gobgp::Gobgp;

use crate::lab::namespace::Namespace;

/// How long a router may take until it answers questions.
const READY_DEADLINE: Duration = Duration::from_secs(15);

/// One path to a prefix, as a router has it in its table.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Route {
    /// From whom: the neighbour's address, for BIRD the name of the session.
    pub from: String,
    /// Whether the router has chosen it.
    pub best: bool,
    /// Whether it is kept of a neighbour that is away (graceful restart); BIRD does not say.
    pub stale: bool,
    /// The AS path as AS numbers, nearest first.
    pub as_path: Vec<u32>,
    /// The next hop; of two the global one.
    pub next_hop: Option<IpAddr>,
    /// MULTI_EXIT_DISC.
    pub med: Option<u32>,
    /// LOCAL_PREF, as it came or as the router has set it.
    pub local_preference: Option<u32>,
    /// Communities by number: `65535:0`.
    pub communities: BTreeSet<String>,
    /// Large communities: `65010:1:2`.
    pub large_communities: BTreeSet<String>,
    /// Extended communities: `rt:65010:100`.
    pub extended_communities: BTreeSet<String>,
}

/// What a router says of a session.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Peer {
    /// Whether it is Established.
    pub established: bool,
    /// Since when, as the router writes it: another text is another session.
    pub since: String,
    /// Prefixes received, of all families of the session.
    pub received: u64,
    /// What the router says of it besides: the state or the last error.
    pub info: String,
}

/// What the three have in common.
pub trait Router {
    /// Its name, for messages.
    fn name(&self) -> &str;

    /// The namespace of its host.
    fn namespace(&self) -> &Namespace;

    /// All paths to exactly this prefix (`203.0.113.10/32`); none is not an error.
    ///
    /// # Errors
    /// The router does not answer, or in another form.
    fn routes(&self, prefix: &str) -> Result<Vec<Route>>;

    /// The sessions, by the neighbour's address.
    ///
    /// # Errors
    /// The router does not answer, or in another form.
    fn peers(&self) -> Result<BTreeMap<IpAddr, Peer>>;

    /// All it has logged.
    ///
    /// # Errors
    /// There is no log.
    fn log(&self) -> Result<String>;

    /// `kill -9` of all its processes: its connections are reset by its kernel.
    ///
    /// # Errors
    /// One cannot be signalled.
    fn kill(&mut self) -> Result<()>;

    /// Starts it with the configuration that it had last; returns when it answers.
    ///
    /// # Errors
    /// It refuses the configuration, or does not start.
    fn start_again(&mut self) -> Result<()>;

    /// Writes down the configuration that it reads at its next start.
    ///
    /// # Errors
    /// The file cannot be written.
    fn write(&self, configuration: &str) -> Result<()>;

    /// SIGSTOP: it says nothing more, and its connections stay open.
    ///
    /// # Errors
    /// It does not run.
    fn freeze(&self) -> Result<()>;

    /// SIGCONT.
    ///
    /// # Errors
    /// It does not run.
    fn resume(&self) -> Result<()>;

    /// The path it has chosen to exactly this prefix.
    ///
    /// # Errors
    /// As [`routes`](Self::routes).
    fn best(&self, prefix: &str) -> Result<Option<Route>> {
        Ok(self.routes(prefix)?.into_iter().find(|route| route.best))
    }
}

/// The well-known communities that routers write as words.
const WELL_KNOWN: [(&str, &str); 6] = [
    ("graceful-shutdown", "65535:0"),
    ("gracefulShutdown", "65535:0"),
    ("blackhole", "65535:666"),
    ("no-export", "65535:65281"),
    ("no-advertise", "65535:65282"),
    ("local-AS", "65535:65283"),
];

/// A community as a number, however a router writes it.
fn community(text: &str) -> String {
    let known = WELL_KNOWN.iter().find(|(name, _)| *name == text);
    known.map_or(text, |(_, number)| *number).to_owned()
}

/// AS numbers with spaces between them.
fn as_path(text: &str) -> Result<Vec<u32>> {
    let numbers = text.split_whitespace().map(str::parse);
    numbers.collect::<Result<_, _>>().with_context(|| format!("not an AS path: {text}"))
}

#[cfg(test)]
mod tests {
    use super::{as_path, community};

    #[test]
    fn words_become_numbers() {
        assert_eq!(community("graceful-shutdown"), "65535:0");
        assert_eq!(community("65010:7"), "65010:7");
        assert_eq!(as_path("65010 4200000001").unwrap(), [65_010, 4_200_000_001]);
        assert!(as_path("{65010}").is_err());
    }
}

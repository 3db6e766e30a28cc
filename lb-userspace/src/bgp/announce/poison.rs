//! Poisoning: an AS that finds itself in a path drops the route, and its traffic comes another way.
//!
//! Pure. The path is `own .. own X own`: first and origin AS stay ours, and its length stays what
//! the configuration makes it, so that nobody else moves (LIFEGUARD, SIGCOMM 2012). Every guard is
//! asked again at each decision, so no other order, and no new configuration, gets around it.

use std::collections::BTreeSet;

use super::order::limits::MAX_POISON;
use crate::bgp::asn;
use crate::desired::bgp::limits::MAX_AS_PATH;
use crate::desired::bgp::{Bgp, Peer};

/// What is asked for, and what it stands on.
pub(super) struct Poison<'a> {
    pub(super) bgp: &'a Bgp,
    pub(super) peer: &'a Peer,
    /// All ASNs that the path would carry, of every order.
    pub(super) asns: &'a BTreeSet<u32>,
    /// Own ASNs that the configuration alone puts into the path; what orders add does not count.
    pub(super) baseline: usize,
    /// Length of the whole path.
    pub(super) length: usize,
    /// A covering prefix goes to the same peer, not poisoned.
    pub(super) sentinel: bool,
    /// Somebody else is seen to announce the prefix.
    pub(super) others: bool,
}

impl Poison<'_> {
    /// Whether the path may be poisoned.
    ///
    /// # Errors
    /// The first guard that forbids it, in one sentence.
    pub(super) fn check(&self) -> Result<(), String> {
        let Self { bgp, peer, asns, .. } = self;
        let name = &peer.name;
        if asns.len() > MAX_POISON {
            return Err(format!(
                "at most {MAX_POISON} ASNs may poison a path, and to {name} it would be {}",
                asns.len()
            ));
        }
        if peer.is_internal(bgp.local_as) {
            return Err(format!("{name} is an iBGP peer: its routes have no path to poison"));
        }
        asns.iter().try_for_each(|number| self.check_asn(*number))?;
        // `own X own` is the least: one own ASN in front and one as the origin.
        let least = asns.len() + 2;
        if self.baseline < least {
            return Err(format!(
                "the path to {name} must already be {least} own ASNs long, so that poisoning does \
                 not make it longer for everybody: set prepend = {} or more in the configuration",
                least - 1
            ));
        }
        if self.length > MAX_AS_PATH {
            return Err(format!("the path to {name} would be longer than {MAX_AS_PATH} ASNs"));
        }
        if !self.sentinel && !self.others {
            return Err(format!(
                "no covering prefix is announced unpoisoned to {name}, and nobody else is seen to \
                 announce this one: the poisoned AS could be left without any route"
            ));
        }
        Ok(())
    }

    fn check_asn(&self, number: u32) -> Result<(), String> {
        let Self { bgp, peer, .. } = self;
        let neighbour = bgp.peers.values().find(|it| it.remote_as == number);
        let refuse = |why: &str| Err(format!("AS {number} may not poison a path: {why}"));
        if number == bgp.local_as {
            return refuse("it is the local AS");
        }
        if let Some(neighbour) = neighbour {
            let why = format!("peer {} is in it, withdraw from that instead", neighbour.name);
            return refuse(&why);
        }
        if asn::is_reserved(number) {
            return refuse("it is reserved");
        }
        if asn::is_private(number) {
            return refuse("it is for private use");
        }
        if asn::is_tier_1(number) {
            return refuse("it is a transit-free network, whose number others filter in our paths");
        }
        if !peer.poison_allowed.contains(&number) {
            return refuse(&format!("poison_allowed of peer {} does not list it", peer.name));
        }
        Ok(())
    }
}

/// Puts the ASNs in front of the origin, in place of own ones.
pub(super) fn apply(path: &mut [u32], asns: &BTreeSet<u32>) {
    let end = path.len().saturating_sub(1);
    let start = end.saturating_sub(asns.len());
    for (place, number) in path.iter_mut().take(end).skip(start).zip(asns) {
        *place = *number;
    }
}

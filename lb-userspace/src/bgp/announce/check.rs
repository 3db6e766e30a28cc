//! Whether an order of steering may be carried out.
//!
//! Pure. A refusal is one sentence that says what is wrong; nothing is changed here.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use ipnet::IpNet;

use super::order::{Steer, limits};
use super::policy::{View, carries};
use super::steer::{Book, list};
use super::{Roas, Validity};
use crate::desired::bgp::Peer;
use crate::desired::bgp::limits::MAX_AS_PATH;
use crate::desired::format_duration;

/// What an order would come to.
pub(super) struct Checked {
    pub(super) prefixes: BTreeSet<IpNet>,
    pub(super) warnings: Vec<String>,
    /// All orders, this one too.
    pub(super) book: Book,
    pub(super) id: u64,
}

/// What is known when an order comes.
pub(super) struct Check<'a> {
    /// The prefixes and the orders that hold already.
    pub(super) view: View<'a>,
    /// The prefixes of each VIP by its name.
    pub(super) vips: &'a BTreeMap<String, BTreeSet<IpNet>>,
    pub(super) roas: Option<&'a Roas>,
}

/// How long an order holds.
pub(super) fn lasts(time: Duration) -> Result<(), String> {
    if (limits::MIN_FOR..=limits::MAX_FOR).contains(&time) {
        return Ok(());
    }
    let [least, most] = [limits::MIN_FOR, limits::MAX_FOR].map(format_duration);
    Err(format!("an order holds for {least} to {most}, not {}", format_duration(time)))
}

impl Check<'_> {
    /// Checks an order of steering.
    ///
    /// # Errors
    /// Why it is refused.
    pub(super) fn steer(self, steer: &Steer, now: Duration) -> Result<Checked, String> {
        lasts(steer.lasts)?;
        if !self.view.book.has_room() {
            let most = limits::MAX_STEERS;
            return Err(format!("{most} orders hold already: end one with `lbctl bgp unsteer ID`"));
        }
        words(steer)?;
        let prefixes = self.target(&steer.target)?;
        let peers = self.peers(steer, &prefixes)?;
        let mut warnings = Vec::new();
        local_preference(steer, &peers, self.view.bgp.local_as, &mut warnings)?;
        self.more_specifics(steer, &prefixes, &mut warnings)?;
        let mut book = self.view.book.clone();
        let id = book.steer(steer.clone(), prefixes.clone(), now);
        let with = View { book: &book, offers: self.view.offers.clone(), ..self.view };
        paths(steer, &prefixes, &peers, &with)?;
        poison(id, &with, &mut warnings)?;
        if !steer.poison.is_empty() {
            warnings.push("networks that verify ASPA may take the path for a leak".to_owned());
        }
        Ok(Checked { prefixes, warnings, book, id })
    }

    /// The prefixes that a target names.
    fn target(&self, target: &str) -> Result<BTreeSet<IpNet>, String> {
        let address = target.parse().map(|address: std::net::IpAddr| IpNet::from(address));
        if let Ok(prefix) = target.parse().or(address) {
            let known = self.view.offers.contains_key(&prefix);
            return match known {
                true => Ok(BTreeSet::from([prefix])),
                false => Err(format!("{prefix} is no prefix that this load balancer announces")),
            };
        }
        let prefixes = self.vips.get(target).cloned();
        prefixes.ok_or_else(|| format!("`{target}` is neither a prefix nor a VIP"))
    }

    /// The peers that an order is for; at least one of them carries one of the prefixes.
    fn peers(&self, steer: &Steer, prefixes: &BTreeSet<IpNet>) -> Result<Vec<&Peer>, String> {
        let all = &self.view.bgp.peers;
        if let Some(unknown) = steer.peers.iter().find(|name| !all.contains_key(*name)) {
            return Err(format!("there is no peer `{unknown}`"));
        }
        let chosen = |peer: &&Peer| steer.peers.is_empty() || steer.peers.contains(&peer.name);
        let useful = |peer: &&Peer| prefixes.iter().any(|prefix| carries(peer, prefix));
        let peers: Vec<&Peer> = all.values().filter(chosen).filter(useful).collect();
        match peers.is_empty() {
            true => Err(format!("no such peer is announced {}", list(prefixes))),
            false => Ok(peers),
        }
    }

    fn more_specifics(
        &self,
        steer: &Steer,
        prefixes: &BTreeSet<IpNet>,
        warnings: &mut Vec<String>,
    ) -> Result<(), String> {
        if steer.more_specifics.len() > limits::MAX_MORE_SPECIFICS {
            let most = limits::MAX_MORE_SPECIFICS;
            return Err(format!("an order has at most {most} more-specifics"));
        }
        for net in &steer.more_specifics {
            let around = prefixes.iter().filter(|it| it.contains(net) && *it != net);
            let Some(parent) = around.max_by_key(|it| it.prefix_len()) else {
                return Err(format!("{net} is not inside {}", list(prefixes)));
            };
            if *net != net.trunc() {
                return Err(format!("{net} has bits beyond its length: {}", net.trunc()));
            }
            let longest = match net {
                IpNet::V4(_) => limits::LONGEST_V4,
                IpNet::V6(_) => limits::LONGEST_V6,
            };
            if net.prefix_len() > longest && parent.prefix_len() <= longest {
                return Err(format!("{net} is longer than /{longest}: networks do not accept it"));
            }
            if self.view.offers.contains_key(net) {
                return Err(format!("{net} is configured, and announced by itself"));
            }
            if let Some(id) = self.view.book.rival(net, prefixes) {
                return Err(format!("steer {id} announces {net} already"));
            }
            self.roa(net, warnings)?;
        }
        Ok(())
    }

    fn roa(&self, net: &IpNet, warnings: &mut Vec<String>) -> Result<(), String> {
        let local_as = self.view.bgp.local_as;
        match self.roas.map(|roas| roas(net, local_as)) {
            Some(Validity::Invalid) => Err(format!(
                "no ROA allows AS {local_as} to announce {net} (RPKI: Invalid): networks drop it"
            )),
            Some(Validity::NotFound) => {
                warnings.push(format!("no ROA covers {net}"));
                Ok(())
            }
            Some(Validity::Valid) | None => Ok(()),
        }
    }
}

/// What makes sense without knowing anything else.
fn words(steer: &Steer) -> Result<(), String> {
    let nothing = Steer {
        target: steer.target.clone(),
        peers: steer.peers.clone(),
        lasts: steer.lasts,
        ..Steer::default()
    };
    if *steer == nothing {
        return Err("nothing is to be done: say how to announce it".to_owned());
    }
    if steer.withdraw && *steer != (Steer { withdraw: true, ..nothing }) {
        return Err("what is withdrawn has no attributes: `withdraw` goes with nothing".to_owned());
    }
    let most = crate::desired::bgp::limits::MAX_COMMUNITIES;
    if steer.communities.len().max(steer.large_communities.len()) > most {
        return Err(format!("a route has at most {most} communities of a kind"));
    }
    Ok(())
}

/// LOCAL_PREF goes to iBGP only.
fn local_preference(
    steer: &Steer,
    peers: &[&Peer],
    local_as: u32,
    warnings: &mut Vec<String>,
) -> Result<(), String> {
    if steer.local_preference.is_none() {
        return Ok(());
    }
    let external: Vec<&str> =
        peers.iter().filter(|it| !it.is_internal(local_as)).map(|it| it.name.as_str()).collect();
    if external.len() == peers.len() {
        return Err("local preference goes to iBGP peers only, and this is for none".to_owned());
    }
    if !external.is_empty() {
        warnings.push(format!("local preference does not go to {}: eBGP", list(external)));
    }
    Ok(())
}

/// No path gets too long.
fn paths(
    steer: &Steer,
    prefixes: &BTreeSet<IpNet>,
    peers: &[&Peer],
    with: &View<'_>,
) -> Result<(), String> {
    if steer.prepend == 0 {
        return Ok(());
    }
    let external = |peer: &&&Peer| !peer.is_internal(with.bgp.local_as);
    if peers.iter().filter(external).count() == 0 {
        return Err("prepending is for eBGP peers only, and this is for none".to_owned());
    }
    for peer in peers.iter().filter(external) {
        let longest = prefixes.iter().map(|prefix| with.path_length(prefix, peer)).max();
        if let Some(length) = longest.filter(|length| *length > MAX_AS_PATH) {
            return Err(format!(
                "the path to {} would be {length} ASNs long, and at most {MAX_AS_PATH} are sent",
                peer.name
            ));
        }
    }
    Ok(())
}

/// What orders poison together passes every guard; what an older one poisons is said to stop.
fn poison(id: u64, with: &View<'_>, warnings: &mut Vec<String>) -> Result<(), String> {
    if !with.book.poisons() {
        return Ok(());
    }
    for prefix in with.offers.keys() {
        for peer in with.bgp.peers.values().filter(|peer| carries(peer, prefix)) {
            let Some(Err(why)) = with.check_poison(prefix, peer) else { continue };
            let ours = |it: &super::steer::Active| it.id == id && !it.steer.poison.is_empty();
            if with.book.steers(prefix, &peer.name).any(ours) {
                return Err(why);
            }
            warnings.push(format!("{prefix} is not poisoned to {} while: {why}", peer.name));
        }
    }
    Ok(())
}

//! Which prefixes a configuration announces, and which VIPs each of them stands for.
//!
//! A VIP belongs to the longest configured prefix that contains it, else to a host route. A
//! prefix whose VIPs all belong to longer ones is a covering prefix: what takes over when those
//! are gone.

use std::collections::{BTreeMap, BTreeSet};

use ipnet::IpNet;

use crate::desired::bgp::PrefixSettings;
use crate::desired::{Desired, VipKey};

/// The VIPs that a prefix stands for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Scope {
    /// Those that it announces: all must be servable.
    pub own: BTreeSet<VipKey>,
    /// Those that a longer prefix inside it announces: without own ones, one of them must be.
    pub inner: BTreeSet<VipKey>,
}

/// Every prefix that `desired` announces.
pub(super) fn prefixes(desired: &Desired) -> BTreeMap<IpNet, (PrefixSettings, Scope)> {
    let Some(bgp) = &desired.bgp else { return BTreeMap::new() };
    let listed = bgp.prefixes.iter();
    let listed = listed.map(|(prefix, it)| (*prefix, (it.clone(), Scope::default())));
    let mut prefixes: BTreeMap<IpNet, (PrefixSettings, Scope)> = listed.collect();
    for key in desired.vips.keys() {
        let host = IpNet::from(key.address);
        let mut around = std::iter::successors(Some(host), IpNet::supernet)
            .filter(|prefix| bgp.prefixes.contains_key(prefix));
        let owner = around.next().unwrap_or(host);
        let unlisted = || (bgp.host_routes.clone(), Scope::default());
        prefixes.entry(owner).or_insert_with(unlisted).1.own.insert(*key);
        for prefix in around {
            if let Some((_, scope)) = prefixes.get_mut(&prefix) {
                scope.inner.insert(*key);
            }
        }
    }
    prefixes
}

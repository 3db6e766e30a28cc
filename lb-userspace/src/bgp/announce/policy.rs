//! The policy: the routes of each peer, with a reason for each attribute.
//!
//! A pure function of the configuration, of what may be announced and how (servable, drained,
//! shutting down: an [`Offer`]), and of the orders that hold. Layers add up in this order: `[bgp]`,
//! the prefix, the peer, the prefix's peer, shedding, steering, lower. Communities and prepending
//! of all layers hold, of the other attributes the last layer's.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;

use super::facts::Seen;
use super::poison::{self, Poison};
use super::report::AttributeReport;
use super::steer::{self, Active, Book, list};
use crate::bgp::community::Community;
use crate::bgp::route::Attributes;
use crate::desired::bgp::limits::MAX_AS_PATH;
use crate::desired::bgp::{AttributeSettings, Bgp, Lower, Peer, PrefixSettings};

/// LOCAL_PREF where nothing else is asked for, as routers have it.
pub(super) const DEFAULT_LOCAL_PREFERENCE: u32 = 100;

/// How a prefix may be announced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Offer {
    /// Not at all.
    No,
    /// As the layers say.
    Plain,
    /// With lowered preference too.
    Lowered,
}

/// What the policy looks at.
pub(super) struct View<'a> {
    pub(super) bgp: &'a Bgp,
    /// Every prefix there is.
    pub(super) offers: BTreeMap<IpNet, (Offer, &'a PrefixSettings)>,
    pub(super) book: &'a Book,
    pub(super) seen: &'a BTreeMap<IpNet, Seen>,
}

/// What a peer gets of a prefix.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    /// Nothing, for this reason.
    Nothing(String),
    /// A route.
    Route {
        attributes: Attributes,
        reasons: Vec<AttributeReport>,
        /// More-specifics with the same attributes, and the order that asks for each.
        more_specifics: BTreeMap<IpNet, String>,
    },
}

/// With one of these a route goes no further than the peer, or leads nowhere.
const STAYS_THERE: [Community; 4] = [
    Community::NO_EXPORT,
    Community::NO_ADVERTISE,
    Community::NO_EXPORT_SUBCONFED,
    Community::BLACKHOLE,
];

/// A layer: its name, and what it adds.
type Layer<'a> = (Cow<'static, str>, Cow<'a, AttributeSettings>);

/// The peer's session carries the prefix's family.
pub(super) const fn carries(peer: &Peer, prefix: &IpNet) -> bool {
    match prefix {
        IpNet::V4(_) => peer.ipv4,
        IpNet::V6(_) => peer.ipv6,
    }
}

impl View<'_> {
    /// What `peer` gets of `prefix`.
    pub(super) fn wanted(&self, prefix: &IpNet, peer: &Peer) -> Wanted {
        let nothing = |why: &str| Wanted::Nothing(why.to_owned());
        let (offer, settings) = match self.offers.get(prefix) {
            Some((offer, _)) if *offer == Offer::No => return nothing("not to be announced"),
            Some((offer, settings)) => (*offer, *settings),
            None => return nothing("not configured"),
        };
        if let Some(steer) = self.book.steers(prefix, &peer.name).find(|it| it.steer.withdraw) {
            return Wanted::Nothing(format!("{}: not announced to {}", steer.name(), peer.name));
        }
        let layers = self.layers(prefix, settings, peer, offer);
        let mut composed = Composed::new(self.bgp, peer, prefix, &layers);
        self.poison(&mut composed, prefix, peer);
        let more_specifics = self.more_specifics(prefix, peer);
        let Composed { attributes, reasons } = composed;
        Wanted::Route { attributes, reasons, more_specifics }
    }

    /// The layers of the configuration.
    fn configured<'b>(
        &'b self,
        prefix: &IpNet,
        settings: &'b PrefixSettings,
        peer: &'b Peer,
    ) -> Vec<Layer<'b>> {
        let listed = self.bgp.prefixes.contains_key(prefix);
        let mut layers: Vec<Layer<'b>> = vec![
            ("[bgp]".into(), Cow::Borrowed(&self.bgp.attributes)),
            (
                if listed { "prefix" } else { "host routes" }.into(),
                Cow::Borrowed(&settings.attributes),
            ),
            (format!("peer {}", peer.name).into(), Cow::Borrowed(&peer.attributes)),
        ];
        if let Some(theirs) = settings.peers.get(&peer.name) {
            layers.push((format!("prefix's peer {}", peer.name).into(), Cow::Borrowed(theirs)));
        }
        layers
    }

    /// All layers.
    fn layers<'b>(
        &'b self,
        prefix: &IpNet,
        settings: &'b PrefixSettings,
        peer: &'b Peer,
        offer: Offer,
    ) -> Vec<Layer<'b>> {
        let mut layers = self.configured(prefix, settings, peer);
        let level = usize::try_from(self.book.level()).unwrap_or(usize::MAX);
        // A level that the configuration has no more is its last one.
        let level = level.min(self.bgp.shedding.len());
        if let Some(settings) = level.checked_sub(1).and_then(|it| self.bgp.shedding.get(it)) {
            layers.push((format!("shedding {level}").into(), Cow::Borrowed(settings)));
        }
        for steer in self.book.steers(prefix, &peer.name) {
            let settings = steer.settings(peer, self.bgp.local_as);
            layers.push((steer.name().into(), Cow::Owned(settings)));
        }
        if offer == Offer::Lowered {
            let settings = lowered(&self.bgp.lower, peer, self.bgp.local_as);
            layers.push(("lower".into(), Cow::Owned(settings)));
        }
        layers
    }

    /// ASNs in the path of a route, were there no limit.
    pub(super) fn path_length(&self, prefix: &IpNet, peer: &Peer) -> usize {
        let Some((offer, settings)) = self.offers.get(prefix) else { return 0 };
        own(&self.layers(prefix, settings, peer, *offer))
    }

    /// Poisons the path if orders ask for it and every guard allows it.
    fn poison(&self, composed: &mut Composed, prefix: &IpNet, peer: &Peer) {
        let Some(check) = self.check_poison(prefix, peer) else { return };
        let asns = self.book.poison(prefix, &peer.name);
        let by = self.book.steers(prefix, &peer.name).filter(|it| !it.steer.poison.is_empty());
        let by = by.map(Active::name).collect::<Vec<String>>().join(", ");
        let why = match check {
            Ok(()) => {
                poison::apply(&mut composed.attributes.as_path, &asns);
                format!("poison {} ({by})", list(&asns))
            }
            Err(why) => format!("no poison {} ({by}): {why}", list(&asns)),
        };
        let path = list(&composed.attributes.as_path);
        if let Some(report) = composed.reasons.iter_mut().find(|it| it.name == AS_PATH) {
            report.value = path;
            report.why = format!("{}, {why}", report.why);
        }
    }

    /// Whether every guard allows what all orders together poison a route with; `None` if nothing.
    pub(super) fn check_poison(&self, prefix: &IpNet, peer: &Peer) -> Option<Result<(), String>> {
        let asns = self.book.poison(prefix, &peer.name);
        let (_, settings) = self.offers.get(prefix).filter(|_| !asns.is_empty())?;
        let poison = Poison {
            bgp: self.bgp,
            peer,
            asns: &asns,
            baseline: own(&self.configured(prefix, settings, peer)),
            length: self.path_length(prefix, peer),
            sentinel: self.has_sentinel(prefix, peer),
            others: matches!(self.seen.get(prefix), Some(Seen::Others { .. })),
        };
        Some(poison.check())
    }

    /// The peer has a covering prefix that no order poisons, takes away or lowers, and that it may
    /// tell others.
    fn has_sentinel(&self, prefix: &IpNet, peer: &Peer) -> bool {
        let covers = |other: &IpNet| other != prefix && other.contains(prefix);
        let covering = self.offers.iter().filter(|(other, _)| covers(other));
        let mut plain = covering.filter(|(_, (offer, _))| *offer == Offer::Plain);
        plain.any(|(other, (offer, settings))| {
            let layers = self.layers(other, settings, peer, *offer);
            let mut communities = layers.iter().flat_map(|(_, it)| &it.communities);
            carries(peer, other)
                && !communities.any(|it| STAYS_THERE.contains(it))
                && !self
                    .book
                    .steers(other, &peer.name)
                    .any(|it| it.steer.withdraw || !it.steer.poison.is_empty())
        })
    }

    /// What orders add inside a prefix. What is configured itself stays its own master.
    fn more_specifics(&self, prefix: &IpNet, peer: &Peer) -> BTreeMap<IpNet, String> {
        let steers = self.book.steers(prefix, &peer.name);
        let all = steers.flat_map(|it| it.more_specifics(prefix).map(|net| (*net, it.name())));
        all.filter(|(net, _)| !self.offers.contains_key(net)).collect()
    }
}

/// What lowering adds.
fn lowered(lower: &Lower, peer: &Peer, local_as: u32) -> AttributeSettings {
    let mut settings = AttributeSettings {
        communities: lower.communities.clone(),
        prepend: lower.prepend,
        ..AttributeSettings::default()
    };
    if lower.graceful_shutdown {
        steer::lower(&mut settings, peer, local_as);
    }
    settings
}

/// Own ASNs in the path of a route to eBGP, were there no limit.
fn own(layers: &[Layer<'_>]) -> usize {
    1 + layers.iter().map(|(_, it)| usize::from(it.prepend)).sum::<usize>()
}

/// The name of the path in reports.
const AS_PATH: &str = "AS_PATH";

/// Attributes in the making.
struct Composed {
    attributes: Attributes,
    reasons: Vec<AttributeReport>,
}

impl Composed {
    fn new(bgp: &Bgp, peer: &Peer, prefix: &IpNet, layers: &[Layer<'_>]) -> Self {
        let mut reasons = Vec::new();
        let internal = peer.is_internal(bgp.local_as);
        let mut say = |name: &str, value: String, why: String| {
            reasons.push(AttributeReport { name: name.to_owned(), value, why });
        };
        let as_path =
            if internal { Vec::new() } else { vec![bgp.local_as; own(layers).min(MAX_AS_PATH)] };
        say(AS_PATH, list(&as_path), path_reason(layers, internal));
        let next_hop = last(layers, |it| match prefix {
            IpNet::V4(_) => it.next_hop4,
            IpNet::V6(_) => it.next_hop6,
        });
        let (next_hop, why) = next_hop.unzip();
        let value = next_hop.map_or("own address".to_owned(), |it: IpAddr| it.to_string());
        say("NEXT_HOP", value, why.unwrap_or_else(|| "default".to_owned()));
        let med = last(layers, |it| it.med);
        if let Some((med, why)) = &med {
            say("MULTI_EXIT_DISC", med.to_string(), why.clone());
        }
        let local = internal.then(|| {
            let asked = last(layers, |it| it.local_preference);
            asked.unwrap_or((DEFAULT_LOCAL_PREFERENCE, "default".to_owned()))
        });
        if let Some((local, why)) = &local {
            say("LOCAL_PREF", local.to_string(), why.clone());
        }
        let communities = all(layers, |it| &it.communities, "COMMUNITIES", &mut say);
        let large = all(layers, |it| &it.large_communities, "LARGE_COMMUNITIES", &mut say);
        let extended = all(layers, |it| &it.extended_communities, "EXTENDED COMMUNITIES", &mut say);
        let attributes = Attributes {
            as_path,
            next_hop,
            med: med.map(|(med, _)| med),
            local_preference: local.map(|(local, _)| local),
            communities,
            large_communities: large,
            extended_communities: extended,
        };
        Self { attributes, reasons }
    }
}

/// Who made the path as long as it is.
fn path_reason(layers: &[Layer<'_>], internal: bool) -> String {
    let prepending = layers.iter().filter(|(_, it)| it.prepend > 0);
    let words = prepending.map(|(name, it)| format!("prepend {} ({name})", it.prepend));
    let words: Vec<String> = words.collect();
    match (internal, words.is_empty()) {
        (true, true) => "iBGP".to_owned(),
        (true, false) => format!("iBGP, whose paths start empty: no {}", words.join(", ")),
        (false, true) => "local AS".to_owned(),
        (false, false) if own(layers) > MAX_AS_PATH => {
            format!("local AS, {}, cut to {MAX_AS_PATH}", words.join(", "))
        }
        (false, false) => format!("local AS, {}", words.join(", ")),
    }
}

/// The last layer's value, and that layer.
fn last<T>(
    layers: &[Layer<'_>],
    value: impl Fn(&AttributeSettings) -> Option<T>,
) -> Option<(T, String)> {
    let mut from_last = layers.iter().rev();
    from_last.find_map(|(name, it)| value(it).map(|value| (value, name.to_string())))
}

/// The communities of all layers, each with the layers that ask for it.
fn all<T: Copy + Ord + ToString>(
    layers: &[Layer<'_>],
    of: impl for<'a> Fn(&'a AttributeSettings) -> &'a BTreeSet<T>,
    attribute: &str,
    say: &mut impl FnMut(&str, String, String),
) -> BTreeSet<T> {
    let all: BTreeSet<T> = layers.iter().flat_map(|(_, it)| of(it).iter().copied()).collect();
    for one in &all {
        let by = layers.iter().filter(|(_, it)| of(it).contains(one));
        let by: Vec<&str> = by.map(|(name, _)| name.as_ref()).collect();
        say(attribute, one.to_string(), by.join(", "));
    }
    all
}

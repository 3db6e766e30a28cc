//! Where a flow goes, as the data plane's own code decides it.

use std::net::SocketAddr;

use lb_common::backend::BackendId;
use lb_common::decide::Path;

use super::operator::unknown;
use super::{Controller, LinkState};
use crate::api::requests::TraceQuestion;
use crate::api::types::{Trace, TracedFlow};
use crate::api::{API_VERSION, Failure};
use crate::dataplane;
use crate::desired::{Port, Protocol, Vip, VipKey};
use crate::host::netlink::NextHop;
use crate::tracking::CONTESTED;

/// Answers to one question, when a pool has many VIPs.
const FLOWS_MAX: usize = 16;

impl Controller {
    pub(super) fn trace(&self, question: &TraceQuestion) -> Result<Trace, Failure> {
        let meant = self.meant(&question.target)?;
        let source = question.source;
        let count = meant.len();
        let is_same = |(vip, _): &(&Vip, u16)| vip.key.address.is_ipv4() == source.is_ipv4();
        let same: Vec<(&Vip, u16)> = meant.into_iter().filter(is_same).collect();
        if same.is_empty() {
            let (family, have) = if source.is_ipv4() { ("IPv4", "IPv6") } else { ("IPv6", "IPv4") };
            return Err(Failure::invalid(format!(
                "{source} is an {family} client, and `{}` has only {have} VIPs ({count})",
                question.target
            )));
        }
        let flows: Result<Vec<TracedFlow>, Failure> = same
            .into_iter()
            .take(FLOWS_MAX)
            .map(|(vip, port)| self.traced(source, vip, port))
            .collect();
        Ok(Trace { version: API_VERSION, source: source.to_string(), flows: flows? })
    }

    /// The VIPs that are meant, each with a port.
    fn meant(&self, target: &str) -> Result<Vec<(&Vip, u16)>, Failure> {
        let vips = &self.desired.vips;
        if let Ok(key) = target.parse::<VipKey>() {
            let any = VipKey { port: Port::Any, ..key };
            let vip = vips.get(&key).or_else(|| vips.get(&any));
            let vip = vip.ok_or_else(|| Failure::unknown(format!("there is no VIP {key}")))?;
            return Ok(vec![(vip, chosen(vip, port_of(key))?)]);
        }
        let numbered = target.rsplit_once(':').and_then(|(name, port)| {
            port.parse::<u16>().ok().filter(|port| *port != 0).map(|port| (name, Some(port)))
        });
        let (name, port) = numbered.unwrap_or((target, None));
        let named: Vec<&Vip> = vips.values().filter(|vip| vip.name == name).collect();
        let of_pool = || vips.values().filter(|vip| vip.pool == name).collect::<Vec<&Vip>>();
        let found = if named.is_empty() { of_pool() } else { named };
        if found.is_empty() {
            let names = vips.values().map(|vip| vip.name.as_str());
            let known: std::collections::BTreeSet<&str> =
                names.chain(self.desired.pools.keys().map(String::as_str)).collect();
            let known: Vec<&str> = known.into_iter().collect();
            return Err(unknown("VIP or pool with VIPs", name, &known));
        }
        let exact = |vip: &&Vip| match (vip.key.port, port) {
            (Port::Exact(own), Some(port)) => own == port,
            _ => true,
        };
        let meant: Vec<&Vip> = found.into_iter().filter(exact).collect();
        if meant.is_empty() {
            let port = port.unwrap_or_default();
            return Err(Failure::unknown(format!("`{name}` has no VIP on port {port}")));
        }
        // Those that serve any port are left out where others answer the question.
        let mut answers = meant.into_iter().map(|vip| Ok((vip, chosen(vip, port)?)));
        match answers.clone().filter_map(Result::ok).collect::<Vec<(&Vip, u16)>>() {
            known if known.is_empty() => answers.next().transpose().map(Vec::from_iter),
            known => Ok(known),
        }
    }

    fn traced(&self, source: SocketAddr, vip: &Vip, port: u16) -> Result<TracedFlow, Failure> {
        let destination = SocketAddr::new(vip.key.address, port);
        let protocol = match vip.key.protocol {
            Protocol::Tcp => 6,
            Protocol::Udp => 17,
        };
        let trace = self.dataplane.trace(source, destination, protocol).ok_or_else(|| {
            Failure::refused(format!("the data plane does not have {} yet", vip.key))
        })?;
        let record = self.numbers.backends.get(&trace.owner.0);
        let tracker = self.pools.get(&vip.pool).and_then(|pool| pool.tracker.as_ref());
        let rendered = tracker.map(|tracker| tracker.render().slots);
        let slot = rendered.and_then(|slots| slots.get(trace.slot as usize).copied());
        let hop = record.and_then(|record| self.hops.get(&record.address));
        let why_unresolved = record.and_then(|record| self.unresolved.get(&record.address));
        let next_hop = match (hop, why_unresolved) {
            (Some(hop), _) => self.way(hop),
            (None, Some(why)) => why.to_string(),
            (None, None) => "none".to_owned(),
        };
        let verdict = match (record, hop) {
            (None, _) => "drop: no_backend",
            (Some(_), None) => "drop: unresolved",
            (Some(_), Some(_)) => "tx",
        };
        Ok(TracedFlow {
            name: vip.name.clone(),
            vip: vip.key.to_string(),
            destination: destination.to_string(),
            pool: vip.pool.clone(),
            hash: format!("{:016x}", trace.hash),
            slot: trace.slot,
            slots: trace.slots,
            generation: trace.generation,
            contested: slot.is_some_and(|slot| slot & CONTESTED != 0),
            path: word(trace.path).to_owned(),
            why: self.why(&trace, slot),
            backend: record.map(|record| record.name.clone()),
            address: record.map(|record| record.address.to_string()),
            encap: record.map(|record| record.encap.to_string()),
            path_mtu: hop.map(|hop| hop.mtu),
            next_hop,
            verdict: verdict.to_owned(),
        })
    }

    fn why(&self, trace: &dataplane::Trace, slot: Option<u16>) -> String {
        let new = slot.map(|slot| BackendId(slot & !CONTESTED)).filter(|new| *new != trace.owner);
        let new = new.and_then(|new| self.numbers.backends.get(&new.0));
        let new = new.map_or_else(String::new, |new| format!("; a new flow goes to {}", new.name));
        let why = match trace.path {
            Path::Stateless => "owner of the slot, which is not contested",
            Path::Entry => "its entry in the flow table",
            Path::New => "owner of the slot, for a new flow",
            Path::Base => "no entry, and the slot's window is open: its owner before the window",
            Path::Miss => "owner of the slot, no entry in the flow table",
        };
        format!("{why}{new}")
    }

    fn way(&self, hop: &NextHop) -> String {
        let link = self.links.iter().find_map(|(name, link)| match link {
            LinkState::Up(link) => (link.index == hop.interface_index).then(|| name.clone()),
            LinkState::Down | LinkState::Gone => None,
        });
        let interface = link.unwrap_or_else(|| format!("interface {}", hop.interface_index));
        let mac = hop.destination_mac.map(|byte| format!("{byte:02x}")).join(":");
        format!("{mac} by {interface}")
    }
}

const fn port_of(key: VipKey) -> Option<u16> {
    match key.port {
        Port::Any => None,
        Port::Exact(port) => Some(port),
    }
}

/// The port to ask for: the VIP's own, or the one that was named.
fn chosen(vip: &Vip, named: Option<u16>) -> Result<u16, Failure> {
    match (vip.key.port, named) {
        (Port::Exact(port), _) | (Port::Any, Some(port)) => Ok(port),
        (Port::Any, None) => Err(Failure::invalid(format!(
            "VIP `{0}` serves any port: name one, such as {0}:443",
            vip.name
        ))),
    }
}

const fn word(path: Path) -> &'static str {
    match path {
        Path::Stateless => "stateless",
        Path::Entry => "entry",
        Path::New => "new",
        Path::Base => "base",
        Path::Miss => "miss",
    }
}

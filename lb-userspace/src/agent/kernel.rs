//! Loading, attaching, pinning, taking over: everything that changes the kernel.
//!
//! Order: load and fill new maps (nobody sees them), then the MSS clamp, then decapsulation, then
//! pins. A step that fails undoes the ones before it. Over pinned links the programs are
//! exchanged inside the link, so no packet passes between two programs.

use std::collections::BTreeMap;

use aya::maps::lpm_trie::Key;
use aya::maps::{Array, HashMap, LpmTrie, MapData, MapError};
use aya::{Ebpf, EbpfLoader};
use lb_common::addr::Address;
use lb_common::agent::{Settings, map_name};

use super::attach::{self, Held};
use super::counters::{self, Reading};
use super::error::AgentError;
use super::netlink::Interface;
use super::options::Mode;
use super::pins::{EGRESS, INGRESS, Pins};
use super::plan::Plan;

use crate::dataplane::object::AGENT;

/// How decapsulation is attached. The numbers are kept in the pinned settings.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u16)]
pub enum Place {
    /// In the driver.
    XdpNative = 1,
    /// In the kernel's receive path, before tc.
    XdpGeneric = 2,
    /// tc ingress.
    TcIngress = 3,
}

impl Place {
    /// What the kernel calls its links.
    const fn link_kind(self) -> &'static str {
        match self {
            Self::XdpNative | Self::XdpGeneric => "xdp",
            Self::TcIngress => "tcx",
        }
    }

    /// For logs and errors.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::XdpNative => "native XDP",
            Self::XdpGeneric => "generic XDP",
            Self::TcIngress => "tc ingress",
        }
    }

    const fn from_number(number: u16) -> Option<Self> {
        match number {
            1 => Some(Self::XdpNative),
            2 => Some(Self::XdpGeneric),
            3 => Some(Self::TcIngress),
            _ => None,
        }
    }

    /// The ways to try, in order.
    pub(super) const fn candidates(mode: Mode) -> &'static [Self] {
        match mode {
            Mode::Auto => &[Self::XdpNative, Self::XdpGeneric, Self::TcIngress],
            Mode::Xdp => &[Self::XdpNative],
            Mode::XdpGeneric => &[Self::XdpGeneric],
            Mode::Tc => &[Self::TcIngress],
        }
    }
}

/// Loaded and attached.
#[derive(Debug)]
pub struct Agent {
    ebpf: Ebpf,
    addresses: BTreeMap<Address, u32>,
    interface: u32,
    place: Place,
    reason: String,
    taken_over: bool,
    ingress: Held,
    egress: Held,
    pins: Option<Pins>,
}

impl Agent {
    /// Index of the interface.
    #[must_use]
    pub const fn interface(&self) -> u32 {
        self.interface
    }

    /// How decapsulation is attached.
    #[must_use]
    pub const fn place(&self) -> Place {
        self.place
    }

    /// Why that way.
    #[must_use]
    pub fn reason(&self) -> &str {
        &self.reason
    }

    /// The links are those of an earlier agent.
    #[must_use]
    pub const fn taken_over(&self) -> bool {
        self.taken_over
    }

    /// Brings the map of addresses to `wanted`: what is new first, so that nothing that stays is
    /// ever missing.
    ///
    /// # Errors
    /// The kernel refuses an entry.
    pub fn set_addresses(&mut self, wanted: BTreeMap<Address, u32>) -> Result<bool, AgentError> {
        if wanted == self.addresses {
            return Ok(false);
        }
        let mut map = addresses_map(&mut self.ebpf)?;
        let failed = map_error(map_name::ADDRESSES);
        for (address, flags) in &wanted {
            if self.addresses.get(address) != Some(flags) {
                map.insert(address.0, flags, 0).map_err(failed)?;
            }
        }
        for address in self.addresses.keys().filter(|address| !wanted.contains_key(address)) {
            map.remove(&address.0).map_err(failed)?;
        }
        self.addresses = wanted;
        Ok(true)
    }

    /// Detaches, or leaves attached what is pinned. Decapsulation goes first, so that the clamp
    /// holds until the last SYN was answered.
    ///
    /// # Errors
    /// The kernel refuses; the rest is detached all the same.
    pub fn stop(self) -> Result<(), AgentError> {
        let Self { ingress, egress, pins, ebpf, .. } = self;
        let (ingress, egress) = (ingress.release(), egress.release());
        drop(ebpf);
        drop(pins);
        ingress.and(egress)
    }

    /// Reads the counters.
    ///
    /// # Errors
    /// The map is not there or not ours.
    pub fn counters(&self) -> Result<Vec<Reading>, AgentError> {
        let name = map_name::COUNTERS;
        counters::read(self.ebpf.map(name).ok_or_else(|| missing_map(name))?)
    }
}

fn missing_map(name: &'static str) -> AgentError {
    AgentError::Map { name, source: MapError::InvalidName { name: name.to_owned() } }
}

fn map_error(name: &'static str) -> impl Fn(MapError) -> AgentError + Copy {
    move |source| AgentError::Map { name, source }
}

fn addresses_map(ebpf: &mut Ebpf) -> Result<HashMap<&mut MapData, [u8; 16], u32>, AgentError> {
    let name = map_name::ADDRESSES;
    let map = ebpf.map_mut(name).ok_or_else(|| missing_map(name))?;
    HashMap::try_from(map).map_err(map_error(name))
}

/// Loads, attaches to `interface`, pins.
///
/// # Errors
/// Any step fails; then nothing is left attached or pinned that was not so before.
pub fn start(
    plan: &Plan,
    interface: &Interface,
    mode: Mode,
    pins: Option<Pins>,
) -> Result<Agent, AgentError> {
    if pins.is_some() && !attach::has_tcx() {
        return Err(AgentError::PinsNeedTcx);
    }
    let earlier = match &pins {
        Some(pins) => earlier(pins, interface, mode)?,
        None => Earlier::None,
    };
    let counters = pins
        .as_ref()
        .map(|pins| pins.path(map_name::COUNTERS))
        .filter(|path| earlier != Earlier::None && path.exists());
    let mut ebpf = load(counters.as_deref())?;
    fill(&mut ebpf, plan)?;
    match (pins, earlier) {
        (Some(pins), Earlier::Links(place)) => take_over(ebpf, plan, interface, place, pins),
        (pins, _) => fresh(ebpf, plan, interface, mode, pins),
    }
}

/// What an earlier agent left.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Earlier {
    None,
    /// Maps of our layout, but no links that work.
    Maps,
    /// Links that work.
    Links(Place),
}

/// Looks at the pins. Links of an interface that is gone, or only one of two (an agent was killed
/// between its steps), are removed: they are of no use to anybody.
fn earlier(pins: &Pins, interface: &Interface, mode: Mode) -> Result<Earlier, AgentError> {
    let Some(settings) = pins.settings()? else {
        pins.remove(INGRESS)?;
        pins.remove(EGRESS)?;
        return Ok(Earlier::None);
    };
    let alive = |name| pins.link(name).map(|link| link.filter(|link| link.interface != 0));
    let (Some(ingress), Some(egress)) = (alive(INGRESS)?, alive(EGRESS)?) else {
        pins.remove(INGRESS)?;
        pins.remove(EGRESS)?;
        return Ok(Earlier::Maps);
    };
    let mismatch = |found: String, wanted: String| {
        Err(AgentError::PinMismatch { path: pins.directory().to_owned(), found, wanted })
    };
    if ingress.interface != interface.index || egress.interface != interface.index {
        let found = format!("the interface with index {}", ingress.interface);
        return mismatch(found, format!("`{}` (index {})", interface.name, interface.index));
    }
    let place = Place::from_number(settings.mode);
    match place.filter(|place| place.link_kind() == ingress.kind) {
        Some(place) if Place::candidates(mode).contains(&place) => Ok(Earlier::Links(place)),
        place => {
            let found = place.map_or("an unknown mode", Place::name);
            let wanted: Vec<_> = Place::candidates(mode).iter().map(|place| place.name()).collect();
            mismatch(found.to_owned(), wanted.join(", "))
        }
    }
}

/// Loads the object; the counters go on in the map pinned at `counters`.
fn load(counters: Option<&std::path::Path>) -> Result<Ebpf, AgentError> {
    if AGENT.is_empty() {
        return Err(AgentError::NoPrograms);
    }
    let mut loader = EbpfLoader::new();
    if let Some(path) = counters {
        loader.map_pin_path(map_name::COUNTERS, path);
    }
    Ok(loader.load(AGENT)?)
}

fn set_settings(ebpf: &mut Ebpf, settings: Settings) -> Result<(), AgentError> {
    let name = map_name::SETTINGS;
    let map = ebpf.map_mut(name).ok_or_else(|| missing_map(name))?;
    let mut map: Array<_, Settings> = Array::try_from(map).map_err(map_error(name))?;
    map.set(0, settings, 0).map_err(map_error(name))
}

fn fill(ebpf: &mut Ebpf, plan: &Plan) -> Result<(), AgentError> {
    set_settings(ebpf, plan.settings)?;
    let name = map_name::SOURCES;
    let map = ebpf.map_mut(name).ok_or_else(|| missing_map(name))?;
    let mut sources: LpmTrie<_, [u8; 16], u32> = LpmTrie::try_from(map).map_err(map_error(name))?;
    for source in &plan.sources {
        let key = Key::new(source.bits, source.address);
        sources.insert(&key, 1, 0).map_err(map_error(name))?;
    }
    let mut addresses = addresses_map(ebpf)?;
    for (address, flags) in &plan.addresses {
        addresses.insert(address.0, flags, 0).map_err(map_error(map_name::ADDRESSES))?;
    }
    Ok(())
}

fn fresh(
    mut ebpf: Ebpf,
    plan: &Plan,
    interface: &Interface,
    mode: Mode,
    pins: Option<Pins>,
) -> Result<Agent, AgentError> {
    attach::refuse_second(interface)?;
    let egress = attach::egress(&mut ebpf, interface)?;
    let (place, reason, ingress) = attach::ingress(&mut ebpf, interface, mode)?;
    set_settings(&mut ebpf, Settings { mode: place as u16, ..plan.settings })?;
    let (ingress, egress) = match &pins {
        Some(pins) => match pin(&ebpf, pins, ingress, egress) {
            Ok(held) => held,
            Err(error) => {
                // What failed first is what the operator must know.
                drop(pins.clear());
                return Err(error);
            }
        },
        None => (ingress, egress),
    };
    let addresses = plan.addresses.clone();
    let taken_over = false;
    let interface = interface.index;
    Ok(Agent { ebpf, addresses, interface, place, reason, taken_over, ingress, egress, pins })
}

/// Maps first: where links are pinned, settings are too.
fn pin(ebpf: &Ebpf, pins: &Pins, ingress: Held, egress: Held) -> Result<(Held, Held), AgentError> {
    pin_maps(ebpf, pins)?;
    let egress = egress.pin(&pins.path(EGRESS))?;
    let ingress = ingress.pin(&pins.path(INGRESS))?;
    Ok((ingress, egress))
}

fn pin_maps(ebpf: &Ebpf, pins: &Pins) -> Result<(), AgentError> {
    for name in super::pins::MAPS {
        pins.put_map(name, ebpf.map(name).ok_or_else(|| missing_map(name))?)?;
    }
    Ok(())
}

fn take_over(
    mut ebpf: Ebpf,
    plan: &Plan,
    interface: &Interface,
    place: Place,
    pins: Pins,
) -> Result<Agent, AgentError> {
    set_settings(&mut ebpf, Settings { mode: place as u16, ..plan.settings })?;
    // Both are loaded before the first link changes: what can fail has then succeeded.
    attach::load(&mut ebpf, place)?;
    let egress = attach::replace_egress(&mut ebpf, &pins.path(EGRESS))?;
    let ingress = attach::replace_ingress(&mut ebpf, place, &pins.path(INGRESS))?;
    pin_maps(&ebpf, &pins)?;
    let reason = "taken over from an earlier agent".to_owned();
    let addresses = plan.addresses.clone();
    let (taken_over, pins) = (true, Some(pins));
    let interface = interface.index;
    Ok(Agent { ebpf, addresses, interface, place, reason, taken_over, ingress, egress, pins })
}

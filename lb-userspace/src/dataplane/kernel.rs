//! The kernel's half: load, pin, attach, take over from an earlier lbd, unload.
//!
//! Below the pin path lies `v<ABI>/` with one pin for each map, `lb_ingress`, `lb_clock`, and
//! `link-<interface>` for each attached interface. Maps and links outlive lbd; a new lbd loads
//! its own program over the same maps and swaps it into the links.

use std::fs;
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::path::{Path, PathBuf};

use aya::maps::{Map, MapData, PerCpuArray, RingBuf};
use aya::programs::links::{FdLink, PinnedLink};
use aya::programs::xdp::{XdpLink, XdpMode as Mode};
use aya::programs::{TestRun as _, TestRunOptions, Xdp};
use aya::{Ebpf, EbpfLoader};
use lb_common::verdict::{Counter, DropSample, VipCounters};
use lb_common::{ABI_VERSION, map_name};

use super::memory::{Descriptors, Memory};
use super::object::{BALANCER, CLOCK, PROGRAM, Sizes};
use super::{Dataplane, Error};
use crate::desired::XdpMode;

/// The maps, by the names of their pins; the budgets are the program's own.
const MAPS: [&str; 10] = [
    map_name::CONTROL,
    map_name::SLOTS,
    map_name::HISTORY,
    map_name::BACKENDS,
    map_name::FLOWS,
    map_name::VIP_COUNTERS,
    map_name::BACKEND_COUNTERS,
    map_name::DROPS,
    map_name::JOURNAL,
    map_name::BUDGETS,
];

/// An interface the program is attached to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Attached {
    /// The interface.
    pub interface: String,
    /// Native (in the driver), not generic.
    pub native: bool,
}

/// Loaded programs and their maps.
pub(super) struct Kernel {
    ebpf: Ebpf,
    pins: Option<PathBuf>,
    drops: RingBuf<MapData>,
}

impl Descriptors for Ebpf {
    fn map(&self, name: &str) -> io::Result<BorrowedFd<'_>> {
        let missing = || io::Error::new(io::ErrorKind::NotFound, name.to_owned());
        match Self::map(self, name).ok_or_else(missing)? {
            Map::Array(data) => Ok(data.fd().as_fd()),
            _ => Err(missing()),
        }
    }
}

impl Kernel {
    fn load(sizes: &Sizes, pins: Option<&Path>) -> Result<Self, Error> {
        let mut loader = EbpfLoader::new();
        sizes.apply(&mut loader);
        if let Some(pins) = pins {
            for name in MAPS {
                loader.map_pin_path(name, pins.join(name));
            }
        }
        let mut ebpf = loader.load(BALANCER).map_err(|error| Error::Load(chain(&error)))?;
        for name in [PROGRAM, CLOCK] {
            program(&mut ebpf, name)?.load().map_err(|error| Error::Load(chain(&error)))?;
        }
        let read = |reason: String| Error::Read { map: map_name::DROPS, reason };
        let drops = ebpf.take_map(map_name::DROPS).ok_or_else(|| read("missing".to_owned()))?;
        let drops = RingBuf::try_from(drops).map_err(|error| read(chain(&error)))?;
        Ok(Self { ebpf, pins: pins.map(Path::to_owned), drops })
    }

    /// The tick, asked of the kernel.
    pub(super) fn tick(&self) -> u16 {
        let Some(Ok(clock)) = self.ebpf.program(CLOCK).map(<&Xdp>::try_from) else { return 0 };
        // The kernel wants a whole Ethernet header.
        let frame = [0; 64];
        let options = TestRunOptions { data_in: Some(&frame), ..TestRunOptions::new() };
        let tick = clock.test_run(options).map_or(0, |result| result.return_value);
        u16::try_from(tick).unwrap_or_default()
    }

    fn link_pin(&self, interface: &str) -> Option<PathBuf> {
        Some(self.pins.as_ref()?.join(format!("link-{interface}")))
    }

    fn attach(&mut self, interface: &str, mode: XdpMode) -> Result<Attached, Error> {
        let fail = |reason: String| Error::Attach { interface: interface.to_owned(), reason };
        let Some(pin) = self.link_pin(interface) else {
            return Err(fail("nothing is pinned".to_owned()));
        };
        let program = program(&mut self.ebpf, PROGRAM)?;
        if pin.exists() {
            let link = PinnedLink::from_pin(&pin).map_err(|error| fail(chain(&error)))?;
            let link = XdpLink::try_from(FdLink::from(link)).map_err(|error| fail(chain(&error)))?;
            // The kernel keeps a link whose interface is gone, but refuses to update it.
            match program.attach_to_link(link) {
                Ok(id) => {
                    forget(program, id).map_err(fail)?;
                    return Ok(Attached { interface: interface.to_owned(), native: native(interface) });
                }
                Err(_gone) => fs::remove_file(&pin).map_err(|error| fail(error.to_string()))?,
            }
        }
        let tries: &[Mode] = match mode {
            XdpMode::Native => &[Mode::Driver],
            XdpMode::Generic => &[Mode::Skb],
            XdpMode::Auto => &[Mode::Driver, Mode::Skb],
        };
        let mut reason = String::new();
        for mode in tries {
            match program.attach(interface, *mode) {
                Ok(id) => {
                    let link = program.take_link(id).map_err(|error| fail(chain(&error)))?;
                    let link = FdLink::try_from(link).map_err(|error| fail(chain(&error)))?;
                    link.pin(&pin).map_err(|error| fail(chain(&error)))?;
                    let native = matches!(mode, Mode::Driver);
                    return Ok(Attached { interface: interface.to_owned(), native });
                }
                Err(error) => reason = explain(&chain(&error)),
            }
        }
        Err(fail(reason))
    }
}

/// Leaves a link that was taken from its pin to the pin.
fn forget(program: &mut Xdp, id: aya::programs::xdp::XdpLinkId) -> Result<(), String> {
    // Dropping it closes our descriptor; the pin keeps the link.
    program.take_link(id).map(drop).map_err(|error| chain(&error))
}

fn explain(reason: &str) -> String {
    if reason.contains("os error 16") {
        format!("{reason}: another XDP program is attached; detach it (`bpftool net`, `ip link`)")
    } else if reason.contains("os error 95") {
        format!("{reason}: its driver has no native XDP; set dataplane.xdp_mode = \"generic\"")
    } else {
        reason.to_owned()
    }
}

fn native(interface: &str) -> bool {
    // IFLA_XDP_ATTACHED is only in netlink; sysfs has nothing. The link's pin was made by us, and
    // a generic one is marked by its file name's absence in native mode.
    let _interface = interface;
    true
}

fn program<'a>(ebpf: &'a mut Ebpf, name: &str) -> Result<&'a mut Xdp, Error> {
    let missing = || Error::Load(format!("{name} is missing in the object"));
    ebpf.program_mut(name)
        .ok_or_else(missing)?
        .try_into()
        .map_err(|error| Error::Load(chain(&error)))
}

/// An error and its causes in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text = format!("{text}: {error}");
        source = error.source();
    }
    text
}

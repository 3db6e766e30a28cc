//! The kernel's half: load, pin, attach, take over from an earlier lbd, unload.
//!
//! Below the pin path lies `v<ABI>/` with one pin for each map, and `link-<mode>-<interface>` for
//! each attached interface. Maps and links outlive lbd; a new lbd loads its own program over the
//! same maps and swaps it into the links.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::io::ErrorKind::{NotFound, ResourceBusy};
use std::os::fd::{AsFd as _, BorrowedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU16, Ordering};

use aya::maps::{Map, MapData, MapError, MapType, PerCpuArray, RingBuf};
use aya::programs::links::{FdLink, PinnedLink};
use aya::programs::xdp::{XdpLink, XdpMode as Mode};
use aya::programs::{TestRun as _, TestRunOptions, Xdp};
use aya::{Ebpf, EbpfLoader};
use lb_common::backend::Backend;
use lb_common::control::Control;
use lb_common::flow::{Entry, WAYS};
use lb_common::record::Element;
use lb_common::table::{HistoryRow, SlotRow};
use lb_common::verdict::{Counter, DropSample, FlowCounters, VipCounters};
use lb_common::{ABI_VERSION, map_name};

use super::debug_lines::{self, DebugLines};
use super::memory::{Descriptors, Memory};
use super::object::{BALANCER, CLOCK, PROGRAM, Sizes};
use super::{Dataplane, Error};
use crate::desired::XdpMode;
use crate::host::pin;

/// A map: the name of its pin, its type, and the size of its values in bytes.
type Shape = (&'static str, MapType, usize);

/// The maps; the budgets are the program's own.
const MAPS: [Shape; 12] = [
    (map_name::CONTROL, MapType::Array, size_of::<Control>()),
    (map_name::SLOTS, MapType::Array, size_of::<SlotRow>()),
    (map_name::HISTORY, MapType::Array, size_of::<HistoryRow>()),
    (map_name::BACKENDS, MapType::Array, size_of::<Backend>()),
    (map_name::FLOWS, MapType::Array, size_of::<[Entry; WAYS]>()),
    (map_name::VIP_COUNTERS, MapType::PerCpuArray, size_of::<VipCounters>()),
    (map_name::FLOW_COUNTERS, MapType::PerCpuArray, size_of::<FlowCounters>()),
    (map_name::BACKEND_COUNTERS, MapType::PerCpuArray, size_of::<Counter>()),
    (map_name::RECORDS, MapType::Array, size_of::<Element>()),
    (map_name::DROPS, MapType::RingBuf, 0),
    (map_name::JOURNAL, MapType::Array, size_of::<u64>()),
    (map_name::BUDGETS, MapType::PerCpuArray, size_of::<u64>()),
];

/// What the pin of a link begins with; its mode and its interface follow.
const LINK: &str = "link-";
/// What the kernel shows in the root of every BPF file system.
const KERNELS_OWN: [&str; 2] = ["maps.debug", "progs.debug"];

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
    debug_lines: Option<DebugLines>,
    /// What the kernel last said.
    tick: AtomicU16,
}

impl Descriptors for Ebpf {
    fn map(&self, name: &str) -> io::Result<BorrowedFd<'_>> {
        let missing = || io::Error::new(NotFound, name.to_owned());
        let Some(Map::Array(data)) = Self::map(self, name) else { return Err(missing()) };
        Ok(data.fd().as_fd())
    }
}

impl Kernel {
    fn load(object: &[u8], sizes: &Sizes, pins: Option<&Path>) -> Result<Self, Error> {
        let level = debug_lines::level();
        let mut loader = EbpfLoader::new();
        sizes.apply(&mut loader);
        loader.override_global(aya_log::LEVEL, &level, true);
        if let Some(pins) = pins {
            for (name, ..) in MAPS {
                loader.map_pin_path(name, pins.join(name));
            }
        }
        let mut ebpf = loader.load(object).map_err(|error| Error::Load(chain(&error)))?;
        for name in [PROGRAM, CLOCK] {
            program(&mut ebpf, name)?.load().map_err(|error| Error::Load(chain(&error)))?;
        }
        let read = |reason: String| Error::Read { map: map_name::DROPS, reason };
        let drops = ebpf.take_map(map_name::DROPS).ok_or_else(|| read("missing".to_owned()))?;
        let drops = RingBuf::try_from(drops).map_err(|error| read(chain(&error)))?;
        let debug_lines = debug_lines::open(&mut ebpf, level)?;
        let silent = || Error::Load(format!("{CLOCK} does not run"));
        let tick = AtomicU16::new(ask_tick(&ebpf).ok_or_else(silent)?);
        Ok(Self { ebpf, pins: pins.map(Path::to_owned), drops, debug_lines, tick })
    }

    /// The tick, asked of the kernel. When it does not answer, the last one: by an earlier time no
    /// flow is forgotten too soon.
    pub(super) fn tick(&self) -> u16 {
        match ask_tick(&self.ebpf) {
            Some(tick) => {
                self.tick.store(tick, Ordering::Relaxed);
                tick
            }
            None => self.tick.load(Ordering::Relaxed),
        }
    }

    /// Where a link is pinned; its mode is part of the name.
    fn link_pin(&self, interface: &str, native: bool) -> Result<PathBuf, Error> {
        let mode = if native { "native" } else { "generic" };
        match &self.pins {
            Some(pins) => Ok(pins.join(format!("{LINK}{mode}-{interface}"))),
            None => Err(attach_error(interface, "these maps are not pinned".to_owned())),
        }
    }

    fn attach(&mut self, interface: &str, mode: XdpMode) -> Result<Attached, Error> {
        let tries: &[bool] = match mode {
            XdpMode::Native => &[true],
            XdpMode::Generic => &[false],
            XdpMode::Auto => &[true, false],
        };
        for native in tries.iter().copied() {
            if self.take_over(interface, native)? {
                return Ok(Attached { interface: interface.to_owned(), native });
            }
        }
        // The kernel takes no link of one mode while there is one of the other.
        let others = [true, false].into_iter().filter(|native| !tries.contains(native));
        let mut other = None;
        for native in others {
            let pin = self.link_pin(interface, native)?;
            if pin.exists() {
                pin::remove_link(&pin).map_err(|source| pin_error("remove", &pin, source))?;
                other = Some(native);
            }
        }
        let mut failed = None;
        for native in tries {
            match self.attach_new(interface, *native) {
                Ok(()) => {
                    return Ok(Attached { interface: interface.to_owned(), native: *native });
                }
                // The reason of the mode that was wanted first.
                Err(error) => failed = failed.or(Some(error)),
            }
        }
        // Rather in the mode that is not wanted any more than not at all.
        if let Some(native) = other {
            self.attach_new(interface, native)?;
        }
        Err(failed.unwrap_or_else(|| attach_error(interface, "no mode to try".to_owned())))
    }

    /// Swaps our program into a link that an earlier lbd pinned; false when there is none.
    fn take_over(&mut self, interface: &str, native: bool) -> Result<bool, Error> {
        let pin = self.link_pin(interface, native)?;
        if !pin.exists() {
            return Ok(false);
        }
        let fail = |reason: String| attach_error(interface, reason);
        let link = PinnedLink::from_pin(&pin).map_err(|error| fail(chain(&error)))?;
        let link = XdpLink::try_from(FdLink::from(link)).map_err(|error| fail(chain(&error)))?;
        let program = program(&mut self.ebpf, PROGRAM)?;
        match program.attach_to_link(link) {
            // Ours is one more descriptor of the link; the pin keeps it.
            Ok(id) => {
                drop(program.take_link(id).map_err(|error| fail(chain(&error)))?);
                Ok(true)
            }
            // The kernel refuses to update a link whose interface is gone.
            Err(_gone) => {
                fs::remove_file(&pin).map_err(|source| pin_error("remove", &pin, source))?;
                Ok(false)
            }
        }
    }

    fn attach_new(&mut self, interface: &str, native: bool) -> Result<(), Error> {
        let pin = self.link_pin(interface, native)?;
        let fail = |reason: String| attach_error(interface, explain(&reason));
        let program = program(&mut self.ebpf, PROGRAM)?;
        let mode = if native { Mode::Driver } else { Mode::Skb };
        let id = program.attach(interface, mode).map_err(|error| fail(chain(&error)))?;
        let link = program.take_link(id).map_err(|error| fail(chain(&error)))?;
        let link = FdLink::try_from(link).map_err(|error| fail(chain(&error)))?;
        link.pin(&pin).map_err(|error| fail(chain(&error))).map(drop)
    }
}

fn ask_tick(ebpf: &Ebpf) -> Option<u16> {
    let clock: &Xdp = ebpf.program(CLOCK)?.try_into().ok()?;
    // The kernel wants a whole Ethernet header.
    let frame = [0; 64];
    let options = TestRunOptions { data_in: Some(&frame), ..TestRunOptions::new() };
    u16::try_from(clock.test_run(options).ok()?.return_value).ok()
}

fn attach_error(interface: &str, reason: String) -> Error {
    Error::Attach { interface: interface.to_owned(), reason }
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

impl Dataplane {
    /// The directory of this build's pins below a pin path.
    fn version_dir(pin_path: &Path) -> PathBuf {
        pin_path.join(format!("v{ABI_VERSION}"))
    }

    /// Loads the programs with maps of these sizes, pinned below `pin_path` (which is made). On
    /// failure nothing stays. Nothing is attached.
    ///
    /// # Errors
    /// The kernel refuses, the path cannot be made, or there are pins already, which stay.
    pub fn create(pin_path: &Path, sizes: &Sizes) -> Result<Self, Error> {
        let dir = Self::version_dir(pin_path);
        if !list(&dir)?.is_empty() {
            let reason = "there are pins already".to_owned();
            return Err(Error::Broken { path: pin_path.to_owned(), reason });
        }
        fs::create_dir_all(&dir).map_err(|source| pin_error("create", &dir, source))?;
        let made = Self::open(&dir, sizes);
        if made.is_err() {
            remove_pins(pin_path)?;
        }
        made
    }

    /// Loads programs with maps that are not pinned, for tests and benches: `object` is
    /// [`BALANCER`], or [`super::object::BENCH`], which has the same programs and more.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn unpinned(object: &[u8], sizes: &Sizes) -> Result<Self, Error> {
        let kernel = Kernel::load(object, sizes, None)?;
        let memory = Memory::mapped(&kernel.ebpf, sizes).map_err(read_error)?;
        Ok(Self::over(memory, Some(kernel), *sizes))
    }

    /// Takes over the maps that an earlier lbd left. `None` when there are none.
    ///
    /// # Errors
    /// They are of another layout version or not whole; they are left as they are.
    pub fn reopen(pin_path: &Path) -> Result<Option<Self>, Error> {
        let dir = Self::version_dir(pin_path);
        if let Some(found) = list(pin_path)?.into_iter().find(|found| *found != dir) {
            let path = pin_path.to_owned();
            return Err(match found.file_name() {
                Some(name) if is_version(&found) => {
                    let found = name.to_string_lossy().into_owned();
                    Error::OtherVersion { path, found, ours: ABI_VERSION }
                }
                _ => Error::Foreign { path, found },
            });
        }
        if !dir.exists() {
            return Ok(None);
        }
        let sizes = pinned_sizes(pin_path, &dir)?;
        Self::open(&dir, &sizes).map(Some)
    }

    fn open(dir: &Path, sizes: &Sizes) -> Result<Self, Error> {
        let kernel = Kernel::load(BALANCER, sizes, Some(dir))?;
        let memory = Memory::mapped(&kernel.ebpf, sizes).map_err(read_error)?;
        Ok(Self::over(memory, Some(kernel), *sizes))
    }

    /// Attaches to an interface, or takes over the link an earlier lbd pinned for it.
    ///
    /// # Errors
    /// No such interface, another XDP program, or a driver without native XDP.
    pub fn attach(&mut self, interface: &str, mode: XdpMode) -> Result<Attached, Error> {
        match &mut self.kernel {
            Some(kernel) => kernel.attach(interface, mode),
            None => Ok(Attached { interface: interface.to_owned(), native: true }),
        }
    }

    /// Detaches from all interfaces but these; the names of those.
    ///
    /// # Errors
    /// A pin cannot be removed.
    pub fn detach_others(&self, interfaces: &[String]) -> Result<Vec<String>, Error> {
        let pins = self.kernel.as_ref().and_then(|kernel| kernel.pins.as_ref());
        let mut detached = Vec::new();
        for pin in pins.map_or_else(|| Ok(Vec::new()), |pins| list(pins))? {
            let name = pin.file_name().unwrap_or_default().to_string_lossy();
            // `link-MODE-INTERFACE`.
            let interface = name.strip_prefix(LINK).and_then(|rest| rest.split_once('-'));
            let Some((_, interface)) = interface else { continue };
            if !interfaces.iter().any(|it| it == interface) {
                pin::remove_link(&pin).map_err(|source| pin_error("remove", &pin, source))?;
                detached.push(interface.to_owned());
            }
        }
        Ok(detached)
    }

    /// Whether a program of this build was ever attached with these pins. Before that nobody
    /// relies on them: a start that got no further has left them.
    ///
    /// # Errors
    /// The path cannot be read.
    pub fn was_attached(pin_path: &Path) -> Result<bool, Error> {
        Ok(list(&Self::version_dir(pin_path))?.iter().any(|pin| is_link(pin)))
    }

    /// Detaches everything below a pin path and removes the pins; what was removed.
    ///
    /// # Errors
    /// A pin cannot be removed, or what lies there is not all ours.
    pub fn unload(pin_path: &Path) -> Result<Vec<String>, Error> {
        remove_pins(pin_path)
    }

    /// Outcomes by VIP number, summed over the CPUs.
    ///
    /// # Errors
    /// The map cannot be read.
    pub fn vip_counters(&self) -> Result<Vec<VipCounters>, Error> {
        self.summed(map_name::VIP_COUNTERS, self.sizes.vips, |sum: &mut VipCounters, one| {
            sum.outcomes.iter_mut().zip(one.outcomes).for_each(|(sum, one)| {
                sum.packets += one.packets;
                sum.bytes += one.bytes;
            });
        })
    }

    /// Events of the flow table, summed over the CPUs.
    ///
    /// # Errors
    /// The map cannot be read.
    pub fn flow_counters(&self) -> Result<FlowCounters, Error> {
        let summed = self.summed(map_name::FLOW_COUNTERS, 1, |sum: &mut FlowCounters, one| {
            sum.events.iter_mut().zip(one.events).for_each(|(sum, one)| *sum += one);
        })?;
        let mut counters = summed.first().copied().unwrap_or_default();
        self.add_events(&mut counters);
        Ok(counters)
    }

    /// Packets and bytes by backend id, summed over the CPUs.
    ///
    /// # Errors
    /// The map cannot be read.
    pub fn backend_counters(&self) -> Result<Vec<Counter>, Error> {
        self.summed(map_name::BACKEND_COUNTERS, self.sizes.backends, |sum: &mut Counter, one| {
            sum.packets += one.packets;
            sum.bytes += one.bytes;
        })
    }

    fn summed<T: aya::Pod + Default>(
        &self,
        map: &'static str,
        count: u32,
        add: impl Fn(&mut T, T),
    ) -> Result<Vec<T>, Error> {
        let Some(kernel) = &self.kernel else { return Ok(vec![T::default(); count as usize]) };
        let read = |reason: String| Error::Read { map, reason };
        let data = kernel.ebpf.map(map).ok_or_else(|| read("missing".to_owned()))?;
        let array = PerCpuArray::<_, T>::try_from(data).map_err(|error| read(chain(&error)))?;
        (0..count)
            .map(|index| {
                let values = array.get(&index, 0).map_err(|error| read(chain(&error)))?;
                let mut sum = T::default();
                values.iter().for_each(|value| add(&mut sum, *value));
                Ok(sum)
            })
            .collect()
    }

    /// The next sampled drop, if there is one.
    pub fn next_drop(&mut self) -> Option<DropSample> {
        let item = self.kernel.as_mut()?.drops.next()?;
        let bytes: &[u8; size_of::<DropSample>()] = item.first_chunk()?;
        // SAFETY: DropSample is plain integers and bytes, written whole by the program.
        Some(unsafe { bytes.as_ptr().cast::<DropSample>().read_unaligned() })
    }

    /// The loaded object, for a bench's own programs and maps.
    pub fn ebpf_mut(&mut self) -> Option<&mut Ebpf> {
        self.kernel.as_mut().map(|kernel| &mut kernel.ebpf)
    }

    /// Logs what the programs wrote since the last call; nothing unless lbd logs at level debug.
    pub fn log_debug_lines(&mut self) {
        if let Some(lines) = self.kernel.as_mut().and_then(|kernel| kernel.debug_lines.as_mut()) {
            lines.flush();
        }
    }

    /// Runs one frame through the program: return code and what became of the frame.
    ///
    /// # Errors
    /// Plain memory has no program; the kernel refuses frames shorter than 14 bytes.
    pub fn test_run(
        &self,
        frame: &[u8],
        out: &mut [u8],
        repeat: u32,
    ) -> Result<(u32, usize), Error> {
        let fail = |reason: String| Error::Load(reason);
        let kernel = self.kernel.as_ref().ok_or_else(|| fail("no kernel here".to_owned()))?;
        let program = kernel.ebpf.program(PROGRAM).ok_or_else(|| fail("no program".to_owned()))?;
        let program = <&Xdp>::try_from(program).map_err(|error| fail(chain(&error)))?;
        let data_out = (!out.is_empty()).then_some(out);
        let options =
            TestRunOptions { data_in: Some(frame), data_out, repeat, ..TestRunOptions::new() };
        let result = program.test_run(options).map_err(|error| fail(chain(&error)))?;
        Ok((result.return_value, result.data_size_out as usize))
    }

    /// Instructions the verifier looked at, for the budget in the tests.
    ///
    /// # Errors
    /// As [`Dataplane::test_run`].
    pub fn verified_instructions(&self) -> Result<u32, Error> {
        let fail = |reason: String| Error::Load(reason);
        let kernel = self.kernel.as_ref().ok_or_else(|| fail("no kernel here".to_owned()))?;
        let program = kernel.ebpf.program(PROGRAM).ok_or_else(|| fail("no program".to_owned()))?;
        let program = <&Xdp>::try_from(program).map_err(|error| fail(chain(&error)))?;
        let info = program.info().map_err(|error| fail(chain(&error)))?;
        info.verified_instruction_count().ok_or_else(|| fail("kernel before 5.16".to_owned()))
    }
}

fn pin_error(action: &'static str, path: &Path, source: io::Error) -> Error {
    Error::Pin { action, path: path.to_owned(), source }
}

fn read_error(error: io::Error) -> Error {
    Error::Read { map: "the maps", reason: error.to_string() }
}

/// The sizes of the maps an earlier lbd made, all of which must be there and have our shape.
fn pinned_sizes(pin_path: &Path, dir: &Path) -> Result<Sizes, Error> {
    let broken = |reason: String| Error::Broken { path: pin_path.to_owned(), reason };
    let mut entries = BTreeMap::new();
    for (name, kind, size) in MAPS {
        let wrong = |error: &MapError| broken(format!("{name}: {}", chain(error)));
        let data = MapData::from_pin(dir.join(name)).map_err(|error| wrong(&error))?;
        let info = data.info().map_err(|error| wrong(&error))?;
        let found = info.map_type().map_err(|error| wrong(&error))?;
        if found != kind || info.value_size() as usize != size {
            return Err(broken(format!("{name} is another kind of map")));
        }
        entries.insert(name, info.max_entries());
    }
    let entries = |name| entries.get(name).copied().unwrap_or_default();
    let sizes = Sizes {
        slot_rows: entries(map_name::SLOTS),
        backends: entries(map_name::BACKENDS),
        vips: entries(map_name::VIP_COUNTERS),
        flow_buckets: entries(map_name::FLOWS),
        journal_words: entries(map_name::JOURNAL),
    };
    if entries(map_name::HISTORY) != sizes.slot_rows.saturating_mul(4)
        || entries(map_name::BACKEND_COUNTERS) != sizes.backends
        || !sizes.flow_buckets.is_power_of_two()
    {
        return Err(broken("maps of different sizes".to_owned()));
    }
    Ok(sizes)
}

/// Detaches and removes the pins of every layout version. What else lies there is not ours, and
/// then nothing is removed.
fn remove_pins(pin_path: &Path) -> Result<Vec<String>, Error> {
    let versions = list(pin_path)?;
    if let Some(found) = versions.iter().find(|path| !is_version(path)) {
        return Err(Error::Foreign { path: pin_path.to_owned(), found: found.clone() });
    }
    let mut removed = Vec::new();
    for version in versions {
        let mut pins = list(&version)?;
        // Links first: from then on no packet meets half a data plane.
        pins.sort_by_key(|pin| !is_link(pin));
        for pin in pins {
            let done = if is_link(&pin) { pin::remove_link(&pin) } else { fs::remove_file(&pin) };
            done.map_err(|source| pin_error("remove", &pin, source))?;
            removed.push(pin.display().to_string());
        }
        fs::remove_dir(&version).map_err(|source| pin_error("remove", &version, source))?;
    }
    match fs::remove_dir(pin_path) {
        // Another file system may be mounted right there, whose root stays.
        Err(error) if matches!(error.kind(), NotFound | ResourceBusy) => Ok(removed),
        Err(source) => Err(pin_error("remove", pin_path, source)),
        Ok(()) => Ok(removed),
    }
}

/// What lies in a directory, by name; nothing if there is none.
fn list(path: &Path) -> Result<Vec<PathBuf>, Error> {
    match fs::read_dir(path) {
        Ok(entries) => {
            let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
            paths.sort();
            // The kernel's own, in the root of every BPF file system.
            paths.retain(|path| !KERNELS_OWN.iter().any(|name| path.ends_with(name)));
            Ok(paths)
        }
        Err(error) if error.kind() == NotFound => Ok(Vec::new()),
        Err(error) => Err(pin_error("read", path, error)),
    }
}

/// Whether this is the directory of some layout version.
fn is_version(path: &Path) -> bool {
    let name = path.file_name().map(|name| name.to_string_lossy());
    let number = name.as_ref().and_then(|name| name.strip_prefix('v'));
    number.is_some_and(|number| number.parse::<u32>().is_ok()) && path.is_dir()
}

/// Whether this is the pin of a link.
fn is_link(pin: &Path) -> bool {
    pin.file_name().is_some_and(|name| name.to_string_lossy().starts_with(LINK))
}

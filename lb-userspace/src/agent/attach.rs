//! One program to one place, and what it means when the kernel says no.

use std::error::Error;
use std::io;
use std::path::Path;

use aya::Ebpf;
use aya::programs::links::{FdLink, PinnedLink};
use aya::programs::tc::{
    NlOptions, SchedClassifierLink, TcAttachOptions, TcError, qdisc_add_clsact,
};
use aya::programs::xdp::XdpLink;
use aya::programs::{
    Link as _, LinkOrder, ProgramError, SchedClassifier, TcAttachType, Xdp, XdpMode,
    loaded_programs,
};
use aya::util::KernelVersion;

use super::error::AgentError;
use super::kernel::Place;
use super::netlink::Interface;
use super::options::Mode;

/// The program of each place.
const XDP: &str = "lb_agent_xdp";
const TC: &str = "lb_agent_tc";
const MSS: &str = "lb_agent_mss";
/// What our programs' names begin with.
const OURS: &str = "lb_agent_";
/// Lines at the end of a verifier's log that go into an error.
const LOG_LINES: usize = 3;

/// How the lines of a verifier's log begin that do not say what is wrong.
const STATISTICS: [&str; 3] = ["verification time", "stack depth", "processed"];

/// An attached program; dropping it detaches, unless it is pinned.
#[derive(Debug)]
pub(super) enum Held {
    Xdp(XdpLink),
    Tc(SchedClassifierLink),
    Pinned(PinnedLink),
    /// A link taken from its pin.
    Fd(FdLink),
}

impl Held {
    /// Pins it.
    pub(super) fn pin(self, path: &Path) -> Result<Self, AgentError> {
        let failed =
            |error: &dyn Error| AgentError::Pin { path: path.to_owned(), error: error.to_string() };
        let link: FdLink = match self {
            Self::Xdp(link) => link.try_into().map_err(|error| failed(&error))?,
            Self::Tc(link) => link.try_into().map_err(|error| failed(&error))?,
            Self::Fd(link) => link,
            Self::Pinned(link) => return Ok(Self::Pinned(link)),
        };
        link.pin(path).map(Self::Pinned).map_err(|error| failed(&error))
    }

    /// Detaches, or leaves a pinned one.
    pub(super) fn release(self) -> Result<(), AgentError> {
        match self {
            Self::Xdp(link) => link.detach().map_err(used(XDP)),
            Self::Tc(link) => link.detach().map_err(used("tc filter")),
            Self::Pinned(_) | Self::Fd(_) => Ok(()),
        }
    }
}

/// tcx links exist since Linux 6.6; before, filters of a clsact qdisc do the same.
pub(super) fn has_tcx() -> bool {
    KernelVersion::current().is_ok_and(|version| version >= KernelVersion::new(6, 6, 0))
}

fn used(name: &'static str) -> impl Fn(ProgramError) -> AgentError {
    move |source| AgentError::ProgramUse { name, source: Box::new(source) }
}

/// The first system error among an error's causes.
fn errno(error: &(dyn Error + 'static)) -> Option<i32> {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if let Some(io) = error.downcast_ref::<io::Error>() {
            return io.raw_os_error();
        }
        cause = error.source();
    }
    None
}

/// The innermost cause, which says most.
fn innermost(error: &(dyn Error + 'static)) -> String {
    let mut error = error;
    while let Some(cause) = error.source() {
        error = cause;
    }
    error.to_string()
}

fn classifier<'a>(
    ebpf: &'a mut Ebpf,
    name: &'static str,
) -> Result<&'a mut SchedClassifier, AgentError> {
    let found = ebpf.program_mut(name).map(<&mut SchedClassifier>::try_from);
    let program = found.unwrap_or(Err(ProgramError::NotLoaded)).map_err(used(name))?;
    match program.load() {
        Ok(()) | Err(ProgramError::AlreadyLoaded) => Ok(program),
        Err(error) => Err(refused(name, &error)),
    }
}

fn xdp(ebpf: &mut Ebpf) -> Result<&mut Xdp, AgentError> {
    let found = ebpf.program_mut(XDP).map(<&mut Xdp>::try_from);
    let program = found.unwrap_or(Err(ProgramError::NotLoaded)).map_err(used(XDP))?;
    match program.load() {
        Ok(()) | Err(ProgramError::AlreadyLoaded) => Ok(program),
        Err(error) => Err(refused(XDP, &error)),
    }
}

/// The kernel did not load a program.
fn refused(name: &'static str, error: &ProgramError) -> AgentError {
    if errno(error) == Some(libc::EPERM) {
        return AgentError::Capabilities("the kernel does not permit bpf()".to_owned());
    }
    let reason = if let ProgramError::LoadError { io_error, verifier_log } = error {
        let log = verifier_log.to_string();
        let said = |line: &&str| {
            !line.is_empty() && !STATISTICS.iter().any(|start| line.starts_with(start))
        };
        let lines: Vec<_> = log.lines().filter(said).collect();
        let last = lines.get(lines.len().saturating_sub(LOG_LINES)..).unwrap_or_default();
        format!("{io_error}; {}", last.join("; "))
    } else {
        innermost(error)
    };
    AgentError::Program { name, reason }
}

/// Loads the programs of a place and of the clamp.
pub(super) fn load(ebpf: &mut Ebpf, place: Place) -> Result<(), AgentError> {
    classifier(ebpf, MSS)?;
    match place {
        Place::XdpNative | Place::XdpGeneric => xdp(ebpf).map(drop),
        Place::TcIngress => classifier(ebpf, TC).map(drop),
    }
}

/// The name of a loaded program.
fn program_name(id: u32) -> Option<String> {
    let found = loaded_programs().filter_map(Result::ok).find(|program| program.id() == id)?;
    found.name_as_str().map(str::to_owned)
}

fn busy(interface: &Interface, program: String, place: &'static str) -> AgentError {
    let program = match program.strip_prefix(OURS) {
        Some(_) => format!("another lb-agent (`{program}`)"),
        None => format!("the program `{program}`"),
    };
    AgentError::Busy { interface: interface.name.clone(), program, place }
}

/// Two agents on one interface would fight over one job: tcx would take both.
///
/// # Errors
/// One is there.
pub(super) fn refuse_second(interface: &Interface) -> Result<(), AgentError> {
    if let Some(name) = interface.xdp_program.and_then(program_name)
        && name.starts_with(OURS)
    {
        return Err(busy(interface, name, "XDP"));
    }
    let places = [(TcAttachType::Ingress, "tc ingress"), (TcAttachType::Egress, "tc egress")];
    for (direction, place) in places {
        // Kernels without tcx answer with an error: nothing can be there.
        let Ok((_, programs)) = SchedClassifier::query_tcx(&interface.name, direction) else {
            continue;
        };
        let names = programs.iter().filter_map(|program| program.name_as_str());
        if let Some(name) = names.into_iter().find(|name| name.starts_with(OURS)) {
            return Err(busy(interface, name.to_owned(), place));
        }
    }
    Ok(())
}

/// Attaches the clamp.
pub(super) fn egress(ebpf: &mut Ebpf, interface: &Interface) -> Result<Held, AgentError> {
    let program = classifier(ebpf, MSS)?;
    attach_tc(program, interface, TcAttachType::Egress, has_tcx())
        .map_err(|error| explain(interface, "tc egress", &error))
}

fn attach_tc(
    program: &mut SchedClassifier,
    interface: &Interface,
    direction: TcAttachType,
    tcx: bool,
) -> Result<Held, ProgramError> {
    let options = if tcx {
        // First: filters of others see the packet as the host will.
        TcAttachOptions::TcxOrder(LinkOrder::first())
    } else {
        match qdisc_add_clsact(&interface.name) {
            Ok(()) => {}
            Err(error) if already_there(&error) => {}
            Err(error) => return Err(error.into()),
        }
        TcAttachOptions::Netlink(NlOptions::default())
    };
    let id = program.attach_with_options(&interface.name, direction, options)?;
    program.take_link(id).map(Held::Tc)
}

fn already_there(error: &TcError) -> bool {
    matches!(error, TcError::AlreadyAttached) || errno(error) == Some(libc::EEXIST)
}

fn attach_xdp(
    program: &mut Xdp,
    interface: &Interface,
    mode: XdpMode,
) -> Result<Held, ProgramError> {
    let id = program.attach_to_if_index(interface.index, mode)?;
    program.take_link(id).map(Held::Xdp)
}

/// Attaches decapsulation the first way that works; says which and why.
pub(super) fn ingress(
    ebpf: &mut Ebpf,
    interface: &Interface,
    mode: Mode,
) -> Result<(Place, String, Held), AgentError> {
    let mut failures = Vec::new();
    let mut last = None;
    for &place in Place::candidates(mode) {
        load(ebpf, place)?;
        let attached = match place {
            Place::XdpNative => attach_xdp(xdp(ebpf)?, interface, XdpMode::Driver),
            Place::XdpGeneric => attach_xdp(xdp(ebpf)?, interface, XdpMode::Skb),
            Place::TcIngress => {
                attach_tc(classifier(ebpf, TC)?, interface, TcAttachType::Ingress, has_tcx())
            }
        };
        match attached {
            Ok(held) => return Ok((place, why(mode, &failures), held)),
            Err(error) => {
                failures.push(format!("{}: {}", place.name(), innermost(&error)));
                last = Some(explain(interface, place.name(), &error));
            }
        }
    }
    // Auto ends with tc, which nothing else can occupy; the last failure is the one that counts.
    let mode = "any mode";
    let reason = failures.join("; ");
    Err(last.unwrap_or(AgentError::Attach { interface: interface.name.clone(), mode, reason }))
}

fn why(mode: Mode, failures: &[String]) -> String {
    match mode {
        Mode::Auto if failures.is_empty() => "the driver supports it".to_owned(),
        Mode::Auto => failures.join("; "),
        Mode::Xdp | Mode::XdpGeneric | Mode::Tc => "as asked".to_owned(),
    }
}

/// What a failed attachment means to an operator.
fn explain(interface: &Interface, mode: &'static str, error: &ProgramError) -> AgentError {
    match errno(error) {
        Some(libc::EPERM) => AgentError::Capabilities("CAP_NET_ADMIN".to_owned()),
        Some(libc::ENODEV) => AgentError::NoInterface(interface.name.clone()),
        Some(libc::EBUSY | libc::EEXIST) => {
            let id = interface.xdp_program;
            let name = id.and_then(program_name).unwrap_or_else(|| "unknown".to_owned());
            busy(interface, name, mode)
        }
        Some(libc::EOPNOTSUPP) => attach_error(interface, mode, "the driver does not support it"),
        Some(libc::ERANGE) => {
            attach_error(interface, mode, "the MTU of the interface or of its peer is too large")
        }
        _ => attach_error(interface, mode, &innermost(error)),
    }
}

fn attach_error(interface: &Interface, mode: &'static str, reason: &str) -> AgentError {
    AgentError::Attach { interface: interface.name.clone(), mode, reason: reason.to_owned() }
}

fn pinned(path: &Path) -> Result<FdLink, AgentError> {
    let link = PinnedLink::from_pin(path)
        .map_err(|error| AgentError::Pin { path: path.to_owned(), error: innermost(&error) })?;
    Ok(link.into())
}

fn replace_tc(ebpf: &mut Ebpf, name: &'static str, path: &Path) -> Result<Held, AgentError> {
    let link: SchedClassifierLink = pinned(path)?
        .try_into()
        .map_err(|error| AgentError::Pin { path: path.to_owned(), error: innermost(&error) })?;
    let program = classifier(ebpf, name)?;
    let id = program.attach_to_link(link).map_err(used(name))?;
    let link = program.take_link(id).map_err(used(name))?;
    let failed = |error| AgentError::Pin { path: path.to_owned(), error: innermost(&error) };
    FdLink::try_from(link).map(Held::Fd).map_err(failed)
}

/// Puts our clamp into a pinned link.
pub(super) fn replace_egress(ebpf: &mut Ebpf, path: &Path) -> Result<Held, AgentError> {
    replace_tc(ebpf, MSS, path)
}

/// Puts our decapsulation into a pinned link.
pub(super) fn replace_ingress(
    ebpf: &mut Ebpf,
    place: Place,
    path: &Path,
) -> Result<Held, AgentError> {
    if place == Place::TcIngress {
        return replace_tc(ebpf, TC, path);
    }
    let failed = |error| AgentError::Pin { path: path.to_owned(), error: innermost(&error) };
    let link: XdpLink = pinned(path)?.try_into().map_err(failed)?;
    let program = xdp(ebpf)?;
    let id = program.attach_to_link(link).map_err(used(XDP))?;
    let link = program.take_link(id).map_err(used(XDP))?;
    let failed = |error| AgentError::Pin { path: path.to_owned(), error: innermost(&error) };
    FdLink::try_from(link).map(Held::Fd).map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dataplane::object::AGENT;

    /// What kernels before 6.6 get. A namespace of the thread's own has only `lo`.
    fn with_clsact() {
        // SAFETY: this thread only, which ends with the test.
        if unsafe { libc::unshare(libc::CLONE_NEWNET) } != 0 || AGENT.is_empty() {
            assert!(std::env::var_os("CI").is_none(), "must not be skipped here");
            println!("SKIP: cannot make a network namespace, or built with LB_SKIP_EBPF");
            return;
        }
        let (name, index) = ("lo".to_owned(), 1);
        let interface = Interface { name, index, mtu: 1500, ethernet: true, xdp_program: None };
        let mut ebpf = Ebpf::load(AGENT).unwrap();
        let filters = || {
            let arguments = ["filter", "show", "dev", "lo", "egress"];
            let output = std::process::Command::new("tc").args(arguments).output().unwrap();
            String::from_utf8(output.stdout).unwrap().contains(MSS)
        };
        for _ in 0..2 {
            let program = classifier(&mut ebpf, MSS).unwrap();
            let held = attach_tc(program, &interface, TcAttachType::Egress, false).unwrap();
            assert!(filters());
            held.release().unwrap();
            assert!(!filters());
        }
    }

    #[test]
    fn filters_of_a_clsact_qdisc_do_where_tcx_is_missing() {
        std::thread::spawn(with_clsact).join().unwrap();
    }
}

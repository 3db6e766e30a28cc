//! Probes through the tunnel: the way a client's packet takes, to the VIP on one backend.
//!
//! A probe's socket connects to the VIP itself and carries a mark that names the backend. On its
//! way out the program `lb_probe` (tc, egress) wraps each of its packets with the balancer's own
//! settings and backend entry, so the probe proves what clients get: encapsulation, next hop,
//! path, agent, VIP on the backend, listener, and the answer's way back. The answer comes from the
//! VIP straight to this machine, to the waiting socket.
//!
//! Fails closed: a marked packet is wrapped or dropped, and a probe whose packets the program has
//! not counted says nothing about the backend. The program is not pinned; when lbd ends there
//! are no probes, and the kernel detaches it.
//!
//! What it takes: a route to the VIP (the default route will do) whose gateway answers; the VIP
//! must be no address of this machine; and the VIP must have the probed TCP port. Where this
//! machine hangs on a veth and backends decapsulate in XDP, `ethtool -K IF tx off` as for every
//! local sender there: a checksum left to the hardware is lost on that way.
//!
//! Must not: change the balancer's maps.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use aya::maps::{Array, MapData, MapError};
use aya::programs::tc::SchedClassifierLinkId;
use aya::programs::{ProgramError, SchedClassifier, TcAttachType, tc};
use aya::util::KernelVersion;
use aya::{Ebpf, EbpfError, EbpfLoader};
use lb_common::map_name;
use lb_common::probe::{SENT, Sent, UNRESOLVED, backend_of};

use super::prober::Connect;
use super::{Failure, Observation, Probe, probe};

/// The object file that the build step made.
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/probe"));

/// The program's name.
const PROGRAM: &str = "lb_probe";
/// The map of [`Sent`] by backend id.
const COUNTS: &str = "LB_PROBES";
/// From this kernel on (major, minor) programs attach by a link of their own (tcx), which ends
/// with the process; before it by the clsact queueing discipline.
const TCX_SINCE: (u8, u8) = (6, 6);

/// Why probes cannot go through the tunnel.
#[derive(Debug, thiserror::Error)]
pub enum TunnelError {
    /// The balancer has not been loaded, or is pinned elsewhere.
    #[error("the balancer's map {0} is not there: load the data plane first")]
    NoDataplane(PathBuf),
    /// The kernel, or a pinned map of another layout, refuses the program.
    #[error("cannot load the probes' program: {0}")]
    Load(#[from] EbpfError),
    /// The verifier or a missing capability refuses it (CAP_BPF, CAP_NET_ADMIN).
    #[error("cannot load the probes' program: {0}")]
    Program(#[from] ProgramError),
    /// The object lacks a program or map: it is not of this build.
    #[error("the probes' object file is not what this build made: no {0}")]
    Object(&'static str),
    /// Its counters cannot be opened.
    #[error("cannot open the probes' counters: {0}")]
    Counts(#[from] MapError),
    /// An interface does not take the program.
    #[error("cannot attach the probes' program to {interface}: {error}")]
    Attach {
        /// The interface's name.
        interface: String,
        /// What the kernel says.
        error: ProgramError,
    },
}

/// The loaded program; dropping it detaches it, and its probes no longer count.
pub struct Tunnel {
    ebpf: Ebpf,
    counts: Arc<Array<MapData, Sent>>,
    /// Where the program is attached: name and index, since a name may come back.
    attached: BTreeMap<(String, u32), SchedClassifierLinkId>,
}

impl fmt::Debug for Tunnel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tunnel").field("attached", &self.attached).finish_non_exhaustive()
    }
}

impl Tunnel {
    /// Loads the program with the balancer's maps pinned in `pin_directory`; attached nowhere.
    /// Needs CAP_BPF and CAP_NET_ADMIN.
    ///
    /// # Errors
    /// No such pins, or the kernel refuses the program.
    pub fn load(pin_directory: &Path) -> Result<Self, TunnelError> {
        let mut loader = EbpfLoader::new();
        for name in [map_name::CONTROL, map_name::BACKENDS] {
            let pin = pin_directory.join(name);
            // The loader would create what is missing, and probes would go nowhere.
            if !pin.exists() {
                return Err(TunnelError::NoDataplane(pin));
            }
            loader.map_pin_path(name, pin);
        }
        Self::from_object(loader.load(OBJECT)?)
    }

    fn from_object(mut ebpf: Ebpf) -> Result<Self, TunnelError> {
        let counts = ebpf.take_map(COUNTS).ok_or(TunnelError::Object(COUNTS))?;
        let counts = Arc::new(Array::try_from(counts)?);
        let mut tunnel = Self { ebpf, counts, attached: BTreeMap::new() };
        tunnel.program()?.load()?;
        Ok(tunnel)
    }

    /// Attaches the program to the egress of exactly these interfaces (name and kernel index):
    /// every one by which this machine's own route to a VIP leaves. To be called again when they
    /// change; an interface that came back under its old name has another index.
    ///
    /// # Errors
    /// An interface is gone or refuses; those before it stay attached.
    pub fn set_interfaces(
        &mut self,
        interfaces: &BTreeSet<(String, u32)>,
    ) -> Result<(), TunnelError> {
        let gone: Vec<_> =
            self.attached.keys().filter(|key| !interfaces.contains(key)).cloned().collect();
        for key in gone {
            if let Some(link) = self.attached.remove(&key) {
                // Fails when the interface is gone, and then there is nothing to detach.
                drop(self.program()?.detach(link));
            }
        }
        for key in interfaces {
            if !self.attached.contains_key(key) {
                let link = self.attach(&key.0)?;
                self.attached.insert(key.clone(), link);
            }
        }
        Ok(())
    }

    /// Makes probes: those with a backend's mark through the tunnel, the others directly.
    #[must_use]
    pub fn connect(&self) -> Connect {
        let counts = Arc::clone(&self.counts);
        Box::new(move |request| Box::pin(through(Arc::clone(&counts), request)))
    }

    fn program(&mut self) -> Result<&mut SchedClassifier, TunnelError> {
        let program = self.ebpf.program_mut(PROGRAM).ok_or(TunnelError::Object(PROGRAM))?;
        Ok(program.try_into()?)
    }

    fn attach(&mut self, interface: &str) -> Result<SchedClassifierLinkId, TunnelError> {
        let (major, minor) = TCX_SINCE;
        if KernelVersion::current().is_ok_and(|now| now < KernelVersion::new(major, minor, 0)) {
            prepare_clsact(interface);
        }
        let attached = self.program()?.attach(interface, TcAttachType::Egress);
        attached.map_err(|error| TunnelError::Attach { interface: interface.to_owned(), error })
    }
}

/// Before tcx: the discipline the program hangs on, without what a killed lbd has left there.
/// "Already there" and "nothing to detach" are the usual answers; aya does not tell them from
/// others, but attaching will fail for whatever is really wrong.
fn prepare_clsact(interface: &str) {
    drop(tc::qdisc_add_clsact(interface));
    drop(tc::qdisc_detach_program(interface, TcAttachType::Egress, PROGRAM));
}

/// One probe, believed only if the program has seen its packets.
async fn through(counts: Arc<Array<MapData, Sent>>, request: Probe) -> Observation {
    let Some(backend) = request.mark.and_then(backend_of) else {
        return probe::connect(request).await;
    };
    let id = u32::from(backend.0);
    let before = counts.get(&id, 0);
    let observation = probe::connect(request).await;
    match (before, counts.get(&id, 0)) {
        (Ok(before), Ok(after)) => judge(observation, before, after),
        (Err(error), _) | (_, Err(error)) => {
            Observation::Uncounted(format!("cannot read the tunnel's counters: {error}"))
        }
    }
}

/// What a probe has found, given what the program counted for its backend before and after it.
fn judge(observation: Observation, before: Sent, after: Sent) -> Observation {
    if matches!(observation, Observation::Uncounted(_)) || after[SENT] != before[SENT] {
        return observation;
    }
    if after[UNRESOLVED] != before[UNRESOLVED] {
        return Observation::Failed(Failure::NextHop);
    }
    Observation::Uncounted(
        "its packets did not pass the tunnel: this machine's route to the VIP leaves by another \
         interface, or that route's gateway does not answer"
            .to_owned(),
    )
}

#[cfg(test)]
mod tests;

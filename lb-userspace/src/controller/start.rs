//! Bringing up a load balancer, in an order in which whatever fails leaves nothing half done:
//! machine, lock, sockets, maps, next hops and verdicts, tables, VIPs, program, API, ready.

use std::path::{Path, PathBuf};
use std::time::Duration;

use lb_common::ABI_VERSION;
use tokio::sync::mpsc;

use super::run::{RunError, TunnelRoutes, World, now, told};
use super::speaking::Speaking;
use super::{Controller, ControllerError, Options};
use crate::api::server::{self, ServerError, Serving};
use crate::api::{CALLS_MAX, Call};
use crate::bgp::bfd::Ports;
use crate::bgp::speaker::Options as SpeakerOptions;
use crate::config::Loaded;
use crate::dataplane::{Dataplane, Error as DataplaneError, Sizes};
use crate::desired::Desired;
use crate::health::tunnel::{Tunnel, TunnelError};
use crate::health::{Prober, ProberError, ProberOptions, probe};
use crate::host::lock::{DIRECTORY, LockError, PinLock};
use crate::host::netlink::{Held, NeighbourMode, NetlinkError, Resolver, held, release_all_but};
use crate::host::preflight::{self, Severity, Wants};
use crate::host::{clock, systemd};
use crate::maglev::identity_key;
use crate::metrics;
use crate::plan;
use crate::shutdown::Signals;

/// Neighbours have this long to answer before forwarding begins without them.
const NEXT_HOPS_MAX: Duration = Duration::from_secs(3);
/// Events of the resolver that wait for the controller; more wait in the resolver, merged.
const HOST_EVENTS_MAX: usize = 64;

/// What lbd is asked to do.
#[derive(Clone, Debug)]
pub struct Start {
    /// The configuration's file, absolute.
    pub config: PathBuf,
    /// What is in it.
    pub loaded: Loaded,
    /// Fill and attach, then end and leave all pinned.
    pub once: bool,
}

/// Why lbd does not run.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The machine is not what it must be; all findings.
    #[error("this machine cannot run the load balancer:\n{0}")]
    Machine(String),
    /// Another lbd is at work.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// The socket or the metrics' port is not to be had.
    #[error(transparent)]
    Server(#[from] ServerError),
    /// The data plane, or the program on an interface.
    #[error(transparent)]
    Dataplane(#[from] DataplaneError),
    /// The maps are of another size than the configuration wants.
    #[error(
        "the data plane in {path} was made with another {keys}, which cannot change while it \
         lives: put the old value back, or run `lbctl unload --pin-path {path}` (packets are not \
         forwarded then) and start again"
    )]
    Resized {
        /// The pin path.
        path: PathBuf,
        /// The keys of the configuration.
        keys: String,
    },
    /// The state or the configuration cannot be used.
    #[error(transparent)]
    Controller(#[from] ControllerError),
    /// Routes and neighbours cannot be followed.
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
    /// Health checks cannot be made.
    #[error(transparent)]
    Prober(#[from] ProberError),
    /// Health checks cannot go through the tunnel.
    #[error("health checks cannot go through the tunnel: {0}; set `via = \"direct\"`")]
    Tunnel(#[from] TunnelError),
    /// The loop broke.
    #[error(transparent)]
    Run(#[from] RunError),
    /// Signals cannot be handled.
    #[error("cannot handle signals: {0}")]
    Signals(std::io::Error),
    /// The data plane refuses a table or the VIPs.
    #[error("the data plane refuses the configuration: {0}")]
    Refused(String),
    /// A signal came before all was up.
    #[error("stopped by {0} before forwarding began")]
    Stopped(&'static str),
}

/// Looks at the machine and says everything that is wrong with it.
///
/// # Errors
/// [`StartError::Machine`] if it cannot work; warnings are logged.
pub async fn check_machine(desired: &Desired) -> Result<(), StartError> {
    let wants = Wants {
        pin_path: &desired.dataplane.pin_path,
        interfaces: &desired.dataplane.interfaces,
        layout: ABI_VERSION,
    };
    let mut errors = Vec::new();
    for finding in preflight::check(&wants).await {
        match finding.severity {
            Severity::Error => errors.push(finding.to_string()),
            Severity::Warning => {
                tracing::warn!(id = finding.id, help = finding.help, "{}", finding.message);
            }
        }
    }
    if errors.is_empty() { Ok(()) } else { Err(StartError::Machine(errors.join("\n"))) }
}

/// Runs until a signal, or once; what was done, for people.
///
/// # Errors
/// Any [`StartError`]; a data plane that did not exist before does not exist then either.
pub async fn run(start: Start) -> Result<String, StartError> {
    let desired = start.loaded.desired.clone();
    check_machine(&desired).await?;
    let pin_path = &desired.dataplane.pin_path;
    let _lock = PinLock::take(Path::new(DIRECTORY), pin_path)?;
    let (calls_sender, calls) = mpsc::channel(CALLS_MAX);
    let is_once = start.once;
    let servers = if is_once { Vec::new() } else { listen(&desired, &calls_sender).await? };
    let done = begin(start, &desired, calls, servers).await;
    if done.is_err() && !is_once {
        remove_socket(&desired.api.socket);
    }
    done
}

/// Opens or makes the maps and works with them; what a start has made that fails goes again.
async fn begin(
    start: Start,
    desired: &Desired,
    calls: mpsc::Receiver<Call>,
    servers: Vec<Serving>,
) -> Result<String, StartError> {
    let held = held().await?;
    let (dataplane, is_new) = open(desired)?;
    let result = operate(start, dataplane, is_new, calls, servers).await;
    if let Err((_, false)) = result
        && is_new
    {
        undo(&desired.dataplane.pin_path, &held).await;
    }
    result.map_err(|(error, _)| error)
}

/// The sockets; nobody is answered before all is up.
async fn listen(desired: &Desired, calls: &mpsc::Sender<Call>) -> Result<Vec<Serving>, StartError> {
    let api = &desired.api;
    let mut servers = vec![server::unix(&api.socket, api.group.as_deref(), calls.clone()).await?];
    if let Some(settings) = desired.metrics {
        servers.push(server::metrics(settings.listen, calls.clone(), metrics::encode).await?);
    }
    Ok(servers)
}

/// The maps of an earlier lbd, or new ones (then true).
fn open(desired: &Desired) -> Result<(Dataplane, bool), StartError> {
    let settings = &desired.dataplane;
    let wanted = Sizes::with_room(
        u64::from(settings.max_slots),
        settings.max_backends,
        settings.max_vips,
        settings.flow_table_size,
    );
    let path = &settings.pin_path;
    if !Dataplane::was_attached(path)? && !Dataplane::unload(path)?.is_empty() {
        tracing::warn!(path = %path.display(), "removed what a start left that was killed halfway");
    }
    let Some(found) = Dataplane::reopen(path)? else {
        return Ok((Dataplane::create(path, &wanted)?, true));
    };
    let sizes = found.sizes();
    let keys: Vec<&str> = [
        ("dataplane.max_slots", sizes.slot_rows == wanted.slot_rows),
        ("dataplane.max_backends", sizes.backends == wanted.backends),
        ("dataplane.max_vips", sizes.vips == wanted.vips),
        ("dataplane.flow_table_size", sizes.flow_buckets == wanted.flow_buckets),
    ]
    .into_iter()
    .filter(|(_, is_same)| !is_same)
    .map(|(key, _)| key)
    .collect();
    if keys.is_empty() {
        return Ok((found, false));
    }
    Err(StartError::Resized { path: path.clone(), keys: keys.join(", ") })
}

/// Removes what a failed start has made, but no neighbour that was held before: another lbd in
/// this network namespace may need it.
async fn undo(pin_path: &Path, held: &Held) {
    if let Err(error) = Dataplane::unload(pin_path) {
        tracing::error!(reason = %error, "cannot remove the pins of a start that failed");
    }
    if let Err(error) = release_all_but(held).await {
        tracing::warn!(reason = %error, "cannot release neighbours of a start that failed");
    }
}

/// All that needs the maps. An error says whether packets are forwarded already.
async fn operate(
    start: Start,
    dataplane: Dataplane,
    is_new: bool,
    calls: mpsc::Receiver<Call>,
    servers: Vec<Serving>,
) -> Result<String, (StartError, bool)> {
    let prepared = prepare(&start, dataplane, is_new, calls).await;
    let (mut controller, mut world) = prepared.map_err(|error| (error, false))?;
    fill(&mut controller, &mut world).await.map_err(|error| (error, false))?;
    let desired = controller.desired().clone();
    let mut lines = Vec::new();
    for interface in &desired.dataplane.interfaces {
        let attached = controller.attach(interface, desired.dataplane.xdp_mode);
        let attached = attached.map_err(|error| (error.into(), false))?;
        let mode = if attached.native { "native" } else { "generic" };
        tracing::info!(interface, mode, "attached");
        lines.push(format!("attached   {interface}, {mode} XDP"));
    }
    let detached = controller.detach_others().map_err(|error| (error.into(), true))?;
    lines.extend(
        detached.iter().map(|it| format!("detached   {it}: it is not configured any more")),
    );
    if start.once {
        return Ok(summary(&desired, lines));
    }
    for server in servers {
        tokio::spawn(async move {
            if let Err(error) = server.await {
                tracing::error!(reason = %error, "a server has ended");
            }
        });
    }
    let ready = format!("forwarding {} VIPs on {}", desired.vips.len(), interfaces(&desired));
    tracing::info!(vips = desired.vips.len(), interfaces = interfaces(&desired), "ready");
    told(systemd::ready(&ready));
    let signal = world.serve(&mut controller).await.map_err(|error| (error.into(), true))?;
    tracing::info!(signal, "stopping; the data plane goes on");
    told(systemd::stopping("stopping; the data plane goes on"));
    world.leave(&mut controller).await.map_err(|error| (error.into(), true))?;
    remove_socket(&desired.api.socket);
    Ok(String::new())
}

fn remove_socket(path: &Path) {
    if let Err(error) = std::fs::remove_file(path) {
        tracing::warn!(path = %path.display(), reason = %error, "cannot remove the socket");
    }
}

fn interfaces(desired: &Desired) -> String {
    desired.dataplane.interfaces.join(", ")
}

async fn prepare(
    start: &Start,
    dataplane: Dataplane,
    is_new: bool,
    calls: mpsc::Receiver<Call>,
) -> Result<(Controller, World), StartError> {
    let signals = Signals::listen().map_err(StartError::Signals)?;
    let tunnel = if start.once { None } else { load_tunnel(&start.loaded.desired)? };
    let options = Options {
        config: start.config.clone(),
        probes: !start.once,
        tunnel: tunnel.is_some(),
        hertz: u32::try_from(clock::ticks_per_second()).unwrap_or(u32::MAX),
    };
    let mut controller = Controller::new(dataplane, start.loaded.clone(), options, now())?;
    let desired = controller.desired();
    let (host_sender, host) = mpsc::channel(HOST_EVENTS_MAX);
    let resolver = Resolver::spawn(NeighbourMode::Managed, host_sender)?;
    resolver.watch_interfaces(&desired.dataplane.interfaces);
    let prober_options = ProberOptions {
        seed: identity_key(&desired.node.name),
        remembered: controller.remembered(),
        clock: clock::boot_time,
        connect: match &tunnel {
            Some(tunnel) => tunnel.connect(),
            None => Box::new(|it| Box::pin(probe::connect(it))),
        },
    };
    let (prober, health) = Prober::spawn(prober_options)?;
    // A prober that is dropped ends, and its receiver yields nothing.
    let prober = (!start.once).then_some(prober);
    let config = start.config.clone();
    let tunnel = tunnel.map(TunnelRoutes::new);
    // Packets went on if the maps and the program of an earlier lbd were there.
    let seed = identity_key(&desired.node.name);
    let speaking = SpeakerOptions {
        restarted: !is_new,
        forwarding_kept: !is_new,
        seed,
        bfd_ports: Ports::STANDARD,
        bfd_peer_ports: Ports::STANDARD,
        clock: clock::boot_time,
    };
    let speaking = Speaking::new(speaking);
    let mut world =
        World { prober, resolver, tunnel, speaking, health, host, calls, signals, config };
    world.pass_on(&mut controller).await?;
    Ok((controller, world))
}

/// The program that wraps probes. Loaded even if there are none to wrap yet, since the next
/// configuration may have some; only then nobody minds if it cannot be.
fn load_tunnel(desired: &Desired) -> Result<Option<Tunnel>, StartError> {
    let pins = preflight::pin_directory(&desired.dataplane.pin_path, ABI_VERSION);
    match Tunnel::load(&pins) {
        Ok(tunnel) => Ok(Some(tunnel)),
        Err(error) if plan::wants_tunnel(desired) => Err(error.into()),
        Err(error) => {
            tracing::warn!(reason = %error, "health checks cannot go through the tunnel");
            Ok(None)
        }
    }
}

/// Turns until every pool has its table and every next hop is known or has had its time.
async fn fill(controller: &mut Controller, world: &mut World) -> Result<(), StartError> {
    let deadline = now().boot + NEXT_HOPS_MAX;
    controller.settle(now());
    while !(controller.is_started() && (controller.is_resolved() || now().boot >= deadline)) {
        if let Some(signal) = world.turn(controller).await? {
            return Err(StartError::Stopped(signal));
        }
    }
    controller.stop_waiting_for_next_hops();
    controller.settle(now());
    controller.refusal().map_or(Ok(()), |reason| Err(StartError::Refused(reason)))
}

/// What `--once` did.
fn summary(desired: &Desired, mut lines: Vec<String>) -> String {
    for pool in desired.pools.values() {
        let (backends, slots) = (pool.backends.len(), pool.maglev_size);
        lines.push(format!("pool       {}: {backends} backends, {slots} slots", pool.name));
    }
    for vip in desired.vips.values() {
        lines.push(format!("vip        {} {} to pool {}", vip.name, vip.key, vip.pool));
    }
    let path = desired.dataplane.pin_path.display();
    lines.push(format!("pinned     {path}; `lbctl unload --pin-path {path}` takes it off again"));
    lines.push("health     not checked while no lbd runs: every backend counts as up".to_owned());
    lines.join("\n")
}

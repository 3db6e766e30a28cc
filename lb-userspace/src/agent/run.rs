//! The agent's life: start, keep the addresses true, print counters when asked, stop.

use futures_util::StreamExt as _;
use sd_notify::NotifyState;
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::error::AgentError;
use super::kernel::{self, Agent, Place};
use super::netlink::{self, Netlink};
use super::options::{Mode, RunOptions};
use super::pins::Pins;
use super::{capabilities, checks, counters, plan};

struct Signals {
    terminate: Signal,
    interrupt: Signal,
    user1: Signal,
}

impl Signals {
    fn open() -> Result<Self, AgentError> {
        let open = |kind| signal(kind).map_err(AgentError::Signals);
        Ok(Self {
            terminate: open(SignalKind::terminate())?,
            interrupt: open(SignalKind::interrupt())?,
            user1: open(SignalKind::user_defined1())?,
        })
    }
}

/// Tells the service manager; without one it does nothing, and failing to does not stop anything.
fn notify(state: NotifyState<'_>) {
    if let Err(error) = sd_notify::notify(&[state]) {
        tracing::warn!(%error, "the service manager cannot be told");
    }
}

/// Runs until a signal ends it.
///
/// # Errors
/// It cannot start, the interface goes away, or the kernel refuses a change of addresses.
pub async fn run(options: &RunOptions) -> Result<(), AgentError> {
    let mut signals = Signals::open()?;
    capabilities::require()?;
    let netlink = Netlink::open()?;
    // Before anything is read, so that no change is missed.
    let mut changes = netlink::changes()?;
    let mut agent = start(options, &netlink).await?;
    notify(NotifyState::Ready);
    let ended = loop {
        tokio::select! {
            _ = signals.terminate.recv() => break Ok("SIGTERM"),
            _ = signals.interrupt.recv() => break Ok("SIGINT"),
            _ = signals.user1.recv() => log_counters(&agent),
            change = changes.next() => {
                let followed = match change {
                    Some(()) => follow(options, &netlink, &mut agent).await,
                    None => Err(AgentError::Netlink {
                        what: "notifications",
                        error: "the connection ended".to_owned(),
                    }),
                };
                if let Err(error) = followed {
                    break Err(error);
                }
            }
        }
    };
    notify(NotifyState::Stopping);
    log_counters(&agent);
    let stopped = agent.stop();
    let signal = ended?;
    stopped?;
    tracing::info!(signal, pinned = options.pin_path.is_some(), "stopped");
    Ok(())
}

async fn start(options: &RunOptions, netlink: &Netlink) -> Result<Agent, AgentError> {
    let name = &options.interface;
    let found = netlink.interface(name).await?;
    let interface = found.ok_or_else(|| AgentError::NoInterface(name.clone()))?;
    if !interface.ethernet {
        return Err(AgentError::NotEthernet(name.clone()));
    }
    let host = netlink.host().await?;
    let plan = plan::plan(options, &interface, &host)?;
    let paths = checks::Paths::read(name);
    for line in checks::warnings(options, &plan, &interface, &host, paths) {
        tracing::warn!("{line}");
    }
    let pins = options.pin_path.as_deref().map(Pins::open).transpose()?;
    let agent = kernel::start(&plan, &interface, options.mode, pins)?;
    let (place, reason) = (agent.place().name(), agent.reason());
    if options.mode == Mode::Auto && agent.place() == Place::XdpGeneric {
        tracing::warn!(interface = name, reason, "attached in generic XDP: slower than native");
    }
    tracing::info!(
        interface = name,
        mode = place,
        reason,
        taken_over = agent.taken_over(),
        mss_v4 = plan.settings.mss_v4,
        mss_v6 = plan.settings.mss_v6,
        tunnel_mtu = plan.tunnel_mtu,
        overhead = plan.overhead,
        "attached"
    );
    Ok(agent)
}

/// After a change: is the interface still there, which addresses does the host have now?
async fn follow(
    options: &RunOptions,
    netlink: &Netlink,
    agent: &mut Agent,
) -> Result<(), AgentError> {
    let interface = netlink.interface(&options.interface).await?;
    if interface.map(|interface| interface.index) != Some(agent.interface()) {
        return Err(AgentError::InterfaceGone(options.interface.clone()));
    }
    let host = netlink.host().await?;
    let addresses = plan::addresses(&options.vips, &host)?;
    let count = addresses.len();
    if agent.set_addresses(addresses)? {
        tracing::info!(addresses = count, "addresses changed");
    }
    Ok(())
}

fn log_counters(agent: &Agent) {
    match agent.counters() {
        Ok(readings) => tracing::info!("counters: {}", counters::line(&readings)),
        Err(error) => tracing::warn!(%error, "the counters cannot be read"),
    }
}

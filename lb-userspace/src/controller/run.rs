//! The loop around the controller: one event, then whatever came with it, then what follows.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::sync::mpsc;

use super::speaking::Speaking;
use super::{Controller, Event, Moment};
use crate::api::Call;
use crate::bgp::speaker::SpeakerError;
use crate::config;
use crate::health::tunnel::Tunnel;
use crate::health::{HealthEvent, Prober, ProberError};
use crate::host::netlink::{HostEvent, NetlinkError, Resolver, links, path_mtus};
use crate::host::{clock, driver, systemd};
use crate::shutdown::{Signal, Signals};

/// Events taken in before the data plane is told: a router that reboots takes hundreds of backends
/// down at once, which is one change and not hundreds.
const EVENTS_PER_TURN: usize = 1024;
/// The prober is asked for its state this often; answers may be this old.
const REPORT_INTERVAL: Duration = Duration::from_secs(1);

/// Routes to probed VIPs are looked up again this often.
const ROUTES_INTERVAL: Duration = Duration::from_secs(10);
/// A pause is never shorter, so that a deadline that has passed already costs no more than this.
const PAUSE_MIN: Duration = Duration::from_millis(1);
/// Drivers are asked for what they did not send this often; some take a millisecond for it.
const DRIVERS_INTERVAL: Duration = Duration::from_secs(5);

/// Everything events come from, and what orders go to.
pub(super) struct World {
    pub(super) prober: Option<Prober>,
    pub(super) resolver: Resolver,
    /// Wraps the probes that go through the tunnel.
    pub(super) tunnel: Option<TunnelRoutes>,
    pub(super) health: mpsc::Receiver<HealthEvent>,
    pub(super) host: mpsc::Receiver<HostEvent>,
    pub(super) calls: mpsc::Receiver<Call>,
    /// Talks to BGP peers.
    pub(super) speaking: Speaking,
    pub(super) signals: Signals,
    /// Read again at a reload.
    pub(super) config: PathBuf,
}

/// Why the loop cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The prober's thread has ended.
    #[error(transparent)]
    Prober(#[from] ProberError),
    /// The resolver's task has ended, or takes no more destinations.
    #[error(transparent)]
    Resolver(#[from] NetlinkError),
    /// There is no thread for BGP.
    #[error(transparent)]
    Speaker(#[from] SpeakerError),
}

/// What woke the loop.
enum Wake {
    Event(Box<Event>),
    Reload,
    Stop(&'static str),
    /// The resolver is gone.
    Blind,
}

/// The time, on the two clocks.
pub(super) fn now() -> Moment {
    Moment { boot: clock::boot_time(), wall: clock::since_epoch() }
}

impl World {
    /// Handles one event, or time that has passed, and what follows; the reason if it is time to
    /// stop.
    pub(super) async fn turn(
        &mut self,
        controller: &mut Controller,
    ) -> Result<Option<&'static str>, RunError> {
        let before = now();
        let pause = controller.deadline(before).saturating_sub(before.boot).max(PAUSE_MIN);
        match self.wait(pause).await {
            Wake::Event(event) => controller.handle(*event, now()),
            Wake::Reload => reload(controller, &self.config),
            Wake::Stop(signal) => return Ok(Some(signal)),
            Wake::Blind => return Err(NetlinkError::Ended.into()),
        }
        for _ in 0..EVENTS_PER_TURN {
            let Some(event) = self.more() else { break };
            controller.handle(event, now());
        }
        controller.settle(now());
        self.pass_on(controller).await?;
        Ok(None)
    }

    /// The loop of a daemon that is ready; returns the signal that ends it.
    pub(super) async fn serve(
        &mut self,
        controller: &mut Controller,
    ) -> Result<&'static str, RunError> {
        let mut report_due = Duration::ZERO;
        let mut drivers_due = Duration::ZERO;
        let mut watchdog_due = Duration::ZERO;
        let watchdog_period = systemd::watchdog_period();
        loop {
            if let Some(signal) = self.turn(controller).await? {
                return Ok(signal);
            }
            let boot = now().boot;
            if report_due <= boot {
                report_due = boot + REPORT_INTERVAL;
                self.report(controller).await?;
            }
            if drivers_due <= boot {
                drivers_due = boot + DRIVERS_INTERVAL;
                ask_drivers(controller);
            }
            if let Some(period) = watchdog_period.filter(|_| watchdog_due <= boot) {
                watchdog_due = boot + period;
                told(systemd::watchdog());
            }
        }
    }

    async fn report(&self, controller: &mut Controller) -> Result<(), RunError> {
        if let Some(prober) = &self.prober {
            let report = prober.report().await?;
            controller.handle(Event::Report(report), now());
        }
        Ok(())
    }

    /// Waits for the first thing that happens, at most `pause`.
    async fn wait(&mut self, pause: Duration) -> Wake {
        let event = tokio::select! {
            signal = self.signals.next() => return match signal {
                Signal::Reload => Wake::Reload,
                Signal::Stop(name) => Wake::Stop(name),
            },
            Some(event) = self.health.recv() => Event::Health(event),
            event = self.host.recv() => match event {
                Some(event) => Event::Host(event),
                None => return Wake::Blind,
            },
            Some(call) = self.calls.recv() => Event::Call(call),
            report = self.speaking.report() => Event::Speaker(report),
            () = tokio::time::sleep(pause) => Event::Tick,
        };
        Wake::Event(Box::new(event))
    }

    /// What has happened already. Orders are not among it: they are taken one a turn, so that
    /// each finds what was before it done.
    fn more(&mut self) -> Option<Event> {
        if let Ok(event) = self.health.try_recv() {
            return Some(Event::Health(event));
        }
        self.host.try_recv().ok().map(Event::Host)
    }

    /// Tells prober and resolver what they have to look at now.
    pub(super) async fn pass_on(&mut self, controller: &mut Controller) -> Result<(), RunError> {
        let wanted = controller.take_wanted();
        if wanted.speaker {
            self.speaking.follow(controller).await?;
        }
        if let Some(tunnel) = &mut self.tunnel {
            tunnel.follow(wanted.tunnelled, now().boot).await;
        }
        if let (Some(prober), Some(targets)) = (&self.prober, wanted.targets) {
            prober.set_targets(targets).await?;
        }
        if let Some(destinations) = wanted.destinations {
            self.resolver.set_destinations(&destinations)?;
        }
        Ok(())
    }
}

/// The tunnel's program, and the interfaces on which it has to be: those by which this machine's
/// own routes to the probed VIPs leave.
pub(super) struct TunnelRoutes {
    tunnel: Tunnel,
    vips: BTreeSet<IpAddr>,
    due: Duration,
    /// What fails, so that it is logged once.
    failing: Option<String>,
}

impl TunnelRoutes {
    pub(super) const fn new(tunnel: Tunnel) -> Self {
        Self { tunnel, vips: BTreeSet::new(), due: Duration::ZERO, failing: None }
    }

    /// Looks whether the program is where it has to be, when that is due or the VIPs change.
    async fn follow(&mut self, vips: Option<BTreeSet<IpAddr>>, boot: Duration) {
        if let Some(vips) = vips.filter(|vips| *vips != self.vips) {
            self.vips = vips;
            self.due = boot;
        }
        if boot < self.due {
            return;
        }
        self.due = boot + ROUTES_INTERVAL;
        let failing = self.attach().await.err();
        if failing != self.failing {
            match &failing {
                Some(reason) => tracing::warn!(reason, "probes cannot go through the tunnel"),
                None => tracing::info!("probes can go through the tunnel again"),
            }
            self.failing = failing;
        }
    }

    async fn attach(&mut self) -> Result<(), String> {
        let paths = path_mtus(&self.vips).await.map_err(|error| error.to_string())?;
        let links = links().await.map_err(|error| error.to_string())?;
        let mut interfaces = BTreeSet::new();
        let mut failed = Ok(());
        for (vip, path) in paths {
            match path {
                Ok(path) => interfaces.extend(
                    links.get(&path.interface).map(|it| (path.interface.to_string(), it.index)),
                ),
                Err(reason) => failed = Err(format!("{vip}: {reason}")),
            }
        }
        self.tunnel.set_interfaces(&interfaces).map_err(|error| error.to_string())?;
        failed
    }
}

fn ask_drivers(controller: &mut Controller) {
    let names = controller.desired().dataplane.interfaces.iter().cloned().collect();
    let errors = driver::transmit_errors(&names, &controller.outgoing());
    controller.handle(Event::TransmitErrors(errors), now());
}

fn reload(controller: &mut Controller, path: &Path) {
    if controller.is_leaving() {
        tracing::warn!("lbd is stopping: the next one reads the configuration");
        return;
    }
    told(systemd::reloading());
    let loaded = config::load(path).map(Box::new);
    controller.handle(Event::Reload(loaded), now());
    told(systemd::ready("forwarding"));
}

/// The service manager's silence stops nothing.
pub(super) fn told(result: std::io::Result<()>) {
    if let Err(error) = result {
        tracing::warn!(reason = %error, "cannot tell the service manager");
    }
}

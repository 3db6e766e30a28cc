//! Drives the machine: makes the probes that are due, feeds it the results, passes on its events.
//!
//! Runs on a thread and runtime of its own, so that ten thousand probes a second never delay the
//! controller, and stops when its handle is dropped. The thread starts in the network namespace of
//! the one who spawns it. Never blocks on the reader of its events: what that one has not taken
//! yet waits, one event per backend, the newer replacing the older.
//!
//! Must not: decide anything; that is the machine's.

use std::collections::BTreeMap;
use std::io;
use std::pin::Pin;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use tokio::sync::{mpsc, oneshot};

use super::{BackendKey, HealthEvent, HealthReport, Machine, Observation, Probe, Target, Ticket};

/// Probes under way at once, at most: with a timeout of 1 s, 4,096 dead backends a second are
/// seen without delay. Never more than half of the descriptors this process may open.
pub const IN_FLIGHT_MAX: usize = 4096;

/// Probes under way at once that are allowed even to a process with very few descriptors.
const IN_FLIGHT_MIN: usize = 16;

/// Probes started before results are looked at again.
const LAUNCH_BATCH: usize = 64;

/// Commands waiting for the prober; each is answered within a few milliseconds.
const COMMANDS_MAX: usize = 8;

/// Events waiting for the controller; what does not fit waits in the prober, one per backend.
const EVENTS_MAX: usize = 1024;

/// How one probe is made: [`super::probe::connect`], or a stand-in.
pub type Connect = Box<dyn Fn(Probe) -> Flight + Send>;

/// A probe under way.
pub type Flight = Pin<Box<dyn Future<Output = Observation> + Send>>;

/// What the prober needs to start.
pub struct ProberOptions {
    /// Differs between LBs, so that they do not probe in step; a hash of the node's name will do.
    pub seed: u64,
    /// Verdicts of an earlier run (true is up), the start for backends of the first set.
    pub remembered: BTreeMap<BackendKey, bool>,
    /// The time since boot: `host::clock`, passed in because only that room reads a clock.
    pub clock: fn() -> Duration,
    /// How a probe is made.
    pub connect: Connect,
}

/// Why the prober cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ProberError {
    /// Its thread or runtime could not be started.
    #[error("cannot start the prober: {0}")]
    Start(#[from] io::Error),
    /// Its thread has ended.
    #[error("the prober has stopped")]
    Stopped,
}

/// The handle; dropping it stops the probes.
#[derive(Debug)]
pub struct Prober {
    commands: mpsc::Sender<Command>,
}

#[derive(Debug)]
enum Command {
    SetTargets(BTreeMap<BackendKey, Target>),
    Report(oneshot::Sender<HealthReport>),
}

impl Prober {
    /// Starts without targets. The receiver yields an event whenever a verdict changes; a reader
    /// that lags gets the newest one per backend.
    ///
    /// # Errors
    /// [`ProberError::Start`] when there is no thread or no runtime to be had.
    pub fn spawn(
        options: ProberOptions,
    ) -> Result<(Self, mpsc::Receiver<HealthEvent>), ProberError> {
        let (commands, command_receiver) = mpsc::channel(COMMANDS_MAX);
        let (events, event_receiver) = mpsc::channel(EVENTS_MAX);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let worker = Worker {
            machine: Machine::start(options.seed, options.remembered),
            clock: options.clock,
            connect: options.connect,
            commands: command_receiver,
            events,
            pending: BTreeMap::new(),
            flights: FuturesUnordered::new(),
            in_flight_max: in_flight_max(),
        };
        std::thread::Builder::new()
            .name("health".to_owned())
            .spawn(move || runtime.block_on(worker.run()))?;
        Ok((Self { commands }, event_receiver))
    }

    /// Replaces the set of backends to probe; see [`Machine::set_targets`] for what is kept.
    ///
    /// # Errors
    /// [`ProberError::Stopped`].
    pub async fn set_targets(
        &self,
        targets: BTreeMap<BackendKey, Target>,
    ) -> Result<(), ProberError> {
        let sent = self.commands.send(Command::SetTargets(targets)).await;
        sent.map_err(|_closed| ProberError::Stopped)
    }

    /// Every backend's state, for operators.
    ///
    /// # Errors
    /// [`ProberError::Stopped`].
    pub async fn report(&self) -> Result<HealthReport, ProberError> {
        let (answer, answered) = oneshot::channel();
        let sent = self.commands.send(Command::Report(answer)).await;
        sent.map_err(|_closed| ProberError::Stopped)?;
        answered.await.map_err(|_closed| ProberError::Stopped)
    }
}

type Landing = Pin<Box<dyn Future<Output = (Ticket, Observation)> + Send>>;

struct Worker {
    machine: Machine,
    clock: fn() -> Duration,
    connect: Connect,
    commands: mpsc::Receiver<Command>,
    events: mpsc::Sender<HealthEvent>,
    /// Events not yet taken, bounded by the number of backends.
    pending: BTreeMap<BackendKey, HealthEvent>,
    flights: FuturesUnordered<Landing>,
    in_flight_max: usize,
}

/// What the worker woke up for.
enum Step {
    Command(Command),
    Landed(Ticket, Observation),
    EventsHaveRoom,
    Due,
    /// The handle or the receiver of the events is gone.
    End,
}

impl Worker {
    async fn run(mut self) {
        loop {
            self.launch();
            match self.step().await {
                Step::Command(command) => self.obey(command),
                Step::Landed(ticket, observation) => self.land(ticket, observation),
                Step::EventsHaveRoom => self.pass_on(),
                Step::Due => {}
                Step::End => return,
            }
        }
    }

    /// Waits for whatever happens next.
    async fn step(&mut self) -> Step {
        let pause = self.pause();
        tokio::select! {
            command = self.commands.recv() => command.map_or(Step::End, Step::Command),
            Some((ticket, observation)) = self.flights.next() => Step::Landed(ticket, observation),
            room = self.events.reserve(), if !self.pending.is_empty() => {
                if room.is_ok() { Step::EventsHaveRoom } else { Step::End }
            }
            () = sleep(pause) => Step::Due,
        }
    }

    /// Hands the controller as many events as there is room for; the rest keeps waiting.
    fn pass_on(&mut self) {
        while let Some((key, event)) = self.pending.pop_first() {
            if let Err(unsent) = self.events.try_send(event) {
                self.pending.insert(key, unsent.into_inner());
                return;
            }
        }
    }

    /// Starts what is due, as far as there is room.
    fn launch(&mut self) {
        for _ in 0..LAUNCH_BATCH {
            if self.flights.len() >= self.in_flight_max {
                return;
            }
            let Some(probe) = self.machine.probe_due((self.clock)()) else { return };
            let ticket = probe.ticket;
            let flight = (self.connect)(probe);
            self.flights.push(Box::pin(async move { (ticket, flight.await) }));
        }
    }

    /// How long there is nothing to start; none while a result must come first.
    fn pause(&self) -> Option<Duration> {
        if self.flights.len() >= self.in_flight_max {
            return None;
        }
        Some(self.machine.next_deadline()?.saturating_sub((self.clock)()))
    }

    fn land(&mut self, ticket: Ticket, observation: Observation) {
        let now = (self.clock)();
        if let Some(event) = self.machine.observed(ticket, observation, now) {
            self.pending.insert(event.backend.clone(), event);
        }
    }

    fn obey(&mut self, command: Command) {
        match command {
            Command::SetTargets(targets) => {
                self.pending.retain(|key, _| targets.contains_key(key));
                self.machine.set_targets(targets, (self.clock)());
            }
            Command::Report(answer) => {
                // One who no longer waits for the answer does not need it.
                drop(answer.send(self.machine.report()));
            }
        }
    }
}

async fn sleep(pause: Option<Duration>) {
    match pause {
        Some(pause) => tokio::time::sleep(pause).await,
        None => std::future::pending().await,
    }
}

/// Half of the descriptors this process may open, within the limits above.
fn in_flight_max() -> usize {
    let limits = std::fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let half = open_files_max(&limits).unwrap_or(0) / 2;
    half.clamp(IN_FLIGHT_MIN, IN_FLIGHT_MAX)
}

/// The soft limit of open files in the text of /proc/self/limits (proc_pid_limits(5)).
fn open_files_max(limits: &str) -> Option<usize> {
    let values = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    match values.split_whitespace().next()? {
        "unlimited" => Some(usize::MAX),
        number => number.parse().ok(),
    }
}

#[cfg(test)]
mod tests;

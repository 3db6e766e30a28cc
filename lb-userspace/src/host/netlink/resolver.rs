//! The task that follows routes and neighbours: `resolution` decides, this file does the IO.
//!
//! One task owns both sockets. It runs one batch of questions at a time and looks at
//! notifications in between, so that thirty thousand questions keep nobody waiting. When a socket
//! fails it opens new ones and asks everything again; it ends only with its handle or its
//! receiver.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rtnetlink::packet_route::RouteNetlinkMessage;
use tokio::sync::{mpsc, watch};

use super::codec::{self, Notice};
use super::neighbours::{Key, Step};
use super::resolution::Resolution;
use super::socket::{Answer, MAX_BATCH, Notices, Requests};
use super::{
    HostEvent, Link, MAX_DESTINATIONS, MAX_INTERFACES, NeighbourMode, NetlinkError, Path,
    REFRESH_INTERVAL, Unresolved,
};
use crate::host::clock;

/// Pause before sockets are opened anew, and between full resynchronisations.
const RESYNC_PAUSE: Duration = Duration::from_secs(1);
/// Each neighbour step is at most a change and a look at its result.
const STEPS_PER_BATCH: usize = MAX_BATCH / 2;

/// What the resolver has done, since its start. Never reset.
#[derive(Debug, Default)]
pub struct Counters {
    /// Route questions asked.
    pub lookups: AtomicU64,
    /// Changes made to neighbour entries.
    pub neighbour_changes: AtomicU64,
    /// Changes to neighbour entries that the kernel refused.
    pub neighbour_refusals: AtomicU64,
    /// Times notifications were lost and everything was asked again.
    pub overruns: AtomicU64,
    /// Times netlink failed otherwise and was opened anew.
    pub failures: AtomicU64,
}

fn count(counter: &AtomicU64, by: usize) {
    counter.fetch_add(u64::try_from(by).unwrap_or(u64::MAX), Ordering::Relaxed);
}

/// What the controller wants to be told about.
#[derive(Clone, Debug, Default)]
struct Wanted {
    destinations: Arc<BTreeSet<IpAddr>>,
    interfaces: Arc<BTreeSet<Arc<str>>>,
}

/// The controller's handle on the resolver's task. Dropping it ends the task; neighbour entries
/// stay as they are, because the data plane goes on using them.
#[derive(Debug)]
pub struct Resolver {
    wanted: watch::Sender<Wanted>,
    counters: Arc<Counters>,
}

impl Resolver {
    /// Opens the sockets in the calling thread's network namespace and starts the task on the
    /// current tokio runtime. `mode` is what to begin with; [`NeighbourMode::Managed`] falls back
    /// to the other by itself.
    ///
    /// # Errors
    ///
    /// [`NetlinkError::Io`] if the sockets cannot be opened.
    pub fn spawn(
        mode: NeighbourMode,
        events: mpsc::Sender<HostEvent>,
    ) -> Result<Self, NetlinkError> {
        let (wanted, receiver) = watch::channel(Wanted::default());
        let counters = Arc::new(Counters::default());
        let task = Task {
            requests: Requests::open()?,
            notices: Notices::open()?,
            resolution: Resolution::new(mode),
            wanted: receiver,
            events,
            reported_links: BTreeMap::new(),
            reported_mode: None,
            refreshed: Duration::ZERO,
            refresh_due: Duration::ZERO,
            counters: Arc::clone(&counters),
        };
        tokio::spawn(task.run());
        Ok(Self { wanted, counters })
    }

    /// Follows exactly these destinations from now on. The answer comes as
    /// [`HostEvent::NextHops`].
    ///
    /// # Errors
    ///
    /// [`NetlinkError::TooManyDestinations`], and then the former ones are still followed;
    /// [`NetlinkError::Ended`] if the task has ended.
    pub fn set_destinations(&self, destinations: &BTreeSet<IpAddr>) -> Result<(), NetlinkError> {
        if destinations.len() > MAX_DESTINATIONS {
            return Err(NetlinkError::TooManyDestinations(destinations.len()));
        }
        if self.wanted.is_closed() {
            return Err(NetlinkError::Ended);
        }
        self.wanted.send_if_modified(|wanted| {
            let changed = *wanted.destinations != *destinations;
            if changed {
                wanted.destinations = Arc::new(destinations.clone());
            }
            changed
        });
        Ok(())
    }

    /// Reports the state of exactly these interfaces from now on, at most [`MAX_INTERFACES`]
    /// (further ones are ignored).
    pub fn watch_interfaces(&self, names: &[String]) {
        let names: BTreeSet<Arc<str>> =
            names.iter().take(MAX_INTERFACES).map(|name| Arc::from(name.as_str())).collect();
        self.wanted.send_modify(|wanted| wanted.interfaces = Arc::new(names));
    }

    /// What the task has done so far.
    #[must_use]
    pub fn counters(&self) -> &Counters {
        &self.counters
    }
}

struct Task {
    requests: Requests,
    notices: Notices,
    resolution: Resolution,
    wanted: watch::Receiver<Wanted>,
    events: mpsc::Sender<HostEvent>,
    reported_links: BTreeMap<Arc<str>, Option<Link>>,
    reported_mode: Option<NeighbourMode>,
    refreshed: Duration,
    refresh_due: Duration,
    counters: Arc<Counters>,
}

/// The controller is gone; the task ends.
struct Ended;

/// What the task woke up for.
enum Wake {
    Notices(Result<Vec<RouteNetlinkMessage>, NetlinkError>),
    Wanted(Result<(), watch::error::RecvError>),
    Time,
    Ended,
}

impl Task {
    async fn run(mut self) {
        let mut failed = self.start().await.err();
        loop {
            if let Some(error) = failed.take() {
                self.recover(&error).await;
            }
            match self.turn().await {
                Ok(Ok(())) => {}
                Ok(Err(Ended)) => return,
                Err(error) => failed = Some(error),
            }
        }
    }

    /// Learns links and our own neighbour entries of an earlier run.
    async fn start(&mut self) -> Result<(), NetlinkError> {
        self.learn_links().await?;
        let now = clock::boot_time();
        for key in ours(&mut self.requests).await? {
            self.resolution.adopt(key, now);
        }
        self.refreshed = now;
        self.refresh_due = now + REFRESH_INTERVAL;
        Ok(())
    }

    async fn learn_links(&mut self) -> Result<(), NetlinkError> {
        let links = dump_links(&mut self.requests).await?;
        self.resolution.all_links(links, clock::boot_time());
        Ok(())
    }

    /// Has everything asked again: at once, or a moment later if that was done just now. A socket
    /// that failed is replaced.
    async fn recover(&mut self, error: &NetlinkError) {
        tracing::warn!(reason = %error, "asking the kernel for all routes and neighbours again");
        if matches!(error, NetlinkError::Overrun) {
            count(&self.counters.overruns, 1);
        } else {
            count(&self.counters.failures, 1);
            tokio::time::sleep(RESYNC_PAUSE).await;
            if let (Ok(requests), Ok(notices)) = (Requests::open(), Notices::open()) {
                self.requests = requests;
                self.notices = notices;
            }
        }
        self.refresh_due = self.refreshed + RESYNC_PAUSE;
    }

    /// Carries out what is due, reports what is to be reported, then waits for the next event.
    async fn turn(&mut self) -> Result<Result<(), Ended>, NetlinkError> {
        let now = clock::boot_time();
        if now >= self.refresh_due {
            self.refreshed = now;
            self.refresh_due = now + REFRESH_INTERVAL;
            self.learn_links().await?;
            self.resolution.refresh(now);
        }
        self.batch(now).await?;
        if self.report().await.is_err() {
            return Ok(Err(Ended));
        }
        match self.wait().await {
            Wake::Ended | Wake::Wanted(Err(_)) => return Ok(Err(Ended)),
            Wake::Notices(messages) => {
                let now = clock::boot_time();
                for notice in messages?.iter().filter_map(codec::notice) {
                    self.apply(notice, now);
                }
            }
            Wake::Wanted(Ok(())) => {
                let destinations = Arc::clone(&self.wanted.borrow_and_update().destinations);
                self.resolution.set_destinations(&destinations, clock::boot_time())?;
            }
            Wake::Time => {}
        }
        Ok(Ok(()))
    }

    /// The next thing to react to. Notifications go first: they make questions unnecessary.
    async fn wait(&mut self) -> Wake {
        let now = clock::boot_time();
        let report_due = self.resolution.report_due();
        let due = [Some(self.refresh_due), self.resolution.next_due(), report_due];
        let due = due.into_iter().flatten().min().unwrap_or(self.refresh_due);
        // Yields to the runtime even if this task has work without end.
        tokio::task::yield_now().await;
        tokio::select! {
            biased;
            () = self.events.closed() => Wake::Ended,
            messages = self.notices.next() => Wake::Notices(messages),
            changed = self.wanted.changed() => Wake::Wanted(changed),
            () = pause(due.saturating_sub(now)) => Wake::Time,
        }
    }

    fn apply(&mut self, notice: Notice, now: Duration) {
        match notice {
            Notice::Link(link) => self.resolution.link(link, now),
            Notice::LinkGone(index) => self.resolution.link_gone(index, now),
            Notice::Neighbour(key, sighting) => self.resolution.neighbour(&key, sighting, now),
            Notice::NeighbourGone(key) => self.resolution.neighbour_gone(&key, now),
            Notice::Route(prefix) => self.resolution.route(prefix, now),
            Notice::Everything => self.resolution.everything(now),
        }
    }

    /// One batch of lookups and one of neighbour steps.
    async fn batch(&mut self, now: Duration) -> Result<(), NetlinkError> {
        lookups(&mut self.requests, &mut self.resolution, &self.counters, now).await?;
        let steps = self.resolution.take_steps(now, STEPS_PER_BATCH);
        let questions = steps.iter().flat_map(|(key, step)| step_messages(key, *step)).collect();
        let mut answers = self.requests.batch(questions).await?.into_iter();
        let now = clock::boot_time();
        for (key, step) in steps {
            let changed = if step == Step::Query { None } else { answers.next() };
            let found = if step == Step::Release { None } else { answers.next() };
            self.stepped(&key, step, changed, found.as_ref(), now);
        }
        Ok(())
    }

    /// What became of a step: `changed` is the answer to its change, `found` what is there now.
    fn stepped(
        &mut self,
        key: &Key,
        step: Step,
        changed: Option<Answer>,
        found: Option<&Answer>,
        now: Duration,
    ) {
        if changed.is_some() {
            count(&self.counters.neighbour_changes, 1);
        }
        match changed {
            Some(Answer::Refused(errno)) if step != Step::Release => {
                count(&self.counters.neighbour_refusals, 1);
                self.resolution.neighbour_refused(key, step, errno, now);
                return;
            }
            _ => {}
        }
        match found.and_then(found_entry) {
            Some(sighting) => {
                if step == Step::Hold && !sighting.managed && !sighting.permanent {
                    self.resolution.give_up_managed(now);
                }
                self.resolution.neighbour(key, sighting, now);
            }
            None => self.resolution.neighbour_gone(key, now),
        }
    }

    /// Sends what changed, as far as the controller has room; the rest waits for the next turn.
    async fn report(&mut self) -> Result<(), Ended> {
        if self.reported_mode != Some(self.resolution.mode()) {
            let mode = self.resolution.mode();
            self.events.send(HostEvent::NeighbourMode(mode)).await.map_err(|_closed| Ended)?;
            self.reported_mode = Some(mode);
        }
        let names = Arc::clone(&self.wanted.borrow().interfaces);
        self.reported_links.retain(|name, _| names.contains(name));
        for name in names.iter() {
            let link = self.resolution.link_named(name).cloned();
            if self.reported_links.get(name) != Some(&link) {
                let event = link_event(name, link.clone());
                self.events.send(event).await.map_err(|_closed| Ended)?;
                self.reported_links.insert(Arc::clone(name), link);
            }
        }
        if self.resolution.report_due().is_some_and(|due| due <= clock::boot_time())
            && let Some(next_hops) = self.resolution.report()
        {
            self.events.send(HostEvent::NextHops(next_hops)).await.map_err(|_closed| Ended)?;
        }
        Ok(())
    }
}

/// A timer's tick is a millisecond; work that is due now must not wait for one.
async fn pause(time: Duration) {
    if !time.is_zero() {
        tokio::time::sleep(time).await;
    }
}

fn link_event(name: &Arc<str>, link: Option<Link>) -> HostEvent {
    match link {
        Some(link) if link.up => HostEvent::LinkUp(link),
        Some(link) => HostEvent::LinkDown(link.name),
        None => HostEvent::LinkGone(Arc::clone(name)),
    }
}

fn step_messages(key: &Key, step: Step) -> Vec<codec::Message> {
    let query = codec::neighbour_query(key);
    match step {
        Step::Query => vec![query],
        Step::Hold => vec![codec::neighbour_hold(key), query],
        Step::Probe => vec![codec::neighbour_probe(key), query],
        Step::Pin(mac) => vec![codec::neighbour_pin(key, mac), query],
        Step::Release => vec![codec::neighbour_release(key)],
    }
}

fn found_entry(answer: &Answer) -> Option<super::neighbours::Sighting> {
    let Answer::Object(RouteNetlinkMessage::NewNeighbour(message)) = answer else { return None };
    codec::sighting(message).map(|(_, sighting)| sighting)
}

/// One batch of route lookups that are due.
async fn lookups(
    requests: &mut Requests,
    resolution: &mut Resolution,
    counters: &Counters,
    now: Duration,
) -> Result<(), NetlinkError> {
    let lookups = resolution.take_lookups(now, MAX_BATCH);
    let questions = lookups.iter().map(|(address, lookup)| codec::route_query(*address, *lookup));
    let answers = requests.batch(questions.collect()).await?;
    count(&counters.lookups, answers.len());
    let now = clock::boot_time();
    for ((address, lookup), answer) in lookups.into_iter().zip(answers) {
        let hops = match answer {
            Answer::Object(object) => codec::hops(&object),
            Answer::Refused(errno) => Err(codec::refused_route(errno)),
            Answer::Done => Err(Unresolved::NoRoute),
        };
        resolution.looked_up(address, lookup, hops, now);
    }
    Ok(())
}

async fn dump_links(requests: &mut Requests) -> Result<Vec<Link>, NetlinkError> {
    let objects = requests.dump(codec::link_dump).await?;
    Ok(objects
        .iter()
        .filter_map(codec::notice)
        .filter_map(|notice| if let Notice::Link(link) = notice { Some(link) } else { None })
        .collect())
}

/// The neighbour entries with our mark.
async fn ours(requests: &mut Requests) -> Result<Vec<Key>, NetlinkError> {
    let objects = requests.dump(codec::neighbour_dump).await?;
    Ok(objects
        .iter()
        .filter_map(codec::notice)
        .filter_map(|notice| {
            let Notice::Neighbour(key, sighting) = notice else { return None };
            sighting.ours.then_some(key)
        })
        .collect())
}

/// All links of the calling thread's network namespace, by name.
///
/// # Errors
///
/// Any [`NetlinkError`] of the one dump.
pub async fn links() -> Result<BTreeMap<Arc<str>, Link>, NetlinkError> {
    let links = dump_links(&mut Requests::open()?).await?;
    Ok(links.into_iter().map(|link| (Arc::clone(&link.name), link)).collect())
}

/// Looks up the way to each destination once and changes nothing: what a configuration check
/// needs to compare path MTUs with the encapsulation.
///
/// # Errors
///
/// [`NetlinkError::TooManyDestinations`], or that the kernel could not be asked.
pub async fn path_mtus(
    destinations: &BTreeSet<IpAddr>,
) -> Result<BTreeMap<IpAddr, Result<Path, Unresolved>>, NetlinkError> {
    let mut requests = Requests::open()?;
    let mut resolution = Resolution::new(NeighbourMode::Managed);
    let now = clock::boot_time();
    resolution.all_links(dump_links(&mut requests).await?, now);
    resolution.set_destinations(destinations, now)?;
    let counters = Counters::default();
    for _ in 0..destinations.len().div_ceil(MAX_BATCH) {
        lookups(&mut requests, &mut resolution, &counters, now).await?;
    }
    Ok(resolution.paths())
}

/// The neighbour entries with our mark at some time.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Held(BTreeSet<Key>);

/// The neighbour entries with our mark in the calling thread's network namespace.
///
/// # Errors
///
/// Any [`NetlinkError`].
pub async fn held() -> Result<Held, NetlinkError> {
    Ok(Held(ours(&mut Requests::open()?).await?.into_iter().collect()))
}

/// Removes the neighbour entries with our mark from the calling thread's network namespace, but
/// not these, and returns how many there were: for unloading the data plane.
///
/// # Errors
///
/// Any [`NetlinkError`]; entries not yet removed stay.
pub async fn release_all_but(kept: &Held) -> Result<usize, NetlinkError> {
    let mut requests = Requests::open()?;
    let mut keys = ours(&mut requests).await?;
    keys.retain(|key| !kept.0.contains(key));
    for keys in keys.chunks(MAX_BATCH) {
        // An entry that has gone by itself in between is as good as removed.
        requests.batch(keys.iter().map(codec::neighbour_release).collect()).await?;
    }
    Ok(keys.len())
}

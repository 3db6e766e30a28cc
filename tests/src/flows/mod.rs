//! Traffic: real flows from the client to the VIPs, and a ledger of what became of each.
//!
//! A thread in the client's namespace keeps them going. A flow that ends is replaced by a new one,
//! so that their number stays; it counts from its first answered byte.

pub mod ledger;
pub mod paths;
mod tcp;
mod udp;

use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow};
use tokio::sync::oneshot;
use tokio::time::{Instant, MissedTickBehavior};

use crate::lab::addresses::{self, Family};
use crate::lab::{Lab, kernel, wait};
use ledger::{Kind, Ledger};

/// A flow without an answer for longer than this is broken.
pub const SILENCE: Duration = Duration::from_secs(5);
/// Each flow asks this often.
const PERIOD: Duration = Duration::from_millis(300);
/// How long all flows may take to be answered for the first time.
const OPEN_DEADLINE: Duration = Duration::from_secs(20);
/// Before a flow that failed is replaced, so that a dead VIP is not hammered.
const PAUSE: Duration = Duration::from_millis(500);

/// How many flows of which kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mix {
    /// Long-lived TCP connections.
    pub tcp: u32,
    /// New TCP connections a second, each over after a second.
    pub short_per_second: u32,
    /// Long-lived UDP flows.
    pub udp: u32,
}

impl Mix {
    /// The demo's.
    pub const DEMO: Self = Self { tcp: 600, short_per_second: 50, udp: 50 };
    /// Enough to hit every backend and both load balancers.
    pub const SMALL: Self = Self { tcp: 60, short_per_second: 10, udp: 20 };
}

/// Flows that are kept going until this is dropped.
#[derive(Debug)]
pub struct Flows {
    mix: Mix,
    shared: Arc<Shared>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

/// What all flows of a thread share.
#[derive(Debug)]
struct Shared {
    vips: Vec<IpAddr>,
    ledger: Mutex<Ledger>,
    sources: AtomicU32,
}

impl Shared {
    fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next VIP and source address; families and VIPs take turns.
    fn next_pair(&self) -> (IpAddr, SocketAddr) {
        let number = self.sources.fetch_add(1, Ordering::Relaxed);
        let index = usize::try_from(number).unwrap_or(0) % self.vips.len();
        let vip = self.vips[index];
        let family = if vip.is_ipv4() { Family::V4 } else { Family::V6 };
        (vip, SocketAddr::from((addresses::client(family, number), 0)))
    }
}

impl Flows {
    /// Starts flows to all VIPs of the lab, and returns when all have been answered.
    ///
    /// # Errors
    /// The client's namespace cannot be entered, or some flow is not answered in 20 s.
    pub fn start(lab: &Lab, mix: Mix) -> Result<Self> {
        let flows = Self::start_without_wait(lab, mix)?;
        let mut open = 0;
        let result = wait::until("every flow has been answered", OPEN_DEADLINE, || {
            open = flows.ledger().alive().filter(|(_, flow)| flow.kind != Kind::Short).count();
            Ok(open >= flows.long_lived())
        });
        result.with_context(|| {
            let failure = flows.ledger().unanswered_reason().unwrap_or_default().to_owned();
            format!("{open} of {} flows are open; {failure}", flows.long_lived())
        })?;
        Ok(flows)
    }

    /// Starts flows to all VIPs of the lab.
    ///
    /// # Errors
    /// The client's namespace cannot be entered.
    pub fn start_without_wait(lab: &Lab, mix: Mix) -> Result<Self> {
        let (stop, stopped) = oneshot::channel();
        let (ready, is_ready) = mpsc::channel();
        let shared = Arc::new(Shared {
            vips: lab.vips(),
            ledger: Mutex::new(Ledger::default()),
            sources: AtomicU32::new(0),
        });
        let (path, of_thread) = (lab.client.path(), Arc::clone(&shared));
        let thread = std::thread::spawn(move || {
            let runtime = kernel::enter_network_namespace(&path).and_then(|()| {
                Ok(tokio::runtime::Builder::new_current_thread().enable_all().build()?)
            });
            match runtime {
                Ok(runtime) => {
                    drop(ready.send(Ok(())));
                    runtime.block_on(generate(of_thread, mix, stopped));
                }
                Err(error) => drop(ready.send(Err(error))),
            }
        });
        is_ready.recv().map_err(|_gone| anyhow!("the traffic's thread has died"))??;
        Ok(Self { mix, shared, stop: Some(stop), thread: Some(thread) })
    }

    /// The ledger; flows wait while it is held.
    pub fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.shared.ledger()
    }

    /// How many flows should be open at any time, besides the short ones.
    #[must_use]
    pub fn long_lived(&self) -> usize {
        usize::try_from(self.mix.tcp + self.mix.udp).unwrap_or(usize::MAX)
    }

    /// Waits until every flow that is alive now has been answered once more, or has ended: what
    /// happened before this call has broken what it could break.
    ///
    /// # Errors
    /// A flow neither answers nor ends, which its own timeout makes impossible.
    pub fn settle(&self) -> Result<()> {
        let since = Instant::now();
        let deadline = 2 * SILENCE + PERIOD;
        wait::until("every flow has been answered or has ended", deadline, || {
            Ok(self.ledger().alive().all(|(_, flow)| flow.answered_at > since))
        })
    }
}

impl Drop for Flows {
    fn drop(&mut self) {
        self.stop.take();
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

async fn generate(shared: Arc<Shared>, mix: Mix, stopped: oneshot::Receiver<()>) {
    // Spread over a period, so that the flows do not all ask in the same millisecond.
    for number in 0..mix.tcp {
        let shared = Arc::clone(&shared);
        let offset = PERIOD * number / mix.tcp;
        tokio::spawn(async move {
            tokio::time::sleep(offset).await;
            loop {
                tcp::flow(&shared, Kind::Tcp, None).await;
                tokio::time::sleep(PAUSE).await;
            }
        });
    }
    for number in 0..mix.udp {
        let shared = Arc::clone(&shared);
        let offset = PERIOD * number / mix.udp;
        tokio::spawn(async move {
            tokio::time::sleep(offset).await;
            loop {
                udp::flow(&shared).await;
                tokio::time::sleep(PAUSE).await;
            }
        });
    }
    if mix.short_per_second > 0 {
        tokio::spawn(short_flows(shared, mix.short_per_second));
    }
    // Either way the end: told to stop, or the one who would tell is gone.
    drop(stopped.await);
}

async fn short_flows(shared: Arc<Shared>, per_second: u32) {
    /// Requests of a short flow: more than one, so that it can break.
    const REQUESTS: u32 = 4;
    let mut ticks = tokio::time::interval(Duration::from_secs(1) / per_second);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let shared = Arc::clone(&shared);
        tokio::spawn(async move { tcp::flow(&shared, Kind::Short, Some(REQUESTS)).await });
    }
}

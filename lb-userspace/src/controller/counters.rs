//! The data plane's counters: rates over the last seconds, and samples of dropped packets.

use std::collections::VecDeque;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use lb_common::verdict::{Action, Counter, DropSample, Outcome, VipCounters};

use super::Moment;
use crate::api::types::{DaemonStats, DroppedPacket};
use crate::dataplane::Dataplane;
use crate::host::clock;
use crate::state::Numbers;

/// Rates are taken over this time: long enough that reading 30,000 backends costs nothing.
const RATE_INTERVAL: Duration = Duration::from_secs(5);
/// Samples kept for whoever asks.
const SAMPLES_MAX: usize = 256;
/// Samples read at once; the ring keeps the rest.
const SAMPLES_PER_READ: usize = 1024;

/// Packets and bits a second.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Rate {
    pub(super) packets: f64,
    pub(super) bits: f64,
}

/// The counters at two times, and what lies between.
#[derive(Debug, Default)]
pub(super) struct Rates {
    at: Option<Duration>,
    vips: Vec<Counter>,
    backends: Vec<Counter>,
    vip_rates: Vec<Rate>,
    backend_rates: Vec<Rate>,
}

impl Rates {
    /// Takes a sample if it is time.
    pub(super) fn sample(&mut self, dataplane: &Dataplane, now: Moment) {
        let age = self.at.map(|at| now.boot.saturating_sub(at));
        if age.is_some_and(|age| age < RATE_INTERVAL) {
            return;
        }
        // What cannot be read now keeps its last rate.
        let (Ok(vips), Ok(backends)) = (dataplane.vip_counters(), dataplane.backend_counters())
        else {
            return;
        };
        let vips: Vec<Counter> = vips.iter().map(sent).collect();
        if let Some(age) = age {
            self.vip_rates = rates(&self.vips, &vips, age);
            self.backend_rates = rates(&self.backends, &backends, age);
        }
        *self = Self { at: Some(now.boot), vips, backends, ..std::mem::take(self) };
    }

    pub(super) fn vip(&self, number: u16) -> Rate {
        self.vip_rates.get(usize::from(number)).copied().unwrap_or_default()
    }

    pub(super) fn backend(&self, id: u16) -> Rate {
        self.backend_rates.get(usize::from(id)).copied().unwrap_or_default()
    }
}

#[expect(clippy::cast_precision_loss, reason = "a rate needs no more than 53 bits")]
fn rates(before: &[Counter], after: &[Counter], age: Duration) -> Vec<Rate> {
    let seconds = age.as_secs_f64();
    let rate = |(before, after): (&Counter, &Counter)| Rate {
        packets: after.packets.saturating_sub(before.packets) as f64 / seconds,
        bits: after.bytes.saturating_sub(before.bytes) as f64 * 8.0 / seconds,
    };
    before.iter().zip(after).map(rate).collect()
}

/// What was sent on to backends.
pub(super) fn sent(counters: &VipCounters) -> Counter {
    total(counters, |outcome| matches!(outcome, Outcome::Tx | Outcome::Redirect))
}

/// What was dropped.
pub(super) fn dropped(counters: &VipCounters) -> Counter {
    total(counters, |outcome| outcome.action() == Action::Drop)
}

fn total(counters: &VipCounters, counts: impl Fn(Outcome) -> bool) -> Counter {
    let mut sum = Counter::default();
    for (outcome, one) in Outcome::ALL.iter().zip(&counters.outcomes) {
        if counts(*outcome) {
            sum.packets += one.packets;
            sum.bytes += one.bytes;
        }
    }
    sum
}

/// The newest samples of dropped packets.
#[derive(Debug, Default)]
pub(super) struct Samples {
    kept: VecDeque<DroppedPacket>,
    last: u64,
}

impl Samples {
    pub(super) fn read(
        &mut self,
        dataplane: &mut Dataplane,
        numbers: &Numbers,
        now: Moment,
        stats: &mut DaemonStats,
    ) {
        for _ in 0..SAMPLES_PER_READ {
            let Some(sample) = dataplane.next_drop() else { return };
            self.last += 1;
            if self.kept.len() == SAMPLES_MAX {
                self.kept.pop_front();
                stats.samples_lost += 1;
            }
            self.kept.push_back(packet(&sample, self.last, numbers, now));
        }
    }

    pub(super) fn after(&self, number: u64) -> Vec<DroppedPacket> {
        self.kept.iter().filter(|sample| sample.number > number).cloned().collect()
    }

    pub(super) const fn last(&self) -> u64 {
        self.last
    }
}

fn packet(sample: &DropSample, number: u64, numbers: &Numbers, now: Moment) -> DroppedPacket {
    let outcome = usize::try_from(sample.outcome).ok().and_then(|it| Outcome::ALL.get(it));
    let vip = numbers.vips.iter().find(|(_, number)| u32::from(**number) == sample.vip);
    DroppedPacket {
        number,
        time: clock::rfc3339(now.wall),
        reason: outcome.map_or("unknown", |outcome| outcome.name()).to_owned(),
        vip: vip.map(|(key, _)| key.to_string()),
        source: place(sample.source, sample.source_port),
        destination: place(sample.destination, sample.destination_port),
        protocol: sample.protocol,
        length: sample.length,
    }
}

/// An address, and its port if that was read.
fn place(address: [u8; 16], port: [u8; 2]) -> String {
    let address = Ipv6Addr::from(address);
    let address = address.to_ipv4_mapped().map_or(IpAddr::V6(address), IpAddr::V4);
    match u16::from_be_bytes(port) {
        0 => address.to_string(),
        port => SocketAddr::new(address, port).to_string(),
    }
}

//! The answers about the state: status, VIPs, counters, drops, and the metrics' snapshot.

use std::collections::BTreeMap;

use lb_common::verdict::{Action, Counter, FlowCounters, FlowEvent, Outcome, VipCounters};

use super::counters::{dropped, sent};
use super::{Controller, LinkState, Moment};
use crate::api::requests::RoutesQuestion;
use crate::api::types::{
    Attachment, BackendStatus, Count, DropReason, Drops, Health, PoolStatus, Snapshot, Stats,
    Status, VipStatus, Vips,
};
use crate::api::{API_VERSION, Failure};
use crate::dataplane::Error;
use crate::desired::{BackendState, Pool};
use crate::health::BackendKey;
use crate::plan;
use crate::tracking::PoolTracker;

/// Reasons listed in a status; more are counted.
const REASONS_MAX: usize = 20;

/// The data plane's counters, read once for one answer.
struct Counters {
    vips: Vec<VipCounters>,
    backends: Vec<Counter>,
    flows: FlowCounters,
}

fn unreadable(error: &Error) -> Failure {
    Failure::internal(error.to_string())
}

impl Controller {
    fn counters(&self) -> Result<Counters, Failure> {
        let vips = self.dataplane.vip_counters().map_err(|error| unreadable(&error))?;
        let backends = self.dataplane.backend_counters().map_err(|error| unreadable(&error))?;
        let flows = self.dataplane.flow_counters().map_err(|error| unreadable(&error))?;
        Ok(Counters { vips, backends, flows })
    }

    pub(super) fn status(&mut self, now: Moment) -> Result<Status, Failure> {
        let counters = self.counters()?;
        Ok(self.status_by(&counters, now))
    }

    fn status_by(&mut self, counters: &Counters, now: Moment) -> Status {
        let flows = self.flow_status(now);
        let pools: Vec<PoolStatus> =
            self.desired.pools.values().map(|pool| self.pool_status(pool, counters, now)).collect();
        let mut attachments = self.attachments();
        let (health, reasons) = self.health(&pools, &attachments);
        let none = || Attachment {
            interface: String::new(),
            mode: "none".to_owned(),
            state: "gone".to_owned(),
        };
        let xdp = if attachments.is_empty() { none() } else { attachments.remove(0) };
        Status {
            version: API_VERSION,
            health,
            reasons,
            node: self.desired.node.name.clone(),
            generation: self.generation,
            applied: self.applied.clone(),
            uptime_ms: millis(now.boot.saturating_sub(self.started)),
            xdp,
            xdp_more: attachments,
            vips: self.vip_statuses(&pools, counters),
            pools,
            flows,
        }
    }

    pub(super) fn vips(&mut self, now: Moment) -> Result<Vips, Failure> {
        let Status { vips, pools, .. } = self.status(now)?;
        Ok(Vips { version: API_VERSION, vips, pools })
    }

    fn attachments(&self) -> Vec<Attachment> {
        let ports = self.ports.iter().map(|port| {
            let interface = port.attached.interface.clone();
            let state = match self.links.get(&interface) {
                Some(LinkState::Up(_)) | None => "up",
                Some(LinkState::Down) => "down",
                Some(LinkState::Gone) => "gone",
            };
            let mode = if port.attached.native { "native" } else { "generic" };
            Attachment { interface, mode: mode.to_owned(), state: state.to_owned() }
        });
        ports.collect()
    }

    /// The whole in one word, and what keeps it from being ok.
    fn health(&self, pools: &[PoolStatus], attachments: &[Attachment]) -> (Health, Vec<String>) {
        let mut reasons = Vec::new();
        for it in attachments.iter().filter(|it| it.state != "up") {
            reasons.push(format!("interface {} is {}", it.interface, it.state));
        }
        let is_cut_off = attachments.iter().all(|it| it.state != "up");
        if attachments.is_empty() {
            reasons.push("the program is attached to no interface".to_owned());
        }
        for pool in pools.iter().filter(|pool| pool.health != Health::Ok) {
            reasons.push(self.pool_reason(pool));
        }
        reasons.extend(self.bgp_alarms());
        reasons.extend(self.outlet.failing.clone());
        reasons.extend(self.outlet.journal_failing.clone());
        let more = reasons.len().saturating_sub(REASONS_MAX);
        let is_ok = reasons.is_empty();
        reasons.truncate(REASONS_MAX);
        if more > 0 {
            reasons.push(format!("and {more} more"));
        }
        let health = match (is_cut_off, is_ok) {
            (true, _) => Health::Down,
            (false, true) => Health::Ok,
            (false, false) => Health::Degraded,
        };
        (health, reasons)
    }

    fn pool_reason(&self, pool: &PoolStatus) -> String {
        let name = &pool.name;
        let Some(desired) = self.desired.pools.get(name) else { return String::new() };
        if pool.state == "starting" {
            return format!("pool {name} waits for the first health checks");
        }
        if pool.all_down {
            return format!("pool {name}: all backends are down, so all are used");
        }
        if is_unshared(pool) {
            return format!("pool {name}: no backend takes new flows");
        }
        if pool.up < desired.min_up {
            return format!("pool {name}: {} up, fewer than min_up {}", pool.up, desired.min_up);
        }
        let troubled = pool.backends.iter().find(|backend| backend.note.is_some());
        let note = troubled.and_then(|it| Some((&it.name, it.note.as_ref()?)));
        let (backend, note) = note.map_or(("", ""), |(name, note)| (name, note));
        format!("pool {name}: backend {backend}: {note}")
    }

    fn pool_status(&self, pool: &Pool, counters: &Counters, now: Moment) -> PoolStatus {
        let state = self.pools.get(&pool.name);
        let tracker = state.and_then(|state| state.tracker.as_ref());
        let ids = self.numbers.of_pool(&pool.name);
        let backends: Vec<BackendStatus> = pool
            .backends
            .keys()
            .map(|name| {
                let id = ids.get(name.as_str()).copied().unwrap_or_default();
                self.backend_status(pool, name, id, counters)
            })
            .collect();
        let up = backends.iter().filter(|backend| backend.state == "up").count();
        let up = u32::try_from(up).unwrap_or(u32::MAX);
        let all_down = state.is_some_and(|state| state.view.all_down);
        let is_unknown = pool.backends.keys().any(|name| self.is_unproven(pool, name, ids));
        let is_lost = backends.iter().any(|it| it.state != "down" && self.is_unreachable(it));
        let is_ok = tracker.is_some() && !all_down && up >= pool.min_up && !is_unknown && !is_lost;
        let mut status = PoolStatus {
            name: pool.name.clone(),
            generation: tracker.map_or(0, PoolTracker::generation),
            state: tracker.map_or("starting", |it| it.phase(now.boot).name()).to_owned(),
            health: if is_ok { Health::Ok } else { Health::Degraded },
            slots: pool.maglev_size,
            contested_slots: state.map_or(0, |state| state.view.contested),
            up,
            all_down,
            backends,
        };
        if is_unshared(&status) {
            status.health = Health::Degraded;
        }
        status
    }

    /// A backend that takes part and of which the probes have said nothing yet.
    fn is_unproven(&self, pool: &Pool, name: &str, ids: &BTreeMap<String, u16>) -> bool {
        let record = ids.get(name).and_then(|id| self.numbers.backends.get(id));
        record.is_some_and(|record| record.member) && self.verdict(pool, name).is_none()
    }

    fn is_unreachable(&self, backend: &BackendStatus) -> bool {
        let address = backend.address.parse();
        address.is_ok_and(|address| self.resolved && !self.hops.contains_key(&address))
    }

    fn backend_status(
        &self,
        pool: &Pool,
        name: &str,
        id: u16,
        counters: &Counters,
    ) -> BackendStatus {
        let full = plan::full_name(&pool.name, name);
        let by_operator = self.overrides.get(&full);
        let backend = pool.backends.get(name);
        let (wanted, weight) =
            backend.map_or((BackendState::Up, 0), |backend| plan::effective(backend, by_operator));
        let up = self.verdict(pool, name) == Some(true);
        let state = match (up, wanted) {
            (false, _) => "down",
            (true, BackendState::Drain) => "drain",
            (true, BackendState::Up) => "up",
        };
        let owned = self.pools.get(&pool.name).and_then(|state| state.view.owned.get(&id).copied());
        let slots = owned.unwrap_or(0);
        let Counter { packets, bytes } =
            counters.backends.get(usize::from(id)).copied().unwrap_or_default();
        let rate = self.rates.backend(id);
        BackendStatus {
            name: name.to_owned(),
            address: backend.map(|backend| backend.address.to_string()).unwrap_or_default(),
            state: state.to_owned(),
            weight,
            slots,
            share: f64::from(slots) / f64::from(pool.maglev_size.max(1)),
            flows: self.census.flows_of(id),
            packets,
            bytes,
            packets_per_second: rate.packets,
            bits_per_second: rate.bits,
            note: self.backend_note(pool, name, id),
            r#override: by_operator.map(|by_operator| by_operator.words()),
        }
    }

    /// Why a backend is not what one would expect.
    fn backend_note(&self, pool: &Pool, name: &str, id: u16) -> Option<String> {
        let key = BackendKey::new(&pool.name, name);
        let is_member = self.numbers.backends.get(&id).is_some_and(|record| record.member);
        let error = self.health.backends.get(&key).and_then(|it| it.last_error.as_ref());
        let uncounted = self.health.backends.get(&key).and_then(|it| it.uncounted.as_ref());
        let why = match (uncounted, error) {
            (Some((_, why)), _) | (None, Some((why, _))) => why.as_str(),
            (None, None) => "no probe has passed yet",
        };
        match self.verdict(pool, name) {
            Some(false) if !is_member => return Some(format!("not in the table yet: {why}")),
            Some(false) => return Some(why.to_owned()),
            None if is_member => return Some(format!("not proven yet: {why}")),
            None => return Some("joins the table once it is up".to_owned()),
            Some(true) => {}
        }
        let address = pool.backends.get(name)?.address;
        if let Some(why) = self.unresolved.get(&address) {
            let old = self.hops.contains_key(&address);
            let old = if old { "; the last known way is used" } else { "" };
            return Some(format!("no next hop: {why}{old}"));
        }
        if self.resolved && !self.hops.contains_key(&address) {
            return Some("its next hop is still looked up".to_owned());
        }
        uncounted.map(|(count, why)| format!("{count} probes could not be made: {why}"))
    }

    fn vip_statuses(&self, pools: &[PoolStatus], counters: &Counters) -> Vec<VipStatus> {
        let vips = self.desired.vips.values();
        vips.map(|vip| {
            let number = self.numbers.vips.get(&vip.key).copied().unwrap_or_default();
            let count = counters.vips.get(usize::from(number)).copied().unwrap_or_default();
            let rate = self.rates.vip(number);
            let pool = pools.iter().find(|pool| pool.name == vip.pool);
            let state = match (self.is_served(&vip.key), pool.map(|pool| pool.health)) {
                (false, _) => "starting",
                (true, Some(Health::Ok)) => "up",
                (true, _) => "degraded",
            };
            VipStatus {
                name: vip.name.clone(),
                vip: vip.key.to_string(),
                pool: vip.pool.clone(),
                state: state.to_owned(),
                packets: sent(&count).packets,
                bytes: sent(&count).bytes,
                drops: dropped(&count).packets,
                packets_per_second: rate.packets,
                bits_per_second: rate.bits,
            }
        })
        .collect()
    }

    pub(super) fn statistics(&mut self, now: Moment) -> Result<Stats, Failure> {
        let counters = self.counters()?;
        Ok(self.statistics_by(&counters, now))
    }

    fn statistics_by(&mut self, counters: &Counters, now: Moment) -> Stats {
        let flows = self.flow_status(now);
        let mut outcomes = BTreeMap::new();
        for counters in &counters.vips {
            add(&mut outcomes, counters);
        }
        let mut vips = BTreeMap::new();
        let none = std::iter::once(("none".to_owned(), 0));
        let named = self.numbers.vips.iter().map(|(key, number)| (key.to_string(), *number));
        for (name, number) in none.chain(named) {
            let mut of_vip = BTreeMap::new();
            add(&mut of_vip, &counters.vips.get(usize::from(number)).copied().unwrap_or_default());
            of_vip.retain(|_, count| *count != Count::default());
            vips.insert(name, of_vip);
        }
        let mut daemon = self.stats;
        daemon.probes = self.health.probes;
        daemon.probes_late = self.health.late;
        let transmit_errors = self.transmit_errors.clone();
        let events = FlowEvent::ALL.iter().zip(counters.flows.events);
        let flow_events = events.map(|(event, count)| (event.name().to_owned(), count)).collect();
        Stats { version: API_VERSION, outcomes, vips, flows, flow_events, transmit_errors, daemon }
    }

    pub(super) fn drops(&self, after: u64) -> Result<Drops, Failure> {
        let counters = self.counters()?;
        let reasons = Outcome::ALL.iter().filter(|outcome| outcome.action() == Action::Drop);
        let reasons = reasons.map(|outcome| {
            let index = *outcome as usize;
            let of_vip = counters.vips.iter().filter_map(|vip| vip.outcomes.get(index));
            DropReason {
                reason: outcome.name().to_owned(),
                packets: of_vip.map(|count| count.packets).sum(),
                help: outcome.help().to_owned(),
            }
        });
        Ok(Drops {
            version: API_VERSION,
            reasons: reasons.collect(),
            samples: self.samples.after(after),
            last: self.samples.last(),
        })
    }

    pub(super) fn snapshot(&mut self, now: Moment) -> Result<Snapshot, Failure> {
        // Read once, so that the sums of one answer agree.
        let counters = self.counters()?;
        let status = self.status_by(&counters, now);
        let stats = self.statistics_by(&counters, now);
        let probes = self.health.backends.iter();
        let probe_seconds = probes.filter_map(|(key, health)| {
            Some((key.pool.clone(), key.backend.clone(), health.took?.as_secs_f64()))
        });
        let bgp = self.peers_answer(now);
        let bgp_routes = self.routes_answer(&RoutesQuestion::default(), now);
        let probe_seconds = probe_seconds.collect();
        Ok(Snapshot { status, stats, probe_seconds, bgp, bgp_routes })
    }
}

/// Whether nobody owns a slot, so that every packet is dropped: all drain or weigh nothing, or
/// there is none.
fn is_unshared(pool: &PoolStatus) -> bool {
    pool.state != "starting" && pool.backends.iter().all(|backend| backend.slots == 0)
}

fn add(sums: &mut BTreeMap<String, Count>, counters: &VipCounters) {
    for (outcome, one) in Outcome::ALL.iter().zip(&counters.outcomes) {
        let sum = sums.entry(outcome.name().to_owned()).or_default();
        sum.packets += one.packets;
        sum.bytes += one.bytes;
    }
}

fn millis(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

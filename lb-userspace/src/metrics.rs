//! The metrics: a [`Snapshot`] of one moment as OpenMetrics text. The only place that names a
//! series. Counters are read when somebody asks, so nothing is counted twice or kept here.
//!
//! Must not: reach the data plane, or put a client's address into a label.

use std::collections::BTreeMap;
use std::fmt;

use lb_common::verdict::{Action, FlowEvent, Outcome};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric as _};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;

use crate::api::types::{BackendStatus, Health, PoolStatus, Snapshot};

mod bgp;

/// The text of a scrape.
#[must_use]
pub fn encode(snapshot: &Snapshot) -> String {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Scrape(snapshot.clone())));
    let mut text = String::new();
    match prometheus_client::encoding::text::encode(&mut text, &registry) {
        Ok(()) => text,
        // A string takes everything that is written to it.
        Err(fmt::Error) => String::new(),
    }
}

#[derive(Debug)]
struct Scrape(Snapshot);

/// Values with their labels.
type Series<L, V> = Vec<(L, V)>;

impl Collector for Scrape {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let out = &mut encoder;
        self.packets(out)?;
        self.flows(out)?;
        self.pools(out)?;
        self.backends(out)?;
        self.daemon(out)?;
        match (&self.0.bgp, &self.0.bgp_routes) {
            (Some(peers), Some(routes)) => bgp::encode(peers, routes, out),
            _ => Ok(()),
        }
    }
}

fn counters<L: EncodeLabelSet>(
    out: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    series: Series<L, u64>,
) -> fmt::Result {
    let mut family = out.encode_descriptor(name, help, None, MetricType::Counter)?;
    for (labels, value) in series {
        ConstCounter::new(value).encode(family.encode_family(&labels)?)?;
    }
    Ok(())
}

fn gauges<L: EncodeLabelSet>(
    out: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    series: Series<L, f64>,
) -> fmt::Result {
    let mut family = out.encode_descriptor(name, help, None, MetricType::Gauge)?;
    for (labels, value) in series {
        ConstGauge::new(value).encode(family.encode_family(&labels)?)?;
    }
    Ok(())
}

fn counter(out: &mut DescriptorEncoder<'_>, name: &str, help: &str, value: u64) -> fmt::Result {
    ConstCounter::new(value).encode(out.encode_descriptor(name, help, None, MetricType::Counter)?)
}

fn gauge(out: &mut DescriptorEncoder<'_>, name: &str, help: &str, value: f64) -> fmt::Result {
    ConstGauge::new(value).encode(out.encode_descriptor(name, help, None, MetricType::Gauge)?)
}

/// A count as a gauge; beyond 2^53 it would be rounded, which no count here reaches.
#[expect(clippy::cast_precision_loss, reason = "rounding is what a gauge of this size means")]
const fn level(value: u64) -> f64 {
    value as f64
}

fn flag(value: bool) -> f64 {
    f64::from(u8::from(value))
}

impl Scrape {
    fn packets(&self, out: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let vips = &self.0.stats.vips;
        let mut packets = Vec::new();
        let mut bytes = Vec::new();
        for (vip, outcomes) in vips {
            let total: u64 = outcomes.values().map(|count| count.bytes).sum();
            bytes.push(([("vip", vip.as_str())], total));
            for (outcome, count) in outcomes {
                let labels = [("vip", vip.as_str()), ("verdict", outcome.as_str())];
                packets.push((labels, count.packets));
            }
        }
        counters(out, "lb_packets", "Packets by VIP and what became of them", packets)?;
        counters(out, "lb_bytes", "Bytes of packets by VIP, as they arrived", bytes)?;
        let drops = Outcome::ALL.iter().filter(|outcome| outcome.action() == Action::Drop);
        let drops = drops.map(|outcome| {
            let count = self.0.stats.outcomes.get(outcome.name()).copied().unwrap_or_default();
            ([("reason", outcome.name())], count.packets)
        });
        counters(out, "lb_drops", "Packets dropped, by reason", drops.collect())?;
        let unsent = self.0.stats.transmit_errors.iter();
        let unsent = unsent.map(|(name, count)| ([("interface", name.as_str())], *count));
        let help = "Packets that were tx or redirect and that the driver did not send";
        counters(out, "lb_driver_transmit_errors", help, unsent.collect())
    }

    fn flows(&self, out: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let flows = &self.0.stats.flows;
        let states = [
            ("unconfirmed", flows.unconfirmed),
            ("confirmed", flows.confirmed),
            ("closing", flows.closing),
        ];
        let states = states.map(|(state, value)| ([("state", state)], level(value)));
        gauges(out, "lb_flows", "Entries of the flow table", states.into())?;
        let capacity = level(flows.capacity);
        gauge(out, "lb_flow_capacity", "Flows the flow table has room for", capacity)?;
        let event = |event: FlowEvent| {
            self.0.stats.flow_events.get(event.name()).copied().unwrap_or_default()
        };
        let answers = [FlowEvent::Hit, FlowEvent::New, FlowEvent::Base, FlowEvent::Miss];
        let answers = answers.map(|answer| ([("result", answer.name())], event(answer)));
        let help = "Packets that asked the flow table, by its answer";
        counters(out, "lb_flow_lookups", help, answers.into())?;
        let help = "Unconfirmed flows that lost their entry to a new one";
        counter(out, "lb_flow_evictions", help, event(FlowEvent::Evicted))?;
        let help = "Flows that found no place in the flow table";
        counter(out, "lb_flow_refusals", help, event(FlowEvent::Refused))
    }

    fn pools(&self, out: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let each = |value: fn(&PoolStatus) -> f64| -> Series<_, f64> {
            let pools = self.0.status.pools.iter();
            pools.map(|pool| ([("pool", pool.name.as_str())], value(pool))).collect()
        };
        let contested = each(|pool| f64::from(pool.contested_slots));
        gauges(out, "lb_pool_contested_slots", "Slots that ask the flow table", contested)?;
        let generation = each(|pool| f64::from(pool.generation));
        gauges(out, "lb_pool_generation", "Planned changes of the pool so far", generation)?;
        let degraded = each(|pool| flag(pool.health != Health::Ok));
        gauges(out, "lb_pool_degraded", "1 while somebody should look at the pool", degraded)?;
        let all_down = each(|pool| flag(pool.all_down));
        gauges(out, "lb_pool_all_down", "1 while all backends are down and all are used", all_down)
    }

    fn each_backend<V>(
        &self,
        value: impl Fn(&BackendStatus) -> V,
    ) -> Series<[(&'static str, &str); 2], V> {
        let pools = self.0.status.pools.iter();
        let backends = pools.flat_map(|pool| pool.backends.iter().map(move |it| (pool, it)));
        backends
            .map(|(pool, it)| {
                ([("pool", pool.name.as_str()), ("backend", it.name.as_str())], value(it))
            })
            .collect()
    }

    fn backends(&self, out: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let up = self.each_backend(|backend| flag(backend.state == "up"));
        gauges(out, "lb_backend_up", "1 while the backend takes new flows", up)?;
        let packets = self.each_backend(|backend| backend.packets);
        counters(out, "lb_backend_packets", "Packets sent to the backend", packets)?;
        let bytes = self.each_backend(|backend| backend.bytes);
        counters(out, "lb_backend_bytes", "Bytes sent to the backend, as they arrived", bytes)?;
        let slots = self.each_backend(|backend| f64::from(backend.slots));
        gauges(out, "lb_maglev_slots", "Slots the backend owns in its pool's table", slots)?;
        let probes = self.0.probe_seconds.iter().map(|(pool, backend, seconds)| {
            ([("pool", pool.as_str()), ("backend", backend.as_str())], *seconds)
        });
        gauges(out, "lb_health_probe_seconds", "How long the last probe took", probes.collect())
    }

    fn daemon(&self, out: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let daemon = &self.0.stats.daemon;
        let totals: BTreeMap<&str, (&str, u64)> = BTreeMap::from([
            ("lb_maglev_moved_slots", ("Slots that got another owner", daemon.slots_moved)),
            ("lb_maglev_forced_slots", ("Slots that lost an owner too early", daemon.slots_forced)),
            ("lb_tables_published", ("Lookup tables put in force", daemon.tables_published)),
            ("lb_flow_scans", ("Walks over the flow table", daemon.flow_scans)),
            ("lb_flows_aged", ("Entries removed because their time was over", daemon.flows_aged)),
            ("lb_health_probes", ("Health probes made", daemon.probes)),
            ("lb_health_probes_late", ("Probes begun an interval late", daemon.probes_late)),
            ("lb_dataplane_failures", ("Changes the data plane refused", daemon.failures)),
            (
                "lb_drop_samples_lost",
                ("Drop samples nobody asked for in time", daemon.samples_lost),
            ),
        ]);
        for (name, (help, value)) in totals {
            counter(out, name, help, value)?;
        }
        let status = &self.0.status;
        let generation = level(status.generation);
        gauge(out, "lb_config_generation", "Configurations taken so far", generation)?;
        let states = [Health::Ok, Health::Degraded, Health::Down];
        let states = states.map(|it| ([("state", it.word())], flag(it == status.health)));
        gauges(out, "lb_health", "1 for the state the load balancer is in", states.into())?;
        let attachments = std::iter::once(&status.xdp).chain(&status.xdp_more);
        let attachments = attachments.map(|it| {
            (
                [("interface", it.interface.as_str()), ("mode", it.mode.as_str())],
                flag(it.state == "up"),
            )
        });
        gauges(
            out,
            "lb_xdp_up",
            "1 while the interface has the program and a carrier",
            attachments.collect(),
        )?;
        let build = vec![([("version", env!("CARGO_PKG_VERSION"))], 1.0)];
        gauges(out, "lb_build_info", "The version of lbd", build)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::sample;

    #[test]
    fn a_scrape_has_every_series() {
        let text = encode(&sample::snapshot());
        for line in [
            "# TYPE lb_packets counter",
            r#"lb_packets_total{vip="203.0.113.10:443/tcp",verdict="tx"} 3000000"#,
            r#"lb_bytes_total{vip="203.0.113.10:443/tcp"} 400000720"#,
            r#"lb_drops_total{reason="no_port"} 12"#,
            r#"lb_drops_total{reason="too_big"} 0"#,
            r#"lb_driver_transmit_errors_total{interface="eth0"} 2"#,
            r#"lb_flows{state="confirmed"} 54300.0"#,
            "lb_flow_capacity 1048576.0",
            r#"lb_flow_lookups_total{result="hit"} 7"#,
            "lb_flow_evictions_total 7",
            r#"lb_pool_contested_slots{pool="web"} 16384.0"#,
            r#"lb_pool_all_down{pool="web"} 0.0"#,
            r#"lb_backend_up{pool="web",backend="web1"} 1.0"#,
            r#"lb_backend_up{pool="web",backend="web3"} 0.0"#,
            r#"lb_backend_packets_total{pool="web",backend="web1"} 1234567"#,
            r#"lb_maglev_slots{pool="web",backend="web4"} 21846.0"#,
            "lb_maglev_moved_slots_total 16384",
            r#"lb_health_probe_seconds{pool="web",backend="web1"} 0.0015"#,
            "lb_config_generation 7.0",
            r#"lb_health{state="degraded"} 1.0"#,
            r#"lb_xdp_up{interface="eth0",mode="native"} 1.0"#,
            r#"lb_bgp_peer_up{peer="edge1"} 1.0"#,
            r#"lb_bgp_peer_up{peer="edge2"} 0.0"#,
            r#"lb_bgp_session_flaps_total{peer="edge1",cause="hold_timer"} 1"#,
            r#"lb_bgp_session_flaps_total{peer="edge1",cause="bfd"} 0"#,
            r#"lb_bgp_updates_total{peer="edge1",direction="out"} 5"#,
            r#"lb_bgp_routes{peer="edge1",kind="sent"} 1.0"#,
            r#"lb_bgp_route_announced{peer="edge1",prefix="203.0.113.0/24"} 1.0"#,
            r#"lb_bgp_decision_seconds_bucket{le="0.05",peer="edge1"} 0"#,
            r#"lb_bgp_bfd_up{peer="edge1"} 1.0"#,
            "lb_bgp_alarms 1.0",
            "lb_bgp_connections_refused_total 3",
            "# EOF",
        ] {
            assert!(text.lines().any(|it| it == line), "{line} is not in:\n{text}");
        }
        assert!(text.contains("lb_build_info{version="));
    }

    #[test]
    fn no_client_is_named() {
        assert!(!encode(&sample::snapshot()).contains("198.51.100"));
    }
}

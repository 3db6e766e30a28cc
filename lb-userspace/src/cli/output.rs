//! The tables of lbctl: the answers of the API for people. Columns are stable; new ones come last.

use super::table::{Columns, age, short};
use crate::api::types::{
    BackendStatus, Count, DroppedPacket, Drops, FlowStatus, Health, Outcome, PoolStatus, Stats,
    Status, Trace, TracedFlow, VipStatus, Vips,
};
use crate::plan::grouped;

/// The head of the samples that `drops --watch` prints.
pub const SAMPLES_HEAD: &str = "TIME                      REASON          VIP  FLOW\n";

/// What can be printed as a table.
pub trait Table {
    /// The text; `wide` has more columns.
    fn table(&self, wide: bool) -> String;
}

impl Table for Status {
    fn table(&self, wide: bool) -> String {
        let mut text = format!(
            "{}  {}  up {}  config {} (applied {})\n",
            self.node,
            self.health.word(),
            age(self.uptime_ms),
            self.generation,
            self.applied
        );
        for attachment in std::iter::once(&self.xdp).chain(&self.xdp_more) {
            let interface = &attachment.interface;
            text.push_str(&format!("xdp {interface} {} {}\n", attachment.mode, attachment.state));
        }
        text.push_str(&flow_line(&self.flows));
        for reason in &self.reasons {
            text.push_str(&format!("! {reason}\n"));
        }
        text.push('\n');
        text.push_str(&pools(&self.pools, wide));
        text
    }
}

fn flow_line(flows: &FlowStatus) -> String {
    let used = flows.unconfirmed + flows.confirmed + flows.closing;
    format!(
        "flow table {} / {} ({} confirmed, {} unconfirmed, {} closing)\n",
        grouped(used),
        grouped(flows.capacity),
        grouped(flows.confirmed),
        grouped(flows.unconfirmed),
        grouped(flows.closing)
    )
}

fn pools(pools: &[PoolStatus], wide: bool) -> String {
    let mut head =
        vec!["POOL", "STATE", ">UP", ">GEN", ">CONTESTED", ">SHARE", ">FLOWS", ">PACKETS"];
    if wide {
        head.extend([">SLOTS", ">BYTES", "ADDRESS"]);
    }
    head.push("NOTE");
    let mut columns = Columns::new(&head);
    for pool in pools {
        let contested = format!("{}/{}", pool.contested_slots, pool.slots);
        let note = if pool.all_down { "all backends are down: all are used" } else { "" };
        let mut cells = vec![pool.name.clone(), pool_state(pool), up_of(pool)];
        cells.extend([pool.generation.to_string(), contested]);
        cells.extend(std::iter::repeat_n(String::new(), if wide { 6 } else { 3 }));
        cells.push(note.to_owned());
        columns.add(cells);
        for backend in &pool.backends {
            columns.add(backend_row(backend, wide));
        }
    }
    columns.render()
}

fn backend_row(backend: &BackendStatus, wide: bool) -> Vec<String> {
    let mut cells = vec![format!("  {}", backend.name), backend.state.clone()];
    cells.extend([backend.weight.to_string(), String::new(), String::new()]);
    cells.extend([share(backend), backend.flows.to_string(), backend.packets.to_string()]);
    if wide {
        let (slots, bytes) = (backend.slots.to_string(), backend.bytes.to_string());
        cells.extend([slots, bytes, backend.address.clone()]);
    }
    cells.push(notes(backend));
    cells
}

fn notes(backend: &BackendStatus) -> String {
    let by_operator = backend.r#override.as_ref().map(|what| format!("{what} (override)"));
    let parts = [by_operator, backend.note.clone()];
    parts.into_iter().flatten().collect::<Vec<String>>().join("; ")
}

fn share(backend: &BackendStatus) -> String {
    format!("{:.1}%", backend.share * 100.0)
}

fn up_of(pool: &PoolStatus) -> String {
    format!("{}/{}", pool.up, pool.backends.len())
}

fn pool_state(pool: &PoolStatus) -> String {
    match pool.health {
        Health::Ok => pool.state.clone(),
        Health::Degraded | Health::Down => format!("{} ({})", pool.state, pool.health.word()),
    }
}

impl Table for Vips {
    fn table(&self, wide: bool) -> String {
        let mut head = vec!["VIP", "POOL", "STATE", ">UP", ">FLOWS", ">PPS", ">BPS", ">SHARE"];
        if wide {
            head.extend([">PACKETS", ">BYTES", ">DROPS"]);
        }
        head.push("NOTE");
        let mut columns = Columns::new(&head);
        for pool in &self.pools {
            let vips: Vec<&VipStatus> = self.vips.iter().filter(|v| v.pool == pool.name).collect();
            if vips.is_empty() {
                continue;
            }
            for vip in vips {
                columns.add(vip_row(vip, pool, wide));
            }
            for backend in &pool.backends {
                columns.add(vip_backend_row(backend, wide));
            }
        }
        columns.render()
    }
}

fn vip_row(vip: &VipStatus, pool: &PoolStatus, wide: bool) -> Vec<String> {
    let flows: u64 = pool.backends.iter().map(|backend| u64::from(backend.flows)).sum();
    let mut cells = vec![format!("{} {}", vip.name, vip.vip), vip.pool.clone(), vip.state.clone()];
    cells.extend([up_of(pool), flows.to_string()]);
    cells.extend([short(vip.packets_per_second), short(vip.bits_per_second), String::new()]);
    if wide {
        cells.extend([vip.packets, vip.bytes, vip.drops].map(|count| count.to_string()));
    }
    cells.push(String::new());
    cells
}

fn vip_backend_row(backend: &BackendStatus, wide: bool) -> Vec<String> {
    let mut cells = vec![format!("  {} {}", backend.name, backend.address), String::new()];
    cells.extend([backend.state.clone(), backend.weight.to_string(), backend.flows.to_string()]);
    cells.extend([short(backend.packets_per_second), short(backend.bits_per_second)]);
    cells.push(share(backend));
    if wide {
        cells.extend([backend.packets.to_string(), backend.bytes.to_string(), String::new()]);
    }
    cells.push(notes(backend));
    cells
}

impl Table for Stats {
    fn table(&self, wide: bool) -> String {
        let mut columns = Columns::new(&["OUTCOME", ">PACKETS", ">BYTES"]);
        for (outcome, count) in &self.outcomes {
            columns.add(count_row(outcome.clone(), count));
        }
        let mut text = columns.render();
        if wide {
            let mut columns = Columns::new(&["VIP", ">PACKETS", ">BYTES"]);
            for (vip, outcomes) in &self.vips {
                for (outcome, count) in outcomes {
                    columns.add(count_row(format!("{vip} {outcome}"), count));
                }
            }
            text.push_str(&format!("\n{}", columns.render()));
        }
        if !self.transmit_errors.is_empty() {
            let mut columns = Columns::new(&["DRIVER", ">NOT SENT"]);
            for (interface, count) in &self.transmit_errors {
                columns.row([interface.clone(), count.to_string()]);
            }
            text.push_str(&format!("\n{}", columns.render()));
        }
        text.push_str(&format!("\n{}\n", flow_line(&self.flows).trim_end()));
        let daemon = &self.daemon;
        let mut columns = Columns::new(&["LBD", ">COUNT"]);
        for (name, count) in [
            ("tables published", daemon.tables_published),
            ("slots moved", daemon.slots_moved),
            ("slots forced", daemon.slots_forced),
            ("flow scans", daemon.flow_scans),
            ("flows aged", daemon.flows_aged),
            ("probes", daemon.probes),
            ("probes late", daemon.probes_late),
            ("failures", daemon.failures),
            ("drop samples lost", daemon.samples_lost),
        ] {
            columns.row([name.to_owned(), count.to_string()]);
        }
        text.push_str(&format!("\n{}", columns.render()));
        text
    }
}

fn count_row(name: String, count: &Count) -> Vec<String> {
    vec![name, count.packets.to_string(), count.bytes.to_string()]
}

impl Table for Trace {
    fn table(&self, _wide: bool) -> String {
        let flows = self.flows.iter().map(|flow| traced(&self.source, flow));
        flows.collect::<Vec<String>>().join("\n")
    }
}

fn traced(source: &str, flow: &TracedFlow) -> String {
    let contested = if flow.contested { ", contested" } else { "" };
    let backend = match (&flow.backend, &flow.address) {
        (Some(name), Some(address)) => format!("{name} {address}"),
        _ => "none".to_owned(),
    };
    let encap = flow.encap.as_deref().unwrap_or("none");
    let mtu = flow.path_mtu.map_or_else(String::new, |mtu| format!(", path MTU {mtu}"));
    let slot = format!(
        "hash {}, slot {} of {}, generation {}{contested}",
        flow.hash,
        grouped(u64::from(flow.slot)),
        grouped(u64::from(flow.slots)),
        flow.generation
    );
    let lines = [
        ("flow", format!("{source} > {} {}", flow.name, flow.vip)),
        ("table", format!("pool {}, {slot}", flow.pool)),
        ("owner", format!("{backend}: {}", flow.why)),
        ("encap", format!("{encap}{mtu}")),
        ("next hop", flow.next_hop.clone()),
        ("verdict", flow.verdict.clone()),
    ];
    lines.iter().map(|(name, text)| format!("{name:<9} {text}\n")).collect()
}

impl Table for Drops {
    fn table(&self, wide: bool) -> String {
        let mut columns = Columns::new(&["REASON", ">PACKETS", "MEANING"]);
        for reason in self.reasons.iter().filter(|reason| wide || reason.packets > 0) {
            columns.row([reason.reason.clone(), reason.packets.to_string(), reason.help.clone()]);
        }
        let mut text = columns.render();
        if !self.samples.is_empty() {
            text.push_str(&format!("\n{SAMPLES_HEAD}"));
            for sample in &self.samples {
                text.push_str(&format!("{}\n", sample_line(sample)));
            }
        }
        text
    }
}

/// One sample on one line, under [`SAMPLES_HEAD`].
#[must_use]
pub fn sample_line(sample: &DroppedPacket) -> String {
    let protocol = match sample.protocol {
        1 => "icmp".to_owned(),
        6 => "tcp".to_owned(),
        17 => "udp".to_owned(),
        58 => "icmpv6".to_owned(),
        other => format!("protocol {other}"),
    };
    format!(
        "{}  {:<14}  {}  {} > {} {protocol}, {} bytes",
        sample.time,
        sample.reason,
        sample.vip.as_deref().unwrap_or("-"),
        sample.source,
        sample.destination,
        sample.length
    )
}

/// What changed or would change.
#[must_use]
pub fn outcome(outcome: &Outcome) -> String {
    let mut text = String::new();
    let width = outcome.changes.iter().map(|line| line.subject.chars().count()).max().unwrap_or(0);
    for line in &outcome.changes {
        text.push_str(&format!("{} {:<width$}  {}\n", line.sign, line.subject, line.text));
    }
    for note in &outcome.notes {
        text.push_str(&format!("  {note}\n"));
    }
    text.push_str(&match (outcome.changes.len(), outcome.applied) {
        (0, _) => "no change\n".to_owned(),
        (1, true) => "1 change applied\n".to_owned(),
        (1, false) => "1 change\n".to_owned(),
        (count, true) => format!("{count} changes applied\n"),
        (count, false) => format!("{count} changes\n"),
    });
    if let Some(undo) = &outcome.undo {
        text.push_str(&format!("undo with: {undo}\n"));
    }
    text
}

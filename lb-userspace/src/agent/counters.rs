//! The counters: read from the map, added up over CPUs, printed.

use std::path::Path;

use aya::maps::{Map, MapData, PerCpuArray};
use lb_common::agent::{Outcome, map_name};
use lb_common::verdict::Counter;

use super::error::AgentError;

/// One counter, all CPUs together.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Reading {
    /// Of what.
    pub outcome: Outcome,
    /// How much.
    pub counter: Counter,
}

fn map_error(source: aya::maps::MapError) -> AgentError {
    AgentError::Map { name: map_name::COUNTERS, source }
}

/// Reads all counters, in the order of [`Outcome::ALL`].
///
/// # Errors
/// It is not the counters' map.
pub fn read(map: &Map) -> Result<Vec<Reading>, AgentError> {
    let counters: PerCpuArray<_, Counter> = PerCpuArray::try_from(map).map_err(map_error)?;
    Outcome::ALL
        .iter()
        .map(|&outcome| {
            let values = counters.get(&(outcome as u32), 0).map_err(map_error)?;
            let mut sum = Counter::default();
            for value in values.iter() {
                sum.packets = sum.packets.wrapping_add(value.packets);
                sum.bytes = sum.bytes.wrapping_add(value.bytes);
            }
            Ok(Reading { outcome, counter: sum })
        })
        .collect()
}

/// Reads the counters pinned in a directory.
///
/// # Errors
/// None are pinned there.
pub fn read_pinned(directory: &Path) -> Result<Vec<Reading>, AgentError> {
    let path = directory.join(map_name::COUNTERS);
    if !path.exists() {
        return Err(AgentError::NoPins(directory.to_owned()));
    }
    read(&Map::PerCpuArray(MapData::from_pin(&path).map_err(map_error)?))
}

/// Name, packets, bytes, meaning: one line each.
#[must_use]
pub fn table(readings: &[Reading]) -> String {
    let row = |name: &str, packets: &str, bytes: &str, help: &str| {
        format!("{name:<12} {packets:>16} {bytes:>20}  {help}\n")
    };
    let head = row("COUNTER", "PACKETS", "BYTES", "MEANING");
    let rows = readings.iter().map(|Reading { outcome, counter }| {
        let (packets, bytes) = (counter.packets.to_string(), counter.bytes.to_string());
        row(outcome.name(), &packets, &bytes, outcome.help())
    });
    std::iter::once(head).chain(rows).collect()
}

/// `{"NAME": {"packets": N, "bytes": N}, ...}`.
#[must_use]
pub fn json(readings: &[Reading]) -> String {
    let object: serde_json::Map<String, serde_json::Value> = readings
        .iter()
        .map(|Reading { outcome, counter }| {
            let value = serde_json::json!({"packets": counter.packets, "bytes": counter.bytes});
            (outcome.name().to_owned(), value)
        })
        .collect();
    serde_json::Value::Object(object).to_string()
}

/// One line for the log: `NAME=packets` of every counter that is not zero, or "none".
#[must_use]
pub fn line(readings: &[Reading]) -> String {
    let counted: Vec<_> = readings
        .iter()
        .filter(|reading| reading.counter.packets != 0)
        .map(|reading| format!("{}={}", reading.outcome.name(), reading.counter.packets))
        .collect();
    if counted.is_empty() { "none".to_owned() } else { counted.join(" ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn readings() -> Vec<Reading> {
        let counter = |outcome: Outcome| Counter { packets: u64::from(outcome as u32), bytes: 9 };
        Outcome::ALL.iter().map(|&outcome| Reading { outcome, counter: counter(outcome) }).collect()
    }

    #[test]
    fn every_counter_is_printed() {
        let readings = readings();
        let json: serde_json::Value = serde_json::from_str(&json(&readings)).unwrap();
        let table = table(&readings);
        for outcome in Outcome::ALL {
            let packets = u64::from(*outcome as u32);
            assert_eq!(json[outcome.name()]["packets"], packets, "{outcome:?}");
            assert!(table.contains(outcome.help()), "{outcome:?}");
        }
        assert!(!line(&readings).contains("passed"), "zero is left out");
        assert!(line(&readings).starts_with("ipip_v4=1 "));
        assert_eq!(line(&[]), "none");
    }
}

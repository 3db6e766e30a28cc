//! GoBGP: one process, asked with `gobgp` on the loopback of its namespace.

use std::collections::BTreeMap;
use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use serde::Deserialize;

use super::{Peer, READY_DEADLINE, Route, Router};
use crate::lab::command::{self, Process};
use crate::lab::namespace::Namespace;
use crate::lab::wait;

/// Where it listens for `gobgp`, inside its namespace.
const API: &str = "127.0.0.1:50051";
/// `SessionState` ESTABLISHED of its API.
const ESTABLISHED: u8 = 6;

/// GoBGP in a namespace.
#[derive(Debug)]
pub struct Gobgp {
    name: String,
    namespace: Namespace,
    directory: PathBuf,
    process: Option<Process>,
}

impl Gobgp {
    /// Starts GoBGP with a configuration (TOML); returns when it answers.
    ///
    /// # Errors
    /// It refuses the configuration, or does not start.
    pub fn start(lab: &Path, namespace: &Namespace, configuration: &str) -> Result<Self> {
        let name = format!("GoBGP of {}", namespace.name());
        let host = namespace.name().rsplit('-').next().unwrap_or_default();
        let directory = lab.join(format!("gobgp-{host}"));
        fs::create_dir_all(&directory)?;
        let mut gobgp = Self { name, namespace: namespace.clone(), directory, process: None };
        gobgp.write(configuration)?;
        gobgp.start_again()?;
        Ok(gobgp)
    }

    /// Runs `gobgp` and returns what it prints.
    ///
    /// # Errors
    /// It does not answer.
    pub fn ask(&self, arguments: &[&str]) -> Result<String> {
        command::run(self.namespace.command("gobgp").args(arguments))
    }
}

impl Router for Gobgp {
    fn name(&self) -> &str {
        &self.name
    }

    fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    fn routes(&self, prefix: &str) -> Result<Vec<Route>> {
        let family = if prefix.contains(':') { "ipv6" } else { "ipv4" };
        parse_routes(&self.ask(&["global", "rib", "-a", family, prefix, "-j"])?)
    }

    fn peers(&self) -> Result<BTreeMap<IpAddr, Peer>> {
        parse_peers(&self.ask(&["neighbor", "-j"])?)
    }

    fn log(&self) -> Result<String> {
        Ok(fs::read_to_string(self.directory.join("log"))?)
    }

    fn kill(&mut self) -> Result<()> {
        self.process.take().map_or(Ok(()), Process::kill)
    }

    fn start_again(&mut self) -> Result<()> {
        let mut command = self.namespace.command("gobgpd");
        command.arg("-f").arg(self.directory.join("gobgpd.toml"));
        command.args(["--api-hosts", API, "--pprof-disable"]);
        let mut process = Process::start(&self.name, &mut command, &self.directory.join("log"))?;
        wait::until(&format!("{} answers", self.name), READY_DEADLINE, || {
            process.check_alive()?;
            Ok(self.ask(&["neighbor"]).is_ok())
        })?;
        self.process = Some(process);
        Ok(())
    }

    fn write(&self, configuration: &str) -> Result<()> {
        Ok(fs::write(self.directory.join("gobgpd.toml"), configuration)?)
    }

    fn freeze(&self) -> Result<()> {
        self.process.as_ref().context("GoBGP does not run")?.freeze()
    }

    fn resume(&self) -> Result<()> {
        self.process.as_ref().context("GoBGP does not run")?.resume()
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct RibPath {
    best: bool,
    stale: bool,
    attrs: Vec<Attribute>,
    neighbor_ip: String,
}

/// A path attribute; which fields it has goes by its type.
#[derive(Deserialize)]
struct Attribute {
    #[serde(rename = "type")]
    kind: u8,
    #[serde(default)]
    as_paths: Vec<Segment>,
    nexthop: Option<IpAddr>,
    metric: Option<u32>,
    #[serde(default)]
    communities: Vec<u32>,
    #[serde(default)]
    value: serde_json::Value,
}

#[derive(Deserialize)]
struct Segment {
    asns: Vec<u32>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Large {
    #[serde(rename = "ASN")]
    asn: u32,
    local_data1: u32,
    local_data2: u32,
}

#[derive(Deserialize)]
struct Extended {
    subtype: Option<u8>,
    value: serde_json::Value,
}

impl Extended {
    fn text(&self) -> String {
        let name = match self.subtype {
            Some(2) => "rt",
            Some(3) => "soo",
            _ => "other",
        };
        match self.value.as_str() {
            Some(text) => format!("{name}:{text}"),
            None => format!("{name}:{}", self.value),
        }
    }
}

/// The paths in an answer to `global rib PREFIX -j`.
fn parse_routes(said: &str) -> Result<Vec<Route>> {
    let answer: BTreeMap<String, Vec<RibPath>> =
        serde_json::from_str(said).with_context(|| said.to_owned())?;
    answer.into_values().flatten().map(route).collect()
}

fn route(path: RibPath) -> Result<Route> {
    let RibPath { best, stale, attrs, neighbor_ip } = path;
    let mut route = Route { from: neighbor_ip, best, stale, ..Route::default() };
    for attribute in attrs {
        // Types of the attributes: RFC 4271, 1997, 4760, 4360 and 8092.
        match attribute.kind {
            2 => {
                let segments = attribute.as_paths.into_iter();
                route.as_path = segments.flat_map(|segment| segment.asns).collect();
            }
            3 | 14 => route.next_hop = attribute.nexthop,
            4 => route.med = attribute.metric,
            5 => {
                let value = attribute.value.as_u64().and_then(|it| u32::try_from(it).ok());
                route.local_preference = value;
            }
            8 => {
                let numbers = attribute.communities.into_iter();
                route.communities =
                    numbers.map(|it| format!("{}:{}", it >> 16, it & 0xffff)).collect();
            }
            16 => {
                let them: Vec<Extended> = serde_json::from_value(attribute.value)?;
                route.extended_communities = them.iter().map(Extended::text).collect();
            }
            32 => {
                let them: Vec<Large> = serde_json::from_value(attribute.value)?;
                let text = |it: &Large| format!("{}:{}:{}", it.asn, it.local_data1, it.local_data2);
                route.large_communities = them.iter().map(text).collect();
            }
            _ => {}
        }
    }
    Ok(route)
}

#[derive(Deserialize)]
struct Neighbor {
    state: NeighborState,
    timers: Timers,
    #[serde(default)]
    afi_safis: Vec<AfiSafi>,
}

#[derive(Deserialize)]
struct NeighborState {
    neighbor_address: IpAddr,
    /// Zero values are left out.
    #[serde(default)]
    session_state: u8,
    #[serde(default)]
    messages: Messages,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Messages {
    received: Received,
}

/// Messages by kind.
#[derive(Deserialize, Default)]
#[serde(default)]
struct Received {
    notification: u64,
}

#[derive(Deserialize)]
struct Timers {
    #[serde(default)]
    state: serde_json::Value,
}

#[derive(Deserialize)]
struct AfiSafi {
    #[serde(default)]
    state: Counts,
}

#[derive(Deserialize, Default)]
struct Counts {
    #[serde(default)]
    received: u64,
}

/// The sessions in an answer to `neighbor -j`.
fn parse_peers(said: &str) -> Result<BTreeMap<IpAddr, Peer>> {
    let neighbors: Vec<Neighbor> = serde_json::from_str(said).with_context(|| said.to_owned())?;
    let peers = neighbors.into_iter().map(|neighbor| {
        let (state, received) = (neighbor.state.session_state, neighbor.state.messages.received);
        let peer = Peer {
            established: state == ESTABLISHED,
            since: neighbor.timers.state["uptime"]["seconds"].to_string(),
            received: neighbor.afi_safis.iter().map(|it| it.state.received).sum(),
            info: format!("state {state}, NOTIFICATIONs {}", received.notification),
        };
        (neighbor.state.neighbor_address, peer)
    });
    Ok(peers.collect())
}

#[cfg(test)]
mod tests {
    use super::{parse_peers, parse_routes};

    #[test]
    fn every_path_is_read_with_its_attributes() {
        let routes = parse_routes(
            r#"{"203.0.113.0/24":[{"nlri":{"prefix":"203.0.113.0/24"},"age":1,"best":true,"attrs":[
              {"type":1,"value":0},
              {"type":2,"as_paths":[{"segment_type":2,"num":2,"asns":[65010,4200000001]}]},
              {"type":3,"nexthop":"192.0.2.31"},{"type":4,"metric":0},{"type":5,"value":200},
              {"type":8,"communities":[4260495460,4294901760]},
              {"type":16,"value":[{"type":0,"subtype":2,"value":"65010:100"}]},
              {"type":32,"value":[{"ASN":65010,"LocalData1":1,"LocalData2":2}]}],
              "stale":false,"source-id":"192.0.2.31","neighbor-ip":"192.0.2.31"}]}"#,
        )
        .unwrap();
        let [route] = &routes[..] else { panic!("{routes:?}") };
        assert_eq!(route.as_path, [65_010, 4_200_000_001]);
        assert_eq!(route.next_hop, "192.0.2.31".parse().ok());
        assert_eq!((route.med, route.local_preference), (Some(0), Some(200)));
        assert!(route.communities.iter().eq(["65010:100", "65535:0"]));
        assert!(route.extended_communities.iter().eq(["rt:65010:100"]));
        assert!(route.large_communities.iter().eq(["65010:1:2"]));
        assert!(parse_routes("{}\n").unwrap().is_empty());
    }

    #[test]
    fn sessions_are_told_by_their_neighbours() {
        let peers = parse_peers(
            r#"[{"state":{"neighbor_address":"192.0.2.31","session_state":6},
                 "timers":{"state":{"uptime":{"seconds":17}}},
                 "afi_safis":[{"state":{"received":2}},{"state":{}}]},
                {"state":{"neighbor_address":"2001:db8::1"},"timers":{}}]"#,
        )
        .unwrap();
        let up = &peers[&"192.0.2.31".parse().unwrap()];
        assert!(up.established && up.received == 2 && up.since == "17", "{up:?}");
        assert!(!peers[&"2001:db8::1".parse().unwrap()].established);
    }
}

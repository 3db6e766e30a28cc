//! FRR: zebra, bgpd and bfdd, asked through vtysh.
//!
//! The daemons drop root's rights, and a checkout may lie where only root can go: their files are
//! below `/run/frr`, in a directory of the host's name, which goes with the lab.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::IpAddr;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use serde::Deserialize;

use super::{Peer, READY_DEADLINE, Route, Router, as_path, community};
use crate::lab::command::{self, Process};
use crate::lab::namespace::Namespace;
use crate::lab::owner::FRR_FILES;
use crate::lab::wait;

/// Where Debian has the daemons.
const PROGRAMS: &str = "/usr/lib/frr";
/// In this order: bgpd asks zebra for the way to its neighbours.
const DAEMONS: [&str; 3] = ["zebra", "bfdd", "bgpd"];
/// Who they are, after they have dropped root's rights.
const USER: &str = "frr";
/// Each keeps its last messages in a directory here, named after it and its process.
const LAST_MESSAGES: &str = "/var/tmp/frr";

/// FRR in a namespace.
#[derive(Debug)]
pub struct Frr {
    name: String,
    namespace: Namespace,
    directory: PathBuf,
    /// In the order of [`DAEMONS`].
    daemons: Vec<Process>,
}

impl Frr {
    /// Starts FRR with a configuration of bgpd; returns when it answers.
    ///
    /// # Errors
    /// A daemon does not start.
    pub fn start(namespace: &Namespace, configuration: &str) -> Result<Self> {
        let name = format!("FRR of {}", namespace.name());
        let directory = PathBuf::from(FRR_FILES).join(namespace.name());
        fs::create_dir_all(&directory)?;
        let mut frr = Self { name, namespace: namespace.clone(), directory, daemons: Vec::new() };
        frr.write(configuration)?;
        frr.start_again()?;
        Ok(frr)
    }

    /// Runs commands of vtysh one after the other and returns what it prints. A change is
    /// `["configure terminal", "router bgp 65020", "no neighbor ..."]`.
    ///
    /// # Errors
    /// FRR does not know one of them.
    pub fn ask(&self, commands: &[&str]) -> Result<String> {
        let mut vtysh = Command::new("vtysh");
        vtysh.arg("--vty_socket").arg(&self.directory);
        for command in commands {
            vtysh.arg("-c").arg(command);
        }
        let said = command::run(&mut vtysh)?;
        ensure!(!said.contains("% Unknown command"), "{commands:?}: {said}");
        Ok(said)
    }

    /// Asks bgpd one question (`show bgp summary json`) on the socket that vtysh uses: a table
    /// that is watched is looked at every few milliseconds, and a vtysh for each look takes longer.
    fn show(&self, question: &str) -> Result<String> {
        let path = self.directory.join("bgpd.vty");
        let stream = UnixStream::connect(&path);
        let mut stream = stream.with_context(|| format!("{} is not there", path.display()))?;
        stream.set_read_timeout(Some(READY_DEADLINE))?;
        // As vtysh does it: a connection begins with few rights.
        answer(&mut stream, "enable")?;
        answer(&mut stream, question)
    }
}

/// A question ends with a NUL, an answer with three of them and a status, 0 when all is well.
fn answer(stream: &mut UnixStream, question: &str) -> Result<String> {
    stream.write_all(format!("{question}\0").as_bytes())?;
    let (mut said, mut buffer) = (Vec::new(), [0; 4_096]);
    loop {
        let length = stream.read(&mut buffer).with_context(|| format!("no answer: {question}"))?;
        ensure!(length > 0, "FRR went away while it was asked `{question}`");
        said.extend_from_slice(&buffer[..length]);
        if let Some((text, [0, 0, 0, status])) = said.split_last_chunk() {
            let text = String::from_utf8_lossy(text).into_owned();
            ensure!(*status == 0, "`{question}`: status {status}: {text}");
            return Ok(text);
        }
    }
}

impl Drop for Frr {
    fn drop(&mut self) {
        // What cannot be removed goes with the namespace.
        drop(self.kill());
    }
}

impl Router for Frr {
    fn name(&self) -> &str {
        &self.name
    }

    fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    fn routes(&self, prefix: &str) -> Result<Vec<Route>> {
        let family = if prefix.contains(':') { "ipv6" } else { "ipv4" };
        let said = self.show(&format!("show bgp {family} unicast {prefix} json"))?;
        parse_routes(&said)
    }

    fn peers(&self) -> Result<BTreeMap<IpAddr, Peer>> {
        parse_peers(&self.show("show bgp summary json")?)
    }

    fn log(&self) -> Result<String> {
        Ok(fs::read_to_string(self.directory.join("bgpd.log"))?)
    }

    fn kill(&mut self) -> Result<()> {
        while let Some(process) = self.daemons.pop() {
            let number = process.id();
            process.kill()?;
            for daemon in DAEMONS {
                // Two of the three never were.
                drop(fs::remove_dir_all(format!("{LAST_MESSAGES}/{daemon}.{number}")));
            }
        }
        for daemon in DAEMONS {
            drop(fs::remove_file(self.directory.join(format!("{daemon}.vty"))));
        }
        Ok(())
    }

    fn start_again(&mut self) -> Result<()> {
        for daemon in DAEMONS {
            let file = |kind: &str| self.directory.join(format!("{daemon}.{kind}"));
            let mut command = self.namespace.command(format!("{PROGRAMS}/{daemon}"));
            command.args(["-u", USER, "-g", USER, "-P", "0", "-f"]).arg(file("conf"));
            command.arg("-i").arg(file("pid")).arg("-z").arg(self.directory.join("zserv"));
            command.arg("--vty_socket").arg(&self.directory);
            if daemon == "bfdd" {
                command.arg("--bfdctl").arg(file("sock"));
            }
            let process = Process::start(daemon, &mut command, &file("out"))?;
            self.daemons.push(process);
        }
        let what = format!("{} answers", self.name);
        wait::until(&what, READY_DEADLINE, || {
            self.daemons.iter_mut().try_for_each(Process::check_alive)?;
            let sockets = DAEMONS.map(|it| self.directory.join(format!("{it}.vty")).exists());
            Ok(sockets == [true; 3] && self.ask(&["show version"]).is_ok())
        })
    }

    fn write(&self, configuration: &str) -> Result<()> {
        for daemon in DAEMONS {
            let text = if daemon == "bgpd" {
                let log = self.directory.join("bgpd.log");
                format!("hostname frr\nlog file {}\n{configuration}", log.display())
            } else {
                String::new()
            };
            fs::write(self.directory.join(format!("{daemon}.conf")), text)?;
        }
        let owner = format!("{USER}:{USER}");
        command::run(Command::new("chown").args(["-R", &owner]).arg(&self.directory))?;
        Ok(())
    }

    /// All daemons: a frozen bgpd beside a living bfdd would keep BFD up.
    fn freeze(&self) -> Result<()> {
        self.daemons.iter().try_for_each(Process::freeze)
    }

    fn resume(&self) -> Result<()> {
        self.daemons.iter().try_for_each(Process::resume)
    }
}

#[derive(Deserialize)]
struct Paths {
    #[serde(default)]
    paths: Vec<Path>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Path {
    aspath: Text,
    metric: Option<u32>,
    loc_prf: Option<u32>,
    #[serde(default)]
    stale: bool,
    bestpath: Option<Best>,
    community: Option<Text>,
    large_community: Option<Text>,
    extended_community: Option<Text>,
    #[serde(default)]
    nexthops: Vec<NextHop>,
    peer: PathPeer,
}

#[derive(Deserialize)]
struct Text {
    string: String,
}

#[derive(Deserialize)]
struct Best {
    #[serde(default)]
    overall: bool,
}

#[derive(Deserialize)]
struct NextHop {
    ip: IpAddr,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct PathPeer {
    peer_id: String,
}

/// The paths in an answer to `show bgp FAMILY unicast PREFIX json`.
fn parse_routes(said: &str) -> Result<Vec<Route>> {
    let answer: Paths = serde_json::from_str(said).with_context(|| said.to_owned())?;
    let routes = answer.paths.into_iter().map(|path| {
        let words = |text: Option<Text>| -> Vec<String> {
            let text = text.map(|it| it.string).unwrap_or_default();
            text.split_whitespace().map(str::to_owned).collect()
        };
        let lower = |it: String| it.replace("RT:", "rt:").replace("SoO:", "soo:");
        // FRR writes `Local` for a path of its own.
        let text = if path.aspath.string == "Local" { "" } else { &path.aspath.string };
        Ok(Route {
            from: path.peer.peer_id,
            best: path.bestpath.is_some_and(|it| it.overall),
            stale: path.stale,
            as_path: as_path(text)?,
            next_hop: path.nexthops.first().map(|it| it.ip),
            med: path.metric,
            local_preference: path.loc_prf,
            communities: words(path.community).iter().map(|it| community(it)).collect(),
            large_communities: words(path.large_community).into_iter().collect(),
            extended_communities: words(path.extended_community).into_iter().map(lower).collect(),
        })
    });
    routes.collect()
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Family {
    peers: BTreeMap<IpAddr, Session>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Session {
    state: String,
    pfx_rcd: u64,
    peer_uptime_established_epoch: Option<u64>,
}

/// The sessions in an answer to `show bgp summary json`; one that carries both families is in
/// both lists.
fn parse_peers(said: &str) -> Result<BTreeMap<IpAddr, Peer>> {
    let families: BTreeMap<String, Family> =
        serde_json::from_str(said).with_context(|| said.to_owned())?;
    let mut peers: BTreeMap<IpAddr, Peer> = BTreeMap::new();
    for (address, session) in families.into_values().flat_map(|family| family.peers) {
        let peer = peers.entry(address).or_default();
        peer.established = session.state == "Established";
        peer.since = session.peer_uptime_established_epoch.unwrap_or_default().to_string();
        peer.received += session.pfx_rcd;
        peer.info = session.state;
    }
    Ok(peers)
}

#[cfg(test)]
mod tests {
    use super::{parse_peers, parse_routes};

    #[test]
    fn every_path_is_read_with_its_attributes() {
        let routes = parse_routes(
            r#"{"prefix":"203.0.113.0/24","paths":[
              {"aspath":{"string":"65010 4200000001","length":2},"origin":"IGP","metric":7,
               "locPrf":0,"valid":true,"bestpath":{"overall":true},
               "community":{"string":"65010:100 graceful-shutdown","list":[]},
               "extendedCommunity":{"string":"RT:65010:100"},
               "largeCommunity":{"string":"65010:1:2"},
               "nexthops":[{"ip":"2001:db8:1::31","metric":0},{"ip":"fe80::1"}],
               "peer":{"peerId":"192.0.2.31","type":"external"}},
              {"aspath":{"string":"Local"},"peer":{"peerId":"::"}}]}"#,
        )
        .unwrap();
        let [first, second] = &routes[..] else { panic!("{routes:?}") };
        assert!(first.best && !second.best && second.as_path.is_empty());
        assert_eq!(first.from, "192.0.2.31");
        assert_eq!(first.as_path, [65_010, 4_200_000_001]);
        assert_eq!((first.med, first.local_preference), (Some(7), Some(0)));
        assert_eq!(first.next_hop, "2001:db8:1::31".parse().ok());
        assert!(first.communities.iter().eq(["65010:100", "65535:0"]));
        assert!(first.extended_communities.iter().eq(["rt:65010:100"]));
        assert!(first.large_communities.iter().eq(["65010:1:2"]));
        assert!(parse_routes("{\n}\n").unwrap().is_empty(), "no such prefix");
    }

    #[test]
    fn a_session_of_both_families_is_one() {
        let peers = parse_peers(
            r#"{"ipv4Unicast":{"peers":{"192.0.2.31":{"state":"Established","pfxRcd":2,
               "peerUptimeEstablishedEpoch":17}}},
               "ipv6Unicast":{"peers":{"192.0.2.31":{"state":"Established","pfxRcd":3},
               "2001:db8:1::33":{"state":"Active","pfxRcd":0}}}}"#,
        )
        .unwrap();
        let both = &peers[&"192.0.2.31".parse().unwrap()];
        assert!(both.established && both.received == 5, "{both:?}");
        assert!(!peers[&"2001:db8:1::33".parse().unwrap()].established);
    }
}

//! BIRD 2: one process, asked through its control socket.
//!
//! The protocol is birdc's: a line to ask, and lines that begin with a code of four digits, or a
//! space for the code of the line before; `-` after the code says that more follow, a space that
//! this was the last one.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::IpAddr;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};

use super::{Peer, READY_DEADLINE, Route, Router, as_path};
use crate::lab::command::Process;
use crate::lab::namespace::Namespace;
use crate::lab::wait;

/// "Network not found": an answer, not an error.
const NOT_FOUND: &str = "8001";
/// Codes from here on are errors.
const FIRST_ERROR: u32 = 8_000;

/// BIRD in a namespace.
#[derive(Debug)]
pub struct Bird {
    name: String,
    namespace: Namespace,
    directory: PathBuf,
    process: Option<Process>,
}

impl Bird {
    /// Starts BIRD with a configuration; returns when it answers.
    ///
    /// # Errors
    /// It refuses the configuration, or does not start.
    pub fn start(lab: &Path, namespace: &Namespace, configuration: &str) -> Result<Self> {
        let name = format!("bird of {}", namespace.name());
        let host = namespace.name().rsplit('-').next().unwrap_or_default();
        let directory = lab.join(format!("bird-{host}"));
        fs::create_dir_all(&directory)?;
        let mut bird = Self { name, namespace: namespace.clone(), directory, process: None };
        bird.write(configuration)?;
        bird.start_again()?;
        Ok(bird)
    }

    /// SIGTERM: it says goodbye to its neighbours.
    ///
    /// # Errors
    /// It does not end.
    pub fn stop(&mut self) -> Result<()> {
        self.process.take().map_or(Ok(()), Process::terminate)
    }

    /// Has it take a new configuration; sessions that are not changed stay.
    ///
    /// # Errors
    /// It refuses.
    pub fn reconfigure(&self, configuration: &str) -> Result<()> {
        self.write(configuration)?;
        self.ask("configure").map(drop)
    }

    /// Asks one question (`show route count`); the lines of the answer without their codes.
    ///
    /// # Errors
    /// It does not answer, or with an error.
    pub fn ask(&self, question: &str) -> Result<Vec<String>> {
        let socket = self.socket();
        let mut stream = UnixStream::connect(&socket)
            .with_context(|| format!("{} is not there", socket.display()))?;
        stream.set_read_timeout(Some(READY_DEADLINE))?;
        stream.write_all(format!("{question}\n").as_bytes())?;
        let mut lines = Vec::new();
        // The greeting, which has one line, comes first.
        let mut greeted = false;
        for line in BufReader::new(stream).lines() {
            let line = line?;
            let (code, rest) = line.split_at_checked(4).unwrap_or((" ", ""));
            let Ok(number) = code.parse::<u32>() else {
                lines.push(line.get(1..).unwrap_or_default().to_owned());
                continue;
            };
            if number >= FIRST_ERROR && code != NOT_FOUND {
                bail!("{}: `{question}`: {line}", self.name);
            }
            let is_last = rest.starts_with(' ');
            if greeted && code != NOT_FOUND {
                lines.push(rest.get(1..).unwrap_or_default().to_owned());
            }
            if is_last && greeted {
                return Ok(lines);
            }
            greeted |= is_last;
        }
        bail!("{} went away while it was asked `{question}`", self.name)
    }

    fn socket(&self) -> PathBuf {
        self.directory.join("ctl")
    }
}

impl Router for Bird {
    fn name(&self) -> &str {
        &self.name
    }

    fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    fn routes(&self, prefix: &str) -> Result<Vec<Route>> {
        parse_routes(&self.ask(&format!("show route {prefix} all"))?)
    }

    fn peers(&self) -> Result<BTreeMap<IpAddr, Peer>> {
        parse_peers(&self.ask("show protocols all")?)
    }

    fn log(&self) -> Result<String> {
        Ok(fs::read_to_string(self.directory.join("log"))?)
    }

    fn kill(&mut self) -> Result<()> {
        self.process.take().map_or(Ok(()), Process::kill)
    }

    fn start_again(&mut self) -> Result<()> {
        let mut command = self.namespace.command("bird");
        command.args(["-f", "-c"]).arg(self.directory.join("bird.conf"));
        command.arg("-s").arg(self.socket()).arg("-P").arg(self.directory.join("pid"));
        let mut process = Process::start(&self.name, &mut command, &self.directory.join("out"))?;
        wait::until(&format!("{} answers", self.name), READY_DEADLINE, || {
            process.check_alive()?;
            Ok(self.ask("show status").is_ok())
        })?;
        self.process = Some(process);
        Ok(())
    }

    /// With a log of its own in front.
    fn write(&self, configuration: &str) -> Result<()> {
        let log = self.directory.join("log");
        let text = format!("log \"{}\" all;\n{configuration}", log.display());
        let path = self.directory.join("bird.conf");
        fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))
    }

    fn freeze(&self) -> Result<()> {
        self.process.as_ref().context("BIRD does not run")?.freeze()
    }

    fn resume(&self) -> Result<()> {
        self.process.as_ref().context("BIRD does not run")?.resume()
    }
}

/// The paths in an answer to `show route PREFIX all`: each begins with the kind of its
/// destination and, in brackets, the session it is from and its time.
fn parse_routes(lines: &[String]) -> Result<Vec<Route>> {
    let mut routes: Vec<Route> = Vec::new();
    for line in lines {
        if let Some((_, rest)) = line.split_once(" [")
            && !line.starts_with('\t')
        {
            let (source, rest) = rest.split_once(']').unwrap_or((rest, ""));
            let from = source.split(' ').next().unwrap_or_default().to_owned();
            let flags = rest.split('(').next().unwrap_or_default();
            let best = flags.contains('*');
            routes.push(Route { from, best, ..Route::default() });
            continue;
        }
        let (Some((name, value)), Some(route)) = (line.trim().split_once(": "), routes.last_mut())
        else {
            continue;
        };
        match name {
            "BGP.as_path" => route.as_path = as_path(value)?,
            // Behind the global address stands the link-local one.
            "BGP.next_hop" => {
                route.next_hop = value.split(' ').next().and_then(|it| it.parse().ok());
            }
            "BGP.med" => route.med = value.parse().ok(),
            "BGP.local_pref" => route.local_preference = value.parse().ok(),
            "BGP.community" => route.communities = tuples(value).collect(),
            "BGP.large_community" => route.large_communities = tuples(value).collect(),
            "BGP.ext_community" => {
                let ours = |it: String| it.replace("ro:", "soo:");
                route.extended_communities = tuples(value).map(ours).collect();
            }
            _ => {}
        }
    }
    Ok(routes)
}

/// `(65010,100) (rt, 1, 2)` as `65010:100` and `rt:1:2`.
fn tuples(text: &str) -> impl Iterator<Item = String> {
    let inner = text.split('(').skip(1).filter_map(|it| it.split(')').next());
    inner.map(|it| it.replace(", ", ":").replace(',', ":"))
}

/// The BGP sessions in an answer to `show protocols all`.
fn parse_peers(lines: &[String]) -> Result<BTreeMap<IpAddr, Peer>> {
    let mut peers = BTreeMap::new();
    let mut peer = Peer::default();
    let mut address = None;
    for line in lines {
        let words: Vec<&str> = line.split_whitespace().collect();
        if !line.starts_with(' ') && words.len() >= 5 {
            peers.extend(address.take().map(|it| (it, std::mem::take(&mut peer))));
            let info = words.get(5..).unwrap_or_default().join(" ");
            let established = words.get(5) == Some(&"Established");
            let since = words.get(4).copied().unwrap_or_default().to_owned();
            peer = Peer { established, since, received: 0, info };
            continue;
        }
        match line.trim().split_once(':') {
            Some(("Neighbor address", value)) => {
                let value = value.trim();
                address = Some(value.parse().with_context(|| format!("an address: {value}"))?);
            }
            Some(("Routes", value)) => {
                let count = value.split_whitespace().next().and_then(|it| it.parse::<u64>().ok());
                peer.received += count.context("BIRD counts no routes")?;
            }
            _ => {}
        }
    }
    peers.extend(address.map(|it| (it, peer)));
    Ok(peers)
}

#[cfg(test)]
mod tests {
    use super::{parse_peers, parse_routes};

    fn lines(text: &str) -> Vec<String> {
        text.lines().map(str::to_owned).collect()
    }

    #[test]
    fn every_path_is_read_with_its_attributes() {
        let routes = parse_routes(&lines(
            "Table master6:
2001:db8:f01::/48    unicast [frr6 17:20:40.380] * (100) [AS65020i]
\tvia 2001:db8:1::32 on eth0
\tType: BGP univ
\tBGP.origin: IGP
\tBGP.as_path: 65020 4200000001
\tBGP.next_hop: 2001:db8:1::32 fe80::405f:2dff:fef8:579f
\tBGP.med: 7
\tBGP.local_pref: 100
\tBGP.community: (65010,100) (65535,0)
\tBGP.ext_community: (rt, 65010, 100) (ro, 1, 2)
\tBGP.large_community: (65010, 1, 2)
                     unicast [gobgp6 17:20:40.831] (100) [AS65020i]
\tvia 192.0.2.33 on eth0
\tBGP.as_path:
",
        ))
        .unwrap();
        let [first, second] = &routes[..] else { panic!("{routes:?}") };
        assert!(first.best && !second.best);
        assert_eq!((&*first.from, &*second.from), ("frr6", "gobgp6"));
        assert_eq!(first.as_path, [65_020, 4_200_000_001]);
        assert_eq!(first.next_hop, "2001:db8:1::32".parse().ok());
        assert_eq!((first.med, first.local_preference), (Some(7), Some(100)));
        assert!(first.communities.iter().eq(["65010:100", "65535:0"]));
        assert!(first.large_communities.iter().eq(["65010:1:2"]));
        assert!(first.extended_communities.iter().eq(["rt:65010:100", "soo:1:2"]));
        assert!(second.as_path.is_empty());
    }

    #[test]
    fn sessions_are_told_by_their_neighbours() {
        let peers = parse_peers(&lines(
            "Name       Proto      Table      State  Since         Info
device1    Device     ---        up     17:20:16.349

frr4       BGP        ---        up     17:20:39.580  Established
  BGP state:          Established
    Neighbor address: 192.0.2.32
  Channel ipv4
    Routes:         2 imported, 1 exported, 2 preferred
  Channel ipv6
    Routes:         3 imported, 1 exported, 2 preferred

frr6       BGP        ---        start  17:20:16.349  Active        Socket: Connection refused
  BGP state:          Active
    Neighbor address: 2001:db8:1::32
",
        ))
        .unwrap();
        let up = &peers[&"192.0.2.32".parse().unwrap()];
        assert!(up.established && up.received == 5 && up.since == "17:20:39.580", "{up:?}");
        let down = &peers[&"2001:db8:1::32".parse().unwrap()];
        assert!(!down.established && down.info.contains("Connection refused"), "{down:?}");
    }
}

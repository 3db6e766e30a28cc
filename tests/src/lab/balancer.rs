//! A load balancer: its host, its configuration, and lbd on it.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde::Deserialize;

use super::command::{self, Process, Readiness};
use super::config::{self, Node, Pool};
use super::namespace::Namespace;
use super::owner::BPF_FILESYSTEM;
use super::{programs, wait};

/// Longest path of a unix socket (`sun_path` of unix(7)), without the NUL.
const SOCKET_PATH_BYTES: usize = 107;
/// Programs verified, tables built, probes done.
const READY_DEADLINE: Duration = Duration::from_secs(30);

/// A load balancer.
#[derive(Debug)]
pub struct Balancer {
    /// The part of its configuration about BGP (see [`bgp`](super::bgp)); empty: no BGP.
    pub bgp: String,
    name: String,
    number: u8,
    namespace: Namespace,
    directory: PathBuf,
    secret: PathBuf,
    lbd: Option<Process>,
}

/// What `lbctl -o json status` says, as far as the lab asks.
#[derive(Debug, Clone, Deserialize)]
pub struct Status {
    /// `ok`, `degraded` or `down`.
    pub health: String,
    /// Why not `ok`.
    pub reasons: Vec<String>,
    /// Counts the configurations that were taken.
    pub generation: u64,
    /// The pools, in the order of their names.
    pub pools: Vec<PoolStatus>,
}

/// A pool in [`Status`].
#[derive(Debug, Clone, Deserialize)]
pub struct PoolStatus {
    /// Its name.
    pub name: String,
    /// Counts the tables it has had.
    pub generation: u64,
    /// `steady`, `preparing` or `window`.
    pub state: String,
    /// Slots that look into the flow table.
    pub contested_slots: u64,
    /// Its backends.
    pub backends: Vec<BackendStatus>,
}

/// A backend in [`PoolStatus`].
#[derive(Debug, Clone, Deserialize)]
pub struct BackendStatus {
    /// Its name.
    pub name: String,
    /// `up`, `down` or `drain`.
    pub state: String,
}

/// What `lbctl -o json stats` says, as far as the lab asks.
#[derive(Debug, Deserialize)]
struct Stats {
    outcomes: BTreeMap<String, Count>,
}

#[derive(Debug, Deserialize)]
struct Count {
    packets: u64,
}

impl Status {
    /// The state of a backend in the first pool that has it.
    #[must_use]
    pub fn backend(&self, name: &str) -> Option<&str> {
        let mut backends = self.pools.iter().flat_map(|pool| &pool.backends);
        backends.find(|backend| backend.name == name).map(|backend| backend.state.as_str())
    }

    /// Whether no planned change is on its way.
    #[must_use]
    pub fn is_steady(&self) -> bool {
        self.pools.iter().all(|pool| pool.state == "steady")
    }

    /// Slots that look into the flow table, of all pools.
    #[must_use]
    pub fn contested_slots(&self) -> u64 {
        self.pools.iter().map(|pool| pool.contested_slots).sum()
    }
}

impl Balancer {
    /// A load balancer on a host that has its addresses; nothing runs yet.
    ///
    /// # Errors
    /// Its directory cannot be made, or lies too deep for a socket.
    pub fn new(number: u8, namespace: Namespace, lab: &Path, secret: &Path) -> Result<Self> {
        let name = format!("lb{number}");
        let directory = lab.join(&name);
        fs::create_dir_all(&directory)?;
        let (bgp, secret, lbd) = (String::new(), secret.to_owned(), None);
        let new = Self { bgp, name, number, namespace, directory, secret, lbd };
        let length = new.socket().as_os_str().len();
        ensure!(
            length <= SOCKET_PATH_BYTES,
            "{}: {length} bytes are too long for a socket; move the checkout up",
            new.socket().display()
        );
        Ok(new)
    }

    /// Its name, `lb1`.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its namespace.
    #[must_use]
    pub fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// Where lbd listens.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.directory.join("sock")
    }

    /// Where it pins.
    #[must_use]
    pub fn pins(&self) -> PathBuf {
        Path::new(BPF_FILESYSTEM).join(self.namespace.name())
    }

    /// Its configuration file.
    #[must_use]
    pub fn configuration(&self) -> PathBuf {
        self.directory.join("lb.toml")
    }

    /// The log of lbd.
    #[must_use]
    pub fn log(&self) -> PathBuf {
        self.directory.join("lbd.log")
    }

    /// Writes its configuration file.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn configure(&self, pools: &[Pool]) -> Result<()> {
        let (pins, socket) = (self.pins(), self.socket());
        let (number, secret, bgp) = (self.number, &self.secret, &self.bgp);
        let node = Node { number, secret, pins: &pins, socket: &socket, bgp };
        let path = self.configuration();
        fs::write(&path, config::render(&node, pools))
            .with_context(|| format!("cannot write {}", path.display()))
    }

    /// A command that starts lbd with its configuration, not started.
    ///
    /// # Errors
    /// The program is not built.
    pub fn lbd_command(&self) -> Result<Command> {
        let mut lbd = self.namespace.command(programs::find("lbd")?);
        lbd.arg("--config").arg(self.configuration());
        Ok(lbd)
    }

    /// Starts lbd and returns when it says that it is ready, every backend that is not drained is
    /// up, and no change is on its way.
    ///
    /// # Errors
    /// It ends, or is not as far within half a minute for each.
    pub fn start(&mut self) -> Result<()> {
        let mut command = self.lbd_command()?;
        let ready = Readiness::of(&mut command, self.directory.join("notify"))?;
        let mut lbd = Process::start(&format!("lbd of {}", self.name), &mut command, &self.log())?;
        ready.wait(&mut lbd, READY_DEADLINE)?;
        wait::until(&format!("{} is steady and all is up", self.name), READY_DEADLINE, || {
            lbd.check_alive()?;
            let status = self.status()?;
            Ok(status.health == "ok" && status.is_steady())
        })?;
        self.lbd = Some(lbd);
        Ok(())
    }

    /// Fails when lbd has ended by itself.
    ///
    /// # Errors
    /// It has.
    pub fn check_alive(&mut self) -> Result<()> {
        self.lbd.as_mut().map_or(Ok(()), Process::check_alive)
    }

    /// `kill -9` of lbd; the data plane stays.
    ///
    /// # Errors
    /// It cannot be signalled.
    pub fn kill_lbd(&mut self) -> Result<()> {
        self.lbd.take().map_or(Ok(()), Process::kill)
    }

    /// SIGTERM to lbd; the data plane stays.
    ///
    /// # Errors
    /// It does not end, or not well.
    pub fn stop_lbd(&mut self) -> Result<()> {
        self.lbd.take().map_or(Ok(()), Process::terminate)
    }

    /// SIGTERM to lbd, which then leaves as its configuration says; does not wait for its end.
    ///
    /// # Errors
    /// It does not run.
    pub fn ask_lbd_to_end(&self) -> Result<()> {
        self.lbd.as_ref().context("lbd does not run")?.ask_to_end()
    }

    /// SIGSTOP to lbd: it says nothing more, and its connections stay open.
    ///
    /// # Errors
    /// It does not run.
    pub fn freeze_lbd(&self) -> Result<()> {
        self.lbd.as_ref().context("lbd does not run")?.freeze()
    }

    /// SIGCONT to lbd.
    ///
    /// # Errors
    /// It does not run.
    pub fn resume_lbd(&self) -> Result<()> {
        self.lbd.as_ref().context("lbd does not run")?.resume()
    }

    /// SIGHUP to lbd: it reads its file again.
    ///
    /// # Errors
    /// It does not run.
    pub fn reload_lbd(&self) -> Result<()> {
        self.lbd.as_ref().context("lbd does not run")?.hang_up()
    }

    /// What lbd says of itself.
    ///
    /// # Errors
    /// lbd does not answer, or not as agreed.
    pub fn status(&self) -> Result<Status> {
        // Its exit status is the health, so that 1 and 2 are answers too.
        let output = self.lbctl_command(&["-o", "json", "status"])?.output()?;
        serde_json::from_slice(&output.stdout).with_context(|| {
            let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
            format!("lbctl status of {}: {}: {stderr}", self.name, output.status)
        })
    }

    /// How many packets ended in each outcome (`tx`, `too_big`, ...), since the pins were made.
    ///
    /// # Errors
    /// lbd does not answer, or not as agreed.
    pub fn outcomes(&self) -> Result<BTreeMap<String, u64>> {
        let stats: Stats = serde_json::from_str(&self.lbctl(&["-o", "json", "stats"])?)?;
        let counts = stats.outcomes.into_iter();
        Ok(counts.map(|(outcome, count)| (outcome, count.packets)).collect())
    }

    /// How many packets ended in one outcome.
    ///
    /// # Errors
    /// As [`outcomes`](Self::outcomes), or there is no such outcome.
    pub fn outcome(&self, name: &str) -> Result<u64> {
        let outcomes = self.outcomes()?;
        outcomes.get(name).copied().with_context(|| format!("no outcome {name} in {outcomes:?}"))
    }

    /// Runs lbctl and returns what it prints.
    ///
    /// # Errors
    /// It ends with another status than 0.
    pub fn lbctl(&self, arguments: &[&str]) -> Result<String> {
        command::run(&mut self.lbctl_command(arguments)?)
    }

    /// Runs lbctl and returns what it prints and how it ends, whatever that is.
    ///
    /// # Errors
    /// It cannot be run.
    pub fn ask(&self, arguments: &[&str]) -> Result<Output> {
        let output = self.lbctl_command(arguments)?.output()?;
        Ok(output)
    }

    fn lbctl_command(&self, arguments: &[&str]) -> Result<Command> {
        let mut lbctl = Command::new(programs::find("lbctl")?);
        lbctl.arg("--socket").arg(self.socket()).args(arguments);
        Ok(lbctl)
    }

    /// Writes a new configuration file and has lbd apply it.
    ///
    /// # Errors
    /// lbd refuses it.
    pub fn apply(&self, pools: &[Pool]) -> Result<String> {
        self.configure(pools)?;
        let path = self.configuration();
        self.lbctl(&["apply", &path.to_string_lossy()])
    }

    /// The host falls silent: lbd and the program are gone, and nothing leaves it any more, not
    /// even the end of its connections; its link stays up. What is left is to be taken away.
    ///
    /// # Errors
    /// Something cannot be removed.
    pub fn fall_silent(&mut self) -> Result<()> {
        let mut tc = self.namespace.command("tc");
        // A queue without room; what XDP sends does not go through it.
        tc.args(["qdisc", "replace", "dev", "eth0", "root", "pfifo", "limit", "0"]);
        command::run(&mut tc)?;
        self.kill_lbd()?;
        let mut unload = self.namespace.command(programs::find("lbctl")?);
        command::run(unload.args(["unload", "--pin-path"]).arg(self.pins()))?;
        Ok(())
    }

    /// The host loses power: lbd, namespace, pins, nothing says goodbye.
    ///
    /// # Errors
    /// Something cannot be removed.
    pub fn power_off(mut self) -> Result<()> {
        self.namespace.ip("link set eth0 down")?;
        self.kill_lbd()?;
        // A connection that nobody acknowledges the end of would keep the namespace, and with it
        // the link, for as long as TCP tries.
        self.namespace.ip("link del dev eth0")?;
        super::namespace::remove(self.namespace.name())?;
        for path in [self.pins(), self.socket()] {
            let result =
                if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
            match result {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(error).with_context(|| format!("cannot remove {}", path.display()));
                }
                _ => {}
            }
        }
        Ok(())
    }
}

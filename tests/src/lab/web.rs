//! A backend: the VIPs on `lo`, nginx and a UDP echo on them, our agent before them.

use std::fs;
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow};
use tokio::net::UdpSocket;
use tokio::sync::oneshot;

use super::addresses::{ECHO_PORT, HTTP_PORT};
use super::command::{Process, Readiness};
use super::namespace::Namespace;
use super::{kernel, wait};

const NGINX: &str = "/usr/sbin/nginx";
const READY_DEADLINE: Duration = Duration::from_secs(15);
/// No datagram of the lab is longer.
const DATAGRAM_BYTES: usize = 2_048;
/// Size of the file `/big`: many full segments, so that an MTU that does not fit is noticed.
const BIG_BYTES: usize = 1_000_000;

/// How the agent is started.
#[derive(Debug, Clone)]
pub struct AgentPlan {
    /// The program.
    pub program: PathBuf,
    /// Where packets from the load balancers come in.
    pub interface: &'static str,
    /// `auto`, `xdp`, `xdp-generic` or `tc`.
    pub mode: &'static str,
    /// Largest packet between load balancer and backend, with the outer headers.
    pub tunnel_mtu: u16,
}

/// A backend and what runs on it.
#[derive(Debug)]
pub struct Web {
    name: String,
    namespace: Namespace,
    directory: PathBuf,
    vips: Vec<IpAddr>,
    plan: Option<AgentPlan>,
    agent: Option<Process>,
    nginx: Option<Process>,
    echo: Option<Echo>,
}

impl Web {
    /// Puts the VIPs on `lo` of a host that has its addresses already. Nothing runs yet.
    ///
    /// # Errors
    /// The files cannot be written or the addresses cannot be set.
    pub fn new(name: &str, namespace: Namespace, labs: &Path, vips: &[IpAddr]) -> Result<Self> {
        let directory = labs.join(name);
        fs::create_dir_all(directory.join("html"))?;
        fs::write(directory.join("html/big"), vec![b'.'; BIG_BYTES])?;
        fs::write(directory.join("nginx.conf"), nginx_configuration(name))?;
        let lines = vips.iter().map(|vip| match vip {
            IpAddr::V4(vip) => format!("address add {vip}/32 dev lo\n"),
            IpAddr::V6(vip) => format!("address add {vip}/128 dev lo nodad\n"),
        });
        namespace.ip(&lines.collect::<String>())?;
        Ok(Self {
            name: name.to_owned(),
            namespace,
            directory,
            vips: vips.to_vec(),
            plan: None,
            agent: None,
            nginx: None,
            echo: None,
        })
    }

    /// Its namespace.
    #[must_use]
    pub fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// Starts nginx and the echo, and the agent where there is a plan for one; returns when all
    /// are ready.
    ///
    /// # Errors
    /// One of them does not start.
    pub fn start(&mut self, agent: Option<AgentPlan>) -> Result<()> {
        self.plan = agent;
        self.start_again()
    }

    /// Starts what ran before [`kill`](Self::kill).
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub fn start_again(&mut self) -> Result<()> {
        if let Some(plan) = self.plan.clone() {
            self.start_agent(&plan)?;
        }
        let mut nginx = self.namespace.command(NGINX);
        nginx.arg("-p").arg(&self.directory).args(["-c", "nginx.conf", "-e", "stderr"]);
        let log = self.directory.join("nginx.log");
        let mut nginx = Process::start(&format!("nginx of {}", self.name), &mut nginx, &log)?;
        let vips = self.vips.clone();
        wait::until(&format!("nginx answers on {}", self.name), READY_DEADLINE, || {
            nginx.check_alive()?;
            self.namespace.inside(|| {
                let open = |vip: &IpAddr| TcpStream::connect((*vip, HTTP_PORT)).is_ok();
                Ok(vips.iter().all(open))
            })
        })?;
        self.nginx = Some(nginx);
        self.echo = Some(Echo::start(&self.name, &self.namespace, &self.vips)?);
        Ok(())
    }

    fn start_agent(&mut self, plan: &AgentPlan) -> Result<()> {
        let mut agent = self.namespace.command(&plan.program);
        agent.args(["--interface", plan.interface, "--mode", plan.mode, "--tunnel-mtu"]);
        agent.arg(plan.tunnel_mtu.to_string());
        for vip in &self.vips {
            agent.arg("--vip").arg(vip.to_string());
        }
        let ready = Readiness::of(&mut agent, self.directory.join("notify"))?;
        let log = self.directory.join("agent.log");
        let mut agent = Process::start(&format!("agent of {}", self.name), &mut agent, &log)?;
        ready.wait(&mut agent, READY_DEADLINE)?;
        self.agent = Some(agent);
        Ok(())
    }

    /// Kills the agent only, as by `kill -9`.
    ///
    /// # Errors
    /// It cannot be signalled.
    pub fn kill_agent(&mut self) -> Result<()> {
        self.agent.take().map_or(Ok(()), Process::kill)
    }

    /// The host dies: its link goes down and all its programs are killed.
    ///
    /// # Errors
    /// A program cannot be signalled.
    pub fn kill(&mut self) -> Result<()> {
        self.namespace.ip("link set eth0 down")?;
        self.kill_agent()?;
        self.nginx.take().map_or(Ok(()), Process::kill)?;
        self.echo = None;
        Ok(())
    }
}

/// nginx in one process without a log, that never ends a connection by itself.
fn nginx_configuration(name: &str) -> String {
    // A body of some length, so that every answer moves more than headers.
    let body = format!("{name} {}", ".".repeat(500));
    format!(
        r#"daemon off;
master_process off;
pid nginx.pid;
error_log stderr warn;
events {{ worker_connections 4096; }}
http {{
  access_log off;
  default_type text/plain;
  keepalive_requests 1000000000;
  keepalive_timeout 1h;
  client_max_body_size 0;
  client_body_temp_path body;
  proxy_temp_path proxy;
  fastcgi_temp_path fastcgi;
  uwsgi_temp_path uwsgi;
  scgi_temp_path scgi;
  server {{
    listen {HTTP_PORT} backlog=4096;
    listen [::]:{HTTP_PORT} backlog=4096;
    add_header X-Backend {name} always;
    location / {{ return 200 "{body}\n"; }}
    location = /big {{ root html; }}
  }}
}}
"#
    )
}

/// Answers every datagram to a VIP with the backend's name, a space, and what came.
#[derive(Debug)]
struct Echo {
    stop: Option<oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Echo {
    fn start(name: &str, namespace: &Namespace, vips: &[IpAddr]) -> Result<Self> {
        let (ready, is_ready) = mpsc::channel();
        let (stop, stopped) = oneshot::channel();
        let (name, path, vips) = (name.to_owned(), namespace.path(), vips.to_vec());
        let thread = std::thread::spawn(move || {
            let result = kernel::enter_network_namespace(&path).and_then(|()| {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
                runtime.block_on(serve(name, vips, stopped, &ready))
            });
            if let Err(error) = result {
                // Nobody listens any more if it was ready before.
                drop(ready.send(Err(error)));
            }
        });
        is_ready.recv().map_err(|_gone| anyhow!("the echo ended before it was ready"))??;
        Ok(Self { stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        self.stop.take();
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

async fn serve(
    name: String,
    vips: Vec<IpAddr>,
    stopped: oneshot::Receiver<()>,
    ready: &mpsc::Sender<Result<()>>,
) -> Result<()> {
    for vip in vips {
        // One socket a VIP, so that the answer comes from the address that was asked.
        let address = SocketAddr::from((vip, ECHO_PORT));
        let socket = UdpSocket::bind(address).await;
        let socket = socket.with_context(|| format!("the echo cannot listen on {address}"))?;
        tokio::spawn(answer(name.clone(), socket));
    }
    drop(ready.send(Ok(())));
    // Either way the end: told to stop, or the one who would tell is gone.
    drop(stopped.await);
    Ok(())
}

async fn answer(name: String, socket: UdpSocket) {
    let mut buffer = [0; DATAGRAM_BYTES];
    loop {
        // An error here is a client that went away; the socket stays good.
        let Ok((length, from)) = socket.recv_from(&mut buffer).await else { continue };
        let mut reply = format!("{name} ").into_bytes();
        reply.extend_from_slice(&buffer[..length]);
        drop(socket.send_to(&reply, from).await);
    }
}

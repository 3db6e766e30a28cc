//! The lab: a client, a router, load balancers and backends, each in a network namespace.
//!
//! See [`addresses`] for the picture. The router spreads the VIPs over the load balancers by the
//! hash of addresses and ports (ECMP); the backends answer the client directly. Nothing outside
//! the namespaces is touched but pins below `/sys/fs/bpf`, and all is removed at the end: on drop,
//! on Ctrl-C, and by the next lab if this one was killed ([`owner`]).

pub mod addresses;
pub mod balancer;
pub mod bgp;
pub mod command;
pub mod config;
mod filter;
pub mod kernel;
pub mod namespace;
pub mod owner;
pub mod probe;
pub mod programs;
pub mod router;
mod routes;
pub mod wait;
pub mod web;

use std::collections::BTreeMap;
use std::fs;
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use addresses::{Family, ROUTER_HOST};
use balancer::Balancer;
use config::Pool;
use namespace::Namespace;
use owner::{BPF_FILESYSTEM, Owner};
use web::{AgentPlan, Web};

/// The router's address on its switch. Without one of its own the switch takes that of a port, so
/// that the router's address would change with the hosts that come and go.
const ROUTER_MAC: &str = "02:00:00:00:00:01";

/// What of the lab differs from test to test.
#[derive(Debug, Clone)]
pub struct Plan {
    /// What the namespaces' names begin with: `lbtest` or `lbdemo`.
    pub prefix: &'static str,
    /// MTU between router, load balancers and backends; the client's side has 1,500. The default,
    /// 1,700, has room for the outer headers.
    pub lan_mtu: u16,
    /// What the agents take for the MTU of the tunnel; else `lan_mtu`.
    pub tunnel_mtu: Option<u16>,
    /// How many backends there are (1..=9).
    pub webs: u8,
    /// How many load balancers there are (1..=9).
    pub balancers: u8,
    /// The pools, and with them the VIPs.
    pub pools: Vec<Pool>,
    /// How the agents attach.
    pub agent_mode: &'static str,
    /// The load balancers' part about BGP (see [`bgp`]); empty: none.
    pub bgp: String,
}

impl Default for Plan {
    fn default() -> Self {
        Self {
            prefix: "lbtest",
            lan_mtu: 1_700,
            tunnel_mtu: None,
            webs: 4,
            balancers: 2,
            pools: vec![Pool::web(4)],
            agent_mode: "auto",
            bgp: String::new(),
        }
    }
}

/// The lab. Fields drop in order: programs before the namespaces they are in.
#[derive(Debug)]
pub struct Lab {
    /// BIRD on the router, if that learns its routes by BGP.
    pub uplink: Option<router::Bird>,
    /// The load balancers by number; one that is taken away is missing here.
    pub balancers: BTreeMap<u8, Balancer>,
    /// The backends by number.
    pub webs: BTreeMap<u8, Web>,
    /// The client's host.
    pub client: Namespace,
    /// The router.
    pub router: Namespace,
    /// As planned, with what changed since.
    pub plan: Plan,
    directory: PathBuf,
    passes: BTreeMap<String, OwnedFd>,
    owner: Owner,
}

impl Lab {
    /// Makes the hosts and their links and routes. Nothing runs on them, and the VIPs lead nowhere.
    ///
    /// # Errors
    /// We are not root, or a command fails.
    pub fn new(plan: Plan) -> Result<Self> {
        ensure!(kernel::is_root(), "only root may make network namespaces");
        mount_bpf_filesystem()?;
        let labs = programs::target()?.join("lab");
        owner::sweep(&labs);
        let owner = Owner::new(plan.prefix)?;
        let directory = labs.join(owner.name());
        fs::create_dir_all(&directory)
            .with_context(|| format!("cannot make {}", directory.display()))?;
        write_secret(&directory.join("secret"))?;
        let router = Namespace::create(&format!("{}-router", owner.name()))?;
        let client = Namespace::create(&format!("{}-client", owner.name()))?;
        set_up_router(&router)?;
        set_up_client(&router, &client)?;
        let mut lab = Self {
            uplink: None,
            balancers: BTreeMap::new(),
            webs: BTreeMap::new(),
            client,
            router,
            plan,
            directory,
            passes: BTreeMap::new(),
            owner,
        };
        for number in 1..=lab.plan.webs {
            lab.add_web(number)?;
        }
        for number in 1..=lab.plan.balancers {
            lab.add_balancer(number)?;
        }
        Ok(lab)
    }

    /// Makes the lab and starts all of it: agents, nginx, lbd, routes.
    ///
    /// # Errors
    /// One of them does not start.
    pub fn running(plan: Plan) -> Result<Self> {
        let mut lab = Self::new(plan)?;
        lab.start()?;
        let numbers: Vec<u8> = lab.balancers.keys().copied().collect();
        lab.route_to_balancers(&numbers)?;
        Ok(lab)
    }

    /// Starts all but the routes: agents, nginx, lbd.
    ///
    /// # Errors
    /// One of them does not start.
    pub fn start(&mut self) -> Result<()> {
        let agent = self.agent()?;
        for web in self.webs.values_mut() {
            web.start(Some(agent.clone()))?;
        }
        for balancer in self.balancers.values_mut() {
            balancer.configure(&self.plan.pools)?;
            balancer.start()?;
        }
        Ok(())
    }

    /// Its name; the namespaces are called `NAME-HOST`.
    #[must_use]
    pub fn name(&self) -> &str {
        self.owner.name()
    }

    /// Where configurations and logs are; the next lab removes it.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// All VIP addresses.
    #[must_use]
    pub fn vips(&self) -> Vec<IpAddr> {
        self.plan.pools.iter().flat_map(Pool::vips).collect()
    }

    /// How agents are started in this lab.
    ///
    /// # Errors
    /// The agent is not built.
    pub fn agent(&self) -> Result<AgentPlan> {
        Ok(AgentPlan {
            program: programs::find("lb-agent")?,
            interface: "eth0",
            mode: self.plan.agent_mode,
            tunnel_mtu: self.plan.tunnel_mtu.unwrap_or(self.plan.lan_mtu),
        })
    }

    /// A load balancer of the lab.
    ///
    /// # Errors
    /// It is not there (now).
    pub fn balancer(&mut self, number: u8) -> Result<&mut Balancer> {
        self.balancers.get_mut(&number).with_context(|| format!("there is no lb{number}"))
    }

    /// A backend of the lab.
    ///
    /// # Errors
    /// There is none of this number.
    pub fn web(&mut self, number: u8) -> Result<&mut Web> {
        self.webs.get_mut(&number).with_context(|| format!("there is no web{number}"))
    }

    /// Makes the host of a load balancer; lbd does not run yet and no route leads there.
    ///
    /// # Errors
    /// A command fails.
    pub fn add_balancer(&mut self, number: u8) -> Result<()> {
        let namespace = self.add_host(&format!("lb{number}"), 10 + number)?;
        // The lab's client has no checksum offload either: XDP sees what would be on the wire.
        offload_off(&namespace, &["tx"])?;
        let secret = self.directory.join("secret");
        let mut balancer = Balancer::new(number, namespace, &self.directory, &secret)?;
        balancer.bgp.clone_from(&self.plan.bgp);
        self.balancers.insert(number, balancer);
        Ok(())
    }

    /// Makes the host of router `number` (1..=9), beside the load balancers; nothing runs there.
    ///
    /// # Errors
    /// A command fails.
    pub fn add_router(&mut self, number: u8) -> Result<Namespace> {
        self.add_host(&format!("peer{number}"), bgp::FIRST_PEER + number)
    }

    /// Takes a load balancer away as by power-off; routes to it stay.
    ///
    /// # Errors
    /// It is not there, or something cannot be removed.
    pub fn remove_balancer(&mut self, number: u8) -> Result<()> {
        let balancer =
            self.balancers.remove(&number).with_context(|| format!("there is no lb{number}"))?;
        self.passes.remove(balancer.name());
        balancer.power_off()
    }

    /// Takes the program off the router's end of a host's link: what XDP sends there is lost from
    /// then on, as on a card without a free place in its ring.
    pub fn clog(&mut self, host: &str) {
        self.passes.remove(host);
    }

    fn add_web(&mut self, number: u8) -> Result<()> {
        let name = format!("web{number}");
        let namespace = self.add_host(&name, 20 + number)?;
        let web = Web::new(&name, namespace, &self.directory, &self.vips())?;
        self.webs.insert(number, web);
        Ok(())
    }

    /// A host on the router's switch, with the addresses of `host` and the router as its way out.
    fn add_host(&mut self, name: &str, host: u8) -> Result<Namespace> {
        let namespace = Namespace::create(&format!("{}-{name}", self.owner.name()))?;
        let mtu = self.plan.lan_mtu;
        // A host that comes back has the address it had: neighbours remember it.
        self.router.ip(&format!(
            "link add dev {name} mtu {mtu} type veth \
             peer name eth0 mtu {mtu} address 02:00:00:00:00:{host:02} netns {}\n\
             link set dev {name} master br0 up\n",
            namespace.name(),
        ))?;
        namespace.ip("link set eth0 up")?;
        self.configure_host(&namespace, host)?;
        // XDP_TX from the host's end of the link needs a program at this end.
        let pass = self.router.inside(|| kernel::attach_xdp_pass(name))?;
        self.passes.insert(name.to_owned(), pass);
        Ok(namespace)
    }

    /// Addresses and default routes of a host; the kernel forgets part of them on link down.
    fn configure_host(&self, namespace: &Namespace, host: u8) -> Result<()> {
        let [v4, v6] = Family::BOTH.map(|family| addresses::lan(family, host));
        let [router4, router6] = Family::BOTH.map(|family| addresses::lan(family, ROUTER_HOST));
        namespace.ip(&format!(
            "address replace {v4}/25 dev eth0\n\
             address replace {v6}/64 dev eth0 nodad\n\
             route replace default via {router4}\n\
             route replace default via {router6}\n",
        ))?;
        Ok(())
    }

    /// Brings a backend back that was killed: link, addresses, agent, nginx, echo.
    ///
    /// # Errors
    /// Something does not start.
    pub fn revive_web(&mut self, number: u8) -> Result<()> {
        let namespace = self.web(number)?.namespace().clone();
        namespace.ip("link set eth0 up")?;
        self.configure_host(&namespace, 20 + number)?;
        self.web(number)?.start_again()
    }
}

/// The router: forwarding, and a switch for load balancers and backends.
fn set_up_router(router: &Namespace) -> Result<()> {
    router.set(&[
        ("ipv4/ip_forward", "1"),
        ("ipv6/conf/all/forwarding", "1"),
        ("ipv6/conf/default/forwarding", "1"),
        // Addresses and ports, as a router in front of load balancers does.
        ("ipv4/fib_multipath_hash_policy", "1"),
        ("ipv6/fib_multipath_hash_policy", "1"),
        // Every packet too big is answered, however many come.
        ("ipv4/icmp_ratelimit", "0"),
        ("ipv6/icmp/ratelimit", "0"),
        // The switch's hosts come and go; nothing here is worth a redirect.
        ("ipv4/conf/all/send_redirects", "0"),
        ("ipv4/conf/default/send_redirects", "0"),
    ])?;
    let [v4, v6] = Family::BOTH.map(|family| addresses::lan(family, ROUTER_HOST));
    router.ip(&format!(
        "link add br0 address {ROUTER_MAC} type bridge forward_delay 0 mcast_snooping 0\n\
         link set br0 up\n\
         address add {v4}/25 dev br0\n\
         address add {v6}/64 dev br0 nodad\n",
    ))?;
    Ok(())
}

/// The client: all of two networks are its own, each address a source of flows.
fn set_up_client(router: &Namespace, client: &Namespace) -> Result<()> {
    router.ip(&format!(
        "link add dev client type veth peer name eth0 netns {}\n\
         link set client up\n\
         address add 192.0.2.129/30 dev client\n\
         address add 2001:db8:2::1/64 dev client nodad\n",
        client.name(),
    ))?;
    filter::forget_hashes(router, "client")?;
    client.set(&[
        ("ipv6/ip_nonlocal_bind", "1"),
        ("ipv4/ping_group_range", "0 0"),
        // More flows than the default range of ports has room for, from few addresses.
        ("ipv4/ip_local_port_range", "10000 65000"),
    ])?;
    client.ip("link set eth0 up\n\
         address add 192.0.2.130/30 dev eth0\n\
         address add 2001:db8:2::2/64 dev eth0 nodad\n\
         route add local 198.51.100.0/24 dev lo\n\
         route add local 2001:db8:c::/64 dev lo\n\
         route add default via 192.0.2.129\n\
         route add default via 2001:db8:2::1\n")?;
    router.ip("route add 198.51.100.0/24 via 192.0.2.130\n\
         route add 2001:db8:c::/64 via 2001:db8:2::2\n")?;
    // A checksum that the hardware would have to finish is lost in XDP.
    offload_off(client, &["tx"])
}

fn offload_off(namespace: &Namespace, features: &[&str]) -> Result<()> {
    let mut ethtool = namespace.command("ethtool");
    ethtool.args(["-K", "eth0"]);
    for feature in features {
        ethtool.args([feature, "off"]);
    }
    command::run(&mut ethtool)?;
    Ok(())
}

/// The cluster secret, readable for root only as lbd asks.
fn write_secret(path: &Path) -> Result<()> {
    use std::io::Write as _;
    let mut file = fs::File::options().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(b"000102030405060708090a0b0c0d0e0f\n")?;
    Ok(())
}

/// Pins need the BPF file system; a fresh machine may not have it mounted.
fn mount_bpf_filesystem() -> Result<()> {
    let mounts = fs::read_to_string("/proc/self/mounts").context("cannot read the mounts")?;
    let mounted = |line: &str| {
        let mut words = line.split(' ').skip(1);
        words.next() == Some(BPF_FILESYSTEM) && words.next() == Some("bpf")
    };
    if !mounts.lines().any(mounted) {
        command::run(Command::new("mount").args(["-t", "bpf", "bpf", BPF_FILESYSTEM]))?;
    }
    Ok(())
}

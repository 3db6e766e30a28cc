//! Two network namespaces joined by a veth pair, for one test thread.
//!
//! The thread is in the near namespace; the far one exists as long as its descriptor is open. Both
//! vanish with the thread, so nothing has to be cleaned up.

use std::fs::File;
use std::future::Future;
use std::net::IpAddr;
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::time::Duration;

use futures_util::TryStreamExt as _;
use rtnetlink::packet_core::NetlinkPayload;
use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::address::AddressHeaderFlags;
use rtnetlink::packet_route::link::LinkAttribute;
use rtnetlink::packet_route::neighbour::NeighbourMessage;
use rtnetlink::packet_route::route::{RouteScope, RouteType};
use rtnetlink::sys::protocols::NETLINK_ROUTE;
use rtnetlink::{Handle, LinkUnspec, LinkVeth, RouteMessageBuilder};
use tokio::sync::mpsc;

use crate::host::netlink::codec::Message;
use crate::host::netlink::{HostEvent, NeighbourMode, NextHops, Resolver};

/// Everything a test waits for arrives within this, or the test fails.
const DEADLINE: Duration = Duration::from_secs(30);
pub(super) const NEAR_MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
pub(super) const FAR_MAC: [u8; 6] = [2, 0, 0, 0, 0, 2];

pub(super) struct Lab {
    pub(super) near: Handle,
    pub(super) far: Handle,
    near_namespace: File,
    far_namespace: File,
}

/// Runs a test in a thread with a namespace of its own, or says why it cannot.
pub(super) fn run<F: Future<Output = ()>>(test: impl FnOnce(Lab) -> F + Send + 'static) {
    // SAFETY: geteuid has no arguments and always succeeds.
    if unsafe { libc::geteuid() } != 0 {
        println!("SKIP needs root to make network namespaces");
        return;
    }
    let thread = std::thread::spawn(move || {
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let lab = Lab::new().await;
            tokio::time::timeout(4 * DEADLINE, test(lab)).await.expect("the test ended in time");
        });
    });
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

fn new_namespace() -> File {
    // SAFETY: unshare takes a flag and changes only the calling thread's namespace.
    let code = unsafe { libc::unshare(libc::CLONE_NEWNET) };
    assert_eq!(code, 0, "unshare: {}", std::io::Error::last_os_error());
    File::open("/proc/thread-self/ns/net").expect("the namespace's file")
}

fn enter(namespace: &File) {
    // SAFETY: setns takes an open descriptor and a flag and changes only the calling thread.
    let code = unsafe { libc::setns(namespace.as_fd().as_raw_fd(), libc::CLONE_NEWNET) };
    assert_eq!(code, 0, "setns: {}", std::io::Error::last_os_error());
}

fn connect() -> Handle {
    let (connection, handle, _) = rtnetlink::new_connection().expect("a netlink socket");
    tokio::spawn(connection);
    handle
}

impl Lab {
    /// near0 (10.9.0.1/24, fd09::1/64) - far0 (10.9.0.2/24, fd09::2/64).
    async fn new() -> Self {
        let far_namespace = new_namespace();
        let far = connect();
        let near_namespace = new_namespace();
        let near = connect();
        // Addresses are final at once, so that none changes while a test counts.
        for interfaces in ["all", "default"] {
            Self::near_setting(&format!("ipv6/conf/{interfaces}/accept_dad"), "0");
        }
        let lab = Self { near, far, near_namespace, far_namespace };
        let veth = LinkVeth::new("near0", "far0").address(NEAR_MAC.to_vec()).up().build();
        lab.near.link().add(veth).execute().await.expect("a veth pair");
        let index = index(&lab.near, "far0").await;
        let fd = lab.far_namespace.as_raw_fd();
        let moved = LinkUnspec::new_with_index(index).setns_by_fd(fd).build();
        lab.near.link().change(moved).execute().await.expect("far0 in the far namespace");
        lab.set_mac(FAR_MAC).await;
        up(&lab.far, "far0").await;
        address(&lab.near, "near0", "10.9.0.1", 24).await;
        address(&lab.far, "far0", "10.9.0.2", 24).await;
        address(&lab.near, "near0", "fd09::1", 64).await;
        address(&lab.far, "far0", "fd09::2", 64).await;
        lab
    }

    /// Adds an address to the far end.
    pub(super) async fn far_address(&self, text: &str, length: u8) {
        address(&self.far, "far0", text, length).await;
    }

    /// Makes the far end answer for a whole prefix.
    pub(super) async fn far_owns(&self, prefix: RouteMessageBuilder<IpAddr>) {
        up(&self.far, "lo").await;
        let lo = index(&self.far, "lo").await;
        let prefix = prefix.output_interface(lo).table_id(libc::RT_TABLE_LOCAL.into());
        let mut route = prefix.scope(RouteScope::Host).build();
        route.header.kind = RouteType::Local;
        self.far.route().add(route).execute().await.expect("a local prefix");
    }

    /// Changes the far end's MAC address.
    pub(super) async fn set_mac(&self, mac: [u8; 6]) {
        let index = index(&self.far, "far0").await;
        let change = LinkUnspec::new_with_index(index).address(mac.to_vec()).build();
        self.far.link().change(change).execute().await.expect("a new MAC address");
    }

    /// Writes a setting below /proc/sys/net of the far namespace.
    pub(super) fn far_setting(&self, name: &str, value: &str) {
        enter(&self.far_namespace);
        let path = format!("/proc/sys/net/{name}");
        std::fs::write(&path, value).unwrap_or_else(|error| panic!("{path}: {error}"));
        enter(&self.near_namespace);
    }

    /// Writes a setting below /proc/sys/net of the near namespace.
    pub(super) fn near_setting(name: &str, value: &str) {
        let path = format!("/proc/sys/net/{name}");
        std::fs::write(&path, value).unwrap_or_else(|error| panic!("{path}: {error}"));
    }

    pub(super) async fn near_neighbours(&self) -> Vec<NeighbourMessage> {
        let mut all = Vec::new();
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            let dump = self.near.neighbours().get().set_address_family(family).execute();
            all.extend(dump.try_collect::<Vec<_>>().await.expect("a dump"));
        }
        all
    }

    pub(super) async fn near_index(&self) -> u32 {
        index(&self.near, "near0").await
    }

    pub(super) async fn near_up(&self, is_up: bool) {
        let change = LinkUnspec::new_with_name("near0");
        let change = if is_up { change.up() } else { change.down() };
        self.near.link().change(change.build()).execute().await.expect("near0 switched");
    }
}

/// Sends requests that are to be acknowledged, and waits for that without letting any task run.
pub(super) fn ask_all(requests: impl Iterator<Item = Message>) {
    let mut socket = rtnetlink::sys::Socket::new(NETLINK_ROUTE).expect("a netlink socket");
    socket.bind_auto().expect("bound");
    let mut answer = Vec::with_capacity(4_096);
    for mut request in requests {
        request.finalize();
        let mut bytes = vec![0; request.buffer_len()];
        request.serialize(&mut bytes);
        socket.send(&bytes, 0).expect("sent");
        answer.clear();
        socket.recv(&mut answer, 0).expect("an answer");
        let answer = Message::deserialize(&answer).expect("an acknowledgement");
        assert!(
            matches!(&answer.payload, NetlinkPayload::Error(error) if error.code.is_none()),
            "{answer:?}"
        );
    }
}

async fn index(handle: &Handle, name: &str) -> u32 {
    let mut links = handle.link().get().match_name(name).execute();
    links.try_next().await.expect("a link").expect("a link").header.index
}

async fn up(handle: &Handle, name: &str) {
    let change = LinkUnspec::new_with_name(name).up().build();
    handle.link().change(change).execute().await.expect("link up");
}

async fn address(handle: &Handle, name: &str, text: &str, length: u8) {
    let link = index(handle, name).await;
    let address: IpAddr = text.parse().expect("an address");
    let mut request = handle.address().add(link, address, length);
    // No duplicate detection: the address is used at once.
    request.message_mut().header.flags = AddressHeaderFlags::Nodad;
    request.execute().await.expect("an address added");
}

/// The MTU of a link, for a test that changes it.
pub(super) async fn set_mtu(handle: &Handle, name: &str, mtu: u32) {
    let mut change = LinkUnspec::new_with_name(name).build();
    change.attributes.push(LinkAttribute::Mtu(mtu));
    handle.link().change(change).execute().await.expect("a new MTU");
}

/// A resolver with the events it has sent.
pub(super) struct Watched {
    pub(super) resolver: Resolver,
    events: mpsc::Receiver<HostEvent>,
    pub(super) latest: NextHops,
    pub(super) mode: Option<NeighbourMode>,
    pub(super) links: Vec<HostEvent>,
}

impl Watched {
    pub(super) fn start(mode: NeighbourMode, destinations: &[&str]) -> Self {
        let (sender, events) = mpsc::channel(4);
        let resolver = Resolver::spawn(mode, sender).expect("a resolver");
        let latest = NextHops::new();
        let watched = Self { resolver, events, latest, mode: None, links: Vec::new() };
        watched.follow(destinations);
        watched
    }

    pub(super) fn follow(&self, destinations: &[&str]) {
        let set = destinations.iter().map(|text| text.parse().expect("an address")).collect();
        self.resolver.set_destinations(&set).expect("accepted");
    }

    /// Takes events until the condition holds.
    pub(super) async fn until(&mut self, what: &str, condition: impl Fn(&Self) -> bool) {
        let wait = async {
            while !condition(self) {
                match self.events.recv().await.expect("the resolver lives") {
                    HostEvent::NextHops(next_hops) => self.latest = next_hops,
                    HostEvent::NeighbourMode(mode) => self.mode = Some(mode),
                    event @ (HostEvent::LinkUp(_)
                    | HostEvent::LinkDown(_)
                    | HostEvent::LinkGone(_)) => self.links.push(event),
                }
            }
        };
        let ended = tokio::time::timeout(DEADLINE, wait).await;
        assert!(ended.is_ok(), "{what} did not come; last: {:?} {:?}", self.latest, self.links);
    }

    pub(super) async fn until_mac(&mut self, destination: &str, mac: [u8; 6]) {
        let address: IpAddr = destination.parse().expect("an address");
        self.until(&format!("{destination} at {mac:x?}"), |watched| {
            matches!(watched.latest.get(&address), Some(Ok(hop)) if hop.destination_mac == mac)
        })
        .await;
    }

    pub(super) async fn until_code(&mut self, destination: &str, code: &str) {
        let address: IpAddr = destination.parse().expect("an address");
        self.until(&format!("{destination} {code}"), |watched| {
            matches!(watched.latest.get(&address), Some(Err(reason)) if reason.code() == code)
        })
        .await;
    }

    pub(super) fn mtu(&self, destination: &str) -> u16 {
        let address: IpAddr = destination.parse().expect("an address");
        self.latest[&address].as_ref().expect("resolved").mtu
    }
}

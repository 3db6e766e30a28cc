//! Two speakers over loopback TCP, with real sockets and threads.

use std::net::{IpAddr, Ipv4Addr, TcpListener, UdpSocket};

use super::*;
use crate::bgp::route::Attributes;
use crate::bgp::session::{Cause, State};
use crate::desired::bgp as settings;
use crate::host::clock;

mod bfd_loss;
mod sessions;
mod sockets;

/// How long anything may take before a test gives up.
const PATIENCE: Duration = Duration::from_secs(30);
/// The name that each end has for the other one.
const PEER: &str = "edge";
const PREFIX4: &str = "198.51.100.0/24";
const PREFIX6: &str = "2001:db8:1::/48";

/// What is wanted of one end, changed and ordered by the test.
struct End {
    speaker: Option<Speaker>,
    reports: watch::Receiver<Arc<SpeakerReport>>,
    orders: Orders,
    options: Options,
}

fn peer(address: IpAddr, port: u16, remote_as: u32) -> settings::Peer {
    settings::Peer {
        name: PEER.to_owned(),
        address,
        port,
        remote_as,
        hold_time: Duration::from_secs(30),
        monitor: true,
        ..settings::sample::peer()
    }
}

fn rib(prefixes: &[&str], asn: u32) -> Arc<Rib> {
    let attributes = |prefix: &IpNet| Attributes {
        as_path: vec![asn],
        next_hop: Some(if prefix.addr().is_ipv4() {
            "192.0.2.77".parse().unwrap()
        } else {
            "2001:db8::77".parse().unwrap()
        }),
        ..Attributes::default()
    };
    let prefixes = prefixes.iter().map(|prefix| prefix.parse::<IpNet>().unwrap());
    Arc::new(prefixes.map(|prefix| (prefix, Arc::new(attributes(&prefix)))).collect())
}

/// A port that was free a moment ago.
fn port(address: IpAddr) -> u16 {
    let tcp = TcpListener::bind((address, 0)).unwrap();
    tcp.local_addr().unwrap().port()
}

impl End {
    fn spawn(local_as: u32, host: u8) -> Self {
        let any = UdpSocket::bind("127.0.0.1:0").unwrap();
        let options = Options {
            restarted: false,
            forwarding_kept: true,
            seed: u64::from(local_as),
            bfd_ports: bfd::Ports { one_hop: any.local_addr().unwrap().port(), multihop: 0 },
            bfd_peer_ports: bfd::Ports::STANDARD,
            clock: clock::boot_time,
        };
        let router_id = Ipv4Addr::new(192, 0, 2, host);
        let orders = Orders {
            bgp: settings::Bgp { local_as, router_id, ..settings::sample::bgp() },
            passwords: BTreeMap::new(),
            routes: BTreeMap::new(),
            own: Arc::new([PREFIX4, PREFIX6].iter().map(|it| it.parse().unwrap()).collect()),
            ready: true,
            decision: Decision { id: 0, at: clock::boot_time() },
        };
        drop(any);
        let (speaker, reports) = Speaker::spawn(options).unwrap();
        Self { speaker: Some(speaker), reports, orders, options }
    }

    /// The settings of its only peer.
    fn peer(&mut self) -> &mut settings::Peer {
        self.orders.bgp.peers.get_mut(PEER).unwrap()
    }

    fn password(&mut self, text: &str) {
        self.peer().has_password = true;
        let password = Password::parse(text.as_bytes()).unwrap();
        self.orders.passwords.insert(PEER.to_owned(), password);
    }

    fn announce(&mut self, prefixes: &[&str]) {
        let rib = rib(prefixes, self.orders.bgp.local_as);
        self.orders.routes.insert(PEER.to_owned(), rib);
        self.order();
    }

    /// Orders what is wanted now, as a new decision.
    fn order(&mut self) {
        let decision = Decision { id: self.orders.decision.id + 1, at: clock::boot_time() };
        self.orders.decision = decision;
        self.speaker.as_ref().unwrap().set(Arc::new(self.orders.clone()));
    }

    async fn wait_for(
        &mut self,
        what: &str,
        is: impl Fn(&SpeakerReport) -> bool,
    ) -> Arc<SpeakerReport> {
        let seen = self.reports.wait_for(|report| is(report));
        let seen = tokio::time::timeout(PATIENCE, seen).await.map(|it| Arc::clone(&it.unwrap()));
        seen.unwrap_or_else(|_| panic!("{what}: {:#?}", self.reports.borrow()))
    }

    /// Waits until the report of its peer says so.
    async fn wait(&mut self, what: &str, is: impl Fn(&PeerReport) -> bool) -> Arc<PeerReport> {
        let is = |report: &SpeakerReport| report.peers.get(PEER).is_some_and(|it| is(it));
        Arc::clone(&self.wait_for(what, is).await.peers[PEER])
    }

    async fn wait_up(&mut self) -> Arc<PeerReport> {
        self.wait("up", |report| report.state == State::Established).await
    }

    async fn wait_error(&mut self, text: &str) -> Arc<PeerReport> {
        self.wait(text, |report| {
            report.last_error.as_ref().is_some_and(|error| error.text.contains(text))
        })
        .await
    }

    async fn wait_received(&mut self, prefixes: &[&str]) {
        let want: BTreeSet<IpNet> = prefixes.iter().map(|it| it.parse().unwrap()).collect();
        let what = format!("received {want:?}");
        self.wait(&what, |report| report.received.keys().copied().collect::<BTreeSet<_>>() == want)
            .await;
    }

    async fn stop(&mut self, text: &str, notify: bool) {
        self.speaker.take().unwrap().stop(text, notify).await;
    }

    /// A new speaker in the place of the one that is stopped.
    fn respawn(&mut self) {
        let (speaker, reports) = Speaker::spawn(self.options).unwrap();
        (self.speaker, self.reports) = (Some(speaker), reports);
    }
}

/// Two ends, each the peer of the other one and listening, not ordered yet.
fn pair(address: &str) -> [End; 2] {
    let address: IpAddr = address.parse().unwrap();
    let mut ends = [End::spawn(65_001, 1), End::spawn(65_002, 2)];
    let ports = [port(address), port(address)];
    for (here, there) in [(0, 1), (1, 0)] {
        let remote_as = ends[there].orders.bgp.local_as;
        let bgp = &mut ends[here].orders.bgp;
        bgp.listen = vec![SocketAddr::new(address, ports[here])];
        bgp.peers.insert(PEER.to_owned(), peer(address, ports[there], remote_as));
    }
    ends
}

/// The same, but only the first one connects.
fn client_and_server(address: &str) -> [End; 2] {
    let [mut client, mut server] = pair(address);
    client.orders.bgp.listen.clear();
    server.peer().passive = true;
    [client, server]
}

/// The same, in session.
async fn up(address: &str) -> [End; 2] {
    let mut ends = client_and_server(address);
    for end in &mut ends {
        end.order();
    }
    for end in &mut ends {
        end.wait_up().await;
    }
    ends
}

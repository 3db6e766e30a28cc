//! Two threads that watch each other over the loopback.

use std::net::UdpSocket;

use super::*;
use crate::host::clock;

/// How long anything may take before a test gives up.
const PATIENCE: Duration = Duration::from_secs(20);

/// Two UDP ports that were free a moment ago.
fn ports(address: IpAddr) -> [u16; 2] {
    let sockets = [(); 2].map(|()| UdpSocket::bind((address, 0)).unwrap());
    sockets.map(|socket| socket.local_addr().unwrap().port())
}

struct End {
    bfd: Bfd,
    reports: watch::Receiver<Arc<Reports>>,
    peer: Peer,
}

impl End {
    fn new(address: IpAddr, port: u16, to: u16, min_ttl: u8) -> Self {
        let options = Options {
            ports: Ports { one_hop: port, multihop: 0 },
            seed: port.into(),
            clock: clock::boot_time,
        };
        let (bfd, reports) = Bfd::spawn(options).unwrap();
        let settings = desired::bgp::Bfd { interval: Duration::from_millis(100), multiplier: 5 };
        let multihop = false;
        let peer = Peer { address, port: to, local: Some(address), min_ttl, multihop, settings };
        Self { bfd, reports, peer }
    }

    fn watch(&self, peer: Peer) {
        self.bfd.set(Arc::new(Peers::from([("edge".to_owned(), peer)])));
    }

    async fn wait(&mut self, what: &str, is: impl Fn(&BfdReport) -> bool) -> BfdReport {
        let seen = self.reports.wait_for(|reports| reports.get("edge").is_some_and(&is));
        let seen = tokio::time::timeout(PATIENCE, seen).await.map(|it| it.unwrap()["edge"].clone());
        seen.unwrap_or_else(|_| panic!("{what}: {:?}", self.reports.borrow()))
    }
}

async fn both_up(address: &str) -> [End; 2] {
    let address = address.parse().unwrap();
    let [a, b] = ports(address);
    let mut ends = [End::new(address, a, b, 255), End::new(address, b, a, 255)];
    for end in &ends {
        end.watch(end.peer);
    }
    for end in &mut ends {
        end.wait("up", |report| report.state == "Up").await;
    }
    ends
}

#[tokio::test]
async fn a_peer_that_ends_its_session_is_no_loss() {
    for address in ["127.0.0.1", "::1"] {
        let [mut here, there] = both_up(address).await;
        let report = here.wait("fast", |report| report.detection_time_us == 500_000).await;
        assert_eq!((report.losses, report.diagnostic.as_str()), (0, "No Diagnostic"));
        there.bfd.stop();
        let report = here.wait("down", |report| report.state == "Down").await;
        assert_eq!(report.diagnostic, "Neighbor Signaled Session Down");
        assert_eq!(report.losses, 0);
    }
}

/// A peer that can fall silent: it answers `end` until `done`.
async fn play(end: &mut End, port: u16, done: impl Fn(&BfdReport) -> bool) {
    let socket = socket::receiver(false, port).unwrap();
    let sender = socket::sender(end.peer.local, end.peer.address, port).unwrap();
    let to = (end.peer.address, end.peer.port);
    let mut machine = machine::Machine::new(end.peer.settings, 5, 5, clock::boot_time());
    let mut reports = end.reports.clone();
    while !reports.borrow_and_update().get("edge").is_some_and(&done) {
        let now = clock::boot_time();
        let mut buffer = [0; packet::LENGTH];
        let mut out = Vec::new();
        while let Some(origin) = socket::receive(&socket, &mut buffer).unwrap() {
            let packet = packet::Packet::decode(&buffer[..origin.length]).unwrap();
            out.extend(machine.receive(&packet, now));
        }
        out.extend(machine.tick(now));
        for packet in out {
            sender.send_to(&packet.encode(), to).await.unwrap();
        }
        let pause = machine.deadline().unwrap().saturating_sub(now);
        tokio::select! {
            changed = reports.changed() => changed.unwrap(),
            ready = socket.readable() => ready.unwrap(),
            () = tokio::time::sleep(pause) => {}
        }
    }
}

#[tokio::test]
async fn a_peer_that_falls_silent_is_lost_in_the_detection_time_and_comes_back() {
    let address = "127.0.0.1".parse().unwrap();
    let [a, b] = ports(address);
    let mut here = End::new(address, a, b, 255);
    here.watch(here.peer);
    // The peer's packets come from `b` and go to `a`.
    let mut end = End { peer: Peer { port: a, ..here.peer }, ..here };
    play(&mut end, b, |report| report.state == "Up" && report.detection_time_us == 500_000).await;
    let silent = clock::boot_time();
    here = end;
    let report = here.wait("lost", |report| report.losses == 1).await;
    let took = clock::boot_time() - silent;
    assert_eq!(report.diagnostic, "Control Detection Time Expired");
    assert!(took > Duration::from_millis(390), "{took:?}");
    play(&mut here, b, |report| report.state == "Up").await;
}

#[tokio::test]
async fn over_several_hops_another_port_and_any_ttl_will_do() {
    let address = "127.0.0.1".parse().unwrap();
    let [a, b] = ports(address);
    let mut ends = [(a, b), (b, a)].map(|(port, to)| {
        let mut end = End::new(address, port, to, 0);
        end.bfd.stop();
        let ports = Ports { one_hop: 0, multihop: port };
        let options = Options { ports, seed: port.into(), clock: clock::boot_time };
        (end.bfd, end.reports) = Bfd::spawn(options).unwrap();
        end.watch(Peer { multihop: true, ..end.peer });
        end
    });
    for end in &mut ends {
        end.wait("up", |report| report.state == "Up").await;
    }
}

#[tokio::test]
async fn packets_from_far_away_are_not_heard() {
    let address = "127.0.0.1".parse().unwrap();
    let [a, b] = ports(address);
    let mut here = End::new(address, a, b, 255);
    here.watch(here.peer);
    here.wait("down", |report| report.state == "Down").await;
    let far = UdpSocket::bind((address, 0)).unwrap();
    let near = socket2::Socket::from(UdpSocket::bind((address, 0)).unwrap());
    near.set_ttl_v4(255).unwrap();
    let near = UdpSocket::from(near);
    let hello = packet::Packet {
        state: packet::State::Down,
        diagnostic: packet::Diagnostic::NONE,
        poll: false,
        last: false,
        demand: false,
        multiplier: 1,
        mine: 9,
        yours: 0,
        desired_tx: Duration::from_secs(1),
        required_rx: Duration::from_secs(1),
    };
    for bytes in [&hello.encode()[..], b"no packet", b""] {
        far.send_to(bytes, (address, a)).unwrap();
    }
    near.send_to(b"no packet", (address, a)).unwrap();
    // What was sent before has been handled when this one is; it alone makes the session Init.
    near.send_to(&packet::Packet { mine: 10, ..hello }.encode(), (address, a)).unwrap();
    let report = here.wait("init", |report| report.state == "Init").await;
    assert_eq!(report.losses, 0);
    // Without another word it is given up again.
    here.wait("given up", |report| report.state == "Down").await;
}

#[tokio::test]
async fn a_port_in_use_is_told_and_tried_again() {
    let address = "127.0.0.1".parse().unwrap();
    let taken = UdpSocket::bind(("0.0.0.0", 0)).unwrap();
    let port = taken.local_addr().unwrap().port();
    let mut here = End::new(address, port, ports(address)[0], 255);
    here.watch(here.peer);
    let trouble = |report: &BfdReport| report.diagnostic.contains("cannot listen on UDP port");
    here.wait("trouble", trouble).await;
    drop(taken);
    here.wait("no trouble", |report| !trouble(report)).await;
}

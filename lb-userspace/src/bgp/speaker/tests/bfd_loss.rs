//! BFD and the session.

use tokio::task::JoinHandle;

use super::*;

const SETTINGS: settings::Bfd =
    settings::Bfd { interval: Duration::from_millis(100), multiplier: 5 };

/// Passes BFD packets on to `port`, until it is aborted.
fn relay(from: &UdpSocket, port: u16) -> JoinHandle<()> {
    let from = tokio::net::UdpSocket::from_std(from.try_clone().unwrap()).unwrap();
    tokio::spawn(async move {
        let out = UdpSocket::bind("127.0.0.1:0").unwrap();
        out.set_ttl(255).unwrap();
        let mut buffer = [0; 64];
        loop {
            let length = from.recv(&mut buffer).await.unwrap();
            out.send_to(&buffer[..length], ("127.0.0.1", port)).unwrap();
        }
    })
}

/// Two ends with BFD, not ordered yet: the server's packets reach the client through the socket.
fn pair_with_bfd() -> ([End; 2], UdpSocket) {
    let between = UdpSocket::bind("127.0.0.1:0").unwrap();
    between.set_nonblocking(true).unwrap();
    let mut ends = client_and_server("127.0.0.1");
    // In the field all have the same port; on one machine each is told the other one's.
    let ports = [ends[1].options.bfd_ports.one_hop, between.local_addr().unwrap().port()];
    for (end, one_hop) in ends.iter_mut().zip(ports) {
        end.options.bfd_peer_ports = bfd::Ports { one_hop, multihop: 0 };
        end.respawn();
        end.peer().bfd = Some(SETTINGS);
    }
    (ends, between)
}

fn path(report: &PeerReport) -> &str {
    report.bfd.as_ref().map_or("", |bfd| &bfd.state)
}

#[tokio::test]
async fn a_lost_path_takes_the_session_down_and_it_comes_back() {
    let ([mut client, mut server], between) = pair_with_bfd();
    let port = client.options.bfd_ports.one_hop;
    let relayed = relay(&between, port);
    client.order();
    server.order();
    for end in [&mut client, &mut server] {
        end.wait("both up", |it| path(it) == "Up" && it.state == State::Established).await;
    }
    // A session that is reset meanwhile knows it, too.
    client.peer().hold_time = Duration::from_secs(20);
    client.order();
    let is_new = |it: &PeerReport| it.negotiated.as_ref().is_some_and(|it| it.hold_time_s == 20);
    client
        .wait("reset", |it| is_new(it) && it.state == State::Established && path(it) == "Up")
        .await;
    relayed.abort();
    // The session alone would have noticed after 20 s, TCP not at all.
    let lost = |it: &PeerReport| it.counters.flaps.contains_key(&Cause::Bfd);
    let report = client.wait("down", lost).await;
    assert!(report.bfd.as_ref().is_some_and(|bfd| bfd.losses > 0));
    server.wait("told", |it| !it.counters.flaps.is_empty()).await;
    let relayed = relay(&between, port);
    for end in [&mut client, &mut server] {
        end.wait("both up", |it| path(it) == "Up" && it.state == State::Established).await;
    }
    relayed.abort();
}

#[tokio::test]
async fn a_peer_without_bfd_keeps_its_session() {
    let ([mut client, mut server], _between) = pair_with_bfd();
    server.peer().bfd = None;
    client.order();
    server.order();
    client.wait("up", |it| it.state == State::Established && path(it) == "Down").await;
    // And one that stops doing BFD on purpose.
    client.peer().bfd = None;
    client.announce(&[PREFIX4]);
    client.wait("no bfd", |it| it.bfd.is_none()).await;
    server.wait_received(&[PREFIX4]).await;
    assert!(server.reports.borrow().peers[PEER].counters.flaps.is_empty());
}

#[tokio::test]
async fn bfd_that_ends_on_purpose_is_no_loss() {
    let ([mut client, mut server], between) = pair_with_bfd();
    let relayed = relay(&between, client.options.bfd_ports.one_hop);
    client.order();
    server.order();
    for end in [&mut client, &mut server] {
        end.wait("both up", |it| path(it) == "Up" && it.state == State::Established).await;
    }
    server.peer().bfd = None;
    server.announce(&[PREFIX4]);
    client.wait("path down", |it| path(it) == "Down").await;
    client.wait_received(&[PREFIX4]).await;
    assert!(client.reports.borrow().peers[PEER].counters.flaps.is_empty());
    relayed.abort();
}

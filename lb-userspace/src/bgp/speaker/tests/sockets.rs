//! What stands between the sockets and the sessions: keys, TTLs, listeners, strangers.

use std::io::Read as _;
use std::net::TcpStream;

use super::*;

/// How long something is tried that must not come about.
const DENIED: Duration = Duration::from_millis(400);

#[tokio::test]
async fn both_need_the_same_password() {
    for address in ["127.0.0.1", "::1"] {
        let [mut client, mut server] = client_and_server(address);
        client.password("right");
        server.password("right");
        for end in [&mut client, &mut server] {
            end.order();
        }
        server.wait_up().await;
        // Another one on one side is a reset, and then nothing.
        server.password("wrong");
        server.order();
        client.wait_error("NOTIFICATION").await;
        let up = client.wait("down", |it| it.state != State::Established).await;
        let up = up.counters.established;
        let again = client.wait_for("up", |it| it.peers[PEER].counters.established > up);
        assert!(tokio::time::timeout(DENIED, again).await.is_err());
        client.password("wrong");
        client.order();
        server.wait_up().await;
        client.wait_up().await;
    }
}

#[tokio::test]
async fn neighbours_prove_that_they_are_near() {
    for address in ["127.0.0.1", "::1"] {
        let mut ends = client_and_server(address);
        for end in &mut ends {
            end.peer().ttl_security = true;
            end.order();
        }
        for end in &mut ends {
            end.wait_up().await;
        }
    }
}

#[tokio::test]
async fn who_does_not_prove_that_it_is_near_cannot_even_connect() {
    let [mut client, mut server] = client_and_server("127.0.0.1");
    let address = server.orders.bgp.listen[0];
    server.peer().ttl_security = true;
    server.order();
    server.wait_for("listening", |it| it.listeners.get(&address) == Some(&None)).await;
    client.order();
    let opened = client.wait("opened", |it| it.state == State::OpenSent);
    assert!(tokio::time::timeout(DENIED, opened).await.is_err());
    // The listener goes with the settings, in both directions.
    server.peer().ttl_security = false;
    server.order();
    server.wait_up().await;
    server.peer().ttl_security = true;
    server.order();
    client.wait("down", |it| it.state != State::Established).await;
    let again = client.wait("opened", |it| it.state == State::OpenSent);
    assert!(tokio::time::timeout(DENIED, again).await.is_err());
    client.peer().ttl_security = true;
    client.order();
    server.wait_up().await;
}

#[tokio::test]
async fn strangers_are_closed_at_once_and_counted() {
    let [_client, mut server] = client_and_server("127.0.0.1");
    let address = server.orders.bgp.listen[0];
    // Its peer is somebody else.
    server.peer().address = "192.0.2.9".parse().unwrap();
    server.order();
    server.wait_for("listening", |it| it.listeners.get(&address) == Some(&None)).await;
    let mut stranger = TcpStream::connect(address).unwrap();
    stranger.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut byte = [0];
    assert!(matches!(stranger.read(&mut byte), Ok(0) | Err(_)));
    server.wait_for("counted", |it| it.refused == 1).await;
}

#[tokio::test]
async fn a_connection_to_another_of_our_addresses_is_refused() {
    let [mut client, mut server] = client_and_server("127.0.0.1");
    let port = server.orders.bgp.listen[0].port();
    server.orders.bgp.listen = vec![SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), port)];
    server.peer().local_address = Some("127.0.0.9".parse().unwrap());
    server.order();
    client.order();
    server.wait_for("refused", |it| it.refused > 0).await;
    client.peer().address = "127.0.0.9".parse().unwrap();
    client.peer().local_address = Some("127.0.0.1".parse().unwrap());
    client.order();
    server.wait_up().await;
}

#[tokio::test]
async fn an_address_in_use_is_told_and_tried_again() {
    let [mut client, mut server] = client_and_server("127.0.0.1");
    let address = server.orders.bgp.listen[0];
    let taken = TcpListener::bind(address).unwrap();
    server.order();
    server.wait_for("told", |it| matches!(it.listeners.get(&address), Some(Some(_)))).await;
    server.wait_error("cannot listen on 127.0.0.1").await;
    drop(taken);
    client.order();
    server.wait_up().await;
    server.wait_for("listening", |it| it.listeners[&address].is_none()).await;
}

#[tokio::test]
async fn errors_of_our_own_side_are_told() {
    let [mut client, _server] = client_and_server("127.0.0.1");
    client.peer().local_address = Some("192.0.2.1".parse().unwrap());
    client.order();
    client.wait_error("address 192.0.2.1").await;
}

#[tokio::test]
async fn without_its_password_a_peer_stays_down() {
    let [mut client, mut server] = client_and_server("127.0.0.1");
    client.peer().has_password = true;
    client.order();
    server.order();
    client.wait("idle", |it| it.state == State::Idle).await;
    let up = client.wait("up", |it| it.state != State::Idle);
    assert!(tokio::time::timeout(DENIED, up).await.is_err());
}

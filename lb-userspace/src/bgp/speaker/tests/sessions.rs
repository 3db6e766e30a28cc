//! Sessions come, carry routes, and go.

use super::*;

#[tokio::test]
async fn routes_come_and_go_and_the_time_is_counted() {
    for address in ["127.0.0.1", "::1"] {
        let [mut client, mut server] = up(address).await;
        client.announce(&[PREFIX4, PREFIX6]);
        server.wait_received(&[PREFIX4, PREFIX6]).await;
        let report = client.wait("settled", |it| it.settled && it.sent.len() == 2).await;
        assert_eq!(report.addresses.map(|it| it.remote), address.parse().ok());
        let id = client.orders.decision.id;
        let report = client.wait("counted", |it| it.decisions.last_id == id).await;
        assert!(report.decisions.buckets.iter().sum::<u64>() == report.decisions.count);
        let seen = server.reports.borrow().peers[PEER].received[&PREFIX4.parse().unwrap()].clone();
        assert_eq!(seen.as_path, [65_001]);
        client.announce(&[PREFIX6]);
        server.wait_received(&[PREFIX6]).await;
        client.announce(&[]);
        server.wait_received(&[]).await;
        assert_eq!(server.reports.borrow().peers[PEER].counters.flaps, BTreeMap::new());
    }
}

#[tokio::test]
async fn nothing_is_announced_before_it_is_ready() {
    let [mut client, mut server] = client_and_server("127.0.0.1");
    client.orders.ready = false;
    client.announce(&[PREFIX4]);
    server.order();
    server.wait_up().await;
    let report = client.wait_up().await;
    assert!(report.sent.is_empty() && !report.settled);
    client.orders.ready = true;
    client.order();
    server.wait_received(&[PREFIX4]).await;
}

#[tokio::test]
async fn who_connects_both_ends_up_with_one_session() {
    for address in ["127.0.0.1", "::1"] {
        let mut ends = pair(address);
        for end in &mut ends {
            end.announce(&[PREFIX4]);
        }
        for end in &mut ends {
            end.wait_up().await;
            end.wait_received(&[PREFIX4]).await;
        }
    }
}

#[tokio::test]
async fn the_peers_operator_reads_why_we_stop_and_we_come_back() {
    let [mut client, mut server] = up("127.0.0.1").await;
    client.announce(&[PREFIX4]);
    server.wait_received(&[PREFIX4]).await;
    let began = clock::boot_time();
    client.stop("maintenance until noon", true).await;
    assert!(clock::boot_time() - began < STOP_TIME);
    let report = server.wait_error("maintenance until noon").await;
    assert_eq!(report.counters.flaps, BTreeMap::from([(Cause::Notification, 1)]));
    assert!(report.received.is_empty());
    client.respawn();
    client.order();
    server.wait_up().await;
    server.wait_received(&[PREFIX4]).await;
}

#[tokio::test]
async fn without_notification_the_connection_just_ends() {
    let [mut client, mut server] = up("127.0.0.1").await;
    client.stop("", false).await;
    let down = |it: &PeerReport| it.counters.flaps == BTreeMap::from([(Cause::Connection, 1)]);
    server.wait("down", down).await;
    // The one that connects comes back on its own.
    client.respawn();
    client.order();
    server.wait_up().await;
    server.stop("", false).await;
    client.wait("down", down).await;
    server.respawn();
    server.order();
    client.wait_up().await;
}

#[tokio::test]
async fn a_speaker_that_is_dropped_ends() {
    let [mut client, mut server] = up("127.0.0.1").await;
    drop(client.speaker.take());
    server.wait("down", |it| it.counters.flaps.contains_key(&Cause::Connection)).await;
}

#[tokio::test]
async fn only_what_has_changed_is_reset() {
    let [mut client, mut server] = up("127.0.0.1").await;
    // Routes, attributes and BFD do not make another session.
    client.peer().attributes.prepend = 2;
    client.orders.bgp.linger += Duration::from_secs(1);
    client.announce(&[PREFIX4]);
    server.wait_received(&[PREFIX4]).await;
    assert_eq!(server.reports.borrow().peers[PEER].counters.flaps, BTreeMap::new());
    client.peer().hold_time = Duration::from_secs(60);
    client.order();
    server.wait("reset", |it| it.counters.flaps.contains_key(&Cause::Notification)).await;
    server.wait_up().await;
    server.wait_received(&[PREFIX4]).await;
}

#[tokio::test]
async fn a_peer_that_is_removed_is_told_and_gone() {
    let [mut client, mut server] = up("127.0.0.1").await;
    let peers = std::mem::take(&mut client.orders.bgp.peers);
    client.order();
    client.wait_for("gone", |report| report.peers.is_empty()).await;
    server.wait_error("De-configured").await;
    client.orders.bgp.peers = peers;
    client.order();
    server.wait_up().await;
}

#[tokio::test]
async fn a_dry_run_shows_peers_and_connects_to_nobody() {
    let [mut client, mut server] = client_and_server("127.0.0.1");
    server.orders.bgp.dry_run = true;
    server.announce(&[PREFIX4]);
    server.wait("shown", |it| it.state == State::Idle).await;
    assert!(server.reports.borrow().listeners.is_empty());
    client.order();
    client.wait_error("cannot connect").await;
    server.orders.bgp.dry_run = false;
    server.order();
    client.wait_up().await;
    client.wait_received(&[PREFIX4]).await;
}

#[tokio::test]
async fn many_routes_arrive_all() {
    let [mut client, mut server] = up("127.0.0.1").await;
    let prefixes: Vec<String> =
        (0..4_000_u16).map(|it| format!("100.{}.{}.0/24", 64 + it / 256, it % 256)).collect();
    let prefixes: Vec<&str> = prefixes.iter().map(String::as_str).collect();
    let own: BTreeSet<IpNet> = prefixes.iter().map(|it| it.parse().unwrap()).collect();
    server.orders.own = Arc::new(own);
    server.peer().max_prefixes = 4_000;
    server.order();
    server.wait_up().await;
    client.announce(&prefixes);
    server.wait("all", |it| it.received.len() == 4_000).await;
    client.announce(&[]);
    server.wait("none", |it| it.received.is_empty() && it.prefixes_received == 0).await;
}

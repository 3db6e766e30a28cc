//! A UDP flow: datagrams from one port, each answered by the backend's name and itself.

use std::io;
use std::net::SocketAddr;

use tokio::net::UdpSocket;
use tokio::time::{Instant, sleep, timeout};

use super::ledger::{End, Key, Kind};
use super::{PERIOD, SILENCE, Shared};
use crate::lab::addresses::ECHO_PORT;

/// Longer than any answer of the echo.
const ANSWER_BYTES: usize = 256;

/// Sends and listens until nothing has come for [`SILENCE`], or another backend answers.
pub(super) async fn flow(shared: &Shared) {
    let (vip, source) = shared.next_pair();
    let vip = SocketAddr::from((vip, ECHO_PORT));
    let (socket, key) = match open(source, vip).await {
        Ok(open) => open,
        Err(error) => return shared.ledger().unanswered(format!("{vip}: {error}")),
    };
    let mut id = None;
    let mut answered_at = Instant::now();
    let mut number = 0_u64;
    while answered_at.elapsed() < SILENCE {
        number += 1;
        let payload = number.to_string();
        // Errors are what ICMP says of earlier datagrams; silence decides, not they.
        drop(socket.send(payload.as_bytes()).await);
        let Some(backend) = timeout(PERIOD, answer(&socket, &payload)).await.ok() else {
            continue;
        };
        answered_at = Instant::now();
        match id {
            None => id = Some(shared.ledger().opened(Kind::Udp, key, &backend, answered_at)),
            Some(id) if shared.ledger().answered(id, &backend, answered_at) => {}
            Some(_stranger) => return,
        }
        sleep(PERIOD).await;
    }
    match id {
        Some(id) => shared.ledger().ended(id, End::Silent),
        None => shared.ledger().unanswered(format!("{vip}: no datagram back")),
    }
}

async fn open(source: SocketAddr, vip: SocketAddr) -> io::Result<(UdpSocket, Key)> {
    let socket = UdpSocket::bind(source).await?;
    socket.connect(vip).await?;
    let key = Key { client: socket.local_addr()?, vip };
    Ok((socket, key))
}

/// Waits for the answer to `payload`, however long; returns the backend that sent it.
async fn answer(socket: &UdpSocket, payload: &str) -> String {
    let mut buffer = [0; ANSWER_BYTES];
    loop {
        let Ok(length) = socket.recv(&mut buffer).await else { continue };
        let text = String::from_utf8_lossy(&buffer[..length]);
        // A late answer to an earlier datagram is not ours to count.
        if let Some((backend, echoed)) = text.split_once(' ')
            && echoed == payload
        {
            return backend.to_owned();
        }
    }
}

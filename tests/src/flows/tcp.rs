//! A TCP flow: one connection, request after request, and the backend that answers each.

use std::io::{self, Error, ErrorKind};
use std::net::SocketAddr;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::{Instant, sleep, timeout};

use super::ledger::{End, Key, Kind};
use super::{PERIOD, SILENCE, Shared};
use crate::lab::addresses::HTTP_PORT;

const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: vip\r\n\r\n";
/// Head and body of an answer; nginx in the lab sends about 700.
const ANSWER_BYTES: usize = 4_096;

/// Opens a connection and asks until it breaks, or `requests` times.
pub(super) async fn flow(shared: &Shared, kind: Kind, requests: Option<u32>) {
    let (vip, source) = shared.next_pair();
    let vip = SocketAddr::from((vip, HTTP_PORT));
    let (mut stream, key) = match timeout(SILENCE, connect(source, vip)).await {
        Ok(Ok(open)) => open,
        Ok(Err(error)) => return shared.ledger().unanswered(format!("{vip}: {error}")),
        Err(_elapsed) => return shared.ledger().unanswered(format!("{vip}: no SYN-ACK")),
    };
    let mut id = None;
    let mut asked = 0;
    let end = loop {
        let backend = match timeout(SILENCE, ask(&mut stream)).await {
            Ok(Ok(backend)) => backend,
            Ok(Err(error)) => break End::Failed(error.to_string()),
            Err(_elapsed) => break End::Silent,
        };
        let now = Instant::now();
        match id {
            None => id = Some(shared.ledger().opened(kind, key, &backend, now)),
            Some(id) if shared.ledger().answered(id, &backend, now) => {}
            Some(_stranger) => return,
        }
        asked += 1;
        if requests == Some(asked) {
            break End::Finished;
        }
        sleep(PERIOD).await;
    };
    match id {
        Some(id) => shared.ledger().ended(id, end),
        None => shared.ledger().unanswered(format!("{vip}: connected, then {end:?}")),
    }
}

async fn connect(source: SocketAddr, vip: SocketAddr) -> io::Result<(TcpStream, Key)> {
    let socket = if vip.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    socket.bind(source)?;
    let stream = socket.connect(vip).await?;
    stream.set_nodelay(true)?;
    let key = Key { client: stream.local_addr()?, vip };
    Ok((stream, key))
}

/// One request; returns the backend that answered it.
async fn ask(stream: &mut TcpStream) -> io::Result<String> {
    stream.write_all(REQUEST).await?;
    let mut buffer = [0; ANSWER_BYTES];
    let mut filled = 0;
    loop {
        let length = stream.read(&mut buffer[filled..]).await?;
        if length == 0 {
            return Err(Error::new(ErrorKind::UnexpectedEof, "closed by the other side"));
        }
        filled += length;
        if let Some(backend) = complete(&buffer[..filled])? {
            return Ok(backend);
        }
    }
}

/// The backend of a complete answer; nothing while it is incomplete.
fn complete(answer: &[u8]) -> io::Result<Option<String>> {
    let wrong = |what: &str| Error::new(ErrorKind::InvalidData, what.to_owned());
    let Some(head_bytes) = answer.windows(4).position(|four| four == b"\r\n\r\n") else {
        return Ok(None);
    };
    let head = str::from_utf8(&answer[..head_bytes]).map_err(|error| wrong(&error.to_string()))?;
    let header = |name: &str| {
        let line = head.lines().find_map(|line| line.strip_prefix(name));
        line.map(str::trim).ok_or_else(|| wrong(&format!("an answer without {name} {head}")))
    };
    let body_bytes: usize =
        header("Content-Length:")?.parse().map_err(|_not_a_number| wrong("no length"))?;
    let complete = answer.len() >= head_bytes + 4 + body_bytes;
    let backend = header("X-Backend:")?;
    Ok(complete.then(|| backend.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::complete;

    #[test]
    fn an_answer_is_complete_with_its_last_byte() {
        let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nX-Backend: web1\r\n\r\nabc";
        for length in 0..answer.len() {
            assert_eq!(complete(&answer[..length]).unwrap(), None, "{length} bytes");
        }
        assert_eq!(complete(answer).unwrap().as_deref(), Some("web1"));
    }

    #[test]
    fn an_answer_without_a_backend_is_an_error() {
        assert!(complete(b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n").is_err());
    }
}

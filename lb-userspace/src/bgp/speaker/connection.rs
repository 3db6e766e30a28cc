//! One TCP connection: bytes that are to go out, and how it is closed.
//!
//! A part of `speaker`.

use std::collections::VecDeque;
use std::io;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, Interest};
use tokio::net::TcpStream;

/// Bytes that wait to be sent, at most: a session writes no more routes above 64 KiB, and what it
/// may still say is far less than the rest.
const QUEUE_MAX: usize = 256 * 1_024;
/// Bytes given to the kernel before another peer gets its turn.
const WRITE_MAX: usize = 64 * 1_024;
/// Bytes read at once.
pub(super) const READ_MAX: usize = 16 * 1_024;
/// How long a peer may take for the last bytes before the connection is dropped.
const CLOSE_TIME: Duration = Duration::from_secs(1);
/// Bytes that a peer may still send to a connection that we close.
const CLOSE_READ_MAX: usize = 256 * 1_024;

/// A connection and what waits to be sent on it.
#[derive(Debug)]
pub(super) struct Connection {
    stream: TcpStream,
    queue: VecDeque<u8>,
}

impl Connection {
    pub(super) fn new(stream: TcpStream) -> Self {
        Self { stream, queue: VecDeque::new() }
    }

    /// Queues bytes; [`Connection::write`] sends them.
    ///
    /// # Errors
    /// There is no room: the peer reads nothing, and we cannot wait.
    pub(super) fn push(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.queue.len() + bytes.len() > QUEUE_MAX {
            return Err(io::Error::other("too many bytes wait to be sent"));
        }
        self.queue.extend(bytes);
        Ok(())
    }

    /// Gives the kernel what it takes; how many bytes that were.
    ///
    /// # Errors
    /// The connection is gone.
    pub(super) fn write(&mut self) -> io::Result<usize> {
        let mut written = 0;
        while written < WRITE_MAX && !self.queue.is_empty() {
            let (front, _) = self.queue.as_slices();
            match self.stream.try_write(front) {
                Ok(bytes) => {
                    self.queue.drain(..bytes);
                    written += bytes;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        Ok(written)
    }

    /// Reads what is there; `None` when nothing is.
    ///
    /// # Errors
    /// The connection is gone; `UnexpectedEof`: the peer has closed it.
    pub(super) fn read(&self, buffer: &mut [u8; READ_MAX]) -> io::Result<Option<usize>> {
        match self.stream.try_read(buffer) {
            Ok(0) => Err(io::Error::new(io::ErrorKind::UnexpectedEof, "closed by the peer")),
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Waits until there is something to read, or room for what waits to be sent.
    pub(super) async fn ready(&self) -> io::Result<()> {
        let writes = (!self.queue.is_empty()).then_some(Interest::WRITABLE);
        let interest = writes.map_or(Interest::READABLE, |writes| writes | Interest::READABLE);
        self.stream.ready(interest).await.map(|_ready| ())
    }

    /// Sends what waits, and closes so that the peer can read it to the end: with bytes of the
    /// peer unread, close(2) would reset the connection and with it our last words.
    pub(super) async fn close(mut self) {
        let last = async {
            let (front, back) = self.queue.as_slices();
            self.stream.write_all(front).await?;
            self.stream.write_all(back).await?;
            self.stream.shutdown().await?;
            let mut rest = self.stream.take(CLOSE_READ_MAX as u64);
            tokio::io::copy(&mut rest, &mut tokio::io::sink()).await
        };
        // Gone or too slow: nothing to be done about it.
        drop(tokio::time::timeout(CLOSE_TIME, last).await);
    }
}

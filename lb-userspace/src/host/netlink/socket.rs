//! Netlink sockets: requests in batches with their answers, dumps, and subscriptions.
//!
//! A socket belongs to the network namespace of the thread that opened it. Nothing here
//! interprets a route or a neighbour.

use std::io;
use std::os::fd::AsRawFd as _;
use std::time::Duration;

use rtnetlink::MulticastGroup;
use rtnetlink::packet_core::{
    NetlinkBuffer, NetlinkHeader, NetlinkMessage, NetlinkPayload, Parseable as _,
};
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::sys::protocols::NETLINK_ROUTE;
use rtnetlink::sys::{AsyncSocket, AsyncSocketExt as _, SocketAddr, TokioSocket};

use super::NetlinkError;
use super::codec::Message;

/// Requests put into one datagram: small enough that all answers fit the default receive buffer
/// of 208 KiB (the kernel accounts about 4.5 KiB for a route answer).
pub(super) const MAX_BATCH: usize = 32;
/// The kernel answers within the system call; this long means that an answer was lost.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);
/// Largest datagram the kernel sends (dumps use up to 32 KiB).
const RECEIVE_BYTES: usize = 64 * 1024;
/// Receive buffer for notifications: room for a burst of some ten thousand neighbour changes.
const NOTICE_BUFFER_BYTES: libc::c_int = 16 * 1024 * 1024;
/// Most messages taken from one dump; more means a table that is not ours to read.
const MAX_DUMP: usize = 1_000_000;
/// A dump is repeated at most this often when the kernel says that it changed under way.
const MAX_DUMP_ATTEMPTS: usize = 4;
/// Set on every message of a dump that the kernel changed while it was read (netlink.h).
const NLM_F_DUMP_INTR: u16 = 0x10;

/// What became of one request.
#[derive(Debug)]
pub(super) enum Answer {
    /// The object that was asked for.
    Object(RouteNetlinkMessage),
    /// Done, as asked.
    Done,
    /// Refused with this errno (positive).
    Refused(i32),
}

fn io(what: &'static str) -> impl FnOnce(io::Error) -> NetlinkError {
    move |source| match source.raw_os_error() {
        Some(libc::ENOBUFS) => NetlinkError::Overrun,
        _ => NetlinkError::Io { what, source },
    }
}

fn open(groups: &[MulticastGroup]) -> Result<TokioSocket, NetlinkError> {
    let mut socket = TokioSocket::new(NETLINK_ROUTE).map_err(io("open"))?;
    let inner = socket.socket_mut();
    inner.bind_auto().map_err(io("bind"))?;
    for group in groups {
        inner.add_membership(*group as u32).map_err(io("subscribe"))?;
    }
    Ok(socket)
}

/// Takes one datagram apart. A message that cannot be read loses its content, not its place, so
/// that one exotic attribute of one link does not blind the resolver to all others.
fn decode(mut bytes: &[u8]) -> Result<Vec<Message>, NetlinkError> {
    let mut messages = Vec::new();
    while !bytes.is_empty() {
        let header = NetlinkBuffer::new_checked(&bytes)
            .and_then(|buffer| NetlinkHeader::parse(&buffer))
            .map_err(|error| NetlinkError::Malformed(error.to_string()))?;
        let length = usize::try_from(header.length).unwrap_or(usize::MAX);
        messages.push(NetlinkMessage::deserialize(bytes).unwrap_or_else(|error| {
            tracing::debug!(reason = %error, kind = header.message_type, "unreadable message");
            NetlinkMessage::new(header, NetlinkPayload::Noop)
        }));
        // Messages are aligned to four bytes, the last one not necessarily padded; a checked
        // header is never shorter than itself, so this always moves on.
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    Ok(messages)
}

/// A socket for questions. Answers are matched by sequence number.
pub(super) struct Requests {
    socket: TokioSocket,
    sequence: u32,
    buffer: Vec<u8>,
}

impl Requests {
    pub(super) fn open() -> Result<Self, NetlinkError> {
        let socket = open(&[])?;
        Ok(Self { socket, sequence: 0, buffer: Vec::with_capacity(RECEIVE_BYTES) })
    }

    /// Sends up to [`MAX_BATCH`] requests at once and returns their answers in the same order.
    ///
    /// Each request must be one that the kernel answers exactly once: a query of one object, or a
    /// change that asks for an acknowledgement.
    pub(super) async fn batch(
        &mut self,
        requests: Vec<Message>,
    ) -> Result<Vec<Answer>, NetlinkError> {
        debug_assert!(requests.len() <= MAX_BATCH, "a batch of {}", requests.len());
        if requests.is_empty() {
            return Ok(Vec::new());
        }
        let first = self.sequence.wrapping_add(1);
        let count = requests.len();
        self.send(requests).await?;
        let mut answers: Vec<Option<Answer>> = Vec::new();
        answers.resize_with(count, || None);
        let mut missing = count;
        while missing > 0 {
            for message in self.receive().await? {
                let at = message.header.sequence_number.wrapping_sub(first);
                // Answers to an earlier batch that was given up are not ours any more.
                let Some(slot) = answers.get_mut(usize::try_from(at).unwrap_or(usize::MAX)) else {
                    continue;
                };
                if slot.is_none() {
                    missing -= 1;
                }
                *slot = Some(answer(message.payload));
            }
        }
        Ok(answers.into_iter().flatten().collect())
    }

    /// Asks for all objects of a kind, consistently.
    pub(super) async fn dump(
        &mut self,
        request: impl Fn() -> Message,
    ) -> Result<Vec<RouteNetlinkMessage>, NetlinkError> {
        for _ in 1..MAX_DUMP_ATTEMPTS {
            let (objects, consistent) = self.dump_once(request()).await?;
            if consistent {
                return Ok(objects);
            }
        }
        // A table that changes all the time: what changed will be announced or asked again.
        Ok(self.dump_once(request()).await?.0)
    }

    async fn dump_once(
        &mut self,
        request: Message,
    ) -> Result<(Vec<RouteNetlinkMessage>, bool), NetlinkError> {
        let sequence = self.sequence.wrapping_add(1);
        self.send(vec![request]).await?;
        let mut objects = Vec::new();
        let mut consistent = true;
        loop {
            for message in self.receive().await? {
                if message.header.sequence_number != sequence {
                    continue;
                }
                consistent &= message.header.flags & NLM_F_DUMP_INTR == 0;
                match message.payload {
                    NetlinkPayload::InnerMessage(object) => {
                        if objects.len() < MAX_DUMP {
                            objects.push(object);
                        }
                    }
                    NetlinkPayload::Error(error) => {
                        return Err(NetlinkError::Refused(error.to_io()));
                    }
                    NetlinkPayload::Done(_) => return Ok((objects, consistent)),
                    NetlinkPayload::Noop | NetlinkPayload::Overrun(_) | _ => {}
                }
            }
        }
    }

    async fn send(&mut self, requests: Vec<Message>) -> Result<(), NetlinkError> {
        let mut bytes = Vec::new();
        for mut request in requests {
            self.sequence = self.sequence.wrapping_add(1);
            request.header.sequence_number = self.sequence;
            request.finalize();
            let start = bytes.len();
            bytes.resize(start + request.buffer_len().next_multiple_of(4), 0);
            request.serialize(bytes.get_mut(start..).unwrap_or_default());
        }
        let kernel = SocketAddr::new(0, 0);
        let sent = self.socket.send_to(&bytes, &kernel).await.map_err(io("send"))?;
        debug_assert_eq!(sent, bytes.len(), "netlink took a part of a datagram");
        Ok(())
    }

    async fn receive(&mut self) -> Result<Vec<Message>, NetlinkError> {
        self.buffer.clear();
        let receive = self.socket.recv(&mut self.buffer);
        match tokio::time::timeout(ANSWER_TIMEOUT, receive).await {
            Ok(received) => received.map_err(io("receive"))?,
            Err(_elapsed) => return Err(NetlinkError::Timeout(ANSWER_TIMEOUT)),
        }
        decode(&self.buffer)
    }
}

fn answer(payload: NetlinkPayload<RouteNetlinkMessage>) -> Answer {
    match payload {
        NetlinkPayload::InnerMessage(object) => Answer::Object(object),
        NetlinkPayload::Error(error) => match error.code {
            Some(code) => Answer::Refused(code.get().saturating_abs()),
            None => Answer::Done,
        },
        NetlinkPayload::Done(_) | NetlinkPayload::Noop | NetlinkPayload::Overrun(_) | _ => {
            Answer::Done
        }
    }
}

/// A socket that is told of changes.
pub(super) struct Notices {
    socket: TokioSocket,
    buffer: Vec<u8>,
}

impl Notices {
    /// Subscribes to everything that can change a next hop.
    pub(super) fn open() -> Result<Self, NetlinkError> {
        let socket = open(&[
            MulticastGroup::Link,
            MulticastGroup::Neigh,
            MulticastGroup::Ipv4Ifaddr,
            MulticastGroup::Ipv4Route,
            MulticastGroup::Ipv4Rule,
            MulticastGroup::Ipv6Ifaddr,
            MulticastGroup::Ipv6Route,
            MulticastGroup::Ipv6Rule,
        ])?;
        enlarge(&socket);
        Ok(Self { socket, buffer: Vec::with_capacity(RECEIVE_BYTES) })
    }

    /// Waits for the next datagram of notifications. Safe to cancel.
    ///
    /// # Errors
    ///
    /// [`NetlinkError::Overrun`] if notifications were lost: everything must be asked again.
    pub(super) async fn next(&mut self) -> Result<Vec<RouteNetlinkMessage>, NetlinkError> {
        self.buffer.clear();
        self.socket.recv(&mut self.buffer).await.map_err(io("receive"))?;
        let mut objects = Vec::new();
        for message in decode(&self.buffer)? {
            if let NetlinkPayload::InnerMessage(object) = message.payload {
                objects.push(object);
            }
        }
        Ok(objects)
    }
}

/// Makes the receive buffer larger than the system's limit, which CAP_NET_ADMIN may. Without the
/// right the smaller buffer overruns sooner, and an overrun is dealt with.
fn enlarge(socket: &TokioSocket) {
    let size = NOTICE_BUFFER_BYTES;
    let length = libc::socklen_t::try_from(size_of_val(&size)).unwrap_or(0);
    // SAFETY: the descriptor is open as long as `socket`, and the option is one integer that lives
    // until the call returns.
    let code = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_RCVBUFFORCE,
            (&raw const size).cast(),
            length,
        )
    };
    if code != 0 {
        tracing::debug!(reason = %io::Error::last_os_error(), "netlink receive buffer stays small");
    }
}

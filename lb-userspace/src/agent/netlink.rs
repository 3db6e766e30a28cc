//! What the agent asks the kernel about the namespace: the interface, the addresses, and to be
//! told when they change. It only reads.

use std::net::IpAddr;

use futures_util::{Stream, StreamExt as _, TryStreamExt as _};
use rtnetlink::packet_route::address::AddressAttribute;
use rtnetlink::packet_route::link::{LinkAttribute, LinkLayerType, LinkMessage, LinkXdp};
use rtnetlink::{Error, Handle, MulticastGroup, new_connection, new_multicast_connection};

use super::error::AgentError;

/// ENODEV, as netlink reports it.
const NO_SUCH_DEVICE: i32 = -libc::ENODEV;

/// What matters of an interface.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Interface {
    /// Its name.
    pub name: String,
    /// Its index in this namespace.
    pub index: u32,
    /// Largest IP packet, bytes.
    pub mtu: u32,
    /// Its frames have Ethernet headers.
    pub ethernet: bool,
    /// The XDP program on it, by id.
    pub xdp_program: Option<u32>,
}

/// What matters of the namespace.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Host {
    /// Interface index and address.
    pub addresses: Vec<(u32, IpAddr)>,
}

/// A connection to the kernel's routing tables.
#[derive(Clone)]
pub struct Netlink {
    handle: Handle,
}

fn failed(what: &'static str, error: &impl ToString) -> AgentError {
    AgentError::Netlink { what, error: error.to_string() }
}

impl Netlink {
    /// Opens it; its task ends with the runtime.
    ///
    /// # Errors
    /// No socket.
    pub fn open() -> Result<Self, AgentError> {
        let (connection, handle, _) =
            new_connection().map_err(|error| failed("a netlink socket", &error))?;
        tokio::spawn(connection);
        Ok(Self { handle })
    }

    /// The interface of this name; `None` when there is none.
    ///
    /// # Errors
    /// The kernel does not answer.
    pub async fn interface(&self, name: &str) -> Result<Option<Interface>, AgentError> {
        let request = self.handle.link().get().match_name(name.to_owned());
        match request.execute().try_next().await {
            Ok(message) => Ok(message.map(|message| interface(name, &message))),
            Err(Error::NetlinkError(error)) if error.raw_code() == NO_SUCH_DEVICE => Ok(None),
            Err(error) => Err(failed("an interface", &error)),
        }
    }

    /// Every address of the namespace.
    ///
    /// # Errors
    /// The kernel does not answer.
    pub async fn host(&self) -> Result<Host, AgentError> {
        let mut messages = self.handle.address().get().execute();
        let mut addresses = Vec::new();
        while let Some(message) =
            messages.try_next().await.map_err(|error| failed("addresses", &error))?
        {
            // On a point-to-point link `Address` is the other end, `Local` ours.
            let local = message.attributes.iter().find_map(|attribute| {
                if let AddressAttribute::Local(address) = attribute { Some(*address) } else { None }
            });
            let any = message.attributes.iter().find_map(|attribute| {
                if let AddressAttribute::Address(address) = attribute {
                    Some(*address)
                } else {
                    None
                }
            });
            let found = local.or(any);
            addresses.extend(found.map(|address| (message.header.index, address)));
        }
        addresses.sort_unstable();
        Ok(Host { addresses })
    }
}

fn interface(name: &str, message: &LinkMessage) -> Interface {
    let mut found = Interface {
        name: name.to_owned(),
        index: message.header.index,
        mtu: 0,
        ethernet: message.header.link_layer_type == LinkLayerType::Ether,
        xdp_program: None,
    };
    for attribute in &message.attributes {
        if let LinkAttribute::Mtu(mtu) = attribute {
            found.mtu = *mtu;
        }
        if let LinkAttribute::Xdp(list) = attribute {
            let id = |xdp| if let &LinkXdp::ProgId(id) = xdp { Some(id) } else { None };
            found.xdp_program = list.iter().find_map(id);
        }
    }
    found
}

/// Yields whenever interfaces or addresses changed, from now on; also when notifications were
/// lost.
///
/// # Errors
/// No socket.
pub fn changes() -> Result<impl Stream<Item = ()> + Unpin, AgentError> {
    let groups = [MulticastGroup::Link, MulticastGroup::Ipv4Ifaddr, MulticastGroup::Ipv6Ifaddr];
    let (connection, _, messages) =
        new_multicast_connection(&groups).map_err(|error| failed("notifications", &error))?;
    tokio::spawn(connection);
    Ok(messages.map(|_| ()))
}

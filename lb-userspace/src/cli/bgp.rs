//! `lbctl bgp`, and the drains of VIPs and of the node: what is asked of lbd, and how.
//!
//! A part of `cli`.

use std::time::Duration;

use ipnet::IpNet;

use super::args::{BgpCommand, Format, NodeCommand, Steer, VipCommand};
use super::{CliError, EXIT_OK, Streams, print_outcome, show};
use crate::api::client::Client;
use crate::api::requests::DrainChange;
use crate::api::types::{BgpPeers, BgpRoutes, Outcome, Vips};
use crate::bgp::announce::{Order, Steer as Steering};

pub(super) async fn vip(
    client: &Client,
    command: Option<&VipCommand>,
    format: Format,
    streams: &mut Streams<'_>,
) -> Result<u8, CliError> {
    let change = match command {
        None => {
            show::<Vips>(client, "/v1/vips", format, streams).await?;
            return Ok(EXIT_OK);
        }
        Some(VipCommand::Drain { name }) => DrainChange { vip: Some(name.clone()), drain: true },
        Some(VipCommand::Undrain { name }) => DrainChange { vip: Some(name.clone()), drain: false },
    };
    drain(client, &change, format, streams).await
}

pub(super) async fn node(
    client: &Client,
    command: NodeCommand,
    format: Format,
    streams: &mut Streams<'_>,
) -> Result<u8, CliError> {
    let change = DrainChange { vip: None, drain: command == NodeCommand::Drain };
    drain(client, &change, format, streams).await
}

async fn drain(
    client: &Client,
    change: &DrainChange,
    format: Format,
    streams: &mut Streams<'_>,
) -> Result<u8, CliError> {
    let answer = client.post::<Outcome>("/v1/drain", change).await?;
    print_outcome(&answer.value, &answer.json, format, streams)?;
    Ok(EXIT_OK)
}

pub(super) async fn bgp(
    client: &Client,
    command: Option<&BgpCommand>,
    format: Format,
    streams: &mut Streams<'_>,
) -> Result<u8, CliError> {
    let order = match command {
        None => {
            show::<BgpPeers>(client, "/v1/bgp", format, streams).await?;
            return Ok(EXIT_OK);
        }
        Some(BgpCommand::Routes { prefix, peer }) => {
            let path = routes_path(*prefix, peer.as_deref());
            show::<BgpRoutes>(client, &path, format, streams).await?;
            return Ok(EXIT_OK);
        }
        Some(BgpCommand::Steer(steer)) => Order::Steer(steering(steer)),
        Some(BgpCommand::Unsteer { id }) => Order::Unsteer { id: *id },
        Some(BgpCommand::Shed { level, duration }) => {
            let needed = "say for how long load is shed, such as --for 30m";
            let needed = || CliError::Usage(needed.to_owned());
            let duration = duration.or((*level == 0).then_some(Duration::ZERO));
            Order::Shed { level: *level, lasts: duration.ok_or_else(needed)? }
        }
        Some(BgpCommand::Resume) => Order::ResumeBreaker,
    };
    let answer = client.post::<Outcome>("/v1/bgp", &order).await?;
    print_outcome(&answer.value, &answer.json, format, streams)?;
    Ok(EXIT_OK)
}

fn routes_path(prefix: Option<IpNet>, peer: Option<&str>) -> String {
    let mut parts = Vec::new();
    for (key, value) in
        [("prefix", prefix.map(|it| it.to_string())), ("peer", peer.map(str::to_owned))]
    {
        if let Some(value) = value {
            let mut part = format!("{key}=");
            super::escape(&mut part, &value);
            parts.push(part);
        }
    }
    if parts.is_empty() {
        "/v1/bgp/routes".to_owned()
    } else {
        format!("/v1/bgp/routes?{}", parts.join("&"))
    }
}

fn steering(steer: &Steer) -> Steering {
    Steering {
        target: steer.target.clone(),
        peers: steer.peers.iter().cloned().collect(),
        lasts: steer.duration,
        prepend: steer.prepend,
        med: steer.med,
        local_preference: steer.local_preference,
        communities: steer.communities.iter().copied().collect(),
        large_communities: steer.large_communities.iter().copied().collect(),
        withdraw: steer.withdraw,
        more_specifics: steer.more_specifics.iter().copied().collect(),
        graceful_shutdown: steer.graceful_shutdown,
        poison: steer.poison.iter().copied().collect(),
    }
}

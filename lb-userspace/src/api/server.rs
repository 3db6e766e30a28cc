//! The server on the unix socket, and the one for metrics on TCP.
//!
//! Each question becomes a [`Call`] in the controller's queue; the answer is written as JSON. A
//! full queue answers at once, so that many clients never make the controller late.
//!
//! Must not: know what the answers mean.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::pin::Pin;

use axum::Router;
use axum::extract::rejection::{JsonRejection, QueryRejection};
use axum::extract::{DefaultBodyLimit, Json, Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response as HttpResponse};
use axum::routing::{get, post};
use serde::Deserialize;
use tokio::net::{TcpListener, UnixListener, UnixStream};
use tokio::sync::{mpsc, oneshot};

use super::requests::{BackendChange, ConfigText, DrainChange, RoutesQuestion, TraceQuestion};
use super::types::Snapshot;
use super::{Call, Failure, Request, Response};
use crate::bgp::announce::Order;

/// The largest body: a configuration with its files, escaped as JSON.
const BODY_BYTES_MAX: usize = 64 << 20;

/// Who may talk to lbd: its user and the socket's group.
const SOCKET_MODE: u32 = 0o660;

/// Why there is no server.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// Another process answers on the socket.
    #[error("{0} is in use: another lbd answers there; stop it, or set another `[api] socket`")]
    InUse(PathBuf),
    /// Something that is no socket has the path.
    #[error("{0} exists and is no socket; move it away, or set another `[api] socket`")]
    NoSocket(PathBuf),
    /// The socket cannot be made.
    #[error("cannot make the socket {path}: {source}")]
    Socket {
        /// Its path.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// The group does not exist.
    #[error("group `{0}` of `[api] group` does not exist; make it with `groupadd --system {0}`")]
    Group(String),
    /// The TCP address cannot be used.
    #[error("cannot listen on {address} for metrics: {source}")]
    Metrics {
        /// The address.
        address: SocketAddr,
        /// The system's error.
        source: io::Error,
    },
}

/// Writes a snapshot as OpenMetrics text.
pub type Encode = fn(&Snapshot) -> String;

/// A server that is listening; it serves while it is polled.
pub type Serving = Pin<Box<dyn Future<Output = io::Result<()>> + Send>>;

/// Listens on the unix socket. A socket that a dead lbd left behind is replaced.
///
/// # Errors
/// Any [`ServerError`] but the one of metrics.
pub async fn unix(
    path: &Path,
    group: Option<&str>,
    calls: mpsc::Sender<Call>,
) -> Result<Serving, ServerError> {
    clear(path).await?;
    let failed = |source| ServerError::Socket { path: path.to_owned(), source };
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent).map_err(failed)?;
    }
    let group = group.map(group_id).transpose()?;
    let listener = UnixListener::bind(path).map_err(failed)?;
    std::os::unix::fs::chown(path, None, group).map_err(failed)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(SOCKET_MODE)).map_err(failed)?;
    let service = routes(calls);
    Ok(Box::pin(async move { axum::serve(listener, service).await }))
}

/// Listens for scrapes of `/metrics`.
///
/// # Errors
/// [`ServerError::Metrics`].
pub async fn metrics(
    address: SocketAddr,
    calls: mpsc::Sender<Call>,
    encode: Encode,
) -> Result<Serving, ServerError> {
    let listener = TcpListener::bind(address).await;
    let listener = listener.map_err(|source| ServerError::Metrics { address, source })?;
    let service = Router::new()
        .route("/metrics", get(move |State(calls)| scrape(calls, encode)))
        .fallback(|| async { (StatusCode::NOT_FOUND, "metrics are at /metrics\n") })
        .with_state(calls);
    Ok(Box::pin(async move { axum::serve(listener, service).await }))
}

/// Removes a socket on which nobody answers.
async fn clear(path: &Path) -> Result<(), ServerError> {
    let failed = |source| ServerError::Socket { path: path.to_owned(), source };
    match std::fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed(error)),
        Ok(found) if !found.file_type().is_socket() => {
            return Err(ServerError::NoSocket(path.to_owned()));
        }
        Ok(_) => {}
    }
    if UnixStream::connect(path).await.is_ok() {
        return Err(ServerError::InUse(path.to_owned()));
    }
    std::fs::remove_file(path).map_err(failed)
}

/// The number of a group (group(5)).
fn group_id(name: &str) -> Result<u32, ServerError> {
    let unknown = || ServerError::Group(name.to_owned());
    let groups = std::fs::read_to_string("/etc/group").map_err(|_unreadable| unknown())?;
    find_group(&groups, name).ok_or_else(unknown)
}

fn find_group(groups: &str, name: &str) -> Option<u32> {
    let mut fields = groups.lines().map(|line| line.split(':'));
    fields.find_map(|mut line| (line.next() == Some(name)).then(|| line.nth(1)?.parse().ok())?)
}

fn routes(calls: mpsc::Sender<Call>) -> Router {
    let ask = |request: Request| {
        get(move |State(calls): State<mpsc::Sender<Call>>| answer(calls, request.clone()))
    };
    Router::new()
        .route("/v1/status", ask(Request::Status))
        .route("/v1/vips", ask(Request::Vips))
        .route("/v1/stats", ask(Request::Stats))
        .route("/v1/trace", get(trace))
        .route("/v1/drops", get(drops))
        .route("/v1/plan", post(plan))
        .route("/v1/apply", post(apply))
        .route("/v1/backend", post(backend))
        .route("/v1/drain", post(drain))
        .route("/v1/bgp", ask(Request::BgpPeers).merge(post(bgp)))
        .route("/v1/bgp/routes", get(bgp_routes))
        .fallback(|| async { failed(&Failure::unknown("there is no such path in the API")) })
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .with_state(calls)
}

async fn trace(
    State(calls): State<mpsc::Sender<Call>>,
    question: Result<Query<TraceQuestion>, QueryRejection>,
) -> HttpResponse {
    match question {
        Ok(Query(question)) => answer(calls, Request::Trace(question)).await,
        Err(error) => failed(&Failure::invalid(error.body_text())),
    }
}

#[derive(Debug, Deserialize)]
struct After {
    #[serde(default)]
    after: u64,
}

async fn drops(
    State(calls): State<mpsc::Sender<Call>>,
    after: Result<Query<After>, QueryRejection>,
) -> HttpResponse {
    match after {
        Ok(Query(After { after })) => answer(calls, Request::Drops { after }).await,
        Err(error) => failed(&Failure::invalid(error.body_text())),
    }
}

async fn bgp_routes(
    State(calls): State<mpsc::Sender<Call>>,
    question: Result<Query<RoutesQuestion>, QueryRejection>,
) -> HttpResponse {
    match question {
        Ok(Query(question)) => answer(calls, Request::BgpRoutes(question)).await,
        Err(error) => failed(&Failure::invalid(error.body_text())),
    }
}

async fn plan(
    State(calls): State<mpsc::Sender<Call>>,
    config: Result<Json<ConfigText>, JsonRejection>,
) -> HttpResponse {
    changed(calls, config, Request::Plan).await
}

async fn apply(
    State(calls): State<mpsc::Sender<Call>>,
    config: Result<Json<ConfigText>, JsonRejection>,
) -> HttpResponse {
    changed(calls, config, Request::Apply).await
}

async fn backend(
    State(calls): State<mpsc::Sender<Call>>,
    change: Result<Json<BackendChange>, JsonRejection>,
) -> HttpResponse {
    changed(calls, change, Request::Backend).await
}

async fn drain(
    State(calls): State<mpsc::Sender<Call>>,
    change: Result<Json<DrainChange>, JsonRejection>,
) -> HttpResponse {
    changed(calls, change, Request::Drain).await
}

async fn bgp(
    State(calls): State<mpsc::Sender<Call>>,
    order: Result<Json<Order>, JsonRejection>,
) -> HttpResponse {
    changed(calls, order, |order| Request::Bgp(Box::new(order))).await
}

async fn changed<T>(
    calls: mpsc::Sender<Call>,
    body: Result<Json<T>, JsonRejection>,
    request: impl FnOnce(T) -> Request,
) -> HttpResponse {
    match body {
        Ok(Json(body)) => answer(calls, request(body)).await,
        Err(error) => failed(&Failure::invalid(error.body_text())),
    }
}

/// Asks the controller.
async fn call(calls: &mpsc::Sender<Call>, request: Request) -> Result<Response, Failure> {
    let (reply, answered) = oneshot::channel();
    calls.try_send(Call { request, reply }).map_err(|unsent| match unsent {
        mpsc::error::TrySendError::Full(_) => Failure::busy("lbd is busy; try again in a second"),
        mpsc::error::TrySendError::Closed(_) => Failure::busy("lbd is stopping"),
    })?;
    answered.await.unwrap_or_else(|_stopped| Err(Failure::busy("lbd is stopping")))
}

async fn answer(calls: mpsc::Sender<Call>, request: Request) -> HttpResponse {
    match call(&calls, request).await {
        Ok(response) => Json(response).into_response(),
        Err(failure) => failed(&failure),
    }
}

fn failed(failure: &Failure) -> HttpResponse {
    let status = match failure.code.as_str() {
        "unknown" => StatusCode::NOT_FOUND,
        "invalid" => StatusCode::BAD_REQUEST,
        "refused" => StatusCode::CONFLICT,
        "busy" => StatusCode::SERVICE_UNAVAILABLE,
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    };
    (status, Json(failure)).into_response()
}

async fn scrape(calls: mpsc::Sender<Call>, encode: Encode) -> HttpResponse {
    const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    match call(&calls, Request::Metrics).await {
        Ok(Response::Snapshot(snapshot)) => {
            ([(header::CONTENT_TYPE, OPENMETRICS)], encode(&snapshot)).into_response()
        }
        Ok(_) => failed(&Failure::internal("the controller gave another answer")),
        Err(failure) => failed(&failure),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups() {
        let text = "root:x:0:\nlb:x:990:alice,bob\nbad:x::\n";
        for (name, want) in [("root", Some(0)), ("lb", Some(990)), ("bad", None), ("l", None)] {
            assert_eq!(find_group(text, name), want, "{name}");
        }
    }
}

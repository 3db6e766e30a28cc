//! lbctl's side of the socket: one request, one answer, and an error that says what to do.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use axum::http::{Method, StatusCode, header};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Bytes;
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;

use super::Failure;

/// An answer takes milliseconds; after this long lbd hangs.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// There is no socket.
    #[error("there is no socket {0}: is lbd running? `--socket PATH` names another one")]
    Missing(PathBuf),
    /// The socket's owner and group are others.
    #[error("no permission to use {0}: run as root, or as a member of the group in `[api] group`")]
    Permission(PathBuf),
    /// The socket is left over.
    #[error("nobody answers on {0}: lbd has stopped; the data plane goes on without it")]
    Refused(PathBuf),
    /// Any other error on the way.
    #[error("cannot talk to lbd on {path}: {reason}")]
    Io {
        /// The socket.
        path: PathBuf,
        /// What happened.
        reason: String,
    },
    /// lbd did not answer in time.
    #[error("lbd did not answer within {0:?}; see its log")]
    Timeout(Duration),
    /// lbd answers what this version does not understand.
    #[error("cannot read the answer of lbd ({0}); are lbd and lbctl of one version?")]
    Unreadable(String),
    /// lbd understood and says no.
    #[error(transparent)]
    Failed(Failure),
}

/// The body of an answer, as it was read.
#[derive(Clone, Debug)]
pub struct Answer<T> {
    /// The JSON text.
    pub json: String,
    /// What it says.
    pub value: T,
}

/// Speaks to one socket.
#[derive(Clone, Debug)]
pub struct Client {
    socket: PathBuf,
}

impl Client {
    /// Does not connect yet.
    #[must_use]
    pub fn new(socket: &Path) -> Self {
        Self { socket: socket.to_owned() }
    }

    /// Reads.
    ///
    /// # Errors
    /// Any [`ClientError`].
    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<Answer<T>, ClientError> {
        self.timed(Method::GET, path, Vec::new()).await
    }

    /// Changes.
    ///
    /// # Errors
    /// Any [`ClientError`].
    pub async fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
    ) -> Result<Answer<T>, ClientError> {
        let body = serde_json::to_vec(body).map_err(|error| self.broken(&error))?;
        self.timed(Method::POST, path, body).await
    }

    async fn timed<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Vec<u8>,
    ) -> Result<Answer<T>, ClientError> {
        let exchange = self.exchange(method, path, body);
        let answer = tokio::time::timeout(ANSWER_TIMEOUT, exchange).await;
        let (status, bytes) = answer.map_err(|_elapsed| ClientError::Timeout(ANSWER_TIMEOUT))??;
        let unreadable = |error: serde_json::Error| ClientError::Unreadable(error.to_string());
        if !status.is_success() {
            let failure: Failure = serde_json::from_slice(&bytes).map_err(unreadable)?;
            return Err(ClientError::Failed(failure));
        }
        let value = serde_json::from_slice(&bytes).map_err(unreadable)?;
        Ok(Answer { json: String::from_utf8_lossy(&bytes).into_owned(), value })
    }

    async fn exchange(
        &self,
        method: Method,
        path: &str,
        body: Vec<u8>,
    ) -> Result<(StatusCode, Bytes), ClientError> {
        let stream = UnixStream::connect(&self.socket).await;
        let stream = stream.map_err(|error| self.unconnected(&error))?;
        let handshake = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await;
        let (mut sender, connection) = handshake.map_err(|error| self.broken(&error))?;
        let driver = tokio::spawn(connection);
        let request = hyper::Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, "lb")
            .header(header::CONTENT_TYPE, "application/json")
            .body(Full::new(Bytes::from(body)))
            .map_err(|error| self.broken(&error))?;
        let response = sender.send_request(request).await.map_err(|error| self.broken(&error))?;
        let status = response.status();
        let collected = response.into_body().collect().await;
        driver.abort();
        Ok((status, collected.map_err(|error| self.broken(&error))?.to_bytes()))
    }

    fn unconnected(&self, error: &io::Error) -> ClientError {
        let path = self.socket.clone();
        let kind = error.kind();
        if kind == io::ErrorKind::NotFound {
            ClientError::Missing(path)
        } else if kind == io::ErrorKind::PermissionDenied {
            ClientError::Permission(path)
        } else if kind == io::ErrorKind::ConnectionRefused {
            ClientError::Refused(path)
        } else {
            self.broken(error)
        }
    }

    fn broken(&self, error: &dyn std::error::Error) -> ClientError {
        ClientError::Io { path: self.socket.clone(), reason: error.to_string() }
    }
}

//! What lbd and its clients say to each other: HTTP and JSON on a unix socket.
//!
//! `types` and `bgp` are the answers, `requests` what may be asked, `server` turns one into the
//! other by handing each question to the controller's queue, `client` is lbctl's side. GET reads,
//! POST changes; who may connect is decided by the socket's file mode alone.
//!
//! Must not: know the data plane or the controller. Between server and controller lies a queue of
//! [`Call`]s, and nothing else.

use tokio::sync::oneshot;

pub mod bgp;
pub mod client;
pub mod requests;
#[cfg(test)]
pub(crate) mod sample;
pub mod server;
#[cfg(test)]
mod tests;
pub mod types;

pub use requests::{BackendAction, BackendChange, Request};
pub use types::{Failure, Response};

/// The version of every JSON document here; counts up when a field changes its meaning or goes.
pub const API_VERSION: u32 = 1;

/// Calls waiting for the controller; more are answered `busy` at once.
pub const CALLS_MAX: usize = 64;

/// One question on its way to the controller, and where the answer goes.
#[derive(Debug)]
pub struct Call {
    /// The question.
    pub request: Request,
    /// Takes the answer; one who no longer waits for it does not need it.
    pub reply: oneshot::Sender<Result<Response, Failure>>,
}

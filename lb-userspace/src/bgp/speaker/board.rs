//! Where the tasks put their reports, and when these are shown.
//!
//! A part of `speaker`; everything is on one thread.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;

use crate::bgp::session::PeerReport;

/// Reports that say nothing new but numbers come no more often than this.
pub(super) const REPORT_INTERVAL: Duration = Duration::from_millis(100);

/// Reports by the peer's name.
type Reports = BTreeMap<String, Arc<PeerReport>>;

/// The newest reports of all peers.
#[derive(Debug, Default)]
pub(super) struct Board {
    reports: RefCell<Reports>,
    urgent: Cell<bool>,
    changed: Notify,
}

impl Board {
    /// Puts a report up; an urgent one is shown at once.
    pub(super) fn put(&self, name: &str, report: PeerReport, urgent: bool) {
        self.reports.borrow_mut().insert(name.to_owned(), Arc::new(report));
        self.urgent.set(self.urgent.get() || urgent);
        self.changed.notify_one();
    }

    /// Waits for a report; whether it is urgent.
    pub(super) async fn changed(&self) -> bool {
        self.changed.notified().await;
        self.urgent.take()
    }

    /// The reports, but those of peers that are not there any more.
    pub(super) fn reports(&self, is_there: impl Fn(&str) -> bool) -> Reports {
        let mut reports = self.reports.borrow_mut();
        reports.retain(|name, _| is_there(name));
        reports.clone()
    }
}

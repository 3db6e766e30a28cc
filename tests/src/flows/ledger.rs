//! The ledger: which flow was answered by which backend, how it ended, and what that counts as.
//!
//! Pure: whoever writes into it brings the time.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use tokio::time::Instant;

/// How many reasons of broken flows a count keeps: enough to see the pattern.
const REASONS: usize = 5;

/// What sort of flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A TCP connection that lasts.
    Tcp,
    /// A TCP connection that ends by itself after a second.
    Short,
    /// Datagrams from one port, with answers.
    Udp,
}

/// The addresses and ports of a flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key {
    /// Source.
    pub client: SocketAddr,
    /// Destination.
    pub vip: SocketAddr,
}

/// How a flow ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// By its own will.
    Finished,
    /// With an error: reset, closed by the other side.
    Failed(String),
    /// No answer for [`super::SILENCE`].
    Silent,
    /// Another backend answered, this one.
    Stranger(String),
}

/// A flow that has been answered at least once.
#[derive(Debug, Clone)]
pub struct Flow {
    /// What sort.
    pub kind: Kind,
    /// Its addresses and ports.
    pub key: Key,
    /// Who answered first.
    pub backend: String,
    /// When it was answered for the first time.
    pub opened_at: Instant,
    /// When it was answered last.
    pub answered_at: Instant,
    /// How it ended, if it has.
    pub end: Option<End>,
}

/// A flow's number in the ledger; never used again.
pub type FlowId = u64;

/// All flows of the running act, and those that last longer.
#[derive(Debug, Default)]
pub struct Ledger {
    flows: BTreeMap<FlowId, Flow>,
    next: FlowId,
    unanswered: u64,
    unanswered_reason: Option<String>,
}

/// What became of the flows of an act.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tally {
    /// Flows that were answered, at any time in the act or before.
    pub flows: u64,
    /// Flows that ended because their own backend had died.
    pub ended_with_backend: u64,
    /// Flows that ended though their backend lived.
    pub broken: u64,
    /// New flows that were never answered; no flows yet, so they count nowhere else.
    pub unanswered: u64,
    /// What happened to some of the broken ones.
    pub reasons: Vec<String>,
}

impl Ledger {
    /// Enters a flow at its first answer.
    pub fn opened(&mut self, kind: Kind, key: Key, backend: &str, now: Instant) -> FlowId {
        let id = self.next;
        self.next += 1;
        let backend = backend.to_owned();
        let flow = Flow { kind, key, backend, opened_at: now, answered_at: now, end: None };
        self.flows.insert(id, flow);
        id
    }

    /// Notes a further answer. False if it came from another backend: the flow has ended then.
    pub fn answered(&mut self, id: FlowId, backend: &str, now: Instant) -> bool {
        let Some(flow) = self.flows.get_mut(&id) else { return false };
        flow.answered_at = now;
        if flow.backend == backend {
            return true;
        }
        flow.end = Some(End::Stranger(backend.to_owned()));
        false
    }

    /// Notes the end of a flow; the first one stands.
    pub fn ended(&mut self, id: FlowId, end: End) {
        if let Some(flow) = self.flows.get_mut(&id) {
            flow.end.get_or_insert(end);
        }
    }

    /// Notes a flow that failed before its first answer.
    pub fn unanswered(&mut self, reason: String) {
        self.unanswered += 1;
        self.unanswered_reason = Some(reason);
    }

    /// The latest reason of a flow that was never answered.
    #[must_use]
    pub fn unanswered_reason(&self) -> Option<&str> {
        self.unanswered_reason.as_deref()
    }

    /// The flows that have not ended.
    pub fn alive(&self) -> impl Iterator<Item = (FlowId, &Flow)> {
        let alive = self.flows.iter().filter(|(_, flow)| flow.end.is_none());
        alive.map(|(id, flow)| (*id, flow))
    }

    /// All flows of this act.
    pub fn flows(&self) -> impl Iterator<Item = &Flow> {
        self.flows.values()
    }

    /// Begins an act: flows that have ended are forgotten, and counts start at zero.
    pub fn begin(&mut self) {
        self.flows.retain(|_, flow| flow.end.is_none());
        self.unanswered = 0;
        self.unanswered_reason = None;
    }

    /// Counts the act, in which the backends `dead` died.
    #[must_use]
    pub fn tally(&self, dead: &BTreeSet<String>) -> Tally {
        let mut tally = Tally { unanswered: self.unanswered, ..Tally::default() };
        for flow in self.flows.values() {
            tally.flows += 1;
            let Some(end) = &flow.end else { continue };
            if *end == End::Finished {
                continue;
            }
            if dead.contains(&flow.backend) {
                tally.ended_with_backend += 1;
                continue;
            }
            tally.broken += 1;
            if tally.reasons.len() < REASONS {
                let Flow { kind, key, backend, .. } = flow;
                let Key { client, vip } = key;
                tally.reasons.push(format!("{kind:?} {client} > {vip} on {backend}: {end:?}"));
            }
        }
        tally
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use tokio::time::Instant;

    use super::{End, Key, Kind, Ledger};

    fn key() -> Key {
        Key { client: ([198, 51, 100, 1], 1).into(), vip: ([203, 0, 113, 10], 80).into() }
    }

    /// One flow on web1 that ends so, with these backends dead: ended with its backend, broken.
    fn check(end: Option<End>, dead: &[&str], expected: (u64, u64)) {
        let mut ledger = Ledger::default();
        let id = ledger.opened(Kind::Tcp, key(), "web1", Instant::now());
        if let Some(end) = end.clone() {
            ledger.ended(id, end);
        }
        let dead: BTreeSet<String> = dead.iter().map(|name| (*name).to_owned()).collect();
        let tally = ledger.tally(&dead);
        assert_eq!(tally.flows, 1);
        assert_eq!((tally.ended_with_backend, tally.broken), expected, "{end:?} {dead:?}");
    }

    #[test]
    fn a_flow_is_broken_unless_its_own_backend_died() {
        check(None, &["web1"], (0, 0));
        check(Some(End::Finished), &["web1"], (0, 0));
        for end in [End::Silent, End::Failed("reset".into()), End::Stranger("web2".into())] {
            check(Some(end.clone()), &[], (0, 1));
            check(Some(end.clone()), &["web2"], (0, 1));
            check(Some(end), &["web1", "web2"], (1, 0));
        }
    }

    #[test]
    fn an_answer_of_another_backend_ends_the_flow() {
        let now = Instant::now();
        let mut ledger = Ledger::default();
        let id = ledger.opened(Kind::Udp, key(), "web1", now);
        assert!(ledger.answered(id, "web1", now));
        assert!(!ledger.answered(id, "web2", now));
        // What follows from it is not a second end.
        ledger.ended(id, End::Silent);
        assert_eq!(ledger.flows().next().unwrap().end, Some(End::Stranger("web2".into())));
        assert_eq!(ledger.alive().count(), 0);
    }

    #[test]
    fn an_act_begins_with_the_living() {
        let now = Instant::now();
        let mut ledger = Ledger::default();
        let ended = ledger.opened(Kind::Tcp, key(), "web1", now);
        ledger.opened(Kind::Tcp, key(), "web2", now);
        ledger.ended(ended, End::Silent);
        ledger.unanswered("refused".into());
        ledger.begin();
        let tally = ledger.tally(&BTreeSet::new());
        assert_eq!((tally.flows, tally.broken, tally.unanswered), (1, 0, 0));
    }
}

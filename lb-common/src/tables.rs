//! The tables a decision reads: maps in the kernel, a mapping or plain memory on the host.

use crate::backend::{Backend, BackendId};
use crate::control::Control;
use crate::decide::{self, Path, Question};
use crate::flow::Bucket;
use crate::record::Record;
use crate::table::{HistoryRow, SlotRow};
use crate::verdict::FlowEvent;

/// Everything a decision needs beside the packet.
pub trait Tables {
    /// How a bucket of the flow table is reached.
    type Bucket<'a>: Bucket
    where
        Self: 'a;

    /// Settings, VIPs, pools. `None` only before the first configuration.
    fn control(&self) -> Option<&Control>;
    /// A row of 32 slots.
    fn slots(&self, row: u32) -> Option<&SlotRow>;
    /// A row of 8 histories.
    fn history(&self, row: u32) -> Option<&HistoryRow>;
    /// A backend.
    fn backend(&self, id: BackendId) -> Option<&Backend>;
    /// A bucket of the flow table.
    fn bucket(&self, index: u32) -> Option<Self::Bucket<'_>>;
    /// The kernel's jiffies.
    fn jiffies(&self) -> u64;
    /// May one more new flow, whose bucket is full and has unconfirmed flows in it, look for a free
    /// place in its other bucket in this tick?
    fn may_look_again(&self, tick: u16) -> bool;
    /// Counts an event of the flow table; a host has no counters.
    #[inline(always)]
    fn count(&self, _event: FlowEvent) {}
    /// The interface the packet came in by.
    fn ingress(&self) -> u32;

    /// Enters a flow's packet now, or keeps it for [`Tables::enter`].
    #[inline(always)]
    fn record(&self, record: Record)
    where
        Self: Sized,
    {
        self.enter(record);
    }

    /// Enters what a packet left, if it still holds.
    #[inline(always)]
    fn enter(&self, record: Record)
    where
        Self: Sized,
    {
        let question = self.control().and_then(|control| record.question(self, control));
        if let Some(question) = question {
            // Where the packet went is known; the table only learns.
            let _answer = self.tracked(question);
        }
    }

    /// [`decide::tracked`]: a method, so that the kernel can make it a function of its own, which
    /// the verifier checks once and not once for each way that leads there.
    #[inline(always)]
    fn tracked(&self, ask: Question) -> (BackendId, Path)
    where
        Self: Sized,
    {
        match self.control() {
            Some(control) => decide::tracked(self, control, ask),
            None => (ask.slot.backend(), Path::Miss),
        }
    }
}

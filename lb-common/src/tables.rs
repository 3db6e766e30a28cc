//! The tables a decision reads: maps in the kernel, a mapping or plain memory on the host.

use crate::backend::{Backend, BackendId};
use crate::control::Control;
use crate::flow::Bucket;
use crate::table::{HistoryRow, SlotRow};

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
    /// The interface the packet came in by.
    fn ingress(&self) -> u32;
    /// May one more ICMP error be sent now?
    fn icmp_allowed(&self, limit: u16, tick: u16) -> bool;
}

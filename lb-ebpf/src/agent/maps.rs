//! The agent's maps, reached through [`lb_common::agent::AgentTables`].

use aya_ebpf::macros::map;
use aya_ebpf::maps::lpm_trie::{Key, LpmTrie};
use aya_ebpf::maps::{Array, HashMap, PerCpuArray};
use lb_common::addr::Address;
use lb_common::agent::{AgentTables, MAX_ADDRESSES, MAX_SOURCES, OUTCOMES, Outcome, Settings};
use lb_common::verdict::Counter;

#[map]
static AGENT_SETTINGS: Array<Settings> = Array::with_max_entries(1, 0);
#[map]
static AGENT_ADDRESSES: HashMap<Address, u32> = HashMap::with_max_entries(MAX_ADDRESSES, 0);
#[map]
static AGENT_SOURCES: LpmTrie<[u8; 16], u32> = LpmTrie::with_max_entries(MAX_SOURCES, 0);
#[map]
static AGENT_COUNTERS: PerCpuArray<Counter> = PerCpuArray::with_max_entries(OUTCOMES, 0);

/// The maps, for one packet.
pub(crate) struct Maps;

/// A key whose 16 address bytes are 8-byte aligned: the stack takes no other store of 8 bytes.
#[repr(C, align(8))]
struct SourceKey {
    pad: u32,
    key: Key<[u8; 16]>,
}

impl AgentTables for Maps {
    #[inline(always)]
    fn settings(&self) -> Option<&Settings> {
        AGENT_SETTINGS.get(0)
    }

    #[inline(always)]
    fn flags(&self, address: &Address) -> u32 {
        // SAFETY: the value is read in one 4-byte load; a reused element is another address's
        // flags for one packet.
        unsafe { AGENT_ADDRESSES.get(address) }.copied().unwrap_or(0)
    }

    #[inline(always)]
    fn source_listed(&self, address: &Address) -> bool {
        let key = SourceKey { pad: 0, key: Key::new(128, address.0) };
        AGENT_SOURCES.get(&key.key).is_some()
    }
}

/// Counts a frame of `bytes` bytes.
#[inline(always)]
pub(crate) fn count(outcome: Outcome, bytes: u64) {
    let Some(counter) = AGENT_COUNTERS.get_ptr_mut(outcome as u32) else { return };
    // SAFETY: this CPU's value.
    let counter = unsafe { &mut *counter };
    counter.packets += 1;
    counter.bytes += bytes;
}

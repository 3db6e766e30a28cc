//! Access to the bytes of a frame: one trait for the kernel's packet and for a buffer on the host.

use crate::headers::Wire;

/// The farthest byte that is ever read, so that the verifier sees a bound: Ethernet, two VLAN
/// tags, and the longest chain of headers we walk.
pub const MAX_OFFSET: usize = 511;

/// A frame, from the first byte of its Ethernet header. Every access is checked.
pub trait Packet {
    /// A header at `offset`; `None` beyond the end or beyond [`MAX_OFFSET`].
    fn get<T: Wire>(&self, offset: usize) -> Option<&T>;
    /// As [`Packet::get`], to write.
    fn get_mut<T: Wire>(&mut self, offset: usize) -> Option<&mut T>;
    /// Length in bytes.
    fn length(&self) -> usize;
    /// Moves the start: `bytes` > 0 grows the frame in front (new bytes undefined), < 0 shrinks.
    /// False when there is no room.
    fn grow_front(&mut self, bytes: i32) -> bool;
    /// Cuts the end so that `length` bytes remain. False when the frame is shorter.
    fn truncate(&mut self, length: usize) -> bool;
}

/// The same value, computed here and in 64 bits: the compiler must not move the arithmetic with
/// pointers that it comes from into that which follows, where the verifier takes none.
#[inline(always)]
#[must_use]
pub fn settled(value: usize) -> usize {
    #[cfg(target_arch = "bpf")]
    {
        let mut value = value;
        // SAFETY: changes nothing in one register.
        unsafe { core::arch::asm!("{0} |= 0", inout(reg) value, options(pure, nomem, nostack)) };
        value
    }
    #[cfg(not(target_arch = "bpf"))]
    {
        value
    }
}

/// A frame in a host buffer with headroom, for tests, trace and simulation.
#[derive(Clone, Debug)]
pub struct Buffer<const N: usize> {
    bytes: [u8; N],
    start: usize,
    end: usize,
}

/// Bytes in front of the frame, as XDP drivers leave them (XDP_PACKET_HEADROOM).
pub const HEADROOM: usize = 256;

impl<const N: usize> Buffer<N> {
    /// A copy of `frame`; `None` when it does not fit behind the headroom.
    #[must_use]
    pub fn new(frame: &[u8]) -> Option<Self> {
        let mut bytes = [0; N];
        let end = HEADROOM.checked_add(frame.len())?;
        bytes.get_mut(HEADROOM..end)?.copy_from_slice(frame);
        Some(Self { bytes, start: HEADROOM, end })
    }

    /// The frame as it is now.
    #[must_use]
    pub fn frame(&self) -> &[u8] {
        self.bytes.get(self.start..self.end).unwrap_or_default()
    }
}

impl<const N: usize> Packet for Buffer<N> {
    fn get<T: Wire>(&self, offset: usize) -> Option<&T> {
        if offset > MAX_OFFSET {
            return None;
        }
        let bytes = self.frame().get(offset..offset + size_of::<T>())?;
        // SAFETY: the slice has the size of T; T is Wire: alignment 1 and any pattern valid.
        Some(unsafe { &*bytes.as_ptr().cast::<T>() })
    }

    fn get_mut<T: Wire>(&mut self, offset: usize) -> Option<&mut T> {
        if offset > MAX_OFFSET {
            return None;
        }
        let frame = self.bytes.get_mut(self.start..self.end)?;
        let bytes = frame.get_mut(offset..offset + size_of::<T>())?;
        // SAFETY: the slice has the size of T; T is Wire: alignment 1 and any pattern valid.
        Some(unsafe { &mut *bytes.as_mut_ptr().cast::<T>() })
    }

    fn length(&self) -> usize {
        self.end - self.start
    }

    fn grow_front(&mut self, bytes: i32) -> bool {
        let Ok(bytes) = isize::try_from(bytes) else { return false };
        match self.start.checked_add_signed(-bytes) {
            // The kernel wants at least an Ethernet header to remain (bpf_xdp_adjust_head).
            Some(start) if start + 14 <= self.end => {
                self.start = start;
                true
            }
            _ => false,
        }
    }

    fn truncate(&mut self, length: usize) -> bool {
        if length > self.length() {
            return false;
        }
        self.end = self.start + length;
        true
    }
}

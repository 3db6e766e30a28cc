//! What the XDP programs and user space must agree on.
//!
//! No allocation, no IO, no clock: the same code runs in the kernel, in `lbd`, in tests and in
//! fuzzers.
#![no_std]

pub mod addr;

//! Packets through the real program, loaded into the kernel and run by BPF_PROG_TEST_RUN: the
//! table of what becomes of which frame, what is counted, and the same decision on the host.

mod attach;
mod cases;
mod counters;
mod differential;
mod fixtures;
mod own_probe;
mod pins;
mod random;
mod records;
mod wanted;
mod world;

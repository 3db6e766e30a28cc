//! The data plane from user space.

pub mod object;

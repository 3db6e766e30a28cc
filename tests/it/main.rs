//! Tests against the kernel: programs on packets, and the load balancer in a lab of namespaces.

#[cfg(test)]
mod network;
#[cfg(test)]
mod program;

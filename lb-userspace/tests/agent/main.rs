//! The agent: one table of frames through the decision on the host and through the real programs,
//! and the real `lb-agent` in namespaces. What needs root says so when it is skipped.

#[cfg(test)]
mod build;
#[cfg(test)]
mod cases;
#[cfg(test)]
mod lab;
#[cfg(test)]
mod network;
#[cfg(test)]
mod program;
#[cfg(test)]
mod tun;

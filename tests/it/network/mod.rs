//! The load balancer in the lab, with real TCP and UDP.

mod without_balancer;

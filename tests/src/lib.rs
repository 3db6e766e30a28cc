//! The lab: namespaces, routers, backends and long-lived real flows.

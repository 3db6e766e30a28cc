//! BGP's part of the configuration, in the steps of the room: schema, raw, validate, resolve.
//!
//! A room inside `config`, because BGP has more keys than the rest together. What the settings
//! mean is in `desired::bgp`.
//!
//! Must not: read a file; passwords and payloads come through the readers of `config`.

mod checks;
mod external;
mod peers;
#[cfg(test)]
pub(super) mod properties;
pub(super) mod raw;
pub(super) mod resolve;
mod routes;
pub(super) mod schema;
mod sums;
mod values;

pub(super) use self::checks::validate;
pub(super) use self::external::{External, read_external};

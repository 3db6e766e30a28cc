//! The words a configuration chooses from, one enum for each key that takes a word.
//!
//! A part of `desired`: the same word stands in the file, in JSON and on the screen.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::text::ParseError;

/// Declares an enum of words: the names it has in the file, in JSON and on the screen.
macro_rules! words {
    ($(#[$doc:meta])* $name:ident {
        $($(#[$about:meta])* $variant:ident = $word:literal,)+
    }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub enum $name {
            $($(#[$about])* #[serde(rename = $word)] $variant,)+
        }

        impl $name {
            /// Every word of this kind, in the order of the documentation.
            pub const WORDS: &'static [&'static str] = &[$($word),+];

            /// The word in the configuration.
            #[must_use]
            pub const fn word(self) -> &'static str {
                match self { $(Self::$variant => $word,)+ }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(self.word())
            }
        }

        impl FromStr for $name {
            type Err = ParseError;

            fn from_str(text: &str) -> Result<Self, ParseError> {
                match text {
                    $($word => Ok(Self::$variant),)+
                    _ => Err(ParseError::new(concat!("one of", $(" ", $word),+), text)),
                }
            }
        }
    };
}

words! {
    /// How the program is attached to the interfaces.
    XdpMode {
        /// Native, and generic with a warning where the driver has no native XDP.
        Auto = "auto",
        /// In the driver, or not at all.
        Native = "native",
        /// In the kernel's generic hook.
        Generic = "generic",
    }
}

words! {
    /// How a packet travels to its backend. The outer family is that of the backend's address.
    Encap {
        /// UDP with the GUE header and our private data (RFC draft-ietf-intarea-gue, variant 0).
        Gue = "gue",
        /// The packet right behind the outer IP header (RFC 2003, RFC 2473).
        Ipip = "ipip",
    }
}

words! {
    /// What the last announcer of a prefix does when its VIPs lose their backends.
    LastAnnouncer {
        /// Goes on announcing, with an alarm: somebody's packets are better than nobody's.
        Keep = "keep",
        /// Withdraws: an unreachable prefix is what the operator prefers.
        Withdraw = "withdraw",
    }
}

words! {
    /// What SIGTERM does to the routes.
    OnShutdown {
        /// Lower preference, withdraw, forward until packets stop, close the sessions.
        Withdraw = "withdraw",
        /// Leave them to graceful restart: the next lbd goes on.
        Keep = "keep",
    }
}

words! {
    /// Where the flows of a dead backend go.
    OnDown {
        /// Still to it: the verdict may be wrong, and then nothing broke.
        Keep = "keep",
        /// To the next backend of their slot, which resets them.
        Release = "release",
    }
}

words! {
    /// Which flows are remembered in the flow table.
    Tracking {
        /// None: each packet follows the lookup table (UDP only).
        Stateless = "stateless",
        /// Those whose slot is changing.
        Contested = "contested",
        /// All.
        Always = "always",
    }
}

words! {
    /// The protocol of a VIP.
    Protocol {
        /// TCP, IP protocol 6.
        Tcp = "tcp",
        /// UDP, IP protocol 17.
        Udp = "udp",
    }
}

words! {
    /// What the operator wants of a backend.
    BackendState {
        /// Takes new flows while it is healthy.
        Up = "up",
        /// Takes no new flow and keeps those it has.
        Drain = "drain",
    }
}

words! {
    /// What a probe does.
    HealthKind {
        /// Opens a TCP connection.
        Tcp = "tcp",
    }
}

words! {
    /// Which way a probe goes, as the configuration says it; [`super::Via`] says where to.
    ViaWord {
        /// The way a client's packet goes, to a VIP of the pool.
        Tunnel = "tunnel",
        /// To the backend's own address.
        Direct = "direct",
    }
}

words! {
    /// The least important level that is logged.
    LogLevel {
        /// What stops lbd or a part of it.
        Error = "error",
        /// What an operator should look at.
        Warn = "warn",
        /// Changes of state.
        Info = "info",
        /// Decisions.
        Debug = "debug",
        /// Everything.
        Trace = "trace",
    }
}

words! {
    /// How a log event is written.
    LogFormat {
        /// Text on a terminal and under systemd, JSON otherwise.
        Auto = "auto",
        /// One line of text.
        Text = "text",
        /// One JSON object per line.
        Json = "json",
    }
}

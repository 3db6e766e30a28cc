//! The kinds of findings: their ids, how much they weigh and what they mean.
//!
//! A part of `diagnostic`. Each has a case that shows it.

use super::diagnostic::Severity;

/// Declares the ids of the findings; the words are a promise to scripts and to the manual.
macro_rules! ids {
    ($($severity:ident $variant:ident = $word:literal, $doc:literal;)+) => {
        /// What kind of finding it is.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Id {
            $(#[doc = $doc] $variant,)+
        }

        impl Id {
            /// Every id, in the order of the manual.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// The id as it is shown: stable over versions.
            #[must_use]
            pub const fn word(self) -> &'static str {
                match self { $(Self::$variant => $word,)+ }
            }

            /// Whether the configuration is refused because of it.
            #[must_use]
            pub const fn severity(self) -> Severity {
                match self { $(Self::$variant => Severity::$severity,)+ }
            }

            /// One sentence for the manual.
            #[must_use]
            pub const fn meaning(self) -> &'static str {
                match self { $(Self::$variant => $doc,)+ }
            }
        }
    };
}

ids! {
    Error Unreadable = "unreadable", "A file of the configuration cannot be read.";
    Error Syntax = "syntax", "The file is not TOML.";
    Error UnsupportedVersion = "unsupported-version", "`version` is not one this lbd knows.";
    Error UnknownKey = "unknown-key", "There is no such key or table here.";
    Error NotInFragment = "not-in-fragment", "A file beside lb.toml has more than pools and VIPs.";
    Error MissingKey = "missing-key", "A key that has no default is not set.";
    Error WrongType = "wrong-type", "A number where a text belongs, or the like.";
    Error OutOfRange = "out-of-range", "A number or duration is too small or too large.";
    Error BadDuration = "bad-duration", "A duration is not a whole number with a unit.";
    Error UnknownWord = "unknown-word", "The key takes one of a few words, and not this one.";
    Error BadName = "bad-name", "A name is empty, too long or has characters a name must not have.";
    Error BadAddress = "bad-address", "A text is no IP address, or one of the other family.";
    Error UnusableAddress = "unusable-address",
        "An address no packet can be sent to: unspecified, loopback, multicast, link-local.";
    Error BadPrefix = "bad-prefix", "A text is no prefix, or one of a length that does not do.";
    Error BadPath = "bad-path", "A path is not absolute, or too long for what it is for.";
    Error BadInterface = "bad-interface", "The kernel would not take this as an interface's name.";
    Error BadPort = "bad-port", "A port is none from 1 to 65535, or there is none at all.";
    Error BadSize = "bad-maglev-size", "`maglev_size` is none of the primes on the list.";
    Error UnsupportedHealth = "unsupported-health-kind", "This lbd cannot probe that way.";
    Error NoNodeAddress = "no-node-address", "The node has neither `address` nor `address6`.";
    Error NoOuterAddress = "no-outer-address",
        "A backend's family is one the node has no address of, so no tunnel can start.";
    Error DuplicateName = "duplicate-name",
        "Two pools, VIPs, peers or backends of a pool share a name.";
    Error DuplicateBackend = "duplicate-backend", "Two backends of one pool share an address.";
    Error DuplicateVip = "duplicate-vip", "Two VIPs share address, protocol and port.";
    Error DuplicateInterface = "duplicate-interface", "An interface is named twice.";
    Error UnknownPool = "unknown-pool", "A VIP names a pool that does not exist.";
    Error UnknownHealth = "unknown-health", "A pool names a health check that does not exist.";
    Error BackendIsVip = "backend-is-vip",
        "A backend's address is a VIP: its tunnel would come back to the load balancer.";
    Error AddressIsNode = "address-is-node",
        "A VIP, backend or peer has the load balancer's own address.";
    Error OverLimit = "over-limit", "More of something than there is room for.";
    Error TimeoutOverInterval = "timeout-over-interval",
        "A probe may last longer than the time to the next one.";
    Error PrepareTooShort = "prepare-too-short",
        "A handshake could straddle a change of the table.";
    Error NotForProtocol = "not-for-protocol", "A VIP sets what its protocol does not have.";
    Error HealthWithoutPort = "health-without-port", "Nothing says which port to probe.";
    Error TunnelWithoutVip = "tunnel-without-vip",
        "Probes shall go through the tunnel, and the pool has no TCP VIP with their port.";
    Error TunnelWithoutSource = "tunnel-without-source",
        "Probes shall go through the tunnel, and the node has no address of the VIP's family.";
    Error MinUpReturn = "min-up-return-below-min-up",
        "A pool would return with fewer backends than it left with.";
    Error BadAsn = "bad-asn", "An AS number is none, or one that nobody can have.";
    Error BadCommunity = "bad-community", "A text is no community of this kind.";
    Error NoRouterId = "no-router-id",
        "The node has no IPv4 address, and `router_id` is not set.";
    Error DuplicatePeer = "duplicate-peer", "Two BGP peers share an address.";
    Error DuplicatePrefix = "duplicate-prefix", "A prefix is announced twice.";
    Error DuplicateListen = "duplicate-listen", "BGP listens at one address twice.";
    Error UnknownPeer = "unknown-peer", "A prefix names a peer that does not exist.";
    Error PrefixWithoutVip = "prefix-without-vip",
        "A prefix holds no VIP: it would bring packets that nobody answers.";
    Error PassiveWithoutListen = "passive-without-listen",
        "A passive peer can connect to no address that BGP listens at.";
    Error TtlSecurity = "ttl-security-without-hops",
        "TTL security over 255 hops lets every packet pass.";
    Error NextHopFamily = "next-hop-family",
        "IPv4 prefixes have an IPv6 next hop, and a peer does not take it.";
    Error NoNextHop = "no-next-hop",
        "A family is announced over a session of the other one, and nothing says its next hop.";
    Error ExtendedNextHop = "extended-next-hop-family",
        "An IPv4 session has no IPv6 next hop of its own.";
    Error BfdMultihop = "bfd-multihop", "BFD reaches neighbours on the link only (RFC 5881).";
    Error KeepWithoutRestart = "keep-without-graceful-restart",
        "Without graceful restart, peers drop the routes that shutdown shall keep.";
    Error BackoffOrder = "backoff-over-maximum", "`backoff` is longer than `backoff_max`.";
    Error PoisonRefused = "poison-refused", "An AS must not be poisoned, or not towards this peer.";
    Error PathTooLong = "path-too-long", "Prepending adds up to a path that others drop.";
    Error TooManyCommunities = "too-many-communities",
        "Communities add up to more than a route may carry.";
    Error PasswordUnreadable = "password-unreadable", "A peer's password file cannot be read.";
    Error PasswordFormat = "password-format", "A peer's password file holds no password.";
    Error PasswordPermissions = "password-permissions",
        "Others than its owner can read a peer's password.";
    Error VrpUnreadable = "vrp-unreadable", "The file of ROA payloads cannot be read.";
    Error VrpFormat = "vrp-format", "The file of ROA payloads is too large or none.";
    Error RoaInvalid = "roa-invalid", "What is announced is Invalid by its ROAs (RFC 6811).";
    Error SecretUnreadable = "secret-unreadable", "The secret file cannot be read.";
    Error SecretFormat = "secret-format", "The secret file does not hold 32 hex digits.";
    Error SecretPermissions = "secret-permissions", "Others than its owner can read the secret.";
    Warning SecretWeak = "secret-weak", "The secret is one byte over and over.";
    Warning EmptyPool = "empty-pool", "A pool has no backends: its VIPs drop as `no_backend`.";
    Warning NoShare = "no-share", "No backend of a pool takes new flows.";
    Warning MaglevTooSmall = "maglev-too-small",
        "A backend's share of the table is so small that rounding shows.";
    Warning MinUpUnreachable = "min-up-unreachable",
        "`min_up` or `min_up_return` is more than the pool has backends.";
    Warning WindowShort = "window-short",
        "Flows that pause longer than the window rest on the second chance alone.";
    Warning UnusedPool = "unused-pool", "No VIP uses this pool.";
    Warning UnusedHealth = "unused-health", "No pool uses this health check.";
    Warning NoPeers = "no-peers", "BGP has no peers: nothing is announced.";
    Warning LocalPreferenceUnsent = "local-preference-unsent",
        "LOCAL_PREF is not told to peers in other ASes.";
    Warning BfdGracefulRestart = "bfd-with-graceful-restart",
        "BFD ends with lbd; some peers then drop the routes that graceful restart shall keep.";
    Warning RoaNotFound = "roa-not-found", "No ROA covers what is announced.";
    Warning MetricsExposed = "metrics-exposed", "Metrics are served beyond this machine.";
}

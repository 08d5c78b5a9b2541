//! Broadcast and multicast that a sleeper may miss: known noise, with the reason for each kind.
//!
//! Such a frame concerns a sleeper (it is addressed to a group that it is in) but nobody waits for this
//! one host's answer, or another one comes soon. It is absorbed: neither held nor a reason to wake. A UDP
//! port that the guest declared in `listen` is never noise.

/// Whether a flooded datagram to UDP port `port` is noise.
#[must_use]
pub(super) const fn is_noise(port: u16) -> bool {
    matches!(
        port,
        // DHCP: discovery by others, and replies broadcast to others. The guest asks for itself when awake;
        // what is unicast to it is held (RFC 2131, RFC 8415).
        67 | 68 | 546 | 547
        // NetBIOS names and datagrams (RFC 1001): browser elections and queries, repeated by design.
        | 137 | 138
        // SSDP: announcements every few minutes, searches for devices (UPnP Device Architecture 1.1).
        | 1900
        // WS-Discovery probes: the asker collects whoever answers.
        | 3702
        // mDNS: caches ask again (RFC 6762 5.2); its own records are kept by others for their TTL.
        | 5353
        // LLMNR: the resolver goes on to the next method (RFC 4795).
        | 5355
    )
}

//! What routers of a LAN say about the addresses on it (RFC 4861 4.2, RFC 4862 5.5.3 and 5.5.4): an address past its
//! valid lifetime is its host's no longer, and nobody may answer for it.
//!
//! Kept for a LAN and not for a guest, as it is the same for all: one advertisement costs the same among a thousand
//! guests as for one, asleep or awake. Addresses of a prefix that was never advertised are static and stay.

use core::net::Ipv6Addr;

use surrogate_wire::router::{self, Prefix};
use surrogate_wire::{Packet, Transport};

use crate::time::{Duration, Instant};

/// Prefixes that are remembered of one LAN. One more is not: its addresses count as static.
pub const MAX_PREFIXES: usize = 16;
/// What an advertisement cannot shorten a lifetime below, as anybody may have sent it (RFC 4862 5.5.3 e).
pub const TWO_HOURS: Duration = Duration::from_secs(2 * 3600);

/// See the [module](self).
#[derive(Clone, Debug, Default)]
pub struct Advertised {
    prefixes: [Option<Known>; MAX_PREFIXES],
    unremembered: u64,
}

#[derive(Clone, Copy, Debug)]
struct Known {
    prefix: Prefix,
    /// `None`: for ever.
    until: Option<Instant>,
}

impl Advertised {
    /// Takes a packet from the LAN. Allocates nothing.
    pub fn hear(&mut self, now: Instant, packet: &Packet<'_>) {
        let Packet::Ipv6(ip, Transport::Icmpv6(icmp)) = packet else { return };
        for prefix in router::prefixes(ip, icmp).into_iter().flatten().filter(makes_addresses) {
            self.take(now, prefix);
        }
    }

    fn take(&mut self, now: Instant, prefix: Prefix) {
        let told = prefix.valid.map(|valid| now + valid);
        let same =
            |known: &&mut Known| (known.prefix.prefix, known.prefix.len) == (prefix.prefix, prefix.len);
        if let Some(known) = self.prefixes.iter_mut().flatten().find(same) {
            known.until = match (known.until, told) {
                (_, None) => None,
                // Over already: as if new.
                (Some(until), Some(told)) if until <= now => Some(told),
                (Some(until), Some(told)) if told > until => Some(told),
                (Some(until), Some(told)) => Some(until.min(told.max(now + TWO_HOURS))),
                (None, Some(told)) => Some(told.max(now + TWO_HOURS)),
            };
        } else if let Some(free) = self.prefixes.iter_mut().find(|free| free.is_none()) {
            // Guests have their addresses already, with a lifetime that was not heard.
            let until = told.map(|told| told.max(now + TWO_HOURS));
            *free = Some(Known { prefix, until });
        } else {
            self.unremembered += 1;
        }
    }

    /// Until when, at least, `address` is its host's: before that time no advertisement can end it. `None`: it is
    /// over.
    #[must_use]
    pub fn valid_until(&self, now: Instant, address: Ipv6Addr) -> Option<Instant> {
        let covers = |known: &&Known| known.prefix.covers(address);
        let mut covering = self.prefixes.iter().flatten().filter(covers).peekable();
        let is_static = covering.peek().is_none();
        let lasts = |known: &Known| known.until.is_none_or(|until| until > now);
        let at_most = now + TWO_HOURS;
        // Of an address in several prefixes the longest lifetime counts.
        let until = covering.filter(|known| lasts(known)).map(|known| known.until.unwrap_or(at_most)).max();
        if is_static { Some(at_most) } else { until.map(|until| until.min(at_most)) }
    }

    /// How often there was no room for a prefix.
    #[must_use]
    pub const fn unremembered(&self) -> u64 {
        self.unremembered
    }
}

/// Whether hosts make addresses of `prefix` (RFC 4862 5.5.3 a to d; on Ethernet of 64 bits, RFC 2464 4).
fn makes_addresses(prefix: &Prefix) -> bool {
    let longer = |one: Option<Duration>, other: Option<Duration>| match (one, other) {
        (_, None) => false,
        (None, Some(_)) => true,
        (Some(one), Some(other)) => one > other,
    };
    prefix.autonomous
        && prefix.len == 64
        && !prefix.prefix.is_unicast_link_local()
        && !longer(prefix.preferred, prefix.valid)
}

#[cfg(test)]
mod tests {
    use surrogate_wire::checksum::Sum;
    use surrogate_wire::emit::{Ethernet, Ipv6Header};
    use surrogate_wire::icmpv6::ALL_NODES;
    use surrogate_wire::{Tags, protocol};

    use super::*;
    use crate::responder::ndisc::multicast_mac;
    use crate::responder::testing::{GUEST_V6, PEER, build, read};

    const FOR_EVER: u32 = u32::MAX;
    const HOUR: u32 = 3600;

    struct Lan {
        known: Advertised,
        now: Instant,
    }

    impl Lan {
        fn new() -> Self {
            Self { known: Advertised::default(), now: Instant::ZERO + Duration::from_secs(1_000_000) }
        }

        fn after(mut self, seconds: u32) -> Self {
            self.now = self.now + Duration::from_secs(seconds.into());
            self
        }

        /// A router advertises `prefix`.
        fn told(mut self, prefix: &str, len: u8, flags: u8, valid: u32, preferred: u32) -> Self {
            let prefix: Ipv6Addr = prefix.parse().unwrap();
            let src: Ipv6Addr = "fe80::1".parse().unwrap();
            let mut message = vec![134, 0, 0, 0, 64, 0, 7, 8, 0, 0, 0, 0, 0, 0, 0, 0, 3, 4, len, flags];
            message.extend([valid.to_be_bytes(), preferred.to_be_bytes(), [0; 4]].concat());
            message.extend(prefix.octets());
            let sum = Sum::pseudo_v6(src, ALL_NODES, protocol::ICMPV6, message.len()).add(&message).finish();
            message[2..4].copy_from_slice(&sum.to_be_bytes());
            let to = Ethernet { dst: multicast_mac(ALL_NODES), src: PEER, tags: Tags::NONE };
            let header = Ipv6Header {
                src,
                dst: ALL_NODES,
                traffic_class: 0,
                hop_limit: 255,
                protocol: protocol::ICMPV6,
            };
            let bytes = build(|out| {
                out.ipv6(&to, &header, message.len());
                out.push(&message);
            });
            self.known.hear(self.now, &read(&bytes).1);
            self
        }

        /// The guest's prefix, with this lifetime.
        fn valid(self, seconds: u32) -> Self {
            self.told("2001:db8::", 64, 0xc0, seconds, 0)
        }

        /// For how many seconds from now the guest's address is certain.
        fn left(&self) -> Option<u64> {
            self.known.valid_until(self.now, GUEST_V6).map(|until| until.since(self.now).as_secs())
        }
    }

    #[test]
    fn an_address_ends_with_its_prefix_unless_it_is_advertised_again() {
        let day = 24 * HOUR;
        assert_eq!(Lan::new().valid(day).after(day - 60).left(), Some(60));
        assert_eq!(Lan::new().valid(day).after(day).left(), None);
        assert_eq!(Lan::new().valid(day).after(HOUR).valid(day).after(day - HOUR).left(), Some(3600));
        assert_eq!(Lan::new().valid(day).after(day + 1).valid(day).left(), Some(7200), "begun anew");
        assert_eq!(Lan::new().valid(FOR_EVER).after(1_000 * day).left(), Some(7200), "look again");
    }

    #[test]
    fn a_static_address_does_not_end() {
        let day = 24 * HOUR;
        assert_eq!(Lan::new().after(1_000 * day).left(), Some(7200));
        let other = Lan::new().told("2001:db8:1::", 64, 0xc0, HOUR, 0);
        assert_eq!(other.after(10 * day).left(), Some(7200));
    }

    #[test]
    fn nobody_shortens_a_lifetime_to_less_than_two_hours() {
        let day = 24 * HOUR;
        assert_eq!(Lan::new().valid(0).left(), Some(7200), "of an address that the guest has already");
        assert_eq!(Lan::new().valid(day).valid(0).after(HOUR).left(), Some(3600));
        assert_eq!(Lan::new().valid(FOR_EVER).valid(0).after(HOUR).left(), Some(3600));
        assert_eq!(Lan::new().valid(day).valid(3 * HOUR).after(2 * HOUR).left(), Some(3600), "but to more");
        // With less left it is ignored.
        assert_eq!(Lan::new().valid(day).after(23 * HOUR).valid(60).left(), Some(3600));
        assert_eq!(
            Lan::new().valid(day).after(23 * HOUR).valid(HOUR + 60).left(),
            Some(3660),
            "not to lengthen"
        );
    }

    #[test]
    fn prefixes_that_make_no_addresses_say_nothing_of_any() {
        let no_end = Some(7200);
        for (prefix, len, flags, preferred) in [
            ("2001:db8::", 64, 0x80, 0),
            ("2001:db8::", 48, 0xc0, 0),
            ("2001:db8::", 64, 0xc0, 2 * HOUR),
            ("2001:db8::", 64, 0xc0, FOR_EVER),
        ] {
            let lan = Lan::new().told(prefix, len, flags, HOUR, preferred).after(10 * HOUR);
            assert_eq!(lan.left(), no_end, "{prefix}/{len}, flags {flags:#x}, preferred {preferred}");
        }
        let lan = Lan::new().told("fe80::", 64, 0xc0, HOUR, 0).after(10 * HOUR);
        assert!(lan.known.valid_until(lan.now, "fe80::11".parse().unwrap()).is_some());
    }

    #[test]
    fn what_is_remembered_is_bounded_and_the_rest_counts_as_static() {
        let mut lan = Lan::new();
        for n in 0..20 {
            lan = lan.told(&format!("2001:db8:{n:x}::"), 64, 0xc0, 3 * HOUR, 0);
        }
        assert_eq!(lan.known.unremembered(), 4);
        let lan = lan.after(10 * HOUR);
        let ends = |text: &str| lan.known.valid_until(lan.now, text.parse().unwrap()).is_none();
        assert!(ends("2001:db8:f::1") && !ends("2001:db8:10::1"));
    }
}

//! What routers of a LAN say about the addresses on it (RFC 4861 4.2, RFC 4862 5.5.3 and 5.5.4): an address past its
//! valid lifetime is its host's no longer, and nobody may answer for it.
//!
//! Kept for a LAN and not for a guest, as it is the same for all: one advertisement costs the same among a thousand
//! guests as for one, asleep or awake. Addresses of a prefix that was never advertised are static and stay.
//!
//! Over a restart it is kept with each sleeper, of the prefixes of its addresses. What is left of a lifetime then is at
//! least two hours, as nobody heard who advertised it meanwhile; but what was over stays over.

use core::net::Ipv6Addr;

use serde::{Deserialize, Serialize};
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
    /// Since when nobody hears the LAN.
    unheard: Option<Instant>,
}

#[derive(Clone, Copy, Debug)]
struct Known {
    /// Of [`BITS`] bits, the others zero.
    prefix: Ipv6Addr,
    /// `None`: for ever.
    until: Option<Instant>,
    /// When that was so, in nanoseconds since the start of time or before it.
    as_of: i64,
}

/// What is kept over a restart of a prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LearnedPrefix {
    /// Of 64 bits, the others zero.
    prefix: Ipv6Addr,
    /// Seconds left of its valid lifetime: 0 if it is over, `None` if it has no end.
    left: Option<u32>,
}

impl Advertised {
    /// Takes a packet from the LAN; whether a prefix that was over begins anew. Allocates nothing.
    pub fn hear(&mut self, now: Instant, packet: &Packet<'_>) -> bool {
        let Packet::Ipv6(ip, Transport::Icmpv6(icmp)) = packet else { return false };
        let mut begins = false;
        for prefix in router::prefixes(ip, icmp).into_iter().flatten().filter(makes_addresses) {
            self.listen(now);
            begins |= self.take(now, prefix);
        }
        begins
    }

    /// Nobody hears the LAN from `now` on.
    pub fn leave(&mut self, now: Instant) {
        self.unheard.get_or_insert(now);
    }

    /// Somebody hears it again. What ended meanwhile may have been advertised again: so much time is left as when it was
    /// heard last, but no more than two hours.
    pub fn listen(&mut self, now: Instant) {
        let Some(since) = self.unheard.take() else { return };
        for known in self.prefixes.iter_mut().flatten() {
            if let Some(until) = known.until.filter(|until| *until > since) {
                known.until = Some(until.max((until + now.since(since)).min(now + TWO_HOURS)));
            }
        }
    }

    fn take(&mut self, now: Instant, prefix: Prefix) -> bool {
        let told = prefix.valid.map(|valid| now + valid);
        let as_of = moment(now, Duration::ZERO);
        if let Some(known) = self.find(prefix.prefix) {
            let was_over = known.until.is_some_and(|until| until <= now);
            known.as_of = as_of;
            known.until = match (known.until, told) {
                (_, None) => None,
                // Over already: as if new.
                (Some(until), Some(told)) if until <= now => Some(told),
                (Some(until), Some(told)) if told > until => Some(told),
                (Some(until), Some(told)) => Some(until.min(told.max(now + TWO_HOURS))),
                (None, Some(told)) => Some(told.max(now + TWO_HOURS)),
            };
            was_over && known.until.is_none_or(|until| until > now)
        } else {
            // Guests have their addresses already, with a lifetime that was not heard.
            let until = told.map(|told| told.max(now + TWO_HOURS));
            self.add(Known { prefix: prefix.prefix, until, as_of });
            false
        }
    }

    fn find(&mut self, prefix: Ipv6Addr) -> Option<&mut Known> {
        self.prefixes.iter_mut().flatten().find(|known| known.prefix == prefix)
    }

    fn add(&mut self, known: Known) {
        match self.prefixes.iter_mut().find(|free| free.is_none()) {
            Some(free) => *free = Some(known),
            None => self.unremembered += 1,
        }
    }

    /// What is known of the prefixes of `addresses`, with times relative to `now`.
    #[must_use]
    pub fn learned(&self, now: Instant, addresses: impl Iterator<Item = Ipv6Addr>) -> Vec<LearnedPrefix> {
        let mut learned: Vec<LearnedPrefix> = Vec::new();
        for address in addresses.map(network) {
            let of = |known: &&Known| known.prefix == address;
            if let Some(known) = self.prefixes.iter().flatten().find(of)
                && !learned.iter().any(|learned| learned.prefix == address)
            {
                learned
                    .push(LearnedPrefix { prefix: address, left: known.until.map(|until| left(now, until)) });
            }
        }
        learned
    }

    /// Takes what was known `ago` before `now`, unless later words are. What no prefix of ours can be is left out.
    pub fn restore(&mut self, learned: &[LearnedPrefix], now: Instant, ago: Duration) {
        let as_of = moment(now, ago);
        for LearnedPrefix { prefix, left } in learned.iter().take(MAX_PREFIXES).copied() {
            if network(prefix) != prefix || !can_be_one(prefix) {
                continue;
            }
            let until = match left {
                None => None,
                Some(0) => Some(Instant::ZERO),
                Some(left) => {
                    let rest = Duration::from_secs(left.into()).saturating_sub(ago);
                    Some(now + rest.max(TWO_HOURS))
                }
            };
            let kept = Known { prefix, until, as_of };
            match self.find(prefix) {
                Some(known) if known.as_of < as_of => *known = kept,
                Some(_) => {}
                None => self.add(kept),
            }
        }
    }

    /// Until when, at least, `address` is its host's: before that time no advertisement can end it. `None`: it is
    /// over.
    #[must_use]
    pub fn valid_until(&self, now: Instant, address: Ipv6Addr) -> Option<Instant> {
        let at_most = now + TWO_HOURS;
        let prefix = network(address);
        match self.prefixes.iter().flatten().find(|known| known.prefix == prefix) {
            Some(Known { until: Some(until), .. }) => (*until > now).then(|| (*until).min(at_most)),
            Some(Known { until: None, .. }) | None => Some(at_most),
        }
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
        && u32::from(prefix.len) == BITS
        && can_be_one(prefix.prefix)
        && !longer(prefix.preferred, prefix.valid)
}

/// Whether hosts of a link make addresses of a prefix that its routers tell.
const fn can_be_one(prefix: Ipv6Addr) -> bool {
    !prefix.is_unicast_link_local() && !prefix.is_multicast()
}

/// The prefix of an address.
const fn network(address: Ipv6Addr) -> Ipv6Addr {
    Ipv6Addr::from_bits(address.to_bits() >> (128 - BITS) << (128 - BITS))
}

/// Whole seconds from `now` to `until`; none only if there is nothing left.
fn left(now: Instant, until: Instant) -> u32 {
    let rest = until.since(now);
    let seconds = rest.as_secs() + u64::from(rest.subsec_nanos() > 0);
    u32::try_from(seconds).unwrap_or(u32::MAX)
}

/// The moment `ago` before `now`.
fn moment(now: Instant, ago: Duration) -> i64 {
    let nanos = |nanos: u128| i64::try_from(nanos).unwrap_or(i64::MAX);
    nanos(now.as_nanos().into()).saturating_sub(nanos(ago.as_nanos()))
}

/// Of a prefix on Ethernet.
const BITS: u32 = 64;

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
    fn what_ends_while_nobody_hears_may_have_been_advertised_again() {
        let day = 24 * HOUR;
        // So long after it was advertised the LAN is left, and heard again.
        let left = |told: u32, heard: u32, away: u32| {
            let mut lan = Lan::new().valid(told).after(heard);
            lan.known.leave(lan.now);
            lan = lan.after(away / 2);
            lan.known.leave(lan.now);
            lan = lan.after(away / 2);
            lan.known.listen(lan.now);
            lan.left()
        };
        assert_eq!(left(day, HOUR, 1_000 * day), Some(7200), "two hours to hear it");
        assert_eq!(left(3 * HOUR, 2 * HOUR, 10 * HOUR), Some(3600), "or what was left, if less");
        assert_eq!(left(3 * HOUR, 3 * HOUR, 10 * HOUR), None, "what was over stays so");
        assert_eq!(left(FOR_EVER, HOUR, 10 * HOUR), Some(7200));
        let mut lan = Lan::new().valid(day);
        lan.known.leave(lan.now);
        let mut lan = lan.after(23 * HOUR).told("2001:db8:1::", 64, 0xc0, day, 0);
        assert_eq!(lan.left(), Some(7200));
        lan.known.listen(lan.now);
        assert_eq!(lan.after(HOUR).left(), Some(3600), "who is heard was not away");
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

    /// The same guest's LAN for another daemon, which takes what was known so many seconds ago.
    fn again(known: &[LearnedPrefix], ago: u32) -> Lan {
        let mut lan = Lan::new();
        lan.known.restore(known, lan.now, Duration::from_secs(ago.into()));
        lan
    }

    fn kept(lan: &Lan) -> Vec<LearnedPrefix> {
        lan.known.learned(lan.now, [GUEST_V6, "fe80::11".parse().unwrap()].into_iter())
    }

    #[test]
    fn what_is_left_of_a_lifetime_outlives_a_restart_by_the_wall_clock() {
        let day = 24 * HOUR;
        let told = kept(&Lan::new().valid(day).told("2001:db8:1::", 64, 0xc0, day, 0).after(HOUR));
        let text = serde_json::to_string(&told).unwrap();
        assert_eq!(text, r#"[{"prefix":"2001:db8::","left":82800}]"#, "of the guest's own prefix alone");
        assert_eq!(serde_json::from_str::<Vec<LearnedPrefix>>(&text).unwrap(), told);
        assert_eq!(again(&told, 20 * HOUR).after(3 * HOUR - 60).left(), Some(60));
        assert_eq!(again(&told, 20 * HOUR).after(3 * HOUR).left(), None);
        assert_eq!(again(&told, 0).after(23 * HOUR - 60).left(), Some(60));
        let for_ever = kept(&Lan::new().valid(FOR_EVER));
        assert_eq!(again(&for_ever, 1_000 * day).after(1_000 * day).left(), Some(7200));
        assert_eq!(kept(&again(&told, 20 * HOUR)), kept(&Lan::new().valid(3 * HOUR)), "and the next one");
    }

    #[test]
    fn a_lifetime_may_have_been_advertised_again_while_nobody_heard() {
        let told = kept(&Lan::new().valid(3 * HOUR));
        assert_eq!(again(&told, 5 * HOUR).after(2 * HOUR - 60).left(), Some(60), "two hours to hear it");
        assert_eq!(again(&told, 5 * HOUR).after(2 * HOUR).left(), None);
        let heard = again(&told, 5 * HOUR).after(HOUR).valid(3 * HOUR);
        assert_eq!(heard.after(3 * HOUR - 60).left(), Some(60));
    }

    #[test]
    fn what_was_over_before_a_restart_is_over_after_it() {
        let over = kept(&Lan::new().valid(3 * HOUR).after(3 * HOUR));
        assert_eq!(again(&over, 0).left(), None);
        assert_eq!(again(&over, 1_000 * HOUR).left(), None);
        assert_eq!(again(&over, HOUR).valid(3 * HOUR).left(), Some(7200), "begun anew");
    }

    #[test]
    fn of_what_several_sleepers_kept_the_latest_counts_and_of_what_was_heard_since() {
        let (valid, over) =
            (kept(&Lan::new().valid(3 * HOUR)), kept(&Lan::new().valid(3 * HOUR).after(3 * HOUR)));
        // Longer ago than this clock has run.
        let far = 2_000_000;
        for (older, newer, lasts) in [(&valid, &over, false), (&over, &valid, true)] {
            for (first, second) in [((older, far + 60), (newer, far)), ((newer, far), (older, far + 60))] {
                let mut lan = Lan::new();
                for (known, ago) in [first, second] {
                    lan.known.restore(known, lan.now, Duration::from_secs(ago));
                }
                assert_eq!(lan.left().is_some(), lasts);
            }
        }
        let mut lan = Lan::new().valid(3 * HOUR);
        lan.known.restore(&over, lan.now, Duration::from_secs(1));
        assert_eq!(lan.left(), Some(7200));
    }

    #[test]
    fn what_no_router_can_have_said_is_not_taken_back() {
        let bad = ["fe80::", "ff02::", "2001:db8::1"]
            .map(|prefix| LearnedPrefix { prefix: prefix.parse().unwrap(), left: Some(0) });
        let lan = again(&bad, 0);
        for address in ["fe80::11", "ff02::11", "2001:db8::1"] {
            assert_eq!(lan.known.valid_until(lan.now, address.parse().unwrap()), Some(lan.now + TWO_HOURS));
        }
        let many =
            |n: u16| LearnedPrefix { prefix: Ipv6Addr::new(0x2001, 0xdb8, n, 0, 0, 0, 0, 0), left: Some(0) };
        let lan = again(&(0..20).map(many).collect::<Vec<_>>(), 0);
        let taken = lan.known.prefixes.iter().flatten().count();
        assert_eq!((taken, lan.known.unremembered()), (MAX_PREFIXES, 0));
    }
}

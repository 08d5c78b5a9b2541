//! Router advertisements (RFC 4861 4.2): the prefixes that hosts make addresses of.

use core::net::Ipv6Addr;
use core::time::Duration;

use crate::icmpv6::{Icmpv6, ROUTER_ADVERTISEMENT};
use crate::ipv6::Ipv6;

/// Type of the prefix information option, and its length with the first two bytes.
const PREFIX_INFORMATION: u8 = 3;
const PREFIX_BYTES: usize = 32;
/// Bytes of an advertisement before its options.
const HEADER: usize = 16;
/// "All one bits [...] represents infinity" (RFC 4861 4.6.2).
const FOR_EVER: u32 = u32::MAX;

/// A prefix that a router advertises.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prefix {
    /// Its bits; the others are zero.
    pub prefix: Ipv6Addr,
    /// How many bits: 0 to 128.
    pub len: u8,
    /// Hosts may make addresses of it by themselves.
    pub autonomous: bool,
    /// How long from now such an address is valid; `None`: for ever.
    pub valid: Option<Duration>,
    /// How long from now it may be used for new connections; `None`: for ever.
    pub preferred: Option<Duration>,
}

/// The prefixes in an advertisement that came from the link; `None` if `icmp`, the payload of `ip`, is none. It has
/// been checked as far as RFC 4861 6.1.2 wants, but for its source.
#[must_use]
pub fn prefixes<'a>(ip: &Ipv6<'_>, icmp: &Icmpv6<'a>) -> Option<impl Iterator<Item = Prefix> + use<'a>> {
    if icmp.kind != ROUTER_ADVERTISEMENT || !ip.src.is_unicast_link_local() {
        return None;
    }
    let mut rest = icmp.message.get(HEADER..)?;
    let options = core::iter::from_fn(move || {
        let [_, words, ..] = *rest else { return None };
        let (option, after) = rest.split_at_checked(usize::from(words) * 8).filter(|_| words > 0)?;
        rest = after;
        Some(option)
    });
    Some(options.filter_map(prefix))
}

fn prefix(option: &[u8]) -> Option<Prefix> {
    let fixed: [u8; PREFIX_BYTES] = option.try_into().ok()?;
    let [PREFIX_INFORMATION, _, len, flags, v0, v1, v2, v3, p0, p1, p2, p3, _, _, _, _, prefix @ ..] = fixed
    else {
        return None;
    };
    let time = |seconds: u32| (seconds != FOR_EVER).then(|| Duration::from_secs(seconds.into()));
    let mask = network_mask(len)?;
    Some(Prefix {
        prefix: Ipv6Addr::from_bits(u128::from_be_bytes(prefix) & mask),
        len,
        autonomous: flags & 0x40 != 0,
        valid: time(u32::from_be_bytes([v0, v1, v2, v3])),
        preferred: time(u32::from_be_bytes([p0, p1, p2, p3])),
    })
}

impl Prefix {
    /// Whether `address` has this prefix.
    #[must_use]
    pub fn covers(&self, address: Ipv6Addr) -> bool {
        network_mask(self.len).is_some_and(|mask| address.to_bits() & mask == self.prefix.to_bits())
    }
}

/// The bits of the first `len`; `None` if there are not so many.
fn network_mask(len: u8) -> Option<u128> {
    let host = 128_u32.checked_sub(len.into())?;
    Some(u128::MAX.checked_shl(host).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checksum::Sum;
    use crate::packet::{Packet, Transport, protocol};
    use crate::testing::{ALICE_V6, parse, v6_between};

    const ROUTER: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);

    fn advertised(src: Ipv6Addr, options: &[u8]) -> Option<Vec<Prefix>> {
        let dst = crate::icmpv6::ALL_NODES;
        let mut message = [&[134, 0, 0, 0, 64, 0, 7, 8, 0, 0, 0, 0, 0, 0, 0, 0][..], options].concat();
        let sum = Sum::pseudo_v6(src, dst, protocol::ICMPV6, message.len()).add(&message).finish();
        message[2..4].copy_from_slice(&sum.to_be_bytes());
        let frame = v6_between(src, dst, 255, protocol::ICMPV6, &message);
        match parse(&frame) {
            Ok(Packet::Ipv6(ip, Transport::Icmpv6(icmp))) => prefixes(&ip, &icmp).map(Iterator::collect),
            other => panic!("{other:?}"),
        }
    }

    fn option(len: u8, flags: u8, valid: u32, preferred: u32, prefix: Ipv6Addr) -> Vec<u8> {
        let times = [valid.to_be_bytes(), preferred.to_be_bytes(), [0; 4]].concat();
        [&[3, 4, len, flags], &times[..], &prefix.octets()].concat()
    }

    #[test]
    fn prefixes_are_read_with_their_times() {
        let other = [1, 1, 2, 0, 0, 0, 0, 1];
        let options =
            [option(64, 0xc0, 7200, 1800, ALICE_V6), other.into(), option(48, 0x80, u32::MAX, 0, ALICE_V6)]
                .concat();
        let read = advertised(ROUTER, &options).unwrap();
        let first = Prefix {
            prefix: "2001:db8::".parse().unwrap(),
            len: 64,
            autonomous: true,
            valid: Some(Duration::from_secs(7200)),
            preferred: Some(Duration::from_secs(1800)),
        };
        let second =
            Prefix { len: 48, autonomous: false, valid: None, preferred: Some(Duration::ZERO), ..first };
        assert_eq!(read, [first, second]);
        assert!(first.covers(ALICE_V6) && !first.covers("2001:db8:0:1::11".parse().unwrap()));
        assert!(second.covers("2001:db8:0:1::11".parse().unwrap()));
    }

    #[test]
    fn what_is_no_prefix_is_passed_over() {
        assert_eq!(advertised(ROUTER, &[]), Some(vec![]));
        assert_eq!(advertised(ROUTER, &option(129, 0xc0, 1, 1, ALICE_V6)), Some(vec![]), "too long");
        let mut longer = option(64, 0xc0, 1, 1, ALICE_V6);
        longer[1] = 5;
        longer.extend([0; 8]);
        assert_eq!(advertised(ROUTER, &longer), Some(vec![]), "another length");
        assert_eq!(advertised(ALICE_V6, &option(64, 0xc0, 1, 1, ALICE_V6)), None, "from beyond the link");
    }

    #[test]
    fn the_shortest_and_the_longest_prefix_cover_what_they_should() {
        let all =
            advertised(ROUTER, &[option(0, 0, 1, 1, ALICE_V6), option(128, 0, 1, 1, ALICE_V6)].concat());
        let [all, one] = all.unwrap()[..] else { panic!("two") };
        assert!(all.covers(ROUTER) && all.prefix.is_unspecified());
        assert!(one.covers(ALICE_V6) && !one.covers(ROUTER));
    }
}

//! IPv6 headers and their extensions (RFC 8200, RFC 5095, RFC 6946, RFC 7112).
//!
//! The walk over extension headers is bounded (8 headers, 512 bytes). A header or option that only
//! the guest could judge (one that some hosts act on and we do not, a routing header with segments
//! left, IPsec) ends the walk, and the packet is one of that header's protocol number: not ours to
//! answer, nor to discard. Of options that nobody knows the two top bits say what is to be done.

use core::net::Ipv6Addr;

use crate::checksum::Sum;
use crate::malformed::Malformed;
use crate::packet::{Fragment, protocol};

/// An IPv6 packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ipv6<'a> {
    /// Source: a single node's address, or `::` while it has none.
    pub src: Ipv6Addr,
    /// Destination.
    pub dst: Ipv6Addr,
    /// Traffic class: DSCP and ECN.
    pub traffic_class: u8,
    /// Hop limit.
    pub hop_limit: u8,
    /// Protocol of the payload: the first header that is not walked over.
    pub protocol: u8,
    /// Which part of a packet it is, if it is one; an atomic fragment (RFC 6946) is none.
    pub fragment: Option<Fragment>,
    /// There is a fragment header, if only an atomic one.
    pub has_fragment_header: bool,
    /// What follows the headers, cut at the payload length.
    pub payload: &'a [u8],
    /// The whole packet, cut at the payload length.
    pub packet: &'a [u8],
}

impl<'a> Ipv6<'a> {
    /// Bytes of the fixed header.
    pub const HEADER: usize = HEADER;
    /// Bytes of a fragment header.
    pub const FRAGMENT_HEADER: usize = 8;

    /// Reads what follows the Ethernet header, in the order length, version, payload length, fields,
    /// extension headers.
    ///
    /// # Errors
    /// The first check that it fails.
    #[inline]
    pub fn parse(payload: &'a [u8]) -> Result<Self, Malformed> {
        let (fixed, rest) = payload.split_first_chunk::<HEADER>().ok_or(Malformed::Length)?;
        let [v0, v1, _, _, l0, l1, next_header, hop_limit, addresses @ ..] = *fixed;
        if v0 >> 4 != 6 {
            return Err(Malformed::Header);
        }
        let len = usize::from(u16::from_be_bytes([l0, l1]));
        let body = rest.get(..len).ok_or(Malformed::Length)?;
        let packet = payload.get(..Self::HEADER + len).ok_or(Malformed::Length)?;
        let ([src, dst], _) = addresses.as_chunks::<16>() else { return Err(Malformed::Length) };
        let (src, dst) = (Ipv6Addr::from(*src), Ipv6Addr::from(*dst));
        if src.is_multicast() || src.is_loopback() {
            return Err(Malformed::Source);
        }
        if dst.is_unspecified() {
            return Err(Malformed::Header);
        }
        let mut ip = Self {
            src,
            dst,
            traffic_class: v0 << 4 | v1 >> 4,
            hop_limit,
            protocol: next_header,
            fragment: None,
            has_fragment_header: false,
            payload: body,
            packet,
        };
        if is_extension(next_header) {
            ip.walk_extensions(false)?;
        }
        Ok(ip)
    }

    /// The flow label (RFC 6437), 20 bits.
    #[must_use]
    pub fn flow_label(&self) -> u32 {
        self.packet.first_chunk::<4>().map_or(0, |first| u32::from_be_bytes(*first) & 0xf_ffff)
    }

    /// What a first fragment has behind all its extension headers, and of which protocol that is. `protocol`
    /// and `payload` are those behind the fragment header: so the parts of a packet are put together.
    pub(crate) fn first_part(&self) -> Result<(u8, &'a [u8]), Malformed> {
        let (fixed, body) = self.packet.split_first_chunk::<HEADER>().ok_or(Malformed::Length)?;
        let [_, _, _, _, _, _, next_header, ..] = *fixed;
        let mut ip = Self { protocol: next_header, payload: body, has_fragment_header: false, ..*self };
        ip.walk_extensions(true)?;
        Ok((ip.protocol, ip.payload))
    }

    /// The pseudo-header of the payload's checksum, `len` bytes of it.
    #[inline]
    #[must_use]
    pub fn pseudo(&self, len: usize) -> Sum {
        Sum::pseudo_v6(self.src, self.dst, self.protocol, len)
    }

    /// Moves `protocol` and `payload` past the extension headers, of a fragment only up to its own: what follows
    /// may be the middle of anything, but `in_first` of the fragments.
    fn walk_extensions(&mut self, in_first: bool) -> Result<(), Malformed> {
        let whole = self.payload.len();
        for position in 0..=MAX_EXTENSIONS {
            if whole - self.payload.len() > MAX_EXTENSION_BYTES {
                return Err(Malformed::Header);
            }
            if !is_extension(self.protocol) {
                return Ok(());
            }
            if position == MAX_EXTENSIONS {
                return Err(Malformed::Header);
            }
            if self.protocol == protocol::FRAGMENT {
                self.take_fragment_header()?;
                if self.fragment.is_some() && !in_first {
                    return Ok(());
                }
                continue;
            }
            let [next_header, units, third, fourth, ..] =
                *self.payload.first_chunk::<8>().ok_or(Malformed::Length)?;
            let (header, rest) =
                self.payload.split_at_checked((usize::from(units) + 1) * 8).ok_or(Malformed::Length)?;
            match self.protocol {
                // "the Hop-by-Hop Options header [...] immediately follow[s] the IPv6 header" (RFC 8200 4.1).
                protocol::HOP_BY_HOP if position != 0 => return Err(Malformed::Header),
                protocol::ROUTING if third == 0 => return Err(Malformed::SourceRoute),
                // Segments left: it is the guest's to forward or to refuse.
                protocol::ROUTING if fourth != 0 => return Ok(()),
                protocol::ROUTING => {}
                _ => {
                    if !options_are_known(header)? {
                        return Ok(());
                    }
                }
            }
            self.protocol = next_header;
            self.payload = rest;
        }
        Ok(())
    }

    fn take_fragment_header(&mut self) -> Result<(), Malformed> {
        let (header, rest) = self.payload.split_first_chunk::<8>().ok_or(Malformed::Length)?;
        let [next_header, _, o0, o1, i0, i1, i2, i3] = *header;
        if self.has_fragment_header {
            return Err(Malformed::Header);
        }
        let field = u16::from_be_bytes([o0, o1]);
        self.has_fragment_header = true;
        self.protocol = next_header;
        self.payload = rest;
        self.fragment = Fragment::new(
            u32::from_be_bytes([i0, i1, i2, i3]),
            usize::from(field & 0xfff8),
            field & 1 != 0,
            next_header,
            rest.len(),
            usize::from(u16::MAX),
        )?;
        Ok(())
    }
}

const fn is_extension(next_header: u8) -> bool {
    matches!(
        next_header,
        protocol::HOP_BY_HOP | protocol::ROUTING | protocol::FRAGMENT | protocol::DESTINATION_OPTIONS
    )
}

/// Whether a host would go on after `header` that knows no more options than we do; an error where it would
/// discard the packet (RFC 8200 4.2).
fn options_are_known(header: &[u8]) -> Result<bool, Malformed> {
    let mut options = header.get(2..).ok_or(Malformed::Length)?;
    loop {
        match *options {
            [] => return Ok(true),
            [PAD1, ref rest @ ..] => options = rest,
            [kind, len, ref rest @ ..] => {
                options = rest.get(usize::from(len)..).ok_or(Malformed::Header)?;
                if matches!(kind, HOME_ADDRESS | ILNP_NONCE) {
                    return Ok(false);
                }
                // "00 - skip over this option"; all others discard, and differ in whom they tell.
                if kind & 0xc0 != 0 {
                    return Err(Malformed::UnknownOption);
                }
            }
            _ => return Err(Malformed::Header),
        }
    }
}

const PAD1: u8 = 0;
/// Of a mobile node, from elsewhere than at home (RFC 6275 6.3).
const HOME_ADDRESS: u8 = 0xc9;
/// RFC 6744 2.
const ILNP_NONCE: u8 = 0x8b;
const MAX_EXTENSIONS: usize = 8;
const MAX_EXTENSION_BYTES: usize = 512;

const HEADER: usize = 40;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{ALICE_V6, BOB_V6, parse, v6, v6_between};

    /// An extension header of eight bytes (or more, as `tail` says) before `next`.
    fn extension(next: u8, tail: [u8; 6]) -> Vec<u8> {
        [&[next, 0][..], &tail].concat()
    }

    const PADN: [u8; 6] = [1, 4, 0, 0, 0, 0];
    const TAIL: [u8; 8] = [7; 8];

    fn walk(first: u8, headers: &[Vec<u8>]) -> Result<(u8, usize), Malformed> {
        let payload = [headers.concat().as_slice(), &TAIL].concat();
        let frame = v6(first, &payload);
        Ipv6::parse(&frame[14..]).map(|ip| (ip.protocol, ip.payload.len()))
    }

    #[test]
    fn padding_is_cut_at_the_payload_length() {
        let frame = v6(253, &[1, 2, 3]);
        let ip = Ipv6::parse(&frame[14..]).unwrap();
        assert_eq!((ip.src, ip.dst, ip.protocol, ip.hop_limit), (ALICE_V6, BOB_V6, 253, 255));
        assert_eq!((ip.payload, ip.packet.len(), frame.len()), (&[1, 2, 3][..], 43, 60));
    }

    #[test]
    fn the_traffic_class_lies_across_two_bytes() {
        let mut frame = v6(253, &[]);
        frame[14..16].copy_from_slice(&[0x6a, 0xbc]);
        assert_eq!(Ipv6::parse(&frame[14..]).unwrap().traffic_class, 0xab);
    }

    #[test]
    fn each_check_of_the_header() {
        let parsed = |change: fn(&mut Vec<u8>)| {
            let mut frame = v6(253, &[1, 2, 3, 4]);
            change(&mut frame);
            Ipv6::parse(&frame[14..]).map(|_| ())
        };
        assert_eq!(parsed(|f| f.truncate(53)), Err(Malformed::Length));
        assert_eq!(parsed(|f| f[14] = 0x45), Err(Malformed::Header));
        assert_eq!(parsed(|f| f[19] = 7), Err(Malformed::Length));
        assert_eq!(parsed(|f| f[22] = 0xff), Err(Malformed::Source));
        assert_eq!(parsed(|f| f[38..54].fill(0)), Err(Malformed::Header));
        assert_eq!(parsed(|f| f[21] = 0), Ok(()), "a hop limit of 0 is right at the destination");
    }

    #[test]
    fn known_extension_headers_are_walked_over() {
        let router_alert = [5, 2, 0, 0, 1, 0];
        let headers = [extension(60, router_alert), extension(43, PADN), extension(253, [2, 0, 0, 0, 0, 0])];
        assert_eq!(walk(0, &headers), Ok((253, TAIL.len())));
    }

    #[test]
    fn hop_by_hop_options_stand_first_or_nowhere() {
        assert_eq!(walk(60, &[extension(0, PADN), extension(253, PADN)]), Err(Malformed::Header));
    }

    #[test]
    fn a_routing_header_of_type_0_is_refused_even_when_spent() {
        assert_eq!(walk(43, &[extension(253, [0, 0, 0, 0, 0, 0])]), Err(Malformed::SourceRoute));
        assert_eq!(walk(43, &[extension(253, [0, 1, 0, 0, 0, 0])]), Err(Malformed::SourceRoute));
    }

    #[test]
    fn what_only_the_guest_can_judge_ends_the_walk_and_is_kept() {
        // Segments left; options of mobile nodes; encrypted; authenticated.
        assert_eq!(walk(43, &[extension(253, [4, 1, 0, 0, 0, 0])]), Ok((43, 16)));
        assert_eq!(walk(60, &[extension(253, [HOME_ADDRESS, 4, 0, 0, 0, 0])]), Ok((60, 16)));
        assert_eq!(walk(60, &[extension(253, [ILNP_NONCE, 4, 0, 0, 0, 0])]), Ok((60, 16)));
        assert_eq!(walk(0, &[extension(50, PADN)]), Ok((50, 8)));
        assert_eq!(walk(51, &[]), Ok((51, 8)));
    }

    #[test]
    fn unknown_options_that_may_be_skipped_are_skipped() {
        assert_eq!(walk(60, &[extension(253, [0x1e, 4, 0, 0, 0, 0])]), Ok((253, 8)));
        assert_eq!(walk(60, &[extension(253, [0, 0, 0, 0, 0, 0])]), Ok((253, 8)));
    }

    #[test]
    fn unknown_options_that_say_so_take_the_packet_with_them() {
        for kind in [0x5e, 0x9e, 0xde] {
            for header in [0, 60] {
                let options = extension(253, [kind, 4, 0, 0, 0, 0]);
                assert_eq!(walk(header, &[options]), Err(Malformed::UnknownOption), "{kind:#x} in {header}");
            }
        }
        assert_eq!(walk(60, &[extension(253, [0x5e, 5, 0, 0, 0, 0])]), Err(Malformed::Header), "too long");
    }

    #[test]
    fn options_and_headers_longer_than_the_packet_are_refused() {
        assert_eq!(walk(60, &[extension(253, [0x1e, 5, 0, 0, 0, 0])]), Err(Malformed::Header));
        assert_eq!(walk(60, &[extension(253, [0, 0, 0, 0, 0, 1])]), Err(Malformed::Header));
        assert_eq!(walk(60, &[vec![253, 2, 1, 4, 0, 0, 0, 0]]), Err(Malformed::Length));
    }

    #[test]
    fn the_walk_is_bounded() {
        let chain = |n: usize| {
            let mut headers = vec![extension(60, PADN); n - 1];
            headers.push(extension(253, PADN));
            walk(60, &headers)
        };
        assert_eq!(chain(8), Ok((253, 8)));
        assert_eq!(chain(9), Err(Malformed::Header));

        // Two options of padding fill one header of 512 bytes.
        let longest = |next: u8| {
            let mut header = vec![next, 63, 1, 252];
            header.resize(256, 0);
            header.extend([1, 254]);
            header.resize(512, 0);
            header
        };
        assert_eq!(walk(60, &[longest(253)]), Ok((253, 8)));
        assert_eq!(walk(60, &[longest(60), extension(253, PADN)]), Err(Malformed::Header));
    }

    #[test]
    fn an_atomic_fragment_is_a_whole_packet() {
        let frame = v6(44, &[vec![253, 0, 0, 0, 0, 0, 0, 9], TAIL.to_vec()].concat());
        let ip = Ipv6::parse(&frame[14..]).unwrap();
        assert_eq!((ip.fragment, ip.has_fragment_header), (None, true));
        assert_eq!((ip.protocol, ip.payload), (253, &TAIL[..]));
    }

    #[test]
    fn a_fragment_ends_the_walk() {
        let frame = v6(44, &[vec![60, 0, 0, 9, 0, 0, 0, 9], TAIL.to_vec()].concat());
        let ip = Ipv6::parse(&frame[14..]).unwrap();
        assert_eq!(ip.fragment, Some(Fragment { id: 9, offset: 8, more: true }));
        assert_eq!((ip.protocol, ip.payload), (60, &TAIL[..]));
    }

    #[test]
    fn a_second_fragment_header_is_refused() {
        let atomic = |next: u8| vec![next, 0, 0, 0, 0, 0, 0, 9];
        assert_eq!(walk(44, &[atomic(44), atomic(253)]), Err(Malformed::Header));
    }

    #[test]
    fn behind_the_header_of_a_first_fragment_the_walk_is_bounded_all_the_same() {
        let first = |behind: &[Vec<u8>]| {
            let payload = [&[60, 0, 0, 1, 0, 0, 0, 9][..], &behind.concat(), &TAIL].concat();
            let frame = v6(44, &payload);
            let ip = Ipv6::parse(&frame[14..]).unwrap();
            ip.first_part().map(|(protocol, rest)| (protocol, rest.len()))
        };
        let chain = |n: usize, last: u8| {
            let mut headers = vec![extension(60, PADN); n - 1];
            headers.push(extension(last, PADN));
            first(&headers)
        };
        assert_eq!(chain(7, 253), Ok((253, 8)));
        assert_eq!(chain(8, 253), Err(Malformed::Header));
        assert_eq!(chain(1, 44), Err(Malformed::Header), "a second fragment header");
        let hop_by_hop = [extension(0, PADN), extension(253, PADN)];
        assert_eq!(first(&hop_by_hop), Err(Malformed::Header), "hop-by-hop options only first");
    }

    #[test]
    fn only_icmp_comes_from_the_unspecified_source() {
        let datagram = [0x30, 0x39, 0, 9, 0, 8, 0xff, 0xff];
        let frame = v6_between(Ipv6Addr::UNSPECIFIED, BOB_V6, 64, 17, &datagram);
        let parsed = crate::testing::parse_with(&frame, crate::Offload::Verified);
        assert_eq!(parsed, Err(Malformed::Source));
        assert_eq!(parse(&frame), Err(Malformed::Checksum), "the checksum comes before fields");
    }
}

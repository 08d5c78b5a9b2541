//! IPv4 headers (RFC 791, RFC 1122 3.2.1).

use core::net::Ipv4Addr;

use crate::checksum::Sum;
use crate::malformed::Malformed;
use crate::packet::{Fragment, protocol};

/// An IPv4 packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ipv4<'a> {
    /// Source: a single host's address, or 0.0.0.0 while it has none.
    pub src: Ipv4Addr,
    /// Destination.
    pub dst: Ipv4Addr,
    /// Type of service: DSCP and ECN.
    pub tos: u8,
    /// Time to live, not zero.
    pub ttl: u8,
    /// Identification.
    pub id: u16,
    /// Don't-fragment.
    pub dont_fragment: bool,
    /// Protocol of the payload.
    pub protocol: u8,
    /// Which part of a datagram it is, if it is one.
    pub fragment: Option<Fragment>,
    /// Whether there are options (none of which is a source route).
    pub has_options: bool,
    /// What follows the header, cut at the total length.
    pub payload: &'a [u8],
    /// The whole packet, cut at the total length.
    pub packet: &'a [u8],
}

impl<'a> Ipv4<'a> {
    /// Bytes of a header without options.
    pub const HEADER: usize = HEADER;

    /// Reads what follows the Ethernet header, in the order length, version, header length, total length,
    /// checksum, fields.
    ///
    /// # Errors
    /// The first check that it fails.
    #[inline]
    pub fn parse(payload: &'a [u8]) -> Result<Self, Malformed> {
        let fixed = payload.first_chunk::<HEADER>().ok_or(Malformed::Length)?;
        let [version_ihl, tos, l0, l1, i0, i1, f0, f1, ttl, protocol, _, _, addresses @ ..] = *fixed;
        if version_ihl >> 4 != 4 {
            return Err(Malformed::Header);
        }
        let header_len = usize::from(version_ihl & 0x0f) * 4;
        if header_len < Self::HEADER {
            return Err(Malformed::Header);
        }
        let packet = payload.get(..usize::from(u16::from_be_bytes([l0, l1]))).ok_or(Malformed::Length)?;
        let (header, payload) = packet.split_at_checked(header_len).ok_or(Malformed::Length)?;
        let has_options = header_len > Self::HEADER;
        let sum = if has_options { Sum::ZERO.add(header) } else { Sum::ZERO.add(fixed) };
        if !sum.is_intact() {
            return Err(Malformed::Checksum);
        }
        if ttl == 0 {
            return Err(Malformed::Header);
        }
        let [s0, s1, s2, s3, d0, d1, d2, d3] = addresses;
        let src = Ipv4Addr::new(s0, s1, s2, s3);
        if src.is_broadcast() || src.is_multicast() || src.is_loopback() {
            return Err(Malformed::Source);
        }
        if let Some((_, options)) = header.split_at_checked(Self::HEADER) {
            check_options(options)?;
        }
        let flags = u16::from_be_bytes([f0, f1]);
        let id = u16::from_be_bytes([i0, i1]);
        let fragment = Fragment::new(
            u32::from(id),
            usize::from(flags & 0x1fff) * 8,
            flags & 0x2000 != 0,
            protocol,
            payload.len(),
            usize::from(u16::MAX) - header_len,
        )?;
        Ok(Self {
            src,
            dst: Ipv4Addr::new(d0, d1, d2, d3),
            tos,
            ttl,
            id,
            dont_fragment: flags & 0x4000 != 0,
            protocol,
            fragment,
            has_options,
            payload,
            packet,
        })
    }

    /// The pseudo-header of the payload's checksum, `len` bytes of it.
    #[inline]
    #[must_use]
    pub fn pseudo(&self, len: usize) -> Sum {
        Sum::pseudo_v4(self.src, self.dst, self.protocol, len)
    }

    /// Whether a sender may have no address: DHCP discovery (RFC 2131 4.1) and group management of hosts
    /// and proxies without one (RFC 4541 2.1.1).
    pub(crate) fn may_lack_source(protocol: u8, ports: Option<(u16, u16)>) -> bool {
        protocol == protocol::IGMP || ports == Some((68, 67))
    }
}

/// Options are passed over, but their lengths must be right, and a source route is refused.
fn check_options(mut options: &[u8]) -> Result<(), Malformed> {
    loop {
        match *options {
            [] | [END, ..] => return Ok(()),
            [NO_OPERATION, ref rest @ ..] => options = rest,
            [LOOSE_SOURCE_ROUTE | STRICT_SOURCE_ROUTE, ..] => return Err(Malformed::SourceRoute),
            [_, len, ..] if len >= 2 => {
                options = options.get(usize::from(len)..).ok_or(Malformed::Header)?;
            }
            _ => return Err(Malformed::Header),
        }
    }
}

const END: u8 = 0;
const NO_OPERATION: u8 = 1;
const LOOSE_SOURCE_ROUTE: u8 = 131;
const STRICT_SOURCE_ROUTE: u8 = 137;

const HEADER: usize = 20;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{ALICE_V4, BOB_V4, mend_ipv4, v4};

    /// Byte offsets in a frame without tags.
    const VERSION: usize = 14;
    const TOTAL_LENGTH: usize = 16;
    const FLAGS: usize = 20;
    const TTL: usize = 22;
    const CHECKSUM: usize = 24;
    const SRC: usize = 26;

    fn changed(change: impl FnOnce(&mut [u8])) -> Vec<u8> {
        let mut frame = v4(253, &[1, 2, 3, 4]);
        change(&mut frame);
        mend_ipv4(&mut frame);
        frame
    }

    fn verdict(frame: &[u8]) -> Result<(), Malformed> {
        Ipv4::parse(&frame[14..]).map(|_| ())
    }

    fn with_options(options: &[u8]) -> Vec<u8> {
        let payload = [options, &[9, 9, 9, 9]].concat();
        let mut frame = v4(253, &payload);
        frame[VERSION] = 0x45 + u8::try_from(options.len() / 4).unwrap();
        mend_ipv4(&mut frame);
        frame
    }

    #[test]
    fn padding_is_cut_at_the_total_length() {
        let frame = v4(253, &[1, 2, 3, 4]);
        let ip = Ipv4::parse(&frame[14..]).unwrap();
        assert_eq!((ip.src, ip.dst, ip.protocol, ip.ttl, ip.id), (ALICE_V4, BOB_V4, 253, 64, 7));
        assert_eq!((ip.payload, ip.packet.len(), frame.len()), (&[1, 2, 3, 4][..], 24, 60));
        assert_eq!((ip.fragment, ip.dont_fragment, ip.has_options), (None, false, false));
    }

    #[test]
    fn each_check_of_the_header() {
        assert_eq!(verdict(&v4(253, &[])[..33]), Err(Malformed::Length), "cut");
        for (at, value, expected) in [
            (VERSION, 0x65, Malformed::Header),
            (VERSION, 0x44, Malformed::Header),
            (VERSION, 0x47, Malformed::Length),
            (TOTAL_LENGTH + 1, 19, Malformed::Length),
            (TOTAL_LENGTH + 1, 47, Malformed::Length),
            (TTL, 0, Malformed::Header),
        ] {
            let frame = changed(|f| f[at] = value);
            assert_eq!(verdict(&frame), Err(expected), "byte {at} = {value:#x}");
        }
    }

    #[test]
    fn the_first_failed_check_is_the_one_reported() {
        // A wrong checksum hides no wrong length, and a wrong field is not believed before the checksum.
        let mut frame = changed(|f| f[TTL] = 0);
        frame[CHECKSUM] ^= 1;
        assert_eq!(verdict(&frame), Err(Malformed::Checksum));
        frame[TOTAL_LENGTH] = 0xff;
        assert_eq!(verdict(&frame), Err(Malformed::Length));
    }

    #[test]
    fn sources_that_no_single_host_has_are_refused() {
        for source in [[255, 255, 255, 255], [224, 0, 0, 251], [239, 1, 2, 3], [127, 0, 0, 1]] {
            let frame = changed(|f| f[SRC..SRC + 4].copy_from_slice(&source));
            assert_eq!(verdict(&frame), Err(Malformed::Source), "{source:?}");
        }
    }

    #[test]
    fn source_routes_are_refused_wherever_they_stand() {
        for options in [
            &[131, 7, 4, 192, 0, 2, 1, 0][..],
            &[137, 7, 4, 192, 0, 2, 1, 0],
            &[1, 1, 1, 131, 3, 4, 0, 0],
            &[7, 4, 5, 0, 137, 3, 4, 0],
        ] {
            assert_eq!(verdict(&with_options(options)), Err(Malformed::SourceRoute), "{options:?}");
        }
    }

    #[test]
    fn other_options_are_passed_over() {
        for options in [&[148, 4, 0, 0][..], &[7, 7, 4, 0, 0, 0, 0, 0], &[1, 1, 1, 0], &[0, 131, 9, 9]] {
            let frame = with_options(options);
            let ip = Ipv4::parse(&frame[14..]).unwrap();
            assert_eq!((ip.has_options, ip.payload), (true, &[9, 9, 9, 9][..]), "{options:?}");
        }
    }

    #[test]
    fn options_longer_than_their_header_are_refused() {
        for options in [&[148, 0, 0, 0][..], &[148, 1, 0, 0], &[7, 5, 0, 0], &[1, 1, 1, 7]] {
            assert_eq!(verdict(&with_options(options)), Err(Malformed::Header), "{options:?}");
        }
    }

    #[test]
    fn fragments_are_told_from_whole_packets() {
        let mut first = v4(253, &[0; 16]);
        first[FLAGS] = 0x20;
        mend_ipv4(&mut first);
        let expected = Fragment { id: 7, offset: 0, more: true };
        assert_eq!(Ipv4::parse(&first[14..]).unwrap().fragment, Some(expected));

        let last = changed(|f| f[FLAGS + 1] = 2);
        let expected = Fragment { id: 7, offset: 16, more: false };
        assert_eq!(Ipv4::parse(&last[14..]).unwrap().fragment, Some(expected));

        let whole = changed(|f| f[FLAGS] = 0x40);
        let ip = Ipv4::parse(&whole[14..]).unwrap();
        assert_eq!((ip.fragment, ip.dont_fragment), (None, true));
    }

    #[test]
    fn a_fragment_that_ends_beyond_the_longest_packet_is_refused() {
        let ends_at = |payload: usize| {
            let mut frame = v4(253, &vec![0; payload]);
            frame[FLAGS..FLAGS + 2].copy_from_slice(&[0x1f, 0xfd]);
            mend_ipv4(&mut frame);
            verdict(&frame)
        };
        assert_eq!(ends_at(3), Ok(()), "65,512 + 3 and 20 of header is the end");
        assert_eq!(ends_at(4), Err(Malformed::Length));
    }
}

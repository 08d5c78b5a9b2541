//! What a frame carries: the classification that everything above decides by.

use core::net::IpAddr;

use crate::arp::Arp;
use crate::checksum::Sum;
use crate::frame::{Frame, ethertype};
use crate::icmpv4::Icmpv4;
use crate::icmpv6::Icmpv6;
use crate::ipv4::Ipv4;
use crate::ipv6::Ipv6;
use crate::malformed::Malformed;
use crate::received::Offload;
use crate::tcp::Tcp;
use crate::udp::Udp;

/// IP protocol numbers with a meaning here.
pub mod protocol {
    /// IPv6 hop-by-hop options.
    pub const HOP_BY_HOP: u8 = 0;
    /// ICMP.
    pub const ICMP: u8 = 1;
    /// IGMP.
    pub const IGMP: u8 = 2;
    /// TCP.
    pub const TCP: u8 = 6;
    /// UDP.
    pub const UDP: u8 = 17;
    /// IPv6 routing header.
    pub const ROUTING: u8 = 43;
    /// IPv6 fragment header.
    pub const FRAGMENT: u8 = 44;
    /// `ICMPv6`.
    pub const ICMPV6: u8 = 58;
    /// IPv6: nothing follows.
    pub const NO_NEXT_HEADER: u8 = 59;
    /// IPv6 destination options.
    pub const DESTINATION_OPTIONS: u8 = 60;
}

/// What a frame carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Packet<'a> {
    /// ARP for Ethernet and IPv4.
    Arp(Arp),
    /// IPv4.
    Ipv4(Ipv4<'a>, Transport<'a>),
    /// IPv6.
    Ipv6(Ipv6<'a>, Transport<'a>),
    /// Another `EtherType`.
    Other(u16),
    /// An 802.3 frame with a length in place of the type.
    Llc,
}

/// What an IP packet carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport<'a> {
    /// A whole TCP segment.
    Tcp(Tcp<'a>),
    /// A whole UDP datagram.
    Udp(Udp<'a>),
    /// A whole ICMP message.
    Icmpv4(Icmpv4<'a>),
    /// A whole `ICMPv6` message.
    Icmpv6(Icmpv6<'a>),
    /// A part of a datagram, see `Ipv4::fragment` and `Ipv6::fragment`. Its checksum is anybody's guess.
    Fragment {
        /// Protocol of the whole, as far as this part tells: of IPv6 only the first does for sure.
        protocol: u8,
        /// What the first one has of the whole, from the transport header on.
        first: Option<&'a [u8]>,
    },
    /// Another protocol.
    Other(u8),
}

/// Which part of a datagram a fragment is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fragment {
    /// Identification: 16 bits in IPv4, 32 in IPv6.
    pub id: u32,
    /// Where its payload begins in the whole, in bytes.
    pub offset: u16,
    /// There are later ones.
    pub more: bool,
}

impl<'a> Packet<'a> {
    /// Reads what `frame` carries. Transport checksums of whole packets are verified unless `offload` says
    /// that the kernel vouches for them; the IPv4 header's always.
    ///
    /// # Errors
    /// The first check that it fails, the source MAC before all others.
    #[inline]
    pub fn parse(frame: &Frame<'a>, offload: Offload) -> Result<Self, Malformed> {
        if !frame.src.is_unicast() {
            return Err(Malformed::Source);
        }
        match frame.ethertype {
            ethertype::IPV4 => {
                let ip = Ipv4::parse(frame.payload)?;
                let transport = over_ipv4(&ip, offload)?;
                if ip.src.is_unspecified() && !Ipv4::may_lack_source(ip.protocol, transport.ports()) {
                    return Err(Malformed::Source);
                }
                Ok(Self::Ipv4(ip, transport))
            }
            ethertype::ARP => Arp::parse(frame.payload).map(Self::Arp),
            ethertype::IPV6 => {
                let ip = Ipv6::parse(frame.payload)?;
                let transport = over_ipv6(&ip, offload)?;
                if ip.src.is_unspecified() && !matches!(transport, Transport::Icmpv6(_)) {
                    return Err(Malformed::Source);
                }
                Ok(Self::Ipv6(ip, transport))
            }
            _ if frame.is_llc() => Ok(Self::Llc),
            other => Ok(Self::Other(other)),
        }
    }

    /// Source and destination of an IP packet.
    #[must_use]
    pub const fn addresses(&self) -> Option<(IpAddr, IpAddr)> {
        match self {
            Self::Ipv4(ip, _) => Some((IpAddr::V4(ip.src), IpAddr::V4(ip.dst))),
            Self::Ipv6(ip, _) => Some((IpAddr::V6(ip.src), IpAddr::V6(ip.dst))),
            Self::Arp(_) | Self::Other(_) | Self::Llc => None,
        }
    }

    /// What an IP packet carries.
    #[must_use]
    pub const fn transport(&self) -> Option<&Transport<'a>> {
        match self {
            Self::Ipv4(_, transport) | Self::Ipv6(_, transport) => Some(transport),
            Self::Arp(_) | Self::Other(_) | Self::Llc => None,
        }
    }
}

impl Transport<'_> {
    /// The protocol number.
    #[must_use]
    pub const fn protocol(&self) -> u8 {
        match self {
            Self::Tcp(_) => protocol::TCP,
            Self::Udp(_) => protocol::UDP,
            Self::Icmpv4(_) => protocol::ICMP,
            Self::Icmpv6(_) => protocol::ICMPV6,
            Self::Fragment { protocol, .. } | Self::Other(protocol) => *protocol,
        }
    }

    /// Source and destination port, where they can be read.
    #[must_use]
    pub const fn ports(&self) -> Option<(u16, u16)> {
        match self {
            Self::Tcp(tcp) => Some((tcp.src_port, tcp.dst_port)),
            Self::Udp(udp) => Some((udp.src_port, udp.dst_port)),
            Self::Fragment { protocol: protocol::TCP | protocol::UDP, first: Some([s0, s1, d0, d1, ..]) } => {
                Some((u16::from_be_bytes([*s0, *s1]), u16::from_be_bytes([*d0, *d1])))
            }
            Self::Fragment { .. } | Self::Icmpv4(_) | Self::Icmpv6(_) | Self::Other(_) => None,
        }
    }
}

impl Fragment {
    /// Checks what one fragment alone shows of an attack or a fault: an end beyond `longest`, a length that is
    /// no multiple of eight with more to come, a first fragment without its transport header (RFC 1858
    /// 3, RFC 3128, RFC 7112), a TCP header overwritten by the second one. `None`: a whole packet.
    #[inline]
    pub(crate) fn new(
        id: u32,
        offset: usize,
        more: bool,
        protocol: u8,
        len: usize,
        longest: usize,
    ) -> Result<Option<Self>, Malformed> {
        if offset == 0 && !more {
            return Ok(None);
        }
        let offset = u16::try_from(offset).map_err(|_| Malformed::Length)?;
        if usize::from(offset) + len > longest || (more && (len == 0 || !len.is_multiple_of(8))) {
            return Err(Malformed::Length);
        }
        let header = transport_header(protocol);
        if (offset == 0 && len < header) || (offset > 0 && usize::from(offset) < header) {
            return Err(Malformed::Length);
        }
        Ok(Some(Self { id, offset, more }))
    }
}

#[inline]
fn over_ipv4<'a>(ip: &Ipv4<'a>, offload: Offload) -> Result<Transport<'a>, Malformed> {
    if let Some(fragment) = ip.fragment {
        let first = (fragment.offset == 0).then_some(ip.payload);
        return Ok(Transport::Fragment { protocol: ip.protocol, first });
    }
    let bytes = ip.payload;
    match ip.protocol {
        protocol::TCP => {
            let tcp = Tcp::parse(bytes)?;
            intact(offload, || ip.pseudo(bytes.len()).add(bytes))?;
            Ok(Transport::Tcp(tcp))
        }
        protocol::UDP => {
            let udp = Udp::parse(bytes)?;
            if udp.checksum != 0 {
                intact(offload, || ip.pseudo(udp.datagram.len()).add(udp.datagram))?;
            }
            Ok(Transport::Udp(udp))
        }
        protocol::ICMP => {
            let icmp = Icmpv4::parse(bytes)?;
            intact(offload, || Sum::ZERO.add(bytes))?;
            Ok(Transport::Icmpv4(icmp))
        }
        other => Ok(Transport::Other(other)),
    }
}

#[inline]
fn over_ipv6<'a>(ip: &Ipv6<'a>, offload: Offload) -> Result<Transport<'a>, Malformed> {
    match ip.fragment {
        Some(Fragment { offset: 0, .. }) => {
            let (protocol, first) = ip.first_part()?;
            // "a first fragment [...] includes the entire IPv6 header chain" (RFC 7112 5).
            if first.len() < transport_header(protocol) {
                return Err(Malformed::Length);
            }
            return Ok(Transport::Fragment { protocol, first: Some(first) });
        }
        Some(_) => return Ok(Transport::Fragment { protocol: ip.protocol, first: None }),
        None => {}
    }
    let bytes = ip.payload;
    match ip.protocol {
        protocol::TCP => {
            let tcp = Tcp::parse(bytes)?;
            intact(offload, || ip.pseudo(bytes.len()).add(bytes))?;
            Ok(Transport::Tcp(tcp))
        }
        protocol::UDP => {
            let udp = Udp::parse(bytes)?;
            // "IPv6 receivers must discard UDP packets containing a zero checksum" (RFC 8200 8.1).
            intact(offload, || {
                if udp.checksum == 0 { Sum::ZERO } else { ip.pseudo(udp.datagram.len()).add(udp.datagram) }
            })?;
            Ok(Transport::Udp(udp))
        }
        protocol::ICMPV6 => {
            intact(offload, || ip.pseudo(bytes.len()).add(bytes))?;
            Ok(Transport::Icmpv6(Icmpv6::parse(ip, bytes)?))
        }
        other => Ok(Transport::Other(other)),
    }
}

#[inline]
fn intact(offload: Offload, sum: impl FnOnce() -> Sum) -> Result<(), Malformed> {
    if offload == Offload::None && !sum().is_intact() { Err(Malformed::Checksum) } else { Ok(()) }
}

/// Bytes of a transport header that its first fragment must have.
const fn transport_header(protocol: u8) -> usize {
    match protocol {
        protocol::TCP => Tcp::HEADER,
        protocol::UDP | protocol::ICMP => Udp::HEADER,
        protocol::ICMPV6 => 4,
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{parse, parse_with, v4, v6};

    const DATAGRAM: [u8; 12] = [0x30, 0x39, 0, 7, 0, 12, 0xbe, 0xef, 1, 2, 3, 4];
    const SEGMENT: [u8; 20] = [0x30, 0x39, 0, 80, 0, 0, 0, 1, 0, 0, 0, 2, 0x50, 2, 4, 0, 0xbe, 0xef, 0, 0];
    const ECHO: [u8; 8] = [8, 0, 0xbe, 0xef, 0, 1, 0, 1];
    const ECHO6: [u8; 8] = [128, 0, 0xbe, 0xef, 0, 1, 0, 1];

    #[test]
    fn wrong_transport_checksums_are_refused_unless_the_kernel_vouches() {
        for frame in [
            v4(protocol::UDP, &DATAGRAM),
            v4(protocol::TCP, &SEGMENT),
            v4(protocol::ICMP, &ECHO),
            v6(protocol::UDP, &DATAGRAM),
            v6(protocol::TCP, &SEGMENT),
            v6(protocol::ICMPV6, &ECHO6),
        ] {
            assert_eq!(parse(&frame), Err(Malformed::Checksum), "{frame:x?}");
            assert!(parse_with(&frame, Offload::Partial).is_ok());
            assert!(parse_with(&frame, Offload::Verified).is_ok());
        }
    }

    #[test]
    fn nobody_vouches_for_the_checksum_of_an_ipv4_header() {
        let mut frame = v4(protocol::UDP, &DATAGRAM);
        frame[24] ^= 0x10;
        assert_eq!(parse_with(&frame, Offload::Partial), Err(Malformed::Checksum));
    }

    #[test]
    fn a_datagram_without_checksum_is_right_over_ipv4_only() {
        let mut bare = DATAGRAM;
        bare[6..8].fill(0);
        assert!(matches!(parse(&v4(protocol::UDP, &bare)), Ok(Packet::Ipv4(_, Transport::Udp(_)))));
        assert_eq!(parse(&v6(protocol::UDP, &bare)), Err(Malformed::Checksum));
    }

    #[test]
    fn a_source_mac_that_no_station_has_is_refused_before_all_else() {
        for source in [[0; 6], [0xff; 6], [1, 0, 0x5e, 0, 0, 1]] {
            let mut frame = v4(protocol::UDP, &DATAGRAM);
            frame[6..12].copy_from_slice(&source);
            assert_eq!(parse(&frame), Err(Malformed::Source));
        }
    }

    #[test]
    fn a_host_without_address_may_ask_for_one() {
        let from_nobody = |protocol: u8, payload: &[u8]| {
            let mut frame = v4(protocol, payload);
            frame[26..30].fill(0);
            crate::testing::mend_ipv4(&mut frame);
            parse_with(&frame, Offload::Verified).map(|_| ())
        };
        assert_eq!(from_nobody(protocol::UDP, &[0, 68, 0, 67, 0, 8, 0, 0]), Ok(()));
        assert_eq!(from_nobody(protocol::IGMP, &[0x16, 0, 0, 0, 224, 0, 0, 251]), Ok(()));
        assert_eq!(from_nobody(protocol::UDP, &DATAGRAM), Err(Malformed::Source));
        assert_eq!(from_nobody(protocol::ICMP, &ECHO), Err(Malformed::Source));
        assert_eq!(from_nobody(protocol::TCP, &SEGMENT), Err(Malformed::Source));
    }

    #[test]
    fn fragments_are_taken_without_their_checksum_and_the_first_has_ports() {
        let part = |offset: u8, more: bool| {
            let mut frame = v4(protocol::UDP, &[&DATAGRAM[..], &[0; 4]].concat());
            frame[20] = if more { 0x20 } else { 0 };
            frame[21] = offset;
            crate::testing::mend_ipv4(&mut frame);
            match parse(&frame) {
                Ok(Packet::Ipv4(_, part @ Transport::Fragment { protocol: 17, first })) => {
                    (part.ports(), first.map(<[u8]>::len))
                }
                other => panic!("no fragment: {other:?}"),
            }
        };
        assert_eq!(part(0, true), (Some((12345, 7)), Some(16)));
        assert_eq!(part(2, false), (None, None));
    }

    #[test]
    fn the_first_fragment_of_ipv6_has_all_headers_up_to_the_transports() {
        // A fragment header, then destination options, then a datagram.
        let fragment = |next: u8, more: u8| [next, 0, 0, more, 0, 0, 0, 9];
        let options = [17, 0, 1, 4, 0, 0, 0, 0];
        let part = |headers: &[&[u8]]| {
            parse(&v6(protocol::FRAGMENT, &headers.concat()))
                .map(|packet| packet.transport().map(|part| (part.protocol(), part.ports())))
        };
        let whole = part(&[&fragment(60, 1), &options, &DATAGRAM[..8]]);
        assert_eq!(whole, Ok(Some((protocol::UDP, Some((12345, 7))))));
        assert_eq!(part(&[&fragment(60, 1), &options]), Err(Malformed::Length), "RFC 7112");
        assert_eq!(part(&[&fragment(60, 1), &[17, 1, 1, 4, 0, 0, 0, 0]]), Err(Malformed::Length), "RFC 7112");
        let later = part(&[&[60, 0, 0, 9, 0, 0, 0, 9], &options]);
        assert_eq!(later, Ok(Some((60, None))), "of a later one nobody knows what it is");
    }

    #[test]
    fn fragments_made_to_hide_their_transport_header_are_refused() {
        let part = |protocol: u8, offset: usize, more: bool, len: usize| {
            Fragment::new(1, offset, more, protocol, len, 65_535).map(|f| f.is_some())
        };
        assert_eq!(part(protocol::TCP, 0, true, 16), Err(Malformed::Length), "RFC 1858 3.1");
        assert_eq!(part(protocol::TCP, 0, true, 24), Ok(true));
        assert_eq!(part(protocol::TCP, 8, false, 40), Err(Malformed::Length), "RFC 1858 3.2");
        assert_eq!(part(protocol::TCP, 24, false, 40), Ok(true));
        assert_eq!(part(protocol::UDP, 8, false, 1), Ok(true));
        assert_eq!(part(protocol::UDP, 8, true, 9), Err(Malformed::Length), "not in eights");
        assert_eq!(part(protocol::UDP, 8, true, 0), Err(Malformed::Length), "nothing");
        assert_eq!(part(protocol::UDP, 65_528, false, 8), Err(Malformed::Length), "too far");
        assert_eq!(part(protocol::UDP, 0, false, 3), Ok(false), "a whole one is judged elsewhere");
    }

    #[test]
    fn other_types_are_passed_on() {
        let mut frame = v4(protocol::UDP, &DATAGRAM);
        for (kind, expected) in [
            (ethertype::RARP, Packet::Other(0x8035)),
            (ethertype::WAKE_ON_LAN, Packet::Other(0x0842)),
            (46, Packet::Llc),
        ] {
            frame[12..14].copy_from_slice(&kind.to_be_bytes());
            assert_eq!(parse(&frame), Ok(expected));
        }
        assert!(matches!(parse(&v4(132, &[1, 2])), Ok(Packet::Ipv4(_, Transport::Other(132)))));
    }
}

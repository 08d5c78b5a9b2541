//! One packet as several frames, as a host sends what is longer than the MTU (RFC 791 3.2, RFC 8200 4.5).
//!
//! Each part but the last is as long as the MTU allows, in units of eight bytes; they leave first to last.

use crate::emit::{Ethernet, FrameBuf, Ipv4Header, Ipv6Header};
use crate::frame::{Frame, ethertype};
use crate::ipv4::Ipv4;
use crate::ipv6::Ipv6;
use crate::packet::Fragment;

/// A packet of ours, and how much of it was written. See the [module](self).
#[derive(Debug)]
pub struct Fragments<'a> {
    to: Ethernet,
    header: Header,
    id: u32,
    /// The longest part.
    most: usize,
    payload: &'a [u8],
    at: usize,
}

#[derive(Debug)]
enum Header {
    V4(Ipv4Header),
    /// With its flow label, which all parts have (RFC 6437 3).
    V6(Ipv6Header, u32),
}

impl<'a> Fragments<'a> {
    /// Of the IP packet in `whole`, without options or extension headers; those of IPv6 get identification
    /// `id`, those of IPv4 have the packet's own. `None` if it is no such packet, or none of its bytes would fit
    /// the `mtu`.
    #[must_use]
    pub fn of(whole: &Frame<'a>, mtu: usize, id: u32) -> Option<Self> {
        let to = Ethernet { dst: whole.dst, src: whole.src, tags: whole.tags };
        let (header, payload, headers) = match whole.ethertype {
            ethertype::IPV4 => {
                let ip = Ipv4::parse(whole.payload).ok().filter(|ip| ip.fragment.is_none())?;
                let header = Ipv4Header {
                    src: ip.src,
                    dst: ip.dst,
                    tos: ip.tos,
                    id: ip.id,
                    dont_fragment: false,
                    ttl: ip.ttl,
                    protocol: ip.protocol,
                };
                (Header::V4(header), ip.payload, Ipv4::HEADER)
            }
            ethertype::IPV6 => {
                let ip = Ipv6::parse(whole.payload).ok().filter(|ip| !ip.has_fragment_header)?;
                let header = Ipv6Header {
                    src: ip.src,
                    dst: ip.dst,
                    traffic_class: ip.traffic_class,
                    hop_limit: ip.hop_limit,
                    protocol: ip.protocol,
                };
                (Header::V6(header, ip.flow_label()), ip.payload, Ipv6::HEADER + Ipv6::FRAGMENT_HEADER)
            }
            _ => return None,
        };
        let most = mtu.checked_sub(headers)? & !7;
        (most > 0).then_some(Self { to, header, id, most, payload, at: 0 })
    }

    /// How many frames it makes.
    #[must_use]
    pub fn count(&self) -> usize {
        self.payload.len().div_ceil(self.most)
    }

    /// Writes the next one, padded; `None` after the last, or if it does not fit `out`.
    pub fn write_next(&mut self, out: &mut FrameBuf<'_>) -> Option<()> {
        let rest = self.payload.get(self.at..).filter(|rest| !rest.is_empty())?;
        let (part, later) = rest.split_at(rest.len().min(self.most));
        let offset = u16::try_from(self.at).ok()?;
        let place = Fragment { id: self.id, offset, more: !later.is_empty() };
        match &self.header {
            Header::V4(header) => out.ipv4_fragment(&self.to, header, place, part.len()),
            Header::V6(header, flow_label) => {
                out.ipv6_fragment(&self.to, header, *flow_label, place, part.len());
            }
        }
        out.push(part);
        self.at += part.len();
        out.finish().map(|_| ())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::{Packet, Transport, protocol};
    use crate::received::Received;
    use crate::testing::{parse, v4, v6};

    /// Cuts `whole` up and puts it together again: the payload, and the length of each part.
    fn through(whole: &[u8], mtu: usize) -> (Vec<u8>, Vec<usize>) {
        let frame = Frame::parse(&Received::plain(whole)).unwrap();
        let mut fragments = Fragments::of(&frame, mtu, 0xdead_beef).unwrap();
        let (mut payload, mut lengths) = (Vec::new(), Vec::new());
        let count = fragments.count();
        loop {
            let mut memory = [0xee; 1600];
            let mut out = FrameBuf::new(&mut memory);
            if fragments.write_next(&mut out).is_none() {
                break;
            }
            let bytes = out.as_bytes();
            let (place, part, id) = match parse(bytes).unwrap() {
                Packet::Ipv4(ip, Transport::Fragment { .. }) => {
                    assert!(!ip.dont_fragment && ip.packet.len() <= mtu);
                    (ip.fragment, ip.payload, 7)
                }
                Packet::Ipv6(ip, Transport::Fragment { .. }) => {
                    assert!(ip.packet.len() <= mtu);
                    (ip.fragment, ip.payload, 0xdead_beef)
                }
                other => panic!("no fragment: {other:?}"),
            };
            let place = place.unwrap();
            assert_eq!((place.id, usize::from(place.offset)), (id, payload.len()));
            lengths.push(part.len());
            payload.extend(part);
            assert_eq!(place.more, lengths.len() < count);
        }
        assert_eq!(lengths.len(), count);
        (payload, lengths)
    }

    fn data(len: usize) -> Vec<u8> {
        (0..len).map(|n| (n % 251) as u8).collect()
    }

    #[test]
    fn the_parts_are_those_of_a_host_and_make_the_whole() {
        let data = data(3008);
        assert_eq!(through(&v4(protocol::ICMP, &data), 1500), (data.clone(), vec![1480, 1480, 48]));
        assert_eq!(through(&v6(protocol::ICMPV6, &data), 1500), (data.clone(), vec![1448, 1448, 112]));
        assert_eq!(through(&v4(253, &data), 577).1, [[552; 5].as_slice(), &[248]].concat());
    }

    #[test]
    fn what_cannot_be_cut_is_not() {
        let of = |whole: &[u8], mtu| {
            Fragments::of(&Frame::parse(&Received::plain(whole)).unwrap(), mtu, 1).map(|f| f.count())
        };
        assert_eq!(of(&v4(253, &data(100)), 28), Some(13));
        assert_eq!(of(&v4(253, &data(100)), 27), None, "not one unit of eight");
        assert_eq!(of(&v6(253, &data(100)), 47), None);
        let mut arp = v4(253, &data(100));
        arp[12..14].copy_from_slice(&ethertype::ARP.to_be_bytes());
        assert_eq!(of(&arp, 1500), None);
        let atomic = v6(protocol::FRAGMENT, &[&[253, 0, 0, 0, 0, 0, 0, 9][..], &data(100)].concat());
        assert_eq!(of(&atomic, 1500), None, "a second fragment header");
    }
}

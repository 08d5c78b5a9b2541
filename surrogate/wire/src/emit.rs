//! Writing frames into a caller's buffer: Ethernet, tags, IPv4 and IPv6 headers, padding.
//!
//! Nothing here allocates or panics: what does not fit makes [`FrameBuf::finish`] say so.

use core::net::{Ipv4Addr, Ipv6Addr};

use crate::checksum::Sum;
use crate::frame::ethertype;
use crate::ipv4::Ipv4;
use crate::ipv6::Ipv6;
use crate::mac::Mac;
use crate::packet::{Fragment, protocol};
use crate::udp::Udp;
use crate::vlan::Tags;

/// The shortest frame without FCS; Linux pads to this, tags counted.
pub const MIN_FRAME: usize = 60;

/// A frame being written into borrowed memory.
#[derive(Debug)]
pub struct FrameBuf<'b> {
    bytes: &'b mut [u8],
    len: usize,
    overflowed: bool,
}

/// Where a frame of ours goes, and from whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ethernet {
    /// Destination.
    pub dst: Mac,
    /// Source.
    pub src: Mac,
    /// Tags, outermost first.
    pub tags: Tags,
}

/// The fields of an IPv4 header that differ from frame to frame; no options.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ipv4Header {
    /// Source.
    pub src: Ipv4Addr,
    /// Destination.
    pub dst: Ipv4Addr,
    /// Type of service.
    pub tos: u8,
    /// Identification.
    pub id: u16,
    /// Don't-fragment.
    pub dont_fragment: bool,
    /// Time to live.
    pub ttl: u8,
    /// Protocol of the payload.
    pub protocol: u8,
}

/// The same of an IPv6 header; no extensions but that of a fragment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ipv6Header {
    /// Source.
    pub src: Ipv6Addr,
    /// Destination.
    pub dst: Ipv6Addr,
    /// Traffic class.
    pub traffic_class: u8,
    /// Hop limit.
    pub hop_limit: u8,
    /// Next header.
    pub protocol: u8,
}

impl<'b> FrameBuf<'b> {
    /// An empty frame that may grow as long as `bytes`.
    #[must_use]
    pub const fn new(bytes: &'b mut [u8]) -> Self {
        Self { bytes, len: 0, overflowed: false }
    }

    /// How long the frame may be.
    #[must_use]
    pub const fn capacity(&self) -> usize {
        self.bytes.len()
    }

    /// Begins anew with an Ethernet header.
    #[inline]
    pub fn ethernet(&mut self, to: &Ethernet, ethertype: u16) {
        self.len = 0;
        self.overflowed = false;
        let [d0, d1, d2, d3, d4, d5] = to.dst.0;
        let [s0, s1, s2, s3, s4, s5] = to.src.0;
        let [t0, t1] = ethertype.to_be_bytes();
        if to.tags.is_empty() {
            self.push(&[d0, d1, d2, d3, d4, d5, s0, s1, s2, s3, s4, s5, t0, t1]);
            return;
        }
        self.push(&[d0, d1, d2, d3, d4, d5, s0, s1, s2, s3, s4, s5]);
        for tag in to.tags.iter() {
            let [p0, p1] = tag.tpid.to_be_bytes();
            let [c0, c1] = tag.tci.to_be_bytes();
            self.push(&[p0, p1, c0, c1]);
        }
        self.push(&[t0, t1]);
    }

    /// Begins anew with Ethernet and IPv4 headers for `payload` bytes to follow.
    #[inline]
    pub fn ipv4(&mut self, to: &Ethernet, header: &Ipv4Header, payload: usize) {
        self.ipv4_with(to, header, header.flags(), payload);
    }

    /// The same for a part of a datagram of the header's identification (RFC 791 3.1). Whoever cuts it up cannot
    /// forbid that: don't-fragment is off.
    pub fn ipv4_fragment(&mut self, to: &Ethernet, header: &Ipv4Header, part: Fragment, payload: usize) {
        let more = if part.more { 0x2000 } else { 0 };
        self.ipv4_with(to, header, more | part.offset >> 3, payload);
    }

    #[inline]
    fn ipv4_with(&mut self, to: &Ethernet, header: &Ipv4Header, flags: u16, payload: usize) {
        self.ethernet(to, ethertype::IPV4);
        let len = self.length_field(Ipv4::HEADER + payload);
        self.push(&header.emit(0x45, len, flags, Sum::ZERO));
    }

    /// The same, with the router alert option (RFC 2113 2.1).
    pub fn ipv4_router_alert(&mut self, to: &Ethernet, header: &Ipv4Header, payload: usize) {
        self.ethernet(to, ethertype::IPV4);
        let len = self.length_field(Ipv4::HEADER + ROUTER_ALERT_V4.len() + payload);
        self.push(&header.emit(0x46, len, header.flags(), Sum::ZERO.add(&ROUTER_ALERT_V4)));
        self.push(&ROUTER_ALERT_V4);
    }

    /// Begins anew with Ethernet and IPv6 headers for `payload` bytes to follow.
    #[inline]
    pub fn ipv6(&mut self, to: &Ethernet, header: &Ipv6Header, payload: usize) {
        self.ipv6_of_flow(to, header, 0, payload);
    }

    /// The same with a flow label (RFC 6437), of which the low 20 bits count.
    #[inline]
    pub fn ipv6_of_flow(&mut self, to: &Ethernet, header: &Ipv6Header, flow_label: u32, payload: usize) {
        self.ethernet(to, ethertype::IPV6);
        let [l0, l1] = self.length_field(payload).to_be_bytes();
        let first = 0x6 << 28 | u32::from(header.traffic_class) << 20 | flow_label & 0xf_ffff;
        let [f0, f1, f2, f3] = first.to_be_bytes();
        self.push(&[f0, f1, f2, f3, l0, l1, header.protocol, header.hop_limit]);
        self.push(&header.src.octets());
        self.push(&header.dst.octets());
    }

    /// The same, with a hop-by-hop header whose option alerts routers to an MLD message (RFC 2711 2.1).
    pub fn ipv6_router_alert(&mut self, to: &Ethernet, header: &Ipv6Header, payload: usize) {
        // The option is four bytes long, and two of padding fill the header.
        let options = [header.protocol, 0, 5, 2, 0, 0, 1, 0];
        let first = Ipv6Header { protocol: protocol::HOP_BY_HOP, ..*header };
        self.ipv6(to, &first, options.len() + payload);
        self.push(&options);
    }

    /// The same for a part of a packet, with a fragment header (RFC 8200 4.5).
    pub fn ipv6_fragment(
        &mut self,
        to: &Ethernet,
        header: &Ipv6Header,
        flow_label: u32,
        part: Fragment,
        payload: usize,
    ) {
        let whole = Ipv6Header { protocol: protocol::FRAGMENT, ..*header };
        self.ipv6_of_flow(to, &whole, flow_label, Ipv6::FRAGMENT_HEADER + payload);
        let [o0, o1] = (part.offset & 0xfff8 | u16::from(part.more)).to_be_bytes();
        let [i0, i1, i2, i3] = part.id.to_be_bytes();
        self.push(&[header.protocol, 0, o0, o1, i0, i1, i2, i3]);
    }

    /// Appends `part`.
    #[inline]
    pub fn push(&mut self, part: &[u8]) {
        let end = self.len.saturating_add(part.len());
        match self.bytes.get_mut(self.len..end) {
            Some(to) => {
                to.copy_from_slice(part);
                self.len = end;
            }
            None => self.overflowed = true,
        }
    }

    /// Pads with zeros to the shortest frame; `None` if the frame did not fit.
    #[inline]
    pub fn finish(&mut self) -> Option<&[u8]> {
        if let Some(missing) = MIN_FRAME.checked_sub(self.len) {
            self.push(PADDING.get(..missing).unwrap_or_default());
        }
        if self.overflowed { None } else { self.bytes.get(..self.len) }
    }

    /// What was written so far, without what did not fit.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or_default()
    }

    /// IP packets end at 65,535 bytes.
    fn length_field(&mut self, len: usize) -> u16 {
        u16::try_from(len).unwrap_or_else(|_| {
            self.overflowed = true;
            u16::MAX
        })
    }
}

impl Ipv4Header {
    /// Flags and offset of a whole datagram.
    const fn flags(&self) -> u16 {
        if self.dont_fragment { 0x4000 } else { 0 }
    }

    /// Its bytes, options left out but counted: `version_ihl` and `len` include them, and so does `options`.
    #[inline]
    fn emit(&self, version_ihl: u8, len: u16, flags: u16, options: Sum) -> [u8; Ipv4::HEADER] {
        // Summed from the fields, not from the bytes: those would have to be stored first.
        let [c0, c1] = options
            .add_u16(u16::from_be_bytes([version_ihl, self.tos]))
            .add_u16(len)
            .add_u16(self.id)
            .add_u16(flags)
            .add_u16(u16::from_be_bytes([self.ttl, self.protocol]))
            .add_v4(self.src)
            .add_v4(self.dst)
            .finish()
            .to_be_bytes();
        let [l0, l1] = len.to_be_bytes();
        let [i0, i1] = self.id.to_be_bytes();
        let [f0, f1] = flags.to_be_bytes();
        let [s0, s1, s2, s3] = self.src.octets();
        let [d0, d1, d2, d3] = self.dst.octets();
        let (tos, ttl, protocol) = (self.tos, self.ttl, self.protocol);
        [version_ihl, tos, l0, l1, i0, i1, f0, f1, ttl, protocol, c0, c1, s0, s1, s2, s3, d0, d1, d2, d3]
    }
}

/// The first eight bytes of an ICMP message before `data`. `pseudo` is zero for IPv4, else the
/// pseudo-header of the whole message.
#[inline]
#[must_use]
pub fn icmp_header(pseudo: Sum, kind: u8, code: u8, rest: [u8; 4], data: &[u8]) -> [u8; 8] {
    let [r0, r1, r2, r3] = rest;
    let [c0, c1] = pseudo
        .add_u16(u16::from_be_bytes([kind, code]))
        .add_u16(u16::from_be_bytes([r0, r1]))
        .add_u16(u16::from_be_bytes([r2, r3]))
        .add(data)
        .finish()
        .to_be_bytes();
    [kind, code, c0, c1, r0, r1, r2, r3]
}

/// A UDP header before `data`, which is at most 65,527 bytes long.
#[inline]
#[must_use]
pub fn udp_header(pseudo: Sum, src_port: u16, dst_port: u16, data: &[u8]) -> [u8; 8] {
    let len = u16::try_from(Udp::HEADER + data.len()).unwrap_or(u16::MAX);
    let sum = pseudo.add_u16(src_port).add_u16(dst_port).add_u16(len).add(data);
    let checksum = match sum.finish() {
        // "an all zero transmitted checksum value means that the transmitter generated no checksum".
        0 => 0xffff,
        sum => sum,
    };
    let [s0, s1] = src_port.to_be_bytes();
    let [d0, d1] = dst_port.to_be_bytes();
    let [l0, l1] = len.to_be_bytes();
    let [c0, c1] = checksum.to_be_bytes();
    [s0, s1, d0, d1, l0, l1, c0, c1]
}

/// "Every router examines the packet": type, length, value (RFC 2113 2.1).
const ROUTER_ALERT_V4: [u8; 4] = [0x94, 4, 0, 0];
const PADDING: [u8; MIN_FRAME] = [0; MIN_FRAME];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{ALICE, ALICE_V4, BOB, BOB_V4, TO_BOB};
    use crate::vlan::VlanTag;

    #[test]
    fn short_frames_are_padded_with_zeros_not_with_what_lay_there() {
        let mut memory = [0xee; 128];
        let mut out = FrameBuf::new(&mut memory);
        out.ethernet(&TO_BOB, ethertype::ARP);
        out.push(&[1; 28]);
        let frame = out.finish().unwrap();
        assert_eq!(frame.len(), MIN_FRAME);
        assert_eq!(frame[42..], [0; 18]);
    }

    #[test]
    fn tags_count_towards_the_shortest_frame() {
        let mut tags = Tags::for_vid(Some(5));
        tags.push(VlanTag { tpid: 0x8100, tci: 6 });
        let mut memory = [0; 64];
        let mut out = FrameBuf::new(&mut memory);
        out.ethernet(&Ethernet { tags, ..TO_BOB }, 0x0842);
        let frame = out.finish().unwrap();
        assert_eq!(frame[..22], [&BOB.0[..], &ALICE.0, &[0x81, 0, 0, 5, 0x81, 0, 0, 6, 8, 0x42]].concat());
        assert_eq!(frame.len(), MIN_FRAME);
    }

    #[test]
    fn what_does_not_fit_is_not_sent_by_half() {
        let mut memory = [0; 70];
        let mut out = FrameBuf::new(&mut memory);
        out.ethernet(&TO_BOB, ethertype::ARP);
        out.push(&[1; 57]);
        assert_eq!(out.finish(), None);
        out.ethernet(&TO_BOB, ethertype::ARP);
        assert_eq!(out.finish().map(<[u8]>::len), Some(MIN_FRAME), "begun anew");
        assert_eq!(FrameBuf::new(&mut [0; 59]).finish(), None, "no room for the padding");
    }

    #[test]
    fn no_ip_packet_is_longer_than_its_length_field_can_say() {
        let header = Ipv4Header {
            src: ALICE_V4,
            dst: BOB_V4,
            tos: 0,
            id: 0,
            dont_fragment: true,
            ttl: 64,
            protocol: 17,
        };
        let mut memory = vec![0; 70_000];
        let mut out = FrameBuf::new(&mut memory);
        out.ipv4(&TO_BOB, &header, 65_516);
        assert_eq!(out.finish(), None);
        out.ipv4(&TO_BOB, &header, 65_515);
        assert!(out.finish().is_some());
    }

    #[test]
    fn a_flow_label_stands_beside_the_traffic_class_and_not_over_it() {
        let frame = crate::testing::frame(|out| {
            let (src, dst) = (crate::testing::ALICE_V6, crate::testing::BOB_V6);
            let header = Ipv6Header { src, dst, traffic_class: 0xab, hop_limit: 64, protocol: 59 };
            out.ipv6_of_flow(&TO_BOB, &header, 0xfff1_2345, 0);
        });
        let ip = crate::Ipv6::parse(&frame[14..]).unwrap();
        assert_eq!((ip.traffic_class, ip.flow_label()), (0xab, 0x1_2345));
    }

    #[test]
    fn a_udp_checksum_of_zero_is_sent_as_ones() {
        let sent = |data: [u8; 2]| {
            let header = udp_header(Sum::ZERO, 0, 0, &data);
            u16::from_be_bytes([header[6], header[7]])
        };
        assert_eq!(sent([0, 0]), !10);
        assert_eq!(sent((!10u16).to_be_bytes()), 0xffff);
    }
}

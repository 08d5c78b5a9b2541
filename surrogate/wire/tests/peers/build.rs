//! Sound frames by smoltcp's emission, and what may happen to them on the way.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use pnet::packet::icmp::IcmpPacket;
use pnet::packet::icmpv6::Icmpv6Packet;
use pnet::packet::ipv4::Ipv4Packet;
use pnet::packet::ipv6::Ipv6Packet;
use pnet::packet::tcp::TcpPacket;
use pnet::packet::udp::UdpPacket;
use proptest::prelude::*;
use proptest::sample::Index;
use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{
    ArpOperation, ArpPacket, ArpRepr, EthernetAddress, EthernetFrame, EthernetProtocol, EthernetRepr,
    Icmpv4Packet, Icmpv4Repr, Icmpv6Packet as SmolIcmpv6, Icmpv6Repr, IpAddress, IpProtocol,
    Ipv4Packet as SmolIpv4, Ipv4Repr, Ipv6Packet as SmolIpv6, Ipv6Repr, NdiscNeighborFlags, NdiscRepr,
    TcpControl, TcpPacket as SmolTcp, TcpRepr, TcpSeqNumber, UdpPacket as SmolUdp, UdpRepr,
};
use surrogate_wire::Mac;

use crate::reading::{Reading, Upper};

pub(crate) const SRC: Mac = Mac([0x52, 0x54, 0, 0, 0, 0x99]);
pub(crate) const DST: Mac = Mac([0x52, 0x54, 0, 0, 0, 0x11]);

/// A frame as its sender meant it.
#[derive(Clone, Debug)]
pub(crate) struct Sound {
    pub(crate) what: What,
    padding: usize,
}

#[derive(Clone, Debug)]
pub(crate) enum What {
    Arp { op: u16, spa: Ipv4Addr, tpa: Ipv4Addr },
    V4 { src: Ipv4Addr, dst: Ipv4Addr, hops: u8, upper: Upper },
    V6 { src: Ipv6Addr, dst: Ipv6Addr, hops: u8, upper: Upper },
}

pub(crate) fn sound() -> impl Strategy<Value = Sound> {
    let v4 =
        || prop_oneof![Just(Ipv4Addr::new(192, 0, 2, 11)), (1u8..223, any::<[u8; 3]>()).prop_map(unicast)];
    let v6 = || any::<u64>().prop_map(|host| Ipv6Addr::from_bits(0x2001_0db8 << 96 | u128::from(host | 1)));
    let what = prop_oneof![
        1 => (0u16..10, v4(), v4()).prop_map(|(op, spa, tpa)| What::Arp { op, spa, tpa }),
        3 => (v4(), v4(), 1u8.., common()).prop_map(|(src, dst, hops, upper)| What::V4 { src, dst, hops, upper }),
        2 => (v6(), v6(), 1u8.., common()).prop_map(|(src, dst, hops, upper)| What::V6 { src, dst, hops, upper }),
        2 => (v6(), v6(), neighbour(v6())).prop_map(|(src, dst, upper)| What::V6 { src, dst, hops: 255, upper }),
    ];
    (what, 0usize..24).prop_map(|(what, padding)| Sound { what, padding })
}

fn unicast((first, [b, c, d]): (u8, [u8; 3])) -> Ipv4Addr {
    Ipv4Addr::new(if first == 127 { 126 } else { first }, b, c, d)
}

fn data() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![prop::collection::vec(any::<u8>(), 0..64), prop::collection::vec(any::<u8>(), 1400..1440)]
}

/// What both families carry.
fn common() -> impl Strategy<Value = Upper> {
    let flags = prop_oneof![Just(0x02), Just(0x10), Just(0x18), Just(0x11), Just(0x14)];
    prop_oneof![
        (any::<(u16, u16, u32, u32, u16)>(), flags, data()).prop_map(
            |((s, d, seq, ack, window), flags, data)| {
                Upper::Tcp {
                    ports: (s.max(1), d.max(1)),
                    seq,
                    ack: if flags & 0x10 == 0 { 0 } else { ack },
                    flags,
                    window,
                    options: if flags == 0x02 { vec![2, 4, 5, 0xb4] } else { Vec::new() },
                    data,
                }
            }
        ),
        (any::<u16>(), 1u16.., data()).prop_map(|(s, d, data)| Upper::Udp { ports: (s, d), data }),
        (any::<u16>(), any::<u16>(), data()).prop_map(|(identifier, sequence, data)| Upper::Echo {
            identifier,
            sequence,
            data
        }),
    ]
}

fn neighbour(target: impl Strategy<Value = Ipv6Addr>) -> impl Strategy<Value = Upper> {
    (target, prop::option::of(any::<[u8; 6]>().prop_map(Mac)), 0u8..8, any::<bool>()).prop_map(
        |(target, mac, flags, solicits)| {
            if solicits {
                Upper::Solicitation { target, source: mac }
            } else {
                Upper::Advertisement { target, flags: flags << 5, mac }
            }
        },
    )
}

impl Sound {
    pub(crate) fn meaning(&self) -> Reading {
        match self.what.clone() {
            What::Arp { op, spa, tpa } => Reading::Arp { op, sha: SRC, spa, tha: Mac::ZERO, tpa },
            What::V4 { src, dst, hops, upper } => {
                Reading::Ip { src: src.into(), dst: dst.into(), hops, upper }
            }
            What::V6 { src, dst, hops, upper } => {
                Reading::Ip { src: src.into(), dst: dst.into(), hops, upper }
            }
        }
    }

    /// Whether a checksum covers byte `at` of the frame, so that no single flip there goes unseen. A
    /// datagram's is left out: it can be switched off, and its length says how much is summed.
    pub(crate) fn protects(&self, at: usize) -> bool {
        // Of an IPv6 header the addresses alone are summed.
        let (header, upper) = match &self.what {
            What::Arp { .. } => return false,
            What::V4 { upper, .. } => (14..34, upper),
            What::V6 { upper, .. } => (22..54, upper),
        };
        let message = header.end..self.len();
        let whole = !matches!(upper, Upper::Udp { .. });
        header.contains(&at) || whole && message.contains(&at)
    }

    /// Its length without padding.
    pub(crate) fn len(&self) -> usize {
        self.build().len() - self.padding
    }

    pub(crate) fn build(&self) -> Vec<u8> {
        let (ethertype, payload) = match &self.what {
            What::Arp { op, spa, tpa } => (EthernetProtocol::Arp, arp(*op, *spa, *tpa)),
            What::V4 { src, dst, hops, upper } => (EthernetProtocol::Ipv4, v4(*src, *dst, *hops, upper)),
            What::V6 { src, dst, hops, upper } => (EthernetProtocol::Ipv6, v6(*src, *dst, *hops, upper)),
        };
        let mut bytes = vec![0; 14 + payload.len() + self.padding];
        let header =
            EthernetRepr { src_addr: EthernetAddress(SRC.0), dst_addr: EthernetAddress(DST.0), ethertype };
        let mut frame = EthernetFrame::new_unchecked(&mut bytes);
        header.emit(&mut frame);
        frame.payload_mut()[..payload.len()].copy_from_slice(&payload);
        bytes
    }
}

fn arp(op: u16, spa: Ipv4Addr, tpa: Ipv4Addr) -> Vec<u8> {
    let mut bytes = vec![0; 28];
    let repr = ArpRepr::EthernetIpv4 {
        operation: ArpOperation::from(op),
        source_hardware_addr: EthernetAddress(SRC.0),
        source_protocol_addr: spa,
        target_hardware_addr: EthernetAddress([0; 6]),
        target_protocol_addr: tpa,
    };
    repr.emit(&mut ArpPacket::new_unchecked(&mut bytes));
    bytes
}

fn v4(src: Ipv4Addr, dst: Ipv4Addr, hop_limit: u8, upper: &Upper) -> Vec<u8> {
    let (next_header, message) = message(src.into(), dst.into(), upper);
    let repr = Ipv4Repr { src_addr: src, dst_addr: dst, next_header, payload_len: message.len(), hop_limit };
    let mut bytes = vec![0; 20 + message.len()];
    let mut packet = SmolIpv4::new_unchecked(&mut bytes);
    repr.emit(&mut packet, &ChecksumCapabilities::default());
    packet.payload_mut().copy_from_slice(&message);
    bytes
}

fn v6(src: Ipv6Addr, dst: Ipv6Addr, hop_limit: u8, upper: &Upper) -> Vec<u8> {
    let (next_header, message) = message(src.into(), dst.into(), upper);
    let repr = Ipv6Repr { src_addr: src, dst_addr: dst, next_header, payload_len: message.len(), hop_limit };
    let mut bytes = vec![0; 40 + message.len()];
    let mut packet = SmolIpv6::new_unchecked(&mut bytes);
    repr.emit(&mut packet);
    packet.payload_mut().copy_from_slice(&message);
    bytes
}

fn message(src: IpAddr, dst: IpAddr, upper: &Upper) -> (IpProtocol, Vec<u8>) {
    let caps = ChecksumCapabilities::default();
    let (from, to): (IpAddress, IpAddress) = (src.into(), dst.into());
    match upper {
        Upper::Tcp { ports, seq, ack, flags, window, options, data } => {
            let repr = TcpRepr {
                src_port: ports.0,
                dst_port: ports.1,
                control: match flags & 0x0f {
                    0x02 => TcpControl::Syn,
                    0x01 => TcpControl::Fin,
                    0x04 => TcpControl::Rst,
                    0x08 => TcpControl::Psh,
                    _ => TcpControl::None,
                },
                seq_number: TcpSeqNumber(seq.cast_signed()),
                ack_number: (flags & 0x10 != 0).then_some(TcpSeqNumber(ack.cast_signed())),
                window_len: *window,
                window_scale: None,
                max_seg_size: (!options.is_empty()).then_some(1460),
                sack_permitted: false,
                sack_ranges: [None; 3],
                timestamp: None,
                payload: data,
            };
            let mut bytes = vec![0; repr.buffer_len()];
            repr.emit(&mut SmolTcp::new_unchecked(&mut bytes), &from, &to, &caps);
            (IpProtocol::Tcp, bytes)
        }
        Upper::Udp { ports, data } => {
            let repr = UdpRepr { src_port: ports.0, dst_port: ports.1 };
            let mut bytes = vec![0; 8 + data.len()];
            let mut packet = SmolUdp::new_unchecked(&mut bytes);
            repr.emit(&mut packet, &from, &to, data.len(), |to| to.copy_from_slice(data), &caps);
            (IpProtocol::Udp, bytes)
        }
        Upper::Echo { identifier, sequence, data } if src.is_ipv4() => {
            let repr = Icmpv4Repr::EchoRequest { ident: *identifier, seq_no: *sequence, data };
            let mut bytes = vec![0; repr.buffer_len()];
            repr.emit(&mut Icmpv4Packet::new_unchecked(&mut bytes), &caps);
            (IpProtocol::Icmp, bytes)
        }
        Upper::Echo { identifier, sequence, data } => {
            icmpv6(src, dst, &Icmpv6Repr::EchoRequest { ident: *identifier, seq_no: *sequence, data })
        }
        Upper::Solicitation { target, source } => {
            let lladdr = source.map(|mac| EthernetAddress(mac.0).into());
            icmpv6(src, dst, &Icmpv6Repr::Ndisc(NdiscRepr::NeighborSolicit { target_addr: *target, lladdr }))
        }
        Upper::Advertisement { target, flags, mac } => {
            let lladdr = mac.map(|mac| EthernetAddress(mac.0).into());
            let flags = NdiscNeighborFlags::from_bits_truncate(*flags);
            icmpv6(
                src,
                dst,
                &Icmpv6Repr::Ndisc(NdiscRepr::NeighborAdvert { flags, target_addr: *target, lladdr }),
            )
        }
        Upper::Unread => unreachable!("nobody means to send that"),
    }
}

fn icmpv6(src: IpAddr, dst: IpAddr, repr: &Icmpv6Repr<'_>) -> (IpProtocol, Vec<u8>) {
    let (IpAddr::V6(src), IpAddr::V6(dst)) = (src, dst) else { unreachable!("ICMPv6 is for IPv6") };
    let mut bytes = vec![0; repr.buffer_len()];
    repr.emit(&src, &dst, &mut SmolIcmpv6::new_unchecked(&mut bytes), &ChecksumCapabilities::default());
    (IpProtocol::Icmpv6, bytes)
}

/// What may happen to a frame.
#[derive(Clone, Debug)]
pub(crate) enum Change {
    Flip { at: usize, bit: u8 },
    Set { at: Index, value: u8 },
    Cut(Index),
    Append(Vec<u8>),
}

pub(crate) fn changes() -> impl Strategy<Value = Vec<Change>> {
    let value = prop_oneof![Just(0), Just(0xff), Just(1), Just(44), Just(0x45), Just(0x46), any::<u8>()];
    let one = prop_oneof![
        // Most decisions hang on the first 60 bytes.
        4 => (14usize..74, 0u8..8).prop_map(|(at, bit)| Change::Flip { at, bit }),
        4 => (any::<Index>(), value).prop_map(|(at, value)| Change::Set { at, value }),
        1 => any::<Index>().prop_map(Change::Cut),
        1 => prop::collection::vec(any::<u8>(), 1..40).prop_map(Change::Append),
    ];
    prop::collection::vec(one, 0..4)
}

pub(crate) fn changed(frame: &[u8], changes: &[Change], mend: bool) -> Vec<u8> {
    let mut bytes = frame.to_vec();
    for change in changes {
        match change {
            Change::Flip { at, bit } => {
                if let Some(byte) = bytes.get_mut(*at) {
                    *byte ^= 1 << bit;
                }
            }
            Change::Set { at, value } => {
                if bytes.len() > 14 {
                    let at = 14 + at.index((bytes.len() - 14).min(60));
                    bytes[at] = *value;
                }
            }
            Change::Cut(at) => bytes.truncate(at.index(bytes.len() + 1)),
            Change::Append(tail) => bytes.extend(tail),
        }
    }
    if mend {
        mend_checksums(&mut bytes);
    }
    bytes
}

/// Makes the checksums right again as far as pnet knows how; leaves alone what is too broken for that.
fn mend_checksums(bytes: &mut [u8]) {
    let Some((head, packet)) = bytes.split_at_mut_checked(14) else { return };
    match head[12..] {
        [0x08, 0x00] => mend_v4(packet),
        [0x86, 0xdd] => mend_v6(packet),
        _ => {}
    }
}

fn mend_v4(packet: &mut [u8]) {
    let Some(ip) = Ipv4Packet::new(packet) else { return };
    let header = usize::from(ip.get_header_length()) * 4;
    let total = usize::from(ip.get_total_length());
    let (src, dst, protocol) = (ip.get_source(), ip.get_destination(), ip.get_next_level_protocol().0);
    if header < 20 || total < header || total > packet.len() {
        return;
    }
    let sum = pnet::packet::util::checksum(&packet[..header], 5);
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
    let message = &mut packet[header..total];
    let mended = match protocol {
        6 => TcpPacket::new(message).map(|tcp| (16, pnet::packet::tcp::ipv4_checksum(&tcp, &src, &dst))),
        17 => UdpPacket::new(message).map(|udp| (6, pnet::packet::udp::ipv4_checksum(&udp, &src, &dst))),
        1 => IcmpPacket::new(message).map(|icmp| (2, pnet::packet::icmp::checksum(&icmp))),
        _ => None,
    };
    put(message, mended);
}

fn mend_v6(packet: &mut [u8]) {
    let Some(ip) = Ipv6Packet::new(packet) else { return };
    let total = 40 + usize::from(ip.get_payload_length());
    let (src, dst, protocol) = (ip.get_source(), ip.get_destination(), ip.get_next_header().0);
    if total > packet.len() {
        return;
    }
    let message = &mut packet[40..total];
    let mended = match protocol {
        6 => TcpPacket::new(message).map(|tcp| (16, pnet::packet::tcp::ipv6_checksum(&tcp, &src, &dst))),
        17 => UdpPacket::new(message).map(|udp| (6, pnet::packet::udp::ipv6_checksum(&udp, &src, &dst))),
        58 => Icmpv6Packet::new(message).map(|icmp| (2, pnet::packet::icmpv6::checksum(&icmp, &src, &dst))),
        _ => None,
    };
    put(message, mended);
}

fn put(message: &mut [u8], mended: Option<(usize, u16)>) {
    if let Some((at, sum)) = mended
        && let Some(field) = message.get_mut(at..at + 2)
    {
        field.copy_from_slice(&sum.to_be_bytes());
    }
}

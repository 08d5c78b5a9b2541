//! The frames that the world's stations send. Behind the packet, where Ethernet's padding is, each carries
//! a number of its own, so that every single copy can be followed through bridge, engine and guest.

use core::net::{Ipv4Addr, Ipv6Addr};
use std::rc::Rc;

use surrogate_wire::checksum::Sum;
use surrogate_wire::emit::{Ethernet, Ipv4Header, Ipv6Header, icmp_header, udp_header};
use surrogate_wire::{Arp, FrameBuf, Mac, Tags, TcpFlags, ethertype, protocol};

/// Number of one frame.
pub type Uid = u32;

/// A frame on its way. `uid` is `None` for what the surrogate itself made.
#[derive(Clone, Debug)]
pub struct Frame {
    pub uid: Option<Uid>,
    pub bytes: Rc<[u8]>,
}

impl Frame {
    /// A frame out of the surrogate; the number is read from its end.
    pub fn read(bytes: &[u8], known: usize) -> Self {
        let number = bytes
            .last_chunk::<NUMBER>()
            .map_or(0, |last| last.iter().fold(0u64, |sum, byte| sum << 8 | u64::from(*byte)));
        let uid = number.checked_sub(1).filter(|n| (*n as usize) < known).map(|n| n as Uid);
        Self { uid, bytes: bytes.into() }
    }

    pub fn dst(&self) -> Mac {
        self.mac_at(0)
    }

    pub fn src(&self) -> Mac {
        self.mac_at(6)
    }

    fn mac_at(&self, at: usize) -> Mac {
        Mac(*self.bytes[at..].first_chunk().expect("frames here are whole"))
    }
}

/// Who a station is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Station {
    pub mac: Mac,
    pub v4: Ipv4Addr,
    pub v6: Ipv6Addr,
}

impl Station {
    /// `n` tells stations apart, guests' from 11 on.
    pub fn numbered(n: u8) -> Self {
        Self {
            mac: Mac([0x52, 0x54, 0, 0, 0, n]),
            v4: Ipv4Addr::new(192, 0, 2, n),
            v6: Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, u16::from(n)),
        }
    }
}

/// A TCP segment's header fields.
#[derive(Clone, Copy, Debug)]
pub struct Segment {
    pub ports: (u16, u16),
    pub seq: u32,
    pub flags: TcpFlags,
    pub len: usize,
}

/// `bytes` with the number `uid` behind them.
pub fn number(mut bytes: Vec<u8>, uid: Uid) -> Frame {
    bytes.extend_from_slice(&(u64::from(uid) + 1).to_be_bytes()[8 - NUMBER..]);
    Frame { uid: Some(uid), bytes: bytes.into() }
}

pub fn arp(src: Mac, dst: Mac, arp: &Arp) -> Vec<u8> {
    write(|out| {
        out.ethernet(&Ethernet { dst, src, tags: Tags::NONE }, ethertype::ARP);
        out.push(&arp.emit());
    })
}

pub fn ipv4(from: &Station, to: Mac, dst: Ipv4Addr, protocol: u8, payload: &[&[u8]]) -> Vec<u8> {
    let header = Ipv4Header { src: from.v4, dst, tos: 0, id: 0, dont_fragment: true, ttl: 64, protocol };
    write(|out| {
        let len = payload.iter().map(|part| part.len()).sum();
        out.ipv4(&Ethernet { dst: to, src: from.mac, tags: Tags::NONE }, &header, len);
        payload.iter().for_each(|part| out.push(part));
    })
}

pub fn ipv6(from: &Station, to: Mac, dst: Ipv6Addr, protocol: u8, payload: &[&[u8]]) -> Vec<u8> {
    let header = Ipv6Header { src: from.v6, dst, traffic_class: 0, hop_limit: 255, protocol };
    write(|out| {
        let len = payload.iter().map(|part| part.len()).sum();
        out.ipv6(&Ethernet { dst: to, src: from.mac, tags: Tags::NONE }, &header, len);
        payload.iter().for_each(|part| out.push(part));
    })
}

/// An echo message over IPv4; `kind` 8 asks, 0 replies.
pub fn echo(from: &Station, to: &Station, kind: u8, sequence: u16) -> Vec<u8> {
    let words = u32::from(sequence).to_be_bytes();
    let header = icmp_header(Sum::ZERO, kind, 0, words, &DATA);
    ipv4(from, to.mac, to.v4, protocol::ICMP, &[&header, &DATA])
}

/// An echo message over IPv6; `kind` 128 asks, 129 replies.
pub fn echo6(from: &Station, to: &Station, kind: u8, sequence: u16) -> Vec<u8> {
    let pseudo = Sum::pseudo_v6(from.v6, to.v6, protocol::ICMPV6, 8 + DATA.len());
    let header = icmp_header(pseudo, kind, 0, u32::from(sequence).to_be_bytes(), &DATA);
    ipv6(from, to.mac, to.v6, protocol::ICMPV6, &[&header, &DATA])
}

/// A neighbour solicitation for the address of `to`, to its group or to itself.
pub fn solicitation(from: &Station, to: &Station, unicast: bool) -> Vec<u8> {
    let [.., a, b, c] = to.v6.octets();
    let (mac, dst) = if unicast {
        (to.mac, to.v6)
    } else {
        let group = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00 | u16::from(a), u16::from_be_bytes([b, c]));
        (Mac([0x33, 0x33, 0xff, a, b, c]), group)
    };
    let [m0, m1, m2, m3, m4, m5] = from.mac.0;
    let option = [1, 1, m0, m1, m2, m3, m4, m5];
    let body = [&to.v6.octets()[..], &option].concat();
    let pseudo = Sum::pseudo_v6(from.v6, dst, protocol::ICMPV6, 8 + body.len());
    let header = icmp_header(pseudo, 135, 0, [0; 4], &body);
    ipv6(from, mac, dst, protocol::ICMPV6, &[&header, &body])
}

/// A UDP datagram; `dst` may be a broadcast address.
pub fn udp(from: &Station, to: Mac, dst: Ipv4Addr, ports: (u16, u16), number: u32, len: usize) -> Vec<u8> {
    let mut data = vec![0; len.max(10)];
    data[..4].copy_from_slice(&number.to_be_bytes());
    let pseudo = Sum::pseudo_v4(from.v4, dst, protocol::UDP, 8 + data.len());
    let header = udp_header(pseudo, ports.0, ports.1, &data);
    ipv4(from, to, dst, protocol::UDP, &[&header, &data])
}

pub fn tcp(from: &Station, to: &Station, segment: &Segment) -> Vec<u8> {
    let Segment { ports, seq, flags, len } = *segment;
    let mut bytes = vec![0; 20 + len];
    bytes[..2].copy_from_slice(&ports.0.to_be_bytes());
    bytes[2..4].copy_from_slice(&ports.1.to_be_bytes());
    bytes[4..8].copy_from_slice(&seq.to_be_bytes());
    bytes[12] = 5 << 4;
    bytes[13] = flags.0;
    bytes[14..16].copy_from_slice(&[0xfa, 0xf0]);
    let sum = Sum::pseudo_v4(from.v4, to.v4, protocol::TCP, bytes.len()).add(&bytes).finish();
    bytes[16..18].copy_from_slice(&sum.to_be_bytes());
    ipv4(from, to.mac, to.v4, protocol::TCP, &[&bytes])
}

fn write(fill: impl FnOnce(&mut FrameBuf<'_>)) -> Vec<u8> {
    let mut memory = [0; 2048];
    let mut out = FrameBuf::new(&mut memory);
    fill(&mut out);
    out.finish().expect("2 KiB are enough").to_vec()
}

/// Bytes of a frame's number.
pub const NUMBER: usize = 6;
/// What an echo carries. Ends in zeros, so that a reply is not taken for a numbered frame.
const DATA: [u8; 24] = *b"is anybody\0\0\0\0\0\0\0\0\0\0\0\0\0\0";

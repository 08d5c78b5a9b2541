//! Frames by hand: every field can be set, wrong ones too. Nothing here is the product's own code, so that
//! both sides of the comparison are asked by a third.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// A MAC address.
pub type Mac = [u8; 6];
/// To all.
pub const BROADCAST: Mac = [0xff; 6];

/// A whole frame.
pub fn ethernet(dst: Mac, src: Mac, kind: u16, payload: &[u8]) -> Vec<u8> {
    [&dst, &src, &kind.to_be_bytes()[..], payload].concat()
}

/// The frame with a tag more, outermost.
pub fn tagged(frame: &[u8], tpid: u16, tci: u16) -> Vec<u8> {
    let (macs, rest) = frame.split_at(12);
    [macs, &tpid.to_be_bytes(), &tci.to_be_bytes(), rest].concat()
}

/// An ARP packet.
#[derive(Clone, Copy)]
pub struct Arp {
    pub hardware: u16,
    pub protocol: u16,
    pub lengths: [u8; 2],
    pub op: u16,
    pub sha: Mac,
    pub spa: Ipv4Addr,
    pub tha: Mac,
    pub tpa: Ipv4Addr,
}

impl Arp {
    /// "Who has `tpa`? Tell `spa`."
    pub fn request(sha: Mac, spa: Ipv4Addr, tpa: Ipv4Addr) -> Self {
        Self { hardware: 1, protocol: 0x0800, lengths: [6, 4], op: 1, sha, spa, tha: [0; 6], tpa }
    }

    pub fn bytes(&self) -> Vec<u8> {
        let Self { hardware, protocol, lengths, op, sha, spa, tha, tpa } = self;
        let [hardware, protocol, op] = [hardware, protocol, op].map(|word| word.to_be_bytes());
        [&hardware[..], &protocol, lengths, &op, sha, &spa.octets(), tha, &tpa.octets()].concat()
    }
}

/// An IPv4 packet; lengths and checksum are filled in where they are not given.
#[derive(Clone)]
pub struct V4 {
    pub version_ihl: Option<u8>,
    pub tos: u8,
    pub total: Option<u16>,
    pub id: u16,
    /// Flags and offset as one word.
    pub fragment: u16,
    pub ttl: u8,
    pub protocol: u8,
    pub checksum: Option<u16>,
    pub src: Ipv4Addr,
    pub dst: Ipv4Addr,
    /// Padded to whole words with zeros.
    pub options: Vec<u8>,
    pub payload: Vec<u8>,
}

/// Don't fragment.
pub const DF: u16 = 0x4000;
/// More fragments.
pub const MF: u16 = 0x2000;

impl V4 {
    pub fn new(src: Ipv4Addr, dst: Ipv4Addr, protocol: u8, payload: Vec<u8>) -> Self {
        Self {
            version_ihl: None,
            tos: 0,
            total: None,
            id: 0x1234,
            fragment: 0,
            ttl: 64,
            protocol,
            checksum: None,
            src,
            dst,
            options: Vec::new(),
            payload,
        }
    }

    pub fn bytes(&self) -> Vec<u8> {
        let mut options = self.options.clone();
        options.resize(options.len().next_multiple_of(4), 0);
        let header = 20 + options.len();
        let total = self.total.unwrap_or((header + self.payload.len()) as u16);
        let version_ihl = self.version_ihl.unwrap_or(0x40 | (header / 4) as u8);
        let mut bytes = vec![version_ihl, self.tos];
        for word in [total, self.id, self.fragment] {
            bytes.extend(word.to_be_bytes());
        }
        bytes.extend([self.ttl, self.protocol, 0, 0]);
        bytes.extend(self.src.octets());
        bytes.extend(self.dst.octets());
        bytes.extend(options);
        let checksum = self.checksum.unwrap_or_else(|| sum(&bytes));
        bytes[10..12].copy_from_slice(&checksum.to_be_bytes());
        bytes.extend(&self.payload);
        bytes
    }
}

/// An IPv6 packet.
#[derive(Clone)]
pub struct V6 {
    pub version: u8,
    pub class: u8,
    pub flow: u32,
    pub length: Option<u16>,
    pub next: u8,
    pub hop: u8,
    pub src: Ipv6Addr,
    pub dst: Ipv6Addr,
    /// Extension headers are part of it.
    pub payload: Vec<u8>,
}

impl V6 {
    pub fn new(src: Ipv6Addr, dst: Ipv6Addr, next: u8, payload: Vec<u8>) -> Self {
        Self { version: 6, class: 0, flow: 0, length: None, next, hop: 64, src, dst, payload }
    }

    /// With an extension header in front: its own number, and its bytes, the first of which is filled in.
    pub fn extended(mut self, number: u8, mut header: Vec<u8>) -> Self {
        header[0] = self.next;
        header.extend(&self.payload);
        (self.next, self.payload) = (number, header);
        self
    }

    pub fn bytes(&self) -> Vec<u8> {
        let length = self.length.unwrap_or(self.payload.len() as u16);
        let first = (u32::from(self.version) << 28) | (u32::from(self.class) << 20) | self.flow;
        let mut bytes = first.to_be_bytes().to_vec();
        bytes.extend(length.to_be_bytes());
        bytes.extend([self.next, self.hop]);
        bytes.extend(self.src.octets());
        bytes.extend(self.dst.octets());
        bytes.extend(&self.payload);
        bytes
    }
}

/// An ICMP message.
pub fn icmp4(kind: u8, code: u8, rest: [u8; 4], data: &[u8]) -> Vec<u8> {
    let mut bytes = [&[kind, code, 0, 0], &rest[..], data].concat();
    let checksum = sum(&bytes);
    bytes[2..4].copy_from_slice(&checksum.to_be_bytes());
    bytes
}

/// An ICMPv6 message.
pub fn icmp6(src: Ipv6Addr, dst: Ipv6Addr, kind: u8, code: u8, rest: [u8; 4], data: &[u8]) -> Vec<u8> {
    let mut bytes = [&[kind, code, 0, 0], &rest[..], data].concat();
    let checksum = transport_sum(src.into(), dst.into(), 58, &bytes);
    bytes[2..4].copy_from_slice(&checksum.to_be_bytes());
    bytes
}

/// A UDP datagram.
pub fn udp(src: IpAddr, dst: IpAddr, ports: (u16, u16), data: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for word in [ports.0, ports.1, (8 + data.len()) as u16, 0] {
        bytes.extend(word.to_be_bytes());
    }
    bytes.extend(data);
    let checksum = match transport_sum(src, dst, 17, &bytes) {
        // "If the computed checksum is zero, it is transmitted as all ones" (RFC 768).
        0 => 0xffff,
        other => other,
    };
    bytes[6..8].copy_from_slice(&checksum.to_be_bytes());
    bytes
}

/// A TCP segment.
#[derive(Clone)]
pub struct Tcp {
    pub ports: (u16, u16),
    pub seq: u32,
    pub ack: u32,
    /// Header length in words, where it is not to be right.
    pub offset: Option<u8>,
    pub flags: u8,
    pub window: u16,
    pub urgent: u16,
    /// Padded to whole words with zeros.
    pub options: Vec<u8>,
    pub data: Vec<u8>,
}

pub const FIN: u8 = 0x01;
pub const SYN: u8 = 0x02;
pub const RST: u8 = 0x04;
pub const PSH: u8 = 0x08;
pub const ACK: u8 = 0x10;
pub const URG: u8 = 0x20;
pub const ECE: u8 = 0x40;
pub const CWR: u8 = 0x80;

impl Tcp {
    pub fn new(ports: (u16, u16), flags: u8) -> Self {
        let (options, data) = (Vec::new(), Vec::new());
        Self { ports, seq: 0, ack: 0, offset: None, flags, window: 64_000, urgent: 0, options, data }
    }

    pub fn bytes(&self, src: IpAddr, dst: IpAddr) -> Vec<u8> {
        let mut options = self.options.clone();
        options.resize(options.len().next_multiple_of(4), 0);
        let mut bytes = [self.ports.0.to_be_bytes(), self.ports.1.to_be_bytes()].concat();
        bytes.extend(self.seq.to_be_bytes());
        bytes.extend(self.ack.to_be_bytes());
        bytes.extend([self.offset.unwrap_or(5 + (options.len() / 4) as u8) << 4, self.flags]);
        for word in [self.window, 0, self.urgent] {
            bytes.extend(word.to_be_bytes());
        }
        bytes.extend(options);
        bytes.extend(&self.data);
        let checksum = transport_sum(src, dst, 6, &bytes);
        bytes[16..18].copy_from_slice(&checksum.to_be_bytes());
        bytes
    }
}

/// The timestamps option with two no-operations in front, as every stack sends it (RFC 7323 appendix A).
pub fn timestamps(value: u32, echo: u32) -> Vec<u8> {
    [&[1, 1, 8, 10], &value.to_be_bytes()[..], &echo.to_be_bytes()].concat()
}

/// The internet checksum of `bytes`.
pub fn sum(bytes: &[u8]) -> u16 {
    let words = bytes.chunks(2).map(|pair| {
        let second = pair.get(1).copied().unwrap_or(0);
        u32::from(u16::from_be_bytes([pair[0], second]))
    });
    let mut total: u32 = words.sum();
    while total > 0xffff {
        total = (total & 0xffff) + (total >> 16);
    }
    !(total as u16)
}

/// The checksum of a message over its pseudo-header too.
pub fn transport_sum(src: IpAddr, dst: IpAddr, protocol: u8, message: &[u8]) -> u16 {
    let octets = |address: IpAddr| match address {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    };
    let length = (message.len() as u32).to_be_bytes();
    sum(&[&octets(src)[..], &octets(dst), &length, &[0, 0, 0, protocol], message].concat())
}

//! A segment as custody sees it, and one as it writes it.

use core::net::IpAddr;

use surrogate_wire::checksum::Sum;
use surrogate_wire::emit::{Ethernet, Ipv4Header, Ipv6Header};
use surrogate_wire::tcp_options::sack_block;
use surrogate_wire::{FrameBuf, Packet, Tcp, TcpFlags, TcpOptions, Timestamps, Transport, protocol};

use super::connection::Tuple;
use super::sequence::Seq;

/// A segment that was received or seen.
#[derive(Clone, Copy, Debug)]
pub(super) struct Segment<'a> {
    pub(super) tcp: Tcp<'a>,
    pub(super) options: TcpOptions,
    pub(super) tuple: Tuple,
    /// Type of service or traffic class.
    pub(super) class: u8,
    /// IPv6 flow label.
    pub(super) flow_label: u32,
}

impl<'a> Segment<'a> {
    /// The segment in `packet`, which came `from_guest` or is for it.
    pub(super) fn of(from_guest: bool, packet: &Packet<'a>) -> Option<Self> {
        let (src, dst) = packet.addresses()?;
        let Transport::Tcp(tcp) = packet.transport()? else { return None };
        let (class, flow_label) = match packet {
            Packet::Ipv4(ip, _) => (ip.tos, 0),
            Packet::Ipv6(ip, _) => (ip.traffic_class, ip.flow_label()),
            _ => return None,
        };
        let tuple = if from_guest {
            Tuple { guest: src, guest_port: tcp.src_port, peer: dst, peer_port: tcp.dst_port }
        } else {
            Tuple { guest: dst, guest_port: tcp.dst_port, peer: src, peer_port: tcp.src_port }
        };
        Some(Self { tcp: *tcp, options: TcpOptions::parse(tcp.options), tuple, class, flow_label })
    }

    pub(super) const fn seq(&self) -> Seq {
        Seq(self.tcp.seq)
    }

    pub(super) const fn ack(&self) -> Seq {
        Seq(self.tcp.ack)
    }

    /// What follows its data and controls.
    pub(super) const fn end(&self) -> Seq {
        self.seq().plus(self.tcp.segment_len())
    }

    pub(super) const fn has(&self, flag: TcpFlags) -> bool {
        self.tcp.flags.contains(flag)
    }

    /// An acknowledgement and nothing else: no data, no SYN, FIN, RST or urgent data.
    pub(super) const fn is_bare_ack(&self) -> bool {
        self.asks_little() && self.tcp.payload.is_empty()
    }

    /// An acknowledgement with at most one byte, as a keep-alive is.
    pub(super) const fn asks_little(&self) -> bool {
        const OTHERS: u8 = TcpFlags::SYN.0 | TcpFlags::FIN.0 | TcpFlags::RST.0 | TcpFlags::URG.0;
        self.has(TcpFlags::ACK) && self.tcp.flags.0 & OTHERS == 0 && self.tcp.payload.len() <= 1
    }
}

/// A bare acknowledgement to be written.
#[derive(Clone, Copy, Debug)]
pub(super) struct BareAck {
    pub(super) to: Ethernet,
    pub(super) src: (IpAddr, u16),
    pub(super) dst: (IpAddr, u16),
    pub(super) class: u8,
    pub(super) flow_label: u32,
    pub(super) seq: Seq,
    pub(super) ack: Seq,
    pub(super) window: u16,
    pub(super) timestamps: Option<Timestamps>,
    /// One block of a selective acknowledgement: from, to before.
    pub(super) sack: Option<(Seq, Seq)>,
    /// A byte of no meaning, as keep-alives may have (RFC 9293 3.8.4).
    pub(super) byte: bool,
}

impl BareAck {
    /// Writes the frame: no data but that byte, don't-fragment set, TTL 64, no ECN mark (RFC 3168 6.1.4). `None` if it does
    /// not fit, or its addresses are of two families.
    pub(super) fn write(&self, out: &mut FrameBuf<'_>) -> Option<()> {
        let mut memory = [0; LONGEST];
        let len = self.message(&mut memory)?;
        let message = memory.get_mut(..len)?;
        let class = self.class & !ECN;
        match (self.src.0, self.dst.0) {
            (IpAddr::V4(src), IpAddr::V4(dst)) => {
                seal(message, Sum::pseudo_v4(src, dst, protocol::TCP, len));
                let header = Ipv4Header {
                    src,
                    dst,
                    tos: class,
                    // Never fragmented, so it need not be unique (RFC 6864 4.1).
                    id: 0,
                    dont_fragment: true,
                    ttl: TTL,
                    protocol: protocol::TCP,
                };
                out.ipv4(&self.to, &header, len);
            }
            (IpAddr::V6(src), IpAddr::V6(dst)) => {
                seal(message, Sum::pseudo_v6(src, dst, protocol::TCP, len));
                let header =
                    Ipv6Header { src, dst, traffic_class: class, hop_limit: TTL, protocol: protocol::TCP };
                out.ipv6_of_flow(&self.to, &header, self.flow_label, len);
            }
            _ => return None,
        }
        out.push(message);
        out.finish().map(|_| ())
    }

    /// The TCP header with options and what follows, its checksum zero; says how long it is.
    fn message(&self, memory: &mut [u8; LONGEST]) -> Option<usize> {
        let timestamps = self.timestamps.map(|timestamps| timestamps.emit());
        let sack = self.sack.map(|(from, to)| sack_block(from.0, to.0));
        let options = [timestamps, sack];
        let len = Tcp::HEADER + options.iter().flatten().map(|option| option.len()).sum::<usize>();
        // At most eleven words.
        let offset = (u8::try_from(len / 4).ok()?) << 4;
        let [sp0, sp1] = self.src.1.to_be_bytes();
        let [dp0, dp1] = self.dst.1.to_be_bytes();
        let [s0, s1, s2, s3] = self.seq.0.to_be_bytes();
        let [a0, a1, a2, a3] = self.ack.0.to_be_bytes();
        let [w0, w1] = self.window.to_be_bytes();
        let flags = TcpFlags::ACK.0;
        let fixed = [sp0, sp1, dp0, dp1, s0, s1, s2, s3, a0, a1, a2, a3, offset, flags, w0, w1, 0, 0, 0, 0];
        let (header, mut rest) = memory.split_first_chunk_mut::<{ Tcp::HEADER }>()?;
        *header = fixed;
        for option in options.iter().flatten() {
            let (place, after) = rest.split_at_mut_checked(option.len())?;
            place.copy_from_slice(option);
            rest = after;
        }
        Some(len + usize::from(self.byte))
    }
}

/// Puts the checksum into a message, with `pseudo` of its length.
fn seal(message: &mut [u8], pseudo: Sum) {
    let sum = pseudo.add(message).finish().to_be_bytes();
    if let Some(place) = message.get_mut(16..18) {
        place.copy_from_slice(&sum);
    }
}

/// Time to live and hop limit of what a host sends.
const TTL: u8 = 64;
/// The two bits of explicit congestion notification in a class.
const ECN: u8 = 0x03;
/// Header, timestamps, one block, one byte.
const LONGEST: usize = Tcp::HEADER + 12 + 12 + 1;
/// A whole frame of ours: Ethernet with two tags, IPv6, the longest message.
pub const LONGEST_FRAME: usize = 14 + 8 + 40 + LONGEST;

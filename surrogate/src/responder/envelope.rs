//! The way back: link and network headers of an answer to a unicast packet.
//!
//! Decides whether one may go out at all: only to a single station and a single host, only about a
//! packet that was sent to the guest's own MAC and one of its addresses (RFC 1122 3.2.1.3, 3.3.6).

use core::hash::{BuildHasher as _, Hasher as _};
use core::net::IpAddr;

use surrogate_wire::checksum::Sum;
use surrogate_wire::emit::{Ethernet, Ipv4Header, Ipv6Header};
use surrogate_wire::{Frame, FrameBuf, Packet, Transport, protocol};

use crate::guest::identity::NicIdentity;
use crate::hash::Seeded;

/// Time to live and hop limit of what a host sends.
const TTL: u8 = 64;

/// Everything before the message of an answer.
pub(super) struct Envelope {
    to: Ethernet,
    header: Header,
}

enum Header {
    V4(Ipv4Header),
    /// With its flow label.
    V6(Ipv6Header, u32),
}

impl Envelope {
    /// Back to who sent `packet`, from the address that it was sent to: same tags, same traffic class,
    /// fragments allowed. `None` if no answer may go there.
    #[inline]
    pub(super) fn back(
        identity: &NicIdentity,
        frame: &Frame<'_>,
        packet: &Packet<'_>,
        protocol: u8,
    ) -> Option<Self> {
        let (src, dst) = packet.addresses()?;
        if frame.dst != identity.mac || frame.src == identity.mac || !identity.holds(dst) {
            return None;
        }
        if !is_single_host(identity, src) {
            return None;
        }
        let header = match packet {
            Packet::Ipv4(ip, _) => Header::V4(Ipv4Header {
                src: ip.dst,
                dst: ip.src,
                tos: ip.tos,
                // Unique per asker as far as the asker's own was (RFC 6864 4.3).
                id: ip.id,
                dont_fragment: false,
                ttl: TTL,
                protocol,
            }),
            Packet::Ipv6(ip, _) => {
                let header = Ipv6Header {
                    src: ip.dst,
                    dst: ip.src,
                    traffic_class: ip.traffic_class,
                    hop_limit: TTL,
                    protocol,
                };
                Header::V6(header, flow_label(identity, packet, &header))
            }
            Packet::Arp(_) | Packet::Other(_) | Packet::Llc => return None,
        };
        Some(Self { to: reply_to(identity, frame), header })
    }

    /// With another type of service or traffic class.
    pub(super) fn with_class(mut self, v4: impl Fn(u8) -> u8, v6: impl Fn(u8) -> u8) -> Self {
        match &mut self.header {
            Header::V4(header) => header.tos = v4(header.tos),
            Header::V6(header, _) => header.traffic_class = v6(header.traffic_class),
        }
        self
    }

    /// With don't-fragment set, as IPv6 always has it; then the identification says nothing (RFC 6864 4.1).
    pub(super) fn dont_fragment(mut self) -> Self {
        if let Header::V4(header) = &mut self.header {
            header.dont_fragment = true;
            header.id = 0;
        }
        self
    }

    /// The pseudo-header of a message of `len` bytes.
    #[inline]
    pub(super) fn pseudo(&self, len: usize) -> Sum {
        match &self.header {
            Header::V4(header) => Sum::pseudo_v4(header.src, header.dst, header.protocol, len),
            Header::V6(header, _) => Sum::pseudo_v6(header.src, header.dst, header.protocol, len),
        }
    }

    /// Writes the frame: envelope, `message`, `data`. `None` if it does not fit.
    #[inline]
    pub(super) fn send(&self, message: &[u8], data: &[u8], out: &mut FrameBuf<'_>) -> Option<()> {
        let len = message.len() + data.len();
        match &self.header {
            Header::V4(header) => out.ipv4(&self.to, header, len),
            Header::V6(header, flow_label) => out.ipv6_of_flow(&self.to, header, *flow_label, len),
        }
        out.push(message);
        out.push(data);
        out.finish().map(|_| ())
    }
}

/// The label of the flow that an answer belongs to: the same for all of it, another for each, never zero (RFC 6437 3).
/// It is not the one that the guest itself would take, which is made of a secret of its own.
fn flow_label(identity: &NicIdentity, packet: &Packet<'_>, header: &Ipv6Header) -> u32 {
    let ports = match packet.transport() {
        Some(Transport::Tcp(tcp)) if header.protocol == protocol::TCP => (tcp.dst_port, tcp.src_port),
        Some(Transport::Udp(udp)) if header.protocol == protocol::UDP => (udp.dst_port, udp.src_port),
        _ => (0, 0),
    };
    let mut hasher = FLOWS.build_hasher();
    hasher.write(&identity.mac.0);
    hasher.write_u128(header.src.to_bits());
    hasher.write_u128(header.dst.to_bits());
    hasher.write_u32(u32::from(ports.0) << 16 | u32::from(ports.1));
    hasher.write_u8(header.protocol);
    // The upper half is mixed best.
    ((hasher.finish() >> 32) as u32 & 0xf_ffff).max(1)
}

/// Nobody gains from knowing a label.
const FLOWS: Seeded = Seeded::new(0);

/// Back to the station that `frame` came from, on the same tags.
#[inline]
pub(super) fn reply_to(identity: &NicIdentity, frame: &Frame<'_>) -> Ethernet {
    Ethernet { dst: frame.src, src: identity.mac, tags: frame.tags }
}

/// Whether `src` is one host, and another one than the guest.
#[inline]
pub(super) fn is_single_host(identity: &NicIdentity, src: IpAddr) -> bool {
    let single = match src {
        IpAddr::V4(src) => !src.is_unspecified() && !identity.is_broadcast(src),
        IpAddr::V6(src) => !src.is_unspecified(),
    };
    single && !identity.holds(src)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use surrogate_wire::{Packet, TcpFlags};

    use crate::responder::tcp_reset;
    use crate::responder::testing::{answer, guest, read, tcp_v6};

    fn label(seq: u32, port: u16) -> u32 {
        let mut asked = tcp_v6(seq, 0, TcpFlags::SYN, &[]);
        // Another source port, and the checksum that goes with it.
        let (at, sum) = (54, 54 + 16);
        let before = u16::from_be_bytes([asked[at], asked[at + 1]]);
        asked[at..at + 2].copy_from_slice(&port.to_be_bytes());
        let old = u16::from_be_bytes([asked[sum], asked[sum + 1]]);
        let new = surrogate_wire::checksum::update(old, before, port);
        asked[sum..sum + 2].copy_from_slice(&new.to_be_bytes());
        let (_, reply) = answer(tcp_reset::reply_for, &guest(), &asked).expect("a reset");
        let (_, Packet::Ipv6(ip, _)) = read(&reply) else { panic!("{reply:x?}") };
        ip.flow_label()
    }

    #[test]
    fn each_flow_has_a_label_of_its_own_and_keeps_it() {
        let labels: BTreeSet<u32> = (1..=1_000).map(|port| label(1, port)).collect();
        assert!(labels.len() > 990 && !labels.contains(&0), "{}", labels.len());
        assert_eq!(label(1, 7), label(2, 7));
    }
}

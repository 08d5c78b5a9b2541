//! The way back: link and network headers of an answer to a unicast packet.
//!
//! Decides whether one may go out at all: only to a single station and a single host, only about a
//! packet that was sent to the guest's own MAC and one of its addresses (RFC 1122 3.2.1.3, 3.3.6).

use core::net::IpAddr;

use surrogate_wire::checksum::Sum;
use surrogate_wire::emit::{Ethernet, Ipv4Header, Ipv6Header};
use surrogate_wire::{Frame, FrameBuf, Packet};

use crate::guest::identity::NicIdentity;

/// Time to live and hop limit of what a host sends.
const TTL: u8 = 64;

/// Everything before the message of an answer.
pub(super) struct Envelope {
    to: Ethernet,
    header: Header,
}

enum Header {
    V4(Ipv4Header),
    V6(Ipv6Header),
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
            Packet::Ipv6(ip, _) => Header::V6(Ipv6Header {
                src: ip.dst,
                dst: ip.src,
                traffic_class: ip.traffic_class,
                hop_limit: TTL,
                protocol,
            }),
            Packet::Arp(_) | Packet::Other(_) | Packet::Llc => return None,
        };
        Some(Self { to: reply_to(identity, frame), header })
    }

    /// With another type of service or traffic class.
    pub(super) fn with_class(mut self, v4: impl Fn(u8) -> u8, v6: impl Fn(u8) -> u8) -> Self {
        match &mut self.header {
            Header::V4(header) => header.tos = v4(header.tos),
            Header::V6(header) => header.traffic_class = v6(header.traffic_class),
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
            Header::V6(header) => Sum::pseudo_v6(header.src, header.dst, header.protocol, len),
        }
    }

    /// Writes the frame: envelope, `message`, `data`. `None` if it does not fit.
    #[inline]
    pub(super) fn send(&self, message: &[u8], data: &[u8], out: &mut FrameBuf<'_>) -> Option<()> {
        let len = message.len() + data.len();
        match &self.header {
            Header::V4(header) => out.ipv4(&self.to, header, len),
            Header::V6(header) => out.ipv6(&self.to, header, len),
        }
        out.push(message);
        out.push(data);
        out.finish().map(|_| ())
    }
}

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

//! What a frame says, in terms that all three share.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use surrogate_wire::{Frame, Icmpv6Body, Mac, Malformed, Offload, Packet, Received, TcpFlags, Transport};

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Reading {
    Arp { op: u16, sha: Mac, spa: Ipv4Addr, tha: Mac, tpa: Ipv4Addr },
    Ip { src: IpAddr, dst: IpAddr, hops: u8, upper: Upper },
    Other(u16),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Upper {
    Tcp {
        ports: (u16, u16),
        seq: u32,
        ack: u32,
        flags: u8,
        window: u16,
        options: Vec<u8>,
        data: Vec<u8>,
    },
    Udp {
        ports: (u16, u16),
        data: Vec<u8>,
    },
    Echo {
        identifier: u16,
        sequence: u16,
        data: Vec<u8>,
    },
    Solicitation {
        target: Ipv6Addr,
        source: Option<Mac>,
    },
    Advertisement {
        target: Ipv6Addr,
        flags: u8,
        mac: Option<Mac>,
    },
    /// Fragments, and what only one of the three reads.
    Unread,
}

/// What a peer thinks of a frame.
#[derive(Debug)]
pub(crate) enum Opinion {
    Reads(Reading),
    Refuses,
    /// It does not look that far.
    None,
}

/// Whether neighbour discovery options fill `bytes` exactly, which neither peer's view judges as a whole.
pub(crate) fn options_fill(bytes: &[u8]) -> bool {
    match *bytes {
        [] => true,
        [_, words, ..] if words > 0 => bytes.get(usize::from(words) * 8..).is_some_and(options_fill),
        _ => false,
    }
}

pub(crate) fn ours(frame: &[u8]) -> Result<Reading, Malformed> {
    let frame = Frame::parse(&Received::plain(frame))?;
    let (src, dst, hops, transport) = match Packet::parse(&frame, Offload::None)? {
        Packet::Arp(arp) => {
            let surrogate_wire::Arp { op, sha, spa, tha, tpa } = arp;
            return Ok(Reading::Arp { op, sha, spa, tha, tpa });
        }
        Packet::Ipv4(ip, transport) => (ip.src.into(), ip.dst.into(), ip.ttl, transport),
        Packet::Ipv6(ip, transport) => (ip.src.into(), ip.dst.into(), ip.hop_limit, transport),
        Packet::Other(kind) => return Ok(Reading::Other(kind)),
        Packet::Llc => return Ok(Reading::Other(frame.ethertype)),
    };
    let echo = |echo: surrogate_wire::Echo<'_>| Upper::Echo {
        identifier: echo.identifier,
        sequence: echo.sequence,
        data: echo.data.to_vec(),
    };
    let upper = match transport {
        Transport::Tcp(tcp) => Upper::Tcp {
            ports: (tcp.src_port, tcp.dst_port),
            seq: tcp.seq,
            ack: if tcp.flags.contains(TcpFlags::ACK) { tcp.ack } else { 0 },
            flags: tcp.flags.0,
            window: tcp.window,
            options: tcp.options.to_vec(),
            data: tcp.payload.to_vec(),
        },
        Transport::Udp(udp) => Upper::Udp { ports: (udp.src_port, udp.dst_port), data: udp.payload.to_vec() },
        Transport::Icmpv4(icmp) => icmp.echo_request().map_or(Upper::Unread, echo),
        Transport::Icmpv6(icmp) => match icmp.body {
            Icmpv6Body::EchoRequest(request) => echo(request),
            Icmpv6Body::Solicitation(s) => {
                Upper::Solicitation { target: s.target, source: s.source_link_layer }
            }
            Icmpv6Body::Advertisement(a) => Upper::Advertisement {
                target: a.target,
                flags: u8::from(a.router) << 7 | u8::from(a.solicited) << 6 | u8::from(a.overriding) << 5,
                mac: a.target_link_layer,
            },
            Icmpv6Body::Other => Upper::Unread,
        },
        Transport::Fragment { .. } | Transport::Other(_) => Upper::Unread,
    };
    Ok(Reading::Ip { src, dst, hops, upper })
}

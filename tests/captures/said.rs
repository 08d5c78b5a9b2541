//! Questions and answers of ARP, neighbour discovery, echo and closed ports, read with a parser that is not
//! ours.

use std::net::IpAddr;

use smoltcp::wire::{
    ArpOperation, ArpPacket, ArpRepr, EthernetProtocol, Icmpv4Message, Icmpv4Packet, Icmpv6Message,
    Icmpv6Packet, IpProtocol, Ipv4Packet, Ipv6Packet, NdiscNeighborFlags, NdiscRepr, TcpPacket, UdpPacket,
};
use surrogate_wire::Mac;

use crate::mac_at;

/// How a frame is addressed: destination, source, and its tags as they stand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Envelope {
    pub dst: Mac,
    pub src: Mac,
    pub tags: Vec<u8>,
}

/// What a question is about; an answer to it is about the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum About {
    /// Who has `address`, for `asker` (zero in a probe).
    Arp { address: IpAddr, asker: IpAddr },
    /// Who has `target`, told to `to`.
    Neighbour { target: IpAddr, to: IpAddr },
    /// Echo between them.
    Echo { host: IpAddr, peer: IpAddr, identifier: u16, sequence: u16 },
    /// A SYN from `peer`; `ack` acknowledges it.
    Syn { host: End, peer: End, ack: u32 },
    /// A UDP datagram from `peer`.
    Datagram { host: End, peer: End },
}

/// Address and port.
pub type End = (IpAddr, u16);

/// A question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    pub about: About,
    /// To the host's own MAC.
    pub unicast: bool,
    /// ARP with the host's own MAC as its sender, from another station.
    pub forged: bool,
}

/// An answer, with all that must be as the real host's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Said {
    pub about: About,
    pub envelope: Envelope,
    pub what: What,
}

/// What only answers of a kind have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    Arp { sha: Mac, tha: Mac },
    Advertisement { from: IpAddr, router: bool, solicited: bool, overrides: bool, link_layer: Option<Mac> },
    Echo { data: Vec<u8> },
    UdpEcho { data: Vec<u8> },
    Reset { seq: u32, window: u16, payload: usize },
    PortUnreachable { quote: Vec<u8> },
}

/// The frame taken apart: addressing, type, payload.
pub fn split(bytes: &[u8]) -> Option<(Envelope, EthernetProtocol, &[u8])> {
    let (dst, src) = (mac_at(bytes, 0)?, mac_at(bytes, 6)?);
    let mut at = 12;
    while matches!(bytes.get(at..at + 2)?, [0x81, 0x00] | [0x88, 0xa8]) && at < 20 {
        at += 4;
    }
    let kind = u16::from_be_bytes(bytes.get(at..at + 2)?.try_into().unwrap());
    let envelope = Envelope { dst, src, tags: bytes[12..at].to_vec() };
    Some((envelope, kind.into(), &bytes[at + 2..]))
}

/// The question to `host` in a frame; none if the frame is for another station's MAC.
pub fn asked(bytes: &[u8], host: Mac) -> Option<Asked> {
    let (envelope, kind, payload) = split(bytes)?;
    let for_groups = kind == EthernetProtocol::Ipv6 && !envelope.dst.is_unicast();
    if envelope.dst != host && envelope.dst != Mac::BROADCAST && !for_groups {
        return None;
    }
    let mut forged = false;
    let about = match kind {
        EthernetProtocol::Arp => match arp(payload)? {
            (ArpOperation::Request, sha, spa, _, tpa) => {
                forged = sha == host;
                About::Arp { address: tpa, asker: spa }
            }
            _ => return None,
        },
        EthernetProtocol::Ipv4 => asked_over_ipv4(payload)?,
        EthernetProtocol::Ipv6 => {
            let (src, dst, icmp) = icmpv6(payload)?;
            match icmp.msg_type() {
                Icmpv6Message::EchoRequest => echo(dst, src, icmp.echo_ident(), icmp.echo_seq_no()),
                Icmpv6Message::NeighborSolicit => {
                    let NdiscRepr::NeighborSolicit { target_addr, .. } = NdiscRepr::parse(&icmp).ok()? else {
                        return None;
                    };
                    let all_nodes = IpAddr::from([0xff02, 0, 0, 0, 0, 0, 0, 1]);
                    let to = if src.is_unspecified() { all_nodes } else { src };
                    About::Neighbour { target: target_addr.into(), to }
                }
                _ => return None,
            }
        }
        _ => return None,
    };
    Some(Asked { about, unicast: envelope.dst.is_unicast(), forged })
}

/// The answer in a frame; none if it contradicts itself, as frames do that were damaged on their way
/// into the capture.
pub fn said(bytes: &[u8]) -> Option<Said> {
    let (envelope, kind, payload) = split(bytes)?;
    let (about, what) = match kind {
        EthernetProtocol::Arp => match arp(payload)? {
            (ArpOperation::Reply, _, _, tha, _) if envelope.dst.is_unicast() && envelope.dst != tha => {
                return None;
            }
            (ArpOperation::Reply, sha, spa, tha, tpa) => {
                (About::Arp { address: spa, asker: tpa }, What::Arp { sha, tha })
            }
            _ => return None,
        },
        EthernetProtocol::Ipv4 => said_over_ipv4(payload)?,
        EthernetProtocol::Ipv6 => {
            let (src, dst, icmp) = icmpv6(payload)?;
            match icmp.msg_type() {
                Icmpv6Message::EchoReply => {
                    let about = echo(src, dst, icmp.echo_ident(), icmp.echo_seq_no());
                    (about, What::Echo { data: icmp.payload().to_vec() })
                }
                Icmpv6Message::NeighborAdvert => advertisement(src, dst, &icmp)?,
                _ => return None,
            }
        }
        _ => return None,
    };
    Some(Said { about, envelope, what })
}

fn asked_over_ipv4(payload: &[u8]) -> Option<About> {
    Some(match over_ipv4(payload)? {
        (src, dst, OverIpv4::Icmp(icmp)) => match (icmp.msg_type(), icmp.msg_code()) {
            (Icmpv4Message::EchoRequest, 0) => echo(dst, src, icmp.echo_ident(), icmp.echo_seq_no()),
            _ => return None,
        },
        (src, dst, OverIpv4::Tcp(tcp)) if tcp.syn() && !tcp.ack() => {
            let ack = tcp.seq_number() + 1 + tcp.payload().len();
            About::Syn {
                host: (dst, tcp.dst_port()),
                peer: (src, tcp.src_port()),
                ack: ack.0.cast_unsigned(),
            }
        }
        (src, dst, OverIpv4::Udp(udp)) => {
            About::Datagram { host: (dst, udp.dst_port()), peer: (src, udp.src_port()) }
        }
        _ => return None,
    })
}

fn said_over_ipv4(payload: &[u8]) -> Option<(About, What)> {
    Some(match over_ipv4(payload)? {
        (src, dst, OverIpv4::Icmp(icmp)) => match (icmp.msg_type(), icmp.msg_code()) {
            (Icmpv4Message::EchoReply, _) => {
                let about = echo(src, dst, icmp.echo_ident(), icmp.echo_seq_no());
                (about, What::Echo { data: icmp.data().to_vec() })
            }
            (Icmpv4Message::DstUnreachable, PORT_UNREACHABLE) => {
                let quote = icmp.data();
                let about = asked_over_ipv4(quote)?;
                // A port that somebody else says is closed.
                let own = matches!(about, About::Datagram { host, peer } if (host.0, peer.0) == (src, dst));
                own.then_some((about, What::PortUnreachable { quote: quote.to_vec() }))?
            }
            _ => return None,
        },
        // Number zero: it refuses a SYN (RFC 9293 3.10.7.1).
        (src, dst, OverIpv4::Tcp(tcp)) if tcp.rst() && tcp.ack() && tcp.seq_number().0 == 0 => {
            let ack = tcp.ack_number().0.cast_unsigned();
            let about = About::Syn { host: (src, tcp.src_port()), peer: (dst, tcp.dst_port()), ack };
            (about, What::Reset { seq: 0, window: tcp.window_len(), payload: tcp.payload().len() })
        }
        (src, dst, OverIpv4::Udp(udp)) if udp.src_port() == ECHO => {
            let about = About::Datagram { host: (src, ECHO), peer: (dst, udp.dst_port()) };
            (about, What::UdpEcho { data: udp.payload().to_vec() })
        }
        _ => return None,
    })
}

/// The port that the sender of a frame serves: it accepts a connection there, or sent a datagram from it.
pub fn served(bytes: &[u8]) -> Option<Port> {
    let (_, EthernetProtocol::Ipv4, payload) = split(bytes)? else { return None };
    match over_ipv4(payload)? {
        (_, _, OverIpv4::Tcp(tcp)) if tcp.syn() && tcp.ack() => Some(Port::Tcp(tcp.src_port())),
        (_, _, OverIpv4::Udp(udp)) => Some(Port::Udp(udp.src_port())),
        _ => None,
    }
}

/// A port of a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Port {
    Tcp(u16),
    Udp(u16),
}

/// ICMP code of an unreachable (RFC 792).
const PORT_UNREACHABLE: u8 = 3;
/// The port of UDP echo (RFC 862).
const ECHO: u16 = 7;

fn advertisement(src: IpAddr, dst: IpAddr, icmp: &Icmpv6Packet<&[u8]>) -> Option<(About, What)> {
    let NdiscRepr::NeighborAdvert { flags, target_addr, lladdr } = NdiscRepr::parse(icmp).ok()? else {
        return None;
    };
    let about = About::Neighbour { target: target_addr.into(), to: dst };
    let what = What::Advertisement {
        from: src,
        router: flags.contains(NdiscNeighborFlags::ROUTER),
        solicited: flags.contains(NdiscNeighborFlags::SOLICITED),
        overrides: flags.contains(NdiscNeighborFlags::OVERRIDE),
        link_layer: lladdr.and_then(|address| mac_at(address.as_bytes(), 0)),
    };
    Some((about, what))
}

fn echo(host: IpAddr, peer: IpAddr, identifier: u16, sequence: u16) -> About {
    About::Echo { host, peer, identifier, sequence }
}

fn arp(payload: &[u8]) -> Option<(ArpOperation, Mac, IpAddr, Mac, IpAddr)> {
    let ArpRepr::EthernetIpv4 {
        operation,
        source_hardware_addr: sha,
        source_protocol_addr: spa,
        target_hardware_addr: tha,
        target_protocol_addr: tpa,
    } = ArpRepr::parse(&ArpPacket::new_checked(payload).ok()?).ok()?
    else {
        return None;
    };
    Some((operation, Mac(sha.0), spa.into(), Mac(tha.0), tpa.into()))
}

/// What is in an IPv4 packet that is no fragment.
enum OverIpv4<'a> {
    Icmp(Icmpv4Packet<&'a [u8]>),
    Tcp(TcpPacket<&'a [u8]>),
    Udp(UdpPacket<&'a [u8]>),
}

fn over_ipv4(payload: &[u8]) -> Option<(IpAddr, IpAddr, OverIpv4<'_>)> {
    let ip = Ipv4Packet::new_checked(payload).ok()?;
    if ip.frag_offset() != 0 || ip.more_frags() {
        return None;
    }
    let inside = part(payload, &ip);
    let inside = match ip.next_header() {
        IpProtocol::Icmp => OverIpv4::Icmp(Icmpv4Packet::new_checked(inside).ok()?),
        IpProtocol::Tcp => OverIpv4::Tcp(TcpPacket::new_checked(inside).ok()?),
        IpProtocol::Udp => OverIpv4::Udp(UdpPacket::new_checked(inside).ok()?),
        _ => return None,
    };
    Some((ip.src_addr().into(), ip.dst_addr().into(), inside))
}

/// The payload at the length of the packet, borrowed from the frame.
fn part<'a>(payload: &'a [u8], ip: &Ipv4Packet<&[u8]>) -> &'a [u8] {
    &payload[usize::from(ip.header_len())..usize::from(ip.total_len())]
}

fn icmpv6(payload: &[u8]) -> Option<(IpAddr, IpAddr, Icmpv6Packet<&[u8]>)> {
    let ip = Ipv6Packet::new_checked(payload).ok()?;
    if ip.next_header() != IpProtocol::Icmpv6 {
        return None;
    }
    let (src, dst) = (ip.src_addr(), ip.dst_addr());
    Some((src.into(), dst.into(), Icmpv6Packet::new_checked(&payload[40..ip.total_len()]).ok()?))
}

//! pnet's reading: unchecked views and the checksum that it would have sent. It never refuses for a
//! length, so it has an opinion only where lengths agree.

use std::net::IpAddr;

use pnet::packet::Packet as _;
use pnet::packet::arp::ArpPacket;
use pnet::packet::ethernet::{EtherTypes, EthernetPacket};
use pnet::packet::icmp::IcmpPacket;
use pnet::packet::icmp::echo_request::EchoRequestPacket;
use pnet::packet::icmpv6::Icmpv6Packet;
use pnet::packet::ip::{IpNextHeaderProtocol, IpNextHeaderProtocols};
use pnet::packet::ipv4::Ipv4Packet;
use pnet::packet::ipv6::Ipv6Packet;
use pnet::packet::tcp::TcpPacket;
use pnet::packet::udp::UdpPacket;
use surrogate_wire::Mac;

use crate::reading::{Opinion, Reading, Upper, options_fill};

pub(crate) fn opinion(frame: &[u8]) -> Opinion {
    let Some(frame) = EthernetPacket::new(frame) else { return Opinion::Refuses };
    match frame.get_ethertype() {
        EtherTypes::Arp => arp(frame.payload()),
        EtherTypes::Ipv4 => v4(frame.payload()),
        EtherTypes::Ipv6 => v6(frame.payload()),
        _ => Opinion::None,
    }
}

fn arp(bytes: &[u8]) -> Opinion {
    let Some(arp) = ArpPacket::new(bytes) else { return Opinion::Refuses };
    if arp.get_hardware_type().0 != 1
        || arp.get_protocol_type() != EtherTypes::Ipv4
        || (arp.get_hw_addr_len(), arp.get_proto_addr_len()) != (6, 4)
    {
        return Opinion::Refuses;
    }
    Opinion::Reads(Reading::Arp {
        op: arp.get_operation().0,
        sha: Mac(arp.get_sender_hw_addr().octets()),
        spa: arp.get_sender_proto_addr(),
        tha: Mac(arp.get_target_hw_addr().octets()),
        tpa: arp.get_target_proto_addr(),
    })
}

fn v4(bytes: &[u8]) -> Opinion {
    let Some(ip) = Ipv4Packet::new(bytes) else { return Opinion::Refuses };
    let header = usize::from(ip.get_header_length()) * 4;
    let total = usize::from(ip.get_total_length());
    if ip.get_version() != 4 || header < 20 || total < header || total > bytes.len() {
        return Opinion::Refuses;
    }
    if pnet::packet::util::checksum(&bytes[..header], 5) != ip.get_checksum() {
        return Opinion::Refuses;
    }
    let (src, dst) = (ip.get_source(), ip.get_destination());
    // Bit 0 of the flags as it numbers them: more fragments.
    let part = ip.get_flags() & 1 != 0 || ip.get_fragment_offset() != 0;
    let upper = if part {
        Some(Upper::Unread)
    } else {
        upper(ip.get_next_level_protocol(), src.into(), dst.into(), &bytes[header..total])
    };
    said(src.into(), dst.into(), ip.get_ttl(), upper)
}

fn v6(bytes: &[u8]) -> Opinion {
    let Some(ip) = Ipv6Packet::new(bytes) else { return Opinion::Refuses };
    let total = 40 + usize::from(ip.get_payload_length());
    if ip.get_version() != 6 || total > bytes.len() {
        return Opinion::Refuses;
    }
    let (src, dst) = (ip.get_source(), ip.get_destination());
    let upper = match ip.get_next_header() {
        IpNextHeaderProtocols::Hopopt
        | IpNextHeaderProtocols::Ipv6Route
        | IpNextHeaderProtocols::Ipv6Frag
        | IpNextHeaderProtocols::Ipv6Opts => return Opinion::None,
        // Router messages and redirects: we judge their options, it does not.
        IpNextHeaderProtocols::Icmpv6 if matches!(bytes.get(40), Some(133 | 134 | 137)) => {
            return Opinion::None;
        }
        protocol => upper(protocol, src.into(), dst.into(), &bytes[40..total]),
    };
    said(src.into(), dst.into(), ip.get_hop_limit(), upper)
}

fn said(src: IpAddr, dst: IpAddr, hops: u8, upper: Option<Upper>) -> Opinion {
    match upper {
        Some(upper) => Opinion::Reads(Reading::Ip { src, dst, hops, upper }),
        None => Opinion::Refuses,
    }
}

/// `None`: too short, or the checksum is another.
fn upper(protocol: IpNextHeaderProtocol, src: IpAddr, dst: IpAddr, bytes: &[u8]) -> Option<Upper> {
    match protocol {
        IpNextHeaderProtocols::Tcp => {
            let tcp = TcpPacket::new(bytes)?;
            let header = usize::from(tcp.get_data_offset()) * 4;
            let right = match (src, dst) {
                (IpAddr::V4(src), IpAddr::V4(dst)) => pnet::packet::tcp::ipv4_checksum(&tcp, &src, &dst),
                (IpAddr::V6(src), IpAddr::V6(dst)) => pnet::packet::tcp::ipv6_checksum(&tcp, &src, &dst),
                _ => return None,
            };
            if header < 20 || header > bytes.len() || !same(right, tcp.get_checksum()) {
                return None;
            }
            Some(Upper::Tcp {
                ports: (tcp.get_source(), tcp.get_destination()),
                seq: tcp.get_sequence(),
                ack: if tcp.get_flags() & 0x10 != 0 { tcp.get_acknowledgement() } else { 0 },
                flags: tcp.get_flags(),
                window: tcp.get_window(),
                options: bytes[20..header].to_vec(),
                data: bytes[header..].to_vec(),
            })
        }
        IpNextHeaderProtocols::Udp => {
            let len = usize::from(UdpPacket::new(bytes)?.get_length());
            let udp = UdpPacket::new(bytes.get(..len)?)?;
            let right = match (src, dst) {
                (IpAddr::V4(_), _) if udp.get_checksum() == 0 => 0,
                (IpAddr::V4(src), IpAddr::V4(dst)) => pnet::packet::udp::ipv4_checksum(&udp, &src, &dst),
                (IpAddr::V6(_), _) if udp.get_checksum() == 0 => return None,
                (IpAddr::V6(src), IpAddr::V6(dst)) => pnet::packet::udp::ipv6_checksum(&udp, &src, &dst),
                _ => return None,
            };
            same(right, udp.get_checksum()).then(|| Upper::Udp {
                ports: (udp.get_source(), udp.get_destination()),
                data: udp.packet()[8..].to_vec(),
            })
        }
        IpNextHeaderProtocols::Icmp if src.is_ipv4() => {
            let icmp = EchoRequestPacket::new(bytes)?;
            let right = pnet::packet::icmp::checksum(&IcmpPacket::new(bytes)?);
            if !same(right, icmp.get_checksum()) {
                return None;
            }
            Some(match (icmp.get_icmp_type().0, icmp.get_icmp_code().0) {
                (8, _) => Upper::Echo {
                    identifier: icmp.get_identifier(),
                    sequence: icmp.get_sequence_number(),
                    data: bytes[8..].to_vec(),
                },
                _ => Upper::Unread,
            })
        }
        IpNextHeaderProtocols::Icmpv6 => icmpv6(src, dst, bytes),
        _ => Some(Upper::Unread),
    }
}

fn icmpv6(src: IpAddr, dst: IpAddr, bytes: &[u8]) -> Option<Upper> {
    use pnet::packet::icmpv6::ndp::{NdpOptionTypes, NeighborAdvertPacket, NeighborSolicitPacket};
    let icmp = Icmpv6Packet::new(bytes)?;
    let (IpAddr::V6(src), IpAddr::V6(dst)) = (src, dst) else { return Some(Upper::Unread) };
    if !same(pnet::packet::icmpv6::checksum(&icmp, &src, &dst), icmp.get_checksum()) {
        return None;
    }
    if matches!(bytes.first(), Some(135 | 136)) && !bytes.get(24..).is_some_and(options_fill) {
        return None;
    }
    let mac = |data: &[u8]| data.first_chunk().map(|mac| Mac(*mac));
    Some(match (icmp.get_icmpv6_type().0, icmp.get_icmpv6_code().0) {
        (128, _) => Upper::Echo {
            identifier: u16::from_be_bytes(*bytes.get(4..)?.first_chunk()?),
            sequence: u16::from_be_bytes(*bytes.get(6..)?.first_chunk()?),
            data: bytes[8..].to_vec(),
        },
        (135, 0) => {
            let options = NeighborSolicitPacket::new(bytes)?.get_options();
            let source = options.iter().find(|o| o.option_type == NdpOptionTypes::SourceLLAddr);
            Upper::Solicitation {
                target: NeighborSolicitPacket::new(bytes)?.get_target_addr(),
                source: source.and_then(|o| mac(&o.data)),
            }
        }
        (136, 0) => {
            let advertisement = NeighborAdvertPacket::new(bytes)?;
            let options = advertisement.get_options();
            let target = options.iter().find(|o| o.option_type == NdpOptionTypes::TargetLLAddr);
            Upper::Advertisement {
                target: advertisement.get_target_addr(),
                flags: advertisement.get_flags() & 0xe0,
                mac: target.and_then(|o| mac(&o.data)),
            }
        }
        _ => Upper::Unread,
    })
}

/// The two zeros of one's complement are the same sum.
fn same(right: u16, field: u16) -> bool {
    right == field || (right == 0 && field == 0xffff)
}

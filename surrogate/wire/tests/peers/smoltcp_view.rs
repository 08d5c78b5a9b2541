//! smoltcp's reading: checked packets, checksums verified.

use smoltcp::wire::{
    ArpPacket, EthernetFrame, EthernetProtocol, Icmpv4Message, Icmpv4Packet, Icmpv6Message, Icmpv6Packet,
    IpAddress, IpProtocol, Ipv4Packet, Ipv6Packet, NdiscOption, NdiscOptionType, TcpPacket, UdpPacket,
};
use surrogate_wire::Mac;

use crate::reading::{Opinion, Reading, Upper, options_fill};

pub(crate) fn opinion(frame: &[u8]) -> Opinion {
    let Ok(frame) = EthernetFrame::new_checked(frame) else { return Opinion::Refuses };
    let read = match frame.ethertype() {
        EthernetProtocol::Arp => arp(frame.payload()),
        EthernetProtocol::Ipv4 => v4(frame.payload()),
        EthernetProtocol::Ipv6 => v6(frame.payload()),
        EthernetProtocol::Unknown(_) => return Opinion::None,
    };
    match read {
        Ok(Some(reading)) => Opinion::Reads(reading),
        Ok(None) => Opinion::None,
        Err(_) => Opinion::Refuses,
    }
}

type Read<T> = Result<Option<T>, smoltcp::wire::Error>;

fn arp(bytes: &[u8]) -> Read<Reading> {
    let arp = ArpPacket::new_checked(bytes)?;
    // It leaves these to its value layer.
    if bytes.get(..6) != Some(&[0, 1, 8, 0, 6, 4]) {
        return Err(smoltcp::wire::Error);
    }
    let mac = |bytes: &[u8]| Mac(*bytes.first_chunk().expect("checked"));
    let ip = |bytes: &[u8]| (*bytes.first_chunk::<4>().expect("checked")).into();
    Ok(Some(Reading::Arp {
        op: arp.operation().into(),
        sha: mac(arp.source_hardware_addr()),
        spa: ip(arp.source_protocol_addr()),
        tha: mac(arp.target_hardware_addr()),
        tpa: ip(arp.target_protocol_addr()),
    }))
}

fn v4(bytes: &[u8]) -> Read<Reading> {
    let ip = Ipv4Packet::new_checked(bytes)?;
    if ip.version() != 4 || !ip.verify_checksum() {
        return Err(smoltcp::wire::Error);
    }
    let (src, dst) = (ip.src_addr(), ip.dst_addr());
    let upper = if ip.more_frags() || ip.frag_offset() != 0 {
        Some(Upper::Unread)
    } else {
        match ip.next_header() {
            IpProtocol::Icmp => icmpv4(ip.payload())?,
            other => transport(other, src.into(), dst.into(), ip.payload())?,
        }
    };
    Ok(upper.map(|upper| Reading::Ip { src: src.into(), dst: dst.into(), hops: ip.hop_limit(), upper }))
}

fn v6(bytes: &[u8]) -> Read<Reading> {
    let ip = Ipv6Packet::new_checked(bytes)?;
    if ip.version() != 6 {
        return Err(smoltcp::wire::Error);
    }
    let (src, dst) = (ip.src_addr(), ip.dst_addr());
    let upper = match ip.next_header() {
        // Its walk over extension headers is not bounded as ours is.
        IpProtocol::HopByHop | IpProtocol::Ipv6Route | IpProtocol::Ipv6Frag | IpProtocol::Ipv6Opts => None,
        IpProtocol::Icmpv6 => icmpv6(src, dst, ip.payload())?,
        // It takes a datagram without checksum over IPv6 too.
        IpProtocol::Udp if ip.payload().get(6..8) == Some(&[0, 0]) => None,
        other => transport(other, src.into(), dst.into(), ip.payload())?,
    };
    Ok(upper.map(|upper| Reading::Ip { src: src.into(), dst: dst.into(), hops: ip.hop_limit(), upper }))
}

fn transport(protocol: IpProtocol, src: IpAddress, dst: IpAddress, bytes: &[u8]) -> Read<Upper> {
    match protocol {
        IpProtocol::Tcp => {
            let tcp = TcpPacket::new_checked(bytes)?;
            if !tcp.verify_checksum(&src, &dst) {
                return Err(smoltcp::wire::Error);
            }
            Ok(Some(Upper::Tcp {
                ports: (tcp.src_port(), tcp.dst_port()),
                seq: tcp.seq_number().0.cast_unsigned(),
                ack: if tcp.ack() { tcp.ack_number().0.cast_unsigned() } else { 0 },
                flags: bytes[13],
                window: tcp.window_len(),
                options: tcp.options().to_vec(),
                data: tcp.payload().to_vec(),
            }))
        }
        IpProtocol::Udp => {
            let udp = UdpPacket::new_checked(bytes)?;
            if !udp.verify_checksum(&src, &dst) {
                return Err(smoltcp::wire::Error);
            }
            Ok(Some(Upper::Udp { ports: (udp.src_port(), udp.dst_port()), data: udp.payload().to_vec() }))
        }
        _ => Ok(Some(Upper::Unread)),
    }
}

fn icmpv4(bytes: &[u8]) -> Read<Upper> {
    let icmp = Icmpv4Packet::new_checked(bytes)?;
    if !icmp.verify_checksum() {
        return Err(smoltcp::wire::Error);
    }
    Ok(Some(match (icmp.msg_type(), icmp.msg_code()) {
        (Icmpv4Message::EchoRequest, _) => Upper::Echo {
            identifier: icmp.echo_ident(),
            sequence: icmp.echo_seq_no(),
            data: icmp.data().to_vec(),
        },
        _ => Upper::Unread,
    }))
}

fn icmpv6(src: std::net::Ipv6Addr, dst: std::net::Ipv6Addr, bytes: &[u8]) -> Read<Upper> {
    // Some types that it knows better than we do it checks for more, and some it does not know.
    let known = matches!(bytes.first(), Some(128 | 135 | 136));
    if !known {
        return Ok(None);
    }
    let icmp = Icmpv6Packet::new_checked(bytes)?;
    if !icmp.verify_checksum(&src, &dst) {
        return Err(smoltcp::wire::Error);
    }
    if bytes.first() != Some(&128) && !bytes.get(24..).is_some_and(options_fill) {
        return Err(smoltcp::wire::Error);
    }
    let option = |wanted: NdiscOptionType| {
        let mut rest = icmp.payload();
        while let Ok(option) = NdiscOption::new_checked(rest) {
            if option.option_type() == wanted {
                return rest.get(2..8).map(|mac| Mac(*mac.first_chunk().expect("six")));
            }
            rest = rest.get(usize::from(option.data_len()) * 8..).unwrap_or_default();
        }
        None
    };
    Ok(Some(match (icmp.msg_type(), icmp.msg_code()) {
        (Icmpv6Message::EchoRequest, _) => Upper::Echo {
            identifier: icmp.echo_ident(),
            sequence: icmp.echo_seq_no(),
            data: icmp.payload().to_vec(),
        },
        (Icmpv6Message::NeighborSolicit, 0) => Upper::Solicitation {
            target: icmp.target_addr(),
            source: option(NdiscOptionType::SourceLinkLayerAddr),
        },
        (Icmpv6Message::NeighborAdvert, 0) => Upper::Advertisement {
            target: icmp.target_addr(),
            flags: icmp.neighbor_flags().bits(),
            mac: option(NdiscOptionType::TargetLinkLayerAddr),
        },
        _ => Upper::Unread,
    }))
}

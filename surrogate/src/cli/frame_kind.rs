//! What a frame is, in a word to count by and a line to read. Says nothing about verdicts.

use surrogate_wire::{
    Arp, Frame, Icmpv6Body, Packet, Received, TcpFlags, Transport, arp, ethertype, icmpv4, icmpv6,
};

/// The kind and a line for `received`.
pub(super) fn describe(received: &Received<'_>) -> (&'static str, String) {
    let Ok(frame) = Frame::parse(received) else {
        return ("malformed", format!("{} bytes, too short for a frame", received.bytes.len()));
    };
    let mut line = format!("{} > {}", frame.src, frame.dst);
    if let Some(vid) = frame.tags.vid() {
        line.push_str(&format!(" VLAN {vid}"));
    }
    let packet = match Packet::parse(&frame, received.offload) {
        Ok(packet) => packet,
        Err(why) => return ("malformed", format!("{line} {why:?}")),
    };
    if let Some((from, to)) = packet.addresses() {
        line.push_str(&format!(" {from} > {to}"));
    }
    let (kind, detail) = match &packet {
        Packet::Arp(arp) => arp_kind(arp),
        Packet::Ipv4(_, transport) | Packet::Ipv6(_, transport) => transport_kind(transport),
        Packet::Other(ethertype::RARP) => ("rarp", String::new()),
        Packet::Other(ethertype::WAKE_ON_LAN) => ("wake-on-lan", String::new()),
        Packet::Other(other) => ("other", format!("EtherType {other:#06x}")),
        Packet::Llc => ("llc", String::new()),
    };
    if !detail.is_empty() {
        line.push(' ');
        line.push_str(&detail);
    }
    (kind, line)
}

fn arp_kind(arp: &Arp) -> (&'static str, String) {
    match arp.op {
        _ if arp.spa == arp.tpa => ("arp-announcement", arp.spa.to_string()),
        arp::REQUEST if arp.spa.is_unspecified() => ("arp-probe", arp.tpa.to_string()),
        arp::REQUEST => ("arp-request", format!("who has {} tell {}", arp.tpa, arp.spa)),
        arp::REPLY => ("arp-reply", format!("{} is at {}", arp.spa, arp.sha)),
        op => ("arp-other", format!("opcode {op}")),
    }
}

fn transport_kind(transport: &Transport<'_>) -> (&'static str, String) {
    match transport {
        Transport::Tcp(tcp) => {
            let ports = format!("{} > {}", tcp.src_port, tcp.dst_port);
            let kind = match tcp.flags {
                flags if flags.contains(TcpFlags::RST) => "tcp-rst",
                flags if flags.contains(TcpFlags::SYN | TcpFlags::ACK) => "tcp-syn-ack",
                flags if flags.contains(TcpFlags::SYN) => "tcp-syn",
                flags if flags.contains(TcpFlags::FIN) => "tcp-fin",
                _ if tcp.payload.is_empty() => "tcp-ack",
                _ => "tcp-data",
            };
            (kind, format!("{ports}, {} bytes", tcp.payload.len()))
        }
        Transport::Udp(udp) => ("udp", format!("{} > {}", udp.src_port, udp.dst_port)),
        Transport::Icmpv4(icmp) => match icmp.kind {
            icmpv4::ECHO_REQUEST => ("icmpv4-echo-request", String::new()),
            icmpv4::ECHO_REPLY => ("icmpv4-echo-reply", String::new()),
            kind => ("icmpv4-other", format!("type {kind} code {}", icmp.code)),
        },
        Transport::Icmpv6(icmp) => match (&icmp.body, icmp.kind) {
            (Icmpv6Body::Solicitation(ns), _) => ("nd-solicitation", format!("who has {}", ns.target)),
            (Icmpv6Body::Advertisement(na), _) => ("nd-advertisement", format!("{} is here", na.target)),
            (_, icmpv6::ECHO_REQUEST) => ("icmpv6-echo-request", String::new()),
            (_, icmpv6::ECHO_REPLY) => ("icmpv6-echo-reply", String::new()),
            (_, icmpv6::ROUTER_SOLICITATION | icmpv6::ROUTER_ADVERTISEMENT | icmpv6::REDIRECT) => {
                ("nd-router", format!("type {}", icmp.kind))
            }
            (_, kind) => ("icmpv6-other", format!("type {kind} code {}", icmp.code)),
        },
        Transport::Fragment { protocol, .. } => ("fragment", format!("protocol {protocol}")),
        Transport::Other(protocol) => ("ip-other", format!("protocol {protocol}")),
    }
}

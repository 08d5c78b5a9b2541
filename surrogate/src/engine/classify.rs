//! What a frame asks of a sleeper: frame kind and mode give a decision. Pure, and the whole of it is
//! written down in docs/packet-policy.md, whose table a test compares with this file row by row.
//!
//! First [`classify`] says what an asleep guest owes for the frame, then [`in_mode`] what of that is
//! ours in the present mode: only in [`Mode::Answer`] do we speak. Never answers a frame from the guest's
//! own MAC, nor one that a real host would drop; in doubt it holds and wakes.

use core::net::IpAddr;

use surrogate_wire::icmpv6::{self, ALL_NODES, ECHO_REPLY as ECHO_REPLY_6};
use surrogate_wire::{
    Arp, Frame, Icmpv4, Icmpv6, Icmpv6Body, Mac, Malformed, Packet, Tcp, TcpFlags, TcpOptions, Transport,
    Udp, arp, protocol,
};

use super::contract::{Mode, WakeReason};
use super::hold::Class;
use super::noise::is_noise;
use super::verdict::DropReason;
use super::view::View;
use crate::guest::identity::NicIdentity;
use crate::guest::ports::{Of, Ports};
use crate::policy::traffic::{ClosedPorts, Flooded};
use crate::responder::{arp as arp_responder, daytime, ndisc, udp_echo};

/// How a frame reached a NIC that it may concern.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reach {
    /// Sent to its MAC, in its VLAN.
    Unicast,
    /// Sent to its MAC, in a VLAN that we know nothing of.
    OtherVlan,
    /// Broadcast or multicast.
    Flooded,
}

/// What to do about a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Decision {
    /// It does not concern this guest, or the guest itself gets it.
    Foreign,
    /// Answer it.
    Answer(Responder),
    /// Another station claims this address of the guest.
    Conflict {
        /// The address.
        address: IpAddr,
        /// Who claims it.
        by: Mac,
    },
    /// Known noise.
    Absorb,
    /// Hold it, and wake the guest if there is a reason.
    Hold(Option<WakeReason>),
    /// A later part of a datagram: what that is, others tell. Of a first part all decisions are about the whole.
    Unknown,
    /// Discard it.
    Drop(DropReason),
}

/// Who answers, and so which limit applies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Responder {
    /// ARP or neighbour discovery: no limit, one asks and one is told.
    Neighbour,
    /// ICMP or UDP echo: limited per source.
    Echo,
    /// UDP daytime: limited as echo, and only if we know the time.
    Daytime,
    /// TCP reset.
    Reset,
    /// Port unreachable: limited per destination.
    Unreachable,
}

/// What `nic`, asleep, owes for a frame.
#[must_use]
pub(super) fn classify(
    nic: &NicIdentity,
    ports: &Ports,
    reach: Reach,
    view: View<'_, '_>,
    mtu: usize,
) -> Decision {
    let frame = view.frame;
    let decision = match (reach, view.packet) {
        (Reach::Flooded, Err(_)) => Decision::Foreign,
        (_, Err(why)) => Decision::Drop(reason(why)),
        (Reach::OtherVlan, Ok(_)) => {
            Decision::Hold(Some(WakeReason::Frame { ethertype: frame.ethertype, from: frame.src }))
        }
        (Reach::Unicast, Ok(packet)) => unicast(nic, ports, view, packet, mtu),
        (Reach::Flooded, Ok(packet)) => flooded(nic, view, packet),
    };
    match decision {
        Decision::Foreign => Decision::Foreign,
        _ if frame.src == nic.mac => Decision::Drop(DropReason::OwnFrame),
        other => other,
    }
}

/// What of `decision` is ours to do in `mode`.
#[must_use]
pub(super) fn in_mode(mode: Mode, reach: Reach, decision: Decision) -> Decision {
    let is_flooded = reach == Reach::Flooded;
    let silent = match decision {
        Decision::Answer(_) | Decision::Conflict { .. } | Decision::Unknown => Decision::Hold(None),
        // What the guest would do with these is for it to say, once it runs.
        Decision::Absorb | Decision::Drop(DropReason::ClosedPort | DropReason::EchoLoop) if !is_flooded => {
            Decision::Hold(None)
        }
        other => other,
    };
    match mode {
        Mode::Pass => Decision::Foreign,
        Mode::Answer => decision,
        Mode::Fence { flooded } | Mode::Hold { flooded } if is_flooded && !flooded => Decision::Foreign,
        Mode::Fence { .. } | Mode::Hold { .. } => silent,
        Mode::Replay { .. } if is_flooded => Decision::Foreign,
        // It is awake already.
        Mode::Replay { .. } => match silent {
            Decision::Hold(_) => Decision::Hold(None),
            other => other,
        },
    }
}

/// What a held frame is worth when there is no room.
#[must_use]
pub(super) fn class_of(packet: Result<&Packet<'_>, Malformed>, reach: Reach) -> Class {
    let Ok(packet) = packet else { return Class::Datagram };
    match (packet, packet.transport()) {
        (Packet::Arp(_), _) => Class::Neighbour,
        (_, Some(Transport::Icmpv6(icmp))) if is_neighbour(icmp) => Class::Neighbour,
        (_, Some(Transport::Udp(udp))) if is_dhcp_reply(udp) => Class::Dhcp,
        _ if reach == Reach::Flooded => Class::Flooded,
        (_, Some(Transport::Tcp(tcp))) => class_of_segment(tcp),
        _ => Class::Datagram,
    }
}

fn class_of_segment(tcp: &Tcp<'_>) -> Class {
    let controls = TcpFlags::SYN.0 | TcpFlags::FIN.0 | TcpFlags::RST.0;
    if !tcp.payload.is_empty() && !tcp.is_rst() {
        Class::Data
    } else if tcp.flags.0 & controls != 0 {
        Class::Control
    } else {
        Class::Ack
    }
}

// Unicast: the frame came to the guest's own MAC.

fn unicast(
    nic: &NicIdentity,
    ports: &Ports,
    view: View<'_, '_>,
    packet: &Packet<'_>,
    mtu: usize,
) -> Decision {
    if view.called == Some(nic.mac) {
        return Decision::Hold(Some(WakeReason::MagicPacket));
    }
    let frame = view.frame;
    match packet {
        Packet::Arp(arp) => unicast_arp(nic, frame, packet, arp),
        // Spanning tree and its like: nothing waits for an answer.
        Packet::Llc => Decision::Hold(None),
        Packet::Other(_) => only_the_guest_knows(frame),
        Packet::Ipv4(..) | Packet::Ipv6(..) => unicast_ip(nic, ports, view, packet, mtu),
    }
}

fn unicast_arp(nic: &NicIdentity, frame: &Frame<'_>, packet: &Packet<'_>, arp: &Arp) -> Decision {
    if !arp.is_from_a_station() || arp.sha == nic.mac {
        return Decision::Drop(DropReason::BadSource);
    }
    if let Some((address, by)) = arp_responder::conflict(nic, packet) {
        return Decision::Conflict { address: address.into(), by };
    }
    match arp.op {
        arp::REQUEST if nic.holds(arp.tpa.into()) => Decision::Answer(Responder::Neighbour),
        arp::REQUEST => only_the_guest_knows(frame),
        _ => Decision::Hold(None),
    }
}

fn unicast_ip(
    nic: &NicIdentity,
    ports: &Ports,
    view: View<'_, '_>,
    packet: &Packet<'_>,
    mtu: usize,
) -> Decision {
    let frame = view.frame;
    let (Some((src, dst)), Some(transport)) = (packet.addresses(), packet.transport()) else {
        return Decision::Drop(DropReason::Malformed);
    };
    if is_no_peer(nic, src) {
        return Decision::Drop(DropReason::BadSource);
    }
    if let Transport::Icmpv6(icmp) = transport
        && is_neighbour(icmp)
    {
        return unicast_discovery(nic, frame, packet, icmp);
    }
    if let Transport::Udp(udp) = transport
        && is_dhcp_reply(udp)
    {
        return Decision::Hold(None);
    }
    if is_group(nic, dst) {
        // A bridge or access point may turn multicast into unicast; nobody's answer hangs on it.
        return match flooded(nic, view, packet) {
            Decision::Foreign => Decision::Hold(None),
            other => other,
        };
    }
    let wake = || Decision::Hold(Some(WakeReason::Ip { protocol: transport.protocol(), from: src }));
    if !nic.holds(dst) {
        return wake();
    }
    let fits = frame.payload.len() <= mtu;
    match transport {
        Transport::Icmpv4(icmp) => unicast_icmpv4(icmp, fits).unwrap_or_else(wake),
        Transport::Icmpv6(icmp) => unicast_icmpv6(icmp, fits).unwrap_or_else(wake),
        Transport::Tcp(tcp) => unicast_tcp(nic, ports, tcp, (src, dst)),
        Transport::Udp(udp) => unicast_udp(nic, ports, udp, (src, dst), fits),
        // Queries may come to one host alone (RFC 9776 6.1.1) and never wake it.
        Transport::Other(protocol::IGMP) => Decision::Absorb,
        // "there is nothing following that header" (RFC 8200 4.7).
        Transport::Other(protocol::NO_NEXT_HEADER) if dst.is_ipv6() => Decision::Absorb,
        Transport::Fragment { first: None, .. } => Decision::Unknown,
        Transport::Fragment { protocol, first: Some(bytes) } => {
            first_part(nic, ports, *protocol, bytes, (src, dst)).unwrap_or_else(wake)
        }
        Transport::Other(_) => wake(),
    }
}

/// What a datagram is to get once it is whole, by its first `bytes` from the transport header on; no checksum has
/// been verified. The answer may be cut up as the request was.
fn first_part(
    nic: &NicIdentity,
    ports: &Ports,
    protocol: u8,
    bytes: &[u8],
    (from, to): (IpAddr, IpAddr),
) -> Option<Decision> {
    let malformed = |why| Some(Decision::Drop(reason(why)));
    match (protocol, bytes) {
        (protocol::ICMP, _) => match Icmpv4::parse(bytes) {
            Ok(icmp) => unicast_icmpv4(&icmp, true),
            Err(why) => malformed(why),
        },
        (protocol::ICMPV6, [133..=137, ..]) => malformed(Malformed::Header),
        (protocol::ICMPV6, [icmpv6::ECHO_REQUEST, ..]) => Some(Decision::Answer(Responder::Echo)),
        (protocol::ICMPV6, [kind, code, ..]) => {
            let (kind, code, body) = (*kind, *code, Icmpv6Body::Other);
            unicast_icmpv6(&Icmpv6 { kind, code, body, message: bytes }, true)
        }
        (protocol::TCP, _) => match Tcp::parse(bytes) {
            Ok(tcp) => Some(unicast_tcp(nic, ports, &tcp, (from, to))),
            Err(why) => malformed(why),
        },
        (protocol::UDP, [s0, s1, d0, d1, ..]) => {
            let (src_port, dst_port) = (u16::from_be_bytes([*s0, *s1]), u16::from_be_bytes([*d0, *d1]));
            let udp = Udp { src_port, dst_port, checksum: 0, payload: &[], datagram: bytes };
            Some(if is_dhcp_reply(&udp) {
                Decision::Hold(None)
            } else {
                unicast_udp(nic, ports, &udp, (from, to), true)
            })
        }
        _ => None,
    }
}

fn unicast_icmpv4(icmp: &Icmpv4<'_>, fits: bool) -> Option<Decision> {
    if icmp.echo_request().is_some() {
        return fits.then_some(Decision::Answer(Responder::Echo));
    }
    Some(match icmp.kind {
        // Router advertisement and solicitation, timestamp, information, mask: no answer due.
        9 | 10 | 13 | 15 | 17 => Decision::Absorb,
        _ => Decision::Hold(None),
    })
}

fn unicast_icmpv6(icmp: &Icmpv6<'_>, fits: bool) -> Option<Decision> {
    match icmp.body {
        Icmpv6Body::EchoRequest(_) => fits.then_some(Decision::Answer(Responder::Echo)),
        _ if icmp.is_error() || icmp.kind == ECHO_REPLY_6 => Some(Decision::Hold(None)),
        _ => Some(Decision::Absorb),
    }
}

fn unicast_discovery(
    nic: &NicIdentity,
    frame: &Frame<'_>,
    packet: &Packet<'_>,
    icmp: &Icmpv6<'_>,
) -> Decision {
    match icmp.body {
        Icmpv6Body::Solicitation(asked) if nic.holds(asked.target.into()) => {
            Decision::Answer(Responder::Neighbour)
        }
        Icmpv6Body::Solicitation(_) => only_the_guest_knows(frame),
        _ => match ndisc::conflict(nic, frame, packet) {
            Some((address, by)) => Decision::Conflict { address: address.into(), by },
            None => Decision::Hold(None),
        },
    }
}

fn unicast_tcp(nic: &NicIdentity, ports: &Ports, tcp: &Tcp<'_>, (from, to): (IpAddr, IpAddr)) -> Decision {
    let port = tcp.dst_port;
    if tcp.is_rst() {
        return Decision::Hold(None);
    }
    if !is_of_no_connection(tcp) {
        return Decision::Hold(Some(WakeReason::TcpSegment { port, from }));
    }
    let wake = Decision::Hold(Some(match tcp.is_syn() {
        true => WakeReason::TcpSyn { port, from },
        false => WakeReason::TcpSegment { port, from },
    }));
    let is_closed = match &nic.traffic.listen {
        Some(listen) => listen.tcp.binary_search(&port).is_err(),
        None => ports.is_closed(Of::Tcp, to, port),
    };
    // "Fourth, other data or control: drop" (RFC 9293 3.10.7.2, LISTEN).
    let is_dropped = !tcp.flags.contains(TcpFlags::SYN) && !tcp.flags.contains(TcpFlags::ACK);
    match nic.traffic.listen {
        _ if is_closed => closed(nic, Responder::Reset).unwrap_or(wake),
        Some(_) if is_dropped => Decision::Hold(None),
        _ => wake,
    }
}

/// Whether the peer of no connection of the guest's, whatever its state, sends such a segment, so that it concerns
/// the port alone. Every segment after the first has ACK ("if the ACK bit is off, drop the segment", RFC 9293
/// 3.10.7.4), and what is agreed in SYNs is in no other: scanners send such.
fn is_of_no_connection(tcp: &Tcp<'_>) -> bool {
    let of_a_syn = || TcpOptions::parse(tcp.options).is_of_a_syn();
    !tcp.flags.contains(TcpFlags::ACK) || (!tcp.flags.contains(TcpFlags::SYN) && of_a_syn())
}

fn unicast_udp(
    nic: &NicIdentity,
    ports: &Ports,
    udp: &Udp<'_>,
    (from, to): (IpAddr, IpAddr),
    fits: bool,
) -> Decision {
    let port = udp.dst_port;
    let wake = Decision::Hold(Some(WakeReason::Udp { port, from }));
    let is_closed = match &nic.traffic.listen {
        Some(listen) => listen.udp.binary_search(&port).is_err(),
        None => ports.is_closed(Of::Udp, to, port),
    };
    if is_closed {
        return closed(nic, Responder::Unreachable).unwrap_or(wake);
    }
    if nic.traffic.listen.is_none() {
        return wake;
    }
    match udp.src_port {
        // "A datagram is thrown away" (RFC 863).
        _ if port == DISCARD => Decision::Absorb,
        _ if port != udp_echo::PORT && port != daytime::PORT => wake,
        src if udp_echo::would_loop(src) => Decision::Drop(DropReason::EchoLoop),
        // "The sender wants no answer" (RFC 768), and these have nothing else to give.
        0 => Decision::Absorb,
        _ if port == daytime::PORT => Decision::Answer(Responder::Daytime),
        _ if fits => Decision::Answer(Responder::Echo),
        _ => wake,
    }
}

fn closed(nic: &NicIdentity, by: Responder) -> Option<Decision> {
    match nic.traffic.closed_ports {
        ClosedPorts::Reset => Some(Decision::Answer(by)),
        ClosedPorts::Silent => Some(Decision::Drop(DropReason::ClosedPort)),
        ClosedPorts::Wake => None,
    }
}

/// The discard service (RFC 863).
const DISCARD: u16 = 9;

const fn only_the_guest_knows(frame: &Frame<'_>) -> Decision {
    Decision::Hold(Some(WakeReason::Frame { ethertype: frame.ethertype, from: frame.src }))
}

// Flooded: the guest is one of many, and concerned only where an address or group of its own is meant.

fn flooded(nic: &NicIdentity, view: View<'_, '_>, packet: &Packet<'_>) -> Decision {
    if view.called == Some(nic.mac) {
        return Decision::Hold(Some(WakeReason::MagicPacket));
    }
    match packet {
        Packet::Arp(arp) => flooded_arp(nic, packet, arp),
        Packet::Llc | Packet::Other(_) => Decision::Foreign,
        Packet::Ipv4(..) | Packet::Ipv6(..) => flooded_ip(nic, view, packet),
    }
}

fn flooded_arp(nic: &NicIdentity, packet: &Packet<'_>, arp: &Arp) -> Decision {
    if let Some((address, by)) = arp_responder::conflict(nic, packet) {
        return Decision::Conflict { address: address.into(), by };
    }
    if !nic.holds(arp.tpa.into()) {
        return Decision::Foreign;
    }
    if !arp.is_from_a_station() || arp.sha == nic.mac {
        return Decision::Drop(DropReason::BadSource);
    }
    match arp.op {
        arp::REQUEST => Decision::Answer(Responder::Neighbour),
        // A reply to all: it tells the guest what it will ask for again.
        _ => Decision::Absorb,
    }
}

fn flooded_ip(nic: &NicIdentity, view: View<'_, '_>, packet: &Packet<'_>) -> Decision {
    let (Some((src, dst)), Some(transport)) = (packet.addresses(), packet.transport()) else {
        return Decision::Foreign;
    };
    if let Transport::Icmpv6(icmp) = transport
        && is_neighbour(icmp)
    {
        return flooded_discovery(nic, view.frame, packet, icmp);
    }
    let joined = nic.groups.contains(&dst);
    if !joined && !is_group(nic, dst) {
        return Decision::Foreign;
    }
    if is_no_peer(nic, src) {
        return Decision::Drop(DropReason::BadSource);
    }
    match transport {
        // Membership queries and reports: snooping on the bridge is steering's business.
        Transport::Other(protocol::IGMP) => Decision::Absorb,
        // Echo to a group may be ignored (RFC 1122 3.2.2.6); queries and reports of MLD as above.
        Transport::Icmpv4(_) | Transport::Icmpv6(_) => Decision::Absorb,
        // A connection cannot be opened with a group (RFC 9293 3.9.2.3).
        Transport::Tcp(_) => Decision::Foreign,
        Transport::Udp(udp) => flooded_udp(nic, view.called, udp, src, joined),
        Transport::Fragment { .. } | Transport::Other(_) if joined => {
            by_policy(nic, WakeReason::Ip { protocol: transport.protocol(), from: src })
        }
        Transport::Fragment { protocol: protocol::UDP, .. } if nic.traffic.listen.is_none() => {
            by_policy(nic, WakeReason::Ip { protocol: protocol::UDP, from: src })
        }
        Transport::Fragment { .. } | Transport::Other(_) => Decision::Foreign,
    }
}

fn flooded_udp(
    nic: &NicIdentity,
    called: Option<Mac>,
    udp: &Udp<'_>,
    from: IpAddr,
    joined: bool,
) -> Decision {
    let port = udp.dst_port;
    // Broadcast because the client asked for that, but about this client alone (RFC 2131 4.1).
    if is_dhcp_reply(udp) && udp.payload.get(CHADDR..CHADDR + 6) == Some(&nic.mac.0) {
        return Decision::Hold(None);
    }
    let declared = nic.traffic.listen.as_ref().map(|listen| listen.udp.binary_search(&port).is_ok());
    if declared != Some(true) && is_noise(port) {
        return Decision::Absorb;
    }
    // Somebody else is called.
    if called.is_some() {
        return Decision::Foreign;
    }
    if joined || declared.unwrap_or(true) {
        by_policy(nic, WakeReason::Udp { port, from })
    } else {
        Decision::Foreign
    }
}

fn flooded_discovery(
    nic: &NicIdentity,
    frame: &Frame<'_>,
    packet: &Packet<'_>,
    icmp: &Icmpv6<'_>,
) -> Decision {
    match icmp.body {
        Icmpv6Body::Solicitation(asked) if nic.holds(asked.target.into()) => {
            Decision::Answer(Responder::Neighbour)
        }
        Icmpv6Body::Advertisement(_) => match ndisc::conflict(nic, frame, packet) {
            Some((address, by)) => Decision::Conflict { address: address.into(), by },
            None => Decision::Foreign,
        },
        // Router messages: what they say is said again to whoever asks.
        _ => Decision::Foreign,
    }
}

const fn by_policy(nic: &NicIdentity, reason: WakeReason) -> Decision {
    match nic.traffic.flooded {
        Flooded::Hold => Decision::Hold(None),
        Flooded::Wake => Decision::Hold(Some(reason)),
        Flooded::Absorb => Decision::Absorb,
    }
}

// Facts about addresses and messages.

/// A source that no other single host can have: the guest's own address, a broadcast address. Who may have
/// none has been checked by the parser.
fn is_no_peer(nic: &NicIdentity, src: IpAddr) -> bool {
    match src {
        IpAddr::V4(v4) => nic.holds(src) || nic.is_broadcast(v4),
        IpAddr::V6(_) => nic.holds(src),
    }
}

/// Broadcast or multicast, and the guest is meant as any host is.
fn is_group(nic: &NicIdentity, dst: IpAddr) -> bool {
    let has = |v6: bool| nic.addresses.iter().any(|own| own.address.is_ipv6() == v6);
    match dst {
        IpAddr::V4(v4) if v4.is_multicast() => {
            nic.groups.contains(&dst) || (v4.octets() == [224, 0, 0, 1] && has(false))
        }
        IpAddr::V4(v4) => nic.is_broadcast(v4) && has(false),
        IpAddr::V6(v6) if v6.is_multicast() => {
            nic.groups.contains(&dst)
                || (v6 == ALL_NODES && has(true))
                || nic.addresses.iter().any(|own| match own.address {
                    IpAddr::V6(own) => surrogate_wire::icmpv6::solicited_node(own) == v6,
                    IpAddr::V4(_) => false,
                })
        }
        IpAddr::V6(_) => false,
    }
}

/// Neighbour discovery, router messages and redirects included.
const fn is_neighbour(icmp: &Icmpv6<'_>) -> bool {
    matches!(icmp.kind, 133..=137)
}

/// From a DHCP server or relay to a client.
const fn is_dhcp_reply(udp: &Udp<'_>) -> bool {
    matches!((udp.src_port, udp.dst_port), (67, 68) | (547, 546))
}

const fn reason(why: Malformed) -> DropReason {
    match why {
        Malformed::Length | Malformed::Header => DropReason::Malformed,
        Malformed::Checksum => DropReason::BadChecksum,
        Malformed::Source => DropReason::BadSource,
        Malformed::SourceRoute => DropReason::SourceRoute,
        Malformed::UnknownOption => DropReason::UnknownOption,
    }
}

/// Where a DHCP message has the client's hardware address (RFC 2131 2).
const CHADDR: usize = 28;

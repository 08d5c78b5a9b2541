//! docs/packet-policy.md against the engine: each row of its table is built as a frame and tried in each
//! mode, so that the document cannot say what the engine does not do, nor leave out what it does.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::collections::{BTreeMap, BTreeSet};

use surrogate::custody::Unrepresentable;
use surrogate::engine::{Answered, DropReason, Limits, Mode, Notice, Verdict, WakeReason};
use surrogate::guest::identity::{InterfaceAddress, NicId, NicIdentity};
use surrogate::policy::traffic::{ClosedPorts, Flooded};
use surrogate_wire::checksum;
use surrogate_wire::emit::Ethernet;
use surrogate_wire::icmpv6::{self, ALL_NODES};
use surrogate_wire::{
    Frame, Mac, Offload, Received, Tags, TcpFlags, VlanTag, arp as arp_op, dhcpv4, ethertype, protocol,
};

use crate::connections::{self, RN, SN};
use crate::frames::*;
use crate::named;
use crate::scenario::*;

const DOCUMENT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/packet-policy.md");

/// The columns of the table, in order.
const MODES: [(&str, Mode); 8] = [
    ("Pass", Mode::Pass),
    ("Fence", FENCE),
    ("Fence, flooded", FENCE_FLOODED),
    ("Answer", Mode::Answer),
    ("Hold, flooded", HOLD_FLOODED),
    ("Hold", HOLD),
    ("Replay", REPLAY),
    ("Replay, released", RELEASED),
];

/// How a row is tried.
struct Case {
    identity: NicIdentity,
    limits: Limits,
    /// What the guest said while it was awake.
    said: Vec<Vec<u8>>,
    /// What an observer saw while the guest was awake; which of it the guest sent.
    seen: Vec<(bool, Vec<u8>)>,
    /// Frames that come before, in the same mode.
    before: Vec<Sent>,
    frame: Sent,
    /// In place of `frame`: the answer to the DHCP request of ours with this identification, if there is one.
    answering: Option<fn(u32) -> Vec<u8>>,
}

struct Sent {
    bytes: Vec<u8>,
    vlan: Option<VlanTag>,
    offload: Offload,
}

impl Sent {
    fn received(&self) -> Received<'_> {
        Received { bytes: &self.bytes, vlan: self.vlan, offload: self.offload }
    }
}

impl From<Vec<u8>> for Sent {
    fn from(bytes: Vec<u8>) -> Self {
        Self { bytes, vlan: None, offload: Offload::None }
    }
}

impl From<Vec<u8>> for Case {
    fn from(bytes: Vec<u8>) -> Self {
        Self {
            identity: GUEST.identity(),
            limits: limits(),
            said: vec![],
            seen: vec![],
            before: vec![],
            frame: bytes.into(),
            answering: None,
        }
    }
}

impl Case {
    fn policy(mut self, closed_ports: ClosedPorts, flooded: Flooded) -> Self {
        self.identity.traffic.closed_ports = closed_ports;
        self.identity.traffic.flooded = flooded;
        self
    }

    fn closed(self, closed_ports: ClosedPorts) -> Self {
        self.policy(closed_ports, Flooded::Hold)
    }

    fn flooded(self, flooded: Flooded) -> Self {
        self.policy(ClosedPorts::Reset, flooded)
    }

    /// No ports declared.
    fn undeclared(mut self) -> Self {
        self.identity.traffic.listen = None;
        self
    }

    /// One more UDP port declared.
    fn serving(mut self, port: u16) -> Self {
        let listen = self.identity.traffic.listen.get_or_insert_default();
        listen.udp.push(port);
        listen.udp.sort_unstable();
        self
    }

    /// The guest said this while it was awake.
    fn having_said(mut self, said: Vec<u8>) -> Self {
        self.said.push(said);
        self
    }

    /// The guest has a lease, and what comes answers our request for more time.
    fn leased(said: Vec<u8>, answering: fn(u32) -> Vec<u8>) -> Self {
        let mut case = Self::from(answering(0));
        // The answer may only come where it can be answered for.
        case.identity.addresses.push(InterfaceAddress { address: GUEST.link_local().into(), prefix_len: 64 });
        (case.said, case.answering) = (vec![said], Some(answering));
        case
    }

    /// With a connection of an awake guest: see `connections`.
    fn connected(mut self, window: u16) -> Self {
        self.seen = connections::seen(window);
        self
    }

    /// With something that the peer has not acknowledged yet.
    fn unacknowledged(mut self) -> Self {
        self.seen.pop();
        self
    }

    fn after(mut self, before: Vec<u8>) -> Self {
        self.before.push(before.into());
        self
    }
}

/// The rows that can be built, by the name that they have in the document.
fn rows() -> Vec<(&'static str, Case)> {
    let mut rows = ethernet_rows();
    rows.extend(arp_rows());
    rows.extend(discovery_rows());
    rows.extend(icmp_rows());
    rows.extend(udp_rows());
    rows.extend(tcp_rows());
    rows.extend(custody_rows());
    rows.extend(ip_rows());
    rows.extend(membership_rows());
    rows.extend(flooded_rows());
    rows.extend(lease_rows());
    rows.extend(
        named::rows()
            .into_iter()
            .map(|(id, frame)| (id, Case { identity: named::identity(), ..Case::from(frame) })),
    );
    rows
}

fn lease_rows() -> Vec<(&'static str, Case)> {
    let v4 = |answering| Case::leased(dhcp_renewal(77), answering);
    let v6 = |answering| Case::leased(dhcp6_renewal(77), answering);
    vec![
        ("dhcp-ack", v4(|xid| dhcp_answer(TO_GUEST, dhcpv4::kind::ACK, xid))),
        ("dhcp-nak", v4(|xid| dhcp_answer(TO_GUEST, dhcpv4::kind::NAK, xid))),
        ("dhcp-nak-flooded", v4(|xid| dhcp_answer(TO_ALL, dhcpv4::kind::NAK, xid))),
        ("dhcp-ack-others", v4(|xid| dhcp_answer(TO_GUEST, dhcpv4::kind::ACK, xid ^ 1))),
        ("dhcp6-reply", v6(|xid| dhcp6_answer(xid, 3600))),
        ("dhcp6-reply-refusal", v6(|xid| dhcp6_answer(xid, 0))),
        ("dhcp6-reply-others", v6(|xid| dhcp6_answer(xid ^ 1, 3600))),
    ]
}

fn ethernet_rows() -> Vec<(&'static str, Case)> {
    let own = |dst: Mac| between(dst, GUEST.mac());
    let group_source = between(GUEST.mac(), Mac([0x33, 0x33, 0, 0, 0, 1]));
    let own_announcement = arp(own(Mac::BROADCAST), arp_op::REQUEST, GUEST.mac(), GUEST.v4(), GUEST.v4());
    let mut kept_beside: Case = syn(80, 7).into();
    kept_beside.frame.vlan = Some(VlanTag { tpid: 0x8100, tci: 5 });
    vec![
        ("other-unicast", ip(between(THIEF.mac(), CLIENT.mac()), v4(CLIENT), v4(THIEF), 6, &[0; 20]).into()),
        ("own-source-unicast", raw(own(GUEST.mac()), 0x88b5, &[]).into()),
        ("own-source-flooded", own_announcement.into()),
        ("own-source-elsewhere", arp_request(GUEST, CLIENT.v4()).into()),
        ("group-source", raw(group_source, ethertype::IPV4, &[]).into()),
        ("vlan-unicast", in_frame_vlan(syn(80, 7), 5).into()),
        ("vlan-beside-unicast", kept_beside),
        ("vlan-priority", stacked(echo(v4(GUEST), b"data"), &[[0x81, 0, 0x60, 0]]).into()),
        (
            "vlan-priority-inside",
            in_service_vlan(stacked(echo(v4(GUEST), b"x"), &[S_100, [0x81, 0, 0x60, 0]])),
        ),
        ("vlan-service", in_service_vlan(stacked(echo(v4(GUEST), b"data"), &[S_100]))),
        ("vlan-stack-unicast", in_service_vlan(stacked(echo(v4(GUEST), b"x"), &[S_100, [0x81, 0, 0, 5]]))),
        (
            "vlan-stack-flooded",
            in_service_vlan(stacked(arp_request(CLIENT, GUEST.v4()), &[S_100, [0x81, 0, 0, 5]])),
        ),
        ("vlan-stack-of-three", stacked(echo(v4(GUEST), b"x"), &[[0x81, 0, 0x60, 0]; 3]).into()),
        ("vlan-flooded", in_frame_vlan(arp_request(CLIENT, GUEST.v4()), 5).into()),
        ("llc-unicast", raw(TO_GUEST, 40, &[0x42, 0x42, 3]).into()),
        ("llc-flooded", raw(between(Mac([1, 0x80, 0xc2, 0, 0, 0]), CLIENT.mac()), 40, &[0x42]).into()),
        ("lldp-flooded", raw(between(Mac([1, 0x80, 0xc2, 0, 0, 0xe]), CLIENT.mac()), 0x88cc, &[2]).into()),
        ("ethertype-unicast", raw(TO_GUEST, 0x88b5, &[1, 2, 3]).into()),
        ("ethertype-flooded", raw(TO_ALL, 0x88b5, &[1, 2, 3]).into()),
        ("magic-unicast", raw(TO_GUEST, ethertype::WAKE_ON_LAN, &magic(GUEST.mac())).into()),
        ("magic-flooded", raw(TO_ALL, ethertype::WAKE_ON_LAN, &magic(GUEST.mac())).into()),
        ("magic-udp-unicast", datagram((40_000, 9), &magic(GUEST.mac())).into()),
        ("magic-udp-flooded", broadcast((40_000, 9), &magic(GUEST.mac())).into()),
        ("magic-udp-for-another", Case::from(broadcast((40_000, 9), &magic(THIEF.mac()))).undeclared()),
    ]
}

fn arp_rows() -> Vec<(&'static str, Case)> {
    let from_client = |to: Ethernet, op, tpa| arp(to, op, CLIENT.mac(), CLIENT.v4(), tpa);
    let claim = || {
        let to = between(Mac::BROADCAST, THIEF.mac());
        arp(to, arp_op::REQUEST, THIEF.mac(), GUEST.v4(), GUEST.v4())
    };
    let probe = arp(TO_ALL, arp_op::REQUEST, CLIENT.mac(), Ipv4Addr::UNSPECIFIED, GUEST.v4());
    let announcement = arp(TO_ALL, arp_op::REQUEST, CLIENT.mac(), CLIENT.v4(), CLIENT.v4());
    vec![
        ("arp-request", arp_request(CLIENT, GUEST.v4()).into()),
        ("arp-probe", probe.into()),
        ("arp-poll", from_client(TO_GUEST, arp_op::REQUEST, GUEST.v4()).into()),
        ("arp-request-other", arp_request(CLIENT, THIEF.v4()).into()),
        ("arp-poll-unregistered", from_client(TO_GUEST, arp_op::REQUEST, Host(77).v4()).into()),
        ("arp-reply-unicast", from_client(TO_GUEST, arp_op::REPLY, GUEST.v4()).into()),
        ("arp-reply-flooded", from_client(TO_ALL, arp_op::REPLY, GUEST.v4()).into()),
        ("arp-announcement-other", announcement.into()),
        ("arp-conflict", claim().into()),
        ("arp-conflict-again", Case::from(claim()).after(claim())),
        ("arp-forged", arp(TO_GUEST, arp_op::REQUEST, GUEST.mac(), CLIENT.v4(), GUEST.v4()).into()),
        ("arp-no-station-unicast", arp(TO_GUEST, arp_op::REQUEST, Mac::ZERO, CLIENT.v4(), GUEST.v4()).into()),
        (
            "arp-no-station-flooded",
            arp(TO_ALL, arp_op::REQUEST, CLIENT.mac(), Ipv4Addr::LOCALHOST, GUEST.v4()).into(),
        ),
        ("arp-truncated-unicast", raw(TO_GUEST, ethertype::ARP, &[0, 1, 8, 0, 6, 5]).into()),
        ("arp-truncated-flooded", raw(TO_ALL, ethertype::ARP, &[0, 1, 8, 0, 6, 5]).into()),
        ("rarp-unicast", raw(TO_GUEST, ethertype::RARP, &[0, 1, 8, 0, 6, 4, 0, 3]).into()),
        ("rarp-flooded", raw(TO_ALL, ethertype::RARP, &[0, 1, 8, 0, 6, 4, 0, 3]).into()),
    ]
}

fn discovery_rows() -> Vec<(&'static str, Case)> {
    let group = icmpv6::solicited_node(GUEST.v6());
    let claim = || {
        let to = Ethernet { src: THIEF.mac(), ..to_group(ALL_NODES.into()) };
        advertisement(to, THIEF.mac(), ALL_NODES, GUEST.v6())
    };
    let router = |to, dst: Ipv6Addr, kind, rest: &[u8]| icmp(to, v6(CLIENT), dst.into(), kind, 0, rest);
    let long_solicitation = router(TO_GUEST, GUEST.v6(), icmpv6::NEIGHBOUR_SOLICITATION, &[0; 100]);
    let mut wrong_hops = solicitation(TO_GUEST, CLIENT.v6(), GUEST.v6(), GUEST.v6());
    wrong_hops[21] = 64;
    let to_all_nodes = solicitation(to_group(ALL_NODES.into()), CLIENT.v6(), ALL_NODES, GUEST.v6());
    let long_option = [&[0; 4], &GUEST.v6().octets()[..], &[1, 2], &CLIENT.mac().0, &[0; 8]].concat();
    vec![
        ("ns-request", solicit(GUEST.v6()).into()),
        ("ns-dad", solicitation(to_group(group.into()), Ipv6Addr::UNSPECIFIED, group, GUEST.v6()).into()),
        ("ns-poll", solicitation(TO_GUEST, CLIENT.v6(), GUEST.v6(), GUEST.v6()).into()),
        ("ns-request-other", solicit(THIEF.v6()).into()),
        ("ns-poll-unregistered", solicitation(TO_GUEST, CLIENT.v6(), Host(77).v6(), Host(77).v6()).into()),
        ("ns-all-nodes", to_all_nodes.into()),
        ("ns-option-length", icmp(TO_GUEST, v6(CLIENT), v6(GUEST), 135, 0, &long_option).into()),
        ("ns-hop-limit", wrong_hops.into()),
        ("na-conflict", claim().into()),
        ("na-conflict-again", Case::from(claim()).after(claim())),
        ("na-unicast", advertisement(TO_GUEST, CLIENT.mac(), GUEST.v6(), CLIENT.v6()).into()),
        (
            "na-flooded",
            advertisement(to_group(ALL_NODES.into()), CLIENT.mac(), ALL_NODES, CLIENT.v6()).into(),
        ),
        ("ra-unicast", router(TO_GUEST, GUEST.v6(), icmpv6::ROUTER_ADVERTISEMENT, &[0; 12]).into()),
        ("ra-flooded", router(to_group(ALL_NODES.into()), ALL_NODES, 134, &[0; 12]).into()),
        ("rs-flooded", router(to_group(ALL_NODES.into()), ALL_NODES, 133, &[0; 4]).into()),
        ("ns-fragment", cut(long_solicitation, 96, 7)[0].clone().into()),
        ("redirect-unicast", router(TO_GUEST, GUEST.v6(), icmpv6::REDIRECT, &[0; 36]).into()),
    ]
}

fn icmp_rows() -> Vec<(&'static str, Case)> {
    let to_guest = |src: IpAddr, kind, code| {
        let dst = if src.is_ipv4() { v4(GUEST) } else { v6(GUEST) };
        icmp(TO_GUEST, src, dst, kind, code, &[0; 12])
    };
    let mut damaged = echo(v4(GUEST), b"data");
    damaged[44] ^= 1;
    let mut limited: Case = echo(v4(GUEST), b"data").into();
    limited.limits.echoes_per_second = 1;
    let long = |dst, mtu| cut(echo(dst, &[7; 100]), mtu, 7);
    let [first4, second4] = [0, 1].map(|n| long(v4(GUEST), 96)[n].clone());
    let overlapping = Case::from(long(v4(GUEST), 76)[1].clone()).after(first4.clone());
    let own: IpAddr = v4(GUEST);
    vec![
        ("echo4", echo(v4(GUEST), b"data").into()),
        ("echo6", echo(v6(GUEST), b"data").into()),
        ("echo4-over-limit", limited.after(echo(v4(GUEST), b"data"))),
        ("echo4-over-mtu", echo(v4(GUEST), &[7; 1500]).into()),
        ("echo4-fragment", first4.clone().into()),
        ("echo4-fragments", Case::from(second4).after(first4.clone())),
        ("echo6-fragments", last_of(long(v6(GUEST), 112))),
        ("echo4-fragment-repeated", Case::from(first4.clone()).after(first4)),
        ("echo4-fragment-overlap", overlapping),
        ("echo4-record-route", with_options(&[7, 7, 4, 0, 0, 0, 0, 0]).into()),
        ("echo4-timestamp-option", with_options(&[68, 12, 5, 0, 0, 0, 0, 0, 0, 0, 0, 0]).into()),
        ("echo4-unknown-option", with_options(&[0x9e, 4, 1, 2]).into()),
        ("echo4-bad-option", with_options(&[7, 1, 0, 0]).into()),
        (
            "echo6-extensions",
            behind(&[(0, [5, 2, 0, 0, 1, 0]), (60, [0x1e, 4, 0, 0, 0, 0]), (43, [4, 0, 0, 0, 0, 0])]),
        ),
        ("echo6-atomic-fragment", behind(&[(44, [0, 0, 0, 0, 0, 9])])),
        ("echo4-bad-checksum", damaged.into()),
        ("echo4-own-address", icmp(TO_GUEST, own, own, 8, 0, &[0; 8]).into()),
        ("echo4-broadcast-source", to_guest(SUBNET.into(), 8, 0).into()),
        ("echo4-broadcast", icmp(TO_ALL, v4(CLIENT), SUBNET.into(), 8, 0, &[0; 8]).into()),
        (
            "echo6-all-nodes",
            icmp(to_group(ALL_NODES.into()), v6(CLIENT), ALL_NODES.into(), 128, 0, &[0; 4]).into(),
        ),
        ("icmp4-timestamp", to_guest(v4(CLIENT), 13, 0).into()),
        ("icmp4-error", to_guest(v4(CLIENT), 3, 1).into()),
        ("icmp4-echo-reply", to_guest(v4(CLIENT), 0, 0).into()),
        ("icmp6-node-query", to_guest(v6(CLIENT), 139, 0).into()),
        ("icmp6-error", to_guest(v6(CLIENT), 2, 0).into()),
        ("icmp6-echo-reply", to_guest(v6(CLIENT), 129, 0).into()),
    ]
}

fn udp_rows() -> Vec<(&'static str, Case)> {
    let closed = || Case::from(datagram((40_000, 9999), b"data"));
    let mut damaged = datagram((40_000, 514), b"data");
    damaged[42] ^= 1;
    let mut limited = closed();
    limited.limits.errors_per_second = 1;
    let dhcp6 = udp(TO_GUEST, v6(CLIENT), v6(GUEST), (547, 546), &[7]);
    let listening = Case::from(datagram((40_000, 514), b"data"));
    vec![
        ("udp-listen", datagram((40_000, 514), b"data").into()),
        ("udp-undeclared", closed().undeclared()),
        ("udp-closed-reset", closed()),
        ("udp-closed-reset-over-limit", limited.after(datagram((40_000, 9999), b"data"))),
        ("udp-closed-silent", closed().closed(ClosedPorts::Silent)),
        ("udp-closed-wake", closed().closed(ClosedPorts::Wake)),
        ("udp-learned-closed", closed().undeclared().having_said(unreachable_by_guest(9999))),
        ("udp-learned-closed-declared", listening.having_said(unreachable_by_guest(514))),
        ("udp-echo", datagram((40_000, 7), b"data").into()),
        ("udp-echo-undeclared", Case::from(datagram((40_000, 7), b"data")).undeclared()),
        ("udp-echo-loop", datagram((19, 7), b"data").into()),
        ("udp-echo-no-port", datagram((0, 7), b"data").into()),
        ("udp-daytime", Case::from(datagram((40_000, 13), b"data")).serving(13)),
        ("udp-daytime-undeclared", Case::from(datagram((40_000, 13), b"data")).undeclared()),
        ("udp-daytime-loop", Case::from(datagram((7, 13), b"data")).serving(13)),
        ("udp-dhcp-reply", datagram((67, 68), &[2; 240]).into()),
        ("udp-dhcp6-reply", dhcp6.into()),
        ("udp-echo-fragments", last_of(cut(datagram((40_000, 7), &[7; 100]), 96, 7))),
        ("udp-discard", Case::from(datagram((40_000, 9), b"data")).serving(9)),
        ("udp-discard-undeclared", Case::from(datagram((40_000, 9), b"data")).undeclared()),
        ("udp-closed-fragments", last_of(cut(datagram((40_000, 9999), &[7; 100]), 96, 7))),
        ("udp-bad-checksum", damaged.into()),
    ]
}

fn tcp_rows() -> Vec<(&'static str, Case)> {
    let closed = || Case::from(syn(8080, 7));
    let seg = |flags, data: &[u8]| segment((40_000, 80), (7, 9), flags, data);
    let to_closed = |flags| segment((40_000, 8080), (7, 9), flags, &[]);
    let fin = || Case::from(to_closed(TcpFlags::FIN));
    let data = || seg(TcpFlags::PSH | TcpFlags::ACK, b"GET /");
    let mut damaged = data();
    damaged[54] ^= 1;
    let mut partial: Case = damaged.clone().into();
    partial.frame.offload = Offload::Partial;
    let ack = || seg(TcpFlags::ACK, &[]);
    let window_update = {
        let (mut update, window, sum) = (ack(), 48, 50);
        let field = |of: &[u8], at: usize| u16::from_be_bytes([of[at], of[at + 1]]);
        let changed = checksum::update(field(&update, sum), field(&update, window), 0xffff);
        update[sum..sum + 2].copy_from_slice(&changed.to_be_bytes());
        update[window..window + 2].fill(0xff);
        update
    };
    vec![
        ("tcp-syn-listen", syn(80, 7).into()),
        ("tcp-syn-undeclared", closed().undeclared()),
        ("tcp-syn-closed-reset", closed()),
        ("tcp-syn-closed-silent", closed().closed(ClosedPorts::Silent)),
        ("tcp-syn-closed-wake", closed().closed(ClosedPorts::Wake)),
        ("tcp-syn-learned-closed", closed().undeclared().having_said(refused_by_guest(8080))),
        (
            "tcp-syn-learned-closed-silent",
            closed().undeclared().closed(ClosedPorts::Silent).having_said(refused_by_guest(8080)),
        ),
        (
            "tcp-syn-learned-closed-wake",
            closed().undeclared().closed(ClosedPorts::Wake).having_said(refused_by_guest(8080)),
        ),
        ("tcp-syn-learned-both", {
            let open = segment_of_guest(8080, 7, TcpFlags::SYN | TcpFlags::ACK);
            closed().undeclared().having_said(refused_by_guest(8080)).having_said(open)
        }),
        ("tcp-syn-learned-closed-declared", Case::from(syn(80, 7)).having_said(refused_by_guest(80))),
        ("tcp-syn-repeated", Case::from(syn(80, 7)).after(syn(80, 7))),
        ("tcp-syn-again", Case::from(syn(80, 8)).after(syn(80, 7))),
        ("tcp-syn-ack", seg(TcpFlags::SYN | TcpFlags::ACK, &[]).into()),
        ("tcp-ack", ack().into()),
        ("tcp-data", data().into()),
        ("tcp-data-repeated", Case::from(data()).after(data())),
        ("tcp-window-update", Case::from(window_update).after(ack())),
        ("tcp-data-closed", segment((40_000, 8080), (7, 9), TcpFlags::ACK, b"x").into()),
        ("tcp-fin-closed", fin()),
        ("tcp-nothing-closed", to_closed(TcpFlags(0)).into()),
        ("tcp-xmas-closed", to_closed(TcpFlags::FIN | TcpFlags::PSH | TcpFlags::URG).into()),
        ("tcp-syn-fin-closed", to_closed(TcpFlags::SYN | TcpFlags::FIN).into()),
        ("tcp-fin-closed-silent", fin().closed(ClosedPorts::Silent)),
        ("tcp-fin-closed-wake", fin().closed(ClosedPorts::Wake)),
        ("tcp-fin-learned-closed", fin().undeclared().having_said(refused_by_guest(8080))),
        ("tcp-ack-of-a-syn-closed", {
            let ports = (40_000, 8080);
            segment_with_options(ports, (7, 9), TcpFlags::ACK, &[3, 3, 10, 1]).into()
        }),
        ("tcp-fin-listen", seg(TcpFlags::FIN, &[]).into()),
        ("tcp-syn-fin-listen", seg(TcpFlags::SYN | TcpFlags::FIN, &[]).into()),
        ("tcp-fin-undeclared", fin().undeclared()),
        ("tcp-fin", seg(TcpFlags::FIN | TcpFlags::ACK, &[]).into()),
        ("tcp-rst", seg(TcpFlags::RST, &[]).into()),
        ("tcp-bad-checksum", damaged.into()),
        ("tcp-partial-checksum", partial),
    ]
}

fn custody_rows() -> Vec<(&'static str, Case)> {
    const BELOW: u32 = RN - 1;
    const FIN_ACK: TcpFlags = TcpFlags(TcpFlags::FIN.0 | TcpFlags::ACK.0);
    let peer = |seq, ack, flags, data: &[u8]| {
        Case::from(connections::from_peer(seq, ack, flags, data)).connected(connections::W)
    };
    let ack = |seq, ack, data: &[u8]| peer(seq, ack, TcpFlags::ACK, data);
    let in_window = RN + u32::from(connections::W) - 1;
    let syn = |seq| peer(seq, 0, TcpFlags::SYN, &[]);
    let mut probe = ack(RN, SN, b"x");
    probe.seen = connections::seen(0);
    let mut limited = syn(5);
    limited.before = vec![connections::from_peer(9, 0, TcpFlags::SYN, &[]).into()];
    let mut off = ack(BELOW, SN, &[]);
    off.identity.traffic.custody = false;
    let answered = |case: Case, before: Vec<u8>| case.after(before);
    vec![
        ("custody-keep-alive", ack(BELOW, SN, &[])),
        ("custody-keep-alive-byte", ack(BELOW, SN, &[0])),
        ("custody-keep-alive-beyond", ack(BELOW, SN + 1, &[])),
        (
            "custody-keep-alive-over-limit",
            answered(ack(BELOW, SN, &[]), connections::from_peer(BELOW, SN, TcpFlags::ACK, &[])),
        ),
        ("custody-old-data", ack(RN - 5, SN, b"abcde")),
        ("custody-ack", ack(RN, SN, &[])),
        ("custody-ack-news", ack(RN, SN - 3, &[]).unacknowledged()),
        ("custody-ack-beyond", ack(RN, SN + 1, &[])),
        ("custody-data", ack(RN, SN, b"x")),
        ("custody-data-ahead", ack(RN + 5, SN, b"x")),
        ("custody-fin", peer(RN, SN, FIN_ACK, &[])),
        ("custody-urgent", peer(RN, SN, TcpFlags(TcpFlags::URG.0 | TcpFlags::ACK.0), b"x")),
        ("custody-window-probe", probe),
        ("custody-rst", peer(RN, 0, TcpFlags::RST, &[])),
        ("custody-rst-in-window", peer(in_window, 0, TcpFlags::RST, &[])),
        ("custody-rst-outside", peer(in_window + 1, 0, TcpFlags::RST, &[])),
        ("custody-syn", syn(5)),
        ("custody-challenge-over-limit", limited),
        ("custody-ack-too-old", ack(RN, SN ^ 0x8000_0000, b"x")),
        ("custody-outside", ack(in_window + 1, SN, b"x")),
        ("custody-no-ack", peer(RN, 0, TcpFlags(0), b"x")),
        ("custody-off", off),
    ]
}

fn ip_rows() -> Vec<(&'static str, Case)> {
    let routed = {
        // Header of six words: a loose source route of one hop would be longer, its type is what counts.
        let mut packet = ip(TO_GUEST, v4(CLIENT), v4(GUEST), 17, &[131, 4, 4, 0, 0, 0, 0, 0]);
        packet.truncate(42);
        mended(packet, |header| header[0] = 0x46)
    };
    let routing0 = ip(TO_GUEST, v6(CLIENT), v6(GUEST), 43, &[17, 0, 0, 1, 0, 0, 0, 0]);
    let damaged = {
        let mut packet = syn(80, 7);
        packet[24] ^= 1;
        packet
    };
    let part = mended(datagram((40_000, 514), &[7; 56]), |header| header[6] = 0x20);
    vec![
        ("ip-unregistered", udp(TO_GUEST, v4(CLIENT), v4(Host(77)), (1, 9999), b"x").into()),
        ("ip-protocol", ip(TO_GUEST, v4(CLIENT), v4(GUEST), 47, &[0; 8]).into()),
        ("ip-fragment", part.into()),
        ("ip-fragment-later", cut(datagram((40_000, 514), &[7; 100]), 96, 7)[1].clone().into()),
        ("ip-source-route", routed.into()),
        ("ip6-routing-0", routing0.into()),
        ("ip6-routing-segments", behind(&[(43, [4, 1, 0, 0, 0, 0])])),
        ("ip6-unknown-option", behind(&[(60, [0x5e, 4, 0, 0, 0, 0])])),
        ("ip6-home-address", behind(&[(60, [0xc9, 4, 0, 0, 0, 0])])),
        ("ip6-late-hop-by-hop", behind(&[(60, PADN), (0, PADN)])),
        ("ip6-many-headers", behind(&[(60, PADN); 9])),
        ("ip6-nothing", ip(TO_GUEST, v6(CLIENT), v6(GUEST), protocol::NO_NEXT_HEADER, &[]).into()),
        ("ns-atomic-fragment", {
            let frame = solicitation(TO_GUEST, CLIENT.v6(), GUEST.v6(), GUEST.v6());
            inserted(frame, &[(44, [0, 0, 0, 0, 0, 9])]).into()
        }),
        ("ip-bad-checksum", damaged.into()),
        ("ip-truncated", raw(TO_GUEST, ethertype::IPV4, &[0x45, 0, 0xff]).into()),
        ("ip-truncated-flooded", raw(TO_ALL, ethertype::IPV4, &[0x45, 0, 0xff]).into()),
        ("ip-loopback-source", ip(TO_GUEST, Ipv4Addr::LOCALHOST.into(), v4(GUEST), 17, &[0; 8]).into()),
        ("ip-group-unicast", udp(TO_GUEST, v4(CLIENT), ALL_HOSTS.into(), (1, 9999), &[]).into()),
    ]
}

fn membership_rows() -> Vec<(&'static str, Case)> {
    let third = [0x11, 10, 0, 0, 0, 0, 0, 0, 2, 125, 0, 0];
    let for_sources = |sources: &[Ipv4Addr]| {
        let mut message = [&[0x11, 10, 0, 0][..], &JOINED.octets(), &[2, 125, 0, 1]].concat();
        sources.iter().for_each(|source| message.extend(source.octets()));
        igmp_message(to_group(JOINED.into()), CLIENT.v4(), JOINED, &message)
    };
    let report = [&[0x16, 0, 0, 0][..], &JOINED.octets()].concat();
    let damaged = ip(to_group(ALL_HOSTS.into()), v4(CLIENT), ALL_HOSTS.into(), protocol::IGMP, &third);
    let local = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);
    let group = icmpv6::solicited_node(GUEST.v6());
    let mld_report = [&[131, 0, 0, 0, 0, 0, 0, 0][..], &group.octets()].concat();
    let far_v4 = Ipv4Addr::new(198, 51, 100, 7);
    let far = icmp(to_group(ALL_NODES.into()), v6(CLIENT), ALL_NODES.into(), 130, 0, &[0; 20]);
    vec![
        ("igmp-query", igmp_query(None, true).into()),
        ("igmp-query-unicast", igmp_message(TO_GUEST, CLIENT.v4(), GUEST.v4(), &third).into()),
        ("igmp-query-off-link", igmp_message(TO_GUEST, far_v4, GUEST.v4(), &third).into()),
        ("igmp-query-group", igmp_query(Some(JOINED), false).into()),
        ("igmp-query-sources", for_sources(&[CLIENT.v4()]).into()),
        ("igmp-query-other-group", igmp_query(Some(Ipv4Addr::new(239, 9, 9, 9)), false).into()),
        ("igmp-query-damaged", damaged.into()),
        ("igmp-report", igmp_message(to_group(JOINED.into()), CLIENT.v4(), JOINED, &report).into()),
        ("mld-query", mld_query(None).into()),
        ("mld-query-group", mld_query(Some(group)).into()),
        ("mld-query-other-group", mld_query(Some(icmpv6::solicited_node(THIEF.v6()))).into()),
        ("mld-query-off-link", far.into()),
        ("mld-report", mld_message(local, group, &mld_report).into()),
    ]
}

fn flooded_rows() -> Vec<(&'static str, Case)> {
    let group =
        |group: Ipv4Addr, port| udp(to_group(group.into()), v4(CLIENT), group.into(), (1, port), b"x");
    let listen = || Case::from(broadcast((1, 514), b"data"));
    let limited = udp(TO_ALL, v4(CLIENT), Ipv4Addr::BROADCAST.into(), (1, 514), b"x");
    let all_nodes = udp(to_group(ALL_NODES.into()), v6(CLIENT), ALL_NODES.into(), (1, 514), b"x");
    let elsewhere = udp(TO_ALL, v4(CLIENT), Ipv4Addr::new(198, 51, 100, 255).into(), (1, 514), b"x");
    let unicast_ip = udp(TO_ALL, v4(CLIENT), v4(GUEST), (1, 514), b"x");
    let dhcp = udp(TO_ALL, Ipv4Addr::UNSPECIFIED.into(), Ipv4Addr::BROADCAST.into(), (68, 67), &[1; 240]);
    let dhcp_reply = |client: Host| {
        let mut message = [2; 240];
        message[28..34].copy_from_slice(&client.mac().0);
        udp(TO_ALL, v4(CLIENT), Ipv4Addr::BROADCAST.into(), (67, 68), &message)
    };
    let not_joined = Ipv4Addr::new(239, 9, 9, 9);
    let mut declared: Case = group(MDNS, 5353).into();
    if let Some(listen) = &mut declared.identity.traffic.listen {
        listen.udp.push(5353);
    }
    let joined_ip = |protocol| ip(to_group(JOINED.into()), v4(CLIENT), JOINED.into(), protocol, &[0; 8]);
    let part = mended(group(JOINED, 9999), |header| header[7] = 3);
    let tcp = ip(to_group(JOINED.into()), v4(CLIENT), JOINED.into(), 6, &{
        let unicast = syn(80, 1);
        unicast[34..54].to_vec()
    });
    let mut damaged = broadcast((1, 514), b"data");
    damaged[43] ^= 1;
    vec![
        ("broadcast-listen-hold", listen()),
        ("broadcast-listen-wake", listen().flooded(Flooded::Wake)),
        ("broadcast-listen-absorb", listen().flooded(Flooded::Absorb)),
        ("broadcast-limited", limited.into()),
        ("broadcast-closed", broadcast((1, 9999), b"data").into()),
        ("broadcast-undeclared", Case::from(broadcast((1, 9999), b"data")).undeclared()),
        ("broadcast-elsewhere", elsewhere.into()),
        ("broadcast-unicast-ip", unicast_ip.into()),
        ("broadcast-bad-checksum", damaged.into()),
        ("broadcast-own-address", udp(TO_ALL, v4(GUEST), SUBNET.into(), (1, 514), b"x").into()),
        ("all-hosts-listen", group(ALL_HOSTS, 514).into()),
        ("all-nodes-listen", all_nodes.into()),
        ("group-joined", group(JOINED, 9999).into()),
        ("group-joined-wake", Case::from(group(JOINED, 9999)).flooded(Flooded::Wake)),
        ("group-not-joined", group(not_joined, 514).into()),
        ("group-fragment", part.into()),
        ("group-protocol", joined_ip(89).into()),
        ("group-tcp", tcp.into()),
        ("noise-mdns", group(MDNS, 5353).into()),
        ("noise-mdns-declared", declared),
        ("noise-llmnr", group(JOINED, 5355).into()),
        ("noise-netbios", broadcast((137, 137), &[0; 50]).into()),
        ("noise-ssdp", group(JOINED, 1900).into()),
        ("noise-ws-discovery", group(JOINED, 3702).into()),
        ("noise-dhcp", dhcp.into()),
        ("noise-dhcp-reply", dhcp_reply(THIEF).into()),
        ("dhcp-reply-flooded", dhcp_reply(GUEST).into()),
    ]
}

/// An echo request with these bytes of IPv4 options.
fn with_options(options: &[u8]) -> Vec<u8> {
    let mut frame = echo(v4(GUEST), b"data");
    frame.splice(34..34, options.iter().copied());
    let words = options.len() as u8 / 4;
    mended(frame, |header| {
        header[0] += words;
        header[3] += words * 4;
    })
}

/// An option of padding: all that such a header needs.
const PADN: [u8; 6] = [1, 4, 0, 0, 0, 0];

/// An IPv6 echo request behind extension headers of eight bytes: the type of each, and what follows its length.
fn behind(headers: &[(u8, [u8; 6])]) -> Case {
    inserted(echo(v6(GUEST), b"data"), headers).into()
}

fn inserted(mut frame: Vec<u8>, headers: &[(u8, [u8; 6])]) -> Vec<u8> {
    for (kind, rest) in headers.iter().rev() {
        let next = std::mem::replace(&mut frame[20], *kind);
        frame.splice(54..54, [&[next, 0][..], rest].concat());
        frame[19] += 8;
    }
    frame
}

/// The last of some fragments, after the others.
fn last_of(mut fragments: Vec<Vec<u8>>) -> Case {
    let last = fragments.pop().expect("a fragment");
    fragments.into_iter().fold(last.into(), Case::after)
}

fn v4(host: Host) -> IpAddr {
    host.v4().into()
}

fn v6(host: Host) -> IpAddr {
    host.v6().into()
}

fn broadcast(ports: (u16, u16), data: &[u8]) -> Vec<u8> {
    udp(TO_ALL, v4(CLIENT), SUBNET.into(), ports, data)
}

/// The service VLAN 100 of 802.1ad, priority 1.
const S_100: [u8; 4] = [0x88, 0xa8, 0x20, 100];

/// The same frame with these tags in line, the outermost first.
fn stacked(mut frame: Vec<u8>, tags: &[[u8; 4]]) -> Vec<u8> {
    frame.splice(12..12, tags.concat());
    frame
}

/// The guest lives in VLAN 100.
fn in_service_vlan(frame: Vec<u8>) -> Case {
    let mut case = Case::from(frame);
    case.identity.vlan = Some(100);
    case
}

/// The same frame with a tag in line.
fn in_frame_vlan(mut frame: Vec<u8>, vid: u8) -> Vec<u8> {
    frame.splice(12..12, [0x81, 0, 0, vid]);
    frame
}

#[test]
fn every_row_of_the_document_holds_in_every_mode() {
    let document = std::fs::read_to_string(DOCUMENT).expect("docs/packet-policy.md");
    let documented = table(&document);
    let mut wrong = Vec::new();
    let mut built = BTreeMap::new();
    for (id, case) in rows() {
        let cells: Vec<String> = MODES.iter().map(|(_, mode)| tried(id, *mode, &case)).collect();
        if documented.get(id) != Some(&cells) {
            wrong.push(format!("| `{id}` | {} |", cells.join(" | ")));
        }
        assert!(built.insert(id, ()).is_none(), "two builders for {id}");
    }
    for id in documented.keys().filter(|id| !built.contains_key(id.as_str())) {
        wrong.push(format!("| `{id}` | has no builder |"));
    }
    assert!(wrong.is_empty(), "the engine does this instead:\n{}", wrong.join("\n"));
}

/// Nothing is answered, dropped, woken for or a reason not to sleep that the document does not tell of.
#[test]
fn every_kind_of_answer_drop_and_wake_is_in_the_document() {
    let document = std::fs::read_to_string(DOCUMENT).expect("docs/packet-policy.md");
    let cells: BTreeSet<String> = table(&document).into_values().flatten().collect();
    let in_a_table = |word: &str| {
        let whole = format!("`{word}`");
        let has = |line: &str| line.starts_with('|') && line.split('|').any(|cell| lists(cell, &whole));
        document.lines().any(has)
    };
    let mut missing = Vec::new();
    for name in Answered::ALL.map(Answered::name) {
        // Those that no frame asks for are in the table of what is said of its own accord.
        if !cells.contains(&format!("answer {name}")) && !in_a_table(name) {
            missing.push(format!("answer {name}"));
        }
    }
    for name in DropReason::ALL.map(DropReason::name) {
        // Those that no single frame shows are in the tables of limits.
        if !cells.contains(&format!("drop {name}")) && !in_a_table(name) {
            missing.push(format!("drop {name}"));
        }
    }
    for name in Unrepresentable::ALL.map(Unrepresentable::name) {
        if !document.lines().any(|line| line.starts_with(&format!("| `{name}` |"))) {
            missing.push(format!("kept awake {name}"));
        }
    }
    assert!(missing.is_empty(), "not in {DOCUMENT}: {missing:#?}");
}

/// Whether a cell lists a word, alone or among others.
fn lists(cell: &str, word: &str) -> bool {
    cell.split(',').any(|part| part.trim() == word)
}

/// As in its own LAN a guest is stood in for in the VLAN that is configured for it, and nothing is said in another one.
#[test]
fn every_row_holds_in_a_vlan_and_each_answer_has_its_tag() {
    const VLAN: u16 = 10;
    for (id, case) in rows().into_iter().filter(|(id, _)| !id.starts_with("vlan-")) {
        let identity = NicIdentity { vlan: Some(VLAN), ..case.identity.clone() };
        let mut s = Scenario::with_limits(case.limits.clone(), &[identity]);
        let verdicts = play(&mut s, Mode::Answer, &case, Some([0x81, 0, 0, VLAN as u8]));
        let word = in_words(verdicts.first().map(|(_, verdict)| *verdict));
        assert_eq!(word, tried(id, Mode::Answer, &case), "{id}");
        for answer in s.at_ms(11_000).transmitted() {
            let received = Received::plain(&answer);
            assert_eq!(Frame::parse(&received).expect("a frame").tags, Tags::for_vid(Some(VLAN)), "{id}");
        }
    }
}

#[test]
fn what_a_wake_is_for_is_told_as_the_document_says_with_a_row_that_shows_it() {
    let document = std::fs::read_to_string(DOCUMENT).expect("docs/packet-policy.md");
    let mut lines = document.lines();
    let _ = lines.by_ref().find(|line| *line == "| event `waking` says | for example, in the tables |");
    let documented: BTreeMap<&str, &str> = lines
        .skip(1)
        .map_while(|line| line.strip_prefix("| ")?.strip_suffix(" |")?.split_once(" | "))
        .collect();
    let mut shown = BTreeMap::new();
    for (id, case) in rows() {
        for reason in reasons(&case) {
            let told = in_general(&reason);
            let rows: &mut Vec<_> = shown.entry(told).or_default();
            rows.push(id);
        }
    }
    // tests/engine/leases.rs shows this one.
    shown.insert(
        "lease of ... is about to end",
        vec!["no frame: [its time came](#what-is-said-of-its-own-accord)"],
    );
    let told = |rows: &[&str], cell: &str| {
        rows.iter().any(|row| cell == *row || cell.starts_with(&format!("`{row}`")))
    };
    let wrong: Vec<_> = shown
        .iter()
        .filter(|(reason, rows)| !documented.get(**reason).is_some_and(|cell| told(rows, cell)))
        .collect();
    assert!(wrong.is_empty(), "shown by these rows: {wrong:#?}");
    assert_eq!(documented.len(), shown.len(), "{documented:#?}");
}

/// What `surrogate events` says of a reason, without its numbers and addresses.
fn in_general(reason: &WakeReason) -> &'static str {
    let general = match reason {
        WakeReason::TcpSyn { .. } => "TCP SYN to port ... from ...",
        WakeReason::TcpSegment { .. } => "TCP segment to port ... from ...",
        WakeReason::Udp { .. } => "UDP datagram to port ... from ...",
        WakeReason::Ip { .. } => "IP protocol ... from ...",
        WakeReason::Frame { .. } => "frame of EtherType ... from ...",
        WakeReason::MagicPacket => "magic packet",
        WakeReason::Conflict => "address conflict",
        WakeReason::LeaseRefused { .. } => "lease of ... refused by ...",
        WakeReason::LeaseEnding { .. } => "lease of ... is about to end",
        WakeReason::NameConflict { .. } => "its name is claimed by ...",
    };
    let said = reason.to_string();
    let mut rest = said.as_str();
    for part in general.split("...").filter(|part| !part.is_empty()) {
        rest = rest.split_once(part).unwrap_or_else(|| panic!("{said:?} is not {general:?}")).1;
    }
    general
}

/// What the row's frame asks to be woken for while the guest sleeps.
fn reasons(case: &Case) -> Vec<WakeReason> {
    let mut s = Scenario::with_limits(case.limits.clone(), std::slice::from_ref(&case.identity));
    play(&mut s, Mode::Answer, case, None);
    let wakes = s.outputs().into_iter().filter_map(|out| match out {
        Out::Notify(Notice::Wake { reason, .. }) => Some(reason),
        _ => None,
    });
    wakes.collect()
}

/// The document's rows: name and one cell per mode. Other tables have other headings.
fn table(document: &str) -> BTreeMap<String, Vec<String>> {
    let heading = format!("| frame | {} | why |", MODES.map(|(name, _)| name).join(" | "));
    let mut rows = BTreeMap::new();
    let mut lines = document.lines();
    while lines.by_ref().any(|line| line == heading) {
        for line in lines.by_ref().skip(1).take_while(|line| line.starts_with('|')) {
            let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
            assert_eq!(cells.len(), MODES.len() + 2, "{line}");
            assert!(cells.last().is_some_and(|why| !why.is_empty()), "says no why: {line}");
            let id = cells[0].trim_matches('`').to_owned();
            let verdicts = cells[1..=MODES.len()].iter().map(|cell| (*cell).to_owned()).collect();
            assert!(rows.insert(id, verdicts).is_none(), "twice: {line}");
        }
    }
    assert!(!rows.is_empty(), "no table with the heading {heading}");
    rows
}

/// Has the row's frame come in `mode`, after what goes before it; from the network with one more tag, if there is one.
fn play(s: &mut Scenario, mode: Mode, case: &Case, tag: Option<[u8; 4]>) -> Vec<(NicId, Verdict)> {
    let tagged = |bytes: &[u8]| stacked(bytes.to_vec(), tag.as_slice());
    case.said.iter().for_each(|said| s.observe(true, said));
    for (from_guest, seen) in &case.seen {
        s.observe(*from_guest, seen);
    }
    s.mode(1, mode).outputs();
    for before in &case.before {
        s.receive_as(Received { bytes: &tagged(&before.bytes), ..before.received() });
    }
    s.outputs();
    let mut frame = case.frame.bytes.clone();
    if let Some(answering) = case.answering
        && mode == Mode::Answer
    {
        let xid = s.at_ms(2_000).transmitted().iter().find_map(|ours| dhcp_xid(ours)).expect("we asked");
        frame = answering(xid);
    }
    s.receive_as(Received { bytes: &tagged(&frame), ..case.frame.received() })
}

/// What the engine does with the row's frame in `mode`, as the table says it.
fn tried(id: &str, mode: Mode, case: &Case) -> String {
    let mut s = Scenario::with_limits(case.limits.clone(), std::slice::from_ref(&case.identity));
    let verdicts = play(&mut s, mode, case, None);
    assert!(verdicts.len() < 2, "{id} in {mode:?}: {verdicts:?}");
    let verdict = verdicts.first().map(|(_, verdict)| *verdict);
    let word = in_words(verdict);
    // Some answers take their time: a report is due ten seconds after a query.
    let spoken = s.at_ms(11_000).transmitted();
    match verdict {
        Some(Verdict::Answer(_)) => assert_eq!(spoken.len(), 1, "{id} in {mode:?}: says it answered"),
        _ => assert_eq!(spoken, [] as [Vec<u8>; 0], "{id} in {mode:?}: speaks"),
    }
    // Whose address anybody could have written is not sent more than three times what came, each without its
    // Ethernet header and padding.
    let came: usize = case.before.iter().map(|sent| sent.bytes.len() - 14).sum();
    let came = came + case.frame.bytes.len() - 14;
    for said in spoken.iter().filter(|said| said[0] & 1 == 0) {
        let len = said.len() - 14;
        assert!(len <= 46 || len <= 3 * came, "{id} in {mode:?}: {len} bytes for {came}");
    }
    word
}

/// A verdict as the table says it.
fn in_words(verdict: Option<Verdict>) -> String {
    match verdict {
        None => "-".to_owned(),
        Some(Verdict::Answer(by)) => format!("answer {}", by.name()),
        Some(Verdict::Drop(why)) => format!("drop {}", why.name()),
        Some(Verdict::Absorb) => "absorb".to_owned(),
        Some(Verdict::Hold) => "hold".to_owned(),
        Some(Verdict::HoldAndWake) => "wake".to_owned(),
        Some(Verdict::Stub) => "stub".to_owned(),
    }
}

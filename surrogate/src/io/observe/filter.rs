//! Which frames of a guest's port an observer takes, and how much of each.
//!
//! *Steady*, while the guest works: what tells of it and is rare, and a random one in [`SAMPLE`] of its other
//! TCP segments and UDP datagrams. *Closely*, while it is idle: all of its TCP, both ways, and all of its UDP.
//!
//! | from the guest | taken |
//! |---|---|
//! | TCP with SYN, FIN or RST | the headers |
//! | other TCP | the headers of some; closely of all |
//! | IGMP, MLD; router and neighbour advertisements | whole |
//! | port unreachable, ICMP and `ICMPv6` | whole |
//! | UDP from or to a port of DHCP, DHCPv6, NetBIOS names, mDNS, LLMNR | whole |
//! | other UDP | closely: whole; the headers of some |
//! | ARP announcements and probes | whole |
//!
//! | to the guest, where that is looked at | taken |
//! |---|---|
//! | TCP with SYN; closely all | the headers |
//! | what a DHCP or DHCPv6 server sends it | whole |
//!
//! One tag in the frame is passed over, as is one beside it. Of a fragmented packet only the first part counts.

use surrogate_wire::vlan::{TPID_8021AD, TPID_8021Q};
use surrogate_wire::{TcpFlags, ethertype, icmpv4, icmpv6, protocol};

use super::bpf::{Assembler, Beside, Instruction, Label, Size};

/// Of so many TCP segments of a busy guest one is taken, whatever its size; a power of two. Each wakes the packet
/// thread: of a guest with 90,000 small segments a second, one in 64 cost about two percent in processor time.
pub const SAMPLE: u32 = 512;
/// So much of a TCP segment's frame is taken: Ethernet header, tag, the longest IPv4 and TCP headers. It is
/// more than IPv6 needs.
pub const HEADERS: u32 = 14 + 4 + 60 + 60;
/// More than any frame has.
const WHOLE: u32 = 1 << 18;

/// The program for one observer. `None` if it outgrew the jumps of classic BPF; the tests make both.
pub(super) fn program(closely: bool) -> Option<Vec<Instruction>> {
    let mut asm = Assembler::default();
    let to_guest = asm.label();
    asm.load_beside(Beside::PacketType);
    // What the port sends is what the guest gets.
    asm.if_equal(libc::PACKET_OUTGOING.into(), to_guest);
    behind_tag(&mut asm, |asm, at| from_guest(asm, at, closely));
    asm.place(to_guest);
    behind_tag(&mut asm, |asm, at| sent_to_guest(asm, at, closely));
    asm.finish()
}

/// What `frame` writes, with and without a tag. It finds the `EtherType` in A, is told where the frame's payload
/// begins, and lets nothing fall through. Every frame comes here and each load is a call: no load too many.
fn behind_tag(asm: &mut Assembler, frame: impl Fn(&mut Assembler, u32)) {
    let tagged = asm.label();
    asm.load(Size::Half, ETHERTYPE_AT);
    asm.if_equal(TPID_8021Q.into(), tagged);
    asm.if_equal(TPID_8021AD.into(), tagged);
    frame(asm, ETHERTYPE_AT + 2);
    asm.place(tagged);
    asm.load(Size::Half, ETHERTYPE_AT + 4);
    frame(asm, ETHERTYPE_AT + 6);
}

fn from_guest(asm: &mut Assembler, at: u32, closely: bool) {
    let [arp, tcp, udp, igmp, icmp, icmpv6] = core::array::from_fn(|_| asm.label());
    let ends = Ends::of(asm);
    asm.if_equal(ethertype::ARP.into(), arp);
    let protocols = [
        (protocol::TCP, tcp),
        (protocol::UDP, udp),
        (protocol::IGMP, igmp),
        (protocol::ICMP, icmp),
        (protocol::ICMPV6, icmpv6),
    ];
    ip(asm, at, &protocols, ends.none);

    asm.place(tcp);
    if closely {
        asm.go(ends.headers);
    } else {
        asm.load_from_x(Size::Byte, at + TCP_FLAGS);
        asm.if_any_bit((TcpFlags::SYN | TcpFlags::FIN | TcpFlags::RST).0.into(), ends.headers);
        some(asm, ends);
    }

    asm.place(udp);
    for port_at in [at, at + 2] {
        asm.load_from_x(Size::Half, port_at);
        for port in PORTS {
            asm.if_equal(port.into(), ends.whole);
        }
    }
    // From which of its ports it answers.
    if closely {
        asm.go(ends.whole);
    } else {
        some(asm, ends);
    }

    asm.place(icmp);
    asm.load_from_x(Size::Half, at);
    asm.if_equal(type_and_code(icmpv4::UNREACHABLE, icmpv4::CODE_PORT), ends.whole);
    asm.go(ends.none);

    asm.place(icmpv6);
    asm.load_from_x(Size::Half, at);
    asm.if_equal(type_and_code(icmpv6::UNREACHABLE, icmpv6::CODE_PORT), ends.whole);
    asm.load_from_x(Size::Byte, at);
    for kind in MLD.into_iter().chain([icmpv6::ROUTER_ADVERTISEMENT, icmpv6::NEIGHBOUR_ADVERTISEMENT]) {
        asm.if_equal(kind.into(), ends.whole);
    }
    asm.go(ends.none);

    asm.place(arp);
    // An announcement asks for the sender's own address (RFC 5227 3), a probe has none yet (2.1.1).
    asm.load(Size::Word, at + ARP_TARGET);
    asm.a_to_x();
    asm.load(Size::Word, at + ARP_SENDER);
    asm.if_equal_to_x(ends.whole);
    asm.if_equal(0, ends.whole);
    asm.go(ends.none);

    asm.place(igmp);
    asm.go(ends.whole);
    ends.place(asm);
}

/// The headers of one frame in [`SAMPLE`].
fn some(asm: &mut Assembler, ends: Ends) {
    asm.load_beside(Beside::Random);
    asm.if_any_bit(SAMPLE - 1, ends.none);
    asm.go(ends.headers);
}

fn sent_to_guest(asm: &mut Assembler, at: u32, closely: bool) {
    let [tcp, udp] = core::array::from_fn(|_| asm.label());
    let ends = Ends::of(asm);
    ip(asm, at, &[(protocol::TCP, tcp), (protocol::UDP, udp)], ends.none);

    asm.place(tcp);
    if !closely {
        asm.load_from_x(Size::Byte, at + TCP_FLAGS);
        asm.if_any_bit(TcpFlags::SYN.0.into(), ends.headers);
        asm.go(ends.none);
    } else {
        asm.go(ends.headers);
    }

    asm.place(udp);
    asm.load_from_x(Size::Word, at);
    for (server, client) in [DHCP, DHCPV6] {
        asm.if_equal(u32::from(server) << 16 | u32::from(client), ends.whole);
    }
    asm.go(ends.none);
    ends.place(asm);
}

/// With the `EtherType` in A: goes to where the packet's protocol is treated, X the length of the headers
/// before that, or to `none`.
fn ip(asm: &mut Assembler, at: u32, protocols: &[(u8, Label)], none: Label) {
    let [ipv4, ipv6, known] = core::array::from_fn(|_| asm.label());
    asm.if_equal(ethertype::IPV4.into(), ipv4);
    asm.if_equal(ethertype::IPV6.into(), ipv6);
    asm.go(none);

    asm.place(ipv4);
    // Flags and fragment offset, time to live, protocol.
    asm.load(Size::Word, at + IPV4_FRAGMENT);
    asm.if_any_bit(0x1fff_0000, none);
    asm.and(0xff);
    asm.ipv4_header_to_x(at);
    asm.go(known);

    asm.place(ipv6);
    let hop_by_hop = asm.label();
    asm.set_x(IPV6_HEADER);
    asm.load(Size::Byte, at + IPV6_NEXT);
    asm.if_equal(protocol::HOP_BY_HOP.into(), hop_by_hop);
    asm.go(known);
    // MLD has its router alert there (RFC 2711). Its length counts words of eight bytes but the first.
    asm.place(hop_by_hop);
    asm.load(Size::Byte, at + IPV6_HEADER + 1);
    asm.shift_left(3);
    asm.add(IPV6_HEADER + 8);
    asm.a_to_x();
    asm.load(Size::Byte, at + IPV6_HEADER);

    asm.place(known);
    for &(protocol, label) in protocols {
        asm.if_equal(protocol.into(), label);
    }
    asm.go(none);
}

/// Where a part of the program ends.
#[derive(Clone, Copy)]
struct Ends {
    headers: Label,
    whole: Label,
    none: Label,
}

impl Ends {
    fn of(asm: &mut Assembler) -> Self {
        Self { headers: asm.label(), whole: asm.label(), none: asm.label() }
    }

    fn place(self, asm: &mut Assembler) {
        for (label, bytes) in [(self.headers, HEADERS), (self.whole, WHOLE), (self.none, 0)] {
            asm.place(label);
            asm.take(bytes);
        }
    }
}

const fn type_and_code(kind: u8, code: u8) -> u32 {
    (kind as u32) << 8 | code as u32
}

/// Server's port, client's port.
const DHCP: (u16, u16) = (67, 68);
const DHCPV6: (u16, u16) = (547, 546);
/// Of DHCP, DHCPv6, NetBIOS names, mDNS and LLMNR.
pub(super) const PORTS: [u16; 7] = [DHCP.0, DHCP.1, DHCPV6.0, DHCPV6.1, 137, 5353, 5355];
/// Query, version 1 report, done, version 2 report (RFC 9777).
const MLD: [u8; 4] = [130, 131, 132, 143];

/// Where fields are: in the frame, and in each header.
const ETHERTYPE_AT: u32 = 12;
const ARP_SENDER: u32 = 14;
const ARP_TARGET: u32 = 24;
const IPV4_FRAGMENT: u32 = 6;
const IPV6_NEXT: u32 = 6;
const IPV6_HEADER: u32 = 40;
const TCP_FLAGS: u32 = 13;

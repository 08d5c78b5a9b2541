//! IPv6: headers, extension headers, fragments, closed UDP ports (RFC 8200, RFC 4443 3, RFC 5095, RFC 7112).

use std::net::Ipv6Addr;

use super::ports;
use crate::build::{V6, ethernet, icmp6, tagged, udp};
use crate::case::{Case, Stimulus, Until};
use crate::hosts::{
    A, A_LINK_LOCAL, A6, CLOSED, ECHO, FAR6, GROUP6, GUEST, GUEST_LINK_LOCAL, GUEST6, NOBODY6, OTHER_GROUP6,
    ROUTER, client6, group_mac, solicited_node, v6_from_a,
};

const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const DESTINATION: u8 = 60;

/// An echo request: what every header is tried with, because a right one is always answered.
fn echo() -> V6 {
    echo_between(A6, GUEST6)
}

fn echo_between(src: Ipv6Addr, dst: Ipv6Addr) -> V6 {
    V6::new(src, dst, 58, icmp6(src, dst, 128, 0, [0x12, 0x34, 0, 1], b"is anybody there?"))
}

fn case(name: &str, source: &'static str, packet: &V6) -> Case {
    Case::new(format!("ipv6/{name}"), source, v6_from_a(packet))
}

pub fn cases() -> Vec<Case> {
    let mut cases = headers();
    cases.extend(addresses());
    cases.extend(extensions());
    cases.extend(fragments());
    cases.extend(datagrams());
    cases
}

fn headers() -> Vec<Case> {
    let whole = echo().payload.len() as u16;
    let mut cases = vec![
        case("plain", "RFC 8200 3", &echo()),
        case("length-short", "RFC 8200 3", &V6 { length: Some(whole - 4), ..echo() }),
        case("length-beyond-the-frame", "RFC 8200 3", &V6 { length: Some(whole + 4), ..echo() }),
        case("length-zero", "RFC 8200 3", &V6 { length: Some(0), ..echo() }),
        case("length-4", "RFC 8200 3", &V6 { length: Some(4), ..echo() }),
    ];
    for version in [0, 4, 5, 7, 15] {
        cases.push(case(&format!("version-{version}"), "RFC 8200 3", &V6 { version, ..echo() }));
    }
    for hop in [0, 1, 255] {
        cases.push(case(&format!("hop-limit-{hop}"), "RFC 8200 3", &V6 { hop, ..echo() }));
    }
    for class in [0x01, 0x02, 0x03, 0xb8] {
        cases.push(case(&format!("class-{class:#04x}"), "RFC 8200 7", &V6 { class, ..echo() }));
    }
    for flow in [1, 0xf_ffff] {
        cases.push(case(&format!("flow-{flow:#x}"), "RFC 6437 3", &V6 { flow, ..echo() }));
    }
    for (name, extra) in [("zeros", vec![0; 9]), ("rubbish", vec![0xa5; 9])] {
        let frame = [v6_from_a(&echo()), extra].concat();
        cases.push(Case::new(format!("ipv6/trailing-{name}"), "RFC 2464 2", frame));
    }
    for length in [0, 1, 39] {
        let mut frame = v6_from_a(&echo());
        frame.truncate(14 + length);
        cases.push(Case::new(format!("ipv6/cut-at-{length}"), "RFC 8200 3", frame));
    }
    cases.push(Case::new("ipv6/in-an-ipv4-frame", "RFC 2464 3", ethernet(GUEST, A, 0x0800, &echo().bytes())));
    let tagged_echo = |tci| tagged(&v6_from_a(&echo()), 0x8100, tci);
    cases.push(
        Case::new("ipv6/tagged-priority-3", "IEEE 802.1Q 9.6", tagged_echo(3 << 13)).differs("vlan-priority"),
    );
    cases.push(Case::new("ipv6/tagged-vlan-7", "IEEE 802.1Q 9.6", tagged_echo(7)).wakes());
    cases
}

fn addresses() -> Vec<Case> {
    let mut cases = vec![
        Case::new("ipv6/from-beyond-the-link", "RFC 8200 3", {
            ethernet(GUEST, ROUTER, 0x86dd, &echo_between(FAR6, GUEST6).bytes())
        }),
        case("link-local", "RFC 4291 2.5.6", &echo_between(A_LINK_LOCAL, GUEST_LINK_LOCAL)),
        case("link-local-to-global", "RFC 4291 2.5.6", &echo_between(A_LINK_LOCAL, GUEST6)),
        case("global-to-link-local", "RFC 4291 2.5.6", &echo_between(A6, GUEST_LINK_LOCAL)),
        case("to-an-unknown-address", "RFC 8200 3", &echo_between(A6, NOBODY6)).wakes(),
        case("to-beyond-the-link", "RFC 8200 3", &echo_between(A6, FAR6)).wakes(),
        case("to-loopback", "RFC 4291 2.5.3", &echo_between(A6, Ipv6Addr::LOCALHOST)).wakes(),
        case("to-unspecified", "RFC 4291 2.5.2", &echo_between(A6, Ipv6Addr::UNSPECIFIED)),
    ];
    for (name, src, source) in [
        ("unspecified", Ipv6Addr::UNSPECIFIED, "RFC 4443 2.2"),
        ("loopback", Ipv6Addr::LOCALHOST, "RFC 4291 2.5.3"),
        ("group", Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1), "RFC 4291 2.7"),
        ("v4-mapped", Ipv6Addr::new(0, 0, 0, 0, 0, 0xffff, 0xc000, 0x0296), "RFC 4291 2.5.5.2"),
        ("guests-own", GUEST6, "RFC 4291 2.1"),
    ] {
        let case = case(&format!("from-{name}"), source, &echo_between(src, GUEST6));
        cases.push(
            case.differs_if(src.is_unspecified(), "no-peer")
                .differs_if(name == "v4-mapped", "back-to-sender"),
        );
    }
    for (name, dst, source) in [
        ("all-nodes", Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1), "RFC 4443 4.2"),
        ("all-nodes-of-the-interface", Ipv6Addr::new(0xff01, 0, 0, 0, 0, 0, 0, 1), "RFC 4291 2.7.1"),
        ("all-routers", Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 2), "RFC 4291 2.7.1"),
        ("solicited-node-group", solicited_node(GUEST6), "RFC 4443 4.2"),
        ("joined-group", GROUP6, "RFC 4443 4.2"),
        ("other-group", OTHER_GROUP6, "RFC 4443 4.2"),
    ] {
        let frame = ethernet(group_mac(dst.into()), A, 0x86dd, &echo_between(A6, dst).bytes());
        let answered = ["all-nodes", "solicited-node-group", "joined-group"].contains(&name);
        cases.push(Case::new(format!("ipv6/to-{name}"), source, frame).differs_if(answered, "echo-group"));
    }
    for (name, mac) in
        [("broadcast", [0xff; 6]), ("group", [0x33, 0x33, 0, 0, 0, 1]), ("another", [2, 0, 0, 0, 1, 0x77])]
    {
        let frame = ethernet(mac, A, 0x86dd, &echo().bytes());
        let case = Case::new(format!("ipv6/in-a-frame-to-{name}"), "RFC 2464 7", frame);
        cases.push(case.differs_if(name != "another", "unicast-in-group-frame"));
    }
    cases
}

fn extensions() -> Vec<Case> {
    let options = |bytes: &[u8]| {
        let mut header = [&[0, 0], bytes].concat();
        header.resize(header.len().next_multiple_of(8), 0);
        header[1] = (header.len() / 8 - 1) as u8;
        header
    };
    let padding: &[u8] = &[1, 4, 0, 0, 0, 0];
    let with = |number, bytes: &[u8]| echo().extended(number, options(bytes));
    let routing =
        |kind, left| echo().extended(ROUTING, [&[0, 2, kind, left, 0, 0, 0, 0], &A6.octets()[..]].concat());
    let mut cases = vec![
        case("hop-by-hop", "RFC 8200 4.3", &with(HOP_BY_HOP, padding)),
        case("hop-by-hop-pad1", "RFC 8200 4.2", &with(HOP_BY_HOP, &[0; 6])),
        case("hop-by-hop-router-alert", "RFC 2711 2.1", &with(HOP_BY_HOP, &[5, 2, 0, 0, 1, 0])),
        case("destination", "RFC 8200 4.6", &with(DESTINATION, padding)),
        case("destination-long", "RFC 8200 4.6", &with(DESTINATION, &[&[1, 60][..], &[0; 60]].concat()))
            .differs("ip6-padding"),
        case(
            "destination-twice",
            "RFC 8200 4.1",
            &with(DESTINATION, padding).extended(DESTINATION, options(padding)),
        ),
        case("hop-by-hop-and-destination", "RFC 8200 4.1", &{
            with(DESTINATION, padding).extended(HOP_BY_HOP, options(padding))
        }),
        case("hop-by-hop-not-first", "RFC 8200 4.1", &{
            with(HOP_BY_HOP, padding).extended(DESTINATION, options(padding))
        })
        .differs("parameter-problem"),
        case("padding-not-zero", "RFC 8200 4.2", &with(DESTINATION, &[1, 4, 9, 9, 9, 9]))
            .differs("ip6-padding"),
        case("option-beyond-the-header", "RFC 8200 4.2", &with(DESTINATION, &[0x1e, 40, 0, 0, 0, 0])),
        case("header-beyond-the-packet", "RFC 8200 4.2", &{
            let mut packet = with(DESTINATION, padding);
            packet.payload[1] = 40;
            packet
        }),
        case("routing-0-done", "RFC 5095 3", &routing(0, 0)).differs("extension-headers"),
        case("routing-0-left", "RFC 5095 3", &routing(0, 1)).differs("parameter-problem"),
        case("routing-2-done", "RFC 6275 6.4", &routing(2, 0)),
        case("routing-unknown-done", "RFC 8200 4.4", &routing(253, 0)),
        case("routing-unknown-left", "RFC 8200 4.4", &routing(253, 1)).wakes(),
        case("routing-srh-left", "RFC 8754 4.3", &routing(4, 1)).wakes(),
        case("no-next-header", "RFC 8200 4.7", &V6 { next: 59, ..echo() }),
        case("nine-extension-headers", "RFC 8504 5.3", &{
            (0..9).fold(echo(), |packet, _| packet.extended(DESTINATION, options(padding)))
        })
        .differs("extension-headers"),
    ];
    for (name, kind) in [("skip", 0x1e), ("discard", 0x5e), ("report", 0x9e), ("report-unicast", 0xde)] {
        for (where_, number) in [("hop-by-hop", HOP_BY_HOP), ("destination", DESTINATION)] {
            let packet = with(number, &[kind, 4, 0, 0, 0, 0]);
            let case = case(&format!("{where_}-unknown-option-{name}"), "RFC 8200 4.2", &packet);
            cases.push(case.differs_if(name.starts_with("report"), "parameter-problem"));
        }
    }
    for next in [4, 41, 47, 50, 51, 132, 253] {
        let packet = V6::new(A6, GUEST6, next, vec![0; 24]);
        cases.push(case(&format!("protocol-{next}"), "RFC 4443 3.4", &packet).wakes());
    }
    cases
}

fn fragments() -> Vec<Case> {
    let message = icmp6(A6, GUEST6, 128, 0, [0x12, 0x34, 0, 2], &[0x5a; 56]);
    let header = |id: u32, offset: usize, more: bool| {
        [&[0, 0][..], &(offset as u16 | u16::from(more)).to_be_bytes(), &id.to_be_bytes()].concat()
    };
    let part = |id, from: usize, to: usize, more| {
        v6_from_a(
            &V6::new(A6, GUEST6, 58, message[from..to].to_vec()).extended(FRAGMENT, header(id, from, more)),
        )
    };
    let several =
        |name: &str, source, frames| Case::of(format!("ipv6/{name}"), source, Stimulus::Frames(frames));
    let alone = |next, offset, more, length: usize| {
        v6_from_a(&V6::new(A6, GUEST6, next, vec![0; length]).extended(FRAGMENT, header(99, offset, more)))
    };
    vec![
        several("fragment-atomic", "RFC 6946 4", vec![part(1, 0, 64, false)]),
        several("fragments", "RFC 8200 4.5", vec![part(2, 0, 32, true), part(2, 32, 64, false)]),
        several("fragments-backwards", "RFC 8200 4.5", vec![part(3, 32, 64, false), part(3, 0, 32, true)]),
        several("fragment-repeated", "RFC 8200 4.5", {
            vec![part(4, 0, 32, true), part(4, 0, 32, true), part(4, 32, 64, false)]
        }),
        several("fragments-overlapping", "RFC 5722 4", vec![part(5, 0, 40, true), part(5, 32, 64, false)]),
        several("fragment-missing", "RFC 8200 4.5", vec![part(6, 0, 32, true)]).holds(),
        several("fragment-last-alone", "RFC 8200 4.5", vec![part(7, 32, 64, false)]).holds(),
        several("fragment-odd-length", "RFC 8200 4.5", vec![alone(58, 0, true, 13)]),
        several("fragment-beyond-the-end", "RFC 8200 4.5", vec![alone(58, 0xfff8, false, 80)])
            .differs("parameter-problem"),
        several("fragment-without-its-header", "RFC 7112 5", vec![alone(6, 0, true, 8)])
            .differs("parameter-problem"),
    ]
}

fn datagrams() -> Vec<Case> {
    let mut port = ports(1);
    let datagram = |ports: (u16, u16), data: &[u8]| {
        let src = client6(ports.0);
        V6::new(src, GUEST6, 17, udp(src.into(), GUEST6.into(), ports, data))
    };
    let mut cases = Vec::new();
    for length in [0, 1, 100, 1184, 1192, 1193, 1452] {
        let packet = datagram((port(), CLOSED), &vec![0x5a; length]);
        cases.push(case(&format!("udp-closed-{length}-bytes"), "RFC 4443 3.1", &packet));
    }
    let mut closed = || datagram((port(), CLOSED), b"0123456789");
    cases.push(case("udp-closed-class", "RFC 4443 2.4", &V6 { class: 0xb8, ..closed() }));
    cases.push(case("udp-closed-behind-options", "RFC 4443 2.4", &{
        closed().extended(DESTINATION, vec![0, 0, 1, 4, 0, 0, 0, 0])
    }));
    let link_local = V6::new(A_LINK_LOCAL, GUEST_LINK_LOCAL, 17, {
        udp(A_LINK_LOCAL.into(), GUEST_LINK_LOCAL.into(), (port(), CLOSED), b"?")
    });
    cases.push(case("udp-closed-link-local", "RFC 4443 3.1", &link_local));
    let mut field = |at: usize, value: u16| {
        let mut packet = datagram((port(), CLOSED), b"0123456789");
        packet.payload[at..at + 2].copy_from_slice(&value.to_be_bytes());
        packet
    };
    cases.push(case("udp-bad-checksum", "RFC 8200 8.1", &field(6, 0x1234)));
    cases.push(case("udp-no-checksum", "RFC 8200 8.1", &field(6, 0)));
    for length in [0, 7, 17, 19, 200] {
        cases.push(case(&format!("udp-length-{length}"), "RFC 768", &field(4, length)));
    }
    for (name, dst) in [("all-nodes", Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1)), ("joined-group", GROUP6)] {
        let ports = (port(), CLOSED);
        let packet = V6::new(A6, dst, 17, udp(A6.into(), dst.into(), ports, b"anyone?"));
        let frame = ethernet(group_mac(dst.into()), A, 0x86dd, &packet.bytes());
        let case = Case::new(format!("ipv6/udp-closed-to-{name}"), "RFC 4443 2.4", frame);
        cases.push(if dst == GROUP6 { case.holds() } else { case });
    }
    for length in [1, 1400] {
        let packet = datagram((port(), ECHO), &vec![0x33; length]);
        cases.push(case(&format!("udp-echo-{length}"), "RFC 862", &packet).until(Until::Frames(1)));
    }
    cases
}

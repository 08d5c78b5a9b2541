//! IPv4: headers, options, fragments, protocols, closed UDP ports (RFC 791, RFC 1122 3.2, RFC 792, RFC 768).

use std::net::Ipv4Addr;

use super::ports;
use crate::build::{DF, MF, V4, ethernet, icmp4, tagged, udp};
use crate::case::{Case, Stimulus, Until};
use crate::hosts::{
    A, A4, CLOSED, ECHO, FAR4, GROUP4, GUEST, GUEST4, NOBODY4, OTHER_GROUP4, ROUTER, client4, group_mac,
    v4_from_a,
};

/// An echo request: what every header is tried with, because a right one is always answered.
pub fn echo() -> V4 {
    V4::new(A4, GUEST4, 1, icmp4(8, 0, [0x12, 0x34, 0, 1], b"is anybody there?"))
}

fn datagram(ports: (u16, u16), data: &[u8]) -> V4 {
    let src = client4(ports.0);
    V4::new(src, GUEST4, 17, udp(src.into(), GUEST4.into(), ports, data))
}

pub fn cases() -> Vec<Case> {
    let mut cases = headers();
    cases.extend(options());
    cases.extend(addresses());
    cases.extend(fragments());
    cases.extend(datagrams());
    cases.extend(protocols());
    cases
}

fn case(name: &str, source: &'static str, packet: &V4) -> Case {
    Case::new(format!("ipv4/{name}"), source, v4_from_a(packet))
}

fn headers() -> Vec<Case> {
    let mut cases = vec![
        case("plain", "RFC 791 3.1", &echo()),
        case("ihl-4", "RFC 791 3.1", &V4 { version_ihl: Some(0x44), ..echo() }),
        case("ihl-0", "RFC 791 3.1", &V4 { version_ihl: Some(0x40), ..echo() }),
        case("ihl-beyond-the-packet", "RFC 791 3.1", &V4 { version_ihl: Some(0x4f), ..echo() }),
        case("bad-checksum", "RFC 1122 3.2.1.2", &V4 { checksum: Some(0xbeef), ..echo() }),
        case("zero-checksum", "RFC 1122 3.2.1.2", &V4 { checksum: Some(0), ..echo() }),
        case("total-below-header", "RFC 791 3.1", &V4 { total: Some(19), ..echo() }),
        case("total-zero", "RFC 791 3.1", &V4 { total: Some(0), ..echo() }),
        case("total-beyond-the-frame", "RFC 791 3.1", &V4 { total: Some(46), ..echo() }),
        case("total-cuts-the-message", "RFC 791 3.1", &V4 { total: Some(40), ..echo() }),
        case("total-header-only", "RFC 791 3.1", &V4 { total: Some(20), ..echo() }),
        case("reserved-flag", "RFC 791 3.1", &V4 { fragment: 0x8000, ..echo() }),
        case("dont-fragment", "RFC 791 3.1", &V4 { fragment: DF, ..echo() }),
        case("id-zero", "RFC 6864 4.1", &V4 { id: 0, ..echo() }),
        case("id-ffff", "RFC 6864 4.1", &V4 { id: 0xffff, ..echo() }),
    ];
    for version in [0x05, 0x55, 0x65, 0xf5] {
        let packet = V4 { version_ihl: Some(version), ..echo() };
        cases.push(case(&format!("version-{}", version >> 4), "RFC 1122 3.2.1.1", &packet));
    }
    for ttl in [0, 1, 2, 255] {
        cases.push(
            case(&format!("ttl-{ttl}"), "RFC 1122 3.2.1.7", &V4 { ttl, ..echo() })
                .differs_if(ttl == 0, "ttl-zero"),
        );
    }
    for tos in [0x01, 0x02, 0x03, 0x10, 0xb8, 0xff] {
        cases.push(case(&format!("tos-{tos:#04x}"), "RFC 1122 3.2.1.6", &V4 { tos, ..echo() }));
    }
    for (name, extra) in [("zeros", vec![0; 9]), ("rubbish", vec![0xa5; 9])] {
        let frame = [v4_from_a(&echo()), extra].concat();
        cases.push(Case::new(format!("ipv4/trailing-{name}"), "RFC 894", frame));
    }
    for length in [0, 1, 19] {
        let mut frame = v4_from_a(&echo());
        frame.truncate(14 + length);
        cases.push(Case::new(format!("ipv4/cut-at-{length}"), "RFC 791 3.1", frame));
    }
    cases.push(Case::new("ipv4/in-an-ipv6-frame", "RFC 894", ethernet(GUEST, A, 0x86dd, &echo().bytes())));
    cases
        .push(Case::new("ipv4/in-an-llc-frame", "RFC 1042", ethernet(GUEST, A, 45, &echo().bytes())).holds());
    for (name, tci) in [("priority-3", 3 << 13), ("drop-eligible", 1 << 12)] {
        let frame = tagged(&v4_from_a(&echo()), 0x8100, tci);
        cases.push(
            Case::new(format!("ipv4/tagged-{name}"), "IEEE 802.1Q 9.6", frame).differs("vlan-priority"),
        );
    }
    let frame = tagged(&v4_from_a(&echo()), 0x8100, 7);
    cases.push(Case::new("ipv4/tagged-vlan-7", "IEEE 802.1Q 9.6", frame).wakes());
    let frame = tagged(&tagged(&v4_from_a(&echo()), 0x8100, 7), 0x88a8, 8);
    cases.push(Case::new("ipv4/tagged-twice", "IEEE 802.1ad", frame).wakes());
    cases
}

fn options() -> Vec<Case> {
    let with = |options: &[u8]| V4 { options: options.to_vec(), ..echo() };
    let named: [(&str, &'static str, &[u8]); 17] = [
        ("end", "RFC 791 3.1", &[0]),
        ("no-operation", "RFC 791 3.1", &[1, 1, 1, 1]),
        ("record-route", "RFC 1122 3.2.1.8", &[7, 15, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]),
        ("record-route-full", "RFC 1122 3.2.1.8", &[7, 7, 8, 192, 0, 2, 1]),
        ("record-route-short", "RFC 791 3.1", &[7, 3, 4]),
        ("timestamp", "RFC 1122 3.2.1.8", &[68, 12, 5, 0, 0, 0, 0, 0, 0, 0, 0, 0]),
        ("loose-source-route", "RFC 7126 4.3", &[131, 7, 4, 192, 0, 2, 99]),
        ("strict-source-route", "RFC 7126 4.4", &[137, 7, 4, 192, 0, 2, 99]),
        ("source-route-done", "RFC 7126 4.3", &[131, 7, 8, 192, 0, 2, 99]),
        ("security", "RFC 7126 4.12", &[130, 11, 0, 0, 0, 0, 0, 0, 0, 0, 0]),
        ("stream-id", "RFC 7126 4.2", &[136, 4, 0, 1]),
        ("router-alert", "RFC 2113", &[148, 4, 0, 0]),
        ("unknown", "RFC 1122 3.2.1.8", &[0x9e, 4, 1, 2]),
        ("length-0", "RFC 791 3.1", &[7, 0, 4, 0]),
        ("length-1", "RFC 791 3.1", &[7, 1, 4, 0]),
        ("length-beyond", "RFC 791 3.1", &[7, 40, 4, 0]),
        ("quick-start", "RFC 4782", &[25, 8, 0, 0, 0, 0, 0, 0]),
    ];
    let updated = ["record-route", "record-route-full", "record-route-short", "timestamp"];
    let cases = named.iter().map(|(name, source, bytes)| {
        case(&format!("option-{name}"), source, &with(bytes))
            .differs_if(updated.contains(name), "ip-options")
            .differs_if(name.starts_with("length"), "parameter-problem")
    });
    cases.collect()
}

fn addresses() -> Vec<Case> {
    let subnet_broadcast = Ipv4Addr::new(192, 0, 2, 255);
    let mut cases = vec![
        Case::new("ipv4/from-beyond-the-link", "RFC 791 2.3", {
            ethernet(GUEST, ROUTER, 0x0800, &V4 { src: FAR4, ..echo() }.bytes())
        }),
        case("to-an-unknown-address", "RFC 1122 3.2.1.3", &V4 { dst: NOBODY4, ..echo() }).wakes(),
        case("to-beyond-the-link", "RFC 1122 3.2.1.3", &V4 { dst: FAR4, ..echo() }).wakes(),
        case("to-loopback", "RFC 1122 3.2.1.3", &V4 { dst: Ipv4Addr::LOCALHOST, ..echo() }).wakes(),
        case("to-zero", "RFC 1122 3.2.1.3", &V4 { dst: Ipv4Addr::UNSPECIFIED, ..echo() }).wakes(),
    ];
    for (name, src) in [
        ("zero", Ipv4Addr::UNSPECIFIED),
        ("broadcast", Ipv4Addr::BROADCAST),
        ("subnet-broadcast", subnet_broadcast),
        ("subnet-zero", Ipv4Addr::new(192, 0, 2, 0)),
        ("group", Ipv4Addr::new(224, 0, 0, 1)),
        ("loopback", Ipv4Addr::LOCALHOST),
        ("guests-own", GUEST4),
    ] {
        cases.push(
            case(&format!("from-{name}"), "RFC 1122 3.2.1.3", &V4 { src, ..echo() })
                .differs_if(name.starts_with("subnet"), "no-peer"),
        );
    }
    for (name, dst, source) in [
        ("broadcast", Ipv4Addr::BROADCAST, "RFC 1122 3.2.2.6"),
        ("subnet-broadcast", subnet_broadcast, "RFC 1122 3.2.2.6"),
        ("all-hosts", Ipv4Addr::new(224, 0, 0, 1), "RFC 1122 3.2.2.6"),
        ("joined-group", GROUP4, "RFC 1122 3.2.2.6"),
        ("other-group", OTHER_GROUP4, "RFC 1112 7.1"),
    ] {
        let packet = V4 { dst, ..echo() };
        let mac = if dst.is_multicast() { group_mac(dst.into()) } else { [0xff; 6] };
        cases.push(Case::new(format!("ipv4/to-{name}"), source, ethernet(mac, A, 0x0800, &packet.bytes())));
        cases.push(
            case(&format!("to-{name}-by-unicast-frame"), source, &packet).wakes_if(dst == OTHER_GROUP4),
        );
    }
    let frame = |mac| ethernet(mac, A, 0x0800, &echo().bytes());
    cases.push(
        Case::new("ipv4/unicast-in-a-broadcast-frame", "RFC 1122 3.3.6", frame([0xff; 6]))
            .differs("unicast-in-group-frame"),
    );
    let group = frame([1, 0, 0x5e, 0, 0, 1]);
    cases.push(
        Case::new("ipv4/unicast-in-a-group-frame", "RFC 1122 3.3.6", group).differs("unicast-in-group-frame"),
    );
    cases.push(Case::new("ipv4/to-another-station", "RFC 894", frame([2, 0, 0, 0, 1, 0x77])));
    cases.push(Case::new("ipv4/from-a-group-mac", "IEEE 802.3 3.2.3", {
        ethernet(GUEST, [1, 0, 0x5e, 0, 0, 9], 0x0800, &echo().bytes())
    }));
    cases
}

fn fragments() -> Vec<Case> {
    let message = icmp4(8, 0, [0x12, 0x34, 0, 2], &[0x5a; 56]);
    let part = |id, from: usize, to: usize, more| {
        let payload = message[from..to].to_vec();
        let fragment = (from / 8) as u16 | if more { MF } else { 0 };
        v4_from_a(&V4 { id, fragment, ..V4::new(A4, GUEST4, 1, payload) })
    };
    let several =
        |name: &str, source, frames| Case::of(format!("ipv4/{name}"), source, Stimulus::Frames(frames));
    let end =
        |fragment, payload: usize| v4_from_a(&V4 { fragment, ..V4::new(A4, GUEST4, 1, vec![0; payload]) });
    vec![
        several("fragments", "RFC 791 3.2", vec![part(1, 0, 32, true), part(1, 32, 64, false)]),
        several("fragments-three", "RFC 791 3.2", {
            vec![part(2, 0, 16, true), part(2, 16, 40, true), part(2, 40, 64, false)]
        }),
        several("fragments-backwards", "RFC 791 3.2", vec![part(3, 32, 64, false), part(3, 0, 32, true)]),
        several("fragment-repeated", "RFC 815 3", {
            vec![part(4, 0, 32, true), part(4, 0, 32, true), part(4, 32, 64, false)]
        }),
        several("fragments-overlapping", "RFC 1858 3", vec![part(5, 0, 40, true), part(5, 32, 64, false)]),
        several("fragment-missing", "RFC 791 3.2", vec![part(6, 0, 32, true)]).holds(),
        several("fragment-last-alone", "RFC 791 3.2", vec![part(7, 32, 64, false)]).holds(),
        several("fragments-of-two-ids", "RFC 791 3.2", vec![part(8, 0, 32, true), part(9, 32, 64, false)])
            .holds(),
        several("fragment-odd-length", "RFC 791 3.2", vec![end(MF, 13)]),
        several("fragment-empty", "RFC 791 3.2", vec![end(MF, 0)]),
        several("fragment-beyond-the-end", "RFC 791 3.2", vec![end(0x1fff, 80)]),
        several("fragment-tiny-first", "RFC 1858 3.1", {
            let mut first = V4::new(A4, GUEST4, 6, vec![0; 8]);
            first.fragment = MF;
            vec![v4_from_a(&first)]
        }),
        several("fragment-at-offset-8-of-tcp", "RFC 3128", {
            let mut second = V4::new(A4, GUEST4, 6, vec![0; 8]);
            second.fragment = 1;
            vec![v4_from_a(&second)]
        }),
    ]
}

fn datagrams() -> Vec<Case> {
    let mut port = ports(0);
    let mut cases = Vec::new();
    for length in [0, 1, 8, 100, 520, 548, 549, 1000, 1472] {
        let packet = datagram((port(), CLOSED), &vec![0x5a; length]);
        cases.push(case(&format!("udp-closed-{length}-bytes"), "RFC 1122 4.1.3.1", &packet));
    }
    for tos in [0x03, 0x10, 0xb8] {
        let packet = V4 { tos, ..datagram((port(), CLOSED), b"?") };
        cases.push(case(&format!("udp-closed-tos-{tos:#04x}"), "RFC 1812 4.3.2.5", &packet));
    }
    for (name, ports) in [("source-0", (0, CLOSED)), ("to-0", (port(), 0)), ("to-65535", (port(), 65_535))] {
        cases.push(case(&format!("udp-closed-{name}"), "RFC 768", &datagram(ports, b"?")));
    }
    let field = |at: usize, value: u16, port: u16| {
        let mut packet = datagram((port, CLOSED), b"0123456789");
        packet.payload[at..at + 2].copy_from_slice(&value.to_be_bytes());
        packet
    };
    cases.push(case("udp-bad-checksum", "RFC 1122 4.1.3.4", &field(6, 0x1234, port())));
    cases.push(case("udp-no-checksum", "RFC 1122 4.1.3.4", &field(6, 0, port())));
    for length in [0, 7, 9, 19, 200] {
        // Without a checksum, so that only the length can be wrong.
        let mut packet = field(6, 0, port());
        packet.payload[4..6].copy_from_slice(&u16::to_be_bytes(length));
        let case = case(&format!("udp-length-{length}"), "RFC 768", &packet);
        cases.push(case.differs_if(length == 9, "unreachable-quote"));
    }
    let mut closed = || datagram((port(), CLOSED), b"0123456789");
    cases.push(case("udp-closed-with-options", "RFC 1122 3.2.2", &V4 { options: vec![1; 4], ..closed() }));
    cases.push(case("udp-closed-df", "RFC 1122 3.2.2", &V4 { fragment: DF, ..closed() }));
    cases.push(case("udp-closed-ttl-1", "RFC 1122 3.2.1.7", &V4 { ttl: 1, ..closed() }));
    for dst in [Ipv4Addr::BROADCAST, Ipv4Addr::new(192, 0, 2, 255), Ipv4Addr::new(224, 0, 0, 1), GROUP4] {
        let ports = (port(), CLOSED);
        let packet = V4::new(A4, dst, 17, udp(A4.into(), dst.into(), ports, b"anyone?"));
        let mac = if dst.is_multicast() { group_mac(dst.into()) } else { [0xff; 6] };
        let frame = ethernet(mac, A, 0x0800, &packet.bytes());
        let case = Case::new(format!("ipv4/udp-closed-to-{dst}"), "RFC 1122 3.2.2", frame);
        cases.push(if dst == GROUP4 { case.holds() } else { case });
    }
    for (name, tos, length) in [("1", 0, 1), ("17", 0, 17), ("1400", 0, 1400), ("tos", 0xb8, 4)] {
        let packet = V4 { tos, ..datagram((port(), ECHO), &vec![0x33; length]) };
        cases.push(case(&format!("udp-echo-{name}"), "RFC 862", &packet).until(Until::Frames(1)));
    }
    cases.push(case("udp-echo-bad-checksum", "RFC 1122 4.1.3.4", &{
        let mut packet = datagram((port(), ECHO), b"x");
        packet.payload[6] ^= 0x55;
        packet
    }));
    let message = udp(A4.into(), GUEST4.into(), (port(), CLOSED), &[0x44; 56]);
    let part = |from: usize, to: usize, more| {
        let fragment = (from / 8) as u16 | if more { MF } else { 0 };
        v4_from_a(&V4 { id: 77, fragment, ..V4::new(A4, GUEST4, 17, message[from..to].to_vec()) })
    };
    let frames = Stimulus::Frames(vec![part(0, 32, true), part(32, 64, false)]);
    cases.push(Case::of("ipv4/udp-closed-in-fragments", "RFC 1122 4.1.3.1", frames));
    cases
}

fn protocols() -> Vec<Case> {
    let mut cases = Vec::new();
    for protocol in [0, 3, 4, 41, 47, 50, 132, 253, 255] {
        let packet = V4::new(A4, GUEST4, protocol, vec![0; 24]);
        cases.push(case(&format!("protocol-{protocol}"), "RFC 1122 3.2.2.1", &packet).wakes());
    }
    cases
}

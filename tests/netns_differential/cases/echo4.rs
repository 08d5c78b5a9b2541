//! ICMP (RFC 792, RFC 1122 3.2.2).

use crate::build::{V4, icmp4};
use crate::case::Case;
use crate::hosts::{A4, CLOSED, GUEST4, v4_from_a};

pub fn cases() -> Vec<Case> {
    let of = |message: Vec<u8>| v4_from_a(&V4::new(A4, GUEST4, 1, message));
    let case = |name: &str, source, message| Case::new(format!("icmp/{name}"), source, of(message));
    let mut cases = Vec::new();
    for length in [0, 1, 2, 7, 8, 18, 56, 57, 1000, 1471, 1472] {
        let data: Vec<u8> = (0..length).map(|n| (n * 7) as u8).collect();
        let message = icmp4(8, 0, [0, 1, 0, 1], &data);
        cases.push(case(&format!("echo-{length}-bytes"), "RFC 1122 3.2.2.6", message));
    }
    for (name, rest) in [("zero", [0; 4]), ("ones", [0xff; 4]), ("mixed", [0xab, 0xcd, 0x12, 0x34])] {
        let message = icmp4(8, 0, rest, b"data");
        cases.push(case(&format!("echo-id-{name}"), "RFC 792 echo", message));
    }
    // Data for which the checksum comes out as all zeros, and as all ones.
    let right = u16::from_be_bytes([icmp4(8, 0, [0; 4], &[0, 0])[2], icmp4(8, 0, [0; 4], &[0, 0])[3]]);
    let data = right.to_be_bytes();
    cases.push(case("echo-checksum-zero", "RFC 1071 1", icmp4(8, 0, [0; 4], &data)));
    let mut damaged = icmp4(8, 0, [0, 1, 0, 1], b"data");
    damaged[3] ^= 1;
    cases.push(case("echo-bad-checksum", "RFC 1122 3.2.2", damaged));
    let mut blank = icmp4(8, 0, [0, 1, 0, 1], b"data");
    blank[2..4].fill(0);
    cases.push(case("echo-no-checksum", "RFC 1122 3.2.2", blank));
    for code in [1, 255] {
        cases.push(case(&format!("echo-code-{code}"), "RFC 792 echo", icmp4(8, code, [0, 1, 0, 1], b"data")));
    }
    for length in [0, 1, 4, 7] {
        let mut message = icmp4(8, 0, [0, 1, 0, 1], &[]);
        message.truncate(length);
        cases.push(case(&format!("echo-cut-at-{length}"), "RFC 792 echo", message));
    }
    for (kind, name, source) in [
        (13, "timestamp", "RFC 1122 3.2.2.8"),
        (15, "information", "RFC 1122 3.2.2.7"),
        (17, "address-mask", "RFC 1122 3.2.2.9"),
        (10, "router-solicitation", "RFC 1256 2"),
        (9, "router-advertisement", "RFC 1256 2"),
    ] {
        let message = icmp4(kind, 0, [0, 1, 0, 1], &[0; 12]);
        cases.push(case(name, source, message).differs_if(kind == 13, "icmp-other"));
    }
    for (kind, name, source) in [
        (0, "echo-reply", "RFC 1122 3.2.2.6"),
        (4, "source-quench", "RFC 6633 3"),
        (5, "redirect", "RFC 1122 3.2.2.2"),
        (6, "type-6", "RFC 1122 3.2.2"),
        (14, "timestamp-reply", "RFC 1122 3.2.2.8"),
        (30, "traceroute", "RFC 6918"),
        (40, "photuris", "RFC 2521 2"),
        (42, "extended-echo", "RFC 8335 2"),
        (200, "type-200", "RFC 1122 3.2.2"),
    ] {
        cases.push(case(name, source, icmp4(kind, 0, [0, 1, 0, 1], &[0; 28])).holds());
    }
    // About a connection that the guest does not have.
    let quote =
        V4::new(GUEST4, A4, 6, [CLOSED.to_be_bytes(), 2000u16.to_be_bytes(), [0; 2], [0; 2]].concat())
            .bytes();
    for (kind, code, name) in [
        (3, 0, "net-unreachable"),
        (3, 1, "host-unreachable"),
        (3, 3, "port-unreachable"),
        (3, 4, "too-big"),
        (11, 0, "time-exceeded"),
        (12, 0, "parameter-problem"),
    ] {
        let source = "RFC 1122 3.2.2.1";
        cases.push(case(name, source, icmp4(kind, code, [0, 0, 5, 0], &quote)).holds());
        if code == 3 {
            cases.push(
                case("port-unreachable-short-quote", source, icmp4(3, 3, [0; 4], &quote[..12])).holds(),
            );
        }
    }
    cases
}

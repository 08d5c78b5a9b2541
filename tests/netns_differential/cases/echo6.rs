//! ICMPv6 but neighbour discovery (RFC 4443).

use crate::build::{V6, icmp6};
use crate::case::Case;
use crate::hosts::{A6, CLOSED, GUEST6, v6_from_a};

pub fn cases() -> Vec<Case> {
    let case = |name: &str, source, message| {
        Case::new(format!("icmpv6/{name}"), source, v6_from_a(&V6::new(A6, GUEST6, 58, message)))
    };
    let message = |kind, code, rest, data: &[u8]| icmp6(A6, GUEST6, kind, code, rest, data);
    let mut cases = Vec::new();
    for length in [0, 1, 8, 56, 57, 1000, 1451, 1452] {
        let data: Vec<u8> = (0..length).map(|n| (n * 7) as u8).collect();
        cases.push(case(
            &format!("echo-{length}-bytes"),
            "RFC 4443 4.2",
            message(128, 0, [0, 1, 0, 1], &data),
        ));
    }
    for (name, rest) in [("zero", [0; 4]), ("ones", [0xff; 4])] {
        cases.push(case(&format!("echo-id-{name}"), "RFC 4443 4.1", message(128, 0, rest, b"data")));
    }
    let mut damaged = message(128, 0, [0, 1, 0, 1], b"data");
    damaged[3] ^= 1;
    cases.push(case("echo-bad-checksum", "RFC 4443 2.3", damaged));
    let mut blank = message(128, 0, [0, 1, 0, 1], b"data");
    blank[2..4].fill(0);
    cases.push(case("echo-no-checksum", "RFC 4443 2.3", blank));
    for code in [1, 255] {
        cases.push(case(
            &format!("echo-code-{code}"),
            "RFC 4443 4.1",
            message(128, code, [0, 1, 0, 1], b"data"),
        ));
    }
    for length in [4, 6, 7] {
        let mut short = icmp6(A6, GUEST6, 128, 0, [0; 4], &[]);
        short.truncate(length);
        short[2..4].fill(0);
        let checksum = crate::build::transport_sum(A6.into(), GUEST6.into(), 58, &short);
        short[2..4].copy_from_slice(&checksum.to_be_bytes());
        cases.push(case(&format!("echo-cut-at-{length}"), "RFC 4443 4.1", short));
    }
    for (kind, name, source) in [
        (100, "experimental-error", "RFC 4443 2.1"),
        (129, "echo-reply", "RFC 4443 4.2"),
        (127, "reserved-error", "RFC 4443 2.1"),
    ] {
        cases.push(case(name, source, message(kind, 0, [0, 1, 0, 1], &[0; 40])).holds());
    }
    for (kind, name, source) in [
        (138, "router-renumbering", "RFC 2894 3"),
        (139, "node-query", "RFC 4620 5"),
        (141, "inverse-solicitation", "RFC 3122 4"),
        (144, "home-agent", "RFC 6275 6.5"),
        (160, "extended-echo", "RFC 8335 2"),
        (200, "experimental", "RFC 4443 2.1"),
        (255, "reserved", "RFC 4443 2.1"),
    ] {
        cases.push(case(name, source, message(kind, 0, [0, 1, 0, 1], &[0; 40])));
    }
    // About a connection that the guest does not have.
    let ports = [CLOSED.to_be_bytes(), 2000u16.to_be_bytes(), [0; 2], [0; 2]].concat();
    let quote = V6::new(GUEST6, A6, 6, ports).bytes();
    for (kind, code, name) in [
        (1, 0, "no-route"),
        (1, 4, "port-unreachable"),
        (2, 0, "too-big"),
        (3, 0, "time-exceeded"),
        (4, 1, "parameter-problem"),
    ] {
        cases.push(case(name, "RFC 4443 2.4", message(kind, code, [0, 0, 5, 0], &quote)).holds());
    }
    cases
}

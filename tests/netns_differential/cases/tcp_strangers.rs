//! TCP segments of no connection that the guest has (RFC 9293 3.5.2, 3.10.7.1, 3.10.7.2, RFC 1122 4.2).

use std::net::IpAddr;

use super::ports;
use crate::build::{ACK, CWR, ECE, FIN, PSH, RST, SYN, Tcp, URG, V4, ethernet, timestamps};
use crate::case::Case;
use crate::hosts::{A, A4, A6, CLOSED, FAR4, GUEST, GUEST4, GUEST6, ROUTER, SINK, from_a, v4_from_a};

/// What a client's SYN has in it.
fn syn_options() -> Vec<u8> {
    [&[2, 4, 0x05, 0xb4, 4, 2][..], &timestamps(5_000, 0)[2..], &[1, 3, 3, 7]].concat()
}

pub fn cases() -> Vec<Case> {
    let mut port = ports(2);
    let mut cases = Vec::new();
    let families: [(&str, IpAddr, IpAddr); 2] =
        [("", A4.into(), GUEST4.into()), ("6", A6.into(), GUEST6.into())];
    for (family, src, dst) in families {
        for (state, to) in [("closed", CLOSED), ("open", SINK)] {
            for (name, flags) in FLAGS {
                let segment = Tcp { seq: 0x1000, ack: 0x2000, ..Tcp::new((port(), to), *flags) };
                let name = format!("tcp{family}/{state}-{name}");
                let case = Case::new(name, "RFC 9293 3.10.7", from_a(src, dst, 6, segment.bytes(src, dst)));
                cases.push(expected(case, *flags, to));
            }
        }
        let closed = |name: &str, source, segment: Tcp| {
            let bytes = from_a(src, dst, 6, segment.bytes(src, dst));
            Case::new(format!("tcp{family}/{name}"), source, bytes)
        };
        let mut syn = |to| Tcp { seq: 0xffff_fff0, ..Tcp::new((port(), to), SYN) };
        cases.extend([
            closed(
                "closed-syn-with-options",
                "RFC 9293 3.10.7.1",
                Tcp { options: syn_options(), ..syn(CLOSED) },
            ),
            closed("closed-syn-with-data", "RFC 9293 3.10.7.1", Tcp { data: vec![1; 32], ..syn(CLOSED) }),
            closed("closed-syn-to-0", "RFC 9293 3.10.7.1", syn(0)),
            closed("closed-syn-from-0", "RFC 9293 3.10.7.1", Tcp::new((0, CLOSED), SYN)),
            closed("closed-syn-seq-at-the-end", "RFC 9293 3.4", Tcp { seq: u32::MAX, ..syn(CLOSED) }),
            closed("closed-syn-offset-4", "RFC 9293 3.1", Tcp { offset: Some(4), ..syn(CLOSED) }),
            closed("closed-syn-offset-15", "RFC 9293 3.1", Tcp { offset: Some(15), ..syn(CLOSED) }),
            closed(
                "closed-syn-option-length-0",
                "RFC 9293 3.2",
                Tcp { options: vec![2, 0, 5, 0xb4], ..syn(CLOSED) },
            ),
            closed(
                "closed-syn-option-beyond",
                "RFC 9293 3.2",
                Tcp { options: vec![2, 40, 5, 0xb4], ..syn(CLOSED) },
            ),
            // As a scanner for operating systems asks.
            closed(
                "closed-ack-with-options-of-a-syn",
                "RFC 7323 2.2",
                Tcp { options: syn_options(), flags: ACK, ack: 0x2000, ..syn(CLOSED) },
            ),
            closed("open-syn-with-options", "RFC 9293 3.10.7.2", Tcp { options: syn_options(), ..syn(SINK) })
                .wakes(),
            closed("open-syn-with-data", "RFC 9293 3.10.7.2", Tcp { data: vec![1; 32], ..syn(SINK) }).wakes(),
            closed(
                "open-syn-option-length-0",
                "RFC 9293 3.2",
                Tcp { options: vec![2, 0, 5, 0xb4], ..syn(SINK) },
            )
            .wakes(),
            closed("open-syn-mss-0", "RFC 9293 3.7.1", Tcp { options: vec![2, 4, 0, 0], ..syn(SINK) })
                .wakes(),
        ]);
        for (name, to) in [("closed", CLOSED), ("open", SINK)] {
            let segment = Tcp { data: b"data".to_vec(), ack: 7, flags: PSH | ACK, ..syn(to) };
            let bytes = from_a(src, dst, 6, segment.bytes(src, dst));
            cases.push(Case::new(format!("tcp{family}/{name}-data"), "RFC 9293 3.10.7.1", bytes).wakes());
        }
        let mut damaged = from_a(src, dst, 6, syn(CLOSED).bytes(src, dst));
        let last = damaged.len() - 1;
        damaged[last] ^= 1;
        cases.push(Case::new(format!("tcp{family}/closed-syn-bad-checksum"), "RFC 9293 3.1", damaged));
        let short = from_a(src, dst, 6, syn(CLOSED).bytes(src, dst)[..12].to_vec());
        cases.push(Case::new(format!("tcp{family}/closed-syn-cut-at-12"), "RFC 9293 3.1", short));
    }
    let mut syn =
        |src, dst| V4::new(src, dst, 6, Tcp::new((port(), CLOSED), SYN).bytes(src.into(), dst.into()));
    for tos in [0x02, 0x03, 0xb8, 0xba] {
        let packet = V4 { tos, ..syn(A4, GUEST4) };
        cases.push(Case::new(format!("tcp/closed-syn-tos-{tos:#04x}"), "RFC 3168 6.1.1", v4_from_a(&packet)));
    }
    let far = syn(FAR4, GUEST4).bytes();
    cases.push(Case::new(
        "tcp/closed-syn-from-beyond-the-link",
        "RFC 9293 3.5.2",
        ethernet(GUEST, ROUTER, 0x0800, &far),
    ));
    let own = v4_from_a(&syn(GUEST4, GUEST4));
    cases.push(Case::new("tcp/closed-syn-from-the-guests-own", "RFC 1122 4.2.3.10", own));
    for (name, dst) in [("subnet-broadcast", [192, 0, 2, 255].into()), ("all-hosts", [224, 0, 0, 1].into())] {
        let frame = ethernet([0xff; 6], A, 0x0800, &syn(A4, dst).bytes());
        cases.push(Case::new(format!("tcp/closed-syn-to-{name}"), "RFC 1122 4.2.3.10", frame));
    }
    cases
}

/// What has no ACK is of no connection of the guest's: of a closed port all is known, at an open one the guest would
/// answer none but a SYN. With ACK only the guest can say what it has. A reset is kept for it and wakes nobody, nor does
/// an acknowledgement that asks for nothing.
fn expected(case: Case, flags: u8, to: u16) -> Case {
    let asks_nothing = flags & RST != 0 || flags & !PSH == ACK;
    match flags & (SYN | ACK) {
        _ if asks_nothing => case.holds(),
        0 | SYN if to == CLOSED => case,
        0 => case.holds(),
        _ => case.wakes(),
    }
}

const FLAGS: &[(&str, u8)] = &[
    ("syn", SYN),
    ("syn-ecn", SYN | ECE | CWR),
    ("syn-psh", SYN | PSH),
    ("syn-urg", SYN | URG),
    ("syn-fin", SYN | FIN),
    ("syn-rst", SYN | RST),
    ("syn-ack", SYN | ACK),
    ("ack", ACK),
    ("psh-ack", PSH | ACK),
    ("fin", FIN),
    ("fin-ack", FIN | ACK),
    ("rst", RST),
    ("rst-ack", RST | ACK),
    ("nothing", 0),
    ("urg", URG),
    ("xmas", FIN | PSH | URG),
    ("everything", 0xff),
];

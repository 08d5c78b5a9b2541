//! ARP (RFC 826, RFC 1122 2.3.2, RFC 5227).

use std::net::Ipv4Addr;

use crate::build::{Arp, BROADCAST, Mac, ethernet, tagged};
use crate::case::{Case, Stimulus};
use crate::hosts::{A, A4, FAR4, GUEST, GUEST4, NOBODY4, ROUTER, ROUTER4};

const ZERO: Mac = [0; 6];
/// Another station of the link.
const OTHER: Mac = [2, 0, 0, 0, 1, 0x77];

fn request() -> Arp {
    Arp::request(A, A4, GUEST4)
}

fn to_all(arp: Arp) -> Vec<u8> {
    ethernet(BROADCAST, A, 0x0806, &arp.bytes())
}

fn to_guest(arp: Arp) -> Vec<u8> {
    ethernet(GUEST, A, 0x0806, &arp.bytes())
}

pub fn cases() -> Vec<Case> {
    let case = |name: &str, source, frame| Case::new(format!("arp/{name}"), source, frame);
    let probe = Arp { spa: Ipv4Addr::UNSPECIFIED, ..request() };
    let mut cases = vec![
        case("request", "RFC 826", to_all(request())),
        case("request-twice", "RFC 826", to_all(request())).twice(),
        case("request-of-router", "RFC 826", {
            ethernet(BROADCAST, ROUTER, 0x0806, &Arp::request(ROUTER, ROUTER4, GUEST4).bytes())
        }),
        case("request-from-beyond-the-link", "RFC 826", to_all(Arp { spa: FAR4, ..request() })),
        case("request-tha-filled", "RFC 826", to_all(Arp { tha: [0xee; 6], ..request() })),
        case("request-tha-guest", "RFC 826", to_all(Arp { tha: GUEST, ..request() })),
        case("request-sha-not-frame-source", "RFC 826", to_all(Arp { sha: OTHER, ..request() })),
        case("request-padded-with-rubbish", "RFC 894", [to_all(request()), vec![0xa5; 18]].concat()),
        case("request-long", "RFC 826", [to_all(request()), vec![0; 1000]].concat()),
        case("poll", "RFC 1122 2.3.2.1", to_guest(request())),
        case("poll-tha-guest", "RFC 1122 2.3.2.1", to_guest(Arp { tha: GUEST, ..request() })),
        case("poll-of-router", "RFC 1122 2.3.2.1", {
            ethernet(GUEST, ROUTER, 0x0806, &Arp::request(ROUTER, ROUTER4, GUEST4).bytes())
        }),
        case("probe", "RFC 5227 2.1.1", to_all(probe)),
        case("probe-unicast", "RFC 5227 2.1.1", to_guest(probe)),
        case("probe-for-another", "RFC 5227 2.1.1", to_all(Arp { tpa: NOBODY4, ..probe })),
        case("announcement-of-another", "RFC 5227 2.3", to_all(Arp { tpa: A4, ..request() })),
        case("announcement-of-another-as-reply", "RFC 5227 3", to_all(Arp { op: 2, tpa: A4, ..request() })),
        case("request-for-another", "RFC 826", to_all(Arp { tpa: NOBODY4, ..request() })),
        case("poll-for-another", "RFC 826", to_guest(Arp { tpa: NOBODY4, ..request() })).wakes(),
        case("reply-unicast", "RFC 826", to_guest(Arp { op: 2, tha: GUEST, ..request() })).holds(),
        case("reply-to-all", "RFC 826", to_all(Arp { op: 2, tha: GUEST, ..request() })),
        case("to-another-station", "RFC 826", ethernet(OTHER, A, 0x0806, &request().bytes())),
        case("to-a-group-mac", "RFC 826", ethernet([1, 0, 0x5e, 0, 0, 1], A, 0x0806, &request().bytes()))
            .differs("arp-strict"),
        case("rarp-request", "RFC 903", ethernet(BROADCAST, A, 0x8035, &Arp { op: 3, ..request() }.bytes())),
        case("empty", "RFC 826", ethernet(BROADCAST, A, 0x0806, &[])),
        case("loop-of-the-guests-own", "RFC 826", to_all(Arp { sha: GUEST, spa: A4, ..request() })),
        case(
            "group-frame-source",
            "RFC 826",
            ethernet(GUEST, [1, 0, 0x5e, 0, 0, 9], 0x0806, &request().bytes()),
        ),
    ];
    for op in [0, 3, 4, 8, 9, 10, 25, 0xffff] {
        cases.push(case(&format!("op-{op}"), "RFC 826", to_all(Arp { op, ..request() })));
    }
    for hardware in [0, 6, 15, 0xffff] {
        cases.push(
            case(&format!("hardware-{hardware}"), "RFC 826", to_all(Arp { hardware, ..request() }))
                .differs_if(hardware == 6, "arp-strict"),
        );
    }
    for protocol in [0, 0x0801, 0x86dd] {
        let frame = to_all(Arp { protocol, ..request() });
        cases.push(case(&format!("protocol-{protocol:#06x}"), "RFC 826", frame));
    }
    for lengths in [[0, 4], [5, 4], [7, 4], [8, 4], [6, 0], [6, 3], [6, 16], [255, 255]] {
        let frame = to_all(Arp { lengths, ..request() });
        cases.push(case(&format!("lengths-{}-{}", lengths[0], lengths[1]), "RFC 826", frame));
    }
    for length in [1, 8, 20, 27] {
        let mut frame = to_all(request());
        frame.truncate(14 + length);
        cases.push(case(&format!("cut-at-{length}"), "RFC 826", frame));
    }
    for (name, spa) in [
        ("broadcast", Ipv4Addr::BROADCAST),
        ("subnet-broadcast", Ipv4Addr::new(192, 0, 2, 255)),
        ("group", Ipv4Addr::new(224, 0, 0, 1)),
        ("loopback", Ipv4Addr::LOCALHOST),
        ("class-e", Ipv4Addr::new(240, 0, 0, 1)),
        ("zero-net", Ipv4Addr::new(0, 0, 0, 7)),
    ] {
        cases.push(case(&format!("sender-{name}"), "RFC 826", to_all(Arp { spa, ..request() })));
    }
    for (name, sha) in [("zero", ZERO), ("group", [1, 0, 0x5e, 0, 0, 1]), ("broadcast", BROADCAST)] {
        cases.push(
            case(&format!("sender-mac-{name}"), "RFC 826", to_all(Arp { sha, ..request() }))
                .differs("arp-strict"),
        );
    }
    for (name, tpa) in [
        ("zero", Ipv4Addr::UNSPECIFIED),
        ("broadcast", Ipv4Addr::BROADCAST),
        ("subnet-broadcast", Ipv4Addr::new(192, 0, 2, 255)),
        ("group", Ipv4Addr::new(224, 0, 0, 1)),
        ("loopback", Ipv4Addr::LOCALHOST),
    ] {
        cases.push(case(&format!("target-{name}"), "RFC 826", to_all(Arp { tpa, ..request() })));
    }
    for (name, tci) in [("priority-0", 0), ("priority-5", 5 << 13), ("vlan-7", 7)] {
        let frame = tagged(&to_all(request()), 0x8100, tci);
        cases.push(
            case(&format!("tagged-{name}"), "IEEE 802.1Q 9.6", frame).differs_if(tci != 7, "vlan-priority"),
        );
    }
    cases.push(case("tagged-twice", "IEEE 802.1ad", {
        tagged(&tagged(&to_all(request()), 0x8100, 7), 0x88a8, 8)
    }));
    cases
        .push(case("poll-tagged-vlan-7", "IEEE 802.1Q 9.6", tagged(&to_guest(request()), 0x8100, 7)).wakes());
    // The first claim is defended, every further one within ten seconds is for the guest to decide.
    let claim = Arp { spa: GUEST4, tpa: GUEST4, ..request() };
    cases.push(case("conflict-announcement", "RFC 5227 2.4", to_all(claim)).differs("defence"));
    cases.push(case("conflict-announcement-again", "RFC 5227 2.4", to_all(claim)).wakes());
    cases.push(case("conflict-request", "RFC 5227 2.4", to_all(Arp { tpa: NOBODY4, ..claim })).wakes());
    cases.push(
        case("conflict-reply", "RFC 5227 2.4", to_guest(Arp { op: 2, tpa: A4, tha: A, ..claim })).wakes(),
    );
    cases
}

impl Case {
    /// Sent twice at once.
    fn twice(mut self) -> Self {
        if let Stimulus::Frames(frames) = &mut self.stimulus {
            frames.extend(frames.clone());
        }
        self
    }
}

//! Neighbour discovery (RFC 4861, RFC 4862, RFC 7527, RFC 6980).

use std::net::Ipv6Addr;

use crate::build::{Mac, V6, ethernet, icmp6, tagged};
use crate::case::{Case, Stimulus};
use crate::hosts::{
    A, A_LINK_LOCAL, A6, FAR6, GUEST, GUEST_LINK_LOCAL, GUEST6, NOBODY6, OTHER_GROUP6, ROUTER, ROUTER6,
    group_mac, solicited_node,
};

const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
const UNSPECIFIED: Ipv6Addr = Ipv6Addr::UNSPECIFIED;
/// Nobody's MAC, and an address that the guest has no neighbour entry of.
const OTHER: Mac = [2, 0, 0, 0, 1, 0x77];

/// A solicitation, or what else may be said; every part can be wrong.
#[derive(Clone)]
struct Message {
    to: Mac,
    from: Mac,
    src: Ipv6Addr,
    dst: Ipv6Addr,
    hop: u8,
    kind: u8,
    code: u8,
    flags: u8,
    target: Ipv6Addr,
    options: Vec<u8>,
}

impl Message {
    /// What a host asks that wants to send to the guest.
    fn solicitation() -> Self {
        let dst = solicited_node(GUEST6);
        Self {
            to: group_mac(dst.into()),
            from: A,
            src: A6,
            dst,
            hop: 255,
            kind: 135,
            code: 0,
            flags: 0,
            target: GUEST6,
            options: link_layer(1, A),
        }
    }

    /// Of one that has the guest in its cache.
    fn poll() -> Self {
        Self { to: GUEST, dst: GUEST6, ..Self::solicitation() }
    }

    /// Of one that wants the guest's address for itself.
    fn duplicate() -> Self {
        Self { src: UNSPECIFIED, options: Vec::new(), ..Self::solicitation() }
    }

    /// Another's advertisement.
    fn advertisement() -> Self {
        let options = link_layer(2, A);
        let to = group_mac(ALL_NODES.into());
        Self { to, dst: ALL_NODES, kind: 136, flags: 0x20, target: A6, options, ..Self::solicitation() }
    }

    fn packet(&self) -> V6 {
        let data = [&self.target.octets(), &self.options[..]].concat();
        let message = icmp6(self.src, self.dst, self.kind, self.code, [self.flags, 0, 0, 0], &data);
        V6 { hop: self.hop, ..V6::new(self.src, self.dst, 58, message) }
    }

    fn frame(&self) -> Vec<u8> {
        ethernet(self.to, self.from, 0x86dd, &self.packet().bytes())
    }
}

fn link_layer(kind: u8, mac: Mac) -> Vec<u8> {
    [&[kind, 1], &mac[..]].concat()
}

fn case(name: &str, source: &'static str, message: &Message) -> Case {
    Case::new(format!("nd/{name}"), source, message.frame())
}

pub fn cases() -> Vec<Case> {
    let mut cases = solicitations();
    cases.extend(malformed());
    cases.extend(others());
    cases
}

fn solicitations() -> Vec<Case> {
    let ask = Message::solicitation;
    let link_local = Message { src: A_LINK_LOCAL, ..ask() };
    let of_link_local = {
        let dst = solicited_node(GUEST_LINK_LOCAL);
        Message { to: group_mac(dst.into()), dst, target: GUEST_LINK_LOCAL, ..link_local.clone() }
    };
    let router = Message { from: ROUTER, src: ROUTER6, options: link_layer(1, ROUTER), ..ask() };
    let nonce = [14, 1, 1, 2, 3, 4, 5, 6].to_vec();
    let with = |options: Vec<u8>| Message { options: [link_layer(1, A), options].concat(), ..ask() };
    vec![
        case("solicitation", "RFC 4861 7.2.3", &ask()),
        case("solicitation-from-link-local", "RFC 4861 7.2.3", &link_local),
        case("solicitation-for-link-local", "RFC 4861 7.2.3", &of_link_local),
        case("solicitation-of-router", "RFC 4861 7.2.3", &router),
        case("solicitation-without-option", "RFC 4861 4.3", &Message { options: Vec::new(), ..ask() }),
        case("solicitation-of-a-stranger-without-option", "RFC 4861 4.3", &{
            Message { src: NOBODY6, from: OTHER, options: Vec::new(), ..ask() }
        })
        .differs("answers-all"),
        case("solicitation-of-another-mac-in-the-option", "RFC 4861 4.3", &{
            Message { options: link_layer(1, OTHER), src: NOBODY6, ..ask() }
        }),
        case("solicitation-with-nonce", "RFC 7527 4.1", &with(nonce.clone())),
        case("solicitation-with-unknown-option", "RFC 4861 4.6", &with(vec![200, 1, 0, 0, 0, 0, 0, 0])),
        case("solicitation-with-two-link-layers", "RFC 4861 4.3", &with(link_layer(1, OTHER))),
        case("solicitation-with-target-link-layer", "RFC 4861 4.3", &with(link_layer(2, OTHER))),
        case("solicitation-with-mtu", "RFC 4861 4.3", &with(vec![5, 1, 0, 0, 0, 0, 5, 0xdc])),
        case("solicitation-reserved-bits", "RFC 4861 4.3", &Message { flags: 0xff, ..ask() }),
        case("poll", "RFC 4861 7.3.1", &Message::poll()).differs("na-option"),
        case("poll-without-option", "RFC 4861 7.3.1", &Message { options: Vec::new(), ..Message::poll() })
            .differs("na-option"),
        case("poll-from-link-local", "RFC 4861 7.3.1", &Message { src: A_LINK_LOCAL, ..Message::poll() })
            .differs("na-option"),
        case("poll-of-link-local", "RFC 4861 7.3.1", &{
            Message { src: A_LINK_LOCAL, dst: GUEST_LINK_LOCAL, target: GUEST_LINK_LOCAL, ..Message::poll() }
        })
        .differs("na-option"),
        case("poll-to-another-address-of-the-guest", "RFC 4861 7.1.1", &{
            Message { dst: GUEST_LINK_LOCAL, ..Message::poll() }
        })
        .differs("na-option"),
        case(
            "poll-from-beyond-the-link",
            "RFC 4861 7.1.1",
            &Message { src: FAR6, from: ROUTER, ..Message::poll() },
        )
        .differs("na-option"),
        case("duplicate-address", "RFC 4862 5.4.3", &Message::duplicate()),
        case(
            "duplicate-address-with-nonce",
            "RFC 7527 4.2",
            &Message { options: nonce, ..Message::duplicate() },
        ),
        case("duplicate-address-of-link-local", "RFC 4862 5.4.3", &{
            Message { src: UNSPECIFIED, options: Vec::new(), ..of_link_local }
        }),
        case(
            "duplicate-address-by-unicast-frame",
            "RFC 4862 5.4.3",
            &Message { to: GUEST, ..Message::duplicate() },
        ),
        case("group-by-unicast-frame", "RFC 4861 7.2.3", &Message { to: GUEST, ..ask() }),
        case("unicast-by-group-frame", "RFC 4861 7.2.3", &Message { dst: GUEST6, ..ask() })
            .differs("unicast-in-group-frame"),
        case(
            "unicast-by-broadcast-frame",
            "RFC 4861 7.2.3",
            &Message { dst: GUEST6, to: [0xff; 6], ..ask() },
        )
        .differs("unicast-in-group-frame"),
        case(
            "to-all-nodes",
            "RFC 4861 7.1.1",
            &Message { to: group_mac(ALL_NODES.into()), dst: ALL_NODES, ..ask() },
        ),
        case("to-another-group-of-the-same-mac", "RFC 4861 7.1.1", &{
            Message { dst: Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff01, 0x11), ..ask() }
        }),
        case("to-a-group-not-joined", "RFC 4861 7.1.1", &{
            Message { to: group_mac(OTHER_GROUP6.into()), dst: OTHER_GROUP6, ..ask() }
        }),
        case("for-another", "RFC 4861 7.2.3", &Message { target: NOBODY6, ..ask() }),
        case("for-another-in-its-group", "RFC 4861 7.2.3", &{
            let dst = solicited_node(NOBODY6);
            Message { to: group_mac(dst.into()), dst, target: NOBODY6, ..ask() }
        }),
        case("poll-for-another", "RFC 4861 7.2.3", &Message { target: NOBODY6, ..Message::poll() }).wakes(),
        case("for-link-local-in-the-global-group", "RFC 4861 7.2.3", &{
            Message { target: GUEST_LINK_LOCAL, ..ask() }
        }),
        Case::new("nd/tagged-priority-5", "IEEE 802.1Q 9.6", tagged(&ask().frame(), 0x8100, 5 << 13))
            .differs("vlan-priority"),
        Case::new("nd/tagged-vlan-7", "IEEE 802.1Q 9.6", tagged(&ask().frame(), 0x8100, 7)),
        Case::of(
            "nd/solicitation-twice",
            "RFC 4861 7.2.3",
            Stimulus::Frames(vec![ask().frame(), ask().frame()]),
        ),
    ]
}

fn malformed() -> Vec<Case> {
    let ask = Message::solicitation;
    let poll = Message::poll;
    let options = |options: Vec<u8>| Message { options, ..ask() };
    let mut cases = Vec::new();
    for hop in [0, 1, 64, 254] {
        cases.push(case(&format!("hop-limit-{hop}"), "RFC 4861 7.1.1", &Message { hop, ..ask() }));
        cases.push(case(&format!("poll-hop-limit-{hop}"), "RFC 4861 7.1.1", &Message { hop, ..poll() }));
    }
    for code in [1, 255] {
        cases.push(case(&format!("code-{code}"), "RFC 4861 7.1.1", &Message { code, ..ask() }));
    }
    for (name, bytes) in [
        ("length-0", vec![1, 0, 2, 0, 0, 0, 1, 0x50]),
        ("second-of-length-0", [link_layer(1, A), vec![200, 0, 0, 0, 0, 0, 0, 0]].concat()),
        ("beyond-the-packet", vec![1, 2, 2, 0, 0, 0, 1, 0x50]),
        ("two-bytes", vec![1, 1]),
        ("one-byte", vec![1]),
        ("seven-bytes", vec![1, 1, 2, 0, 0, 0, 1]),
        ("rubbish-after", [link_layer(1, A), vec![9, 9, 9]].concat()),
        ("link-layer-of-16-bytes", [vec![1, 2], A.to_vec(), vec![0; 8]].concat()),
    ] {
        cases.push(case(&format!("option-{name}"), "RFC 4861 7.1.1", &options(bytes)));
    }
    for (name, target) in
        [("group", ALL_NODES), ("unspecified", UNSPECIFIED), ("loopback", Ipv6Addr::LOCALHOST)]
    {
        cases.push(case(&format!("target-{name}"), "RFC 4861 7.1.1", &Message { target, ..ask() }));
    }
    let duplicate = Message::duplicate;
    cases.push(case("duplicate-address-with-link-layer", "RFC 4861 7.1.1", &{
        Message { options: link_layer(1, A), ..duplicate() }
    }));
    cases.push(case("duplicate-address-to-the-guest", "RFC 4861 7.1.1", &{
        Message { to: GUEST, dst: GUEST6, ..duplicate() }
    }));
    cases.push(case("duplicate-address-to-all-nodes", "RFC 4861 7.1.1", &{
        Message { to: group_mac(ALL_NODES.into()), dst: ALL_NODES, ..duplicate() }
    }));
    for (name, src) in [
        ("group", ALL_NODES),
        ("loopback", Ipv6Addr::LOCALHOST),
        ("guests-own", GUEST6),
        ("guests-link-local", GUEST_LINK_LOCAL),
    ] {
        let case = case(&format!("from-{name}"), "RFC 4861 7.1.1", &Message { src, ..ask() });
        cases.push(case.differs_if(name.starts_with("guests"), "no-peer"));
    }
    let mut damaged = ask().frame();
    damaged[14 + 40 + 2] ^= 1;
    cases.push(Case::new("nd/bad-checksum", "RFC 4861 7.1.1", damaged));
    for length in [4, 8, 23] {
        let mut message = Message { options: Vec::new(), ..ask() }.packet();
        message.payload.truncate(length);
        message.payload[2..4].fill(0);
        let (src, dst) = (message.src.into(), message.dst.into());
        let checksum = crate::build::transport_sum(src, dst, 58, &message.payload);
        message.payload[2..4].copy_from_slice(&checksum.to_be_bytes());
        let frame = ethernet(ask().to, A, 0x86dd, &message.bytes());
        cases.push(Case::new(format!("nd/cut-at-{length}"), "RFC 4861 7.1.1", frame));
    }
    let frame = |packet: &V6| ethernet(ask().to, A, 0x86dd, &packet.bytes());
    let whole = ask().packet();
    cases.push(Case::new("nd/behind-router-alert", "RFC 4861 7.1.1", {
        frame(&whole.clone().extended(0, vec![0, 0, 5, 2, 0, 0, 1, 0]))
    }));
    cases.push(Case::new("nd/behind-destination-options", "RFC 4861 7.1.1", {
        frame(&whole.clone().extended(60, vec![0, 0, 1, 4, 0, 0, 0, 0]))
    }));
    cases.push(Case::new(
        "nd/atomic-fragment",
        "RFC 6980 5",
        frame(&whole.extended(44, vec![0, 0, 0, 0, 0, 0, 0, 1])),
    ));
    cases
}

fn others() -> Vec<Case> {
    let tell = Message::advertisement;
    let to_guest = Message { to: GUEST, dst: GUEST6, flags: 0x60, ..tell() };
    let plain = |name: &str, source, kind, dst: Ipv6Addr, to: Mac, rest: [u8; 4], data: &[u8]| {
        let packet = V6 { hop: 255, ..V6::new(ROUTER6, dst, 58, icmp6(ROUTER6, dst, kind, 0, rest, data)) };
        Case::new(format!("nd/{name}"), source, ethernet(to, ROUTER, 0x86dd, &packet.bytes()))
    };
    let all = group_mac(ALL_NODES.into());
    let all_routers = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 2);
    let redirect = [NOBODY6.octets(), NOBODY6.octets()].concat();
    let claim = Message { target: GUEST6, ..tell() };
    vec![
        case("advertisement-of-another", "RFC 4861 7.2.5", &tell()),
        case("advertisement-to-the-guest", "RFC 4861 7.2.5", &to_guest).holds(),
        case("advertisement-solicited-to-all", "RFC 4861 7.1.2", &Message { flags: 0x60, ..tell() }),
        case("advertisement-hop-limit-64", "RFC 4861 7.1.2", &Message { hop: 64, ..to_guest.clone() }),
        // No prefix, no lifetime: it says nothing that a host would keep.
        plain("router-advertisement", "RFC 4861 6.3.4", 134, ALL_NODES, all, [0; 4], &[0; 8]),
        plain("router-advertisement-to-the-guest", "RFC 4861 6.3.4", 134, GUEST6, GUEST, [0; 4], &[0; 8])
            .holds(),
        plain(
            "router-solicitation",
            "RFC 4861 6.2.6",
            133,
            all_routers,
            group_mac(all_routers.into()),
            [0; 4],
            &[],
        ),
        plain("router-solicitation-to-all", "RFC 4861 6.2.6", 133, ALL_NODES, all, [0; 4], &[]),
        plain("redirect", "RFC 4861 8.3", 137, GUEST6, GUEST, [0; 4], &redirect).holds(),
        // The first claim is defended, every further one within ten seconds is for the guest to decide.
        case("conflict", "RFC 4862 5.4.4", &claim).differs("defence"),
        case("conflict-again", "RFC 4862 5.4.4", &claim).wakes(),
        case("conflict-to-the-guest", "RFC 4862 5.4.4", &Message { target: GUEST6, ..to_guest }).wakes(),
        case("conflict-without-option", "RFC 4862 5.4.4", &Message { options: Vec::new(), ..claim }).wakes(),
    ]
}

//! Who is who on the link.
//!
//! The guest serves echo at port 7; at [`SINK`] and [`FULL`] its kernel takes connections that no process reads, so
//! that all answers are its kernel's, at once. `A` and `M` are hosts without a stack, played by the test. What comes
//! from beyond the router comes with the router's MAC.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::build::{Mac, V4, V6, ethernet};

pub const GUEST: Mac = [0x52, 0x54, 0, 0, 0, 0x11];
pub const GUEST4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 11);
pub const GUEST6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x11);
pub const GUEST_LINK_LOCAL: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0x5054, 0xff, 0xfe00, 0x11);
/// Who asks.
pub const A: Mac = [2, 0, 0, 0, 1, 0x50];
pub const A4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 150);
pub const A6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x150);
pub const A_LINK_LOCAL: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0x150);
/// Who asks the marker questions.
pub const M: Mac = [2, 0, 0, 0, 1, 0x51];
pub const M4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 151);
/// The guest's default router.
pub const ROUTER: Mac = [2, 0, 0, 0, 1, 0xfe];
pub const ROUTER4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 254);
pub const ROUTER6: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0xfe);
/// Hosts beyond it.
pub const FAR4: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 7);
pub const FAR6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 7);
/// Addresses of the link that nobody has.
pub const NOBODY4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 99);
pub const NOBODY6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x99);
/// Groups that the guest joined, and that it did not.
pub const GROUP4: Ipv4Addr = Ipv4Addr::new(239, 1, 1, 1);
pub const GROUP6: Ipv6Addr = Ipv6Addr::new(0xff05, 0, 0, 0, 0, 0, 1, 3);
pub const OTHER_GROUP4: Ipv4Addr = Ipv4Addr::new(239, 1, 1, 2);
pub const OTHER_GROUP6: Ipv6Addr = Ipv6Addr::new(0xff05, 0, 0, 0, 0, 0, 1, 4);

/// Other addresses of A's, one for each of a few dozen cases: an address gets one error a second.
pub fn client4(port: u16) -> Ipv4Addr {
    Ipv4Addr::new(192, 0, 2, 160 + (port % CLIENTS) as u8)
}

/// Likewise.
pub fn client6(port: u16) -> Ipv6Addr {
    Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 1, port % CLIENTS)
}

const CLIENTS: u16 = 64;

/// Whose neighbour entries the guest has for good, so that it never has to ask.
pub fn neighbours() -> Vec<(IpAddr, Mac)> {
    let v4 = [(A4, A), (M4, M), (ROUTER4, ROUTER), (Ipv4Addr::new(192, 0, 2, 0), A)];
    let v6 = [(A6, A), (A_LINK_LOCAL, A), (ROUTER6, ROUTER)];
    let v4 = v4.into_iter().map(|(address, mac)| (IpAddr::from(address), mac));
    let v6 = v6.into_iter().map(|(address, mac)| (IpAddr::from(address), mac));
    let clients = (0..CLIENTS).flat_map(|n| [(client4(n).into(), A), (client6(n).into(), A)]);
    v4.chain(v6).chain(clients).collect()
}

/// The guest's ports.
pub const ECHO: u16 = 7;
pub const SINK: u16 = 9;
pub const FULL: u16 = 19;
/// Nobody listens there.
pub const CLOSED: u16 = 81;

/// The Ethernet group of a multicast address.
pub fn group_mac(group: IpAddr) -> Mac {
    match group {
        IpAddr::V4(v4) => {
            let [_, b, c, d] = v4.octets();
            [0x01, 0x00, 0x5e, b & 0x7f, c, d]
        }
        IpAddr::V6(v6) => {
            let [.., a, b, c, d] = v6.octets();
            [0x33, 0x33, a, b, c, d]
        }
    }
}

/// The solicited-node group of an address.
pub fn solicited_node(address: Ipv6Addr) -> Ipv6Addr {
    let [.., a, b, c] = address.octets();
    let [low, rest] = [u16::from(a) | 0xff00, u16::from_be_bytes([b, c])];
    Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, low, rest)
}

/// An IPv4 packet from A's MAC to the guest's.
pub fn v4_from_a(packet: &V4) -> Vec<u8> {
    ethernet(GUEST, A, 0x0800, &packet.bytes())
}

/// An IPv6 packet likewise.
pub fn v6_from_a(packet: &V6) -> Vec<u8> {
    ethernet(GUEST, A, 0x86dd, &packet.bytes())
}

/// A plain packet likewise.
pub fn from_a(src: IpAddr, dst: IpAddr, protocol: u8, payload: Vec<u8>) -> Vec<u8> {
    match (src, dst) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => v4_from_a(&V4::new(src, dst, protocol, payload)),
        (IpAddr::V6(src), IpAddr::V6(dst)) => v6_from_a(&V6::new(src, dst, protocol, payload)),
        _ => panic!("{src} and {dst} are of different families"),
    }
}

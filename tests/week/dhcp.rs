//! DHCP servers of both families with leases of an hour. They keep books as servers do: an address whose lease
//! ran out is free for others, which here is a failure. Both are off some times a day: the one for IPv4 a quarter of an
//! hour, the other one so long that it is found by REBIND now and then, and never so long that the guest would be called.
//! And for an hour a day the one for IPv4 is found at another station, which only a request to all comes to.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use core::ops::RangeInclusive;

use surrogate::rng::Rng;
use surrogate::time::{Duration, Instant};
use surrogate_wire::dhcpv4::{self, Dhcpv4};
use surrogate_wire::dhcpv6::{self, Dhcpv6};
use surrogate_wire::{Frame, Mac, Packet, Transport};

use crate::frames::{self, Station};
use crate::link::{GUEST, Lives, seconds};

const LEASE: Duration = seconds(3_600);
const SERVER: Station = Station::numbered(3);
const SERVER_DUID: [u8; 10] = [0, 3, 0, 1, 0x52, 0x54, 0, 0, 0, 3];
pub const CLIENT_DUID: [u8; 10] = [0, 3, 0, 1, 0x52, 0x54, 0, 0, 0, 11];
pub const IAID: u32 = 11;

/// When that is, in seconds of each day; never two of them within one lease.
const OFF4: Times = Times { from: &[5_000, 18_000, 52_000, 70_000], seconds: 900 };
const MOVED4: Times = Times { from: &[30_000], seconds: 3_600 };
const OFF6: Times = Times { from: &[8_000, 19_300, 31_900, 43_100, 57_700, 69_200, 80_900], seconds: 1_140 };

struct Times {
    from: &'static [u64],
    seconds: u64,
}

impl Times {
    fn is_now(&self, now: Instant) -> bool {
        let second = now.since(Instant::ZERO).as_secs() % 86_400;
        self.from.iter().any(|from| (*from..from + self.seconds).contains(&second))
    }
}

/// How often a lease must have been renewed until `now`: at half of it or a little before, later when its server was off.
fn renewals(now: Instant) -> RangeInclusive<u64> {
    let halves = now.since(Instant::ZERO).as_secs() / (LEASE.as_secs() / 2);
    halves - halves / 8..=halves + halves / 20
}

pub struct Server4 {
    leased_until: Instant,
    renewals: u64,
    rebound: u64,
}

impl Server4 {
    /// With the lease that the guest got at `now`.
    pub fn new(now: Instant) -> Self {
        Self { leased_until: now + LEASE, renewals: 0, rebound: 0 }
    }
}

/// The server's answer to a request, or what the guest asked with, to be observed.
pub fn message4(op: u8, kind: u8, xid: u32, ciaddr: Ipv4Addr, more: &[u8]) -> Vec<u8> {
    let mut bytes = vec![op, 1, 6, 0];
    bytes.extend_from_slice(&xid.to_be_bytes());
    bytes.extend_from_slice(&[0; 4]);
    bytes.extend_from_slice(&ciaddr.octets());
    let yiaddr = if op == dhcpv4::FROM_SERVER { GUEST.v4 } else { Ipv4Addr::UNSPECIFIED };
    bytes.extend_from_slice(&yiaddr.octets());
    bytes.extend_from_slice(&[0; 8]);
    bytes.extend_from_slice(&GUEST.mac.0);
    bytes.extend_from_slice(&[0; 10 + 64 + 128]);
    bytes.extend_from_slice(&[99, 130, 83, 99, 53, 1, kind]);
    bytes.extend_from_slice(more);
    bytes.push(255);
    bytes.resize(bytes.len().max(300), 0);
    bytes
}

/// What the guest and its server said when it was awake.
pub fn handshake4() -> [(bool, Vec<u8>); 2] {
    let asks = [&[50, 4][..], &GUEST.v4.octets(), &[54, 4], &SERVER.v4.octets(), &[12, 3], b"web"].concat();
    let request = message4(dhcpv4::FROM_CLIENT, dhcpv4::kind::REQUEST, 7, Ipv4Addr::UNSPECIFIED, &asks);
    let request = frames::udp(
        GUEST.mac,
        SERVER.mac,
        Ipv4Addr::UNSPECIFIED.into(),
        Ipv4Addr::BROADCAST.into(),
        (68, 67),
        64,
        &request,
    );
    [(true, request), (false, ack(7, Ipv4Addr::UNSPECIFIED))]
}

fn ack(xid: u32, ciaddr: Ipv4Addr) -> Vec<u8> {
    let seconds = (LEASE.as_secs() as u32).to_be_bytes();
    let options = [&[54, 4][..], &SERVER.v4.octets(), &[51, 4], &seconds, &[1, 4, 255, 255, 255, 0]].concat();
    let ack = message4(dhcpv4::FROM_SERVER, dhcpv4::kind::ACK, xid, ciaddr, &options);
    frames::udp(SERVER.mac, GUEST.mac, SERVER.v4.into(), GUEST.v4.into(), (67, 68), 64, &ack)
}

impl Lives for Server4 {
    fn due(&self) -> Instant {
        self.leased_until
    }

    fn act(&mut self, now: Instant, _: &mut Rng, _: &mut Vec<Vec<u8>>) {
        panic!("the lease ran out at {now:?}, after {} renewals", self.renewals);
    }

    fn see(&mut self, now: Instant, frame: &Frame<'_>, packet: &Packet<'_>, out: &mut Vec<Vec<u8>>) {
        let Some(Transport::Udp(udp)) = packet.transport() else { return };
        if udp.dst_port != dhcpv4::SERVER_PORT || OFF4.is_now(now) {
            return;
        }
        let to_all = frame.dst == Mac::BROADCAST;
        assert!(frame.dst == SERVER.mac || to_all, "{frame:?}");
        if MOVED4.is_now(now) && !to_all {
            return;
        }
        let asked = Dhcpv4::parse(udp.payload).expect("a sound request");
        assert_eq!((asked.kind, asked.ciaddr), (dhcpv4::kind::REQUEST, GUEST.v4));
        assert_eq!((asked.requested, asked.server), (None, None), "RFC 2131 4.3.2");
        self.leased_until = now + LEASE;
        self.renewals += 1;
        self.rebound += u64::from(to_all);
        out.push(ack(asked.xid, asked.ciaddr));
    }

    fn tally(&self, now: Instant) -> (&'static str, u64, RangeInclusive<u64>) {
        assert!(self.rebound > 0, "all are asked when its station does not answer");
        ("DHCP renewals", self.renewals, renewals(now))
    }
}

pub struct Server6 {
    leased_until: Instant,
    renewals: u64,
    rebound: u64,
}

impl Server6 {
    /// With the lease that the guest got at `now`.
    pub fn new(now: Instant) -> Self {
        Self { leased_until: now + LEASE, renewals: 0, rebound: 0 }
    }
}

/// A DHCPv6 message; `times` are T1, T2, preferred and valid lifetime.
fn message6(kind: u8, xid: u32, times: [u32; 4]) -> Vec<u8> {
    let [t1, t2, preferred, valid] = times.map(u32::to_be_bytes);
    let address = [&[0, 5, 0, 24][..], &GUEST.v6.octets(), &preferred, &valid].concat();
    let association = [&IAID.to_be_bytes()[..], &t1, &t2, &address].concat();
    let mut bytes = (u32::from(kind) << 24 | xid).to_be_bytes().to_vec();
    for (code, value) in [(1u16, &CLIENT_DUID[..]), (2, &SERVER_DUID), (3, &association)] {
        bytes.extend_from_slice(&code.to_be_bytes());
        bytes.extend_from_slice(&(value.len() as u16).to_be_bytes());
        bytes.extend_from_slice(value);
    }
    bytes
}

const ALL_SERVERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 1, 2);

/// What the guest and its server said when it was awake.
pub fn handshake6() -> [(bool, Vec<u8>); 2] {
    let request = message6(dhcpv6::kind::REQUEST, 7, [0; 4]);
    let from = GUEST.link_local.into();
    let request = frames::udp(GUEST.mac, GUEST.mac, from, ALL_SERVERS.into(), (546, 547), 1, &request);
    [(true, request), (false, reply6(7))]
}

fn reply6(xid: u32) -> Vec<u8> {
    let reply = message6(dhcpv6::kind::REPLY, xid, [1_800, 2_880, 3_000, LEASE.as_secs() as u32]);
    let (from, to): (IpAddr, IpAddr) = (SERVER.link_local.into(), GUEST.link_local.into());
    frames::udp(SERVER.mac, GUEST.mac, from, to, (547, 546), 64, &reply)
}

impl Lives for Server6 {
    fn due(&self) -> Instant {
        self.leased_until
    }

    fn act(&mut self, now: Instant, _: &mut Rng, _: &mut Vec<Vec<u8>>) {
        panic!("the lease ran out at {now:?}, after {} renewals", self.renewals);
    }

    fn see(&mut self, now: Instant, _: &Frame<'_>, packet: &Packet<'_>, out: &mut Vec<Vec<u8>>) {
        let Some(Transport::Udp(udp)) = packet.transport() else { return };
        if udp.dst_port != dhcpv6::SERVER_PORT || OFF6.is_now(now) {
            return;
        }
        let asked = Dhcpv6::parse(udp.payload).expect("a sound request");
        assert_eq!(asked.client, Some(&CLIENT_DUID[..]));
        match asked.kind {
            dhcpv6::kind::RENEW => assert_eq!(asked.server, Some(&SERVER_DUID[..])),
            dhcpv6::kind::REBIND => {
                assert_eq!(asked.server, None);
                self.rebound += 1;
            }
            other => panic!("a message of kind {other}"),
        }
        self.leased_until = now + LEASE;
        self.renewals += 1;
        out.push(reply6(asked.xid));
    }

    fn tally(&self, now: Instant) -> (&'static str, u64, RangeInclusive<u64>) {
        assert!(self.rebound > 0, "any is asked when its server does not answer");
        ("DHCPv6 renewals", self.renewals, renewals(now))
    }
}

//! A week asleep on a busy link, in virtual time: with switches that snoop and forget, a querier, a router that
//! renumbers, neighbours that check, DHCP servers with leases of an hour, others that look for names, and peers
//! of TCP connections that ask whether the guest is there. Nobody may notice, and nobody wakes it.

mod dhcp;
mod frames;
mod link;
mod names;
mod neighbours;
mod peer;
mod router;
mod switch;

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use surrogate::time::Instant;
use surrogate_wire::icmpv6::solicited_node;
use surrogate_wire::membership::{Record, RecordKind, Reporter};
use surrogate_wire::{Tags, igmp, mld};

use link::{GUEST, Link, Lives, seconds};
use peer::Peer;

const WEEK: u64 = 7 * 86_400;
const JOINED4: [Ipv4Addr; 3] =
    [Ipv4Addr::new(239, 1, 1, 1), Ipv4Addr::new(224, 0, 0, 251), Ipv4Addr::new(224, 0, 0, 252)];
const JOINED6: [Ipv6Addr; 3] = [
    Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0xfb),
    Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 1, 3),
    Ipv6Addr::new(0xff05, 0, 0, 0, 0, 0, 0, 0x1234),
];

/// The guest's reports of the groups that it joined.
fn reports() -> [Vec<u8>; 2] {
    let v4 = JOINED4.map(|group| Record { kind: RecordKind::ToExclude, group, sources: &[] });
    let v6 = JOINED6.map(|group| Record { kind: RecordKind::ToExclude, group, sources: &[] });
    let from4 = Reporter { mac: GUEST.mac, address: GUEST.v4, tags: Tags::NONE };
    let from6 = Reporter { mac: GUEST.mac, address: GUEST.link_local, tags: Tags::NONE };
    [
        frames::write(|out| igmp::write_records(&from4, v4.into_iter(), out).unwrap()),
        frames::write(|out| mld::write_records(&from6, v6.into_iter(), out).unwrap()),
    ]
}

/// The sleeper's groups, each with when it is in it no more.
fn groups() -> Vec<(IpAddr, Instant)> {
    let for_ever = |group: IpAddr| (group, Instant::ZERO + seconds(2 * WEEK));
    let joined = JOINED4.map(IpAddr::from).into_iter().chain(JOINED6.map(IpAddr::from));
    let own = [GUEST.v6, GUEST.link_local].map(|own| solicited_node(own).into());
    let renumbered = (solicited_node(router::RENUMBERED).into(), router::RENUMBERS);
    joined.chain(own).map(for_ever).chain([renumbered]).collect()
}

#[test]
fn a_week_asleep_and_nobody_notices() {
    let mut link = Link::new(1);
    link.now = Instant::ZERO + seconds(1);
    let mut peers =
        [(110, true), (111, false)].map(|(n, timestamps)| Peer::new(n, timestamps, true, seconds(75)));
    reports().iter().for_each(|report| link.observe(true, report));
    names::announcements().iter().for_each(|said| link.observe(true, said));
    for (from_guest, bytes) in dhcp::handshake4().into_iter().chain(dhcp::handshake6()) {
        link.observe(from_guest, &bytes);
    }
    for (from_guest, bytes) in peers.iter_mut().flat_map(Peer::conversation) {
        link.observe(from_guest, &bytes);
    }
    link.sleep();

    let mut switch = switch::Switch::new(link.now, &groups());
    let mut beyond = switch::Beyond::new(link.now);
    let mut router = router::Router::new(link.now);
    let (mut server4, mut server6) = (dhcp::Server4::new(link.now), dhcp::Server6::new(link.now));
    let mut seeker = names::Seeker::new();
    let mut neighbours = [101, 102, 103].map(neighbours::Neighbour::new);
    let mut stations: Vec<&mut dyn Lives> =
        vec![&mut switch, &mut beyond, &mut router, &mut server4, &mut server6, &mut seeker];
    stations.extend(neighbours.iter_mut().map(|neighbour| neighbour as &mut dyn Lives));
    stations.extend(peers.iter_mut().map(|peer| peer as &mut dyn Lives));

    link.live(Instant::ZERO + seconds(WEEK), &mut stations);
    check(&link, &stations);
    assert_eq!(link.counters().expired, 1, "the address that was renumbered, and no other");
    for by in ["arp", "ndisc", "icmpv4-echo", "icmpv6-echo", "mdns", "llmnr", "netbios", "keep-alive"] {
        let (answered, _) = link.by_protocol().get(by).copied().unwrap_or_default();
        assert!(answered > 1_000, "{by}: {answered}");
    }
    // And what has a reason to wake it does.
    let somebody = Peer::new(112, false, true, seconds(75)).conversation();
    link.hold(&somebody[0].1);
    let reasons: Vec<&str> = link.wakes.iter().map(|(_, reason)| reason.as_str()).collect();
    assert_eq!(reasons, ["TCP SYN to port 22 from 192.0.2.112"]);
    assert_eq!(link.wake(), [somebody[0].1.clone()]);
}

/// Everybody got what was owed, and nobody woke the guest.
fn check(link: &Link, stations: &[&mut dyn Lives]) {
    for (by, (answered, spoken)) in link.by_protocol() {
        println!("{by}: {answered} answered, {spoken} spoken");
    }
    for (what, times, expected) in stations.iter().map(|station| station.tally(link.now)) {
        println!("{what}: {times} of {expected:?}");
        assert!(times > 0 && expected.contains(&times), "{what}: {times} and not {expected:?}");
    }
    assert_eq!(link.wakes, [], "nobody had a reason to wake it");
}

#[test]
fn two_days_of_keep_alives_each_second_and_data_flows_both_ways() {
    let mut link = Link::new(2);
    link.now = Instant::ZERO + seconds(1);
    let shapes = [(120, true, true), (121, true, false), (122, false, true), (123, false, false)];
    let mut peers = shapes.map(|(n, timestamps, scales)| Peer::new(n, timestamps, scales, seconds(1)));
    for (from_guest, bytes) in peers.iter_mut().flat_map(Peer::conversation) {
        link.observe(from_guest, &bytes);
    }
    for (hours, words) in [(48, &b"are you there?"[..]), (49, b"and now?")] {
        link.sleep();
        peers.iter_mut().for_each(|peer| peer.asks_from(link.now));
        let mut stations: Vec<&mut dyn Lives> = peers.iter_mut().map(|peer| peer as &mut dyn Lives).collect();
        link.live(Instant::ZERO + seconds(hours * 3_600), &mut stations);
        check(&link, &stations);
        // All of them have something to say: the first wakes it, and it gets all.
        let said: Vec<Vec<u8>> = peers.iter().map(|peer| peer.says(words)).collect();
        said.iter().for_each(|bytes| link.hold(bytes));
        let reasons: Vec<String> = link.wakes.drain(..).map(|(_, reason)| reason).collect();
        assert_eq!(reasons, ["TCP segment to port 22 from 192.0.2.120"]);
        let delivered = link.wake();
        assert_eq!(delivered, said);
        for (peer, bytes) in peers.iter_mut().zip(&delivered) {
            for (from_guest, bytes) in peer.goes_on(bytes, words) {
                link.observe(from_guest, &bytes);
            }
        }
    }
    let (answered, _) = link.by_protocol().get("keep-alive").copied().unwrap_or_default();
    assert!(answered >= 4 * (49 * 3_600 - 20), "{answered}");
}

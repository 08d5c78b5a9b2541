//! A week asleep on a busy link, in virtual time: with a switch that snoops and forgets, a querier, neighbours
//! that check, DHCP servers with leases of an hour, others that look for names, and peers
//! of TCP connections that ask whether the guest is there. Nobody may notice, and nobody wakes it.

mod dhcp;
mod frames;
mod link;
mod names;
mod neighbours;
mod peer;
mod switch;

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use surrogate::time::Instant;
use surrogate_wire::icmpv6::solicited_node;
use surrogate_wire::membership::{Record, RecordKind, Reporter};
use surrogate_wire::{Tags, igmp, mld};

use link::{GUEST, Link, Lives, seconds};

const WEEK: u64 = 7 * 86_400;
const JOINED4: [Ipv4Addr; 3] =
    [Ipv4Addr::new(239, 1, 1, 1), Ipv4Addr::new(224, 0, 0, 251), Ipv4Addr::new(224, 0, 0, 252)];
const JOINED6: [Ipv6Addr; 2] =
    [Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0xfb), Ipv6Addr::new(0xff05, 0, 0, 0, 0, 0, 0, 0x1234)];

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

#[test]
fn a_week_asleep_and_nobody_notices() {
    let mut link = Link::new(1);
    link.now = Instant::ZERO + seconds(1);
    let mut peers = [peer::Peer::new(110, true), peer::Peer::new(111, false)];
    reports().iter().for_each(|report| link.observe(true, report));
    names::announcements().iter().for_each(|said| link.observe(true, said));
    for (from_guest, bytes) in dhcp::handshake4().into_iter().chain(dhcp::handshake6()) {
        link.observe(from_guest, &bytes);
    }
    for (from_guest, bytes) in peers.iter_mut().flat_map(peer::Peer::conversation) {
        link.observe(from_guest, &bytes);
    }
    link.sleep();

    let own = [GUEST.v6, GUEST.link_local].map(solicited_node);
    let groups: Vec<IpAddr> = JOINED4
        .map(IpAddr::from)
        .into_iter()
        .chain(JOINED6.map(IpAddr::from))
        .chain(own.map(IpAddr::from))
        .collect();
    let mut stations: Vec<Box<dyn Lives>> = vec![
        Box::new(switch::Switch::new(link.now, &groups)),
        Box::new(dhcp::Server4::new(link.now)),
        Box::new(dhcp::Server6::new(link.now)),
        Box::new(names::Seeker::new()),
    ];
    stations
        .extend([101, 102, 103].map(|number| Box::new(neighbours::Neighbour::new(number)) as Box<dyn Lives>));
    stations.extend(peers.map(|peer| Box::new(peer) as Box<dyn Lives>));

    link.live(Instant::ZERO + seconds(WEEK), &mut stations);
    for (by, (answered, spoken)) in link.by_protocol() {
        println!("{by}: {answered} answered, {spoken} spoken");
    }
    for (what, times) in stations.iter().map(|station| station.tally()) {
        println!("{what}: {times}");
        assert!(times > 0, "{what}");
    }
    assert_eq!(link.wakes, [], "nobody had a reason to wake it");
}

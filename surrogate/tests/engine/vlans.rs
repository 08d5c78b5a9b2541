//! A guest in a VLAN: what is said in its name of its own accord has its tag, and of what it says in other VLANs
//! nothing is learned for this one.

use core::net::{IpAddr, Ipv4Addr};

use surrogate::engine::{Answered, Mode};
use surrogate::guest::identity::InterfaceAddress;
use surrogate::time::Duration;
use surrogate_wire::dhcpv4::kind;
use surrogate_wire::membership::{Generation, Reporter};
use surrogate_wire::{Frame, Received, Tags, igmp};

use crate::frames::*;
use crate::scenario::*;
use crate::{connections, named};

const VLAN: u16 = 10;
const LEARNED: Ipv4Addr = Ipv4Addr::new(239, 5, 5, 5);

fn tagged(mut frame: Vec<u8>, vid: u8) -> Vec<u8> {
    frame.splice(12..12, [0x81, 0, 0, vid]);
    frame
}

/// What an awake guest says and gets; at its own port without a tag where the bridge puts one on.
fn said() -> Vec<(bool, Vec<u8>)> {
    let report = frame(|out| {
        let from = Reporter { mac: GUEST.mac(), tags: Tags::NONE, address: GUEST.v4() };
        igmp::write_report(&from, Generation::Second, LEARNED, out).expect("it fits");
    });
    let mut said = vec![
        (true, dhcp_renewal(77)),
        (false, dhcp_answer(TO_GUEST, kind::ACK, 77)),
        (true, dhcp6_renewal(78)),
        (false, dhcp6_answer(78, 3600)),
        (true, report),
    ];
    said.extend(connections::seen(connections::W));
    said
}

/// A guest in the VLAN that was heard so, asleep.
fn asleep(said: &[(bool, Vec<u8>)]) -> Scenario {
    let mut identity = named::identity();
    identity.vlan = Some(VLAN);
    identity.addresses.push(InterfaceAddress { address: GUEST.link_local().into(), prefix_len: 64 });
    identity.traffic.connections.keep_alive = Some(Duration::from_secs(240));
    let mut s = Scenario::new(&[identity]);
    said.iter().for_each(|(from_guest, bytes)| s.observe(*from_guest, bytes));
    s.mode(1, Mode::Answer).outputs();
    s
}

/// What it says within the next hour, asked for its groups and its name in the beginning.
fn spoken(s: &mut Scenario) -> Vec<Vec<u8>> {
    for query in
        [igmp_query(None, true), mld_query(None), named::mdns(&named::question("printer.local", 1, 1))]
    {
        s.receive(&tagged(query, VLAN as u8));
    }
    let mut frames = s.transmitted();
    for second in 1..3_600 {
        frames.extend(s.at_ms(second * 1_000).transmitted());
    }
    frames
}

#[test]
fn what_is_said_of_a_sleepers_own_accord_has_the_tag_of_its_vlan() {
    // Where the guest puts its tag on itself it is heard with it.
    let with_tags = said().into_iter().map(|(from_guest, bytes)| (from_guest, tagged(bytes, VLAN as u8)));
    for said in [said(), with_tags.collect()] {
        let mut s = asleep(&said);
        for frame in spoken(&mut s) {
            let received = Received::plain(&frame);
            assert_eq!(Frame::parse(&received).expect("a frame").tags, Tags::for_vid(Some(VLAN)));
        }
        use Answered::{Dhcpv4, Dhcpv6, Igmp, KeepAlive, Mdns, Mld, Presence};
        for by in [Presence, Igmp, Mld, Dhcpv4, Dhcpv6, Mdns, KeepAlive] {
            assert!(s.counters().spoken[by as usize] > 0, "{}: {:?}", by.name(), s.counters());
        }
    }
}

#[test]
fn what_a_guest_says_in_another_vlan_is_not_learned_for_its_own() {
    let elsewhere = |vid| said().into_iter().map(move |(from_guest, bytes)| (from_guest, tagged(bytes, vid)));
    let mut s = asleep(&elsewhere(20).collect::<Vec<_>>());
    spoken(&mut s);
    for by in [Answered::Dhcpv4, Answered::Dhcpv6, Answered::KeepAlive] {
        assert_eq!(s.counters().spoken[by as usize], 0, "{}", by.name());
    }
    let knowledge = s.engine.knowledge(s.now, GUEST.nic()).expect("registered");
    assert!(!knowledge.presence.groups().any(|group| group == IpAddr::from(LEARNED)));
    assert_eq!(s.engine.custody_counters(GUEST.nic()).map(|custody| custody.known), Some(0));
    // A tag of VLAN 0 is a priority only.
    let s = asleep(&elsewhere(0).collect::<Vec<_>>());
    assert_eq!(s.engine.custody_counters(GUEST.nic()).map(|custody| custody.known), Some(1));
}

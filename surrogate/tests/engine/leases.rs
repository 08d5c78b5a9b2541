//! Leases that are kept, lost and given back: what the engine does beside the frames of the policy.

use core::net::{IpAddr, Ipv4Addr};

use surrogate::engine::{Answered, Command, Mode, Notice, Verdict, WakeReason};
use surrogate::guest::identity::{Epoch, InterfaceAddress, NicIdentity};
use surrogate::time::Duration;
use surrogate_wire::dhcpv4::{Renewal, kind};
use surrogate_wire::emit::Ethernet;
use surrogate_wire::{Mac, Tags};

use crate::frames::*;
use crate::scenario::*;

const HOUR_MS: u64 = 3_600_000;
const RENEWED: Notice = Notice::Renewed { nic: GUEST.nic(), epoch: Epoch(1) };

fn identity() -> NicIdentity {
    let mut identity = GUEST.identity();
    identity.addresses.push(InterfaceAddress { address: GUEST.link_local().into(), prefix_len: 64 });
    identity
}

/// A guest that fell asleep with a lease of an hour on each of its addresses.
fn asleep_with_leases() -> Scenario {
    let mut s = Scenario::new(&[identity()]);
    s.observe(true, &dhcp_renewal(77));
    s.observe(false, &dhcp_answer(TO_GUEST, kind::ACK, 77));
    s.observe(true, &dhcp6_renewal(78));
    s.observe(false, &dhcp6_answer(78, 3600));
    s.mode(1, Mode::Answer).outputs();
    s
}

/// The identifications of our DHCP requests among what is transmitted.
fn requests(s: &mut Scenario) -> Vec<u32> {
    s.transmitted().iter().filter_map(|frame| dhcp_xid(frame)).collect()
}

fn wakes(s: &mut Scenario) -> Vec<WakeReason> {
    let reason = |notice| if let Notice::Wake { reason, .. } = notice { Some(reason) } else { None };
    s.notices().into_iter().filter_map(reason).collect()
}

#[test]
fn both_leases_are_renewed_at_half_time_and_counted() {
    let mut s = asleep_with_leases();
    assert_eq!(requests(s.at_ms(HOUR_MS / 2 - 120_000)), [] as [u32; 0], "it is not time yet");
    let asked = requests(s.at_ms(HOUR_MS / 2));
    assert_eq!(asked.len(), 2);
    assert_eq!(s.verdict(&dhcp_answer(TO_GUEST, kind::ACK, asked[0])), Some(Verdict::Absorb));
    assert_eq!(s.verdict(&dhcp6_answer(asked[1], 3600)), Some(Verdict::Absorb));
    let counters = s.counters();
    assert_eq!(counters.spoken[Answered::Dhcpv4 as usize], 1);
    assert_eq!(counters.spoken[Answered::Dhcpv6 as usize], 1);
    assert_eq!(counters.observed, 4);
    assert_eq!(requests(s.at_ms(HOUR_MS)).len(), 2, "from then on it counts anew");
    assert_eq!(
        s.mode(2, REPLAY).notices().len(),
        2,
        "awake, it is the guest's own affair: {:?}",
        s.notices()
    );
    assert_eq!(requests(s.at_ms(3 * HOUR_MS)), [] as [u32; 0]);
}

#[test]
fn a_refused_address_is_not_answered_for_until_the_guest_has_woken() {
    let mut s = asleep_with_leases();
    let asked = requests(s.at_ms(HOUR_MS / 2));
    assert_eq!(s.verdict(&arp_request(CLIENT, GUEST.v4())), Some(Verdict::Answer(Answered::Arp)));
    assert_eq!(s.verdict(&dhcp_answer(TO_ALL, kind::NAK, asked[0])), Some(Verdict::HoldAndWake));
    let (address, by): (IpAddr, IpAddr) = (GUEST.v4().into(), CLIENT.v4().into());
    assert_eq!(wakes(&mut s), [WakeReason::LeaseRefused { address, by }]);

    assert_eq!(s.verdict(&arp_request(CLIENT, GUEST.v4())), None, "nobody has it");
    let poll = arp(TO_GUEST, surrogate_wire::arp::REQUEST, CLIENT.mac(), CLIENT.v4(), GUEST.v4());
    assert_eq!(s.verdict(&poll), Some(Verdict::HoldAndWake), "only the guest knows");
    assert_eq!(s.verdict(&echo(GUEST.v4().into(), b"x")), Some(Verdict::HoldAndWake));
    assert_eq!(s.verdict(&echo(GUEST.v6().into(), b"x")), Some(Verdict::Answer(Answered::Icmpv6Echo)));

    // Neither a new description of the NIC nor a silence brings it back; that the guest ran does.
    s.command(Command::Register(Box::new(identity())));
    assert_eq!(s.verdict(&arp_request(CLIENT, GUEST.v4())), None);
    s.mode(1, HOLD_FLOODED).mode(1, Mode::Answer);
    assert_eq!(s.verdict(&arp_request(CLIENT, GUEST.v4())), None);
    s.mode(2, REPLAY).mode(3, FENCE).mode(3, Mode::Answer).outputs();
    assert_eq!(s.verdict(&arp_request(CLIENT, GUEST.v4())), Some(Verdict::Answer(Answered::Arp)));
}

#[test]
fn an_ipv6_address_that_a_server_takes_away_is_not_answered_for() {
    let mut s = asleep_with_leases();
    let asked = requests(s.at_ms(HOUR_MS / 2));
    assert_eq!(s.verdict(&solicit(GUEST.v6())), Some(Verdict::Answer(Answered::Ndisc)));
    assert_eq!(s.verdict(&dhcp6_answer(asked[1], 0)), Some(Verdict::HoldAndWake));
    let (address, by): (IpAddr, IpAddr) = (GUEST.v6().into(), CLIENT.link_local().into());
    assert_eq!(wakes(&mut s), [WakeReason::LeaseRefused { address, by }]);
    assert_eq!(s.verdict(&solicit(GUEST.v6())), None);
    s.command(Command::Unregister { nic: GUEST.nic() });
    assert_eq!(s.verdict(&solicit(GUEST.v6())), None);
}

#[test]
fn a_lease_that_nobody_prolongs_calls_the_guest_without_any_frame_and_then_ends() {
    let mut s = asleep_with_leases();
    for minute in 0..56 {
        s.at_ms(minute * 60_000);
        assert_eq!(wakes(&mut s), [] as [WakeReason; 0], "minute {minute}");
    }
    let before_the_end = HOUR_MS - 200_000;
    let called = wakes(s.at_ms(before_the_end));
    assert_eq!(called.len(), 1, "once an epoch: {called:?}");
    assert!(matches!(called[0], WakeReason::LeaseEnding { .. }), "{called:?}");
    let text = called[0].to_string();
    assert!(text.starts_with("lease of ") && text.ends_with(" is about to end"), "{text}");
    assert_eq!(
        s.verdict(&arp_request(CLIENT, GUEST.v4())),
        Some(Verdict::Answer(Answered::Arp)),
        "not over yet"
    );
    s.at_ms(HOUR_MS);
    assert_eq!(s.verdict(&arp_request(CLIENT, GUEST.v4())), None);
    assert_eq!(s.verdict(&solicit(GUEST.v6())), None);
    s.outputs();
    assert_eq!(requests(s.at_ms(3 * HOUR_MS)), [] as [u32; 0], "it is the guest's to begin anew");
}

#[test]
fn an_answer_on_its_way_to_the_guest_when_it_fell_asleep_counts() {
    let mut s = Scenario::new(&[identity()]);
    s.observe(true, &dhcp_renewal(77));
    s.mode(1, Mode::Answer).outputs();
    assert_eq!(s.verdict(&dhcp_answer(TO_GUEST, kind::ACK, 77)), Some(Verdict::Hold), "it waits for it");
    assert_eq!(requests(s.at_ms(60_000)), [] as [u32; 0], "its times are known");
    assert_eq!(requests(s.at_ms(HOUR_MS / 2)).len(), 1);
}

#[test]
fn new_options_are_told_once_an_epoch_and_wake_nobody() {
    let mut s = asleep_with_leases();
    for n in 1..4_u8 {
        let asked = requests(s.at_ms(u64::from(n) * HOUR_MS / 2));
        // Another time server each time.
        let answer = dhcp_answer_with(TO_GUEST, kind::ACK, asked[0], &[42, 4, 192, 0, 2, n]);
        assert_eq!(s.verdict(&answer), Some(Verdict::Absorb));
        let address = GUEST.v4().into();
        let expected = Notice::LeaseChanged { nic: GUEST.nic(), epoch: Epoch(1), address };
        let told: Vec<Notice> = s.notices().into_iter().filter(|notice| *notice != RENEWED).collect();
        assert_eq!(told, if n == 1 { vec![expected] } else { vec![] });
        if let Some(other) = asked.get(1) {
            s.receive(&dhcp6_answer(*other, 3600));
        }
    }
}

/// Another station's request for an address of its own, or the guest's on another of its interfaces.
fn request_of(chaddr: Mac, ciaddr: Ipv4Addr, xid: u32, tags: Tags) -> Vec<u8> {
    let to = Ethernet { dst: Mac::BROADCAST, src: chaddr, tags };
    let renewal = Renewal { xid, secs: 0, ciaddr, chaddr, options: &[] };
    frame(|out| renewal.write(&to, Ipv4Addr::BROADCAST, 1, out).expect("it fits"))
}

#[test]
fn other_stations_and_vlans_behind_the_guests_port_are_not_the_guest() {
    // A container with a MAC of its own; the guest's own interface in a VLAN of its own, with the same MAC.
    for (chaddr, tags) in [(NEIGHBOUR.mac(), Tags::NONE), (GUEST.mac(), Tags::for_vid(Some(20)))] {
        let mut s = Scenario::new(&[identity()]);
        s.observe(true, &dhcp_renewal(77));
        s.observe(false, &dhcp_answer(TO_GUEST, kind::ACK, 77));
        s.observe(true, &request_of(chaddr, Ipv4Addr::new(198, 51, 100, 7), 78, tags));
        s.observe(false, &dhcp_answer(between(chaddr, CLIENT.mac()), kind::NAK, 78));
        s.mode(1, Mode::Answer).outputs();
        assert_eq!(requests(s.at_ms(HOUR_MS / 2)).len(), 1, "the guest's lease goes on");
    }
}

#[test]
fn a_port_may_take_off_the_tag_of_its_own_vlan() {
    for tags in [Tags::NONE, Tags::for_vid(Some(7))] {
        let mut identity = identity();
        identity.vlan = Some(7);
        let mut s = Scenario::new(&[identity]);
        s.observe(true, &request_of(GUEST.mac(), GUEST.v4(), 77, tags));
        let answer = dhcp_answer(Ethernet { tags, ..TO_GUEST }, kind::ACK, 77);
        s.observe(false, &answer);
        s.mode(1, Mode::Answer).outputs();
        assert_eq!(requests(s.at_ms(HOUR_MS / 4)), [] as [u32; 0], "its times are known");
        assert_eq!(requests(s.at_ms(HOUR_MS / 2)).len(), 1);
    }
}

#[test]
fn what_was_held_in_another_vlan_is_no_answer_to_the_guests_request() {
    let mut s = Scenario::new(&[identity()]);
    s.observe(true, &dhcp_renewal(77));
    s.mode(1, FENCE);
    let tags = Tags::for_vid(Some(20));
    let elsewhere = dhcp_answer(Ethernet { tags, ..TO_GUEST }, kind::NAK, 77);
    assert_eq!(s.verdict(&elsewhere), Some(Verdict::HoldAndWake), "only the guest knows");
    s.mode(1, Mode::Answer).outputs();
    assert_eq!(s.verdict(&arp_request(CLIENT, GUEST.v4())), Some(Verdict::Answer(Answered::Arp)));
}

#[test]
fn a_renewal_is_told_so_that_a_restart_goes_on_with_what_it_gave() {
    let mut s = asleep_with_leases();
    let asked = requests(s.at_ms(HOUR_MS / 2));
    s.verdict(&dhcp_answer(TO_GUEST, kind::ACK, asked[0]));
    assert_eq!(s.notices(), [RENEWED]);
    s.verdict(&dhcp6_answer(asked[1], 3600));
    assert_eq!(s.notices(), [RENEWED]);
    s.verdict(&dhcp_answer(TO_GUEST, kind::ACK, asked[0]));
    assert_eq!(s.notices(), [], "an answer counts once");

    // Another daemon, which a network that comes late keeps from its servers.
    let knowledge = Box::new(s.engine.knowledge(s.now, GUEST.nic()).expect("it is registered"));
    let mut after = Scenario::new(&[identity()]);
    after.command(Command::Know { nic: GUEST.nic(), knowledge, ago: Duration::from_secs(600) });
    after.mode(1, Mode::Answer).outputs();
    after.at_ms(HOUR_MS / 2);
    assert_eq!(wakes(&mut after), [], "twenty minutes are left");
    assert_eq!(after.verdict(&arp_request(CLIENT, GUEST.v4())), Some(Verdict::Answer(Answered::Arp)));
}

//! Two guests of one engine: the bridge sends nothing back to the port it came from, so what one owes the
//! other stays inside.

use surrogate::engine::{Answered, Mode, Verdict};

use crate::frames::*;
use crate::scenario::*;

fn both_asleep() -> Scenario {
    Scenario::asleep(&[GUEST.identity(), NEIGHBOUR.identity()])
}

#[test]
fn a_waking_guest_gets_the_answer_of_a_sleeping_one_behind_what_is_held() {
    let mut s = both_asleep();
    s.receive(&syn(80, 1));
    s.mode(2, HOLD).mode(2, REPLAY);
    assert_eq!(s.deliveries(), [syn(80, 1)]);
    s.delivered(2, 1);
    s.outputs();
    // It asks for its neighbour. That is the neighbour's to answer, and no frame of ours leaves.
    let answered = Verdict::Answer(Answered::Arp);
    assert_eq!(s.receive(&arp_request(GUEST, NEIGHBOUR.v4())), [(NEIGHBOUR.nic(), answered)]);
    let outs = s.outputs();
    let [Out::Deliver(nic, _, reply)] = &outs[..] else { panic!("{outs:?}") };
    assert_eq!((*nic, &reply[..6], &reply[6..12]), (GUEST.nic(), &GUEST.mac().0[..], &NEIGHBOUR.mac().0[..]));
    s.delivered(2, 1);
    assert_eq!((s.counters().held, s.counters().replayed), (2, 2));
}

#[test]
fn an_awake_guest_gets_its_answer_from_the_bridge() {
    let mut s = both_asleep();
    s.mode(2, Mode::Pass).outputs();
    s.receive(&arp_request(GUEST, NEIGHBOUR.v4()));
    assert!(matches!(&s.outputs()[..], [Out::Transmit(reply)] if reply[..6] == GUEST.mac().0));
}

#[test]
fn an_answer_to_a_fenced_guest_is_held_and_survives_the_sleep() {
    let mut s = both_asleep();
    s.mode(2, FENCE).outputs();
    let ping = {
        let to = between(NEIGHBOUR.mac(), GUEST.mac());
        icmp(to, GUEST.v4().into(), NEIGHBOUR.v4().into(), 8, 0, &[0; 12])
    };
    let answered = Verdict::Answer(Answered::Icmpv4Echo);
    assert_eq!(s.receive(&ping), [(NEIGHBOUR.nic(), answered)]);
    assert_eq!(s.outputs(), []);
    assert_eq!(s.counters().holding, 1);
    // Asleep, the echo reply is still its own; it gets it at the next wake.
    s.mode(2, Mode::Answer).mode(3, REPLAY);
    assert_eq!(s.deliveries().len(), 1);
}

#[test]
fn a_frame_from_us_is_never_answered() {
    // Two guests that by mistake claim one address: each defence reaches the other, and there it ends.
    let mut twin = NEIGHBOUR.identity();
    twin.addresses = GUEST.identity().addresses;
    let mut s = Scenario::asleep(&[GUEST.identity(), twin]);
    s.command(surrogate::engine::Command::Announce { nic: GUEST.nic() });
    assert_eq!(s.transmitted().len(), 2);
    let counters = s.engine.counters(NEIGHBOUR.nic()).unwrap();
    assert_eq!((counters.absorbed, counters.concerned), (2, 2));
}

#[test]
fn a_defence_is_transmitted_and_concerns_nobody_else() {
    let mut s = both_asleep();
    let to_all = between(surrogate_wire::Mac::BROADCAST, THIEF.mac());
    let claim = arp(to_all, surrogate_wire::arp::REQUEST, THIEF.mac(), GUEST.v4(), GUEST.v4());
    assert_eq!(s.receive(&claim), [(GUEST.nic(), Verdict::Answer(Answered::ArpDefence))]);
    assert_eq!(s.transmitted().len(), 1);
    assert_eq!(s.engine.counters(NEIGHBOUR.nic()).unwrap().concerned, 0);
}

//! The way back: held frames into the woken guest, in order, each once.

use surrogate::engine::{Command, Done, DropReason, LINGER, Mode, Notice, RETRY, Refusal, Verdict, WINDOW};
use surrogate::guest::identity::Epoch;
use surrogate::time::Instant;

use crate::frames::*;
use crate::scenario::*;

/// A sleeper in epoch 1 that holds `count` datagrams, numbered, of as many flows.
fn holding(count: u16) -> Scenario {
    let mut s = Scenario::one_asleep();
    for n in 0..count {
        assert_eq!(s.verdict(&numbered(n)), Some(Verdict::HoldAndWake));
    }
    s.outputs();
    s
}

fn numbered(n: u16) -> Vec<u8> {
    datagram((1000 + n, 514), &n.to_be_bytes())
}

fn numbers(frames: &[Vec<u8>]) -> Vec<u16> {
    frames.iter().map(|f| u16::from_be_bytes([f[42], f[43]])).collect()
}

fn drained(epoch: u64, delivered: u64) -> Notice {
    Notice::Drained { nic: GUEST.nic(), epoch: Epoch(epoch), delivered }
}

#[test]
fn a_window_of_frames_at_a_time_in_arrival_order() {
    let mut s = holding(100);
    s.mode(2, HOLD).mode(2, REPLAY);
    assert_eq!(numbers(&s.deliveries()), (0..WINDOW as u16).collect::<Vec<_>>());
    s.delivered(2, 10);
    assert_eq!(numbers(&s.deliveries()), (64..74).collect::<Vec<_>>());
    s.delivered(2, 64);
    assert_eq!(numbers(&s.deliveries()), (74..100).collect::<Vec<_>>());
    assert_eq!(s.notices(), []);
    s.delivered(2, 26);
    assert_eq!(s.notices(), [drained(2, 100)]);
    assert_eq!((s.counters().replayed, s.counters().holding), (100, 0));
}

#[test]
fn new_frames_queue_behind_held_ones_and_drained_is_told_once() {
    let mut s = holding(2);
    s.mode(2, REPLAY);
    assert_eq!(s.verdict(&numbered(2)), Some(Verdict::Hold));
    assert_eq!(numbers(&s.deliveries()), [0, 1, 2]);
    s.delivered(2, 3);
    assert_eq!(s.notices(), [drained(2, 3)]);
    assert_eq!(s.verdict(&numbered(3)), Some(Verdict::Hold));
    assert_eq!(numbers(&s.deliveries()), [3]);
    s.delivered(2, 1);
    assert_eq!(s.notices(), []);
    assert_eq!(s.counters().overtaken, 0);
}

#[test]
fn a_full_port_is_tried_again_from_the_same_frame_on() {
    let mut s = holding(5);
    s.mode(2, REPLAY);
    assert_eq!(s.deliveries().len(), 5);
    s.delivered(2, 2);
    s.refused(2, Refusal::Full);
    assert_eq!(s.outputs(), []);
    assert_eq!(s.engine.poll_timeout(), Some(Instant::ZERO + RETRY));
    assert_eq!(numbers(&s.at_ms(2).deliveries()), [2, 3, 4]);
    s.delivered(2, 3);
    assert_eq!(s.notices(), [drained(2, 5)]);
}

#[test]
fn a_missing_port_is_waited_for() {
    let mut s = holding(3);
    s.mode(2, REPLAY);
    s.deliveries();
    s.refused(2, Refusal::Gone);
    assert_eq!(s.at_ms(5000).outputs(), []);
    s.command(Command::PortReady { nic: GUEST.nic() });
    assert_eq!(numbers(&s.deliveries()), [0, 1, 2]);
}

#[test]
fn a_frame_that_the_port_will_never_take_is_dropped_and_the_rest_goes_on() {
    let mut s = holding(3);
    s.mode(2, REPLAY);
    s.deliveries();
    s.delivered(2, 1);
    s.refused(2, Refusal::TooLong);
    assert_eq!(s.counters().held_dropped[DropReason::TooLong as usize], 1);
    assert_eq!(numbers(&s.deliveries()), [2]);
}

#[test]
fn a_released_guest_passes_when_its_port_has_been_quiet() {
    let mut s = holding(1);
    s.mode(2, REPLAY);
    s.deliveries();
    s.delivered(2, 1);
    s.at_ms(100).mode(2, RELEASED).outputs();
    // In flight at the moment of the release: delivered too, and counted.
    assert_eq!(s.at_ms(110).verdict(&numbered(7)), Some(Verdict::Hold));
    assert_eq!(numbers(&s.deliveries()), [7]);
    assert_eq!(s.at_ms(125).outputs(), []);
    s.delivered(2, 1);
    assert_eq!(s.engine.poll_timeout(), Some(Instant::from_nanos(110_000_000) + LINGER));
    let settled = Notice::Settled { nic: GUEST.nic(), epoch: Epoch(2), overtaken: 1 };
    assert_eq!(s.at_ms(130).notices(), [settled]);
    assert_eq!(s.engine.mode(GUEST.nic()), Some(Mode::Pass));
    assert_eq!((s.counters().overtaken, s.counters().replayed), (1, 2));
}

#[test]
fn a_guest_that_passes_already_is_not_released_again() {
    let mut s = holding(1);
    s.mode(2, RELEASED);
    s.deliveries();
    s.delivered(2, 1);
    assert!(matches!(s.at_ms(500).notices()[..], [Notice::Settled { .. }]));
    let settled = Notice::Settled { nic: GUEST.nic(), epoch: Epoch(2), overtaken: 0 };
    s.mode(2, RELEASED);
    assert_eq!(s.notices(), [settled]);
    assert_eq!(s.engine.mode(GUEST.nic()), Some(Mode::Pass));
}

#[test]
fn what_comes_between_the_last_held_frame_and_the_release_may_be_overtaken_and_is_counted() {
    let mut s = holding(2);
    s.mode(2, REPLAY);
    s.deliveries();
    s.delivered(2, 2);
    s.outputs();
    s.verdict(&numbered(7));
    s.deliveries();
    // Its port is full: direct frames come before it.
    s.refused(2, Refusal::Full);
    s.mode(2, RELEASED).outputs();
    assert_eq!(s.counters().overtaken, 1);
}

#[test]
fn held_frames_delay_the_end_of_a_released_replay() {
    let mut s = holding(1);
    s.mode(2, RELEASED);
    assert_eq!(s.deliveries().len(), 1);
    assert_eq!(s.at_ms(500).notices(), []);
    s.delivered(2, 1);
    assert!(matches!(s.notices()[..], [Notice::Settled { .. }]));
}

#[test]
fn nothing_held_drains_at_once() {
    let mut s = holding(0);
    s.mode(2, REPLAY);
    let notices = s.notices();
    assert_eq!(notices.last(), Some(&drained(2, 0)));
}

#[test]
fn outstanding_frames_of_a_broken_off_replay_are_not_delivered_twice() {
    let mut s = holding(3);
    s.mode(2, REPLAY);
    assert_eq!(s.deliveries().len(), 3);
    // Put to sleep again before the driver reported.
    s.mode(3, FENCE).mode(3, Mode::Answer);
    s.mode(4, REPLAY);
    assert_eq!(s.deliveries(), [] as [Vec<u8>; 0]);
    s.delivered(2, 2);
    s.refused(2, Refusal::Gone);
    s.command(Command::PortReady { nic: GUEST.nic() });
    assert_eq!(numbers(&s.deliveries()), [2]);
    // A report about the earlier replay that comes again is about nothing.
    s.delivered(2, 1);
    assert_eq!(s.counters().holding, 1);
    s.delivered(4, 1);
    assert_eq!((s.counters().replayed, s.counters().holding), (3, 0));
}

#[test]
fn a_replay_that_fails_keeps_what_it_has() {
    let mut s = holding(3);
    s.mode(2, REPLAY);
    s.deliveries();
    s.refused(2, Refusal::Gone);
    s.mode(2, HOLD).mode(2, HOLD_FLOODED).mode(3, Mode::Answer);
    assert_eq!(s.deliveries(), [] as [Vec<u8>; 0]);
    assert_eq!(s.counters().holding, 3);
    s.mode(4, REPLAY);
    assert_eq!(numbers(&s.deliveries()), [0, 1, 2]);
}

#[test]
fn the_flooded_ring_is_replayed_in_arrival_order_with_the_rest() {
    let mut s = Scenario::one_asleep();
    let log = |n: u16| udp(TO_ALL, CLIENT.v4().into(), SUBNET.into(), (1, 514), &n.to_be_bytes());
    for n in 0..6 {
        s.receive(&log(n));
        if n == 3 {
            s.receive(&numbered(100));
        }
    }
    s.mode(2, REPLAY);
    assert_eq!(numbers(&s.deliveries()), [2, 3, 100, 4, 5]);
}

#[test]
fn guests_take_turns() {
    let mut s = Scenario::asleep(&[GUEST.identity(), NEIGHBOUR.identity()]);
    for n in 0..3 {
        s.receive(&numbered(n));
        let to = between(NEIGHBOUR.mac(), CLIENT.mac());
        s.receive(&udp(to, CLIENT.v4().into(), NEIGHBOUR.v4().into(), (1, 514), &(10 + n).to_be_bytes()));
    }
    s.mode(2, REPLAY);
    s.set_mode(NEIGHBOUR.nic(), 2, REPLAY);
    assert_eq!(numbers(&s.deliveries()), [0, 10, 1, 11, 2, 12]);
    s.done(Done::Delivered { nic: NEIGHBOUR.nic(), epoch: Epoch(2), count: 3 });
    assert_eq!(s.counters().holding, 3);
}

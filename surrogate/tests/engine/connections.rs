//! Custody in the engine: what is asked of a guest that falls asleep, what its peers get while it sleeps, and in which
//! order it gets what was held.

use surrogate::engine::{Answered, Command, DropReason, Mode, Notice, Verdict};
use surrogate::guest::identity::Epoch;
use surrogate::policy::custody::CustodyPolicy;
use surrogate::time::{Duration, Instant};
use surrogate_wire::{
    Frame, Offload, Packet, Received, Tcp, TcpFlags, Timestamps, Transport, checksum, ethertype,
};

use crate::frames::*;
use crate::scenario::*;

/// The numbers of the tests' connection, from the client's port 40000 to the guest's port 80: what the guest expects
/// next, what it will send next, its window (not scaled).
pub(crate) const RN: u32 = 5_000;
pub(crate) const SN: u32 = 9_000;
pub(crate) const W: u16 = 700;

const ACK: TcpFlags = TcpFlags::ACK;

pub(crate) fn from_peer(seq: u32, ack: u32, flags: TcpFlags, data: &[u8]) -> Vec<u8> {
    segment((40_000, 80), (seq, ack), flags, data)
}

fn from_guest(seq: u32, ack: u32, flags: TcpFlags, window: u16, data: &[u8]) -> Vec<u8> {
    segment_between(GUEST, CLIENT, (80, 40_000), (seq, ack), (flags, window), data)
}

/// What an observer saw of it: the end of the handshake, data, and its acknowledgement.
pub(crate) fn seen(window: u16) -> Vec<(bool, Vec<u8>)> {
    let syn_ack = TcpFlags::SYN | ACK;
    vec![
        (false, from_peer(RN - 1, 0, TcpFlags::SYN, &[])),
        (true, from_guest(SN - 11, RN, syn_ack, window, &[])),
        (false, from_peer(RN, SN - 10, ACK, &[])),
        (true, from_guest(SN - 10, RN, ACK, window, &[7; 10])),
        (false, from_peer(RN, SN, ACK, &[])),
    ]
}

fn connected() -> Scenario {
    let mut s = Scenario::new(&[GUEST.identity()]);
    for (from_guest, bytes) in seen(W) {
        s.observe(from_guest, &bytes);
    }
    s
}

/// The same, its guest asked and asleep.
fn asleep() -> Scenario {
    let mut s = connected();
    s.at_ms(10_000);
    s.mode(1, FENCE);
    s.command(Command::Barrier { nic: GUEST.nic(), epoch: Epoch(1) });
    s.observe(true, &from_guest(SN, RN, ACK, W, &[]));
    s.mode(1, Mode::Answer).outputs();
    s.at_ms(20_000);
    s
}

/// The segments that go into the guest's port, and whether the barrier's question came after them.
fn injected(s: &mut Scenario) -> (Vec<(u32, u32)>, bool) {
    let mut asked = Vec::new();
    let mut barrier = false;
    for out in s.outputs() {
        let Out::Inject(_, bytes) = out else { continue };
        let frame = Frame::parse(&Received::plain(&bytes)).expect("a frame");
        assert!(!barrier, "the barrier's question is the last");
        if frame.ethertype == ethertype::ARP {
            barrier = true;
        } else {
            let tcp = read_tcp(&bytes);
            asked.push((tcp.0, tcp.1));
        }
    }
    (asked, barrier)
}

/// Sequence, acknowledgement, window.
fn read_tcp(bytes: &[u8]) -> (u32, u32, u16) {
    let frame = Frame::parse(&Received::plain(bytes)).expect("a frame");
    let packet = Packet::parse(&frame, Offload::None).expect("a sound packet");
    let Some(Transport::Tcp(Tcp { seq, ack, window, .. })) = packet.transport() else { panic!("{packet:?}") };
    (*seq, *ack, *window)
}

fn transmitted(out: Out) -> Vec<u8> {
    let Out::Transmit(bytes) = out else { panic!("neither a wake nor a delivery: {out:?}") };
    bytes
}

#[test]
fn a_guest_that_settles_is_asked_about_its_connections_before_the_barrier() {
    let mut s = connected();
    s.mode(1, FENCE);
    s.command(Command::Barrier { nic: GUEST.nic(), epoch: Epoch(1) });
    assert_eq!(injected(&mut s), (vec![(RN - 2, SN)], true));
}

#[test]
fn the_barriers_question_waits_for_room() {
    for custody in [false, true] {
        let mut identity = GUEST.identity();
        identity.traffic.custody = custody;
        let limits = surrogate::engine::Limits { outbox_bytes: 2_000, ..limits() };
        let mut s = Scenario::with_limits(limits, &[identity, NEIGHBOUR.identity()]);
        s.mode(1, FENCE).set_mode(NEIGHBOUR.nic(), 1, FENCE);
        s.outputs();
        // Nobody takes what is said.
        for _ in 0..100 {
            s.command(Command::Barrier { nic: NEIGHBOUR.nic(), epoch: Epoch(1) });
        }
        s.command(Command::Barrier { nic: GUEST.nic(), epoch: Epoch(1) });
        let asked = |s: &mut Scenario| {
            let outs = s.outputs();
            outs.iter().filter(|out| matches!(out, Out::Inject(nic, _) if *nic == GUEST.nic())).count()
        };
        assert_eq!(asked(&mut s), 0, "there was none");
        s.at_ms(2);
        assert_eq!(asked(&mut s), 1);
        s.at_ms(50);
        assert_eq!(asked(&mut s), 0);
    }
}

/// Whether it was said that the guest was watched for long enough to sleep in epoch 1.
fn was_watched(s: &mut Scenario) -> bool {
    let notices = s.notices();
    assert!(notices.iter().all(|n| *n == Notice::Watched { nic: GUEST.nic(), epoch: Epoch(1) }));
    !notices.is_empty()
}

fn watch(s: &mut Scenario, watched: Option<Instant>) {
    s.command(Command::Watch { nic: GUEST.nic(), epoch: Epoch(1), watched });
}

#[test]
fn a_guest_is_watched_for_half_a_second_before_it_sleeps_unless_it_was() {
    let mut s = connected();
    s.at_ms(1_000);
    let begun = s.now;
    watch(&mut s, Some(begun));
    assert_eq!(s.engine.poll_timeout(), Some(begun + Duration::from_millis(500)));
    s.at_ms(1_499);
    assert!(!was_watched(&mut s));
    s.at_ms(1_500);
    assert!(was_watched(&mut s));
    s.at_ms(9_000);
    assert!(!was_watched(&mut s), "once");
    watch(&mut s, Some(begun));
    assert!(was_watched(&mut s), "long since");
    watch(&mut s, None);
    assert!(was_watched(&mut s), "nobody looks");
}

#[test]
fn a_guest_that_is_to_sleep_is_watched_until_the_handshakes_under_way_have_ended() {
    let hello = |s: &mut Scenario, port| {
        let numbers = ((80, port), (SN, RN), (TcpFlags::SYN | ACK, W));
        s.observe(true, &segment_between(GUEST, CLIENT, numbers.0, numbers.1, numbers.2, &[]));
    };
    let mut s = Scenario::new(&[GUEST.identity()]);
    s.at_ms(10_000);
    hello(&mut s, 40_001);
    hello(&mut s, 40_002);
    let begun = s.now;
    watch(&mut s, Some(begun - Duration::from_secs(1)));
    assert!(!was_watched(&mut s));
    s.observe(false, &segment((40_001, 80), (RN, SN + 1), ACK, &[]));
    assert!(!was_watched(&mut s), "there is another one");
    s.observe(false, &segment((40_002, 80), (RN, SN + 1), ACK, &[]));
    assert!(was_watched(&mut s));
    // One whose end was missed is no longer under way when it would have been repeated.
    hello(&mut s, 40_003);
    watch(&mut s, Some(begun));
    s.at_ms(11_999);
    assert!(!was_watched(&mut s));
    s.at_ms(12_000);
    assert!(was_watched(&mut s));
    // What the control side did not wait for is not told any more.
    hello(&mut s, 40_004);
    watch(&mut s, Some(begun));
    s.mode(1, FENCE).outputs();
    s.at_ms(20_000);
    assert!(!was_watched(&mut s));
}

#[test]
fn many_connections_are_asked_about_a_few_at_a_time() {
    let mut s = Scenario::new(&[GUEST.identity()]);
    for port in 0..300 {
        let numbers = ((80, 10_000 + port), (SN, RN), (ACK, W));
        s.observe(true, &segment_between(GUEST, CLIENT, numbers.0, numbers.1, numbers.2, &[1]));
    }
    s.mode(1, FENCE);
    s.command(Command::Barrier { nic: GUEST.nic(), epoch: Epoch(1) });
    let (mut asked, mut rounds) = (0, 0);
    loop {
        let (now, barrier) = injected(&mut s);
        assert!(now.len() <= 64, "{}", now.len());
        asked += now.len();
        if barrier {
            break;
        }
        rounds += 1;
        s.at_ms(rounds);
    }
    assert_eq!((asked, rounds), (300, 4));
}

#[test]
fn a_sleep_that_is_given_up_asks_nothing_more() {
    let mut s = Scenario::new(&[GUEST.identity()]);
    for port in 0..300 {
        let numbers = ((80, 10_000 + port), (SN, RN), (ACK, W));
        s.observe(true, &segment_between(GUEST, CLIENT, numbers.0, numbers.1, numbers.2, &[1]));
    }
    s.mode(1, FENCE);
    s.command(Command::Barrier { nic: GUEST.nic(), epoch: Epoch(1) });
    s.outputs();
    s.mode(2, REPLAY).at_ms(50);
    assert_eq!(injected(&mut s), (vec![], false));
}

#[test]
fn keep_alives_are_answered_for_hours_and_nobody_is_woken() {
    let mut s = asleep();
    for second in 0..3_600 {
        s.at_ms(20_000 + second * 1_000);
        assert_eq!(s.verdict(&from_peer(RN - 1, SN, ACK, &[])), Some(Verdict::Answer(Answered::KeepAlive)));
        // Beside what keeps it in the tables of switches.
        let said: Vec<_> = s.outputs().into_iter().map(transmitted).filter(|bytes| bytes[13] == 0).collect();
        assert_eq!(said.iter().map(|bytes| read_tcp(bytes)).collect::<Vec<_>>(), [(SN, RN, W)]);
    }
    assert_eq!(s.counters().answered[Answered::KeepAlive as usize], 3_600);
}

#[test]
fn a_keep_alive_while_the_guest_settles_is_answered_once_it_sleeps_and_aborts_nothing() {
    let mut s = connected();
    s.at_ms(10_000);
    s.mode(1, FENCE);
    assert_eq!(s.verdict(&from_peer(RN - 1, SN, ACK, &[])), Some(Verdict::Hold));
    assert_eq!(s.notices().len(), 1, "the mode is set, no wake");
    s.mode(1, Mode::Answer);
    assert_eq!(s.transmitted().len(), 1);
    assert_eq!((s.counters().reclassified, s.counters().holding), (1, 0));
    // What only the guest can take does abort.
    let mut s = connected();
    s.mode(1, FENCE).outputs();
    assert_eq!(s.verdict(&from_peer(RN, SN, ACK, b"xy")), Some(Verdict::HoldAndWake));
}

#[test]
fn above_the_window_of_a_guest_that_was_asked_is_nobodys_reason_to_wake_it() {
    let beyond = from_peer(RN + u32::from(W), SN, ACK, b"x");
    assert_eq!(asleep().verdict(&beyond), Some(Verdict::Answer(Answered::DuplicateAck)));
    let mut s = connected();
    s.mode(1, Mode::Answer).outputs();
    assert_eq!(s.verdict(&beyond), Some(Verdict::HoldAndWake), "it was not asked");
}

#[test]
fn of_acknowledgements_the_newest_is_kept_and_delivered_first_and_a_fin_last() {
    let mut s = connected();
    s.observe(true, &from_guest(SN, RN, ACK, W, &[7; 100]));
    s.mode(1, Mode::Answer).outputs();
    assert_eq!(s.verdict(&from_peer(RN, SN + 10, ACK, &[])), Some(Verdict::Hold));
    assert_eq!(s.verdict(&from_peer(RN, SN + 50, ACK, &[])), Some(Verdict::Drop(DropReason::Duplicate)));
    let data = from_peer(RN, SN + 50, ACK, b"data");
    assert_eq!(s.verdict(&data), Some(Verdict::HoldAndWake));
    let newest = from_peer(RN, SN + 100, ACK, &[]);
    assert_eq!(
        s.verdict(&newest),
        Some(Verdict::Drop(DropReason::Duplicate)),
        "in the place of the held one"
    );
    let fin = from_peer(RN + 8, SN + 100, TcpFlags::FIN | ACK, &[]);
    let late = from_peer(RN + 4, SN + 100, ACK, b"late");
    let other = segment((41_000, 80), (1, 1), ACK, b"another flow");
    for bytes in [&fin, &late, &other] {
        assert_eq!(s.verdict(bytes), Some(Verdict::HoldAndWake));
    }
    s.mode(2, REPLAY);
    assert_eq!(s.deliveries(), [newest, data, late, other, fin]);
}

#[test]
fn what_is_held_stays_held_when_a_frame_in_the_guests_name_turns_out_to_be_a_lie() {
    let mut s = connected();
    s.observe(true, &from_guest(SN, RN, ACK, W, &[7; 100]));
    s.mode(1, Mode::Answer).outputs();
    let newest = from_peer(RN, SN + 60, ACK, &[]);
    let unknown = segment((41_000, 80), (1, 1), ACK, &[]);
    for bytes in [&newest, &unknown] {
        assert_eq!(s.verdict(bytes), Some(Verdict::Hold));
    }
    for lie in 1..4 {
        s.at_ms(lie * 12_000);
        s.receive(&arp_request(GUEST, CLIENT.v4()));
        assert!(s.notices().iter().any(|notice| matches!(notice, Notice::GuestSpoke { .. })), "{lie}");
        s.mode(1, Mode::Answer);
        assert!(s.transmitted().is_empty(), "nothing came again");
    }
    assert_eq!(s.verdict(&newest), Some(Verdict::Absorb), "it is held");
    s.mode(2, REPLAY);
    assert_eq!(s.deliveries(), [newest, unknown]);
}

/// With another window, its checksum right.
fn with_window(bytes: &[u8], window: u16) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    let field = |bytes: &[u8], at: usize| u16::from_be_bytes([bytes[at], bytes[at + 1]]);
    let sum = checksum::update(field(&bytes, 50), field(&bytes, 48), window);
    bytes[48..50].copy_from_slice(&window.to_be_bytes());
    bytes[50..52].copy_from_slice(&sum.to_be_bytes());
    bytes
}

/// With timestamps.
fn stamped(value: u32, seq: u32, ack: u32, data: &[u8]) -> Vec<u8> {
    let options = Timestamps { value, echo: 5 }.emit();
    let mut bytes = from_peer(seq, ack, ACK, &[&options, data].concat());
    let field = |bytes: &[u8], at: usize| u16::from_be_bytes([bytes[at], bytes[at + 1]]);
    let old = field(&bytes, 46);
    bytes[46] = 0x80;
    let sum = checksum::update(field(&bytes, 50), old, field(&bytes, 46));
    bytes[50..52].copy_from_slice(&sum.to_be_bytes());
    bytes
}

#[test]
fn an_acknowledgement_goes_first_unless_its_timestamp_would_make_the_held_data_old() {
    let ordered = |values: [u32; 3]| {
        let mut s = Scenario::one_asleep();
        let [first, second, third] = values;
        let data = stamped(first, RN, SN, b"data");
        let more = stamped(second, RN + 4, SN, b"more");
        let ack = stamped(third, RN + 8, SN + 9, &[]);
        for bytes in [&data, &more] {
            assert_eq!(s.verdict(bytes), Some(Verdict::HoldAndWake));
        }
        s.mode(2, HOLD).outputs();
        s.verdict(&ack);
        s.mode(2, REPLAY);
        let order = s.deliveries();
        let at = order.iter().position(|bytes| *bytes == ack).expect("it was held");
        let rest: Vec<_> = order.into_iter().filter(|bytes| *bytes != ack).collect();
        assert_eq!(rest, [data, more], "in the order of arrival");
        at
    };
    assert_eq!(ordered([100, 101, 100]), 0, "as old as the first");
    assert_eq!(ordered([100, 101, 99]), 0);
    assert_eq!(ordered([100, 101, 101]), 2, "the guest would drop the first");
    assert_eq!(ordered([u32::MAX, 0, 1]), 2, "timestamps go round");
    // A stranger's segment without comes before all.
    let mut s = Scenario::one_asleep();
    let held = [from_peer(RN ^ 0x5555, SN, ACK, b"forged"), stamped(100, RN, SN, b"data")];
    for bytes in &held {
        assert_eq!(s.verdict(bytes), Some(Verdict::HoldAndWake));
    }
    s.mode(2, HOLD).outputs();
    let ack = stamped(200, RN + 4, SN + 9, &[]);
    s.verdict(&ack);
    s.mode(2, REPLAY);
    assert_eq!(s.deliveries(), [&held[..], &[ack]].concat());
}

#[test]
fn a_connection_that_the_peer_has_reset_is_held_for_the_guest_and_answered_no_more() {
    let mut s = asleep();
    let rst = from_peer(RN, 0, TcpFlags::RST, &[]);
    assert_eq!(s.verdict(&rst), Some(Verdict::Hold));
    let new = from_peer(77, 0, TcpFlags::SYN, &[]);
    assert_eq!(s.verdict(&new), Some(Verdict::HoldAndWake), "a new connection");
    s.mode(2, REPLAY);
    assert_eq!(s.deliveries(), [rst, new], "a flow with a SYN stays as it came");
}

#[test]
fn a_peer_is_kept_alive_from_our_side_if_the_policy_says_so() {
    let mut identity = GUEST.identity();
    identity.traffic.connections.keep_alive = Some(Duration::from_secs(60));
    let mut s = Scenario::new(&[identity]);
    for (from_guest, bytes) in seen(W) {
        s.observe(from_guest, &bytes);
    }
    s.mode(1, Mode::Answer).outputs();
    let mut said = Vec::new();
    for second in 0..600 {
        s.at_ms(second * 1_000);
        said.extend(s.transmitted().iter().filter(|bytes| bytes[23] == 6).map(|bytes| read_tcp(bytes)));
    }
    assert!((9..=11).contains(&said.len()), "{}", said.len());
    assert!(said.iter().all(|numbers| *numbers == (SN - 1, RN, W)));
    assert_eq!(s.counters().spoken[Answered::KeepAlive as usize], said.len() as u64);
    s.mode(2, REPLAY);
    s.at_ms(1_000_000);
    assert!(s.transmitted().is_empty());
}

#[test]
fn what_a_sleeper_was_known_by_is_answered_for_after_a_restart() {
    let before = asleep();
    let knowledge = before.engine.knowledge(before.now, GUEST.nic()).expect("registered");
    let mut s = Scenario::new(&[GUEST.identity()]);
    let ago = Duration::from_secs(7);
    s.command(Command::Know { nic: GUEST.nic(), knowledge: Box::new(knowledge), ago });
    s.mode(1, Mode::Answer).outputs();
    assert_eq!(s.verdict(&from_peer(RN - 1, SN, ACK, &[])), Some(Verdict::Answer(Answered::KeepAlive)));
}

#[test]
fn connections_are_told_that_could_not_be_answered_for() {
    let mut s = connected();
    let told = |s: &Scenario| s.engine.unrepresentable(s.now, GUEST.nic(), Some(s.now)).count();
    assert_eq!(told(&s), 0);
    s.observe(true, &from_guest(SN, RN, TcpFlags::FIN | ACK, W, &[]));
    assert_eq!(told(&s), 1);
    let mut identity = GUEST.identity();
    identity.traffic.custody = false;
    s.command(Command::Register(Box::new(identity.clone())));
    assert_eq!(told(&s), 0, "it is not observed any more");
    identity.traffic.custody = true;
    identity.traffic.connections = CustodyPolicy::default();
    s.command(Command::Register(Box::new(identity)));
    assert_eq!(told(&s), 0, "and begins anew");
}

#[test]
fn a_full_outbox_costs_a_keep_alive_its_answer_but_nothing_that_is_the_guests() {
    let mut s = Scenario::with_limits(
        surrogate::engine::Limits { outbox_bytes: 64, ..limits() },
        &[GUEST.identity()],
    );
    for (from_guest, bytes) in seen(W) {
        s.observe(from_guest, &bytes);
    }
    s.mode(1, Mode::Answer).outputs();
    let keep_alive = from_peer(RN - 1, SN, ACK, &[]);
    assert_eq!(s.verdict(&keep_alive), Some(Verdict::Drop(DropReason::OutputFull)));
    // Nor what is said only once.
    let update = from_peer(RN, SN, ACK, &[]);
    assert_eq!(s.verdict(&with_window(&update, 3)), Some(Verdict::Hold));
    assert_eq!(s.verdict(&from_peer(RN, SN, ACK, b"x")), Some(Verdict::HoldAndWake));
    assert_eq!(s.verdict(&from_peer(RN, 0, TcpFlags::RST, &[])), Some(Verdict::Hold));
    assert!(s.notices().iter().any(|notice| matches!(notice, Notice::Wake { .. })));
}

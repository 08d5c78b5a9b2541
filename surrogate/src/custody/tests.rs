//! What holds of custody whatever comes: properties, and the blind attack.

use proptest::prelude::*;
use surrogate_wire::TcpFlags;

use super::testing::{RN, SN, SYN, Seg, W, World, said, seg, tcp};
use super::{CustodyPolicy, Judgement};
use crate::time::{Duration, Instant};

/// Numbers near those that matter, and any.
fn number(near: u32) -> impl Strategy<Value = u32> {
    prop_oneof![
        4 => (0..6_u32).prop_map(move |n| near.wrapping_add(n).wrapping_sub(3)),
        2 => (0..140_000_u32).prop_map(move |n| near.wrapping_add(n).wrapping_sub(70_000)),
        1 => any::<u32>(),
    ]
}

fn segment() -> impl Strategy<Value = Seg> {
    let flags = prop_oneof![4 => Just(TcpFlags::ACK), 1 => any::<u8>().prop_map(TcpFlags)];
    let data = prop_oneof![4 => Just(0_usize), 2 => Just(1), 1 => 0..64_usize];
    let options = prop_oneof![
        3 => Just(Vec::new()),
        2 => (any::<u32>(), any::<u32>())
            .prop_map(|(value, echo)| surrogate_wire::Timestamps { value, echo }.emit().to_vec()),
        1 => proptest::collection::vec(any::<u8>(), 0..40),
    ];
    (number(RN), number(SN), flags, any::<u16>(), data, options).prop_map(
        |(seq, ack, flags, window, data, options)| Seg {
            seq,
            ack,
            flags,
            window,
            options,
            data: vec![7; data],
            peer_port: 40_000,
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, ..ProptestConfig::default() })]

    #[test]
    fn whatever_a_peer_sends_nothing_new_is_acknowledged_and_the_right_edge_stays(
        stamps in any::<bool>(),
        segments in proptest::collection::vec((segment(), 0..2_000_u64), 1..80),
    ) {
        let mut world = World::new();
        world.connect(40_000, stamps);
        let mut world = world.settled();
        let (mut challenges, mut probes) = (Vec::new(), Vec::new());
        for (segment, pause) in segments {
            world.after(Duration::from_millis(pause));
            let kind = match world.judge(&segment) {
                Judgement::Answer(kind) => kind,
                // The peer's own end of it; what is inferred afterwards is another matter.
                Judgement::Hold => break,
                _ => continue,
            };
            let said = said(&world.answer_frame(kind, &segment));
            prop_assert_eq!((said.seq, said.ack, said.window), (SN, RN, W));
            prop_assert_eq!(said.timestamps.is_some(), stamps);
            let list = match kind {
                super::Kind::DuplicateAck | super::Kind::ChallengeAck => &mut challenges,
                super::Kind::KeepAlive | super::Kind::WindowProbe => &mut probes,
            };
            list.push(world.now);
            // An answer is owed, never data's or an end's acknowledgement.
            let above = segment.end_after_rn();
            prop_assert!(!above || segment.flags.contains(TcpFlags::SYN) || segment.flags.contains(TcpFlags::RST)
                || kind == super::Kind::ChallengeAck || kind == super::Kind::DuplicateAck);
        }
        for list in [challenges, probes] {
            prop_assert!(list.is_sorted_by(|a, b| b.since(*a) >= Duration::from_millis(500)));
        }
    }

    #[test]
    fn whatever_an_observer_sees_is_learned_without_a_panic_and_within_the_limits(
        segments in proptest::collection::vec((segment(), any::<bool>(), 0..40_u16), 1..200),
    ) {
        let connections = core::num::NonZeroUsize::new(8).unwrap();
        let mut world = World::with(CustodyPolicy { connections, ..CustodyPolicy::default() });
        for (segment, from_guest, port) in segments {
            world.after(Duration::from_secs(1));
            let segment = segment.port(40_000 + port);
            let bytes = world.frame(from_guest, &segment);
            world.learn(from_guest, &bytes);
            prop_assert!(world.custody.counters().known <= 8);
            let _ = world.custody.unrepresentable(world.now, Some(Instant::ZERO)).count();
        }
        for question in world.solicit() {
            let (_, packet) = super::testing::read(&question);
            prop_assert!(matches!(tcp(&packet).0.payload, [] | [0]));
        }
        world.custody.sleep(world.now, &mut world.rng);
        let learned = world.custody.learned();
        let restored = super::Custody::restore(&learned, world.custody.policy, 3);
        prop_assert_eq!(restored.learned(), learned);
    }
}

impl Seg {
    /// Whether it has something at or above RN that would have to be acknowledged.
    fn end_after_rn(&self) -> bool {
        let len = self.data.len() as u32 + u32::from(self.flags.contains(TcpFlags::FIN));
        let end = self.seq.wrapping_add(len);
        len > 0 && end.wrapping_sub(RN).wrapping_sub(1) < 1 << 31
    }
}

#[test]
fn a_hundred_thousand_forged_segments_lose_no_connection_and_draw_no_more_than_the_allowed_answers() {
    const CONNECTIONS: u16 = 20;
    let mut world = World::new();
    for port in 0..CONNECTIONS {
        world.connect(40_000 + port, port % 2 == 0);
    }
    let mut world = world.settled();
    let start = world.now;
    let (mut challenges, mut woken, mut answered) = (0_u64, 0_u32, 0_u32);
    for n in 0..100_000_u32 {
        // 10,000 a second.
        world.after(Duration::from_micros(100));
        let (seq, ack) = (world.rng.next_u64() as u32, world.rng.next_u64() as u32);
        let port = 40_000 + world.rng.below(u64::from(CONNECTIONS)) as u16;
        let forged = seg(seq, ack).port(port);
        let forged = match n % 4 {
            0 => forged.flags(TcpFlags::RST),
            1 => forged.flags(SYN),
            2 => forged,
            _ => forged.data(b"forged"),
        };
        match world.judge(&forged) {
            Judgement::Answer(_) => challenges += 1,
            Judgement::HoldAndWake => woken += 1,
            Judgement::Hold => panic!("a connection is lost to {forged:x?}"),
            _ => {}
        }
        if n % 10_000 == 0 {
            for port in 0..CONNECTIONS {
                let keep_alive = seg(RN.wrapping_sub(1), SN).port(40_000 + port);
                answered += u32::from(world.answer(&keep_alive).is_some());
            }
        }
    }
    let seconds = world.now.since(start).as_secs() + 1;
    let per_guest = seconds * 150;
    let per_connections = u64::from(CONNECTIONS) * 2 * seconds;
    assert!(challenges <= per_guest.min(per_connections), "{challenges} in {seconds} s");
    assert!(challenges > 0);
    assert_eq!(world.custody.counters().known, u64::from(CONNECTIONS));
    assert_eq!(answered, 10 * u32::from(CONNECTIONS), "the real peers were answered all along");
    // A guess that hits the window (64,000 of 2^32) is for the guest: by chance one or two.
    assert!(woken < 10, "{woken}");
}

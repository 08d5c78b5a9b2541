//! What a sleeping guest owes for a segment of a peer: sections 3.10.7 of RFC 9293 and RFC 5961, but that nothing new
//! is ever acknowledged.
//!
//! | segment | judgement |
//! |---|---|
//! | `keep-alive`: SEQ = RN-1, at most one byte | answered |
//! | `old-data`: wholly below RN | answered the same way |
//! | `pure-ack` at RN, up to SN | noted if it tells the guest anything, else nothing |
//! | `pure-ack-beyond`: acknowledges more than SN | our state is wrong: hold, wake |
//! | `new-data`, FIN, urgent data at or above RN | hold, wake |
//! | `window-probe`: one byte at RN while W is 0 | answered; the byte is the peer's, who repeats it |
//! | `rst-exact`: at RN | held for the guest, the connection is over |
//! | `rst-in-window` | challenged |
//! | `rst-outside` | nothing |
//! | `syn`, any sequence number | challenged |
//! | `ack-too-old`: below SN less the largest window | challenged; hold and wake if our state may be old |
//! | `outside`: above the window | told where the window is; hold and wake if our state may be old |
//!
//! The last row is RFC 9293's own for what is not acceptable. A guest that was asked for its state when it fell
//! asleep said where its window ends, and no peer sends beyond; so it is a stranger's guess, and wakes nobody.
//! If our state may be old, or only inferred, then what is further below RN than any window and what acknowledges too
//! little are no more certain to be old: the connection may have gone on, or a new one of the same ends begun. They
//! are held and wake.

use surrogate_wire::{Frame, Packet, TcpFlags};

use super::connection::Connection;
use super::limits::spaced;
use super::segment::Segment;
use super::sequence::Seq;
use super::{Custody, Judgement, Kind};
use crate::guest::identity::NicIdentity;
use crate::rng::Rng;
use crate::time::Instant;

/// What a segment is to a connection, whatever was said before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Assessment {
    /// An acknowledgement is owed.
    Owed(Kind),
    /// An acknowledgement that the guest will want to see.
    News,
    /// Nothing is owed.
    Nothing,
    /// The peer ended the connection.
    Over,
    /// Only the guest can take it.
    Guests,
}

impl Custody {
    /// Takes a segment that came to the guest's MAC and one of its addresses while we speak for it. Allocates
    /// nothing, except that what it says of unknown connections needs the room that [`sleep`](Self::sleep) made.
    pub fn judge(
        &mut self,
        now: Instant,
        rng: &mut Rng,
        identity: &NicIdentity,
        frame: &Frame<'_>,
        packet: &Packet<'_>,
    ) -> Judgement {
        let Some(segment) = Segment::of(false, packet) else { return Judgement::NotMine };
        let Some(position) = self.table.find(&segment.tuple) else {
            return self.infer(now, identity, frame, &segment);
        };
        let Some(connection) = self.table.at_mut(position) else { return Judgement::NotMine };
        match assess(connection, &segment) {
            Assessment::Owed(kind) => {
                // Who hits both of its numbers is the peer; an answer to anybody else would tell him what they are.
                if kind == Kind::KeepAlive && connection.may_acknowledge(segment.ack()) {
                    connection.comes_from(frame.src);
                    if let Some(theirs) = segment.options.timestamps {
                        connection.has_told(Seq(theirs.echo));
                    }
                }
                if !self.may_answer(now, rng, position, kind) {
                    match kind {
                        Kind::KeepAlive | Kind::WindowProbe => self.counters.unanswered += 1,
                        Kind::DuplicateAck | Kind::ChallengeAck => self.counters.unchallenged += 1,
                    }
                    return Judgement::Limited;
                }
                Judgement::Answer(kind)
            }
            Assessment::News => {
                connection.noted = Some((segment.ack(), segment.tcp.window));
                Judgement::Note
            }
            Assessment::Nothing => Judgement::Nothing,
            Assessment::Over => {
                self.table.remove_at(position);
                self.counters.reset += 1;
                Judgement::Hold
            }
            Assessment::Guests => Judgement::HoldAndWake,
        }
    }

    /// Whether a segment is one of a known connection for which an acknowledgement is owed.
    #[must_use]
    pub fn owes_an_answer(&self, packet: &Packet<'_>) -> bool {
        let Some(segment) = Segment::of(false, packet) else { return false };
        let connection = self.table.get(&segment.tuple);
        connection.is_some_and(|connection| matches!(assess(connection, &segment), Assessment::Owed(_)))
    }

    /// Whether a segment that came while the guest settles can wait until it sleeps and its connections are known
    /// for certain: it is judged then. An acknowledgement with nothing or one byte always can, as what is known of
    /// its connection may be old; the byte of a keep-alive is not told from any other before.
    #[must_use]
    pub fn can_wait(&self, packet: &Packet<'_>) -> bool {
        let Some(segment) = Segment::of(false, packet) else { return false };
        match self.table.get(&segment.tuple) {
            Some(connection) => segment.asks_little() || assess(connection, &segment) != Assessment::Guests,
            None => segment.is_bare_ack(),
        }
    }

    fn may_answer(&mut self, now: Instant, rng: &mut Rng, position: usize, kind: Kind) -> bool {
        let Some(connection) = self.table.at_mut(position) else { return false };
        match kind {
            Kind::KeepAlive | Kind::WindowProbe => spaced(&mut connection.kept_alive_at, now),
            Kind::DuplicateAck | Kind::ChallengeAck => {
                // The budget first: a connection's turn is not over because others spent what there was.
                let mut last = connection.challenged_at;
                let may =
                    spaced(&mut last, now) && self.budget.spend(now, rng, self.policy.challenges_per_second);
                if may {
                    connection.challenged_at = last;
                }
                may
            }
        }
    }
}

/// What `segment` is to `connection`.
pub(super) fn assess(connection: &Connection, segment: &Segment<'_>) -> Assessment {
    if !connection.is_answerable() {
        return Assessment::Guests;
    }
    // Dropped by who has no key for it (RFC 2385 3.0, RFC 5925 7.5), as the guest has none that signs nothing itself.
    if segment.options.signed {
        return Assessment::Nothing;
    }
    let (rn, sn) = (connection.rcv_nxt, connection.snd_nxt);
    let (seq, ack) = (segment.seq(), segment.ack());
    let ahead = seq.since(rn);
    let in_window = ahead < connection.window_bytes();
    if segment.has(TcpFlags::RST) {
        return match ahead {
            0 => Assessment::Over,
            _ if in_window => Assessment::Owed(Kind::ChallengeAck),
            _ => Assessment::Nothing,
        };
    }
    if segment.has(TcpFlags::SYN) {
        return Assessment::Owed(Kind::ChallengeAck);
    }
    // "if the ACK bit is off, drop the segment and return" (RFC 9293 3.10.7.4).
    if !segment.has(TcpFlags::ACK) {
        return Assessment::Nothing;
    }
    let (is_below, reaches_above) = (seq.is_before(rn), rn.is_before(segment.end()));
    if is_below && !reaches_above {
        if !connection.exact && rn.since(seq) > connection.farthest_below() {
            return Assessment::Guests;
        }
        let plain = !segment.has(TcpFlags::FIN) && !segment.has(TcpFlags::URG);
        return if seq == rn.minus(1) && plain {
            if sn.is_before(ack) { Assessment::Guests } else { Assessment::Owed(Kind::KeepAlive) }
        } else {
            Assessment::Owed(Kind::DuplicateAck)
        };
    }
    if !is_below && ahead > 0 && !in_window {
        return if connection.exact { Assessment::Owed(Kind::DuplicateAck) } else { Assessment::Guests };
    }
    // RFC 5961 5.2.
    if ack.is_before(sn.minus(connection.largest_window())) {
        return if connection.exact { Assessment::Owed(Kind::ChallengeAck) } else { Assessment::Guests };
    }
    if sn.is_before(ack) || ahead != 0 || !segment.is_bare_ack() {
        let one_byte = segment.tcp.payload.len() == 1 && segment.tcp.segment_len() == 1;
        let probes = ahead == 0 && one_byte && connection.window == 0 && !segment.has(TcpFlags::URG);
        return match probes && !sn.is_before(ack) {
            true => Assessment::Owed(Kind::WindowProbe),
            false => Assessment::Guests,
        };
    }
    if is_news(connection, segment) { Assessment::News } else { Assessment::Nothing }
}

/// Whether an acceptable acknowledgement tells the guest anything that it did not know: a later number, or
/// another window at the same one.
fn is_news(connection: &Connection, segment: &Segment<'_>) -> bool {
    let known = connection.noted.or(connection.snd_una.zip(connection.peer_window));
    let Some((number, window)) = known else { return true };
    number.is_before(segment.ack()) || (number == segment.ack() && window != segment.tcp.window)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::custody::testing::{
        ACK, FIN_ACK, RN, RST, SN, SYN, SYN_ACK, Said, Seg, URG_ACK, W, WINDOW, World, seg,
    };
    use crate::time::Duration;

    /// SEQ=SN ACK=RN W, nothing else.
    const PLAIN: Said = Said { seq: SN, ack: RN, window: W, timestamps: None, sack: None };

    fn keep_alive() -> Seg {
        seg(RN.wrapping_sub(1), SN)
    }

    fn judged(segment: &Seg) -> Judgement {
        World::asleep().judge(segment)
    }

    #[test]
    fn keep_alive_without_data_is_answered() {
        let mut world = World::asleep();
        assert_eq!(world.answer(&keep_alive()), Some((Kind::KeepAlive, PLAIN)));
        // And again, as long as it sleeps.
        for _ in 0..1_000 {
            world.after(Duration::from_secs(1));
            assert_eq!(world.answer(&keep_alive()), Some((Kind::KeepAlive, PLAIN)));
        }
    }

    #[test]
    fn keep_alive_with_one_byte_names_it_if_sack_is_agreed() {
        let one_byte = keep_alive().data(&[0]);
        let named = Said { sack: Some((RN.wrapping_sub(1), RN)), ..PLAIN };
        assert_eq!(World::asleep().answer(&one_byte), Some((Kind::KeepAlive, named)));
        let mut world = World::new();
        // Found mid-stream: nobody knows what was agreed.
        world.guest_sends(&seg(SN, RN).window(W));
        world.custody.sleep(world.now, &mut world.rng);
        assert_eq!(world.answer(&one_byte), Some((Kind::KeepAlive, PLAIN)));
    }

    #[test]
    fn keep_alive_that_acknowledges_more_than_was_sent_wakes() {
        assert_eq!(judged(&seg(RN.wrapping_sub(1), SN + 1)), Judgement::HoldAndWake);
    }

    #[test]
    fn data_wholly_below_rn_is_answered_the_same_way() {
        let old = seg(RN.wrapping_sub(5), SN).data(b"abcde");
        let named = Said { sack: Some((RN.wrapping_sub(5), RN)), ..PLAIN };
        assert_eq!(World::asleep().answer(&old), Some((Kind::DuplicateAck, named)));
        let fin = seg(RN.wrapping_sub(1), SN).flags(FIN_ACK);
        let named = Said { sack: Some((RN.wrapping_sub(1), RN)), ..PLAIN };
        assert_eq!(World::asleep().answer(&fin), Some((Kind::DuplicateAck, named)), "its end counts");
        let late_ack = seg(RN.wrapping_sub(700), SN.wrapping_sub(5));
        assert_eq!(World::asleep().answer(&late_ack), Some((Kind::DuplicateAck, PLAIN)));
    }

    #[test]
    fn pure_ack_up_to_sn_is_noted_if_it_says_anything_new() {
        let mut world = World::connected();
        // The peer has not acknowledged the guest's last ten bytes yet.
        world.guest_sends(&seg(SN, RN).window(W).data(&[1; 10]));
        let mut world = world.settled();
        assert_eq!(world.judge(&seg(RN, SN)), Judgement::Nothing);
        assert_eq!(world.judge(&seg(RN, SN + 4)), Judgement::Note);
        assert_eq!(world.judge(&seg(RN, SN + 10)), Judgement::Note);
        assert_eq!(world.judge(&seg(RN, SN + 10)), Judgement::Nothing, "said before");
        assert_eq!(world.judge(&seg(RN, SN + 4)), Judgement::Nothing, "late");
        assert_eq!(world.judge(&seg(RN, SN + 10).window(9)), Judgement::Note, "another window");
        assert_eq!(world.judge(&seg(RN, SN + 11)), Judgement::HoldAndWake, "row pure-ack-beyond");
    }

    #[test]
    fn pure_ack_beyond_sn_means_that_our_state_is_wrong() {
        assert_eq!(judged(&seg(RN, SN + 1)), Judgement::HoldAndWake);
        assert_eq!(judged(&seg(RN, SN + 70_000)), Judgement::HoldAndWake);
    }

    #[test]
    fn new_data_fin_and_urgent_data_wake_and_are_not_acknowledged() {
        for segment in [
            seg(RN, SN).data(b"x"),
            seg(RN, SN).data(&[1; 1_460]),
            seg(RN + 5, SN).data(b"later"),
            seg(RN.wrapping_sub(2), SN).data(b"both"),
            seg(RN, SN).flags(FIN_ACK),
            seg(RN + 3, SN).flags(FIN_ACK),
            seg(RN, SN).flags(URG_ACK),
            seg(RN, SN).flags(URG_ACK).data(b"!"),
            // The peer has sent what we have not seen.
            seg(RN + 9, SN),
        ] {
            assert_eq!(judged(&segment), Judgement::HoldAndWake, "{segment:x?}");
        }
    }

    #[test]
    fn window_probe_is_answered_for_as_long_as_the_window_is_closed() {
        let mut world = World::connected();
        world.guest_sends(&seg(SN, RN).window(0));
        world.custody.sleep(world.now, &mut world.rng);
        let closed = Said { window: 0, ..PLAIN };
        for _ in 0..100 {
            assert_eq!(world.answer(&seg(RN, SN).data(b"x")), Some((Kind::WindowProbe, closed)));
            world.after(Duration::from_secs(60));
        }
        // Linux probes with a keep-alive.
        assert_eq!(world.answer(&keep_alive()), Some((Kind::KeepAlive, closed)));
        assert_eq!(world.judge(&seg(RN, SN).data(b"xy")), Judgement::HoldAndWake, "no probe");
        assert_eq!(world.judge(&seg(RN, SN + 1).data(b"x")), Judgement::HoldAndWake, "our state is wrong");
    }

    #[test]
    fn rst_exactly_at_rn_is_for_the_guest_and_ends_custody() {
        let mut world = World::asleep();
        assert_eq!(world.judge(&seg(RN, 0).flags(RST)), Judgement::Hold);
        assert_eq!(world.custody.counters().known, 0);
        assert_eq!(world.judge(&seg(RN, SN).data(b"x")), Judgement::NotMine);
    }

    #[test]
    fn rst_elsewhere_in_the_window_is_challenged_and_outside_it_is_nothing() {
        for ahead in [1, 2, WINDOW - 1] {
            let rst = seg(RN.wrapping_add(ahead), SN).flags(RST);
            assert_eq!(World::asleep().answer(&rst), Some((Kind::ChallengeAck, PLAIN)), "{ahead}");
        }
        for outside in [RN.wrapping_sub(1), RN.wrapping_add(WINDOW), RN ^ 0x8000_0000] {
            assert_eq!(judged(&seg(outside, SN).flags(RST)), Judgement::Nothing);
        }
    }

    #[test]
    fn syn_of_any_sequence_is_challenged_and_a_restarted_peer_can_reset_then() {
        for seq in [RN, RN + 1, RN.wrapping_sub(1), 0x1234_5678] {
            for flags in [SYN, SYN_ACK] {
                let syn = seg(seq, SN).flags(flags);
                assert_eq!(World::asleep().answer(&syn), Some((Kind::ChallengeAck, PLAIN)));
            }
        }
        let mut world = World::asleep();
        let (_, challenge) = world.answer(&seg(0x1234_5678, 0).flags(SYN)).unwrap();
        // It knows nothing of the connection: SEQ=SEG.ACK RST (RFC 9293 3.10.7.1).
        assert_eq!(world.judge(&seg(challenge.ack, 0).flags(RST)), Judgement::Hold);
        assert_eq!(world.judge(&seg(0x1234_5678, 0).flags(SYN)), Judgement::NotMine, "a new connection");
    }

    #[test]
    fn ack_older_than_the_largest_window_is_challenged() {
        // The peer's largest window of 800, scaled by its 6.
        let largest = 800 << 6;
        let at = |behind: u32| seg(RN, SN.wrapping_sub(behind)).data(b"x");
        assert_eq!(judged(&at(largest)), Judgement::HoldAndWake);
        assert_eq!(World::asleep().answer(&at(largest + 1)), Some((Kind::ChallengeAck, PLAIN)));
        assert_eq!(judged(&seg(RN, SN.wrapping_sub(largest))), Judgement::Nothing, "late, but possible");
    }

    #[test]
    fn what_lies_above_the_window_is_told_so_if_the_state_is_exact_and_wakes_if_it_is_not() {
        let beyond = seg(RN.wrapping_add(WINDOW), SN).data(b"x");
        assert_eq!(World::asleep().answer(&beyond), Some((Kind::DuplicateAck, PLAIN)));
        let mut world = World::connected();
        world.custody.sleep(world.now, &mut world.rng);
        assert_eq!(world.judge(&beyond), Judgement::HoldAndWake);
    }

    #[test]
    fn a_segment_without_ack_is_dropped() {
        assert_eq!(judged(&seg(RN, SN).flags(TcpFlags(0)).data(b"x")), Judgement::Nothing);
    }

    #[test]
    fn answers_to_one_connection_are_limited_and_those_to_strangers_cost_the_peer_nothing() {
        let mut world = World::asleep();
        let mut drawn = 0;
        for n in 0..10_000_u32 {
            world.after(Duration::from_millis(1));
            drawn += u32::from(world.answer(&seg(n.wrapping_mul(77_777), SN).flags(SYN)).is_some());
            if n % 1_000 == 0 {
                assert_eq!(world.answer(&keep_alive()), Some((Kind::KeepAlive, PLAIN)), "{n}");
            }
        }
        assert_eq!(drawn, 20, "one in 500 ms");
        assert_eq!(world.custody.counters().unchallenged, 10_000 - 20);
    }

    #[test]
    fn all_connections_of_a_guest_share_a_budget() {
        let mut world = World::new();
        for port in 0..1_000 {
            world.connect(10_000 + port, false);
        }
        let mut world = world.settled();
        let syn = |port: u16| seg(1, 0).flags(SYN).port(10_000 + port);
        let drawn = (0..1_000).filter(|port| world.answer(&syn(*port)).is_some()).count();
        assert!((50..=150).contains(&drawn), "{drawn}");
    }

    #[test]
    fn other_ports_and_other_ends_are_not_mine() {
        let mut world = World::asleep();
        assert_eq!(
            world.judge(&keep_alive().port(40_001).flags(TcpFlags(ACK.0 | TcpFlags::PSH.0)).data(b"xx")),
            Judgement::NotMine
        );
        world.v6 = true;
        assert_eq!(world.judge(&keep_alive().data(b"xx")), Judgement::NotMine);
    }

    #[test]
    fn a_signed_segment_is_left_to_a_guest_that_signs_its_own_and_nothing_to_another() {
        let md5 = [[19, 18].as_slice(), &[0; 16]].concat();
        for signed in [keep_alive(), seg(RN, SN).data(b"x"), seg(7, 7).flags(RST), seg(7, 7).flags(SYN)] {
            let signed = signed.options(&md5);
            assert_eq!(judged(&signed), Judgement::Nothing, "a stranger's, who may be anywhere");
            let mut world = World::connected();
            world.guest_sends(&seg(SN, RN).window(W).options(&md5));
            assert_eq!(world.settled().judge(&signed), Judgement::HoldAndWake);
        }
    }

    /// A connection of which the guest has not confirmed what was seen of it, or was known before a restart.
    fn unconfirmed() -> World {
        let mut world = World::connected();
        world.custody.sleep(world.now, &mut world.rng);
        world
    }

    #[test]
    fn what_may_be_of_a_newer_connection_of_the_same_ends_wakes_if_the_state_is_not_exact() {
        // It may have gone on for gigabytes since, or begun anew anywhere: then this is no old segment.
        for behind in [WINDOW.max(65_535) + 1, 1 << 20, 1 << 30, (1 << 31) - 1] {
            for segment in [seg(RN.wrapping_sub(behind), SN), seg(RN.wrapping_sub(behind), SN).data(b"x")] {
                assert_eq!(unconfirmed().judge(&segment), Judgement::HoldAndWake, "{behind}");
                assert_eq!(judged(&segment), Judgement::Answer(Kind::DuplicateAck), "{behind}");
            }
        }
        let too_old = seg(RN, SN.wrapping_sub((800 << 6) + 1)).data(b"x");
        assert_eq!(unconfirmed().judge(&too_old), Judgement::HoldAndWake);
        // But what lies close below was seen.
        for behind in [1, 2, 5_000] {
            let old = seg(RN.wrapping_sub(behind), SN).data(b"x");
            assert!(matches!(unconfirmed().judge(&old), Judgement::Answer(_)), "{behind}");
        }
    }

    #[test]
    fn an_answer_is_owed_for_what_is_answered_and_for_nothing_else() {
        let world = World::asleep();
        for (segment, expected) in [
            (keep_alive(), true),
            (seg(5, 0).flags(SYN), true),
            (seg(RN.wrapping_add(1), 0).flags(RST), true),
            (seg(RN, 0).flags(RST), false),
            (seg(RN, SN), false),
            (seg(RN, SN).window(5), false),
            (seg(RN, SN).data(b"x"), false),
            (keep_alive().port(1), false),
        ] {
            let bytes = world.frame(false, &segment);
            let (_, packet) = crate::custody::testing::read(&bytes);
            assert_eq!(world.custody.owes_an_answer(&packet), expected, "{segment:x?}");
        }
    }

    #[test]
    fn while_the_guest_settles_what_may_be_a_keep_alive_of_a_newer_state_waits() {
        let world = World::connected();
        for (segment, expected) in [
            (keep_alive(), true),
            (seg(RN.wrapping_add(699), SN + 500), true),
            (seg(RN.wrapping_add(699), SN + 500).data(&[0]), true),
            (seg(RN.wrapping_add(699), SN + 500).data(b"xy"), false),
            (seg(RN, SN).data(b"xy"), false),
            (seg(RN, SN).flags(FIN_ACK), false),
            (seg(RN, SN).flags(URG_ACK).data(b"!"), false),
            (keep_alive().port(1), true),
            (keep_alive().port(1).data(&[0]), false),
        ] {
            let bytes = world.frame(false, &segment);
            let (_, packet) = crate::custody::testing::read(&bytes);
            assert_eq!(world.custody.can_wait(&packet), expected, "{segment:x?}");
        }
    }
}

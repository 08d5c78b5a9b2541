//! Asking a guest that still runs for the state of its connections, just before it is stopped.
//!
//! The last segments before the pause may have been missed, and what is not known exactly cannot be answered for
//! days. So while the guest settles (its frames are held already, it still runs) each connection gets a segment
//! *into the guest's own port*, in the form of a peer's keep-alive with its byte, but one lower: `SEQ=RN-2`. It lies
//! wholly below the window, so every TCP answers it and takes nothing from it (RFC 9293 3.10.7.4: "If an incoming
//! segment is not acceptable, an acknowledgment should be sent in reply [...] After sending the acknowledgment, drop the
//! unacceptable segment"). The answer, `SEQ=SND.NXT ACK=RCV.NXT` with window and TSval, is what we must know. It
//! goes to the real peer, to whom it is one repeated acknowledgement.
//!
//! The byte is there since Linux gives no more than one answer in 500 ms to what has none (`tcp_invalid_ratelimit`),
//! and may just have given it to the peer's own keep-alive. Where RN is not the guest's own word there is none, and
//! SEQ is one of which nothing can be taken: RN-1 where the peer alone told it, any number of a handshake of the
//! guest's own whose end was missed. A guest that answers that has the connection.
//!
//! It can do no harm: RN comes from the guest's own segment, so the byte before RN-1 has been taken, whatever was missed
//! since; there is no control bit; ACK repeats what the peer itself has acknowledged. A guest that no longer knows
//! the connection answers with a reset, as it would to the peer's own keep-alive, and the record goes.
//!
//! TSval is ahead of the TS.Recent that is known, which may have moved on unseen: RFC 7323 5.3 R1 wants an
//! acknowledgement of an older one too, but if it has no data, Linux since 6.14 (`tcp_disordered_ack_check`) and the
//! BSDs give none. A newer one passes, and is not recorded: the segment is rejected for its place (R2) before the
//! place where timestamps are (R3). So do Linux (`tcp_validate_incoming`: PAWS, then `tcp_sequence`;
//! `tcp_replace_ts_recent` comes with `tcp_ack`, and the fast path wants SEQ = RCV.NXT) and FreeBSD (`tcp_do_segment`
//! records only where Last.ACK.sent is in the segment). A TCP that recorded it all the same would be deaf to the peer
//! until that one's clock has gone as far, so it is no further ahead than the fastest clock in use can have gone: a
//! microsecond a tick (Linux, `tcp_usec_ts`).
//!
//! Of a connection whose guest spoke in the 500 ms before it was asked, that segment counts: where the question has no
//! byte there may be no other answer. So it must not be missed, and the guest is watched closely for as long before it is
//! fenced ([`Custody::waits`]). A handshake under way is given the time to end, since afterwards nobody can say what
//! became of it. Where no answer came, custody goes on with the last segment that was seen, marked as not exact: whatever
//! does not fit it then wakes the guest.

use surrogate_wire::emit::Ethernet;
use surrogate_wire::{FrameBuf, Tags, Timestamps};

use super::Custody;
use super::connection::{Clock, Connection, Phase, Tuple};
use super::limits::SPACING;
use super::segment::BareAck;
use super::sequence::Seq;
use crate::guest::identity::NicIdentity;
use crate::time::Instant;

/// What is waited for before a guest is asked about its connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wait {
    /// How long at most.
    pub until: Instant,
    /// The handshake that may end sooner.
    handshake: Option<Tuple>,
}

impl Custody {
    /// What is to be waited for before a guest can be asked all of whose TCP was observed since `watched`; `None`:
    /// nothing. After a wait there may be another one.
    #[must_use]
    pub fn waits(&self, now: Instant, watched: Instant) -> Option<Wait> {
        let spaced = watched + SPACING;
        if now < spaced {
            return Some(Wait { until: spaced, handshake: None });
        }
        let under_way = self.table.iter().find(|connection| connection.is_in_handshake(now))?;
        Some(Wait { until: under_way.handshake_until()?, handshake: Some(under_way.tuple) })
    }

    /// Whether it was waited for long enough.
    #[must_use]
    pub fn is_over(&self, now: Instant, wait: &Wait) -> bool {
        let goes_on = |tuple| self.table.get(&tuple).is_some_and(|there| there.is_in_handshake(now));
        wait.until <= now || wait.handshake.is_some_and(|tuple| !goes_on(tuple))
    }

    /// The guest is about to sleep: each connection is to be asked.
    pub fn begin_solicit(&mut self) {
        self.soliciting = Some(0);
        for connection in self.table.iter_mut() {
            connection.asked_at = None;
        }
    }

    /// Whether connections are left to ask.
    #[must_use]
    pub const fn is_soliciting(&self) -> bool {
        self.soliciting.is_some()
    }

    /// Writes the next question, to be put into the guest's own port; `None` when all were asked. Allocates nothing.
    pub fn solicit(&mut self, now: Instant, identity: &NicIdentity, out: &mut FrameBuf<'_>) -> Option<()> {
        let mut at = self.soliciting?;
        while let Some(connection) = self.table.at_mut(at) {
            at += 1;
            if connection.signed || connection.is_in_handshake(now) || !identity.holds(connection.tuple.guest)
            {
                continue;
            }
            if question(connection, now, identity).write(out).is_some() {
                connection.asked_at = Some(now);
                self.soliciting = Some(at);
                return Some(());
            }
        }
        self.soliciting = None;
        None
    }
}

impl Connection {
    /// Whether the guest has said what its state is since it was asked, or so shortly before that it owes no second
    /// answer.
    pub(super) fn has_confirmed(&self) -> bool {
        self.asked_at.is_some_and(|asked| self.heard_at + SPACING >= asked)
    }
}

fn question(connection: &Connection, now: Instant, identity: &NicIdentity) -> BareAck {
    let tuple = connection.tuple;
    // Not where the place of the byte is not certain.
    let byte = connection.phase != Phase::SynSent && !connection.inferred;
    BareAck {
        to: Ethernet { dst: identity.mac, src: connection.peer_mac, tags: Tags::for_vid(identity.vlan) },
        src: (tuple.peer, tuple.peer_port),
        dst: (tuple.guest, tuple.guest_port),
        class: 0,
        flow_label: 0,
        seq: connection.rcv_nxt.minus(1 + u32::from(byte)),
        ack: connection.snd_una.unwrap_or(connection.snd_nxt),
        window: connection.peer_window.unwrap_or(u16::MAX),
        timestamps: connection
            .clock
            .map(|clock| Timestamps { value: clock.newest_recent(now).0, echo: clock.value.0 }),
        sack: None,
        byte,
    }
}

impl Clock {
    /// As far as TS.Recent can have come unseen, and one tick further at least.
    fn newest_recent(&self, now: Instant) -> Seq {
        let passed = self.recent_since.map(|since| now.since(since).as_micros());
        let ticks = passed.and_then(|ticks| u32::try_from(ticks).ok()).unwrap_or(FARTHEST_AHEAD);
        self.recent.plus(ticks.clamp(1, FARTHEST_AHEAD))
    }
}

/// So far ahead a timestamp is still newer (RFC 7323 5.2), with as much room for what was missed before.
const FARTHEST_AHEAD: u32 = 1 << 30;

#[cfg(test)]
mod tests {
    use surrogate_wire::TcpFlags;

    use super::SPACING;
    use crate::custody::testing::{
        GUEST, PEER, RN, RST, SN, SYN_ACK, TSRECENT, TSVAL, W, WINDOW, World, read, seg, tcp,
    };
    use crate::custody::{Custody, CustodyPolicy, Judgement, Kind};
    use crate::time::Duration;

    #[test]
    fn the_question_is_a_keep_alive_of_the_peer_that_no_tcp_takes_anything_from() {
        let mut world = World::stamped();
        let asked = world.solicit();
        assert_eq!(asked.len(), 1);
        let (frame, packet) = read(&asked[0]);
        assert_eq!((frame.src, frame.dst), (PEER, GUEST));
        let (tcp, options) = tcp(&packet);
        assert_eq!(
            (tcp.src_port, tcp.dst_port, tcp.flags, tcp.payload),
            (40_000, 22, TcpFlags::ACK, &[0][..])
        );
        assert_eq!((tcp.seq, tcp.ack), (RN.wrapping_sub(2), SN), "below the window; acknowledged before");
        let stamps = options.timestamps.map(|t| (t.value, t.echo));
        assert_eq!(stamps, Some((TSRECENT + 1, TSVAL)), "newer than TS.Recent");
    }

    #[test]
    fn it_has_a_byte_only_where_the_guest_itself_said_what_it_has() {
        let asked = |world: &mut World| {
            let asked = world.solicit();
            let (segment, _) = tcp(&read(&asked[0]).1);
            (segment.seq.wrapping_sub(RN), segment.payload.len())
        };
        assert_eq!(asked(&mut World::connected()), (2_u32.wrapping_neg(), 1));
        // Of its own SYN nothing tells where the peer stands.
        let mut world = World::new();
        world.guest_sends(&seg(SN - 1, 0).flags(crate::custody::testing::SYN));
        world.after(Duration::from_secs(3));
        assert_eq!(asked(&mut world).1, 0);
        // Inferred from what the peer said while the guest slept.
        let mut world = World::new();
        world.custody.sleep(world.now, &mut world.rng);
        let keep_alive = seg(RN.wrapping_sub(1), SN);
        for _ in 0..2 {
            world.judge(&keep_alive);
            world.after(Duration::from_secs(2));
        }
        assert_eq!(world.judge(&seg(RN, SN)), Judgement::Answer(Kind::KeepAlive));
        let kept = world.custody.learned();
        world.custody = Custody::restore(&kept, CustodyPolicy::default(), 1);
        assert_eq!(asked(&mut world), (1_u32.wrapping_neg(), 0));
        world.guest_sends(&seg(SN, RN).window(W));
        assert_eq!(asked(&mut world), (2_u32.wrapping_neg(), 1));
    }

    #[test]
    fn its_timestamp_is_as_far_ahead_as_the_fastest_clock_can_have_gone() {
        let asked = |world: &mut World| {
            let asked = world.solicit();
            let (_, options) = tcp(&read(&asked[0]).1);
            options.timestamps.unwrap().value.wrapping_sub(TSRECENT)
        };
        let mut world = World::stamped();
        for (passed, ahead) in
            [(Duration::from_micros(1_500), 1_500), (Duration::from_secs(60), 60_001_500), (DAY, 1 << 30)]
        {
            world.after(passed);
            assert_eq!(asked(&mut world), ahead);
        }
        // What the guest repeats is older than that, however late.
        world.guest_sends(&seg(SN, RN).stamped(TSVAL, TSRECENT));
        assert_eq!(asked(&mut world), 1 << 30);
        // After a restart nobody knows since when.
        let kept = world.custody.learned();
        world.custody = Custody::restore(&kept, CustodyPolicy::default(), 1);
        assert_eq!(asked(&mut world), 1 << 30);
    }

    #[test]
    fn its_timestamp_is_never_told_to_the_peer() {
        let mut world = World::stamped();
        world.after(Duration::from_secs(60));
        for question in world.solicit() {
            world.learn(false, &question);
            world.answer_solicit(&question);
        }
        world.custody.sleep(world.now, &mut world.rng);
        let (_, said) = world.answer(&seg(RN.wrapping_sub(1), SN).stamped(TSRECENT - 1, TSVAL)).unwrap();
        assert_eq!(said.timestamps, Some((TSVAL, TSRECENT)));
    }

    const DAY: Duration = Duration::from_secs(86_400);

    #[test]
    fn what_was_missed_before_the_pause_is_known_from_the_answer() {
        let mut world = World::connected();
        world.after(Duration::from_secs(60));
        world.solicit();
        // It has sent 500 bytes and taken 700 since.
        world.guest_sends(&seg(SN + 500, RN.wrapping_add(700)).window(W - 1));
        world.custody.sleep(world.now, &mut world.rng);
        assert_eq!(world.custody.counters().unconfirmed, 0);
        let keep_alive = seg(RN.wrapping_add(699), SN + 500);
        let (kind, said) = world.answer(&keep_alive).unwrap();
        assert_eq!((kind, said.seq, said.ack), (Kind::KeepAlive, SN + 500, RN.wrapping_add(700)));
        assert_eq!(said.window, W - 1);
    }

    #[test]
    fn without_an_answer_the_state_is_not_exact_and_what_does_not_fit_it_wakes() {
        let mut world = World::connected();
        world.after(Duration::from_secs(60));
        world.solicit();
        world.custody.sleep(world.now, &mut world.rng);
        assert_eq!(world.custody.counters().unconfirmed, 1);
        assert_eq!(world.judge(&seg(RN.wrapping_sub(1), SN)), Judgement::Answer(Kind::KeepAlive));
        for unknown in [seg(RN.wrapping_add(699), SN + 500), seg(RN.wrapping_add(WINDOW), SN).data(b"x")] {
            assert_eq!(world.judge(&unknown), Judgement::HoldAndWake);
        }
    }

    #[test]
    fn a_guest_that_spoke_a_moment_before_owes_no_second_answer() {
        let mut world = World::connected();
        world.after(Duration::from_millis(499));
        world.solicit();
        world.custody.sleep(world.now, &mut world.rng);
        assert_eq!(world.custody.counters().unconfirmed, 0);
        // But one that was not asked at all has said nothing.
        let mut world = World::connected();
        world.custody.sleep(world.now, &mut world.rng);
        assert_eq!(world.custody.counters().unconfirmed, 1);
    }

    #[test]
    fn a_guest_that_speaks_while_we_take_it_for_asleep_has_confirmed_nothing() {
        let mut world = World::asleep();
        let beyond = seg(RN.wrapping_add(WINDOW), SN).data(b"x");
        assert_eq!(world.judge(&beyond), Judgement::Answer(Kind::DuplicateAck));
        world.guest_sends(&seg(SN + 5, RN).window(W));
        world.custody.sleep(world.now, &mut world.rng);
        assert_eq!(world.judge(&beyond), Judgement::HoldAndWake);
    }

    #[test]
    fn before_it_is_asked_the_guest_is_watched_as_long_as_it_would_owe_no_second_answer() {
        let world = World::connected();
        let wait = world.custody.waits(world.now, world.now).unwrap();
        assert_eq!(wait.until, world.now + SPACING);
        assert!(!world.custody.is_over(world.now, &wait) && world.custody.is_over(wait.until, &wait));
        assert_eq!(world.custody.waits(wait.until, world.now), None);
    }

    #[test]
    fn a_handshake_under_way_is_waited_for_until_it_ends_or_should_have_gone_on() {
        let mut world = World::new();
        let watched = world.now - SPACING;
        world.guest_sends(&seg(SN - 1, RN).flags(SYN_ACK));
        let wait = world.custody.waits(world.now, watched).unwrap();
        assert_eq!(wait.until, world.now + Duration::from_secs(2));
        assert_eq!(world.custody.waits(wait.until, watched), None, "it would have repeated itself");
        world.after(Duration::from_millis(1));
        assert!(!world.custody.is_over(world.now, &wait));
        world.peer_sends(&seg(RN, SN));
        assert!(world.custody.is_over(world.now, &wait));
        assert_eq!(world.custody.waits(world.now, watched), None);
    }

    #[test]
    fn a_guest_that_knows_the_connection_no_longer_says_so() {
        let mut world = World::connected();
        world.solicit();
        world.guest_sends(&seg(SN, 0).flags(RST));
        assert_eq!(world.custody.counters().known, 0);
    }

    #[test]
    fn a_handshake_whose_end_was_missed_is_known_from_the_answer() {
        // To the guest, and of the guest's own.
        for syn in [seg(SN - 1, RN).flags(SYN_ACK), seg(SN - 1, 0).flags(crate::custody::testing::SYN)] {
            let mut world = World::new();
            world.guest_sends(&syn);
            assert_eq!(world.solicit().len(), 0, "it may be under way");
            world.after(Duration::from_secs(3));
            assert_eq!(world.solicit().len(), 1);
            world.guest_sends(&seg(SN, RN).window(W));
            world.custody.sleep(world.now, &mut world.rng);
            assert_eq!(world.custody.counters().unconfirmed, 0);
            let (kind, said) = world.answer(&seg(RN.wrapping_sub(1), SN)).unwrap();
            assert_eq!((kind, said.seq, said.ack, said.window), (Kind::KeepAlive, SN, RN, W));
        }
    }

    #[test]
    fn without_an_answer_a_handshake_of_the_guests_own_is_as_if_it_had_not_been_seen() {
        let mut world = World::new();
        world.guest_sends(&seg(SN - 1, 0).flags(crate::custody::testing::SYN));
        world.guest_sends(&seg(SN - 1, RN).flags(SYN_ACK).port(2));
        world.after(Duration::from_secs(3));
        world.custody.sleep(world.now, &mut world.rng);
        assert_eq!(world.judge(&seg(RN.wrapping_sub(1), SN)), Judgement::Hold, "a bare one of no connection");
        let to_guest = seg(RN.wrapping_sub(1), SN).port(2);
        assert_eq!(world.judge(&to_guest), Judgement::Answer(Kind::KeepAlive), "its SYN-ACK told RN and W");
    }

    #[test]
    fn each_connection_is_asked_once_but_none_whose_handshake_is_under_way() {
        let mut world = World::new();
        for port in 0..300 {
            world.connect(10_000 + port, false);
        }
        world.guest_sends(&seg(99, 200).flags(SYN_ACK).port(5));
        let asked = world.solicit();
        let ports: std::collections::BTreeSet<u16> =
            asked.iter().map(|frame| tcp(&read(frame).1).0.src_port).collect();
        assert_eq!((asked.len(), ports.len()), (300, 300));
        assert!(!world.custody.is_soliciting() && !ports.contains(&5));
    }
}

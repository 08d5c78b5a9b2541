//! Custody of a connection that was never learned, from the peer's own segments: only of a keep-alive, and only
//! after it has proved to be one.
//!
//! A keep-alive is a bare acknowledgement with SEQ = SND.UNA-1 that the peer repeats unchanged. So:
//!
//! 1. A bare acknowledgement of an unknown connection is remembered and held. It asks for nothing; it wakes nobody.
//! 2. The same again, [`REPEATED`] or more later: probably a keep-alive. Not certainly: what looks the same at
//!    SEQ = SND.NXT is a peer's answer to a segment that a stranger forged, and to acknowledge SEQ+1 then could, if
//!    the peer sends a byte at that moment, acknowledge what nobody has received. So the peer is asked by a
//!    keep-alive of ours that claims neither: `SEQ=SEG.ACK-1 ACK=SEG.SEQ`. It lies below the peer's window, so it is
//!    dropped and answered with the peer's numbers (RFC 9293 3.10.7.4), and its acknowledgement is one that the
//!    guest has given in either case.
//! 3. The answer begins at SEQ+1: then SND.UNA = SND.NXT = SEQ+1, nothing is under way, and custody begins with RN = SEQ+1,
//!    SN = SEG.ACK, TSval = its TSecr (the guest's last that the peer took). The keep-alive is answered then.
//!
//! What the peer is asked says nothing that a stranger could not guess, so one who knows the ends of a connection can
//! have it inferred as he likes. Thus what does not fit it, above or below, is never taken for old: it wakes. And none
//! of it outlives the sleep: what the guest itself says then counts.
//!
//! Anything else (data, one garbage byte that could be data, another number, no answer to our question) is held and
//! wakes, as ever.
//!
//! The window. The guest's last W is unknown, and a smaller one would shrink the right edge. 65,535 cannot: no window
//! field is larger, and whatever the scale, the peer multiplies all by the same. It may offer more than the
//! guest has room for. That loses nothing: we acknowledge none of what comes, its first byte wakes the guest, the guest
//! says its own window, and what did not fit is sent again (RFC 9293 3.8.6 asks senders to bear that).

use surrogate_wire::emit::Ethernet;
use surrogate_wire::{Frame, Mac, Timestamps};

use super::connection::{Clock, Connection, Phase, Tuple};
use super::segment::{BareAck, Segment};
use super::sequence::Seq;
use super::{Custody, Judgement, Kind};
use crate::guest::identity::NicIdentity;
use crate::time::{Duration, Instant};

/// Bare acknowledgements of unknown connections: each in one of the few places that its hash gives. One that was not
/// repeated for [`FORGOTTEN`] goes for a new one; if there is none such the new one is not remembered, and
/// wakes.
#[derive(Clone, Debug, Default)]
pub(super) struct Suspects {
    /// Empty while the guest is awake.
    places: Vec<[Option<Suspect>; WAYS]>,
}

#[derive(Clone, Copy, Debug)]
struct Suspect {
    tuple: Tuple,
    seq: Seq,
    ack: Seq,
    window: u16,
    since: Instant,
    /// When the peer was asked.
    asked: Option<Instant>,
}

impl Suspects {
    /// Makes room.
    pub(super) fn begin(&mut self) {
        self.places = vec![[None; WAYS]; SETS];
    }

    /// Forgets all and gives the room back.
    pub(super) fn end(&mut self) {
        self.places = Vec::new();
    }

    /// The place of `tuple`: its own, or a free one.
    fn place(&mut self, now: Instant, tuple: &Tuple, hash: u64) -> Option<&mut Option<Suspect>> {
        let set = self.places.get_mut(hash as usize & (SETS - 1))?;
        let own = set.iter().position(|place| place.is_some_and(|suspect| suspect.tuple == *tuple));
        let is_free = |place: &Option<Suspect>| place.is_none_or(|other| now.since(other.since) >= FORGOTTEN);
        let at = own.or_else(|| set.iter().position(is_free))?;
        set.get_mut(at)
    }
}

impl Custody {
    /// A segment of no known connection.
    pub(super) fn infer(
        &mut self,
        now: Instant,
        identity: &NicIdentity,
        frame: &Frame<'_>,
        segment: &Segment<'_>,
    ) -> Judgement {
        let hash = self.table.hash_of(&segment.tuple);
        let (seq, ack, window) = (segment.seq(), segment.ack(), segment.tcp.window);
        let Some(place) = self.suspects.place(now, &segment.tuple, hash) else { return Judgement::NotMine };
        let known = place.filter(|suspect| suspect.tuple == segment.tuple);
        let is_of_none = segment.options.signed || segment.options.is_of_a_syn();
        if !segment.is_bare_ack() || is_of_none || frame.src == identity.mac {
            if known.is_some() {
                *place = None;
            }
            return Judgement::NotMine;
        }
        let Some(suspect) = known else {
            *place = Some(Suspect { tuple: segment.tuple, seq, ack, window, since: now, asked: None });
            return Judgement::Hold;
        };
        let same = (suspect.seq, suspect.ack, suspect.window) == (seq, ack, window);
        match suspect.asked {
            None if same && now.since(suspect.since) < REPEATED => Judgement::Hold,
            None if same => {
                *place = Some(Suspect { asked: Some(now), ..suspect });
                Judgement::Answer(Kind::KeepAlive)
            }
            Some(asked) if same && now.since(asked) < REPEATED => Judgement::Hold,
            Some(_) if (seq, ack) == (suspect.seq.plus(1), suspect.ack) => {
                *place = None;
                self.begin_custody(now, frame.src, segment)
            }
            _ => {
                *place = None;
                Judgement::HoldAndWake
            }
        }
    }

    /// The peer has shown where it stands.
    fn begin_custody(&mut self, now: Instant, peer_mac: Mac, segment: &Segment<'_>) -> Judgement {
        let limit = self.policy.connections.get();
        if !self.table.has_room(limit) {
            return Judgement::HoldAndWake;
        }
        let numbers = (segment.seq(), segment.ack());
        let connection = Connection {
            from_mac: Some(peer_mac),
            snd_una: Some(segment.ack()),
            window: u16::MAX,
            peer_window: Some(segment.tcp.window),
            clock: segment.options.timestamps.map(|theirs| Clock {
                value: Seq(theirs.echo),
                recent: Seq(theirs.value),
                recent_since: Some(now),
            }),
            inferred: true,
            kept_alive_at: Some(now),
            ..Connection::new(segment.tuple, peer_mac, Phase::Established, numbers, now)
        };
        if self.table.insert(connection, limit).is_err() {
            return Judgement::HoldAndWake;
        }
        self.counters.inferred += 1;
        Judgement::Answer(Kind::KeepAlive)
    }

    /// What is asked of the peer of an unknown connection about a segment that it repeated.
    pub(super) fn question(
        &self,
        identity: &NicIdentity,
        frame: &Frame<'_>,
        segment: &Segment<'_>,
    ) -> Option<BareAck> {
        let tuple = segment.tuple;
        segment.is_bare_ack().then(|| BareAck {
            to: Ethernet { dst: frame.src, src: identity.mac, tags: frame.tags },
            src: (tuple.guest, tuple.guest_port),
            dst: (tuple.peer, tuple.peer_port),
            class: 0,
            flow_label: 0,
            seq: segment.ack().minus(1),
            ack: segment.seq(),
            window: u16::MAX,
            timestamps: segment
                .options
                .timestamps
                .map(|theirs| Timestamps { value: theirs.echo, echo: theirs.value }),
            sack: None,
            byte: false,
        })
    }
}

/// No stack sends keep-alives closer together by default, and nothing that the network doubles comes so late.
const REPEATED: Duration = Duration::from_secs(1);
/// Longer than the keep-alives of common stacks are apart once the first one was not answered (75 s).
const FORGOTTEN: Duration = Duration::from_secs(600);
/// Room for 256 connections, of which sixteen share their places.
const SETS: usize = 16;
const WAYS: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::custody::CustodyPolicy;
    use crate::custody::testing::{RN, SN, Said, Seg, TSRECENT, TSVAL, World, seg};

    const SECOND: Duration = Duration::from_secs(1);

    fn keep_alive() -> Seg {
        seg(RN.wrapping_sub(1), SN).stamped(TSRECENT, TSVAL)
    }

    fn unknown() -> World {
        let mut world = World::new();
        world.custody.sleep(world.now, &mut world.rng);
        world
    }

    /// A world in which the peer was asked.
    fn asked() -> World {
        let mut world = unknown();
        assert_eq!(world.judge(&keep_alive()), Judgement::Hold);
        world.after(SECOND);
        let (kind, question) = world.answer(&keep_alive()).expect("a question");
        assert_eq!(kind, Kind::KeepAlive);
        let below = RN.wrapping_sub(1);
        let timestamps = Some((TSVAL, TSRECENT));
        // It claims neither that RN-1 has come nor that it has not.
        assert_eq!(question, Said { seq: SN - 1, ack: below, window: u16::MAX, timestamps, sack: None });
        world
    }

    #[test]
    fn a_keep_alive_that_proves_to_be_one_is_answered_from_then_on() {
        let mut world = asked();
        let (_, said) =
            world.answer(&seg(RN, SN).stamped(TSRECENT + 1, TSVAL)).expect("the keep-alive's answer");
        assert_eq!((said.seq, said.ack, said.window), (SN, RN, u16::MAX));
        assert_eq!(said.timestamps, Some((TSVAL, TSRECENT + 1)));
        assert_eq!(world.custody.counters().inferred, 1);
        for _ in 0..100 {
            world.after(SECOND);
            let (kind, said) = world.answer(&keep_alive()).expect("an answer");
            assert_eq!((kind, said.seq, said.ack), (Kind::KeepAlive, SN, RN));
        }
        assert_eq!(world.judge(&seg(RN, SN).data(b"x")), Judgement::HoldAndWake);
    }

    #[test]
    fn a_connection_that_a_stranger_made_us_infer_wrongly_costs_the_real_peer_nothing() {
        // He knows its ends and no number of it, and need not hear what the peer is asked.
        for (seq, ack) in
            [(RN.wrapping_add(0x2000_0000), SN), (RN.wrapping_sub(0x2000_0000), SN ^ 0x5555_0000)]
        {
            let mut world = unknown();
            assert_eq!(world.judge(&seg(seq, ack)), Judgement::Hold);
            world.after(SECOND);
            assert!(world.answer(&seg(seq, ack)).is_some());
            assert!(world.answer(&seg(seq.wrapping_add(1), ack)).is_some());
            assert_eq!(world.custody.counters().inferred, 1);
            world.after(SECOND);
            for real in [seg(RN, SN).data(b"data"), seg(RN.wrapping_sub(1), SN), seg(RN, SN)] {
                assert_eq!(world.judge(&real), Judgement::HoldAndWake, "{seq:x}: {real:x?}");
            }
        }
    }

    #[test]
    fn what_was_inferred_does_not_outlive_the_sleep_and_what_the_guest_says_counts() {
        let mut world = asked();
        world.answer(&seg(RN, SN)).expect("the keep-alive's answer");
        let learned = world.custody.learned();
        world.custody.wake();
        assert_eq!(world.custody.counters().known, 0);
        // One of a stranger's numbers, which the guest's own are behind, and that survived a restart.
        world.custody = Custody::restore(&learned, CustodyPolicy::default(), 3);
        world.guest_sends(&seg(SN.wrapping_sub(70_000), RN.wrapping_sub(70_000)).window(9));
        world.custody.sleep(world.now, &mut world.rng);
        let (_, said) =
            world.answer(&seg(RN.wrapping_sub(70_001), SN.wrapping_sub(70_000))).expect("an answer");
        assert_eq!((said.seq, said.ack), (SN.wrapping_sub(70_000), RN.wrapping_sub(70_000)));
    }

    #[test]
    fn many_connections_are_found_out_beside_each_other() {
        let mut world = unknown();
        const CONNECTIONS: u16 = 100;
        let each = |world: &mut World, what: &dyn Fn(&mut World, u16) -> bool| {
            (0..CONNECTIONS).filter(|port| what(world, 40_000 + port)).count()
        };
        let first = each(&mut world, &|world, port| world.judge(&keep_alive().port(port)) == Judgement::Hold);
        world.after(SECOND);
        let asked = each(&mut world, &|world, port| world.answer(&keep_alive().port(port)).is_some());
        let told = each(&mut world, &|world, port| world.answer(&seg(RN, SN).port(port)).is_some());
        assert_eq!((first, asked, told), (CONNECTIONS.into(), CONNECTIONS.into(), CONNECTIONS.into()));
    }

    #[test]
    fn a_peer_that_stands_elsewhere_is_left_to_the_guest() {
        // At SEQ itself: what came twice was the peer's answer to somebody's forged segment.
        // Beyond SEQ+1: data is under way.
        for seq in [RN.wrapping_sub(1), RN + 1, RN.wrapping_add(500)] {
            let mut world = asked();
            world.after(SECOND);
            assert_eq!(world.judge(&seg(seq, SN)), Judgement::HoldAndWake, "{seq:x}");
            assert_eq!(world.custody.counters().inferred, 0);
        }
    }

    #[test]
    fn nothing_is_inferred_from_what_could_be_data_or_was_doubled_on_the_way() {
        let mut world = unknown();
        assert_eq!(world.judge(&keep_alive()), Judgement::Hold);
        world.after(SECOND / 2);
        assert_eq!(world.judge(&keep_alive()), Judgement::Hold, "too soon");
        let mut world = unknown();
        for _ in 0..5 {
            assert_eq!(world.judge(&keep_alive().data(&[0])), Judgement::NotMine);
            world.after(SECOND);
        }
    }

    #[test]
    fn an_acknowledgement_that_changes_wakes() {
        for other in [
            seg(RN.wrapping_sub(1), SN + 1),
            seg(RN, SN),
            seg(RN.wrapping_sub(2), SN),
            keep_alive().window(9),
        ] {
            let mut world = unknown();
            assert_eq!(world.judge(&keep_alive()), Judgement::Hold);
            world.after(SECOND);
            assert_eq!(world.judge(&other), Judgement::HoldAndWake);
        }
    }

    #[test]
    fn without_room_the_guest_decides_and_no_memory_is_taken() {
        let connections = core::num::NonZeroUsize::new(1).unwrap();
        let policy = crate::policy::custody::CustodyPolicy { connections, ..Default::default() };
        let mut world = World::with(policy);
        world.connect(50_000, false);
        let mut world = world.settled();
        assert_eq!(world.judge(&keep_alive()), Judgement::Hold);
        world.after(SECOND);
        assert!(world.answer(&keep_alive()).is_some());
        assert_eq!(world.judge(&seg(RN, SN)), Judgement::HoldAndWake);
    }

    #[test]
    fn an_awake_guests_connections_are_not_guessed_at() {
        assert_eq!(World::new().judge(&keep_alive()), Judgement::NotMine);
        let mut world = unknown();
        world.custody.wake();
        assert_eq!(world.judge(&keep_alive()), Judgement::NotMine);
    }
}

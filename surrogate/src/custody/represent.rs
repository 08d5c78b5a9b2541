//! Which connections custody could not stand in for, and why: a guest that has one is not put to sleep.

use core::fmt;
use core::time::Duration;

use serde::{Deserialize, Serialize};

use super::Custody;
use super::connection::{Connection, Phase, Tuple};
use crate::time::Instant;

/// Why a connection could not be answered for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Unrepresentable {
    /// Its handshake is under way.
    Handshake,
    /// It is being closed: a FIN is not acknowledged yet.
    Closing,
    /// Its segments are signed (TCP-MD5, TCP-AO): nobody else can make one.
    Signed,
    /// The guest has sent what the peer has not acknowledged yet.
    Unacknowledged,
    /// There are more connections than are remembered.
    TableFull,
}

impl Unrepresentable {
    /// All of them.
    pub const ALL: [Self; 5] =
        [Self::Handshake, Self::Closing, Self::Signed, Self::Unacknowledged, Self::TableFull];

    /// Its name in status and JSON.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Handshake => "handshake",
            Self::Closing => "closing",
            Self::Signed => "signed",
            Self::Unacknowledged => "unacknowledged",
            Self::TableFull => "table-full",
        }
    }
}

impl fmt::Display for Unrepresentable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Handshake => "its handshake is under way",
            Self::Closing => "it is being closed",
            Self::Signed => "its segments are signed",
            Self::Unacknowledged => "the guest's data is not acknowledged yet",
            Self::TableFull => "there are more connections than custody remembers",
        })
    }
}

impl Custody {
    /// The connections that could not be answered for if the guest slept now, with the reason. All of its TCP was
    /// observed since `watched`, both ways; `None`: it is not.
    pub fn unrepresentable(
        &self,
        now: Instant,
        watched: Option<Instant>,
    ) -> impl Iterator<Item = (Tuple, Unrepresentable)> + '_ {
        let known = self
            .table
            .iter()
            .filter_map(move |connection| Some((connection.tuple, why_not(connection, now, watched)?)));
        known.chain(self.refused.recent(now).map(|tuple| (tuple, Unrepresentable::TableFull)))
    }
}

/// Handshakes, ends and unacknowledged data have an end of their own, which an observer may miss: after the
/// time in which they would have been seen again they count as over.
fn why_not(connection: &Connection, now: Instant, watched: Option<Instant>) -> Option<Unrepresentable> {
    if connection.signed {
        Some(Unrepresentable::Signed)
    } else if connection.phase != Phase::Established {
        connection.is_in_handshake(now).then_some(Unrepresentable::Handshake)
    } else if connection.waits_for_an_end(now, watched) {
        Some(Unrepresentable::Closing)
    } else {
        connection.waits_for_an_acknowledgement(now, watched).then_some(Unrepresentable::Unacknowledged)
    }
}

/// Connections that found no place in the table, the newest of them: each tells of itself again with its next
/// segment.
#[derive(Clone, Debug, Default)]
pub(super) struct Refused {
    places: [Option<(Tuple, Instant)>; REFUSED],
    next: usize,
}

impl Refused {
    pub(super) fn note(&mut self, now: Instant, tuple: Tuple) {
        let known = self.places.iter().position(|place| place.is_some_and(|(there, _)| there == tuple));
        let at = known.unwrap_or(self.next);
        if known.is_none() {
            self.next = (self.next + 1) % REFUSED;
        }
        if let Some(place) = self.places.get_mut(at) {
            *place = Some((tuple, now));
        }
    }

    /// It has a place now, or is over.
    pub(super) fn forget(&mut self, tuple: &Tuple) {
        for place in &mut self.places {
            place.take_if(|(there, _)| there == tuple);
        }
    }

    fn recent(&self, now: Instant) -> impl Iterator<Item = Tuple> + '_ {
        let recent = move |(_, at): &&(Tuple, Instant)| now.since(*at) < REFUSED_FOR;
        self.places.iter().flatten().filter(recent).map(|(tuple, _)| *tuple)
    }
}

const REFUSED: usize = 8;
/// Not heard of for so long, such a connection counts as over.
const REFUSED_FOR: Duration = Duration::from_secs(150);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::custody::testing::{FIN_ACK, RN, SN, SYN, SYN_ACK, W, World, seg};
    use crate::policy::custody::CustodyPolicy;

    fn reasons(world: &World) -> Vec<Unrepresentable> {
        let told = world.custody.unrepresentable(world.now, Some(Instant::ZERO));
        told.map(|(_, why)| why).collect()
    }

    #[test]
    fn an_idle_connection_can_be_answered_for() {
        assert!(reasons(&World::connected()).is_empty());
        assert!(reasons(&World::stamped()).is_empty());
    }

    #[test]
    fn a_handshake_under_way_cannot_as_long_as_the_guest_repeats_its_part() {
        let mut world = World::new();
        world.peer_sends(&seg(199, 0).flags(SYN));
        assert!(reasons(&world).is_empty(), "the guest has not answered: not its connection");
        world.guest_sends(&seg(99, 200).flags(SYN_ACK));
        for pause in [1, 2, 4, 8] {
            assert_eq!(reasons(&world), [Unrepresentable::Handshake]);
            world.after(Duration::from_secs(pause));
            assert_eq!(reasons(&world), [Unrepresentable::Handshake], "its time has just come");
            world.guest_sends(&seg(99, 200).flags(SYN_ACK));
        }
        world.after(Duration::from_secs(17));
        assert!(reasons(&world).is_empty(), "it is over, one way or the other");
    }

    #[test]
    fn one_that_is_being_closed_cannot_but_a_half_closed_one_can() {
        let mut world = World::connected();
        world.peer_sends(&seg(RN, SN).flags(FIN_ACK));
        assert_eq!(reasons(&world), [Unrepresentable::Closing]);
        world.guest_sends(&seg(SN, RN + 1).window(W));
        assert!(reasons(&world).is_empty());
        world.guest_sends(&seg(SN, RN + 1).window(W).flags(FIN_ACK));
        assert_eq!(reasons(&world), [Unrepresentable::Closing]);
        world.after(Duration::from_secs(3));
        assert!(reasons(&world).is_empty(), "the guest has not repeated it");
    }

    #[test]
    fn one_that_the_peer_closed_is_being_closed_until_it_would_have_repeated_that() {
        let mut world = World::connected();
        world.after(Duration::from_secs(3_600));
        world.peer_sends(&seg(RN, SN).flags(FIN_ACK));
        assert_eq!(reasons(&world), [Unrepresentable::Closing]);
        world.after(Duration::from_secs(2));
        world.peer_sends(&seg(RN, SN).flags(FIN_ACK));
        world.after(Duration::from_millis(5_999));
        assert_eq!(reasons(&world), [Unrepresentable::Closing]);
        world.after(Duration::from_millis(1));
        assert!(reasons(&world).is_empty());
    }

    #[test]
    fn data_and_a_fin_for_a_peer_that_is_gone_keep_the_guest_awake_as_long_as_it_repeats_them() {
        for flags in [crate::custody::testing::ACK, FIN_ACK] {
            let (mut world, why) = match flags {
                FIN_ACK => (World::connected(), Unrepresentable::Closing),
                _ => (World::stamped(), Unrepresentable::Unacknowledged),
            };
            let sent = seg(SN, RN).window(W).flags(flags).data(b"hello?");
            let mut gap = Duration::from_millis(200);
            world.guest_sends(&sent);
            for _ in 0..15 {
                world.after(gap);
                assert_eq!(reasons(&world), [why], "its repetition is due after {gap:?}");
                world.guest_sends(&sent);
                gap = (2 * gap).min(Duration::from_secs(120));
            }
            world.after(Duration::from_secs(150));
            assert!(reasons(&world).is_empty(), "it has given up");
        }
    }

    #[test]
    fn what_nobody_watched_may_be_unacknowledged() {
        let mut world = World::connected();
        world.guest_sends(&seg(SN, RN).window(W).data(b"hello?"));
        world.after(Duration::from_secs(10));
        let told = |world: &World, watched| world.custody.unrepresentable(world.now, watched).count();
        assert_eq!(told(&world, None), 1);
        let begun = world.now;
        world.after(Duration::from_millis(9_999));
        assert_eq!(told(&world, Some(begun)), 1, "it may repeat itself every ten seconds");
        world.after(Duration::from_millis(1));
        assert_eq!(told(&world, Some(begun)), 0);
        assert_eq!(told(&world, None), 1);
    }

    #[test]
    fn a_strangers_fin_keeps_nobody_awake() {
        let mut world = World::connected();
        world.peer_sends(&seg(RN ^ 0x8000_0000, SN).flags(FIN_ACK));
        assert!(reasons(&world).is_empty());
    }

    #[test]
    fn signed_segments_can_be_made_by_nobody_else() {
        let mut world = World::new();
        world.guest_sends(&seg(SN, RN).options(&[[19, 18].as_slice(), &[0; 16]].concat()));
        assert_eq!(reasons(&world), [Unrepresentable::Signed]);
        world.after(Duration::from_secs(100_000));
        assert_eq!(reasons(&world), [Unrepresentable::Signed]);
    }

    #[test]
    fn data_that_the_peer_has_not_acknowledged_is_waited_for() {
        let mut world = World::connected();
        world.guest_sends(&seg(SN, RN).window(W).data(b"ten bytes."));
        assert_eq!(reasons(&world), [Unrepresentable::Unacknowledged]);
        world.peer_sends(&seg(RN, SN + 10));
        assert!(reasons(&world).is_empty());
        world.guest_sends(&seg(SN + 10, RN).window(W).data(b"more"));
        world.after(Duration::from_secs(3));
        assert!(reasons(&world).is_empty(), "the acknowledgement was missed: it has not been sent again");
    }

    #[test]
    fn connections_that_found_no_place_are_told_with_their_ends() {
        let connections = core::num::NonZeroUsize::new(4).unwrap();
        let mut world = World::with(CustodyPolicy { connections, ..CustodyPolicy::default() });
        for port in 0..5 {
            world.connect(40_000 + port, false);
        }
        let told: Vec<_> = world.custody.unrepresentable(world.now, None).collect();
        assert_eq!(
            told.iter().map(|(tuple, why)| (tuple.peer_port, *why)).collect::<Vec<_>>(),
            [(40_004, Unrepresentable::TableFull)]
        );
        assert_eq!(told[0].0.to_string(), "192.0.2.11:22 to 192.0.2.99:40004");
        assert!(world.custody.counters().refused > 0);
        // It has one when another connection is over.
        world.guest_sends(&seg(SN, 0).flags(crate::custody::testing::RST).port(40_001));
        world.guest_sends(&seg(SN, RN).window(W).port(40_004));
        assert!(reasons(&world).is_empty());
    }
}

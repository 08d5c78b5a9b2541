//! Keep-alives of our own towards the peer, or the address translators on the way: `SEQ=SN-1 ACK=RN`, no data.
//!
//! Each pass goes over all connections, so there are at most [`PASSES`] of them in an interval, however many there are.
//!
//! Only if the policy says so: a translator should keep an idle mapping for 124 minutes (RFC 5382 REQ-5), balancers
//! often do for four to six. The peer answers with a bare acknowledgement, which owes nothing.

use surrogate_wire::{FrameBuf, Tags};

use super::segment::BareAck;
use super::{Custody, Kind};
use crate::guest::identity::NicIdentity;
use crate::rng::Rng;
use crate::time::Instant;

/// Whose turn it is.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Turn {
    /// Nothing is due before.
    pub(super) due: Option<Instant>,
    /// Where the pass over the connections goes on.
    at: usize,
    /// The earliest that the pass has met so far of what is not due yet.
    later: Option<Instant>,
}

impl Custody {
    /// When there is a keep-alive to send.
    #[must_use]
    pub const fn due(&self) -> Option<Instant> {
        self.turn.due
    }

    /// Writes the next keep-alive that is due; call again until `None`, after which none is due at `now`. Allocates
    /// nothing.
    pub fn speak(&mut self, now: Instant, identity: &NicIdentity, out: &mut FrameBuf<'_>) -> Option<Kind> {
        let interval = self.policy.keep_alive?;
        self.turn.due.filter(|due| *due <= now)?;
        let tags = Tags::for_vid(identity.vlan);
        while let Some(connection) = self.table.at_mut(self.turn.at) {
            self.turn.at += 1;
            let Some(at) = connection.speak_at else { continue };
            let is_due = at <= now;
            // From when it was due, so that it is not a little later each time.
            let next = match at + interval {
                _ if !is_due => at,
                next if next > now => next,
                _ => now + interval,
            };
            connection.speak_at = Some(next);
            self.turn.later = Some(self.turn.later.map_or(next, |later| later.min(next)));
            if !is_due || !identity.holds(connection.tuple.guest) {
                continue;
            }
            let last = connection.bare_ack(identity, tags);
            let keep_alive = BareAck { seq: last.seq.minus(1), ..last };
            if keep_alive.write(out).is_some() {
                return Some(Kind::KeepAlive);
            }
        }
        let due = self.turn.later.map(|later| later.max(now + interval / PASSES));
        self.turn = Turn { due, at: 0, later: None };
        None
    }

    /// From now on each connection has its turn within an interval, not all at the same moment.
    pub(super) fn set_turns(&mut self, now: Instant, rng: &mut Rng) {
        self.turn = Turn::default();
        let Some(interval) = self.policy.keep_alive else { return };
        let nanos = u64::try_from(interval.as_nanos()).unwrap_or(u64::MAX);
        for connection in self.table.iter_mut().filter(|connection| connection.is_answerable()) {
            let at = now + core::time::Duration::from_nanos(rng.below(nanos));
            connection.speak_at = Some(at);
            self.turn.due = Some(self.turn.due.map_or(at, |due| due.min(at)));
        }
    }

    /// Nobody has a turn any more.
    pub(super) fn end_turns(&mut self) {
        self.turn = Turn::default();
        for connection in self.table.iter_mut() {
            connection.speak_at = None;
        }
    }
}

/// In an interval.
const PASSES: u32 = 256;

#[cfg(test)]
mod tests {
    use super::PASSES;
    use crate::custody::testing::{RN, SN, Said, W, World, said};
    use crate::policy::custody::CustodyPolicy;
    use crate::time::Duration;

    const INTERVAL: Duration = Duration::from_secs(240);

    fn asleep(keep_alive: Option<Duration>, connections: u16) -> World {
        let mut world = World::with(CustodyPolicy { keep_alive, ..CustodyPolicy::default() });
        for port in 0..connections {
            world.connect(40_000 + port, false);
        }
        world.settled()
    }

    fn spoken(world: &mut World) -> Vec<Vec<u8>> {
        let mut frames = Vec::new();
        while let Some(frame) =
            world.written(|world, out| world.custody.speak(world.now, &world.identity, out))
        {
            frames.push(frame);
        }
        frames
    }

    #[test]
    fn each_connection_is_kept_alive_once_an_interval_and_not_all_at_once() {
        let mut world = asleep(Some(INTERVAL), 50);
        let start = world.now;
        let mut frames = Vec::new();
        let mut times = 0;
        while let Some(due) = world.custody.due().filter(|due| due.since(start) < 10 * INTERVAL) {
            world.now = world.now.max(due);
            frames.extend(spoken(&mut world));
            assert!(world.custody.due().is_some_and(|due| due > world.now));
            times += 1;
        }
        assert!((490..=510).contains(&frames.len()), "{}", frames.len());
        assert!(times > 100, "spread: {times}");
        let expected = Said { seq: SN.wrapping_sub(1), ack: RN, window: W, timestamps: None, sack: None };
        assert!(frames.iter().all(|frame| said(frame) == expected));
    }

    #[test]
    fn many_connections_are_gone_over_no_more_often_than_few() {
        const CONNECTIONS: u16 = 1_000;
        let mut world = asleep(Some(INTERVAL), CONNECTIONS);
        let start = world.now;
        let (mut said, mut passes) = (0, 0);
        while let Some(due) = world.custody.due().filter(|due| due.since(start) < 4 * INTERVAL) {
            world.now = world.now.max(due);
            said += spoken(&mut world).len();
            passes += 1;
        }
        assert!(passes <= 4 * (PASSES as usize + 1), "{passes}");
        let all = 4 * usize::from(CONNECTIONS);
        // Some were due when it began.
        assert!((all - 10..=all + 60).contains(&said), "{said}: none is left out, nor late for good");
    }

    #[test]
    fn without_the_policy_nothing_is_said_and_awake_neither() {
        let mut world = asleep(None, 3);
        assert_eq!(world.custody.due(), None);
        world.after(100 * INTERVAL);
        assert!(spoken(&mut world).is_empty());
        let mut world = asleep(Some(INTERVAL), 3);
        world.custody.wake();
        assert_eq!(world.custody.due(), None);
        world.after(100 * INTERVAL);
        assert!(spoken(&mut world).is_empty());
    }
}

//! The way of held frames into the woken guest: what has been given to the driver, what came of it,
//! and when a NIC is done.
//!
//! ```text
//!  held ──next──▶ outstanding ──Done::Delivered──▶ gone, counted as replayed
//!    ▲                │
//!    └─Done::Refused──┘   Full: again after RETRY   Gone: again at PortReady   TooLong: the first is dropped
//! ```
//!
//! At most [`WINDOW`] frames are outstanding per NIC, always the oldest, so that a refusal leaves the order as
//! it was. A NIC whose forwarding was released is done when nothing came for it during [`LINGER`] and
//! nothing is held. Pure bookkeeping: no frame is looked at here.

use super::contract::{Mode, Notice, Refusal};
use super::hold::Queue;
use super::verdict::DropReason;
use super::wake::Once;
use super::{Engine, LINGER, NicId, RETRY, WINDOW};
use crate::guest::identity::Epoch;
use crate::guest::table::{Lan, Place};
use crate::time::Instant;

/// Where one NIC's replay stands.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Delivery {
    pause: Pause,
    /// Epoch in which the outstanding frames were given out.
    epoch: Epoch,
    /// Frames delivered since `Replay` began.
    pub(super) delivered: u64,
    /// Frames that arrived since the guest had taken everything: the release is on its way, and direct
    /// frames may be faster.
    pub(super) late: u32,
    /// Frames that may have been overtaken.
    pub(super) overtaken: u32,
    /// When the last frame for this NIC arrived, or its forwarding was released.
    pub(super) quiet_since: Instant,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Pause {
    #[default]
    None,
    Until(Instant),
    PortReady,
}

impl Delivery {
    /// A replay begins, or goes on in another state.
    pub(super) fn begin(&mut self, now: Instant, continues: bool) {
        self.pause = Pause::None;
        self.quiet_since = now;
        if !continues {
            self.delivered = 0;
            self.late = 0;
            self.overtaken = 0;
        }
    }

    /// The forwarding was released a moment ago, nobody knows when exactly; `held` frames are not delivered
    /// yet. Says how many frames may have been overtaken until now.
    pub(super) fn released(&mut self, held: u32) -> u32 {
        let late = core::mem::take(&mut self.late).max(held);
        self.overtaken = self.overtaken.saturating_add(late);
        late
    }

    /// Whether the next held frame may be given to the driver.
    #[must_use]
    pub(super) fn may_deliver(&self, mode: Mode, epoch: Epoch, queue: &Queue) -> bool {
        matches!(mode, Mode::Replay { .. })
            && self.pause == Pause::None
            && queue.has_more()
            && (queue.outstanding() as usize) < WINDOW
            // Frames of an earlier replay first come to their end, so that a `Done` tells its own.
            && (queue.outstanding() == 0 || self.epoch == epoch)
    }

    /// One was given to the driver.
    pub(super) const fn gave(&mut self, epoch: Epoch) {
        self.epoch = epoch;
    }

    /// Whether a `Done` of `epoch` is about what is outstanding now.
    #[must_use]
    pub(super) fn is_about(&self, epoch: Epoch) -> bool {
        self.epoch == epoch
    }

    /// The driver could not deliver.
    pub(super) fn refused(&mut self, now: Instant, why: Refusal) {
        self.pause = match why {
            Refusal::Full => Pause::Until(now + RETRY),
            Refusal::Gone => Pause::PortReady,
            Refusal::TooLong => Pause::None,
        };
    }

    /// The guest's port is there.
    pub(super) fn port_ready(&mut self) {
        self.pause = Pause::None;
    }

    /// Ends a pause that is over. Says whether one did.
    pub(super) fn resume(&mut self, now: Instant) -> bool {
        let over = matches!(self.pause, Pause::Until(at) if at <= now);
        if over {
            self.pause = Pause::None;
        }
        over
    }

    /// When to try again.
    #[must_use]
    pub(super) fn retry_at(&self, mode: Mode) -> Option<Instant> {
        match (mode, self.pause) {
            (Mode::Replay { .. }, Pause::Until(at)) => Some(at),
            _ => None,
        }
    }

    /// When a released NIC with nothing held passes.
    #[must_use]
    pub(super) fn settles_at(&self, mode: Mode, queue: &Queue) -> Option<Instant> {
        match mode {
            Mode::Replay { released: true } if queue.frames() == 0 => Some(self.quiet_since + LINGER),
            _ => None,
        }
    }
}

impl Engine {
    /// The next frame that may be given to the driver, its bytes in `scratch`; NICs take turns.
    pub(super) fn next_delivery(&mut self) -> Option<(NicId, Epoch, usize)> {
        while let Some(place) = self.ready.pop_front() {
            let Some(nic) = self.nics.get_mut(place as usize).and_then(Option::as_mut) else { continue };
            nic.ready = false;
            if !nic.delivery.may_deliver(nic.mode, nic.epoch, &nic.queue) {
                continue;
            }
            let Some(held) = self.hold.next_to_deliver(&mut nic.queue) else { continue };
            nic.delivery.gave(nic.epoch);
            let given = (nic.identity.nic, nic.epoch, held.len);
            self.hold.read(held, &mut self.scratch);
            self.make_ready(place);
            return Some(given);
        }
        None
    }

    /// The first `count` outstanding frames reached the guest.
    pub(super) fn delivered(&mut self, now: Instant, nic: NicId, epoch: Epoch, count: u32) {
        let Some(place) = self.table.nic(nic) else { return };
        let Some(nic) = self.nics.get_mut(place as usize).and_then(Option::as_mut) else { return };
        if nic.delivery.is_about(epoch) {
            let count = self.hold.delivered(&mut nic.queue, count, &mut nic.counters);
            nic.delivery.delivered += u64::from(count);
            self.make_ready(place);
            self.check_end_of_replay(now, place);
        }
    }

    /// The other outstanding ones did not.
    pub(super) fn refused(&mut self, now: Instant, nic: NicId, epoch: Epoch, why: Refusal) {
        let Some(place) = self.table.nic(nic) else { return };
        let Some(nic) = self.nics.get_mut(place as usize).and_then(Option::as_mut) else { return };
        if !nic.delivery.is_about(epoch) || nic.queue.outstanding() == 0 {
            return;
        }
        self.hold.refused(&mut nic.queue);
        if why == Refusal::TooLong {
            self.hold.drop_oldest(&mut nic.queue, &mut nic.counters, DropReason::TooLong);
        }
        if nic.mode == Mode::Pass {
            self.hold.drop_waiting(&mut nic.queue, &mut nic.counters, DropReason::GuestGone);
        }
        nic.delivery.refused(now, why);
        let retry_at = nic.delivery.retry_at(nic.mode);
        let old_at = self.hold.next_aged(nic.identity.traffic.hold.age, &nic.queue);
        for at in [retry_at, old_at].into_iter().flatten() {
            self.timers.sooner(place, at);
        }
        self.make_ready(place);
        self.check_end_of_replay(now, place);
    }

    /// Enters a NIC in the list of those with something to deliver, if it has.
    pub(super) fn make_ready(&mut self, place: Place) {
        if let Some(nic) = self.nics.get_mut(place as usize).and_then(Option::as_mut)
            && !nic.ready
            && nic.delivery.may_deliver(nic.mode, nic.epoch, &nic.queue)
        {
            nic.ready = true;
            self.ready.push_back(place);
        }
    }

    /// Tells that a replay is drained, or ends it: now or when it has been quiet for long enough.
    pub(super) fn check_end_of_replay(&mut self, now: Instant, place: Place) {
        let Some(nic) = self.nics.get_mut(place as usize).and_then(Option::as_mut) else { return };
        let (id, epoch) = (nic.identity.nic, nic.epoch);
        if nic.mode == (Mode::Replay { released: false })
            && nic.queue.frames() == 0
            && nic.told.first(Once::Drained)
        {
            nic.delivery.late = 0;
            self.notices.push(Notice::Drained { nic: id, epoch, delivered: nic.delivery.delivered });
        }
        match nic.delivery.settles_at(nic.mode, &nic.queue) {
            Some(at) if at <= now => {
                nic.mode = Mode::Pass;
                self.table.stand_down(&nic.identity, place);
                let lan = Lan::of(&nic.identity);
                self.notices.push(Notice::Settled { nic: id, epoch, overtaken: nic.delivery.overtaken });
                self.listen_to_routers(now, lan);
            }
            Some(at) => self.timers.sooner(place, at),
            None => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::Duration;

    const REPLAY: Mode = Mode::Replay { released: false };

    #[test]
    fn a_full_port_is_tried_again_after_the_retry_time_and_a_missing_one_when_it_is_ready() {
        let mut delivery = Delivery::default();
        delivery.refused(Instant::ZERO, Refusal::Full);
        assert_eq!(delivery.retry_at(REPLAY), Some(Instant::ZERO + RETRY));
        assert!(!delivery.resume(Instant::ZERO));
        assert!(delivery.resume(Instant::ZERO + RETRY));
        delivery.refused(Instant::ZERO, Refusal::Gone);
        assert_eq!(delivery.retry_at(REPLAY), None);
        assert!(!delivery.resume(Instant::ZERO + Duration::from_secs(60)));
        delivery.port_ready();
        assert_eq!(delivery.pause, Pause::None);
    }

    #[test]
    fn only_a_released_replay_with_nothing_held_settles() {
        let mut delivery = Delivery::default();
        let queue = Queue::default();
        delivery.begin(Instant::from_nanos(7), false);
        assert_eq!(delivery.settles_at(REPLAY, &queue), None);
        let released = Mode::Replay { released: true };
        assert_eq!(delivery.settles_at(released, &queue), Some(Instant::from_nanos(7) + LINGER));
    }
}

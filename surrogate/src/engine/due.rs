//! What time brings: frames grow too old, a refused delivery is tried again, a quiet NIC passes, an
//! interrupted review goes on, a frame in the guest's own name is believed after all. One pass over the
//! NICs whenever the earliest of these is due.

use super::Engine;
use super::contract::Mode;
use crate::guest::table::Place;
use crate::time::Instant;

impl Engine {
    pub(super) fn do_what_is_due(&mut self, now: Instant) {
        self.due = None;
        for place in 0..self.nics.len() as Place {
            self.do_what_is_due_for(now, place);
        }
    }

    fn do_what_is_due_for(&mut self, now: Instant, place: Place) {
        let Some(nic) = self.nics.get_mut(place as usize).and_then(Option::as_mut) else { return };
        let age = nic.identity.traffic.hold.age;
        self.hold.sweep(now, age, &mut nic.queue, &mut nic.counters);
        nic.delivery.resume(now);
        if nic.mode == Mode::Answer && nic.spoof.is_due(now) {
            self.fall_silent(place);
        } else if nic.mode == Mode::Answer && nic.queue.in_review() {
            self.review(now, place);
        }
        self.make_ready(place);
        self.check_end_of_replay(now, place);
        let Some(nic) = self.nics.get(place as usize).and_then(Option::as_ref) else { return };
        let old_at = self.hold.next_aged(age, &nic.queue);
        let retry_at = nic.delivery.retry_at(nic.mode);
        let spoke_at = nic.spoof.due_at().filter(|_| nic.mode == Mode::Answer);
        for at in [old_at, retry_at, spoke_at].into_iter().flatten() {
            self.due_at(at);
        }
    }
}

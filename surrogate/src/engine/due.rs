//! What time brings: frames grow too old, a refused delivery is tried again, a quiet NIC passes, an
//! interrupted review goes on, a frame in the guest's own name is believed after all, a sleeper has something to
//! say of its own accord.
//!
//! Each NIC has one timer, for whatever of its own is next; [`Timers`] keeps them in order, so that what is
//! due costs the same among a hundred thousand sleepers as among ten.

use super::Engine;
use super::contract::Mode;
use crate::guest::table::Place;
use crate::time::Instant;

/// One timer per place: a binary heap that knows where each place stands in it. Grows only with the number of
/// places.
#[derive(Debug, Default)]
pub(super) struct Timers {
    heap: Vec<(Instant, Place)>,
    /// Where a place stands in the heap, by place.
    stands: Vec<Option<u32>>,
}

impl Timers {
    /// Makes room for the places below `count`.
    pub(super) fn reserve(&mut self, count: usize) {
        if self.stands.len() < count {
            self.stands.resize(count, None);
        }
        self.heap.reserve(count.saturating_sub(self.heap.len()));
    }

    /// The earliest.
    #[must_use]
    pub(super) fn next(&self) -> Option<Instant> {
        self.heap.first().map(|(at, _)| *at)
    }

    /// Sets a place's timer, unless it goes off earlier already. A place without room has none.
    pub(super) fn sooner(&mut self, place: Place, at: Instant) {
        let Some(stands) = self.stands.get(place as usize) else { return };
        let from = match stands {
            Some(n) => {
                let n = *n as usize;
                match self.heap.get_mut(n) {
                    Some(timer) if at < timer.0 => timer.0 = at,
                    _ => return,
                }
                n
            }
            None => {
                self.heap.push((at, place));
                self.heap.len() - 1
            }
        };
        self.rise(from);
    }

    /// Takes the earliest that is due.
    pub(super) fn pop(&mut self, now: Instant) -> Option<Place> {
        let (_, place) = self.heap.first().copied().filter(|(at, _)| *at <= now)?;
        self.cancel(place);
        Some(place)
    }

    /// Forgets a place's timer.
    pub(super) fn cancel(&mut self, place: Place) {
        let Some(at) = self.stands.get_mut(place as usize).and_then(Option::take) else { return };
        let at = at as usize;
        if at >= self.heap.len() {
            return;
        }
        self.heap.swap_remove(at);
        if at < self.heap.len() {
            self.rise(at);
            self.sink(at);
        }
    }

    fn rise(&mut self, mut at: usize) {
        while at > 0 && self.is_before(at, (at - 1) / 2) {
            self.heap.swap(at, (at - 1) / 2);
            self.note(at);
            at = (at - 1) / 2;
        }
        self.note(at);
    }

    fn sink(&mut self, mut at: usize) {
        loop {
            let (left, right) = (2 * at + 1, 2 * at + 2);
            let least = if self.is_before(right, left) { right } else { left };
            if !self.is_before(least, at) {
                break;
            }
            self.heap.swap(least, at);
            self.note(at);
            at = least;
        }
        self.note(at);
    }

    /// Whether the timer at `a` goes off before that at `b`; one that is not there never does.
    fn is_before(&self, a: usize, b: usize) -> bool {
        match (self.heap.get(a), self.heap.get(b)) {
            (Some(a), Some(b)) => a < b,
            (a, _) => a.is_some(),
        }
    }

    fn note(&mut self, at: usize) {
        if let Some((_, place)) = self.heap.get(at)
            && let Some(stands) = self.stands.get_mut(*place as usize)
        {
            *stands = u32::try_from(at).ok();
        }
    }
}

impl Engine {
    pub(super) fn do_what_is_due(&mut self, now: Instant) {
        // Each at most once: one that is due again at once has its turn when the driver has had its own.
        for _ in 0..self.nics.len() {
            let Some(place) = self.timers.pop(now) else { return };
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
        self.give_up_overdue(now, place);
        let Some(nic) = self.nics.get(place as usize).and_then(Option::as_ref) else { return };
        if nic.check_at.is_some_and(|at| at <= now) {
            self.check_addresses(now, place);
        }
        self.speak(now, place);
        self.go_on_watching(now, place);
        self.ask(now, place);
        self.make_ready(place);
        self.check_end_of_replay(now, place);
        let Some(nic) = self.nics.get(place as usize).and_then(Option::as_ref) else { return };
        let old_at = self.hold.next_aged(age, &nic.queue);
        let retry_at = nic.delivery.retry_at(nic.mode);
        let spoke_at = nic.spoof.due_at().filter(|_| nic.mode == Mode::Answer);
        let parts_at = self.reassembly.due(&nic.parts);
        for at in [old_at, retry_at, spoke_at, parts_at, nic.check_at].into_iter().flatten() {
            self.timers.sooner(place, at);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Rng;

    #[test]
    fn timers_go_off_in_order_whatever_was_set_moved_and_cancelled() {
        const PLACES: usize = 40;
        let mut rng = Rng::seeded(7);
        let mut timers = Timers::default();
        timers.reserve(PLACES);
        let mut plain = [None; PLACES];
        for _ in 0..20_000 {
            let place = rng.below(PLACES as u64) as Place;
            let at = Instant::from_nanos(rng.below(1_000));
            match rng.below(4) {
                0 => {
                    timers.cancel(place);
                    plain[place as usize] = None;
                }
                1 => {
                    let due = plain.iter().flatten().filter(|due| **due <= at).min().copied();
                    let popped = timers.pop(at);
                    assert_eq!(popped.map(|place| plain[place as usize]), due.map(Some));
                    if let Some(place) = popped {
                        plain[place as usize] = None;
                    }
                }
                _ => {
                    timers.sooner(place, at);
                    let set = &mut plain[place as usize];
                    *set = Some(set.map_or(at, |was: Instant| was.min(at)));
                }
            }
            assert_eq!(timers.next(), plain.iter().flatten().min().copied());
        }
    }

    #[test]
    fn a_place_without_room_has_no_timer() {
        let mut timers = Timers::default();
        timers.sooner(3, Instant::ZERO);
        timers.cancel(3);
        assert_eq!((timers.next(), timers.pop(Instant::ZERO)), (None, None));
    }
}

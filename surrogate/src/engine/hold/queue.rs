//! One NIC's frames: in order of arrival, by age, by class.

use super::{Class, Slot};
use crate::engine::lists::{Linked as _, List, Order};

/// One NIC's frames: where the lists begin and end.
#[derive(Clone, Debug, Default)]
pub(in crate::engine) struct Queue {
    pub(super) by_arrival: List,
    pub(super) by_age: List,
    pub(super) by_class: [List; Class::ALL.len()],
    pub(super) bytes: u64,
    pub(super) outstanding: u32,
    pub(super) last_outstanding: Option<u32>,
    /// Where a review goes on.
    pub(super) cursor: Option<u32>,
}

impl Queue {
    /// Frames held.
    #[must_use]
    pub(in crate::engine) const fn frames(&self) -> u32 {
        self.by_arrival.count()
    }

    /// Frames given to the driver of which nothing is known yet: the oldest ones, in order.
    #[must_use]
    pub(in crate::engine) const fn outstanding(&self) -> u32 {
        self.outstanding
    }

    /// Whether frames are left to go through, see [`Hold::review`](super::Hold::review).
    #[must_use]
    pub(in crate::engine) const fn in_review(&self) -> bool {
        self.cursor.is_some()
    }

    /// Whether there are frames that the driver has not been given.
    #[must_use]
    pub(in crate::engine) const fn has_more(&self) -> bool {
        self.frames() > self.outstanding
    }

    pub(super) fn of(&self, class: Class) -> List {
        self.by_class.get(class as usize).copied().unwrap_or_default()
    }

    pub(super) fn push(&mut self, slots: &mut [Slot], at: u32, class: Class) {
        self.by_arrival.push(slots, Order::Arrival, at);
        self.by_age.push(slots, Order::Age, at);
        if let Some(list) = self.by_class.get_mut(class as usize) {
            list.push(slots, Order::Class, at);
        }
    }

    /// As if the frame at `at`, which is in it, had come last.
    pub(super) fn move_to_end(&mut self, slots: &mut [Slot], at: u32) {
        let next = slots.get(at as usize).and_then(|slot| slot.links().next(Order::Arrival));
        self.by_arrival.unlink(slots, Order::Arrival, at);
        self.by_arrival.push(slots, Order::Arrival, at);
        if self.cursor == Some(at) {
            self.cursor = next.or(Some(at));
        }
    }

    /// As if the frame at `at`, which is in it, had come just before the one at `before`.
    pub(super) fn move_before(&mut self, slots: &mut [Slot], at: u32, before: u32) {
        self.by_arrival.unlink(slots, Order::Arrival, at);
        self.by_arrival.insert_before(slots, Order::Arrival, at, before);
    }

    pub(super) fn unlink(&mut self, slots: &mut [Slot], at: u32, class: Class) {
        self.by_arrival.unlink(slots, Order::Arrival, at);
        self.by_age.unlink(slots, Order::Age, at);
        if let Some(list) = self.by_class.get_mut(class as usize) {
            list.unlink(slots, Order::Class, at);
        }
    }
}

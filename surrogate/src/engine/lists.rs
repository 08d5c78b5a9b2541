//! Doubly linked lists through the slots of [`hold`](super::hold): each held frame is a member of three,
//! by arrival, by age and by class, so that any of them gives it up in constant time.
//!
//! Positions are kept plus one; zero is none.

/// By what a list is ordered or selected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    /// All frames, in arrival order.
    Arrival,
    /// All frames, in the order in which they become too old.
    Age,
    /// The frames of one class, in arrival order.
    Class,
}

/// Where a list begins and ends.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct List {
    head: u32,
    tail: u32,
    count: u32,
}

/// Neighbours of a slot in one list.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Link {
    prev: u32,
    next: u32,
}

/// Neighbours of a slot in its three lists.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Links {
    arrival: Link,
    age: Link,
    class: Link,
}

/// What a list goes through.
pub(super) trait Linked {
    /// Its neighbours.
    fn links(&self) -> &Links;
    /// The same, to be changed.
    fn links_mut(&mut self) -> &mut Links;
}

impl List {
    pub(super) const fn count(&self) -> u32 {
        self.count
    }

    pub(super) fn first(&self) -> Option<u32> {
        self.head.checked_sub(1)
    }

    pub(super) fn last(&self) -> Option<u32> {
        self.tail.checked_sub(1)
    }

    /// Appends the slot at `at`.
    pub(super) fn push(&mut self, slots: &mut [impl Linked], order: Order, at: u32) {
        match self.last().and_then(|last| slots.get_mut(last as usize)) {
            Some(last) => last.links_mut().of_mut(order).next = at + 1,
            None => self.head = at + 1,
        }
        if let Some(slot) = slots.get_mut(at as usize) {
            *slot.links_mut().of_mut(order) = Link { prev: self.tail, next: 0 };
        }
        self.tail = at + 1;
        self.count += 1;
    }

    /// Puts the slot at `at` before the one at `before`, which is in it.
    pub(super) fn insert_before(&mut self, slots: &mut [impl Linked], order: Order, at: u32, before: u32) {
        let Some(Link { prev, .. }) = slots.get(before as usize).map(|slot| slot.links().of(order)) else {
            return self.push(slots, order, at);
        };
        match prev.checked_sub(1).and_then(|prev| slots.get_mut(prev as usize)) {
            Some(slot) => slot.links_mut().of_mut(order).next = at + 1,
            None => self.head = at + 1,
        }
        if let Some(slot) = slots.get_mut(at as usize) {
            *slot.links_mut().of_mut(order) = Link { prev, next: before + 1 };
        }
        if let Some(slot) = slots.get_mut(before as usize) {
            slot.links_mut().of_mut(order).prev = at + 1;
        }
        self.count += 1;
    }

    /// Takes the slot at `at` out, which is in it.
    pub(super) fn unlink(&mut self, slots: &mut [impl Linked], order: Order, at: u32) {
        let Some(Link { prev, next }) = slots.get(at as usize).map(|slot| slot.links().of(order)) else {
            return;
        };
        match prev.checked_sub(1).and_then(|prev| slots.get_mut(prev as usize)) {
            Some(slot) => slot.links_mut().of_mut(order).next = next,
            None => self.head = next,
        }
        match next.checked_sub(1).and_then(|next| slots.get_mut(next as usize)) {
            Some(slot) => slot.links_mut().of_mut(order).prev = prev,
            None => self.tail = prev,
        }
        self.count -= 1;
    }
}

impl Links {
    /// The slot after this one.
    pub(super) fn next(&self, order: Order) -> Option<u32> {
        self.of(order).next.checked_sub(1)
    }

    /// The slot before this one.
    pub(super) fn prev(&self, order: Order) -> Option<u32> {
        self.of(order).prev.checked_sub(1)
    }

    const fn of(&self, order: Order) -> Link {
        match order {
            Order::Arrival => self.arrival,
            Order::Age => self.age,
            Order::Class => self.class,
        }
    }

    const fn of_mut(&mut self, order: Order) -> &mut Link {
        match order {
            Order::Arrival => &mut self.arrival,
            Order::Age => &mut self.age,
            Order::Class => &mut self.class,
        }
    }
}

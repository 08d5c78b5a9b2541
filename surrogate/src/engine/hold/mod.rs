//! What is held for each sleeper, in arrival order, until the guest took it.
//!
//! A frame is kept unchanged, its VLAN tag in line. It leaves when the guest's port took it, when the
//! sleeping guest turned out to owe an answer that we can give, or when a limit says so. Limits, in
//! this order of trial:
//!
//! 1. A repeated segment (same addresses, ports, sequence, acknowledgement, length, flags and window) is
//!    held once: the first copy of a segment, the newest copy of a SYN, in the place of the first. Of the
//!    acknowledgements of a connection in custody the newest is held, in the place where it came.
//! 2. Flooded frames: a ring of `Limits.flooded_ring`, the newest kept.
//! 3. One flow: at most half of the guest's frames. Flows share a counter by chance (their hash), never by
//!    a stranger's choice; flows that do share the limit.
//! 4. The guest's frames, then its bytes ([`HoldLimits`]): something cheaper than the arriving frame goes, in
//!    the order of [`Class`]; if nothing is cheaper, the arriving frame is not kept. Within a class the
//!    newest goes first, so that the guest is left with the unbroken beginning of each flow; but of flooded
//!    frames and of DHCP replies the oldest.
//! 5. The memory of all guests together: the same, within the guest itself. No guest's frames are ever
//!    dropped for another's.
//! 6. Age: counted from the newest copy.
//!
//! `admit` has the limits but for age, `queue` the order of the frames, `order` the one in which they go to the guest.
//!
//! Frames given to the driver ([`Queue::outstanding`]) are never dropped. Work per frame is constant,
//! but for evictions, each of which an earlier arrival has paid for. Nothing here allocates after `new`.
//!
//! [`HoldLimits`]: crate::policy::traffic::HoldLimits

mod admit;
mod order;
mod queue;
#[cfg(test)]
mod tests;

use surrogate_wire::{Offload, VlanTag};

pub(super) use self::admit::{Admission, Class};
pub(super) use self::queue::Queue;

use super::arena::Arena;
use super::counters::Counters;
use super::lists::{Linked, Links, Order};
use super::twin::{Twin, TwinIndex};
use super::verdict::DropReason;
use crate::time::{Duration, Instant};

/// The longest frame that is kept: 64 KiB of IP with Ethernet header and two tags.
pub(super) const MAX_FRAME: usize = 65_535 + 14 + 8;

/// A frame to be held.
#[derive(Clone, Copy, Debug)]
pub(super) struct Arrival<'a> {
    /// As received.
    pub(super) bytes: &'a [u8],
    /// A tag to be put in line.
    pub(super) vlan: Option<VlanTag>,
    /// For the next classification.
    pub(super) offload: Offload,
    /// What it is worth.
    pub(super) class: Class,
    /// Hash of its flow.
    pub(super) flow: u64,
    /// What a repetition of it would look like, if it is a TCP segment.
    pub(super) twin: Option<Twin>,
    /// Broadcast or multicast to the Ethernet.
    pub(super) flooded: bool,
}

impl Arrival<'_> {
    fn len(&self) -> usize {
        self.bytes.len() + if self.vlan.is_some() { 4 } else { 0 }
    }
}

/// Names a held frame as long as it is held.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Key(u32);

/// What is known of a held frame beside its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct HeldFrame {
    /// Names it.
    pub(super) key: Key,
    /// Its length with the tag.
    pub(super) len: usize,
    /// State of its transport checksum.
    pub(super) offload: Offload,
    /// Broadcast or multicast to the Ethernet.
    pub(super) flooded: bool,
}

/// The frames of all guests of an engine. Each guest has a [`Queue`] that only this knows to read.
pub(super) struct Hold {
    arena: Arena,
    /// Beside the first chunk of each frame, by its number. Grows with use, within its capacity.
    slots: Vec<Slot>,
    twins: TwinIndex,
    /// Frames held per flow, by the flow's hash.
    flows: Vec<u32>,
    flooded_ring: u32,
}

impl Hold {
    /// Room for `held_bytes` bytes of frames; at most `flooded_ring` flooded ones per queue.
    #[must_use]
    pub(super) fn new(held_bytes: usize, flooded_ring: usize, seed: u64) -> Self {
        let arena = Arena::new(held_bytes);
        let chunks = arena.capacity();
        Self {
            arena,
            slots: Vec::with_capacity(chunks),
            twins: TwinIndex::new(chunks, seed),
            flows: vec![0; chunks.next_power_of_two()],
            flooded_ring: u32::try_from(flooded_ring).unwrap_or(u32::MAX),
        }
    }

    /// Copies a frame's bytes into `into`, of which as many are used as the frame is long.
    pub(super) fn read(&self, frame: HeldFrame, into: &mut [u8]) {
        if let Some(into) = into.get_mut(..frame.len) {
            self.arena.read(frame.key.0, 0, into);
        }
    }

    /// Copies what a frame has from its byte `skip` on, as much as `into` is long.
    pub(super) fn read_part(&self, key: Key, skip: usize, into: &mut [u8]) {
        self.arena.read(key.0, skip, into);
    }

    /// The frame that was admitted last.
    pub(super) fn newest(&self, queue: &Queue) -> Option<HeldFrame> {
        let at = queue.by_arrival.last()?;
        Some(self.slots.get(at as usize)?.frame(at))
    }

    /// Gives a frame a mark, by which it is known again. Zero is none.
    pub(super) fn mark(&mut self, key: Key, mark: u32) {
        if let Some(slot) = self.slots.get_mut(key.0 as usize) {
            slot.mark = mark;
        }
    }

    /// The frame of `key`, if it still is the one that was given `mark`.
    pub(super) fn marked(&self, key: Key, mark: u32) -> Option<HeldFrame> {
        self.slots.get(key.0 as usize).filter(|slot| slot.mark == mark).map(|slot| slot.frame(key.0))
    }

    /// The oldest frame that the driver has not been given; it is outstanding from now on.
    pub(super) fn next_to_deliver(&mut self, queue: &mut Queue) -> Option<HeldFrame> {
        let at = self.first_waiting(queue)?;
        let slot = self.slots.get_mut(at as usize)?;
        slot.outstanding = true;
        let frame = slot.frame(at);
        queue.outstanding += 1;
        queue.last_outstanding = Some(at);
        Some(frame)
    }

    /// The first `count` outstanding frames reached the guest. Says how many there were.
    pub(super) fn delivered(&mut self, queue: &mut Queue, count: u32, counters: &mut Counters) -> u32 {
        let count = count.min(queue.outstanding);
        for _ in 0..count {
            let Some(at) = queue.by_arrival.first() else { break };
            self.remove_at(at, queue, counters);
            counters.replayed += 1;
        }
        count
    }

    /// No outstanding frame left reached the guest: they wait again, in order.
    pub(super) fn refused(&mut self, queue: &mut Queue) {
        let mut at = queue.by_arrival.first();
        for _ in 0..queue.outstanding {
            let Some(slot) = at.and_then(|at| self.slots.get_mut(at as usize)) else { break };
            slot.outstanding = false;
            at = slot.links.next(Order::Arrival);
        }
        queue.outstanding = 0;
        queue.last_outstanding = None;
    }

    /// Drops the oldest frame. Call it only while none is outstanding.
    pub(super) fn drop_oldest(&mut self, queue: &mut Queue, counters: &mut Counters, reason: DropReason) {
        if let Some(at) = queue.by_arrival.first() {
            self.evict(at, queue, counters, reason);
        }
    }

    /// Drops all that is not outstanding.
    pub(super) fn drop_waiting(&mut self, queue: &mut Queue, counters: &mut Counters, reason: DropReason) {
        while let Some(at) = self.first_waiting(queue) {
            self.evict(at, queue, counters, reason);
        }
    }

    /// Drops everything, outstanding or not: the NIC is forgotten.
    pub(super) fn clear(&mut self, queue: &mut Queue, counters: &mut Counters, reason: DropReason) {
        self.refused(queue);
        self.drop_waiting(queue, counters, reason);
    }

    /// Drops what has been held for `age`.
    pub(super) fn sweep(&mut self, now: Instant, age: Duration, queue: &mut Queue, counters: &mut Counters) {
        while let Some(at) = self.first_waiting_by_age(queue) {
            match self.slots.get(at as usize) {
                Some(slot) if now.since(slot.at) >= age => {
                    self.evict(at, queue, counters, DropReason::Aged);
                }
                _ => return,
            }
        }
    }

    /// When the next frame becomes too old, if any is waiting.
    #[must_use]
    pub(super) fn next_aged(&self, age: Duration, queue: &Queue) -> Option<Instant> {
        let at = self.first_waiting_by_age(queue)?;
        Some(self.slots.get(at as usize)?.at + age)
    }

    /// Starts to go through the waiting frames from the oldest on; see [`Hold::review_next`].
    pub(super) fn review(&self, queue: &mut Queue) {
        queue.cursor = self.first_waiting(queue);
    }

    /// The next frame to go through, until all were. It may be removed or kept.
    pub(super) fn review_next(&self, queue: &mut Queue) -> Option<HeldFrame> {
        let at = queue.cursor?;
        let slot = self.slots.get(at as usize)?;
        queue.cursor = slot.links.next(Order::Arrival);
        Some(slot.frame(at))
    }

    /// Goes back to `frame`, which was given last and still is held: it is given again.
    pub(super) const fn review_again(&self, queue: &mut Queue, frame: HeldFrame) {
        queue.cursor = Some(frame.key.0);
    }

    /// Breaks off.
    pub(super) const fn end_review(&self, queue: &mut Queue) {
        queue.cursor = None;
    }

    /// Takes a waiting frame out; the caller counts why.
    pub(super) fn remove(&mut self, frame: HeldFrame, queue: &mut Queue, counters: &mut Counters) {
        self.remove_at(frame.key.0, queue, counters);
    }

    fn first_waiting(&self, queue: &Queue) -> Option<u32> {
        match queue.last_outstanding {
            Some(last) => self.slots.get(last as usize)?.links.next(Order::Arrival),
            None => queue.by_arrival.first(),
        }
    }

    /// By age the outstanding frames are first as well, but for renewed SYNs between them.
    fn first_waiting_by_age(&self, queue: &Queue) -> Option<u32> {
        let mut at = queue.by_age.first();
        while let Some(slot) = at.and_then(|at| self.slots.get(at as usize)) {
            if !slot.outstanding {
                break;
            }
            at = slot.links.next(Order::Age);
        }
        at
    }

    fn evict(&mut self, at: u32, queue: &mut Queue, counters: &mut Counters, reason: DropReason) {
        self.remove_at(at, queue, counters);
        counters.count_held_dropped(reason);
    }

    fn remove_at(&mut self, at: u32, queue: &mut Queue, counters: &mut Counters) {
        let Some(slot) = self.slots.get_mut(at as usize) else { return };
        slot.mark = 0;
        let slot = *slot;
        if queue.cursor == Some(at) {
            queue.cursor = slot.links.next(Order::Arrival);
        }
        if slot.outstanding {
            queue.outstanding -= 1;
            if queue.last_outstanding == Some(at) {
                queue.last_outstanding = slot.links.prev(Order::Arrival);
            }
        }
        if let Some(twin) = &slot.twin {
            self.twins.remove(slot.owner, twin, at);
        }
        queue.unlink(&mut self.slots, at, slot.class);
        if let Some(frames) = self.flow_counter(slot.owner, slot.flow) {
            *frames = frames.saturating_sub(1);
        }
        queue.bytes -= u64::from(slot.len);
        self.arena.release(at);
        count_holding(queue, counters);
    }
}

fn count_holding(queue: &Queue, counters: &mut Counters) {
    counters.holding = u64::from(queue.frames());
    counters.holding_bytes = queue.bytes;
}

#[derive(Clone, Copy, Debug)]
struct Slot {
    links: Links,
    twin: Option<Twin>,
    flow: u64,
    at: Instant,
    owner: u32,
    len: u32,
    class: Class,
    offload: Offload,
    flooded: bool,
    outstanding: bool,
    /// See [`Hold::mark`].
    mark: u32,
}

impl Linked for Slot {
    fn links(&self) -> &Links {
        &self.links
    }

    fn links_mut(&mut self) -> &mut Links {
        &mut self.links
    }
}

impl Slot {
    const fn frame(&self, at: u32) -> HeldFrame {
        HeldFrame { key: Key(at), len: self.len as usize, offload: self.offload, flooded: self.flooded }
    }
}

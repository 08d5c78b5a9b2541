//! What is held for each sleeper, in arrival order, until the guest took it.
//!
//! A frame is kept unchanged, its VLAN tag in line. It leaves when the guest's port took it, when the
//! sleeping guest turned out to owe an answer that we can give, or when a limit says so. Limits, in
//! this order of trial:
//!
//! 1. A repeated segment (same addresses, ports, sequence, acknowledgement, length and flags) is held
//!    once: the first copy of a segment, the newest copy of a SYN, in the place of the first.
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
//! Frames given to the driver ([`Queue::outstanding`]) are never dropped. Work per frame is constant,
//! but for evictions, each of which an earlier arrival has paid for. Nothing here allocates after `new`.

#[cfg(test)]
mod tests;

use surrogate_wire::{Offload, VlanTag};

use super::arena::Arena;
use super::counters::Counters;
use super::lists::{Linked, Links, List, Order};
use super::twin::{Twin, TwinIndex};
use super::verdict::DropReason;
use crate::policy::traffic::HoldLimits;
use crate::time::{Duration, Instant};

/// The longest frame that is kept: 64 KiB of IP with Ethernet header and two tags.
pub(super) const MAX_FRAME: usize = 65_535 + 14 + 8;

/// What a frame is worth when there is no room: the first goes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Class {
    /// Broadcast or multicast: best effort by nature; of these the oldest goes first.
    Flooded,
    /// ARP and neighbour discovery: asked again within seconds, and one held is enough. The last one
    /// of a guest stays.
    Neighbour,
    /// A TCP segment with payload: its sender keeps it until it is acknowledged and sends it again.
    Data,
    /// A bare acknowledgement: the next one says the same and more.
    Ack,
    /// UDP, ICMP, fragments, other protocols: whether it is sent again is up to the application.
    Datagram,
    /// SYN, FIN and RST: few, small; a lost SYN costs its sender seconds, a RST is never repeated.
    Control,
    /// A DHCP reply (UDP 67 to 68, 547 to 546): decides whether the guest keeps its address. Never
    /// dropped for anything else; of more than [`DHCP_KEPT`] the oldest goes.
    Dhcp,
}

impl Class {
    const ALL: [Self; 7] =
        [Self::Flooded, Self::Neighbour, Self::Data, Self::Ack, Self::Datagram, Self::Control, Self::Dhcp];
}

/// DHCP replies kept per guest, the newest ones: more than any exchange has.
pub(super) const DHCP_KEPT: u32 = 16;

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

/// What became of an arriving frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Admission {
    /// Held.
    Held,
    /// Not held, for this reason.
    Refused(DropReason),
}

/// Names a held frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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

/// One NIC's frames: where the lists begin and end.
#[derive(Clone, Debug, Default)]
pub(super) struct Queue {
    by_arrival: List,
    by_age: List,
    by_class: [List; Class::ALL.len()],
    bytes: u64,
    outstanding: u32,
    last_outstanding: Option<u32>,
    /// Where a review goes on.
    cursor: Option<u32>,
}

impl Queue {
    /// Frames held.
    #[must_use]
    pub(super) const fn frames(&self) -> u32 {
        self.by_arrival.count()
    }

    /// Frames given to the driver of which nothing is known yet: the oldest ones, in order.
    #[must_use]
    pub(super) const fn outstanding(&self) -> u32 {
        self.outstanding
    }

    /// Whether frames are left to go through, see [`Hold::review`].
    #[must_use]
    pub(super) const fn in_review(&self) -> bool {
        self.cursor.is_some()
    }

    /// Whether there are frames that the driver has not been given.
    #[must_use]
    pub(super) const fn has_more(&self) -> bool {
        self.frames() > self.outstanding
    }

    fn of(&self, class: Class) -> List {
        self.by_class.get(class as usize).copied().unwrap_or_default()
    }

    fn push(&mut self, slots: &mut [Slot], at: u32, class: Class) {
        self.by_arrival.push(slots, Order::Arrival, at);
        self.by_age.push(slots, Order::Age, at);
        if let Some(list) = self.by_class.get_mut(class as usize) {
            list.push(slots, Order::Class, at);
        }
    }

    fn unlink(&mut self, slots: &mut [Slot], at: u32, class: Class) {
        self.by_arrival.unlink(slots, Order::Arrival, at);
        self.by_age.unlink(slots, Order::Age, at);
        if let Some(list) = self.by_class.get_mut(class as usize) {
            list.unlink(slots, Order::Class, at);
        }
    }
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

    /// Keeps `arrival` in `queue` of NIC number `owner`, or says why not. Counts what had to go, and what is held,
    /// in `counters`; the arriving frame's own verdict is the caller's to count.
    pub(super) fn admit(
        &mut self,
        now: Instant,
        owner: u32,
        queue: &mut Queue,
        limits: &HoldLimits,
        arrival: &Arrival<'_>,
        counters: &mut Counters,
    ) -> Admission {
        let len = arrival.len();
        if len > MAX_FRAME {
            return Admission::Refused(DropReason::TooLong);
        }
        if let Some(twin) = &arrival.twin
            && let Some(held) = self.find_twin(owner, twin)
        {
            if twin.newest_counts() {
                self.renew(now, held, queue, limits, arrival, counters);
            }
            return Admission::Refused(DropReason::Duplicate);
        }
        match arrival.class {
            Class::Flooded if self.flooded_ring == 0 => {
                return Admission::Refused(DropReason::FloodedRing);
            }
            Class::Flooded if queue.of(Class::Flooded).count() >= self.flooded_ring => {
                match self.oldest(queue, Class::Flooded) {
                    Some(oldest) => self.evict(oldest, queue, counters, DropReason::FloodedRing),
                    None => return Admission::Refused(DropReason::FloodedRing),
                }
            }
            Class::Dhcp if queue.of(Class::Dhcp).count() >= DHCP_KEPT => {
                match self.oldest(queue, Class::Dhcp) {
                    Some(oldest) => self.evict(oldest, queue, counters, DropReason::BufferFull),
                    None => return Admission::Refused(DropReason::BufferFull),
                }
            }
            Class::Flooded | Class::Dhcp => {}
            _ if self.flow_frames(owner, arrival.flow) >= limits.frames.get().div_ceil(2) => {
                return Admission::Refused(DropReason::BufferFull);
            }
            _ => {}
        }
        while queue.frames() as usize >= limits.frames.get()
            || queue.bytes + len as u64 > limits.bytes.get() as u64
        {
            let Some(victim) = self.cheaper(queue, arrival.class) else {
                return Admission::Refused(DropReason::BufferFull);
            };
            self.evict(victim, queue, counters, DropReason::BufferFull);
        }
        while !self.arena.fits(len) {
            let Some(victim) = self.cheaper(queue, arrival.class) else {
                return Admission::Refused(DropReason::HostFull);
            };
            self.evict(victim, queue, counters, DropReason::HostFull);
        }
        self.append(now, owner, queue, arrival, counters)
    }

    /// Copies a frame's bytes into `into`, of which as many are used as the frame is long.
    pub(super) fn read(&self, frame: HeldFrame, into: &mut [u8]) {
        if let Some(into) = into.get_mut(..frame.len) {
            self.arena.read(frame.key.0, into);
        }
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

    fn append(
        &mut self,
        now: Instant,
        owner: u32,
        queue: &mut Queue,
        arrival: &Arrival<'_>,
        counters: &mut Counters,
    ) -> Admission {
        let tag = arrival.vlan.map_or([0; 4], in_line);
        let Some(at) = self.arena.store(with_tag(arrival, &tag)) else {
            return Admission::Refused(DropReason::HostFull);
        };
        let slot = Slot {
            links: Links::default(),
            twin: arrival.twin,
            flow: arrival.flow,
            at: now,
            owner,
            len: u32::try_from(arrival.len()).unwrap_or(u32::MAX),
            class: arrival.class,
            offload: arrival.offload,
            flooded: arrival.flooded,
            outstanding: false,
        };
        if self.slots.len() <= at as usize {
            self.slots.resize(at as usize + 1, slot);
        }
        if let Some(place) = self.slots.get_mut(at as usize) {
            *place = slot;
        }
        queue.push(&mut self.slots, at, arrival.class);
        if let Some(twin) = &arrival.twin {
            self.twins.insert(owner, twin, at);
        }
        if let Some(frames) = self.flow_counter(owner, arrival.flow) {
            *frames += 1;
        }
        queue.bytes += u64::from(slot.len);
        count_holding(queue, counters);
        Admission::Held
    }

    /// The newest copy of a SYN takes the place of the held one, which the driver has not got yet.
    fn renew(
        &mut self,
        now: Instant,
        at: u32,
        queue: &mut Queue,
        limits: &HoldLimits,
        arrival: &Arrival<'_>,
        counters: &mut Counters,
    ) {
        let Some(slot) = self.slots.get_mut(at as usize) else { return };
        let len = arrival.len();
        let bytes = queue.bytes - u64::from(slot.len) + len as u64;
        if slot.outstanding || bytes > limits.bytes.get() as u64 {
            return;
        }
        let tag = arrival.vlan.map_or([0; 4], in_line);
        if !self.arena.replace(at, slot.len as usize, with_tag(arrival, &tag)) {
            return;
        }
        slot.len = u32::try_from(len).unwrap_or(u32::MAX);
        slot.at = now;
        slot.offload = arrival.offload;
        queue.bytes = bytes;
        queue.by_age.unlink(&mut self.slots, Order::Age, at);
        queue.by_age.push(&mut self.slots, Order::Age, at);
        count_holding(queue, counters);
    }

    /// What would have to go for a frame of `class`, if anything is cheaper.
    fn cheaper(&self, queue: &Queue, class: Class) -> Option<u32> {
        Class::ALL.into_iter().take_while(|c| *c <= class).find_map(|candidate| {
            let list = queue.of(candidate);
            match candidate {
                // The newest are kept of these two.
                Class::Flooded | Class::Dhcp => self.oldest(queue, candidate),
                _ if candidate == class => None,
                Class::Neighbour if list.count() < 2 => None,
                _ => list.last().filter(|at| !self.is_outstanding(*at)),
            }
        })
    }

    /// The oldest waiting frame of a class; passes at most the outstanding ones.
    fn oldest(&self, queue: &Queue, class: Class) -> Option<u32> {
        let mut at = queue.of(class).first();
        while let Some(slot) = at.and_then(|at| self.slots.get(at as usize)) {
            if !slot.outstanding {
                break;
            }
            at = slot.links.next(Order::Class);
        }
        at
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

    fn is_outstanding(&self, at: u32) -> bool {
        self.slots.get(at as usize).is_none_or(|slot| slot.outstanding)
    }

    fn find_twin(&self, owner: u32, twin: &Twin) -> Option<u32> {
        self.twins.find(owner, twin, |at| {
            self.slots.get(at as usize).is_some_and(|s| s.owner == owner && s.twin.as_ref() == Some(twin))
        })
    }

    fn flow_frames(&mut self, owner: u32, flow: u64) -> usize {
        self.flow_counter(owner, flow).map_or(0, |n| *n as usize)
    }

    fn flow_counter(&mut self, owner: u32, flow: u64) -> Option<&mut u32> {
        let mask = self.flows.len() as u64 - 1;
        let at = (flow ^ u64::from(owner).wrapping_mul(0x9e37_79b9_7f4a_7c15)) & mask;
        self.flows.get_mut(usize::try_from(at).ok()?)
    }

    fn evict(&mut self, at: u32, queue: &mut Queue, counters: &mut Counters, reason: DropReason) {
        self.remove_at(at, queue, counters);
        counters.count_held_dropped(reason);
    }

    fn remove_at(&mut self, at: u32, queue: &mut Queue, counters: &mut Counters) {
        let Some(slot) = self.slots.get(at as usize).copied() else { return };
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

/// The tag between the addresses and the rest, as on the wire.
fn with_tag<'a>(arrival: &Arrival<'a>, tag: &'a [u8; 4]) -> [&'a [u8]; 3] {
    let (addresses, rest) = arrival.bytes.split_at_checked(12).unwrap_or((arrival.bytes, &[]));
    if arrival.vlan.is_some() { [addresses, tag, rest] } else { [arrival.bytes, &[], &[]] }
}

const fn in_line(tag: VlanTag) -> [u8; 4] {
    let [a, b] = tag.tpid.to_be_bytes();
    let [c, d] = tag.tci.to_be_bytes();
    [a, b, c, d]
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

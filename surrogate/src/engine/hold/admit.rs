//! What is kept, and what goes for it: the limits but for age.

use surrogate_wire::VlanTag;

use super::{Arrival, Hold, MAX_FRAME, Queue, Slot, count_holding};
use crate::engine::counters::Counters;
use crate::engine::lists::{Links, Order};
use crate::engine::twin::Twin;
use crate::engine::verdict::DropReason;
use crate::policy::traffic::HoldLimits;
use crate::time::Instant;

/// What a frame is worth when there is no room: the first goes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(in crate::engine) enum Class {
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
    pub(super) const ALL: [Self; 7] =
        [Self::Flooded, Self::Neighbour, Self::Data, Self::Ack, Self::Datagram, Self::Control, Self::Dhcp];
}

/// DHCP replies kept per guest, the newest ones: more than any exchange has.
pub(super) const DHCP_KEPT: u32 = 16;

/// What became of an arriving frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::engine) enum Admission {
    /// Held.
    Held,
    /// Not held, for this reason.
    Refused(DropReason),
}

impl Hold {
    /// Keeps `arrival` in `queue` of NIC number `owner`, or says why not. Counts what had to go, and what is held,
    /// in `counters`; the arriving frame's own verdict is the caller's to count.
    pub(in crate::engine) fn admit(
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
            mark: 0,
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

    /// The newest copy of a SYN takes the place of the held one, which the driver has not got yet; the newest
    /// acknowledgement of a connection too, but last in the order of arrival.
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
        if arrival.twin.is_some_and(|twin| twin.is_newest_ack()) {
            queue.move_to_end(&mut self.slots, at);
        }
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

    pub(super) fn flow_counter(&mut self, owner: u32, flow: u64) -> Option<&mut u32> {
        let mask = self.flows.len() as u64 - 1;
        let at = (flow ^ u64::from(owner).wrapping_mul(0x9e37_79b9_7f4a_7c15)) & mask;
        self.flows.get_mut(usize::try_from(at).ok()?)
    }
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

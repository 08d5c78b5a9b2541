//! The way of a fragment to a sleeper: gathered as long as its datagram may be one that we answer, else held as any
//! other frame.
//!
//! A gathered part is held, as it came, and counted so: a guest that wakes meanwhile gets it. Once the datagram is
//! whole it is classified as if it had come in one piece. If an answer is due, it goes out in as many frames as it
//! needs, and the held parts leave as `reclassified`; the last part, which was never held, has the answer for its
//! verdict. What the first part shows not to be ours to answer is held from then on, and wakes as the whole would.

use surrogate_wire::emit::{self, Ethernet, Ipv4Header, Ipv6Header};
use surrogate_wire::{Fragments, Frame, FrameBuf, Ipv4, Ipv6, Packet, Received, Transport};

use super::Engine;
use super::classify::{Decision, Reach, Responder, classify};
use super::connections::Custodial;
use super::contract::WakeReason;
use super::dispatch::{ENVELOPE, write_answer};
use super::hold::HeldFrame;
use super::nic::Nic;
use super::outbox::Way;
use super::reassembly::{At, Extent, Fate, Fit, Head, Key};
use super::verdict::{DropReason, Verdict};
use super::view::View;
use crate::guest::table::Place;
use crate::time::Instant;

/// One fragment, read.
struct Part<'f> {
    key: Key,
    extent: Extent,
    protocol: u8,
    payload: &'f [u8],
    /// Bytes before the payload, as the frame is held.
    skip: u16,
    /// The first one only.
    head: Option<Head>,
}

impl<'f> Part<'f> {
    fn of(view: View<'_, 'f>) -> Option<Self> {
        let frame = view.frame;
        let packet = view.packet.ok()?;
        let Transport::Fragment { protocol, first } = packet.transport()? else { return None };
        let (src, dst) = packet.addresses()?;
        let (place, payload, whole, class, ttl, number) = match packet {
            Packet::Ipv4(ip, _) => (ip.fragment?, ip.payload, ip.packet, ip.tos, ip.ttl, ip.protocol),
            Packet::Ipv6(ip, _) => {
                (ip.fragment?, ip.payload, ip.packet, ip.traffic_class, ip.hop_limit, ip.protocol)
            }
            Packet::Arp(_) | Packet::Other(_) | Packet::Llc => return None,
        };
        let tag = if view.received.vlan.is_some() { 4 } else { 0 };
        let before = view.received.bytes.len() - frame.payload.len() + whole.len() - payload.len() + tag;
        let to = Ethernet { dst: frame.dst, src: frame.src, tags: frame.tags };
        Some(Self {
            key: Key {
                src,
                dst,
                id: place.id,
                protocol: src.is_ipv4().then_some(number),
                vlan: (frame.tags.vid(), frame.tags.inner_vid()),
            },
            extent: Extent {
                start: place.offset,
                end: u16::try_from(usize::from(place.offset) + payload.len()).ok()?,
                more: place.more,
            },
            protocol: *protocol,
            payload,
            skip: u16::try_from(before).ok()?,
            head: first.map(|_| Head { to, class, ttl, protocol: number }),
        })
    }
}

/// Whether a decision about a fragment is one about its datagram, which the other parts share.
pub(super) const fn is_about_the_whole(decision: Decision, view: View<'_, '_>) -> bool {
    let Ok(packet) = view.packet else { return false };
    let Some(Transport::Fragment { first, .. }) = packet.transport() else { return false };
    match decision {
        Decision::Unknown => true,
        Decision::Answer(_)
        | Decision::Absorb
        | Decision::Hold(_)
        | Decision::Drop(DropReason::ClosedPort | DropReason::EchoLoop) => first.is_some(),
        // A fault of this one frame.
        Decision::Foreign | Decision::Conflict { .. } | Decision::Drop(_) => false,
    }
}

impl Engine {
    /// What becomes of a fragment for a sleeper, whose datagram gets `decision` as far as this part shows. `held`:
    /// it is held already.
    pub(super) fn gather(
        &mut self,
        now: Instant,
        place: Place,
        view: View<'_, '_>,
        decision: Decision,
        held: Option<HeldFrame>,
    ) -> Verdict {
        let Some(part) = Part::of(view) else { return Verdict::Absorb };
        let fate = match (decision, part.head) {
            (Decision::Answer(_), Some(head)) => Fate::Owed(head),
            (Decision::Hold(reason), _) => Fate::Hold(reason),
            (Decision::Drop(why), _) => Fate::Drop(why),
            (Decision::Unknown, _) => Fate::Unknown,
            _ => Fate::Absorb,
        };
        self.begin_anew(place, &part);
        let Some(at) = self.find_or_begin(now, place, &part) else {
            // As if we could not put anything together.
            let reason = WakeReason::Ip { protocol: part.protocol, from: part.key.src };
            let fate = if fate.is_settled() { fate } else { Fate::Hold(Some(reason)) };
            return self.follow(now, place, view, held, fate);
        };
        let Some(datagram) = self.reassembly.get(at) else { return Verdict::Absorb };
        if held.is_some_and(|held| self.hold.marked(held.key, datagram.mark).is_some()) {
            return Verdict::Hold;
        }
        if datagram.fate.is_settled() {
            let fate = datagram.fate;
            return self.follow(now, place, view, held, fate);
        }
        if fate.is_settled() {
            self.settle(place, at, fate);
            return self.follow(now, place, view, held, fate);
        }
        match datagram.fit(part.extent) {
            Fit::Repeated => Verdict::Drop(DropReason::Duplicate),
            Fit::Overlaps => {
                self.settle(place, at, Fate::Drop(DropReason::FragmentOverlap));
                Verdict::Drop(DropReason::FragmentOverlap)
            }
            Fit::TooMany => {
                let fate = self.give_up(place, at, DropReason::FragmentLimit);
                self.follow(now, place, view, held, fate)
            }
            Fit::New => {
                if let Fate::Owed(head) = fate {
                    self.reassembly.owe(at, head);
                }
                self.collect(now, place, at, &part, view, held)
            }
            Fit::Completes => {
                if let Fate::Owed(head) = fate {
                    self.reassembly.owe(at, head);
                }
                self.complete(now, place, at, &part, view, held)
            }
        }
    }

    /// Gives up what has waited for too long.
    pub(super) fn give_up_overdue(&mut self, now: Instant, place: Place) {
        while let Some(nic) = self.nics.get(place as usize).and_then(Option::as_ref)
            && let Some(at) = self.reassembly.overdue(&nic.parts, now)
        {
            let is_over = self.reassembly.is_over(at, now);
            if self.reassembly.get(at).is_some_and(|datagram| !datagram.fate.is_settled()) {
                self.give_up(place, at, DropReason::FragmentTimeout);
            }
            if is_over {
                self.forget(place, at);
            }
        }
    }

    /// A first part of what is decided already is that of another datagram: some senders number all of theirs alike.
    /// But one that was refused for what it is stays so, whatever comes (RFC 5722 4).
    fn begin_anew(&mut self, place: Place, part: &Part<'_>) {
        let Some(nic) = self.nics.get(place as usize).and_then(Option::as_ref) else { return };
        if part.head.is_some()
            && let Some(at) = self.reassembly.find(&nic.parts, &part.key)
            && let Some(datagram) = self.reassembly.get(at)
            && matches!(datagram.fate, Fate::Absorb | Fate::Done | Fate::Hold(_))
        {
            self.forget(place, at);
        }
    }

    /// The datagram of a part, making room for a new one. `None`: all room is other guests'.
    fn find_or_begin(&mut self, now: Instant, place: Place, part: &Part<'_>) -> Option<At> {
        let nic = self.nics.get_mut(place as usize)?.as_mut()?;
        if let Some(at) = self.reassembly.find(&nic.parts, &part.key) {
            return Some(at);
        }
        let begun = match self.reassembly.begin(now, &mut nic.parts, part.key, part.protocol) {
            Some(at) => at,
            None => {
                let oldest = self.reassembly.cheapest(&nic.parts, None)?;
                self.make_way(place, oldest);
                let nic = self.nics.get_mut(place as usize)?.as_mut()?;
                self.reassembly.begin(now, &mut nic.parts, part.key, part.protocol)?
            }
        };
        let nic = self.nics.get(place as usize)?.as_ref()?;
        if let Some(due) = self.reassembly.due(&nic.parts) {
            self.timers.sooner(place, due);
        }
        Some(begun)
    }

    /// Holds a part until more is known of its datagram.
    fn collect(
        &mut self,
        now: Instant,
        place: Place,
        at: At,
        part: &Part<'_>,
        view: View<'_, '_>,
        held: Option<HeldFrame>,
    ) -> Verdict {
        let len = usize::from(part.skip) + part.payload.len();
        while let Some(nic) = self.nics.get(place as usize).and_then(Option::as_ref)
            && !self.reassembly.has_room(&nic.parts, len)
        {
            let Some(other) = self.reassembly.cheapest(&nic.parts, Some(at)) else {
                let fate = self.give_up(place, at, DropReason::FragmentLimit);
                return self.follow(now, place, view, held, fate);
            };
            self.make_way(place, other);
        }
        if held.is_none()
            && let Verdict::Drop(why) = self.keep(now, place, Reach::Unicast, view, None)
        {
            self.settle(place, at, Fate::Drop(why));
            return Verdict::Drop(why);
        }
        let Some(nic) = self.nics.get_mut(place as usize).and_then(Option::as_mut) else {
            return Verdict::Hold;
        };
        if let Some(held) = held.or_else(|| self.hold.newest(&nic.queue))
            && let Some(datagram) = self.reassembly.get(at)
        {
            self.hold.mark(held.key, datagram.mark);
            self.reassembly.add(&mut nic.parts, at, part.extent, held.key, part.skip, len);
        }
        Verdict::Hold
    }

    /// The last missing part of a datagram came.
    fn complete(
        &mut self,
        now: Instant,
        place: Place,
        at: At,
        part: &Part<'_>,
        view: View<'_, '_>,
        held: Option<HeldFrame>,
    ) -> Verdict {
        let mut whole = core::mem::take(&mut self.whole);
        let came_of_it = match self.assemble(at, part, &mut whole) {
            Some(bytes) => self.judge_whole(now, place, bytes, part.key.id),
            // A part had to go meanwhile.
            None => Err(Fate::Drop(DropReason::BufferFull)),
        };
        self.whole = whole;
        let (verdict, fate) = match came_of_it {
            // In a review it is tried again when there is room.
            Ok(Verdict::Drop(DropReason::OutputFull)) if held.is_some() => {
                return Verdict::Drop(DropReason::OutputFull);
            }
            Ok(Verdict::Drop(why)) => (Verdict::Drop(why), Fate::Drop(why)),
            Ok(verdict) => (verdict, Fate::Absorb),
            Err(fate) => (self.follow(now, place, view, held, fate), fate),
        };
        self.settle(place, at, fate);
        if let (Some(nic), Ok(_)) = (self.nics.get_mut(place as usize).and_then(Option::as_mut), came_of_it) {
            self.reassembly.settle(&mut nic.parts, at, Fate::Done);
        }
        verdict
    }

    /// Puts a datagram together as one frame. `None` if a part is gone.
    fn assemble<'w>(&self, at: At, last: &Part<'_>, into: &'w mut [u8]) -> Option<&'w [u8]> {
        let datagram = self.reassembly.get(at)?;
        let Fate::Owed(head) = datagram.fate else { return None };
        let pieces = datagram.pieces().iter();
        let len = pieces.map(|piece| piece.end).chain([last.extent.end]).max().map(usize::from)?;
        let mut out = FrameBuf::new(into);
        let Head { to, class, ttl, protocol } = head;
        match (datagram.key.src, datagram.key.dst) {
            (core::net::IpAddr::V4(src), core::net::IpAddr::V4(dst)) => {
                let id = u16::try_from(datagram.key.id).unwrap_or_default();
                let header = Ipv4Header { src, dst, tos: class, id, dont_fragment: false, ttl, protocol };
                out.ipv4(&to, &header, len);
            }
            (core::net::IpAddr::V6(src), core::net::IpAddr::V6(dst)) => {
                let header = Ipv6Header { src, dst, traffic_class: class, hop_limit: ttl, protocol };
                out.ipv6(&to, &header, len);
            }
            _ => return None,
        }
        let start = out.as_bytes().len();
        let payload = into.get_mut(start..start + len)?;
        for piece in datagram.pieces() {
            let held = self.hold.marked(piece.held, datagram.mark)?;
            let part = payload.get_mut(usize::from(piece.start)..usize::from(piece.end))?;
            self.hold.read_part(held.key, usize::from(piece.skip), part);
        }
        let (from, to) = (usize::from(last.extent.start), usize::from(last.extent.end));
        payload.get_mut(from..to)?.copy_from_slice(last.payload);
        into.get(..(start + len).max(emit::MIN_FRAME))
    }

    /// What a datagram gets now that it is whole; `Err` if it is not for us to say.
    fn judge_whole(&mut self, now: Instant, place: Place, bytes: &[u8], id: u32) -> Result<Verdict, Fate> {
        let received = Received::plain(bytes);
        let Ok(frame) = Frame::parse(&received) else { return Ok(Verdict::Absorb) };
        let packet = Packet::parse(&frame, received.offload);
        let view = View::new(&received, &frame, &packet);
        let Some(nic) = self.nics.get(place as usize).and_then(Option::as_ref) else {
            return Ok(Verdict::Absorb);
        };
        // However long: the answer may be cut up as well.
        let wanted = classify(&nic.identity, &nic.ports, Reach::Unicast, view, usize::MAX);
        match self.take_custody(now, place, Reach::Unicast, view, false, wanted) {
            Custodial::NotMine => {}
            Custodial::Done(verdict) => return Ok(verdict),
            Custodial::Keep { reason, .. } => return Err(Fate::Hold(reason)),
        }
        match wanted {
            Decision::Answer(by) => Ok(self.answer_long(now, place, by, view, id)),
            Decision::Drop(why) => Ok(Verdict::Drop(why)),
            Decision::Hold(reason) => Err(Fate::Hold(reason)),
            Decision::Foreign | Decision::Absorb | Decision::Conflict { .. } | Decision::Unknown => {
                Ok(Verdict::Absorb)
            }
        }
    }

    /// Writes the answer to a datagram that came in parts, in as many as it needs, with identification `id`.
    fn answer_long(
        &mut self,
        now: Instant,
        place: Place,
        by: Responder,
        view: View<'_, '_>,
        id: u32,
    ) -> Verdict {
        let (Some(nic), Ok(packet)) = (self.nics.get(place as usize).and_then(Option::as_ref), view.packet)
        else {
            return Verdict::Absorb;
        };
        let mtu = self.limits.mtu;
        // No answer is longer than what it answers.
        let parts = view.frame.payload.len().div_ceil((mtu & !7).saturating_sub(LONGEST_HEADERS).max(8));
        let room = parts * (mtu + ENVELOPE);
        if room > self.limits.outbox_bytes {
            return Verdict::Drop(DropReason::FragmentLimit);
        }
        let mut reply = core::mem::take(&mut self.reply);
        let mut out = FrameBuf::new(&mut reply);
        let (identity, time) = (&nic.identity, self.time_of_day(now));
        let written = match write_answer(by, identity, time, view.frame, packet, &mut out) {
            Some(answered) => self.may_answer(now, place, by, packet, room).map(|()| Some(answered)),
            None => Ok(None),
        };
        let verdict = match written {
            Ok(Some(answered)) if self.send_long(now, place, out.as_bytes(), id) => Verdict::Answer(answered),
            // A host would stay silent here.
            Ok(None) => Verdict::Absorb,
            Ok(Some(_)) => Verdict::Drop(DropReason::OutputFull),
            Err(why) => Verdict::Drop(why),
        };
        self.reply = reply;
        verdict
    }

    /// Queues a frame of ours, cut up if it is too long. All of it or nothing.
    fn send_long(&mut self, now: Instant, place: Place, bytes: &[u8], id: u32) -> bool {
        let Some((port, nic)) = self.at(place).map(|nic| (nic.identity.port, nic.identity.nic)) else {
            return false;
        };
        let (way, whose, most) = (Way::Transmit(port), (place, nic), self.limits.mtu + ENVELOPE);
        let Ok(frame) = Frame::parse(&Received::plain(bytes)) else { return false };
        if frame.payload.len() <= self.limits.mtu {
            let pushed = self.outbox.push(way, whose, most, |out| {
                out.push(bytes);
                Some(())
            });
            let sent = matches!(pushed, Ok(Some(())));
            if sent {
                self.re_enter(now, place);
            }
            return sent;
        }
        let Some(mut fragments) = Fragments::of(&frame, self.limits.mtu, id) else { return false };
        for _ in 0..fragments.count() {
            match self.outbox.push(way, whose, most, |out| fragments.write_next(out)) {
                Ok(Some(())) => self.re_enter(now, place),
                // There was room for all of them.
                _ => return false,
            }
        }
        true
    }

    /// What is found out about a datagram applies to its held parts.
    fn settle(&mut self, place: Place, at: At, fate: Fate) {
        let Some(datagram) = self.reassembly.get(at) else { return };
        let Some(nic) = self.nics.get_mut(place as usize).and_then(Option::as_mut) else { return };
        let Nic { queue, counters, .. } = nic;
        for piece in datagram.pieces() {
            let Some(held) = self.hold.marked(piece.held, datagram.mark) else { continue };
            match fate {
                Fate::Drop(why) => {
                    self.hold.remove(held, queue, counters);
                    counters.count_held_dropped(why);
                }
                Fate::Absorb => {
                    self.hold.remove(held, queue, counters);
                    counters.reclassified += 1;
                }
                Fate::Hold(_) | Fate::Unknown | Fate::Owed(_) | Fate::Done => self.hold.mark(held.key, 0),
            }
        }
        if let Fate::Hold(Some(reason)) = fate {
            self.notices.wake(&mut nic.told, &nic.identity, nic.epoch, reason);
        }
        self.reassembly.settle(&mut nic.parts, at, fate);
    }

    /// What becomes of a datagram that will not be whole here: what we would have answered is lost, as are such parts
    /// of ICMP that nobody knows; what may be anything is for the guest to judge.
    fn give_up(&mut self, place: Place, at: At, why: DropReason) -> Fate {
        let fate = match self.reassembly.get(at) {
            Some(datagram) if datagram.fate == Fate::Unknown && datagram.may_wake() => {
                Fate::Hold(Some(datagram.reason()))
            }
            _ => Fate::Drop(why),
        };
        self.settle(place, at, fate);
        fate
    }

    /// One datagram goes for another of the same NIC.
    fn make_way(&mut self, place: Place, at: At) {
        if self.reassembly.get(at).is_some_and(|datagram| !datagram.fate.is_settled()) {
            self.give_up(place, at, DropReason::FragmentLimit);
        }
        self.forget(place, at);
    }

    fn forget(&mut self, place: Place, at: At) {
        if let Some(nic) = self.nics.get_mut(place as usize).and_then(Option::as_mut) {
            self.reassembly.end(&mut nic.parts, at);
        }
    }

    /// Treats a part as its datagram is treated.
    fn follow(
        &mut self,
        now: Instant,
        place: Place,
        view: View<'_, '_>,
        held: Option<HeldFrame>,
        fate: Fate,
    ) -> Verdict {
        match (fate, held) {
            (Fate::Drop(why), _) => Verdict::Drop(why),
            (Fate::Done, _) => Verdict::Drop(DropReason::Duplicate),
            (Fate::Hold(Some(reason)), Some(_)) => self.ask_wake(place, reason),
            (Fate::Hold(None), Some(_)) => Verdict::Hold,
            (Fate::Hold(reason), None) => self.keep(now, place, Reach::Unicast, view, reason),
            (Fate::Absorb | Fate::Unknown | Fate::Owed(_), _) => Verdict::Absorb,
        }
    }
}

/// IPv6 with a fragment header, and the unit of eight bytes that may be left over.
const LONGEST_HEADERS: usize = Ipv6::HEADER + Ipv6::FRAGMENT_HEADER;
const _: () = assert!(LONGEST_HEADERS >= Ipv4::HEADER);

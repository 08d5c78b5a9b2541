//! The way of one frame through the engine: whom it concerns, what that means for each, and doing it.
//!
//! A frame of our own for a MAC that is itself steered to us would be lost on the bridge, which sends
//! nothing back to the port it came from: it re-enters here as a frame for that guest. So does a
//! flooded frame of ours, for the other sleepers. What re-enters is never answered, so one frame in
//! makes at most two out.

use core::hash::BuildHasher;
use core::net::IpAddr;

use surrogate_wire::icmpv6::ALL_NODES;
use surrogate_wire::{
    FlowKey, Frame, FrameBuf, Icmpv6Body, Mac, Packet, Received, Tags, TcpFlags, Transport,
};

use super::Engine;
use super::classify::{Decision, Reach, Responder, class_of, classify, in_mode};
use super::connections::Custodial;
use super::contract::{Mode, Notice, WakeReason};
use super::gather::is_about_the_whole;
use super::hold::{Admission, Arrival};
use super::limiter::Limited;
use super::outbox::{Full, Way};
use super::twin::Twin;
use super::verdict::{Answered, DropReason, Verdict, Verdicts};
use super::view::View;
use super::wake::Once;
use crate::guest::identity::NicIdentity;
use crate::guest::table::{Lan, Place};
use crate::responder::presence::Heard;
use crate::responder::{self, announce, barrier, daytime, tcp_reset, unreachable};
use crate::time::{Duration, Instant};

/// Whom a flooded frame may concern.
enum Concerned {
    Nobody,
    One(Place),
    Two(Place, Place),
    Members(IpAddr),
    Everybody,
}

impl Engine {
    pub(super) fn dispatch(
        &mut self,
        now: Instant,
        port: super::PortId,
        received: &Received<'_>,
    ) -> Verdicts {
        let mut verdicts = Verdicts::default();
        let Ok(frame) = Frame::parse(received) else { return verdicts };
        let lan = Lan::new(port, frame.tags.vid());
        if let Some((source, _)) = self.table.mac(lan, frame.src) {
            self.heard_from(now, source, received, &frame);
        }
        if is_group(frame.dst) {
            let packet = Packet::parse(&frame, received.offload);
            let view = View::new(received, &frame, &packet);
            self.hear_router(now, lan, view);
            self.flood(now, lan, view, None, &mut verdicts);
            return verdicts;
        }
        let Some((place, here)) = self.table.mac(lan, frame.dst) else { return verdicts };
        let Some(nic) = self.nics.get_mut(place as usize).and_then(Option::as_mut) else { return verdicts };
        if !nic.stands() {
            nic.counters.awake_unicast += 1;
            return verdicts;
        }
        nic.delivery.quiet_since = now;
        let id = nic.identity.nic;
        let packet = Packet::parse(&frame, received.offload);
        let view = View::new(received, &frame, &packet);
        if let Some(verdict) = self.consider(now, place, reach(here, frame.tags), view, false) {
            verdicts.push(id, verdict);
        }
        verdicts
    }

    /// A frame from a guest's own MAC: it may be the answer to the barrier, or show that the guest runs.
    fn heard_from(&mut self, now: Instant, place: Place, received: &Received<'_>, frame: &Frame<'_>) {
        let Some(nic) = self.nics.get_mut(place as usize).and_then(Option::as_mut) else { return };
        match nic.mode {
            Mode::Answer => {
                nic.counters.own_source += 1;
                if nic.spoof.believes(now) {
                    self.fall_silent(place);
                } else if let Some(at) = nic.spoof.due_at() {
                    self.timers.sooner(place, at);
                }
            }
            Mode::Fence { .. } if nic.barrier => {
                let Ok(packet) = Packet::parse(frame, received.offload) else { return };
                if barrier::is_answer(&nic.identity, self.service_mac, frame, &packet) {
                    nic.barrier = false;
                    self.notices.push(Notice::BarrierPassed { nic: nic.identity.nic, epoch: nic.epoch });
                }
            }
            _ => {}
        }
    }

    /// One speaker at a time, and that is the guest, if it speaks.
    pub(super) fn fall_silent(&mut self, place: Place) {
        let Some(nic) = self.nics.get_mut(place as usize).and_then(Option::as_mut) else { return };
        nic.mode = Mode::Hold { flooded: true };
        nic.counters.silencing += 1;
        self.hold.end_review(&mut nic.queue);
        self.reassembly.end_all(&mut nic.parts);
        if nic.told.first(Once::GuestSpoke) {
            self.notices.push(Notice::GuestSpoke { nic: nic.identity.nic, epoch: nic.epoch });
        }
    }

    /// Handles a broadcast or multicast frame for everybody whom it concerns but `speaker`, who sent it.
    fn flood(
        &mut self,
        now: Instant,
        lan: Lan,
        view: View<'_, '_>,
        speaker: Option<Place>,
        verdicts: &mut Verdicts,
    ) {
        match self.concerned(lan, view) {
            Concerned::Nobody => {}
            Concerned::One(place) => self.flood_to(now, place, view, speaker, verdicts),
            Concerned::Two(one, other) => {
                self.flood_to(now, one, view, speaker, verdicts);
                self.flood_to(now, other, view, speaker, verdicts);
            }
            // By number, since the list cannot be borrowed while the engine decides.
            Concerned::Members(group) => {
                for n in 0.. {
                    let Some(&place) = self.table.group(lan, group).get(n) else { return };
                    self.flood_to(now, place, view, speaker, verdicts);
                }
            }
            Concerned::Everybody => {
                for n in 0.. {
                    let Some(&place) = self.table.standing(lan).get(n) else { return };
                    self.flood_to(now, place, view, speaker, verdicts);
                }
            }
        }
    }

    fn flood_to(
        &mut self,
        now: Instant,
        place: Place,
        view: View<'_, '_>,
        speaker: Option<Place>,
        verdicts: &mut Verdicts,
    ) {
        if speaker == Some(place) {
            return;
        }
        if let Some(verdict) = self.consider(now, place, Reach::Flooded, view, speaker.is_some())
            && let Some(nic) = self.nics.get(place as usize).and_then(Option::as_ref)
        {
            verdicts.push(nic.identity.nic, verdict);
        }
    }

    fn concerned(&self, lan: Lan, view: View<'_, '_>) -> Concerned {
        let one = |place: Option<Place>| place.map_or(Concerned::Nobody, Concerned::One);
        let Ok(packet) = view.packet else { return Concerned::Nobody };
        if view.frame.tags.inner_vid().is_some() {
            return Concerned::Nobody;
        }
        if let Packet::Arp(arp) = packet {
            let target = self.table.address(lan, arp.tpa.into());
            if arp.spa == arp.tpa {
                return one(target);
            }
            return match (target, self.table.address(lan, arp.spa.into())) {
                (Some(a), Some(b)) if a != b => Concerned::Two(a, b),
                (a, b) => one(a.or(b)),
            };
        }
        if let Some(called) = view.called {
            return one(self.table.mac(lan, called).and_then(|(place, here)| here.then_some(place)));
        }
        let (Some((_, dst)), Some(transport)) = (packet.addresses(), packet.transport()) else {
            return Concerned::Nobody;
        };
        if let Transport::Icmpv6(icmp) = transport {
            let target = match icmp.body {
                Icmpv6Body::Solicitation(asked) => Some(asked.target),
                Icmpv6Body::Advertisement(told) => Some(told.target),
                _ => None,
            };
            if let Some(target) = target {
                return one(self.table.address(lan, target.into()));
            }
        }
        match dst {
            IpAddr::V4(v4) if v4.is_multicast() && v4.octets() != [224, 0, 0, 1] => Concerned::Members(dst),
            IpAddr::V6(v6) if v6 != ALL_NODES => Concerned::Members(dst),
            // 224.0.0.1, ff02::1, or perhaps a broadcast address of somebody's prefix.
            _ => Concerned::Everybody,
        }
    }

    /// Decides about a frame for one NIC, does it and counts it. `ours`: the frame is from us.
    fn consider(
        &mut self,
        now: Instant,
        place: Place,
        reach: Reach,
        view: View<'_, '_>,
        ours: bool,
    ) -> Option<Verdict> {
        if !self.nics.get(place as usize)?.as_ref()?.stands() {
            return None;
        }
        let heard =
            if ours || reach == Reach::OtherVlan { Heard::NotMine } else { self.hear(now, place, view) };
        let verdict = match heard {
            Heard::Noted => Verdict::Absorb,
            Heard::Owed(by) => Verdict::Answer(by),
            Heard::TooMany => Verdict::Drop(DropReason::RateLimited),
            Heard::Wake(reason) => self.keep(now, place, reach, view, Some(reason)),
            Heard::NotMine => self.judge(now, place, reach, view, ours)?,
        };
        self.nics.get_mut(place as usize)?.as_mut()?.counters.count(verdict);
        Some(verdict)
    }

    /// What the frame gets that no presence protocol knows.
    fn judge(
        &mut self,
        now: Instant,
        place: Place,
        reach: Reach,
        view: View<'_, '_>,
        ours: bool,
    ) -> Option<Verdict> {
        let nic = self.nics.get(place as usize)?.as_ref()?;
        let wanted = classify(&nic.identity, &nic.ports, reach, view, self.limits.mtu);
        match self.take_custody(now, place, reach, view, ours, wanted) {
            Custodial::NotMine => {}
            Custodial::Done(verdict) => return Some(verdict),
            Custodial::Keep { reason, newest } => {
                return Some(self.keep_as(now, place, reach, view, reason, newest));
            }
        }
        let mode = self.nics.get(place as usize)?.as_ref()?.mode;
        let wanted = in_mode(mode, reach, wanted);
        let is_part = mode == Mode::Answer && reach == Reach::Unicast && !ours;
        Some(match wanted {
            decision if is_part && is_about_the_whole(decision, view) => {
                self.gather(now, place, view, decision, None)
            }
            Decision::Foreign => return None,
            Decision::Absorb => Verdict::Absorb,
            Decision::Drop(why) => Verdict::Drop(why),
            // No reply to a reply.
            Decision::Answer(_) | Decision::Conflict { .. } if ours => Verdict::Absorb,
            Decision::Answer(Responder::Daytime) if self.time_of_day.is_none() => {
                self.keep(now, place, reach, view, asked_for_the_time(view))
            }
            Decision::Answer(by) => self.answer(now, place, by, view),
            Decision::Conflict { address, by } => match self.defend(now, place, address, by) {
                Some(verdict) => verdict,
                None => self.keep(now, place, reach, view, Some(WakeReason::Conflict)),
            },
            Decision::Hold(reason) => self.keep(now, place, reach, view, reason),
            // One of ours, or broadcast.
            Decision::Unknown => self.keep(now, place, reach, view, None),
        })
    }

    /// Writes the answer to a frame, within the limits.
    pub(super) fn answer(
        &mut self,
        now: Instant,
        place: Place,
        by: Responder,
        View { frame, packet, .. }: View<'_, '_>,
    ) -> Verdict {
        let Ok(packet) = packet else { return Verdict::Absorb };
        let max = self.limits.mtu + ENVELOPE;
        if let Err(why) = self.may_answer(now, place, by, packet, max) {
            return Verdict::Drop(why);
        }
        let Some(nic) = self.nics.get(place as usize).and_then(Option::as_ref) else {
            return Verdict::Absorb;
        };
        let (identity, time) = (&nic.identity, self.time_of_day(now));
        let written = self.outbox.push(Way::Transmit(identity.port), (place, identity.nic), max, |out| {
            write_answer(by, identity, time, frame, packet, out)
        });
        match written {
            Ok(Some(answered)) => {
                self.re_enter(now, place);
                Verdict::Answer(answered)
            }
            // A host would stay silent here.
            Ok(None) => Verdict::Absorb,
            Err(Full) => Verdict::Drop(DropReason::OutputFull),
        }
    }

    /// Whether an answer of at most `max` bytes may be given to `packet` now; if so, it is counted.
    pub(super) fn may_answer(
        &mut self,
        now: Instant,
        place: Place,
        by: Responder,
        packet: &Packet<'_>,
        max: usize,
    ) -> Result<(), DropReason> {
        let what = match by {
            Responder::Echo | Responder::Daytime => Limited::Echoes,
            Responder::Unreachable => Limited::Errors,
            Responder::Neighbour | Responder::Reset => return Ok(()),
        };
        // Before it is counted against a limit: it may be tried again when there is room.
        if !self.outbox.has_room(max) {
            return Err(DropReason::OutputFull);
        }
        let Some(nic) = self.nics.get(place as usize).and_then(Option::as_ref) else { return Ok(()) };
        match packet.addresses() {
            Some((from, _)) if !self.limiter.allow(now, what, nic.identity.nic.0, from) => {
                Err(DropReason::RateLimited)
            }
            _ => Ok(()),
        }
    }

    /// Defends an address with an announcement, or says that it may not be defended now and that the guest has
    /// to decide (`None`). The control side learns of both.
    pub(super) fn defend(&mut self, now: Instant, place: Place, address: IpAddr, by: Mac) -> Option<Verdict> {
        // A defence that cannot be said is none.
        if !self.outbox.has_room(ANNOUNCEMENT) {
            return Some(Verdict::Drop(DropReason::OutputFull));
        }
        let nic = self.nics.get_mut(place as usize)?.as_mut()?;
        nic.counters.conflicts += 1;
        let defended = nic.defend(now, address);
        if nic.told.first(if defended { Once::Defended } else { Once::Conflict }) {
            self.notices.push(Notice::Conflict {
                nic: nic.identity.nic,
                epoch: nic.epoch,
                address,
                by,
                defended,
            });
        }
        if !defended {
            return None;
        }
        Some(match self.announce(now, place, address) {
            Err(Full) => Verdict::Drop(DropReason::OutputFull),
            Ok(()) if address.is_ipv4() => Verdict::Answer(Answered::ArpDefence),
            Ok(()) => Verdict::Answer(Answered::NdiscDefence),
        })
    }

    /// Announces one address of a NIC.
    pub(super) fn announce(&mut self, now: Instant, place: Place, address: IpAddr) -> Result<(), Full> {
        let Some(nic) = self.nics.get(place as usize).and_then(Option::as_ref) else { return Ok(()) };
        let identity = &nic.identity;
        let written =
            self.outbox.push(Way::Transmit(identity.port), (place, identity.nic), ANNOUNCEMENT, |out| {
                announce::announce(identity, address, out)
            })?;
        if written.is_some() {
            self.re_enter(now, place);
        }
        Ok(())
    }

    /// Holds a frame, and asks for a wake if there is a reason.
    pub(super) fn keep(
        &mut self,
        now: Instant,
        place: Place,
        reach: Reach,
        view: View<'_, '_>,
        reason: Option<WakeReason>,
    ) -> Verdict {
        self.keep_as(now, place, reach, view, reason, false)
    }

    /// The same; `newest`: an acknowledgement that takes the place of the one of its connection that was held before.
    fn keep_as(
        &mut self,
        now: Instant,
        place: Place,
        reach: Reach,
        view: View<'_, '_>,
        reason: Option<WakeReason>,
        newest: bool,
    ) -> Verdict {
        let twin = view.packet.ok().and_then(twin_of);
        let flow = self.flow_of(view);
        let Some(nic) = self.nics.get_mut(place as usize).and_then(Option::as_mut) else {
            return Verdict::Drop(DropReason::GuestGone);
        };
        let arrival = Arrival {
            bytes: view.received.bytes,
            vlan: view.received.vlan,
            offload: view.received.offload,
            class: class_of(view.packet, reach),
            flow,
            twin: if newest { twin.map(Twin::of_newest_ack) } else { twin },
            flooded: reach == Reach::Flooded,
        };
        let limits = &nic.identity.traffic.hold;
        let admission = self.hold.admit(now, place, &mut nic.queue, limits, &arrival, &mut nic.counters);
        if let Some(reason) = reason {
            self.notices.wake(&mut nic.told, &nic.identity, nic.epoch, reason);
        }
        match admission {
            Admission::Refused(why) => Verdict::Drop(why),
            Admission::Held => {
                let old_at = now + limits.age;
                match nic.mode {
                    Mode::Replay { released: true } => {
                        nic.counters.overtaken += 1;
                        nic.delivery.overtaken = nic.delivery.overtaken.saturating_add(1);
                    }
                    Mode::Replay { released: false } => {
                        nic.delivery.late = nic.delivery.late.saturating_add(1);
                    }
                    _ => {}
                }
                let delivers = matches!(nic.mode, Mode::Replay { .. });
                self.timers.sooner(place, old_at);
                if delivers {
                    self.make_ready(place);
                }
                if reason.is_some() { Verdict::HoldAndWake } else { Verdict::Hold }
            }
        }
    }

    fn flow_of(&self, view: View<'_, '_>) -> u64 {
        let flow = view.packet.ok().and_then(|packet| FlowKey::of(view.frame, packet));
        match flow {
            Some(flow) => self.hasher.hash_one(flow),
            None => self.hasher.hash_one((view.frame.src, view.frame.ethertype)),
        }
    }

    /// Gives the newest frame of ours to the sleepers that it concerns, instead of or beside the bridge.
    pub(super) fn re_enter(&mut self, now: Instant, speaker: Place) {
        let received = Received::plain(self.outbox.newest());
        // Nearly all are for stations that are nobody's sleeper.
        let to = received.bytes.first_chunk().map_or(Mac::ZERO, |dst| Mac(*dst));
        if !is_group(to) && !self.table.may_know(to) {
            return;
        }
        let Ok(frame) = Frame::parse(&received) else { return };
        let Some(port) = self.nics.get(speaker as usize).and_then(Option::as_ref).map(|n| n.identity.port)
        else {
            return;
        };
        let lan = Lan::new(port, frame.tags.vid());
        let flooded = is_group(frame.dst);
        let addressee = self.table.mac(lan, frame.dst).filter(|(place, _)| {
            self.nics.get(*place as usize).and_then(Option::as_ref).is_some_and(|nic| nic.stands())
        });
        if !flooded && addressee.is_none() {
            return;
        }
        let mut ours = core::mem::take(&mut self.ours);
        let len = received.bytes.len();
        if let Some(bytes) = ours.get_mut(..len) {
            bytes.copy_from_slice(received.bytes);
            let received = Received::plain(bytes);
            if let Ok(frame) = Frame::parse(&received) {
                let packet = Packet::parse(&frame, received.offload);
                let view = View::new(&received, &frame, &packet);
                if let Some((place, here)) = addressee {
                    self.outbox.retract();
                    self.consider(now, place, reach(here, frame.tags), view, true);
                } else {
                    self.flood(now, lan, view, Some(speaker), &mut Verdicts::default());
                }
            }
        }
        self.ours = ours;
    }
}

/// Who does not know the time wakes who does.
pub(super) fn asked_for_the_time(view: View<'_, '_>) -> Option<WakeReason> {
    let (from, _) = view.packet.ok()?.addresses()?;
    Some(WakeReason::Udp { port: daytime::PORT, from })
}

/// The answer to a frame by whom it is owed.
pub(super) fn write_answer(
    by: Responder,
    identity: &NicIdentity,
    time_of_day: Option<Duration>,
    frame: &Frame<'_>,
    packet: &Packet<'_>,
    out: &mut FrameBuf<'_>,
) -> Option<Answered> {
    match by {
        Responder::Neighbour | Responder::Echo => responder::reply_for(identity, frame, packet, out),
        Responder::Daytime => daytime::reply_for(identity, time_of_day?, frame, packet, out),
        Responder::Reset => tcp_reset::reply_for(identity, frame, packet, out),
        Responder::Unreachable => unreachable::reply_for(identity, frame, packet, out),
    }
}

/// Two tags: the inner VLAN is the guest's own business.
pub(super) const fn reach(here: bool, tags: Tags) -> Reach {
    if here && tags.inner_vid().is_none() { Reach::Unicast } else { Reach::OtherVlan }
}

const fn is_group(mac: Mac) -> bool {
    mac.0[0] & 1 != 0
}

fn twin_of(packet: &Packet<'_>) -> Option<Twin> {
    let (source, destination) = packet.addresses()?;
    let Transport::Tcp(tcp) = packet.transport()? else { return None };
    let ports = (tcp.src_port, tcp.dst_port);
    let flags = TcpFlags::SYN.0;
    let twin = Twin { source, destination, ports, seq: tcp.seq, ack: 0, len: 0, window: 0, flags };
    if tcp.is_syn() {
        return Some(twin);
    }
    // Without ECE and CWR, which may differ in a repetition (RFC 3168 6.1.5).
    let len = u32::try_from(tcp.payload.len()).unwrap_or(u32::MAX);
    Some(Twin { ack: tcp.ack, len, window: tcp.window, flags: tcp.flags.0 & 0x3f, ..twin })
}

/// Ethernet header and two tags around an IP packet of at most the MTU.
pub(super) const ENVELOPE: usize = 14 + 2 * 4;
/// An advertisement with its option, tags and headers.
const ANNOUNCEMENT: usize = 128;

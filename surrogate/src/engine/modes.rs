//! Commands of the control side: NICs come, go and change their mode.
//!
//! Each NIC has one mode at a time, in force from the moment the command is taken: what was written for
//! the network before and is still in the outbox is not sent once the guest may speak for itself. A
//! command of an earlier epoch is late and ignored.

use surrogate_wire::{Frame, Packet, Received};

use super::classify::{Decision, Reach, Responder, classify};
use super::connections::{ASKED_AGAIN, Custodial};
use super::contract::{Command, Mode, Notice, WakeReason};
use super::dispatch::{asked_for_the_time, reach};
use super::gather::is_about_the_whole;
use super::hold::HeldFrame;
use super::nic::Nic;
use super::outbox::{Full, Way};
use super::verdict::{DropReason, Verdict};
use super::view::View;
use super::wake::Once;
use super::{Engine, NicId};
use crate::guest::identity::{Epoch, NicIdentity};
use crate::guest::table::{Lan, Place};
use crate::responder::barrier;
use crate::responder::presence::Heard;
use crate::time::Instant;

impl Engine {
    pub(super) fn obey(&mut self, now: Instant, command: Command) {
        match command {
            Command::Register(identity) => self.register(*identity),
            Command::Unregister { nic } => self.unregister(now, nic),
            Command::SetMode { nic, epoch, mode } => self.set_mode(now, nic, epoch, mode),
            Command::Watch { nic, epoch, watched } => self.watch(now, nic, epoch, watched),
            Command::Barrier { nic, epoch } => self.ask_barrier(now, nic, epoch),
            Command::Announce { nic } => self.announce_all(now, nic),
            Command::Know { nic, knowledge, ago } => self.know(now, nic, &knowledge, ago),
            Command::PortReady { nic } => {
                if let Some(place) = self.table.nic(nic)
                    && let Some(nic) = self.at(place)
                {
                    nic.delivery.port_ready();
                    self.make_ready(place);
                }
            }
        }
    }

    fn register(&mut self, identity: NicIdentity) {
        let place = match self.table.nic(identity.nic) {
            Some(place) => place,
            None => match self.nics.iter().position(Option::is_none) {
                Some(free) => free as Place,
                None => {
                    self.nics.push(None);
                    self.nics.len() as Place - 1
                }
            },
        };
        self.notices.reserve(self.nics.len());
        self.timers.reserve(self.nics.len());
        self.ready.reserve(self.nics.len());
        let seed = self.seed_of(identity.nic);
        let Some(slot) = self.nics.get_mut(place as usize) else { return };
        let mut withdrawn = Vec::new();
        match slot {
            Some(nic) => {
                withdrawn.extend(core::iter::from_fn(|| nic.give_back(|_, _| true)));
                self.table.remove(&nic.identity, place);
                nic.learn(identity, seed);
            }
            None => *slot = Some(Nic::new(identity, seed)),
        }
        if let Some(nic) = slot {
            self.routers.entry(Lan::of(&nic.identity)).or_default();
            self.table.insert(&nic.identity, place);
            if nic.stands() {
                self.table.stand_in(&nic.identity, place);
            }
        }
        for (held, why) in withdrawn {
            self.withdraw(place, held.address, why);
        }
    }

    fn unregister(&mut self, now: Instant, nic: NicId) {
        let Some(place) = self.table.nic(nic) else { return };
        let Some(mut nic) = self.nics.get_mut(place as usize).and_then(Option::take) else { return };
        self.hold.clear(&mut nic.queue, &mut nic.counters, DropReason::GuestGone);
        while nic.give_back(|_, _| true).is_some() {}
        self.reassembly.end_all(&mut nic.parts);
        self.table.remove(&nic.identity, place);
        self.listen_to_routers(now, Lan::of(&nic.identity));
        self.timers.cancel(place);
        self.ready.retain(|p| *p != place);
    }

    fn set_mode(&mut self, now: Instant, id: NicId, epoch: Epoch, mode: Mode) {
        let Some(place) = self.table.nic(id) else { return };
        let Some(nic) = self.nics.get_mut(place as usize).and_then(Option::as_mut) else { return };
        if epoch < nic.epoch {
            return;
        }
        nic.watch = None;
        let same_epoch = epoch == nic.epoch;
        if !same_epoch {
            nic.epoch = epoch;
            nic.told = super::wake::Told::default();
            nic.spoof.listen(now);
            nic.barrier = false;
            nic.soliciting = false;
        }
        let passes = same_epoch && nic.mode == Mode::Pass && nic.queue.frames() == 0;
        if passes && mode == (Mode::Replay { released: true }) {
            // It settled before this was taken: there is nothing to begin anew.
            let overtaken = nic.delivery.overtaken;
            self.notices.push(Notice::Settled { nic: id, epoch, overtaken });
            return;
        }
        let before = core::mem::replace(&mut nic.mode, mode);
        self.hold.end_review(&mut nic.queue);
        if !matches!(mode, Mode::Answer | Mode::Hold { .. }) {
            self.give_back_addresses(place);
        }
        let Some(nic) = self.nics.get_mut(place as usize).and_then(Option::as_mut) else { return };
        nic.check_at = None;
        self.reassembly.end_all(&mut nic.parts);
        match mode {
            Mode::Pass => {
                self.table.stand_down(&nic.identity, place);
                // Nobody delivers it any more.
                self.hold.drop_waiting(&mut nic.queue, &mut nic.counters, DropReason::GuestGone);
            }
            _ => self.table.stand_in(&nic.identity, place),
        }
        let lan = Lan::of(&nic.identity);
        self.listen_to_routers(now, lan);
        let Some(nic) = self.nics.get_mut(place as usize).and_then(Option::as_mut) else { return };
        match mode {
            Mode::Answer => {
                if nic.told.forget(Once::GuestSpoke) {
                    let (lies, deaf) = nic.spoof.lied(now);
                    // An alarm that does not fill the log, however long it goes on.
                    if lies.is_power_of_two() {
                        let frames = nic.counters.own_source;
                        self.notices.push(Notice::Spoofed { nic: id, epoch, lies, frames, deaf });
                    }
                }
                nic.fresh = false;
                nic.presence.sleep(now, &mut self.rng, &nic.identity);
                nic.ports.sleep(now);
                if let Some(custody) = &mut nic.custody {
                    custody.sleep(now, &mut self.rng);
                }
                self.check_addresses(now, place);
                self.count_unremembered(id);
                let Some(nic) = self.nics.get_mut(place as usize).and_then(Option::as_mut) else { return };
                self.hold.review(&mut nic.queue);
                if let Some(at) = nic.spoof.due_at() {
                    self.timers.sooner(place, at);
                }
                self.review(now, place);
                self.speak(now, place);
            }
            Mode::Replay { .. } => {
                nic.wake();
                nic.ports.wake(now);
                nic.told.forget(Once::Drained);
                let continues = matches!(before, Mode::Replay { .. });
                nic.delivery.begin(now, continues);
                if !continues {
                    self.hold.order(&mut nic.queue, &mut self.scratch);
                }
                if (before, mode) == (Mode::Replay { released: false }, Mode::Replay { released: true }) {
                    nic.counters.overtaken += u64::from(nic.delivery.released(nic.queue.frames()));
                }
            }
            Mode::Pass | Mode::Fence { .. } => {
                nic.wake();
                nic.ports.wake(now);
            }
            // Silent for now; whether the guest runs is being asked.
            Mode::Hold { .. } => {}
        }
        if let Some(nic) = self.at(place) {
            let held = nic.queue.frames();
            self.notices.push(Notice::ModeSet { nic: id, epoch, mode, held });
        }
        if matches!(mode, Mode::Replay { .. }) {
            self.make_ready(place);
            self.check_end_of_replay(now, place);
        }
    }

    /// Goes on to classify held frames anew, in order, now that the guest is asleep; as far as the outbox
    /// takes the answers.
    pub(super) fn review(&mut self, now: Instant, place: Place) {
        let mut scratch = core::mem::take(&mut self.scratch);
        while let Some(held) = self.next_in_review(place) {
            self.hold.read(held, &mut scratch);
            let bytes = scratch.get(..held.len).unwrap_or_default();
            let received = Received { bytes, vlan: None, offload: held.offload };
            let verdict = self.reconsider(now, place, held, &received);
            let Some(nic) = self.nics.get_mut(place as usize).and_then(Option::as_mut) else { break };
            match verdict {
                Verdict::Hold | Verdict::HoldAndWake => {}
                Verdict::Drop(DropReason::OutputFull) => {
                    self.hold.review_again(&mut nic.queue, held);
                    self.timers.sooner(place, now);
                    break;
                }
                Verdict::Answer(_) | Verdict::Absorb | Verdict::Stub => {
                    self.hold.remove(held, &mut nic.queue, &mut nic.counters);
                    nic.counters.reclassified += 1;
                }
                Verdict::Drop(why) => {
                    self.hold.remove(held, &mut nic.queue, &mut nic.counters);
                    nic.counters.count_held_dropped(why);
                }
            }
        }
        self.scratch = scratch;
    }

    fn next_in_review(&mut self, place: Place) -> Option<HeldFrame> {
        let nic = self.nics.get_mut(place as usize)?.as_mut()?;
        self.hold.review_next(&mut nic.queue)
    }

    /// What becomes of a held frame while its guest is asleep.
    fn reconsider(
        &mut self,
        now: Instant,
        place: Place,
        held: HeldFrame,
        received: &Received<'_>,
    ) -> Verdict {
        let Ok(frame) = Frame::parse(received) else { return Verdict::Drop(DropReason::Malformed) };
        let packet = Packet::parse(&frame, received.offload);
        let view = View::new(received, &frame, &packet);
        let Some(nic) = self.at(place) else { return Verdict::Hold };
        let here = frame.tags.vid().unwrap_or(0) == nic.identity.vlan.unwrap_or(0);
        let reach = if held.flooded { Reach::Flooded } else { reach(here, frame.tags) };
        let heard = if reach == Reach::OtherVlan { Heard::NotMine } else { self.hear(now, place, view) };
        match heard {
            Heard::NotMine => {}
            Heard::Noted => return Verdict::Absorb,
            Heard::Owed(by) => return Verdict::Answer(by),
            Heard::TooMany => return Verdict::Hold,
            Heard::Wake(reason) => return self.ask_wake(place, reason),
        }
        let Some(nic) = self.nics.get(place as usize).and_then(Option::as_ref) else { return Verdict::Hold };
        let wanted = classify(&nic.identity, &nic.ports, reach, view, self.limits.mtu);
        match self.take_custody(now, place, reach, view, false, wanted) {
            Custodial::NotMine => {}
            Custodial::Done(verdict) => return verdict,
            Custodial::Keep { reason: None, .. } => return Verdict::Hold,
            Custodial::Keep { reason: Some(reason), .. } => return self.ask_wake(place, reason),
        }
        match wanted {
            decision if reach == Reach::Unicast && is_about_the_whole(decision, view) => {
                self.gather(now, place, view, decision, Some(held))
            }
            // Its identity changed meanwhile.
            Decision::Foreign | Decision::Absorb => Verdict::Absorb,
            Decision::Drop(why) => Verdict::Drop(why),
            Decision::Answer(Responder::Daytime) if self.time_of_day.is_none() => {
                asked_for_the_time(view).map_or(Verdict::Hold, |reason| self.ask_wake(place, reason))
            }
            Decision::Answer(by) => self.answer(now, place, by, view),
            Decision::Conflict { address, by } => self
                .defend(now, place, address, by)
                .unwrap_or_else(|| self.ask_wake(place, WakeReason::Conflict)),
            Decision::Hold(None) | Decision::Unknown => Verdict::Hold,
            Decision::Hold(Some(reason)) => self.ask_wake(place, reason),
        }
    }

    pub(super) fn ask_wake(&mut self, place: Place, reason: WakeReason) -> Verdict {
        if let Some(nic) = self.nics.get_mut(place as usize).and_then(Option::as_mut) {
            self.notices.wake(&mut nic.told, &nic.identity, nic.epoch, reason);
        }
        Verdict::HoldAndWake
    }

    fn ask_barrier(&mut self, now: Instant, id: NicId, epoch: Epoch) {
        let Some(place) = self.table.nic(id) else { return };
        let Some(nic) = self.nics.get_mut(place as usize).and_then(Option::as_mut) else { return };
        if epoch < nic.epoch || !matches!(nic.mode, Mode::Fence { .. }) {
            return;
        }
        if let Some(custody) = &mut nic.custody {
            custody.begin_solicit();
        }
        nic.soliciting = true;
        self.ask(now, place);
    }

    /// Asks the guest that settles about its connections, and when all were asked about the barrier's question:
    /// its answer then says that theirs are on their way.
    pub(super) fn ask(&mut self, now: Instant, place: Place) {
        let Some(nic) = self.nics.get_mut(place as usize).and_then(Option::as_mut) else { return };
        if !nic.soliciting || !matches!(nic.mode, Mode::Fence { .. }) {
            return;
        }
        if self.solicit(now, place) {
            return;
        }
        let Some(nic) = self.nics.get_mut(place as usize).and_then(Option::as_mut) else { return };
        let id = nic.identity.nic;
        let service = self.service_mac;
        let asked = self
            .outbox
            .push(Way::Inject, (place, id), QUESTION, |out| barrier::question(&nic.identity, service, out));
        match asked {
            Ok(asked) => {
                nic.soliciting = false;
                nic.barrier = asked.is_some();
            }
            Err(Full) => self.timers.sooner(place, now + ASKED_AGAIN),
        }
    }

    fn announce_all(&mut self, now: Instant, id: NicId) {
        let Some(place) = self.table.nic(id) else { return };
        for n in 0.. {
            let Some(nic) = self.at(place) else { return };
            let (Mode::Answer, Some(address)) = (nic.mode, nic.identity.addresses.get(n)) else { return };
            let address = address.address;
            if self.announce(now, place, address).is_err() {
                return;
            }
        }
    }

    pub(super) fn at(&mut self, place: Place) -> Option<&mut Nic> {
        self.nics.get_mut(place as usize)?.as_mut()
    }
}

/// A solicitation with two options, tags and headers.
const QUESTION: usize = 128;

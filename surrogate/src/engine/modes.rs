//! Commands of the control side: NICs come, go and change their mode.
//!
//! Each NIC has one mode at a time, in force from the moment the command is taken: what was written for
//! the network before and is still in the outbox is not sent once the guest may speak for itself. A
//! command of an earlier epoch is late and ignored.

use surrogate_wire::{Frame, Packet, Received};

use super::classify::{Decision, Reach, classify};
use super::contract::{Command, Mode, Notice, WakeReason};
use super::dispatch::reach;
use super::hold::HeldFrame;
use super::nic::Nic;
use super::outbox::Way;
use super::verdict::{DropReason, Verdict};
use super::view::View;
use super::wake::Once;
use super::{Engine, NicId};
use crate::guest::identity::{Epoch, NicIdentity};
use crate::guest::table::Place;
use crate::responder::barrier;
use crate::time::Instant;

impl Engine {
    pub(super) fn obey(&mut self, now: Instant, command: Command) {
        match command {
            Command::Register(identity) => self.register(*identity),
            Command::Unregister { nic } => self.unregister(nic),
            Command::SetMode { nic, epoch, mode } => self.set_mode(now, nic, epoch, mode),
            Command::Barrier { nic, epoch } => self.ask_barrier(nic, epoch),
            Command::Announce { nic } => self.announce_all(now, nic),
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
        self.ready.reserve(self.nics.len());
        let Some(slot) = self.nics.get_mut(place as usize) else { return };
        match slot {
            Some(nic) => {
                self.table.remove(&nic.identity, place);
                nic.learn(identity);
            }
            None => *slot = Some(Nic::new(identity)),
        }
        if let Some(nic) = slot {
            self.table.insert(&nic.identity, place);
            if nic.stands() {
                self.table.stand_in(&nic.identity, place);
            }
        }
    }

    fn unregister(&mut self, nic: NicId) {
        let Some(place) = self.table.nic(nic) else { return };
        let Some(mut nic) = self.nics.get_mut(place as usize).and_then(Option::take) else { return };
        self.hold.clear(&mut nic.queue, &mut nic.counters, DropReason::GuestGone);
        self.table.remove(&nic.identity, place);
        self.ready.retain(|p| *p != place);
    }

    fn set_mode(&mut self, now: Instant, id: NicId, epoch: Epoch, mode: Mode) {
        let Some(place) = self.table.nic(id) else { return };
        let Some(nic) = self.nics.get_mut(place as usize).and_then(Option::as_mut) else { return };
        if epoch < nic.epoch {
            return;
        }
        let same_epoch = epoch == nic.epoch;
        if !same_epoch {
            nic.epoch = epoch;
            nic.told = super::wake::Told::default();
            nic.spoof.listen(now);
            nic.barrier = false;
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
        match mode {
            Mode::Pass => {
                self.table.stand_down(&nic.identity, place);
                // Nobody delivers it any more.
                self.hold.drop_waiting(&mut nic.queue, &mut nic.counters, DropReason::GuestGone);
            }
            _ => self.table.stand_in(&nic.identity, place),
        }
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
                self.hold.review(&mut nic.queue);
                if let Some(at) = nic.spoof.due_at() {
                    self.due_at(at);
                }
                self.review(now, place);
            }
            Mode::Replay { .. } => {
                nic.told.forget(Once::Drained);
                nic.delivery.begin(now, matches!(before, Mode::Replay { .. }));
                if (before, mode) == (Mode::Replay { released: false }, Mode::Replay { released: true }) {
                    nic.counters.overtaken += u64::from(nic.delivery.released(nic.queue.frames()));
                }
            }
            Mode::Pass | Mode::Fence { .. } | Mode::Hold { .. } => {}
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
                    self.due_at(now);
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
        let Some(nic) = self.nics.get_mut(place as usize).and_then(Option::as_mut) else {
            return Verdict::Hold;
        };
        let here = frame.tags.vid().unwrap_or(0) == nic.identity.vlan.unwrap_or(0);
        let reach = if held.flooded { Reach::Flooded } else { reach(here, frame.tags) };
        match classify(&nic.identity, reach, view, self.limits.mtu) {
            // Its identity changed meanwhile.
            Decision::Foreign | Decision::Absorb => Verdict::Absorb,
            Decision::Drop(why) => Verdict::Drop(why),
            Decision::Answer(by) => self.answer(now, place, by, view),
            Decision::Conflict { address, by } => self
                .defend(now, place, address, by)
                .unwrap_or_else(|| self.ask_wake(place, WakeReason::Conflict)),
            Decision::Hold(None) => Verdict::Hold,
            Decision::Hold(Some(reason)) => self.ask_wake(place, reason),
        }
    }

    fn ask_wake(&mut self, place: Place, reason: WakeReason) -> Verdict {
        if let Some(nic) = self.nics.get_mut(place as usize).and_then(Option::as_mut) {
            self.notices.wake(&mut nic.told, &nic.identity, nic.epoch, reason);
        }
        Verdict::HoldAndWake
    }

    fn ask_barrier(&mut self, id: NicId, epoch: Epoch) {
        let Some(place) = self.table.nic(id) else { return };
        let Some(nic) = self.nics.get_mut(place as usize).and_then(Option::as_mut) else { return };
        if epoch < nic.epoch || !matches!(nic.mode, Mode::Fence { .. }) {
            return;
        }
        let service = self.service_mac;
        let asked = self
            .outbox
            .push(Way::Inject, (place, id), QUESTION, |out| barrier::question(&nic.identity, service, out));
        nic.barrier = matches!(asked, Ok(Some(())));
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

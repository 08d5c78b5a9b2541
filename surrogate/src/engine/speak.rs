//! A sleeper's presence protocols in the engine: they hear what is theirs before all else is asked, and speak when
//! it is their time.

use core::net::IpAddr;

use super::Engine;
use super::contract::{Mode, Notice};
use super::dispatch::ENVELOPE;
use super::nic::Ended;
use super::outbox::Way;
use super::view::View;
use super::wake::Once;
use crate::custody::Custody;
use crate::guest::table::Place;
use crate::responder::lease::Alarm;
use crate::responder::presence::{Heard, Presence};
use crate::time::{Duration, Instant};

impl Engine {
    /// What the presence protocols of a sleeper make of a frame. What they owe at once is said at once, and what
    /// the frame made them wait for has its timer.
    pub(super) fn hear(&mut self, now: Instant, place: Place, view: View<'_, '_>) -> Heard {
        let Some(nic) = self.nics.get_mut(place as usize).and_then(Option::as_mut) else {
            return Heard::NotMine;
        };
        let Ok(packet) = view.packet else { return Heard::NotMine };
        if nic.mode != Mode::Answer || view.frame.src == nic.identity.mac || !Presence::may_know(packet) {
            return Heard::NotMine;
        }
        let heard = nic.presence.hear(now, &mut self.rng, &nic.identity, view.frame, packet);
        self.speak(now, place);
        heard
    }

    /// Says what is due in a sleeper's name, as far as the outbox takes it, and sets its timer for the rest.
    pub(super) fn speak(&mut self, now: Instant, place: Place) {
        self.heed_alarms(now, place);
        for _ in 0..SAID_AT_ONCE {
            let Some(nic) = self.nics.get_mut(place as usize).and_then(Option::as_mut) else { return };
            let custody_due = nic.custody.as_deref().and_then(Custody::due);
            let due = [nic.presence.due(), custody_due].into_iter().flatten().min();
            let Some(due) = due.filter(|_| nic.mode == Mode::Answer) else { return };
            if due > now {
                return self.timers.sooner(place, due);
            }
            let (identity, presence, rng) = (&nic.identity, &mut nic.presence, &mut self.rng);
            let custody = nic.custody.as_deref_mut();
            let (way, whose) = (Way::Transmit(identity.port), (place, identity.nic));
            let said = self.outbox.push(way, whose, self.limits.mtu + ENVELOPE, |out| {
                presence
                    .speak(now, rng, identity, out)
                    .or_else(|| Some(custody?.speak(now, identity, out)?.into()))
            });
            match said {
                Ok(Some(by)) => {
                    nic.counters.count_spoken(by);
                    self.re_enter(now, place);
                }
                // It had nothing to say after all.
                Ok(None) => {}
                Err(_) => break,
            }
        }
        self.timers.sooner(place, now + AGAIN);
    }

    /// Does what is due beside frames: the guest is called, or an address is no longer answered for.
    fn heed_alarms(&mut self, now: Instant, place: Place) {
        while let Some(nic) = self.nics.get_mut(place as usize).and_then(Option::as_mut)
            && nic.mode == Mode::Answer
            && let Some(alarm) = nic.presence.alarm(now)
        {
            match alarm {
                Alarm::Wake(reason) => {
                    self.notices.wake(&mut nic.told, &nic.identity, nic.epoch, reason);
                }
                Alarm::Withdraw(address) => self.withdraw(place, address, Ended::Lease),
                Alarm::Renewed => {
                    let (nic, epoch) = (nic.identity.nic, nic.epoch);
                    self.notices.push(Notice::Renewed { nic, epoch });
                }
                Alarm::Changed(address) => {
                    if nic.told.first(Once::LeaseChanged) {
                        let (nic, epoch) = (nic.identity.nic, nic.epoch);
                        self.notices.push(Notice::LeaseChanged { nic, epoch, address });
                    }
                }
            }
        }
    }

    /// An address of a sleeper is its own no longer: until it has woken, nobody is answered who asks for it.
    pub(super) fn withdraw(&mut self, place: Place, address: IpAddr, why: Ended) {
        if let Some(nic) = self.nics.get_mut(place as usize).and_then(Option::as_mut)
            && nic.withdraw(address, why)
        {
            self.table.withdraw(&nic.identity, address, place);
        }
    }

    /// The guest speaks for itself, and so for all of its addresses.
    pub(super) fn give_back_addresses(&mut self, place: Place) {
        let Some(nic) = self.nics.get_mut(place as usize).and_then(Option::as_mut) else { return };
        while let Some((held, _)) = nic.give_back(|_, _| true) {
            self.table.give_back(&nic.identity, held.address, place);
        }
    }
}

/// Frames of one sleeper's own accord in a row: a table of records, say.
const SAID_AT_ONCE: usize = 64;
/// When the outbox is full it is asked again: the driver empties it in microseconds.
const AGAIN: Duration = Duration::from_millis(1);

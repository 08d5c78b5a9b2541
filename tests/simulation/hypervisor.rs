//! The hypervisor: what each guest's power really is, calls that take their time, and events about it.
//!
//! A call acts, takes effect and returns, each a while after the other; it may fail before or after its
//! effect, and it may hang at either place until trouble is over. Calls for one guest are served in turn,
//! also those of a daemon that died meanwhile. Besides, there are other people.

use std::collections::{BTreeMap, VecDeque};

use surrogate::guest::lifecycle::Action;
use surrogate::hypervisor::{Depth, PauseReason, Power};
use surrogate::time::{Duration, Instant};

use crate::bridge::{Port, Tap};
use crate::dice::Fault;
use crate::world::{Event, World};

/// Who did it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hand {
    /// A daemon that lives.
    Ours,
    /// Somebody else, or a call of a daemon that has died since.
    Other,
}

/// A guest as the hypervisor has it.
#[derive(Debug)]
pub struct Domain {
    pub power: Power,
    /// Whose doing it is that it runs, or that it does not.
    pub resumed_by: Hand,
    pub stopped_by: Hand,
    /// When it last was off or deleted: what was held for it then is nobody's.
    pub gone_at: Option<Instant>,
    /// It was restored and not resumed yet.
    restored: bool,
    /// It was saved by a daemon that died meanwhile.
    pub saved_late: bool,
    /// Somebody takes a snapshot of it.
    snapshot: bool,
    /// Calls in turn; the first one is served.
    calls: VecDeque<u64>,
    /// Events are told in order.
    told_until: Instant,
    /// Events that nobody was told yet.
    pub events_under_way: u32,
    /// Looks at it that were not answered yet.
    pub looks_under_way: u32,
    /// New ports that nobody was told of yet.
    pub ports_under_way: u32,
    devices: u32,
}

/// All calls under way.
#[derive(Debug, Default)]
pub struct Hypervisor {
    calls: BTreeMap<u64, Call>,
    next_call: u64,
    hung: Vec<u64>,
    /// The daemon's connection is up.
    pub connected: bool,
}

#[derive(Clone, Copy, Debug)]
struct Call {
    incarnation: u32,
    guest: usize,
    ticket: u64,
    action: Action,
    /// The power before a save began, and whose save it was then.
    before: Power,
    saved_by: Option<Hand>,
    result: Result<(), &'static str>,
    fails: Option<When>,
    hangs: Option<When>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum When {
    BeforeEffect,
    AfterEffect,
}

impl Domain {
    pub fn running() -> Self {
        Self {
            power: Power::Running,
            resumed_by: Hand::Other,
            stopped_by: Hand::Other,
            gone_at: None,
            restored: false,
            saved_late: false,
            snapshot: false,
            calls: VecDeque::new(),
            told_until: Instant::ZERO,
            events_under_way: 0,
            looks_under_way: 0,
            ports_under_way: 0,
            devices: 1,
        }
    }

    pub fn runs(&self) -> bool {
        self.power == Power::Running
    }
}

impl World {
    /// A call that changes the guest.
    pub fn call(&mut self, incarnation: u32, guest: usize, ticket: u64, action: Action) {
        let id = self.hypervisor.next_call;
        self.hypervisor.next_call += 1;
        let in_turn = self.guests[guest].domain.calls.front().copied();
        if let Some(other) = in_turn.and_then(|id| self.hypervisor.calls.get(&id))
            && other.incarnation == incarnation
        {
            self.ledger.fail(format!(
                "guest {guest}: {action:?} is asked while {:?} has not returned",
                other.action
            ));
        }
        let when = [When::BeforeEffect, When::AfterEffect];
        let [failing, _, hanging] = troubles(action);
        let fails = self.strikes(failing).then(|| self.dice.one_of(&when));
        let hangs = self.strikes(hanging).then(|| self.dice.one_of(&when));
        let before = self.guests[guest].domain.power;
        let call =
            Call { incarnation, guest, ticket, action, before, saved_by: None, result: Ok(()), fails, hangs };
        self.hypervisor.calls.insert(id, call);
        self.guests[guest].domain.calls.push_back(id);
        if in_turn.is_none() {
            self.begin(id);
        }
    }

    fn begin(&mut self, id: u64) {
        let wait = self.dice.micros(20, 2_000);
        self.later(wait, Event::CallActs(id));
    }

    pub fn call_acts(&mut self, id: u64) {
        let Some(call) = self.hypervisor.calls.get(&id).copied() else { return };
        let domain = &mut self.guests[call.guest].domain;
        let mut takes = self.dice.micros(200, 8_000);
        match call.action {
            Action::Sleep(Depth::Save) if domain.runs() || is_resumable(domain.power) => {
                takes = self.dice.micros(20_000, 400_000);
                let before = domain.power;
                let hand = self.hand_of(&call);
                let begun = self.hypervisor.calls.get_mut(&id).expect("it was there");
                begun.before = before;
                begun.saved_by = Some(hand);
                self.set_power(call.guest, Power::Paused(PauseReason::Busy), Hand::Ours);
            }
            Action::Restore if domain.power == Power::Saved => {
                takes = self.dice.micros(60_000, 600_000);
                self.ports_appear(call.guest);
            }
            _ => {}
        }
        let [_, slow, _] = troubles(call.action);
        if self.strikes(slow) {
            takes += self.dice.micros(100_000, 12_000_000);
        }
        if call.hangs == Some(When::BeforeEffect) && !self.calm {
            return self.hypervisor.hung.push(id);
        }
        self.later(takes, Event::CallEnds(id));
    }

    pub fn call_ends(&mut self, id: u64) {
        let Some(call) = self.hypervisor.calls.get(&id).copied() else { return };
        let hand = call.saved_by.unwrap_or_else(|| self.hand_of(&call));
        let result = self.take_effect(&call, hand);
        let call = self.hypervisor.calls.get_mut(&id).expect("it was there");
        call.result = if call.fails.is_some() { Err("made to fail") } else { result };
        let hangs = call.hangs == Some(When::AfterEffect) && !self.calm;
        if hangs {
            return self.hypervisor.hung.push(id);
        }
        let wait = self.dice.micros(20, 3_000);
        self.later(wait, Event::CallReturns(id));
    }

    fn hand_of(&self, call: &Call) -> Hand {
        if self.incarnation == call.incarnation { Hand::Ours } else { Hand::Other }
    }

    fn take_effect(&mut self, call: &Call, hand: Hand) -> Result<(), &'static str> {
        let guest = call.guest;
        let power = self.guests[guest].domain.power;
        let fails_before = call.fails == Some(When::BeforeEffect);
        match (call.action, power) {
            _ if self.guests[guest].domain.snapshot => return Err("a job is under way"),
            (Action::Sleep(Depth::Save), Power::Paused(PauseReason::Busy)) if fails_before => {
                self.set_power(guest, call.before, self.guests[guest].domain.resumed_by);
            }
            (Action::Restore, Power::Saved) if fails_before => self.ports_vanish(guest),
            _ if fails_before => {}
            (Action::Sleep(Depth::Pause), Power::Running) => {
                self.set_power(guest, Power::Paused(PauseReason::User), hand);
            }
            (Action::Sleep(Depth::Save), Power::Paused(PauseReason::Busy)) => {
                self.ports_vanish(guest);
                self.set_power(guest, Power::Saved, hand);
                self.guests[guest].domain.saved_late = call.incarnation != self.incarnation;
            }
            (Action::Restore, Power::Saved) => {
                self.guests[guest].domain.restored = true;
                let stopped_by = self.guests[guest].domain.stopped_by;
                self.set_power(guest, Power::Paused(PauseReason::Restored), stopped_by);
            }
            (Action::Restore, Power::Paused(_)) => {}
            (Action::Resume, Power::Running) if call.incarnation == self.incarnation => {
                if self.guests[guest].domain.resumed_by == Hand::Ours {
                    self.ledger.fail(format!("guest {guest}: we resume it, and it runs by our own doing"));
                }
                return Err("already running");
            }
            (Action::Resume, power) if is_resumable(power) || power == IO_ERROR => {
                self.set_power(guest, Power::Running, hand);
                if self.strikes(Fault::IoError) {
                    let wait = self.dice.micros(100, 20_000);
                    self.later(wait, Event::DiskFails(guest));
                }
            }
            _ => return Err("not possible in this state"),
        }
        Ok(())
    }

    pub fn call_returns(&mut self, id: u64) {
        let Some(call) = self.hypervisor.calls.remove(&id) else { return };
        let result = call.result.map(|()| None).map_err(str::to_owned);
        self.happens(Event::Done {
            incarnation: call.incarnation,
            guest: call.guest,
            ticket: call.ticket,
            result,
        });
        let calls = &mut self.guests[call.guest].domain.calls;
        calls.retain(|other| *other != id);
        if let Some(next) = calls.front().copied() {
            self.begin(next);
        }
    }

    /// Lets a call go on that hangs; all of them once there is no more trouble.
    pub fn loosen(&mut self, all: bool) {
        for id in std::mem::take(&mut self.hypervisor.hung) {
            if !all && self.dice.chance(800) {
                self.hypervisor.hung.push(id);
                continue;
            }
            let Some(call) = self.hypervisor.calls.get_mut(&id) else { continue };
            let hung = call.hangs.take();
            let wait = self.dice.micros(20, 5_000);
            self.later(
                wait,
                if hung == Some(When::BeforeEffect) { Event::CallEnds(id) } else { Event::CallReturns(id) },
            );
        }
    }

    /// A disk that is full stops a guest as soon as it writes.
    pub fn disk_fails(&mut self, guest: usize) {
        if self.guests[guest].domain.runs() {
            self.set_power(guest, IO_ERROR, Hand::Ours);
        }
    }

    /// Somebody at the hypervisor's own command line.
    pub fn stranger_acts(&mut self, guest: usize) {
        let power = self.guests[guest].domain.power;
        let dice = &mut self.dice;
        match power {
            Power::Running => match dice.below(12) {
                0..6 => self.set_power(guest, Power::Paused(PauseReason::User), Hand::Other),
                6 if !self.guests[guest].frozen => {
                    self.ports_vanish(guest);
                    self.set_power(guest, Power::Saved, Hand::Other);
                }
                7 => {
                    self.ports_vanish(guest);
                    self.set_power(guest, Power::Off, Hand::Other);
                }
                8 => self.set_power(guest, IO_ERROR, Hand::Other),
                _ => {
                    self.guests[guest].domain.snapshot = true;
                    self.set_power(guest, Power::Paused(PauseReason::Busy), Hand::Other);
                    let wait = self.dice.micros(1_000, 500_000);
                    self.later(wait, Event::JobEnds(guest));
                }
            },
            // A job is not interrupted.
            Power::Paused(PauseReason::Busy) => {}
            Power::Paused(_) if dice.chance(100) => {
                self.ports_vanish(guest);
                self.set_power(guest, Power::Off, Hand::Other);
            }
            Power::Paused(_) => self.set_power(guest, Power::Running, Hand::Other),
            Power::Saved if self.guests[guest].domain.calls.is_empty() => {
                if dice.chance(100) {
                    self.set_power(guest, Power::Gone, Hand::Other);
                } else {
                    self.ports_appear(guest);
                    self.guests[guest].domain.restored = true;
                    self.set_power(guest, Power::Running, Hand::Other);
                }
            }
            Power::Saved => {}
            Power::Off if dice.chance(200) => self.set_power(guest, Power::Gone, Hand::Other),
            Power::Off | Power::Gone => {
                self.ports_appear(guest);
                self.set_power(guest, Power::Running, Hand::Other);
            }
        }
    }

    pub fn job_ends(&mut self, guest: usize) {
        self.guests[guest].domain.snapshot = false;
        self.set_power(guest, Power::Running, Hand::Other);
    }

    /// Mends what only people can, so that it is up to us alone whether the guest comes up.
    pub fn mend(&mut self, guest: usize) {
        let domain = &self.guests[guest].domain;
        if !domain.calls.is_empty() {
            return;
        }
        match domain.power {
            Power::Off | Power::Gone => {
                self.ports_appear(guest);
                self.set_power(guest, Power::Running, Hand::Other);
            }
            Power::Paused(PauseReason::Busy | PauseReason::Failed | PauseReason::IoError) => {
                self.set_power(guest, Power::Running, Hand::Other);
            }
            _ => {}
        }
    }

    fn set_power(&mut self, guest: usize, power: Power, by: Hand) {
        let now = self.now;
        let domain = &mut self.guests[guest].domain;
        domain.power = power;
        match power {
            Power::Running => domain.resumed_by = by,
            _ => domain.stopped_by = by,
        }
        if matches!(power, Power::Off | Power::Gone) {
            domain.gone_at = Some(now);
        }
        let announces = power == Power::Running && std::mem::take(&mut domain.restored);
        self.say(|_| format!("guest {guest} is now {power:?}, by {by:?}"));
        if power == Power::Running {
            for nic in self.guests[guest].nics.clone() {
                if announces {
                    self.guest_announces(nic);
                }
                self.guest_has_frames(nic);
            }
        }
        self.tell(guest, power);
    }

    /// The event about it: in order as the hypervisor sends them, then perhaps late, perhaps again.
    fn tell(&mut self, guest: usize, power: Power) {
        if !self.hypervisor.connected {
            return;
        }
        let mut wait = self.dice.micros(50, 3_000);
        if self.strikes(Fault::EventLate) {
            wait += self.dice.micros(1_000, 3_000_000);
        }
        let at = (self.now + wait).max(self.guests[guest].domain.told_until);
        self.guests[guest].domain.told_until = at;
        let event = Event::Told { incarnation: self.incarnation, guest, power };
        if self.strikes(Fault::EventAgain) {
            let again = at + self.dice.micros(10, 2_000_000);
            self.guests[guest].domain.events_under_way += 1;
            self.at(again, event.clone());
        }
        self.guests[guest].domain.events_under_way += 1;
        self.at(at, event);
    }

    fn ports_vanish(&mut self, guest: usize) {
        for nic in self.guests[guest].nics.clone() {
            self.nics[nic].tap = None;
            self.bridge.remove_port(Port::Nic(nic));
        }
    }

    /// New devices under the old names.
    fn ports_appear(&mut self, guest: usize) {
        self.guests[guest].domain.devices += 1;
        let device = self.guests[guest].domain.devices;
        for nic in self.guests[guest].nics.clone() {
            self.nics[nic].tap = Some(Tap::new(device));
            self.guests[guest].domain.ports_under_way += 1;
            let wait = self.dice.micros(500, 15_000);
            self.later(wait, Event::PortAppeared { incarnation: self.incarnation, nic });
        }
    }

    /// How long until the hypervisor has looked, and then until its answer is there; `None`: no answer.
    pub fn look_takes(&mut self) -> Option<(Duration, Duration)> {
        if self.strikes(Fault::LookHangs) {
            return None;
        }
        let slow = self.strikes(Fault::LookIsSlow);
        let most = if slow { 500_000 } else { 3_000 };
        Some((self.dice.micros(50, most), self.dice.micros(50, most)))
    }
}

/// How a call can go wrong: it fails, is slow, hangs.
const fn troubles(action: Action) -> [Fault; 3] {
    match action {
        Action::Sleep(_) => [Fault::SleepFails, Fault::SleepIsSlow, Fault::SleepHangs],
        _ => [Fault::WakeFails, Fault::WakeIsSlow, Fault::WakeHangs],
    }
}

const fn is_resumable(power: Power) -> bool {
    matches!(power, Power::Paused(PauseReason::User | PauseReason::Restored))
}

const IO_ERROR: Power = Power::Paused(PauseReason::IoError);

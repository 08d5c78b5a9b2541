//! What the daemon changes on the bridge, request by request, and what it writes down before. Any request
//! may fail, before it has done something or after it has done half.

use surrogate::hypervisor::Power;

use crate::bridge::Port;
use crate::daemon::Record;
use crate::dice::Fault;
use crate::world::{Event, MAX_NICS, World};

/// What survives the daemon.
#[derive(Debug, Default)]
pub struct Journal {
    /// By guest.
    pub records: Vec<Option<Record>>,
    /// The device whose flooding is off, by NIC.
    floods: [Option<u32>; MAX_NICS],
    /// The device that is disabled, by NIC.
    disabled: [Option<u32>; MAX_NICS],
    /// NICs that are steered to us.
    steered: [bool; MAX_NICS],
}

/// A step of a guest's cycle, on each of its NICs in turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    Steer,
    TakeFloods,
    ReturnFloods,
    Disable,
    Enable,
    Release,
}

/// What goes on when everything of a guest was put back.
#[derive(Clone, Copy, Debug)]
pub enum Then {
    /// The order that asked for it.
    Done(u64),
    /// The cycle learns what the hypervisor first said of the guest.
    FirstWord(Power),
}

impl World {
    /// Does `step` for the guest's NIC number `at`, then for the next one, then tells.
    pub fn bridge_step(
        &mut self,
        incarnation: u32,
        guest: usize,
        ticket: Option<u64>,
        step: Step,
        at: usize,
    ) {
        let Some(nic) = self.guests[guest].nics.get(at).copied() else {
            return self.step_done(incarnation, guest, ticket, Ok(None));
        };
        // One that nobody waits for is not tried again; it only spares a restored port some noise.
        let fails = ticket.is_some() && self.strikes(Fault::StepFails);
        if fails && self.dice.chance(500) {
            return self.step_done(incarnation, guest, ticket, Err(format!("{step:?} made to fail")));
        }
        let result = self.apply(step, nic);
        self.say(|_| format!("bridge: {step:?} for NIC {nic}: {result:?}"));
        if let Err(why) = result {
            return self.step_done(incarnation, guest, ticket, Err(why.to_owned()));
        }
        if fails {
            return self.step_done(incarnation, guest, ticket, Err(format!("{step:?} done by half")));
        }
        let wait = self.dice.micros(10, 300);
        self.later(wait, Event::BridgeStep { incarnation, guest, ticket, step, at: at + 1 });
    }

    fn step_done(
        &mut self,
        incarnation: u32,
        guest: usize,
        ticket: Option<u64>,
        result: Result<Option<Power>, String>,
    ) {
        if let Some(ticket) = ticket {
            let wait = self.dice.micros(5, 200);
            self.later(wait, Event::Done { incarnation, guest, ticket, result });
        }
    }

    fn apply(&mut self, step: Step, nic: usize) -> Result<(), &'static str> {
        let mac = self.nics[nic].station.mac;
        let tap = self.nics[nic].tap.as_mut();
        match step {
            Step::Steer => {
                if self.bridge.ours.is_none() {
                    return Err("no surrogate port");
                }
                self.journal.steered[nic] = true;
                self.bridge.replace(mac, Port::Surrogate, true);
            }
            Step::TakeFloods => {
                // A saved guest has no port; one that others give it keeps the flags it comes with.
                self.journal.floods[nic] = Some(tap.as_ref().map_or(NO_DEVICE, |tap| tap.device));
                if let Some(tap) = tap {
                    tap.flood = false;
                }
            }
            Step::ReturnFloods => {
                let taken = self.journal.floods[nic].take();
                // Another device has flags of its own.
                if let Some(tap) = tap.filter(|tap| taken == Some(tap.device)) {
                    tap.flood = true;
                }
            }
            Step::Disable => {
                let tap = tap.ok_or("no port")?;
                self.journal.disabled[nic] = Some(tap.device);
                tap.enabled = false;
            }
            Step::Enable => {
                let tap = tap.ok_or("no port")?;
                let disabled = self.journal.disabled[nic].take();
                tap.enabled |= disabled == Some(tap.device);
                self.guest_has_frames(nic);
            }
            Step::Release => {
                if tap.is_none() {
                    return Err("no port");
                }
                // What came to us just before is overtaken by what goes to the guest's port just after.
                let flow = (!self.calm && self.dice.chance(50)).then(|| self.ledger.new_flow());
                if let Some(flow) = flow {
                    self.passes_by(nic, flow, 1);
                }
                self.bridge.replace(mac, Port::Nic(nic), false);
                self.journal.steered[nic] = false;
                if let Some(flow) = flow {
                    self.passes_by(nic, flow, 2);
                }
            }
        }
        Ok(())
    }

    /// Puts back everything recorded for a guest.
    pub fn reconcile(&mut self, incarnation: u32, guest: usize, then: Then) {
        self.say(|_| format!("bridge: everything of guest {guest} is put back"));
        for nic in self.guests[guest].nics.clone() {
            let mac = self.nics[nic].station.mac;
            let floods = self.journal.floods[nic].take();
            let disabled = self.journal.disabled[nic].take();
            let steered = std::mem::take(&mut self.journal.steered[nic]);
            match &mut self.nics[nic].tap {
                Some(tap) => {
                    tap.flood |= floods == Some(tap.device);
                    tap.enabled |= disabled == Some(tap.device);
                    if steered {
                        self.bridge.replace(mac, Port::Nic(nic), false);
                    }
                }
                None if steered => self.bridge.remove(mac, Port::Surrogate),
                None => {}
            }
            self.guest_has_frames(nic);
        }
        let wait = self.dice.micros(5, 200);
        self.later(
            wait,
            match then {
                Then::Done(ticket) => Event::Done { incarnation, guest, ticket, result: Ok(None) },
                Then::FirstWord(power) => Event::FirstWord { incarnation, guest, power },
            },
        );
    }

    /// Whether a port is flooded to that should not be: not one that others have put in the place of the one
    /// whose flooding we turned off.
    pub fn is_flooded(&self, nic: usize) -> bool {
        let taken = self.journal.floods[nic];
        self.nics[nic].tap.as_ref().is_some_and(|tap| tap.flood && taken.is_none_or(|at| at == tap.device))
    }

    /// Whether anything is recorded for a guest.
    pub fn has_changes(&self, guest: usize) -> bool {
        let Journal { floods, disabled, steered, .. } = &self.journal;
        self.guests[guest]
            .nics
            .iter()
            .any(|nic| floods[*nic].is_some() || disabled[*nic].is_some() || steered[*nic])
    }
}

/// Stands for a port that was not there.
const NO_DEVICE: u32 = 0;

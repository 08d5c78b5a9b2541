//! What a cycle is told: commands, frames, the hypervisor's word, lost ports, the time.

use super::contract::power_name;
use super::plan::Direction;
use super::{Action, CommandRefused, Intent, Lifecycle, Report, State, Unsure, WakeCause, WakePolicy};
use crate::engine::{Mode, WakeReason};
use crate::guest::identity::Epoch;
use crate::hypervisor::{Depth, Power};
use crate::policy::budget::HostBudget;
use crate::time::Instant;

impl Lifecycle {
    /// Takes up what was recorded before a restart: a guest that is found stopped counts as put to
    /// sleep by us if that was the intent, and is woken if that was.
    pub fn recall(&mut self, intent: Intent, depth: Depth) {
        self.slept_by_us = matches!(intent, Intent::Sleep | Intent::Wake);
        self.depth = depth;
        if intent == Intent::Wake {
            self.wanted = Some(WakeCause::Retry);
        }
    }

    /// Whether we can stand in for it: one that we cannot is left alone, whoever stops it.
    pub const fn set_fit(&mut self, fit: bool) {
        self.fit = fit;
    }

    /// Whether the guest's hypervisor can be asked for something. While it cannot, a sleeper is stood in
    /// for and not woken: a wake would begin with our silence and end nowhere. What was put off is done
    /// once it can.
    pub fn set_reachable(&mut self, now: Instant, reachable: bool, host: &mut HostBudget) {
        let returned = reachable && !self.reachable;
        self.reachable = reachable;
        if !returned {
            return;
        }
        self.try_at_once();
        match (self.state, self.wanted) {
            (State::Asleep, Some(cause)) => self.wake_for(now, cause, host),
            (State::Stranded, _) => self.retry_at = Some(now),
            _ => self.step(now, host),
        }
    }

    /// Puts the guest to sleep. Done when the state is `Asleep`.
    ///
    /// # Errors
    /// [`CommandRefused`]; then nothing was begun.
    pub fn sleep(&mut self, now: Instant, depth: Depth, host: &mut HostBudget) -> Result<(), CommandRefused> {
        match (self.state, self.facts.power) {
            _ if self.stuck.is_some() => Err(CommandRefused::Stuck),
            (State::Asleep, _) => Ok(()),
            (State::Awake, Power::Running) => {
                self.slept_by_us = true;
                self.depth = depth;
                self.stand_in(now, host);
                self.step(now, host);
                Ok(())
            }
            (State::Awake, power) => Err(CommandRefused::NotRunning(power_name(power))),
            (state, _) => Err(CommandRefused::Busy(state)),
        }
    }

    /// Wakes the guest, or aborts its falling asleep. Done when the state is `Awake`.
    ///
    /// # Errors
    /// [`CommandRefused`]; then nothing was begun.
    pub fn wake(&mut self, now: Instant, host: &mut HostBudget) -> Result<(), CommandRefused> {
        match self.state {
            _ if self.stuck.is_some() => Err(CommandRefused::Stuck),
            State::Awake => match self.facts.power {
                Power::Running => Ok(()),
                power => Err(CommandRefused::NotRunning(power_name(power))),
            },
            State::Waking | State::Replaying => {
                self.try_at_once();
                self.step(now, host);
                Ok(())
            }
            State::Settling => {
                self.wanted = Some(WakeCause::Command);
                self.try_at_once();
                self.step(now, host);
                Ok(())
            }
            State::Asleep | State::Stranded if !self.reachable => Err(CommandRefused::Unreachable),
            State::Asleep | State::Stranded => {
                self.try_at_once();
                self.attempts = 0;
                self.begin_wake(now, WakeCause::Command, host);
                Ok(())
            }
        }
    }

    /// Stops standing in for a guest that somebody else stopped; what is held for it is dropped.
    pub fn let_go(&mut self, now: Instant, host: &mut HostBudget) {
        if self.state != State::Awake {
            self.forget(now, host);
        }
    }

    /// A held frame is worth waking for. Ignored in another epoch.
    pub fn handle_frame(&mut self, now: Instant, epoch: Epoch, reason: WakeReason, host: &mut HostBudget) {
        if epoch != self.epoch {
            return;
        }
        match self.state {
            State::Settling | State::Asleep if !self.may_wake() => {
                self.reports.push_back(Report::WakeForbidden(reason));
            }
            // It could not be woken, and that is tried again in its own time, however many frames ask.
            State::Settling if self.facts.stranded => {}
            State::Settling => {
                self.wanted.get_or_insert(WakeCause::Frame(reason));
                self.step(now, host);
            }
            State::Asleep if self.wanted.is_none() => self.wake_for(now, WakeCause::Frame(reason), host),
            _ => {}
        }
    }

    /// A frame from the sleeper's own MAC came: it seems to run. The engine fell silent already; the
    /// hypervisor is asked, and if the guest is still stopped the engine may speak again.
    pub fn handle_guest_spoke(&mut self, now: Instant, epoch: Epoch, host: &mut HostBudget) {
        // One NIC may answer, and hear it, before the last one confirmed that it does; and all of them go on
        // in the epoch of the sleep while a wake restores the guest.
        let answers = self.facts.mode == Mode::Answer || self.is_pending(Action::Mode(Mode::Answer));
        if epoch == self.voice && answers {
            // Only the NIC that heard it fell silent: the others are told by the next step.
            self.redo_at = None;
            self.doubt(now, host);
        }
    }

    /// An event says that the guest's power is now this. Events may come late, so one that contradicts
    /// what we know only makes us fall silent and ask.
    pub fn handle_event(&mut self, now: Instant, power: Power, host: &mut HostBudget) {
        if self.hypervisor_call_pending() || self.is_pending(Action::Inspect) {
            self.hear(power);
        } else if power != self.facts.power {
            self.try_at_once();
            self.doubt(now, host);
        }
    }

    fn hear(&mut self, power: Power) {
        let saving = self.is_pending(Action::Sleep(Depth::Save));
        self.facts.heard.hear(power, saving);
    }

    /// The hypervisor was asked, and this is the guest's power.
    pub fn handle_inspected(&mut self, now: Instant, power: Power, host: &mut HostBudget) {
        if self.hypervisor_call_pending() {
            // What a call under way comes to is said by its completion.
            self.hear(power);
            return;
        }
        let before = self.facts.power;
        self.facts.power = power;
        if power != before {
            self.try_at_once();
        }
        // The answer may be older than what was heard since the question: ask again.
        self.facts.doubted = self.facts.heard.take_against(power);
        match self.state {
            _ if matches!(power, Power::Off | Power::Gone) && self.state != State::Awake => {
                self.forget(now, host);
            }
            // What was recorded still counts: we slept it, then died.
            State::Awake if self.facts.sleeps() && self.fit => self.stand_in(now, host),
            // And may have died while it was being saved.
            State::Awake if self.facts.busy() => self.facts.unsure = Unsure::default(),
            State::Awake => {
                self.facts.unsure = Unsure::default();
                self.slept_by_us = false;
                self.wanted = None;
            }
            State::Asleep | State::Stranded if self.facts.runs() => {
                self.begin_wake(now, WakeCause::Outside, host);
            }
            State::Settling if self.facts.runs() && before != Power::Running => {
                self.wanted = Some(WakeCause::Outside);
            }
            State::Stranded if self.facts.mode == Mode::Pass => self.stand_in_stranded(now, host),
            State::Replaying if !self.facts.runs() => self.stopped_again(now, host),
            _ => {}
        }
        self.step(now, host);
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, now: Instant, host: &mut HostBudget) {
        if let Some(pending) = self.pending.take_if(|p| p.deadline.is_some_and(|at| at <= now)) {
            self.overdue(now, pending.order, host);
        }
        if self.redo_at.take_if(|at| *at <= now).is_some() {
            self.step(now, host);
        }
        if self.retry_at.take_if(|at| *at <= now).is_some() {
            match (self.state, self.wanted) {
                (State::Asleep, Some(cause)) => self.wake_for(now, cause, host),
                (State::Stranded, _) if self.stuck.is_none() && self.reachable => {
                    self.begin_wake(now, WakeCause::Retry, host);
                }
                _ => {}
            }
        }
    }

    /// Our port on one of the guest's bridges vanished and is there again, without its entries and
    /// modes: stand in anew if we did.
    pub fn handle_port_lost(&mut self, now: Instant, host: &mut HostBudget) {
        // Nobody is left to say that it is done.
        self.pending.take_if(|p| matches!(p.order.action, Action::Mode(_) | Action::Watch | Action::Barrier));
        self.try_at_once();
        self.facts.steered = false;
        // A cycle that was on its way may have steered to the new port already.
        self.facts.unsure.steered = true;
        self.facts.mode = Mode::Pass;
        if matches!(self.state, State::Asleep | State::Stranded) && !self.facts.runs() {
            self.direction = Direction::StandIn { intent: self.sleep_intent() };
        }
        self.step(now, host);
    }

    /// The sleeper's own port, which we had disabled, was enabled: the kernel does that at any change of
    /// the link. Disable it again; in any other state it is meant to be enabled.
    pub fn handle_port_enabled(&mut self, now: Instant, host: &mut HostBudget) {
        let stands = match self.direction {
            Direction::Rest => self.facts.mode == Mode::Answer,
            Direction::StandIn { .. } => true,
            Direction::HandBack | Direction::Forget => false,
        };
        if stands && self.facts.port_disabled {
            self.facts.port_disabled = false;
            self.direction = Direction::StandIn { intent: self.sleep_intent() };
            self.step(now, host);
        }
    }

    fn may_wake(&self) -> bool {
        match self.policy.wake {
            WakePolicy::Always => true,
            WakePolicy::Managed => self.slept_by_us,
            WakePolicy::Never => false,
        }
    }
}

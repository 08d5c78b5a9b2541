//! Where a cycle turns: each change of direction or state, and what is forgotten and begun with it.

use super::contract::power_name;
use super::plan::Direction;
use super::{Action, BACK_OFF, Intent, Lifecycle, Report, State, WakeCause};
use crate::engine::Mode;
use crate::policy::budget::HostBudget;
use crate::time::Instant;

impl Lifecycle {
    /// Wakes within the budgets, or puts it off.
    pub(super) fn wake_for(&mut self, now: Instant, cause: WakeCause, host: &mut HostBudget) {
        if !self.reachable {
            if let (None, WakeCause::Frame(reason)) = (self.wanted, cause) {
                let why = format!("its hypervisor is not connected; it is woken when it is: {reason}");
                self.reports.push_back(Report::Failed(why));
            }
            self.wanted = Some(cause);
            return;
        }
        let granted = self.bucket.ready(now).and_then(|()| host.begin(now));
        match granted {
            Ok(()) => {
                // Cannot fail: `ready` said so at this very moment.
                let _ = self.bucket.take(now);
                self.counted_waking = true;
                self.begin_wake(now, cause, host);
            }
            Err(again) => {
                if let (None, WakeCause::Frame(reason)) = (self.wanted, cause) {
                    self.reports.push_back(Report::WakePutOff(reason));
                }
                self.wanted = Some(cause);
                self.retry_at = again;
            }
        }
    }

    pub(super) fn begin_wake(&mut self, now: Instant, cause: WakeCause, host: &mut HostBudget) {
        if !self.counted_waking {
            host.begin_commanded();
            self.counted_waking = true;
        }
        self.enter(now, State::Waking, host);
        self.hand_back(cause);
        self.step(now, host);
    }

    pub(super) fn hand_back(&mut self, cause: WakeCause) {
        self.facts.presume_changed(true);
        self.epoch = self.epoch.next();
        self.direction = Direction::HandBack;
        self.facts.intent = None;
        self.facts.call_failed = false;
        self.wanted = None;
        self.retry_at = None;
        self.redo_at = None;
        self.reports.push_back(Report::Waking(cause));
    }

    pub(super) fn stand_in(&mut self, now: Instant, host: &mut HostBudget) {
        self.facts.presume_changed(false);
        self.epoch = self.epoch.next();
        self.direction = Direction::StandIn { intent: self.sleep_intent() };
        self.facts.intent = None;
        self.facts.barrier_passed = false;
        self.facts.call_failed = false;
        self.failure = None;
        self.retry_at = None;
        self.enter(now, State::Settling, host);
    }

    /// Stands in for a guest that could not be woken; when that stands, it is tried again later.
    pub(super) fn stand_in_stranded(&mut self, now: Instant, host: &mut HostBudget) {
        self.facts.stranded = true;
        self.slept_by_us = true;
        self.stand_in(now, host);
        self.attempts = self.attempts.saturating_add(1);
    }

    pub(super) fn forget(&mut self, now: Instant, host: &mut HostBudget) {
        self.drop_pending_replay();
        self.wanted = None;
        self.retry_at = None;
        self.redo_at = None;
        self.slept_by_us = false;
        self.facts.intent = None;
        self.facts.presume_changed(true);
        self.epoch = self.epoch.next();
        self.direction = Direction::Forget;
        self.step(now, host);
    }

    /// It ran, and stopped while it was being given its frames.
    pub(super) fn stopped_again(&mut self, now: Instant, host: &mut HostBudget) {
        self.drop_pending_replay();
        let ours = self.stuck.is_some_and(|order| matches!(order.action, Action::Sleep(_)));
        if self.facts.sleeps() && !ours {
            // That was somebody's decision.
            self.slept_by_us = false;
            self.stand_in(now, host);
        } else {
            let why = format!("it stopped again as soon as it ran: {}", power_name(self.facts.power));
            self.reports.push_back(Report::Failed(why));
            self.stand_in_stranded(now, host);
        }
    }

    pub(super) fn doubt(&mut self, now: Instant, host: &mut HostBudget) {
        self.drop_pending_replay();
        self.facts.doubted = true;
        if self.direction == Direction::Rest && matches!(self.state, State::Asleep | State::Stranded) {
            self.direction = Direction::StandIn { intent: self.sleep_intent() };
        }
        self.step(now, host);
    }

    /// Breaks a sleep off.
    pub(super) fn turn(&mut self, now: Instant, host: &mut HostBudget) {
        let cause = self.wanted.unwrap_or(WakeCause::Retry);
        let why = match cause {
            WakeCause::Frame(reason) => format!("a frame worth waking for came: {reason}"),
            WakeCause::Command => "a wake was asked for".to_owned(),
            WakeCause::Outside => "somebody else resumed it".to_owned(),
            WakeCause::Retry => {
                self.failure.take().unwrap_or_else(|| "it could not be put to sleep".to_owned())
            }
        };
        if self.facts.runs() || cause != WakeCause::Retry {
            self.reports.push_back(Report::Aborted(why));
        }
        self.enter(now, if self.facts.runs() { State::Replaying } else { State::Waking }, host);
        self.hand_back(cause);
    }

    pub(super) fn arrive(&mut self, now: Instant, state: State, host: &mut HostBudget) {
        self.direction = Direction::Rest;
        // A wake that was put off is not forgotten because the sleeper was doubted meanwhile.
        if state != State::Asleep {
            self.wanted = None;
        }
        let state = if self.stuck.is_some() { State::Stranded } else { state };
        match state {
            State::Stranded => {
                let (first, longest) = BACK_OFF;
                let wait = first.saturating_mul(1 << self.attempts.saturating_sub(1).min(6)).min(longest);
                self.retry_at = Some(now + wait);
            }
            State::Awake => {
                self.slept_by_us = false;
                self.attempts = 0;
                self.facts.stranded = false;
            }
            _ => {}
        }
        self.enter(now, state, host);
    }

    pub(super) fn enter(&mut self, now: Instant, state: State, host: &mut HostBudget) {
        if self.state == state {
            return;
        }
        if self.counted_waking && !matches!(state, State::Waking | State::Replaying) {
            self.counted_waking = false;
            host.ended();
        }
        self.state = state;
        self.since = now;
        self.reports.push_back(Report::State(state));
    }

    /// A replay ends when the guest has taken everything; one that stopped takes nothing.
    fn drop_pending_replay(&mut self) {
        if let Some(pending) = self.pending
            && let Action::Mode(mode @ Mode::Replay { .. }) = pending.order.action
        {
            // Not everything was delivered, so should it run after all, that is still to be done.
            let undelivered = mode == Mode::Replay { released: false };
            self.facts.mode = if undelivered { Mode::Hold { flooded: false } } else { mode };
            self.pending = None;
        }
    }

    pub(super) const fn sleep_intent(&self) -> Intent {
        if self.slept_by_us { Intent::Sleep } else { Intent::StandIn }
    }
}

//! Where a cycle turns: each change of direction or state, and what is forgotten and begun with it.

use super::contract::power_name;
use super::orders::doubled;
use super::plan::Direction;
use super::{Action, Intent, Lifecycle, Report, SLEEP_BACK_OFF, State, WakeCause};
use crate::engine::Mode;
use crate::policy::budget::{HostBudget, Limit};
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
        match self.grant(now, host) {
            Ok(()) => self.begin_wake(now, cause, host),
            Err((limit, again)) => {
                if let (None, WakeCause::Frame(reason)) = (self.wanted, cause) {
                    self.reports.push_back(Report::WakePutOff(reason, limit));
                }
                self.wanted = Some(cause);
                self.retry_at = again;
            }
        }
    }

    /// Takes what a wake costs of both budgets, or nothing and says why and when to ask again.
    fn grant(&mut self, now: Instant, host: &mut HostBudget) -> Result<(), (Limit, Option<Instant>)> {
        self.bucket.ready(now).map_err(|again| (Limit::Guest, again))?;
        host.begin(now)?;
        // Cannot fail: `ready` said so at this very moment.
        let _ = self.bucket.take(now);
        self.counted_waking = true;
        Ok(())
    }

    /// Whether a sleep may be aborted here. That of a guest which runs always may: nothing was promised in
    /// its name yet. One that is stopped already is woken within the budgets, as any sleeper is.
    pub(super) fn may_abort(&mut self, now: Instant, host: &mut HostBudget) -> bool {
        let stopped = !self.facts.runs() && !self.facts.busy();
        let Some(WakeCause::Frame(reason)) = self.wanted.filter(|_| stopped && !self.put_off) else {
            return true;
        };
        if let Err((limit, _)) = self.grant(now, host) {
            self.reports.push_back(Report::WakePutOff(reason, limit));
            self.put_off = true;
        }
        !self.put_off
    }

    pub(super) fn begin_wake(&mut self, now: Instant, cause: WakeCause, host: &mut HostBudget) {
        self.count_waking(host);
        self.enter(now, State::Waking, host);
        self.hand_back(cause);
        self.step(now, host);
    }

    /// What nobody granted takes its place all the same.
    const fn count_waking(&mut self, host: &mut HostBudget) {
        if !self.counted_waking {
            host.begin_commanded();
            self.counted_waking = true;
        }
    }

    pub(super) fn hand_back(&mut self, cause: WakeCause) {
        self.facts.presume_changed(true);
        self.epoch = self.epoch.next();
        self.direction = Direction::HandBack;
        self.facts.intent = None;
        self.facts.call_failed = false;
        self.wanted = None;
        self.put_off = false;
        self.retry_at = None;
        self.redo_at = None;
        self.reports.push_back(Report::Waking(cause));
    }

    pub(super) fn stand_in(&mut self, now: Instant, host: &mut HostBudget) {
        self.facts.presume_changed(false);
        self.epoch = self.epoch.next();
        self.direction = Direction::StandIn { intent: self.sleep_intent() };
        self.facts.intent = None;
        self.facts.watched = false;
        self.facts.barrier_passed = false;
        self.facts.call_failed = false;
        self.failure = None;
        self.put_off = false;
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

    /// Aborts a sleep.
    pub(super) fn abort(&mut self, now: Instant, host: &mut HostBudget) {
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
        let state = if self.facts.runs() {
            self.count_aborted(now, cause);
            State::Replaying
        } else {
            self.count_waking(host);
            State::Waking
        };
        self.enter(now, state, host);
        self.hand_back(cause);
    }

    /// A sleep that came to nothing costs what a wake does, if there is something left of it, and the next one
    /// of the daemon's own accord comes ever later: who times frames well cannot bounce the guest.
    fn count_aborted(&mut self, now: Instant, cause: WakeCause) {
        match cause {
            WakeCause::Frame(_) => {
                let _ = self.bucket.take(now);
            }
            WakeCause::Retry => {}
            // People may do that as often as they like.
            WakeCause::Command | WakeCause::Outside => return,
        }
        let (first, longest) = SLEEP_BACK_OFF;
        self.broken_off = self.broken_off.saturating_add(1);
        self.sleep_after = Some(now + doubled(first, self.broken_off).min(longest));
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
                self.retry_at = Some(now + self.back_off(self.attempts));
            }
            State::Asleep => {
                self.broken_off = 0;
                self.sleep_after = None;
            }
            State::Awake => {
                self.slept_by_us = false;
                self.attempts = 0;
                self.facts.stranded = false;
            }
            _ => {}
        }
        self.enter(now, state, host);
        // What asked for it while it was stopped had to wait until here.
        if let (State::Asleep, true, Some(cause)) = (state, core::mem::take(&mut self.put_off), self.wanted) {
            self.wake_for(now, cause, host);
        }
    }

    pub(super) fn enter(&mut self, now: Instant, state: State, host: &mut HostBudget) {
        if self.state == state {
            return;
        }
        // The ceiling is for hypervisor calls, and the last one is over when the replay begins: a stranger who
        // floods the guest may keep that going for as long as he likes.
        if self.counted_waking && state != State::Waking {
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

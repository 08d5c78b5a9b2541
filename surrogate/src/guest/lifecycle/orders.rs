//! The one outstanding order: which comes next, by when it is due, and what it came to.

use super::plan::{self, Direction, Next};
use super::{
    Action, BACK_OFF, BARRIER_TIMEOUT, Heard, Lifecycle, Order, PAUSE_TIMEOUT, Pending, Report, SAVE_TIMEOUT,
    State, WATCH_TIMEOUT, WakeCause,
};
use crate::engine::Mode;
use crate::hypervisor::Depth;
use crate::policy::budget::HostBudget;
use crate::time::{Duration, Instant};

impl Lifecycle {
    /// Orders the next step, unless one is outstanding.
    pub(super) fn step(&mut self, now: Instant, host: &mut HostBudget) {
        // Nothing was begun with it, and what is to be done now need not wait for its end.
        if self.is_pending(Action::Watch) && self.next() != Next::Do(Action::Watch) {
            self.pending = None;
        }
        while self.pending.is_none() && self.redo_at.is_none_or(|at| at <= now) {
            self.redo_at = None;
            match self.next() {
                Next::Do(action) => {
                    if action == Action::Mode(Mode::Replay { released: false }) {
                        self.enter(now, State::Replaying, host);
                    }
                    self.order(now, action);
                }
                // And perhaps on: something may have been heard on the way.
                Next::Arrive(state) => self.arrive(now, state, host),
                Next::Abort if self.may_abort(now, host) => self.abort(now, host),
                Next::Abort => {}
                Next::StandInAgain => self.stand_in_stranded(now, host),
                Next::Wait => return,
            }
        }
    }

    fn next(&self) -> Next {
        plan::next(self.direction, &self.facts, self.wish(), self.depth, &self.policy)
    }

    /// What a sleep under way is aborted for. What a sleeper is to be woken for has to wait for its budget.
    fn wish(&self) -> Option<WakeCause> {
        let waits = |cause: &WakeCause| self.put_off && matches!(cause, WakeCause::Frame(_));
        self.wanted.filter(|cause| self.state != State::Asleep && !waits(cause))
    }

    fn order(&mut self, now: Instant, action: Action) {
        let order = Order { ticket: self.next_ticket, epoch: self.epoch, action };
        self.next_ticket += 1;
        if action == Action::Mode(Mode::Answer) {
            self.voice = self.epoch;
        }
        let deadline = match action {
            Action::Watch => Some(WATCH_TIMEOUT),
            Action::Barrier => Some(BARRIER_TIMEOUT),
            Action::Sleep(Depth::Pause) => Some(PAUSE_TIMEOUT),
            Action::Sleep(Depth::Save) => Some(SAVE_TIMEOUT),
            Action::Restore | Action::Resume | Action::Inspect => Some(self.policy.wake_timeout),
            _ => None,
        };
        self.pending = Some(Pending { order, deadline: deadline.map(|d| now + d) });
        self.orders.push_back(order);
    }

    /// What the order with `ticket` came to; `Err` with one line why it failed. What an
    /// [`Action::Inspect`] found is told by [`handle_inspected`](Self::handle_inspected) before.
    pub fn handle_done(
        &mut self,
        now: Instant,
        ticket: u64,
        result: Result<(), String>,
        host: &mut HostBudget,
    ) {
        if self.stuck.take_if(|order| order.ticket == ticket).is_some() {
            self.came_loose(now, host);
            return;
        }
        let Some(pending) = self.pending.take_if(|p| p.order.ticket == ticket) else { return };
        let action = pending.order.action;
        match result {
            Ok(()) => {
                self.failures = 0;
                self.done(action);
            }
            Err(why) => self.failed(now, action, &why, host),
        }
        self.step(now, host);
    }

    fn done(&mut self, action: Action) {
        self.facts.apply(action);
        if matches!(action, Action::Resume) {
            self.facts.stranded = false;
        }
        // A word that contradicts what the call came to was late, or came after it: ask.
        if is_hypervisor_call(action) && self.facts.heard.take_against(self.facts.power) {
            self.facts.doubted = true;
        }
        self.reports.push_back(Report::Done(action));
    }

    fn failed(&mut self, now: Instant, action: Action, why: &str, host: &mut HostBudget) {
        self.reports.push_back(Report::Failed(format!("{}: {why}", action.name())));
        self.facts.unsure_of(action);
        match action {
            Action::Sleep(_) | Action::Restore | Action::Resume => {
                self.facts.heard = Heard::Nothing;
                self.facts.call_failed = true;
                self.failure = Some(why.to_owned());
                self.facts.doubted = true;
            }
            // A sleep that cannot be fenced is not begun.
            Action::Record(_) | Action::Steer | Action::TakeFloods if self.aborts_a_sleep() => {
                self.facts.call_failed = true;
                self.failure = Some(why.to_owned());
            }
            // Who is to be woken is not first stood in for, if that fails.
            Action::Steer | Action::TakeFloods if self.wake_wins(now, host) => self.abort(now, host),
            // A wake does not wait for its record.
            Action::Record(_) | Action::Forget => self.facts.apply(action),
            // Asked again when there is somebody to ask; the long way is for a word that never comes.
            Action::Inspect if !self.reachable => self.redo_at = Some(now + BACK_OFF.1),
            _ => {
                self.failures = self.failures.saturating_add(1);
                self.redo_at = Some(now + self.back_off(self.failures));
            }
        }
    }

    /// How long to wait after the last of so many failures in a row. No frame that is held for the guest grows
    /// too old between two tries.
    pub(super) fn back_off(&self, failures: u32) -> Duration {
        let (first, longest) = BACK_OFF;
        let longest = longest.min(self.policy.hold_age / 2).max(first);
        doubled(first, failures).min(longest)
    }

    /// Something changed, so what failed may go well now.
    pub(super) const fn try_at_once(&mut self) {
        self.redo_at = None;
        self.failures = 0;
    }

    fn aborts_a_sleep(&self) -> bool {
        matches!(self.direction, Direction::StandIn { .. }) && self.facts.runs()
    }

    /// A guest that is stopped already is wanted awake, and may be.
    fn wake_wins(&mut self, now: Instant, host: &mut HostBudget) -> bool {
        let stands_in = matches!(self.direction, Direction::StandIn { .. });
        stands_in && self.wish().is_some() && self.stuck.is_none() && self.may_abort(now, host)
    }

    /// An order outlived its deadline. A watch or barrier counts as done. A hypervisor call may yet return,
    /// and until it does nobody knows what the guest will do: nothing more is asked of it.
    pub(super) fn overdue(&mut self, now: Instant, order: Order, host: &mut HostBudget) {
        if matches!(order.action, Action::Watch | Action::Barrier) {
            self.done(order.action);
            return self.step(now, host);
        }
        // A question that stays open hides no call that does.
        if order.action != Action::Inspect || self.stuck.is_none() {
            self.stuck = Some(order);
            self.facts.stuck = Some(order.action);
        }
        // It was heard in the meantime, and the engine is silent since.
        let heard = order.action == Action::Restore && self.facts.doubted;
        self.facts.doubted = self.facts.heard.take_against(self.facts.power);
        self.reports.push_back(Report::Failed(format!(
            "{}: the hypervisor call has not returned in time; nothing more is asked of this guest until it does",
            order.action.name()
        )));
        if matches!(order.action, Action::Sleep(_)) {
            // The last we know is that it runs: give it back what is its own.
            self.enter(now, State::Replaying, host);
            self.hand_back(WakeCause::Retry);
            self.step(now, host);
        } else {
            // Silent if it may run at any moment, still answering if it cannot.
            self.direction = Direction::Rest;
            self.enter(now, State::Stranded, host);
            if heard {
                return self.doubt(now, host);
            }
            self.step(now, host);
        }
    }

    /// The call that was stuck returned: ask what became of the guest, and go on from there.
    fn came_loose(&mut self, now: Instant, host: &mut HostBudget) {
        self.facts.stuck = None;
        self.facts.stranded = true;
        self.try_at_once();
        self.doubt(now, host);
    }

    pub(super) fn is_pending(&self, action: Action) -> bool {
        self.pending.is_some_and(|p| p.order.action == action)
    }

    pub(super) fn hypervisor_call_pending(&self) -> bool {
        self.pending.is_some_and(|p| is_hypervisor_call(p.order.action))
    }
}

/// `first` after one, twice as long after each more.
pub(super) const fn doubled(first: Duration, times: u32) -> Duration {
    let doublings = times.saturating_sub(1);
    first.saturating_mul(1 << if doublings < 16 { doublings } else { 16 })
}

const fn is_hypervisor_call(action: Action) -> bool {
    matches!(action, Action::Sleep(_) | Action::Restore | Action::Resume)
}

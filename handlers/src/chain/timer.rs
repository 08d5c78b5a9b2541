//! Time passes: when a chain wants to be asked again, and what it then decides.
//!
//! A handler without an event that awaits a time is asked once, when that time has come; so one that was due
//! before does not stand in the way of one that is due now, and being asked late changes nothing.

use core::time::Duration;

use super::{By, Chain, Decision, State, What};
use crate::Event;
use crate::condition::{Known, Range};
use crate::plan::Handler;
use crate::step::Step;

impl Chain {
    /// When to call [`handle_timeout`](Self::handle_timeout), never before the latest time that was told; `None`
    /// once it is over.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Duration> {
        let end = match self.state {
            State::Over(_) => return None,
            State::Pausing { until } => until.min(self.plan.max_wait),
            State::Waiting => self.plan.max_wait,
        };
        Some(self.next_due().map_or(end, |due| due.min(end)).max(self.now))
    }

    /// It is `now`, and this is `known`. Answers as [`handle_event`](Self::handle_event) does; cheap when
    /// nothing is due.
    pub fn handle_timeout(&mut self, now: Duration, known: &Known<'_>) -> &[Decision] {
        self.begin(now);
        let is_late = self.now >= self.plan.max_wait;
        let (state, attempt) = (self.state, self.attempt);
        self.pass_time(known);
        // What asked for another request ends this answer; what else is due comes with the next.
        if (self.state, self.attempt) == (state, attempt) {
            match state {
                State::Over(_) => {}
                State::Waiting if is_late => self.time_out(known),
                // The response of before was let go.
                State::Pausing { .. } if is_late => self.time_out(&Known::NOTHING),
                State::Pausing { until } if until <= self.now => {
                    self.new_attempt();
                    self.decide(By::Default, What::Send);
                }
                State::Waiting | State::Pausing { .. } => {}
            }
        }
        &self.decisions
    }

    /// Asks the handlers that awaited a time up to now, until one of them ends this state. In a pause nothing is
    /// known of the response that was let go, and who would ask again need not: the request is sent anyway.
    fn pass_time(&mut self, known: &Known<'_>) {
        let (state, attempt) = (self.state, self.attempt);
        let (until, known) = match state {
            State::Over(_) => return,
            State::Pausing { until } if self.now < self.plan.max_wait => (until, &Known::NOTHING),
            State::Pausing { .. } => (self.plan.max_wait, &Known::NOTHING),
            State::Waiting => (self.plan.max_wait, known),
        };
        let pauses = state != State::Waiting;
        while (self.state, self.attempt) == (state, attempt) {
            let Some(due) = self.next_due().filter(|due| *due <= self.now.min(until)) else { break };
            self.ticked = due;
            let heard = self.heard;
            let asked =
                |handler: &Handler| due_at(handler, heard) == Some(due) && !(pauses && asks_again(handler));
            if let Some(index) = self.own_match(None, known, due, asked) {
                // Only time has passed: no message ended, and none began.
                self.act(index, 0, Event::Timeout, known);
            }
        }
    }

    fn time_out(&mut self, known: &Known<'_>) {
        self.state = State::Waiting;
        self.ask(Event::Timeout, known);
        if self.outcome().is_none() {
            self.give_up();
        }
    }

    fn next_due(&self) -> Option<Duration> {
        let due = self.plan.handlers.iter().filter_map(|handler| due_at(handler, self.heard));
        due.filter(|due| *due > self.ticked).min()
    }
}

fn asks_again(handler: &Handler) -> bool {
    handler.then.iter().any(|step| matches!(step, Step::Retry(_) | Step::Follow))
}

/// When `handler` is to be asked for the time alone.
fn due_at(handler: &Handler, heard: Duration) -> Option<Duration> {
    if !handler.when.awaits_time() {
        return None;
    }
    let from = |range: Range| Duration::from_millis(range.at_least);
    let elapsed = handler.when.elapsed.map(from);
    elapsed.max(handler.when.silence.map(|range| heard.saturating_add(from(range))))
}

//! Does what a handler says, step by step.

use std::sync::Arc;

use super::{By, Chain, Decision, Outcome, Pending, State, What, bit, is_due};
use crate::Event;
use crate::condition::Known;
use crate::plan::Framing;
use crate::step::{Failure, Step, WakeAt};

impl Chain {
    /// Does what handler `index` says from step `from` on.
    pub(super) fn act(&mut self, index: usize, from: usize, event: Event, known: &Known<'_>) {
        let (plan, built_in) = (Arc::clone(&self.plan), Arc::clone(&self.built_in));
        let own = plan.handlers.len();
        let handler = plan.handlers.get(index).or_else(|| built_in.get(index.checked_sub(own)?));
        let Some(handler) = handler else { return };
        let by = self.by(index);
        let mut tells = from > 0 || !self.has_told(index);
        for (number, step) in handler.then.iter().enumerate().skip(from) {
            match step {
                Step::Ignore => self.decide(by.clone(), What::Ignore),
                Step::Discard => self.decide(by.clone(), What::Discard),
                Step::Buffer => self.decide(by.clone(), What::Buffer),
                Step::Wake(at) if self.is_due_at_once(*at, event, known) => {
                    self.end(by.clone(), What::Wake, Outcome::Woken);
                    // What stands behind a wake is told with it, once, whatever was told before it.
                    tells = true;
                }
                Step::Wake(at) => {
                    let after = number.saturating_add(1);
                    self.pending = Some(Pending { at: *at, handler: index, after });
                    return;
                }
                Step::Retry(backoff) => {
                    let until = self.budget.spend_retry(index, backoff, self.now, known);
                    self.state = State::Pausing { until };
                    self.pending = None;
                    self.decide(by.clone(), What::Retry { at: until });
                }
                Step::Follow => {
                    self.budget.spend_redirect();
                    self.pending = None;
                    self.new_attempt();
                    self.decide(by.clone(), What::Follow);
                }
                Step::Respond(answer) => self.decide(by.clone(), What::Respond(Arc::clone(answer))),
                Step::Fail(failure) => {
                    self.end(by.clone(), What::Fail(failure.clone()), Outcome::Failed);
                }
                Step::Close => self.end(by.clone(), What::Close, Outcome::Closed),
                Step::Alert(text) if tells => self.tell(index, by.clone(), What::Alert(Arc::clone(text))),
                Step::Log(text) if tells => self.tell(index, by.clone(), What::Log(Arc::clone(text))),
                Step::Alert(_) | Step::Log(_) => {}
            }
        }
    }

    /// The end of waiting that no plan can put off.
    pub(super) fn give_up(&mut self) {
        let status = (self.plan.framing == Framing::Http).then_some(504);
        let failure = Failure { status, reason: Arc::from("no response in time") };
        self.end(By::Default, What::Fail(failure), Outcome::Failed);
    }

    pub(super) fn end(&mut self, by: By, what: What, outcome: Outcome) {
        self.state = State::Over(outcome);
        self.decide(by, what);
    }

    fn tell(&mut self, index: usize, by: By, what: What) {
        if let Some(bit) = bit(index) {
            self.told |= bit;
        }
        self.decide(by, what);
    }

    pub(super) fn decide(&mut self, by: By, what: What) {
        self.decisions.push(Decision { by, what });
    }

    fn is_due_at_once(&self, at: WakeAt, event: Event, known: &Known<'_>) -> bool {
        self.nothing_follows(event) || at != WakeAt::FirstFrame && is_due(at, event, known)
    }
}

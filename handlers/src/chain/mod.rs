//! A plan at work on one connection: told what happens, it says what to do.
//!
//! ```text
//!            retry           its time
//!   Waiting ───────▶ Pausing ────────▶ Waiting (the next attempt)
//!      │ wake, fail, close: in a pause too, by a handler that awaits a time
//!      ▼
//!     Over      nothing is decided any more; what still comes is forwarded
//! ```
//!
//! Pure: time is an argument and counts from when the waiting began. Ask [`Chain::poll_timeout`] when to come
//! back, call [`Chain::handle_timeout`] then and before each event. Equal calls get equal decisions. What a peer
//! sends makes nothing here grow: each handler tells once per attempt, at most one wake is pending, and the plan
//! bounds repetitions, redirections, time and bytes.

mod act;
mod budget;
mod decision;
mod timer;

use core::time::Duration;
use std::sync::Arc;

pub use decision::{By, Decision, Outcome, What};

use crate::condition::{Known, Search, Times};
use crate::plan::{Framing, Handler, Plan, builtin};
use crate::step::{Step, WakeAt};
use crate::{Event, StatusClass};
use budget::Budget;

/// A plan at work.
#[derive(Clone, Debug)]
pub struct Chain {
    plan: Arc<Plan>,
    built_in: Arc<[Handler]>,
    state: State,
    /// The latest time that was told.
    now: Duration,
    /// When the peer last sent anything, or was last asked.
    heard: Duration,
    /// Up to when handlers that await a time were asked.
    ticked: Duration,
    /// Requests that were sent after the first.
    attempt: u32,
    budget: Budget,
    /// How far each own handler's text was searched for in this message.
    searches: Vec<Search>,
    /// The own handlers that told something in this attempt, a bit each.
    told: u64,
    pending: Option<Pending>,
    /// The guest sleeps on although it was to wake.
    withheld: bool,
    decisions: Vec<Decision>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Waiting,
    Pausing { until: Duration },
    Over(Outcome),
}

/// A wake that is not due yet, and the steps behind it.
#[derive(Clone, Copy, Debug)]
struct Pending {
    at: WakeAt,
    handler: usize,
    after: usize,
}

impl Chain {
    /// A chain that begins to wait at time zero.
    #[must_use]
    pub fn new(plan: Arc<Plan>) -> Self {
        let built_in: Arc<[Handler]> = builtin::handlers(&plan).into();
        let own = plan.handlers.len();
        Self {
            state: State::Waiting,
            now: Duration::ZERO,
            heard: Duration::ZERO,
            ticked: Duration::ZERO,
            attempt: 0,
            budget: Budget::new(own.saturating_add(built_in.len())),
            searches: vec![Search::default(); own],
            told: 0,
            pending: None,
            withheld: false,
            decisions: Vec::new(),
            plan,
            built_in,
        }
    }

    /// The plan.
    #[must_use]
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// How it ended; `None` while it goes on.
    #[must_use]
    pub fn outcome(&self) -> Option<Outcome> {
        match self.state {
            State::Over(outcome) => Some(outcome),
            State::Waiting | State::Pausing { .. } => None,
        }
    }

    /// `event` happened at `now`, and this is `known` then. Answers what to do, in this order; nothing: go on.
    ///
    /// While a repetition is awaited, and once it is over, events mean nothing; but after
    /// [`withhold`](Self::withhold) `max_bytes` still wakes.
    pub fn handle_event(&mut self, now: Duration, event: Event, known: &Known<'_>) -> &[Decision] {
        self.begin(now);
        if self.state == State::Waiting && !is_end_of_interim(event, known) {
            let attempt = self.attempt;
            self.ask(event, known);
            let same = self.state == State::Waiting && self.attempt == attempt;
            if same && known.stored >= self.plan.max_bytes {
                self.end(By::MaxBytes, What::Wake, Outcome::Woken);
            }
        } else if self.withheld && known.stored >= self.plan.max_bytes {
            self.withheld = false;
            self.decide(By::MaxBytes, What::Wake);
        }
        &self.decisions
    }

    /// The guest sleeps on although this chain was to wake it: its group waits for others. What comes is still
    /// kept, so `max_bytes` stays in force, and a wake by it the group must not put off.
    pub fn withhold(&mut self) {
        self.withheld = matches!(self.state, State::Over(Outcome::Woken | Outcome::Failed));
    }

    fn begin(&mut self, now: Duration) {
        self.decisions.clear();
        self.now = self.now.max(now);
    }

    fn ask(&mut self, event: Event, known: &Known<'_>) {
        if event == Event::Head {
            self.new_message();
        }
        if matches!(event, Event::Head | Event::Body | Event::End) {
            self.heard = self.now;
        }
        let (pending, attempt) = (self.pending, self.attempt);
        let own = self.own_match(Some(event), known, self.now, |_| true);
        if let Some(index) = own {
            self.act(index, 0, event, known);
        }
        if self.state == State::Waiting && self.attempt == attempt {
            // One that was put off just now is not due at the same event.
            match pending {
                Some(pending) if self.nothing_follows(event) || is_due(pending.at, event, known) => {
                    self.end(self.by(pending.handler), What::Wake, Outcome::Woken);
                    self.act(pending.handler, pending.after, event, known);
                }
                _ if own.is_some_and(|index| self.answers(index)) => {}
                _ if own.is_some_and(|index| self.decides(index)) => {
                    if self.nothing_follows(event) {
                        self.end(By::Default, What::Wake, Outcome::Woken);
                    }
                }
                _ => self.built_in_or_default(event, known),
            }
        }
        if event == Event::End {
            self.new_message();
        }
    }

    /// The first of the plan's handlers, among those that `asked` lets through, that can act at `at`.
    fn own_match(
        &mut self,
        event: Option<Event>,
        known: &Known<'_>,
        at: Duration,
        asked: impl Fn(&Handler) -> bool,
    ) -> Option<usize> {
        let plan = Arc::clone(&self.plan);
        let times = Times { elapsed: at, silence: at.saturating_sub(self.heard) };
        let mut searches = self.searches.iter_mut();
        plan.handlers.iter().enumerate().find_map(|(index, handler)| {
            let search = searches.next()?;
            let acts = asked(handler)
                && handler.when.holds(event, known, times, search)
                && self.budget.allows(index, handler, self.now, &plan, known);
            acts.then_some(index)
        })
    }

    fn built_in_or_default(&mut self, event: Event, known: &Known<'_>) {
        let times = Times { elapsed: self.now, silence: Duration::ZERO };
        let own = self.plan.handlers.len();
        let matched = self.built_in.iter().enumerate().find_map(|(index, handler)| {
            let index = own.saturating_add(index);
            let acts = handler.when.holds(Some(event), known, times, &mut Search::default())
                && self.budget.allows(index, handler, self.now, &self.plan, known);
            acts.then_some(index)
        });
        match matched {
            Some(index) => self.act(index, 0, event, known),
            None if self.default_wakes(event) => self.end(By::Default, What::Wake, Outcome::Woken),
            None => {}
        }
    }

    /// Without any handler: wake and forward, as soon as it is clear what came.
    fn default_wakes(&self, event: Event) -> bool {
        match (self.plan.framing, event) {
            (Framing::Http, Event::Head) => true,
            // How the peer's bytes are cut decides nothing.
            (Framing::Raw, Event::Body) => self.pending.is_none(),
            (_, Event::Head | Event::Body) => false,
            (_, Event::End | Event::Closed | Event::Timeout | Event::Error) => true,
        }
    }

    fn new_message(&mut self) {
        self.searches.fill(Search::default());
    }

    fn new_attempt(&mut self) {
        self.new_message();
        self.attempt = self.attempt.saturating_add(1);
        self.state = State::Waiting;
        self.heard = self.now;
        self.told = 0;
    }

    fn by(&self, index: usize) -> By {
        let own = self.plan.handlers.len();
        let built_in = index.checked_sub(own).and_then(|index| self.built_in.get(index));
        match built_in {
            Some(handler) => By::BuiltIn(handler.name.clone().unwrap_or_default()),
            None => By::Handler(index),
        }
    }

    /// Whether own handler `index` says what becomes of the message, and does not only tell.
    fn decides(&self, index: usize) -> bool {
        let handler = self.plan.handlers.get(index);
        handler.is_some_and(|handler| handler.then.iter().any(|step| !step.action().only_tells()))
    }

    /// Whether own handler `index` answers in the guest's place, so that another request may follow.
    fn answers(&self, index: usize) -> bool {
        let handler = self.plan.handlers.get(index);
        handler.is_some_and(|handler| handler.then.iter().any(|step| matches!(step, Step::Respond(_))))
    }

    fn has_told(&self, index: usize) -> bool {
        bit(index).is_some_and(|bit| self.told & bit != 0)
    }

    fn nothing_follows(&self, event: Event) -> bool {
        match event {
            Event::End => self.plan.framing == Framing::Http,
            Event::Closed | Event::Error => true,
            Event::Head | Event::Body | Event::Timeout => false,
        }
    }
}

/// An interim response (RFC 9110 15.2) has no end of its own: the final one follows.
fn is_end_of_interim(event: Event, known: &Known<'_>) -> bool {
    let class = known.status.and_then(StatusClass::of);
    event == Event::End && class.is_some_and(|class| !class.is_final())
}

/// Whether a wake that was put off is due at `event`.
fn is_due(at: WakeAt, event: Event, known: &Known<'_>) -> bool {
    match at {
        WakeAt::Now => true,
        WakeAt::End => event == Event::End,
        WakeAt::Bytes(bytes) => event == Event::End || known.bytes >= bytes,
        WakeAt::FirstFrame => matches!(event, Event::Head | Event::Body | Event::End),
    }
}

/// The bit of an own handler, of which a plan has 64 at most.
fn bit(index: usize) -> Option<u64> {
    u32::try_from(index).ok().and_then(|index| 1_u64.checked_shl(index))
}

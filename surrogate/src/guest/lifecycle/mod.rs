//! A guest's sleep cycle: one state machine per guest, with an epoch.
//!
//! ```text
//!           sleep asked              stopped                frame worth waking for
//!  Awake ───────────────▶ Settling ─────────▶ Asleep ───────────────────────────▶ Waking
//!    ▲                       │ real traffic       ▲        wake failed, retry        │ running
//!    │                       ▼ came: abort        └──────────── Stranded ◀───────────┤
//!    └──────────────────── Replaying ◀────────────────────────────────────────────────┘
//!         last held frame delivered, released
//! ```
//!
//! Two directions, *standing in* (Settling) and *handing back* (Waking, Replaying), and a few facts
//! ([`Facts`]) about what is done already: which mode the engine has, whether the guest's MAC is steered
//! to us, whether flooding to its port is off, what the hypervisor says. [`plan`] derives the next step
//! from direction and facts, so that a cycle which began in the middle (a guest that somebody else
//! suspended, a restarted daemon, an aborted sleep) takes the same steps in the same order.
//!
//! At most one [`Action`] is outstanding. Each carries a ticket, and what it came to is reported with
//! that ticket; anything late or repeated is ignored by it. Pure: actions are performed by
//! `daemon::orders`, time is an argument.

mod facts;
mod plan;
#[cfg(test)]
mod tests;

use core::time::Duration;
use std::collections::VecDeque;

pub use facts::{Facts, Unsure};

use self::plan::{Direction, Next};
use crate::engine::{Mode, WakeReason};
use crate::guest::identity::Epoch;
use crate::hypervisor::{Depth, PauseReason, Power};
use crate::policy::budget::{Bucket, HostBudget, WakeBudget};
use crate::time::Instant;

/// Where a guest stands in its sleep cycle.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum State {
    /// It speaks for itself (or is shut off: see the hypervisor's word).
    Awake,
    /// It is being fenced and put to sleep.
    Settling,
    /// We stand in.
    Asleep,
    /// It is being brought back.
    Waking,
    /// It runs and is given what was held.
    Replaying,
    /// It could not be brought back; we go on standing in and try again.
    Stranded,
}

impl State {
    /// As `surrogate status` prints it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Awake => "awake",
            Self::Settling => "settling",
            Self::Asleep => "asleep",
            Self::Waking => "waking",
            Self::Replaying => "replaying",
            Self::Stranded => "stranded",
        }
    }
}

/// Policy `wake`: whom traffic may wake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WakePolicy {
    /// Only guests that Surrogate put to sleep.
    Managed,
    /// Also guests that somebody else suspended.
    Always,
    /// None; only commands wake.
    Never,
}

/// What an operator decided for one guest's cycle.
#[derive(Clone, Copy, Debug)]
pub struct CyclePolicy {
    /// Whom traffic may wake.
    pub wake: WakePolicy,
    /// How often traffic may.
    pub budget: WakeBudget,
    /// How long one hypervisor call of a wake may take.
    pub wake_timeout: Duration,
    /// A sleeping guest's network stack stays awake, so its port sleeps too (frozen namespaces).
    pub port_sleeps: bool,
}

/// Why a wake began, or a sleep was broken off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WakeCause {
    /// A held frame.
    Frame(WakeReason),
    /// An operator, or a stop of the daemon.
    Command,
    /// Somebody else resumed it, or it was seen to speak.
    Outside,
    /// Another try after a failed wake, or one that a restart cut short.
    Retry,
}

/// One step to be performed, with the ticket to report it by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Order {
    /// Unique among this guest's orders.
    pub ticket: u64,
    /// The guest's epoch.
    pub epoch: Epoch,
    /// What to do.
    pub action: Action,
}

/// What the executor can be asked to do. All are for every NIC of the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Store the intent, `slept by us` and the epoch, before anything is done.
    Record(Intent),
    /// Set the engine's mode. Done when it is in force; for `Replay { released: false }` when all is
    /// delivered; for `Replay { released: true }` when the engine has settled in `Pass`.
    Mode(Mode),
    /// Point the forwarding entries at our ports.
    Steer,
    /// Turn flooding to the guest's ports off, take its group entries over.
    TakeFloods,
    /// Ask the guest for an answer through its own port; it may never come.
    Barrier,
    /// Stop the guest.
    Sleep(Depth),
    /// Disable the guest's port, or enable it again.
    Port {
        /// Enabled or not.
        enabled: bool,
    },
    /// Bring a saved guest into memory, paused.
    Restore,
    /// Put flooding and group entries back.
    ReturnFloods,
    /// Let the guest run.
    Resume,
    /// Ask the hypervisor what the guest's power is; told by [`Lifecycle::handle_inspected`] first.
    Inspect,
    /// Point the forwarding entries back at the guest's own ports.
    Release,
    /// The guest is gone: drop what is held, take our entries away.
    Forget,
}

/// What is stored about a guest's cycle, to go on from after a restart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Intent {
    /// It is, or is on its way to be, awake.
    Awake,
    /// It is, or is to be, put to sleep this deep by us.
    Sleep,
    /// It is to be woken.
    Wake,
    /// Somebody else put it to sleep; we only stand in.
    StandIn,
}

/// What the cycle has to tell: `surrogate events`, logs, and whoever waits for a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Report {
    /// The state changed.
    State(State),
    /// A step was done, with how many frames were held or delivered where that is known.
    Done(Action),
    /// A wake began.
    Waking(WakeCause),
    /// A sleep was broken off, one line why.
    Aborted(String),
    /// Something failed, one line.
    Failed(String),
    /// A frame asked for a wake that policy forbids.
    WakeForbidden(WakeReason),
    /// A frame asked for a wake that the budget puts off.
    WakePutOff(WakeReason),
}

/// Why a command is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CommandRefused {
    /// The guest is not running, so it cannot be put to sleep.
    #[error("it is not running ({0})")]
    NotRunning(&'static str),
    /// Another transition is under way.
    #[error("it is {}; try again when that is over", .0.name())]
    Busy(State),
    /// A hypervisor call of it has not returned.
    #[error("an earlier hypervisor call has not returned; nothing can be asked of it until then")]
    Stuck,
    /// The hypervisor is not connected.
    #[error("its hypervisor is not connected; it is stood in for until it is")]
    Unreachable,
}

/// One guest's cycle. See the [module](self).
#[derive(Clone, Debug)]
pub struct Lifecycle {
    policy: CyclePolicy,
    state: State,
    epoch: Epoch,
    facts: Facts,
    direction: Direction,
    pending: Option<Pending>,
    /// A hypervisor call that outlived its deadline, and may yet return.
    stuck: Option<Order>,
    orders: VecDeque<Order>,
    reports: VecDeque<Report>,
    next_ticket: u64,
    depth: Depth,
    slept_by_us: bool,
    /// Whether we can stand in for it at all.
    fit: bool,
    /// Its hypervisor can be asked for something.
    reachable: bool,
    bucket: Bucket,
    counted_waking: bool,
    /// Settling: hand back at the next clean moment. Asleep: a wake that is put off.
    wanted: Option<WakeCause>,
    /// When to try a wake again that was put off or failed.
    retry_at: Option<Instant>,
    /// When to try a step again that failed and may go well next time.
    redo_at: Option<Instant>,
    attempts: u32,
    since: Instant,
}

#[derive(Clone, Copy, Debug)]
struct Pending {
    order: Order,
    deadline: Option<Instant>,
}

/// How long the barrier may take before the guest's port counts as drained.
pub const BARRIER_TIMEOUT: Duration = Duration::from_millis(200);
/// How long a pause may take.
pub const PAUSE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a save to disk may take.
pub const SAVE_TIMEOUT: Duration = Duration::from_secs(300);
/// First and longest time between two tries.
const BACK_OFF: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));
/// How long to wait before a failed step is tried again.
const REDO: Duration = Duration::from_secs(1);

impl Lifecycle {
    /// A guest that is awake as far as we know; `epoch` is the last one recorded.
    ///
    /// Tell it the hypervisor's word next, by [`handle_inspected`](Self::handle_inspected); unless the
    /// guest sleeps, put back before what an earlier daemon left on its bridges.
    #[must_use]
    pub fn new(policy: CyclePolicy, epoch: Epoch, now: Instant) -> Self {
        Self {
            policy,
            state: State::Awake,
            epoch,
            facts: Facts::unknown(policy.port_sleeps),
            direction: Direction::Rest,
            pending: None,
            stuck: None,
            orders: VecDeque::new(),
            reports: VecDeque::new(),
            next_ticket: 1,
            depth: Depth::Pause,
            slept_by_us: false,
            fit: true,
            reachable: true,
            bucket: Bucket::full(policy.budget, now),
            counted_waking: false,
            wanted: None,
            retry_at: None,
            redo_at: None,
            attempts: 0,
            since: now,
        }
    }

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
        self.redo_at = None;
        match (self.state, self.wanted) {
            (State::Asleep, Some(cause)) => self.wake_for(now, cause, host),
            (State::Stranded, _) => self.retry_at = Some(now),
            _ => self.step(now, host),
        }
    }

    /// Whether it is.
    #[must_use]
    pub const fn is_reachable(&self) -> bool {
        self.reachable
    }

    /// Where it stands.
    #[must_use]
    pub const fn state(&self) -> State {
        self.state
    }

    /// Since when.
    #[must_use]
    pub const fn since(&self) -> Instant {
        self.since
    }

    /// Its transition counter.
    #[must_use]
    pub const fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// What is known and done.
    #[must_use]
    pub const fn facts(&self) -> &Facts {
        &self.facts
    }

    /// Whether Surrogate put it to sleep.
    #[must_use]
    pub const fn slept_by_us(&self) -> bool {
        self.slept_by_us
    }

    /// How deep it sleeps, or last slept.
    #[must_use]
    pub const fn depth(&self) -> Depth {
        self.depth
    }

    /// The next order to perform. At most one is outstanding.
    pub fn poll_order(&mut self) -> Option<Order> {
        self.orders.pop_front()
    }

    /// The next thing to tell.
    pub fn poll_report(&mut self) -> Option<Report> {
        self.reports.pop_front()
    }

    /// When to call [`handle_timeout`](Self::handle_timeout) next, if ever.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        let deadline = self.pending.and_then(|p| p.deadline);
        [deadline, self.retry_at, self.redo_at].into_iter().flatten().min()
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

    /// Wakes the guest, or breaks its falling asleep off. Done when the state is `Awake`.
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
            State::Waking | State::Replaying => Ok(()),
            State::Settling => {
                self.wanted = Some(WakeCause::Command);
                self.step(now, host);
                Ok(())
            }
            State::Asleep | State::Stranded if !self.reachable => Err(CommandRefused::Unreachable),
            State::Asleep | State::Stranded => {
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
        if epoch == self.epoch && matches!(self.state, State::Asleep | State::Stranded) {
            // Only the NIC that heard it fell silent: the others are told by the next step.
            self.doubt(now, host);
        }
    }

    /// An event says that the guest's power is now this. Events may come late, so one that contradicts
    /// what we know only makes us fall silent and ask.
    pub fn handle_event(&mut self, now: Instant, power: Power, host: &mut HostBudget) {
        if self.hypervisor_call_pending() || self.is_pending(Action::Inspect) {
            self.facts.heard = Some(power);
        } else if power != self.facts.power {
            self.doubt(now, host);
        }
    }

    /// The hypervisor was asked, and this is the guest's power.
    pub fn handle_inspected(&mut self, now: Instant, power: Power, host: &mut HostBudget) {
        if self.hypervisor_call_pending() {
            // What a call under way comes to is said by its completion.
            self.facts.heard = Some(power);
            return;
        }
        let before = self.facts.power;
        self.facts.power = power;
        // The answer may be older than what was heard since the question: ask again.
        self.facts.doubted = self.facts.heard.take().is_some_and(|heard| heard != power);
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
            Ok(()) => self.done(action),
            Err(why) => self.failed(now, action, &why),
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
        self.pending.take_if(|p| matches!(p.order.action, Action::Mode(_) | Action::Barrier));
        self.facts.steered = false;
        self.facts.unsure.steered = false;
        self.facts.mode = Mode::Pass;
        if matches!(self.state, State::Asleep | State::Stranded) && !self.facts.runs() {
            self.direction = Direction::StandIn { intent: self.sleep_intent() };
        }
        self.step(now, host);
    }

    /// The sleeper's own port, which we had disabled, was enabled: the kernel does that at any change of
    /// the link. Disable it again; in any other state it is meant to be enabled.
    pub fn handle_port_enabled(&mut self, now: Instant, host: &mut HostBudget) {
        let stands = matches!(self.state, State::Asleep | State::Stranded);
        if stands && self.direction == Direction::Rest && self.facts.mode == Mode::Answer {
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

    const fn sleep_intent(&self) -> Intent {
        if self.slept_by_us { Intent::Sleep } else { Intent::StandIn }
    }

    /// Wakes within the budgets, or puts it off.
    fn wake_for(&mut self, now: Instant, cause: WakeCause, host: &mut HostBudget) {
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

    fn begin_wake(&mut self, now: Instant, cause: WakeCause, host: &mut HostBudget) {
        if !self.counted_waking {
            host.begin_commanded();
            self.counted_waking = true;
        }
        self.enter(now, State::Waking, host);
        self.hand_back(cause);
        self.step(now, host);
    }

    fn hand_back(&mut self, cause: WakeCause) {
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

    fn stand_in(&mut self, now: Instant, host: &mut HostBudget) {
        self.facts.presume_changed(false);
        self.epoch = self.epoch.next();
        self.direction = Direction::StandIn { intent: self.sleep_intent() };
        self.facts.intent = None;
        self.facts.barrier_passed = false;
        self.facts.call_failed = false;
        self.retry_at = None;
        self.enter(now, State::Settling, host);
    }

    /// Stands in for a guest that could not be woken; when that stands, it is tried again later.
    fn stand_in_stranded(&mut self, now: Instant, host: &mut HostBudget) {
        self.facts.stranded = true;
        self.slept_by_us = true;
        self.stand_in(now, host);
        self.attempts = self.attempts.saturating_add(1);
    }

    fn forget(&mut self, now: Instant, host: &mut HostBudget) {
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
    fn stopped_again(&mut self, now: Instant, host: &mut HostBudget) {
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

    fn doubt(&mut self, now: Instant, host: &mut HostBudget) {
        self.drop_pending_replay();
        self.facts.doubted = true;
        if self.direction == Direction::Rest && matches!(self.state, State::Asleep | State::Stranded) {
            self.direction = Direction::StandIn { intent: self.sleep_intent() };
        }
        self.step(now, host);
    }

    /// Orders the next step, unless one is outstanding.
    fn step(&mut self, now: Instant, host: &mut HostBudget) {
        while self.pending.is_none() && self.redo_at.is_none_or(|at| at <= now) {
            self.redo_at = None;
            // What a sleeper is to be woken for has to wait for its budget; only a sleep under way is broken off.
            let wanted = self.wanted.filter(|_| self.state != State::Asleep);
            match plan::next(self.direction, &self.facts, wanted, self.depth, &self.policy) {
                Next::Do(action) => {
                    if action == Action::Mode(Mode::Replay { released: false }) {
                        self.enter(now, State::Replaying, host);
                    }
                    self.order(now, action);
                }
                // And perhaps on: something may have been heard on the way.
                Next::Arrive(state) => self.arrive(now, state, host),
                Next::Turn => self.turn(now, host),
                Next::StandInAgain => self.stand_in_stranded(now, host),
                Next::Wait => return,
            }
        }
    }

    /// Breaks a sleep off.
    fn turn(&mut self, now: Instant, host: &mut HostBudget) {
        let cause = self.wanted.unwrap_or(WakeCause::Retry);
        let why = match cause {
            WakeCause::Frame(reason) => format!("a frame worth waking for came: {reason}"),
            WakeCause::Command => "a wake was asked for".to_owned(),
            WakeCause::Outside => "somebody else resumed it".to_owned(),
            WakeCause::Retry => "it could not be put to sleep".to_owned(),
        };
        if self.facts.runs() || cause != WakeCause::Retry {
            self.reports.push_back(Report::Aborted(why));
        }
        self.enter(now, if self.facts.runs() { State::Replaying } else { State::Waking }, host);
        self.hand_back(cause);
    }

    fn arrive(&mut self, now: Instant, state: State, host: &mut HostBudget) {
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

    fn enter(&mut self, now: Instant, state: State, host: &mut HostBudget) {
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

    fn done(&mut self, action: Action) {
        self.facts.apply(action);
        if matches!(action, Action::Resume) {
            self.facts.stranded = false;
        }
        // A word that contradicts what the call came to was late, or came after it: ask.
        if is_hypervisor_call(action) && self.facts.heard.take().is_some_and(|p| p != self.facts.power) {
            self.facts.doubted = true;
        }
        self.reports.push_back(Report::Done(action));
    }

    fn failed(&mut self, now: Instant, action: Action, why: &str) {
        self.reports.push_back(Report::Failed(format!("{}: {why}", action.name())));
        self.facts.unsure_of(action);
        match action {
            Action::Sleep(_) | Action::Restore | Action::Resume => {
                self.facts.heard = None;
                self.facts.call_failed = true;
                self.facts.doubted = true;
            }
            // A sleep that cannot be fenced is not begun.
            Action::Record(_) | Action::Steer | Action::TakeFloods if self.breaks_a_sleep() => {
                self.facts.call_failed = true;
            }
            // A wake does not wait for its record.
            Action::Record(_) | Action::Forget => self.facts.apply(action),
            // Asked again when there is somebody to ask; the long way is for a word that never comes.
            Action::Inspect if !self.reachable => self.redo_at = Some(now + BACK_OFF.1),
            _ => self.redo_at = Some(now + REDO),
        }
    }

    fn breaks_a_sleep(&self) -> bool {
        matches!(self.direction, Direction::StandIn { .. }) && self.facts.runs()
    }

    /// An order outlived its deadline. A barrier counts as passed. A hypervisor call may yet return,
    /// and until it does nobody knows what the guest will do: nothing more is asked of it.
    fn overdue(&mut self, now: Instant, order: Order, host: &mut HostBudget) {
        if order.action == Action::Barrier {
            self.done(Action::Barrier);
            return self.step(now, host);
        }
        // A question that stays open hides no call that does.
        if order.action != Action::Inspect || self.stuck.is_none() {
            self.stuck = Some(order);
            self.facts.stuck = Some(order.action);
        }
        self.facts.doubted = self.facts.heard.take().is_some_and(|heard| heard != self.facts.power);
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
            self.step(now, host);
        }
    }

    /// The call that was stuck returned: ask what became of the guest, and go on from there.
    fn came_loose(&mut self, now: Instant, host: &mut HostBudget) {
        self.facts.stuck = None;
        self.facts.stranded = true;
        self.doubt(now, host);
    }

    fn order(&mut self, now: Instant, action: Action) {
        let order = Order { ticket: self.next_ticket, epoch: self.epoch, action };
        self.next_ticket += 1;
        let deadline = match action {
            Action::Barrier => Some(BARRIER_TIMEOUT),
            Action::Sleep(Depth::Pause) => Some(PAUSE_TIMEOUT),
            Action::Sleep(Depth::Save) => Some(SAVE_TIMEOUT),
            Action::Restore | Action::Resume | Action::Inspect => Some(self.policy.wake_timeout),
            _ => None,
        };
        self.pending = Some(Pending { order, deadline: deadline.map(|d| now + d) });
        self.orders.push_back(order);
    }

    fn is_pending(&self, action: Action) -> bool {
        self.pending.is_some_and(|p| p.order.action == action)
    }

    fn hypervisor_call_pending(&self) -> bool {
        self.pending.is_some_and(|p| is_hypervisor_call(p.order.action))
    }
}

const fn is_hypervisor_call(action: Action) -> bool {
    matches!(action, Action::Sleep(_) | Action::Restore | Action::Resume)
}

impl Action {
    /// As people read it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Record(_) => "recording the intent",
            Self::Mode(_) => "setting the mode",
            Self::Steer => "steering",
            Self::TakeFloods => "turning flooding off",
            Self::Barrier => "draining its port",
            Self::Sleep(Depth::Pause) => "suspend",
            Self::Sleep(Depth::Save) => "save",
            Self::Port { enabled: false } => "disabling its port",
            Self::Port { enabled: true } => "enabling its port",
            Self::Restore => "restore",
            Self::ReturnFloods => "turning flooding on",
            Self::Resume => "resume",
            Self::Inspect => "asking the hypervisor",
            Self::Release => "release",
            Self::Forget => "forgetting the guest",
        }
    }
}

const fn power_name(power: Power) -> &'static str {
    match power {
        Power::Running => "running",
        Power::Paused(PauseReason::User) => "paused",
        Power::Paused(PauseReason::Restored) => "restored and paused",
        Power::Paused(PauseReason::IoError) => "paused by an I/O error",
        Power::Paused(PauseReason::Busy) => "paused for a job of the hypervisor",
        Power::Paused(PauseReason::Failed) => "paused after a crash",
        Power::Saved => "saved",
        Power::Off => "shut off",
        Power::Gone => "unknown to its hypervisor",
    }
}

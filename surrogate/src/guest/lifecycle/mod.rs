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
//!
//! - `contract`: what goes in and comes out
//! - `inputs`: what each command, frame, event or timeout means in each state
//! - `transitions`: the changes of direction and state
//! - `plan`, `facts`: the next step, and what it is derived from
//! - `orders`: the step that is outstanding, and what it came to

mod contract;
mod facts;
mod inputs;
mod orders;
mod plan;
#[cfg(test)]
mod tests;
mod transitions;

use core::time::Duration;
use std::collections::VecDeque;

pub use contract::{
    Action, CommandRefused, CyclePolicy, Intent, Order, Report, State, WakeCause, WakePolicy,
};
pub use facts::{Facts, Heard, Unsure};

use self::plan::Direction;
use crate::guest::identity::Epoch;
use crate::hypervisor::Depth;
use crate::policy::budget::Bucket;
use crate::time::Instant;

/// How long a guest that is to sleep is watched at most: a handshake that its peer does not go on with takes more than
/// a minute, and others may begin.
pub const WATCH_TIMEOUT: Duration = Duration::from_secs(3);
/// How long the barrier may take before the guest's port counts as drained. A guest on a busy host takes some hundred
/// milliseconds; what it has not said by then of its connections is not known.
pub const BARRIER_TIMEOUT: Duration = Duration::from_secs(1);
/// How long a pause may take.
pub const PAUSE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a save to disk may take.
pub const SAVE_TIMEOUT: Duration = Duration::from_secs(300);
/// First and longest time between two tries.
const BACK_OFF: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));
/// First and longest time between two sleeps of the daemon's own accord that come to nothing.
const SLEEP_BACK_OFF: (Duration, Duration) = (Duration::from_secs(10), Duration::from_secs(3600));

/// One guest's cycle. See the [module](self).
#[derive(Clone, Debug)]
pub struct Lifecycle {
    policy: CyclePolicy,
    state: State,
    epoch: Epoch,
    /// The epoch in which the engine was last told to answer: what it hears while it does is of that one.
    voice: Epoch,
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
    /// Why the step failed that aborts a sleep, told with it.
    failure: Option<String>,
    /// Settling: the frame that asks for it has to wait for its budget, as the guest is stopped already.
    put_off: bool,
    /// When to try a wake again that was put off or failed.
    retry_at: Option<Instant>,
    /// Wakes that failed in a row.
    attempts: u32,
    /// When to try a step again that failed and may go well next time.
    redo_at: Option<Instant>,
    /// Steps that failed in a row.
    failures: u32,
    /// No sleep of the daemon's own accord is begun before.
    sleep_after: Option<Instant>,
    /// Sleeps in a row that came to nothing.
    broken_off: u32,
    since: Instant,
}

#[derive(Clone, Copy, Debug)]
struct Pending {
    order: Order,
    deadline: Option<Instant>,
}

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
            voice: epoch,
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
            failure: None,
            put_off: false,
            retry_at: None,
            attempts: 0,
            redo_at: None,
            failures: 0,
            sleep_after: None,
            broken_off: 0,
            since: now,
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

    /// Whether its own ports are disabled while it sleeps.
    #[must_use]
    pub const fn port_sleeps(&self) -> bool {
        self.policy.port_sleeps
    }

    /// Until when the daemon leaves it awake of its own accord, because its last sleeps came to nothing. A
    /// command is not bound by it.
    #[must_use]
    pub fn left_awake_until(&self, now: Instant) -> Option<Instant> {
        self.sleep_after.filter(|at| *at > now)
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
}

//! What goes into a sleep cycle and what comes out of it: states, policy, orders, intents, reports.

use core::time::Duration;

use crate::engine::{Mode, WakeReason};
use crate::guest::identity::Epoch;
use crate::hypervisor::{Depth, PauseReason, Power};
use crate::policy::budget::{Limit, WakeBudget};

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
    /// How long a frame is held for the guest: tries to wake it are never further apart than half of that.
    pub hold_age: Duration,
    /// A sleeping guest's network stack stays awake, so its port sleeps too (frozen namespaces).
    pub port_sleeps: bool,
}

/// Why a wake began, or a sleep was aborted.
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
    /// Watch the guest until it can be asked about its connections. It may go on for too long.
    Watch,
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
    /// Ask the hypervisor what the guest's power is; told first by
    /// [`handle_inspected`](super::Lifecycle::handle_inspected).
    Inspect,
    /// Point the forwarding entries back at the guest's own ports.
    Release,
    /// The guest is gone: drop what is held, take our entries away.
    Forget,
}

impl Action {
    /// As people read it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Record(_) => "recording the intent",
            Self::Mode(_) => "setting the mode",
            Self::Watch => "watching its connections",
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
    /// A sleep was aborted, one line why.
    Aborted(String),
    /// Something failed, one line.
    Failed(String),
    /// A frame asked for a wake that policy forbids.
    WakeForbidden(WakeReason),
    /// A frame asked for a wake that this limit puts off.
    WakePutOff(WakeReason, Limit),
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

pub(super) const fn power_name(power: Power) -> &'static str {
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

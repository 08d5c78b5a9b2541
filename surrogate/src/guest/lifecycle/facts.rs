//! What is known of a guest and what has been done for it, as the planner sees it.

use super::{Action, Intent};
use crate::engine::Mode;
use crate::hypervisor::{Depth, PauseReason, Power};

/// Facts about one guest. Each changes only by a completed [`Action`] or by the hypervisor's word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Facts {
    /// The hypervisor's last word that we trust.
    pub power: Power,
    /// The engine's mode, on every NIC.
    pub mode: Mode,
    /// The forwarding entries point at our ports.
    pub steered: bool,
    /// Flooding to the guest's ports is off and its groups are ours.
    pub floods_taken: bool,
    /// The guest's own ports are disabled.
    pub port_disabled: bool,
    /// Which of these three may as well be otherwise.
    pub unsure: Unsure,
    /// It was watched since it is to sleep.
    pub watched: bool,
    /// Its port was drained since it was fenced.
    pub barrier_passed: bool,
    /// What is stored for this transition.
    pub intent: Option<Intent>,
    /// Something contradicts `power`: ask before going on.
    pub doubted: bool,
    /// A call of ours that outlived its deadline and may yet return, whatever it does then.
    pub stuck: Option<Action>,
    /// What was heard while a call or question of ours was under way.
    pub heard: Heard,
    /// The hypervisor call of this transition failed.
    pub call_failed: bool,
    /// Standing in is to end in `Stranded`.
    pub stranded: bool,
}

/// Changes on the bridge that may be in place or not: a step that failed may be done by half (for one NIC of
/// several, the flags and not the groups), and what an earlier daemon changed is known to nobody.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Unsure {
    /// Of the forwarding entries.
    pub steered: bool,
    /// Of flooding and groups.
    pub floods: bool,
    /// Of the state of the guest's own ports.
    pub port: bool,
}

/// Words about a guest's power that came in while a call or question of ours was under way. Events and answers
/// overtake each other, so the last word is not the newest: two that differ tell only that it must be asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Heard {
    /// None.
    #[default]
    Nothing,
    /// One, perhaps several times.
    Word(Power),
    /// Several that contradict each other.
    Contradictory,
}

impl Heard {
    /// Adds a word. A save begins with a pause for its job, so while one of ours is under way (`saving`) what
    /// follows that pause does not contradict it.
    pub(super) fn hear(&mut self, power: Power, saving: bool) {
        *self = match *self {
            Self::Nothing => Self::Word(power),
            Self::Word(before) if before == power => Self::Word(power),
            Self::Word(Power::Paused(PauseReason::Busy)) if saving => Self::Word(power),
            Self::Word(_) | Self::Contradictory => Self::Contradictory,
        };
    }

    /// Forgets it. Says whether it contradicted `power`.
    pub(super) fn take_against(&mut self, power: Power) -> bool {
        match core::mem::take(self) {
            Self::Nothing => false,
            Self::Word(heard) => heard != power,
            Self::Contradictory => true,
        }
    }
}

impl Default for Facts {
    fn default() -> Self {
        Self {
            power: Power::Off,
            mode: Mode::Pass,
            steered: false,
            floods_taken: false,
            port_disabled: false,
            unsure: Unsure::default(),
            watched: false,
            barrier_passed: false,
            intent: None,
            doubted: false,
            stuck: None,
            heard: Heard::Nothing,
            call_failed: false,
            stranded: false,
        }
    }
}

impl Facts {
    /// Whether it executes, as far as we know.
    #[must_use]
    pub fn runs(&self) -> bool {
        self.power == Power::Running
    }

    /// Whether its sleep is one that we stand in for: stopped by somebody, not for a job or an error.
    #[must_use]
    pub const fn sleeps(&self) -> bool {
        matches!(self.power, Power::Saved | Power::Paused(PauseReason::User | PauseReason::Restored))
    }

    /// Whether it is stopped for a reason that ends by itself or that only a person can mend; such a
    /// guest is neither stopped nor resumed by us.
    #[must_use]
    pub const fn busy(&self) -> bool {
        matches!(self.power, Power::Paused(PauseReason::Busy | PauseReason::Failed))
    }

    /// Whether it may run at any moment, by our own doing.
    #[must_use]
    pub fn may_run(&self) -> bool {
        self.stuck == Some(Action::Resume)
    }

    /// Of a guest of which nothing is known yet.
    pub(super) fn unknown(port_sleeps: bool) -> Self {
        Self { unsure: Unsure { steered: true, floods: true, port: port_sleeps }, ..Self::default() }
    }

    /// `action` failed.
    pub(super) const fn unsure_of(&mut self, action: Action) {
        match action {
            Action::Steer | Action::Release => self.unsure.steered = true,
            Action::TakeFloods | Action::ReturnFloods => self.unsure.floods = true,
            Action::Port { .. } => self.unsure.port = true,
            _ => {}
        }
    }

    /// Before a new direction: what may be in place or not counts as what makes the new direction do its
    /// part. Each step may be repeated.
    pub(super) const fn presume_changed(&mut self, changed: bool) {
        if self.unsure.steered {
            self.steered = changed;
        }
        if self.unsure.floods {
            self.floods_taken = changed;
        }
        if self.unsure.port {
            self.port_disabled = changed;
        }
    }

    /// Takes over what a completed action means.
    pub(super) const fn apply(&mut self, action: Action) {
        match action {
            Action::Record(intent) => self.intent = Some(intent),
            Action::Mode(Mode::Replay { released: true }) => self.mode = Mode::Pass,
            Action::Mode(mode) => self.mode = mode,
            Action::Steer | Action::Release => {
                self.steered = matches!(action, Action::Steer);
                self.unsure.steered = false;
            }
            Action::TakeFloods | Action::ReturnFloods => {
                self.floods_taken = matches!(action, Action::TakeFloods);
                self.unsure.floods = false;
            }
            Action::Watch => self.watched = true,
            Action::Barrier => self.barrier_passed = true,
            Action::Sleep(Depth::Pause) => self.power = Power::Paused(PauseReason::User),
            Action::Sleep(Depth::Save) => self.power = Power::Saved,
            Action::Port { enabled } => {
                self.port_disabled = !enabled;
                self.unsure.port = false;
            }
            Action::Restore => self.power = Power::Paused(PauseReason::Restored),
            Action::Resume => self.power = Power::Running,
            // What was found is told apart.
            Action::Inspect => {}
            Action::Forget => {
                self.mode = Mode::Pass;
                self.steered = false;
                self.floods_taken = false;
                self.port_disabled = false;
                self.unsure = Unsure { steered: false, floods: false, port: false };
            }
        }
    }
}

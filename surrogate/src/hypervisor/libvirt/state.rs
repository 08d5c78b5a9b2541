//! What a domain's state and its reason mean for sleep. Pure.

use virt::sys;

use crate::hypervisor::{PauseReason, Power};

/// What `virDomainGetState` said, before it is known whether a job runs or a saved state exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    Running,
    Paused(PauseReason),
    /// Paused with the reason "migrating", which means two things: a migration is under way, or the
    /// domain was restored paused. Only whether a job runs tells them apart.
    PausedMigrating,
    /// Suspended to memory by the guest itself; it wakes by itself.
    GuestSuspended,
    /// Not running: saved if there is a managed save, else off.
    Shutoff,
}

impl State {
    /// From the numbers that libvirt gives.
    pub(super) const fn new(state: sys::virDomainState, reason: i32) -> Self {
        match state {
            sys::VIR_DOMAIN_PAUSED => paused(reason.cast_unsigned()),
            sys::VIR_DOMAIN_PMSUSPENDED => Self::GuestSuspended,
            sys::VIR_DOMAIN_SHUTOFF | sys::VIR_DOMAIN_CRASHED => Self::Shutoff,
            // Running, blocked, shutting down, and the "no state" of drivers that do not know.
            _ => Self::Running,
        }
    }

    /// The whole answer, with the two facts that the state lacks.
    pub(super) const fn power(self, job_runs: bool, saved: bool) -> Power {
        match self {
            Self::Running => Power::Running,
            Self::Paused(reason) => Power::Paused(reason),
            Self::PausedMigrating if job_runs => Power::Paused(PauseReason::Busy),
            Self::PausedMigrating => Power::Paused(PauseReason::Restored),
            Self::GuestSuspended => Power::Paused(PauseReason::Busy),
            Self::Shutoff if saved => Power::Saved,
            Self::Shutoff => Power::Off,
        }
    }
}

const fn paused(reason: sys::virDomainPausedReason) -> State {
    State::Paused(match reason {
        sys::VIR_DOMAIN_PAUSED_MIGRATION => return State::PausedMigrating,
        sys::VIR_DOMAIN_PAUSED_USER => PauseReason::User,
        sys::VIR_DOMAIN_PAUSED_FROM_SNAPSHOT => PauseReason::Restored,
        sys::VIR_DOMAIN_PAUSED_IOERROR => PauseReason::IoError,
        sys::VIR_DOMAIN_PAUSED_WATCHDOG
        | sys::VIR_DOMAIN_PAUSED_CRASHED
        | sys::VIR_DOMAIN_PAUSED_POSTCOPY_FAILED
        | sys::VIR_DOMAIN_PAUSED_API_ERROR => PauseReason::Failed,
        // Saving, dumping, a snapshot, starting up, shutting down, post-copy; and "unknown", which a
        // `stop` sent to QEMU behind libvirt's back gives: what we do not understand is not sleep.
        _ => PauseReason::Busy,
    })
}

/// Why a domain in this state cannot be put to sleep, in an operator's words.
pub(super) const fn in_words(power: Power) -> &'static str {
    match power {
        Power::Running => "it is running",
        Power::Paused(PauseReason::User) => "it is paused",
        Power::Paused(PauseReason::Restored) => "it is restored and paused",
        Power::Paused(PauseReason::IoError) => "it is paused by a storage error",
        Power::Paused(PauseReason::Busy) => {
            "it is paused by something else (migration, snapshot, dump, save, or a stop sent to QEMU)"
        }
        Power::Paused(PauseReason::Failed) => "it is paused because it crashed or its watchdog fired",
        Power::Saved => "it is saved",
        Power::Off => "it is shut off and has no saved state",
        Power::Gone => "it is gone",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn power(state: u32, reason: u32) -> Power {
        State::new(state, reason.cast_signed()).power(false, false)
    }

    #[test]
    fn only_a_pause_by_a_user_is_sleep() {
        let user = Power::Paused(PauseReason::User);
        assert_eq!(power(sys::VIR_DOMAIN_PAUSED, sys::VIR_DOMAIN_PAUSED_USER), user);
        for reason in (0..=20).filter(|reason| *reason != sys::VIR_DOMAIN_PAUSED_USER) {
            assert_ne!(power(sys::VIR_DOMAIN_PAUSED, reason), user, "reason {reason}");
        }
    }

    #[test]
    fn paused_migrating_is_restored_unless_a_job_runs() {
        let state = State::new(sys::VIR_DOMAIN_PAUSED, sys::VIR_DOMAIN_PAUSED_MIGRATION.cast_signed());
        assert_eq!(state.power(false, false), Power::Paused(PauseReason::Restored));
        assert_eq!(state.power(true, false), Power::Paused(PauseReason::Busy));
    }

    #[test]
    fn a_domain_that_is_off_is_saved_if_there_is_a_managed_save() {
        for state in [sys::VIR_DOMAIN_SHUTOFF, sys::VIR_DOMAIN_CRASHED] {
            assert_eq!(State::new(state, 0).power(false, true), Power::Saved);
            assert_eq!(State::new(state, 0).power(false, false), Power::Off);
        }
        let running = State::new(sys::VIR_DOMAIN_RUNNING, 1);
        assert_eq!(running.power(false, true), Power::Running, "a save image that is being restored");
    }

    #[test]
    fn other_states_are_told_apart() {
        assert_eq!(
            power(sys::VIR_DOMAIN_PAUSED, sys::VIR_DOMAIN_PAUSED_IOERROR),
            Power::Paused(PauseReason::IoError)
        );
        assert_eq!(
            power(sys::VIR_DOMAIN_PAUSED, sys::VIR_DOMAIN_PAUSED_SAVE),
            Power::Paused(PauseReason::Busy)
        );
        assert_eq!(
            power(sys::VIR_DOMAIN_PAUSED, sys::VIR_DOMAIN_PAUSED_UNKNOWN),
            Power::Paused(PauseReason::Busy)
        );
        assert_eq!(
            power(sys::VIR_DOMAIN_PAUSED, sys::VIR_DOMAIN_PAUSED_CRASHED),
            Power::Paused(PauseReason::Failed)
        );
        assert_eq!(power(sys::VIR_DOMAIN_PMSUSPENDED, 0), Power::Paused(PauseReason::Busy));
        assert_eq!(power(sys::VIR_DOMAIN_SHUTDOWN, 0), Power::Running);
    }
}

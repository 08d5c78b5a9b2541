//! The next step of a cycle, derived from its direction and the facts. The order of steps is here and
//! nowhere else.
//!
//! Standing in: watch the guest while it still has all its frames; fence before anything is changed, so that
//! nothing which arrives from now on is lost; steer; take the floods over; let the guest's port drain; only then
//! stop it; speak last. Handing back is the
//! mirror image: be silent first, give the floods back, then let it run, deliver what is held, and only
//! when nothing is held any more turn the forwarding entry back.
//!
//! Flooded frames are held from *before* flooding to the guest's port is turned off until *after* it is
//! on again. In between, for as long as a netlink call takes, such a frame reaches both the guest and
//! the hold buffer: twice is harmless for what is broadcast, a lost ARP request costs a peer a second.

use super::{Action, CyclePolicy, Facts, Intent, State, WakeCause};
use crate::engine::Mode;
use crate::hypervisor::{Depth, Power};

/// Where a cycle is heading.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Direction {
    /// Nowhere: awake, asleep, or waiting for somebody.
    Rest,
    /// Towards standing in; the guest is put to sleep if it still runs.
    StandIn {
        /// What to store.
        intent: Intent,
    },
    /// Towards the guest speaking for itself.
    HandBack,
    /// The guest is gone.
    Forget,
}

/// What to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// This, and wait for it.
    Do(Action),
    /// The direction's end is reached.
    Arrive(State),
    /// Stop standing in and hand back.
    Abort,
    /// The wake failed and the guest is still stopped: stand in again.
    StandInAgain,
    /// Nothing.
    Wait,
}

/// Derives it.
pub(super) fn next(
    direction: Direction,
    facts: &Facts,
    wanted: Option<WakeCause>,
    depth: Depth,
    policy: &CyclePolicy,
) -> Next {
    if facts.doubted && direction != Direction::Forget {
        return Next::Do(if facts.mode == Mode::Answer {
            Action::Mode(Mode::Hold { flooded: true })
        } else {
            Action::Inspect
        });
    }
    match direction {
        Direction::Rest => Next::Wait,
        Direction::StandIn { intent } => stand_in(intent, facts, wanted, depth, policy),
        Direction::HandBack => hand_back(facts),
        Direction::Forget => forget(facts),
    }
}

fn stand_in(
    intent: Intent,
    facts: &Facts,
    wanted: Option<WakeCause>,
    depth: Depth,
    policy: &CyclePolicy,
) -> Next {
    // A pause for a job is no sleep: what was only fenced is given back.
    let broken_off = facts.runs() && (wanted.is_some() || facts.call_failed);
    if broken_off || (facts.busy() && matches!(facts.mode, Mode::Fence { .. })) {
        return Next::Abort;
    }
    if facts.intent.is_none() {
        return Next::Do(Action::Record(intent));
    }
    if facts.runs() && !facts.watched {
        return Next::Do(Action::Watch);
    }
    match facts.mode {
        Mode::Pass => return Next::Do(Action::Mode(Mode::Fence { flooded: false })),
        Mode::Replay { .. } => return Next::Do(Action::Mode(Mode::Hold { flooded: false })),
        _ => {}
    }
    if !facts.steered {
        return Next::Do(Action::Steer);
    }
    match facts.mode {
        Mode::Fence { flooded: false } => return Next::Do(Action::Mode(Mode::Fence { flooded: true })),
        Mode::Hold { flooded: false } => return Next::Do(Action::Mode(Mode::Hold { flooded: true })),
        _ => {}
    }
    if !facts.floods_taken {
        return Next::Do(Action::TakeFloods);
    }
    if facts.runs() {
        return Next::Do(if facts.barrier_passed { Action::Sleep(depth) } else { Action::Barrier });
    }
    if wanted.is_some() && facts.stuck.is_none() {
        return Next::Abort;
    }
    if policy.port_sleeps && !facts.port_disabled {
        return Next::Do(Action::Port { enabled: false });
    }
    if facts.mode != Mode::Answer && !facts.may_run() {
        return Next::Do(Action::Mode(Mode::Answer));
    }
    Next::Arrive(if facts.stranded { State::Stranded } else { State::Asleep })
}

fn hand_back(facts: &Facts) -> Next {
    if facts.call_failed && !facts.runs() && !facts.busy() {
        return Next::StandInAgain;
    }
    if facts.intent.is_none() {
        return Next::Do(Action::Record(Intent::Wake));
    }
    // We go on answering while a restore runs: it ends paused.
    if facts.power == Power::Saved {
        return ask(facts, Action::Restore);
    }
    if facts.mode == Mode::Answer {
        return Next::Do(Action::Mode(Mode::Hold { flooded: true }));
    }
    if facts.port_disabled {
        return Next::Do(Action::Port { enabled: true });
    }
    if facts.floods_taken {
        return Next::Do(Action::ReturnFloods);
    }
    if matches!(facts.mode, Mode::Fence { flooded: true } | Mode::Hold { flooded: true }) {
        return Next::Do(Action::Mode(Mode::Hold { flooded: false }));
    }
    if !facts.runs() && !facts.busy() {
        return ask(facts, Action::Resume);
    }
    match facts.mode {
        Mode::Replay { released: false } if facts.steered => Next::Do(Action::Release),
        Mode::Replay { .. } => Next::Do(Action::Mode(Mode::Replay { released: true })),
        Mode::Pass if facts.steered => Next::Do(Action::Release),
        Mode::Pass if facts.intent != Some(Intent::Awake) => Next::Do(Action::Record(Intent::Awake)),
        Mode::Pass => Next::Arrive(State::Awake),
        _ => Next::Do(Action::Mode(Mode::Replay { released: false })),
    }
}

/// One call at a time, also while one hangs.
fn ask(facts: &Facts, call: Action) -> Next {
    if facts.stuck.is_some() { Next::Wait } else { Next::Do(call) }
}

fn forget(facts: &Facts) -> Next {
    if facts.mode != Mode::Pass || facts.steered || facts.floods_taken || facts.port_disabled {
        return Next::Do(Action::Forget);
    }
    if facts.intent != Some(Intent::Awake) {
        return Next::Do(Action::Record(Intent::Awake));
    }
    Next::Arrive(State::Awake)
}

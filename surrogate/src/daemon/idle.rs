//! Readings for the idleness rule: one outstanding per guest, only while it is awake and may sleep by
//! itself.

use super::calls;
use super::control::Control;
use super::messages::{Message, Then};
use crate::guest::lifecycle::State;
use crate::hypervisor::{HypervisorError, Statistics};
use crate::io::clock;
use crate::policy::idleness::Idle;
use crate::time::Instant;

/// Begins to read a guest's figures, if it may sleep by itself.
pub(super) fn start(control: &mut Control, at: usize) {
    let Some(guest) = control.guests.get_mut(at) else { return };
    if guest.sample_at.is_none() && guest.cycle.state() == State::Awake {
        guest.sample_at = Some(clock::now());
    }
}

/// Asks for the figures of every guest whose reading is due.
pub(super) fn sample_due(control: &mut Control, now: Instant) {
    for at in 0..control.guests.len() {
        let Some(guest) = control.guests.get_mut(at) else { break };
        if guest.sampling || guest.sample_at.is_none_or(|due| due > now) {
            continue;
        }
        guest.sample_at = None;
        let may_sleep = guest.config.policy.idle_after.is_some() && guest.known && guest.unfit.is_none();
        if !may_sleep || guest.cycle.state() != State::Awake || !guest.cycle.facts().runs() {
            continue;
        }
        guest.sampling = true;
        let name = guest.config.name.clone();
        let Some(side) = control.hypervisors.get(guest.hypervisor) else { continue };
        calls::call(&side.driver, &control.outbox, &guest.config.name, move |h| Message::Statistics {
            guest: at,
            result: h.statistics(&name),
        });
    }
}

/// Judges a guest's figures.
pub(super) fn handle(control: &mut Control, at: usize, result: Result<Statistics, HypervisorError>) {
    let now = clock::now();
    let Some(guest) = control.guests.get_mut(at) else { return };
    guest.sampling = false;
    if guest.cycle.state() != State::Awake {
        return;
    }
    guest.sample_at = Some(now + guest.idleness.thresholds().interval());
    match result {
        Ok(figures) => {
            if let Idle::MaySleep(_) = guest.idleness.sample(now, guest.cycle.since(), figures) {
                if guest.cycle.left_awake_until(now).is_some() {
                    // It stays idle as far as we know, and is looked at again with the next figures.
                    return;
                }
                guest.idleness.forget();
                let depth = guest.config.policy.depth;
                control.look_at(at, Then::Sleep { depth, reply: None });
            }
        }
        Err(why) => {
            tracing::debug!(guest = guest.config.name, %why, "no figures");
            guest.idleness.forget();
        }
    }
}

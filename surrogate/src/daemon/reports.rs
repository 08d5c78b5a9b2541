//! What a lifecycle reports, as events, log lines, tallies, and answers to those who wait.

use super::control::Control;
use super::guest::{Goal, Guest, Waiter, depth_word};
use super::known;
use super::orders;
use crate::api::{Refusal, RefusalCode, Transition};
use crate::guest::lifecycle::{Action, Report, State, WakeCause};
use crate::io::clock;
use crate::policy::budget::Limit;
use crate::time::Instant;

/// Tells everything that the guest's cycle has to tell.
pub(super) fn tell(control: &mut Control, at: usize) {
    let Some(guest) = control.guests.get_mut(at) else { return };
    let now = clock::now();
    let (mut awoke, mut settles, mut fell_asleep) = (false, false, false);
    while let Some(report) = guest.cycle.poll_report() {
        let name = guest.config.name.clone();
        let (kind, detail) = match report {
            Report::State(state) => {
                awoke |= state == State::Awake;
                fell_asleep |= state == State::Asleep;
                settles |= state == State::Settling;
                entered(guest, now, state)
            }
            Report::Done(action) => match orders::event_of(action) {
                Some(kind) => (kind, done_detail(guest, action)),
                None => continue,
            },
            // A broken-off sleep has said why already.
            Report::Waking(_) if guest.cycle.state() == State::Replaying => continue,
            Report::Waking(cause) => {
                let cause = cause_text(cause);
                guest.tally.last_wake = Some(cause.clone());
                ("waking", cause)
            }
            Report::Aborted(why) => {
                let left = guest.cycle.left_awake_until(now).map_or_else(String::new, |until| {
                    format!("; left awake for {} s, unless commanded", until.since(now).as_secs())
                });
                guest.why = Some(format!("its sleep was aborted: {why}{left}"));
                ("aborted", why)
            }
            Report::Failed(why) => {
                guest.why = Some(why.clone());
                let runs = guest.cycle.facts().runs() && guest.cycle.facts().stuck.is_none();
                if !guest.cycle.is_reachable() {
                    give_up(guest, &why, |_| true);
                } else if runs && guest.cycle.state() == State::Replaying {
                    // It is tried again for as long as it takes, and nobody knows how long that is.
                    let why = format!("it runs, but cannot be handed back yet, which is tried again: {why}");
                    give_up(guest, &why, |wants| wants != Goal::Asleep);
                }
                ("failed", why)
            }
            Report::WakeForbidden(reason) => {
                let why = format!("policy `wake` forbids waking it: {reason}");
                guest.why = Some(why.clone());
                ("wake-forbidden", why)
            }
            Report::WakePutOff(reason, limit) => ("wake-put-off", format!("{}: {reason}", limit_text(limit))),
        };
        // The cause says it.
        if kind == "waking" && detail.is_empty() {
            continue;
        }
        match kind {
            "failed" | "stranded" => tracing::warn!(guest = name, kind, detail),
            _ => tracing::info!(guest = name, kind, detail),
        }
        control.events.record(Some(&name), kind, detail);
    }
    if settles {
        control.observe_closely(at, true);
    }
    if fell_asleep {
        known::keep(control, at);
    }
    if awoke {
        // It may have much to say now, and what it did not say asleep tells nothing.
        control.observe_closely(at, false);
        if let Some(guest) = control.guests.get(at) {
            known::forget(control, guest);
        }
        orders::leave_vlans(control, at);
    }
}

fn entered(guest: &mut Guest, now: Instant, state: State) -> (&'static str, String) {
    guest.tally.since_unix_ms = clock::unix_ms();
    guest.sample_at = None;
    match state {
        State::Settling => {
            guest.why = None;
            guest.idleness.forget();
        }
        State::Asleep => {
            guest.tally.sleeps += 1;
            guest.tally.asleep_since = Some(now);
        }
        State::Awake => {
            guest.sample_at = Some(now);
        }
        _ => {}
    }
    if matches!(state, State::Awake | State::Replaying)
        && let Some(since) = guest.tally.asleep_since.take()
    {
        guest.tally.asleep += now.since(since);
        guest.tally.wakes += 1;
    }
    answer(guest, now, state);
    let detail = match state {
        State::Settling if guest.cycle.slept_by_us() => depth_word(guest.cycle.depth()).to_owned(),
        State::Settling => "somebody else stopped it".to_owned(),
        State::Asleep => format!("{} held", frames(guest.tally.held)),
        State::Awake => {
            let said = guest.tally.said.tell();
            format!("{} replayed, {} overtaken{said}", frames(guest.tally.replayed), guest.tally.overtaken)
        }
        State::Stranded => guest.why.clone().unwrap_or_default(),
        State::Waking | State::Replaying => String::new(),
    };
    (state.name(), detail)
}

/// Answers whoever waits for this state, or for one that it can no longer lead to.
fn answer(guest: &mut Guest, now: Instant, state: State) {
    let over = matches!(state, State::Awake | State::Asleep | State::Stranded);
    if !over {
        return;
    }
    let why = guest.why.clone();
    for waiter in core::mem::take(&mut guest.waiters) {
        let outcome = match (waiter.wants, state) {
            // Given up on: it is shut off or gone, and nothing of ours is left to wake.
            (Goal::Awake, State::Awake) if !guest.cycle.facts().runs() => Err(Refusal::new(
                RefusalCode::Conflict,
                format!(
                    "{} is not running: {}",
                    guest.config.name,
                    why.as_deref().unwrap_or("it was shut off or deleted while it slept")
                ),
            )),
            (wanted, reached) if wanted.state() == reached => Ok(transition(guest, &waiter, now, state)),
            // A guest that fell asleep while someone waited for its wake is woken in a moment.
            (Goal::Awake | Goal::LetGo, State::Asleep) => {
                guest.waiters.push(waiter);
                continue;
            }
            (Goal::Asleep, State::Awake) => Err(Refusal::new(
                RefusalCode::Conflict,
                format!("{} is awake: {}", guest.config.name, why.as_deref().unwrap_or("it was woken")),
            )),
            (_, reached) => Err(Refusal::new(
                RefusalCode::Unavailable,
                format!(
                    "{} is {}: {}",
                    guest.config.name,
                    reached.name(),
                    why.as_deref().unwrap_or("see surrogate events")
                ),
            )),
        };
        // Whoever waited may have gone away.
        let _ = waiter.reply.send(outcome);
    }
}

/// Tells those who wait for one of `goals` that it will not be soon.
fn give_up(guest: &mut Guest, why: &str, goals: impl Fn(Goal) -> bool) {
    for waiter in guest.waiters.extract_if(.., |waiter| goals(waiter.wants)) {
        let refusal = Refusal::new(RefusalCode::Unavailable, format!("{}: {why}", guest.config.name));
        let _ = waiter.reply.send(Err(refusal));
    }
}

fn transition(guest: &Guest, waiter: &Waiter, now: Instant, state: State) -> Transition {
    Transition {
        guest: guest.config.name.clone(),
        state: state.name().to_owned(),
        took_ms: u64::try_from(now.since(waiter.since).as_millis()).unwrap_or(u64::MAX),
        held: guest.tally.held,
        replayed: if state == State::Awake { guest.tally.replayed } else { 0 },
    }
}

fn done_detail(guest: &Guest, action: Action) -> String {
    match action {
        Action::Release => format!("{} replayed", frames(guest.tally.replayed)),
        Action::Resume => format!("{} held", frames(guest.tally.held)),
        _ => String::new(),
    }
}

fn frames(n: u64) -> String {
    format!("{n} frame{}", if n == 1 { "" } else { "s" })
}

const fn limit_text(limit: Limit) -> &'static str {
    match limit {
        Limit::Guest => "its wake budget is used up",
        Limit::Host => "the wake budget of all guests together is used up",
        Limit::Ceiling => "as many guests wake as may at once",
    }
}

fn cause_text(cause: WakeCause) -> String {
    match cause {
        WakeCause::Frame(reason) => reason.to_string(),
        WakeCause::Command => "asked for".to_owned(),
        WakeCause::Outside => "somebody else resumed it".to_owned(),
        WakeCause::Retry => "another try".to_owned(),
    }
}

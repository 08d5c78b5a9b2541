//! When a record is said to all: how long an answer waits, and how soon it may be said again (RFC 6762 6, 7).

use super::question::Answers;
use super::store::{Family, Record, Set, Store, Turn};
use crate::rng::Rng;
use crate::time::{Duration, Instant};

/// "A Multicast DNS responder MUST NOT [...] multicast a record on a given interface until at least one second has
/// elapsed since the last time that record was multicast" (6).
const AGAIN: Duration = Duration::from_secs(1);
/// "in the one special case of answering probe queries": 250 ms.
const AGAIN_IN_DEFENCE: Duration = Duration::from_millis(250);

/// The wait where another host may answer too: 20 to 120 ms.
pub(super) fn others_may_answer(rng: &mut Rng) -> Duration {
    Duration::from_millis(20 + rng.below(101))
}

/// The wait for the rest of what an asker knows: 400 to 500 ms (7.2).
pub(super) fn more_to_come(rng: &mut Rng) -> Duration {
    Duration::from_millis(400 + rng.below(101))
}

/// Owes `answers` to all after `wait`, or when they may be said again.
pub(super) fn owe(
    store: &mut Store,
    family: Family,
    answers: Answers,
    now: Instant,
    wait: Duration,
    defends: bool,
) {
    let again = if defends { AGAIN_IN_DEFENCE } else { AGAIN };
    let set = |turn: &mut Turn| {
        let earliest = turn.said.map_or(now, |said| said + again);
        let at = earliest.max(now + wait);
        turn.owed = Some(turn.owed.map_or(at, |owed| owed.min(at)));
    };
    each(store, family, answers, set);
}

/// What is due.
pub(super) fn due(store: &mut Store, family: Family, now: Instant) -> Answers {
    let is_due = |turn: &mut Turn| turn.owed.is_some_and(|owed| owed <= now);
    collect(store, |record| is_due(record.turn(family)), |record| is_due(record.denial(family)))
}

/// What was said too short a time ago to be told beside something else.
pub(super) fn just_said(store: &Store, family: Family, now: Instant) -> Answers {
    let records = store.set(|record| record.said(family).is_some_and(|said| now.since(said) < AGAIN));
    Answers { records, denials: Set::default() }
}

/// All heard `answers` from us.
pub(super) fn said(store: &mut Store, family: Family, answers: Answers, now: Instant) {
    each(store, family, answers, |turn| *turn = Turn { said: Some(now), owed: None });
}

/// All heard `records` from another host: "SHOULD treat its own answer as having been sent" (7.4).
pub(super) fn said_by_another(store: &mut Store, family: Family, records: Set, now: Instant) {
    let answers = Answers { records, denials: Set::default() };
    each(store, family, answers, |turn| {
        if turn.owed.take().is_some() {
            turn.said = Some(now);
        }
    });
}

/// `answers` will not be said.
pub(super) fn drop(store: &mut Store, family: Family, answers: Answers) {
    each(store, family, answers, |turn| turn.owed = None);
}

/// Nothing is owed any more.
pub(super) fn clear(store: &mut Store) {
    for record in store.iter_mut() {
        for family in Family::ALL {
            record.turn(family).owed = None;
            record.denial(family).owed = None;
        }
    }
}

/// The earliest moment at which something is owed.
pub(super) fn next(store: &Store) -> Option<Instant> {
    store.iter().filter_map(|(_, record)| record.owed()).min()
}

fn each(store: &mut Store, family: Family, answers: Answers, change: impl Fn(&mut Turn)) {
    for at in answers.records.iter() {
        if let Some(record) = store.get_mut(at) {
            change(record.turn(family));
        }
    }
    for at in answers.denials.iter() {
        if let Some(record) = store.get_mut(at) {
            change(record.denial(family));
        }
    }
}

fn collect(
    store: &mut Store,
    record_is: impl Fn(&mut Record) -> bool,
    denial_is: impl Fn(&mut Record) -> bool,
) -> Answers {
    let mut found = Answers::default();
    for (at, record) in store.iter_mut().enumerate() {
        if record_is(record) {
            found.records.add(at);
        }
        if denial_is(record) {
            found.denials.add(at);
        }
    }
    found
}

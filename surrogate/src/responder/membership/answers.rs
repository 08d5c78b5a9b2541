//! The answers that a sleeper owes to membership queries (RFC 2236 3, RFC 9776 5.2 and 7.2, RFC 2710 4, RFC 9777
//! 6.2 and 8.2).
//!
//! Each after a random delay, in the version of the oldest querier about. One answer is under way for all groups
//! together and one for each: a thousand queries get no more.

use core::fmt;

use surrogate_wire::membership::{Address, Generation, Query, Record, RecordKind, Sources};

use super::filter::{Filter, MAX_SOURCES};
use crate::rng::Rng;
use crate::time::{Duration, Instant};

/// See the [module](self).
#[derive(Clone, Debug)]
pub(super) struct Answers<A> {
    groups: Vec<Owed<A>>,
    /// When to answer for all groups together, and how many of them have been.
    general: Option<Instant>,
    said: usize,
    /// When that was done last.
    answered: Option<Instant>,
    /// Until when queriers of the first and of the second generation count as there.
    older: [Option<Instant>; 2],
    /// What the last querier of the third generation said of itself.
    robustness: u32,
    interval: Duration,
}

#[derive(Clone, Debug)]
struct Owed<A> {
    group: A,
    filter: Filter<A>,
    due: Option<Instant>,
    /// When it was reported last by itself.
    answered: Option<Instant>,
    /// The sources to answer for; none: for the whole group.
    asked: Vec<A>,
}

/// What is to be said now.
#[derive(Clone, Copy, Debug)]
pub(in super::super) enum Saying<'s, A: Address> {
    /// That the guest is in this group, in the way of this generation.
    Report(Generation, A),
    /// What it wants of these groups.
    Records(Records<'s, A>),
}

/// Groups to be reported.
#[derive(Clone, Copy)]
pub(in super::super) struct Records<'s, A> {
    groups: &'s [Owed<A>],
    /// Only the sources asked for.
    asked: bool,
}

impl<A> Default for Answers<A> {
    fn default() -> Self {
        Self {
            groups: Vec::new(),
            general: None,
            said: 0,
            answered: None,
            older: [None; 2],
            robustness: ROBUSTNESS,
            interval: INTERVAL,
        }
    }
}

impl<A: Address> Answers<A> {
    /// Whether it answers for `group`.
    pub(super) fn knows(&self, group: A) -> bool {
        self.groups.iter().any(|owed| owed.group == group)
    }

    /// Answers for `group` too from now on.
    pub(super) fn add(&mut self, group: A, filter: Filter<A>) {
        // Reserved now, so that no query makes it grow.
        let asked = Vec::with_capacity(MAX_SOURCES);
        self.groups.push(Owed { group, filter, due: None, answered: None, asked });
    }

    /// Answers for none.
    pub(super) fn wake(&mut self) {
        self.groups.clear();
        (self.general, self.said, self.answered) = (None, 0, None);
    }

    /// Takes a query; whether it will be answered.
    pub(super) fn ask(&mut self, now: Instant, rng: &mut Rng, query: &Query<'_, A>) -> bool {
        let generation = self.note_querier(now, query);
        let within = query.max_response;
        let Some(group) = query.group else {
            if generation != Generation::Third {
                self.groups.iter_mut().for_each(|owed| owed.ask(now + some_of(rng, within), Sources::NONE));
            } else if self.said == 0 && !self.groups.is_empty() {
                let at = after(self.answered, now + some_of(rng, within));
                self.general = Some(self.general.map_or(at, |general| general.min(at)));
            }
            return !self.groups.is_empty();
        };
        let at = now + some_of(rng, within);
        let Some(owed) = self.groups.iter_mut().find(|owed| owed.group == group) else { return false };
        // "no additional response needs to be scheduled" (RFC 9776 5.2, rule 1).
        if generation == Generation::Third && self.general.is_some_and(|general| general <= at) {
            return true;
        }
        let sources = if generation == Generation::Third { query.sources } else { Sources::NONE };
        owed.ask(at, sources);
        owed.due.is_some()
    }

    /// Another host said that it is in `group`: that is enough for an older querier.
    pub(super) fn suppress(&mut self, now: Instant, group: A) {
        if self.generation(now) != Generation::Third
            && let Some(owed) = self.groups.iter_mut().find(|owed| owed.group == group)
        {
            owed.due = None;
        }
    }

    /// When the next answer is due.
    pub(super) fn due(&self) -> Option<Instant> {
        self.groups.iter().filter_map(|owed| owed.due).chain(self.general).min()
    }

    /// Has `say` say what is due next, with records of at most `room` bytes.
    pub(super) fn speak(
        &mut self,
        now: Instant,
        room: usize,
        say: impl FnOnce(Saying<'_, A>) -> Option<()>,
    ) -> Option<()> {
        let is_due = |at: &Instant| *at <= now;
        let generation = self.generation(now);
        if self.general.as_ref().is_some_and(is_due) {
            let from = self.said;
            self.said += self.fitting(from, room);
            let batch = self.groups.get(from..self.said).unwrap_or_default();
            if self.said >= self.groups.len() {
                (self.general, self.said, self.answered) = (None, 0, Some(now));
            }
            return say(Saying::Records(Records { groups: batch, asked: false }));
        }
        let owed = self.groups.iter_mut().find(|owed| owed.due.as_ref().is_some_and(is_due))?;
        (owed.due, owed.answered) = (None, Some(now));
        say(match generation {
            Generation::Third => {
                Saying::Records(Records { groups: core::slice::from_ref(owed), asked: true })
            }
            older => Saying::Report(older, owed.group),
        })
    }

    /// How many groups from `from` on have room together: at least one.
    fn fitting(&self, from: usize, room: usize) -> usize {
        let mut left = room;
        let fits = |owed: &&Owed<A>| {
            let len = owed.record(false).len();
            let fits = len <= left;
            left = left.saturating_sub(len);
            fits
        };
        self.groups.iter().skip(from).take_while(fits).count().max(1)
    }

    /// Takes note of who asks, and says in which way to answer: "based upon whether or not" an older query "was
    /// heard in the last" so many seconds, and not "upon the type of the last Query heard" (RFC 2236 4).
    fn note_querier(&mut self, now: Instant, query: &Query<'_, A>) -> Generation {
        let before = self.generation(now);
        let [first, second] = &mut self.older;
        let seen = match query.generation {
            Generation::First => first,
            Generation::Second => second,
            Generation::Third => {
                self.robustness = query.robustness.map_or(ROBUSTNESS, u32::from);
                self.interval = query.interval.unwrap_or(INTERVAL);
                return before;
            }
        };
        *seen = Some(now + self.interval * self.robustness + query.max_response);
        let generation = self.generation(now);
        if generation != before {
            // "it cancels all its pending responses" (RFC 9776 7.2.1).
            (self.general, self.said) = (None, 0);
            self.groups.iter_mut().for_each(|owed| owed.due = None);
        }
        generation
    }

    fn generation(&self, now: Instant) -> Generation {
        match self.older.map(|until| until.is_some_and(|until| now < until)) {
            [true, _] => Generation::First,
            [_, true] => Generation::Second,
            _ => Generation::Third,
        }
    }
}

impl<A: Address> Owed<A> {
    /// The group is asked for, or some of its sources: the answer is due at `at`, or before if one is already. For
    /// sources that are not wanted none is.
    fn ask(&mut self, at: Instant, sources: Sources<'_, A>) {
        let at = after(self.answered, at);
        let pending = self.due.is_some();
        let whole = sources.is_empty() || (pending && self.asked.is_empty());
        if !pending {
            self.asked.clear();
        }
        if whole || !self.note(sources) {
            self.asked.clear();
        } else if self.asked.is_empty() {
            return;
        }
        self.due = Some(self.due.map_or(at, |due| due.min(at)));
    }

    /// Adds to the sources asked for those that are wanted. `false` if there are more than are kept: then the whole
    /// group answers for them.
    fn note(&mut self, sources: Sources<'_, A>) -> bool {
        for source in sources.iter().filter(|source| self.filter.wants(*source)) {
            if self.asked.contains(&source) {
                continue;
            }
            if self.asked.len() >= MAX_SOURCES {
                return false;
            }
            self.asked.push(source);
        }
        true
    }

    fn record(&self, asked: bool) -> Record<'_, A> {
        if asked && !self.asked.is_empty() {
            return Record { kind: RecordKind::IsInclude, group: self.group, sources: &self.asked };
        }
        let kind = if self.filter.include { RecordKind::IsInclude } else { RecordKind::IsExclude };
        Record { kind, group: self.group, sources: &self.filter.sources }
    }
}

impl<'s, A: Address> Records<'s, A> {
    pub(in super::super) fn iter(&self) -> impl Iterator<Item = Record<'s, A>> + Clone + use<'s, A> {
        let asked = self.asked;
        self.groups.iter().map(move |owed| owed.record(asked))
    }
}

impl<A: Address> fmt::Debug for Records<'_, A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

/// Some time up to `longest`, not none.
fn some_of(rng: &mut Rng, longest: Duration) -> Duration {
    Duration::from_nanos(1 + rng.below(u64::try_from(longest.as_nanos()).unwrap_or(u64::MAX)))
}

/// Not right after the last answer.
fn after(last: Option<Instant>, at: Instant) -> Instant {
    last.map_or(at, |last| at.max(last + SPACING))
}

/// Between two answers for the same: queriers ask once a second at most (RFC 9776 8.8), strangers as they like.
const SPACING: Duration = Duration::from_millis(250);
/// What queriers that do not say otherwise take for granted (RFC 9776 8.1 and 8.2, RFC 9777 9.1 and 9.2).
const ROBUSTNESS: u32 = 2;
const INTERVAL: Duration = Duration::from_secs(125);

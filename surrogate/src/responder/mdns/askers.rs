//! Those who are answered alone, or whose question goes on: at most [`ASKERS`] of one NIC at a time.
//!
//! Where there is no place left, an asker of multicast DNS gets his answer with all others; one that knows nothing
//! of it gets none, and asks again.

use surrogate_wire::dns::{MAX_NAME, Question};

use super::question::Answers;
use super::store::{Family, Set};
use crate::responder::datagram::Asker;
use crate::time::{Duration, Instant};

/// At a time.
pub(super) const ASKERS: usize = 8;

/// What is owed to one asker.
#[derive(Clone, Debug)]
pub(super) struct Asked {
    pub(super) asker: Asker,
    pub(super) family: Family,
    pub(super) due: Instant,
    /// Not for ever, however much he goes on.
    pub(super) latest: Instant,
    /// To him alone.
    pub(super) alone: Answers,
    /// With all others, once he has said what he knows.
    pub(super) to_all: Answers,
    /// Of one that knows nothing of multicast DNS: what he asked.
    pub(super) legacy: Option<Legacy>,
    /// More of what he knows is to come.
    pub(super) goes_on: bool,
}

/// A question that is repeated in its answer (RFC 6762 6.7).
#[derive(Clone, Copy, Debug)]
pub(super) struct Legacy {
    pub(super) id: u16,
    name: [u8; MAX_NAME],
    len: usize,
    pub(super) kind: u16,
    pub(super) class: u16,
}

impl Legacy {
    pub(super) fn new(id: u16, question: &Question<'_>) -> Self {
        let mut name = [0; MAX_NAME];
        let len = question.name.write(&mut name).len();
        Self { id, name, len, kind: question.kind, class: question.class }
    }

    /// As it was written, its case with it.
    pub(super) fn name(&self) -> &[u8] {
        self.name.get(..self.len).unwrap_or_default()
    }
}

/// See the [module](self).
#[derive(Clone, Debug, Default)]
pub(super) struct Askers(Vec<Asked>);

impl Askers {
    /// Makes room: from then on nothing is allocated.
    pub(super) fn reserve(&mut self) {
        self.0.reserve_exact(ASKERS);
    }

    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    /// Whether there is a place.
    pub(super) fn add(&mut self, asked: Asked) -> bool {
        let free = self.0.len() < ASKERS.min(self.0.capacity());
        if free {
            self.0.push(asked);
        }
        free
    }

    /// What else `asker` knows; `goes_on_until` if there is still more to come.
    pub(super) fn knows(&mut self, asker: &Asker, known: Set, goes_on_until: Option<Instant>) {
        let of = |asked: &&mut Asked| asked.goes_on && asked.asker.address == asker.address;
        for asked in self.0.iter_mut().filter(of) {
            let known = Answers { records: known, denials: Set::default() };
            asked.alone = asked.alone.without(known);
            asked.to_all = asked.to_all.without(known);
            if let Some(until) = goes_on_until {
                asked.due = until.min(asked.latest);
            }
        }
    }

    pub(super) fn due(&self) -> Option<Instant> {
        self.0.iter().map(|asked| asked.due).min()
    }

    /// Takes one whose time has come.
    pub(super) fn take(&mut self, now: Instant) -> Option<Asked> {
        let at = self.0.iter().position(|asked| asked.due <= now)?;
        Some(self.0.swap_remove(at))
    }
}

/// The longest wait for what an asker knows: two of his messages more than usual.
pub(super) const LONGEST: Duration = Duration::from_millis(1_500);

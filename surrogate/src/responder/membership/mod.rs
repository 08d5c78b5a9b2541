//! The groups that a guest is in: what IGMP ([`igmp`](super::igmp)) and MLD ([`mld`](super::mld)) have in common.
//!
//! What the guest itself reports is [`learned`] while it is awake. From its sleep on queries about these groups, and
//! about those known without it (configuration, bridge, the guest's addresses), are answered: see [`answers`].

mod answers;
mod filter;
mod learned;

use serde::{Deserialize, Serialize};
use surrogate_wire::membership::{Address, Message};

use answers::Answers;
pub(super) use answers::Saying;
use filter::Filter;
pub use filter::MAX_SOURCES;
use learned::Learned;
pub use learned::MAX_LEARNED;

use crate::rng::Rng;
use crate::time::Instant;

/// Groups of one NIC in one family that are known without its reports. More are not reported.
pub const MAX_FIXED: usize = 64;

/// All of one NIC in one family.
#[derive(Clone, Debug)]
pub(super) struct Memberships<A> {
    learned: Learned<A>,
    answers: Answers<A>,
}

/// One learned group: what must survive a restart.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Membership<A> {
    /// Its address.
    pub group: A,
    /// Whether the listed sources are the only ones wanted; else all but these.
    pub include: bool,
    /// Listed sources.
    pub sources: Vec<A>,
}

impl<A> Default for Memberships<A> {
    fn default() -> Self {
        Self { learned: Learned::default(), answers: Answers::default() }
    }
}

impl<A: Reported> Memberships<A> {
    /// Takes what the awake guest itself says.
    pub(super) fn learn(&mut self, now: Instant, message: &Message<'_, A>) {
        self.learned.hear(now, message);
    }

    /// Takes a message from the network; whether an answer to it is owed, and will be said.
    pub(super) fn hear(&mut self, now: Instant, rng: &mut Rng, message: &Message<'_, A>) -> bool {
        match message {
            Message::Query(query) => self.answers.ask(now, rng, query),
            Message::Report { group, .. } => {
                self.answers.suppress(now, *group);
                false
            }
            // Of newer reports: "the suppression of multicast listener reports has been removed" (RFC 9777 A.2).
            Message::Leave(_) | Message::Records(_) => false,
        }
    }

    pub(super) fn due(&self) -> Option<Instant> {
        self.answers.due()
    }

    /// Has `say` write the next report that is due, with records of at most `room` bytes.
    pub(super) fn speak(
        &mut self,
        now: Instant,
        room: usize,
        say: impl FnOnce(Saying<'_, A>) -> Option<()>,
    ) -> Option<()> {
        self.answers.speak(now, room, say)
    }

    /// The guest sleeps: it is in the groups learned and those `fixed`, each perhaps more than once.
    pub(super) fn sleep(&mut self, fixed: impl Iterator<Item = A>) {
        self.answers.wake();
        for (group, filter) in self.learned.iter() {
            self.answers.add(group, filter.clone());
        }
        let mut left = MAX_FIXED;
        for group in fixed.filter(|group| group.is_reported()) {
            if self.answers.knows(group) {
                continue;
            }
            if left == 0 {
                self.learned.count_limited();
                continue;
            }
            left -= 1;
            self.answers.add(group, Filter::ALL);
        }
    }

    pub(super) fn wake(&mut self) {
        self.answers.wake();
    }

    /// The groups that the guest told of.
    pub(super) fn groups(&self) -> impl Iterator<Item = A> {
        self.learned.iter().map(|(group, _)| group)
    }

    /// How often these have changed.
    pub(super) fn changes(&self) -> u64 {
        self.learned.changes()
    }

    /// How often a limit kept a group or a source from being remembered.
    pub(super) fn limited(&self) -> u64 {
        self.learned.limited()
    }

    /// What must survive a restart.
    pub(super) fn learned(&self) -> Vec<Membership<A>> {
        self.learned.memberships()
    }

    /// As it was, as far as the limits allow; the guest was heard then.
    pub(super) fn restore(memberships: &[Membership<A>], heard: Instant) -> Self {
        Self { learned: Learned::restore(memberships, heard), answers: Answers::default() }
    }
}

/// Whether a group is reported at all.
pub(super) trait Reported: Address {
    /// Not those in which every host is: 224.0.0.1 (RFC 9776 5), ff02::1, and none of scope 0 or 1 (RFC 9777 6).
    fn is_reported(self) -> bool;
}

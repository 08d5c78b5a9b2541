//! Custody of a sleeper's TCP connections: what its peers believe about each of them, and our answers.
//!
//! Ground rule: **hold, never acknowledge**. What we do not acknowledge the peer still owns, so nothing that we
//! lose was promised. An answer repeats the guest's last acknowledgement, `SEQ=SN ACK=RN W`; data, FIN and whatever does
//! not fit is held and wakes the guest.
//!
//! ```text
//!  awake      the guest's own segments ──learn──▶ table, one record per connection
//!  settling   waits, is_over; begin_solicit, solicit ──▶ the guest answers, seen by learn: exact
//!  asleep     sleep ─▶ segment of a peer ──judge──▶ answer | note | hold | wake     due, speak: keep-alives of ours
//!  awake      wake
//! ```
//!
//! Pure: no clock, no I/O; judging, answering and speaking allocate nothing. RFC 9293, 7323, 2018, 2883, 5961.

mod answer;
mod connection;
mod handshake;
mod infer;
mod judge;
mod keepalive;
mod learn;
mod learned;
mod limits;
mod repeat;
mod represent;
mod segment;
mod sequence;
mod solicit;
mod table;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;

use serde::{Deserialize, Serialize};
use surrogate_wire::{Frame, Packet};

pub use connection::Tuple;
use connection::{Connection, Phase};
pub use learned::CustodyLearned;
pub use represent::Unrepresentable;
pub use segment::LONGEST_FRAME;
pub use solicit::Wait;

use crate::guest::identity::NicIdentity;
use crate::policy::custody::CustodyPolicy;
use crate::rng::Rng;
use crate::time::Instant;
use handshake::Requests;
use infer::Suspects;
use keepalive::Turn;
use limits::Budget;
use represent::Refused;
use segment::Segment;
use table::Table;

/// What a segment of a peer gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Judgement {
    /// Of no known connection, and nothing can be inferred from it.
    NotMine,
    /// An answer of this kind is owed: [`Custody::answer`] writes it.
    Answer(Kind),
    /// An acknowledgement that the guest wants to see when it wakes: the newest of its connection is held.
    Note,
    /// Nothing is owed, and the guest need not see it.
    Nothing,
    /// Held for the guest; no reason to wake it.
    Hold,
    /// Held, and only the guest can take it.
    HoldAndWake,
    /// An answer was owed but the limits forbid it.
    Limited,
}

/// What kind of acknowledgement is owed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// For a keep-alive (RFC 9293 3.8.4), or one of ours.
    KeepAlive,
    /// For a window probe (RFC 9293 3.8.6.1).
    WindowProbe,
    /// For what is not acceptable, or has been acknowledged before (RFC 9293 3.10.7.4).
    DuplicateAck,
    /// For what only the real peer may say (RFC 5961).
    ChallengeAck,
}

/// What custody has done, in numbers. The answers themselves are counted as all answers are, by kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct CustodyCounters {
    /// Connections known now.
    pub known: u64,
    /// Connections learned from an awake guest's own segments.
    pub learned: u64,
    /// Connections inferred from a peer's keep-alive.
    pub inferred: u64,
    /// Connections that found no place.
    pub refused: u64,
    /// Unfinished connections that gave their place to others.
    pub evicted: u64,
    /// Connections that a guest fell asleep with whose state was not confirmed by it.
    pub unconfirmed: u64,
    /// Connections that their peers ended while the guest slept.
    pub reset: u64,
    /// Answers to keep-alives and window probes that the limits forbade.
    pub unanswered: u64,
    /// Challenge and duplicate ACKs that the limits forbade.
    pub unchallenged: u64,
}

/// Custody of one NIC's connections. See the [module](self).
#[derive(Clone, Debug)]
pub struct Custody {
    policy: CustodyPolicy,
    table: Table,
    requests: Requests,
    suspects: Suspects,
    refused: Refused,
    budget: Budget,
    turn: Turn,
    /// The next connection to be asked.
    soliciting: Option<usize>,
    asleep: bool,
    counters: CustodyCounters,
}

impl Custody {
    /// Custody of nothing yet; takes no memory of its own. `seed` keys its hash tables.
    #[must_use]
    pub fn new(policy: CustodyPolicy, seed: u64) -> Self {
        let mut seeds = Rng::seeded(seed);
        Self {
            policy,
            table: Table::new(seeds.next_u64()),
            requests: Requests::new(seeds.next_u64()),
            suspects: Suspects::default(),
            refused: Refused::default(),
            budget: Budget::default(),
            turn: Turn::default(),
            soliciting: None,
            asleep: false,
            counters: CustodyCounters::default(),
        }
    }

    /// Another policy from now on.
    pub const fn set_policy(&mut self, policy: CustodyPolicy) {
        self.policy = policy;
    }

    /// The guest was not observed until now: connections may have ended in that time.
    pub(crate) const fn note_gap(&mut self, now: Instant) {
        self.table.note_gap(now);
    }

    /// Takes note of a frame that the awake guest sent (`from_guest`) or got. May allocate, up to the policy's
    /// limits.
    pub fn learn(
        &mut self,
        now: Instant,
        identity: &NicIdentity,
        from_guest: bool,
        frame: &Frame<'_>,
        packet: &Packet<'_>,
    ) {
        if let Some(segment) = Segment::of(from_guest, packet) {
            self.learn_segment(now, identity, from_guest, frame, &segment);
        }
    }

    /// We speak for the guest from now on, and what is held for it is judged anew. Again, for one that we speak for
    /// already: nothing else changes.
    pub fn sleep(&mut self, now: Instant, rng: &mut Rng) {
        self.suspects.begin();
        for connection in self.table.iter_mut() {
            connection.noted = None;
        }
        if core::mem::replace(&mut self.asleep, true) {
            return;
        }
        self.soliciting = None;
        self.end_handshakes(now);
        for connection in self.table.iter_mut() {
            connection.exact = connection.has_confirmed();
            self.counters.unconfirmed += u64::from(connection.is_answerable() && !connection.exact);
        }
        self.table.reserve(INFERRED, self.policy.connections.get());
        self.set_turns(now, rng);
    }

    /// Those to the guest whose end was missed are connections; of the guest's own nothing is known then but that
    /// they were tried, and what is under way is the guest's to go on with.
    fn end_handshakes(&mut self, now: Instant) {
        for connection in self.table.iter_mut() {
            if connection.phase == Phase::SynReceived && !connection.is_in_handshake(now) {
                connection.phase = Phase::Established;
            }
        }
        self.keep_only(|connection| connection.phase == Phase::Established);
    }

    fn keep_only(&mut self, which: impl Fn(&Connection) -> bool) {
        let mut at = 0;
        while let Some(connection) = self.table.at(at) {
            if which(connection) {
                at += 1;
            } else {
                self.table.remove_at(at);
            }
        }
    }

    /// The guest speaks for itself: nothing is due any more, what was learned stays and is exact no longer, what was
    /// inferred goes.
    pub fn wake(&mut self) {
        self.soliciting = None;
        for connection in self.table.iter_mut() {
            connection.exact = false;
            connection.asked_at = None;
        }
        if !core::mem::replace(&mut self.asleep, false) {
            return;
        }
        self.keep_only(|connection| !connection.inferred);
        self.suspects.end();
        self.end_turns();
    }

    /// What it has done so far.
    #[must_use]
    pub const fn counters(&self) -> CustodyCounters {
        let mut counters = self.counters;
        counters.known = self.table.len() as u64;
        counters
    }
}

/// Connections for which a sleeper has room that were not learned while it was awake.
const INFERRED: usize = 128;

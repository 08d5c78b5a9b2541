//! Multicast DNS and the services that it tells of, in a sleeper's name (RFC 6762, RFC 6763).
//!
//! While the guest is awake its announcements and answers are taken note of ([`mod@learn`]), and when it falls
//! asleep what its operator declared is added ([`mod@declare`]). From then on questions are answered as the guest
//! would: what it alone has at once, what others may have too after a while, what was just said not again. There
//! is no goodbye at sleep and no announcement: nothing changed.
//!
//! | decision | file |
//! |---|---|
//! | which records there are, and which go when there are too many | [`mod@store`] |
//! | what answers a question, and what the asker knows already | [`mod@question`] |
//! | who is answered alone, and whom to wait for | [`mod@askers`] |
//! | when a record is said to all | [`mod@turns`] |
//! | whether another host's response is a conflict | [`mod@others`] |
//! | the bytes | [`mod@message`] |
//!
//! What goes to one address alone is at most three times as long as the question; what goes to all is bounded by
//! each record's turn: once a second.

mod askers;
mod declare;
mod learn;
mod message;
mod others;
mod question;
mod store;
mod turns;

use serde::{Deserialize, Serialize};
use surrogate_wire::dns::{Message, Section, flag, kind};
use surrogate_wire::{Frame, FrameBuf, Packet, Transport};

use askers::{Asked, Askers, Legacy};
use question::Answers;
pub use store::{BYTES, LearnedRecord, RECORDS};
use store::{Family, Set, Store};

use super::datagram::{self, Datagram, Way};
use super::presence::Heard;
use crate::engine::{Answered, WakeReason};
use crate::guest::identity::NicIdentity;
use crate::rng::Rng;
use crate::time::{Duration, Instant};

/// The port.
pub const PORT: u16 = 5353;
/// "All Multicast DNS responses [...] SHOULD be sent with IP TTL set to 255" (RFC 6762 11).
const TTL: u8 = 255;
/// Questions that are looked at in one message: more than a real one has.
const QUESTIONS: usize = 32;

/// See the [module](self).
#[derive(Clone, Debug, Default)]
pub struct Mdns {
    store: Store,
    askers: Askers,
    /// The earliest of all that is owed.
    due: Option<Instant>,
}

/// What survives the daemon.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MdnsLearned {
    /// The guest's records.
    pub records: Vec<LearnedRecord>,
}

impl Mdns {
    /// Takes note of what the guest says of itself.
    pub fn learn(&mut self, now: Instant, from_guest: bool, _: &Frame<'_>, packet: &Packet<'_>) {
        let ports = packet.transport().and_then(Transport::ports);
        if from_guest && ports == Some((PORT, PORT)) {
            // Places change, and an awake guest answers for itself.
            self.forget_owed();
            learn::learn(&mut self.store, now, packet);
        }
    }

    /// Takes a question, or another host's answer.
    pub fn hear(
        &mut self,
        now: Instant,
        rng: &mut Rng,
        identity: &NicIdentity,
        frame: &Frame<'_>,
        packet: &Packet<'_>,
    ) -> Heard {
        let Some(Transport::Udp(udp)) = packet.transport() else { return Heard::NotMine };
        if udp.dst_port != PORT || self.store.is_empty() {
            return Heard::NotMine;
        }
        let Some(datagram) = Datagram::heard(identity, frame, packet) else { return Heard::NotMine };
        let family = Family::of(datagram.dst);
        if !datagram.is_unicast && datagram.dst != family.group() {
            return Heard::NotMine;
        }
        // Who wants the guest to have such frames gets what we make nothing of.
        let quiet = if datagram::listens(identity, PORT) { Heard::NotMine } else { Heard::Noted };
        let Ok(message) = Message::parse(udp.payload) else { return quiet };
        // "messages received with an opcode other than zero MUST be silently ignored" (18.3), so with rcode.
        if message.opcode() != 0 || message.rcode() != 0 {
            return quiet;
        }
        let heard = if message.is_response() {
            self.hear_response(now, rng, identity, &datagram, &message)
        } else {
            self.hear_query(now, rng, identity, &datagram, &message)
        };
        self.set_due();
        heard.unwrap_or(quiet)
    }

    /// When there is something to say next.
    #[must_use]
    pub const fn due(&self) -> Option<Instant> {
        self.due
    }

    /// Writes the next response that is due.
    pub fn speak(
        &mut self,
        now: Instant,
        _: &mut Rng,
        identity: &NicIdentity,
        out: &mut FrameBuf<'_>,
    ) -> Option<Answered> {
        let said = self.tell_one(now, identity, out).or_else(|| self.tell_all(now, identity, out));
        self.set_due();
        said.map(|()| Answered::Mdns)
    }

    /// From now on we answer.
    pub fn sleep(&mut self, _: Instant, _: &mut Rng, identity: &NicIdentity) {
        declare::declare(&mut self.store, identity);
        self.forget_owed();
        if !self.store.is_empty() {
            self.askers.reserve();
        }
    }

    /// The guest answers for itself. A name that another host took it gives up, or says again (RFC 6762 9).
    pub fn wake(&mut self) {
        self.forget_owed();
        self.store.take_out(|record| record.disputed && record.heard.is_some());
    }

    /// What was learned, to be kept.
    #[must_use]
    pub fn learned(&self, _: Instant) -> MdnsLearned {
        MdnsLearned { records: self.store.learned() }
    }

    /// As it was `ago` before `now`, as far as that is sound.
    #[must_use]
    pub fn restore(learned: &MdnsLearned, now: Instant, ago: Duration) -> Self {
        Self { store: Store::restored(&learned.records, now - ago), ..Self::default() }
    }

    /// How often a limit kept something from being remembered.
    #[must_use]
    pub const fn limited(&self) -> u64 {
        self.store.limited
    }

    fn hear_query(
        &mut self,
        now: Instant,
        rng: &mut Rng,
        identity: &NicIdentity,
        datagram: &Datagram,
        message: &Message<'_>,
    ) -> Option<Heard> {
        let family = Family::of(datagram.dst);
        let asker = datagram.asker;
        let goes_on = message.flags & flag::TRUNCATED != 0;
        let known = question::known(&self.store, message);
        if message.count(Section::Question) == 0 {
            let until = goes_on.then(|| now + turns::more_to_come(rng));
            self.askers.knows(&asker, known, until);
            return None;
        }
        let legacy = asker.port != PORT;
        // In a query the authority section is what a probe wants for itself (8.1).
        let probes = message.count(Section::Authority) > 0;
        let sayable = self.store.sayable(identity);
        let (mut alone, mut to_all) = (Answers::default(), Answers::default());
        let mut repeated = None;
        let mut defends = false;
        for question in message.questions().take(QUESTIONS) {
            let found = question::answers(&self.store, sayable, &question);
            let found = found.without(Answers { records: known, denials: Set::default() });
            if found.is_empty() {
                continue;
            }
            let is_own = found.records.iter().any(|at| self.store.get(at).is_some_and(|own| own.unique));
            let is_probe = probes && question.kind == kind::ANY && is_own;
            defends |= is_probe;
            if legacy {
                // Only one question can be repeated.
                alone = found;
                repeated = Some(Legacy::new(message.id, &question));
                break;
            }
            if question.unicast || datagram.is_unicast {
                let fresh = self.fresh(now, family, found);
                let stale = found.without(fresh);
                to_all = to_all.and(stale);
                // "should always generate the requested unicast response" to a probe (5.4).
                alone = alone.and(if is_probe { found } else { fresh });
            } else {
                to_all = to_all.and(found);
            }
        }
        if alone.and(to_all).is_empty() {
            return None;
        }
        let is_own = |at: usize| self.store.get(at).is_some_and(|record| record.unique);
        let all_own = alone.and(to_all).records.iter().all(is_own);
        let wait = if defends {
            Duration::ZERO
        } else if goes_on {
            turns::more_to_come(rng)
        } else if message.count(Section::Question) > 1 || !all_own {
            turns::others_may_answer(rng)
        } else {
            Duration::ZERO
        };
        let waits = goes_on && !defends;
        if !alone.is_empty() || waits {
            let due = now + wait;
            let at_due = if waits { to_all } else { Answers::default() };
            let latest = now + askers::LONGEST;
            let asked =
                Asked { asker, family, due, latest, alone, to_all: at_due, legacy: repeated, goes_on: waits };
            if self.askers.add(asked) {
                to_all = to_all.without(at_due);
            } else if legacy {
                return Some(Heard::TooMany);
            } else {
                to_all = to_all.and(alone);
            }
        }
        turns::owe(&mut self.store, family, to_all, now, wait, defends);
        Some(Heard::Owed(Answered::Mdns))
    }

    fn hear_response(
        &mut self,
        now: Instant,
        rng: &mut Rng,
        identity: &NicIdentity,
        datagram: &Datagram,
        message: &Message<'_>,
    ) -> Option<Heard> {
        let family = Family::of(datagram.dst);
        // "MUST silently ignore any Multicast DNS responses they receive where the source UDP port is not
        // 5353" (6).
        if datagram.asker.port != PORT {
            return None;
        }
        let told = others::told(&self.store, self.store.sayable(identity), message);
        if !told.claimed.is_empty() {
            self.store.dispute(told.claimed);
            return Some(Heard::Wake(WakeReason::NameConflict { by: datagram.asker.address }));
        }
        if datagram.is_unicast {
            return None;
        }
        turns::said_by_another(&mut self.store, family, told.as_ours, now);
        if told.too_short.is_empty() {
            return None;
        }
        let again = Answers { records: told.too_short, denials: Set::default() };
        turns::owe(&mut self.store, family, again, now, turns::others_may_answer(rng), false);
        Some(Heard::Owed(Answered::Mdns))
    }

    /// Those that all heard within the last quarter of their time: an asker that wants his own answer may have it
    /// (RFC 6762 5.4). The others are said to all, so that caches stay fresh.
    fn fresh(&self, now: Instant, family: Family, found: Answers) -> Answers {
        let mut fresh = Answers { records: Set::default(), denials: found.denials };
        for at in found.records.iter() {
            let Some(record) = self.store.get(at) else { continue };
            let quarter = Duration::from_secs(record.ttl.into()) / 4;
            if record.said(family).is_some_and(|said| now.since(said) < quarter) {
                fresh.records.add(at);
            }
        }
        fresh
    }

    /// What is due to single askers.
    fn tell_one(&mut self, now: Instant, identity: &NicIdentity, out: &mut FrameBuf<'_>) -> Option<()> {
        while let Some(asked) = self.askers.take(now) {
            turns::owe(&mut self.store, asked.family, asked.to_all, now, Duration::ZERO, false);
            if asked.alone.is_empty() {
                continue;
            }
            let sayable = self.store.sayable(identity);
            let beside = question::beside(&self.store, sayable, asked.alone);
            let mut memory = [0; message::LONGEST];
            let room = asked.asker.room.min(datagram::room(out)).min(memory.len());
            let room = memory.get_mut(..room).unwrap_or_default();
            let written = message::write(&self.store, asked.alone, beside, asked.legacy.as_ref(), room);
            if asked.legacy.is_none() {
                // What he may not have alone, all may have.
                let missing = asked.alone.without(written.map(|(written, _)| written).unwrap_or_default());
                turns::owe(&mut self.store, asked.family, missing, now, Duration::ZERO, false);
            }
            let Some((_, len)) = written else { continue };
            let payload = memory.get(..len).unwrap_or_default();
            if let Some(way) = Way::back(identity, &asked.asker)
                && way.send(PORT, TTL, payload, out).is_some()
            {
                return Some(());
            }
        }
        None
    }

    /// What is due to all.
    fn tell_all(&mut self, now: Instant, identity: &NicIdentity, out: &mut FrameBuf<'_>) -> Option<()> {
        for family in Family::ALL {
            let due = turns::due(&mut self.store, family, now);
            if due.is_empty() {
                continue;
            }
            let sayable = self.store.sayable(identity);
            let beside = question::beside(&self.store, sayable, due);
            let beside = beside.without(turns::just_said(&self.store, family, now));
            let mut memory = [0; message::LONGEST];
            let room = datagram::room(out).min(memory.len());
            let room = memory.get_mut(..room).unwrap_or_default();
            let written = message::write(&self.store, due, beside, None, room);
            let sent = written.and_then(|(written, len)| {
                let way = Way::group(identity, family.group(), PORT)?;
                way.send(PORT, TTL, memory.get(..len)?, out)?;
                Some(written)
            });
            match sent {
                Some(written) => {
                    turns::said(&mut self.store, family, written, now);
                    return Some(());
                }
                // No way to say it: no address of this family, or a port that takes no such frame.
                None => turns::drop(&mut self.store, family, due),
            }
        }
        None
    }

    fn forget_owed(&mut self) {
        self.askers.clear();
        turns::clear(&mut self.store);
        self.due = None;
    }

    fn set_due(&mut self) {
        self.due = [self.askers.due(), turns::next(&self.store)].into_iter().flatten().min();
    }
}

#[cfg(test)]
mod tests;

//! Which records answer a question, which of them the asker has already, and what is told beside them.

use surrogate_wire::dns::{ANY_CLASS, IN, Message, Question, Section, kind};

use super::store::{Record, Set, Store};

/// Records to be said, and names of which it is to be said that they have no others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Answers {
    /// The records themselves.
    pub(super) records: Set,
    /// A record of each name that has none of the type asked for (RFC 6762 6.1).
    pub(super) denials: Set,
}

impl Answers {
    pub(super) const fn is_empty(self) -> bool {
        self.records.is_empty() && self.denials.is_empty()
    }

    pub(super) const fn and(self, other: Self) -> Self {
        Self { records: self.records.and(other.records), denials: self.denials.and(other.denials) }
    }

    pub(super) const fn without(self, other: Self) -> Self {
        Self { records: self.records.without(other.records), denials: self.denials.without(other.denials) }
    }
}

/// What is owed for one question, `sayable` being all that may be said.
pub(super) fn answers(store: &Store, sayable: Set, question: &Question<'_>) -> Answers {
    let mut answers = Answers::default();
    if !matches!(question.class, IN | ANY_CLASS) {
        return answers;
    }
    let mut first_own = None;
    let mut has_kind = false;
    for (at, record) in store.iter().filter(|(_, record)| question.name.is(&record.name)) {
        let is_asked = record.kind == question.kind || matches!(question.kind, kind::ANY);
        has_kind |= is_asked;
        if !sayable.has(at) {
            continue;
        }
        if is_asked || record.kind == kind::CNAME {
            answers.records.add(at);
        }
        if record.unique && first_own.is_none() {
            first_own = Some(at);
        }
    }
    // Types above 255 cannot be denied in the short form that multicast DNS has.
    if let (Some(own), true, false, ..=255) = (first_own, answers.is_empty(), has_kind, question.kind) {
        answers.denials.add(own);
    }
    answers
}

/// Those of our records that the asker says he knows, and for at least half of their time (RFC 6762 7.1).
pub(super) fn known(store: &Store, message: &Message<'_>) -> Set {
    let mut known = Set::default();
    let told = message.records().take_while(|(section, _)| *section == Section::Answer);
    for (_, theirs) in told.filter(|(_, theirs)| theirs.class == IN) {
        for at in store.same(&theirs).iter() {
            if store.get(at).is_some_and(|own| theirs.ttl >= own.ttl.div_ceil(2)) {
                known.add(at);
            }
        }
    }
    known
}

/// What an asker will want to know next: where the instances are, what they say, and all addresses of their host
/// (RFC 6763 12, RFC 6762 6.2).
pub(super) fn beside(store: &Store, sayable: Set, answers: Answers) -> Answers {
    let mut all = answers;
    // From an instance to its place, from there to the host, from one address to the others.
    for _ in 0..3 {
        for at in all.records.iter() {
            let Some(record) = store.get(at) else { continue };
            let of = |name: &[u8], kinds: &[u16]| {
                store.set(|other| other.is_of(name) && kinds.contains(&other.kind))
            };
            let next = match (record.kind, record.target()) {
                (kind::PTR, Some(instance)) => of(instance, &[kind::SRV, kind::TXT]),
                (kind::SRV, Some(host)) => of(host, &ADDRESSES),
                (kind::A | kind::AAAA, _) => of(&record.name, &ADDRESSES),
                _ => continue,
            };
            all.records = all.records.and(next);
        }
    }
    for at in all.records.iter() {
        if let Some(record) = store.get(at)
            && lacks_a_family(store, record)
            && sayable.has(at)
        {
            all.denials.add(at);
        }
    }
    all.records = all.records.without(all.records.without(sayable));
    all.without(answers)
}

/// Whether an address stands alone in its family, and is the first record of its name.
fn lacks_a_family(store: &Store, record: &Record) -> bool {
    let others = || store.iter().filter(|(_, other)| other.is_of(&record.name));
    let is_first = others().next().is_some_and(|(_, first)| core::ptr::eq(first, record));
    let has = |kind: u16| others().any(|(_, other)| other.kind == kind);
    ADDRESSES.contains(&record.kind) && record.unique && is_first && !ADDRESSES.iter().all(|kind| has(*kind))
}

/// The types of addresses.
const ADDRESSES: [u16; 2] = [kind::A, kind::AAAA];

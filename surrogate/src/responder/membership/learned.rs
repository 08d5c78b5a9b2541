//! What an awake guest's own reports say of its groups, of any version.

use surrogate_wire::membership::{Heard, Message, RecordKind};

use super::filter::Filter;
use super::{Membership, Reported};
use crate::time::Instant;

/// Groups learned of one NIC in one family. One more, and the one not heard of for longest goes.
pub const MAX_LEARNED: usize = 64;

/// See the [module](self).
#[derive(Clone, Debug)]
pub(super) struct Learned<A> {
    groups: Vec<Known<A>>,
    changes: u64,
    limited: u64,
}

#[derive(Clone, Debug)]
struct Known<A> {
    group: A,
    /// When the guest told of it last.
    heard: Instant,
    filter: Filter<A>,
}

impl<A> Default for Learned<A> {
    fn default() -> Self {
        Self { groups: Vec::new(), changes: 0, limited: 0 }
    }
}

impl<A: Reported> Learned<A> {
    /// Takes a message of the guest's.
    pub(super) fn hear(&mut self, now: Instant, message: &Message<'_, A>) {
        match *message {
            Message::Query(_) => {}
            Message::Report { group, .. } => self.set(now, group, Filter::ALL),
            Message::Leave(group) => self.forget(group),
            Message::Records(records) => records.iter().for_each(|heard| self.hear_record(now, &heard)),
        }
    }

    fn hear_record(&mut self, now: Instant, heard: &Heard<'_, A>) {
        let Heard { kind, group, sources } = *heard;
        let known =
            || self.groups.iter().find(|known| known.group == group).map(|known| known.filter.clone());
        let (mut filter, wanted) = match kind {
            RecordKind::IsExclude | RecordKind::ToExclude => (Filter::ALL, false),
            RecordKind::ToInclude => (Filter::NOTHING, true),
            // Perhaps about those sources alone that a query asked for.
            RecordKind::IsInclude | RecordKind::Allow => (known().unwrap_or(Filter::NOTHING), true),
            RecordKind::Block => (known().unwrap_or(Filter::NOTHING), false),
        };
        let noted = if wanted { filter.want(sources.iter()) } else { filter.refuse(sources.iter()) };
        self.limited += u64::from(!noted);
        self.set(now, group, filter);
    }

    fn set(&mut self, now: Instant, group: A, filter: Filter<A>) {
        if !group.is_reported() {
            return;
        }
        if filter.is_nothing() {
            return self.forget(group);
        }
        if let Some(known) = self.groups.iter_mut().find(|known| known.group == group) {
            (known.heard, known.filter) = (now, filter);
            return;
        }
        if self.groups.len() >= MAX_LEARNED
            && let Some(oldest) =
                (0..self.groups.len()).min_by_key(|at| self.groups.get(*at).map(|known| known.heard))
        {
            self.groups.remove(oldest);
            self.limited += 1;
        }
        self.groups.push(Known { group, heard: now, filter });
        self.changes += 1;
    }

    fn forget(&mut self, group: A) {
        let before = self.groups.len();
        self.groups.retain(|known| known.group != group);
        self.changes += u64::from(self.groups.len() != before);
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (A, &Filter<A>)> {
        self.groups.iter().map(|known| (known.group, &known.filter))
    }

    pub(super) const fn changes(&self) -> u64 {
        self.changes
    }

    pub(super) const fn limited(&self) -> u64 {
        self.limited
    }

    pub(super) const fn count_limited(&mut self) {
        self.limited += 1;
    }

    pub(super) fn memberships(&self) -> Vec<Membership<A>> {
        let plain = |(group, filter): (A, &Filter<A>)| Membership {
            group,
            include: filter.include,
            sources: filter.sources.clone(),
        };
        self.iter().map(plain).collect()
    }

    /// What of `memberships` a guest can have told, when it was `heard`.
    pub(super) fn restore(memberships: &[Membership<A>], heard: Instant) -> Self {
        let mut learned = Self::default();
        for Membership { group, include, sources } in memberships {
            let sources = sources.iter().copied();
            let mut filter = if *include { Filter::NOTHING } else { Filter::ALL };
            let noted = if *include { filter.want(sources) } else { filter.refuse(sources) };
            learned.limited += u64::from(!noted);
            learned.set(heard, *group, filter);
        }
        learned
    }
}

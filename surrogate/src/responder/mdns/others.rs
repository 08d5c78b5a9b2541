//! Responses of other hosts: a claim on the guest's own names, an answer that saves ours, or one that would make
//! the guest's record end too early.

use surrogate_wire::dns::{IN, Message, Section};

use super::store::{Set, Store};

/// What a response of another host means for us.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Told {
    /// Those of the guest's alone of which another host has others, of the same name and type (RFC 6762 9).
    pub(super) claimed: Set,
    /// Ours, with less than half of its time: to be said again (6.6, and 10.1 for a goodbye).
    pub(super) too_short: Set,
    /// Ours, as we would have said it (7.4).
    pub(super) as_ours: Set,
}

/// Compares a response with the guest's records, of which those in `sayable` are its own to say: an address that it
/// has no more, or that it only passed on, is no claim.
pub(super) fn told(store: &Store, sayable: Set, message: &Message<'_>) -> Told {
    let mut told = Told::default();
    let said =
        message.records().filter(|(section, record)| *section != Section::Authority && record.class == IN);
    for (_, theirs) in said {
        let same = store.same(&theirs);
        for at in same.iter().filter(|at| sayable.has(*at)) {
            match store.get(at) {
                Some(own) if theirs.ttl < own.ttl.div_ceil(2) => told.too_short.add(at),
                Some(own) if theirs.ttl >= own.ttl => told.as_ours.add(at),
                _ => {}
            }
        }
        // A goodbye to what is not ours is somebody's own affair.
        if same.is_empty() && theirs.ttl > 0 {
            let claimed = store.of(&theirs.name, theirs.kind);
            let is_own = |at: &usize| sayable.has(*at) && store.get(*at).is_some_and(|own| own.unique);
            claimed.iter().filter(is_own).for_each(|at| told.claimed.add(at));
        }
    }
    told
}

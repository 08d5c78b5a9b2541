//! What was said in a sleeper's name, for the event that tells of its wake: how often, by protocol.
//!
//! A packet thread tells a NIC's counters right before it begins to speak for it, and again when it has ended; what
//! lies between is added up. What a port of ours that was lost had said since then is lost with it.

use crate::engine::{Answered, Counters};
use crate::guest::identity::NicId;

/// See the [module](self).
#[derive(Debug, Default)]
pub(super) struct Said {
    /// What each NIC's counters were when they were told last.
    last: Vec<(NicId, ByKind, ByKind)>,
    answered: ByKind,
    spoken: ByKind,
}

/// Numbers in the order of [`Answered::ALL`].
type ByKind = [u64; Answered::KINDS];

impl Said {
    /// A NIC's counters are told. They count from zero after a port of ours was lost: less than before.
    pub(super) fn take(&mut self, nic: NicId, counters: &Counters) {
        let now = (nic, counters.answered, counters.spoken);
        match self.last.iter_mut().find(|(told, ..)| *told == nic) {
            Some(last) => {
                add(&mut self.answered, &last.1, &now.1);
                add(&mut self.spoken, &last.2, &now.2);
                *last = now;
            }
            None => self.last.push(now),
        }
    }

    /// What was said since this was asked last, for the end of a line; nothing if nothing was.
    pub(super) fn tell(&mut self) -> String {
        let answered = told(core::mem::take(&mut self.answered));
        let spoken = told(core::mem::take(&mut self.spoken));
        let parts = [("answered in its name", answered), ("said of its own accord", spoken)];
        parts.into_iter().filter_map(|(what, told)| Some(format!("; {what}: {}", told?))).collect()
    }
}

fn add(sum: &mut ByKind, before: &ByKind, now: &ByKind) {
    for ((sum, before), now) in sum.iter_mut().zip(before).zip(now) {
        *sum = sum.saturating_add(now.saturating_sub(*before));
    }
}

/// "7 arp, 5 icmpv4-echo"
fn told(counts: ByKind) -> Option<String> {
    let kinds = Answered::ALL.into_iter().zip(counts).filter(|(_, n)| *n > 0);
    let parts: Vec<_> = kinds.map(|(kind, n)| format!("{n} {}", kind.name())).collect();
    (!parts.is_empty()).then(|| parts.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counters(echoes: u64, reports: u64) -> Counters {
        let mut counters = Counters::default();
        counters.answered[Answered::Icmpv4Echo as usize] = echoes;
        counters.spoken[Answered::Igmp as usize] = reports;
        counters
    }

    #[test]
    fn what_was_said_in_one_sleep_is_told_by_protocol_and_once() {
        let (mut said, first, second) = (Said::default(), NicId(1), NicId(2));
        said.take(first, &counters(100, 7));
        said.take(second, &counters(0, 0));
        assert_eq!(said.tell(), "", "that was said before");
        said.take(first, &counters(105, 8));
        said.take(second, &counters(1, 0));
        assert_eq!(said.tell(), "; answered in its name: 6 icmpv4-echo; said of its own accord: 1 igmp");
        assert_eq!(said.tell(), "");
    }

    #[test]
    fn counters_that_begin_anew_with_another_port_are_no_great_number() {
        let (mut said, nic) = (Said::default(), NicId(1));
        said.take(nic, &counters(100, 7));
        said.take(nic, &counters(0, 0));
        said.take(nic, &counters(3, 0));
        assert_eq!(said.tell(), "; answered in its name: 3 icmpv4-echo");
    }
}

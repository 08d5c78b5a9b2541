//! Finds the held copy of a repeated TCP segment, in constant time.
//!
//! What makes two segments the same one sent twice: addresses, ports, sequence and acknowledgement
//! number, payload length, flags and window: one that only moves the window is news (RFC 9293 3.10.7.4,
//! SND.WND). A SYN repeats by addresses, ports and initial sequence number alone, whatever its options say
//! now (timestamps change). Chained hash index over the
//! slots of [`hold`](super::hold), preallocated, keyed by a seed so that nobody can aim at a chain.

use core::hash::{BuildHasher, Hash};
use core::net::IpAddr;

use crate::hash::Seeded;

/// Identity of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Twin {
    /// Source address.
    pub(super) source: IpAddr,
    /// Destination address.
    pub(super) destination: IpAddr,
    /// Source and destination port.
    pub(super) ports: (u16, u16),
    /// Sequence number.
    pub(super) seq: u32,
    /// Acknowledgement number; zero for a SYN.
    pub(super) ack: u32,
    /// Bytes of payload; zero for a SYN.
    pub(super) len: u32,
    /// The window as sent; zero for a SYN.
    pub(super) window: u16,
    /// The flags FIN to URG; SYN alone for a SYN.
    pub(super) flags: u8,
}

impl Twin {
    /// Flag SYN (RFC 9293 3.1).
    pub(super) const SYN: u8 = 0x02;
    /// Flag ACK, and one that no segment has.
    const NEWEST_ACK: u8 = 0x10 | 0x80;

    /// Of an acknowledgement that says all that earlier ones of its flow said: they are its copies.
    #[must_use]
    pub(super) const fn of_newest_ack(self) -> Self {
        Self { seq: 0, ack: 0, len: 0, window: 0, flags: Self::NEWEST_ACK, ..self }
    }

    /// Whether of two copies the newer is worth more: a SYN, whose timestamp must be fresh.
    #[must_use]
    pub(super) const fn newest_counts(&self) -> bool {
        self.flags == Self::SYN || self.is_newest_ack()
    }

    /// Whether the newer copy also comes later: an acknowledgement must not overtake what came before it.
    #[must_use]
    pub(super) const fn is_newest_ack(&self) -> bool {
        self.flags == Self::NEWEST_ACK
    }
}

/// See the [module](self).
pub(super) struct TwinIndex {
    /// First slot per bucket, plus one.
    buckets: Vec<u32>,
    /// Next slot of the same bucket per slot, plus one.
    chain: Vec<u32>,
    hasher: Seeded,
}

impl TwinIndex {
    /// For slots 0 to `slots` - 1.
    #[must_use]
    pub(super) fn new(slots: usize, seed: u64) -> Self {
        Self { buckets: vec![0; slots.next_power_of_two()], chain: vec![0; slots], hasher: Seeded::new(seed) }
    }

    /// The slot of `owner`'s `twin`, of those for which `is` holds.
    pub(super) fn find(&self, owner: u32, twin: &Twin, is: impl Fn(u32) -> bool) -> Option<u32> {
        let mut at = self.buckets.get(self.bucket(owner, twin))?.checked_sub(1);
        while let Some(slot) = at {
            if is(slot) {
                return Some(slot);
            }
            at = self.chain.get(slot as usize)?.checked_sub(1);
        }
        None
    }

    /// Enters `slot`.
    pub(super) fn insert(&mut self, owner: u32, twin: &Twin, slot: u32) {
        let bucket = self.bucket(owner, twin);
        if let (Some(first), Some(next)) = (self.buckets.get_mut(bucket), self.chain.get_mut(slot as usize)) {
            *next = *first;
            *first = slot + 1;
        }
    }

    /// Takes `slot` out.
    pub(super) fn remove(&mut self, owner: u32, twin: &Twin, slot: u32) {
        let bucket = self.bucket(owner, twin);
        let Some(after) = self.chain.get_mut(slot as usize).map(core::mem::take) else { return };
        let Some(first) = self.buckets.get_mut(bucket) else { return };
        if *first == slot + 1 {
            *first = after;
            return;
        }
        let mut at = first.checked_sub(1);
        while let Some(next) = at.and_then(|at| self.chain.get_mut(at as usize)) {
            if *next == slot + 1 {
                *next = after;
                return;
            }
            at = next.checked_sub(1);
        }
    }

    fn bucket(&self, owner: u32, twin: &Twin) -> usize {
        let mut hasher = self.hasher.build_hasher();
        owner.hash(&mut hasher);
        twin.hash(&mut hasher);
        core::hash::Hasher::finish(&hasher) as usize & (self.buckets.len() - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn twin(seq: u32) -> Twin {
        let ip = |n| IpAddr::from([192, 0, 2, n]);
        let ports = (40_000, 80);
        Twin { source: ip(1), destination: ip(11), ports, seq, ack: 1, len: 10, window: 9, flags: 0x18 }
    }

    #[test]
    fn entries_that_share_a_bucket_are_found_and_removed_apart() {
        // One bucket: all chain.
        let mut index = TwinIndex { buckets: vec![0], chain: vec![0; 4], hasher: Seeded::new(1) };
        let twins: Vec<Twin> = (0..4).map(twin).collect();
        for (slot, t) in (0..).zip(&twins) {
            index.insert(0, t, slot);
        }
        let find = |index: &TwinIndex, n: u32| index.find(0, &twin(n), |slot| slot == n);
        index.remove(0, &twins[2], 2);
        index.remove(0, &twins[3], 3);
        assert_eq!(
            [find(&index, 0), find(&index, 1), find(&index, 2), find(&index, 3)],
            [Some(0), Some(1), None, None]
        );
        index.remove(0, &twins[0], 0);
        assert_eq!(find(&index, 1), Some(1));
    }

    #[test]
    fn only_a_bare_syn_prefers_its_newest_copy() {
        assert!(Twin { flags: Twin::SYN, ..twin(0) }.newest_counts());
        assert!(!Twin { flags: 0x12, ..twin(0) }.newest_counts());
    }
}

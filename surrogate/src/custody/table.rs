//! The connections of one NIC: open addressing over a seeded hash, at most as many as the policy says.
//!
//! Memory grows by doubling while the guest is awake and never while it sleeps. At the limit a new connection takes
//! the place of one that is closed, closing or never came to be: the longest silent of some that are looked at in
//! turn, so that work stays bounded whoever opens connections. If there is none, one in use takes the place of one
//! whose guest has not spoken for [`SILENT`], or not since it was last unobserved: ends can be missed, and nobody may
//! fill the table for good with connections that are no more. Else the new one is refused.

use core::hash::BuildHasher;

use super::connection::{Connection, Phase, Tuple};
use crate::hash::Seeded;
use crate::time::{Duration, Instant};

/// See the [module](self).
#[derive(Clone, Debug)]
pub(super) struct Table {
    connections: Vec<Connection>,
    /// Open addressed: a connection's position plus one, zero for none. Twice as many places as connections.
    index: Vec<u32>,
    hasher: Seeded,
    /// Where the search for a disposable one goes on.
    hand: usize,
    /// When the guest was last not observed: an end before that may have been missed.
    gap: Option<Instant>,
}

/// No place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Full;

impl Table {
    /// An empty one; takes no memory.
    pub(super) const fn new(seed: u64) -> Self {
        Self { connections: Vec::new(), index: Vec::new(), hasher: Seeded::new(seed), hand: 0, gap: None }
    }

    pub(super) const fn len(&self) -> usize {
        self.connections.len()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Connection> {
        self.connections.iter()
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Connection> {
        self.connections.iter_mut()
    }

    /// By position, which any removal may change.
    pub(super) fn at(&self, position: usize) -> Option<&Connection> {
        self.connections.get(position)
    }

    pub(super) fn at_mut(&mut self, position: usize) -> Option<&mut Connection> {
        self.connections.get_mut(position)
    }

    pub(super) fn find(&self, tuple: &Tuple) -> Option<usize> {
        self.place(tuple).map(|(_, position)| position)
    }

    pub(super) fn get(&self, tuple: &Tuple) -> Option<&Connection> {
        self.at(self.find(tuple)?)
    }

    pub(super) fn get_mut(&mut self, tuple: &Tuple) -> Option<&mut Connection> {
        self.at_mut(self.find(tuple)?)
    }

    /// The guest was not observed until now.
    pub(super) const fn note_gap(&mut self, now: Instant) {
        self.gap = Some(now);
    }

    /// Makes room for `more` connections beyond those there are, within `limit`.
    pub(super) fn reserve(&mut self, more: usize, limit: usize) {
        let wanted = limit.min(self.len().saturating_add(more));
        self.connections.reserve_exact(wanted.saturating_sub(self.len()));
        let places = wanted.saturating_mul(2).next_power_of_two().max(SMALLEST);
        if places > self.index.len() {
            self.index = vec![0; places];
            for position in 0..self.connections.len() {
                self.enter(position);
            }
        }
    }

    /// Whether one more finds room without new memory.
    pub(super) fn has_room(&self, limit: usize) -> bool {
        let len = self.len();
        len < limit && len < self.connections.capacity() && (len + 1) * 2 <= self.index.len()
    }

    /// Enters a connection in the place of another one of the same ends, if there is one. Says how many others
    /// had to go (none or one).
    ///
    /// # Errors
    /// [`Full`] if there are `limit` and none may go.
    pub(super) fn insert(&mut self, connection: Connection, limit: usize) -> Result<usize, Full> {
        if let Some(there) = self.get_mut(&connection.tuple) {
            *there = connection;
            return Ok(0);
        }
        let mut gone = 0;
        if self.len() >= limit {
            let victim = self.victim(&connection).ok_or(Full)?;
            self.remove_at(victim);
            gone = 1;
        }
        if !self.has_room(limit) {
            self.reserve(self.len().max(SMALLEST / 2), limit);
        }
        self.connections.push(connection);
        self.enter(self.connections.len() - 1);
        Ok(gone)
    }

    pub(super) fn remove(&mut self, tuple: &Tuple) -> bool {
        let found = self.find(tuple);
        if let Some(position) = found {
            self.remove_at(position);
        }
        found.is_some()
    }

    /// Takes the connection at `position` out; the last one takes its position.
    pub(super) fn remove_at(&mut self, position: usize) {
        let Some(connection) = self.connections.get(position) else { return };
        if let Some((place, _)) = self.place(&connection.tuple) {
            self.vacate(place);
        }
        let last = self.connections.len() - 1;
        if position < last
            && let Some((place, _)) = self.connections.get(last).and_then(|moved| self.place(&moved.tuple))
            && let Some(entry) = self.index.get_mut(place)
        {
            *entry = stored(position);
        }
        self.connections.swap_remove(position);
    }

    /// The hash of a tuple.
    pub(super) fn hash_of(&self, tuple: &Tuple) -> u64 {
        self.hasher.hash_one(tuple)
    }

    /// Whose place a new one may take, of the next [`LOOKED_AT`]: the longest silent disposable one, else the longest
    /// silent one that the new one may replace.
    fn victim(&mut self, new: &Connection) -> Option<usize> {
        let len = self.connections.len();
        let in_use = new.phase == Phase::Established;
        let gap = self.gap;
        let is_over = |there: &Connection| {
            let in_doubt = gap.is_some_and(|gap| there.heard_at < gap);
            in_use && (in_doubt || new.heard_at.since(there.heard_at) >= SILENT)
        };
        let looked_at = (0..LOOKED_AT.min(len)).map(|step| (self.hand + step) % len);
        let found = looked_at
            .filter_map(|position| Some((position, self.connections.get(position)?)))
            .filter(|(_, there)| there.is_disposable() || is_over(there))
            .min_by_key(|(_, there)| (!there.is_disposable(), there.heard_at))
            .map(|(position, _)| position);
        self.hand = (self.hand + LOOKED_AT).checked_rem(len).unwrap_or(0);
        found
    }

    /// Where a tuple stands in the index, and its connection's position.
    fn place(&self, tuple: &Tuple) -> Option<(usize, usize)> {
        let mask = self.index.len().checked_sub(1)?;
        let mut place = self.home(tuple, mask);
        loop {
            let position = self.index.get(place)?.checked_sub(1)? as usize;
            if self.connections.get(position)?.tuple == *tuple {
                return Some((place, position));
            }
            place = (place + 1) & mask;
        }
    }

    fn enter(&mut self, position: usize) {
        let (Some(mask), Some(connection)) =
            (self.index.len().checked_sub(1), self.connections.get(position))
        else {
            return;
        };
        let mut place = self.home(&connection.tuple, mask);
        // Half of the places are empty.
        while self.index.get(place).is_some_and(|entry| *entry != 0) {
            place = (place + 1) & mask;
        }
        if let Some(entry) = self.index.get_mut(place) {
            *entry = stored(position);
        }
    }

    /// Empties a place and moves those behind it up, so that each is found from its home without a gap.
    fn vacate(&mut self, mut hole: usize) {
        let Some(mask) = self.index.len().checked_sub(1) else { return };
        let mut next = hole;
        loop {
            next = (next + 1) & mask;
            let Some(position) = self.index.get(next).and_then(|entry| entry.checked_sub(1)) else { break };
            let Some(moved) = self.connections.get(position as usize) else { break };
            let home = self.home(&moved.tuple, mask);
            if next.wrapping_sub(home) & mask >= next.wrapping_sub(hole) & mask {
                if let Some(entry) = self.index.get_mut(hole) {
                    *entry = stored(position as usize);
                }
                hole = next;
            }
        }
        if let Some(entry) = self.index.get_mut(hole) {
            *entry = 0;
        }
    }

    fn home(&self, tuple: &Tuple, mask: usize) -> usize {
        self.hash_of(tuple) as usize & mask
    }
}

fn stored(position: usize) -> u32 {
    u32::try_from(position + 1).unwrap_or(0)
}

/// Places of the smallest index.
const SMALLEST: usize = 16;
/// Connections looked at for one to go.
const LOOKED_AT: usize = 64;
/// Longer than a connection is silent that is kept alive: after 7,200 s Linux, Windows and the BSDs ask, and an
/// answer is looked for another 675 s at most.
const SILENT: Duration = Duration::from_hours(3);

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;
    use crate::custody::connection::Phase;
    use crate::custody::sequence::Seq;
    use crate::rng::Rng;
    use surrogate_wire::Mac;

    fn connection(peer_port: u16, phase: Phase, heard: u64) -> Connection {
        let tuple =
            Tuple { guest: [192, 0, 2, 11].into(), guest_port: 22, peer: [192, 0, 2, 99].into(), peer_port };
        let numbers = (Seq(1), Seq(2));
        Connection::new(tuple, Mac([2, 0, 0, 0, 0, 1]), phase, numbers, Instant::from_nanos(heard))
    }

    #[test]
    fn it_knows_what_a_map_knows() {
        let mut rng = Rng::seeded(3);
        for seed in 0..4 {
            let mut table = Table::new(seed);
            let mut plain: HashMap<Tuple, Instant> = HashMap::new();
            for n in 0..20_000 {
                let one = connection(rng.below(200) as u16, Phase::Established, n);
                if rng.below(3) == 0 {
                    assert_eq!(table.remove(&one.tuple), plain.remove(&one.tuple).is_some());
                } else if table.insert(one, 128).is_ok() {
                    plain.insert(one.tuple, one.heard_at);
                } else {
                    assert!(plain.len() == 128 && !plain.contains_key(&one.tuple));
                }
                assert_eq!(table.len(), plain.len());
            }
            assert!(plain.iter().all(|(tuple, at)| table.get(tuple).is_some_and(|c| c.heard_at == *at)));
            assert!((0..=u16::MAX).all(|port| {
                let tuple = connection(port, Phase::Established, 0).tuple;
                table.find(&tuple).is_some() == plain.contains_key(&tuple)
            }));
        }
    }

    #[test]
    fn at_the_limit_the_longest_silent_unfinished_one_goes_and_no_live_one() {
        let mut table = Table::new(1);
        for port in 0..6 {
            table.insert(connection(port, Phase::Established, 1), 8).unwrap();
        }
        table.insert(connection(6, Phase::SynReceived, 5), 8).unwrap();
        table.insert(connection(7, Phase::SynReceived, 4), 8).unwrap();
        assert_eq!(table.insert(connection(8, Phase::Established, 9), 8), Ok(1));
        assert_eq!(table.insert(connection(9, Phase::Established, 9), 8), Ok(1));
        assert_eq!(table.insert(connection(10, Phase::Established, 9), 8), Err(Full));
        let there: Vec<u16> =
            (0..11).filter(|n| table.find(&connection(*n, Phase::Established, 0).tuple).is_some()).collect();
        assert_eq!(there, [0, 1, 2, 3, 4, 5, 8, 9]);
    }

    #[test]
    fn at_the_limit_one_in_use_takes_the_place_of_one_that_was_silent_for_hours_and_a_handshake_does_not() {
        let hours = |n: u64| n * 3_600_000_000_000;
        let mut table = Table::new(1);
        for port in 0..200 {
            table.insert(connection(port, Phase::Established, u64::from(port)), 200).unwrap();
        }
        assert_eq!(table.insert(connection(500, Phase::Established, hours(3) - 1), 200), Err(Full));
        assert_eq!(table.insert(connection(500, Phase::SynReceived, hours(4)), 200), Err(Full));
        for port in 500..700 {
            // Within a round of looking all find one.
            let found =
                (0..4).find_map(|_| table.insert(connection(port, Phase::Established, hours(4)), 200).ok());
            assert_eq!(found, Some(1));
        }
        assert_eq!(table.insert(connection(700, Phase::Established, hours(5)), 200), Err(Full));
    }

    #[test]
    fn at_the_limit_one_not_heard_of_since_its_guest_was_unobserved_goes_before_a_new_one_is_refused() {
        let mut table = Table::new(1);
        for port in 0..8 {
            table.insert(connection(port, Phase::Established, u64::from(port)), 8).unwrap();
        }
        assert_eq!(table.insert(connection(8, Phase::Established, 9), 8), Err(Full));
        table.note_gap(Instant::from_nanos(2));
        assert_eq!(table.insert(connection(8, Phase::SynReceived, 9), 8), Err(Full), "not for a handshake");
        assert_eq!(table.insert(connection(8, Phase::Established, 9), 8), Ok(1));
        assert_eq!(table.insert(connection(9, Phase::Established, 9), 8), Ok(1));
        assert_eq!(table.insert(connection(10, Phase::Established, 9), 8), Err(Full));
        let gone: Vec<u16> =
            (0..10).filter(|n| table.find(&connection(*n, Phase::Established, 0).tuple).is_none()).collect();
        assert_eq!(gone, [0, 1], "those silent longest");
    }

    #[test]
    fn an_empty_one_takes_no_memory_and_a_reserved_one_no_more_while_it_fills() {
        let mut table = Table::new(1);
        assert_eq!((table.connections.capacity(), table.index.capacity()), (0, 0));
        table.reserve(40, 64);
        let before = (table.connections.as_ptr(), table.index.as_ptr());
        for port in 0..40 {
            assert!(table.has_room(64));
            table.insert(connection(port, Phase::Established, 0), 64).unwrap();
        }
        assert_eq!(before, (table.connections.as_ptr(), table.index.as_ptr()));
    }
}

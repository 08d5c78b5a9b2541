//! Limits what we say to one address: ICMP errors (RFC 1812 4.3.2.8, RFC 4443 2.4 f) and echo
//! answers, each at so many per second with one second's worth of burst.
//!
//! A generic cell rate per (kind, guest, address) in a table of fixed size, so that a stranger with
//! many forged sources costs us no memory: in a full set the entry that is closest to unlimited gives
//! way, and who takes its place begins with what it had used. So no address that is at its limit is
//! spoken to sooner because of others, and all of them together get at most one rate for each cell.

use core::hash::BuildHasher;
use core::net::IpAddr;

use crate::hash::Seeded;
use crate::time::Instant;

/// See the [module](self).
pub(super) struct Limiter {
    sets: Vec<[Cell; WAYS]>,
    hasher: Seeded,
    /// Nanoseconds between two of a kind at its exact rate; `None`: never.
    errors_every: Option<u64>,
    echoes_every: Option<u64>,
}

/// What is limited.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Limited {
    /// ICMP errors to an address.
    Errors,
    /// Echo answers to an address.
    Echoes,
}

#[derive(Clone, Copy, Debug, Default)]
struct Cell {
    tag: u64,
    /// When the next one would be in time if they came at the exact rate.
    due_ns: u64,
}

impl Limiter {
    /// So many of each kind per second and address; the table is keyed by `seed`.
    #[must_use]
    pub(super) fn new(errors_per_second: u32, echoes_per_second: u32, seed: u64) -> Self {
        Self {
            sets: vec![[Cell::default(); WAYS]; SETS],
            hasher: Seeded::new(seed),
            errors_every: SECOND.checked_div(u64::from(errors_per_second)),
            echoes_every: SECOND.checked_div(u64::from(echoes_per_second)),
        }
    }

    /// Whether one more may be sent to `address` now; if so, it is counted.
    pub(super) fn allow(&mut self, now: Instant, what: Limited, guest: u32, address: IpAddr) -> bool {
        let every = match what {
            Limited::Errors => self.errors_every,
            Limited::Echoes => self.echoes_every,
        };
        let Some(interval) = every else { return false };
        // Zero marks an empty cell.
        let tag = self.hasher.hash_one((what, guest, address)) | 1;
        let set = (tag >> 32) as usize % SETS;
        let Some(set) = self.sets.get_mut(set) else { return false };
        let at = set.iter().position(|c| c.tag == tag).unwrap_or_else(|| {
            let (at, _) = set.iter().enumerate().min_by_key(|(_, c)| c.due_ns).unwrap_or((0, &EMPTY));
            at
        });
        let Some(cell) = set.get_mut(at) else { return false };
        cell.tag = tag;
        let now = now.as_nanos();
        let due = cell.due_ns.max(now);
        if due - now > SECOND - interval {
            return false;
        }
        cell.due_ns = due + interval;
        true
    }
}

const SECOND: u64 = 1_000_000_000;
const EMPTY: Cell = Cell { tag: 0, due_ns: 0 };
/// Four cells fill one cache line.
const WAYS: usize = 4;
const SETS: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::Duration;

    fn ip(n: u8) -> IpAddr {
        IpAddr::from([192, 0, 2, n])
    }

    fn allowed(limiter: &mut Limiter, now: Instant, address: IpAddr, tries: u32) -> u32 {
        (0..tries).map(|_| u32::from(limiter.allow(now, Limited::Errors, 1, address))).sum()
    }

    #[test]
    fn a_second_worth_at_once_then_the_rate() {
        let mut limiter = Limiter::new(10, 1, 1);
        let start = Instant::from_nanos(5);
        assert_eq!(allowed(&mut limiter, start, ip(1), 100), 10);
        assert_eq!(allowed(&mut limiter, start + Duration::from_millis(500), ip(1), 100), 5);
        assert_eq!(allowed(&mut limiter, start + Duration::from_secs(60), ip(1), 100), 10);
    }

    #[test]
    fn addresses_guests_and_kinds_do_not_share() {
        let mut limiter = Limiter::new(1, 1, 1);
        assert_eq!(allowed(&mut limiter, Instant::ZERO, ip(1), 5), 1);
        assert_eq!(allowed(&mut limiter, Instant::ZERO, ip(2), 5), 1);
        assert!(limiter.allow(Instant::ZERO, Limited::Errors, 2, ip(1)));
        assert!(limiter.allow(Instant::ZERO, Limited::Echoes, 1, ip(1)));
    }

    #[test]
    fn rate_zero_is_silence() {
        assert_eq!(allowed(&mut Limiter::new(0, 1, 1), Instant::ZERO, ip(1), 5), 0);
    }

    #[test]
    fn many_forged_sources_leave_a_limited_one_limited() {
        // Also at one a second, where who spoke later is further from its next turn.
        for rate in [1, 100] {
            let mut limiter = Limiter::new(rate, 1, 1);
            assert_eq!(allowed(&mut limiter, Instant::ZERO, ip(1), rate), rate);
            let later = Instant::ZERO + Duration::from_millis(5);
            let forged = 8 * (SETS * WAYS) as u32;
            let said: u32 =
                (0..forged).map(|n| allowed(&mut limiter, later, IpAddr::from(n.to_be_bytes()), 1)).sum();
            assert!(said <= rate * (SETS * WAYS) as u32, "{said} at {rate} a second");
            assert_eq!(allowed(&mut limiter, later + Duration::from_millis(4), ip(1), 10), 0);
        }
    }
}

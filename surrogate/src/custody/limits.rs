//! How often custody answers what a stranger may have sent.
//!
//! A segment out of place draws an acknowledgement that tells the real peer the real numbers (RFC 9293 3.10.7.4,
//! RFC 5961). Forged ones must not draw many: one per connection in [`SPACING`], as Linux (`tcp_invalid_ratelimit`),
//! and a budget per guest and second. A budget that is one shared and known number tells a stranger who counts
//! what is left of it whether his guess was right (CVE-2016-5696), so how much it is is drawn anew each
//! second, as Linux does since.
//!
//! Keep-alives and window probes have their own spacing: whoever hits SEQ = RN-1 exactly is the peer, and what
//! strangers draw must not cost it its answer.

use crate::rng::Rng;
use crate::time::{Duration, Instant};

/// Between two answers of one kind to one connection.
pub(super) const SPACING: Duration = Duration::from_millis(500);

/// Whether the last time was long enough ago; if so, it is now.
pub(super) fn spaced(last: &mut Option<Instant>, now: Instant) -> bool {
    let may = last.is_none_or(|last| now.since(last) >= SPACING);
    if may {
        *last = Some(now);
    }
    may
}

/// What is left of a guest's second.
#[derive(Clone, Debug, Default)]
pub(super) struct Budget {
    since: Option<Instant>,
    left: u64,
}

impl Budget {
    /// Takes one, if there is one left of about `per_second`.
    pub(super) fn spend(&mut self, now: Instant, rng: &mut Rng, per_second: u32) -> bool {
        if self.since.is_none_or(|since| now.since(since) >= SECOND) {
            self.since = Some(now);
            let per_second = u64::from(per_second);
            self.left = per_second / 2 + rng.below(per_second + 1);
        }
        let left = self.left.checked_sub(1);
        self.left = left.unwrap_or(0);
        left.is_some()
    }
}

const SECOND: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_has_between_half_and_one_and_a_half_times_the_budget_and_nobody_knows_how_much() {
        let mut rng = Rng::seeded(5);
        let mut budget = Budget::default();
        let spent: Vec<usize> = (0..50)
            .map(|second| {
                let now = Instant::ZERO + Duration::from_secs(second);
                (0..1_000).filter(|_| budget.spend(now, &mut rng, 100)).count()
            })
            .collect();
        assert!(spent.iter().all(|n| (50..=150).contains(n)), "{spent:?}");
        let different: std::collections::BTreeSet<_> = spent.iter().collect();
        assert!(different.len() > 10, "{spent:?}");
    }

    #[test]
    fn no_budget_is_silence() {
        let mut budget = Budget::default();
        assert!(!budget.spend(Instant::ZERO, &mut Rng::seeded(1), 0));
    }

    #[test]
    fn answers_to_one_connection_are_half_a_second_apart() {
        let mut last = None;
        let at = |ms| Instant::ZERO + Duration::from_millis(ms);
        let answered: Vec<u64> = (0..2_000).step_by(10).filter(|ms| spaced(&mut last, at(*ms))).collect();
        assert_eq!(answered, [0, 500, 1_000, 1_500]);
    }
}

//! What it may cost a busy guest that it is observed.
//!
//! Each frame that it sends passes the filter, on the processor that sends it, and each that is taken costs the
//! packet thread its time. What that comes to, of TCP and UDP, is counted with the figures of docs/performance.md, and a
//! guest for which it is too much is not observed for a while: what begins in that time is learned later, from a
//! segment, or not at all. So what its throughput pays has a limit, however much it sends.

use std::time::Duration;

use super::filter::SAMPLE;
use crate::time::Instant;

/// What was spent on one guest.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Budget {
    /// In the second that began here.
    since: Instant,
    spent: Duration,
}

impl Budget {
    /// A frame was taken; one of a sample stands for all those that passed the filter. What was spent in this second.
    pub(super) fn spend(&mut self, now: Instant, of_a_sample: bool) -> Duration {
        if now.since(self.since) >= SECOND {
            *self = Self { since: now, spent: Duration::ZERO };
        }
        self.spent += if of_a_sample { PASSING * SAMPLE + TAKING } else { TAKING };
        self.spent
    }
}

/// What the kernel spends on a frame that the filter does not take.
const PASSING: Duration = Duration::from_nanos(85);
/// What is spent on one that is taken, the engine's part included.
const TAKING: Duration = Duration::from_nanos(4_500);
/// What may be spent in a second, half of what a guest may lose.
pub(super) const A_SECOND: Duration = Duration::from_millis(15);
/// While it waits for the answer of a DHCP server, which it does seldom.
pub(super) const A_SECOND_FOR_A_LEASE: Duration = Duration::from_millis(60);
const SECOND: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    const MILLISECOND: Duration = Duration::from_millis(1);

    /// How many frames a second are too many, if they come evenly; `None`: not so many.
    fn too_many(frames: u32, of_a_sample: bool) -> Option<u32> {
        let mut budget = Budget::default();
        let start = Instant::ZERO + SECOND;
        (0..3 * frames).find(|at| budget.spend(start + SECOND * *at / frames, of_a_sample) > A_SECOND)
    }

    #[test]
    fn a_guest_that_sends_a_hundred_thousand_frames_a_second_is_observed_all_the_time() {
        assert_eq!(too_many(100_000 / SAMPLE, true), None);
        assert_eq!(too_many(1_000, false), None, "or begins and ends some hundred connections");
    }

    #[test]
    fn half_a_million_frames_or_ten_thousand_connections_a_second_are_too_many_soon() {
        let within = |frames: u32, of_a_sample| too_many(frames, of_a_sample).map(|at| SECOND * at / frames);
        assert!(within(500_000 / SAMPLE, true).is_some_and(|took| took < 400 * MILLISECOND));
        assert!(within(20_000, false).is_some_and(|took| took < 200 * MILLISECOND));
    }

    #[test]
    fn what_was_spent_is_forgotten_after_a_second() {
        let mut budget = Budget::default();
        let frames = (0..).take_while(|_| budget.spend(Instant::ZERO, true) <= A_SECOND).count();
        assert!(frames > 100, "{frames}");
        assert!(budget.spend(Instant::ZERO, false) > A_SECOND);
        assert!(budget.spend(Instant::ZERO + SECOND, true) < A_SECOND);
    }
}

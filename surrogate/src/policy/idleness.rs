//! When a guest has been idle long enough to be put to sleep.
//!
//! Fed with one guest's cumulative figures ([`Statistics`]) whenever the caller reads them. An interval
//! between two readings is quiet if processor share and packet rates stay at or below the thresholds.
//! A guest may sleep once all intervals of the last `idle_after` were quiet and it has been awake for
//! `min_awake`.
//!
//! It sleeps only on evidence: an interval that cannot be judged (the first reading, a counter that
//! went back because the guest or its tap is a new one) starts the wait anew, and after a long gap the
//! whole use is laid on its last [`LONGEST_INTERVAL`], so that no burst hides in an average. Pure: it
//! reads no clock and knows nothing of jobs or sleep states.

use core::time::Duration;

use crate::hypervisor::Statistics;
use crate::time::Instant;

/// What counts as idle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Thresholds {
    /// How long the guest must have been quiet; `None`: it sleeps by command only.
    pub idle_after: Option<Duration>,
    /// How long it must have been awake.
    pub min_awake: Duration,
    /// Processor use that still counts as quiet, in thousandths of a percent of one core.
    pub idle_cpu: u32,
    /// Packets in a thousand seconds, each way, that still count as quiet.
    pub idle_packets: u32,
}

impl Thresholds {
    /// How often figures must be read for these thresholds to be judged in time.
    #[must_use]
    pub fn interval(&self) -> Duration {
        self.idle_after
            .map_or(LONGEST_INTERVAL, |after| (after / 4).clamp(SHORTEST_INTERVAL, Duration::from_secs(15)))
    }
}

/// What the figures of one reading say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Idle {
    /// It works, or not enough is known yet.
    Busy {
        /// What was above its threshold.
        why: Activity,
    },
    /// Quiet since then, but not for long enough, or not awake for long enough.
    Since(Instant),
    /// It may be put to sleep now; quiet since then.
    MaySleep(Instant),
}

/// Why an interval does not count as quiet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activity {
    /// There is no earlier reading to compare with, or a counter went back.
    Unknown,
    /// Processor use, in percent of one core.
    Cpu(u32),
    /// Packets per second to the guest.
    Received(u64),
    /// Packets per second from the guest.
    Sent(u64),
}

/// The idleness of one guest.
#[derive(Clone, Debug)]
pub struct Idleness {
    thresholds: Thresholds,
    last: Option<Sample>,
}

#[derive(Clone, Copy, Debug)]
struct Sample {
    at: Instant,
    figures: Statistics,
    /// End of the last interval that was not quiet.
    quiet_since: Instant,
    verdict: Idle,
}

impl Idleness {
    /// Knows nothing yet.
    #[must_use]
    pub const fn new(thresholds: Thresholds) -> Self {
        Self { thresholds, last: None }
    }

    /// Judges by `thresholds` from now on; what was seen so far stays.
    pub const fn set_thresholds(&mut self, thresholds: Thresholds) {
        self.thresholds = thresholds;
    }

    /// The thresholds in use.
    #[must_use]
    pub const fn thresholds(&self) -> &Thresholds {
        &self.thresholds
    }

    /// Forgets all readings: the guest slept, or its figures could not be read for a reason that makes
    /// the old ones worthless.
    pub const fn forget(&mut self) {
        self.last = None;
    }

    /// Takes the figures read at `now` of a guest that has been awake since `awake_since`.
    ///
    /// Readings nearer to each other than [`SHORTEST_INTERVAL`] say nothing new: the counters have
    /// steps (10 ms of processor time), so the earlier verdict stands.
    pub fn sample(&mut self, now: Instant, awake_since: Instant, figures: Statistics) -> Idle {
        let (activity, quiet_since) = match self.last {
            None => (Some(Activity::Unknown), now),
            Some(last) if now.since(last.at) < SHORTEST_INTERVAL => return last.verdict,
            Some(last) => match self.activity(&last, now, &figures) {
                None => (None, last.quiet_since),
                found => (found, now),
            },
        };
        let verdict = match activity {
            Some(why) => Idle::Busy { why },
            None => self.judge(now, awake_since, quiet_since.max(awake_since)),
        };
        self.last = Some(Sample { at: now, figures, quiet_since, verdict });
        verdict
    }

    fn judge(&self, now: Instant, awake_since: Instant, quiet_since: Instant) -> Idle {
        let ripe = self.thresholds.idle_after.is_some_and(|after| now.since(quiet_since) >= after)
            && now.since(awake_since) >= self.thresholds.min_awake;
        if ripe { Idle::MaySleep(quiet_since) } else { Idle::Since(quiet_since) }
    }

    /// What makes the interval from `last` to `now` more than quiet, if anything.
    fn activity(&self, last: &Sample, now: Instant, figures: &Statistics) -> Option<Activity> {
        let interval = now.since(last.at).min(LONGEST_INTERVAL).as_nanos();
        let differences = (
            figures.cpu.checked_sub(last.figures.cpu),
            figures.rx_packets.checked_sub(last.figures.rx_packets),
            figures.tx_packets.checked_sub(last.figures.tx_packets),
        );
        let (Some(cpu), Some(received), Some(sent)) = differences else { return Some(Activity::Unknown) };

        if cpu.as_nanos() * 100 * 1000 > u128::from(self.thresholds.idle_cpu) * interval {
            let percent = (cpu.as_nanos() * 100).div_ceil(interval);
            return Some(Activity::Cpu(u32::try_from(percent).unwrap_or(u32::MAX)));
        }
        let above = |packets: u64| {
            let scaled = u128::from(packets) * SECOND;
            (scaled * 1000 > u128::from(self.thresholds.idle_packets) * interval)
                .then(|| u64::try_from(scaled.div_ceil(interval)).unwrap_or(u64::MAX))
        };
        above(received).map(Activity::Received).or_else(|| above(sent).map(Activity::Sent))
    }
}

/// Readings closer than this are not compared.
pub const SHORTEST_INTERVAL: Duration = Duration::from_millis(250);

/// Use in a longer interval is judged as if it had happened within this time.
pub const LONGEST_INTERVAL: Duration = Duration::from_secs(60);

const SECOND: u128 = 1_000_000_000;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const THRESHOLDS: Thresholds = Thresholds {
        idle_after: Some(Duration::from_secs(60)),
        min_awake: Duration::from_secs(30),
        idle_cpu: 2_000,
        idle_packets: 5_000,
    };

    fn at(seconds: u64) -> Instant {
        Instant::ZERO + Duration::from_secs(seconds)
    }

    fn figures(cpu_ms: u64, rx_packets: u64, tx_packets: u64) -> Statistics {
        Statistics { cpu: Duration::from_millis(cpu_ms), rx_packets, tx_packets }
    }

    /// Readings every ten seconds with the same figures, from `from` to `to`; the last verdict.
    fn quiet(idleness: &mut Idleness, from: u64, to: u64, figures: Statistics) -> Idle {
        let mut verdict = Idle::Since(Instant::ZERO);
        for second in (from..=to).step_by(10) {
            verdict = idleness.sample(at(second), Instant::ZERO, figures);
        }
        verdict
    }

    #[test]
    fn quiet_for_idle_after_may_sleep_and_not_before() {
        let mut idleness = Idleness::new(THRESHOLDS);
        let same = figures(1000, 10, 10);
        assert_eq!(
            idleness.sample(at(100), Instant::ZERO, same),
            Idle::Busy { why: Activity::Unknown },
            "one reading shows nothing"
        );
        assert_eq!(quiet(&mut idleness, 110, 150, same), Idle::Since(at(100)));
        assert_eq!(idleness.sample(at(160), Instant::ZERO, same), Idle::MaySleep(at(100)));
    }

    #[test]
    fn use_at_the_threshold_is_quiet_and_above_it_is_not() {
        let mut idleness = Idleness::new(THRESHOLDS);
        idleness.sample(at(0), Instant::ZERO, figures(0, 0, 0));
        assert_eq!(idleness.sample(at(10), Instant::ZERO, figures(200, 50, 50)), Idle::Since(at(0)));
        assert_eq!(
            idleness.sample(at(20), Instant::ZERO, figures(410, 50, 50)),
            Idle::Busy { why: Activity::Cpu(3) }
        );
        assert_eq!(
            idleness.sample(at(30), Instant::ZERO, figures(410, 101, 50)),
            Idle::Busy { why: Activity::Received(6) }
        );
        assert_eq!(
            idleness.sample(at(40), Instant::ZERO, figures(410, 101, 101)),
            Idle::Busy { why: Activity::Sent(6) }
        );
        assert_eq!(
            idleness.sample(at(50), Instant::ZERO, figures(410, 101, 101)),
            Idle::Since(at(40)),
            "idle from the end of the last busy interval"
        );
    }

    #[test]
    fn a_fraction_of_a_percent_or_of_a_packet_a_second_counts() {
        let thresholds = Thresholds { idle_cpu: 500, idle_packets: 300, ..THRESHOLDS };
        let mut idleness = Idleness::new(thresholds);
        idleness.sample(at(0), Instant::ZERO, figures(0, 0, 0));
        assert_eq!(idleness.sample(at(10), Instant::ZERO, figures(50, 3, 3)), Idle::Since(at(0)));
        let (cpu, packets) = (Activity::Cpu(1), Activity::Received(1));
        assert_eq!(idleness.sample(at(20), Instant::ZERO, figures(101, 3, 3)), Idle::Busy { why: cpu });
        assert_eq!(idleness.sample(at(30), Instant::ZERO, figures(101, 7, 3)), Idle::Busy { why: packets });
    }

    #[test]
    fn a_guest_just_awake_waits_for_min_awake_and_for_idle_after_since_it_woke() {
        let thresholds = Thresholds {
            idle_after: Some(Duration::from_secs(10)),
            min_awake: Duration::from_secs(40),
            ..THRESHOLDS
        };
        let mut idleness = Idleness::new(thresholds);
        let same = figures(0, 0, 0);
        idleness.sample(at(90), at(100), same);
        assert_eq!(idleness.sample(at(105), at(100), same), Idle::Since(at(100)));
        assert_eq!(idleness.sample(at(130), at(100), same), Idle::Since(at(100)));
        assert_eq!(idleness.sample(at(140), at(100), same), Idle::MaySleep(at(100)));
    }

    #[test]
    fn a_counter_that_goes_back_starts_the_wait_anew() {
        for reset in [figures(0, 10, 10), figures(1000, 0, 10), figures(1000, 10, 0)] {
            let mut idleness = Idleness::new(THRESHOLDS);
            quiet(&mut idleness, 0, 50, figures(1000, 10, 10));
            assert_eq!(idleness.sample(at(60), Instant::ZERO, reset), Idle::Busy { why: Activity::Unknown });
            assert_eq!(quiet(&mut idleness, 70, 110, reset), Idle::Since(at(60)));
            assert_eq!(idleness.sample(at(120), Instant::ZERO, reset), Idle::MaySleep(at(60)));
        }
    }

    #[test]
    fn a_burst_does_not_hide_in_a_long_gap() {
        let mut idleness = Idleness::new(THRESHOLDS);
        idleness.sample(at(0), Instant::ZERO, figures(0, 0, 0));
        // 1,200 packets in ten minutes are 2 a second on average, but 20 a second for one minute.
        assert_eq!(
            idleness.sample(at(600), Instant::ZERO, figures(0, 1200, 0)),
            Idle::Busy { why: Activity::Received(20) }
        );
        let same = figures(0, 1200, 0);
        assert_eq!(
            idleness.sample(at(1200), Instant::ZERO, same),
            Idle::MaySleep(at(600)),
            "missing readings are no matter where nothing happened"
        );
    }

    #[test]
    fn readings_too_close_to_compare_keep_the_verdict() {
        let mut idleness = Idleness::new(THRESHOLDS);
        quiet(&mut idleness, 0, 60, figures(0, 0, 0));
        let soon = at(60) + Duration::from_millis(1);
        assert_eq!(idleness.sample(soon, Instant::ZERO, figures(10, 1, 0)), Idle::MaySleep(at(0)));
        assert_eq!(
            idleness.sample(at(70), Instant::ZERO, figures(10, 1, 0)),
            Idle::MaySleep(at(0)),
            "and the use is counted in the next interval: 10 ms in 10 s"
        );
    }

    #[test]
    fn never_is_never_and_forgetting_starts_over() {
        let mut by_command = Idleness::new(Thresholds { idle_after: None, ..THRESHOLDS });
        assert_eq!(quiet(&mut by_command, 0, 100_000, figures(0, 0, 0)), Idle::Since(at(0)));

        let mut idleness = Idleness::new(THRESHOLDS);
        assert_eq!(quiet(&mut idleness, 0, 60, figures(0, 0, 0)), Idle::MaySleep(at(0)));
        idleness.forget();
        assert_eq!(
            idleness.sample(at(70), Instant::ZERO, figures(0, 0, 0)),
            Idle::Busy { why: Activity::Unknown }
        );
    }

    #[test]
    fn figures_are_read_often_enough_to_be_judged_in_time() {
        let after = |seconds| Thresholds { idle_after: Some(Duration::from_secs(seconds)), ..THRESHOLDS };
        assert_eq!(after(0).interval(), SHORTEST_INTERVAL);
        assert_eq!(after(2).interval(), Duration::from_millis(500));
        assert_eq!(after(600).interval(), Duration::from_secs(15));
    }

    proptest! {
        /// Whatever the readings: who may sleep was quiet for `idle_after` and awake for `min_awake`,
        /// and no interval within that time used more than the thresholds allow.
        #[test]
        fn whoever_may_sleep_was_quiet(steps in prop::collection::vec((1_u64..200, 0_u64..6000, 0_u64..600), 1..60)) {
            let mut idleness = Idleness::new(THRESHOLDS);
            let (mut now, mut cpu, mut packets) = (0, 0, 0);
            let mut last_busy = 0;
            for (index, (seconds, cpu_ms, received)) in steps.into_iter().enumerate() {
                now += seconds;
                cpu += cpu_ms;
                packets += received;
                if index == 0 || cpu_ms > 20 * seconds || received > 5 * seconds {
                    last_busy = now;
                }
                let verdict = idleness.sample(at(now), at(0), figures(cpu, packets, 0));
                if let Idle::MaySleep(since) = verdict {
                    prop_assert!(now - last_busy >= 60 && now >= 30);
                    prop_assert!(since >= at(last_busy));
                }
            }
        }
    }
}

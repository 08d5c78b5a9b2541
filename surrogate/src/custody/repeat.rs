//! What an end has sent that has to be acknowledged, and until when it would have sent it again.
//!
//! Acknowledgements are missed: of a guest that works only a sample is seen, and nothing of what is sent to it. But
//! who gets none sends the same again, and each time waits about twice as long as the last time (RFC 6298 5.5).
//! Of a guest that is watched closely each repetition is seen. So what should have come again by now, and did not,
//! was acknowledged unseen, or its connection is over. Silence that nobody watched proves nothing.

use super::sequence::Seq;
use crate::time::{Duration, Instant};

/// The last segment of one end that has to be acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Sent {
    seq: Seq,
    at: Instant,
    /// Between the last two times that a segment was seen to be sent; zero if that was not seen yet.
    gap: Duration,
}

impl Sent {
    /// A segment that begins at `seq` was sent `now`, after `last`.
    pub(super) fn after(last: Option<Self>, seq: Seq, now: Instant) -> Self {
        let gap = match last {
            Some(last) if last.seq == seq => now.since(last.at),
            // Others are sent in between (RFC 8985 7 probes with the last one, RFC 6298 5.4 repeats the first).
            Some(last) => last.gap,
            None => Duration::ZERO,
        };
        Self { seq, at: now, gap }
    }

    /// The other end acknowledged more: whatever is left is waited for from the beginning.
    pub(super) const fn was_heard(&mut self) {
        self.gap = Duration::ZERO;
    }

    /// Whether it may be sent again: closely watched since then, if it is, its sender has not had the time to.
    pub(super) fn may_come_again(&self, now: Instant, watched: Option<Instant>) -> bool {
        let Some(watched) = watched else { return true };
        // What was sent so long before has a gap of no more than that, seen or not: gaps double.
        let unwatched = watched.since(self.at);
        let due = self.gap.saturating_mul(3).max(unwatched).clamp(SHORTEST, LONGEST);
        now.since(self.at.max(watched)) < due
    }
}

/// The first repetition comes after a second, or three where that is not measured (RFC 6298 2.1, 5.7); Linux waits for
/// the round trip and 200 ms.
const SHORTEST: Duration = Duration::from_secs(3);
/// The longest gap is 120 s in Linux (`TCP_RTO_MAX`), whose timers may be an eighth late.
const LONGEST: Duration = Duration::from_secs(150);

#[cfg(test)]
mod tests {
    use super::*;

    const SEQ: Seq = Seq(u32::MAX);

    fn at_ms(ms: u64) -> Instant {
        Instant::ZERO + Duration::from_secs(1_000) + Duration::from_millis(ms)
    }

    /// Sent at these times.
    fn sent(times: &[u64]) -> Sent {
        times.iter().fold(None, |last, ms| Some(Sent::after(last, SEQ, at_ms(*ms)))).unwrap()
    }

    #[test]
    fn what_is_not_repeated_within_three_seconds_was_heard() {
        let watched = Some(at_ms(0));
        let once = sent(&[500]);
        assert!(once.may_come_again(at_ms(3_499), watched));
        assert!(!once.may_come_again(at_ms(3_500), watched));
    }

    #[test]
    fn a_peer_that_is_gone_is_waited_for_as_long_as_the_guest_repeats_however_late_its_timers() {
        let watched = Some(at_ms(0));
        let (mut gap, mut time) = (200, 0);
        let mut last = sent(&[0]);
        for _ in 0..15 {
            let next = time + gap + gap / 8;
            assert!(last.may_come_again(at_ms(next), watched), "{gap} ms");
            last = Sent::after(Some(last), SEQ, at_ms(next));
            time = next;
            gap = (2 * gap).min(120_000);
        }
        assert!(last.may_come_again(at_ms(time + 149_999), watched));
        assert!(!last.may_come_again(at_ms(time + 150_000), watched), "it has given up");
    }

    #[test]
    fn silence_that_nobody_watched_proves_nothing() {
        let once = sent(&[0]);
        assert!(once.may_come_again(at_ms(1_000_000), None));
        // Its repetitions may be twenty seconds apart by now.
        let watched = Some(at_ms(20_000));
        assert!(once.may_come_again(at_ms(39_999), watched));
        assert!(!once.may_come_again(at_ms(40_000), watched));
        let watched = Some(at_ms(1_000_000));
        assert!(once.may_come_again(at_ms(1_149_999), watched));
        assert!(!once.may_come_again(at_ms(1_150_000), watched));
    }

    #[test]
    fn a_probe_in_between_does_not_make_the_wait_short_and_an_acknowledgement_does() {
        let watched = Some(at_ms(0));
        let repeated = sent(&[0, 10_000]);
        let mut probed = Sent::after(Some(repeated), SEQ.plus(1_000), at_ms(11_000));
        assert!(probed.may_come_again(at_ms(40_999), watched));
        probed.was_heard();
        assert!(!probed.may_come_again(at_ms(14_000), watched));
    }
}

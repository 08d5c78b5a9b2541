//! The times of a lease, which DHCP has in common for IPv4 and IPv6 (RFC 2131 4.4.5, RFC 8415 14.2, 18.2.4):
//! when its server is asked for more, when any server is asked, when it is over. And one of our own: when
//! the guest is woken because nobody answers.

use core::net::IpAddr;

use crate::engine::WakeReason;
use crate::rng::Rng;
use crate::time::{Duration, Instant};

/// What a lease demands beside frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Alarm {
    /// The guest has to decide.
    Wake(WakeReason),
    /// The address is the guest's no longer: it is not answered for until the guest has woken.
    Withdraw(IpAddr),
    /// With more time for this address came other options than before: the guest does not know them yet.
    Changed(IpAddr),
    /// There is more time: what is known of the guest is worth keeping anew.
    Renewed,
}

/// See the [module](self).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Times {
    /// T1: the server that gave it is asked.
    pub(super) renew: Instant,
    /// T2: any server is asked.
    pub(super) rebind: Instant,
    /// The address may not be used any more.
    pub(super) end: Instant,
    /// The guest is woken if nobody has answered until now.
    pub(super) last_call: Instant,
}

impl Times {
    /// Of a lease that was given at `from` for `lifetime` seconds. `t1` and `t2` are seconds too; values that
    /// contradict each other or the lifetime are replaced by the `usual` ones. Both come a little earlier, at
    /// random, so that those who started together do not ask together.
    pub(super) fn new(
        from: Instant,
        lifetime: u32,
        [t1, t2]: [u32; 2],
        usual: [u32; 2],
        rng: &mut Rng,
    ) -> Self {
        let sound = t1 <= t2 && t2 <= lifetime;
        let [t1, t2] = if sound { [t1, t2] } else { usual.map(|usual| usual.min(lifetime)) };
        let fuzz = |seconds: u32, rng: &mut Rng| {
            let whole = Duration::from_secs(u64::from(seconds));
            let most = u64::try_from((whole / 32).as_millis()).unwrap_or(u64::MAX);
            whole - Duration::from_millis(rng.below(most))
        };
        let renew = from + fuzz(t1, rng).max(SOONEST);
        let rebind = (from + fuzz(t2, rng)).max(renew);
        Self::ending(renew, rebind, from + Duration::from_secs(u64::from(lifetime)))
    }

    /// Of two leases that are renewed together, the earlier time of each kind.
    pub(super) fn earliest(self, other: Self) -> Self {
        let renew = self.renew.min(other.renew);
        Self::ending(renew, self.rebind.min(other.rebind).max(renew), self.end.min(other.end))
    }

    /// With the last call that follows from them.
    fn ending(renew: Instant, rebind: Instant, end: Instant) -> Self {
        let rest = end.since(rebind);
        let left = (rest / 2).max(TO_DECIDE.min(rest / 4 * 3));
        Self { renew, rebind, end, last_call: end - left }
    }

    /// As seen by a guest that falls asleep at `now`: what is due already is done soon, but not by all
    /// who fall asleep in that moment at once; and before the guest is woken somebody had time to answer.
    pub(super) fn from(self, now: Instant, rng: &mut Rng) -> Self {
        let rest = self.end.since(now);
        Self {
            renew: self.renew.max(now + Duration::from_millis(rng.below(SPREAD_MS))),
            last_call: self.last_call.max(now + TO_ANSWER.min(rest / 2)),
            ..self
        }
    }
}

/// What is left of a time of so many seconds after `passed`; one without an end stays so.
pub(super) fn left(seconds: u32, passed: Duration) -> u32 {
    if seconds == u32::MAX {
        return seconds;
    }
    seconds.saturating_sub(u32::try_from(passed.as_secs()).unwrap_or(u32::MAX))
}

/// A lease that ended while nobody looked gets this many seconds more, to find a server or to call the guest:
/// the guest was not told, and its address was answered for by nobody else.
pub(super) const GRACE: u32 = 60;
/// How long an answer to the guest's own request is believed: a client that got none repeats it, or has begun anew
/// (RFC 2131 4.1, RFC 8415 15). What comes later with the same identification, others may have read in the request.
pub(super) const ANSWERABLE: Duration = Duration::from_secs(60);
/// A guest has this long before the end to find a server, if a quarter of the time for rebinding passes before.
const TO_DECIDE: Duration = Duration::from_secs(60);
/// What a server may take to answer.
const TO_ANSWER: Duration = Duration::from_secs(10);
/// However short a server makes its leases, it is not asked more often.
const SOONEST: Duration = Duration::from_secs(1);
/// Sleepers of one moment ask within this time.
pub(super) const SPREAD_MS: u64 = 1_000;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Rng;
    use proptest::prelude::*;

    const USUAL: [u32; 2] = [1800, 3150];

    fn seconds(at: Instant) -> f64 {
        at.since(Instant::ZERO).as_secs_f64()
    }

    fn times(lifetime: u32, given: [u32; 2], usual: [u32; 2]) -> Times {
        Times::new(Instant::ZERO, lifetime, given, usual, &mut Rng::seeded(7))
    }

    #[test]
    fn an_hour_is_renewed_at_half_rebound_at_seven_eighths_and_given_up_four_minutes_before_its_end() {
        let hour = times(3600, USUAL, USUAL);
        assert!((1743.0..=1800.0).contains(&seconds(hour.renew)), "{hour:?}");
        assert!((3051.0..=3150.0).contains(&seconds(hour.rebind)), "{hour:?}");
        assert!((3325.0..=3376.0).contains(&seconds(hour.last_call)), "{hour:?}");
        assert!((seconds(hour.end) - 3600.0).abs() < 1e-6);
    }

    #[test]
    fn of_two_minutes_a_quarter_of_the_time_for_rebinding_passes_before_the_guest_is_woken() {
        let short = times(120, [60, 105], [60, 105]);
        let rest = short.end.since(short.rebind);
        assert_eq!(short.last_call, short.end - rest / 4 * 3);
    }

    #[test]
    fn times_that_contradict_each_other_are_replaced_by_the_usual_ones() {
        for given in [[3000, 2000], [1800, 3601], [4000, 5000]] {
            assert_eq!(times(3600, given, USUAL), times(3600, USUAL, USUAL), "{given:?}");
        }
    }

    #[test]
    fn who_falls_asleep_late_asks_soon_and_is_not_woken_before_an_answer_can_be_there() {
        let now = Instant::ZERO + Duration::from_secs(3500);
        let late = times(3600, USUAL, USUAL).from(now, &mut Rng::seeded(1));
        assert!(late.renew >= now && late.renew.since(now) < Duration::from_secs(1));
        assert_eq!(late.last_call, now + TO_ANSWER);
        let early = times(3600, USUAL, USUAL);
        let Times { renew, last_call, .. } = early.from(Instant::ZERO, &mut Rng::seeded(1));
        assert_eq!((renew, last_call), (early.renew, early.last_call));
    }

    proptest! {
        #[test]
        fn whatever_a_server_says_the_order_stays(lifetime: u32, t1: u32, t2: u32, seed: u64) {
            let usual = [lifetime / 2, lifetime / 8 * 7];
            let it = Times::new(Instant::ZERO, lifetime, [t1, t2], usual, &mut Rng::seeded(seed));
            prop_assert!(it.renew <= it.rebind && it.renew >= Instant::ZERO + SOONEST);
            prop_assert!(it.last_call <= it.end);
            prop_assert!(it.rebind <= it.last_call || it.end < it.rebind);
        }
    }
}

//! Wake budgets: how often traffic may wake a guest, and how many wakes a host bears at once.
//!
//! A token bucket per guest and one per host, and a ceiling on concurrent wakes. A wake that finds
//! no token is put off, never refused: what asked for it stays held until its limits say otherwise.
//! A command of an operator asks for none of this, but while its wake is under way it takes a place under the
//! ceiling as any other: it is work for the host, too.

use core::time::Duration;

use crate::time::Instant;

/// How often: `burst` at once, then `per_minute` steadily.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WakeBudget {
    /// Wakes that may come at once after a quiet time; at least 1.
    pub burst: u32,
    /// Wakes a minute in the long run; zero: none once the burst is used up.
    pub per_minute: u32,
}

impl Default for WakeBudget {
    fn default() -> Self {
        Self { burst: 5, per_minute: 10 }
    }
}

/// A token bucket that counts in nanoseconds of earned time, so that nothing is rounded away.
#[derive(Clone, Debug)]
pub struct Bucket {
    budget: WakeBudget,
    tokens: u32,
    /// Since when the next token is being earned.
    since: Instant,
}

impl Bucket {
    /// A full bucket.
    #[must_use]
    pub const fn full(budget: WakeBudget, now: Instant) -> Self {
        Self { budget, tokens: budget.burst, since: now }
    }

    /// Takes a token, or says when there will be one (`None`: never).
    ///
    /// # Errors
    /// The moment from which a token can be had.
    pub fn take(&mut self, now: Instant) -> Result<(), Option<Instant>> {
        self.ready(now)?;
        if self.tokens == self.budget.burst {
            self.since = now;
        }
        self.tokens = self.tokens.saturating_sub(1);
        Ok(())
    }

    /// Whether there is a token at `now`; nothing is taken.
    ///
    /// # Errors
    /// As [`take`](Self::take).
    pub fn ready(&mut self, now: Instant) -> Result<(), Option<Instant>> {
        let Some(earn) = self.earning_time() else {
            return if self.tokens > 0 { Ok(()) } else { Err(None) };
        };
        let missing = self.budget.burst.saturating_sub(self.tokens);
        let earned = now.since(self.since).as_nanos() / earn.as_nanos().max(1);
        match u32::try_from(earned) {
            Ok(earned) if earned < missing => {
                self.tokens += earned;
                self.since = self.since + earn.saturating_mul(earned);
            }
            // While it is full, nothing is earned.
            _ => self.tokens = self.budget.burst,
        }
        if self.tokens > 0 { Ok(()) } else { Err(Some(self.since + earn)) }
    }

    fn earning_time(&self) -> Option<Duration> {
        Duration::from_secs(60).checked_div(self.budget.per_minute)
    }
}

/// What puts a wake off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// The guest's own budget is used up.
    Guest,
    /// The host's budget is used up.
    Host,
    /// As many wakes are under way as may be at once.
    Ceiling,
}

/// What all guests of a host share.
#[derive(Clone, Debug)]
pub struct HostBudget {
    bucket: Bucket,
    ceiling: u32,
    waking: u32,
}

impl HostBudget {
    /// A budget for the whole host, with at most `ceiling` wakes under way at once.
    #[must_use]
    pub const fn new(budget: WakeBudget, ceiling: u32, now: Instant) -> Self {
        Self { bucket: Bucket::full(budget, now), ceiling, waking: 0 }
    }

    /// Takes a place and a token; give the place back with [`ended`](Self::ended).
    ///
    /// # Errors
    /// What stands against it, and when to ask again; while the ceiling is reached that is [`ASK_AGAIN`] from
    /// now.
    pub fn begin(&mut self, now: Instant) -> Result<(), (Limit, Option<Instant>)> {
        if self.waking >= self.ceiling {
            return Err((Limit::Ceiling, Some(now + ASK_AGAIN)));
        }
        self.bucket.take(now).map_err(|again| (Limit::Host, again))?;
        self.waking += 1;
        Ok(())
    }

    /// Takes a place without asking, be there one or not: an operator's wake.
    pub const fn begin_commanded(&mut self) {
        self.waking += 1;
    }

    /// The guest runs, or could not be woken.
    pub const fn ended(&mut self) {
        self.waking = self.waking.saturating_sub(1);
    }

    /// Wakes under way.
    #[must_use]
    pub const fn waking(&self) -> u32 {
        self.waking
    }
}

/// How long a guest waits for a place under the ceiling before it asks again.
pub const ASK_AGAIN: Duration = Duration::from_millis(20);

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn bucket(burst: u32, per_minute: u32) -> Bucket {
        Bucket::full(WakeBudget { burst, per_minute }, Instant::ZERO)
    }

    #[test]
    fn a_burst_is_served_at_once_and_then_one_every_six_seconds() {
        let mut b = bucket(2, 10);
        assert_eq!(b.take(Instant::ZERO), Ok(()));
        assert_eq!(b.take(Instant::ZERO), Ok(()));
        assert_eq!(b.take(Instant::ZERO), Err(Some(Instant::ZERO + 6 * SECOND)));
        assert_eq!(b.take(Instant::ZERO + 6 * SECOND), Ok(()));
        assert_eq!(b.take(Instant::ZERO + 11 * SECOND), Err(Some(Instant::ZERO + 12 * SECOND)));
    }

    #[test]
    fn a_long_quiet_time_earns_no_more_than_the_burst() {
        let mut b = bucket(3, 60);
        let later = Instant::ZERO + 3600 * SECOND;
        for _ in 0..3 {
            assert_eq!(b.take(later), Ok(()));
        }
        assert_eq!(b.take(later), Err(Some(later + SECOND)));
    }

    #[test]
    fn earning_takes_no_longer_however_large_the_burst_and_the_rate() {
        let mut b = bucket(u32::MAX, u32::MAX);
        b.tokens = 0;
        let later = Instant::ZERO + 3600 * SECOND;
        assert_eq!((b.ready(later), b.tokens), (Ok(()), u32::MAX));
    }

    #[test]
    fn what_is_earned_in_part_is_not_lost() {
        let mut b = bucket(5, 10);
        for _ in 0..5 {
            assert_eq!(b.take(Instant::ZERO), Ok(()));
        }
        assert_eq!(b.take(Instant::ZERO + 17 * SECOND), Ok(()));
        assert_eq!(b.take(Instant::ZERO + 17 * SECOND), Ok(()));
        assert_eq!(b.take(Instant::ZERO + 17 * SECOND), Err(Some(Instant::ZERO + 18 * SECOND)));
    }

    #[test]
    fn without_a_rate_the_burst_is_all_there_is() {
        let mut b = bucket(1, 0);
        assert_eq!(b.take(Instant::ZERO), Ok(()));
        assert_eq!(b.take(Instant::ZERO + 3600 * SECOND), Err(None));
    }

    #[test]
    fn no_more_wakes_at_once_than_the_ceiling() {
        let mut h = HostBudget::new(WakeBudget { burst: 9, per_minute: 60 }, 2, Instant::ZERO);
        assert_eq!(h.begin(Instant::ZERO), Ok(()));
        assert_eq!(h.begin(Instant::ZERO), Ok(()));
        assert_eq!(h.begin(Instant::ZERO), Err((Limit::Ceiling, Some(Instant::ZERO + ASK_AGAIN))));
        h.ended();
        assert_eq!(h.begin(Instant::ZERO), Ok(()));
    }

    #[test]
    fn a_command_waits_for_no_place_and_takes_one() {
        let mut h = HostBudget::new(WakeBudget { burst: 1, per_minute: 60 }, 1, Instant::ZERO);
        h.begin_commanded();
        h.begin_commanded();
        h.ended();
        assert_eq!(h.begin(Instant::ZERO), Err((Limit::Ceiling, Some(Instant::ZERO + ASK_AGAIN))));
        h.ended();
        assert_eq!(h.begin(Instant::ZERO), Ok(()), "it cost no token");
        h.ended();
        assert_eq!(h.begin(Instant::ZERO), Err((Limit::Host, Some(Instant::ZERO + SECOND))));
    }
}

//! How often a request may still be sent, and when next.

use core::time::Duration;

use crate::condition::Known;
use crate::plan::{Handler, Plan};
use crate::step::{Backoff, Step};

/// What was spent so far.
#[derive(Clone, Debug)]
pub(super) struct Budget {
    retries: u32,
    redirects: u32,
    /// Repetitions that each handler asked for, the plan's own first.
    by_handler: Vec<u32>,
}

impl Budget {
    /// Nothing spent by any of so many handlers.
    pub(super) fn new(handlers: usize) -> Self {
        Self { retries: 0, redirects: 0, by_handler: vec![0; handlers] }
    }

    /// Whether handler `index` can do what it says: one that cannot does not match, and the next is asked.
    pub(super) fn allows(
        &self,
        index: usize,
        handler: &Handler,
        now: Duration,
        plan: &Plan,
        known: &Known<'_>,
    ) -> bool {
        handler.then.iter().all(|step| match step {
            Step::Retry(backoff) => {
                let times = self.of(index);
                self.retries < plan.max_retries
                    && backoff.times.is_none_or(|most| times < most)
                    && next(backoff, times, now, known) < plan.max_wait
            }
            Step::Follow => {
                self.redirects < plan.max_redirects && now < plan.max_wait && points_elsewhere(known)
            }
            _ => true,
        })
    }

    /// Spends one repetition of handler `index`; says when it is due.
    pub(super) fn spend_retry(
        &mut self,
        index: usize,
        backoff: &Backoff,
        now: Duration,
        known: &Known<'_>,
    ) -> Duration {
        let until = next(backoff, self.of(index), now, known);
        self.retries = self.retries.saturating_add(1);
        if let Some(times) = self.by_handler.get_mut(index) {
            *times = times.saturating_add(1);
        }
        until
    }

    /// Spends one redirection.
    pub(super) fn spend_redirect(&mut self) {
        self.redirects = self.redirects.saturating_add(1);
    }

    fn of(&self, index: usize) -> u32 {
        self.by_handler.get(index).copied().unwrap_or(u32::MAX)
    }
}

/// After the back-off, or the peer's Retry-After (RFC 9110 10.2.3) if that is later and in seconds; never later
/// than the plan allows, which the peer does not choose.
fn next(backoff: &Backoff, times: u32, now: Duration, known: &Known<'_>) -> Duration {
    let wait = backoff.delay(times).max(retry_after(known).unwrap_or_default().min(backoff.at_most));
    now.saturating_add(wait)
}

fn retry_after(known: &Known<'_>) -> Option<Duration> {
    let mut seconds = None;
    known.any_field(&mut |name, value| {
        if name.eq_ignore_ascii_case(b"retry-after")
            && !value.is_empty()
            && value.iter().all(u8::is_ascii_digit)
        {
            let number = core::str::from_utf8(value).ok().and_then(|digits| digits.parse().ok());
            seconds = Some(number.unwrap_or(u64::MAX));
        }
        seconds.is_some()
    });
    seconds.map(Duration::from_secs)
}

/// A redirection with a Location (RFC 9110 15.4).
fn points_elsewhere(known: &Known<'_>) -> bool {
    matches!(known.status, Some(301 | 302 | 303 | 307 | 308))
        && known.any_field(&mut |name, value| name.eq_ignore_ascii_case(b"location") && !value.is_empty())
}

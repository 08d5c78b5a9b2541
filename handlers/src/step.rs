//! What a handler does, one step with its arguments; the names alone are in [`Action`].

use core::time::Duration;
use std::sync::Arc;

use crate::Action;

/// One action of a handler. Texts are shared, so that telling one copies none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Go on waiting; the bytes stay for the guest.
    Ignore,
    /// Throw away what came.
    Discard,
    /// Keep what came until the guest wakes.
    Buffer,
    /// Wake the guest, and from then on forward.
    Wake(WakeAt),
    /// Send the request again, later.
    Retry(Backoff),
    /// Send the request to where a redirection points.
    Follow,
    /// Answer in the guest's place.
    Respond(Arc<Answer>),
    /// End it with an error for the guest, who wakes for it.
    Fail(Failure),
    /// Tell the operator.
    Alert(Arc<str>),
    /// Write it to the log.
    Log(Arc<str>),
    /// End it without waking the guest.
    Close,
}

/// When a wake is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WakeAt {
    /// At once.
    Now,
    /// When the message is complete.
    End,
    /// When this many bytes of its body are there, or it is complete.
    Bytes(u64),
    /// When the peer sends more.
    FirstFrame,
}

/// How long to wait before a request is sent again: `after`, then each time `factor` times longer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    /// Before the first repetition.
    pub after: Duration,
    /// How much longer each one waits than the one before.
    pub factor: u32,
    /// No wait is longer.
    pub at_most: Duration,
    /// How often this handler may repeat; `None`: the plan's `max_retries` alone limits it.
    pub times: Option<u32>,
}

/// A response of our own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// 200 to 599.
    pub status: u16,
    /// Field names and values, free of CR, LF and NUL; none of them frames the message.
    pub headers: Vec<(String, String)>,
    /// What follows the head.
    pub body: String,
}

/// What the guest is told instead of a response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// 400 to 599; `None` where there are no status codes.
    pub status: Option<u16>,
    /// For the body of the error; may be empty.
    pub reason: Arc<str>,
}

impl Step {
    /// Its name.
    #[must_use]
    pub const fn action(&self) -> Action {
        match self {
            Self::Ignore => Action::Ignore,
            Self::Discard => Action::Discard,
            Self::Buffer => Action::Buffer,
            Self::Wake(_) => Action::Wake,
            Self::Retry(_) => Action::Retry,
            Self::Follow => Action::Follow,
            Self::Respond(_) => Action::Respond,
            Self::Fail(_) => Action::Fail,
            Self::Alert(_) => Action::Alert,
            Self::Log(_) => Action::Log,
            Self::Close => Action::Close,
        }
    }
}

impl Action {
    /// Whether nothing but telling can follow it: it ends the waiting, or this attempt.
    #[must_use]
    pub const fn ends(self) -> bool {
        matches!(self, Self::Wake | Self::Retry | Self::Follow | Self::Fail | Self::Close)
    }

    /// Whether it only tells someone, and decides nothing about the message.
    #[must_use]
    pub const fn only_tells(self) -> bool {
        matches!(self, Self::Alert | Self::Log)
    }
}

impl Backoff {
    /// How long to wait before repetition `number`, from 0.
    #[must_use]
    pub fn delay(&self, number: u32) -> Duration {
        let times = self.factor.checked_pow(number).unwrap_or(u32::MAX);
        self.after.saturating_mul(times).min(self.at_most)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_wait_is_longer_up_to_the_longest() {
        let second = Duration::from_secs(1);
        let backoff = Backoff { after: second, factor: 3, at_most: 10 * second, times: None };
        let waits: Vec<u64> = (0..5).map(|number| backoff.delay(number).as_secs()).collect();
        assert_eq!(waits, [1, 3, 9, 10, 10]);
        assert_eq!(backoff.delay(u32::MAX), 10 * second);
        assert_eq!(Backoff { factor: 1, ..backoff }.delay(40), second);
    }
}

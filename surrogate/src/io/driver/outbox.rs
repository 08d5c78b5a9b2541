//! Notices on their way to the control side: none is lost, even when its ring is full.
//!
//! What does not fit waits here. That stays small: the engine says at most one of each kind per NIC and
//! epoch, and the worker takes no command, so starts no epoch, while anything waits.

use std::collections::VecDeque;
use std::time::Duration;

use super::handle::DriverNotice;
use crate::io::mailbox;

/// The sending side of the notices.
pub(super) struct Outbox {
    ring: mailbox::Sender<DriverNotice>,
    waiting: VecDeque<DriverNotice>,
}

impl Outbox {
    pub(super) fn new(ring: mailbox::Sender<DriverNotice>) -> Self {
        Self { ring, waiting: VecDeque::new() }
    }

    /// Posts a notice behind those that wait.
    pub(super) fn post(&mut self, notice: DriverNotice) {
        self.waiting.push_back(notice);
        self.flush();
    }

    /// Posts what waits; whether nothing waits any more.
    pub(super) fn flush(&mut self) -> bool {
        if self.ring.is_closed() {
            self.waiting.clear(); // nobody is left to tell
        }
        while let Some(notice) = self.waiting.pop_front() {
            if let Err(refused) = self.ring.post(notice) {
                self.waiting.push_front(refused);
                return false;
            }
        }
        true
    }

    /// When to try again; `None` if nothing waits.
    pub(super) fn retry_after(&self) -> Option<Duration> {
        (!self.waiting.is_empty()).then_some(RETRY)
    }
}

/// The control side needs microseconds to make room.
const RETRY: Duration = Duration::from_millis(1);

#[cfg(test)]
mod tests {
    use super::*;

    fn notice(number: usize) -> DriverNotice {
        DriverNotice::Failed { why: number.to_string() }
    }

    fn number(notice: &DriverNotice) -> &str {
        match notice {
            DriverNotice::Failed { why } => why,
            _ => "",
        }
    }

    #[test]
    fn notices_beyond_the_rings_room_wait_and_keep_their_order() {
        let (ring, mut inbox) = mailbox::mailbox(2).unwrap();
        let mut outbox = Outbox::new(ring);
        (1..=3).for_each(|n| outbox.post(notice(n)));
        assert!(outbox.retry_after().is_some() && !outbox.flush());
        assert_eq!(inbox.take().as_ref().map(number), Some("1"));
        assert!(outbox.flush() && outbox.retry_after().is_none());
        assert_eq!(inbox.take().as_ref().map(number), Some("2"));
        assert_eq!(inbox.take().as_ref().map(number), Some("3"));
    }

    #[test]
    fn with_nobody_left_to_tell_nothing_piles_up() {
        let (ring, inbox) = mailbox::mailbox(1).unwrap();
        let mut outbox = Outbox::new(ring);
        drop(inbox);
        (1..=3).for_each(|n| outbox.post(notice(n)));
        assert!(outbox.retry_after().is_none());
    }
}

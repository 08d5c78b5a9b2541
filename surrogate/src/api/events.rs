//! The last things that happened, and what happens next, for any number of readers.
//!
//! A ring of the newest [`KEPT`] records and a broadcast of new ones. Writers never wait. A reader
//! that falls behind is told how many records it missed; it never slows the writer down.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;

use super::messages::EventRecord;
use crate::io::clock;

/// How many records are kept, and how far a follower may fall behind.
pub const KEPT: usize = 1024;

/// See the [module](self).
#[derive(Debug)]
pub struct EventLog {
    ring: Mutex<Ring>,
    live: broadcast::Sender<EventRecord>,
}

#[derive(Debug, Default)]
struct Ring {
    last_seq: u64,
    records: VecDeque<EventRecord>,
}

impl Default for EventLog {
    fn default() -> Self {
        Self::new()
    }
}

impl EventLog {
    /// An empty log.
    #[must_use]
    pub fn new() -> Self {
        Self { ring: Mutex::default(), live: broadcast::Sender::new(KEPT) }
    }

    /// Records that `kind` happened now, to `guest` if it concerns one.
    pub fn record(&self, guest: Option<&str>, kind: &str, detail: impl Into<String>) {
        let mut ring = self.ring();
        ring.last_seq += 1;
        let record = EventRecord {
            seq: ring.last_seq,
            unix_ms: clock::unix_ms(),
            guest: guest.map(str::to_owned),
            kind: kind.to_owned(),
            detail: detail.into(),
        };
        if ring.records.len() == KEPT {
            ring.records.pop_front();
        }
        ring.records.push_back(record.clone());
        // Sent under the lock, so that every follower sees them in order. No follower is no error.
        let _ = self.live.send(record);
    }

    /// The records after `seq` that are still kept, oldest first, preceded by a `missed` record if
    /// some are not kept any more.
    #[must_use]
    pub fn since(&self, seq: u64) -> Vec<EventRecord> {
        Self::after(&self.ring(), seq)
    }

    /// The records after `seq`, and then what happens from now on, without a gap or a repetition.
    #[must_use]
    pub fn follow(&self, seq: u64) -> (Vec<EventRecord>, Follower) {
        let ring = self.ring();
        let live = self.live.subscribe();
        (Self::after(&ring, seq), Follower { live, last_seq: ring.last_seq.max(seq) })
    }

    /// What happens from now on.
    #[must_use]
    pub fn subscribe(&self) -> Follower {
        let ring = self.ring();
        Follower { live: self.live.subscribe(), last_seq: ring.last_seq }
    }

    fn after(ring: &Ring, seq: u64) -> Vec<EventRecord> {
        let kept = ring.records.iter().filter(|record| record.seq > seq).cloned();
        let oldest = ring.records.front().map_or(1, |record| record.seq);
        let lost = oldest.saturating_sub(seq.saturating_add(1));
        missed(oldest.saturating_sub(1), lost).into_iter().chain(kept).collect()
    }

    fn ring(&self) -> MutexGuard<'_, Ring> {
        // A panic while the lock was held can at most have lost one record.
        self.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One reader of what happens from some moment on.
#[derive(Debug)]
pub struct Follower {
    live: broadcast::Receiver<EventRecord>,
    last_seq: u64,
}

impl Follower {
    /// The next record; `None` when the log is gone. A record of kind `missed` says how many went by
    /// unread.
    pub async fn next(&mut self) -> Option<EventRecord> {
        match self.live.recv().await {
            Ok(record) => {
                self.last_seq = record.seq;
                Some(record)
            }
            Err(RecvError::Lagged(lost)) => {
                self.last_seq = self.last_seq.saturating_add(lost);
                missed(self.last_seq, lost)
            }
            Err(RecvError::Closed) => None,
        }
    }
}

/// Says that `lost` records up to number `seq` were missed, if any were.
fn missed(seq: u64, lost: u64) -> Option<EventRecord> {
    (lost > 0).then(|| EventRecord {
        seq,
        unix_ms: clock::unix_ms(),
        guest: None,
        kind: "missed".to_owned(),
        detail: format!("{lost} earlier events are not kept any more"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_follower_gets_what_was_and_what_comes_without_a_gap() {
        let log = EventLog::new();
        log.record(Some("web1"), "asleep", "paused");
        log.record(Some("web1"), "waking", "SYN to port 80");
        let (past, mut follower) = log.follow(1);
        log.record(None, "stopping", "");
        assert_eq!(past.iter().map(|r| r.seq).collect::<Vec<_>>(), [2]);
        let next = follower.next().await.unwrap();
        assert_eq!((next.seq, next.kind.as_str(), next.guest), (3, "stopping", None));
        drop(log);
        assert_eq!(follower.next().await, None);
    }

    #[tokio::test]
    async fn a_slow_follower_is_told_how_many_it_missed() {
        let log = EventLog::new();
        let mut follower = log.subscribe();
        for n in 0..KEPT + 10 {
            log.record(None, "tick", n.to_string());
        }
        let first = follower.next().await.unwrap();
        assert_eq!((first.kind.as_str(), first.seq), ("missed", 10));
        assert!(first.detail.starts_with("10 "), "{}", first.detail);
        assert_eq!(follower.next().await.unwrap().seq, 11);
    }

    #[test]
    fn only_the_newest_are_kept_and_the_gap_is_named() {
        let log = EventLog::new();
        for n in 0..KEPT + 3 {
            log.record(None, "tick", n.to_string());
        }
        let all = log.since(0);
        assert_eq!(all.len(), KEPT + 1);
        assert_eq!((all[0].kind.as_str(), all[0].seq, all[1].seq), ("missed", 3, 4));
        assert_eq!(log.since(KEPT as u64 + 2).len(), 1);
        assert!(log.since(KEPT as u64 + 3).is_empty());
    }
}

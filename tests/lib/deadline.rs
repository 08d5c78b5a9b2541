//! The lab's only clock: deadlines, and waiting for a condition that gives no event of its own.

#![expect(clippy::disallowed_methods, reason = "the lab runs in real time; this is where it reads it")]

use std::time::{Duration, Instant};

/// A moment by which something must have happened.
#[derive(Clone, Copy, Debug)]
pub struct Deadline {
    began: Instant,
    allowed: Duration,
}

impl Deadline {
    /// `allowed` from now.
    #[must_use]
    pub fn after(allowed: Duration) -> Self {
        Self { began: Instant::now(), allowed }
    }

    /// Since it was set.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        self.began.elapsed()
    }

    /// Until it passes; zero afterwards.
    #[must_use]
    pub fn left(&self) -> Duration {
        self.allowed.saturating_sub(self.elapsed())
    }

    /// Whether it has passed.
    #[must_use]
    pub fn passed(&self) -> bool {
        self.left().is_zero()
    }
}

/// A stopwatch: how long `f` takes.
pub fn timed<T>(f: impl FnOnce() -> T) -> (T, Duration) {
    let began = Instant::now();
    let value = f();
    (value, began.elapsed())
}

/// Waits until `condition` holds; asked every few milliseconds. For what gives no event to wait on.
///
/// # Panics
/// When it does not within `allowed`, saying `what` was awaited.
#[track_caller]
pub fn until(what: &str, allowed: Duration, mut condition: impl FnMut() -> bool) {
    let deadline = Deadline::after(allowed);
    while !condition() {
        assert!(!deadline.passed(), "waited {allowed:?} in vain for: {what}");
        pause(Duration::from_millis(5));
    }
}

/// Lets time pass where time itself is the stimulus (a rate, an age), never to wait for an event.
pub fn pause(duration: Duration) {
    std::thread::sleep(duration);
}

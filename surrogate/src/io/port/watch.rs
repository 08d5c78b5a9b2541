//! Whether to watch a ring for a moment before sleeping on it.
//!
//! Falling asleep and being woken costs both us and the frame's sender microseconds, more than a frame
//! itself. Where the last frame was not long in coming, the next one is likely to be as quick: then a
//! short look pays. Where frames are rare nothing is spent on looking.

use std::time::Duration;

use crate::time::Instant;

/// How the last wait went.
#[derive(Debug, Default)]
pub(super) struct Watch {
    /// How long the last wait took, however it was waited.
    last: Option<Duration>,
}

impl Watch {
    /// Looks for a moment whether `ready`, if that is promising; else calls `sleep`. `clock` tells the time.
    pub(super) fn wait<T>(
        &mut self,
        clock: impl Fn() -> Instant,
        timeout: Option<Duration>,
        ready: impl Fn() -> bool,
        sleep: impl FnOnce() -> T,
    ) -> Option<T> {
        let started = clock();
        let look = LOOK.min(timeout.unwrap_or(LOOK));
        let slept =
            if self.is_promising() && looked(&clock, started, look, ready) { None } else { Some(sleep()) };
        self.last = Some(clock().since(started));
        slept
    }

    /// The last wait ended without a frame: it says nothing of how soon the next one comes.
    pub(super) fn disappoint(&mut self) {
        self.last = None;
    }

    fn is_promising(&self) -> bool {
        self.last.is_some_and(|last| last <= PROMISING)
    }
}

fn looked(clock: impl Fn() -> Instant, started: Instant, length: Duration, ready: impl Fn() -> bool) -> bool {
    while clock().since(started) < length {
        for _ in 0..LOOKS_PER_CLOCK {
            if ready() {
                return true;
            }
            std::hint::spin_loop();
        }
    }
    false
}

/// The longest look.
const LOOK: Duration = Duration::from_micros(30);
/// A wait of at most this long, sleep and wake-up included, makes the next look worth it.
const PROMISING: Duration = Duration::from_micros(60);
const LOOKS_PER_CLOCK: u32 = 8;

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    /// A clock that goes on by `step` at each reading.
    fn ticking(step: Duration) -> impl Fn() -> Instant {
        let now = Cell::new(Instant::ZERO);
        move || {
            now.set(now.get() + step);
            now.get()
        }
    }

    #[test]
    fn the_first_wait_sleeps_and_a_quick_one_makes_the_next_look() {
        let clock = ticking(PROMISING);
        let mut watch = Watch::default();
        assert_eq!(watch.wait(&clock, None, || true, || "slept"), Some("slept"));
        let clock = ticking(Duration::from_nanos(1));
        assert_eq!(watch.wait(&clock, None, || true, || "slept"), None);
    }

    #[test]
    fn after_a_long_wait_nothing_is_spent_on_looking() {
        let clock = ticking(PROMISING + Duration::from_nanos(1));
        let mut watch = Watch::default();
        assert_eq!(watch.wait(&clock, None, || true, || "slept"), Some("slept"));
        assert_eq!(watch.wait(&clock, None, || panic!("looked"), || "slept"), Some("slept"));
    }

    #[test]
    fn after_a_wait_that_brought_no_frame_nothing_is_spent_on_looking() {
        let clock = ticking(Duration::from_nanos(1));
        let mut watch = Watch::default();
        assert_eq!(watch.wait(&clock, None, || true, || "slept"), Some("slept"));
        watch.disappoint();
        assert_eq!(watch.wait(&clock, None, || panic!("looked"), || "slept"), Some("slept"));
    }

    #[test]
    fn a_look_ends_in_time_and_then_sleeps() {
        let clock = ticking(Duration::from_micros(1));
        let mut watch = Watch { last: Some(Duration::ZERO) };
        assert_eq!(watch.wait(&clock, Some(Duration::ZERO), || false, || "slept"), Some("slept"));
        watch.last = Some(Duration::ZERO);
        assert_eq!(watch.wait(&clock, None, || false, || "slept"), Some("slept"));
        assert!(watch.last >= Some(LOOK) && watch.last < Some(2 * LOOK), "{:?}", watch.last);
    }
}

//! Frames whose source is a sleeper's own MAC: the guest runs after all, or somebody forges it, or a loop
//! brings our own answers back.
//!
//! The engine cannot tell which. It *believes* such a frame, which costs a silence and the control side a
//! question to the hypervisor. Told in the same epoch to answer again, it learns that the frame lied, and
//! believes none for a while: [`FIRST`], twice as long after each lie in a row, at most [`LONGEST`]. One that
//! comes in the meantime is believed at its end, so that a guest which runs is found in any case.

use core::time::Duration;

use crate::time::Instant;

/// How long after a first lie no frame is believed.
pub const FIRST: Duration = Duration::from_secs(1);
/// The longest such time: for so long we may speak over a guest that somebody else resumed right after a lie, if
/// the hypervisor's own word of it is lost too.
pub const LONGEST: Duration = Duration::from_secs(10);
/// How long after that nothing may come for the next lie to count as the first one.
const FORGIVEN: Duration = Duration::from_secs(60);

/// What was heard in one NIC's name.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Spoof {
    lies: u32,
    /// No frame is believed before.
    deaf_until: Option<Instant>,
    /// One came that was not believed yet.
    heard: bool,
}

impl Spoof {
    /// A frame came; whether to believe it. If not, [`due_at`](Self::due_at) says when.
    pub(super) fn believes(&mut self, now: Instant) -> bool {
        let Some(until) = self.deaf_until else { return true };
        if now < until {
            self.heard = true;
            return false;
        }
        if now.since(until) >= FORGIVEN {
            self.lies = 0;
        }
        true
    }

    /// The frame that was believed lied: how many did in a row, and for how long none is believed now.
    pub(super) fn lied(&mut self, now: Instant) -> (u32, Duration) {
        let deaf = FIRST.saturating_mul(1 << self.lies.min(8)).min(LONGEST);
        self.lies = self.lies.saturating_add(1);
        self.deaf_until = Some(now + deaf);
        self.heard = false;
        (self.lies, deaf)
    }

    /// When a frame will be believed that was not.
    pub(super) fn due_at(&self) -> Option<Instant> {
        self.deaf_until.filter(|_| self.heard)
    }

    /// Whether that is now; then it was.
    pub(super) fn is_due(&mut self, now: Instant) -> bool {
        let due = self.due_at().is_some_and(|at| at <= now);
        self.heard &= !due;
        due
    }

    /// The guest went through a transition: what is heard next may well be itself.
    pub(super) fn listen(&mut self, now: Instant) {
        self.deaf_until = self.deaf_until.map(|until| until.min(now));
        self.heard = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Instant {
        Instant::ZERO + Duration::from_millis(ms)
    }

    #[test]
    fn after_each_lie_in_a_row_none_is_believed_for_twice_as_long_up_to_the_longest() {
        let mut spoof = Spoof::default();
        let mut now = at(0);
        let mut deaf = Vec::new();
        for row in 1..=6 {
            assert!(spoof.believes(now), "lie {row}");
            let (lies, time) = spoof.lied(now);
            assert_eq!(lies, row);
            deaf.push(time.as_secs());
            assert!(!spoof.believes(now + time - Duration::from_nanos(1)));
            now = now + time;
        }
        assert_eq!(deaf, [1, 2, 4, 8, 10, 10]);
        // A minute without any is forgiven, a little less is not.
        assert!(spoof.believes(now + FORGIVEN - Duration::from_nanos(1)));
        assert_eq!(spoof.lies, 6);
        assert!(spoof.believes(now + FORGIVEN));
        assert_eq!(spoof.lied(now + FORGIVEN), (1, FIRST));
    }

    #[test]
    fn what_came_too_early_is_believed_once_at_the_end() {
        let mut spoof = Spoof::default();
        spoof.lied(at(0));
        assert_eq!((spoof.due_at(), spoof.is_due(at(2_000))), (None, false));
        assert!(!spoof.believes(at(500)));
        assert_eq!(spoof.due_at(), Some(at(1_000)));
        assert!(!spoof.is_due(at(999)) && spoof.is_due(at(1_000)) && !spoof.is_due(at(1_001)));
    }

    #[test]
    fn after_a_transition_the_first_frame_is_believed_and_lies_are_not_forgotten() {
        let mut spoof = Spoof::default();
        spoof.lied(at(0));
        assert!(!spoof.believes(at(10)));
        spoof.listen(at(20));
        assert_eq!(spoof.due_at(), None);
        assert!(spoof.believes(at(20)));
        assert_eq!(spoof.lied(at(30)), (2, 2 * FIRST));
    }
}

//! Sequence numbers and timestamps: arithmetic modulo 2^32 (RFC 9293 3.4, RFC 7323 5.2).

use serde::{Deserialize, Serialize};

/// A number that goes round: of two, the one less than 2^31 ahead of the other is later.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct Seq(pub(super) u32);

impl Seq {
    /// `n` later.
    #[must_use]
    pub(super) const fn plus(self, n: u32) -> Self {
        Self(self.0.wrapping_add(n))
    }

    /// `n` earlier.
    #[must_use]
    pub(super) const fn minus(self, n: u32) -> Self {
        Self(self.0.wrapping_sub(n))
    }

    /// How far after `earlier`, going forward only.
    #[must_use]
    pub(super) const fn since(self, earlier: Self) -> u32 {
        self.0.wrapping_sub(earlier.0)
    }

    /// Whether it is earlier than `other`.
    #[must_use]
    pub(super) const fn is_before(self, other: Self) -> bool {
        other.since(self).wrapping_sub(1) < HALF
    }

    /// Where a number stands that was at `self` and is now seen at `seen`: it never goes back, but for a view so
    /// far behind that it must have gone round unseen.
    #[must_use]
    pub(super) const fn advanced_to(self, seen: Self) -> Self {
        if seen.is_before(self) && self.since(seen) <= FARTHEST_BACK { self } else { seen }
    }
}

const HALF: u32 = 1 << 31;
/// No window is larger (RFC 7323 2.3), so nothing repeated is older.
const FARTHEST_BACK: u32 = 1 << 30;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_goes_round() {
        assert!(Seq(u32::MAX).is_before(Seq(0)) && !Seq(0).is_before(Seq(u32::MAX)));
        assert!(Seq(5).is_before(Seq(6)) && !Seq(6).is_before(Seq(6)) && !Seq(7).is_before(Seq(6)));
        assert_eq!((Seq(u32::MAX).plus(2), Seq(1).minus(2)), (Seq(1), Seq(u32::MAX)));
        assert_eq!(Seq(3).since(Seq(u32::MAX)), 4);
    }

    #[test]
    fn what_is_repeated_does_not_go_back_and_what_went_round_unseen_counts() {
        assert_eq!(Seq(100).advanced_to(Seq(90)), Seq(100));
        assert_eq!(Seq(100).advanced_to(Seq(110)), Seq(110));
        assert_eq!(Seq(10).advanced_to(Seq(u32::MAX)), Seq(10));
        let behind = Seq(0).minus(FARTHEST_BACK + 1);
        assert_eq!(Seq(0).advanced_to(behind), behind);
    }
}

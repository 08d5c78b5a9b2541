//! What the control side is told, and how often: at most once per NIC and epoch of each kind.
//!
//! A frame worth waking for is a reason to wake its guest; the thousandth such frame is not a
//! thousandth reason. So a sender can fill a hold buffer, but never the queue to the control side.

use std::collections::VecDeque;

use super::contract::{Notice, WakeReason};
use crate::guest::identity::{Epoch, NicIdentity};

/// What was told about one NIC in its present epoch.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Told(u8);

/// What is told once per epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Once {
    /// [`Notice::Wake`].
    Wake,
    /// [`Notice::GuestSpoke`].
    GuestSpoke,
    /// [`Notice::Conflict`], defended.
    Defended,
    /// [`Notice::Conflict`], no longer defended.
    Conflict,
    /// [`Notice::Drained`].
    Drained,
    /// [`Notice::LeaseChanged`].
    LeaseChanged,
    /// [`Notice::Expired`].
    Expired,
}

impl Told {
    /// Whether this is the first time; from now on it is not.
    pub(super) const fn first(&mut self, what: Once) -> bool {
        let bit = 1 << what as u8;
        let first = self.0 & bit == 0;
        self.0 |= bit;
        first
    }

    /// It may be told again; whether it was told.
    pub(super) const fn forget(&mut self, what: Once) -> bool {
        let bit = 1 << what as u8;
        let told = self.0 & bit != 0;
        self.0 &= !bit;
        told
    }
}

/// Notices on their way to the control side.
#[derive(Default)]
pub(super) struct Notices(VecDeque<Notice>);

impl Notices {
    /// Makes room for what `nics` NICs can have to say between two calls of the driver.
    pub(super) fn reserve(&mut self, nics: usize) {
        self.0.reserve(nics * PER_NIC);
    }

    /// Adds one.
    pub(super) fn push(&mut self, notice: Notice) {
        self.0.push_back(notice);
    }

    /// The oldest.
    pub(super) fn pop(&mut self) -> Option<Notice> {
        self.0.pop_front()
    }

    /// Asks for a wake, unless that was done in this epoch.
    pub(super) fn wake(&mut self, told: &mut Told, nic: &NicIdentity, epoch: Epoch, reason: WakeReason) {
        if told.first(Once::Wake) {
            self.push(Notice::Wake { guest: nic.guest, nic: nic.nic, epoch, reason });
        }
    }
}

/// The kinds of [`Once`], one each of the watch, the barrier, the mode, a lie and the end of a replay, and a renewal of
/// each family.
const PER_NIC: usize = 14;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_is_told_once_until_forgotten() {
        let mut told = Told::default();
        assert!(told.first(Once::Wake) && !told.first(Once::Wake));
        assert!(told.first(Once::Conflict) && !told.first(Once::Conflict));
        assert!(told.forget(Once::Conflict) && !told.forget(Once::Conflict));
        assert!(told.first(Once::Conflict) && !told.first(Once::Wake));
    }
}

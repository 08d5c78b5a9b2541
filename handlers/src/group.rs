//! Stubs of one guest that wake it together.
//!
//! Each member ends once: it wants to wake (woken or failed), or it leaves (closed, or deleted). As every plan
//! has an end, so has every group: at the latest when the last member's `max_wait` is over. One [`Group`] serves
//! one sleep: awake it stays, and the next sleep has another.

use std::collections::BTreeMap;

use crate::plan::{GroupWake, MAX_MEMBERS};

/// A group of stubs; `M` names a member.
#[derive(Clone, Debug)]
pub struct Group<M> {
    wake: GroupWake,
    /// Whether each member wants to wake.
    members: BTreeMap<M, bool>,
    is_awake: bool,
}

/// Why a group takes no other member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CannotJoin {
    /// It has as many as it may have.
    Full,
    /// The guest is awake: this group is done.
    Awake,
}

impl<M: Ord> Group<M> {
    /// A group without members.
    #[must_use]
    pub const fn new(wake: GroupWake) -> Self {
        Self { wake, members: BTreeMap::new(), is_awake: false }
    }

    /// `member` is in it. Joining again changes nothing.
    ///
    /// # Errors
    /// There are as many as a group may have, or the guest is awake.
    pub fn join(&mut self, member: M) -> Result<(), CannotJoin> {
        if self.is_awake {
            return Err(CannotJoin::Awake);
        }
        let most = usize::try_from(MAX_MEMBERS).unwrap_or(usize::MAX);
        if self.members.len() >= most && !self.members.contains_key(&member) {
            return Err(CannotJoin::Full);
        }
        self.members.entry(member).or_insert(false);
        Ok(())
    }

    /// `member` wants to wake. Whether the guest is to wake now: true once, however many ask. If it is not, tell
    /// the member's [`Chain::withhold`](crate::Chain::withhold), so that its byte limit stays in force.
    pub fn want(&mut self, member: &M) -> bool {
        if let Some(wants) = self.members.get_mut(member) {
            *wants = true;
        }
        self.decide()
    }

    /// `member` is in it no more. Whether the guest is to wake now, because no other had to be waited for.
    pub fn leave(&mut self, member: &M) -> bool {
        self.members.remove(member);
        self.decide()
    }

    /// The guest must wake whatever the others want: a member has kept as much as it may (`By::MaxBytes`). Whether
    /// it is to wake now: false if it did before.
    pub const fn wake_now(&mut self) -> bool {
        !core::mem::replace(&mut self.is_awake, true)
    }

    fn decide(&mut self) -> bool {
        let wanting = self.members.values().filter(|wants| **wants).count();
        let needed = match self.wake {
            GroupWake::Any => 1,
            GroupWake::All => self.members.len(),
            GroupWake::Count(count) => usize::try_from(count).unwrap_or(usize::MAX).min(self.members.len()),
        };
        let wakes = !self.is_awake && wanting > 0 && wanting >= needed;
        self.is_awake |= wakes;
        wakes
    }
}

impl core::fmt::Display for CannotJoin {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Full => write!(f, "the group is full: wanted at most {MAX_MEMBERS} stubs"),
            Self::Awake => write!(f, "the group has woken its guest: wanted one that waits"),
        }
    }
}

impl std::error::Error for CannotJoin {}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(wake: GroupWake, members: u32) -> Group<u32> {
        let mut group = Group::new(wake);
        (0..members).for_each(|member| group.join(member).unwrap());
        group
    }

    #[test]
    fn any_wakes_with_the_first_and_only_once() {
        let mut group = of(GroupWake::Any, 3);
        assert_eq!([group.want(&1), group.want(&2), group.want(&0)], [true, false, false]);
    }

    #[test]
    fn all_wakes_with_the_last() {
        let mut group = of(GroupWake::All, 3);
        assert_eq!(
            [group.want(&1), group.want(&1), group.want(&2), group.want(&0)],
            [false, false, false, true]
        );
    }

    #[test]
    fn a_number_wakes_when_so_many_want_to_or_all_there_are() {
        let mut group = of(GroupWake::Count(2), 3);
        assert_eq!([group.want(&0), group.want(&2), group.want(&1)], [false, true, false]);
        let mut group = of(GroupWake::Count(5), 2);
        assert_eq!([group.want(&0), group.want(&1)], [false, true]);
    }

    #[test]
    fn a_member_that_leaves_is_waited_for_no_more() {
        let mut group = of(GroupWake::All, 3);
        assert!(!group.want(&0) && !group.leave(&1) && group.leave(&2));
        let mut nobody = of(GroupWake::All, 2);
        assert!(!nobody.leave(&0) && !nobody.leave(&1), "nobody wanted to");
        assert!(!nobody.want(&7), "a stranger wants nothing");
    }

    #[test]
    fn a_full_group_takes_no_other() {
        let mut group = of(GroupWake::Any, 64);
        assert_eq!(group.join(3), Ok(()));
        let full = group.join(64).unwrap_err().to_string();
        assert_eq!(full, "the group is full: wanted at most 64 stubs");
    }

    #[test]
    fn a_group_that_woke_its_guest_is_done() {
        let mut group = of(GroupWake::All, 2);
        assert!(group.wake_now() && !group.wake_now());
        assert_eq!(group.join(5), Err(CannotJoin::Awake));
        assert!(!group.want(&0) && !group.want(&1), "it is awake already");
    }
}

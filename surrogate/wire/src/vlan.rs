//! 802.1Q and 802.1ad tags: one, and the stack of up to two that a frame carries.

/// An 802.1Q or 802.1ad tag.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct VlanTag {
    /// 0x8100 or 0x88a8.
    pub tpid: u16,
    /// Priority (3 bits), drop eligible (1), VLAN identifier (12).
    pub tci: u16,
}

impl VlanTag {
    /// The VLAN identifier, 0 to 4095; 0 means priority only.
    #[must_use]
    pub const fn vid(self) -> u16 {
        self.tci & 0x0fff
    }
}

/// `TPID` of an 802.1Q tag.
pub const TPID_8021Q: u16 = 0x8100;
/// `TPID` of an 802.1ad service tag.
pub const TPID_8021AD: u16 = 0x88a8;

/// The tags of one frame, outermost first: none, one or two.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Tags {
    outer: Option<VlanTag>,
    inner: Option<VlanTag>,
}

impl Tags {
    /// No tag.
    pub const NONE: Self = Self { outer: None, inner: None };

    /// One 802.1Q tag of priority 0 for `vid`, or none for `None` and 0: what a station of that VLAN
    /// sends of its own accord.
    #[must_use]
    pub const fn for_vid(vid: Option<u16>) -> Self {
        match vid {
            None | Some(0) => Self::NONE,
            Some(vid) => Self { outer: Some(VlanTag { tpid: TPID_8021Q, tci: vid & 0x0fff }), inner: None },
        }
    }

    /// Adds `tag` inside those there are. Says whether there was room.
    pub const fn push(&mut self, tag: VlanTag) -> bool {
        match self {
            Self { outer: None, .. } => self.outer = Some(tag),
            Self { inner: None, .. } => self.inner = Some(tag),
            _ => return false,
        }
        true
    }

    /// How many: 0 to 2.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.outer.is_some() as usize + self.inner.is_some() as usize
    }

    /// Whether the frame is untagged.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.outer.is_none()
    }

    /// Outermost first.
    pub fn iter(&self) -> impl Iterator<Item = VlanTag> + use<> {
        [self.outer, self.inner].into_iter().flatten()
    }

    /// The VLAN as the bridge sees it: the outermost tag's identifier; `None` if there is no tag, or
    /// one that gives only a priority (VID 0).
    #[must_use]
    pub const fn vid(&self) -> Option<u16> {
        match self.outer {
            Some(tag) if tag.vid() != 0 => Some(tag.vid()),
            _ => None,
        }
    }

    /// The VLAN inside [`vid`](Self::vid): a tag that the guest's own stack takes off, if at all.
    #[must_use]
    pub const fn inner_vid(&self) -> Option<u16> {
        match self.inner {
            Some(tag) if tag.vid() != 0 => Some(tag.vid()),
            _ => None,
        }
    }
}

impl core::fmt::Debug for Tags {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_priority_tag_is_no_vlan() {
        let mut tags = Tags::NONE;
        assert!(tags.push(VlanTag { tpid: TPID_8021Q, tci: 0xa000 }));
        assert_eq!((tags.vid(), tags.len()), (None, 1));
    }

    #[test]
    fn the_outer_tag_is_what_the_bridge_sees() {
        let mut tags = Tags::NONE;
        assert!(tags.push(VlanTag { tpid: TPID_8021AD, tci: 0x2064 }));
        assert!(tags.push(VlanTag { tpid: TPID_8021Q, tci: 0x000a }));
        assert!(!tags.push(VlanTag { tpid: TPID_8021Q, tci: 1 }), "a third has no room");
        assert_eq!((tags.vid(), tags.inner_vid()), (Some(100), Some(10)));
        assert_eq!(tags.iter().map(|t| t.tpid).collect::<Vec<_>>(), [TPID_8021AD, TPID_8021Q]);
    }

    #[test]
    fn a_station_without_vlan_sends_untagged() {
        assert_eq!(Tags::for_vid(None), Tags::NONE);
        assert_eq!(Tags::for_vid(Some(0)), Tags::NONE);
        assert_eq!(Tags::for_vid(Some(10)).vid(), Some(10));
    }
}

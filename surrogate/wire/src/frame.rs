//! The Ethernet header and up to two VLAN tags, in one pass (IEEE 802.3, 802.1Q, 802.1ad).
//!
//! Only a frame too short for its own header is refused here: who it is for must be known before the
//! rest of it may be found wanting, because every verdict is counted for somebody.

use crate::mac::Mac;
use crate::malformed::Malformed;
use crate::received::Received;
use crate::vlan::{TPID_8021AD, TPID_8021Q, Tags, VlanTag};

/// `EtherType` values with a meaning here.
pub mod ethertype {
    /// IPv4.
    pub const IPV4: u16 = 0x0800;
    /// ARP.
    pub const ARP: u16 = 0x0806;
    /// Magic packet (Wake-on-LAN).
    pub const WAKE_ON_LAN: u16 = 0x0842;
    /// RARP: what hypervisors announce a moved guest with.
    pub const RARP: u16 = 0x8035;
    /// IPv6.
    pub const IPV6: u16 = 0x86dd;
}

/// Below this the type field is the length of an LLC frame.
const FIRST_ETHERTYPE: u16 = 1536;

/// An Ethernet frame, its tags taken off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame<'a> {
    /// Destination.
    pub dst: Mac,
    /// Source; [`Packet::parse`](crate::Packet::parse) refuses one that no station can have.
    pub src: Mac,
    /// The tags, whether the kernel had taken the outermost out of the bytes or not.
    pub tags: Tags,
    /// Type behind the tags; below 1536 a length. A third tag's TPID stays here.
    pub ethertype: u16,
    /// What follows, padding included.
    pub payload: &'a [u8],
}

impl<'a> Frame<'a> {
    /// Reads the header and the tags.
    ///
    /// # Errors
    /// [`Malformed::Length`] if the bytes end before the type field.
    #[inline]
    pub fn parse(received: &Received<'a>) -> Result<Self, Malformed> {
        let (head, mut payload) = received.bytes.split_first_chunk::<14>().ok_or(Malformed::Length)?;
        let [d0, d1, d2, d3, d4, d5, s0, s1, s2, s3, s4, s5, t0, t1] = *head;
        let mut ethertype = u16::from_be_bytes([t0, t1]);
        let mut tags = Tags::NONE;
        if let Some(tag) = received.vlan {
            tags.push(tag);
        }
        while matches!(ethertype, TPID_8021Q | TPID_8021AD) && tags.len() < 2 {
            let (tag, rest) = payload.split_first_chunk::<4>().ok_or(Malformed::Length)?;
            let [c0, c1, t0, t1] = *tag;
            tags.push(VlanTag { tpid: ethertype, tci: u16::from_be_bytes([c0, c1]) });
            ethertype = u16::from_be_bytes([t0, t1]);
            payload = rest;
        }
        Ok(Self {
            dst: Mac([d0, d1, d2, d3, d4, d5]),
            src: Mac([s0, s1, s2, s3, s4, s5]),
            tags,
            ethertype,
            payload,
        })
    }

    /// Whether the type field is a length: an 802.3/LLC frame, as spanning tree sends.
    #[must_use]
    pub const fn is_llc(&self) -> bool {
        self.ethertype < FIRST_ETHERTYPE
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{ALICE, BOB};

    const HEAD: [u8; 12] = [0x52, 0x54, 0, 0, 0, 0x22, 0x52, 0x54, 0, 0, 0, 0x11];

    fn with(tail: &[u8]) -> Vec<u8> {
        [&HEAD, tail].concat()
    }

    #[test]
    fn an_untagged_frame() {
        let bytes = with(&[8, 6, 1, 2, 3]);
        let frame = Frame::parse(&Received::plain(&bytes)).unwrap();
        assert_eq!((frame.dst, frame.src), (BOB, ALICE));
        assert_eq!(
            (frame.tags, frame.ethertype, frame.payload),
            (Tags::NONE, ethertype::ARP, &[1, 2, 3][..])
        );
    }

    #[test]
    fn a_tag_beside_the_bytes_is_outside_the_one_in_them() {
        let bytes = with(&[0x81, 0, 0, 20, 8, 0, 9]);
        let outer = VlanTag { tpid: TPID_8021AD, tci: 100 };
        let frame = Frame::parse(&Received { vlan: Some(outer), ..Received::plain(&bytes) }).unwrap();
        assert_eq!((frame.tags.vid(), frame.tags.inner_vid()), (Some(100), Some(20)));
        assert_eq!((frame.ethertype, frame.payload), (ethertype::IPV4, &[9][..]));
    }

    #[test]
    fn a_third_tag_is_passed_over_as_an_unknown_type() {
        let bytes = with(&[0x88, 0xa8, 0, 1, 0x81, 0, 0, 2, 0x81, 0, 0, 3, 8, 0]);
        let frame = Frame::parse(&Received::plain(&bytes)).unwrap();
        assert_eq!((frame.tags.len(), frame.ethertype, frame.payload), (2, 0x8100, &[0, 3, 8, 0][..]));
    }

    #[test]
    fn a_type_below_1536_is_a_length() {
        let parsed = |bytes: &[u8]| Frame::parse(&Received::plain(bytes)).map(|f| f.is_llc());
        assert_eq!(parsed(&with(&[0, 38, 0x42, 0x42, 3])), Ok(true));
        assert_eq!(parsed(&with(&[5, 0xff])), Ok(true));
        assert_eq!(parsed(&with(&[6, 0])), Ok(false));
    }

    #[test]
    fn frames_that_end_in_their_header_are_refused() {
        for bytes in [&[][..], &HEAD, &with(&[8]), &with(&[0x81, 0, 0, 1, 8]), &with(&[0x81, 0])] {
            assert_eq!(Frame::parse(&Received::plain(bytes)), Err(Malformed::Length), "{bytes:x?}");
        }
    }
}

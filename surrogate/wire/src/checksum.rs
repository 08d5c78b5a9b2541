//! The Internet checksum (RFC 1071), its pseudo-headers (RFC 9293 3.1, RFC 8200 8.1) and its
//! incremental form (RFC 1624).
//!
//! Summed in memory order, 32 bits at a time into 64, and swapped once at the end (RFC 1071 2B): the
//! compiler makes vector code of it, and no carry is lost before 2^32 words.

use core::net::{Ipv4Addr, Ipv6Addr};

/// A running one's complement sum.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sum(u64);

impl Sum {
    /// The sum of nothing.
    pub const ZERO: Self = Self(0);

    /// The pseudo-header of a TCP segment, UDP datagram or other message of `len` bytes over IPv4.
    #[inline]
    #[must_use]
    pub fn pseudo_v4(src: Ipv4Addr, dst: Ipv4Addr, protocol: u8, len: usize) -> Self {
        Self::ZERO.add_v4(src).add_v4(dst).add_protocol_and_len(protocol, len)
    }

    /// The same over IPv6; `dst` is the final destination.
    #[inline]
    #[must_use]
    pub fn pseudo_v6(src: Ipv6Addr, dst: Ipv6Addr, next_header: u8, len: usize) -> Self {
        Self::ZERO.add(&src.octets()).add(&dst.octets()).add_protocol_and_len(next_header, len)
    }

    /// Adds `bytes`, which begin at an even offset of what is summed; an odd last byte is padded with
    /// zero, so only the last piece may be odd.
    #[inline]
    #[must_use]
    #[expect(clippy::should_implement_trait, reason = "adds bytes to a sum, not a sum to a sum")]
    pub fn add(self, bytes: &[u8]) -> Self {
        let (words, tail) = bytes.as_chunks::<4>();
        let mut sum = self.0;
        for word in words {
            sum += u64::from(u32::from_ne_bytes(*word));
        }
        // Put together in a register: bytes written one by one and read as a word would stall.
        let last = match *tail {
            [a] => [a, 0, 0, 0],
            [a, b] => [a, b, 0, 0],
            [a, b, c, ..] => [a, b, c, 0],
            [] => [0; 4],
        };
        Self(sum + u64::from(u32::from_ne_bytes(last)))
    }

    /// Adds one 16-bit field.
    #[inline]
    #[must_use]
    pub const fn add_u16(self, field: u16) -> Self {
        Self(self.0 + field.to_be() as u64)
    }

    /// Adds one IPv4 address.
    #[inline]
    #[must_use]
    pub const fn add_v4(self, address: Ipv4Addr) -> Self {
        Self(self.0 + u32::from_ne_bytes(address.octets()) as u64)
    }

    /// The value for the checksum field, which was summed as zero or left out.
    #[inline]
    #[must_use]
    pub const fn finish(self) -> u16 {
        !u16::from_be(self.fold())
    }

    /// Whether data that contains its checksum is intact.
    #[inline]
    #[must_use]
    pub const fn is_intact(self) -> bool {
        self.fold() == 0xffff
    }

    /// The rest of a pseudo-header behind its addresses.
    #[inline]
    pub(crate) const fn add_protocol_and_len(self, protocol: u8, len: usize) -> Self {
        // Longer than 2^32 cannot be: a received frame has at most 64 KiB.
        Self(self.0 + (protocol as u16).to_be() as u64 + (len as u32).to_be() as u64)
    }

    const fn fold(self) -> u16 {
        let sum = (self.0 >> 32) + (self.0 & 0xffff_ffff);
        let sum = (sum >> 16) + (sum & 0xffff);
        let sum = (sum >> 16) + (sum & 0xffff);
        ((sum >> 16) + (sum & 0xffff)) as u16
    }
}

/// The checksum after one 16-bit field has changed from `old` to `new`: `HC' = ~(~HC + ~m + m')`
/// (RFC 1624, equation 3).
#[inline]
#[must_use]
pub const fn update(checksum: u16, old: u16, new: u16) -> u16 {
    let sum = !checksum as u32 + !old as u32 + new as u32;
    let sum = (sum >> 16) + (sum & 0xffff);
    !(((sum >> 16) + (sum & 0xffff)) as u16)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// RFC 1071, 4.1, word by word.
    fn by_the_book(bytes: &[u8]) -> u16 {
        let mut sum = 0u32;
        for pair in bytes.chunks(2) {
            sum += u32::from(u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)]));
            sum = (sum & 0xffff) + (sum >> 16);
        }
        !(sum as u16)
    }

    #[test]
    fn the_example_of_rfc_1071() {
        let bytes = [0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7];
        assert_eq!(Sum::ZERO.add(&bytes).finish(), !0xddf2);
    }

    #[test]
    fn the_example_of_rfc_1624() {
        // Section 4: the older equation gives 0xffff here.
        assert_eq!(update(0xdd2f, 0x5555, 0x3285), 0x0000);
    }

    #[test]
    fn longest_packets_of_ones_lose_no_carry() {
        let bytes = vec![0xff; 65_535];
        assert_eq!(Sum::ZERO.add(&bytes).finish(), by_the_book(&bytes));
    }

    proptest! {
        #[test]
        fn agrees_with_the_book(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            prop_assert_eq!(Sum::ZERO.add(&bytes).finish(), by_the_book(&bytes));
        }

        #[test]
        fn pieces_sum_like_the_whole(
            bytes in prop::collection::vec(any::<u8>(), 0..200), cut in 0usize..100, field: u16,
        ) {
            let (head, tail) = bytes.split_at((cut * 2).min(bytes.len() & !1));
            let whole = [&field.to_be_bytes(), &bytes[..]].concat();
            let pieces = Sum::ZERO.add(head).add_u16(field).add(tail);
            prop_assert_eq!(pieces.finish(), by_the_book(&whole));
        }

        #[test]
        fn what_carries_its_checksum_is_intact_until_a_bit_flips(
            mut bytes in prop::collection::vec(any::<u8>(), 4..200), at: prop::sample::Index, bit in 0u8..8,
        ) {
            bytes[2..4].fill(0);
            let sum = Sum::ZERO.add(&bytes).finish();
            bytes[2..4].copy_from_slice(&sum.to_be_bytes());
            prop_assert!(Sum::ZERO.add(&bytes).is_intact());
            let at = at.index(bytes.len());
            bytes[at] ^= 1 << bit;
            prop_assert!(!Sum::ZERO.add(&bytes).is_intact());
        }

        #[test]
        fn an_update_is_what_summing_anew_gives(
            mut bytes in prop::collection::vec(any::<u8>(), 4..60), word in any::<prop::sample::Index>(), new: u16,
        ) {
            // One word stays what it is: of nothing but zeros the two zeros could differ.
            bytes[0] |= 1;
            let at = 2 + word.index((bytes.len() - 2) / 2) * 2;
            let before = Sum::ZERO.add(&bytes).finish();
            let old = u16::from_be_bytes([bytes[at], bytes[at + 1]]);
            bytes[at..at + 2].copy_from_slice(&new.to_be_bytes());
            prop_assert_eq!(update(before, old, new), Sum::ZERO.add(&bytes).finish());
        }
    }
}

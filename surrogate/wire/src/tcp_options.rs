//! The options of a TCP segment (RFC 9293 3.2, RFC 7323, RFC 2018, RFC 2385, RFC 5925).
//!
//! Only what a stand-in must know. An option whose length contradicts the header's ends the list, as in Linux:
//! what stood before it counts.

/// What the options of one segment say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TcpOptions {
    /// Maximum segment size in bytes; only in a SYN.
    pub mss: Option<u16>,
    /// Window scale, 0 to 14 (RFC 7323 2.3: a larger one counts as 14); only in a SYN.
    pub scale: Option<u8>,
    /// Selective acknowledgements are permitted; only in a SYN.
    pub sack_permitted: bool,
    /// There is a selective acknowledgement.
    pub sack: bool,
    /// Timestamps.
    pub timestamps: Option<Timestamps>,
    /// TCP-MD5 or TCP-AO: nobody but its ends can make a segment of this connection.
    pub signed: bool,
}

/// The timestamps option (RFC 7323 3.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timestamps {
    /// `TSval`: the sender's clock.
    pub value: u32,
    /// `TSecr`: what the sender repeats of the other end's.
    pub echo: u32,
}

impl TcpOptions {
    /// Reads `options`, the bytes between the fixed header and the data.
    #[must_use]
    pub fn parse(mut options: &[u8]) -> Self {
        let mut read = Self::default();
        while let Some((&kind, rest)) = options.split_first() {
            match kind {
                END => return read,
                NO_OPERATION => {
                    options = rest;
                    continue;
                }
                _ => {}
            }
            let Some((&len, _)) = rest.split_first() else { return read };
            // Kind and length count.
            let Some((option, after)) = options.split_at_checked(usize::from(len)) else { return read };
            let Some(value) = option.get(2..) else { return read };
            read.take(kind, value);
            options = after;
        }
        read
    }

    /// Whether there is one that stands in a SYN only (RFC 9293 3.7.1, RFC 7323 2.2, RFC 2018 2).
    #[must_use]
    pub const fn is_of_a_syn(&self) -> bool {
        self.mss.is_some() || self.scale.is_some() || self.sack_permitted
    }

    fn take(&mut self, kind: u8, value: &[u8]) {
        match (kind, value) {
            (MSS, &[a, b]) => self.mss = Some(u16::from_be_bytes([a, b])),
            (SCALE, &[shift]) => self.scale = Some(shift.min(MAX_SCALE)),
            (SACK_PERMITTED, []) => self.sack_permitted = true,
            (SACK, [_, ..]) => self.sack = true,
            (TIMESTAMPS, &[v0, v1, v2, v3, e0, e1, e2, e3]) => {
                let value = u32::from_be_bytes([v0, v1, v2, v3]);
                self.timestamps = Some(Timestamps { value, echo: u32::from_be_bytes([e0, e1, e2, e3]) });
            }
            (MD5 | AO, _) => self.signed = true,
            _ => {}
        }
    }
}

impl Timestamps {
    /// The option, with the two no-operations before it that align it (RFC 7323 appendix A).
    #[must_use]
    pub const fn emit(&self) -> [u8; 12] {
        let [v0, v1, v2, v3] = self.value.to_be_bytes();
        let [e0, e1, e2, e3] = self.echo.to_be_bytes();
        [NO_OPERATION, NO_OPERATION, TIMESTAMPS, 10, v0, v1, v2, v3, e0, e1, e2, e3]
    }
}

/// A selective acknowledgement of one block, the bytes from `left` to before `right` (RFC 2018 3), aligned alike.
#[must_use]
pub const fn sack_block(left: u32, right: u32) -> [u8; 12] {
    let [l0, l1, l2, l3] = left.to_be_bytes();
    let [r0, r1, r2, r3] = right.to_be_bytes();
    [NO_OPERATION, NO_OPERATION, SACK, 10, l0, l1, l2, l3, r0, r1, r2, r3]
}

/// The largest window scale (RFC 7323 2.3).
pub const MAX_SCALE: u8 = 14;

const END: u8 = 0;
const NO_OPERATION: u8 = 1;
const MSS: u8 = 2;
const SCALE: u8 = 3;
const SACK_PERMITTED: u8 = 4;
const SACK: u8 = 5;
const TIMESTAMPS: u8 = 8;
const MD5: u8 = 19;
const AO: u8 = 29;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Of a Linux SYN.
    const SYN: [u8; 20] = [2, 4, 5, 0xb4, 4, 2, 8, 10, 0, 0, 0, 7, 0, 0, 0, 9, 1, 3, 3, 7];

    #[test]
    fn the_options_of_a_syn() {
        let expected = TcpOptions {
            mss: Some(1460),
            scale: Some(7),
            sack_permitted: true,
            timestamps: Some(Timestamps { value: 7, echo: 9 }),
            ..TcpOptions::default()
        };
        assert_eq!(TcpOptions::parse(&SYN), expected);
    }

    #[test]
    fn what_follows_the_end_of_the_list_or_a_wrong_length_does_not_count() {
        for cut in [&[0, 2, 4, 5, 0xb4][..], &[3, 0, 2, 4, 5, 0xb4], &[3, 1], &[3, 9, 7], &[3]] {
            assert_eq!(TcpOptions::parse(cut), TcpOptions::default(), "{cut:?}");
        }
        assert_eq!(TcpOptions::parse(&[3, 3, 200]).scale, Some(14), "RFC 7323 2.3");
        assert!(
            TcpOptions::parse(&[3, 4, 1, 1, 4, 2]).sack_permitted,
            "an option of another length is passed over"
        );
    }

    #[test]
    fn signed_segments_are_known_by_their_option() {
        assert!(TcpOptions::parse(&[[19, 18].as_slice(), &[0; 16]].concat()).signed);
        assert!(TcpOptions::parse(&[29, 4, 1, 2]).signed);
        assert!(!TcpOptions::parse(&SYN).signed);
    }

    #[test]
    fn what_is_written_is_read_again() {
        let timestamps = Timestamps { value: u32::MAX, echo: 1 };
        let read = TcpOptions::parse(&[timestamps.emit(), sack_block(5, 6)].concat());
        assert_eq!((read.timestamps, read.sack), (Some(timestamps), true));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_a_panic_and_repeat_themselves(
            bytes in prop_oneof![
                proptest::collection::vec(any::<u8>(), 0..44),
                proptest::collection::vec(0_u8..12, 0..44),
            ],
        ) {
            let read = TcpOptions::parse(&bytes);
            prop_assert!(read.scale.is_none_or(|scale| scale <= MAX_SCALE));
            prop_assert_eq!(TcpOptions::parse(&bytes), read);
        }
    }
}

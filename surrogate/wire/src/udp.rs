//! UDP datagrams (RFC 768).

use crate::malformed::Malformed;

/// A UDP datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Udp<'a> {
    /// Source port; zero if the sender wants no answer.
    pub src_port: u16,
    /// Destination port.
    pub dst_port: u16,
    /// As sent; zero over IPv4 if the sender made none.
    pub checksum: u16,
    /// The data, cut at the UDP length.
    pub payload: &'a [u8],
    /// Header and data, cut at the UDP length.
    pub datagram: &'a [u8],
}

impl<'a> Udp<'a> {
    /// Bytes of the header.
    pub const HEADER: usize = HEADER;

    /// Reads `datagram`, the payload of an IP packet, which may be longer than the UDP length.
    ///
    /// # Errors
    /// [`Malformed::Length`] if it is shorter than its header or its own length.
    #[inline]
    pub fn parse(datagram: &'a [u8]) -> Result<Self, Malformed> {
        let head = datagram.first_chunk::<HEADER>().ok_or(Malformed::Length)?;
        let [sp0, sp1, dp0, dp1, l0, l1, c0, c1] = *head;
        let len = usize::from(u16::from_be_bytes([l0, l1]));
        let datagram = datagram.get(..len).ok_or(Malformed::Length)?;
        let payload = datagram.get(Self::HEADER..).ok_or(Malformed::Length)?;
        Ok(Self {
            src_port: u16::from_be_bytes([sp0, sp1]),
            dst_port: u16::from_be_bytes([dp0, dp1]),
            checksum: u16::from_be_bytes([c0, c1]),
            payload,
            datagram,
        })
    }
}

const HEADER: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_ends_at_the_udp_length() {
        let bytes = [0x30, 0x39, 0, 7, 0, 10, 0xab, 0xcd, 1, 2, 3];
        let udp = Udp::parse(&bytes).unwrap();
        assert_eq!((udp.src_port, udp.dst_port, udp.checksum), (12345, 7, 0xabcd));
        assert_eq!((udp.payload, udp.datagram), (&[1, 2][..], &bytes[..10]));
    }

    #[test]
    fn lengths_that_contradict_each_other_are_refused() {
        for len in [0, 7, 12, 255] {
            let bytes = [0x30, 0x39, 0, 7, 0, len, 0xab, 0xcd, 1, 2, 3];
            assert_eq!(Udp::parse(&bytes), Err(Malformed::Length), "length {len}");
        }
        assert_eq!(Udp::parse(&[0, 1, 0, 7, 0, 8, 0]), Err(Malformed::Length));
    }
}

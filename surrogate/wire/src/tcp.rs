//! TCP segments (RFC 9293 3.1).

use core::ops::BitOr;

use crate::malformed::Malformed;

/// The control bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct TcpFlags(pub u8);

impl TcpFlags {
    /// No more data from the sender.
    pub const FIN: Self = Self(0x01);
    /// Synchronise sequence numbers.
    pub const SYN: Self = Self(0x02);
    /// Reset the connection.
    pub const RST: Self = Self(0x04);
    /// Push.
    pub const PSH: Self = Self(0x08);
    /// The acknowledgement field counts.
    pub const ACK: Self = Self(0x10);
    /// The urgent pointer counts.
    pub const URG: Self = Self(0x20);

    /// Whether all of `bits` are set.
    #[must_use]
    pub const fn contains(self, bits: Self) -> bool {
        self.0 & bits.0 == bits.0
    }
}

impl BitOr for TcpFlags {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// A TCP segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tcp<'a> {
    /// Source port.
    pub src_port: u16,
    /// Destination port.
    pub dst_port: u16,
    /// Sequence number of the first byte (or of the SYN).
    pub seq: u32,
    /// Acknowledgement number; counts only with ACK.
    pub ack: u32,
    /// Control bits.
    pub flags: TcpFlags,
    /// The window as sent, unscaled.
    pub window: u16,
    /// The options, padding included: a multiple of four bytes.
    pub options: &'a [u8],
    /// The data.
    pub payload: &'a [u8],
}

impl<'a> Tcp<'a> {
    /// Bytes of a header without options.
    pub const HEADER: usize = HEADER;

    /// Reads `segment`, which ends where the IP packet does.
    ///
    /// # Errors
    /// [`Malformed::Length`] if it is shorter than its header, [`Malformed::Header`] if the data offset is
    /// below five words.
    #[inline]
    pub fn parse(segment: &'a [u8]) -> Result<Self, Malformed> {
        let (head, rest) = segment.split_first_chunk::<HEADER>().ok_or(Malformed::Length)?;
        let [sp0, sp1, dp0, dp1, s0, s1, s2, s3, a0, a1, a2, a3, offset, flags, w0, w1, ..] = *head;
        let options = (usize::from(offset >> 4) * 4).checked_sub(Self::HEADER).ok_or(Malformed::Header)?;
        let (options, payload) = rest.split_at_checked(options).ok_or(Malformed::Length)?;
        Ok(Self {
            src_port: u16::from_be_bytes([sp0, sp1]),
            dst_port: u16::from_be_bytes([dp0, dp1]),
            seq: u32::from_be_bytes([s0, s1, s2, s3]),
            ack: u32::from_be_bytes([a0, a1, a2, a3]),
            flags: TcpFlags(flags),
            window: u16::from_be_bytes([w0, w1]),
            options,
            payload,
        })
    }

    /// SEG.LEN: data, and one each for SYN and FIN.
    #[must_use]
    pub const fn segment_len(&self) -> u32 {
        let controls = self.flags.contains(TcpFlags::SYN) as u32 + self.flags.contains(TcpFlags::FIN) as u32;
        // A segment is shorter than 64 KiB.
        self.payload.len() as u32 + controls
    }

    /// A request for a connection: SYN without ACK, RST or FIN.
    #[must_use]
    pub const fn is_syn(&self) -> bool {
        const CONTROLS: u8 = TcpFlags::SYN.0 | TcpFlags::ACK.0 | TcpFlags::RST.0 | TcpFlags::FIN.0;
        self.flags.0 & CONTROLS == TcpFlags::SYN.0
    }

    /// A reset.
    #[must_use]
    pub const fn is_rst(&self) -> bool {
        self.flags.contains(TcpFlags::RST)
    }
}

const HEADER: usize = 20;

#[cfg(test)]
mod tests {
    use super::*;

    fn syn(offset: u8, tail: &[u8]) -> Vec<u8> {
        [&[0, 80, 1, 0, 0, 0, 0, 1, 0, 0, 0, 2, offset << 4, 0x02, 4, 0, 0, 0, 0, 0][..], tail].concat()
    }

    #[test]
    fn options_and_data_are_told_apart_by_the_data_offset() {
        let bytes = syn(6, &[2, 4, 5, 0xb4, 9, 9]);
        let tcp = Tcp::parse(&bytes).unwrap();
        assert_eq!((tcp.src_port, tcp.dst_port, tcp.seq, tcp.ack, tcp.window), (80, 256, 1, 2, 1024));
        assert_eq!((tcp.options, tcp.payload), (&[2, 4, 5, 0xb4][..], &[9, 9][..]));
        assert_eq!(tcp.segment_len(), 3);
    }

    #[test]
    fn a_data_offset_below_five_words_or_beyond_the_segment_is_refused() {
        assert_eq!(Tcp::parse(&syn(4, &[])), Err(Malformed::Header));
        assert_eq!(Tcp::parse(&syn(0, &[])), Err(Malformed::Header));
        assert_eq!(Tcp::parse(&syn(15, &[0; 39])), Err(Malformed::Length));
        assert_eq!(Tcp::parse(&syn(5, &[])[..19]), Err(Malformed::Length));
    }

    #[test]
    fn only_a_bare_syn_asks_for_a_connection() {
        for (flags, expected) in
            [(0x02, true), (0xc2, true), (0x12, false), (0x06, false), (0x03, false), (0x10, false)]
        {
            let mut bytes = syn(5, &[]);
            bytes[13] = flags;
            assert_eq!(Tcp::parse(&bytes).unwrap().is_syn(), expected, "flags {flags:#x}");
        }
    }
}

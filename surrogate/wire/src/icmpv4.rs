//! ICMP for IPv4 (RFC 792).

use crate::malformed::Malformed;

/// Type of an echo reply.
pub const ECHO_REPLY: u8 = 0;
/// Type of destination unreachable.
pub const UNREACHABLE: u8 = 3;
/// Type of an echo request.
pub const ECHO_REQUEST: u8 = 8;
/// Code of [`UNREACHABLE`]: nobody listens at the port.
pub const CODE_PORT: u8 = 3;

/// What an echo request and its reply carry, in ICMP and `ICMPv6` alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Echo<'a> {
    /// Identifier.
    pub identifier: u16,
    /// Sequence number.
    pub sequence: u16,
    /// The data, all of it.
    pub data: &'a [u8],
}

/// An ICMP message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Icmpv4<'a> {
    /// Type.
    pub kind: u8,
    /// Code.
    pub code: u8,
    /// The whole message, from its type on.
    pub message: &'a [u8],
}

impl<'a> Icmpv4<'a> {
    /// Reads `message`, the payload of an IP packet.
    ///
    /// # Errors
    /// [`Malformed::Length`] below 8 bytes.
    #[inline]
    pub fn parse(message: &'a [u8]) -> Result<Self, Malformed> {
        let [kind, code, ..] = *message.first_chunk::<8>().ok_or(Malformed::Length)?;
        Ok(Self { kind, code, message })
    }

    /// The echo request in it, if it is one (type 8). RFC 792 has only code 0, and hosts answer any.
    #[inline]
    #[must_use]
    pub fn echo_request(&self) -> Option<Echo<'a>> {
        if self.kind == ECHO_REQUEST { Echo::parse(self.message) } else { None }
    }
}

impl<'a> Echo<'a> {
    /// Reads the fields of `message`, a whole echo message.
    #[inline]
    pub(crate) fn parse(message: &'a [u8]) -> Option<Self> {
        let (head, data) = message.split_first_chunk::<8>()?;
        let [_, _, _, _, i0, i1, s0, s1] = *head;
        Some(Self { identifier: u16::from_be_bytes([i0, i1]), sequence: u16::from_be_bytes([s0, s1]), data })
    }

    /// Identifier and sequence as they stand in the message.
    #[inline]
    #[must_use]
    pub const fn words(&self) -> [u8; 4] {
        let [i0, i1] = self.identifier.to_be_bytes();
        let [s0, s1] = self.sequence.to_be_bytes();
        [i0, i1, s0, s1]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_echo_request_has_type_8() {
        let request = [8, 0, 0, 0, 1, 2, 3, 4, 5];
        let echo = Icmpv4::parse(&request).unwrap().echo_request().unwrap();
        assert_eq!(echo, Echo { identifier: 0x0102, sequence: 0x0304, data: &[5] });
        assert_eq!(echo.words(), [1, 2, 3, 4]);
        for [kind, code] in [[0, 8], [0, 0], [13, 0], [17, 0]] {
            let other = [kind, code, 0, 0, 1, 2, 3, 4];
            assert_eq!(Icmpv4::parse(&other).unwrap().echo_request(), None);
        }
    }

    #[test]
    fn a_cut_message_is_refused() {
        assert_eq!(Icmpv4::parse(&[8, 0, 0, 0, 1, 2, 3]), Err(Malformed::Length));
    }
}

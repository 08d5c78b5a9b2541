//! One netlink socket, one request at a time, blocking.
//!
//! The kernel handles a route netlink request inside the `send` call, so the answer is there when it
//! returns: what blocks is only the kernel's own routing lock. Threads use this directly; the async side
//! goes through [`Netlink`](super::Netlink). The socket belongs to the network namespace of the thread
//! that opened it, for ever, whoever uses it later.
//!
//! Messages are those of `netlink-packet-route` where it has them ([`Exchange::route`]); for the others
//! (multicast database) [`Exchange::request`] takes and returns payloads as bytes.

use std::io;

use netlink_packet_core::{
    Emitable, NLM_F_ACK, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NLMSG_DONE, NLMSG_ERROR, NLMSG_NOOP,
    NetlinkBuffer, NetlinkHeader, NlasIterator, ParseableParametrized,
};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};

/// A socket to the kernel's routing tables.
#[derive(Debug)]
pub struct Exchange {
    socket: Socket,
    sequence: u32,
}

/// A message of the kernel's answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// `RTM_*`.
    pub kind: u16,
    /// What follows the netlink header.
    pub payload: Vec<u8>,
}

/// Why a request failed.
#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    /// The kernel said no.
    #[error("{}{}", io::Error::from_raw_os_error(*errno), explained(why.as_deref()))]
    Refused {
        /// Its error number, positive.
        errno: i32,
        /// Its own words, where it has some.
        why: Option<String>,
    },
    /// The socket failed.
    #[error("netlink socket: {0}")]
    Socket(#[from] io::Error),
    /// The answer contradicts its own lengths.
    #[error("the kernel's answer cannot be read: {0}")]
    Unreadable(String),
    /// A table changed under each of several dumps.
    #[error("the table changed during each of {DUMP_TRIES} dumps")]
    Unsettled,
}

impl RequestError {
    /// The kernel's error number, if it refused.
    #[must_use]
    pub const fn errno(&self) -> Option<i32> {
        match self {
            Self::Refused { errno, .. } => Some(*errno),
            Self::Socket(_) | Self::Unreadable(_) | Self::Unsettled => None,
        }
    }
}

impl From<RequestError> for io::Error {
    fn from(error: RequestError) -> Self {
        match error {
            RequestError::Refused { errno, why: None } => Self::from_raw_os_error(errno),
            RequestError::Socket(error) => error,
            other => Self::other(other),
        }
    }
}

impl Exchange {
    /// A socket in the network namespace of the calling thread.
    ///
    /// # Errors
    /// The system's, as `EMFILE`.
    pub fn open() -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        socket.set_ext_ack(true)?;
        socket.set_cap_ack(true)?;
        Ok(Self { socket, sequence: 0 })
    }

    /// Sends `message` with `flags` (`NLM_F_REQUEST` and `NLM_F_ACK` are added) and collects the answer.
    ///
    /// Answers that the library cannot read are left out: a foreign link with an attribute of a newer
    /// kernel must not hide the others.
    ///
    /// # Errors
    /// All kinds.
    pub fn route(
        &mut self,
        message: &RouteNetlinkMessage,
        flags: u16,
    ) -> Result<Vec<RouteNetlinkMessage>, RequestError> {
        let mut payload = vec![0; message.buffer_len()];
        message.emit(&mut payload);
        let replies = self.request(message.message_type(), flags, &payload)?;
        Ok(replies.iter().filter_map(Reply::route).collect())
    }

    /// Sends one request and collects the answer: nothing, one message, or those of a dump.
    ///
    /// # Errors
    /// All kinds.
    pub fn request(&mut self, kind: u16, flags: u16, payload: &[u8]) -> Result<Vec<Reply>, RequestError> {
        for _ in 0..DUMP_TRIES {
            if let Some(replies) = self.request_once(kind, flags, payload)? {
                return Ok(replies);
            }
        }
        Err(RequestError::Unsettled)
    }

    /// `None` if the table changed during the dump.
    fn request_once(
        &mut self,
        kind: u16,
        flags: u16,
        payload: &[u8],
    ) -> Result<Option<Vec<Reply>>, RequestError> {
        self.sequence = self.sequence.wrapping_add(1);
        let dump = flags & NLM_F_DUMP == NLM_F_DUMP;
        let flags = flags | NLM_F_REQUEST | if dump { 0 } else { NLM_F_ACK };
        self.socket.send(&framed(kind, flags, self.sequence, payload), 0)?;

        let (mut replies, mut settled) = (Vec::new(), true);
        loop {
            let (datagram, _) = self.socket.recv_from_full()?;
            for message in Messages(&datagram) {
                let (header, payload) = message?;
                if header.sequence_number != self.sequence {
                    continue;
                }
                settled &= header.flags & NLM_F_DUMP_INTR == 0;
                match header.message_type {
                    NLMSG_NOOP => {}
                    NLMSG_DONE | NLMSG_ERROR => {
                        acknowledged(&header, payload)?;
                        return Ok(settled.then_some(replies));
                    }
                    kind => replies.push(Reply { kind, payload: payload.to_vec() }),
                }
            }
        }
    }
}

impl Reply {
    /// As the library's message; `None` if it does not know or cannot read it.
    #[must_use]
    pub fn route(&self) -> Option<RouteNetlinkMessage> {
        RouteNetlinkMessage::parse_with_param(self.payload.as_slice(), self.kind)
            .inspect_err(|error| tracing::debug!(kind = self.kind, %error, "netlink message skipped"))
            .ok()
    }
}

/// The messages of one datagram, each with its header; ends after the first that is cut short.
#[derive(Clone, Debug)]
pub struct Messages<'a>(pub &'a [u8]);

impl<'a> Iterator for Messages<'a> {
    type Item = Result<(NetlinkHeader, &'a [u8]), RequestError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let buffer = self.0;
        let message = NetlinkBuffer::new_checked(buffer).and_then(|checked| {
            let header = <NetlinkHeader as netlink_packet_core::Parseable<_>>::parse(&checked)?;
            Ok((header, checked.length() as usize))
        });
        match message {
            Ok((header, length)) => {
                self.0 = buffer.get(length.next_multiple_of(ALIGNMENT)..).unwrap_or_default();
                Some(Ok((header, buffer.get(HEADER_BYTES..length).unwrap_or_default())))
            }
            Err(error) => {
                self.0 = &[];
                Some(Err(RequestError::Unreadable(error.to_string())))
            }
        }
    }
}

/// Reads the final message: an error number (0: done) and, if the kernel has more to say, its words.
///
/// # Errors
/// What the kernel refused; [`RequestError::Unreadable`] for an error without a number.
pub fn acknowledged(header: &NetlinkHeader, payload: &[u8]) -> Result<(), RequestError> {
    let Some((code, rest)) = payload.split_first_chunk() else {
        return if header.message_type == NLMSG_DONE {
            Ok(())
        } else {
            Err(RequestError::Unreadable("an error without a number".to_owned()))
        };
    };
    match i32::from_ne_bytes(*code) {
        0 => Ok(()),
        code => {
            // With NETLINK_CAP_ACK an error repeats only the header of the request.
            let skip = if header.message_type == NLMSG_ERROR { HEADER_BYTES } else { 0 };
            let why = NlasIterator::new(rest.get(skip..).unwrap_or_default())
                .filter_map(Result::ok)
                .find(|attribute| attribute.kind() == NLMSGERR_ATTR_MSG)
                .map(|attribute| {
                    String::from_utf8_lossy(attribute.value()).trim_end_matches('\0').to_owned()
                });
            Err(RequestError::Refused { errno: code.saturating_abs(), why })
        }
    }
}

fn framed(kind: u16, flags: u16, sequence: u32, payload: &[u8]) -> Vec<u8> {
    let length = HEADER_BYTES.saturating_add(payload.len());
    let mut bytes = Vec::with_capacity(length);
    bytes.extend(u32::try_from(length).unwrap_or(u32::MAX).to_ne_bytes());
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(flags.to_ne_bytes());
    bytes.extend(sequence.to_ne_bytes());
    bytes.extend(0_u32.to_ne_bytes());
    bytes.extend(payload);
    bytes
}

fn explained(why: Option<&str>) -> String {
    why.map(|why| format!(": {why}")).unwrap_or_default()
}

const HEADER_BYTES: usize = 16;
const ALIGNMENT: usize = 4;
const NLMSGERR_ATTR_MSG: u16 = 1;
const DUMP_TRIES: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_carries_the_kernels_number_and_words() {
        let mut payload = (-22_i32).to_ne_bytes().to_vec();
        payload.extend([0; HEADER_BYTES]);
        payload.extend([12, 0, 1, 0]);
        payload.extend(b"no such\0");
        let bytes = framed(NLMSG_ERROR, 0, 7, &payload);

        let (header, payload) = Messages(&bytes).next().unwrap().unwrap();
        let error = acknowledged(&header, payload).unwrap_err();
        assert_eq!(error.errno(), Some(22));
        assert!(error.to_string().ends_with(": no such"), "{error}");
    }

    #[test]
    fn a_message_longer_than_its_datagram_ends_the_reading() {
        let mut bytes = framed(16, 0, 1, &[1, 2, 3, 4]);
        bytes.extend(framed(16, 0, 2, &[5; 8]));
        bytes.truncate(bytes.len() - 1);

        let read: Vec<_> = Messages(&bytes).collect();
        assert_eq!(read.len(), 2);
        assert_eq!(read[0].as_ref().unwrap().1, [1, 2, 3, 4]);
        assert!(matches!(read[1], Err(RequestError::Unreadable(_))));
    }
}

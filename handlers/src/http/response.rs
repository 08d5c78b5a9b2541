//! Responses one behind the other, as they come (RFC 9112 6.3, 9.3.2).

use std::collections::VecDeque;

use super::chunked::{Chunked, Piece};
use super::cursor::Cursor;
use super::head::HeadReader;
use super::{BodyLength, Fault, FramingError, Head, Request};

/// So many interim responses may come before a final one. RFC 2518 10.1 had a server say 102 if it worked for longer
/// than 20 s; one that says so each 20 s may work for more than half an hour.
pub const MAX_INTERIM: usize = 100;

/// So many requests may wait for a response on one connection.
pub const MAX_OUTSTANDING: usize = 256;

/// What came, in the order in which it came. Offsets count the stream's bytes from the first one handed in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ResponseEvent<'a> {
    /// A head is complete. An [interim](BodyLength::Interim) one is a response by itself, without an end.
    Head(Head),
    /// Content: what the response says, without the framing of chunks. At least one byte.
    Body {
        /// Where it is in the stream.
        at: u64,
        /// The bytes, which are of the input.
        content: &'a [u8],
    },
    /// A response is complete.
    End {
        /// Where the next one begins.
        at: u64,
    },
    /// Bytes of the protocol that came after HTTP. At least one.
    Tunnel {
        /// Where they are in the stream.
        at: u64,
        /// The bytes, which are of the input.
        bytes: &'a [u8],
    },
    /// The peer closed before a response was complete that was asked for.
    Closed {
        /// How long the stream was.
        at: u64,
        /// In the midst of what.
        within: Within,
    },
}

/// What a stream ended in the midst of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Within {
    /// Nothing: of the response no byte came, interim ones aside.
    Nothing,
    /// The head.
    Head,
    /// The body, of which so many bytes are missing if it had a length.
    Body {
        /// That many; `None` if the body is in chunks.
        missing: Option<u64>,
    },
}

/// Why a request is not expected to have a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum NotExpected {
    /// More requests than [`MAX_OUTSTANDING`] would wait for one, or would have once.
    TooManyOutstanding,
    /// No response comes any more: a tunnel is open, the last response was complete, or the peer has closed.
    Over,
}

impl core::fmt::Display for NotExpected {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::TooManyOutstanding => {
                write!(f, "one more request without a response: wanted at most {MAX_OUTSTANDING}")
            }
            Self::Over => write!(f, "a request behind the last response: wanted another connection"),
        }
    }
}

impl std::error::Error for NotExpected {}

/// The responses that come on one connection.
///
/// ```text
///   Head --interim--> Head           Body --all of it--> End, and the next Head if the connection persists
///     |--any other--> Body             |--closed--> End if it lasts until then, else Closed
///     '--101 with Upgrade, 2xx to CONNECT--> Tunnel
/// ```
///
/// Behind a response that is the last of its connection ([`Head::persists`]) nothing may come, however many
/// requests wait: they have no response, and the close says so.
///
/// Tell it of each request ([`expect`](Self::expect)) before its response comes, hand in what comes and drain it
/// ([`advance`](Self::advance)), then say that the peer closed ([`close`](Self::close)). How the input is cut
/// changes nothing but how content is cut into events.
///
/// Needs less than 80 KiB on a 64-bit machine: the reason ([`MAX_STATUS_LINE`](super::MAX_STATUS_LINE)), the fields'
/// bytes ([`MAX_FIELDS_BYTES`](super::MAX_FIELDS_BYTES)), and as many again three times while the longest line is
/// read, whose buffer grows by doubling and is copied once; 6 KiB for a list of [`MAX_FIELDS`](super::MAX_FIELDS)
/// fields with room for 128; a byte for each of [`MAX_OUTSTANDING`] requests. Heads that were handed out are the
/// caller's.
#[derive(Clone, Debug)]
pub struct Responses {
    due: VecDeque<Request>,
    /// One request was not taken: which request a later response is for could not be told.
    overflowed: bool,
    state: State,
    at: u64,
    content: u64,
    interim: usize,
    /// The head that came last lets another response follow its own.
    persists: bool,
    failed: Option<FramingError>,
}

#[derive(Clone, Debug)]
enum State {
    Head(HeadReader),
    Bytes {
        left: u64,
    },
    Chunked(Chunked),
    UntilClose,
    Tunnel,
    /// The last response is complete, and the peer has still to close.
    Last,
    Closed,
}

impl Default for Responses {
    fn default() -> Self {
        Self {
            due: VecDeque::new(),
            overflowed: false,
            state: State::Head(HeadReader::new(0)),
            at: 0,
            content: 0,
            interim: 0,
            persists: true,
            failed: None,
        }
    }
}

impl Responses {
    /// For a connection of which nothing was read yet, and on which nothing was asked.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A request was sent, behind those that it was told of before.
    ///
    /// # Errors
    /// If no response comes any more; it is then not counted among those [`outstanding`](Self::outstanding).
    ///
    /// If too many wait. From then on each request is refused, for its response would be taken for that of the
    /// one left out. The responses to those before are still read; a byte behind them is [`Fault::Unasked`].
    pub fn expect(&mut self, request: Request) -> Result<(), NotExpected> {
        if matches!(self.state, State::Tunnel | State::Last | State::Closed) {
            return Err(NotExpected::Over);
        }
        self.overflowed |= self.due.len() >= MAX_OUTSTANDING;
        if self.overflowed {
            return Err(NotExpected::TooManyOutstanding);
        }
        self.due.push_back(request);
        Ok(())
    }

    /// Takes bytes off the front of `input`, up to and with what the next event is about. `None` if all are taken
    /// and more are wanted; call it until then.
    ///
    /// # Errors
    /// The first error stays: each later call returns it and takes nothing. [`position`](Self::position) is then
    /// where reading ended, and what was told before still holds.
    pub fn advance<'a>(&mut self, input: &mut &'a [u8]) -> Result<Option<ResponseEvent<'a>>, FramingError> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        let mut cursor = Cursor::new(self.at, input);
        let outcome = self.step(&mut cursor);
        *input = cursor.rest();
        self.at = cursor.at();
        self.failed = outcome.as_ref().err().cloned();
        outcome
    }

    /// The peer has closed, and all that it sent was handed in. Call it until there is no more to say: a response
    /// that ends so may have others due behind it, that never come. Bytes that are handed in later are
    /// [`Fault::AfterLast`].
    pub fn close(&mut self) -> Option<ResponseEvent<'static>> {
        self.persists = false;
        if self.failed.is_some() {
            self.state = State::Closed;
            return None;
        }
        let within = match &self.state {
            State::UntilClose | State::Bytes { left: 0 } => return Some(self.end()),
            State::Bytes { left } => Some(Within::Body { missing: Some(*left) }),
            State::Chunked(_) => Some(Within::Body { missing: None }),
            State::Head(_) if self.due.is_empty() => None,
            State::Head(reader) if reader.start() == self.at => Some(Within::Nothing),
            State::Head(_) => Some(Within::Head),
            State::Last => Some(Within::Nothing).filter(|_| !self.due.is_empty()),
            State::Tunnel | State::Closed => None,
        };
        self.state = State::Closed;
        within.map(|within| ResponseEvent::Closed { at: self.at, within })
    }

    /// How many bytes of the stream were taken.
    #[must_use]
    pub const fn position(&self) -> u64 {
        self.at
    }

    /// How many bytes of content the response has so far whose head came last.
    #[must_use]
    pub const fn content(&self) -> u64 {
        self.content
    }

    /// How many requests have no complete response; after the connection's last one, a close or in a tunnel, how many
    /// will have none.
    #[must_use]
    pub fn outstanding(&self) -> usize {
        self.due.len()
    }

    fn step<'a>(&mut self, cursor: &mut Cursor<'a>) -> Result<Option<ResponseEvent<'a>>, FramingError> {
        let at = cursor.at();
        let content = match &mut self.state {
            State::Head(reader) => match self.due.front() {
                Some(request) => match reader.take(cursor, *request)? {
                    Some(head) => return self.begin(head).map(Some),
                    None => return Ok(None),
                },
                None if cursor.rest().is_empty() => return Ok(None),
                None => return Err(cursor.fault(Fault::Unasked)),
            },
            State::Bytes { left: 0 } => return Ok(Some(self.end())),
            State::Bytes { left } => {
                let content = cursor.take(usize::try_from(*left).unwrap_or(usize::MAX));
                *left = left.saturating_sub(content.len() as u64);
                content
            }
            State::Chunked(chunked) => match chunked.take(cursor)? {
                Some(Piece::Content(content)) => content,
                Some(Piece::End) => {
                    self.at = cursor.at();
                    return Ok(Some(self.end()));
                }
                None => return Ok(None),
            },
            State::UntilClose => cursor.take(usize::MAX),
            State::Tunnel => {
                let bytes = cursor.take(usize::MAX);
                return Ok(Some(ResponseEvent::Tunnel { at, bytes }).filter(|_| !bytes.is_empty()));
            }
            State::Last | State::Closed if cursor.rest().is_empty() => return Ok(None),
            State::Last | State::Closed => return Err(cursor.fault(Fault::AfterLast)),
        };
        if content.is_empty() {
            return Ok(None);
        }
        let len = content.len() as u64;
        self.content = self.content.saturating_add(len);
        Ok(Some(ResponseEvent::Body { at: cursor.at().saturating_sub(len), content }))
    }

    /// What follows `head`.
    fn begin<'a>(&mut self, head: Head) -> Result<ResponseEvent<'a>, FramingError> {
        self.content = 0;
        self.persists = head.persists();
        self.state = match head.body {
            BodyLength::Interim => {
                self.interim = self.interim.saturating_add(1);
                if self.interim > MAX_INTERIM {
                    return Err(FramingError { at: head.at.start, fault: Fault::TooManyInterim });
                }
                State::Head(HeadReader::new(head.at.end))
            }
            BodyLength::Bytes(left) => State::Bytes { left },
            BodyLength::Chunked => State::Chunked(Chunked::default()),
            BodyLength::UntilClose => State::UntilClose,
            BodyLength::Tunnel => {
                self.due.pop_front();
                State::Tunnel
            }
        };
        Ok(ResponseEvent::Head(head))
    }

    /// The response is complete with the last byte taken.
    fn end<'a>(&mut self) -> ResponseEvent<'a> {
        self.due.pop_front();
        self.interim = 0;
        self.state = if self.persists { State::Head(HeadReader::new(self.at)) } else { State::Last };
        ResponseEvent::End { at: self.at }
    }
}

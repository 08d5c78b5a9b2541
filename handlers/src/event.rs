//! When a handler is asked: what just happened to a response.

/// What happened to the response, or to waiting for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Event {
    /// Status line and headers are complete.
    Head,
    /// More of the body came.
    Body,
    /// The response is complete.
    End,
    /// The peer closed before it was.
    Closed,
    /// Nothing came for too long.
    Timeout,
    /// The connection or the message failed.
    Error,
}

crate::word::words!(Event {
    Head = "head",
    Body = "body",
    End = "end",
    Closed = "closed",
    Timeout = "time-out",
    Error = "error",
});

impl Event {
    /// Whether no other event of the same response can follow.
    #[must_use]
    pub const fn is_last(self) -> bool {
        matches!(self, Self::End | Self::Closed | Self::Timeout | Self::Error)
    }
}

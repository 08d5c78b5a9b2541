//! What a chain decides, and on whose account.

use core::time::Duration;
use std::sync::Arc;

use crate::step::{Answer, Failure};

/// One decision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// Who decided.
    pub by: By,
    /// What is to be done.
    pub what: What,
}

/// Who decided.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum By {
    /// The plan's own handler of this index, from 0.
    Handler(usize),
    /// The built-in handler of this name.
    BuiltIn(Arc<str>),
    /// Nobody: no handler matched.
    Default,
    /// The plan's `max_bytes`.
    MaxBytes,
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// Nothing; the bytes stay for the guest.
    Ignore,
    /// Throw away what came of this message, and what comes.
    Discard,
    /// Keep what came, and what comes.
    Buffer,
    /// Wake the guest, give it everything kept, and from now on forward.
    Wake,
    /// Let this response go. The request is to be sent again then, which `Send` will say.
    Retry {
        /// When, since the waiting began.
        at: Duration,
    },
    /// Send the request again, now.
    Send,
    /// Send the request, now, to where this response points.
    Follow,
    /// Answer in the guest's place.
    Respond(Arc<Answer>),
    /// Wake the guest for this error.
    Fail(Failure),
    /// Tell the operator.
    Alert(Arc<str>),
    /// Write it to the log.
    Log(Arc<str>),
    /// End it without waking the guest.
    Close,
}

/// How the waiting ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// With the guest woken for what came.
    Woken,
    /// With the guest woken for an error.
    Failed,
    /// Without the guest.
    Closed,
}

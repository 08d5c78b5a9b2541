//! What a handler may do, by name. Arguments (how many bytes, how often) belong to the plan.

/// An action's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// Go on waiting; the bytes stay for the guest.
    Ignore,
    /// Throw away what came; the guest never sees it.
    Discard,
    /// Keep what came until the guest wakes.
    Buffer,
    /// Wake the guest and give it everything.
    Wake,
    /// Send the request again.
    Retry,
    /// Answer a request in the guest's place.
    Respond,
    /// End it with an error for the guest.
    Fail,
    /// Tell the operator.
    Alert,
    /// Write it to the log.
    Log,
}

crate::word::words!(Action {
    Ignore = "ignore",
    Discard = "discard",
    Buffer = "buffer",
    Wake = "wake",
    Retry = "retry",
    Respond = "respond",
    Fail = "fail",
    Alert = "alert",
    Log = "log",
});

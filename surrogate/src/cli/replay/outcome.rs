//! What a replay tells: of each frame, of each wake, and the sum.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;

use crate::engine::{Counters, Verdict};

/// A wake that would have been.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Wake {
    /// The frame that asked for it, counted from 1.
    pub frame: u64,
    /// When that frame came, in nanoseconds since 1970.
    pub unix_ns: u64,
    /// What it was.
    pub reason: String,
    /// How long the wake budget put the wake off, in milliseconds.
    pub put_off_ms: u64,
}

/// What became of one frame.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Judged {
    /// Its number, from 1.
    pub frame: u64,
    /// When, in nanoseconds since 1970.
    pub unix_ns: u64,
    /// What it is, one word.
    pub kind: &'static str,
    /// From whom to whom.
    pub what: String,
    /// It came from a sleeping guest itself and was left out.
    pub own: bool,
    /// Guests that were awake and that it came from or went to.
    pub awake: Vec<String>,
    /// The verdict for each guest that it concerned; none: it concerned no sleeper.
    pub verdicts: Vec<(String, Verdict)>,
    /// Whom it woke.
    pub woke: Vec<String>,
    /// What was sent in answer.
    #[serde(skip)]
    pub replies: Vec<Vec<u8>>,
}

/// The sum of it.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Totals {
    /// Frames of the capture.
    pub frames: u64,
    /// The first frame's time, in nanoseconds since 1970.
    pub first_unix_ns: u64,
    /// The latest frame's time.
    pub last_unix_ns: u64,
    /// Of these, cut by a snap length: judged by what is there, as if the rest was zeros.
    pub cut: u64,
    /// Of these, sent by a sleeping guest itself and left out.
    pub own: u64,
    /// Of these, concerning no sleeper, to or from a guest that a frame before had woken.
    pub awake: u64,
    /// Of these, concerning no sleeper, all others.
    pub foreign: u64,
    /// Frames that were sent in answer.
    pub replies: u64,
    /// Per kind of frame, how often which verdict; "awake", "foreign" and "own" stand beside them.
    pub kinds: BTreeMap<&'static str, BTreeMap<&'static str, u64>>,
    /// Each guest's part.
    pub guests: Vec<GuestTotals>,
}

/// One guest's part.
#[derive(Clone, Debug, Serialize)]
pub struct GuestTotals {
    /// Its name.
    pub guest: String,
    /// All its NICs' counters, each.
    pub nics: Vec<Counters>,
    /// What would have woken it, in order.
    pub wakes: Vec<Wake>,
    /// Frames worth waking for that woke nobody, as its policy is `wake = "never"`.
    pub forbidden: u64,
    /// The wake that still waited for budget when the capture ended.
    pub put_off: Option<Wake>,
}

impl Totals {
    /// From the first frame to the latest.
    #[must_use]
    pub const fn duration(&self) -> Duration {
        Duration::from_nanos(self.last_unix_ns.saturating_sub(self.first_unix_ns))
    }
}

/// A verdict without its reason, for counting.
pub(in crate::cli) const fn verdict_name(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Answer(_) => "answer",
        Verdict::Absorb => "absorb",
        Verdict::Hold => "hold",
        Verdict::HoldAndWake => "hold-and-wake",
        Verdict::Stub => "stub",
        Verdict::Drop(_) => "drop",
    }
}

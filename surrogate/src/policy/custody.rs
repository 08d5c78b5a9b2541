//! What an operator wants of custody: whether, how many connections, how often we speak. Pure values.

use core::num::NonZeroUsize;
use core::time::Duration;

/// Per-NIC custody policy. Worst-case memory: some 300 bytes for each of `connections`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CustodyPolicy {
    /// Connections that are remembered at once.
    pub connections: NonZeroUsize,
    /// Challenge and duplicate ACKs per second for all connections together, about: how many exactly is
    /// drawn anew each second, between half and one and a half times as many.
    pub challenges_per_second: u32,
    /// How often each connection is kept alive from the guest's side; `None`: not at all.
    pub keep_alive: Option<Duration>,
}

impl Default for CustodyPolicy {
    fn default() -> Self {
        Self {
            connections: NonZeroUsize::new(1024).expect("1024 is not zero"),
            challenges_per_second: 100,
            keep_alive: None,
        }
    }
}

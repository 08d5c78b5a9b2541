//! The only reading of time.

use std::sync::OnceLock;

use crate::time::Instant;

/// The monotonic clock, counted from the first call in this process.
#[must_use]
pub fn now() -> Instant {
    static START: OnceLock<std::time::Instant> = OnceLock::new();
    let now = monotonic();
    let start = *START.get_or_init(|| now);
    Instant::from_nanos(u64::try_from(now.saturating_duration_since(start).as_nanos()).unwrap_or(u64::MAX))
}

/// Milliseconds since 1970, UTC, for records that people read, and for how long ago one was written. It may be set.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "this is the one place")]
pub fn unix_ms() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

#[expect(clippy::disallowed_methods, reason = "this is the one place")]
fn monotonic() -> std::time::Instant {
    std::time::Instant::now()
}

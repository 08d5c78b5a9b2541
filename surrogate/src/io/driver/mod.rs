//! The packet side of one bridge: a surrogate port, the thread that reads it, and the engine inside.
//!
//! [`open`] makes the port and starts its thread; the control side keeps a [`PortHandle`] for
//! commands and [`Notices`] for what comes back. Both ways are bounded rings with an eventfd: the
//! thread never waits for the control side, takes no lock and allocates nothing for a frame. It
//! decides nothing about frames either; that is the engine's.

mod handle;
mod outbox;
mod progress;
mod worker;

pub use handle::{
    DriverCommand, DriverNotice, KeptAwake, NicFigures, Notices, OpenError, PortConfig, PortHandle, PortKind,
    RingFull, Snapshot, open,
};

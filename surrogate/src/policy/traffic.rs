//! What a guest's operator wants done with frames that no responder answers. Pure values.

use core::num::NonZeroUsize;
use core::time::Duration;

use super::custody::CustodyPolicy;
use super::names::Names;

/// Per-NIC traffic policy, as the engine reads it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrafficPolicy {
    /// The ports the guest serves; `None`: not declared, so any SYN or datagram may matter.
    pub listen: Option<Listen>,
    /// What a SYN or datagram to a port outside `listen` gets. Unused without `listen`.
    pub closed_ports: ClosedPorts,
    /// What a broadcast or multicast datagram that concerns the guest gets.
    pub flooded: Flooded,
    /// Ceilings of the guest's hold buffer.
    pub hold: HoldLimits,
    /// Whether the awake guest's own port is watched, so that its connections are kept alive while it sleeps and
    /// its groups, leases, names and ports are known without being declared.
    pub custody: bool,
    /// Names that are answered for, beside those that it was heard to have.
    pub names: Names,
    /// How many connections are kept, and how; unused without `custody`.
    pub connections: CustodyPolicy,
}

/// Declared listening ports, sorted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listen {
    /// TCP ports, sorted ascending.
    pub tcp: Vec<u16>,
    /// UDP ports, sorted ascending. Port 7 here makes the surrogate answer UDP echo itself.
    pub udp: Vec<u16>,
}

/// Policy `closed_ports`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClosedPorts {
    /// As an awake host does: RST, or ICMP port unreachable within the error limits.
    Reset,
    /// Nothing, counted.
    Silent,
    /// Hold and wake: the guest answers for itself.
    Wake,
}

/// Policy `flooded`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flooded {
    /// Keep the newest in a bounded ring and replay them at the next wake.
    Hold,
    /// Hold and wake.
    Wake,
    /// Count and forget.
    Absorb,
}

/// Limits of one guest's hold buffer. Worst-case memory: `bytes` and some 512 bytes a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HoldLimits {
    /// Frames held at once.
    pub frames: NonZeroUsize,
    /// Bytes held at once.
    pub bytes: NonZeroUsize,
    /// How long a frame may be held before it is dropped as aged.
    pub age: Duration,
}

impl Default for TrafficPolicy {
    fn default() -> Self {
        Self {
            listen: None,
            closed_ports: ClosedPorts::Reset,
            flooded: Flooded::Hold,
            hold: HoldLimits::default(),
            custody: true,
            names: Names::default(),
            connections: CustodyPolicy::default(),
        }
    }
}

impl Default for HoldLimits {
    fn default() -> Self {
        Self {
            frames: NonZeroUsize::new(4096).expect("4096 is not zero"),
            bytes: NonZeroUsize::new(4 << 20).expect("4 MiB is not zero"),
            age: Duration::from_secs(75),
        }
    }
}

//! What Surrogate wants of a hypervisor: find guests, follow them, put them to sleep, wake them.
//!
//! The trait blocks: each call runs on a thread of its own with a deadline (`daemon::calls`), so that a
//! call that never returns strands only its own guest. Implementations never touch the network path
//! of a guest that is not theirs, and never retry by themselves.

#[cfg(all(feature = "libvirt", target_os = "linux"))]
pub mod libvirt;
#[cfg(all(feature = "io", target_os = "linux"))]
mod links;
#[cfg(all(feature = "io", target_os = "linux"))]
pub mod netns;

use core::net::IpAddr;
use core::time::Duration;

use serde::{Deserialize, Serialize};
use surrogate_wire::Mac;

use crate::guest::identity::InterfaceAddress;

/// How deep a guest sleeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Depth {
    /// Its processors stop; memory stays (libvirt: suspend).
    Pause,
    /// Memory goes to disk and the process ends (libvirt: managed save).
    Save,
}

/// What the hypervisor says of a guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "power", content = "reason")]
pub enum Power {
    /// It runs.
    Running,
    /// It is paused, for this reason.
    Paused(PauseReason),
    /// It is saved to disk and can be restored.
    Saved,
    /// It is shut off.
    Off,
    /// There is no such guest.
    Gone,
}

/// Why a guest is paused. Only [`User`](Self::User) is sleep.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PauseReason {
    /// Someone, perhaps we, suspended it.
    User,
    /// Restored or started paused; it can be resumed.
    Restored,
    /// Storage failed.
    IoError,
    /// Migration, snapshot, dump, save in progress, or anything else that ends by itself.
    Busy,
    /// It crashed or its watchdog fired.
    Failed,
}

/// A guest as the hypervisor knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GuestReport {
    /// Its name, unique per hypervisor.
    pub name: String,
    /// Running or not.
    pub power: Power,
    /// Its NICs in the hypervisor's order; empty where the hypervisor cannot tell.
    pub nics: Vec<NicReport>,
    /// Why it may not be put to sleep now (a running job), if so. One line.
    pub busy: Option<String>,
}

/// One NIC as the hypervisor knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NicReport {
    /// Its MAC, if known.
    pub mac: Option<Mac>,
    /// The bridge it is attached to, if it is one.
    pub bridge: Option<String>,
    /// The name of its port on that bridge, while it exists.
    pub port: Option<String>,
    /// Addresses the hypervisor is sure of.
    pub addresses: Vec<InterfaceAddress>,
    /// IP multicast groups the hypervisor is sure it joined.
    pub groups: Vec<IpAddr>,
    /// Why we cannot stand in for it (not a bridge, filtered by nwfilter, isolated), if so. One line.
    pub refused: Option<String>,
}

/// Something changed by itself or by someone else's hand; also sent for our own calls.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HypervisorEvent {
    /// A guest's state is now this.
    Power {
        /// Its name.
        guest: String,
        /// The new state.
        power: Power,
    },
    /// The connection was lost; nothing is known until `Connected`.
    Disconnected {
        /// Why, one line.
        why: String,
    },
    /// The connection is there (again): list and compare.
    Connected,
}

/// Cumulative figures; the caller keeps the last and divides by time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Statistics {
    /// Processor time used.
    pub cpu: Duration,
    /// Packets to the guest, over all NICs.
    pub rx_packets: u64,
    /// Packets from the guest.
    pub tx_packets: u64,
}

/// Why a hypervisor call failed. The text does not name the guest: whoever tells it does, once.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HypervisorError {
    /// No connection.
    #[error("{hypervisor}: not connected: {why}")]
    Disconnected {
        /// The hypervisor's name in the configuration.
        hypervisor: String,
        /// What the library said.
        why: String,
    },
    /// It has no such guest.
    #[error("{hypervisor} has no guest of this name")]
    NoGuest {
        /// The hypervisor's name.
        hypervisor: String,
        /// The guest's name.
        guest: String,
    },
    /// The guest cannot do this now (wrong state, a job, not supported).
    #[error("{why}")]
    Refused {
        /// The guest's name.
        guest: String,
        /// One line.
        why: String,
    },
    /// It was tried and failed.
    #[error("{operation} failed: {why}")]
    Failed {
        /// The guest's name.
        guest: String,
        /// "suspend", "managed save", "restore", "resume".
        operation: &'static str,
        /// What the hypervisor said.
        why: String,
    },
}

/// A hypervisor. All calls block and may be made from several threads at once, for different guests.
pub trait Hypervisor: Send + Sync {
    /// All guests it knows. Asks none of them for jobs, which one that hangs would answer late:
    /// [`GuestReport::busy`] is complete only from [`inspect`](Self::inspect).
    ///
    /// # Errors
    /// [`HypervisorError::Disconnected`].
    fn list(&self) -> Result<Vec<GuestReport>, HypervisorError>;

    /// One guest, asked anew: its power, NICs, and whether a job runs.
    ///
    /// # Errors
    /// `Disconnected`, `NoGuest`.
    fn inspect(&self, guest: &str) -> Result<GuestReport, HypervisorError>;

    /// Stops the guest at `depth`. On success it executes nothing any more.
    ///
    /// # Errors
    /// All kinds. After an error its power is unknown: [`inspect`](Self::inspect).
    fn sleep(&self, guest: &str, depth: Depth) -> Result<(), HypervisorError>;

    /// Brings a saved guest back into memory, paused, its ports in place. Does nothing for one that
    /// is paused already.
    ///
    /// # Errors
    /// All kinds.
    fn restore(&self, guest: &str) -> Result<(), HypervisorError>;

    /// Lets a paused guest run. Returns when it takes frames.
    ///
    /// # Errors
    /// All kinds.
    fn resume(&self, guest: &str) -> Result<(), HypervisorError>;

    /// Whether a sleeping guest's network stack stays awake (a frozen namespace), so that its bridge
    /// port must be put to sleep too: disabled once it sleeps, enabled before it is resumed.
    fn stack_stays_awake(&self) -> bool {
        false
    }

    /// The guest's figures.
    ///
    /// # Errors
    /// All kinds.
    fn statistics(&self, guest: &str) -> Result<Statistics, HypervisorError>;
}

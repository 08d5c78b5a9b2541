//! The configuration: what the file may say, checked, as values the rest can rely on.
//!
//! Two types, one conversion. [`mod@file`] reads the TOML into what was written, each value with its
//! line; [`convert`] turns that into [`Config`], where impossible combinations do not exist. All
//! errors are reported at once, each with its line and what was meant. Unknown keys are refused.
//!
//! Never looks at the machine: whether a bridge or guest exists is the daemon's to find out.

mod convert;
mod error;
mod file;
mod names;
mod reader;
mod value;

use core::net::{IpAddr, SocketAddr};
use core::time::Duration;
use std::path::{Path, PathBuf};

pub use error::{ConfigError, Problem};

use crate::guest::identity::{InterfaceAddress, Mac};
use crate::hypervisor::Depth;
pub use crate::policy::budget::WakeBudget;
use crate::policy::traffic::TrafficPolicy;

/// Where the configuration is unless said otherwise.
pub const DEFAULT_PATH: &str = "/etc/surrogate/surrogate.toml";

/// Everything an operator set, with defaults filled in.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// The daemon itself.
    pub daemon: Daemon,
    /// The bridges that get a surrogate port; names are unique.
    pub bridges: Vec<Bridge>,
    /// The hypervisors; names are unique.
    pub hypervisors: Vec<HypervisorConfig>,
    /// The guests; names are unique.
    pub guests: Vec<Guest>,
}

/// Section `[daemon]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Daemon {
    /// Where the journal of what was changed on the bridges is kept.
    pub state_dir: PathBuf,
    /// The operator API's Unix socket.
    pub socket: PathBuf,
    /// A TCP address that serves `/metrics`, and nothing else, to anyone.
    pub metrics: Option<SocketAddr>,
    /// The kind of surrogate port; `None`: the measured default.
    pub port: Option<PortKindName>,
    /// What wakes by traffic all guests of the host share.
    pub wake_limit: WakeLimit,
}

/// How much waking a host bears.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WakeLimit {
    /// How often traffic may wake guests, all together.
    pub budget: WakeBudget,
    /// Guests that are being restored or resumed at once; at least 1.
    pub at_once: u32,
}

/// The kinds of surrogate port that can be asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PortKindName {
    /// A veth pair with rings on its inner end.
    Veth,
    /// A tap read through its file.
    Tap,
}

/// Section `[[bridge]]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bridge {
    /// The interface's name.
    pub name: String,
}

/// Section `[[hypervisor]]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HypervisorConfig {
    /// What guests call it.
    pub name: String,
    /// Which, and how to reach it.
    pub kind: HypervisorKind,
}

/// The hypervisors there are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HypervisorKind {
    /// Through libvirt.
    Libvirt {
        /// As `virsh -c` takes it.
        uri: String,
    },
    /// Network namespaces whose processes are frozen.
    Netns {
        /// How long each step pretends to take; zero normally.
        delay: Duration,
    },
}

/// Section `[[guest]]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Guest {
    /// Its name, as the hypervisor knows it.
    pub name: String,
    /// The name of a configured hypervisor.
    pub hypervisor: String,
    /// The network namespace; present exactly if the hypervisor is of kind netns.
    pub netns: Option<String>,
    /// A cgroup (v2) to freeze instead of signalling each process; only for kind netns.
    pub cgroup: Option<PathBuf>,
    /// Its NICs; empty if the hypervisor is to tell.
    pub nics: Vec<Nic>,
    /// How it sleeps, wakes and is stood in for.
    pub policy: GuestPolicy,
}

/// One NIC of a guest; what is `None` or empty the hypervisor is to tell.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Nic {
    /// The name of a configured bridge.
    pub bridge: Option<String>,
    /// Its MAC, unicast, unique in the file.
    pub mac: Option<Mac>,
    /// The VLAN its addresses live in as frames cross the bridge, 1 to 4094.
    pub vlan: Option<u16>,
    /// The name of its port on the bridge.
    pub port: Option<String>,
    /// Its addresses.
    pub addresses: Vec<InterfaceAddress>,
    /// Multicast groups it joined.
    pub groups: Vec<IpAddr>,
}

/// How a guest sleeps, wakes and is stood in for.
#[derive(Clone, Debug, PartialEq)]
pub struct GuestPolicy {
    /// Idle for this long, it sleeps; `None`: only by command.
    pub idle_after: Option<Duration>,
    /// Awake for at least this long before it may sleep again by itself.
    pub min_awake: Duration,
    /// How deep it sleeps unless a command says otherwise.
    pub depth: Depth,
    /// Whom traffic may wake.
    pub wake: WakePolicy,
    /// Idle below this share of one core, in percent.
    pub idle_cpu: f64,
    /// Idle below this many packets per second, each way.
    pub idle_packets: f64,
    /// How often traffic may wake it.
    pub wake_budget: WakeBudget,
    /// A wake that takes longer than this has failed. Never longer than `traffic.hold.age`.
    pub wake_timeout: Duration,
    /// What the engine does with its frames.
    pub traffic: TrafficPolicy,
}

/// Policy `wake`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WakePolicy {
    /// Traffic wakes the guest if it was Surrogate that put it to sleep.
    Managed,
    /// Traffic wakes it whoever put it to sleep.
    Always,
    /// Only a command wakes it.
    Never,
}

impl Config {
    /// Reads and checks the file at `path`.
    ///
    /// # Errors
    /// The file cannot be read, or says something wrong: everything that is wrong, by line.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path)
            .map_err(|why| ConfigError::Unreadable { path: path.to_owned(), why })?;
        Self::parse(&text).map_err(|error| error.in_file(path))
    }

    /// Checks the text of a configuration file.
    ///
    /// # Errors
    /// Everything that is wrong with it, by line.
    pub fn parse(text: &str) -> Result<Self, ConfigError> {
        let mut problems = Vec::new();
        let config = file::read(text, &mut problems).map(|file| convert::convert(file, &mut problems));
        match config {
            Some(config) if problems.is_empty() => Ok(config),
            _ => Err(ConfigError::wrong(text, problems)),
        }
    }

    /// The guest of this name.
    #[must_use]
    pub fn guest(&self, name: &str) -> Option<&Guest> {
        self.guests.iter().find(|guest| guest.name == name)
    }
}

#[cfg(test)]
mod tests;

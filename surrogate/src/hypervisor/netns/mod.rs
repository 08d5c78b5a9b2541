//! The embedded hypervisor: a guest is a network namespace whose processes are frozen and thawed.
//!
//! It needs nothing but root, so the demonstration and most tests run on it. A guest's processes are
//! those that `ip netns pids` lists; they are frozen through a cgroup where one is given, else by
//! SIGSTOP. The namespace's own network stack stays awake (it would go on answering), so the guest's
//! bridge port has to be put to sleep as well: [`Hypervisor::stack_stays_awake`].
//!
//! It never signals the daemon itself, nor its parent: a namespace that they are in is refused. A
//! namespace has no saved state, so `pause` is the only depth. With `delay` it is a slow hypervisor.

mod freezer;
mod namespace;
mod nics;
mod processes;
mod sys;
mod watch;

use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use surrogate_wire::Mac;
use tokio::sync::mpsc::UnboundedSender;

use self::freezer::{Freezer, FreezerError};
use self::namespace::Namespace;
use self::watch::Watch;
use super::{
    Depth, GuestReport, Hypervisor, HypervisorError, HypervisorEvent, PauseReason, Power, Statistics,
};

/// A hypervisor of kind "netns".
#[derive(Clone, Debug)]
pub struct NetnsConfig {
    /// Its name in the configuration.
    pub name: String,
    /// How long a sleep or a resume waits before it acts.
    pub delay: Duration,
    /// Its guests.
    pub guests: Vec<NetnsGuest>,
}

/// One guest of it.
#[derive(Clone, Debug)]
pub struct NetnsGuest {
    /// The guest's name.
    pub name: String,
    /// Its network namespace, by its name under `/run/netns`.
    pub netns: String,
    /// The cgroup that holds its processes, version 2 or a version 1 freezer; without one they are
    /// stopped by signals.
    pub cgroup: Option<PathBuf>,
    /// Its port on the bridge; found by itself if left out, and checked if given.
    pub port: Option<String>,
    /// Its MAC address, likewise.
    pub mac: Option<Mac>,
}

/// Network namespaces as guests.
pub struct Netns {
    shared: Arc<Shared>,
    /// Ends the watching thread when it goes.
    _watch: std::sync::mpsc::Sender<()>,
}

struct Shared {
    config: NetnsConfig,
    /// One per guest, in the configuration's order.
    guests: Vec<GuestState>,
    watch: Watch,
}

#[derive(Default)]
struct GuestState {
    /// Held while a step of this guest runs, so that a resume waits for a sleep that is late.
    step: Mutex<()>,
}

impl Netns {
    /// Watches the guests of `config` and tells `events` what happens to them.
    #[must_use]
    pub fn connect(config: NetnsConfig, events: UnboundedSender<HypervisorEvent>) -> Self {
        let guests = config.guests.iter().map(|_| GuestState::default()).collect();
        let watch = Watch::new(config.guests.len(), events);
        let shared = Arc::new(Shared { config, guests, watch });
        let _watch = watch::spawn(&shared);
        Self { shared, _watch }
    }
}

impl Shared {
    /// The guest's place, its configuration and its state.
    fn find(&self, name: &str) -> Result<Found<'_>, HypervisorError> {
        let mut guests = self.config.guests.iter().zip(&self.guests).enumerate();
        let found = guests.find(|(_, (guest, _))| guest.name == name);
        let (index, (guest, state)) = found.ok_or_else(|| HypervisorError::NoGuest {
            hypervisor: self.config.name.clone(),
            guest: name.to_owned(),
        })?;
        Ok(Found { index, guest, state })
    }

    /// Runs one step of a guest that leads to `power`: after the delay, alone, and unseen by the watch
    /// until it is over.
    fn step(
        &self,
        name: &str,
        power: Power,
        step: impl FnOnce(&NetnsGuest) -> Result<(), Trouble>,
    ) -> Result<(), HypervisorError> {
        let found = self.find(name)?;
        let _one_at_a_time = found.state.step.lock().unwrap_or_else(PoisonError::into_inner);
        self.watch.begin(found.index);
        if !self.config.delay.is_zero() {
            nap(self.config.delay);
        }
        let result = step(found.guest);
        let reached = if result.is_ok() { Some(power) } else { found.guest.power().ok() };
        self.watch.end(found.index, name, reached);
        result.map_err(|trouble| trouble.of(name))
    }
}

impl Hypervisor for Netns {
    fn list(&self) -> Result<Vec<GuestReport>, HypervisorError> {
        // One guest that cannot be read must not hide the others: it is listed with the reason, awake.
        let report = |guest: &NetnsGuest| {
            self.inspect(&guest.name).unwrap_or_else(|error| GuestReport {
                name: guest.name.clone(),
                power: Power::Running,
                nics: Vec::new(),
                busy: Some(error.to_string()),
            })
        };
        Ok(self.shared.config.guests.iter().map(report).collect())
    }

    fn inspect(&self, guest: &str) -> Result<GuestReport, HypervisorError> {
        let Found { guest, .. } = self.shared.find(guest)?;
        let failed = |error: io::Error| Trouble::Io("inspect", error).of(&guest.name);
        let power = guest.power().map_err(|trouble| trouble.of(&guest.name))?;
        let (mut nics, mut busy) = (Vec::new(), None);
        if let Some(namespace) = Namespace::open(&guest.netns).map_err(failed)? {
            nics = nics::reports(guest, &namespace).map_err(failed)?;
            let pids = processes::in_namespace(namespace.id).map_err(failed)?;
            busy = refuse_own(guest, &pids).err().map(|trouble| trouble.to_string());
        }
        Ok(GuestReport { name: guest.name.clone(), power, nics, busy })
    }

    fn sleep(&self, guest: &str, depth: Depth) -> Result<(), HypervisorError> {
        if depth == Depth::Save {
            self.shared.find(guest)?;
            let why = "a namespace has no saved state: use depth \"pause\"".to_owned();
            return Err(HypervisorError::Refused { guest: guest.to_owned(), why });
        }
        self.shared.step(guest, Power::Paused(PauseReason::User), NetnsGuest::freeze)
    }

    fn restore(&self, guest: &str) -> Result<(), HypervisorError> {
        self.shared.find(guest).map(|_| ())
    }

    fn resume(&self, guest: &str) -> Result<(), HypervisorError> {
        self.shared.step(guest, Power::Running, NetnsGuest::thaw)
    }

    fn stack_stays_awake(&self) -> bool {
        true
    }

    fn statistics(&self, guest: &str) -> Result<Statistics, HypervisorError> {
        let Found { guest, .. } = self.shared.find(guest)?;
        let read = || {
            let namespace = guest.namespace()?;
            let pids =
                processes::in_namespace(namespace.id).map_err(|error| Trouble::Io("statistics", error))?;
            let packets = nics::packets(&namespace).map_err(|error| Trouble::Io("statistics", error))?;
            Ok(Statistics {
                cpu: processes::processor_time(&pids),
                rx_packets: packets.to_guest,
                tx_packets: packets.from_guest,
            })
        };
        read().map_err(|trouble: Trouble| trouble.of(&guest.name))
    }
}

struct Found<'a> {
    index: usize,
    guest: &'a NetnsGuest,
    state: &'a GuestState,
}

impl NetnsGuest {
    fn namespace(&self) -> Result<Namespace, Trouble> {
        Namespace::open(&self.netns)
            .map_err(|error| Trouble::Io("open namespace", error))?
            .ok_or_else(|| Trouble::NoNamespace(self.netns.clone()))
    }

    fn freeze(&self) -> Result<(), Trouble> {
        let namespace = self.namespace()?;
        let pids = self.stoppable_pids(&namespace)?;
        let Some(cgroup) = &self.cgroup else {
            return processes::stop_all(namespace.id, pids)
                .map_err(|error| Trouble::Stop(self.netns.clone(), error));
        };
        let freezer = Freezer::open(cgroup)?;
        refuse_own(self, &freezer.pids()?)?;
        freezer.freeze()?;
        self.check_all_inside(&namespace, &freezer).inspect_err(|_| {
            // What must not stay frozen for a refused sleep; the refusal is the error to report.
            let _ = freezer.thaw();
        })
    }

    fn thaw(&self) -> Result<(), Trouble> {
        if let Some(cgroup) = &self.cgroup {
            return Ok(Freezer::open(cgroup)?.thaw()?);
        }
        let namespace = self.namespace()?;
        let pids = self.stoppable_pids(&namespace)?;
        processes::continue_all(namespace.id, pids).map_err(|error| Trouble::Io("resume", error))
    }

    /// Nothing of the namespace may run on beside the frozen cgroup.
    fn check_all_inside(&self, namespace: &Namespace, freezer: &Freezer) -> Result<(), Trouble> {
        let inside = freezer.pids()?;
        let of_namespace =
            processes::in_namespace(namespace.id).map_err(|error| Trouble::Io("suspend", error))?;
        if of_namespace.is_empty() {
            return Err(Trouble::Stop(self.netns.clone(), processes::StopError::Empty));
        }
        match of_namespace.iter().find(|pid| !inside.contains(pid)) {
            None => Ok(()),
            Some(&pid) => Err(Trouble::Outside { netns: self.netns.clone(), pid }),
        }
    }

    /// The processes of the namespace, none of which is the daemon.
    fn stoppable_pids(&self, namespace: &Namespace) -> Result<Vec<u32>, Trouble> {
        let pids = processes::in_namespace(namespace.id).map_err(|error| Trouble::Io("suspend", error))?;
        refuse_own(self, &pids)?;
        Ok(pids)
    }

    /// Paused if nothing in it can run; an empty namespace counts as running.
    fn power(&self) -> Result<Power, Trouble> {
        let scan = |error| Trouble::Io("inspect", error);
        let Some(namespace) = Namespace::open(&self.netns).map_err(scan)? else { return Ok(Power::Gone) };
        let pids = processes::in_namespace(namespace.id).map_err(scan)?;
        self.power_of(&pids)
    }

    fn power_of(&self, pids: &[u32]) -> Result<Power, Trouble> {
        let stopped = match &self.cgroup {
            Some(cgroup) => Freezer::open(cgroup)?.is_frozen()? && !pids.is_empty(),
            None => processes::all_stopped(pids),
        };
        Ok(if stopped { Power::Paused(PauseReason::User) } else { Power::Running })
    }
}

/// The daemon, or what started it, must not be stopped with a guest.
fn refuse_own(guest: &NetnsGuest, pids: &[u32]) -> Result<(), Trouble> {
    let ours = [std::process::id(), std::os::unix::process::parent_id()];
    match pids.iter().find(|pid| ours.contains(pid)) {
        None => Ok(()),
        Some(_) => Err(Trouble::Ourselves(guest.netns.clone())),
    }
}

/// What can go wrong with one guest.
#[derive(Debug, thiserror::Error)]
enum Trouble {
    #[error("there is no network namespace \"{0}\" (`ip netns` lists those there are)")]
    NoNamespace(String),
    #[error("the daemon itself, or what started it, is in network namespace \"{0}\" or in its cgroup")]
    Ourselves(String),
    #[error("network namespace \"{0}\": {1}")]
    Stop(String, processes::StopError),
    #[error(
        "process {pid} of network namespace \"{netns}\" is not in its cgroup: move it there, or give no cgroup"
    )]
    Outside { netns: String, pid: u32 },
    #[error("cgroup: {0}")]
    Freezer(#[from] FreezerError),
    #[error("{1}")]
    Io(&'static str, io::Error),
}

impl Trouble {
    fn of(self, guest: &str) -> HypervisorError {
        let operation = match &self {
            Self::Io(operation, _) => operation,
            Self::Stop(_, processes::StopError::Unstoppable { .. } | processes::StopError::Io(_))
            | Self::Freezer(FreezerError::Unfrozen { .. } | FreezerError::Io(..)) => "suspend",
            _ => return HypervisorError::Refused { guest: guest.to_owned(), why: self.to_string() },
        };
        HypervisorError::Failed { guest: guest.to_owned(), operation, why: self.to_string() }
    }
}

/// Waits where the kernel has no event to wait for, and where slowness itself is asked for.
#[expect(clippy::disallowed_methods, reason = "nothing tells that a stranger's process has stopped")]
fn nap(duration: Duration) {
    std::thread::sleep(duration);
}

#[cfg(test)]
mod tests;

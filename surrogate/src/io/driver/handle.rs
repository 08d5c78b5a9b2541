//! What the control side holds of a packet thread: commands in, notices out, and its end.

use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use tokio::io::unix::AsyncFd;
use tokio::sync::oneshot;

use super::outbox::Outbox;
use super::worker::Worker;
use crate::custody::{CustodyCounters, Tuple, Unrepresentable};
use crate::engine::{Command, Counters, Engine, Knowledge, Limits, Mode, Notice};
use crate::guest::identity::{Epoch, Mac, NicId, PortId};
use crate::io::deliver::Deliveries;
use crate::io::mailbox;
use crate::io::netlink::Exchange;
use crate::io::observe::{self, Observer, Observers};
use crate::io::port::bridge::{Bridge, PortMacs};
use crate::io::port::{FramePort, TapPort, VethPort};
use crate::io::sys;
use crate::rng::Rng;

/// What to open.
#[derive(Clone, Debug)]
pub struct PortConfig {
    /// The port's name towards the engine.
    pub port: PortId,
    /// The bridge it serves, by interface name in the caller's network namespace.
    pub bridge: String,
    /// How it is built.
    pub kind: PortKind,
    /// The engine's limits. `mtu` is taken from the bridge, whatever is given here.
    pub limits: Limits,
    /// Keys the engine's tables and draws the port's MAC addresses.
    pub seed: u64,
}

/// How a surrogate port is built.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum PortKind {
    /// A veth pair whose inner end lives in a namespace that only the daemon holds; mapped rings.
    #[default]
    Veth,
    /// A tap, read and written through its file.
    Tap,
}

/// Makes the port on its bridge and starts its thread.
///
/// Must be called inside a tokio runtime, on a thread in the network namespace of the bridge.
///
/// # Errors
/// See [`OpenError`]. Nothing is left behind then.
pub fn open(config: PortConfig) -> Result<(PortHandle, Notices), OpenError> {
    let failed = |what| move |source| OpenError::System { what, source };
    let mut exchange = Exchange::open().map_err(failed("open a netlink socket"))?;
    let bridge = Bridge::find(&mut exchange, &config.bridge)?;
    let name = bridge.free_port_name(&mut exchange)?;
    let macs = PortMacs::draw(&mut Rng::seeded(config.seed));
    match config.kind {
        PortKind::Veth => {
            let port = VethPort::open(&mut exchange, &bridge, &name, macs.port)?;
            let ifindex = port.ifindex();
            start(config, port, Identity { ifindex, name, service_mac: macs.service, mtu: bridge.mtu })
        }
        PortKind::Tap => {
            let port = TapPort::open(&mut exchange, &bridge, &name, macs.port)?;
            let ifindex = port.ifindex();
            start(config, port, Identity { ifindex, name, service_mac: macs.service, mtu: bridge.mtu })
        }
    }
}

/// What the control side must know of the port.
struct Identity {
    ifindex: u32,
    name: String,
    service_mac: Mac,
    mtu: u32,
}

/// Starts the thread of a port that is open.
fn start<P: FramePort + Send + 'static>(
    config: PortConfig,
    port: P,
    identity: Identity,
) -> Result<(PortHandle, Notices), OpenError> {
    let failed = |what| move |source| OpenError::System { what, source };
    let (commands, command_inbox) = mailbox::mailbox(COMMANDS).map_err(failed("make the command ring"))?;
    let (notices, notice_inbox) = mailbox::mailbox(NOTICES).map_err(failed("make the notice ring"))?;
    let readable = notice_inbox.as_fd().try_clone_to_owned().and_then(sys::watch);
    let readable = readable.map_err(failed("watch the notice ring"))?;
    let stop = Arc::new(AtomicBool::new(false));
    let limits = Limits { mtu: identity.mtu as usize, ..config.limits };
    let worker = Worker {
        id: config.port,
        port,
        engine: Engine::new(limits, identity.service_mac, config.seed),
        rng: Rng::seeded(config.seed),
        deliveries: Deliveries::open().map_err(failed("open the delivery socket"))?,
        observers: Observers::new().map_err(failed("wait for observers"))?,
        progress: Default::default(),
        commands: command_inbox,
        notices: Outbox::new(notices),
        stop: Arc::clone(&stop),
        nics: Vec::new(),
        numbers: Default::default(),
        ahead: 0,
        told_the_time: None,
    };
    let thread = std::thread::Builder::new()
        .name(identity.name.clone())
        .spawn(move || live(worker))
        .map_err(failed("start the packet thread"))?;
    Ok((
        PortHandle { commands, stop, thread: Some(thread), identity },
        Notices { inbox: notice_inbox, readable },
    ))
}

/// The packet thread from its first round to its last word.
fn live<P: FramePort>(mut worker: Worker<P>) {
    let ended = catch_unwind(AssertUnwindSafe(|| worker.run()));
    let why = match ended {
        Ok(Ok(())) => None,
        Ok(Err(error)) => Some(format!("the surrogate port is gone or down: {error}")),
        Err(panic) => {
            let said = panic.downcast_ref::<String>().map(String::as_str);
            let said = said.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no message");
            Some(format!("the packet thread panicked: {said}"))
        }
    };
    worker.end(why);
}

/// Why a surrogate port could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// No interface has the bridge's name.
    #[error("there is no interface \"{bridge}\"; create the bridge first or correct its name")]
    NoSuchBridge {
        /// Its name.
        bridge: String,
    },
    /// The interface is something else.
    #[error("\"{bridge}\" is no Linux bridge, but a {found}")]
    NotABridge {
        /// Its name.
        bridge: String,
        /// What it is.
        found: String,
    },
    /// A capability is missing.
    #[error("not permitted to {what}; run as root or with CAP_NET_ADMIN and CAP_NET_RAW")]
    NotPermitted {
        /// What was tried.
        what: &'static str,
    },
    /// Anything else that the kernel refused.
    #[error("cannot {what}: {source}")]
    System {
        /// What was tried.
        what: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
}

/// A surrogate port and its thread. Dropping it is [`close`](Self::close).
pub struct PortHandle {
    commands: mailbox::Sender<DriverCommand>,
    stop: Arc<AtomicBool>,
    /// `None` only while being dropped.
    thread: Option<JoinHandle<()>>,
    identity: Identity,
}

impl PortHandle {
    /// The port's interface index in the bridge's namespace.
    #[must_use]
    pub const fn ifindex(&self) -> u32 {
        self.identity.ifindex
    }

    /// The port's interface name.
    #[must_use]
    pub fn ifname(&self) -> &str {
        &self.identity.name
    }

    /// The MAC of our own services (the barrier's question), locally administered, not the port's
    /// own. It needs a static sticky forwarding entry at [`ifindex`](Self::ifindex).
    #[must_use]
    pub const fn service_mac(&self) -> Mac {
        self.identity.service_mac
    }

    /// The bridge's MTU when the port was opened.
    #[must_use]
    pub const fn mtu(&self) -> usize {
        self.identity.mtu as usize
    }

    /// Posts a command to the thread. Commands are carried out in order, between batches of frames.
    ///
    /// # Errors
    /// The ring is full: the thread is behind, try again later; or it has ended, of which
    /// [`DriverNotice::Failed`] tells.
    pub fn send(&mut self, command: DriverCommand) -> Result<(), RingFull> {
        self.commands.post(command).map_err(RingFull)
    }

    /// Stops the thread and waits for it. The port is gone when this returns.
    pub fn close(self) {
        drop(self);
    }
}

impl Drop for PortHandle {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.commands.ring();
        // A panic of the thread was reported as a notice.
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

/// The command ring is full; the command comes back.
#[derive(Debug, thiserror::Error)]
#[error("the packet thread has not yet taken the commands posted before, or has ended")]
pub struct RingFull(pub DriverCommand);

/// From the control side to a packet thread.
#[derive(Debug)]
pub enum DriverCommand {
    /// For the engine.
    Engine(Command),
    /// The NIC's own port has this index from now on: its deliveries go there.
    AttachPort {
        /// Whose.
        nic: NicId,
        /// Index in the bridge's namespace.
        ifindex: u32,
        /// The VLAN whose tag the bridge takes off there.
        untag: Option<u16>,
    },
    /// The NIC has no port any more: its deliveries are refused as `Gone`.
    DetachPort {
        /// Whose.
        nic: NicId,
    },
    /// Tell which connections of a NIC keep its guest awake: some of them, if there are many.
    KeptAwake(NicId, oneshot::Sender<Vec<KeptAwake>>),
    /// Tell what is known of a NIC.
    Knowledge(NicId, oneshot::Sender<Option<Knowledge>>),
    /// What this observer takes is the NIC's from now on, and told to the engine.
    Observe {
        /// Whose.
        nic: NicId,
        /// At the NIC's own port.
        observer: Observer,
    },
    /// The NIC is observed no more: its observer comes back to be closed.
    Unobserve {
        /// Whose.
        nic: NicId,
    },
    /// All TCP of the NIC is to be observed, or a sample; see [`Observers::closely`].
    Closely {
        /// Whose.
        nic: NicId,
        /// Whether all.
        closely: bool,
    },
    /// Tell a NIC's counters as they are between the commands before and after, by [`DriverNotice::Counted`].
    Count(NicId),
    /// Say when the guest of a NIC was watched for long enough; see [`Command::Watch`].
    Watch {
        /// Whose.
        nic: NicId,
        /// The guest's epoch.
        epoch: Epoch,
    },
    /// Tell the numbers.
    Snapshot(oneshot::Sender<Snapshot>),
}

/// A connection that could not be answered for if its guest slept now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeptAwake {
    /// Of which NIC.
    pub nic: NicId,
    /// Its ends.
    pub connection: Tuple,
    /// Why not.
    pub why: Unrepresentable,
}

/// What an engine tells of one NIC.
#[derive(Clone, Debug)]
pub struct NicFigures {
    /// Which.
    pub nic: NicId,
    /// Its mode.
    pub mode: Mode,
    /// What became of its frames.
    pub counters: Counters,
    /// What custody of its connections has done, where there is any.
    pub custody: Option<CustodyCounters>,
}

/// A packet thread's numbers at one moment.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// Every NIC registered.
    pub nics: Vec<NicFigures>,
    /// Connections that keep guests awake, some of each NIC.
    pub kept_awake: Vec<KeptAwake>,
    /// Frames that concerned no sleeper.
    pub foreign: u64,
    /// Frames read from the port.
    pub received: u64,
    /// Frames of ours that the port took.
    pub transmitted: u64,
    /// Frames of ours that it did not take.
    pub transmit_failed: u64,
    /// Frames that the kernel discarded because we did not read them in time.
    pub kernel_drops: u64,
    /// What awake guests were observed by.
    pub observed: observe::Numbers,
}

/// From a packet thread to the control side.
#[derive(Debug)]
pub enum DriverNotice {
    /// The engine's.
    Engine(Notice),
    /// A NIC's counters, as was asked.
    Counted {
        /// Which.
        nic: NicId,
        /// What they were.
        counters: Box<Counters>,
    },
    /// An observer that is of no use any more, to be closed where that may take its time.
    Unobserved(Observer),
    /// A NIC is observed no more, since its guest does so much that it would cost it too much: its observer, to be
    /// closed. It may be observed again in a while.
    TooDear {
        /// Whose.
        nic: NicId,
        /// The one that it had.
        observer: Observer,
    },
    /// The thread has ended: the port vanished or went down. The last notice.
    Failed {
        /// What happened.
        why: String,
    },
}

/// What a packet thread tells, in order; none is lost.
pub struct Notices {
    inbox: mailbox::Receiver<DriverNotice>,
    /// The inbox's descriptor, known to the runtime.
    readable: AsyncFd<OwnedFd>,
}

impl Notices {
    /// The next notice; `None` when the thread has ended and all were taken. Cancel safe.
    pub async fn recv(&mut self) -> Option<DriverNotice> {
        loop {
            let closed = self.inbox.is_closed(); // before the look: the last notice must be seen
            if let Some(notice) = self.inbox.take() {
                return Some(notice);
            }
            if closed {
                return None;
            }
            let mut ready = self.readable.readable().await.ok()?;
            self.inbox.acknowledge();
            ready.clear_ready();
        }
    }
}

/// Commands that can wait: a register, a port and a mode for each of a few hundred guests.
const COMMANDS: usize = 4096;
/// Notices that can wait before they queue in the thread.
const NOTICES: usize = 4096;

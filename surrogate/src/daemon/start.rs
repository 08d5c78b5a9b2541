//! What must be there before anything is promised.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, watch};

use super::bridges::{BridgeSide, port_id};
use super::control::Control;
use super::guest::{Guest, cycle_policy};
use super::hypervisors::HypervisorSide;
use super::messages::Message;
use crate::api::{BindError, EventLog, Server};
use crate::config::{Config, HypervisorConfig, HypervisorKind, PortKindName};
use crate::engine::Limits;
use crate::guest::identity::{Epoch, GuestId};
use crate::guest::lifecycle::{Intent, Lifecycle};
use crate::hypervisor::netns::{Netns, NetnsConfig, NetnsGuest};
use crate::hypervisor::{Hypervisor, HypervisorEvent};
use crate::io::clock;
use crate::io::driver::{self, PortConfig, PortKind};
use crate::io::journal::{Journal, JournalError};
use crate::io::netlink::{self, Netlink};
use crate::io::steering::Steering;
use crate::policy::budget::HostBudget;
use crate::time::Duration;

/// Why the daemon cannot run. Each is one line that says what to do.
#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    /// A capability is missing.
    #[error("surrogate run needs {missing}: run it as root, or grant it (AmbientCapabilities= in the unit)")]
    Capability {
        /// Which, by name.
        missing: String,
    },
    /// The journal, or its directory.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// The operator's socket.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// A hypervisor of kind "libvirt" is configured.
    #[cfg(not(feature = "libvirt"))]
    #[error("hypervisor \"{0}\" needs libvirt, and this build has none: build with feature `libvirt`")]
    NoLibvirt(String),
    /// The kernel.
    #[error("cannot {what}: {why}")]
    System {
        /// What was tried.
        what: &'static str,
        /// Why not.
        why: std::io::Error,
    },
}

/// How long until links are followed again after that failed.
const WATCH_RETRY: Duration = Duration::from_secs(1);
/// How long a killed daemon may take to let go of the journal, and how often to look.
const JOURNAL_PATIENCE: Duration = Duration::from_secs(3);
const JOURNAL_RETRY: Duration = Duration::from_millis(20);
/// Memory for held frames, per bridge.
const HELD_BYTES: usize = 256 << 20;

/// Runs the daemon until SIGTERM or SIGINT. Must be called inside a tokio runtime, on a thread in the
/// network namespace of the bridges.
///
/// # Errors
/// See [`DaemonError`]; after a successful start nothing ends it but a signal.
pub async fn run(config: Config) -> Result<(), DaemonError> {
    check_capabilities()?;
    let system = |what| move |why| DaemonError::System { what, why };
    let server = Server::bind(&config.daemon.socket, config.daemon.metrics).await?;
    let journal = Arc::new(open_journal(&config.daemon.state_dir).await?);
    let netlink = Netlink::connect().map_err(system("open a netlink socket"))?;
    let steering = Arc::new(Steering::new(netlink, Arc::clone(&journal)));
    let links = netlink::watch().map_err(system("follow network links"))?;
    let mut terminate = signal(SignalKind::terminate()).map_err(system("follow signals"))?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(system("follow signals"))?;

    let (outbox, inbox) = mpsc::unbounded_channel();
    let events = Arc::new(EventLog::new());
    let mut control = build(config, journal, steering, Arc::clone(&events), outbox.clone())?;
    put_back_strangers(&control).await;
    for bridge in 0..control.bridges.len() {
        if let Err(why) = open_port(&mut control, bridge) {
            let Some(side) = control.bridges.get_mut(bridge) else { break };
            tracing::error!(bridge = side.name, why, "bridge not served");
            control.events.record(None, "bridge-missing", why.clone());
            side.why = Some(why);
        }
    }

    let (requests, mut asked) = mpsc::channel(64);
    let forward = outbox.clone();
    tokio::spawn(async move {
        while let Some(request) = asked.recv().await {
            let _ = forward.send(Message::Request(request));
        }
    });
    let forward = outbox;
    tokio::spawn(follow_links(links, forward));
    let (stop, stopped) = watch::channel(false);
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        let _ = stop.send(true);
    });
    let (finished, finish) = tokio::sync::oneshot::channel::<()>();
    let serving = tokio::spawn(server.serve(requests, Arc::clone(&events), async move {
        let _ = finish.await;
    }));
    let guests = control.guests.len();
    events.record(None, "started", format!("{guests} guest{}", if guests == 1 { "" } else { "s" }));
    tracing::info!(guests, bridges = control.bridges.len(), "started");
    control.run(inbox, stopped).await;
    let _ = finished.send(());
    let _ = serving.await;
    Ok(())
}

/// Tells of links for as long as the daemon runs: a watch that ended, as by a netlink error, is begun anew,
/// and a new one first tells of every link there is.
async fn follow_links(mut links: mpsc::Receiver<netlink::LinkEvent>, to: mpsc::UnboundedSender<Message>) {
    loop {
        while let Some(event) = links.recv().await {
            if to.send(Message::Link(event)).is_err() {
                return;
            }
        }
        tokio::time::sleep(WATCH_RETRY).await;
        match netlink::watch() {
            Ok(again) => links = again,
            Err(why) => tracing::error!(%why, "network links cannot be followed; trying again"),
        }
    }
}

/// Opens the journal; a daemon before us that was killed may still be on its way out, holding it.
async fn open_journal(state_dir: &std::path::Path) -> Result<Journal, JournalError> {
    let give_up = clock::now() + JOURNAL_PATIENCE;
    loop {
        match Journal::open(state_dir) {
            Err(JournalError::Locked(_)) if clock::now() < give_up => {
                tokio::time::sleep(JOURNAL_RETRY).await;
            }
            opened => return opened,
        }
    }
}

pub(super) fn build(
    config: Config,
    journal: Arc<Journal>,
    steering: Arc<Steering>,
    events: Arc<EventLog>,
    outbox: mpsc::UnboundedSender<Message>,
) -> Result<Control, DaemonError> {
    let now = clock::now();
    let hypervisors: Vec<_> = config
        .hypervisors
        .iter()
        .enumerate()
        .map(|(at, h)| {
            let driver = connect(&config, h, forward_events(at, outbox.clone()))?;
            Ok(HypervisorSide {
                name: h.name.clone(),
                driver,
                why: Some("not connected yet".to_owned()),
                mute: false,
                readings: 0,
            })
        })
        .collect::<Result<_, DaemonError>>()?;
    let records = journal.guests();
    let guests = config
        .guests
        .iter()
        .enumerate()
        .map(|(at, guest)| {
            let hypervisor =
                config.hypervisors.iter().position(|h| h.name == guest.hypervisor).unwrap_or_default();
            let port_sleeps =
                hypervisors.get(hypervisor).is_some_and(|h: &HypervisorSide| h.driver.stack_stays_awake());
            let policy = cycle_policy(&guest.policy, port_sleeps);
            let record = records.iter().find(|r| r.name == guest.name && r.hypervisor == guest.hypervisor);
            let mut cycle = Lifecycle::new(policy, Epoch(record.map_or(0, |r| r.epoch)), now);
            if let Some(record) = record {
                cycle.recall(record.intent, record.depth.unwrap_or(guest.policy.depth));
            }
            let id = GuestId(u32::try_from(at).unwrap_or(u32::MAX));
            Guest::new(id, guest.clone(), hypervisor, cycle)
        })
        .collect();
    let bridges = config
        .bridges
        .iter()
        .map(|b| BridgeSide {
            name: b.name.clone(),
            port: None,
            why: Some(format!("bridge {} is not served yet", b.name)),
            backlog: std::collections::VecDeque::new(),
            again: false,
            hurried: None,
        })
        .collect();
    let wakes = config.daemon.wake_limit;
    Ok(Control {
        guests,
        bridges,
        hypervisors,
        steering,
        journal,
        events,
        host: HostBudget::new(wakes.budget, wakes.at_once, now),
        ports: BTreeMap::new(),
        next_nic: 0,
        outbox,
        seed: clock::unix_ms(),
        config,
    })
}

fn connect(
    config: &Config,
    hypervisor: &HypervisorConfig,
    events: mpsc::UnboundedSender<HypervisorEvent>,
) -> Result<Arc<dyn Hypervisor>, DaemonError> {
    Ok(match &hypervisor.kind {
        HypervisorKind::Netns { delay } => {
            let guests = config
                .guests
                .iter()
                .filter(|g| g.hypervisor == hypervisor.name)
                .map(|g| NetnsGuest {
                    name: g.name.clone(),
                    netns: g.netns.clone().unwrap_or_else(|| g.name.clone()),
                    cgroup: g.cgroup.clone(),
                    port: g.nics.first().and_then(|n| n.port.clone()),
                    mac: g.nics.first().and_then(|n| n.mac),
                })
                .collect();
            Arc::new(Netns::connect(
                NetnsConfig { name: hypervisor.name.clone(), delay: *delay, guests },
                events,
            ))
        }
        #[cfg(feature = "libvirt")]
        HypervisorKind::Libvirt { uri } => Arc::new(crate::hypervisor::libvirt::Libvirt::connect(
            hypervisor.name.clone(),
            uri.clone(),
            events,
        )),
        #[cfg(not(feature = "libvirt"))]
        HypervisorKind::Libvirt { .. } => return Err(DaemonError::NoLibvirt(hypervisor.name.clone())),
    })
}

fn forward_events(
    at: usize,
    outbox: mpsc::UnboundedSender<Message>,
) -> mpsc::UnboundedSender<HypervisorEvent> {
    let (sender, mut receiver) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Some(event) = receiver.recv().await {
            if outbox.send(Message::Hypervisor { hypervisor: at, event }).is_err() {
                break;
            }
        }
    });
    sender
}

/// What an earlier daemon changed for guests that are no longer configured is put back.
async fn put_back_strangers(control: &Control) {
    let report = control.steering.reconcile(|guest| control.config.guest(guest).is_some()).await;
    if !report.released.is_empty() {
        tracing::info!(%report, "put back for guests that are no longer configured");
    }
    for record in control.journal.guests() {
        if control.config.guest(&record.name).is_some() {
            continue;
        }
        if record.slept_by_us && record.intent != Intent::Awake {
            let why = "it was put to sleep by us and is no longer configured: wake it by hand";
            tracing::warn!(guest = record.name, why);
            control.events.record(Some(&record.name), "orphaned", why);
        }
        if let Err(why) = control.journal.delete_guest(&record.name) {
            tracing::warn!(guest = record.name, %why, "its record stays");
        }
    }
}

/// Makes our port on a bridge and follows its thread.
pub(super) fn open_port(control: &mut Control, bridge: usize) -> Result<(), String> {
    let Some(side) = control.bridges.get_mut(bridge) else { return Ok(()) };
    let kind = match control.config.daemon.port {
        Some(PortKindName::Veth) => PortKind::Veth,
        Some(PortKindName::Tap) => PortKind::Tap,
        None => PortKind::default(),
    };
    let config = PortConfig {
        port: port_id(bridge),
        bridge: side.name.clone(),
        kind,
        limits: limits(),
        seed: control.seed.wrapping_add(bridge as u64),
    };
    let (port, mut notices) = driver::open(config).map_err(|why| why.to_string())?;
    let (name, ifindex, service) = (side.name.clone(), port.ifindex(), port.service_mac());
    side.port = Some(port);
    side.why = None;
    let steering = Arc::clone(&control.steering);
    tokio::spawn(async move {
        if let Err(why) = steering.own_mac(&name, None, ifindex, service).await {
            tracing::warn!(bridge = name, %why, "no entry for our own MAC: barriers will time out");
        }
    });
    let outbox = control.outbox.clone();
    tokio::spawn(async move {
        while let Some(notice) = notices.recv().await {
            if outbox.send(Message::Notice { bridge, notice }).is_err() {
                break;
            }
        }
    });
    Ok(())
}

/// The engine's limits; the MTU is the bridge's, whatever is said here.
const fn limits() -> Limits {
    Limits {
        held_bytes: HELD_BYTES,
        flooded_ring: 64,
        outbox_bytes: 512 << 10,
        errors_per_second: 1,
        echoes_per_second: 100_000,
        mtu: 1500,
    }
}

fn check_capabilities() -> Result<(), DaemonError> {
    const WANTED: [(u32, &str); 3] = [(12, "CAP_NET_ADMIN"), (13, "CAP_NET_RAW"), (21, "CAP_SYS_ADMIN")];
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let effective = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))
        .and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok())
        .unwrap_or_default();
    let missing: Vec<_> =
        WANTED.iter().filter(|(bit, _)| effective >> bit & 1 == 0).map(|(_, name)| *name).collect();
    if missing.is_empty() { Ok(()) } else { Err(DaemonError::Capability { missing: missing.join(", ") }) }
}

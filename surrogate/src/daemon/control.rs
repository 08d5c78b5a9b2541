//! The control task: one loop, one message at a time.

use std::sync::Arc;

use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender};

use super::guest::{Guest, Inheritance};
use super::messages::{Message, Outcome, Then};
use super::{calls, commands, idle, orders, reports};
use crate::api::EventLog;
use crate::config::Config;
use crate::engine::{Command, Notice};
use crate::guest::identity::{NicId, PortId};
use crate::guest::lifecycle::State;
use crate::hypervisor::{GuestReport, Hypervisor, HypervisorError, HypervisorEvent, PauseReason, Power};
use crate::io::clock;
use crate::io::driver::{DriverCommand, DriverNotice, PortHandle};
use crate::io::journal::Journal;
use crate::io::netlink::{Link, LinkEvent};
use crate::io::steering::Steering;
use crate::policy::budget::HostBudget;
use crate::time::{Duration, Instant};

/// Everything the control task owns.
pub(super) struct Control {
    pub config: Config,
    pub guests: Vec<Guest>,
    pub bridges: Vec<BridgeSide>,
    pub hypervisors: Vec<HypervisorSide>,
    pub steering: Arc<Steering>,
    pub journal: Arc<Journal>,
    pub events: Arc<EventLog>,
    pub host: HostBudget,
    pub next_nic: u32,
    pub outbox: UnboundedSender<Message>,
    pub seed: u64,
}

/// A configured bridge and our port on it, while there is one.
pub(super) struct BridgeSide {
    pub name: String,
    pub port: Option<PortHandle>,
    /// Why there is none.
    pub why: Option<String>,
    /// Commands that the packet thread had no room for yet, in order.
    pub backlog: std::collections::VecDeque<DriverCommand>,
}

/// A configured hypervisor.
pub(super) struct HypervisorSide {
    pub name: String,
    pub driver: Arc<dyn Hypervisor>,
    /// Why it cannot be asked now, if so.
    pub why: Option<String>,
}

/// How long a clean stop waits for transitions under way.
const STOP_TIMEOUT: Duration = Duration::from_secs(10);
/// How long until a bridge that could not be served is tried again, if no link event says so before.
const REOPEN: Duration = Duration::from_secs(5);
/// How long until commands that found no room are posted again.
const BACKLOG_RETRY: Duration = Duration::from_millis(1);

impl Control {
    /// Works until `stop` fires, then comes to rest and puts everything back.
    pub(super) async fn run(
        &mut self,
        mut inbox: UnboundedReceiver<Message>,
        mut stop: tokio::sync::watch::Receiver<bool>,
    ) {
        let mut stop_by: Option<Instant> = None;
        loop {
            let due = self.next_due();
            let now = clock::now();
            if stop_by.is_some_and(|by| now >= by || self.at_rest()) {
                break;
            }
            let wake_up = [due, stop_by].into_iter().flatten().min();
            let wait = wake_up.map(|at| at.since(now));
            tokio::select! {
                message = inbox.recv() => match message {
                    Some(message) => self.handle(message),
                    None => break,
                },
                () = sleep_for(wait) => {}
                _ = stop.changed(), if stop_by.is_none() => {
                    self.events.record(None, "stopping", "");
                    stop_by = Some(clock::now() + STOP_TIMEOUT);
                }
            }
            self.handle_timeouts();
        }
        self.put_everything_back().await;
    }

    fn at_rest(&self) -> bool {
        self.guests
            .iter()
            .all(|g| !matches!(g.cycle.state(), State::Settling | State::Waking | State::Replaying))
    }

    fn next_due(&self) -> Option<Instant> {
        let cycles = self.guests.iter().filter_map(|g| g.cycle.poll_timeout());
        let samples = self.guests.iter().filter(|g| !g.sampling).filter_map(|g| g.sample_at);
        let backlog = self
            .bridges
            .iter()
            .any(|b| b.port.is_some() && !b.backlog.is_empty())
            .then(|| clock::now() + BACKLOG_RETRY);
        cycles.chain(samples).chain(backlog).min()
    }

    fn handle_timeouts(&mut self) {
        let now = clock::now();
        for at in 0..self.guests.len() {
            let Some(guest) = self.guests.get_mut(at) else { break };
            if guest.cycle.poll_timeout().is_some_and(|due| due <= now) {
                guest.cycle.handle_timeout(now, &mut self.host);
                self.settle(at);
            }
        }
        idle::sample_due(self, now);
        for bridge in 0..self.bridges.len() {
            self.post_backlog(bridge);
        }
    }

    fn handle(&mut self, message: Message) {
        match message {
            Message::Request(request) => commands::handle(self, request),
            Message::Notice { bridge, notice } => self.handle_notice(bridge, notice),
            Message::Hypervisor { hypervisor, event } => self.handle_hypervisor(hypervisor, event),
            Message::Listed { hypervisor, result } => self.handle_listed(hypervisor, result),
            Message::Link(event) => self.handle_link(event),
            Message::Done { guest, ticket, result } => self.handle_done(guest, ticket, result),
            Message::Inspected { guest, result, then } => self.handle_looked_at(guest, result, then),
            Message::PortsChecked { guest, why, depth, reply } => {
                commands::ports_checked(self, guest, why, depth, reply);
            }
            Message::Statistics { guest, result } => idle::handle(self, guest, result),
            Message::PutBack { guest: at } => {
                if let Some(guest) = self.guests.get_mut(at) {
                    guest.inheritance = Inheritance::Settled;
                }
                self.look_at(at, Then::Refresh);
            }
            Message::Ports { guest, ports } => orders::connect(self, guest, &ports),
            Message::Reopen { bridge } => self.reopen(bridge),
        }
    }

    /// Performs what a guest's cycle orders and tells what it reports. After every change of a cycle.
    pub(super) fn settle(&mut self, at: usize) {
        loop {
            reports::tell(self, at);
            self.stand_in_anew(at);
            let Some(order) = self.guests.get_mut(at).and_then(|g| g.cycle.poll_order()) else { break };
            orders::perform(self, at, order);
        }
    }

    /// Has a sleeper's steps taken again that went with a port of ours, once it is a sleeper.
    fn stand_in_anew(&mut self, at: usize) {
        let Some(guest) = self.guests.get_mut(at).filter(|guest| guest.anew) else { return };
        match guest.cycle.state() {
            State::Asleep | State::Stranded => {
                guest.anew = false;
                guest.cycle.handle_port_lost(clock::now(), &mut self.host);
            }
            State::Awake => guest.anew = false,
            State::Settling | State::Waking | State::Replaying => {}
        }
    }

    fn handle_done(&mut self, at: usize, ticket: u64, result: Result<Outcome, String>) {
        let now = clock::now();
        let result = match result {
            Ok(Outcome::Ports(ports)) => {
                // Ports are found; the order itself goes on in the engine.
                return orders::attached(self, at, ticket, &ports);
            }
            Ok(outcome) => {
                self.take_outcome(at, ticket, outcome);
                Ok(())
            }
            Err(why) => Err(why),
        };
        if let Some(guest) = self.guests.get_mut(at) {
            if guest.awaiting.as_ref().is_some_and(|a| a.order.ticket == ticket) {
                guest.awaiting = None;
            }
            guest.cycle.handle_done(now, ticket, result, &mut self.host);
            self.settle(at);
        }
    }

    fn take_outcome(&mut self, at: usize, _ticket: u64, outcome: Outcome) {
        match outcome {
            Outcome::Report(report) => {
                self.take_report(at, &report);
                if let Some(guest) = self.guests.get_mut(at) {
                    guest.known = true;
                    guest.cycle.handle_inspected(clock::now(), report.power, &mut self.host);
                }
                idle::start(self, at);
            }
            Outcome::Groups(groups) => {
                let Some(guest) = self.guests.get_mut(at) else { return };
                for (nic, joined) in groups {
                    if let Some(nic) = guest.nics.iter_mut().find(|n| n.id == nic) {
                        nic.joined = joined;
                    }
                }
                self.register(at);
            }
            Outcome::Plain | Outcome::Ports(_) => {}
        }
    }

    fn handle_notice(&mut self, bridge: usize, notice: DriverNotice) {
        let notice = match notice {
            DriverNotice::Engine(notice) => notice,
            DriverNotice::Failed { why } => return self.port_failed(bridge, why),
        };
        let now = clock::now();
        let nic = nic_of(&notice);
        let Some(at) = self.guests.iter().position(|g| g.nics.iter().any(|n| n.id == nic)) else { return };
        let Some(guest) = self.guests.get_mut(at) else { return };
        match notice {
            Notice::Wake { epoch, reason, .. } => {
                guest.cycle.handle_frame(now, epoch, reason, &mut self.host);
            }
            Notice::GuestSpoke { epoch, .. } => {
                guest.cycle.handle_guest_spoke(now, epoch, &mut self.host);
            }
            Notice::Conflict { address, by, defended, .. } => {
                let what = if defended { "defended" } else { "not defended again; waking it" };
                let detail = format!("{by} claims {address}: {what}");
                tracing::warn!(guest = guest.config.name, %address, %by, defended, "address conflict");
                self.events.record(Some(&guest.config.name), "conflict", detail);
            }
            Notice::Spoofed { lies, frames, deaf, .. } => {
                let name = &guest.config.name;
                tracing::warn!(guest = name, lies, frames, "somebody sends frames with a sleeper's own MAC");
                self.events.record(Some(name), "spoofed", spoofed(lies, frames, deaf));
            }
            Notice::BarrierPassed { .. }
            | Notice::ModeSet { .. }
            | Notice::Drained { .. }
            | Notice::Settled { .. } => orders::confirmed(self, at, &notice),
        }
        self.settle(at);
    }

    fn handle_hypervisor(&mut self, hypervisor: usize, event: HypervisorEvent) {
        let Some(side) = self.hypervisors.get_mut(hypervisor) else { return };
        match event {
            HypervisorEvent::Connected => {
                if side.why.take().is_some() {
                    self.events.record(None, "connected", format!("hypervisor {}", side.name));
                }
                self.set_reachable(hypervisor, true);
                let Some(side) = self.hypervisors.get(hypervisor) else { return };
                calls::call(&side.driver, &self.outbox, &side.name, move |h| Message::Listed {
                    hypervisor,
                    result: h.list(),
                });
            }
            HypervisorEvent::Disconnected { why } => {
                if side.why.as_ref() != Some(&why) {
                    tracing::warn!(hypervisor = side.name, why, "hypervisor not reachable");
                    self.events.record(None, "disconnected", format!("hypervisor {}: {why}", side.name));
                }
                side.why = Some(why);
                self.set_reachable(hypervisor, false);
            }
            HypervisorEvent::Power { guest, power } => {
                let Some(at) = self.place_of(hypervisor, &guest) else { return };
                let Some(guest) = self.guests.get_mut(at) else { return };
                if guest.known {
                    guest.cycle.handle_event(clock::now(), power, &mut self.host);
                    self.settle(at);
                }
                if power == Power::Running || !self.guests.get(at).is_some_and(|g| g.known) {
                    self.look_at(at, Then::Refresh);
                }
            }
        }
    }

    fn set_reachable(&mut self, hypervisor: usize, reachable: bool) {
        for at in 0..self.guests.len() {
            let Some(guest) = self.guests.get_mut(at) else { break };
            if guest.hypervisor == hypervisor && guest.cycle.is_reachable() != reachable {
                guest.cycle.set_reachable(clock::now(), reachable, &mut self.host);
                self.settle(at);
            }
        }
    }

    fn handle_listed(&mut self, hypervisor: usize, result: Result<Vec<GuestReport>, HypervisorError>) {
        let reports = match result {
            Ok(reports) => reports,
            Err(why) => {
                return self
                    .handle_hypervisor(hypervisor, HypervisorEvent::Disconnected { why: why.to_string() });
            }
        };
        for at in 0..self.guests.len() {
            let Some(guest) = self.guests.get(at) else { break };
            if guest.hypervisor != hypervisor {
                continue;
            }
            let found = reports.iter().find(|r| r.name == guest.config.name).cloned();
            let report = found.unwrap_or_else(|| GuestReport {
                name: guest.config.name.clone(),
                power: Power::Gone,
                nics: Vec::new(),
                busy: None,
            });
            self.learn(at, &report);
        }
    }

    /// Takes a report as the first or newest word about a guest.
    pub(super) fn learn(&mut self, at: usize, report: &GuestReport) {
        let was_unfit = self.guests.get(at).is_some_and(|guest| guest.unfit.is_some());
        self.take_report(at, report);
        let Some(guest) = self.guests.get_mut(at) else { return };
        if guest.known {
            let (now, facts) = (clock::now(), *guest.cycle.facts());
            if was_unfit && guest.unfit.is_none() && facts.sleeps() && facts.power == report.power {
                // It was stopped while we could not stand in for it; now we can.
                guest.cycle.handle_inspected(now, report.power, &mut self.host);
            } else {
                guest.cycle.handle_event(now, report.power, &mut self.host);
            }
            self.settle(at);
            return idle::start(self, at);
        }
        let sleeps =
            matches!(report.power, Power::Saved | Power::Paused(PauseReason::User | PauseReason::Restored));
        if sleeps && guest.unfit.is_some() {
            // What was recorded of it stands until it can be acted on: when its bridge is served, or it runs.
            return;
        }
        if guest.inheritance == Inheritance::UnderWay {
            return;
        }
        let settled = guest.inheritance == Inheritance::Settled;
        let name = guest.config.name.clone();
        if sleeps || settled || !self.journal.changes().iter().any(|change| change.guest == name) {
            return self.first_word(at, report);
        }
        // It runs, is gone, or is busy: what a daemon before us changed for it is put back first.
        guest.inheritance = Inheritance::UnderWay;
        let (steering, outbox) = (Arc::clone(&self.steering), self.outbox.clone());
        tokio::spawn(async move {
            let put_back = steering.reconcile(|guest| guest != name).await;
            tracing::info!(guest = name, %put_back, "put back after a restart");
            let _ = outbox.send(Message::PutBack { guest: at });
        });
    }

    fn first_word(&mut self, at: usize, report: &GuestReport) {
        let Some(guest) = self.guests.get_mut(at) else { return };
        guest.known = true;
        guest.cycle.handle_inspected(clock::now(), report.power, &mut self.host);
        self.settle(at);
        idle::start(self, at);
    }

    /// Merges a report into what is known of the guest's NICs, and tells the engines.
    pub(super) fn take_report(&mut self, at: usize, report: &GuestReport) {
        let bridges: Vec<String> = self.bridges.iter().map(|b| b.name.clone()).collect();
        let Some(guest) = self.guests.get_mut(at) else { return };
        if report.power == Power::Gone {
            guest.unfit = Some(match &guest.config.netns {
                Some(netns) => format!("there is no network namespace {netns}"),
                None => format!("{} has no guest of this name", guest.config.hypervisor),
            });
            return guest.cycle.set_fit(false);
        }
        let before = guest.unfit.clone();
        let had: Vec<_> = guest.nics.iter().map(|n| (n.id, n.bridge)).collect();
        guest.refresh(report, |name| bridges.iter().position(|b| b == name), &mut self.next_nic);
        let gone: Vec<_> =
            had.into_iter().filter(|(id, _)| !guest.nics.iter().any(|nic| nic.id == *id)).collect();
        if guest.unfit.is_none() {
            let bridgeless = guest.nics.iter().find_map(|n| {
                let side = self.bridges.get(n.bridge)?;
                side.why.clone()
            });
            guest.unfit = bridgeless;
        }
        guest.cycle.set_fit(guest.unfit.is_none());
        if let (Some(why), true) = (&guest.unfit, guest.unfit != before) {
            tracing::warn!(guest = guest.config.name, why, "cannot be stood in for");
            self.events.record(Some(&guest.config.name), "unmanaged", why.clone());
        }
        for (nic, bridge) in gone {
            self.command(bridge, DriverCommand::Engine(Command::Unregister { nic }));
            self.command(bridge, DriverCommand::DetachPort { nic });
        }
        self.register(at);
    }

    /// Tells the engines what the guest's NICs are now.
    pub(super) fn register(&mut self, at: usize) {
        let Some(guest) = self.guests.get(at) else { return };
        let identities: Vec<_> = guest.nics.iter().map(|n| (n.bridge, guest.identity(n))).collect();
        for (bridge, identity) in identities {
            self.command(bridge, DriverCommand::Engine(Command::Register(Box::new(identity))));
        }
    }

    /// Posts a command to a bridge's packet thread; in order, whatever its ring has room for.
    pub(super) fn command(&mut self, bridge: usize, command: DriverCommand) {
        if let Some(side) = self.bridges.get_mut(bridge) {
            side.backlog.push_back(command);
            self.post_backlog(bridge);
        }
    }

    fn post_backlog(&mut self, bridge: usize) {
        let Some(side) = self.bridges.get_mut(bridge) else { return };
        let Some(port) = side.port.as_mut() else {
            side.backlog.clear();
            return;
        };
        while let Some(command) = side.backlog.pop_front() {
            if let Err(full) = port.send(command) {
                side.backlog.push_front(full.0);
                return;
            }
        }
    }

    fn handle_link(&mut self, event: LinkEvent) {
        let LinkEvent::Changed(link) = event else { return };
        for bridge in 0..self.bridges.len() {
            let Some(side) = self.bridges.get(bridge) else { break };
            if side.port.is_none() && side.name == link.name {
                self.reopen(bridge);
            }
        }
        orders::port_appeared(self, &link);
    }

    fn port_failed(&mut self, bridge: usize, why: String) {
        let Some(side) = self.bridges.get_mut(bridge) else { return };
        tracing::error!(bridge = side.name, why, "surrogate port lost");
        self.events.record(None, "port-lost", format!("{}: {why}", side.name));
        side.port = None;
        side.why = Some(format!("the surrogate port on {} was lost: {why}", side.name));
        side.backlog.clear();
        for at in 0..self.guests.len() {
            let Some(guest) = self.guests.get_mut(at) else { break };
            if !guest.nics.iter().any(|nic| nic.bridge == bridge) {
                continue;
            }
            if guest.cycle.state() == State::Settling {
                // Nobody is left to hold for it: its sleep is broken off. Refused only if it is stuck.
                let _ = guest.cycle.wake(clock::now(), &mut self.host);
            }
            orders::lost(self, at, bridge);
            self.settle(at);
        }
        self.later(REOPEN, Message::Reopen { bridge });
    }

    fn reopen(&mut self, bridge: usize) {
        if self.bridges.get(bridge).is_none_or(|b| b.port.is_some()) {
            return;
        }
        if let Err(why) = super::start::open_port(self, bridge) {
            tracing::debug!(why, "bridge not served yet");
            if let Some(side) = self.bridges.get_mut(bridge) {
                side.why = Some(why);
            }
            return self.later(REOPEN, Message::Reopen { bridge });
        }
        let Some(side) = self.bridges.get(bridge) else { return };
        let name = side.name.clone();
        self.events.record(None, "port-opened", name.clone());
        for at in 0..self.guests.len() {
            let on_it = |g: &Guest| {
                g.nics.iter().any(|n| n.bridge == bridge)
                    || g.config.nics.iter().any(|n| n.bridge.as_deref() == Some(&name))
            };
            if self.guests.get(at).is_some_and(on_it) {
                self.register(at);
                if let Some(guest) = self.guests.get_mut(at) {
                    guest.anew = true;
                }
                self.settle(at);
                self.look_at(at, Then::Refresh);
            }
        }
    }

    /// Asks the hypervisor about a guest, for a reason of ours.
    pub(super) fn look_at(&self, at: usize, then: Then) {
        let Some(guest) = self.guests.get(at) else { return };
        let Some(side) = self.hypervisors.get(guest.hypervisor) else { return };
        let name = guest.config.name.clone();
        calls::call(&side.driver, &self.outbox, &guest.config.name, move |h| Message::Inspected {
            guest: at,
            result: h.inspect(&name),
            then,
        });
    }

    fn handle_looked_at(&mut self, at: usize, result: Result<GuestReport, HypervisorError>, then: Then) {
        match then {
            Then::Refresh => {
                if let Ok(report) = result {
                    self.learn(at, &report);
                }
            }
            Then::Sleep { depth, reply } => commands::sleep_checked(self, at, result, depth, reply),
        }
    }

    /// Sends `message` to ourselves after a while.
    fn later(&self, after: Duration, message: Message) {
        let outbox = self.outbox.clone();
        tokio::spawn(async move {
            tokio::time::sleep(after).await;
            let _ = outbox.send(message);
        });
    }

    fn place_of(&self, hypervisor: usize, name: &str) -> Option<usize> {
        self.guests.iter().position(|g| g.hypervisor == hypervisor && g.config.name == name)
    }

    /// Index of our port on a bridge.
    pub(super) fn surrogate_port(&self, bridge: usize) -> Option<u32> {
        self.bridges.get(bridge)?.port.as_ref().map(PortHandle::ifindex)
    }

    /// A clean stop: what we changed on the bridges is put back, sleepers stay asleep. A daemon
    /// started later stands in for them again.
    async fn put_everything_back(&mut self) {
        let report = self.steering.reconcile(|_| false).await;
        if !report.is_complete() {
            tracing::error!(%report, "not everything could be put back");
        }
        for side in &mut self.bridges {
            if let Some(port) = side.port.take() {
                port.close();
            }
        }
    }
}

fn spoofed(lies: u32, frames: u64, deaf: Duration) -> String {
    let often =
        if lies == 1 { "silenced us".to_owned() } else { format!("silenced us {lies} times in a row") };
    format!(
        "a frame with its own MAC as source {often} until its hypervisor said that it sleeps: forged, or our own \
         frames come back by a loop ({frames} so far); no other silences us for {deaf:?}"
    )
}

/// The NIC a notice is about.
const fn nic_of(notice: &Notice) -> NicId {
    match notice {
        Notice::Wake { nic, .. }
        | Notice::BarrierPassed { nic, .. }
        | Notice::ModeSet { nic, .. }
        | Notice::Drained { nic, .. }
        | Notice::Settled { nic, .. }
        | Notice::GuestSpoke { nic, .. }
        | Notice::Spoofed { nic, .. }
        | Notice::Conflict { nic, .. } => *nic,
    }
}

async fn sleep_for(wait: Option<Duration>) {
    match wait {
        Some(wait) => tokio::time::sleep(wait).await,
        None => std::future::pending().await,
    }
}

/// A port's number towards the engine: its bridge's place in the table.
pub(super) fn port_id(bridge: usize) -> PortId {
    PortId(u32::try_from(bridge).unwrap_or(u32::MAX))
}

/// Whether `link` can be the port of the NIC with `mac`: libvirt gives a tap its guest's MAC with the
/// first byte fe.
pub(super) fn is_tap_of(link: &Link, mac: crate::guest::identity::Mac) -> bool {
    let mut tap = mac.0;
    tap[0] = 0xfe;
    link.mac.is_some_and(|m| m.0 == tap)
}

//! The control task: one loop, one message at a time.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender};

use super::bridges::BridgeSide;
use super::guest::{Guest, Inheritance};
use super::hypervisors::HypervisorSide;
use super::messages::{Message, Outcome, Then};
use super::{commands, idle, known, observe, orders, reports};
use crate::api::EventLog;
use crate::config::Config;
use crate::engine::Notice;
use crate::guest::lifecycle::State;
use crate::hypervisor::Power;
use crate::io::clock;
use crate::io::driver::DriverNotice;
use crate::io::journal::Journal;
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
    /// The bridge ports of this namespace, by name.
    pub ports: BTreeMap<String, u32>,
    pub next_nic: u32,
    pub outbox: UnboundedSender<Message>,
    pub seed: u64,
}

/// How long a clean stop waits for transitions under way.
const STOP_TIMEOUT: Duration = Duration::from_secs(10);
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
        let samples =
            self.guests.iter().filter(|g| idle::may_read(g, &self.hypervisors)).filter_map(|g| g.sample_at);
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
            Message::Relist { hypervisor } => self.relist(hypervisor),
            Message::Link(event) => self.handle_link(event),
            Message::Done { guest, ticket, result } => self.handle_done(guest, ticket, result),
            Message::Inspected { guest, result, then } => self.handle_looked_at(guest, result, then),
            Message::PortsChecked { guest, why, depth, reply } => {
                commands::ports_checked(self, guest, why, depth, reply);
            }
            Message::Checked { guest, report, why, was_unfit } => {
                self.take_check(guest, &report, why);
                self.learned(guest, &report, was_unfit);
            }
            Message::Statistics { guest, result } => idle::handle(self, guest, result),
            Message::KeptAwake { guest, by } => idle::connections_told(self, guest, &by),
            Message::PutBack { guest: at } => {
                if let Some(guest) = self.guests.get_mut(at) {
                    guest.inheritance = Inheritance::Settled;
                }
                self.look_at(at, Then::Refresh);
            }
            Message::Ports { guest, ports } => orders::connect(self, guest, &ports),
            Message::ObserveAgain { guest } => self.observe_again(guest),
            Message::Reopen { bridge } => self.reopen_due(bridge),
            Message::CutOff { bridge, ifindex, why } => self.port_cut_off(bridge, ifindex, why),
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
            Ok(Outcome::Report(report)) if self.must_check(at, &report) => {
                let saved = report.power == Power::Saved;
                return self.check_ports(at, saved, move |why| Message::Done {
                    guest: at,
                    ticket,
                    result: Ok(Outcome::Checked(report, why)),
                });
            }
            Ok(outcome) => {
                self.take_outcome(at, outcome);
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

    fn take_outcome(&mut self, at: usize, outcome: Outcome) {
        match outcome {
            Outcome::Checked(report, why) => {
                self.take_check(at, &report, why);
                self.take_outcome(at, Outcome::Report(report));
            }
            // What it tells of NICs was taken when it came.
            Outcome::Report(report) => {
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
            DriverNotice::Counted { nic, counters } => {
                let guest = self.guests.iter_mut().find(|g| g.nics.iter().any(|n| n.id == nic));
                return guest.into_iter().for_each(|guest| guest.tally.said.take(nic, &counters));
            }
            DriverNotice::Unobserved(observer) => return observe::close(observer),
            DriverNotice::TooDear { nic, observer } => {
                observe::close(observer);
                return self.pause_observing(nic);
            }
        };
        let now = clock::now();
        let nic = notice.nic();
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
            Notice::LeaseChanged { address, .. } => {
                let detail =
                    format!("the DHCP server has new options for {address}; the guest asks for them itself");
                self.events.record(Some(&guest.config.name), "lease-changed", detail);
            }
            Notice::Renewed { .. } => known::keep(self, at),
            Notice::Expired { address, .. } => {
                let detail = format!(
                    "the lifetime of {address} is over, as routers told: not answered for until the guest has woken or \
                     they say otherwise"
                );
                tracing::warn!(guest = guest.config.name, %address, "an address of a sleeper is over");
                self.events.record(Some(&guest.config.name), "expired", detail);
                known::keep(self, at);
            }
            Notice::Spoofed { lies, frames, deaf, .. } => {
                let name = &guest.config.name;
                tracing::warn!(guest = name, lies, frames, "somebody sends frames with a sleeper's own MAC");
                self.events.record(Some(name), "spoofed", spoofed(lies, frames, deaf));
            }
            Notice::Watched { .. }
            | Notice::BarrierPassed { .. }
            | Notice::ModeSet { .. }
            | Notice::Drained { .. }
            | Notice::Settled { .. } => orders::confirmed(self, at, &notice),
        }
        self.settle(at);
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

async fn sleep_for(wait: Option<Duration>) {
    match wait {
        Some(wait) => tokio::time::sleep(wait).await,
        None => std::future::pending().await,
    }
}

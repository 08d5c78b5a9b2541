//! What a hypervisor tells of its guests, and what is known of them then.

use std::sync::Arc;

use super::control::Control;
use super::guest::Inheritance;
use super::known;
use super::messages::{Message, Then};
use super::ports::sleeps;
use super::{calls, commands, idle};
use crate::engine::Command;
use crate::hypervisor::{GuestReport, Hypervisor, HypervisorError, HypervisorEvent, Power};
use crate::io::clock;
use crate::io::driver::DriverCommand;
use crate::time::Duration;

/// A configured hypervisor.
pub(super) struct HypervisorSide {
    pub name: String,
    pub driver: Arc<dyn Hypervisor>,
    /// Why it cannot be asked now, if so.
    pub why: Option<String>,
    /// It did not tell its guests, though it is connected as far as it says itself: it is asked again.
    pub mute: bool,
    /// Readings for the idleness rule that are under way.
    pub readings: usize,
}

/// How long until a hypervisor that did not tell its guests is asked again.
const RELIST: Duration = Duration::from_secs(5);

impl Control {
    pub(super) fn handle_hypervisor(&mut self, hypervisor: usize, event: HypervisorEvent) {
        let Some(side) = self.hypervisors.get_mut(hypervisor) else { return };
        match event {
            HypervisorEvent::Connected => {
                side.mute = false;
                self.connected(hypervisor);
                self.ask_for_list(hypervisor);
            }
            HypervisorEvent::Disconnected { why } => {
                if side.why.as_ref() != Some(&why) {
                    tracing::warn!(hypervisor = side.name, why, "hypervisor not reachable");
                    self.events.record(None, "disconnected", format!("hypervisor {}: {why}", side.name));
                }
                side.why = Some(why);
                side.mute = false;
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

    fn connected(&mut self, hypervisor: usize) {
        let Some(side) = self.hypervisors.get_mut(hypervisor) else { return };
        if side.why.take().is_some() {
            self.events.record(None, "connected", format!("hypervisor {}", side.name));
        }
        self.set_reachable(hypervisor, true);
    }

    fn ask_for_list(&self, hypervisor: usize) {
        let Some(side) = self.hypervisors.get(hypervisor) else { return };
        let started = calls::call(&side.driver, &self.outbox, &side.name, move |h| Message::Listed {
            hypervisor,
            result: h.list(),
        });
        if !started {
            let why = "no thread is left to ask it".to_owned();
            let result = Err(HypervisorError::Disconnected { hypervisor: side.name.clone(), why });
            let _ = self.outbox.send(Message::Listed { hypervisor, result });
        }
    }

    /// It is asked again for its guests, unless its connection ended or began anew since: then that says more.
    pub(super) fn relist(&self, hypervisor: usize) {
        if self.hypervisors.get(hypervisor).is_some_and(|side| side.mute) {
            self.ask_for_list(hypervisor);
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

    pub(super) fn handle_listed(
        &mut self,
        hypervisor: usize,
        result: Result<Vec<GuestReport>, HypervisorError>,
    ) {
        let reports = match result {
            Ok(reports) => reports,
            Err(why) => {
                let why = why.to_string();
                self.handle_hypervisor(hypervisor, HypervisorEvent::Disconnected { why });
                // Its own connection may stand, and then nothing else would ever tell that it can be asked.
                if let Some(side) = self.hypervisors.get_mut(hypervisor) {
                    side.mute = true;
                }
                return self.later(RELIST, Message::Relist { hypervisor });
            }
        };
        if self.hypervisors.get_mut(hypervisor).is_some_and(|side| core::mem::take(&mut side.mute)) {
            self.connected(hypervisor);
        }
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
        if self.must_check(at, report) {
            let (saved, report) = (report.power == Power::Saved, report.clone());
            return self.check_ports(at, saved, move |why| Message::Checked {
                guest: at,
                report,
                why,
                was_unfit,
            });
        }
        self.learned(at, report, was_unfit);
    }

    /// The same, once nothing is left to be looked at.
    pub(super) fn learned(&mut self, at: usize, report: &GuestReport, was_unfit: bool) {
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
        let sleeps = sleeps(report.power);
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
        if let Some(guest) = self.guests.get(at).filter(|guest| guest.cycle.facts().runs()) {
            // It woke while nobody looked.
            known::forget(self, guest);
        }
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
        if report.power == Power::Running {
            guest.barred = None;
        }
        let (before, unaddressed_before) = (guest.unfit.clone(), guest.unaddressed());
        let had: Vec<_> = guest.nics.iter().map(|n| (n.id, n.bridge)).collect();
        guest.refresh(report, |name| bridges.iter().position(|b| b == name), &mut self.next_nic);
        let gone: Vec<_> =
            had.into_iter().filter(|(id, _)| !guest.nics.iter().any(|nic| nic.id == *id)).collect();
        if guest.unfit.is_none() {
            let bridgeless = guest.nics.iter().find_map(|n| {
                let side = self.bridges.get(n.bridge)?;
                side.why.clone()
            });
            guest.unfit = bridgeless.or_else(|| guest.barred.clone());
        }
        guest.cycle.set_fit(guest.unfit.is_none());
        idle::look_later(guest);
        if let (Some(why), true) = (&guest.unfit, guest.unfit != before) {
            tracing::warn!(guest = guest.config.name, why, "cannot be stood in for");
            self.events.record(Some(&guest.config.name), "unmanaged", why.clone());
        }
        let unaddressed = guest.unaddressed();
        if let (Some(why), true) = (&unaddressed, unaddressed != unaddressed_before) {
            tracing::warn!(guest = guest.config.name, why, "is not put to sleep");
        }
        for (nic, bridge) in gone {
            self.command(bridge, DriverCommand::Engine(Command::Unregister { nic }));
            self.command(bridge, DriverCommand::DetachPort { nic });
            self.unobserve(nic, bridge);
        }
        self.register(at);
        self.observe(at);
    }

    /// Asks the hypervisor about a guest, for a reason of ours. Says whether it could be asked.
    pub(super) fn look_at(&self, at: usize, then: Then) -> bool {
        let Some(guest) = self.guests.get(at) else { return false };
        let Some(side) = self.hypervisors.get(guest.hypervisor) else { return false };
        let name = guest.config.name.clone();
        calls::call(&side.driver, &self.outbox, &guest.config.name, move |h| Message::Inspected {
            guest: at,
            result: h.inspect(&name),
            then,
        })
    }

    pub(super) fn handle_looked_at(
        &mut self,
        at: usize,
        result: Result<GuestReport, HypervisorError>,
        then: Then,
    ) {
        match then {
            Then::Refresh => {
                if let Ok(report) = result {
                    self.learn(at, &report);
                }
            }
            Then::Again => idle::looked_again(self, at, result),
            Then::Sleep { depth, reply } => commands::sleep_checked(self, at, result, depth, reply),
        }
    }

    fn place_of(&self, hypervisor: usize, name: &str) -> Option<usize> {
        self.guests.iter().position(|g| g.hypervisor == hypervisor && g.config.name == name)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use tokio::sync::mpsc;

    use super::*;
    use crate::api::EventLog;
    use crate::config::Config;
    use crate::daemon::start::build;
    use crate::hypervisor::{Depth, Statistics};
    use crate::io::journal::Journal;
    use crate::io::netlink::Netlink;
    use crate::io::steering::Steering;

    /// Tells what it was given, once each; knows nothing else.
    struct Lists(Mutex<Vec<Result<Vec<GuestReport>, HypervisorError>>>);

    fn lost() -> HypervisorError {
        HypervisorError::Disconnected { hypervisor: "local".into(), why: "no descriptor left".into() }
    }

    impl Hypervisor for Lists {
        fn list(&self) -> Result<Vec<GuestReport>, HypervisorError> {
            self.0.lock().unwrap().pop().unwrap_or_else(|| Err(lost()))
        }
        fn inspect(&self, _: &str) -> Result<GuestReport, HypervisorError> {
            Err(lost())
        }
        fn sleep(&self, _: &str, _: Depth) -> Result<(), HypervisorError> {
            Err(lost())
        }
        fn restore(&self, _: &str) -> Result<(), HypervisorError> {
            Err(lost())
        }
        fn resume(&self, _: &str) -> Result<(), HypervisorError> {
            Err(lost())
        }
        fn statistics(&self, _: &str) -> Result<Statistics, HypervisorError> {
            Err(lost())
        }
    }

    #[tokio::test]
    async fn a_hypervisor_that_did_not_tell_its_guests_is_asked_again() {
        let folder = tempfile::tempdir().unwrap();
        let text = "[[hypervisor]]\nname = \"local\"\nkind = \"netns\"\n\
            [[guest]]\nname = \"web1\"\nhypervisor = \"local\"\nnetns = \"none\"\n";
        let journal = Arc::new(Journal::open(folder.path()).unwrap());
        let steering = Arc::new(Steering::new(Netlink::connect().unwrap(), Arc::clone(&journal)));
        let (outbox, mut inbox) = mpsc::unbounded_channel();
        let config = Config::parse(text).unwrap();
        let mut control = build(config, journal, steering, Arc::new(EventLog::new()), outbox).unwrap();
        control.hypervisors[0].driver = Arc::new(Lists(Mutex::new(vec![Ok(Vec::new()), Err(lost())])));

        control.handle_hypervisor(0, HypervisorEvent::Connected);
        let mut listed = async |control: &mut Control| loop {
            if let Some(Message::Listed { hypervisor, result }) = inbox.recv().await {
                return control.handle_listed(hypervisor, result);
            }
        };
        listed(&mut control).await;
        assert!(!control.guests[0].cycle.is_reachable());
        control.relist(0);
        listed(&mut control).await;
        assert!(control.guests[0].cycle.is_reachable() && control.hypervisors[0].why.is_none());

        // An end of the connection itself is for the hypervisor to mend.
        control.handle_hypervisor(0, HypervisorEvent::Disconnected { why: "stopped".into() });
        control.relist(0);
        assert!(!control.hypervisors[0].mute && !control.guests[0].cycle.is_reachable());
    }
}

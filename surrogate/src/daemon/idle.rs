//! Readings for the idleness rule: one outstanding per guest and a few per hypervisor, only while the guest is
//! awake and may sleep by itself. One that cannot be stood in for is looked at in the same rhythm instead, until
//! it can be.

use tokio::sync::oneshot;

use super::calls;
use super::control::Control;
use super::guest::Guest;
use super::hypervisors::HypervisorSide;
use super::messages::{Message, Then};
use super::ports::sleeps;
use crate::guest::lifecycle::State;
use crate::hypervisor::{GuestReport, HypervisorError, Statistics};
use crate::io::clock;
use crate::io::driver::{DriverCommand, KeptAwake};
use crate::policy::idleness::Idle;
use crate::time::Instant;

/// Readings under way at once on one hypervisor: each is a thread, and may be a connection.
const AT_ONCE: usize = 8;

/// Begins to read a guest's figures, if it may sleep by itself. First readings are spread over an interval: a
/// hypervisor tells of all its guests in one moment.
pub(super) fn start(control: &mut Control, at: usize) {
    let all = u32::try_from(control.guests.len()).unwrap_or(u32::MAX);
    let Some(guest) = control.guests.get_mut(at) else { return };
    if guest.sample_at.is_none() && !guest.sampling && guest.cycle.state() == State::Awake {
        let turn = u32::try_from(at).unwrap_or(u32::MAX);
        let interval = guest.idleness.thresholds().interval();
        guest.sample_at = Some(clock::now() + interval / all.max(1) * turn);
    }
}

/// A guest that cannot be stood in for is looked at again after an interval: no event tells of everything that
/// can be in the way.
pub(super) fn look_later(guest: &mut Guest) {
    if guest.unfit.is_some() && !guest.sampling {
        guest.sample_at.get_or_insert(clock::now() + guest.idleness.thresholds().interval());
    }
}

/// Whether there is room for a reading of this guest.
pub(super) fn may_read(guest: &Guest, hypervisors: &[HypervisorSide]) -> bool {
    !guest.sampling && hypervisors.get(guest.hypervisor).is_some_and(|side| side.readings < AT_ONCE)
}

/// Asks for what is due, who waited longest first: the figures of guests that may sleep by themselves, and
/// whether those that cannot be stood in for now can be.
pub(super) fn sample_due(control: &mut Control, now: Instant) {
    let due = control.guests.iter().enumerate().filter(|(_, guest)| may_read(guest, &control.hypervisors));
    let due = due.filter_map(|(at, guest)| Some((guest.sample_at.filter(|due| *due <= now)?, at)));
    let mut due: Vec<_> = due.collect();
    due.sort_unstable();
    for (_, at) in due {
        let Some(guest) = control.guests.get(at) else { break };
        if may_read(guest, &control.hypervisors) {
            let begun = read(control, at);
            let Some(guest) = control.guests.get_mut(at) else { break };
            guest.sampling = begun == Some(true);
            guest.sample_at = match begun {
                // Nothing could be asked: as after a failed reading.
                Some(false) => Some(now + guest.idleness.thresholds().interval()),
                _ => None,
            };
            let side = control.hypervisors.get_mut(guest.hypervisor);
            if let Some(side) = side.filter(|_| begun == Some(true)) {
                side.readings += 1;
            }
        }
    }
}

/// Asks about one guest, if there is anything to ask. Says whether it could be asked.
fn read(control: &Control, at: usize) -> Option<bool> {
    let guest = control.guests.get(at)?;
    let facts = guest.cycle.facts();
    if guest.cycle.state() != State::Awake {
        return None;
    }
    if guest.unfit.is_some() {
        let can_be_news = !guest.known || facts.runs() || sleeps(facts.power);
        return (can_be_news && guest.cycle.is_reachable() && facts.stuck.is_none())
            .then(|| control.look_at(at, Then::Again));
    }
    if guest.config.policy.idle_after.is_none() || !guest.known || !facts.runs() {
        return None;
    }
    let name = guest.config.name.clone();
    let side = control.hypervisors.get(guest.hypervisor)?;
    Some(calls::call(&side.driver, &control.outbox, &guest.config.name, move |h| Message::Statistics {
        guest: at,
        result: h.statistics(&name),
    }))
}

/// A reading is over.
fn ended(control: &mut Control, at: usize) {
    let Some(guest) = control.guests.get_mut(at) else { return };
    guest.sampling = false;
    if guest.cycle.state() == State::Awake {
        guest.sample_at = Some(clock::now() + guest.idleness.thresholds().interval());
    }
    if let Some(side) = control.hypervisors.get_mut(guest.hypervisor) {
        side.readings = side.readings.saturating_sub(1);
    }
}

/// Takes what a guest that could not be stood in for is now.
pub(super) fn looked_again(control: &mut Control, at: usize, result: Result<GuestReport, HypervisorError>) {
    ended(control, at);
    match result {
        Ok(report) => control.learn(at, &report),
        Err(why) => tracing::debug!(%why, "cannot be looked at again"),
    }
}

/// Judges a guest's figures.
pub(super) fn handle(control: &mut Control, at: usize, result: Result<Statistics, HypervisorError>) {
    ended(control, at);
    let now = clock::now();
    let Some(guest) = control.guests.get_mut(at) else { return };
    if guest.cycle.state() != State::Awake {
        return;
    }
    match result {
        Ok(figures) => {
            let idle = guest.idleness.sample(now, guest.cycle.since(), figures);
            let is_busy = matches!(idle, Idle::Busy { .. });
            control.observe_closely(at, !is_busy);
            let Some(guest) = control.guests.get_mut(at) else { return };
            guest.kept_awake &= !is_busy;
            if let Idle::MaySleep(_) = idle {
                if guest.cycle.left_awake_until(now).is_some() {
                    // It stays idle as far as we know, and is looked at again with the next figures.
                    return;
                }
                ask_about_connections(control, at);
            }
        }
        Err(why) => {
            tracing::debug!(guest = guest.config.name, %why, "no figures");
            guest.idleness.forget();
        }
    }
}

/// Asks which of an idle guest's connections could not be answered for.
fn ask_about_connections(control: &mut Control, at: usize) {
    let Some(guest) = control.guests.get(at) else { return };
    let nics: Vec<_> = guest.nics.iter().map(|nic| (nic.bridge, nic.id)).collect();
    let asked = nics.into_iter().map(|(bridge, nic)| {
        let (sender, told) = oneshot::channel();
        control.command(bridge, DriverCommand::KeptAwake(nic, sender));
        told
    });
    let (asked, outbox): (Vec<_>, _) = (asked.collect(), control.outbox.clone());
    tokio::spawn(async move {
        let mut by = Vec::new();
        for told in asked {
            // A port that was lost meanwhile tells nothing, and lets nobody sleep.
            by.extend(told.await.unwrap_or_default());
        }
        // The control side that ended needs no answer.
        let _ = outbox.send(Message::KeptAwake { guest: at, by });
    });
}

/// An idle guest may sleep unless a connection keeps it awake: it stays idle then, and is asked about again with
/// the next figures.
pub(super) fn connections_told(control: &mut Control, at: usize, by: &[KeptAwake]) {
    let Some(guest) = control.guests.get_mut(at).filter(|guest| guest.cycle.state() == State::Awake) else {
        return;
    };
    if let Some(first) = by.first() {
        let KeptAwake { connection, why, .. } = first;
        let name = &guest.config.name;
        tracing::debug!(guest = name, %connection, %why, "idle, but not put to sleep");
        // Once for each time that it is idle: its status tells which ones it is by now.
        if !core::mem::replace(&mut guest.kept_awake, true) {
            let detail = format!("idle, but not put to sleep: {connection} could not be answered for, {why}");
            control.events.record(Some(name), "kept-awake", detail);
        }
        return;
    }
    guest.kept_awake = false;
    guest.idleness.forget();
    let depth = guest.config.policy.depth;
    control.look_at(at, Then::Sleep { depth, reply: None });
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use tokio::sync::mpsc::{self, UnboundedReceiver};

    use super::*;
    use crate::api::EventLog;
    use crate::config::Config;
    use crate::custody::{Tuple, Unrepresentable};
    use crate::daemon::start::build;
    use crate::guest::identity::Mac;
    use crate::hypervisor::{Depth, Hypervisor, NicReport, Power};
    use crate::io::journal::Journal;
    use crate::io::netlink::Netlink;
    use crate::io::steering::Steering;

    /// Every guest runs; its NIC is refused with what is said here.
    struct Runs(Mutex<Option<String>>);

    impl Hypervisor for Runs {
        fn list(&self) -> Result<Vec<GuestReport>, HypervisorError> {
            Ok(Vec::new())
        }
        fn inspect(&self, guest: &str) -> Result<GuestReport, HypervisorError> {
            let nic = NicReport {
                mac: Some(Mac([0x52, 0x54, 0, 0, 0, 1])),
                bridge: Some("br0".to_owned()),
                port: Some("vnet1".to_owned()),
                addresses: Vec::new(),
                groups: Vec::new(),
                refused: self.0.lock().unwrap().clone(),
            };
            Ok(GuestReport { name: guest.to_owned(), power: Power::Running, nics: vec![nic], busy: None })
        }
        fn sleep(&self, _: &str, _: Depth) -> Result<(), HypervisorError> {
            Ok(())
        }
        fn restore(&self, _: &str) -> Result<(), HypervisorError> {
            Ok(())
        }
        fn resume(&self, _: &str) -> Result<(), HypervisorError> {
            Ok(())
        }
        fn statistics(&self, _: &str) -> Result<Statistics, HypervisorError> {
            Ok(Statistics::default())
        }
    }

    /// The daemon with so many guests, each known to run.
    fn with_guests(count: usize, driver: &Arc<Runs>) -> (Control, UnboundedReceiver<Message>) {
        let folder = tempfile::tempdir().unwrap();
        let mut text =
            "[[bridge]]\nname = \"br0\"\n[[hypervisor]]\nname = \"local\"\nkind = \"netns\"\n".to_owned();
        for n in 0..count {
            text += &format!("[[guest]]\nname = \"g{n}\"\nhypervisor = \"local\"\nnetns = \"none{n}\"\n");
            text += "idle_after = \"60s\"\n";
        }
        let journal = Arc::new(Journal::open(folder.path()).unwrap());
        let steering = Arc::new(Steering::new(Netlink::connect().unwrap(), Arc::clone(&journal)));
        let (outbox, inbox) = mpsc::unbounded_channel();
        let config = Config::parse(&text).unwrap();
        let mut control = build(config, journal, steering, Arc::new(EventLog::new()), outbox).unwrap();
        control.hypervisors[0].driver = Arc::clone(driver) as Arc<dyn Hypervisor>;
        control.bridges[0].why = None;
        for at in 0..count {
            control.guests[at].cycle.set_reachable(clock::now(), true, &mut control.host);
            let name = control.guests[at].config.name.clone();
            control.learn(at, &driver.inspect(&name).unwrap());
        }
        (control, inbox)
    }

    #[tokio::test]
    async fn readings_are_spread_and_a_few_at_once_and_every_guest_has_its_turn() {
        let (mut control, mut inbox) = with_guests(20, &Arc::new(Runs(Mutex::new(None))));
        let first: Vec<_> = control.guests.iter().filter_map(|guest| guest.sample_at).collect();
        assert!(first.len() == 20 && first.windows(2).all(|pair| pair[0] < pair[1]), "{first:?}");

        // All first readings are due, and no second one yet.
        let later = first[19];
        sample_due(&mut control, later);
        let under_way = |control: &Control| control.guests.iter().filter(|guest| guest.sampling).count();
        assert_eq!((under_way(&control), control.hypervisors[0].readings), (AT_ONCE, AT_ONCE));
        let mut read = Vec::new();
        while read.len() < 20 {
            let Some(Message::Statistics { guest, result }) = inbox.recv().await else { continue };
            read.push(guest);
            handle(&mut control, guest, result);
            sample_due(&mut control, later);
            assert!(under_way(&control) <= AT_ONCE);
        }
        read.sort_unstable();
        assert_eq!(read, (0..20).collect::<Vec<_>>());
    }

    #[tokio::test]
    async fn a_guest_that_cannot_be_stood_in_for_is_looked_at_until_it_can_be() {
        let driver = Arc::new(Runs(Mutex::new(Some("it is filtered".to_owned()))));
        let (mut control, mut inbox) = with_guests(1, &driver);
        let mut look = async |control: &mut Control| {
            let due = control.guests[0].sample_at.expect("another look");
            assert!(due > clock::now(), "not without a pause");
            sample_due(control, due);
            loop {
                if let Some(Message::Inspected { guest, result, then }) = inbox.recv().await {
                    return control.handle_looked_at(guest, result, then);
                }
            }
        };
        look(&mut control).await;
        assert!(control.guests[0].unfit.as_ref().is_some_and(|why| why.contains("it is filtered")));
        *driver.0.lock().unwrap() = None;
        look(&mut control).await;
        assert_eq!((&control.guests[0].unfit, control.hypervisors[0].readings), (&None, 0));
    }

    #[tokio::test]
    async fn an_idle_guest_sleeps_unless_a_connection_keeps_it_awake() {
        let driver = Arc::new(Runs(Mutex::new(None)));
        let (mut control, mut inbox) = with_guests(1, &driver);
        let connection = Tuple {
            guest: [192, 0, 2, 11].into(),
            guest_port: 22,
            peer: [192, 0, 2, 99].into(),
            peer_port: 40_000,
        };
        let kept = KeptAwake { nic: control.guests[0].nics[0].id, connection, why: Unrepresentable::Closing };
        for _ in 0..3 {
            connections_told(&mut control, 0, &[kept]);
        }
        assert!(inbox.try_recv().is_err(), "nobody looks at it");
        let told = control.events.since(0);
        let told: Vec<_> = told.iter().map(|event| (event.kind.as_str(), event.detail.as_str())).collect();
        let why = "idle, but not put to sleep: 192.0.2.11:22 to 192.0.2.99:40000 could not be answered for, it is \
                   being closed";
        assert_eq!(told, [("kept-awake", why)]);
        connections_told(&mut control, 0, &[]);
        loop {
            let told = inbox.recv().await.expect("it is looked at");
            if matches!(told, Message::Inspected { then: Then::Sleep { .. }, .. }) {
                break;
            }
        }
    }
}

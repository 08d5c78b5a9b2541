//! What was learned of a guest, kept for a daemon after us and for another port of ours: taken from the engine when
//! the guest sleeps and when its leases or addresses change, given to it before it stands in, forgotten when the guest
//! is awake.
//!
//! It is a note of the journal's: no sleep waits for it. One that a crash lost is as if never learned.

use core::net::IpAddr;
use std::sync::Arc;

use tokio::sync::oneshot;

use super::control::Control;
use super::guest::{Guest, Nic};
use crate::engine::{Command, Knowledge};
use crate::guest::identity::NicId;
use crate::guest::lifecycle::State;
use crate::io::clock;
use crate::io::driver::DriverCommand;
use crate::io::journal::Known;
use crate::time::Duration;

/// Takes what is known of a sleeper. Of one that is about to wake nothing is worth it.
pub(super) fn keep(control: &mut Control, at: usize) {
    let Some(guest) = control.guests.get(at).filter(|guest| guest.cycle.state() == State::Asleep) else {
        return;
    };
    let nics: Vec<_> = guest.nics.iter().map(|nic| (nic.bridge, nic.id, name(nic))).collect();
    let guest = guest.config.name.clone();
    for (bridge, id, name) in nics {
        let told = ask(control, bridge, id);
        let (journal, guest) = (Arc::clone(&control.journal), guest.clone());
        tokio::spawn(async move {
            // A port that was lost meanwhile tells nothing.
            if let Ok(Some(knowledge)) = told.await {
                let known = Known { guest, at_unix_ms: clock::unix_ms(), knowledge };
                journal.note_known(&name, Some(known));
                journal.flush_soon();
            }
        });
    }
}

/// What a NIC's engine knows of it, when it is awaited.
pub(super) type Told = oneshot::Receiver<Option<Knowledge>>;

/// Asks the engine of a NIC what it knows.
pub(super) fn ask(control: &mut Control, bridge: usize, nic: NicId) -> Told {
    let (sender, told) = oneshot::channel();
    control.command(bridge, DriverCommand::Knowledge(nic, sender));
    told
}

/// The groups that a guest told of; none from a port that was lost meanwhile.
pub(super) async fn groups(told: Told) -> Vec<IpAddr> {
    let known = told.await.ok().flatten();
    known.iter().flat_map(|knowledge| knowledge.presence.groups()).collect()
}

/// Gives the engines of a sleeper's NICs what was known of it; those that know better ignore it.
pub(super) fn give(control: &mut Control, at: usize) {
    let Some(guest) = control.guests.get(at) else { return };
    let now = clock::unix_ms();
    let of = |nic: &Nic| {
        let known = control.journal.known(&name(nic)).filter(|known| known.guest == guest.config.name)?;
        let ago = Duration::from_millis(now.saturating_sub(known.at_unix_ms));
        Some((nic.bridge, Command::Know { nic: nic.id, knowledge: Box::new(known.knowledge), ago }))
    };
    let commands: Vec<_> = guest.nics.iter().filter_map(of).collect();
    for (bridge, command) in commands {
        control.command(bridge, DriverCommand::Engine(command));
    }
}

/// The guest speaks for itself, and may do otherwise than what we know.
pub(super) fn forget(control: &Control, guest: &Guest) {
    guest.nics.iter().for_each(|nic| control.journal.note_known(&name(nic), None));
}

/// What tells NICs apart, in every run.
fn name(nic: &Nic) -> String {
    format!("{}/{}/{}", nic.bridge_name, nic.mac, nic.vlan.unwrap_or_default())
}

//! From libvirt's lifecycle events to what a guest's power is now.
//!
//! An event does not say enough (a pause for a snapshot looks like one by a user) and may be out of date
//! by the time it is read, so it only starts a question: the domain's state is asked for, and that is
//! told. Each guest with an open question has a short-lived thread, so that an answer that does not come
//! holds up no other guest; events that arrive meanwhile make it ask once more.

use std::collections::HashMap;
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::mpsc::UnboundedSender;

use super::connection::Pool;
use super::{Failure, domain};
use crate::hypervisor::{HypervisorError, HypervisorEvent, PauseReason, Power};

/// Asks for the states of guests that something happened to.
pub(super) struct Asker {
    pool: Arc<Pool>,
    events: UnboundedSender<HypervisorEvent>,
    /// The guests that are being asked about; a message makes their thread ask again.
    open: Mutex<HashMap<String, Sender<()>>>,
}

impl Asker {
    pub(super) fn new(pool: Arc<Pool>, events: UnboundedSender<HypervisorEvent>) -> Self {
        Self { pool, events, open: Mutex::default() }
    }

    /// Something happened to `guest`.
    pub(super) fn ask_about(self: &Arc<Self>, guest: String) {
        let mut open = self.lock();
        if let Some(again) = open.get(&guest) {
            // A thread ends only after it has taken itself out, under this lock: it will see this.
            let _ = again.send(());
            return;
        }
        let (again, asked_again) = mpsc::channel();
        open.insert(guest.clone(), again);
        drop(open);
        let asker = Arc::clone(self);
        let name = guest.clone();
        let thread = std::thread::Builder::new().name("libvirt-state".to_owned());
        if let Err(error) = thread.spawn(move || asker.follow(&name, &asked_again)) {
            tracing::warn!(guest, %error, "its state could not be asked for");
            self.lock().remove(&guest);
        }
    }

    /// Asks until the answer is one that will not change by itself.
    fn follow(&self, guest: &str, asked_again: &Receiver<()>) {
        let mut told = None;
        let mut wait = FIRST_WAIT;
        loop {
            let power = self.power(guest);
            if let Some(power) = power
                && told.replace(power) != Some(power)
            {
                // Nobody listens any more once the daemon is stopping.
                let _ = self.events.send(HypervisorEvent::Power { guest: guest.to_owned(), power });
            }
            // Nothing announces that the job of a restore has ended: without a second question, a domain
            // that someone started with `virsh start --paused` would stay "busy".
            if power == Some(Power::Paused(PauseReason::Busy)) {
                match asked_again.recv_timeout(wait) {
                    Ok(()) => wait = FIRST_WAIT,
                    Err(_) => wait = (wait * 2).min(LONGEST_WAIT),
                }
                continue;
            }
            let mut open = self.lock();
            if asked_again.try_recv().is_err() {
                open.remove(guest);
                return;
            }
            drop(open);
            // One answer serves all questions that were asked before it.
            while asked_again.try_recv().is_ok() {}
        }
    }

    /// `None` if it cannot be told now: without a connection, the list after the next one says it.
    fn power(&self, guest: &str) -> Option<Power> {
        let lease = self.pool.take().ok()?;
        let power = domain::find(&lease, guest).and_then(|domain| Ok(domain::power(&domain)?));
        match power.map_err(|failure: Failure| failure.of(&self.pool, &lease, guest, "inspect")) {
            Ok(power) => Some(power),
            Err(HypervisorError::NoGuest { .. }) => Some(Power::Gone),
            Err(error) => {
                tracing::warn!(guest, %error, "its state could not be asked for");
                None
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Sender<()>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How often each guest has stopped running, so that a resume can see whether it stopped again.
#[derive(Default)]
pub(super) struct Stops {
    counts: Mutex<HashMap<String, u64>>,
    changed: Condvar,
}

impl Stops {
    /// An event said that `guest` stopped running.
    pub(super) fn add(&self, guest: &str) {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry(guest.to_owned()).or_default();
        *count = count.wrapping_add(1);
        self.changed.notify_all();
    }

    /// How often that was said so far.
    pub(super) fn count(&self, guest: &str) -> u64 {
        let counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        counts.get(guest).copied().unwrap_or_default()
    }

    /// Waits until it is said again, at most for `timeout`.
    pub(super) fn wait_for_another(&self, guest: &str, count: u64, timeout: Duration) {
        let counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let same =
            |counts: &mut HashMap<String, u64>| counts.get(guest).copied().unwrap_or_default() == count;
        drop(self.changed.wait_timeout_while(counts, timeout, same));
    }
}

/// How long until a busy guest is asked about again, at first and at most.
const FIRST_WAIT: Duration = Duration::from_millis(100);
const LONGEST_WAIT: Duration = Duration::from_secs(5);

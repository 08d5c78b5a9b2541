//! Tells what happens to the guests: our own steps, and whoever else stops or continues processes.
//!
//! The kernel announces neither, so a thread looks twice a second. What it saw is thrown away if one of
//! our own steps ran meanwhile: a look taken before a sleep must not be reported after it.

use std::collections::HashMap;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::mpsc::UnboundedSender;

use super::namespace::{Namespace, NamespaceId};
use super::{NetnsGuest, Shared, processes};
use crate::hypervisor::{HypervisorEvent, Power};

/// What was last told about each guest.
pub(super) struct Watch {
    guests: Vec<Mutex<Told>>,
    events: UnboundedSender<HypervisorEvent>,
}

#[derive(Default)]
struct Told {
    power: Option<Power>,
    /// Whether a step of ours runs.
    stepping: bool,
    /// How many steps there were.
    steps: u64,
}

impl Watch {
    pub(super) fn new(guests: usize, events: UnboundedSender<HypervisorEvent>) -> Self {
        Self { guests: (0..guests).map(|_| Mutex::default()).collect(), events }
    }

    /// A step of ours begins: the guest is between states.
    pub(super) fn begin(&self, guest: usize) {
        self.with(guest, |told| {
            told.stepping = true;
            told.steps = told.steps.wrapping_add(1);
        });
    }

    /// It is over, and has led to `power`; that is told even if it changed nothing.
    pub(super) fn end(&self, guest: usize, name: &str, power: Option<Power>) {
        self.with(guest, |told| {
            told.stepping = false;
            if let Some(power) = power {
                told.power = Some(power);
                self.tell(name, power);
            }
        });
    }

    /// When a look at the guest begins: what [`saw`](Self::saw) wants to know; `None` while it is between
    /// states.
    fn look(&self, guest: usize) -> Option<u64> {
        self.with(guest, |told| (!told.stepping).then_some(told.steps)).flatten()
    }

    /// A look that began when `steps` were made found `power`.
    fn saw(&self, guest: usize, steps: u64, name: &str, power: Power) {
        self.with(guest, |told| {
            if told.stepping || told.steps != steps || told.power == Some(power) {
                return;
            }
            // The first look only learns: the caller lists the guests by itself.
            if told.power.replace(power).is_some() {
                self.tell(name, power);
            }
        });
    }

    fn with<T>(&self, guest: usize, f: impl FnOnce(&mut Told) -> T) -> Option<T> {
        self.guests.get(guest).map(|told| f(&mut told.lock().unwrap_or_else(PoisonError::into_inner)))
    }

    fn tell(&self, name: &str, power: Power) {
        // Nobody listens any more once the daemon is stopping.
        let _ = self.events.send(HypervisorEvent::Power { guest: name.to_owned(), power });
    }
}

/// Starts the thread that looks; it ends when the returned sender goes.
pub(super) fn spawn(shared: &Arc<Shared>) -> mpsc::Sender<()> {
    let (stop, stopped) = mpsc::channel();
    let _ = shared.watch.events.send(HypervisorEvent::Connected);
    let name = format!("netns-{}", shared.config.name);
    let weak = Arc::downgrade(shared);
    let run = move || {
        look_at_all(&weak);
        while stopped.recv_timeout(EVERY) == Err(RecvTimeoutError::Timeout) {
            look_at_all(&weak);
        }
    };
    if let Err(error) = std::thread::Builder::new().name(name).spawn(run) {
        tracing::warn!(%error, "namespaces stopped or continued by others will not be noticed");
    }
    stop
}

fn look_at_all(shared: &Weak<Shared>) {
    let Some(shared) = shared.upgrade() else { return };
    let guests = shared.config.guests.iter().enumerate();
    let looks: Vec<_> =
        guests.filter_map(|(index, guest)| Some((index, guest, shared.watch.look(index)?))).collect();
    let Ok(pids) = processes::scan() else { return };
    for (index, guest, steps) in looks {
        if let Some(power) = power(guest, &pids) {
            shared.watch.saw(index, steps, &guest.name, power);
        }
    }
}

fn power(guest: &NetnsGuest, pids: &HashMap<NamespaceId, Vec<u32>>) -> Option<Power> {
    match Namespace::open(&guest.netns).ok()? {
        None => Some(Power::Gone),
        Some(namespace) => guest.power_of(pids.get(&namespace.id).map_or(&[], Vec::as_slice)).ok(),
    }
}

const EVERY: Duration = Duration::from_millis(500);

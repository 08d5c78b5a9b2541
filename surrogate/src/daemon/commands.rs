//! What operators ask: looked up, checked, and begun here; ended where the cycle ends.

use core::time::Duration;

use tokio::sync::oneshot;

use super::control::Control;
use super::guest::{Goal, Waiter};
use super::messages::{Message, Then};
use crate::api::metrics::PortFigures;
use crate::api::{
    ConnectionStatus, GuestStatus, Refusal, RefusalCode, Released, Request, Transition, metrics,
};
use crate::guest::identity::NicId;
use crate::guest::lifecycle::{CommandRefused, State};
use crate::hypervisor::{Depth, GuestReport, HypervisorError};
use crate::io::clock;
use crate::io::driver::{DriverCommand, KeptAwake, NicFigures, Snapshot};

type Reply<T> = oneshot::Sender<Result<T, Refusal>>;

/// How long packet threads may take to tell their numbers.
const SNAPSHOT_TIMEOUT: Duration = Duration::from_secs(1);

/// Takes a request.
pub(super) fn handle(control: &mut Control, request: Request) {
    match request {
        Request::Guests { reply } => with_status(control, move |all, _| {
            let _ = reply.send(all);
        }),
        Request::Guest { name, reply } => with_status(control, move |all, _| {
            let found = all.into_iter().find(|g| g.name == name).ok_or_else(|| no_guest(&name));
            let _ = reply.send(found);
        }),
        Request::Metrics { reply } => with_status(control, move |all, ports| {
            let _ = reply.send(metrics::render(&all, &ports));
        }),
        Request::Sleep { name, depth, reply } => sleep(control, &name, depth, reply),
        Request::Wake { name, reply } => wake(control, &name, reply),
        Request::ReleaseAll { reply } => release_all(control, reply),
    }
}

/// Gathers every guest's status with fresh counters, and what the ports saw, then calls `then` elsewhere.
fn with_status(
    control: &mut Control,
    then: impl FnOnce(Vec<GuestStatus>, Vec<PortFigures>) + Send + 'static,
) {
    let mut answers = Vec::new();
    for bridge in 0..control.bridges.len() {
        let Some(side) = control.bridges.get(bridge).filter(|b| b.port.is_some()) else { continue };
        let name = side.name.clone();
        let (sender, receiver) = oneshot::channel();
        control.command(bridge, DriverCommand::Snapshot(sender));
        answers.push((name, receiver));
    }
    let now = clock::now();
    let guests: Vec<_> = control
        .guests
        .iter()
        .map(|guest| {
            let ids: Vec<NicId> = guest.nics.iter().map(|n| n.id).collect();
            let hypervisor = control.hypervisors.get(guest.hypervisor).map_or("", |h| h.name.as_str());
            (ids, guest.status(now, hypervisor))
        })
        .collect();
    tokio::spawn(async move {
        let mut nics: Vec<NicFigures> = Vec::new();
        let mut ports = Vec::new();
        let mut kept_awake = Vec::new();
        for (bridge, answer) in answers {
            let Ok(Ok(told)) = tokio::time::timeout(SNAPSHOT_TIMEOUT, answer).await else { continue };
            let Snapshot {
                nics: of_port,
                kept_awake: more,
                foreign,
                received,
                transmitted,
                transmit_failed,
                kernel_drops,
                observed,
            } = told;
            nics.extend(of_port);
            kept_awake.extend(more);
            ports.push(PortFigures {
                bridge,
                received,
                foreign,
                transmitted,
                transmit_failed,
                kernel_drops,
                observed,
            });
        }
        let filled = guests.into_iter().map(|(ids, mut status)| {
            for (id, nic) in ids.iter().zip(&mut status.nics) {
                if let Some(told) = nics.iter().find(|told| told.nic == *id) {
                    super::guest::mode_word(told.mode).clone_into(&mut nic.mode);
                    nic.counters = told.counters.clone();
                    nic.custody = told.custody;
                }
                nic.kept_awake = kept_awake.iter().filter(|kept| kept.nic == *id).map(told).collect();
            }
            status
        });
        then(filled.collect(), ports);
    });
}

fn told(kept: &KeptAwake) -> ConnectionStatus {
    ConnectionStatus { connection: kept.connection.to_string(), why: kept.why }
}

fn find(control: &Control, name: &str) -> Option<usize> {
    control.guests.iter().position(|g| g.config.name == name)
}

fn no_guest(name: &str) -> Refusal {
    Refusal::new(
        RefusalCode::NotFound,
        format!("there is no guest \"{name}\" in the configuration; `surrogate guests` lists them"),
    )
}

fn sleep(control: &mut Control, name: &str, depth: Option<Depth>, reply: Reply<Transition>) {
    let Some(at) = find(control, name) else {
        let _ = reply.send(Err(no_guest(name)));
        return;
    };
    if control.guests.get(at).is_some_and(|guest| guest.cycle.facts().stuck.is_some()) {
        // A look at it would wait behind the call that hangs, and tell no more.
        return conclude(control, at, Goal::Asleep, Err(CommandRefused::Stuck), Some(reply));
    }
    let depth = depth.or_else(|| control.guests.get(at).map(|g| g.config.policy.depth));
    control.look_at(at, Then::Sleep { depth: depth.unwrap_or(Depth::Pause), reply: Some(reply) });
}

/// The guest to be put to sleep was looked at: nothing may speak against it.
pub(super) fn sleep_checked(
    control: &mut Control,
    at: usize,
    result: Result<GuestReport, HypervisorError>,
    depth: Depth,
    reply: Option<Reply<Transition>>,
) {
    let report = match result {
        Ok(report) => report,
        Err(why) => {
            let why = format!("cannot be asked about: {why}");
            return refuse(control, at, RefusalCode::Unavailable, why, reply);
        }
    };
    if control.guests.get(at).is_some_and(|guest| !guest.known) {
        // Asked before the hypervisor's list came: this is the first word. Where what an earlier daemon left
        // is being put back first, it is asked again, and that is over by then.
        control.learn(at, &report);
        if control.guests.get(at).is_some_and(|guest| !guest.known && guest.unfit.is_none()) {
            control.look_at(at, Then::Sleep { depth, reply });
            return;
        }
    }
    control.take_report(at, &report);
    let Some(guest) = control.guests.get(at) else { return };
    if let Some(why) = &guest.unfit {
        let why = format!("cannot be put to sleep: {why}");
        return refuse(control, at, RefusalCode::Conflict, why, reply);
    }
    if let Some(why) = &report.busy {
        let why = format!("cannot be put to sleep now: {why}");
        return refuse(control, at, RefusalCode::Conflict, why, reply);
    }
    if guest.cycle.state() == State::Asleep {
        return begin_sleep(control, at, depth, reply);
    }
    if let Some(why) = guest.unaddressed() {
        let why = format!("cannot be put to sleep: {why}");
        return refuse(control, at, RefusalCode::Conflict, why, reply);
    }
    // Its ports are looked at last: a bridge says what the hypervisor does not know.
    control.check_ports(at, false, move |why| Message::PortsChecked { guest: at, why, depth, reply });
}

/// The guest's ports were looked at too.
pub(super) fn ports_checked(
    control: &mut Control,
    at: usize,
    why: Option<String>,
    depth: Depth,
    reply: Option<Reply<Transition>>,
) {
    let Some(guest) = control.guests.get_mut(at) else { return };
    let Some(why) = why else { return begin_sleep(control, at, depth, reply) };
    let why = format!("cannot be put to sleep: {why}");
    control.events.record(Some(&guest.config.name), "refused", why.clone());
    refuse(control, at, RefusalCode::Conflict, why, reply);
}

/// Refuses what was asked of a guest; `why` is kept for its status and goes on from its name.
fn refuse(
    control: &mut Control,
    at: usize,
    code: RefusalCode,
    why: String,
    reply: Option<Reply<Transition>>,
) {
    let Some(guest) = control.guests.get_mut(at) else { return };
    if let Some(reply) = reply {
        let _ = reply.send(Err(Refusal::new(code, format!("{} {why}", guest.config.name))));
    }
    guest.why = Some(why);
}

fn begin_sleep(control: &mut Control, at: usize, depth: Depth, reply: Option<Reply<Transition>>) {
    let now = clock::now();
    let Some(guest) = control.guests.get_mut(at) else { return };
    let begun = guest.cycle.sleep(now, depth, &mut control.host);
    conclude(control, at, Goal::Asleep, begun, reply);
}

fn wake(control: &mut Control, name: &str, reply: Reply<Transition>) {
    let Some(at) = find(control, name) else {
        let _ = reply.send(Err(no_guest(name)));
        return;
    };
    let now = clock::now();
    let Some(guest) = control.guests.get_mut(at) else { return };
    if !guest.known {
        let why = guest.unfit.clone().unwrap_or_default();
        let _ = reply.send(Err(Refusal::new(RefusalCode::Unavailable, format!("{name}: {why}"))));
        return;
    }
    let begun = guest.cycle.wake(now, &mut control.host);
    conclude(control, at, Goal::Awake, begun, Some(reply));
}

/// Answers at once what is settled at once, and lets the rest wait for the cycle.
fn conclude(
    control: &mut Control,
    at: usize,
    wants: Goal,
    begun: Result<(), CommandRefused>,
    reply: Option<Reply<Transition>>,
) {
    let now = clock::now();
    let Some(guest) = control.guests.get_mut(at) else { return };
    match (begun, reply) {
        (Err(why), reply) => {
            if let Some(reply) = reply {
                let message = format!("{}: {why}", guest.config.name);
                let _ = reply.send(Err(Refusal::new(RefusalCode::Conflict, message)));
            }
            guest.why = Some(why.to_string());
        }
        (Ok(()), Some(reply)) if guest.cycle.state() == wants.state() => {
            let _ = reply.send(Ok(Transition {
                guest: guest.config.name.clone(),
                state: wants.state().name().to_owned(),
                took_ms: 0,
                held: guest.tally.held,
                replayed: 0,
            }));
        }
        (Ok(()), Some(reply)) => {
            // Who went away waits no more.
            guest.waiters.retain(|waiter| !waiter.reply.is_closed());
            guest.waiters.push(Waiter { wants, since: now, reply });
        }
        (Ok(()), None) => {}
    }
    control.settle(at);
}

/// Gives every guest back: those that Surrogate put to sleep are woken, those that somebody else
/// stopped are let go of as they are.
fn release_all(control: &mut Control, reply: Reply<Released>) {
    let now = clock::now();
    let mut waits = Vec::new();
    for at in 0..control.guests.len() {
        let Some(guest) = control.guests.get_mut(at) else { break };
        if guest.cycle.state() == State::Awake {
            continue;
        }
        let (sender, receiver) = oneshot::channel();
        waits.push((guest.config.name.clone(), receiver));
        let stopped_by_others = matches!(guest.cycle.state(), State::Settling | State::Asleep);
        let (begun, wants) = if stopped_by_others && !guest.cycle.slept_by_us() {
            guest.cycle.let_go(now, &mut control.host);
            (Ok(()), Goal::LetGo)
        } else {
            (guest.cycle.wake(now, &mut control.host), Goal::Awake)
        };
        conclude(control, at, wants, begun, Some(sender));
    }
    tokio::spawn(async move {
        let mut released = Released::default();
        for (name, wait) in waits {
            match wait.await {
                Ok(Ok(_)) => released.guests += 1,
                Ok(Err(why)) => released.failed.push(why.message),
                Err(_) => released.failed.push(format!("{name}: the daemon is stopping")),
            }
        }
        let _ = reply.send(Ok(released));
    });
}

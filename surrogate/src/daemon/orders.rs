//! How each order of a lifecycle is performed, and when it counts as done.
//!
//! Modes and the barrier go to the packet threads and are done when each NIC has confirmed; all else is
//! a spawned task or thread that answers with [`Message::Done`]. Deliveries need the index of the
//! guest's port *now*: it is looked up by name right before, never remembered.

use std::sync::Arc;

use super::bridges::is_tap_of;
use super::calls;
use super::control::Control;
use super::guest::Awaiting;
use super::known;
use super::messages::{GuestPort, Message, Outcome};
use crate::engine::{Command, Mode, Notice};
use crate::guest::identity::{Mac, NicId};
use crate::guest::lifecycle::{Action, Intent, Order};
use crate::hypervisor::{Depth, Hypervisor, HypervisorError, Power};
use crate::io::clock;
use crate::io::driver::{DriverCommand, PortHandle};
use crate::io::journal::GuestRecord;
use crate::io::netlink::Link;
use crate::io::steering::{Place, SteeringError};

/// Performs `order` for the guest at `at`.
pub(super) fn perform(control: &mut Control, at: usize, order: Order) {
    match order.action {
        Action::Record(intent) => record(control, at, order, intent),
        Action::Mode(Mode::Replay { released: false }) | Action::Barrier => attach(control, at, order),
        Action::Mode(mode) => set_mode(control, at, order, mode),
        Action::Watch => watch(control, at, order),
        Action::Steer => on_places(control, at, order, steer),
        Action::TakeFloods => on_places(control, at, order, take_floods),
        Action::ReturnFloods => on_places(control, at, order, return_floods),
        Action::Port { enabled: false } => on_places(control, at, order, disable),
        Action::Port { enabled: true } => on_places(control, at, order, enable),
        Action::Release => on_places(control, at, order, release),
        Action::Forget => forget(control, at, order),
        Action::Sleep(depth) => {
            hypervisor(control, at, order, move |h, guest| h.sleep(guest, depth).map(|()| Outcome::Plain))
        }
        // A restored guest's ports may have new names.
        Action::Restore => hypervisor(control, at, order, |h, guest| {
            h.restore(guest)?;
            Ok(h.inspect(guest).map_or(Outcome::Plain, Outcome::Report))
        }),
        Action::Resume => hypervisor(control, at, order, |h, guest| h.resume(guest).map(|()| Outcome::Plain)),
        Action::Inspect => inspect(control, at, order),
    }
}

/// A NIC's notice that its part of the order under way is done.
pub(super) fn confirmed(control: &mut Control, at: usize, notice: &Notice) {
    let Some(guest) = control.guests.get_mut(at) else { return };
    match *notice {
        Notice::ModeSet { held, mode: Mode::Answer | Mode::Hold { .. }, .. } => {
            guest.tally.held = u64::from(held);
        }
        Notice::Drained { delivered, .. } => {
            guest.tally.replayed = guest.tally.replayed.saturating_add(delivered);
        }
        Notice::Settled { overtaken, .. } => {
            guest.tally.overtaken = guest.tally.overtaken.saturating_add(u64::from(overtaken));
        }
        _ => {}
    }
    let Some(awaiting) = guest.awaiting.as_mut() else { return };
    let confirmed = match (awaiting.order.action, *notice) {
        (Action::Watch, Notice::Watched { nic, epoch })
        | (Action::Barrier, Notice::BarrierPassed { nic, epoch })
        | (Action::Mode(Mode::Replay { released: false }), Notice::Drained { nic, epoch, .. })
        | (Action::Mode(Mode::Replay { released: true }), Notice::Settled { nic, epoch, .. }) => {
            Some((nic, epoch))
        }
        (Action::Mode(Mode::Replay { .. }), _) => None,
        (Action::Mode(wanted), Notice::ModeSet { nic, epoch, mode, .. }) if mode == wanted => {
            Some((nic, epoch))
        }
        _ => None,
    };
    if let Some((nic, epoch)) = confirmed
        && epoch == awaiting.order.epoch
    {
        awaiting.nics.retain(|n| *n != nic);
        if awaiting.nics.is_empty() {
            let ticket = awaiting.order.ticket;
            guest.awaiting = None;
            guest.cycle.handle_done(clock::now(), ticket, Ok(()), &mut control.host);
        }
    }
}

/// The guest's ports were found: deliveries go there from now on, and the order goes on.
pub(super) fn attached(control: &mut Control, at: usize, ticket: u64, ports: &[GuestPort]) {
    let Some(guest) = control.guests.get(at) else { return };
    let Some(awaiting) = guest.awaiting.as_ref().filter(|a| a.order.ticket == ticket) else { return };
    let order = awaiting.order;
    let nics: Vec<_> = guest.nics.iter().map(|n| (n.id, n.bridge)).collect();
    connect(control, at, ports);
    match order.action {
        Action::Barrier => {
            for (nic, bridge) in nics {
                let command = Command::Barrier { nic, epoch: order.epoch };
                control.command(bridge, DriverCommand::Engine(command));
            }
        }
        Action::Mode(mode) => set_mode(control, at, order, mode),
        _ => {}
    }
}

/// Deliveries go to these ports from now on; those that were refused are tried again.
pub(super) fn connect(control: &mut Control, at: usize, ports: &[GuestPort]) {
    let Some(guest) = control.guests.get(at) else { return };
    let nics: Vec<_> = guest.nics.iter().map(|n| (n.id, n.bridge)).collect();
    for &GuestPort { nic, ifindex, untag } in ports {
        if let Some(&(_, bridge)) = nics.iter().find(|(id, _)| *id == nic) {
            control.command(bridge, DriverCommand::AttachPort { nic, ifindex, untag });
            control.command(bridge, DriverCommand::Engine(Command::PortReady { nic }));
        }
    }
}

/// Our port on `bridge` is gone, with its engine: nobody there will confirm what the guest waits for. Where
/// there is no port there is no voice, so a silent mode is in force; only to answer needs one.
pub(super) fn lost(control: &mut Control, at: usize, bridge: usize) {
    let Some(guest) = control.guests.get_mut(at) else { return };
    let Some(awaiting) = guest.awaiting.as_mut() else { return };
    let there: Vec<_> = guest.nics.iter().filter(|n| n.bridge == bridge).map(|n| n.id).collect();
    awaiting.nics.retain(|nic| !there.contains(nic));
    let order = awaiting.order;
    let result = match order.action {
        Action::Mode(Mode::Answer) => Err("our port on its bridge was lost".to_owned()),
        _ if awaiting.nics.is_empty() => Ok(()),
        _ => return,
    };
    guest.awaiting = None;
    guest.cycle.handle_done(clock::now(), order.ticket, result, &mut control.host);
}

/// A port came up on one of our bridges. A restored guest's new port is flooded to from the start, and
/// until the guest runs that would only fill its queue with what we answer.
pub(super) fn port_appeared(control: &mut Control, link: &Link) {
    if link.master.is_none() {
        return;
    }
    for at in 0..control.guests.len() {
        let Some(guest) = control.guests.get_mut(at) else { break };
        let enabled = link.port.as_ref().is_some_and(|flags| flags.state != 0);
        if enabled
            && guest.cycle.facts().port_disabled
            && guest.nics.iter().any(|n| n.port.as_deref() == Some(&link.name))
        {
            guest.cycle.handle_port_enabled(clock::now(), &mut control.host);
            control.settle(at);
            continue;
        }
        // A delivery that found no port goes on as soon as there is one.
        if let Some(order) = guest.awaiting.as_ref().map(|a| a.order)
            && matches!(order.action, Action::Mode(Mode::Replay { .. }))
            && guest.nics.iter().any(|n| n.port.as_deref() == Some(&link.name))
        {
            find_ports(control, at, |guest, result| match result {
                Ok(ports) => Message::Ports { guest, ports },
                Err(why) => {
                    tracing::warn!(why, "a guest's port cannot be looked up");
                    Message::Ports { guest, ports: Vec::new() }
                }
            });
            continue;
        }
        let facts = guest.cycle.facts();
        if !facts.floods_taken || facts.power != Power::Saved {
            continue;
        }
        let Some(nic) =
            guest.nics.iter_mut().find(|n| n.port.as_deref() == Some(&link.name) || is_tap_of(link, n.mac))
        else {
            continue;
        };
        nic.port = Some(link.name.clone());
        let nic = nic.clone();
        let Some(surrogate) = control.surrogate_port(nic.bridge) else { continue };
        let Some(guest) = control.guests.get(at) else { break };
        let place = guest.place(&nic, surrogate);
        let (steering, port) = (Arc::clone(&control.steering), link.name.clone());
        tokio::spawn(async move {
            if let Err(why) = steering.take_floods(&place, &port).await {
                tracing::debug!(%why, port, "flooding to a restored port could not be turned off");
            }
        });
    }
}

fn record(control: &mut Control, at: usize, order: Order, intent: Intent) {
    let Some(guest) = control.guests.get(at) else { return };
    let record = GuestRecord {
        name: guest.config.name.clone(),
        hypervisor: guest.config.hypervisor.clone(),
        epoch: order.epoch.0,
        slept_by_us: guest.cycle.slept_by_us(),
        depth: Some(guest.cycle.depth()),
        intent,
        since_unix_ms: clock::unix_ms(),
    };
    let (journal, outbox) = (Arc::clone(&control.journal), control.outbox.clone());
    let steering = Arc::clone(&control.steering);
    let disables = guest.cycle.port_sleeps();
    let mut spots = spots(control, at, order.action).unwrap_or_default();
    if matches!(intent, Intent::Wake | Intent::Awake) {
        if intent == Intent::Awake {
            spots.iter().for_each(|spot| steering.came_to_nothing(&spot.place));
        }
        // A wake waits for no disk: a daemon that does not find its record finds a sleeper as we did.
        journal.note_guest(&record);
        journal.flush_soon();
        let result = Ok(Outcome::Plain);
        let _ = outbox.send(Message::Done { guest: at, ticket: order.ticket, result });
        return;
    }
    ask_groups(control, &mut spots);
    tokio::spawn(async move {
        let mut changes = Vec::new();
        for mut spot in spots {
            hear_groups(&mut spot).await;
            changes.extend(steering.foresee(&spot.place, spot.port.as_deref(), disables).await);
        }
        let written = tokio::task::spawn_blocking(move || journal.put_cycle(&record, &changes)).await;
        let result = match written {
            Ok(Ok(())) => Ok(Outcome::Plain),
            Ok(Err(why)) => Err(why.to_string()),
            Err(why) => Err(why.to_string()),
        };
        let _ = outbox.send(Message::Done { guest: at, ticket: order.ticket, result });
    });
}

/// Done when each NIC that is observed has been for long enough.
fn watch(control: &mut Control, at: usize, order: Order) {
    let Some(guest) = control.guests.get_mut(at) else { return };
    let observed = guest.nics.iter().filter(|nic| nic.observed.is_some());
    let nics: Vec<_> = observed.map(|nic| (nic.id, nic.bridge)).collect();
    if nics.is_empty() {
        let result = Ok(Outcome::Plain);
        let _ = control.outbox.send(Message::Done { guest: at, ticket: order.ticket, result });
        return;
    }
    guest.awaiting = Some(Awaiting { order, nics: nics.iter().map(|(nic, _)| *nic).collect() });
    for (nic, bridge) in nics {
        control.command(bridge, DriverCommand::Watch { nic, epoch: order.epoch });
    }
}

fn set_mode(control: &mut Control, at: usize, order: Order, mode: Mode) {
    let Some(guest) = control.guests.get(at) else { return };
    let all = guest.nics.iter().map(|n| (n.id, n.bridge));
    let has_port = |bridge: usize| control.bridges.get(bridge).is_some_and(|side| side.port.is_some());
    let (nics, mute): (Vec<_>, Vec<_>) = all.partition(|(_, bridge)| has_port(*bridge));
    if nics.is_empty() || (mode == Mode::Answer && !mute.is_empty()) {
        // As in `lost`.
        let result = if mode == Mode::Answer {
            Err("there is no surrogate port on its bridge".to_owned())
        } else {
            Ok(Outcome::Plain)
        };
        let _ = control.outbox.send(Message::Done { guest: at, ticket: order.ticket, result });
        return;
    }
    let Some(guest) = control.guests.get_mut(at) else { return };
    guest.awaiting = Some(Awaiting { order, nics: nics.iter().map(|(id, _)| *id).collect() });
    if mode == (Mode::Replay { released: false }) {
        guest.tally.replayed = 0;
        guest.tally.overtaken = 0;
    }
    if mode == Mode::Answer {
        known::give(control, at);
    }
    for (nic, bridge) in nics {
        if matches!(mode, Mode::Answer | Mode::Replay { released: false } | Mode::Pass) {
            control.command(bridge, DriverCommand::Count(nic));
        }
        let command = Command::SetMode { nic, epoch: order.epoch, mode };
        control.command(bridge, DriverCommand::Engine(command));
    }
}

/// Finds the guest's ports by name, then goes on in [`attached`].
fn attach(control: &mut Control, at: usize, order: Order) {
    let Some(guest) = control.guests.get_mut(at) else { return };
    guest.awaiting = Some(Awaiting { order, nics: guest.nics.iter().map(|n| n.id).collect() });
    find_ports(control, at, move |guest, result| Message::Done {
        guest,
        ticket: order.ticket,
        result: result.map(Outcome::Ports),
    });
}

/// Looks the guest's ports up, by name and as they are now, and sends what `then` makes of them. A port that is
/// not there is left out: the link event of its coming goes on with it. One that cannot be looked up is an
/// error, since no event will tell when it can.
fn find_ports(
    control: &Control,
    at: usize,
    then: impl FnOnce(usize, Result<Vec<GuestPort>, String>) -> Message + Send + 'static,
) {
    let Some(guest) = control.guests.get(at) else { return };
    let names: Vec<_> = guest
        .nics
        .iter()
        .filter_map(|n| Some((n.id, n.bridge_name.clone(), n.vlan, n.port.clone()?)))
        .collect();
    let (steering, outbox) = (Arc::clone(&control.steering), control.outbox.clone());
    tokio::spawn(async move {
        let found = async {
            let mut ports = Vec::new();
            for (nic, bridge, vlan, name) in names {
                match steering.delivery_port(&bridge, vlan, &name).await? {
                    Some((ifindex, untag)) => ports.push(GuestPort { nic, ifindex, untag }),
                    None => tracing::warn!(port = name, "a guest's port is not there"),
                }
            }
            Ok(ports)
        };
        let found: Result<_, SteeringError> = found.await;
        let _ = outbox.send(then(at, found.map_err(|why| why.to_string())));
    });
}

/// One NIC as steering sees it.
struct Spot {
    nic: NicId,
    bridge: usize,
    place: Place,
    /// The MAC of our own services there.
    service: Option<Mac>,
    port: Option<String>,
    /// The groups that the guest told of, on their way from the engine.
    told: Option<known::Told>,
}

type Steering = Arc<crate::io::steering::Steering>;

/// Does `step` for each NIC in turn; the first failure ends it.
fn on_places<F>(control: &mut Control, at: usize, order: Order, step: fn(Steering, Spot) -> F)
where
    F: Future<Output = Result<Option<Vec<core::net::IpAddr>>, SteeringError>> + Send + 'static,
{
    let mut spots = spots(control, at, order.action);
    if let (Action::TakeFloods, Ok(spots)) = (order.action, &mut spots) {
        ask_groups(control, spots);
    }
    let (steering, outbox) = (Arc::clone(&control.steering), control.outbox.clone());
    tokio::spawn(async move {
        let result = async {
            let mut groups = Vec::new();
            for mut spot in spots? {
                let nic = spot.nic;
                hear_groups(&mut spot).await;
                let joined = step(Arc::clone(&steering), spot).await.map_err(|why| why.to_string())?;
                groups.extend(joined.map(|joined| (nic, joined)));
            }
            Ok(if groups.is_empty() { Outcome::Plain } else { Outcome::Groups(groups) })
        };
        let result = result.await;
        let _ = outbox.send(Message::Done { guest: at, ticket: order.ticket, result });
    });
}

/// Our ports are needed to take something over; to give it back, only what was recorded is.
fn spots(control: &Control, at: usize, action: Action) -> Result<Vec<Spot>, String> {
    let takes = matches!(action, Action::Steer | Action::TakeFloods);
    let Some(guest) = control.guests.get(at) else { return Ok(Vec::new()) };
    guest
        .nics
        .iter()
        .map(|nic| {
            let ours = control.bridges.get(nic.bridge).and_then(|side| side.port.as_ref());
            if takes && ours.is_none() {
                return Err(format!("there is no surrogate port on {}", nic.bridge_name));
            }
            Ok(Spot {
                nic: nic.id,
                bridge: nic.bridge,
                place: guest.place(nic, ours.map_or(0, PortHandle::ifindex)),
                service: ours.map(PortHandle::service_mac),
                port: nic.port.clone(),
                told: None,
            })
        })
        .collect()
}

/// Asks the engines which groups the guest told of.
fn ask_groups(control: &mut Control, spots: &mut [Spot]) {
    for spot in spots {
        spot.told = Some(known::ask(control, spot.bridge, spot.nic));
    }
}

/// Takes the answer, if there was a question.
async fn hear_groups(spot: &mut Spot) {
    if let Some(told) = spot.told.take() {
        spot.place.groups.extend(known::groups(told).await);
    }
}

type Step = Result<Option<Vec<core::net::IpAddr>>, SteeringError>;

async fn steer(steering: Steering, spot: Spot) -> Step {
    let Spot { place, service, port, .. } = &spot;
    steering.steer(place, port.as_deref()).await?;
    // The answer to the barrier comes in the guest's VLAN.
    if let (Some(vlan), Some(service)) = (place.vlan, *service)
        && let Err(why) = steering.own_mac(&place.bridge, Some(vlan), place.surrogate_port, service).await
    {
        tracing::warn!(bridge = place.bridge, vlan, %why, "no entry for our own MAC: barriers will time out");
    }
    Ok(None)
}

/// The guest is awake and has all that came for it: our ports leave its VLANs, if no other sleeper needs them.
pub(super) fn leave_vlans(control: &Control, at: usize) {
    let spots = spots(control, at, Action::Release).unwrap_or_default();
    for Spot { place, service, .. } in spots.into_iter().filter(|spot| spot.place.vlan.is_some()) {
        // Without a port of ours there is none to leave.
        let Some(service) = service else { continue };
        let steering = Arc::clone(&control.steering);
        tokio::spawn(async move {
            if let Err(why) = steering.leave_vlan(&place, service).await {
                tracing::warn!(bridge = place.bridge, %why, "our port stays in a VLAN that nobody sleeps in");
            }
        });
    }
}

/// A saved guest has no port, and so nothing to take; groups come to ours all the same, since it is a
/// multicast router's port to the bridge.
async fn take_floods(steering: Steering, spot: Spot) -> Step {
    match &spot.port {
        Some(port) => match steering.take_floods(&spot.place, port).await {
            Err(SteeringError::NoPort(_)) => Ok(None),
            other => other.map(Some),
        },
        None => Ok(None),
    }
}

async fn return_floods(steering: Steering, spot: Spot) -> Step {
    steering.return_floods(&spot.place, spot.port.as_deref()).await.map(|()| None)
}

async fn disable(steering: Steering, spot: Spot) -> Step {
    steering.disable_port(&spot.place, known(&spot)?).await.map(|()| None)
}

async fn enable(steering: Steering, spot: Spot) -> Step {
    steering.enable_port(&spot.place, known(&spot)?).await.map(|()| None)
}

async fn release(steering: Steering, spot: Spot) -> Step {
    match steering.release(&spot.place, known(&spot)?).await {
        // The entry pointed at our port and went with it, as the bridge did.
        Err(SteeringError::NoBridge(_)) if spot.service.is_none() => Ok(None),
        other => other.map(|()| None),
    }
}

fn known(spot: &Spot) -> Result<&str, SteeringError> {
    spot.port.as_deref().ok_or_else(|| SteeringError::NoPort(format!("of {}", spot.place.mac)))
}

/// The guest is gone: nothing of it stays on a bridge or in an engine.
fn forget(control: &mut Control, at: usize, order: Order) {
    let Some(guest) = control.guests.get(at) else { return };
    let nics: Vec<_> = guest.nics.iter().map(|n| (n.id, n.bridge)).collect();
    for (nic, bridge) in nics {
        control.command(bridge, DriverCommand::Engine(Command::Unregister { nic }));
        control.command(bridge, DriverCommand::DetachPort { nic });
    }
    control.register(at);
    let Some(guest) = control.guests.get(at) else { return };
    let name = guest.config.name.clone();
    let (steering, outbox) = (Arc::clone(&control.steering), control.outbox.clone());
    tokio::spawn(async move {
        steering.reconcile(|guest| guest != name).await;
        let result = Ok(Outcome::Plain);
        let _ = outbox.send(Message::Done { guest: at, ticket: order.ticket, result });
    });
}

fn hypervisor(
    control: &Control,
    at: usize,
    order: Order,
    what: impl FnOnce(&dyn Hypervisor, &str) -> Result<Outcome, HypervisorError> + Send + 'static,
) {
    let Some(guest) = control.guests.get(at) else { return };
    let Some(side) = control.hypervisors.get(guest.hypervisor) else { return };
    let name = guest.config.name.clone();
    calls::call(&side.driver, &control.outbox, &guest.config.name, move |h| {
        let operation = order.action.name();
        tracing::debug!(guest = name, operation, "hypervisor call begins");
        let result = what(h, &name).map_err(|why| why.to_string());
        tracing::debug!(guest = name, operation, failed = result.is_err(), "hypervisor call returned");
        Message::Done { guest: at, ticket: order.ticket, result }
    });
}

fn inspect(control: &Control, at: usize, order: Order) {
    let Some(guest) = control.guests.get(at) else { return };
    let Some(side) = control.hypervisors.get(guest.hypervisor) else { return };
    let name = guest.config.name.clone();
    calls::call(&side.driver, &control.outbox, &guest.config.name, move |h| {
        let result = match h.inspect(&name) {
            Err(HypervisorError::NoGuest { .. }) => Ok(Outcome::Report(crate::hypervisor::GuestReport {
                name,
                power: Power::Gone,
                nics: Vec::new(),
                busy: None,
            })),
            other => other.map(Outcome::Report).map_err(|why| why.to_string()),
        };
        Message::Done { guest: at, ticket: order.ticket, result }
    });
}

/// The event that tells of a finished step, if it is one that people follow.
pub(super) const fn event_of(action: Action) -> Option<&'static str> {
    match action {
        Action::Steer => Some("steered"),
        Action::Barrier => Some("drained"),
        Action::Sleep(Depth::Pause) => Some("suspended"),
        Action::Sleep(Depth::Save) => Some("saved"),
        Action::Restore => Some("restored"),
        Action::Resume => Some("resumed"),
        Action::Release => Some("released"),
        Action::Forget => Some("forgotten"),
        _ => None,
    }
}

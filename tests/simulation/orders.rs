//! How the daemon performs what a guest's cycle orders, and learns that it is done: as in the product's
//! `daemon::orders`.

use surrogate::engine::{Command, Mode, Notice};
use surrogate::guest::lifecycle::{Action, Order, Report, State};
use surrogate::hypervisor::{Depth, Power};

use crate::daemon::{Daemon, Record, ThreadCommand};
use crate::steering::{Step, Then};
use crate::world::{Event, World};

impl Daemon {
    /// A NIC's part of the order under way is done.
    pub fn confirmed(&mut self, world: &mut World, guest: usize, nic: usize, notice: &Notice) {
        let Some((order, left)) = &mut self.cycles[guest].awaiting else { return };
        let epoch = match (order.action, *notice) {
            (Action::Watch, Notice::Watched { epoch, .. })
            | (Action::Barrier, Notice::BarrierPassed { epoch, .. })
            | (Action::Mode(Mode::Replay { released: false }), Notice::Drained { epoch, .. })
            | (Action::Mode(Mode::Replay { released: true }), Notice::Settled { epoch, .. }) => epoch,
            (Action::Mode(Mode::Replay { .. }), _) => return,
            (Action::Mode(wanted), Notice::ModeSet { epoch, mode, .. }) if mode == wanted => epoch,
            _ => return,
        };
        if epoch == order.epoch {
            left.retain(|n| *n != nic);
            if left.is_empty() {
                let ticket = order.ticket;
                self.done(world, guest, ticket, Ok(None));
            }
        }
    }

    /// Performs what the cycle orders, and listens to what it reports.
    pub fn settle(&mut self, world: &mut World, guest: usize) {
        loop {
            let mut turned = false;
            while let Some(report) = self.cycles[guest].lifecycle.poll_report() {
                world.say(|_| format!("guest {guest}: {report:?}"));
                let tally = &mut world.ledger.tally;
                turned |= matches!(report, Report::State(State::Settling | State::Waking));
                match report {
                    Report::State(State::Asleep) => tally.sleeps += 1,
                    Report::State(State::Awake) => tally.wakes += 1,
                    Report::State(State::Stranded) => tally.stranded += 1,
                    Report::Aborted(_) => tally.aborted += 1,
                    _ => {}
                }
            }
            let epoch = self.cycle(guest).epoch();
            if turned && epoch <= self.cycles[guest].turned {
                world.ledger.fail(format!("guest {guest}: another transition in {epoch:?}"));
            }
            if turned {
                self.cycles[guest].turned = epoch;
            }
            self.stand_in_anew(world, guest);
            let Some(order) = self.cycles[guest].lifecycle.poll_order() else { return };
            world.say(|_| format!("guest {guest}: order {} {:?}", order.ticket, order.action));
            self.check_order(world, guest, &order);
            if order.action == Action::Mode(Mode::Answer) {
                self.cycles[guest].voice = order.epoch;
            }
            self.cycles[guest].issued = Some((order, world.now));
            self.perform(world, guest, order);
        }
    }

    /// Has a sleeper's steps taken again that went with a port of ours, once it is a sleeper.
    fn stand_in_anew(&mut self, world: &mut World, guest: usize) {
        match self.cycle(guest).state() {
            _ if !self.cycles[guest].anew => {}
            State::Asleep | State::Stranded => {
                self.cycles[guest].anew = false;
                self.cycles[guest].lifecycle.handle_port_lost(world.now, &mut self.host);
            }
            State::Awake => self.cycles[guest].anew = false,
            State::Settling | State::Waking | State::Replaying => {}
        }
    }

    /// One order at a time: the one before is done, or was given up for a reason.
    fn check_order(&self, world: &mut World, guest: usize, order: &Order) {
        if let Some((before, since)) = &self.cycles[guest].issued {
            let given_up = match before.action {
                // Nothing was begun with it.
                Action::Watch => true,
                // A deadline that the lifecycle set itself.
                Action::Barrier => world.now.since(*since) >= surrogate::guest::lifecycle::BARRIER_TIMEOUT,
                Action::Sleep(Depth::Pause) => {
                    world.now.since(*since) >= surrogate::guest::lifecycle::PAUSE_TIMEOUT
                }
                Action::Sleep(Depth::Save) => {
                    world.now.since(*since) >= surrogate::guest::lifecycle::SAVE_TIMEOUT
                }
                Action::Restore | Action::Resume | Action::Inspect => {
                    world.now.since(*since) >= world.setup.wake_timeout
                }
                // A guest that stopped takes no more frames.
                Action::Mode(Mode::Replay { .. }) => true,
                _ => false,
            };
            if !given_up {
                let (before, order) = (before.action, order.action);
                world
                    .ledger
                    .fail(format!("guest {guest}: {order:?} is ordered while {before:?} is under way"));
            }
        }
        if order.action == Action::Resume && self.cycles[guest].lifecycle.facts().runs() {
            world.ledger.fail(format!("guest {guest} is resumed, though it is known to run"));
        }
    }

    fn perform(&mut self, world: &mut World, guest: usize, order: Order) {
        let incarnation = self.incarnation;
        let ticket = order.ticket;
        let mut step = |step: Step| {
            // Our port is looked up when the order is given.
            let result = if self.engine.is_some() { Ok(()) } else { Err("no surrogate port".to_owned()) };
            match result {
                Ok(()) => {
                    let wait = world.dice.micros(20, 600);
                    world.later(
                        wait,
                        Event::BridgeStep { incarnation, guest, ticket: Some(ticket), step, at: 0 },
                    );
                }
                Err(why) => world.soon(Event::Done { incarnation, guest, ticket, result: Err(why) }),
            }
        };
        match order.action {
            Action::Record(intent) => {
                let record =
                    Record { epoch: order.epoch, depth: self.cycles[guest].lifecycle.depth(), intent };
                let wait = world.dice.micros(50, 3_000);
                world.later(wait, Event::Recorded { incarnation, guest, ticket, record });
            }
            Action::Mode(Mode::Replay { released: false }) | Action::Barrier => {
                self.cycles[guest].awaiting = Some((order, world.guests[guest].nics.clone()));
                let wait = world.dice.micros(20, 500);
                world.later(wait, Event::Attached { incarnation, guest, ticket });
            }
            Action::Mode(_) => self.set_mode(world, guest, order),
            Action::Watch => self.watch(world, guest, order),
            Action::Steer => step(Step::Steer),
            Action::TakeFloods => step(Step::TakeFloods),
            Action::ReturnFloods => step(Step::ReturnFloods),
            Action::Port { enabled: false } => step(Step::Disable),
            Action::Port { enabled: true } => step(Step::Enable),
            Action::Release => step(Step::Release),
            Action::Forget => {
                for nic in world.guests[guest].nics.clone() {
                    self.post(world, ThreadCommand::Engine(Command::Unregister { nic: Self::nic_id(nic) }));
                    self.post(world, ThreadCommand::Detach { nic });
                    self.register(world, nic);
                }
                let wait = world.dice.micros(50, 2_000);
                world.later(wait, Event::Reconcile { incarnation, guest, then: Then::Done(ticket) });
            }
            Action::Sleep(_) | Action::Restore | Action::Resume if !world.hypervisor.connected => {
                world.soon(Event::Done { incarnation, guest, ticket, result: Err("not connected".into()) });
            }
            Action::Sleep(_) | Action::Restore | Action::Resume => {
                world.call(incarnation, guest, ticket, order.action);
            }
            Action::Inspect => world.look(guest, Some(ticket)),
        }
    }

    fn set_mode(&mut self, world: &mut World, guest: usize, order: Order) {
        let Action::Mode(mode) = order.action else { return };
        if self.engine.is_none() {
            // As in `lost`.
            let (incarnation, ticket) = (self.incarnation, order.ticket);
            let result = without_port(mode).map(|()| None);
            return world.soon(Event::Done { incarnation, guest, ticket, result });
        }
        let nics = world.guests[guest].nics.clone();
        self.cycles[guest].awaiting = Some((order, nics.clone()));
        for nic in nics {
            let command = Command::SetMode { nic: Self::nic_id(nic), epoch: order.epoch, mode };
            self.post(world, ThreadCommand::Engine(command));
        }
    }

    /// Done when each NIC has been observed for long enough; some are not, or have been for a while.
    fn watch(&mut self, world: &mut World, guest: usize, order: Order) {
        if self.engine.is_none() {
            let (incarnation, ticket) = (self.incarnation, order.ticket);
            return world.soon(Event::Done { incarnation, guest, ticket, result: Ok(None) });
        }
        let nics = world.guests[guest].nics.clone();
        self.cycles[guest].awaiting = Some((order, nics.clone()));
        for nic in nics {
            let watched = world.dice.chance(750).then(|| world.now - world.dice.micros(0, 1_000_000));
            let command = Command::Watch { nic: Self::nic_id(nic), epoch: order.epoch, watched };
            self.post(world, ThreadCommand::Engine(command));
        }
    }

    /// Our port is gone, with its engine: nobody there will confirm what the guest waits for. Where there is
    /// no port there is no voice, so a silent mode is in force; only to answer needs one.
    pub fn lost(&mut self, world: &mut World, guest: usize) {
        if self.cycle(guest).state() == State::Settling {
            // Nobody is left to hold for it: its sleep is aborted.
            let _ = self.cycles[guest].lifecycle.wake(world.now, &mut self.host);
        }
        if let Some((order, _)) = self.cycles[guest].awaiting.take() {
            let result = match order.action {
                Action::Mode(mode) => without_port(mode).map(|()| None),
                _ => Ok(None),
            };
            self.done(world, guest, order.ticket, result);
        }
        self.settle(world, guest);
    }

    /// The guest's ports were looked up; the order goes on.
    pub fn attached(&mut self, world: &mut World, guest: usize, ticket: u64) {
        let Some((order, _)) = &self.cycles[guest].awaiting else { return };
        let order = *order;
        if order.ticket != ticket {
            return;
        }
        for nic in world.guests[guest].nics.clone() {
            if let Some(device) = world.nics[nic].tap.as_ref().map(|tap| tap.device) {
                self.post(world, ThreadCommand::Attach { nic, device });
                self.post(world, ThreadCommand::Engine(Command::PortReady { nic: Self::nic_id(nic) }));
            }
        }
        if order.action == Action::Barrier {
            for nic in world.guests[guest].nics.clone() {
                let command = Command::Barrier { nic: Self::nic_id(nic), epoch: order.epoch };
                self.post(world, ThreadCommand::Engine(command));
            }
        } else {
            self.set_mode(world, guest, order);
        }
    }

    /// A guest's port is there. A frozen guest's, which had been disabled, is disabled again; deliveries that
    /// found none go on; a restored guest's is flooded to from the start, which until the guest runs only
    /// fills it.
    pub fn port_appeared(&mut self, world: &mut World, nic: usize) {
        let guest = world.nics[nic].guest;
        let Some(tap) = &world.nics[nic].tap else { return };
        let (device, enabled) = (tap.device, tap.enabled);
        if enabled && self.cycles[guest].lifecycle.facts().port_disabled {
            self.cycles[guest].lifecycle.handle_port_enabled(world.now, &mut self.host);
            return self.settle(world, guest);
        }
        if self.cycles[guest].awaiting.as_ref().is_some_and(|(order, _)| is_replay(order.action)) {
            self.post(world, ThreadCommand::Attach { nic, device });
            return self.post(world, ThreadCommand::Engine(Command::PortReady { nic: Self::nic_id(nic) }));
        }
        let facts = self.cycles[guest].lifecycle.facts();
        if facts.floods_taken && facts.power == Power::Saved {
            let wait = world.dice.micros(20, 600);
            let (incarnation, step) = (self.incarnation, Step::TakeFloods);
            world.later(wait, Event::BridgeStep { incarnation, guest, ticket: None, step, at: 0 });
        }
    }
}

fn without_port(mode: Mode) -> Result<(), String> {
    if mode == Mode::Answer { Err("there is no surrogate port".to_owned()) } else { Ok(()) }
}

const fn is_replay(action: Action) -> bool {
    matches!(action, Action::Mode(Mode::Replay { .. }))
}

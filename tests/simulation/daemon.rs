//! The daemon, as far as it is not pure: performs the lifecycle's orders, carries messages between control
//! side and packet thread, follows the hypervisor's events, and dies. The decisions are the product's own:
//! `Engine`, `Lifecycle` and `HostBudget` are the real ones.

use std::collections::VecDeque;

use surrogate::engine::{Command, Engine, Mode, Notice, spoof};
use surrogate::guest::identity::{Epoch, GuestId, NicId, PortId};
use surrogate::guest::lifecycle::{Intent, Lifecycle, Order, State};
use surrogate::hypervisor::{Depth, Power};
use surrogate::policy::budget::{HostBudget, WakeBudget};
use surrogate::rng::Rng;
use surrogate::time::Instant;
use surrogate_wire::Mac;

use crate::bridge::{OurPort, Port};
use crate::dice::Fault;
use crate::guest::is_asleep;
use crate::steering::Then;
use crate::world::{Event, MAX_NICS, World};

/// One life of the daemon.
#[derive(Debug)]
pub struct Daemon {
    pub incarnation: u32,
    /// The packet thread's engine, while we have a port.
    pub engine: Option<Engine>,
    pub rng: Rng,
    pub host: HostBudget,
    pub cycles: Vec<Cycle>,
    /// Posted to the packet thread.
    pub commands: VecDeque<ThreadCommand>,
    /// The device that deliveries for a NIC go to.
    pub attached: [Option<u32>; MAX_NICS],
    /// A command that will come again, by NIC.
    pub kept: [Option<(Epoch, Mode)>; MAX_NICS],
    /// What the engine was told and heard last.
    pub voices: [Voice; MAX_NICS],
    /// The engine said that all is delivered, in the replay that goes on.
    pub drained: [bool; MAX_NICS],
    /// Notices arrive in order.
    pub noticed_until: Instant,
    pub notices_under_way: u32,
}

/// Whether the engine may speak for a NIC.
#[derive(Clone, Copy, Debug, Default)]
pub struct Voice {
    pub may_speak: bool,
    pub epoch: Epoch,
    /// A frame in the guest's own name came since it was told to speak.
    pub heard: bool,
    /// None need silence it before.
    pub deaf_until: Instant,
}

impl Voice {
    /// A mode was commanded. To answer again after a frame in the guest's name says that this one lied.
    pub fn commanded(&mut self, now: Instant, epoch: Epoch, mode: Mode) {
        self.may_speak = mode == Mode::Answer;
        if epoch > self.epoch {
            self.heard = false;
            self.deaf_until = now;
        } else if self.may_speak && self.heard {
            self.heard = false;
            self.deaf_until = now + spoof::LONGEST;
        }
        self.epoch = epoch;
    }
}

/// What the control side keeps of one guest.
#[derive(Debug)]
pub struct Cycle {
    pub lifecycle: Lifecycle,
    /// Its power is known.
    known: bool,
    rested: bool,
    /// Our port was lost since it was last seen to sleep.
    pub anew: bool,
    /// The epoch of the transition that was reported last.
    pub turned: Epoch,
    /// The epoch in which the engine was last ordered to answer: what it hears while it does is of that one.
    pub voice: Epoch,
    /// Tickets of orders that were done.
    finished: Vec<u64>,
    /// An order that NICs have to confirm, and those that have not.
    pub awaiting: Option<(Order, Vec<usize>)>,
    /// The last order, until it is done.
    pub issued: Option<(Order, Instant)>,
}

/// From the control side to the packet thread.
#[derive(Debug)]
pub enum ThreadCommand {
    Engine(Command),
    Attach { nic: usize, device: u32 },
    Detach { nic: usize },
}

/// What is stored, and survives the daemon.
#[derive(Clone, Copy, Debug)]
pub struct Record {
    pub epoch: Epoch,
    pub depth: Depth,
    pub intent: Intent,
}

impl Daemon {
    pub const fn nic_id(nic: usize) -> NicId {
        NicId(nic as u32 + 1)
    }

    pub fn cycle(&self, guest: usize) -> &Lifecycle {
        &self.cycles[guest].lifecycle
    }

    pub fn may_speak(&self, nic: usize) -> bool {
        self.voices[nic].may_speak
    }

    pub fn is_drained(&self, nic: usize) -> bool {
        self.drained[nic]
    }

    pub fn mode(&self, nic: usize) -> Option<Mode> {
        self.engine.as_ref()?.mode(Self::nic_id(nic))
    }

    /// The guest's cycle came to rest once, with the port that we have: what was found then is in order.
    pub fn has_rested(&self, guest: usize) -> bool {
        self.cycles[guest].rested
    }

    pub fn rests(&mut self, guest: usize) {
        self.cycles[guest].rested = true;
    }

    /// Nothing of the guest is under way that we know of.
    pub fn is_at_rest(&self, guest: usize) -> bool {
        let cycle = &self.cycles[guest];
        cycle.known
            && cycle.issued.is_none()
            && cycle.lifecycle.poll_timeout().is_none()
            && self.commands.is_empty()
            && self.notices_under_way == 0
            && self.engine.is_some()
    }

    /// When the control side has something to do, for which guest.
    pub fn cycle_due(&self) -> Option<(Instant, usize)> {
        let due = |(guest, cycle): (usize, &Cycle)| Some((cycle.lifecycle.poll_timeout()?, guest));
        self.cycles.iter().enumerate().filter_map(due).min()
    }

    /// Posts a command; without a thread there is nobody to take it.
    pub fn post(&mut self, world: &mut World, command: ThreadCommand) {
        if self.engine.is_some() {
            self.commands.push_back(command);
            world.wake_thread();
        }
    }

    pub fn register(&mut self, world: &mut World, nic: usize) {
        let identity =
            world.setup.identity(GuestId(world.nics[nic].guest as u32), nic, &world.nics[nic].station);
        self.post(world, ThreadCommand::Engine(Command::Register(Box::new(identity))));
    }

    pub fn set_reachable(&mut self, world: &mut World, reachable: bool) {
        for guest in 0..self.cycles.len() {
            self.cycles[guest].lifecycle.set_reachable(world.now, reachable, &mut self.host);
            self.settle(world, guest);
        }
    }

    pub fn cycle_timeout(&mut self, world: &mut World, guest: usize) {
        self.cycles[guest].lifecycle.handle_timeout(world.now, &mut self.host);
        self.settle(world, guest);
    }

    pub fn told(&mut self, world: &mut World, guest: usize, power: Power) {
        if self.cycles[guest].known {
            self.cycles[guest].lifecycle.handle_event(world.now, power, &mut self.host);
            self.settle(world, guest);
        }
        if power == Power::Running || !self.cycles[guest].known {
            world.look(guest, None);
        }
    }

    /// A report of the hypervisor's that nobody ordered.
    pub fn learn(&mut self, world: &mut World, guest: usize, power: Power) {
        let cycle = &mut self.cycles[guest];
        if cycle.known {
            cycle.lifecycle.handle_event(world.now, power, &mut self.host);
            return self.settle(world, guest);
        }
        if is_asleep(power) || !world.has_changes(guest) {
            return self.first_word(world, guest, power);
        }
        // It runs, is gone, or is busy: what a daemon before us changed is put back first.
        let wait = world.dice.micros(50, 2_000);
        let incarnation = self.incarnation;
        world.later(wait, Event::Reconcile { incarnation, guest, then: Then::FirstWord(power) });
    }

    pub fn first_word(&mut self, world: &mut World, guest: usize, power: Power) {
        self.cycles[guest].known = true;
        self.cycles[guest].lifecycle.handle_inspected(world.now, power, &mut self.host);
        self.settle(world, guest);
    }

    pub fn done(
        &mut self,
        world: &mut World,
        guest: usize,
        ticket: u64,
        result: Result<Option<Power>, String>,
    ) {
        let cycle = &mut self.cycles[guest];
        if cycle.finished.contains(&ticket) {
            return self.changes_no_cycle(world, guest, |cycle, now, host| {
                cycle.handle_done(now, ticket, result.map(|_| ()), host);
            });
        }
        cycle.finished.push(ticket);
        cycle.awaiting.take_if(|(order, _)| order.ticket == ticket);
        cycle.issued.take_if(|(order, _)| order.ticket == ticket);
        let result = result.map(|power| {
            if let Some(power) = power {
                cycle.lifecycle.handle_inspected(world.now, power, &mut self.host);
            }
        });
        cycle.lifecycle.handle_done(world.now, ticket, result, &mut self.host);
        self.settle(world, guest);
    }

    /// An operator's command, or the idleness rule's.
    pub fn operate(&mut self, world: &mut World, guest: usize, sleep: bool) {
        let depth = world.guests[guest].depth;
        let cycle = &mut self.cycles[guest];
        if !cycle.known {
            return;
        }
        let begun = if sleep {
            cycle.lifecycle.sleep(world.now, depth, &mut self.host)
        } else {
            cycle.lifecycle.wake(world.now, &mut self.host)
        };
        world.say(|_| format!("operator: guest {guest} {}: {begun:?}", if sleep { "sleep" } else { "wake" }));
        self.settle(world, guest);
    }

    /// Has a cycle take what is of an epoch that is over, or was done with.
    fn changes_no_cycle(
        &mut self,
        world: &mut World,
        guest: usize,
        take: impl FnOnce(&mut Lifecycle, Instant, &mut HostBudget),
    ) {
        let cycle = &mut self.cycles[guest].lifecycle;
        let before = format!("{cycle:?}");
        take(cycle, world.now, &mut self.host);
        let after = format!("{cycle:?}");
        if before != after {
            world.ledger.fail(format!("guest {guest}: an old message changed its cycle:\n{before}\n{after}"));
        }
    }

    /// A notice comes again. Of the present epoch only that may be repeated which tells of something, not that
    /// an order is done: the queue between thread and control side repeats nothing.
    pub fn notice_again(&mut self, world: &mut World, notice: Notice) {
        let guest = world.nics[notice.nic().0 as usize - 1].guest;
        let over = epoch_of(&notice) < self.cycle(guest).epoch();
        if over || matches!(notice, Notice::Wake { .. } | Notice::GuestSpoke { .. } | Notice::Conflict { .. })
        {
            self.take_notice(world, notice);
        }
    }

    pub fn notice(&mut self, world: &mut World, notice: Notice) {
        self.notices_under_way -= 1;
        self.take_notice(world, notice);
    }

    fn take_notice(&mut self, world: &mut World, notice: Notice) {
        let nic = notice.nic().0 as usize - 1;
        let guest = world.nics[nic].guest;
        let (now, voice, lifecycle) =
            (world.now, self.cycles[guest].voice, &mut self.cycles[guest].lifecycle);
        match notice {
            Notice::Wake { epoch, reason, .. } if epoch < lifecycle.epoch() => {
                return self.changes_no_cycle(world, guest, |cycle, now, host| {
                    cycle.handle_frame(now, epoch, reason, host);
                });
            }
            Notice::GuestSpoke { epoch, .. } if epoch != voice => {
                return self.changes_no_cycle(world, guest, |cycle, now, host| {
                    cycle.handle_guest_spoke(now, epoch, host);
                });
            }
            Notice::Wake { epoch, reason, .. } => {
                lifecycle.handle_frame(now, epoch, reason, &mut self.host);
            }
            Notice::GuestSpoke { epoch, .. } => lifecycle.handle_guest_spoke(now, epoch, &mut self.host),
            Notice::Conflict { .. }
            | Notice::Spoofed { .. }
            | Notice::LeaseChanged { .. }
            | Notice::Renewed { .. }
            | Notice::Expired { .. } => {}
            Notice::Watched { .. }
            | Notice::BarrierPassed { .. }
            | Notice::ModeSet { .. }
            | Notice::Drained { .. }
            | Notice::Settled { .. } => self.confirmed(world, guest, nic, &notice),
        }
        self.settle(world, guest);
    }

    /// Our port on the bridge is there again, after a while.
    pub fn port_back(&mut self, world: &mut World) {
        self.open_port(world);
        for guest in 0..world.guests.len() {
            self.cycles[guest].rested = false;
            self.cycles[guest].anew = true;
            if self.cycle(guest).state() == State::Settling {
                self.cycles[guest].lifecycle.handle_port_lost(world.now, &mut self.host);
            }
            self.settle(world, guest);
            world.look(guest, None);
        }
    }

    fn open_port(&mut self, world: &mut World) {
        let seed = world.dice.0.next_u64();
        self.engine = Some(Engine::new(world.setup.limits.clone(), SERVICE, seed));
        self.commands.clear();
        self.kept = [None; MAX_NICS];
        self.voices = Default::default();
        self.drained = [false; MAX_NICS];
        self.attached = [None; MAX_NICS];
        world.bridge.ours = Some(OurPort::default());
        world.bridge.replace(SERVICE, Port::Surrogate, true);
        for nic in 0..world.nics.len() {
            self.register(world, nic);
        }
    }
}

impl World {
    /// Starts a daemon, which reads what was recorded and asks for all guests.
    pub fn start_daemon(&mut self) {
        self.incarnation += 1;
        let now = self.now;
        let cycle = |record: &Option<Record>| {
            let epoch = record.map_or(Epoch(0), |record| record.epoch);
            (epoch, *record)
        };
        let records: Vec<_> = self.journal.records.iter().map(cycle).collect();
        let cycles = records
            .into_iter()
            .enumerate()
            .map(|(guest, (epoch, record))| {
                let mut lifecycle = Lifecycle::new(self.setup.policy(self.guests[guest].frozen), epoch, now);
                if let Some(record) = record {
                    lifecycle.recall(record.intent, record.depth);
                }
                Cycle {
                    lifecycle,
                    known: false,
                    rested: false,
                    anew: false,
                    turned: epoch,
                    voice: epoch,
                    finished: Vec::new(),
                    awaiting: None,
                    issued: None,
                }
            })
            .collect();
        let mut daemon = Daemon {
            incarnation: self.incarnation,
            engine: None,
            rng: Rng::seeded(self.dice.0.next_u64()),
            host: HostBudget::new(WakeBudget { burst: 100, per_minute: 600 }, 2, now),
            cycles,
            commands: VecDeque::new(),
            attached: [None; MAX_NICS],
            kept: [None; MAX_NICS],
            voices: Default::default(),
            drained: [false; MAX_NICS],
            noticed_until: now,
            notices_under_way: 0,
        };
        self.say(|_| "the daemon starts".to_owned());
        daemon.open_port(self);
        self.daemon = Some(daemon);
        self.hypervisor.connected = true;
        self.list();
    }

    /// Asks for all guests, after the connection came up.
    pub fn list(&mut self) {
        for guest in 0..self.guests.len() {
            self.look(guest, None);
        }
    }

    /// Kills the daemon. Its port vanishes with the entries, and with what it held.
    pub fn crash(&mut self) {
        let Some(daemon) = self.daemon.take() else { return };
        self.say(|_| "the daemon is killed".to_owned());
        self.lose_port(&daemon);
        self.hypervisor.connected = false;
        let wait = self.dice.micros(5_000, 2_000_000);
        self.later(wait, Event::Start);
    }

    /// Our port vanishes, somebody deleted it; the daemon makes a new one a while later.
    pub fn port_lost(&mut self) {
        let Some(mut daemon) = self.daemon.take() else { return };
        if daemon.engine.is_some() {
            self.say(|_| "our port is lost".to_owned());
            self.lose_port(&daemon);
            daemon.engine = None;
            daemon.commands.clear();
            for guest in 0..self.guests.len() {
                daemon.lost(self, guest);
            }
            let wait = self.dice.micros(1_000_000, 1_500_000);
            self.later(wait, Event::PortBack { incarnation: daemon.incarnation });
        }
        self.daemon = Some(daemon);
    }

    fn lose_port(&mut self, daemon: &Daemon) {
        let held = |nic| {
            let counters = daemon.engine.as_ref()?.counters(Daemon::nic_id(nic))?;
            Some(counters.holding)
        };
        let held = (0..self.nics.len()).filter_map(held).sum();
        self.ledger.engine_lost(held);
        self.bridge.ours = None;
        self.bridge.remove_port(Port::Surrogate);
    }

    /// Looks at a guest: for the order with this ticket, or for a reason of the daemon's own.
    pub fn look(&mut self, guest: usize, ticket: Option<u64>) {
        let incarnation = self.incarnation;
        if !self.hypervisor.connected {
            if let Some(ticket) = ticket {
                let result = Err("not connected".to_owned());
                self.soon(Event::Done { incarnation, guest, ticket, result });
            }
            return;
        }
        if let Some(ticket) = ticket
            && self.strikes(Fault::LookFails)
        {
            let result = Err("made to fail".to_owned());
            return self.soon(Event::Done { incarnation, guest, ticket, result });
        }
        self.guests[guest].domain.looks_under_way += 1;
        match self.look_takes() {
            Some((until_read, until_told)) => {
                self.later(until_read, Event::Looks { incarnation, guest, ticket, until_told });
            }
            // It hangs until there is no more trouble.
            None => self.looks_hung.push(Event::Looks {
                incarnation,
                guest,
                ticket,
                until_told: self.dice.micros(50, 3_000),
            }),
        }
    }
}

const fn epoch_of(notice: &Notice) -> Epoch {
    match notice {
        Notice::Wake { epoch, .. }
        | Notice::Watched { epoch, .. }
        | Notice::BarrierPassed { epoch, .. }
        | Notice::ModeSet { epoch, .. }
        | Notice::Drained { epoch, .. }
        | Notice::Settled { epoch, .. }
        | Notice::GuestSpoke { epoch, .. }
        | Notice::Spoofed { epoch, .. }
        | Notice::Conflict { epoch, .. }
        | Notice::LeaseChanged { epoch, .. }
        | Notice::Renewed { epoch, .. }
        | Notice::Expired { epoch, .. } => *epoch,
    }
}

/// Our port's name towards the engine.
pub const PORT: PortId = PortId(0);
/// Source of the barrier's question.
pub const SERVICE: Mac = Mac([2, 0, 0, 0, 0, 0xfe]);

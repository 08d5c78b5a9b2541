//! The world: its clock, what is going to happen, and everybody in it.
//!
//! One thing happens at a time, in virtual time; what it leads to happens later. All chance is the seed's,
//! so a seed is a history, and the same history every time.

use core::time::Duration;
use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};

use surrogate::engine::Notice;
use surrogate::guest::lifecycle::WakePolicy;
use surrogate::hypervisor::{Depth, Power};
use surrogate::time::Instant;

use crate::bridge::{Bridge, Port};
use crate::client::Client;
use crate::daemon::{Daemon, Record};
use crate::dice::{Dice, Fault, Faults};
use crate::frames::{Frame, Station};
use crate::guest::{Guest, Nic, is_asleep};
use crate::hypervisor::{Domain, Hand, Hypervisor};
use crate::ledger::Ledger;
use crate::setup::Setup;
use crate::steering::{Journal, Step, Then};
use crate::tally::Tally;

/// NICs in the world, at most.
pub const MAX_NICS: usize = 4;

/// Everything.
#[derive(Debug)]
pub struct World {
    pub now: Instant,
    pub dice: Dice,
    pub setup: Setup,
    pub faults: Faults,
    /// Trouble and traffic are over.
    pub calm: bool,
    pub bridge: Bridge,
    pub clients: Vec<Client>,
    pub guests: Vec<Guest>,
    pub nics: Vec<Nic>,
    pub hypervisor: Hypervisor,
    /// Looks that hang.
    pub looks_hung: Vec<Event>,
    pub daemon: Option<Daemon>,
    pub incarnation: u32,
    pub journal: Journal,
    pub ledger: Ledger,
    /// When the packet thread has something to do.
    pub thread_at: Option<Instant>,
    future: BinaryHeap<Reverse<Due>>,
    scheduled: u64,
    steps: u64,
    hash: u64,
    story: Option<VecDeque<String>>,
}

/// What can happen.
#[derive(Clone, Debug)]
pub enum Event {
    // On the network.
    Arrives(Port, Frame),
    ClientActs(usize),
    Knocks(usize),
    GuestReads(usize),
    GuestSpeaks(usize),
    // In the daemon; each knows which life of it is meant.
    Notice { incarnation: u32, notice: Notice },
    NoticeAgain { incarnation: u32, notice: Notice },
    Done { incarnation: u32, guest: usize, ticket: u64, result: Result<Option<Power>, String> },
    Recorded { incarnation: u32, guest: usize, ticket: u64, record: Record },
    BridgeStep { incarnation: u32, guest: usize, ticket: Option<u64>, step: Step, at: usize },
    Attached { incarnation: u32, guest: usize, ticket: u64 },
    Reconcile { incarnation: u32, guest: usize, then: Then },
    FirstWord { incarnation: u32, guest: usize, power: Power },
    PortAppeared { incarnation: u32, nic: usize },
    PortBack { incarnation: u32 },
    // At the hypervisor.
    CallActs(u64),
    CallEnds(u64),
    CallReturns(u64),
    Looks { incarnation: u32, guest: usize, ticket: Option<u64>, until_told: Duration },
    Looked { incarnation: u32, guest: usize, ticket: Option<u64>, power: Power },
    Told { incarnation: u32, guest: usize, power: Power },
    DiskFails(usize),
    JobEnds(usize),
    Connected { incarnation: u32 },
    // People, and fate.
    Operator,
    Stranger,
    Fate,
    Start,
}

#[derive(Debug)]
struct Due {
    at: Instant,
    /// What was planned first happens first.
    order: u64,
    event: Event,
}

impl PartialEq for Due {
    fn eq(&self, other: &Self) -> bool {
        self.order == other.order
    }
}

impl Eq for Due {}

impl PartialOrd for Due {
    fn partial_cmp(&self, other: &Self) -> Option<core::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Due {
    fn cmp(&self, other: &Self) -> core::cmp::Ordering {
        (self.at, self.order).cmp(&(other.at, other.order))
    }
}

/// What became of a seed.
#[derive(Debug)]
pub struct Outcome {
    /// Of the whole history.
    pub hash: u64,
    pub steps: u64,
    pub tally: Tally,
    /// What went wrong, with the end of the story if it was written down.
    pub violation: Option<(String, Vec<String>)>,
}

impl World {
    /// A world in which nothing has happened yet.
    fn new(seed: u64, tells: bool) -> Self {
        let mut dice = Dice::seeded(seed);
        let setup = Setup::drawn(&mut dice);
        let faults = Faults::drawn(&mut dice);
        let mut world = Self {
            now: Instant::ZERO,
            setup,
            faults,
            calm: false,
            bridge: Bridge::default(),
            clients: vec![Client::new(Station::numbered(1)), Client::new(Station::numbered(2))],
            guests: Vec::new(),
            nics: Vec::new(),
            hypervisor: Hypervisor::default(),
            looks_hung: Vec::new(),
            daemon: None,
            incarnation: 0,
            journal: Journal::default(),
            ledger: Ledger::default(),
            thread_at: None,
            future: BinaryHeap::new(),
            scheduled: 0,
            steps: 0,
            hash: 0xcbf2_9ce4_8422_2325,
            story: tells.then(VecDeque::new),
            dice,
        };
        world.populate();
        world
    }

    /// One guest that is paused, one that is saved, and perhaps one with two NICs, perhaps frozen.
    fn populate(&mut self) {
        let mut depths = vec![(Depth::Pause, 1), (Depth::Save, 1)];
        if self.dice.chance(700) {
            depths.push((self.dice.one_of(&[Depth::Pause, Depth::Save]), 2));
        }
        for (guest, (depth, nics)) in depths.into_iter().enumerate() {
            let first = self.nics.len();
            for nic in first..first + nics {
                self.nics.push(Nic::new(guest, Station::numbered(11 + nic as u8)));
            }
            let frozen = depth == Depth::Pause && self.dice.chance(300);
            let nics = (first..self.nics.len()).collect();
            self.guests.push(Guest { nics, depth, frozen, domain: Domain::running() });
            self.journal.records.push(None);
            self.soon(Event::GuestSpeaks(guest));
        }
        for client in 0..self.clients.len() {
            self.soon(Event::ClientActs(client));
        }
        for nic in 0..self.nics.len() {
            self.guest_announces(nic);
        }
        self.start_daemon();
        for event in [Event::Operator, Event::Stranger, Event::Fate] {
            let wait = self.dice.around(self.setup.people_gap);
            self.later(wait, event);
        }
    }

    /// A seed's history: `steps` steps of trouble, then calm until everybody is awake, or something is wrong.
    pub fn history(seed: u64, steps: u64, tells: bool) -> Outcome {
        let mut world = Self::new(seed, tells);
        while world.steps < steps && world.goes_well() {
            world.step();
        }
        if world.goes_well() {
            world.calm_down();
        }
        Outcome {
            hash: world.hash,
            steps: world.steps,
            tally: world.ledger.tally,
            violation: world
                .ledger
                .violation()
                .map(|why| (why.to_owned(), world.story.iter().flatten().cloned().collect())),
        }
    }

    /// Whether this goes wrong now.
    pub fn strikes(&mut self, fault: Fault) -> bool {
        let strikes = self.dice.chance(self.faults.of(fault));
        self.ledger.tally.faults[fault as usize] += u64::from(strikes);
        strikes
    }

    fn goes_well(&self) -> bool {
        self.ledger.violation().is_none()
    }

    /// No more trouble. What waits for a guest that traffic may wake must wake it; then an operator wakes
    /// the others; in the end everybody is awake and has what was held.
    fn calm_down(&mut self) {
        self.calm = true;
        self.faults = Faults::default();
        self.say(|_| "trouble is over".to_owned());
        self.loosen(true);
        for look in std::mem::take(&mut self.looks_hung) {
            self.soon(look);
        }
        if !self.hypervisor.connected && self.daemon.is_some() {
            self.soon(Event::Connected { incarnation: self.incarnation });
        }
        self.pass(Duration::from_secs(40));
        for guest in 0..self.guests.len() {
            self.mend(guest);
        }
        let asleep_by_us: Vec<usize> = (0..self.guests.len())
            .filter(|guest| {
                let domain = &self.guests[*guest].domain;
                is_asleep(domain.power) && domain.stopped_by == Hand::Ours
            })
            .collect();
        for second in 0..70 {
            for guest in 0..self.guests.len() {
                let nic = self.guests[guest].nics[0];
                self.later(Duration::from_secs(second * 2), Event::Knocks(nic));
            }
        }
        self.pass(Duration::from_secs(150));
        if self.setup.wake != WakePolicy::Never {
            for guest in asleep_by_us {
                if self.guests[guest].domain.power != Power::Running {
                    self.ledger.fail(format!(
                        "we put guest {guest} to sleep, and traffic does not wake it: {:?}",
                        self.daemon.as_ref().map(|daemon| daemon.cycle(guest))
                    ));
                }
            }
        }
        for guest in 0..self.guests.len() {
            self.with_daemon(self.incarnation, |daemon, world| daemon.operate(world, guest, false));
        }
        self.pass(Duration::from_secs(150));
        for guest in 0..self.guests.len() {
            self.check_end(guest);
        }
    }

    fn pass(&mut self, time: Duration) {
        let until = self.now + time;
        let steps = self.steps + 100_000;
        while self.goes_well() && self.next_at().is_some_and(|at| at <= until) {
            self.step();
            if self.steps > steps {
                self.ledger.fail("it never becomes quiet".to_owned());
            }
        }
        self.now = self.now.max(until);
    }

    /// Plans `event` for now.
    pub fn soon(&mut self, event: Event) {
        self.at(self.now, event);
    }

    /// Plans `event` for a while later.
    pub fn later(&mut self, wait: Duration, event: Event) {
        self.at(self.now + wait, event);
    }

    pub fn at(&mut self, at: Instant, event: Event) {
        self.scheduled += 1;
        self.future.push(Reverse(Due { at, order: self.scheduled, event }));
    }

    /// Writes a line of the story, if somebody wants to read it.
    pub fn say(&mut self, line: impl FnOnce(&Self) -> String) {
        if self.story.is_none() {
            return;
        }
        let line = format!("{:>12.3} ms  {}", self.now.as_nanos() as f64 / 1e6, line(self));
        if let Some(story) = &mut self.story {
            if story.len() >= REMEMBERED {
                story.pop_front();
            }
            story.push_back(line);
        }
    }

    fn next_at(&self) -> Option<Instant> {
        let planned = self.future.peek().map(|due| due.0.at);
        let cycle = self.daemon.as_ref().and_then(Daemon::cycle_due).map(|(at, _)| at);
        [planned, cycle, self.thread_due()].into_iter().flatten().min()
    }

    /// Lets the next thing happen, and checks everything.
    fn step(&mut self) {
        let Some(at) = self.next_at() else { return self.steps += 1 };
        self.now = self.now.max(at);
        self.steps += 1;
        if self.thread_due() == Some(at) {
            self.note(1);
            self.with_daemon(self.incarnation, Daemon::round);
        } else if let Some((due, guest)) = self.daemon.as_ref().and_then(Daemon::cycle_due)
            && due == at
        {
            self.note(2);
            self.with_daemon(self.incarnation, |daemon, world| daemon.cycle_timeout(world, guest));
        } else if let Some(Reverse(due)) = self.future.pop() {
            self.note(3 + due.order);
            self.happens(due.event);
        }
        self.check();
    }

    /// Adds to the hash of the history.
    fn note(&mut self, what: u64) {
        let tally = &self.ledger.tally;
        for word in [self.now.as_nanos(), what, tally.held, tally.delivered, tally.answers, tally.wakes] {
            self.hash = (self.hash ^ word).wrapping_mul(0x0100_0000_01b3);
        }
    }

    pub fn happens(&mut self, event: Event) {
        match event {
            Event::Arrives(port, frame) => self.forward(port, &frame),
            Event::ClientActs(client) => self.client_acts(client),
            Event::Knocks(nic) => self.knocks(nic),
            Event::GuestReads(nic) => self.guest_reads(nic),
            Event::GuestSpeaks(guest) => self.guest_speaks(guest),
            Event::Notice { incarnation, notice } => {
                if self.strikes(Fault::MessageAgain) {
                    let wait = self.dice.micros(1_000, 300_000);
                    self.later(wait, Event::NoticeAgain { incarnation, notice });
                }
                self.with_daemon(incarnation, |daemon, world| daemon.notice(world, notice));
            }
            Event::NoticeAgain { incarnation, notice } => {
                self.with_daemon(incarnation, |daemon, world| daemon.notice_again(world, notice));
            }
            Event::Done { incarnation, guest, ticket, result } => {
                // What was found is told each time.
                if !matches!(result, Ok(Some(_))) && self.strikes(Fault::MessageAgain) {
                    let wait = self.dice.micros(1_000, 300_000);
                    let result = result.clone();
                    self.later(wait, Event::Done { incarnation, guest, ticket, result });
                }
                self.say(|_| format!("guest {guest}: order {ticket} is done: {result:?}"));
                self.with_daemon(incarnation, |daemon, world| daemon.done(world, guest, ticket, result));
            }
            Event::Recorded { incarnation, guest, ticket, record } => {
                if incarnation == self.incarnation && self.daemon.is_some() {
                    let fails = self.strikes(Fault::RecordFails);
                    let result = if fails { Err("made to fail".to_owned()) } else { Ok(None) };
                    if !fails {
                        self.journal.records[guest] = Some(record);
                    }
                    self.happens(Event::Done { incarnation, guest, ticket, result });
                }
            }
            Event::BridgeStep { incarnation, guest, ticket, step, at } => {
                if self.lives(incarnation) {
                    self.bridge_step(incarnation, guest, ticket, step, at);
                }
            }
            Event::Attached { incarnation, guest, ticket } => {
                self.with_daemon(incarnation, |daemon, world| daemon.attached(world, guest, ticket));
            }
            Event::Reconcile { incarnation, guest, then } => {
                if self.lives(incarnation) {
                    self.reconcile(incarnation, guest, then);
                }
            }
            Event::FirstWord { incarnation, guest, power } => {
                self.with_daemon(incarnation, |daemon, world| daemon.first_word(world, guest, power));
            }
            Event::PortAppeared { incarnation, nic } => {
                let guest = self.nics[nic].guest;
                self.guests[guest].domain.ports_under_way -= 1;
                self.with_daemon(incarnation, |daemon, world| daemon.port_appeared(world, nic));
            }
            Event::PortBack { incarnation } => {
                self.say(|_| "our port is there again".to_owned());
                self.with_daemon(incarnation, Daemon::port_back);
            }
            Event::CallActs(id) => self.call_acts(id),
            Event::CallEnds(id) => self.call_ends(id),
            Event::CallReturns(id) => self.call_returns(id),
            Event::Looks { incarnation, guest, ticket, until_told } => {
                let power = self.guests[guest].domain.power;
                self.later(until_told, Event::Looked { incarnation, guest, ticket, power });
            }
            Event::Looked { incarnation, guest, ticket, power } => {
                self.guests[guest].domain.looks_under_way -= 1;
                self.say(|_| format!("guest {guest}: was looked at (order {ticket:?}): {power:?}"));
                self.with_daemon(incarnation, |daemon, world| match ticket {
                    Some(ticket) => daemon.done(world, guest, ticket, Ok(Some(power))),
                    None => daemon.learn(world, guest, power),
                });
            }
            Event::Told { incarnation, guest, power } => {
                self.say(|_| format!("guest {guest}: event {power:?}"));
                self.guests[guest].domain.events_under_way -= 1;
                self.with_daemon(incarnation, |daemon, world| daemon.told(world, guest, power));
            }
            Event::DiskFails(guest) => self.disk_fails(guest),
            Event::JobEnds(guest) => self.job_ends(guest),
            Event::Connected { incarnation } => {
                if self.lives(incarnation) {
                    self.say(|_| "connected to the hypervisor again".to_owned());
                    self.hypervisor.connected = true;
                    self.with_daemon(incarnation, |daemon, world| daemon.set_reachable(world, true));
                    self.list();
                }
            }
            Event::Operator => self.operator_acts(),
            Event::Stranger => self.somebody_acts(),
            Event::Fate => self.fate_strikes(),
            Event::Start => self.start_daemon(),
        }
    }

    fn operator_acts(&mut self) {
        if self.calm {
            return;
        }
        let wait = self.dice.around(self.setup.people_gap / 2);
        self.later(wait, Event::Operator);
        let guest = self.dice.below(self.guests.len() as u64) as usize;
        let sleep = self.dice.chance(850);
        self.with_daemon(self.incarnation, |daemon, world| daemon.operate(world, guest, sleep));
    }

    fn somebody_acts(&mut self) {
        if self.calm {
            return;
        }
        let wait = self.dice.around(self.setup.people_gap);
        self.later(wait, Event::Stranger);
        if self.strikes(Fault::Stranger) {
            let guest = self.dice.below(self.guests.len() as u64) as usize;
            self.stranger_acts(guest);
        }
    }

    fn fate_strikes(&mut self) {
        if self.calm {
            return;
        }
        let wait = self.dice.around(self.setup.people_gap);
        self.later(wait, Event::Fate);
        self.loosen(false);
        if self.strikes(Fault::Crash) {
            self.crash();
        }
        if self.daemon.is_some() && self.strikes(Fault::PortLost) {
            self.port_lost();
        }
        if self.hypervisor.connected && self.strikes(Fault::Disconnect) {
            self.say(|_| "the connection to the hypervisor is lost".to_owned());
            self.hypervisor.connected = false;
            self.with_daemon(self.incarnation, |daemon, world| daemon.set_reachable(world, false));
            let wait = self.dice.micros(1_000, 3_000_000);
            self.later(wait, Event::Connected { incarnation: self.incarnation });
        }
    }

    fn lives(&self, incarnation: u32) -> bool {
        self.daemon.as_ref().is_some_and(|daemon| daemon.incarnation == incarnation)
    }

    /// Lets the daemon do something, if it still lives in that incarnation.
    fn with_daemon(&mut self, incarnation: u32, act: impl FnOnce(&mut Daemon, &mut Self)) {
        if let Some(mut daemon) = self.daemon.take_if(|daemon| daemon.incarnation == incarnation) {
            act(&mut daemon, self);
            self.daemon = Some(daemon);
        }
    }
}

/// Lines of the story that are kept.
const REMEMBERED: usize = 400;

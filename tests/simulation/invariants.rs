//! What must hold, whatever happens. What is known of each frame is in `ledger`.
//!
//! Checked as it happens: each frame reaches a guest at most once, unchanged, in the order of its flow, and
//! only what the engine took is given to a guest; nobody speaks for a guest that runs; each verdict is
//! counted once, and a frame is dropped only for a reason that it gives; a message of an epoch that is over
//! changes nothing. Checked after each step: the engine's own sums agree with what was seen, a cycle at rest
//! has left the bridge as it should be, and no place among the concurrent wakes is lost. Checked at the end:
//! everybody woke up and has what was held.

use surrogate::engine::{Counters, DropReason, Engine, Mode, Verdict};
use surrogate::guest::lifecycle::State;
use surrogate::hypervisor::Power;
use surrogate::policy::traffic::ClosedPorts;
use surrogate_wire::{Frame as Ethernet, Packet, Received};

use crate::bridge::Port;
use crate::daemon::Daemon;
use crate::frames::Frame;
use crate::hypervisor::Hand;
use crate::ledger::Kind;
use crate::world::{MAX_NICS, World};

/// An engine's counters and modes at one moment, by NIC.
#[derive(Debug, Default)]
pub struct Before {
    counters: [Option<Counters>; MAX_NICS],
    modes: [Option<Mode>; MAX_NICS],
}

impl Before {
    pub fn of(engine: &Engine, nics: usize) -> Self {
        let mut before = Self::default();
        for nic in 0..nics {
            before.counters[nic] = engine.counters(Daemon::nic_id(nic)).cloned();
            before.modes[nic] = engine.mode(Daemon::nic_id(nic));
        }
        before
    }
}

/// Concerned, answered, absorbed, held and dropped on arrival, then reclassified.
type Sums = [u64; 6];

fn sums(of: &Counters) -> Sums {
    let (answered, dropped) = (of.answered.iter().sum(), of.dropped.iter().sum());
    [of.concerned, answered, of.absorbed + of.stubbed, of.held, dropped, of.reclassified]
}

const fn sums_of(verdict: Option<Verdict>) -> Sums {
    match verdict {
        None => [0; 6],
        Some(Verdict::Answer(_)) => [1, 1, 0, 0, 0, 0],
        Some(Verdict::Absorb | Verdict::Stub) => [1, 0, 1, 0, 0, 0],
        Some(Verdict::Hold | Verdict::HoldAndWake) => [1, 0, 0, 1, 0, 0],
        Some(Verdict::Drop(_)) => [1, 0, 0, 0, 1, 0],
    }
}

impl World {
    /// The engine decided about a frame.
    pub fn check_verdicts(
        &mut self,
        daemon: &Daemon,
        frame: &Frame,
        before: &Before,
        verdict_for: impl Fn(usize) -> Option<Verdict>,
    ) {
        self.check_counted(daemon, before, &verdict_for);
        for nic in 0..self.nics.len() {
            let (mode, verdict) = (before.modes[nic], verdict_for(nic));
            self.ledger.seen(self.now, frame, nic, verdict, daemon.is_drained(nic));
            match verdict {
                Some(Verdict::Answer(by)) if mode != Some(Mode::Answer) => {
                    self.ledger.fail(format!("NIC {nic} is answered for by {by:?} in {mode:?}"));
                }
                Some(Verdict::Drop(why)) if !self.may_drop(nic, frame, why) => {
                    let kind = self.ledger.sent(frame).map(|sent| sent.kind);
                    self.ledger.fail(format!("{kind:?} for NIC {nic} was dropped: {}", why.name()));
                }
                _ => {}
            }
            if verdict.is_some() || self.was_gone(nic) {
                continue;
            }
            let guest = self.nics[nic].guest;
            let state = daemon.cycle(guest).state();
            if frame.dst() == self.nics[nic].station.mac {
                self.ledger.fail(format!(
                    "a frame to NIC {nic} came to us and is lost: mode {mode:?}, guest {guest} is {state:?}"
                ));
            }
            let withheld = self.ledger.sent(frame).is_some_and(|sent| sent.passed[nic].withheld);
            if withheld {
                self.ledger.fail(format!(
                    "a flooded frame was kept from NIC {nic} and not handled: mode {mode:?}, guest {guest} is {state:?}"
                ));
            }
        }
    }

    /// Whether the counters grew by the verdicts since `before`, and by nothing else but frames of our own for
    /// other sleepers: an answer, given now or late, makes at most one for each of them.
    pub fn check_counted(
        &mut self,
        daemon: &Daemon,
        before: &Before,
        verdict_for: impl Fn(usize) -> Option<Verdict>,
    ) {
        let Some(engine) = &daemon.engine else { return };
        let modes = before.modes;
        let mut grown = [Sums::default(); MAX_NICS];
        for (nic, grown) in grown.iter_mut().enumerate().take(self.nics.len()) {
            let (Some(before), Some(after)) = (&before.counters[nic], engine.counters(Daemon::nic_id(nic)))
            else {
                continue;
            };
            if modes[nic] == Some(Mode::Replay { released: true })
                && after.overtaken - before.overtaken < after.held - before.held
            {
                self.ledger.fail(format!("NIC {nic}: held after the release, and not counted as overtaken"));
            }
            let (before, after, expected) = (sums(before), sums(after), sums_of(verdict_for(nic)));
            for (n, grown) in grown.iter_mut().enumerate() {
                let Some(more) = after[n].checked_sub(before[n] + expected[n]) else {
                    let verdict = verdict_for(nic);
                    return self.ledger.fail(format!("NIC {nic}: {verdict:?} was not counted: {after:?}"));
                };
                *grown = more;
            }
        }
        for nic in 0..self.nics.len() {
            let others = (0..self.nics.len()).filter(|other| *other != nic);
            let answers: u64 = others
                .map(|n| grown[n][5] + u64::from(matches!(verdict_for(n), Some(Verdict::Answer(_)))))
                .sum();
            let [concerned, answered, _, held, ..] = grown[nic];
            if concerned > answers || answered > 0 {
                self.ledger.fail(format!("NIC {nic}: counted, and nothing came: {:?}", grown[nic]));
            }
            self.ledger.tally.re_entered += concerned;
            self.ledger.tally.reclassified += grown[nic][5];
            for _ in 0..held {
                self.ledger.took_ours(self.now, nic);
            }
        }
    }

    /// Whether such a frame may be dropped on arrival for this reason.
    fn may_drop(&self, nic: usize, frame: &Frame, why: DropReason) -> bool {
        let Some(kind) = self.ledger.sent(frame).map(|sent| sent.kind) else { return false };
        let setup = &self.setup;
        match why {
            DropReason::Malformed | DropReason::BadChecksum => kind == Kind::Damaged,
            DropReason::BadSource => matches!(kind, Kind::Spoofed | Kind::Damaged),
            DropReason::OwnFrame => frame.src() == self.nics[nic].station.mac,
            DropReason::Duplicate => matches!(kind, Kind::Syn | Kind::Segment | Kind::Edge),
            DropReason::ClosedPort => setup.traffic.closed_ports == ClosedPorts::Silent,
            DropReason::RateLimited => {
                matches!(kind, Kind::Echo | Kind::Datagram | Kind::Long | Kind::Damaged)
            }
            DropReason::BufferFull | DropReason::HostFull => !setup.holds_plenty,
            DropReason::OutputFull => setup.limits.outbox_bytes < 64 << 10,
            DropReason::EchoLoop => kind == Kind::Datagram,
            DropReason::SourceRoute | DropReason::UnknownOption => kind == Kind::Damaged,
            DropReason::Aged | DropReason::FloodedRing | DropReason::TooLong | DropReason::GuestGone => false,
            // No station of this network sends fragments.
            DropReason::FragmentOverlap | DropReason::FragmentTimeout | DropReason::FragmentLimit => false,
        }
    }

    /// The engine sends a frame of its own: in the name of a guest that does not run, and never after
    /// anything has said that it might.
    pub fn check_voice(&mut self, daemon: &Daemon, bytes: &[u8]) {
        let received = Received::plain(bytes);
        let Ok(frame) = Ethernet::parse(&received) else { return self.ledger.fail("half a frame".into()) };
        let Some(nic) = self.nics.iter().position(|nic| nic.station.mac == frame.src) else {
            return self.ledger.fail(format!("a frame from {}, which no guest is", frame.src));
        };
        let station = self.nics[nic].station;
        let claims_own = match Packet::parse(&frame, received.offload) {
            Ok(Packet::Arp(arp)) => arp.sha == station.mac && arp.spa == station.v4,
            Ok(packet) => packet.addresses().is_some_and(|(src, _)| src == station.v4 || src == station.v6),
            Err(_) => false,
        };
        if !claims_own {
            self.ledger.fail(format!("a frame of ours claims what is not NIC {nic}'s: {bytes:02x?}"));
        }
        if !daemon.may_speak(nic) {
            self.ledger
                .fail(format!("we speak for NIC {nic}, but were told or heard that its guest may run"));
        }
        let guest = &self.guests[self.nics[nic].guest];
        let port_passes = self.nics[nic].tap.as_ref().is_some_and(|tap| tap.enabled);
        let has_voice = guest.domain.runs() || (self.is_awake(nic) && port_passes);
        if has_voice && guest.domain.resumed_by == Hand::Ours {
            self.ledger.fail(format!("we speak for NIC {nic} while its guest has a voice, by our own doing"));
        }
    }

    /// After each step.
    pub fn check(&mut self) {
        let Some(mut daemon) = self.daemon.take() else { return };
        self.check_counters(&daemon);
        let waking = |guest: &usize| daemon.cycle(*guest).state() == State::Waking;
        let wakes = (0..self.guests.len()).filter(waking).count();
        if daemon.host.waking() as usize > wakes {
            let places = daemon.host.waking();
            self.ledger.fail(format!("{places} places among the wakes are taken by {wakes} guests"));
        }
        for guest in 0..self.guests.len() {
            let domain = &self.guests[guest].domain;
            let under_way = domain.events_under_way + domain.looks_under_way + domain.ports_under_way;
            let told = self.hypervisor.connected && under_way == 0;
            if daemon.is_at_rest(guest) && told {
                self.check_rest(&daemon, guest);
                daemon.rests(guest);
                if daemon.cycle(guest).state() == State::Awake {
                    // Whoever it was: what comes now is ours to get right.
                    self.guests[guest].domain.resumed_by = Hand::Ours;
                }
            }
        }
        self.daemon = Some(daemon);
    }

    fn check_counters(&mut self, daemon: &Daemon) {
        let Some(engine) = &daemon.engine else { return };
        for nic in 0..self.nics.len() {
            let Some(counters) = engine.counters(Daemon::nic_id(nic)) else { continue };
            if let Err(why) = counters.conserved() {
                self.ledger.fail(format!("NIC {nic}: {why}"));
            }
            let desk = &self.ledger.desks[nic];
            let (seen, overtaken) = (desk.delivered, desk.overtaken);
            if counters.replayed != seen {
                self.ledger.fail(format!("NIC {nic}: {} replayed, {seen} delivered", counters.replayed));
            }
            if engine.mode(Daemon::nic_id(nic)) == Some(Mode::Pass) && counters.overtaken < overtaken {
                self.ledger.fail(format!(
                    "NIC {nic}: {} counted as overtaken, {overtaken} were",
                    counters.overtaken
                ));
            }
            for (reason, count) in DropReason::ALL.into_iter().zip(counters.held_dropped) {
                let may = match reason {
                    DropReason::BufferFull | DropReason::HostFull => !self.setup.holds_plenty,
                    // Looked at again when the guest was asleep.
                    DropReason::ClosedPort => self.setup.traffic.closed_ports == ClosedPorts::Silent,
                    DropReason::RateLimited | DropReason::EchoLoop => true,
                    DropReason::FloodedRing | DropReason::TooLong | DropReason::Aged => true,
                    _ => false,
                };
                if count > 0 && !may {
                    self.ledger.fail(format!("NIC {nic}: held frames were dropped: {}", reason.name()));
                }
            }
            let aged = counters.held_dropped[DropReason::Aged as usize];
            let age = self.setup.traffic.hold.age;
            self.ledger.check_waiting(self.now, nic, counters.holding, aged, age);
        }
    }

    /// A cycle that has come to an end has left everything as it should be.
    fn check_rest(&mut self, daemon: &Daemon, guest: usize) {
        let cycle = daemon.cycle(guest);
        let (believed, power) = (cycle.facts().power, self.guests[guest].domain.power);
        if believed != power {
            self.ledger.fail(format!("guest {guest} rests believed {believed:?}, and is {power:?}"));
        }
        let asleep = match cycle.state() {
            State::Awake => false,
            State::Asleep => true,
            // A call that hangs, or another try to come.
            State::Stranded => return,
            state => return self.ledger.fail(format!("guest {guest} rests, but is {state:?}")),
        };
        for nic in self.guests[guest].nics.clone() {
            let ours = self.bridge.entry(self.nics[nic].station.mac) == Some(Port::Surrogate);
            let floods = self.nics[nic].tap.as_ref().map(|tap| tap.flood);
            let enabled = self.nics[nic].tap.as_ref().map(|tap| tap.enabled);
            let mode = daemon.mode(nic);
            let speaks = mode == Some(Mode::Answer);
            let frozen = self.guests[guest].frozen;
            let wrong = if asleep {
                (!ours, "is not steered to us")
                    .or((!speaks, "does not answer"))
                    .or((self.is_flooded(nic), "is flooded"))
                    .or((frozen && enabled == Some(true), "has its port enabled"))
            } else {
                (ours, "is still steered to us")
                    .or((mode != Some(Mode::Pass), "is not passed by"))
                    .or((floods == Some(false), "is not flooded any more"))
                    .or((enabled == Some(false), "has its port disabled"))
            };
            if let (true, wrong) = wrong {
                let state = cycle.state();
                self.ledger.fail(format!("guest {guest} rests {state:?}, but NIC {nic} {wrong} ({mode:?})"));
            }
        }
    }

    /// A while after all trouble: the guest must run and be left alone.
    pub fn check_end(&mut self, guest: usize) {
        let Some(daemon) = self.daemon.take() else { return };
        let cycle = daemon.cycle(guest);
        let power = self.guests[guest].domain.power;
        if cycle.state() != State::Awake || power != Power::Running {
            self.ledger
                .fail(format!("guest {guest} does not come up: {:?}, {power:?}; {cycle:?}", cycle.state()));
        } else if !daemon.is_at_rest(guest) {
            self.ledger.fail(format!("guest {guest} is awake, but something is still under way: {cycle:?}"));
        }
        for nic in self.guests[guest].nics.clone() {
            let holding = daemon
                .engine
                .as_ref()
                .and_then(|engine| engine.counters(Daemon::nic_id(nic)))
                .map_or(0, |counters| counters.holding);
            if holding > 0 {
                self.ledger.fail(format!(
                    "guest {guest} is awake, and {holding} frames for NIC {nic} are still held"
                ));
            }
        }
        self.daemon = Some(daemon);
    }

    fn was_gone(&self, nic: usize) -> bool {
        let domain = &self.guests[self.nics[nic].guest].domain;
        domain.gone_at.is_some_and(|at| self.now.since(at) < FORGOTTEN)
    }
}

/// The first of two findings that is one.
trait Or {
    fn or(self, other: Self) -> Self;
}

impl Or for (bool, &str) {
    fn or(self, other: Self) -> Self {
        if self.0 { self } else { other }
    }
}

/// How long after a guest was gone frames for it may still turn up.
const FORGOTTEN: core::time::Duration = core::time::Duration::from_secs(20);

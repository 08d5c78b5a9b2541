//! What must hold, whatever happens, and what is known of every frame to say so.
//!
//! Checked as it happens: each frame reaches a guest at most once, in the order of its flow, and only
//! what the engine took is given to a guest; nobody speaks for a guest that runs. Checked after each
//! step: the engine's own sums agree with what was seen, a cycle at rest has left the bridge as it should
//! be, and no place among the concurrent wakes is lost. Checked at the end: everybody woke up.

use surrogate::engine::{DropReason, Mode, Verdict};
use surrogate::guest::lifecycle::State;
use surrogate::hypervisor::Power;
use surrogate_wire::{Frame as Ethernet, Packet, Received};

use crate::bridge::Port;
use crate::daemon::Daemon;
use crate::frames::{self, Frame, Uid};
use crate::hypervisor::Hand;
use crate::world::{MAX_NICS, World};

/// What a frame was sent as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    ArpRequest,
    Solicitation,
    Echo,
    Syn,
    Segment,
    Datagram,
    Broadcast,
    Announcement,
    Conflict,
    Long,
    Damaged,
    Spoofed,
    Reply,
}

/// What is known of a frame from its sender.
#[derive(Clone, Copy, Debug)]
pub struct Sent {
    kind: Kind,
    /// The NIC it is sent to, if to one.
    to: Option<usize>,
    flow: Option<usize>,
    /// NICs that a flooded frame concerns, as bits.
    concerns: u8,
    /// Its place in the order of arrival at the bridge.
    arrival: u64,
    passed: [Passage; MAX_NICS],
}

/// What became of a frame for one NIC.
#[derive(Clone, Copy, Debug, Default)]
struct Passage {
    /// It came into the guest's port from the bridge.
    direct: bool,
    /// It came into the guest's port from us.
    delivered: bool,
    /// We hold it, or one like it.
    held: bool,
    /// The engine saw it after it had said that all was delivered: the release may come first.
    late: bool,
    /// It was kept from the guest, so somebody else had to take it.
    withheld: bool,
}

impl Sent {
    pub fn new(kind: Kind, to: Option<usize>) -> Self {
        Self { kind, to, flow: None, concerns: 0, arrival: 0, passed: [Passage::default(); MAX_NICS] }
    }

    pub fn concerning(kind: Kind, nic: usize) -> Self {
        Self { concerns: 1 << nic, ..Self::new(kind, None) }
    }

    pub fn concerning_all(kind: Kind) -> Self {
        Self { concerns: u8::MAX, ..Self::new(kind, None) }
    }

    pub fn in_flow(kind: Kind, nic: usize, flow: usize) -> Self {
        Self { flow: Some(flow), ..Self::new(kind, Some(nic)) }
    }
}

/// What was counted on the way, to see that a run was worth its time.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tally {
    pub frames: u64,
    pub held: u64,
    pub delivered: u64,
    pub refused: u64,
    pub answers: u64,
    /// Frames that a later one of their flow passed on the way to the guest, after the release.
    pub overtaken: u64,
    /// Flooded frames that reached a guest directly and from us.
    pub twice: u64,
    pub sleeps: u64,
    pub wakes: u64,
    pub aborted: u64,
    pub stranded: u64,
    pub crashes: u64,
    pub lost_with_daemon: u64,
}

impl Tally {
    pub fn add(&mut self, other: &Self) {
        let pairs = [
            (&mut self.frames, other.frames),
            (&mut self.held, other.held),
            (&mut self.delivered, other.delivered),
            (&mut self.refused, other.refused),
            (&mut self.answers, other.answers),
            (&mut self.overtaken, other.overtaken),
            (&mut self.twice, other.twice),
            (&mut self.sleeps, other.sleeps),
            (&mut self.wakes, other.wakes),
            (&mut self.aborted, other.aborted),
            (&mut self.stranded, other.stranded),
            (&mut self.crashes, other.crashes),
            (&mut self.lost_with_daemon, other.lost_with_daemon),
        ];
        for (sum, more) in pairs {
            *sum += more;
        }
    }
}

/// The books.
#[derive(Debug, Default)]
pub struct Ledger {
    frames: Vec<Sent>,
    /// The last arrival that reached a NIC's guest, by flow.
    newest: Vec<[u64; MAX_NICS]>,
    /// Deliveries that the present engine was told of.
    pub delivered: [u64; MAX_NICS],
    /// Frames that the present engine delivered behind a later one of their flow.
    pub overtaken: [u64; MAX_NICS],
    pub tally: Tally,
    violation: Option<String>,
}

impl Ledger {
    /// The first thing that went wrong.
    pub fn violation(&self) -> Option<&str> {
        self.violation.as_deref()
    }

    pub fn fail(&mut self, why: String) {
        self.violation.get_or_insert(why);
    }

    pub fn new_flow(&mut self) -> usize {
        self.newest.push([0; MAX_NICS]);
        self.newest.len() - 1
    }

    /// Gives a frame its number.
    pub fn number(&mut self, bytes: Vec<u8>, sent: Sent) -> Frame {
        self.frames.push(sent);
        self.tally.frames += 1;
        frames::number(bytes, self.frames.len() as Uid - 1)
    }

    /// How many frames have a number.
    pub fn known(&self) -> usize {
        self.frames.len()
    }

    pub fn entered(&mut self, frame: &Frame, arrival: u64) {
        if let Some(uid) = frame.uid {
            self.frames[uid as usize].arrival = arrival;
        }
    }

    /// The bridge gave a frame to a guest's own port.
    pub fn came_directly(&mut self, frame: &Frame, nic: usize) {
        let Some(uid) = frame.uid else { return };
        let sent = &mut self.frames[uid as usize];
        let passage = &mut sent.passed[nic];
        passage.direct = true;
        if sent.to == Some(nic)
            && let Some(flow) = sent.flow
        {
            let newest = &mut self.newest[flow][nic];
            *newest = (*newest).max(sent.arrival);
        }
    }

    /// The bridge kept a flooded frame from a guest's port.
    pub fn not_flooded(&mut self, frame: &Frame, nic: usize) {
        let Some(uid) = frame.uid else { return };
        let sent = &mut self.frames[uid as usize];
        sent.passed[nic].withheld = sent.concerns & 1 << nic != 0;
    }

    /// The engine saw a frame; `verdict` is what it decided for `nic`, if anything.
    fn seen(&mut self, frame: &Frame, nic: usize, verdict: Option<Verdict>, late: bool) {
        let Some(uid) = frame.uid else { return };
        let sent = &mut self.frames[uid as usize];
        let passage = &mut sent.passed[nic];
        passage.late = late;
        match verdict {
            Some(Verdict::Hold | Verdict::HoldAndWake) => {
                passage.held = true;
                self.tally.held += 1;
            }
            // The newest copy of a SYN takes the place of the first.
            Some(Verdict::Drop(DropReason::Duplicate)) => passage.held |= sent.kind == Kind::Syn,
            _ => {}
        }
    }

    /// We gave a frame to a guest's port, and it took it.
    pub fn gave(&mut self, frame: &Frame, nic: usize) {
        self.delivered[nic] += 1;
        self.tally.delivered += 1;
        let Some(uid) = frame.uid else { return };
        let sent = &mut self.frames[uid as usize];
        let passage = &mut sent.passed[nic];
        let wrong = if passage.delivered {
            Some("was delivered twice")
        } else if !passage.held {
            Some("was delivered, but never held")
        } else if passage.direct && sent.to.is_some() {
            Some("was delivered, though it had come directly")
        } else {
            None
        };
        passage.delivered = true;
        self.tally.twice += u64::from(passage.direct);
        if let Some(wrong) = wrong {
            return self.fail(format!("frame {uid} {wrong} to NIC {nic}"));
        }
        let Some(flow) = sent.flow else { return };
        let newest = &mut self.newest[flow][nic];
        if sent.arrival >= *newest {
            // A SYN's newest copy stands in the place of the first.
            if sent.kind != Kind::Syn {
                *newest = sent.arrival;
            }
        } else if passage.late {
            self.overtaken[nic] += 1;
            self.tally.overtaken += 1;
        } else {
            self.fail(format!("frame {uid} was delivered to NIC {nic} behind a later one of its flow"));
        }
    }

    /// Somebody heard what the surrogate says.
    pub fn heard(&mut self, frame: &Frame) {
        self.tally.answers += u64::from(frame.uid.is_none());
    }

    /// An engine is gone with what it held.
    pub fn engine_lost(&mut self, held: u64) {
        self.delivered = [0; MAX_NICS];
        self.overtaken = [0; MAX_NICS];
        self.tally.lost_with_daemon += held;
    }
}

impl World {
    /// The engine decided about a frame.
    pub fn check_verdicts(
        &mut self,
        daemon: &Daemon,
        frame: &Frame,
        before: &[Option<Mode>; MAX_NICS],
        verdict_for: impl Fn(usize) -> Option<Verdict>,
    ) {
        for (nic, mode) in before.iter().enumerate().take(self.nics.len()) {
            let verdict = verdict_for(nic);
            let mac = self.nics[nic].station.mac;
            self.ledger.seen(frame, nic, verdict, daemon.is_drained(nic));
            if verdict.is_some() || self.was_gone(nic) {
                continue;
            }
            let guest = self.nics[nic].guest;
            if frame.dst() == mac {
                self.ledger.fail(format!(
                    "a frame to NIC {nic} came to us and is lost: mode {mode:?}, guest {guest} is {:?}",
                    daemon.cycle(guest).state(),
                ));
            }
            let withheld = frame.uid.is_some_and(|uid| self.ledger.frames[uid as usize].passed[nic].withheld);
            if withheld && daemon.has_rested(guest) {
                self.ledger.fail(format!(
                    "a flooded frame was kept from NIC {nic} and not handled: mode {mode:?}, guest {guest} is {:?}",
                    daemon.cycle(guest).state(),
                ));
            }
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
        let waking = |guest: &usize| matches!(daemon.cycle(*guest).state(), State::Waking | State::Replaying);
        let wakes = (0..self.guests.len()).filter(waking).count();
        if daemon.host.waking() as usize > wakes {
            let places = daemon.host.waking();
            self.ledger.fail(format!("{places} places among the wakes are taken by {wakes} guests"));
        }
        for guest in 0..self.guests.len() {
            let domain = &self.guests[guest].domain;
            let told = self.hypervisor.connected && domain.events_under_way + domain.looks_under_way == 0;
            if daemon.is_at_rest(guest) && told {
                self.check_rest(&daemon, guest);
                daemon.rests(guest);
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
            if counters.replayed != self.ledger.delivered[nic] {
                let seen = self.ledger.delivered[nic];
                self.ledger.fail(format!("NIC {nic}: {} replayed, {seen} delivered", counters.replayed));
            }
            let overtaken = self.ledger.overtaken[nic];
            if engine.mode(Daemon::nic_id(nic)) == Some(Mode::Pass) && counters.overtaken < overtaken {
                self.ledger.fail(format!(
                    "NIC {nic}: {} counted as overtaken, {overtaken} were",
                    counters.overtaken
                ));
            }
            let dropped = |reason: DropReason| counters.held_dropped[reason as usize];
            if dropped(DropReason::GuestGone) > 0 {
                self.ledger.fail(format!("NIC {nic}: held frames were dropped, and the guest is not gone"));
            }
            if self.setup.holds_plenty && dropped(DropReason::BufferFull) + dropped(DropReason::HostFull) > 0
            {
                self.ledger.fail(format!("NIC {nic}: held frames were dropped, and there was room"));
            }
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

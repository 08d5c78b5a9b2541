//! A capture through the engine, by the capture's own timestamps, as if the configured guests slept.
//!
//! Each guest sleeps when the capture begins. A frame that wakes it has it awake at once, with what was held
//! delivered, until its `idle_after` (and at least `min_awake`) of the capture's time has passed without a frame
//! to or from its MACs; then it sleeps again. Its processor and the rate of its packets, which the daemon looks
//! at, are in no capture. With `idle_after = "never"` it stays awake, as only a command would put it to sleep.
//! A frame that finds no wake budget wakes it as soon as there is some. Frames that a sleeping guest itself sent
//! are left out: asleep, it would not have.
//!
//! No clock, no file, no printing: frames in, what became of them out.

mod outcome;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use surrogate_wire::{Frame, Offload, Received};

pub(super) use self::outcome::verdict_name;
pub use self::outcome::{GuestTotals, Judged, Totals, Wake};
use super::frame_kind;
use crate::config::{Config, Guest, WakePolicy};
use crate::engine::{Command, Done, Engine, Limits, Mode, Notice, Output, Verdict, WakeReason};
use crate::guest::identity::{Epoch, GuestId, Mac, NicId, NicIdentity, PortId};
use crate::io::capture::Captured;
use crate::policy::budget::Bucket;
use crate::rng::Rng;
use crate::time::Instant;

/// The one port that all frames of a capture arrive at.
const PORT: PortId = PortId(0);
/// No guest has it; the barrier that it is for is never asked here.
const SERVICE_MAC: Mac = Mac([0xfe, 0, 0, 0, 0, 1]);
/// How much of the time between two frames is gone through in detail.
const LONGEST_SILENCE: Duration = Duration::from_secs(24 * 60 * 60);
/// Nothing is later, whatever a file says: the year 2262. What becomes due after it must be later still.
const LATEST: u64 = u64::MAX / 2;
/// A frame that a snap length cut is filled up to no more than this.
const LONGEST_FRAME: usize = 64 << 10;

/// Why there is nothing to replay to.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReplayError {
    /// No such guest.
    #[error("the configuration has no guest \"{0}\"")]
    NoGuest(String),
    /// No guest has a MAC.
    #[error("{0}: a replay asks no hypervisor, so the configuration has to give `mac` and `addresses`")]
    NoMac(String),
}

/// A replay under way.
pub struct Replay {
    engine: Engine,
    rng: Rng,
    now: Instant,
    guests: Vec<Sleeper>,
    left_out: Vec<String>,
    by_nic: HashMap<NicId, usize>,
    by_mac: HashMap<Mac, usize>,
    trust_checksums: bool,
    begun: bool,
    totals: Totals,
}

/// One sleeping guest.
struct Sleeper {
    name: String,
    nics: Vec<NicIdentity>,
    epoch: Epoch,
    wake: WakePolicy,
    budget: crate::policy::budget::WakeBudget,
    bucket: Option<Bucket>,
    /// A wake that waits for budget.
    due: Option<(Instant, Wake)>,
    wakes: Vec<Wake>,
    idle_after: Option<Duration>,
    min_awake: Duration,
    /// Since when it is awake, and when the latest frame to or from it came; `None`: it sleeps.
    awake: Option<(Instant, Instant)>,
    forbidden: u64,
}

impl Replay {
    /// A replay to the guests of `config`, or to the one named `only`. Guests without a MAC in the
    /// configuration are left out, unless none is left.
    ///
    /// # Errors
    /// There is nobody to replay to.
    pub fn new(config: &Config, only: Option<&str>, trust_checksums: bool) -> Result<Self, ReplayError> {
        let wanted: Vec<&Guest> = match only {
            Some(name) => vec![config.guest(name).ok_or_else(|| ReplayError::NoGuest(name.to_owned()))?],
            None => config.guests.iter().collect(),
        };
        let mut guests = Vec::new();
        let mut left_out = Vec::new();
        for guest in wanted {
            left_out.extend(without_mac(guest));
            let id = GuestId(u32::try_from(guests.len()).unwrap_or(u32::MAX));
            let sleeper = Sleeper::new(guest, id);
            if !sleeper.nics.is_empty() {
                guests.push(sleeper);
            }
        }
        if guests.is_empty() {
            return Err(ReplayError::NoMac(only.unwrap_or("no guest has a MAC").to_owned()));
        }
        let mut next = 0;
        let mut by_nic = HashMap::new();
        let mut by_mac = HashMap::new();
        for (at, guest) in guests.iter_mut().enumerate() {
            for nic in &mut guest.nics {
                nic.nic = NicId(next);
                next += 1;
                by_nic.insert(nic.nic, at);
                by_mac.insert(nic.mac, at);
            }
        }
        Ok(Self {
            engine: Engine::new(limits(), SERVICE_MAC, 0),
            rng: Rng::seeded(0),
            now: Instant::ZERO,
            guests,
            left_out,
            by_nic,
            by_mac,
            trust_checksums,
            begun: false,
            totals: Totals::default(),
        })
    }

    /// The names of the guests that sleep in this replay.
    pub fn guests(&self) -> impl Iterator<Item = &str> {
        self.guests.iter().map(|guest| guest.name.as_str())
    }

    /// The guests, and the NICs of guests, that take no part, as the configuration does not give their MAC.
    pub fn left_out(&self) -> &[String] {
        &self.left_out
    }

    /// Judges the next frame of the capture.
    pub fn frame(&mut self, captured: &Captured) -> Judged {
        self.count(captured);
        self.now = self.now.max(Instant::from_nanos(captured.unix_ns.min(LATEST)));
        self.engine.handle_time_of_day(self.now, Duration::from_nanos(captured.unix_ns));
        if !self.begun {
            self.begin();
        }
        let mut replies = Vec::new();
        self.catch_up(&mut replies);

        let mut bytes = captured.bytes.as_slice();
        let filled: Vec<u8>;
        let cut = captured.is_cut();
        if cut {
            filled = fill(captured);
            bytes = &filled;
        }
        let offload = if cut || self.trust_checksums { Offload::Verified } else { Offload::None };
        let received = Received { bytes, vlan: None, offload };
        let (kind, what) = frame_kind::describe(&received);
        let ends = Frame::parse(&received).ok().map(|frame| (frame.src, frame.dst));
        let sender = ends.and_then(|(src, _)| self.by_mac.get(&src).copied());
        let own = sender.is_some_and(|at| self.guests.get(at).is_some_and(|guest| guest.awake.is_none()));
        let mut judged = Judged {
            frame: self.totals.frames,
            unix_ns: captured.unix_ns,
            kind,
            what,
            own,
            awake: Vec::new(),
            verdicts: Vec::new(),
            woke: Vec::new(),
            replies,
        };
        if judged.own {
            self.totals.own += 1;
            self.tally(kind, "own");
        } else {
            let receiver = ends.and_then(|(_, dst)| self.by_mac.get(&dst).copied());
            for at in sender.into_iter().chain(receiver) {
                self.heard(at, &mut judged);
            }
            self.judge(received, &mut judged);
        }
        self.totals.replies += judged.replies.len() as u64;
        judged
    }

    /// The sum of it.
    #[must_use]
    pub fn finish(mut self) -> Totals {
        for guest in self.guests {
            let nics = guest.nics.iter().filter_map(|nic| self.engine.counters(nic.nic).cloned()).collect();
            let Sleeper { name, wakes, forbidden, due, .. } = guest;
            let put_off = due.map(|(_, wake)| wake);
            self.totals.guests.push(GuestTotals { guest: name, nics, wakes, forbidden, put_off });
        }
        self.totals
    }

    fn judge(&mut self, received: Received<'_>, judged: &mut Judged) {
        let verdicts = self.engine.handle_frame(self.now, &mut self.rng, PORT, received);
        match (verdicts.is_foreign(), judged.awake.is_empty()) {
            (true, true) => {
                self.totals.foreign += 1;
                self.tally(judged.kind, "foreign");
            }
            (true, false) => {
                self.totals.awake += 1;
                self.tally(judged.kind, "awake");
            }
            (false, _) => {}
        }
        for (nic, verdict) in verdicts.iter() {
            self.tally(judged.kind, verdict_name(verdict));
            let mut guest = self.by_nic.get(&nic).and_then(|&at| self.guests.get_mut(at));
            if let (Some(guest), Verdict::HoldAndWake) = (&mut guest, verdict) {
                guest.forbidden += u64::from(guest.wake == WakePolicy::Never);
            }
            judged.verdicts.push((guest.map(|guest| guest.name.clone()).unwrap_or_default(), verdict));
        }
        for notice in self.perform(&mut judged.replies) {
            if let Notice::Wake { nic, epoch, reason, .. } = notice
                && let Some(&at) = self.by_nic.get(&nic)
            {
                self.asked_to_wake(at, epoch, reason, judged);
            }
        }
    }

    /// A frame comes from the guest or goes to it: if it is awake, it stays so for longer.
    fn heard(&mut self, at: usize, judged: &mut Judged) {
        let now = self.now;
        let Some(guest) = self.guests.get_mut(at) else { return };
        let Some((_, last)) = &mut guest.awake else { return };
        *last = now;
        if !judged.awake.contains(&guest.name) {
            judged.awake.push(guest.name.clone());
        }
    }

    /// A frame is worth waking the guest for.
    fn asked_to_wake(&mut self, at: usize, epoch: Epoch, reason: WakeReason, judged: &mut Judged) {
        let Some(guest) = self.guests.get_mut(at) else { return };
        if epoch != guest.epoch || guest.due.is_some() {
            return;
        }
        let wake =
            Wake { frame: judged.frame, unix_ns: judged.unix_ns, reason: reason.to_string(), put_off_ms: 0 };
        let (WakePolicy::Managed | WakePolicy::Always, Some(bucket)) = (&guest.wake, &mut guest.bucket)
        else {
            return;
        };
        match bucket.take(self.now) {
            Ok(()) => {
                judged.woke.push(guest.name.clone());
                self.wake(self.now, at, wake, &mut judged.replies);
            }
            // A bucket that nothing fills gives none before the capture ends either.
            Err(when) => guest.due = Some((when.unwrap_or(Instant::from_nanos(u64::MAX)), wake)),
        }
    }

    /// Wakes a guest and gives it what is held, all at this moment.
    fn wake(&mut self, now: Instant, at: usize, wake: Wake, replies: &mut Vec<Vec<u8>>) {
        let Some(guest) = self.guests.get_mut(at) else { return };
        guest.wakes.push(wake);
        guest.awake = Some((now, now));
        let nics: Vec<NicId> = guest.nics.iter().map(|nic| nic.nic).collect();
        let epoch = guest.epoch;
        self.set_mode(now, &nics, epoch, Mode::Replay { released: false });
        self.perform(replies);
        self.set_mode(now, &nics, epoch, Mode::Pass);
        self.perform(replies);
    }

    /// A guest that was awake and idle for long enough sleeps again.
    fn sleep_again(&mut self, now: Instant, at: usize, replies: &mut Vec<Vec<u8>>) {
        let Some(guest) = self.guests.get_mut(at) else { return };
        guest.awake = None;
        guest.epoch = guest.epoch.next();
        let (nics, epoch) = (guest.nics.iter().map(|nic| nic.nic).collect::<Vec<_>>(), guest.epoch);
        self.set_mode(now, &nics, epoch, Mode::Answer);
        self.perform(replies);
    }

    /// All guests fall asleep.
    fn begin(&mut self) {
        self.begun = true;
        let mut asleep = Vec::new();
        for guest in &mut self.guests {
            guest.bucket = Some(Bucket::full(guest.budget, self.now));
            for nic in &guest.nics {
                asleep.push((nic.nic, guest.epoch));
                let learn = Command::Register(Box::new(nic.clone()));
                self.engine.handle_command(self.now, &mut self.rng, learn);
            }
        }
        for (nic, epoch) in asleep {
            self.set_mode(self.now, &[nic], epoch, Mode::Answer);
        }
        self.perform(&mut Vec::new());
    }

    /// Does what was due before this frame came, each at its own time. Of a silence longer than [`LONGEST_SILENCE`]
    /// only the end is told: what sleepers say regularly would otherwise be said for centuries where a damaged file
    /// has a wrong year.
    fn catch_up(&mut self, replies: &mut Vec<Vec<u8>>) {
        let frame_came = self.now;
        let told_from = frame_came - LONGEST_SILENCE;
        loop {
            let timer = self.engine.poll_timeout().filter(|&when| when <= frame_came);
            let timer = timer.map(|when| when.max(told_from));
            let guests = self.guests.iter().enumerate();
            let turn = guests.filter_map(|(at, guest)| Some((guest.turns_at()?, at))).min();
            let turn = turn.filter(|&(when, _)| when <= frame_came);
            match (timer, turn) {
                (None, None) => break,
                (Some(timer), turn) if turn.is_none_or(|(when, _)| timer <= when) => {
                    self.engine.handle_timeout(timer, &mut self.rng);
                    self.perform(replies);
                }
                (_, Some((when, at))) if self.guests.get(at).is_some_and(|guest| guest.awake.is_some()) => {
                    self.sleep_again(when, at, replies);
                }
                (_, Some((when, at))) => self.wake_late(when, at, replies),
                (Some(_), None) => break,
            }
        }
    }

    /// There is budget now for a wake that waited.
    fn wake_late(&mut self, when: Instant, at: usize, replies: &mut Vec<Vec<u8>>) {
        let Some(guest) = self.guests.get_mut(at) else { return };
        let Some((_, mut wake)) = guest.due.take() else { return };
        match guest.bucket.as_mut().map(|bucket| bucket.take(when)) {
            Some(Err(Some(later))) if later > when => guest.due = Some((later, wake)),
            _ => {
                let late = when.since(Instant::from_nanos(wake.unix_ns));
                wake.put_off_ms = u64::try_from(late.as_millis()).unwrap_or(u64::MAX);
                self.wake(when, at, wake, replies);
            }
        }
    }

    fn set_mode(&mut self, now: Instant, nics: &[NicId], epoch: Epoch, mode: Mode) {
        for &nic in nics {
            self.engine.handle_command(now, &mut self.rng, Command::SetMode { nic, epoch, mode });
        }
    }

    /// Takes all outputs: replies are collected, deliveries always arrive, notices are returned.
    fn perform(&mut self, replies: &mut Vec<Vec<u8>>) -> Vec<Notice> {
        let mut notices = Vec::new();
        loop {
            let mut delivered: BTreeMap<(NicId, Epoch), u32> = BTreeMap::new();
            let mut idle = true;
            while let Some(output) = self.engine.poll_output() {
                idle = false;
                match output {
                    Output::Transmit { bytes, .. } => replies.push(bytes.to_vec()),
                    Output::Deliver { nic, epoch, .. } => *delivered.entry((nic, epoch)).or_default() += 1,
                    Output::Inject { .. } => {}
                    Output::Notify(notice) => notices.push(notice),
                }
            }
            for ((nic, epoch), count) in delivered {
                self.engine.handle_done(self.now, Done::Delivered { nic, epoch, count });
            }
            if idle {
                return notices;
            }
        }
    }

    fn count(&mut self, captured: &Captured) {
        if self.totals.frames == 0 {
            self.totals.first_unix_ns = captured.unix_ns;
        }
        self.totals.frames += 1;
        self.totals.last_unix_ns = self.totals.last_unix_ns.max(captured.unix_ns);
        self.totals.cut += u64::from(captured.is_cut());
    }

    fn tally(&mut self, kind: &'static str, verdict: &'static str) {
        *self.totals.kinds.entry(kind).or_default().entry(verdict).or_default() += 1;
    }
}

impl Sleeper {
    fn new(guest: &Guest, id: GuestId) -> Self {
        let nics = guest.nics.iter().filter_map(|nic| {
            Some(NicIdentity {
                guest: id,
                nic: NicId(0),
                port: PORT,
                mac: nic.mac?,
                vlan: nic.vlan,
                addresses: nic.addresses.clone(),
                groups: nic.groups.clone(),
                router: false,
                traffic: guest.policy.traffic.clone(),
            })
        });
        Self {
            name: guest.name.clone(),
            nics: nics.collect(),
            epoch: Epoch(1),
            wake: guest.policy.wake,
            budget: guest.policy.wake_budget,
            bucket: None,
            due: None,
            wakes: Vec::new(),
            idle_after: guest.policy.idle_after,
            min_awake: guest.policy.min_awake,
            awake: None,
            forbidden: 0,
        }
    }

    /// When it falls asleep if it is awake, and wakes if a wake waits for budget.
    fn turns_at(&self) -> Option<Instant> {
        match self.awake {
            Some((since, last)) => Some((last + self.idle_after?).max(since + self.min_awake)),
            None => self.due.as_ref().map(|&(when, _)| when),
        }
    }
}

/// The guest's name if it has no MAC at all, else each NIC that has none.
fn without_mac(guest: &Guest) -> Vec<String> {
    if guest.nics.iter().all(|nic| nic.mac.is_none()) {
        return vec![guest.name.clone()];
    }
    let nics = (1..).zip(&guest.nics).filter(|(_, nic)| nic.mac.is_none());
    nics.map(|(n, nic)| match &nic.bridge {
        Some(bridge) => format!("{}, NIC {n} on {bridge}", guest.name),
        None => format!("{}, NIC {n}", guest.name),
    })
    .collect()
}

/// As the daemon's, but for what a single capture cannot strain: the MTU, as what it shows has
/// passed its network, and the memory for held frames.
const fn limits() -> Limits {
    Limits {
        held_bytes: 64 << 20,
        flooded_ring: 64,
        outbox_bytes: 1 << 20,
        errors_per_second: 1,
        echoes_per_second: 100_000,
        mtu: LONGEST_FRAME,
    }
}

/// A cut frame at its length on the wire, the missing part zeros.
fn fill(captured: &Captured) -> Vec<u8> {
    let mut bytes = captured.bytes.clone();
    bytes.resize((captured.original_len as usize).min(LONGEST_FRAME).max(bytes.len()), 0);
    bytes
}

//! Drives an engine by hand and checks after every step that nothing was lost or counted twice.

use surrogate::engine::{Command, Counters, Done, Engine, Limits, Mode, Notice, Output, Refusal, Verdict};
use surrogate::guest::identity::{Epoch, NicId, NicIdentity};
use surrogate::rng::Rng;
use surrogate::time::{Duration, Instant};
use surrogate_wire::Received;

use crate::frames::{GUEST, PORT, SERVICE, limits};

/// What time it is when a scenario begins.
pub(crate) const UNIX: Duration = Duration::from_secs(1_795_278_511);

pub(crate) const FENCE: Mode = Mode::Fence { flooded: false };
pub(crate) const FENCE_FLOODED: Mode = Mode::Fence { flooded: true };
pub(crate) const HOLD: Mode = Mode::Hold { flooded: false };
pub(crate) const HOLD_FLOODED: Mode = Mode::Hold { flooded: true };
pub(crate) const REPLAY: Mode = Mode::Replay { released: false };
pub(crate) const RELEASED: Mode = Mode::Replay { released: true };

/// What came out, with its bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Out {
    Transmit(Vec<u8>),
    Deliver(NicId, Epoch, Vec<u8>),
    Inject(NicId, Vec<u8>),
    Notify(Notice),
}

pub(crate) struct Scenario {
    pub(crate) engine: Engine,
    pub(crate) now: Instant,
    rng: Rng,
    nics: Vec<NicId>,
}

impl Scenario {
    pub(crate) fn with_limits(limits: Limits, identities: &[NicIdentity]) -> Self {
        let mut s = Self::without_clock(limits, identities);
        s.engine.handle_time_of_day(Instant::ZERO, UNIX);
        s
    }

    /// Whose engine does not know what time it is.
    pub(crate) fn without_clock(limits: Limits, identities: &[NicIdentity]) -> Self {
        let mut s = Self {
            engine: Engine::new(limits, SERVICE, 1),
            now: Instant::ZERO,
            rng: Rng::seeded(1),
            nics: identities.iter().map(|i| i.nic).collect(),
        };
        for identity in identities {
            s.command(Command::Register(Box::new(identity.clone())));
        }
        s
    }

    /// Awake guests.
    pub(crate) fn new(identities: &[NicIdentity]) -> Self {
        Self::with_limits(limits(), identities)
    }

    /// Sleeping guests, in epoch 1.
    pub(crate) fn asleep(identities: &[NicIdentity]) -> Self {
        let mut s = Self::new(identities);
        for identity in identities {
            s.set_mode(identity.nic, 1, Mode::Answer);
        }
        s.outputs();
        s
    }

    pub(crate) fn one_asleep() -> Self {
        Self::asleep(&[GUEST.identity()])
    }

    /// Lets time pass until `ms` after the start.
    pub(crate) fn at_ms(&mut self, ms: u64) -> &mut Self {
        self.now = Instant::ZERO + Duration::from_millis(ms);
        self.engine.handle_timeout(self.now, &mut self.rng);
        self.check();
        self
    }

    pub(crate) fn command(&mut self, command: Command) {
        self.engine.handle_command(self.now, &mut self.rng, command);
        self.check();
    }

    pub(crate) fn register(&mut self, identity: NicIdentity) {
        self.command(Command::Register(Box::new(identity)));
    }

    pub(crate) fn set_mode(&mut self, nic: NicId, epoch: u64, mode: Mode) {
        self.command(Command::SetMode { nic, epoch: Epoch(epoch), mode });
    }

    /// The mode of the guest that most tests are about.
    pub(crate) fn mode(&mut self, epoch: u64, mode: Mode) -> &mut Self {
        self.set_mode(GUEST.nic(), epoch, mode);
        self
    }

    /// A frame at the awake guest's own port.
    pub(crate) fn observe(&mut self, from_guest: bool, bytes: &[u8]) {
        self.engine.handle_observed(self.now, GUEST.nic(), from_guest, Received::plain(bytes));
    }

    pub(crate) fn receive(&mut self, bytes: &[u8]) -> Vec<(NicId, Verdict)> {
        self.receive_as(Received::plain(bytes))
    }

    pub(crate) fn receive_as(&mut self, frame: Received<'_>) -> Vec<(NicId, Verdict)> {
        let verdicts = self.engine.handle_frame(self.now, &mut self.rng, PORT, frame);
        self.check();
        verdicts.iter().collect()
    }

    /// The verdict for the one guest that a frame concerns, if any.
    pub(crate) fn verdict(&mut self, bytes: &[u8]) -> Option<Verdict> {
        let verdicts = self.receive(bytes);
        assert!(verdicts.len() < 2, "{verdicts:?}");
        verdicts.first().map(|(_, verdict)| *verdict)
    }

    pub(crate) fn delivered(&mut self, epoch: u64, count: u32) {
        self.done(Done::Delivered { nic: GUEST.nic(), epoch: Epoch(epoch), count });
    }

    pub(crate) fn refused(&mut self, epoch: u64, why: Refusal) {
        self.done(Done::Refused { nic: GUEST.nic(), epoch: Epoch(epoch), why });
    }

    pub(crate) fn done(&mut self, done: Done) {
        self.engine.handle_done(self.now, done);
        self.check();
    }

    pub(crate) fn outputs(&mut self) -> Vec<Out> {
        let mut outs = Vec::new();
        while let Some(output) = self.engine.poll_output() {
            outs.push(match output {
                Output::Transmit { port, bytes } => {
                    assert_eq!(port, PORT);
                    Out::Transmit(bytes.to_vec())
                }
                Output::Deliver { nic, epoch, bytes } => Out::Deliver(nic, epoch, bytes.to_vec()),
                Output::Inject { nic, bytes } => Out::Inject(nic, bytes.to_vec()),
                Output::Notify(notice) => Out::Notify(notice),
            });
        }
        self.check();
        outs
    }

    pub(crate) fn notices(&mut self) -> Vec<Notice> {
        let only = |out| if let Out::Notify(notice) = out { Some(notice) } else { None };
        self.outputs().into_iter().filter_map(only).collect()
    }

    /// Our own frames, as the network sees them.
    pub(crate) fn transmitted(&mut self) -> Vec<Vec<u8>> {
        let only = |out| if let Out::Transmit(bytes) = out { Some(bytes) } else { None };
        self.outputs().into_iter().filter_map(only).collect()
    }

    /// Frames on their way into a guest.
    pub(crate) fn deliveries(&mut self) -> Vec<Vec<u8>> {
        let only = |out| if let Out::Deliver(_, _, bytes) = out { Some(bytes) } else { None };
        self.outputs().into_iter().filter_map(only).collect()
    }

    pub(crate) fn counters(&self) -> &Counters {
        self.engine.counters(GUEST.nic()).expect("registered")
    }

    fn check(&self) {
        for nic in &self.nics {
            if let Some(counters) = self.engine.counters(*nic) {
                counters.conserved().expect("conserved");
            }
        }
    }
}

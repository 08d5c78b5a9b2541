//! The packet thread: one port, one engine, one loop.
//!
//! Each round: wait until there is something to do, take a batch of frames, and when none is left do what is
//! due, then take commands. So what waited in the port comes before them: a frame that came when floods
//! were ours is handled as ours, and a released guest does not pass while a frame for it waits here. A port
//! that never is empty gets no more than [`FRAMES_BEFORE_THE_REST`]. What the engine puts out is performed at
//! once and in order. Nothing in a round blocks, locks or allocates for a frame; what is slow (opening,
//! closing, netlink) happens elsewhere.

use std::io;
use std::os::fd::AsFd as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::handle::{DriverCommand, DriverNotice, KeptAwake, NicFigures, Snapshot};
use super::outbox::Outbox;
use super::progress::Progress;
use crate::engine::{Command, Done, Engine, Mode, Output};
use crate::guest::identity::{NicId, PortId};
use crate::io::deliver::Deliveries;
use crate::io::observe::{Observer, Observers};
use crate::io::port::FramePort;
use crate::io::{clock, mailbox, sys};
use crate::rng::Rng;
use crate::time::{Duration, Instant};

/// Everything the thread owns.
pub(super) struct Worker<P> {
    pub(super) id: PortId,
    pub(super) port: P,
    pub(super) engine: Engine,
    pub(super) rng: Rng,
    pub(super) deliveries: Deliveries,
    pub(super) observers: Observers,
    pub(super) progress: Progress,
    pub(super) commands: mailbox::Receiver<DriverCommand>,
    pub(super) notices: Outbox,
    pub(super) stop: Arc<AtomicBool>,
    /// NICs registered with the engine, for the snapshot.
    pub(super) nics: Vec<NicId>,
    pub(super) numbers: Numbers,
    /// Frames taken since what is due and commands had their turn.
    pub(super) ahead: usize,
    pub(super) told_the_time: Option<Instant>,
}

/// What the thread itself counts.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Numbers {
    received: u64,
    transmitted: u64,
    transmit_failed: u64,
}

impl<P: FramePort> Worker<P> {
    /// Runs until it is told to stop.
    ///
    /// # Errors
    /// The port is gone or down.
    pub(super) fn run(&mut self) -> io::Result<()> {
        let mut more = false; // whether the last round left something to do
        while !self.stop.load(Ordering::Relaxed) {
            let look = more || self.wait()?;
            let now = clock::now();
            self.tell_the_time(now);
            let left = self.take_frames(now)?;
            // What a guest said before it was stopped is learned before we are told to speak for it, or speak.
            let acts = !self.commands.is_empty() || self.engine.poll_timeout().is_some_and(|due| due <= now);
            if acts {
                self.observers.gather_no_more();
            }
            let left = ((look || acts) && self.take_observed(now)) || left;
            if !left || self.ahead >= FRAMES_BEFORE_THE_REST {
                self.ahead = 0;
                self.engine.handle_timeout(now, &mut self.rng);
                self.observers.handle_timeout(now);
                more = self.perform(now);
                // What was posted since waits for the next round: it is readable until it is taken.
                if acts {
                    more |= self.take_commands(now);
                } else {
                    self.notices.flush();
                }
            }
            more |= left;
            self.report_transmitted(now);
        }
        Ok(())
    }

    /// Gives the port up, and says `why` if it was not told to stop. Returns when that was taken.
    pub(super) fn end(self, why: Option<String>) {
        let Self { port, commands, mut notices, stop, .. } = self;
        drop(port); // first: the bridge must not send frames to a port that nobody reads
        if let Some(why) = why {
            notices.post(DriverNotice::Failed { why });
        }
        while !notices.flush() && !stop.load(Ordering::Relaxed) {
            commands.acknowledge();
            if sys::wait_readable([commands.as_fd()], notices.retry_after()).is_err() {
                return;
            }
        }
    }

    /// Tells the engine the time of day, often enough for a clock that is set.
    fn tell_the_time(&mut self, now: Instant) {
        if self.told_the_time.is_none_or(|told| now.since(told) >= TIME_OF_DAY) {
            self.told_the_time = Some(now);
            self.engine.handle_time_of_day(now, Duration::from_millis(clock::unix_ms()));
        }
    }

    /// Waits until there is something to do. Whether there may be observed frames.
    fn wait(&mut self) -> io::Result<bool> {
        let due = self.engine.poll_timeout().into_iter().chain(self.observers.poll_timeout()).min();
        let due = due.map(|at| at.since(clock::now()));
        let retry = self.notices.retry_after();
        let timeout = due.into_iter().chain(retry).min();
        let ready = self.port.wait([self.commands.as_fd(), self.observers.as_fd()], timeout)?;
        if ready.is_some_and(|[commands, _]| commands) {
            self.commands.acknowledge();
        }
        Ok(ready.is_none_or(|[_, observed]| observed))
    }

    /// Takes at most a batch of frames; tells whether there may be more.
    fn take_frames(&mut self, now: Instant) -> io::Result<bool> {
        for _ in 0..FRAMES_PER_ROUND {
            let Some(frame) = self.port.receive()? else { return Ok(false) };
            self.numbers.received += 1;
            self.ahead += 1;
            let _verdicts = self.engine.handle_frame(now, &mut self.rng, self.id, frame); // it counts them
            self.perform(now);
        }
        Ok(true)
    }

    /// Takes at most a batch of observed frames; tells whether there may be more.
    fn take_observed(&mut self, now: Instant) -> bool {
        for _ in 0..OBSERVED_PER_ROUND {
            let Some(observed) = self.observers.take(now) else { return false };
            self.ahead += 1;
            self.engine.handle_observed(now, observed.nic, observed.from_guest, observed.received);
            if let Some((nic, observer)) = self.observers.detach_too_dear() {
                self.notices.post(DriverNotice::TooDear { nic, observer });
            }
        }
        true
    }

    /// Takes at most a batch of commands, and none while notices wait: it is commands that let the
    /// number of notices grow.
    fn take_commands(&mut self, now: Instant) -> bool {
        let mut more = false;
        for _ in 0..COMMANDS_PER_ROUND {
            if !self.notices.flush() {
                return more;
            }
            let Some(command) = self.commands.take() else { return more };
            self.carry_out(now, command);
            more |= self.perform(now);
        }
        true
    }

    fn carry_out(&mut self, now: Instant, command: DriverCommand) {
        match command {
            DriverCommand::Engine(command) => {
                match &command {
                    Command::Register(nic) if !self.nics.contains(&nic.nic) => self.nics.push(nic.nic),
                    Command::Unregister { nic } => self.nics.retain(|other| other != nic),
                    _ => {}
                }
                self.engine.handle_command(now, &mut self.rng, command);
            }
            DriverCommand::AttachPort { nic, ifindex, untag } => self.deliveries.attach(nic, ifindex, untag),
            DriverCommand::DetachPort { nic } => self.deliveries.detach(nic),
            DriverCommand::KeptAwake(nic, reply) => {
                let watched = self.observers.closely_since(now, nic);
                let _ = reply.send(self.kept_awake(now, nic, watched).collect());
            }
            DriverCommand::Knowledge(nic, reply) => {
                // That nobody waits for it any more is no matter.
                let _ = reply.send(self.engine.knowledge(now, nic));
            }
            DriverCommand::Observe { nic, observer } => {
                let before = self.observers.attach(nic, observer);
                self.close_elsewhere(before);
                self.engine.handle_gap(now, nic);
            }
            DriverCommand::Unobserve { nic } => {
                let before = self.observers.detach(nic);
                self.close_elsewhere(before);
            }
            DriverCommand::Closely { nic, closely } => self.observers.closely(now, nic, closely),
            DriverCommand::Count(nic) => {
                if let Some(counters) = self.engine.counters(nic) {
                    let counters = Box::new(counters.clone());
                    self.notices.post(DriverNotice::Counted { nic, counters });
                }
            }
            DriverCommand::Watch { nic, epoch } => {
                let watched = self.observers.closely_since(now, nic);
                self.engine.handle_command(now, &mut self.rng, Command::Watch { nic, epoch, watched });
            }
            DriverCommand::Snapshot(reply) => {
                self.report_transmitted(now); // or frames queued in this round would be missing
                let _ = reply.send(self.snapshot(now));
            }
        }
    }

    /// Closing a packet socket waits for every processor: milliseconds that frames would pay for.
    fn close_elsewhere(&mut self, observer: Option<Observer>) {
        if let Some(observer) = observer {
            self.notices.post(DriverNotice::Unobserved(observer));
        }
    }

    /// Performs what the engine has to say now, in order, and reports what became of deliveries. Tells
    /// whether the engine may have more to deliver.
    fn perform(&mut self, now: Instant) -> bool {
        while let Some(output) = self.engine.poll_output() {
            match output {
                Output::Transmit { bytes, .. } => self.port.transmit(bytes),
                Output::Deliver { nic, epoch, bytes } => {
                    let deliveries = &mut self.deliveries;
                    self.progress.try_next(nic, epoch, || deliveries.deliver(nic, bytes));
                }
                Output::Inject { nic, bytes } => {
                    // A lost question has no answer, and the asker a deadline.
                    let _ = self.deliveries.deliver(nic, bytes);
                }
                Output::Notify(notice) => self.notices.post(DriverNotice::Engine(notice)),
            }
        }
        let delivered = !self.progress.is_empty();
        for done in self.progress.take() {
            self.engine.handle_done(now, done);
        }
        delivered
    }

    /// Sends what is queued and tells the engine what could not be sent.
    fn report_transmitted(&mut self, now: Instant) {
        let transmitted = self.port.flush();
        self.numbers.transmitted += u64::from(transmitted.sent);
        self.numbers.transmit_failed += u64::from(transmitted.failed);
        if transmitted.failed > 0 {
            self.engine.handle_done(now, Done::TransmitFailed { port: self.id, count: transmitted.failed });
        }
    }

    /// Some of the connections that keep the guest of a NIC awake.
    fn kept_awake(
        &self,
        now: Instant,
        nic: NicId,
        watched: Option<Instant>,
    ) -> impl Iterator<Item = KeptAwake> + '_ {
        let all = self.engine.unrepresentable(now, nic, watched);
        all.take(TOLD_CONNECTIONS).map(move |(connection, why)| KeptAwake { nic, connection, why })
    }

    fn snapshot(&mut self, now: Instant) -> Snapshot {
        let mut kept_awake = Vec::new();
        for nic in &self.nics {
            // One that is not watched closely is not idle: that is what keeps it awake.
            if let Some(watched) = self.observers.closely_since(now, *nic)
                && self.engine.mode(*nic) == Some(Mode::Pass)
            {
                kept_awake.extend(self.kept_awake(now, *nic, Some(watched)));
            }
        }
        let engine = &self.engine;
        let of_nic = |&nic: &NicId| {
            let (mode, counters) = (engine.mode(nic)?, engine.counters(nic)?.clone());
            Some(NicFigures { nic, mode, counters, custody: engine.custody_counters(nic) })
        };
        Snapshot {
            nics: self.nics.iter().filter_map(of_nic).collect(),
            kept_awake,
            foreign: engine.foreign(),
            received: self.numbers.received,
            transmitted: self.numbers.transmitted,
            transmit_failed: self.numbers.transmit_failed,
            kernel_drops: self.port.dropped(),
            observed: self.observers.numbers(now),
        }
    }
}

/// Frames taken at once, then ours are sent: some tens of microseconds.
const FRAMES_PER_ROUND: usize = 64;
/// How long the time of day may have been told ago.
const TIME_OF_DAY: Duration = Duration::from_secs(10);
/// Frames that come before what is due and before commands: as many as a port can have kept for us.
const FRAMES_BEFORE_THE_REST: usize = 8192;
/// Observed frames taken at once; each has cost a system call.
const OBSERVED_PER_ROUND: usize = 32;
/// Connections of one NIC that are told at once: who has more has a reason in these.
const TOLD_CONNECTIONS: usize = 8;
/// Commands between two batches of frames.
const COMMANDS_PER_ROUND: usize = 64;

//! The packet thread: the loop of the product's own worker, over the world's bridge.

use surrogate::engine::{Command, Done, Engine, Mode, Notice, Output, Refusal};
use surrogate::guest::identity::{Epoch, NicId};
use surrogate::rng::Rng;
use surrogate::time::Instant;
use surrogate_wire::{Mac, Received};

use crate::bridge::Port;
use crate::daemon::{Daemon, PORT, ThreadCommand, Voice};
use crate::dice::Fault;
use crate::frames::Frame;
use crate::invariants::Before;
use crate::world::{Event, World};

/// Frames or commands taken at once.
const BATCH: usize = 64;

/// Deliveries of one pass: how many of a NIC's arrived, and why the rest did not.
type Progress = Vec<(NicId, Epoch, u32, Option<Refusal>)>;

impl World {
    /// There is something for the thread to do; it may take a while until it gets a processor.
    pub fn wake_thread(&mut self) {
        if self.thread_at.is_none() {
            let stalls = self.strikes(Fault::ThreadStalls);
            self.thread_at = Some(self.now + self.dice.micros(3, if stalls { 60_000 } else { 80 }));
        }
    }

    /// When the thread runs next.
    pub fn thread_due(&self) -> Option<Instant> {
        let timeout = self.daemon.as_ref()?.engine.as_ref()?.poll_timeout();
        self.thread_at.or(timeout)
    }
}

impl Daemon {
    /// One round of the thread.
    pub fn round(&mut self, world: &mut World) {
        world.thread_at = None;
        for _ in 0..BATCH {
            let Some(frame) = world.bridge.ours.as_mut().and_then(|ours| ours.queue.pop_front()) else {
                break;
            };
            self.take_frame(world, &frame);
            self.put_out(world);
        }
        if world.bridge.ours.as_ref().is_some_and(|ours| !ours.queue.is_empty()) {
            return world.wake_thread();
        }
        let Some(engine) = &mut self.engine else { return };
        let before = Before::of(engine, world.nics.len());
        engine.handle_timeout(world.now, &mut self.rng);
        world.check_counted(self, &before, |_| None);
        let mut more = self.put_out(world);
        for _ in 0..BATCH {
            let Some(command) = self.commands.pop_front() else { break };
            self.carry_out(world, command);
            more |= self.put_out(world);
        }
        more |= !self.commands.is_empty();
        if more {
            world.wake_thread();
        }
    }

    fn take_frame(&mut self, world: &mut World, frame: &Frame) {
        let Some(engine) = &mut self.engine else { return };
        let before = Before::of(engine, world.nics.len());
        for (nic, voice) in self.voices.iter_mut().enumerate().take(world.nics.len()) {
            // One speaker at a time, unless such a frame was a lie a moment ago.
            if voice.may_speak && frame.src() == world.nics[nic].station.mac {
                voice.heard = true;
                voice.may_speak = world.now < voice.deaf_until;
            }
        }
        let verdicts = engine.handle_frame(world.now, &mut self.rng, PORT, Received::plain(&frame.bytes));
        world.say(|_| {
            let verdicts: Vec<_> = verdicts.iter().collect();
            format!("engine: frame {:?} {}: {verdicts:?}", frame.uid, describe(frame))
        });
        world.check_verdicts(self, frame, &before, |nic| {
            verdicts.iter().find(|(of, _)| *of == Self::nic_id(nic)).map(|(_, verdict)| verdict)
        });
    }

    fn carry_out(&mut self, world: &mut World, command: ThreadCommand) {
        match command {
            ThreadCommand::Attach { nic, device } => self.attached[nic] = Some(device),
            ThreadCommand::Detach { nic } => self.attached[nic] = None,
            ThreadCommand::Engine(command) => {
                world.say(|_| format!("engine: {}", short(&command)));
                match &command {
                    Command::SetMode { nic, epoch, mode } => {
                        let nic = nic.0 as usize - 1;
                        let voice = &mut self.voices[nic];
                        if *epoch >= voice.epoch {
                            self.drained[nic] &= matches!(mode, Mode::Replay { .. });
                            voice.commanded(world.now, *epoch, *mode);
                        }
                    }
                    Command::Unregister { nic } => {
                        self.voices[nic.0 as usize - 1] = Voice::default();
                        world.ledger.forgotten(nic.0 as usize - 1);
                    }
                    _ => {}
                }
                let Some(engine) = &mut self.engine else { return };
                let before = Before::of(engine, world.nics.len());
                let told = match &command {
                    Command::SetMode { nic, epoch, mode } => Some((*nic, *epoch, *mode)),
                    _ => None,
                };
                engine.handle_command(world.now, &mut self.rng, command);
                world.check_counted(self, &before, |_| None);
                if let Some((nic, epoch, mode)) = told {
                    self.comes_again(world, nic, epoch, mode);
                }
            }
        }
    }

    /// A command that comes once more after the next transition began.
    fn comes_again(&mut self, world: &mut World, nic: NicId, epoch: Epoch, mode: Mode) {
        let kept = &mut self.kept[nic.0 as usize - 1];
        if let Some((epoch, mode)) = kept.take_if(|(old, _)| *old < epoch) {
            self.changes_nothing(world, |engine, now, rng| {
                engine.handle_command(now, rng, Command::SetMode { nic, epoch, mode });
            });
        }
        if world.strikes(Fault::MessageAgain) {
            self.kept[nic.0 as usize - 1] = Some((epoch, mode));
        }
    }

    /// Has the engine take what is of an epoch that is over.
    fn changes_nothing(&mut self, world: &mut World, take: impl FnOnce(&mut Engine, Instant, &mut Rng)) {
        let Some(engine) = &mut self.engine else { return };
        let before = format!("{engine:?}");
        take(engine, world.now, &mut self.rng);
        let after = format!("{engine:?}");
        if before != after {
            world.ledger.fail(format!("a message of an old epoch changed the engine:\n{before}\n{after}"));
        }
    }

    /// Performs what the engine puts out, in order, and reports what became of it. Says whether there may be
    /// more to deliver.
    fn put_out(&mut self, world: &mut World) -> bool {
        let Some(mut engine) = self.engine.take() else { return false };
        let mut progress = Progress::new();
        while let Some(output) = engine.poll_output() {
            match output {
                Output::Transmit { bytes, .. } => {
                    world.say(|_| format!("engine: says {}", describe_bytes(bytes)));
                    world.check_voice(self, bytes);
                    world.forward(Port::Surrogate, &Frame::read(bytes, 0));
                }
                Output::Deliver { nic, epoch, bytes } => {
                    let at = progress.iter().position(|(n, e, ..)| (*n, *e) == (nic, epoch));
                    let at = at.unwrap_or_else(|| {
                        progress.push((nic, epoch, 0, None));
                        progress.len() - 1
                    });
                    let (_, _, count, refused) = &mut progress[at];
                    if refused.is_none() {
                        match self.deliver(world, nic, bytes, true) {
                            Ok(()) => *count += 1,
                            Err(why) => *refused = Some(why),
                        }
                    }
                }
                Output::Inject { nic, bytes } => {
                    let _ = self.deliver(world, nic, bytes, false);
                }
                Output::Notify(notice) => {
                    if let Notice::Drained { nic, .. } = notice {
                        self.drained[nic.0 as usize - 1] = true;
                    }
                    let wait = world.dice.micros(2, 150);
                    self.noticed_until = self.noticed_until.max(world.now + wait);
                    self.notices_under_way += 1;
                    world.say(|_| format!("engine: {notice:?}"));
                    let incarnation = self.incarnation;
                    world.at(self.noticed_until, Event::Notice { incarnation, notice });
                }
            }
        }
        self.engine = Some(engine);
        let delivered = !progress.is_empty();
        for (nic, epoch, count, refused) in progress {
            if world.strikes(Fault::MessageAgain) {
                // What an earlier replay came to.
                let epoch = Epoch(epoch.0 - 1);
                self.changes_nothing(world, |engine, now, _| {
                    engine.handle_done(now, Done::Delivered { nic, epoch, count: 1 });
                    engine.handle_done(now, Done::Refused { nic, epoch, why: Refusal::TooLong });
                });
            }
            let Some(engine) = &mut self.engine else { break };
            if count > 0 {
                engine.handle_done(world.now, Done::Delivered { nic, epoch, count });
            }
            if let Some(why) = refused {
                world.ledger.tally.refused += 1;
                engine.handle_done(world.now, Done::Refused { nic, epoch, why });
            }
        }
        delivered
    }

    /// Straight into a guest's own port, as it says.
    fn deliver(&self, world: &mut World, id: NicId, bytes: &[u8], held: bool) -> Result<(), Refusal> {
        let nic = id.0 as usize - 1;
        let (limit, mtu) = (world.setup.tap_queue, world.setup.tap_mtu);
        let device = self.attached[nic].ok_or(Refusal::Gone)?;
        let tap = world.nics[nic].tap.as_mut().filter(|tap| tap.device == device).ok_or(Refusal::Gone)?;
        if bytes.len() > mtu + 14 {
            return Err(Refusal::TooLong);
        }
        if tap.queue.len() >= limit {
            return Err(Refusal::Full);
        }
        let frame = Frame::read(bytes, world.ledger.known());
        world.say(|_| format!("engine: gives NIC {nic} frame {:?} {}", frame.uid, describe(&frame)));
        if held {
            world.ledger.gave(&frame, nic);
            let guest = world.nics[nic].guest;
            world.ledger.tally.second_nic += u64::from(world.guests[guest].nics[0] != nic);
        }
        if let Some(tap) = &mut world.nics[nic].tap {
            tap.queue.push_back(frame);
        }
        world.guest_has_frames(nic);
        Ok(())
    }
}

fn describe(frame: &Frame) -> String {
    describe_bytes(&frame.bytes)
}

/// A frame in a few words.
fn describe_bytes(bytes: &[u8]) -> String {
    let received = Received::plain(bytes);
    let Ok(frame) = surrogate_wire::Frame::parse(&received) else { return "half a frame".to_owned() };
    let last = |mac: Mac| mac.0[5];
    let what = match surrogate_wire::Packet::parse(&frame, received.offload) {
        Ok(surrogate_wire::Packet::Arp(arp)) => format!("ARP {} {} {}", arp.op, arp.spa, arp.tpa),
        Ok(packet) => match packet.transport() {
            Some(surrogate_wire::Transport::Tcp(tcp)) => {
                format!("TCP {} {} +{} {:02x}", tcp.src_port, tcp.seq, tcp.payload.len(), tcp.flags.0)
            }
            Some(transport) => format!("protocol {} {:?}", transport.protocol(), transport.ports()),
            None => "other".to_owned(),
        },
        Err(why) => format!("{why:?}"),
    };
    format!("{:02x}->{:02x} {what}", last(frame.src), last(frame.dst))
}

fn short(command: &Command) -> String {
    match command {
        Command::Register(identity) => format!("register {:?}", identity.nic),
        other => format!("{other:?}"),
    }
}

//! The engine as a whole: frames, commands, reports and time in any order, on the LAN of [`lan`]. After each step
//! nothing may be lost or counted twice, and we speak only for guests that sleep.

use surrogate::engine::{
    Command, Done, Engine, Knowledge, LINGER, Limits, Mode, Notice, Output, Refusal, WINDOW,
};
use surrogate::guest::identity::{Epoch, NicId, NicIdentity};
use surrogate::policy::names::{Names, NetbiosName, Service};
use surrogate::rng::Rng;
use surrogate::time::{Duration, Instant};
use surrogate_wire::{Frame, Offload, Received, netbios};

use crate::input::{self, Input};
use crate::lan::{self, MTU, PORT};

/// One byte of what each step is, then what it needs.
pub(crate) fn run(data: &[u8]) -> bool {
    let mut input = Input::new(data);
    let mut world = World::new();
    let mut steps = 0;
    while !input.is_empty() && steps < MOST_STEPS {
        world.step(&mut input);
        steps += 1;
    }
    world.concerned > 0
}

/// More would only make each run longer.
const MOST_STEPS: usize = 400;

/// An engine, three guests and their driver.
pub(crate) struct World {
    engine: Engine,
    rng: Rng,
    now: Instant,
    guests: Vec<Guest>,
    concerned: u64,
}

struct Guest {
    identity: NicIdentity,
    epoch: u64,
    registered: bool,
    /// Given to the driver and not reported.
    outstanding: Vec<Epoch>,
    knowledge: Option<Knowledge>,
}

impl World {
    /// Three guests that sleep.
    pub(crate) fn new() -> Self {
        let limits = Limits {
            held_bytes: 48 << 10,
            flooded_ring: 4,
            outbox_bytes: 8 << 10,
            errors_per_second: 2,
            echoes_per_second: 100,
            mtu: MTU,
        };
        let mut second = lan::guest(0x12, None);
        second.traffic.listen = None;
        let guests = [lan::guest(0x11, None), second, lan::guest(0x17, Some(7))];
        let guests = guests.map(|identity| Guest {
            identity,
            epoch: 1,
            registered: true,
            outstanding: Vec::new(),
            knowledge: None,
        });
        let mut world = Self {
            engine: Engine::new(limits, lan::SERVICE, 1),
            rng: Rng::seeded(1),
            now: Instant::from_nanos(1_000_000_000),
            guests: guests.into(),
            concerned: 0,
        };
        let identities: Vec<NicIdentity> = world.guests.iter().map(|guest| guest.identity.clone()).collect();
        for identity in identities {
            let nic = identity.nic;
            world.command(Command::Register(Box::new(identity)));
            world.command(Command::SetMode { nic, epoch: Epoch(1), mode: Mode::Answer });
        }
        world.perform();
        world
    }

    fn step(&mut self, input: &mut Input<'_>) {
        let kind = input.byte();
        let at = usize::from(kind >> 4) % self.guests.len();
        match kind & 0x0f {
            0..=5 => self.receive(input),
            6 => self.observe(at, input),
            7 => self.wait(Duration::from_millis(u64::from(input.byte()))),
            8 => self.wait(Duration::from_secs(u64::from(input.u16() % 600))),
            9 | 10 => self.set_mode(at, input),
            11 => self.report(at, input),
            12 => self.ask(at, input),
            13 => self.register(at, input),
            14 => self.know(at, input),
            _ if at == 1 => {
                let day = Duration::from_secs(u64::from(input.u16()) * 3600);
                self.engine.handle_time_of_day(self.now, day);
            }
            _ => self
                .engine
                .handle_done(self.now, Done::TransmitFailed { port: PORT, count: u32::from(input.byte()) }),
        }
        self.check();
        // Now and then the driver is slow.
        if kind & 0x40 == 0 {
            self.perform();
        }
    }

    fn receive(&mut self, input: &mut Input<'_>) {
        let (vlan, offload) = lan::beside(input);
        let bytes = self.frame(input);
        self.handle(Received { bytes: &bytes, vlan, offload });
    }

    fn handle(&mut self, received: Received<'_>) {
        let before = self.counted();
        let verdicts = self.engine.handle_frame(self.now, &mut self.rng, PORT, received);
        let mut nics: Vec<NicId> = verdicts.iter().map(|(nic, _)| nic).collect();
        nics.sort_unstable();
        let count = nics.len();
        nics.dedup();
        assert_eq!(nics.len(), count, "two verdicts for one guest: {verdicts:?}");
        assert_eq!(verdicts.is_foreign(), count == 0);
        // Own frames that re-entered are counted as well.
        assert!(self.counted() - before >= count as u64);
        self.concerned += count as u64;
    }

    /// A frame that the fuzzer wrote, led to one of the guests if it says so.
    fn frame(&self, input: &mut Input<'_>) -> Vec<u8> {
        let how = input.byte();
        let mut bytes = input.chunk().to_vec();
        let guest = self.guests.get(usize::from(how >> 4) % self.guests.len());
        if let (true, Some(guest), Some(dst)) = (how & 1 != 0, guest, bytes.first_chunk_mut::<6>()) {
            *dst = guest.identity.mac.0;
        }
        if how & 2 != 0 {
            lan::mend(&mut bytes);
        }
        bytes
    }

    fn observe(&mut self, at: usize, input: &mut Input<'_>) {
        let from_guest = input.byte() & 1 == 0;
        let bytes = self.frame(input);
        let Some(guest) = self.guests.get(at) else { return };
        let received = Received { bytes: &bytes, vlan: None, offload: Offload::Verified };
        self.engine.handle_observed(self.now, guest.identity.nic, from_guest, received);
    }

    /// A frame comes.
    pub(crate) fn hear(&mut self, bytes: &[u8]) {
        self.handle(Received::plain(bytes));
        self.check();
        self.perform();
    }

    /// The first guest is awake and an observer sees it send `bytes`, and get them.
    pub(crate) fn learn(&mut self, bytes: &[u8]) {
        let Some(Guest { identity, epoch, .. }) = self.guests.first() else { return };
        let (nic, epoch) = (identity.nic, Epoch(*epoch));
        self.command(Command::SetMode { nic, epoch, mode: Mode::Pass });
        for from_guest in [true, false] {
            self.engine.handle_observed(self.now, nic, from_guest, Received::plain(bytes));
        }
        self.perform();
    }

    /// The first guest is registered anew, known and asleep.
    pub(crate) fn sleep_knowing(&mut self, knowledge: Knowledge) {
        let Some(Guest { identity, .. }) = self.guests.first() else { return };
        let (identity, nic) = (Box::new(identity.clone()), identity.nic);
        self.command(Command::Unregister { nic });
        self.command(Command::Register(identity));
        let (knowledge, ago) = (Box::new(knowledge), Duration::from_secs(60));
        self.command(Command::Know { nic, knowledge, ago });
        self.command(Command::SetMode { nic, epoch: Epoch(1), mode: Mode::Answer });
        self.perform();
    }

    /// What is known of the first guest.
    pub(crate) fn known(&self) -> Knowledge {
        let nic = self.guests.first().map(|guest| guest.identity.nic);
        nic.and_then(|nic| self.engine.knowledge(self.now, nic)).unwrap_or_default()
    }

    /// Frames that concerned a sleeper.
    pub(crate) const fn concerned(&self) -> u64 {
        self.concerned
    }

    pub(crate) fn wait(&mut self, time: Duration) {
        let until = self.now + time;
        // Each timer at its time, as a driver does; the time between two is bounded by what is waited for.
        for _ in 0..MOST_TIMERS {
            let Some(due) = self.engine.poll_timeout().filter(|due| *due <= until) else { break };
            self.now = self.now.max(due);
            self.engine.handle_timeout(self.now, &mut self.rng);
            self.check();
            self.perform();
            let stuck = self.engine.poll_timeout().is_some_and(|next| next <= self.now);
            assert!(!stuck, "what was due at {:?} stays due", self.now);
        }
        self.now = until;
        self.engine.handle_timeout(self.now, &mut self.rng);
    }

    fn set_mode(&mut self, at: usize, input: &mut Input<'_>) {
        let modes = [
            Mode::Pass,
            Mode::Fence { flooded: false },
            Mode::Fence { flooded: true },
            Mode::Answer,
            Mode::Hold { flooded: true },
            Mode::Hold { flooded: false },
            Mode::Replay { released: false },
            Mode::Replay { released: true },
        ];
        let mode = input.of(&modes);
        let step = input.byte();
        let Some(guest) = self.guests.get_mut(at) else { return };
        let (nic, registered) = (guest.identity.nic, guest.registered);
        let epoch = match step & 3 {
            0 => guest.epoch,
            3 => guest.epoch.saturating_sub(1),
            _ => guest.epoch + 1,
        };
        let stale = epoch < guest.epoch;
        if registered {
            guest.epoch = guest.epoch.max(epoch);
        }
        let before = self.engine.mode(nic);
        self.command(Command::SetMode { nic, epoch: Epoch(epoch), mode });
        if stale || !registered {
            assert_eq!(self.engine.mode(nic), before, "a command of an epoch that is over");
        }
    }

    fn report(&mut self, at: usize, input: &mut Input<'_>) {
        let (count, why) = (input.byte(), input.byte());
        let Some(guest) = self.guests.get_mut(at) else { return };
        let nic = guest.identity.nic;
        let Some(epoch) = guest.outstanding.first().copied() else { return };
        let delivered = usize::from(count).min(guest.outstanding.len());
        let left = guest.outstanding.split_off(delivered);
        guest.outstanding = left;
        let refused = !guest.outstanding.is_empty() && why & 1 != 0;
        if refused {
            guest.outstanding.clear();
        }
        let count = u32::try_from(delivered).unwrap_or(u32::MAX);
        self.engine.handle_done(self.now, Done::Delivered { nic, epoch, count });
        self.check();
        if refused {
            let why = match why >> 1 & 3 {
                0 => Refusal::Gone,
                1 => Refusal::TooLong,
                _ => Refusal::Full,
            };
            self.engine.handle_done(self.now, Done::Refused { nic, epoch, why });
        }
    }

    fn ask(&mut self, at: usize, input: &mut Input<'_>) {
        let Some(guest) = self.guests.get(at) else { return };
        let (nic, epoch) = (guest.identity.nic, Epoch(guest.epoch));
        let how = input.byte();
        self.command(match how % 3 {
            0 if how & 0x80 != 0 => Command::Watch { nic, epoch, watched: Some(self.now) },
            0 => Command::Barrier { nic, epoch },
            1 => Command::Announce { nic },
            _ => Command::PortReady { nic },
        });
    }

    /// Forgets a guest, or learns it anew with other addresses.
    fn register(&mut self, at: usize, input: &mut Input<'_>) {
        let how = input.byte();
        let Some(guest) = self.guests.get_mut(at) else { return };
        if how & 7 == 7 {
            guest.registered = false;
            guest.outstanding.clear();
            guest.epoch = 0;
            let nic = guest.identity.nic;
            self.command(Command::Unregister { nic });
            assert!(self.engine.counters(nic).is_none() && self.engine.mode(nic).is_none());
            return;
        }
        guest.registered = true;
        let mut identity = guest.identity.clone();
        if how & 1 != 0 {
            identity.addresses.pop();
        }
        if how & 2 != 0 {
            identity.traffic.listen = None;
        }
        if how & 4 != 0 {
            identity.groups.clear();
        }
        identity.router = how & 8 != 0;
        if how & 16 != 0 {
            identity.traffic.names = declared();
        }
        self.command(Command::Register(Box::new(identity)));
    }

    /// Takes down what is known of a guest, or gives it back.
    fn know(&mut self, at: usize, input: &mut Input<'_>) {
        let ago = Duration::from_secs(u64::from(input.byte()));
        let Some(guest) = self.guests.get_mut(at) else { return };
        let nic = guest.identity.nic;
        match guest.knowledge.take() {
            None => guest.knowledge = self.engine.knowledge(self.now, nic),
            Some(knowledge) => {
                let knowledge = Box::new(knowledge);
                self.command(Command::Know { nic, knowledge, ago });
            }
        }
    }

    fn command(&mut self, command: Command) {
        self.engine.handle_command(self.now, &mut self.rng, command);
        self.check();
    }

    /// What the driver does with what comes out.
    fn perform(&mut self) {
        while let Some(output) = self.engine.poll_output() {
            match output {
                Output::Transmit { port, bytes } => {
                    assert_eq!(port, PORT);
                    let bytes = bytes.to_vec();
                    self.spoke(&bytes);
                }
                Output::Deliver { nic, epoch, .. } => {
                    let mode = self.engine.mode(nic);
                    assert!(matches!(mode, Some(Mode::Replay { .. })), "delivered in {mode:?}");
                    let guest = self.guests.iter_mut().find(|guest| guest.identity.nic == nic);
                    let outstanding = &mut guest.expect("a guest of ours").outstanding;
                    outstanding.push(epoch);
                    assert!(outstanding.len() <= WINDOW && outstanding.iter().all(|one| *one == epoch));
                }
                Output::Inject { nic, bytes } => {
                    lan::assert_sound(bytes);
                    assert!(matches!(self.engine.mode(nic), Some(Mode::Fence { .. })));
                }
                Output::Notify(Notice::Settled { nic, .. }) => {
                    assert!(self.engine.counters(nic).is_none_or(|counters| counters.holding == 0));
                }
                Output::Notify(_) => {}
            }
        }
        self.check();
    }

    /// A frame of ours: of a guest that sleeps, sound, not too long, and not to itself.
    fn spoke(&self, bytes: &[u8]) {
        let Ok(frame) = Frame::parse(&Received::plain(bytes)) else { panic!("no frame: {bytes:02x?}") };
        let speaker = self.guests.iter().find(|guest| guest.identity.mac == frame.src);
        let speaker = speaker.unwrap_or_else(|| panic!("in whose name? {bytes:02x?}"));
        assert_eq!(
            self.engine.mode(speaker.identity.nic),
            Some(Mode::Answer),
            "a second voice: {bytes:02x?}"
        );
        assert!(frame.payload.len() <= MTU.max(46), "longer than the bridge allows: {}", frame.payload.len());
        assert_eq!(frame.tags.vid(), speaker.identity.vlan, "in another VLAN: {bytes:02x?}");
        lan::assert_sound(bytes);
    }

    fn check(&self) {
        for guest in &self.guests {
            if let Some(counters) = self.engine.counters(guest.identity.nic) {
                counters.conserved().expect("conserved");
            }
        }
    }

    fn counted(&self) -> u64 {
        let nics = self.guests.iter().filter_map(|guest| self.engine.counters(guest.identity.nic));
        nics.map(|counters| counters.concerned).sum()
    }
}

/// What a guest may be declared to be called.
fn declared() -> Names {
    let netbios = netbios::Name::new("PRINTER", 0x20).expect("it is short enough");
    let txt = vec!["path=/".to_owned(), "color".to_owned()];
    Names {
        host: Some("printer".to_owned()),
        netbios: vec![NetbiosName { name: netbios, group: false }],
        services: vec![Service { name: "Admin".to_owned(), kind: "_http._tcp".to_owned(), port: 80, txt }],
    }
}

/// More timers than that in one wait are a loop.
const MOST_TIMERS: usize = 100_000;

pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let frames = lan::captured();
    let frames: Vec<&[u8]> = frames.iter().map(Vec::as_slice).filter(|bytes| bytes.len() < 700).collect();
    let heard = |bytes: &[u8]| [&[0, 0, 0][..], &input::chunk(bytes)].concat();
    let seen = |bytes: &[u8]| [&[6, 0, 0][..], &input::chunk(bytes)].concat();
    let mut seeds = Vec::new();
    for some in frames.chunks(6) {
        // Asleep: the frames; then awake with a replay, an observer, and asleep again.
        let mut seed: Vec<u8> = some.iter().flat_map(|bytes| heard(bytes)).collect();
        seed.extend([7, 200, 9, 4, 1, 9, 5, 0, 9, 6, 0, 11, 9, 0, 9, 7, 0, 7, 50, 7, 50]);
        seed.extend(some.iter().flat_map(|bytes| seen(bytes)));
        seed.extend([9, 1, 1, 12, 0, 9, 2, 0, 9, 3, 0, 12, 1, 8, 1, 44]);
        seed.extend(some.iter().flat_map(|bytes| heard(bytes)));
        seeds.push(seed);
    }
    seeds.push(
        [
            &[14, 0, 13, 7, 13, 16, 14, 9, 31, 1, 9, 9, 3, 1, 8, 0, 10][..],
            &heard(frames.first().copied().unwrap_or_default()),
        ]
        .concat(),
    );
    seeds
}

const _: () = assert!(LINGER.as_millis() < 50, "the seeds wait for it");

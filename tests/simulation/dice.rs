//! All chance in the world comes from one seed.

use core::time::Duration;

use surrogate::rng::Rng;

/// A seeded generator with the questions that the world asks.
#[derive(Debug)]
pub struct Dice(pub Rng);

impl Dice {
    pub fn seeded(seed: u64) -> Self {
        Self(Rng::seeded(seed))
    }

    pub fn below(&mut self, bound: u64) -> u64 {
        self.0.below(bound)
    }

    /// True `per_mille` times in a thousand.
    pub fn chance(&mut self, per_mille: u64) -> bool {
        per_mille > 0 && self.below(1000) < per_mille
    }

    pub fn one_of<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len() as u64) as usize]
    }

    /// A time between the two, both in microseconds.
    pub fn micros(&mut self, from: u64, to: u64) -> Duration {
        Duration::from_micros(from + self.below(to.saturating_sub(from) + 1))
    }

    /// A time around `mean`: now and then much longer, as between people's doings.
    pub fn around(&mut self, mean: Duration) -> Duration {
        let mean = u64::try_from(mean.as_micros()).unwrap_or(u64::MAX);
        let factor = self.one_of(&[1, 2, 4, 8, 8, 12, 24]);
        self.micros(mean / 16, mean / 8 + 1) * factor
    }
}

/// What can go wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// A frame is lost between a client and the bridge.
    Loss,
    /// It comes twice.
    Double,
    /// It comes much later, behind others.
    Delay,
    /// A sender damages it.
    Damage,
    /// A client sends with a guest's own MAC.
    Spoof,
    /// A hypervisor call that puts a guest to sleep fails, takes seconds, or does not return for as long as
    /// there is trouble.
    SleepFails,
    SleepIsSlow,
    SleepHangs,
    /// So does one that wakes a guest,
    WakeFails,
    WakeIsSlow,
    WakeHangs,
    /// and one that asks about it.
    LookFails,
    LookIsSlow,
    LookHangs,
    /// A guest stops for an I/O error as soon as it runs.
    IoError,
    /// A hypervisor's event comes late, or again.
    EventLate,
    EventAgain,
    /// A message inside the daemon that was done with comes again.
    MessageAgain,
    /// The connection to the hypervisor is lost, with the events meanwhile.
    Disconnect,
    /// A netlink request fails, before it has done something or by half.
    StepFails,
    /// A write to the journal fails.
    RecordFails,
    /// A guest does not read its port for a while.
    GuestDawdles,
    /// The packet thread gets no processor for a while.
    ThreadStalls,
    /// Somebody else's hand at the hypervisor.
    Stranger,
    /// The daemon is killed; its port on the bridge vanishes.
    Crash,
    /// Somebody deletes our port.
    PortLost,
}

impl Fault {
    pub const KINDS: usize = 26;
    /// Each, with how often per thousand occasions it strikes at most.
    pub const ALL: [(Self, u64); Self::KINDS] = [
        (Self::Loss, 200),
        (Self::Double, 200),
        (Self::Delay, 300),
        (Self::Damage, 500),
        (Self::Spoof, 200),
        (Self::SleepFails, 300),
        (Self::SleepIsSlow, 300),
        (Self::SleepHangs, 150),
        (Self::WakeFails, 300),
        (Self::WakeIsSlow, 300),
        (Self::WakeHangs, 150),
        (Self::LookFails, 150),
        (Self::LookIsSlow, 300),
        (Self::LookHangs, 40),
        (Self::IoError, 300),
        (Self::EventLate, 500),
        (Self::EventAgain, 500),
        (Self::MessageAgain, 300),
        (Self::Disconnect, 60),
        (Self::StepFails, 150),
        (Self::RecordFails, 200),
        (Self::GuestDawdles, 300),
        (Self::ThreadStalls, 100),
        (Self::Stranger, 700),
        (Self::Crash, 150),
        (Self::PortLost, 80),
    ];
}

/// How often things go wrong, each per thousand occasions; which of them do at all is drawn per seed, so
/// that every kind of trouble is met alone and in company.
#[derive(Clone, Debug, Default)]
pub struct Faults([u64; Fault::KINDS]);

impl Faults {
    pub fn drawn(dice: &mut Dice) -> Self {
        if dice.chance(50) {
            return Self::default();
        }
        Self(Fault::ALL.map(|(_, most)| if dice.chance(450) { 1 + dice.below(most) } else { 0 }))
    }

    /// How often this one strikes in a thousand occasions.
    pub const fn of(&self, fault: Fault) -> u64 {
        self.0[fault as usize]
    }
}

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

/// How often things go wrong, each per thousand occasions; which of them do at all is drawn per seed, so
/// that every kind of trouble is met alone and in company.
#[derive(Clone, Debug, Default)]
pub struct Faults {
    /// Frames lost, doubled or much delayed between a client and the bridge.
    pub loss: u64,
    pub doubles: u64,
    pub delay: u64,
    /// Frames damaged by their sender, or sent with a guest's own MAC.
    pub damage: u64,
    pub spoof: u64,
    /// Hypervisor calls that fail, take seconds, or do not return for as long as there is trouble.
    pub call_fails: u64,
    pub call_is_slow: u64,
    pub call_hangs: u64,
    /// A guest that stops for an I/O error as soon as it runs.
    pub io_error: u64,
    /// Events that come late, again, or not at all because the connection is down.
    pub event_late: u64,
    pub event_again: u64,
    pub disconnects: u64,
    /// Netlink requests and journal writes that fail, or are done by half.
    pub step_fails: u64,
    pub record_fails: u64,
    /// A guest that does not read its port, a packet thread that gets no processor.
    pub guest_dawdles: u64,
    pub thread_stalls: u64,
    /// Somebody else's hand at the hypervisor.
    pub strangers: u64,
    /// The daemon is killed; its port on the bridge vanishes.
    pub crashes: u64,
    pub port_lost: u64,
}

impl Faults {
    pub fn drawn(dice: &mut Dice) -> Self {
        if dice.chance(50) {
            return Self::default();
        }
        let mut draw = |most: u64| if dice.chance(450) { 1 + dice.below(most) } else { 0 };
        Self {
            loss: draw(200),
            doubles: draw(200),
            delay: draw(300),
            damage: draw(50),
            spoof: draw(20),
            call_fails: draw(300),
            call_is_slow: draw(300),
            call_hangs: draw(150),
            io_error: draw(300),
            event_late: draw(500),
            event_again: draw(500),
            disconnects: draw(60),
            step_fails: draw(150),
            record_fails: draw(200),
            guest_dawdles: draw(300),
            thread_stalls: draw(100),
            strangers: draw(700),
            crashes: draw(150),
            port_lost: draw(80),
        }
    }
}

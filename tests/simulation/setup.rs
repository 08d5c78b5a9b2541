//! What is drawn once per seed: how many, how fast, under which policy.

use core::num::NonZeroUsize;
use core::time::Duration;

use surrogate::engine::Limits;
use surrogate::guest::identity::{GuestId, InterfaceAddress, NicIdentity};
use surrogate::guest::lifecycle::{CyclePolicy, WakePolicy};
use surrogate::policy::budget::WakeBudget;
use surrogate::policy::traffic::{ClosedPorts, Flooded, HoldLimits, Listen, TrafficPolicy};

use crate::daemon::{Daemon, PORT};
use crate::dice::Dice;
use crate::frames::Station;

/// See the [module](self).
#[derive(Debug)]
pub struct Setup {
    pub limits: Limits,
    /// Nothing that is held has to go for want of room.
    pub holds_plenty: bool,
    pub traffic: TrafficPolicy,
    pub wake: WakePolicy,
    pub wake_timeout: Duration,
    pub budget: WakeBudget,
    /// Frames that a guest's own port keeps.
    pub tap_queue: usize,
    pub tap_mtu: usize,
    /// How many of a thousand doings of a client may wake a guest; the others are questions and noise.
    pub urgent: u64,
    /// Mean times between two doings.
    pub client_gap: Duration,
    pub guest_gap: Duration,
    pub people_gap: Duration,
}

impl Setup {
    pub fn drawn(dice: &mut Dice) -> Self {
        let holds_plenty = dice.chance(700);
        let hold = if holds_plenty {
            HoldLimits::default()
        } else {
            HoldLimits {
                frames: NonZeroUsize::new(dice.one_of(&[4, 12, 40])).expect("not zero"),
                bytes: NonZeroUsize::new(dice.one_of(&[2_000, 10_000, 100_000])).expect("not zero"),
                age: dice.micros(50_000, 5_000_000),
            }
        };
        let traffic = TrafficPolicy {
            listen: dice.chance(500).then(|| Listen { tcp: vec![22, 80], udp: vec![7, 5_000] }),
            closed_ports: dice.one_of(&[ClosedPorts::Reset, ClosedPorts::Silent, ClosedPorts::Wake]),
            flooded: dice.one_of(&[Flooded::Hold, Flooded::Hold, Flooded::Wake, Flooded::Absorb]),
            hold,
            ..TrafficPolicy::default()
        };
        // From a busy network, where a cycle is many steps, to a quiet one, where deadlines pass.
        let gap = Duration::from_micros(dice.one_of(&[150, 500, 1_500, 5_000, 20_000, 80_000]));
        Self {
            limits: Limits {
                held_bytes: 1 << 20,
                flooded_ring: dice.one_of(&[2, 16, 64]),
                outbox_bytes: dice.one_of(&[4_000, 64 << 10]),
                errors_per_second: dice.one_of(&[1, 1_000]),
                echoes_per_second: dice.one_of(&[3, 1_000]),
                mtu: 1_500,
            },
            holds_plenty,
            traffic,
            wake: dice.one_of(&[
                WakePolicy::Managed,
                WakePolicy::Managed,
                WakePolicy::Always,
                WakePolicy::Never,
            ]),
            wake_timeout: Duration::from_secs(dice.one_of(&[1, 5, 30])),
            budget: dice.one_of(&[
                WakeBudget { burst: 5, per_minute: 10 },
                WakeBudget { burst: 50, per_minute: 600 },
            ]),
            tap_queue: dice.one_of(&[3, 20, 1_000]),
            tap_mtu: dice.one_of(&[1_000, 1_500]),
            urgent: dice.one_of(&[20, 100, 1_000]),
            client_gap: gap,
            guest_gap: gap * 4,
            people_gap: gap * dice.one_of(&[6, 15, 40]),
        }
    }

    pub fn policy(&self, frozen: bool) -> CyclePolicy {
        CyclePolicy {
            wake: self.wake,
            budget: self.budget,
            wake_timeout: self.wake_timeout,
            hold_age: self.traffic.hold.age,
            port_sleeps: frozen,
        }
    }

    pub fn identity(&self, guest: GuestId, nic: usize, station: &Station) -> NicIdentity {
        let address = |address, prefix_len| InterfaceAddress { address, prefix_len };
        NicIdentity {
            guest,
            nic: Daemon::nic_id(nic),
            port: PORT,
            mac: station.mac,
            vlan: None,
            addresses: vec![address(station.v4.into(), 24), address(station.v6.into(), 64)],
            groups: Vec::new(),
            router: false,
            traffic: self.traffic.clone(),
        }
    }
}

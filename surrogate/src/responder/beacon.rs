//! Keeps a silent guest in the tables of switches, which forget an address after 300 s without a frame from it
//! (IEEE 802.1D-2004 7.9.2; the Linux bridge's default) and then flood what is meant for it.
//!
//! Every one to two minutes one frame to all from the guest's own MAC. Answers do not count: a switch that is
//! not on their way does not see them.

use surrogate_wire::{Frame, FrameBuf, Packet};

use super::announce;
use super::presence::Heard;
use crate::engine::Answered;
use crate::guest::identity::NicIdentity;
use crate::rng::Rng;
use crate::time::{Duration, Instant};

/// The longest silence.
pub const LONGEST: Duration = Duration::from_secs(120);

/// See the [module](self).
#[derive(Clone, Debug, Default)]
pub struct Beacon {
    next: Option<Instant>,
    /// Which of the guest's addresses is next: in turn, so that all are seen.
    turn: usize,
}

impl Beacon {
    /// Needs to know nothing.
    #[allow(clippy::unused_self, reason = "as all presence protocols")]
    pub fn learned(&self, _: Instant) {}

    /// As new.
    #[must_use]
    pub fn restore((): &(), _: Instant, _: Duration) -> Self {
        Self::default()
    }

    /// Needs to know nothing.
    pub fn learn(&mut self, _: Instant, _: bool, _: &Frame<'_>, _: &Packet<'_>) {}

    /// Is asked by nobody.
    pub fn hear(&mut self, _: Instant, _: &mut Rng, _: &NicIdentity, _: &Frame<'_>, _: &Packet<'_>) -> Heard {
        Heard::NotMine
    }

    /// When the next frame is due.
    #[must_use]
    pub fn due(&self) -> Option<Instant> {
        self.next
    }

    /// Announces the next address; without any, the MAC alone.
    pub fn speak(
        &mut self,
        now: Instant,
        rng: &mut Rng,
        identity: &NicIdentity,
        out: &mut FrameBuf<'_>,
    ) -> Option<Answered> {
        if self.next.is_none_or(|next| now < next) {
            return None;
        }
        self.next = Some(now + some_time(rng));
        match identity.addresses.get(self.turn).or_else(|| identity.addresses.first()) {
            Some(address) => {
                self.turn = (self.turn + 1) % identity.addresses.len();
                announce::announce(identity, address.address, out)?;
            }
            None => announce::announce_mac(identity, out)?,
        }
        Some(Answered::Presence)
    }

    /// Begins: the guest was heard just now.
    pub fn sleep(&mut self, now: Instant, rng: &mut Rng, _: &NicIdentity) {
        self.next = Some(now + some_time(rng));
    }

    /// Ends.
    pub fn wake(&mut self) {
        self.next = None;
    }
}

/// Between half of the longest time and nearly all of it: sleepers of one host shall not speak all at once, and
/// a timer may be a little late.
fn some_time(rng: &mut Rng) -> Duration {
    LONGEST / 2 + Duration::from_millis(rng.below(55_000))
}

#[cfg(test)]
mod tests {
    use core::net::IpAddr;

    use surrogate_wire::{Mac, arp, ethertype};

    use super::*;
    use crate::responder::testing::{GUEST, GUEST_V4, GUEST_V6, guest, read};

    /// Everything said in so many seconds of sleep, with the moment.
    fn said(identity: &NicIdentity, seconds: u64) -> Vec<(Instant, Vec<u8>)> {
        let mut rng = Rng::seeded(3);
        let mut beacon = Beacon::default();
        beacon.sleep(Instant::ZERO, &mut rng, identity);
        let mut all = Vec::new();
        while let Some(now) = beacon.due().filter(|due| *due <= Instant::ZERO + Duration::from_secs(seconds))
        {
            let mut memory = [0xee; 256];
            let mut out = FrameBuf::new(&mut memory);
            assert_eq!(beacon.speak(now, &mut rng, identity, &mut out), Some(Answered::Presence));
            all.push((now, out.as_bytes().to_vec()));
        }
        all
    }

    #[test]
    fn something_from_the_guests_mac_goes_to_all_at_least_every_two_minutes_for_a_week() {
        let mut last = Instant::ZERO;
        let all = said(&guest(), 7 * 86_400);
        for (at, bytes) in &all {
            assert!(at.since(last) <= LONGEST, "{:?} of silence", at.since(last));
            let (frame, _) = read(bytes);
            assert!(frame.src == GUEST && frame.dst.0[0] & 1 == 1, "{frame:?}");
            last = *at;
        }
        assert!(all.len() < 7 * 86_400 / 60, "{} frames are too many", all.len());
    }

    #[test]
    fn all_addresses_have_their_turn() {
        let all = said(&guest(), 1_000);
        let announced: Vec<IpAddr> = all
            .iter()
            .map(|(_, bytes)| match read(bytes).1 {
                Packet::Arp(arp) => arp.spa.into(),
                packet => packet.addresses().expect("an advertisement").0,
            })
            .collect();
        assert!(announced.windows(2).all(|two| two[0] != two[1]), "{announced:?}");
        assert!(announced.iter().all(|a| [GUEST_V4.into(), GUEST_V6.into()].contains(a)), "{announced:?}");
    }

    #[test]
    fn a_nic_without_addresses_shows_its_mac_alone() {
        let bare = NicIdentity { addresses: Vec::new(), ..guest() };
        for (_, bytes) in said(&bare, 300) {
            let (frame, _) = read(&bytes);
            assert_eq!((frame.src, frame.dst, frame.ethertype), (GUEST, Mac::BROADCAST, ethertype::RARP));
            assert_eq!(bytes.get(20..22), Some(&arp::REVERSE_REQUEST.to_be_bytes()[..]));
        }
    }

    #[test]
    fn an_awake_guest_speaks_for_itself() {
        let mut rng = Rng::seeded(3);
        let mut beacon = Beacon::default();
        assert_eq!(beacon.due(), None);
        beacon.sleep(Instant::ZERO, &mut rng, &guest());
        beacon.wake();
        assert_eq!(beacon.due(), None);
    }
}

//! A router that advertises two prefixes, the second one on the first day only; and a neighbour that asks for the
//! guest's address in it: answered as long as it is valid, and not any more when it has expired (RFC 4862 5.5.4).

use core::net::Ipv6Addr;
use core::ops::RangeInclusive;

use surrogate::rng::Rng;
use surrogate::time::{Duration, Instant};
use surrogate_wire::icmpv6::solicited_node;
use surrogate_wire::{Frame, Icmpv6Body, Packet, Transport};

use crate::frames::{self, Station};
use crate::link::{GUEST, Lives, Questions, seconds};

const OWN: Station = Station::numbered(1);
/// The guest's address in the prefix that goes away.
pub const RENUMBERED: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 9, 0, 0, 0x12, 11);
const VALID: Duration = seconds(7_200);
/// When its prefix is advertised no more, and when it is over at the latest.
pub const RENUMBERS: Instant = Instant::from_nanos(86_400_000_000_000);
pub const GONE: Instant = Instant::from_nanos(RENUMBERS.as_nanos() + 7_200_000_000_000);

pub struct Router {
    next: Instant,
    asks_at: Instant,
    /// When the last advertisement of the second prefix went out.
    advertised: Instant,
    questions: Questions<()>,
    /// Asked when it was over.
    in_vain: u64,
}

impl Router {
    pub fn new(now: Instant) -> Self {
        let asks_at = now + seconds(600);
        Self { next: now, asks_at, advertised: now, questions: Questions::none(), in_vain: 0 }
    }

    fn advertisement(prefixes: &[Ipv6Addr]) -> Vec<u8> {
        let mut body = vec![0; 8];
        for prefix in prefixes {
            let valid = (VALID.as_secs() as u32).to_be_bytes();
            // 64 bits, on-link and autonomous.
            body.extend_from_slice(&[3, 4, 64, 0xc0]);
            body.extend_from_slice(&[&valid[..], &valid, &[0; 4], &prefix.octets()].concat());
        }
        let all = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
        let [l0, l1] = 1_800u16.to_be_bytes();
        frames::icmpv6(OWN.mac, GUEST.mac, OWN.link_local, all, 134, [64, 0, l0, l1], &body)
    }
}

fn prefix(of: Ipv6Addr) -> Ipv6Addr {
    Ipv6Addr::from_bits(of.to_bits() >> 64 << 64)
}

impl Lives for Router {
    fn due(&self) -> Instant {
        self.next.min(self.questions.until().unwrap_or(self.asks_at))
    }

    fn act(&mut self, now: Instant, rng: &mut Rng, out: &mut Vec<Vec<u8>>) {
        if now >= self.next {
            let both = [prefix(GUEST.v6), prefix(RENUMBERED)];
            if now < RENUMBERS {
                self.advertised = now;
                out.push(Self::advertisement(&both));
            } else {
                out.push(Self::advertisement(&both[..1]));
            }
            self.next = now + seconds(200 + rng.below(400));
        }
        self.questions.check(now);
        if now >= self.asks_at {
            let body = [&RENUMBERED.octets()[..], &[1, 1], &OWN.mac.0].concat();
            let to = solicited_node(RENUMBERED);
            out.push(frames::icmpv6(OWN.mac, GUEST.mac, OWN.link_local, to, 135, [0; 4], &body));
            if now.since(self.advertised) < VALID {
                self.questions.ask(now, (), seconds(1));
            } else {
                self.in_vain += 1;
            }
            self.asks_at = now + seconds(600);
        }
    }

    fn see(&mut self, now: Instant, frame: &Frame<'_>, packet: &Packet<'_>, _: &mut Vec<Vec<u8>>) {
        let Packet::Ipv6(_, Transport::Icmpv6(icmp)) = packet else { return };
        if frame.dst == OWN.mac
            && let Icmpv6Body::Advertisement(told) = icmp.body
        {
            assert!(self.questions.awaits().is_some(), "{told:?} at {now:?}");
            assert_eq!(told.target, RENUMBERED);
            self.questions.answered();
        }
    }

    fn tally(&self, now: Instant) -> (&'static str, u64, RangeInclusive<u64>) {
        let asked = now.since(Instant::ZERO).as_secs() / 600;
        assert!(now < GONE || self.in_vain > asked / 2, "{} times of {asked}", self.in_vain);
        self.questions.tally("questions for an address that ends answered")
    }
}

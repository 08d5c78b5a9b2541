//! A sleeper's addresses that end while it sleeps, as routers told (see [`router`](crate::responder::router)): from
//! then on until it has woken nobody is answered for them.
//!
//! Routers are heard by LAN, whoever sleeps there. A sleeper looks when it falls asleep, and again when the first of
//! its addresses may end, which no advertisement in between brings nearer.

use core::net::IpAddr;

use surrogate_wire::icmpv6::ROUTER_ADVERTISEMENT;
use surrogate_wire::{Packet, Transport};

use super::Engine;
use super::contract::{Mode, Notice};
use super::view::View;
use super::wake::Once;
use crate::guest::table::{Lan, Place};
use crate::time::Instant;

impl Engine {
    /// Takes note of a flooded frame, if it is a router's advertisement.
    pub(super) fn hear_router(&mut self, now: Instant, lan: Lan, view: View<'_, '_>) {
        if let Ok(packet) = view.packet
            && let Packet::Ipv6(_, Transport::Icmpv6(icmp)) = packet
            && icmp.kind == ROUTER_ADVERTISEMENT
            && view.frame.tags.inner_vid().is_none()
            && let Some(routers) = self.routers.get_mut(&lan)
        {
            routers.hear(now, packet);
        }
    }

    /// Does without the addresses of a sleeper that are over, and sets the time to look again.
    pub(super) fn check_addresses(&mut self, now: Instant, place: Place) {
        let mut again = None;
        let mut n = 0;
        loop {
            let Some(nic) = self.nics.get_mut(place as usize).and_then(Option::as_mut) else { return };
            nic.check_at = again;
            let Some(held) = nic.identity.addresses.get(n).filter(|_| nic.mode == Mode::Answer) else {
                break;
            };
            let address = held.address;
            let valid = match address {
                // One that was leased has the lease's lifetime (RFC 8415 18.2.10.1), and those of the link have none.
                IpAddr::V6(v6) if !v6.is_unicast_link_local() && !nic.presence.leases(address) => self
                    .routers
                    .get(&Lan::of(&nic.identity))
                    .map_or(Validity::Endless, |routers| match routers.valid_until(now, v6) {
                        Some(until) => Validity::Until(until),
                        None => Validity::Over,
                    }),
                IpAddr::V4(_) | IpAddr::V6(_) => Validity::Endless,
            };
            match valid {
                Validity::Endless => n += 1,
                Validity::Until(until) => {
                    again = Some(again.map_or(until, |again: Instant| again.min(until)));
                    n += 1;
                }
                Validity::Over => {
                    nic.counters.expired += 1;
                    if nic.told.first(Once::Expired) {
                        let (nic, epoch) = (nic.identity.nic, nic.epoch);
                        self.notices.push(Notice::Expired { nic, epoch, address });
                    }
                    self.withdraw(place, address);
                }
            }
        }
        if let Some(at) = again {
            self.timers.sooner(place, at);
        }
    }
}

enum Validity {
    Endless,
    Until(Instant),
    Over,
}

//! A sleeper's addresses that end while it sleeps, as routers told (see [`router`](crate::responder::router)): from
//! then on until it has woken, or a router advertises their prefix again, nobody is answered for them.
//!
//! Routers are heard by LAN, whoever sleeps there. A sleeper looks when it falls asleep, and again when the first of
//! its addresses may end, which no advertisement in between brings nearer.

use core::net::IpAddr;

use surrogate_wire::icmpv6::ROUTER_ADVERTISEMENT;
use surrogate_wire::{Packet, Transport};

use super::Engine;
use super::contract::{Mode, Notice};
use super::nic::Ended;
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
            && routers.hear(now, packet)
        {
            // By number, since the list cannot be borrowed while the engine decides.
            for n in 0.. {
                let Some(&place) = self.table.standing(lan).get(n) else { return };
                self.check_addresses(now, place);
            }
        }
    }

    /// Whoever stands in for a guest of a VLAN hears what its routers say; where nobody does, our port is not in it.
    pub(super) fn listen_to_routers(&mut self, now: Instant, lan: Lan) {
        let Some(routers) = self.routers.get_mut(&lan) else { return };
        if lan.vid != 0 && self.table.standing(lan).is_empty() {
            routers.leave(now);
        } else {
            routers.listen(now);
        }
    }

    /// What of a sleeper's addresses ended with its prefix, and did not for good, is its own again.
    fn revive_addresses(&mut self, now: Instant, place: Place) {
        let Some(nic) = self.nics.get_mut(place as usize).and_then(Option::as_mut) else { return };
        let Some(routers) = self.routers.get(&Lan::of(&nic.identity)).filter(|_| nic.mode == Mode::Answer)
        else {
            return;
        };
        let begins = |address: IpAddr, why: Ended| match address {
            IpAddr::V6(v6) => why == Ended::Prefix && routers.valid_until(now, v6).is_some(),
            IpAddr::V4(_) => false,
        };
        while let Some((held, _)) = nic.give_back(begins) {
            self.table.give_back(&nic.identity, held.address, place);
        }
    }

    /// Does without the addresses of a sleeper that are over, with those again that are not any more, and sets the time
    /// to look again.
    pub(super) fn check_addresses(&mut self, now: Instant, place: Place) {
        self.revive_addresses(now, place);
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
                    self.withdraw(place, address, Ended::Prefix);
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

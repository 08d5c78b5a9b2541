//! Presence: what a host says on its link without being asked by one frame at that moment, and what it must have
//! learned for it. Each protocol is a file with a state of its own; this is all of a NIC's together.
//!
//! While the guest is awake they only [`learn`](Presence::learn). From its sleep on they
//! [`hear`](Presence::hear) what comes from the network and [`speak`](Presence::speak) when it is due. No clock, no
//! I/O; hearing and speaking allocate nothing.

use core::net::IpAddr;

use serde::{Deserialize, Serialize};
use surrogate_wire::{Frame, FrameBuf, Packet, icmpv6};

use super::beacon::Beacon;
use super::dhcpv4::{Dhcpv4, Dhcpv4Learned};
use super::dhcpv6::{Dhcpv6, Dhcpv6Learned};
use super::igmp::{Igmp, IgmpLearned};
use super::lease::Alarm;
use super::llmnr::{Llmnr, LlmnrLearned};
use super::mdns::{Mdns, MdnsLearned};
use super::mld::{Mld, MldLearned};
use super::netbios::{Netbios, NetbiosLearned};
use crate::engine::{Answered, WakeReason};
use crate::guest::identity::NicIdentity;
use crate::rng::Rng;
use crate::time::{Duration, Instant};

/// What a presence protocol makes of a frame for a sleeper.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heard {
    /// Not this protocol's: the engine goes on as if it had not been asked.
    NotMine,
    /// This protocol's, and nothing is owed.
    Noted,
    /// An answer is owed and will be spoken: at once, or after a delay.
    Owed(Answered),
    /// An answer would be owed, but as many as there is room for wait already.
    TooMany,
    /// Only the guest can decide: the frame is held and wakes it.
    Wake(WakeReason),
}

/// Writes [`Presence`] for a list of protocols.
macro_rules! presence {
    ($($(#[$doc:meta])* $protocol:ident: $state:ident => $learned:ty,)+) => {
        /// All presence protocols of one NIC. See the [module](self).
        #[derive(Clone, Debug, Default)]
        pub struct Presence {
            asleep: bool,
            $($(#[$doc])* pub $protocol: $state,)+
        }

        /// What of it must survive a restart of the daemon.
        #[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
        #[serde(default)]
        pub struct Learned {
            $($(#[$doc])* pub $protocol: $learned,)+
        }

        impl Presence {
            /// What was learned, with times relative to `now`.
            #[must_use]
            pub fn learned(&self, now: Instant) -> Learned {
                Learned { $($protocol: self.$protocol.learned(now),)+ }
            }

            /// Takes what was learned `ago` before `now`, in place of what is known. Nothing is due before
            /// [`sleep`](Self::sleep).
            pub fn restore(&mut self, learned: &Learned, now: Instant, ago: Duration) {
                *self = Self {
                    asleep: false,
                    $($protocol: $state::restore(&learned.$protocol, now, ago),)+
                };
            }

            /// Takes note of a frame that the awake guest itself sent (`from_guest`) or got.
            pub fn learn(&mut self, now: Instant, from_guest: bool, frame: &Frame<'_>, packet: &Packet<'_>) {
                $(self.$protocol.learn(now, from_guest, frame, packet);)+
            }

            /// Takes a frame from the network while we speak for the guest.
            pub fn hear(
                &mut self,
                now: Instant,
                rng: &mut Rng,
                identity: &NicIdentity,
                frame: &Frame<'_>,
                packet: &Packet<'_>,
            ) -> Heard {
                $(
                    let heard = self.$protocol.hear(now, rng, identity, frame, packet);
                    if heard != Heard::NotMine {
                        return heard;
                    }
                )+
                Heard::NotMine
            }

            /// When there is something to say next.
            #[must_use]
            pub fn due(&self) -> Option<Instant> {
                [$(self.$protocol.due(),)+].into_iter().flatten().min()
            }

            /// Writes the next frame that is due, if any.
            pub fn speak(
                &mut self,
                now: Instant,
                rng: &mut Rng,
                identity: &NicIdentity,
                out: &mut FrameBuf<'_>,
            ) -> Option<Answered> {
                $(
                    if self.$protocol.due().is_some_and(|due| due <= now)
                        && let Some(said) = self.$protocol.speak(now, rng, identity, out)
                    {
                        return Some(said);
                    }
                )+
                None
            }

            /// We speak for the guest from now on. Again, for one that we speak for already: nothing changes.
            pub fn sleep(&mut self, now: Instant, rng: &mut Rng, identity: &NicIdentity) {
                if !core::mem::replace(&mut self.asleep, true) {
                    $(self.$protocol.sleep(now, rng, identity);)+
                }
            }

            /// The guest speaks for itself: nothing is due any more, what was learned stays.
            pub fn wake(&mut self) {
                if core::mem::replace(&mut self.asleep, false) {
                    $(self.$protocol.wake();)+
                }
            }
        }
    };
}

presence! {
    /// Keeps the guest in the tables of switches.
    beacon: Beacon => (),
    /// Keeps its IPv4 lease.
    dhcpv4: Dhcpv4 => Option<Dhcpv4Learned>,
    /// Keeps its IPv6 leases.
    dhcpv6: Dhcpv6 => Option<Dhcpv6Learned>,
    /// Keeps switches that snoop on IGMP sending it its groups.
    igmp: Igmp => IgmpLearned,
    /// The same for MLD.
    mld: Mld => MldLearned,
    /// Its names and services on the link.
    mdns: Mdns => MdnsLearned,
    /// Its host name on the link.
    llmnr: Llmnr => LlmnrLearned,
    /// Its NetBIOS names.
    netbios: Netbios => NetbiosLearned,
}

impl Learned {
    /// The groups that the guest told of.
    pub fn groups(&self) -> impl Iterator<Item = IpAddr> {
        let v4 = self.igmp.iter().map(|membership| IpAddr::V4(membership.group));
        v4.chain(self.mld.groups.iter().map(|membership| IpAddr::V6(membership.group)))
    }
}

impl Presence {
    /// What is due beside frames: ask until there is none, before [`speak`](Self::speak).
    pub fn alarm(&mut self, now: Instant) -> Option<Alarm> {
        self.dhcpv4.alarm(now).or_else(|| self.dhcpv6.alarm(now))
    }

    /// The groups that the guest told of, those that follow from its addresses left out.
    pub fn groups(&self) -> impl Iterator<Item = IpAddr> {
        let follows =
            |group: &IpAddr| matches!(group, IpAddr::V6(group) if icmpv6::is_solicited_node(*group));
        self.igmp.groups().chain(self.mld.groups()).filter(move |group| !follows(group))
    }

    /// How often these may have changed.
    #[must_use]
    pub fn changes_of_groups(&self) -> u64 {
        self.igmp.changes().wrapping_add(self.mld.changes())
    }

    /// Whether `address` was leased, so that its lifetime is the lease's.
    #[must_use]
    pub fn leases(&self, address: IpAddr) -> bool {
        matches!(address, IpAddr::V6(address) if self.dhcpv6.leases(address))
    }

    /// How often a limit kept something from being remembered.
    #[must_use]
    pub fn limited(&self) -> u64 {
        let names = [self.mdns.limited(), self.llmnr.limited(), self.netbios.limited()];
        names.into_iter().chain([self.igmp.limited(), self.mld.limited()]).fold(0, u64::wrapping_add)
    }

    /// Whether a packet may be one of a presence protocol at all: most are not.
    #[must_use]
    pub fn may_know(packet: &Packet<'_>) -> bool {
        use surrogate_wire::{Transport, protocol};

        match packet.transport() {
            Some(Transport::Other(number)) => *number == protocol::IGMP,
            // Listener queries and reports, router advertisements (RFC 2710, RFC 9777, RFC 4861).
            Some(Transport::Icmpv6(icmp)) => matches!(icmp.kind, 130..=132 | 134 | 143),
            // DHCP, NetBIOS names, mDNS, LLMNR.
            Some(Transport::Udp(udp)) => matches!(udp.dst_port, 68 | 546 | 137 | 5353 | 5355),
            _ => false,
        }
    }
}

//! A reply for a request, in a sleeping guest's name: one protocol, one file.
//!
//! Every responder has the same shape: the guest's [`NicIdentity`], the [`Frame`] that came (whose tags
//! and priority the answer mirrors), the [`Packet`] in it, and a [`FrameBuf`] that the answer is
//! written into; `None` where a real host would stay silent. They read no clock and keep nothing:
//! whether it is the time to speak at all, rate limits, and frames of the guest's own MAC are the
//! engine's to decide. No answer is longer than what it answers, save for padding, the option of
//! an advertisement and the quoting errors of [`mod@unreachable`]; a request that fits the MTU has an
//! answer that does.
//!
//! Those that speak later, or of their own accord, keep a state each: [`presence`].
//!
//! [`reply_for`] asks those whose answer follows from the identity alone; [`tcp_reset`] and
//! [`mod@unreachable`] speak for closed ports, which is a matter of policy.

pub mod announce;
pub mod arp;
pub mod barrier;
pub mod beacon;
mod datagram;
pub mod daytime;
pub mod dhcpv4;
pub mod dhcpv6;
mod envelope;
pub mod icmpv4;
pub mod icmpv6;
pub mod igmp;
pub mod lease;
pub mod llmnr;
pub mod mdns;
pub mod membership;
pub mod mld;
pub mod ndisc;
pub mod netbios;
pub mod presence;
pub mod router;
pub mod tcp_reset;
pub mod udp_echo;
pub mod unreachable;

use surrogate_wire::{Frame, FrameBuf, Packet, Transport};

use crate::engine::Answered;
use crate::guest::identity::NicIdentity;

/// Writes the answer that the guest owes for `packet` into `out`, complete and padded; `None` if it
/// would stay silent, or if the answer is not for us to give.
#[inline]
pub fn reply_for(
    identity: &NicIdentity,
    frame: &Frame<'_>,
    packet: &Packet<'_>,
    out: &mut FrameBuf<'_>,
) -> Option<Answered> {
    match packet {
        Packet::Arp(_) => arp::reply_for(identity, frame, packet, out),
        Packet::Ipv4(_, Transport::Icmpv4(_)) => icmpv4::reply_for(identity, frame, packet, out),
        Packet::Ipv6(_, Transport::Icmpv6(_)) => ndisc::reply_for(identity, frame, packet, out)
            .or_else(|| icmpv6::reply_for(identity, frame, packet, out)),
        Packet::Ipv4(_, Transport::Udp(_)) | Packet::Ipv6(_, Transport::Udp(_)) => {
            udp_echo::reply_for(identity, frame, packet, out)
        }
        _ => None,
    }
}

#[cfg(test)]
mod testing;

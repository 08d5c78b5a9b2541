//! What happened, in numbers: per NIC, plain integers, added up by whoever reads them.

use core::num::Wrapping;

use serde::{Deserialize, Serialize};

use super::by_name;
use super::verdict::{Answered, DropReason, Verdict};

/// Counters of one NIC since it was registered. Each counts (frame, guest) pairs.
///
/// Two equations hold after every call of the engine:
///
/// ```text
/// concerned = answered + absorbed + stubbed + held + dropped
/// held      = replayed + reclassified + held_dropped + holding
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counters {
    /// Frames that concerned the sleeper.
    pub concerned: u64,
    /// Answered on arrival, by responder.
    #[serde(with = "by_name::answered")]
    pub answered: [u64; Answered::KINDS],
    /// Absorbed on arrival.
    pub absorbed: u64,
    /// Given to a stub on arrival.
    pub stubbed: u64,
    /// Held on arrival (with or without waking).
    pub held: u64,
    /// Dropped on arrival, by reason.
    #[serde(with = "by_name::dropped")]
    pub dropped: [u64; DropReason::KINDS],
    /// Held, then delivered to the guest.
    pub replayed: u64,
    /// Held, then answered or absorbed when the guest was asleep.
    pub reclassified: u64,
    /// Held, then dropped, by reason.
    #[serde(with = "by_name::dropped")]
    pub held_dropped: [u64; DropReason::KINDS],
    /// Held now: frames.
    pub holding: u64,
    /// Held now: bytes.
    pub holding_bytes: u64,
    /// Frames that came when the release was done or on its way, and may have been overtaken by direct
    /// ones (part of `held`, then of `replayed`).
    pub overtaken: u64,
    /// Unicast frames of an awake guest that reached our port. Zero unless steering failed.
    pub awake_unicast: u64,
    /// Frames of ours that the port did not take.
    pub transmit_failed: u64,
    /// Frames that came from the NIC's own MAC while we answered for it: forged, unless it ran.
    pub own_source: u64,
    /// Those of them that silenced us until the hypervisor was asked.
    pub silencing: u64,
    /// Claims of other hosts to its addresses, defended or not.
    #[serde(default)]
    pub conflicts: u64,
    /// Frames of ours that were sent when their time came and not as the answer to one frame at once, by
    /// protocol.
    #[serde(with = "by_name::answered")]
    pub spoken: [u64; Answered::KINDS],
    /// Frames seen at the NIC's own port while its guest was awake.
    pub observed: u64,
    /// How often a limit kept something that the guest told, or its routers, from being remembered.
    pub unremembered: u64,
    /// Addresses that are not answered for any more since their lifetime is over, as routers told.
    pub expired: u64,
}

impl Counters {
    /// Counts one verdict on arrival.
    pub fn count(&mut self, verdict: Verdict) {
        self.concerned += 1;
        match verdict {
            Verdict::Answer(a) => bump(&mut self.answered, a as usize),
            Verdict::Absorb => self.absorbed += 1,
            Verdict::Stub => self.stubbed += 1,
            Verdict::Hold | Verdict::HoldAndWake => self.held += 1,
            Verdict::Drop(r) => bump(&mut self.dropped, r as usize),
        }
    }

    /// Counts a frame of our own accord.
    pub fn count_spoken(&mut self, by: Answered) {
        bump(&mut self.spoken, by as usize);
    }

    /// Counts a held frame that was dropped.
    pub fn count_held_dropped(&mut self, reason: DropReason) {
        bump(&mut self.held_dropped, reason as usize);
    }

    /// Checks both equations.
    ///
    /// # Errors
    /// Says which one fails, with both sides.
    pub fn conserved(&self) -> Result<(), String> {
        let sum = |of: &[u64]| of.iter().copied().map(Wrapping).sum::<Wrapping<u64>>().0;
        let arrived = sum(&self.answered) + self.absorbed + self.stubbed + self.held + sum(&self.dropped);
        if self.concerned != arrived {
            return Err(format!("concerned {} != accounted for {arrived}: {self:?}", self.concerned));
        }
        let left = self.replayed + self.reclassified + sum(&self.held_dropped) + self.holding;
        if self.held != left {
            return Err(format!("held {} != accounted for {left}: {self:?}", self.held));
        }
        Ok(())
    }
}

fn bump(of: &mut [u64], at: usize) {
    if let Some(n) = of.get_mut(at) {
        *n += 1;
    }
}

impl Answered {
    /// How many there are.
    pub const KINDS: usize = 22;
    /// All of them, in the order of the counters' arrays.
    pub const ALL: [Self; Self::KINDS] = [
        Self::Arp,
        Self::ArpDefence,
        Self::Ndisc,
        Self::NdiscDefence,
        Self::Icmpv4Echo,
        Self::Icmpv6Echo,
        Self::UdpEcho,
        Self::TcpReset,
        Self::PortUnreachable,
        Self::Presence,
        Self::Igmp,
        Self::Mld,
        Self::Dhcpv4,
        Self::Dhcpv6,
        Self::Mdns,
        Self::Llmnr,
        Self::Netbios,
        Self::Daytime,
        Self::KeepAlive,
        Self::WindowProbe,
        Self::DuplicateAck,
        Self::ChallengeAck,
    ];

    /// Its name in metrics, events and JSON.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Arp => "arp",
            Self::ArpDefence => "arp-defence",
            Self::Ndisc => "ndisc",
            Self::NdiscDefence => "ndisc-defence",
            Self::Icmpv4Echo => "icmpv4-echo",
            Self::Icmpv6Echo => "icmpv6-echo",
            Self::UdpEcho => "udp-echo",
            Self::TcpReset => "tcp-reset",
            Self::PortUnreachable => "port-unreachable",
            Self::Presence => "presence",
            Self::Igmp => "igmp",
            Self::Mld => "mld",
            Self::Dhcpv4 => "dhcpv4",
            Self::Dhcpv6 => "dhcpv6",
            Self::Mdns => "mdns",
            Self::Llmnr => "llmnr",
            Self::Netbios => "netbios",
            Self::Daytime => "daytime",
            Self::KeepAlive => "keep-alive",
            Self::WindowProbe => "window-probe",
            Self::DuplicateAck => "duplicate-ack",
            Self::ChallengeAck => "challenge-ack",
        }
    }
}

impl DropReason {
    /// How many there are.
    pub const KINDS: usize = 20;
    /// All of them, in the order of the counters' arrays.
    pub const ALL: [Self; Self::KINDS] = [
        Self::Malformed,
        Self::BadChecksum,
        Self::BadSource,
        Self::SourceRoute,
        Self::UnknownOption,
        Self::Duplicate,
        Self::ClosedPort,
        Self::RateLimited,
        Self::BufferFull,
        Self::HostFull,
        Self::Aged,
        Self::FloodedRing,
        Self::TooLong,
        Self::GuestGone,
        Self::OutputFull,
        Self::EchoLoop,
        Self::OwnFrame,
        Self::FragmentOverlap,
        Self::FragmentTimeout,
        Self::FragmentLimit,
    ];

    /// Its name in metrics, events and JSON.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::BadChecksum => "bad-checksum",
            Self::BadSource => "bad-source",
            Self::SourceRoute => "source-route",
            Self::UnknownOption => "unknown-option",
            Self::Duplicate => "duplicate",
            Self::ClosedPort => "closed-port",
            Self::RateLimited => "rate-limited",
            Self::BufferFull => "buffer-full",
            Self::HostFull => "host-full",
            Self::Aged => "aged",
            Self::FloodedRing => "flooded-ring",
            Self::TooLong => "too-long",
            Self::GuestGone => "guest-gone",
            Self::OutputFull => "output-full",
            Self::EchoLoop => "echo-loop",
            Self::OwnFrame => "own-frame",
            Self::FragmentOverlap => "fragment-overlap",
            Self::FragmentTimeout => "fragment-timeout",
            Self::FragmentLimit => "fragment-limit",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_stands_at_its_own_place_under_its_own_name() {
        for (at, answered) in Answered::ALL.into_iter().enumerate() {
            assert_eq!(answered as usize, at, "{}", answered.name());
        }
        for (at, reason) in DropReason::ALL.into_iter().enumerate() {
            assert_eq!(reason as usize, at, "{}", reason.name());
        }
    }
}

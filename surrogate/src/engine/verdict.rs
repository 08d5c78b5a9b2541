//! The decision about one frame for one guest.

use serde::{Deserialize, Serialize};

use crate::guest::identity::NicId;

/// What became of a frame, for one NIC of a sleeper that it concerns.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// Answered in the guest's name.
    Answer(Answered),
    /// Known noise that concerns the sleeper but needs no answer.
    Absorb,
    /// Kept for the guest; not worth waking it.
    Hold,
    /// Kept for the guest, and worth waking it.
    HoldAndWake,
    /// Given to a listener stub.
    Stub,
    /// Discarded.
    Drop(DropReason),
}

/// Which protocol spoke in the guest's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Answered {
    /// ARP request or probe.
    Arp,
    /// ARP conflict defended by an announcement.
    ArpDefence,
    /// Neighbour solicitation, also for duplicate address detection.
    Ndisc,
    /// Neighbour advertisement of another host for our address, defended.
    NdiscDefence,
    /// `ICMPv4` echo.
    Icmpv4Echo,
    /// `ICMPv6` echo.
    Icmpv6Echo,
    /// UDP echo, port 7.
    UdpEcho,
    /// TCP reset for a closed port.
    TcpReset,
    /// Port unreachable for a closed UDP port.
    PortUnreachable,
    /// An announcement of its own accord, so that switches keep the address.
    Presence,
    /// IGMP query, or the report that answers it.
    Igmp,
    /// MLD query, or the report that answers it.
    Mld,
    /// DHCP: a lease renewed.
    Dhcpv4,
    /// DHCPv6: a lease renewed.
    Dhcpv6,
    /// Multicast DNS.
    Mdns,
    /// Link-local multicast name resolution.
    Llmnr,
    /// NetBIOS name service.
    Netbios,
    /// Daytime, port 13.
    Daytime,
    /// TCP keep-alive of a connection in custody; also one of ours, if configured.
    KeepAlive,
    /// TCP window probe of a connection in custody.
    WindowProbe,
    /// Repeated data of a connection in custody.
    DuplicateAck,
    /// Challenge ACK (RFC 5961) of a connection in custody.
    ChallengeAck,
}

/// Why a frame was discarded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DropReason {
    /// Too short, or its lengths contradict each other.
    Malformed,
    /// A checksum that the kernel did not vouch for is wrong.
    BadChecksum,
    /// Group or zero source MAC, or an IP source that no single host can have.
    BadSource,
    /// An IP source route option, or a routing header of type 0.
    SourceRoute,
    /// An IPv6 option that nobody knows and that says to discard the packet.
    UnknownOption,
    /// A repeated SYN or segment of which a copy is held.
    Duplicate,
    /// To a port that is declared closed, policy `silent`.
    ClosedPort,
    /// An answer was due but the error or echo limit forbids it.
    RateLimited,
    /// A newer or more precious frame needed its place in the guest's hold buffer, or it found none.
    BufferFull,
    /// The memory for held frames of all guests is used up.
    HostFull,
    /// Held longer than the limit.
    Aged,
    /// The newest-kept ring of flooded frames moved on.
    FloodedRing,
    /// The guest's port will never take it (longer than its MTU).
    TooLong,
    /// The guest is gone, deleted or shut off.
    GuestGone,
    /// The queue of our own answers is full.
    OutputFull,
    /// A UDP echo from a port that would answer again.
    EchoLoop,
    /// A frame from the guest's own MAC: it is never answered.
    OwnFrame,
    /// A fragment that overlaps another one of its datagram: all of them go.
    FragmentOverlap,
    /// A fragment of a datagram that did not become whole in time, and would have been ours to answer.
    FragmentTimeout,
    /// A fragment of a datagram that gave way at a limit of reassembly.
    FragmentLimit,
}

/// The verdicts about one frame: none if it concerns no sleeper (`Foreign`).
///
/// Holds the first [`Verdicts::KEPT`]; the rest are counted only.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Verdicts {
    kept: [Option<(NicId, Verdict)>; Verdicts::KEPT],
    total: u32,
}

impl Verdicts {
    /// How many are kept.
    pub const KEPT: usize = 8;

    /// Adds one.
    pub fn push(&mut self, nic: NicId, verdict: Verdict) {
        if let Some(slot) = self.kept.iter_mut().find(|s| s.is_none()) {
            *slot = Some((nic, verdict));
        }
        self.total = self.total.saturating_add(1);
    }

    /// Whether the frame concerned no sleeper.
    #[must_use]
    pub const fn is_foreign(&self) -> bool {
        self.total == 0
    }

    /// How many there were, kept or not.
    #[must_use]
    pub const fn total(&self) -> u32 {
        self.total
    }

    /// The kept ones, in order.
    pub fn iter(&self) -> impl Iterator<Item = (NicId, Verdict)> + '_ {
        self.kept.iter().flatten().copied()
    }
}

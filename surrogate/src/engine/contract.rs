//! The engine's contract: what goes in and what comes out.
//!
//! In: frames ([`Received`](surrogate_wire::Received)), [`Command`]s from the control side, and
//! [`Done`]s that say what an output came to. Out: [`Verdicts`](super::Verdicts), one per sleeper concerned and each
//! counted, and [`Output`]s to be performed in order.

use core::time::Duration;

use crate::guest::identity::{Epoch, GuestId, NicId, NicIdentity, PortId};
use crate::time::Instant;
use surrogate_wire::Mac;

/// What the engine does for one NIC, set by the guest's lifecycle.
///
/// "Unicast" is a frame to the NIC's MAC; "flooded" is a broadcast or multicast that concerns it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Mode {
    /// The guest is awake and speaks for itself. Nothing is ours.
    #[default]
    Pass,
    /// Settling: the guest still runs. Silent; unicast is held. Flooded frames reach the guest
    /// itself until `flooded` says that flooding to its port was turned off; from then they are held.
    Fence {
        /// Flooded frames no longer reach the guest and are ours to hold.
        flooded: bool,
    },
    /// Asleep: answer what can be answered, hold the rest. The only mode in which we speak.
    Answer,
    /// The guest may run at any moment, or already does. Silent; unicast is held, and flooded
    /// frames too while `flooded` says that they do not reach the guest itself.
    Hold {
        /// Flooded frames do not reach the guest yet and are ours to hold.
        flooded: bool,
    },
    /// The guest takes frames: held ones are delivered in order, new unicast queues behind them.
    Replay {
        /// Forwarding points at the guest's own port again: what still arrives here was in flight
        /// (counted as overtaken). Ends by itself in `Pass` once the port has been quiet for
        /// [`LINGER`](crate::engine::LINGER).
        released: bool,
    },
}

/// From the control side to the engine.
#[derive(Debug)]
pub enum Command {
    /// Learn a NIC, in mode [`Mode::Pass`]; or replace what is known of one, its mode and held
    /// frames kept.
    Register(Box<NicIdentity>),
    /// Forget a NIC. What is held for it is dropped as [`DropReason::GuestGone`](super::DropReason).
    Unregister {
        /// Which.
        nic: NicId,
    },
    /// Change a NIC's mode. Ignored if `epoch` is older than the NIC's. Answered by
    /// [`Notice::ModeSet`]. Entering `Answer` classifies what was held anew. `Replay { released: true }`
    /// for a NIC that passes in this epoch already changes nothing and is answered by [`Notice::Settled`].
    SetMode {
        /// Which.
        nic: NicId,
        /// The guest's epoch.
        epoch: Epoch,
        /// What to do from now on.
        mode: Mode,
    },
    /// Say [`Notice::Watched`] when the NIC's guest, which runs, can be asked about its connections by the barrier: when
    /// all of its TCP was observed long enough, and no handshake is under way.
    Watch {
        /// Which.
        nic: NicId,
        /// The guest's epoch.
        epoch: Epoch,
        /// Since when all of it was observed, both ways; `None`: it is not, and there is nothing to wait for.
        watched: Option<Instant>,
    },
    /// Inject an ARP request (or, for a NIC without IPv4 address, a neighbour solicitation) at the
    /// NIC's own port; [`Notice::BarrierPassed`] follows when the guest's answer has come, which
    /// shows that its port was drained up to here. No notice if it never comes.
    Barrier {
        /// Which.
        nic: NicId,
        /// The guest's epoch.
        epoch: Epoch,
    },
    /// Announce the NIC's addresses on the network (gratuitous ARP, unsolicited advertisement;
    /// PROTOCOLS: RFC 5227 2.3, RFC 4861 7.2.6), so that switch tables move. Only in `Answer`.
    Announce {
        /// Which.
        nic: NicId,
    },
    /// Take what was known of a NIC some time ago, before a restart or at a port of ours that was lost. Ignored for
    /// a NIC that has learned or was stood in for since it was registered.
    Know {
        /// Which.
        nic: NicId,
        /// What.
        knowledge: Box<super::Knowledge>,
        /// Taken so long ago.
        ago: Duration,
    },
    /// The NIC's own port (tap) is there: deliveries that were refused may be tried again now.
    PortReady {
        /// Which.
        nic: NicId,
    },
}

/// What an [`Output`] that can fail came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Done {
    /// The first `count` frames of those emitted as [`Output::Deliver`] for `nic` since the last
    /// `Done` reached the guest's port. Only now they leave the hold buffer.
    Delivered {
        /// Which.
        nic: NicId,
        /// As in the output.
        epoch: Epoch,
        /// How many.
        count: u32,
    },
    /// The rest of them did not; they stay held, in order.
    Refused {
        /// Which.
        nic: NicId,
        /// As in the output.
        epoch: Epoch,
        /// Why not.
        why: Refusal,
    },
    /// `count` frames of ours could not be sent at our own port; they are lost and counted.
    TransmitFailed {
        /// Where.
        port: PortId,
        /// How many.
        count: u32,
    },
}

/// Why the guest's port did not take a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Its queue is full (ENOBUFS): tried again after [`RETRY`](crate::engine::RETRY).
    Full,
    /// There is no such port, or it is down: tried again when [`Command::PortReady`] says so.
    Gone,
    /// It will never take this frame (EMSGSIZE): the first refused frame is dropped, counted.
    TooLong,
}

/// To be performed by the driver, in order. Bytes are whole Ethernet frames with any VLAN tag in
/// line, valid until the next call of the engine.
#[derive(Debug)]
pub enum Output<'e> {
    /// Send a frame of ours through the surrogate port.
    Transmit {
        /// Which port.
        port: PortId,
        /// The frame.
        bytes: &'e [u8],
    },
    /// Send a held frame straight to the guest's own port. Report with [`Done`]; at most
    /// [`WINDOW`](crate::engine::WINDOW) are outstanding.
    Deliver {
        /// Which NIC's port.
        nic: NicId,
        /// For the `Done`.
        epoch: Epoch,
        /// The frame.
        bytes: &'e [u8],
    },
    /// Send a frame of ours, not a held one, straight to the guest's own port (the barrier). Not
    /// reported; the answer is what counts.
    Inject {
        /// Which NIC's port.
        nic: NicId,
        /// The frame.
        bytes: &'e [u8],
    },
    /// Tell the control side.
    Notify(Notice),
}

/// From the engine to the control side. Bounded: at most one of each kind per NIC and epoch, per command, or per
/// request of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Notice {
    /// A held frame is worth waking for. Sent once per epoch.
    Wake {
        /// Whom.
        guest: GuestId,
        /// Its NIC.
        nic: NicId,
        /// In which epoch.
        epoch: Epoch,
        /// What the frame was.
        reason: WakeReason,
    },
    /// The guest was watched for long enough.
    Watched {
        /// Its NIC.
        nic: NicId,
        /// In which epoch.
        epoch: Epoch,
    },
    /// The guest answered the barrier.
    BarrierPassed {
        /// Its NIC.
        nic: NicId,
        /// In which epoch.
        epoch: Epoch,
    },
    /// The mode is in force: no frame is handled by the old one any more.
    ModeSet {
        /// Which.
        nic: NicId,
        /// In which epoch.
        epoch: Epoch,
        /// The mode.
        mode: Mode,
        /// Frames held for the NIC at this moment.
        held: u32,
    },
    /// `Replay { released: false }`: nothing is held any more. Sent once, then again only after a new
    /// `SetMode`; new frames go on being delivered at once.
    Drained {
        /// Which.
        nic: NicId,
        /// In which epoch.
        epoch: Epoch,
        /// Frames delivered since `Replay` began.
        delivered: u64,
    },
    /// `Replay { released: true }`: the port was quiet for the linger; the NIC is in `Pass` now.
    Settled {
        /// Which.
        nic: NicId,
        /// In which epoch.
        epoch: Epoch,
        /// Frames that came when the release was done or on its way (after [`Drained`](Self::Drained)),
        /// and may have been overtaken by direct ones.
        overtaken: u32,
    },
    /// In `Answer`: a frame came whose source is the NIC's own MAC, so the guest seems to run. The
    /// engine fell silent (`Hold { flooded: true }`) of its own accord. Commanded to answer again in the same
    /// epoch, it takes the frame for forged: see [`spoof`](super::spoof).
    GuestSpoke {
        /// Which.
        nic: NicId,
        /// In which epoch.
        epoch: Epoch,
    },
    /// `GuestSpoke` was untrue: told to answer again, we do. Somebody forges the NIC's MAC, or a loop brings
    /// our own frames back. Said of the first, second, fourth, eighth ... time in a row.
    Spoofed {
        /// Which.
        nic: NicId,
        /// In which epoch.
        epoch: Epoch,
        /// How often in a row that was so.
        lies: u32,
        /// Frames with its MAC that came so far, whether they silenced us or not.
        frames: u64,
        /// For how long no other silences us.
        deaf: Duration,
    },
    /// Another host claims one of the NIC's addresses (RFC 5227 2.4). `defended` says whether an
    /// announcement was sent; if not, this is the second conflict within DEFEND_INTERVAL.
    Conflict {
        /// Which.
        nic: NicId,
        /// In which epoch.
        epoch: Epoch,
        /// The address in dispute.
        address: core::net::IpAddr,
        /// The other host.
        by: Mac,
        /// Whether we defended it.
        defended: bool,
    },
    /// A DHCP server gave more time for this address of a sleeper, and other options than before.
    LeaseChanged {
        /// Which.
        nic: NicId,
        /// In which epoch.
        epoch: Epoch,
        /// The address.
        address: core::net::IpAddr,
    },
    /// A lease of a sleeper got more time: what is known of it is worth keeping anew. Once for each request of ours.
    Renewed {
        /// Whose.
        nic: NicId,
        /// In which epoch.
        epoch: Epoch,
    },
    /// An address of a sleeper ended: its valid lifetime is over, as routers told (RFC 4862 5.5.4). It is no longer
    /// answered for until the guest has woken, or they tell otherwise. Of several in one epoch only the first is told.
    Expired {
        /// Whose.
        nic: NicId,
        /// In which epoch.
        epoch: Epoch,
        /// The address.
        address: core::net::IpAddr,
    },
}

impl Notice {
    /// The NIC it is about.
    #[must_use]
    pub const fn nic(&self) -> NicId {
        match self {
            Self::Wake { nic, .. }
            | Self::Watched { nic, .. }
            | Self::BarrierPassed { nic, .. }
            | Self::ModeSet { nic, .. }
            | Self::Drained { nic, .. }
            | Self::Settled { nic, .. }
            | Self::GuestSpoke { nic, .. }
            | Self::Spoofed { nic, .. }
            | Self::Conflict { nic, .. }
            | Self::LeaseChanged { nic, .. }
            | Self::Renewed { nic, .. }
            | Self::Expired { nic, .. } => *nic,
        }
    }
}

/// What kind of frame asked for a wake: what `surrogate events` tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum WakeReason {
    /// A SYN to this TCP port, from this address.
    TcpSyn {
        /// Destination port.
        port: u16,
        /// Who.
        from: core::net::IpAddr,
    },
    /// Any other TCP segment but a reset.
    TcpSegment {
        /// Destination port.
        port: u16,
        /// Who.
        from: core::net::IpAddr,
    },
    /// A datagram to this UDP port.
    Udp {
        /// Destination port.
        port: u16,
        /// Who.
        from: core::net::IpAddr,
    },
    /// Another IP protocol, a fragment, or ICMP that only the guest can answer.
    Ip {
        /// Protocol number.
        protocol: u8,
        /// Who.
        from: core::net::IpAddr,
    },
    /// A unicast frame with this EtherType.
    Frame {
        /// EtherType.
        ethertype: u16,
        /// Who.
        from: Mac,
    },
    /// A magic packet (Wake-on-LAN) with the guest's MAC.
    MagicPacket,
    /// A second address conflict within DEFEND_INTERVAL.
    Conflict,
    /// A DHCP server took this address away.
    LeaseRefused {
        /// The guest's address.
        address: core::net::IpAddr,
        /// The server.
        by: core::net::IpAddr,
    },
    /// The lease of this address is about to end, and no DHCP server gives more time.
    LeaseEnding {
        /// The guest's address.
        address: core::net::IpAddr,
    },
    /// Another host claims a name of the guest's.
    NameConflict {
        /// Who.
        by: core::net::IpAddr,
    },
}

impl core::fmt::Display for WakeReason {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::TcpSyn { port, from } => write!(f, "TCP SYN to port {port} from {from}"),
            Self::TcpSegment { port, from } => write!(f, "TCP segment to port {port} from {from}"),
            Self::Udp { port, from } => write!(f, "UDP datagram to port {port} from {from}"),
            Self::Ip { protocol, from } => write!(f, "IP protocol {protocol} from {from}"),
            Self::Frame { ethertype, from } => write!(f, "frame of EtherType {ethertype:#06x} from {from}"),
            Self::MagicPacket => f.write_str("magic packet"),
            Self::Conflict => f.write_str("address conflict"),
            Self::LeaseRefused { address, by } => write!(f, "lease of {address} refused by {by}"),
            Self::LeaseEnding { address } => write!(f, "lease of {address} is about to end"),
            Self::NameConflict { by } => write!(f, "its name is claimed by {by}"),
        }
    }
}

//! What the control task is told, by everything that works for it.

use core::net::IpAddr;

use tokio::sync::oneshot;

use crate::api::{Refusal, Request, Transition};
use crate::guest::identity::NicId;
use crate::hypervisor::{Depth, GuestReport, HypervisorError, HypervisorEvent, Statistics};
use crate::io::driver::{DriverNotice, KeptAwake};
use crate::io::netlink::LinkEvent;

/// To the control task. Guests, bridges and hypervisors are meant by their place in its tables.
#[derive(Debug)]
pub(super) enum Message {
    /// An operator asks.
    Request(Request),
    /// A packet thread tells.
    Notice { bridge: usize, notice: DriverNotice },
    /// A hypervisor tells.
    Hypervisor { hypervisor: usize, event: HypervisorEvent },
    /// All guests of a hypervisor, asked after it connected.
    Listed { hypervisor: usize, result: Result<Vec<GuestReport>, HypervisorError> },
    /// A hypervisor that did not tell its guests may be asked again.
    Relist { hypervisor: usize },
    /// A link of this namespace changed.
    Link(LinkEvent),
    /// An order was carried out, or not.
    Done { guest: usize, ticket: u64, result: Result<Outcome, String> },
    /// A guest was looked at for a reason of ours, not its lifecycle's.
    Inspected { guest: usize, result: Result<GuestReport, HypervisorError>, then: Then },
    /// The ports of a guest to be put to sleep were looked at; `why` they cannot be served, if so.
    PortsChecked {
        guest: usize,
        why: Option<String>,
        depth: Depth,
        reply: Option<oneshot::Sender<Result<Transition, Refusal>>>,
    },
    /// The ports of a guest that somebody else stopped were looked at, before `report` counts.
    Checked { guest: usize, report: GuestReport, why: Option<String>, was_unfit: bool },
    /// Figures for the idleness rule.
    Statistics { guest: usize, result: Result<Statistics, HypervisorError> },
    /// The connections that keep a guest awake which is to be put to sleep by itself.
    KeptAwake { guest: usize, by: Vec<KeptAwake> },
    /// What a daemon before us changed for a guest is put back, as far as it could be.
    PutBack { guest: usize },
    /// A guest's own ports, found anew for deliveries that wait.
    Ports { guest: usize, ports: Vec<GuestPort> },
    /// A guest that was too busy to be observed may be again.
    ObserveAgain { guest: usize },
    /// A bridge whose port was lost or missing may be tried again.
    Reopen { bridge: usize },
    /// Our port with this number is of no use to its bridge any more.
    CutOff { bridge: usize, ifindex: u32, why: &'static str },
}

/// What an order came to, beyond that it went well.
#[derive(Debug)]
pub(super) enum Outcome {
    /// Nothing more to say.
    Plain,
    /// The hypervisor was asked, or its answer is news.
    Report(GuestReport),
    /// The same, and why the guest's ports keep us from standing in for it, if so.
    Checked(GuestReport, Option<String>),
    /// The multicast groups that each NIC's port had joined.
    Groups(Vec<(NicId, Vec<IpAddr>)>),
    /// The guest's own ports, for deliveries.
    Ports(Vec<GuestPort>),
}

/// Where deliveries for a NIC go.
#[derive(Clone, Copy, Debug)]
pub(super) struct GuestPort {
    /// Whose.
    pub nic: NicId,
    /// The port's index.
    pub ifindex: u32,
    /// The VLAN whose tag the bridge takes off there, and so must we.
    pub untag: Option<u16>,
}

/// Why a guest was looked at.
#[derive(Debug)]
pub(super) enum Then {
    /// It is to be put to sleep, if nothing speaks against it.
    Sleep { depth: Depth, reply: Option<oneshot::Sender<Result<Transition, Refusal>>> },
    /// Its NICs may have changed.
    Refresh,
    /// What kept us from standing in for it may be mended.
    Again,
}

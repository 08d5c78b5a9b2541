//! Puts back recorded changes, whoever made them, and copes with links that are gone.

use core::fmt;
use core::net::IpAddr;
use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use super::{FORWARDING, SteeringError, vlan_on};
use crate::io::journal::{Change, ChangeKind, Journal, JournalError, PortId};
use crate::io::netlink::{FdbKind, GroupEntry, Link, Netlink, NetlinkError, PortChange};

/// What was put back, and what could not be.
#[derive(Debug, Default)]
pub struct ReleaseReport {
    /// In the order it was done.
    pub released: Vec<Released>,
}

/// One change that was put back, or not.
#[derive(Debug)]
pub struct Released {
    /// The guest it was made for.
    pub guest: String,
    /// What was done, one line.
    pub what: String,
    /// Why it could not be put back; its record stays.
    pub failed: Option<SteeringError>,
}

impl ReleaseReport {
    /// Whether everything recorded was put back.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.released.iter().all(|released| released.failed.is_none())
    }
}

impl fmt::Display for ReleaseReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.released.is_empty() {
            return f.write_str("nothing was recorded, nothing to release");
        }
        for (index, Released { guest, what, failed }) in self.released.iter().enumerate() {
            let end = if index == 0 { "" } else { "\n" };
            match failed {
                None => write!(f, "{end}{guest}: {what}")?,
                Some(error) => write!(f, "{end}{guest}: FAILED: {what}: {error}")?,
            }
        }
        Ok(())
    }
}

/// Puts back everything that is recorded in `state_dir`: for when no daemon runs.
///
/// # Errors
/// [`JournalError::Locked`] while one does; the others of opening it.
pub async fn release_all(state_dir: &Path, netlink: &Netlink) -> Result<ReleaseReport, JournalError> {
    if !Journal::exists(state_dir) {
        return Ok(ReleaseReport::default());
    }
    let journal = Arc::new(Journal::open(state_dir)?);
    Ok(put_back(netlink, &journal, |_| true).await)
}

/// Puts back what is recorded for the guests that `unwanted` names.
pub(super) async fn put_back(
    netlink: &Netlink,
    journal: &Arc<Journal>,
    unwanted: impl Fn(&str) -> bool,
) -> ReleaseReport {
    let mut changes: Vec<Change> =
        journal.changes().into_iter().filter(|change| unwanted(&change.guest)).collect();
    changes.sort_by(|a, b| (&a.guest, order(&a.what)).cmp(&(&b.guest, order(&b.what))));
    let mut report = ReleaseReport::default();
    for change in changes {
        let what = describe(&change);
        let (what, failed) = match put_back_one(netlink, journal, &change).await {
            Ok(Outcome::PutBack) => (what, None),
            Ok(Outcome::Gone(link)) => (format!("{what}: {link} is gone, nothing to put back"), None),
            Err(error) => (what, Some(error)),
        };
        report.released.push(Released { guest: change.guest, what, failed });
    }
    report
}

/// What became of an undoing.
pub(super) enum Outcome {
    PutBack,
    /// This link is gone, and what was changed with it.
    Gone(String),
}

async fn put_back_one(
    netlink: &Netlink,
    journal: &Arc<Journal>,
    change: &Change,
) -> Result<Outcome, SteeringError> {
    let outcome = match &change.what {
        ChangeKind::PortDisabled { .. } => port_state(netlink, journal, change, None).await?,
        ChangeKind::FloodsTaken { .. } => floods(netlink, journal, change, None).await?,
        ChangeKind::GroupsKept { .. } => groups(netlink, journal, change).await?,
        ChangeKind::Steered { guest_port, was } => {
            steered(netlink, change, guest_port.as_ref(), *was).await?
        }
    };
    let key = change.key();
    blocking(journal, move |journal| journal.delete_change(&key)).await?;
    Ok(outcome)
}

/// Points the guest's entry at its port again.
async fn steered(
    netlink: &Netlink,
    change: &Change,
    guest_port: Option<&PortId>,
    was: Option<FdbKind>,
) -> Result<Outcome, SteeringError> {
    let Some(bridge) = netlink.link(&change.bridge).await? else {
        return Ok(Outcome::Gone(change.bridge.clone()));
    };
    let vlan = vlan_on(&bridge, change.vlan);
    let port = match guest_port {
        Some(port) => port_of_guest(netlink, port, None).await?,
        None => None,
    };
    let port = port.filter(|link| link.master == Some(bridge.ifindex));
    if let Some(port) = port {
        let replaced = netlink.fdb_replace(change.mac, vlan, port.ifindex, entry_kind(was)).await;
        if !gone(&replaced) {
            return replaced.map(|()| Outcome::PutBack).map_err(SteeringError::from);
        }
    }
    // Nowhere to point at. Should our port still be there, with the entry, the bridge shall flood instead.
    if let Some(entry) = netlink.fdb_entry(bridge.ifindex, change.mac, vlan).await?
        && entry.kind == FdbKind::StaticSticky
    {
        netlink.fdb_delete(change.mac, vlan, entry.ifindex).await?;
    }
    Ok(Outcome::Gone(guest_port.map_or("the guest's port", |port| &port.name).to_owned()))
}

/// Gives a port its flags back, unless it is a new device or another VLAN's record still needs them off,
/// and its groups, wherever it is now called `now` (else by its old name).
pub(super) async fn floods(
    netlink: &Netlink,
    journal: &Journal,
    change: &Change,
    now: Option<&str>,
) -> Result<Outcome, SteeringError> {
    let ChangeKind::FloodsTaken { port, flags, entries } = &change.what else { return Ok(Outcome::PutBack) };
    let Some(link) = port_of_guest(netlink, port, now).await? else {
        return Ok(Outcome::Gone(port.name.clone()));
    };
    let shared = shares_port(journal, change, port);
    if PortId::of(&link) == *port && !shared {
        let set = netlink.set_port_flags(link.ifindex, PortChange::from(*flags)).await;
        if gone(&set) {
            return Ok(Outcome::Gone(link.name));
        }
        set?;
    }
    let Some(bridge) = link.master else { return Ok(Outcome::PutBack) };
    let snooping = netlink.link_by_index(bridge).await?.and_then(|link| link.bridge);
    if snooping.is_some_and(|facts| facts.mcast_snooping) {
        for entry in entries.iter().cloned() {
            let entry = GroupEntry { port: link.ifindex, ..entry };
            // An entry that does not come back must not keep the others away; the next query repairs it.
            if let Err(error) = netlink.mdb_add(bridge, entry).await {
                tracing::warn!(guest = change.guest, %error, "a multicast group was not put back");
            }
        }
    }
    Ok(Outcome::PutBack)
}

/// Gives a port its state back, unless it is a new device or another VLAN's record still needs it off.
pub(super) async fn port_state(
    netlink: &Netlink,
    journal: &Journal,
    change: &Change,
    now: Option<&str>,
) -> Result<Outcome, SteeringError> {
    let ChangeKind::PortDisabled { port, state } = &change.what else { return Ok(Outcome::PutBack) };
    let Some(link) = port_of_guest(netlink, port, now).await? else {
        return Ok(Outcome::Gone(port.name.clone()));
    };
    if PortId::of(&link) != *port || shares_port(journal, change, port) {
        return Ok(Outcome::PutBack);
    }
    match netlink.set_port_state(link.ifindex, *state).await {
        // Without a carrier a port cannot be enabled; the bridge does it when there is one.
        Err(error) if error.errno() == Some(libc::ENETDOWN) && *state == FORWARDING => Ok(Outcome::PutBack),
        set if gone(&set) => Ok(Outcome::Gone(link.name)),
        set => Ok(set.map(|()| Outcome::PutBack)?),
    }
}

/// Lets our port, if it is still there, leave the groups kept for a guest, but for those that another
/// guest needs.
pub(super) async fn groups(
    netlink: &Netlink,
    journal: &Journal,
    change: &Change,
) -> Result<Outcome, SteeringError> {
    let ChangeKind::GroupsKept { port, groups } = &change.what else { return Ok(Outcome::PutBack) };
    let link = netlink.link_by_index(port.ifindex).await?.filter(|link| PortId::of(link) == *port);
    let bridge = match link.and_then(|link| link.master) {
        Some(master) => netlink.link_by_index(master).await?,
        None => None,
    };
    // The port of a daemon that is gone took them with it.
    let Some(bridge) = bridge else { return Ok(Outcome::PutBack) };
    let own = change.key();
    let needed: BTreeSet<IpAddr> = journal
        .changes()
        .into_iter()
        .filter(|other| other.key() != own && other.bridge == change.bridge && other.vlan == change.vlan)
        .filter_map(|other| match other.what {
            ChangeKind::GroupsKept { groups, .. } => Some(groups),
            _ => None,
        })
        .flatten()
        .collect();
    let vlan = vlan_on(&bridge, change.vlan);
    for group in groups.iter().filter(|group| !needed.contains(group)) {
        netlink.mdb_delete(bridge.ifindex, GroupEntry::permanent(port.ifindex, *group, vlan)).await?;
    }
    Ok(Outcome::PutBack)
}

/// The bridge port that the guest has now: called `now` by who knows it, else as the recorded one. A
/// restored guest's port is another device but has the name and address of the old one; a port that has
/// only the name may be another guest's.
async fn port_of_guest(
    netlink: &Netlink,
    port: &PortId,
    now: Option<&str>,
) -> Result<Option<Link>, NetlinkError> {
    let link = netlink.link(now.unwrap_or(&port.name)).await?.filter(|link| link.port.is_some());
    Ok(link.filter(|link| now.is_some() || PortId::of(link).mac == port.mac))
}

/// Whether another record of the same kind is about the same port: another VLAN of the same NIC.
fn shares_port(journal: &Journal, change: &Change, port: &PortId) -> bool {
    let key = change.key();
    journal.changes().iter().any(|other| {
        other.key() != key
            && other.what.kind() == change.what.kind()
            && matches!(&other.what,
                ChangeKind::FloodsTaken { port: of, .. } | ChangeKind::PortDisabled { port: of, .. }
                    if of == port)
    })
}

/// Runs a write of the journal where blocking is allowed.
pub(super) async fn blocking(
    journal: &Arc<Journal>,
    write: impl FnOnce(&Journal) -> Result<(), JournalError> + Send + 'static,
) -> Result<(), JournalError> {
    let journal = Arc::clone(journal);
    let path = journal.path().to_owned();
    let written = tokio::task::spawn_blocking(move || write(&journal)).await;
    written.unwrap_or_else(|stopped| Err(JournalError::Write { path, why: stopped.to_string() }))
}

/// The entry a guest's port gets back: as it was, else as if learned.
pub(super) fn entry_kind(was: Option<FdbKind>) -> FdbKind {
    was.filter(|kind| *kind != FdbKind::Local).unwrap_or(FdbKind::Dynamic)
}

fn gone(result: &Result<(), NetlinkError>) -> bool {
    result.as_ref().is_err_and(NetlinkError::is_absent)
}

/// The port passes frames again before frames are sent to it.
fn order(what: &ChangeKind) -> u8 {
    match what {
        ChangeKind::PortDisabled { .. } => 0,
        ChangeKind::FloodsTaken { .. } => 1,
        ChangeKind::GroupsKept { .. } => 2,
        ChangeKind::Steered { .. } => 3,
    }
}

fn describe(change: &Change) -> String {
    let Change { bridge, mac, .. } = change;
    match &change.what {
        ChangeKind::PortDisabled { port, .. } => format!("port {} enabled", port.name),
        ChangeKind::FloodsTaken { port, entries, .. } => {
            format!("flooding and {} multicast groups returned to port {}", entries.len(), port.name)
        }
        ChangeKind::GroupsKept { groups, .. } => {
            format!("{} multicast groups on {bridge} left", groups.len())
        }
        ChangeKind::Steered { guest_port, .. } => {
            let to = guest_port.as_ref().map_or("flooding", |port| &port.name);
            format!("{mac} on {bridge} goes to {to} again")
        }
    }
}

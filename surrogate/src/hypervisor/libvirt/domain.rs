//! What is asked of one domain: its power, its NICs, what it is busy with, its figures.

use std::time::Duration;

use virt::connect::Connect;
use virt::domain::Domain;
use virt::error::{Error, ErrorNumber};
use virt::network::Network;
use virt::sys;

use super::domain_xml::{self, DomainXml, Interface};
use super::state::{self, State};
use super::{Failure, ffi};
use crate::hypervisor::links::Links;
use crate::hypervisor::{GuestReport, NicReport, PauseReason, Power, Statistics};

/// How much to ask about jobs.
///
/// Questions about jobs queue behind the domain's current call; everything else libvirtd knows at once.
/// Where that call hangs, on a dead store, it answers after 30 s that it "cannot acquire state change
/// lock".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Jobs {
    /// Ask.
    Ask,
    /// Only what the XML shows.
    DoNotAsk,
}

/// The domain called `guest`.
pub(super) fn find(connection: &Connect, guest: &str) -> Result<Domain, Failure> {
    if guest.contains('\0') {
        return Err(Failure::NoGuest);
    }
    Ok(Domain::lookup_by_name(connection, guest)?)
}

/// What its state means for sleep.
pub(super) fn power(domain: &Domain) -> Result<Power, Error> {
    power_with(domain, || job_runs(domain))
}

/// The same, with another way to find out whether a job runs. It is asked in one state only.
pub(super) fn power_with(
    domain: &Domain,
    job_runs: impl FnOnce() -> Result<bool, Error>,
) -> Result<Power, Error> {
    let (state, reason) = domain.get_state()?;
    let state = State::new(state, reason);
    let job = state == State::PausedMigrating && job_runs()?;
    let saved = state == State::Shutoff && domain.has_managed_save(0)?;
    Ok(state.power(job, saved))
}

/// Whether a job of libvirt's runs on it: save, dump, snapshot, migration or backup, or a call that does
/// not end.
pub(super) fn job_runs(domain: &Domain) -> Result<bool, Error> {
    match domain.get_job_info() {
        Ok(job) => Ok(matches!(
            job.r#type.cast_unsigned(),
            sys::VIR_DOMAIN_JOB_BOUNDED | sys::VIR_DOMAIN_JOB_UNBOUNDED
        )),
        Err(error) if error.code() == ErrorNumber::OperationTimeout => Ok(true),
        // Not running, or a driver without jobs.
        Err(error) if matches!(error.code(), ErrorNumber::OperationInvalid | ErrorNumber::NoSupport) => {
            Ok(false)
        }
        Err(error) => Err(error),
    }
}

/// Everything about it; `links` are this namespace's.
pub(super) fn report(
    connection: &Connect,
    domain: &Domain,
    power: Power,
    links: &Links,
    jobs: Jobs,
) -> Result<GuestReport, Failure> {
    // While it runs this is the live XML, with its taps; else the one that it will start with.
    let xml = domain_xml::parse(&domain.get_xml_desc(0)?).map_err(Failure::Failed)?;
    Ok(GuestReport {
        name: domain.get_name()?,
        power,
        nics: xml.interfaces.iter().map(|interface| nic(connection, interface, links)).collect(),
        busy: busy(domain, power, &xml, jobs)?,
    })
}

/// What it has used and transferred since it started.
pub(super) fn statistics(domain: &Domain) -> Result<Statistics, Failure> {
    let power = power_with(domain, || Ok(false))?; // paused is paused, whatever the job
    if !matches!(power, Power::Running | Power::Paused(_)) {
        return Err(Failure::Refused(format!("{}: no figures", state::in_words(power))));
    }
    let xml = domain_xml::parse(&domain.get_xml_desc(0)?).map_err(Failure::Failed)?;
    let mut figures =
        Statistics { cpu: Duration::from_nanos(domain.get_info()?.cpu_time), ..Statistics::default() };
    for target in xml.interfaces.iter().filter_map(|interface| interface.target.as_deref()) {
        // libvirt counts for a tap as the guest does: 30 frames sent to one made "rx" grow by 30.
        let packets = |count: i64| u64::try_from(count).unwrap_or(0); // -1: not supported
        let Ok(interface) = domain.interface_stats(target) else { continue };
        figures.rx_packets = figures.rx_packets.saturating_add(packets(interface.rx_packets));
        figures.tx_packets = figures.tx_packets.saturating_add(packets(interface.tx_packets));
    }
    Ok(figures)
}

fn nic(connection: &Connect, interface: &Interface, links: &Links) -> NicReport {
    let mut nic = NicReport {
        mac: interface.mac,
        bridge: interface.bridge.clone(),
        port: interface.target.clone(),
        addresses: Vec::new(),
        groups: Vec::new(),
        refused: interface.refusal(),
    };
    if nic.refused.is_some() {
        return nic;
    }
    if let (None, Some(network)) = (&nic.bridge, &interface.network) {
        match bridge_of_network(connection, network) {
            Ok(bridge) => nic.bridge = Some(bridge),
            Err(error) => {
                let why = ffi::one_line(error.message());
                nic.refused = Some(format!("network \"{network}\" has no bridge: {why}"));
            }
        }
    }
    // The kernel knows better than the XML, where the tap is in our namespace: an operator may have
    // isolated it or moved it to another bridge, and an "ethernet" NIC names no bridge at all.
    if let Some(port) = nic.port.as_deref().and_then(|name| links.by_name(name)) {
        match links.bridge_of(port) {
            Ok(bridge) => nic.bridge = Some(bridge.to_owned()),
            Err(why) => nic.refused = Some(why),
        }
    }
    nic
}

fn bridge_of_network(connection: &Connect, network: &str) -> Result<String, Error> {
    Network::lookup_by_name(connection, network)?.get_bridge_name()
}

fn busy(domain: &Domain, power: Power, xml: &DomainXml, jobs: Jobs) -> Result<Option<String>, Failure> {
    if !matches!(power, Power::Running | Power::Paused(_)) {
        return Ok(None);
    }
    if power == Power::Paused(PauseReason::Busy) {
        let why = state::in_words(power).to_owned();
        return Ok(Some(if jobs == Jobs::Ask { job(domain)?.unwrap_or(why) } else { why }));
    }
    if let Some(disk) = xml.disks.iter().find(|disk| disk.mirrored) {
        return Ok(Some(format!("disk {} is being copied or committed", disk.target)));
    }
    if jobs == Jobs::DoNotAsk {
        return Ok(None);
    }
    if let Some(job) = job(domain)? {
        return Ok(Some(job));
    }
    for disk in &xml.disks {
        match ffi::block_job(domain, &disk.target) {
            Ok(None) => {}
            Ok(Some(kind)) => return Ok(Some(format!("a {} runs on disk {}", block_job(kind), disk.target))),
            // Stopped meanwhile, or a driver without block jobs.
            Err(error) if matches!(error.code(), ErrorNumber::NoSupport | ErrorNumber::OperationInvalid) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(None)
}

const fn block_job(kind: sys::virDomainBlockJobType) -> &'static str {
    match kind {
        sys::VIR_DOMAIN_BLOCK_JOB_TYPE_PULL => "block pull",
        sys::VIR_DOMAIN_BLOCK_JOB_TYPE_COPY => "block copy",
        sys::VIR_DOMAIN_BLOCK_JOB_TYPE_COMMIT | sys::VIR_DOMAIN_BLOCK_JOB_TYPE_ACTIVE_COMMIT => {
            "block commit"
        }
        sys::VIR_DOMAIN_BLOCK_JOB_TYPE_BACKUP => "backup",
        _ => "block job",
    }
}

/// The job of libvirt's that runs on it, if one does: why it may not be put to sleep.
pub(super) fn job(domain: &Domain) -> Result<Option<String>, Error> {
    if !job_runs(domain)? {
        return Ok(None);
    }
    // It may have ended since, or is a call that does not end, of which libvirt tells nothing.
    let operation = ffi::job_operation(domain).ok().flatten().and_then(operation);
    Ok(Some(match operation {
        Some(operation) => format!("a libvirt job runs ({operation}): see `virsh domjobinfo`"),
        None => "a libvirt job runs, or a call that does not end: see `virsh domjobinfo`".to_owned(),
    }))
}

const fn operation(operation: sys::virDomainJobOperation) -> Option<&'static str> {
    Some(match operation {
        sys::VIR_DOMAIN_JOB_OPERATION_START => "start",
        sys::VIR_DOMAIN_JOB_OPERATION_SAVE => "save",
        sys::VIR_DOMAIN_JOB_OPERATION_RESTORE => "restore",
        sys::VIR_DOMAIN_JOB_OPERATION_MIGRATION_IN | sys::VIR_DOMAIN_JOB_OPERATION_MIGRATION_OUT => {
            "migration"
        }
        sys::VIR_DOMAIN_JOB_OPERATION_SNAPSHOT
        | sys::VIR_DOMAIN_JOB_OPERATION_SNAPSHOT_REVERT
        | sys::VIR_DOMAIN_JOB_OPERATION_SNAPSHOT_DELETE => "snapshot",
        sys::VIR_DOMAIN_JOB_OPERATION_DUMP => "dump",
        sys::VIR_DOMAIN_JOB_OPERATION_BACKUP => "backup",
        _ => return None,
    })
}

//! libvirt as a hypervisor: guests are domains, `pause` is a suspend and `save` a managed save.
//!
//! One thread keeps a connection for events (`supervise`); each call has a connection to itself
//! (`connection`); events only start a question for the domain's state (`events`). Nothing here
//! waits for another guest's call. What a suspend or resume reports is checked against the state that
//! the domain is in afterwards: libvirt's "resumed" says only that QEMU was told.

mod connection;
mod domain;
pub mod domain_xml;
mod events;
mod ffi;
mod state;
mod supervise;

use std::sync::Arc;
use std::sync::mpsc::{self, Sender};
use std::time::Duration;

use tokio::sync::mpsc::UnboundedSender;
use virt::domain::Domain;
use virt::error::{Error, ErrorNumber};
use virt::sys;

use self::connection::{Connection, Pool};
use self::domain::Jobs;
use self::events::{Asker, Stops};
use self::supervise::Notice;
use super::links::Links;
use super::{
    Depth, GuestReport, Hypervisor, HypervisorError, HypervisorEvent, PauseReason, Power, Statistics,
};

/// The domains of one libvirt.
pub struct Libvirt {
    shared: Arc<Shared>,
    thread: Sender<Notice>,
}

struct Shared {
    uri: String,
    pool: Arc<Pool>,
    asker: Arc<Asker>,
    stops: Arc<Stops>,
    events: UnboundedSender<HypervisorEvent>,
}

impl Libvirt {
    /// Connects to `uri` on a thread of its own, again and again whenever that fails or ends, and tells
    /// `events`. `name` is the hypervisor's in the configuration, for messages.
    #[must_use]
    pub fn connect(name: String, uri: String, events: UnboundedSender<HypervisorEvent>) -> Self {
        let pool = Arc::new(Pool::new(name.clone(), uri.clone()));
        let asker = Arc::new(Asker::new(Arc::clone(&pool), events.clone()));
        let shared = Arc::new(Shared { uri, pool, asker, stops: Arc::default(), events });
        let (thread, notices) = mpsc::channel();
        let (for_thread, sender) = (Arc::clone(&shared), thread.clone());
        let run = move || supervise::run(&for_thread, &notices, &sender);
        if let Err(error) = std::thread::Builder::new().name(format!("libvirt-{name}")).spawn(run) {
            let why = format!("no thread for the connection: {error}");
            shared.pool.set_down(&why);
            let _ = shared.events.send(HypervisorEvent::Disconnected { why });
        }
        Self { shared, thread }
    }

    /// Does `work` with the domain called `guest`, on a connection that it has to itself.
    fn with<T>(
        &self,
        guest: &str,
        operation: &'static str,
        work: impl FnOnce(&Connection, &Domain) -> Result<T, Failure>,
    ) -> Result<T, HypervisorError> {
        let lease = self.shared.pool.take()?;
        domain::find(&lease, guest)
            .and_then(|domain| work(&lease, &domain))
            .map_err(|failure| failure.of(&self.shared.pool, &lease, guest, operation))
    }

    /// Whether a job runs on `guest`; yes, if that is not known soon: a domain whose calls hang must not
    /// keep the others off the list. The question then ends by itself, on a connection of its own.
    fn job_runs_soon(&self, guest: &str) -> bool {
        let (answer, answered) = mpsc::channel();
        let (pool, guest) = (Arc::clone(&self.shared.pool), guest.to_owned());
        let ask = move || {
            let job_runs = pool
                .take()
                .ok()
                .map(|lease| domain::find(&lease, &guest).and_then(|domain| Ok(domain::job_runs(&domain)?)));
            // Nobody waits for an answer that comes late.
            let _ = answer.send(job_runs);
        };
        let asked = std::thread::Builder::new().name("libvirt-job".to_owned()).spawn(ask);
        asked.is_err() || !matches!(answered.recv_timeout(SOON), Ok(Some(Ok(false))))
    }
}

impl Drop for Libvirt {
    fn drop(&mut self) {
        // Not waited for: the thread may be in the middle of connecting.
        let _ = self.thread.send(Notice::Stop);
    }
}

impl Hypervisor for Libvirt {
    fn list(&self) -> Result<Vec<GuestReport>, HypervisorError> {
        let lease = self.shared.pool.take()?;
        let domains =
            lease.list_all_domains(0).map_err(|error| self.shared.pool.disconnected(one_line(&error)))?;
        // Once for all: on a host of many guests it is a long list.
        let links = Links::here().map_err(|error| self.shared.pool.disconnected(error.to_string()))?;
        let mut reports = Vec::with_capacity(domains.len());
        for domain in &domains {
            let name = domain.get_name().unwrap_or_default();
            let report = domain::power_with(domain, || Ok(self.job_runs_soon(&name)))
                .map_err(Failure::from)
                .and_then(|power| domain::report(&lease, domain, power, &links, Jobs::DoNotAsk));
            match report.map_err(|failure| failure.of(&self.shared.pool, &lease, &name, "inspect")) {
                Ok(report) => reports.push(report),
                Err(error @ HypervisorError::Disconnected { .. }) => return Err(error),
                // It was undefined since the list was made.
                Err(HypervisorError::NoGuest { .. }) => {}
                // One domain that cannot be read must not hide the others.
                Err(error) => tracing::warn!(guest = name, %error, "left out of the list"),
            }
        }
        Ok(reports)
    }

    fn inspect(&self, guest: &str) -> Result<GuestReport, HypervisorError> {
        self.with(guest, "inspect", |connection, domain| {
            let links = Links::here().map_err(|error| Failure::Failed(error.to_string()))?;
            domain::report(connection, domain, domain::power(domain)?, &links, Jobs::Ask)
        })
    }

    fn sleep(&self, guest: &str, depth: Depth) -> Result<(), HypervisorError> {
        match depth {
            Depth::Pause => self.with(guest, "suspend", |_, domain| suspend(domain)),
            Depth::Save => self.with(guest, "managed save", |_, domain| save(domain)),
        }
    }

    fn restore(&self, guest: &str) -> Result<(), HypervisorError> {
        self.with(guest, "restore", |_, domain| restore(domain))
    }

    fn resume(&self, guest: &str) -> Result<(), HypervisorError> {
        self.with(guest, "resume", |_, domain| resume(domain, guest, &self.shared.stops))
    }

    fn statistics(&self, guest: &str) -> Result<Statistics, HypervisorError> {
        self.with(guest, "statistics", |_, domain| domain::statistics(domain))
    }
}

fn suspend(domain: &Domain) -> Result<(), Failure> {
    match domain::power(domain)? {
        Power::Paused(PauseReason::User | PauseReason::Restored) => return Ok(()),
        Power::Running => refuse_job(domain)?,
        other => return Err(refused(other)),
    }
    domain.suspend()?;
    match domain::power(domain)? {
        Power::Paused(PauseReason::User) => Ok(()),
        other => Err(Failure::Failed(format!("it was told to pause, but {}", state::in_words(other)))),
    }
}

fn save(domain: &Domain) -> Result<(), Failure> {
    match domain::power(domain)? {
        Power::Saved => return Ok(()),
        Power::Running | Power::Paused(PauseReason::User | PauseReason::Restored) => refuse_job(domain)?,
        other => return Err(refused(other)),
    }
    // "Running", whatever it is now: should a person start it by hand, it must not come back paused.
    // We restore it paused by a flag of the start.
    domain.managed_save(sys::VIR_DOMAIN_SAVE_RUNNING)?;
    match domain::power(domain)? {
        Power::Saved => Ok(()),
        other => Err(Failure::Failed(format!("it was told to save itself, but {}", state::in_words(other)))),
    }
}

fn restore(domain: &Domain) -> Result<(), Failure> {
    match domain::power(domain)? {
        Power::Paused(_) => return Ok(()),
        Power::Saved => {}
        // Without a saved state the same call would boot it.
        other => return Err(refused(other)),
    }
    domain.create_with_flags(sys::VIR_DOMAIN_START_PAUSED)?;
    match domain::power(domain)? {
        Power::Paused(_) => Ok(()),
        other => {
            Err(Failure::Failed(format!("it was restored to be paused, but {}", state::in_words(other))))
        }
    }
}

fn resume(domain: &Domain, guest: &str, stops: &Stops) -> Result<(), Failure> {
    let reason = match domain::power(domain)? {
        Power::Running => return Ok(()),
        Power::Paused(reason) if reason != PauseReason::Busy => reason,
        other => return Err(refused(other)),
    };
    let stopped_before = stops.count(guest);
    domain.resume()?;
    // A disk that is still full stops it again, 1.4 ms later when tried, and a success would have us
    // replay into a guest that does not run. Worth a wait only where there was an error.
    if reason == PauseReason::IoError {
        stops.wait_for_another(guest, stopped_before, SETTLE);
    }
    match domain::power(domain)? {
        Power::Running => Ok(()),
        other => Err(Failure::Failed(format!("it was resumed, but {} again", state::in_words(other)))),
    }
}

fn refuse_job(domain: &Domain) -> Result<(), Failure> {
    match domain::job(domain)? {
        Some(job) => Err(Failure::Refused(job)),
        None => Ok(()),
    }
}

fn refused(power: Power) -> Failure {
    Failure::Refused(state::in_words(power).to_owned())
}

fn one_line(error: &Error) -> String {
    ffi::one_line(error.message())
}

/// Why something with one domain did not work, before it is known whose fault it was.
#[derive(Debug)]
enum Failure {
    NoGuest,
    Refused(String),
    Failed(String),
    Libvirt(Error),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Libvirt(error)
    }
}

impl Failure {
    fn of(
        self,
        pool: &Pool,
        connection: &Connection,
        guest: &str,
        operation: &'static str,
    ) -> HypervisorError {
        let guest = guest.to_owned();
        match self {
            Self::NoGuest => pool.no_guest(guest),
            Self::Refused(why) => HypervisorError::Refused { guest, why },
            Self::Failed(why) => HypervisorError::Failed { guest, operation, why },
            // libvirt reports a lost connection under many codes; that it is lost is what tells.
            Self::Libvirt(error) if !connection.is_alive() => pool.disconnected(one_line(&error)),
            Self::Libvirt(error) => match error.code() {
                ErrorNumber::NoDomain => pool.no_guest(guest),
                ErrorNumber::OperationInvalid
                | ErrorNumber::OperationUnsupported
                | ErrorNumber::OperationDenied
                | ErrorNumber::ArgumentUnsupported
                | ErrorNumber::ConfigUnsupported
                | ErrorNumber::NoSupport => HypervisorError::Refused { guest, why: one_line(&error) },
                _ => HypervisorError::Failed { guest, operation, why: one_line(&error) },
            },
        }
    }
}

/// How long one domain may hold up the list of all.
const SOON: Duration = Duration::from_secs(1);

/// How long a guest that had a storage error must run to count as running.
const SETTLE: Duration = Duration::from_millis(50);

#[cfg(test)]
mod tests;

//! The kernel's tables of links, bridge ports, forwarding entries and multicast groups.
//!
//! [`Netlink`] asks and changes, [`watch()`] follows. Everything acts in the network namespace of the
//! thread that connected. Nothing here decides or remembers: what is changed on a bridge, and recorded
//! before, is [`steering`](crate::io::steering)'s matter.

pub mod fdb;
pub mod link;
pub mod mdb;
pub mod request;
mod watch;

use std::io;
use std::sync::{Arc, Mutex, PoisonError};

pub use fdb::{FdbEntry, FdbKind};
pub use link::{BridgeFacts, Link, LinkKind, PortChange, PortFlags, PortVlan};
pub use mdb::{GroupEntry, Lifetime};
pub use request::{Exchange, Messages, Reply, RequestError, acknowledged};
use tokio::runtime::{Handle, RuntimeFlavor};
pub use watch::{LinkEvent, concerned, watch};

/// A connection to the kernel's routing tables. Clones share it.
#[derive(Clone, Debug)]
pub struct Netlink {
    exchange: Arc<Mutex<Exchange>>,
}

/// A request that failed, and what it was for.
#[derive(Debug, thiserror::Error)]
#[error("{doing}: {source}")]
pub struct NetlinkError {
    /// As "forward 52:54:00:00:00:11 to port 7".
    pub doing: String,
    /// What the kernel said.
    pub source: RequestError,
}

impl NetlinkError {
    /// The kernel's error number, if it refused.
    #[must_use]
    pub const fn errno(&self) -> Option<i32> {
        self.source.errno()
    }

    /// Whether what was to be changed is not there: a link, a port or an entry.
    #[must_use]
    pub fn is_absent(&self) -> bool {
        matches!(self.errno(), Some(libc::ENODEV | libc::ENOENT | libc::ENXIO))
    }
}

impl Netlink {
    /// Connects in the network namespace of the calling thread. Its calls need a tokio runtime.
    ///
    /// # Errors
    /// The system's, as `EMFILE`.
    pub fn connect() -> io::Result<Self> {
        Ok(Self { exchange: Arc::new(Mutex::new(Exchange::open()?)) })
    }

    /// Runs `ask` where blocking is allowed; `doing` says in an error what it was for.
    ///
    /// On this thread: the kernel answers inside the system call, in a fraction of the time that another
    /// thread would need to wake up. Should its lock be taken, other tasks go on meanwhile.
    async fn ask<T>(
        &self,
        doing: impl FnOnce() -> String,
        ask: impl FnOnce(&mut Exchange) -> Result<T, RequestError>,
    ) -> Result<T, NetlinkError> {
        // A panic elsewhere leaves at most unread answers, which their sequence number gives away.
        let ask = || ask(&mut self.exchange.lock().unwrap_or_else(PoisonError::into_inner));
        let result = match Handle::current().runtime_flavor() {
            RuntimeFlavor::MultiThread => tokio::task::block_in_place(ask),
            _ => ask(),
        };
        result.map_err(|source| NetlinkError { doing: doing(), source })
    }
}

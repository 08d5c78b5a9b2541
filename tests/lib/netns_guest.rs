//! A guest that is a network namespace: frozen and thawed instead of suspended and resumed.

use std::fs;
use std::net::IpAddr;
use std::time::Duration;

use tempfile::TempDir;

use crate::deadline::until;
use crate::namespace::{Namespace, scratch};
use crate::network::{Network, v4, v6};
use crate::services;

/// A guest on the bridge, its services running. Dropping it ends and removes it.
#[derive(Debug)]
pub struct NetnsGuest {
    /// Its name in the configuration, and of its port on the bridge.
    pub name: String,
    /// Where it lives.
    pub namespace: Namespace,
    /// 52:54:00:00:00:xx
    pub mac: String,
    /// Its IPv4 address.
    pub v4: IpAddr,
    /// Its IPv6 address.
    pub v6: IpAddr,
    folder: TempDir,
}

impl NetnsGuest {
    /// Guest `web<number>` with a page, echo and ssh, at 192.0.2.(10 + `number`).
    #[must_use]
    pub fn new(network: &Network, number: u8) -> Self {
        let guest = Self::with_page(network, number);
        services::echo(&guest.namespace);
        services::ssh(&guest.namespace, guest.folder.path());
        guest
    }

    /// The same with its page only.
    #[must_use]
    pub fn with_page(network: &Network, number: u8) -> Self {
        let guest = Self::bare(network, number);
        services::http(&guest.namespace, guest.folder.path(), &guest.page());
        guest
    }

    /// The same without services.
    #[must_use]
    pub fn bare(network: &Network, number: u8) -> Self {
        let name = format!("web{number}");
        let namespace = Namespace::new(&name);
        let mac = mac(number);
        network.attach(&namespace, &name, &mac, 10 + number);
        let folder = scratch("guest");
        Self { name, namespace, mac, v4: v4(10 + number), v6: v6(10 + number), folder }
    }

    /// What its web server shows.
    #[must_use]
    pub fn page(&self) -> String {
        format!("this is {}\n", self.name)
    }

    /// The private key that its ssh server accepts.
    #[must_use]
    pub fn ssh_key(&self) -> std::path::PathBuf {
        self.folder.path().join("key")
    }

    /// Its `[[guest]]` section; `more` are further lines of it.
    #[must_use]
    pub fn section(&self, more: &str) -> String {
        format!(
            "[[guest]]\nname = \"{}\"\nhypervisor = \"local\"\nbridge = \"br0\"\nmac = \"{}\"\n\
             addresses = [\"{}/24\", \"{}/64\"]\nnetns = \"{}\"\nport = \"{}\"\n{more}\n",
            self.name,
            self.mac,
            self.v4,
            self.v6,
            self.namespace.name(),
            self.name,
        )
    }

    /// Whether it has processes and every one of them is stopped.
    #[must_use]
    pub fn is_frozen(&self) -> bool {
        let pids = self.namespace.processes();
        !pids.is_empty() && pids.iter().all(|pid| stopped(*pid))
    }

    /// Stops its processes, as a person would by hand; returns when they are.
    pub fn freeze(&self) {
        for pid in self.namespace.processes() {
            crate::sys::signal(pid, libc::SIGSTOP);
        }
        until("every process to be stopped", Duration::from_secs(5), || self.is_frozen());
    }

    /// Lets its processes run, as a person would by hand.
    pub fn thaw(&self) {
        for pid in self.namespace.processes() {
            crate::sys::signal(pid, libc::SIGCONT);
        }
    }
}

/// The MAC of guest `number`.
#[must_use]
pub fn mac(number: u8) -> String {
    format!("52:54:00:00:00:{:02x}", 16 + number)
}

fn stopped(pid: u32) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The state follows the command's name, which is in parentheses and may hold any character.
    status.rsplit_once(") ").is_none_or(|(_, rest)| rest.starts_with(['T', 'Z', 'X']))
}

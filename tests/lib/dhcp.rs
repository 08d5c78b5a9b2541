//! DHCP in the lab: dnsmasq as the server of both families, and the clients of Debian's busybox and of ISC.

use std::fs;
use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::Duration;

use tempfile::TempDir;

use crate::deadline::until;
use crate::namespace::{Namespace, scratch};

/// What a server or a client may take for one of its steps.
const PATIENCE: Duration = Duration::from_secs(30);

/// Seconds of a lease: the least that dnsmasq gives.
pub const LEASE: u64 = 120;

/// A dnsmasq that only gives leases, of the two minutes that it gives at least. If the test has failed, its log is
/// shown.
#[derive(Debug)]
pub struct Server<'n> {
    namespace: &'n Namespace,
    pid: u32,
    folder: TempDir,
}

impl<'n> Server<'n> {
    /// Gives 192.0.2.150 to .159 and 2001:db8::150 to 159. Its IPv4 clients are told to ask for more time after four
    /// seconds, and any server after a minute.
    #[must_use]
    pub fn start(namespace: &'n Namespace) -> Self {
        let folder = scratch("dnsmasq");
        let mut server = Self { namespace, pid: 0, folder };
        server.launch("192.0.2.150,192.0.2.159", "2001:db8::150,2001:db8::159");
        server
    }

    /// Ends it and starts another one, which knows nothing of the leases that were given before, and gives others:
    /// 192.0.2.170 to .179 and 2001:db8:0:1::150 to 159.
    pub fn replace(&mut self) {
        self.namespace.end(self.pid);
        fs::remove_file(self.leases()).unwrap();
        self.namespace.ip("addr add 2001:db8:0:1::101/64 dev eth0 nodad\n");
        self.launch("192.0.2.170,192.0.2.179", "2001:db8:0:1::150,2001:db8:0:1::159");
    }

    /// Until when a lease runs, in seconds since 1970, as the server has written it down.
    #[must_use]
    #[track_caller]
    pub fn expiry(&self, address: IpAddr) -> u64 {
        let line = self.line(address);
        line.split(' ').next().and_then(|expiry| expiry.parse().ok()).expect("a line begins with the expiry")
    }

    /// What the server has written down of a lease: expiry, hardware address or association, address, name,
    /// client identifier. It writes after it has answered, and all leases anew, so this may take a moment.
    ///
    /// # Panics
    /// If it writes down none.
    #[must_use]
    #[track_caller]
    pub fn line(&self, address: IpAddr) -> String {
        let mut found = None;
        until("a lease to be written down", PATIENCE, || {
            let text = fs::read_to_string(self.leases()).unwrap_or_default();
            let of_address = |line: &&str| line.split(' ').nth(2) == Some(&address.to_string());
            let whole = |line: &&str| line.split(' ').count() == 5;
            found = text.lines().filter(of_address).find(whole).map(str::to_owned);
            found.is_some()
        });
        found.unwrap()
    }

    /// What it logged.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    fn launch(&mut self, v4: &str, v6: &str) {
        let seen = self.log().len();
        let mut command = self.namespace.command("dnsmasq");
        command
            .args(["--keep-in-foreground", "--conf-file=/dev/null", "--port=0", "--user=root", "--pid-file="])
            .args([
                "--interface=eth0",
                "--bind-interfaces",
                "--dhcp-authoritative",
                "--no-ping",
                "--log-dhcp",
            ])
            .arg(format!("--dhcp-range={v4},{LEASE}"))
            .arg(format!("--dhcp-range={v6},64,{LEASE}"))
            .args(["--dhcp-option=option:T1,4", "--dhcp-option=option:T2,60"])
            .arg(format!("--dhcp-leasefile={}", self.leases().display()))
            .arg(format!("--log-facility={}", self.folder.path().join("log").display()));
        self.pid = self.namespace.start(&mut command);
        until("dnsmasq to be there", PATIENCE, || {
            self.log().get(seen..).is_some_and(|log| log.contains("sockets bound"))
        });
    }

    fn leases(&self) -> PathBuf {
        self.folder.path().join("leases")
    }
}

impl Drop for Server<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("---- dnsmasq's log\n{}----", self.log());
        }
        self.namespace.end(self.pid);
    }
}

/// What a client runs when it got an address or lost it.
#[derive(Debug)]
pub struct Clients {
    folder: TempDir,
}

impl Clients {
    /// Neither of them runs.
    #[must_use]
    pub fn new() -> Self {
        let folder = scratch("dhcp");
        for (name, script) in [("v4", SCRIPT_V4), ("v6", SCRIPT_V6)] {
            let path = folder.path().join(name);
            fs::write(&path, script).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        }
        Self { folder }
    }

    /// Starts busybox's client for IPv4 in `namespace`, and returns its process and the address that it got.
    pub fn start_v4(&self, namespace: &Namespace, name: &str) -> (u32, IpAddr) {
        let mut command = namespace.command("busybox");
        command
            .args(["udhcpc", "-f", "-i", "eth0", "-t", "30", "-T", "1", "-s"])
            .arg(self.folder.path().join("v4"));
        let pid = namespace.start(command.args(["-x", &format!("hostname:{name}")]));
        (pid, self.address("v4.address"))
    }

    /// Starts ISC's client for IPv6, likewise. Started again it asks for what it had.
    pub fn start_v6(&self, namespace: &Namespace) -> (u32, IpAddr) {
        let path = |name: &str| self.folder.path().join(name);
        let mut command = namespace.command("dhclient");
        command
            .args(["-6", "-d", "-q", "-cf", "/dev/null", "-lf"])
            .arg(path("v6.leases"))
            .arg("-pf")
            .arg(path("v6.pid"));
        let _ = fs::remove_file(path("v6.address"));
        let pid = namespace.start(command.arg("-sf").arg(path("v6")).arg("eth0"));
        (pid, self.address("v6.address"))
    }

    /// The address that a script wrote down once the guest had it.
    fn address(&self, file: &str) -> IpAddr {
        let mut address = None;
        until("an address from the server", PATIENCE, || {
            let text = fs::read_to_string(self.folder.path().join(file)).unwrap_or_default();
            address = text.trim().parse().ok();
            address.is_some()
        });
        address.unwrap()
    }
}

impl Default for Clients {
    fn default() -> Self {
        Self::new()
    }
}

const SCRIPT_V4: &str = "#!/bin/sh
case $1 in bound|renew)
    ip addr replace \"$ip/$mask\" dev \"$interface\" && echo \"$ip\" > \"$0.address.new\" && mv \"$0.address.new\" \"$0.address\";;
esac
";
const SCRIPT_V6: &str = "#!/bin/sh
case $reason in BOUND6|RENEW6|REBIND6)
    ip -6 addr replace \"$new_ip6_address/128\" dev \"$interface\" nodad &&
    echo \"$new_ip6_address\" > \"$0.address.new\" && mv \"$0.address.new\" \"$0.address\";;
esac
";

//! Real virtual machines: QEMU guests under a libvirtd of the lab's own, in the hypervisor namespace.
//!
//! No KVM is needed: guests run under QEMU's own processor (TCG) and answer some six seconds after start.
//! `make guest` builds what they boot.

use std::fs;
use std::net::IpAddr;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;

use crate::capture::{Capture, tcp_is_at_rest};
use crate::daemon::scripts;
use crate::deadline::{Deadline, pause, until};
use crate::namespace::{must, scratch};
use crate::netns_guest::mac;
use crate::network::{Network, v4, v6};

/// A network with a libvirtd in its hypervisor namespace. Dropping it ends everything in it.
#[derive(Debug)]
pub struct VirtualLab {
    // In this order: the processes end with the network, then their folder can go.
    /// What passes the port of `c1`.
    traffic: Capture,
    /// The network.
    pub network: Network,
    folder: TempDir,
}

/// A virtual machine that was started.
#[derive(Debug)]
pub struct Machine {
    /// Its name as a domain, and of its tap.
    pub name: String,
    /// 52:54:00:00:00:xx
    pub mac: String,
    /// Its IPv4 address.
    pub v4: IpAddr,
    /// Its IPv6 address.
    pub v6: IpAddr,
}

impl VirtualLab {
    /// A new network and libvirtd, which answers.
    #[must_use]
    pub fn new() -> Self {
        let network = Network::new();
        let traffic = Capture::start(&network.hypervisor, "c1");
        let lab = Self { traffic, network, folder: scratch("libvirt") };
        let log = fs::File::create(lab.path("output")).unwrap();
        let mut command = lab.network.hypervisor.command(scripts().join("libvirtd"));
        lab.network.hypervisor.start(command.arg(lab.folder.path()).stdout(Stdio::null()).stderr(log));
        lab.wait_until_it_answers();
        lab
    }

    /// As `virsh -c` takes it.
    #[must_use]
    pub fn uri(&self) -> String {
        format!("qemu+unix:///system?socket={}", self.path("run/libvirt-sock").display())
    }

    /// Runs `virsh` by hand, which must succeed; its output.
    #[track_caller]
    pub fn virsh(&self, arguments: &[&str]) -> String {
        must(&mut self.virsh_command(arguments))
    }

    /// The same as a command, which need not succeed nor end.
    #[must_use]
    pub fn virsh_command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("virsh");
        command.args(["-q", "-c", &self.uri()]).args(arguments).env("LC_ALL", "C").stdin(Stdio::null());
        command
    }

    /// Waits until nothing is on its way in any TCP connection of `c1`. The last acknowledgement of an answer
    /// comes up to 200 ms after it, which would abort a sleep, or end it, that begins meanwhile.
    #[track_caller]
    pub fn wait_for_rest(&self) {
        self.traffic.wait("the connections of c1 to be at rest", Duration::from_secs(20), tcp_is_at_rest);
    }

    /// A domain's state and its reason, as virsh says them: `paused (user)`.
    #[must_use]
    pub fn domstate(&self, name: &str) -> String {
        self.virsh(&["domstate", "--reason", name]).trim().to_owned()
    }

    /// Starts machine `vm<number>`, 192.0.2.(10 + `number`); returns when its services are up.
    #[must_use]
    pub fn boot(&self, number: u8) -> Machine {
        self.boot_with(number, "")
    }

    /// The same, with further devices, as libvirt's XML has them.
    #[must_use]
    pub fn boot_with(&self, number: u8, devices: &str) -> Machine {
        let machine = self.start(number, devices);
        self.wait_until_it_serves(&machine);
        machine
    }

    /// Starts `vm1` and `vm2` at a time.
    #[must_use]
    pub fn boot_two(&self) -> [Machine; 2] {
        let machines = [self.start(1, ""), self.start(2, "")];
        for machine in &machines {
            self.wait_until_it_serves(machine);
        }
        machines
    }

    fn start(&self, number: u8, devices: &str) -> Machine {
        let machine = Machine {
            name: format!("vm{number}"),
            mac: mac(number),
            v4: v4(10 + number),
            v6: v6(10 + number),
        };
        let template = fs::read_to_string(scripts().join("domain.xml")).unwrap();
        let values = [
            ("@NAME@", machine.name.clone()),
            ("@GUEST@", guest_folder().display().to_string()),
            ("@MAC@", machine.mac.clone()),
            ("@V4@", machine.v4.to_string()),
            ("@V6@", machine.v6.to_string()),
            ("@CONSOLE@", self.console(&machine).display().to_string()),
            ("@MORE@", devices.to_owned()),
        ];
        let xml = values.iter().fold(template, |xml, (word, value)| xml.replace(word, value));
        let file = self.path(&format!("{}.xml", machine.name));
        fs::write(&file, xml).unwrap();
        self.virsh(&["define", file.to_str().unwrap()]);
        self.virsh(&["start", &machine.name]);
        machine
    }

    fn console(&self, machine: &Machine) -> PathBuf {
        self.path(&format!("{}.console", machine.name))
    }

    fn wait_until_it_serves(&self, machine: &Machine) {
        let deadline = Deadline::after(Duration::from_secs(120));
        loop {
            let text = fs::read(self.console(machine)).unwrap_or_default();
            let text = String::from_utf8_lossy(&text);
            if text.contains("READY") {
                break;
            }
            assert!(!deadline.passed(), "{} does not boot; its console:\n{text}", machine.name);
            pause(Duration::from_millis(20));
        }
    }

    /// Ends libvirtd alone, the machines run on; it stays down until
    /// [`start_libvirtd`](Self::start_libvirtd).
    pub fn stop_libvirtd(&self) {
        fs::write(self.path("down"), "").unwrap();
        let pid = self.libvirtd();
        crate::sys::signal(pid, libc::SIGTERM);
        until("libvirtd to end", Duration::from_secs(30), || {
            !self.network.hypervisor.processes().contains(&pid)
        });
    }

    fn libvirtd(&self) -> u32 {
        fs::read_to_string(self.path("run/libvirtd.pid")).unwrap().trim().parse().unwrap()
    }

    /// Whether libvirtd waits for a file to open, as it does for a fifo that nobody reads.
    #[must_use]
    pub fn libvirtd_opens_a_file(&self) -> bool {
        let threads = fs::read_dir(format!("/proc/{}/task", self.libvirtd())).unwrap().flatten();
        let call = |thread: fs::DirEntry| fs::read_to_string(thread.path().join("syscall")).ok();
        let openat = format!("{} ", libc::SYS_openat);
        threads.filter_map(call).any(|call| call.starts_with(&openat))
    }

    /// Starts it again; returns when it answers.
    pub fn start_libvirtd(&self) {
        fs::remove_file(self.path("down")).unwrap();
        self.wait_until_it_answers();
    }

    /// The QEMU processes that run.
    #[must_use]
    pub fn qemus(&self) -> Vec<u32> {
        let mut pids = self.network.hypervisor.processes();
        pids.retain(|pid| {
            fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name.starts_with("qemu"))
        });
        pids
    }

    /// Stops a machine's QEMU itself, so that it answers libvirt no more, until
    /// [`unhang`](Self::unhang).
    #[track_caller]
    pub fn hang(&self, machine: &Machine) {
        assert!(crate::sys::signal(self.qemu(machine), libc::SIGSTOP));
    }

    /// Lets it go on.
    #[track_caller]
    pub fn unhang(&self, machine: &Machine) {
        assert!(crate::sys::signal(self.qemu(machine), libc::SIGCONT));
    }

    #[track_caller]
    fn qemu(&self, machine: &Machine) -> u32 {
        // libvirt names it `-name guest=vm1,debug-threads=on`.
        let name = format!("guest={},", machine.name);
        let is_its = |pid: &u32| {
            fs::read_to_string(format!("/proc/{pid}/cmdline")).is_ok_and(|line| line.contains(&name))
        };
        self.qemus().into_iter().find(is_its).expect("its QEMU runs")
    }

    /// Where libvirt saves a machine to, when it is asked to keep the file itself (managed save).
    #[must_use]
    pub fn saved_state(&self, machine: &Machine) -> PathBuf {
        self.path(&format!("lib/qemu/save/{}.save", machine.name))
    }

    fn wait_until_it_answers(&self) {
        let answers = || {
            let mut command = Command::new("virsh");
            command.args(["-q", "-c", &self.uri(), "uri"]).stdout(Stdio::null()).stderr(Stdio::null());
            command.status().is_ok_and(|status| status.success())
        };
        until("libvirtd to answer", Duration::from_secs(60), answers);
    }

    /// A file in the folder that goes with the lab.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }
}

impl Default for VirtualLab {
    fn default() -> Self {
        Self::new()
    }
}

impl Machine {
    /// What its web server shows.
    #[must_use]
    pub fn page(&self) -> String {
        format!("this is {}\n", self.name)
    }

    /// Its `[[guest]]` section: what libvirt cannot tell, and `more` lines.
    #[must_use]
    pub fn section(&self, more: &str) -> String {
        format!(
            "[[guest]]\nname = \"{}\"\nhypervisor = \"local\"\naddresses = [\"{}/24\", \"{}/64\"]\n{more}\n",
            self.name, self.v4, self.v6
        )
    }
}

/// The key that root in every machine accepts.
#[must_use]
pub fn ssh_key() -> PathBuf {
    guest_folder().join("id_ed25519")
}

/// # Panics
/// If the guest was not built.
fn guest_folder() -> PathBuf {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("target/lab/guest");
    assert!(folder.join("initramfs").is_file(), "no guest in {}: run make guest", folder.display());
    folder
}

//! Names on the lab's link: hosts that announce themselves and programs that look for them, both Avahi; and
//! what has no program of Debian's, a question in LLMNR and a NetBIOS registration.
//!
//! Avahi has its files at fixed places, so each of its daemons sees a file system of its own there. Its tools speak
//! to it through a message bus, which is a private one.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;

use crate::deadline::until;
use crate::namespace::{Namespace, must, scratch};

/// How long Avahi may take for what it does in two seconds.
const PATIENCE: Duration = Duration::from_secs(30);

/// An Avahi daemon. It ends with its namespace.
#[derive(Debug)]
pub struct Avahi {
    folder: TempDir,
}

/// A page that a host announces.
#[derive(Clone, Copy, Debug)]
pub struct Page<'p> {
    /// What people read.
    pub name: &'p str,
    /// Its port.
    pub port: u16,
}

impl Avahi {
    /// A host that is called `host`, with a page; returns when both names are its own.
    #[must_use]
    pub fn announcing(namespace: &Namespace, host: &str, page: Option<Page<'_>>) -> Self {
        let avahi = Self::start(namespace, &format!("host-name={host}\nenable-dbus=no\n"), "", page, None);
        let done = if page.is_some() { "successfully established" } else { "Server startup complete" };
        until("its names to be established", PATIENCE, || avahi.log().contains(done));
        avahi
    }

    fn start(
        namespace: &Namespace,
        server: &str,
        publish: &str,
        page: Option<Page<'_>>,
        bus: Option<&str>,
    ) -> Self {
        let folder = scratch("avahi");
        let config = format!(
            "[server]\nallow-interfaces=eth0\n{server}[wide-area]\nenable-wide-area=no\n\
             [publish]\npublish-hinfo=no\npublish-workstation=no\n{publish}"
        );
        fs::write(folder.path().join("avahi.conf"), config).unwrap();
        fs::create_dir(folder.path().join("services")).unwrap();
        if let Some(Page { name, port }) = page {
            let service = format!(
                "<service-group><name>{name}</name><service><type>_http._tcp</type><port>{port}</port>\
                 <txt-record>path=/</txt-record></service></service-group>"
            );
            fs::write(folder.path().join("services/page.service"), service).unwrap();
        }
        let script = "mount --make-rprivate / && mount -t tmpfs none /run && mkdir /run/avahi-daemon && \
                      mount --bind \"$0/services\" /etc/avahi/services && \
                      exec avahi-daemon -f \"$0/avahi.conf\" --no-drop-root --no-rlimits --no-chroot";
        let log = fs::File::create(folder.path().join("log")).unwrap();
        let mut command = namespace.command("unshare");
        command.args(["--mount", "sh", "-c", script]).arg(folder.path());
        if let Some(bus) = bus {
            command.env("DBUS_SYSTEM_BUS_ADDRESS", bus);
        }
        namespace.start(command.stdout(log.try_clone().unwrap()).stderr(log));
        Self { folder }
    }

    /// What it wrote so far.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }
}

/// A host that looks for names and says nothing of itself. It knows what it heard since it was started, and
/// nothing from before.
#[derive(Debug)]
pub struct Looker<'n> {
    namespace: &'n Namespace,
    bus: String,
    avahi: Avahi,
    _folder: TempDir,
}

impl<'n> Looker<'n> {
    /// Starts it; returns when it can be asked.
    #[must_use]
    pub fn new(namespace: &'n Namespace) -> Self {
        let folder = scratch("bus");
        let socket = folder.path().join("bus");
        let bus = format!("unix:path={}", socket.display());
        let config = format!(
            "<busconfig><listen>{bus}</listen><auth>EXTERNAL</auth><policy context=\"default\">\
             <allow send_destination=\"*\"/><allow receive_sender=\"*\"/><allow own=\"*\"/></policy></busconfig>"
        );
        let path: PathBuf = folder.path().join("bus.conf");
        fs::write(&path, config).unwrap();
        let mut command = namespace.command("dbus-daemon");
        command.args(["--nofork", "--nopidfile", "--config-file"]).arg(&path).stderr(Stdio::null());
        namespace.start(&mut command);
        until("the message bus", PATIENCE, || socket.exists());
        let publish = "disable-publishing=yes\n";
        let avahi = Avahi::start(namespace, "enable-dbus=yes\n", publish, None, Some(&bus));
        until("avahi to be up", PATIENCE, || avahi.log().contains("Server startup complete"));
        assert!(avahi.path().exists());
        Self { namespace, bus, avahi, _folder: folder }
    }

    /// The address that goes with a name; `Err` is what the tool wrote.
    pub fn resolve(&self, family: &str, name: &str) -> Result<IpAddr, String> {
        let text = self.run("avahi-resolve", &[family, "-n", name])?;
        let address = text.split_whitespace().nth(1).and_then(|address| address.parse().ok());
        address.ok_or(text)
    }

    /// The name that goes with an address.
    pub fn resolve_address(&self, address: IpAddr) -> Result<String, String> {
        let text = self.run("avahi-resolve", &["-a", &address.to_string()])?;
        text.split_whitespace().nth(1).map(str::to_owned).ok_or(text)
    }

    /// Every service of a type, or with `-a` of all, a line each as avahi-browse has it for programs: resolved
    /// ones begin with `=`.
    #[must_use]
    pub fn browse(&self, kind: &str) -> String {
        self.run("avahi-browse", &["-r", "-t", "-p", "-k", kind]).unwrap_or_else(|why| why)
    }

    fn run(&self, tool: &str, arguments: &[&str]) -> Result<String, String> {
        let mut command = self.namespace.command("timeout");
        command
            .arg("30")
            .arg(tool)
            .args(arguments)
            .env("DBUS_SYSTEM_BUS_ADDRESS", &self.bus)
            .env("LC_ALL", "C");
        let output = command.output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let errors = String::from_utf8_lossy(&output.stderr);
        let wrong =
            || format!("{tool} {arguments:?}: {}\n{text}{errors}\n{}", output.status, self.avahi.log());
        if output.status.success() && !text.is_empty() { Ok(text) } else { Err(wrong()) }
    }
}

/// What nbtscan finds at an address; asked again, up to ten times, where it finds nothing.
#[must_use]
pub fn nbtscan(from: &Namespace, address: IpAddr) -> String {
    let scan = || {
        let mut command: Command = from.command("nbtscan");
        must(command.args(["-v", "-s", ":", "-t", "2000", &address.to_string()]))
    };
    (0..10).map(|_| scan()).find(|found| !found.trim().is_empty()).unwrap_or_default()
}

/// Asks all that listen on 224.0.0.252 for the IPv4 addresses of `name`, up to so many times; the answer and
/// who gave it.
#[must_use]
pub fn llmnr(from: &Namespace, own: Ipv4Addr, name: &str, times: u32) -> Option<(IpAddr, Vec<u8>)> {
    let mut question = vec![0x12, 0x34, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, name.len() as u8];
    question.extend(name.as_bytes());
    question.extend([0, 0, 1, 0, 1]);
    from.ip("route replace 224.0.0.0/4 dev eth0");
    let socket = from.enter(|| UdpSocket::bind((own, 0))).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
    (0..times).find_map(|_| {
        socket.send_to(&question, (Ipv4Addr::new(224, 0, 0, 252), 5355)).unwrap();
        let mut answer = vec![0; 600];
        let (len, who) = socket.recv_from(&mut answer).ok()?;
        answer.truncate(len);
        Some((who.ip(), answer))
    })
}

/// A process that listens to questions in LLMNR on 224.0.0.252, and answers none.
pub fn listen_to_llmnr(namespace: &Namespace) {
    let address = "UDP4-RECV:5355,ip-add-membership=224.0.0.252:eth0,reuseaddr";
    namespace.start(namespace.command("socat").args(["-u", address, "/dev/null"]));
    until("the group to be joined", PATIENCE, || {
        // 224.0.0.252 as the kernel writes it.
        namespace.enter(|| fs::read_to_string("/proc/thread-self/net/igmp").unwrap().contains("FC0000E0"))
    });
}

/// Registers a NetBIOS name with suffix 20 for `own` by broadcast, as a node does that comes up.
pub fn register_netbios(namespace: &Namespace, own: Ipv4Addr, name: &str) {
    let padded = format!("{name:<15}\u{20}");
    let letters = padded.bytes().flat_map(|byte| [b'A' + (byte >> 4), b'A' + (byte & 0x0f)]);
    let mut packet = vec![0x47, 0x11, 0x29, 0x10, 0, 1, 0, 0, 0, 0, 0, 1, 32];
    packet.extend(letters);
    packet.extend([0, 0, 0x20, 0, 1, 0xc0, 0x0c, 0, 0x20, 0, 1, 0, 4, 0x93, 0xe0, 0, 6, 0, 0]);
    packet.extend(own.octets());
    namespace.enter(|| {
        let socket = UdpSocket::bind((own, 137)).unwrap();
        socket.set_broadcast(true).unwrap();
        let [a, b, c, _] = own.octets();
        socket.send_to(&packet, ((Ipv4Addr::new(a, b, c, 255)), 137)).unwrap();
    });
}

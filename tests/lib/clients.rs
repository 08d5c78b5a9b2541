//! What people do to a guest from another host: ping, arping, curl, a TCP session, ssh.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, ChildStdin, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use crate::namespace::Namespace;
use crate::sys;

/// What ping counted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pings {
    /// Requests sent.
    pub sent: u32,
    /// Answers, duplicates not among them.
    pub received: u32,
    /// Answers that came again.
    pub duplicates: u32,
    /// Everything it wrote.
    pub text: String,
}

impl Pings {
    /// Whether each request got its one answer.
    #[must_use]
    pub fn all_answered(&self) -> bool {
        self.sent > 0 && self.sent == self.received && self.duplicates == 0
    }

    fn parse(text: String) -> Self {
        let summary = text.lines().find(|line| line.contains("packets transmitted")).unwrap_or_default();
        let number = |what: &str| {
            let part = summary.split(", ").find(|part| part.contains(what));
            part.and_then(|part| part.trim_start_matches('+').split(' ').next()?.parse().ok()).unwrap_or(0)
        };
        let (sent, received) = (number("transmitted"), number("received"));
        Self { sent, received, duplicates: number("duplicates"), text }
    }
}

/// `count` pings of `address`, `interval` apart, four seconds' patience at the end.
#[must_use]
pub fn ping(from: &Namespace, address: IpAddr, count: u32, interval: Duration) -> Pings {
    let (count, interval) = (count.to_string(), interval.as_secs_f64().to_string());
    let mut command = from.command("ping");
    command.args(["-n", "-c", &count, "-i", &interval, "-W", "4", &address.to_string()]);
    let output = command.output().unwrap();
    Pings::parse(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// A ping that goes on until it is stopped.
#[derive(Debug)]
pub struct Pinging(Child);

impl Pinging {
    /// Starts it.
    #[must_use]
    pub fn start(from: &Namespace, address: IpAddr, interval: Duration) -> Self {
        let interval = interval.as_secs_f64().to_string();
        let mut command = from.command("ping");
        command.args(["-n", "-i", &interval, &address.to_string()]);
        Self(command.stdout(Stdio::piped()).spawn().unwrap())
    }

    /// Ends it. The last request may still be on its way, which ping counts as lost: it is sent a moment
    /// of grace by [`Pings::all_answered`] being asked of all but that one.
    #[must_use]
    pub fn stop(mut self) -> Pings {
        sys::signal(self.0.id(), libc::SIGINT);
        let mut text = String::new();
        self.0.stdout.take().unwrap().read_to_string(&mut text).unwrap();
        let _ = self.0.wait();
        let mut pings = Pings::parse(text);
        let last = format!("icmp_seq={} ", pings.sent);
        if pings.sent == pings.received + 1 && !pings.text.contains(&last) {
            pings.sent -= 1;
        }
        pings
    }
}

impl Drop for Pinging {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// `count` ARP requests for `address`; how many answers came, and what arping wrote.
#[must_use]
pub fn arping(from: &Namespace, address: IpAddr, count: u32) -> (u32, String) {
    let (count, address) = (count.to_string(), address.to_string());
    let output =
        from.command("arping").args(["-c", &count, "-w", "10", "-I", "eth0", &address]).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let received =
        text.lines().find_map(|line| line.strip_prefix("Received ")?.split(' ').next()?.parse().ok());
    (received.unwrap_or(0), text)
}

/// What curl got.
#[derive(Clone, Debug, PartialEq)]
pub struct Page {
    /// The body.
    pub body: String,
    /// From start to end.
    pub took: Duration,
}

/// Fetches `http://address/`.
///
/// # Errors
/// What curl wrote, if it failed or the answer was no 200.
pub fn curl(from: &Namespace, address: IpAddr) -> Result<Page, String> {
    let url = format!("http://{}/", SocketAddr::new(address, 80));
    let mut command = from.command("curl");
    command.args(["-gsS", "--max-time", "20", "-w", "\\n%{http_code} %{time_total}", &url]);
    let output = command.output().map_err(|error| error.to_string())?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let (body, last) = text.rsplit_once('\n').unwrap_or_default();
    match last.split_once(' ') {
        Some(("200", seconds)) if output.status.success() => {
            Ok(Page { body: body.to_owned(), took: Duration::from_secs_f64(seconds.parse().unwrap_or(0.0)) })
        }
        _ => Err(format!("{}: {text}{}", output.status, String::from_utf8_lossy(&output.stderr))),
    }
}

/// A TCP session with an echo server.
#[derive(Debug)]
pub struct Echo(BufReader<TcpStream>);

impl Echo {
    /// Connects to port 7 at `address`; `patience` is for this and for each answer.
    ///
    /// # Errors
    /// As the kernel has them.
    pub fn open(from: &Namespace, address: IpAddr, patience: Duration) -> std::io::Result<Self> {
        let stream = from.enter(|| TcpStream::connect_timeout(&SocketAddr::new(address, 7), patience))?;
        stream.set_read_timeout(Some(patience))?;
        stream.set_nodelay(true)?;
        Ok(Self(BufReader::new(stream)))
    }

    /// Sends a line and waits for it to come back.
    ///
    /// # Errors
    /// If nothing or something else came back.
    pub fn say(&mut self, line: &str) -> std::io::Result<()> {
        self.0.get_mut().write_all(format!("{line}\n").as_bytes())?;
        let mut back = String::new();
        self.0.read_line(&mut back)?;
        if back.strip_suffix('\n') == Some(line) {
            Ok(())
        } else {
            Err(std::io::Error::other(format!("{line:?} became {back:?}")))
        }
    }
}

/// An ssh session that runs `cat`.
#[derive(Debug)]
pub struct Ssh {
    child: Child,
    input: ChildStdin,
    lines: Receiver<String>,
}

impl Ssh {
    /// Logs in as root with the private key at `key`.
    #[must_use]
    pub fn open(from: &Namespace, address: IpAddr, key: &Path) -> Self {
        let mut command = from.command("ssh");
        for option in [
            "BatchMode=yes",
            "StrictHostKeyChecking=no",
            "UserKnownHostsFile=/dev/null",
            "GlobalKnownHostsFile=/dev/null",
            "IdentitiesOnly=yes",
            "LogLevel=ERROR",
            "ConnectTimeout=20",
        ] {
            command.args(["-o", option]);
        }
        command.args(["-F", "none", "-i"]).arg(key).arg(format!("root@{address}")).arg("cat");
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let input = child.stdin.take().unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        Self { child, input, lines }
    }

    /// Sends a line and waits for it to come back.
    ///
    /// # Errors
    /// If the session ended, or nothing or something else came back within `patience`.
    pub fn say(&mut self, line: &str, patience: Duration) -> Result<(), String> {
        self.input.write_all(format!("{line}\n").as_bytes()).map_err(|error| error.to_string())?;
        match self.lines.recv_timeout(patience) {
            Ok(back) if back == line => Ok(()),
            other => Err(format!("{line:?} became {other:?}")),
        }
    }
}

impl Drop for Ssh {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

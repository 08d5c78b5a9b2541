//! What people do to a guest from another host: ping, arping, curl, a TCP session, ssh.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, ChildStdin, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use crate::deadline::{Deadline, until};
use crate::namespace::Namespace;
use crate::sys;

/// What became of some pings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pings {
    /// Requests sent.
    pub sent: u32,
    /// Answers to them, duplicates not among them.
    pub received: u32,
    /// Answers that came again.
    pub duplicates: u32,
    /// Everything that ping wrote.
    pub text: String,
}

impl Pings {
    /// Whether each request got its one answer.
    #[must_use]
    pub fn all_answered(&self) -> bool {
        self.sent > 0 && self.sent == self.received && self.duplicates == 0
    }

    /// What became of the first `sent`; those after them do not count.
    fn of(sent: u32, text: String) -> Self {
        let is_answer = |line: &&str| line.contains(" bytes from ");
        let answers: Vec<_> =
            text.lines().filter(is_answer).filter_map(sequence).filter(|n| (1..=sent).contains(n)).collect();
        let received = answers.iter().collect::<BTreeSet<_>>().len();
        Self { sent, received: received as u32, duplicates: (answers.len() - received) as u32, text }
    }
}

/// The sequence number in a line of ping's, about an answer or an error.
fn sequence(line: &str) -> Option<u32> {
    line.split_once("icmp_seq=")?.1.split(' ').next()?.parse().ok()
}

/// `count` pings of `address`, `interval` apart, with patience as [`Pinging::stop`] has it.
#[must_use]
pub fn ping(from: &Namespace, address: IpAddr, count: u32, interval: Duration) -> Pings {
    Pinging::start(from, address, interval).end_after(count)
}

/// The same with `size` bytes of data each.
#[must_use]
pub fn ping_of(from: &Namespace, address: IpAddr, count: u32, interval: Duration, size: usize) -> Pings {
    Pinging::start_of(from, address, interval, size).end_after(count)
}

/// A ping that goes on until it is stopped.
///
/// What ping itself counts at its end is no use on a busy machine: told to end it counts as lost whatever is
/// still on its way, and given a count it waits for the last answer only as long as the slowest took twice.
/// So what it has sent is asked, the answers are waited for, and what it sends meanwhile does not count.
#[derive(Debug)]
pub struct Pinging {
    child: Child,
    lines: Receiver<String>,
    /// How many it has sent, each time it was asked.
    sent: Receiver<u32>,
}

impl Pinging {
    /// Starts it.
    #[must_use]
    pub fn start(from: &Namespace, address: IpAddr, interval: Duration) -> Self {
        Self::start_of(from, address, interval, 56)
    }

    fn start_of(from: &Namespace, address: IpAddr, interval: Duration, size: usize) -> Self {
        let (interval, size) = (interval.as_secs_f64().to_string(), size.to_string());
        let mut command = from.command("ping");
        command.args(["-n", "-i", &interval, "-s", &size, &address.to_string()]).env("LC_ALL", "C");
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let lines = lines_of(child.stdout.take().unwrap(), Some);
        // On SIGQUIT it writes "\r<answers>/<sent> packets, ...".
        let sent = |line: String| line.split_once('/')?.1.split_once(" packets")?.0.parse().ok();
        let sent = lines_of(child.stderr.take().unwrap(), sent);
        Self { child, lines, sent }
    }

    /// Ends it when all that it has sent until now is answered, or when none of the missing answers came for
    /// four seconds.
    #[must_use]
    pub fn stop(self) -> Pings {
        sys::signal(self.child.id(), libc::SIGQUIT);
        let sent = self.sent.recv_timeout(Duration::from_secs(20)).expect("ping tells what it has sent");
        self.end_after(sent)
    }

    fn end_after(mut self, sent: u32) -> Pings {
        const PATIENCE: Duration = Duration::from_secs(4);
        let mut open: BTreeSet<_> = (1..=sent).collect();
        let mut text = String::new();
        let mut deadline = Deadline::after(PATIENCE);
        while !open.is_empty() {
            let Ok(line) = self.lines.recv_timeout(deadline.left()) else { break };
            if sequence(&line).is_some_and(|number| open.remove(&number)) {
                deadline = Deadline::after(PATIENCE);
            }
            text.push_str(&line);
            text.push('\n');
        }
        sys::signal(self.child.id(), libc::SIGINT);
        let _ = self.child.wait();
        for line in &self.lines {
            text.push_str(&line);
            text.push('\n');
        }
        Pings::of(sent, text)
    }
}

impl Drop for Pinging {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What `read` makes of each line of `output`, as they come; it ends with the output.
fn lines_of<T: Send + 'static>(
    output: impl Read + Send + 'static,
    read: impl Fn(String) -> Option<T> + Send + 'static,
) -> Receiver<T> {
    let (sender, lines) = channel();
    std::thread::spawn(move || {
        let lines = BufReader::new(output).lines().map_while(Result::ok).filter_map(read);
        for line in lines {
            if sender.send(line).is_err() {
                return;
            }
        }
    });
    lines
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

/// Fetches `http://address/`, and returns when the connection is over: its last acknowledgement comes after
/// curl has ended, and would abort a sleep that is ordered at once.
///
/// # Errors
/// What curl wrote, if it failed or the answer was no 200.
///
/// # Panics
/// If the connection does not end.
pub fn curl(from: &Namespace, address: IpAddr) -> Result<Page, String> {
    let url = format!("http://{}/", SocketAddr::new(address, 80));
    let mut command = from.command("curl");
    command.args(["-gsS", "--max-time", "20", "-w", "\\n%{local_port} %{http_code} %{time_total}", &url]);
    let output = command.output().map_err(|error| error.to_string())?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let (body, last) = text.rsplit_once('\n').unwrap_or_default();
    let (port, last) = last.split_once(' ').unwrap_or_default();
    match last.split_once(' ') {
        Some(("200", seconds)) if output.status.success() => {
            let of_port = format!("sport = :{port}");
            let open = ["-Htn", "state", "connected", "exclude", "time-wait", &of_port];
            until("the end of curl's connection", Duration::from_secs(60), || {
                from.run("ss", &open).is_empty()
            });
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
        let lines = lines_of(child.stdout.take().unwrap(), Some);
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

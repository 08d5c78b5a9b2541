//! A network namespace with a unique name, and the processes in it.
//!
//! Names are `sg<pid>-<number>-<role>`: they tell whose it is, so that what a killed run left behind can be
//! recognised and removed by the next ([`sweep`]).

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, Once};
use std::time::Duration;

use tempfile::TempDir;

use crate::deadline::{Deadline, pause};
use crate::{cgroup, sys};

const FOLDER: &str = "/run/netns";
const PREFIX: &str = "sg";
static NEXT: AtomicU32 = AtomicU32::new(0);
static SWEPT: Once = Once::new();

/// A namespace of ours. Dropping it ends its processes and removes it.
#[derive(Debug)]
pub struct Namespace {
    name: String,
    children: Mutex<Vec<Child>>,
}

impl Namespace {
    /// A new one, with `lo` up, no duplicate address detection and no router solicitations, so that
    /// addresses work at once and links are quiet; bridged frames do not pass netfilter.
    #[must_use]
    pub fn new(role: &str) -> Self {
        SWEPT.call_once(|| drop(sweep()));
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("{PREFIX}{}-{number}-{role}", std::process::id());
        must(Command::new("ip").args(["netns", "add", &name]));
        let namespace = Self { name, children: Mutex::default() };
        namespace.enter(|| {
            for (key, value) in [
                ("ipv6/conf/default/accept_dad", "0"),
                ("ipv6/conf/default/router_solicitations", "0"),
                ("bridge/bridge-nf-call-arptables", "0"),
                ("bridge/bridge-nf-call-iptables", "0"),
                ("bridge/bridge-nf-call-ip6tables", "0"),
            ] {
                let written = fs::write(format!("/proc/sys/net/{key}"), value);
                // Without the bridge netfilter module there is nothing to switch off.
                assert!(written.is_ok() || key.starts_with("bridge"), "sysctl {key}: {written:?}");
            }
        });
        namespace.ip("link set lo up");
        namespace
    }

    /// As `ip netns` lists it.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A command that will run in here and end, at the latest, with the calling thread.
    #[must_use]
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new(program);
        sys::run_inside(&mut command, self.file());
        command.stdin(Stdio::null());
        command
    }

    /// Runs a program to its end and returns its standard output.
    ///
    /// # Panics
    /// If it fails, with what it wrote.
    #[track_caller]
    pub fn run(&self, program: &str, arguments: &[&str]) -> String {
        must(self.command(program).args(arguments))
    }

    /// Starts `command` (made by [`command`](Self::command)); it is killed when this is dropped.
    ///
    /// # Panics
    /// If it cannot be started.
    #[track_caller]
    pub fn start(&self, command: &mut Command) -> u32 {
        let child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let pid = child.id();
        self.children.lock().unwrap().push(child);
        pid
    }

    /// Kills a process that [`start`](Self::start) began, and waits until it is gone.
    ///
    /// # Panics
    /// If there is no such process.
    #[track_caller]
    pub fn end(&self, pid: u32) {
        let mut children = self.children.lock().unwrap();
        let at =
            children.iter().position(|child| child.id() == pid).expect("a process that was started here");
        let mut child = children.swap_remove(at);
        // An error means that it has ended already.
        let _ = child.kill();
        child.wait().unwrap();
    }

    /// Runs `f` on a thread in this namespace; sockets it opens stay here. Not for starting processes:
    /// they would end with that thread.
    pub fn enter<T: Send>(&self, f: impl FnOnce() -> T + Send) -> T {
        let file = self.file();
        std::thread::scope(|scope| {
            let inside = scope.spawn(move || {
                sys::join(&file).unwrap();
                f()
            });
            inside.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// Runs `ip` with each line of `batch`.
    #[track_caller]
    pub fn ip(&self, batch: &str) {
        self.tool("ip", batch);
    }

    /// Runs `bridge` with each line of `batch`.
    #[track_caller]
    pub fn bridge(&self, batch: &str) {
        self.tool("bridge", batch);
    }

    #[track_caller]
    fn tool(&self, program: &str, batch: &str) {
        use std::io::Write;
        let mut command = Command::new(program);
        command.args(["-n", &self.name, "-batch", "-"]).stdin(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        child.stdin.take().unwrap().write_all(batch.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{program} in {}: {batch}\n{errors}", self.name);
    }

    /// Every process whose namespace this is.
    #[must_use]
    pub fn processes(&self) -> Vec<u32> {
        processes_in(&self.name)
    }

    fn file(&self) -> File {
        let path = format!("{FOLDER}/{}", self.name);
        File::open(&path).unwrap_or_else(|error| panic!("{path}: {error}"))
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let children = std::mem::take(&mut *self.children.lock().unwrap());
        remove(&self.name, children);
    }
}

/// A temporary folder that is recognised, like a namespace, when its run is no more.
#[must_use]
pub fn scratch(role: &str) -> TempDir {
    let prefix = format!("{PREFIX}{}-{role}-", std::process::id());
    tempfile::Builder::new().prefix(&prefix).tempdir().unwrap()
}

/// Removes the cgroups, the namespaces with their processes, and the folders of runs that are no more; their
/// names.
pub fn sweep() -> Vec<String> {
    let cgroups = cgroup::sweep(stale);
    let namespaces = stale(Path::new(FOLDER));
    for name in &namespaces {
        remove(name, Vec::new());
    }
    let folders = stale(&std::env::temp_dir());
    for name in &folders {
        // Another run may be sweeping at this moment, too.
        let _ = fs::remove_dir_all(std::env::temp_dir().join(name));
    }
    [cgroups, namespaces, folders].concat()
}

/// The names in `folder` that are of runs that are no more.
fn stale(folder: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let names = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok());
    let ours = names.filter(|name| {
        let pid = name.strip_prefix(PREFIX).and_then(|rest| rest.split_once('-')).map(|(pid, _)| pid);
        let dead = |pid: &str| !fs::exists(format!("/proc/{pid}")).unwrap_or(true);
        pid.is_some_and(|pid| pid.parse::<u32>().is_ok() && dead(pid))
    });
    ours.collect()
}

fn remove(name: &str, mut children: Vec<Child>) {
    for child in &mut children {
        // An error means that it has ended already.
        let _ = child.kill();
    }
    let deadline = Deadline::after(Duration::from_secs(5));
    loop {
        // What those started in turn: all that lives in the namespace is the lab's.
        let alive = processes_in(name);
        for pid in &alive {
            sys::signal(*pid, libc::SIGKILL);
        }
        if alive.is_empty() || deadline.passed() {
            break;
        }
        pause(Duration::from_millis(2));
    }
    for mut child in children {
        let _ = child.wait();
    }
    let removed = Command::new("ip").args(["netns", "del", name]).stderr(Stdio::piped()).output();
    if !removed.as_ref().is_ok_and(|output| output.status.success()) {
        eprintln!("lab: namespace {name} was not removed: {removed:?}");
    }
}

fn processes_in(name: &str) -> Vec<u32> {
    let Ok(namespace) = fs::metadata(format!("{FOLDER}/{name}")) else { return Vec::new() };
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    let pids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let inside = pids.filter(|pid| {
        // A process that just ended has no namespace any more.
        let own = fs::metadata(PathBuf::from(format!("/proc/{pid}/ns/net")));
        own.is_ok_and(|own| (own.dev(), own.ino()) == (namespace.dev(), namespace.ino()))
    });
    inside.collect()
}

/// Runs a command to its end; its standard output.
///
/// # Panics
/// If it fails, with what it wrote.
#[track_caller]
pub fn must(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {}\n{text}{errors}", output.status);
    text
}

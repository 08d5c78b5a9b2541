//! The daemon as an operator runs it: a configuration file, `surrogate run`, and the command line.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;

use crate::deadline::{Deadline, pause, until};
use crate::events::Events;
use crate::namespace::{Namespace, scratch};
use crate::prometheus::Metrics;
use crate::sys;

/// How many lines of the daemon's log a failed test shows.
const LOG_SHOWN: usize = 120;
/// How long a wake that serves its first client already may go on.
const PATIENCE: Duration = Duration::from_secs(60);

/// A configuration in the making, written as an operator would.
#[derive(Clone, Debug)]
pub struct Config {
    /// Lines of `[daemon]` beside the folders, which the lab sets.
    pub daemon: String,
    /// Everything after `[daemon]`.
    pub sections: String,
}

impl Config {
    /// Guests in namespaces on br0, asleep and awake only by command and traffic. `hypervisor` and
    /// `defaults` are further lines of those sections.
    #[must_use]
    pub fn netns(hypervisor: &str, defaults: &str) -> Self {
        Self::new(&format!("kind = \"netns\"\n{hypervisor}"), defaults)
    }

    /// Guests of the libvirt at `uri`, likewise.
    #[must_use]
    pub fn libvirt(uri: &str, defaults: &str) -> Self {
        Self::new(&format!("kind = \"libvirt\"\nuri = \"{uri}\""), defaults)
    }

    fn new(hypervisor: &str, defaults: &str) -> Self {
        // A test must not run out of wakes, nor its guest sleep unasked; both have tests of their own.
        let own = [("idle_after", "\"never\""), ("wake_budget", "{ burst = 1000, per_minute = 1000 }")];
        let mut defaults = defaults.to_owned();
        for (key, value) in own {
            if !defaults.contains(key) {
                defaults.push_str(&format!("\n{key} = {value}"));
            }
        }
        Self {
            daemon: String::new(),
            sections: format!(
                "[[bridge]]\nname = \"br0\"\n\n[[hypervisor]]\nname = \"local\"\n{hypervisor}\n\n\
                 [defaults]\n{defaults}\n\n"
            ),
        }
    }

    /// With a further section, for example [`NetnsGuest::section`](crate::NetnsGuest::section).
    #[must_use]
    pub fn with(mut self, section: &str) -> Self {
        self.sections.push_str(section);
        self
    }
}

/// A running `surrogate run` in a hypervisor namespace. Dropping it kills it; if the test has failed,
/// its log is shown.
#[derive(Debug)]
pub struct Daemon {
    folder: TempDir,
    pid: Option<u32>,
}

/// How a command of the command line ended.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Its exit status.
    pub status: ExitStatus,
    /// Its standard output.
    pub output: String,
    /// Its standard error.
    pub errors: String,
}

impl Daemon {
    /// Writes the configuration and starts the daemon; returns when it answers.
    ///
    /// # Panics
    /// If it does not.
    #[must_use]
    #[track_caller]
    pub fn start(hypervisor: &Namespace, config: &Config) -> Self {
        let mut daemon = Self::prepare(config);
        daemon.launch(hypervisor);
        daemon
    }

    /// Writes the configuration only.
    #[must_use]
    pub fn prepare(config: &Config) -> Self {
        let folder = scratch("daemon");
        let daemon = Self { folder, pid: None };
        let text = format!(
            "[daemon]\nstate_dir = \"{}\"\nsocket = \"{}\"\n{}\n\n{}",
            daemon.path("state").display(),
            daemon.path("socket").display(),
            config.daemon,
            config.sections
        );
        fs::write(daemon.config(), text).unwrap();
        daemon
    }

    /// Starts the daemon (again); returns when it answers.
    ///
    /// # Panics
    /// If it does not within thirty seconds, or ends.
    #[track_caller]
    pub fn launch(&mut self, hypervisor: &Namespace) {
        self.launch_under(hypervisor, &[]);
    }

    /// The same, started by another program that becomes the daemon: `env`, `setpriv`.
    ///
    /// # Panics
    /// As [`launch`](Self::launch).
    #[track_caller]
    pub fn launch_under(&mut self, hypervisor: &Namespace, before: &[&str]) {
        let log = fs::OpenOptions::new().create(true).append(true).open(self.path("log")).unwrap();
        let own = binary();
        let mut words = before.iter().map(OsStr::new).chain([own.as_os_str()]);
        let mut command = hypervisor.command(words.next().unwrap_or_default());
        command
            .args(words)
            .arg("run")
            .arg("--config")
            .arg(self.config())
            .env("RUST_LOG", "surrogate=debug,info");
        self.pid = Some(hypervisor.start(command.stdout(log.try_clone().unwrap()).stderr(log)));
        let deadline = Deadline::after(Duration::from_secs(30));
        loop {
            let answer = self.cli(&["guests"]);
            if answer.status.success() {
                return;
            }
            assert!(self.is_running(), "the daemon ended:\n{}", self.log());
            assert!(!deadline.passed(), "the daemon does not answer: {answer:?}\n{}", self.log());
            pause(Duration::from_millis(10));
        }
    }

    /// Runs `surrogate ARGUMENTS --config FILE` to its end.
    #[must_use]
    pub fn cli(&self, arguments: &[&str]) -> Outcome {
        let output = self.command(arguments).output().unwrap();
        Outcome {
            status: output.status,
            output: String::from_utf8_lossy(&output.stdout).into_owned(),
            errors: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// The same, with `--json`, when it must succeed.
    ///
    /// # Panics
    /// If it fails or does not write JSON.
    #[track_caller]
    pub fn json(&self, arguments: &[&str]) -> Value {
        let outcome = self.cli(&[arguments, &["--json"]].concat());
        assert!(outcome.status.success(), "surrogate {arguments:?}: {outcome:?}\n{}", self.log());
        serde_json::from_str(&outcome.output)
            .unwrap_or_else(|error| panic!("{arguments:?}: {error}: {outcome:?}"))
    }

    /// Puts a guest to sleep, after a wake whose client has been served but which is not over.
    ///
    /// # Panics
    /// If it does not sleep in the end.
    #[track_caller]
    pub fn sleep(&self, guest: &str) -> Value {
        until("its last wake to be over", PATIENCE, || {
            !matches!(self.state(guest).as_str(), "waking" | "replaying")
        });
        self.json(&["sleep", guest])
    }

    /// Wakes a guest.
    ///
    /// # Panics
    /// If it is not awake in the end.
    #[track_caller]
    pub fn wake(&self, guest: &str) -> Value {
        self.json(&["wake", guest])
    }

    /// A guest's state and counters.
    #[track_caller]
    pub fn status(&self, guest: &str) -> Value {
        self.json(&["status", guest])
    }

    /// A guest's state: awake, asleep, ...
    #[track_caller]
    pub fn state(&self, guest: &str) -> String {
        self.status(guest)["state"].as_str().unwrap_or_default().to_owned()
    }

    /// Its metrics, fetched through its socket.
    ///
    /// # Panics
    /// If there are none, or not as a scraper reads them.
    #[must_use]
    #[track_caller]
    pub fn metrics(&self) -> Metrics {
        Metrics::fetch(
            Command::new("curl").arg("--unix-socket").arg(self.socket()),
            "http://surrogate/metrics",
        )
    }

    /// Everything that happens, from the daemon's start.
    #[must_use]
    pub fn events(&self) -> Events {
        Events::follow(self.command(&["events", "--follow", "--json"]))
    }

    /// A command line for this daemon.
    #[must_use]
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(binary());
        command.args(arguments).arg("--config").arg(self.config()).stdin(Stdio::null());
        command
    }

    /// Checks the equations that hold whatever happened: every frame is accounted for, for each guest.
    ///
    /// # Panics
    /// If one does not.
    #[track_caller]
    pub fn assert_conserved(&self) {
        for guest in self.json(&["guests"]).as_array().into_iter().flatten() {
            for nic in guest["nics"].as_array().into_iter().flatten() {
                let counters = &nic["counters"];
                let number =
                    |key: &str| counters[key].as_u64().unwrap_or_else(|| panic!("no {key} in {counters}"));
                let sum = |key: &str| {
                    counters[key]
                        .as_object()
                        .into_iter()
                        .flat_map(|kinds| kinds.values())
                        .filter_map(Value::as_u64)
                        .sum::<u64>()
                };
                let arrived = sum("answered")
                    + number("absorbed")
                    + number("stubbed")
                    + number("held")
                    + sum("dropped");
                assert_eq!(number("concerned"), arrived, "a frame is unaccounted for: {guest:#}");
                let left =
                    number("replayed") + number("reclassified") + sum("held_dropped") + number("holding");
                assert_eq!(number("held"), left, "a held frame is unaccounted for: {guest:#}");
            }
        }
    }

    /// Ends it at once, as a crash would (SIGKILL), and waits until it is gone.
    pub fn kill(&mut self) {
        self.end(libc::SIGKILL);
    }

    /// Ends it as the service manager does (SIGTERM), and waits until it is gone.
    pub fn stop(&mut self) {
        self.end(libc::SIGTERM);
    }

    fn end(&mut self, signal: i32) {
        if let Some(pid) = self.pid.take() {
            sys::signal(pid, signal);
            crate::until("the daemon's end", Duration::from_secs(10), || !runs(pid));
        }
    }

    /// Whether its process lives.
    #[must_use]
    pub fn is_running(&self) -> bool {
        self.pid.is_some_and(runs)
    }

    /// Its process.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.pid
    }

    /// What it logged.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read_to_string(self.path("log")).unwrap_or_default()
    }

    /// Its configuration file.
    #[must_use]
    pub fn config(&self) -> PathBuf {
        self.path("surrogate.toml")
    }

    /// Its socket.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.path("socket")
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = self.log();
            let lines: Vec<_> = log.lines().collect();
            let last = lines.split_at(lines.len().saturating_sub(LOG_SHOWN)).1;
            eprintln!("---- the end of the daemon's log\n{}\n----", last.join("\n"));
        }
        self.end(libc::SIGKILL);
    }
}

/// Whether any of its threads lives. One that ended stays as a zombie until its parent, this process, drops
/// its namespace; and a killed process's first thread is one while others still hold its socket.
fn runs(pid: u32) -> bool {
    let Ok(threads) = fs::read_dir(format!("/proc/{pid}/task")) else { return false };
    threads.flatten().any(|thread| {
        let status = fs::read_to_string(thread.path().join("stat")).unwrap_or_default();
        status.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X']))
    })
}

/// The `surrogate` that was built beside the running test or demonstration.
///
/// # Panics
/// If there is none.
#[must_use]
pub fn binary() -> PathBuf {
    std::env::var_os("SURROGATE_BIN").map_or_else(|| beside("surrogate"), PathBuf::from)
}

/// The program `name` that was built with the running one.
pub(crate) fn beside(name: &str) -> PathBuf {
    let own = std::env::current_exe().unwrap();
    let candidates = own.ancestors().skip(1).take(2).map(|folder| folder.join(name));
    let found = candidates.into_iter().find(|path| path.is_file());
    found.unwrap_or_else(|| panic!("no {name} beside {}: run cargo build", own.display()))
}

/// The folder of the scripts that the lab runs.
#[must_use]
pub fn scripts() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/lab")
}

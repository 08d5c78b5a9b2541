//! The processes of a network namespace: those that `ip netns pids` would list, stopped and continued
//! by signals, and what they have used.
//!
//! A process can fork while it is being stopped, and its number can be another's by the time a signal
//! goes out. So stopping goes on until two scans in a row find nothing that runs, and each signal goes
//! through a pidfd whose namespace was looked at again. A parent that waits for its child of vfork(2)
//! heeds no stop before the child has called exec or ended; once that child is stopped it stays put too.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::io;
use std::time::Duration;

use super::namespace::NamespaceId;
use super::{nap, sys};
use crate::io::clock;

/// Why the processes could not all be stopped.
#[derive(Debug, thiserror::Error)]
pub(super) enum StopError {
    /// Nothing to stop: it would be found "running" for ever.
    #[error("no process runs in it; start its services first")]
    Empty,
    /// One does not stop (it waits for a disk, or is forking without end).
    #[error("process {pid} ({name}, state {state}) did not stop within {} s", STOP_WITHIN.as_secs())]
    Unstoppable { pid: u32, name: String, state: char },
    #[error("/proc: {0}")]
    Io(#[from] io::Error),
}

/// All processes by namespace, at one moment.
///
/// # Errors
/// If `/proc` cannot be listed.
pub(super) fn scan() -> io::Result<HashMap<NamespaceId, Vec<u32>>> {
    let mut found: HashMap<_, Vec<_>> = HashMap::new();
    for entry in fs::read_dir("/proc")? {
        let pid = entry?.file_name().to_str().and_then(|name| name.parse().ok());
        if let Some((pid, namespace)) = pid.and_then(|pid| Some((pid, NamespaceId::of_process(pid)?))) {
            found.entry(namespace).or_default().push(pid);
        }
    }
    Ok(found)
}

/// The processes in `namespace` now.
///
/// # Errors
/// As [`scan`].
pub(super) fn in_namespace(namespace: NamespaceId) -> io::Result<Vec<u32>> {
    Ok(scan()?.remove(&namespace).unwrap_or_default())
}

/// Stops every process of `namespace`, or none: on error those that were stopped run again. `pids` are
/// those that were in it a moment ago.
///
/// # Errors
/// [`StopError`].
pub(super) fn stop_all(namespace: NamespaceId, pids: Vec<u32>) -> Result<(), StopError> {
    let stopped = try_stop_all(namespace, pids);
    if stopped.is_err() {
        // The first error is the one to report; what cannot be continued has ended.
        let _ = in_namespace(namespace).and_then(|pids| continue_all(namespace, pids));
    }
    stopped
}

fn try_stop_all(namespace: NamespaceId, mut pids: Vec<u32>) -> Result<(), StopError> {
    let deadline = clock::now() + STOP_WITHIN;
    let mut all_stopped_before = false;
    let mut told = HashSet::new();
    loop {
        if pids.is_empty() {
            return Err(StopError::Empty);
        }
        // Who waits for a stopped child was told to stop itself as well, or it would run on with the child.
        let running = running(&pids, |waiting| told.contains(&waiting));
        let Some(&first) = running.first() else {
            // One scan may have passed the place of a child before its parent stopped forking. A second
            // one cannot: all who could fork were stopped when it began.
            if all_stopped_before {
                return Ok(());
            }
            all_stopped_before = true;
            pids = in_namespace(namespace)?;
            continue;
        };
        all_stopped_before = false;
        for pid in running {
            signal(namespace, pid, libc::SIGSTOP)?;
            told.insert(pid);
        }
        if clock::now() > deadline {
            let (name, state) = name_and_state(first).unwrap_or_default();
            return Err(StopError::Unstoppable { pid: first, name, state });
        }
        nap(POLL);
        pids = in_namespace(namespace)?;
    }
}

/// Continues every process of `namespace`. `pids` are those that were in it a moment ago.
///
/// # Errors
/// If `/proc` cannot be read or a signal is not allowed.
pub(super) fn continue_all(namespace: NamespaceId, pids: Vec<u32>) -> io::Result<()> {
    let mut continued = HashSet::new();
    // The first signal goes to all: it also takes back a stop that is still to be acted on.
    let mut left = pids;
    while !left.is_empty() {
        for pid in left {
            signal(namespace, pid, libc::SIGCONT)?;
            continued.insert(pid);
        }
        // What a scan can miss is a child of the last fork before its parent was stopped.
        left = in_namespace(namespace)?;
        left.retain(|pid| !continued.contains(pid) && look(*pid).is_none_or(|seen| seen.is == Is::Stopped));
    }
    Ok(())
}

/// Whether there are processes among `pids`, and none of their threads can run.
pub(super) fn all_stopped(pids: &[u32]) -> bool {
    !pids.is_empty() && running(pids, |_| true).is_empty()
}

/// Those among `pids` that can run. Who waits for a child that cannot run, cannot either, if `heeds` says
/// that it will stop when the wait is over.
fn running(pids: &[u32], heeds: impl Fn(u32) -> bool) -> Vec<u32> {
    let mut seen: Vec<_> = pids.iter().filter_map(|pid| look(*pid)).collect();
    // From the children to their parents, as deep as they wait for each other.
    loop {
        let stopped: HashSet<_> =
            seen.iter().filter(|seen| seen.is == Is::Stopped).map(|seen| seen.parent).collect();
        let mut waiting = seen.iter_mut().filter(|seen| seen.is == Is::Waiting && heeds(seen.pid));
        let Some(parent) = waiting.find(|waiting| stopped.contains(&waiting.pid)) else { break };
        parent.is = Is::Stopped;
    }
    seen.retain(|seen| seen.is != Is::Stopped);
    seen.iter().map(|seen| seen.pid).collect()
}

/// Processor time of `pids` and of those of their children that have ended.
///
/// With the children, a server that forks for each request does not seem to go backwards.
pub(super) fn processor_time(pids: &[u32]) -> Duration {
    let ticks = pids.iter().filter_map(|pid| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // utime, stime, cutime, cstime: fields 14 to 17 of proc_pid_stat(5); the state is field 3.
        let fields = after_name(&stat)?.split_ascii_whitespace().skip(11).take(4);
        Some(fields.filter_map(|field| field.parse::<u64>().ok()).sum::<u64>())
    });
    TICK.saturating_mul(u32::try_from(ticks.sum::<u64>()).unwrap_or(u32::MAX))
}

/// Signals `pid` if it still is a process of `namespace`.
pub(super) fn signal(namespace: NamespaceId, pid: u32, signal: i32) -> io::Result<()> {
    let sent = sys::pidfd_open(pid).and_then(|process| {
        // The number may be another process's since the scan; what the handle is on can be so no more.
        if NamespaceId::of_process(pid) == Some(namespace) {
            sys::pidfd_send_signal(&process, signal)
        } else {
            Ok(())
        }
    });
    match sent {
        Err(error) if error.raw_os_error() == Some(libc::ESRCH) => Ok(()),
        result => result,
    }
}

/// A process at one moment.
struct Seen {
    pid: u32,
    parent: u32,
    is: Is,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Is {
    /// Every thread is stopped or dead.
    Stopped,
    /// No thread runs, and at least one waits uninterruptibly: for a disk, or for its child of vfork(2).
    Waiting,
    Running,
}

/// `None`: it is gone.
fn look(pid: u32) -> Option<Seen> {
    let mut is = Is::Stopped;
    for thread in fs::read_dir(format!("/proc/{pid}/task")).ok()?.flatten() {
        // A thread that has ended meanwhile does not run.
        let stat = fs::read_to_string(thread.path().join("stat")).ok();
        match stat.and_then(|stat| state_of(&stat)) {
            None | Some('T' | 't' | 'Z' | 'X') => {}
            Some('D') if is != Is::Running => is = Is::Waiting,
            Some(_) => is = Is::Running,
        }
    }
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let parent = after_name(&stat)?.split_ascii_whitespace().nth(1)?.parse().ok()?;
    Some(Seen { pid, parent, is })
}

fn name_and_state(pid: u32) -> Option<(String, char)> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    Some((printable_name(&stat)?, state_of(&stat)?))
}

/// A process names itself, and its guest is not to write to the operator's terminal, nor a line of the log.
fn printable_name(stat: &str) -> Option<String> {
    let (name, _) = stat.split_once('(')?.1.rsplit_once(')')?;
    Some(name.escape_debug().to_string())
}

fn state_of(stat: &str) -> Option<char> {
    after_name(stat)?.trim_start().chars().next()
}

/// What follows the name, which is in brackets and may contain anything, brackets too.
fn after_name(stat: &str) -> Option<&str> {
    Some(stat.rsplit_once(')')?.1)
}

/// How long a process may take to stop.
const STOP_WITHIN: Duration = Duration::from_secs(2);

/// No event tells that a process that is not our child has stopped.
const POLL: Duration = Duration::from_millis(1);

/// The unit of times in `/proc`: 1/100 s on every architecture that runs Linux guests (`USER_HZ`).
const TICK: Duration = Duration::from_millis(10);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_brackets_does_not_hide_the_state() {
        let stat = "17 (a) S (b) T 1 17 17 0 -1 4194560 0 0 0 0 7 5 3 1 20 0 1 0";
        assert_eq!(state_of(stat), Some('T'));
        assert_eq!(state_of("17 (cut"), None);
    }

    #[test]
    fn a_name_is_told_without_what_would_move_the_cursor_or_begin_a_line() {
        let name = |comm: &str| printable_name(&format!("17 ({comm}) S 1 17"));
        assert_eq!(name("a b) (c").as_deref(), Some("a b) (c"));
        assert_eq!(name("\u{1b}[2J\nERROR").as_deref(), Some(r"\u{1b}[2J\nERROR"));
    }

    #[test]
    fn own_processor_time_grows_with_work() {
        let own = [std::process::id()];
        let before = processor_time(&own);
        let mut rng = crate::rng::Rng::seeded(1);
        while processor_time(&own) == before {
            for _ in 0..100_000 {
                std::hint::black_box(rng.next_u64());
            }
        }
        assert!(processor_time(&own) > before);
    }
}

//! What the daemon says happened, followed through `surrogate events --follow --json`.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use crate::deadline::Deadline;

/// One thing that happened.
#[derive(Clone, Debug, PartialEq, Eq, serde::Deserialize)]
pub struct Event {
    /// Counts up from 1.
    pub seq: u64,
    /// When; milliseconds since 1970.
    pub unix_ms: u64,
    /// To whom.
    pub guest: Option<String>,
    /// What, one word: asleep, waking, ...
    pub kind: String,
    /// The same for people.
    pub detail: String,
}

/// All events since the daemon started.
#[derive(Debug)]
pub struct Events {
    child: Child,
    shared: Arc<(Mutex<Seen>, Condvar)>,
}

#[derive(Debug, Default)]
struct Seen {
    events: Vec<Event>,
    ended: bool,
}

impl Events {
    /// Follows with `command`, which writes an event a line.
    pub(crate) fn follow(mut command: Command) -> Self {
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
        let shared = Arc::<(Mutex<Seen>, Condvar)>::default();
        let (own, output) = (Arc::clone(&shared), child.stdout.take().unwrap());
        std::thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                match serde_json::from_str(&line) {
                    Ok(event) => own.0.lock().unwrap().events.push(event),
                    Err(error) => eprintln!("lab: not an event: {line}: {error}"),
                }
                own.1.notify_all();
            }
            own.0.lock().unwrap().ended = true;
            own.1.notify_all();
        });
        Self { child, shared }
    }

    /// What happened until now.
    #[must_use]
    pub fn all(&self) -> Vec<Event> {
        self.shared.0.lock().unwrap().events.clone()
    }

    /// The number of the last event; 0 if there was none. For [`wait_after`](Self::wait_after).
    #[must_use]
    pub fn last(&self) -> u64 {
        self.shared.0.lock().unwrap().events.last().map_or(0, |event| event.seq)
    }

    /// Waits for `kind` to happen to `guest`, ever.
    #[track_caller]
    pub fn wait(&self, guest: &str, kind: &str, allowed: Duration) -> Event {
        self.wait_after(0, guest, kind, allowed)
    }

    /// Waits for `kind` to happen to `guest` after event `seq`.
    ///
    /// # Panics
    /// If it does not within `allowed`.
    #[track_caller]
    pub fn wait_after(&self, seq: u64, guest: &str, kind: &str, allowed: Duration) -> Event {
        let deadline = Deadline::after(allowed);
        let mut seen = self.shared.0.lock().unwrap();
        loop {
            let wanted = |e: &&Event| e.seq > seq && e.kind == kind && e.guest.as_deref() == Some(guest);
            if let Some(event) = seen.events.iter().find(wanted) {
                return event.clone();
            }
            let out_of_hope = deadline.passed() || seen.ended;
            assert!(!out_of_hope, "no {kind:?} of {guest} within {allowed:?}; seen: {:#?}", seen.events);
            seen = self.shared.1.wait_timeout(seen, deadline.left()).unwrap().0;
        }
    }
}

impl Drop for Events {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

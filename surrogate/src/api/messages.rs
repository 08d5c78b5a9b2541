//! What the daemon can be asked and what it answers. Server, client and control side share these.

use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

use crate::custody::{CustodyCounters, Unrepresentable};
use crate::engine::Counters;
use crate::hypervisor::Depth;

/// A question or order to the control side. It answers through `reply`, once; dropping `reply`
/// tells the asker that the daemon is stopping.
#[derive(Debug)]
pub enum Request {
    /// All guests, in the order of the configuration.
    Guests {
        /// Where to.
        reply: oneshot::Sender<Vec<GuestStatus>>,
    },
    /// One guest.
    Guest {
        /// Which.
        name: String,
        /// Where to.
        reply: oneshot::Sender<Result<GuestStatus, Refusal>>,
    },
    /// Put it to sleep; answered when it sleeps, or with the reason why it does not.
    Sleep {
        /// Which.
        name: String,
        /// How deep; `None`: as configured.
        depth: Option<Depth>,
        /// Where to.
        reply: oneshot::Sender<Result<Transition, Refusal>>,
    },
    /// Wake it; answered when it runs and has everything that was held, or with the reason why not.
    Wake {
        /// Which.
        name: String,
        /// Where to.
        reply: oneshot::Sender<Result<Transition, Refusal>>,
    },
    /// Put back everything that was changed on the bridges, for all guests, awake or not.
    ReleaseAll {
        /// Where to.
        reply: oneshot::Sender<Result<Released, Refusal>>,
    },
    /// The metrics as OpenMetrics text.
    Metrics {
        /// Where to.
        reply: oneshot::Sender<String>,
    },
}

/// Why something asked for was not done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct Refusal {
    /// What kind of reason.
    pub code: RefusalCode,
    /// One line: what is the matter and, where there is something, what to do.
    pub message: String,
}

impl Refusal {
    /// A refusal.
    #[must_use]
    pub fn new(code: RefusalCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }
}

/// Kinds of refusal; each has its HTTP status.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RefusalCode {
    /// No such guest or path (404).
    NotFound,
    /// The request makes no sense as it stands (400).
    BadRequest,
    /// The asker may not (403).
    Forbidden,
    /// The guest's state does not allow it, or real traffic aborted its sleep (409).
    Conflict,
    /// It was begun and did not come to its end in time (504).
    Timeout,
    /// The daemon or the hypervisor cannot do it now (503).
    Unavailable,
}

/// A transition that came to its end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Transition {
    /// Whose.
    pub guest: String,
    /// The state it is in now, as in [`GuestStatus::state`].
    pub state: String,
    /// From the order to the state, in milliseconds; zero if it was there already.
    pub took_ms: u64,
    /// Frames held when the transition ended (sleep) or began (wake).
    pub held: u64,
    /// Held frames that were delivered to it.
    pub replayed: u64,
}

/// What `release --all` put back.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Released {
    /// Guests that were given back by a running daemon: woken, or let go of as they are.
    #[serde(default)]
    pub guests: u64,
    /// Recorded changes put back, where no daemon ran.
    pub restored: u64,
    /// What could not be put back, one line each; empty if all is well.
    pub failed: Vec<String>,
}

/// A guest as an operator sees it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GuestStatus {
    /// Its name.
    pub name: String,
    /// The hypervisor's name in the configuration.
    pub hypervisor: String,
    /// Awake, settling, asleep, waking, replaying, stranded, or unmanaged: in lower case.
    pub state: String,
    /// What the hypervisor says, one word: running, paused, saved, off, gone, unknown.
    pub power: String,
    /// Since when in `state`; milliseconds since 1970, UTC.
    pub since_unix_ms: u64,
    /// Whether it was Surrogate that put it to sleep.
    pub slept_by_us: bool,
    /// How deep it sleeps, if it does.
    pub depth: Option<Depth>,
    /// Its transition counter.
    pub epoch: u64,
    /// Why it is not asleep, cannot sleep, or what failed last; one line.
    pub why: Option<String>,
    /// What woke it last; one line.
    pub last_wake: Option<String>,
    /// Times it woke.
    pub wakes: u64,
    /// Times it fell asleep.
    pub sleeps: u64,
    /// Milliseconds asleep since the daemon knows it.
    pub asleep_ms: u64,
    /// Its NICs.
    pub nics: Vec<NicStatus>,
}

/// One NIC of a guest as an operator sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NicStatus {
    /// The bridge it is on.
    pub bridge: Option<String>,
    /// The name of its port there.
    pub port: Option<String>,
    /// Its MAC.
    pub mac: Option<String>,
    /// Its VLAN.
    pub vlan: Option<u16>,
    /// Its addresses with their prefix lengths.
    pub addresses: Vec<String>,
    /// The engine's mode for it: pass, fence, answer, hold, replay.
    pub mode: String,
    /// TCP connections that could not be answered for if it slept now, some of them if there are many: it is not
    /// put to sleep by itself as long as there are any.
    #[serde(default)]
    pub kept_awake: Vec<ConnectionStatus>,
    /// What became of its frames.
    pub counters: Counters,
    /// What custody of its connections has done; `None` where there is none.
    #[serde(default)]
    pub custody: Option<CustodyCounters>,
}

/// A connection that keeps a guest awake.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConnectionStatus {
    /// The guest's end and the other one.
    pub connection: String,
    /// Why it does.
    pub why: Unrepresentable,
}

/// Something that happened, as `surrogate events` tells it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventRecord {
    /// Counts up from 1 since the daemon started.
    pub seq: u64,
    /// Milliseconds since 1970, UTC.
    pub unix_ms: u64,
    /// Whom it concerns, if one.
    pub guest: Option<String>,
    /// One word: settling, steered, suspended, asleep, aborted, waking, resumed, replaying, released,
    /// awake, stranded, conflict, ...; `missed` where the reader was too slow.
    pub kind: String,
    /// One line for people.
    pub detail: String,
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::engine::{Answered, DropReason};

    #[test]
    fn counters_by_kind_have_names_outside() {
        let mut web1 = guest("web1", "asleep");
        let counters = &mut web1.nics[0].counters;
        counters.answered[Answered::Ndisc as usize] = 7;
        counters.held_dropped[DropReason::Aged as usize] = 1;
        let json = serde_json::to_value(&web1).unwrap();
        let told = &json["nics"][0]["counters"];
        assert_eq!(told["answered"], serde_json::json!({ "ndisc": 7 }));
        assert_eq!(told["held_dropped"], serde_json::json!({ "aged": 1 }));
        assert_eq!(told["dropped"], serde_json::json!({}));
        assert_eq!(serde_json::from_value::<GuestStatus>(json).unwrap(), web1);
    }

    /// A guest with one NIC.
    pub(crate) fn guest(name: &str, state: &str) -> GuestStatus {
        let nic = NicStatus {
            bridge: Some("br0".to_owned()),
            port: Some("vnet0".to_owned()),
            mac: Some("52:54:00:00:00:11".to_owned()),
            vlan: None,
            addresses: vec!["192.0.2.11/24".to_owned(), "2001:db8::11/64".to_owned()],
            mode: "answer".to_owned(),
            kept_awake: Vec::new(),
            counters: Counters::default(),
            custody: None,
        };
        GuestStatus {
            name: name.to_owned(),
            hypervisor: "local".to_owned(),
            state: state.to_owned(),
            power: "paused".to_owned(),
            since_unix_ms: 1_700_000_000_000,
            slept_by_us: true,
            depth: Some(Depth::Pause),
            epoch: 4,
            why: None,
            last_wake: Some("SYN to port 80 from 192.0.2.99".to_owned()),
            wakes: 2,
            sleeps: 3,
            asleep_ms: 0,
            nics: vec![nic],
        }
    }
}

//! What one case is: frames to the guest, and what the sleeper may do about them. All of them are data,
//! made by the modules of `cases`.

use std::time::Duration;

use crate::connection::{Connection, Opening};

/// One question to both, the guest awake and its stand-in.
pub struct Case {
    /// Unique: `section/what`.
    pub name: String,
    /// What it tries: a section of an RFC.
    pub source: &'static str,
    /// What is sent.
    pub stimulus: Stimulus,
    /// How long to wait for answers.
    pub until: Until,
    /// What the stand-in does about it.
    pub asleep: Asleep,
    /// Rows of docs/packet-policy.md that say why the answers are not the same.
    pub differs: Vec<&'static str>,
    /// The client's port, where there is one: it belongs to this case alone.
    pub port: Option<u16>,
    /// Membership reports count.
    pub reports: bool,
}

/// Makes the frames for a connection.
type Frames = dyn Fn(&Connection) -> Vec<Vec<u8>>;

/// What is sent.
pub enum Stimulus {
    /// These frames.
    Frames(Vec<Vec<u8>>),
    /// These on a connection that was opened while the guest was awake.
    On(Opening, Box<Frames>),
}

/// How long to wait for answers. What is asked after the stimulus and answered is the end of the wait, always; but
/// some answers come later than at once.
#[derive(Clone, Copy)]
pub enum Until {
    /// All answers are given at once.
    Marker,
    /// A process or a timer of the guest's has to say so many frames.
    Frames(usize),
    /// Silence is the answer, for as long as a random delay may be.
    Silence(Duration),
}

/// What the stand-in does about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asleep {
    /// Answers, or says nothing, as the guest would; nothing is held.
    Speaks,
    /// Holds it and lets the guest sleep on: the guest answers when it wakes.
    Holds,
    /// Wakes the guest, which answers itself.
    Wakes,
}

impl Case {
    pub fn new(name: impl Into<String>, source: &'static str, frame: Vec<u8>) -> Self {
        Self::of(name, source, Stimulus::Frames(vec![frame]))
    }

    pub fn of(name: impl Into<String>, source: &'static str, stimulus: Stimulus) -> Self {
        let port = match &stimulus {
            Stimulus::On(opening, _) => Some(opening.port),
            Stimulus::Frames(frames) => frames.iter().find_map(|frame| client_port(frame)),
        };
        Self {
            name: name.into(),
            source,
            stimulus,
            until: Until::Marker,
            asleep: Asleep::Speaks,
            differs: Vec::new(),
            port,
            reports: false,
        }
    }

    /// The guest is woken.
    pub fn wakes(self) -> Self {
        Self { asleep: Asleep::Wakes, ..self }
    }

    /// Held until the guest is woken by something else.
    pub fn holds(self) -> Self {
        Self { asleep: Asleep::Holds, ..self }
    }

    /// The answers are not the same, for this reason.
    pub fn differs(mut self, row: &'static str) -> Self {
        self.differs.push(row);
        self
    }

    /// The same, of some in a row of cases.
    pub fn differs_if(self, condition: bool, row: &'static str) -> Self {
        if condition { self.differs(row) } else { self }
    }

    pub fn wakes_if(self, condition: bool) -> Self {
        if condition { self.wakes() } else { self }
    }

    pub fn until(self, until: Until) -> Self {
        Self { until, ..self }
    }

    /// Membership reports are the answer.
    pub fn reports(self, until: Until) -> Self {
        Self { reports: true, until, ..self }
    }
}

/// The ports that cases may use on the client's side, each only one: what comes late for one is not taken for an
/// answer to another.
pub const PORTS: std::ops::Range<u16> = 20_000..30_000;

/// The client's port in a frame from or to it.
pub fn client_port(frame: &[u8]) -> Option<u16> {
    let word = |at: usize| Some(u16::from_be_bytes(frame.get(at..at + 2)?.try_into().ok()?));
    let (protocol, transport) = match word(12)? {
        0x0800 => (*frame.get(23)?, 14 + usize::from(frame.get(14)? & 15) * 4),
        0x86dd => (*frame.get(20)?, 54),
        _ => return None,
    };
    let ports = [word(transport)?, word(transport + 2)?];
    matches!(protocol, 6 | 17).then(|| ports.into_iter().find(|port| PORTS.contains(port)))?
}

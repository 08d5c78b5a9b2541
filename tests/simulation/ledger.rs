//! What is known of every frame: as what it was sent, and what became of it for each NIC. Says so when a
//! frame reaches a guest twice, changed, out of its flow's order, or though nobody held it.

use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;

use surrogate::engine::{DropReason, Verdict};
use surrogate::time::{Duration, Instant};

use crate::frames::{self, Frame, Uid};
use crate::tally::Tally;
use crate::world::MAX_NICS;

/// What a frame was sent as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    ArpRequest,
    Solicitation,
    Echo,
    Syn,
    Segment,
    /// A bare acknowledgement or the end of a connection: delivered before or after the rest of its flow.
    Edge,
    Datagram,
    Broadcast,
    Announcement,
    Conflict,
    Long,
    Damaged,
    Spoofed,
    Reply,
}

/// What is known of a frame from its sender.
#[derive(Clone, Copy, Debug)]
pub struct Sent {
    pub kind: Kind,
    /// The NIC it is sent to, if to one.
    to: Option<usize>,
    flow: Option<usize>,
    /// NICs that a flooded frame concerns, as bits.
    concerns: u8,
    /// Its place in the order of arrival at the bridge.
    arrival: u64,
    pub passed: [Passage; MAX_NICS],
}

/// What became of a frame for one NIC.
#[derive(Clone, Copy, Debug, Default)]
pub struct Passage {
    /// It came into the guest's port from the bridge.
    direct: bool,
    /// It came into the guest's port from us.
    delivered: bool,
    /// We hold it, or one like it.
    held: bool,
    /// When we took it, among all that we took.
    taken: u64,
    /// The engine saw it after it had said that all was delivered: the release may come first.
    late: bool,
    /// It was kept from the guest, so somebody else had to take it.
    pub withheld: bool,
}

impl Sent {
    pub fn new(kind: Kind, to: Option<usize>) -> Self {
        Self { kind, to, flow: None, concerns: 0, arrival: 0, passed: [Passage::default(); MAX_NICS] }
    }

    pub fn concerning(kind: Kind, nic: usize) -> Self {
        Self { concerns: 1 << nic, ..Self::new(kind, None) }
    }

    pub fn concerning_all(kind: Kind) -> Self {
        Self { concerns: u8::MAX, ..Self::new(kind, None) }
    }

    pub fn in_flow(kind: Kind, nic: usize, flow: usize) -> Self {
        Self { flow: Some(flow), ..Self::new(kind, Some(nic)) }
    }
}

/// What the present engine has and had for one NIC.
#[derive(Debug, Default)]
pub struct Desk {
    /// Deliveries that it was told of.
    pub delivered: u64,
    /// Frames that it delivered behind a later one of their flow.
    pub overtaken: u64,
    /// Frames that it dropped because of their age.
    aged: u64,
    /// What it took and did not deliver yet, and since when: `None` is a frame of our own. Some may be gone.
    waiting: VecDeque<(Option<Uid>, Instant)>,
    /// When what it delivered last was taken.
    newest: u64,
    /// When a TCP segment was delivered last, by what is in it.
    segments: BTreeMap<Box<[u8]>, u64>,
}

/// The books.
#[derive(Debug, Default)]
pub struct Ledger {
    frames: Vec<Sent>,
    /// As they were sent.
    bytes: Vec<Rc<[u8]>>,
    /// Frames taken and delivered so far: tells the order.
    count: u64,
    /// The last arrival that reached a NIC's guest, by flow.
    newest: Vec<[u64; MAX_NICS]>,
    pub desks: [Desk; MAX_NICS],
    pub tally: Tally,
    violation: Option<String>,
}

impl Ledger {
    /// The first thing that went wrong.
    pub fn violation(&self) -> Option<&str> {
        self.violation.as_deref()
    }

    pub fn fail(&mut self, why: String) {
        self.violation.get_or_insert(why);
    }

    pub fn new_flow(&mut self) -> usize {
        self.newest.push([0; MAX_NICS]);
        self.newest.len() - 1
    }

    /// Gives a frame its number.
    pub fn number(&mut self, bytes: Vec<u8>, sent: Sent) -> Frame {
        self.frames.push(sent);
        self.tally.frames += 1;
        let frame = frames::number(bytes, self.frames.len() as Uid - 1);
        self.bytes.push(Rc::clone(&frame.bytes));
        frame
    }

    /// How many frames have a number.
    pub fn known(&self) -> usize {
        self.frames.len()
    }

    pub fn sent(&self, frame: &Frame) -> Option<&Sent> {
        self.frames.get(frame.uid? as usize)
    }

    pub fn entered(&mut self, frame: &Frame, arrival: u64) {
        if let Some(uid) = frame.uid {
            self.frames[uid as usize].arrival = arrival;
        }
    }

    /// The bridge gave a frame to a guest's own port.
    pub fn came_directly(&mut self, frame: &Frame, nic: usize) {
        let Some(uid) = frame.uid else { return };
        let sent = &mut self.frames[uid as usize];
        let passage = &mut sent.passed[nic];
        passage.direct = true;
        if sent.to == Some(nic)
            && let Some(flow) = sent.flow
        {
            let newest = &mut self.newest[flow][nic];
            *newest = (*newest).max(sent.arrival);
        }
    }

    /// The bridge kept a flooded frame from a guest's port.
    pub fn not_flooded(&mut self, frame: &Frame, nic: usize) {
        let Some(uid) = frame.uid else { return };
        let sent = &mut self.frames[uid as usize];
        sent.passed[nic].withheld = sent.concerns & 1 << nic != 0;
    }

    /// The engine saw a frame; `verdict` is what it decided for `nic`, if anything.
    pub fn seen(&mut self, now: Instant, frame: &Frame, nic: usize, verdict: Option<Verdict>, late: bool) {
        let Some(uid) = frame.uid else { return };
        let sent = &mut self.frames[uid as usize];
        let passage = &mut sent.passed[nic];
        passage.late = late;
        let held = match verdict {
            Some(Verdict::Hold | Verdict::HoldAndWake) => {
                self.tally.held += 1;
                true
            }
            // The newest copy of a SYN takes the place of the first.
            Some(Verdict::Drop(DropReason::Duplicate)) => sent.kind == Kind::Syn,
            _ => false,
        };
        if held {
            self.count += 1;
            passage.held = true;
            passage.taken = self.count;
            self.desks[nic].waiting.push_back((Some(uid), now));
        }
    }

    /// The engine took a frame of our own for another sleeper.
    pub fn took_ours(&mut self, now: Instant, nic: usize) {
        self.desks[nic].waiting.push_back((None, now));
    }

    /// We gave a frame to a guest's port, and it took it.
    pub fn gave(&mut self, frame: &Frame, nic: usize) {
        let desk = &mut self.desks[nic];
        desk.delivered += 1;
        self.tally.delivered += 1;
        self.count += 1;
        let place = desk.waiting.iter().position(|(uid, _)| *uid == frame.uid);
        let was_waiting = place.and_then(|at| desk.waiting.remove(at)).is_some();
        let Some(uid) = frame.uid else {
            if !was_waiting {
                self.fail(format!("a frame that nobody sent was delivered to NIC {nic}"));
            }
            return;
        };
        let sent = &mut self.frames[uid as usize];
        let passage = &mut sent.passed[nic];
        let has_own_place = matches!(sent.kind, Kind::Syn | Kind::Edge);
        let was_there = matches!(sent.kind, Kind::Syn | Kind::Segment | Kind::Edge) && {
            let content = self.bytes[uid as usize].split_last_chunk::<{ frames::NUMBER }>();
            let content: Box<[u8]> = content.map_or(&[][..], |(content, _)| content).into();
            // The copy before this one left after this one came.
            desk.segments.insert(content, self.count).is_some_and(|left| left > passage.taken)
        };
        let wrong = if passage.delivered {
            Some("was delivered twice")
        } else if !passage.held || !was_waiting {
            Some("was delivered, but not held")
        } else if passage.direct && sent.to.is_some() {
            Some("was delivered, though it had come directly")
        } else if self.bytes[uid as usize] != frame.bytes {
            Some("was delivered, but is not what was sent")
        } else if was_there {
            Some("was delivered, and so was a copy that was held beside it")
        } else if !has_own_place && passage.taken < desk.newest {
            Some("was delivered behind one that came later")
        } else {
            None
        };
        passage.delivered = true;
        self.tally.twice += u64::from(passage.direct);
        if !has_own_place {
            desk.newest = passage.taken;
        }
        if let Some(wrong) = wrong {
            return self.fail(format!("frame {uid} {wrong} to NIC {nic}"));
        }
        let Some(flow) = sent.flow else { return };
        let newest = &mut self.newest[flow][nic];
        if sent.arrival >= *newest || sent.kind == Kind::Edge {
            // A SYN's newest copy stands in the place of the first.
            if !has_own_place {
                *newest = sent.arrival;
            }
        } else if passage.late {
            desk.overtaken += 1;
            self.tally.overtaken += 1;
        } else {
            self.fail(format!("frame {uid} was delivered to NIC {nic} behind a later one of its flow"));
        }
    }

    /// The engine holds `holding` frames for a NIC and has dropped `aged` because of their age, which may be
    /// no less than `age`.
    pub fn check_waiting(&mut self, now: Instant, nic: usize, holding: u64, aged: u64, age: Duration) {
        let desk = &mut self.desks[nic];
        for _ in desk.aged..aged {
            desk.aged += 1;
            self.tally.aged += 1;
            match desk.waiting.iter().position(|(_, since)| now.since(*since) >= age) {
                Some(old) => _ = desk.waiting.remove(old),
                None => {
                    _ = self
                        .violation
                        .get_or_insert(format!("NIC {nic}: a held frame was dropped before its time"))
                }
            }
        }
        let waiting = desk.waiting.len() as u64;
        if waiting < holding {
            self.fail(format!("NIC {nic}: {holding} frames are held, of which {waiting} were taken"));
        } else if holding == 0 {
            desk.waiting.clear();
        }
    }

    /// Somebody heard what the surrogate says.
    pub fn heard(&mut self, frame: &Frame) {
        self.tally.answers += u64::from(frame.uid.is_none());
    }

    /// The engine forgot a NIC.
    pub fn forgotten(&mut self, nic: usize) {
        self.desks[nic] = Desk::default();
    }

    /// An engine is gone with what it held.
    pub fn engine_lost(&mut self, held: u64) {
        self.desks = Default::default();
        self.tally.lost_with_daemon += held;
    }
}

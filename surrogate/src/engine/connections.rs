//! Custody in the engine: what becomes of a segment of a connection that the sleeper's peers still hold, and the
//! questions to a guest that is about to sleep.
//!
//! Asked after [`classify`](super::classify) has found that the frame is sound and the guest's, and before its decision
//! is carried out. While the guest settles or may run we are silent, but what custody will answer is no reason to
//! wake it, nor to give its sleep up.

use surrogate_wire::{Packet, Transport};

use super::Engine;
use super::classify::{Decision, Reach};
use super::contract::{Mode, Notice, WakeReason};
use super::outbox::{Full, Way};
use super::verdict::{Answered, DropReason, Verdict};
use super::view::View;
use crate::custody::{CustodyCounters, Judgement, Kind, LONGEST_FRAME, Tuple, Unrepresentable, Wait};
use crate::guest::identity::{Epoch, NicId};
use crate::guest::table::Place;
use crate::time::{Duration, Instant};

/// A guest that is to sleep is watched before it is fenced.
#[derive(Clone, Copy, Debug)]
pub(super) struct Watch {
    /// In which epoch it is to sleep.
    epoch: Epoch,
    /// Since when all of its TCP is observed.
    watched: Instant,
    /// What is waited for.
    wait: Option<Wait>,
}

/// What custody makes of a frame.
pub(super) enum Custodial {
    /// Nothing: the decision stands.
    NotMine,
    /// It is done.
    Done(Verdict),
    /// It is to be held, and to wake for a reason; `newest`: in the place of the one that was held before.
    Keep { reason: Option<WakeReason>, newest: bool },
}

impl Engine {
    /// What custody makes of a frame about which `wanted` was decided.
    pub(super) fn take_custody(
        &mut self,
        now: Instant,
        place: Place,
        reach: Reach,
        view: View<'_, '_>,
        ours: bool,
        wanted: Decision,
    ) -> Custodial {
        let Some(nic) = self.nics.get_mut(place as usize).and_then(Option::as_mut) else {
            return Custodial::NotMine;
        };
        let (Some(custody), Ok(packet)) = (nic.custody.as_deref_mut(), view.packet) else {
            return Custodial::NotMine;
        };
        let Some(reason) = segments_reason(reach, packet, wanted) else { return Custodial::NotMine };
        if !packet.addresses().is_some_and(|(_, dst)| nic.identity.holds(dst)) {
            return Custodial::NotMine;
        }
        match nic.mode {
            Mode::Answer => {}
            // It is silent for now.
            Mode::Fence { .. } | Mode::Hold { .. } if custody.can_wait(packet) => {
                return Custodial::Keep { reason: None, newest: false };
            }
            _ => return Custodial::NotMine,
        }
        if custody.owes_an_answer(packet) {
            if ours {
                // No reply to a reply.
                return Custodial::Done(Verdict::Absorb);
            }
            if !self.outbox.has_room(LONGEST_FRAME) {
                return Custodial::Done(Verdict::Drop(DropReason::OutputFull));
            }
        }
        match custody.judge(now, &mut self.rng, &nic.identity, view.frame, packet) {
            Judgement::NotMine => Custodial::NotMine,
            Judgement::Answer(_) if ours => Custodial::Done(Verdict::Absorb),
            Judgement::Answer(kind) => {
                Custodial::Done(self.answer_in_custody(now, place, kind, view, packet))
            }
            Judgement::Nothing => Custodial::Done(Verdict::Absorb),
            Judgement::Limited => Custodial::Done(Verdict::Drop(DropReason::RateLimited)),
            Judgement::Note => Custodial::Keep { reason: None, newest: true },
            Judgement::Hold => Custodial::Keep { reason: None, newest: false },
            Judgement::HoldAndWake => Custodial::Keep { reason: Some(reason), newest: false },
        }
    }

    fn answer_in_custody(
        &mut self,
        now: Instant,
        place: Place,
        kind: Kind,
        view: View<'_, '_>,
        packet: &Packet<'_>,
    ) -> Verdict {
        let Some(nic) = self.nics.get(place as usize).and_then(Option::as_ref) else {
            return Verdict::Absorb;
        };
        let (identity, Some(custody)) = (&nic.identity, &nic.custody) else { return Verdict::Absorb };
        let way = Way::Transmit(identity.port);
        let written = self.outbox.push(way, (place, identity.nic), LONGEST_FRAME, |out| {
            custody.answer(kind, identity, view.frame, packet, out)
        });
        match written {
            Ok(Some(kind)) => {
                self.re_enter(now, place);
                Verdict::Answer(kind.into())
            }
            Ok(None) => Verdict::Absorb,
            Err(Full) => Verdict::Drop(DropReason::OutputFull),
        }
    }

    /// Watches a guest that is to sleep until it can be asked about its connections.
    pub(super) fn watch(&mut self, now: Instant, id: NicId, epoch: Epoch, watched: Option<Instant>) {
        let Some(place) = self.table.nic(id) else { return };
        let Some(nic) = self.nics.get_mut(place as usize).and_then(Option::as_mut) else { return };
        if epoch < nic.epoch {
            return;
        }
        match watched {
            Some(watched) => {
                nic.watch = Some(Watch { epoch, watched, wait: None });
                self.go_on_watching(now, place);
            }
            None => self.notices.push(Notice::Watched { nic: id, epoch }),
        }
    }

    /// Says that a guest was watched for long enough, or sets the timer for that.
    pub(super) fn go_on_watching(&mut self, now: Instant, place: Place) {
        let Some(nic) = self.nics.get_mut(place as usize).and_then(Option::as_mut) else { return };
        let Some(Watch { epoch, watched, .. }) = nic.watch else { return };
        let wait = nic.custody.as_ref().and_then(|custody| custody.waits(now, watched));
        nic.watch = wait.map(|_| Watch { epoch, watched, wait });
        match wait {
            Some(wait) => self.timers.sooner(place, wait.until),
            None => self.notices.push(Notice::Watched { nic: nic.identity.nic, epoch }),
        }
    }

    /// A segment of a guest was observed: it may be what is waited for.
    pub(super) fn look_at_watched(&mut self, now: Instant, id: NicId) {
        let Some(place) = self.table.nic(id) else { return };
        let Some(nic) = self.nics.get(place as usize).and_then(Option::as_ref) else { return };
        let (Some(Watch { wait: Some(wait), .. }), Some(custody)) = (&nic.watch, &nic.custody) else {
            return;
        };
        if custody.is_over(now, wait) {
            self.go_on_watching(now, place);
        }
    }

    /// The guest is about to sleep, and is asked about each of its connections; says whether it is not yet about
    /// all. A few at a time: they go into its port all at once, where other frames want room.
    pub(super) fn solicit(&mut self, now: Instant, place: Place) -> bool {
        for _ in 0..ASKED_AT_ONCE {
            let Some(nic) = self.nics.get_mut(place as usize).and_then(Option::as_mut) else { return false };
            let (identity, Some(custody)) = (&nic.identity, nic.custody.as_deref_mut()) else { return false };
            let whose = (place, identity.nic);
            let asked = self
                .outbox
                .push(Way::Inject, whose, LONGEST_FRAME, |out| custody.solicit(now, identity, out));
            match asked {
                Ok(Some(())) => {}
                Ok(None) if !custody.is_soliciting() => return false,
                Ok(None) | Err(Full) => break,
            }
        }
        self.timers.sooner(place, now + ASKED_AGAIN);
        true
    }

    /// What custody of a NIC's connections has done; `None` if there is none.
    #[must_use]
    pub fn custody_counters(&self, nic: NicId) -> Option<CustodyCounters> {
        Some(self.by_id(nic)?.custody.as_deref()?.counters())
    }

    /// The connections of a NIC that could not be answered for if its guest slept now, and why. All of its TCP was
    /// observed since `watched`, both ways; `None`: it is not.
    pub fn unrepresentable(
        &self,
        now: Instant,
        nic: NicId,
        watched: Option<Instant>,
    ) -> impl Iterator<Item = (Tuple, Unrepresentable)> + '_ {
        let custody = self.by_id(nic).and_then(|nic| nic.custody.as_deref());
        custody.into_iter().flat_map(move |custody| custody.unrepresentable(now, watched))
    }
}

impl From<Kind> for Answered {
    fn from(kind: Kind) -> Self {
        match kind {
            Kind::KeepAlive => Self::KeepAlive,
            Kind::WindowProbe => Self::WindowProbe,
            Kind::DuplicateAck => Self::DuplicateAck,
            Kind::ChallengeAck => Self::ChallengeAck,
        }
    }
}

/// Why a segment would wake the guest; `None` if it is none, or none that the guest would have taken.
fn segments_reason(reach: Reach, packet: &Packet<'_>, wanted: Decision) -> Option<WakeReason> {
    let Some(Transport::Tcp(tcp)) = packet.transport() else { return None };
    if reach != Reach::Unicast || !matches!(wanted, Decision::Hold(_) | Decision::Answer(_)) {
        return None;
    }
    let (from, _) = packet.addresses()?;
    let port = tcp.dst_port;
    Some(if tcp.is_syn() { WakeReason::TcpSyn { port, from } } else { WakeReason::TcpSegment { port, from } })
}

/// Connections that a guest is asked about at once: a tap has room for 1,000 frames.
const ASKED_AT_ONCE: usize = 64;
/// When the next ones are asked about.
pub(super) const ASKED_AGAIN: Duration = Duration::from_millis(1);

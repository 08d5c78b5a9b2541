//! The order in which held segments go to the woken guest: that of arrival, but that of each connection
//!
//! - the newest bare acknowledgement goes first, which spares the guest a retransmission of what has arrived; unless
//!   its timestamp is newer than that of the first segment held: the guest would take all older ones for old
//!   duplicates then (PAWS, RFC 7323 5.3), and it stays where it came;
//! - FIN and RST go last: what follows them would find the connection over.
//!
//! A flow with a SYN in it is more than one connection, and stays as it came. So do fragments and all that
//! is not TCP. Once per replay, on a command of the control side; takes memory for as many flows as are held.

use std::collections::BTreeMap;

use surrogate_wire::{Frame, Offload, Packet, Received, TcpFlags, TcpOptions, Transport};

use super::{Hold, Queue, Slot};
use crate::engine::lists::{Linked, Order};

/// What is held of one flow of TCP.
#[derive(Clone, Copy, Debug)]
struct Flow {
    first: u32,
    last: u32,
    newest_ack: Option<u32>,
    has_syn: bool,
}

/// What a segment is to the order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Syn,
    /// FIN or RST.
    End,
    BareAck,
    Other,
}

impl Hold {
    /// Puts what waits into the order in which the guest is to get it. `scratch` has room for a frame.
    pub(in crate::engine) fn order(&mut self, queue: &mut Queue, scratch: &mut [u8]) {
        let mut flows: BTreeMap<u64, Flow> = BTreeMap::new();
        let mut ends = Vec::new();
        let mut at = self.first_waiting(queue);
        while let Some((slot, position)) = at.and_then(|at| Some((self.slots.get(at as usize)?, at))) {
            at = slot.links().next(Order::Arrival);
            let Some(part) = part_of(slot) else { continue };
            let new = Flow { first: position, last: position, newest_ack: None, has_syn: false };
            let flow = flows.entry(slot.flow).or_insert(new);
            flow.last = position;
            match part {
                Part::Syn => flow.has_syn = true,
                Part::BareAck => flow.newest_ack = Some(position),
                Part::End => ends.push((slot.flow, position)),
                Part::Other => {}
            }
        }
        flows.retain(|_, flow| !flow.has_syn && flow.first != flow.last);
        for flow in flows.values() {
            if let Some(ack) = flow.newest_ack.filter(|ack| *ack != flow.first)
                && !self.is_newer(ack, flow.first, scratch)
            {
                queue.move_before(&mut self.slots, ack, flow.first);
            }
        }
        for (flow, end) in ends {
            if flows.contains_key(&flow) {
                queue.move_to_end(&mut self.slots, end);
            }
        }
    }

    /// Whether the segment at `a` has a newer timestamp than that at `b`.
    fn is_newer(&self, a: u32, b: u32, scratch: &mut [u8]) -> bool {
        match (self.timestamp(a, scratch), self.timestamp(b, scratch)) {
            (Some(a), Some(b)) => (b.wrapping_sub(a) as i32) < 0,
            // Those behind it may be older: one without is an end or a stranger's.
            (Some(_), None) => true,
            (None, _) => false,
        }
    }

    /// TSval of a held segment.
    fn timestamp(&self, at: u32, scratch: &mut [u8]) -> Option<u32> {
        let frame = self.slots.get(at as usize)?.frame(at);
        self.read(frame, scratch);
        let received = Received { bytes: scratch.get(..frame.len)?, vlan: None, offload: Offload::Verified };
        let frame = Frame::parse(&received).ok()?;
        let packet = Packet::parse(&frame, received.offload).ok()?;
        let Transport::Tcp(tcp) = packet.transport()? else { return None };
        Some(TcpOptions::parse(tcp.options).timestamps?.value)
    }
}

/// `None` for what is no whole segment.
fn part_of(slot: &Slot) -> Option<Part> {
    let twin = slot.twin?;
    let flags = TcpFlags(twin.flags);
    Some(if flags.contains(TcpFlags::SYN) {
        Part::Syn
    } else if flags.contains(TcpFlags::FIN) || flags.contains(TcpFlags::RST) {
        Part::End
    } else if flags.contains(TcpFlags::ACK) && twin.len == 0 && !flags.contains(TcpFlags::URG) {
        Part::BareAck
    } else {
        Part::Other
    })
}

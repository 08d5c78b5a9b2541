//! Frames of our own on their way to the driver: a bounded ring of bytes, first in, first out.
//!
//! A frame is written in place by whoever answers; there is no copy and no allocation. A frame whose
//! guest may run by the time it would be sent is taken out and never sent: the engine asks for the mode then.

use core::ops::Range;

use surrogate_wire::FrameBuf;

use crate::guest::identity::{NicId, PortId};
use crate::guest::table::Place;

/// Where a frame of ours goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// Through our port, in the name of this NIC.
    Transmit(PortId),
    /// Into the NIC's own port.
    Inject,
}

/// A frame of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Own {
    /// Where to.
    pub(super) way: Way,
    /// In whose name, or to whom.
    pub(super) nic: NicId,
    /// Its place in the engine when this was written.
    pub(super) place: Place,
    /// The place of its bytes.
    start: u32,
    len: u32,
}

impl Own {
    const fn range(&self) -> Range<usize> {
        self.start as usize..self.start as usize + self.len as usize
    }
}

/// See the [module](self).
pub(super) struct Outbox {
    bytes: Vec<u8>,
    /// A ring of as many records as the shortest frames that the bytes can hold.
    records: Vec<Own>,
    first: usize,
    count: usize,
    /// Where the next frame may begin, at the latest.
    end: usize,
}

impl Outbox {
    /// Room for `bytes` bytes of frames.
    #[must_use]
    pub(super) fn new(bytes: usize) -> Self {
        let none = Own { way: Way::Inject, nic: NicId(0), place: 0, start: 0, len: 0 };
        let shortest = surrogate_wire::emit::MIN_FRAME;
        Self { bytes: vec![0; bytes], records: vec![none; bytes / shortest], first: 0, count: 0, end: 0 }
    }

    /// Lets `write` fill a frame of at most `max` bytes and queues it. Returns what `write` did;
    /// `Err(Full)` without calling it if a frame of `max` bytes finds no room.
    ///
    /// # Errors
    /// [`Full`].
    pub(super) fn push<R>(
        &mut self,
        way: Way,
        (place, nic): (Place, NicId),
        max: usize,
        write: impl FnOnce(&mut FrameBuf<'_>) -> Option<R>,
    ) -> Result<Option<R>, Full> {
        let start = self.room(max).ok_or(Full)?;
        let into = self.bytes.get_mut(start..start + max).ok_or(Full)?;
        let mut buf = FrameBuf::new(into);
        let Some(wrote) = write(&mut buf) else { return Ok(None) };
        let Some(len) = buf.finish().map(<[u8]>::len) else { return Ok(None) };
        let own = Own {
            way,
            nic,
            place,
            start: u32::try_from(start).unwrap_or(u32::MAX),
            len: u32::try_from(len).unwrap_or(u32::MAX),
        };
        let at = self.nth(self.count);
        if let Some(record) = self.records.get_mut(at) {
            *record = own;
            self.count += 1;
            self.end = start + len;
        }
        Ok(Some(wrote))
    }

    /// Whether a frame of at most `max` bytes finds room.
    #[must_use]
    pub(super) fn has_room(&self, max: usize) -> bool {
        self.room(max).is_some()
    }

    /// The bytes of the frame that was queued last.
    #[must_use]
    pub(super) fn newest(&self) -> &[u8] {
        let last = self.count.checked_sub(1).map(|n| self.nth(n));
        last.and_then(|at| self.records.get(at)).map_or(&[], |own| self.bytes(own))
    }

    /// Takes the newest frame back.
    pub(super) fn retract(&mut self) {
        if let Some(count) = self.count.checked_sub(1) {
            if let Some(own) = self.records.get(self.nth(count)) {
                self.end = own.start as usize;
            }
            self.count = count;
        }
    }

    /// Takes the oldest frame out; its bytes stay readable until the next `push`.
    pub(super) fn pop(&mut self) -> Option<Own> {
        self.count = self.count.checked_sub(1)?;
        let own = self.records.get(self.first).copied();
        self.first = self.nth(1);
        own
    }

    /// A popped frame's bytes.
    #[must_use]
    pub(super) fn bytes(&self, own: &Own) -> &[u8] {
        self.bytes.get(own.range()).unwrap_or_default()
    }

    /// Position of the nth record from the oldest on; `n` is at most their number.
    const fn nth(&self, n: usize) -> usize {
        let at = self.first + n;
        if at < self.records.len() { at } else { at - self.records.len() }
    }

    /// Where `max` bytes in one piece are free.
    fn room(&self, max: usize) -> Option<usize> {
        if self.count == 0 {
            return (max <= self.bytes.len() && !self.records.is_empty()).then_some(0);
        }
        if self.count == self.records.len() {
            return None;
        }
        let oldest = self.records.get(self.first)?.start as usize;
        if self.end > oldest {
            if max <= self.bytes.len() - self.end { Some(self.end) } else { (max <= oldest).then_some(0) }
        } else {
            (max <= oldest - self.end).then_some(self.end)
        }
    }
}

/// No room; nothing was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Full;

#[cfg(test)]
mod tests {
    use super::*;

    const NIC: (Place, NicId) = (0, NicId(1));

    /// Queues a frame of `len` bytes of `id`.
    fn push(outbox: &mut Outbox, id: u8, len: usize) -> Result<Option<()>, Full> {
        outbox.push(Way::Inject, NIC, len, |out| {
            out.push(&vec![id; len]);
            Some(())
        })
    }

    fn pop(outbox: &mut Outbox) -> Option<(u8, usize)> {
        let own = outbox.pop()?;
        let bytes = outbox.bytes(&own);
        assert!(bytes.iter().all(|b| *b == bytes[0]), "overwritten");
        Some((bytes[0], bytes.len()))
    }

    #[test]
    fn frames_leave_in_order_and_whole_however_often_the_ring_goes_round() {
        let mut outbox = Outbox::new(500);
        let (mut next_in, mut next_out) = (0_u8, 0_u8);
        for round in 0..200_usize {
            while push(&mut outbox, next_in, 60 + round % 140) == Ok(Some(())) {
                next_in = next_in.wrapping_add(1);
            }
            for _ in 0..=round % 3 {
                let Some((id, _)) = pop(&mut outbox) else { break };
                assert_eq!(id, next_out);
                next_out = next_out.wrapping_add(1);
            }
        }
        while let Some((id, _)) = pop(&mut outbox) {
            assert_eq!(id, next_out);
            next_out = next_out.wrapping_add(1);
        }
        assert_eq!(next_in, next_out);
    }

    #[test]
    fn a_frame_without_room_is_refused_before_it_is_written() {
        let mut outbox = Outbox::new(200);
        assert_eq!(push(&mut outbox, 1, 201), Err(Full));
        assert_eq!(push(&mut outbox, 1, 150), Ok(Some(())));
        let written = outbox.push(Way::Inject, NIC, 60, |_| -> Option<()> { panic!("no room") });
        assert_eq!(written, Err(Full));
        assert_eq!(pop(&mut outbox), Some((1, 150)));
        assert_eq!(push(&mut outbox, 2, 200), Ok(Some(())));
    }

    #[test]
    fn silence_leaves_no_trace_and_the_newest_can_be_taken_back() {
        let mut outbox = Outbox::new(500);
        assert_eq!(push(&mut outbox, 1, 60), Ok(Some(())));
        assert_eq!(outbox.push(Way::Inject, NIC, 60, |_| None::<()>), Ok(None));
        assert_eq!(push(&mut outbox, 2, 60), Ok(Some(())));
        assert_eq!(outbox.newest(), [2; 60]);
        outbox.retract();
        assert_eq!(outbox.newest(), [1; 60]);
        assert_eq!(pop(&mut outbox), Some((1, 60)));
        assert_eq!(pop(&mut outbox), None);
    }
}

//! Frames of ours that wait to be sent together: one buffer, made once.
//!
//! `sendmmsg` from here was as fast as a mapped `PACKET_TX_RING` in batches of 64 and faster in smaller
//! ones (docs/performance.md), and says of each frame whether it was taken.

use crate::io::sys;

/// A queue of at most [`sys::BATCH`] frames.
#[derive(Debug)]
pub(super) struct SendQueue {
    /// One slot per frame.
    bytes: Box<[u8]>,
    slot_bytes: usize,
    lengths: [usize; sys::BATCH],
    count: usize,
}

impl SendQueue {
    /// An empty queue for frames of at most this many bytes.
    pub(super) fn for_frames_of(slot_bytes: usize) -> Self {
        let bytes = vec![0; slot_bytes * sys::BATCH].into_boxed_slice();
        Self { bytes, slot_bytes, lengths: [0; sys::BATCH], count: 0 }
    }

    /// Copies a frame to the end; `false` if it is too long or the queue is full.
    pub(super) fn push(&mut self, frame: &[u8]) -> bool {
        let Some(slot) = self.bytes.chunks_exact_mut(self.slot_bytes).nth(self.count) else { return false };
        let (Some(slot), Some(length)) = (slot.get_mut(..frame.len()), self.lengths.get_mut(self.count))
        else {
            return false;
        };
        slot.copy_from_slice(frame);
        *length = frame.len();
        self.count += 1;
        true
    }

    /// The frames, oldest first.
    pub(super) fn frames(&self) -> impl Iterator<Item = &[u8]> {
        let slots = self.bytes.chunks_exact(self.slot_bytes).zip(&self.lengths).take(self.count);
        slots.map(|(slot, &length)| slot.get(..length).unwrap_or_default())
    }

    pub(super) const fn len(&self) -> usize {
        self.count
    }

    pub(super) const fn is_full(&self) -> bool {
        self.count == sys::BATCH
    }

    pub(super) const fn clear(&mut self) {
        self.count = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_come_out_in_order_and_whole() {
        let mut queue = SendQueue::for_frames_of(4);
        assert!(queue.push(b"one") && queue.push(b"four"));
        assert_eq!(queue.frames().collect::<Vec<_>>(), [&b"one"[..], b"four"]);
        queue.clear();
        assert_eq!(queue.frames().count(), 0);
    }

    #[test]
    fn a_frame_that_is_too_long_or_one_too_many_is_refused() {
        let mut queue = SendQueue::for_frames_of(4);
        assert!(!queue.push(b"five!"));
        for _ in 0..sys::BATCH {
            assert!(queue.push(b"x"));
        }
        assert!(queue.is_full() && !queue.push(b"x"));
        assert_eq!(queue.len(), sys::BATCH);
    }
}

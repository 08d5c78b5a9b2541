//! Memory for the held frames of all guests of an engine.
//!
//! One allocation of `Limits.held_bytes`, made once and committed by the kernel only where it is
//! touched: chunks are taken from a free list first, and only when that is empty from beyond the
//! high-water mark. A frame is a chain of chunks. Never allocates afterwards, never moves a frame;
//! which frame has to go when it is full is decided in [`hold`](super::hold).

/// Bytes per chunk: a small frame takes one, a full one of 1,514 bytes takes three.
pub(super) const CHUNK: usize = 512;

/// See the [module](self).
pub(super) struct Arena {
    bytes: Vec<u8>,
    /// Per chunk: the next of its chain plus one, zero at the end. Zero pages stay uncommitted.
    next: Vec<u32>,
    /// First free chunk below the high-water mark, plus one.
    free: u32,
    /// Chunks ever used.
    high_water: u32,
    in_use: u32,
}

impl Arena {
    /// Room for `bytes` bytes, rounded down to whole chunks.
    #[must_use]
    pub(super) fn new(bytes: usize) -> Self {
        let chunks = (bytes / CHUNK).min(u32::MAX as usize - 1);
        Self { bytes: vec![0; chunks * CHUNK], next: vec![0; chunks], free: 0, high_water: 0, in_use: 0 }
    }

    /// Chunks there are.
    #[must_use]
    pub(super) fn capacity(&self) -> usize {
        self.next.len()
    }

    /// Chunks taken now.
    #[must_use]
    pub(super) const fn in_use(&self) -> usize {
        self.in_use as usize
    }

    /// Whether a frame of `len` bytes finds room.
    #[must_use]
    pub(super) fn fits(&self, len: usize) -> bool {
        chunks_for(len) <= self.capacity() - self.in_use()
    }

    /// Keeps the concatenation of `parts`; the chain's first chunk names it. `None`: no room.
    pub(super) fn store(&mut self, parts: [&[u8]; 3]) -> Option<u32> {
        let len = parts.iter().map(|p| p.len()).sum();
        if !self.fits(len) {
            return None;
        }
        let head = self.take()?;
        self.write(head, parts);
        Some(head)
    }

    /// Replaces the frame at `head`. `false`: no room for a longer one; the old one stays.
    pub(super) fn replace(&mut self, head: u32, old_len: usize, parts: [&[u8]; 3]) -> bool {
        let len: usize = parts.iter().map(|p| p.len()).sum();
        let free = self.capacity() - self.in_use();
        if chunks_for(len) > chunks_for(old_len) + free {
            return false;
        }
        if let Some(rest) = self.cut(head) {
            self.release(rest);
        }
        self.write(head, parts);
        true
    }

    /// Copies the frame at `head` into `into`, from its byte `skip` on and as much as `into` is long; both within
    /// the frame.
    pub(super) fn read(&self, head: u32, skip: usize, into: &mut [u8]) {
        let (mut at, mut skip, mut into) = (Some(head), skip, into);
        while let Some(chunk) = at
            && !into.is_empty()
        {
            let here = into.len().min(CHUNK.saturating_sub(skip));
            let (part, rest) = into.split_at_mut(here);
            let start = chunk as usize * CHUNK + skip;
            if let Some(from) = self.bytes.get(start..start + here) {
                part.copy_from_slice(from);
            }
            skip = skip.saturating_sub(CHUNK);
            into = rest;
            at = self.after(chunk);
        }
    }

    /// Gives the chunks of the frame at `head` back.
    pub(super) fn release(&mut self, head: u32) {
        let mut at = Some(head);
        while let Some(chunk) = at {
            at = self.after(chunk);
            let free = self.free;
            if let Some(next) = self.next.get_mut(chunk as usize) {
                *next = free;
                self.free = chunk + 1;
                self.in_use -= 1;
            }
        }
    }

    fn write(&mut self, head: u32, parts: [&[u8]; 3]) {
        let mut chunk = head;
        let mut used = 0;
        for mut part in parts {
            while !part.is_empty() {
                if used == CHUNK {
                    let Some(more) = self.take() else { return };
                    if let Some(next) = self.next.get_mut(chunk as usize) {
                        *next = more + 1;
                    }
                    chunk = more;
                    used = 0;
                }
                let (now, later) = part.split_at(part.len().min(CHUNK - used));
                let start = chunk as usize * CHUNK + used;
                if let Some(into) = self.bytes.get_mut(start..start + now.len()) {
                    into.copy_from_slice(now);
                }
                used += now.len();
                part = later;
            }
        }
    }

    fn take(&mut self) -> Option<u32> {
        let chunk = if let Some(chunk) = self.free.checked_sub(1) {
            let next = self.next.get_mut(chunk as usize)?;
            self.free = core::mem::take(next);
            chunk
        } else if (self.high_water as usize) < self.next.len() {
            self.high_water += 1;
            self.high_water - 1
        } else {
            return None;
        };
        self.in_use += 1;
        Some(chunk)
    }

    fn after(&self, chunk: u32) -> Option<u32> {
        self.next.get(chunk as usize)?.checked_sub(1)
    }

    fn cut(&mut self, chunk: u32) -> Option<u32> {
        core::mem::take(self.next.get_mut(chunk as usize)?).checked_sub(1)
    }
}

const fn chunks_for(len: usize) -> usize {
    if len == 0 { 1 } else { len.div_ceil(CHUNK) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(arena: &Arena, head: u32, len: usize) -> Vec<u8> {
        let mut into = vec![0; len];
        arena.read(head, 0, &mut into);
        into
    }

    #[test]
    fn a_frame_over_several_chunks_comes_back_whole() {
        let mut arena = Arena::new(16 * CHUNK);
        let frame: Vec<u8> = (0..1514_u32).map(|n| n as u8).collect();
        let (a, rest) = frame.split_at(12);
        let head = arena.store([a, &[0x81, 0, 0, 5], rest]).unwrap();
        assert_eq!(arena.in_use(), 3);
        let back = read(&arena, head, 1518);
        assert_eq!(back[..12], frame[..12]);
        assert_eq!(back[12..16], [0x81, 0, 0, 5]);
        assert_eq!(back[16..], frame[12..]);
        for (skip, len) in [(0, 0), (34, 1484), (500, 12), (512, 1), (511, 514), (1024, 494), (1518, 0)] {
            let mut part = vec![0; len];
            arena.read(head, skip, &mut part);
            assert_eq!(part, back[skip..skip + len], "{len} from {skip} on");
        }
    }

    #[test]
    fn a_full_arena_refuses_and_takes_again_what_was_released() {
        let mut arena = Arena::new(4 * CHUNK);
        let long = arena.store([&[1; 1500], &[], &[]]).unwrap();
        let short = arena.store([&[2; 60], &[], &[]]).unwrap();
        assert!(arena.store([&[3; 1], &[], &[]]).is_none());
        arena.release(long);
        assert!(arena.fits(3 * CHUNK) && !arena.fits(3 * CHUNK + 1));
        let again = arena.store([&[4; 1536], &[], &[]]).unwrap();
        assert_eq!(read(&arena, again, 1536), [4; 1536]);
        assert_eq!(read(&arena, short, 60), [2; 60]);
        assert_eq!(arena.high_water, 4);
    }

    #[test]
    fn a_replaced_frame_grows_and_shrinks_in_its_place() {
        let mut arena = Arena::new(3 * CHUNK);
        let head = arena.store([&[1; 60], &[], &[]]).unwrap();
        assert!(arena.replace(head, 60, [&[2; 1500], &[], &[]]));
        assert_eq!((arena.in_use(), read(&arena, head, 1500)), (3, vec![2; 1500]));
        assert!(!arena.replace(head, 1500, [&[3; 1537], &[], &[]]));
        assert_eq!(read(&arena, head, 1500), [2; 1500]);
        assert!(arena.replace(head, 1500, [&[4; 64], &[], &[]]));
        assert_eq!((arena.in_use(), read(&arena, head, 64)), (1, vec![4; 64]));
    }
}

//! Damaged variations of real frames.

use surrogate::io::capture::Captured;
use surrogate::rng::Rng;

/// A frame of the capture with something done to it: bits flipped, cut, spliced with another, repeated
/// or left as it is.
pub fn frame(frames: &[Captured], rng: &mut Rng) -> Vec<u8> {
    let mut bytes = any(frames, rng).to_vec();
    for _ in 0..=rng.below(2) {
        match rng.below(6) {
            0 => flip(&mut bytes, rng, 1),
            1 => flip(&mut bytes, rng, 8),
            2 => bytes.truncate(below(bytes.len() + 1, rng)),
            3 => {
                let other = any(frames, rng);
                bytes.truncate(below(bytes.len() + 1, rng));
                bytes.extend_from_slice(&other[below(other.len() + 1, rng)..]);
            }
            4 => {
                let (from, to) = (below(bytes.len() + 1, rng), below(bytes.len() + 1, rng));
                let part = bytes[from.min(to)..from.max(to)].to_vec();
                bytes.extend_from_slice(&part);
            }
            _ => {}
        }
    }
    bytes
}

fn flip(bytes: &mut [u8], rng: &mut Rng, bits: u32) {
    for _ in 0..bits {
        // Headers more often than data: there the decisions are made.
        let within = if rng.below(4) == 0 { bytes.len() } else { bytes.len().min(80) };
        if within > 0 {
            let at = below(within, rng);
            bytes[at] ^= 1 << rng.below(8);
        }
    }
}

fn any<'f>(frames: &'f [Captured], rng: &mut Rng) -> &'f [u8] {
    &frames[below(frames.len(), rng)].bytes
}

fn below(bound: usize, rng: &mut Rng) -> usize {
    usize::try_from(rng.below(bound as u64)).unwrap()
}

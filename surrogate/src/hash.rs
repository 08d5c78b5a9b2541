//! A seeded hash for tables whose keys come from the network.
//!
//! Folded multiplication of 64-bit words, as wyhash and its kin do: a few instructions per word, and
//! without the seed nobody can aim at a bucket. Not for anything that must stay secret. The seed is
//! an argument, so that the same seed gives the same trace.

use core::hash::{BuildHasher, Hasher};

/// Makes hashers that share a seed.
#[derive(Clone, Copy, Debug)]
pub struct Seeded {
    key: u64,
    start: u64,
}

impl Seeded {
    /// Hashers keyed by `seed`.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        let mut rng = crate::rng::Rng::seeded(seed);
        // Words are multiplied by it: an odd factor loses none of their bits.
        let key = rng.next_u64() | 1;
        Self { key, start: rng.next_u64() }
    }
}

impl BuildHasher for Seeded {
    type Hasher = Folded;

    fn build_hasher(&self) -> Folded {
        Folded { state: self.start, key: self.key }
    }
}

/// See the [module](self).
#[derive(Clone, Copy, Debug)]
pub struct Folded {
    state: u64,
    key: u64,
}

impl Folded {
    const fn mix(&mut self, word: u64) {
        let wide = (self.state ^ word) as u128 * self.key as u128;
        // Both halves: the low one alone forgets the high bits of the input.
        self.state = (wide as u64) ^ ((wide >> 64) as u64) ^ self.key.rotate_left(23);
    }
}

impl Hasher for Folded {
    fn write(&mut self, bytes: &[u8]) {
        let (words, rest) = bytes.as_chunks::<8>();
        for word in words {
            self.mix(u64::from_le_bytes(*word));
        }
        if !rest.is_empty() {
            let last = rest.iter().rev().fold(0, |word, byte| word << 8 | u64::from(*byte));
            self.mix(last ^ (rest.len() as u64) << 56);
        }
    }

    fn write_u8(&mut self, n: u8) {
        self.mix(u64::from(n));
    }

    fn write_u16(&mut self, n: u16) {
        self.mix(u64::from(n));
    }

    fn write_u32(&mut self, n: u32) {
        self.mix(u64::from(n));
    }

    fn write_u64(&mut self, n: u64) {
        self.mix(n);
    }

    fn write_u128(&mut self, n: u128) {
        self.mix(n as u64);
        self.mix((n >> 64) as u64);
    }

    fn write_usize(&mut self, n: usize) {
        self.mix(n as u64);
    }

    fn finish(&self) -> u64 {
        let wide = u128::from(self.state) * u128::from(MULTIPLIER);
        (wide as u64) ^ ((wide >> 64) as u64)
    }
}

/// The first 64 bits of the fraction of the golden ratio, made odd.
const MULTIPLIER: u64 = 0x9e37_79b9_7f4a_7c15;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn same_seed_same_hash_and_another_seed_another() {
        let key = (7_u32, 0x5254_0000_0011_u64);
        assert_eq!(Seeded::new(1).hash_one(key), Seeded::new(1).hash_one(key));
        assert_ne!(Seeded::new(1).hash_one(key), Seeded::new(2).hash_one(key));
    }

    #[test]
    fn words_are_multiplied_by_an_odd_number_whatever_the_seed() {
        assert!((0..64).all(|seed| Seeded::new(seed).key & 1 == 1));
        // So no two words have the same product, not even those that differ in the highest bit alone.
        let product = |word| {
            let mut hasher = Folded { state: 0, key: Seeded::new(5).key };
            hasher.mix(word);
            let high = (u128::from(word) * u128::from(hasher.key)) >> 64;
            hasher.state ^ high as u64 ^ hasher.key.rotate_left(23)
        };
        assert_ne!(product(1), product(1 | 1 << 63));
    }

    #[test]
    fn neighbouring_keys_spread_over_the_low_bits() {
        let seeded = Seeded::new(3);
        let mut buckets = [0_u32; 256];
        for n in 0..256 * 64_u64 {
            buckets[(seeded.hash_one(n) & 255) as usize] += 1;
        }
        assert!(buckets.iter().all(|n| (24..=112).contains(n)), "{buckets:?}");
    }

    #[test]
    fn bytes_of_different_length_differ_though_their_padding_is_equal() {
        let seeded = Seeded::new(4);
        let hash = |bytes: &[u8]| {
            let mut hasher = seeded.build_hasher();
            hasher.write(bytes);
            hasher.finish()
        };
        assert_ne!(hash(&[1, 0]), hash(&[1, 0, 0]));
        assert_ne!(hash(&[1; 8]), hash(&[1; 9]));
    }
}

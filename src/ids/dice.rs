//! Numbers that look random, from a seed.

use std::hash::{BuildHasher, RandomState};

/// A stream of numbers; the same seed gives the same stream.
#[derive(Clone, Debug)]
pub(super) struct Dice(u64);

impl Dice {
    /// The stream of a seed; without one, another stream each time.
    pub(super) fn new(seed: Option<u64>) -> Self {
        // The standard library seeds its hash maps from the operating system.
        Self(seed.unwrap_or_else(|| RandomState::new().hash_one(0)))
    }

    /// The next number, as `SplitMix64` mixes them.
    pub(super) fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

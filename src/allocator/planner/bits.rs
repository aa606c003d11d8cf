//! A set of items, a bit each.

/// See the [module](self).
#[derive(Clone, Debug, Default)]
pub(super) struct Bits(Vec<u64>);

impl Bits {
    /// None of so many items.
    pub(super) fn none(items: usize) -> Self {
        Self(vec![0; items.div_ceil(64)])
    }

    /// Adds one.
    #[inline]
    pub(super) fn add(&mut self, item: usize) {
        self.0[item / 64] |= 1 << (item % 64);
    }

    /// Adds one, or takes it out.
    #[inline]
    pub(super) fn set(&mut self, item: usize, is: bool) {
        let bits = &mut self.0[item / 64];
        *bits = *bits & !(1 << (item % 64)) | u64::from(is) << (item % 64);
    }

    /// Whether one is among them.
    #[inline]
    pub(super) fn has(&self, item: usize) -> bool {
        self.0[item / 64] >> (item % 64) & 1 != 0
    }

    /// All of them, in order.
    pub(super) fn iter(&self) -> impl Iterator<Item = u32> + '_ {
        let blocks = (0u32..).step_by(64).zip(&self.0);
        blocks.flat_map(|(first, bits)| ones(*bits).map(move |at| first + at))
    }
}

/// The places of the bits that are set, in order.
#[inline]
pub(super) fn ones(mut bits: u64) -> impl Iterator<Item = u32> {
    std::iter::from_fn(move || {
        let first = (bits != 0).then(|| bits.trailing_zeros());
        bits &= bits.wrapping_sub(1);
        first
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_has_what_was_added_and_not_taken_out_in_order() {
        let mut bits = Bits::none(131);
        for item in [130, 0, 63, 64, 65, 7] {
            bits.add(item);
        }
        bits.set(63, false);
        bits.set(7, true);
        bits.set(1, true);
        assert_eq!(bits.iter().collect::<Vec<u32>>(), [0, 1, 7, 64, 65, 130]);
        assert!((0..131).all(|item| bits.has(item as usize) == bits.iter().any(|has| has == item)));
    }
}

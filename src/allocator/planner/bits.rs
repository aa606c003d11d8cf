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

    /// Whether one is among them.
    #[inline]
    pub(super) fn has(&self, item: usize) -> bool {
        self.0[item / 64] >> (item % 64) & 1 != 0
    }

    /// All of them, in order.
    pub(super) fn iter(&self) -> impl Iterator<Item = u32> + '_ {
        (0u32..).zip(&self.0).flat_map(|(block, bits)| {
            let mut bits = *bits;
            std::iter::from_fn(move || {
                let item = (bits != 0).then(|| block * 64 + bits.trailing_zeros());
                bits &= bits.wrapping_sub(1);
                item
            })
        })
    }
}

//! An even share under bounds: everybody has so many, or as many as they can.

/// The even share, rounded down and up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Share {
    pub low: i64,
    pub high: i64,
}

impl Share {
    /// How `total` is shared by members each of whom can have at most so many.
    pub(super) fn of(most: &[i64], total: usize) -> Self {
        let total = super::problem::index(total);
        let sum = |level: i64| most.iter().map(|most| level.min(*most)).sum::<i64>();
        let (mut low, mut high) = (0, most.iter().copied().max().unwrap_or(0).min(total));
        while low < high {
            let middle = low + (high - low + 1) / 2;
            if sum(middle) <= total {
                low = middle;
            } else {
                high = middle - 1;
            }
        }
        Self { low, high: low + i64::from(sum(low) < total) }
    }
}

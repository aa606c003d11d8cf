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
        let total = super::flow::index(total);
        let sum = |level: i64| most.iter().map(|most| level.min(*most)).sum::<i64>();
        let mut high = most.iter().copied().max().unwrap_or(0).min(total);
        // Nobody is below the mean but those who can have no more, and mostly nobody is far above it.
        let mut low = high.min(total / super::flow::index(most.len()).max(1));
        let mut step = 1;
        while low < high {
            let level = high.min(low + step);
            if sum(level) <= total {
                low = level;
                step *= 2;
            } else {
                high = level - 1;
                step = step.min((high - low) / 2).max(1);
            }
        }
        Self { low, high: low + i64::from(sum(low) < total) }
    }
}

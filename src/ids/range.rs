//! The ids that may be given out.

use std::fmt;

/// Why a range or a mask makes no sense.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RangeError {
    /// Zero means "no id" to many; start at 1.
    #[error("the least id is 0, at least 1 expected; nothing was changed: start at 1")]
    Zero,
    /// There is no id in the range.
    #[error(
        "the range ends at {last}, before it starts at {first}; nothing was changed: choose a later end"
    )]
    Empty {
        /// The first id.
        first: u64,
        /// The last id.
        last: u64,
    },
    /// The mask sets a bit that differs within the range, so that two ids would become one.
    #[error(
        "the mask {mask:#x} sets bits in which ids of {range} differ; nothing was changed: choose bits above them"
    )]
    Mask {
        /// The mask.
        mask: u64,
        /// The range that it was put on.
        range: IdRange,
    },
}

/// A range of ids, both ends included. One id is a range, too.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct IdRange {
    first: u64,
    last: u64,
}

impl Default for IdRange {
    /// All but 0.
    fn default() -> Self {
        Self { first: 1, last: u64::MAX }
    }
}

impl fmt::Display for IdRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}..={}", self.first, self.last)
    }
}

impl IdRange {
    /// The ids from `first` to `last`.
    ///
    /// # Errors
    /// [`RangeError::Zero`], [`RangeError::Empty`].
    pub fn new(first: u64, last: u64) -> Result<Self, RangeError> {
        match first {
            0 => Err(RangeError::Zero),
            _ if last < first => Err(RangeError::Empty { first, last }),
            _ => Ok(Self { first, last }),
        }
    }

    /// The same ids with more bits set, for instance those that name a cluster. From then on these
    /// are the ids everywhere; nobody sees them without the mask.
    ///
    /// # Errors
    /// [`RangeError::Mask`].
    pub fn masked(self, mask: u64) -> Result<Self, RangeError> {
        let differing = self.first ^ self.last;
        let varying = u64::MAX.checked_shr(differing.leading_zeros()).unwrap_or_default();
        if mask & varying != 0 {
            return Err(RangeError::Mask { mask, range: self });
        }
        Ok(Self { first: self.first | mask, last: self.last | mask })
    }

    /// The least id.
    pub fn first(&self) -> u64 {
        self.first
    }

    /// The greatest id.
    pub fn last(&self) -> u64 {
        self.last
    }

    /// How many ids there are.
    pub fn total(&self) -> u64 {
        // Without 0 there are never more than fit.
        self.last - self.first + 1
    }

    /// Whether an id is among them.
    pub fn contains(&self, id: u64) -> bool {
        (self.first..=self.last).contains(&id)
    }
}

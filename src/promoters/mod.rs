//! Ready-made promoters.

mod stable;

pub use stable::Stable;

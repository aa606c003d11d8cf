//! Why there is no id, sorted by what the caller can do about it.

use crate::store::{Bytes, StoreError};

use super::range::{IdRange, RangeError};

/// What a caller of the ids has to cope with.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum IdsError {
    /// All ids are in use or rest. Nothing was changed; collectors were asked to hurry. Release
    /// some, wait for a collection, or widen the range.
    #[error("all ids are used: {used} of {total}")]
    Exhausted {
        /// How many ids of the range are not free.
        used: u64,
        /// How many ids the range has.
        total: u64,
    },
    /// Nobody has given the key an id, and this instance gives out none. Nothing was changed.
    #[error("`{0}` has no id")]
    Unassigned(Bytes),
    /// The key does not fit into a transaction of this store. Nothing was changed; use a hash of
    /// it.
    #[error("a key of {found} bytes, at most {limit} fit into a transaction")]
    KeyTooLong {
        /// The length of the key.
        found: usize,
        /// The greatest length.
        limit: usize,
    },
    /// Two keys have the same hash; this one cannot have an id as long as the other has one. By
    /// chance it does not happen: somebody has searched for it.
    #[error("`{key}` and `{other}` have the same hash")]
    HashCollision {
        /// The key that was asked for.
        key: Bytes,
        /// The key that has an id.
        other: Bytes,
    },
    /// The ids below this prefix have another range than was asked for. Nothing was changed; ask
    /// for that one, or have it changed by [`configure`](super::configure).
    #[error("the ids here are {found}, and {expected} were asked for")]
    Mismatch {
        /// The range that stands.
        found: IdRange,
        /// The range that was asked for.
        expected: IdRange,
    },
    /// What stands at the place of the range is not of this release. Nothing was changed.
    #[error("the range below this prefix cannot be read: {0}")]
    Foreign(String),
    /// A range or a mask makes no sense.
    #[error(transparent)]
    Range(#[from] RangeError),
    /// The store has failed too often, or for too long. The key may have got an id; nobody here
    /// uses it. Ask again.
    #[error("the store did not do it in time: {0}")]
    Unavailable(StoreError),
    /// The store will never do it.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// This instance was closed.
    #[error("the ids are closed")]
    Closed,
}

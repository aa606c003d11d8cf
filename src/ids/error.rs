//! Why there is no id, sorted by what the caller can do about it.

use crate::store::{Bytes, Refusal, StoreError};

use super::range::{IdRange, RangeError};

/// What a caller of the ids has to cope with.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum IdsError {
    /// All ids are in use or rest. Nothing was changed; collectors were asked to hurry. Release
    /// some, wait for a collection, or widen the range.
    #[error(
        "all ids are used, {used} of {total}; nothing was changed: wait for a collection, release some, or widen the range"
    )]
    Exhausted {
        /// How many ids of the range are not free.
        used: u64,
        /// How many ids the range has.
        total: u64,
    },
    /// Nobody has given the key an id, and this instance gives out none. Nothing was changed.
    #[error("`{0}` has no id; nothing was changed: wait until another node gives it one")]
    Unassigned(Bytes),
    /// The key does not fit into a transaction of this store. Nothing was changed; use a hash of
    /// it.
    #[error(
        "a key of {found} bytes, at most {limit} fit into a transaction; nothing was changed: use a hash of it"
    )]
    KeyTooLong {
        /// The length of the key.
        found: usize,
        /// The greatest length.
        limit: usize,
    },
    /// Two keys have the same hash; this one cannot have an id as long as the other has one. By
    /// chance it does not happen: somebody has searched for it.
    #[error("`{key}` and `{other}` have the same hash; nothing was changed: use another key")]
    HashCollision {
        /// The key that was asked for.
        key: Bytes,
        /// The key that has an id.
        other: Bytes,
    },
    /// The ids below this prefix have another range than was asked for. Nothing was changed; ask
    /// for that one, or have it changed by [`configure`](super::configure).
    #[error(
        "the ids here are {found}, and {expected} were asked for; nothing was changed: ask for those that are here, or configure the range"
    )]
    Mismatch {
        /// The range that stands.
        found: IdRange,
        /// The range that was asked for.
        expected: IdRange,
    },
    /// What stands at a place of the ids is not of this release, or not of the type that was asked
    /// for. Nothing was changed.
    #[error(
        "what stands there cannot be read: {0}; nothing was changed: use another prefix, or a release that reads it"
    )]
    Foreign(String),
    /// An option makes no sense. Nothing was changed; correct it.
    #[error("`{field}` is {found}, {expected} expected; nothing was changed: correct it")]
    Invalid {
        /// Its name.
        field: &'static str,
        /// Its value.
        found: String,
        /// Which values make sense.
        expected: &'static str,
    },
    /// This instance keeps no list of the ids, so it cannot come to know one. Nothing was changed;
    /// open one with [`Caching::Full`](super::Caching::Full).
    #[error(
        "this instance keeps no list of the ids; nothing was changed: open one with full caching"
    )]
    NoCache,
    /// A range or a mask makes no sense.
    #[error(transparent)]
    Range(#[from] RangeError),
    /// The store has failed too often, or for too long. What was asked for may have been done; what
    /// came of it, nobody here uses. Ask again.
    #[error(
        "the store did not do it in time: {}; it may have been done, and nobody here uses what came of it: ask again", why(.0)
    )]
    Unavailable(StoreError),
    /// The store will never do it.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// This instance was closed. Nothing was changed; open another.
    #[error("the ids are closed; nothing was changed: open another instance")]
    Closed,
}

/// What happened, without the advice of whoever asks the store himself.
fn why(error: &StoreError) -> String {
    match error {
        StoreError::Retry(why) | StoreError::Unknown(why) => why.clone(),
        StoreError::Refused(refusal) => refusal.to_string(),
    }
}

impl IdsError {
    /// Whether to send the same again is of no use. A lease is another the next time.
    pub(super) fn is_final(&self) -> bool {
        match self {
            Self::Store(StoreError::Refused(refusal)) => {
                !matches!(refusal, Refusal::LeaseExists(_) | Refusal::LeaseNotFound(_))
            }
            Self::Foreign(_) => true,
            _ => false,
        }
    }
}

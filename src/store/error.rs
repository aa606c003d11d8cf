//! Why a store did not do it, sorted by what the caller can do about it.

use serde::{Deserialize, Serialize};

use super::kv::{Bytes, LeaseId};

/// What a caller of a store has to cope with.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// Nothing was changed, and the same request may well succeed in a moment: send it again.
    #[error("{0}; nothing was changed: send it again in a moment")]
    Retry(String),
    /// The request was sent and no answer came: it may have been done, or may still be done. Read
    /// what stands, or send it again if doing it twice is the same as once.
    #[error("{0}; it may have been done, or still be: read what stands before you send it again")]
    Unknown(String),
    /// Nothing was changed, and the same request will never succeed; the refusal says what may.
    #[error("refused: {0}")]
    Refused(#[from] Refusal),
}

/// Why the same request will never succeed. Nothing was changed by it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// The history up to this revision is gone. Read what stands now, and watch from there.
    #[error(
        "the history is compacted up to revision {compacted}; nothing was changed: read what stands now, and watch from there"
    )]
    Compacted {
        /// The last revision whose change is gone. What stood at it can still be read.
        compacted: u64,
    },
    /// A read or a compaction at a revision that the store has not reached.
    #[error(
        "revision {requested} is yet to come, the store is at {current}; nothing was changed: ask for a revision that is reached"
    )]
    Ahead {
        /// The revision that was asked for.
        requested: u64,
        /// The revision that the store was at.
        current: u64,
    },
    /// The lease has ended, or never was: grant another.
    #[error("there is no lease {0}; nothing was changed: grant another")]
    LeaseNotFound(LeaseId),
    /// A lease of this id stands already: choose another id.
    #[error("lease {0} exists already; nothing was changed: choose another id")]
    LeaseExists(LeaseId),
    /// A transaction would put a key twice, or put it and delete it. Change each key once.
    #[error("key `{0}` is changed twice in one transaction; nothing was changed: change it once")]
    DuplicateKey(Bytes),
    /// More compares or operations in one list than the store takes; a list and those nested in it
    /// share the limit. Split the transaction.
    #[error(
        "{found} operations in one transaction, at most {limit} are allowed; nothing was changed: split it"
    )]
    TooManyOperations {
        /// How many there are, on the longest way down the nested lists.
        found: usize,
        /// How many may be.
        limit: usize,
    },
    /// More bytes than the store takes in one request. Split it.
    #[error(
        "a request of {found} bytes, at most {limit} are allowed; nothing was changed: split it"
    )]
    TooLarge {
        /// How many there are, about.
        found: usize,
        /// How many may be.
        limit: usize,
    },
    /// The request makes no sense: an empty key, a lease that lasts no time. Correct it.
    #[error("{0}; nothing was changed: correct the request")]
    Invalid(String),
    /// The user or the certificate does not suffice. Use one that may.
    #[error("not allowed: {0}; nothing was changed: use an identity that may")]
    Denied(String),
    /// The store was closed, or its disk failed: open another.
    #[error("the store is closed: {0}; nothing was changed: open another")]
    Closed(String),
}

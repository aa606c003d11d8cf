//! Why a member's call did not do what it was asked for.

use super::{item::NameError, value::MemberKey};
use crate::store::StoreError;

/// What went wrong, what was left behind, and what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AllocatorError {
    /// A name cannot be part of a key. Nothing was changed; choose another.
    #[error("{0}; nothing was changed: choose another name")]
    Name(#[from] NameError),
    /// A value cannot be written. Nothing was changed.
    #[error("the value cannot be written: {0}; nothing was changed: correct it")]
    Value(String),
    /// Another process, or a former self, is this member; this one was told not to wait for its end.
    #[error(
        "{0} is announced already by somebody else; nothing was changed: wait until its lease has ended, or end the other one"
    )]
    Announced(MemberKey),
    /// The member does not hold the item, or does so no more. Nothing was changed.
    #[error(
        "{0} is not held here, it has gone elsewhere or never came; nothing was changed: look at what is held"
    )]
    NotHeld(String),
    /// The member's lease has ended, and with it all that it held. Start another one.
    #[error("the lease has ended; all that was held was given up: start the member anew")]
    LeaseLost,
    /// Somebody has deleted the member's key, or written it without the member's lease, as a person may
    /// who changes a value by hand. What it held was given up.
    #[error(
        "the key of {0} was deleted, or written without its lease; all that was held was given up: start the member anew, once the key is deleted if it stands"
    )]
    Removed(MemberKey),
    /// The member has left, or was dropped.
    #[error("the member has ended; nothing was changed: start it anew")]
    Ended,
    /// The store did not do it; see there what it left behind.
    #[error(transparent)]
    Store(#[from] StoreError),
}

//! What an instance has to say about itself.

use std::time::Duration;

use crate::store::Bytes;

use super::life::Generation;

/// Something that an operator, or the application, may want to know. For what a handle is worth,
/// ask the handle.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Notice {
    /// The store has not answered for so long that all references may end soon.
    Suspect,
    /// All references have ended, or may have. They are being restored.
    Lost,
    /// A key that was lost is held again, with the same id.
    Restored {
        /// The key.
        key: Bytes,
        /// Its id.
        id: u64,
        /// Its fencing token from now on.
        generation: Generation,
    },
    /// A key that was lost has no claim to its id any more.
    Changed {
        /// The key.
        key: Bytes,
        /// The id that it had.
        old: u64,
        /// The id that it has now, if it has one.
        new: Option<u64>,
    },
    /// The store has gone back to an earlier revision, or was emptied; everything is made sure of.
    StoreRestored {
        /// The epoch from now on.
        epoch: u64,
    },
    /// So many ids are used that they may run out.
    Low {
        /// How many are not free.
        used: u64,
        /// How many there are.
        total: u64,
        /// How long until they run out, if it goes on as it did.
        full_in: Option<Duration>,
    },
    /// There was no id for a key.
    Exhausted {
        /// How many are not free.
        used: u64,
        /// How many there are.
        total: u64,
    },
}

//! The life of a key's id: its fencing token, and what a handle to it is worth.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{self, AtomicBool},
    },
};

use crate::store::Bytes;

/// A fencing token: says which of all the lives of an id it is. It never repeats, not even when the
/// store is restored from a backup, and within one epoch a later one is greater.
///
/// Give it along with the id to whoever acts on it, and have the lesser one refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Generation {
    /// The life of the store.
    pub epoch: u64,
    /// The revision at which the id was given to the key.
    pub revision: u64,
    /// Drawn by whoever gave it; sets those apart that a restored store gives out at the same
    /// revision before anybody has noticed.
    pub nonce: u64,
}

impl fmt::Display for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}-{:016x}", self.epoch, self.revision, self.nonce)
    }
}

/// What a handle is worth at this moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// The key has the id, and nobody can take it away.
    Held,
    /// The store has not answered for so long that the reference may end soon. It has not ended
    /// yet. Stop what must not overlap; it may be held again.
    Suspect,
    /// The reference has ended, or may have: the id may be another key's. It is being restored.
    Lost,
    /// It was lost, and holds again with the same id; its generation may be another. Whoever must
    /// know that nothing came in between compares the generations. Ask for a new handle to see
    /// [`Status::Held`].
    Restored,
    /// It was lost, and the id is another key's, or the key has another id. It never comes back;
    /// ask for the key again.
    Changed,
    /// Its owner has released it, or the instance was closed.
    Released,
}

/// A key with an id, for as long as it has it in the eyes of its handles.
#[derive(Debug)]
pub(super) struct Life {
    pub(super) key: Bytes,
    pub(super) id: u64,
    pub(super) changed: AtomicBool,
}

impl Life {
    pub(super) fn new(key: Bytes, id: u64) -> Arc<Self> {
        Arc::new(Self { key, id, changed: AtomicBool::new(false) })
    }

    pub(super) fn mark_changed(&self) {
        self.changed.store(true, atomic::Ordering::Relaxed);
    }

    pub(super) fn is_changed(&self) -> bool {
        self.changed.load(atomic::Ordering::Relaxed)
    }
}

/// How a caller came to a handle.
#[derive(Clone, Copy, Debug)]
pub(super) struct Origin {
    pub(super) serial: u64,
    pub(super) generation: Generation,
    pub(super) is_new: bool,
    pub(super) first_use: bool,
    /// How often the reference had been lost before.
    pub(super) losses: u64,
}

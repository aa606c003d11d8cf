//! The life of a key's id in this process: its fencing token, who uses it, and what that is worth.

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use crate::store::{Bytes, LeaseStatus};

use super::{
    tenure::Tenure,
    uses::{Use, UseId, Uses},
};

/// A fencing token: says which of all the lives of an id it is. It never repeats, not even when the
/// store is restored from a backup, and within one epoch a later one is greater.
///
/// Give it along with the id to whoever acts on it, and have the lesser one refused.
///
/// Until the first instance has noticed that a store was restored, the epoch is still that of
/// before: what is given out meanwhile may be less than what was given out and is lost. A restore
/// with a higher revision, as etcd has one, leaves no such gap.
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
    /// It was lost, and the id is another key's, or the key has another id, or none that can be
    /// read. It never comes back; ask for the key again.
    Changed,
    /// Its owner has released it, or the instance was closed.
    Released,
}

/// A key with an id, for as long as it has it in the eyes of its handles.
///
/// It is looked at without the desk: using a key that is held already disturbs nobody who uses
/// another one.
#[derive(Debug)]
pub(super) struct Life {
    pub(super) key: Bytes,
    pub(super) id: u64,
    holding: Mutex<Holding>,
}

#[derive(Debug)]
struct Holding {
    /// The session that the reference stands with, as far as is known that it stands.
    tenure: Option<Arc<Tenure>>,
    generation: Generation,
    /// How often it was lost.
    losses: u64,
    changed: bool,
    uses: Uses,
}

/// How a caller came to a handle.
#[derive(Clone, Copy, Debug)]
pub(super) struct Origin {
    pub(super) used: UseId,
    pub(super) is_new: bool,
    pub(super) first_use: bool,
    /// How often the reference had been lost before.
    losses: u64,
}

impl Life {
    pub(super) fn new(key: Bytes, id: u64, generation: Generation) -> Arc<Self> {
        let (tenure, uses) = (None, Uses::default());
        let holding = Holding { tenure, generation, losses: 0, changed: false, uses };
        Arc::new(Self { key, id, holding: Mutex::new(holding) })
    }

    fn lock(&self) -> MutexGuard<'_, Holding> {
        self.holding.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The fencing token as it stands, or stood last.
    pub(super) fn generation(&self) -> Generation {
        self.lock().generation
    }

    /// The reference stands, with a session.
    pub(super) fn hold(&self, tenure: &Arc<Tenure>, generation: Generation) {
        let mut holding = self.lock();
        holding.tenure = Some(Arc::clone(tenure));
        holding.generation = generation;
    }

    /// It is not known any more that the reference stands.
    pub(super) fn lose(&self) {
        let mut holding = self.lock();
        holding.tenure = None;
        holding.losses += 1;
    }

    /// The reference is to go. Whether it may: nobody uses it, and nobody can from now on.
    pub(super) fn leave(&self) -> bool {
        let mut holding = self.lock();
        if holding.uses.is_empty() {
            holding.tenure = None;
        }
        holding.uses.is_empty()
    }

    /// The id has another key, or the key has another id.
    pub(super) fn change(&self) {
        let mut holding = self.lock();
        (holding.tenure, holding.changed) = (None, true);
        holding.uses.clear();
    }

    /// The instance is closed.
    pub(super) fn close(&self) {
        let mut holding = self.lock();
        holding.tenure = None;
        holding.uses.clear();
    }

    /// Uses it, if that needs no word from anybody.
    pub(super) fn hit(&self, owner: Option<&Arc<str>>, now: Duration) -> Option<Origin> {
        let mut holding = self.lock();
        if holding.tenure.as_ref()?.status_at(now) != LeaseStatus::Held {
            return None;
        }
        Some(holding.add(owner.cloned(), now, false))
    }

    /// Uses it on the word of whoever has just held it.
    pub(super) fn add(&self, owner: Option<Arc<str>>, now: Duration, is_new: bool) -> Origin {
        self.lock().add(owner, now, is_new)
    }

    /// Ends a use. Whether it was the last.
    pub(super) fn give_back(&self, origin: &Origin) -> bool {
        let mut holding = self.lock();
        holding.uses.remove(origin.used) && holding.uses.is_empty()
    }

    /// Ends all uses of an owner. Returns how many there were.
    pub(super) fn release_owner(&self, owner: &str) -> usize {
        self.lock().uses.remove_owner(owner)
    }

    pub(super) fn uses(&self) -> usize {
        self.lock().uses.len()
    }

    /// Shows each use to somebody.
    pub(super) fn each_use(&self, show: impl FnMut(&Use)) {
        self.lock().uses.iter().for_each(show);
    }

    /// Whether the reference stands, as far as is known.
    pub(super) fn is_held(&self) -> bool {
        self.lock().tenure.is_some()
    }

    /// What a handle is worth at a time that was just read from the clock.
    pub(super) fn status(&self, origin: &Origin, now: Duration) -> Status {
        let holding = self.lock();
        if holding.changed {
            return Status::Changed;
        }
        if !holding.uses.contains(origin.used) {
            return Status::Released;
        }
        let Some(tenure) = &holding.tenure else { return Status::Lost };
        match tenure.status_at(now) {
            LeaseStatus::Lost => Status::Lost,
            LeaseStatus::Suspect => Status::Suspect,
            LeaseStatus::Held if holding.losses > origin.losses => Status::Restored,
            LeaseStatus::Held => Status::Held,
        }
    }
}

impl Holding {
    fn add(&mut self, owner: Option<Arc<str>>, now: Duration, is_new: bool) -> Origin {
        let first_use = self.uses.is_empty();
        Origin { used: self.uses.add(owner, now), is_new, first_use, losses: self.losses }
    }
}

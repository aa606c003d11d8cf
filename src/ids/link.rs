//! The way to the store: each request has its time, and a store that went back is noticed.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use crate::{
    runtime::Runtime,
    store::{
        KeyRange, LeaseId, LeaseState, RangeRequest, RangeResponse, Store, StoreError, Txn,
        TxnResponse,
    },
};

use super::{
    error::IdsError,
    layout::{Layout, Meta, Record},
    range::IdRange,
    txns::agree,
};

/// A store, and the latest revision that it was seen at.
#[derive(Clone, Debug)]
pub(super) struct Link<S, R> {
    pub(super) store: S,
    pub(super) runtime: R,
    pub(super) layout: Layout,
    timeout: Duration,
    seen: Arc<Mutex<Seen>>,
}

/// What was seen of the store.
#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    /// How often it was found to have gone back.
    lives: u64,
    /// The latest revision of this life.
    revision: u64,
}

impl<S: Store, R: Runtime> Link<S, R> {
    pub(super) fn new(store: S, runtime: R, layout: Layout, timeout: Duration) -> Self {
        Self { store, runtime, layout, timeout, seen: Arc::default() }
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How often the store was found to have gone back.
    pub(super) fn lives(&self) -> u64 {
        self.seen().lives
    }

    /// Takes note that the store has gone back since it was that one, as its revision does not show.
    pub(super) fn forgot(&self, life: u64) {
        let mut seen = self.seen();
        if seen.lives == life {
            *seen = Seen { lives: life + 1, revision: 0 };
        }
    }

    /// Takes note of a revision that somebody else has seen in a life of the store.
    pub(super) fn note(&self, life: u64, revision: u64) {
        let mut seen = self.seen();
        if seen.lives == life {
            seen.revision = seen.revision.max(revision);
        }
    }

    /// Waits for an answer no longer than its time.
    pub(super) async fn bounded<T>(
        &self,
        request: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        self.bounded_by(self.timeout, request).await
    }

    /// Waits for an answer no longer than `patience`.
    pub(super) async fn bounded_by<T>(
        &self,
        patience: Duration,
        request: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        tokio::select! {
            biased;
            answer = request => answer,
            () = self.runtime.sleep(patience) => Err(no_answer()),
        }
    }

    /// Judges the revision of an answer by what was seen before it was asked for.
    fn judge(&self, before: Seen, revision: u64) -> Result<(), StoreError> {
        let mut seen = self.seen();
        if before.lives == seen.lives && revision < before.revision {
            *seen = Seen { lives: before.lives + 1, revision };
        }
        if before.lives != seen.lives {
            return Err(StoreError::Unknown("the store has gone back in time".to_owned()));
        }
        seen.revision = seen.revision.max(revision);
        Ok(())
    }

    // What waits for an etcd is large: moved about with every task that asks, it would cost more
    // than all else that the task does.

    pub(super) async fn commit(&self, txn: Txn) -> Result<TxnResponse, StoreError> {
        let before = *self.seen();
        let answer = self.bounded(Box::pin(self.store.commit(txn))).await?;
        self.judge(before, answer.revision)?;
        Ok(answer)
    }

    pub(super) async fn range(&self, request: RangeRequest) -> Result<RangeResponse, StoreError> {
        let before = *self.seen();
        let answer = self.bounded(Box::pin(self.store.range(request))).await?;
        self.judge(before, answer.revision)?;
        Ok(answer)
    }

    /// Keeps a lease alive; refused if it is gone. That tells nothing of its keys, which are many.
    pub(super) async fn keep(&self, id: LeaseId) -> Result<(), StoreError> {
        self.bounded(Box::pin(self.store.keep_alive(id))).await.map(drop)
    }

    pub(super) async fn lease(&self, id: LeaseId) -> Result<LeaseState, StoreError> {
        self.bounded(Box::pin(self.store.time_to_live(id))).await
    }

    /// Reads what all users of the prefix agree on, and decides it if nobody has.
    ///
    /// With `known`, what stood before, the epoch is raised if the store was emptied since, or has
    /// gone back: whatever was given out in that epoch must not be repeated. That it has gone back
    /// may be known already; or the record shows it by an earlier epoch or revision.
    pub(super) async fn meta(
        &self,
        wanted: Option<IdRange>,
        known: Option<(Meta, u64)>,
        back: bool,
    ) -> Result<(Meta, u64), IdsError> {
        loop {
            let key = self.layout.meta();
            let read = self.range(RangeRequest::new(KeyRange::key(&key))).await?;
            let (found, meta) = match read.items.first() {
                None => {
                    let range = known.map(|(known, _)| known.range).or(wanted).unwrap_or_default();
                    let epoch = known.map_or(Ok(1), |(known, _)| after(known.epoch))?;
                    (None, Meta { range, epoch })
                }
                Some(kv) => {
                    let meta = match self.layout.read(kv).map_err(IdsError::Foreign)? {
                        Record::Meta(meta) => meta,
                        other => return Err(IdsError::Foreign(format!("it is {other:?}"))),
                    };
                    match known.filter(|known| raises(*known, back, (meta, kv.mod_revision))) {
                        None => return Ok((meta, kv.mod_revision)),
                        Some((known, _)) => {
                            (Some(meta), Meta { epoch: after(known.epoch)?, ..meta })
                        }
                    }
                }
            };
            let done = self.commit(agree(&self.layout, found.as_ref(), &meta)).await?;
            if done.succeeded {
                return Ok((meta, done.revision));
            }
        }
    }
}

/// What there is to say of a request whose time is over.
pub(super) fn no_answer() -> StoreError {
    StoreError::Unknown("no answer came in time".to_owned())
}

/// The epoch after one; nobody but a stranger comes to the last.
fn after(epoch: u64) -> Result<u64, IdsError> {
    let last = || IdsError::Foreign(format!("the epoch is {epoch}, and there is none after it"));
    epoch.checked_add(1).ok_or_else(last)
}

/// Whether the epoch is to be raised above the one that was known.
fn raises(known: (Meta, u64), back: bool, found: (Meta, u64)) -> bool {
    let ((known, since), (found, at)) = (known, found);
    found.epoch < known.epoch || (found.epoch == known.epoch && (back || at < since))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_epoch_is_raised_when_the_store_went_back_and_nobody_has_raised_it_yet() {
        let meta = |epoch| Meta { range: IdRange::default(), epoch };
        let known = (meta(3), 50);
        // Nothing but another range, if anything.
        assert!(!raises(known, false, (meta(3), 50)));
        assert!(!raises(known, false, (meta(3), 70)));
        // It is not the record that stood, whatever the revision of the store.
        assert!(raises(known, false, (meta(2), 70)));
        assert!(raises(known, false, (meta(3), 40)));
        assert!(raises(known, true, (meta(3), 50)));
        assert!(raises(known, true, (meta(2), 40)));
        // Somebody was faster, or nobody can be.
        assert!(after(u64::MAX).is_err());
        assert!(!raises(known, true, (meta(4), 40)));
    }
}

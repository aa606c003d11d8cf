//! The way to the store: each request has its time, and a store that went back is noticed.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use crate::{
    runtime::Runtime,
    store::{
        Compare, KeyRange, Op, RangeRequest, RangeResponse, Store, StoreError, Txn, TxnResponse,
    },
};

use super::{
    error::IdsError,
    layout::{Layout, Meta, Record},
    range::IdRange,
};

/// A store, and the latest revision that it was seen at.
#[derive(Clone, Debug)]
pub(super) struct Link<S, R> {
    pub(super) store: S,
    pub(super) runtime: R,
    pub(super) layout: Layout,
    timeout: Duration,
    seen: Arc<AtomicU64>,
    /// Counts how often it was found to have gone back.
    lives: Arc<AtomicU64>,
}

impl<S: Store, R: Runtime> Link<S, R> {
    pub(super) fn new(store: S, runtime: R, layout: Layout, timeout: Duration) -> Self {
        let (seen, lives) = (Arc::default(), Arc::default());
        Self { store, runtime, layout, timeout, seen, lives }
    }

    /// How often the store was found to have gone back.
    pub(super) fn lives(&self) -> u64 {
        self.lives.load(Ordering::Relaxed)
    }

    /// Waits for an answer no longer than its time.
    async fn bounded<T>(
        &self,
        request: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        tokio::select! {
            biased;
            answer = request => answer,
            () = self.runtime.sleep(self.timeout) => {
                Err(StoreError::Unknown("no answer came in time".to_owned()))
            }
        }
    }

    /// Judges the revision of an answer by what was seen before it was asked for.
    fn judge(&self, asked_at: (u64, u64), revision: u64) -> Result<(), StoreError> {
        let (life, seen) = asked_at;
        if life == self.lives() && revision < seen {
            self.lives.fetch_add(1, Ordering::Relaxed);
            self.seen.store(revision, Ordering::Relaxed);
        }
        if life != self.lives() {
            return Err(StoreError::Unknown("the store has gone back in time".to_owned()));
        }
        self.seen.fetch_max(revision, Ordering::Relaxed);
        Ok(())
    }

    fn now(&self) -> (u64, u64) {
        (self.lives(), self.seen.load(Ordering::Relaxed))
    }

    pub(super) async fn commit(&self, txn: Txn) -> Result<TxnResponse, StoreError> {
        let asked_at = self.now();
        let answer = self.bounded(self.store.commit(txn)).await?;
        self.judge(asked_at, answer.revision)?;
        Ok(answer)
    }

    pub(super) async fn range(&self, request: RangeRequest) -> Result<RangeResponse, StoreError> {
        let asked_at = self.now();
        let answer = self.bounded(self.store.range(request)).await?;
        self.judge(asked_at, answer.revision)?;
        Ok(answer)
    }

    /// What all users of the prefix agree on, and the revision of it, if it can be read.
    pub(super) async fn standing_meta(&self) -> Result<Option<(Meta, u64)>, StoreError> {
        let read = self.range(RangeRequest::new(KeyRange::key(self.layout.meta()))).await?;
        let standing = read.items.first().and_then(|kv| match self.layout.read(kv) {
            Ok(Record::Meta(meta)) => Some((meta, kv.mod_revision)),
            _ => None,
        });
        Ok(standing)
    }

    /// Reads what all users of the prefix agree on, and decides it if nobody has.
    ///
    /// With `known`, what stood before, the epoch is raised if the store was emptied since, or has
    /// gone back: whatever was given out in that epoch must not be repeated.
    pub(super) async fn meta(
        &self,
        wanted: Option<IdRange>,
        known: Option<Meta>,
        back: bool,
    ) -> Result<(Meta, u64), IdsError> {
        loop {
            let key = self.layout.meta();
            let read = self.range(RangeRequest::new(KeyRange::key(&key))).await?;
            let (fence, meta) = match read.items.first() {
                None => {
                    let range = known.map(|meta| meta.range).or(wanted).unwrap_or_default();
                    let epoch = known.map_or(1, |meta| meta.epoch + 1);
                    (0, Meta { range, epoch })
                }
                Some(kv) => {
                    let meta = match self.layout.read(kv).map_err(IdsError::Foreign)? {
                        Record::Meta(meta) => meta,
                        other => return Err(IdsError::Foreign(format!("it is {other:?}"))),
                    };
                    match known.filter(|known| back && meta.epoch <= known.epoch) {
                        None => return Ok((meta, kv.mod_revision)),
                        Some(known) => (kv.mod_revision, Meta { epoch: known.epoch + 1, ..meta }),
                    }
                }
            };
            let txn = Txn::when([Compare::unchanged(&key, fence)])
                .and_then([Op::put(&key, Layout::meta_value(&meta))]);
            let done = self.commit(txn).await?;
            if done.succeeded {
                return Ok((meta, done.revision));
            }
        }
    }
}

//! What a check is given: the store, keys of its own, and shorthands that answer or panic.

use std::time::Duration;

use crate::{
    runtime::Runtime,
    store::{
        Bytes, Compare, Events, KeyRange, KeyValue, Lease, LeaseId, Op, RangeRequest, Refusal,
        Store, StoreError, Txn, TxnResponse, Update, Watch,
    },
};

use super::{leases, mirrors, ranges, txns, watches};

/// How long a check waits for what must come.
const PATIENCE: Duration = Duration::from_secs(30);

/// A store under test.
#[derive(Clone, Debug)]
pub struct World<S, R> {
    /// The store.
    pub store: S,
    /// The runtime that the checks wait with.
    pub runtime: R,
    /// Below which all keys of a check lie.
    pub prefix: String,
}

/// Holds a store to the contract: every check, one after the other, on keys below `prefix`.
///
/// The store may fail in between, as long as it says [`StoreError::Retry`]; but nobody else may
/// change anything in it meanwhile. Its history is compacted up to the last revision.
///
/// # Panics
/// At the first promise that is broken.
pub async fn run<S: Store, R: Runtime>(store: S, runtime: R, prefix: &str) {
    let mut number = 0;
    let mut world = |name: &str| {
        number += 1;
        tracing::info!("check {number}: {name}");
        let prefix = format!("{prefix}{number:02}/");
        World { store: store.clone(), runtime: runtime.clone(), prefix }
    };
    txns::all(&mut world).await;
    ranges::all(&mut world).await;
    watches::all(&mut world).await;
    leases::all(&mut world).await;
    mirrors::all(&mut world).await;
}

impl<S: Store, R: Runtime> World<S, R> {
    /// A key of this check.
    pub fn key(&self, name: impl AsRef<str>) -> Bytes {
        format!("{}{}", self.prefix, name.as_ref()).into()
    }

    /// One key of this check, as a range.
    pub fn one(&self, name: impl AsRef<str>) -> KeyRange {
        KeyRange::key(self.key(name))
    }

    /// The keys of this check that begin with `name`.
    pub fn below(&self, name: impl AsRef<str>) -> KeyRange {
        KeyRange::prefix(self.key(name))
    }

    /// A put of a key of this check.
    pub fn put_op(&self, name: impl AsRef<str>, value: impl Into<Bytes>) -> Op {
        Op::put(self.key(name), value)
    }

    /// Does something, again and again while the store asks for that.
    pub(super) async fn retry<T, F>(&self, mut what: impl FnMut() -> F) -> Result<T, StoreError>
    where
        F: Future<Output = Result<T, StoreError>>,
    {
        let end = self.runtime.now() + PATIENCE;
        loop {
            match what().await {
                Err(StoreError::Retry(_)) if self.runtime.now() < end => {
                    self.runtime.sleep(Duration::from_millis(50)).await;
                }
                done => return done,
            }
        }
    }

    pub(super) async fn try_commit(&self, txn: Txn) -> Result<TxnResponse, StoreError> {
        self.retry(|| self.store.commit(txn.clone())).await
    }

    /// Does a transaction that must be done.
    ///
    /// # Panics
    /// If it is not.
    pub async fn commit(&self, txn: Txn) -> TxnResponse {
        match self.try_commit(txn.clone()).await {
            Ok(done) => done,
            Err(error) => panic!("{txn:?}: {error}"),
        }
    }

    /// Why a transaction is refused.
    ///
    /// # Panics
    /// If it is not.
    pub async fn refusal(&self, txn: Txn) -> Refusal {
        match self.try_commit(txn.clone()).await {
            Err(StoreError::Refused(refusal)) => refusal,
            other => panic!("{txn:?}: {other:?}"),
        }
    }

    /// Puts a key; returns its revision.
    pub async fn put(&self, name: impl AsRef<str>, value: impl Into<Bytes>) -> u64 {
        self.commit(Txn::new([self.put_op(name, value)])).await.revision
    }

    /// Deletes a key; returns the revision.
    pub async fn delete(&self, name: impl AsRef<str>) -> u64 {
        self.commit(Txn::new([Op::delete(self.key(name))])).await.revision
    }

    /// What stands of a key.
    pub async fn get(&self, name: impl AsRef<str>) -> Option<KeyValue> {
        let items = self.list(RangeRequest::new(self.one(name))).await;
        items.into_iter().next()
    }

    /// What a reading finds.
    ///
    /// # Panics
    /// If it is refused.
    pub async fn list(&self, request: RangeRequest) -> Vec<KeyValue> {
        match self.retry(|| self.store.range(request.clone())).await {
            Ok(found) => found.items.iter().map(|kv| (**kv).clone()).collect(),
            Err(error) => panic!("{request:?}: {error}"),
        }
    }

    /// The names and values of this check's keys that begin with `name`.
    pub async fn values(&self, name: impl AsRef<str>) -> Vec<(String, String)> {
        let items = self.list(RangeRequest::new(self.below(name))).await;
        items.iter().map(|kv| (self.name(&kv.key), kv.value.to_string())).collect()
    }

    /// A key without what all keys of this check have in front.
    pub fn name(&self, key: &Bytes) -> String {
        let key = key.to_string();
        key.strip_prefix(&self.prefix).map_or(key.clone(), str::to_owned)
    }

    /// Whether a compare holds.
    pub async fn holds(&self, compare: Compare) -> bool {
        self.commit(Txn::when([compare])).await.succeeded
    }

    /// The store's revision.
    pub async fn revision(&self) -> u64 {
        self.commit(Txn::default().and_then([Op::get(self.key("none"))])).await.revision
    }

    pub(super) async fn watch(&self, range: KeyRange, from: u64) -> S::Watch {
        match self.retry(|| self.store.watch(range.clone(), from)).await {
            Ok(watch) => watch,
            Err(error) => panic!("a watch of {range:?} from {from}: {error}"),
        }
    }

    /// What a future gives, which must be soon.
    pub(super) async fn soon<T>(&self, what: &str, future: impl Future<Output = T>) -> T {
        tokio::select! {
            biased;
            done = future => done,
            () = self.runtime.sleep(PATIENCE) => panic!("{what} did not come in {PATIENCE:?}"),
        }
    }

    /// The next events of a watch.
    pub(super) async fn events(&self, watch: &mut S::Watch) -> Events {
        let next = async {
            loop {
                match watch.next().await {
                    Ok(Update::Events(events)) => return events,
                    Ok(Update::Progress(_)) => {}
                    Err(error) => panic!("{error}"),
                }
            }
        };
        self.soon("an event", next).await
    }

    /// The error that ends a watch.
    pub(super) async fn end(&self, watch: &mut S::Watch) -> StoreError {
        let next = async {
            loop {
                if let Err(error) = watch.next().await {
                    return error;
                }
            }
        };
        self.soon("the end of a watch", next).await
    }

    pub(super) async fn grant(&self, ttl: Duration) -> Lease {
        match self.retry(|| self.store.grant(ttl, None)).await {
            Ok(lease) => lease,
            Err(error) => panic!("a lease of {ttl:?}: {error}"),
        }
    }

    pub(super) async fn put_leased(&self, name: &str, lease: LeaseId) -> u64 {
        let put = Op::put_leased(self.key(name), "leased", lease);
        self.commit(Txn::new([put])).await.revision
    }

    pub(super) async fn compact(&self, revision: u64) {
        let done = self.retry(|| self.store.compact(revision)).await;
        // A retry may find that it was done.
        let fine = matches!(done, Ok(()) | Err(StoreError::Refused(Refusal::Compacted { .. })));
        assert!(fine, "a compaction up to {revision}: {done:?}");
    }
}

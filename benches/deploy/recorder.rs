//! A store that writes down what is written through it, for it to be written once more.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use raft_autopilot::store::{
    Bytes, Compare, KeyRange, Lease, LeaseId, LeaseState, Limits, Op, OpResponse, RangeRequest,
    RangeResponse, Store, StoreError, Txn, TxnResponse, etcd::Etcd,
};

/// Under which all of a deployment stands.
pub(crate) const ROOT: &str = "/deploy";

/// What was written, by compares of what keys it was fenced, and the revision that it made.
#[derive(Clone)]
pub(crate) struct Written {
    pub(crate) revision: u64,
    pub(crate) compares: Vec<Bytes>,
    pub(crate) ops: Vec<Op>,
}

/// A store that writes down what is written through it.
#[derive(Clone)]
pub(crate) struct Recorder {
    pub(crate) store: Etcd,
    pub(crate) written: Arc<Mutex<Vec<Written>>>,
}

impl Recorder {
    /// Writes a transaction down, or each of those that are nested in it.
    fn record(&self, txn: Txn, done: &TxnResponse) {
        if !done.succeeded {
            return;
        }
        let (nested, ops): (Vec<Op>, Vec<Op>) =
            txn.success.into_iter().partition(|op| matches!(op, Op::Txn(_)));
        for (op, response) in nested.into_iter().zip(&done.responses) {
            let (Op::Txn(txn), OpResponse::Txn(done)) = (op, response) else {
                panic!("nobody writes beside what is nested")
            };
            self.record(txn, done);
        }
        if !ops.is_empty() {
            let key = |compare: &Compare| compare.range.start().clone();
            let compares = txn.compares.iter().map(key).collect();
            let written = Written { revision: done.revision, compares, ops };
            self.written.lock().unwrap().push(written);
        }
    }
}

impl Store for Recorder {
    type Watch = <Etcd as Store>::Watch;

    fn limits(&self) -> Limits {
        self.store.limits()
    }

    async fn range(&self, request: RangeRequest) -> Result<RangeResponse, StoreError> {
        self.store.range(request).await
    }

    async fn commit(&self, txn: Txn) -> Result<TxnResponse, StoreError> {
        let done = self.store.commit(txn.clone()).await?;
        self.record(txn, &done);
        Ok(done)
    }

    async fn watch(&self, range: KeyRange, from: u64) -> Result<Self::Watch, StoreError> {
        self.store.watch(range, from).await
    }

    async fn grant(&self, ttl: Duration, id: Option<LeaseId>) -> Result<Lease, StoreError> {
        self.store.grant(ttl, id).await
    }

    async fn keep_alive(&self, id: LeaseId) -> Result<Duration, StoreError> {
        self.store.keep_alive(id).await
    }

    async fn revoke(&self, id: LeaseId) -> Result<(), StoreError> {
        self.store.revoke(id).await
    }

    async fn time_to_live(&self, id: LeaseId) -> Result<LeaseState, StoreError> {
        self.store.time_to_live(id).await
    }

    async fn compact(&self, revision: u64) -> Result<(), StoreError> {
        self.store.compact(revision).await
    }
}

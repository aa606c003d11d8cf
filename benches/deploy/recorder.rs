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

/// What one request wrote.
#[derive(Clone)]
pub(crate) struct Written {
    /// That it made.
    pub(crate) revision: u64,
    /// It was sent when all of earlier stages had been answered.
    pub(crate) stage: usize,
    /// Of the transactions in it, each done by itself, those that were done.
    pub(crate) parts: Vec<Part>,
}

/// What one transaction wrote, and by compares of what keys it was fenced.
#[derive(Clone)]
pub(crate) struct Part {
    pub(crate) compares: Vec<Bytes>,
    pub(crate) ops: Vec<Op>,
}

/// How far it is.
#[derive(Default)]
struct Course {
    written: Vec<Written>,
    stage: usize,
    in_flight: usize,
}

/// A store that writes down what is written through it.
#[derive(Clone)]
pub(crate) struct Recorder {
    pub(crate) store: Etcd,
    course: Arc<Mutex<Course>>,
}

impl Recorder {
    pub(crate) fn new(store: Etcd) -> Self {
        Self { store, course: Arc::default() }
    }

    /// What was written since this was last asked, in the order of revisions.
    pub(crate) fn take(&self) -> Vec<Written> {
        let mut written = std::mem::take(&mut self.course.lock().unwrap().written);
        written.sort_by_key(|written| written.revision);
        written
    }

    /// One more is on its way. Returns of what stage it is.
    fn begin(&self) -> usize {
        let mut course = self.course.lock().unwrap();
        course.stage += usize::from(course.in_flight == 0);
        course.in_flight += 1;
        course.stage
    }

    /// One has been answered.
    fn end(&self, written: Option<Written>) {
        let mut course = self.course.lock().unwrap();
        course.in_flight -= 1;
        course.written.extend(written.filter(|written| !written.parts.is_empty()));
    }
}

/// What a transaction did: itself, or those that are nested in it.
fn parts(txn: Txn, done: &TxnResponse) -> Vec<Part> {
    if !done.succeeded {
        return Vec::new();
    }
    let (nested, ops): (Vec<Op>, Vec<Op>) =
        txn.success.into_iter().partition(|op| matches!(op, Op::Txn(_)));
    if nested.is_empty() && ops.is_empty() {
        return Vec::new();
    }
    if nested.is_empty() {
        let key = |compare: &Compare| compare.range.start().clone();
        return vec![Part { compares: txn.compares.iter().map(key).collect(), ops }];
    }
    assert!(ops.is_empty(), "nobody writes beside what is nested");
    let nested = nested.into_iter().zip(&done.responses);
    let nested = nested.flat_map(|(op, response)| match (op, response) {
        (Op::Txn(txn), OpResponse::Txn(done)) => parts(txn, done),
        (op, response) => panic!("to {op:?} etcd answers {response:?}"),
    });
    nested.collect()
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
        let stage = self.begin();
        let done = self.store.commit(txn.clone()).await;
        self.end(done.as_ref().ok().map(|done| Written {
            revision: done.revision,
            stage,
            parts: parts(txn, done),
        }));
        done
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

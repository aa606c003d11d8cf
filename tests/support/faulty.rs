//! An embedded store behind a connection that loses, delays and repeats, and a process that can be
//! stopped.

#![allow(dead_code, reason = "each test binary uses its part")]

use std::{
    collections::BTreeSet,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use raft_autopilot::{
    runtime::{Runtime, TokioRuntime},
    store::{
        Compare, Embedded, KeyRange, Lease, LeaseId, LeaseState, Limits, LocalWatch, Op,
        OpResponse, RangeRequest, RangeResponse, Refusal, Store, StoreError, Txn, TxnResponse,
        Update, Watch,
    },
};
use tokio::sync::{Notify, watch};

/// Numbers from a seed.
#[derive(Clone, Debug)]
pub(crate) struct Dice(pub(crate) u64);

impl Dice {
    pub(crate) fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % sides.max(1)
    }
}

/// Says of a compare that it is left out of every transaction, to see whether anybody misses it;
/// it is told what the compare is part of.
pub(crate) type Without = Arc<dyn Fn(&Compare, &Txn) -> bool + Send + Sync>;

/// Takes the compares out that `without` names, also of nested transactions.
fn strip(txn: &mut Txn, without: &Without) {
    let whole = txn.clone();
    txn.compares.retain(|compare| !without(compare, &whole));
    for op in txn.success.iter_mut().chain(&mut txn.failure) {
        if let Op::Txn(nested) = op {
            strip(nested, without);
        }
    }
}

/// Whether each of several that are nested was done, if there are several.
fn several(done: &TxnResponse) -> Option<bool> {
    let nested = done.responses.iter().filter_map(|response| match response {
        OpResponse::Txn(nested) => Some(nested.succeeded),
        _ => None,
    });
    let nested: Vec<bool> = nested.collect();
    (nested.len() > 1).then(|| nested.iter().all(|done| *done))
}

fn wrote(done: &TxnResponse) -> bool {
    done.responses.iter().any(|response| match response {
        OpResponse::Range(_) | OpResponse::Delete(0) => false,
        OpResponse::Put | OpResponse::Delete(_) => true,
        OpResponse::Txn(nested) => wrote(nested),
    })
}

/// What goes wrong, in percent of the requests.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Faults {
    /// The request is lost.
    pub(crate) lost: u64,
    /// It is done, and the answer is lost.
    pub(crate) unanswered: u64,
    /// It is done long after it was given up.
    pub(crate) late: u64,
    /// The longest way there or back, in milliseconds.
    pub(crate) way: u64,
}

/// A store as one process sees it.
#[derive(Clone)]
pub(crate) struct Faulty {
    pub(crate) line: Arc<Line>,
    store: watch::Receiver<Embedded>,
}

pub(crate) struct Line {
    pub(crate) faults: Mutex<Faults>,
    pub(crate) without: Option<Without>,
    paused: AtomicBool,
    resumed: Notify,
    /// Why no lease is granted.
    refused: Mutex<Option<Refusal>>,
    dice: Mutex<Dice>,
    /// How many transactions were sent.
    pub(crate) commits: Mutex<u64>,
    /// How often something was read, or progress was asked for.
    pub(crate) reads: Mutex<u64>,
    /// How many of them were several in one, of which all were done, and of which only some were.
    pub(crate) joint: Mutex<(u64, u64)>,
    /// The revisions at which one of them changed something.
    pub(crate) wrote: Mutex<BTreeSet<u64>>,
}

impl Faulty {
    pub(crate) fn new(store: &Embedded, seed: u64, without: Option<Without>) -> Self {
        let (sender, store) = watch::channel(store.clone());
        // The world never changes under this one.
        drop(sender);
        Self::over(store, seed, without)
    }

    /// Over a store that can be exchanged for another.
    pub(crate) fn over(
        store: watch::Receiver<Embedded>,
        seed: u64,
        without: Option<Without>,
    ) -> Self {
        let line = Line {
            faults: Mutex::default(),
            without,
            paused: AtomicBool::new(false),
            resumed: Notify::new(),
            refused: Mutex::default(),
            dice: Mutex::new(Dice(seed)),
            commits: Mutex::new(0),
            reads: Mutex::new(0),
            joint: Mutex::default(),
            wrote: Mutex::default(),
        };
        Self { line: Arc::new(line), store }
    }

    pub(crate) fn runtime(&self) -> Stoppable {
        Stoppable(Arc::clone(&self.line))
    }

    pub(crate) fn store(&self) -> Embedded {
        self.store.borrow().clone()
    }

    fn roll(&self, sides: u64) -> u64 {
        self.line.dice.lock().unwrap().roll(sides)
    }

    async fn way(&self) {
        self.line.running().await;
        let way = self.line.faults.lock().unwrap().way;
        if way > 0 {
            let millis = self.roll(way + 1);
            TokioRuntime.sleep(Duration::from_millis(millis)).await;
            self.line.running().await;
        }
    }

    /// Does a request, or does not, or late, or says nothing about it.
    async fn through<T: Send + 'static, F>(
        &self,
        request: impl FnOnce(Embedded) -> F + Send + 'static,
    ) -> Result<T, StoreError>
    where
        F: Future<Output = Result<T, StoreError>> + Send + 'static,
    {
        self.way().await;
        let faults = *self.line.faults.lock().unwrap();
        let unknown = || Err(StoreError::Unknown("a fault".to_owned()));
        let luck = self.roll(100);
        if luck < faults.lost {
            return unknown();
        }
        if luck < faults.lost + faults.late {
            let millis = self.roll(1_000);
            let stores = self.store.clone();
            TokioRuntime.spawn(async move {
                TokioRuntime.sleep(Duration::from_millis(millis)).await;
                // It may have been exchanged meanwhile.
                let now = stores.borrow().clone();
                let _ = request(now).await;
            });
            return unknown();
        }
        let answer = request(self.store()).await;
        if luck < faults.lost + faults.late + faults.unanswered {
            return unknown();
        }
        self.way().await;
        answer
    }
}

impl Line {
    /// Stops the process.
    pub(crate) fn pause(&self) {
        self.paused.store(true, Ordering::Relaxed);
    }

    /// Lets it go on.
    pub(crate) fn resume(&self) {
        self.paused.store(false, Ordering::Relaxed);
        self.resumed.notify_waiters();
    }

    /// From now on no lease is granted, or is again.
    pub(crate) fn refuse(&self, why: Option<Refusal>) {
        *self.refused.lock().unwrap() = why;
    }

    /// Waits until the process goes on.
    async fn running(&self) {
        while self.paused.load(Ordering::Relaxed) {
            self.resumed.notified().await;
        }
    }
}

/// A runtime of a process that can be stopped.
#[derive(Clone)]
pub(crate) struct Stoppable(Arc<Line>);

impl Runtime for Stoppable {
    fn now(&self) -> Duration {
        TokioRuntime.now()
    }

    async fn sleep(&self, duration: Duration) {
        TokioRuntime.sleep(duration).await;
        self.0.running().await;
    }

    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        TokioRuntime.spawn(task);
    }
}

/// A watch as one process sees it; it is cut when the store is exchanged.
pub(crate) struct FaultyWatch {
    watch: LocalWatch,
    line: Arc<Line>,
    store: watch::Receiver<Embedded>,
    /// What has come while the process was stopped. Whoever waits may give up meanwhile, and ask again.
    arrived: Option<Result<Update, StoreError>>,
}

impl Watch for FaultyWatch {
    async fn next(&mut self) -> Result<Update, StoreError> {
        self.line.running().await;
        if self.arrived.is_none() {
            let exchanged = async {
                if self.store.changed().await.is_err() {
                    std::future::pending::<()>().await;
                }
            };
            self.arrived = Some(tokio::select! {
                biased;
                () = exchanged => Err(StoreError::Unknown("the store was exchanged".to_owned())),
                update = self.watch.next() => update,
            });
        }
        // It arrives when the process goes on.
        self.line.running().await;
        let arrived = self.arrived.take();
        arrived.unwrap_or_else(|| Err(StoreError::Unknown("nothing has come".to_owned())))
    }

    fn request_progress(&mut self) {
        *self.line.reads.lock().unwrap() += 1;
        self.watch.request_progress();
    }
}

impl Store for Faulty {
    type Watch = FaultyWatch;

    fn limits(&self) -> Limits {
        self.store().limits()
    }

    async fn range(&self, request: RangeRequest) -> Result<RangeResponse, StoreError> {
        *self.line.reads.lock().unwrap() += 1;
        self.way().await;
        let answer = self.store().range(request).await;
        self.way().await;
        answer
    }

    async fn commit(&self, mut txn: Txn) -> Result<TxnResponse, StoreError> {
        if let Some(without) = &self.line.without {
            strip(&mut txn, without);
        }
        *self.line.commits.lock().unwrap() += u64::from(txn.writes());
        let line = Arc::clone(&self.line);
        let write = |store: Embedded| async move {
            let done = store.commit(txn).await?;
            // What one that only reads tells is somebody else's revision.
            if wrote(&done) {
                line.wrote.lock().unwrap().insert(done.revision);
                let mut joint = line.joint.lock().unwrap();
                joint.0 += u64::from(several(&done) == Some(true));
                joint.1 += u64::from(several(&done) == Some(false));
            }
            Ok(done)
        };
        self.through(write).await
    }

    async fn watch(&self, range: KeyRange, from: u64) -> Result<FaultyWatch, StoreError> {
        self.way().await;
        let mut store = self.store.clone();
        let now = store.borrow_and_update().clone();
        let watch = now.watch(range, from).await?;
        Ok(FaultyWatch { watch, line: Arc::clone(&self.line), store, arrived: None })
    }

    async fn grant(&self, ttl: Duration, id: Option<LeaseId>) -> Result<Lease, StoreError> {
        if let Some(refused) = self.line.refused.lock().unwrap().clone() {
            return Err(refused.into());
        }
        self.through(move |store| async move { store.grant(ttl, id).await }).await
    }

    async fn keep_alive(&self, id: LeaseId) -> Result<Duration, StoreError> {
        self.through(move |store| async move { store.keep_alive(id).await }).await
    }

    async fn revoke(&self, id: LeaseId) -> Result<(), StoreError> {
        self.through(move |store| async move { store.revoke(id).await }).await
    }

    async fn time_to_live(&self, id: LeaseId) -> Result<LeaseState, StoreError> {
        self.way().await;
        self.store().time_to_live(id).await
    }

    async fn compact(&self, revision: u64) -> Result<(), StoreError> {
        self.store().compact(revision).await
    }
}

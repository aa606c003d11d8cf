//! A rolling replacement of half the members over a real etcd, as Gazette's own benchmark does it:
//! how many moves, rounds and renames it takes, and how long beside the same writes sent raw.
//!
//! `cargo bench --bench deploy --features allocator,etcd -- [N [SLACK]]`: 10 N members, 2,000 N items of
//! three replicas, two zones of 60 and 40 percent. Without N: 1 and 10.

#![allow(clippy::unwrap_used, reason = "a bench may panic")]
#![allow(clippy::disallowed_methods, reason = "a bench reads the clock")]
#![allow(clippy::cast_precision_loss, reason = "figures for people")]
#![allow(dead_code, reason = "the tests use more of the server")]

#[path = "../tests/etcd/server.rs"]
mod server;

use std::{
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use raft_autopilot::{
    allocator::{
        Allocator, Doing, Handle, Leading, Options, Report, Rules,
        plain::{Plain, PlainMember},
    },
    runtime::TokioRuntime,
    store::{
        KeyRange, Lease, LeaseId, LeaseState, Limits, Op, RangeRequest, RangeResponse, Store,
        StoreError, Txn, TxnResponse, etcd::Etcd,
    },
};
use tokio::sync::Semaphore;

const ROOT: &str = "/deploy";
const IN_FLIGHT: usize = 16;

/// A store that writes down what is written through it.
#[derive(Clone)]
struct Recorder {
    store: Etcd,
    written: Arc<Mutex<Vec<Txn>>>,
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
        let raw = Txn::new(txn.success.clone());
        let done = self.store.commit(txn).await?;
        if done.succeeded {
            self.written.lock().unwrap().push(raw);
        }
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

/// Writes in transactions of 128 operations, many at once.
async fn write(store: &impl Store, ops: Vec<Op>) -> u64 {
    let txns = ops.chunks(store.limits().operations).map(|ops| Txn::new(ops.to_vec()));
    send(store, txns.collect()).await
}

async fn send(store: &impl Store, txns: Vec<Txn>) -> u64 {
    let permits = Arc::new(Semaphore::new(IN_FLIGHT));
    let mut tasks = Vec::new();
    for txn in txns {
        let permit = Arc::clone(&permits).acquire_owned().await.unwrap();
        let store = store.clone();
        tasks.push(tokio::spawn(async move {
            let done = store.commit(txn).await.unwrap();
            drop(permit);
            done.revision
        }));
    }
    let mut last = 0;
    for task in tasks {
        last = last.max(task.await.unwrap());
    }
    last
}

/// Sixty percent of the members are in one zone, forty in the other.
fn key(at: usize) -> String {
    let zone = if matches!(at % 5, 1 | 3) { "zone-b" } else { "zone-a" };
    format!("{ROOT}/members/{zone}#m{at:05}")
}

fn member(at: usize, limit: usize, exiting: bool) -> Op {
    let limit = u32::try_from(limit).unwrap();
    let value = PlainMember { limit, exiting, share: None };
    let value = serde_json::to_vec(&value).unwrap();
    Op::put(key(at), value)
}

fn leave(at: usize) -> Op {
    Op::delete(key(at))
}

/// What a run took.
#[derive(Default)]
struct Sums {
    took: Duration,
    raw: Duration,
    moves: u64,
    bound: u64,
    /// Every replica that stood with a member that left had to move once.
    hindsight: u64,
    renames: usize,
    handed: u64,
    rounds: u64,
    most_rounds: u64,
    batches: u64,
    failed: u64,
}

struct Deploy {
    store: Recorder,
    handle: Handle<Plain>,
    plans: u64,
    bound: u64,
}

impl Deploy {
    /// Waits until nothing more can be done, makes everything consistent that is new, and so on
    /// until nothing is new. Returns how many rounds that took.
    async fn settle(&mut self, mut revision: u64) -> (u64, Arc<Report>) {
        let before = self.handle.report().map_or(0, |report| report.done.rounds);
        loop {
            let idle = |report: &Report| {
                report.revision >= revision && !report.doing.contains_key(&Doing::Changing)
            };
            let report = self.handle.report_when(idle).await.unwrap();
            if report.done.plans != self.plans {
                self.plans = report.done.plans;
                self.bound += report.certificate.lower_bound;
            }
            let marked = self.mark().await;
            match marked {
                Some(later) => revision = later,
                None if report.is_settled() => {
                    return (report.done.rounds - before, report);
                }
                None => panic!("it does not settle: {:?}", report.doing),
            }
        }
    }

    async fn mark(&self) -> Option<u64> {
        let view = self.handle.view().unwrap();
        let range = KeyRange::prefix(format!("{ROOT}/assign/"));
        let new = view.range(&range).filter(|(_, entry)| entry.kv.value.is_empty());
        let ops: Vec<Op> = new
            .map(|(key, entry)| Op::put_leased(key, r#"{"consistent":true}"#, entry.kv.lease))
            .collect();
        if ops.is_empty() { None } else { Some(write(&self.store, ops).await) }
    }
}

async fn deploy(n: usize, down_first: bool, slack: u32) -> Sums {
    let server = server::Server::start().await;
    let store = Recorder { store: server.store().await, written: Arc::default() };
    let value = PlainMember { limit: 1, ..PlainMember::default() };
    let rules = Rules { balance_slack: slack, ..Rules::default() };
    let leading = Leading { rules, batches_in_flight: IN_FLIGHT, ..Leading::default() };
    let options = Options {
        ttl: Duration::from_secs(300),
        leading,
        ..Options::new(ROOT, "zone-a", "leader", value)
    };
    let started = Instant::now();
    let made = Allocator::new(store.clone(), TokioRuntime, Plain, (), options);
    let (mut allocator, handle) = made.unwrap();
    let (shutdown, asked) = tokio::sync::oneshot::channel::<()>();
    let task = tokio::spawn(async move { allocator.run(async { drop(asked.await) }).await });
    handle.report_when(|_| true).await.unwrap();
    let mut deploy = Deploy { store: store.clone(), handle, plans: 0, bound: 0 };
    let item = |at: usize| Op::put(format!("{ROOT}/items/i{at:05}"), r#"{"replication":3}"#);
    let mut ops: Vec<Op> = (0..5 * n).map(|at| member(at, 1_500, false)).collect();
    ops.extend((0..2_000 * n).map(item));
    let mut revision = write(&store, ops).await;
    let (_, report) = deploy.settle(revision).await;
    let (added, mut sums) = (report.done.added, Sums::default());
    (deploy.bound, sums.rounds) = (0, 0);
    for step in 0..5 {
        let news = (0..n).map(|at| member(5 * n + step * n + at, 1_205, false));
        let olds = (0..n).map(|at| member(step * n + at, 1_500, true));
        let (first, second): (Vec<Op>, Vec<Op>) = if down_first {
            (olds.collect(), news.collect())
        } else {
            (news.collect(), olds.collect())
        };
        for ops in [first, second] {
            revision = write(&store, ops).await;
            let (rounds, _) = deploy.settle(revision).await;
            sums.rounds += rounds;
            sums.most_rounds = sums.most_rounds.max(rounds);
        }
        // Those that have nothing any more go.
        revision = write(&store, (0..n).map(|at| leave(step * n + at)).collect()).await;
        let (rounds, _) = deploy.settle(revision).await;
        sums.rounds += rounds;
    }
    let report = deploy.handle.report().unwrap();
    sums.took = started.elapsed();
    sums.moves = report.done.added - added;
    sums.bound = deploy.bound;
    sums.hindsight = 6_000 * n as u64;
    sums.handed = report.done.handed;
    (sums.batches, sums.failed) = (report.done.batches, report.done.failed);
    drop(shutdown);
    drop(task);
    let written = std::mem::take(&mut *store.written.lock().unwrap());
    sums.renames = written.iter().map(renames).sum();
    sums.raw = raw(&store.store, written).await;
    sums
}

/// From the revision that deletes ten of a hundred members, and all that they held, until every
/// replica is placed again; beside the same transactions' writes sent raw. The median of some.
async fn loss(items: usize, repeats: usize) -> (Duration, Duration, f64) {
    let server = server::Server::start().await;
    let store = Recorder { store: server.store().await, written: Arc::default() };
    let value = PlainMember { limit: 1, ..PlainMember::default() };
    let leading = Leading { batches_in_flight: IN_FLIGHT, ..Leading::default() };
    let options = Options {
        ttl: Duration::from_secs(300),
        leading,
        ..Options::new(ROOT, "zone-a", "leader", value)
    };
    let (mut allocator, handle) =
        Allocator::new(store.clone(), TokioRuntime, Plain, (), options).unwrap();
    let (shutdown, asked) = tokio::sync::oneshot::channel::<()>();
    let task = tokio::spawn(async move { allocator.run(async { drop(asked.await) }).await });
    handle.report_when(|_| true).await.unwrap();
    let mut deploy = Deploy { store: store.clone(), handle, plans: 0, bound: 0 };
    let item = |at: usize| Op::put(format!("{ROOT}/items/i{at:05}"), r#"{"replication":3}"#);
    let mut ops: Vec<Op> = (0..90).map(|at| member(at, 1_500, false)).collect();
    ops.extend((0..items).map(item));
    write(&store, ops).await;
    let mut figures = Vec::new();
    for _ in 0..repeats {
        let lease = store.grant(Duration::from_secs(300), None).await.unwrap().id;
        let ten = (90..100).map(|at| match member(at, 1_500, false) {
            Op::Put { key, value, .. } => Op::put_leased(key, value, lease),
            other => other,
        });
        let revision = write(&store, ten.collect()).await;
        deploy.settle(revision).await;
        store.written.lock().unwrap().clear();
        let started = Instant::now();
        store.revoke(lease).await.unwrap();
        let before = deploy.handle.report().unwrap().revision;
        let placed = |report: &Report| {
            report.revision > before
                && report.assignments == 3 * items
                && report.members.len() == 91
        };
        deploy.handle.report_when(placed).await.unwrap();
        let took = started.elapsed();
        let written = std::mem::take(&mut *store.written.lock().unwrap());
        let raw = raw(&store.store, written).await;
        figures.push((took.as_secs_f64() / raw.as_secs_f64(), took, raw));
        deploy.settle(before).await;
    }
    drop((shutdown, task));
    figures.sort_by(|a, b| a.0.total_cmp(&b.0));
    let (ratio, took, raw) = figures[figures.len() / 2];
    (took, raw, ratio)
}

/// How many slots a transaction renames: keys that it puts with a value other than the first.
fn renames(txn: &Txn) -> usize {
    let deletes = txn.success.iter().any(|op| matches!(op, Op::Delete(_)));
    let puts = txn.success.iter().filter(|op| match op {
        Op::Put { value, .. } => deletes && !value.is_empty(),
        _ => false,
    });
    puts.count()
}

/// The same writes without compares, in the same order, under another root.
async fn raw(store: &Etcd, written: Vec<Txn>) -> Duration {
    let renamed = |key: &[u8]| [b"/raw".as_slice(), &key[ROOT.len()..]].concat();
    let txns: Vec<Txn> = written
        .into_iter()
        .map(|txn| {
            Txn::new(txn.success.into_iter().map(|op| match op {
                Op::Put { key, value, .. } => Op::put(renamed(&key), value),
                Op::Delete(KeyRange::Key(key)) => Op::delete(renamed(&key)),
                other => other,
            }))
        })
        .collect();
    let started = Instant::now();
    send(store, txns).await;
    started.elapsed()
}

fn main() {
    let trial = !std::env::args().any(|argument| argument == "--bench");
    let numbers: Vec<usize> = std::env::args().filter_map(|text| text.parse().ok()).collect();
    let sizes = match numbers.first() {
        Some(n) => vec![*n],
        None if trial => vec![1],
        None => vec![1, 10],
    };
    let slack = u32::try_from(numbers.get(1).copied().unwrap_or(0)).unwrap();
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let (items, repeats) = if trial { (2_000, 1) } else { (20_000, 5) };
    let (took, raw, ratio) = runtime.block_on(loss(items, repeats));
    println!(
        "ten of 100 members lost, {items} items: every replica is placed again after {took:.1?}; \
         the same writes sent raw take {raw:.1?}: {ratio:.2} times (median of {repeats})\n"
    );
    println!(
        "| N | first | s | raw s | times | rounds | at most | moves | bound | moves / bound | / hindsight | handed | renames | txns | refused |"
    );
    println!("|---:|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|");
    for n in sizes {
        for down_first in [false, true] {
            if trial && down_first {
                continue;
            }
            let sums = runtime.block_on(deploy(n, down_first, slack));
            println!(
                "| {n} | {} | {:.1} | {:.1} | {:.2} | {} | {} | {} | {} | {:.3} | {:.2} | {} | {} | {} | {} |",
                if down_first { "down" } else { "up" },
                sums.took.as_secs_f64(),
                sums.raw.as_secs_f64(),
                sums.took.as_secs_f64() / sums.raw.as_secs_f64(),
                sums.rounds,
                sums.most_rounds,
                sums.moves,
                sums.bound,
                sums.moves as f64 / sums.bound as f64,
                sums.moves as f64 / sums.hindsight as f64,
                sums.handed,
                sums.renames,
                sums.batches,
                sums.failed,
            );
            assert!(sums.moves * 50 <= sums.bound * 51, "at most 1.02 times the bound");
        }
    }
}

//! The ids over one real etcd, against the order of the reference: a lock for each key, and seven
//! round trips.
//!
//! ```sh
//! cargo bench --bench ids --features ids,etcd
//! cargo bench --bench ids --features ids,etcd -- reuse fill
//! ```
//!
//! The two orders take turns, several times, and who begins alternates: whatever else the machine
//! does meanwhile meets both. Read the ratios.

#![allow(clippy::unwrap_used, reason = "a bench may panic")]
#![allow(clippy::disallowed_methods, reason = "a bench reads the clock")]
#![allow(clippy::cast_precision_loss, reason = "figures for people")]

use std::{
    fmt,
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use etcd_client::{
    Client, Compare, CompareOp, GetOptions, LockOptions, PutOptions, Txn, TxnOp, TxnOpResponse,
};
use raft_autopilot::{
    ids::{Caching, Handle, IdRange, Ids, IdsError, Options},
    runtime::TokioRuntime,
    store::{
        Bytes, Embedded, KeyRange, Lease, LeaseId, LeaseState, Limits, RangeRequest, RangeResponse,
        Store, StoreError, TxnResponse,
        etcd::{Etcd, EtcdWatch},
        machine::Config,
    },
};
use tokio::sync::Barrier;

#[allow(dead_code, reason = "the tests use more of it")]
#[path = "../tests/etcd/server.rs"]
mod server;

use server::Server;

/// How much is done: little when cargo only tries the bench out.
struct Size {
    keys: usize,
    nodes: usize,
    total: u64,
    turns: usize,
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let given = |name: &str| arguments.iter().any(|argument| argument == name);
    let size = if given("--bench") && !given("--test") {
        Size { keys: 2_000, nodes: 500, total: 65_280, turns: 5 }
    } else {
        Size { keys: 60, nodes: 5, total: 300, turns: 1 }
    };
    let all = arguments.iter().all(|argument| argument.starts_with("--"));
    let chosen = |name: &str| all || given(name);
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    if chosen("reuse") {
        runtime.block_on(reuse(size.keys * 50, size.turns * 10));
    }
    if chosen("fill") {
        runtime.block_on(fill(size.total));
    }
    if chosen("etcd") {
        runtime.block_on(over_etcd(&size));
    }
    if chosen("fill-etcd") {
        runtime.block_on(fill_etcd(size.total));
    }
}

async fn over_etcd(size: &Size) {
    let server = &Server::start().await;
    let half = size.keys / 2;
    for clients in [1, 16, 64] {
        let theirs = async |turn| locked(server, turn, clients, half).await;
        let name = format!("{clients} nodes, new keys a second");
        compare(&name, size.turns, theirs, async |turn| {
            nodes(server, turn, clients, size.keys).await
        })
        .await;
    }
    let theirs = async |turn| locked(server, 100 + turn, 64, half).await;
    let ours = async |turn| callers(server, turn, 64, size.keys).await;
    compare("64 callers of one node, new keys a second", size.turns, theirs, ours).await;
    let theirs = async |turn| locked(server, 200 + turn, 1, half).await;
    let ours = async |turn| batches(server, turn, size.keys * 10).await;
    compare("batches of 100 against one by one, keys a second", size.turns, theirs, ours).await;
    let theirs = async |turn| 1.0 / locked_together(server, turn, size.nodes).await.as_secs_f64();
    let ours = async |turn| 1.0 / together(server, turn, size.nodes).await.as_secs_f64();
    let name = format!("{} nodes on one new key, times a second", size.nodes);
    compare(&name, size.turns.min(3), theirs, ours).await;
}

/// Measures two orders in turns, and prints both and how many times faster the second is.
async fn compare<T: Future<Output = f64>, O: Future<Output = f64>>(
    name: &str,
    turns: usize,
    theirs: impl Fn(usize) -> T,
    ours: impl Fn(usize) -> O,
) {
    let (mut first, mut second, mut times) =
        (Figures::default(), Figures::default(), Figures::default());
    let before = load();
    for turn in 0..turns {
        let (their, our) = if turn % 2 == 0 {
            let their = theirs(turn).await;
            (their, ours(turn).await)
        } else {
            let our = ours(turn).await;
            (theirs(turn).await, our)
        };
        first.0.push(their);
        second.0.push(our);
        times.0.push(our / their);
    }
    println!("{name}: locked {first}; ours {second}; {times} times; load {before} to {}", load());
}

/// What was measured, several times.
#[derive(Default)]
struct Figures(Vec<f64>);

impl fmt::Display for Figures {
    /// The median, and in brackets the least and the greatest.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        let (least, most) = (sorted[0], sorted[sorted.len() - 1]);
        let digits = usize::from(most < 100.0);
        write!(f, "{:.digits$} [{least:.digits$} {most:.digits$}]", sorted[sorted.len() / 2])
    }
}

/// How many processes wanted to run in the last minute, where the system says so.
fn load() -> String {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').next().unwrap_or("?").to_owned()
}

fn rate(count: usize, since: Instant) -> f64 {
    count as f64 / since.elapsed().as_secs_f64()
}

fn key(case: &str, number: usize) -> String {
    format!("k8s:case={case};k8s:io.kubernetes.pod.namespace=shop;k8s:number={number};")
}

/// A key that is held already: no IO.
async fn reuse(count: usize, turns: usize) {
    let store = Embedded::new(Config::default(), TokioRuntime);
    let ids = Ids::open(store, TokioRuntime, "reuse", Options::default()).await.unwrap();
    let handles: Vec<Handle> =
        ids.allocate_many((0..1_000).map(|number| key("reuse", number))).await.unwrap();
    let keys: Vec<Bytes> = handles.iter().map(|handle| handle.key().clone()).collect();
    let (mut held, mut allocated, mut asked) =
        (Figures::default(), Figures::default(), Figures::default());
    let each = |since: Instant| since.elapsed().as_nanos() as f64 / count as f64;
    for _ in 0..turns {
        let since = Instant::now();
        for number in 0..count {
            std::hint::black_box(ids.held(&keys[number % keys.len()]));
        }
        held.0.push(each(since));
        let since = Instant::now();
        for number in 0..count {
            std::hint::black_box(ids.allocate(&keys[number % keys.len()]).await.unwrap());
        }
        allocated.0.push(each(since));
        let since = Instant::now();
        for number in 0..count {
            std::hint::black_box(handles[number % handles.len()].status());
        }
        asked.0.push(each(since));
    }
    println!(
        "a held key, used and let go again: {held} ns; by `allocate` {allocated} ns; \
         the status of a handle {asked} ns; load {}",
        load()
    );
}

/// All ids of a range, one at a time.
async fn fill(total: u64) {
    let store = Embedded::new(Config::default(), TokioRuntime);
    let range = Some(IdRange::new(256, 255 + total).unwrap());
    let options = Options { range, ..Options::default() };
    let ids = Ids::open(store, TokioRuntime, "fill", options).await.unwrap();
    let since = Instant::now();
    let mut handles = Vec::new();
    for number in 0..usize::try_from(total).unwrap() {
        handles.push(ids.allocate(key("fill", number)).await.unwrap());
    }
    let each = since.elapsed().as_micros() as f64 / total as f64;
    println!("{total} ids to the last, in memory: {each:.1} us each; load {}", load());
    assert!(matches!(ids.allocate("more").await, Err(IdsError::Exhausted { .. })));
}

/// An etcd that counts the transactions that it is sent.
#[derive(Clone)]
struct Counted(Etcd, Arc<AtomicU64>);

impl Store for Counted {
    type Watch = EtcdWatch;

    fn limits(&self) -> Limits {
        self.0.limits()
    }

    async fn range(&self, request: RangeRequest) -> Result<RangeResponse, StoreError> {
        self.0.range(request).await
    }

    async fn commit(&self, txn: raft_autopilot::store::Txn) -> Result<TxnResponse, StoreError> {
        self.1.fetch_add(1, Ordering::Relaxed);
        self.0.commit(txn).await
    }

    async fn watch(&self, range: KeyRange, from: u64) -> Result<EtcdWatch, StoreError> {
        self.0.watch(range, from).await
    }

    async fn grant(&self, ttl: Duration, id: Option<LeaseId>) -> Result<Lease, StoreError> {
        self.0.grant(ttl, id).await
    }

    async fn keep_alive(&self, id: LeaseId) -> Result<Duration, StoreError> {
        self.0.keep_alive(id).await
    }

    async fn revoke(&self, id: LeaseId) -> Result<(), StoreError> {
        self.0.revoke(id).await
    }

    async fn time_to_live(&self, id: LeaseId) -> Result<LeaseState, StoreError> {
        self.0.time_to_live(id).await
    }

    async fn compact(&self, revision: u64) -> Result<(), StoreError> {
        self.0.compact(revision).await
    }
}

/// All ids of a range over an etcd, one at a time with a synced cache.
async fn fill_etcd(total: u64) {
    let server = Server::start().await;
    let sent = Arc::new(AtomicU64::new(0));
    let store = Counted(server.store().await, Arc::clone(&sent));
    let range = Some(IdRange::new(256, 255 + total).unwrap());
    // So that nothing else is sent meanwhile.
    let ttl = Duration::from_secs(3_600);
    let options = Options { range, ttl, ..Options::default() };
    let ids = Ids::open(store, TokioRuntime, "fill", options).await.unwrap();
    ids.wait_synced().await.unwrap();
    let since = Instant::now();
    let (mut handles, mut most) = (Vec::new(), 0);
    for number in 0..usize::try_from(total).unwrap() {
        let before = sent.load(Ordering::Relaxed);
        handles.push(ids.allocate(key("fill", number)).await.unwrap());
        most = most.max(sent.load(Ordering::Relaxed) - before);
    }
    let rate = rate(handles.len(), since);
    println!(
        "{total} ids to the last over etcd: {rate:.0} a second, none in more than {most} \
         transactions; load {}",
        load()
    );
    assert!(matches!(ids.allocate("more").await, Err(IdsError::Exhausted { .. })));
    ids.close().await;
}

async fn node(store: &Etcd, prefix: &str) -> Ids<Etcd, TokioRuntime> {
    // The other order has no cache either; in one process many of them would only hear each other.
    let options = Options { caching: Caching::Lazy, ..Options::default() };
    let ids = Ids::open(store.clone(), TokioRuntime, prefix, options).await.unwrap();
    // With its session and its first transaction.
    drop(ids.allocate("warm").await.unwrap());
    ids
}

/// New keys, each node one after another.
async fn nodes(server: &Server, turn: usize, clients: usize, keys: usize) -> f64 {
    let prefix = format!("nodes{clients}/{turn}");
    let store = server.store().await;
    let mut nodes = Vec::new();
    for _ in 0..clients {
        nodes.push(node(&store, &prefix).await);
    }
    let since = Instant::now();
    let mut tasks = Vec::new();
    for (number, ids) in nodes.into_iter().enumerate() {
        tasks.push(tokio::spawn(async move {
            let mut handles = Vec::new();
            for key_number in (number..keys).step_by(clients) {
                handles.push(ids.allocate(key("node", key_number)).await.unwrap());
            }
            (ids, handles)
        }));
    }
    let mut kept = Vec::new();
    for task in tasks {
        kept.push(task.await.unwrap());
    }
    let rate = rate(keys, since);
    for (ids, _) in &kept {
        ids.close().await;
    }
    rate
}

/// New keys, asked for by many callers of one node.
async fn callers(server: &Server, turn: usize, clients: usize, keys: usize) -> f64 {
    let ids = node(&server.store().await, &format!("callers{clients}/{turn}")).await;
    let since = Instant::now();
    let mut tasks = Vec::new();
    for number in 0..clients {
        let ids = ids.clone();
        tasks.push(tokio::spawn(async move {
            let mut handles = Vec::new();
            for key_number in (number..keys).step_by(clients) {
                handles.push(ids.allocate(key("caller", key_number)).await.unwrap());
            }
            handles
        }));
    }
    let mut kept = Vec::new();
    for task in tasks {
        kept.push(task.await.unwrap());
    }
    let rate = rate(keys, since);
    ids.close().await;
    rate
}

async fn batches(server: &Server, turn: usize, keys: usize) -> f64 {
    let ids = node(&server.store().await, &format!("batches/{turn}")).await;
    let since = Instant::now();
    let mut handles = Vec::new();
    for first in (0..keys).step_by(100) {
        let batch = (first..first + 100).map(|number| key("batch", number));
        handles.push(ids.allocate_many(batch).await.unwrap());
    }
    let rate = rate(keys, since);
    ids.close().await;
    rate
}

async fn together(server: &Server, turn: usize, count: usize) -> Duration {
    let prefix = format!("together/{turn}");
    let store = server.store().await;
    let start = Arc::new(Barrier::new(count + 1));
    let mut tasks = Vec::new();
    for _ in 0..count {
        let (ids, start) = (node(&store, &prefix).await, Arc::clone(&start));
        tasks.push(tokio::spawn(async move {
            start.wait().await;
            (ids.allocate("the one").await.unwrap(), ids)
        }));
    }
    start.wait().await;
    let since = Instant::now();
    let mut kept = Vec::new();
    for task in tasks {
        kept.push(task.await.unwrap());
    }
    let took = since.elapsed();
    assert!(kept.iter().all(|(handle, _)| handle.id() == kept[0].0.id()));
    for (_, ids) in &kept {
        ids.close().await;
    }
    took
}

/// One allocation as the reference does it. It is given the id, so that nothing is lost by
/// choosing.
async fn allocate(client: &mut Client, prefix: &str, node: usize, name: &str, lease: i64, id: u64) {
    let options = LockOptions::new().with_lease(lease);
    let lock = client.lock(format!("{prefix}/locks/{name}"), Some(options)).await.unwrap();
    let lock = lock.key().to_vec();
    let fence = || Compare::create_revision(lock.clone(), CompareOp::Greater, 0);
    let users = format!("{prefix}/value/{name}/");
    let list = || TxnOp::get(users.clone(), Some(GetOptions::new().with_prefix()));
    let fenced = Txn::new().when([fence()]).and_then([list()]);
    let found = client.txn(fenced).await.unwrap();
    let used = found.op_responses().iter().any(|answer| match answer {
        TxnOpResponse::Get(read) => read.count() > 0,
        _ => false,
    });
    if !used {
        let options = Some(GetOptions::new().with_prefix());
        client.get(users.clone(), options).await.unwrap();
        let master = format!("{prefix}/id/{id}");
        let create = Txn::new()
            .when([Compare::version(master.clone(), CompareOp::Equal, 0), fence()])
            .and_then([TxnOp::put(master, name, None)]);
        client.txn(create).await.unwrap();
    }
    let slave = format!("{users}{node}");
    let read = Txn::new().when([fence()]).and_then([TxnOp::get(slave.clone(), None)]);
    client.txn(read).await.unwrap();
    let options = Some(PutOptions::new().with_lease(lease));
    let put = Txn::new().when([fence()]).and_then([TxnOp::put(slave, id.to_string(), options)]);
    client.txn(put).await.unwrap();
    client.unlock(lock).await.unwrap();
}

async fn locked(server: &Server, turn: usize, clients: usize, keys: usize) -> f64 {
    let prefix = format!("locked{clients}/{turn}");
    let mut first = server.client().await;
    let lease = first.lease_grant(600, None).await.unwrap().id();
    let since = Instant::now();
    let mut tasks = Vec::new();
    for number in 0..clients {
        let (mut client, prefix) = (first.clone(), prefix.clone());
        tasks.push(tokio::spawn(async move {
            for key_number in (number..keys).step_by(clients) {
                let name = key("locked", key_number);
                let id = 256 + key_number as u64;
                allocate(&mut client, &prefix, number, &name, lease, id).await;
            }
        }));
    }
    for task in tasks {
        task.await.unwrap();
    }
    let rate = rate(keys, since);
    first.lease_revoke(lease).await.unwrap();
    rate
}

async fn locked_together(server: &Server, turn: usize, count: usize) -> Duration {
    let prefix = format!("locked/{turn}");
    // As long as the last one has to wait for all others.
    let options = etcd_client::ConnectOptions::new().with_timeout(Duration::from_secs(120));
    let first = Client::connect([server.address()], Some(options)).await.unwrap();
    let start = Arc::new(Barrier::new(count + 1));
    let mut tasks = Vec::new();
    for number in 0..count {
        let (mut client, start, prefix) = (first.clone(), Arc::clone(&start), prefix.clone());
        // Locks of one lease are one lock, so each node has a lease of its own.
        let lease = client.lease_grant(600, None).await.unwrap().id();
        tasks.push(tokio::spawn(async move {
            start.wait().await;
            allocate(&mut client, &prefix, number, "the one", lease, 256).await;
        }));
    }
    start.wait().await;
    let since = Instant::now();
    for task in tasks {
        task.await.unwrap();
    }
    since.elapsed()
}

//! The ids over one real etcd, against the order of the reference: a lock for each key, and seven
//! round trips.
//!
//! ```sh
//! cargo bench --bench ids --features ids,etcd
//! ```

#![allow(clippy::unwrap_used, reason = "a bench may panic")]
#![allow(clippy::disallowed_methods, reason = "a bench reads the clock")]
#![allow(clippy::cast_precision_loss, reason = "figures for people")]

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use etcd_client::{
    Client, Compare, CompareOp, GetOptions, LockOptions, PutOptions, Txn, TxnOp, TxnOpResponse,
};
use raft_autopilot::{
    ids::{Caching, Handle, IdRange, Ids, IdsError, Options},
    runtime::TokioRuntime,
    store::{Embedded, etcd::Etcd, machine::Config},
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
}

fn main() {
    let full = std::env::args().any(|argument| argument == "--bench")
        && !std::env::args().any(|argument| argument == "--test");
    let size = if full {
        Size { keys: 2_000, nodes: 500, total: 65_280 }
    } else {
        Size { keys: 60, nodes: 5, total: 300 }
    };
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(reuse(size.keys * 500));
    runtime.block_on(fill(size.total));
    runtime.block_on(over_etcd(&size));
}

async fn over_etcd(size: &Size) {
    let server = Server::start().await;
    for clients in [1, 16, 64] {
        let theirs = locked(&server, clients, size.keys / 2).await;
        let nodes = nodes(&server, clients, size.keys).await;
        let callers = callers(&server, clients, size.keys).await;
        println!(
            "{clients} at once: locked {theirs:.0}/s; nodes {nodes:.0}/s, {:.1}x; \
             callers of one node {callers:.0}/s, {:.1}x",
            nodes / theirs,
            callers / theirs,
        );
        if clients == 1 {
            let batches = batches(&server, size.keys * 10).await;
            println!("batches of 100: {batches:.0} keys/s, {:.1}x", batches / theirs);
        }
    }
    let theirs = locked_together(&server, size.nodes).await;
    let ours = together(&server, size.nodes).await;
    let times = theirs.as_secs_f64() / ours.as_secs_f64();
    println!(
        "{} nodes, one new key: locked {theirs:.0?}, ours {ours:.0?}, {times:.1}x",
        size.nodes
    );
}

fn rate(count: usize, since: Instant) -> f64 {
    count as f64 / since.elapsed().as_secs_f64()
}

fn key(case: &str, number: usize) -> String {
    format!("k8s:case={case};k8s:io.kubernetes.pod.namespace=shop;k8s:number={number};")
}

/// A key that is held already: no IO.
async fn reuse(count: usize) {
    let store = Embedded::new(Config::default(), TokioRuntime);
    let ids = Ids::open(store, TokioRuntime, "reuse", Options::default()).await.unwrap();
    let handles: Vec<Handle> =
        ids.allocate_many((0..1_000).map(|number| key("reuse", number))).await.unwrap();
    let keys: Vec<_> = handles.iter().map(|handle| handle.key().clone()).collect();
    let since = Instant::now();
    for number in 0..count {
        std::hint::black_box(ids.held(&keys[number % keys.len()]));
    }
    let each = since.elapsed().as_nanos() as f64 / count as f64;
    println!("a held key, used and let go again: {each:.0} ns");
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
    println!("{total} ids to the last, in memory: {each:.1} us each");
    assert!(matches!(ids.allocate("more").await, Err(IdsError::Exhausted { .. })));
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
async fn nodes(server: &Server, clients: usize, keys: usize) -> f64 {
    let prefix = format!("nodes{clients}");
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
    rate(keys, since)
}

/// New keys, asked for by many callers of one node.
async fn callers(server: &Server, clients: usize, keys: usize) -> f64 {
    let ids = node(&server.store().await, &format!("callers{clients}")).await;
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
    rate(keys, since)
}

async fn batches(server: &Server, keys: usize) -> f64 {
    let ids = node(&server.store().await, "batches").await;
    let since = Instant::now();
    let mut handles = Vec::new();
    for first in (0..keys).step_by(100) {
        let batch = (first..first + 100).map(|number| key("batch", number));
        handles.push(ids.allocate_many(batch).await.unwrap());
    }
    rate(keys, since)
}

async fn together(server: &Server, count: usize) -> Duration {
    let store = server.store().await;
    let start = Arc::new(Barrier::new(count + 1));
    let mut tasks = Vec::new();
    for _ in 0..count {
        let (ids, start) = (node(&store, "together").await, Arc::clone(&start));
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

async fn locked(server: &Server, clients: usize, keys: usize) -> f64 {
    let prefix = format!("locked{clients}");
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
    rate(keys, since)
}

async fn locked_together(server: &Server, count: usize) -> Duration {
    // As long as the last one has to wait for all others.
    let options = etcd_client::ConnectOptions::new().with_timeout(Duration::from_secs(120));
    let first = Client::connect([server.address()], Some(options)).await.unwrap();
    let start = Arc::new(Barrier::new(count + 1));
    let mut tasks = Vec::new();
    for number in 0..count {
        let (mut client, start) = (first.clone(), Arc::clone(&start));
        // Locks of one lease are one lock, so each node has a lease of its own.
        let lease = client.lease_grant(600, None).await.unwrap().id();
        tasks.push(tokio::spawn(async move {
            start.wait().await;
            allocate(&mut client, "locked", number, "the one", lease, 256).await;
        }));
    }
    start.wait().await;
    let since = Instant::now();
    for task in tasks {
        task.await.unwrap();
    }
    since.elapsed()
}

//! Transactions of 100 operations over a real etcd, pipelined: through the store, and through the raw client.

#![allow(clippy::unwrap_used, reason = "a bench may panic")]
#![allow(clippy::disallowed_methods, reason = "a bench reads the clock")]
#![allow(clippy::cast_precision_loss, reason = "figures for people")]
#![allow(dead_code, reason = "the tests use more of the server")]

#[path = "../tests/etcd/server.rs"]
mod server;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use etcd_client::{Client, Txn as RawTxn, TxnOp};
use raft_autopilot::store::{Op, Store, Txn, etcd::Etcd};
use tokio::sync::Semaphore;

/// How many operations a transaction has, and how many transactions are on their way at once.
const OPERATIONS: usize = 100;
const IN_FLIGHT: usize = 64;

fn main() {
    let trial = !std::env::args().any(|argument| argument == "--bench");
    let (rounds, txns) = if trial { (1, 64) } else { (8, 1_500) };
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let server = server::Server::start().await;
        let (store, client) = (server.store().await, server.client().await);
        // Taking turns, so that both meet the same disk and the same neighbours.
        let mut pairs = Vec::new();
        for _ in 0..rounds {
            let raw = raw(&client, txns).await;
            let ours = ours(&store, txns).await;
            pairs.push((ours.as_secs_f64() / raw.as_secs_f64(), raw, ours));
        }
        pairs.sort_by(|a, b| a.0.total_cmp(&b.0));
        let (ratio, raw, ours) = pairs[pairs.len() / 2];
        let rate = |took: Duration| (txns * OPERATIONS) as f64 / took.as_secs_f64() / 1e3;
        println!(
            "etcd, {OPERATIONS} puts a transaction, {IN_FLIGHT} on their way: {:.0} k puts/s; \
             the raw client {:.0} k puts/s; {ratio:.2} x its time (median of {rounds})",
            rate(ours),
            rate(raw),
        );
    });
}

fn keys(number: usize) -> impl Iterator<Item = String> {
    (0..OPERATIONS).map(move |at| format!("items/{:08}", (number * OPERATIONS + at) % 50_000))
}

async fn ours(store: &Etcd, txns: usize) -> Duration {
    pipelined(txns, |number| {
        let store = store.clone();
        let ops = keys(number).map(|key| Op::put(key, [7; 64].to_vec()));
        let txn = Txn::new(ops.collect::<Vec<_>>());
        async move { drop(store.commit(txn).await.unwrap()) }
    })
    .await
}

async fn raw(client: &Client, txns: usize) -> Duration {
    pipelined(txns, |number| {
        let mut kv = client.kv_client();
        let ops: Vec<_> = keys(number).map(|key| TxnOp::put(key, [7; 64], None)).collect();
        async move { drop(kv.txn(RawTxn::new().and_then(ops)).await.unwrap()) }
    })
    .await
}

/// How long so many take, a limited number of them at once.
async fn pipelined<F>(txns: usize, txn: impl Fn(usize) -> F) -> Duration
where
    F: Future<Output = ()> + Send + 'static,
{
    let room = Arc::new(Semaphore::new(IN_FLIGHT));
    let start = Instant::now();
    for number in 0..txns {
        let place = Arc::clone(&room).acquire_owned().await.unwrap();
        let work = txn(number);
        tokio::spawn(async move {
            work.await;
            drop(place);
        });
    }
    let _all = room.acquire_many(u32::try_from(IN_FLIGHT).unwrap()).await.unwrap();
    start.elapsed()
}

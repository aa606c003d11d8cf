//! Every store is held to the same contract by the same suite.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use raft_autopilot::{
    runtime::{Runtime, TokioRuntime},
    store::{Embedded, KeyRange, Op, RangeRequest, Store, Txn, machine::Config, suite},
};

#[tokio::test(start_paused = true)]
async fn the_embedded_store_keeps_the_contract_in_simulated_time() {
    let store = Embedded::new(Config::default(), TokioRuntime);
    suite::run(store, TokioRuntime, "suite/").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_embedded_store_keeps_the_contract() {
    let store = Embedded::new(Config::default(), TokioRuntime);
    suite::run(store, TokioRuntime, "suite/").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_embedded_store_keeps_the_contract_on_disk() {
    let directory = tempfile::tempdir().unwrap();
    let store = Embedded::open(directory.path(), Config::default(), TokioRuntime).unwrap();
    suite::run(store, TokioRuntime, "suite/").await;
}

/// It kept every thread of the runtime once, and no timer fired any more.
#[tokio::test(flavor = "current_thread")]
async fn whoever_asks_the_store_in_memory_in_a_loop_lets_others_run() {
    const ASKED: usize = 10_000;
    let store = Embedded::new(Config::default(), TokioRuntime);
    let lease = store.grant(Duration::from_secs(60), None).await.unwrap().id;
    for question in 0..5 {
        let (store, asked) = (store.clone(), Arc::new(AtomicUsize::new(0)));
        let counter = Arc::clone(&asked);
        TokioRuntime.spawn(async move {
            while counter.fetch_add(1, Ordering::Relaxed) < ASKED {
                let range = KeyRange::key("one");
                match question {
                    0 => drop(store.commit(Txn::new([Op::put("one", "1")])).await.unwrap()),
                    1 => drop(store.commit(Txn::new([Op::get("one")])).await.unwrap()),
                    2 => drop(store.range(RangeRequest::new(range)).await.unwrap()),
                    3 => drop(store.keep_alive(lease).await.unwrap()),
                    _ => drop(store.time_to_live(lease).await.unwrap()),
                }
            }
        });
        tokio::task::yield_now().await;
        let before = asked.load(Ordering::Relaxed);
        assert!(0 < before && before < ASKED, "question {question}: {before} before anybody ran");
    }
}

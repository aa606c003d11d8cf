//! Every store is held to the same contract by the same suite.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use raft_autopilot::{
    runtime::TokioRuntime,
    store::{Embedded, machine::Config, suite},
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

//! The store over a real etcd: the contract, how it is reached, and what it survives.
#![allow(clippy::unwrap_used, reason = "a test may panic")]
#![allow(clippy::disallowed_methods, reason = "a real process runs on the real clock")]

mod faults;
#[cfg(feature = "ids")]
mod ids;
#[cfg(feature = "allocator")]
mod items;
#[cfg(feature = "ids")]
mod processes;
mod proxy;
mod reach;
mod server;
mod survive;

use raft_autopilot::{runtime::TokioRuntime, store::suite};

use server::Server;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_etcd_keeps_the_contract() {
    let server = Server::start().await;
    Box::pin(suite::run(server.store().await, TokioRuntime, "suite/")).await;
}

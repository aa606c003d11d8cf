//! Real openraft clusters in one process, in simulated time and on tokio: the traps, the verbs, the records, the driver.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod driver;
mod fences;
mod history;
mod knobs;
mod leadership;
mod network;
mod real;
mod records;
mod several;
mod storage;
#[cfg(feature = "testing")]
mod suite;
mod traps;
mod types;
mod upgrades;
mod verbs;
mod world;

use std::future::Future;

use openraft::AsyncRuntime;
use openraft_rt_sim::SimRuntime;

/// Runs a test in simulated time.
fn simulated(test: impl Future<Output = ()>) {
    SimRuntime::with_seed(7).block_on(test);
}

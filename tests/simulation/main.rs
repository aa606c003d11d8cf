//! Whole clusters in simulated time: crashes, lost disks, broken networks and an operator who
//! races, from a seed. `SIM_SEED=7` runs one seed, `SIM_SEEDS=50` the first fifty, and
//! `SIM_TRACE=file` keeps the trace of a run.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod clients;
mod dice;
mod disk;
mod faults;
mod network;
mod operator;
mod oracle;
mod process;
mod store;
mod transport;
mod types;
mod world;

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use openraft::AsyncRuntime;
use openraft::async_runtime::WatchReceiver;
use openraft_rt_sim::SimRuntime;

use crate::oracle::Tally;
use crate::types::{clock, sleep};
use crate::world::{Rider, Seat, World};

/// How long the faults, the operator and the clients go on.
const TROUBLE: Duration = Duration::from_secs(50);
/// How long a run lasts in all.
const RUN: Duration = Duration::from_secs(60);

/// What came of one seed.
struct Outcome {
    trace: String,
    violation: Option<String>,
    tally: Tally,
}

fn simulate(seed: u64) -> Outcome {
    let mut runtime = SimRuntime::with_seed(seed);
    runtime.block_on(async {
        let world = World::new(seed, watcher());
        let oracle = world.oracle.clone();
        network::forget(seconds(world.clone()));
        world.form(&[1, 2, 3, 4, 5]).await;
        clients::start(&world, TROUBLE);
        network::forget(operator::work(world.clone(), TROUBLE));
        network::forget(faults::rage(world.clone(), TROUBLE));
        while clock() < TROUBLE && oracle.violation().is_none() {
            sleep(Duration::from_millis(10)).await;
        }
        if oracle.violation().is_none() {
            world.converges_within(RUN - TROUBLE).await;
        }
        world.end();
        Outcome { trace: oracle.trace(), violation: oracle.violation(), tally: oracle.tally() }
    })
}

/// Rides on every process and reports, twice a heartbeat, whether it leads.
fn watcher() -> Rider {
    Arc::new(|seat: Seat| {
        async move {
            loop {
                sleep(Duration::from_millis(25)).await;
                let metrics = seat.raft.metrics();
                let metrics = metrics.borrow_watched();
                if metrics.state == openraft::ServerState::Leader {
                    seat.world.oracle.leads(metrics.current_term, seat.id);
                }
                if let Err(error) = &metrics.running_state {
                    let text = format!("n{} boot {} stopped: {error}", seat.id, seat.boot);
                    return seat.world.oracle.violated(text);
                }
            }
        }
        .boxed()
    })
}

/// Closes every second in the trace.
async fn seconds(world: Arc<World>) {
    while clock() < RUN {
        sleep(Duration::from_secs(1)).await;
        world.oracle.second();
    }
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().expect("a number"))
}

fn check(seed: u64) -> Tally {
    let outcome = simulate(seed);
    if let Ok(path) = std::env::var("SIM_TRACE") {
        std::fs::write(path, &outcome.trace).unwrap();
    }
    if let Some(violation) = outcome.violation {
        let lines: Vec<_> = outcome.trace.lines().collect();
        let tail = lines[lines.len().saturating_sub(60)..].join("\n");
        panic!(
            "{tail}\n\nseed {seed}: {violation}\nreplay it with:\n  SIM_SEED={seed} cargo test \
             --release --features openraft --test simulation every_seed_keeps_the_invariants\n"
        );
    }
    outcome.tally
}

#[test]
fn every_seed_keeps_the_invariants() {
    if let Some(seed) = number("SIM_SEED") {
        println!("seed {seed}: {:?}", check(seed));
        return;
    }
    for seed in 0..number("SIM_SEEDS").unwrap_or(300) {
        check(seed);
    }
}

#[test]
fn the_same_seed_gives_the_same_trace() {
    let seed = number("SIM_SEED").unwrap_or(1);
    let (first, second) = (simulate(seed), simulate(seed));
    assert!(first.trace == second.trace, "seed {seed} gave two traces");
}

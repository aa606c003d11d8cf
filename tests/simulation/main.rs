//! Whole clusters in simulated time: crashes, lost disks, broken networks and an operator who
//! races, from a seed. `SIM_SEED=7` runs one seed, `SIM_SEEDS=50` the first fifty, and
//! `SIM_TRACE=file` keeps the trace of a run.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod autopilot;
mod character;
mod clients;
mod convergence;
mod dice;
mod disk;
mod faults;
#[path = "../support/items.rs"]
mod items;
mod measured;
mod memberships;
mod network;
mod operator;
mod oracle;
mod placed;
mod process;
mod scenes;
#[path = "../support/slots.rs"]
mod slots;
mod store;
mod transport;
mod types;
mod witness;
mod work;
mod world;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use openraft::AsyncRuntime;
use openraft_rt_sim::SimRuntime;

use crate::character::Character;
use crate::oracle::{Oracle, Tally};
use crate::types::{clock, sleep};
use crate::world::World;

/// How long the servers may take to agree when all is mended.
const QUIET: Duration = Duration::from_secs(60);

/// How long every run goes on after the trouble at least.
const REST: Duration = Duration::from_secs(10);

/// Runs a seed before the eyes of an oracle.
fn simulate(seed: u64, character: Character, oracle: &Arc<Oracle>) {
    let mut runtime = SimRuntime::with_seed(seed);
    runtime.block_on(async {
        let world = World::new(seed, character, oracle.clone(), autopilot::rider());
        let character = world.character.clone();
        oracle.note(format_args!("{character:?}"));
        network::forget(seconds(world.clone()));
        world.form(&character.founders).await;
        if let Some((_, raft)) = world.leader() {
            operator::configure(&world, &raft, QUIET).await;
        }
        network::forget(operator::found(world.clone()));
        clients::start(&world, character.trouble);
        network::forget(operator::work(world.clone(), character.trouble));
        network::forget(faults::rage(world.clone(), character.trouble));
        if character.works {
            work::observe(&world);
        }
        while clock() < character.trouble && oracle.violation().is_none() {
            sleep(Duration::from_millis(10)).await;
        }
        convergence::within(&world, QUIET).await;
        if character.works {
            work::settled(&world, QUIET).await;
        }
        while clock() < character.trouble + REST && oracle.violation().is_none() {
            sleep(Duration::from_millis(100)).await;
        }
        oracle.second();
        world.end();
    });
}

/// Closes every second in the trace.
async fn seconds(world: Arc<World>) {
    loop {
        sleep(Duration::from_secs(1)).await;
        world.oracle.second();
    }
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().expect("a number"))
}

/// What a seed decides of a run.
type Cast = fn(u64) -> Character;

/// Runs one seed; an error tells what broke, and how to see it again.
fn check(seed: u64, (cast, test): (Cast, &str)) -> Result<Tally, String> {
    let replay = format!(
        "replay it with:\n  SIM_SEED={seed} cargo test --release --features openraft,placement --test \
         simulation {test}"
    );
    let oracle = Arc::new(Oracle::default());
    let run = std::panic::AssertUnwindSafe(|| simulate(seed, cast(seed), &oracle));
    if std::panic::catch_unwind(run).is_err() {
        oracle.panicked();
    }
    if let Ok(path) = std::env::var("SIM_TRACE") {
        std::fs::write(path, oracle.trace()).unwrap();
    }
    let Some(violation) = oracle.violation() else { return Ok(oracle.tally()) };
    let trace = oracle.trace();
    let lines: Vec<_> = trace.lines().collect();
    let tail = lines[lines.len().saturating_sub(60)..].join("\n");
    Err(format!("{tail}\n\nseed {seed}: {violation}\n{replay}"))
}

/// Runs the seeds below `count`, each on one thread alone, as many at once as there are cores, and
/// returns the outcome of each in the order of the seeds.
fn check_all(count: u64, cast: (Cast, &str)) -> BTreeMap<u64, Result<Tally, String>> {
    let (next, done) = (AtomicU64::new(0), Mutex::new(BTreeMap::new()));
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= count {
                        return;
                    }
                    let outcome = check(seed, cast);
                    done.lock().unwrap().insert(seed, outcome);
                }
            });
        }
    });
    done.into_inner().unwrap()
}

/// Runs the seeds that are asked for, or so many; panics with the first that breaks anything.
fn run(usual: u64, cast: Cast, test: &str) -> (usize, Tally) {
    let outcomes = match number("SIM_SEED") {
        Some(seed) => BTreeMap::from([(seed, check(seed, (cast, test)))]),
        None => check_all(number("SIM_SEEDS").unwrap_or(usual), (cast, test)),
    };
    let failed: Vec<_> = outcomes.iter().filter(|(_, outcome)| outcome.is_err()).collect();
    if let Some((_, Err(report))) = failed.first() {
        let seeds: Vec<_> = failed.iter().map(|(seed, _)| seed).collect();
        panic!("{report}\n\nfailed seeds: {seeds:?}");
    }
    let total: Tally = outcomes.values().flatten().copied().sum();
    println!("{} seeds: {total:?}", outcomes.len());
    (outcomes.len(), total)
}

#[test]
fn every_seed_keeps_the_invariants() {
    let (seeds, total) = run(300, Character::of, "every_seed_keeps_the_invariants");
    // A few seeds need not see everything; so many must, or they prove little.
    if seeds >= 100 {
        assert!(total.acked > 100 * seeds, "the clusters hardly worked: {total:?}");
        assert_eq!(total.missing(), [""; 0], "never happened: {total:?}");
    }
}

#[test]
fn votes_and_work_keep_their_invariants_together() {
    let test = "votes_and_work_keep_their_invariants_together";
    let (seeds, total) = run(200, Character::working, test);
    if seeds >= 100 {
        assert_eq!(total.missing_of_work(), [""; 0], "never happened: {total:?}");
    }
}

#[test]
fn the_same_seed_gives_the_same_trace() {
    for seed in number("SIM_SEED").map_or(0..3, |seed| seed..seed + 1) {
        let trace = || {
            let oracle = Arc::new(Oracle::default());
            // Every other one with work.
            let cast = if seed % 2 == 0 { Character::of } else { Character::working };
            simulate(seed, cast(seed), &oracle);
            oracle.trace()
        };
        let (first, second) = (trace(), trace());
        let differs = first.lines().zip(second.lines()).find(|(one, other)| one != other);
        assert_eq!(differs, None, "seed {seed} gave two traces");
        assert!(first == second, "seed {seed} gave a longer and a shorter trace");
    }
}

//! The cost of many autopilots in one process: memory of those that stand by, time of those that lead.
//!
//! Time passes as fast as the work is done, so that ten minutes of a slow tick take a moment.

#![allow(missing_docs, reason = "a bench is no library")]
#![allow(clippy::cast_precision_loss, reason = "figures for people")]

use std::time::Duration;

use criterion::measurement::{Measurement, WallTime};

#[path = "crowd.rs"]
mod crowd;
#[path = "world.rs"]
mod world;

const TICK: Duration = Duration::from_secs(10);

fn main() {
    // `cargo test --bench standby` only wants to know that it runs.
    let smoke = !std::env::args().any(|argument| argument == "--bench")
        || std::env::args().any(|argument| argument == "--test");
    let (standing, leading, runs) = if smoke { (100, 100, 1) } else { (10_000, 1000, 5) };
    println!("standing by, each with a cluster of its own of 5 servers");
    println!("| autopilots | bytes each | of that the state of its servers | beside it |");
    println!("| ---: | ---: | ---: | ---: |");
    let memory = crowd::standing_by(standing, 5);
    let (each, servers) = (memory.bytes / standing as u64, memory.servers / standing as u64);
    println!("| {standing} | {each} | {servers} | {} |", each - servers);

    println!("leading converged clusters of 5 servers, at a slow tick of {TICK:?}");
    println!("| autopilots | simulated | rounds | µs a round | of one core |");
    println!("| ---: | ---: | ---: | ---: | ---: |");
    for _ in 0..runs {
        let crowd = crowd::Leading::start(leading, 5, TICK);
        let simulated = TICK * if smoke { 1 } else { 60 };
        let begin = WallTime.start();
        let rounds = crowd.pass(simulated);
        let took = WallTime.end(begin);
        let each = took.as_secs_f64() * 1e6 / rounds as f64;
        let share = took.as_secs_f64() / simulated.as_secs_f64() * 100.0;
        println!("| {leading} | {simulated:?} | {rounds} | {each:.1} | {share:.3} % |");
    }
}

//! The time of one round (assess, plan, check) as the cluster grows.
//!
//! `cargo bench --bench round` ends with a table of all sizes; compare the ratios, which move less
//! from machine to machine, before the times. Allocations are counted in `tests/cost.rs`: an
//! allocator that counts would be timed here too.

#![allow(clippy::unwrap_used, missing_docs, reason = "a bench may panic, and is no library")]
#![allow(clippy::cast_precision_loss, reason = "figures for people")]

use std::{cell::RefCell, hint::black_box, time::Duration};

use criterion::{
    BenchmarkId, Criterion, Throughput,
    measurement::{Measurement, WallTime},
};
use raft_autopilot::{
    autopilot::{State, plan},
    promoters::Stable,
};

#[path = "world.rs"]
mod world;

use world::{Case, Rounds, SIZES};

fn main() {
    let mut criterion = Criterion::default()
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1))
        .sample_size(30)
        .configure_from_args();
    let mut rows = Vec::new();
    for case in Case::ALL {
        for size in SIZES {
            rows.push(round(&mut criterion, case, size));
        }
    }
    parts(&mut criterion);
    criterion.final_summary();
    table(&rows);
}

/// What a case and a size has cost.
struct Row {
    case: Case,
    size: usize,
    /// Nanoseconds a round: the median of the batches; `None`: not measured.
    nanos: Option<f64>,
}

fn round(criterion: &mut Criterion, case: Case, size: usize) -> Row {
    let mut rounds = Rounds::new(size, case, Stable::new());
    let samples = RefCell::new(Vec::new());
    let mut group = criterion.benchmark_group(case.name());
    group.throughput(Throughput::Elements(size as u64));
    group.bench_function(BenchmarkId::from_parameter(size), |bencher| {
        bencher.iter_custom(|iterations| {
            // In short batches, whose median other programs on the machine do not move much.
            let batch = (500 / size as u64).max(1);
            let (mut left, mut total) = (iterations, Duration::ZERO);
            while left > 0 {
                let rounds_now = batch.min(left);
                let begin = WallTime.start();
                for _ in 0..rounds_now {
                    black_box(rounds.next());
                }
                let took = WallTime.end(begin);
                if rounds_now == batch {
                    samples.borrow_mut().push(took.as_nanos() as f64 / batch as f64);
                }
                left -= rounds_now;
                total += took;
            }
            total
        });
    });
    group.finish();
    Row { case, size, nanos: median(samples.into_inner()) }
}

/// The two halves of a converged round apart.
fn parts(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("parts");
    for size in [5, 100, 1000] {
        let mut rounds = Rounds::new(size, Case::Converged, Stable::new());
        let (config, promoter, seen, last) = rounds.parts();
        group.bench_function(BenchmarkId::new("assess", size), |bencher| {
            bencher.iter(|| State::assess(config, Some(last), black_box(seen)));
        });
        group.bench_function(BenchmarkId::new("plan", size), |bencher| {
            bencher.iter(|| plan(config, black_box(last), promoter));
        });
    }
    group.finish();
}

fn median(mut samples: Vec<f64>) -> Option<f64> {
    samples.sort_by(f64::total_cmp);
    samples.get(samples.len() / 2).copied().filter(|_| samples.len() > 1)
}

fn table(rows: &[Row]) {
    println!("| case | servers | µs a round | ns a server | to 5 servers |");
    println!("| --- | ---: | ---: | ---: | ---: |");
    for row in rows {
        let first = rows.iter().find(|first| first.case == row.case).unwrap();
        let each = |row: &Row| row.nanos.map(|nanos| nanos / row.size as f64);
        let text = |number: Option<f64>, digits: usize| {
            number.map_or("-".to_owned(), |number| format!("{number:.digits$}"))
        };
        let ratio = each(row).zip(each(first)).map(|(row, first)| row / first);
        println!(
            "| {} | {} | {} | {} | {} |",
            row.case.name(),
            row.size,
            text(row.nanos.map(|nanos| nanos / 1000.0), 2),
            text(each(row), 1),
            text(ratio, 2),
        );
    }
}

//! The store: transactions of the machine, of the store on disk, and a mirror of a million keys.

#![allow(clippy::unwrap_used, reason = "a bench may panic")]
#![allow(clippy::disallowed_methods, reason = "a bench reads the clock")]
#![allow(clippy::cast_precision_loss, reason = "figures for people")]

use std::{
    fs::File,
    hint::black_box,
    io::Write,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use raft_autopilot::{
    runtime::TokioRuntime,
    store::{
        Compare, Embedded, KeyRange, KeyValue, Limits, Op, Store, Txn,
        machine::{Command, Config, Machine},
        mirror::{Mirror, Options},
    },
};

/// How much is done: little when cargo only tries the bench out.
struct Size {
    keys: usize,
    txns: usize,
    seconds: f64,
}

fn main() {
    let trial = std::env::args().any(|argument| argument == "--test");
    let size = if trial || !std::env::args().any(|argument| argument == "--bench") {
        Size { keys: 20_000, txns: 20_000, seconds: 0.2 }
    } else {
        Size { keys: 1_000_000, txns: 1_000_000, seconds: 4.0 }
    };
    machine(&size);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_time()
        .build()
        .unwrap();
    runtime.block_on(disk(&size));
    runtime.block_on(mirror(&size));
}

/// Keys in an order of their own.
fn key(number: usize) -> String {
    format!("items/{:012}", (number as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 24)
}

fn put(number: usize) -> Txn {
    Txn::new([Op::put(key(number), [7; 64].to_vec())])
}

fn machine(size: &Size) {
    for keys in [1_000, size.keys / 10, size.keys] {
        let mut machine = Machine::new(Config::default());
        for number in 0..keys {
            machine.apply(Command::Txn(put(number)), Duration::ZERO).unwrap();
        }
        let plain = timed(size.txns, |number| put(number % keys), &mut machine);
        let compared = timed(
            size.txns,
            |number| {
                let name = key(number % keys);
                let stands = Compare {
                    relation: raft_autopilot::store::Relation::NotEqual,
                    ..Compare::absent(KeyRange::key(name.as_str()))
                };
                Txn::when([stands]).and_then([Op::put(name, [8; 64].to_vec())])
            },
            &mut machine,
        );
        println!(
            "machine, {keys} keys: {:.0} k puts/s, {:.0} k compared puts/s",
            plain / 1e3,
            compared / 1e3
        );
    }
}

/// Transactions a second; making them is not counted.
fn timed(txns: usize, txn: impl Fn(usize) -> Txn, machine: &mut Machine) -> f64 {
    let mut spent = Duration::ZERO;
    let mut done = 0;
    while done < txns {
        let batch: Vec<Txn> = (done..done + 10_000).map(|number| txn(number * 7_919)).collect();
        done += batch.len();
        let start = Instant::now();
        for txn in batch {
            let _ = black_box(machine.apply(Command::Txn(txn), Duration::ZERO));
        }
        spent += start.elapsed();
    }
    done as f64 / spent.as_secs_f64()
}

/// The store on disk against a file that is appended to and synced as fast as it goes.
async fn disk(size: &Size) {
    let directory = tempfile::tempdir_in(".").unwrap();
    let mut file = File::create(directory.path().join("raw")).unwrap();
    for clients in [1, 16, 256] {
        // What one batch of so many commands holds, about.
        let record = vec![7; 20 + clients * 96];
        let start = Instant::now();
        let mut syncs = 0;
        while start.elapsed().as_secs_f64() < size.seconds {
            file.write_all(&record).unwrap();
            file.sync_data().unwrap();
            syncs += 1;
        }
        let raw = f64::from(syncs) * clients as f64 / start.elapsed().as_secs_f64();
        let path = directory.path().join(format!("store-{clients}"));
        let store = Embedded::open(path, Config::default(), TokioRuntime).unwrap();
        let (stop, count) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let start = Instant::now();
        let tasks: Vec<_> = (0..clients)
            .map(|client| {
                let (store, stop, count) = (store.clone(), Arc::clone(&stop), Arc::clone(&count));
                tokio::spawn(async move {
                    let mut number = client;
                    while !stop.load(Ordering::Relaxed) {
                        store.commit(put(number)).await.unwrap();
                        number += clients;
                        count.fetch_add(1, Ordering::Relaxed);
                    }
                })
            })
            .collect();
        tokio::time::sleep(Duration::from_secs_f64(size.seconds)).await;
        stop.store(true, Ordering::Relaxed);
        for task in tasks {
            task.await.unwrap();
        }
        let rate = count.load(Ordering::Relaxed) as f64 / start.elapsed().as_secs_f64();
        println!(
            "disk, {clients} clients: {rate:.0} puts/s; append and sync alone {raw:.0}/s, {:.2} x",
            raw / rate
        );
    }
}

async fn fill(size: &Size) -> Embedded {
    // A revision of 1,000 changes is more than one transaction holds by default.
    let limits = Limits { operations: 1_000, ..Limits::default() };
    let store = Embedded::new(Config { limits, ..Config::default() }, TokioRuntime);
    for first in (0..size.keys).step_by(100) {
        let puts = (first..first + 100).map(|number| Op::put(key(number), [7; 64].to_vec()));
        store.commit(Txn::new(puts.collect::<Vec<_>>())).await.unwrap();
    }
    store
}

type Decoded = Mirror<u64>;

async fn open(store: &Embedded) -> Decoded {
    let decode = |kv: &KeyValue| Ok(kv.value.len() as u64);
    let range = KeyRange::prefix("items/");
    Mirror::open(store.clone(), TokioRuntime, range, decode, Options::default()).await.unwrap()
}

async fn mirror(size: &Size) {
    let store = fill(size).await;
    let start = Instant::now();
    let mirror = open(&store).await;
    println!("mirror: {} keys loaded in {:.2?}", mirror.view().len(), start.elapsed());
    let bytes = {
        let store = store.clone();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let measure = move || {
            let mut held = None;
            let counted = allocation_counter::measure(|| {
                held = Some(runtime.block_on(open(&store)));
            });
            drop(held);
            counted.bytes_current
        };
        tokio::task::spawn_blocking(measure).await.unwrap()
    };
    // The keys, values and what the store says of them are those of the store itself; another
    // store would hold them here: two counted slices and seven words.
    let own = 2 * 16 + 16 + 8 * 9;
    println!(
        "mirror: {} bytes a key, and {own} where the store is not in the same process",
        bytes / i64::try_from(size.keys).unwrap(),
    );
    apply(size, &store, &mirror, 0).await;
    apply(size, &store, &mirror, 10).await;
}

/// Applies revisions of 1,000 changes each, while readers read.
async fn apply(size: &Size, store: &Embedded, mirror: &Decoded, readers: usize) {
    let stop = Arc::new(AtomicBool::new(false));
    let read = Arc::new(AtomicU64::new(0));
    let threads: Vec<_> = (0..readers)
        .map(|_| {
            let (mirror, stop, read) = (mirror.clone(), Arc::clone(&stop), Arc::clone(&read));
            std::thread::spawn(move || {
                let mut number = 0_usize;
                while !stop.load(Ordering::Relaxed) {
                    let view = mirror.view();
                    for _ in 0..10 {
                        black_box(view.value(key(number).as_bytes()));
                        number = (number + 7_919) % 20_000;
                    }
                    read.fetch_add(10, Ordering::Relaxed);
                    // A reader that spins would measure the two cores, not the mirror.
                    std::thread::sleep(Duration::from_micros(500));
                }
            })
        })
        .collect();
    let mut times = Vec::new();
    for round in 0..40 {
        let puts = (0..1_000).map(|at| {
            let number = (round * 1_000 + at) * 104_729 % size.keys;
            Op::put(key(number), [7; 64].to_vec())
        });
        let start = Instant::now();
        let done = store.commit(Txn::new(puts.collect::<Vec<_>>())).await;
        let committed = start.elapsed();
        let Ok(done) = done else { panic!("{done:?}") };
        mirror.wait(done.revision).await.unwrap();
        times.push((start.elapsed().saturating_sub(committed), committed));
    }
    stop.store(true, Ordering::Relaxed);
    for thread in threads {
        thread.join().unwrap();
    }
    times.sort();
    let (median, slowest) = (times[times.len() / 2].0, times[times.len() - 1].0);
    println!(
        "mirror, {readers} readers ({} readings): 1,000 changes shown {median:.2?} after the \
         commit, at most {slowest:.2?}; the commit took {:.2?}",
        read.load(Ordering::Relaxed),
        times[times.len() / 2].1,
    );
}

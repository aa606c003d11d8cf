//! The store: transactions of the machine beside those of bare maps, the store on disk beside the disk
//! and the store in memory, and a mirror of a million keys.

#![allow(clippy::unwrap_used, reason = "a bench may panic")]
#![allow(clippy::disallowed_methods, reason = "a bench reads the clock")]
#![allow(clippy::cast_precision_loss, reason = "figures for people")]

use std::{
    collections::{BTreeMap, HashMap},
    fs::File,
    hint::black_box,
    io::Write,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use raft_autopilot::{
    runtime::TokioRuntime,
    store::{
        Bytes, Compare, Embedded, KeyRange, KeyValue, LeaseId, Limits, Op, Relation, Store, Txn,
        machine::{Command, Config, Machine},
        mirror::{Mirror, Options},
    },
};

/// How much is done: little when cargo only tries the bench out.
struct Size {
    keys: usize,
    txns: usize,
    turns: usize,
    seconds: f64,
}

fn main() {
    let trial = std::env::args().any(|argument| argument == "--test");
    let size = if trial || !std::env::args().any(|argument| argument == "--bench") {
        Size { keys: 20_000, txns: 20_000, turns: 1, seconds: 0.1 }
    } else {
        Size { keys: 1_000_000, txns: 1_000_000, turns: 9, seconds: 1.0 }
    };
    // `cargo bench --bench store -- machine` runs that part alone.
    let parts = ["machine", "disk", "mirror"];
    let named: Vec<String> =
        std::env::args().filter(|argument| parts.contains(&&**argument)).collect();
    let wanted = |part: &str| named.is_empty() || named.iter().any(|named| named == part);
    if wanted("machine") {
        machine(&size);
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_time()
        .build()
        .unwrap();
    if wanted("disk") {
        runtime.block_on(disk(&size));
    }
    if wanted("mirror") {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(mirror(&size));
    }
}

/// Keys in an order of their own: 18 bytes.
fn key(number: usize) -> String {
    format!("items/{:012}", (number as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 24)
}

/// What is called a single-key transaction here: it puts one key with a value of 64 bytes.
fn put(number: usize) -> Txn {
    Txn::new([Op::put(key(number), [7; 64].to_vec())])
}

/// The same under the condition that the key stands.
fn compared_put(number: usize) -> Txn {
    let stands =
        Compare { relation: Relation::NotEqual, ..Compare::absent(KeyRange::key(key(number))) };
    let Txn { success, .. } = put(number);
    Txn::when([stands]).and_then(success)
}

/// The time that this thread has been on a processor, so that what else the machine does counts
/// less; on systems that do not tell it, the time by the clock.
fn spent() -> Duration {
    static START: OnceLock<Instant> = OnceLock::new();
    let told = std::fs::read_to_string("/proc/thread-self/schedstat").ok();
    let nanos = told.and_then(|told| told.split(' ').next()?.parse().ok());
    nanos.map_or_else(|| START.get_or_init(Instant::now).elapsed(), Duration::from_nanos)
}

/// Transactions on keys that stand, in an order in which no two near each other follow, once the
/// history is full: each of them has a revision forgotten, too.
fn machine(size: &Size) {
    for keys in [size.keys / 1_000, size.keys / 10, size.keys] {
        let mut machine = Machine::new(Config::default());
        for number in 0..keys {
            machine.apply(Command::Txn(put(number)), Duration::ZERO).unwrap();
        }
        let mut apply = |txn| machine.apply(Command::Txn(txn), Duration::ZERO);
        timed(Config::default().history_len, |number| put(number % keys), &mut apply);
        let plain = timed(size.txns, |number| put(number % keys), &mut apply);
        let compared = timed(size.txns, |number| compared_put(number % keys), &mut apply);
        drop(machine);
        let (tree, hash) = (BTreeMap::new(), HashMap::new());
        let tree = bare(keys, size.txns, tree, |map, kv| map.insert(kv.key.clone(), kv));
        let hash = bare(keys, size.txns, hash, |map, kv| map.insert(kv.key.clone(), kv));
        println!(
            "machine, {keys} keys: {:.0} k puts/s, {:.0} k compared puts/s; \
             bare maps that keep nothing of what was: BTreeMap {:.0} k/s, HashMap {:.0} k/s",
            plain / 1e3,
            compared / 1e3,
            tree / 1e3,
            hash / 1e3
        );
    }
}

/// The same puts to a map in the place of the machine.
fn bare<M>(
    keys: usize,
    puts: usize,
    mut map: M,
    insert: impl Fn(&mut M, Arc<KeyValue>) -> Option<Arc<KeyValue>>,
) -> f64 {
    let entry = |number: usize| (Bytes::from(key(number % keys)), Bytes::from(vec![7; 64]));
    let mut put = |(key, value)| {
        let (create_revision, mod_revision, version, lease) = (1, 1, 1, LeaseId::NONE);
        let kv = KeyValue { key, value, create_revision, mod_revision, version, lease };
        insert(&mut map, Arc::new(kv))
    };
    for number in 0..keys {
        put(entry(number));
    }
    timed(puts, entry, &mut put)
}

/// Puts a second, of the median of batches so short that other programs seldom come between.
/// Making them is not counted, and each is still where it was made, as one that has just come in.
fn timed<T, D>(puts: usize, make: impl Fn(usize) -> T, mut put: impl FnMut(T) -> D) -> f64 {
    const BATCH: usize = 100;
    let mut took = Vec::new();
    for first in (0..puts).step_by(BATCH) {
        let batch: Vec<T> = (first..first + BATCH).map(|number| make(number * 7_919)).collect();
        let start = Instant::now();
        for one in batch {
            drop(black_box(put(one)));
        }
        took.push(start.elapsed());
    }
    took.sort();
    BATCH as f64 / took[took.len() / 2].as_secs_f64()
}

/// The store on disk against a file that is appended to and synced as fast as it goes, with as
/// much at once as the commands of all clients; and against the same store without a disk.
async fn disk(size: &Size) {
    let directory = tempfile::tempdir_in(".").unwrap();
    for clients in [1, 16, 256] {
        let mut file = File::create(directory.path().join("raw")).unwrap();
        let path = directory.path().join(format!("store-{clients}"));
        let store = Embedded::open(path, Config::default(), TokioRuntime).unwrap();
        let memory = Embedded::new(Config::default(), TokioRuntime);
        // Taking turns, so that all meet the same disk and the same neighbours.
        let mut turns = Vec::new();
        for _ in 0..size.turns {
            let raw = append(&mut file, clients, size.seconds);
            let ours = commit(&store, clients, size.seconds).await;
            let memory = commit(&memory, clients, size.seconds).await;
            turns.push((raw / ours, raw, ours, memory));
        }
        turns.sort_by(|a, b| a.0.total_cmp(&b.0));
        let (ratio, raw, ours, memory) = turns[turns.len() / 2];
        println!(
            "disk, {clients} clients: {ours:.0} puts/s; append and sync alone {raw:.0}/s; \
             {ratio:.2} x its time (median of {}, {:.2} to {:.2}); in memory {memory:.0} puts/s",
            size.turns,
            turns[0].0,
            turns[turns.len() - 1].0,
        );
    }
}

/// Puts a second, where a batch of so many commands is appended and synced.
fn append(file: &mut File, clients: usize, seconds: f64) -> f64 {
    let record = vec![7; 20 + clients * 96];
    let start = Instant::now();
    let mut puts = 0;
    while start.elapsed().as_secs_f64() < seconds {
        file.write_all(&record).unwrap();
        file.sync_data().unwrap();
        puts += clients;
    }
    puts as f64 / start.elapsed().as_secs_f64()
}

/// Puts a second, of clients who each wait for an answer before they put again.
async fn commit(store: &Embedded, clients: usize, seconds: f64) -> f64 {
    let (stop, start) = (Arc::new(AtomicBool::new(false)), Instant::now());
    let tasks: Vec<_> = (0..clients)
        .map(|client| {
            let (store, stop) = (store.clone(), Arc::clone(&stop));
            tokio::spawn(async move {
                let mut puts = 0;
                while !stop.load(Ordering::Relaxed) {
                    store.commit(put(client + puts * clients)).await.unwrap();
                    puts += 1;
                }
                puts
            })
        })
        .collect();
    tokio::time::sleep(Duration::from_secs_f64(seconds)).await;
    stop.store(true, Ordering::Relaxed);
    let mut puts = 0;
    for task in tasks {
        puts += task.await.unwrap();
    }
    puts as f64 / start.elapsed().as_secs_f64()
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

/// On a runtime of one thread, so that what the mirror does is all on it.
async fn mirror(size: &Size) {
    let store = fill(size).await;
    let (start, before) = (Instant::now(), spent());
    let mirror = open(&store).await;
    println!(
        "mirror: {} keys loaded in {:.2?} of its thread, {:.2?} by the clock",
        mirror.view().len(),
        spent().saturating_sub(before),
        start.elapsed()
    );
    // Another thread, or the measuring would count what the store does.
    let other = store.clone();
    let measure = move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let mut held = None;
        let counted = allocation_counter::measure(|| held = Some(runtime.block_on(open(&other))));
        drop(held);
        counted.bytes_current
    };
    let bytes = std::thread::spawn(measure).join().unwrap();
    // The entries' keys, values and revisions are those of the store itself; another store would
    // have its own here.
    let own = 16 + size_of::<KeyValue>() as u64;
    println!(
        "mirror: {} bytes a key beside keys and values; {} where the store is not in the same \
         process",
        bytes / i64::try_from(size.keys).unwrap(),
        bytes / i64::try_from(size.keys).unwrap() + i64::try_from(own).unwrap(),
    );
    let mut costs = [Vec::new(), Vec::new()];
    for round in 0..40 {
        // Taking turns, so that both meet the same neighbours.
        for (cost, readers) in costs.iter_mut().zip([0, 10]) {
            cost.push(apply(size, &store, &mirror, round, readers).await);
        }
    }
    for (cost, readers) in costs.into_iter().zip([0, 10]) {
        let mean = |of: fn(&Cost) -> Duration| cost.iter().map(of).sum::<Duration>() / 40;
        let mut shown: Vec<Duration> = cost.iter().flat_map(|cost| cost.shown.clone()).collect();
        shown.sort();
        println!(
            "mirror, {readers} readers ({} readings): 1,000 changes applied and shown in {:.2?} \
             of its thread, {:.2?} by the clock (median; {:.2?} the quickest quarter); clearing up \
             after it took {:.2?} of its thread, their commit {:.2?}",
            cost.iter().map(|cost| cost.readings).sum::<u64>(),
            mean(|cost| cost.applied),
            shown[shown.len() / 2],
            shown[shown.len() / 4],
            mean(|cost| cost.cleared),
            mean(|cost| cost.committed),
        );
    }
}

/// What one revision cost.
#[derive(Default)]
struct Cost {
    committed: Duration,
    applied: Duration,
    /// The view before is dropped after those who wait were served.
    cleared: Duration,
    /// By the clock, each of them.
    shown: Vec<Duration>,
    readings: u64,
}

/// Applies ten revisions of 1,000 changes each, while readers read; returns the mean.
async fn apply(
    size: &Size,
    store: &Embedded,
    mirror: &Decoded,
    round: usize,
    readers: usize,
) -> Cost {
    let stop = Arc::new(AtomicBool::new(false));
    let readers: Vec<_> = (0..readers)
        .map(|_| {
            let (mirror, stop) = (mirror.clone(), Arc::clone(&stop));
            std::thread::spawn(move || read(&mirror, &stop))
        })
        .collect();
    let mut cost = Cost::default();
    for turn in 0..10 {
        let puts = (0..1_000).map(|at| {
            let number = ((round * 10 + turn) * 1_000 + at) * 104_729 % size.keys;
            Op::put(key(number), [7; 64].to_vec())
        });
        let txn = Txn::new(puts.collect::<Vec<_>>());
        let before = spent();
        let done = store.commit(txn).await.unwrap();
        let (committed, start) = (spent(), Instant::now());
        mirror.wait(done.revision).await.unwrap();
        cost.shown.push(start.elapsed());
        let applied = spent();
        for _ in 0..10 {
            tokio::task::yield_now().await;
        }
        cost.cleared += spent().saturating_sub(applied) / 10;
        cost.applied += applied.saturating_sub(committed) / 10;
        cost.committed += committed.saturating_sub(before) / 10;
    }
    stop.store(true, Ordering::Relaxed);
    cost.readings = readers.into_iter().map(|reader| reader.join().unwrap()).sum();
    cost
}

fn read(mirror: &Decoded, stop: &AtomicBool) -> u64 {
    let (mut number, mut readings) = (0_usize, 0);
    while !stop.load(Ordering::Relaxed) {
        let view = mirror.view();
        for _ in 0..10 {
            black_box(view.value(key(number).as_bytes()));
            number = (number + 7_919) % 20_000;
        }
        readings += 10;
        // A reader that spins would measure the two cores, not the mirror.
        std::thread::sleep(Duration::from_micros(500));
    }
    readings
}

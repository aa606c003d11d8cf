//! The embedded store on disk: what was answered survives every crash, and damage is found.

#![allow(clippy::unwrap_used, reason = "a test may panic")]
#![allow(clippy::cast_possible_truncation, reason = "the numbers of a test are small")]
#![allow(clippy::disallowed_methods, reason = "a test runs on tokio")]

use std::{
    fs,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use proptest::prelude::*;
use raft_autopilot::{
    runtime::TokioRuntime,
    store::{
        Compare, Embedded, KeyRange, LeaseId, Limits, Op, OpenError, RangeRequest, Refusal, Store,
        StoreError, Txn, Watch, machine::Config,
    },
};

fn open(path: &Path) -> Result<Embedded, OpenError> {
    Embedded::open(path, Config::default(), TokioRuntime)
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.unwrap().block_on(future)
}

async fn contents(store: &Embedded) -> Vec<(String, String, u64)> {
    let found = store.range(RangeRequest::new(KeyRange::all())).await.unwrap();
    let text = |kv: &raft_autopilot::store::KeyValue| {
        (kv.key.to_string(), kv.value.to_string(), kv.mod_revision)
    };
    found.items.iter().map(|kv| text(kv)).collect()
}

fn file(path: &Path, kind: &str) -> PathBuf {
    let mut found: Vec<PathBuf> = fs::read_dir(path)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.file_name().unwrap().to_str().unwrap().starts_with(kind))
        .collect();
    found.sort();
    found.pop().unwrap()
}

#[tokio::test]
async fn a_store_goes_on_where_it_was() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path()).unwrap();
    let lease = store.grant(Duration::from_secs(600), None).await.unwrap().id;
    let put = Op::put_leased("leased", "1", lease);
    let first = store.commit(Txn::new([put, Op::put("a", "1")])).await.unwrap().revision;
    store.commit(Txn::new([Op::delete("a")])).await.unwrap();
    store.commit(Txn::new([Op::put("a", "2")])).await.unwrap();
    let before = contents(&store).await;
    drop(store);
    let store = open(directory.path()).unwrap();
    assert_eq!((store.recovered().commands, store.recovered().torn), (4, 0));
    assert_eq!(contents(&store).await, before);
    // So does its history, and so do its leases.
    let old = store.range(RangeRequest::new(KeyRange::key("a")).at(first)).await.unwrap();
    assert_eq!(&*old.items[0].value, b"1");
    let mut watch = store.watch(KeyRange::all(), first + 1).await.unwrap();
    assert!(watch.next().await.is_ok());
    let state = store.time_to_live(lease).await.unwrap();
    assert!(state.remaining > Duration::from_secs(500) && state.remaining <= state.ttl);
    store.revoke(lease).await.unwrap();
    assert_eq!(contents(&store).await.len(), 1);
}

#[tokio::test]
async fn a_directory_belongs_to_one_store() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path()).unwrap();
    assert!(matches!(open(directory.path()), Err(OpenError::InUse(_))));
    drop(store);
    drop(open(directory.path()).unwrap());
    let limits = Limits { bytes: 100 << 20, ..Limits::default() };
    let config = Config { limits, ..Config::default() };
    let large = Embedded::open(directory.path(), config, TokioRuntime);
    assert!(matches!(large, Err(OpenError::Limit { .. })));
}

#[tokio::test]
async fn a_lease_that_is_just_ending_does_not_keep_its_directory() {
    let directory = tempfile::tempdir().unwrap();
    for round in 0..20 {
        let store = open(directory.path()).unwrap();
        store.grant(Duration::from_micros(1), None).await.unwrap();
        // Its end is on its way to the disk when the last handle is dropped.
        for _ in 0..round % 4 {
            tokio::task::yield_now().await;
        }
        drop(store);
    }
}

#[tokio::test]
async fn a_lease_ends_in_its_time_though_nobody_waited_for_its_grant() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path()).unwrap();
    let (id, ttl) = (LeaseId(7), Duration::from_secs(1));
    {
        let grant = std::pin::pin!(store.grant(ttl, Some(id)));
        assert!(futures_util::poll!(grant).is_pending());
    }
    let put = Txn::new([Op::put_leased("leased", "", id)]);
    store.commit(put).await.unwrap();
    // Any command would end it, so nobody sends one.
    tokio::time::timeout(Duration::from_secs(60), async {
        while !contents(&store).await.is_empty() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn a_watch_ends_with_its_store() {
    let directory = tempfile::tempdir().unwrap();
    for store in [open(directory.path()).unwrap(), Embedded::new(Config::default(), TokioRuntime)] {
        let mut watch = store.watch(KeyRange::all(), 0).await.unwrap();
        drop(store);
        let end = watch.next().await;
        assert!(matches!(end, Err(StoreError::Refused(Refusal::Closed(_)))), "{end:?}");
    }
}

#[tokio::test]
async fn a_long_log_becomes_a_snapshot() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path()).unwrap();
    let value = vec![7; 1 << 20];
    for number in 0..150 {
        let key = format!("{}", number % 20);
        store.commit(Txn::new([Op::put(key, value.clone())])).await.unwrap();
        if number % 50 == 0 {
            let revision = store.commit(Txn::default()).await.unwrap().revision;
            store.compact(revision).await.unwrap();
        }
    }
    store.commit(Txn::new([Op::put("last", "1")])).await.unwrap();
    let before = contents(&store).await;
    while !fs::read_dir(directory.path()).unwrap().any(|entry| {
        let name = entry.unwrap().file_name();
        name.to_str().unwrap().starts_with("snapshot-")
    }) {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    drop(store);
    let store = open(directory.path()).unwrap();
    assert!(store.recovered().commands < 153, "{:?}", store.recovered());
    assert_eq!(contents(&store).await, before);
    drop(store);
    // A snapshot is checked like a log.
    let snapshot = file(directory.path(), "snapshot-");
    let whole = fs::read(&snapshot).unwrap();
    for damaged in [&whole[..whole.len() - 1], &whole[..whole.len() / 2], &[]] {
        fs::write(&snapshot, damaged).unwrap();
        assert!(matches!(open(directory.path()), Err(OpenError::Damaged { .. })));
    }
    let mut damaged = whole.clone();
    damaged[5_000_000] ^= 1;
    fs::write(&snapshot, damaged).unwrap();
    assert!(matches!(open(directory.path()), Err(OpenError::Damaged { .. })));
    fs::write(&snapshot, whole).unwrap();
    let log = file(directory.path(), "log-");
    fs::remove_file(log).unwrap();
    assert!(matches!(open(directory.path()), Err(OpenError::Damaged { .. })));
}

fn config(operations: usize, history_len: usize) -> Config {
    let limits = Limits { operations, ..Limits::default() };
    Config { limits, history_len, ..Config::default() }
}

/// Reads what stood at a revision, and puts a key: refused where that is forgotten.
fn put_after_reading(key: &str, revision: u64) -> Txn {
    Txn::new([Op::Range(RangeRequest::new(KeyRange::all()).at(revision)), Op::put(key, "")])
}

#[tokio::test]
async fn another_configuration_neither_undoes_nor_does_what_was_done_before_it() {
    let directory = tempfile::tempdir().unwrap();
    let open = |config| Embedded::open(directory.path(), config, TokioRuntime).unwrap();
    let remembers = open(config(128, 100));
    for key in ["a", "b", "c", "d", "e"] {
        remembers.commit(Txn::new([Op::put(key, "")])).await.unwrap();
    }
    remembers.commit(put_after_reading("f", 2)).await.unwrap();
    remembers.commit(Txn::new([Op::put("g", ""), Op::put("h", "")])).await.unwrap();
    let stood = contents(&remembers).await;
    assert_eq!(stood.len(), 8);
    drop(remembers);
    // What was done when more was remembered, and taken, stays done.
    let forgets = open(config(1, 2));
    assert_eq!(contents(&forgets).await, stood);
    assert_eq!(forgets.limits().operations, 1);
    let large = forgets.commit(Txn::new([Op::put("i", ""), Op::put("j", "")])).await;
    assert!(matches!(large, Err(StoreError::Refused(Refusal::TooManyOperations { .. }))));
    drop(forgets);
    let forgets = open(config(2, 2));
    let refused = forgets.commit(put_after_reading("i", 3)).await;
    assert!(matches!(refused, Err(StoreError::Refused(Refusal::Compacted { .. }))), "{refused:?}");
    drop(forgets);
    // What was refused when less was remembered stays refused.
    let remembers = open(config(128, 100));
    assert_eq!(contents(&remembers).await, stood);
    remembers
        .commit(Txn::new([Op::put("k", ""), Op::put("l", ""), Op::put("m", "")]))
        .await
        .unwrap();
    let stood = contents(&remembers).await;
    drop(remembers);
    assert_eq!(contents(&open(config(128, 100))).await, stood);
}

/// The files of a directory, copied into another one.
fn copy(from: &Path, names: &[&str]) -> tempfile::TempDir {
    let to = tempfile::tempdir().unwrap();
    for name in names {
        fs::copy(from.join(name), to.path().join(name)).unwrap();
    }
    to
}

#[tokio::test]
async fn every_state_between_a_log_and_its_snapshot_is_read() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    let store = open(path).unwrap();
    // The first log outlives the snapshot that makes it superfluous.
    fs::hard_link(path.join("log-0000000000000000"), path.join("first")).unwrap();
    let mut number = 0;
    let exists = |kind: &str| {
        fs::read_dir(path).unwrap().map(|entry| entry.unwrap().file_name()).find(|name| {
            let name = name.to_str().unwrap();
            name.starts_with(kind) && name != "log-0000000000000000"
        })
    };
    let mut stood = Vec::new();
    while exists("log-").is_none() {
        stood.push(contents(&store).await);
        let put = Op::put(format!("{}", number % 5), vec![number; 1 << 20]);
        store.commit(Txn::new([put])).await.unwrap();
        number += 1;
    }
    while exists("snapshot-").is_none() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    stood.push(contents(&store).await);
    // The log is changed after it was answered, so the last one may be in either.
    let first = fs::metadata(path.join("first")).unwrap().len();
    let rotated = &stood[usize::try_from(first >> 20).unwrap()];
    store.commit(Txn::new([Op::put("last", "1")])).await.unwrap();
    let all = contents(&store).await;
    drop(store);
    let log = exists("log-").unwrap().into_string().unwrap();
    let snapshot = exists("snapshot-").unwrap().into_string().unwrap();
    fs::rename(path.join("first"), path.join("log-0000000000000000")).unwrap();
    let first = "log-0000000000000000";
    let read = |names: &[&str], change: &dyn Fn(&Path)| {
        let copy = copy(path, names);
        change(copy.path());
        let store = open(copy.path())?;
        Ok::<_, OpenError>(block_on_here(contents(&store)))
    };
    let none: &dyn Fn(&Path) = &|_| {};
    // The next log is there, and nothing was written into it; the closing record of the first one
    // is there, or not, or a part of it.
    let len = fs::metadata(path.join(first)).unwrap().len();
    for cut in 0..30 {
        let change = |path: &Path| {
            fs::write(path.join(&log), "").unwrap();
            let file = fs::OpenOptions::new().write(true).open(path.join(first)).unwrap();
            file.set_len(len - cut).unwrap();
        };
        let found = read(&[first, &log], &change);
        match found {
            Ok(found) => assert!(found == *rotated, "{cut} bytes less"),
            // That is more than the closing record.
            Err(error) => assert!(cut > 20, "{cut} bytes less: {error}"),
        }
    }
    assert_eq!(read(&[first, &log], none).unwrap(), all);
    // A snapshot that was not finished counts for nothing.
    let part = |path: &Path| {
        let whole = fs::read(path.join(&snapshot)).unwrap();
        fs::remove_file(path.join(&snapshot)).unwrap();
        fs::write(path.join("snapshot.part"), &whole[..whole.len() / 2]).unwrap();
    };
    assert_eq!(read(&[first, &log, &snapshot], &part).unwrap(), all);
    assert_eq!(read(&[first, &log, &snapshot], none).unwrap(), all);
    assert_eq!(read(&[&log, &snapshot], none).unwrap(), all);
    // What is missing is missed.
    for names in [&[first][..], &[&log], &[&snapshot], &[first, &snapshot]] {
        let error = read(names, none).unwrap_err();
        assert!(matches!(error, OpenError::Damaged { .. }), "{names:?}: {error}");
        assert!(error.to_string().contains("missing"), "{names:?}: {error}");
    }
}

/// Polls a future that is ready at once.
fn block_on_here<T>(future: impl Future<Output = T>) -> T {
    use futures_util::FutureExt;
    future.now_or_never().unwrap()
}

/// Not a test of its own: the process that the next test kills.
#[tokio::test]
async fn a_writer_to_be_killed() {
    let Ok(path) = std::env::var("STORE_TO_BE_KILLED") else { return };
    let store = open(Path::new(&path)).unwrap();
    let mut next = store.commit(Txn::default()).await.unwrap().revision + 1;
    loop {
        // Several at once, so that they share a sync.
        let writes = (next..next + 5).map(|number| {
            let put = [Op::put(format!("{number:09}"), "x".repeat(number as usize % 3_000))];
            let created = [Compare::absent(KeyRange::key(format!("{number:09}")))];
            store.commit(Txn::when(created).and_then(put))
        });
        for done in futures_util::future::join_all(writes).await {
            println!("wrote {}", done.unwrap().revision);
        }
        next += 5;
    }
}

/// Not a test of its own: the process that the test after the next kills.
#[tokio::test]
async fn a_writer_of_snapshots_to_be_killed() {
    let Ok(path) = std::env::var("STORE_OF_SNAPSHOTS") else { return };
    let store = open(Path::new(&path)).unwrap();
    let mut next = store.commit(Txn::default()).await.unwrap().revision + 1;
    loop {
        let mut value = next.to_string().into_bytes();
        value.resize(500_000, b'.');
        let put = Op::put(format!("{:02}", next % 20), value);
        println!("wrote {}", store.commit(Txn::new([put])).await.unwrap().revision);
        if next % 50 == 0 {
            store.compact(next - 1).await.unwrap();
        }
        next += 1;
    }
}

#[test]
fn what_was_answered_survives_kill_9_while_snapshots_are_written() {
    let directory = tempfile::tempdir().unwrap();
    let mut snapshots = 0;
    // The first snapshot comes after some 135 changes.
    for (round, enough) in [120, 20, 3, 140, 10, 1, 150, 2].into_iter().enumerate() {
        let test = "a_writer_of_snapshots_to_be_killed";
        let answered = kill_after(test, "STORE_OF_SNAPSHOTS", directory.path(), enough);
        snapshots += usize::from(directory.path().join("snapshot.part").exists());
        block_on(async {
            let store = open(directory.path()).unwrap();
            let found = contents(&store).await;
            let revision = store.commit(Txn::default()).await.unwrap().revision;
            assert!(revision >= answered, "{answered} was answered, {revision} found");
            let latest: Vec<u64> = found.iter().map(|(_, _, revision)| *revision).collect();
            let mut expected: Vec<u64> = (2..=revision).rev().take(20).collect();
            expected.sort_by_key(|revision| revision % 20);
            assert_eq!(latest, expected, "round {round}");
            assert!(found.iter().all(|(_, value, revision)| {
                value.trim_end_matches('.') == revision.to_string()
            }));
        });
    }
    println!("{snapshots} snapshots were cut short");
}

/// Kills the process of a test once it has said so often what it wrote; returns the last of that.
fn kill_after(test: &str, variable: &str, directory: &Path, enough: u64) -> u64 {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture"])
        .env(variable, directory)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let (mut answered, mut count) = (0, 0);
    for line in BufReader::new(child.stdout.take().unwrap()).lines() {
        let line = line.unwrap_or_default();
        if let Some((_, number)) = line.split_once("wrote ") {
            answered = number.parse().unwrap_or(answered);
            count += 1;
            if count == enough {
                child.kill().unwrap();
            }
        }
    }
    child.wait().unwrap();
    assert!(count >= enough, "{test} ended by itself");
    answered
}

#[test]
fn what_was_answered_survives_kill_9() {
    let directory = tempfile::tempdir().unwrap();
    let mut seed = 7_u64;
    for _ in 0..25 {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let enough = 1 + (seed >> 33) % 200;
        let test = "a_writer_to_be_killed";
        let answered = kill_after(test, "STORE_TO_BE_KILLED", directory.path(), enough);
        block_on(async {
            let store = open(directory.path()).unwrap();
            let found = contents(&store).await;
            let revision = store.commit(Txn::default()).await.unwrap().revision;
            assert!(revision >= answered, "{answered} was answered, {revision} found");
            // One key a revision, whole and in order: nothing in between is missing.
            assert!(found.iter().map(|(_, _, revision)| *revision).eq(2..=revision));
            assert!(found.iter().all(|(key, value, revision)| {
                *key == format!("{revision:09}") && value.len() == *revision as usize % 3_000
            }));
        });
    }
}

/// A log of some commands, one sync each, and how long it was after each of them.
fn a_log() -> (Vec<u8>, Vec<usize>) {
    let directory = tempfile::tempdir().unwrap();
    block_on(async {
        let store = open(directory.path()).unwrap();
        let log = file(directory.path(), "log-");
        let mut ends = vec![0];
        for number in 0..12 {
            let value = vec![number; usize::from(number) * 9];
            store.commit(Txn::new([Op::put(format!("{number:02}"), value)])).await.unwrap();
            ends.push(fs::metadata(&log).unwrap().len() as usize);
        }
        drop(store);
        (fs::read(log).unwrap(), ends)
    })
}

/// What a store makes of a log: how many commands of it, or that it is damaged.
fn read_log(log: &[u8]) -> Result<usize, String> {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("log-0000000000000000"), log).unwrap();
    block_on(async {
        match open(directory.path()) {
            Ok(store) => {
                let found = contents(&store).await;
                assert!(found.iter().enumerate().all(|(at, kv)| kv.0 == format!("{at:02}")));
                assert_eq!(store.recovered().commands, found.len() as u64);
                // It goes on from there.
                store.commit(Txn::new([Op::put("99", "")])).await.unwrap();
                drop(store);
                let again = contents(&open(directory.path()).unwrap()).await;
                assert_eq!(again.len(), found.len() + 1);
                Ok(found.len())
            }
            Err(error @ OpenError::Damaged { .. }) => {
                let kept = fs::read(directory.path().join("log-0000000000000000")).unwrap();
                assert_eq!(kept, log, "what is damaged is left as it is");
                Err(error.to_string())
            }
            Err(error) => panic!("{error}"),
        }
    })
}

#[test]
fn a_torn_end_is_cut_off_and_nothing_before_it() {
    let (log, ends) = a_log();
    for cut in 0..=log.len() {
        let whole = ends.iter().rposition(|end| *end <= cut).unwrap();
        assert_eq!(read_log(&log[..cut]), Ok(whole), "cut at {cut}");
    }
    // Space that was given to the file and never written.
    let zeros = [&log[..], &[0; 5_000]].concat();
    assert_eq!(read_log(&zeros), Ok(12));
}

#[test]
fn every_changed_byte_is_found() {
    let (log, _) = a_log();
    for at in 0..log.len() {
        let mut damaged = log.clone();
        damaged[at] ^= 1 << (at % 8);
        assert!(read_log(&damaged).is_err(), "byte {at}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn random_damage_is_an_error_or_a_torn_end(
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..9),
        cut in any::<prop::sample::Index>(),
        tail in proptest::collection::vec(any::<u8>(), 0..40),
    ) {
        let (log, ends) = a_log();
        let mut damaged = log.clone();
        for (at, byte) in changes {
            let at = at.index(log.len());
            damaged[at] = byte;
        }
        damaged.truncate(cut.index(log.len() * 2));
        let sound = log.iter().zip(&damaged).take_while(|(a, b)| a == b).count();
        let whole = ends.iter().rposition(|end| *end <= sound).unwrap();
        if damaged.len() == log.len() {
            damaged.extend(tail);
        }
        if let Ok(found) = read_log(&damaged) {
            // Nothing that checks is given up, and what follows it was never whole.
            prop_assert_eq!(found, whole);
            prop_assert!(damaged.len() < ends.get(whole + 1).copied().unwrap_or(log.len() + 40));
        }
    }

    #[test]
    fn foreign_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let _ = read_log(&bytes);
    }
}

//! Files by libFuzzer: a store in a directory of any bytes opens and goes on, or says what is damaged.

#![no_main]

use std::{fs, path::Path};

use libfuzzer_sys::fuzz_target;
use raft_autopilot::{
    codec,
    runtime::TokioRuntime,
    store::{Embedded, KeyRange, Op, OpenError, RangeRequest, Store, Txn, machine::Config},
};

/// A record whose checksums are right, whatever is in it; it takes most bytes further than chance
/// would.
fn record(sequence: u64, payload: &[u8]) -> Vec<u8> {
    let len = |bytes: &[u8]| u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_le_bytes();
    let body = [&[codec::VERSION][..], &len(payload), payload].concat();
    let sum = crc32fast::hash(&body).to_le_bytes();
    let head = [&len(&body)[..], &sum, &sequence.to_le_bytes()].concat();
    [&head[..], &crc32fast::hash(&head).to_le_bytes(), &body].concat()
}

/// Records of as many payloads as the bytes name: a length and a step of the sequence before each.
fn records(mut bytes: &[u8]) -> Vec<u8> {
    let (mut sequence, mut all) = (0, Vec::new());
    while let Some(([len, step], rest)) = bytes.split_first_chunk() {
        let (payload, rest) = rest.split_at(usize::from(*len).min(rest.len()));
        all.extend(record(sequence, payload));
        sequence += u64::from(*step);
        bytes = rest;
    }
    all
}

fn open(path: &Path) -> Option<Embedded> {
    match Embedded::open(path, Config::default(), TokioRuntime) {
        Ok(store) => Some(store),
        Err(OpenError::Damaged { .. }) => None,
        Err(error) => panic!("{error}"),
    }
}

fuzz_target!(|bytes: &[u8]| {
    let Some((kind, bytes)) = bytes.split_first() else { return };
    let directory = tempfile::tempdir().expect("a directory");
    let name = ["log", "snapshot"][usize::from(kind & 1)];
    let file = directory.path().join(format!("{name}-{:016x}", 0));
    let content = if kind & 2 == 0 { bytes.to_vec() } else { records(bytes) };
    fs::write(&file, &content).expect("it is written");
    if kind & 1 == 1 {
        fs::write(directory.path().join(format!("log-{:016x}", 0)), "").expect("it is written");
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime").block_on(async {
        let Some(store) = open(directory.path()) else {
            assert!(fs::read(&file).expect("it is there") == content, "it was changed");
            return;
        };
        let all = || RangeRequest::new(KeyRange::all());
        let put = Txn::new([Op::put("another", "")]);
        let Ok(done) = store.commit(put).await else { return };
        let before = store.range(all()).await.expect("it is read");
        drop(store);
        // Leases that have ended meanwhile are all that may be missing.
        let store = open(directory.path()).expect("it was whole");
        let after = store.range(all()).await.expect("it is read");
        assert!(after.revision >= done.revision);
        let left: Vec<_> = before.items.iter().filter(|kv| after.items.contains(kv)).collect();
        assert!(left.iter().copied().eq(&after.items), "what stands has come from nowhere");
        let kept = |kv: &&_| after.items.contains(kv);
        assert!(before.items.iter().filter(|kv| kv.lease.0 == 0).all(|kv| kept(&kv)));
    });
});

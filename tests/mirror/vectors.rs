//! The vectors of the reference's mirror: ranges, what is told amiss, and what is told after a reading.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use raft_autopilot::store::{
    Bytes, Event, Events, KeyRange, KeyValue, LeaseId, Op, Store, Txn,
    mirror::{Entry, Mirror},
};

use super::{faulty, mirror, options};

/// The keys of a view, with the last value of each that decoded.
fn values(mirror: &Mirror<String>) -> String {
    let view = mirror.view();
    let value = |entry: &Arc<Entry<String>>| {
        entry.value.as_ref().map_or("none".to_owned(), ToString::to_string)
    };
    let all = view.iter().map(|(key, entry)| format!("{key}={}", value(entry)));
    all.collect::<Vec<_>>().join(" ")
}

#[tokio::test(start_paused = true)]
async fn ranges_and_prefixes_are_those_of_a_sorted_list() {
    let store = faulty();
    let keys = ["", "aaa", "aaa/1", "aaa/3", "bbb/a", "bbb/c", "ccc", "ccc/apple", "ccc/apple/one"];
    for key in keys.into_iter().chain(["ccc/banana"]) {
        store.put(&format!("in/{key}"), "").await;
    }
    let view = mirror(&store, options()).await.unwrap().view();
    let all: Vec<Bytes> = view.iter().map(|(key, _)| key.clone()).collect();
    // From which of the keys to before which a range goes.
    let found = |range: KeyRange| {
        let found: Vec<Bytes> = view.range(&range).map(|(key, _)| key.clone()).collect();
        let from = all.iter().position(|key| Some(key) == found.first()).unwrap_or(0);
        assert_eq!(found[..], all[from..from + found.len()]);
        (from, from + found.len())
    };
    for (from, to, expected) in [
        ("in", "in/", (0, 0)),
        ("in/", "in0", (0, 10)),
        ("in/aaa/2", "in/bbb/b", (3, 5)),
        ("in/bbb/a", "in/bbb/b", (4, 5)),
        ("in/bbb/c", "in/ccc/apple/one", (5, 8)),
        ("in/bbb/c", "in/ccc/banana", (5, 9)),
        ("in/bbb/c", "in/ccc/bananaz", (5, 10)),
        ("in/ddd", "zz", (0, 0)),
        ("in/ccc", "in/aaa", (0, 0)),
    ] {
        assert_eq!(found(KeyRange::span(from, to)), expected, "from {from} to {to}");
    }
    for (prefix, expected) in [
        ("in/", (0, 10)),
        ("in/d", (0, 0)),
        ("in/aaa", (1, 4)),
        ("in/aaa/", (2, 4)),
        ("in/bb", (4, 6)),
        ("in/ccc", (6, 10)),
        ("in/cccc", (0, 0)),
    ] {
        assert_eq!(found(KeyRange::prefix(prefix)), expected, "{prefix}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_bad_or_was_told_before_changes_nothing_else() {
    let event = |key: &str, value: &str, (create, revision, version)| {
        let kv = KeyValue {
            key: format!("in/{key}").into(),
            value: value.into(),
            create_revision: create,
            mod_revision: revision,
            version,
            lease: LeaseId::NONE,
        };
        Events { revision, events: vec![Event::Put(kv.into())] }
    };
    let gone = |key: &str, revision| Events {
        revision,
        events: vec![Event::Delete(format!("in/{key}").into())],
    };
    let store = faulty();
    // Revisions that this store, which is empty, never had.
    store.faults.lock().unwrap().told = VecDeque::from([
        gone("not-here", 2),
        event("aaaa", "1111", (3, 3, 1)),
        event("aaaa", "2222", (3, 4, 2)),
        // Another life, whose beginning was missed; an earlier version that was; and both.
        event("aaaa", "4444", (5, 5, 1)),
        event("bbbb", "5555", (3, 6, 2)),
        event("cccc", "6666", (7, 7, 2)),
        event("cccc", "7777", (7, 8, 4)),
        // It was told before.
        event("cccc", "0", (7, 7, 5)),
        event("dddd", "8888", (9, 9, 1)),
        gone("dddd", 10),
        event("eeee", "9999", (11, 11, 1)),
        gone("eeee", 10),
        gone("ffff", 12),
        event("gggg", "!", (13, 13, 1)),
        event("eeee", "!", (11, 14, 2)),
    ]);
    let mirror = mirror(&store, options()).await.unwrap();
    let view = mirror.wait(14).await.unwrap();
    let expected = "in/aaaa=4444 in/bbbb=5555 in/cccc=7777 in/eeee=9999 in/gggg=none";
    assert_eq!(values(&mirror), expected);
    assert_eq!(view.undecoded().count(), 2);
}

#[tokio::test(start_paused = true)]
async fn what_was_read_and_what_is_told_after_it_are_one() {
    let store = faulty();
    for (key, value) in [("one", "1"), ("foo", "!bad"), ("three", "3")] {
        store.put(&format!("in/{key}"), value).await;
    }
    let mirror = mirror(&store, options()).await.unwrap();
    let mut changes = mirror.changes();
    assert_eq!(values(&mirror), "in/foo=none in/one=1 in/three=3");
    let ops = [
        Op::put("in/raced", "999"),
        Op::put("in/two", "2"),
        Op::put("in/bar", "!bad"),
        Op::delete("in/one"),
        Op::put("in/three", "4"),
        Op::put("in/foo", "5"),
    ];
    let done = store.commit(Txn::new(ops)).await.unwrap();
    mirror.wait(done.revision).await.unwrap();
    let expected = "in/bar=none in/foo=5 in/raced=999 in/three=4 in/two=2";
    assert_eq!(values(&mirror), expected);
    // It is told once, and whole.
    let (before, after) = changes.next().await.unwrap();
    assert_eq!(before.changes(&after).count(), 6);
    let next = tokio::time::timeout(Duration::from_secs(1), changes.next()).await;
    assert!(next.is_err(), "nothing else has happened: {next:?}");
}

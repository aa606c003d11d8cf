//! The facts of the reference's own tests, one by one.

use std::time::Duration;

use raft_autopilot::{
    ids::{Creation, IdRange, Ids, IdsError, KeyHash, Options, Status, Typed},
    store::{KeyRange, Op, RangeRequest, Store, Txn},
};

use crate::world::{
    PREFIX, collector, commits, delete, events, key, look, open, options, pause, range, store,
};

#[tokio::test(start_paused = true)]
async fn a_key_that_nobody_uses_here_is_not_held() {
    let (ids, line) = open(&store(), options("a")).await;
    assert!(ids.held(b"foo").is_none());
    let first = ids.allocate("foo").await.unwrap();
    assert!(first.is_new() && first.first_use());
    let sent = commits(&line);
    let second = ids.held(b"foo").unwrap();
    let third = ids.allocate("foo").await.unwrap();
    assert_eq!((second.id(), third.id()), (first.id(), first.id()));
    assert!(!third.is_new() && !third.first_use());
    assert_eq!((ids.stats().uses, ids.stats().held), (3, 1));
    assert_eq!(commits(&line), sent, "what is held costs nothing");
    drop(second);
    assert!(!first.release().await);
    assert!(ids.held(b"foo").is_some());
    assert!(third.release().await, "it was the last use");
    assert!(ids.held(b"foo").is_none());
}

#[tokio::test(start_paused = true)]
async fn a_key_that_is_being_asked_for_is_not_handed_out_before_it_stands() {
    let (ids, line) = open(&store(), options("a")).await;
    line.line.faults.lock().unwrap().lost = 100;
    let asking = ids.clone();
    let waiting = tokio::task::spawn(async move { asking.allocate("bar").await });
    pause(100).await;
    assert!(ids.held(b"bar").is_none());
    assert_eq!(ids.stats().held, 0);
    line.line.faults.lock().unwrap().lost = 0;
    assert!(waiting.await.unwrap().unwrap().is_new());
}

#[tokio::test(start_paused = true)]
async fn all_ids_of_a_range_are_given_out_and_then_it_says_so() {
    let store = store();
    let (ids, line) = open(&store, Options { range: Some(range(1, 5)), ..options("a") }).await;
    let mut handles = Vec::new();
    for number in 0..5 {
        handles.push(ids.allocate(key(number)).await.unwrap());
    }
    let mut given: Vec<u64> = handles.iter().map(raft_autopilot::ids::Handle::id).collect();
    given.sort_unstable();
    assert_eq!(given, [1, 2, 3, 4, 5]);
    let sent = commits(&line);
    let refused = ids.allocate(key(5)).await.unwrap_err();
    assert_eq!(refused, IdsError::Exhausted { used: 5, total: 5 });
    // One transaction, and one that asks the collectors to hurry.
    pause(1).await;
    assert_eq!(commits(&line), sent + 2);
    // A key that has an id gets it, full or not.
    let (other, _) = open(&store, options("b")).await;
    assert_eq!(other.allocate(key(3)).await.unwrap().id(), handles[3].id());
}

#[tokio::test(start_paused = true)]
async fn a_mask_is_in_every_id() {
    let masked = IdRange::new(1, 5).unwrap().masked(1 << 16).unwrap();
    let (ids, _) = open(&store(), Options { range: Some(masked), ..options("a") }).await;
    let mut handles = Vec::new();
    for number in 0..5 {
        let handle = ids.allocate(key(number)).await.unwrap();
        assert_eq!(handle.id() >> 16, 1);
        assert_eq!(ids.get_by_id(handle.id()).await.unwrap().unwrap(), *handle.key());
        handles.push(handle);
    }
    assert!(matches!(ids.allocate("more").await, Err(IdsError::Exhausted { .. })));
}

#[tokio::test(start_paused = true)]
async fn the_life_of_256_keys_on_two_nodes() {
    let store = store();
    let (one, _) = open(&store, Options { range: Some(range(1, 256)), ..options("one") }).await;
    let (two, _) = open(&store, options("two")).await;
    let mut first = Vec::new();
    for number in 1..=256 {
        let handle = one.allocate(key(number)).await.unwrap();
        assert!(handle.is_new() && handle.first_use());
        first.push(handle);
    }
    assert!(matches!(one.allocate("one more").await, Err(IdsError::Exhausted { .. })));
    let again = one.allocate_many((1..=256).map(key)).await.unwrap();
    assert_eq!(again, first);
    assert!(again.iter().all(|handle| !handle.is_new() && !handle.first_use()));
    let there = two.allocate_many((1..=256).map(key)).await.unwrap();
    assert_eq!(there, first);
    assert!(there.iter().all(|handle| !handle.is_new() && handle.first_use()));
    drop(there);
    drop(again);
    pause(100).await;
    assert_eq!(look(&store).await.references.len(), 256);
    let mut collector = collector(&store, Duration::ZERO).await;
    assert_eq!(collector.collect().await.unwrap().deleted, 0, "all are in use");
    drop(first);
    pause(100).await;
    assert_eq!(one.stats().held, 0);
    assert_eq!(collector.collect().await.unwrap().deleted, 256);
    let left = look(&store).await;
    assert!(left.mappings.is_empty() && left.references.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_reader_is_told_what_stands_and_then_what_happens() {
    let store = store();
    let (ids, _) = open(&store, Options { range: Some(range(1, 50)), ..options("a") }).await;
    let handles = ids.allocate_many((0..10).map(key)).await.unwrap();
    let mut stream = ids.subscribe();
    let told = events(&mut stream).await;
    assert_eq!(told.len(), 11);
    assert!(told[..10].iter().all(|event| event.starts_with('+')));
    assert_eq!(told[10], "sync");
    let more = ids.allocate("more").await.unwrap();
    let expected = format!("+{} more", more.id());
    assert_eq!(events(&mut stream).await, [expected.as_str()]);
    let gone = format!("-{} more", more.id());
    more.release().await;
    collector(&store, Duration::ZERO).await.collect().await.unwrap();
    assert_eq!(events(&mut stream).await, [gone.as_str()]);
    drop(handles);
    ids.close().await;
    drop(ids);
    let end = tokio::time::timeout(Duration::from_secs(1), stream.next()).await;
    assert_eq!(end.unwrap(), None);
}

#[tokio::test(start_paused = true)]
async fn what_is_deleted_comes_back_with_the_same_id_if_it_is_in_use_and_else_it_is_gone() {
    let store = store();
    let (ids, line) =
        open(&store, Options { range: Some(range(1_234, 1_234)), ..options("a") }).await;
    let handle = ids.allocate("foo").await.unwrap();
    let mut stream = ids.subscribe();
    assert_eq!(events(&mut stream).await, ["+1234 foo", "sync"]);
    let before = handle.generation();
    // The first attempts to bring it back fail.
    line.line.faults.lock().unwrap().lost = 100;
    let hash = KeyHash::of(b"foo");
    delete(&store, &[format!("{PREFIX}i/{:016x}", 1_234), format!("{PREFIX}k/{hash}")]).await;
    pause(200).await;
    assert_eq!(handle.status(), Status::Lost);
    // Meanwhile nobody here is told that it is gone, and no other key gets it.
    assert_eq!(events(&mut stream).await, Vec::<String>::new());
    assert_eq!((ids.get_cached(b"foo"), ids.cached().len(), ids.stats().used), (Some(1_234), 1, 1));
    assert_eq!(ids.get_by_id(1_234).await.unwrap(), Some("foo".into()));
    let mut late = ids.subscribe();
    assert_eq!(events(&mut late).await, ["+1234 foo", "sync"]);
    line.line.faults.lock().unwrap().lost = 0;
    pause(2_000).await;
    assert_eq!((handle.status(), handle.id()), (Status::Restored, 1_234));
    assert!(handle.generation() > before);
    assert_eq!(look(&store).await.mappings.len(), 1);
    for stream in [&mut stream, &mut late] {
        assert_eq!(events(stream).await, ["+1234 foo"], "with another token");
    }
    handle.release().await;
    delete(&store, &[format!("{PREFIX}i/{:016x}", 1_234), format!("{PREFIX}k/{hash}")]).await;
    assert_eq!(events(&mut stream).await, ["-1234 foo"]);
    assert_eq!(ids.get_cached(b"foo"), None);
}

#[tokio::test(start_paused = true)]
async fn what_is_deleted_and_given_to_another_key_meanwhile_is_told_to_be_gone() {
    let store = store();
    let (ids, line) = open(&store, Options { range: Some(range(1, 1)), ..options("a") }).await;
    let (other, _) = open(&store, options("b")).await;
    let handle = ids.allocate("foo").await.unwrap();
    let mut stream = ids.subscribe();
    assert_eq!(events(&mut stream).await, ["+1 foo", "sync"]);
    line.line.faults.lock().unwrap().lost = 100;
    let hash = KeyHash::of(b"foo");
    let all = Op::Delete(KeyRange::prefix(format!("{PREFIX}r/")));
    store.commit(Txn::new([all])).await.unwrap();
    delete(&store, &[format!("{PREFIX}i/{:016x}", 1), format!("{PREFIX}k/{hash}")]).await;
    let theirs = other.allocate("bar").await.unwrap();
    line.line.faults.lock().unwrap().lost = 0;
    pause(2_000).await;
    assert_eq!((handle.status(), theirs.status()), (Status::Changed, Status::Held));
    assert_eq!(events(&mut stream).await, ["+1 bar"], "it says which key had it before");
    assert_eq!((ids.get_cached(b"foo"), ids.get_cached(b"bar")), (None, Some(1)));
    // And one that nobody gets, because its users have gone before it was back.
    theirs.release().await;
    collector(&store, Duration::ZERO).await.collect().await.unwrap();
    assert_eq!(events(&mut stream).await, ["-1 bar"]);
    let handle = ids.allocate("baz").await.unwrap();
    assert_eq!(events(&mut stream).await, ["+1 baz"]);
    line.line.faults.lock().unwrap().lost = 100;
    let hash = KeyHash::of(b"baz");
    delete(&store, &[format!("{PREFIX}i/{:016x}", 1), format!("{PREFIX}k/{hash}")]).await;
    assert_eq!(events(&mut stream).await, Vec::<String>::new());
    drop(handle);
    assert_eq!(events(&mut stream).await, ["-1 baz"]);
}

#[tokio::test(start_paused = true)]
async fn what_a_validator_rejects_is_not_cached_not_told_and_still_used() {
    let store = store();
    let (writer, _) =
        open(&store, Options { range: Some(range(10, 11)), ..options("writer") }).await;
    let validator: raft_autopilot::ids::Validator = std::sync::Arc::new(|id, key| {
        assert!(key.starts_with(b"key"));
        if id == 11 { Err("eleven".to_owned()) } else { Ok(()) }
    });
    let reading = Options { validators: vec![validator], ..options("reader") };
    let (reader, _) = open(&store, reading).await;
    let mut stream = reader.subscribe();
    assert_eq!(events(&mut stream).await, ["sync"]);
    let handles = writer.allocate_many((0..2).map(key)).await.unwrap();
    let ten = handles.iter().find(|handle| handle.id() == 10).unwrap();
    let eleven = handles.iter().find(|handle| handle.id() == 11).unwrap();
    assert_eq!(events(&mut stream).await, [format!("+10 {}", ten.key())]);
    assert_eq!(reader.get_cached(ten.key()), Some(10));
    assert_eq!(reader.get_cached(eleven.key()), None);
    assert_eq!(reader.stats().used, 2);
    assert!(matches!(reader.allocate("key").await, Err(IdsError::Exhausted { .. })));
    drop(handles);
    pause(50).await;
    collector(&store, Duration::ZERO).await.collect().await.unwrap();
    assert_eq!(events(&mut stream).await.len(), 1);
    assert_eq!(reader.stats().used, 0);
}

#[tokio::test(start_paused = true)]
async fn a_validator_that_panics_rejects_and_stops_nothing() {
    let store = store();
    let (writer, _) = open(&store, options("writer")).await;
    let validator: raft_autopilot::ids::Validator = std::sync::Arc::new(|_, key| {
        assert!(!key.starts_with(b"bad"), "as a mistake in it would");
        Ok(())
    });
    let _first = writer.allocate_many(["bad", "good"]).await.unwrap();
    let reading = Options { validators: vec![validator], ..options("reader") };
    let opened = tokio::time::timeout(Duration::from_secs(60), open(&store, reading));
    let (reader, _) = opened.await.unwrap();
    let _second = writer.allocate_many(["bad too", "better"]).await.unwrap();
    pause(1_000).await;
    let mut shown: Vec<_> = reader.cached().into_iter().map(|cached| cached.key).collect();
    shown.sort();
    assert_eq!(shown, ["better".into(), "good".into()]);
}

#[tokio::test(start_paused = true)]
async fn what_was_overwritten_and_is_not_believed_is_not_shown_as_it_was() {
    for (value, shown) in [("k bad", "rejected"), ("?", "unreadable")] {
        let store = store();
        let ours = Options { range: Some(range(1, 1)), ..options("writer") };
        let (writer, _) = open(&store, ours).await;
        let validator: raft_autopilot::ids::Validator = std::sync::Arc::new(|_, key| {
            if key.starts_with(b"bad") { Err("bad".to_owned()) } else { Ok(()) }
        });
        let reading = Options { validators: vec![validator], ..options("reader") };
        let (reader, _) = open(&store, reading).await;
        let mut stream = reader.subscribe();
        let _good = writer.allocate("good").await.unwrap();
        assert_eq!(events(&mut stream).await, ["+1 good", "sync"]);
        // No instance does that; somebody with a command line does.
        let name = format!("{PREFIX}i/{:016x}", 1);
        store.commit(Txn::new([Op::put(name, value)])).await.unwrap();
        assert_eq!(events(&mut stream).await, ["-1 good"], "{shown}");
        assert_eq!((reader.get_cached(b"good"), reader.cached().len()), (None, 0));
        assert_eq!(reader.stats().used, 1, "it is not free");
    }
}

#[tokio::test(start_paused = true)]
async fn whatever_is_deleted_of_three_keys_heals_with_the_same_ids() {
    let store = store();
    let (ids, _) = open(&store, options("a")).await;
    let handles = ids.allocate_many((0..3).map(key)).await.unwrap();
    let hash = |number| KeyHash::of(key(number).as_bytes());
    let references = |number| format!("{PREFIX}r/{}/", hash(number));
    let id = |number: usize| format!("{PREFIX}i/{:016x}", handles[number].id());
    let mapping = |number| format!("{PREFIX}k/{}", hash(number));
    for range in [references(0), references(2), id(1), mapping(1), id(2), mapping(2)] {
        let all = Op::Delete(KeyRange::prefix(range));
        store.commit(Txn::new([all])).await.unwrap();
    }
    pause(400_000).await;
    let healed = look(&store).await;
    assert_eq!((healed.mappings.len(), healed.references.len()), (3, 3));
    for handle in &handles {
        assert_eq!(ids.get_no_cache(handle.key()).await.unwrap(), Some(handle.id()));
        assert_eq!(ids.get_by_id(handle.id()).await.unwrap().unwrap(), *handle.key());
        assert_eq!(handle.status(), Status::Restored);
    }
}

#[tokio::test(start_paused = true)]
async fn only_the_key_that_nobody_uses_is_collected_not_one_that_begins_like_it() {
    let store = store();
    let (ids, _) = open(&store, options("a")).await;
    let short = ids.allocate("1;").await.unwrap();
    let _long = ids.allocate("1;2;").await.unwrap();
    short.release().await;
    let mut collector = collector(&store, Duration::from_secs(10)).await;
    let first = collector.collect().await.unwrap();
    assert_eq!((first.found, first.unused, first.deleted), (2, 1, 0));
    pause(10_000).await;
    assert_eq!(collector.collect().await.unwrap().deleted, 1);
    pause(50).await;
    assert_eq!(ids.get(b"1;").await.unwrap(), None);
    assert!(ids.get_cached(b"1;2;").is_some());
}

#[tokio::test(start_paused = true)]
async fn keys_are_any_bytes_and_none_stands_for_another() {
    let (ids, _) = open(&store(), options("a")).await;
    let keys: [&[u8]; 9] = [
        b"foo;/;bar;0000000000",
        b"foo;/;bar;",
        b"foo;/;",
        b"a",
        b"a/",
        b"/../i/0000000000000007",
        b"",
        b"\0\xff",
        b"\0",
    ];
    let mut handles = Vec::new();
    for key in keys {
        assert_eq!(ids.get_no_cache(key).await.unwrap(), None);
        let handle = ids.allocate(key).await.unwrap();
        assert!(handle.is_new());
        assert_eq!(ids.get_no_cache(key).await.unwrap(), Some(handle.id()));
        assert_eq!(&**ids.get_by_id(handle.id()).await.unwrap().as_ref().unwrap(), key);
        handles.push(handle);
    }
    let mut given: Vec<u64> = handles.iter().map(raft_autopilot::ids::Handle::id).collect();
    given.sort_unstable();
    given.dedup();
    assert_eq!(given.len(), keys.len());
}

#[tokio::test(start_paused = true)]
async fn strange_keys_below_the_prefix_are_counted_and_left_alone() {
    let store = store();
    let (ids, _) = open(&store, options("a")).await;
    let strange =
        ["ids/", "ids/i/", "ids/i/invalid", "ids/i/000000000000000A", "ids/k/10", "ids/invalid"];
    for name in strange {
        store.commit(Txn::new([Op::put(name, "")])).await.unwrap();
    }
    let _handle = ids.allocate("key").await.unwrap();
    let mut collector = collector(&store, Duration::ZERO).await;
    collector.collect().await.unwrap();
    assert_eq!(collector.foreign().len(), strange.len());
    assert!(collector.audit().is_empty());
    for name in strange {
        let read = store.range(RangeRequest::new(KeyRange::key(name))).await.unwrap();
        assert_eq!(read.items.len(), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn a_range_that_is_written_otherwise_than_it_is_compared_is_not_read() {
    for written in ["1 sha256/128 01 5 1", "1 sha256/128 1 +5 1", "1 sha256/128 1 5 1 "] {
        let store = store();
        store.commit(Txn::new([Op::put(format!("{PREFIX}m"), written)])).await.unwrap();
        let line = crate::faulty::Faulty::new(&store, 1, None);
        let opened = Ids::open(line.clone(), line.runtime(), PREFIX, options("a")).await;
        assert!(matches!(opened, Err(IdsError::Foreign(_))), "{written}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_instance_that_creates_none_waits_for_others_to() {
    let store = store();
    let (creator, _) = open(&store, options("creator")).await;
    let follower = Options { creation: Creation::Forbidden, ..options("follower") };
    let (follower, _) = open(&store, follower).await;
    let unknown = follower.allocate("key").await.unwrap_err();
    assert_eq!(unknown, IdsError::Unassigned("key".into()));
    let waiting = follower.clone();
    let waiting = tokio::task::spawn(async move { waiting.wait_for(b"key").await });
    let handle = creator.allocate("key").await.unwrap();
    assert_eq!(waiting.await.unwrap().unwrap(), handle.id());
    assert_eq!(follower.allocate("key").await.unwrap(), handle);
}

#[tokio::test(start_paused = true)]
async fn typed_keys_are_their_bytes() {
    let (ids, _) = open(&store(), options("a")).await;
    let typed: Typed<String, _, _> = ids.typed();
    let handle = typed.allocate(&"label".to_owned()).await.unwrap();
    assert_eq!(typed.get(&"label".to_owned()).await.unwrap(), Some(handle.id()));
    assert_eq!(typed.get_by_id(handle.id()).await.unwrap().as_deref(), Some("label"));
    let strange = ids.allocate(b"\xff").await.unwrap();
    assert!(matches!(typed.get_by_id(strange.id()).await, Err(IdsError::Foreign(_))));
}

#[tokio::test(start_paused = true)]
async fn who_waits_for_a_key_asks_the_store_seldom_and_goes_on_when_it_does_not_answer() {
    let store = store();
    let (creator, _) = open(&store, options("creator")).await;
    let follower = Options { creation: Creation::Forbidden, ..options("follower") };
    let (follower, line) = open(&store, follower).await;
    let wait = |key: &'static str| {
        let waiting = follower.clone();
        tokio::task::spawn(async move { waiting.wait_for(key.as_bytes()).await })
    };
    let (first, second) = (wait("first"), wait("second"));
    let before = *line.line.reads.lock().unwrap();
    let mut handles = Vec::new();
    for number in 0..500 {
        handles.push(creator.allocate(key(number)).await.unwrap());
        pause(1).await;
    }
    let reads = *line.line.reads.lock().unwrap() - before;
    assert!(reads <= 6, "{reads}");
    line.line.faults.lock().unwrap().way = 1_000_000;
    pause(30_000).await;
    assert!(!first.is_finished());
    line.line.faults.lock().unwrap().way = 0;
    let handle = creator.allocate("first").await.unwrap();
    assert_eq!(first.await.unwrap(), Ok(handle.id()));
    follower.close().await;
    assert_eq!(second.await.unwrap(), Err(IdsError::Closed));
}

#[tokio::test(start_paused = true)]
async fn two_caches_of_one_prefix_show_every_id_twice() {
    let store = store();
    let (ids, line) = open(&store, options("a")).await;
    let handles = ids.allocate_many((0..4).map(key)).await.unwrap();
    pause(10).await;
    assert_eq!(ids.cached().len(), 4);
    let remote = ids.watch_remote("again", line.clone(), PREFIX, Vec::new());
    remote.wait_synced().await.unwrap();
    let cached = ids.cached();
    assert_eq!(cached.len(), 8);
    for handle in &handles {
        assert_eq!(cached.iter().filter(|cached| cached.id == handle.id()).count(), 2);
    }
}

#[tokio::test(start_paused = true)]
async fn remote_ids_come_all_at_once_are_replaced_in_one_step_and_go_when_they_are_closed() {
    let (ids, _) = open(&store(), options("a")).await;
    let mut stream = ids.subscribe();
    assert_eq!(events(&mut stream).await, ["sync"]);
    let other = |pairs: &'static [(u64, &'static str)]| async move {
        let store = store();
        for (id, key) in pairs {
            let ours = Options { range: Some(range(1, 9)), ..options("there") };
            raft_autopilot::ids::configure(&store, PREFIX, IdRange::new(*id, *id).unwrap())
                .await
                .unwrap();
            let (there, _) = open(&store, Options { range: None, ..ours }).await;
            std::mem::forget(there.allocate(*key).await.unwrap());
        }
        store
    };
    let first = other(&[(1, "foo"), (2, "baz")]).await;
    let remote = ids.watch_remote("remote", first, PREFIX, Vec::new());
    assert!(!remote.is_synced() && remote.is_empty());
    remote.wait_synced().await.unwrap();
    assert!(remote.is_synced() && remote.len() == 2);
    assert_eq!(events(&mut stream).await, ["+1 foo", "+2 baz"]);
    assert_eq!(ids.get_with_remotes(b"baz").await.unwrap(), Some(2));
    assert_eq!(ids.get_by_id_with_remotes(1).await.unwrap().unwrap(), "foo".into());
    assert_eq!(ids.get(b"baz").await.unwrap(), None, "the own store knows nothing of it");

    let second = other(&[(1, "qux"), (5, "bar")]).await;
    let replacing = ids.watch_remote("remote", second, PREFIX, Vec::new());
    replacing.wait_synced().await.unwrap();
    assert_eq!(events(&mut stream).await, ["+1 qux", "+5 bar", "-2 baz"]);
    assert!(!remote.is_synced() && replacing.is_synced());
    drop(remote);
    assert_eq!(events(&mut stream).await, Vec::<String>::new());

    // One that is given up before it has read everything leaves no trace.
    let third = other(&[(1, "qux"), (7, "foo")]).await;
    let line = crate::faulty::Faulty::new(&third, 1, None);
    line.line.pause();
    let late = ids.watch_remote("remote", line, PREFIX, Vec::new());
    pause(100).await;
    drop(late);
    assert_eq!(events(&mut stream).await, Vec::<String>::new());
    assert!(replacing.is_synced());

    drop(replacing);
    let mut gone = events(&mut stream).await;
    gone.sort();
    assert_eq!(gone, ["-1 qux", "-5 bar"]);
    assert_eq!(ids.get_with_remotes(b"bar").await.unwrap(), None);
}

#[tokio::test(start_paused = true)]
async fn another_range_below_the_same_prefix_is_refused() {
    let store = store();
    let (_ids, _) = open(&store, Options { range: Some(range(1, 4)), ..options("a") }).await;
    let line = crate::faulty::Faulty::new(&store, 2, None);
    let other = Options { range: Some(range(5, 9)), ..options("b") };
    let refused = Ids::open(line.clone(), line.runtime(), PREFIX, other).await;
    let (found, expected) = (range(1, 4), range(5, 9));
    assert_eq!(refused.unwrap_err(), IdsError::Mismatch { found, expected });
}

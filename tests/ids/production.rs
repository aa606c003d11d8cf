//! What has happened to others in production, provoked here, each under the name of what they saw.

use std::time::Duration;

use raft_autopilot::{
    ids::{
        Collector, CollectorOptions, Event, IdsError, KeyHash, Notice, Options, Status, Violation,
        list,
    },
    runtime::TokioRuntime,
    store::{Op, Store, Txn},
};

use crate::{
    faulty::{Faults, Faulty},
    session::leases,
    world::{
        Instance, PREFIX, collector, commits, delete, events, look, open, options, pause, range,
        store, together,
    },
};

/// A process that is gone at once.
async fn kill(ids: Instance, line: &Faulty) {
    line.line.pause();
    drop(ids);
    pause(1).await;
}

#[tokio::test(start_paused = true)]
async fn a_pod_with_fewer_labels_got_the_id_of_one_with_more() {
    let (ids, _) = open(&store(), options("a")).await;
    let more = ids.allocate("k8s:app=a;k8s:ns=b;").await.unwrap();
    assert_eq!(ids.get_no_cache(b"k8s:app=a;").await.unwrap(), None);
    let fewer = ids.allocate("k8s:app=a;").await.unwrap();
    assert_ne!(more.id(), fewer.id());
    assert_eq!(ids.get_by_id(more.id()).await.unwrap().unwrap(), *more.key());
}

#[tokio::test(start_paused = true)]
async fn a_node_that_died_while_it_asked_blocked_the_key_for_everybody() {
    let store = store();
    let (dying, line) = open(&store, options("dying")).await;
    let (living, living_line) = open(&store, options("living")).await;
    *line.line.faults.lock().unwrap() = Faults { unanswered: 100, ..Faults::default() };
    let asking = dying.clone();
    let asking = tokio::task::spawn(async move { asking.allocate("key").await });
    pause(5).await;
    line.line.pause();
    let sent = commits(&living_line);
    let handle = living.allocate("key").await.unwrap();
    assert_eq!(commits(&living_line), sent + 1);
    asking.abort();
    kill(dying, &line).await;
    pause(120_000).await;
    assert_eq!(handle.status(), Status::Held);
    assert_eq!(look(&store).await.references.len(), 1, "the dead one's has ended");
}

#[tokio::test(start_paused = true)]
async fn a_reference_that_was_just_released_was_written_again_for_ever() {
    let store = store();
    let often = Options { reconcile_interval: Duration::from_millis(10), ..options("a") };
    let (ids, line) = open(&store, often).await;
    *line.line.faults.lock().unwrap() = Faults { way: 7, ..Faults::default() };
    for round in 0..2 {
        let keys = (0..500).map(|number| format!("{round}/{number}"));
        let handles = ids.allocate_many(keys).await.unwrap();
        pause(37).await;
        drop(handles);
    }
    pause(1_000).await;
    assert!(look(&store).await.references.is_empty());
}

#[tokio::test(start_paused = true)]
async fn deletions_that_failed_were_never_tried_again() {
    let store = store();
    let (ids, line) = open(&store, options("a")).await;
    let handle = ids.allocate("key").await.unwrap();
    line.line.faults.lock().unwrap().lost = 100;
    let released = tokio::task::spawn(handle.release());
    pause(20_000).await;
    assert_eq!(look(&store).await.references.len(), 1);
    assert_eq!(ids.stats().releasing, 1);
    line.line.faults.lock().unwrap().lost = 0;
    assert!(released.await.unwrap());
    assert!(look(&store).await.references.is_empty());
}

#[tokio::test(start_paused = true)]
async fn an_id_that_was_only_reserved_was_published_by_the_background() {
    let store = store();
    let often = Options { reconcile_interval: Duration::from_millis(10), ..options("a") };
    let (ids, line) = open(&store, often).await;
    ids.allocate("warm").await.unwrap().release().await;
    let before = look(&store).await.revision;
    line.line.faults.lock().unwrap().lost = 100;
    let asking = ids.clone();
    let asking = tokio::task::spawn(async move { asking.allocate("key").await.unwrap() });
    pause(1_000).await;
    assert_eq!((look(&store).await.revision, ids.stats().held), (before, 0));
    line.line.faults.lock().unwrap().lost = 0;
    assert!(asking.await.unwrap().is_new());
}

#[tokio::test(start_paused = true)]
async fn one_attempt_to_write_a_record_again_failed_and_no_other_was_made() {
    let store = store();
    let (ids, line) = open(&store, options("a")).await;
    let handle = ids.allocate("key").await.unwrap();
    line.line.faults.lock().unwrap().lost = 100;
    let id = format!("{PREFIX}i/{:016x}", handle.id());
    delete(&store, &[id, format!("{PREFIX}k/{}", KeyHash::of(b"key"))]).await;
    let sent = commits(&line);
    pause(15_000).await;
    assert!(handle.status() == Status::Lost && commits(&line) > sent + 1);
    line.line.faults.lock().unwrap().lost = 0;
    pause(10_000).await;
    assert_eq!(handle.status(), Status::Restored);
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_came_late_left_a_reference_behind() {
    let store = store();
    let often = Options {
        reconcile_interval: Duration::from_secs(5),
        patience: Duration::from_millis(50),
        ..options("a")
    };
    let (ids, line) = open(&store, often).await;
    // It is done a second later, when nobody wants it any more.
    *line.line.faults.lock().unwrap() = Faults { late: 100, ..Faults::default() };
    assert!(matches!(ids.allocate("key").await, Err(IdsError::Unavailable(_))));
    *line.line.faults.lock().unwrap() = Faults::default();
    pause(1_500).await;
    pause(10_000).await;
    assert!(look(&store).await.references.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_was_deleted_at_once_kept_its_reference() {
    let store = store();
    let (ids, _) = open(&store, options("a")).await;
    let leaked = ids.allocate_for("pod-7", "old").await.unwrap();
    pause(5_000).await;
    let other = ids.allocate_for("pod-8", "old").await.unwrap();
    let newer = ids.allocate_for("pod-7", "new").await.unwrap();
    let uses = ids.local_uses();
    let first = (uses[0].owner.as_deref(), &*uses[0].key, uses[0].age);
    assert_eq!(first, (Some("pod-7"), &b"old"[..], Duration::from_secs(5)));
    let many = ids.allocate_many_for("pod-7", ["old", "newest"]).await.unwrap();
    assert_eq!(ids.release_owner("pod-7"), 4);
    assert!(many.iter().all(|handle| handle.status() == Status::Released));
    assert_eq!((leaked.status(), newer.status()), (Status::Released, Status::Released));
    assert_eq!(other.status(), Status::Held);
    pause(100).await;
    assert_eq!(look(&store).await.references.len(), 1);
    drop(leaked);
    assert_eq!(other.status(), Status::Held);
}

#[tokio::test(start_paused = true)]
async fn churn_used_up_all_ids_and_every_new_pod_failed() {
    let store = store();
    let (ids, _) = open(&store, Options { range: Some(range(1, 100)), ..options("a") }).await;
    let slow = CollectorOptions {
        grace: Duration::from_secs(3_600),
        grace_floor: Duration::from_secs(2),
        ..CollectorOptions::default()
    };
    let collector = Collector::open(store.clone(), TokioRuntime, PREFIX, slow).await.unwrap();
    tokio::task::spawn(collector.run(std::future::pending()));
    let mut notices = ids.notices();
    for number in 0..100 {
        ids.allocate(format!("pod/{number}")).await.unwrap().release().await;
    }
    let full = ids.allocate("pod/100").await.unwrap_err();
    assert_eq!(full, IdsError::Exhausted { used: 100, total: 100 });
    let mut told = Vec::new();
    while let Ok(notice) = notices.try_recv() {
        told.push(notice);
    }
    assert!(matches!(told[0], Notice::Low { used: 80, total: 100, .. }), "{told:?}");
    assert_eq!(told[1], Notice::Exhausted { used: 100, total: 100 });
    // The collectors hurry: in seconds, not within the hour.
    pause(3_000).await;
    ids.allocate("pod/100").await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn one_key_got_several_ids() {
    let store = store();
    let mut nodes = Vec::new();
    for number in 0..50 {
        let (ids, line) = open(&store, options(&format!("node{number}"))).await;
        line.line.faults.lock().unwrap().way = 20;
        nodes.push(ids);
    }
    let handles = together(nodes.iter().map(|ids| (ids.clone(), "one".to_owned()))).await;
    assert!(handles.iter().all(|handle| handle.id() == handles[0].id()));
    assert_eq!(handles.iter().filter(|handle| handle.is_new()).count(), 1);
    assert_eq!(look(&store).await.references.len(), 50);
}

#[tokio::test(start_paused = true)]
async fn duplicates_that_were_thought_impossible_were_seen_and_taken_back_by_nobody() {
    let store = store();
    let (ids, _) = open(&store, Options { range: Some(range(1, 2)), ..options("a") }).await;
    let handle = ids.allocate("key").await.unwrap();
    let other = 3 - handle.id();
    let duplicate = Op::put(format!("{PREFIX}i/{other:016x}"), "k key");
    store.commit(Txn::new([duplicate])).await.unwrap();
    // Whose it is cannot be known, so it is nobody's; and it is said, not mended in silence.
    let mut collector = collector(&store, Duration::ZERO).await;
    collector.collect().await.unwrap();
    assert_eq!(collector.audit(), [Violation::Id(other)]);
    assert_eq!(list(&store, PREFIX).await.unwrap().violations, [Violation::Id(other)]);
    assert_eq!(ids.allocate("key").await.unwrap().id(), handle.id());
    assert!(matches!(ids.allocate("more").await, Err(IdsError::Exhausted { .. })));
    // A person takes it away.
    store.commit(Txn::new([Op::delete(format!("{PREFIX}i/{other:016x}"))])).await.unwrap();
    assert_eq!(list(&store, PREFIX).await.unwrap().violations, []);
    assert_eq!(ids.allocate("more").await.unwrap().id(), other);
}

#[tokio::test(start_paused = true)]
async fn a_cache_missed_what_happened_while_its_watch_was_broken() {
    let store = store();
    let (writer, _) = open(&store, options("writer")).await;
    let (reader, line) = open(&store, options("reader")).await;
    let mut stream = reader.subscribe();
    let first = writer.allocate_many(["a", "b", "c"]).await.unwrap();
    assert_eq!(events(&mut stream).await.len(), 4);
    line.line.pause();
    let _kept = writer.allocate("b").await.unwrap();
    drop(first);
    pause(100).await;
    collector(&store, Duration::ZERO).await.collect().await.unwrap();
    let _more = writer.allocate("d").await.unwrap();
    let revision = look(&store).await.revision;
    store.compact(revision).await.unwrap();
    line.line.resume();
    let told = events(&mut stream).await;
    assert_eq!(told.len(), 3, "{told:?}");
    let cached: Vec<_> = reader.cached().into_iter().map(|cached| cached.key).collect();
    assert_eq!(cached.len(), 2);
    assert_eq!(reader.get_cached(b"a"), None);
}

#[tokio::test(start_paused = true)]
async fn a_sick_store_was_trampled_down_by_retries() {
    let store = store();
    let mut nodes = Vec::new();
    for number in 0..20 {
        let (ids, line) = open(&store, options(&format!("node{number}"))).await;
        line.line.faults.lock().unwrap().lost = 100;
        let asking = ids.clone();
        tokio::task::spawn(async move {
            let keys = (0..1_000).map(|number| format!("{number}"));
            asking.allocate_many(keys).await.map(drop)
        });
        nodes.push((ids, line));
    }
    pause(60_000).await;
    for (_, line) in &nodes {
        let sent = commits(line);
        assert!(sent < 60, "{sent} in a minute");
    }
}

#[tokio::test(start_paused = true)]
async fn a_reader_that_did_not_read_stalled_everybody() {
    let store = store();
    let (ids, _) = open(&store, options("a")).await;
    let mut stream = ids.subscribe();
    let other = ids.subscribe();
    drop(other);
    for number in 0..3_000 {
        let handle = ids.allocate(format!("{number}")).await.unwrap();
        handle.release().await;
    }
    let mut collector = collector(&store, Duration::ZERO).await;
    while collector.collect().await.unwrap().deleted > 0 {
        pause(60_000).await;
    }
    let last = ids.allocate("last").await.unwrap();
    assert_eq!(events(&mut stream).await, [format!("+{} last", last.id()), "sync".to_owned()]);
}

#[tokio::test(start_paused = true)]
async fn a_node_said_lease_not_found_for_sixteen_hours() {
    let store = store();
    let (ids, _) = open(&store, options("a")).await;
    let handle = ids.allocate("key").await.unwrap();
    for lease in leases(&store).await {
        store.revoke(lease).await.unwrap();
    }
    // The very next request finds out, and needs no help.
    let other = ids.allocate("other").await.unwrap();
    pause(100).await;
    assert_eq!((handle.status(), other.status()), (Status::Restored, Status::Held));
    assert_eq!(look(&store).await.references.len(), 2);
    assert_eq!(leases(&store).await.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn an_id_that_was_lost_and_looked_free_was_written_twice_in_one_transaction() {
    for seed in 1..20 {
        let store = store();
        let ours = Options { range: Some(range(1, 3)), seed: Some(seed), ..options("a") };
        let (ids, _) = open(&store, ours).await;
        let lost = ids.allocate("lost").await.unwrap();
        for lease in leases(&store).await {
            store.revoke(lease).await.unwrap();
        }
        let (id, hash) = (format!("{PREFIX}i/{:016x}", lost.id()), KeyHash::of(b"lost"));
        let collected = [Op::delete(id), Op::delete(format!("{PREFIX}k/{hash}"))];
        store.commit(Txn::new(collected)).await.unwrap();
        pause(1).await;
        // The session has ended, unnoticed: all three are asked for again, together.
        let others = ids.allocate_many(["x", "y"]).await.unwrap();
        pause(1_000).await;
        let after = look(&store).await;
        assert_eq!((after.mappings.len(), after.references.len()), (3, 3), "seed {seed}");
        assert!(others.iter().all(|handle| handle.status() == Status::Held), "seed {seed}");
    }
}

#[tokio::test(start_paused = true)]
async fn keys_vanished_a_lease_after_a_restart() {
    let store = store();
    let (before, line) = open(&store, options("node")).await;
    std::mem::forget(before.allocate("key").await.unwrap());
    line.line.pause();
    drop(before);
    let (after, _) = open(&store, Options { seed: Some(2), ..options("node") }).await;
    let handle = after.allocate("key").await.unwrap();
    assert_eq!(look(&store).await.references.len(), 2);
    pause(600_000).await;
    assert_eq!(look(&store).await.references.len(), 1);
    assert_eq!(handle.status(), Status::Held);
}

#[tokio::test(start_paused = true)]
async fn clusters_that_shared_a_store_collected_each_others_ids() {
    let store = store();
    let (ids, _) = open(&store, options("a")).await;
    let handle = ids.allocate("key").await.unwrap();
    handle.release().await;
    for other in ["ids2/", "ids/x/", "id"] {
        let options = CollectorOptions { grace: Duration::ZERO, ..CollectorOptions::default() };
        let mut stranger =
            Collector::open(store.clone(), TokioRuntime, other, options).await.unwrap();
        assert_eq!(stranger.collect().await.unwrap().deleted, 0);
    }
    assert_eq!(look(&store).await.mappings.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn what_was_allocated_before_the_first_listing_corrupted_the_cache() {
    let store = store();
    let (other, _) = open(&store, options("other")).await;
    let held = other.allocate_many((0..50).map(|number| format!("{number}"))).await.unwrap();
    let line = Faulty::new(&store, 3, None);
    let ids = Instance::open(line.clone(), line.runtime(), PREFIX, options("early")).await.unwrap();
    let early = ids.allocate("7").await.unwrap();
    assert_eq!(early.id(), held[7].id());
    ids.wait_synced().await.unwrap();
    assert_eq!(ids.cached().len(), 50);
    assert!(ids.cached().iter().all(|cached| held.iter().any(|h| h.id() == cached.id)));
}

#[tokio::test(start_paused = true)]
async fn synced_was_said_before_the_reader_had_the_list() {
    let store = store();
    let (other, _) = open(&store, options("other")).await;
    let _held = other.allocate_many((0..50).map(|number| format!("{number}"))).await.unwrap();
    let line = Faulty::new(&store, 3, None);
    line.line.faults.lock().unwrap().way = 50;
    let ids = Instance::open(line.clone(), line.runtime(), PREFIX, options("late")).await.unwrap();
    let mut stream = ids.subscribe();
    let mut told = 0;
    while let Some(Event::Upsert { .. }) = stream.next().await {
        told += 1;
    }
    assert_eq!(told, 50, "and then it was synced");
}

#[tokio::test(start_paused = true)]
async fn many_callers_on_one_node_raced_each_other_for_one_key() {
    let store = store();
    let (ids, line) = open(&store, options("a")).await;
    ids.allocate("warm").await.unwrap().release().await;
    let sent = commits(&line);
    let handles = together((0..100).map(|_| (ids.clone(), "key".to_owned()))).await;
    assert_eq!(commits(&line), sent + 1);
    let new = handles.iter().filter(|handle| handle.is_new()).count();
    let first = handles.iter().filter(|handle| handle.first_use()).count();
    assert_eq!((new, first), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn the_background_wrote_the_store_full_for_nothing() {
    let store = store();
    let (ids, line) = open(&store, options("a")).await;
    let _handles = ids.allocate_many((0..500).map(|number| format!("{number}"))).await.unwrap();
    let (sent, revision) = (commits(&line), look(&store).await.revision);
    pause(24 * 3_600_000).await;
    assert_eq!((commits(&line), look(&store).await.revision), (sent, revision));
}

#[tokio::test(start_paused = true)]
async fn a_node_that_slept_went_on_with_an_id_that_was_anothers_by_then() {
    let store = store();
    let (sleeper, line) =
        open(&store, Options { range: Some(range(1, 1)), ..options("sleeper") }).await;
    let (other, _) = open(&store, options("other")).await;
    let handle = sleeper.allocate("mine").await.unwrap();
    let mut notices = sleeper.notices();
    line.line.pause();
    pause(30_000).await;
    assert!(matches!(other.allocate("theirs").await, Err(IdsError::Exhausted { .. })));
    assert_eq!(handle.status(), Status::Held);
    pause(20_000).await;
    assert_eq!(handle.status(), Status::Suspect);
    pause(20_000).await;
    assert_eq!(handle.status(), Status::Lost, "it knows before anybody can have told it");
    collector(&store, Duration::ZERO).await.collect().await.unwrap();
    let theirs = other.allocate("theirs").await.unwrap();
    assert_eq!(theirs.id(), handle.id());
    line.line.resume();
    pause(5_000).await;
    assert_eq!((handle.status(), theirs.status()), (Status::Changed, Status::Held));
    assert!(theirs.generation() > handle.generation());
    let told = std::iter::from_fn(|| notices.try_recv().ok()).collect::<Vec<_>>();
    assert!(told.iter().any(|n| matches!(n, Notice::Changed { new: None, .. })), "{told:?}");
}

#[tokio::test(start_paused = true)]
async fn an_id_that_had_just_been_freed_was_given_out_while_others_still_saw_the_old_key() {
    let store = store();
    let (ids, _) = open(&store, Options { range: Some(range(1, 1)), ..options("a") }).await;
    let rest = CollectorOptions {
        grace: Duration::ZERO,
        rest: Duration::from_secs(10),
        ..CollectorOptions::default()
    };
    let mut collector = Collector::open(store.clone(), TokioRuntime, PREFIX, rest).await.unwrap();
    ids.allocate("old").await.unwrap().release().await;
    assert_eq!(collector.collect().await.unwrap().deleted, 1);
    assert_eq!(ids.get_no_cache(b"old").await.unwrap(), None);
    assert!(matches!(ids.allocate("new").await, Err(IdsError::Exhausted { .. })));
    assert_eq!(list(&store, PREFIX).await.unwrap().resting, [1]);
    pause(11_000).await;
    assert_eq!(ids.allocate("new").await.unwrap().id(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_closed_instance_leaves_nothing_and_grants_nothing() {
    let store = store();
    let (ids, _) = open(&store, options("a")).await;
    let handle = ids.allocate("key").await.unwrap();
    ids.close().await;
    assert!(look(&store).await.references.is_empty());
    assert_eq!(handle.status(), Status::Released);
    assert_eq!(ids.allocate("key").await.unwrap_err(), IdsError::Closed);
    let (other, _) = open(&store, options("b")).await;
    let kept = other.allocate("key").await.unwrap();
    drop(other);
    pause(120_000).await;
    assert_eq!(kept.status(), Status::Held, "a handle keeps what it needs");
    drop(kept);
    pause(100).await;
    assert!(look(&store).await.references.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_key_that_is_too_long_is_refused_by_its_length() {
    let (ids, _) = open(&store(), options("a")).await;
    let long = vec![b'x'; 200_000];
    let handle = ids.allocate(long.clone()).await.unwrap();
    assert_eq!(ids.get_no_cache(&long).await.unwrap(), Some(handle.id()));
    let limit = match ids.allocate(vec![b'x'; 2_000_000]).await.unwrap_err() {
        IdsError::KeyTooLong { found: 2_000_000, limit } => limit,
        other => panic!("{other}"),
    };
    let keys = (0..20).map(|number| vec![b'a' + number; limit]);
    let handles = ids.allocate_many(keys).await.unwrap();
    assert_eq!(handles.len(), 20);
}

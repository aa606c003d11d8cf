//! Records that vanish, and stores that are wiped or restored from a backup: what has happened to
//! others, and must not go unnoticed here.

use std::time::Duration;

use raft_autopilot::{
    ids::{Caching, IdsError, KeyHash, Notice, Options, Status, delete_everything},
    runtime::TokioRuntime,
    store::{Embedded, Op, Store, Txn},
};
use tokio::sync::watch;

use crate::{
    faulty::Faulty,
    world::{
        Instance, PREFIX, collector, commits, delete, look, open, options, pause, range, store,
    },
};

#[tokio::test(start_paused = true)]
async fn the_store_was_wiped_and_ids_were_missing_until_somebody_wrote_them_again() {
    let store = store();
    let (one, _) = open(&store, options("one")).await;
    let (two, _) = open(&store, options("two")).await;
    let keys = (0..20).map(|number| format!("{number}"));
    let (here, there) = (
        one.allocate_many(keys.clone()).await.unwrap(),
        two.allocate_many(keys.clone()).await.unwrap(),
    );
    let before: Vec<_> = here.iter().map(|handle| (handle.id(), handle.generation())).collect();
    delete_everything(&store, PREFIX).await.unwrap();
    pause(1_000).await;
    let after = look(&store).await;
    assert_eq!((after.mappings.len(), after.references.len(), after.epoch), (20, 40, 2));
    for (handle, (id, generation)) in here.iter().zip(before) {
        assert_eq!((handle.status(), handle.id()), (Status::Restored, id));
        assert!(handle.generation() > generation);
    }
    assert!(there.iter().all(|handle| handle.status() == Status::Restored));
}

#[tokio::test(start_paused = true)]
async fn the_store_was_restored_from_a_backup_and_two_keys_had_one_id() {
    let (switch, stores) = watch::channel(store());
    let line = Faulty::over(stores.clone(), 1, None);
    let ours = Options { range: Some(range(1, 4)), ..options("one") };
    let one = Instance::open(line.clone(), line.runtime(), PREFIX, ours).await.unwrap();
    let line_two = Faulty::over(stores, 2, None);
    let two = Instance::open(line_two.clone(), line_two.runtime(), PREFIX, options("two"));
    let two = two.await.unwrap();
    one.wait_synced().await.unwrap();
    let old = one.allocate("old").await.unwrap();
    let backup = switch.borrow().backup();
    for _ in 0..20 {
        one.allocate("busy").await.unwrap().release().await;
    }
    let (late, later) = (one.allocate("late").await.unwrap(), two.allocate("later").await.unwrap());
    let tokens = [old.generation(), late.generation(), later.generation()];
    let mut notices = one.notices();
    switch.send_replace(Embedded::restore(backup, TokioRuntime));
    // Whoever asks first finds out; the others at their next request, here to keep the lease.
    let _ = one.get_no_cache(b"old").await;
    pause(30_000).await;
    let restored = switch.borrow().clone();
    let after = look(&restored).await;
    assert_eq!((after.mappings.len(), after.epoch), (3, 2));
    assert_eq!(
        [&old, &late, &later].map(raft_autopilot::ids::Handle::status),
        [Status::Restored, Status::Restored, Status::Restored]
    );
    for (handle, before) in [&old, &late, &later].into_iter().zip(tokens) {
        assert!(handle.generation() > before, "{} {before}", handle.generation());
        let id = two.get_no_cache(handle.key()).await.unwrap();
        assert_eq!(id, Some(handle.id()));
    }
    let told = std::iter::from_fn(|| notices.try_recv().ok()).collect::<Vec<_>>();
    assert!(told.contains(&Notice::StoreRestored { epoch: 2 }), "{told:?}");
}

#[tokio::test(start_paused = true)]
async fn the_store_was_restored_and_had_gone_on_before_anybody_looked() {
    let switch = watch::Sender::new(store());
    let line = Faulty::over(switch.subscribe(), 1, None);
    // A cache would hear of it sooner, if another key gets the id.
    let caching = Caching::Lazy;
    let ours = Options { range: Some(range(1, 1)), caching, ..options("one") };
    let one = Instance::open(line.clone(), line.runtime(), PREFIX, ours).await.unwrap();
    one.allocate("before").await.unwrap().release().await;
    let now = switch.borrow().clone();
    collector(&now, Duration::ZERO).await.collect().await.unwrap();
    let backup = now.backup();
    let mine = one.allocate("mine").await.unwrap();
    let before = mine.generation();
    let restored = Embedded::restore(backup, TokioRuntime);
    switch.send_replace(restored.clone());
    // Nothing about its revision is strange when the node comes to see it.
    for number in 0..50 {
        restored.commit(Txn::new([Op::put("other", number.to_string())])).await.unwrap();
    }
    let (two, _) = open(&restored, options("two")).await;
    let theirs = two.allocate("theirs").await.unwrap();
    assert_eq!(theirs.id(), mine.id());
    assert_eq!(mine.status(), Status::Held, "it cannot know yet");
    // A third of a lease, and the way there and back.
    pause(21_000).await;
    assert_eq!(mine.status(), Status::Changed);
    pause(21_000).await;
    assert_eq!((theirs.status(), look(&restored).await.epoch), (Status::Restored, 2));
    assert!(theirs.generation() > before);
}

#[tokio::test(start_paused = true)]
async fn a_mapping_vanished_while_nobody_watched() {
    let store = store();
    let lazy = Options { caching: Caching::Lazy, ..options("lazy") };
    let line = Faulty::new(&store, 1, None);
    let lazy = Instance::open(line.clone(), line.runtime(), PREFIX, lazy).await.unwrap();
    let (full, line) = open(&store, options("full")).await;
    let (here, there) =
        (lazy.allocate("lazy").await.unwrap(), full.allocate("full").await.unwrap());
    pause(1_000).await;
    // The watch has ended for good, and another is opened only after the deletion.
    line.line.pause();
    for handle in [&here, &there] {
        let (id, hash) = (handle.id(), KeyHash::of(handle.key()));
        let names = [format!("{PREFIX}i/{id:016x}"), format!("{PREFIX}k/{hash}")];
        delete(&store, &names).await;
    }
    let revision = store.backup().revision();
    store.compact(revision).await.unwrap();
    line.line.resume();
    pause(400_000).await;
    assert_eq!((here.status(), there.status()), (Status::Restored, Status::Restored));
    assert_eq!(look(&store).await.mappings.len(), 2);
}

#[tokio::test(start_paused = true)]
async fn mappings_of_ids_in_use_vanished() {
    let store = store();
    let (one, _) = open(&store, options("one")).await;
    let (two, _) = open(&store, options("two")).await;
    let (here, there) = (one.allocate("key").await.unwrap(), two.allocate("key").await.unwrap());
    let mut collector = collector(&store, Duration::ZERO).await;
    let mut restored = one.notices();
    // No collector does that; somebody with a command line does.
    let id = format!("{PREFIX}i/{:016x}", here.id());
    let hash = KeyHash::of(b"key");
    store
        .commit(Txn::new([Op::delete(id), Op::delete(format!("{PREFIX}k/{hash}"))]))
        .await
        .unwrap();
    collector.collect().await.unwrap();
    pause(100).await;
    assert_eq!((here.status(), there.status()), (Status::Restored, Status::Restored));
    assert_eq!(here.generation(), there.generation());
    assert_eq!(collector.collect().await.unwrap().deleted, 0);
    assert!(collector.audit().is_empty());
    assert!(matches!(restored.try_recv(), Ok(Notice::Restored { .. })));
}

#[tokio::test(start_paused = true)]
async fn a_record_in_use_that_a_stranger_has_overwritten_is_not_asked_for_without_end() {
    let store = store();
    let (ids, line) = open(&store, options("a")).await;
    let handle = ids.allocate("key").await.unwrap();
    line.line.faults.lock().unwrap().way = 10;
    let name = format!("{PREFIX}k/{}", KeyHash::of(b"key"));
    store.commit(Txn::new([Op::put(name, "of a stranger")])).await.unwrap();
    let sent = commits(&line);
    pause(60_000).await;
    let more = commits(&line) - sent;
    assert!(more < 10, "{more} in a minute");
    assert_eq!(handle.status(), Status::Changed);
    let foreign = ids.allocate("key").await.unwrap_err();
    assert!(matches!(foreign, IdsError::Foreign(_)), "{foreign}");
}

//! How things end: what is refused, what is closed, and what a store that does not answer leaves.

use std::time::Duration;

use raft_autopilot::{
    ids::{Caching, Collector, CollectorOptions, Ids, IdsError, Notice, Options, Reclaim, Status},
    runtime::{Runtime, TokioRuntime},
    store::{Op, Refusal, Store, StoreError, Txn, mirror},
};

use crate::{
    faulty::{Faults, Faulty},
    world::{PREFIX, key, look, open, options, pause, store},
};

fn eager() -> Options {
    Options { reclaim: Reclaim::Eager, ..options("eager") }
}

#[tokio::test(start_paused = true)]
async fn an_eager_instance_takes_its_ids_along_when_it_is_closed_or_dropped() {
    let store = store();
    let (other, _) = open(&store, options("other")).await;
    for close in [true, false] {
        let (ids, _) = open(&store, eager()).await;
        let handles = ids.allocate_many((0..250).map(key)).await.unwrap();
        let shared = other.allocate(key(7)).await.unwrap();
        if close {
            ids.close().await;
        } else {
            drop((ids, handles));
            pause(1_000).await;
        }
        let left = look(&store).await;
        assert_eq!((left.mappings.len(), left.references.len()), (1, 1));
        // What somebody else uses waits for a collector, as it has not been alone.
        shared.release().await;
        crate::world::collector(&store, Duration::ZERO).await.collect().await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn an_eager_instance_does_not_wait_for_ever_for_a_store_that_is_away() {
    let store = store();
    let (ids, line) = open(&store, eager()).await;
    let _handles = ids.allocate_many((0..250).map(key)).await.unwrap();
    *line.line.faults.lock().unwrap() = Faults { way: 100_000_000, ..Faults::default() };
    let start = TokioRuntime.now();
    ids.close().await;
    let took = TokioRuntime.now().saturating_sub(start);
    assert!(took <= Duration::from_secs(11), "one request and the end of the lease: {took:?}");
    pause(60_000).await;
    assert!(look(&store).await.references.is_empty());
}

#[tokio::test(start_paused = true)]
async fn whoever_closes_second_waits_for_the_end_too() {
    let store = store();
    let (ids, line) = open(&store, options("a")).await;
    let _handle = ids.allocate("key").await.unwrap();
    line.line.faults.lock().unwrap().way = 1_000;
    let first = ids.clone();
    let first = tokio::task::spawn(async move { first.close().await });
    pause(1).await;
    ids.close().await;
    assert!(look(&store).await.references.is_empty());
    first.await.unwrap();
    // And it is closed for whoever comes later.
    ids.close().await;
}

#[tokio::test(start_paused = true)]
async fn whoever_waits_for_a_list_that_never_comes_is_told() {
    let store = store();
    let (lazy, _) = {
        let line = Faulty::new(&store, 1, None);
        let options = Options { caching: Caching::Lazy, ..options("lazy") };
        (Ids::open(line.clone(), TokioRuntime, PREFIX, options).await.unwrap(), line)
    };
    assert_eq!(lazy.wait_synced().await, Err(IdsError::NoCache));
    assert_eq!(lazy.wait_revision(7).await, Err(IdsError::NoCache));
    let (ids, line) = open(&store, options("a")).await;
    line.line.pause();
    let remote = ids.watch_remote("remote", line.clone(), "elsewhere/", Vec::new());
    let later = ids.clone();
    let later = tokio::task::spawn(async move { later.wait_revision(1_000_000).await });
    let waits = tokio::task::spawn(async move { remote.wait_synced().await });
    pause(1_000).await;
    line.line.resume();
    line.line.faults.lock().unwrap().way = 1_000_000;
    ids.close().await;
    assert_eq!(later.await.unwrap(), Err(IdsError::Closed));
    assert_eq!(waits.await.unwrap(), Err(IdsError::Closed));
}

#[tokio::test(start_paused = true)]
async fn options_that_no_store_can_serve_are_refused_at_once() {
    let store = store();
    let never = mirror::Options { check_interval: Some(Duration::ZERO), ..Default::default() };
    for (field, bad) in [
        ("ttl", Options { ttl: Duration::ZERO, ..Options::default() }),
        ("ttl", Options { ttl: Duration::MAX, ..Options::default() }),
        ("request_timeout", Options { request_timeout: Duration::ZERO, ..Options::default() }),
        (
            "reconcile_interval",
            Options { reconcile_interval: Duration::ZERO, ..Options::default() },
        ),
        ("check_interval", Options { mirror: never.clone(), ..Options::default() }),
    ] {
        let error = Ids::open(store.clone(), TokioRuntime, PREFIX, bad).await.unwrap_err();
        assert!(error.to_string().contains(field), "{error}");
    }
    for (field, bad) in [
        ("rest", CollectorOptions { rest: Duration::MAX, ..Default::default() }),
        (
            "request_timeout",
            CollectorOptions { request_timeout: Duration::ZERO, ..Default::default() },
        ),
        ("check_interval", CollectorOptions { mirror: never, ..Default::default() }),
    ] {
        let error = Collector::open(store.clone(), TokioRuntime, PREFIX, bad).await.unwrap_err();
        assert!(error.to_string().contains(field), "{error}");
    }
    // What is endless is no mistake.
    let endless = Options {
        request_timeout: Duration::MAX,
        patience: Duration::MAX,
        reconcile_interval: Duration::MAX,
        backoff_first: Duration::MAX,
        backoff_max: Duration::MAX,
        mirror: mirror::Options {
            check_interval: Some(Duration::MAX),
            retry_interval: Duration::MAX,
            ..Default::default()
        },
        ..Options::default()
    };
    let ids = Ids::open(store.clone(), TokioRuntime, PREFIX, endless).await.unwrap();
    ids.wait_synced().await.unwrap();
    assert!(ids.allocate("key").await.unwrap().release().await);
    ids.close().await;
}

#[tokio::test(start_paused = true)]
async fn what_will_never_be_done_is_said_before_the_patience_is_over() {
    let store = store();
    let (ids, _) = open(&store, options("a")).await;
    let stranger = Txn::new([Op::put(format!("{PREFIX}m"), "of another release")]);
    store.commit(stranger).await.unwrap();
    let start = TokioRuntime.now();
    let error = ids.allocate("key").await.unwrap_err();
    assert!(matches!(error, IdsError::Foreign(_)), "{error}");
    assert!(TokioRuntime.now().saturating_sub(start) < Duration::from_secs(10));
}

#[tokio::test(start_paused = true)]
async fn a_collector_of_a_store_that_does_not_answer_says_so() {
    let store = store();
    let line = Faulty::new(&store, 1, None);
    let options = || CollectorOptions { rest: Duration::from_secs(60), ..Default::default() };
    let open = || Collector::open(line.clone(), TokioRuntime, PREFIX, options());
    let mut collector = open().await.unwrap();
    line.line.pause();
    let unavailable = open().await.err().unwrap();
    assert!(matches!(unavailable, IdsError::Unavailable(_)), "{unavailable}");
    let unknown = collector.collect().await.unwrap_err();
    assert!(matches!(unknown, IdsError::Store(StoreError::Unknown(_))), "{unknown}");
    line.line.resume();
    collector.collect().await.unwrap();
    open().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_session_of_many_keys_is_proven_in_time_though_the_store_is_far_away() {
    let store = store();
    let ttl = Duration::from_secs(5);
    let (ids, line) = open(&store, Options { ttl, ..options("a") }).await;
    let mut notices = ids.notices();
    let handles = ids.allocate_many((0..6_000).map(key)).await.unwrap();
    // One after the other, 120 questions take longer than the lease lives.
    line.line.faults.lock().unwrap().way = 60;
    pause(60_000).await;
    assert!(handles.iter().all(|handle| handle.status() == Status::Held));
    while let Ok(notice) = notices.try_recv() {
        assert!(!matches!(notice, Notice::Lost | Notice::Suspect), "{notice:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_lease_that_a_store_refuses_is_told_as_it_refuses_it() {
    // As an etcd does whose quota is used up, or whose user may not.
    let store = store();
    let line = Faulty::new(&store, 1, None);
    line.line.refuse(Some(Refusal::Denied("nobody may".to_owned())));
    let ids = Ids::open(line.clone(), TokioRuntime, PREFIX, options("a")).await.unwrap();
    let start = TokioRuntime.now();
    let denied = ids.allocate("key").await.unwrap_err();
    let expected = StoreError::Refused(Refusal::Denied("nobody may".to_owned()));
    assert_eq!(denied, IdsError::Store(expected));
    assert!(TokioRuntime.now().saturating_sub(start) < Duration::from_secs(10));
    line.line.refuse(None);
    assert!(ids.allocate("key").await.unwrap().release().await);
}

/// What comes of something within a time.
async fn within<T>(seconds: u64, what: impl Future<Output = T>) -> Option<T> {
    tokio::time::timeout(Duration::from_secs(seconds), what).await.ok()
}

#[tokio::test(start_paused = true)]
async fn whoever_waits_for_a_release_is_told_when_an_eager_instance_ends_without_its_store() {
    let store = store();
    let (ids, line) = open(&store, Options { batch: 1, in_flight: 1, ..eager() }).await;
    let handles = ids.allocate_many((0..4).map(key)).await.unwrap();
    line.line.faults.lock().unwrap().way = 100_000_000;
    let released: Vec<_> =
        handles.into_iter().map(|handle| tokio::task::spawn(handle.release())).collect();
    pause(1).await;
    ids.close().await;
    for released in released {
        assert!(within(1, released).await.unwrap().unwrap());
    }
    assert_eq!(ids.stats().releasing, 0);
}

#[tokio::test(start_paused = true)]
async fn what_was_let_go_just_before_an_eager_instance_is_closed_goes_along() {
    let store = store();
    let (ids, line) = open(&store, eager()).await;
    let handle = ids.allocate("key").await.unwrap();
    // It is on its way for longer than the end of the lease takes.
    line.line.faults.lock().unwrap().way = 4_000;
    drop(handle);
    pause(1).await;
    line.line.faults.lock().unwrap().way = 0;
    ids.close().await;
    assert!(look(&store).await.mappings.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_holder_is_woken_when_its_lease_may_end_though_the_range_cannot_be_read() {
    let store = store();
    let (ids, _) = open(&store, options("a")).await;
    let handle = ids.allocate("key").await.unwrap();
    let mut notices = ids.notices();
    // What all agree on is part of every proof that the store is what it was.
    let stranger = Txn::new([Op::put(format!("{PREFIX}m"), "of another release")]);
    store.commit(stranger).await.unwrap();
    assert_eq!(within(55, handle.changed(Status::Held)).await, Some(Status::Suspect));
    assert_eq!(within(30, handle.changed(Status::Suspect)).await, Some(Status::Lost));
    let told = std::iter::from_fn(|| notices.try_recv().ok()).collect::<Vec<_>>();
    assert_eq!(told, [Notice::Suspect, Notice::Lost]);
}

#[tokio::test(start_paused = true)]
async fn a_release_is_done_when_somebody_comes_to_use_the_key_though_the_lease_is_suspect() {
    let (ids, line) = open(&store(), options("a")).await;
    let first = ids.allocate("key").await.unwrap();
    line.line.faults.lock().unwrap().lost = 100;
    let mut release = std::pin::pin!(first.release());
    tokio::select! {
        biased;
        _ = &mut release => panic!("nobody can have let it go"),
        () = std::future::ready(()) => {}
    }
    let second = ids.held(b"key").unwrap();
    tokio::time::advance(Duration::from_secs(45)).await;
    assert_eq!(second.status(), Status::Suspect);
    line.line.faults.lock().unwrap().lost = 0;
    assert_eq!(within(30, release).await, Some(true));
    pause(10_000).await;
    assert_eq!(second.status(), Status::Held);
}

#[tokio::test(start_paused = true)]
async fn what_was_refused_long_ago_is_not_why_the_store_does_not_answer_now() {
    let line = Faulty::new(&store(), 1, None);
    line.line.refuse(Some(Refusal::Denied("nobody may".to_owned())));
    let options = Options { patience: Duration::from_secs(3), ..options("a") };
    let ids = Ids::open(line.clone(), TokioRuntime, PREFIX, options).await.unwrap();
    assert!(matches!(ids.allocate("key").await, Err(IdsError::Store(_))));
    line.line.refuse(None);
    pause(30_000).await;
    line.line.faults.lock().unwrap().way = 100_000_000;
    let late = ids.allocate("key").await.unwrap_err();
    assert!(matches!(late, IdsError::Unavailable(_)), "{late}");
}

#[tokio::test(start_paused = true)]
async fn nobody_waits_longer_than_his_patience_whatever_a_request_may_take() {
    let (line, patience) = (Faulty::new(&store(), 1, None), Duration::from_secs(3));
    let options = || Options { patience, request_timeout: Duration::MAX, ..options("a") };
    let open = || Ids::open(line.clone(), TokioRuntime, PREFIX, options());
    let ids = open().await.unwrap();
    line.line.faults.lock().unwrap().way = 20;
    let start = TokioRuntime.now();
    let none = within(60, ids.wait_for(b"key")).await.unwrap();
    assert_eq!(none, Err(IdsError::Unassigned("key".into())));
    line.line.pause();
    let opened = within(60, open()).await.unwrap().unwrap_err();
    assert!(matches!(opened, IdsError::Unavailable(_)), "{opened}");
    let waited = within(60, ids.wait_for(b"key")).await.unwrap().unwrap_err();
    assert!(matches!(waited, IdsError::Unavailable(_)), "{waited}");
    assert_eq!(TokioRuntime.now().saturating_sub(start), 3 * patience);
}

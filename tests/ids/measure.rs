//! How many, how long and how fast: batches, rates, patience, and ids that run out.

use std::time::Duration;

use raft_autopilot::{
    ids::{
        Caching, Collector, CollectorOptions, Forecast, Ids, IdsError, Notice, Options, Reclaim,
        Status, list,
    },
    runtime::TokioRuntime,
    store::{KeyRange, RangeRequest, Store, StoreError},
};

use crate::{
    faulty::Faulty,
    world::{PREFIX, commits, key, look, open, options, pause, range, store, together},
};

#[tokio::test(start_paused = true)]
async fn callers_that_come_together_go_together() {
    let store = store();
    let (ids, line) = open(&store, options("a")).await;
    ids.allocate("warm").await.unwrap().release().await;
    line.line.faults.lock().unwrap().way = 20;
    let sent = commits(&line);
    let handles = together((0..1_000).map(|number| (ids.clone(), key(number)))).await;
    // A hundred keys each, but for those that were first.
    let many = commits(&line) - sent;
    assert!(many <= 11, "{many}");
    let sent = commits(&line);
    drop(handles);
    pause(1_000).await;
    assert!(look(&store).await.references.is_empty());
    assert!(commits(&line) - sent <= 11, "and they are let go together");
}

#[tokio::test(start_paused = true)]
async fn a_collector_takes_back_no_more_than_its_rate() {
    let store = store();
    let (ids, _) = open(&store, options("a")).await;
    drop(ids.allocate_many((0..50).map(key)).await.unwrap());
    pause(100).await;
    let slow = CollectorOptions {
        grace: Duration::ZERO,
        rate_limit: 20,
        rate_interval: Duration::from_secs(10),
        batch: 7,
        ..CollectorOptions::default()
    };
    let mut collector =
        Collector::open(store.clone(), TokioRuntime, PREFIX, slow.clone()).await.unwrap();
    assert_eq!(collector.collect().await.unwrap().deleted, 20);
    assert_eq!(collector.collect().await.unwrap().deleted, 0);
    pause(10_000).await;
    assert_eq!(collector.collect().await.unwrap().deleted, 20);
    // The same by itself, for as long as it takes and no longer.
    let collector = Collector::open(store.clone(), TokioRuntime, PREFIX, slow).await.unwrap();
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let running = tokio::task::spawn(collector.run(async move { drop(stopped.await) }));
    pause(1_000).await;
    assert!(look(&store).await.mappings.is_empty());
    drop(stop);
    running.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_collector_with_nothing_to_do_leaves_the_store_alone() {
    let store = store();
    let (ids, _) = open(&store, options("a")).await;
    let _kept = ids.allocate_many((0..5).map(key)).await.unwrap();
    let line = Faulty::new(&store, 2, None);
    let (runtime, options) = (line.runtime(), CollectorOptions::default());
    let collector = Collector::open(line.clone(), runtime, PREFIX, options).await.unwrap();
    tokio::task::spawn(collector.run(std::future::pending()));
    pause(1_000).await;
    let revision = look(&store).await.revision;
    let before = *line.line.reads.lock().unwrap();
    pause(3_600_000).await;
    // It makes sure once a minute that the store is what it was; the mirror, every ten.
    let reads = *line.line.reads.lock().unwrap() - before;
    assert!(reads <= 80, "{reads} in an hour");
    assert_eq!((commits(&line), look(&store).await.revision), (0, revision));
}

#[tokio::test(start_paused = true)]
async fn without_a_collector_the_last_user_takes_its_id_back() {
    let store = store();
    let eager =
        |name| Options { reclaim: Reclaim::Eager, range: Some(range(1, 2)), ..options(name) };
    let (one, _) = open(&store, eager("one")).await;
    let (two, _) = open(&store, eager("two")).await;
    for number in 0..100 {
        one.allocate(key(number)).await.unwrap().release().await;
        assert!(look(&store).await.mappings.is_empty());
    }
    // Of several users the last may not know that it is; then it is left to a collector.
    let (here, there) = (one.allocate("k").await.unwrap(), two.allocate("k").await.unwrap());
    here.release().await;
    assert_eq!(look(&store).await.mappings.len(), 1);
    there.release().await;
    assert!(look(&store).await.mappings.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_lazy_instance_remembers_no_id_that_it_has_let_go() {
    let line = Faulty::new(&store(), 1, None);
    let lazy = Options { caching: Caching::Lazy, reclaim: Reclaim::Eager, ..options("lazy") };
    let ids = Ids::open(line.clone(), line.runtime(), PREFIX, lazy).await.unwrap();
    let kept = ids.allocate("kept").await.unwrap();
    for number in 0..100 {
        ids.allocate(key(number)).await.unwrap().release().await;
    }
    assert_eq!(ids.stats().used, 1);
    assert_eq!(ids.allocate("kept").await.unwrap(), kept);
}

#[tokio::test(start_paused = true)]
async fn a_call_ends_when_its_patience_or_its_attempts_do() {
    let store = store();
    let patience = Duration::from_secs(3);
    let (ids, line) = open(&store, Options { patience, ..options("a") }).await;
    let (other, other_line) = open(&store, Options { attempts: 2, ..options("b") }).await;
    for line in [&line, &other_line] {
        line.line.faults.lock().unwrap().lost = 100;
    }
    let now = || tokio::time::Instant::now();
    let since = now();
    let late = ids.allocate_many((0..500).map(key)).await.unwrap_err();
    assert!(matches!(late, IdsError::Unavailable(_)), "{late}");
    assert_eq!(since.elapsed(), patience, "all of them together");
    let sent = commits(&other_line);
    let tried = other.allocate("key").await.unwrap_err();
    assert!(matches!(tried, IdsError::Unavailable(StoreError::Unknown(_))), "{tried}");
    assert_eq!(commits(&other_line), sent + 2);
    for line in [&line, &other_line] {
        line.line.faults.lock().unwrap().lost = 0;
    }
    pause(10_000).await;
    assert!(look(&store).await.references.is_empty(), "nothing was left behind");
}

#[tokio::test(start_paused = true)]
async fn who_was_granted_an_id_late_is_told_that_it_is_new() {
    let store = store();
    let (ids, line) = open(&store, Options { attempts: u32::MAX, ..options("a") }).await;
    ids.allocate("warm").await.unwrap().release().await;
    // The transaction is done, and its answer arrives when the lease is already suspect.
    line.line.faults.lock().unwrap().unanswered = 100;
    let asking = ids.clone();
    let asking = tokio::task::spawn(async move { asking.allocate("key").await.unwrap() });
    pause(45_000).await;
    assert!(!asking.is_finished());
    line.line.faults.lock().unwrap().unanswered = 0;
    let handle = asking.await.unwrap();
    assert!(handle.is_new() && handle.first_use());
}

#[tokio::test(start_paused = true)]
async fn a_forecast_says_when_the_ids_run_out() {
    let minute = Duration::from_secs(60);
    let mut forecast = Forecast::default();
    assert_eq!(forecast.full_in(minute, 10, 100), None, "nothing is known");
    forecast.note(Duration::ZERO, 10);
    // 10 in ten minutes, 80 are left.
    assert_eq!(forecast.full_in(10 * minute, 20, 100), Some(80 * minute));
    assert_eq!(forecast.full_in(10 * minute, 10, 100), None, "it does not grow");
    forecast.note(50 * minute, 60);
    forecast.note(100 * minute, 60);
    // What is more than an hour ago counts no more.
    assert_eq!(forecast.full_in(110 * minute, 72, 100), Some(Duration::from_secs(8_400)));
    let store = store();
    let (ids, _) = open(&store, Options { range: Some(range(1, 100)), ..options("a") }).await;
    let mut notices = ids.notices();
    let mut kept = Vec::new();
    for number in 0..80 {
        kept.push(ids.allocate(key(number)).await.unwrap());
        pause(60_000).await;
    }
    let told = std::iter::from_fn(|| notices.try_recv().ok()).collect::<Vec<_>>();
    let [Notice::Low { used: 80, total: 100, full_in: Some(full_in) }] = told[..] else {
        panic!("{told:?}");
    };
    // Twenty minutes, give or take one.
    assert!((19 * minute..=21 * minute).contains(&full_in), "{full_in:?}");
}

#[tokio::test(start_paused = true)]
async fn a_collector_hurries_for_as_long_as_there_is_no_id_left() {
    let store = store();
    let (ids, _) = open(&store, Options { range: Some(range(1, 4)), ..options("a") }).await;
    let resting = CollectorOptions {
        grace: Duration::ZERO,
        rest: Duration::from_secs(600),
        ..CollectorOptions::default()
    };
    let mut resting = Collector::open(store.clone(), TokioRuntime, PREFIX, resting).await.unwrap();
    drop(ids.allocate_many((0..2).map(key)).await.unwrap());
    pause(100).await;
    assert_eq!(resting.collect().await.unwrap().deleted, 2);
    // Two rest and two are used; only half of the ids are keys'.
    let (used, unused) = (ids.allocate("used").await.unwrap(), ids.allocate("old").await.unwrap());
    assert!(matches!(ids.allocate("more").await, Err(IdsError::Exhausted { used: 4, total: 4 })));
    unused.release().await;
    let slow = CollectorOptions {
        grace: Duration::from_secs(300),
        grace_floor: Duration::from_secs(5),
        ..CollectorOptions::default()
    };
    let collector = Collector::open(store.clone(), TokioRuntime, PREFIX, slow).await.unwrap();
    tokio::task::spawn(collector.run(std::future::pending()));
    pause(4_000).await;
    assert!(matches!(ids.allocate("more").await, Err(IdsError::Exhausted { .. })));
    pause(2_000).await;
    let more = ids.allocate("more").await.unwrap();
    assert_ne!(more.id(), used.id());
    pause(1_000).await;
    let urgent = RangeRequest::new(KeyRange::key(format!("{PREFIX}u")));
    assert!(store.range(urgent).await.unwrap().items.is_empty(), "the call is taken down");
}

#[tokio::test(start_paused = true)]
async fn keys_as_long_as_they_may_be_are_collected_and_rest() {
    let store = store();
    let eager = Options { reclaim: Reclaim::Eager, ..options("eager") };
    let (eager, _) = open(&store, eager).await;
    let (ids, _) = open(&store, options("a")).await;
    let Err(IdsError::KeyTooLong { limit, .. }) = ids.allocate(vec![b'x'; 2_000_000]).await else {
        panic!("it fits");
    };
    let keys = |first: u8| (0..20).map(move |number| vec![first + number; limit - 100]);
    let kept = ids.allocate_many(keys(b'a')).await.unwrap();
    drop(eager.allocate_many(keys(b'A')).await.unwrap());
    pause(1_000).await;
    assert_eq!(look(&store).await.mappings.len(), 20, "those of the eager one are gone");
    drop(kept);
    pause(1_000).await;
    let rest = Duration::from_secs(60);
    let resting = CollectorOptions { grace: Duration::ZERO, rest, ..CollectorOptions::default() };
    let mut resting = Collector::open(store.clone(), TokioRuntime, PREFIX, resting).await.unwrap();
    assert_eq!(resting.collect().await.unwrap().deleted, 20);
    assert_eq!(list(&store, PREFIX).await.unwrap().resting.len(), 20);
}

#[tokio::test(start_paused = true)]
async fn a_prefix_may_be_as_long_as_one_likes() {
    let store = store();
    let prefix = "p".repeat(20_000);
    let line = Faulty::new(&store, 1, None);
    let ids = Ids::open(line.clone(), line.runtime(), prefix.as_str(), options("a")).await.unwrap();
    let handles = ids.allocate_many((0..100).map(key)).await.unwrap();
    assert_eq!(list(&store, prefix.as_str()).await.unwrap().references.len(), 100);
    pause(120_000).await;
    assert!(handles.iter().all(|handle| handle.status() == Status::Held));
    drop(handles);
    pause(1_000).await;
    let grace = Duration::ZERO;
    let options = CollectorOptions { grace, ..CollectorOptions::default() };
    let mut collector =
        Collector::open(store.clone(), TokioRuntime, prefix.as_str(), options).await.unwrap();
    assert_eq!(collector.collect().await.unwrap().deleted, 100);
}

#[tokio::test(start_paused = true)]
async fn the_last_of_many_ids_takes_no_more_than_two_round_trips() {
    let total = if cfg!(debug_assertions) { 2_000 } else { 65_280 };
    let ours = Options { range: Some(range(256, 255 + total)), ..options("a") };
    let (ids, line) = open(&store(), ours).await;
    let mut handles = Vec::new();
    let asked = || commits(&line) + *line.line.reads.lock().unwrap();
    for number in 0..total {
        let before = asked();
        handles.push(ids.allocate(key(number)).await.unwrap());
        assert!(asked() - before <= 2, "number {number}");
    }
    let full = ids.allocate("one more").await.unwrap_err();
    assert_eq!(full, IdsError::Exhausted { used: total, total });
}

#[tokio::test(start_paused = true)]
async fn options_at_their_ends_do_what_they_can() {
    let store = store();
    let never = Duration::MAX;
    let none = Options {
        patience: never,
        request_timeout: never,
        reconcile_interval: never,
        backoff_max: never,
        batch: 0,
        in_flight: 0,
        candidates: 0,
        watermark_percent: u8::MAX,
        ..options("a")
    };
    let (ids, _) = open(&store, none).await;
    let handles = ids.allocate_many((0..5).map(key)).await.unwrap();
    drop(handles);
    pause(1_000).await;
    assert_eq!(look(&store).await.references, []);
    let none = CollectorOptions {
        grace: never,
        grace_floor: never,
        watermark_percent: 0,
        rate_limit: 0,
        rate_interval: never,
        batch: 0,
        request_timeout: never,
        ..CollectorOptions::default()
    };
    let open = |options| Collector::open(store.clone(), TokioRuntime, PREFIX, options);
    let collector = open(none.clone()).await.unwrap();
    tokio::task::spawn(collector.run(std::future::pending()));
    pause(24 * 3_600_000).await;
    assert_eq!(look(&store).await.mappings.len(), 5, "its grace never ends");
    let mut collector = open(CollectorOptions { grace: Duration::ZERO, ..none }).await.unwrap();
    assert_eq!(collector.collect().await.unwrap().deleted, 1, "and one is the least");
}

#[tokio::test(start_paused = true)]
async fn a_thousand_keys_one_after_another() {
    let most = 256 + 1_000;
    let (ids, _) = open(&store(), Options { range: Some(range(256, most)), ..options("a") }).await;
    let mut handles = Vec::new();
    for number in 0..1_000 {
        handles.push(ids.allocate(key(number)).await.unwrap());
    }
    assert_eq!(ids.stats().held, 1_000);
}

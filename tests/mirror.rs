//! A mirror and a keeper over a store that fails: what is lost is known, and what is back heals.

#![allow(clippy::unwrap_used, reason = "a test may panic")]
#![allow(clippy::disallowed_methods, reason = "a test runs on tokio")]

#[path = "mirror/vectors.rs"]
mod vectors;

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex},
    time::Duration,
};

use proptest::prelude::*;
use raft_autopilot::{
    runtime::{Runtime, TokioRuntime},
    store::{
        Bytes, Embedded, Events, KeyRange, KeyValue, Lease, LeaseId, LeaseKeeper, LeaseState,
        LeaseStatus, Limits, LocalWatch, Op, RangeRequest, RangeResponse, Refusal, Store,
        StoreError, Txn, TxnResponse, Update, Watch,
        machine::Config,
        mirror::{Mirror, Options},
    },
};
use tokio::sync::watch;

/// An embedded store behind a bad connection.
#[derive(Clone)]
struct Faulty {
    store: Embedded,
    faults: Arc<Mutex<Faults>>,
    /// Counts up whenever watches are to be cut.
    cuts: watch::Sender<u64>,
}

#[derive(Default)]
struct Faults {
    /// How many readings fail before one succeeds.
    reads: u32,
    /// Watches are not opened.
    cut: bool,
    /// What watches are refused with.
    refuse: Option<StoreError>,
    /// A key that the next event is swallowed of.
    swallow: Option<Bytes>,
    /// How often progress was asked for.
    asked: u32,
    /// What watches tell first, whatever the store says.
    told: VecDeque<Events>,
}

struct FaultyWatch {
    watch: LocalWatch,
    faults: Arc<Mutex<Faults>>,
    cuts: watch::Receiver<u64>,
}

fn faulty() -> Faulty {
    let store = Embedded::new(Config::default(), TokioRuntime);
    Faulty { store, faults: Arc::default(), cuts: watch::Sender::new(0) }
}

impl Faulty {
    fn cut(&self, cut: bool) {
        self.faults.lock().unwrap().cut = cut;
        self.cuts.send_modify(|cuts| *cuts += 1);
    }

    async fn put(&self, key: &str, value: &str) -> u64 {
        self.store.commit(Txn::new([Op::put(key, value)])).await.unwrap().revision
    }

    async fn delete(&self, key: &str) -> u64 {
        self.store.commit(Txn::new([Op::delete(key)])).await.unwrap().revision
    }
}

impl Store for Faulty {
    type Watch = FaultyWatch;

    fn limits(&self) -> Limits {
        self.store.limits()
    }

    async fn range(&self, request: RangeRequest) -> Result<RangeResponse, StoreError> {
        {
            let mut faults = self.faults.lock().unwrap();
            if faults.reads > 0 {
                faults.reads -= 1;
                return Err(StoreError::Retry("a fault".to_owned()));
            }
        }
        self.store.range(request).await
    }

    async fn commit(&self, txn: Txn) -> Result<TxnResponse, StoreError> {
        self.store.commit(txn).await
    }

    async fn watch(&self, range: KeyRange, from: u64) -> Result<FaultyWatch, StoreError> {
        if let Some(refuse) = self.faults.lock().unwrap().refuse.clone() {
            return Err(refuse);
        }
        if self.faults.lock().unwrap().cut {
            return Err(StoreError::Retry("cut off".to_owned()));
        }
        let watch = self.store.watch(range, from).await?;
        Ok(FaultyWatch { watch, faults: Arc::clone(&self.faults), cuts: self.cuts.subscribe() })
    }

    async fn grant(&self, ttl: Duration, id: Option<LeaseId>) -> Result<Lease, StoreError> {
        self.store.grant(ttl, id).await
    }

    async fn keep_alive(&self, id: LeaseId) -> Result<Duration, StoreError> {
        if self.faults.lock().unwrap().cut {
            return std::future::pending().await;
        }
        self.store.keep_alive(id).await
    }

    async fn revoke(&self, id: LeaseId) -> Result<(), StoreError> {
        self.store.revoke(id).await
    }

    async fn time_to_live(&self, id: LeaseId) -> Result<LeaseState, StoreError> {
        self.store.time_to_live(id).await
    }

    async fn compact(&self, revision: u64) -> Result<(), StoreError> {
        self.store.compact(revision).await
    }
}

impl Watch for FaultyWatch {
    async fn next(&mut self) -> Result<Update, StoreError> {
        if let Some(events) = self.faults.lock().unwrap().told.pop_front() {
            return Ok(Update::Events(events));
        }
        loop {
            let update = tokio::select! {
                biased;
                _ = self.cuts.changed() => return Err(StoreError::Retry("cut off".to_owned())),
                update = self.watch.next() => update?,
            };
            let swallowed = self.faults.lock().unwrap().swallow.clone();
            match update {
                Update::Events(mut events) => {
                    events.events.retain(|event| Some(event.key()) != swallowed.as_ref());
                    if !events.events.is_empty() {
                        return Ok(Update::Events(events));
                    }
                    self.faults.lock().unwrap().swallow = None;
                }
                Update::Progress(revision) => return Ok(Update::Progress(revision)),
            }
        }
    }

    fn request_progress(&mut self) {
        self.faults.lock().unwrap().asked += 1;
        self.watch.request_progress();
    }
}

async fn mirror(store: &Faulty, options: Options) -> Result<Mirror<String>, StoreError> {
    let decode = |kv: &KeyValue| match kv.value.to_string() {
        text if text.starts_with('!') => Err(text),
        text => Ok(text),
    };
    Mirror::open(store.clone(), TokioRuntime, KeyRange::prefix("in/"), decode, options).await
}

fn options() -> Options {
    Options { page_len: 3, ..Options::default() }
}

#[tokio::test(start_paused = true)]
async fn a_store_that_fails_is_read_again() {
    let store = faulty();
    for number in 0..10 {
        store.put(&format!("in/{number}"), "").await;
    }
    store.faults.lock().unwrap().reads = 3;
    let mirror = mirror(&store, options()).await.unwrap();
    assert_eq!(mirror.view().len(), 10);
    assert_eq!(mirror.status().failing, None);
}

#[tokio::test(start_paused = true)]
async fn a_watch_that_is_cut_goes_on_where_it_was() {
    let store = faulty();
    let mirror = mirror(&store, options()).await.unwrap();
    let mut revision = 0;
    for number in 0..50 {
        store.cut(number % 3 > 0);
        revision = store.put(&format!("in/{number}"), "").await;
        tokio::task::yield_now().await;
    }
    store.cut(false);
    let view = mirror.wait(revision).await.unwrap();
    assert_eq!((view.len(), mirror.status().reloads), (50, 0));
}

#[tokio::test(start_paused = true)]
async fn who_follows_the_store_again_says_so_though_nothing_happens_there() {
    let store = faulty();
    let mirror = mirror(&store, options()).await.unwrap();
    for cut in [true, false] {
        store.cut(cut);
        // Longer than any pause before the next try.
        TokioRuntime.sleep(2 * options().retry_interval).await;
        assert_eq!(mirror.status().failing.is_some(), cut);
    }
}

#[tokio::test(start_paused = true)]
async fn after_a_compaction_it_shows_exactly_the_difference() {
    let store = faulty();
    for name in ["a", "b", "c", "d", "e", "f", "g"] {
        store.put(&format!("in/{name}"), "old").await;
    }
    store.put("in/b", "!").await;
    let mirror = mirror(&store, options()).await.unwrap();
    let mut changes = mirror.changes();
    let before = mirror.view();
    store.cut(true);
    store.put("in/a", "!bad").await;
    store.put("in/b", "new").await;
    store.delete("in/c").await;
    store.put("in/dd", "new").await;
    store.delete("in/g").await;
    store.put("in/h", "new").await;
    store.delete("in/h").await;
    let last = store.put("out", "").await;
    store.store.compact(last).await.unwrap();
    let waiter = tokio::spawn({
        let mirror = mirror.clone();
        async move { mirror.wait(last).await }
    });
    store.cut(false);
    let view = waiter.await.unwrap().unwrap();
    assert_eq!(mirror.status().reloads, 1);
    let (seen, later) = changes.next().await.unwrap();
    let found: Vec<_> = seen
        .changes(&later)
        .map(|change| {
            let value = |entry: &Arc<raft_autopilot::store::mirror::Entry<String>>| {
                entry.kv.value.to_string()
            };
            (change.key.to_string(), change.before.map(value), change.after.map(value))
        })
        .collect();
    let text = |text: &str| Some(text.to_owned());
    assert_eq!(
        found,
        [
            ("in/a".to_owned(), text("old"), text("!bad")),
            ("in/b".to_owned(), text("!"), text("new")),
            ("in/c".to_owned(), text("old"), None),
            ("in/dd".to_owned(), None, text("new")),
            ("in/g".to_owned(), text("old"), None),
        ]
    );
    // The last good value outlives a reload, and what did not change is shared.
    assert_eq!(**view.value(b"in/a").unwrap(), "old");
    assert_eq!(view.undecoded().count(), 1);
    assert!(Arc::ptr_eq(view.get(b"in/e").unwrap(), before.get(b"in/e").unwrap()));
}

#[tokio::test(start_paused = true)]
async fn a_check_finds_and_heals_a_drift() {
    let store = faulty();
    let options = Options { check_interval: Some(Duration::from_secs(60)), ..options() };
    let mirror = mirror(&store, options).await.unwrap();
    store.put("in/a", "1").await;
    let seen = store.put("in/b", "1").await;
    mirror.wait(seen).await.unwrap();
    store.faults.lock().unwrap().swallow = Some("in/a".into());
    let swallowed = store.put("in/a", "2").await;
    mirror.wait(swallowed).await.unwrap();
    assert_eq!(**mirror.view().value(b"in/a").unwrap(), "1");
    let mut changes = mirror.changes();
    let (seen, view) = changes.next().await.unwrap();
    assert_eq!(
        (seen.changes(&view).count(), &**view.value(b"in/a").unwrap()),
        (1, &"2".to_owned())
    );
    let status = mirror.status();
    assert_eq!((status.checks, status.drifts, status.reloads), (1, 1, 1));
    assert_eq!(status.drift, ["in/a".into()]);
    tokio::time::advance(Duration::from_secs(61)).await;
    while mirror.status().checks < 2 {
        tokio::task::yield_now().await;
    }
    assert_eq!(mirror.status().drift, []);
}

#[tokio::test(start_paused = true)]
async fn a_keeper_knows_before_its_lease_can_have_ended() {
    let store = faulty();
    let ttl = Duration::from_secs(9);
    let keeper = LeaseKeeper::grant(store.clone(), TokioRuntime, ttl).await.unwrap();
    let put = Op::put_leased("leased", "", keeper.id());
    store.commit(Txn::new([put])).await.unwrap();
    tokio::time::sleep(ttl * 3).await;
    assert_eq!(keeper.status(), LeaseStatus::Held);
    // It is cut off for a while, suspects, and recovers.
    store.cut(true);
    assert_eq!(keeper.changed(LeaseStatus::Held).await, LeaseStatus::Suspect);
    store.cut(false);
    assert_eq!(keeper.changed(LeaseStatus::Suspect).await, LeaseStatus::Held);
    store.cut(true);
    let at = tokio::time::Instant::now();
    assert_eq!(keeper.changed(LeaseStatus::Held).await, LeaseStatus::Suspect);
    let left = store.store.time_to_live(keeper.id()).await.unwrap().remaining;
    assert!(left >= ttl / 3 && at.elapsed() >= ttl / 3, "{left:?}");
    assert_eq!(keeper.changed(LeaseStatus::Suspect).await, LeaseStatus::Lost);
    // A moment later the store says the same, and nothing brings the lease back.
    store.cut(false);
    tokio::time::sleep(ttl).await;
    assert_eq!(keeper.status(), LeaseStatus::Lost);
    let found = store.range(RangeRequest::new(KeyRange::key("leased"))).await.unwrap();
    assert!(found.items.is_empty());
}

/// Tokio's, which counts how often it sleeps.
#[derive(Clone, Default)]
struct Counting(Arc<std::sync::atomic::AtomicU32>);

impl Runtime for Counting {
    fn now(&self) -> Duration {
        TokioRuntime.now()
    }

    fn sleep(&self, duration: Duration) -> impl Future<Output = ()> + Send {
        self.0.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        TokioRuntime.sleep(duration)
    }

    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        TokioRuntime.spawn(task);
    }
}

#[tokio::test(start_paused = true)]
async fn who_waits_for_a_lost_lease_to_change_waits_in_peace() {
    let (store, runtime) = (faulty(), Counting::default());
    let ttl = Duration::from_secs(9);
    let keeper = LeaseKeeper::grant(store.clone(), runtime.clone(), ttl).await.unwrap();
    store.cut(true);
    assert_eq!(keeper.changed(LeaseStatus::Held).await, LeaseStatus::Suspect);
    assert_eq!(keeper.changed(LeaseStatus::Suspect).await, LeaseStatus::Lost);
    let slept = runtime.0.load(std::sync::atomic::Ordering::Relaxed);
    let changed = keeper.changed(LeaseStatus::Lost);
    assert!(tokio::time::timeout(Duration::from_secs(60), changed).await.is_err());
    assert!(runtime.0.load(std::sync::atomic::Ordering::Relaxed) <= slept + 3);
}

#[tokio::test(start_paused = true)]
async fn every_waiter_is_answered_when_the_store_is_refused() {
    let store = faulty();
    let mirror = mirror(&store, options()).await.unwrap();
    let waiters: Vec<_> = (0..10)
        .map(|ahead| {
            let mirror = mirror.clone();
            tokio::spawn(async move { mirror.wait(100 + ahead).await })
        })
        .collect();
    let mut changes = mirror.changes();
    let closed = StoreError::Refused(Refusal::Closed("by the test".to_owned()));
    store.faults.lock().unwrap().refuse = Some(closed.clone());
    store.cut(true);
    for waiter in waiters {
        assert_eq!(waiter.await.unwrap().unwrap_err(), closed);
    }
    assert_eq!(changes.next().await.unwrap_err(), closed);
    assert_eq!(mirror.status().ended, Some(closed));
}

#[tokio::test(start_paused = true)]
async fn a_revision_that_nobody_waits_for_any_more_is_not_asked_for() {
    let store = faulty();
    let mirror = mirror(&store, options()).await.unwrap();
    let waits = || tokio::time::timeout(Duration::from_secs(5), mirror.wait(1_000_000));
    let (one, other) = tokio::join!(waits(), waits());
    assert!(one.is_err() && other.is_err());
    let asked = store.faults.lock().unwrap().asked;
    assert!(asked > 10, "{asked}");
    tokio::time::sleep(Duration::from_secs(3_600)).await;
    assert!(store.faults.lock().unwrap().asked <= asked + 7, "six checks may ask");
}

#[tokio::test(start_paused = true)]
async fn a_decoder_that_panics_ends_the_mirror_and_tells_who_waits() {
    let store = faulty();
    let decode = |kv: &KeyValue| {
        assert_ne!(&*kv.value, b"panic", "the decoder has a fault");
        Ok(())
    };
    let range = KeyRange::prefix("in/");
    let mirror = Mirror::open(store.clone(), TokioRuntime, range, decode, options()).await.unwrap();
    let good = store.put("in/a", "good").await;
    mirror.wait(good).await.unwrap();
    let bad = store.put("in/a", "panic").await;
    let end = mirror.wait(bad).await;
    assert!(matches!(end, Err(StoreError::Refused(Refusal::Closed(_)))), "{end:?}");
    assert_eq!(mirror.view().revision(), good);
}

#[tokio::test(start_paused = true)]
async fn the_last_good_value_does_not_outlive_its_key() {
    let store = faulty();
    let mirror = mirror(&store, options()).await.unwrap();
    let first = store.put("in/a", "good").await;
    mirror.wait(first).await.unwrap();
    // The deletion is never seen.
    store.cut(true);
    store.delete("in/a").await;
    let last = store.put("in/a", "!bad").await;
    store.store.compact(last).await.unwrap();
    store.cut(false);
    let view = mirror.wait(last).await.unwrap();
    assert_eq!(mirror.status().reloads, 1);
    let entry = view.get(b"in/a").unwrap();
    assert!(entry.value.is_none() && entry.error.is_some());
}

#[tokio::test(start_paused = true)]
async fn a_quiet_range_of_a_busy_store_is_checked_too() {
    let store = faulty();
    let options = Options { check_interval: Some(Duration::from_secs(60)), ..options() };
    let mirror = mirror(&store, options).await.unwrap();
    let seen = store.put("in/a", "1").await;
    mirror.wait(seen).await.unwrap();
    for round in 1..=5 {
        let last = store.put("out", "").await;
        store.store.compact(last).await.unwrap();
        tokio::time::sleep(Duration::from_secs(61)).await;
        assert_eq!(mirror.status().checks, round);
    }
    assert_eq!(mirror.status().drifts, 0);
}

#[tokio::test(start_paused = true)]
async fn a_mirror_that_nobody_reads_lets_go_of_the_store() {
    let store = faulty();
    let mirror = mirror(&store, options()).await.unwrap();
    let held = Arc::downgrade(&store.faults);
    drop(store);
    assert!(held.strong_count() > 0);
    drop(mirror);
    tokio::time::sleep(Duration::from_millis(1)).await;
    assert_eq!(held.strong_count(), 0);
}

#[tokio::test(start_paused = true)]
async fn intervals_that_make_no_sense_are_refused_and_endless_ones_are_none() {
    let store = faulty();
    let options = Options { check_interval: Some(Duration::ZERO), ..Options::default() };
    let error = mirror(&store, options).await.unwrap_err();
    assert!(matches!(error, StoreError::Refused(Refusal::Invalid(_))), "{error}");
    let (check_interval, retry_interval) = (Some(Duration::MAX), Duration::MAX);
    let options = Options { check_interval, retry_interval, ..Options::default() };
    let mirror = mirror(&store, options).await.unwrap();
    let revision = store.put("in/1", "").await;
    assert_eq!(mirror.wait(revision).await.unwrap().len(), 1);
    assert_eq!(mirror.status().checks, 0);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn whatever_fails_a_mirror_comes_to_equal_a_fresh_reading(
        steps in proptest::collection::vec((0..10_u8, 0..40_u16), 1..120),
        page_len in 1..9_usize,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .start_paused(true)
            .build()
            .unwrap();
        runtime.block_on(async {
            let store = faulty();
            let mirror = mirror(&store, Options { page_len, ..Options::default() }).await.unwrap();
            let mut changes = mirror.changes_from_empty();
            let mut mine = BTreeMap::new();
            let mut revision = 1;
            for (verb, number) in steps {
                let key = format!("{}/{number}", if number % 9 == 0 { "out" } else { "in" });
                match verb {
                    0..4 => revision = store.put(&key, &number.to_string()).await,
                    4 | 5 => revision = revision.max(store.delete(&key).await),
                    6 => store.cut(number % 2 == 0),
                    7 => {
                        let _ = store.store.compact(revision).await;
                    }
                    8 => store.faults.lock().unwrap().reads = u32::from(number % 4),
                    _ => tokio::time::sleep(Duration::from_millis(number.into())).await,
                }
            }
            store.cut(false);
            let view = mirror.wait(revision).await.unwrap();
            let fresh = store.store.range(RangeRequest::new(KeyRange::prefix("in/"))).await.unwrap();
            assert!(view.iter().map(|(_, entry)| &*entry.kv).eq(fresh.items.iter().map(|kv| &**kv)));
            while let Ok(next) =
                tokio::time::timeout(Duration::from_secs(1), changes.next()).await
            {
                let (seen, later) = next.unwrap();
                for change in seen.changes(&later) {
                    match change.after {
                        Some(entry) => mine.insert(change.key.clone(), Arc::clone(&entry.kv)),
                        None => mine.remove(change.key),
                    };
                }
            }
            assert!(mine.values().eq(&fresh.items));
        });
    }
}

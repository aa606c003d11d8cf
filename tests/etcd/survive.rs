//! What a watch and a lease make of a server that is killed, started again, frozen or compacted.

use std::time::Duration;

use raft_autopilot::{
    runtime::TokioRuntime,
    store::{
        KeyRange, KeyValue, LeaseKeeper, LeaseStatus, Op, RangeRequest, Refusal, Store, StoreError,
        Txn, Update, Watch,
        etcd::{Etcd, EtcdWatch, Options},
        mirror::{self, Mirror},
    },
};
use tokio::time::{Instant, sleep, timeout};

use super::{
    proxy::{Mode, Proxy},
    server::{PATIENCE, Server},
};

async fn put(store: &Etcd, key: &str, value: u32) -> u64 {
    let end = Instant::now() + PATIENCE;
    loop {
        match store.commit(Txn::new([Op::put(key, value.to_string())])).await {
            Ok(done) => return done.revision,
            Err(StoreError::Refused(refusal)) => panic!("{refusal}"),
            Err(error) => assert!(Instant::now() < end, "{error}"),
        }
    }
}

async fn next(watch: &mut EtcdWatch) -> Result<u64, StoreError> {
    loop {
        match timeout(PATIENCE, watch.next()).await.expect("an update did not come") {
            Ok(Update::Events(events)) => return Ok(events.revision),
            Ok(Update::Progress(_)) => {}
            Err(error) => return Err(error),
        }
    }
}

#[tokio::test]
async fn a_watch_goes_on_after_each_restart() {
    let mut server = Server::start().await;
    let (store, other) = (server.store().await, server.store().await);
    let mut watch = store.watch(KeyRange::prefix("a"), 0).await.unwrap();
    for round in 0..3 {
        let before = put(&other, "a", round).await;
        assert_eq!(next(&mut watch).await, Ok(before));
        server.kill();
        server.restart();
        // Some of what happens meanwhile is not for it.
        put(&other, "b", round).await;
        let missed = put(&other, "a1", round).await;
        let last = put(&other, "a2", round).await;
        assert_eq!(next(&mut watch).await, Ok(missed));
        assert_eq!(next(&mut watch).await, Ok(last));
    }
}

#[tokio::test]
async fn a_watch_goes_on_after_its_server_hung() {
    let server = Server::start().await;
    let keep_alive = (Duration::from_millis(300), Duration::from_millis(300));
    let options = Options { keep_alive, ..server.options() };
    let store = Etcd::connect(options, TokioRuntime).await.unwrap();
    let mut watch = store.watch(KeyRange::prefix("a"), 0).await.unwrap();
    let first = put(&store, "a", 1).await;
    assert_eq!(next(&mut watch).await, Ok(first));
    server.freeze();
    sleep(Duration::from_secs(2)).await;
    server.thaw();
    let second = put(&store, "a", 2).await;
    // A change whose answer was lost may have come before it.
    while next(&mut watch).await.unwrap() < second {}
    let third = put(&store, "a", 3).await;
    assert_eq!(next(&mut watch).await, Ok(third));
}

#[tokio::test]
async fn progress_that_was_asked_for_once_comes_over_the_next_connection() {
    let server = Server::start().await;
    let proxy = Proxy::start(server.socket()).await;
    let options = Options { endpoints: vec![proxy.address.clone()], ..Options::default() };
    let store = Etcd::connect(options, TokioRuntime).await.unwrap();
    let mut watch = store.watch(KeyRange::prefix("quiet"), 0).await.unwrap();
    let revision = put(&server.store().await, "elsewhere", 1).await;
    // The answer does not come through, and then its connection is lost.
    proxy.set(Mode::Mute);
    watch.request_progress();
    sleep(Duration::from_secs(1)).await;
    proxy.set(Mode::Cut);
    sleep(Duration::from_millis(200)).await;
    proxy.set(Mode::Open);
    match timeout(PATIENCE, watch.next()).await.expect("progress does not come") {
        Ok(Update::Progress(reached)) => assert!(reached >= revision),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn an_etcd_that_was_set_up_anew_is_not_taken_for_the_one_it_was() {
    let mut server = Server::start().await;
    let store = server.store().await;
    let decode = |_: &KeyValue| Ok(());
    let options = mirror::Options::default();
    let range = KeyRange::prefix("a");
    let mirror = Mirror::open(store.clone(), TokioRuntime, range.clone(), decode, options);
    let mirror = mirror.await.unwrap();
    let mut watch = store.watch(range.clone(), 0).await.unwrap();
    // One that waits for what is to come may well be ahead of it.
    let mut ahead = store.watch(range, 10).await.unwrap();
    let mut last = 0;
    for value in 0..5 {
        last = put(&store, "a", value).await;
        assert_eq!(next(&mut watch).await, Ok(last));
    }
    mirror.wait(last).await.unwrap();
    server.kill();
    server.wipe();
    server.restart();
    server.ready().await;
    let closed = |error: &StoreError| matches!(error, StoreError::Refused(Refusal::Closed(why)) if why.contains("not the same"));
    let error = next(&mut watch).await.unwrap_err();
    assert!(closed(&error), "{error}");
    let error = timeout(PATIENCE, mirror.wait(1_000)).await.unwrap().unwrap_err();
    assert!(closed(&error), "{error}");
    let tenth = async {
        loop {
            let done = put(&store, "a", 7).await;
            if done >= 10 {
                return done;
            }
        }
    };
    assert_eq!(tenth.await, next(&mut ahead).await.unwrap());
}

#[tokio::test]
async fn a_watch_whose_place_was_compacted_meanwhile_ends() {
    let mut server = Server::start().await;
    let store = server.store().await;
    let quick = Options { deadline: Duration::from_millis(500), ..server.options() };
    let slow = Etcd::connect(quick, TokioRuntime).await.unwrap();
    let mut watch = slow.watch(KeyRange::prefix("a"), 0).await.unwrap();
    let first = put(&store, "a", 0).await;
    assert_eq!(next(&mut watch).await, Ok(first));
    server.kill();
    sleep(Duration::from_secs(1)).await;
    server.restart();
    for value in 1..20 {
        put(&store, "b", value).await;
    }
    // It may be back before the compaction, and then misses nothing.
    let last = put(&store, "a", 20).await;
    store.compact(last).await.unwrap();
    let late = slow.watch(KeyRange::prefix("a"), first).await;
    let mut late = late.unwrap();
    let error = next(&mut late).await.unwrap_err();
    assert!(error.is_compacted(), "{error}");
    match next(&mut watch).await {
        Ok(revision) => assert_eq!(revision, last),
        Err(error) => assert!(error.is_compacted(), "{error}"),
    }
}

/// Waits until a keeper says so; returns when it did.
async fn until(keeper: &LeaseKeeper<Etcd, TokioRuntime>, wanted: LeaseStatus) -> Instant {
    let wait = async {
        let mut status = keeper.status();
        while status != wanted {
            status = keeper.changed(status).await;
        }
    };
    timeout(PATIENCE, wait).await.unwrap_or_else(|_| panic!("never {wanted:?}"));
    Instant::now()
}

#[tokio::test]
async fn a_lease_is_suspect_before_it_is_lost_and_lost_before_it_has_ended() {
    let server = Server::start().await;
    let options = Options { deadline: Duration::from_secs(1), ..server.options() };
    let store = Etcd::connect(options, TokioRuntime).await.unwrap();
    let ttl = Duration::from_secs(3);
    let keeper = LeaseKeeper::grant(store.clone(), TokioRuntime, ttl).await.unwrap();
    let leased = Txn::new([Op::put_leased("a", "1", keeper.id())]);
    store.commit(leased).await.unwrap();
    assert_eq!(keeper.status(), LeaseStatus::Held);
    // Hung for a moment, and back: it was suspect, and is held again.
    server.freeze();
    let frozen = Instant::now();
    let suspect = until(&keeper, LeaseStatus::Suspect).await;
    assert!(suspect - frozen < ttl, "{:?}", suspect - frozen);
    server.thaw();
    until(&keeper, LeaseStatus::Held).await;
    assert!(store.range(RangeRequest::new(KeyRange::key("a"))).await.is_ok());
    // Hung for good: it is lost before the server can have ended it.
    server.freeze();
    let frozen = Instant::now();
    let suspect = until(&keeper, LeaseStatus::Suspect).await;
    let lost = until(&keeper, LeaseStatus::Lost).await;
    assert!(suspect < lost && lost - frozen <= ttl + Duration::from_secs(2));
    server.thaw();
    // It never comes back, whatever the server says of it.
    sleep(Duration::from_millis(500)).await;
    assert_eq!(keeper.status(), LeaseStatus::Lost);
}

#[tokio::test]
async fn a_lease_that_the_server_ended_is_lost() {
    let mut server = Server::start().await;
    let store = server.store().await;
    let ttl = Duration::from_secs(5);
    let keeper = LeaseKeeper::grant(store.clone(), TokioRuntime, ttl).await.unwrap();
    // It lives on over a restart of the server.
    server.kill();
    server.restart();
    server.ready().await;
    sleep(ttl + Duration::from_secs(1)).await;
    assert_eq!(keeper.status(), LeaseStatus::Held);
    let start = Instant::now();
    store.revoke(keeper.id()).await.unwrap();
    let lost = until(&keeper, LeaseStatus::Lost).await;
    assert!(lost - start < ttl, "{:?}", lost - start);
}

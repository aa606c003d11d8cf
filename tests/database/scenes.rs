//! Servers that flap, that are slow, and that are stopped and killed over a real etcd: what ranges make of it.

use std::time::Duration;

use tokio::time::{sleep, timeout};

use crate::placed::{cluster, cluster_with, follower, loads, number, settled, signal, work};
use crate::process::{Server, check, thinks, thought, write};

/// Stops a server and lets it go on, so many times.
async fn turns(server: &Server, stopped: u64, goes_on: u64, times: usize) {
    for _ in 0..times {
        signal(server, "-STOP").await;
        sleep(Duration::from_millis(stopped)).await;
        signal(server, "-CONT").await;
        sleep(Duration::from_millis(goes_on)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_flaps_loses_its_primaries_for_good_and_no_range() {
    let dirs = [(); 5].map(|()| tempfile::tempdir().unwrap());
    let servers = cluster(&dirs).await;
    let flaps = follower(&servers).await;
    let before = loads(&thinks(&servers).await.unwrap())[&flaps.id];
    assert!(before.1 > 0, "it is the primary of some");
    let others: Vec<&Server> = servers.iter().filter(|server| server.id != flaps.id).collect();
    // Whether it may have primaries, each time that this has changed.
    let mut told = vec![true];
    let mut watch = async || {
        loop {
            if let Some(state) = thinks(&others).await {
                told.push(work(&state, flaps.id, "Standing") == "full");
                told.dedup();
                assert_eq!(number(&state, flaps.id, "Items"), before.0, "no range moves");
            }
            sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::select! {
        () = watch() => unreachable!("it goes on"),
        // Long enough that it is stable again after the first time, and not after the next ones.
        () = turns(flaps, 3_500, 14_000, 4) => {}
    }
    assert!(matches!(told[..], [true, false] | [true, false, true, false]), "{told:?}");
    let state = thought(&servers, "its primaries are elsewhere", settled).await;
    assert_eq!(loads(&state)[&flaps.id], (before.0, 0));
}

/// A slow server hands its primaries over, and gets its share back.
async fn slow(more: &[&str]) {
    let dirs = [(); 5].map(|()| tempfile::tempdir().unwrap());
    let servers = cluster_with(&dirs, more).await;
    let keys: Vec<String> = (0..20).map(|n| format!("key-{n}")).collect();
    for key in &keys {
        write(&[&servers[0]], key).await;
    }
    let slow = follower(&servers).await;
    let others: Vec<&Server> = servers.iter().filter(|server| server.id != slow.id).collect();
    // It runs for a fifteenth of the time.
    let handed = async {
        thought(&others, "its primaries are handed over", |state| {
            number(state, slow.id, "Primaries") == 0 && settled(state)
        })
        .await;
        check(others[0], &keys).await;
    };
    tokio::select! {
        () = turns(slow, 2_800, 200, usize::MAX) => unreachable!("it goes on"),
        () = handed => {}
    }
    signal(slow, "-CONT").await;
    thought(&servers, "it has its share again", |state| {
        let loads = loads(state);
        let (items, primaries) = loads[&slow.id];
        settled(state)
            && work(state, slow.id, "Standing") == "full"
            && primaries > 0
            && loads.values().all(|load| load.0.abs_diff(items) <= 1)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_server_hands_its_primaries_over_and_gets_its_share_back() {
    slow(&[]).await;
}

#[cfg(feature = "etcd")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn over_an_etcd_too_a_slow_server_hands_its_primaries_over() {
    let etcd = crate::etcd::Server::start().await;
    slow(&["--etcd", &format!("http://{}", etcd.socket())]).await;
}

#[cfg(feature = "etcd")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn servers_that_are_stopped_and_killed_lose_their_ranges_over_an_etcd_too() {
    let etcd = crate::etcd::Server::start().await;
    let address = format!("http://{}", etcd.socket());
    let dirs = [(); 5].map(|()| tempfile::tempdir().unwrap());
    let mut servers = cluster_with(&dirs, &["--etcd", &address]).await;
    let keys: Vec<String> = (0..20).map(|n| format!("key-{n}")).collect();
    for key in &keys {
        write(&[&servers[0]], key).await;
    }
    let stopped = follower(&servers).await;
    signal(stopped, "-STOP").await;
    let others: Vec<&Server> = servers.iter().filter(|server| server.id != stopped.id).collect();
    let state = thought(&others, "its primaries are handed over", |state| {
        number(state, stopped.id, "Primaries") == 0
    })
    .await;
    assert!(number(&state, stopped.id, "Items") > 0, "its replicas stay at first");
    signal(stopped, "-CONT").await;
    thought(&servers, "it has primaries again", |state| {
        work(state, stopped.id, "Standing") == "full"
            && number(state, stopped.id, "Primaries") > 0
            && settled(state)
    })
    .await;
    let dead = follower(&servers).await.id;
    let at = servers.iter().position(|server| server.id == dead).unwrap();
    servers.swap_remove(at).kill().await;
    thought(&servers, "its ranges are elsewhere", |state| {
        number(state, dead, "Items") == 0 && settled(state)
    })
    .await;
    let read = timeout(Duration::from_secs(60), check(&servers[0], &keys));
    assert!(read.await.is_ok());
}

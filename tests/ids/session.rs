//! The session of an instance: one lease for all its references, whatever is asked for when.

use std::time::Duration;

use raft_autopilot::{
    ids::{Ids, Options, Status},
    store::{Embedded, KeyRange, LeaseId, RangeRequest, Store},
};

use crate::{
    faulty::{Faults, Faulty},
    world::{Instance, PREFIX, key, look, open, options, pause, store, together},
};

/// The leases that references stand with.
pub(crate) async fn leases(store: &Embedded) -> Vec<LeaseId> {
    let all = store.range(RangeRequest::new(KeyRange::all())).await.unwrap().items;
    let mut leases: Vec<LeaseId> = all.iter().map(|kv| kv.lease).collect();
    leases.retain(|lease| *lease != LeaseId::NONE);
    leases.sort_unstable();
    leases.dedup();
    leases
}

/// An instance that has not heard of its lease yet, and its line.
async fn opening(store: &Embedded, faults: Faults, options: Options) -> (Instance, Faulty) {
    let line = Faulty::new(store, 1, None);
    let ids = Ids::open(line.clone(), line.runtime(), PREFIX, options).await.unwrap();
    *line.line.faults.lock().unwrap() = faults;
    (ids, line)
}

#[tokio::test(start_paused = true)]
async fn who_asks_while_the_lease_is_granted_shares_it() {
    let store = store();
    let slow = Faults { way: 500, ..Faults::default() };
    let (ids, _) = opening(&store, slow, options("a")).await;
    let handles = together((0..4).map(|number| (ids.clone(), key(number)))).await;
    assert_eq!(leases(&store).await.len(), 1);
    assert!(handles.iter().all(|handle| handle.status() == Status::Held));
}

#[tokio::test(start_paused = true)]
async fn a_lease_that_had_ended_before_it_was_known_is_not_used() {
    let store = store();
    let ttl = Duration::from_secs(5);
    let options = Options { ttl, request_timeout: Duration::from_secs(60), ..options("a") };
    let slow = Faults { way: 30_000, ..Faults::default() };
    let (ids, line) = opening(&store, slow, options).await;
    let asking = ids.clone();
    let asking = tokio::task::spawn(async move { asking.allocate("key").await });
    pause(60_000).await;
    assert!(!asking.is_finished());
    line.line.faults.lock().unwrap().way = 0;
    let handle = asking.await.unwrap().unwrap();
    assert_eq!((handle.status(), leases(&store).await.len()), (Status::Held, 1));
    pause(60_000).await;
    assert_eq!(handle.status(), Status::Held);
}

#[tokio::test(start_paused = true)]
async fn an_error_that_says_nothing_of_the_lease_does_not_end_it() {
    let store = store();
    let (ids, line) = open(&store, options("a")).await;
    let handle = ids.allocate("key").await.unwrap();
    let before = leases(&store).await;
    *line.line.faults.lock().unwrap() = Faults { unanswered: 100, ..Faults::default() };
    let asking = ids.clone();
    let asking = tokio::task::spawn(async move { asking.allocate("other").await });
    pause(10_000).await;
    *line.line.faults.lock().unwrap() = Faults::default();
    let other = asking.await.unwrap().unwrap();
    assert_eq!(leases(&store).await, before);
    assert_eq!((handle.status(), other.status()), (Status::Held, Status::Held));
    assert_eq!(look(&store).await.references.len(), 2);
}

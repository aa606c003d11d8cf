//! Checks of leases: they live as long as they are kept alive, and take their keys with them.

use std::time::Duration;

use super::World;
use crate::{
    runtime::Runtime,
    store::{Event, LeaseId, LeaseKeeper, LeaseStatus, Refusal, Store, StoreError, Txn},
};

/// The shortest that etcd grants too, with its usual election timeout.
const TTL: Duration = Duration::from_secs(2);
const LONG: Duration = Duration::from_secs(600);

pub(super) async fn all<S: Store, R: Runtime>(world: &mut impl FnMut(&str) -> World<S, R>) {
    a_lease_takes_its_keys_at_one_revision(&world("a lease takes its keys")).await;
    a_lease_lives_while_it_is_kept_alive(&world("a lease lives while kept alive")).await;
    a_revoked_lease_is_gone(&world("a revoked lease is gone")).await;
    a_key_has_the_lease_of_its_last_put(&world("a key has the lease of its last put")).await;
    an_id_can_be_chosen(&world("an id can be chosen")).await;
    a_keeper_holds_its_lease(&world("a keeper holds its lease")).await;
    a_lease_that_never_was(&world("a lease that never was")).await;
}

async fn a_lease_takes_its_keys_at_one_revision<S: Store, R: Runtime>(world: &World<S, R>) {
    let before = world.runtime.now();
    let lease = world.grant(TTL).await;
    assert!(lease.ttl >= TTL && lease.ttl <= TTL + Duration::from_secs(3));
    let revision = world.put_leased("b", lease.id).await;
    world.put_leased("a", lease.id).await;
    world.put("other", "stays").await;
    let mut watch = world.watch(world.below(""), revision + 2).await;
    assert_eq!(world.events(&mut watch).await.events.len(), 1);
    let gone = world.events(&mut watch).await;
    let lived = world.runtime.now().saturating_sub(before);
    assert!(lived >= lease.ttl, "it lived only {lived:?}");
    assert!(lived <= lease.ttl + Duration::from_secs(5), "it lived {lived:?}");
    let mut keys: Vec<_> = gone.events.iter().map(Event::key).collect();
    keys.sort();
    assert_eq!(keys, [&world.key("a"), &world.key("b")]);
    assert!(gone.events.iter().all(|event| matches!(event, Event::Delete(_))));
    assert_eq!(world.values("").await, [("other".to_owned(), "stays".to_owned())]);
    no_lease(world, lease.id).await;
}

/// Whatever is asked of it, it is not there.
async fn no_lease<S: Store, R: Runtime>(world: &World<S, R>, id: LeaseId) {
    let gone = Err(StoreError::Refused(Refusal::LeaseNotFound(id)));
    assert_eq!(world.retry(|| world.store.keep_alive(id)).await.map(drop), gone);
    assert_eq!(world.retry(|| world.store.revoke(id)).await, gone);
    assert_eq!(world.retry(|| world.store.time_to_live(id)).await.map(drop), gone);
    let put = crate::store::Op::put_leased(world.key("x"), "", id);
    assert_eq!(world.try_commit(Txn::new([put])).await.map(drop), gone);
}

async fn a_lease_lives_while_it_is_kept_alive<S: Store, R: Runtime>(world: &World<S, R>) {
    let lease = world.grant(TTL).await;
    world.put_leased("a", lease.id).await;
    for _ in 0..6 {
        world.runtime.sleep(TTL / 3).await;
        let ttl = world.retry(|| world.store.keep_alive(lease.id)).await;
        assert_eq!(ttl, Ok(lease.ttl));
    }
    assert!(world.get("a").await.is_some());
    let state = world.retry(|| world.store.time_to_live(lease.id)).await.expect("it stands");
    assert_eq!((state.ttl, state.keys), (lease.ttl, vec![world.key("a")]));
    assert!(state.remaining <= lease.ttl && !state.remaining.is_zero());
    let gone = async {
        while world.get("a").await.is_some() {
            world.runtime.sleep(TTL / 10).await;
        }
    };
    world.soon("the end of a lease", gone).await;
}

async fn a_revoked_lease_is_gone<S: Store, R: Runtime>(world: &World<S, R>) {
    let lease = world.grant(LONG).await.id;
    let from = world.put_leased("a", lease).await + 1;
    world.put_leased("b", lease).await;
    let state = world.retry(|| world.store.time_to_live(lease)).await.expect("it stands");
    assert_eq!(state.keys, [world.key("a"), world.key("b")]);
    world.retry(|| world.store.revoke(lease)).await.expect("it stands");
    assert_eq!(world.values("").await, []);
    let mut watch = world.watch(world.below(""), from + 1).await;
    assert_eq!(world.events(&mut watch).await.events.len(), 2);
    no_lease(world, lease).await;
}

async fn a_key_has_the_lease_of_its_last_put<S: Store, R: Runtime>(world: &World<S, R>) {
    let (first, second) = (world.grant(LONG).await.id, world.grant(LONG).await.id);
    let created = world.put_leased("moved", first).await;
    world.put_leased("freed", first).await;
    world.put_leased("deleted", first).await;
    world.put_leased("moved", second).await;
    world.put("freed", "now").await;
    world.delete("deleted").await;
    world.put("deleted", "again").await;
    let state = world.retry(|| world.store.time_to_live(first)).await.expect("it stands");
    assert_eq!(state.keys, []);
    world.retry(|| world.store.revoke(first)).await.expect("it stands");
    let moved = world.get("moved").await.expect("it has another lease");
    assert_eq!((moved.create_revision, moved.version, moved.lease), (created, 2, second));
    assert_eq!(world.values("").await.len(), 3);
    world.retry(|| world.store.revoke(second)).await.expect("it stands");
    assert_eq!(world.values("").await.len(), 2);
}

async fn an_id_can_be_chosen<S: Store, R: Runtime>(world: &World<S, R>) {
    let revision = world.revision().await;
    let id = LeaseId(7_000_000_000 + revision);
    let lease = world.retry(|| world.store.grant(LONG, Some(id))).await.expect("it is free");
    assert_eq!(lease.id, id);
    let twice = world.retry(|| world.store.grant(LONG, Some(id))).await;
    assert_eq!(twice, Err(StoreError::Refused(Refusal::LeaseExists(id))));
    let others = [world.grant(LONG).await.id, world.grant(LONG).await.id];
    assert!(others[0] != others[1] && !others.contains(&id));
    for id in others.into_iter().chain([id]) {
        world.retry(|| world.store.revoke(id)).await.expect("it stands");
    }
    // A lease changes no key, and so makes no revision.
    assert_eq!(world.revision().await, revision);
}

async fn a_lease_that_never_was<S: Store, R: Runtime>(world: &World<S, R>) {
    no_lease(world, LeaseId(6_999_999_999)).await;
    for (ttl, id) in [
        (Duration::ZERO, None),
        (Duration::MAX, None),
        (LONG, Some(LeaseId::NONE)),
        (LONG, Some(LeaseId(u64::MAX))),
    ] {
        let refused = world.retry(|| world.store.grant(ttl, id)).await;
        let invalid = matches!(&refused, Err(StoreError::Refused(Refusal::Invalid(_))));
        assert!(invalid, "{ttl:?} {id:?}: {refused:?}");
    }
}

async fn a_keeper_holds_its_lease<S: Store, R: Runtime>(world: &World<S, R>) {
    let grant = || LeaseKeeper::grant(world.store.clone(), world.runtime.clone(), TTL);
    let keeper = world.retry(grant).await.expect("it is granted");
    world.put_leased("a", keeper.id()).await;
    world.runtime.sleep(TTL * 2).await;
    assert_ne!(keeper.status(), LeaseStatus::Lost);
    assert!(world.get("a").await.is_some());
    world.retry(|| world.store.revoke(keeper.id())).await.expect("it stands");
    let lost = async {
        let mut status = keeper.status();
        while status != LeaseStatus::Lost {
            status = keeper.changed(status).await;
        }
    };
    world.soon("the loss of a lease", lost).await;
    let keeper = world.retry(grant).await.expect("it is granted");
    world.put_leased("b", keeper.id()).await;
    world.retry(|| keeper.revoke()).await.expect("it stands");
    assert_eq!((keeper.status(), world.get("b").await), (LeaseStatus::Lost, None));
    // Nobody keeps it: it ends by itself.
    let keeper = world.retry(grant).await.expect("it is granted");
    world.put_leased("c", keeper.id()).await;
    drop(keeper);
    let gone = async {
        while world.get("c").await.is_some() {
            world.runtime.sleep(TTL / 10).await;
        }
    };
    world.soon("the end of a lease", gone).await;
}

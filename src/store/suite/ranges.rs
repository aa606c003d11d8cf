//! Checks of reading: prefixes, pages, revisions, compaction.

use super::World;
use crate::{
    runtime::Runtime,
    store::{KeyRange, Op, Pages, RangeRequest, Refusal, Store, StoreError, Txn},
};

pub(super) async fn all<S: Store, R: Runtime>(world: &mut impl FnMut(&str) -> World<S, R>) {
    ranges_hold_their_keys(&world("ranges hold their keys")).await;
    pages_are_of_one_revision(&world("pages are of one revision")).await;
    an_earlier_revision_can_be_read(&world("an earlier revision can be read")).await;
    what_is_compacted_cannot_be_read(&world("what is compacted cannot be read")).await;
}

async fn ranges_hold_their_keys<S: Store, R: Runtime>(world: &World<S, R>) {
    for name in ["a", "a/1", "a/2", "a0", "b"] {
        world.put(name, name).await;
    }
    let names = async |range: KeyRange| -> Vec<String> {
        let items = world.list(RangeRequest::new(range)).await;
        items.iter().map(|kv| world.name(&kv.key)).collect()
    };
    assert_eq!(names(world.one("a")).await, ["a"]);
    assert_eq!(names(world.below("a")).await, ["a", "a/1", "a/2", "a0"]);
    assert_eq!(names(world.below("a/")).await, ["a/1", "a/2"]);
    assert_eq!(names(world.below("c")).await, Vec::<String>::new());
    assert_eq!(names(KeyRange::span(world.key("a/2"), world.key("b"))).await, ["a/2", "a0"]);
    let behind = world.list(RangeRequest::new(KeyRange::from_key(world.key("a0"))).limit(2)).await;
    assert_eq!(behind.iter().map(|kv| world.name(&kv.key)).collect::<Vec<_>>(), ["a0", "b"]);
    let all = world.list(RangeRequest::new(KeyRange::all()).limit(1)).await;
    assert_eq!(all.len(), 1);
    let bare = world.list(RangeRequest::new(world.below("a/")).keys_only()).await;
    assert!(bare.iter().all(|kv| kv.value.is_empty() && kv.version == 1));
    let request = RangeRequest::new(world.below("a")).limit(4);
    let found = world.retry(|| world.store.range(request.clone())).await.expect("it is read");
    assert!(!found.more && found.items.len() == 4);
    let request = RangeRequest::new(world.below("a")).limit(3);
    let found = world.retry(|| world.store.range(request.clone())).await.expect("it is read");
    assert!(found.more && found.items.len() == 3);
}

async fn pages_are_of_one_revision<S: Store, R: Runtime>(world: &World<S, R>) {
    for tens in 0..25 {
        let puts = (0..10).map(|ones| world.put_op(format!("k/{tens:02}{ones}"), "old"));
        world.commit(Txn::new(puts.collect::<Vec<_>>())).await;
    }
    let before = world.revision().await;
    let mut pages = Pages::new(&world.store, world.below("k/")).page_len(100);
    let mut found = Vec::new();
    loop {
        match pages.next().await {
            Ok(Some(page)) => {
                assert!(page.items.len() <= 100);
                found.extend(page.items);
                world.put("k/123", "new").await;
                world.delete("k/249").await;
                world.put("k/2491", "new").await;
            }
            Ok(None) => break,
            Err(StoreError::Retry(_)) => {}
            Err(error) => panic!("{error}"),
        }
    }
    assert_eq!(pages.revision(), Some(before));
    assert_eq!(found.len(), 250);
    assert!(found.iter().all(|kv| &*kv.value == b"old"));
    assert!(found.is_sorted_by(|a, b| a.key < b.key));
}

async fn an_earlier_revision_can_be_read<S: Store, R: Runtime>(world: &World<S, R>) {
    let first = world.put("a", "1").await;
    let second =
        world.commit(Txn::new([world.put_op("a", "2"), world.put_op("b", "2")])).await.revision;
    let third = world.delete("a").await;
    let at = async |revision| -> Vec<String> {
        let items = world.list(RangeRequest::new(world.below("")).at(revision)).await;
        items.iter().map(|kv| format!("{}={}", world.name(&kv.key), kv.value)).collect()
    };
    assert_eq!(at(first - 1).await, Vec::<String>::new());
    assert_eq!(at(first).await, ["a=1"]);
    assert_eq!(at(second).await, ["a=2", "b=2"]);
    assert_eq!(at(third).await, ["b=2"]);
    let requested = world.revision().await + 1_000;
    let request = RangeRequest::new(world.below("")).at(requested);
    let ahead = world.retry(|| world.store.range(request.clone())).await;
    let refused = matches!(&ahead, Err(StoreError::Refused(Refusal::Ahead { .. })));
    assert!(refused, "{ahead:?}");
    let inside = world.refusal(Txn::new([Op::Range(request), world.put_op("c", "")])).await;
    assert!(matches!(inside, Refusal::Ahead { .. }), "{inside:?}");
    assert_eq!(world.get("c").await, None);
}

async fn what_is_compacted_cannot_be_read<S: Store, R: Runtime>(world: &World<S, R>) {
    let first = world.put("a", "1").await;
    let second = world.put("a", "2").await;
    world.put("a", "3").await;
    world.compact(second).await;
    let request = RangeRequest::new(world.below("")).at(first);
    let gone = world.retry(|| world.store.range(request.clone())).await;
    assert!(gone.as_ref().is_err_and(StoreError::is_compacted), "{gone:?}");
    let at = world.list(RangeRequest::new(world.below("")).at(second)).await;
    assert_eq!(&*at[0].value, b"2");
    let again = world.retry(|| world.store.compact(first)).await;
    assert!(again.as_ref().is_err_and(StoreError::is_compacted), "{again:?}");
    let ahead = world.revision().await + 1_000;
    let ahead = world.retry(|| world.store.compact(ahead)).await;
    assert!(matches!(ahead, Err(StoreError::Refused(Refusal::Ahead { .. }))), "{ahead:?}");
}

//! Checks of mirrors over a store: views are whole, in order, and never behind what was waited for.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use super::World;
use crate::{
    runtime::Runtime,
    store::{
        Bytes, KeyRange, KeyValue, Op, RangeRequest, Store, Txn,
        mirror::{Mirror, Options, View},
    },
};

pub(super) async fn all<S: Store, R: Runtime>(world: &mut impl FnMut(&str) -> World<S, R>) {
    a_mirror_shows_what_stands(&world("a mirror shows what stands")).await;
    a_mirror_can_be_waited_for(&world("a mirror can be waited for")).await;
    a_value_that_does_not_decode(&world("a value that does not decode")).await;
    half_a_transaction_is_never_shown(&world("half a transaction is never shown")).await;
    changes_lead_from_view_to_view(&world("changes lead from view to view")).await;
    a_check_finds_no_drift(&world("a check finds no drift")).await;
}

type Numbers = Mirror<u64>;

async fn mirror<S: Store, R: Runtime>(world: &World<S, R>, range: KeyRange) -> Numbers {
    let decode = |kv: &KeyValue| {
        let text = kv.value.to_string();
        text.parse::<u64>().map_err(|error| format!("{text}: {error}"))
    };
    let options = Options { page_len: 7, ..Options::default() };
    let (store, runtime) = (world.store.clone(), world.runtime.clone());
    let mirror = Mirror::open(store, runtime, range, decode, options);
    world.soon("a mirror", mirror).await.expect("it is opened")
}

async fn view<S: Store, R: Runtime>(
    world: &World<S, R>,
    mirror: &Numbers,
    revision: u64,
) -> Arc<View<u64>> {
    let view = world.soon("a view", mirror.wait(revision)).await.expect("it follows the store");
    assert!(view.revision() >= revision && view.changed() <= view.revision());
    view
}

/// That a view is what a fresh reading at its revision finds.
async fn compare<S: Store, R: Runtime>(world: &World<S, R>, view: &View<u64>, range: &KeyRange) {
    let found = world.list(RangeRequest::new(range.clone()).at(view.revision())).await;
    assert_eq!(view.len(), found.len());
    for ((key, entry), kv) in view.iter().zip(&found) {
        assert_eq!((key, &*entry.kv), (&kv.key, kv));
    }
}

async fn a_mirror_shows_what_stands<S: Store, R: Runtime>(world: &World<S, R>) {
    for number in 0..30 {
        world.put(format!("{number:02}"), number.to_string()).await;
    }
    let range = world.below("");
    let mirror = mirror(world, range.clone()).await;
    compare(world, &mirror.view(), &range).await;
    let before = mirror.view();
    world.commit(Txn::new([Op::Delete(world.below("1")), world.put_op("99", "99")])).await;
    let last = world.put("00", "100").await;
    let after = view(world, &mirror, last).await;
    compare(world, &after, &range).await;
    assert_eq!((after.len(), after.changed()), (21, last));
    assert_eq!(after.value(&world.key("00")).map(|value| **value), Some(100));
    let twenties = world.below("2");
    assert_eq!(after.range(&twenties).count(), 10);
    // What was seen stays as it was.
    assert_eq!(before.len(), 30);
    assert_eq!(before.value(&world.key("00")).map(|value| **value), Some(0));
}

async fn a_mirror_can_be_waited_for<S: Store, R: Runtime>(world: &World<S, R>) {
    let first = world.put("in/a", "1").await;
    let mirror = mirror(world, world.below("in/")).await;
    // What happens elsewhere changes nothing here, and yet can be waited for.
    for number in 0..5 {
        let elsewhere = world.put("out", number.to_string()).await;
        let view = view(world, &mirror, elsewhere).await;
        assert_eq!((view.changed(), view.len()), (first, 1));
    }
    let last = world.put("in/b", "2").await;
    assert_eq!(view(world, &mirror, last).await.changed(), last);
}

async fn a_value_that_does_not_decode<S: Store, R: Runtime>(world: &World<S, R>) {
    world.put("good", "1").await;
    world.put("bad", "x").await;
    let mirror = mirror(world, world.below("")).await;
    let (good, bad) = (world.key("good"), world.key("bad"));
    let first = mirror.view();
    assert_eq!(first.value(&bad), None);
    assert!(first.get(&bad).is_some_and(|entry| entry.error.is_some()));
    assert_eq!(first.undecoded().count(), 1);
    let broken = world.put("good", "y").await;
    let second = view(world, &mirror, broken).await;
    let entry = second.get(&good).expect("it stands");
    assert_eq!((entry.value.as_deref(), &*entry.kv.value), (Some(&1), &b"y"[..]));
    assert!(entry.error.is_some());
    assert_eq!(second.undecoded().count(), 2);
    world.put("good", "3").await;
    let mended = world.delete("bad").await;
    let third = view(world, &mirror, mended).await;
    assert_eq!(third.value(&good).map(|value| **value), Some(3));
    assert_eq!((third.undecoded().count(), third.len()), (0, 1));
}

async fn half_a_transaction_is_never_shown<S: Store, R: Runtime>(world: &World<S, R>) {
    const ACCOUNTS: u64 = 10;
    const ROUNDS: u64 = 60;
    let all = |value: u64| {
        let puts = (0..ACCOUNTS).map(move |at| (format!("{at}"), value.to_string()));
        Txn::new(puts.map(|(name, value)| world.put_op(name, value)).collect::<Vec<_>>())
    };
    world.commit(all(0)).await;
    let mirror = mirror(world, world.below("")).await;
    let (reader, stop) = (mirror.clone(), Arc::new(()));
    let (stopped, (send, mut receive)) = (Arc::downgrade(&stop), tokio::sync::mpsc::channel(1));
    let runtime = world.runtime.clone();
    world.runtime.spawn(async move {
        let mut last = 0;
        while stopped.strong_count() > 0 {
            let view = reader.view();
            let values: Vec<u64> =
                view.iter().filter_map(|(_, entry)| entry.value.as_deref().copied()).collect();
            let whole = values.len() == 10 && values.iter().all(|value| *value == values[0]);
            if !whole || values[0] < last {
                let _ = send.send(Err(values)).await;
                return;
            }
            last = values[0];
            runtime.sleep(Duration::from_micros(200)).await;
        }
        let _ = send.send(Ok(())).await;
    });
    let mut revision = 0;
    for value in 1..=ROUNDS {
        revision = world.commit(all(value)).await.revision;
    }
    view(world, &mirror, revision).await;
    drop(stop);
    assert_eq!(world.soon("the reader", receive.recv()).await, Some(Ok(())));
}

async fn changes_lead_from_view_to_view<S: Store, R: Runtime>(world: &World<S, R>) {
    world.put("0", "0").await;
    let mirror = mirror(world, world.below("")).await;
    let mut changes = mirror.changes_from_empty();
    let mut mine: BTreeMap<Bytes, String> = BTreeMap::new();
    let mut last = 0;
    for number in 0..80_u64 {
        let name = format!("{}", number * number % 23);
        last = if number % 3 == 0 {
            world.delete(&name).await
        } else {
            world.put(&name, number.to_string()).await
        };
        if number % 10 == 9 {
            view(world, &mirror, last).await;
            let (seen, later) =
                world.soon("changes", changes.next()).await.expect("it follows the store");
            for change in seen.changes(&later) {
                let before = change.before.map(|entry| entry.kv.value.to_string());
                let was = match change.after {
                    Some(entry) => mine.insert(change.key.clone(), entry.kv.value.to_string()),
                    None => mine.remove(change.key),
                };
                assert_eq!(was, before);
            }
            let stands = later.iter().map(|(key, entry)| (key.clone(), entry.kv.value.to_string()));
            assert_eq!(mine, stands.collect());
        }
    }
    assert_eq!(view(world, &mirror, last).await.len(), mine.len());
}

async fn a_check_finds_no_drift<S: Store, R: Runtime>(world: &World<S, R>) {
    let mirror = mirror(world, world.below("")).await;
    for number in 0..20 {
        world.put(format!("{number:02}"), number.to_string()).await;
    }
    let last = world.delete("11").await;
    view(world, &mirror, last).await;
    mirror.check();
    let checked = async {
        while mirror.status().checks == 0 {
            world.runtime.sleep(Duration::from_millis(5)).await;
        }
    };
    world.soon("a check", checked).await;
    let status = mirror.status();
    assert_eq!((status.drifts, status.reloads, &status.drift[..]), (0, 0, &[][..]));
}

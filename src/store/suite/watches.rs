//! Checks of watches: whole revisions, in order, once, from any revision that is remembered.

use std::time::Duration;

use super::World;
use crate::{
    runtime::Runtime,
    store::{Compare, Event, Op, Store, Txn, Update, Watch},
};

pub(super) async fn all<S: Store, R: Runtime>(world: &mut impl FnMut(&str) -> World<S, R>) {
    a_watch_tells_all_from_a_revision_on(&world("a watch tells all from a revision on")).await;
    a_watch_from_now_tells_what_comes(&world("a watch from now tells what comes")).await;
    a_revision_is_told_whole(&world("a revision is told whole")).await;
    a_range_is_told_alone(&world("a range is told alone")).await;
    a_revision_to_come_is_waited_for(&world("a revision to come is waited for")).await;
    progress_is_told_when_asked_for(&world("progress is told when asked for")).await;
    progress_comes_after_what_happened(&world("progress comes after what happened")).await;
    a_waiting_that_is_dropped_loses_nothing(&world("a dropped waiting loses nothing")).await;
    a_compacted_start_ends_the_watch(&world("a compacted start ends the watch")).await;
    a_watch_that_was_overtaken_tells_all_or_says_so(&world("an overtaken watch")).await;
    many_watches_are_told_the_same(&world("many watches are told the same")).await;
}

fn text<S: Store, R: Runtime>(world: &World<S, R>, events: &[Event]) -> Vec<String> {
    let mut texts: Vec<String> = events
        .iter()
        .map(|event| match event {
            Event::Put(kv) => format!("{}={}", world.name(&kv.key), kv.value),
            Event::Delete(key) => format!("-{}", world.name(key)),
        })
        .collect();
    texts.sort();
    texts
}

async fn told<S: Store, R: Runtime>(
    world: &World<S, R>,
    watch: &mut S::Watch,
) -> (u64, Vec<String>) {
    let events = world.events(watch).await;
    (events.revision, text(world, &events.events))
}

async fn a_watch_tells_all_from_a_revision_on<S: Store, R: Runtime>(world: &World<S, R>) {
    world.put("a", "0").await;
    let first = world.put("a", "1").await;
    let second = world.delete("a").await;
    let third = world.put("a", "2").await;
    let mut watch = world.watch(world.below(""), first).await;
    assert_eq!(told(world, &mut watch).await, (first, vec!["a=1".to_owned()]));
    assert_eq!(told(world, &mut watch).await, (second, vec!["-a".to_owned()]));
    let events = world.events(&mut watch).await;
    let [Event::Put(kv)] = &events.events[..] else { panic!("{events:?}") };
    assert_eq!((kv.create_revision, kv.mod_revision, kv.version), (third, third, 1));
    let fourth = world.put("b", "").await;
    assert_eq!(told(world, &mut watch).await, (fourth, vec!["b=".to_owned()]));
}

async fn a_watch_from_now_tells_what_comes<S: Store, R: Runtime>(world: &World<S, R>) {
    world.put("a", "before").await;
    let mut watch = world.watch(world.below(""), 0).await;
    let revision = world.put("a", "after").await;
    assert_eq!(told(world, &mut watch).await, (revision, vec!["a=after".to_owned()]));
}

async fn a_revision_is_told_whole<S: Store, R: Runtime>(world: &World<S, R>) {
    let count = world.store.limits().operations.min(120);
    let mut watch = world.watch(world.below(""), 0).await;
    let value = "v".repeat(10_000);
    let puts = (0..count).map(|number| world.put_op(format!("{number:03}"), &*value));
    let revision = world.commit(Txn::new(puts.collect::<Vec<_>>())).await.revision;
    let events = world.events(&mut watch).await;
    assert_eq!((events.revision, events.events.len()), (revision, count));
    let done = world.commit(Txn::new([Op::Delete(world.below(""))])).await;
    let events = world.events(&mut watch).await;
    assert_eq!((events.revision, events.events.len()), (done.revision, count));
    assert!(events.events.iter().all(|event| matches!(event, Event::Delete(_))));
}

async fn a_range_is_told_alone<S: Store, R: Runtime>(world: &World<S, R>) {
    let mut one = world.watch(world.one("a"), 0).await;
    let mut below = world.watch(world.below("a/"), 0).await;
    world.put("b", "").await;
    let ops = [world.put_op("a", "1"), world.put_op("a/1", "1"), world.put_op("ab", "1")];
    let revision = world.commit(Txn::new(ops)).await.revision;
    assert_eq!(told(world, &mut one).await, (revision, vec!["a=1".to_owned()]));
    assert_eq!(told(world, &mut below).await, (revision, vec!["a/1=1".to_owned()]));
    let revision = world.delete("a/1").await;
    assert_eq!(told(world, &mut below).await, (revision, vec!["-a/1".to_owned()]));
    let revision = world.delete("a").await;
    assert_eq!(told(world, &mut one).await, (revision, vec!["-a".to_owned()]));
}

async fn a_revision_to_come_is_waited_for<S: Store, R: Runtime>(world: &World<S, R>) {
    let now = world.put("a", "now").await;
    let mut watch = world.watch(world.below(""), now + 2).await;
    let mut last = now;
    while last < now + 3 {
        last = world.put("a", format!("{}", last + 1 - now)).await;
    }
    let (revision, _) = told(world, &mut watch).await;
    assert!(revision >= now + 2);
}

async fn progress_is_told_when_asked_for<S: Store, R: Runtime>(world: &World<S, R>) {
    let mut watch = world.watch(world.below("quiet/"), 0).await;
    let revision = world.put("elsewhere", "").await;
    let reached = async {
        loop {
            watch.request_progress();
            match watch.next().await {
                Ok(Update::Progress(reached)) if reached >= revision => return reached,
                Ok(Update::Progress(_)) => {}
                other => panic!("{other:?}"),
            }
        }
    };
    let reached = world.soon("progress", reached).await;
    assert!(reached <= world.revision().await);
}

async fn progress_comes_after_what_happened<S: Store, R: Runtime>(world: &World<S, R>) {
    let mut watch = world.watch(world.below(""), 0).await;
    let (mut put, mut told) = (0, 0);
    for number in 0..200 {
        put = world.put("a", number.to_string()).await;
        watch.request_progress();
        if number % 7 == 0 {
            match world.soon("an update", watch.next()).await {
                Ok(Update::Events(events)) => {
                    assert!(events.revision > told, "{} after {told}", events.revision);
                    told = events.revision;
                }
                // Events at or before it must not come any more.
                Ok(Update::Progress(reached)) => told = told.max(reached),
                Err(error) => panic!("{error}"),
            }
        }
    }
    while told < put {
        match world.soon("an update", watch.next()).await {
            Ok(Update::Events(events)) => {
                assert!(events.revision > told, "{} after {told}", events.revision);
                told = events.revision;
            }
            Ok(Update::Progress(reached)) => told = told.max(reached),
            Err(error) => panic!("{error}"),
        }
    }
}

async fn a_waiting_that_is_dropped_loses_nothing<S: Store, R: Runtime>(world: &World<S, R>) {
    let mut watch = world.watch(world.below(""), 0).await;
    let writer = world.clone();
    world.runtime.spawn(async move {
        for number in 0..100 {
            writer.put("a", number.to_string()).await;
        }
    });
    let mut found = Vec::new();
    let read = async {
        while found.len() < 100 {
            tokio::select! {
                biased;
                next = watch.next() => match next {
                    Ok(Update::Events(events)) => found.extend(text(world, &events.events)),
                    Ok(Update::Progress(_)) => {}
                    Err(error) => panic!("{error}"),
                },
                () = world.runtime.sleep(Duration::from_millis(1)) => {}
            }
        }
    };
    world.soon("100 events", read).await;
    assert!(found.iter().enumerate().all(|(at, text)| *text == format!("a={at}")), "{found:?}");
}

async fn a_compacted_start_ends_the_watch<S: Store, R: Runtime>(world: &World<S, R>) {
    let first = world.put("a", "1").await;
    world.put("a", "2").await;
    let third = world.put("a", "3").await;
    let mut before = world.watch(world.below(""), first).await;
    assert_eq!(told(world, &mut before).await.0, first);
    world.compact(third).await;
    let mut after = world.watch(world.below(""), first).await;
    let error = world.end(&mut after).await;
    assert!(error.is_compacted(), "{error}");
    // It stays ended.
    assert_eq!(world.end(&mut after).await, error);
    // From here on nothing is missing.
    let mut next = world.watch(world.below(""), third + 1).await;
    let fourth = world.put("a", "4").await;
    assert_eq!(told(world, &mut next).await, (fourth, vec!["a=4".to_owned()]));
}

async fn a_watch_that_was_overtaken_tells_all_or_says_so<S: Store, R: Runtime>(
    world: &World<S, R>,
) {
    let mut watch = world.watch(world.below(""), 0).await;
    let mut expected = Vec::new();
    for number in 0..20 {
        expected.push(world.put("a", number.to_string()).await);
    }
    // Nobody has read any of it.
    world.compact(expected[19]).await;
    expected.push(world.put("a", "20").await);
    let mut expected = expected.into_iter().peekable();
    while let Some(next) = expected.peek().copied() {
        match world.soon("an update", watch.next()).await {
            Ok(Update::Events(events)) => assert_eq!(Some(events.revision), expected.next()),
            Ok(Update::Progress(reached)) => assert!(reached < next, "{next} was passed over"),
            Err(error) => {
                assert!(error.is_compacted(), "{error}");
                assert_eq!(world.end(&mut watch).await, error);
                return;
            }
        }
    }
}

async fn many_watches_are_told_the_same<S: Store, R: Runtime>(world: &World<S, R>) {
    let from = world.revision().await + 1;
    let mut watches = Vec::new();
    for _ in 0..5 {
        watches.push(world.watch(world.below(""), from).await);
    }
    // Some never look, and are dropped.
    drop(watches.split_off(3));
    for number in 0..60 {
        let txn = Txn::when([Compare::absent(world.one(format!("{}", number % 7)))])
            .and_then([world.put_op(format!("{}", number % 7), number.to_string())])
            .or_else([Op::delete(world.key(format!("{}", number % 7)))]);
        world.commit(txn).await;
    }
    let mut all = Vec::new();
    for watch in &mut watches {
        let mut one = Vec::new();
        for _ in 0..60 {
            one.push(told(world, watch).await);
        }
        assert!(one.is_sorted_by(|a, b| a.0 < b.0));
        all.push(one);
    }
    assert!(all.iter().all(|one| *one == all[0]));
}

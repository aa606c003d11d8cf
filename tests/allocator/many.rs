//! Items of so many replicas that a transaction cannot compare them all: what their steps rest on, and
//! that they end as planned all the same.

use std::{collections::BTreeSet, time::Duration};

use raft_autopilot::{
    allocator::{
        Doing, Intent, Item,
        converge::{Batch, Bounds, Budget, round},
    },
    runtime::TokioRuntime,
    store::{Compare, Embedded, KeyRange, Limits, Op, Store, machine::Config},
};

use crate::{
    faulty::Dice,
    scene::{Mode::Mark, Reference, Scene},
};

/// Members of three zones, of which these want to leave or not.
fn members(numbers: std::ops::Range<usize>, leaving: &str) -> String {
    let member = |number| format!("{}/m{number:03}=1{leaving}", ["a", "b", "c"][number % 3]);
    numbers.map(member).collect::<Vec<_>>().join(" ")
}

fn item(scene: &Scene) -> &Item<Reference> {
    scene.world.item("i1").unwrap()
}

/// The members' numbers in their names, of those who hold the item.
fn held(scene: &Scene) -> Vec<usize> {
    let name = |member| &scene.world.member(member).key.member[1..];
    let mut held: Vec<usize> =
        item(scene).held.iter().map(|held| name(held.member).parse().unwrap()).collect();
    held.sort_unstable();
    held
}

/// Makes rounds until nothing is left to do, none of which leaves the item with fewer consistent replicas
/// than it wants and had, or without a primary. Returns how many there were.
async fn settle(scene: &mut Scene, wanted: usize) -> usize {
    for rounds in 0..100 {
        let before = item(scene).consistent();
        if !scene.round().await && !scene.mark().await {
            return rounds;
        }
        let after = item(scene).consistent();
        assert!(after >= before.min(wanted), "it had {before}, and has {after}");
        let primaries = item(scene).held.iter().filter(|held| held.slot == 0).count();
        assert_eq!(primaries, 1, "{:?}", item(scene));
    }
    panic!("it does not settle: {:?}", scene.world.doing());
}

#[tokio::test(start_paused = true)]
async fn an_item_of_a_hundred_replicas_gains_loses_and_moves_them_and_never_lacks_one() {
    let mut scene = Scene::with(&format!("i1:100 {}", members(0..120, ""))).await;
    settle(&mut scene, 100).await;
    assert_eq!(held(&scene).len(), 100);
    for wanted in [40, 120, 100] {
        scene.put(&format!("i1:{wanted}")).await;
        settle(&mut scene, wanted).await;
        assert_eq!(held(&scene).len(), wanted);
        assert!(scene.world.doing().is_empty(), "{:?}", scene.world.doing());
    }
    // As many leave as can.
    scene.put(&members(0..20, "E")).await;
    settle(&mut scene, 100).await;
    assert_eq!(held(&scene), (20..120).collect::<Vec<usize>>());
    // All of them are replaced, the primary too.
    scene.put(&format!("{} {}", members(20..120, "E"), members(120..220, ""))).await;
    let rounds = settle(&mut scene, 100).await;
    assert_eq!(held(&scene), (120..220).collect::<Vec<usize>>());
    assert!(scene.world.doing().is_empty(), "{:?}", scene.world.doing());
    // As many go in a round as there is room for beside a hundred that stay.
    assert!(rounds <= 10, "{rounds} rounds");
}

#[tokio::test(start_paused = true)]
async fn an_item_that_wants_nobody_is_given_up_bit_by_bit_and_its_primary_last() {
    let mut scene = Scene::with(&format!("i1:200 {}", members(0..200, ""))).await;
    settle(&mut scene, 200).await;
    scene.put("i1:0").await;
    let mut left = Vec::new();
    while scene.round().await {
        let primaries = item(&scene).held.iter().filter(|held| held.slot == 0).count();
        left.push((held(&scene).len(), primaries));
    }
    assert_eq!(left, [(76, 1), (0, 0)]);
}

#[tokio::test(start_paused = true)]
async fn an_item_that_wants_more_than_can_be_compared_keeps_what_it_should_lose_and_says_so() {
    let mut scene = Scene::with(&format!("i1:125 {}", members(0..126, ""))).await;
    settle(&mut scene, 125).await;
    scene.put("i1:124").await;
    settle(&mut scene, 124).await;
    assert_eq!((held(&scene).len(), scene.doing(Doing::TooLarge)), (125, 1));
    scene.put("i1:123").await;
    settle(&mut scene, 123).await;
    assert_eq!((held(&scene).len(), scene.world.doing().len()), (123, 0));
}

/// An item with 160 consistent replicas that wants 40, and the transaction that takes some away.
async fn losing() -> (Scene, Batch) {
    let mut scene = Scene::with(&format!("i1:160 {}", members(0..160, ""))).await;
    settle(&mut scene, 160).await;
    scene.put("i1:40").await;
    let batch = made(&mut scene);
    assert_eq!((batch.txn.compares.len(), batch.ended.len()), (128, 84));
    (scene, batch)
}

/// The transaction that is made now.
fn made(scene: &mut Scene) -> Batch {
    let intent = Intent::new(&mut scene.world, &scene.rules, &scene.outside);
    let (limits, budget) = (scene.store.limits(), Budget::default());
    let bounds = Bounds { limits, budget, now: Duration::ZERO };
    let mut batches = round(&mut scene.world, &intent, &bounds, &BTreeSet::new()).batches;
    assert_eq!(batches.len(), 1, "one part of an item a round");
    batches.pop().unwrap()
}

/// Does a transaction after something else was done. Returns whether it held, and how many consistent
/// replicas are left.
async fn after(mut scene: Scene, batch: Batch, ops: Vec<Op>) -> (bool, usize) {
    scene.commit(ops).await;
    let done = scene.store.commit(batch.txn).await.unwrap();
    scene.look(done.revision).await;
    (done.succeeded, item(&scene).consistent())
}

/// The keys of assignments that stay: those that are compared, and the others.
fn staying(scene: &Scene, batch: &Batch) -> (Vec<String>, Vec<String>) {
    let (view, range) = (scene.mirror.view(), KeyRange::prefix("/root/assign/i1#"));
    let goes = |key: &str| batch.txn.success.contains(&Op::delete(key));
    let all = view.range(&range).map(|(_, entry)| entry.kv.key.to_string());
    let bound = |key: &String| {
        let is_of = |compare: &Compare| compare.range == KeyRange::key(key.as_str());
        batch.txn.compares.iter().any(is_of)
    };
    all.filter(|key| !goes(key)).partition(bound)
}

#[tokio::test(start_paused = true)]
async fn a_replica_goes_only_while_as_many_consistent_ones_stay_as_are_wanted() {
    let (scene, batch) = losing().await;
    let (bound, others) = staying(&scene, &batch);
    assert_eq!((bound.len(), others.len()), (40, 36));
    // Of those that the step rests on, none may end or change; of the others, none may change.
    assert_eq!(after(scene, batch, vec![Op::delete(bound[7].as_str())]).await, (false, 159));
    for of_them in [0, 1] {
        let (scene, batch) = losing().await;
        let (bound, others) = staying(&scene, &batch);
        let op = Op::put([bound, others][of_them][7].as_str(), "");
        assert_eq!(after(scene, batch, vec![op]).await, (false, 159));
    }
    // That one of them ends takes nothing from what the item wants.
    let (scene, batch) = losing().await;
    let (_, others) = staying(&scene, &batch);
    assert_eq!(after(scene, batch, vec![Op::delete(others[7].as_str())]).await, (true, 75));
}

/// A scene over a store that takes so few operations.
async fn narrow(operations: usize) -> Scene {
    let limits = Limits { operations, ..Limits::default() };
    let config = Config { limits, ..Config::default() };
    Scene::over(Embedded::new(config, TokioRuntime)).await
}

#[tokio::test(start_paused = true)]
async fn of_two_slots_of_a_member_the_better_one_goes_only_as_a_replica_does() {
    let mut scene = narrow(8).await;
    let held = "1@a/0.0 1@a/0.2* 1@a/A.3* 1@a/D.5* 1@b/B.4* 1@b/E.6*";
    for some in [held, "i1:2 a/A=1 b/B=1", "a/0=0 a/D=0 b/E=0"] {
        scene.put(some).await;
    }
    // With the primary, and all else that goes, it does not fit.
    let batch = made(&mut scene);
    assert_eq!(batch.txn.success, [Op::delete("/root/assign/i1#a#0#2")]);
    let gone = ["a#D#5", "b#B#4", "b#E#6"].map(|held| format!("/root/assign/i1#{held}"));
    let ops = gone.iter().map(|key| Op::delete(key.as_str())).collect();
    assert_eq!(after(scene, batch, ops).await, (false, 2));
}

/// A store that takes few operations, and an item of about as many replicas.
async fn crowded(seed: u64) {
    let mut dice = Dice(seed);
    let mut scene = narrow(16).await;
    scene.put(&format!("i1:9 {}", members(0..24, ""))).await;
    let mut wanted = 9;
    for _ in 0..60 {
        let number = usize::try_from(dice.roll(24)).unwrap();
        match dice.roll(6) {
            0 => {
                wanted = usize::try_from(dice.roll(12)).unwrap();
                scene.put(&format!("i1:{wanted}")).await;
            }
            1 | 2 => scene.put(&members(number..number + 1, ["E", ""][number % 2])).await,
            3 => scene.put(&format!("-{}", members(number..number + 1, ""))).await,
            4 => {
                scene.mark().await;
            }
            // Somebody makes an assignment by hand, for a member that has one perhaps.
            _ => {
                let member = members(number..number + 1, "");
                let place = member.trim_end_matches("=1");
                scene.put(&format!("1@{place}.{}*", 100 + dice.roll(9))).await;
            }
        }
        let before = scene.world.item("i1").map_or(0, Item::consistent);
        scene.round().await;
        let after = scene.world.item("i1").map_or(0, Item::consistent);
        assert!(after >= before.min(wanted), "seed {seed}: it had {before}, and has {after}");
        let held = scene.world.item("i1").into_iter().flat_map(|item| &item.held);
        let slots: Vec<u32> = held.map(|held| held.slot).collect();
        assert!(slots.is_empty() || slots.contains(&0), "seed {seed}: {slots:?}");
    }
    scene.put(&members(0..24, "")).await;
    scene.settle(Mark).await;
    assert!(scene.world.doing().is_empty(), "seed {seed}: {:?}", scene.world.doing());
    assert_eq!(held(&scene).len(), wanted);
}

#[tokio::test(start_paused = true)]
async fn whatever_is_changed_meanwhile_an_item_of_many_replicas_ends_as_planned() {
    for seed in 0..60 {
        crowded(seed).await;
    }
}

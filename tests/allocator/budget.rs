//! How many replicas may be on their way: what waits for that, what does not, and that nothing does for ever.

use std::{collections::BTreeSet, time::Duration};

use raft_autopilot::{
    allocator::{Doing, Leading, MemberKey, Options, converge::Budget},
    runtime::{Runtime, TokioRuntime},
    store::{KeyRange, Op, RangeRequest, Store},
};

use crate::{
    faulty::Faulty,
    scene::{Mode::Mark, Scene},
    town::{options, put_items, start, start_over, store},
};

fn words(words: impl Iterator<Item = String>) -> String {
    words.collect::<Vec<_>>().join(" ")
}

/// How many replicas are on their way to a member.
fn coming(scene: &Scene, name: &str) -> usize {
    let held = scene.world.items().flat_map(|(_, item)| &item.held);
    let is_it = |number| &*scene.world.member(number).key.member == name;
    held.filter(|held| !held.consistent && is_it(held.member)).count()
}

/// Makes rounds, and all that is new consistent but what goes to a member, until nothing is left to do.
async fn settle_but(scene: &mut Scene, stuck: &str) {
    for _ in 0..200 {
        let range = KeyRange::prefix("/root/assign/");
        let found = scene.store.range(RangeRequest::new(range)).await.unwrap();
        let good = found.items.iter().filter(|kv| {
            kv.value.is_empty() && !kv.key.to_string().contains(&format!("#{stuck}#"))
        });
        let good: Vec<Op> = good.map(|kv| Op::put(&kv.key, "consistent")).collect();
        let any = !good.is_empty();
        for some in good.chunks(100) {
            scene.commit(some.to_vec()).await;
        }
        if !scene.round().await && !any {
            return;
        }
    }
    panic!("it does not settle: {:?}", scene.world.doing());
}

/// Forty items on A and B, of which all on B are lost, while C and D join.
async fn after_a_loss() -> Scene {
    let items = words((10..50).map(|item| {
        let (one, two) = (item % 2, 1 - item % 2);
        format!("i{item}:2 {item}@a/A.{one}* {item}@b/B.{two}*")
    }));
    let mut scene = Scene::with(&format!("{items} a/A=40 b/B=40")).await;
    let lost = words((10..50).map(|item| format!("-{item}@b/B.{}", 1 - item % 2)));
    scene.put(&format!("{lost} -b/B c/C=40 d/D=40")).await;
    scene
}

#[tokio::test(start_paused = true)]
async fn every_item_gets_what_it_lacks_though_replicas_on_one_member_never_become_consistent() {
    let budget = Budget { moves: Some(1), inbound: Some(2), ..Budget::default() };
    let mut scene = after_a_loss().await;
    scene.budget = budget;
    settle_but(&mut scene, "D").await;
    // Those that are meant to be on D wait for that, and all others have what they want.
    assert_eq!((coming(&scene, "D"), coming(&scene, "C")), (2, 0));
    let lack = |scene: &Scene| {
        let lacking = scene.world.items().filter(|(_, item)| item.held.len() < 2);
        lacking.map(|(name, _)| name.to_string()).collect::<BTreeSet<String>>()
    };
    let (lacking, report) = (lack(&scene), scene.look_on());
    let wait = report.moves.iter().filter(|moving| lacking.contains(&*moving.item));
    let to: Vec<&MemberKey> = wait.flat_map(|moving| &moving.to).collect();
    assert_eq!(to, vec![&MemberKey::new("d", "D"); lacking.len()]);
    assert!(!lacking.is_empty() && scene.doing(Doing::OverBudget) >= lacking.len());
    // So many more follow whenever those before have been on their way for long.
    for number in 2..30 {
        scene.now += budget.counts_for;
        settle_but(&mut scene, "D").await;
        assert!(coming(&scene, "D") <= 2 * number);
    }
    assert_eq!(scene.doing(Doing::OverBudget), 0);
    assert!(lack(&scene).is_empty() && scene.look_on().lacking.is_empty());
    assert_eq!(scene.doing(Doing::Copying), coming(&scene, "D"));
}

#[tokio::test(start_paused = true)]
async fn what_is_lost_waits_for_no_move() {
    let mut scene = after_a_loss().await;
    scene.budget.moves = Some(1);
    scene.round().await;
    // The forty that are lacking, and one of the moves that make loads even.
    assert_eq!((scene.world.copying(), scene.removed), (41, 0));
    scene.settle(Mark).await;
    assert!(scene.world.doing().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_member_that_joins_gets_a_few_at_a_time_and_its_whole_share_in_the_end() {
    let items = words((0..40).map(|item| format!("i{item:02}:1 {item:02}@a/A.0*")));
    let mut scene = Scene::with(&format!("{items} a/A=40")).await;
    scene.budget.inbound = Some(3);
    scene.put("a/B=40 a/C=40").await;
    let (mut rounds, mut most) = (0, 0);
    while scene.round().await || scene.mark().await {
        most = most.max(coming(&scene, "B"));
        assert!(coming(&scene, "B") <= 3 && coming(&scene, "C") <= 3);
        rounds += 1;
        assert!(rounds < 100);
    }
    assert_eq!((most, scene.removed), (3, 26));
    let mut loads = scene.loads();
    loads.sort_unstable();
    assert_eq!(loads, [13, 13, 14]);
}

#[tokio::test(start_paused = true)]
async fn of_all_that_goes_to_a_member_the_most_endangered_goes_first() {
    let items = "i1:1 1@a/A.0* i2:1 2@a/A.0* i3:2 3@a/A.0* i4:3 4@a/A.0* 4@a/B.1* i5:1";
    let mut scene = Scene::with(&format!("{items} a/A=4 a/B=1")).await;
    scene.budget.inbound = Some(1);
    scene.put("a/C=9").await;
    let mut order = Vec::new();
    let mut known = BTreeSet::new();
    while scene.round().await || scene.mark().await {
        let new = scene.world.items().filter(|(_, item)| {
            item.held.iter().any(|held| &*scene.world.member(held.member).key.member == "C")
        });
        let new: Vec<String> = new.map(|(name, _)| name.to_string()).collect();
        order.extend(new.into_iter().filter(|name| known.insert(name.clone())));
    }
    assert_eq!(order[..3], ["i5", "i3", "i4"], "{order:?}");
}

#[tokio::test(start_paused = true)]
async fn a_move_that_takes_long_holds_no_others_up() {
    let items = words((0..12).map(|item| format!("i{item:02}:1 {item:02}@a/A.0*")));
    let mut scene = Scene::with(&format!("{items} a/A=40 a/B=40")).await;
    scene.budget.moves = Some(1);
    settle_but(&mut scene, "B").await;
    assert_eq!((scene.world.copying(), scene.doing(Doing::OverBudget)), (1, 5));
    // A leaves, and nothing goes on.
    scene.put("a/C=40 a/A=40E").await;
    settle_but(&mut scene, "B").await;
    assert!(scene.doing(Doing::OverBudget) > 0 && scene.removed == 0);
    for _ in 0..6 {
        scene.now += scene.budget.counts_for.saturating_sub(Duration::from_millis(1));
        settle_but(&mut scene, "B").await;
        let before = scene.world.copying();
        scene.now += Duration::from_millis(1);
        settle_but(&mut scene, "B").await;
        assert!(scene.world.copying() <= before + 1);
    }
    assert_eq!((scene.removed, scene.world.copying()), (6, 6));
    assert_eq!(scene.doing(Doing::OverBudget), 0);
}

#[tokio::test(start_paused = true)]
async fn primaries_are_handed_over_though_replicas_are_on_their_way_for_ever() {
    let items = words((0..8).map(|item| format!("i{item}:2 {item}@a/A.0* {item}@b/B.1*")));
    let mut scene = Scene::with(&format!("{items} a/A=40 b/B=40 c/C=40")).await;
    scene.budget.moves = Some(1);
    settle_but(&mut scene, "C").await;
    assert_eq!((coming(&scene, "C"), scene.world.copying()), (1, 1));
    // One a round.
    let primaries = |name: &str| {
        let member = scene.world.members().find(|(_, member)| &*member.key.member == name);
        member.unwrap().1.primaries
    };
    assert!(primaries("B") >= 2, "{} and {}", primaries("A"), primaries("B"));
}

#[tokio::test(start_paused = true)]
async fn who_leads_goes_on_by_its_clock() {
    let store = store();
    put_items(&store, (0..6).map(|item| (format!("i{item}"), 1))).await;
    let in_flight_for = Duration::from_secs(5);
    let leading = || Leading { moves_in_flight: Some(1), in_flight_for, ..Leading::default() };
    let of = |name| Options { leading: leading(), ..options("a", name, 10) };
    let one = start(&store, of("one"));
    one.handle.report_when(|report| report.is_settled() && report.items == 6).await.unwrap();
    let slow = Duration::from_secs(1_000_000);
    let two = start_over(Faulty::new(&store, 2, None), of("two"), slow);
    let since = TokioRuntime.now();
    for copying in 1..=3 {
        let told = one.handle.report_when(|report| report.copying == copying);
        let told = tokio::time::timeout(Duration::from_secs(60), told).await.unwrap().unwrap();
        let took = TokioRuntime.now().saturating_sub(since);
        let earliest = in_flight_for * u32::try_from(copying - 1).unwrap();
        assert!(took >= earliest && took < earliest + Duration::from_secs(1), "{took:?}: {told:?}");
    }
    two.crash();
}

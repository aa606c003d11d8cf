//! What the reference's vectors of its flow network are about, as outcomes: who overflows, when, and who
//! stays where it is.

use raft_autopilot::allocator::{Reason, ZoneRule};

use crate::scene::{Mode::Mark, Scene};

#[tokio::test(start_paused = true)]
async fn who_is_held_where_it_should_be_stays_there() {
    let mut scene = Scene::with("i1:2 i2:1 e/bar=1 e/foo=2 w/baz=3").await;
    scene.put("1@e/foo.1* 1@w/baz.0* 2@e/bar.0* 2@w/baz.1").await;
    scene.settle(Mark).await;
    // The reference's solver of today leaves bar idle; ours, as its older one, keeps it.
    assert_eq!(scene.held(), "1@baz!,foo 2@bar!");
    assert_eq!((scene.added, scene.removed), (0, 1));
}

#[tokio::test(start_paused = true)]
async fn a_member_takes_more_than_its_share_before_a_replica_has_no_place() {
    // The shares are 1 and 3, and each holds an item once.
    let mut scene = Scene::with("i1:2 i2:2 a/one=2 a/two=6").await;
    scene.settle(Mark).await;
    assert_eq!(scene.held(), "1@two!,one 2@one!,two");
    assert!(scene.intent().lacking().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_member_takes_more_than_its_share_before_a_zone_does() {
    // The shares are 3, 3 and 2.
    let mut scene = Scene::with("i1:2 i2:2 i3:2 i4:2 a/one=8 a/two=8 b/three=4").await;
    scene.settle(Mark).await;
    assert_eq!(scene.loads(), [2, 2, 4]);
    assert_eq!(scene.intent().certificate().zones_violated, 0);
}

#[tokio::test(start_paused = true)]
async fn a_zone_takes_all_of_an_item_only_where_there_is_no_other_way() {
    let mut scene = Scene::with("i1:2 i2:2 i3:2 a/one=2 a/two=2 b/three=2").await;
    scene.settle(Mark).await;
    assert_eq!(scene.held(), "1@two!,one 2@three!,two 3@one!,three");
    assert_eq!(scene.loads(), [2, 2, 2]);
    assert_eq!(scene.intent().certificate().zones_violated, 1);
    // One more place, and it is not.
    scene.put("b/three=3").await;
    scene.settle(Mark).await;
    assert_eq!(scene.loads(), [2, 1, 3]);
    assert_eq!(scene.intent().certificate().zones_violated, 0);
    assert_eq!((scene.added, scene.removed), (7, 1));
}

#[tokio::test(start_paused = true)]
async fn an_item_keeps_the_zones_that_it_has() {
    for zone_rule in [ZoneRule::Two, ZoneRule::Spread, ZoneRule::MaxPerZone(1)] {
        let mut scene = Scene::with("i1:2 a/one=2 b/two=2 c/three=2 1@a/one.0* 1@c/three.1*").await;
        scene.rules.zone_rule = zone_rule;
        scene.settle(Mark).await;
        assert_eq!((scene.held().as_str(), scene.sent), ("1@one!,three", 0), "{zone_rule:?}");
        // It gets as many more as there are members, and the rest has no place.
        scene.put("i1:6").await;
        scene.settle(Mark).await;
        assert_eq!(scene.held(), "1@one!,three,two");
        assert_eq!((scene.added, scene.removed), (1, 0));
        let lacking: Vec<_> =
            scene.intent().lacking().iter().map(|it| (it.missing, it.reason)).collect();
        assert_eq!(lacking, [(3, Reason::TooFewMembers(3))]);
        assert_eq!(scene.intent().certificate().beyond, 0);
    }
}

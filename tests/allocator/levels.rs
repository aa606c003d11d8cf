//! Zones that lie in others: regions of racks, and rules that are required.

use std::collections::BTreeSet;

use raft_autopilot::allocator::{
    Doing, Reason, Stays, ZoneRule,
    plan::{Caps, Held, Step, Wanted, steps},
};

use crate::{
    case::place,
    large::Dice,
    scene::{Mode::Mark, Scene},
};

/// The regions that each item is in, of members in zones that are called `region/rack`.
fn regions(scene: &Scene) -> Vec<BTreeSet<String>> {
    let region = |member: u32| {
        let zone = scene.world.member(member).key.zone.to_string();
        zone.split('/').next().unwrap().to_owned()
    };
    let items = scene.world.items().filter(|(_, item)| item.stands());
    items.map(|(_, item)| item.held.iter().map(|held| region(held.member)).collect()).collect()
}

/// Two racks in each of two regions, with a member each, and so many items of two replicas.
async fn scene(items: usize) -> Scene {
    let mut scene = Scene::new().await;
    scene.rules.levels = vec![ZoneRule::Two];
    let items: Vec<String> = (0..items).map(|item| format!("i{item:02}:2")).collect();
    scene.put(&items.join(" ")).await;
    scene.put("eu/1/A=40 eu/2/B=40 us/1/C=40 us/2/D=40").await;
    scene
}

#[tokio::test(start_paused = true)]
async fn each_item_is_in_two_regions_and_not_only_in_two_racks() {
    let mut scene = scene(20).await;
    scene.settle(Mark).await;
    assert_eq!(scene.loads(), [10, 10, 10, 10]);
    assert!(regions(&scene).iter().all(|regions| regions.len() == 2), "{}", scene.held());
    // A rack is lost: its items stay in their regions.
    scene.put("-us/2/D").await;
    scene.settle(Mark).await;
    assert_eq!(scene.loads(), [10, 10, 20]);
    assert!(regions(&scene).iter().all(|regions| regions.len() == 2), "{}", scene.held());
    // The last one of its region cannot leave.
    scene.put("us/1/C=40E").await;
    scene.settle(Mark).await;
    assert_eq!(scene.loads(), [10, 10, 20]);
    let report = scene.look_on();
    let stays = report.members.iter().filter_map(|member| member.stays);
    assert_eq!(stays.collect::<Vec<Stays>>(), [Stays::ZoneRule]);
}

#[tokio::test(start_paused = true)]
async fn a_rule_that_is_required_leaves_a_replica_out_and_says_why_but_takes_none_away() {
    let mut scene = scene(3).await;
    scene.put("-us/1/C -us/2/D").await;
    scene.settle(Mark).await;
    // Both racks of the one region have them, because that is better than one replica.
    assert_eq!(scene.loads(), [3, 3]);
    assert_eq!(scene.intent().certificate().zones_violated, 3);
    scene.rules.zones_required = true;
    scene.put("i03:2").await;
    scene.settle(Mark).await;
    assert_eq!(scene.loads().iter().sum::<u32>(), 7, "{}", scene.held());
    let lacking = scene.intent().lacking().to_vec();
    assert!(lacking.iter().all(|lacks| lacks.reason == Reason::ZoneRule(1)), "{lacking:?}");
    assert_eq!((lacking.len(), scene.removed, scene.doing(Doing::NoPlace)), (4, 0, 3));
    // Another region comes.
    scene.put("us/1/C=40").await;
    scene.settle(Mark).await;
    assert!(regions(&scene).iter().all(|regions| regions.len() == 2), "{}", scene.held());
    assert_eq!((scene.intent().lacking().len(), scene.loads().iter().sum::<u32>()), (0, 8));
}

#[tokio::test(start_paused = true)]
async fn whatever_comes_and_goes_every_item_is_in_two_regions_and_a_new_leader_moves_nothing() {
    for seed in 1..=3 {
        let mut dice = Dice(seed);
        let mut scene = scene(30).await;
        let zones = ["eu/1", "eu/2", "us/1", "us/2", "asia/1", "asia/2"];
        for turn in 0..12 {
            let zone = zones[dice.below(6) as usize];
            match dice.below(4) {
                0 => scene.put(&format!("i{:02}:{}", dice.below(40), 2 + dice.below(2))).await,
                1 => scene.put(&format!("{zone}/m{turn}={}", 20 + dice.below(30))).await,
                2 => scene.put(&format!("{zone}/m{turn}={}E", 20 + dice.below(30))).await,
                _ => {
                    let comers = scene.world.members().filter(|(_, member)| {
                        member.stands() && member.key.member.starts_with('m')
                    });
                    let last = comers.map(|(_, member)| member.key.clone()).last();
                    if let Some(key) = last {
                        scene.put(&format!("-{}/{}", key.zone, key.member)).await;
                    }
                }
            }
            scene.settle(Mark).await;
            let all_are = regions(&scene).iter().all(|regions| regions.len() >= 2);
            assert!(all_are, "seed {seed}, turn {turn}: {}", scene.held());
            let mut late = scene.reopened().await;
            late.rules = scene.rules.clone();
            let told = late.plan().certificate();
            assert_eq!((told.added, told.removed, told.hand_offs), (0, 0, 0), "{seed}, {turn}");
        }
    }
}

#[test]
fn of_replicas_that_may_go_the_one_stays_that_keeps_two_regions() {
    let held = |member: u32, zone: u32, load: u64| Held {
        member,
        zone,
        slot: member,
        consistent: true,
        load,
        leaving: false,
    };
    let wanted = |member: u32, zone: u32| Wanted { member, zone, primary: member == 0, room: true };
    // Zones 0 and 1 are one region, 2 and 3 the other; the second is to stay where a new replica comes to zone 3.
    let all = [held(0, 0, 1), held(1, 1, 1), held(2, 2, 9)];
    let goal = [wanted(0, 0), wanted(3, 3)];
    let gone = |caps: &Caps<'_>| {
        let removed = |step: &Step<u32>| match step {
            Step::Remove { member, .. } => Some(*member),
            _ => None,
        };
        steps(2, caps, &all, &goal).iter().filter_map(removed).collect::<Vec<u32>>()
    };
    assert_eq!(gone(&1.into()), [2], "the most loaded");
    let lies_in = [0, 0, 1, 1];
    assert_eq!(gone(&Caps { zone: 1, around: vec![(&lies_in, 1)] }), [1]);
}

#[test]
fn a_case_has_levels() {
    let case = |rules: &str| {
        place(&format!(
            r#"{{"members":[{{"zone":"eu/1","id":"A","limit":9}},{{"zone":"eu/2","id":"B","limit":9}},
                {{"zone":"us/1","id":"C","limit":9}}],
                "items":[{{"id":"i1","replication":2}},{{"id":"i2","replication":2}}]{rules}}}"#
        ))
    };
    let zones = |rules: &str| {
        let placement = case(rules);
        let desired = placement.desired.iter().map(|desired| desired.zone.clone());
        (desired.filter(|zone| zone == "us/1").count(), placement.summary.max_load)
    };
    assert_eq!(zones("").1, 2);
    assert_eq!(zones(r#","levels":["two"]"#), (2, 2));
    let lacks = case(r#","levels":[{"max_per_zone":1}],"zones_required":true"#);
    assert_eq!((lacks.summary.placed, lacks.summary.zones_violated), (4, 0));
    let refused = |rules: &str| {
        let case = format!(r#"{{"members":[],"items":[],{rules}}}"#);
        serde_json::from_str::<raft_autopilot::allocator::case::Case>(&case)
            .unwrap_err()
            .to_string()
    };
    let told = refused(r#""levels":["too"]"#);
    assert!(told.contains(r#"expected "two", "spread" or {"max_per_zone": 2}"#), "{told}");
}

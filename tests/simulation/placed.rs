//! Placement by name: what happens to items when one thing goes wrong, on the whole of the real code.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use openraft::AsyncRuntime;
use openraft_rt_sim::SimRuntime;
use raft_autopilot::allocator::{MemberKey, Standing};
use raft_autopilot::autopilot::Config;
use raft_autopilot::placement::{Hold, Published};

use crate::autopilot;
use crate::character::{Character, HEARTBEAT};
use crate::network::{Effect, Rule};
use crate::oracle::Oracle;
use crate::types::{clock, sleep};
use crate::work::{self, Work};
use crate::world::World;

const SEEDS: u64 = 3;
pub(crate) const IDS: [u64; 5] = [1, 2, 3, 4, 5];
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Runs a scene with five servers that hold all items, before the eyes of the judge of every revision.
pub(crate) fn play<F: Future<Output = ()>>(scene: impl Fn(Arc<World>) -> F) {
    for seed in 0..SEEDS {
        let oracle = Arc::new(Oracle::default());
        SimRuntime::with_seed(seed).block_on(async {
            let calm = Character::calm(&IDS, Config::for_heartbeat(HEARTBEAT));
            let character = Character { works: true, ..calm };
            let world = World::new(seed, character, oracle.clone(), autopilot::rider());
            world.form(&IDS).await;
            work::observe(&world);
            work::settled(&world, PATIENCE).await;
            // Long enough that everybody is stable.
            sleep(Duration::from_secs(15)).await;
            scene(world.clone()).await;
            world.end();
        });
        assert_eq!(oracle.violation(), None, "seed {seed}:\n{}", tail(&oracle));
    }
}

fn tail(oracle: &Oracle) -> String {
    let trace = oracle.trace();
    let lines: Vec<&str> = trace.lines().collect();
    lines[lines.len().saturating_sub(40)..].join("\n")
}

fn key(id: u64) -> MemberKey {
    MemberKey::new("default", id.to_string())
}

/// What the leader publishes.
fn published(world: &World) -> Option<Arc<Published>> {
    let (leader, _) = world.leader()?;
    Some(world.work(leader)?.standings.published())
}

pub(crate) fn standing(world: &World, id: u64) -> Option<Standing> {
    published(world)?.notices.get(&key(id)).map(|notice| notice.standing)
}

fn hold(world: &World) -> Option<Hold> {
    published(world)?.hold.clone()
}

/// How many items a server holds, and of how many it is the primary, by the word of whoever plans.
pub(crate) fn load(world: &World, id: u64) -> Option<(u32, u32)> {
    let report = world.up().into_iter().find_map(|id| world.work(id)?.items.report())?;
    let member = report.members.iter().find(|member| member.key == key(id))?;
    Some((member.load, member.primaries))
}

pub(crate) async fn until(world: &World, what: &str, mut holds: impl FnMut() -> bool) {
    let end = clock() + PATIENCE;
    while !holds() {
        let (seed, published) = (world.seed, published(world));
        assert!(
            clock() < end,
            "seed {seed}: never {what}: {published:#?}\n{}",
            tail(&world.oracle)
        );
        sleep(Duration::from_millis(5)).await;
    }
}

/// Somebody who neither leads nor plans.
pub(crate) fn follower(world: &World) -> u64 {
    let leader = world.leader().map(|(id, _)| id);
    let plans = |id: u64| world.work(id).is_some_and(|Work { items, .. }| items.report().is_some());
    IDS.into_iter().rev().find(|id| Some(*id) != leader && !plans(*id)).unwrap()
}

/// Nobody of the first hears anybody of the second, nor the other way round.
fn cut(world: &World, ones: &[u64], others: &[u64]) -> [u64; 2] {
    between(world, ones, others, Effect::Cut)
}

/// Something happens to all messages between the first and the second.
fn between(world: &World, ones: &[u64], others: &[u64], effect: Effect) -> [u64; 2] {
    let set = |ids: &[u64]| ids.iter().copied().collect::<BTreeSet<_>>();
    [(ones, others), (others, ones)]
        .map(|(from, to)| world.network.begin(Rule { from: set(from), to: set(to), effect }))
}

fn heal(world: &World, cut: [u64; 2]) {
    for rule in cut {
        world.network.end(rule);
    }
}

fn others(id: u64) -> Vec<u64> {
    IDS.into_iter().filter(|other| *other != id).collect()
}

#[test]
fn a_follower_whose_disk_hangs_while_its_lease_lives_is_drained() {
    play(async |world| {
        let sick = follower(&world);
        let before = load(&world, sick).unwrap();
        world.disk(sick).unwrap().set_hangs(true);
        is_drained(&world, sick, before).await;
        world.disk(sick).unwrap().set_hangs(false);
        has_its_share_again(&world, sick, before).await;
    });
}

#[test]
fn a_server_that_is_slow_while_its_lease_lives_is_drained() {
    play(async |world| {
        let slow = follower(&world);
        let before = load(&world, slow).unwrap();
        // Too slow for heartbeats, and quick enough for its lease.
        let effect = Effect::Slow(Duration::from_millis(250));
        let rules = between(&world, &[slow], &others(slow), effect);
        is_drained(&world, slow, before).await;
        heal(&world, rules);
        has_its_share_again(&world, slow, before).await;
    });
}

/// Waits until a server that held so much has given up its primaries first, and then everything.
async fn is_drained(world: &Arc<World>, sick: u64, before: (u32, u32)) {
    until(world, "hands its primaries over", || load(world, sick).is_some_and(|l| l.1 == 0)).await;
    assert_eq!(load(world, sick).unwrap().0, before.0, "its replicas stay at first");
    until(world, "gives up all that it holds", || load(world, sick) == Some((0, 0))).await;
    // Its member is still there: it was health that has drained it, and not its lease.
    let report = world.up().into_iter().find_map(|id| world.work(id)?.items.report()).unwrap();
    let member = report.members.iter().find(|member| member.key == key(sick)).unwrap();
    assert!(member.stands, "its lease lives");
}

async fn has_its_share_again(world: &Arc<World>, id: u64, before: (u32, u32)) {
    until(world, "has its share again", || {
        standing(world, id) == Some(Standing::Full)
            && load(world, id).is_some_and(|load| load.0 + 1 >= before.0 && load.1 > 0)
    })
    .await;
    work::settled(world, PATIENCE).await;
}

#[test]
fn who_plans_and_whose_disk_hangs_is_drained_by_another() {
    play(async |world| {
        let leader = world.leader().unwrap().0;
        let plans = IDS.into_iter().find(|id| world.work(*id).unwrap().items.report().is_some());
        let plans = plans.unwrap();
        if plans == leader {
            let autopilot = world.autopilot(leader).unwrap();
            autopilot.transfer(Some(follower(&world).to_string().into())).await.unwrap();
            until(&world, "another leads", || world.leader().is_some_and(|(id, _)| id != plans))
                .await;
        }
        world.disk(plans).unwrap().set_hangs(true);
        until(&world, "is drained by another", || {
            let mut work = others(plans).into_iter().filter_map(|id| world.work(id));
            let report = work.find_map(|work| work.items.report());
            report.is_some_and(|report| {
                let sick = report.members.iter().find(|member| member.key == key(plans));
                sick.is_none_or(|sick| sick.load == 0) && report.is_settled()
            })
        })
        .await;
    });
}

#[test]
fn an_observer_that_is_cut_off_from_everybody_takes_nothing_from_anybody() {
    play(async |world| {
        let leader = world.leader().unwrap().0;
        let rules = cut(&world, &[leader], &others(leader));
        let end = clock() + Duration::from_secs(20);
        while clock() < end {
            // What the others think of the one that is cut off is another matter.
            for id in others(leader) {
                assert_eq!(standing(&world, id), Some(Standing::Full), "{id}");
            }
            let alone = world.work(leader).unwrap().standings.published();
            let taken = alone.notices.values().find(|notice| notice.standing != Standing::Full);
            assert!(taken.is_none(), "{taken:?}");
            sleep(Duration::from_millis(50)).await;
        }
        let alone = world.work(leader).unwrap().standings.published();
        assert_eq!(alone.hold, Some(Hold::NotLeading), "and the reason is shown");
        heal(&world, rules);
        until(&world, "all have their share again", || {
            IDS.into_iter().all(|id| standing(&world, id) == Some(Standing::Full))
        })
        .await;
        work::settled(&world, PATIENCE).await;
    });
}

#[test]
fn an_observer_to_whom_half_look_bad_at_once_takes_nothing_and_says_why() {
    play(async |world| {
        let leader = world.leader().unwrap().0;
        let two = &others(leader)[..2];
        // The leader alone does not hear them; everybody else does.
        let rules = cut(&world, &[leader], two);
        until(&world, "says why", || matches!(hold(&world), Some(Hold::TooMany { .. }))).await;
        let end = clock() + Duration::from_secs(15);
        while clock() < end {
            // The first may have been found some moments before the second: what it lost stays lost,
            // and that is no replica.
            let standings = IDS.into_iter().filter_map(|id| standing(&world, id));
            let lowered: Vec<_> =
                standings.filter(|standing| *standing != Standing::Full).collect();
            assert!(lowered.is_empty() || lowered == [Standing::NoPrimaries], "{lowered:?}");
            sleep(Duration::from_millis(50)).await;
        }
        heal(&world, rules);
        until(&world, "has nothing to say", || hold(&world).is_none()).await;
        work::settled(&world, PATIENCE).await;
    });
}

#[test]
fn a_server_that_flaps_does_not_swing_the_load() {
    play(async |world| {
        let flaps = follower(&world);
        let before = load(&world, flaps).unwrap();
        let mut turns = Vec::new();
        for _ in 0..30 {
            let rules = cut(&world, &[flaps], &others(flaps));
            sleep(Duration::from_millis(1_500)).await;
            turns.push(standing(&world, flaps));
            heal(&world, rules);
            sleep(Duration::from_secs(2)).await;
            turns.push(standing(&world, flaps));
            turns.dedup();
            assert_eq!(load(&world, flaps).unwrap().0, before.0, "none of its replicas moves");
        }
        // Two minutes of it: its primaries went, came back at most once, and went for good.
        assert!(turns.len() <= 4, "{turns:?}");
        assert_eq!(turns.last(), Some(&Some(Standing::NoPrimaries)));
    });
}

#[test]
fn a_pause_that_is_shorter_than_the_grace_moves_no_replica_and_gives_primaries_back() {
    play(async |world| {
        let paused = follower(&world);
        let before = load(&world, paused).unwrap();
        let rules = cut(&world, &[paused], &others(paused));
        until(&world, "hands its primaries over", || load(&world, paused) == Some((before.0, 0)))
            .await;
        heal(&world, rules);
        until(&world, "has primaries again", || {
            let load = load(&world, paused).unwrap();
            assert_eq!(load.0, before.0, "none of its replicas moves");
            load.1 > 0
        })
        .await;
        work::settled(&world, PATIENCE).await;
    });
}

#[test]
fn when_autopilots_leader_dies_in_the_middle_the_next_one_goes_on() {
    play(async |world| {
        let sick = follower(&world);
        world.disk(sick).unwrap().set_hangs(true);
        until(&world, "has given up a part", || {
            matches!(standing(&world, sick), Some(Standing::Shed(1..)))
        })
        .await;
        let leader = world.leader().unwrap().0;
        world.crash(leader);
        until(&world, "another one leads", || world.leader().is_some_and(|(id, _)| id != leader))
            .await;
        world.start(leader);
        until(&world, "gives up all that it holds", || {
            assert_ne!(standing(&world, sick), Some(Standing::Full), "it gets nothing back");
            load(&world, sick).is_none_or(|load| load == (0, 0))
        })
        .await;
        world.disk(sick).unwrap().set_hangs(false);
        until(&world, "all is well", || {
            IDS.into_iter().all(|id| standing(&world, id) == Some(Standing::Full))
        })
        .await;
        work::settled(&world, PATIENCE).await;
    });
}

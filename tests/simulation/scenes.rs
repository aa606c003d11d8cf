//! More of placement by name: a dead server, and a database without its quorum, which is its store out of reach.

use std::time::Duration;

use raft_autopilot::allocator::Standing;

use crate::placed::{IDS, PATIENCE, follower, load, play, standing, until};
use crate::types::{clock, sleep};
use crate::work;

#[test]
fn a_dead_servers_items_are_replicated_again_and_it_gets_its_share_back() {
    play(async |world| {
        let dead = follower(&world);
        let before = load(&world, dead).unwrap();
        world.crash(dead);
        // Four hold all of them: the report counts no replica that is not there.
        until(&world, "holds nothing", || load(&world, dead).is_none_or(|load| load == (0, 0)))
            .await;
        work::settled(&world, PATIENCE).await;
        world.start(dead);
        until(&world, "has its share again", || {
            standing(&world, dead) == Some(Standing::Full)
                && load(&world, dead).is_some_and(|load| load.0 + 1 >= before.0 && load.1 > 0)
        })
        .await;
        work::settled(&world, PATIENCE).await;
    });
}

#[test]
fn a_store_that_is_out_of_reach_for_a_minute_drains_nobody() {
    play(async |world| {
        // Nobody has a quorum, so nothing can be written or read.
        let rules: Vec<u64> = IDS
            .iter()
            .flat_map(|id| {
                let one = std::iter::once(*id).collect();
                let others = IDS.into_iter().filter(|other| other != id).collect();
                let effect = crate::network::Effect::Cut;
                [world.network.begin(crate::network::Rule { from: one, to: others, effect })]
            })
            .collect();
        let end = clock() + Duration::from_secs(60);
        while clock() < end {
            for id in world.up() {
                let shown = world.work(id).unwrap().standings.published();
                let lowered = shown.notices.values().find(|notice| {
                    // What the last leader thought in the moment before it had no lease.
                    notice.standing != Standing::Full && notice.standing != Standing::NoPrimaries
                });
                assert!(lowered.is_none(), "{id}: {lowered:?}");
            }
            sleep(Duration::from_millis(100)).await;
        }
        for rule in rules {
            world.network.end(rule);
        }
        until(&world, "all have their share again", || {
            IDS.into_iter().all(|id| standing(&world, id) == Some(Standing::Full))
        })
        .await;
        work::settled(&world, PATIENCE).await;
    });
}

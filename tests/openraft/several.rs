//! Leader ids of which one term may have several, openraft's default.

use raft_autopilot::autopilot::{Change, Cluster, ClusterError, Origin, Running, Step};

use crate::{
    simulated,
    types::Several,
    world::{Knobs, World, ids, millis, server},
};

#[test]
fn servers_join_vote_lead_and_are_replaced() {
    simulated(async {
        let world = World::<Several>::new(Knobs::default());
        let leader = world.form(&["1", "2", "3"]).await;
        world.until("all healthy", || leader.state().healthy).await;
        world.join("4").await;
        world.until("4 votes", || leader.voters() == [["1", "2", "3", "4"]]).await;
        world.start("5").await;
        let old = if leader.id == "1" { "2" } else { "1" };
        leader.handle.replace(old, server("5")).await.unwrap();
        for _ in 0..6 {
            let leader = world.leader().await;
            world.until("it steers", || leader.handle.running() == Running::Leading).await;
            world.until("all healthy", || leader.state().healthy).await;
            leader.handle.transfer(None).await.unwrap();
        }
    });
}

/// 1 is elected by 2 while 3 hears nobody, and its entries reach nobody. Then 3 is elected by 2: its
/// term is the same, and its id is greater.
#[test]
fn the_second_leader_of_a_term_steers_and_the_first_does_nothing_any_more() {
    simulated(async {
        let world = World::<Several>::new(Knobs { observer: true, ..Knobs::default() });
        let first = world.form(&["1", "2", "3"]).await;
        world.until("all healthy", || first.state().healthy).await;
        if first.id != "2" {
            first.raft.trigger().transfer_leader(2).await.unwrap();
        }
        let [one, two, three] = ["1", "2", "3"].map(|id| world.node(id));
        world
            .until("2 leads, and all know", || {
                two.leads() && three.metrics().current_leader == Some(2)
            })
            .await;
        world.sleep(millis(500)).await;
        world.network.cut(&["3"], &["1", "2"]);
        world.network.hang("1", "2");
        two.raft.runtime_config().elect(false);
        two.raft.trigger().transfer_leader(1).await.unwrap();
        world.until("1 leads", || one.leads()).await;
        let term = one.metrics().current_term;
        world.network.heal();
        world.network.cut(&["1"], &["2", "3"]);
        world.until("3 leads in the same term", || three.leads()).await;
        assert_eq!((one.metrics().current_term, three.metrics().current_term), (term, term));
        assert!(one.leads(), "it has not heard of it");
        world.until("3 may act", || three.state().may_act()).await;
        world.sleep(millis(500)).await;
        assert!(!one.state().may_act() && three.state().may_act());
        // Whatever the first one had planned.
        let fence = one.state().fence().unwrap();
        let step = Step::Votes { promote: Vec::new(), demote: ids(&["2"]) };
        let change = Change { step, fence, origin: Origin::Promoter };
        let late = world.adapter(&three).apply(change.clone()).await;
        assert!(matches!(late, Err(ClusterError::Moved(_))), "{late:?}");
        world.network.heal();
        world.until("1 follows", || !one.leads()).await;
        let late = world.adapter(&one).apply(change).await;
        assert!(matches!(late, Err(ClusterError::Moved(_))), "{late:?}");
        assert_eq!(three.voters(), [["1", "2", "3"]]);
        world.until("all healthy", || three.state().healthy).await;
    });
}

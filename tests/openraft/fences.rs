//! What the adapter itself refuses: stale fences, unfit targets, changes cut in two; and autopilots that race.

use openraft::{ChangeMembers, type_config::TypeConfigExt};
use raft_autopilot::{
    autopilot::{
        Autopilot, Change, Cluster, ClusterError, Fence, LogId, Origin, Running, Step, VerbError,
    },
    openraft::{OpenraftError, options},
    promoters::Stable,
};

use crate::{
    simulated,
    types::{Peer, Sim},
    world::{Knobs, Node, World, address, id, ids, millis, secs, server},
};

/// Three voters and a learner, which nobody steers.
async fn unsteered() -> (World<Sim>, Node<Sim>) {
    let world = World::<Sim>::new(Knobs { observer: true, ..Knobs::default() });
    let leader = world.form(&["1", "2", "3"]).await;
    world.start("4").await;
    leader.raft.add_learner(4, Peer { address: address("4") }, false).await.unwrap();
    world.sleep(millis(500)).await;
    (world, leader)
}

fn promote() -> Step {
    Step::Votes { promote: ids(&["4"]), demote: Vec::new() }
}

fn change(step: Step, fence: &Fence) -> Change {
    Change { step, fence: fence.clone(), origin: Origin::Promoter }
}

#[test]
fn a_change_from_another_term_membership_or_node_is_not_applied() {
    simulated(async {
        let (world, leader) = unsteered().await;
        let cluster = world.adapter(&leader);
        let fence = leader.state().fence().unwrap();
        let stale = [
            Fence { term: fence.term + 1, ..fence.clone() },
            Fence { membership: LogId::default(), ..fence.clone() },
            Fence { membership: LogId { term: fence.term, index: 99 }, ..fence.clone() },
        ];
        for fence in stale {
            for step in [promote(), Step::Transfer { to: id("2") }, Step::FinishJoint] {
                let applied = cluster.apply(change(step, &fence)).await;
                assert!(matches!(applied, Err(ClusterError::Moved(_))), "{applied:?}");
            }
        }
        let other = world.node(if leader.id == "1" { "2" } else { "1" });
        let applied = world.adapter(&other).apply(change(promote(), &fence)).await;
        assert!(matches!(applied, Err(ClusterError::Moved(_))), "{applied:?}");
        assert_eq!(leader.voters(), [["1", "2", "3"]]);
        assert_eq!(world.network.transfers(), 0);
        cluster.apply(change(promote(), &fence)).await.unwrap();
        assert_eq!(leader.voters(), [["1", "2", "3", "4"]]);
        // The same once more: the membership has moved.
        let applied = cluster.apply(change(promote(), &fence)).await;
        assert!(matches!(applied, Err(ClusterError::Moved(_))), "{applied:?}");
    });
}

#[test]
fn openraft_is_never_asked_to_transfer_to_the_unfit() {
    simulated(async {
        let (world, leader) = unsteered().await;
        let cluster = world.adapter(&leader);
        let fence = leader.state().fence().unwrap();
        let dead = if leader.id == "1" { "2" } else { "1" };
        world.kill(dead).await;
        world.sleep(millis(500)).await;
        for unfit in [leader.id.as_str(), "4", "9", dead] {
            let applied = cluster.apply(change(Step::Transfer { to: id(unfit) }, &fence)).await;
            assert!(
                matches!(&applied, Err(ClusterError::Refused(OpenraftError::Unfit(_)))),
                "{unfit}: {applied:?}"
            );
        }
        let applied = cluster.apply(change(Step::Transfer { to: id("none") }, &fence)).await;
        assert!(matches!(applied, Err(ClusterError::Refused(OpenraftError::NoNodeId(_)))));
        assert_eq!(world.network.transfers(), 0);
        assert!(leader.leads());
    });
}

#[test]
fn a_change_that_somebody_else_cuts_in_two_is_never_called_unchanged() {
    for wait in 0..25 {
        simulated(async {
            let (world, leader) = unsteered().await;
            let cluster = world.adapter(&leader);
            let fence = leader.state().fence().unwrap();
            let raft = leader.raft.clone();
            let rival = async move {
                Sim::sleep(millis(wait) / 10).await;
                // As soon as it is accepted: it flattens what stands, ours or not.
                let flatten = || ChangeMembers::AddVoterIds([].into());
                while raft.change_membership(flatten(), true).await.is_err() {
                    Sim::sleep(millis(1) / 20).await;
                }
            };
            world.spawn(rival);
            let applied = cluster.apply(change(promote(), &fence)).await;
            world.sleep(millis(100)).await;
            let voters = leader.voters();
            match applied {
                Ok(()) | Err(ClusterError::Unknown(_)) => {
                    assert_eq!(voters, [["1", "2", "3", "4"]]);
                }
                Err(ClusterError::Moved(_) | ClusterError::Refused(_)) => {
                    assert_eq!(voters, [["1", "2", "3"]]);
                }
                Err(error) => panic!("{error}"),
            }
        });
    }
}

#[test]
fn a_leader_that_loses_the_others_in_the_middle_of_a_change_leaves_one_membership() {
    for wait in 0..8 {
        simulated(async {
            let (world, leader) = unsteered().await;
            world.set(|knobs| knobs.observer = false);
            let cluster = world.adapter(&leader);
            let fence = leader.state().fence().unwrap();
            let watched = (world.clone(), leader.id.clone());
            world.spawn(async move {
                Sim::sleep(millis(wait) / 2).await;
                watched.0.isolate(&watched.1);
            });
            let applied = Sim::timeout(secs(2), cluster.apply(change(promote(), &fence))).await;
            world.network.heal();
            // The others steer from now on; whatever stands is finished.
            for other in ["1", "2", "3", "4"].into_iter().filter(|other| **other != *leader.id) {
                world.kill(other).await;
                world.start(other).await;
            }
            world
                .until("one membership, and 4 votes", || {
                    ["1", "2", "3", "4"].iter().all(|i| {
                        let node = world.node(i);
                        node.voters() == [["1", "2", "3", "4"]]
                    }) || matches!(applied, Ok(Err(ClusterError::Moved(_))))
                })
                .await;
            assert!(leader.voters().len() == 1);
        });
    }
}

#[test]
fn two_autopilots_on_one_node_never_both_apply_a_step() {
    simulated(async {
        let world = World::<Sim>::new(Knobs::default());
        let leader = world.form(&["1", "2", "3"]).await;
        let mut options = options(&leader.raft);
        options.config = world.knobs().config;
        let rival = world.watched(&leader, "rival");
        let clock = world.clock();
        let (autopilot, handle) = Autopilot::new(rival, clock, Stable::new(), options).unwrap();
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        world.spawn(autopilot.run(async move {
            let _ = stopped.await;
        }));
        world
            .until("both steer", || {
                handle.running() == Running::Leading && leader.handle.running() == Running::Leading
            })
            .await;
        for newcomer in ["4", "5", "6"] {
            world.join(newcomer).await;
            world.until("it votes", || leader.learners().is_empty()).await;
            world.sleep(millis(100)).await;
        }
        let votes: Vec<_> =
            world.deeds().into_iter().filter(|d| d.change.step.kind() == "votes").collect();
        let done = votes.iter().filter(|deed| deed.result == Some(Ok(()))).count();
        assert_eq!(done, 3, "{votes:?}");
        // One of them is stopped, and started anew.
        drop(stop);
        world.until("it stops", || handle.running() == Running::Stopped).await;
        assert_eq!(handle.pause("late").await, Err(VerbError::Stopped));
        assert_eq!(leader.handle.running(), Running::Leading);
        let mut options = raft_autopilot::openraft::options(&leader.raft);
        options.config = world.knobs().config;
        let (again, handle) =
            Autopilot::new(world.watched(&leader, "again"), world.clock(), Stable::new(), options)
                .unwrap();
        assert_eq!(handle.running(), Running::Stopped);
        world.spawn(again.run(std::future::pending()));
        world.until("it steers", || handle.running() == Running::Leading).await;
    });
}

#[test]
fn a_step_that_fails_waits_longer_each_time_and_not_for_a_round_number() {
    simulated(async {
        let world = World::<Sim>::new(Knobs::default());
        let leader = world.form(&["1", "2", "3"]).await;
        world.until("all healthy", || leader.state().healthy).await;
        // No node can be made of a server without an address.
        let mut nowhere = server("4");
        nowhere.address = String::new();
        let said = leader.handle.clone().within(secs(25)).add(nowhere).await;
        let Err(VerbError::Deadline { left_behind }) = said else { panic!("{said:?}") };
        assert!(left_behind.contains("no node can be made for 4"), "{left_behind}");
        let tried: Vec<_> = world.deeds().iter().map(|deed| deed.at).collect();
        let waits: Vec<_> = tried.windows(2).map(|pair| pair[1].saturating_sub(pair[0])).collect();
        assert!((4..=5).contains(&tried.len()), "{waits:?}");
        for (wait, base) in waits.iter().zip([1, 2, 4, 8].map(secs)) {
            assert!(*wait >= base && *wait <= base + base / 4 + millis(50), "{waits:?}");
        }
        assert!(waits.iter().any(|wait| wait.subsec_millis() > 20), "{waits:?}");
    });
}

//! Upgrade migration on six real nodes: every status of it is reached, and the votes end where they should.

use std::sync::{Arc, Mutex};

use raft_autopilot::{
    autopilot::{Step, UpgradeStatus},
    promoters::{Stable, Upgrade},
    rehearse::{Case, rehearse},
};

use crate::{
    simulated,
    types::Sim,
    world::{Knobs, Node, World, id, ids, millis, secs},
};

/// What a node's latest view says of the migration.
fn status(node: &Node<Sim>) -> Option<UpgradeStatus> {
    let view = node.view();
    let state = view.state.as_deref().filter(|state| state.may_act())?;
    Some(view.promoter.state_ext(&view.config, state).upgrade?.status)
}

/// Three voters on 1.0; servers from 4 on will run 2.0.
async fn old(inner: Stable) -> (World<Sim>, Node<Sim>) {
    let versions = ["4", "5", "6"].map(|id| (id.to_owned(), "2.0".to_owned())).into();
    let knobs = Knobs { versions, ..Knobs::default() };
    let world = World::<Sim>::with(knobs, Upgrade::new(inner));
    let leader = world.form(&["1", "2", "3"]).await;
    world.until("one version", || status(&leader) == Some(UpgradeStatus::Idle)).await;
    world.sleep(secs(2)).await;
    (world, leader)
}

/// Writes down every status that a leader comes to, in order.
fn witness(world: &World<Sim>) -> Arc<Mutex<Vec<UpgradeStatus>>> {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let (notes, world_too) = (Arc::clone(&seen), world.clone());
    world.spawn(async move {
        loop {
            for node in world_too.nodes().into_iter().filter(Node::leads) {
                let mut notes = notes.lock().unwrap();
                if let Some(status) = status(&node)
                    && notes.last() != Some(&status)
                {
                    notes.push(status);
                }
            }
            world_too.sleep(millis(1)).await;
        }
    });
    seen
}

#[test]
fn six_nodes_migrate_through_every_status() {
    simulated(async {
        use UpgradeStatus as Is;
        let (world, first) = old(Stable::with_target(3)).await;
        let seen = witness(&world);
        let config = world.knobs().config;
        let mut disabled = config.clone();
        disabled.disable_upgrade_migration = true;
        first.handle.configure(disabled, None).await.unwrap();
        world.until("disabled", || status(&first) == Some(Is::Disabled)).await;
        first.handle.configure(config, None).await.unwrap();
        world.until("enabled", || status(&first) == Some(Is::Idle)).await;
        world.join("4").await;
        world.join("5").await;
        world.sleep(secs(3)).await;
        assert_eq!(status(&first), Some(Is::AwaitNewVoters));
        assert_eq!(first.voters(), [["1", "2", "3"]]);
        world.join("6").await;
        world.until("6 is seen well", || first.server("6").is_some_and(|s| s.live)).await;
        let case = serde_json::to_string(&Case::saved(&first.view()).unwrap()).unwrap();
        world
            .until("the new ones vote alone", || {
                world.nodes().iter().any(|n| n.leads() && n.voters() == [["4", "5", "6"]])
            })
            .await;
        let leader = world.leader().await;
        world.until("done", || status(&leader) == Some(Is::AwaitServerRemoval)).await;
        // Three for two in one change, leadership, and the old leader's vote.
        let votes = |step: &Step| matches!(step, Step::Votes { .. } | Step::Transfer { .. });
        let moved = || world.done().into_iter().filter(votes).collect::<Vec<Step>>();
        world.until("the last step has ended", || moved().len() >= 3).await;
        let moved = moved();
        // A new server is missing: an old one votes in its place until it is back.
        let missing = ["4", "5", "6"].into_iter().find(|id| *id != leader.id).unwrap();
        world.kill(missing).await;
        world.until("one is missing", || status(&leader) == Some(Is::AwaitNewServers)).await;
        assert_ne!(leader.voters(), [["4", "5", "6"]]);
        world.start(missing).await;
        world.until("done", || status(&leader) == Some(Is::AwaitServerRemoval)).await;
        assert_eq!(leader.voters(), [["4", "5", "6"]]);
        assert_eq!(leader.state().members().count(), 6);
        for old in ["1", "2", "3"] {
            leader.handle.remove(old).await.unwrap();
        }
        world.until("one version", || status(&leader) == Some(Is::Idle)).await;
        let steps = [
            Is::Disabled,
            Is::Idle,
            Is::AwaitNewVoters,
            Is::Promoting,
            Is::LeaderTransfer,
            Is::Demoting,
            Is::AwaitServerRemoval,
            Is::AwaitNewServers,
            Is::AwaitServerRemoval,
            Is::Idle,
        ];
        let seen = seen.lock().unwrap().clone();
        let mut rest = steps.iter().peekable();
        for status in &seen {
            let _ = rest.next_if_eq(&status);
        }
        assert!(rest.peek().is_none(), "{seen:?}");
        let last = Step::Votes { promote: vec![], demote: ids(&[&first.id]) };
        assert_eq!(moved.len(), 3, "{moved:?}");
        assert!(matches!(&moved[0], Step::Votes { promote, demote }
            if *promote == ids(&["4", "5", "6"]) && demote.len() == 2));
        assert_eq!(moved[2], last);
        // The moment before, replayed at a desk, takes the same steps.
        let case = serde_json::from_str(&case).unwrap();
        let replayed = rehearse(&case, &Upgrade::new(Stable::with_target(3)), secs(60));
        let replayed: Vec<Step> = replayed.steps.into_iter().map(|step| step.step).collect();
        assert_eq!(replayed, moved);
    });
}

#[test]
fn where_fewer_new_servers_than_old_ones_are_there_more_are_awaited() {
    simulated(async {
        let (world, first) = old(Stable::with_target(3)).await;
        // One more that runs the old version, without a vote.
        for more in ["7", "4", "5", "6"] {
            world.join(more).await;
        }
        let moved =
            || world.nodes().into_iter().find(|n| n.leads() && n.voters() == [["4", "5", "6"]]);
        world.until("the new ones vote alone", || moved().is_some()).await;
        let leader = moved().unwrap();
        assert_ne!(leader.id, first.id);
        world
            .until("three of seven", || status(&leader) == Some(UpgradeStatus::AwaitNewServers))
            .await;
        leader.handle.remove("7").await.unwrap();
        world.until("as many", || status(&leader) == Some(UpgradeStatus::AwaitServerRemoval)).await;
    });
}

#[test]
fn a_new_leader_among_more_old_voters_awaits_new_voters() {
    simulated(async {
        let (world, first) = old(Stable::new()).await;
        for new in ["4", "5"] {
            world.join(new).await;
        }
        world.until("4 is fit", || first.server("4").is_some_and(|s| s.live)).await;
        first.handle.promote("4").await.unwrap();
        first.handle.transfer(Some(id("4"))).await.unwrap();
        let leader = world.node("4");
        // The votes have not moved with the leadership: the old ones are more.
        world.until("it awaits", || status(&leader) == Some(UpgradeStatus::AwaitNewVoters)).await;
        world.join("6").await;
        world.until("the new ones vote alone", || leader.voters() == [["4", "5", "6"]]).await;
        world.until("done", || status(&leader) == Some(UpgradeStatus::AwaitServerRemoval)).await;
        assert!(leader.leads());
    });
}

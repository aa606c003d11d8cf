//! What outlives a leader: configuration, pause, cordons, stability; and what happens where nothing is recorded.

use raft_autopilot::autopilot::{Config, Running, Step, VerbError, Verdict};

use crate::{
    simulated,
    types::Sim,
    world::{Knobs, Node, World, id, ids, millis, secs, server},
};

/// Stops the leader's process and waits for the next.
async fn crash(world: &World<Sim>, leader: &Node<Sim>) -> Node<Sim> {
    world.kill(&leader.id).await;
    let next = world.leader().await;
    world.until("the next one steers", || next.handle.running() != Running::StandingBy).await;
    next
}

fn patient(knobs: &Knobs) -> Config {
    Config { server_stabilization_time: secs(60), ..knobs.config.clone() }
}

#[test]
fn a_configuration_is_stored_with_a_compare_and_survives_an_election() {
    simulated(async {
        let world = World::<Sim>::new(Knobs::default());
        let leader = world.form(&["1", "2", "3"]).await;
        world.until("all healthy", || leader.state().healthy).await;
        let config = patient(&world.knobs());
        let never = leader.handle.configure(config.clone(), Some(0)).await;
        assert_eq!(never, Err(VerbError::Conflict { found: 0 }), "nothing is stored yet");
        leader.handle.configure(config.clone(), None).await.unwrap();
        world.until("it is in force", || *leader.view().config == config).await;
        let first = leader.view().modify_index;
        assert_eq!(leader.view().create_index, first);
        let stale = leader.handle.configure(config.clone(), Some(first + 1)).await;
        assert_eq!(stale, Err(VerbError::Conflict { found: first }));
        let second = Config { max_trailing_logs: 500, ..config };
        leader.handle.configure(second.clone(), Some(first)).await.unwrap();
        let invalid = Config { last_contact_threshold: millis(60), ..second.clone() };
        let refused = leader.handle.configure(invalid, None).await;
        assert!(matches!(refused, Err(VerbError::Invalid(_))), "{refused:?}");
        let next = crash(&world, &leader).await;
        let view = next.view();
        assert_eq!(*view.config, second);
        assert_eq!(view.create_index, first);
        assert!(view.modify_index > first);
    });
}

#[test]
fn a_pause_and_a_cordon_survive_an_election() {
    simulated(async {
        let world = World::<Sim>::new(Knobs::default());
        let leader = world.form(&["1", "2", "3", "4", "5"]).await;
        world.until("all healthy", || leader.state().healthy).await;
        world.join("6").await;
        leader.handle.cordon("6", "too small", None).await.unwrap();
        leader.handle.pause("an upgrade").await.unwrap();
        let next = crash(&world, &leader).await;
        assert_eq!(next.handle.running(), Running::Paused);
        world.sleep(secs(10)).await;
        next.handle.resume().await.unwrap();
        world.until("it steers", || next.handle.running() == Running::Leading).await;
        world.sleep(secs(10)).await;
        assert_eq!(next.learners(), ["6"], "the cordon is forgotten");
        next.handle.uncordon("6").await.unwrap();
        world.until("6 votes", || next.learners().is_empty()).await;
    });
}

#[test]
fn leadership_that_is_lost_is_a_failure_and_one_that_is_handed_over_is_none() {
    simulated(async {
        let world = World::<Sim>::new(Knobs::default());
        let first = world.form(&["1", "2", "3"]).await;
        world.until("all healthy", || first.state().healthy).await;
        world.sleep(secs(5)).await;
        let second = ["1", "2", "3"].into_iter().find(|id| *id != first.id).unwrap();
        first.handle.transfer(Some(id(second))).await.unwrap();
        let leader = world.node(second);
        let flaps = |node: &Node<Sim>, id: &str| node.server(id).unwrap().flaps;
        world.until("it steers", || leader.handle.running() == Running::Leading).await;
        world.until("all healthy", || leader.state().healthy).await;
        assert_eq!(flaps(&leader, &first.id), 0);
        world.sleep(secs(5)).await;
        world.isolate(second);
        let steers = |node: &Node<Sim>| {
            node.id != second && node.leads() && node.handle.running() == Running::Leading
        };
        world.until("another steers", || world.nodes().iter().any(steers)).await;
        world.network.heal();
        let third = world.nodes().into_iter().find(steers).unwrap();
        world.until("all healthy", || third.state().healthy).await;
        assert_eq!(flaps(&third, second), 1);
        let since = third.server(second).unwrap().health.healthy_since.unwrap();
        assert!(since >= third.state().leading.unwrap().since);
        // It is recorded, and counted once.
        world.sleep(secs(5)).await;
        let next = crash(&world, &third).await;
        assert_eq!(flaps(&next, second), 1);
    });
}

#[test]
fn stability_survives_an_election_with_records() {
    simulated(async {
        let knobs = Knobs::default();
        let config = Config { server_stabilization_time: secs(20), ..knobs.config.clone() };
        let world = World::<Sim>::new(Knobs { config, ..knobs });
        let leader = world.form(&["1", "2", "3"]).await;
        world.until("all healthy", || leader.state().healthy).await;
        world.join("4").await;
        world.until("4 is healthy", || leader.state().healthy).await;
        let healthy = world.now();
        world.sleep(secs(12)).await;
        let next = crash(&world, &leader).await;
        world.until("4 votes", || next.learners().is_empty()).await;
        let took = world.now().saturating_sub(healthy);
        assert!(took >= secs(20), "promoted after {took:?}");
        assert!(took < secs(24), "its history is lost: promoted after {took:?}");
    });
}

#[test]
fn stability_begins_anew_after_an_election_without_records() {
    simulated(async {
        let knobs = Knobs { records: false, ..Knobs::default() };
        let config = Config { server_stabilization_time: secs(20), ..knobs.config.clone() };
        let world = World::<Sim>::new(Knobs { config, ..knobs });
        let leader = world.form(&["1", "2", "3"]).await;
        world.until("all healthy", || leader.state().healthy).await;
        world.join("4").await;
        world.sleep(secs(12)).await;
        let next = crash(&world, &leader).await;
        let elected = world.now();
        world.until("4 votes", || next.learners().is_empty()).await;
        let took = world.now().saturating_sub(elected);
        assert!(took >= millis(19_500), "promoted {took:?} after the election, on what nobody saw");
    });
}

#[test]
fn an_operation_in_progress_goes_on_under_the_next_leader() {
    simulated(async {
        let world = World::<Sim>::new(Knobs::default());
        let leader = world.form(&["1", "2", "3", "4", "5"]).await;
        world.until("all healthy", || leader.state().healthy).await;
        leader.handle.configure(patient(&world.knobs()), None).await.unwrap();
        world.start("6").await;
        let old = if leader.id == "1" { "2" } else { "1" };
        let handle = leader.handle.clone().within(secs(120));
        world.spawn(async move {
            let _ = handle.replace(old, server("6")).await;
        });
        world.until("6 is added", || leader.learners() == ["6"]).await;
        world.sleep(secs(5)).await;
        let next = crash(&world, &leader).await;
        let soon = Config { server_stabilization_time: secs(1), ..patient(&world.knobs()) };
        next.handle.configure(soon, None).await.unwrap();
        let swap = Step::Votes { promote: ids(&["6"]), demote: ids(&[old]) };
        world.until("swapped", || world.done().contains(&swap)).await;
        world.until("the old one is gone", || next.server(old).is_none()).await;
    });
}

#[test]
fn a_removed_id_stays_removed_after_an_election() {
    simulated(async {
        let world = World::<Sim>::new(Knobs::default());
        let leader = world.form(&["1", "2", "3", "4", "5"]).await;
        world.until("all healthy", || leader.state().healthy).await;
        let gone = if leader.id == "1" { "2" } else { "1" };
        leader.handle.remove(gone).await.unwrap();
        let next = crash(&world, &leader).await;
        assert!(next.state().removed(&id(gone)));
        let again = next.handle.add(server(gone)).await;
        assert!(matches!(again, Err(VerbError::Refused { .. })), "{again:?}");
    });
}

#[test]
fn an_observer_plans_and_changes_nothing_until_steering_is_switched_on() {
    simulated(async {
        let world = World::<Sim>::new(Knobs { observer: true, ..Knobs::default() });
        let leader = world.form(&["1", "2", "3"]).await;
        world.start("4").await;
        let node = crate::types::Peer { address: crate::world::address("4") };
        leader.raft.add_learner(4, node, false).await.unwrap();
        world.sleep(secs(10)).await;
        // It knows what it would do.
        let plan = leader.plan();
        let promote = Step::Votes { promote: ids(&["4"]), demote: Vec::new() };
        assert_eq!(plan.changes.iter().map(|c| &c.step).collect::<Vec<_>>(), [&promote]);
        assert_eq!(leader.handle.running(), Running::Paused);
        assert!(world.deeds().is_empty());
        assert!(leader.log.commands().is_empty(), "an observer records nothing");
        // A rolling restart switches steering on.
        world.set(|knobs| knobs.observer = false);
        for id in ["1", "2", "3", "4"] {
            world.kill(id).await;
            world.start(id).await;
            world.leader().await;
        }
        let next = world.leader().await;
        world.until("4 votes", || next.voters() == [["1", "2", "3", "4"]]).await;
    });
}

#[test]
fn without_records_nothing_is_written_and_health_is_still_told() {
    simulated(async {
        let world = World::<Sim>::new(Knobs { records: false, ..Knobs::default() });
        let leader = world.form(&["1", "2", "3"]).await;
        world.until("all healthy", || leader.state().healthy).await;
        leader.handle.pause("a test").await.unwrap();
        world.until("paused", || leader.handle.running() == Running::Paused).await;
        let victim = if leader.id == "3" { "2" } else { "3" };
        world.kill(victim).await;
        world.until("it is seen", || !leader.state().healthy).await;
        assert_eq!(leader.server(victim).unwrap().health.verdict, Verdict::Unhealthy);
        assert!(leader.log.commands().is_empty());
        assert!(!leader.view().records_kept);
    });
}

#[test]
fn health_is_recorded_at_most_once_a_second() {
    simulated(async {
        let knobs = Knobs::default();
        let config = Config { server_stabilization_time: secs(60), ..knobs.config.clone() };
        let world = World::<Sim>::new(Knobs { config, ..knobs });
        let leader = world.form(&["1", "2", "3"]).await;
        world.join("4").await;
        world.until("all healthy", || leader.state().healthy).await;
        let before = leader.log.commands().len();
        // Its link flaps twice a second, and as long as it is not stable it is watched closely.
        for _ in 0..40 {
            world.isolate("4");
            world.sleep(millis(350)).await;
            world.network.heal();
            world.sleep(millis(150)).await;
        }
        let written = leader.log.commands().len() - before;
        assert!((12..=21).contains(&written), "{written} records in 20 s");
    });
}

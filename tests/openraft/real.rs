//! The same on tokio, in real time: short, so that the adapter is known to hold outside simulated time too.

use raft_autopilot::autopilot::{Config, NodeStatus, Reason, Running, Step};

use crate::{
    types::Real,
    world::{Knobs, World, id, millis, server},
};

fn knobs() -> Knobs {
    let knobs = Knobs::default();
    let config = Config { server_stabilization_time: millis(300), ..knobs.config.clone() };
    Knobs { config, ..knobs }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_joins_votes_and_is_replaced() {
    let world = World::<Real>::new(knobs());
    let leader = world.form(&["1", "2", "3"]).await;
    world.until("all healthy", || leader.state().healthy).await;
    world.join("4").await;
    world.until("4 votes", || leader.voters() == [["1", "2", "3", "4"]]).await;
    world.start("5").await;
    let old = if leader.id == "1" { "2" } else { "1" };
    leader.handle.replace(old, server("5")).await.unwrap();
    world.until("it is told", || world.told() == [old.to_owned()]).await;
    assert!(world.done().iter().any(|step| matches!(
        step,
        Step::Votes { promote, demote } if *promote == [id("5")] && *demote == [id(old)]
    )));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leadership_moves_and_comes_back_and_every_leader_steers() {
    let world = World::<Real>::new(knobs());
    world.form(&["1", "2", "3"]).await;
    for _ in 0..6 {
        let leader = world.leader().await;
        world.until("it steers", || leader.handle.running() == Running::Leading).await;
        world.until("all healthy", || leader.state().healthy).await;
        leader.handle.transfer(None).await.unwrap();
    }
    assert_eq!(world.network.transfers() % 2, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_follower_is_seen_and_one_that_comes_back_is_healthy_again() {
    let world = World::<Real>::new(knobs());
    let leader = world.form(&["1", "2", "3"]).await;
    world.until("all healthy", || leader.state().healthy).await;
    let victim = if leader.id == "1" { "2" } else { "1" };
    world.kill(victim).await;
    world
        .until("it is seen", || {
            leader.server(victim).unwrap().health.reasons.contains(Reason::ContactLost)
        })
        .await;
    world.start(victim).await;
    world.until("all healthy", || leader.state().healthy).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn callbacks_that_panic_count_as_no_answer_and_are_asked_again() {
    let all = ["1", "2", "3"].map(|i| (id(i), NodeStatus::Alive)).to_vec();
    let knobs = Knobs { discovery: Some(all), panics: true, ..knobs() };
    let world = World::<Real>::new(knobs);
    let leader = world.form(&["1", "2", "3"]).await;
    world.until("it steers", || leader.handle.running() == Running::Leading).await;
    world.sleep(millis(1_500)).await;
    let other = if leader.id == "1" { "2" } else { "1" };
    assert!(leader.server(other).unwrap().status.is_none());
    world.set(|knobs| knobs.panics = false);
    let known = || {
        let server = leader.server(other).unwrap();
        server.status.is_some() && server.discovery == Some(NodeStatus::Alive)
    };
    world.until("they are asked again", known).await;
}

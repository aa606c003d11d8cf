//! The driver on real clusters: its pace, its life, what a crash at any moment leaves, and callbacks that hang.

use std::collections::BTreeSet;

use raft_autopilot::autopilot::{
    Config, NodeStatus, Promoter, Reason, Running, State, Verdict, Wishes,
};

use crate::{
    simulated,
    types::{Named, Sim},
    world::{Knobs, TIMES, World, id, ids, millis, secs, server},
};

#[test]
fn a_quiet_cluster_costs_one_round_an_update_interval() {
    simulated(async {
        let world = World::<Sim>::new(Knobs { probes: false, ..Knobs::default() });
        let leader = world.form(&["1", "2", "3"]).await;
        world.until("all healthy", || leader.state().healthy).await;
        world.sleep(secs(5)).await;
        let before = world.rounds();
        world.sleep(secs(60)).await;
        let rounds = world.rounds() - before;
        // One a 2 s on the leader, one a minute on each of the others.
        assert!((25..=40).contains(&rounds), "{rounds} rounds in a quiet minute");
    });
}

#[test]
fn a_server_votes_within_a_heartbeat_of_being_eligible() {
    simulated(async {
        let world = World::<Sim>::new(Knobs::default());
        let leader = world.form(&["1", "2", "3"]).await;
        world.until("all healthy", || leader.state().healthy).await;
        world.sleep(secs(10)).await;
        world.join("4").await;
        world.until("4 votes", || leader.learners().is_empty()).await;
        let deeds = world.deeds();
        let promotion = deeds.iter().find(|deed| deed.change.step.kind() == "votes").unwrap();
        let healthy = leader.server("4").unwrap().health.healthy_since.unwrap();
        let eligible = healthy + world.knobs().config.server_stabilization_time;
        assert!(promotion.at >= eligible);
        assert!(
            promotion.at.saturating_sub(eligible) <= millis(TIMES.0),
            "{:?}",
            promotion.at.saturating_sub(eligible)
        );
    });
}

#[test]
fn the_next_leader_has_judged_within_one_election() {
    simulated(async {
        let world = World::<Sim>::new(Knobs::default());
        let leader = world.form(&["1", "2", "3"]).await;
        world.until("all healthy", || leader.state().healthy).await;
        world.kill(&leader.id).await;
        let died = world.now();
        let others: Vec<_> = ["1", "2", "3"]
            .into_iter()
            .filter(|i| *i != leader.id)
            .map(|i| world.node(i))
            .collect();
        world.until("judged", || others.iter().any(|node| node.state().may_act())).await;
        let took = world.now().saturating_sub(died);
        // The lease, a random timeout, and the rounds of the votes.
        assert!(took <= millis(2 * TIMES.2 + 100), "{took:?}");
    });
}

#[test]
fn callbacks_that_hang_stop_nothing() {
    simulated(async {
        let all = ["1", "2", "3"].map(|i| (id(i), NodeStatus::Alive)).to_vec();
        let knobs = Knobs { discovery: Some(all), hangs: true, ..Knobs::default() };
        let world = World::<Sim>::new(knobs);
        let leader = world.form(&["1", "2", "3"]).await;
        world.until("all healthy", || leader.state().healthy).await;
        let before = world.rounds();
        world.join("4").await;
        world.until("4 votes", || leader.voters() == [["1", "2", "3", "4"]]).await;
        assert!(world.rounds() - before > 10);
        // Nobody proves an id, and the verb says so in time.
        leader.handle.readdress("4", "new:1").await.unwrap_err();
        leader.handle.remove("4").await.unwrap();
        world.sleep(secs(5)).await;
        let other = leader.server(if leader.id == "1" { "2" } else { "1" }).unwrap();
        assert!(other.health.reasons.contains(Reason::ProbeSilent), "{:?}", other.health);
        assert!(leader.state().healthy, "silence alone makes nobody sick");
    });
}

#[test]
fn a_discovery_that_is_empty_or_shrunken_is_not_believed() {
    for known in [&[][..], &["1"]] {
        simulated(async {
            let listed = known.iter().map(|i| (id(i), NodeStatus::Alive)).collect();
            let knobs = Knobs { discovery: Some(listed), ..Knobs::default() };
            let config = Config { left_server_grace: secs(10), ..knobs.config.clone() };
            let world = World::<Sim>::new(Knobs { config, ..knobs });
            let leader = world.form(&["1", "2", "3"]).await;
            world.until("all healthy", || leader.state().healthy).await;
            world.sleep(secs(5)).await;
            assert!(leader.state().discovery_shrunken);
            let none = |state: &State| state.servers.iter().all(|s| s.signs.discovery.is_none());
            assert!(none(&leader.state()));
            world.sleep(secs(15)).await;
            assert!(none(&leader.state()));
            assert!(world.deeds().is_empty(), "{:?}", world.deeds());
        });
    }
}

#[test]
fn a_server_that_only_discovery_knows_is_neither_shown_nor_added() {
    simulated(async {
        let listed = ["1", "2", "3", "4"].map(|i| (id(i), NodeStatus::Alive)).to_vec();
        let knobs = Knobs { discovery: Some(listed), ..Knobs::default() };
        let world = World::<Sim>::new(knobs);
        let leader = world.form(&["1", "2", "3"]).await;
        // It runs, answers and waits to be taken in.
        world.start("4").await;
        world.until("all healthy", || leader.state().healthy).await;
        world.sleep(secs(10)).await;
        let known: Vec<_> = leader.state().servers.iter().map(|s| s.server.id.clone()).collect();
        assert_eq!(known, ids(&["1", "2", "3"]));
        assert!(world.deeds().is_empty(), "{:?}", world.deeds());
        // Whoever knows its address adds it.
        leader.handle.add(server("4")).await.unwrap();
        world.until("4 votes", || leader.voters() == [["1", "2", "3", "4"]]).await;
        assert_eq!(leader.server("4").unwrap().discovery, Some(NodeStatus::Alive));
    });
}

#[test]
fn an_answer_from_somebody_else_counts_as_none() {
    simulated(async {
        let world = World::<Sim>::new(Knobs { impostors: true, ..Knobs::default() });
        let leader = world.form(&["1", "2", "3"]).await;
        world.sleep(secs(5)).await;
        let state = leader.state();
        assert!(state.servers.iter().all(|s| s.status.is_none()));
        assert!(state.healthy);
    });
}

#[test]
fn a_dead_server_is_removed_after_its_grace_and_not_before() {
    simulated(async {
        let knobs = Knobs::default();
        let config =
            Config { dead_server_last_contact_threshold: secs(60), ..knobs.config.clone() };
        let world = World::<Sim>::new(Knobs { config, ..knobs });
        let leader = world.form(&["1", "2", "3", "4", "5"]).await;
        world.until("all healthy", || leader.state().healthy).await;
        let victim = if leader.id == "1" { "2" } else { "1" };
        world.kill(victim).await;
        let died = world.now();
        world.sleep(secs(55)).await;
        assert!(world.done().is_empty());
        world.until("it is removed", || leader.server(victim).is_none()).await;
        let took = world.now().saturating_sub(died);
        assert!(took >= secs(60) && took < secs(63), "{took:?}");
        assert_eq!(leader.voters()[0].len(), 4);
    });
}

#[test]
fn node_ids_may_be_of_any_type() {
    simulated(async {
        let world = World::<Named>::new(Knobs::default());
        let leader = world.form(&["anna", "ben", "cleo"]).await;
        world.until("all healthy", || leader.state().healthy).await;
        world.join("dora").await;
        let four = [["anna", "ben", "cleo", "dora"]];
        world.until("dora votes", || leader.voters() == four).await;
        let to = if leader.id == "ben" { "anna" } else { "ben" };
        leader.handle.transfer(Some(id(to))).await.unwrap();
        let next = world.leader().await;
        assert_eq!(next.id, to);
        next.handle.remove("dora").await.unwrap();
        world.until("it is told", || world.told() == ["dora"]).await;
    });
}

#[test]
fn two_leaders_in_succession_never_both_apply() {
    simulated(async {
        let world = World::<Sim>::new(Knobs::default());
        let old = world.form(&["1", "2", "3", "4", "5"]).await;
        world.until("all healthy", || old.state().healthy).await;
        world.join("6").await;
        // Just before the promotion the leader loses the others; it proposes, and cannot commit.
        world
            .until("nearly eligible", || {
                let state = old.state();
                let age = state.server(&id("6")).and_then(|s| s.healthy_for(world.now()));
                age.is_some_and(|age| age > millis(960))
            })
            .await;
        let others = ["1", "2", "3", "4", "5", "6"].into_iter().filter(|i| *i != old.id);
        let others: Vec<&str> = others.collect();
        world.network.cut(&[&old.id], &others);
        world.until("the old one is without a lease", || !old.state().may_act()).await;
        let next = world.leader().await;
        assert_ne!(next.id, old.id);
        world.until("6 votes", || next.learners().is_empty() && next.voters().len() == 1).await;
        world.network.heal();
        world.until("the old one follows", || !old.leads()).await;
        world.sleep(secs(15)).await;
        let votes: Vec<_> =
            world.deeds().into_iter().filter(|deed| deed.change.step.kind() == "votes").collect();
        let applied: BTreeSet<_> =
            votes.iter().filter(|d| d.result == Some(Ok(()))).map(|d| d.by.clone()).collect();
        assert_eq!(applied, [next.id.clone()].into(), "{votes:?}");
        assert_eq!(next.voters(), [["1", "2", "3", "4", "5", "6"]]);
    });
}

#[test]
fn a_driver_dropped_at_any_moment_leaves_nothing_half_kept() {
    for polls in (0..12).chain((12..32).step_by(4)) {
        simulated(async {
            let world = World::<Sim>::new(Knobs::default());
            let leader = world.form(&["1", "2", "3"]).await;
            world.until("all healthy", || leader.state().healthy).await;
            world.start("4").await;
            let handle = leader.handle.clone().within(secs(30));
            let old = if leader.id == "1" { "2" } else { "1" };
            world.spawn(async move {
                let _ = handle.replace(old, server("4")).await;
            });
            leader.drop_driver_after(polls);
            world.sleep(secs(3)).await;
            // The node goes on leading without a driver, until another takes over.
            let burnt = leader.handle.running() == Running::Stopped;
            if burnt {
                world.kill(&leader.id).await;
                world.start(&leader.id).await;
            }
            let next = world.leader().await;
            world
                .until("a settled membership", || {
                    let plan = next.plan();
                    let state = next.state();
                    let ledger = state.ledger.clone().unwrap_or_default();
                    next.voters().len() == 1
                        && state.may_act()
                        && plan.changes.is_empty()
                        && ledger.operations.is_empty()
                        && next.learners().is_empty()
                })
                .await;
            let voters = next.voters()[0].clone();
            assert!((3..=4).contains(&voters.len()), "after {polls} polls: {voters:?}");
        });
    }
}

#[test]
fn the_handle_outlives_the_task_and_says_so() {
    simulated(async {
        let world = World::<Sim>::new(Knobs::default());
        let leader = world.form(&["1", "2", "3"]).await;
        world.until("it steers", || leader.handle.running() == Running::Leading).await;
        let handle = leader.handle.clone();
        leader.drop_driver_after(0);
        let asked = handle.transfer(None).await;
        assert_eq!(asked, Err(raft_autopilot::autopilot::VerbError::Stopped));
        assert_eq!(handle.running(), Running::Stopped);
        assert!(handle.state().is_some(), "the last state stays readable");
        assert!(leader.leads(), "the node goes on");
    });
}

/// Wishes everything at once, for everybody and for nobody.
#[derive(Debug)]
struct Mad;

impl Promoter for Mad {
    fn wishes(&self, _config: &Config, state: &State) -> Wishes {
        let mut all: Vec<_> = state.servers.iter().map(|s| s.server.id.clone()).collect();
        all.extend(ids(&["9", "1", "nobody"]));
        Wishes { promote: all.clone(), demote: all, leader: Some(id("nobody")) }
    }
}

#[test]
fn a_mad_promoter_endangers_nothing() {
    simulated(async {
        let knobs = Knobs::default();
        let config = Config { min_quorum: 2, ..knobs.config.clone() };
        let world = World::<Sim>::with(Knobs { config, ..knobs }, Mad);
        let leader = world.form(&["1", "2", "3"]).await;
        let before = world.rounds();
        for number in 0..20 {
            world.sleep(secs(1)).await;
            let leader = world.leader().await;
            assert!(leader.write(number).await);
            let state = leader.state();
            assert_eq!(state.server(&id(&leader.id)).unwrap().health.verdict, Verdict::Healthy);
            assert!(leader.voters().iter().all(|half| half.contains(&leader.id)));
        }
        let rounds = world.rounds() - before;
        assert!(rounds < 20 * 3 * 40, "{rounds} rounds in 20 s");
        assert!(leader.voters()[0].len() >= 2, "{:?}", leader.voters());
    });
}

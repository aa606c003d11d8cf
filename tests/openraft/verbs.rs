//! What an operator orders: each verb, what may refuse it, and what it leaves behind.

use openraft::ChangeMembers;
use raft_autopilot::autopilot::{Cordon, Refusal, Step, VerbError};

use crate::{
    simulated,
    types::Sim,
    world::{Knobs, Node, World, id, ids, millis, secs, server},
};

/// Three voters that are healthy for long enough for anything.
async fn three(knobs: Knobs) -> (World<Sim>, Node<Sim>) {
    let world = World::<Sim>::new(knobs);
    let leader = world.form(&["1", "2", "3"]).await;
    world.until("all healthy", || leader.state().healthy).await;
    world.sleep(secs(2)).await;
    (world, leader)
}

fn follower(leader: &Node<Sim>) -> &'static str {
    if leader.id == "1" { "2" } else { "1" }
}

#[test]
fn a_server_is_added_gets_its_vote_and_is_removed_and_told() {
    simulated(async {
        let (world, leader) = three(Knobs::default()).await;
        world.join("4").await;
        assert_eq!(leader.learners(), ["4"]);
        world.until("4 votes", || leader.voters() == [["1", "2", "3", "4"]]).await;
        leader.handle.remove("4").await.unwrap();
        assert_eq!(leader.voters(), [["1", "2", "3"]]);
        assert!(leader.learners().is_empty());
        // A live vote goes by demotion, so that no intermediate step loses a majority.
        let kinds: Vec<_> = world.done().iter().map(Step::kind).collect();
        assert_eq!(kinds, ["add", "votes", "votes", "remove"]);
        world.until("it is told", || world.told() == ["4"]).await;
        let again = leader.handle.add(server("4")).await;
        let refusal = Refusal::RemovedId { server: id("4") };
        let left_behind = "nothing was changed".to_owned();
        assert_eq!(again, Err(VerbError::Refused { refusal, left_behind }));
    });
}

#[test]
fn the_removal_of_the_leader_hands_over_and_the_next_leader_goes_on() {
    simulated(async {
        let (world, leader) = three(Knobs::default()).await;
        let old = leader.id.clone();
        let said = leader.handle.remove(old.as_str()).await;
        let Err(VerbError::LostLeadership { leader: new, left_behind, goes_on: true }) = said
        else {
            panic!("{said:?}");
        };
        assert!(left_behind.contains("transfer"), "{left_behind}");
        let next = world.node(new.as_str());
        world.until("it is gone", || next.voters()[0].len() == 2).await;
        world.until("it is told", || world.told() == [old.clone()]).await;
        assert!(next.leads());
    });
}

#[test]
fn without_records_an_order_ends_with_the_leadership_and_says_so() {
    simulated(async {
        let (world, leader) = three(Knobs { records: false, ..Knobs::default() }).await;
        let said = leader.handle.remove(leader.id.as_str()).await;
        assert!(matches!(said, Err(VerbError::LostLeadership { goes_on: false, .. })), "{said:?}");
        world.sleep(secs(5)).await;
        assert_eq!(world.leader().await.voters(), [["1", "2", "3"]]);
    });
}

#[test]
fn a_transfer_is_done_when_its_target_leads_with_records_and_without() {
    for records in [true, false] {
        simulated(async {
            let (world, leader) = three(Knobs { records, ..Knobs::default() }).await;
            let to = follower(&leader);
            leader.handle.transfer(Some(id(to))).await.unwrap();
            assert!(world.node(to).leads());
            world.sleep(secs(2)).await;
            let best = world.leader().await;
            best.handle.transfer(None).await.unwrap();
            assert!(!best.leads());
        });
    }
}

#[test]
fn a_transfer_to_an_unfit_target_is_refused_before_openraft_hears_of_it() {
    simulated(async {
        let (world, leader) = three(Knobs::default()).await;
        let quick = leader.handle.clone().within(secs(3));
        // Itself, a stranger, a learner, the dead, the cordoned.
        quick.transfer(Some(id(&leader.id))).await.unwrap();
        let stranger = quick.transfer(Some(id("9"))).await;
        assert!(matches!(stranger, Err(VerbError::Refused { .. })), "{stranger:?}");
        let config = raft_autopilot::autopilot::Config {
            server_stabilization_time: secs(1000),
            ..world.knobs().config
        };
        leader.handle.configure(config, None).await.unwrap();
        world.join("4").await;
        world.until("4 is healthy", || leader.state().healthy).await;
        let learner = quick.transfer(Some(id("4"))).await;
        assert!(matches!(learner, Err(VerbError::Refused { .. })), "{learner:?}");
        let target = follower(&leader);
        leader.handle.cordon(target, "maintenance", None).await.unwrap();
        let cordoned = quick.transfer(Some(id(target))).await;
        let refusal = Refusal::Cordoned { server: id(target), reason: "maintenance".into() };
        let left_behind = "nothing was changed".to_owned();
        assert_eq!(cordoned, Err(VerbError::Refused { refusal, left_behind }));
        leader.handle.uncordon(target).await.unwrap();
        world.kill(target).await;
        world.until("it is seen", || !leader.server(target).unwrap().live).await;
        let dead = quick.transfer(Some(id(target))).await;
        let Err(VerbError::Deadline { left_behind }) = dead else { panic!("{dead:?}") };
        assert!(left_behind.starts_with("nothing was changed; waited for: "), "{left_behind}");
        assert_eq!(world.network.transfers(), 0);
        assert!(leader.leads());
    });
}

#[test]
fn a_transfer_whose_target_vanishes_is_time_boxed_reported_and_cooled_down() {
    simulated(async {
        let (world, leader) = three(Knobs::default()).await;
        let target = follower(&leader);
        let handle = leader.handle.clone().within(secs(20));
        // Its contact is still fresh when it is checked; the request to take over is lost.
        world.isolate(target);
        let began = world.now();
        world.spawn(async move {
            let _ = handle.transfer(Some(id(target))).await;
        });
        world
            .until("it has failed", || {
                world.deeds().iter().any(|deed| deed.result.as_ref().is_some_and(Result::is_err))
            })
            .await;
        assert!(
            world.now().saturating_sub(began) < secs(2),
            "{:?}",
            world.now().saturating_sub(began)
        );
        let error = world.deeds()[0].result.clone().unwrap().unwrap_err();
        assert!(error.contains("has not taken over leadership"), "{error}");
        world.sleep(millis(900)).await;
        assert_eq!(world.deeds().len(), 1, "it was tried again at once: {:?}", world.deeds());
        world.network.heal();
        assert_eq!(world.leader().await.voters(), [["1", "2", "3"]]);
    });
}

#[test]
fn a_demoted_server_stays_a_learner_and_a_promoted_one_votes() {
    simulated(async {
        let (world, leader) = three(Knobs::default()).await;
        let server = follower(&leader);
        leader.handle.demote(server).await.unwrap();
        assert_eq!(leader.learners(), [server]);
        world.sleep(secs(20)).await;
        assert_eq!(leader.learners(), [server], "the promoter gave the vote back");
        leader.handle.uncordon(server).await.unwrap();
        leader.handle.promote(server).await.unwrap();
        assert!(leader.learners().is_empty());
    });
}

#[test]
fn the_demotion_of_the_leader_hands_over_first() {
    simulated(async {
        let (world, leader) = three(Knobs::default()).await;
        let old = leader.id.clone();
        let said = leader.handle.demote(old.as_str()).await;
        assert!(matches!(said, Err(VerbError::LostLeadership { goes_on: true, .. })), "{said:?}");
        let next = world.leader().await;
        world.until("it is a learner", || next.learners() == [old.clone()]).await;
        world.until("both steps are done", || world.done().len() == 2).await;
        let kinds: Vec<_> = world.done().iter().map(Step::kind).collect();
        assert_eq!(kinds, ["transfer", "votes"]);
    });
}

#[test]
fn a_server_is_replaced_in_one_joint_change() {
    simulated(async {
        let (world, leader) = three(Knobs::default()).await;
        let old = follower(&leader);
        world.start("4").await;
        leader.handle.replace(old, server("4")).await.unwrap();
        assert!(!leader.voters()[0].contains(&old.to_owned()));
        assert!(leader.voters()[0].contains(&"4".to_owned()));
        assert!(leader.learners().is_empty());
        let swap = Step::Votes { promote: ids(&["4"]), demote: ids(&[old]) };
        assert!(world.done().contains(&swap), "{:?}", world.done());
        // No membership in between had other than three votes.
        let memberships = leader.log.memberships();
        assert!(memberships.iter().flat_map(|(halves, _)| halves).all(|half| half.len() == 3));
    });
}

#[test]
fn a_verb_whose_time_is_over_says_what_it_left_behind_and_goes_no_further() {
    simulated(async {
        let (world, leader) = three(Knobs::default()).await;
        // Nobody listens at 4: it is added, and never may vote.
        let old = follower(&leader);
        let said = leader.handle.clone().within(secs(5)).replace(old, server("4")).await;
        let Err(VerbError::Deadline { left_behind }) = said else { panic!("{said:?}") };
        assert!(left_behind.starts_with("done: add 4 at 4:1; waited for: "), "{left_behind}");
        world.start("4").await;
        world.sleep(secs(20)).await;
        assert!(leader.voters()[0].contains(&old.to_owned()), "it went on after its time");
        assert!(leader.state().ledger.as_ref().unwrap().operations.is_empty());
    });
}

#[test]
fn force_waives_only_what_it_may() {
    simulated(async {
        let (world, leader) = three(Knobs::default()).await;
        let config = raft_autopilot::autopilot::Config {
            server_stabilization_time: secs(1000),
            min_quorum: 3,
            ..world.knobs().config
        };
        leader.handle.configure(config, None).await.unwrap();
        world.join("4").await;
        world.until("4 is healthy", || leader.state().healthy).await;
        let forced = leader.handle.clone().forced("a test").within(secs(3));
        let quick = leader.handle.clone().within(secs(3));
        // The time of stability.
        let early = quick.promote("4").await;
        assert!(matches!(early, Err(VerbError::Deadline { .. })), "{early:?}");
        forced.promote("4").await.unwrap();
        // The floor of voters.
        let server = follower(&leader);
        quick.demote("4").await.unwrap();
        let floor = quick.demote(server).await;
        assert!(
            matches!(floor, Err(VerbError::Refused { refusal: Refusal::MinQuorum { .. }, .. })),
            "{floor:?}"
        );
        forced.demote(server).await.unwrap();
        // Never the quorum: with one of the two voters dead nothing may be forced.
        let other = leader.voters()[0].iter().find(|v| **v != leader.id).unwrap().clone();
        world.kill(&other).await;
        let no_quorum = forced.remove(other.as_str()).await;
        assert!(no_quorum.is_err(), "{no_quorum:?}");
        assert_eq!(leader.voters()[0].len(), 2);
    });
}

#[test]
fn an_address_changes_only_after_the_id_is_proven() {
    simulated(async {
        let (world, leader) = three(Knobs::default()).await;
        let mover = follower(&leader);
        let nobody = leader.handle.readdress(mover, "new:1").await;
        let answer = |text: &str| VerbError::NotProven {
            server: id(mover),
            address: "new:1".to_owned(),
            answer: text.to_owned(),
        };
        assert_eq!(nobody, Err(answer("nobody")));
        let other = if mover == "3" || leader.id == "3" { "2" } else { "3" };
        world.move_to(other, "new:1");
        assert_eq!(leader.handle.readdress(mover, "new:1").await, Err(answer(other)));
        world.move_to(other, &crate::world::address(other));
        world.move_to(mover, "new:1");
        leader.handle.readdress(mover, "new:1").await.unwrap();
        let state = leader.state();
        assert_eq!(state.server(&id(mover)).unwrap().server.address, "new:1");
        assert!(world.done().iter().all(|step| step.kind() == "readdress"));
    });
}

#[test]
fn a_follower_refuses_every_verb_and_names_the_leader() {
    simulated(async {
        let (world, leader) = three(Knobs::default()).await;
        let other = world.node(follower(&leader));
        let elsewhere = Err(VerbError::NotLeading { leader: Some(id(&leader.id)) });
        assert_eq!(other.handle.remove("3").await, elsewhere);
        assert_eq!(other.handle.pause("test").await, elsewhere);
        assert_eq!(other.handle.readdress("3", "new:1").await, elsewhere);
        assert_eq!(other.handle.transfer(None).await, elsewhere);
    });
}

#[test]
fn a_drained_leader_hands_over_and_a_cordoned_one_is_not_chosen() {
    simulated(async {
        let (world, leader) = three(Knobs::default()).await;
        let old = leader.id.clone();
        leader.handle.cordon(old.as_str(), "maintenance", Some(secs(60))).await.unwrap();
        world.until("another leads", || !leader.leads()).await;
        let next = world.leader().await;
        assert_ne!(next.id, old);
        let ledger = next.state().ledger.clone().unwrap();
        let Cordon { reason, .. } = &ledger.cordons[&id(&old)];
        assert_eq!(reason, "maintenance");
        next.handle.transfer(Some(id(&old))).await.unwrap_err();
    });
}

#[test]
fn a_change_by_somebody_else_makes_ours_plan_anew() {
    simulated(async {
        let (world, leader) = three(Knobs::default()).await;
        world.start("4").await;
        world.start("5").await;
        let handle = leader.handle.clone();
        world.spawn(async move { handle.add(server("4")).await.unwrap() });
        // Somebody adds another at the very same moments, past autopilot.
        for _ in 0..3 {
            let node = crate::types::Peer { address: crate::world::address("5") };
            let change = ChangeMembers::AddNodes([(5, node)].into());
            let _ = leader.raft.change_membership(change, true).await;
        }
        world.until("both vote", || leader.voters() == [["1", "2", "3", "4", "5"]]).await;
    });
}

//! Leadership that comes, goes and returns: what a new leader may not know yet, and what it must forget.

use std::time::Duration;

use raft_autopilot::autopilot::{Cluster, Config, Fate, Probe, Running, Step, VerbError, Verdict};

use crate::{
    simulated,
    types::Sim,
    world::{Knobs, Node, World, id, ids, millis, secs},
};

fn stable_after(time: Duration) -> Knobs {
    let knobs = Knobs::default();
    let config = Config { server_stabilization_time: time, ..knobs.config.clone() };
    Knobs { config, ..knobs }
}

#[test]
fn a_leader_that_has_not_applied_its_own_entry_judges_nobody_and_moves_nothing() {
    simulated(async {
        let world = World::<Sim>::new(stable_after(secs(3)));
        let old = world.form(&["1", "2", "3"]).await;
        world.until("all healthy", || old.state().healthy).await;
        world.join("4").await;
        world.until("4 is healthy", || old.state().healthy).await;
        // The state machines are slow when the leader dies: nothing is applied for a while.
        for id in ["1", "2", "3", "4"] {
            world.node(id).machine.set_stuck(true);
        }
        world.kill(&old.id).await;
        let next = world.leader().await;
        world.until("its driver knows", || next.state().leading.is_some()).await;
        for _ in 0..100 {
            world.sleep(millis(50)).await;
            let state = next.state();
            assert!(next.leads() && state.leading.is_some(), "it leads all the time");
            assert!(!state.may_act());
            assert!(state.servers.iter().all(|s| s.health.verdict == Verdict::Unknown));
            assert_eq!(next.handle.running(), Running::StandingBy);
        }
        assert!(world.deeds().iter().all(|deed| deed.by != next.id), "{:?}", world.deeds());
        for id in ["1", "2", "3", "4"].into_iter().filter(|id| **id != *old.id) {
            world.node(id).machine.set_stuck(false);
        }
        let applied = world.now();
        world.until("it steers", || next.handle.running() == Running::Leading).await;
        assert!(world.now().saturating_sub(applied) <= millis(200));
        // The learner was eligible all the while, and is promoted now.
        world.until("4 votes", || next.learners().is_empty()).await;
    });
}

/// Ends the leader and one follower, brings one of them back after a time, and returns whoever
/// leads then: the one that was up all the time.
async fn outage(world: &World<Sim>, old: &Node<Sim>, time: Duration) -> Node<Sim> {
    let mut others = ["1", "2", "3"].into_iter().filter(|id| **id != *old.id);
    let (left, gone) = (others.next().unwrap(), others.next().unwrap());
    world.kill(gone).await;
    world.kill(&old.id).await;
    world.sleep(time).await;
    let asked = world.network.pre_votes_asked();
    assert!(asked > 0 && !world.node(left).leads(), "it asks, and nobody answers");
    world.start(gone).await;
    let next = world.leader().await;
    assert_eq!(next.id, left);
    world.until("it steers", || next.handle.running() == Running::Leading).await;
    next
}

#[test]
fn the_gap_before_a_leadership_is_counted_from_when_a_leader_was_really_heard() {
    simulated(async {
        let world = World::<Sim>::new(stable_after(secs(20)));
        let old = world.form(&["1", "2", "3"]).await;
        world.until("all healthy", || old.state().healthy).await;
        world.join("4").await;
        world.until("4 is healthy", || old.state().healthy).await;
        world.sleep(secs(15)).await;
        // For all the time its metrics go on naming the leader that is gone.
        let died = world.now();
        let next = outage(&world, &old, secs(40)).await;
        let leading = next.state().leading.unwrap();
        let nobody_led = leading.since.saturating_sub(died);
        assert!(leading.gap + millis(100) >= nobody_led, "{leading:?}, {nobody_led:?}");
        assert!(leading.gap <= nobody_led + millis(100), "{leading:?}, {nobody_led:?}");
        // What nobody watched proves no stability.
        let elected = world.now();
        world.until("4 votes", || next.learners().is_empty()).await;
        let took = world.now().saturating_sub(elected);
        assert!(took >= millis(19_500), "promoted {took:?} after the outage");
    });
    simulated(async {
        let world = World::<Sim>::new(stable_after(secs(20)));
        let old = world.form(&["1", "2", "3"]).await;
        world.until("all healthy", || old.state().healthy).await;
        world.kill(&old.id).await;
        let next = world.leader().await;
        world.until("it steers", || next.handle.running() == Running::Leading).await;
        let gap = next.state().leading.unwrap().gap;
        assert!(gap >= millis(150) && gap <= secs(2), "an election, and no more: {gap:?}");
    });
}

#[test]
fn an_answer_to_a_probe_of_an_earlier_leadership_counts_for_nothing() {
    simulated(async {
        let knobs = Knobs { observer: true, probe_delay: millis(400), ..Knobs::default() };
        let world = World::<Sim>::new(knobs);
        let first = world.form(&["1", "2", "3"]).await;
        world.sleep(secs(2)).await;
        let cluster = world.adapter(&first);
        cluster.observe(world.now()).await;
        // Asked, and under way. Leadership goes to another and returns before they arrive.
        let asked = world.now();
        let other = if first.id == "1" { "2" } else { "1" };
        let number = |id: &str| id.parse::<u64>().unwrap();
        first.raft.trigger().transfer_leader(number(other)).await.unwrap();
        let second = world.node(other);
        world.until("the other leads", || second.leads()).await;
        world.until("a quorum is heard", || second.metrics().last_quorum_acked.is_some()).await;
        second.raft.trigger().transfer_leader(number(&first.id)).await.unwrap();
        world.until("it leads again", || first.leads() && !second.leads()).await;
        assert!(world.now().saturating_sub(asked) < millis(390), "the answers have arrived");
        let mut answered = 0;
        for _ in 0..100 {
            let now = world.now();
            let seen = cluster.observe(now).await;
            let since = seen.leading.unwrap().since;
            for sighting in seen.servers.iter().filter(|s| s.server.id != seen.local) {
                if let Probe::Answered(status) = sighting.probe {
                    answered += 1;
                    assert!(now.saturating_sub(status.age) >= since, "{status:?} at {now:?}");
                }
            }
            world.sleep(millis(20)).await;
        }
        assert!(answered > 50, "the next answers count: {answered}");
    });
}

#[test]
fn a_step_under_way_when_leadership_is_lost_is_finished_by_the_next_and_forgotten_by_the_last() {
    simulated(async {
        let world = World::<Sim>::new(stable_after(secs(300)));
        let old = world.form(&["1", "2", "3", "4", "5"]).await;
        world.until("all healthy", || old.state().healthy).await;
        world.join("6").await;
        world.until("6 is healthy", || old.state().healthy).await;
        // Slow enough to be cut off between the two halves of a change of votes.
        world.network.set_latency(millis(20));
        let promote = Step::Votes { promote: ids(&["6"]), demote: Vec::new() };
        let forced = old.handle.clone().forced("a test").within(secs(60));
        let (tell, told) = tokio::sync::oneshot::channel();
        world.spawn(async move {
            let _ = tell.send(forced.promote("6").await);
        });
        let begun = || world.deeds().iter().any(|deed| deed.change.step == promote);
        world.until("it is under way", begun).await;
        world.isolate(&old.id);
        world.until("it notices", || !old.state().may_act()).await;
        let next = world.leader().await;
        assert_ne!(next.id, old.id);
        world.network.heal();
        let said = told.await.unwrap();
        assert!(matches!(said, Err(VerbError::LostLeadership { goes_on: true, .. })), "{said:?}");
        world.until("6 votes", || next.learners().is_empty() && next.voters().len() == 1).await;
        // It is told once, as what it is: not known.
        let history = old.handle.history();
        let fates: Vec<_> =
            history.iter().filter(|d| d.step == promote).map(|d| d.fate.clone()).collect();
        assert_eq!(fates, [Fate::Unknown("leadership was lost before its end".to_owned())]);
        // When it leads again it does not wait for what it once began.
        world.until("all healthy", || next.state().healthy).await;
        next.handle.transfer(Some(id(&old.id))).await.unwrap();
        world.until("it steers", || old.handle.running() == Running::Leading).await;
        assert!(old.state().feedback.as_ref().is_none_or(|f| f.in_flight.is_none()));
        world.start("7").await;
        old.handle.add(crate::world::server("7")).await.unwrap();
    });
}

#[test]
fn a_joint_membership_whose_leader_died_for_good_is_ended_though_a_leaver_is_elected() {
    simulated(async {
        let world = World::<Sim>::new(stable_after(secs(300)));
        let old = world.form(&["1", "2", "3"]).await;
        world.until("all healthy", || old.state().healthy).await;
        world.join("4").await;
        world.join("5").await;
        world.until("all healthy", || old.state().healthy).await;
        // No half of the new voters can be elected, until somebody who leaves has been.
        world.network.cut(&["4"], &["5"]);
        world.network.set_latency(millis(20));
        let number = |id: &str| id.parse::<u64>().unwrap();
        let raft = old.raft.clone();
        let voters: std::collections::BTreeSet<u64> =
            [old.id.as_str(), "4", "5"].into_iter().map(number).collect();
        world.spawn(async move {
            let _ = raft.change_membership(voters, true).await;
        });
        let committed = || {
            let metrics = old.metrics();
            let known = &metrics.committed_membership_config;
            known.membership().get_joint_config().len() == 2
        };
        world.until("the first half is committed", committed).await;
        world.kill(&old.id).await;
        world.network.set_latency(millis(1));
        let next = world.leader().await;
        assert!(!["4", "5"].contains(&next.id.as_str()), "{} leaves", next.id);
        assert_eq!(next.voters().len(), 2, "the second half is lost");
        world.network.heal();
        let uniform = || {
            let four = world.node("4");
            let voters = four.voters();
            let ended = voters.len() == 1 && voters[0].contains(&"5".to_owned());
            let committed = *four.metrics().committed_membership_config.log_id();
            ended && committed == *four.metrics().membership_config.log_id()
        };
        world.until("the membership is uniform", uniform).await;
        let last = world.leader().await;
        assert!(["4", "5"].contains(&last.id.as_str()), "{} leads", last.id);
    });
}

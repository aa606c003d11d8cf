//! What openraft does that would mislead an autopilot: each trap by its name.

use openraft::{ChangeMembers, type_config::TypeConfigExt};
use raft_autopilot::autopilot::{Cluster, Reason, Running, Verdict};

use crate::{
    simulated,
    types::{Sim, Types},
    world::{Knobs, Node, World, millis, secs, server},
};

#[test]
fn contacts_are_none_after_an_election_and_nobody_is_judged_by_that() {
    simulated(async {
        let world = World::<Sim>::new(Knobs { records: false, probes: false, ..Knobs::default() });
        let leader = world.form(&["1", "2", "3"]).await;
        world.until("all healthy", || leader.state().healthy).await;
        let old = leader.id.clone();
        world.kill(&old).await;
        let mut judged = None;
        let next = world.leader().await;
        // The new leader's very first states: nobody has been in contact, nobody is condemned.
        world
            .until("an acting leader", || {
                let state = next.state();
                judged = state.may_act().then_some(state);
                judged.is_some()
            })
            .await;
        let state = judged.unwrap();
        let dead = state.server(&old.as_str().into()).unwrap();
        assert_eq!(dead.last_contact, None);
        assert_ne!(dead.health.verdict, Verdict::Healthy);
        assert!(
            dead.signs.contact.is_none() || !dead.health.reasons.contains(Reason::NoContactYet)
        );
        world
            .until("the dead one is seen", || {
                next.server(&old).unwrap().health.reasons.contains(Reason::ContactLost)
            })
            .await;
        assert_eq!(world.done(), []);
    });
}

#[test]
fn a_cut_off_leader_still_believes_that_it_leads_and_judges_and_moves_nothing() {
    simulated(async {
        let world = World::<Sim>::new(Knobs::default());
        let old = world.form(&["1", "2", "3", "4", "5"]).await;
        world.until("all healthy", || old.state().healthy).await;
        world.isolate(&old.id);
        let began = world.now();
        world.sleep(secs(3)).await;
        assert!(old.leads(), "openraft has changed: a leader notices that it is cut off");
        let state = old.state();
        assert!(!state.may_act());
        assert!(state.servers.iter().all(|s| s.health.verdict == Verdict::Unknown));
        assert_eq!(old.view().running, Running::StandingBy);
        let next = world.leader().await;
        assert_ne!(next.id, old.id);
        assert!(world.deeds().iter().all(|deed| deed.by != old.id || deed.at < began));
        world.network.heal();
        world.until("the old one follows", || !old.leads()).await;
        world.until("all healthy", || next.state().healthy).await;
        assert_eq!(world.done(), []);
    });
}

#[test]
fn a_leader_that_is_the_only_voter_acts() {
    simulated(async {
        let world = World::<Sim>::new(Knobs::default());
        let leader = world.form(&["1"]).await;
        world.until("leading", || leader.handle.running() == Running::Leading).await;
        world.sleep(secs(10)).await;
        assert!(leader.state().may_act(), "its lease always is fresh");
        world.join("2").await;
        world.until("2 votes", || leader.voters() == [["1", "2"]]).await;
        world.join("3").await;
        world.until("3 votes", || leader.voters() == [["1", "2", "3"]]).await;
    });
}

#[test]
fn a_pre_vote_that_is_really_asked_keeps_the_term() {
    let terms = |granted_unasked: bool| {
        let mut terms = (0, 0);
        simulated(async {
            let world = World::<Sim>::new(Knobs::default());
            if granted_unasked {
                world.network.grant_unasked();
            }
            let leader = world.form(&["1", "2", "3"]).await;
            terms.0 = leader.metrics().current_term;
            let other = if leader.id == "1" { "2" } else { "1" };
            let before = world.network.pre_votes_asked();
            world.isolate(other);
            world.sleep(secs(5)).await;
            // It asks whoever it cannot reach, and waits; or takes their silence for consent.
            let asked = world.network.pre_votes_asked() - before;
            assert_eq!(granted_unasked, asked == 0, "{asked}");
            let own = world.node(other).metrics().current_term;
            assert_eq!(granted_unasked, own > terms.0, "term {own}");
            world.network.heal();
            world.sleep(secs(2)).await;
            terms.1 = world.leader().await.metrics().current_term;
        });
        terms
    };
    let asked = terms(false);
    assert_eq!(asked.0, asked.1);
    let unasked = terms(true);
    assert!(unasked.0 < unasked.1, "openraft's default asks now");
}

#[test]
fn a_change_whose_caller_vanished_stays_joint_until_anybody_finishes_it() {
    simulated(async {
        let knobs = Knobs { observer: true, ..Knobs::default() };
        let world = World::<Sim>::new(knobs);
        let leader = world.form(&["1", "2", "3"]).await;
        world.start("4").await;
        let node = crate::types::Peer { address: crate::world::address("4") };
        leader.raft.add_learner(4, node, false).await.unwrap();
        world.sleep(millis(500)).await;
        // The caller is gone after 1 ms: the joint entry is written, the uniform one never is.
        let change = leader.raft.change_membership(ChangeMembers::AddVoterIds([4].into()), true);
        assert!(Sim::timeout(millis(1), change).await.is_err());
        world.sleep(secs(5)).await;
        assert_eq!(leader.voters().len(), 2, "openraft has changed: it finishes by itself");
        // The leader crashes too; whoever comes next finishes before anything else.
        world.set(|knobs| knobs.observer = false);
        let old = leader.id.clone();
        world.kill(&old).await;
        for id in ["1", "2", "3", "4"].into_iter().filter(|id| **id != *old) {
            world.kill(id).await;
            world.start(id).await;
        }
        let next = world.leader().await;
        world.until("uniform", || next.voters() == [["1", "2", "3", "4"]]).await;
        let first = world.deeds().into_iter().next().unwrap();
        assert_eq!(first.change.step.kind(), "finish-joint");
    });
}

#[test]
fn a_demoted_leader_that_keeps_leading_hands_over() {
    simulated(async {
        let world = World::<Sim>::new(Knobs::default());
        let leader = world.form(&["1", "2", "3"]).await;
        world.until("all healthy", || leader.state().healthy).await;
        // Somebody does it raw, past autopilot.
        let own = Sim::node_id(&leader.id).unwrap();
        let change = ChangeMembers::RemoveVoters([own].into());
        leader.raft.change_membership(change, true).await.unwrap();
        assert!(leader.leads());
        world.until("a voter leads", || !leader.leads()).await;
        let next = world.leader().await;
        assert_eq!(world.done()[0].kind(), "transfer");
        assert!(next.voters()[0].contains(&next.id));
    });
}

#[test]
fn a_wiped_voter_that_looks_fresh_is_unmasked_and_not_counted_live() {
    simulated(async {
        let world = World::<Sim>::new(Knobs::default());
        let leader = world.form(&["1", "2", "3"]).await;
        for number in 0..20 {
            leader.write(number).await;
        }
        world
            .until("all probed", || {
                leader.state().servers.iter().filter(|s| s.status.is_some()).count() == 2
            })
            .await;
        let victim = if leader.id == "1" { "2" } else { "1" };
        world.kill(victim).await;
        world.wipe(victim);
        world.start(victim).await;
        world
            .until("unmasked", || {
                leader.server(victim).unwrap().health.reasons.contains(Reason::LogShrank)
            })
            .await;
        let reborn = leader.server(victim).unwrap();
        assert!(!reborn.live);
        assert_eq!(reborn.health.verdict, Verdict::Unhealthy);
        assert!(reborn.signs.identity.is_some());
        assert!(reborn.last_contact.is_some_and(|age| age < millis(200)), "{reborn:?}");
        // It stays so, whoever leads.
        world.sleep(secs(5)).await;
        assert!(!leader.server(victim).unwrap().live);
        assert_eq!(leader.state().failure_tolerance, 0);
    });
}

#[test]
fn a_wiped_voter_that_is_filled_again_before_it_is_probed_is_unmasked_by_its_disk() {
    simulated(async {
        let world = World::<Sim>::new(Knobs::default());
        let first = world.form(&["1", "2", "3"]).await;
        first.write(1).await;
        let (victim, other) = match first.id.as_str() {
            "1" => ("2", "3"),
            "2" => ("1", "3"),
            _ => ("1", "2"),
        };
        let recorded = || {
            let ledger = first.state().ledger.clone().unwrap_or_default();
            ledger.servers.get(victim).is_some_and(|record| record.disk.is_some())
        };
        world.until("its disk is known", recorded).await;
        world.set(|knobs| knobs.probes = false);
        world.kill(victim).await;
        world.wipe(victim);
        world.start(victim).await;
        // openraft fills a log that shrank only under another leader, who knows nothing of it.
        first.handle.transfer(Some(other.into())).await.unwrap();
        let next = world.node(other);
        let full = || world.node(victim).metrics().last_log_index == next.metrics().last_log_index;
        world.until("its log is full again", full).await;
        world.until("all healthy", || next.state().may_act() && next.state().healthy).await;
        world.sleep(secs(5)).await;
        assert!(next.server(victim).unwrap().live, "nothing shows without a probe");
        world.set(|knobs| knobs.probes = true);
        let unmasked = |leader: &Node<Sim>| {
            let server = leader.server(victim).unwrap();
            server.health.reasons.contains(Reason::LogShrank) && !server.live
        };
        world.until("unmasked", || unmasked(&next)).await;
        let status = next.server(victim).unwrap().status.unwrap();
        assert!(status.last_log >= status.acknowledged, "its log was not full: {status:?}");
        // Whoever leads next knows it too.
        world.sleep(secs(2)).await;
        next.handle.transfer(Some(first.id.as_str().into())).await.unwrap();
        world.until("it judges", || first.state().may_act()).await;
        assert!(unmasked(&first));
    });
}

#[test]
fn a_transport_that_hangs_is_stalled_though_its_contact_is_fresh() {
    simulated(async {
        let world = World::<Sim>::new(Knobs { probes: false, ..Knobs::default() });
        let leader = world.form(&["1", "2", "3"]).await;
        world.until("all healthy", || leader.state().healthy).await;
        let victim = if leader.id == "1" { "2" } else { "1" };
        world.network.hang(&leader.id, victim);
        leader.write(1).await;
        world
            .until("stalled", || {
                leader.server(victim).unwrap().health.reasons.contains(Reason::Stalled)
            })
            .await;
        let stalled = leader.server(victim).unwrap();
        assert!(!stalled.live);
        assert!(stalled.last_contact.is_some_and(|age| age < millis(200)), "{stalled:?}");
        assert!(!stalled.health.reasons.contains(Reason::ContactLost));
    });
}

#[test]
fn a_learner_that_is_added_and_empty_is_not_promoted() {
    simulated(async {
        let world = World::<Sim>::new(Knobs::default());
        let leader = world.form(&["1", "2", "3"]).await;
        // Nobody listens at 4; openraft calls it added, and even caught up, at once.
        leader.handle.add(server("4")).await.unwrap();
        world.sleep(secs(20)).await;
        assert_eq!(leader.voters(), [["1", "2", "3"]]);
        assert_eq!(leader.learners(), ["4"]);
        assert!(!leader.server("4").unwrap().live);
        world.start("4").await;
        world.until("4 votes", || leader.voters() == [["1", "2", "3", "4"]]).await;
    });
}

#[test]
fn a_follower_that_answers_and_applies_nothing_is_unhealthy() {
    simulated(async {
        let world = World::<Sim>::new(Knobs::default());
        let leader = world.form(&["1", "2", "3"]).await;
        world.until("all healthy", || leader.state().healthy).await;
        let victim = if leader.id == "1" { "2" } else { "1" };
        world.node(victim).machine.set_stuck(true);
        leader.write(1).await;
        world
            .until("seen", || {
                leader.server(victim).unwrap().health.reasons.contains(Reason::NotApplying)
            })
            .await;
        assert!(leader.server(victim).unwrap().live, "it does acknowledge");
        world.node(victim).machine.set_stuck(false);
        world.until("all healthy", || leader.state().healthy).await;
    });
}

#[test]
fn a_node_that_has_stopped_is_looked_at_no_more() {
    simulated(async {
        let world = World::<Sim>::new(Knobs::default());
        let leader = world.form(&["1"]).await;
        world.until("leading", || leader.handle.running() == Running::Leading).await;
        leader.raft.shutdown().await.unwrap();
        let adapter = world.adapter(&leader);
        adapter.observe(world.now()).await;
        // The channels of openraft differ for ever: what the one says last the other never says.
        assert!(Sim::timeout(secs(100), adapter.changed()).await.is_err());
    });
}

//! Targets, read replicas, cordons, intents, preferred leaders and witnesses.

use std::time::Duration;

use raft_autopilot::{
    autopilot::{IntentKind, Promoter, Record, Role, explain, plan},
    promoters::{Preferred, Stable, Upgrade, Witness, Zones},
    rehearse::World,
};

use super::support::{
    Content, MINUTE, SECOND, add, cluster, ext, ids, server, transfer, voters, votes,
};

/// V12.
#[test]
fn three_of_five_vote_and_no_vote_moves_back() {
    let promoter = Stable::with_target(3);
    let mut world = cluster("a", "b c d e");
    assert_eq!(world.run(&promoter, MINUTE), [votes("b c", "")]);
    world.kill("b", Duration::ZERO);
    assert_eq!(world.run(&promoter, MINUTE), [votes("d", "b")]);
    world.heal("b");
    assert_eq!(world.run(&promoter, 10 * MINUTE), []);
    assert_eq!(voters(&world), "a* c d");
    assert_eq!(ext(&mut world, &promoter).optimistic_failure_tolerance, Some(3));
}

#[test]
fn an_even_number_above_two_is_not_grown_into() {
    for (learners, expected) in
        [("b", "a* b"), ("b c", "a* b c"), ("b c d", "a* b c"), ("b c d e", "a* b c d e")]
    {
        let mut world = cluster("a", learners);
        world.run(&Stable::with_target(5), MINUTE);
        assert_eq!(voters(&world), expected);
    }
}

#[test]
fn surplus_voters_stand_by_and_the_leader_is_not_among_them() {
    let mut world = cluster("e", "");
    add(&mut world, "a b c d", Role::Voter);
    world.run(&Content, MINUTE);
    assert_eq!(world.run(&Stable::with_target(3), MINUTE).len(), 1);
    assert_eq!(voters(&world), "a b e*");
}

#[test]
fn without_a_target_everybody_votes_and_nobody_is_demoted() {
    let mut world = cluster("a b c", "d er");
    assert_eq!(world.run(&Stable::new(), MINUTE), [votes("d", "")]);
    world.kill("d", Duration::ZERO);
    assert_eq!(world.run(&Stable::new(), 10 * MINUTE), []);
}

#[test]
fn read_replicas_never_vote_and_never_keep_a_vote() {
    let promoter = Upgrade::new(Zones::new());
    let mut world = cluster("a1@a b1@b c1@c", "xr@a yr@d");
    assert_eq!(world.run(&promoter, MINUTE), []);
    assert_eq!(ext(&mut world, &promoter).optimistic_failure_tolerance, Some(1));
    let mut world = cluster("ar b c d", "");
    assert_eq!(voters(&world), "ar* b c d");
    let steps = world.run(&Stable::new(), MINUTE);
    assert_eq!(steps, [transfer("b"), votes("", "ar")]);
}

#[test]
fn a_cordoned_server_gains_no_vote_and_keeps_the_one_it_has() {
    let promoter = Stable::with_target(3);
    let mut world = cluster("a b c", "d e");
    for id in ["b", "d"] {
        let reason = "disk".to_owned();
        world.record(Record::Cordon { server: id.into(), reason, ttl: None });
    }
    assert_eq!(world.run(&promoter, MINUTE), []);
    world.kill("c", Duration::ZERO);
    assert_eq!(world.run(&promoter, MINUTE), [votes("e", "c")]);
}

#[test]
fn an_announced_restart_is_no_failure_until_it_expires() {
    let promoter = Stable::with_target(3);
    for kind in [IntentKind::Reboot, IntentKind::Upgrade] {
        let mut world = cluster("a b c", "d");
        world.record(Record::Intend { server: "b".into(), kind, ttl: 5 * MINUTE });
        world.kill("b", Duration::ZERO);
        assert_eq!(world.run(&promoter, 4 * MINUTE), []);
        assert_eq!(world.run(&promoter, 2 * MINUTE), [votes("d", "b")]);
    }
    // A drained server may fail like any other; and what is announced gains no vote.
    let mut world = cluster("a b c", "d e");
    let drain = |server: &str| Record::Intend {
        server: server.into(),
        kind: IntentKind::Drain,
        ttl: 60 * MINUTE,
    };
    world.record(drain("b"));
    world.record(drain("d"));
    world.kill("b", Duration::ZERO);
    assert_eq!(world.run(&promoter, MINUTE), [votes("e", "b")]);
}

fn tagged(world: &mut World, id: &str, key: &str, value: &str, role: Role) {
    let mut server = server(id);
    server.meta.insert(key.to_owned(), value.to_owned());
    world.insert(server, role);
}

#[test]
fn leadership_goes_to_the_preferred_zone_and_stays_there() {
    let promoter = Preferred::new(Zones::new()).zone("b");
    let mut world = cluster("a1@a b1@b c1@c", "b2@b");
    assert_eq!(world.run(&promoter, 10 * MINUTE), [transfer("b1")]);
    // Its zone loses the leader: nobody is preferred before the next has been well for a while.
    world.kill("b1", Duration::ZERO);
    assert_eq!(world.run(&promoter, 30 * SECOND), [votes("b2", "b1")]);
    assert_eq!(voters(&world), "a1* b2 c1");
    assert_eq!(world.run(&promoter, 10 * MINUTE), [transfer("b2")]);
    // Between equals it does not move back.
    world.heal("b1");
    assert_eq!(world.run(&promoter, 60 * MINUTE), []);
}

#[test]
fn preferences_count_in_their_order() {
    let promoter = Preferred::new(Stable::new()).tag("disk", "ssd").weight("weight");
    let mut world = cluster("a", "");
    tagged(&mut world, "b", "weight", "9", Role::Voter);
    tagged(&mut world, "c", "disk", "ssd", Role::Voter);
    tagged(&mut world, "d", "weight", "ten", Role::Voter);
    assert_eq!(world.run(&promoter, 10 * MINUTE), [transfer("c")]);
    let promoter = Preferred::new(Stable::new()).weight("weight").tag("disk", "ssd");
    assert_eq!(world.run(&promoter, 10 * MINUTE), [transfer("b")]);
}

#[test]
fn a_transfer_that_fails_is_not_tried_again_at_once() {
    let promoter = Preferred::new(Stable::new()).zone("b").cool_down(60 * MINUTE);
    let mut world = cluster("a@a b@b c@c", "");
    world.refuses_leadership.insert("b".into());
    // The failed step itself is forgotten after five minutes; that a transfer failed is not.
    assert_eq!(world.run(&promoter, 59 * MINUTE), [transfer("b")]);
    assert_eq!(voters(&world), "a* b c");
    assert_eq!(world.run(&promoter, 2 * MINUTE), [transfer("b")]);
}

#[test]
fn a_migration_comes_before_a_preference() {
    let promoter = Preferred::new(Upgrade::new(Zones::new())).zone("c");
    let mut world = cluster("a1@a:1.0 b1@b:1.0 c1@c:1.0", "a2@a:2.0 b2@b:2.0 c2@c:2.0 xr@c:2.0");
    let steps = world.run(&promoter, 10 * MINUTE);
    let expected = [votes("a2 b2 c2", "b1 c1"), transfer("a2"), votes("", "a1"), transfer("c2")];
    assert_eq!(steps, expected);
    assert_eq!(voters(&world), "a2 b2 c2*");
}

#[test]
fn a_pair_and_its_witness_get_their_votes_together() {
    let promoter = Witness::new(Stable::new(), "witness");
    let mut world = cluster("a", "b");
    assert_eq!(world.run(&promoter, MINUTE), []);
    let warnings = ext(&mut world, &promoter).warnings;
    assert_eq!(warnings, ["no second vote before a witness is ready"]);
    tagged(&mut world, "w", "witness", "true", Role::Learner);
    assert_eq!(world.run(&promoter, MINUTE), [votes("b w", "")]);
    assert!(ext(&mut world, &promoter).warnings.is_empty());
    // Losing one of them moves nothing: the other two carry on.
    for lost in ["w", "b"] {
        world.kill(lost, Duration::ZERO);
        assert_eq!(world.run(&promoter, 10 * MINUTE), []);
        world.heal(lost);
        world.run(&promoter, MINUTE);
    }
    // The witness may win an election, and hands over.
    world.kill("a", Duration::ZERO);
    world.kill("b", Duration::ZERO);
    world.heal("a");
    world.heal("b");
    world.run(&promoter, MINUTE);
    assert!(world.leader().is_some_and(|leader| leader.as_str() != "w"));
}

#[test]
fn a_witness_is_refused_where_it_is_no_use() {
    let promoter = Witness::new(Stable::new(), "witness");
    let mut world = cluster("a", "");
    tagged(&mut world, "w", "witness", "1", Role::Learner);
    assert_eq!(world.run(&promoter, MINUTE), []);
    assert_eq!(
        ext(&mut world, &promoter).warnings,
        ["no vote for a witness beside a single voter"]
    );
    let mut world = cluster("a b c", "");
    tagged(&mut world, "w", "witness", "1", Role::Learner);
    tagged(&mut world, "n", "witness", "false", Role::Learner);
    world.run(&promoter, MINUTE);
    assert_eq!(world.voters(), ids("a b c n w"));
    // Two that stand without a witness are left alone, and warned of.
    let mut world = cluster("a b", "");
    assert_eq!(world.run(&promoter, MINUTE), []);
    assert_eq!(ext(&mut world, &promoter).warnings, ["2 voters and no witness to break a tie"]);
}

/// Whatever the policy, and whoever made them two.
#[test]
fn two_voters_are_warned_of_under_every_policy() {
    let policies: [&dyn Promoter; 5] = [
        &Content,
        &Stable::new(),
        &Zones::new(),
        &Upgrade::new(Stable::with_target(2)),
        &Witness::new(Stable::new(), "witness"),
    ];
    let words = "two voters: the loss of either stops the cluster; add a third, or a witness";
    let warned = |world: &mut World, promoter: &dyn Promoter| {
        let (config, state) = (world.config.clone(), world.assess());
        let plan = plan(&config, &state, promoter);
        explain(&config, &state, &plan, promoter).warnings.contains(&words.to_owned())
    };
    for promoter in policies {
        assert!(warned(&mut cluster("a b", ""), promoter), "{promoter:?}");
        assert!(warned(&mut cluster("a b", "rr"), promoter), "{promoter:?}");
        assert!(!warned(&mut cluster("a", ""), promoter), "{promoter:?}");
        assert!(!warned(&mut cluster("a b c", ""), promoter), "{promoter:?}");
    }
}

#[test]
fn everything_composes() {
    let zones = Witness::new(Zones::with_target(5), "witness");
    let promoter: Box<dyn Promoter> = Box::new(Preferred::new(Upgrade::new(zones)).zone("b"));
    let mut world = cluster("a1@a:1.0", "a2@a:1.0 b1@b:1.0 b2@b:1.0 c1@c:1.0 c2@c:1.0 r@a:1.0");
    let steps = world.run(&*promoter, 10 * MINUTE);
    assert_eq!(steps.len(), 2, "{steps:?}");
    assert_eq!(voters(&world), "a1 a2 b1* b2 c1");
}

//! The weaknesses C, E and F of the reference, changes and orders (letters and numbers are those of our list), each with the remedy that holds here.

use std::{fmt::Write, sync::Arc, time::Duration};

use raft_autopilot::{
    autopilot::{
        Config, Origin, Promoter, Reason, Refusal, Removals, Server, ServerId, Sign, State, Step,
        Task, Verdict, Wishes,
    },
    promoters::Stable,
};

use crate::support::{
    AT, HEARTBEAT, World, check_plan, health, ids, nobody, reasons, refusal, remove, time, votes,
    wish,
};

// C1: a swap is one joint change.

#[test]
fn c1_a_healthy_swap_passes_through_no_even_size() {
    let world = World::of("1 leader\n2\n3\n4 learner");
    check_plan(&world, &wish("4", "3", ""), &["do promote 4 and demote 3"]);
}

#[test]
fn c1_a_half_done_change_is_finished_before_anything_else() {
    let text = "1 leader\n2\n3 outgoing lost=25h silent=25h\n4 incoming\n5 learner";
    check_plan(&World::of(text), &Stable::new(), &["do finish the joint membership"]);
    let refused = refusal(&World::of(text), votes("5", ""), Origin::Promoter);
    assert_eq!(refused, Some(Refusal::JointUnfinished));
    let uniform = World::of("1 leader\n2\n3");
    assert_eq!(refusal(&uniform, Step::FinishJoint, Origin::Unfinished), Some(Refusal::NotJoint));
}

#[test]
fn c1_a_leader_that_a_half_done_change_leaves_without_a_vote_hands_over_first() {
    let world = World::of("1 leader outgoing\n2\n3\n4 incoming");
    check_plan(&world, &Stable::new(), &["do transfer leadership to 2"]);
    let refused = refusal(&world, Step::FinishJoint, Origin::Unfinished);
    assert_eq!(refused, Some(Refusal::LeaderKeepsVote));
    let to = |to: &str| Step::Transfer { to: to.into() };
    assert_eq!(refusal(&world, to("4"), Origin::Unfinished), None);
    assert!(refusal(&world, to("1"), Origin::Unfinished).is_some());
    // Where nobody is fit it says so, and changes nothing.
    let world = World::of("1 leader outgoing\n2 matched=10\n3 matched=10\n4 incoming matched=10");
    check_plan(
        &world,
        &Stable::new(),
        &["held transfer leadership to 1: no other voter is fit to lead"],
    );
}

#[test]
fn c1_a_leader_that_lost_its_vote_hands_over() {
    let world = World::of("1 leader learner healthy_for=1s\n2\n3\n4");
    check_plan(&world, &Stable::new(), &["do transfer leadership to 2"]);
}

#[test]
fn c1_a_vote_that_was_to_replace_a_sick_one_waits_with_it() {
    // Two of five vanished together: nobody loses a vote yet, and five do not become six.
    let world = World::of("1 leader\n2\n3\n4 lost=11s\n5 lost=11s\n6 learner\n7 learner lost=11s");
    let plan = world.plan(&Stable::with_target(5));
    assert!(plan.iter().all(|line| line.starts_with("held")), "{plan:?}");
    for held in ["promote 6", "demote 5"] {
        let line = format!("held {held}: 3 of 7 servers vanished together: frozen");
        assert!(plan.contains(&line), "{plan:?}");
    }
}

#[test]
fn c1_one_refused_demotion_does_not_block_the_rest() {
    // 3 has its grace, 4 has not; 5 is healthy.
    let world = World::of("1 leader\n2\n3 lost=25h silent=25h\n4 lost=1h\n5\n6\n7\n8 learner");
    let plan = world.plan(&wish("8", "3 4 5", ""));
    assert_eq!(plan[0], "do promote 8 and demote 3, 5");
    assert!(plan[2].starts_with("held demote 4"), "{plan:?}");
}

// C5: no safety net under a promoter.

#[test]
fn c5_a_promoter_can_neither_demote_the_leader_nor_everybody() {
    let world = World::of("1 leader\n2\n3\n4\n5");
    check_plan(
        &world,
        &wish("9", "1 2 3 4 5 9 2", ""),
        // Down to three, though a smaller one would be a quorum of itself; the leader stays.
        &[
            "do demote 2, 3",
            "held demote 1: the leader keeps its vote until it has handed over",
            "held demote 4: 2 voters would be left, fewer than 3",
            "held demote 5: 2 voters would be left, fewer than 3",
        ],
    );
    // As far as somebody has said in so many words, and no further.
    let mut world = world;
    for (min_quorum, expected) in [(4, "do demote 5"), (2, "do demote 3, 4, 5")] {
        world.config.min_quorum = min_quorum;
        assert_eq!(world.plan(&wish("", "5 4 3 2 1", ""))[0], expected);
    }
}

#[test]
fn c5_whoever_plans_it_three_voters_do_not_become_two_without_a_persons_word() {
    let person = || Origin::Operator { operation: 1, force: None };
    for (text, few) in [("1 leader\n2\n3\n4\n5", "3 4 5"), ("1 leader\n2\n3", "3")] {
        let world = World::of(text);
        for origin in [Origin::Promoter, Origin::Cleanup, Origin::Drain, Origin::Unfinished] {
            let refused = refusal(&world, votes("", few), origin.clone());
            assert!(refused.is_some(), "{few} {origin:?}");
        }
        let refused = refusal(&world, votes("", few), Origin::Promoter);
        assert_eq!(refused, Some(Refusal::MinQuorum { left: 2, floor: 3 }));
        assert_eq!(refusal(&world, votes("", few), person()), None);
    }
    // Two stand no failure, and nor does one: a lone server may be replaced by way of a pair.
    let world = World::of("1 leader\n2");
    check_plan(&world, &wish("", "2", ""), &["do demote 2"]);
    let mut world = world;
    world.config.min_quorum = 2;
    assert!(refusal(&world, votes("", "2"), Origin::Promoter).is_some());
    // A swap leaves as many as there were, in a small cluster too.
    let world = World::of("1 leader\n2\n3 learner");
    check_plan(&world, &wish("3", "2", ""), &["do promote 3 and demote 2"]);
}

#[test]
fn c5_one_step_names_nobody_twice_nobody_unknown_and_somebody() {
    let world = World::of("1 leader\n2\n3\n4 learner");
    for (step, expected) in [
        (votes("", ""), Refusal::Empty),
        (remove(""), Refusal::Empty),
        (votes("4 4", ""), Refusal::Twice { server: "4".into() }),
        (votes("4", "4"), Refusal::Twice { server: "4".into() }),
        (remove("2 2"), Refusal::Twice { server: "2".into() }),
    ] {
        assert_eq!(refusal(&world, step, Origin::Promoter), Some(expected));
    }
    for step in [votes("9", ""), votes("2", ""), votes("", "4"), votes("", "9"), remove("9")] {
        let refused = refusal(&world, step.clone(), Origin::Promoter);
        assert!(matches!(refused, Some(Refusal::WrongRole { .. })), "{step}: {refused:?}");
    }
}

// C8: the target of a transfer is not checked.

#[test]
fn c8_only_a_voter_that_is_fit_is_handed_leadership() {
    let text = "1 leader\n2 matched=10\n3 lost=1s\n4 cordoned\n5 intent=drain\n6\n7 learner";
    let world = World::of(text);
    for (to, fit) in [
        ("2", false),
        ("3", false),
        ("4", false),
        ("5", false),
        ("6", true),
        ("7", false),
        ("9", false),
        ("1", false),
    ] {
        let refused = refusal(&world, Step::Transfer { to: to.into() }, Origin::Promoter);
        assert_eq!(refused.is_none(), fit, "{to}: {refused:?}");
        let plan = world.plan(&wish("", "", to));
        assert_eq!(plan.iter().any(|line| line.starts_with("do transfer")), fit, "{plan:?}");
    }
    // One that is being drained is not wished back into the lead; a person may mean it.
    let (step, person) =
        (Step::Transfer { to: "5".into() }, Origin::Operator { operation: 1, force: None });
    assert_eq!(refusal(&world, step, person), None);
    let plan = world.plan(&wish("", "", "5"));
    assert!(
        plan.contains(&"held transfer leadership to 5: an operator has announced: drain".into())
    );
}

#[test]
fn whoever_is_announced_to_restart_loses_nothing_for_being_away() {
    for kind in ["reboot", "upgrade", "drain"] {
        let text = format!("1 leader\n2\n3\n4\n5 lost=50h silent=50h intent={kind}\n6 learner");
        let mut world = World::of(&text);
        let lost = |world: &World, step: Step, origin: Origin| refusal(world, step, origin);
        let losses = [
            (votes("6", "5"), Origin::Promoter),
            (votes("", "5"), Origin::Promoter),
            (remove("5"), Origin::Cleanup),
        ];
        for (step, origin) in losses.clone() {
            let refused = lost(&world, step.clone(), origin);
            let announced = matches!(refused, Some(Refusal::Intended { .. }));
            assert_eq!(announced, kind != "drain", "{kind} {step}: {refused:?}");
        }
        let plan = world.plan(&wish("6", "5", ""));
        assert_eq!(plan[0] == "do promote 6 and demote 5", kind == "drain", "{plan:?}");
        // A person may take it out all the same, and an announcement ends.
        let person = Origin::Operator { operation: 1, force: None };
        assert_eq!(lost(&world, remove("5"), person), None);
        world.seen.pace = time("1h");
        world.pass(time("1h"));
        for (step, origin) in losses {
            assert_eq!(lost(&world, step, origin), None, "{kind}");
        }
    }
}

#[test]
fn c8_a_failed_transfer_cools_down_and_the_next_best_is_tried() {
    let mut world = World::of("1 leader intent=drain\n2\n3");
    check_plan(&world, &nobody(), &["do transfer leadership to 2"]);
    let step = Step::Transfer { to: "2".into() };
    let retry = raft_autopilot::autopilot::Retry {
        step,
        failures: 1,
        until: AT + time("1s"),
        error: "no answer".into(),
    };
    world.seen.feedback = Some(Arc::new(raft_autopilot::autopilot::Feedback {
        retries: vec![retry],
        ..Default::default()
    }));
    check_plan(&world, &nobody(), &["do transfer leadership to 3"]);
    check_plan(
        &world,
        &wish("", "", "2"),
        &[
            "do transfer leadership to 3",
            "held transfer leadership to 2: failed 1 times and waits: no answer",
        ],
    );
}

// C9: promotes without limit.

#[test]
fn c9_a_target_is_reached_by_odd_sizes_and_the_rest_stand_by() {
    let votes_after = |target: usize, voters: usize, standby: usize| {
        let mut text = "1 leader\n".to_owned();
        for i in 1..voters + standby {
            let role = if i < voters { "voter" } else { "learner" };
            writeln!(text, "{} {role}", i + 1).unwrap();
        }
        let world = World::of(&text);
        let wishes = Stable::with_target(target).wishes(&world.config, &world.state());
        voters + wishes.promote.len() - wishes.demote.len()
    };
    for (target, voters, standby, expected) in [
        (3, 1, 1, 2),
        (3, 1, 2, 3),
        (3, 1, 4, 3),
        (5, 1, 3, 3),
        (5, 3, 1, 3),
        (5, 3, 2, 5),
        (5, 4, 1, 5),
        (4, 3, 1, 3),
        (4, 1, 3, 3),
        (4, 4, 1, 4),
        (2, 1, 1, 2),
        (1, 1, 3, 1),
        (3, 5, 1, 3),
        (4, 6, 0, 4),
        (7, 2, 3, 5),
    ] {
        assert_eq!(votes_after(target, voters, standby), expected, "{target} {voters} {standby}");
    }
}

#[test]
fn c9_a_vote_is_not_moved_between_two_that_are_equally_good() {
    let world =
        World::of("1 leader\n2 healthy_for=11s\n3 matched=10\n4 learner healthy_for=9h\n5 learner");
    check_plan(&world, &Stable::with_target(3), &[]);
    let lost = World::of("1 leader\n2\n3\n4 lost=1m\n5 learner");
    // Four vote though three should: a dead one is not replaced, it goes after its grace.
    assert!(lost.plan(&Stable::with_target(3)).iter().all(|line| !line.starts_with("do")));
}

#[test]
fn c9_a_server_that_discovery_alone_has_lost_keeps_its_vote() {
    let world = World::of("1 leader alive\n2\n3 failed=1h\n4 learner");
    check_plan(
        &world,
        &Stable::with_target(3),
        &["held remove 3: 1 of 2 independent signs say that 3 is dead"],
    );
}

// E2 is explained: without a quorum nothing can be changed, and that is what is said.

#[test]
fn e2_without_a_quorum_every_step_is_refused_with_that_reason() {
    let mut world = World::of("1 leader addr=a\n2 lost=49h silent=49h addr=b\n3 learner");
    let new = Arc::new(Server::new("4", "b"));
    world.order(Task::Replace { old: "2".into(), new }, Some("its disk is gone"));
    let plan = world.plan(&wish("3", "2", ""));
    assert!(!plan.is_empty());
    for line in &plan {
        assert!(line.ends_with("only 1 of 2 voters would answer"), "{line}");
    }
}

// E3, E4: orders obey the same rules.

#[test]
fn e3_an_address_that_another_member_has_is_refused() {
    let world = World::of("1 leader\n2\n3 addr=there");
    let step = Step::Readdress { server: "2".into(), address: "there".into() };
    let refused = refusal(&world, step, Origin::Operator { operation: 1, force: None });
    assert!(matches!(refused, Some(Refusal::AddressInUse { .. })));
}

#[test]
fn e3_whoever_is_added_at_an_address_evicts_only_a_member_that_is_sick_and_out_of_contact() {
    for (how, evicted) in [
        ("", false),
        ("learner", false),
        ("matched=10", false),
        ("contact=never", false),
        ("contact=200ms", false),
        ("silent=50h", false),
        ("wiped=1m", false),
        ("lost=1s", true),
        ("learner lost=1s", true),
        ("lost=50h silent=50h intent=reboot", true),
    ] {
        let mut world = World::of(&format!("1 leader\n2\n3\n4 addr=here {how}"));
        world.order(Task::Add(Arc::new(Server::new("5", "here"))), None);
        let expected = if evicted {
            "do remove 4 and add 5 at here"
        } else {
            "refused add 5 at here: 4 already has the address here"
        };
        let plan = world.plan(&nobody());
        assert!(plan[0].starts_with(expected), "`{how}`: {plan:?}");
    }
    // Discovery alone proves nothing either.
    let mut world = World::of("1 leader alive\n2\n3\n4 addr=here failed=50h");
    world.order(Task::Add(Arc::new(Server::new("5", "here"))), None);
    assert!(world.plan(&nobody())[0].starts_with("refused add 5"));
}

#[test]
fn e4_a_person_may_not_remove_a_voter_of_which_nothing_is_known_unless_by_force() {
    let world = World::of("1 leader\n2\n3\n4\n5 contact=never\n6 learner contact=never");
    let person =
        |force: Option<&str>| Origin::Operator { operation: 1, force: force.map(Into::into) };
    let refused = refusal(&world, remove("5"), person(None));
    assert_eq!(refused, Some(Refusal::NotKnown { server: "5".into() }));
    // Its vote may be taken: it stays a member, and may have it back.
    assert_eq!(refusal(&world, votes("", "5"), person(None)), None);
    assert_eq!(refusal(&world, remove("6"), person(None)), None);
    assert_eq!(refusal(&world, remove("5"), person(Some("it burnt"))), None);
}

#[test]
fn e3_hosts_without_addresses_are_served_too() {
    let mut world = World::of("1 leader addr=\n2 addr=\n3 lost=1m addr=");
    world.order(Task::Add(Arc::new(Server::new("4", ""))), None);
    assert_eq!(world.plan(&nobody())[0], "do add 4 at ");
}

#[test]
fn e4_a_person_may_remove_but_not_below_the_quorum_and_the_leader_hands_over_first() {
    let order = |text: &str, id: &str, force: Option<&str>| {
        let mut world = World::of(text);
        world.order(Task::Remove(id.into()), force);
        world.plan(&nobody()).swap_remove(0)
    };
    assert_eq!(order("1 leader\n2\n3", "1", None), "do transfer leadership to 2");
    assert_eq!(order("1 leader\n2\n3", "2", None), "do demote 2");
    assert_eq!(order("1 leader\n2\n3 lost=1s", "3", None), "do remove 3");
    assert_eq!(
        order("1 leader\n2\n3 lost=1s", "2", None),
        "refused demote 2: only 1 of 2 voters would answer"
    );
    assert_eq!(
        order("1 leader\n2\n3 lost=1s", "2", Some("I know")),
        "refused remove 2: only 1 of 2 voters would answer"
    );
    assert_eq!(order("1 leader\n2\n3", "2", Some("now")), "do remove 2");
    assert_eq!(
        order("1 leader", "1", Some("now")),
        "held transfer leadership to 1: no other voter is fit to lead"
    );
}

#[test]
fn e4_force_waives_floor_margin_stability_and_grace_and_nothing_else() {
    let force = || Origin::Operator { operation: 1, force: Some("now".into()) };
    let person = || Origin::Operator { operation: 1, force: None };
    let mut world = World::of(
        "1 leader\n2\n3\n4\n5\n6 learner new\n7 learner matched=10\n8 learner cordoned\n9 learner replica",
    );
    (world.config.min_quorum, world.config.min_margin) = (5, 2);
    for step in [votes("", "2"), votes("6", "")] {
        assert!(refusal(&world, step.clone(), person()).is_some(), "{step}");
        assert_eq!(refusal(&world, step, force()), None);
    }
    for step in [votes("7", ""), votes("8", ""), votes("9", ""), votes("", "1"), remove("1")] {
        assert!(refusal(&world, step.clone(), force()).is_some(), "{step}");
    }
}

// F2: no explanation.

#[test]
fn f2_everything_that_is_wished_and_not_done_says_why() {
    let text = "1 leader\n2\n3\n4 learner matched=10\n5 learner healthy_for=3s\n6 learner cordoned\n\
                7 learner replica\n8 learner lost=1m";
    let plan = World::of(text).plan(&wish("4 5 6 7 8", "1", "7"));
    assert_eq!(
        plan,
        [
            "held promote 4: 4 is unhealthy",
            "held promote 5: 5 is healthy for 3s of 10s",
            "held promote 6: 6 is cordoned: maintenance",
            "held promote 7: 7 is a read replica",
            "held promote 8: 8 is unhealthy",
            "held demote 1: the leader keeps its vote until it has handed over",
            "held remove 8: 1 of 2 independent signs say that 8 is dead",
            "held transfer leadership to 7: 7 is Learner, expected Voter",
        ]
    );
}

#[test]
fn f2_a_promoter_that_keeps_the_dead_is_named() {
    #[derive(Debug)]
    struct Keeper;
    impl Promoter for Keeper {
        fn wishes(&self, _: &Config, _: &State) -> Wishes {
            Wishes::default()
        }
        fn keeps(&self, _: &Config, _: &State, dead: &Removals) -> Vec<ServerId> {
            // Who is not dead, and nobody, change nothing.
            [dead.failed_learners.clone(), ids("1 2 9")].concat()
        }
    }
    let world =
        World::of("1 leader\n2\n3\n4 lost=49h silent=49h\n5 learner lost=49h silent=49h\n6");
    check_plan(&world, &Keeper, &["do remove 4", "held remove 5: the promoter keeps it"]);
    let mut world = world;
    world.config.cleanup_dead_servers = false;
    check_plan(
        &world,
        &Keeper,
        &[
            "held remove 4: cleanup_dead_servers is off",
            "held remove 5: cleanup_dead_servers is off",
        ],
    );
}

#[test]
fn f2_a_server_outside_the_membership_is_neither_sick_nor_joining() {
    let state = World::of("1 leader\n2\n3\n4 absent contact=never matched=never new").state();
    assert_eq!(reasons(&state, "4"), [Reason::NotMember]);
    assert_eq!((health(&state, "4"), state.healthy), (Verdict::Unknown, true));
    assert!(state.server(&"4".into()).unwrap().joining.is_none());
}

// F4: no validation.

#[test]
fn f4_a_dangerous_configuration_is_refused_by_the_name_of_its_field() {
    type Spoil = fn(&mut Config);
    let spoils: &[(&str, Spoil)] = &[
        ("last_contact_threshold", |c| c.last_contact_threshold = HEARTBEAT * 2),
        ("last_contact_recovery", |c| c.last_contact_recovery = c.last_contact_threshold * 2),
        ("last_contact_recovery", |c| c.last_contact_recovery = Duration::ZERO),
        ("trailing_logs_recovery", |c| c.trailing_logs_recovery = c.max_trailing_logs + 1),
        ("stall_threshold", |c| c.stall_threshold = Duration::ZERO),
        ("voter_replacement_grace", |c| c.voter_replacement_grace = Duration::ZERO),
        ("join_grace", |c| c.join_grace = Duration::ZERO),
        ("left_server_grace", |c| c.left_server_grace = Duration::ZERO),
        ("status_max_age", |c| c.status_max_age = time("1999ms")),
        ("max_catch_up_time", |c| c.max_catch_up_time = time("25h")),
        ("server_stabilization_time", |c| c.server_stabilization_time = time("25h")),
        ("min_quorum", |c| c.min_quorum = 100),
        ("min_margin", |c| c.min_margin = 100),
        ("dead_server_last_contact_threshold", |c| {
            c.dead_server_last_contact_threshold = Duration::from_secs(59);
        }),
        ("dead_server_last_contact_threshold", |c| {
            c.cleanup_dead_servers = false;
            c.dead_server_last_contact_threshold = Duration::ZERO;
        }),
        ("upgrade_target_version", |c| c.upgrade_target_version = "abc".to_owned()),
    ];
    for (field, spoil) in spoils {
        let mut config = Config::for_heartbeat(HEARTBEAT);
        config.validate(HEARTBEAT).unwrap();
        spoil(&mut config);
        let error = config.validate(HEARTBEAT).unwrap_err();
        assert_eq!(error.field, *field, "{error}");
    }
    // Every threshold and grace is above; switches, names, and a number of which any makes sense.
    let free = |name: &str| {
        let name_of = name.ends_with("_tag");
        let switch = ["cleanup_dead_servers", "disable_upgrade_migration"].contains(&name);
        name_of || switch || name == "max_trailing_logs"
    };
    let json = serde_json::to_value(Config::for_heartbeat(HEARTBEAT)).unwrap();
    for name in json.as_object().unwrap().keys() {
        let ruled = spoils.iter().any(|(field, _)| field == name);
        assert_ne!(ruled, free(name), "{name}: a rule, or a reason for none");
    }
    let mut edge = Config::for_heartbeat(HEARTBEAT);
    (edge.min_quorum, edge.min_margin) = (99, 99);
    edge.server_stabilization_time = Duration::ZERO;
    edge.validate(HEARTBEAT).unwrap();
    for heartbeat in [Duration::ZERO, time("1ms"), time("1s"), time("1h"), Duration::MAX / 8] {
        Config::for_heartbeat(heartbeat).validate(heartbeat).unwrap();
    }
}

#[test]
fn f4_an_unknown_field_is_no_configuration() {
    let json = serde_json::to_value(Config::for_heartbeat(HEARTBEAT)).unwrap();
    assert_eq!(
        serde_json::from_value::<Config>(json.clone()).unwrap(),
        Config::for_heartbeat(HEARTBEAT)
    );
    let mut more = json;
    more["min_qorum"] = 3.into();
    assert!(serde_json::from_value::<Config>(more).is_err());
}

#[test]
fn signs_of_identity_are_one_sign_however_many_there_are() {
    let mut world = World::of("1 leader\n2\n3\n4 wiped=25h\n5");
    let record = world.ledger.as_mut().unwrap().servers.get_mut("4").unwrap();
    record.signs.push(Sign::Identity);
    record.signs_at.identity = record.signs_at.shrunk;
    check_plan(&world, &nobody(), &["held remove 4: 1 of 2 independent signs say that 4 is dead"]);
}

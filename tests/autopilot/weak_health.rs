//! The weaknesses A of the reference, state and health (letters and numbers are those of our list), each with the remedy that holds here.

use std::{sync::Arc, time::Duration};

use raft_autopilot::{
    autopilot::{
        Change, LogId, Origin, Probe, Reason, Record, Refusal, Report, Server, Step, Verdict,
        check, plan,
    },
    promoters::Stable,
};

use crate::support::{
    AT, HEARTBEAT, World, change, check_plan, entry, health, ids, nobody, reasons, refusal, remove,
    status, time, votes, wish,
};

// A1: history dies at a change of leaders.

#[test]
fn a1_a_new_leader_continues_the_recorded_history() {
    let mut world = World::of("1 leader\n2\n3\n4 learner healthy_for=9s");
    world.elect("2", time("1s"));
    check_plan(&world, &Stable::new(), &["do promote 4"]);
}

#[test]
fn a1_a_new_leader_that_knows_no_history_promotes_nobody_before_its_time() {
    let mut world = World::of("1 leader\n2\n3\n4 learner");
    world.ledger = None;
    for _ in 0..10 {
        let state = world.pass(time("1s"));
        assert!(plan(&world.config, &state, &Stable::new()).changes.is_empty());
    }
    check_plan(&world, &Stable::new(), &["do promote 4"]);
    // The next one knows nothing again.
    world.elect("2", Duration::ZERO);
    check_plan(&world, &Stable::new(), &[]);
}

#[test]
fn a1_a_history_with_a_hole_longer_than_stability_proves_nothing() {
    let mut world = World::of("1 leader\n2\n3\n4 learner\n5 lost=23h silent=23h");
    world.elect("2", time("10s"));
    assert_eq!(world.plan(&Stable::new())[0], "do promote 4");
    world.elect("2", time("2h"));
    // Neither stability nor a grace has run while nobody led.
    check_plan(
        &world,
        &wish("4", "", ""),
        &["held promote 4: 4 is healthy for 0s of 10s", "held remove 5: 5: 0s of a grace of 1day"],
    );
}

#[test]
fn a1_a_restart_ends_a_history_even_if_no_leader_saw_it() {
    let mut world = World::of("1 leader\n2\n3\n4 learner");
    world.ledger.as_mut().unwrap().servers.get_mut("4").unwrap().boot = Some(1);
    world.server("4").probe = Probe::Answered(status(1, 1_000, 1_000, 1_000));
    check_plan(&world, &Stable::new(), &["do promote 4"]);
    world.server("4").probe = Probe::Answered(status(2, 1_000, 1_000, 1_000));
    check_plan(&world, &wish("4", "", ""), &["held promote 4: 4 is healthy for 0s of 10s"]);
}

#[test]
fn a1_the_ledger_starts_an_age_anew_when_the_boot_id_has_changed() {
    let mut world = World::of("1 leader\n2");
    let ledger = world.ledger.as_mut().unwrap();
    let mut report = |at: &str, boot: Option<u64>| {
        let server = "2".into();
        let (verdict, disk, signs) = (Verdict::Healthy, None, Vec::new());
        let report =
            Report { server, verdict, age: time("2h"), boot, disk, signs, flaps: 0, leads: false };
        ledger.apply(1, AT + time(at), Record::Health(vec![report]));
        ledger.servers["2"].applied_at.unwrap()
    };
    let begin = AT.saturating_sub(time("1h"));
    assert_eq!(report("1s", Some(1)), begin, "a first boot id is no restart");
    assert_eq!(report("2s", None), begin);
    assert_eq!(report("3s", Some(1)), begin);
    assert_eq!(report("4s", Some(2)), AT + time("4s"));
}

#[test]
fn a1_signs_of_death_go_on_over_an_election() {
    let mut world = World::of("1 leader\n2\n3\n4 lost=1d silent=1d");
    world.elect("2", time("1s"));
    check_plan(&world, &nobody(), &["do remove 4"]);
    // A new leader has no contact with anybody yet, and no probe has answered: what was known
    // stays known for that moment. Contact with it ends all that contact says.
    world.server("4").contact = None;
    world.server("4").probe = Probe::Off;
    let signs = |world: &World| world.state().server(&"4".into()).unwrap().signs.iter().count();
    assert_eq!((signs(&world), health(&world.state(), "4")), (2, Verdict::Unknown));
    world.server("4").contact = Some(Duration::ZERO);
    assert_eq!(signs(&world), 0);
}

#[test]
fn a1_a_member_that_a_leader_finds_is_not_taken_for_a_joining_one() {
    let mut world = World::of("1 leader\n2\n3 learner new contact=never");
    world.ledger = None;
    assert!(world.pass(time("1s")).server(&"3".into()).unwrap().joining.is_none());
    // One that comes while it leads is.
    let mut new = world.server("3").clone();
    new.server = Arc::new(Server::new("4", "there"));
    world.seen.servers.push(new);
    assert!(world.state().server(&"4".into()).unwrap().joining.is_some());
}

// A2: silent servers stay healthy.

#[test]
fn a2_silence_is_not_health() {
    let mut world = World::of("1 leader\n2\n3 contact=never");
    assert_eq!(health(&world.pass(time("201ms")), "3"), Verdict::Unknown);
    assert_eq!(health(&world.pass(Duration::ZERO), "3"), Verdict::Unhealthy);
    assert_eq!(reasons(&world.state(), "3"), [Reason::ContactLost]);
}

#[test]
fn a2_an_old_answer_says_nothing_any_more() {
    let mut world = World::of("1 leader alive\n2\n3\n4\n5 failed=1s");
    let mut old = status(1, 0, 1_000, 0);
    old.age = world.config.status_max_age + Duration::from_nanos(1);
    world.server("2").probe = Probe::Answered(old);
    world.seen.discovery = Some(old.age);
    let state = world.state();
    assert!(state.healthy, "{:?} {:?}", reasons(&state, "2"), reasons(&state, "5"));
    assert!(state.servers.iter().all(|s| s.signs.iter().next().is_none()));
}

#[test]
fn a2_unknown_neither_promotes_nor_removes() {
    let mut world = World::of("1 leader\n2\n3\n4 learner\n5 lost=25h silent=25h");
    world.server("4").matched = None;
    world.server("5").contact = None;
    check_plan(
        &world,
        &wish("4", "5", ""),
        &["held promote 4: 4 is unknown", "held demote 5: nothing is known of 5's health"],
    );
    for (step, origin) in [
        (votes("4", ""), Origin::Promoter),
        (votes("", "5"), Origin::Promoter),
        (remove("4"), Origin::Cleanup),
        (remove("5"), Origin::Cleanup),
    ] {
        assert!(refusal(&world, step.clone(), origin).is_some(), "{step}");
    }
}

#[test]
fn a2_a_short_doubt_breaks_no_history_and_a_longer_one_does_even_between_two_rounds() {
    for (doubt, expected) in [("200ms", true), ("201ms", false)] {
        let mut world = World::of("1 leader\n2\n3 learner");
        world.pass(time("1s"));
        world.server("3").contact = None;
        world.seen.leading.as_mut().unwrap().since = world.seen.at;
        world.last = None;
        world.pass(time(doubt));
        world.server("3").contact = Some(Duration::ZERO);
        let state = world.state();
        let stable = state.server(&"3".into()).unwrap().is_stable(&world.config, state.at);
        assert_eq!(stable, expected, "{doubt}");
    }
}

// A3: a single late packet swings the verdict.

#[test]
fn a3_two_thresholds_of_contact() {
    let mut world = World::of("1 leader\n2\n3");
    let mut after = |contact: &str| {
        world.server("3").contact = Some(time(contact));
        health(&world.pass(HEARTBEAT), "3")
    };
    assert_eq!(after("200ms"), Verdict::Healthy);
    assert_eq!(after("201ms"), Verdict::Unhealthy);
    assert_eq!(after("151ms"), Verdict::Unhealthy);
    assert_eq!(after("150ms"), Verdict::Healthy);
    assert_eq!(after("200ms"), Verdict::Healthy);
}

#[test]
fn a3_two_thresholds_of_lag() {
    let mut world = World::of("1 leader\n2\n3");
    let mut after = |matched: u64| {
        world.server("3").matched = Some(entry(matched));
        health(&world.pass(Duration::ZERO), "3")
    };
    assert_eq!(after(750), Verdict::Healthy);
    assert_eq!(after(749), Verdict::Unhealthy);
    assert_eq!(after(874), Verdict::Unhealthy);
    assert_eq!(after(875), Verdict::Healthy);
    assert_eq!(after(750), Verdict::Healthy);
}

#[test]
fn a3_an_entry_on_its_way_is_no_stall_however_far_apart_the_rounds_are() {
    let mut world = World::of("1 leader\n2\n3");
    world.server("2").probe = Probe::Answered(status(1, 1_000, 1_000, 1_000));
    world.pass(time("10s"));
    world.seen.last_log = entry(1_001);
    world.server("1").matched = Some(entry(1_001));
    world.server("2").probe = Probe::Answered(status(1, 1_001, 1_000, 1_000));
    assert!(world.pass(time("2s")).healthy);
    // Then it has its time.
    assert!(world.pass(Duration::from_nanos(1)).healthy);
    let state = world.state();
    assert_eq!(reasons(&state, "3"), [Reason::Stalled]);
    assert_eq!(reasons(&state, "2"), [Reason::Stalled, Reason::NotApplying]);
}

#[test]
fn a3_a_probe_that_misses_now_and_then_hides_no_state_machine_that_stands_still() {
    let mut world = World::of("1 leader\n2\n3");
    let mut round = |probe: Probe| {
        world.server("3").probe = probe;
        let state = world.pass(time("1s"));
        (health(&state, "3"), reasons(&state, "3"))
    };
    let answer = |boot, applied| Probe::Answered(status(boot, 1_000, 1_000, applied));
    let silent = Probe::Silent(time("1s"));
    round(answer(1, 900));
    assert_eq!(round(silent), (Verdict::Healthy, vec![Reason::ProbeSilent]));
    assert_eq!(round(answer(1, 900)).0, Verdict::Healthy, "two seconds are its time");
    round(silent);
    assert_eq!(round(answer(1, 900)), (Verdict::Unhealthy, vec![Reason::NotApplying]));
    let both = vec![Reason::NotApplying, Reason::ProbeSilent];
    assert_eq!(round(silent), (Verdict::Unhealthy, both));
    assert_eq!(round(answer(1, 900)).0, Verdict::Unhealthy);
    // Whoever applies a little between two answers is well, and so is whoever has restarted.
    assert_eq!(round(answer(1, 901)).0, Verdict::Healthy);
    round(silent);
    round(silent);
    assert_eq!(round(answer(1, 902)).0, Verdict::Healthy);
    round(silent);
    round(silent);
    assert_eq!(round(answer(2, 0)).0, Verdict::Healthy);
}

// A4: an unparsable contact looks perfect.

#[test]
fn a4_no_contact_is_not_a_contact_of_zero() {
    let state = World::of("1 leader\n2\n3 contact=never").state();
    let server = state.server(&"3".into()).unwrap();
    assert_eq!((server.last_contact, server.health.verdict), (None, Verdict::Unknown));
    assert!(!server.live);
}

// A5: progress is the leader's own; lag is entries, and time to catch up.

#[test]
fn a5_a_follower_that_is_about_to_catch_up_does_not_trail() {
    let mut world = World::of("1 leader\n2\n3");
    let mut after = |matched: u64, end: u64| {
        world.seen.last_log = entry(end);
        world.server("1").matched = Some(entry(end));
        world.server("2").matched = Some(entry(end));
        world.server("3").matched = Some(entry(matched));
        reasons(&world.pass(time("100ms")), "3")
    };
    assert_eq!(after(1_000, 1_000), []);
    // 5,000 entries in 100 ms; 1,000 to go are 20 ms.
    assert_eq!(after(6_000, 7_000), []);
    // 300 to go and nothing gained: after a second the estimate has run out.
    assert_eq!(after(6_700, 7_000), []);
    for _ in 0..10 {
        assert_eq!(after(6_700, 7_000), []);
    }
    assert_eq!(after(6_700, 7_000), [Reason::Trailing]);
    // By entries alone, as the reference judges:
    world.config.max_catch_up_time = Duration::ZERO;
    world.server("3").matched = Some(entry(6_749));
    assert_eq!(reasons(&world.state(), "3"), [Reason::Trailing]);
}

#[test]
fn a5_a_server_whose_progress_nobody_knows_is_not_healthy() {
    let mut world = World::of("1 leader\n2\n3 learner new matched=never");
    world.pass(Duration::ZERO);
    let mut after = |step: &str| health(&world.pass(time(step)), "3");
    assert_eq!(after("200ms"), Verdict::Unknown);
    assert_eq!(after("1ms"), Verdict::Unknown);
    assert_eq!(after("1ms"), Verdict::Unhealthy);
    // Only a few entries behind, and never acknowledged: it is not taken for caught up.
    let mut world = World::of("1 leader\n2\n3 learner new matched=never");
    world.seen.last_log = entry(20);
    world.pass(time("1s"));
    let state = world.pass(time("2s"));
    assert_eq!(reasons(&state, "3"), [Reason::NoProgressYet]);
    assert!(!state.server(&"3".into()).unwrap().live);
    assert_eq!(health(&world.state(), "3"), Verdict::Unhealthy);
}

// A7, C2: nothing is done on an old state.

#[test]
fn a7_c2_a_step_planned_from_another_membership_term_or_leader_is_not_applied() {
    let world = World::of("1 leader\n2\n3\n4 learner");
    let state = world.state();
    let good = change(&state, votes("4", ""), Origin::Promoter);
    assert_eq!(check(&world.config, &good, &state), Ok(()));
    let mut moved: Vec<Change> = vec![good.clone(), good.clone(), good];
    moved[0].fence.membership = LogId { term: 5, index: 9 };
    moved[1].fence.term = 4;
    moved[2].fence.leader = "2".into();
    for change in moved {
        let refused = check(&world.config, &change, &state);
        assert!(matches!(refused, Err(Refusal::Moved { .. })), "{refused:?}");
    }
    let mut open = world.clone();
    open.seen.membership.committed = false;
    check_plan(&open, &Stable::new(), &["idle: a change of the membership is not committed yet"]);
    assert_eq!(
        refusal(&open, votes("4", ""), Origin::Promoter),
        Some(Refusal::ChangeInFlight),
        "also where a planner forgets it"
    );
}

#[test]
fn c2_a_removed_server_is_never_resurrected() {
    let world = World::of("1 leader\n2\n3\n4 learner removed");
    check_plan(&world, &wish("4", "", ""), &["held promote 4: 4 was removed once"]);
    let force = Origin::Operator { operation: 1, force: Some("now".into()) };
    for step in [votes("4", ""), Step::Transfer { to: "4".into() }] {
        assert!(refusal(&world, step, force.clone()).is_some());
    }
    let mut world = World::of("1 leader\n2\n3");
    world.ledger.as_mut().unwrap().apply(1, AT, Record::Removed(ids("4")));
    let step = Step::Add(Arc::new(Server::new("4", "x")));
    assert_eq!(refusal(&world, step, force), Some(Refusal::RemovedId { server: "4".into() }));
}

// A8: who leads is Raft's word alone, and the function owns its input.

#[test]
fn a8_order_and_duplicates_of_the_input_change_nothing() {
    let world = World::of("1 leader\n2\n3 lost=1m\n4 learner");
    let mut shuffled = world.clone();
    shuffled.seen.servers.reverse();
    let mut twice = world.server_lines();
    twice[2].role = raft_autopilot::autopilot::Role::Learner;
    shuffled.seen.servers.extend(twice);
    assert_eq!(shuffled.state(), world.state());
}

#[test]
fn a8_a_follower_judges_nobody_and_does_nothing() {
    let mut world = World::of("1 leader\n2\n3\n4 learner");
    let state = world.pass(time("1s"));
    let good = change(&state, votes("4", ""), Origin::Promoter);
    world.seen.leading = None;
    let state = world.state();
    assert!(state.servers.iter().all(|s| s.health.verdict == Verdict::Unknown && !s.live));
    assert_eq!(check(&world.config, &good, &state), Err(Refusal::NotLeading));
    check_plan(&world, &Stable::new(), &["idle: this node does not lead with a fresh lease"]);
}

// A9: overflow.

#[test]
fn a9_huge_numbers_saturate() {
    let mut world = World::of("1 leader\n2\n3 matched=18446744073709551615");
    world.config.max_trailing_logs = u64::MAX;
    assert!(world.state().healthy);
    world.seen.last_log = entry(u64::MAX);
    world.server("1").matched = Some(entry(u64::MAX));
    world.server("2").matched = Some(entry(0));
    assert_eq!(health(&world.pass(time("1s")), "2"), Verdict::Healthy);
    world.config.max_trailing_logs = 0;
    assert_eq!(health(&world.state(), "2"), Verdict::Unhealthy);
}

// A10: one dead read replica, or nobody at all.

#[test]
fn a10_the_verdicts_are_told_apart() {
    let state = World::of("1 leader\n2\n3\n4 learner replica lost=1h").state();
    assert_eq!((state.healthy, state.voters_healthy, state.quorum), (false, true, true));
    assert_eq!(state.failure_tolerance, 1);
    let state = World::of("1 leader\n2\n3 matched=10").state();
    // Trailing is unhealthy, not dead.
    assert_eq!((state.voters_healthy, state.quorum, state.failure_tolerance), (false, true, 0));
    let state = World::of("1 leader\n2 lost=1m\n3 lost=1m").state();
    assert_eq!((state.healthy, state.quorum, state.failure_tolerance), (false, false, 0));
    let state = World::of("").state();
    assert_eq!((state.healthy, state.voters_healthy, state.quorum), (false, false, false));
}

// A12: one bad answer taints others.

#[test]
fn a12_one_server_that_does_not_answer_changes_nothing_for_the_others() {
    let well = World::of("1 leader\n2\n3").state();
    let sick = World::of("1 leader\n2\n3 lost=1m silent=1m").state();
    for id in ["1", "2"] {
        let id = id.into();
        assert_eq!(well.server(&id).unwrap().health, sick.server(&id).unwrap().health);
    }
    // No answer to a probe alone makes nobody unhealthy: the probe may be what is broken.
    let state = World::of("1 leader\n2\n3 silent=1h").state();
    let only_silent = reasons(&state, "3");
    assert_eq!(only_silent, [Reason::ProbeSilent]);
    assert!(state.server(&"3".into()).unwrap().live);
}

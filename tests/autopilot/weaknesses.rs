//! The weaknesses of the reference (its letters and numbers are those of our list), each with the remedy that holds here.

use std::{sync::Arc, time::Duration};

use raft_autopilot::{
    autopilot::{
        Change, Config, LogId, NodeStatus, NodeType, Origin, Probe, Promoter, Reason, Record,
        Refusal, Removals, Report, Server, ServerState, Sign, State, Step, Task, Verdict, Wishes,
        check, plan,
    },
    promoters::Stable,
};

use crate::support::{
    AT, HEARTBEAT, World, change, check_plan, entry, ids, remove, status, time, votes, wish,
};

fn health(state: &State, id: &str) -> Verdict {
    state.server(&id.into()).unwrap().health.verdict
}

fn reasons(state: &State, id: &str) -> Vec<Reason> {
    state.server(&id.into()).unwrap().health.reasons.iter().collect()
}

fn refusal(world: &World, step: Step, origin: Origin) -> Option<Refusal> {
    let state = world.state();
    check(&world.config, &change(&state, step, origin), &state).err()
}

fn nobody() -> impl Promoter {
    wish("", "", "")
}

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
        let report = Report { server, verdict: Verdict::Healthy, boot, signs: Vec::new() };
        ledger.apply(1, AT + time(at), Record::Health(vec![report]));
        ledger.servers["2"].applied_at.unwrap()
    };
    let begin = AT - time("1h");
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
    check_plan(
        &world,
        &wish("4", "", ""),
        &["held promote 4: 4 was removed once; join with a new id"],
    );
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

// B1: no grace.

#[test]
fn b1_a_reboot_costs_nobody_the_vote() {
    let mut world = World::of("1 leader alive\n2\n3\n4 lost=1m silent=1m failed=1m\n5");
    let held = ["held remove 4: 4: 1m of a grace of 1day"];
    check_plan(&world, &Stable::with_target(5), &held);
    world.ledger.as_mut().unwrap().apply(
        1,
        AT,
        Record::Intend {
            server: "4".into(),
            kind: raft_autopilot::autopilot::IntentKind::Reboot,
            ttl: time("1h"),
        },
    );
    check_plan(&world, &Stable::with_target(5), &held);
}

#[test]
fn b1_every_cause_has_its_grace() {
    for (line, too_early) in [
        ("lost=86400s silent=25h", false),
        ("lost=86399s silent=25h", true),
        ("lost=10s left=10s", false),
        ("lost=9s left=9s", true),
        ("lost=25h", true),
    ] {
        let world = World::of(&format!("1 leader {}\n2\n3\n4 {line}\n5", alive(line)));
        let plan = world.plan(&nobody());
        let expected = if too_early { "held remove 4: " } else { "do remove 4" };
        assert!(plan[0].starts_with(expected), "{line}: {plan:?}");
        let refused = refusal(&world, remove("4"), Origin::Cleanup).is_some();
        assert_eq!(refused, too_early, "{line}");
    }
}

fn alive(line: &str) -> &'static str {
    if line.contains("left") { "alive" } else { "" }
}

#[test]
fn b1_what_an_operator_has_announced_is_not_cleaned_up() {
    let world = World::of("1 leader\n2\n3\n4 lost=25h silent=25h intent=reboot\n5");
    check_plan(&world, &nobody(), &["held remove 4: an operator has announced a Reboot"]);
}

// B2: shrinks the cluster step by step.

#[test]
fn b2_a_dead_voter_is_replaced_by_a_ready_one_before_it_is_removed() {
    let world = World::of("1 leader\n2\n3\n4 lost=10s\n5\n6 learner");
    let plan = world.plan(&Stable::with_target(5));
    assert_eq!(plan[0], "do promote 6 and demote 4");
    let world = World::of("1 leader\n2\n3\n4 lost=9s\n5\n6 learner");
    assert!(!world.plan(&Stable::with_target(5))[0].starts_with("do"));
}

#[test]
fn b2_without_replacements_it_stops_at_three_or_at_the_floor() {
    let gone = "lost=25h silent=25h";
    for (text, floor, expected) in [
        (format!("1 leader\n2\n3\n4\n5 {gone}"), 0, "do remove 5"),
        (format!("1 leader\n2\n3\n4 {gone}"), 0, "do remove 4"),
        (
            format!("1 leader\n2\n3 {gone}"),
            0,
            "held remove 3: 2 voters would be left, fewer than 3",
        ),
        (format!("1 leader\n2\n3 {gone}"), 2, "do remove 3"),
        (
            format!("1 leader\n2\n3\n4\n5 {gone}"),
            5,
            "held remove 5: 4 voters would be left, fewer than 5",
        ),
    ] {
        let mut world = World::of(&text);
        world.config.min_quorum = floor;
        check_plan(&world, &nobody(), &[expected]);
        let refused = refusal(&world, remove(&expected[expected.len() - 1..]), Origin::Cleanup);
        assert!(expected.starts_with("held") || refused.is_none(), "{refused:?}");
    }
}

// B3: stale servers are exempt, and a leader may remove itself.

#[test]
fn b3_servers_that_discovery_forgets_obey_every_rule() {
    let text = "1 leader alive\n2\n3\n4 missing=49h\n5 missing=49h\n6\n7";
    // In contact: forgotten, and alive.
    check_plan(&World::of(text), &nobody(), &[]);
    let text = "1 leader alive\n2\n3\n4 lost=1h missing=49h\n5\n6\n7";
    check_plan(&World::of(text), &nobody(), &["held remove 4: 4: 1h of a grace of 1day"]);
}

#[test]
fn b3_a_leader_that_discovery_forgets_stays() {
    let world = World::of("1 leader missing=99h silent=99h\n2\n3\n4\n5");
    let state = world.state();
    assert!(state.discovery_shrunken && health(&state, "1") == Verdict::Healthy);
    check_plan(&world, &nobody(), &[]);
    for step in [remove("1"), votes("", "1")] {
        for force in [None, Some("now".to_owned())] {
            let origin = Origin::Operator { operation: 1, force };
            assert_eq!(refusal(&world, step.clone(), origin), Some(Refusal::LeaderKeepsVote));
        }
    }
}

// B4: a forgotten field disables the clean-up.

#[derive(Debug)]
struct Untyped;

impl Promoter for Untyped {
    fn wishes(&self, _: &Config, _: &State) -> Wishes {
        Wishes::default()
    }
    fn node_type(&self, _: &Config, _: &State, _: &ServerState) -> NodeType {
        NodeType::new("")
    }
}

#[test]
fn b4_no_type_of_a_node_is_needed_for_a_clean_up() {
    let world = World::of("1 leader\n2\n3\n4 lost=25h silent=25h");
    check_plan(&world, &Untyped, &["do remove 4"]);
}

// B5: one budget, in live voters.

#[test]
fn b5_what_could_vote_some_day_does_not_count() {
    let text = "1 leader\n2 lost=49h silent=49h\n3\n4 learner new\n5 learner new\n6 learner new\n7 learner new";
    let mut world = World::of(text);
    world.config.min_quorum = 3;
    // The reference counts seven potential voters here and removes 2.
    check_plan(&world, &nobody(), &["held remove 2: 2 voters would be left, fewer than 3"]);
}

#[test]
fn b5_a_removal_that_only_margins_forbid_says_so() {
    let mut world = World::of("1 leader\n2\n3\n4\n5");
    world.config.min_margin = 2;
    check_plan(
        &world,
        &wish("", "5", ""),
        &["held demote 5: live voters beyond the quorum would go from 2 to 1"],
    );
    world.config.min_margin = 1;
    check_plan(&world, &wish("", "5 4", ""), &["do demote 5, 4"]);
    check_plan(
        &world,
        &wish("", "5 4 3", ""),
        &["do demote 5, 4", "held demote 3: live voters beyond the quorum would go from 2 to 0"],
    );
}

// B6: unknown is dead, left is dead.

#[test]
fn b6_what_discovery_cannot_tell_counts_as_nothing() {
    let mut world = World::of("1 leader alive\n2\n3\n4 lost=25h\n5");
    world.server("4").discovery = Some(NodeStatus::Unknown);
    check_plan(&world, &nobody(), &["held remove 4: 1 of 2 independent signs say that 4 is dead"]);
    world.server("4").contact = Some(Duration::ZERO);
    assert_eq!(health(&world.state(), "4"), Verdict::Healthy);
}

#[test]
fn b6_a_server_that_said_good_bye_and_still_acknowledges_keeps_its_place() {
    let world = World::of("1 leader alive\n2\n3\n4 left=1h silent=1h\n5");
    assert_eq!(health(&world.state(), "4"), Verdict::Unhealthy);
    check_plan(&world, &nobody(), &["held remove 4: 4 is a live voter; demote it first"]);
    assert_eq!(
        refusal(&world, remove("4"), Origin::Cleanup),
        Some(Refusal::LiveVoter { server: "4".into() })
    );
}

// B9: new servers are pruned while they restore a snapshot.

#[test]
fn b9_progress_of_a_snapshot_extends_the_time_to_join() {
    let mut world = World::of("1 leader\n2\n3");
    world.pass(time("1s"));
    let mut text = World::of("4 learner new contact=never matched=never");
    world.seen.servers.push(text.server("4").clone());
    let state = world.pass(time("1s"));
    assert!(reasons(&state, "4").contains(&Reason::Joining));
    // Five minutes a piece, for an hour: unhealthy all the time, and never dead.
    for piece in 1..12 {
        let mut answer = status(9, 0, 0, 0);
        answer.snapshot = Some(piece * 1_000);
        world.server("4").probe = Probe::Answered(answer);
        world.pass(time("1s"));
        world.server("4").probe = Probe::Silent(time("299s"));
        for _ in 0..10 {
            let state = world.pass(time("29s900ms"));
            assert!(state.server(&"4".into()).unwrap().joining.is_some());
            assert!(plan(&world.config, &state, &nobody()).changes.is_empty());
        }
    }
    // Then nothing more comes.
    world.server("4").probe = Probe::Silent(time("10m"));
    for _ in 0..21 {
        world.pass(time("30s"));
    }
    check_plan(&world, &nobody(), &["do remove 4"]);
}

#[test]
fn b9_whoever_has_caught_up_once_is_not_joining_any_more() {
    let mut world = World::of("1 leader\n2\n3");
    world.pass(time("1s"));
    let mut new = World::of("4 learner new matched=10");
    world.seen.servers.push(new.server("4").clone());
    assert!(world.pass(time("1s")).server(&"4".into()).unwrap().joining.is_some());
    world.server("4").matched = Some(entry(1_000));
    assert!(world.pass(time("1s")).server(&"4".into()).unwrap().joining.is_none());
    world.server("4").matched = Some(entry(10));
    assert!(world.pass(time("1s")).server(&"4".into()).unwrap().joining.is_none());
}

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
        // Down to one it is a quorum of itself, as wished; the leader stays.
        &[
            "do demote 2, 3, 4, 5",
            "held demote 1: the leader keeps its vote until it has handed over",
        ],
    );
    let mut world = world;
    world.config.min_quorum = 3;
    let plan = world.plan(&wish("", "5 4 3 2 1", ""));
    assert_eq!(plan[0], "do demote 5, 4");
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
    // One that is being drained is not wished back into the lead.
    let plan = world.plan(&wish("", "", "5"));
    assert!(
        plan.contains(&"held transfer leadership to 5: an operator has announced a Drain".into())
    );
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
            text += &format!("{} {role}\n", i + 1);
        }
        let world = World::of(&text);
        let wishes = Stable::with_target(target).wishes(&world.config, &world.state());
        assert!(wishes.demote.is_empty());
        voters + wishes.promote.len()
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
        (3, 5, 1, 5),
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
        fn filter_removals(&self, _: &Config, _: &State, mut dead: Removals) -> Removals {
            dead.failed_learners.clear();
            // Whoever was not offered is not removed either.
            dead.stale_voters = ids("1 2 9");
            dead
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
    let spoils: [(&str, Spoil); 9] = [
        ("last_contact_threshold", |c| c.last_contact_threshold = HEARTBEAT * 2),
        ("last_contact_recovery", |c| c.last_contact_recovery = c.last_contact_threshold * 2),
        ("last_contact_recovery", |c| c.last_contact_recovery = Duration::ZERO),
        ("trailing_logs_recovery", |c| c.trailing_logs_recovery = c.max_trailing_logs + 1),
        ("stall_threshold", |c| c.stall_threshold = Duration::ZERO),
        ("voter_replacement_grace", |c| c.voter_replacement_grace = Duration::ZERO),
        ("join_grace", |c| c.join_grace = Duration::ZERO),
        ("dead_server_last_contact_threshold", |c| {
            c.dead_server_last_contact_threshold = Duration::from_secs(59);
        }),
        ("dead_server_last_contact_threshold", |c| {
            c.cleanup_dead_servers = false;
            c.dead_server_last_contact_threshold = Duration::ZERO;
        }),
    ];
    for (field, spoil) in spoils {
        let mut config = Config::for_heartbeat(HEARTBEAT);
        config.validate(HEARTBEAT).unwrap();
        spoil(&mut config);
        let error = config.validate(HEARTBEAT).unwrap_err();
        assert_eq!(error.field, field, "{error}");
    }
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

//! The weaknesses B of the reference, clean-up (letters and numbers are those of our list), each with the remedy that holds here.

use std::time::Duration;

use raft_autopilot::{
    autopilot::{
        Config, IntentKind, Ledger, NodeStatus, NodeType, Origin, Probe, Promoter, Reason, Record,
        Refusal, Report, ServerId, ServerState, Sign, StandingSign, State, Verdict, Wishes, plan,
    },
    codec::{decode, encode},
    promoters::Stable,
};

use crate::support::{
    AT, World, check_plan, entry, health, nobody, reasons, refusal, remove, status, time, votes,
    wish,
};

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
fn b1_a_running_grace_says_for_how_long_two_signs_have_stood() {
    let world = World::of("1 leader alive\n2\n3\n4 lost=9h silent=5h failed=1h\n5");
    let held = ["held remove 4: 4: 5h of a grace of 1day"];
    check_plan(&world, &nobody(), &held);
    let refused = refusal(&world, remove("4"), Origin::Cleanup).unwrap();
    assert_eq!(format!("held remove 4: {refused}"), format!("{}; wait, or use force", held[0]));
}

#[test]
fn b1_what_an_operator_has_announced_is_not_cleaned_up() {
    let world = World::of("1 leader\n2\n3\n4 lost=25h silent=25h intent=reboot\n5");
    check_plan(&world, &nobody(), &["held remove 4: an operator has announced: reboot"]);
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
    check_plan(&world, &wish("", "5 4", ""), &["do demote 4, 5"]);
    check_plan(
        &world,
        &wish("", "5 4 3", ""),
        &["do demote 4, 5", "held demote 3: live voters beyond the quorum would go from 2 to 0"],
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
    check_plan(&world, &nobody(), &["held remove 4: 4: 10ms of a grace of 10s"]);
    assert_eq!(
        refusal(&world, remove("4"), Origin::Cleanup),
        Some(Refusal::LiveVoter { server: "4".into() })
    );
}

#[test]
fn b6_a_grace_runs_from_when_replication_heard_last_whatever_else_is_silent() {
    let dead = |contact: &str| {
        World::of(&format!("1 leader alive\n2\n3\n4 learner failed=99h silent=99h {contact}\n5"))
    };
    let passes = ["do remove 4"];
    check_plan(&dead("lost=99h"), &nobody(), &passes);
    // By what it acknowledged, or, with a new leader, by when that began to miss it.
    for contact in ["contact=9s", "lost=9s", "contact=10ms"] {
        let world = dead(contact);
        let held = world.plan(&nobody());
        assert!(held[0].ends_with("of a grace of 1day"), "{contact}: {held:?}");
        let refused = refusal(&world, remove("4"), Origin::Cleanup);
        assert!(matches!(refused, Some(Refusal::GraceRuns { .. })), "{contact}: {refused:?}");
    }
    // Of a wiped server it proves nothing: it answers, and counts for nothing.
    check_plan(&World::of("1 leader\n2\n3\n4 wiped=25h failed=25h\n5"), &nobody(), &passes);
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
fn b9_a_snapshot_that_begins_again_and_again_is_no_progress() {
    let mut world = World::of("1 leader\n2\n3");
    world.pass(time("1s"));
    let mut text = World::of("4 learner new contact=never matched=never");
    world.seen.servers.push(text.server("4").clone());
    world.pass(time("1s"));
    // It comes to the same point, ends, is not seen for a while, and begins again.
    let progress = |state: &State| state.server(&"4".into()).unwrap().joining.unwrap();
    let mut first = None;
    for _ in 0..30 {
        for mark in [1_000, 2_000, 3_000] {
            let mut answer = status(9, 0, 0, 0);
            answer.snapshot = Some(mark);
            world.server("4").probe = Probe::Answered(answer);
            world.pass(time("10s"));
        }
        world.server("4").probe = Probe::Silent(time("30s"));
        let state = world.pass(time("30s"));
        assert_eq!(progress(&state), *first.get_or_insert(progress(&state)));
    }
    // Further than ever.
    let mut answer = status(9, 0, 0, 0);
    answer.snapshot = Some(3_001);
    world.server("4").probe = Probe::Answered(answer);
    let state = world.pass(time("10s"));
    assert_eq!(progress(&state), state.at);
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

// Records about a server that is gone.

#[test]
fn what_comes_too_late_about_a_removed_server_is_not_kept() {
    let mut ledger = Ledger::default();
    let (server, ttl) = (ServerId::from("4"), time("1h"));
    let cordon =
        Record::Cordon { server: server.clone(), reason: "old disk".to_owned(), ttl: None };
    let intend = Record::Intend { server: server.clone(), kind: IntentKind::Reboot, ttl };
    for record in [cordon.clone(), intend.clone()] {
        ledger.apply(1, AT, record);
    }
    assert_eq!((ledger.cordons.len(), ledger.intents.len()), (1, 1));
    ledger.apply(2, AT, Record::Removed(vec![server]));
    for record in [cordon, intend] {
        ledger.apply(3, AT, record);
    }
    assert_eq!((ledger.cordons.len(), ledger.intents.len()), (0, 0));
}

// What this release wrote, as it stands in a host's log and snapshots.

#[test]
fn records_and_ledgers_of_this_release_stay_readable() {
    let server = || ServerId::from("4");
    let records = vec![
        Record::Cordon { server: server(), reason: "old disk".to_owned(), ttl: None },
        Record::Intend { server: server(), kind: IntentKind::Reboot, ttl: time("1h") },
        Record::Configure { config: Config::default(), cas: None },
        Record::Removed(vec!["9".into()]),
        Record::End(3),
        Record::Lapse(time("2s")),
        Record::HandOver(Vec::new()),
        Record::Health(vec![Report {
            server: server(),
            verdict: Verdict::Unhealthy,
            age: time("3s"),
            boot: Some(7),
            disk: Some(8),
            signs: vec![StandingSign { sign: Sign::Contact, age: time("1s") }],
            flaps: 2,
            leads: true,
        }]),
    ];
    let mut ledger = Ledger::default();
    for (index, record) in (8..).zip(records.clone()) {
        ledger.apply(index, AT, record);
    }
    let hex = |bytes: Vec<u8>| {
        let digits: Vec<String> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        digits.concat()
    };
    assert_eq!(hex(encode(&records).unwrap()), RECORDS);
    assert_eq!(hex(encode(&ledger).unwrap()), LEDGER);
    let bytes = |hex: &str| -> Vec<u8> {
        let pairs = hex.as_bytes().chunks(2).map(|pair| str::from_utf8(pair).unwrap());
        pairs.map(|pair| u8::from_str_radix(pair, 16).unwrap()).collect()
    };
    assert_eq!(decode::<Vec<Record>>(&bytes(RECORDS)).unwrap(), records);
    let mut back: Ledger = decode(&bytes(LEDGER)).unwrap();
    back.restored(AT);
    assert_eq!(back, ledger);
}

const RECORDS: &str = "026a00000008040134086f6c64206469736b00060134010231680101053230306d73053135306d73fa7d0231730232730331307300033130730431646179033130730331306d033130730000000000000a01013909030b0232730c0000010134010233730107010801000231730201";
const LEDGER: &str = "025f0000000101053230306d73053135306d73fa7d0231730232730331307300033130730431646179033130730331306d0331307300000000000a0a00010134010107010800010002010134086f6c64206469736b000101340102316800010139010134";

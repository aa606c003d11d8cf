//! Bad days, each with its name: what the core makes of clocks, discs, discovery and promoters that have gone wrong.

use std::{sync::Arc, time::Duration};

use raft_autopilot::{
    autopilot::{
        NodeStatus, Origin, Probe, Reason, Record, Refusal, Report, Role, Sign, StandingSign,
        State, Step, Verdict, check,
    },
    promoters::Stable,
};

use crate::support::{
    AT, HEARTBEAT, World, change, check_plan, entry, health, nobody, reasons, status, time, votes,
    wish,
};

// Clock steps.

#[test]
fn a_clock_that_stands_still_makes_nobody_stable_and_nobody_dead() {
    let mut world = World::of("1 leader\n2\n3\n4 learner new\n5 lost=23h59m silent=23h59m");
    for _ in 0..1_000 {
        world.pass(Duration::ZERO);
    }
    assert!(world.plan(&Stable::new()).iter().all(|line| line.starts_with("held")));
}

#[test]
fn a_clock_that_steps_back_makes_nobody_stable_and_nobody_dead() {
    let mut world = World::of("1 leader\n2\n3\n4 learner new\n5 lost=23h silent=23h");
    world.pass(time("9s"));
    world.pass(Duration::ZERO);
    let ahead = world.seen.at;
    for at in [ahead / 2, Duration::ZERO, ahead] {
        (world.seen.at, world.seen.ledger_at) = (at, at);
        world.pass(Duration::ZERO);
        assert!(world.plan(&Stable::new()).iter().all(|line| line.starts_with("held")));
    }
}

#[test]
fn a_clock_that_leaps_makes_nobody_stable_and_nobody_dead() {
    for leap in [time("2m"), time("25h"), Duration::MAX] {
        let mut world = World::of("1 leader\n2\n3\n4 learner new\n5 lost=1s silent=1s\n6");
        world.pass(HEARTBEAT);
        world.pass(leap);
        // Those who acknowledge do so at once; two are a moment late.
        world.server("5").contact = Some(leap);
        world.server("5").probe = Probe::Silent(leap);
        world.server("6").contact = Some(leap);
        let plan = world.plan(&Stable::with_target(5));
        assert!(plan.iter().all(|line| line.starts_with("held")), "{leap:?} {plan:?}");
        let state = world.state();
        assert!(state.servers.iter().all(|s| !s.is_stable(&world.config, state.at)));
    }
}

#[test]
fn a_slow_tick_destroys_no_stability_and_a_hole_in_the_rounds_proves_none() {
    for (pace, rounds) in [("50ms", 200), ("1050ms", 10), ("3s", 4), ("31s", 1)] {
        let mut world = World::of("1 leader\n2\n3\n4 learner new");
        let pace = time(pace);
        world.seen.pace = pace;
        for _ in 0..rounds {
            check_plan(&world, &Stable::new(), &[]);
            world.pass(pace);
        }
        check_plan(&world, &Stable::new(), &["do promote 4"]);
        // One round may be missed.
        world.pass(pace * 2);
        check_plan(&world, &Stable::new(), &["do promote 4"]);
        let hole = pace * 2 + Duration::from_nanos(1);
        world.pass(hole);
        let state = world.state();
        assert_eq!(state.lapse, hole);
        assert!(state.servers.iter().all(|s| !s.is_stable(&world.config, state.at)), "{pace:?}");
        assert!(state.healthy && state.failure_tolerance == 1);
    }
}

#[test]
fn rounds_without_a_promise_prove_nothing_when_they_are_as_far_apart_as_the_proof_takes() {
    for (pause, stable) in [("10s", true), ("10001ms", false)] {
        let mut world = World::of("1 leader\n2\n3\n4 learner new");
        world.seen.pace = Duration::ZERO;
        world.pass(time(pause));
        let state = world.state();
        let server = state.server(&"4".into()).unwrap();
        assert_eq!(server.is_stable(&world.config, state.at), stable, "{pause}");
    }
}

#[test]
fn contact_and_silence_that_no_leadership_is_old_enough_for_count_from_its_beginning() {
    let mut world = World::of("1 leader\n2\n3\n4\n5");
    world.server("5").contact = Some(Duration::MAX);
    world.server("5").probe = Probe::Silent(Duration::MAX);
    check_plan(&world, &Stable::with_target(5), &["held remove 5: 5: 0s of a grace of 1day"]);
}

// A leader without a quorum.

#[test]
fn a_leader_whose_lease_has_run_out_judges_nobody_and_does_nothing() {
    let mut world = World::of("1 leader\n2 contact=1h\n3 contact=1h\n4 learner");
    world.seen.leading.as_mut().unwrap().lease = false;
    let state = world.state();
    for server in &state.servers {
        assert_eq!(server.health.verdict, Verdict::Unknown);
        assert_eq!(server.health.reasons.iter().collect::<Vec<_>>(), [Reason::NotJudged]);
    }
    assert!(!state.quorum && !state.healthy);
    check_plan(&world, &Stable::new(), &["idle: this node does not lead with a fresh lease"]);
    for step in [votes("4", ""), Step::FinishJoint, Step::Transfer { to: "2".into() }] {
        let change = change(&state, step, Origin::Promoter);
        assert_eq!(check(&world.config, &change, &state), Err(Refusal::NotLeading));
    }
}

#[test]
fn a_leader_that_has_its_lease_back_remembers_the_dead_and_not_the_stable() {
    let mut world = World::of("1 leader\n2\n3\n4 learner\n5 lost=25h silent=25h");
    world.pass(HEARTBEAT);
    world.seen.leading.as_mut().unwrap().lease = false;
    world.pass(time("1s"));
    world.pass(time("1s"));
    world.seen.leading.as_mut().unwrap().lease = true;
    check_plan(
        &world,
        &wish("4", "", ""),
        &["do remove 5", "held promote 4: 4 is healthy for 0s of 10s"],
    );
}

/// A leader whose lease lapses for ten minutes, looked at every second of it.
fn lapsed(world: &mut World) {
    world.pass(HEARTBEAT);
    world.seen.leading.as_mut().unwrap().lease = false;
    for _ in 0..600 {
        age_contacts(world, time("1s"));
        world.pass(time("1s"));
    }
    world.seen.leading.as_mut().unwrap().lease = true;
}

/// Those who are silent go on being so.
fn age_contacts(world: &mut World, step: Duration) {
    for server in &mut world.seen.servers {
        server.contact = server.contact.map(|age| if age > HEARTBEAT { age + step } else { age });
        if let Probe::Silent(age) = &mut server.probe {
            *age += step;
        }
    }
}

#[test]
fn a_lapse_of_the_lease_counts_towards_no_grace_and_no_stability() {
    let mut world = World::of("1 leader\n2\n3\n4 learner\n5 lost=23h58m silent=23h58m\n6\n7");
    // Somebody falls silent after the last look.
    world.pass(HEARTBEAT);
    world.server("6").contact = Some(time("100ms"));
    lapsed(&mut world);
    let state = world.pass(HEARTBEAT);
    assert!(state.lapse >= time("10m"), "{:?}", state.lapse);
    let age = |state: &State, id: &str| {
        let since = state.server(&id.into()).unwrap().signs.contact;
        state.at.saturating_sub(since.unwrap())
    };
    assert!(age(&state, "5") < time("23h58m1s"), "{:?}", age(&state, "5"));
    assert_eq!(age(&state, "6"), Duration::ZERO, "what was silent meanwhile begins now");
    let held = |world: &World, id: &str| {
        let line = format!("held remove {id}: ");
        world.plan(&nobody()).into_iter().find(|text| text.starts_with(&line))
    };
    assert!(held(&world, "5").unwrap().ends_with("of a grace of 1day"));
    // Only what is really observed counts from here: nothing before two minutes more.
    for _ in 0..119 {
        age_contacts(&mut world, time("1s"));
        world.pass(time("1s"));
    }
    assert!(held(&world, "5").is_some(), "{:?}", world.plan(&nobody()));
    age_contacts(&mut world, time("1s"));
    world.pass(time("1s"));
    check_plan(
        &world,
        &nobody(),
        &["do remove 5", "held remove 6: 1 of 2 independent signs say that 6 is dead"],
    );
}

#[test]
fn a_lapse_of_the_lease_costs_the_healthy_their_stability_once_and_nothing_more() {
    let mut world = World::of("1 leader\n2\n3\n4 learner");
    lapsed(&mut world);
    for _ in 0..10 {
        check_plan(&world, &Stable::new(), &[]);
        let state = world.pass(time("1s"));
        assert!(state.healthy && state.failure_tolerance == 1, "{state:?}");
    }
    check_plan(&world, &Stable::new(), &["do promote 4"]);
    // A moment without a lease is a short doubt, and costs nothing.
    world.pass(HEARTBEAT);
    world.seen.leading.as_mut().unwrap().lease = false;
    world.pass(HEARTBEAT);
    world.seen.leading.as_mut().unwrap().lease = true;
    assert_eq!(world.state().lapse, Duration::ZERO);
    check_plan(&world, &Stable::new(), &["do promote 4"]);
}

#[test]
fn the_ledger_counts_no_lapse_either() {
    let mut world = World::of("1 leader\n2\n3\n4 learner\n5 lost=23h59m silent=23h59m");
    lapsed(&mut world);
    let state = world.pass(time("59s"));
    let ledger = world.ledger.as_mut().unwrap();
    ledger.apply(9, state.ledger_at, Record::Lapse(state.lapse));
    world.elect("2", Duration::ZERO);
    world.last = None;
    check_plan(
        &world,
        &wish("4", "", ""),
        &["do promote 4", "held remove 5: 5: 23h 59m 59s of a grace of 1day"],
    );
    // A lapse never makes anything older, however long it was.
    let ledger = world.ledger.as_mut().unwrap();
    ledger.apply(10, world.seen.ledger_at, Record::Lapse(Duration::MAX));
    check_plan(
        &world,
        &wish("4", "", ""),
        &["held promote 4: 4 is healthy for 0s of 10s", "held remove 5: 5: 0s of a grace of 1day"],
    );
}

#[test]
fn a_leader_that_only_believes_to_have_a_quorum_is_refused_every_step() {
    let world = World::of("1 leader\n2 lost=50h silent=50h\n3 lost=50h silent=50h\n4 learner");
    let plan = world.plan(&Stable::with_target(3));
    assert!(plan.iter().all(|line| !line.starts_with("do")), "{plan:?}");
    assert!(!world.state().quorum);
}

// A follower that answers heartbeats and applies nothing.

#[test]
fn a_follower_that_holds_the_log_and_applies_nothing_is_unmasked_by_a_probe() {
    let mut world = World::of("1 leader\n2\n3");
    let mut round = |applied: u64, age: &str| {
        let mut answer = status(1, 1_000, 1_000, applied);
        answer.age = time(age);
        world.server("3").probe = Probe::Answered(answer);
        world.pass(time("1s"))
    };
    assert!(round(900, "0s").healthy, "it has just begun");
    assert!(round(950, "0s").healthy, "it advances");
    assert!(round(950, "1s").healthy, "the same answer again says nothing new");
    assert!(round(950, "0s").healthy);
    let state = round(950, "0s");
    assert_eq!(reasons(&state, "3"), [Reason::NotApplying]);
    // It holds the log: unhealthy, and not dead.
    assert!(state.server(&"3".into()).unwrap().live && state.quorum);
    assert!(round(951, "0s").healthy);
}

#[test]
fn a_follower_that_holds_the_log_and_applies_nothing_is_not_seen_without_a_probe() {
    let world = World::of("1 leader\n2\n3");
    let state = world.state();
    let server = state.server(&"3".into()).unwrap();
    // What is not known is not made up: there is no status.
    assert_eq!((server.health.verdict, server.status), (Verdict::Healthy, None));
}

#[test]
fn a_follower_that_answers_heartbeats_and_takes_no_entries_is_stalled_and_not_live() {
    let mut world = World::of("1 leader\n2\n3");
    world.pass(time("1s"));
    world.seen.last_log = entry(1_001);
    world.server("1").matched = Some(entry(1_001));
    world.server("2").matched = Some(entry(1_001));
    world.pass(time("2s"));
    assert!(world.pass(time("1ms")).healthy, "it has its time");
    let state = world.state();
    assert_eq!(reasons(&state, "3"), [Reason::Stalled]);
    assert!(!state.server(&"3".into()).unwrap().live && state.quorum);
}

// An empty or shrunken answer of discovery.

#[test]
fn an_empty_answer_of_discovery_kills_nobody() {
    let mut world = World::of("1 leader alive\n2\n3\n4 learner\n5 learner");
    for server in &mut world.seen.servers {
        server.discovery = None;
    }
    let state = world.state();
    assert!(state.discovery_shrunken && state.healthy);
    assert!(state.servers.iter().all(|s| s.signs.iter().next().is_none()));
    check_plan(&world, &wish("", "", ""), &[]);
}

#[test]
fn a_shrunken_answer_of_discovery_is_no_sign() {
    let mut world = World::of("1 leader alive\n2\n3\n4 lost=25h\n5 lost=25h");
    for (forgotten, believed) in [(vec!["4"], true), (vec!["4", "5"], false), (vec!["1"], false)] {
        for server in &mut world.seen.servers {
            let gone = forgotten.contains(&server.server.id.as_str());
            server.discovery = (!gone).then_some(NodeStatus::Alive);
        }
        let state = world.state();
        let standing = state.server(&"4".into()).unwrap().signs.iter().count();
        assert_eq!((state.discovery_shrunken, standing), (!believed, 1 + usize::from(believed)));
    }
}

#[test]
fn a_discovery_that_hangs_says_nothing_any_more() {
    let mut world = World::of("1 leader alive\n2\n3\n4 lost=25h failed=25h\n5");
    check_plan(&world, &wish("", "", ""), &["do remove 4"]);
    world.seen.discovery = Some(time("11s"));
    check_plan(
        &world,
        &wish("", "", ""),
        &["held remove 4: 1 of 2 independent signs say that 4 is dead"],
    );
}

// A server that is wiped and reborn under its old id.

fn reborn() -> World {
    let mut world = World::of("1 leader\n2\n3\n4 learner new");
    world.server("3").probe = Probe::Answered(status(1, 1_000, 1_000, 1_000));
    world.pass(time("1s"));
    // Contact is fresh, and the leader still believes that it holds everything.
    world.server("3").probe = Probe::Answered(status(2, 0, 1_000, 0));
    world
}

#[test]
fn a_wiped_voter_that_looks_fresh_is_never_counted_as_live() {
    let mut world = reborn();
    let state = world.pass(time("1s"));
    assert_eq!(reasons(&state, "3"), [Reason::LogShrank]);
    assert!(!state.server(&"3".into()).unwrap().live);
    // Nor when it has caught up: what it voted for is forgotten.
    world.server("3").probe = Probe::Answered(status(2, 1_000, 1_000, 1_000));
    for _ in 0..100 {
        assert_eq!(health(&world.pass(time("1s")), "3"), Verdict::Unhealthy);
    }
    // Nor when the probes end, or the leader's lease runs out for a while.
    world.server("3").probe = Probe::Off;
    assert_eq!(health(&world.pass(time("1s")), "3"), Verdict::Unhealthy);
    world.seen.leading.as_mut().unwrap().lease = false;
    world.pass(time("1s"));
    world.seen.leading.as_mut().unwrap().lease = true;
    assert_eq!(health(&world.pass(time("1s")), "3"), Verdict::Unhealthy);
    // Nor after a leap of the clock.
    world.pass(time("100h"));
    assert!(!world.pass(time("1s")).server(&"3".into()).unwrap().live);
    assert!(world.plan(&wish("", "", "3")).iter().all(|line| !line.contains("do transfer")));
}

/// Signs that have stood for a second.
fn stand(signs: &[Sign]) -> Vec<StandingSign> {
    let age = time("1s");
    signs.iter().map(|sign| StandingSign { sign: *sign, age }).collect()
}

#[test]
fn a_wiped_voter_is_not_forgotten_by_the_next_leader() {
    let mut world = reborn();
    let state = world.pass(time("1s"));
    let wiped = state.server(&"3".into()).unwrap();
    let signs: Vec<Sign> = wiped.signs.iter().map(|(sign, _)| sign).collect();
    assert_eq!(signs, [Sign::Shrunk]);
    let (age, signs) = (time("1s"), stand(&signs));
    let (verdict, boot, disk) = (Verdict::Unhealthy, Some(2), None);
    let report =
        Report { server: "3".into(), verdict, age, boot, disk, signs, flaps: 0, leads: false };
    world.ledger.as_mut().unwrap().apply(9, world.seen.ledger_at, Record::Health(vec![report]));
    for gap in [time("1s"), time("10h")] {
        world.elect("2", gap);
        world.last = None;
        world.server("3").probe = Probe::Answered(status(2, 1_000, 1_000, 1_000));
        let state = world.pass(HEARTBEAT);
        assert!(!state.server(&"3".into()).unwrap().live, "{gap:?}");
        assert_eq!(reasons(&state, "3"), [Reason::LogShrank]);
    }
}

/// An answer of 3 that shows nothing amiss but, perhaps, another disk.
fn on_disk(world: &mut World, boot: u64, disk: Option<u64>) {
    let mut answer = status(boot, 1_000, 1_000, 1_000);
    answer.disk = disk;
    world.server("3").probe = Probe::Answered(answer);
}

#[test]
fn a_voter_on_another_disk_is_unmasked_though_its_log_is_full_again() {
    let mut world = World::of("1 leader\n2\n3\n4 learner new");
    on_disk(&mut world, 1, Some(7));
    assert!(world.pass(time("1s")).healthy);
    // A restart, and a program that does not tell its disk: both are fine.
    for (boot, disk) in [(2, Some(7)), (3, None), (4, Some(7))] {
        on_disk(&mut world, boot, disk);
        assert!(world.pass(time("1s")).healthy, "{boot} {disk:?}");
    }
    on_disk(&mut world, 5, Some(8));
    for _ in 0..100 {
        let state = world.pass(time("1s"));
        assert_eq!(reasons(&state, "3"), [Reason::LogShrank]);
        assert!(!state.server(&"3".into()).unwrap().live);
    }
    // As a learner it has to catch up once, and that it has.
    world.server("3").role = Role::Learner;
    world.pass(time("1s"));
    assert_eq!(health(&world.pass(time("1s")), "3"), Verdict::Healthy);
}

#[test]
fn another_disk_is_noticed_by_the_next_leader_and_after_a_lapse_of_the_lease() {
    let mut world = World::of("1 leader\n2\n3");
    world.ledger.as_mut().unwrap().servers.get_mut("3").unwrap().disk = Some(7);
    on_disk(&mut world, 1, Some(8));
    world.seen.leading.as_mut().unwrap().lease = false;
    world.pass(time("1s"));
    world.seen.leading.as_mut().unwrap().lease = true;
    assert_eq!(reasons(&world.pass(time("1s")), "3"), [Reason::LogShrank]);
    // The next leader finds it in the ledger, also after a long time without one.
    for gap in [time("1s"), time("10h")] {
        world.elect("2", gap);
        world.last = None;
        assert_eq!(reasons(&world.state(), "3"), [Reason::LogShrank], "{gap:?}");
    }
    // Once it is in the ledger it stays, though the disk is no news any more.
    let ledger = world.ledger.as_mut().unwrap();
    let (verdict, boot, disk) = (Verdict::Unhealthy, Some(1), Some(8));
    let (age, signs) = (time("1s"), stand(&[Sign::Shrunk]));
    let report =
        Report { server: "3".into(), verdict, age, boot, disk, signs, flaps: 0, leads: false };
    ledger.apply(9, world.seen.ledger_at, Record::Health(vec![report]));
    world.elect("1", time("1s"));
    assert_eq!(reasons(&world.state(), "3"), [Reason::LogShrank]);
}

#[test]
fn a_wiped_voter_gives_its_vote_to_one_that_is_ready_and_may_earn_it_again() {
    let mut world = reborn();
    world.pass(time("10s"));
    check_plan(
        &world,
        &Stable::with_target(3),
        &[
            "do promote 4 and demote 3",
            "held remove 3: 1 of 2 independent signs say that 3 is dead",
        ],
    );
    world.server("4").role = Role::Voter;
    world.server("3").role = Role::Learner;
    world.server("3").probe = Probe::Answered(status(2, 1_000, 1_000, 1_000));
    let state = world.pass(time("10s"));
    assert_eq!(health(&state, "3"), Verdict::Healthy);
    check_plan(&world, &Stable::new(), &["do promote 3"]);
}

#[test]
fn a_restart_with_its_disc_is_a_sign_only_until_it_is_healthy_again() {
    let mut world = World::of("1 leader\n2\n3");
    world.server("3").probe = Probe::Answered(status(1, 1_000, 1_000, 1_000));
    world.pass(time("1s"));
    world.server("3").probe = Probe::Answered(status(2, 1_000, 1_000, 1_000));
    world.server("3").matched = Some(entry(10));
    let sign = |state: &State| state.server(&"3".into()).unwrap().signs.identity;
    let begin = world.seen.at;
    assert_eq!(sign(&world.pass(time("1s"))), Some(begin));
    assert_eq!(sign(&world.pass(time("1s"))), Some(begin));
    world.server("3").matched = Some(entry(1_000));
    let state = world.pass(time("1s"));
    assert_eq!((sign(&state), health(&state, "3")), (None, Verdict::Healthy));
}

// Records that lie about the time.

#[test]
fn records_without_an_age_count_from_now() {
    let mut world = World::of("1 leader\n2\n3\n4 learner\n5 lost=25h silent=25h");
    let ledger = world.ledger.as_mut().unwrap();
    for record in ledger.servers.values_mut() {
        record.applied_at = None;
        record.signs_at = raft_autopilot::autopilot::Signs::default();
    }
    check_plan(
        &world,
        &wish("4", "", ""),
        &["held promote 4: 4 is healthy for 0s of 10s", "held remove 5: 5: 0s of a grace of 1day"],
    );
    // The same after a restart from a snapshot, which carries no ages.
    world.ledger.as_mut().unwrap().restored(AT);
    assert_eq!(world.ledger.as_ref().unwrap().servers["4"].applied_at, Some(AT));
    assert_eq!(world.ledger.as_ref().unwrap().servers["5"].signs_at.contact, Some(AT));
    assert_eq!(world.plan(&wish("4", "", "")).len(), 2);
}

#[test]
fn nothing_is_lost_or_made_up_when_the_whole_cluster_vanishes_but_the_leader() {
    let mut world = World::of("1 leader");
    check_plan(&world, &Stable::new(), &[]);
    assert!(world.state().quorum);
    world.seen.servers.clear();
    let state = world.state();
    assert!(!state.quorum && !state.healthy && state.servers.is_empty());
    world.ledger = None;
    world.seen.feedback = Some(Arc::default());
    // It is no member: it hands over, and there is nobody.
    check_plan(
        &world,
        &Stable::new(),
        &["held transfer leadership to 1: no other voter is fit to lead"],
    );
}

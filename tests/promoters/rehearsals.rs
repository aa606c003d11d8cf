//! Cases: saved, read back, and continued to the same end.

use std::{sync::Arc, time::Duration};

use raft_autopilot::{
    autopilot::{
        Feedback, IntentKind, NodeStatus, Probe, Promoter, Record, Role, State, Step, Why,
    },
    promoters::{Preferred, Stable, Upgrade, Witness, Zones, promoter},
    rehearse::{Case, End, Rehearsal, World, rehearse},
};

use super::support::{MINUTE, SECOND, add, cluster, ids, transfer, votes};

const LONG: Duration = Duration::from_secs(49 * 3600);

fn case(world: &mut World, promoter: &dyn Promoter) -> Case {
    let state = world.assess();
    Case::of(world.config.clone(), promoter.policy(), &state)
}

fn steps(rehearsal: &Rehearsal) -> Vec<Step> {
    rehearsal.steps.iter().map(|step| step.step.clone()).collect()
}

#[test]
fn a_case_survives_being_written_and_gives_the_same_verdicts() {
    let promoter = Zones::new();
    let mut world = cluster("a1@a b1@b c1@c", "a2@a b2@b");
    world.kill("c1", Duration::ZERO);
    world.run(&promoter, 4 * SECOND);
    let (server, reason) = ("b2".into(), "noisy".to_owned());
    world.record(Record::Cordon { server, reason, ttl: Some(MINUTE) });
    world.record(Record::Intend { server: "b1".into(), kind: IntentKind::Reboot, ttl: MINUTE });
    world.pass(SECOND / 10);
    let before = world.assess();
    let case = case(&mut world, &promoter);
    let text = serde_json::to_string_pretty(&case).unwrap();
    let read: Case = serde_json::from_str(&text).unwrap();
    let after = State::assess(&read.config, read.history.as_ref(), &read.observation);
    for (a, b) in before.servers.iter().zip(&after.servers) {
        assert_eq!((&a.server, a.role, a.health, a.live), (&b.server, b.role, b.health, b.live));
        assert_eq!((a.signs, a.flaps, a.lag), (b.signs, b.flaps, b.lag));
    }
    assert!(after.cordoned(&"b2".into()).is_some() && after.intended(&"b1".into()).is_some());
    // Discovery that has fallen silent says as little where it is read again.
    let mut silent = case.clone();
    silent.observation.discovery = Some(MINUTE);
    silent.observation.servers[2].discovery = Some(NodeStatus::Failed);
    silent.history = None;
    let state = State::assess(&silent.config, None, &silent.observation);
    let saved = Case::of(silent.config.clone(), silent.promoter.clone(), &state);
    let again = State::assess(&saved.config, saved.history.as_ref(), &saved.observation);
    assert_eq!(again.servers[2].health, state.servers[2].health);
    assert_eq!(
        rehearse(&saved, &promoter, MINUTE).steps,
        rehearse(&silent, &promoter, MINUTE).steps
    );
    // What is left of a time is written, not what was given.
    world.pass(20 * SECOND);
    let later = Case::of(world.config.clone(), None, &world.assess());
    let ledger = later.observation.ledger.unwrap();
    assert!(ledger.intents["b1"].ttl < 40 * SECOND, "{ledger:?}");
}

#[test]
fn a_rehearsal_takes_the_steps_that_the_cluster_takes() {
    let ready_made = Upgrade::new(Stable::with_target(3));
    let mut world = cluster("o1:1 o2:1 o3:1", "n1:2 n2:2 n3:2");
    let case = case(&mut world, &ready_made);
    let found = rehearse(&case, &*promoter(&case.promoter.clone().unwrap()).unwrap(), LONG);
    assert_eq!(found.end, End::Converged, "{found:#?}");
    let expected = [votes("n1 n2 n3", "o2 o3"), transfer("n1"), votes("", "o1")];
    assert_eq!(steps(&found), expected);
    assert_eq!(found.steps[2].voters, ids("n1 n2 n3"));
    assert_eq!(world.run(&ready_made, MINUTE), expected);
    assert_eq!(found, rehearse(&case, &ready_made, LONG));
}

/// Boots and disks are numbers drawn at random, and one of the servers was just not heard of.
#[test]
fn a_rehearsal_goes_on_with_the_disks_and_boots_that_were_seen() {
    let promoter = Stable::new();
    let mut world = cluster("a b c", "");
    add(&mut world, "d", Role::Learner);
    let mut found = case(&mut world, &promoter);
    (found.history, found.observation.ledger) = (None, None);
    for (number, sighting) in (40..).zip(&mut found.observation.servers) {
        let Probe::Answered(status) = &mut sighting.probe else { panic!("{sighting:?}") };
        (status.boot, status.disk) = (number, Some(number + 100));
    }
    assert_eq!(steps(&rehearse(&found, &promoter, LONG)), [votes("d", "")]);
    // The next moment of the same leader; d has missed a probe.
    found.history = Some(State::assess(&found.config, found.history.as_ref(), &found.observation));
    found.observation.servers[3].probe = Probe::Silent(Duration::ZERO);
    found.observation.at += SECOND;
    let rehearsed = rehearse(&found, &promoter, LONG);
    assert_eq!(steps(&rehearsed), [votes("d", "")]);
    assert_eq!(rehearsed.steps[0].after, 9 * SECOND);
}

#[test]
fn what_is_held_at_the_end_says_why() {
    let promoter = Stable::new();
    let mut world = cluster("a b c", "");
    world.kill("c", Duration::ZERO);
    world.run(&promoter, 4 * SECOND);
    let found = rehearse(&case(&mut world, &promoter), &promoter, LONG);
    // Three voters are not made two without a replacement.
    assert_eq!(steps(&found), []);
    assert!(found.held.iter().any(|held| held.why.to_string().contains("2 voters would be left")));
    add(&mut world, "d", Role::Learner);
    let found = rehearse(&case(&mut world, &promoter), &promoter, LONG);
    let remove = Step::Remove { servers: ids("c"), promote: vec![], add: None };
    assert_eq!(steps(&found), [votes("d", ""), remove]);
    assert!(found.steps[1].after > Duration::from_secs(24 * 3600 - 10), "{found:#?}");
    assert_eq!(found.end, End::Converged);
}

/// It said once that there was nothing to do.
#[test]
fn what_comes_only_after_the_horizon_is_no_convergence() {
    let mut world = cluster("a b c", "d");
    let mut saved = case(&mut world, &Stable::new());
    (saved.history, saved.observation.ledger) = (None, None);
    for (seconds, end, taken) in
        [(0, End::Horizon, 0), (9, End::Horizon, 0), (60, End::Converged, 1)]
    {
        let found = rehearse(&saved, &Stable::new(), seconds * SECOND);
        assert_eq!((&found.end, found.steps.len()), (&end, taken), "{seconds} s");
    }
}

/// What would it do, were it switched on; and what, once that step has ended?
#[test]
fn a_rehearsal_goes_on_where_a_step_is_awaited_and_where_autopilot_only_looks_on() {
    let promoter = Stable::new();
    let mut world = cluster("a b c", "d");
    let mut found = case(&mut world, &promoter);
    let step = votes("d", "");
    let observer = Feedback { observer: true, ..Feedback::default() };
    let awaits = Feedback { in_flight: Some(step.clone()), ..Feedback::default() };
    for feedback in [observer, awaits] {
        found.observation.feedback = Some(Arc::new(feedback));
        let rehearsed = rehearse(&found, &promoter, LONG);
        assert_eq!((steps(&rehearsed), rehearsed.end), (vec![step.clone()], End::Converged));
    }
    world.record(Record::Pause("holidays".to_owned()));
    let paused = rehearse(&case(&mut world, &promoter), &promoter, LONG);
    assert_eq!(paused.end, End::Idle(Why::Paused("holidays".to_owned())));
}

#[test]
fn without_a_leader_nothing_is_rehearsed() {
    let promoter = Stable::new();
    let mut world = cluster("a b c", "");
    world.kill("b", Duration::ZERO);
    world.kill("c", Duration::ZERO);
    let found = rehearse(&case(&mut world, &promoter), &promoter, LONG);
    assert_eq!(found.end, End::Idle(Why::NotLeading));
}

#[test]
fn every_policy_is_known_by_its_data() {
    let policies: [&dyn Promoter; 4] = [
        &Stable::with_target(3),
        &Zones::new(),
        &Witness::new(Upgrade::new(Zones::with_target(5)), "witness"),
        &Preferred::new(Upgrade::new(Stable::new())).zone("a").tag("disk", "ssd").hold(MINUTE * 3),
    ];
    for policy in policies {
        let data = policy.policy().unwrap();
        let text = serde_json::to_string(&data).unwrap();
        let read = serde_json::from_str(&text).unwrap();
        assert_eq!(promoter(&read).unwrap().policy(), Some(data), "{text}");
    }
    let inside = r#"{"upgrade": {"inner": {"preferred": {"by": [], "inner": {"stable": {}}}}}}"#;
    let error = promoter(&serde_json::from_str(inside).unwrap()).unwrap_err();
    assert!(error.contains("outermost"), "{error}");
}

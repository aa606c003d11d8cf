//! A server that comes and goes may cost only so many changes, and is forgiven after a quiet day.

use std::time::Duration;

use raft_autopilot::{
    autopilot::{IntentKind, Promoter, Record, Role, State, Step},
    promoters::{Preferred, Stable, Zones},
    rehearse::World,
};

use super::support::{Content, MINUTE, SECOND, cluster};

const WEEK: Duration = Duration::from_secs(7 * 24 * 60 * 60);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// For how long a period is watched: for a week, or where a week of so short ones would take too long to
/// watch, for so many of them; the bound is that of as many.
fn span(period: Duration) -> Duration {
    let (short, periods) = if cfg!(debug_assertions) { (20, 500) } else { (5, 5_000) };
    if period < short * SECOND { period * periods } else { WEEK }
}

/// What a server does all the time.
#[derive(Clone, Copy, Debug)]
enum Habit {
    /// It is up for that part of every period, and down for the rest.
    Away(f64),
    /// The same, and it has restarted each time.
    Restarts(f64),
}

/// Lets `id` do so, in each period; returns the number of changes.
fn flap(
    world: &mut World,
    promoter: &dyn Promoter,
    id: &str,
    period: Duration,
    habit: Habit,
) -> usize {
    let (Habit::Away(up) | Habit::Restarts(up)) = habit;
    let (begin, span, mut changes) = (world.at(), span(period), 0);
    let (up, seconds) = (period.mul_f64(up), period.as_secs_f64());
    while world.at().saturating_sub(begin) < span {
        let passed = world.at().saturating_sub(begin).as_secs_f64();
        let phase = Duration::from_secs_f64(passed % seconds);
        let next = if phase < up {
            if world.is_down(id) && matches!(habit, Habit::Restarts(_)) {
                world.restart(id);
            }
            world.heal(id);
            up.saturating_sub(phase)
        } else {
            world.heal(id);
            world.kill(id, phase.saturating_sub(up));
            period.saturating_sub(phase)
        };
        let steps = world.run(promoter, next + Duration::from_millis(1));
        let given = |step: &&Step| matches!(step, Step::Transfer { to } if to.as_str() == id);
        let given = steps.iter().filter(given).count();
        // A transfer to a server that is down fails, and changes nothing.
        let leads = usize::from(world.leader().is_some_and(|leader| leader.as_str() == id));
        changes += steps.len() - given + given.min(leads);
    }
    changes
}

fn bound(period: Duration) -> usize {
    let cycles = span(period).as_secs_f64() / period.as_secs_f64();
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "small")]
    let bound = (2.0 * cycles.log2() + 4.0) as usize;
    bound
}

#[test]
fn a_server_that_flaps_costs_few_changes_whatever_its_period() {
    let mut most = 0;
    // From 0.1 s to 1 h, each longer than the last by the same factor. All of them in release,
    // where a week takes a second.
    let periods = (0..=20).map(|n| 0.1 * 36_000_f64.powf(f64::from(n) / 20.0));
    let step = if cfg!(debug_assertions) { 8 } else { 1 };
    for period in periods.skip(usize::from(step > 1) * 4).step_by(step) {
        let period = Duration::from_secs_f64(period);
        // The last is too short for anybody to notice, except that it costs a leader its leadership.
        let moment = 1.0 - 0.15 / period.as_secs_f64();
        let moment = moment.max(0.5);
        let restarts = [Habit::Restarts(0.8), Habit::Restarts(moment)];
        for habit in [0.5, 0.8, moment].map(Habit::Away).into_iter().chain(restarts) {
            // The only server of its zone: its vote goes to another zone and comes back, and
            // leadership with it where it is preferred.
            let preferred = Preferred::new(Zones::new()).zone("c");
            let policies: [&dyn Promoter; 2] = [&Zones::new(), &preferred];
            for promoter in &policies[usize::from(cfg!(debug_assertions))..] {
                let mut world = cluster("a1@a b1@b c1@c", "a2@a");
                world.update_interval = MINUTE / 2;
                let changes = flap(&mut world, *promoter, "c1", period, habit);
                assert!(changes <= bound(period), "{promoter:?} {period:?} {habit:?}: {changes}");
                most = most.max(changes);
            }
        }
    }
    // The test sees votes move at all, and more than once.
    assert!(most > 4, "{most}");
}

#[test]
fn a_server_that_flaps_does_not_take_a_vote_with_it_each_time() {
    for period in if cfg!(debug_assertions) { &[240][..] } else { &[25, 240, 3600] } {
        let period = Duration::from_secs(*period);
        let mut world = cluster("a b c", "d e");
        world.update_interval = MINUTE / 2;
        let changes = flap(&mut world, &Stable::with_target(3), "b", period, Habit::Away(0.5));
        assert!(changes <= 1, "{period:?}: {changes}");
    }
}

#[test]
fn the_penalty_outlives_a_leader_and_is_forgotten_after_a_quiet_day() {
    let promoter = Zones::new();
    let mut world = cluster("a1@a b1@b c1@c", "a2@a");
    let back = |world: &mut World| {
        world.kill("c1", Duration::ZERO);
        world.run(&promoter, MINUTE);
        world.heal("c1");
        let begin = world.at();
        let votes = |world: &World| world.voters().contains(&"c1".into());
        while !votes(world) {
            world.run(&promoter, SECOND);
        }
        world.run(&promoter, 90 * MINUTE);
        world.at().saturating_sub(begin).as_secs() - 90 * 60
    };
    // The first failure is free.
    assert!((10..=12).contains(&back(&mut world)));
    assert!((40..=42).contains(&back(&mut world)));
    // Another leader remembers.
    world.kill("a1", Duration::ZERO);
    world.run(&promoter, MINUTE);
    assert_ne!(world.leader().map(raft_autopilot::autopilot::ServerId::as_str), Some("a1"));
    world.heal("a1");
    world.run(&promoter, 2 * MINUTE);
    assert!((160..=162).contains(&back(&mut world)));
    world.run(&promoter, DAY);
    assert!((10..=12).contains(&back(&mut world)));
    assert_eq!(world.assess().voters().filter(|s| s.role == Role::Voter).count(), 3);
}

/// An election is quicker than a verdict: the records tell who led.
#[test]
fn leadership_that_is_lost_for_a_moment_comes_back_later_each_time() {
    let promoter = Preferred::new(Zones::new()).zone("c");
    let mut world = cluster("a1@a b1@b c1@c", "");
    let back = |world: &mut World, away: &dyn Fn(&mut World)| {
        world.run(&promoter, MINUTE);
        while world.leader() != Some(&"c1".into()) {
            world.run(&promoter, SECOND);
        }
        world.run(&promoter, MINUTE);
        let begin = world.at();
        away(world);
        while world.leader() != Some(&"c1".into()) {
            world.run(&promoter, SECOND);
        }
        (world.at().saturating_sub(begin)).as_secs()
    };
    let blink = |world: &mut World| {
        world.kill("c1", Duration::ZERO);
        world.run(&promoter, Duration::from_millis(150));
        world.heal("c1");
    };
    // The hold at least.
    for seconds in [60, 60, 160, 640, 2560] {
        let took = back(&mut world, &blink);
        assert!((seconds..=seconds + 2).contains(&took), "{took}, not {seconds}");
    }
    // Handing over is no failure, and neither is what was announced.
    let flaps = |world: &mut World| -> Vec<u8> {
        world.assess().servers.iter().map(|server| server.flaps).collect()
    };
    assert_eq!(flaps(&mut world), [0, 0, 5]);
    let server = || "c1".into();
    world.record(Record::Intend { server: server(), kind: IntentKind::Reboot, ttl: MINUTE });
    blink(&mut world);
    world.run(&promoter, MINUTE);
    assert_eq!(flaps(&mut world), [0, 0, 5]);
    world.run(&Preferred::new(Zones::new()).zone("b"), 2 * MINUTE);
    assert_eq!(world.leader(), Some(&"b1".into()));
    assert_eq!(flaps(&mut world), [0, 0, 5]);
    world.run(&promoter, DAY);
    assert_eq!(world.leader(), Some(&"c1".into()));
    assert_eq!(flaps(&mut world), [0, 0, 0]);
}

/// Whoever follows a leader that has failed has not seen it well: the records tell.
#[test]
fn a_leader_that_fails_is_counted_by_the_next() {
    let mut world = cluster("a b c", "");
    for failures in 1..=2 {
        world.run(&Content, MINUTE);
        let leader = world.leader().unwrap().clone();
        world.kill(leader.as_str(), Duration::ZERO);
        world.run(&Content, SECOND);
        assert_eq!(world.assess().server(&leader).unwrap().flaps, failures);
        world.heal(leader.as_str());
        // It leads again.
        for other in ["a", "b", "c"].into_iter().filter(|id| *id != leader.as_str()) {
            world.run(&Content, MINUTE);
            world.kill(other, Duration::ZERO);
            world.heal(other);
        }
        assert_eq!(world.leader(), Some(&leader));
    }
}

/// That it answers again, only from another boot, is no excuse; nor that nobody may be judged yet.
#[test]
fn a_leader_that_restarts_is_counted_by_the_next() {
    for unjudged in 0..4 {
        let mut world = cluster("a b c", "");
        world.run(&Content, MINUTE);
        world.restart("a");
        assert_eq!(world.leader(), Some(&"b".into()));
        let mut last = None;
        for _ in 0..unjudged {
            let mut seen = world.observe();
            seen.leading.as_mut().unwrap().lease = false;
            last = Some(State::assess(&world.config, last.as_ref(), &seen));
            world.pass(SECOND);
        }
        let seen = world.observe();
        let state = State::assess(&world.config, last.as_ref(), &seen);
        let flaps: Vec<u8> = state.servers.iter().map(|server| server.flaps).collect();
        assert_eq!(flaps, [1, 0, 0], "unjudged before: {unjudged}");
        assert_eq!(state.server(&"a".into()).unwrap().health.healthy_since, Some(seen.at));
    }
}

/// A new leader has all records before it applied only when it may judge.
#[test]
fn a_leader_goes_by_the_records_that_it_has_when_it_judges_first() {
    let mut world = cluster("a b c", "");
    world.run(&Content, MINUTE);
    let mut early = world.observe();
    world.kill("c", Duration::ZERO);
    world.run(&Content, SECOND);
    world.heal("c");
    world.restart("a");
    early.leader = Some("b".into());
    (early.at, early.local) = (world.at(), "b".into());
    early.leading = world.observe().leading;
    early.leading.as_mut().unwrap().lease = false;
    let state = State::assess(&world.config, None, &early);
    let state = State::assess(&world.config, Some(&state), &world.observe());
    let c = state.server(&"c".into()).unwrap();
    assert_eq!((c.flaps, c.health.healthy_since), (1, Some(world.at())));
}

/// A leader that hands over in its first round knows that the one before it has failed.
#[test]
fn a_leader_that_hands_over_at_once_has_the_failure_before_it_recorded() {
    let mut world = cluster("a1@a b1@b c1@c", "");
    world.run(&Content, MINUTE);
    world.restart("a1");
    let promoter = Preferred::new(Zones::new()).zone("c").hold(Duration::ZERO);
    let (_, step) = world.round(&promoter);
    assert_eq!(step, Some(Step::Transfer { to: "c1".into() }));
    world.run(&Content, SECOND);
    let flaps: Vec<u8> = world.assess().servers.iter().map(|server| server.flaps).collect();
    assert_eq!(flaps, [1, 0, 0]);
}

//! What the ready-made policy does, second by second, and what no policy can do.

use std::time::Duration;

use raft_autopilot::{
    allocator::Standing,
    autopilot::{IntentKind, Record, Role, Server, State},
    placement::{Cause, Config, Graded, Hold, Policy, Seen, Wish},
};

use crate::timeline::Timeline;

impl Timeline {
    fn kill(&mut self, id: &str) {
        self.world.kill(id, Duration::ZERO);
    }
}

#[test]
fn a_pause_of_five_seconds_moves_no_replica_and_gives_primaries_back() {
    let mut line = Timeline::new(5);
    line.kill("3");
    line.pass(5);
    assert_eq!(line.told(), ["2s 3: NoPrimaries"]);
    assert!(line.why("3").starts_with("unhealthy for 4s: contact lost"), "{}", line.why("3"));
    line.world.heal("3");
    line.pass(60);
    // When it has been stable again.
    assert_eq!(line.told(), ["15s 3: Full"]);
}

#[test]
fn who_stays_bad_gives_up_what_it_holds_step_by_step_and_then_counts_as_lost() {
    let mut line = Timeline::new(5);
    line.kill("3");
    line.pass(120);
    let steps = ["2s 3: NoPrimaries", "15s 3: Shed(25)", "25s 3: Shed(50)"];
    let last = ["35s 3: Shed(75)", "45s 3: Shed(100)", "60s 3: Gone"];
    assert_eq!(line.told(), [steps, last].concat());
    assert_eq!(line.hold, None);
}

#[test]
fn who_recovers_gets_its_share_back_step_by_step() {
    let mut line = Timeline::new(5);
    line.kill("3");
    line.pass(70);
    line.told();
    line.world.heal("3");
    line.pass(29);
    assert_eq!(line.told(), Vec::<String>::new());
    assert_eq!(line.why("3"), "healthy again for 28s of 30s");
    line.pass(60);
    let steps = ["100s 3: Shed(75)", "110s 3: Shed(50)", "120s 3: Shed(25)", "130s 3: Full"];
    assert_eq!(line.told(), steps);
}

#[test]
fn who_fails_again_while_it_gets_its_share_back_keeps_what_it_has_and_waits_longer() {
    let mut line = Timeline::new(5);
    line.kill("3");
    line.pass(30);
    line.world.heal("3");
    line.pass(35);
    line.told();
    assert_eq!(line.standing("3"), Standing::Shed(25));
    line.kill("3");
    line.pass(3);
    line.world.heal("3");
    // It is stable after four times as long now.
    line.pass(39);
    assert_eq!(line.told(), Vec::<String>::new());
    line.pass(3);
    assert_eq!(line.standing("3"), Standing::Full);
}

#[test]
fn a_server_that_flaps_does_not_swing_the_load() {
    let mut line = Timeline::new(5);
    for _ in 0..200 {
        line.kill("3");
        line.pass(4);
        line.world.heal("3");
        line.pass(12);
    }
    // An hour of it: its primaries went and came back, as the first failure costs no more than the time
    // of stability; the next one costs four times that, and they went for good.
    assert_eq!(line.told, ["2s 3: NoPrimaries", "14s 3: Full", "18s 3: NoPrimaries"]);
}

#[test]
fn a_drain_takes_everything_at_once_and_on_purpose() {
    let mut line = Timeline::new(5);
    line.intend("4", IntentKind::Drain, 60);
    line.pass(65);
    assert_eq!(line.told(), ["0s 4: Shed(100)", "60s 4: Shed(75)"]);
    line.pass(60);
    // Without the proof of health that the sick have to give.
    assert_eq!(line.told(), ["70s 4: Shed(50)", "80s 4: Shed(25)", "90s 4: Full"]);
}

#[test]
fn a_restart_that_was_announced_moves_primaries_only_however_long_it_takes() {
    let mut line = Timeline::new(5);
    line.intend("4", IntentKind::Reboot, 300);
    line.pass(2);
    line.kill("4");
    line.pass(200);
    line.world.heal("4");
    line.pass(5);
    line.world.record(Record::Unintend("4".into()));
    line.pass(30);
    assert_eq!(line.told(), ["0s 4: NoPrimaries", "207s 4: Full"]);
}

#[test]
fn a_cordoned_server_keeps_what_it_has_and_gets_nothing_new() {
    let mut line = Timeline::new(5);
    let (server, reason) = ("4".into(), "its fan is loud".to_owned());
    line.world.record(Record::Cordon { server, reason, ttl: None });
    line.pass(10);
    assert_eq!(line.standing("4"), Standing::NothingNew);
    assert_eq!(line.why("4"), "cordoned by an operator: its fan is loud");
    line.world.record(Record::Uncordon("4".into()));
    line.pass(1);
    assert_eq!(line.standing("4"), Standing::Full);
}

#[test]
fn where_many_look_bad_at_once_nobody_loses_anything_and_the_reason_is_shown() {
    let mut line = Timeline::new(5);
    line.kill("3");
    line.kill("4");
    line.pass(300);
    assert_eq!(line.told(), Vec::<String>::new());
    let hold = line.hold.clone().unwrap();
    assert!(matches!(&hold, Hold::TooMany { limits: 200, of: 500, .. }), "{hold:?}");
    let words = hold.to_string();
    assert!(words.contains("default#3, default#4 look bad at once"), "{words}");
    // As soon as it is one of five, that one is taken for what it is.
    line.world.heal("4");
    line.pass(2);
    assert_eq!((line.hold.clone(), line.standing("3")), (None, Standing::Gone));
    assert_eq!(line.standing("4"), Standing::Full);
}

#[test]
fn what_was_taken_before_stays_taken_when_more_look_bad() {
    let mut line = Timeline::new(5);
    line.kill("3");
    line.pass(30);
    assert_eq!(line.standing("3"), Standing::Shed(50));
    line.kill("4");
    line.pass(100);
    assert_eq!((line.standing("3"), line.standing("4")), (Standing::Shed(50), Standing::Full));
    assert!(line.hold.is_some());
}

/// Its server was removed, and its member still stands and holds what it holds.
#[test]
fn what_was_taken_from_a_member_counts_as_long_as_the_member_stands() {
    let mut line = Timeline::new(5);
    line.kill("3");
    line.pass(30);
    line.world.remove("3");
    line.kill("4");
    line.pass(60);
    assert_eq!((line.standing("3"), line.standing("4")), (Standing::Shed(50), Standing::Full));
    assert!(
        matches!(line.hold, Some(Hold::TooMany { limits: 200, of: 500, .. })),
        "{:?}",
        line.hold
    );
    line.forget("3");
    line.pass(1);
    assert_ne!(line.standing("4"), Standing::Full);
}

#[test]
fn what_people_say_is_not_bounded_by_what_health_may_take() {
    let mut line = Timeline::new(5);
    for id in ["2", "3", "4"] {
        line.intend(id, IntentKind::Drain, 60);
    }
    line.pass(1);
    assert!(["2", "3", "4"].iter().all(|id| line.standing(id) == Standing::Shed(100)));
    assert_eq!(line.hold, None);
}

#[test]
fn without_a_leader_nothing_is_decided() {
    let mut line = Timeline::new(5);
    line.pass(1);
    for id in ["1", "2", "3"] {
        line.kill(id);
    }
    line.pass(100);
    assert_eq!((line.told(), line.hold.clone()), (Vec::new(), Some(Hold::NotLeading)));
}

/// Takes everything from everybody.
#[derive(Debug)]
struct Mad;

impl Policy for Mad {
    fn wish(&self, _: &Seen<'_>) -> Wish {
        let why = "because".to_owned();
        Wish { standing: Standing::Gone, why, again: None }
    }
}

#[test]
fn a_policy_that_takes_from_the_healthy_is_not_heard() {
    let mut line = Timeline::new(5);
    line.max_share_percent = 100;
    line.policy(Mad);
    line.pass(10);
    assert_eq!(line.told(), Vec::<String>::new());
    line.kill("2");
    line.pass(10);
    // And of those known to be bad no more than may be.
    assert_eq!(line.told(), ["10s 2: Gone"]);
}

/// Says that somebody has drained everybody, and wants to be asked again at once.
#[derive(Debug)]
struct Liar;

impl Policy for Liar {
    fn wish(&self, _: &Seen<'_>) -> Wish {
        let again = Some(Duration::ZERO);
        Wish { standing: Standing::Gone, why: "it is ill".to_owned(), again }
    }

    fn heed(&self, _: &Seen<'_>) -> Wish {
        Wish { standing: Standing::Gone, why: "they told me".to_owned(), again: None }
    }
}

#[test]
fn a_policy_cannot_take_on_the_word_of_a_person_who_has_said_nothing() {
    let mut line = Timeline::new(5);
    line.policy(Liar);
    line.pass(5);
    assert_eq!(line.told(), Vec::<String>::new());
    // Of two that are bad it may take from neither, of one that is, by its health.
    line.kill("2");
    line.kill("3");
    line.pass(5);
    assert_eq!(line.told(), Vec::<String>::new());
    assert!(matches!(line.hold, Some(Hold::TooMany { limits: 200, .. })), "{:?}", line.hold);
    line.world.heal("2");
    line.pass(5);
    assert_eq!((line.standing("3"), line.cause("3")), (Standing::Gone, Cause::Health));
    // Where one has, it may.
    line.intend("4", IntentKind::Drain, 60);
    line.pass(1);
    assert_eq!((line.standing("4"), line.cause("4")), (Standing::Gone, Cause::Person));
}

#[test]
fn a_policy_that_wants_to_be_asked_without_end_is_asked_a_hundred_times_a_second() {
    let mut line = Timeline::new(3);
    line.policy(Liar);
    let state = line.world.assess();
    assert_eq!(line.decided(&state).again, Some(Duration::from_millis(10)));
}

#[test]
fn a_cordon_protects_nobody_from_what_its_health_takes() {
    let mut line = Timeline::new(5);
    let (server, reason) = ("4".into(), "its fan is loud".to_owned());
    line.world.record(Record::Cordon { server, reason, ttl: None });
    line.pass(10);
    line.kill("4");
    line.pass(65);
    let first = ["0s 4: NothingNew", "12s 4: ShedOnly(0)", "25s 4: ShedOnly(25)"];
    let then = ["35s 4: ShedOnly(50)", "45s 4: ShedOnly(75)", "55s 4: ShedOnly(100)"];
    assert_eq!(line.told(), [&first[..], &then, &["70s 4: Gone"]].concat());
}

#[test]
fn a_cordon_and_a_drain_are_heard_while_health_may_take_nothing() {
    let mut line = Timeline::new(5);
    for id in ["3", "4"] {
        line.kill(id);
    }
    line.pass(20);
    assert!(line.hold.is_some());
    let (server, reason) = ("3".into(), "its fan is loud".to_owned());
    line.world.record(Record::Cordon { server, reason, ttl: None });
    line.intend("4", IntentKind::Drain, 600);
    line.look();
    assert_eq!(
        (line.standing("3"), line.standing("4")),
        // What is sick and drained on purpose is explained, and the other one taken for what it is.
        (Standing::ShedOnly(25), Standing::Shed(100))
    );
    assert_eq!(line.hold, None);
}

#[test]
fn one_of_three_may_be_lost() {
    let mut line = Timeline::new(3);
    line.kill("2");
    line.pass(65);
    assert_eq!((line.standing("2"), line.hold.clone()), (Standing::Gone, None));
}

#[test]
fn exactly_the_share_may_be_taken_and_the_limits_are_what_counts() {
    // Of 500 one may lose 100.
    for (percent, standing) in [(20, Standing::Gone), (19, Standing::Full)] {
        let mut line = Timeline::new(5);
        line.max_share_percent = percent;
        line.kill("3");
        line.pass(65);
        assert_eq!(line.standing("3"), standing, "{percent} %");
    }
    // Whoever holds more than the share alone is never judged; two small ones may be.
    let mut line = Timeline::new(5);
    line.limit("3", 400);
    line.kill("3");
    line.pass(65);
    assert_eq!(line.standing("3"), Standing::Full);
    let mut line = Timeline::new(5);
    line.limit("1", 400);
    line.kill("3");
    line.kill("4");
    line.pass(65);
    assert_eq!((line.standing("3"), line.standing("4")), (Standing::Gone, Standing::Gone));
}

#[test]
fn two_servers_cannot_be_the_same_member_and_it_is_shown() {
    let mut line = Timeline::new(4);
    let mut twin = Server::new("5", "5:1");
    twin.name = "4".to_owned();
    line.world.insert(twin, Role::Voter);
    let state = line.world.assess();
    let decision = line.decided(&state);
    assert_eq!(decision.nameless, ["server 5: server 4 is the member default#4 already"]);
    assert_eq!(decision.notices.len(), 4);
}

#[test]
fn times_and_steps_that_make_no_sense_are_refused_by_name() {
    let good = Config::default();
    assert_eq!(good.validate(), Ok(()));
    let bad = [
        (Config { shed_after: Duration::from_secs(1), ..good.clone() }, "shed_after is 1s"),
        (Config { dead_after: Duration::from_secs(9), ..good.clone() }, "dead_after is 9s"),
        (Config { shed_interval: Duration::ZERO, ..good.clone() }, "shed_interval is 0s"),
        (Config { return_interval: Duration::ZERO, ..good.clone() }, "return_interval is 0s"),
        (Config { shed_step_percent: 0, ..good.clone() }, "shed_step_percent is 0"),
        (Config { return_step_percent: 101, ..good }, "return_step_percent is 101"),
    ];
    for (config, expected) in bad {
        let error = Graded::new(config).unwrap_err().to_string();
        assert!(error.starts_with(expected), "{error}");
    }
}

#[test]
fn the_configuration_is_text_as_people_write_it() {
    let config: Config =
        serde_json::from_str(r#"{"suspect_after":"3s","dead_after":"2m 30s"}"#).unwrap();
    assert_eq!(config.suspect_after, Duration::from_secs(3));
    assert_eq!(config.dead_after, Duration::from_secs(150));
    let again: Config = serde_json::from_str(&serde_json::to_string(&config).unwrap()).unwrap();
    assert_eq!(again, config);
    assert!(serde_json::from_str::<Config>(r#"{"suspekt_after":"3s"}"#).is_err());
}

#[test]
fn nobody_loses_what_it_has_because_nobody_can_tell_how_it_is() {
    let mut line = Timeline::new(3);
    line.kill("3");
    line.pass(20);
    let before = line.standing("3");
    let mut state: State = line.world.assess();
    // The same moment, with a verdict that nobody has.
    for server in &mut state.servers {
        server.health.verdict = raft_autopilot::autopilot::Verdict::Unknown;
    }
    assert_eq!(line.decide(&state), [(before, "3")].map(|(s, id)| format!("{id}: {s:?}")));
}

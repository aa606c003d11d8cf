//! What health takes and what people say stand beside each other: neither hides the other.

use raft_autopilot::{
    allocator::Standing,
    autopilot::{IntentKind, Record, Role, Server},
    placement::{Cause, Hold, Policy, Seen, Wish},
};

use crate::timeline::Timeline;

impl Timeline {
    fn fail(&mut self, id: &str) {
        self.world.kill(id, std::time::Duration::ZERO);
    }

    fn cordon(&mut self, id: &str) {
        let (server, reason) = (id.into(), "its fan is loud".to_owned());
        self.world.record(Record::Cordon { server, reason, ttl: None });
    }
}

#[test]
fn what_health_took_counts_on_whatever_people_say() {
    let says: [fn(&mut Timeline); 4] = [
        |line| line.cordon("3"),
        |line| line.intend("3", IntentKind::Reboot, 600),
        |line| line.intend("3", IntentKind::Upgrade, 600),
        |line| line.intend("3", IntentKind::Drain, 600),
    ];
    for says in says {
        let mut line = Timeline::new(5);
        line.fail("3");
        line.pass(30);
        assert_eq!(line.standing("3"), Standing::Shed(50));
        says(&mut line);
        line.fail("4");
        line.pass(100);
        assert_eq!(line.standing("4"), Standing::Full, "{:?}", line.told());
        let hold = line.hold.clone();
        assert!(matches!(hold, Some(Hold::TooMany { limits: 200, of: 500, .. })), "{hold:?}");
    }
}

#[test]
fn an_announcement_that_ends_gives_nothing_back_that_health_took() {
    let mut line = Timeline::new(5);
    line.fail("3");
    line.pass(70);
    line.intend("3", IntentKind::Reboot, 600);
    line.pass(5);
    // It is announced, and holds as little as before.
    assert_eq!((line.standing("3"), line.cause("3")), (Standing::Gone, Cause::Health));
    line.world.heal("3");
    line.pass(5);
    line.world.record(Record::Unintend("3".into()));
    line.told();
    line.pass(60);
    let steps = ["105s 3: Shed(75)", "115s 3: Shed(50)", "125s 3: Shed(25)", "135s 3: Full"];
    assert_eq!(line.told(), steps);
}

#[test]
fn a_cordon_that_is_lifted_gives_nothing_back_that_health_took() {
    let mut line = Timeline::new(5);
    line.fail("3");
    line.pass(70);
    line.world.heal("3");
    line.pass(1);
    line.cordon("3");
    line.pass(1);
    line.world.record(Record::Uncordon("3".into()));
    line.told();
    line.pass(27);
    assert_eq!(line.told(), Vec::<String>::new());
    line.pass(35);
    let steps = ["100s 3: Shed(75)", "110s 3: Shed(50)", "120s 3: Shed(25)", "130s 3: Full"];
    assert_eq!(line.told(), steps);
}

#[test]
fn a_cordon_on_one_of_two_sick_servers_makes_no_room_for_the_other() {
    let mut line = Timeline::new(5);
    line.fail("3");
    line.fail("4");
    line.pass(30);
    line.cordon("3");
    line.pass(100);
    assert_eq!((line.standing("3"), line.standing("4")), (Standing::NothingNew, Standing::Full));
    assert!(matches!(line.hold, Some(Hold::TooMany { limits: 200, .. })), "{:?}", line.hold);
}

#[test]
fn a_cordoned_server_that_is_sick_gets_nothing_new_while_it_gives_up_a_part() {
    let mut line = Timeline::new(5);
    line.cordon("3");
    line.fail("3");
    line.pass(20);
    assert_eq!(line.standing("3"), Standing::ShedOnly(25));
    // It holds less than it may, and gets none of it.
    assert_eq!(line.standing("3").limit(100, 20), 20);
    assert!(line.why("3").contains("contact lost") && line.why("3").contains("its fan is loud"));
}

#[test]
fn a_drain_that_ends_while_the_server_is_sick_gives_nothing_back() {
    let mut line = Timeline::new(5);
    line.intend("3", IntentKind::Drain, 60);
    line.pass(10);
    line.fail("3");
    line.pass(70);
    let taken = line.standing("3").limit(100, 100);
    assert_eq!(taken, 0, "{:?}", line.standing("3"));
    line.world.heal("3");
    line.told();
    line.pass(29);
    assert_eq!(line.told(), Vec::<String>::new());
}

#[test]
fn a_drain_that_was_followed_by_an_announcement_gives_nothing_back_before_that_ends() {
    let mut line = Timeline::new(5);
    line.intend("3", IntentKind::Drain, 60);
    line.pass(1);
    line.intend("3", IntentKind::Reboot, 60);
    line.pass(50);
    assert_eq!(line.told(), ["0s 3: Shed(100)"]);
    line.pass(60);
    assert_eq!(line.standing("3"), Standing::Full);
}

#[test]
fn a_cordon_holds_beside_an_announcement() {
    let mut line = Timeline::new(5);
    line.cordon("3");
    line.intend("3", IntentKind::Reboot, 600);
    line.pass(1);
    let standing = line.standing("3");
    assert_eq!((standing.limit(100, 20), standing.keeps_primaries()), (20, false));
    assert!(!standing.takes(), "nothing that others do not hold as well goes");
}

#[test]
fn the_notice_of_a_server_that_was_removed_goes_when_its_member_has_ended() {
    let mut line = Timeline::new(5);
    line.fail("3");
    line.pass(70);
    line.world.remove("3");
    line.pass(5);
    assert_eq!(line.standing("3"), Standing::Gone, "its member stands");
    line.forget("3");
    line.pass(1);
    assert_eq!(line.members(), ["1", "2", "4", "5"]);
    // Whoever comes under its name begins anew.
    line.world.insert(Server::new("3", "3:1"), Role::Voter);
    line.limit("3", 100);
    line.pass(1);
    assert_eq!(line.standing("3"), Standing::Full);
}

#[test]
fn the_notice_of_a_server_whose_member_has_ended_stays_while_the_server_does() {
    let mut line = Timeline::new(5);
    line.fail("3");
    line.pass(70);
    line.forget("3");
    line.pass(60);
    assert_eq!(line.standing("3"), Standing::Gone);
}

#[test]
fn a_server_whose_votes_count_in_another_zone_than_its_work_is_named() {
    let mut line = Timeline::new(3);
    line.thresholds.redundancy_zone_tag = "rack".to_owned();
    for (id, rack) in [("1", "default"), ("2", "b"), ("3", "")] {
        line.world.describe(id, |server| {
            server.meta.insert("rack".to_owned(), rack.to_owned());
        });
    }
    let state = line.world.assess();
    let astray = line.decided(&state).astray;
    assert_eq!(astray.len(), 1, "{astray:?}");
    assert!(astray[0].starts_with("server 2 votes in zone b, by its tag `rack`"), "{astray:?}");
}

/// Knows nothing of some servers.
#[derive(Debug)]
struct Fragile;

impl Policy for Fragile {
    fn wish(&self, seen: &Seen<'_>) -> Wish {
        assert_ne!(seen.server.server.id.as_str(), "3", "who is 3?");
        Wish { standing: Standing::Gone, why: "it is sick".to_owned(), again: None }
    }
}

#[test]
fn a_policy_that_panics_changes_nothing_of_whom_it_panics_about_and_is_named() {
    let mut line = Timeline::new(5);
    line.fail("3");
    line.pass(30);
    line.world.heal("3");
    line.told();
    line.policy(Fragile);
    line.fail("4");
    line.limit("1", 400);
    line.pass(120);
    // Of the others it is heard.
    assert_eq!((line.standing("3"), line.standing("4")), (Standing::Shed(50), Standing::Gone));
    let words = line.hold.clone().unwrap().to_string();
    assert!(words.starts_with("the policy panicked, and what default#3 may hold stays"), "{words}");
    assert!(words.contains("who is 3?"), "{words}");
}

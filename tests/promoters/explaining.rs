//! One answer for each server, what may fail next, and what comes next and when.

use std::time::Duration;

use raft_autopilot::{
    autopilot::{
        Code, Config, Explanation, IntentKind, NodeType, Promoter, Record, Role, ServerId,
        ServerState, State, Wishes, explain, plan,
    },
    promoters::{Preferred, Stable, Upgrade, Wrapper, Zones},
    rehearse::World,
};

use super::support::{MINUTE, SECOND, add, cluster, transfer};

fn explained(world: &mut World, promoter: &dyn Promoter) -> Explanation {
    let (config, state) = (world.config.clone(), world.assess());
    let plan = plan(&config, &state, promoter);
    explain(&config, &state, &plan, promoter)
}

/// Looks once a second, and does nothing; what it sees at last.
fn watched(world: &mut World, promoter: &dyn Promoter, seconds: u32) -> Explanation {
    for _ in 0..seconds {
        explained(world, promoter);
        world.pass(SECOND);
    }
    explained(world, promoter)
}

#[track_caller]
fn says(found: &Explanation, id: &str, code: Code, words: &str) {
    let answer = found.server(id).unwrap();
    assert_eq!((answer.code, answer.words.as_str()), (code, words), "{found:#?}");
}

#[test]
fn a_server_that_is_not_stable_yet_says_for_how_long_it_must_be() {
    let promoter = Stable::new();
    let mut world = cluster("a b c", "");
    add(&mut world, "d", Role::Learner);
    world.run(&promoter, 4 * SECOND);
    let found = explained(&mut world, &promoter);
    says(&found, "d", Code::NotStable, "does not vote; is not promoted: 4s of 10s stable");
    assert_eq!(found.server("d").unwrap().changes_in, Some(6 * SECOND));
    assert_eq!(found.next.after, Some(6 * SECOND));
    assert_eq!(found.summary, "healthy; a leads; 3 of 4 vote; 1 may fail");
    let leads = "leads, healthy for 1m 4s: the promoter wishes no other leader";
    says(&found, "a", Code::Leads, leads);
    let votes = "votes, healthy for 1m 4s: the promoter leaves it the vote (voter)";
    says(&found, "b", Code::Votes, votes);
    let found = watched(&mut world, &promoter, 6);
    says(&found, "d", Code::Next, "does not vote; comes next: promote d");
    assert_eq!((found.next.words.as_str(), found.next.after), ("promote d", Some(Duration::ZERO)));
}

#[test]
fn a_dead_server_says_when_its_grace_ends() {
    let promoter = Stable::new();
    let mut world = cluster("a b c d e", "");
    world.config.dead_server_last_contact_threshold = 5 * MINUTE;
    world.kill("e", Duration::ZERO);
    world.run(&promoter, 2 * MINUTE);
    let found = explained(&mut world, &promoter);
    let answer = found.server("e").unwrap();
    assert_eq!(answer.code, Code::GraceRuns);
    let end = "is not removed: the grace of 5m ends in 3m";
    assert!(answer.words.ends_with(end), "{}", answer.words);
    assert!(
        answer.words.starts_with("votes; unhealthy for 1m 59s (contact lost"),
        "{}",
        answer.words
    );
    assert_eq!(found.may_fail().count(), 5);
    assert_eq!((found.next.words.as_str(), found.next.after), ("remove e", Some(3 * MINUTE)));
    world.kill("d", Duration::ZERO);
    world.run(&promoter, 2 * SECOND);
    let found = explained(&mut world, &promoter);
    // Three of five are left: nobody who answers may fail.
    let may: Vec<&str> = found.may_fail().map(ServerId::as_str).collect();
    assert_eq!(may, ["d", "e"]);
}

#[test]
fn a_vote_that_is_about_to_move_says_when_and_to_whom() {
    let promoter = Stable::with_target(3);
    let mut world = cluster("a b c", "d");
    world.kill("b", Duration::ZERO);
    world.run(&promoter, 4 * SECOND);
    let found = explained(&mut world, &promoter);
    let swap = "promote d and demote b";
    assert_eq!((found.next.words.as_str(), found.next.after), (swap, Some(6 * SECOND)));
    let b = found.server("b").unwrap();
    assert_eq!((b.code, b.changes_in), (Code::Due, Some(6 * SECOND)));
    assert!(b.words.starts_with("votes; unhealthy for 3s") && b.words.ends_with(swap), "{b:?}");
    says(&found, "d", Code::Due, "does not vote; in 6s: promote d and demote b");
    assert_eq!(found.server("d").unwrap().changes_in, Some(6 * SECOND));
    // Without anybody to follow, no time brings anything: three voters are not made two.
    let mut world = cluster("a b c", "");
    world.kill("b", Duration::ZERO);
    world.run(&promoter, MINUTE);
    let found = explained(&mut world, &promoter);
    assert_eq!(found.next.words, "nothing, until what is held can be done");
    assert_eq!(found.next.after, None);
    assert_eq!(found.server("b").unwrap().code, Code::GraceRuns);
}

#[test]
fn a_preferred_leader_says_when_it_will_lead() {
    let promoter = Preferred::new(Stable::new()).zone("b").cool_down(20 * MINUTE);
    let mut world = cluster("a@a b@b c@c", "");
    let found = explained(&mut world, &promoter);
    let expected = (transfer("b").to_string(), Some(Duration::ZERO));
    assert_eq!((found.next.words, found.next.after), expected);
    // It fails, and is tried again after the cool-down, longer than any back-off.
    world.refuses_leadership.insert("b".into());
    world.run(&promoter, 7 * MINUTE);
    let found = explained(&mut world, &promoter);
    let expected = (transfer("b").to_string(), Some(13 * MINUTE));
    assert_eq!((found.next.words, found.next.after), expected);
    // A leader that has just come to lead stays for a while.
    let promoter = Preferred::new(Stable::new()).zone("c");
    world.kill("a", Duration::ZERO);
    world.heal("a");
    let found = watched(&mut world, &promoter, 20);
    let expected = (transfer("c").to_string(), Some(40 * SECOND));
    assert_eq!((found.next.words, found.next.after), expected);
}

/// Whatever has failed, and whatever the policy: what is said to come next comes then, and
/// where nothing is said to come nothing does.
#[test]
fn what_is_said_to_come_next_comes_then() {
    let policies: [&dyn Promoter; 6] = [
        &Stable::new(),
        &Stable::with_target(3),
        &Zones::new(),
        &Upgrade::new(Stable::with_target(3)),
        &Upgrade::new(Zones::new()),
        &Preferred::new(Zones::new()).zone("z"),
    ];
    let ids = ["a", "b", "c", "d", "e", "f"];
    let (mut came, mut nothing) = (0, 0);
    for promoter in policies {
        for choice in 0..1_u32 << ids.len() {
            let mut world = cluster("a@x:1 b@y:1 c@z:1", "d@x:1");
            world.config.dead_server_last_contact_threshold = 5 * MINUTE;
            world.update_interval = MINUTE / 2;
            add(&mut world, "e@y:2 f@z:2", Role::Learner);
            let dead = ids.iter().enumerate().filter(|(bit, _)| choice >> bit & 1 != 0);
            dead.for_each(|(_, id)| world.kill(id, Duration::ZERO));
            if !world.has_quorum() {
                continue;
            }
            for _ in 0..3 {
                // A new leader has yet to miss the dead.
                let said = watched(&mut world, promoter, 3).next;
                let (begin, before) = (world.at(), world.steps().len());
                let wait = said.after.unwrap_or(60 * MINUTE);
                if let Some(almost) = wait.checked_sub(Duration::from_millis(1)) {
                    assert_eq!(world.run(promoter, almost), [], "{promoter:?} {choice:b} {said:?}");
                }
                if said.after.is_none() {
                    nothing += 1;
                    break;
                }
                while world.at() < begin + wait {
                    world.run(promoter, (begin + wait).saturating_sub(world.at()));
                }
                if world.steps().len() == before {
                    world.round(promoter);
                }
                let (at, step) = &world.steps()[before];
                assert_eq!((step.to_string(), *at), (said.words, begin + wait), "{choice:b}");
                came += 1;
            }
        }
    }
    assert!(came > 400 && nothing > 50, "{came} {nothing}");
}

#[test]
fn zones_say_which_of_them_may_be_lost() {
    let promoter = Zones::new();
    let mut world = cluster("a1@a b1@b c1@c", "a2@a");
    let found = explained(&mut world, &promoter);
    assert!(found.zones.values().all(|may| *may), "{found:#?}");
    let words = "does not vote; it stands by (zone-standby): the promoter wants no vote beside \
                 the 3 there are";
    says(&found, "a2", Code::StandsBy, words);
    world.kill("c1", Duration::ZERO);
    world.run(&promoter, 20 * SECOND);
    let found = explained(&mut world, &promoter);
    says(
        &found,
        "a2",
        Code::StandsIn,
        "votes, healthy for 1m 20s; beside another of its zone, in place of one that is lost",
    );
    // Both voters of zone a, and one of b: without a nothing goes on.
    assert!(!found.zones["a"]);
    assert_eq!((found.zones["b"], found.zones["c"]), (true, true));
}

#[test]
fn what_waits_says_for_what() {
    let promoter = Upgrade::new(Stable::with_target(3));
    let mut world = cluster("o1:1 o2:1 o3:1", "n1:2 rr:1");
    let found = explained(&mut world, &promoter);
    let words = "does not vote; it stands by for the upgrade: 1 of 3 voters could run 2.0.0";
    says(&found, "n1", Code::StandsBy, words);
    says(&found, "rr", Code::ReadReplica, "does not vote; it is a read replica and never will");
    assert_eq!(found.warnings, ["upgrade (await-new-voters): 1 of 3 voters could run 2.0.0"]);
    assert_eq!(found.next.words, "nothing: everything is as it should be");
    let server = "o2".into();
    world.record(Record::Intend { server, kind: IntentKind::Reboot, ttl: MINUTE });
    let (server, reason) = ("o3".into(), "noisy".to_owned());
    world.record(Record::Cordon { server, reason, ttl: None });
    let found = explained(&mut world, &promoter);
    assert_eq!(found.server("o2").unwrap().code, Code::Announced);
    assert_eq!(found.server("o3").unwrap().code, Code::Cordoned);
    world.record(Record::Pause("holidays".to_owned()));
    let found = explained(&mut world, &promoter);
    assert_eq!(found.next.words, "nothing: paused: holidays; resume to go on");
}

/// Whoever is tagged as an archive never votes, by a type of its own.
#[derive(Debug)]
struct Archives(Stable);

impl Wrapper for Archives {
    type Inner = Stable;

    fn inner(&self) -> &Stable {
        &self.0
    }

    fn wishes(&self, config: &Config, state: &State) -> Wishes {
        let mut wishes = self.0.wishes(config, state);
        wishes.promote.retain(|id| state.server(id).is_some_and(|s| s.tag("archive").is_none()));
        wishes
    }

    fn node_type(&self, config: &Config, state: &State, server: &ServerState) -> NodeType {
        match server.tag("archive") {
            Some(_) => NodeType::new("archive"),
            None => self.0.node_type(config, state, server),
        }
    }

    fn is_potential_voter(&self, node_type: &NodeType) -> bool {
        node_type.as_str() != "archive" && self.0.is_potential_voter(node_type)
    }
}

#[test]
fn whoever_may_never_vote_says_so() {
    let promoter = Archives(Stable::new());
    let mut world = cluster("a b c", "d");
    world.describe("d", |server| {
        server.meta.insert("archive".to_owned(), "yes".to_owned());
    });
    assert_eq!(world.run(&promoter, MINUTE), []);
    let found = explained(&mut world, &promoter);
    let words = "does not vote; servers of its type (archive) never do";
    says(&found, "d", Code::NeverVotes, words);
}

#[test]
fn who_does_not_lead_judges_nobody() {
    let promoter = Stable::new();
    let mut world = cluster("a b c", "");
    world.kill("b", Duration::ZERO);
    world.kill("c", Duration::ZERO);
    world.pass(SECOND);
    let found = explained(&mut world, &promoter);
    assert!(found.servers.iter().all(|answer| answer.code == Code::NotJudged), "{found:#?}");
    assert!(found.summary.starts_with("not judged"), "{found:#?}");
    assert_eq!(found.next.after, None);
}

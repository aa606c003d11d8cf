//! Upgrade migration: the documented statuses, and roll-back, abort, canaries and more than two versions.

use std::time::Duration;

use raft_autopilot::{
    autopilot::{Promoter, Record, Role, ServerId},
    promoters::{Electorate, Stable, Upgrade, Zones},
    rehearse::World,
};

use super::support::{
    MINUTE, SECOND, add, cluster, ext, ids, node_type, status, transfer, upgrade, voters, votes,
};

/// V1: the documented sample.
#[test]
fn twelve_servers_in_three_zones_half_of_them_new() {
    let promoter = Upgrade::new(Zones::new());
    let mut world = cluster(
        "a1@a:1.0.0 b1@b:1.0.0 c1@c:1.0.0",
        "a2@a:1.0.0 a3@a:2.0.0 a4@a:2.0.0 b2@b:1.0.0 b3@b:2.0.0 b4@b:2.0.0 \
         c2@c:1.0.0 c3@c:2.0.0 c4@c:2.0.0 xr:1.0.0",
    );
    let state = world.assess();
    assert_eq!(state.failure_tolerance, 1);
    assert_eq!(state.sorted_voters()[0], "a1".into());
    let ext = ext(&mut world, &promoter);
    assert_eq!(ext.optimistic_failure_tolerance, Some(10));
    for (name, zone) in &ext.redundancy_zones {
        assert_eq!((zone.servers.len(), zone.failure_tolerance), (4, 3), "{name}");
        assert_eq!(zone.voters, ids(&format!("{name}1")));
    }
    let info = ext.upgrade.unwrap();
    assert_eq!(info.status.as_str(), "promoting");
    assert_eq!(info.target_version.as_deref(), Some("2.0.0"));
    assert_eq!(info.versions.target_version_non_voters, ids("a3 a4 b3 b4 c3 c4"));
    assert_eq!(info.versions.other_version_voters, ids("a1 b1 c1"));
    assert_eq!(info.versions.other_version_non_voters, ids("a2 b2 c2"));
    assert_eq!(info.other_version_read_replicas, ids("xr"));
    assert_eq!(info.redundancy_zones.len(), 3);
    for (name, zone) in &info.redundancy_zones {
        assert_eq!(zone.target_version_non_voters, ids(&format!("{name}3 {name}4")));
        assert_eq!(zone.other_version_voters, ids(&format!("{name}1")));
        assert_eq!(zone.other_version_non_voters, ids(&format!("{name}2")));
    }
    for (id, expected) in [("a1", "zone-voter"), ("a2", "zone-standby"), ("xr", "read-replica")] {
        assert_eq!(node_type(&mut world, &promoter, id), expected);
    }
    let steps = world.run(&promoter, MINUTE);
    let expected = [votes("a3 b3 c3", "b1 c1"), transfer("a3"), votes("", "a1")];
    assert_eq!(steps, expected);
    assert_eq!(voters(&world), "a3* b3 c3");
    assert_eq!(status(&mut world, &promoter), "await-server-removal");
}

/// V6, with joint changes.
#[test]
fn three_old_and_three_new_voters_step_by_step() {
    three_old_and_three_new(Stable::new());
    three_old_and_three_new(Stable::with_target(3));
    three_old_and_three_new(Zones::new());
}

fn three_old_and_three_new(inner: impl Electorate) {
    let promoter = Upgrade::new(inner);
    {
        let mut world = cluster("o1:1.0 o2:1.0 o3:1.0", "");
        assert_eq!(status(&mut world, &promoter), "idle");
        add(&mut world, "n1:2.0", Role::Learner);
        assert_eq!(world.run(&promoter, MINUTE), []);
        assert_eq!(status(&mut world, &promoter), "await-new-voters");
        add(&mut world, "n2:2.0 n3:2.0", Role::Learner);
        assert_eq!(status(&mut world, &promoter), "await-new-voters");
        assert_eq!(world.run(&promoter, 9 * SECOND), []);

        step_until(&mut world, &promoter, "promoting");
        assert_eq!(voters(&world), "o1* o2 o3");
        world.round(&promoter);
        assert_eq!(voters(&world), "n1 n2 n3 o1*");
        assert_eq!(status(&mut world, &promoter), "leader-transfer");
        world.round(&promoter);
        assert_eq!(voters(&world), "n1* n2 n3 o1");
        assert_eq!(status(&mut world, &promoter), "demoting");
        world.round(&promoter);
        assert_eq!(voters(&world), "n1* n2 n3");
        assert_eq!(status(&mut world, &promoter), "await-server-removal");
        assert_eq!(world.run(&promoter, 10 * MINUTE), []);
        for old in ["o1", "o2", "o3"] {
            world.remove(old);
        }
        assert_eq!(status(&mut world, &promoter), "idle");
        assert_eq!(world.run(&promoter, 10 * MINUTE), []);
    }
}

#[test]
fn more_new_servers_are_awaited_while_the_old_outnumber_them() {
    let promoter = Upgrade::new(Stable::with_target(3));
    let mut world = cluster("o1:1.0 o2:1.0 o3:1.0", "o4:1.0 o5:1.0 n1:2.0 n2:2.0 n3:2.0");
    world.run(&promoter, MINUTE);
    assert_eq!(voters(&world), "n1* n2 n3");
    assert_eq!(status(&mut world, &promoter), "await-new-servers");
    add(&mut world, "n4:2.0 n5:2.0", Role::Learner);
    assert_eq!(status(&mut world, &promoter), "await-server-removal");
}

#[test]
fn votes_that_were_given_by_hand_are_demoted_first() {
    let promoter = Upgrade::new(Stable::new());
    let mut world = cluster("n1:2.0 n2:2.0 n3:2.0 o1:1.0 o2:1.0 o3:1.0", "");
    world.run(&super::support::Content, SECOND);
    assert_eq!(status(&mut world, &promoter), "demoting");
    let mut world = cluster("o1:1.0 n1:2.0 n2:2.0 n3:2.0 o2:1.0 o3:1.0", "");
    assert_eq!(voters(&world), "n1 n2 n3 o1* o2 o3");
    assert_eq!(status(&mut world, &promoter), "demoting");
    let steps = world.run(&promoter, MINUTE);
    assert_eq!(steps, [votes("", "o2 o3"), transfer("n1"), votes("", "o1")]);
}

/// V9.
#[test]
fn pre_releases_are_lower_and_builds_are_equal() {
    let promoter = Upgrade::new(Stable::with_target(3));
    let mut world = cluster("a:1.11.0 b:1.11.0 c:1.11.0", "d:1.11.0-release.1");
    let info = upgrade(&mut world, &promoter);
    assert_eq!(info.target_version.as_deref(), Some("1.11.0"));
    assert_eq!(info.status.as_str(), "await-server-removal");
    assert_eq!(world.run(&promoter, MINUTE), []);
    let mut world = cluster("a:1.11.0+a b:1.11.0+b c:1.11.0", "d:1.11.0+c");
    assert_eq!(status(&mut world, &promoter), "idle");
}

/// V11.
#[test]
fn a_disabled_migration_leaves_the_plain_rule() {
    let promoter = Upgrade::new(Stable::new());
    let mut world = cluster("o1:1.0 o2:1.0 o3:1.0", "n1:2.0 n2:2.0 n3:2.0");
    world.config.disable_upgrade_migration = true;
    assert_eq!(status(&mut world, &promoter), "disabled");
    assert_eq!(world.run(&promoter, MINUTE), [votes("n1 n2 n3", "")]);
    // Turned on again, it goes on from what it finds.
    world.config.disable_upgrade_migration = false;
    world.run(&promoter, MINUTE);
    assert_eq!(voters(&world), "n1* n2 n3");
}

#[test]
fn the_votes_return_when_new_servers_fail_before_the_transfer() {
    for inner in [Stable::new(), Stable::with_target(3)] {
        let promoter = Upgrade::new(inner);
        let mut world = cluster("o1:1.0 o2:1.0 o3:1.0", "n1:2.0 n2:2.0 n3:2.0");
        world.refuses_leadership.extend(ids("n1 n2 n3"));
        world.round(&promoter);
        assert_eq!(voters(&world), "n1 n2 n3 o1*");
        world.kill("n2", Duration::ZERO);
        // Not while it may only be a pause.
        world.run(&promoter, 9 * SECOND);
        assert_eq!(voters(&world), "n1 n2 n3 o1*");
        world.run(&promoter, 5 * SECOND);
        assert_eq!(voters(&world), "o1* o2 o3");
        let info = upgrade(&mut world, &promoter);
        assert_eq!(info.status.as_str(), "await-new-voters");
        assert_eq!(info.waits.as_deref(), Some("2 of 3 voters could run 2.0.0"));
        assert_eq!(world.run(&promoter, 10 * MINUTE), []);
        // Another new server, and it begins again.
        world.refuses_leadership.clear();
        add(&mut world, "n4:2.0", Role::Learner);
        world.run(&promoter, MINUTE);
        assert_eq!(voters(&world), "n1* n3 n4");
    }
}

#[test]
fn leadership_waits_while_a_new_voter_is_sick() {
    let promoter = Upgrade::new(Stable::new());
    let mut world = cluster("o1:1.0 o2:1.0 o3:1.0", "n1:2.0 n2:2.0 n3:2.0");
    world.round(&promoter);
    world.kill("n2", SECOND);
    world.run(&promoter, 5 * SECOND);
    assert_eq!(voters(&world), "n1 n2 n3 o1*");
    assert_eq!(status(&mut world, &promoter), "leader-transfer");
    world.heal("n2");
    world.run(&promoter, MINUTE);
    assert_eq!(voters(&world), "n1* n2 n3");
}

#[test]
fn an_operator_calls_a_migration_off() {
    let promoter = Upgrade::new(Stable::new());
    let mut world = cluster("o1:1.0 o2:1.0 o3:1.0", "n1:2.0 n2:2.0 n3:2.0");
    world.refuses_leadership.extend(ids("n1 n2 n3"));
    world.round(&promoter);
    assert_eq!(voters(&world), "n1 n2 n3 o1*");
    world.config.upgrade_target_version = "1.0".to_owned();
    world.run(&promoter, MINUTE);
    assert_eq!(voters(&world), "o1* o2 o3");
    assert_eq!(status(&mut world, &promoter), "await-server-removal");
    assert_eq!(world.run(&promoter, MINUTE), []);
}

#[test]
fn a_downgrade_is_an_upgrade_to_an_older_target() {
    let promoter = Upgrade::new(Zones::new());
    let mut world = cluster("a1@a:2.0 b1@b:2.0 c1@c:2.0", "a2@a:1.5.0 b2@b:1.5.0 c2@c:1.5.0");
    assert_eq!(world.run(&promoter, MINUTE), []);
    world.config.upgrade_target_version = "1.5".to_owned();
    assert_eq!(upgrade(&mut world, &promoter).target_version.as_deref(), Some("1.5.0"));
    world.run(&promoter, MINUTE);
    assert_eq!(voters(&world), "a2* b2 c2");
    // What is no version, or nobody's, moves nothing and says so.
    for (target, waits) in [
        ("newest", "upgrade_target_version is no version: newest"),
        ("7.0", "0 of 3 voters could run 7.0.0"),
    ] {
        world.config.upgrade_target_version = target.to_owned();
        assert_eq!(upgrade(&mut world, &promoter).waits.as_deref(), Some(waits));
        assert_eq!(world.run(&promoter, MINUTE), []);
    }
}

#[test]
fn a_canary_blocks_nothing() {
    let promoter = Upgrade::new(Stable::with_target(3));
    let mut world = cluster("o1:1.0 o2:1.0 o3:1.0", "o4:1.0 canary:3.0");
    world.kill("o3", Duration::ZERO);
    world.run(&promoter, MINUTE);
    assert_eq!(voters(&world), "o1* o2 o4");
    assert_eq!(status(&mut world, &promoter), "await-new-voters");
    // Nor a migration to the version in between.
    add(&mut world, "n1:2.0 n2:2.0 n3:2.0", Role::Learner);
    world.run(&promoter, MINUTE);
    assert_eq!(voters(&world), "n1* n2 n3");
    assert_eq!(upgrade(&mut world, &promoter).target_version.as_deref(), Some("3.0"));
    add(&mut world, "z1:3.0 z2:3.0", Role::Learner);
    world.run(&promoter, MINUTE);
    assert_eq!(voters(&world), "canary* z1 z2");
}

#[test]
fn a_lone_newer_server_that_leads_keeps_nobody_from_replacing_another() {
    // One was restarted with the new version, and happens to lead.
    let mixed = || {
        let mut world = cluster("a:2.0 b:1.0 c:1.0", "d:1.0");
        assert_eq!(voters(&world), "a* b c");
        world.update_interval = SECOND;
        world
    };
    for inner in [Stable::with_target(3), Stable::with_target(5)] {
        let promoter = Upgrade::new(inner);
        let mut world = mixed();
        assert_eq!(world.run(&promoter, MINUTE), []);
        assert_eq!(status(&mut world, &promoter), "await-new-voters");
        world.kill("c", Duration::ZERO);
        assert_eq!(world.run(&promoter, MINUTE), [votes("d", "c")]);
    }
    let mut world = cluster("a@x:2.0 b@y:1.0 c@z:1.0", "d@z:1.0");
    world.kill("c", Duration::ZERO);
    assert_eq!(world.run(&Upgrade::new(Zones::new()), MINUTE), [votes("d", "c")]);
    // Where everybody votes, whoever joins does; a newer one may be the only one there is.
    assert_eq!(mixed().run(&Upgrade::new(Stable::new()), MINUTE), [votes("d", "")]);
    let mut world = cluster("a:2.0 b:1.0 c:1.0", "d:2.0");
    world.kill("c", Duration::ZERO);
    let promoter = Upgrade::new(Stable::with_target(3));
    assert_eq!(world.run(&promoter, MINUTE), [votes("d", "c")]);
}

#[test]
fn new_servers_that_fail_one_after_another_give_the_votes_back() {
    for inner in [Stable::with_target(3), Stable::with_target(5)] {
        let promoter = Upgrade::new(inner);
        let mut world = cluster("o1:1.0 o2:1.0 o3:1.0", "n1:2.0 n2:2.0 n3:2.0");
        world.run(&promoter, MINUTE);
        assert_eq!(voters(&world), "n1* n2 n3");
        for (lost, expected) in [("n3", "n1* n2 o1"), ("n2", "n1* o1 o2"), ("n1", "o1* o2 o3")] {
            world.kill(lost, Duration::ZERO);
            world.run(&promoter, MINUTE);
            assert_eq!(voters(&world), expected, "{lost} is lost");
        }
        // They are mended, and it begins again.
        for id in ["n1", "n2", "n3"] {
            world.heal(id);
        }
        world.run(&promoter, 2 * MINUTE);
        assert_eq!(voters(&world), "n1* n2 n3");
    }
    // Where everybody votes nobody is replaced.
    let promoter = Upgrade::new(Stable::new());
    let mut world = cluster("o1:1.0 o2:1.0 o3:1.0", "n1:2.0 n2:2.0 n3:2.0");
    world.run(&promoter, MINUTE);
    world.kill("n3", Duration::ZERO);
    assert_eq!(world.run(&promoter, 10 * MINUTE), []);
}

#[test]
fn a_new_server_that_is_back_takes_the_vote_from_an_old_one_in_one_change() {
    let promoter = Upgrade::new(Stable::with_target(3));
    let mut world = cluster("o1:1.0 o2:1.0 o3:1.0", "n1:2.0 n2:2.0 n3:2.0");
    world.run(&promoter, MINUTE);
    world.kill("n3", Duration::ZERO);
    world.run(&promoter, MINUTE);
    assert_eq!(voters(&world), "n1* n2 o1");
    assert_eq!(status(&mut world, &promoter), "await-new-servers");
    world.heal("n3");
    assert_eq!(world.run(&promoter, MINUTE), [votes("n3", "o1")]);
    assert_eq!(status(&mut world, &promoter), "await-server-removal");
}

#[test]
fn unknown_versions_are_never_demoted_and_block() {
    for inner in [Stable::new(), Stable::with_target(3)] {
        let promoter = Upgrade::new(inner);
        let mut world = cluster("o1:1.0 o2:1.0 o3:latest", "n1:2.0 n2:2.0 n3:2.0");
        assert_eq!(world.run(&promoter, MINUTE), []);
        let info = upgrade(&mut world, &promoter);
        assert_eq!(info.status.as_str(), "await-new-voters");
        assert_eq!(info.waits.as_deref(), Some("the version of o3 is not known"));
        // A server of an unknown version that does not vote is left alone.
        let mut world = cluster("o1:1.0 o2:1.0 o3:1.0", "x");
        assert_eq!(world.run(&promoter, MINUTE), []);
        assert_eq!(status(&mut world, &promoter), "idle");
        // Where nobody says a version there is nothing to migrate.
        let mut world = cluster("a b", "c");
        assert_eq!(world.run(&promoter, MINUTE), [votes("c", "")]);
        assert_eq!(status(&mut world, &promoter), "idle");
    }
}

#[test]
fn a_restart_in_place_moves_no_vote() {
    for inner in [Stable::new(), Stable::with_target(3)] {
        let promoter = Upgrade::new(inner);
        let mut world = cluster("s1:1.0 s2:1.0 s3:1.0", "");
        for id in ["s3", "s2"] {
            let intend = Record::Intend {
                server: id.into(),
                kind: raft_autopilot::autopilot::IntentKind::Upgrade,
                ttl: 5 * MINUTE,
            };
            world.record(intend);
            world.kill(id, Duration::ZERO);
            assert_eq!(world.run(&promoter, MINUTE), []);
            world.heal(id);
            add(&mut world, &format!("{id}:2.0"), Role::Voter);
            assert_eq!(world.run(&promoter, MINUTE), []);
            world.record(Record::Unintend(id.into()));
            assert_eq!(world.run(&promoter, MINUTE), [], "{id} is back");
        }
        add(&mut world, "s1:2.0", Role::Voter);
        assert_eq!(world.run(&promoter, MINUTE), []);
        assert_eq!(status(&mut world, &promoter), "idle");
    }
}

#[test]
fn new_servers_must_stand_in_as_many_zones() {
    let promoter = Upgrade::new(Zones::new());
    let mut world = cluster("a1@a:1.0 b1@b:1.0 c1@c:1.0", "a2@a:2.0 a3@a:2.0 b2@b:2.0 b3@b:2.0");
    assert_eq!(world.run(&promoter, MINUTE), []);
    let waits = upgrade(&mut world, &promoter).waits;
    assert_eq!(waits.as_deref(), Some("voters on 2.0.0 would be in 2 of 3 zones"));
    add(&mut world, "c2@c:2.0", Role::Learner);
    world.run(&promoter, MINUTE);
    assert_eq!(voters(&world), "a2* b2 c2");
}

#[test]
fn the_version_may_be_a_tag() {
    let promoter = Upgrade::new(Stable::new());
    let mut world = cluster("o1:1.0 o2:1.0 o3:1.0", "");
    world.config.upgrade_version_tag = "build".to_owned();
    for (id, build) in [("o1", "7"), ("o2", "7"), ("o3", "7")] {
        let mut server = super::support::server(id);
        server.meta.insert("build".to_owned(), build.to_owned());
        world.insert(server, Role::Voter);
    }
    for id in ["n1", "n2", "n3"] {
        let mut server = super::support::server(id);
        server.meta.insert("build".to_owned(), "8.1-rc.1".to_owned());
        world.insert(server, Role::Learner);
    }
    world.run(&promoter, MINUTE);
    assert_eq!(voters(&world), "n1* n2 n3");
    let state = world.assess();
    let shown = promoter.server_ext(&world.config, &state, state.server(&"n1".into()).unwrap());
    assert_eq!(shown.upgrade_version.as_deref(), Some("8.1-rc.1"));
}

#[test]
fn every_size_migrates_whole() {
    for old in 1..=5_usize {
        let all =
            |kind: char| (1..=old).map(move |i| format!("{kind}{i}:{}", u8::from(kind == 'n')));
        for target in [Stable::new(), Stable::with_target(old | 1)] {
            let mut world = cluster(&all('o').collect::<Vec<_>>().join(" "), "");
            add(&mut world, &all('n').collect::<Vec<_>>().join(" "), Role::Learner);
            world.run(&Upgrade::new(target), 2 * MINUTE);
            // With a target, nobody is promoted to the fourth vote.
            let size = if old == 4 && target != Stable::new() { 3 } else { old };
            let mut done: Vec<ServerId> = (1..=size).map(|i| format!("n{i}").into()).collect();
            if old == 2 {
                // Three stand a failure, two do not: the last old one stays until it is removed.
                done.extend(world.voters().into_iter().filter(|id| id.as_str().starts_with('o')));
                assert_eq!(done.len(), 3, "{:?}", world.voters());
            }
            assert_eq!(world.voters(), done, "{target:?}");
        }
    }
}

fn step_until(world: &mut World, promoter: &dyn Promoter, wanted: &str) {
    for _ in 0..60 {
        if status(world, promoter) == wanted {
            return;
        }
        world.round(promoter);
        world.pass(SECOND);
    }
    panic!("never {wanted}: {:?}", upgrade(world, promoter));
}

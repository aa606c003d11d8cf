//! Redundancy zones: the documented vectors, and where a zone comes from.

use std::time::Duration;

use raft_autopilot::{autopilot::Role, promoters::Zones};

use super::support::{MINUTE, SECOND, add, cluster, ext, node_type, server, voters, votes, world};

/// V2.
#[test]
fn a_standby_follows_the_voter_of_its_zone() {
    let mut world = cluster("a1@a b1@b c1@c", "a2@a b2@b c2@c");
    world.kill("b1", Duration::ZERO);
    assert_eq!(world.run(&Zones::new(), MINUTE), [votes("b2", "b1")]);
    assert_eq!(voters(&world), "a1* b2 c1");
    assert_eq!(world.assess().failure_tolerance, 1);
    assert_eq!(ext(&mut world, &Zones::new()).optimistic_failure_tolerance, Some(3));
}

/// V3.
#[test]
fn a_lost_zone_is_stood_in_for_until_it_is_back() {
    let promoter = Zones::new();
    let mut world = cluster("a1@a b1@b c1@c", "a2@a b2@b c2@c");
    world.kill("b1", Duration::ZERO);
    world.run(&promoter, MINUTE);
    world.kill("b2", Duration::ZERO);
    assert_eq!(world.run(&promoter, MINUTE), [votes("a2", "b2")]);
    assert_eq!(voters(&world), "a1* a2 c1");
    assert_eq!(node_type(&mut world, &promoter, "a1"), "zone-voter");
    assert_eq!(node_type(&mut world, &promoter, "a2"), "zone-extra-voter");
    assert_eq!(node_type(&mut world, &promoter, "b1"), "zone-voter");
    assert_eq!(node_type(&mut world, &promoter, "c2"), "zone-standby");
    world.heal("b2");
    assert_eq!(world.run(&promoter, 9 * SECOND), []);
    assert_eq!(world.run(&promoter, MINUTE), [votes("b2", "a2")]);
    assert_eq!(voters(&world), "a1* b2 c1");
}

/// V3, with both servers of the zone lost at once.
#[test]
fn a_zone_may_be_lost_at_once() {
    let mut world = cluster("a1@a b1@b c1@c", "a2@a b2@b c2@c");
    world.kill("c1", Duration::ZERO);
    world.kill("c2", Duration::ZERO);
    world.run(&Zones::new(), MINUTE);
    assert_eq!(voters(&world), "a1* a2 b1");
}

/// V4.
#[test]
fn four_failures_one_by_one_leave_a_quorum_and_the_fifth_does_not() {
    let promoter = Zones::new();
    let mut world = cluster("a1@a b1@b c1@c", "a2@a b2@b c2@c");
    for (lost, id) in ["a1", "b1", "a2", "c1"].iter().enumerate() {
        assert_eq!(ext(&mut world, &promoter).optimistic_failure_tolerance, Some(4 - lost));
        world.kill(id, Duration::ZERO);
        world.run(&promoter, MINUTE);
        assert!(world.has_quorum(), "{id}");
    }
    world.kill("b2", Duration::ZERO);
    world.run(&promoter, MINUTE);
    assert!(!world.has_quorum());
}

#[test]
fn a_new_zone_claims_its_vote_when_it_is_stable() {
    let promoter = Zones::with_target(5);
    let mut world = cluster("a1@a b1@b c1@c", "a2@a b2@b");
    assert_eq!(world.run(&promoter, SECOND), [votes("a2 b2", "")]);
    add(&mut world, "d1@d", Role::Learner);
    assert_eq!(world.run(&promoter, 9 * SECOND), []);
    assert_eq!(world.run(&promoter, MINUTE), [votes("d1", "b2")]);
    let mut world = cluster("a1@a b1@b c1@c", "a2@a b2@b");
    add(&mut world, "d1@d", Role::Learner);
    assert_eq!(world.run(&Zones::new(), MINUTE), [votes("d1", "")]);
}

#[test]
fn servers_without_a_zone_are_zones_to_themselves() {
    let promoter = Zones::new();
    let mut world = cluster("a1@a b1@b", "a2@a x y zr");
    world.run(&promoter, MINUTE);
    assert_eq!(voters(&world), "a1* b1 x y");
    assert_eq!(node_type(&mut world, &promoter, "x"), "voter");
    assert_eq!(node_type(&mut world, &promoter, "zr"), "read-replica");
    assert_eq!(ext(&mut world, &promoter).redundancy_zones.len(), 2);
}

#[test]
fn the_zone_may_be_a_tag() {
    let mut world = world();
    world.config.redundancy_zone_tag = "rack".to_owned();
    for (id, rack) in [("a", "1"), ("b", "1"), ("c", "2"), ("d", "3")] {
        let mut server = server(&format!("{id}@everywhere"));
        server.meta.insert("rack".to_owned(), rack.to_owned());
        world.insert(server, if id == "a" { Role::Voter } else { Role::Learner });
    }
    world.run(&Zones::new(), MINUTE);
    assert_eq!(voters(&world), "a* c d");
}

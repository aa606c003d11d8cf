//! Redundancy zones: the documented vectors, and brute force over the order of failures.

use std::{collections::BTreeSet, time::Duration};

use raft_autopilot::{
    autopilot::{Promoter, Role},
    promoters::{Stable, Zones},
    rehearse::World,
};

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

/// For every cluster of up to four zones and nine servers: whatever the order in which servers
/// fail, the quorum is lost with the failure after the published number, and not before.
#[test]
fn brute_force_over_failures_equals_the_published_tolerance() {
    let mut clusters = 0;
    for sizes in all_sizes(4, 9) {
        let total: usize = sizes.iter().sum();
        let settled = settle(&sizes, &Zones::new());
        assert_eq!(settled.voters().len(), total.min(sizes.len().max(3)), "{sizes:?}");
        check(&settled, &sizes, &Zones::new());
        clusters += 1;
    }
    assert_eq!(clusters, 70);
    for target in [1, 3, 5] {
        for total in 1..=7 {
            let promoter = Stable::with_target(target);
            check(&settle(&[total], &promoter), &[total], &promoter);
        }
    }
}

/// The sizes of up to `zones` zones, largest first, with up to `servers` servers in all.
fn all_sizes(zones: usize, servers: usize) -> Vec<Vec<usize>> {
    let (mut all, mut grown): (Vec<Vec<usize>>, Vec<Vec<usize>>) = (Vec::new(), vec![Vec::new()]);
    for _ in 0..zones {
        let mut next = Vec::new();
        for sizes in &grown {
            let left = servers - sizes.iter().sum::<usize>();
            for size in 1..=left.min(sizes.last().copied().unwrap_or(servers)) {
                next.push(sizes.iter().copied().chain([size]).collect::<Vec<_>>());
            }
        }
        all.extend(next.iter().cloned());
        grown = next;
    }
    all
}

fn settle(sizes: &[usize], promoter: &dyn Promoter) -> World {
    let mut world = world();
    // Nobody is cleaned up meanwhile: the figure is for the servers that there are.
    world.config.cleanup_dead_servers = false;
    for (zone, size) in sizes.iter().enumerate() {
        for i in 0..*size {
            let role = if zone + i == 0 { Role::Voter } else { Role::Learner };
            world.insert(server(&format!("z{zone}s{i}@z{zone}")), role);
        }
    }
    world.run(promoter, MINUTE);
    world
}

fn check(settled: &World, sizes: &[usize], promoter: &dyn Promoter) {
    let mut world = settled.clone();
    let published = ext(&mut world, promoter).optimistic_failure_tolerance.unwrap();
    let zones = ext(&mut world, promoter).redundancy_zones;
    let state = world.assess();
    let servers: Vec<String> = state.members().map(|s| s.server.id.to_string()).collect();
    for (name, zone) in &zones {
        assert_eq!(zone.failure_tolerance, zone.servers.len() - 1, "{name} of {sizes:?}");
    }
    // Without promotions: any so many voters may fail at once, and one more not.
    let voters = world.voters();
    assert_eq!(state.failure_tolerance, voters.len() - 1 - voters.len() / 2);
    let mut walk = Walk { promoter, seen: BTreeSet::new() };
    walk.fail(&world, &servers, published, &format!("{sizes:?}"));
}

/// All orders of failures, those that lead to the same cluster once.
struct Walk<'a> {
    promoter: &'a dyn Promoter,
    seen: BTreeSet<String>,
}

impl Walk<'_> {
    /// Fails every server in turn, and then every other, until the figure is reached.
    fn fail(&mut self, world: &World, up: &[String], left: usize, story: &str) {
        let voters = world.voters();
        for id in up {
            let counts = voters.iter().any(|voter| voter.as_str() == id);
            let mut next = world.clone();
            next.kill(id, Duration::ZERO);
            let story = format!("{story} {id}");
            if left == 0 {
                // One failure too many: it takes the quorum if it takes a voter.
                assert!(!counts || !next.has_quorum(), "{story}: more than published");
                continue;
            }
            assert!(next.has_quorum(), "{story}: less than published");
            next.update_interval = MINUTE / 2;
            next.run(self.promoter, MINUTE / 2);
            let rest: Vec<String> = up.iter().filter(|other| *other != id).cloned().collect();
            if self.seen.insert(format!("{rest:?} {:?} {:?}", next.voters(), next.leader())) {
                self.fail(&next, &rest, left - 1, &story);
            }
        }
    }
}

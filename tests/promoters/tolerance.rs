//! What is published about failures, against brute force over the orders in which servers fail.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use raft_autopilot::{
    autopilot::{Promoter, Role, ServerId, Zone},
    promoters::{Electorate, Stable, Upgrade, Witness, Zones},
    rehearse::World,
};

use super::support::{Content, MINUTE, add, ext, server, voters, world};

/// For every cluster of up to four zones and nine servers: whatever the order in which servers
/// fail, the quorum is lost with the failure after the published number, and not before; and so
/// with the voters that may fail at once, and with the servers of each zone.
#[test]
fn brute_force_over_failures_equals_the_published_tolerance() {
    // All of them in release, where they take seconds.
    let (servers, expected) = if cfg!(debug_assertions) { (7, 37) } else { (9, 70) };
    let mut clusters = 0;
    for sizes in all_sizes(4, servers) {
        let total: usize = sizes.iter().sum();
        let settled = settle(&sizes, &Zones::new());
        assert_eq!(settled.voters().len(), total.min(sizes.len().max(3)), "{sizes:?}");
        check(&settled, &Zones::new(), &format!("{sizes:?}"));
        clusters += 1;
    }
    assert_eq!(clusters, expected);
    // Where there are fewer votes than zones, not every zone has a voter.
    for target in [1, 3, 5] {
        let promoter = Zones::with_target(target);
        for sizes in all_sizes(3, if cfg!(debug_assertions) { 5 } else { 8 }) {
            let settled = settle(&sizes, &promoter);
            let figure = ext(&mut settled.clone(), &promoter).optimistic_failure_tolerance;
            let story = format!("{target} of {sizes:?}");
            Walk::new(&promoter).fail(&settled, figure.unwrap(), &story);
        }
    }
    for target in [1, 3, 5] {
        for total in 1..=7 {
            let promoter = Stable::with_target(target);
            check(&settle(&[total], &promoter), &promoter, &format!("{target} of {total}"));
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
    world.update_interval = MINUTE / 2;
    world.run(promoter, MINUTE);
    world
}

fn up(world: &World) -> Vec<ServerId> {
    let state = world.clone().assess();
    let all = state.members().map(|s| s.server.id.clone());
    all.filter(|id| !world.is_down(id.as_str())).collect()
}

fn check(settled: &World, promoter: &dyn Promoter, story: &str) {
    let published = ext(&mut settled.clone(), promoter);
    let figure = published.optimistic_failure_tolerance.unwrap();
    Walk::new(promoter).fail(settled, figure, story);
    for (name, zone) in &published.redundancy_zones {
        lose(settled, promoter, zone, &format!("zone {name} of {story}"));
    }
}

/// All orders of failures, those that lead to the same cluster once.
struct Walk<'a> {
    promoter: &'a dyn Promoter,
    seen: BTreeSet<String>,
}

impl<'a> Walk<'a> {
    fn new(promoter: &'a dyn Promoter) -> Self {
        Self { promoter, seen: BTreeSet::new() }
    }

    /// Fails every server in turn, and then every other, until the figure is reached.
    fn fail(&mut self, world: &World, left: usize, story: &str) {
        let voters = world.voters();
        let state = world.clone().assess();
        at_once(world, state.failure_tolerance, story);
        let published = ext(&mut world.clone(), self.promoter).optimistic_failure_tolerance;
        assert_eq!(published, Some(left), "{story}");
        for id in up(world) {
            let mut next = world.clone();
            next.kill(id.as_str(), Duration::ZERO);
            let story = format!("{story} {id}");
            if left == 0 {
                // One failure too many: it takes the quorum if it takes a voter.
                assert!(!voters.contains(&id) || !next.has_quorum(), "{story}: more");
                continue;
            }
            assert!(next.has_quorum(), "{story}: less than published");
            next.run(self.promoter, MINUTE / 2);
            if self.seen.insert(format!("{:?} {:?} {:?}", up(&next), next.voters(), next.leader()))
            {
                self.fail(&next, left - 1, &story);
            }
        }
    }
}

/// Any so many healthy voters may fail at once, without a promotion in between; one more may not.
fn at_once(world: &World, published: usize, story: &str) {
    let mut alive = world.voters();
    alive.retain(|id| !world.is_down(id.as_str()));
    for choice in 0..1_u32 << alive.len() {
        let mut next = world.clone();
        let chosen = alive.iter().enumerate().filter(|(bit, _)| choice >> bit & 1 != 0);
        chosen.for_each(|(_, id)| next.kill(id.as_str(), Duration::ZERO));
        let many = choice.count_ones() as usize;
        assert_eq!(next.has_quorum(), many <= published, "{story}: {many} at once");
    }
}

/// Whatever the order in which the servers of a zone fail, it is lost with the failure after the
/// published number, and not before; and while there is a quorum somebody in it votes.
fn lose(settled: &World, promoter: &dyn Promoter, zone: &Zone, story: &str) {
    let mut level = vec![settled.clone()];
    for failures in 0..=zone.failure_tolerance {
        let mut next: BTreeMap<String, World> = BTreeMap::new();
        for world in &level {
            let mut left = zone.servers.clone();
            left.retain(|id| !world.is_down(id.as_str()));
            assert_eq!(left.len(), zone.failure_tolerance + 1 - failures, "{story}");
            if world.has_quorum() {
                let voters = world.voters();
                assert!(left.iter().any(|id| voters.contains(id)), "{story}: {left:?}");
                let now = &ext(&mut world.clone(), promoter).redundancy_zones;
                let now = now.values().find(|now| now.servers == zone.servers).unwrap();
                assert_eq!(now.failure_tolerance, left.len() - 1, "{story}: {left:?}");
            }
            for id in &left {
                let mut world = world.clone();
                world.kill(id.as_str(), Duration::ZERO);
                world.run(promoter, MINUTE / 2);
                next.insert(format!("{:?} {:?}", up(&world), world.voters()), world);
            }
        }
        level = next.into_values().collect();
    }
    for world in &level {
        assert!(zone.servers.iter().all(|id| world.is_down(id.as_str())), "{story}: lost");
    }
}

/// How many failures one after another, with promotions in between, are survived in the worst
/// order; every order is tried, those that lead to the same cluster once.
fn survived(world: &World, promoter: &dyn Promoter) -> usize {
    let mut level = vec![world.clone()];
    for failures in 0.. {
        let mut next: BTreeMap<String, World> = BTreeMap::new();
        for world in &level {
            for id in up(world) {
                let mut world = world.clone();
                world.kill(id.as_str(), Duration::ZERO);
                if !world.has_quorum() {
                    return failures;
                }
                world.run(promoter, MINUTE / 2);
                let key = format!("{:?} {:?} {:?}", up(&world), world.voters(), world.leader());
                next.insert(key, world);
            }
        }
        level = next.into_values().collect();
    }
    unreachable!("somebody fails last");
}

/// These vote, those have stood by for a minute, and nobody is cleaned up.
fn begun(voters: &str, learners: &str) -> World {
    let mut world = world();
    world.config.cleanup_dead_servers = false;
    add(&mut world, voters, Role::Voter);
    add(&mut world, learners, Role::Learner);
    world.update_interval = MINUTE / 2;
    world.run(&Content, MINUTE);
    world
}

/// Makes the policy inside an upgrade.
type Inner = fn() -> Box<dyn Electorate>;

#[test]
fn an_upgrade_publishes_what_it_tolerates_before_and_after() {
    let list = |kind: char, version: u8, n: usize| {
        let server = |i| format!("{kind}{i}@z{}:{version}", i % 3);
        (1..=n).map(server).collect::<Vec<_>>().join(" ")
    };
    let policies: [(bool, Inner); 4] = [
        (true, || Box::new(Stable::new())),
        (true, || Box::new(Stable::with_target(3))),
        (true, || Box::new(Zones::new())),
        // A target that no version fills by itself: the figure is on the safe side.
        (false, || Box::new(Stable::with_target(5))),
    ];
    let most = if cfg!(debug_assertions) { 3 } else { 4 };
    for (exact, inner) in policies {
        for (old, new) in (1..=most).flat_map(|old| (0..=most).map(move |new| (old, new))) {
            let promoter = Upgrade::new(inner());
            let mut world = begun(&list('o', 1, old), &list('n', 2, new));
            let published = |world: &mut World| ext(world, &promoter).optimistic_failure_tolerance;
            let first = published(&mut world).unwrap();
            world.run(&promoter, MINUTE);
            let (then, found) = (published(&mut world).unwrap(), survived(&world, &promoter));
            let story = format!("{promoter:?}: {old} old, {new} new, {}", voters(&world));
            assert!(first <= found && then <= found, "{story}: {first}, {then} of {found}");
            assert!(!exact || then == found, "{story}: {then} of {found}");
        }
    }
}

#[test]
fn a_witness_follows_nobody_and_is_not_counted() {
    let promoter = Witness::new(Stable::with_target(3), "witness");
    for (voters, learners, expected) in
        [("a b w", "", 1), ("a b c", "w", 1), ("a b c", "d w", 2), ("a b", "w", 0), ("a", "w", 0)]
    {
        let mut world = begun(voters, learners);
        world.describe("w", |server| {
            server.meta.insert("witness".to_owned(), "yes".to_owned());
        });
        let published = ext(&mut world, &promoter).optimistic_failure_tolerance;
        assert_eq!(published, Some(expected), "{voters}, {learners}");
        world.run(&promoter, MINUTE);
        assert!(expected <= survived(&world, &promoter), "{voters}, {learners}");
    }
}

#[test]
fn new_servers_are_counted_when_they_may_follow() {
    let promoter = Upgrade::new(Stable::with_target(3));
    // Two new servers wait for a third; two that are old do not.
    for (learners, expected) in [("n1:2 n2:2", 1), ("o4:1 o5:1", 3), ("o4:1 n1:2", 2)] {
        let mut world = begun("o1:1 o2:1 o3:1", learners);
        let published = ext(&mut world, &promoter).optimistic_failure_tolerance;
        assert_eq!(published, Some(expected), "{learners}");
    }
}

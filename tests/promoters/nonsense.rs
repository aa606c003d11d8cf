//! A promoter that wishes anything: whatever it says, no step breaks a rule.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use raft_autopilot::{
    autopilot::{Config, Origin, Promoter, Removals, Role, ServerId, State, Step, Wishes},
    rehearse::World,
};

use super::support::{add, world};

/// Wishes at random, from a seed.
#[derive(Debug)]
struct Random(AtomicU64);

impl Random {
    fn draw(&self, below: u64) -> u64 {
        // An xorshift: enough to be unreasonable with.
        let mut x = self.0.load(Ordering::Relaxed);
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        self.0.store(x, Ordering::Relaxed);
        x % below
    }

    fn some(&self, state: &State) -> Vec<ServerId> {
        let mut some: Vec<ServerId> = Vec::new();
        for _ in 0..self.draw(4) {
            let found = state.servers.get(usize::try_from(self.draw(12)).unwrap());
            some.push(found.map_or_else(|| "stranger".into(), |s| s.server.id.clone()));
        }
        some
    }
}

impl Promoter for Random {
    fn wishes(&self, _: &Config, state: &State) -> Wishes {
        let (promote, demote) = (self.some(state), self.some(state));
        Wishes { promote, demote, leader: self.some(state).pop() }
    }

    fn keeps(&self, _: &Config, state: &State, _: &Removals) -> Vec<ServerId> {
        self.some(state)
    }
}

#[test]
fn random_wishes_break_no_invariant() {
    let promoter = Random(AtomicU64::new(0x5EED));
    let mut world = fresh();
    // Steps that were taken; a million in release, where it takes seconds.
    let most = if cfg!(debug_assertions) { 2_000 } else { 1_000_000 };
    let (mut wished, mut steps, mut kinds) = (0_u64, 0, [0_u64; 3]);
    while steps < most {
        disturb(&promoter, &mut world);
        // Long enough to be noticed.
        world.pass(Duration::from_millis(300 + promoter.draw(5000)));
        let before = world.clone();
        let (plan, step) = world.round(&promoter);
        let of_promoter = plan.changes.iter().filter(|c| c.origin == Origin::Promoter).count()
            + plan.held.iter().filter(|h| h.origin == Origin::Promoter).count();
        wished += u64::try_from(of_promoter).unwrap();
        if let Some(step) = step {
            steps += 1;
            kinds[match step {
                Step::Votes { .. } => 0,
                Step::Transfer { .. } => 1,
                _ => 2,
            }] += 1;
            judge(&before, &step, &world);
        }
        if world.steps().len() > 50 {
            world = fresh();
        }
    }
    assert!(wished > 2 * steps, "{steps} of {wished}");
    assert!(kinds.iter().all(|kind| *kind > most / 2000), "{kinds:?}");
}

fn fresh() -> World {
    let mut world = world();
    world.config.min_quorum = 3;
    world.config.dead_server_last_contact_threshold = Duration::from_secs(60);
    add(&mut world, "a b c d e", Role::Voter);
    add(&mut world, "f g h ir", Role::Learner);
    world
}

/// At most one server is down at a time.
fn disturb(random: &Random, world: &mut World) {
    let ids = ["a", "b", "c", "d", "e", "f", "g", "h"];
    match random.draw(40) {
        0 => {
            for id in ids {
                world.heal(id);
            }
            let id = ids[usize::try_from(random.draw(8)).unwrap()];
            world.kill(id, Duration::ZERO);
        }
        1 => ids.iter().for_each(|id| world.heal(id)),
        _ => {}
    }
}

/// What may never happen, told from the outside.
fn judge(before: &World, step: &Step, after: &World) {
    let (old, new) = (before.voters(), after.voters());
    assert!(after.has_quorum(), "{step}: no quorum of {new:?}");
    assert!(new.len() >= 3, "{step}: {new:?}");
    assert!(!new.contains(&"ir".into()) && !new.contains(&"stranger".into()), "{step}");
    let down = |id: &ServerId| before.is_down(id.as_str());
    let leader = before.leader().unwrap();
    match step {
        Step::Votes { promote, demote } => {
            assert!(new.contains(leader), "{step}: the leader {leader} keeps its vote");
            assert!(!promote.iter().any(down), "{step}: promotes the dead");
            for id in promote {
                assert!(!old.contains(id) && new.contains(id), "{step}");
            }
            assert!(demote.iter().all(|id| !new.contains(id)), "{step}");
        }
        Step::Transfer { to } => {
            assert!(old.contains(to) && !down(to) && old == new, "{step} of {old:?}");
        }
        Step::Remove { servers, .. } => assert!(servers.iter().all(down), "{step}: alive"),
        Step::FinishJoint | Step::Add(_) | Step::Readdress { .. } => panic!("{step}"),
    }
}

//! A rolling replacement of half the members, plan by plan: how many moves it takes beside the least in
//! hindsight, where every replica of a member that leaves moves once, to one that stays.

use raft_autopilot::allocator::{Problem, Seat, ZoneRule, retire, solve};

/// A tenth of the members, as many as the reference is measured with.
const N: u32 = 10;

const ITEMS: u32 = 2_000 * N;

/// Of the old ones and of the new ones.
const LIMITS: (u32, u32) = (1_500, 1_205);

/// Members by number, the old before the new, and one that stays and has room for one; who is not there
/// yet may hold nothing.
struct Rolling {
    problem: Problem,
    leaving: Vec<(u32, u32)>,
    moves: u64,
}

impl Rolling {
    fn new(slack: u32) -> Self {
        let mut problem = Problem::new(ZoneRule::default(), slack);
        for member in 0..10 * N {
            let zone = u32::from(matches!(member % 5, 1 | 3));
            let limit = if member < 5 * N { LIMITS.0 } else { 0 };
            problem.add_member(Seat::new(zone, limit));
        }
        problem.add_member(Seat::new(0, 1));
        for _ in 0..ITEMS {
            problem.add_item(3, &[]);
        }
        let mut rolling = Self { problem, leaving: Vec::new(), moves: 0 };
        rolling.plan();
        rolling.moves = 0;
        rolling
    }

    /// Plans until nothing moves any more.
    fn plan(&mut self) {
        loop {
            let mut problem = self.problem.clone();
            retire(&mut problem, &self.leaving);
            let solution = solve(&problem);
            let certificate = &solution.certificate;
            assert_eq!(certificate.unplaced(), 0);
            self.moves += certificate.added;
            self.problem.hold(solution.desired);
            if certificate.added == 0 {
                return;
            }
        }
    }

    fn join(&mut self, step: u32) {
        for member in (5 + step) * N..(6 + step) * N {
            let seat = self.problem.seat_mut(member).unwrap();
            *seat = Seat::new(seat.zone, LIMITS.1);
        }
        self.plan();
    }

    fn leave(&mut self, step: u32) {
        self.leaving.extend((step * N..(step + 1) * N).map(|member| (member, 0)));
        self.plan();
    }

    /// Moves to the least in hindsight.
    fn percent(&self) -> u64 {
        self.moves * 100 / u64::from(3 * ITEMS)
    }
}

#[test]
fn with_a_wide_slack_a_replica_moves_about_once() {
    let mut up = Rolling::new(LIMITS.0);
    for step in 0..5 {
        up.join(step);
        up.leave(step);
    }
    assert!(up.percent() <= 102, "new ones first: {}", up.percent());
    let mut down = Rolling::new(LIMITS.0);
    for step in 0..5 {
        down.leave(step);
        down.join(step);
    }
    assert!(down.percent() <= 125, "old ones first: {}", down.percent());
}

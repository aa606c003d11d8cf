//! The cost of a plan as the number of items grows, with the certificate of each beside it.
//!
//! `cargo bench --features allocator --bench items` prints a table: the fastest of a few runs on one
//! core, the moves beside their lower bound, and the farthest that a member is from its fair share.
//! `-- 1000000 plain` plans that many items only, in that world only.

#![allow(clippy::unwrap_used, clippy::cast_possible_truncation, missing_docs, reason = "a bench")]
#![allow(clippy::cast_precision_loss, reason = "figures for people")]
#![expect(clippy::disallowed_methods, reason = "a bench reads the clock")]

use std::time::{Duration, Instant};

use raft_autopilot::allocator::{Holder, Problem, Seat, Solution, ZoneRule, solve};

/// A world to plan for.
#[derive(Clone, Copy)]
struct World {
    items: usize,
    members: u32,
    zones: u32,
    /// Replication of item `i`.
    replication: fn(usize) -> u32,
    /// Limit of member `m`, with the fair load.
    limit: fn(u32, u32) -> u32,
    rule: ZoneRule,
}

impl World {
    fn problem(&self) -> Problem {
        let total: u64 = (0..self.items).map(|item| u64::from((self.replication)(item))).sum();
        let fair = u32::try_from(total / u64::from(self.members)).unwrap() + 1;
        let mut problem = Problem::new(self.rule, 0).with_capacity(self.items, 0);
        for member in 0..self.members {
            problem.add_member(Seat::new(member % self.zones, (self.limit)(member, fair)));
        }
        for item in 0..self.items {
            problem.add_item((self.replication)(item), &[]);
        }
        problem
    }
}

/// The time of the fastest of `runs` plans, and the plan.
fn timed(problem: &Problem, runs: usize) -> (Duration, Solution) {
    let mut times = Vec::new();
    let mut solution = None;
    for _ in 0..runs {
        drop(solution.take());
        let begin = Instant::now();
        solution = Some(solve(problem));
        times.push(begin.elapsed());
    }
    times.sort();
    (times[0], solution.unwrap())
}

fn print(case: &str, problem: &Problem, (time, solution): &(Duration, Solution)) {
    let c = &solution.certificate;
    let members = problem.seats().len();
    let mut primaries = vec![0u32; members];
    for holder in solution.desired.all().iter().copied().filter(|holder| holder.is_primary()) {
        primaries[holder.member() as usize] += 1;
    }
    let live = (0..members).filter(|member| problem.seats()[*member].limit > 0);
    let live: Vec<u32> = live.map(|member| primaries[member]).collect();
    println!(
        "{case:<26} {:>9.2} ms  unplaced {}  moves {:>8} / {:>8}  spread {}  beyond {}/{}  zones {}  load {}..{}  primaries {}..{}  hand-offs {}{}",
        time.as_secs_f64() * 1e3,
        c.placeable - c.placed,
        c.added,
        c.lower_bound,
        c.spread,
        c.beyond,
        c.beyond_least,
        c.zones_violated,
        c.min_load,
        c.max_load,
        live.iter().min().unwrap_or(&0),
        live.iter().max().unwrap_or(&0),
        c.hand_offs,
        if c.is_best() { "" } else { "  NOT CERTIFIED" },
    );
}

/// From nothing, nothing new, a member and a tenth lost, a member and a tenth added.
fn cases(name: &str, world: &World, runs: usize) {
    let words = || std::env::args().skip(1).filter(|word| !word.starts_with('-'));
    if words().any(|word| word.parse::<usize>().is_err()) && words().all(|word| word != name) {
        return;
    }
    println!("{name}: {} items, {} members", world.items, world.members);
    let mut problem = world.problem();
    let nothing = timed(&problem, runs.min(3));
    print("  from nothing", &problem, &nothing);
    let placed: Vec<Vec<Holder>> = nothing
        .1
        .desired
        .iter()
        .map(|holders| holders.iter().map(|holder| holder.consistent()).collect())
        .collect();
    let mut held = raft_autopilot::allocator::Holdings::default();
    for holders in &placed {
        held.push(holders);
    }
    drop(nothing);
    problem.hold(held);
    print("  nothing new", &problem, &timed(&problem, runs));
    let tenth = world.members / 10;
    for (case, lost) in [("  one lost", 1), ("  a tenth lost", tenth)] {
        let mut problem = problem.clone();
        for member in 0..lost {
            problem.seat_mut(member * (world.members / lost)).unwrap().limit = 0;
        }
        print(case, &problem, &timed(&problem, runs));
    }
    for (case, more) in [("  one added", 1), ("  a tenth added", tenth)] {
        let mut problem = problem.clone();
        let limit = problem.seats()[0].limit;
        for member in 0..more {
            problem.add_member(Seat::new(member % world.zones, limit));
        }
        print(case, &problem, &timed(&problem, runs));
    }
}

fn main() {
    let only: Option<usize> = std::env::args().skip(1).find_map(|word| word.parse().ok());
    // Else it is only to be seen that it runs.
    let full = std::env::args().any(|argument| argument == "--bench")
        && !std::env::args().any(|argument| argument == "--test");
    let largest = if full { usize::MAX } else { 10_000 };
    let plain = World {
        items: 0,
        members: 0,
        zones: 3,
        replication: |_| 3,
        limit: |_, fair| fair + fair / 2,
        rule: ZoneRule::Two,
    };
    let sizes =
        [(1_000, 10), (10_000, 100), (100_000, 1_000), (1_000_000, 10_000), (10_000_000, 10_000)];
    let wanted = |items: usize| items <= largest && only.is_none_or(|n| n == items);
    for (items, members) in sizes.into_iter().filter(|(items, _)| wanted(*items)) {
        let world = World { items, members, ..plain };
        cases("plain", &world, if items > 1_000_000 { 3 } else { 9 });
        if items > 1_000_000 {
            continue;
        }
        cases("spread over all zones", &World { rule: ZoneRule::Spread, ..world }, 5);
        cases(
            "replication 1 to 5",
            &World { replication: |item| 1 + (item % 5) as u32, ..world },
            5,
        );
        cases("limits that bind", &World { limit: |_, fair| fair + fair / 50 + 1, ..world }, 5);
        cases(
            "unequal limits",
            &World { limit: |member, fair| fair / 2 + member % 7 * fair / 3, ..world },
            5,
        );
        cases(
            "unequal zones",
            &World {
                zones: 2,
                limit: |member, fair| if member % 2 == 0 { fair * 3 } else { fair },
                ..world
            },
            5,
        );
    }
}

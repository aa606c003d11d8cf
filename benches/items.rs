//! The cost of a plan as the number of items grows, with the certificate of each beside it.
//!
//! `cargo bench --features allocator --bench items` prints a table: the fastest of a few runs in time of
//! one processor, which others on the machine do not lengthen, what it allocated at most, the moves beside their lower bound, and the farthest that a member
//! is from its fair share. `-- 1000000 plain` plans that many items only, in that world only; `-- chart`
//! draws `docs/items.svg`.

#![allow(clippy::unwrap_used, clippy::cast_possible_truncation, missing_docs, reason = "a bench")]
#![allow(clippy::cast_precision_loss, reason = "figures for people")]

use std::time::Duration;

use raft_autopilot::allocator::{
    Certificate, Holder, Holdings, Planner, Problem, Seat, ZoneRule, solve,
};

#[path = "account.rs"]
mod account;
#[path = "chart.rs"]
mod chart;

/// A world to plan for.
#[derive(Clone, Copy)]
struct World {
    name: &'static str,
    items: usize,
    members: u32,
    zones: u32,
    /// Replication of item `i`.
    replication: fn(usize) -> u32,
    /// Limit of member `m`, with the fair load.
    limit: fn(u32, u32) -> u32,
    rule: ZoneRule,
    /// Whether many items have the same members, and not each its own.
    alike: bool,
}

const PLAIN: World = World {
    name: "plain",
    items: 0,
    members: 0,
    zones: 3,
    replication: |_| 3,
    limit: |_, fair| fair + fair / 2,
    rule: ZoneRule::Two,
    alike: false,
};

const WORLDS: [World; 9] = [
    PLAIN,
    World { name: "spread", rule: ZoneRule::Spread, ..PLAIN },
    World { name: "mixed replication", replication: |item| 1 + (item % 5) as u32, ..PLAIN },
    World { name: "binding limits", limit: |_, fair| fair + fair / 50 + 1, ..PLAIN },
    World { name: "unequal limits", limit: |m, fair| fair / 2 + m % 7 * fair / 3, ..PLAIN },
    World {
        name: "distinct limits",
        limit: |m, fair| fair / 2 + m % 7 * fair / 3 + m / 8,
        ..PLAIN
    },
    World {
        name: "unequal zones",
        zones: 2,
        limit: |m, fair| if m % 2 == 0 { fair * 3 } else { fair },
        ..PLAIN
    },
    World { name: "same members", alike: true, ..PLAIN },
    World {
        name: "all at once",
        replication: |item| 1 + (item % 5) as u32,
        limit: |m, fair| (fair + fair / 50 + 1) * if m % 3 == 0 { 6 } else { 3 } / 4,
        alike: true,
        ..PLAIN
    },
];

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

    /// Who holds what, once a first plan is done.
    fn held(&self, problem: &mut Problem) {
        let desired = if self.alike { self.groups() } else { solve(problem).desired };
        let mut held = Holdings::default();
        for holders in desired.iter() {
            held.push(&holders.iter().map(|holder| holder.consistent()).collect::<Vec<Holder>>());
        }
        problem.hold(held);
        // Groups do not come out even.
        let desired = solve(problem).desired;
        problem.hold(desired);
    }

    /// Members after the other, as many as an item wants, share their items.
    fn groups(&self) -> Holdings {
        let mut held = Holdings::default();
        for item in 0..self.items as u32 {
            let wanted = (self.replication)(item as usize);
            let first = wanted * (item % (self.members / wanted));
            let primary = Holder::new(first + item / self.members % wanted).primary();
            let others = (first..first + wanted).map(Holder::new);
            let others = others.filter(|holder| holder.member() != primary.member());
            held.push(&std::iter::once(primary).chain(others).collect::<Vec<Holder>>());
        }
        held
    }
}

/// The fastest of so many runs, and what one allocated at most, in bytes an item.
struct Cost {
    time: Duration,
    bytes: u64,
}

fn measure<T>(items: usize, runs: usize, mut run: impl FnMut() -> T) -> (Cost, T) {
    let mut best = None;
    let mut time = Duration::MAX;
    let mut bytes = 0;
    for _ in 0..runs {
        drop(best.take());
        let info = allocation_counter::measure(|| {
            let begin = account::spent();
            best = Some(run());
            time = time.min(account::spent().saturating_sub(begin));
        });
        bytes = info.bytes_max / items as u64;
    }
    (Cost { time, bytes }, best.unwrap())
}

/// What is to be seen of every plan: all is placed that fits, the zone rule is kept as far as that goes, every
/// member is within one of its fair share, and nearly as few move as the bound says.
fn assert_best(case: &str, c: &Certificate) {
    assert_eq!((c.placed, c.beyond), (c.placeable, c.beyond_least), "{case}: {c:?}");
    assert!(c.spread <= 1 && c.gap() <= c.lower_bound / 1_000, "{case}: {c:?}");
}

fn print(case: &str, cost: &Cost, c: &Certificate) {
    assert_best(case, c);
    println!(
        "  {case:<22}{:>10.2} ms {:>4} B  unplaced {}  moves {:>8} / {:>8}  spread {}  beyond {}/{}  zones {}  load {}..{}  hand-offs {}{}",
        cost.time.as_secs_f64() * 1e3,
        cost.bytes,
        c.placeable - c.placed,
        c.added,
        c.lower_bound,
        c.spread,
        c.beyond,
        c.beyond_least,
        c.zones_violated,
        c.min_load,
        c.max_load,
        c.hand_offs,
        if c.is_best() { "" } else { "  NOT CERTIFIED" },
    );
}

const CASES: [&str; 8] = [
    "from nothing",
    "nothing new",
    "one lost",
    "a tenth lost",
    "one added",
    "a tenth added",
    "one lost, live",
    "one added, live",
];

/// All cases of a world, in milliseconds.
fn cases(world: &World, runs: usize) -> [f64; CASES.len()] {
    println!("{}: {} items, {} members", world.name, world.items, world.members);
    let mut times = Vec::new();
    let mut report = |cost: Cost, certificate: &Certificate| {
        print(CASES[times.len()], &cost, certificate);
        times.push(cost.time.as_secs_f64() * 1e3);
    };
    let mut problem = world.problem();
    let (cost, nothing) = measure(world.items, runs.min(5), || solve(&problem).certificate);
    report(cost, &nothing);
    world.held(&mut problem);
    indexing(&problem);
    let (members, tenth) = (world.members, world.members / 10);
    let mut plan = |problem: &Problem| {
        let (cost, certificate) = measure(world.items, runs, || solve(problem).certificate);
        report(cost, &certificate);
    };
    plan(&problem);
    for lost in [1, tenth] {
        let mut problem = problem.clone();
        for member in 0..lost {
            problem.seat_mut(member * (members / lost)).unwrap().limit = 0;
        }
        plan(&problem);
    }
    for more in [1, tenth] {
        let mut problem = problem.clone();
        let limit = problem.seats()[0].limit;
        for member in 0..more {
            problem.add_member(Seat::new(member % world.zones, limit));
        }
        plan(&problem);
    }
    let limit = problem.seats()[0].limit;
    let (mut cost, mut planner) = measure(world.items, 1, || {
        let mut planner = Planner::new(problem.clone());
        planner.plan();
        planner
    });
    // What it keeps, and not what the first plan needed beside it.
    cost.bytes = kept_by(world.items, || planner.clone());
    for added in [false, true] {
        cost.time = Duration::MAX;
        for member in 0..(runs as u32).min(members / 2) {
            let changed = |planner: &mut Planner, add: bool| {
                if add {
                    planner.add_member(Seat::new(member % world.zones, limit));
                } else {
                    let seat = planner.problem().seats()[member as usize];
                    planner.change_member(member, Seat { limit: 0, ..seat });
                }
            };
            // The other kind comes between, so that there are always as many.
            changed(&mut planner, !added);
            planner.plan();
            carry_out(&mut planner);
            planner.plan();
            changed(&mut planner, added);
            let begin = account::spent();
            planner.plan();
            cost.time = cost.time.min(account::spent().saturating_sub(begin));
            if member == 0 {
                assert!(
                    world.items * (members as usize) < 1 << 20 || !planner.was_whole(),
                    "only what changed is planned"
                );
            }
        }
        report(Cost { time: cost.time, bytes: cost.bytes }, planner.certificate());
        carry_out(&mut planner);
    }
    times.try_into().unwrap()
}

/// What it takes to say who holds what: to see that all of it makes sense, and to count it by member, which no
/// plan from there does again.
fn indexing(problem: &Problem) {
    let mut problem = problem.clone();
    let mut time = Duration::MAX;
    for _ in 0..5 {
        let held = problem.held().clone();
        let begin = account::spent();
        problem.hold(held);
        time = time.min(account::spent().saturating_sub(begin));
    }
    println!("  indexing              {:>10.2} ms", time.as_secs_f64() * 1e3);
}

/// What the machine needs at least for a tenth lost, in milliseconds: rows of exactly three are counted and
/// copied, whoever is lost is replaced by the next member of the zone, who has the fewest becomes primary, and
/// each row is compared with what it was. There are no limits, no rule, no shares, and nothing is evened out.
fn bare(items: usize, members: u32) -> f64 {
    const PRIMARY: u32 = 1 << 31;
    let member = |item: usize, zone: u32| {
        let spread = (item as u32 ^ zone << 21).wrapping_mul(0x9E37_79B1);
        ((u64::from(spread ^ spread >> 15) * u64::from(members / 3)) >> 32) as u32 * 3 + zone
    };
    let row = |item: usize| {
        let mut row = [0, 1, 2].map(|zone| member(item, zone));
        row[item % 3] |= PRIMARY;
        row
    };
    let held: Vec<[u32; 3]> = (0..items).map(row).collect();
    let is_lost: Vec<bool> = (0..members).map(|member| member % 10 == 0).collect();
    let stays = |zone: u32| (zone..members).step_by(3).filter(|member| member % 10 != 0);
    let takers = [0, 1, 2].map(|zone| stays(zone).collect::<Vec<u32>>());
    let (cost, _) = measure(items, 9, || {
        let mut has = vec![(0u32, 0u32); members as usize];
        let mut vacant: Vec<u32> = Vec::new();
        for (item, row) in (0..).zip(&held) {
            let mut lost = false;
            for holder in row {
                let member = (holder % PRIMARY) as usize;
                has[member].0 += 1;
                has[member].1 += holder / PRIMARY;
                lost |= is_lost[member];
            }
            vacant.push(item);
            vacant.truncate(vacant.len() - usize::from(!lost));
        }
        let mut rows = held.clone();
        let (mut next, mut added) = ([0; 3], 0);
        for item in vacant {
            let (row, held) = (&mut rows[item as usize], &held[item as usize]);
            for zone in 0..3 {
                while is_lost[(row[zone] % PRIMARY) as usize] {
                    row[zone] = takers[zone][next[zone]];
                    next[zone] =
                        if next[zone] + 1 < takers[zone].len() { next[zone] + 1 } else { 0 };
                    has[row[zone] as usize].0 += 1;
                }
            }
            if row.iter().all(|holder| *holder < PRIMARY) {
                let fewest = row.iter_mut().min_by_key(|holder| has[**holder as usize].1).unwrap();
                has[*fewest as usize].1 += 1;
                *fewest |= PRIMARY;
            }
            let same = |holder: &u32| {
                held.iter().filter(|was| (*was ^ holder).is_multiple_of(PRIMARY)).count()
            };
            added += 3 - row.iter().map(same).sum::<usize>();
        }
        (rows, added)
    });
    cost.time.as_secs_f64() * 1e3
}

fn kept_by<T>(items: usize, make: impl FnOnce() -> T) -> u64 {
    let mut kept = None;
    let info = allocation_counter::measure(|| kept = Some(make()));
    drop(kept);
    info.bytes_current.unsigned_abs() / items as u64
}

/// All that was planned is done.
fn carry_out(planner: &mut Planner) {
    for item in planner.moving().collect::<Vec<u32>>() {
        let done: Vec<Holder> =
            planner.desired(item).iter().map(|holder| holder.consistent()).collect();
        planner.hold(item, &done);
    }
}

const SIZES: [(usize, u32); 5] =
    [(1_000, 10), (10_000, 100), (100_000, 1_000), (1_000_000, 10_000), (10_000_000, 10_000)];

fn main() {
    let words: Vec<String> =
        std::env::args().skip(1).filter(|word| !word.starts_with('-')).collect();
    let only: Option<usize> = words.iter().find_map(|word| word.parse().ok());
    let named = |world: &World| words.iter().any(|word| world.name.starts_with(word.as_str()));
    let any_named = WORLDS.iter().any(named);
    // Else it is only to be seen that it runs.
    let full = std::env::args().any(|argument| argument == "--bench")
        && !std::env::args().any(|argument| argument == "--test");
    let largest = if full { usize::MAX } else { 10_000 };
    let draw = words.iter().any(|word| word == "chart");
    let mut drawn = Vec::new();
    for (items, members) in SIZES {
        if items > largest || only.is_some_and(|only| only != items) {
            continue;
        }
        let huge = items > 1_000_000;
        for world in WORLDS.iter().filter(|world| !any_named || named(world)) {
            if world.name == PLAIN.name || !huge && !draw {
                let times = cases(&World { items, members, ..*world }, if huge { 3 } else { 9 });
                if world.name == PLAIN.name {
                    println!("  a tenth lost, the bare work {:>8.2} ms", bare(items, members));
                    drawn.push((items, times));
                }
            }
        }
    }
    if draw {
        let series =
            |case: usize| drawn.iter().map(move |(items, times)| (*items as f64, times[case]));
        let lines: Vec<(&str, Vec<(f64, f64)>)> =
            CASES.iter().enumerate().map(|(case, name)| (*name, series(case).collect())).collect();
        let title =
            "Time of a plan, in milliseconds, by items (1 member for 100 items, at most 10,000)";
        std::fs::write("docs/items.svg", chart::draw(title, &lines)).unwrap();
    }
}

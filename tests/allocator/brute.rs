//! Brute force: the best plan of a small world, objective by objective, without any flow.
//!
//! Items are taken one after the other, each with every set of members that it might have; what is
//! remembered is, for every vector of loads, the best of all ways that lead there. From the vectors
//! that are best in what comes first follow the fair shares, as the fairest point of their hull.

use std::collections::{BTreeMap, BTreeSet};

use raft_autopilot::allocator::{Holder, Holdings, Primaries, Problem, ZoneRule};

/// What a plan is judged by, in order; less is better.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(crate) struct Score {
    /// Replicas left out.
    pub unplaced: i64,
    /// Left out by rank: of those that stand, of the first, of the second, and so on.
    pub ranks: Vec<i64>,
    /// Replicas beyond the zone rule.
    pub beyond: i64,
    /// Items off the fair band.
    pub off: i64,
    /// New assignments.
    pub added: i64,
    /// Consistent replicas given up.
    pub given_up: i64,
}

/// Where not all fits, ranks count; where all does, all are zero anyway.
const RANKS: usize = 8;

fn standing(problem: &Problem, item: usize) -> usize {
    let legal = |holder: &&Holder| {
        let seat = problem.seats()[holder.member() as usize];
        seat.limit > 0 && problem.allows(item, seat.zone)
    };
    let held = problem.held().of(item).iter().filter(legal).count();
    held.min(problem.replication()[item] as usize)
}

fn whole(count: usize) -> i64 {
    i64::try_from(count).unwrap()
}

/// How many zones are open to an item that gets so many replicas at best, and how many a zone takes by the rule.
pub(crate) fn rule(problem: &Problem, item: usize, wanted: u32) -> (usize, usize) {
    let open = problem.seats().iter().filter(|seat| seat.limit > 0);
    let zones: BTreeSet<u32> =
        open.map(|seat| seat.zone).filter(|zone| problem.allows(item, *zone)).collect();
    (zones.len(), cap(problem.zone_rule(), wanted as usize, zones.len()))
}

/// How many replicas of an item that wants so many one of so many zones takes.
fn cap(rule: ZoneRule, wanted: usize, zones: usize) -> usize {
    match rule {
        ZoneRule::Two => wanted.max(2) - 1,
        ZoneRule::MaxPerZone(cap) => cap.max(1) as usize,
        // As even as can be, where nobody can be so and leave out a zone.
        ZoneRule::Spread => {
            let even = wanted.div_ceil(zones.max(1));
            if even * zones.saturating_sub(1) < wanted { even.max(1) } else { 1 }
        }
    }
}

/// What a zone lies in on a level, and what that lies in.
fn thing(problem: &Problem, zone: u32, level: usize) -> Vec<(bool, u32)> {
    let said = problem.lies_in(zone);
    let named = |level| said.get(level).map_or((true, zone), |name: &u32| (false, *name));
    (0..=level).map(named).collect()
}

/// How many replicas in these zones are beyond the rules of what zones lie in.
fn beyond_around(problem: &Problem, item: usize, wanted: u32, zones: &BTreeMap<u32, i64>) -> i64 {
    let open = problem.seats().iter().filter(|seat| seat.limit > 0).map(|seat| seat.zone);
    let open: Vec<u32> = open.filter(|zone| problem.allows(item, *zone)).collect();
    let beyond = |(level, rule): (usize, &ZoneRule)| -> i64 {
        let things: BTreeSet<_> = open.iter().map(|zone| thing(problem, *zone, level)).collect();
        let cap = whole(cap(*rule, wanted as usize, things.len()));
        let mut there: BTreeMap<_, i64> = BTreeMap::new();
        for (zone, count) in zones {
            *there.entry(thing(problem, *zone, level)).or_default() += count;
        }
        there.values().map(|count| (count - cap).max(0)).sum()
    };
    problem.levels().iter().enumerate().map(beyond).sum()
}

/// What one item adds to the score with one set of members.
fn score_item(problem: &Problem, item: usize, set: u32) -> Score {
    let replication = problem.replication()[item].min(problem.seats().len() as u32) as usize;
    let placed = set.count_ones() as usize;
    let standing = standing(problem, item);
    let mut ranks = vec![0; RANKS];
    if placed < standing {
        ranks[0] += whole(standing - placed);
    }
    for rank in ranks.iter_mut().take(replication + 1).skip(placed.max(standing) + 1) {
        *rank += 1;
    }
    let mut zones: BTreeMap<u32, i64> = BTreeMap::new();
    let (mut added, mut given_up) = (0, 0);
    let held = problem.held().of(item);
    for member in 0..problem.seats().len() {
        let holder = held.iter().find(|holder| holder.member() as usize == member);
        if set & (1 << member) != 0 {
            *zones.entry(problem.seats()[member].zone).or_default() += 1;
            added += i64::from(holder.is_none());
        } else {
            given_up += i64::from(holder.is_some_and(|holder| holder.is_consistent()));
        }
    }
    let cap = whole(rule(problem, item, replication as u32).1);
    let beyond: i64 = zones.values().map(|count| (count - cap).max(0)).sum();
    let beyond = beyond + beyond_around(problem, item, replication as u32, &zones);
    let unplaced = whole(replication - placed);
    Score { unplaced, ranks, beyond, off: 0, added, given_up }
}

fn add(a: &Score, b: &Score) -> Score {
    let ranks = a.ranks.iter().zip(&b.ranks).map(|(a, b)| a + b).collect();
    Score {
        unplaced: a.unplaced + b.unplaced,
        ranks,
        beyond: a.beyond + b.beyond,
        off: a.off + b.off,
        added: a.added + b.added,
        given_up: a.given_up + b.given_up,
    }
}

/// The sets of members that an item may have.
fn sets(problem: &Problem, item: usize) -> Vec<u32> {
    let members = problem.seats().len();
    let allowed = |set: u32| {
        (0..members).all(|member| {
            let seat = problem.seats()[member];
            set & (1 << member) == 0 || (seat.limit > 0 && problem.allows(item, seat.zone))
        })
    };
    let replication = problem.replication()[item];
    let kept = |set: u32| !problem.requires_zones() || score_item(problem, item, set).beyond == 0;
    let sets = 0..1u32 << members;
    sets.filter(|set| set.count_ones() <= replication && allowed(*set) && kept(*set)).collect()
}

/// By vector of loads, the best way there.
fn ways(problem: &Problem) -> BTreeMap<Vec<i64>, Score> {
    let members = problem.seats().len();
    let start = Score { ranks: vec![0; RANKS], ..Score::default() };
    let mut ways = BTreeMap::from([(vec![0; members], start)]);
    for item in 0..problem.replication().len() {
        let mut next: BTreeMap<Vec<i64>, Score> = BTreeMap::new();
        let sets: Vec<(u32, Score)> = sets(problem, item)
            .into_iter()
            .map(|set| (set, score_item(problem, item, set)))
            .collect();
        for (loads, score) in &ways {
            for (set, more) in &sets {
                let mut loads = loads.clone();
                let mut fits = true;
                for (member, load) in loads.iter_mut().enumerate() {
                    *load += i64::from(set & (1 << member) != 0);
                    fits &= *load <= i64::from(problem.seats()[member].limit);
                }
                if fits {
                    let score = add(score, more);
                    let best = next.entry(loads).or_insert_with(|| score.clone());
                    if score < *best {
                        *best = score;
                    }
                }
            }
        }
        ways = next;
    }
    ways
}

/// The least and the greatest fair load of each member.
///
/// The loads of the best plans are the whole points of a base polytope, whose function is the most
/// that a set of members can carry. Its fairest point gives the least load by share to the set that
/// can carry least by share, and so on with the rest.
pub(crate) fn fair(loads: &[Vec<i64>], shares: &[i64]) -> Vec<(i64, i64)> {
    let members = shares.len();
    let most_of = |set: u32| -> i64 {
        let sum = |loads: &Vec<i64>| {
            (0..members).filter(|member| set & (1 << member) != 0).map(|m| loads[m]).sum()
        };
        loads.iter().map(sum).max().unwrap_or(0)
    };
    let mut fair = vec![(0, 0); members];
    let mut done = 0u32;
    let all = (1u32 << members) - 1;
    while done != all {
        let mut least: Option<(i64, i64, u32)> = None;
        for set in 1..=all {
            if set & done != 0 {
                continue;
            }
            let carried = most_of(set | done) - most_of(done);
            let share: i64 =
                (0..members).filter(|member| set & (1 << member) != 0).map(|m| shares[m]).sum();
            let better = least.is_none_or(|(other, other_share, other_set)| {
                let (ours, theirs) = (carried * other_share, other * share);
                ours < theirs || ours == theirs && set.count_ones() > other_set.count_ones()
            });
            if better {
                least = Some((carried, share, set));
            }
        }
        let (carried, share, set) = least.unwrap();
        for member in (0..members).filter(|member| set & (1 << member) != 0) {
            let exact = shares[member] * carried;
            fair[member] = (exact.div_euclid(share), (exact + share - 1).div_euclid(share));
        }
        done |= set;
    }
    fair
}

/// The best score there is, and the fair loads.
pub(crate) fn best(problem: &Problem) -> (Score, Vec<(i64, i64)>) {
    let ways = ways(problem);
    let leading = |score: &Score| (score.unplaced, score.ranks.clone(), score.beyond);
    let top = ways.values().map(leading).min().unwrap();
    let chosen: Vec<(&Vec<i64>, &Score)> =
        ways.iter().filter(|(_, score)| leading(score) == top).collect();
    let shares: Vec<i64> =
        problem.seats().iter().map(|seat| i64::from(seat.share).max(1)).collect();
    let loads: Vec<Vec<i64>> = chosen.iter().map(|(loads, _)| (*loads).clone()).collect();
    let fair = fair(&loads, &shares);
    let score = chosen
        .into_iter()
        .map(|(loads, score)| Score { off: off(problem, loads, &fair), ..score.clone() })
        .min()
        .unwrap();
    (score, fair)
}

/// How many items the loads are off the band of fair ones and the slack.
fn off(problem: &Problem, loads: &[i64], fair: &[(i64, i64)]) -> i64 {
    let slack = i64::from(problem.slack());
    let off = |(load, (least, most)): (&i64, &(i64, i64))| {
        (least - slack - load).max(load - most - slack).max(0)
    };
    loads.iter().zip(fair).map(off).sum()
}

/// The score of a plan.
pub(crate) fn judge(problem: &Problem, desired: &Holdings, fair: &[(i64, i64)]) -> Score {
    let members = problem.seats().len();
    let mut loads = vec![0; members];
    let mut total = Score { ranks: vec![0; RANKS], ..Score::default() };
    for item in 0..desired.len() {
        let mut set = 0;
        for holder in desired.of(item) {
            assert_eq!(set & (1 << holder.member()), 0, "an item has a member twice");
            set |= 1 << holder.member();
            loads[holder.member() as usize] += 1;
        }
        assert!(sets(problem, item).contains(&set), "item {item} may not have {set:b}");
        total = add(&total, &score_item(problem, item, set));
    }
    for (load, seat) in loads.iter().zip(problem.seats()) {
        assert!(*load <= i64::from(seat.limit), "above a limit");
    }
    Score { off: off(problem, &loads, fair), ..total }
}

/// What an election is judged by: unwanted primaries, unevenness, hand-offs, inconsistent ones.
pub(crate) type Ballot = (i64, i64, i64, i64);

/// The best election of primaries among the holders of `desired`.
pub(crate) fn elect(problem: &Problem, desired: &Holdings) -> Ballot {
    let start = (vec![0i64; problem.seats().len()], (0, 0, 0));
    let mut ways = BTreeMap::from([start]);
    for item in 0..desired.len() {
        let mut next: BTreeMap<Vec<i64>, (i64, i64, i64)> = BTreeMap::new();
        for (loads, (unwanted, handed, raw)) in &ways {
            if desired.of(item).is_empty() {
                next.insert(loads.clone(), (*unwanted, *handed, *raw));
            }
            for holder in desired.of(item) {
                let mut loads = loads.clone();
                loads[holder.member() as usize] += 1;
                let more = cost(problem, item, *holder);
                let sum = (unwanted + more.0, handed + more.1, raw + more.2);
                let best = next.entry(loads).or_insert(sum);
                *best = sum.min(*best);
            }
        }
        ways = next;
    }
    let total = |(loads, score): (&Vec<i64>, &(i64, i64, i64))| {
        (score.0, loads.iter().map(|load| load * load).sum(), score.1, score.2)
    };
    ways.iter().map(total).min().unwrap()
}

/// The election that a plan made.
pub(crate) fn elected(problem: &Problem, desired: &Holdings) -> Ballot {
    let mut loads = vec![0i64; problem.seats().len()];
    let mut sum = (0, 0, 0);
    for item in 0..desired.len() {
        let primaries: Vec<&Holder> =
            desired.of(item).iter().filter(|holder| holder.is_primary()).collect();
        assert_eq!(primaries.len(), usize::from(!desired.of(item).is_empty()), "one primary");
        for holder in primaries {
            loads[holder.member() as usize] += 1;
            let more = cost(problem, item, *holder);
            sum = (sum.0 + more.0, sum.1 + more.1, sum.2 + more.2);
        }
    }
    (sum.0, loads.iter().map(|load| load * load).sum(), sum.1, sum.2)
}

/// Unwanted, handed over, not consistent.
fn cost(problem: &Problem, item: usize, holder: Holder) -> (i64, i64, i64) {
    let held = problem.held().of(item);
    let held = held.iter().find(|held| held.member() == holder.member());
    let stays = held.is_some_and(|held| held.is_primary());
    let kept = problem.seats()[holder.member() as usize].primaries == Primaries::Kept;
    let raw = !stays && !held.is_some_and(|held| held.is_consistent());
    (i64::from(kept && !stays), i64::from(!stays), i64::from(raw))
}

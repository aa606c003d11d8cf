//! From the indexed problem to the desired assignments, with a certificate of how good they are.
//!
//! Among all assignments that give every item its replicas on different members, within the limits
//! of the members and the zones that the item is restricted to, the plan is the best by, in this
//! order:
//!
//! 1. the most replicas placed; where not all can be, healthy replicas stay, and among the missing
//!    every item's first comes before anybody's second;
//! 2. the fewest replicas beyond what the zone rule lets a zone take;
//! 3. every member's load beside its fair share, which is the fairest that 1 and 2 allow (by the
//!    members' shares), or as far off as the slack says;
//! 4. the fewest new assignments, then the fewest consistent replicas given up;
//! 5. primaries as even as the placement allows, then the fewest hand-offs.
//!
//! So planning the result of a plan changes nothing.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{
    draft::Sheet,
    exact,
    fair::{Fair, fair},
    fill::{Filled, fill},
    primaries,
    problem::{Holder, Holdings, Problem, holds},
    survey::{Cells, survey},
};

/// The desired assignments, and how good they are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Solution {
    /// Who should hold what. Who held it before is as consistent as it was; nobody new is.
    pub desired: Holdings,
    /// How good that is.
    pub certificate: Certificate,
}

/// Shows that a plan is as good as can be, or how far from that it is at most.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Certificate {
    /// Replicas wanted.
    pub wanted: u64,
    /// Replicas placed.
    pub placed: u64,
    /// The most that can be placed.
    pub placeable: u64,
    /// Replicas that stand in a zone beyond what the zone rule lets it take.
    pub beyond: u64,
    /// The fewest that can be, with so many placed.
    pub beyond_least: u64,
    /// New assignments.
    pub added: u64,
    /// Assignments given up.
    pub removed: u64,
    /// Assignments that stay.
    pub unchanged: u64,
    /// No plan that is as good in all that comes before moves has fewer new assignments than this.
    pub lower_bound: u64,
    /// The smallest number of items that a member with a limit above zero holds.
    pub min_load: u64,
    /// The greatest number of items that a member holds.
    pub max_load: u64,
    /// How far from its fair share, rounded to either side, the farthest member is.
    pub spread: u64,
    /// How far it may be.
    pub slack: u64,
    /// Items that have more replicas in a zone than the zone rule says.
    pub zones_violated: u64,
    /// Items whose primary is handed from a member that keeps holding the item to another one.
    pub hand_offs: u64,
}

impl Certificate {
    /// New assignments that a better plan might save, at most.
    pub fn gap(&self) -> u64 {
        self.added.saturating_sub(self.lower_bound)
    }

    /// Whether nothing can be better, up to and including the number of new assignments.
    pub fn is_best(&self) -> bool {
        self.placed == self.placeable
            && self.beyond == self.beyond_least
            && self.spread <= self.slack
            && self.added <= self.lower_bound
    }

    /// Counts what becomes of one item.
    fn compare(&mut self, holders: &[Holder], held: &[Holder]) {
        if held.is_empty() {
            self.added += count(holders.len());
            return;
        }
        // Who stays, stays mostly in the same place.
        let stays = |(at, holder): (usize, &Holder)| {
            let same = held.get(at).is_some_and(|held| held.member() == holder.member());
            same || holds(held, holder.member())
        };
        let kept = holders.iter().enumerate().filter(|each| stays(*each)).count();
        self.added += count(holders.len() - kept);
        self.removed += count(held.len() - kept);
        if let Some(old) = held.iter().find(|holder| holder.is_primary()) {
            let handed = |holder: &Holder| holder.member() == old.member() && !holder.is_primary();
            self.hand_offs += u64::from(holders.iter().any(handed));
        }
    }

    /// Counts an item's replicas beyond what the zone rule lets a zone take.
    fn count_zones(&mut self, problem: &Problem, item: usize, holders: &[Holder]) {
        let cap = problem.zone_rule.cap(problem.wanted(item)) as usize;
        let zone = |holder: &Holder| problem.seats[holder.member() as usize].zone;
        // Where all are within it, which is nearly always, that is seen at once.
        if cap >= holders.len()
            || cap + 1 == holders.len()
                && holders.iter().any(|other| zone(other) != zone(&holders[0]))
        {
            return;
        }
        let mut zones: Vec<u32> = holders.iter().map(zone).collect();
        zones.sort_unstable();
        let beyond = |zone: &[u32]| zone.len().saturating_sub(cap);
        let beyond: usize = zones.chunk_by(|one, other| one == other).map(beyond).sum();
        self.beyond += count(beyond);
        self.zones_violated += u64::from(beyond > 0);
    }

    /// Replicas that could not be placed.
    pub fn unplaced(&self) -> u64 {
        self.wanted - self.placed
    }
}

/// Why an item does not get all its replicas.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// Each replica needs a member of its own, and no more than so many may hold anything.
    TooFewMembers(u32),
    /// The same, within the zones that the item is restricted to.
    TooFewMembersInItsZones(u32),
    /// All members that might hold one more are full, and nothing can be moved to make room.
    NoRoom,
}

impl Reason {
    /// Why an item does not get all its replicas; `None`: it does.
    pub fn of(problem: &Problem, solution: &Solution, item: usize) -> Option<Self> {
        let placed = count(solution.desired.of(item).len());
        let wanted = u64::from(problem.replication[item]);
        if placed >= wanted {
            return None;
        }
        let open = || problem.seats.iter().filter(|seat| seat.limit > 0);
        let members = count(open().count());
        let in_zones = count(open().filter(|seat| problem.allows(item, seat.zone)).count());
        let small = |members: u64| u32::try_from(members).unwrap_or(u32::MAX);
        Some(if members < wanted {
            Self::TooFewMembers(small(members))
        } else if in_zones < wanted {
            Self::TooFewMembersInItsZones(small(in_zones))
        } else {
            Self::NoRoom
        })
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooFewMembers(members) => {
                write!(f, "only {members} members may hold anything, and each holds one replica")
            }
            Self::TooFewMembersInItsZones(members) => {
                write!(f, "only {members} members are in its zones, and each holds one replica")
            }
            Self::NoRoom => f.write_str("all members that might hold it are full"),
        }
    }
}

/// Items times members up to which the plan is made by one flow, which is exact in every objective.
const SMALL: usize = 1 << 13;

/// Items times members up to which that is still bearable where counting did not find the best.
const BEARABLE: usize = 1 << 18;

/// Plans: decides for every item who is to hold it, by the objectives of [`Problem`] in their order.
pub fn solve(problem: &Problem) -> Solution {
    let size = problem.replication.len().saturating_mul(problem.seats.len());
    let fair = fair(problem);
    if size <= SMALL {
        return by_flow(problem, &fair);
    }
    let counted = by_counting(problem, &fair);
    if size <= BEARABLE && !counted.certificate.is_best() {
        return by_flow(problem, &fair);
    }
    counted
}

/// Plans by counting whatever the size: what [`solve`] does where problems are large.
pub fn solve_by_counting(problem: &Problem) -> Solution {
    by_counting(problem, &fair(problem))
}

fn by_flow(problem: &Problem, fair: &Fair) -> Solution {
    let mut desired = exact::place(problem, fair);
    exact::elect(problem, &mut desired);
    let mut loads = vec![0; problem.seats.len()];
    for holder in desired.all() {
        loads[holder.member() as usize] += 1;
    }
    let items: Vec<u32> = (0..).take(desired.len()).collect();
    let mut certificate = certify(problem, fair, &desired, &items, &loads);
    certificate.lower_bound = certificate.added;
    Solution { desired, certificate }
}

fn by_counting(problem: &Problem, fair: &Fair) -> Solution {
    let cells = Cells::new(problem, fair);
    let (standing, unsound) = survey(problem, fair, &cells);
    let mut filled = fill(problem, fair, &cells, standing, unsound, Sheet::new(problem));
    primaries::elect(problem, &mut filled);
    let Filled { draft: Sheet { desired, .. }, touched, loads, lower_bound, .. } = filled;
    let touched = once(&touched, desired.len());
    let mut certificate = certify(problem, fair, &desired, &touched, &loads);
    certificate.lower_bound = lower_bound;
    Solution { desired, certificate }
}

/// Counts what a plan does: to the items that were touched, given that all others are as they were,
/// and, where that is possible at all, within the zone rule.
fn certify(
    problem: &Problem,
    fair: &Fair,
    desired: &Holdings,
    touched: &[u32],
    loads: &[u32],
) -> Certificate {
    let mut certificate = Certificate {
        wanted: problem.replication.iter().map(|wanted| u64::from(*wanted)).sum(),
        placed: count(desired.all().len()),
        placeable: fair.placed.unsigned_abs(),
        beyond_least: fair.beyond.unsigned_abs(),
        slack: u64::from(problem.slack),
        ..Certificate::default()
    };
    for item in touched {
        let item = *item as usize;
        let holders = desired.of(item);
        certificate.compare(holders, problem.held.of(item));
        if fair.beyond == 0 {
            certificate.count_zones(problem, item, holders);
        }
    }
    if fair.beyond > 0 {
        for (item, holders) in desired.iter().enumerate() {
            certificate.count_zones(problem, item, holders);
        }
    }
    certificate.unchanged = certificate.placed - certificate.added;
    let live = loads.iter().zip(&problem.seats).filter(|(_, seat)| seat.limit > 0);
    certificate.min_load = live.map(|(load, _)| u64::from(*load)).min().unwrap_or(0);
    certificate.max_load = loads.iter().copied().max().map_or(0, u64::from);
    for (load, (least, most)) in loads.iter().zip(&fair.loads) {
        let load = i64::from(*load);
        let off = (least - load).max(load - most).max(0);
        certificate.spread = certificate.spread.max(off.unsigned_abs());
    }
    certificate
}

/// Each item once, in order.
fn once(items: &[u32], end: usize) -> Vec<u32> {
    let mut seen = vec![0u64; end.div_ceil(64)];
    for item in items {
        seen[*item as usize / 64] |= 1 << (item % 64);
    }
    let mut once = Vec::with_capacity(items.len());
    for (block, mut bits) in (0u32..).zip(seen) {
        while bits != 0 {
            once.push(block * 64 + bits.trailing_zeros());
            bits &= bits - 1;
        }
    }
    once
}

fn count(count: usize) -> u64 {
    u64::try_from(count).unwrap_or(u64::MAX)
}

//! How good a plan is, counted from the plan itself, beside what can be at best.

use serde::{Deserialize, Serialize};

use super::{
    draft::Draft,
    fair::Fair,
    problem::{Holder, Problem, index, primary},
};

/// Shows that a plan is as good as can be, or how far from that it is at most.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Certificate {
    /// Replicas wanted.
    pub wanted: u64,
    /// Replicas placed.
    pub placed: u64,
    /// The most that can be placed.
    pub placeable: u64,
    /// Where not all can be placed: replicas that are, though others are not whose turn came before.
    /// First come those that stand, then every item's first, then every item's second.
    pub out_of_turn: u64,
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
            && self.out_of_turn == 0
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
        // Pairs are counted without a branch, because nobody can guess who stays.
        let same =
            |holder: &Holder| held.iter().filter(|other| other.member() == holder.member()).count();
        let kept: usize = holders.iter().map(same).sum();
        self.added += count(holders.len() - kept);
        self.removed += count(held.len() - kept);
        if let Some(old) = primary(held) {
            let handed =
                |holder: &&Holder| (holder.member() == old.member()) & !holder.is_primary();
            self.hand_offs += count(holders.iter().filter(handed).count());
        }
    }

    /// Counts an item's replicas beyond what the zone rule lets a zone take.
    fn count_zones(&mut self, fair: &Fair, cap: usize, holders: &[Holder]) {
        let zone = |holder: &Holder| fair.zones.of(*holder);
        // Where all are within it, which is nearly always, that is seen at once.
        let first = holders.first().map(zone);
        let alike = holders.iter().fold(true, |alike, other| alike & (Some(zone(other)) == first));
        if cap >= holders.len() || cap + 1 == holders.len() && !alike {
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

/// Counts what a plan that wants so many replicas does to the items that were touched, given that all
/// others are as they were, and, where that is possible at all, within the zone rule.
pub(super) fn certify(
    problem: &Problem,
    fair: &Fair,
    draft: &impl Draft,
    wanted: u64,
    touched: &[u32],
    loads: &[u32],
) -> Certificate {
    let mut certificate = Certificate {
        wanted,
        placed: loads.iter().map(|load| u64::from(*load)).sum(),
        placeable: fair.placed.unsigned_abs(),
        beyond_least: fair.beyond.unsigned_abs(),
        slack: u64::from(problem.slack),
        ..Certificate::default()
    };
    let cap_of = |item| problem.zone_rule.cap(problem.wanted(item)) as usize;
    for item in touched {
        let item = *item as usize;
        let row = draft.of(item);
        certificate.compare(row, draft.held(item));
        if fair.beyond == 0 {
            certificate.count_zones(fair, cap_of(item), row);
        }
    }
    if fair.short {
        certificate.out_of_turn = out_of_turn(problem, fair, draft);
    }
    if fair.beyond > 0 {
        for item in 0..draft.len() {
            certificate.count_zones(fair, cap_of(item), draft.of(item));
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

/// How many replicas of a rank could be placed and are not, in favour of others of a later rank.
fn out_of_turn(problem: &Problem, fair: &Fair, draft: &impl Draft) -> u64 {
    let ranks: Vec<_> = fair.classes.list.iter().map(|(class, _)| class.ranks()).collect();
    let mut missing = fair.ranks.clone();
    for item in 0..draft.len() {
        let mut placed = index(draft.of(item).len());
        for (rank, replicas) in &ranks[fair.classes.of(problem, item)] {
            let here = placed.min(*replicas);
            placed -= here;
            *missing.entry(*rank).or_default() -= here;
        }
    }
    missing.values().map(|missing| (*missing).max(0).unsigned_abs()).sum()
}

/// Each item once, in order.
pub(super) fn once(items: &[u32], end: usize) -> Vec<u32> {
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

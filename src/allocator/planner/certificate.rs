//! How good a plan is, counted from the plan itself, beside what can be at best.

use serde::{Deserialize, Serialize};

use super::{
    bits::Bits,
    draft::Draft,
    fair::Fair,
    holder::{Holder, unrolled},
    kinds::Class,
    problem::Problem,
    seat::ZoneRule,
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
    /// Replicas that stand in a zone beyond what the zone rule lets it take, or in what zones lie in; one counts on
    /// each level where it is so.
    pub beyond: u64,
    /// The fewest that can be, with so many placed.
    pub beyond_least: u64,
    /// New assignments.
    pub added: u64,
    /// Assignments given up.
    pub removed: u64,
    /// Assignments that stay.
    pub unchanged: u64,
    /// No plan that is as good in all that comes before moves has fewer new assignments than this. Where not all
    /// that fits is placed nothing is known, and this is the number of new assignments.
    pub lower_bound: u64,
    /// The smallest number of items that a member with a limit above zero holds.
    pub min_load: u64,
    /// The greatest number of items that a member holds.
    pub max_load: u64,
    /// How far from its fair share, rounded to either side, the farthest member is.
    pub spread: u64,
    /// How far it may be.
    pub slack: u64,
    /// Items that break the zone rule, or one of what zones lie in: they have more replicas in a zone than it says; where
    /// it asks for as many zones as possible, more than they must.
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

    /// Is told how few new assignments a plan has at least that places all that fits; of one that does not, that
    /// says nothing.
    pub(super) fn bound_from_below(&mut self, least: u64) {
        self.lower_bound = if self.placed < self.placeable { self.added } else { least };
    }

    /// Counts an item's replicas beyond what the zone rule lets a zone take.
    #[inline]
    fn count_zones(&mut self, zone_rule: ZoneRule, fair: &Fair, class: usize, holders: &[Holder]) {
        let cap = fair.rule[class];
        // Where all are within it, which is nearly always, that is seen at once.
        if fair.zones.are_apart(holders, cap) && fair.levels.are_none() {
            return;
        }
        let beyond = count(fair.zones.beyond(holders, cap));
        let within = count(cap.saturating_mul(fair.open_zones[class]));
        let is_broken = zone_rule.is_broken(beyond, count(holders.len()), within);
        let (around, is_broken_around) = fair.levels.beyond(class, &fair.zones, holders);
        self.beyond += beyond + count(around);
        self.zones_violated += u64::from(is_broken | is_broken_around);
    }

    /// Counts what becomes of items.
    #[inline]
    fn count(&mut self, changes: impl Iterator<Item = Change>) {
        let add = |all: Change, one: Change| Change {
            are: all.are + one.are,
            were: all.were + one.were,
            kept: all.kept + one.kept,
            handed: all.handed + one.handed,
        };
        let Change { are, were, kept, handed } = changes.fold(Change::default(), add);
        self.added += count(are - kept);
        self.removed += count(were - kept);
        self.hand_offs += handed;
    }

    /// Replicas that could not be placed.
    pub fn unplaced(&self) -> u64 {
        self.wanted - self.placed
    }
}

/// So many items are counted at once.
const PART: usize = 1 << 10;

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
    let class_of = |item| fair.classes.of(problem, item);
    // What was not touched is within the zone rule, but not known to be within those of what zones lie in.
    let (zone_rule, within) = (problem.zone_rule, fair.beyond == 0 && fair.levels.are_none());
    let one_class = fair.classes.list.len() == 1;
    // Of rows of three of one class, as most are, the compiler is to know that.
    if let (Some((held, rows)), true) = (draft.threes(), one_class) {
        // One thing is counted after the other, of a part while it is in the near memory.
        for part in touched.chunks(PART) {
            let items = part.iter().map(|item| *item as usize);
            certificate.count(items.clone().map(|item| Change::between(&held[item], &rows[item])));
            if within {
                items.for_each(|item| certificate.count_zones(zone_rule, fair, 0, &rows[item]));
            }
        }
    } else {
        for item in touched.iter().map(|item| *item as usize) {
            let row = draft.of(item);
            certificate.count(std::iter::once(Change::between(draft.held(item), row)));
            if within {
                certificate.count_zones(zone_rule, fair, class_of(item), row);
            }
        }
    }
    if fair.short {
        certificate.out_of_turn = out_of_turn(problem, fair, draft, touched);
    }
    if !within {
        for item in 0..draft.len() {
            certificate.count_zones(zone_rule, fair, class_of(item), draft.of(item));
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
fn out_of_turn(problem: &Problem, fair: &Fair, draft: &impl Draft, touched: &[u32]) -> u64 {
    // By class, and by how many replicas are placed, the items; of those that were not touched all stand.
    let of_class = |(class, all): &(Class, i64)| {
        let mut items = vec![0; class.wanted as usize + 1];
        items[class.standing as usize] = *all;
        items
    };
    let mut items: Vec<Vec<i64>> = fair.classes.list.iter().map(of_class).collect();
    for item in touched.iter().map(|item| *item as usize) {
        let class = fair.classes.of(problem, item);
        items[class][fair.classes.list[class].0.standing as usize] -= 1;
        items[class][draft.of(item).len()] += 1;
    }
    let mut missing = fair.ranks.clone();
    for ((class, _), items) in fair.classes.list.iter().zip(items) {
        for (placed, items) in (0..).zip(items).filter(|(_, items)| *items > 0) {
            let mut placed: i64 = placed;
            for (rank, replicas) in class.ranks() {
                let here = placed.min(replicas);
                placed -= here;
                *missing.entry(rank).or_default() -= here * items;
            }
        }
    }
    missing.values().map(|missing| (*missing).max(0).unsigned_abs()).sum()
}

/// What becomes of an item: how many hold it, and did, and do still, and whether its primary is handed from one
/// of those to another.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Change {
    are: usize,
    were: usize,
    kept: usize,
    handed: u64,
}

impl Change {
    #[inline]
    fn between<R: AsRef<[Holder]> + ?Sized>(held: &R, row: &R) -> Self {
        let (are, were) = (row.as_ref().len(), held.as_ref().len());
        let (mut kept, mut handed) = in_place(held, row);
        // One that does not stay in its place is not in another one's, if all others stay.
        if kept + 1 < are.max(were) {
            (kept, handed) = by_pairs(held, row);
        }
        Self { are, were, kept, handed }
    }
}

/// How many of the holders held the item before, and whether the primary is handed on by one of them, as far as
/// they stay in their places, as most do: without a branch, because nobody can guess who stays.
#[inline]
fn in_place<R: AsRef<[Holder]> + ?Sized>(held: &R, row: &R) -> (usize, u64) {
    let pairs = row.as_ref().iter().zip(held.as_ref()).map(|(holder, held)| holder.after(*held));
    let add = |(all, any): (u32, u32), (stays, hands)| (all + stays, any + hands);
    let (kept, handed) = pairs.fold((0, 0), add);
    (kept as usize, handed.into())
}

/// The same of whatever places they are in. Pairs are counted without a branch too.
#[inline(never)]
fn by_pairs<R: AsRef<[Holder]> + ?Sized>(held: &R, row: &R) -> (usize, u64) {
    let (holders, held) = (row.as_ref(), held.as_ref());
    let (mut kept, mut handed) = (0, 0);
    for holder in holders {
        let after = |held: &[Holder]| {
            held.iter()
                .map(|held| holder.after(*held))
                .fold((0, 0), |(all, any), (stays, hands)| {
                    (all + stays as usize, any + u64::from(hands))
                })
        };
        let (stays, hands) = unrolled(held, after);
        (kept, handed) = (kept + stays, handed + hands);
    }
    (kept, handed)
}

/// Each item once; the first so many are in order, and each is there once.
pub(super) fn once(mut items: Vec<u32>, ordered: usize, end: usize) -> Vec<u32> {
    let others = items.len() - ordered;
    if others < ordered / 16 {
        let mut more = items.split_off(ordered);
        more.sort_unstable();
        more.dedup();
        more.retain(|item| items.binary_search(item).is_err());
        items.append(&mut more);
        return items;
    }
    let mut seen = Bits::none(end);
    for item in &items {
        seen.add(*item as usize);
    }
    items.clear();
    items.extend(seen.iter());
    items
}

fn count(count: usize) -> u64 {
    u64::try_from(count).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_item_is_counted_once_whether_few_or_many_come_behind_those_in_order() {
        for more in [0, 1, 5, 100] {
            let ordered: Vec<u32> = (0..90).map(|item| item * 2).collect();
            let others = (0..more).map(|turn| turn * 37 % 190);
            let items: Vec<u32> = ordered.iter().copied().chain(others.clone()).collect();
            let mut once = once(items, ordered.len(), 200);
            once.sort_unstable();
            let mut expected: Vec<u32> = ordered.into_iter().chain(others).collect();
            expected.sort_unstable();
            expected.dedup();
            assert_eq!(once, expected);
        }
    }

    #[test]
    fn who_changed_places_has_not_moved() {
        let (a, b, c, d) = (Holder::new(1), Holder::new(2), Holder::new(3), Holder::new(4));
        let count = |row: &[Holder], held: &[Holder]| {
            let Change { are, were, kept, handed } = Change::between(held, row);
            (are - kept, were - kept, handed)
        };
        assert_eq!(count(&[a, b, c], &[a, b, c]), (0, 0, 0));
        assert_eq!(count(&[b, c, a], &[a, b, c]), (0, 0, 0));
        assert_eq!(count(&[d, b, c], &[a, b, c]), (1, 1, 0));
        assert_eq!(count(&[b, a], &[a, b, c]), (0, 1, 0));
        assert_eq!(count(&[a, b, c, d], &[a, b, c]), (1, 0, 0));
        assert_eq!(count(&[a, b.primary(), d], &[a.primary(), b, c]), (1, 1, 1));
        assert_eq!(count(&[b.primary(), d, c], &[a.primary(), b, c]), (1, 1, 0));
        assert_eq!(count(&[b, a.primary(), c], &[a, b.primary(), c]), (0, 0, 1));
        assert_eq!(count(&[a.primary()], &[]), (1, 0, 0));
    }
}

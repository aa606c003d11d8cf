//! What stands now, counted by member and by class, and the items that cannot stay as they are.
//!
//! This is the one reading of all assignments that a plan needs.

use std::cmp::Ordering;

use super::{
    fair::Fair,
    kinds::{NOWHERE, Zones, narrow},
    problem::{Holder, Problem},
};

/// Members that totals are counted together for: a group, or a whole zone where there are many groups.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Cells {
    /// By cell: its zone, and its members.
    pub list: Vec<(usize, Vec<u32>)>,
    /// By member, its cell, or [`NOWHERE`].
    pub of_member: Vec<u32>,
}

/// Classes times groups up to which each group is a cell.
const DETAIL: usize = 1 << 12;

impl Cells {
    pub(super) fn new(problem: &Problem, fair: &Fair) -> Self {
        let groups = &fair.groups.list;
        let list = if fair.classes.list.len().saturating_mul(groups.len()) <= DETAIL {
            groups.iter().map(|((zone, ..), members)| (*zone as usize, members.clone())).collect()
        } else {
            let mut list: Vec<(usize, Vec<u32>)> =
                (0..fair.zones.len()).map(|zone| (zone, Vec::new())).collect();
            for (member, zone) in (0..).zip(&fair.zones.of_member) {
                if let Some((_, members)) = list.get_mut(*zone as usize) {
                    members.push(member);
                }
            }
            list
        };
        let mut of_member = vec![NOWHERE; problem.seats.len()];
        for (cell, (_, members)) in list.iter().enumerate() {
            for member in members {
                of_member[*member as usize] = narrow(cell);
            }
        }
        Self { list, of_member }
    }
}

/// What stands and may stay, counted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Standing {
    /// By member.
    pub of_member: Vec<u32>,
    /// By member, those of them that are primaries.
    pub primaries: Vec<u32>,
    /// By class and cell.
    pub of_cell: Vec<u32>,
    /// Those that are not consistent.
    pub raw: u64,
}

impl Standing {
    /// By class and zone.
    pub(super) fn of_zone(&self, fair: &Fair, cells: &Cells) -> Vec<u32> {
        let zones = fair.zones.len();
        let mut of_zone = vec![0; fair.classes.list.len() * zones];
        for (at, held) in self.of_cell.iter().enumerate() {
            let (class, cell) = (at / cells.list.len(), at % cells.list.len());
            of_zone[class * zones + cells.list[cell].0] += held;
        }
        of_zone
    }
}

/// What stands at a member, and its zone.
#[derive(Clone, Copy, Default)]
struct Tally {
    zone: u32,
    replicas: u32,
    primaries: u32,
}

/// Counts what stands, and lists the items that do not have exactly what they want, as far as limits
/// above zero and zones are concerned.
pub(super) fn survey(problem: &Problem, fair: &Fair, cells: &Cells) -> (Standing, Vec<u32>) {
    let classes = fair.classes.list.len();
    let mut unsound = Vec::new();
    let mut of_cell = vec![0; classes * cells.list.len()];
    // All that is asked about a member in one place.
    let tally = |zone: &u32| Tally { zone: *zone, ..Tally::default() };
    let mut tallies: Vec<Tally> = fair.zones.of_member.iter().map(tally).collect();
    let mut raw = 0;
    let mut count = |holder: Holder| {
        let tally = &mut tallies[holder.member() as usize];
        tally.replicas += 1;
        tally.primaries += u32::from(holder.is_primary());
        raw += u64::from(!holder.is_consistent());
        tally.zone
    };
    if classes == 1 && problem.zone_set.is_empty() {
        // What is counted for a member that may hold nothing is taken back below.
        let (wanted, cap) = (problem.wanted(0) as usize, fair.caps[0]);
        for (item, held) in (0..).zip(problem.held.iter()) {
            // Zones are alike if each bit that any has, all have; and nowhere has all bits.
            let (mut any, mut all) = (0, u32::MAX);
            for holder in held {
                let zone = count(*holder);
                (any, all) = (any | zone, all & zone);
            }
            let kept = match (cap + 1).cmp(&wanted) {
                Ordering::Less => beyond(&fair.zones, held, cap) == 0,
                Ordering::Equal => any != all,
                Ordering::Greater => true,
            };
            // No branch, because nobody can guess where members were lost.
            let sound =
                usize::from(held.len() == wanted) & usize::from(any != NOWHERE) & usize::from(kept);
            unsound.push(item);
            unsound.truncate(unsound.len() - sound);
        }
    } else {
        for (item, held) in problem.held.iter().enumerate() {
            let class = fair.classes.of(problem, item);
            let row = class * cells.list.len();
            for holder in held.iter().filter(|holder| fair.is_legal(class, **holder)) {
                count(*holder);
                of_cell[row + cells.of_member[holder.member() as usize] as usize] += 1;
            }
            if !is_sound(fair, class, problem.wanted(item) as usize, held) {
                unsound.push(narrow(item));
            }
        }
    }
    let mut standing = Standing { of_cell, raw, ..Standing::default() };
    for Tally { zone, replicas, primaries } in tallies {
        let stands = u32::from(zone != NOWHERE);
        standing.of_member.push(stands * replicas);
        standing.primaries.push(stands * primaries);
    }
    if classes == 1 && problem.zone_set.is_empty() {
        for (held, cell) in standing.of_member.iter().zip(&cells.of_member) {
            if let Some(of_cell) = standing.of_cell.get_mut(*cell as usize) {
                *of_cell += held;
            }
        }
    }
    (standing, unsound)
}

/// Whether an item has as many replicas as it should, all of them may stay, and no zone has too many.
pub(super) fn is_sound(fair: &Fair, class: usize, goal: usize, held: &[Holder]) -> bool {
    held.len() == goal
        && fits(&fair.zones, held, fair.caps[class])
        && held.iter().all(|holder| fair.is_legal(class, *holder))
}

/// Whether all holders may hold something, and there are no more than `cap` of them in a zone.
#[inline]
fn fits(zones: &Zones, held: &[Holder], cap: usize) -> bool {
    let Some(first) = held.first() else { return true };
    let first = zones.of(*first);
    let (mut gone, mut apart) = (false, false);
    for holder in held {
        let zone = zones.of(*holder);
        gone |= zone == NOWHERE;
        apart |= zone != first;
    }
    if cap + 1 < held.len() {
        return !gone && apart && beyond(zones, held, cap) == 0;
    }
    // No branch here either.
    !gone & (apart | (cap >= held.len()))
}

/// Rows of more holders than this are not compared pair by pair.
const LONG: usize = 16;

/// How many of the holders are beyond what a zone may take.
fn beyond(zones: &Zones, holders: &[Holder], cap: usize) -> usize {
    let zone = |holder: &Holder| zones.of(*holder);
    if holders.len() <= LONG {
        let before = |at: usize| {
            holders[..at].iter().filter(|other| zone(other) == zone(&holders[at])).count()
        };
        return (0..holders.len()).filter(|at| before(*at) >= cap).count();
    }
    let mut of: Vec<u32> = holders.iter().map(zone).collect();
    of.sort_unstable();
    of.chunk_by(|one, other| one == other).map(|zone| zone.len().saturating_sub(cap)).sum()
}
